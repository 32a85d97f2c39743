/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing to a place that a format has not linked in yet: the guest's bytes
 * and what has to be around them, in one request, then commit or abort.
 */
#include "block/io-int.h"

/* What lies before or after the guest's bytes. */
typedef struct Fill {
    int64_t offset; /* guest, in bytes */
    int64_t bytes;
    uint8_t *buf;
} Fill;

/* Whether the node reads as zeros there; false if that is not known. */
static bool coroutine_fn GRAPH_RDLOCK reads_as_zeros(BlockDriverState *bs, int64_t offset,
                                                     int64_t bytes)
{
    while (bytes > 0) {
        int64_t n;
        int ret = bdrv_co_block_status_above(bs, NULL, offset, bytes, &n, NULL, NULL, NULL);

        if (ret < 0 || !(ret & BDRV_BLOCK_ZERO) || n == 0) {
            return false;
        }
        offset += n;
        bytes -= n;
    }
    return true;
}

/* Get what the node would return to a read; zeros need not be where zeros are. */
static int coroutine_fn GRAPH_RDLOCK fill_load(const Part *part, Fill *fill)
{
    BlockDriverState *child = part->mapping.child->bs;
    IOVector iov;

    if (fill->bytes == 0) {
        return 0;
    }
    if (part->mapping.zeroed && reads_as_zeros(part->bs, fill->offset, fill->bytes)) {
        fill->bytes = 0;
        return 0;
    }
    fill->buf = bdrv_try_blockalign(child, fill->bytes);
    if (!fill->buf) {
        return -ENOMEM;
    }
    bdrv_co_debug_event(part->mapping.child, BDRV_DEBUG_COW_READ);
    io_vector_init_buf(&iov, fill->buf, fill->bytes);
    return bdrv_co_claimed_preadv(part->bs, fill->offset, fill->bytes, &iov, 0);
}

static int coroutine_fn GRAPH_RDLOCK write_place(const Part *part, int64_t offset, int64_t bytes,
                                                 IOVector *iov)
{
    const BdrvMapping *m = &part->mapping;

    return bdrv_co_node_pwritev(m->child->bs, bdrv_mapping_place(m, offset), bytes, iov,
                                part->flags);
}

static int coroutine_fn GRAPH_RDLOCK write_fill(const Part *part, const Fill *fill)
{
    IOVector iov;

    if (fill->bytes == 0) {
        return 0;
    }
    bdrv_co_debug_event(part->mapping.child, BDRV_DEBUG_COW_WRITE);
    io_vector_init_buf(&iov, fill->buf, fill->bytes);
    return write_place(part, fill->offset, fill->bytes, &iov);
}

/* Fill and guest's bytes side by side: one request. */
static int coroutine_fn GRAPH_RDLOCK write_whole(const Part *part, const Fill *head,
                                                 const Fill *tail)
{
    int64_t start = head->bytes ? head->offset : part->offset;
    IOVector iov;
    int ret;

    io_vector_init(&iov, 3);
    if (head->bytes) {
        io_vector_add(&iov, head->buf, head->bytes);
    }
    if (part->iov) {
        io_vector_append(&iov, part->iov, part->iov_offset, part->bytes);
    } else {
        io_vector_add(&iov, bdrv_zero_buffer(), part->bytes);
    }
    if (tail->bytes) {
        io_vector_add(&iov, tail->buf, tail->bytes);
    }
    bdrv_co_debug_event(part->mapping.child, BDRV_DEBUG_WRITE_AIO);
    ret = write_place(part, start, iov.size, &iov);
    io_vector_destroy(&iov);
    return ret;
}

/* Many zeros, which the child may know how to store, and what is around them. */
static int coroutine_fn GRAPH_RDLOCK write_zeros(const Part *part, const Fill *head,
                                                 const Fill *tail)
{
    const BdrvMapping *m = &part->mapping;
    int ret = write_fill(part, head);

    if (ret >= 0 && !m->zeroed) {
        ret = bdrv_co_node_pwrite_zeroes(m->child->bs, bdrv_mapping_place(m, part->offset),
                                         part->bytes, part->flags);
    }
    return ret < 0 ? ret : write_fill(part, tail);
}

static int coroutine_fn GRAPH_RDLOCK fill_and_write(const Part *part)
{
    const BdrvMapping *m = &part->mapping;
    int64_t end = part->offset + part->bytes;
    Fill head = {0}, tail = {0};
    int ret;

    if (m->fill_bytes > 0) {
        head = (Fill){m->fill_offset, part->offset - m->fill_offset, NULL};
        tail = (Fill){end, m->fill_offset + m->fill_bytes - end, NULL};
    }
    ret = fill_load(part, &head);
    if (ret >= 0) {
        ret = fill_load(part, &tail);
    }
    if (ret >= 0) {
        bool zeros = !part->iov && (m->zeroed || part->bytes > BDRV_MAX_BOUNCE);

        ret = zeros ? write_zeros(part, &head, &tail) : write_whole(part, &head, &tail);
    }
    free(head.buf);
    free(tail.buf);
    return ret;
}

int coroutine_fn bdrv_co_end_mapping(BlockDriverState *bs, const BdrvMapping *m, int ret)
{
    bdrv_graph_assert_readable();
    if (!m->needs_commit) {
        return ret;
    }
    if (ret < 0) {
        bs->drv->bdrv_co_map_abort(bs, m);
        return ret;
    }
    ret = bs->drv->bdrv_co_map_commit(bs, m);
    bdrv_note_write(bs, 0);
    return MIN(ret, 0);
}

int coroutine_fn bdrv_co_write_new(Part *part)
{
    bdrv_graph_assert_readable();
    return bdrv_co_end_mapping(part->bs, &part->mapping, fill_and_write(part));
}
