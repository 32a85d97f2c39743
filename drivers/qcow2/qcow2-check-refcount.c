/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 check: references counted, refcounts read, and the two compared. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-check.h"

static uint64_t max_refcount(const Qcow2Check *c)
{
    unsigned bits = 1U << c->s->geo.refcount_order;

    return bits == 64 ? UINT64_MAX : (1ULL << bits) - 1;
}

uint64_t qcow2_check_end(Qcow2Check *c)
{
    uint64_t end = qcow2_clusters(&c->s->geo, c->file_length);

    /* A last table may begin right where the file ends. */
    return end + (qcow2_refmap_get(c->references, end) > 0);
}

uint64_t qcow2_check_wanted(Qcow2Check *c, uint64_t cluster)
{
    return MIN(qcow2_refmap_get(c->references, cluster), max_refcount(c));
}

/* The clusters that a range of @bytes > 0 touches; false if the file does not reach there. */
static bool clusters_of(const Qcow2Check *c, uint64_t offset, uint64_t bytes,
                        Qcow2CheckRange *range)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t end;
    bool overflow = __builtin_add_overflow(offset, bytes, &end);

    range->first = offset >> geo->cluster_bits;
    range->last = (overflow ? UINT64_MAX : end - 1) >> geo->cluster_bits;
    /* The last cluster of a file need not be there in whole. */
    return !overflow && end < c->file_length + qcow2_cluster_size(geo);
}

static void add_reference(Qcow2Check *c, uint64_t cluster)
{
    if (qcow2_refmap_get(c->references, cluster) >= max_refcount(c)) {
        qcow2_check_corrupt(c, "ERROR: overflow cluster offset=0x%" G_GINT64_MODIFIER "x",
                            cluster << c->s->geo.cluster_bits);
        qcow2_check_report(c, "Use qemu-img amend to increase the refcount entry width or "
                              "qemu-img convert to create a clean copy if the image cannot be "
                              "opened for writing");
    }
    qcow2_refmap_add(c->references, cluster);
}

void qcow2_check_reference(Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    Qcow2CheckRange range;

    if (bytes == 0) {
        return;
    }
    if (!clusters_of(c, offset, bytes, &range)) {
        /* A longer one is no table; it is not stepped over. */
        if (c->strays && range.last - range.first <=
                             QCOW2_MAX_SNAPSHOT_TABLE >> c->s->geo.cluster_bits) {
            g_array_append_val(c->strays, range);
        }
        qcow2_check_corrupt(c,
                            "ERROR: counting reference for region exceeding the end of the file by "
                            "one cluster or more: offset 0x%" G_GINT64_MODIFIER
                            "x size 0x%" G_GINT64_MODIFIER "x",
                            offset, bytes);
        return;
    }
    for (uint64_t cluster = range.first; cluster <= range.last; cluster++) {
        add_reference(c, cluster);
    }
}

static int coroutine_fn GRAPH_RDLOCK read_block(Qcow2Check *c, uint64_t index,
                                                Qcow2CheckBlock *block)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t offset = c->reftable[index] & QCOW2_REFTABLE_OFFSET_MASK;
    int ret;

    block->is_zero = offset == 0 || offset >= c->file_length;
    if (qcow2_offset_into_cluster(geo, offset) || offset > INT64_MAX) {
        return -EIO;
    }
    if (block->is_zero) {
        return 0;
    }
    if (!block->data) {
        block->data = g_malloc(qcow2_cluster_size(geo));
    }
    bdrv_co_debug_event(c->s->file, BDRV_DEBUG_REFBLOCK_LOAD);
    ret = bdrv_co_pread(c->s->file, offset, qcow2_cluster_size(geo), block->data, 0);
    return ret < 0 ? qcow2_check_unreadable(c, ret, "refcount block", offset) : 0;
}

static bool can_fix(uint64_t refcount, uint64_t wanted, int fix)
{
    return (refcount > wanted && (fix & BDRV_FIX_LEAKS)) ||
           (refcount < wanted && (fix & BDRV_FIX_ERRORS));
}

static int coroutine_fn GRAPH_RDLOCK stored_refcount(Qcow2Check *c, uint64_t cluster,
                                                     uint64_t *refcount)
{
    unsigned block_bits = qcow2_refcount_block_bits(&c->s->geo);
    uint64_t index = cluster >> block_bits;
    Qcow2CheckBlock *block = &c->blocks[index % c->nb_blocks];

    *refcount = 0;
    if (index >= c->reftable_entries) {
        return 0;
    }
    if (block->index != index) {
        block->index = index;
        block->error = read_block(c, index, block);
    }
    if (block->error == 0 && !block->is_zero) {
        *refcount = qcow2_refcount_at(block->data, c->s->geo.refcount_order,
                                      cluster & ((1ULL << block_bits) - 1));
    }
    return block->error;
}

int coroutine_fn qcow2_check_refcount(Qcow2Check *c, uint64_t cluster, uint64_t *refcount)
{
    int ret = stored_refcount(c, cluster, refcount);

    if (ret == 0 && c->settled && cluster < qcow2_check_end(c)) {
        uint64_t wanted = qcow2_check_wanted(c, cluster);

        if (can_fix(*refcount, wanted, c->fix)) {
            *refcount = wanted;
        }
    }
    return ret;
}

void qcow2_check_drop_blocks(Qcow2Check *c)
{
    for (unsigned i = 0; i < c->nb_blocks; i++) {
        c->blocks[i].index = UINT64_MAX;
    }
}

/* The table's entry says where a block may be. */
static bool block_is_counted(const Qcow2Check *c, uint64_t index)
{
    uint64_t entry = c->reftable[index];

    return entry != 0 && !(entry & QCOW2_REFTABLE_RESERVED) &&
           !qcow2_offset_into_cluster(&c->s->geo, entry) &&
           entry >> c->s->geo.cluster_bits < qcow2_clusters(&c->s->geo, c->file_length);
}

static void check_block(Qcow2Check *c, uint64_t index)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t offset = c->reftable[index] & QCOW2_REFTABLE_OFFSET_MASK;
    uint64_t cluster = offset >> geo->cluster_bits, counted;

    if (block_is_counted(c, index)) {
        qcow2_check_reference(c, offset, qcow2_cluster_size(geo));
        counted = qcow2_refmap_get(c->references, cluster);
        if (counted == 1) {
            return;
        }
        qcow2_check_corrupt(c,
                            "ERROR refcount block %" G_GUINT64_FORMAT
                            " refcount=%" G_GUINT64_FORMAT,
                            index, counted);
    } else if (c->reftable[index] & QCOW2_REFTABLE_RESERVED) {
        qcow2_check_corrupt(
            c, "ERROR refcount table entry %" G_GUINT64_FORMAT " has reserved bits set", index);
    } else if (qcow2_offset_into_cluster(geo, offset)) {
        qcow2_check_corrupt(c,
                            "ERROR refcount block %" G_GUINT64_FORMAT
                            " is not cluster aligned; refcount table entry corrupted",
                            index);
    } else {
        qcow2_check_corrupt(c, "%s refcount block %" G_GUINT64_FORMAT " is outside image",
                            c->fix & BDRV_FIX_ERRORS ? "Repairing" : "ERROR", index);
    }
    c->rebuild = true;
}

void qcow2_check_refcount_blocks(Qcow2Check *c)
{
    for (uint64_t i = 0; i < c->reftable_entries; i++) {
        if (c->reftable[i] != 0) {
            check_block(c, i);
        }
    }
}

void qcow2_check_forget_refcount_blocks(Qcow2Check *c)
{
    const Qcow2Header *h = &c->s->header;
    uint64_t bytes = (uint64_t)h->refcount_table_clusters << c->s->geo.cluster_bits;
    Qcow2CheckRange table;

    if (bytes > 0 && clusters_of(c, h->refcount_table_offset, bytes, &table)) {
        for (uint64_t cluster = table.first; cluster <= table.last; cluster++) {
            qcow2_refmap_remove(c->references, cluster);
        }
    }
    for (uint64_t i = 0; i < c->reftable_entries; i++) {
        if (block_is_counted(c, i)) {
            qcow2_refmap_remove(c->references, c->reftable[i] >> c->s->geo.cluster_bits);
        }
    }
}

/* The first cluster from @cluster on whose refcount or references may not be 0. */
static uint64_t skip_unused(Qcow2Check *c, uint64_t cluster, uint64_t end)
{
    unsigned block_bits = qcow2_refcount_block_bits(&c->s->geo);
    uint64_t used = qcow2_refmap_next(c->references, cluster, end);

    while (cluster < used) {
        uint64_t index = cluster >> block_bits;

        if (index >= c->reftable_entries) {
            return used;
        }
        if (c->reftable[index] != 0) {
            return cluster;
        }
        cluster = (index + 1) << block_bits;
    }
    return used;
}

/* Put down that block @index has refcounts to be repaired. */
static void put_down(GArray *blocks, uint64_t index)
{
    if (blocks->len == 0 || g_array_index(blocks, uint64_t, blocks->len - 1) != index) {
        g_array_append_val(blocks, index);
    }
}

/* Repair itself is, or has made the image be, the user of @cluster. */
static bool is_own(Qcow2Check *c, uint64_t cluster)
{
    return (cluster >= c->own_first && cluster < c->own_end) ||
           (cluster >= c->held_first && cluster < c->held_end &&
            qcow2_refmap_get(c->references, cluster) == 0);
}

static void put_down_one(Qcow2Check *c, uint64_t cluster, bool low, const char *numbers)
{
    uint64_t index = cluster >> qcow2_refcount_block_bits(&c->s->geo);

    put_down(low ? c->too_low : c->too_high, index);
    if (is_own(c, cluster)) {
        return;
    }
    qcow2_check_report(c, "Repairing cluster %" G_GUINT64_FORMAT "%s", cluster, numbers);
    if (low) {
        c->nb_too_low++;
    } else {
        c->nb_too_high++;
    }
}

static void compare_one(Qcow2Check *c, uint64_t cluster, uint64_t refcount, uint64_t wanted,
                        int fix)
{
    static const char text[] = " refcount=%" G_GUINT64_FORMAT " reference=%" G_GUINT64_FORMAT;
    g_autofree char *numbers = NULL;

    if (refcount == wanted) {
        return;
    }
    numbers = g_strdup_printf(text, refcount, wanted);
    if (can_fix(refcount, wanted, fix)) {
        put_down_one(c, cluster, refcount < wanted, numbers);
    } else if (is_own(c, cluster)) {
        return;
    } else if (refcount > wanted) {
        qcow2_check_report(c, "Leaked cluster %" G_GUINT64_FORMAT "%s", cluster, numbers);
        c->result->leaks++;
    } else {
        qcow2_check_corrupt(c, "ERROR cluster %" G_GUINT64_FORMAT "%s", cluster, numbers);
        /* Its block may have to be made. */
        c->rebuild |= refcount == 0;
    }
}

int coroutine_fn qcow2_check_compare(Qcow2Check *c, int fix)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t end = qcow2_check_end(c), highest = 0;

    for (uint64_t cluster = skip_unused(c, 0, end); cluster < end;
         cluster = skip_unused(c, cluster + 1, end)) {
        uint64_t wanted = qcow2_check_wanted(c, cluster);
        uint64_t refcount;
        int ret = stored_refcount(c, cluster, &refcount);

        if (ret < 0) {
            qcow2_check_report(c, "Can't get refcount for cluster %" G_GUINT64_FORMAT ": %s",
                               cluster, g_strerror(-ret));
            c->result->check_errors++;
            continue;
        }
        if (refcount > 0 || wanted > 0) {
            highest = cluster;
        }
        compare_one(c, cluster, refcount, wanted, fix);
    }
    c->result->image_end_offset = (highest + 1) << geo->cluster_bits;
    return 0;
}
