/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed writes: each map unit is encoded on a worker thread, several at
 * once, and only then is the driver asked for a place of the length it takes.
 */
#include <string.h>

#include "block/io-int.h"

typedef struct EncodeJob {
    BlockDriverState *bs;
    const uint8_t *src;
    uint8_t *dst;
    size_t unit;
} EncodeJob;

static int64_t encode_on_worker(void *opaque)
{
    EncodeJob *job = opaque;

    return job->bs->drv->bdrv_encode(job->bs, job->src, job->unit, job->dst, job->unit - 1);
}

/* Store @encoded bytes at @buf as the unit at part->offset. */
static int coroutine_fn GRAPH_RDLOCK store_encoded(Part *part, int64_t encoded, uint8_t *buf)
{
    BdrvMapping *m = &part->mapping;
    IOVector iov;
    int64_t n;
    int ret = bdrv_co_map_range(part->bs, BDRV_MAP_WRITE, part->offset, part->bytes, part->flags,
                                encoded, m, &n);

    if (ret < 0) {
        return ret;
    }
    if (n != part->bytes || m->target != BDRV_MAP_ENCODED || m->child_bytes != encoded) {
        return bdrv_co_end_mapping(part->bs, m, -EIO);
    }
    bdrv_co_debug_event(m->child, BDRV_DEBUG_WRITE_COMPRESSED);
    io_vector_init_buf(&iov, buf, encoded);
    ret = bdrv_co_node_pwritev(m->child->bs, m->child_offset, encoded, &iov, 0);
    return bdrv_co_end_mapping(part->bs, m, ret);
}

static int coroutine_fn GRAPH_RDLOCK write_unit(Part *part)
{
    size_t unit = part->bs->map_unit;
    uint8_t *src = bdrv_try_blockalign(part->bs, unit);
    uint8_t *dst = bdrv_try_blockalign(part->bs, unit);
    EncodeJob job = {part->bs, src, dst, unit};
    int64_t ret = -ENOMEM;

    if (src && dst) {
        io_vector_to_buf(part->iov, part->iov_offset, src, part->bytes);
        memset(src + part->bytes, 0, unit - part->bytes);
        ret = aio_co_call(encode_on_worker, &job);
        if (ret > 0) {
            ret = store_encoded(part, ret, dst);
        } else if (ret == -ENOSPC) {
            ret = bdrv_co_claimed_pwritev(part->bs, part->offset, part->bytes, part->iov,
                                          part->iov_offset, part->flags & ~BDRV_REQ_COMPRESSED);
        } else if (ret == 0) {
            ret = -EIO;
        }
    }
    free(dst);
    free(src);
    return MIN(ret, 0);
}

int coroutine_fn bdrv_co_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          IOVector *iov, int flags, PartPool *pool)
{
    int64_t unit = bs->map_unit, end = offset + bytes;

    bdrv_graph_assert_readable();
    if (!bs->drv->bdrv_encode) {
        return -ENOTSUP;
    }
    if (offset % unit || (end % unit && end != bdrv_getlength(bs))) {
        return -EINVAL;
    }
    for (int64_t done = 0, n; done < bytes && pool->ret >= 0; done += n) {
        Part part = {.func = write_unit, .bs = bs, .offset = offset + done, .iov = iov,
                     .iov_offset = done, .flags = flags};

        n = MIN(unit, bytes - done);
        part.bytes = n;
        part_pool_start(pool, &part);
    }
    return 0;
}
