/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing, zeroing and discarding at a node whose driver commits (map.h).
 *
 * Invariants:
 *  1. The driver is asked for a change, and what it answers is carried out and
 *     ended by commit or abort, while the request claims the range.
 *  2. Nobody waits for a claim of the node while holding a mapping of it that
 *     is not committed: a request has one claim, over all of its range.
 */
#include "block/io-int.h"
#include "block/pass-through.h"

/* A range of a request, on its way to parts. */
typedef struct Change {
    BlockDriverState *bs;
    BdrvMapOp op; /* a write without a vector writes zeros; a read copies */
    int64_t offset;
    int64_t bytes;
    IOVector *iov; /* of the whole request */
    size_t iov_offset;
    int flags;
    Claim *claim;  /* if this is all that the request does, else NULL */
    PartPool *pool;
} Change;

/* ---- Parts ------------------------------------------------------------------------ */

static int coroutine_fn GRAPH_RDLOCK write_in_place(Part *part)
{
    int64_t place = bdrv_mapping_place(&part->mapping, part->offset);
    BlockDriverState *child = part->mapping.child->bs;
    IOVector slice;
    int ret;

    bdrv_co_debug_event(part->mapping.child, BDRV_DEBUG_WRITE_AIO);
    if (!part->iov) {
        return bdrv_co_node_pwrite_zeroes(child, place, part->bytes, part->flags);
    }
    io_vector_init(&slice, 1);
    io_vector_append(&slice, part->iov, part->iov_offset, part->bytes);
    ret = bdrv_co_node_pwritev(child, place, part->bytes, &slice, part->flags);
    io_vector_destroy(&slice);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK commit_only(Part *part)
{
    return bdrv_co_end_mapping(part->bs, &part->mapping, 0);
}

static int coroutine_fn GRAPH_RDLOCK zero_place(Part *part)
{
    const BdrvMapping *m = &part->mapping;
    int ret = bdrv_co_node_pwrite_zeroes(m->child->bs, bdrv_mapping_place(m, part->offset),
                                         part->bytes, part->flags);

    return bdrv_co_end_mapping(part->bs, m, ret);
}

static int coroutine_fn GRAPH_RDLOCK discard_place(Part *part)
{
    const BdrvMapping *m = &part->mapping;
    int ret = bdrv_co_end_mapping(part->bs, m, 0);

    if (ret < 0) {
        return ret;
    }
    return bdrv_co_node_pdiscard(m->child->bs, bdrv_mapping_place(m, part->offset), part->bytes);
}

/* What to do about an answer; *@ret: 0, nothing; or -EIO, the answer makes no sense. */
static PartFunc *func_for(BdrvMapOp op, const BdrvMapping *m, int *ret)
{
    bool has_place = m->target == BDRV_MAP_DATA && m->child;

    *ret = -EIO;
    if (op == BDRV_MAP_WRITE) {
        if (!has_place) {
            return NULL;
        }
        return m->needs_commit ? bdrv_co_write_new : m->writable ? write_in_place : NULL;
    }
    if (m->target == BDRV_MAP_ZERO || m->target == BDRV_MAP_UNALLOCATED) {
        *ret = 0;
        return m->needs_commit ? commit_only : NULL;
    }
    if (!has_place || !(m->writable || m->needs_commit)) {
        return NULL;
    }
    return op == BDRV_MAP_DISCARD ? discard_place : zero_place;
}

/* ---- Ranges ------------------------------------------------------------------------- */

/* Run @part, at once if it is all there is, or beside the others. */
static int coroutine_fn GRAPH_RDLOCK run_part(const Change *c, Part *part)
{
    if (!c->claim) {
        part_pool_start(c->pool, part);
        return 0;
    }
    if (part->func == write_in_place) {
        claim_downgrade(c->bs->claims, c->claim);
    }
    return part->func(part);
}

/* Ask the driver about @c, from its beginning on, and do what it says. */
static int coroutine_fn GRAPH_RDLOCK change_range(Change c)
{
    int ret = 0;

    while (c.bytes > 0 && ret >= 0 && c.pool->ret >= 0) {
        Part part = {.bs = c.bs, .offset = c.offset, .iov = c.iov, .iov_offset = c.iov_offset,
                     .flags = c.flags};

        ret = bdrv_co_map_range(c.bs, c.op, c.offset, c.bytes, c.flags, 0, &part.mapping,
                                &part.bytes);
        if (ret < 0) {
            break;
        }
        part.func = func_for(c.op, &part.mapping, &ret);
        if (part.bytes < c.bytes) {
            c.claim = NULL; /* others follow */
        }
        if (part.func) {
            ret = run_part(&c, &part);
        }
        c.offset += part.bytes;
        c.iov_offset += part.bytes;
        c.bytes -= part.bytes;
    }
    return ret;
}

/* Zeros where the driver has no way of its own: as data, unless they are there. */
static int coroutine_fn GRAPH_RDLOCK zero_as_data(Change c)
{
    int64_t n;
    int ret = bdrv_co_block_status_above(c.bs, NULL, c.offset, c.bytes, &n, NULL, NULL, NULL);

    if (ret >= 0 && (ret & BDRV_BLOCK_ZERO) && n == c.bytes) {
        return 0;
    }
    if (c.flags & BDRV_REQ_NO_FALLBACK) {
        return -ENOTSUP;
    }
    c.op = BDRV_MAP_WRITE;
    return change_range(c);
}

/* The part of @c from @start up to @end, which does not stand alone. */
static Change cut(const Change *c, int64_t start, int64_t end)
{
    Change part = *c;

    part.offset = start;
    part.bytes = end - start;
    part.iov_offset += start - c->offset;
    part.claim = part.bytes == c->bytes ? c->claim : NULL;
    return part;
}

/* What of @c the driver can do by its tables alone: whole units. Else empty. */
static Change whole_units(const Change *c, int64_t unit)
{
    int64_t end = c->offset + c->bytes;
    int64_t first = c->offset + unit - 1 - (c->offset + unit - 1) % unit;
    int64_t last = end == bdrv_getlength(c->bs) ? end : end - end % unit;

    return first < last ? cut(c, first, last) : cut(c, end, end);
}

static int coroutine_fn GRAPH_RDLOCK zero_range(Change c)
{
    int64_t end = c.offset + c.bytes;
    Change units = whole_units(&c, MAX(c.bs->limits.pwrite_zeroes_alignment, 1));
    int ret = 0;

    if (units.offset > c.offset) {
        ret = zero_as_data(cut(&c, c.offset, units.offset));
        /* What follows may lie in the same map unit: its mapping is asked for after. */
        ret = part_pool_finish(c.pool, ret);
    }
    if (ret >= 0 && units.bytes > 0) {
        ret = change_range(units);
        if (ret == -ENOTSUP) {
            ret = zero_as_data(units);
        }
        ret = part_pool_finish(c.pool, ret);
    }
    if (ret >= 0 && units.offset + units.bytes < end) {
        ret = zero_as_data(cut(&c, units.offset + units.bytes, end));
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK discard_range(Change c)
{
    Change units = whole_units(&c, MAX(c.bs->limits.pdiscard_alignment, 1));
    int ret = units.bytes > 0 ? change_range(units) : 0;

    return ret == -ENOTSUP ? 0 : ret; /* a hint */
}

static int coroutine_fn GRAPH_RDLOCK run_change(Change c)
{
    switch (c.op) {
    case BDRV_MAP_READ:
        return bdrv_co_claimed_copy_on_readv(c.bs, c.offset, c.bytes, c.iov);
    case BDRV_MAP_WRITE:
        return c.flags & BDRV_REQ_COMPRESSED
                   ? bdrv_co_write_compressed(c.bs, c.offset, c.bytes, c.iov, c.flags, c.pool)
                   : change_range(c);
    case BDRV_MAP_WRITE_ZEROES:
        return zero_range(c);
    default:
        return discard_range(c);
    }
}

int coroutine_fn bdrv_co_claimed_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, size_t iov_offset, int flags)
{
    PartPool pool = {0};
    int ret;

    bdrv_graph_assert_readable();
    ret = change_range((Change){bs, BDRV_MAP_WRITE, offset, bytes, iov, iov_offset, flags, NULL,
                                &pool});
    return part_pool_finish(&pool, ret);
}

int coroutine_fn bdrv_co_claimed_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               bool allocate)
{
    PartPool pool = {0};
    Change c = {.bs = bs, .op = allocate ? BDRV_MAP_WRITE : BDRV_MAP_WRITE_ZEROES,
                .offset = offset, .bytes = bytes, .pool = &pool};
    int ret;

    bdrv_graph_assert_readable();
    ret = part_pool_finish(&pool, run_change(c));
    return MIN(ret, 0);
}

int coroutine_fn bdrv_co_claimed_map_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    PartPool pool = {0};
    Change c = {.bs = bs, .op = BDRV_MAP_WRITE_ZEROES, .offset = offset, .bytes = bytes,
                .flags = BDRV_REQ_WRITE_UNCHANGED, .pool = &pool};
    int ret;

    bdrv_graph_assert_readable();
    if (whole_units(&c, MAX(bs->limits.pwrite_zeroes_alignment, 1)).bytes < bytes) {
        return -ENOTSUP;
    }
    ret = change_range(c);
    return part_pool_finish(&pool, ret);
}

/* ---- Requests ----------------------------------------------------------------------- */

/*
 * A write that the cache says is in place, all of it: a shared claim will do.
 * False if it does not say so.
 */
static bool coroutine_fn GRAPH_RDLOCK try_in_place(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, IOVector *iov, int flags,
                                                   int *ret)
{
    Part part = {.bs = bs, .offset = offset, .bytes = bytes, .iov = iov, .flags = flags};
    BdrvMapping *m = &part.mapping;
    Claim claim;
    bool found;

    if (!bs->map_cache || !map_cache_lookup(bs->map_cache, offset, m) || !m->writable) {
        return false;
    }
    claim_begin(bs->claims, &claim, offset, bytes, false);
    found = map_cache_lookup(bs->map_cache, offset, m) && m->target == BDRV_MAP_DATA &&
            m->writable && m->offset + m->bytes - offset >= bytes;
    if (found) {
        *ret = write_in_place(&part);
    }
    claim_end(bs->claims, &claim);
    return found;
}

static int coroutine_fn GRAPH_RDLOCK change_exclusively(Change c)
{
    int64_t start = c.offset - c.offset % c.bs->map_unit;
    int64_t end = c.offset + c.bytes + c.bs->map_unit - 1;
    PartPool pool = {0};
    Claim claim;
    int ret;

    c.pool = &pool;
    c.claim = &claim;
    end -= end % c.bs->map_unit;
    claim_begin(c.bs->claims, &claim, start, end - start, true);
    pass_through_exclude(c.bs, start, end - start);
    ret = run_change(c);
    ret = part_pool_finish(&pool, ret);
    claim_end(c.bs->claims, &claim);
    return ret;
}

int coroutine_fn bdrv_co_release_retired(BlockDriverState *bs)
{
    BdrvPlace place;
    int ret = 0;

    bdrv_graph_assert_readable();
    while (retire_list_has_stable(bs->retired) &&
           retire_list_take(bs->retired, claim_set_oldest(bs->claims), &place)) {
        int r = bs->drv->bdrv_co_release(bs, &place);

        ret = ret < 0 ? ret : r;
    }
    return ret;
}

void bdrv_retire(BlockDriverState *bs, const BdrvPlace *place)
{
    retire_list_add(bs->retired, place, claim_set_next(bs->claims));
}

/* After the request: what it or others left to be done. */
static void coroutine_fn GRAPH_RDLOCK after_change(BlockDriverState *bs)
{
    if (retire_list_wants_flush(bs->retired)) {
        bdrv_co_node_flush(bs); /* a failure shows in the next flush by the guest */
    }
    bdrv_co_release_retired(bs); /* at worst it leaks */
}

int coroutine_fn bdrv_co_committing_change(BlockDriverState *bs, BdrvMapOp op, int64_t offset,
                                           int64_t bytes, IOVector *iov, int flags)
{
    Change c = {.bs = bs, .op = op, .offset = offset, .bytes = bytes,
                .iov = op == BDRV_MAP_WRITE || op == BDRV_MAP_READ ? iov : NULL, .flags = flags};
    bool again = true;
    int ret;

    bdrv_graph_assert_readable();
    if (op != BDRV_MAP_WRITE || (flags & BDRV_REQ_COMPRESSED) ||
        !try_in_place(bs, offset, bytes, iov, flags, &ret)) {
        ret = change_exclusively(c);
        while (ret == -ENOSPC && again && !retire_list_empty(bs->retired)) {
            again = false;
            if (bdrv_co_node_flush(bs) >= 0) {
                bdrv_co_release_retired(bs);
                ret = change_exclusively(c);
            }
        }
    }
    after_change(bs);
    return ret;
}
