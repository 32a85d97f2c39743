/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The name of a node: the path that a user would type if that opens the same
 * thing, else "json:" and the options.
 */
#include <string.h>

#include "block/block-int.h"
#include "block/open-int.h"

/* Options that do not change what is read. */
static bool option_is_weak(const char *name)
{
    static const char *const weak[] = {
        "driver", "file", "filename", "node-name", "read-only", "auto-read-only", "discard",
        "force-share", "cache", "detect-zeroes", "locking", "aio",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(weak); i++) {
        if (strcmp(name, weak[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool options_are_weak(JsonObject *options)
{
    g_autoptr(GList) names = json_object_get_members(options);

    for (GList *l = names; l; l = l->next) {
        if (!option_is_weak(l->data)) {
            return false;
        }
    }
    return true;
}

static char *name_from_options(BlockDriverState *bs)
{
    g_autoptr(JsonObject) options = block_options_copy(bs->options);

    if (!json_object_has_member(options, "driver")) {
        json_object_set_string_member(options, "driver", bs->drv->format_name);
    }
    return block_options_to_filename(options);
}

static char *name_from_child(BlockDriverState *bs)
{
    BdrvChild *child;
    char *name = NULL;

    bdrv_graph_rdlock_main_loop();
    child = bdrv_primary_child(bs);
    if (child && !g_str_has_prefix(child->bs->filename, "json:") && options_are_weak(bs->options)) {
        name = g_strdup(child->bs->filename);
    }
    bdrv_graph_rdunlock_main_loop();
    return name;
}

void open_refresh_filename(BlockDriverState *bs, const char *given)
{
    char *name;

    if (given) {
        return;
    }
    if (bs->drv->bdrv_make_filename) {
        name = bs->drv->bdrv_make_filename(bs);
    } else if (bdrv_is_protocol(bs)) {
        name = *bs->filename ? g_strdup(bs->filename) : NULL;
    } else {
        name = bs->drv->is_filter ? NULL : name_from_child(bs);
    }
    g_free(bs->filename);
    bs->filename = name ? name : name_from_options(bs);
}
