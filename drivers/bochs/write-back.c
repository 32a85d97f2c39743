/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bringing bitmaps and catalog to the file. What is written is what memory held
 * at one moment before the first flush; what changes later waits for the next
 * time. The order:
 *  a. flush: the data of the sectors, and the file's length, are on the disk
 *  b. write the bitmaps; flush if new extents are among them
 *  c. write the catalog
 */
#include <string.h>

#include "drivers/bochs/bochs.h"

#define BLOCK_ENTRIES (BDRV_SECTOR_SIZE / 4) /* of the catalog, written together */

/* An extent, and its bitmap at that moment. */
typedef struct DirtyExtent {
    BochsExtent *extent;
    uint8_t *bitmap;
    bool added; /* the file's catalog lacks it */
} DirtyExtent;

static void dirty_extent_clear(void *opaque)
{
    g_free(((DirtyExtent *)opaque)->bitmap);
}

static int by_index(const void *a, const void *b)
{
    uint32_t x = ((const DirtyExtent *)a)->extent->index;
    uint32_t y = ((const DirtyExtent *)b)->extent->index;

    return x < y ? -1 : x > y;
}

static GArray *coroutine_fn begin(BochsState *s)
{
    GArray *jobs = g_array_new(false, false, sizeof(DirtyExtent));

    g_array_set_clear_func(jobs, dirty_extent_clear);
    co_mutex_lock(&s->lock);
    for (guint i = 0; i < s->dirty->len; i++) {
        BochsExtent *extent = g_ptr_array_index(s->dirty, i);
        DirtyExtent job = {extent, g_memdup2(extent->bitmap, s->bitmap_room),
                           s->stored[extent->index] != GUINT32_TO_LE(extent->number)};

        extent->dirty = false;
        extent->writing = true;
        g_array_append_val(jobs, job);
    }
    g_ptr_array_set_size(s->dirty, 0);
    co_mutex_unlock(&s->lock);
    g_array_sort(jobs, by_index);
    return jobs;
}

/* What has failed is still to be done. */
static void coroutine_fn end(BochsState *s, GArray *jobs, int ret)
{
    co_mutex_lock(&s->lock);
    for (guint i = 0; i < jobs->len; i++) {
        BochsExtent *extent = g_array_index(jobs, DirtyExtent, i).extent;

        extent->writing = false;
        if (ret < 0) {
            bochs_mark_dirty(s, extent);
        }
    }
    co_mutex_unlock(&s->lock);
    g_array_free(jobs, true);
}

/* *@added: whether the file's catalog lacks any of them. */
static int coroutine_fn GRAPH_RDLOCK write_bitmaps(BochsState *s, GArray *jobs, bool *added)
{
    int ret = 0;

    for (guint i = 0; i < jobs->len && ret >= 0; i++) {
        const DirtyExtent *job = &g_array_index(jobs, DirtyExtent, i);

        *added |= job->added;
        ret = bdrv_co_pwrite(bdrv_file_child(s->bs), bochs_place(s, job->extent->number),
                             s->bitmap_room, job->bitmap, 0);
    }
    return ret;
}

/* Have the catalog as it will be in the file, with those that are added or without. */
static void coroutine_fn set_stored(BochsState *s, GArray *jobs, bool with)
{
    for (guint i = 0; i < jobs->len; i++) {
        const DirtyExtent *job = &g_array_index(jobs, DirtyExtent, i);

        if (job->added) {
            s->stored[job->extent->index] =
                with ? GUINT32_TO_LE(job->extent->number) : BOCHS_UNALLOCATED;
        }
    }
}

static int coroutine_fn GRAPH_RDLOCK write_catalog_block(BochsState *s, uint32_t first)
{
    int64_t bytes = 4 * MIN(BLOCK_ENTRIES, s->catalog_entries - first);

    return bdrv_co_pwrite(bdrv_file_child(s->bs), BOCHS_CATALOG_START + 4 * (int64_t)first, bytes,
                          s->stored + first, 0);
}

static int coroutine_fn GRAPH_RDLOCK write_catalog(BochsState *s, GArray *jobs)
{
    int64_t written = -1;
    int ret = 0;

    set_stored(s, jobs, true);
    for (guint i = 0; i < jobs->len && ret >= 0; i++) {
        const DirtyExtent *job = &g_array_index(jobs, DirtyExtent, i);
        uint32_t first = job->extent->index - job->extent->index % BLOCK_ENTRIES;

        if (job->added && first != written) {
            ret = write_catalog_block(s, first);
            written = first;
        }
    }
    if (ret < 0) {
        set_stored(s, jobs, false); /* to be written again */
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_in_order(BochsState *s, GArray *jobs)
{
    BlockDriverState *file = bdrv_child_bs(bdrv_file_child(s->bs));
    bool added = false;
    int ret = bdrv_co_flush(file);

    if (ret >= 0) {
        ret = write_bitmaps(s, jobs, &added);
    }
    if (ret >= 0 && added) {
        ret = bdrv_co_flush(file);
        if (ret >= 0) {
            ret = write_catalog(s, jobs);
        }
    }
    return ret;
}

int coroutine_fn bochs_write_back(BochsState *s)
{
    GArray *jobs;
    int ret = 0;

    bdrv_graph_assert_readable();
    co_mutex_lock(&s->write_back_lock);
    jobs = begin(s);
    if (jobs->len > 0) {
        ret = write_in_order(s, jobs);
    }
    end(s, jobs, ret);
    co_mutex_unlock(&s->write_back_lock);
    return MIN(ret, 0);
}
