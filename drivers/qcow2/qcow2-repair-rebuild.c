/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 check -r: all refcounts anew, from what was counted.
 *
 * Refcount blocks, then the table, are written behind the end of the file and
 * flushed before the header points to them. The old ones are not counted in
 * the new, and not written to: until the header has changed, they are in force.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-check.h"

#define REFTABLE_IN_HEADER_AT 48

/* Where the new refcounts will lie: blocks, and right behind them the table. */
typedef struct Plan {
    uint64_t first;         /* cluster */
    GArray *blocks;         /* of uint64_t: their indices, ascending */
    uint64_t entries;       /* of the table */
    uint64_t table_clusters;
} Plan;

/* The blocks that have a refcount above 0. */
static GArray *blocks_in_use(Qcow2Check *c, uint64_t end)
{
    GArray *blocks = g_array_new(false, false, sizeof(uint64_t));
    unsigned bits = qcow2_refcount_block_bits(&c->s->geo);
    uint64_t cluster = qcow2_refmap_next(c->references, 0, end);

    while (cluster < end) {
        uint64_t next = cluster + 1;

        if (qcow2_refmap_get(c->references, cluster) > 0) {
            uint64_t index = cluster >> bits;

            g_array_append_val(blocks, index);
            next = (index + 1) << bits;
        }
        cluster = qcow2_refmap_next(c->references, next, end);
    }
    return blocks;
}

/* Add blocks for the structure itself, until they describe themselves, too. */
static int size_plan(Qcow2Check *c, Plan *plan)
{
    const Qcow2Geometry *geo = &c->s->geo;
    unsigned bits = qcow2_refcount_block_bits(geo);
    uint64_t last = plan->first >> bits, before;

    plan->table_clusters = 1;
    do {
        before = plan->blocks->len + plan->table_clusters;
        last = (plan->first + before - 1) >> bits;
        plan->entries = last + 1;
        if (plan->entries > QCOW2_MAX_REFTABLE_BYTES / 8) {
            qcow2_check_report(c, "ERROR: '%s': a refcount table of %" G_GUINT64_FORMAT
                               " entries would be larger than %d bytes",
                               c->s->name, plan->entries, QCOW2_MAX_REFTABLE_BYTES);
            c->result->check_errors++;
            return -EFBIG;
        }
        for (uint64_t i = plan->first >> bits; i <= last; i++) {
            guint len = plan->blocks->len;

            if (len == 0 || g_array_index(plan->blocks, uint64_t, len - 1) < i) {
                g_array_append_val(plan->blocks, i);
            }
        }
        plan->table_clusters = qcow2_clusters(geo, plan->entries * 8);
    } while (plan->blocks->len + plan->table_clusters != before);
    return 0;
}

static gint by_first(gconstpointer a, gconstpointer b)
{
    const Qcow2CheckRange *x = a, *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

static void adopt(Qcow2Check *c, const Qcow2CheckRange *stray)
{
    for (uint64_t cluster = stray->first; cluster <= stray->last; cluster++) {
        qcow2_refmap_add(c->references, cluster);
    }
    c->adopted++;
}

uint64_t qcow2_repair_behind_end(Qcow2Check *c, uint64_t count)
{
    uint64_t first = qcow2_check_end(c);

    g_array_sort(c->strays, by_first);
    for (guint i = 0; i < c->strays->len; i++) {
        const Qcow2CheckRange *stray = &g_array_index(c->strays, Qcow2CheckRange, i);

        /* One right behind the new end counts as within the file, if it is short. */
        if (stray->first > first + count) {
            break;
        }
        first = MAX(first, stray->last + 1);
        if (i == c->adopted) {
            adopt(c, stray);
        }
    }
    return first;
}

static int make_plan(Qcow2Check *c, Plan *plan)
{
    uint64_t count = 0;
    int ret;

    /* The further behind, the more blocks it may take. */
    do {
        g_clear_pointer(&plan->blocks, g_array_unref);
        plan->first = qcow2_repair_behind_end(c, count);
        plan->blocks = blocks_in_use(c, plan->first);
        ret = size_plan(c, plan);
        count = MAX(count, plan->blocks->len + plan->table_clusters);
    } while (ret == 0 && plan->first != qcow2_repair_behind_end(c, count));
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_block(Qcow2Check *c, const Plan *plan, guint number,
                                                 uint8_t *block)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t index = g_array_index(plan->blocks, uint64_t, number);
    unsigned bits = qcow2_refcount_block_bits(geo);

    for (uint64_t i = 0; i < 1ULL << bits; i++) {
        uint64_t cluster = (index << bits) + i;
        bool held = cluster >= c->held_first && cluster < c->held_end;

        qcow2_refcount_set(block, geo->refcount_order, i,
                           MAX(qcow2_check_wanted(c, cluster), held));
    }
    bdrv_co_debug_event(c->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_BLOCKS);
    return qcow2_repair_write(c, (plan->first + number) << geo->cluster_bits,
                              qcow2_cluster_size(geo), block, "refcount block");
}

/* Write the blocks, and fill the table in host order. */
static int coroutine_fn GRAPH_RDLOCK write_blocks(Qcow2Check *c, const Plan *plan, uint64_t *table)
{
    const Qcow2Geometry *geo = &c->s->geo;
    g_autofree uint8_t *block = g_malloc0(qcow2_cluster_size(geo));
    int ret = 0;

    for (uint64_t i = 0; i < plan->blocks->len + plan->table_clusters; i++) {
        qcow2_refmap_add(c->references, plan->first + i);
    }
    for (guint i = 0; i < plan->blocks->len && ret == 0; i++) {
        ret = write_block(c, plan, i, block);
        table[g_array_index(plan->blocks, uint64_t, i)] = (plan->first + i) << geo->cluster_bits;
    }
    return ret;
}

/* Put the new refcounts in force. */
static int coroutine_fn GRAPH_RDLOCK switch_header(Qcow2Check *c, uint64_t offset,
                                                   uint32_t clusters)
{
    uint32_t field[3] = { GUINT32_TO_BE(offset >> 32), GUINT32_TO_BE(offset),
                          GUINT32_TO_BE(clusters) };
    int ret = qcow2_repair_flush(c);

    if (ret == 0) {
        bdrv_co_debug_event(c->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_SWITCH_TABLE);
        ret = qcow2_repair_write(c, REFTABLE_IN_HEADER_AT, sizeof(field), field, "header");
    }
    return ret < 0 ? ret : qcow2_repair_flush(c);
}

static int coroutine_fn GRAPH_RDLOCK write_plan(Qcow2Check *c, const Plan *plan)
{
    Qcow2Header *h = &c->s->header;
    unsigned bits = c->s->geo.cluster_bits;
    uint64_t bytes = plan->table_clusters << bits;
    uint64_t offset = (plan->first + plan->blocks->len) << bits;
    g_autofree uint64_t *table = g_malloc0(bytes);
    int ret = qcow2_repair_grow(c, offset + bytes);

    if (ret == 0) {
        ret = write_blocks(c, plan, table);
    }
    if (ret == 0) {
        qcow2_words_to_host(table, bytes / 8); /* the other way round is the same */
        bdrv_co_debug_event(c->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_TABLE);
        ret = qcow2_repair_write(c, offset, bytes, table, "refcount table");
    }
    if (ret == 0) {
        ret = switch_header(c, offset, plan->table_clusters);
    }
    if (ret < 0) {
        return ret;
    }
    h->refcount_table_offset = offset;
    h->refcount_table_clusters = plan->table_clusters;
    qcow2_words_to_host(table, bytes / 8);
    g_free(c->reftable);
    c->reftable = g_steal_pointer(&table);
    c->reftable_entries = bytes / 8;
    c->file_length = offset + bytes;
    qcow2_check_drop_blocks(c);
    g_clear_pointer(&c->fixed, qcow2_refmap_free);
    return 0;
}

int coroutine_fn qcow2_repair_rebuild(Qcow2Check *c)
{
    BdrvCheckResult *r = c->result;
    Plan plan = { 0 };
    int ret;

    qcow2_check_report(c, "Rebuilding refcount structure");
    qcow2_check_forget_refcount_blocks(c);
    ret = make_plan(c, &plan);
    if (ret == 0) {
        ret = write_plan(c, &plan);
    }
    if (ret == 0) {
        r->corruptions_fixed += r->corruptions - c->other_corruptions;
        r->corruptions = c->other_corruptions;
        r->check_errors = c->other_errors;
        r->leaks_fixed += r->leaks;
        r->leaks = 0;
    }
    g_clear_pointer(&plan.blocks, g_array_unref);
    return ret;
}
