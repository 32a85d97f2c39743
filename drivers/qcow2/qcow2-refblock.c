/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: refcount blocks in memory, and writing them back.
 *
 * A block that is dirty or not linked in stays in memory; of the others the
 * oldest go when there are too many.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define SECTOR_ENTRIES (BDRV_SECTOR_SIZE / 8)

static Qcow2RefBlock *block_new(const Qcow2Writer *w, uint64_t index, uint64_t offset)
{
    Qcow2RefBlock *block = g_malloc0(sizeof(*block) + qcow2_cluster_size(&w->s->geo));

    block->index = index;
    block->offset = offset;
    block->used_at = w->turn;
    block->link = (GList){ .data = block };
    return block;
}

static void insert(Qcow2Writer *w, Qcow2RefBlock *block)
{
    g_hash_table_insert(w->blocks, &block->index, block);
    g_queue_push_tail_link(&w->order, &block->link);
}

static void forget(Qcow2Writer *w, Qcow2RefBlock *block)
{
    g_hash_table_remove(w->blocks, &block->index);
    g_queue_unlink(&w->order, &block->link);
    g_free(block);
}

static void make_room(Qcow2Writer *w)
{
    GList *link = w->order.head;

    while (link && w->order.length >= w->max_blocks) {
        Qcow2RefBlock *block = link->data;

        link = link->next;
        if (!block->dirty && block->linked) {
            forget(w, block);
        }
    }
}

static void mark_dirty(Qcow2Writer *w, Qcow2RefBlock *block)
{
    w->dirty_blocks += !block->dirty;
    block->dirty = true;
}

static int coroutine_fn GRAPH_RDLOCK load(Qcow2Writer *w, uint64_t index, Qcow2RefBlock **result)
{
    const Qcow2Geometry *geo = &w->s->geo;
    uint64_t entry = w->reftable[index], offset = entry & QCOW2_REFTABLE_OFFSET_MASK;
    Qcow2RefBlock *block;
    int ret;

    if ((entry & QCOW2_REFTABLE_RESERVED) || qcow2_offset_into_cluster(geo, offset) ||
        offset >> 56 || offset >= qcow2_file_length(w->s)) {
        return qcow2_signal_corruption(w, "Refblock offset %#" G_GINT64_MODIFIER
                                       "x unaligned or beyond the end (reftable index: %#"
                                       G_GINT64_MODIFIER "x)", offset, index);
    }
    make_room(w);
    block = block_new(w, index, offset);
    block->linked = true;
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFBLOCK_LOAD);
    ret = bdrv_co_pread(w->s->file, offset, qcow2_cluster_size(geo), block->data, 0);
    if (ret < 0) {
        g_free(block);
        return ret;
    }
    insert(w, block);
    *result = block;
    return 0;
}

int coroutine_fn qcow2_refblock_get(Qcow2Writer *w, uint64_t index, Qcow2RefBlock **block)
{
    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    *block = NULL;
    if (index >= w->reftable_entries || w->reftable[index] == 0) {
        return 0;
    }
    *block = g_hash_table_lookup(w->blocks, &index);
    if (!*block) {
        return load(w, index, block);
    }
    (*block)->used_at = w->turn;
    g_queue_unlink(&w->order, &(*block)->link);
    g_queue_push_tail_link(&w->order, &(*block)->link);
    return 0;
}

void coroutine_fn qcow2_refblock_add(Qcow2Writer *w, uint64_t index, uint64_t offset)
{
    Qcow2RefBlock *block = block_new(w, index, offset);

    co_mutex_assert_locked(&w->lock);
    w->reftable[index] = offset;
    insert(w, block);
    mark_dirty(w, block);
}

void coroutine_fn qcow2_refblock_remove(Qcow2Writer *w, uint64_t index)
{
    Qcow2RefBlock *block = g_hash_table_lookup(w->blocks, &index);

    co_mutex_assert_locked(&w->lock);
    w->reftable[index] = 0;
    w->dirty_blocks -= block->dirty;
    forget(w, block);
}

bool coroutine_fn qcow2_refblocks_clean(Qcow2Writer *w)
{
    bool left = false;
    GList *next;

    co_mutex_assert_locked(&w->lock);
    for (GList *link = w->order.head; link; link = next) {
        Qcow2RefBlock *block = link->data;

        next = link->next;
        if (block->used_at == w->turn) {
            left |= !block->dirty && block->linked;
        } else if (!block->dirty && block->linked) {
            forget(w, block);
        }
    }
    w->turn++;
    return left;
}

void qcow2_refblocks_clear(Qcow2Writer *w)
{
    while (w->order.head) {
        forget(w, w->order.head->data);
    }
    w->dirty_blocks = 0;
}

/* ---- Single refcounts --------------------------------------------------------------- */

int coroutine_fn qcow2_refcount_get(Qcow2Writer *w, uint64_t cluster, uint64_t *refcount)
{
    unsigned bits = qcow2_refcount_block_bits(&w->s->geo);
    Qcow2RefBlock *block;
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    ret = qcow2_refblock_get(w, cluster >> bits, &block);
    *refcount = ret == 0 && block
                    ? qcow2_refcount_at(block->data, w->s->geo.refcount_order,
                                        cluster & ((1ULL << bits) - 1))
                    : 0;
    return ret;
}

/* Nobody refers to @cluster any more. */
static void coroutine_fn cluster_is_free(Qcow2Writer *w, uint64_t cluster)
{
    uint64_t start = cluster << w->s->geo.cluster_bits;

    for (uint64_t at = 0; at < qcow2_cluster_size(&w->s->geo); at += w->s->options.l2_slice_bytes) {
        qcow2_cache_drop(w->s->l2_cache, start + at);
    }
    if (w->bytes_at >> w->s->geo.cluster_bits == cluster) {
        w->bytes_at = 0;
    }
    w->hint = MIN(w->hint, cluster);
    w->longest = UINT64_MAX;
}

static int coroutine_fn GRAPH_RDLOCK add_one(Qcow2Writer *w, uint64_t cluster, int delta)
    TSA_REQUIRES(w->lock)
{
    const Qcow2Geometry *geo = &w->s->geo;
    uint64_t max = UINT64_MAX >> (64 - (1U << geo->refcount_order)), refcount;
    unsigned bits = qcow2_refcount_block_bits(geo);
    Qcow2RefBlock *block;
    int ret = qcow2_refblock_get(w, cluster >> bits, &block);

    if (ret < 0) {
        return ret;
    }
    refcount = block ? qcow2_refcount_at(block->data, geo->refcount_order,
                                         cluster & ((1ULL << bits) - 1))
                     : 0;
    if (!block || (delta < 0 && refcount == 0)) {
        return -EINVAL;
    }
    if (delta > 0 && refcount == max) {
        return -ERANGE;
    }
    refcount += delta;
    qcow2_refcount_set(block->data, geo->refcount_order, cluster & ((1ULL << bits) - 1), refcount);
    mark_dirty(w, block);
    if (refcount == 0) {
        cluster_is_free(w, cluster);
    }
    return 0;
}

int coroutine_fn qcow2_refcount_add(Qcow2Writer *w, uint64_t offset, uint64_t bytes, int delta)
{
    unsigned bits = w->s->geo.cluster_bits;
    uint64_t end;
    int ret = 0;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    if (bytes == 0) {
        return 0;
    }
    if (__builtin_add_overflow(offset, bytes, &end)) {
        return -EINVAL;
    }
    for (uint64_t cluster = offset >> bits; cluster <= (end - 1) >> bits && ret == 0; cluster++) {
        ret = add_one(w, cluster, delta);
    }
    return ret;
}

/* ---- Writing back --------------------------------------------------------------------- */

int coroutine_fn qcow2_reftable_write(Qcow2Writer *w, uint64_t index, uint64_t end)
{
    int ret = 0;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    for (uint64_t at = index - index % SECTOR_ENTRIES; at < end && ret >= 0; at += SECTOR_ENTRIES) {
        uint64_t words[SECTOR_ENTRIES] = { 0 };
        uint64_t offset = w->s->header.refcount_table_offset + at * 8;

        for (uint64_t i = 0; i < SECTOR_ENTRIES && at + i < w->reftable_entries; i++) {
            words[i] = GUINT64_TO_BE(w->reftable[at + i]);
        }
        ret = qcow2_overlap_check(w, offset, sizeof(words), QCOW2_OL_REFTABLE);
        if (ret >= 0) {
            bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFTABLE_UPDATE);
            ret = bdrv_co_pwrite(w->s->file, offset, sizeof(words), words, 0);
        }
    }
    return ret;
}

/* The blocks first; the table leads to nothing that is not on the disk. */
static int coroutine_fn GRAPH_RDLOCK link_blocks(Qcow2Writer *w)
    TSA_REQUIRES(w->lock)
{
    int ret = bdrv_co_flush(bdrv_child_bs(w->s->file));

    if (ret >= 0 && w->unsure_end > 0) {
        ret = qcow2_reftable_write(w, w->unsure_first, w->unsure_end);
        w->unsure_end = ret >= 0 ? 0 : w->unsure_end;
    }
    for (GList *link = w->order.head; link && ret >= 0; link = link->next) {
        Qcow2RefBlock *block = link->data;

        if (!block->linked) {
            bdrv_co_debug_event(w->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_HOOKUP);
            ret = qcow2_reftable_write(w, block->index, block->index + 1);
            block->linked = ret >= 0;
        }
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_block(Qcow2Writer *w, Qcow2RefBlock *block)
    TSA_REQUIRES(w->lock)
{
    uint64_t size = qcow2_cluster_size(&w->s->geo);
    int ret = qcow2_overlap_check(w, block->offset, size, QCOW2_OL_REFBLOCK);

    if (ret < 0) {
        return ret;
    }
    bdrv_co_debug_event(w->s->file, block->linked ? BDRV_DEBUG_REFBLOCK_UPDATE_PART
                                                  : BDRV_DEBUG_REFBLOCK_ALLOC_WRITE);
    ret = bdrv_co_pwrite(w->s->file, block->offset, size, block->data, 0);
    if (ret >= 0) {
        w->dirty_blocks -= block->dirty;
        block->dirty = false;
    }
    return ret;
}

int coroutine_fn qcow2_refcounts_write(Qcow2Writer *w)
{
    bool unlinked = w->unsure_end > 0;
    int ret = 0;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    if (w->reftable_uncertain) {
        ret = qcow2_reftable_switch(w, w->s->header.refcount_table_offset,
                                    w->s->header.refcount_table_clusters);
    }
    for (GList *link = w->order.head; link && ret >= 0; link = link->next) {
        Qcow2RefBlock *block = link->data;

        unlinked |= !block->linked;
        if (block->dirty) {
            ret = write_block(w, block);
        }
    }
    if (ret >= 0 && unlinked) {
        ret = link_blocks(w);
    }
    return MIN(ret, 0);
}
