/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the guest's sectors lie, and what becomes of them. An extent gets its
 * place when the first write to it asks, and is in the catalog from the first
 * commit on; a sector that is written gets its bit at commit, one that is
 * zeroed or discarded loses it. Places are never given up.
 */
#include <errno.h>

#include "drivers/bochs/bochs.h"

#define MAX_SCAN 1024 /* extents, each way */

/* ---- Sectors of an extent ------------------------------------------------------------ */

/* Sectors of one extent. */
typedef struct Sectors {
    int64_t first;
    int64_t end;
} Sectors;

static bool test_bit(const BochsExtent *extent, int64_t bit)
{
    return extent->bitmap[bit / 8] >> (bit % 8) & 1;
}

/* What a range touches of the extent where it begins. */
static Sectors touched_sectors(const BochsState *s, int64_t offset, int64_t bytes)
{
    int64_t start = offset % s->extent_bytes;
    int64_t end = MIN(start + bytes, s->extent_bytes);

    return (Sectors){start / BDRV_SECTOR_SIZE, (end + BDRV_SECTOR_SIZE - 1) / BDRV_SECTOR_SIZE};
}

static int64_t count_present(const BochsExtent *extent, Sectors sectors)
{
    int64_t count = 0;

    for (int64_t i = sectors.first; i < sectors.end; i++) {
        count += test_bit(extent, i);
    }
    return count;
}

static void set_present(BochsExtent *extent, Sectors sectors, bool present)
{
    for (int64_t i = sectors.first; i < sectors.end; i++) {
        uint8_t mask = 1 << i % 8;

        extent->bitmap[i / 8] = present ? extent->bitmap[i / 8] | mask
                                        : extent->bitmap[i / 8] & ~mask;
    }
}

/* ---- Mapping ------------------------------------------------------------------------- */

/* The run of unallocated extents around extent @index, as far as it is near. */
static void map_unallocated(const BochsState *s, uint32_t index, BdrvMapping *m)
{
    uint32_t first = index, end = index + 1;

    while (first > 0 && index - first < MAX_SCAN && s->catalog[first - 1] == BOCHS_UNALLOCATED) {
        first--;
    }
    while (end < s->catalog_entries && end - index < MAX_SCAN &&
           s->catalog[end] == BOCHS_UNALLOCATED) {
        end++;
    }
    m->target = BDRV_MAP_UNALLOCATED;
    m->offset = first * s->extent_bytes;
    m->bytes = end * s->extent_bytes - m->offset;
}

/* Describe sectors of the extent at @offset; with a place if they are data. */
static void GRAPH_RDLOCK describe(const BochsState *s, const BochsExtent *extent, int64_t offset,
                                  Sectors sectors, BdrvMapTarget target, BdrvMapping *m)
{
    m->offset = offset - offset % s->extent_bytes + sectors.first * BDRV_SECTOR_SIZE;
    m->bytes = (sectors.end - sectors.first) * BDRV_SECTOR_SIZE;
    m->target = target;
    if (target == BDRV_MAP_DATA) {
        m->child = bdrv_file_child(s->bs);
        m->child_offset = bochs_place(s, extent->number) + s->bitmap_bytes +
                          sectors.first * BDRV_SECTOR_SIZE;
    }
}

/* The run of equal bits around the sector of @offset in its extent. */
static int GRAPH_RDLOCK map_run(const BochsState *s, const BochsExtent *extent, int64_t offset,
                                BdrvMapping *m)
{
    Sectors run = touched_sectors(s, offset, 1);
    bool present = test_bit(extent, run.first);

    while (run.first > 0 && test_bit(extent, run.first - 1) == present) {
        run.first--;
    }
    while (run.end < s->extent_bytes / BDRV_SECTOR_SIZE &&
           test_bit(extent, run.end) == present) {
        run.end++;
    }
    describe(s, extent, offset, run, present ? BDRV_MAP_DATA : BDRV_MAP_UNALLOCATED, m);
    m->writable = present && bdrv_is_writable(s->bs);
    if (present && m->child_offset >= bdrv_getlength(bdrv_child_bs(m->child))) {
        return -EIO;
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK map_read(BochsState *s, const BdrvMapRequest *req,
                                              BdrvMapping *m) TSA_REQUIRES(s->lock)
{
    uint32_t index = req->offset / s->extent_bytes;
    BochsExtent *extent;
    int ret;

    ret = bochs_find_extent(s, index, BOCHS_READ, &extent);
    if (ret < 0) {
        return ret;
    }
    if (!extent || !bochs_is_linked(s, extent)) {
        map_unallocated(s, index, m);
        return 0;
    }
    return map_run(s, extent, req->offset, m);
}

/*
 * In place where all sectors of the request are present; else they become so,
 * all that the extent has of them in one go.
 */
static int coroutine_fn GRAPH_RDLOCK map_write(BochsState *s, const BdrvMapRequest *req,
                                               BdrvMapping *m) TSA_REQUIRES(s->lock)
{
    Sectors sectors = touched_sectors(s, req->offset, req->bytes);
    BochsExtent *extent;
    int ret;

    ret = bochs_find_extent(s, req->offset / s->extent_bytes, BOCHS_ALLOCATE, &extent);
    if (ret < 0) {
        return ret;
    }
    if (count_present(extent, sectors) == sectors.end - sectors.first) {
        return map_run(s, extent, req->offset, m);
    }
    describe(s, extent, req->offset, sectors, BDRV_MAP_DATA, m);
    m->fill_offset = m->offset;
    m->fill_bytes = m->bytes;
    m->needs_commit = true;
    m->fresh = !bochs_is_linked(s, extent);
    extent->users++;
    return 0;
}

/* Zeroing and discarding: whole sectors, which read as zeros when they are not present. */
static int coroutine_fn GRAPH_RDLOCK map_clear(BochsState *s, const BdrvMapRequest *req,
                                               BdrvMapping *m) TSA_REQUIRES(s->lock)
{
    Sectors sectors = touched_sectors(s, req->offset, req->bytes);
    BochsExtent *extent;
    int ret;

    ret = bochs_find_extent(s, req->offset / s->extent_bytes, BOCHS_CHANGE, &extent);
    if (ret < 0) {
        return ret;
    }
    describe(s, extent, req->offset, sectors, BDRV_MAP_UNALLOCATED, m);
    if (extent && count_present(extent, sectors) > 0) {
        m->needs_commit = true;
        extent->users++;
    }
    return 0;
}

int coroutine_fn bochs_co_map(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    BochsState *s = bdrv_state(bs);
    int ret;

    bdrv_graph_assert_readable();
    co_mutex_lock(&s->lock);
    switch (req->op) {
    case BDRV_MAP_READ:
        ret = map_read(s, req, m);
        break;
    case BDRV_MAP_WRITE:
        ret = map_write(s, req, m);
        break;
    default:
        ret = map_clear(s, req, m);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

/* ---- Commit and abort ------------------------------------------------------------------ */

int coroutine_fn bochs_co_map_commit(BlockDriverState *bs, const BdrvMapping *m)
{
    BochsState *s = bdrv_state(bs);
    BochsExtent *extent;

    bdrv_graph_assert_readable();
    co_mutex_lock(&s->lock);
    extent = bochs_end_use(s, m->offset);
    bdrv_map_invalidate(bs, m->offset, m->bytes);
    s->catalog[extent->index] = extent->number;
    set_present(extent, touched_sectors(s, m->offset, m->bytes), m->target == BDRV_MAP_DATA);
    bochs_mark_dirty(s, extent);
    bdrv_map_invalidate(bs, m->offset, m->bytes);
    co_mutex_unlock(&s->lock);
    return 0;
}

void coroutine_fn bochs_co_map_abort(BlockDriverState *bs, const BdrvMapping *m)
{
    BochsState *s = bdrv_state(bs);
    BochsExtent *extent;

    co_mutex_lock(&s->lock);
    extent = bochs_end_use(s, m->offset);
    if (extent->users == 0 && !bochs_is_linked(s, extent)) {
        bochs_give_back(s, extent);
    }
    co_mutex_unlock(&s->lock);
}
