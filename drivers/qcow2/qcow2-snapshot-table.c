/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: writing snapshot tables and the L1 tables of snapshots. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-snapshot.h"

/* nb_snapshots and snapshots_offset: 12 bytes in one sector. */
#define SNAPSHOTS_IN_HEADER 60

int coroutine_fn qcow2_snapshots_begin(Qcow2State *s, GError **errp)
{
    int ret;

    bdrv_graph_assert_readable();
    if (!s->writer) {
        block_error_set(errp, EPERM, "'%s': the image is not open for writing", s->name);
        return -EPERM;
    }
    if (s->geo.external_data) {
        block_error_set_errno(errp, ENOTSUP, "'%s': snapshots of an image with an external data "
                              "file", s->name);
        return -ENOTSUP;
    }
    co_mutex_lock(&s->writer->lock);
    ret = qcow2_writer_begin(s->writer);
    co_mutex_unlock(&s->writer->lock);
    if (ret >= 0) {
        ret = qcow2_snapshots_settle(s);
    }
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not write back the metadata", s->name);
    }
    return ret;
}

int coroutine_fn qcow2_snapshots_settle(Qcow2State *s)
{
    int ret = qcow2_write_back(s->writer, true);

    bdrv_graph_assert_readable();
    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(s->file));
}

/* ---- L1 tables ---------------------------------------------------------------------------- */

Qcow2L1 *coroutine_fn qcow2_snapshot_load_l1(Qcow2State *s, const Qcow2Snapshot *sn,
                                             uint64_t entries, GError **errp)
{
    g_autofree char *what = g_strdup_printf("L1 table of snapshot '%s'", sn->name);
    Qcow2L1 *l1, *wide;

    bdrv_graph_assert_readable();
    entries = MAX(entries, sn->l1_size);
    if (entries > QCOW2_MAX_L1_BYTES / 8) {
        block_error_set(errp, EFBIG, "'%s': %s would need %" G_GUINT64_FORMAT " entries, more "
                        "than %d", s->name, what, entries, QCOW2_MAX_L1_BYTES / 8);
        return NULL;
    }
    l1 = qcow2_l1_load(s, sn->l1_table_offset, sn->l1_size, what, errp);
    if (!l1 || l1->count == entries) {
        return l1;
    }
    wide = g_try_malloc0(sizeof(*wide) + entries * 8);
    if (wide) {
        wide->count = entries;
        memcpy(wide->entries, l1->entries, (size_t)l1->count * 8);
    } else {
        block_error_set_errno(errp, ENOMEM, "'%s': %s", s->name, what);
    }
    g_free(l1);
    return wide;
}

int coroutine_fn qcow2_snapshot_store_l1(Qcow2State *s, const Qcow2L1 *l1, uint64_t *offset)
{
    /* A snapshot without a table would look like a hole in the file. */
    uint64_t clusters = MAX(qcow2_clusters(&s->geo, (uint64_t)l1->count * 8), 1);
    uint64_t bytes = clusters << s->geo.cluster_bits;
    uint64_t *words = g_try_malloc0(bytes);
    int ret;

    bdrv_graph_assert_readable();
    if (!words) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < l1->count; i++) {
        words[i] = GUINT64_TO_BE(l1->entries[i]);
    }
    ret = qcow2_alloc_clusters(s, clusters, offset);
    if (ret >= 0) {
        ret = bdrv_co_pwrite(s->file, *offset, bytes, words, 0);
        if (ret < 0) {
            qcow2_free_clusters(s, *offset, bytes);
        }
    }
    g_free(words);
    return MIN(ret, 0);
}

/* ---- The snapshot table ------------------------------------------------------------------- */

int coroutine_fn qcow2_snapshot_table_read(Qcow2State *s, GByteArray *table)
{
    bdrv_graph_assert_readable();
    g_byte_array_set_size(table, s->snapshots.bytes);
    if (table->len == 0) {
        return 0;
    }
    return bdrv_co_pread(s->file, s->header.snapshots_offset, table->len, table->data, 0);
}

static int coroutine_fn GRAPH_RDLOCK write_header(Qcow2State *s, uint64_t offset, uint32_t count)
{
    uint64_t be_offset = GUINT64_TO_BE(offset);
    uint32_t be_count = GUINT32_TO_BE(count);
    uint8_t field[12];
    int ret;

    memcpy(field, &be_count, 4);
    memcpy(field + 4, &be_offset, 8);
    ret = qcow2_header_write_field(s->writer, SNAPSHOTS_IN_HEADER, field, sizeof(field));
    return MIN(ret, 0);
}

int coroutine_fn qcow2_snapshot_table_store(Qcow2State *s, const GByteArray *table,
                                            uint64_t *offset)
{
    uint64_t clusters = qcow2_clusters(&s->geo, table->len);
    uint64_t bytes = clusters << s->geo.cluster_bits;
    uint8_t *whole;
    int ret;

    bdrv_graph_assert_readable();
    *offset = 0;
    if (clusters == 0) {
        return qcow2_snapshots_settle(s);
    }
    whole = g_try_malloc0(bytes);
    if (!whole) {
        return -ENOMEM;
    }
    memcpy(whole, table->data, table->len);
    ret = qcow2_alloc_clusters(s, clusters, offset);
    if (ret >= 0) {
        ret = bdrv_co_pwrite(s->file, *offset, bytes, whole, 0);
        if (ret >= 0) {
            ret = qcow2_snapshots_settle(s);
        }
        if (ret < 0) {
            qcow2_free_clusters(s, *offset, bytes);
        }
    }
    g_free(whole);
    return MIN(ret, 0);
}

/* The header leads to @table at @offset. */
static void coroutine_fn adopt_table(Qcow2State *s, const GByteArray *table, uint32_t count,
                                     uint64_t offset)
{
    Qcow2SnapshotTable fresh = { .entries = g_new0(Qcow2Snapshot, count), .count = count };

    for (uint32_t i = 0; i < count; i++) {
        fresh.bytes += qcow2_snapshot_parse(table->data + fresh.bytes, s->header.version,
                                            &fresh.entries[i]);
    }
    co_mutex_lock(&s->writer->lock);
    qcow2_snapshots_clear(&s->snapshots);
    s->snapshots = fresh;
    s->header.nb_snapshots = count;
    s->header.snapshots_offset = offset;
    g_clear_pointer(&s->writer->inactive_l2, g_hash_table_unref);
    co_mutex_unlock(&s->writer->lock);
}

int coroutine_fn qcow2_snapshot_table_switch(Qcow2State *s, const GByteArray *table,
                                             uint32_t count, uint64_t offset, bool *uncertain)
{
    uint64_t old = s->header.snapshots_offset, old_bytes = s->snapshots.bytes;
    int ret = write_header(s, offset, count);

    bdrv_graph_assert_readable();
    *uncertain = false;
    if (ret < 0) {
        /* It may be there all the same: as it was, if that can be had. */
        *uncertain = write_header(s, old, s->header.nb_snapshots) < 0;
        if (!*uncertain && table->len > 0) {
            qcow2_free_clusters(s, offset, table->len);
        }
        return ret;
    }
    adopt_table(s, table, count, offset);
    if (old_bytes > 0) {
        qcow2_free_clusters(s, old, old_bytes);
    }
    return 0;
}

int coroutine_fn qcow2_snapshot_table_replace(Qcow2State *s, const GByteArray *table,
                                              uint32_t count, bool *uncertain)
{
    uint64_t offset;
    int ret = qcow2_snapshot_table_store(s, table, &offset);

    bdrv_graph_assert_readable();
    *uncertain = false;
    return ret < 0 ? ret : qcow2_snapshot_table_switch(s, table, count, offset, uncertain);
}
