/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying a range from node to node where the storage does it by itself.
 *
 * The source's mappings are followed down to a node that moves data. From there the way is
 * that of a write (io-write.c), whose bytes come from that node and not from memory.
 *
 * Invariants:
 *  1. While the target is written, the source's range is claimed as for a read, at every
 *     node that takes claims. The target's nodes do not: nobody waits for a second claim
 *     at a node.
 *  2. Where a read or a write would be looked at, or be more than one run of data, nothing
 *     is copied: the answer is -ENOTSUP.
 */
#include "block/io-int.h"
#include "util/trace.h"

#define MAX_COPY (16LL << 20) /* bytes that a worker thread copies at once */

typedef struct RangeCopy {
    BlockDriverState *dst;
    int64_t dst_offset;
    int flags;
} RangeCopy;

/* ---- The target ------------------------------------------------------------------- */

static bool is_aligned(const BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return ((offset | bytes) & (bs->limits.request_alignment - 1)) == 0;
}

static bool can_copy(const CopySource *from, const BlockDriverState *bs, int64_t offset,
                     int64_t bytes)
{
    bool apart = from->bs != bs || from->offset + bytes <= offset || offset + bytes <= from->offset;

    return apart && bs->drv->bdrv_co_copy_range &&
           bs->drv->bdrv_co_copy_range == from->bs->drv->bdrv_co_copy_range &&
           is_aligned(from->bs, from->offset, bytes) && is_aligned(bs, offset, bytes);
}

int coroutine_fn bdrv_co_protocol_copy_range(const CopySource *from, BlockDriverState *bs,
                                             int64_t offset, int64_t bytes, int flags)
{
    bool claimed = bs->limits.request_alignment > 1; /* else nobody reads and modifies */
    Claim claim;
    int ret;

    bdrv_graph_assert_readable();
    if (!can_copy(from, bs, offset, bytes)) {
        return -ENOTSUP;
    }
    if (claimed) {
        claim_begin(bs->claims, &claim, offset, bytes, false);
    }
    ret = bs->drv->bdrv_co_copy_range(bs, offset, from->bs, from->offset, bytes);
    if (claimed) {
        claim_end(bs->claims, &claim);
    }
    trace_bdrv_co_copy_range(bdrv_get_node_name(from->bs), from->offset, bdrv_get_node_name(bs),
                             offset, bytes, ret);
    bdrv_note_write(bs, ret < 0 ? 0 : offset + bytes);
    if (ret >= 0 && (flags & BDRV_REQ_FUA)) {
        ret = bdrv_co_flush(bs);
    }
    return MIN(ret, 0);
}

/* ---- The source ------------------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK copy_from(const RangeCopy *c, BlockDriverState *bs,
                                               int64_t offset, int64_t *n);

/* One step down: *@n may shrink. */
static int coroutine_fn GRAPH_RDLOCK step_down(BlockDriverState **bs, int64_t *offset, int64_t *n)
{
    BdrvMapping m;
    BdrvChild *cow;
    int ret = bdrv_co_map_range(*bs, BDRV_MAP_READ, *offset, *n, 0, 0, &m, n);

    if (ret < 0) {
        return ret;
    }
    if (m.target == BDRV_MAP_DATA) {
        *offset = bdrv_mapping_place(&m, *offset);
        *bs = m.child->bs;
        return 0;
    }
    cow = m.target == BDRV_MAP_UNALLOCATED ? bdrv_cow_child(*bs) : NULL;
    if (!cow) {
        return -ENOTSUP;
    }
    *bs = cow->bs;
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK copy_from_below(const RangeCopy *c, BlockDriverState *bs,
                                                     int64_t offset, int64_t *n)
{
    int ret = step_down(&bs, &offset, n);

    return ret < 0 ? ret : copy_from(c, bs, offset, n);
}

static int coroutine_fn GRAPH_RDLOCK copy_claiming(const RangeCopy *c, BlockDriverState *bs,
                                                   int64_t offset, int64_t *n)
{
    Claim claim;
    int ret;

    claim_begin(bs->claims, &claim, offset, *n, false);
    ret = copy_from_below(c, bs, offset, n);
    claim_end(bs->claims, &claim);
    if (retire_list_has_stable(bs->retired)) {
        bdrv_co_release_retired(bs); /* it may have waited for this read; at worst it leaks */
    }
    return ret;
}

/* Copy the first bytes of *@n that are at @offset of @bs, and say in *@n how many. */
static int coroutine_fn copy_from(const RangeCopy *c, BlockDriverState *bs, int64_t offset,
                                  int64_t *n)
{
    CopySource from;
    int ret;

    for (;;) {
        int64_t inside = bdrv_getlength(bs) - offset;

        *n = MIN(*n, inside); /* what follows reads as zeros */
        if (*n <= 0 || bdrv_hook_sees(bs, BDRV_IO_READ) ||
            (bs->open_flags & BDRV_O_COPY_ON_READ)) {
            return -ENOTSUP;
        }
        if (bdrv_moves_data(bs)) {
            from = (CopySource){bs, offset};
            return bdrv_co_node_copy_range(&from, c->dst, c->dst_offset, *n, c->flags);
        }
        if (bdrv_takes_claims(bs)) {
            return copy_claiming(c, bs, offset, n);
        }
        ret = step_down(&bs, &offset, n);
        if (ret < 0) {
            return ret;
        }
    }
}

int coroutine_fn bdrv_co_copy_range(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                    int64_t dst_offset, int64_t bytes, int flags)
{
    BlockDriverState *from = src->bs, *to = dst->bs;
    int ret = bdrv_check_range(src_offset, bytes);

    IO_CODE();
    bdrv_graph_assert_readable();
    if (ret >= 0) {
        ret = bdrv_check_range(dst_offset, bytes);
    }
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (!bdrv_may_write(dst, flags)) {
        return -EPERM;
    }
    if (flags & ~BDRV_REQ_FUA) {
        return -ENOTSUP;
    }
    in_flight_begin(&from->in_flight);
    in_flight_begin(&to->in_flight);
    for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
        RangeCopy copy = {to, dst_offset + done, flags};

        n = MIN(bytes - done, MAX_COPY);
        ret = copy_from(&copy, from, src_offset + done, &n);
    }
    in_flight_end(&to->in_flight);
    in_flight_end(&from->in_flight);
    aio_wait_kick();
    return ret;
}
