/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All that can be told of an image and of the nodes below it. */
#include "blockgraph/image-info.h"

#include <errno.h>
#include "blockgraph/block-io.h"

static void unref_node(gpointer bs)
{
    bdrv_unref(bs);
}

/*
 * The nodes below @bs, referenced, and their edges' names: listed first, since asking
 * the nodes polls, and what runs then may detach them.
 */
static void list_children(BlockDriverState *bs, GPtrArray *nodes, GPtrArray *names)
{
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bdrv_next_child(bs, NULL); child != NULL;
         child = bdrv_next_child(bs, child)) {
        g_ptr_array_add(nodes, bdrv_ref(bdrv_child_bs(child)));
        g_ptr_array_add(names, g_strdup(bdrv_child_name(child)));
    }
    bdrv_graph_rdunlock_main_loop();
}

static bool query_children(BlockDriverState *bs, BdrvImageInfo *info, GError **errp)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) nodes = g_ptr_array_new_with_free_func(unref_node);

    list_children(bs, nodes, names);
    info->children = g_new0(BdrvChildInfo, nodes->len);
    for (guint i = 0; i < nodes->len; i++) {
        BdrvImageInfo *child_info = bdrv_image_info(g_ptr_array_index(nodes, i), errp);

        if (child_info == NULL) {
            return false;
        }
        info->children[i].name = g_strdup(g_ptr_array_index(names, i));
        info->children[i].info = child_info;
        info->child_count++;
    }
    return true;
}

static bool query_backing(BlockDriverState *bs, BdrvImageInfo *info, GError **errp)
{
    const char *backing = bdrv_get_backing_filename(bs);
    const char *format = bdrv_get_backing_format(bs);

    if (backing == NULL || backing[0] == '\0') {
        return true;
    }
    info->backing_filename = g_strdup(backing);
    if (format != NULL && format[0] != '\0') {
        info->backing_format = g_strdup(format);
    }
    return bdrv_get_full_backing_filename(bs, &info->full_backing_filename, errp);
}

static bool query_specific(BlockDriverState *bs, BdrvImageInfo *info, GError **errp)
{
    GError *err = NULL;

    info->specific = bdrv_get_specific_info(bs, &err);
    if (err != NULL) {
        g_propagate_error(errp, err);
        return false;
    }
    return true;
}

BdrvImageInfo *bdrv_image_info(BlockDriverState *bs, GError **errp)
{
    g_autoptr(BdrvImageInfo) info = g_new0(BdrvImageInfo, 1);
    BlockDriverInfo bdi = { 0 };

    GLOBAL_STATE_CODE();
    bdrv_ref(bs);
    info->bs = bs;
    info->filename = g_strdup(bdrv_get_filename(bs));
    info->format = bdrv_get_format_name(bs);
    info->virtual_size = bdrv_getlength(bs);
    if (info->virtual_size < 0) {
        block_error_set_errno(errp, (int)-info->virtual_size, "Can't get image size '%s'",
                              info->filename);
        return NULL;
    }
    if (!query_children(bs, info, errp)) {
        return NULL;
    }
    info->actual_size = bdrv_get_allocated_file_size(bs);
    info->has_dirty_flag = bdrv_get_info(bs, &bdi) >= 0;
    info->is_dirty = bdi.is_dirty;
    info->cluster_size = bdi.cluster_size;
    info->is_encrypted = bdrv_is_encrypted(bs);
    if (!query_specific(bs, info, errp) || !query_backing(bs, info, errp)) {
        return NULL;
    }
    return g_steal_pointer(&info);
}

void bdrv_image_info_free(BdrvImageInfo *info)
{
    GLOBAL_STATE_CODE();
    if (info == NULL) {
        return;
    }
    for (size_t i = 0; i < info->child_count; i++) {
        g_free(info->children[i].name);
        bdrv_image_info_free(info->children[i].info);
    }
    g_free(info->children);
    g_free(info->filename);
    g_free(info->backing_filename);
    g_free(info->full_backing_filename);
    g_free(info->backing_format);
    g_clear_pointer(&info->specific, json_object_unref);
    bdrv_unref(info->bs);
    g_free(info);
}
