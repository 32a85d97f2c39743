/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extents in memory: loading them, giving them places, letting go of those that
 * are in the file as they are.
 */
#include <errno.h>

#include "drivers/bochs/bochs.h"

/* Memory for bitmaps, as long as those that are needed fit into it. Bytes. */
#define MAX_MEMORY (4 << 20)

/* ---- The set ----------------------------------------------------------------------- */

static void extent_free(void *opaque)
{
    BochsExtent *extent = opaque;

    g_free(extent->bitmap);
    g_free(extent);
}

void bochs_extents_init(BochsState *s)
{
    co_mutex_init(&s->lock);
    co_mutex_init(&s->write_back_lock);
    co_queue_init(&s->loaded);
    s->spare = g_array_new(false, false, sizeof(uint32_t));
    s->extents = g_hash_table_new_full(NULL, NULL, NULL, extent_free);
    g_queue_init(&s->order);
    s->dirty = g_ptr_array_new();
}

void bochs_extents_destroy(BochsState *s)
{
    g_ptr_array_free(s->dirty, true);
    g_queue_clear(&s->order);
    g_hash_table_destroy(s->extents);
    g_array_free(s->spare, true);
    co_mutex_destroy(&s->write_back_lock);
    co_mutex_destroy(&s->lock);
}

static BochsExtent *lookup(const BochsState *s, uint32_t index)
{
    return g_hash_table_lookup(s->extents, GUINT_TO_POINTER(index));
}

static BochsExtent *add_extent(BochsState *s, uint32_t index, uint32_t number)
{
    BochsExtent *extent = g_new0(BochsExtent, 1);

    extent->index = index;
    extent->number = number;
    extent->bitmap = g_malloc0(s->bitmap_room);
    g_hash_table_insert(s->extents, GUINT_TO_POINTER(index), extent);
    g_queue_push_tail(&s->order, extent);
    return extent;
}

static void remove_extent(BochsState *s, BochsExtent *extent)
{
    g_queue_remove(&s->order, extent);
    g_hash_table_remove(s->extents, GUINT_TO_POINTER(extent->index));
}

void coroutine_fn bochs_mark_dirty(BochsState *s, BochsExtent *extent)
{
    if (!extent->dirty) {
        extent->dirty = true;
        g_ptr_array_add(s->dirty, extent);
    }
}

BochsExtent *coroutine_fn bochs_end_use(BochsState *s, int64_t offset)
{
    BochsExtent *extent = lookup(s, offset / s->extent_bytes);

    g_assert(extent && extent->users > 0);
    extent->users--;
    return extent;
}

void coroutine_fn bochs_give_back(BochsState *s, BochsExtent *extent)
{
    g_assert(extent->users == 0 && !bochs_is_linked(s, extent));
    g_array_append_val(s->spare, extent->number);
    remove_extent(s, extent);
}

/* ---- Room -------------------------------------------------------------------------- */

static bool is_full(BochsState *s)
{
    return g_queue_get_length(&s->order) >= MAX_MEMORY / s->bitmap_room;
}

static bool let_one_go(BochsState *s)
{
    for (guint n = g_queue_get_length(&s->order); n > 0; n--) {
        BochsExtent *extent = g_queue_pop_head(&s->order);

        if (!extent->users && !extent->loading && !extent->dirty && !extent->writing) {
            g_hash_table_remove(s->extents, GUINT_TO_POINTER(extent->index));
            return true;
        }
        g_queue_push_tail(&s->order, extent);
    }
    return false;
}

/* All that there is room for waits to be written. */
static int coroutine_fn GRAPH_RDLOCK write_back_for_room(BochsState *s) TSA_REQUIRES(s->lock)
{
    int ret;

    co_mutex_unlock(&s->lock);
    ret = bochs_write_back(s);
    co_mutex_lock(&s->lock);
    let_one_go(s);
    return ret;
}

/* ---- Loading and allocating ------------------------------------------------------------ */

static int coroutine_fn GRAPH_RDLOCK load_extent(BochsState *s, uint32_t index,
                                                 BochsExtent **loaded) TSA_REQUIRES(s->lock)
{
    BdrvChild *file = bdrv_file_child(s->bs);
    BochsExtent *extent = add_extent(s, index, s->catalog[index]);
    int64_t start = bochs_place(s, extent->number);
    int ret = -EIO;

    extent->loading = true;
    co_mutex_unlock(&s->lock);
    if (start + s->bitmap_bytes <= bdrv_getlength(bdrv_child_bs(file))) {
        ret = bdrv_co_pread(file, start, s->bitmap_room, extent->bitmap, 0);
    }
    co_mutex_lock(&s->lock);
    extent->loading = false;
    co_queue_wake_all(&s->loaded);
    if (ret < 0) {
        remove_extent(s, extent);
        return ret;
    }
    *loaded = extent;
    return 0;
}

/*
 * Have the file reach to @end. Nobody writes to what is added, since no place
 * there was given out.
 */
static int coroutine_fn GRAPH_RDLOCK grow_file(BochsState *s, int64_t end)
{
    BdrvChild *file = bdrv_file_child(s->bs);
    int ret = 0;

    /* Its last sector may be there in part. */
    if (bdrv_getlength(bdrv_child_bs(file)) < end + BDRV_SECTOR_SIZE) {
        end += -end & (BDRV_SECTOR_SIZE - 1);
        ret = bdrv_co_truncate(file, end, false, BLOCK_PREALLOC_OFF, NULL);
    }
    return ret == -EINVAL || ret == -ENOTSUP ? -ENOSPC : ret; /* devices have their length */
}

static int coroutine_fn GRAPH_RDLOCK allocate_extent(BochsState *s, uint32_t index,
                                                     BochsExtent **extent) TSA_REQUIRES(s->lock)
{
    uint32_t number = s->next;
    int ret;

    if (s->spare->len > 0) {
        number = g_array_index(s->spare, uint32_t, s->spare->len - 1);
        g_array_set_size(s->spare, s->spare->len - 1);
    } else {
        if (number == BOCHS_UNALLOCATED) {
            return -ENOSPC;
        }
        ret = grow_file(s, bochs_place(s, number) + s->bitmap_bytes + s->extent_bytes);
        if (ret < 0) {
            return ret;
        }
        s->next++;
    }
    *extent = add_extent(s, index, number);
    return 0;
}

int coroutine_fn bochs_find_extent(BochsState *s, uint32_t index, BochsAccess access,
                                   BochsExtent **extent)
{
    bool made_room = false;

    bdrv_graph_assert_readable();
    co_mutex_assert_locked(&s->lock);
    for (;;) {
        *extent = lookup(s, index);
        if (*extent && !(*extent)->loading) {
            return 0;
        }
        if (*extent) {
            co_queue_wait(&s->loaded, &s->lock);
        } else if (s->catalog[index] == BOCHS_UNALLOCATED && access != BOCHS_ALLOCATE) {
            return 0;
        } else if (!made_room && is_full(s) && !let_one_go(s)) {
            int ret = write_back_for_room(s);

            if (ret < 0 && access != BOCHS_READ) {
                return ret;
            }
            made_room = true;
        } else {
            return s->catalog[index] == BOCHS_UNALLOCATED ? allocate_extent(s, index, extent)
                                                          : load_extent(s, index, extent);
        }
    }
}
