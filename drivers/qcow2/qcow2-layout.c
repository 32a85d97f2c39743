/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: which cluster of a new image holds what; see qcow2-layout.h. */
#include "drivers/qcow2/qcow2-layout.h"

#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2.h"

#define HEADER_CLUSTERS 1

/* ---- Free clusters ------------------------------------------------------------------- */

static Qcow2Gap *gap_at(const Qcow2Layout *l, guint i)
{
    return &g_array_index(l->gaps, Qcow2Gap, i);
}

/* The first of @count free clusters at or behind @next, which moves behind them. */
static uint64_t find_free(Qcow2Layout *l, uint64_t count)
{
    uint64_t first = MAX(l->end, l->next);

    for (guint i = 0; i < l->gaps->len; i++) {
        const Qcow2Gap *gap = gap_at(l, i);
        uint64_t start = MAX(gap->first, l->next);

        if (start < gap->end && gap->end - start >= count) {
            first = start;
            break;
        }
    }
    l->next = first + count;
    return first;
}

static void take_from_gap(Qcow2Layout *l, guint i, uint64_t first, uint64_t end)
{
    Qcow2Gap *gap = gap_at(l, i);
    Qcow2Gap behind = { end, gap->end };

    g_assert(gap->first <= first && end <= gap->end);
    gap->end = first;
    if (behind.first < behind.end) {
        g_array_insert_val(l->gaps, i + 1, behind);
    }
    gap = gap_at(l, i);
    if (gap->first == gap->end) {
        g_array_remove_index(l->gaps, i);
    }
}

/* @count free clusters from @first on are in use from now on. */
static void take(Qcow2Layout *l, uint64_t first, uint64_t count)
{
    guint i = 0;

    if (first >= l->end) {
        Qcow2Gap gap = { l->end, first };

        if (gap.first < gap.end) {
            g_array_append_val(l->gaps, gap);
        }
        l->end = first + count;
        return;
    }
    while (gap_at(l, i)->end <= first) {
        i++;
    }
    take_from_gap(l, i, first, first + count);
}

/* Give back clusters that lie between others in use. */
static void give_back(Qcow2Layout *l, uint64_t first, uint64_t count)
{
    Qcow2Gap gap = { first, first + count };
    guint i = 0;

    while (i < l->gaps->len && gap_at(l, i)->first < first) {
        i++;
    }
    g_array_insert_val(l->gaps, i, gap);
    l->next = MIN(l->next, first);
}

/* ---- Refcount blocks and their table ------------------------------------------------------ */

static uint64_t entries_per_cluster(const Qcow2Layout *l)
{
    return (1ULL << l->cluster_bits) / sizeof(uint64_t);
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static bool has_block(const Qcow2Layout *l, uint64_t chunk)
{
    return chunk < l->entries && l->blocks[chunk] != 0;
}

/* How many blocks @clusters clusters need, with those of blocks and table. */
static uint64_t blocks_needed(const Qcow2Layout *l, uint64_t clusters)
{
    uint64_t blocks = 0, tables = 0, before;

    do {
        before = blocks + tables;
        blocks = divide_up(clusters + before, 1ULL << l->block_bits);
        tables = divide_up(blocks, entries_per_cluster(l));
    } while (blocks + tables != before);
    return blocks;
}

/*
 * A new table of @entries entries, and blocks from chunk @start's up to @blocks
 * where there is none yet, all from cluster @start on.
 */
static int move_table(Qcow2Layout *l, uint64_t start, uint64_t blocks, uint64_t entries)
{
    uint64_t max_clusters = QCOW2_MAX_REFTABLE_BYTES >> l->cluster_bits;
    uint64_t old_table = l->table, old_clusters = l->table_clusters;
    uint64_t at = start;

    l->table_clusters = MIN(divide_up(entries, entries_per_cluster(l)), max_clusters);
    if (blocks > l->table_clusters * entries_per_cluster(l)) {
        l->table_clusters = old_clusters;
        return -EFBIG;
    }
    entries = l->table_clusters * entries_per_cluster(l);
    if (entries > l->entries) {
        l->blocks = g_renew(uint64_t, l->blocks, entries);
        memset(l->blocks + l->entries, 0, (entries - l->entries) * sizeof(uint64_t));
        l->entries = entries;
    }
    for (uint64_t i = start >> l->block_bits; i < blocks; i++) {
        if (!l->blocks[i]) {
            l->blocks[i] = at++;
        }
    }
    l->table = at;
    take(l, start, at + l->table_clusters - start);
    give_back(l, old_table, old_clusters);
    return 0;
}

/*
 * The block for @chunk lies at cluster @block, but the table has no entry for it.
 * Behind that chunk all is free, since nothing there is described yet.
 */
static int grow_table(Qcow2Layout *l, uint64_t chunk, uint64_t block)
{
    uint64_t start = (chunk + 1) << l->block_bits;
    uint64_t blocks = blocks_needed(l, start);
    uint64_t slack = divide_up(divide_up(blocks, entries_per_cluster(l)), 2);
    int ret;

    /* Room to grow by a half, so that this does not happen often. */
    blocks = blocks_needed(l, start + slack);
    ret = move_table(l, start, blocks, blocks + divide_up(blocks, 2));
    if (ret == 0) {
        l->blocks[chunk] = block;
    }
    return ret;
}

/* Make the block for @chunk, or at least one that is needed for that. */
static int add_block(Qcow2Layout *l, uint64_t chunk)
{
    uint64_t block = find_free(l, 1);
    uint64_t at = block >> l->block_bits;

    /* The block describes itself, or it is described elsewhere. */
    if (at != chunk && !has_block(l, at)) {
        return add_block(l, at);
    }
    take(l, block, 1);
    if (chunk >= l->entries) {
        return grow_table(l, chunk, block);
    }
    l->blocks[chunk] = block;
    return 0;
}

int qcow2_layout_alloc(Qcow2Layout *l, uint64_t count, uint64_t *first)
{
    for (;;) {
        uint64_t start = find_free(l, count);
        uint64_t last = (start + count - 1) >> l->block_bits;
        uint64_t chunk = start >> l->block_bits;
        int ret;

        while (chunk <= last && has_block(l, chunk)) {
            chunk++;
        }
        if (chunk > last) {
            take(l, start, count);
            *first = start;
            return 0;
        }
        ret = add_block(l, chunk);
        if (ret < 0) {
            return ret;
        }
        /* Search anew from there: the block may be where the clusters were. */
        l->next = MIN(l->next, start);
    }
}

int qcow2_layout_reserve(Qcow2Layout *l, uint64_t count)
{
    uint64_t blocks = blocks_needed(l, l->end + count);

    return move_table(l, l->end, blocks, blocks);
}

uint64_t qcow2_layout_take_end(Qcow2Layout *l, uint64_t count)
{
    uint64_t first = l->end;

    take(l, first, count);
    return first;
}

/* Set the refcounts of clusters @first to @end, as far as they are in @chunk, to 0. */
static void clear_range(const Qcow2Layout *l, uint8_t *block, uint64_t chunk, uint64_t first,
                        uint64_t end)
{
    uint64_t chunk_first = chunk << l->block_bits;
    uint64_t chunk_end = chunk_first + (1ULL << l->block_bits);
    unsigned order = l->cluster_bits + 3 - l->block_bits;

    for (uint64_t c = MAX(first, chunk_first); c < MIN(end, chunk_end); c++) {
        qcow2_refcount_set(block, order, c - chunk_first, 0);
    }
}

void qcow2_layout_fill_block(const Qcow2Layout *l, uint64_t chunk, uint8_t *block)
{
    unsigned order = l->cluster_bits + 3 - l->block_bits;
    size_t bytes = (size_t)1 << l->cluster_bits;
    size_t done = sizeof(uint64_t);

    for (unsigned i = 0; i < 64U >> order; i++) {
        qcow2_refcount_set(block, order, i, 1);
    }
    for (; done < bytes; done *= 2) {
        memcpy(block + done, block, done);
    }
    clear_range(l, block, chunk, l->end, UINT64_MAX);
    for (guint i = 0; i < l->gaps->len; i++) {
        clear_range(l, block, chunk, gap_at(l, i)->first, gap_at(l, i)->end);
    }
}

/* ---- Life ------------------------------------------------------------------------------------ */

void qcow2_layout_init(Qcow2Layout *l, unsigned cluster_bits, unsigned refcount_order)
{
    *l = (Qcow2Layout){
        .cluster_bits = cluster_bits,
        .block_bits = cluster_bits + 3 - refcount_order,
        .table = HEADER_CLUSTERS,
        .table_clusters = 1,
        .gaps = g_array_new(FALSE, FALSE, sizeof(Qcow2Gap)),
    };
    l->entries = entries_per_cluster(l);
    l->blocks = g_new0(uint64_t, l->entries);
    l->blocks[0] = l->table + l->table_clusters;
    l->end = l->blocks[0] + 1;
    l->next = l->end;
}

void qcow2_layout_clear(Qcow2Layout *l)
{
    g_clear_pointer(&l->blocks, g_free);
    g_clear_pointer(&l->gaps, g_array_unref);
}
