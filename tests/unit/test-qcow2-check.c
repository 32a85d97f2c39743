/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: check, on sound fixtures and on copies with one thing wrong. */
#include "qcow2-testing.h"

typedef struct Report {
    BdrvCheckResult result;
    GString *lines; /* each ended by a newline */
    int ret;
} Report;

static void add_line(void *opaque, const char *line)
{
    g_string_append_printf(opaque, "%s\n", line);
}

static Report run_check(const char *path)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    Report report = { .lines = g_string_new(NULL) };

    report.ret = bdrv_check(blk_bs(blk), &report.result, add_line, report.lines);
    blk_unref(blk);
    return report;
}

static void sound_images_are_clean_and_counted(void **state)
{
    static const struct {
        const char *name;
        int64_t total, allocated, fragmented, compressed;
    } fixtures[] = {
        { "v2.qcow2", 256, 8, 0, 0 },
        { "v3.qcow2", 513, 13, 0, 0 },
        { "deflate.qcow2", 96, 5, 4, 3 },
        { "zstd.qcow2", 96, 4, 3, 3 },
        { "extended-l2.qcow2", 8, 1, 0, 0 },
        { "refcount-1.qcow2", 128, 11, 0, 0 },
        { "refcount-64.qcow2", 128, 11, 0, 0 },
        { "data-file.qcow2", 16, 3, 1, 0 },
        { "data-file-raw.qcow2", 16, 16, 0, 0 },
        { "backing-overlay.qcow2", 64, 2, 0, 0 },
        { "snapshots.qcow2", 48, 6, 4, 0 },
        { "bitmaps.qcow2", 64, 4, 0, 0 },
        { "features.qcow2", 64, 4, 0, 0 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(fixtures); i++) {
        g_autofree char *path = fixture_path(fixtures[i].name);
        Report report = run_check(path);
        const BdrvCheckResult *r = &report.result;

        if (report.lines->len > 0) {
            fail_msg("%s: %s", fixtures[i].name, report.lines->str);
        }
        assert_int_equal(report.ret, 0);
        assert_int_equal(r->corruptions + r->leaks + r->check_errors, 0);
        assert_int_equal(r->total_clusters, fixtures[i].total);
        if (r->allocated_clusters != fixtures[i].allocated ||
            r->fragmented_clusters != fixtures[i].fragmented ||
            r->compressed_clusters != fixtures[i].compressed) {
            fail_msg("%s: %d allocated, %d fragmented, %d compressed", fixtures[i].name,
                     (int)r->allocated_clusters, (int)r->fragmented_clusters,
                     (int)r->compressed_clusters);
        }
        g_string_free(report.lines, true);
    }
}

/* Check a damaged copy and expect these lines and counts. */
static void assert_findings(Image *image, const char *lines, int corruptions, int leaks)
{
    g_autofree char *path = store_image(image);
    Report report = run_check(path);

    assert_int_equal(report.ret, 0);
    assert_string_equal(report.lines->str, lines);
    assert_int_equal(report.result.corruptions, corruptions);
    assert_int_equal(report.result.leaks, leaks);
    assert_int_equal(report.result.check_errors, 0);
    g_string_free(report.lines, true);
}

static void dropped_reference_is_a_leak(void **state)
{
    Image image = load_fixture("v3.qcow2");

    assert_int_equal(get64(&image, l2_at(&image)), QCOW2_COPIED | 0xa00);
    put64(&image, l2_at(&image), 0);
    assert_findings(&image, "Leaked cluster 5 refcount=1 reference=0\n", 0, 1);
}

static void cluster_used_twice(void **state)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, l2_at(&image), get64(&image, l2_at(&image) + 8));
    assert_findings(&image,
                    "Leaked cluster 5 refcount=1 reference=0\n"
                    "ERROR cluster 6 refcount=1 reference=2\n",
                    1, 1);
}

static void data_in_metadata(void **state)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, l2_at(&image), QCOW2_COPIED | l1_at(&image));
    assert_findings(&image,
                    "ERROR cluster 3 refcount=1 reference=2\n"
                    "Leaked cluster 5 refcount=1 reference=0\n",
                    1, 1);
}

static void wrong_refcounts(void **state)
{
    Image image = load_fixture("v3.qcow2");

    put_bytes(&image, refblock_at(&image) + 2 * 5, 2, 0);
    put_bytes(&image, refblock_at(&image) + 2 * 6, 2, 7);
    assert_findings(&image,
                    "ERROR cluster 5 refcount=0 reference=1\n"
                    "Leaked cluster 6 refcount=7 reference=1\n"
                    "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=0\n"
                    "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000c00 refcount=7\n",
                    3, 1);
}

static void narrow_and_wide_refcounts(void **state)
{
    Image image = load_fixture("refcount-1.qcow2");
    uint64_t block = refblock_at(&image);

    /* 1 bit each: cluster 5 is bit 5 of the first byte. */
    image.data[block] &= ~(1 << 5);
    assert_findings(&image,
                    "ERROR cluster 5 refcount=0 reference=1\n"
                    "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 refcount=0\n",
                    2, 0);
    image = load_fixture("refcount-64.qcow2");
    put64(&image, refblock_at(&image) + 8 * 5, UINT64_MAX);
    assert_findings(&image,
                    "Leaked cluster 5 refcount=18446744073709551615 reference=1\n"
                    "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000000a00 "
                    "refcount=18446744073709551615\n",
                    1, 1);
}

static void copied_flags(void **state)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, l2_at(&image), get64(&image, l2_at(&image)) & ~QCOW2_COPIED);
    put64(&image, l1_at(&image), get64(&image, l1_at(&image)) & ~QCOW2_COPIED);
    assert_findings(&image,
                    "ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=800 refcount=1\n"
                    "ERROR OFLAG_COPIED data cluster: l2_entry=a00 refcount=1\n",
                    2, 0);
}

static void entries_outside_and_misaligned(void **state)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, l2_at(&image), 1ULL << 40);
    assert_findings(&image,
                    "ERROR: counting reference for region exceeding the end of the file by one "
                    "cluster or more: offset 0x10000000000 size 0x200\n"
                    "Leaked cluster 5 refcount=1 reference=0\n",
                    1, 1);
    image = load_fixture("v2.qcow2");
    put64(&image, l2_at(&image), get64(&image, l2_at(&image)) + 512);
    assert_findings(&image,
                    "ERROR offset=1600: Data cluster is not properly aligned; L2 entry "
                    "corrupted.\n"
                    "ERROR cluster 6 refcount=1 reference=2\n",
                    2, 0);
    image = load_fixture("v3.qcow2");
    put64(&image, l2_at(&image), get64(&image, l2_at(&image)) | 6);
    assert_findings(&image,
                    "ERROR found l2 entry with reserved bits set: 8000000000000a06\n", 1, 0);
    image = load_fixture("v3.qcow2");
    put64(&image, l1_at(&image), get64(&image, l1_at(&image)) | 1ULL << 60);
    assert_findings(&image,
                    "ERROR found L1 entry with reserved bits set: 9000000000000800\n", 1, 0);
}

static void refcount_table_entries(void **state)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, reftable_at(&image) + 8, refblock_at(&image));
    assert_findings(&image,
                    "ERROR refcount block 1 refcount=2\n"
                    "ERROR cluster 2 refcount=1 reference=2\n",
                    2, 0);
    image = load_fixture("v3.qcow2");
    put64(&image, reftable_at(&image) + 8, 1ULL << 40);
    assert_findings(&image, "ERROR refcount block 1 is outside image\n", 1, 0);
    image = load_fixture("v3.qcow2");
    put64(&image, reftable_at(&image), refblock_at(&image) | 2);
    assert_findings(&image,
                    "ERROR refcount table entry 0 has reserved bits set\n"
                    "Leaked cluster 2 refcount=1 reference=0\n",
                    1, 1);
}

static void unreadable_refcounts_are_internal_errors(void **state)
{
    Image image = load_fixture("v2.qcow2");
    g_autofree char *path = NULL;
    Report report;

    put64(&image, reftable_at(&image), refblock_at(&image) + 512);
    path = store_image(&image);
    report = run_check(path);
    assert_int_equal(report.ret, 0);
    assert_int_equal(report.result.corruptions, 1);
    assert_true(report.result.check_errors > 0);
    assert_non_null(strstr(report.lines->str, "ERROR refcount block 0 is not cluster aligned; "
                                              "refcount table entry corrupted\n"
                                              "Can't get refcount for cluster 0: "
                                              "Input/output error\n"));
    g_string_free(report.lines, true);
}

static void compressed_clusters(void **state)
{
    Image image = load_fixture("deflate.qcow2");
    uint64_t entry = get64(&image, l2_at(&image));

    put64(&image, l2_at(&image), entry | QCOW2_COPIED);
    assert_findings(&image,
                    "ERROR: coffset=0x2800: copied flag must never be set for compressed "
                    "clusters\n",
                    1, 0);
}

static void subcluster_bitmaps(void **state)
{
    Image image = load_fixture("extended-l2.qcow2");

    put64(&image, l2_at(&image) + 8, 1 | 1ULL << 32);
    assert_findings(&image,
                    "ERROR offset=14000: Allocated cluster has corrupted subcluster allocation "
                    "bitmap\n",
                    1, 0);
    image = load_fixture("extended-l2.qcow2");
    put64(&image, l2_at(&image) + 5 * 16 + 8, 1);
    assert_findings(&image,
                    "ERROR: Unallocated cluster has non-zero subcluster allocation map\n", 1, 0);
}

static void snapshots_refer_to_clusters(void **state)
{
    Image image = load_fixture("snapshots.qcow2");
    g_autofree char *path = NULL;
    Report report;

    put64(&image, snapshots_at(&image), get64(&image, snapshots_at(&image)) + 8);
    path = store_image(&image);
    report = run_check(path);
    assert_int_equal(report.ret, 0);
    assert_int_equal(report.result.corruptions, 1);
    assert_true(report.result.leaks > 0);
    assert_true(g_str_has_prefix(report.lines->str,
                                 "ERROR snapshot 1 (first) l1_offset=0x2808: L1 table is not "
                                 "cluster aligned; snapshot table entry corrupted\n"));
    g_string_free(report.lines, true);
}

static void snapshot_entries_and_tables(void **state)
{
    Image image = load_fixture("snapshots.qcow2");
    g_autofree char *path = NULL;
    Report report;

    put_bytes(&image, snapshots_at(&image) + 36, 4, 5000);
    path = store_image(&image);
    report = run_check(path);
    assert_int_equal(report.ret, -EFBIG);
    assert_int_equal(report.result.check_errors, 1);
    assert_non_null(strstr(report.lines->str, "5000 bytes of extra data are more than 1024"));
    g_string_free(report.lines, true);
}

static void bitmaps_refer_to_clusters(void **state)
{
    Image image = load_fixture("bitmaps.qcow2");
    uint64_t directory = get64(&image, extension_at(&image, QCOW2_EXT_BITMAPS) + 16);
    uint64_t table = get64(&image, directory);
    g_autofree char *path = NULL;
    Report report;

    put64(&image, table, 2);
    path = store_image(&image);
    report = run_check(path);
    assert_int_equal(report.ret, 0);
    assert_int_equal(report.result.corruptions, 1);
    assert_int_equal(report.result.leaks, 1);
    assert_true(g_str_has_prefix(report.lines->str,
                                 "ERROR bitmap 'enabled' table entry 0 is not valid: 2\n"));
    g_string_free(report.lines, true);
}

/* As with QEMU: where the data lies is for reads to judge. */
static void external_data_cannot_be_compressed(void **state)
{
    Image image = load_fixture("data-file.qcow2");
    uint64_t l2 = l2_at(&image) + 4 * 8;
    g_autofree char *path = NULL;
    g_autofree char *data = fixture_path("data-file.data");
    Report report = { .lines = g_string_new(NULL) };
    BlockBackend *blk;

    assert_int_equal(get64(&image, l2), QCOW2_COPIED | 4096);
    put64(&image, l2, QCOW2_COPIED | 8192);
    put64(&image, l2 + 8, QCOW2_COMPRESSED | 4096);
    path = store_image(&image);
    blk = open_blk(options_of("driver=qcow2,file.filename=%s,data-file.filename=%s", path, data),
                   BDRV_O_CHECK);
    assert_int_equal(bdrv_check(blk_bs(blk), &report.result, add_line, report.lines), 0);
    blk_unref(blk);
    assert_int_equal(report.result.corruptions, 1);
    assert_string_equal(report.lines->str,
                        "ERROR compressed cluster 5 with data file, entry=0x4000000000001000\n");
    g_string_free(report.lines, true);
}

static void dirty_images_have_stale_refcounts(void **state)
{
    g_autofree char *path = fixture_path("dirty.qcow2");
    Report report = run_check(path);

    assert_int_equal(report.ret, 0);
    assert_true(report.result.corruptions > 0);
    g_string_free(report.lines, true);
}

static void tables_beyond_the_end_of_the_file_can_be_checked(void **state)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, 40, 1ULL << 40);
    assert_findings(&image,
                    "ERROR: counting reference for region exceeding the end of the file by one "
                    "cluster or more: offset 0x10000000000 size 0x48\n"
                    "Leaked cluster 3 refcount=1 reference=0\n"
                    "Leaked cluster 4 refcount=1 reference=0\n"
                    "Leaked cluster 5 refcount=1 reference=0\n"
                    "Leaked cluster 6 refcount=1 reference=0\n"
                    "Leaked cluster 7 refcount=1 reference=0\n"
                    "Leaked cluster 8 refcount=1 reference=0\n"
                    "Leaked cluster 9 refcount=1 reference=0\n"
                    "Leaked cluster 10 refcount=1 reference=0\n"
                    "Leaked cluster 11 refcount=1 reference=0\n"
                    "Leaked cluster 12 refcount=1 reference=0\n"
                    "Leaked cluster 13 refcount=1 reference=0\n"
                    "Leaked cluster 14 refcount=1 reference=0\n"
                    "Leaked cluster 15 refcount=1 reference=0\n"
                    "Leaked cluster 16 refcount=1 reference=0\n"
                    "Leaked cluster 17 refcount=1 reference=0\n"
                    "Leaked cluster 18 refcount=1 reference=0\n"
                    "Leaked cluster 19 refcount=1 reference=0\n"
                    "Leaked cluster 20 refcount=1 reference=0\n",
                    1, 18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_images_are_clean_and_counted),
        cmocka_unit_test(dropped_reference_is_a_leak),
        cmocka_unit_test(cluster_used_twice),
        cmocka_unit_test(data_in_metadata),
        cmocka_unit_test(wrong_refcounts),
        cmocka_unit_test(narrow_and_wide_refcounts),
        cmocka_unit_test(copied_flags),
        cmocka_unit_test(entries_outside_and_misaligned),
        cmocka_unit_test(refcount_table_entries),
        cmocka_unit_test(unreadable_refcounts_are_internal_errors),
        cmocka_unit_test(compressed_clusters),
        cmocka_unit_test(subcluster_bitmaps),
        cmocka_unit_test(snapshots_refer_to_clusters),
        cmocka_unit_test(snapshot_entries_and_tables),
        cmocka_unit_test(bitmaps_refer_to_clusters),
        cmocka_unit_test(external_data_cannot_be_compressed),
        cmocka_unit_test(dirty_images_have_stale_refcounts),
        cmocka_unit_test(tables_beyond_the_end_of_the_file_can_be_checked),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
