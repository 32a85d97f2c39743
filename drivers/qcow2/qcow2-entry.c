/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what L1 and L2 entries say (sections "Cluster mapping" and "Extended
 * L2 Entries"). No I/O here. Reserved bits are masked out, as QEMU does, and left
 * for check to report.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2.h"

void qcow2_compressed_place(const Qcow2Geometry *geo, uint64_t entry, uint64_t *offset,
                            uint64_t *bytes)
{
    unsigned x = 62 - (geo->cluster_bits - 8);
    uint64_t place = entry & ((1ULL << x) - 1);
    uint64_t sectors = ((entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> x) + 1;

    *offset = place;
    *bytes = sectors * 512 - (place & 511);
}

bool qcow2_l1_entry_valid(const Qcow2Geometry *geo, uint64_t entry, uint64_t *l2_offset)
{
    *l2_offset = entry & QCOW2_OFFSET_MASK;
    return !qcow2_offset_into_cluster(geo, *l2_offset);
}

/* One subcluster (or, without extended L2, one cluster) of a table. */
typedef struct Unit {
    Qcow2Kind kind;
    bool has_place;
    bool copied;
    uint64_t host;
} Unit;

static Unit invalid_unit(void)
{
    return (Unit){ .kind = QCOW2_KIND_INVALID };
}

static Unit compressed_unit(const Qcow2Geometry *geo, uint64_t entry, uint64_t data_length)
{
    Unit unit = { .kind = QCOW2_KIND_COMPRESSED, .has_place = true };
    uint64_t bytes;

    qcow2_compressed_place(geo, entry, &unit.host, &bytes);
    if (geo->external_data || unit.host >> 56 || unit.host >= data_length) {
        return invalid_unit();
    }
    return unit;
}

/* The allocation bitmap of an extended entry decides for @subcluster. */
static Qcow2Kind subcluster_kind(uint64_t bitmap, unsigned subcluster, bool has_place)
{
    uint32_t allocated = bitmap, zero = bitmap >> 32;

    if ((allocated & zero) || (allocated && !has_place)) {
        return QCOW2_KIND_INVALID;
    }
    if (zero >> subcluster & 1) {
        return QCOW2_KIND_ZERO;
    }
    return allocated >> subcluster & 1 ? QCOW2_KIND_DATA : QCOW2_KIND_UNALLOCATED;
}

static Qcow2Kind standard_kind(const Qcow2Geometry *geo, uint64_t entry, bool has_place)
{
    if (entry & QCOW2_ZERO) {
        /* Version 2 has no zero clusters: the bit is reserved there. */
        return geo->version < 3 ? QCOW2_KIND_INVALID : QCOW2_KIND_ZERO;
    }
    return has_place ? QCOW2_KIND_DATA : QCOW2_KIND_UNALLOCATED;
}

static Unit decode_unit(const Qcow2Geometry *geo, const Qcow2Entries *entries, size_t index,
                        unsigned subcluster)
{
    bool extended = geo->subclusters > 1;
    const uint64_t *words = entries->words + (index << (geo->l2_entry_bits - 3));
    /* A writer may be storing others of these entries. */
    uint64_t entry = __atomic_load_n(&words[0], __ATOMIC_RELAXED);
    uint64_t bitmap = extended ? __atomic_load_n(&words[1], __ATOMIC_RELAXED) : 0;
    uint64_t place = entry & QCOW2_OFFSET_MASK;
    Unit unit;

    if (entry & QCOW2_COMPRESSED) {
        return compressed_unit(geo, entry, entries->data_length);
    }
    /* Offset 0 is a place only in an external data file. */
    unit.has_place = place != 0 || (geo->external_data && (entry & QCOW2_COPIED) &&
                                    (extended || !(entry & QCOW2_ZERO)));
    unit.kind = extended ? subcluster_kind(bitmap, subcluster, unit.has_place)
                         : standard_kind(geo, entry, unit.has_place);
    unit.host = place + ((uint64_t)subcluster << geo->subcluster_bits);
    unit.copied = entry & QCOW2_COPIED;
    if (unit.kind == QCOW2_KIND_INVALID || !unit.has_place) {
        return unit;
    }
    if (qcow2_offset_into_cluster(geo, place) ||
        (geo->external_data &&
         place != entries->guest_first + ((uint64_t)index << geo->cluster_bits)) ||
        (unit.kind == QCOW2_KIND_DATA && place >= entries->data_length)) {
        return invalid_unit();
    }
    return unit;
}

/* Whether @next, right behind @unit in the guest, belongs to the same run. */
static bool continues(const Unit *unit, const Unit *next, uint64_t unit_size, bool by_copied)
{
    return unit->kind == next->kind && unit->kind != QCOW2_KIND_COMPRESSED &&
           (!by_copied || unit->copied == next->copied) &&
           unit->has_place == next->has_place &&
           (!unit->has_place || unit->host + unit_size == next->host);
}

int qcow2_find_run(const Qcow2Geometry *geo, const Qcow2Entries *entries, uint64_t offset,
                   Qcow2Run *run)
{
    unsigned per_cluster_bits = geo->cluster_bits - geo->subcluster_bits;
    unsigned mask = geo->subclusters - 1;
    uint64_t unit_size = 1ULL << geo->subcluster_bits;
    size_t total = entries->count << per_cluster_bits;
    size_t at = (offset - entries->guest_first) >> geo->subcluster_bits;
    size_t first, last;
    Unit here = decode_unit(geo, entries, at >> per_cluster_bits, at & mask), unit, next;

    if (here.kind == QCOW2_KIND_INVALID) {
        return -EIO;
    }
    run->kind = here.kind;
    run->has_place = here.has_place;
    run->copied = here.copied;
    run->host_bytes = 0;
    if (here.kind == QCOW2_KIND_COMPRESSED) {
        size_t index = at >> per_cluster_bits;

        run->offset = entries->guest_first + ((uint64_t)index << geo->cluster_bits);
        run->bytes = qcow2_cluster_size(geo);
        uint64_t entry = __atomic_load_n(&entries->words[index << (geo->l2_entry_bits - 3)],
                                         __ATOMIC_RELAXED);

        qcow2_compressed_place(geo, entry, &run->host, &run->host_bytes);
        return 0;
    }
    for (first = at, unit = here; first > 0; first--, unit = next) {
        next = decode_unit(geo, entries, (first - 1) >> per_cluster_bits, (first - 1) & mask);
        if (!continues(&next, &unit, unit_size, entries->by_copied)) {
            break;
        }
    }
    run->host = unit.host;
    for (last = at, unit = here; last + 1 < total; last++, unit = next) {
        next = decode_unit(geo, entries, (last + 1) >> per_cluster_bits, (last + 1) & mask);
        if (!continues(&unit, &next, unit_size, entries->by_copied)) {
            break;
        }
    }
    run->offset = entries->guest_first + ((uint64_t)first << geo->subcluster_bits);
    run->bytes = (uint64_t)(last - first + 1) << geo->subcluster_bits;
    return 0;
}
