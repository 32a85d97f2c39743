/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The name of a node: the path that a user would type if that opens the same
 * thing, else "json:" and the options.
 */
#include <string.h>

#include "block/block-int.h"
#include "block/open-int.h"

/* Options that do not change what is read from a node of @drv. */
static bool option_is_weak(const BlockDriver *drv, const char *name)
{
    static const char *const weak[] = {
        "driver", "file", "filename", "node-name", "read-only", "auto-read-only", "discard",
        "force-share", "cache", "detect-zeroes",
    };

    if (drv->weak_options && g_strv_contains(drv->weak_options, name)) {
        return true;
    }

    for (size_t i = 0; i < G_N_ELEMENTS(weak); i++) {
        if (strcmp(name, weak[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool options_are_weak(const BlockDriver *drv, JsonObject *options)
{
    g_autoptr(GList) names = json_object_get_members(options);

    for (GList *l = names; l; l = l->next) {
        if (!option_is_weak(drv, l->data)) {
            return false;
        }
    }
    return true;
}

/* What opens the same node: its driver, its own options, its children's. */
static JsonObject *full_options(BlockDriverState *bs) GRAPH_RDLOCK
{
    JsonObject *full = json_object_new();
    g_autoptr(GList) names = json_object_get_members(bs->options);

    json_object_set_string_member(full, "driver", bs->drv->format_name);
    for (GList *l = names; l; l = l->next) {
        if (!option_is_weak(bs->drv, l->data) && !bdrv_get_child(bs, l->data)) {
            json_object_set_member(full, l->data,
                                   json_node_copy(json_object_get_member(bs->options, l->data)));
        }
    }
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        if (child != bs->backing || json_object_has_member(bs->options, "backing")) {
            json_object_set_object_member(full, child->name, full_options(child->bs));
        }
    }
    if (bdrv_is_protocol(bs) && *bs->filename) {
        json_object_set_string_member(full, "filename", bs->filename);
    }
    return full;
}

/*
 * The order that QEMU writes these in; scripts compare names as text. The
 * others follow in the order that they were given in.
 */
static int option_rank(const char *name)
{
    static const char *const first[] = {
        "read-zeroes", "offset", "opt-write-zero", "max-write-zero", "image", "max-transfer",
        "test", "log", "log-sector-size", "driver", "size", "log-append", "file", "filename",
    };
    size_t i = 0;

    while (i < G_N_ELEMENTS(first) && strcmp(name, first[i]) != 0) {
        i++;
    }
    return i;
}

static int compare_ranks(gconstpointer a, gconstpointer b)
{
    return option_rank(a) - option_rank(b);
}

/* A new object with the same members, and those of objects in it, in that order. */
static JsonObject *options_in_order(JsonObject *options)
{
    JsonObject *ordered = json_object_new();
    /* The sort is stable. */
    g_autoptr(GList) names = g_list_sort(json_object_get_members(options), compare_ranks);

    for (GList *l = names; l; l = l->next) {
        JsonNode *value = json_object_get_member(options, l->data);

        if (JSON_NODE_HOLDS_OBJECT(value)) {
            json_object_set_object_member(ordered, l->data,
                                          options_in_order(json_node_get_object(value)));
        } else {
            json_object_set_member(ordered, l->data, json_node_copy(value));
        }
    }
    return ordered;
}

static char *name_from_options(BlockDriverState *bs)
{
    g_autoptr(JsonObject) options = NULL;
    g_autoptr(JsonObject) ordered = NULL;

    bdrv_graph_rdlock_main_loop();
    options = full_options(bs);
    bdrv_graph_rdunlock_main_loop();
    ordered = options_in_order(options);
    return block_options_to_filename(ordered);
}

/* The name of the file that a format lies on, if naming that opens the same. */
static char *name_from_child(BlockDriverState *bs)
{
    BdrvChild *child;
    char *name = NULL;

    bdrv_graph_rdlock_main_loop();
    child = bdrv_primary_child(bs);
    if (child && (bdrv_is_protocol(child->bs) || child->bs->drv->protocol_name) &&
        !g_str_has_prefix(child->bs->filename, "json:") && options_are_weak(bs->drv, bs->options)) {
        name = g_strdup(child->bs->filename);
    }
    bdrv_graph_rdunlock_main_loop();
    return name;
}

void open_refresh_filename(BlockDriverState *bs)
{
    char *name = bs->drv->bdrv_make_filename ? bs->drv->bdrv_make_filename(bs)
                 : bdrv_is_protocol(bs)      ? (*bs->filename ? g_strdup(bs->filename) : NULL)
                 : bs->drv->is_filter        ? NULL
                                             : name_from_child(bs);

    if (!name) {
        name = name_from_options(bs);
    }
    g_free(bs->filename);
    bs->filename = name;
}
