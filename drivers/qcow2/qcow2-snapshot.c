/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: internal snapshots (section "Snapshots"): the table, list, read through one. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2.h"

/* Bytes of an entry before its extra data. */
#define ENTRY_FIXED 40
#define VM_STATE_SIZE_AT 32
#define EXTRA_SIZE_AT 36
/* Longer strings are cut, as QEMU does. */
#define MAX_ID 127
#define MAX_NAME 255

static void take_extra(const uint8_t *extra, Qcow2Snapshot *sn)
{
    if (sn->extra_data_size >= 8) {
        sn->vm_state_size = qcow2_be64(extra);
    }
    sn->disk_size = sn->extra_data_size >= 16 ? qcow2_be64(extra + 8) : UINT64_MAX;
    sn->icount = sn->extra_data_size >= 24 ? qcow2_be64(extra + 16) : UINT64_MAX;
}

int64_t qcow2_snapshot_parse(const uint8_t *buf, unsigned version, Qcow2Snapshot *sn)
{
    uint16_t id_size = qcow2_be16(buf + 12);
    uint16_t name_size = qcow2_be16(buf + 14);
    int64_t length;

    memset(sn, 0, sizeof(*sn));
    sn->l1_table_offset = qcow2_be64(buf);
    sn->l1_size = qcow2_be32(buf + 8);
    sn->date_sec = qcow2_be32(buf + 16);
    sn->date_nsec = qcow2_be32(buf + 20);
    sn->vm_clock_nsec = qcow2_be64(buf + 24);
    sn->vm_state_size = qcow2_be32(buf + 32);
    sn->extra_data_size = qcow2_be32(buf + 36);
    if (sn->extra_data_size > QCOW2_MAX_SNAPSHOT_EXTRA) {
        return -EFBIG;
    }
    sn->incomplete = version >= 3 && sn->extra_data_size < QCOW2_SNAPSHOT_EXTRA;
    take_extra(buf + ENTRY_FIXED, sn);
    length = ENTRY_FIXED + sn->extra_data_size;
    sn->id = g_strndup((const char *)buf + length, MIN(id_size, MAX_ID));
    sn->name = g_strndup((const char *)buf + length + id_size, MIN(name_size, MAX_NAME));
    length += id_size + name_size;
    return (length + 7) & ~7LL;
}

uint64_t qcow2_snapshot_entry_length(const uint8_t *entry)
{
    uint64_t names = qcow2_be16(entry + 12) + qcow2_be16(entry + 14);

    return (ENTRY_FIXED + (uint64_t)qcow2_be32(entry + EXTRA_SIZE_AT) + names + 7) & ~7ULL;
}

void qcow2_snapshot_append(GByteArray *table, const uint8_t *entry, uint64_t disk_size)
{
    static const uint8_t padding[8];
    uint32_t had = qcow2_be32(entry + EXTRA_SIZE_AT), extra = MAX(had, QCOW2_SNAPSHOT_EXTRA);
    uint32_t be_extra = GUINT32_TO_BE(extra);
    uint64_t required[] = { GUINT64_TO_BE((uint64_t)qcow2_be32(entry + VM_STATE_SIZE_AT)),
                            GUINT64_TO_BE(disk_size) };
    uint8_t start[ENTRY_FIXED + QCOW2_MAX_SNAPSHOT_EXTRA];

    memcpy(start, entry, ENTRY_FIXED + had);
    memcpy(start + EXTRA_SIZE_AT, &be_extra, 4);
    for (uint32_t at = had & ~7U; at < QCOW2_SNAPSHOT_EXTRA; at += 8) {
        memcpy(start + ENTRY_FIXED + at, &required[at / 8], 8);
    }
    g_byte_array_append(table, start, ENTRY_FIXED + extra);
    g_byte_array_append(table, entry + ENTRY_FIXED + had,
                        qcow2_be16(entry + 12) + qcow2_be16(entry + 14));
    g_byte_array_append(table, padding, -table->len & 7);
}

static bool coroutine_mixed_fn GRAPH_RDLOCK load_entry(Qcow2State *s, Qcow2Window *window,
                                                       bool for_check, uint64_t file_length,
                                                       Qcow2SnapshotTable *table, GError **errp)
{
    uint64_t offset = s->header.snapshots_offset + table->bytes;
    Qcow2Snapshot *sn = &table->entries[table->count];
    const uint8_t *data;
    int64_t length;
    int ret = qcow2_window_get(window, offset, QCOW2_SNAPSHOT_ENTRY_MAX, &data);

    if (ret < 0) {
        block_error_set_errno(errp, -ret,
                              "'%s': could not read snapshot table entry %u at offset "
                              "%" G_GUINT64_FORMAT,
                              s->name, table->count, offset);
        return false;
    }
    length = qcow2_snapshot_parse(data, s->header.version, sn);
    if (length < 0) {
        block_error_set(errp, -length,
                        "'%s': snapshot table entry %u: %u bytes of extra data are more than %d",
                        s->name, table->count, sn->extra_data_size, QCOW2_MAX_SNAPSHOT_EXTRA);
        return false;
    }
    table->bytes += length;
    table->count++;
    if (!for_check && offset + length > file_length) {
        block_error_set(errp, EINVAL,
                        "'%s': snapshot table entry %u of %" G_GINT64_FORMAT
                        " bytes at offset %" G_GUINT64_FORMAT " exceeds the end of the file",
                        s->name, table->count - 1, length, offset);
        return false;
    }
    /* A hole in the file, taken for a table. */
    if (!for_check && sn->l1_table_offset == 0 && sn->l1_size == 0) {
        block_error_set(errp, EINVAL,
                        "'%s': snapshot table entry %u at offset %" G_GUINT64_FORMAT " is empty",
                        s->name, table->count - 1, offset);
        return false;
    }
    return true;
}

static bool coroutine_mixed_fn GRAPH_RDLOCK load_entries(Qcow2State *s, bool for_check,
                                                         Qcow2SnapshotTable *table, GError **errp)
{
    Qcow2Window window = { .file = s->file };
    uint64_t file_length = qcow2_file_length(s);
    bool ok = true;

    for (uint32_t i = 0; i < s->header.nb_snapshots && ok; i++) {
        if (table->bytes > QCOW2_MAX_SNAPSHOT_TABLE) {
            block_error_set(errp, EFBIG, "'%s': a table of %u snapshots is larger than %d bytes",
                            s->name, s->header.nb_snapshots, QCOW2_MAX_SNAPSHOT_TABLE);
            ok = false;
        } else {
            ok = load_entry(s, &window, for_check, file_length, table, errp);
        }
    }
    qcow2_window_clear(&window);
    return ok;
}

bool coroutine_mixed_fn qcow2_snapshots_load(Qcow2State *s, bool for_check,
                                             Qcow2SnapshotTable *table, GError **errp)
{
    uint64_t file_length = qcow2_file_length(s);
    uint64_t offset = s->header.snapshots_offset;
    uint64_t room = offset < file_length ? (file_length - offset) / ENTRY_FIXED : 0;

    memset(table, 0, sizeof(*table));
    if (s->header.nb_snapshots == 0) {
        return true;
    }
    /* No more memory than for the entries that the file has room for, and one
     * that turns out not to fit. */
    table->entries = g_new0(Qcow2Snapshot,
                            for_check ? s->header.nb_snapshots
                                      : MIN(s->header.nb_snapshots, room + 1));
    return load_entries(s, for_check, table, errp);
}

void qcow2_snapshots_clear(Qcow2SnapshotTable *table)
{
    for (uint32_t i = 0; i < table->count; i++) {
        g_free(table->entries[i].id);
        g_free(table->entries[i].name);
    }
    g_clear_pointer(&table->entries, g_free);
    table->count = 0;
}

bool qcow2_snapshot_get(BlockDriverState *bs, size_t index, BdrvSnapshotInfo *info)
{
    Qcow2State *s = bdrv_state(bs);
    const Qcow2Snapshot *sn;

    if (index >= s->snapshots.count) {
        return false;
    }
    sn = &s->snapshots.entries[index];
    *info = (BdrvSnapshotInfo){
        .id = sn->id,
        .name = sn->name,
        .vm_state_size = sn->vm_state_size,
        .date_sec = sn->date_sec,
        .date_nsec = sn->date_nsec,
        .vm_clock_nsec = sn->vm_clock_nsec,
        .icount = sn->icount,
        .disk_size = sn->disk_size,
    };
    return true;
}

static const Qcow2Snapshot *find_snapshot(const Qcow2State *s, const BdrvSnapshotInfo *wanted)
{
    for (uint32_t i = 0; i < s->snapshots.count; i++) {
        const Qcow2Snapshot *sn = &s->snapshots.entries[i];

        if (strcmp(sn->id, wanted->id) == 0 && strcmp(sn->name, wanted->name) == 0) {
            return sn;
        }
    }
    return NULL;
}

bool qcow2_snapshot_load_tmp(BlockDriverState *bs, const BdrvSnapshotInfo *snapshot, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    const Qcow2Snapshot *sn = find_snapshot(s, snapshot);
    g_autofree char *what = g_strdup_printf("L1 table of snapshot '%s'", snapshot->name);
    uint64_t length;
    Qcow2L1 *l1;

    if (!sn) {
        block_error_set(errp, ENOENT, "Can't find snapshot");
        return false;
    }
    length = sn->disk_size == UINT64_MAX ? s->header.size : sn->disk_size;
    if (sn->l1_size == 0 && length > 0) {
        block_error_set(errp, EINVAL,
                        "'%s': %s has 0 entries, too few for a size of %" G_GUINT64_FORMAT,
                        s->name, what, length);
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    l1 = qcow2_l1_load(s, sn->l1_table_offset, sn->l1_size, what, errp);
    bdrv_graph_rdunlock_main_loop();
    if (!l1) {
        return false;
    }
    g_free(s->l1);
    g_atomic_pointer_set(&s->l1, l1);
    s->l1_offset = sn->l1_table_offset;
    s->l1_size = sn->l1_size;
    /* The length stays that of the active disk, as with QEMU: a shorter
     * snapshot is padded with zeros, a longer one is cut. */
    return true;
}
