/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert --bitmaps: copying the bitmaps that an image stores; see convert-target.h. */
#include "tools/img/convert-target.h"

#include <stdio.h>
#include "tools/tool.h"

static bool stores_bitmaps(BlockDriverState *bs)
{
    BlockDriver *drv = bdrv_find_format(bdrv_get_format_name(bs));

    return drv != NULL && drv->bdrv_can_store_bitmap != NULL;
}

/* The stored bitmaps that were in use when a program died; the last one first, as in QEMU. */
static GList *inconsistent_bitmaps(BlockDriverState *bs)
{
    GList *found = NULL;

    for (BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_next(bs, NULL); bitmap != NULL;
         bitmap = bdrv_dirty_bitmap_next(bs, bitmap)) {
        if (bdrv_dirty_bitmap_persistent(bitmap) &&
            (bdrv_dirty_bitmap_state(bitmap) & BDRV_BITMAP_INCONSISTENT)) {
            found = g_list_prepend(found, bitmap);
        }
    }
    return found;
}

bool img_check_bitmaps(BlockBackend *source, const char *name, bool skip_broken)
{
    BlockDriverState *bs = blk_bs(source);
    g_autoptr(GList) broken = NULL;
    GError *err = NULL;

    if (!stores_bitmaps(bs)) {
        tool_error("Source lacks bitmap support");
        return false;
    }
    if (!bdrv_dirty_bitmaps_load(bs, &err)) {
        tool_error_take(err, "Could not open '%s': ", name);
        return false;
    }
    broken = skip_broken ? NULL : inconsistent_bitmaps(bs);
    if (broken != NULL) {
        tool_error("Cannot copy inconsistent bitmap '%s'", bdrv_dirty_bitmap_name(broken->data));
        fprintf(stderr, "Try --skip-broken-bitmaps, or use '%s bitmap --remove' to delete it\n",
                tool_name());
        return false;
    }
    return true;
}

/* A bitmap of @target that is as @bitmap. */
static bool copy_bitmap(BdrvDirtyBitmap *bitmap, BlockDriverState *target)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    int64_t granularity = bdrv_dirty_bitmap_granularity(bitmap);
    BdrvDirtyBitmap *copy;
    GError *err = NULL;

    if (bdrv_dirty_bitmap_find(target, name) != NULL) {
        tool_error("Failed to create bitmap %s: Bitmap already exists: %s", name, name);
        return false;
    }
    copy = bdrv_dirty_bitmap_can_store(target, name, granularity, &err)
               ? bdrv_dirty_bitmap_create(target, name, granularity, &err)
               : NULL;
    if (copy == NULL) {
        tool_error_take(err, "Failed to create bitmap %s: ", name);
        return false;
    }
    bdrv_dirty_bitmap_disable(copy);
    bdrv_dirty_bitmap_set_persistent(copy, true);
    if (!bdrv_dirty_bitmap_merge(copy, bitmap, &err)) {
        tool_error_take(err, "Failed to populate bitmap %s: ", name);
        bdrv_dirty_bitmap_remove(copy);
        return false;
    }
    if (bdrv_dirty_bitmap_enabled(bitmap)) {
        bdrv_dirty_bitmap_enable(copy);
    }
    return true;
}

bool img_copy_bitmaps(BlockBackend *source, BlockBackend *target, const char *target_name)
{
    BlockDriverState *bs = blk_bs(source);
    g_autoptr(GList) broken = inconsistent_bitmaps(bs);
    GError *err = NULL;
    bool ok = true;

    for (GList *l = broken; l != NULL; l = l->next) {
        tool_warning("Skipping inconsistent bitmap '%s'", bdrv_dirty_bitmap_name(l->data));
    }
    for (BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_next(bs, NULL); bitmap != NULL && ok;
         bitmap = bdrv_dirty_bitmap_next(bs, bitmap)) {
        if (bdrv_dirty_bitmap_persistent(bitmap) && g_list_find(broken, bitmap) == NULL) {
            ok = copy_bitmap(bitmap, blk_bs(target));
        }
    }
    if (!bdrv_dirty_bitmaps_store(blk_bs(target), &err)) {
        tool_error_take(err, "Could not store the bitmaps of '%s': ", target_name);
        ok = false;
    }
    return ok;
}
