/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that have no guest range of their own: flush, truncate, length.
 */
#include "block/io-int.h"
#include "block/pass-through.h"

int bdrv_check_range(int64_t offset, int64_t bytes)
{
    if (offset < 0 || bytes < 0 || bytes > BDRV_MAX_LENGTH || offset > BDRV_MAX_LENGTH - bytes) {
        return -EIO;
    }
    return 0;
}

/* ---- Flush ------------------------------------------------------------------------ */

/* Tell the hook of a request without data. */
static int coroutine_fn GRAPH_RDLOCK enter_node(BlockDriverState *bs, BdrvIoType type,
                                                int64_t offset)
{
    BdrvIoRequest req = {.type = type, .offset = offset};
    int ret = bdrv_co_enter_node(bs, &req);

    if (req.release) {
        req.release(&req);
    }
    return ret;
}

/* Flush the children that have @role, and none of @not_role. */
static int coroutine_fn GRAPH_RDLOCK flush_children(BlockDriverState *bs, int role, int not_role)
{
    int ret = 0;

    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        if ((child->role & role) && !(child->role & not_role)) {
            int r = bdrv_co_node_flush(child->bs);

            ret = ret < 0 ? ret : r;
        }
    }
    return ret;
}

/* A node that keeps its data below has come to @event: tell where it keeps it. */
static void coroutine_fn GRAPH_RDLOCK flush_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    BdrvChild *primary = bdrv_moves_data(bs) ? NULL : bdrv_primary_child(bs);

    if (primary) {
        bdrv_co_node_debug_event(primary->bs, event);
    }
}

static int coroutine_fn GRAPH_RDLOCK flush_driver(BlockDriverState *bs)
{
    uint64_t writes = sharded_count_sum(&bs->writes);
    int ret;

    if (!bs->drv->bdrv_co_flush) {
        return 0;
    }
    if (bdrv_moves_data(bs) && (bs->open_flags & BDRV_O_NO_FLUSH)) {
        return 0; /* formats write back what they keep in memory all the same */
    }
    if (bdrv_moves_data(bs) && __atomic_load_n(&bs->flushed_writes, __ATOMIC_SEQ_CST) == writes) {
        return 0; /* nothing was written since */
    }
    bdrv_graph_assert_readable();
    ret = bs->drv->bdrv_co_flush(bs);
    if (ret >= 0) {
        __atomic_store_n(&bs->flushed_writes, writes, __ATOMIC_SEQ_CST);
    }
    return ret;
}

int coroutine_fn bdrv_co_node_flush(BlockDriverState *bs)
{
    uint64_t retired = retire_list_mark(bs->retired);
    int ret;

    bdrv_graph_assert_readable();
    if (bs->read_only) {
        return 0;
    }
    ret = enter_node(bs, BDRV_IO_FLUSH, 0);
    if (ret >= 0) {
        flush_event(bs, BDRV_DEBUG_FLUSH_TO_OS);
        ret = flush_children(bs, BDRV_CHILD_DATA, BDRV_CHILD_METADATA);
    }
    if (ret >= 0) {
        ret = flush_driver(bs);
    }
    if (ret >= 0) {
        flush_event(bs, BDRV_DEBUG_FLUSH_TO_DISK);
        ret = flush_children(bs, BDRV_CHILD_METADATA | BDRV_CHILD_FILTERED, 0);
    }
    if (ret >= 0) {
        retire_list_stable(bs->retired, retired);
    }
    return ret;
}

int coroutine_fn bdrv_co_flush(BlockDriverState *bs)
{
    int ret;

    IO_CODE();
    bdrv_graph_assert_readable();
    in_flight_begin(&bs->in_flight);
    ret = bdrv_co_node_flush(bs);
    bdrv_co_release_retired(bs); /* at worst it leaks */
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
    return ret;
}

/* ---- Length ------------------------------------------------------------------------- */

int64_t bdrv_getlength(BlockDriverState *bs)
{
    return __atomic_load_n(&bs->length, __ATOMIC_RELAXED);
}

void bdrv_set_length(BlockDriverState *bs, int64_t length)
{
    g_assert(length >= 0 && length <= BDRV_MAX_LENGTH);
    __atomic_store_n(&bs->length, BDRV_ALIGN_UP(length, BDRV_SECTOR_SIZE), __ATOMIC_RELAXED);
    bdrv_dirty_bitmaps_resize(bs);
}

int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs)
{
    BdrvChild *filtered;
    int64_t length;

    IO_CODE();
    bdrv_graph_assert_readable();
    filtered = bdrv_filter_child(bs);
    if (bs->drv->bdrv_co_getlength) {
        length = bs->drv->bdrv_co_getlength(bs);
    } else if (filtered) {
        length = bdrv_co_getlength(filtered->bs);
    } else {
        return bdrv_getlength(bs);
    }
    if (length < 0) {
        return length;
    }
    if (length > BDRV_MAX_LENGTH) {
        return -EFBIG;
    }
    bdrv_set_length(bs, length);
    return bdrv_getlength(bs);
}

void bdrv_tell_length(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    bdrv_note_write(bs, 0);
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        parent->ops->resized(parent);
    }
}

/* ---- Truncate ------------------------------------------------------------------------- */

static int truncate_refused(BdrvChild *child, int64_t offset, GError **errp) GRAPH_RDLOCK
{
    BlockDriverState *bs = child->bs;

    if (offset < 0 || offset > BDRV_MAX_LENGTH) {
        block_error_set(errp, EINVAL, "Image size %" G_GINT64_FORMAT " is not in 0..%lld", offset,
                        (long long)BDRV_MAX_LENGTH);
        return -EINVAL;
    }
    if (bs->read_only) {
        block_error_set(errp, EACCES, "Image '%s' is read-only", bs->filename);
        return -EACCES;
    }
    if (!bdrv_may_resize(child)) {
        block_error_set(errp, EPERM, "Image '%s' may not be resized: no permission for it was "
                        "taken", bs->filename);
        return -EPERM;
    }
    if (!bs->drv->bdrv_co_truncate && !bdrv_filter_child(bs)) {
        block_error_set(errp, ENOTSUP, "Image format driver '%s' does not support resize",
                        bs->drv->format_name);
        return -ENOTSUP;
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK truncate_driver(BlockDriverState *bs, int64_t offset,
                                                     bool exact, BlockPrealloc prealloc,
                                                     GError **errp)
{
    BdrvChild *filtered;
    int ret;

    bdrv_graph_assert_readable();
    if (bs->drv->bdrv_co_truncate) {
        return bs->drv->bdrv_co_truncate(bs, offset, exact, prealloc, errp);
    }
    filtered = bdrv_filter_child(bs);
    ret = bdrv_co_truncate(filtered, offset, exact, prealloc, errp);
    if (ret >= 0) {
        bdrv_set_length(bs, bdrv_getlength(filtered->bs));
    }
    return ret;
}

/*
 * At a node whose mappings need no claims. What lies beyond the new end is no
 * longer found by requests that begin now, and those that have passed end first:
 * a write that lands there later would lengthen the file again.
 */
static int coroutine_fn GRAPH_RDLOCK truncate_plain(BlockDriverState *bs, int64_t offset,
                                                    bool exact, BlockPrealloc prealloc,
                                                    GError **errp)
{
    int64_t old = bdrv_getlength(bs), end = BDRV_ALIGN_UP(offset, BDRV_SECTOR_SIZE);
    bool shrinks = exact && end < old;
    int ret;

    bdrv_graph_assert_readable();
    while (shrinks && bdrv_getlength(bs) > end) { /* a write that ends may raise it again */
        /* Without bdrv_set_length(): dirty bitmaps lose nothing if it fails. */
        __atomic_store_n(&bs->length, end, __ATOMIC_SEQ_CST);
        pass_through_exclude(bs, end, INT64_MAX - end);
    }
    ret = truncate_driver(bs, offset, exact, prealloc, errp);
    if (ret < 0 && shrinks) {
        __atomic_store_n(&bs->length, old, __ATOMIC_SEQ_CST);
    }
    return ret;
}

/* A format that commits moves its tables: nobody else is in the node meanwhile. */
static int coroutine_fn GRAPH_RDLOCK truncate_claiming(BlockDriverState *bs, int64_t offset,
                                                       bool exact, BlockPrealloc prealloc,
                                                       GError **errp)
{
    Claim claim;
    int ret;

    bdrv_graph_assert_readable();
    claim_begin(bs->claims, &claim, 0, INT64_MAX, true);
    pass_through_exclude(bs, 0, INT64_MAX);
    ret = truncate_driver(bs, offset, exact, prealloc, errp);
    if (ret == -ENOSPC && !retire_list_empty(bs->retired) &&
        bdrv_co_node_flush(bs) >= 0) {
        g_clear_error(errp);
        bdrv_co_release_retired(bs);
        ret = truncate_driver(bs, offset, exact, prealloc, errp);
    }
    claim_end(bs->claims, &claim);
    bdrv_co_release_retired(bs); /* at worst it leaks */
    return ret;
}

int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset, bool exact,
                                  BlockPrealloc prealloc, GError **errp)
{
    BlockDriverState *bs = child->bs;
    int ret;

    IO_CODE();
    bdrv_graph_assert_readable();
    ret = truncate_refused(child, offset, errp);
    if (ret < 0) {
        return ret;
    }
    in_flight_begin(&bs->in_flight);
    ret = enter_node(bs, BDRV_IO_TRUNCATE, offset);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not resize '%s'", bs->filename);
    } else {
        ret = bdrv_takes_claims(bs) ? truncate_claiming(bs, offset, exact, prealloc, errp)
                                    : truncate_plain(bs, offset, exact, prealloc, errp);
        if (ret < 0 && errp && !*errp) {
            block_error_set_errno(errp, ret, "Could not resize '%s'", bs->filename);
        }
    }
    if (ret >= 0) {
        bdrv_forget_mappings(bs);
        bdrv_set_length(bs, MAX(offset, exact ? 0 : bdrv_getlength(bs)));
        bdrv_tell_length(bs);
    }
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
    return MIN(ret, 0);
}
