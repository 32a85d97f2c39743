/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: nothing is written over metadata; what an image has lied about shows here. */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define INCOMPATIBLE_FEATURES_AT 72

static const char *const names[] = {
    "qcow2_header",   "active L1 table", "active L2 table",   "refcount table",  "refcount block",
    "snapshot table", "inactive L1 table", "inactive L2 table", "bitmap directory",
};

typedef struct Range {
    uint64_t start;
    uint64_t end;
} Range;

static bool hits(const Range *range, uint64_t offset, uint64_t bytes)
{
    return bytes > 0 && offset < range->end && range->start < offset + bytes;
}

/* Tables whose clusters an array lists. */
static bool hits_listed(const Qcow2State *s, const Range *range, const uint64_t *entries,
                        uint64_t count, uint64_t mask)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = qcow2_load_word(&entries[i]) & mask;

        if (offset && hits(range, offset, qcow2_cluster_size(&s->geo))) {
            return true;
        }
    }
    return false;
}

static bool hits_inactive_l1(const Qcow2State *s, const Range *range)
{
    for (uint32_t i = 0; i < s->snapshots.count; i++) {
        const Qcow2Snapshot *snapshot = &s->snapshots.entries[i];

        if (hits(range, snapshot->l1_table_offset, (uint64_t)snapshot->l1_size * 8)) {
            return true;
        }
    }
    return false;
}

/* Which of @checks is hit; 0: none. */
static unsigned find_overlap(const Qcow2Writer *w, const Range *range, unsigned checks)
{
    const Qcow2State *s = w->s;
    const Qcow2Header *h = &s->header;

    if ((checks & QCOW2_OL_MAIN_HEADER) && hits(range, 0, qcow2_cluster_size(&s->geo))) {
        return QCOW2_OL_MAIN_HEADER;
    }
    if ((checks & QCOW2_OL_ACTIVE_L1) &&
        hits(range, h->l1_table_offset, (uint64_t)h->l1_size * 8)) {
        return QCOW2_OL_ACTIVE_L1;
    }
    if ((checks & QCOW2_OL_ACTIVE_L2) &&
        hits_listed(s, range, s->l1->entries, s->l1->count, QCOW2_OFFSET_MASK)) {
        return QCOW2_OL_ACTIVE_L2;
    }
    if ((checks & QCOW2_OL_REFTABLE) &&
        hits(range, h->refcount_table_offset,
             (uint64_t)h->refcount_table_clusters << s->geo.cluster_bits)) {
        return QCOW2_OL_REFTABLE;
    }
    if ((checks & QCOW2_OL_REFBLOCK) &&
        hits_listed(s, range, w->reftable, w->blocks_end, QCOW2_REFTABLE_OFFSET_MASK)) {
        return QCOW2_OL_REFBLOCK;
    }
    if ((checks & QCOW2_OL_SNAPSHOT_TABLE) &&
        hits(range, h->snapshots_offset, s->snapshots.bytes)) {
        return QCOW2_OL_SNAPSHOT_TABLE;
    }
    if ((checks & QCOW2_OL_INACTIVE_L1) && hits_inactive_l1(s, range)) {
        return QCOW2_OL_INACTIVE_L1;
    }
    if ((checks & QCOW2_OL_BITMAP_DIRECTORY) && s->ext.nb_bitmaps > 0 &&
        hits(range, s->ext.bitmap_directory_offset, s->ext.bitmap_directory_size)) {
        return QCOW2_OL_BITMAP_DIRECTORY;
    }
    return 0;
}

unsigned coroutine_fn qcow2_overlap_find(Qcow2Writer *w, uint64_t offset, uint64_t bytes,
                                         unsigned ignore)
{
    Range range = { offset, offset + bytes };

    co_mutex_assert_locked(&w->lock);
    return find_overlap(w, &range, w->s->options.overlap_check & ~ignore);
}

int coroutine_fn qcow2_overlap_check(Qcow2Writer *w, uint64_t offset, uint64_t bytes,
                                     unsigned ignore)
{
    unsigned hit = qcow2_overlap_find(w, offset, bytes, ignore);

    bdrv_graph_assert_readable();
    if (hit == 0) {
        return 0;
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
