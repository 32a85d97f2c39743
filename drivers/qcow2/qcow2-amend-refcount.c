/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: refcounts of another width. The same numbers are written to new blocks, and
 * a new table, in clusters that the old ones know as in use; then the header's first
 * sector switches width and table together; then the old ones are free.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-amend.h"

#define REFTABLE_IN_HEADER 48
#define ORDER_IN_HEADER 96

/* The new structure. */
typedef struct Rewrite {
    Qcow2Writer *w;
    Qcow2Geometry geo;    /* with the new width */
    uint64_t clusters;    /* that the old blocks describe */
    uint64_t offset;      /* of the first new cluster */
    uint64_t allocated;   /* clusters from there on */
    uint64_t blocks;      /* of them, which come first */
    uint64_t table_clusters; /* of the table, which comes next */
    uint64_t *table;      /* host order */
    /* What was in force before: blocks, and the table. */
    uint64_t *old_blocks;
    uint64_t old_count;
    uint64_t old_table;
    uint64_t old_bytes;
} Rewrite;

/* Whether all refcounts fit into the new width. */
static int coroutine_fn GRAPH_RDLOCK check_values(const Rewrite *r, GError **errp)
    TSA_REQUIRES(r->w->lock)
{
    unsigned bits = 1U << r->geo.refcount_order;
    uint64_t max = UINT64_MAX >> (64 - bits);

    for (uint64_t i = 0; i < r->clusters; i++) {
        uint64_t refcount;
        int ret = qcow2_refcount_get(r->w, i, &refcount);

        if (ret < 0) {
            block_error_set_errno(errp, ret, "'%s': could not read the refcounts", r->w->s->name);
            return ret;
        }
        if (refcount > max) {
            block_error_set(errp, EINVAL, "Cannot decrease refcount entry width to %u bits: "
                            "Cluster at offset %#" G_GINT64_MODIFIER "x has a refcount of %"
                            G_GUINT64_FORMAT, bits, i << r->geo.cluster_bits, refcount);
            return -EINVAL;
        }
    }
    return 0;
}

/* How many new blocks and clusters of a new table it takes. */
static int coroutine_fn GRAPH_RDLOCK count_blocks(Rewrite *r) TSA_REQUIRES(r->w->lock)
{
    unsigned bits = qcow2_refcount_block_bits(&r->geo);
    uint64_t last = 0, at = 0;

    r->clusters = r->w->blocks_end << qcow2_refcount_block_bits(&r->w->s->geo);
    r->blocks = 0;
    while (at < r->clusters) {
        uint64_t refcount;
        int ret = qcow2_refcount_get(r->w, at, &refcount);

        if (ret < 0) {
            return ret;
        }
        if (refcount == 0) {
            at++;
            continue;
        }
        r->blocks++;
        last = at >> bits;
        at = (last + 1) << bits;
    }
    r->table_clusters = qcow2_clusters(&r->geo, (last + 1) * 8);
    return (r->table_clusters << r->geo.cluster_bits) > QCOW2_MAX_REFTABLE_BYTES ? -EFBIG : 0;
}

/* Clusters in a row that have room for what describes all clusters, them included. */
static int coroutine_fn GRAPH_RDLOCK reserve(Rewrite *r) TSA_REQUIRES(r->w->lock)
{
    int ret = count_blocks(r);

    while (ret == 0 && r->allocated < r->blocks + r->table_clusters) {
        uint64_t wanted = r->blocks + r->table_clusters + 1;

        if (r->allocated > 0) {
            qcow2_refcount_add(r->w, r->offset, r->allocated << r->geo.cluster_bits, -1);
            r->allocated = 0;
        }
        ret = qcow2_alloc_locked(r->w, wanted, &r->offset);
        if (ret == 0) {
            r->allocated = wanted;
            ret = count_blocks(r);
        }
    }
    return ret;
}

/* New block @index to the place of number @number; false if it is all zeros. */
static int coroutine_fn GRAPH_RDLOCK write_block(Rewrite *r, uint64_t index, uint64_t *number,
                                                 uint8_t *buf) TSA_REQUIRES(r->w->lock)
{
    unsigned bits = qcow2_refcount_block_bits(&r->geo);
    bool any = false;
    int ret = 0;

    for (uint64_t i = 0; i < 1ULL << bits && ret == 0; i++) {
        uint64_t cluster = (index << bits) + i, refcount = 0;

        ret = cluster < r->clusters ? qcow2_refcount_get(r->w, cluster, &refcount) : 0;
        qcow2_refcount_set(buf, r->geo.refcount_order, i, refcount);
        any |= refcount != 0;
    }
    if (ret < 0 || !any) {
        return ret;
    }
    if (*number >= r->blocks) {
        return -EIO;
    }
    r->table[index] = r->offset + (*number << r->geo.cluster_bits);
    (*number)++;
    bdrv_co_debug_event(r->w->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_BLOCKS);
    return bdrv_co_pwrite(r->w->s->file, r->table[index], qcow2_cluster_size(&r->geo), buf, 0);
}

static int coroutine_fn GRAPH_RDLOCK write_blocks(Rewrite *r, const Qcow2Progress *progress)
    TSA_REQUIRES(r->w->lock)
{
    unsigned bits = qcow2_refcount_block_bits(&r->geo);
    uint64_t end = (r->clusters + (1ULL << bits) - 1) >> bits, number = 0;
    g_autofree uint8_t *buf = g_malloc0(qcow2_cluster_size(&r->geo));
    int ret = 0;

    for (uint64_t index = 0; index < end && ret >= 0; index++) {
        ret = write_block(r, index, &number, buf);
        qcow2_progress(progress, index, end);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_table(Rewrite *r) TSA_REQUIRES(r->w->lock)
{
    uint64_t bytes = r->table_clusters << r->geo.cluster_bits;
    int ret;

    qcow2_words_to_host(r->table, bytes / 8); /* the other way round is the same */
    bdrv_co_debug_event(r->w->s->file, BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_TABLE);
    ret = bdrv_co_pwrite(r->w->s->file, r->offset + (r->blocks << r->geo.cluster_bits), bytes,
                         r->table, 0);
    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(r->w->s->file));
}

/* Width, and place of the table: what lies between them is as it was. */
static int coroutine_fn GRAPH_RDLOCK write_fields(const Qcow2State *s, uint64_t offset,
                                                  uint32_t clusters, uint32_t order)
{
    uint8_t buf[ORDER_IN_HEADER + 4 - REFTABLE_IN_HEADER];
    uint64_t be_offset = GUINT64_TO_BE(offset);
    uint32_t be_clusters = GUINT32_TO_BE(clusters), be_order = GUINT32_TO_BE(order);
    int ret = bdrv_co_pread(s->file, REFTABLE_IN_HEADER, sizeof(buf), buf, 0);

    if (ret < 0) {
        return ret;
    }
    memcpy(buf, &be_offset, 8);
    memcpy(buf + 8, &be_clusters, 4);
    memcpy(buf + (ORDER_IN_HEADER - REFTABLE_IN_HEADER), &be_order, 4);
    bdrv_co_debug_event(s->file, BDRV_DEBUG_REFBLOCK_ALLOC_SWITCH_TABLE);
    return qcow2_header_write_field(s->writer, REFTABLE_IN_HEADER, buf, sizeof(buf));
}

/* Let the header say so. What it may say after an error is not given back. */
static int coroutine_fn GRAPH_RDLOCK activate(Rewrite *r) TSA_REQUIRES(r->w->lock)
{
    Qcow2State *s = r->w->s;
    Qcow2Header *h = &s->header;
    uint64_t offset = r->offset + (r->blocks << r->geo.cluster_bits);
    int ret = write_fields(s, offset, r->table_clusters, r->geo.refcount_order);

    if (ret < 0) {
        if (write_fields(s, h->refcount_table_offset, h->refcount_table_clusters,
                         h->refcount_order) < 0) {
            r->allocated = 0;
            r->w->corrupt = true; /* in memory: which refcounts are in force is unknown */
        }
        return ret;
    }
    r->old_count = r->w->reftable_entries;
    r->old_blocks = g_memdup2(r->w->reftable, r->old_count * 8);
    r->old_table = h->refcount_table_offset;
    r->old_bytes = (uint64_t)h->refcount_table_clusters << r->geo.cluster_bits;
    h->refcount_table_offset = offset;
    h->refcount_table_clusters = r->table_clusters;
    h->refcount_order = r->geo.refcount_order;
    s->geo.refcount_order = r->geo.refcount_order;
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK rewrite_locked(Rewrite *r, const Qcow2Progress *progress,
                                                    GError **errp) TSA_REQUIRES(r->w->lock)
{
    int ret = qcow2_writer_begin(r->w);

    r->clusters = r->w->blocks_end << qcow2_refcount_block_bits(&r->w->s->geo);
    if (ret == 0) {
        ret = check_values(r, errp);
    }
    if (ret == 0) {
        ret = reserve(r);
    }
    if (ret == 0) { /* the old ones know of the new */
        ret = qcow2_refcounts_write(r->w);
    }
    if (ret == 0) {
        r->table = g_malloc0(r->table_clusters << r->geo.cluster_bits);
        ret = write_blocks(r, progress);
    }
    if (ret >= 0) {
        ret = write_table(r);
    }
    if (ret >= 0) {
        ret = activate(r);
    }
    if (ret < 0 && r->allocated > 0) {
        qcow2_refcount_add(r->w, r->offset, r->allocated << r->geo.cluster_bits, -1);
    }
    return MIN(ret, 0);
}

/* The clusters that the old structure lies in, and those that were not needed. */
static void coroutine_fn GRAPH_RDLOCK free_old(const Rewrite *r)
{
    Qcow2State *s = r->w->s;
    uint64_t used = r->blocks + r->table_clusters;

    for (uint64_t i = 0; i < r->old_count; i++) {
        uint64_t block = r->old_blocks[i] & QCOW2_REFTABLE_OFFSET_MASK;

        qcow2_update_refcount(s, block, block ? 1 : 0, -1);
    }
    qcow2_update_refcount(s, r->old_table, r->old_bytes, -1);
    qcow2_update_refcount(s, r->offset + (used << r->geo.cluster_bits),
                          (r->allocated - used) << r->geo.cluster_bits, -1);
}

int coroutine_fn qcow2_change_refcount_order(Qcow2State *s, unsigned order,
                                             const Qcow2Progress *progress, GError **errp)
{
    Qcow2Writer *w = s->writer;
    Rewrite r = { .w = w, .geo = s->geo };
    int ret = qcow2_write_back(w, true);

    bdrv_graph_assert_readable();
    r.geo.refcount_order = order;
    if (ret >= 0) {
        co_mutex_lock(&r.w->lock);
        ret = rewrite_locked(&r, progress, errp);
        co_mutex_unlock(&r.w->lock);
    }
    if (ret == 0) {
        ret = qcow2_writer_forget(s); /* what it has in memory is of the other width */
    }
    if (ret == 0) {
        free_old(&r);
    }
    g_free(r.table);
    g_free(r.old_blocks);
    if (ret < 0 && errp && !*errp) {
        block_error_set_errno(errp, ret, "'%s': could not rewrite the refcounts", s->name);
    }
    return ret;
}
