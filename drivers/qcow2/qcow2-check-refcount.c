/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 check: references counted, refcounts read, and the two compared. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-check.h"

void qcow2_check_reference(Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t end, last;

    if (bytes == 0) {
        return;
    }
    /* The last cluster of a file need not be there in whole. */
    if (__builtin_add_overflow(offset, bytes, &end) ||
        end >= c->file_length + qcow2_cluster_size(geo)) {
        qcow2_check_corrupt(c,
                            "ERROR: counting reference for region exceeding the end of the file by "
                            "one cluster or more: offset 0x%" G_GINT64_MODIFIER
                            "x size 0x%" G_GINT64_MODIFIER "x",
                            offset, bytes);
        return;
    }
    last = (end - 1) >> geo->cluster_bits;
    for (uint64_t cluster = offset >> geo->cluster_bits; cluster <= last; cluster++) {
        qcow2_refmap_add(c->references, cluster);
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

int coroutine_fn qcow2_check_refcount(Qcow2Check *c, uint64_t cluster, uint64_t *refcount)
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

static void check_block(Qcow2Check *c, uint64_t index)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t offset = c->reftable[index] & QCOW2_REFTABLE_OFFSET_MASK;
    uint64_t cluster = offset >> geo->cluster_bits, counted;

    if (c->reftable[index] & QCOW2_REFTABLE_RESERVED) {
        qcow2_check_corrupt(
            c, "ERROR refcount table entry %" G_GUINT64_FORMAT " has reserved bits set", index);
    } else if (qcow2_offset_into_cluster(geo, offset)) {
        qcow2_check_corrupt(c,
                            "ERROR refcount block %" G_GUINT64_FORMAT
                            " is not cluster aligned; refcount table entry corrupted",
                            index);
    } else if (cluster >= qcow2_clusters(geo, c->file_length)) {
        qcow2_check_corrupt(c, "ERROR refcount block %" G_GUINT64_FORMAT " is outside image",
                            index);
    } else if (offset != 0) {
        qcow2_check_reference(c, offset, qcow2_cluster_size(geo));
        counted = qcow2_refmap_get(c->references, cluster);
        if (counted != 1) {
            qcow2_check_corrupt(c,
                                "ERROR refcount block %" G_GUINT64_FORMAT
                                " refcount=%" G_GUINT64_FORMAT,
                                index, counted);
        }
    }
}

void qcow2_check_refcount_blocks(Qcow2Check *c)
{
    for (uint64_t i = 0; i < c->reftable_entries; i++) {
        if (c->reftable[i] != 0) {
            check_block(c, i);
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

static void compare_one(Qcow2Check *c, uint64_t cluster, uint64_t refcount, uint64_t counted)
{
    static const char text[] = " refcount=%" G_GUINT64_FORMAT " reference=%" G_GUINT64_FORMAT;
    g_autofree char *numbers = NULL;

    if (refcount == counted) {
        return;
    }
    numbers = g_strdup_printf(text, refcount, counted);
    if (refcount > counted) {
        qcow2_check_report(c, "Leaked cluster %" G_GUINT64_FORMAT "%s", cluster, numbers);
        c->result->leaks++;
    } else {
        qcow2_check_corrupt(c, "ERROR cluster %" G_GUINT64_FORMAT "%s", cluster, numbers);
    }
}

int coroutine_fn qcow2_check_compare(Qcow2Check *c)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t end = qcow2_clusters(geo, c->file_length), highest = 0;

    for (uint64_t cluster = skip_unused(c, 0, end); cluster < end;
         cluster = skip_unused(c, cluster + 1, end)) {
        uint64_t counted = qcow2_refmap_get(c->references, cluster);
        uint64_t refcount;
        int ret = qcow2_check_refcount(c, cluster, &refcount);

        if (ret < 0) {
            qcow2_check_report(c, "Can't get refcount for cluster %" G_GUINT64_FORMAT ": %s",
                               cluster, g_strerror(-ret));
            c->result->check_errors++;
            continue;
        }
        if (refcount > 0 || counted > 0) {
            highest = cluster;
        }
        compare_one(c, cluster, refcount, counted);
    }
    c->result->image_end_offset = (highest + 1) << geo->cluster_bits;
    return 0;
}
