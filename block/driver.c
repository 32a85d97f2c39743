/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The drivers that are known: registering, finding, probing.
 */
#include <string.h>

#include "block/block-int.h"

static BlockDriver *drivers; /* in order of name; written by the main thread only */

bool bdrv_driver_is_protocol(const BlockDriver *drv)
{
    return drv->bdrv_co_preadv && !drv->is_filter;
}

/* What is wrong with a driver's table, or NULL. */
static const char *driver_flaw(const BlockDriver *drv)
{
    if (!drv->bdrv_open) {
        return "it has no bdrv_open";
    }
    if (!drv->bdrv_co_map == !drv->bdrv_co_preadv) {
        return "it needs one of bdrv_co_map and bdrv_co_preadv";
    }
    if (!drv->bdrv_co_map_commit != !drv->bdrv_co_map_abort) {
        return "bdrv_co_map_commit and bdrv_co_map_abort go together";
    }
    if (drv->bdrv_co_map && (drv->bdrv_co_pwritev || drv->bdrv_co_pwrite_zeroes ||
                             drv->bdrv_co_pdiscard || drv->bdrv_co_block_status)) {
        return "it maps, so the core moves its data: pwritev, pwrite_zeroes, pdiscard and "
               "block_status are for protocols";
    }
    if (drv->bdrv_co_preadv && drv->bdrv_co_map_commit) {
        return "it moves its data itself, so it commits nothing";
    }
    if (drv->bdrv_prepare_aio && !drv->bdrv_co_preadv) {
        return "bdrv_prepare_aio is for protocols";
    }
    if (!drv->bdrv_check_perm != !drv->bdrv_set_perm ||
        !drv->bdrv_check_perm != !drv->bdrv_abort_perm) {
        return "bdrv_check_perm, bdrv_set_perm and bdrv_abort_perm go together";
    }
    if (!drv->bdrv_drain_begin != !drv->bdrv_drain_end) {
        return "bdrv_drain_begin and bdrv_drain_end go together";
    }
    if (!drv->bdrv_can_store_bitmap != !drv->bdrv_remove_stored_bitmap ||
        !drv->bdrv_can_store_bitmap != !drv->bdrv_load_bitmaps ||
        !drv->bdrv_can_store_bitmap != !drv->bdrv_store_bitmaps) {
        return "the four functions for stored bitmaps go together";
    }
    if (!drv->bdrv_co_snapshot_create != !drv->bdrv_co_snapshot_goto ||
        !drv->bdrv_co_snapshot_create != !drv->bdrv_co_snapshot_delete ||
        (drv->bdrv_co_snapshot_create && !drv->bdrv_snapshot_get)) {
        return "the functions that change snapshots go together, and with bdrv_snapshot_get";
    }
    if (!drv->create_options != !drv->bdrv_create) {
        return "create_options and bdrv_create go together";
    }
    return NULL;
}

bool bdrv_register(BlockDriver *drv, GError **errp)
{
    BlockDriver **p;
    const char *flaw;

    GLOBAL_STATE_CODE();
    if (!drv->format_name || !*drv->format_name) {
        block_error_set(errp, EINVAL, "A block driver without a name cannot be registered");
        return false;
    }
    flaw = driver_flaw(drv);
    if (flaw) {
        block_error_set(errp, EINVAL, "Block driver '%s' cannot be registered: %s",
                        drv->format_name, flaw);
        return false;
    }
    for (p = &drivers; *p && strcmp((*p)->format_name, drv->format_name) < 0; p = &(*p)->next) {
    }
    if (*p && strcmp((*p)->format_name, drv->format_name) == 0) {
        block_error_set(errp, EEXIST, "Block driver '%s' is registered already", drv->format_name);
        return false;
    }
    drv->next = *p;
    *p = drv;
    return true;
}

BlockDriver *bdrv_next_driver(BlockDriver *drv)
{
    return drv ? drv->next : drivers;
}

const char *bdrv_driver_name(const BlockDriver *drv)
{
    return drv->format_name;
}

BlockDriver *bdrv_find_format(const char *name)
{
    for (BlockDriver *drv = drivers; drv; drv = drv->next) {
        if (strcmp(drv->format_name, name) == 0) {
            return drv;
        }
    }
    return NULL;
}

char *bdrv_filename_protocol(const char *filename)
{
    const char *p = filename + strcspn(filename, ":/");

    return *p == ':' ? g_strndup(filename, p - filename) : NULL;
}

BlockDriver *bdrv_find_path_protocol(const char *path, GError **errp)
{
    BlockDriver *file;

    for (BlockDriver *drv = drivers; drv; drv = drv->next) {
        if (drv->bdrv_probe_device && drv->bdrv_probe_device(path)) {
            return drv;
        }
    }
    file = bdrv_find_format("file");
    if (!file) {
        block_error_set(errp, ENOENT, "Unknown protocol 'file'");
    }
    return file;
}

BlockDriver *bdrv_find_protocol(const char *filename, GError **errp)
{
    g_autofree char *protocol = bdrv_filename_protocol(filename);
    struct BlockDriver *drv;

    for (drv = protocol ? drivers : NULL; drv; drv = drv->next) {
        if (drv->protocol_name && strcmp(drv->protocol_name, protocol) == 0) {
            return drv;
        }
    }
    if (protocol) {
        block_error_set(errp, ENOENT, "Unknown protocol '%s'", protocol);
        return NULL;
    }
    return bdrv_find_path_protocol(filename, errp);
}

BlockDriver *bdrv_probe_buffer(const uint8_t *buf, size_t size, const char *filename)
{
    BlockDriver *best = NULL;
    int best_score = 0;

    for (BlockDriver *drv = drivers; drv; drv = drv->next) {
        int score = drv->bdrv_probe ? drv->bdrv_probe(buf, size, filename) : 0;

        if (score > best_score) {
            best_score = score;
            best = drv;
        }
    }
    return best;
}

char *bdrv_combine_filename(const char *base, const char *name, GError **errp)
{
    g_autofree char *protocol = bdrv_filename_protocol(name);
    const char *slash;

    if (protocol || name[0] == '/') {
        return g_strdup(name);
    }
    if (g_str_has_prefix(base, "json:")) {
        block_error_set(errp, EINVAL, "Cannot use relative backing file names for '%s'", base);
        return NULL;
    }
    slash = strrchr(base, '/');
    return slash ? g_strdup_printf("%.*s/%s", (int)(slash - base), base, name) : g_strdup(name);
}
