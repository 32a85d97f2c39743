/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: a new image that is written from front to back. Where its data lies is known
 * before, so that all tables can stand in front of it, in this order: header, refcount
 * table, refcount blocks, L1 table, L2 tables, data.
 *
 * Invariants:
 *  1. The file has no gaps: each cluster's refcount is 1.
 *  2. Data clusters follow each other as they do on the disk.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-create.h"

#define BUFFER_BYTES (1024 * 1024)
/* Of an extended entry the second word: each subcluster is written, none is zero. */
#define ALL_SUBCLUSTERS 0xffffffffULL

typedef struct Sequential {
    Qcow2NewImage image;
    const GArray *runs; /* of BdrvRange: clusters of the disk that have data */
    /* Clusters of the file. */
    uint64_t table_clusters;
    uint64_t blocks;
    uint64_t l1_clusters;
    uint64_t l2_tables;
    uint64_t data_clusters;
    BdrvSequentialWrite *write;
    void *opaque;
    uint8_t *buf;
    size_t used;
    uint64_t written; /* bytes, with those in @buf */
    int ret;          /* the first error */
} Sequential;

static const BdrvRange *run_at(const Sequential *s, guint i)
{
    return &g_array_index(s->runs, BdrvRange, i);
}

/* ---- What is written ----------------------------------------------------------------- */

static void flush(Sequential *s)
{
    if (s->ret >= 0 && s->used > 0) {
        s->ret = s->write(s->opaque, s->buf, s->used);
    }
    s->used = 0;
}

/* Write @bytes from @data, or zeros if it is NULL. */
static void put(Sequential *s, const void *data, uint64_t bytes)
{
    for (uint64_t done = 0, n; done < bytes; done += n) {
        n = MIN(bytes - done, BUFFER_BYTES - s->used);
        if (data) {
            memcpy(s->buf + s->used, (const uint8_t *)data + done, n);
        } else {
            memset(s->buf + s->used, 0, n);
        }
        s->used += n;
        if (s->used == BUFFER_BYTES) {
            flush(s);
        }
    }
    s->written += bytes;
}

static void put_word(Sequential *s, uint64_t word)
{
    word = GUINT64_TO_BE(word);
    put(s, &word, sizeof(word));
}

static void put_zeros_up_to(Sequential *s, uint64_t offset)
{
    g_assert(s->written <= offset);
    put(s, NULL, offset - s->written);
}

static void put_rest_of_cluster(Sequential *s)
{
    put(s, NULL, -s->written & (qcow2_cluster_size(&s->image.geo) - 1));
}

/* ---- The plan ------------------------------------------------------------------------- */

static uint64_t clusters_of_file(const Sequential *s)
{
    return 1 + s->table_clusters + s->blocks + s->l1_clusters + s->l2_tables + s->data_clusters;
}

/* Widen the ranges to clusters, and join those that then touch. */
static void round_ranges(const Qcow2Geometry *geo, GArray *ranges)
{
    int64_t mask = qcow2_cluster_size(geo) - 1;
    guint kept = 0;

    for (guint i = 0; i < ranges->len; i++) {
        BdrvRange r = g_array_index(ranges, BdrvRange, i);
        int64_t start = r.offset & ~mask;
        int64_t end = (r.offset + r.bytes + mask) & ~mask;
        BdrvRange *last = kept > 0 ? &g_array_index(ranges, BdrvRange, kept - 1) : NULL;

        if (last && start <= last->offset + last->bytes) {
            last->bytes = MAX(last->bytes, end - last->offset);
        } else {
            g_array_index(ranges, BdrvRange, kept++) = (BdrvRange){start, end - start};
        }
    }
    g_array_set_size(ranges, kept);
}

static void count_clusters(Sequential *s)
{
    const Qcow2Geometry *geo = &s->image.geo;
    unsigned table_bits = geo->cluster_bits + geo->l2_bits;
    uint64_t next = 0; /* the first L1 entry that is not counted */

    for (guint i = 0; i < s->runs->len; i++) {
        const BdrvRange *run = run_at(s, i);
        uint64_t first = (uint64_t)run->offset >> table_bits;
        uint64_t end = ((uint64_t)(run->offset + run->bytes - 1) >> table_bits) + 1;

        s->l2_tables += end - MAX(first, next);
        s->data_clusters += (uint64_t)run->bytes >> geo->cluster_bits;
        next = end;
    }
}

/* Refcount blocks describe themselves and their table, too. */
static void count_refcounts(Sequential *s)
{
    const Qcow2Geometry *geo = &s->image.geo;
    unsigned block_bits = qcow2_refcount_block_bits(geo);
    uint64_t before;

    do {
        before = clusters_of_file(s);
        s->blocks = (before + (1ULL << block_bits) - 1) >> block_bits;
        s->table_clusters = qcow2_clusters(geo, s->blocks * sizeof(uint64_t));
    } while (clusters_of_file(s) != before);
}

static bool plan(Sequential *s, GArray *ranges, GError **errp)
{
    Qcow2Header *h = &s->image.header;
    Qcow2Geometry *geo = &s->image.geo;
    uint64_t l1_entries;

    qcow2_new_image_init_header(&s->image);
    l1_entries = qcow2_l1_entries_needed(geo, h->size);
    round_ranges(geo, ranges);
    s->runs = ranges;
    s->l1_clusters = qcow2_clusters(geo, l1_entries * sizeof(uint64_t));
    count_clusters(s);
    count_refcounts(s);
    if (l1_entries > QCOW2_MAX_L1_BYTES / sizeof(uint64_t) ||
        s->table_clusters > QCOW2_MAX_REFTABLE_BYTES >> geo->cluster_bits) {
        block_error_set(errp, EFBIG,
                        "The image size is too large (try using a larger cluster size)");
        return false;
    }
    h->l1_size = l1_entries;
    h->refcount_table_offset = 1ULL << geo->cluster_bits;
    h->refcount_table_clusters = s->table_clusters;
    h->l1_table_offset = (1 + s->table_clusters + s->blocks) << geo->cluster_bits;
    return true;
}

/* ---- The tables ----------------------------------------------------------------------- */

static bool put_header(Sequential *s, GError **errp)
{
    g_autofree uint8_t *cluster = g_malloc(qcow2_cluster_size(&s->image.geo));
    Qcow2Extensions none = {0};
    int ret = qcow2_header_build(&s->image.header, &none, NULL, cluster);

    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not build the qcow2 header");
        return false;
    }
    put(s, cluster, qcow2_cluster_size(&s->image.geo));
    return true;
}

static void put_refcounts(Sequential *s)
{
    const Qcow2Geometry *geo = &s->image.geo;
    uint64_t total = clusters_of_file(s);
    uint64_t per_block = 1ULL << qcow2_refcount_block_bits(geo);
    g_autofree uint8_t *block = g_malloc0(qcow2_cluster_size(geo));

    for (uint64_t i = 0; i < s->blocks; i++) {
        put_word(s, (1 + s->table_clusters + i) << geo->cluster_bits);
    }
    put_rest_of_cluster(s);
    for (uint64_t i = 0; i < MIN(total, per_block); i++) {
        qcow2_refcount_set(block, geo->refcount_order, i, 1);
    }
    for (uint64_t i = 0; i < s->blocks; i++) {
        /* Only the last one describes fewer; if it is the only one, it does so already. */
        for (uint64_t j = total - i * per_block; i > 0 && j < per_block; j++) {
            qcow2_refcount_set(block, geo->refcount_order, j, 0);
        }
        put(s, block, qcow2_cluster_size(geo));
    }
}

static void put_l1(Sequential *s)
{
    const Qcow2Geometry *geo = &s->image.geo;
    unsigned table_bits = geo->cluster_bits + geo->l2_bits;
    uint64_t start = s->image.header.l1_table_offset;
    uint64_t table = start + (s->l1_clusters << geo->cluster_bits);
    uint64_t next = 0;

    for (guint i = 0; i < s->runs->len; i++) {
        const BdrvRange *run = run_at(s, i);
        uint64_t first = (uint64_t)run->offset >> table_bits;
        uint64_t end = ((uint64_t)(run->offset + run->bytes - 1) >> table_bits) + 1;

        for (uint64_t j = MAX(first, next); j < end; j++) {
            put_zeros_up_to(s, start + j * sizeof(uint64_t));
            put_word(s, QCOW2_COPIED | table);
            table += qcow2_cluster_size(geo);
        }
        next = end;
    }
    put_zeros_up_to(s, start + (s->l1_clusters << geo->cluster_bits));
}

static void put_l2(Sequential *s)
{
    const Qcow2Geometry *geo = &s->image.geo;
    uint64_t start = s->written; /* of the table for the L1 entry @table */
    uint64_t host = start + (s->l2_tables << geo->cluster_bits);
    uint64_t table = UINT64_MAX;

    for (guint i = 0; i < s->runs->len; i++) {
        uint64_t cluster = (uint64_t)run_at(s, i)->offset >> geo->cluster_bits;
        uint64_t end = cluster + ((uint64_t)run_at(s, i)->bytes >> geo->cluster_bits);

        for (; cluster < end; cluster++, host += qcow2_cluster_size(geo)) {
            uint64_t index = cluster & ((1ULL << geo->l2_bits) - 1);

            if (cluster >> geo->l2_bits != table) {
                put_rest_of_cluster(s);
                table = cluster >> geo->l2_bits;
                start = s->written;
            }
            put_zeros_up_to(s, start + (index << geo->l2_entry_bits));
            put_word(s, QCOW2_COPIED | host);
            if (s->image.opts->extended_l2) {
                put_word(s, ALL_SUBCLUSTERS);
            }
        }
    }
    put_rest_of_cluster(s);
}

/* ---- All of it ---------------------------------------------------------------------------- */

static bool check_options(const Qcow2CreateOptions *opts, GError **errp)
{
    const char *option = opts->backing_file                            ? "backing_file"
                         : opts->data_file                             ? "data_file"
                         : opts->prealloc != BLOCK_PREALLOC_OFF        ? "preallocation"
                                                                       : NULL;

    if (option) {
        block_error_set(errp, ENOTSUP,
                        "Option '%s' cannot be had in an image that is written in one pass",
                        option);
    }
    return !option;
}

static bool write_tables(Sequential *s, GArray *ranges, GError **errp)
{
    if (!plan(s, ranges, errp)) {
        return false;
    }
    s->buf = g_malloc(BUFFER_BYTES);
    if (put_header(s, errp)) {
        put_refcounts(s);
        put_l1(s);
        put_l2(s);
        flush(s);
        if (s->ret < 0) {
            block_error_set_errno(errp, s->ret, "Could not write the qcow2 metadata");
        }
    } else {
        s->ret = -EINVAL;
    }
    g_free(s->buf);
    return s->ret >= 0;
}

bool qcow2_create_sequential(JsonObject *options, GArray *ranges, BdrvSequentialWrite *write,
                             void *opaque, GError **errp)
{
    Qcow2CreateOptions opts;
    Sequential s = {.image = {.opts = &opts}, .write = write, .opaque = opaque};
    bool ok = qcow2_create_options_take(options, &opts, errp) && check_options(&opts, errp) &&
              write_tables(&s, ranges, errp);

    qcow2_create_options_clear(&opts);
    return ok;
}
