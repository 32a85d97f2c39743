/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 check -r all: a snapshot table without what makes the old one invalid.
 *
 * It is written behind the end of the file; the old one keeps its clusters
 * until the header points to the new.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-check.h"

#define SNAPSHOTS_IN_HEADER_AT 60
/* An entry: its fields, then extra data, ID and name. */
#define FIXED 40
#define EXTRA_SIZE_AT 36

static void put(uint8_t *p, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++) {
        p[i] = value >> 8 * (bytes - 1 - i);
    }
}

/* A whole entry as it is, but for extra data that is too long. */
typedef struct Entry {
    uint8_t bytes[QCOW2_SNAPSHOT_ENTRY_MAX];
    uint64_t length; /* in the file, with padding */
} Entry;

static int coroutine_fn GRAPH_RDLOCK read_entry(Qcow2Check *c, Qcow2Window *window,
                                                uint64_t offset, uint32_t index, Entry *entry)
{
    const uint8_t *data;
    uint32_t extra, kept, names;
    int ret = qcow2_window_get(window, offset, FIXED + QCOW2_MAX_SNAPSHOT_EXTRA, &data);

    if (ret < 0) {
        return qcow2_check_unreadable(c, ret, "snapshot table entry", offset);
    }
    memset(entry->bytes, 0, sizeof(entry->bytes));
    extra = qcow2_be32(data + EXTRA_SIZE_AT);
    kept = MIN(extra, QCOW2_MAX_SNAPSHOT_EXTRA);
    names = qcow2_be16(data + 12) + qcow2_be16(data + 14);
    entry->length = (FIXED + (uint64_t)extra + names + 7) & ~7ULL;
    memcpy(entry->bytes, data, FIXED + kept);
    put(entry->bytes + EXTRA_SIZE_AT, 4, kept);
    if (extra > kept) {
        qcow2_check_corrupt(c,
                            "Discarding too much extra metadata in snapshot table entry %u "
                            "(%u > %d)",
                            index, extra, QCOW2_MAX_SNAPSHOT_EXTRA);
    }
    ret = qcow2_window_get(window, offset + FIXED + extra, names, &data);
    if (ret < 0) {
        return qcow2_check_unreadable(c, ret, "snapshot table entry", offset);
    }
    memcpy(entry->bytes + FIXED + kept, data, names);
    return 0;
}

static void discard_rest(Qcow2Check *c, uint32_t count, const char *why)
{
    qcow2_check_report(c, "Discarding %u overhanging snapshots%s", count, why);
    c->result->corruptions += count;
}

/* Take over the next entry, or find that there is none: *@end. */
static int coroutine_fn GRAPH_RDLOCK take_entry(Qcow2Check *c, Qcow2Window *window, uint32_t index,
                                                uint32_t count, Entry *entry, bool *end)
{
    Qcow2SnapshotTable *table = &c->snapshots;
    Qcow2Snapshot *sn = &table->entries[table->count];
    uint64_t offset = c->s->header.snapshots_offset + table->bytes;
    int ret;

    *end = offset >= c->file_length;
    if (*end) {
        discard_rest(c, count - index, "");
        return 0;
    }
    ret = read_entry(c, window, offset, index, entry);
    if (ret < 0) {
        return ret;
    }
    *end = table->bytes + entry->length > QCOW2_MAX_SNAPSHOT_TABLE;
    if (*end) {
        discard_rest(c, count - index, " (snapshot table is too big)");
        return 0;
    }
    table->bytes += entry->length;
    qcow2_snapshot_parse(entry->bytes, c->s->header.version, sn);
    table->count++;
    if (sn->l1_table_offset == 0 && sn->l1_size == 0) {
        qcow2_check_corrupt(c, "Discarding empty snapshot table entry %u", index);
        g_free(sn->id);
        g_free(sn->name);
        table->count--;
        return 0;
    }
    if (sn->incomplete) {
        qcow2_check_corrupt(c, "Repairing snapshot table entry %u is incomplete", index);
    }
    qcow2_snapshot_append(c->new_snapshots, entry->bytes, c->s->header.size);
    return 0;
}

/* Remember where the file has the old table. */
static void hold_old(Qcow2Check *c)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t offset = c->s->header.snapshots_offset;

    if (offset < c->file_length) {
        c->held_first = offset >> geo->cluster_bits;
        c->held_end = c->held_first + qcow2_clusters(geo, MIN(c->snapshots.bytes,
                                                              c->file_length - offset));
    }
}

int coroutine_fn qcow2_repair_load_snapshots(Qcow2Check *c)
{
    const Qcow2Header *h = &c->s->header;
    uint32_t count = MIN(h->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
    g_autofree Entry *entry = g_new(Entry, 1);
    Qcow2Window window = { .file = c->s->file };
    bool end = false;
    int ret = 0;

    if (count < h->nb_snapshots) {
        discard_rest(c, h->nb_snapshots - count, "");
    }
    c->snapshots.entries = g_new0(Qcow2Snapshot, count);
    c->new_snapshots = g_byte_array_new();
    for (uint32_t i = 0; i < count && ret == 0 && !end; i++) {
        ret = take_entry(c, &window, i, count, entry, &end);
    }
    qcow2_window_clear(&window);
    c->snapshot_corruptions = c->result->corruptions;
    if (c->snapshot_corruptions == 0) {
        g_clear_pointer(&c->new_snapshots, g_byte_array_unref);
    } else {
        hold_old(c);
    }
    return ret;
}

void qcow2_repair_place_snapshots(Qcow2Check *c)
{
    const Qcow2Geometry *geo = &c->s->geo;
    unsigned bits = qcow2_refcount_block_bits(geo);
    uint64_t clusters = qcow2_clusters(geo, c->new_snapshots->len);
    uint64_t end = qcow2_clusters(geo, c->file_length);

    if (clusters == 0) {
        return;
    }
    c->own_first = qcow2_repair_behind_end(c, clusters);
    c->own_end = c->own_first + clusters;
    for (uint64_t cluster = c->own_first; cluster < c->own_end; cluster++) {
        qcow2_refmap_add(c->references, cluster);
    }
    for (uint64_t index = end >> bits; index <= (c->own_end - 1) >> bits; index++) {
        c->rebuild |= index >= c->reftable_entries || c->reftable[index] == 0;
    }
    c->file_length = c->own_end << geo->cluster_bits;
}

/* The old table is used no more: its clusters go with the leaks. */
static void release_old(Qcow2Check *c)
{
    unsigned bits = qcow2_refcount_block_bits(&c->s->geo);

    for (uint64_t i = c->held_first >> bits; i << bits < c->held_end; i++) {
        if (i < c->reftable_entries && c->reftable[i] != 0) {
            g_array_append_val(c->too_high, i);
        }
    }
}

static int coroutine_fn GRAPH_RDLOCK write_table(Qcow2Check *c)
{
    unsigned bits = c->s->geo.cluster_bits;
    guint bytes = (c->own_end - c->own_first) << bits;
    guint used = c->new_snapshots->len;
    int ret;

    if (bytes == 0) {
        return 0;
    }
    g_byte_array_set_size(c->new_snapshots, bytes);
    memset(c->new_snapshots->data + used, 0, bytes - used);
    ret = qcow2_repair_write(c, c->own_first << bits, bytes, c->new_snapshots->data,
                             "snapshot table");
    return ret < 0 ? ret : qcow2_repair_flush(c);
}

int coroutine_fn qcow2_repair_write_snapshots(Qcow2Check *c)
{
    Qcow2Header *h = &c->s->header;
    uint64_t offset = c->own_first << c->s->geo.cluster_bits;
    uint8_t field[12];
    int ret = write_table(c);

    put(field, 4, c->snapshots.count);
    put(field + 4, 8, offset);
    if (ret == 0) {
        ret = qcow2_repair_write(c, SNAPSHOTS_IN_HEADER_AT, sizeof(field), field, "header");
    }
    if (ret < 0) {
        return ret;
    }
    h->nb_snapshots = c->snapshots.count;
    h->snapshots_offset = offset;
    c->result->corruptions -= c->snapshot_corruptions;
    c->result->corruptions_fixed += c->snapshot_corruptions;
    release_old(c);
    return 0;
}
