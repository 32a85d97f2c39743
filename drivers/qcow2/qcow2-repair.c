/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 check -r: writing what check has found out, in an order that a power
 * cut may end anywhere:
 *
 *  1. refcounts are raised, or new ones built;
 *  2. entries are repaired, and a new snapshot table is linked in;
 *  3. refcounts are lowered;
 *  4. the dirty and the corrupt bit are cleared.
 *
 * A flush stands between any two of these that have something to write, so that
 * no refcount is ever below the references on disk but for what was so before.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"
#include "drivers/qcow2/qcow2-check.h"

#define INCOMPATIBLE_FEATURES_AT 72
#define AUTOCLEAR_FEATURES_AT 88
#define AUTOCLEAR_KNOWN (QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_FILE_RAW)

int qcow2_repair_unwritable(Qcow2Check *c, int ret, const char *what, uint64_t offset)
{
    qcow2_check_report(c, "ERROR: '%s': could not write %s at offset %" G_GUINT64_FORMAT ": %s",
                       c->s->name, what, offset, g_strerror(-ret));
    c->result->check_errors++;
    return ret;
}

int coroutine_fn qcow2_repair_grow(Qcow2Check *c, uint64_t end)
{
    g_autoptr(GError) err = NULL;
    int ret = 0;

    if (end > qcow2_file_length(c->s)) {
        ret = bdrv_co_truncate(c->s->file, end, false, BLOCK_PREALLOC_OFF, &err);
        c->wrote = true;
    }
    if (ret < 0) {
        qcow2_check_report(c, "ERROR: '%s': could not grow to %" G_GUINT64_FORMAT " bytes: %s",
                           c->s->name, end, err->message);
        c->result->check_errors++;
    }
    return ret;
}

int coroutine_fn qcow2_repair_write(Qcow2Check *c, uint64_t offset, uint64_t bytes,
                                    const void *buf, const char *what)
{
    int ret = qcow2_repair_grow(c, offset + bytes);

    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_pwrite(c->s->file, offset, bytes, buf, 0);
    c->wrote = true;
    return ret < 0 ? qcow2_repair_unwritable(c, ret, what, offset) : 0;
}

int coroutine_fn qcow2_repair_flush(Qcow2Check *c)
{
    int ret;

    if (!c->wrote) {
        return 0;
    }
    ret = bdrv_co_flush(bdrv_child_bs(c->s->file));
    if (ret < 0) {
        qcow2_check_report(c, "ERROR: '%s': could not flush: %s", c->s->name, g_strerror(-ret));
        c->result->check_errors++;
        return ret;
    }
    c->wrote = false;
    return 0;
}

/* ---- What may be written over --------------------------------------------------------- */

static void add_fixed(Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    unsigned bits = c->s->geo.cluster_bits;
    uint64_t end;

    if (bytes == 0 || offset >= c->file_length || __builtin_add_overflow(offset, bytes, &end)) {
        return;
    }
    end = MIN(end, c->file_length);
    for (uint64_t cluster = offset >> bits; cluster <= (end - 1) >> bits; cluster++) {
        qcow2_refmap_add(c->fixed, cluster);
    }
}

static void make_fixed(Qcow2Check *c)
{
    const Qcow2State *s = c->s;
    const Qcow2Header *h = &s->header;
    uint64_t cluster_size = qcow2_cluster_size(&s->geo);

    c->fixed = qcow2_refmap_new();
    add_fixed(c, 0, cluster_size);
    add_fixed(c, h->l1_table_offset, (uint64_t)h->l1_size * 8);
    add_fixed(c, h->refcount_table_offset, h->refcount_table_clusters * cluster_size);
    for (uint64_t i = 0; i < c->reftable_entries; i++) {
        if (c->reftable[i] != 0) {
            add_fixed(c, c->reftable[i] & QCOW2_REFTABLE_OFFSET_MASK, cluster_size);
        }
    }
    add_fixed(c, h->snapshots_offset, c->snapshots.bytes);
    for (uint32_t i = 0; i < c->snapshots.count; i++) {
        add_fixed(c, c->snapshots.entries[i].l1_table_offset,
                  (uint64_t)c->snapshots.entries[i].l1_size * 8);
    }
    add_fixed(c, s->ext.bitmap_directory_offset, s->ext.bitmap_directory_size);
    add_fixed(c, s->ext.crypto_offset, s->ext.crypto_length);
}

bool qcow2_repair_may_write(Qcow2Check *c, uint64_t offset, uint64_t bytes, bool own)
{
    const Qcow2Geometry *geo = &c->s->geo;

    if (qcow2_offset_into_cluster(geo, offset)) {
        return false;
    }
    if (!c->fixed) {
        make_fixed(c);
    }
    for (uint64_t at = 0; at < bytes; at += qcow2_cluster_size(geo)) {
        if (qcow2_refmap_get(c->fixed, (offset + at) >> geo->cluster_bits) > own) {
            return false;
        }
    }
    return true;
}

/* ---- Refcounts where they are ------------------------------------------------------------ */

/* Give the refcounts of block @index that are too low (or too high) their values. */
static int coroutine_fn GRAPH_RDLOCK apply_block(Qcow2Check *c, uint64_t index, bool raise,
                                                 uint8_t *block)
{
    const Qcow2Geometry *geo = &c->s->geo;
    unsigned bits = qcow2_refcount_block_bits(geo);
    uint64_t offset = c->reftable[index] & QCOW2_REFTABLE_OFFSET_MASK;
    uint64_t end = qcow2_check_end(c);
    int ret = bdrv_co_pread(c->s->file, offset, qcow2_cluster_size(geo), block, 0);

    if (ret < 0) {
        return qcow2_check_unreadable(c, ret, "refcount block", offset);
    }
    for (uint64_t i = 0; i < 1ULL << bits && (index << bits) + i < end; i++) {
        uint64_t refcount = qcow2_refcount_at(block, geo->refcount_order, i);
        uint64_t wanted = qcow2_check_wanted(c, (index << bits) + i);

        if (raise ? refcount < wanted : refcount > wanted) {
            qcow2_refcount_set(block, geo->refcount_order, i, wanted);
        }
    }
    bdrv_co_debug_event(c->s->file, BDRV_DEBUG_REFBLOCK_UPDATE_PART);
    return qcow2_repair_write(c, offset, qcow2_cluster_size(geo), block, "refcount block");
}

static int coroutine_fn GRAPH_RDLOCK apply_blocks(Qcow2Check *c, const GArray *blocks, bool raise)
{
    g_autofree uint8_t *block = g_malloc(qcow2_cluster_size(&c->s->geo));
    int ret = 0;

    for (guint i = 0; i < blocks->len && ret == 0; i++) {
        ret = apply_block(c, g_array_index(blocks, uint64_t, i), raise, block);
    }
    qcow2_check_drop_blocks(c);
    return ret;
}

/* Look again, this time to put down what is to be done; then raise. */
static int coroutine_fn GRAPH_RDLOCK repair_in_place(Qcow2Check *c)
{
    int ret;

    c->result->leaks = 0;
    c->result->corruptions = c->other_corruptions;
    c->result->check_errors = c->other_errors;
    ret = qcow2_check_compare(c, c->fix);
    if (ret == 0) {
        ret = apply_blocks(c, c->too_low, true);
    }
    if (ret == 0) {
        ret = qcow2_repair_flush(c);
    }
    if (ret == 0) {
        c->result->corruptions_fixed += c->nb_too_low;
    }
    return ret;
}

int coroutine_fn qcow2_repair_refcounts(Qcow2Check *c)
{
    const BdrvCheckResult *r = c->result;
    int ret = 0;

    /* Old refcounts that are behind the end do not matter. */
    g_array_set_size(c->strays, c->other_strays);
    if (c->new_snapshots) {
        qcow2_repair_place_snapshots(c);
    }
    if (c->rebuild && !(c->fix & BDRV_FIX_ERRORS)) {
        qcow2_check_report(c, "ERROR need to rebuild refcount structures");
        return -EIO;
    }
    if (c->rebuild) {
        ret = qcow2_repair_rebuild(c);
    } else if (r->leaks > 0 || r->corruptions > c->other_corruptions || c->new_snapshots) {
        ret = repair_in_place(c);
    }
    c->settled = ret == 0;
    return ret;
}

/* ---- Begin and end ------------------------------------------------------------------------ */

static int coroutine_fn GRAPH_RDLOCK write_features(Qcow2Check *c, uint64_t at, uint64_t *features,
                                                    uint64_t value)
{
    uint64_t word = GUINT64_TO_BE(value);
    int ret;

    if (c->s->header.version < 3 || *features == value) {
        return 0;
    }
    ret = qcow2_repair_write(c, at, sizeof(word), &word, "header");
    if (ret == 0) {
        *features = value;
    }
    return ret;
}

int coroutine_fn qcow2_repair_begin(Qcow2Check *c)
{
    Qcow2Header *h = &c->s->header;

    return write_features(c, AUTOCLEAR_FEATURES_AT, &h->autoclear_features,
                          h->autoclear_features & AUTOCLEAR_KNOWN);
}

int coroutine_fn qcow2_repair_end(Qcow2Check *c)
{
    BdrvCheckResult *r = c->result;
    Qcow2Header *h = &c->s->header;
    int ret = qcow2_repair_flush(c);

    if (ret == 0) {
        ret = apply_blocks(c, c->too_high, false);
    }
    if (ret == 0) {
        ret = qcow2_repair_flush(c);
    }
    if (ret < 0) {
        return ret;
    }
    r->leaks_fixed += c->nb_too_high;
    if (r->corruptions > 0 || r->check_errors > 0) {
        return 0;
    }
    ret = write_features(c, INCOMPATIBLE_FEATURES_AT, &h->incompatible_features,
                         h->incompatible_features &
                             ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT));
    return ret < 0 ? ret : qcow2_repair_flush(c);
}

int coroutine_fn qcow2_repair_forget(Qcow2State *s)
{
    g_autoptr(GError) err = NULL;

    g_clear_pointer(&s->l1, g_free); /* the next request loads it */
    qcow2_cache_free(s->l2_cache);
    s->l2_cache = qcow2_cache_new(s->options.l2_cache_size, s->options.l2_slice_bytes);
    if (s->snapshots.count > 0) {
        qcow2_snapshots_clear(&s->snapshots);
        if (!qcow2_snapshots_load(s, false, &s->snapshots, &err)) {
            return block_error_to_errno(err);
        }
    }
    return qcow2_writer_forget(s);
}
