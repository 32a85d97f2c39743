/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 check: count what refers to each cluster, compare with the refcounts,
 * compare the copied flags. Lines are worded as scripts know them from QEMU.
 */
#include <errno.h>
#include <stdarg.h>
#include "drivers/qcow2/qcow2-check.h"

/* Refcount blocks are kept in about this much memory. */
#define BLOCK_CACHE_BYTES (4U * 1024 * 1024)
#define MAX_BLOCKS 1024
#define TABLE_PIECE 8192 /* entries of a bitmap table read at once */

static void report_va(Qcow2Check *c, const char *format, va_list ap)
{
    g_autofree char *line = g_strdup_vprintf(format, ap);

    if (c->report) {
        c->report(c->opaque, line);
    }
}

void qcow2_check_report(Qcow2Check *c, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    report_va(c, format, ap);
    va_end(ap);
}

void qcow2_check_corrupt(Qcow2Check *c, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    report_va(c, format, ap);
    va_end(ap);
    c->result->corruptions++;
}

int qcow2_check_unreadable(Qcow2Check *c, int ret, const char *what, uint64_t offset)
{
    qcow2_check_report(c, "ERROR: '%s': could not read %s at offset %" G_GUINT64_FORMAT ": %s",
                       c->s->name, what, offset, g_strerror(-ret));
    c->result->check_errors++;
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK check_snapshot(Qcow2Check *c, const Qcow2Snapshot *sn)
{
    if (qcow2_offset_into_cluster(&c->s->geo, sn->l1_table_offset)) {
        qcow2_check_corrupt(c,
                            "ERROR snapshot %s (%s) l1_offset=0x%" G_GINT64_MODIFIER
                            "x: L1 table is not cluster aligned; snapshot table entry corrupted",
                            sn->id, sn->name, sn->l1_table_offset);
        return 0;
    }
    if (sn->l1_size > QCOW2_MAX_L1_BYTES / 8) {
        qcow2_check_corrupt(c,
                            "ERROR snapshot %s (%s) l1_size=0x%x: L1 table is too large; snapshot "
                            "table entry corrupted",
                            sn->id, sn->name, sn->l1_size);
        return 0;
    }
    return qcow2_check_l1(c, sn->l1_table_offset, sn->l1_size, false);
}

static int coroutine_fn GRAPH_RDLOCK check_snapshot_table(Qcow2Check *c,
                                                          const Qcow2SnapshotTable *table)
{
    const Qcow2State *s = c->s;
    int ret = 0;

    if (table->count > 0 && s->geo.external_data) {
        qcow2_check_corrupt(c, "ERROR %u snapshots in image with data file", table->count);
    }
    for (uint32_t i = 0; i < table->count && ret == 0; i++) {
        ret = check_snapshot(c, &table->entries[i]);
    }
    qcow2_check_reference(c, s->header.snapshots_offset, table->bytes);
    return ret;
}

/* Load the snapshot table anew: open may have left it out. */
static int coroutine_fn GRAPH_RDLOCK load_snapshots(Qcow2Check *c, Qcow2SnapshotTable *table)
{
    g_autoptr(GError) err = NULL;

    if (c->s->header.nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        qcow2_check_report(c, "ERROR snapshot table too large");
        c->result->check_errors++;
        return -EFBIG;
    }
    if (qcow2_offset_into_cluster(&c->s->geo, c->s->header.snapshots_offset) ||
        c->s->header.snapshots_offset > INT64_MAX - QCOW2_MAX_SNAPSHOT_TABLE) {
        qcow2_check_report(c, "ERROR snapshot table offset invalid");
        c->result->check_errors++;
        return -EINVAL;
    }
    if (!qcow2_snapshots_load(c->s, true, table, &err)) {
        qcow2_check_report(c, "ERROR failed to read the snapshot table: %s", err->message);
        c->result->check_errors++;
        return block_error_to_errno(err);
    }
    for (uint32_t i = 0; i < table->count; i++) {
        if (table->entries[i].incomplete) {
            qcow2_check_corrupt(c, "ERROR snapshot table entry %u is incomplete", i);
        }
    }
    return 0;
}

static void check_bitmap_entry(Qcow2Check *c, const Qcow2Bitmap *bm, uint64_t index,
                               uint64_t entry)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if ((entry & QCOW2_BITMAP_TABLE_RESERVED) || (offset && (entry & 1)) ||
        qcow2_offset_into_cluster(geo, offset)) {
        qcow2_check_corrupt(c,
                            "ERROR bitmap '%s' table entry %" G_GUINT64_FORMAT
                            " is not valid: %" G_GINT64_MODIFIER "x",
                            bm->name, index, entry);
    } else if (offset) {
        qcow2_check_reference(c, offset, qcow2_cluster_size(geo));
    }
}

static int coroutine_fn GRAPH_RDLOCK check_bitmap(Qcow2Check *c, const Qcow2Bitmap *bm)
{
    g_autofree uint64_t *words = g_new(uint64_t, TABLE_PIECE);
    uint64_t left = bm->table_offset < c->file_length ? c->file_length - bm->table_offset : 0;
    uint64_t entries = MIN(bm->table_size, left / 8);

    qcow2_check_reference(c, bm->table_offset, (uint64_t)bm->table_size * 8);
    for (uint64_t i = 0; i < entries; i += TABLE_PIECE) {
        uint64_t piece = MIN(entries - i, TABLE_PIECE);
        uint64_t offset = bm->table_offset + i * 8;
        int ret = bdrv_co_pread(c->s->file, offset, piece * 8, words, 0);

        if (ret < 0) {
            return qcow2_check_unreadable(c, ret, "bitmap table", offset);
        }
        qcow2_words_to_host(words, piece);
        for (uint64_t j = 0; j < piece; j++) {
            check_bitmap_entry(c, bm, i + j, words[j]);
        }
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK check_bitmaps(Qcow2Check *c)
{
    const Qcow2State *s = c->s;
    int ret = 0;

    if (s->bitmaps->len > 0) {
        qcow2_check_reference(c, s->ext.bitmap_directory_offset, s->ext.bitmap_directory_size);
    }
    for (guint i = 0; i < s->bitmaps->len && ret == 0; i++) {
        ret = check_bitmap(c, &g_array_index(s->bitmaps, Qcow2Bitmap, i));
    }
    return ret;
}

/* Meet everything that refers to a cluster. */
static int coroutine_fn GRAPH_RDLOCK count_references(Qcow2Check *c,
                                                      const Qcow2SnapshotTable *snapshots)
{
    const Qcow2State *s = c->s;
    const Qcow2Header *h = &s->header;
    int ret;

    qcow2_check_reference(c, 0, qcow2_cluster_size(&s->geo));
    ret = qcow2_check_l1(c, h->l1_table_offset, h->l1_size, true);
    if (ret == 0) {
        ret = check_snapshot_table(c, snapshots);
    }
    if (ret == 0) {
        ret = check_bitmaps(c);
    }
    qcow2_check_reference(c, s->ext.crypto_offset, s->ext.crypto_length);
    qcow2_check_reference(c, h->refcount_table_offset,
                          (uint64_t)h->refcount_table_clusters << s->geo.cluster_bits);
    qcow2_check_refcount_blocks(c);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK check_all(Qcow2Check *c)
{
    Qcow2SnapshotTable snapshots = { 0 };
    int ret = load_snapshots(c, &snapshots);

    if (ret == 0) {
        ret = qcow2_reftable_load(c->s, &c->reftable, &c->reftable_entries);
        if (ret < 0) {
            qcow2_check_unreadable(c, ret, "refcount table", c->s->header.refcount_table_offset);
        }
    }
    if (ret == 0) {
        ret = count_references(c, &snapshots);
    }
    if (ret == 0) {
        ret = qcow2_check_compare(c);
    }
    if (ret == 0) {
        ret = qcow2_check_copied(c);
    }
    qcow2_snapshots_clear(&snapshots);
    return ret;
}

int coroutine_fn qcow2_co_check(BlockDriverState *bs, BdrvCheckResult *result,
                                BdrvCheckReport *report, void *opaque)
{
    Qcow2State *s = bdrv_state(bs);
    Qcow2Check c = {
        .s = s,
        .result = result,
        .report = report,
        .opaque = opaque,
        .references = qcow2_refmap_new(),
        .file_length = qcow2_file_length(s),
        .nb_blocks = CLAMP(BLOCK_CACHE_BYTES >> s->geo.cluster_bits, 2, MAX_BLOCKS),
    };
    int ret;

    c.blocks = g_new0(Qcow2CheckBlock, c.nb_blocks);
    for (unsigned i = 0; i < c.nb_blocks; i++) {
        c.blocks[i].index = UINT64_MAX;
    }
    result->total_clusters = qcow2_clusters(&s->geo, s->header.size);
    ret = check_all(&c);
    for (unsigned i = 0; i < c.nb_blocks; i++) {
        g_free(c.blocks[i].data);
    }
    g_free(c.blocks);
    g_free(c.reftable);
    qcow2_refmap_free(c.references);
    return ret;
}
