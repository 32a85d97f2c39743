/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The compress filter: every write becomes one of whole compressed clusters. The core
 * makes them whole, since the filter asks for requests aligned to the cluster. See
 * docs/formats/compress.md.
 */
#include <errno.h>

#include "blockgraph/block-driver.h"

typedef struct CompressState {
    int64_t cluster_size; /* of the image below, bytes */
} CompressState;

static bool compress_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    CompressState *s = bdrv_state(bs);
    BlockDriverState *file_bs;
    BlockDriverInfo info;
    bool can;

    if (!bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    file_bs = bdrv_child_bs(bdrv_file_child(bs));
    can = bdrv_can_compress(file_bs);
    bdrv_graph_rdunlock_main_loop();
    if (!can || bdrv_get_info(file_bs, &info) < 0 || info.cluster_size <= 0) {
        block_error_set(errp, ENOTSUP, "Compression is not supported for underlying format: %s",
                        bdrv_get_format_name(file_bs));
        return false;
    }
    s->cluster_size = info.cluster_size;
    bdrv_set_length(bs, bdrv_getlength(file_bs));
    return true;
}

static void compress_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    CompressState *s = bdrv_state(bs);

    limits->request_alignment = MAX(limits->request_alignment, s->cluster_size);
}

static int coroutine_fn compress_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *iov, int flags)
{
    int64_t inside = MIN(bytes, bdrv_getlength(bs) - offset);
    IOVector slice;
    int ret;

    bdrv_graph_assert_readable();
    if (inside <= 0) {
        return -EIO;
    }
    /* The last cluster may reach beyond the end of the disk. */
    io_vector_init(&slice, 1);
    io_vector_append(&slice, iov, 0, inside);
    ret = bdrv_co_pwritev(bdrv_file_child(bs), offset, inside, &slice,
                          flags | BDRV_REQ_COMPRESSED);
    io_vector_destroy(&slice);
    return ret;
}

BlockDriver block_driver_compress = {
    .format_name = "compress",
    .instance_size = sizeof(CompressState),
    .is_filter = true,
    .bdrv_open = compress_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_refresh_limits = compress_refresh_limits,
    .bdrv_co_preadv = bdrv_filter_co_preadv,
    .bdrv_co_pwritev = compress_co_pwritev,
    .bdrv_co_pwrite_zeroes = bdrv_filter_co_pwrite_zeroes,
    .bdrv_co_pdiscard = bdrv_filter_co_pdiscard,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
};
