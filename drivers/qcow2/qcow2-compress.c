/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: decode compressed clusters.
 *
 * The descriptor gives the encoded length in sectors, so what follows the end
 * of the stream is somebody else's and is ignored. The stream must give
 * exactly one cluster: one byte more or less is damage.
 */
#include <errno.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include "drivers/qcow2/qcow2.h"
#ifdef CONFIG_LIBDEFLATE
#include <libdeflate.h>
#endif

/* Streams are raw deflate that looks back 4 KiB at most. */
#define DEFLATE_WINDOW_BITS 12

#ifdef CONFIG_LIBDEFLATE
static void free_decompressor(gpointer decompressor)
{
    libdeflate_free_decompressor(decompressor);
}

static int inflate_cluster(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    static GPrivate of_thread = G_PRIVATE_INIT(free_decompressor);
    struct libdeflate_decompressor *decompressor = g_private_get(&of_thread);
    enum libdeflate_result result;
    size_t used;

    if (!decompressor) {
        decompressor = libdeflate_alloc_decompressor();
        if (!decompressor) {
            return -ENOMEM;
        }
        g_private_set(&of_thread, decompressor);
    }
    result = libdeflate_deflate_decompress_ex(decompressor, src, src_bytes, dst, dst_bytes, &used,
                                              NULL);
    return result == LIBDEFLATE_SUCCESS ? 0 : -EIO;
}
#else
static int inflate_cluster(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    z_stream stream = {
        .next_in = (Bytef *)src,
        .avail_in = src_bytes,
        .next_out = dst,
        .avail_out = dst_bytes,
    };
    int ret;

    if (inflateInit2(&stream, -DEFLATE_WINDOW_BITS) != Z_OK) {
        return -ENOMEM;
    }
    ret = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    return ret == Z_STREAM_END && stream.avail_out == 0 ? 0 : -EIO;
}
#endif

static void free_dctx(gpointer dctx)
{
    ZSTD_freeDCtx(dctx);
}

/* Frame by frame in one pass each, which needs no window whatever they claim. */
static int unzstd_cluster(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    static GPrivate of_thread = G_PRIVATE_INIT(free_dctx);
    ZSTD_DCtx *dctx = g_private_get(&of_thread);

    if (!dctx) {
        dctx = ZSTD_createDCtx();
        if (!dctx) {
            return -ENOMEM;
        }
        g_private_set(&of_thread, dctx);
    }
    while (dst_bytes > 0) {
        size_t frame = ZSTD_findFrameCompressedSize(src, src_bytes);
        size_t decoded;

        if (ZSTD_isError(frame) || frame == 0) {
            return -EIO;
        }
        decoded = ZSTD_decompressDCtx(dctx, dst, dst_bytes, src, frame);
        if (ZSTD_isError(decoded)) {
            return -EIO;
        }
        src += frame;
        src_bytes -= frame;
        dst += decoded;
        dst_bytes -= decoded;
    }
    return 0;
}

int qcow2_decompress(unsigned type, const uint8_t *src, size_t src_bytes, uint8_t *dst,
                     size_t dst_bytes)
{
    if (type == QCOW2_COMPRESSION_ZSTD) {
        return unzstd_cluster(src, src_bytes, dst, dst_bytes);
    }
    return inflate_cluster(src, src_bytes, dst, dst_bytes);
}
