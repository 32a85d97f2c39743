/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: L2 tables that are written to: found, made, or copied from shared ones. */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

void coroutine_fn qcow2_l1_dirty(Qcow2Writer *w, uint64_t index)
{
    co_mutex_assert_locked(&w->lock);
    g_hash_table_add(w->dirty_l1, GSIZE_TO_POINTER(index * 8 / BDRV_SECTOR_SIZE));
}

static uint64_t slices_per_table(const Qcow2State *s)
{
    return qcow2_cluster_size(&s->geo) / s->options.l2_slice_bytes;
}

static void list_dirty(Qcow2Writer *w, Qcow2Slice *slice)
{
    g_assert(!qcow2_slice_set_dirty(slice, true));
    g_ptr_array_add(w->dirty_slices, slice); /* with the reference and the pin */
}

void coroutine_fn qcow2_l2_done(Qcow2Writer *w, Qcow2L2Ref *ref, bool changed)
{
    co_mutex_assert_locked(&w->lock);
    if (changed && !qcow2_slice_set_dirty(ref->slice, true)) {
        g_ptr_array_add(w->dirty_slices, ref->slice);
        return;
    }
    qcow2_cache_unpin(w->s->l2_cache, ref->slice);
    qcow2_slice_unref(ref->slice);
}

/* The slices of the table at @offset, zeros if that is 0. */
static int coroutine_fn GRAPH_RDLOCK load_table(Qcow2Writer *w, uint64_t offset, GPtrArray *slices)
{
    uint64_t count = slices_per_table(w->s);
    int ret = 0;

    for (uint64_t i = 0; offset && i < count && ret >= 0; i++) {
        Qcow2Slice *slice;

        ret = qcow2_cache_get(w->s->l2_cache, w->s->file, offset + i * w->s->options.l2_slice_bytes,
                              &slice);
        if (ret >= 0) {
            g_ptr_array_add(slices, slice);
        }
    }
    return ret;
}

/* A new table in place of that at @old (0: none). After alloc nothing can fail. */
static int coroutine_fn GRAPH_RDLOCK replace_table(Qcow2Writer *w, uint64_t l1_index, uint64_t old)
    TSA_REQUIRES(w->lock)
{
    Qcow2State *s = w->s;
    g_autoptr(GPtrArray) slices =
        g_ptr_array_new_with_free_func((GDestroyNotify)qcow2_slice_unref);
    uint64_t offset;
    int ret = load_table(w, old, slices);

    if (ret >= 0) {
        ret = qcow2_alloc_locked(w, 1, &offset);
    }
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; i < slices_per_table(s); i++) {
        const uint64_t *words =
            old ? qcow2_slice_words(g_ptr_array_index(slices, i)) : NULL;

        list_dirty(w, qcow2_cache_add(s->l2_cache, offset + i * s->options.l2_slice_bytes, words));
    }
    __atomic_store_n(&s->l1->entries[l1_index], offset | QCOW2_COPIED, __ATOMIC_RELEASE);
    qcow2_l1_dirty(w, l1_index);
    if (old) {
        BdrvPlace place = { .offset = old, .bytes = qcow2_cluster_size(&s->geo),
                            .cookie = QCOW2_DISCARD_OTHER };

        bdrv_retire(w->bs, &place);
    }
    return 0;
}

/* Where the table for @l1_index is, ours alone. */
static int coroutine_fn GRAPH_RDLOCK own_table(Qcow2Writer *w, uint64_t l1_index, uint64_t *offset)
    TSA_REQUIRES(w->lock)
{
    Qcow2State *s = w->s;
    uint64_t entry, refcount = 0;
    int ret = 0;

    if (l1_index >= s->l1->count) {
        return -EIO;
    }
    entry = s->l1->entries[l1_index];
    if (!qcow2_l1_entry_valid(&s->geo, entry, offset)) {
        return qcow2_signal_corruption(w, "L2 table offset %#" G_GINT64_MODIFIER
                                       "x unaligned (L1 index: %#" G_GINT64_MODIFIER "x)",
                                       *offset, l1_index);
    }
    if (*offset != 0) {
        ret = qcow2_overlap_check(w, *offset, qcow2_cluster_size(&s->geo), QCOW2_OL_ACTIVE_L2 |
                                  QCOW2_OL_INACTIVE_L2);
    }
    if (ret == 0 && *offset != 0) {
        ret = qcow2_refcount_get(w, *offset >> s->geo.cluster_bits, &refcount);
    }
    if (ret < 0 || (*offset != 0 && (entry & QCOW2_COPIED) && refcount == 1)) {
        return ret;
    }
    bdrv_co_debug_event(s->file, BDRV_DEBUG_L2_ALLOC_WRITE);
    ret = replace_table(w, l1_index, *offset);
    *offset = s->l1->entries[l1_index] & QCOW2_OFFSET_MASK;
    return ret;
}

int coroutine_fn qcow2_l2_for_write(Qcow2Writer *w, uint64_t guest, Qcow2L2Ref *ref)
{
    Qcow2State *s = w->s;
    const Qcow2Geometry *geo = &s->geo;
    uint64_t table_index = (guest >> geo->cluster_bits) & ((1ULL << geo->l2_bits) - 1);
    uint64_t per_slice = s->options.l2_slice_bytes >> geo->l2_entry_bits, table;
    uint64_t index = table_index & (per_slice - 1);
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    ret = own_table(w, guest >> (geo->cluster_bits + geo->l2_bits), &table);
    while (ret >= 0) {
        ret = qcow2_cache_get(s->l2_cache, s->file,
                              table + ((table_index - index) << geo->l2_entry_bits), &ref->slice);
        if (ret >= 0 && qcow2_cache_pin(s->l2_cache, ref->slice)) {
            break;
        }
        if (ret >= 0) {
            qcow2_slice_unref(ref->slice); /* it went out of the cache meanwhile */
        }
    }
    if (ret < 0) {
        return ret;
    }
    ref->words = qcow2_slice_writable(ref->slice) + (index << (geo->l2_entry_bits - 3));
    ref->entries_left = per_slice - index;
    return 0;
}
