/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asking a format driver where a range lies: through the cache, and with a
 * check of every answer against the contract of map.h. A driver's answer comes
 * out of an image that may be hostile, so a bad one is an I/O error.
 */
#include "block/io-int.h"
#include "block/open-int.h"
#include "block/pass-through.h"
#include "util/trace.h"

/* Clusters per bucket of the cache, and what a bucket spans at least and at most. */
#define CACHE_UNITS 16
#define CACHE_MIN_GRANULE (64 << 10)
#define CACHE_MAX_GRANULE (32 << 20)
#define CACHE_BYTES (512 << 10)

void open_make_map_cache(BlockDriverState *bs)
{
    int64_t granule;

    if (!bs->drv->bdrv_co_map || bs->drv->map_is_cheap) {
        return;
    }
    granule = CLAMP(bs->map_unit, CACHE_MIN_GRANULE / CACHE_UNITS,
                    CACHE_MAX_GRANULE / CACHE_UNITS) * CACHE_UNITS;
    bs->map_cache = map_cache_new(granule, CACHE_BYTES);
}

static bool place_is_sane(const BdrvMapping *m)
{
    int64_t end;

    if (m->target == BDRV_MAP_ENCODED) {
        return m->child && (m->decode || m->needs_commit) && m->child_offset >= 0 &&
               m->child_bytes > 0 && m->child_bytes <= BDRV_MAX_ENCODED &&
               m->bytes <= BDRV_MAX_ENCODED && m->child_offset <= BDRV_MAX_LENGTH - m->child_bytes;
    }
    if (!m->child) {
        return m->target != BDRV_MAP_DATA;
    }
    return m->child_offset >= 0 && !__builtin_add_overflow(m->child_offset, m->bytes, &end) &&
           end <= BDRV_MAX_LENGTH;
}

/* Rule 1 for zeroing and discarding, and rule 3. */
static bool change_is_sane(const BdrvMapping *m, const BdrvMapRequest *req)
{
    int64_t end = m->offset + m->bytes, req_end = req->offset + req->bytes;
    int64_t fill_end;

    if (req->op == BDRV_MAP_READ) {
        return !m->needs_commit;
    }
    if (!m->needs_commit) {
        return m->fill_bytes == 0;
    }
    if (req->op != BDRV_MAP_WRITE) {
        return m->offset == req->offset && end <= req_end && m->fill_bytes == 0;
    }
    if (m->fill_bytes == 0) {
        return true;
    }
    return m->fill_bytes > 0 && m->fill_offset >= m->offset &&
           m->fill_offset <= req->offset &&
           !__builtin_add_overflow(m->fill_offset, m->fill_bytes, &fill_end) &&
           fill_end <= end && fill_end >= MIN(end, req_end);
}

static bool mapping_is_sane(const BdrvMapping *m, const BdrvMapRequest *req)
{
    int64_t end;

    return m->bytes > 0 && m->offset >= 0 && m->offset <= req->offset &&
           !__builtin_add_overflow(m->offset, m->bytes, &end) && end > req->offset &&
           m->target <= BDRV_MAP_ENCODED && place_is_sane(m) && change_is_sane(m, req);
}

/* What is written in place is read there, too. */
static bool is_in_place(const BdrvMapping *m, BdrvMapOp op)
{
    return op == BDRV_MAP_WRITE && m->target == BDRV_MAP_DATA && m->writable && !m->needs_commit;
}

int coroutine_fn bdrv_co_map_range(BlockDriverState *bs, BdrvMapOp op, int64_t offset,
                                   int64_t bytes, int flags, int64_t encoded,
                                   BdrvMapping *mapping, int64_t *n)
{
    BdrvMapRequest req = {.op = op, .flags = flags, .offset = offset, .bytes = bytes,
                          .encoded_bytes = encoded};
    MapCache *cache = bs->map_cache;
    uint64_t epoch;
    int ret;

    bdrv_graph_assert_readable();
    if (op != BDRV_MAP_READ || !cache || !map_cache_lookup(cache, offset, mapping)) {
        epoch = cache ? map_cache_epoch(cache) : 0;
        *mapping = (BdrvMapping){0};
        ret = bs->drv->bdrv_co_map(bs, &req, mapping);
        trace_bdrv_co_map(bdrv_get_node_name(bs), op, offset, bytes, ret, mapping->target,
                          mapping->offset, mapping->bytes, mapping->child_offset);
        if (ret < 0) {
            return ret;
        }
        if (!mapping_is_sane(mapping, &req)) {
            if (mapping->needs_commit) {
                bs->drv->bdrv_co_map_abort(bs, mapping);
            }
            return -EIO;
        }
        if (cache && (op == BDRV_MAP_READ || is_in_place(mapping, op))) {
            map_cache_insert(cache, epoch, offset, mapping);
        }
    }
    *n = MIN(bytes, mapping->offset + mapping->bytes - offset);
    return 0;
}

void bdrv_map_invalidate(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    bdrv_graph_assert_readable();
    if (bs->map_cache) {
        map_cache_invalidate(bs->map_cache, offset, bytes);
    }
    pass_through_invalidate(bs, offset, bytes);
}

int coroutine_fn bdrv_co_enter_node(BlockDriverState *bs, BdrvIoRequest *req)
{
    bdrv_graph_assert_readable();
    trace_bdrv_co_request(bdrv_get_node_name(bs), req->type, req->offset, req->bytes, req->flags);
    return bs->drv->bdrv_co_before_io ? bs->drv->bdrv_co_before_io(bs, req) : 0;
}
