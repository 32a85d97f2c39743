/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what L1 and L2 entries, refcounts and compressed clusters mean, from
 * buffers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <string.h>
#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>
#include "repeats.h"
#include "drivers/qcow2/qcow2-check.h"

#define CLUSTER 65536ULL
#define FILE_END (1000 * CLUSTER)

static Qcow2Geometry geometry(unsigned version, bool extended, bool external)
{
    Qcow2Header header = { .version = version, .cluster_bits = 16, .refcount_order = 4 };
    Qcow2Geometry geo;

    header.incompatible_features = (extended ? QCOW2_INCOMPAT_EXTENDED_L2 : 0) |
                                   (external ? QCOW2_INCOMPAT_DATA_FILE : 0);
    qcow2_geometry_init(&geo, &header);
    return geo;
}

static int find(const Qcow2Geometry *geo, const uint64_t *words, size_t count, uint64_t offset,
                Qcow2Run *run)
{
    Qcow2Entries entries = { .words = words, .count = count, .data_length = FILE_END };

    return qcow2_find_run(geo, &entries, offset, run);
}

static void assert_run(const Qcow2Geometry *geo, const uint64_t *words, size_t count,
                       uint64_t offset, Qcow2Run expected)
{
    Qcow2Run run;

    assert_int_equal(find(geo, words, count, offset, &run), 0);
    assert_int_equal(run.kind, expected.kind);
    assert_int_equal(run.has_place, expected.has_place);
    assert_int_equal(run.offset, expected.offset);
    assert_int_equal(run.bytes, expected.bytes);
    if (expected.has_place) {
        assert_int_equal(run.host, expected.host);
        assert_int_equal(run.host_bytes, expected.host_bytes);
    }
}

static void assert_damaged(const Qcow2Geometry *geo, const uint64_t *words, size_t count,
                           uint64_t offset)
{
    Qcow2Run run;

    assert_int_equal(find(geo, words, count, offset, &run), -EIO);
}

static void runs_reach_both_ways_as_far_as_the_place_goes_on(void **state)
{
    Qcow2Geometry geo = geometry(3, false, false);
    const uint64_t words[] = {
        0, QCOW2_COPIED | 10 * CLUSTER, 11 * CLUSTER, QCOW2_COPIED | 12 * CLUSTER, 14 * CLUSTER,
        0, 0, QCOW2_ZERO, QCOW2_ZERO, QCOW2_ZERO | 20 * CLUSTER, QCOW2_ZERO | 21 * CLUSTER,
    };
    const size_t n = G_N_ELEMENTS(words);

    assert_run(&geo, words, n, 5, (Qcow2Run){ QCOW2_KIND_UNALLOCATED, false, 0, CLUSTER });
    for (int i = 1; i <= 3; i++) {
        assert_run(&geo, words, n, i * CLUSTER + 77,
                   (Qcow2Run){ QCOW2_KIND_DATA, true, CLUSTER, 3 * CLUSTER, 10 * CLUSTER });
    }
    assert_run(&geo, words, n, 4 * CLUSTER,
               (Qcow2Run){ QCOW2_KIND_DATA, true, 4 * CLUSTER, CLUSTER, 14 * CLUSTER });
    assert_run(&geo, words, n, 6 * CLUSTER,
               (Qcow2Run){ QCOW2_KIND_UNALLOCATED, false, 5 * CLUSTER, 2 * CLUSTER });
    assert_run(&geo, words, n, 8 * CLUSTER,
               (Qcow2Run){ QCOW2_KIND_ZERO, false, 7 * CLUSTER, 2 * CLUSTER });
    assert_run(&geo, words, n, 9 * CLUSTER,
               (Qcow2Run){ QCOW2_KIND_ZERO, true, 9 * CLUSTER, 2 * CLUSTER, 20 * CLUSTER });
}

static void damaged_entries_fail_and_end_a_run_before_them(void **state)
{
    Qcow2Geometry geo = geometry(3, false, false), old = geometry(2, false, false);
    static const uint64_t bad[] = {
        11 * CLUSTER + 512,  /* not aligned */
        FILE_END,                 /* begins at the end of the file */
        0x00ffffffffff0000ULL,
        QCOW2_ZERO | (11 * CLUSTER + 512),
        QCOW2_COMPRESSED | FILE_END,
    };
    const uint64_t zero[] = { QCOW2_ZERO };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        const uint64_t words[] = { 10 * CLUSTER, bad[i], 12 * CLUSTER };

        assert_damaged(&geo, words, 3, CLUSTER);
        assert_run(&geo, words, 3, 0,
                   (Qcow2Run){ QCOW2_KIND_DATA, true, 0, CLUSTER, 10 * CLUSTER });
        assert_run(&geo, words, 3, 2 * CLUSTER,
                   (Qcow2Run){ QCOW2_KIND_DATA, true, 2 * CLUSTER, CLUSTER, 12 * CLUSTER });
    }
    /* Version 2 has no zero clusters. */
    assert_damaged(&old, zero, 1, 0);
    assert_run(&geo, zero, 1, 0, (Qcow2Run){ QCOW2_KIND_ZERO, false, 0, CLUSTER });
}

static void reserved_bits_are_ignored(void **state)
{
    Qcow2Geometry geo = geometry(3, false, false);
    const uint64_t words[] = { 10 * CLUSTER, 11 * CLUSTER | 0x1fe, 12 * CLUSTER | 0x3fULL << 56,
                               1ULL << 61 };

    assert_run(&geo, words, 4, CLUSTER,
               (Qcow2Run){ QCOW2_KIND_DATA, true, 0, 3 * CLUSTER, 10 * CLUSTER });
    assert_run(&geo, words, 4, 3 * CLUSTER,
               (Qcow2Run){ QCOW2_KIND_UNALLOCATED, false, 3 * CLUSTER, CLUSTER });
}

static void a_compressed_cluster_is_a_run_of_its_own(void **state)
{
    Qcow2Geometry geo = geometry(3, false, false);
    /* With 64k clusters the length starts at bit 54. */
    const uint64_t words[] = {
        QCOW2_COMPRESSED | 3ULL << 54 | 0x12345,
        QCOW2_COMPRESSED | 3ULL << 54 | 0x12345,
        QCOW2_COMPRESSED | 127ULL << 54 | 0x20000,
    };

    assert_run(&geo, words, 3, CLUSTER + 9,
               (Qcow2Run){ QCOW2_KIND_COMPRESSED, true, CLUSTER, CLUSTER, 0x12345,
                           4 * 512 - (0x12345 & 511) });
    assert_run(&geo, words, 3, 2 * CLUSTER,
               (Qcow2Run){ QCOW2_KIND_COMPRESSED, true, 2 * CLUSTER, CLUSTER, 0x20000, CLUSTER });
}

static void small_clusters_have_long_compressed_offsets(void **state)
{
    Qcow2Geometry geo = geometry(3, false, false);
    uint64_t offset, bytes;

    geo.cluster_bits = 9;
    qcow2_compressed_place(&geo, QCOW2_COMPRESSED | 1ULL << 61 | 0x1234, &offset, &bytes);
    assert_int_equal(offset, 0x1234);
    assert_int_equal(bytes, 1024 - 0x34);
    geo.cluster_bits = 21;
    qcow2_compressed_place(&geo, QCOW2_COMPRESSED | 8191ULL << 49 | ((1ULL << 49) - 1), &offset,
                           &bytes);
    assert_int_equal(offset, (1ULL << 49) - 1);
    assert_int_equal(bytes, 8192 * 512 - 511);
}

static void external_data_lies_at_its_guest_offset(void **state)
{
    Qcow2Geometry geo = geometry(3, false, true);
    const uint64_t sound[] = { QCOW2_COPIED, QCOW2_COPIED | CLUSTER, 0, QCOW2_ZERO };
    const uint64_t bad[] = { 0, 2 * CLUSTER, QCOW2_COMPRESSED | 0x100, QCOW2_ZERO | CLUSTER };

    assert_run(&geo, sound, 4, 100, (Qcow2Run){ QCOW2_KIND_DATA, true, 0, 2 * CLUSTER, 0 });
    assert_run(&geo, sound, 4, 2 * CLUSTER,
               (Qcow2Run){ QCOW2_KIND_UNALLOCATED, false, 2 * CLUSTER, CLUSTER });
    for (int i = 1; i < 4; i++) {
        assert_damaged(&geo, bad, 4, i * CLUSTER);
    }
    /* Elsewhere offset 0 is never a place. */
    geo = geometry(3, false, false);
    assert_run(&geo, sound, 1, 0, (Qcow2Run){ QCOW2_KIND_UNALLOCATED, false, 0, CLUSTER });
}

static void subclusters_have_their_own_kinds(void **state)
{
    Qcow2Geometry geo = geometry(3, true, false);
    const uint64_t sub = CLUSTER / 32;
    /* 0, 1: data; 2: zero; 3 to 30: nothing; 31: data, on into the next one. */
    const uint64_t words[] = {
        QCOW2_COPIED | 10 * CLUSTER, 0x80000003 | 4ULL << 32,
        QCOW2_COPIED | 11 * CLUSTER, 0x00000001,
        0, 0,
        0, 0xffffffffULL << 32,
    };

    assert_run(&geo, words, 4, sub, (Qcow2Run){ QCOW2_KIND_DATA, true, 0, 2 * sub, 10 * CLUSTER });
    assert_run(&geo, words, 4, 2 * sub,
               (Qcow2Run){ QCOW2_KIND_ZERO, true, 2 * sub, sub, 10 * CLUSTER + 2 * sub });
    assert_run(&geo, words, 4, 20 * sub,
               (Qcow2Run){ QCOW2_KIND_UNALLOCATED, true, 3 * sub, 28 * sub,
                           10 * CLUSTER + 3 * sub });
    assert_run(&geo, words, 4, CLUSTER,
               (Qcow2Run){ QCOW2_KIND_DATA, true, 31 * sub, 2 * sub, 10 * CLUSTER + 31 * sub });
    assert_run(&geo, words, 4, 2 * CLUSTER + sub,
               (Qcow2Run){ QCOW2_KIND_UNALLOCATED, false, 2 * CLUSTER, CLUSTER });
    assert_run(&geo, words, 4, 4 * CLUSTER - 1,
               (Qcow2Run){ QCOW2_KIND_ZERO, false, 3 * CLUSTER, CLUSTER });
}

static void damaged_subcluster_bitmaps_fail(void **state)
{
    Qcow2Geometry geo = geometry(3, true, false);
    const uint64_t both[] = { 10 * CLUSTER, 1 | 1ULL << 32 };
    const uint64_t nowhere[] = { 0, 1 };
    const uint64_t compressed[] = { QCOW2_COMPRESSED | 0x5000, 0 };

    assert_damaged(&geo, both, 1, 0);
    assert_damaged(&geo, nowhere, 1, 0);
    assert_run(&geo, compressed, 1, CLUSTER / 2,
               (Qcow2Run){ QCOW2_KIND_COMPRESSED, true, 0, CLUSTER, 0x5000, 512 });
}

static void l1_entries_are_checked(void **state)
{
    Qcow2Geometry geo = geometry(3, false, false);
    uint64_t offset;

    assert_true(qcow2_l1_entry_valid(&geo, QCOW2_COPIED | 7 * CLUSTER, &offset));
    assert_int_equal(offset, 7 * CLUSTER);
    assert_true(qcow2_l1_entry_valid(&geo, 0, &offset));
    assert_int_equal(offset, 0);
    assert_false(qcow2_l1_entry_valid(&geo, 7 * CLUSTER + 512, &offset));
    /* Reserved bits are ignored. */
    assert_true(qcow2_l1_entry_valid(&geo, 7 * CLUSTER | 1 | 1ULL << 62, &offset));
    assert_int_equal(offset, 7 * CLUSTER);
}

static void l1_size_needed(void **state)
{
    Qcow2Geometry geo = geometry(3, false, false);
    const uint64_t span = 8192 * CLUSTER;

    assert_int_equal(qcow2_l1_entries_needed(&geo, 0), 0);
    assert_int_equal(qcow2_l1_entries_needed(&geo, 1), 1);
    assert_int_equal(qcow2_l1_entries_needed(&geo, span), 1);
    assert_int_equal(qcow2_l1_entries_needed(&geo, span + 1), 2);
    assert_int_equal(qcow2_l1_entries_needed(&geo, INT64_MAX), 1ULL << 34);
}

/* ---- Refcounts ----------------------------------------------------------------------- */

static void refcounts_of_every_width(void **state)
{
    const uint8_t block[16] = { 0xb4, 0x1e, 0xff, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2 };

    /* Below a byte, the first entry is in the lowest bits: 0xb4 = 10110100b. */
    assert_int_equal(qcow2_refcount_at(block, 0, 0), 0);
    assert_int_equal(qcow2_refcount_at(block, 0, 2), 1);
    assert_int_equal(qcow2_refcount_at(block, 0, 7), 1);
    assert_int_equal(qcow2_refcount_at(block, 0, 8), 0);
    assert_int_equal(qcow2_refcount_at(block, 1, 0), 0);
    assert_int_equal(qcow2_refcount_at(block, 1, 1), 1);
    assert_int_equal(qcow2_refcount_at(block, 1, 2), 3);
    assert_int_equal(qcow2_refcount_at(block, 1, 3), 2);
    assert_int_equal(qcow2_refcount_at(block, 2, 0), 4);
    assert_int_equal(qcow2_refcount_at(block, 2, 1), 11);
    assert_int_equal(qcow2_refcount_at(block, 2, 3), 1);
    assert_int_equal(qcow2_refcount_at(block, 3, 2), 0xff);
    assert_int_equal(qcow2_refcount_at(block, 4, 0), 0xb41e);
    assert_int_equal(qcow2_refcount_at(block, 5, 0), 0xb41eff00);
    assert_int_equal(qcow2_refcount_at(block, 6, 1), 0x102);
}

static void references_are_counted_past_any_width(void **state)
{
    Qcow2RefMap *map = qcow2_refmap_new();

    for (int i = 0; i < 70000; i++) {
        qcow2_refmap_add(map, 5);
    }
    qcow2_refmap_add(map, 6);
    qcow2_refmap_add(map, 1ULL << 45);
    assert_int_equal(qcow2_refmap_get(map, 5), 70000);
    assert_int_equal(qcow2_refmap_get(map, 6), 1);
    assert_int_equal(qcow2_refmap_get(map, 7), 0);
    assert_int_equal(qcow2_refmap_get(map, 1ULL << 45), 1);
    assert_int_equal(qcow2_refmap_get(map, 1ULL << 40), 0);
    assert_int_equal(qcow2_refmap_next(map, 1ULL << 20, 1ULL << 21), 1ULL << 21);
    assert_true(qcow2_refmap_next(map, 0, 1ULL << 21) <= 5);
    qcow2_refmap_free(map);
}

/* ---- Compressed clusters ------------------------------------------------------------- */

static void fill_pattern(uint8_t *buf, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        buf[i] = (i / 7) ^ (i >> 9);
    }
}

static size_t deflate_raw(const uint8_t *src, size_t size, uint8_t *dst, size_t room)
{
    z_stream stream = {
        .next_in = (Bytef *)src, .avail_in = size, .next_out = dst, .avail_out = room
    };

    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return room - stream.avail_out;
}

static size_t zstd_frame(const uint8_t *src, size_t size, uint8_t *dst, size_t room)
{
    size_t used = ZSTD_compress(dst, room, src, size, 19);

    assert_false(ZSTD_isError(used));
    return used;
}

typedef size_t Encoder(const uint8_t *src, size_t size, uint8_t *dst, size_t room);

/* @encode @plain bytes, then decode into a cluster of @cluster bytes. */
static int round_trip(unsigned type, Encoder *encode, size_t plain, size_t cluster, size_t lost)
{
    g_autofree uint8_t *in = g_malloc(plain);
    g_autofree uint8_t *packed = g_malloc(plain + 4096);
    g_autofree uint8_t *out = g_malloc(cluster);
    size_t used;
    int ret;

    fill_pattern(in, plain);
    /* What follows in the last sector belongs to somebody else. */
    memset(packed, 0xa5, plain + 4096);
    used = encode(in, plain, packed, plain + 1024);
    ret = qcow2_decompress(type, packed, lost ? used - lost : (used + 511) & ~511UL, out, cluster);
    if (ret == 0) {
        assert_int_equal(plain, cluster);
        assert_memory_equal(in, out, cluster);
    }
    return ret;
}

static void compressed_clusters_give_exactly_one_cluster(void **state)
{
    static const struct {
        unsigned type;
        Encoder *encode;
    } kinds[] = { { QCOW2_COMPRESSION_ZLIB, deflate_raw }, { QCOW2_COMPRESSION_ZSTD, zstd_frame } };

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        for (size_t cluster = 512; cluster <= 2 * 1024 * 1024; cluster *= repeats(2, 16)) {
            assert_int_equal(round_trip(kinds[i].type, kinds[i].encode, cluster, cluster, 0), 0);
        }
        /* Too long, too short, cut off. */
        assert_int_equal(round_trip(kinds[i].type, kinds[i].encode, 65537, 65536, 0), -EIO);
        assert_int_equal(round_trip(kinds[i].type, kinds[i].encode, 131072, 65536, 0), -EIO);
        assert_int_equal(round_trip(kinds[i].type, kinds[i].encode, 65535, 65536, 0), -EIO);
        assert_int_equal(round_trip(kinds[i].type, kinds[i].encode, 65536, 65536, 8), -EIO);
    }
}

static void garbage_does_not_decode(void **state)
{
    uint8_t garbage[1024], out[4096];

    memset(garbage, 0xff, sizeof(garbage));
    assert_int_equal(qcow2_decompress(QCOW2_COMPRESSION_ZLIB, garbage, 1024, out, 4096), -EIO);
    assert_int_equal(qcow2_decompress(QCOW2_COMPRESSION_ZSTD, garbage, 1024, out, 4096), -EIO);
    memset(garbage, 0, sizeof(garbage));
    assert_int_equal(qcow2_decompress(QCOW2_COMPRESSION_ZLIB, garbage, 1024, out, 4096), -EIO);
    assert_int_equal(qcow2_decompress(QCOW2_COMPRESSION_ZSTD, garbage, 1024, out, 4096), -EIO);
}

/* A cluster may be packed as several frames, one of them empty. */
static void several_zstd_frames_make_a_cluster(void **state)
{
    uint8_t in[4096], packed[8192], out[4096];
    size_t used;

    fill_pattern(in, sizeof(in));
    used = zstd_frame(in, 1000, packed, sizeof(packed));
    used += zstd_frame(in, 0, packed + used, sizeof(packed) - used);
    used += zstd_frame(in + 1000, 3096, packed + used, sizeof(packed) - used);
    assert_int_equal(qcow2_decompress(QCOW2_COMPRESSION_ZSTD, packed, used, out, sizeof(out)), 0);
    assert_memory_equal(in, out, sizeof(in));
}

/* ---- Snapshot table entries ------------------------------------------------------------ */

static void snapshot_entries_are_parsed(void **state)
{
    g_autofree uint8_t *buf = g_malloc0(QCOW2_SNAPSHOT_ENTRY_MAX);
    Qcow2Snapshot sn;

    buf[5] = 7;      /* l1_table_offset 0x70000 */
    buf[11] = 3;     /* l1_size */
    buf[13] = 1;     /* ID of 1 byte */
    buf[15] = 4;     /* name of 4 bytes */
    buf[35] = 9;     /* VM state, 32 bits */
    buf[39] = 24;    /* extra data */
    buf[46] = 1;     /* VM state, 64 bits: 256 */
    buf[53] = 0x10;  /* disk size 0x100000 */
    buf[63] = 5;     /* instruction count */
    memcpy(buf + 64, "1name", 5);
    assert_int_equal(qcow2_snapshot_parse(buf, 3, &sn), 72);
    assert_int_equal(sn.l1_table_offset, 0x70000);
    assert_int_equal(sn.l1_size, 3);
    assert_int_equal(sn.vm_state_size, 256);
    assert_int_equal(sn.disk_size, 0x100000);
    assert_int_equal(sn.icount, 5);
    assert_string_equal(sn.id, "1");
    assert_string_equal(sn.name, "name");
    assert_false(sn.incomplete);
    g_free(sn.id);
    g_free(sn.name);
}

static void snapshot_entries_without_extra_data(void **state)
{
    g_autofree uint8_t *buf = g_malloc0(QCOW2_SNAPSHOT_ENTRY_MAX);
    Qcow2Snapshot sn;

    buf[35] = 9;
    assert_int_equal(qcow2_snapshot_parse(buf, 2, &sn), 40);
    assert_int_equal(sn.vm_state_size, 9);
    assert_true(sn.disk_size == UINT64_MAX);
    assert_true(sn.icount == UINT64_MAX);
    assert_false(sn.incomplete);
    g_free(sn.id);
    g_free(sn.name);
    assert_int_equal(qcow2_snapshot_parse(buf, 3, &sn), 40);
    assert_true(sn.incomplete);
    g_free(sn.id);
    g_free(sn.name);
    buf[38] = 4;
    buf[39] = 1;
    assert_int_equal(qcow2_snapshot_parse(buf, 3, &sn), -EFBIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_reach_both_ways_as_far_as_the_place_goes_on),
        cmocka_unit_test(damaged_entries_fail_and_end_a_run_before_them),
        cmocka_unit_test(reserved_bits_are_ignored),
        cmocka_unit_test(a_compressed_cluster_is_a_run_of_its_own),
        cmocka_unit_test(small_clusters_have_long_compressed_offsets),
        cmocka_unit_test(external_data_lies_at_its_guest_offset),
        cmocka_unit_test(subclusters_have_their_own_kinds),
        cmocka_unit_test(damaged_subcluster_bitmaps_fail),
        cmocka_unit_test(l1_entries_are_checked),
        cmocka_unit_test(l1_size_needed),
        cmocka_unit_test(refcounts_of_every_width),
        cmocka_unit_test(references_are_counted_past_any_width),
        cmocka_unit_test(compressed_clusters_give_exactly_one_cluster),
        cmocka_unit_test(garbage_does_not_decode),
        cmocka_unit_test(several_zstd_frames_make_a_cluster),
        cmocka_unit_test(snapshot_entries_are_parsed),
        cmocka_unit_test(snapshot_entries_without_extra_data),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
