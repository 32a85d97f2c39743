/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: giving up what lies beyond the end of the disk: its entries, its tables,
 * its clusters.
 *
 * Whoever calls has claimed the whole node, and nobody is given a mapping beyond
 * the end any more: what is unlinked on the disk is free at once.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

/*
 * When so many places are known, they are given up before tables are looked at further:
 * in an image whose tables lie there may be many more than clusters.
 */
#define PORTION 65536

/* What was unlinked, as far as it is known. */
typedef struct Drop {
    Qcow2Writer *w;
    uint64_t end;   /* of the disk, rounded up to a cluster */
    uint64_t next;  /* L1 entry to look at */
    GArray *places; /* of BdrvPlace */
    bool changed;
} Drop;

static void add_place(Drop *d, const BdrvPlace *place)
{
    BdrvPlace *last = d->places->len > 0
                          ? &g_array_index(d->places, BdrvPlace, d->places->len - 1) : NULL;

    if (place->bytes > 0 && !(last && qcow2_place_join(&d->w->s->geo, last, place))) {
        g_array_append_val(d->places, *place);
    }
}

/* The place that @entry of an L2 table has will be nobody's. */
static int coroutine_fn GRAPH_RDLOCK add_entry(Drop *d, uint64_t entry)
{
    const Qcow2Geometry *geo = &d->w->s->geo;
    BdrvPlace place = qcow2_entry_place(geo, entry, QCOW2_DISCARD_REQUEST);

    if (geo->external_data) {
        return 0;
    }
    if (!(entry & QCOW2_COMPRESSED) && qcow2_offset_into_cluster(geo, place.offset)) {
        return qcow2_signal_corruption(d->w, "Cannot free unaligned cluster %#" G_GINT64_MODIFIER
                                       "x", (uint64_t)place.offset);
    }
    add_place(d, &place);
    return 0;
}

static bool is_empty(const Qcow2Geometry *geo, const uint64_t *words)
{
    return words[0] == 0 && (geo->subclusters == 1 || words[1] == 0);
}

/* Guest bytes that a slice is about. */
static uint64_t slice_span(const Qcow2State *s)
{
    return (s->options.l2_slice_bytes >> s->geo.l2_entry_bits) << s->geo.cluster_bits;
}

/* The entries from @guest on to the end of its slice, in a table that partly stays. */
static int coroutine_fn GRAPH_RDLOCK clear_entries(Drop *d, uint64_t guest)
    TSA_REQUIRES(d->w->lock)
{
    const Qcow2Geometry *geo = &d->w->s->geo;
    Qcow2L2Ref ref;
    bool changed = false;
    int ret = qcow2_l2_for_write(d->w, guest, &ref);

    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < ref.entries_left && ret == 0; i++) {
        uint64_t *words = ref.words + (i << (geo->l2_entry_bits - 3));

        if (is_empty(geo, words)) {
            continue;
        }
        ret = add_entry(d, words[0]);
        if (ret == 0) {
            qcow2_store_word(&words[0], 0);
            if (geo->subclusters > 1) {
                qcow2_store_word(&words[1], 0);
            }
            changed = true;
        }
    }
    qcow2_l2_done(d->w, &ref, changed);
    d->changed |= changed;
    return ret;
}

/* Whether the slice that has @guest says anything from there on. */
static int coroutine_fn GRAPH_RDLOCK any_entry(Drop *d, uint64_t table, uint64_t guest, bool *any)
{
    const Qcow2Geometry *geo = &d->w->s->geo;
    Qcow2Slice *slice;
    Qcow2Entries entries;
    int ret = qcow2_entries_get(d->w->s, table, guest, &slice, &entries);

    *any = false;
    if (ret < 0) {
        return ret;
    }
    for (size_t i = (guest - entries.guest_first) >> geo->cluster_bits; i < entries.count; i++) {
        *any |= !is_empty(geo, entries.words + (i << (geo->l2_entry_bits - 3)));
    }
    qcow2_slice_unref(slice);
    return 0;
}

/* The table at @table, of which the end of the disk is a part: from d->end up to @table_end. */
static int coroutine_fn GRAPH_RDLOCK drop_from_table(Drop *d, uint64_t table, uint64_t table_end)
    TSA_REQUIRES(d->w->lock)
{
    uint64_t span = slice_span(d->w->s), guest = d->end;
    int ret = 0;

    while (guest < table_end && ret >= 0) {
        bool any;

        ret = any_entry(d, table, guest, &any);
        if (ret >= 0 && any) {
            ret = clear_entries(d, guest);
            table = d->w->s->l1->entries[(table_end - 1) >> (d->w->s->geo.cluster_bits +
                                                            d->w->s->geo.l2_bits)] &
                    QCOW2_OFFSET_MASK;
        }
        guest = (guest & ~(span - 1)) + span;
    }
    return ret;
}

/* All of the table at @table, for the guest's @guest on, and itself. */
static int coroutine_fn GRAPH_RDLOCK drop_table(Drop *d, uint64_t table, uint64_t guest)
    TSA_REQUIRES(d->w->lock)
{
    const Qcow2State *s = d->w->s;
    uint64_t end = guest + (1ULL << (s->geo.cluster_bits + s->geo.l2_bits));
    guint before = d->places->len;
    BdrvPlace place;
    int ret = 0;

    for (uint64_t at = guest; at < end && ret >= 0; at += slice_span(s)) {
        Qcow2Slice *slice;
        Qcow2Entries entries;

        ret = qcow2_entries_get(d->w->s, table, at, &slice, &entries);
        if (ret < 0) {
            break;
        }
        for (size_t i = 0; i < entries.count && ret >= 0; i++) {
            ret = add_entry(d, entries.words[i << (s->geo.l2_entry_bits - 3)]);
        }
        qcow2_slice_unref(slice);
    }
    if (ret < 0) {
        g_array_set_size(d->places, before); /* the table stays, and all in it */
        return ret;
    }
    place = (BdrvPlace){ .offset = table, .bytes = qcow2_cluster_size(&s->geo),
                         .cookie = QCOW2_DISCARD_OTHER };
    add_place(d, &place);
    return 0;
}

/* A portion, in memory. What was dropped before an error is dropped. */
static int coroutine_fn GRAPH_RDLOCK drop_locked(Drop *d)
    TSA_REQUIRES(d->w->lock)
{
    Qcow2State *s = d->w->s;
    unsigned bits = s->geo.cluster_bits + s->geo.l2_bits;
    int ret = 0;

    for (; d->next < s->l1->count && d->places->len < PORTION && ret >= 0; d->next++) {
        uint64_t i = d->next, entry = s->l1->entries[i], table;

        if (!qcow2_l1_entry_valid(&s->geo, entry, &table)) {
            return qcow2_signal_corruption(d->w, "L2 table offset %#" G_GINT64_MODIFIER
                                           "x unaligned (L1 index: %#" G_GINT64_MODIFIER "x)",
                                           table, i);
        }
        if (table == 0) {
            continue;
        }
        if (i << bits < d->end) {
            ret = drop_from_table(d, table, (i + 1) << bits);
            continue;
        }
        bdrv_co_debug_event(s->file, BDRV_DEBUG_L1_SHRINK_FREE_L2_CLUSTERS);
        ret = drop_table(d, table, i << bits);
        if (ret >= 0) {
            __atomic_store_n(&s->l1->entries[i], 0, __ATOMIC_RELEASE);
            qcow2_l1_dirty(d->w, i);
            d->changed = true;
        }
    }
    return ret;
}

/* Bring it to the disk; then nothing there leads to the places. */
static int coroutine_fn GRAPH_RDLOCK settle(const Drop *d)
{
    int ret;

    if (!d->changed) {
        return 0;
    }
    bdrv_co_debug_event(d->w->s->file, BDRV_DEBUG_L1_SHRINK_WRITE_TABLE);
    ret = qcow2_write_back(d->w, false);
    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(d->w->s->file));
}

/* Unlink a portion, and give up what is. */
static int coroutine_fn GRAPH_RDLOCK drop_portion(Drop *d)
{
    Qcow2Writer *w = d->w;
    int ret, settled;

    d->changed = false;
    bdrv_map_invalidate(w->bs, d->end, INT64_MAX - d->end);
    co_mutex_lock(&d->w->lock);
    ret = drop_locked(d);
    co_mutex_unlock(&d->w->lock);
    bdrv_map_invalidate(w->bs, d->end, INT64_MAX - d->end);
    settled = settle(d);
    for (guint i = 0; i < d->places->len; i++) {
        const BdrvPlace *place = &g_array_index(d->places, BdrvPlace, i);

        if (settled >= 0) {
            qcow2_co_release(w->bs, place); /* what fails is a leak */
        } else {
            bdrv_retire(w->bs, place); /* until a flush succeeds */
        }
    }
    g_array_set_size(d->places, 0);
    return ret < 0 ? ret : MIN(settled, 0);
}

int coroutine_fn qcow2_drop_beyond(Qcow2State *s, uint64_t end)
{
    uint64_t size = qcow2_cluster_size(&s->geo);
    Drop d = { .w = s->writer, .end = (end + size - 1) & ~(size - 1),
               .places = g_array_new(false, false, sizeof(BdrvPlace)) };
    int ret;

    bdrv_graph_assert_readable();
    d.next = d.end >> (s->geo.cluster_bits + s->geo.l2_bits);
    do {
        ret = drop_portion(&d);
    } while (ret >= 0 && d.next < s->l1->count);
    g_array_unref(d.places);
    return ret;
}
