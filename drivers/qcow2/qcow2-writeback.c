/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: bringing metadata to the file, in an order that a power cut may end
 * anywhere (invariant 3 of qcow2-alloc.h):
 *
 *  a. copy the L2 slices and sectors of the L1 table that are dirty, so that what
 *     changes from now on waits for the next time;
 *  b. write refcounts (or, if they are lazy, have the dirty bit on the disk);
 *  c. flush: data and refcounts are on the disk;
 *  d. write the slices;
 *  e. flush, if the L1 table has changed: it may lead to new L2 tables; write it.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define SECTOR_ENTRIES (BDRV_SECTOR_SIZE / 8)

/* What is to be written: big-endian copies. */
typedef struct SliceCopy {
    Qcow2Slice *slice;
    uint64_t *words;
} SliceCopy;

typedef struct L1Copy {
    uint64_t sector;
    uint64_t words[SECTOR_ENTRIES];
} L1Copy;

typedef struct WriteBack {
    GArray *slices; /* of SliceCopy */
    GArray *l1;     /* of L1Copy */
} WriteBack;

static int by_offset(const void *a, const void *b)
{
    uint64_t x = qcow2_slice_offset(((const SliceCopy *)a)->slice);
    uint64_t y = qcow2_slice_offset(((const SliceCopy *)b)->slice);

    return x < y ? -1 : x > y;
}

static bool lazy(const Qcow2State *s)
{
    /* Without a dirty bit, version 2, nobody would know. */
    return s->header.version >= 3 &&
           (s->options.lazy_refcounts < 0
                ? s->header.compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS
                : s->options.lazy_refcounts);
}

static void coroutine_fn copy_l1(Qcow2Writer *w, WriteBack *wb) TSA_REQUIRES(w->lock)
{
    const Qcow2L1 *l1 = w->s->l1;
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, w->dirty_l1);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        L1Copy copy = { .sector = GPOINTER_TO_SIZE(key) };
        uint64_t first = copy.sector * SECTOR_ENTRIES;

        for (uint64_t i = 0; i < SECTOR_ENTRIES && first + i < l1->count; i++) {
            copy.words[i] = GUINT64_TO_BE(l1->entries[first + i]);
        }
        g_array_append_val(wb->l1, copy);
    }
    g_hash_table_remove_all(w->dirty_l1);
}

static void coroutine_fn copy_slices(Qcow2Writer *w, WriteBack *wb) TSA_REQUIRES(w->lock)
{
    size_t bytes = w->s->options.l2_slice_bytes;

    for (guint i = 0; i < w->dirty_slices->len; i++) {
        SliceCopy copy = { .slice = g_ptr_array_index(w->dirty_slices, i) };

        qcow2_slice_set_dirty(copy.slice, false);
        if (!qcow2_slice_is_dropped(w->s->l2_cache, copy.slice)) {
            copy.words = g_memdup2(qcow2_slice_words(copy.slice), bytes);
            qcow2_words_to_host(copy.words, bytes / 8);
        }
        g_array_append_val(wb->slices, copy);
    }
    g_ptr_array_set_size(w->dirty_slices, 0);
    g_array_sort(wb->slices, by_offset);
}

/* Steps a and b, at one moment. */
static int coroutine_fn GRAPH_RDLOCK begin(Qcow2Writer *w, bool final, WriteBack *wb)
{
    int ret = 0;

    co_mutex_lock(&w->lock);
    copy_slices(w, wb);
    copy_l1(w, wb);
    if (__atomic_load_n(&w->corrupt, __ATOMIC_RELAXED)) {
        ret = -EIO;
    } else if (lazy(w->s) && !final && w->dirty_blocks < w->max_blocks / 2) {
        ret = wb->slices->len + wb->l1->len > 0 && w->dirty_blocks > 0 ? qcow2_set_dirty(w, true)
                                                                       : 0;
    } else {
        ret = qcow2_refcounts_write(w);
    }
    co_mutex_unlock(&w->lock);
    return ret;
}

/* What has failed is still to be done. */
static void coroutine_fn end(Qcow2Writer *w, WriteBack *wb, int ret)
{
    co_mutex_lock(&w->lock);
    for (guint i = 0; i < wb->slices->len; i++) {
        SliceCopy *copy = &g_array_index(wb->slices, SliceCopy, i);

        if (ret < 0 && copy->words && !qcow2_slice_set_dirty(copy->slice, true)) {
            g_ptr_array_add(w->dirty_slices, copy->slice);
        } else {
            qcow2_cache_unpin(w->s->l2_cache, copy->slice);
            qcow2_slice_unref(copy->slice);
        }
        g_free(copy->words);
    }
    for (guint i = 0; ret < 0 && i < wb->l1->len; i++) {
        uint64_t sector = g_array_index(wb->l1, L1Copy, i).sector;

        g_hash_table_add(w->dirty_l1, GSIZE_TO_POINTER(sector));
    }
    co_mutex_unlock(&w->lock);
    g_array_unref(wb->slices);
    g_array_unref(wb->l1);
}

static int coroutine_fn GRAPH_RDLOCK flush_data(const Qcow2State *s)
{
    int ret = s->data_file != s->file ? bdrv_co_flush(bdrv_child_bs(s->data_file)) : 0;

    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(s->file));
}

static int coroutine_fn GRAPH_RDLOCK check_and_write(Qcow2Writer *w, uint64_t offset,
                                                     uint64_t bytes, const void *data,
                                                     unsigned meant)
{
    int ret;

    co_mutex_lock(&w->lock);
    ret = qcow2_overlap_check(w, offset, bytes, meant);
    co_mutex_unlock(&w->lock);
    return ret < 0 ? ret : bdrv_co_pwrite(w->s->file, offset, bytes, data, 0);
}

/* If it failed once to have the header point to the L1 table. */
static int coroutine_fn GRAPH_RDLOCK confirm_l1(Qcow2Writer *w)
{
    const Qcow2Header *h = &w->s->header;
    int ret;

    co_mutex_lock(&w->lock);
    ret = w->l1_uncertain ? qcow2_l1_switch(w, h->size, h->l1_table_offset, h->l1_size) : 0;
    co_mutex_unlock(&w->lock);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_tables(Qcow2Writer *w, const WriteBack *wb)
{
    int ret = 0;

    for (guint i = 0; i < wb->slices->len && ret >= 0; i++) {
        const SliceCopy *copy = &g_array_index(wb->slices, SliceCopy, i);

        if (copy->words) {
            bdrv_co_debug_event(w->s->file, BDRV_DEBUG_L2_UPDATE);
            ret = check_and_write(w, qcow2_slice_offset(copy->slice), w->s->options.l2_slice_bytes,
                                  copy->words, QCOW2_OL_ACTIVE_L2);
        }
    }
    if (ret >= 0 && wb->l1->len > 0) {
        ret = bdrv_co_flush(bdrv_child_bs(w->s->file));
    }
    for (guint i = 0; i < wb->l1->len && ret >= 0; i++) {
        const L1Copy *copy = &g_array_index(wb->l1, L1Copy, i);

        bdrv_co_debug_event(w->s->file, BDRV_DEBUG_L1_UPDATE);
        ret = check_and_write(w, w->s->header.l1_table_offset + copy->sector * BDRV_SECTOR_SIZE,
                              MIN(BDRV_SECTOR_SIZE, (uint64_t)w->s->l1->count * 8 -
                                                        copy->sector * BDRV_SECTOR_SIZE),
                              copy->words, QCOW2_OL_ACTIVE_L1);
    }
    return ret;
}

int coroutine_fn qcow2_write_back(Qcow2Writer *w, bool final)
{
    WriteBack wb;
    int ret;

    bdrv_graph_assert_readable();
    co_mutex_lock(&w->write_back_lock);
    wb = (WriteBack){
        .slices = g_array_new(false, false, sizeof(SliceCopy)),
        .l1 = g_array_new(false, false, sizeof(L1Copy)),
    };
    ret = confirm_l1(w); /* else what is written may belong to a table nothing leads to */
    if (ret >= 0) {
        ret = begin(w, final, &wb);
    }
    if (ret >= 0 && (wb.slices->len > 0 || wb.l1->len > 0)) {
        ret = flush_data(w->s);
        if (ret >= 0) {
            ret = write_tables(w, &wb);
        }
    }
    end(w, &wb, ret);
    qcow2_cleaner_wake(w->s); /* what is written back may be dropped */
    co_mutex_unlock(&w->write_back_lock);
    return MIN(ret, 0);
}

int coroutine_fn qcow2_relieve(Qcow2Writer *w)
{
    bool wanted;

    bdrv_graph_assert_readable();
    co_mutex_lock(&w->lock);
    wanted = w->dirty_slices->len > w->max_dirty_slices || w->dirty_blocks > w->max_blocks / 2;
    co_mutex_unlock(&w->lock);
    return wanted ? qcow2_write_back(w, false) : 0;
}

int coroutine_fn qcow2_co_flush(BlockDriverState *bs)
{
    Qcow2State *s = bdrv_state(bs);

    bdrv_graph_assert_readable();
    return s->writer ? qcow2_write_back(s->writer, false) : 0;
}
