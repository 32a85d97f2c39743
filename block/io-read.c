/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading: a range of a node, turned into reads of the nodes that store it.
 */
#include "block/io-int.h"

/* ---- Encoded extents ------------------------------------------------------------ */

typedef struct DecodeJob {
    BlockDriverState *bs;
    const BdrvMapping *mapping;
    const uint8_t *src;
    uint8_t *dst;
} DecodeJob;

static int64_t decode_on_worker(void *opaque)
{
    DecodeJob *job = opaque;
    const BdrvMapping *m = job->mapping;

    return m->decode(job->bs, m, job->src, m->child_bytes, job->dst, m->bytes);
}

static int coroutine_fn GRAPH_RDLOCK read_encoded(BlockDriverState *bs, const BdrvMapping *m,
                                                  int64_t offset, int64_t bytes, IOVector *iov,
                                                  size_t iov_offset)
{
    uint8_t *src = bdrv_try_blockalign(m->child->bs, m->child_bytes);
    uint8_t *dst = bdrv_try_blockalign(bs, m->bytes);
    DecodeJob job = {bs, m, src, dst};
    int ret = -ENOMEM;

    if (src && dst) {
        bdrv_co_debug_event(m->child, BDRV_DEBUG_READ_COMPRESSED);
        ret = bdrv_co_pread(m->child, m->child_offset, m->child_bytes, src, 0);
        if (ret >= 0) {
            ret = aio_co_call(decode_on_worker, &job);
        }
        if (ret >= 0) {
            io_vector_from_buf(iov, iov_offset, dst + (offset - m->offset), bytes);
        }
    }
    free(dst);
    free(src);
    return ret;
}

/* ---- Parts ------------------------------------------------------------------------ */

/* Tell the node's file that it is going to be read, or in its place the backing file. */
static void coroutine_fn GRAPH_RDLOCK read_event(BlockDriverState *bs, const BdrvMapping *m)
{
    BdrvChild *primary;

    if (bs->drv->is_filter) {
        return;
    }
    if (m->target == BDRV_MAP_DATA) {
        bdrv_co_debug_event(m->child, BDRV_DEBUG_READ_AIO);
    } else {
        primary = bdrv_primary_child(bs);
        if (primary) {
            bdrv_co_debug_event(primary, BDRV_DEBUG_READ_BACKING_AIO);
        }
    }
}

/* The node and offset where a part's bytes are to be read; NULL for zeros. */
static BlockDriverState *GRAPH_RDLOCK read_from(BlockDriverState *bs, const BdrvMapping *m,
                                                int64_t *offset)
{
    BdrvChild *cow;

    switch (m->target) {
    case BDRV_MAP_DATA:
        *offset = bdrv_mapping_place(m, *offset);
        return m->child->bs;
    case BDRV_MAP_UNALLOCATED:
        cow = bdrv_cow_child(bs);
        return cow ? cow->bs : NULL;
    default:
        return NULL;
    }
}

static int coroutine_fn GRAPH_RDLOCK read_part(Part *part)
{
    int64_t offset = part->offset;
    BlockDriverState *from;
    IOVector slice;
    int ret;

    if (part->mapping.target == BDRV_MAP_ENCODED) {
        return read_encoded(part->bs, &part->mapping, offset, part->bytes, part->iov,
                            part->iov_offset);
    }
    from = read_from(part->bs, &part->mapping, &offset);
    read_event(part->bs, &part->mapping);
    io_vector_init(&slice, 1);
    io_vector_append(&slice, part->iov, part->iov_offset, part->bytes);
    ret = bdrv_co_node_preadv(from, offset, part->bytes, &slice, part->flags);
    io_vector_destroy(&slice);
    return ret;
}

/* A range that falls apart: @m describes its first @n bytes. */
static int coroutine_fn GRAPH_RDLOCK read_in_parts(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, IOVector *iov, int flags,
                                                   BdrvMapping *m, int64_t n)
{
    PartPool pool = {0};
    size_t done = 0;
    int ret = 0;

    for (;;) {
        int64_t at = offset;

        if (m->target == BDRV_MAP_ENCODED || read_from(bs, m, &at)) {
            Part part = {read_part, bs, *m, offset, n, iov, done, flags, NULL};

            part_pool_start(&pool, &part);
        } else {
            io_vector_memset(iov, done, 0, n);
        }
        offset += n;
        done += n;
        if (done == bytes || pool.ret < 0) {
            break;
        }
        ret = bdrv_co_map_range(bs, BDRV_MAP_READ, offset, bytes - done, flags, 0, m, &n);
        if (ret < 0) {
            break;
        }
    }
    return part_pool_finish(&pool, ret);
}

/* ---- Requests ----------------------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK read_inside(Part *part)
{
    IOVector slice;
    int ret;

    io_vector_init(&slice, 1);
    io_vector_append(&slice, part->iov, 0, part->bytes);
    ret = bdrv_co_node_preadv(part->bs, part->offset, part->bytes, &slice, part->flags);
    io_vector_destroy(&slice);
    return ret;
}

/* A range of which only the first @inside bytes lie in the node: zeros follow. */
static int coroutine_fn GRAPH_RDLOCK read_past_end(BlockDriverState *bs, int64_t offset,
                                                   int64_t inside, IOVector *iov, int flags)
{
    Part part = {.func = read_inside, .bs = bs, .offset = offset, .bytes = inside, .iov = iov,
                 .flags = flags};
    PartPool pool = {0};

    inside = MAX(inside, 0);
    io_vector_memset(iov, inside, 0, iov->size - inside);
    if (inside == 0) {
        return 0;
    }
    part_pool_start(&pool, &part);
    return part_pool_finish(&pool, 0);
}

/*
 * One step down, after the node's hook has agreed. 1: all of it lies in one
 * piece below, go on with *@bs and *@offset; 0: done; -errno.
 */
static int coroutine_fn GRAPH_RDLOCK read_step(BlockDriverState **bs, int64_t *offset,
                                               int64_t bytes, IOVector *iov, int flags)
{
    BlockDriverState *node;
    BdrvMapping m;
    int64_t n;
    int ret;

    if (bdrv_moves_data(*bs)) {
        ret = bdrv_co_protocol_preadv(*bs, *offset, bytes, iov, flags);
        return MIN(ret, 0);
    }
    ret = bdrv_co_map_range(*bs, BDRV_MAP_READ, *offset, bytes, flags, 0, &m, &n);
    if (ret < 0) {
        return ret;
    }
    if (n < bytes) {
        return read_in_parts(*bs, *offset, bytes, iov, flags, &m, n);
    }
    if (m.target == BDRV_MAP_ENCODED) {
        return read_encoded(*bs, &m, *offset, bytes, iov, 0);
    }
    node = *bs;
    *bs = read_from(node, &m, offset);
    if (!*bs) {
        io_vector_memset(iov, 0, 0, bytes);
        return 0;
    }
    read_event(node, &m);
    return 1;
}

/* A read that stays with its claim until it is over. */
static int coroutine_fn GRAPH_RDLOCK read_claiming(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, IOVector *iov, int flags)
{
    Claim claim;
    int ret;

    claim_begin(bs->claims, &claim, offset, bytes, false);
    ret = bdrv_co_claimed_preadv(bs, offset, bytes, iov, flags);
    claim_end(bs->claims, &claim);
    if (retire_list_has_stable(bs->retired)) {
        bdrv_co_release_retired(bs); /* it may have waited for this read; at worst it leaks */
    }
    return ret;
}

int coroutine_fn bdrv_co_claimed_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *iov, int flags)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = read_step(&bs, &offset, bytes, iov, flags);
    return ret > 0 ? bdrv_co_node_preadv(bs, offset, bytes, iov, flags) : ret;
}

/*
 * Whether a read copies at @bs: at the first format with tables of its own that it comes
 * to, and not below that one.
 */
static bool take_copy_flag(BlockDriverState *bs, int *flags)
{
    bool copies;

    *flags |= bs->open_flags & BDRV_O_COPY_ON_READ ? BDRV_REQ_COPY_ON_READ : 0;
    copies = (*flags & BDRV_REQ_COPY_ON_READ) && bdrv_takes_claims(bs) &&
             !bs->drv->status_is_opaque;
    *flags &= bs->drv->bdrv_co_map_commit ? ~BDRV_REQ_COPY_ON_READ : ~0;
    return copies;
}

int coroutine_fn bdrv_co_node_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    int ret = 1;

    bdrv_graph_assert_readable();
    while (ret > 0) {
        BdrvIoRequest hook = {BDRV_IO_READ, flags, offset, bytes, iov};
        int64_t inside = bdrv_getlength(bs) - offset;
        bool copies;

        if (inside < bytes && !bdrv_moves_data(bs)) {
            return read_past_end(bs, offset, inside, iov, flags);
        }
        copies = take_copy_flag(bs, &flags);
        ret = bdrv_co_enter_node(bs, &hook);
        if (ret >= 0) {
            ret = copies                  ? bdrv_co_copy_on_readv(bs, offset, bytes, hook.iov)
                  : bdrv_takes_claims(bs) ? read_claiming(bs, offset, bytes, hook.iov, flags)
                                          : read_step(&bs, &offset, bytes, hook.iov, flags);
        }
        if (hook.release) { /* the hook stays with the request: no going on in its place */
            if (ret > 0) {
                ret = bdrv_co_node_preadv(bs, offset, bytes, hook.iov, flags);
            }
            hook.release(&hook);
        }
    }
    return ret;
}

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *iov,
                                int flags)
{
    BlockDriverState *bs;
    int ret = bdrv_check_range(offset, bytes);

    IO_CODE();
    bdrv_graph_assert_readable();
    g_assert(iov->size == bytes || ret < 0);
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if ((flags & BDRV_REQ_COPY_ON_READ) && !bdrv_may_write(child, BDRV_REQ_WRITE_UNCHANGED)) {
        return -EPERM;
    }
    bs = child->bs;
    in_flight_begin(&bs->in_flight);
    ret = bdrv_co_node_preadv(bs, offset, bytes, iov, flags);
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
    return ret;
}

int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               int flags)
{
    IOVector iov;

    bdrv_graph_assert_readable();
    io_vector_init_buf(&iov, buf, MAX(bytes, 0));
    return bdrv_co_preadv(child, offset, bytes, &iov, flags);
}
