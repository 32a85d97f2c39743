/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps that images store: what formats do about them is asked here.
 */
#include <errno.h>
#include "block/block-int.h"

bool bdrv_dirty_bitmap_can_store(BlockDriverState *bs, const char *name, int64_t granularity,
                                 GError **errp)
{
    GLOBAL_STATE_CODE();
    if (!bdrv_dirty_bitmap_valid(name, granularity, errp)) {
        return false;
    }
    if (!bs->drv->bdrv_can_store_bitmap) {
        block_error_set_errno(errp, ENOTSUP, "Can't store persistent bitmaps to %s",
                              bs->node_name);
        return false;
    }
    return bs->drv->bdrv_can_store_bitmap(bs, name, granularity, errp);
}

bool bdrv_dirty_bitmap_remove_stored(BlockDriverState *bs, const char *name, GError **errp)
{
    bool ok;

    GLOBAL_STATE_CODE();
    if (!bs->drv->bdrv_remove_stored_bitmap) {
        return true;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->bdrv_remove_stored_bitmap(bs, name, errp);
    bdrv_drained_end(bs);
    return ok;
}

bool bdrv_dirty_bitmaps_load(BlockDriverState *bs, GError **errp)
{
    GLOBAL_STATE_CODE();
    return !bs->drv->bdrv_load_bitmaps || bs->drv->bdrv_load_bitmaps(bs, errp);
}

bool bdrv_dirty_bitmaps_store(BlockDriverState *bs, GError **errp)
{
    bool ok;

    GLOBAL_STATE_CODE();
    if (!bs->drv->bdrv_store_bitmaps) {
        return true;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->bdrv_store_bitmaps(bs, errp);
    bdrv_drained_end(bs);
    return ok;
}
