/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Emptying an image.
 */
#include <errno.h>

#include "block/io-int.h"

static int coroutine_fn make_empty(BlockDriverState *bs, void *opaque, GError **errp)
{
    int ret, flushed;

    bdrv_graph_assert_readable();
    ret = bs->drv->bdrv_co_make_empty(bs, errp);
    /* Also what was given up before an error. */
    flushed = bdrv_co_flush_image(bs, ret < 0 ? NULL : errp);
    return ret < 0 ? ret : flushed;
}

int bdrv_make_empty(BlockDriverState *bs, GError **errp)
{
    GLOBAL_STATE_CODE();
    if (!bs->drv->bdrv_co_make_empty) {
        block_error_set(errp, ENOTSUP, "Format driver '%s' cannot empty an image",
                        bs->drv->format_name);
        return -ENOTSUP;
    }
    if (bs->read_only) {
        block_error_set(errp, EACCES, "'%s' is read-only: it cannot be emptied", bs->filename);
        return -EACCES;
    }
    return bdrv_run_alone(bs, make_empty, NULL, errp);
}
