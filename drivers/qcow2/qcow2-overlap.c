/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: nothing is written over metadata; what an image has lied about shows here. */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define INCOMPATIBLE_FEATURES_AT 72

static const char *const names[] = {
    "qcow2_header",   "active L1 table", "active L2 table",   "refcount table",  "refcount block",
    "snapshot table", "inactive L1 table", "inactive L2 table", "bitmap directory",
};

/* Whether any place touches [@offset, @offset + @bytes). */
static bool hits(const Qcow2Places *places, uint64_t offset, uint64_t bytes)
{
    size_t low = 0, high = places->count;

    while (low < high) { /* the first that ends behind @offset */
        size_t middle = low + (high - low) / 2;

        if (places->starts[middle] + places->bytes > offset) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return bytes > 0 && low < places->count && places->starts[low] < offset + bytes;
}

/* Tables whose clusters an array lists. */
static bool hits_listed(const Qcow2State *s, const Qcow2Places *places, const uint64_t *entries,
                        uint64_t count, uint64_t mask)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = qcow2_load_word(&entries[i]) & mask;

        if (offset && hits(places, offset, qcow2_cluster_size(&s->geo))) {
            return true;
        }
    }
    return false;
}

static bool hits_inactive_l1(const Qcow2State *s, const Qcow2Places *places)
{
    for (uint32_t i = 0; i < s->snapshots.count; i++) {
        const Qcow2Snapshot *snapshot = &s->snapshots.entries[i];

        if (hits(places, snapshot->l1_table_offset, (uint64_t)snapshot->l1_size * 8)) {
            return true;
        }
    }
    return false;
}

/* Note the L2 tables of one snapshot, as far as they can be in the file. */
static int coroutine_fn GRAPH_RDLOCK list_inactive_l2(Qcow2State *s, const Qcow2Snapshot *snapshot,
                                                      GHashTable *tables)
{
    uint64_t file_length = qcow2_file_length(s), end;
    Qcow2Window window = { .file = s->file };
    const uint8_t *p;
    int ret = 0;

    end = MIN(snapshot->l1_table_offset + (uint64_t)snapshot->l1_size * 8, file_length & ~7ULL);
    for (uint64_t at = snapshot->l1_table_offset; at < end && ret >= 0; at += 8) {
        ret = qcow2_window_get(&window, at, 8, &p);
        if (ret >= 0) {
            uint64_t offset = qcow2_be64(p) & QCOW2_OFFSET_MASK;

            if (offset != 0 && offset < file_length) {
                g_hash_table_add(tables, g_memdup2(&offset, sizeof(offset)));
            }
        }
    }
    qcow2_window_clear(&window);
    return MIN(ret, 0);
}

/* Read where the L2 tables of all snapshots are, unless that is known. */
static int coroutine_fn GRAPH_RDLOCK load_inactive_l2(Qcow2Writer *w) TSA_REQUIRES(w->lock)
{
    g_autoptr(GHashTable) tables = NULL;
    Qcow2State *s = w->s;
    int ret = 0;

    /* A snapshot table that differs lies elsewhere; what snapshots refer to does not change. */
    if (w->inactive_l2 && w->inactive_l2_of == s->header.snapshots_offset &&
        w->inactive_l2_snapshots == s->snapshots.count) {
        return 0;
    }
    tables = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    for (uint32_t i = 0; i < s->snapshots.count && ret == 0; i++) {
        ret = list_inactive_l2(s, &s->snapshots.entries[i], tables);
    }
    if (ret == 0) {
        g_clear_pointer(&w->inactive_l2, g_hash_table_unref);
        w->inactive_l2 = g_steal_pointer(&tables);
        w->inactive_l2_of = s->header.snapshots_offset;
        w->inactive_l2_snapshots = s->snapshots.count;
    }
    return ret;
}

/* 1, 0, or -errno. */
static int coroutine_fn GRAPH_RDLOCK hits_inactive_l2(Qcow2Writer *w, const Qcow2Places *places)
    TSA_REQUIRES(w->lock)
{
    GHashTableIter iter;
    gpointer offset;
    int ret = w->s->snapshots.count > 0 ? load_inactive_l2(w) : 0;

    if (ret < 0 || w->s->snapshots.count == 0) {
        return ret;
    }
    g_hash_table_iter_init(&iter, w->inactive_l2);
    while (g_hash_table_iter_next(&iter, &offset, NULL)) {
        if (hits(places, *(uint64_t *)offset, qcow2_cluster_size(&w->s->geo))) {
            return 1;
        }
    }
    return 0;
}

/* Which of @checks that are answered from memory is hit; 0: none. */
static unsigned find_overlap(const Qcow2Writer *w, const Qcow2Places *places, unsigned checks)
{
    const Qcow2State *s = w->s;
    const Qcow2Header *h = &s->header;

    if ((checks & QCOW2_OL_MAIN_HEADER) && hits(places, 0, qcow2_cluster_size(&s->geo))) {
        return QCOW2_OL_MAIN_HEADER;
    }
    if ((checks & QCOW2_OL_ACTIVE_L1) &&
        hits(places, h->l1_table_offset, (uint64_t)h->l1_size * 8)) {
        return QCOW2_OL_ACTIVE_L1;
    }
    if ((checks & QCOW2_OL_ACTIVE_L2) &&
        hits_listed(s, places, s->l1->entries, s->l1->count, QCOW2_OFFSET_MASK)) {
        return QCOW2_OL_ACTIVE_L2;
    }
    if ((checks & QCOW2_OL_REFTABLE) &&
        hits(places, h->refcount_table_offset,
             (uint64_t)h->refcount_table_clusters << s->geo.cluster_bits)) {
        return QCOW2_OL_REFTABLE;
    }
    if ((checks & QCOW2_OL_REFBLOCK) &&
        hits_listed(s, places, w->reftable, w->blocks_end, QCOW2_REFTABLE_OFFSET_MASK)) {
        return QCOW2_OL_REFBLOCK;
    }
    if ((checks & QCOW2_OL_SNAPSHOT_TABLE) &&
        hits(places, h->snapshots_offset, s->snapshots.bytes)) {
        return QCOW2_OL_SNAPSHOT_TABLE;
    }
    if ((checks & QCOW2_OL_INACTIVE_L1) && hits_inactive_l1(s, places)) {
        return QCOW2_OL_INACTIVE_L1;
    }
    if ((checks & QCOW2_OL_BITMAP_DIRECTORY) && s->ext.nb_bitmaps > 0 &&
        hits(places, s->ext.bitmap_directory_offset, s->ext.bitmap_directory_size)) {
        return QCOW2_OL_BITMAP_DIRECTORY;
    }
    return 0;
}

int coroutine_fn qcow2_overlap_find(Qcow2Writer *w, const Qcow2Places *places, unsigned ignore)
{
    unsigned checks = w->s->options.overlap_check & ~ignore;
    unsigned hit = find_overlap(w, places, checks);
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    if (hit || !(checks & QCOW2_OL_INACTIVE_L2)) {
        return hit;
    }
    ret = hits_inactive_l2(w, places);
    return ret > 0 ? QCOW2_OL_INACTIVE_L2 : ret;
}

int coroutine_fn qcow2_overlap_check(Qcow2Writer *w, uint64_t offset, uint64_t bytes,
                                     unsigned ignore)
{
    Qcow2Places place = { .starts = &offset, .count = 1, .bytes = bytes };
    int hit = qcow2_overlap_find(w, &place, ignore);

    bdrv_graph_assert_readable();
    if (hit <= 0) {
        return hit;
    }
    return qcow2_signal_corruption(w, "Preventing invalid write on metadata (overlaps with %s)",
                                   names[g_bit_nth_lsf(hit, -1)]);
}

int coroutine_fn qcow2_signal_corruption(Qcow2Writer *w, const char *format, ...)
{
    Qcow2Header *h = &w->s->header;
    g_autofree char *message = NULL;
    va_list args;

    bdrv_graph_assert_readable();
    if (__atomic_exchange_n(&w->corrupt, true, __ATOMIC_SEQ_CST)) {
        return -EIO; /* told already */
    }
    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    bdrv_map_invalidate(w->bs, 0, INT64_MAX); /* nothing is written in place any more */
    g_printerr("qcow2: Marking image as corrupt: %s; further corruption events will be "
               "suppressed\n", message);
    if (h->version >= 3) {
        uint64_t word = GUINT64_TO_BE(h->incompatible_features | QCOW2_INCOMPAT_CORRUPT);

        /* Nothing more can be done if that fails, too. */
        if (qcow2_header_write_field(w, INCOMPATIBLE_FEATURES_AT, &word, sizeof(word)) >= 0) {
            h->incompatible_features |= QCOW2_INCOMPAT_CORRUPT;
        }
    }
    return -EIO;
}
