/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 check: count what refers to each cluster, compare with the refcounts,
 * compare the copied flags. Lines are worded as scripts know them from QEMU.
 */
#include <errno.h>
#include <stdarg.h>
#include "drivers/qcow2/qcow2-alloc.h"
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

static int coroutine_fn GRAPH_RDLOCK check_snapshot_table(Qcow2Check *c)
{
    const Qcow2SnapshotTable *table = &c->snapshots;
    const Qcow2State *s = c->s;
    int ret = 0;

    if (table->count > 0 && s->geo.external_data) {
        qcow2_check_corrupt(c, "ERROR %u snapshots in image with data file", table->count);
    }
    for (uint32_t i = 0; i < table->count && ret == 0; i++) {
        ret = check_snapshot(c, &table->entries[i]);
    }
    if (!c->new_snapshots) {
        qcow2_check_reference(c, s->header.snapshots_offset, table->bytes);
    }
    return ret;
}

/* Load the snapshot table anew: open may have left it out. */
static int coroutine_fn GRAPH_RDLOCK load_snapshots(Qcow2Check *c)
{
    Qcow2SnapshotTable *table = &c->snapshots;
    g_autoptr(GError) err = NULL;

    if (c->s->header.nb_snapshots > QCOW2_MAX_SNAPSHOTS && !(c->fix & BDRV_FIX_ERRORS)) {
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
    if (c->fix & BDRV_FIX_ERRORS) {
        return qcow2_repair_load_snapshots(c);
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
static int coroutine_fn GRAPH_RDLOCK count_references(Qcow2Check *c)
{
    const Qcow2State *s = c->s;
    const Qcow2Header *h = &s->header;
    int ret;

    qcow2_check_reference(c, 0, qcow2_cluster_size(&s->geo));
    ret = qcow2_check_l1(c, h->l1_table_offset, h->l1_size, true);
    if (ret == 0) {
        ret = check_snapshot_table(c);
    }
    if (ret == 0) {
        ret = check_bitmaps(c);
    }
    qcow2_check_reference(c, s->ext.crypto_offset, s->ext.crypto_length);
    c->other_corruptions = c->result->corruptions;
    c->other_errors = c->result->check_errors;
    c->other_strays = c->strays ? c->strays->len : 0;
    qcow2_check_reference(c, h->refcount_table_offset,
                          (uint64_t)h->refcount_table_clusters << s->geo.cluster_bits);
    qcow2_check_refcount_blocks(c);
    return ret;
}

/* Whether the copied flags can be repaired by now. */
static bool may_repair_copied(const Qcow2Check *c)
{
    const BdrvCheckResult *r = c->result;

    if (c->fix & BDRV_FIX_ERRORS) {
        return true;
    }
    /* The refcounts are right, so the flags are what is wrong. */
    return (c->fix & BDRV_FIX_LEAKS) && r->corruptions == 0 && r->check_errors == 0;
}

static int coroutine_fn GRAPH_RDLOCK look(Qcow2Check *c)
{
    int ret = load_snapshots(c);

    if (ret == 0) {
        ret = qcow2_reftable_load(c->s, &c->reftable, &c->reftable_entries);
        if (ret < 0) {
            qcow2_check_unreadable(c, ret, "refcount table", c->s->header.refcount_table_offset);
        }
    }
    if (ret == 0) {
        ret = count_references(c);
    }
    return ret < 0 ? ret : qcow2_check_compare(c, 0);
}

static int coroutine_fn GRAPH_RDLOCK check_all(Qcow2Check *c)
{
    int ret = c->fix ? qcow2_repair_begin(c) : 0;

    if (ret == 0) {
        ret = look(c);
    }
    if (ret == 0 && c->fix) {
        ret = qcow2_repair_refcounts(c);
    }
    if (ret == 0) {
        ret = qcow2_check_copied(c, may_repair_copied(c));
    }
    if (ret == 0 && c->new_snapshots) {
        ret = qcow2_repair_write_snapshots(c);
    }
    if (ret == 0 && c->fix) {
        ret = qcow2_repair_end(c);
    }
    return ret;
}

static void check_clear(Qcow2Check *c)
{
    for (unsigned i = 0; i < c->nb_blocks; i++) {
        g_free(c->blocks[i].data);
    }
    g_free(c->blocks);
    g_free(c->reftable);
    qcow2_refmap_free(c->references);
    g_clear_pointer(&c->fixed, qcow2_refmap_free);
    g_clear_pointer(&c->too_low, g_array_unref);
    g_clear_pointer(&c->too_high, g_array_unref);
    g_clear_pointer(&c->strays, g_array_unref);
    g_clear_pointer(&c->new_snapshots, g_byte_array_unref);
    qcow2_snapshots_clear(&c->snapshots);
}

int coroutine_fn qcow2_co_check(BlockDriverState *bs, int fix, BdrvCheckResult *result,
                                BdrvCheckReport *report, void *opaque)
{
    Qcow2State *s = bdrv_state(bs);
    Qcow2Check c = {
        .s = s,
        .fix = fix,
        .result = result,
        .report = report,
        .opaque = opaque,
        .references = qcow2_refmap_new(),
        .file_length = qcow2_file_length(s),
        .nb_blocks = CLAMP(BLOCK_CACHE_BYTES >> s->geo.cluster_bits, 2, MAX_BLOCKS),
    };
    int ret, written;

    if (fix) {
        c.too_low = g_array_new(false, false, sizeof(uint64_t));
        c.too_high = g_array_new(false, false, sizeof(uint64_t));
        c.strays = g_array_new(false, false, sizeof(Qcow2CheckRange));
    }
    c.blocks = g_new0(Qcow2CheckBlock, c.nb_blocks);
    qcow2_check_drop_blocks(&c);
    result->total_clusters = qcow2_clusters(&s->geo, s->header.size);
    /* What is in memory only is not looked at. */
    ret = written = s->writer ? qcow2_write_back(s->writer, true) : 0;
    if (ret == 0) {
        ret = check_all(&c);
    } else {
        qcow2_check_report(&c, "ERROR: '%s': could not write back the metadata: %s", s->name,
                           g_strerror(-ret));
        result->check_errors++;
    }
    check_clear(&c);
    if (fix && written == 0) { /* else memory has what the file has not, and nothing changed */
        int forgot = qcow2_repair_forget(s);

        ret = ret < 0 ? ret : forgot;
    }
    return ret;
}
