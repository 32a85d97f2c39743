/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing, zeroing and discarding: a range of a node, turned into the same
 * operation on the nodes that store it. What a format has to allocate or to
 * change in its tables for is in io-change.c.
 */
#include "block/io-int.h"

/* What is done to a range; the parts of a request share it. */
typedef struct ChangeOp {
    BdrvMapOp op;
    BdrvIoType type;
    const CopySource *from; /* a write without memory: the bytes are to be copied */
} ChangeOp;

static const ChangeOp op_write = {BDRV_MAP_WRITE, BDRV_IO_WRITE, NULL};
static const ChangeOp op_zeroes = {BDRV_MAP_WRITE_ZEROES, BDRV_IO_WRITE_ZEROES, NULL};
static const ChangeOp op_discard = {BDRV_MAP_DISCARD, BDRV_IO_DISCARD, NULL};

static int coroutine_fn GRAPH_RDLOCK node_change(const ChangeOp *op, BlockDriverState *bs,
                                                 int64_t offset, int64_t bytes, IOVector *iov,
                                                 int flags);

static int coroutine_fn GRAPH_RDLOCK protocol_change(const ChangeOp *op, BlockDriverState *bs,
                                                     int64_t offset, int64_t bytes, IOVector *iov,
                                                     int flags)
{
    if (op->from) {
        return bdrv_co_protocol_copy_range(op->from, bs, offset, bytes, flags);
    }
    switch (op->op) {
    case BDRV_MAP_WRITE:
        return bdrv_co_protocol_pwritev(bs, offset, bytes, iov, flags);
    case BDRV_MAP_WRITE_ZEROES:
        return bdrv_co_protocol_pwrite_zeroes(bs, offset, bytes, flags);
    default:
        return bdrv_co_protocol_pdiscard(bs, offset, bytes);
    }
}

/* Tell the node's file that it is going to be written to. */
static void coroutine_fn GRAPH_RDLOCK write_event(const ChangeOp *op, BlockDriverState *bs,
                                                  const BdrvMapping *m)
{
    if (op->op == BDRV_MAP_WRITE && !bs->drv->is_filter) {
        bdrv_co_debug_event(m->child, BDRV_DEBUG_WRITE_AIO);
    }
}

static int coroutine_fn GRAPH_RDLOCK change_part(const ChangeOp *op, Part *part)
{
    int64_t place = bdrv_mapping_place(&part->mapping, part->offset);
    IOVector slice;
    int ret;

    io_vector_init(&slice, 1);
    if (part->iov) {
        io_vector_append(&slice, part->iov, part->iov_offset, part->bytes);
    }
    write_event(op, part->bs, &part->mapping);
    ret = node_change(op, part->mapping.child->bs, place, part->bytes, &slice, part->flags);
    io_vector_destroy(&slice);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_part(Part *part)
{
    return change_part(&op_write, part);
}

static int coroutine_fn GRAPH_RDLOCK zeroes_part(Part *part)
{
    return change_part(&op_zeroes, part);
}

static int coroutine_fn GRAPH_RDLOCK discard_part(Part *part)
{
    return change_part(&op_discard, part);
}

/* 1: go to the mapping's place; 0: there is nothing to do; -errno. */
static int mapping_allows(const ChangeOp *op, const BdrvMapping *m)
{
    if (m->needs_commit || m->target == BDRV_MAP_ENCODED) {
        return -ENOTSUP;
    }
    if (m->target == BDRV_MAP_DATA) {
        return m->writable ? 1 : -ENOTSUP; /* others may refer to the place */
    }
    if (op->op == BDRV_MAP_DISCARD ||
        (op->op == BDRV_MAP_WRITE_ZEROES && m->target == BDRV_MAP_ZERO)) {
        return 0;
    }
    return -ENOTSUP;
}

static int coroutine_fn GRAPH_RDLOCK change_in_parts(const ChangeOp *op, BlockDriverState *bs,
                                                     int64_t offset, int64_t bytes, IOVector *iov,
                                                     int flags, BdrvMapping *m, int64_t n)
{
    PartFunc *func = op->op == BDRV_MAP_WRITE          ? write_part
                     : op->op == BDRV_MAP_WRITE_ZEROES ? zeroes_part
                                                       : discard_part;
    PartPool pool = {0};
    int64_t done = 0;
    int ret;

    for (;;) {
        ret = mapping_allows(op, m);
        if (ret > 0) {
            Part part = {func, bs, *m, offset + done, n, iov, done, flags, NULL};

            part_pool_start(&pool, &part);
        }
        done += n;
        if (ret < 0 || done == bytes || pool.ret < 0) {
            break;
        }
        ret = bdrv_co_map_range(bs, op->op, offset + done, bytes - done, flags, 0, m, &n);
        if (ret < 0) {
            break;
        }
    }
    return part_pool_finish(&pool, ret);
}

/*
 * Whether a write may go beyond the end of @bs: whoever took the permission to resize knows
 * of it, and the end is that of the storage below. A format that commits has one of its own.
 */
static bool may_grow(const ChangeOp *op, const BlockDriverState *bs)
{
    bool ends_below = bdrv_moves_data(bs) ||
                      ((bs->drv->bdrv_co_getlength || bs->drv->is_filter) &&
                       !bs->drv->bdrv_co_map_commit);

    return op->op != BDRV_MAP_DISCARD && ends_below &&
           (__atomic_load_n(&bs->perm, __ATOMIC_RELAXED) & BLK_PERM_RESIZE);
}

/*
 * One step down, after the node's hook has agreed. 1: all of it lies in one
 * piece below, go on with *@bs and *@offset; 0: done; -errno.
 */
static int coroutine_fn GRAPH_RDLOCK change_step(const ChangeOp *op, BlockDriverState **bs,
                                                 int64_t *offset, int64_t bytes, IOVector *iov,
                                                 int flags)
{
    bool moves_data = bdrv_moves_data(*bs);
    BdrvMapping m;
    int64_t n;
    int ret;

    if (moves_data && (flags & ~(*bs)->drv->supported_write_flags & BDRV_REQ_COMPRESSED)) {
        return -ENOTSUP;
    }
    if (*offset > bdrv_getlength(*bs) - bytes && !may_grow(op, *bs) &&
        !(moves_data && op->op == BDRV_MAP_DISCARD)) {
        return -EIO;
    }
    if (moves_data) {
        return protocol_change(op, *bs, *offset, bytes, iov, flags);
    }
    if ((*bs)->drv->bdrv_co_map_commit) {
        return op->from ? -ENOTSUP
                        : bdrv_co_committing_change(*bs, op->op, *offset, bytes, iov, flags);
    }
    if ((flags & BDRV_REQ_COMPRESSED) && !(*bs)->drv->is_filter) {
        return -ENOTSUP;
    }
    ret = bdrv_co_map_range(*bs, op->op, *offset, bytes, flags, 0, &m, &n);
    if (ret < 0) {
        return ret;
    }
    if (n < bytes) {
        return op->from ? -ENOTSUP
                        : change_in_parts(op, *bs, *offset, bytes, iov, flags, &m, n);
    }
    ret = mapping_allows(op, &m);
    if (ret > 0) {
        write_event(op, *bs, &m);
        *offset = bdrv_mapping_place(&m, *offset);
        *bs = m.child->bs;
    }
    return ret;
}

/*
 * What a change is to node @bs, which it enters: a write of nothing but zeros may zero
 * the range instead. Whoever waits for a write beyond a threshold is told.
 */
static const ChangeOp *op_at_node(const ChangeOp *op, BlockDriverState *bs, int64_t end,
                                  IOVector **iov, int *flags)
{
    int64_t threshold = __atomic_load_n(&bs->write_threshold, __ATOMIC_RELAXED);

    if (op->op == BDRV_MAP_DISCARD) {
        return op;
    }
    if (threshold && end > threshold) {
        bdrv_write_threshold_exceeded(bs, end);
    }
    if (op->op != BDRV_MAP_WRITE || bs->detect_zeroes == BDRV_DETECT_ZEROES_OFF ||
        (*flags & BDRV_REQ_COMPRESSED) || !io_vector_is_zero(*iov, 0, (*iov)->size)) {
        return op;
    }
    *iov = NULL;
    *flags |= bs->detect_zeroes == BDRV_DETECT_ZEROES_UNMAP ? BDRV_REQ_MAY_UNMAP : 0;
    return &op_zeroes;
}

/* Whether a write may not come to @bs without its data. */
static bool must_see_data(BlockDriverState *bs)
{
    return bdrv_hook_sees(bs, BDRV_IO_WRITE) || bs->detect_zeroes != BDRV_DETECT_ZEROES_OFF;
}

/* A write to @bs, which is as long as what it stores now. */
static void note_growth(BlockDriverState *bs, int64_t end)
{
    bdrv_note_write(bs, end);
    bdrv_dirty_bitmaps_resize(bs);
}

static int coroutine_fn node_change(const ChangeOp *op, BlockDriverState *bs, int64_t offset,
                                    int64_t bytes, IOVector *iov, int flags)
{
    int ret = 1;

    while (ret > 0) {
        BlockDriverState *node = bs;
        int64_t start = offset;
        BdrvIoRequest hook;
        bool marks, fua, grows;

        if (bs->read_only) {
            return -EPERM;
        }
        if (op->from && must_see_data(bs)) {
            return -ENOTSUP;
        }
        op = op_at_node(op, bs, offset + bytes, &iov, &flags);
        if (!(bs->open_flags & BDRV_O_UNMAP)) {
            if (op->op == BDRV_MAP_DISCARD) {
                return 0;
            }
            flags &= ~BDRV_REQ_MAY_UNMAP;
        }
        /* Rule 11: what the format has in memory has to reach the disk as well. */
        fua = (flags & BDRV_REQ_FUA) && !bdrv_moves_data(bs) && bs->drv->bdrv_co_flush;
        flags &= fua ? ~BDRV_REQ_FUA : ~0;
        marks = __atomic_load_n(&bs->dirty_bitmaps, __ATOMIC_ACQUIRE) != NULL;
        grows = op->op != BDRV_MAP_DISCARD && !bdrv_is_protocol(bs) &&
                offset > bdrv_getlength(bs) - bytes;
        hook = (BdrvIoRequest){op->type, flags, offset, bytes, iov};
        ret = op->from ? 0 : bdrv_co_enter_node(bs, &hook);
        if (ret >= 0) {
            ret = change_step(op, &bs, &offset, bytes, hook.iov, flags);
        }
        if (ret > 0 && (hook.release || marks || fua || grows)) {
            /* The node has to see how it ends. */
            ret = node_change(op, bs, offset, bytes, hook.iov, flags);
        }
        if (ret == 0 && grows) {
            note_growth(node, start + bytes);
        }
        if (ret == 0 && fua) {
            ret = bdrv_co_node_flush(node);
        }
        if (marks) {
            bdrv_dirty_bitmaps_mark(node, start, bytes);
        }
        if (hook.release) {
            hook.release(&hook);
        }
    }
    return ret;
}

int coroutine_fn bdrv_co_node_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *iov, int flags)
{
    bdrv_graph_assert_readable();
    return node_change(&op_write, bs, offset, bytes, iov, flags);
}

int coroutine_fn bdrv_co_node_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            int flags)
{
    bdrv_graph_assert_readable();
    return node_change(&op_zeroes, bs, offset, bytes, NULL, flags);
}

int coroutine_fn bdrv_co_node_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    bdrv_graph_assert_readable();
    return node_change(&op_discard, bs, offset, bytes, NULL, 0);
}

int coroutine_fn bdrv_co_node_copy_range(const CopySource *from, BlockDriverState *bs,
                                         int64_t offset, int64_t bytes, int flags)
{
    const ChangeOp op = {BDRV_MAP_WRITE, BDRV_IO_WRITE, from};

    bdrv_graph_assert_readable();
    return node_change(&op, bs, offset, bytes, NULL, flags);
}

static int coroutine_fn GRAPH_RDLOCK child_change(const ChangeOp *op, BdrvChild *child,
                                                  int64_t offset, int64_t bytes, IOVector *iov,
                                                  int flags)
{
    BlockDriverState *bs = child->bs;
    int ret = bdrv_check_range(offset, bytes);

    IO_CODE();
    bdrv_graph_assert_readable();
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (!bdrv_may_write(child, flags)) {
        return -EPERM;
    }
    g_assert(!iov || iov->size == bytes);
    in_flight_begin(&bs->in_flight);
    ret = node_change(op, bs, offset, bytes, iov, flags);
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
    return ret;
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *iov,
                                 int flags)
{
    bdrv_graph_assert_readable();
    return child_change(&op_write, child, offset, bytes, iov, flags);
}

int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                int flags)
{
    IOVector iov;

    bdrv_graph_assert_readable();
    io_vector_init_buf(&iov, (void *)buf, MAX(bytes, 0));
    return bdrv_co_pwritev(child, offset, bytes, &iov, flags);
}

int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes, int flags)
{
    bdrv_graph_assert_readable();
    return child_change(&op_zeroes, child, offset, bytes, NULL, flags);
}

int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes)
{
    bdrv_graph_assert_readable();
    return child_change(&op_discard, child, offset, bytes, NULL, 0);
}
