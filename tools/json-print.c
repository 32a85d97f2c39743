/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* JSON text as QEMU's programs write it; see json-print.h. */
#include "tools/json-print.h"

#include <string.h>

static void append_value(GString *out, JsonNode *node, int depth);

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

static void append_character(GString *out, gunichar c)
{
    static const char plain[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *special = c != 0 && c < 0x80 ? strchr(plain, (int)c) : NULL;

    if (special != NULL) {
        g_string_append_printf(out, "\\%c", letters[special - plain]);
    } else if (c >= 0x20 && c < 0x7f) {
        g_string_append_c(out, (char)c);
    } else if (c > 0xffff) {
        /* JSON counts in UTF-16: two surrogates. */
        g_string_append_printf(out, "\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10),
                               0xdc00 + ((c - 0x10000) & 0x3ff));
    } else {
        g_string_append_printf(out, "\\u%04X", c);
    }
}

static void append_string(GString *out, const char *string)
{
    const char *p = string;

    g_string_append_c(out, '"');
    while (*p != '\0') {
        append_character(out, next_character(&p));
    }
    g_string_append_c(out, '"');
}

static void append_line(GString *out, int depth)
{
    g_string_append_printf(out, "\n%*s", depth * 4, "");
}

static void append_object(GString *out, JsonObject *object, int depth)
{
    const char *separator = "";
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    g_string_append_c(out, '{');
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        g_string_append(out, separator);
        append_line(out, depth + 1);
        append_string(out, name);
        g_string_append(out, ": ");
        append_value(out, value, depth + 1);
        separator = ",";
    }
    append_line(out, depth);
    g_string_append_c(out, '}');
}

static void append_array(GString *out, JsonArray *array, int depth)
{
    guint length = json_array_get_length(array);

    g_string_append_c(out, '[');
    for (guint i = 0; i < length; i++) {
        g_string_append(out, i > 0 ? "," : "");
        append_line(out, depth + 1);
        append_value(out, json_array_get_element(array, i), depth + 1);
    }
    append_line(out, depth);
    g_string_append_c(out, ']');
}

static void append_scalar(GString *out, JsonNode *node)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    switch (json_node_get_value_type(node)) {
    case G_TYPE_STRING:
        append_string(out, json_node_get_string(node));
        break;
    case G_TYPE_BOOLEAN:
        g_string_append(out, json_node_get_boolean(node) ? "true" : "false");
        break;
    case G_TYPE_DOUBLE:
        g_string_append(out, g_ascii_dtostr(number, sizeof(number), json_node_get_double(node)));
        break;
    default:
        g_string_append_printf(out, "%" G_GINT64_FORMAT, json_node_get_int(node));
        break;
    }
}

static void append_value(GString *out, JsonNode *node, int depth)
{
    switch (json_node_get_node_type(node)) {
    case JSON_NODE_OBJECT:
        append_object(out, json_node_get_object(node), depth);
        break;
    case JSON_NODE_ARRAY:
        append_array(out, json_node_get_array(node), depth);
        break;
    case JSON_NODE_VALUE:
        append_scalar(out, node);
        break;
    default:
        g_string_append(out, "null");
        break;
    }
}

char *json_text(JsonNode *node)
{
    GString *out = g_string_new(NULL);

    append_value(out, node, 0);
    return g_string_free(out, FALSE);
}

char *json_object_text(JsonObject *object)
{
    GString *out = g_string_new(NULL);

    append_object(out, object, 0);
    return g_string_free(out, FALSE);
}

char *json_array_text(JsonArray *array)
{
    GString *out = g_string_new(NULL);

    append_array(out, array, 0);
    return g_string_free(out, FALSE);
}

char *json_quote(const char *string)
{
    GString *out = g_string_new(NULL);

    append_string(out, string);
    return g_string_free(out, FALSE);
}
