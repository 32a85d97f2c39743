/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: all clusters that an L1 table leads to: their refcounts, and "copied".
 *
 * A table is always walked in the same order, so that the first references of a walk
 * are the first of the next.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-snapshot.h"

typedef struct Walk Walk;
struct Walk {
    Qcow2State *s;
    /* For each place: a data cluster, a compressed one, after them the L2 table. */
    int coroutine_fn GRAPH_RDLOCK_PTR (*visit)(Walk *walk, const BdrvPlace *place);
    BdrvPlace run; /* visited, and still to be dropped */
    int delta;
    uint64_t clusters; /* visited */
    uint64_t limit;    /* of them */
};

/* ---- Walking ------------------------------------------------------------------------------ */

static int coroutine_fn GRAPH_RDLOCK refuse_l1_entry(Qcow2State *s, uint64_t offset, uint64_t index)
{
    int ret;

    co_mutex_lock(&s->writer->lock);
    ret = qcow2_signal_corruption(s->writer, "L2 table offset %#" G_GINT64_MODIFIER
                                  "x unaligned (L1 index: %#" G_GINT64_MODIFIER "x)",
                                  offset, index);
    co_mutex_unlock(&s->writer->lock);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK visit_entry(Walk *walk, uint64_t entry)
{
    const Qcow2Geometry *geo = &walk->s->geo;
    BdrvPlace place = qcow2_entry_place(geo, entry, QCOW2_DISCARD_SNAPSHOT);
    int ret;

    if (!(entry & QCOW2_COMPRESSED) && qcow2_offset_into_cluster(geo, place.offset)) {
        co_mutex_lock(&walk->s->writer->lock);
        ret = qcow2_signal_corruption(walk->s->writer, "Data cluster offset %#" G_GINT64_MODIFIER
                                      "x unaligned", (uint64_t)place.offset);
        co_mutex_unlock(&walk->s->writer->lock);
        return ret;
    }
    return place.bytes > 0 ? walk->visit(walk, &place) : 0;
}

static int coroutine_fn GRAPH_RDLOCK walk_table(Walk *walk, uint64_t table)
{
    Qcow2State *s = walk->s;
    BdrvPlace own = { .offset = table, .bytes = qcow2_cluster_size(&s->geo),
                      .cookie = QCOW2_DISCARD_SNAPSHOT };
    size_t slice_bytes = s->options.l2_slice_bytes, count = slice_bytes >> s->geo.l2_entry_bits;
    int ret = table < qcow2_file_length(s) ? 0 : -EIO;

    for (uint64_t at = 0; at < qcow2_cluster_size(&s->geo) && ret == 0; at += slice_bytes) {
        Qcow2Slice *slice;

        ret = qcow2_cache_get(s->l2_cache, s->file, table + at, &slice);
        if (ret < 0) {
            return ret;
        }
        for (size_t i = 0; i < count && ret == 0; i++) {
            ret = visit_entry(walk, qcow2_slice_words(slice)[i << (s->geo.l2_entry_bits - 3)]);
        }
        qcow2_slice_unref(slice);
    }
    return ret == 0 ? walk->visit(walk, &own) : ret;
}

static int coroutine_fn GRAPH_RDLOCK walk_tree(Walk *walk, const Qcow2L1 *l1)
{
    int ret = 0;

    for (uint32_t i = 0; i < l1->count && ret == 0; i++) {
        uint64_t table;

        if (!qcow2_l1_entry_valid(&walk->s->geo, l1->entries[i], &table)) {
            ret = refuse_l1_entry(walk->s, table, i);
        } else if (table != 0) {
            ret = walk_table(walk, table);
        }
    }
    return MIN(ret, 0);
}

/* ---- Refcounts ------------------------------------------------------------------------------ */

/* Stops with 1 at the limit. */
static int coroutine_fn GRAPH_RDLOCK visit_add(Walk *walk, const BdrvPlace *place)
{
    unsigned bits = walk->s->geo.cluster_bits;
    uint64_t last = (uint64_t)(place->offset + place->bytes - 1) >> bits;
    int ret = 0;

    for (uint64_t i = (uint64_t)place->offset >> bits; i <= last && ret == 0; i++) {
        if (walk->clusters == walk->limit) {
            return 1;
        }
        ret = qcow2_update_refcount(walk->s, i << bits, 1, walk->delta);
        walk->clusters += ret == 0;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK drop_run(Walk *walk)
{
    BdrvPlace run = walk->run;

    walk->run.bytes = 0;
    return run.bytes > 0 ? qcow2_co_release(walk->s->writer->bs, &run) : 0;
}

static int coroutine_fn GRAPH_RDLOCK visit_drop(Walk *walk, const BdrvPlace *place)
{
    int ret;

    if (qcow2_place_join(&walk->s->geo, &walk->run, place)) {
        return 0;
    }
    ret = drop_run(walk);
    walk->run = *place;
    return ret;
}

int coroutine_fn qcow2_tree_raise(Qcow2State *s, const Qcow2L1 *l1, GError **errp)
{
    Walk walk = { .s = s, .visit = visit_add, .delta = 1, .limit = UINT64_MAX };
    Walk undo = { .s = s, .visit = visit_add, .delta = -1 };
    int ret = walk_tree(&walk, l1);

    bdrv_graph_assert_readable();
    if (ret == 0) {
        return 0;
    }
    if (ret == -ERANGE) {
        ret = -EINVAL;
        block_error_set(errp, EINVAL, "'%s': refcounts of %u bits (refcount_bits) have no room "
                        "for one more reference", s->name, 1U << s->geo.refcount_order);
    } else {
        block_error_set_errno(errp, -ret, "'%s': could not raise the refcounts", s->name);
    }
    undo.limit = walk.clusters;
    walk_tree(&undo, l1);
    return ret;
}

void coroutine_fn qcow2_tree_undo_raise(Qcow2State *s, const Qcow2L1 *l1)
{
    Walk walk = { .s = s, .visit = visit_add, .delta = -1, .limit = UINT64_MAX };

    bdrv_graph_assert_readable();
    walk_tree(&walk, l1);
}

int coroutine_fn qcow2_tree_drop(Qcow2State *s, const Qcow2L1 *l1)
{
    Walk walk = { .s = s, .visit = visit_drop };

    int ret, last;

    bdrv_graph_assert_readable();
    ret = walk_tree(&walk, l1);
    last = drop_run(&walk);
    return ret < 0 ? ret : last;
}

/* ---- "Copied" ----------------------------------------------------------------------------- */

/* What @entry should be: with "copied" if @set and nobody else refers to its place. */
static int coroutine_fn GRAPH_RDLOCK wanted_entry(Qcow2Writer *w, uint64_t entry, bool set,
                                                  uint64_t *wanted) TSA_REQUIRES(w->lock)
{
    uint64_t place = entry & QCOW2_OFFSET_MASK, refcount = 0;
    int ret = 0;

    *wanted = entry;
    if (place == 0) {
        return 0;
    }
    if (set) {
        ret = qcow2_refcount_get(w, place >> w->s->geo.cluster_bits, &refcount);
    }
    *wanted = (entry & ~QCOW2_COPIED) | (refcount == 1 ? QCOW2_COPIED : 0);
    return ret;
}

/* Store what the entries of a pinned slice should be. */
static int coroutine_fn GRAPH_RDLOCK change_words(Qcow2Writer *w, Qcow2Slice *slice, bool set,
                                                  bool *changed) TSA_REQUIRES(w->lock)
{
    const Qcow2State *s = w->s;
    uint64_t *words = qcow2_slice_writable(slice);
    size_t step = (size_t)1 << (s->geo.l2_entry_bits - 3);
    int ret = 0;

    *changed = false;
    for (size_t i = 0; i < (size_t)s->options.l2_slice_bytes / 8 && ret == 0; i += step) {
        uint64_t wanted;

        if (words[i] & QCOW2_COMPRESSED) {
            continue;
        }
        ret = wanted_entry(w, words[i], set, &wanted);
        if (ret == 0 && wanted != words[i]) {
            qcow2_store_word(&words[i], wanted);
            *changed = true;
        }
    }
    return ret;
}

/* At once: it may be a snapshot's table, which nothing else ever writes. */
static int coroutine_fn GRAPH_RDLOCK write_slice(Qcow2Writer *w, const Qcow2Slice *slice)
    TSA_REQUIRES(w->lock)
{
    size_t bytes = w->s->options.l2_slice_bytes;
    g_autofree uint64_t *copy = g_memdup2(qcow2_slice_words(slice), bytes);
    int ret = qcow2_overlap_check(w, qcow2_slice_offset(slice), bytes,
                                  QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2);

    if (ret < 0) {
        return ret;
    }
    qcow2_words_to_host(copy, bytes / 8); /* and back again */
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_L2_UPDATE);
    return bdrv_co_pwrite(w->s->file, qcow2_slice_offset(slice), bytes, copy, 0);
}

static int coroutine_fn GRAPH_RDLOCK change_slice(Qcow2Writer *w, uint64_t offset, bool set)
    TSA_REQUIRES(w->lock)
{
    Qcow2L2Ref ref = { 0 };
    bool changed;
    int ret;

    do {
        ret = qcow2_cache_get(w->s->l2_cache, w->s->file, offset, &ref.slice);
        if (ret < 0) {
            return ret;
        }
        if (qcow2_cache_pin(w->s->l2_cache, ref.slice)) {
            break;
        }
        qcow2_slice_unref(ref.slice); /* it went out of the cache meanwhile */
    } while (true);
    ret = change_words(w, ref.slice, set, &changed);
    if (changed) {
        int written = write_slice(w, ref.slice);

        qcow2_slice_set_checked(ref.slice, QCOW2_SLICE_UNKNOWN);
        if (written < 0) {
            qcow2_cache_drop(w->s->l2_cache, offset); /* it is as the file has it */
        }
        ret = ret < 0 ? ret : written;
    }
    qcow2_l2_done(w, &ref, false);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK change_table(Qcow2Writer *w, uint64_t table, bool set)
    TSA_REQUIRES(w->lock)
{
    const Qcow2State *s = w->s;
    int ret = table < qcow2_file_length(s) ? 0 : -EIO;

    for (uint64_t at = 0; at < qcow2_cluster_size(&s->geo) && ret == 0;
         at += s->options.l2_slice_bytes) {
        ret = change_slice(w, table + at, set);
    }
    return ret;
}

/* The L2 tables of @l1; that itself, if it is the active one. */
static int coroutine_fn GRAPH_RDLOCK change_tree(Qcow2State *s, const Qcow2L1 *l1, bool set)
{
    Qcow2Writer *w = s->writer;
    int ret = 0;

    for (uint32_t i = 0; i < l1->count && ret == 0; i++) {
        uint64_t entry = l1->entries[i], wanted = entry, table;

        if (!qcow2_l1_entry_valid(&s->geo, entry, &table)) {
            return refuse_l1_entry(s, table, i);
        }
        if (table == 0) {
            continue;
        }
        co_mutex_lock(&w->lock);
        if (l1 == s->l1) {
            ret = wanted_entry(w, entry, set, &wanted);
        }
        if (ret == 0 && wanted != entry) {
            __atomic_store_n(&s->l1->entries[i], wanted, __ATOMIC_RELEASE);
            qcow2_l1_dirty(w, i);
        }
        /* What a table refers to that others have, they refer to as well. */
        if (ret == 0 && (!set || (wanted & QCOW2_COPIED))) {
            ret = change_table(w, table, set);
        }
        co_mutex_unlock(&w->lock);
    }
    return ret;
}

int coroutine_fn qcow2_tree_clear_copied(Qcow2State *s, const Qcow2L1 *l1)
{
    bdrv_graph_assert_readable();
    return change_tree(s, l1, false);
}

int coroutine_fn qcow2_active_clear_copied(Qcow2State *s)
{
    int ret;

    bdrv_graph_assert_readable();
    s->writer->copied_missing = true;
    ret = change_tree(s, s->l1, false);
    return ret < 0 ? ret : qcow2_snapshots_settle(s);
}

int coroutine_fn qcow2_active_set_copied(Qcow2State *s)
{
    int ret;

    bdrv_graph_assert_readable();
    s->writer->copied_missing = true;
    ret = qcow2_snapshots_settle(s);
    if (ret >= 0) {
        ret = change_tree(s, s->l1, true);
    }
    if (ret >= 0) {
        ret = qcow2_snapshots_settle(s);
    }
    s->writer->copied_missing = ret < 0;
    return ret;
}
