/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block status: what lies where, for map, convert and measure, derived from
 * map() at formats and asked of the driver at protocols.
 */
#include "block/io-int.h"

/* One answer. */
typedef struct Status {
    int flags;
    int64_t pnum;
    int64_t map;
    BlockDriverState *file;
} Status;

static int coroutine_fn GRAPH_RDLOCK node_status(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes, Status *st);

static int coroutine_fn GRAPH_RDLOCK raw_status(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, Status *st);

/* Asked at any offset: no data moves, so the request alignment does not matter. */
static int coroutine_fn GRAPH_RDLOCK protocol_status(BlockDriverState *bs, int64_t offset,
                                                     int64_t bytes, Status *st)
{
    int ret;

    *st = (Status){BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID, bytes, offset, bs};
    if (bs->drv->bdrv_co_block_status) {
        bdrv_graph_assert_readable();
        ret = bs->drv->bdrv_co_block_status(bs, offset, bytes, &st->pnum, &st->map);
        if (ret < 0) {
            return ret;
        }
        if (st->pnum <= 0 || st->pnum > bytes) {
            return -EIO;
        }
        st->flags = ret;
    } else if (bs->drv->is_filter) {
        return raw_status(bdrv_filter_child(bs)->bs, offset, bytes, st);
    }
    if (st->flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        st->flags |= BDRV_BLOCK_ALLOCATED;
    }
    return 0;
}

/* The child may know of holes in what the format says is data. */
static int coroutine_fn GRAPH_RDLOCK look_for_holes(Status *st)
{
    Status below;
    int ret = node_status(st->file, st->map, st->pnum, &below);

    if (ret < 0) {
        return 0; /* a hint that is not to be had: data it is */
    }
    if (below.pnum == 0) { /* past the end of the file */
        st->flags |= BDRV_BLOCK_ZERO;
        return 0;
    }
    st->pnum = below.pnum;
    st->flags |= below.flags & BDRV_BLOCK_ZERO;
    return 0;
}

static int64_t GRAPH_RDLOCK cow_length(BlockDriverState *bs)
{
    BdrvChild *cow = bdrv_cow_child(bs);

    return cow ? bdrv_getlength(cow->bs) : 0;
}

/* Whatever the child says; past its end it reads as zeros. */
static int coroutine_fn GRAPH_RDLOCK raw_status(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, Status *st)
{
    int ret = node_status(bs, offset, bytes, st);

    if (ret >= 0 && st->pnum == 0) {
        *st = (Status){BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED, bytes, 0, NULL};
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK format_status(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, Status *st)
{
    BdrvMapping m;
    int ret;

    if (bs->drv->status_is_opaque) {
        *st = (Status){BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED, bytes, 0, NULL};
        return 0;
    }
    ret = bdrv_co_map_range(bs, BDRV_MAP_READ, offset, bytes, 0, 0, &m, &st->pnum);
    if (ret < 0) {
        return ret;
    }
    st->flags = 0;
    st->map = 0;
    st->file = NULL;
    if (m.child) {
        st->file = m.child->bs;
        if (m.target != BDRV_MAP_ENCODED) {
            st->map = bdrv_mapping_place(&m, offset);
            st->flags |= BDRV_BLOCK_OFFSET_VALID;
        }
    }
    switch (m.target) {
    case BDRV_MAP_ENCODED:
        st->flags |= BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_COMPRESSED;
        break;
    case BDRV_MAP_ZERO:
        st->flags |= BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
        break;
    case BDRV_MAP_UNALLOCATED:
        if (!bdrv_cow_child(bs) || offset >= cow_length(bs)) {
            st->flags |= BDRV_BLOCK_ZERO;
        }
        break;
    case BDRV_MAP_DATA:
        if (m.raw) {
            return raw_status(m.child->bs, st->map, st->pnum, st);
        }
        st->flags |= BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
        return m.recurse ? look_for_holes(st) : 0;
    }
    return 0;
}

static int coroutine_fn node_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    Status *st)
{
    int64_t length = bdrv_getlength(bs);
    BdrvIoRequest hook = {.type = BDRV_IO_BLOCK_STATUS, .offset = offset};
    int ret;

    *st = (Status){BDRV_BLOCK_EOF, 0, 0, NULL};
    if (offset >= length) {
        return 0;
    }
    if (bytes == 0) {
        st->flags = 0;
        return 0;
    }
    bytes = MIN(bytes, length - offset);
    hook.bytes = bytes;
    ret = bdrv_co_enter_node(bs, &hook);
    if (ret >= 0) {
        ret = bdrv_moves_data(bs) ? protocol_status(bs, offset, bytes, st)
                                   : format_status(bs, offset, bytes, st);
    }
    if (hook.release) {
        hook.release(&hook);
    }
    if (ret < 0) {
        return ret;
    }
    st->flags &= ~BDRV_BLOCK_EOF;
    if (offset + st->pnum >= length) {
        st->flags |= BDRV_BLOCK_EOF;
    }
    return 0;
}

static int status_out(const Status *st, int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    *pnum = st->pnum;
    if (map) {
        *map = st->map;
    }
    if (file) {
        *file = st->file;
    }
    return st->flags;
}

int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    Status st;
    int ret = bdrv_check_range(offset, bytes);

    IO_CODE();
    bdrv_graph_assert_readable();
    if (ret < 0) {
        return ret;
    }
    in_flight_begin(&bs->in_flight);
    ret = node_status(bs, offset, bytes, &st);
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
    return ret < 0 ? ret : status_out(&st, pnum, map, file);
}

/* Down the chain while nobody has it. */
static int coroutine_fn GRAPH_RDLOCK status_above(BlockDriverState *bs, BlockDriverState *base,
                                                  int64_t offset, int64_t bytes, Status *st,
                                                  int *depth)
{
    BlockDriverState *layer;
    BdrvChild *next;
    bool eof;
    int ret;

    *depth = 0;
    if (bs == base) { /* no layer is to be looked at */
        *st = (Status){0, bytes, 0, NULL};
        return 0;
    }
    ret = node_status(bs, offset, bytes, st);
    if (ret < 0 || st->pnum == 0 || (st->flags & BDRV_BLOCK_ALLOCATED)) {
        return ret;
    }
    eof = st->flags & BDRV_BLOCK_EOF;
    bytes = st->pnum;
    for (layer = bs; (next = bdrv_filter_or_cow_child(layer)) && next->bs != base;) {
        layer = next->bs;
        ++*depth;
        ret = node_status(layer, offset, bytes, st);
        if (ret < 0) {
            return ret;
        }
        if (st->pnum == 0) { /* a short layer: zeros, as if they were its own */
            *st = (Status){BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED, bytes, 0, layer};
            break;
        }
        if (st->flags & BDRV_BLOCK_ALLOCATED) {
            break;
        }
        eof = eof && st->pnum == bytes;
        bytes = st->pnum;
    }
    if (!(st->flags & BDRV_BLOCK_ALLOCATED)) {
        ++*depth;
    }
    st->flags &= ~BDRV_BLOCK_EOF;
    if (eof && st->pnum == bytes) {
        st->flags |= BDRV_BLOCK_EOF;
    }
    return 0;
}

int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                                            int64_t offset, int64_t bytes, int64_t *pnum,
                                            int64_t *map, BlockDriverState **file, int *depth)
{
    Status st;
    int layers, ret = bdrv_check_range(offset, bytes);

    IO_CODE();
    bdrv_graph_assert_readable();
    if (ret < 0) {
        return ret;
    }
    in_flight_begin(&bs->in_flight);
    ret = status_above(bs, base, offset, bytes, &st, &layers);
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
    if (ret < 0) {
        return ret;
    }
    if (depth) {
        *depth = layers;
    }
    return status_out(&st, pnum, map, file);
}
