/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: creating a snapshot, and deleting one. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-snapshot.h"

#define ENTRY_FIXED 40
#define ENTRY_EXTRA 24
#define MAX_NAME 255

/* ---- The new entry ------------------------------------------------------------------------ */

static uint64_t next_id(const Qcow2State *s)
{
    uint64_t max = 0;

    for (uint32_t i = 0; i < s->snapshots.count; i++) {
        max = MAX(max, g_ascii_strtoull(s->snapshots.entries[i].id, NULL, 10));
    }
    return max + 1;
}

static void put(uint8_t *p, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++) {
        p[i] = value >> 8 * (bytes - 1 - i);
    }
}

static void append_entry(const Qcow2State *s, const BdrvSnapshotInfo *info, uint64_t l1_offset,
                         uint32_t l1_size, GByteArray *table)
{
    static const uint8_t padding[8];
    g_autofree char *id = g_strdup_printf("%" G_GUINT64_FORMAT, next_id(s));
    size_t name_size = MIN(strlen(info->name), MAX_NAME);
    uint8_t entry[ENTRY_FIXED + ENTRY_EXTRA] = { 0 };

    put(entry, 8, l1_offset);
    put(entry + 8, 4, l1_size);
    put(entry + 12, 2, strlen(id));
    put(entry + 14, 2, name_size);
    put(entry + 16, 4, info->date_sec);
    put(entry + 20, 4, info->date_nsec);
    put(entry + 24, 8, info->vm_clock_nsec);
    put(entry + 36, 4, ENTRY_EXTRA);
    put(entry + ENTRY_FIXED + 8, 8, bdrv_getlength(s->writer->bs));
    put(entry + ENTRY_FIXED + 16, 8, info->icount);
    g_byte_array_append(table, entry, sizeof(entry));
    g_byte_array_append(table, (const uint8_t *)id, strlen(id));
    g_byte_array_append(table, (const uint8_t *)info->name, name_size);
    g_byte_array_append(table, padding, -table->len & 7);
}

/* ---- Create --------------------------------------------------------------------------------- */

static int check_room(const Qcow2State *s, GError **errp)
{
    if (s->snapshots.count >= QCOW2_MAX_SNAPSHOTS ||
        s->snapshots.bytes + QCOW2_SNAPSHOT_ENTRY_MAX > QCOW2_MAX_SNAPSHOT_TABLE) {
        block_error_set(errp, EFBIG, "'%s' has %u snapshots in a table of %" G_GUINT64_FORMAT
                        " bytes: there is no room for another one", s->name, s->snapshots.count,
                        s->snapshots.bytes);
        return -EFBIG;
    }
    return 0;
}

/* What the header is to lead to: written already, as long as that is not. */
typedef struct Fresh {
    GByteArray *table;
    uint64_t table_offset;
    uint64_t l1_offset;
    uint64_t l1_bytes;
} Fresh;

/* A table of one entry, if the active one has none. Its clusters are shared from now on. */
static Qcow2L1 *copy_l1(const Qcow2L1 *l1)
{
    Qcow2L1 *copy = g_malloc0(sizeof(*copy) + MAX((size_t)l1->count, 1) * 8);

    copy->count = MAX(l1->count, 1);
    for (uint32_t i = 0; i < l1->count; i++) {
        copy->entries[i] = l1->entries[i] & ~QCOW2_COPIED;
    }
    return copy;
}

/* What takes room comes first: on a disk that is full, nothing has changed then. */
static int coroutine_fn GRAPH_RDLOCK store_tables(Qcow2State *s, const BdrvSnapshotInfo *info,
                                                  Fresh *fresh, GError **errp)
{
    g_autofree Qcow2L1 *copy = copy_l1(s->l1);
    int ret = qcow2_snapshot_table_read(s, fresh->table);

    if (ret >= 0) {
        ret = qcow2_snapshot_store_l1(s, copy, &fresh->l1_offset);
    }
    if (ret >= 0) {
        fresh->l1_bytes = (uint64_t)copy->count * 8;
        append_entry(s, info, fresh->l1_offset, copy->count, fresh->table);
        ret = qcow2_snapshot_table_store(s, fresh->table, &fresh->table_offset);
        if (ret < 0) {
            qcow2_free_clusters(s, fresh->l1_offset, fresh->l1_bytes);
        }
    }
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not write the snapshot table", s->name);
    }
    return ret;
}

/* Refcounts are raised: let the header lead to the tables. What fails frees them. */
static int coroutine_fn GRAPH_RDLOCK link_snapshot(Qcow2State *s, const Fresh *fresh,
                                                   bool *uncertain, GError **errp)
{
    int ret = qcow2_snapshots_settle(s);

    if (ret < 0) {
        qcow2_free_clusters(s, fresh->table_offset, fresh->table->len);
    } else {
        ret = qcow2_snapshot_table_switch(s, fresh->table, s->snapshots.count + 1,
                                          fresh->table_offset, uncertain);
    }
    if (ret < 0 && !*uncertain) {
        qcow2_free_clusters(s, fresh->l1_offset, fresh->l1_bytes);
    }
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not write the snapshot table", s->name);
    }
    return ret;
}

/* The dirty bit is set. What fails is undone; @uncertain: it may have happened. */
static int coroutine_fn GRAPH_RDLOCK create(Qcow2State *s, const Fresh *fresh, GError **errp)
{
    bool uncertain = false;
    int ret = qcow2_active_clear_copied(s);

    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not clear the \"copied\" flags", s->name);
    } else {
        ret = qcow2_tree_raise(s, s->l1, errp);
    }
    if (ret < 0) {
        qcow2_free_clusters(s, fresh->table_offset, fresh->table->len);
        qcow2_free_clusters(s, fresh->l1_offset, fresh->l1_bytes);
    } else {
        ret = link_snapshot(s, fresh, &uncertain, errp);
        if (ret < 0 && !uncertain) {
            qcow2_tree_undo_raise(s, s->l1);
        }
    }
    if (ret < 0) {
        qcow2_active_set_copied(s);
    } else {
        s->writer->copied_missing = false; /* all has a second reference */
    }
    return ret;
}

int coroutine_fn qcow2_co_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info,
                                          GError **errp)
{
    g_autoptr(GByteArray) table = g_byte_array_new();
    Qcow2State *s = bdrv_state(bs);
    Fresh fresh = { .table = table };
    int ret = qcow2_snapshots_begin(s, errp);

    bdrv_graph_assert_readable();
    if (ret >= 0) {
        ret = check_room(s, errp);
    }
    if (ret < 0) {
        return ret;
    }
    ret = store_tables(s, info, &fresh, errp);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_set_dirty(s->writer, true);
    if (ret < 0) {
        qcow2_free_clusters(s, fresh.table_offset, table->len);
        qcow2_free_clusters(s, fresh.l1_offset, fresh.l1_bytes);
        block_error_set_errno(errp, -ret, "'%s': could not set the dirty bit", s->name);
        return ret;
    }
    ret = create(s, &fresh, errp);
    if (qcow2_snapshots_settle(s) >= 0 && !s->writer->copied_missing) {
        qcow2_set_dirty(s->writer, false); /* else when it is closed */
    }
    return ret;
}

/* ---- Delete --------------------------------------------------------------------------------- */

/* Take entry @index out of @table. */
static void remove_entry(const Qcow2State *s, uint32_t index, GByteArray *table)
{
    guint at = 0, length = 0;

    for (uint32_t i = 0; i <= index; i++) {
        Qcow2Snapshot sn;

        at += length;
        length = qcow2_snapshot_parse(table->data + at, s->header.version, &sn);
        g_free(sn.id);
        g_free(sn.name);
    }
    g_byte_array_remove_range(table, at, length);
}

static int coroutine_fn GRAPH_RDLOCK unlink_snapshot(Qcow2State *s, uint32_t index, GError **errp)
{
    g_autoptr(GByteArray) table = g_byte_array_new();
    bool uncertain;
    int ret = qcow2_snapshot_table_read(s, table);

    if (ret >= 0) {
        remove_entry(s, index, table);
        ret = qcow2_snapshot_table_replace(s, table, s->snapshots.count - 1, &uncertain);
    }
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not write the snapshot table", s->name);
    }
    return ret;
}

/* Nothing on the disk leads to the snapshot any more. */
static int coroutine_fn GRAPH_RDLOCK drop_snapshot(Qcow2State *s, const Qcow2L1 *l1,
                                                   uint64_t offset, uint64_t bytes)
{
    int ret = qcow2_set_dirty(s->writer, true), other;

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_tree_drop(s, l1);
    if (bytes > 0) {
        qcow2_free_clusters(s, offset, bytes);
    }
    other = qcow2_active_set_copied(s);
    if (other >= 0) {
        other = qcow2_set_dirty(s->writer, false);
    }
    return ret < 0 ? ret : other;
}

int coroutine_fn qcow2_co_snapshot_delete(BlockDriverState *bs, size_t index, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    const Qcow2Snapshot *sn = &s->snapshots.entries[index];
    uint64_t offset = sn->l1_table_offset, bytes = (uint64_t)sn->l1_size * 8;
    g_autofree Qcow2L1 *l1 = NULL;
    int ret = qcow2_snapshots_begin(s, errp);

    bdrv_graph_assert_readable();
    if (ret < 0) {
        return ret;
    }
    l1 = qcow2_snapshot_load_l1(s, sn, 0, errp);
    if (!l1) {
        return -EIO;
    }
    ret = unlink_snapshot(s, index, errp);
    if (ret < 0) {
        return ret;
    }
    ret = drop_snapshot(s, l1, offset, bytes);
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': the snapshot is deleted, but not all of its "
                              "clusters could be given back", s->name);
    }
    return ret;
}
