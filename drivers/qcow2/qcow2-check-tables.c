/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 check: what L1 and L2 tables refer to, and whether their entries are
 * sound. One kind of unsound entry is repaired at once.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-check.h"

#define HEX G_GINT64_MODIFIER "x"

/* One pass over an L2 table. */
typedef struct L2Pass {
    Qcow2Check *c;
    bool active;        /* gather statistics */
    uint64_t l2_offset; /* of the table */
    uint64_t at;        /* of the entry in it */
    uint64_t guest;     /* offset of the entry's cluster */
    uint64_t next_host; /* right behind the last allocated cluster */
} L2Pass;

int coroutine_fn qcow2_check_read_l1(Qcow2Check *c, uint64_t offset, uint32_t size,
                                     uint64_t **entries, uint64_t *count)
{
    int ret;

    *count = offset < c->file_length ? MIN(size, (c->file_length - offset) / 8) : 0;
    *entries = g_try_malloc(MAX(*count * 8, 1));
    if (!*entries) {
        return -ENOMEM;
    }
    ret = *count ? bdrv_co_pread(c->s->file, offset, *count * 8, *entries, 0) : 0;
    if (ret < 0) {
        g_clear_pointer(entries, g_free);
        return qcow2_check_unreadable(c, ret, "L1 table", offset);
    }
    qcow2_words_to_host(*entries, *count);
    return 0;
}

int coroutine_fn qcow2_check_read_l2(Qcow2Check *c, uint64_t offset, uint64_t *words)
{
    size_t bytes = qcow2_cluster_size(&c->s->geo);
    int ret = 0;

    if (offset >= c->file_length) {
        memset(words, 0, bytes);
    } else {
        bdrv_co_debug_event(c->s->file, BDRV_DEBUG_L2_LOAD);
        ret = bdrv_co_pread(c->s->file, offset, bytes, words, 0);
    }
    if (ret < 0) {
        return qcow2_check_unreadable(c, ret, "L2 table", offset);
    }
    qcow2_words_to_host(words, bytes / 8);
    return 0;
}

static void check_compressed(L2Pass *pass, uint64_t entry, uint64_t bitmap)
{
    Qcow2Check *c = pass->c;
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t offset, bytes;

    qcow2_compressed_place(geo, entry, &offset, &bytes);
    if (entry & QCOW2_COPIED) {
        qcow2_check_corrupt(
            c, "ERROR: coffset=0x%" HEX ": copied flag must never be set for compressed clusters",
            offset);
        entry &= ~QCOW2_COPIED;
    }
    if (geo->external_data) {
        qcow2_check_corrupt(c,
                            "ERROR compressed cluster %" G_GUINT64_FORMAT
                            " with data file, entry=0x%" HEX,
                            pass->guest >> geo->cluster_bits, entry);
        return;
    }
    if (bitmap) {
        qcow2_check_corrupt(c,
                            "ERROR compressed cluster %" G_GUINT64_FORMAT
                            " with non-zero subcluster allocation bitmap, entry=0x%" HEX,
                            pass->guest >> geo->cluster_bits, entry);
        return;
    }
    qcow2_check_reference(c, offset, bytes);
    if (pass->active) {
        c->result->allocated_clusters++;
        c->result->compressed_clusters++;
        /* Their data never lies in one piece with their neighbours'. */
        c->result->fragmented_clusters++;
    }
}

/* Whether the entry of @pass can be replaced. */
static bool coroutine_fn GRAPH_RDLOCK may_repair(L2Pass *pass)
{
    Qcow2Check *c = pass->c;

    return (c->fix & BDRV_FIX_ERRORS) && c->s->geo.version >= 3 &&
           pass->l2_offset + pass->at < c->file_length &&
           qcow2_repair_may_write(c, pass->l2_offset, qcow2_cluster_size(&c->s->geo), false);
}

/* The entry's cluster reads as zeros, wherever that was to lie: leave out the place. */
static int coroutine_fn GRAPH_RDLOCK repair_as_zero(L2Pass *pass)
{
    Qcow2Check *c = pass->c;
    bool extended = c->s->geo.subclusters > 1;
    uint64_t words[2] = { GUINT64_TO_BE(extended ? 0 : QCOW2_ZERO),
                          GUINT64_TO_BE((uint64_t)UINT32_MAX << 32) };
    int ret = qcow2_repair_write(c, pass->l2_offset + pass->at, extended ? 16 : 8, words,
                                 "L2 table entry");

    if (ret == 0) {
        c->result->corruptions--;
        c->result->corruptions_fixed++;
    }
    return ret;
}

/* Its offset is in the middle of a cluster. *@repaired: it has no place any more. */
static int coroutine_fn GRAPH_RDLOCK check_misaligned(L2Pass *pass, uint64_t offset, bool is_zero,
                                                      bool *repaired)
{
    *repaired = is_zero && may_repair(pass);
    qcow2_check_corrupt(
        pass->c, "%s offset=%" HEX ": %s cluster is not properly aligned; L2 entry corrupted.",
        *repaired ? "Repairing" : "ERROR", offset, is_zero ? "Preallocated" : "Data");
    return *repaired ? repair_as_zero(pass) : 0;
}

/* An entry with a place: data, or a zero cluster that keeps one. */
static int coroutine_fn GRAPH_RDLOCK check_place(L2Pass *pass, uint64_t entry, bool is_zero)
{
    Qcow2Check *c = pass->c;
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (qcow2_offset_into_cluster(geo, offset)) {
        bool repaired;
        int ret = check_misaligned(pass, offset, is_zero, &repaired);

        if (ret < 0 || repaired) {
            return ret;
        }
    }
    if (pass->active) {
        c->result->allocated_clusters++;
        if (pass->next_host && offset != pass->next_host) {
            c->result->fragmented_clusters++;
        }
        pass->next_host = offset + qcow2_cluster_size(geo);
    }
    if (!geo->external_data) {
        qcow2_check_reference(c, offset, qcow2_cluster_size(geo));
    }
    return 0;
}

static bool has_place(const Qcow2Geometry *geo, uint64_t entry)
{
    if (entry & QCOW2_OFFSET_MASK) {
        return true;
    }
    /* Offset 0 is a place only in an external data file. */
    return geo->external_data && (entry & QCOW2_COPIED) &&
           (geo->subclusters > 1 || !(entry & QCOW2_ZERO));
}

static int coroutine_fn GRAPH_RDLOCK check_l2_entry(L2Pass *pass, uint64_t entry, uint64_t bitmap)
{
    Qcow2Check *c = pass->c;
    const Qcow2Geometry *geo = &c->s->geo;
    bool extended = geo->subclusters > 1;
    uint32_t allocated = bitmap, zero = bitmap >> 32;

    if (entry & QCOW2_COMPRESSED) {
        check_compressed(pass, entry, bitmap);
        return 0;
    }
    if (entry & QCOW2_L2_RESERVED) {
        qcow2_check_corrupt(c, "ERROR found l2 entry with reserved bits set: %" HEX, entry);
    }
    if (!has_place(geo, entry)) {
        if (allocated) {
            qcow2_check_corrupt(
                c, "ERROR: Unallocated cluster has non-zero subcluster allocation map");
        }
        return 0;
    }
    if (allocated & zero) {
        qcow2_check_corrupt(c,
                            "ERROR offset=%" HEX
                            ": Allocated cluster has corrupted subcluster allocation bitmap",
                            (uint64_t)(entry & QCOW2_OFFSET_MASK));
    }
    return check_place(pass, entry, extended ? allocated == 0 : (entry & QCOW2_ZERO) != 0);
}

static int coroutine_fn GRAPH_RDLOCK check_l2(Qcow2Check *c, const uint64_t *words,
                                              uint64_t l2_offset, uint64_t guest, bool active)
{
    const Qcow2Geometry *geo = &c->s->geo;
    bool extended = geo->subclusters > 1;
    L2Pass pass = { .c = c, .active = active, .guest = guest, .l2_offset = l2_offset };
    int ret = 0;

    for (uint64_t i = 0; i < 1ULL << geo->l2_bits && ret == 0; i++) {
        const uint64_t *entry = words + (extended ? i * 2 : i);

        if (entry[0] != 0 || (extended && entry[1] != 0)) {
            pass.at = i << geo->l2_entry_bits;
            ret = check_l2_entry(&pass, entry[0], extended ? entry[1] : 0);
        }
        pass.guest += qcow2_cluster_size(geo);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK check_l1_entry(Qcow2Check *c, uint64_t entry, uint64_t guest,
                                                    bool active, uint64_t *words)
{
    const Qcow2Geometry *geo = &c->s->geo;
    uint64_t l2_offset = entry & QCOW2_OFFSET_MASK;
    int ret;

    if (entry & QCOW2_L1_RESERVED) {
        qcow2_check_corrupt(c, "ERROR found L1 entry with reserved bits set: %" HEX, entry);
    }
    if (l2_offset == 0) {
        return 0;
    }
    qcow2_check_reference(c, l2_offset, qcow2_cluster_size(geo));
    if (qcow2_offset_into_cluster(geo, l2_offset)) {
        qcow2_check_corrupt(c,
                            "ERROR l2_offset=%" HEX
                            ": Table is not cluster aligned; L1 entry corrupted",
                            l2_offset);
    }
    ret = qcow2_check_read_l2(c, l2_offset, words);
    if (ret == 0) {
        ret = check_l2(c, words, l2_offset, guest, active);
    }
    return ret;
}

int coroutine_fn qcow2_check_l1(Qcow2Check *c, uint64_t offset, uint32_t size, bool active)
{
    const Qcow2Geometry *geo = &c->s->geo;
    g_autofree uint64_t *words = g_malloc(qcow2_cluster_size(geo));
    g_autofree uint64_t *entries = NULL;
    uint64_t count;
    int ret;

    qcow2_check_reference(c, offset, (uint64_t)size * 8);
    ret = qcow2_check_read_l1(c, offset, size, &entries, &count);
    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        if (entries[i] != 0) {
            ret = check_l1_entry(c, entries[i], i << (geo->cluster_bits + geo->l2_bits), active,
                                 words);
        }
    }
    return ret;
}
