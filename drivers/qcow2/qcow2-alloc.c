/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: giving out clusters: the first that fit, from a hint on, in what the
 * refcount blocks describe; more is described when they are full.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

/* What a search has come to. */
typedef struct Search {
    uint64_t wanted;
    uint64_t run;   /* free clusters in a row, up to @at */
    uint64_t at;    /* the next cluster to look at */
    bool skipped;   /* runs that were too short */
} Search;

static void end_run(Search *search)
{
    search->skipped |= search->run > 0;
    search->run = 0;
}

/* Go on through the rest of one block; true if enough was found. */
static bool search_block(const Qcow2Writer *w, const Qcow2RefBlock *block, Search *search)
{
    unsigned bits = qcow2_refcount_block_bits(&w->s->geo);
    uint64_t mask = (1ULL << bits) - 1;

    do {
        uint64_t refcount =
            qcow2_refcount_at(block->data, w->s->geo.refcount_order, search->at & mask);

        /* Cluster 0 is the header, whatever its refcount says. */
        if (refcount == 0 && search->at != 0) {
            search->run++;
        } else {
            end_run(search);
        }
        search->at++;
    } while (search->run < search->wanted && (search->at & mask) != 0);
    return search->run == search->wanted;
}

/* Look in all that is described. 1: found, it ends at search->at; 0: not; -errno. */
static int coroutine_fn GRAPH_RDLOCK search_blocks(Qcow2Writer *w, Search *search)
    TSA_REQUIRES(w->lock)
{
    unsigned bits = qcow2_refcount_block_bits(&w->s->geo);

    while (search->at >> bits < w->blocks_end) {
        Qcow2RefBlock *block;
        int ret = qcow2_refblock_get(w, search->at >> bits, &block);

        if (ret < 0) {
            return ret;
        }
        if (!block) { /* a hole in the table: not used */
            end_run(search);
            search->at = ((search->at >> bits) + 1) << bits;
        } else if (search_block(w, block, search)) {
            return 1;
        }
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK find_free(Qcow2Writer *w, uint64_t n, uint64_t *first)
    TSA_REQUIRES(w->lock)
{
    uint64_t end = w->blocks_end << qcow2_refcount_block_bits(&w->s->geo);
    Search search = { .wanted = n, .at = MIN(w->hint, end) };
    int ret;

    if (w->blocks_end == 0 || w->reftable[0] == 0) {
        return qcow2_signal_corruption(w, "Refcount table has no block for the header");
    }
    ret = search_blocks(w, &search);
    if (ret > 0 && search.skipped) {
        w->longest = MAX(w->longest, n - 1);
    } else if (ret == 0 && w->hint > 0 && n <= w->longest) {
        /* Before the image grows: what was too short once may have become longer. */
        search = (Search){ .wanted = n };
        ret = search_blocks(w, &search);
        w->longest = ret == 0 ? n - 1 : w->longest;
    }
    if (ret < 0) {
        return ret;
    }
    if (ret == 0) {
        return qcow2_alloc_grow(w, n, search.run, first);
    }
    *first = search.at - n;
    return 0;
}

int coroutine_fn qcow2_reach(Qcow2Writer *w, BdrvChild *child, uint64_t end)
{
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    if (end <= (uint64_t)MAX(bdrv_getlength(bdrv_child_bs(child)), 0)) {
        return 0;
    }
    ret = bdrv_co_truncate(child, end, false, BLOCK_PREALLOC_OFF, NULL);
    /* Devices, and parts of files, have their length: they are full. */
    return ret == -EINVAL || ret == -ENOTSUP ? -ENOSPC : ret;
}

/* The first that fit from the hint on. */
static int coroutine_fn GRAPH_RDLOCK alloc_from_hint(Qcow2Writer *w, uint64_t n, uint64_t *offset)
    TSA_REQUIRES(w->lock)
{
    unsigned bits = w->s->geo.cluster_bits;
    uint64_t first;
    int ret = find_free(w, n, &first);

    if (ret < 0) {
        return ret;
    }
    if (first + n > (uint64_t)BDRV_MAX_LENGTH >> bits || (first + n) << bits >> 56) {
        return -EFBIG;
    }
    ret = qcow2_overlap_check(w, first << bits, n << bits, 0);
    if (ret >= 0) {
        ret = qcow2_reach(w, w->s->file, (first + n) << bits);
    }
    if (ret >= 0) {
        ret = qcow2_refcount_add(w, first << bits, n << bits, 1);
    }
    if (ret < 0) {
        return ret;
    }
    w->hint = first + n;
    w->virgin = MAX(w->virgin, (first + n) << bits);
    *offset = first << bits;
    return 0;
}

int coroutine_fn qcow2_alloc_locked(Qcow2Writer *w, uint64_t n, uint64_t *offset)
{
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_CLUSTER_ALLOC);
    ret = alloc_from_hint(w, n, offset);
    if (ret == -ENOSPC && w->hint > 0) {
        w->hint = 0; /* what was too short for others is what is left */
        ret = alloc_from_hint(w, n, offset);
    }
    return ret;
}

/* Whether one more may share the cluster where the last compressed one ended. */
static int coroutine_fn GRAPH_RDLOCK may_share(Qcow2Writer *w, bool *may) TSA_REQUIRES(w->lock)
{
    uint64_t max = UINT64_MAX >> (64 - (1U << w->s->geo.refcount_order)), refcount;
    int ret = 0;

    *may = qcow2_offset_into_cluster(&w->s->geo, w->bytes_at) != 0;
    if (*may) {
        ret = qcow2_refcount_get(w, w->bytes_at >> w->s->geo.cluster_bits, &refcount);
        *may = ret == 0 && refcount > 0 && refcount < max;
    }
    return ret;
}

int coroutine_fn qcow2_alloc_bytes(Qcow2Writer *w, uint64_t bytes, uint64_t *offset)
{
    uint64_t size = qcow2_cluster_size(&w->s->geo), fresh = 0, at = w->bytes_at;
    unsigned bits = w->s->geo.cluster_bits;
    uint64_t room;
    bool share;
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_CLUSTER_ALLOC_BYTES);
    ret = may_share(w, &share);
    if (ret < 0) {
        return ret;
    }
    room = share ? size - qcow2_offset_into_cluster(&w->s->geo, at) : 0;
    if (room < bytes) {
        ret = qcow2_alloc_locked(w, 1, &fresh);
        if (ret < 0) {
            return ret;
        }
        at = share && at + room == fresh ? at : fresh;
    }
    if (at != fresh) { /* begins in the cluster that others use */
        ret = qcow2_refcount_add(w, at, 1, 1);
        if (ret < 0) {
            if (fresh) {
                qcow2_refcount_add(w, fresh, 1, -1);
            }
            return ret;
        }
    }
    if ((at + bytes - 1) >> (62 - (bits - 8))) { /* an entry has no room for that */
        qcow2_refcount_add(w, at, bytes, -1);
        return -EFBIG;
    }
    w->bytes_at = at + bytes;
    *offset = at;
    return 0;
}

/* ---- For others ------------------------------------------------------------------------ */

int coroutine_fn qcow2_alloc_clusters(Qcow2State *s, uint64_t n, uint64_t *offset)
{
    Qcow2Writer *w = s->writer;
    int ret;

    bdrv_graph_assert_readable();
    co_mutex_lock(&w->lock);
    ret = qcow2_writer_begin(w);
    if (ret == 0) {
        ret = qcow2_alloc_locked(w, n, offset);
    }
    co_mutex_unlock(&w->lock);
    return ret;
}

void coroutine_fn qcow2_free_clusters(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    bdrv_graph_assert_readable();
    bdrv_co_debug_event(s->file, BDRV_DEBUG_CLUSTER_FREE);
    qcow2_update_refcount(s, offset, bytes, -1);
}

int coroutine_fn qcow2_update_refcount(Qcow2State *s, uint64_t offset, uint64_t bytes, int delta)
{
    Qcow2Writer *w = s->writer;
    int ret;

    bdrv_graph_assert_readable();
    co_mutex_lock(&w->lock);
    ret = qcow2_writer_begin(w);
    if (ret == 0) {
        ret = qcow2_refcount_add(w, offset, bytes, delta);
    }
    co_mutex_unlock(&w->lock);
    return ret;
}
