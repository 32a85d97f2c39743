/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Members for the table of a filter that moves data: the same, done to its child. */
#include "block/io-int.h"

int coroutine_fn bdrv_filter_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *iov, int flags)
{
    bdrv_graph_assert_readable();
    return bdrv_co_preadv(bdrv_filter_child(bs), offset, bytes, iov, flags);
}

int coroutine_fn bdrv_filter_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *iov, int flags)
{
    bdrv_graph_assert_readable();
    return bdrv_co_pwritev(bdrv_filter_child(bs), offset, bytes, iov, flags);
}

int coroutine_fn bdrv_filter_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              int flags)
{
    bdrv_graph_assert_readable();
    return bdrv_co_pwrite_zeroes(bdrv_filter_child(bs), offset, bytes, flags);
}

int coroutine_fn bdrv_filter_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    bdrv_graph_assert_readable();
    return bdrv_co_pdiscard(bdrv_filter_child(bs), offset, bytes);
}

bool bdrv_can_compress(BlockDriverState *bs)
{
    BdrvChild *child;

    bdrv_graph_assert_readable();
    while ((child = bdrv_filter_child(bs)) && bs->drv->is_filter &&
           (!bdrv_moves_data(bs) || (bs->drv->supported_write_flags & BDRV_REQ_COMPRESSED))) {
        bs = child->bs;
    }
    return bs->drv->bdrv_encode != NULL;
}
