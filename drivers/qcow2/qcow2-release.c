/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: giving back places in the file that nobody refers to any more, many clusters at a
 * time: a discard for each of them takes the file system longer than all the rest.
 */
#include "drivers/qcow2/qcow2-alloc.h"

/* Clusters, with the lock held. */
#define AT_ONCE 4096

BdrvPlace qcow2_entry_place(const Qcow2Geometry *geo, uint64_t entry, Qcow2Discard reason)
{
    BdrvPlace place = { .offset = entry & QCOW2_OFFSET_MASK, .cookie = reason };
    uint64_t offset, bytes;

    if (entry & QCOW2_COMPRESSED) {
        qcow2_compressed_place(geo, entry, &offset, &bytes);
        place.offset = offset;
        place.bytes = bytes;
    } else if (place.offset != 0) {
        place.bytes = qcow2_cluster_size(geo);
    }
    return place;
}

bool qcow2_place_join(const Qcow2Geometry *geo, BdrvPlace *place, const BdrvPlace *next)
{
    if (place->bytes == 0) {
        *place = *next;
        return true;
    }
    /* Compressed data has a reference of its own to each cluster that it is a part of. */
    if (place->offset + place->bytes != next->offset || place->cookie != next->cookie ||
        qcow2_offset_into_cluster(geo, place->offset | place->bytes | next->bytes)) {
        return false;
    }
    place->bytes += next->bytes;
    return true;
}

/* Clusters that lose a reference together. */
typedef struct Run {
    uint64_t first, count;
    bool last; /* the last reference */
} Run;

/*
 * Up to @max clusters from @run->first on which are alike. Where it is the last reference that
 * goes, nothing compressed will be put there any more. -EIO: it is metadata, and stays.
 */
static int coroutine_fn GRAPH_RDLOCK find_run(Qcow2Writer *w, uint64_t max, Run *run)
    TSA_REQUIRES(w->lock)
{
    unsigned bits = w->s->geo.cluster_bits;
    int ret = 0;

    for (run->count = 0; run->count < MIN(max, AT_ONCE); run->count++) {
        uint64_t refcount;

        ret = qcow2_refcount_get(w, run->first + run->count, &refcount);
        if (ret < 0 || (run->count > 0 && run->last != (refcount == 1))) {
            break;
        }
        run->last = refcount == 1;
    }
    if (ret < 0 || !run->last) {
        return ret;
    }
    if ((w->bytes_at >> bits) - run->first < run->count) {
        w->bytes_at = 0;
    }
    return qcow2_overlap_check(w, run->first << bits, run->count << bits, 0);
}

static int coroutine_fn GRAPH_RDLOCK release_run(Qcow2Writer *w, const Run *run, bool discard)
{
    uint64_t offset = run->first << w->s->geo.cluster_bits;
    uint64_t bytes = run->count << w->s->geo.cluster_bits;
    int ret;

    if (discard && run->last) {
        /* Before the refcounts say that it is free: nobody can get it meanwhile. */
        bdrv_co_pdiscard(w->s->file, offset, bytes); /* a hint */
    }
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_CLUSTER_FREE);
    co_mutex_lock(&w->lock);
    ret = qcow2_refcount_add(w, offset, bytes, -1);
    co_mutex_unlock(&w->lock);
    return ret;
}

int coroutine_fn qcow2_co_release(BlockDriverState *bs, const BdrvPlace *place)
{
    Qcow2State *s = bdrv_state(bs);
    uint64_t end = qcow2_clusters(&s->geo, place->offset + place->bytes);
    Run run = { .first = (uint64_t)place->offset >> s->geo.cluster_bits };
    int ret = 0;

    bdrv_graph_assert_readable();
    g_assert(place->cookie < QCOW2_DISCARD__MAX);
    for (; run.first < end && ret == 0; run.first += run.count) {
        co_mutex_lock(&s->writer->lock);
        ret = find_run(s->writer, end - run.first, &run);
        co_mutex_unlock(&s->writer->lock);
        if (ret == 0) {
            ret = release_run(s->writer, &run, s->options.pass_discard[place->cookie]);
        }
    }
    return ret;
}
