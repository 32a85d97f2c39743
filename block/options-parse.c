/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options from text: "key=value,key.sub=value" and "{...}".
 *
 * Both are put into one tree of objects by their dotted keys; when all are in,
 * objects whose members are named 0, 1, … become arrays. A list written in
 * JSON is taken apart into such members first, so that dotted keys can add to
 * it.
 *
 * The tree is at most JSON_TEXT_MAX_DEPTH deep: json-glib and all who walk it
 * recurse.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "blockgraph/error.h"
#include "blockgraph/options.h"
#include "block/json-text.h"

static bool put(JsonObject *object, const char *key, JsonNode *value, bool replace,
                unsigned depth, GError **errp);

/* ---- Building the tree ------------------------------------------------------- */

/* Member @name of @object, an object itself, made if there is none yet. */
static JsonObject *descend(JsonObject *object, const char *name, unsigned depth, GError **errp)
{
    JsonNode *node = json_object_get_member(object, name);

    if (depth >= JSON_TEXT_MAX_DEPTH) {
        block_error_set(errp, EINVAL, "Option '%s' is nested too deep", name);
        return NULL;
    }
    if (!node) {
        json_object_set_object_member(object, name, json_object_new());
        node = json_object_get_member(object, name);
    }
    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        block_error_set(errp, EINVAL, "Option '%s' has both a value and members", name);
        return NULL;
    }
    return json_node_get_object(node);
}

/* Put the members of an object, or of a list that is not empty, into @name. */
static bool put_members(JsonObject *object, const char *name, JsonNode *value, unsigned depth,
                        GError **errp)
{
    JsonObject *sub = descend(object, name, depth, errp);

    if (!sub) {
        return false;
    }
    if (JSON_NODE_HOLDS_OBJECT(value)) {
        g_autoptr(GList) names = json_object_get_members(json_node_get_object(value));

        for (GList *l = names; l; l = l->next) {
            JsonNode *member = json_object_get_member(json_node_get_object(value), l->data);

            if (!put(sub, l->data, member, false, depth + 1, errp)) {
                return false;
            }
        }
        return true;
    }
    for (unsigned i = 0; i < json_array_get_length(json_node_get_array(value)); i++) {
        g_autofree char *index = g_strdup_printf("%u", i);
        JsonNode *element = json_array_get_element(json_node_get_array(value), i);

        if (!put(sub, index, element, false, depth + 1, errp)) {
            return false;
        }
    }
    return true;
}

static bool put_scalar(JsonObject *object, const char *name, JsonNode *value, bool replace,
                       GError **errp)
{
    JsonNode *old = json_object_get_member(object, name);

    if (old && JSON_NODE_HOLDS_OBJECT(old)) {
        block_error_set(errp, EINVAL, "Option '%s' has both a value and members", name);
        return false;
    }
    if (old && !replace) {
        block_error_set(errp, EINVAL, "Option '%s' is given twice", name);
        return false;
    }
    json_object_set_member(object, name, json_node_copy(value));
    return true;
}

/* Put @value (stays the caller's) where the dotted @key leads to from @object. */
static bool put(JsonObject *object, const char *key, JsonNode *value, bool replace,
                unsigned depth, GError **errp)
{
    /* What lies deeper is refused before its last part, the rest, is looked at. */
    g_auto(GStrv) parts = g_strsplit(key, ".", JSON_TEXT_MAX_DEPTH + 2);
    char **part = parts;

    for (char **p = parts; !*parts || *p; p++) {
        if (!*parts || **p == 0) {
            block_error_set(errp, EINVAL, "Invalid parameter '%s'", key);
            return false;
        }
    }
    for (; part[1]; part++, depth++) {
        object = descend(object, *part, depth, errp);
        if (!object) {
            return false;
        }
    }
    if (JSON_NODE_HOLDS_OBJECT(value) ||
        (JSON_NODE_HOLDS_ARRAY(value) && json_array_get_length(json_node_get_array(value)) > 0)) {
        return put_members(object, *part, value, depth, errp);
    }
    return put_scalar(object, *part, value, replace, errp);
}

/* ---- Lists ------------------------------------------------------------------- */

/* Whether @name is a number as printed by "%u". */
static bool is_index(const char *name)
{
    return strspn(name, "0123456789") == strlen(name) && (name[0] != '0' || name[1] == 0);
}

/* The array that @object, all of whose members are named by numbers, stands for. */
static JsonArray *make_list(JsonObject *object, const char *name, GError **errp)
{
    g_autoptr(JsonArray) list = json_array_new();
    unsigned size = json_object_get_size(object);

    for (unsigned i = 0; i < size; i++) {
        g_autofree char *index = g_strdup_printf("%u", i);
        JsonNode *element = json_object_dup_member(object, index);

        if (!element) {
            block_error_set(errp, EINVAL, "Option '%s' has %u list members, but not '%s.%u'",
                            name, size, name, i);
            return NULL;
        }
        json_array_add_element(list, element);
    }
    return g_steal_pointer(&list);
}

/* Make lists of all below @object that are meant to be one. */
static bool find_lists(JsonObject *object, GError **errp)
{
    g_autoptr(GList) names = json_object_get_members(object);

    for (GList *l = names; l; l = l->next) {
        JsonNode *node = json_object_get_member(object, l->data);
        g_autoptr(GList) members = NULL;
        unsigned indices = 0;
        JsonArray *list;

        if (!JSON_NODE_HOLDS_OBJECT(node)) {
            continue;
        }
        if (!find_lists(json_node_get_object(node), errp)) {
            return false;
        }
        members = json_object_get_members(json_node_get_object(node));
        for (GList *m = members; m; m = m->next) {
            indices += is_index(m->data);
        }
        if (indices == 0) {
            continue;
        }
        if (indices != g_list_length(members)) {
            block_error_set(errp, EINVAL, "Option '%s' has both list members and named members",
                            (char *)l->data);
            return false;
        }
        list = make_list(json_node_get_object(node), l->data, errp);
        if (!list) {
            return false;
        }
        json_object_set_array_member(object, l->data, list);
    }
    return true;
}

/* ---- key=value --------------------------------------------------------------- */

/* A new string up to the next single comma, which is skipped; ",," is a comma. */
static char *cut_value(const char **p)
{
    GString *value = g_string_new(NULL);

    for (; **p; (*p)++) {
        if (**p == ',') {
            (*p)++;
            if (**p != ',') {
                break;
            }
        }
        g_string_append_c(value, **p);
    }
    return g_string_free(value, FALSE);
}

/* Read one part at *@p, and go behind its comma. */
static void cut_part(const char **p, const char *implied_key, char **key, char **value)
{
    size_t len = strcspn(*p, "=,");

    if ((*p)[len] == '=') {
        *key = g_strndup(*p, len);
        *p += len + 1;
        *value = cut_value(p);
    } else if (implied_key) {
        *key = g_strdup(implied_key);
        *value = cut_value(p);
    } else {
        bool off = len > 2 && g_str_has_prefix(*p, "no");

        *key = g_strndup(*p + (off ? 2 : 0), len - (off ? 2 : 0));
        *value = g_strdup(off ? "off" : "on");
        *p += len;
        *p += **p == ',';
    }
}

JsonObject *block_options_parse(const char *text, const char *implied_key, GError **errp)
{
    g_autoptr(JsonObject) options = json_object_new();

    for (const char *p = text; *p; implied_key = NULL) {
        g_autofree char *key = NULL;
        g_autofree char *value = NULL;
        g_autoptr(JsonNode) node = NULL;

        cut_part(&p, implied_key, &key, &value);
        node = json_node_init_string(json_node_alloc(), value);
        if (!put(options, key, node, true, 1, errp)) {
            return NULL;
        }
    }
    if (!find_lists(options, errp)) {
        return NULL;
    }
    return g_steal_pointer(&options);
}

/* ---- JSON -------------------------------------------------------------------- */

JsonObject *block_options_parse_json(const char *text, GError **errp)
{
    g_autoptr(JsonObject) options = json_object_new();
    g_autoptr(JsonNode) root = json_text_parse(text, errp);
    g_autoptr(GList) names = NULL;

    if (!root) {
        g_prefix_error(errp, "Could not parse the JSON options: ");
        return NULL;
    }
    if (!JSON_NODE_HOLDS_OBJECT(root)) {
        block_error_set(errp, EINVAL, "The JSON options are no object");
        return NULL;
    }
    names = json_object_get_members(json_node_get_object(root));
    for (GList *l = names; l; l = l->next) {
        JsonNode *member = json_object_get_member(json_node_get_object(root), l->data);

        if (!put(options, l->data, member, false, 1, errp)) {
            return NULL;
        }
    }
    if (!find_lists(options, errp)) {
        return NULL;
    }
    return g_steal_pointer(&options);
}
