/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy-on-read: what a read finds unallocated at a format that commits is read
 * through, and written there as well, in whole units of allocation.
 *
 * Invariants:
 *  1. From looking whether the range is unallocated until the copy is committed, the
 *     read claims the range, rounded to the map unit, exclusively: it can put nothing
 *     over what somebody has written, and is the only one to copy.
 *  2. What is copied is what the node reads as anyway: nothing visible changes, so
 *     that BLK_PERM_WRITE_UNCHANGED is enough, and dirty bitmaps are not told.
 *  3. A read whose copy cannot be written fails, as with QEMU.
 */
#include "block/io-int.h"

/* A read on its way through the node's stretches. */
typedef struct CopyRead {
    BlockDriverState *bs;
    int64_t unit; /* of allocation, bytes */
    IOVector *iov;
} CopyRead;

/* Read [offset, offset + n), which is at @iov_offset of the vector, as it is. */
static int coroutine_fn GRAPH_RDLOCK read_plainly(const CopyRead *c, int64_t offset, int64_t n,
                                                  size_t iov_offset)
{
    IOVector slice;
    int ret;

    io_vector_init(&slice, 1);
    io_vector_append(&slice, c->iov, iov_offset, n);
    ret = bdrv_co_claimed_preadv(c->bs, offset, n, &slice, 0);
    io_vector_destroy(&slice);
    return ret;
}

/* Write what @iov holds: as zeros if it is nothing else and the format has a way. */
static int coroutine_fn GRAPH_RDLOCK write_copy(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                IOVector *iov)
{
    BdrvChild *primary = bdrv_primary_child(bs);
    int ret = -ENOTSUP;

    if (primary) {
        bdrv_co_debug_event(primary, BDRV_DEBUG_COR_WRITE);
    }
    if (io_vector_is_zero(iov, 0, bytes)) {
        ret = bdrv_co_claimed_map_zeroes(bs, offset, bytes);
    }
    if (ret == -ENOTSUP) {
        ret = bdrv_co_claimed_pwritev(bs, offset, bytes, iov, 0, BDRV_REQ_WRITE_UNCHANGED);
    }
    return ret;
}

/*
 * Copy the units around @offset that @m says are unallocated, and read the first *@n
 * bytes from there: less than asked for if it takes too large a buffer.
 */
static int coroutine_fn GRAPH_RDLOCK read_and_copy(const CopyRead *c, const BdrvMapping *m,
                                                   int64_t offset, int64_t *n, size_t iov_offset)
{
    int64_t start = MAX(offset - offset % c->unit, m->offset);
    int64_t end = MIN(offset + *n + c->unit - 1, start + MAX(BDRV_MAX_BOUNCE, c->unit));
    IOVector bounce;
    uint8_t *buf;
    int ret;

    end = MIN(end - end % c->unit, MIN(m->offset + m->bytes, bdrv_getlength(c->bs)));
    *n = MIN(*n, end - offset);
    buf = bdrv_try_blockalign(c->bs, end - start);
    if (!buf) {
        return -ENOMEM;
    }
    io_vector_init_buf(&bounce, buf, end - start);
    ret = bdrv_co_claimed_preadv(c->bs, start, end - start, &bounce, 0);
    if (ret >= 0) {
        ret = write_copy(c->bs, start, end - start, &bounce);
    }
    if (ret >= 0) {
        io_vector_from_buf(c->iov, iov_offset, buf + (offset - start), *n);
    }
    free(buf);
    return ret;
}

static int64_t coroutine_fn GRAPH_RDLOCK allocation_unit(BlockDriverState *bs)
{
    BlockDriverInfo info = {0};

    if (bdrv_co_get_info(bs, &info) >= 0 && info.subcluster_size > 0) {
        return info.subcluster_size;
    }
    return bs->map_unit;
}

int coroutine_fn bdrv_co_claimed_copy_on_readv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               IOVector *iov)
{
    CopyRead c = {bs, 0, iov};
    BdrvMapping m;
    int ret = 0;

    bdrv_graph_assert_readable();
    c.unit = allocation_unit(bs);
    for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
        ret = bdrv_co_map_range(bs, BDRV_MAP_READ, offset + done, bytes - done, 0, 0, &m, &n);
        if (ret >= 0) {
            ret = m.target == BDRV_MAP_UNALLOCATED
                      ? read_and_copy(&c, &m, offset + done, &n, done)
                      : read_plainly(&c, offset + done, n, done);
        }
    }
    return ret;
}

/* 1 if all of the range is allocated, 0 if not, or -errno. */
static int coroutine_fn GRAPH_RDLOCK is_all_here(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes)
{
    BdrvMapping m;
    int ret;

    for (int64_t done = 0, n; done < bytes; done += n) {
        ret = bdrv_co_map_range(bs, BDRV_MAP_READ, offset + done, bytes - done, 0, 0, &m, &n);
        if (ret < 0 || m.target == BDRV_MAP_UNALLOCATED) {
            return MIN(ret, 0);
        }
    }
    return 1;
}

int coroutine_fn bdrv_co_copy_on_readv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *iov)
{
    Claim claim;
    bool all_here;
    int ret;

    bdrv_graph_assert_readable();
    claim_begin(bs->claims, &claim, offset, bytes, false);
    ret = is_all_here(bs, offset, bytes);
    all_here = ret > 0;
    if (all_here) {
        ret = bdrv_co_claimed_preadv(bs, offset, bytes, iov, 0);
    }
    claim_end(bs->claims, &claim);
    if (ret >= 0 && !all_here) {
        return bdrv_co_committing_change(bs, BDRV_MAP_READ, offset, bytes, iov, 0);
    }
    if (retire_list_has_stable(bs->retired)) {
        bdrv_co_release_retired(bs); /* it may have waited for this read; at worst it leaks */
    }
    return ret;
}
