/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading and writing JSON text.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include "blockgraph/error.h"
#include "block/json-text.h"

typedef struct Reader {
    const char *start;
    const char *p;
    unsigned depth;
    GError **errp;
} Reader;

static JsonNode *read_value(Reader *r);

/* Fails at the current place; returns NULL. */
static void *bad(Reader *r, const char *what)
{
    if (*r->p == 0) {
        block_error_set(r->errp, EINVAL, "JSON parse error, %s at the end", what);
    } else {
        block_error_set(r->errp, EINVAL, "JSON parse error, %s at byte %td", what,
                        r->p - r->start);
    }
    return NULL;
}

static void skip_blanks(Reader *r)
{
    r->p += strspn(r->p, " \t\r\n");
}

/* ---- Scalars ---------------------------------------------------------------- */

static bool read_hex4(Reader *r, gunichar *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++, r->p++) {
        if (!g_ascii_isxdigit(*r->p)) {
            bad(r, "expected four hexadecimal digits");
            return false;
        }
        *value = *value * 16 + g_ascii_xdigit_value(*r->p);
    }
    return true;
}

/* What follows "\u": one code point, from two halves if need be. */
static bool read_code_point(Reader *r, GString *out)
{
    gunichar c, low;

    if (!read_hex4(r, &c)) {
        return false;
    }
    if (c >= 0xd800 && c < 0xdc00 && r->p[0] == '\\' && r->p[1] == 'u') {
        r->p += 2;
        if (!read_hex4(r, &low)) {
            return false;
        }
        if (low < 0xdc00 || low > 0xdfff) {
            bad(r, "unpaired surrogate");
            return false;
        }
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    if (c == 0 || !g_unichar_validate(c)) {
        bad(r, "invalid character");
        return false;
    }
    g_string_append_unichar(out, c);
    return true;
}

static bool read_escape(Reader *r, GString *out)
{
    static const char names[] = "\"'\\/bfnrt";
    static const char values[] = "\"'\\/\b\f\n\r\t";
    const char *name;

    if (*r->p == 'u') {
        r->p++;
        return read_code_point(r, out);
    }
    name = *r->p ? strchr(names, *r->p) : NULL;
    if (!name) {
        bad(r, "invalid escape");
        return false;
    }
    g_string_append_c(out, values[name - names]);
    r->p++;
    return true;
}

/* A new string, or NULL. */
static char *read_string(Reader *r)
{
    g_autoptr(GString) out = g_string_new(NULL);
    const char quote = *r->p;

    if (quote != '"' && quote != '\'') {
        return bad(r, "expected a string");
    }
    r->p++;
    while (*r->p != quote) {
        if ((unsigned char)*r->p < ' ') {
            return bad(r, "expected the end of a string");
        }
        if (*r->p == '\\') {
            r->p++;
            if (!read_escape(r, out)) {
                return NULL;
            }
        } else {
            g_string_append_c(out, *r->p++);
        }
    }
    r->p++;
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static bool skip_digits(Reader *r)
{
    const char *start = r->p;

    while (g_ascii_isdigit(*r->p)) {
        r->p++;
    }
    return r->p > start;
}

static JsonNode *read_number(Reader *r)
{
    const char *start = r->p;
    bool is_int = true, ok;
    int64_t value;

    r->p += *r->p == '-';
    if (*r->p == '0') {
        r->p++;
        ok = !g_ascii_isdigit(*r->p);
    } else {
        ok = skip_digits(r);
    }
    if (ok && *r->p == '.') {
        r->p++;
        is_int = false;
        ok = skip_digits(r);
    }
    if (ok && (*r->p == 'e' || *r->p == 'E')) {
        r->p++;
        is_int = false;
        r->p += *r->p == '+' || *r->p == '-';
        ok = skip_digits(r);
    }
    if (!ok) {
        return bad(r, "invalid number");
    }
    if (!is_int) {
        return json_node_init_double(json_node_alloc(), g_ascii_strtod(start, NULL));
    }
    errno = 0;
    value = g_ascii_strtoll(start, NULL, 10);
    if (errno != 0) {
        return bad(r, "number out of range");
    }
    return json_node_init_int(json_node_alloc(), value);
}

static JsonNode *read_word(Reader *r)
{
    const char *start = r->p;
    size_t len;

    while (g_ascii_isalpha(*r->p)) {
        r->p++;
    }
    len = r->p - start;
    if (len == 4 && memcmp(start, "true", 4) == 0) {
        return json_node_init_boolean(json_node_alloc(), TRUE);
    }
    if (len == 5 && memcmp(start, "false", 5) == 0) {
        return json_node_init_boolean(json_node_alloc(), FALSE);
    }
    if (len == 4 && memcmp(start, "null", 4) == 0) {
        return json_node_init_null(json_node_alloc());
    }
    r->p = start;
    return bad(r, "expected a value");
}

/* ---- Containers ------------------------------------------------------------- */

/* Behind an element: 1 if another one follows, 0 at @end, -1 for neither. */
static int read_separator(Reader *r, char end)
{
    skip_blanks(r);
    if (*r->p != ',' && *r->p != end) {
        bad(r, end == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
        return -1;
    }
    return *r->p++ == ',';
}

static bool read_member(Reader *r, JsonObject *object)
{
    g_autofree char *name = NULL;
    JsonNode *value;

    skip_blanks(r);
    name = read_string(r);
    if (!name) {
        return false;
    }
    if (json_object_has_member(object, name)) {
        block_error_set(r->errp, EINVAL, "JSON parse error, duplicate key '%s'", name);
        return false;
    }
    skip_blanks(r);
    if (*r->p != ':') {
        bad(r, "expected ':'");
        return false;
    }
    r->p++;
    value = read_value(r);
    if (!value) {
        return false;
    }
    json_object_set_member(object, name, value);
    return true;
}

static JsonNode *read_object(Reader *r)
{
    g_autoptr(JsonObject) object = json_object_new();
    int more = 1;

    r->p++;
    skip_blanks(r);
    if (*r->p == '}') {
        r->p++;
        more = 0;
    }
    while (more > 0) {
        if (!read_member(r, object)) {
            return NULL;
        }
        more = read_separator(r, '}');
    }
    return more < 0 ? NULL : json_node_init_object(json_node_alloc(), object);
}

static JsonNode *read_array(Reader *r)
{
    g_autoptr(JsonArray) array = json_array_new();
    int more = 1;

    r->p++;
    skip_blanks(r);
    if (*r->p == ']') {
        r->p++;
        more = 0;
    }
    while (more > 0) {
        JsonNode *value = read_value(r);

        if (!value) {
            return NULL;
        }
        json_array_add_element(array, value);
        more = read_separator(r, ']');
    }
    return more < 0 ? NULL : json_node_init_array(json_node_alloc(), array);
}

static JsonNode *read_value(Reader *r)
{
    JsonNode *node;
    char *string;

    skip_blanks(r);
    switch (*r->p) {
    case '{':
    case '[':
        if (r->depth >= JSON_TEXT_MAX_DEPTH) {
            return bad(r, "values nested too deep");
        }
        r->depth++;
        node = *r->p == '{' ? read_object(r) : read_array(r);
        r->depth--;
        return node;
    case '"':
    case '\'':
        string = read_string(r);
        if (!string) {
            return NULL;
        }
        node = json_node_init_string(json_node_alloc(), string);
        g_free(string);
        return node;
    case '-':
    case '0' ... '9':
        return read_number(r);
    default:
        return read_word(r);
    }
}

JsonNode *json_text_parse(const char *text, GError **errp)
{
    Reader r = { .start = text, .p = text, .errp = errp };
    g_autoptr(JsonNode) node = NULL;
    const char *end;

    if (strnlen(text, JSON_TEXT_MAX_BYTES + 1) > JSON_TEXT_MAX_BYTES) {
        block_error_set(errp, EINVAL, "JSON parse error, longer than %d bytes",
                        JSON_TEXT_MAX_BYTES);
        return NULL;
    }
    if (!g_utf8_validate(text, -1, &end)) {
        r.p = end;
        return bad(&r, "invalid UTF-8");
    }
    node = read_value(&r);
    if (!node) {
        return NULL;
    }
    skip_blanks(&r);
    if (*r.p != 0) {
        return bad(&r, "expected the end");
    }
    return g_steal_pointer(&node);
}

/* ---- Writing ---------------------------------------------------------------- */

static void append_code_point(GString *out, gunichar c)
{
    if (c == '"' || c == '\\') {
        g_string_append_printf(out, "\\%c", (char)c);
    } else if (c >= ' ' && c < 0x7f) {
        g_string_append_c(out, c);
    } else if (c >= 0x10000) {
        c -= 0x10000;
        g_string_append_printf(out, "\\u%04X\\u%04X", 0xd800 + (c >> 10), 0xdc00 + (c & 0x3ff));
    } else {
        const char *names = "b\bf\fn\nr\rt\t";

        for (const char *n = names; *n; n += 2) {
            if (c == n[1]) {
                g_string_append_printf(out, "\\%c", n[0]);
                return;
            }
        }
        g_string_append_printf(out, "\\u%04X", c);
    }
}

static void append_string(GString *out, const char *text)
{
    g_string_append_c(out, '"');
    while (*text) {
        gunichar c = g_utf8_get_char_validated(text, -1);

        /* A file's name need not be UTF-8. */
        if (c == (gunichar)-1 || c == (gunichar)-2) {
            append_code_point(out, 0xfffd);
            text++;
        } else {
            append_code_point(out, c);
            text = g_utf8_next_char(text);
        }
    }
    g_string_append_c(out, '"');
}

static void append_scalar(GString *out, JsonNode *node)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];
    GType type = JSON_NODE_HOLDS_VALUE(node) ? json_node_get_value_type(node) : G_TYPE_INVALID;

    if (type == G_TYPE_STRING) {
        append_string(out, json_node_get_string(node));
    } else if (type == G_TYPE_BOOLEAN) {
        g_string_append(out, json_node_get_boolean(node) ? "true" : "false");
    } else if (type == G_TYPE_INT64) {
        g_string_append_printf(out, "%" G_GINT64_FORMAT, json_node_get_int(node));
    } else if (type == G_TYPE_DOUBLE) {
        g_string_append(out, g_ascii_dtostr(number, sizeof(number), json_node_get_double(node)));
    } else {
        g_string_append(out, "null");
    }
}

static void append_object(GString *out, JsonObject *object)
{
    g_autoptr(GList) names = json_object_get_members(object);

    g_string_append_c(out, '{');
    for (GList *l = names; l; l = l->next) {
        append_string(out, l->data);
        g_string_append(out, ": ");
        json_text_append(out, json_object_get_member(object, l->data));
        g_string_append(out, l->next ? ", " : "");
    }
    g_string_append_c(out, '}');
}

void json_text_append(GString *out, JsonNode *node)
{
    if (JSON_NODE_HOLDS_OBJECT(node)) {
        append_object(out, json_node_get_object(node));
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        JsonArray *array = json_node_get_array(node);
        unsigned length = json_array_get_length(array);

        g_string_append_c(out, '[');
        for (unsigned i = 0; i < length; i++) {
            g_string_append(out, i > 0 ? ", " : "");
            json_text_append(out, json_array_get_element(array, i));
        }
        g_string_append_c(out, ']');
    } else {
        append_scalar(out, node);
    }
}
