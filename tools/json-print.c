/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON text as QEMU's programs write it; see json-print.h. */
#include "tools/json-print.h"

#include <string.h>

/* ---- Text ------------------------------------------------------------------------ */

/* The next character of @p, U+FFFD for a byte that is no UTF-8; moves *@p on. */
static gunichar next_character(const char **p)
{
    gunichar c = g_utf8_get_char_validated(*p, -1);

    if (c == (gunichar)-1 || c == (gunichar)-2) {
        *p += 1;
        return 0xfffd;
    }
    *p = g_utf8_next_char(*p);
    return c;
}

/* One unit of UTF-16 as "\uXXXX". Not by printf: an image may hold millions. */
static void append_escape(GString *out, unsigned unit)
{
    static const char digits[] = "0123456789ABCDEF";
    const char text[] = { '\\', 'u', digits[unit >> 12 & 15], digits[unit >> 8 & 15],
                          digits[unit >> 4 & 15], digits[unit & 15] };

    g_string_append_len(out, text, sizeof(text));
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void append_character(GString *out, gunichar c)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *found = c < 0x80 ? strchr(special, (int)c) : NULL;

    if (found != NULL) {
        g_string_append_c(out, '\\');
        g_string_append_c(out, letters[found - special]);
    } else if (c > 0xffff) {
        /* JSON counts in UTF-16: two surrogates. */
        append_escape(out, 0xd800 + ((c - 0x10000) >> 10));
        append_escape(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
    } else {
        append_escape(out, c);
    }
}

static void append_string(GString *out, const char *string)
{
    const char *p = string;

    g_string_append_c(out, '"');
    while (*p != '\0') {
        const char *plain = p;

        while (is_plain((unsigned char)*p)) {
            p++;
        }
        g_string_append_len(out, plain, p - plain);
        if (*p != '\0') {
            append_character(out, next_character(&p));
        }
    }
    g_string_append_c(out, '"');
}

static void append_line(GString *out, int depth)
{
    g_string_append_printf(out, "\n%*s", depth * 4, "");
}

/* ---- Piece by piece ------------------------------------------------------------- */

/* As much text as is held back before it goes to the file. */
#define BUFFERED (64 * 1024)

void json_printer_init(JsonPrinter *p, FILE *file)
{
    *p = (JsonPrinter){ .file = file, .text = g_string_sized_new(BUFFERED), .first = true };
}

static void write_out(JsonPrinter *p)
{
    /* An error stays with the file, see tool_close_stdout(). */
    fwrite(p->text->str, 1, p->text->len, p->file);
    g_string_truncate(p->text, 0);
}

void json_printer_finish(JsonPrinter *p)
{
    g_string_append_c(p->text, '\n');
    write_out(p);
    g_string_free(p->text, TRUE);
}

/* What comes before a value: a comma, the line's beginning, the name. */
static void begin_value(JsonPrinter *p, const char *name)
{
    if (p->text->len >= BUFFERED) {
        write_out(p);
    }
    if (p->depth > 0) {
        g_string_append(p->text, p->first ? "" : ",");
        append_line(p->text, p->depth);
    }
    if (name != NULL) {
        append_string(p->text, name);
        g_string_append(p->text, ": ");
    }
    p->first = false;
}

void json_printer_begin(JsonPrinter *p, const char *name, char bracket)
{
    begin_value(p, name);
    g_string_append_c(p->text, bracket);
    p->depth++;
    p->first = true;
}

void json_printer_end(JsonPrinter *p, char bracket)
{
    p->depth--;
    append_line(p->text, p->depth);
    g_string_append_c(p->text, bracket);
    p->first = false;
}

void json_printer_string(JsonPrinter *p, const char *name, const char *value)
{
    begin_value(p, name);
    append_string(p->text, value);
}

void json_printer_int(JsonPrinter *p, const char *name, int64_t value)
{
    begin_value(p, name);
    g_string_append_printf(p->text, "%" G_GINT64_FORMAT, value);
}

void json_printer_bool(JsonPrinter *p, const char *name, bool value)
{
    begin_value(p, name);
    g_string_append(p->text, value ? "true" : "false");
}

/* ---- Documents ---------------------------------------------------------------------- */

void json_printer_object(JsonPrinter *p, const char *name, JsonObject *object)
{
    JsonObjectIter iter;
    const char *member;
    JsonNode *value;

    json_printer_begin(p, name, '{');
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &member, &value)) {
        json_printer_node(p, member, value);
    }
    json_printer_end(p, '}');
}

static void print_array(JsonPrinter *p, const char *name, JsonArray *array)
{
    guint length = json_array_get_length(array);

    json_printer_begin(p, name, '[');
    for (guint i = 0; i < length; i++) {
        json_printer_node(p, NULL, json_array_get_element(array, i));
    }
    json_printer_end(p, ']');
}

static void print_scalar(JsonPrinter *p, const char *name, JsonNode *node)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    switch (json_node_get_value_type(node)) {
    case G_TYPE_STRING:
        json_printer_string(p, name, json_node_get_string(node));
        break;
    case G_TYPE_BOOLEAN:
        json_printer_bool(p, name, json_node_get_boolean(node));
        break;
    case G_TYPE_DOUBLE:
        begin_value(p, name);
        g_string_append(p->text,
                        g_ascii_dtostr(number, sizeof(number), json_node_get_double(node)));
        break;
    default:
        json_printer_int(p, name, json_node_get_int(node));
        break;
    }
}

void json_printer_node(JsonPrinter *p, const char *name, JsonNode *node)
{
    switch (json_node_get_node_type(node)) {
    case JSON_NODE_OBJECT:
        json_printer_object(p, name, json_node_get_object(node));
        break;
    case JSON_NODE_ARRAY:
        print_array(p, name, json_node_get_array(node));
        break;
    case JSON_NODE_VALUE:
        print_scalar(p, name, node);
        break;
    default:
        begin_value(p, name);
        g_string_append(p->text, "null");
        break;
    }
}

char *json_quote(const char *string)
{
    GString *out = g_string_new(NULL);

    append_string(out, string);
    return g_string_free(out, FALSE);
}
