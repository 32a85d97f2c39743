/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: giving up the end of the file that nothing uses any more. Refcount blocks
 * which describe nothing but themselves do not count as use: they go first.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-alloc.h"

/* What the refcount blocks say about the end of the file. */
typedef struct End {
    uint64_t blocks;  /* behind the last one that is needed */
    uint64_t cluster; /* behind the last one that is in use, but for blocks to go */
} End;

/* Behind the last cluster that block @index counts, its own left out; 0: none. */
static uint64_t last_counted(const Qcow2Writer *w, const Qcow2RefBlock *block)
{
    const Qcow2Geometry *geo = &w->s->geo;
    unsigned bits = qcow2_refcount_block_bits(geo);
    uint64_t first = block->index << bits, own = block->offset >> geo->cluster_bits;

    for (uint64_t i = 1ULL << bits; i > 0; i--) {
        if (first + i - 1 != own &&
            qcow2_refcount_at(block->data, geo->refcount_order, i - 1) != 0) {
            return first + i;
        }
    }
    return 0;
}

/*
 * Find the end. A block goes only if all behind it go, and if no block that stays
 * lies in what it describes.
 */
static int coroutine_fn GRAPH_RDLOCK find_end(Qcow2Writer *w, End *end) TSA_REQUIRES(w->lock)
{
    unsigned cluster_bits = w->s->geo.cluster_bits;
    unsigned bits = qcow2_refcount_block_bits(&w->s->geo);

    *end = (End){ .blocks = w->blocks_end };
    while (end->blocks > 1) {
        Qcow2RefBlock *block;
        int ret = qcow2_refblock_get(w, end->blocks - 1, &block);

        if (ret < 0) {
            return ret;
        }
        if (block && last_counted(w, block) != 0) {
            break;
        }
        end->blocks--;
    }
    for (uint64_t i = 0; i < end->blocks; i++) {
        end->cluster = MAX(end->cluster, ((w->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK) >>
                                          cluster_bits) + 1);
    }
    for (uint64_t i = end->blocks; i > 0; i--) {
        Qcow2RefBlock *block;
        int ret = qcow2_refblock_get(w, i - 1, &block);
        uint64_t last = ret == 0 && block ? last_counted(w, block) : 0;

        if (ret < 0) {
            return ret;
        }
        if (last != 0) {
            end->cluster = MAX(end->cluster, last);
            break;
        }
    }
    /* What stays has to be described. */
    end->blocks = MAX(end->blocks, ((end->cluster - 1) >> bits) + 1);
    return end->blocks > w->blocks_end ? -EIO : 0;
}

/*
 * Take the entries from @first on out of the table, on the disk. What fails may be there
 * all the same: before any refcount is written back, the table is, as it was.
 */
static int coroutine_fn GRAPH_RDLOCK unlink_blocks(Qcow2Writer *w, uint64_t first)
    TSA_REQUIRES(w->lock)
{
    uint64_t end = w->blocks_end, bytes = (end - first) * 8;
    g_autofree uint64_t *old = g_memdup2(w->reftable + first, bytes);
    int ret;

    memset(w->reftable + first, 0, bytes);
    ret = qcow2_reftable_write(w, first, end);
    if (ret >= 0) {
        ret = bdrv_co_flush(bdrv_child_bs(w->s->file));
    }
    memcpy(w->reftable + first, old, bytes);
    if (ret < 0) {
        w->unsure_first = first;
        w->unsure_end = end;
    }
    return ret;
}

/* Drop the blocks from @first on: out of the table on the disk, then out of use. */
static int coroutine_fn GRAPH_RDLOCK drop_blocks(Qcow2Writer *w, uint64_t first)
    TSA_REQUIRES(w->lock)
{
    const Qcow2Geometry *geo = &w->s->geo;
    uint64_t end = w->blocks_end, described = first << qcow2_refcount_block_bits(geo);
    int ret = unlink_blocks(w, first);

    if (ret < 0) {
        return ret;
    }
    w->blocks_end = first;
    for (uint64_t i = first; i < end; i++) {
        uint64_t offset = w->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK;

        if (g_hash_table_lookup(w->blocks, &i)) {
            qcow2_refblock_remove(w, i);
        }
        w->reftable[i] = 0;
        if (offset != 0 && offset >> geo->cluster_bits < described) {
            qcow2_refcount_add(w, offset, 1, -1);
        }
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK cut_locked(Qcow2Writer *w) TSA_REQUIRES(w->lock)
{
    End end;
    int ret = w->reftable_uncertain || w->l1_uncertain ? -EAGAIN : find_end(w, &end);

    while (ret == 0 && end.blocks < w->blocks_end) {
        ret = drop_blocks(w, end.blocks);
        if (ret == 0) {
            ret = find_end(w, &end); /* some lay before it: others may describe nothing now */
        }
    }
    if (ret == 0 && end.cluster << w->s->geo.cluster_bits < qcow2_file_length(w->s)) {
        ret = bdrv_co_truncate(w->s->file, end.cluster << w->s->geo.cluster_bits, false,
                               BLOCK_PREALLOC_OFF, NULL);
        if (ret >= 0) { /* up to where it ends now: a device is as long as before */
            uint64_t clusters = qcow2_clusters(&w->s->geo, qcow2_file_length(w->s));

            w->virgin = MIN(w->virgin, clusters << w->s->geo.cluster_bits);
        }
    }
    return MIN(ret, 0);
}

int coroutine_fn qcow2_cut_file(Qcow2State *s)
{
    Qcow2Writer *w = s->writer;
    int ret;

    bdrv_graph_assert_readable();
    /* No refcount on the disk is about what the file has no more. */
    ret = qcow2_write_back(w, true);
    if (ret >= 0) {
        ret = bdrv_co_flush(bdrv_child_bs(s->file));
    }
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&w->lock);
    ret = cut_locked(w);
    co_mutex_unlock(&w->lock);
    return ret;
}
