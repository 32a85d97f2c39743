/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: describing more clusters: new refcount blocks, and a larger refcount
 * table if these do not fit in. They lie behind all that is in use:
 *
 *    in use | new blocks | new table | the clusters asked for
 *
 * and describe themselves. New blocks are linked in when refcounts are written
 * back. A new table is complete on the disk, with all blocks, before the header
 * points to it; the old one is given back after that.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define REFTABLE_IN_HEADER 48

typedef struct Plan {
    uint64_t first;  /* cluster behind all that is in use */
    uint64_t blocks; /* new ones */
    uint64_t table_entries; /* of a new table; 0: the old one is large enough */
    uint64_t table_clusters;
} Plan;

static int make_plan(const Qcow2Writer *w, uint64_t n, Plan *plan)
{
    const Qcow2Geometry *geo = &w->s->geo;
    unsigned bits = qcow2_refcount_block_bits(geo);
    uint64_t limit = (uint64_t)BDRV_MAX_LENGTH >> geo->cluster_bits, end, before, total;

    do {
        before = plan->blocks + plan->table_clusters;
        total = plan->first + before + n;
        if (n > limit || total > limit) {
            return -EFBIG;
        }
        end = ((total - 1) >> bits) + 1;
        plan->blocks = end - w->blocks_end;
        if (end > w->reftable_entries) {
            /* Half as many again, so that it does not happen often. */
            uint64_t entries = MAX(end, w->reftable_entries + w->reftable_entries / 2);

            plan->table_clusters = qcow2_clusters(geo, MIN(entries * 8, QCOW2_MAX_REFTABLE_BYTES));
            plan->table_entries = (plan->table_clusters << geo->cluster_bits) / 8;
            if (end > plan->table_entries) {
                return -EFBIG;
            }
        }
    } while (plan->blocks + plan->table_clusters != before);
    return 0;
}

int coroutine_fn qcow2_reftable_switch(Qcow2Writer *w, uint64_t offset, uint64_t clusters)
{
    uint64_t be_offset = GUINT64_TO_BE(offset);
    uint32_t be_clusters = GUINT32_TO_BE((uint32_t)clusters);
    uint8_t field[12];
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    memcpy(field, &be_offset, 8);
    memcpy(field + 8, &be_clusters, 4);
    w->reftable_uncertain = true;
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_SWITCH_TABLE);
    ret = qcow2_header_write_field(w, REFTABLE_IN_HEADER, field, sizeof(field));
    w->reftable_uncertain = ret < 0;
    return ret;
}

/* Write blocks and table, and let the header point there. */
static int coroutine_fn GRAPH_RDLOCK switch_table(Qcow2Writer *w, uint64_t offset,
                                                  uint64_t clusters) TSA_REQUIRES(w->lock)
{
    Qcow2Header *h = &w->s->header;
    uint64_t bytes = clusters << w->s->geo.cluster_bits;
    g_autofree uint64_t *words = g_memdup2(w->reftable, bytes);
    int ret = 0;

    qcow2_words_to_host(words, bytes / 8);
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_BLOCKS);
    for (GList *link = w->order.head; link && ret >= 0; link = link->next) {
        Qcow2RefBlock *block = link->data;

        if (block->dirty) {
            ret = bdrv_co_pwrite(w->s->file, block->offset, qcow2_cluster_size(&w->s->geo),
                                 block->data, 0);
        }
    }
    if (ret >= 0) {
        bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_TABLE);
        ret = bdrv_co_pwrite(w->s->file, offset, bytes, words, 0);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bdrv_child_bs(w->s->file));
    }
    if (ret >= 0) {
        ret = qcow2_reftable_switch(w, offset, clusters);
    }
    if (ret < 0) {
        return ret;
    }
    h->refcount_table_offset = offset;
    h->refcount_table_clusters = clusters;
    for (GList *link = w->order.head; link; link = link->next) {
        ((Qcow2RefBlock *)link->data)->linked = true;
    }
    return 0;
}

/* Put a larger table at @offset in force. */
static int coroutine_fn GRAPH_RDLOCK grow_table(Qcow2Writer *w, const Plan *plan, uint64_t offset)
    TSA_REQUIRES(w->lock)
{
    const Qcow2Header *h = &w->s->header;
    uint64_t old_offset = h->refcount_table_offset;
    uint64_t old_bytes = (uint64_t)h->refcount_table_clusters << w->s->geo.cluster_bits;
    int ret;

    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFTABLE_GROW);
    ret = switch_table(w, offset, plan->table_clusters);
    if (ret == 0) {
        /* A leak, if that fails. */
        qcow2_refcount_add(w, old_offset, old_bytes, -1);
    }
    return ret;
}

static void resize_reftable(Qcow2Writer *w, uint64_t entries)
{
    w->reftable = g_renew(uint64_t, w->reftable, entries);
    if (entries > w->reftable_entries) {
        memset(w->reftable + w->reftable_entries, 0, (entries - w->reftable_entries) * 8);
    }
    w->reftable_entries = entries;
}

int coroutine_fn qcow2_alloc_grow(Qcow2Writer *w, uint64_t n, uint64_t tail, uint64_t *first)
{
    unsigned cluster_bits = w->s->geo.cluster_bits;
    uint64_t old_end = w->blocks_end, old_entries = w->reftable_entries, own;
    Plan plan = { .first = (w->blocks_end << qcow2_refcount_block_bits(&w->s->geo)) - tail };
    Qcow2RefBlock *last;
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    ret = make_plan(w, n, &plan);
    if (ret == 0 && w->reftable_uncertain) {
        ret = qcow2_reftable_switch(w, w->s->header.refcount_table_offset,
                                    w->s->header.refcount_table_clusters);
    }
    if (ret == 0) { /* in memory, so that nothing below fails halfway */
        ret = qcow2_refblock_get(w, old_end - 1, &last);
    }
    if (ret < 0) {
        return ret;
    }
    own = (plan.blocks + plan.table_clusters) << cluster_bits;
    ret = qcow2_overlap_check(w, plan.first << cluster_bits, own, 0);
    if (ret < 0) {
        return ret;
    }
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFBLOCK_ALLOC);
    if (plan.table_entries) {
        resize_reftable(w, plan.table_entries);
    }
    for (uint64_t i = 0; i < plan.blocks; i++) {
        qcow2_refblock_add(w, old_end + i, (plan.first + i) << cluster_bits);
    }
    w->blocks_end = old_end + plan.blocks;
    w->virgin = MAX(w->virgin, (plan.first << cluster_bits) + own);
    ret = qcow2_refcount_add(w, plan.first << cluster_bits, own, 1);
    if (ret == 0) {
        ret = qcow2_reach(w, w->s->file, (plan.first << cluster_bits) + own);
    }
    if (ret >= 0 && plan.table_entries) {
        ret = grow_table(w, &plan, (plan.first + plan.blocks) << cluster_bits);
    }
    if (ret < 0) {
        /* What the header may point to is not to be given out: it leaks. */
        if (!w->reftable_uncertain) {
            qcow2_refcount_add(w, plan.first << cluster_bits, own, -1);
        }
        for (uint64_t i = 0; i < plan.blocks; i++) {
            qcow2_refblock_remove(w, old_end + i);
        }
        w->blocks_end = old_end;
        resize_reftable(w, old_entries);
        return ret;
    }
    *first = plan.first + plan.blocks + plan.table_clusters;
    return 0;
}
