/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options as objects: copying, merging, writing, and taking values out.
 */
#include <errno.h>
#include <string.h>
#include "blockgraph/error.h"
#include "blockgraph/options.h"
#include "block/json-text.h"

static JsonNode *copy_node(JsonNode *node)
{
    JsonArray *array, *copy;

    if (JSON_NODE_HOLDS_OBJECT(node)) {
        JsonNode *to = json_node_alloc();

        json_node_init(to, JSON_NODE_OBJECT);
        json_node_take_object(to, block_options_copy(json_node_get_object(node)));
        return to;
    }
    if (!JSON_NODE_HOLDS_ARRAY(node)) {
        return json_node_copy(node);
    }
    array = json_node_get_array(node);
    copy = json_array_new();
    for (unsigned i = 0; i < json_array_get_length(array); i++) {
        json_array_add_element(copy, copy_node(json_array_get_element(array, i)));
    }
    node = json_node_init_array(json_node_alloc(), copy);
    json_array_unref(copy);
    return node;
}

JsonObject *block_options_copy(JsonObject *options)
{
    JsonObject *copy = json_object_new();

    if (options) {
        block_options_merge(copy, options);
    }
    return copy;
}

void block_options_merge(JsonObject *into, JsonObject *from)
{
    g_autoptr(GList) names = json_object_get_members(from);

    for (GList *l = names; l; l = l->next) {
        JsonNode *old = json_object_get_member(into, l->data);
        JsonNode *new = json_object_get_member(from, l->data);

        if (!old) {
            json_object_set_member(into, l->data, copy_node(new));
        } else if (JSON_NODE_HOLDS_OBJECT(old) && JSON_NODE_HOLDS_OBJECT(new)) {
            block_options_merge(json_node_get_object(old), json_node_get_object(new));
        }
    }
}

char *block_options_to_filename(JsonObject *options)
{
    GString *out = g_string_new("json:");
    g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), options);

    json_text_append(out, node);
    return g_string_free(out, FALSE);
}

/* ---- Taking ------------------------------------------------------------------- */

/* Remove member @key and return it, or NULL. */
static JsonNode *take(JsonObject *options, const char *key)
{
    JsonNode *node = json_object_dup_member(options, key);

    if (node) {
        json_object_remove_member(options, key);
    }
    return node;
}

/* @node's string, or NULL if it is something else. */
static const char *string_of(JsonNode *node)
{
    if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_STRING) {
        return NULL;
    }
    return json_node_get_string(node);
}

static bool is_int(JsonNode *node)
{
    return JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_INT64;
}

/* "Parameter 'key' expects WHAT, not 'value'"; returns false. */
static bool refuse(const char *key, JsonNode *node, const char *what, GError **errp)
{
    g_autoptr(GString) value = g_string_new(NULL);

    if (string_of(node)) {
        g_string_append(value, string_of(node));
    } else {
        json_text_append(value, node);
    }
    block_error_set(errp, EINVAL, "Parameter '%s' expects %s, not '%s'", key, what, value->str);
    return false;
}

bool block_options_take_string(JsonObject *options, const char *key, char **value, GError **errp)
{
    g_autoptr(JsonNode) node = take(options, key);

    if (!node) {
        return true;
    }
    if (!string_of(node)) {
        return refuse(key, node, "a string", errp);
    }
    *value = g_strdup(string_of(node));
    return true;
}

bool block_options_take_bool(JsonObject *options, const char *key, bool *value, GError **errp)
{
    static const char *const on[] = { "on", "true", "yes", NULL };
    static const char *const off[] = { "off", "false", "no", NULL };
    g_autoptr(JsonNode) node = take(options, key);
    const char *string;

    if (!node) {
        return true;
    }
    string = string_of(node);
    if (string && g_strv_contains(on, string)) {
        *value = true;
    } else if (string && g_strv_contains(off, string)) {
        *value = false;
    } else if (JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_BOOLEAN) {
        *value = json_node_get_boolean(node);
    } else {
        return refuse(key, node, "'on' or 'off'", errp);
    }
    return true;
}

bool block_options_take_int(JsonObject *options, const char *key, int64_t *value, GError **errp)
{
    g_autoptr(JsonNode) node = take(options, key);
    const char *string;
    char *end;
    int64_t number;

    if (!node) {
        return true;
    }
    if (is_int(node)) {
        *value = json_node_get_int(node);
        return true;
    }
    string = string_of(node);
    if (!string) {
        return refuse(key, node, "a number", errp);
    }
    errno = 0;
    number = g_ascii_strtoll(string, &end, 0);
    if (errno != 0 || end == string || *end != 0) {
        return refuse(key, node, "a number", errp);
    }
    *value = number;
    return true;
}

bool block_options_take_size(JsonObject *options, const char *key, int64_t *value, GError **errp)
{
    g_autoptr(JsonNode) node = take(options, key);
    int ret;

    if (!node) {
        return true;
    }
    if (is_int(node) && json_node_get_int(node) >= 0) {
        *value = json_node_get_int(node);
        return true;
    }
    ret = string_of(node) ? block_parse_size(string_of(node), 'b', value) : -EINVAL;
    if (ret == -ERANGE) {
        block_error_set(errp, EINVAL, "Value '%s' is out of range for parameter '%s'",
                        string_of(node), key);
    } else if (ret < 0) {
        block_error_set(errp, EINVAL,
                        "Parameter '%s' expects a non-negative number below 2^64\n"
                        "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
                        "peta-\nand exabytes, respectively.", key);
    }
    return ret >= 0;
}

bool block_options_take_enum(JsonObject *options, const char *key, const char *const *words,
                             int *value, GError **errp)
{
    g_autoptr(JsonNode) node = take(options, key);
    g_autoptr(GString) what = NULL;
    const char *string;

    if (!node) {
        return true;
    }
    string = string_of(node);
    for (int i = 0; string && words[i]; i++) {
        if (strcmp(string, words[i]) == 0) {
            *value = i;
            return true;
        }
    }
    what = g_string_new("one of");
    for (int i = 0; words[i]; i++) {
        g_string_append_printf(what, "%s '%s'", i > 0 ? "," : "", words[i]);
    }
    return refuse(key, node, what->str, errp);
}

bool block_options_take_object(JsonObject *options, const char *key, JsonObject **value,
                               GError **errp)
{
    g_autoptr(JsonNode) node = take(options, key);

    if (!node) {
        return true;
    }
    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        return refuse(key, node, "an object", errp);
    }
    *value = json_node_dup_object(node);
    return true;
}

bool block_options_take_array(JsonObject *options, const char *key, JsonArray **value,
                              GError **errp)
{
    g_autoptr(JsonNode) node = take(options, key);

    if (!node) {
        return true;
    }
    if (!JSON_NODE_HOLDS_ARRAY(node)) {
        return refuse(key, node, "a list", errp);
    }
    *value = json_node_dup_array(node);
    return true;
}
