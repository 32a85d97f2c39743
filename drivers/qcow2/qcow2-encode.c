/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: encode compressed clusters. */
#include <errno.h>
#include <zlib.h>
#include <zstd.h>
#include "drivers/qcow2/qcow2-alloc.h"

/* Readers look back 4 KiB at most. */
#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEMORY_LEVEL 9

static int64_t deflate_cluster(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    z_stream stream = {
        .next_in = (Bytef *)src,
        .avail_in = src_bytes,
        .next_out = dst,
        .avail_out = dst_bytes,
    };
    int ret;

    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW_BITS,
                     DEFLATE_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        return -ENOMEM;
    }
    ret = deflate(&stream, Z_FINISH);
    deflateEnd(&stream);
    return ret == Z_STREAM_END ? (int64_t)(dst_bytes - stream.avail_out) : -ENOSPC;
}

static void free_cctx(gpointer cctx)
{
    ZSTD_freeCCtx(cctx);
}

static int64_t zstd_cluster(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    static GPrivate of_thread = G_PRIVATE_INIT(free_cctx);
    ZSTD_CCtx *cctx = g_private_get(&of_thread);
    size_t encoded;

    if (!cctx) {
        cctx = ZSTD_createCCtx();
        if (!cctx) {
            return -ENOMEM;
        }
        g_private_set(&of_thread, cctx);
    }
    encoded = ZSTD_compress2(cctx, dst, dst_bytes, src, src_bytes);
    return ZSTD_isError(encoded) ? -ENOSPC : (int64_t)encoded;
}

int64_t qcow2_compress(unsigned type, const uint8_t *src, size_t src_bytes, uint8_t *dst,
                       size_t dst_bytes)
{
    return type == QCOW2_COMPRESSION_ZSTD ? zstd_cluster(src, src_bytes, dst, dst_bytes)
                                          : deflate_cluster(src, src_bytes, dst, dst_bytes);
}

int64_t qcow2_encode(BlockDriverState *bs, const uint8_t *src, size_t src_bytes, uint8_t *dst,
                     size_t dst_bytes)
{
    const Qcow2State *s = bdrv_state(bs);

    return qcow2_compress(s->header.compression_type, src, src_bytes, dst, dst_bytes);
}
