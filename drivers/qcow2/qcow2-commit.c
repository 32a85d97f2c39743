/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: linking new places in, zeroing and discarding in the tables; abandoning
 * places.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define ALL_ZERO 0xffffffff00000000ULL

/* One cluster of a commit. */
typedef struct Step {
    Qcow2Action action;
    int flags;
    uint64_t place;   /* new one */
    uint64_t encoded; /* its length */
    uint32_t mask;    /* subclusters that are touched */
    Qcow2Discard reason; /* for dropping the old place, */
    bool drops;          /* if it is dropped */
} Step;

static bool is_whole(const Qcow2Geometry *geo, const Step *step)
{
    return geo->subclusters == 1 || step->mask == UINT32_MAX;
}

static uint32_t subcluster_mask(const Qcow2Geometry *geo, uint64_t cluster, uint64_t start,
                                uint64_t end)
{
    uint64_t first, last;

    if (geo->subclusters == 1) {
        return 0;
    }
    first = start > cluster ? (start - cluster) >> geo->subcluster_bits : 0;
    last = MIN((end - cluster) >> geo->subcluster_bits, QCOW2_SUBCLUSTERS);
    return (UINT32_MAX >> (QCOW2_SUBCLUSTERS - (last - first))) << first;
}

static uint64_t compressed_entry(const Qcow2Geometry *geo, const Step *step)
{
    unsigned x = 62 - (geo->cluster_bits - 8);
    uint64_t sectors = (step->place + step->encoded - 1) / 512 - step->place / 512;

    return QCOW2_COMPRESSED | sectors << x | step->place;
}

static void write_words(const Qcow2Geometry *geo, Step *step, uint64_t *words)
{
    uint64_t zero = words[0] & QCOW2_COMPRESSED ? 0 : words[1] & ALL_ZERO;

    switch (step->action) {
    case QCOW2_ACTION_KEEP:
        words[0] &= geo->subclusters > 1 ? ~0ULL : ~QCOW2_ZERO;
        words[1] = (words[1] | step->mask) & ~((uint64_t)step->mask << 32);
        return;
    case QCOW2_ACTION_FRESH:
        step->drops = true;
        words[0] = step->place | QCOW2_COPIED;
        words[1] = (zero & ~((uint64_t)step->mask << 32)) | step->mask;
        return;
    default:
        step->drops = true;
        words[0] = compressed_entry(geo, step);
        words[1] = 0;
    }
}

static void zero_words(const Qcow2State *s, Step *step, uint64_t *words)
{
    bool extended = s->geo.subclusters > 1, compressed = words[0] & QCOW2_COMPRESSED;
    bool keep = !compressed && (!(step->flags & BDRV_REQ_MAY_UNMAP) || s->options.discard_no_unref);

    if (!is_whole(&s->geo, step)) {
        words[1] = (words[1] | (uint64_t)step->mask << 32) & ~(uint64_t)step->mask;
        return;
    }
    step->drops = !keep;
    step->reason = QCOW2_DISCARD_REQUEST;
    words[0] = keep ? words[0] : 0;
    words[0] |= extended ? 0 : QCOW2_ZERO;
    words[1] = ALL_ZERO;
}

static void discard_words(const Qcow2State *s, bool backing, Step *step, uint64_t *words)
{
    bool extended = s->geo.subclusters > 1, compressed = words[0] & QCOW2_COMPRESSED;
    bool allocated = words[0] & (QCOW2_OFFSET_MASK | QCOW2_COMPRESSED | QCOW2_COPIED);

    if (!is_whole(&s->geo, step) || !(backing || allocated)) {
        return;
    }
    if (extended ? !allocated && words[1] == ALL_ZERO : words[0] == QCOW2_ZERO) {
        return;
    }
    step->drops = compressed || !s->options.discard_no_unref;
    step->reason = QCOW2_DISCARD_REQUEST;
    words[0] = step->drops ? 0 : words[0];
    words[0] |= !extended && s->geo.version >= 3 ? QCOW2_ZERO : 0;
    words[1] = ALL_ZERO;
}

/* Nobody but older requests knows the place that @entry had; @run is what was so just before. */
static void retire_entry(Qcow2Writer *w, uint64_t entry, Qcow2Discard reason, BdrvPlace *run)
{
    BdrvPlace place = qcow2_entry_place(&w->s->geo, entry, reason);

    if (w->s->geo.external_data || place.bytes == 0) {
        return;
    }
    if (!qcow2_place_join(&w->s->geo, run, &place)) {
        bdrv_retire(w->bs, run);
        *run = place;
    }
}

/* Change one entry; true if it is another one now. */
static bool coroutine_fn GRAPH_RDLOCK change_entry(Qcow2Writer *w, Step *step, uint64_t *entry)
{
    const Qcow2State *s = w->s;
    bool extended = s->geo.subclusters > 1;
    uint64_t old[2] = { entry[0], extended ? entry[1] : 0 }, words[2] = { old[0], old[1] };

    switch (step->action) {
    case QCOW2_ACTION_ZERO:
        zero_words(s, step, words);
        break;
    case QCOW2_ACTION_DISCARD:
        discard_words(s, bdrv_backing_child(w->bs) != NULL, step, words);
        break;
    default:
        write_words(&s->geo, step, words);
    }
    if (words[0] == old[0] && (!extended || words[1] == old[1])) {
        return false;
    }
    qcow2_store_word(&entry[0], words[0]);
    if (extended) {
        qcow2_store_word(&entry[1], words[1]);
    }
    return true;
}

/* Whether the places that @count entries from @words on have are clusters: they may be dropped. */
static int coroutine_fn GRAPH_RDLOCK check_droppable(Qcow2Writer *w, const uint64_t *words,
                                                     uint64_t count)
{
    const Qcow2Geometry *geo = &w->s->geo;

    for (uint64_t i = 0; i < count && !geo->external_data; i++) {
        uint64_t entry = words[i << (geo->l2_entry_bits - 3)];

        if (!(entry & QCOW2_COMPRESSED) &&
            qcow2_offset_into_cluster(geo, entry & QCOW2_OFFSET_MASK)) {
            return qcow2_signal_corruption(w, "Cannot free unaligned cluster %#" G_GINT64_MODIFIER
                                           "x", entry & (uint64_t)QCOW2_OFFSET_MASK);
        }
    }
    return 0;
}

/* All clusters of @m, which lie in one slice. */
static int coroutine_fn GRAPH_RDLOCK commit_locked(Qcow2Writer *w, const BdrvMapping *m)
    TSA_REQUIRES(w->lock)
{
    const Qcow2Geometry *geo = &w->s->geo;
    uint64_t size = qcow2_cluster_size(geo), action = m->cookie[QCOW2_COOKIE_ACTION];
    uint64_t start = m->cookie[QCOW2_COOKIE_START], end = m->cookie[QCOW2_COOKIE_END];
    uint64_t first = start & ~(size - 1), place = m->cookie[QCOW2_COOKIE_HOST];
    BdrvPlace run = { 0 };
    Qcow2L2Ref ref;
    bool changed = false;
    int ret = __atomic_load_n(&w->corrupt, __ATOMIC_RELAXED) ? -EIO : 0;

    if (ret == 0) {
        ret = qcow2_l2_for_write(w, first, &ref);
    }
    if (ret < 0) {
        return ret;
    }
    ret = check_droppable(w, ref.words, qcow2_clusters(geo, end - first));
    if (ret < 0) {
        qcow2_l2_done(w, &ref, false);
        return ret;
    }
    bdrv_map_invalidate(w->bs, first, end - first);
    for (uint64_t at = first; at < end; at += size) {
        uint64_t index = (at - first) >> geo->cluster_bits;
        uint64_t *entry = ref.words + (index << (geo->l2_entry_bits - 3));
        uint64_t old = *entry;
        Step step = { .action = action & 0xff, .flags = action >> 8,
                      .place = place + (at - first), .encoded = action >> 8,
                      .mask = subcluster_mask(geo, at, start, end) };

        g_assert(index < ref.entries_left);
        if (change_entry(w, &step, entry)) {
            changed = true;
            if (step.drops) {
                retire_entry(w, old, step.reason, &run);
            }
        }
    }
    if (run.bytes > 0) {
        bdrv_retire(w->bs, &run);
    }
    bdrv_map_invalidate(w->bs, first, end - first);
    qcow2_l2_done(w, &ref, changed);
    return 0;
}

/* What map has allocated is not used. */
static void coroutine_fn GRAPH_RDLOCK give_back(Qcow2Writer *w, const BdrvMapping *m)
    TSA_REQUIRES(w->lock)
{
    uint64_t size = qcow2_cluster_size(&w->s->geo), action = m->cookie[QCOW2_COOKIE_ACTION];
    uint64_t place = m->cookie[QCOW2_COOKIE_HOST], bytes = action >> 8;

    if (!m->fresh) {
        return;
    }
    if ((action & 0xff) == QCOW2_ACTION_FRESH) {
        bytes = ((m->cookie[QCOW2_COOKIE_END] + size - 1) & ~(size - 1)) -
                (m->cookie[QCOW2_COOKIE_START] & ~(size - 1));
    }
    qcow2_refcount_add(w, place, bytes, -1); /* at worst it leaks */
}

int coroutine_fn qcow2_co_map_commit(BlockDriverState *bs, const BdrvMapping *m)
{
    Qcow2State *s = bdrv_state(bs);
    Qcow2Writer *w = s->writer;
    int ret;

    bdrv_graph_assert_readable();
    if ((m->cookie[QCOW2_COOKIE_ACTION] & 0xff) == QCOW2_ACTION_ENCODED) {
        bdrv_co_debug_event(s->file, BDRV_DEBUG_L2_UPDATE_COMPRESSED);
    }
    co_mutex_lock(&w->lock);
    ret = commit_locked(w, m);
    if (ret < 0) {
        give_back(w, m);
    }
    co_mutex_unlock(&w->lock);
    if (ret == 0) {
        qcow2_relieve(w); /* a failure shows in the next flush */
    }
    return ret;
}

void coroutine_fn qcow2_co_map_abort(BlockDriverState *bs, const BdrvMapping *m)
{
    Qcow2State *s = bdrv_state(bs);
    Qcow2Writer *w = s->writer;

    bdrv_graph_assert_readable();
    co_mutex_lock(&w->lock);
    give_back(w, m);
    co_mutex_unlock(&w->lock);
}
