/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chains of images: which edge may lead where while the graph is in use, and the
 * reference to a backing file in an image's header.
 */
#include "block/block-int.h"
#include "block/open-int.h"

/* ---- Depth ------------------------------------------------------------------------------ */

typedef enum Direction {
    DOWN,
    UP,
} Direction;

/* The most layers on a way from @bs on, itself included; @known has what was counted. */
static int layers(BlockDriverState *bs, Direction direction, GHashTable *known) GRAPH_RDLOCK
{
    gpointer counted;
    int most = 0;

    if (g_hash_table_lookup_extended(known, bs, NULL, &counted)) {
        return GPOINTER_TO_INT(counted);
    }
    if (direction == DOWN) {
        for (BdrvChild *child = bs->children; child; child = child->next_child) {
            int n = layers(child->bs, direction, known);

            most = MAX(most, n);
        }
    } else {
        for (BdrvChild *child = bs->parents; child; child = child->next_parent) {
            if (child->ops->is_node) {
                int n = layers(child->parent, direction, known);

                most = MAX(most, n);
            }
        }
    }
    most += !bdrv_is_protocol(bs); /* a layer is a format or a filter */
    g_hash_table_insert(known, bs, GINT_TO_POINTER(most));
    return most;
}

static bool depth_allows(BdrvChild *child, BlockDriverState *to, GError **errp) GRAPH_RDLOCK
{
    BlockDriverState *parent = child->parent;
    g_autoptr(GHashTable) below = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) above = g_hash_table_new(NULL, NULL);

    if (layers(parent, UP, above) + layers(to, DOWN, below) <= BDRV_MAX_DEPTH) {
        return true;
    }
    block_error_set(errp, ELOOP, "Making '%s' a %s child of '%s' would make the chain of images "
                    "deeper than %d", to->node_name, child->name, parent->node_name,
                    BDRV_MAX_DEPTH);
    return false;
}

/* ---- Files ------------------------------------------------------------------------------ */

/* Add the protocol nodes at and below @bs. */
static void add_files(BlockDriverState *bs, GHashTable *seen, GPtrArray *files) GRAPH_RDLOCK
{
    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    if (bdrv_is_protocol(bs)) {
        g_ptr_array_add(files, bs);
    }
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        add_files(child->bs, seen, files);
    }
}

/* Add the files that @bs and the nodes above it lie on: all but their backing files. */
static void add_own_files(BlockDriverState *bs, GHashTable *seen, GHashTable *seen_below,
                          GPtrArray *files) GRAPH_RDLOCK
{
    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        if (!(child->role & (BDRV_CHILD_COW | BDRV_CHILD_FILTERED))) {
            add_files(child->bs, seen_below, files);
        }
    }
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        if (parent->ops->is_node) {
            add_own_files(parent->parent, seen, seen_below, files);
        }
    }
}

/* Whether a file below @to is one that the layers above have been at. */
static bool files_allow(BdrvChild *child, BlockDriverState *to, GError **errp) GRAPH_RDLOCK
{
    BlockDriverState *parent = child->parent;
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) seen_own = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) seen_below = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) own = g_ptr_array_new();
    g_autoptr(GPtrArray) below = g_ptr_array_new();

    add_own_files(parent, seen, seen_own, own);
    add_files(to, seen_below, below);
    for (guint i = 0; i < own->len; i++) {
        for (guint j = 0; j < below->len; j++) {
            if (open_same_file(own->pdata[i], below->pdata[j])) {
                block_error_set(errp, ELOOP, "Making '%s' a %s child of '%s' would create a cycle: "
                                "both lead to the file '%s'", to->node_name, child->name,
                                parent->node_name, bdrv_get_filename(below->pdata[j]));
                return false;
            }
        }
    }
    return true;
}

bool bdrv_chain_allows(BdrvChild *child, BlockDriverState *to, GError **errp)
{
    BlockDriverState *parent = child->parent;

    bdrv_graph_assert_readable();
    if (!child->ops->is_node) {
        return true;
    }
    if (bdrv_reaches(to, parent)) {
        block_error_set(errp, ELOOP, "Making '%s' a %s child of '%s' would create a cycle",
                        to->node_name, child->name, parent->node_name);
        return false;
    }
    return depth_allows(child, to, errp) &&
           (!(child->role & BDRV_CHILD_COW) || files_allow(child, to, errp));
}

/* ---- The reference in the header -------------------------------------------------------- */

static bool may_change_backing_file(BlockDriverState *bs, const char *filename,
                                    const char *format, GError **errp)
{
    if (!bs->drv->supports_backing || !bs->drv->bdrv_change_backing_file) {
        block_error_set(errp, ENOTSUP, "Format '%s' of node '%s' cannot change the backing file",
                        bs->drv->format_name, bs->node_name);
        return false;
    }
    if (format && !filename) {
        block_error_set(errp, EINVAL, "'%s': a backing format without a backing file",
                        bs->filename);
        return false;
    }
    if (bs->read_only) {
        block_error_set(errp, EACCES, "'%s' is read-only: its backing file cannot be changed",
                        bs->filename);
        return false;
    }
    return true;
}

bool bdrv_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                              GError **errp)
{
    bool ok;
    int ret;

    GLOBAL_STATE_CODE();
    filename = filename && *filename ? filename : NULL;
    format = format && *format ? format : NULL;
    if (!may_change_backing_file(bs, filename, format, errp)) {
        return false;
    }
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    ok = bs->drv->bdrv_change_backing_file(bs, filename, format, errp);
    if (ok) {
        bdrv_set_backing_reference(bs, filename, format);
        ret = bdrv_flush(bs);
        if (ret < 0) {
            block_error_set_errno(errp, ret, "'%s': could not flush the new backing file "
                                  "reference", bs->filename);
            ok = false;
        }
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    return ok;
}
