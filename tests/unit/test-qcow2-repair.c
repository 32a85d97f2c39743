/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: repair, on copies of fixtures with one thing wrong, with every request
 * of it failing in turn, and with a width too small; of an image in use.
 */
#include "qcow2-testing.h"
#include "fault-node.h"

#define ALL (BDRV_FIX_LEAKS | BDRV_FIX_ERRORS)
#define OPEN_FLAGS (BDRV_O_CHECK | BDRV_O_NO_BACKING)

static void add_line(void *opaque, const char *line)
{
    if (opaque) {
        g_string_append_printf(opaque, "%s\n", line);
    }
}

static BdrvCheckResult check_path(const char *path, int *ret)
{
    BlockBackend *blk = open_qcow2(path, OPEN_FLAGS);
    BdrvCheckResult result;

    *ret = bdrv_check(blk_bs(blk), &result, NULL, NULL);
    blk_unref(blk);
    return result;
}

static void assert_clean(const char *path)
{
    int ret;
    BdrvCheckResult r = check_path(path, &ret);

    assert_int_equal(ret, 0);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.leaks, 0);
    assert_int_equal(r.check_errors, 0);
}

/* Repair the image at @path, and check it through the same node. */
static void assert_repairs(const char *path, int fix, int leaks_fixed, int corruptions_fixed)
{
    BlockBackend *blk = open_qcow2(path, OPEN_FLAGS | BDRV_O_RDWR);
    GString *lines = g_string_new(NULL);
    BdrvCheckResult r;

    assert_int_equal(bdrv_repair(blk_bs(blk), fix, &r, add_line, lines), 0);
    if (r.leaks_fixed != leaks_fixed || r.corruptions_fixed != corruptions_fixed) {
        fail_msg("%d leaks and %d corruptions repaired:\n%s", (int)r.leaks_fixed,
                 (int)r.corruptions_fixed, lines->str);
    }
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
    assert_int_equal(bdrv_check(blk_bs(blk), &r, NULL, NULL), 0);
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
    blk_unref(blk);
    g_string_free(lines, true);
    assert_clean(path);
}

/* Each of these returns a damaged image. */
static Image drop_reference(void)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, l2_at(&image), 0);
    return image;
}

static Image use_twice(void)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, l2_at(&image), get64(&image, l2_at(&image) + 8));
    return image;
}

static Image lose_refcount(void)
{
    Image image = load_fixture("v3.qcow2");

    put_bytes(&image, refblock_at(&image) + 2 * 5, 2, 0);
    put_bytes(&image, refblock_at(&image) + 2 * 6, 2, 7);
    return image;
}

static Image lose_refcount_table(void)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, reftable_at(&image), 0);
    return image;
}

static Image misalign_refcount_block(void)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, reftable_at(&image), refblock_at(&image) + 256);
    return image;
}

static Image share_refcount_block(void)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, reftable_at(&image) + 8, refblock_at(&image));
    return image;
}

static Image clear_copied(void)
{
    Image image = load_fixture("v3.qcow2");

    put64(&image, l1_at(&image), l2_at(&image));
    return image;
}

/* The first snapshot's entry in the form of version 2. */
static Image cut_snapshot_extra(void)
{
    Image image = load_fixture("snapshots.qcow2");

    put_bytes(&image, snapshots_at(&image) + 36, 4, 2000);
    return image;
}

static Image set_dirty_and_corrupt(void)
{
    Image image = use_twice();

    put64(&image, 72, get64(&image, 72) | QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
    return image;
}

static Image (*const damages[])(void) = {
    drop_reference, use_twice, lose_refcount, lose_refcount_table, misalign_refcount_block,
    share_refcount_block, clear_copied, cut_snapshot_extra, set_dirty_and_corrupt,
};

static void leaks_are_given_back(void **state)
{
    Image image = drop_reference();
    g_autofree char *path = store_image(&image);

    assert_repairs(path, BDRV_FIX_LEAKS, 1, 0);
}

static void leaks_only_leaves_corruptions(void **state)
{
    Image image = use_twice();
    g_autofree char *path = store_image(&image);
    BlockBackend *blk = open_qcow2(path, OPEN_FLAGS | BDRV_O_RDWR);
    BdrvCheckResult r;

    assert_int_equal(bdrv_repair(blk_bs(blk), BDRV_FIX_LEAKS, &r, NULL, NULL), 0);
    assert_int_equal(r.leaks_fixed, 1);
    assert_int_equal(r.corruptions, 1);
    assert_int_equal(r.corruptions_fixed, 0);
    blk_unref(blk);
}

static void references_above_the_refcount(void **state)
{
    Image image = use_twice();
    g_autofree char *path = store_image(&image);

    /* The refcount is raised, and two entries are not "copied" any more. */
    assert_repairs(path, ALL, 1, 3);
}

static void all_refcounts_anew(void **state)
{
    static Image (*const cases[])(void) = {
        lose_refcount, lose_refcount_table, misalign_refcount_block, share_refcount_block,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Image image = cases[i]();
        uint64_t old = reftable_at(&image), size = image.size;
        g_autofree char *path = store_image(&image);
        BlockBackend *blk = open_qcow2(path, OPEN_FLAGS | BDRV_O_RDWR);
        g_autofree char *data = NULL;
        BdrvCheckResult r;

        /* Leaks alone do not do. */
        assert_int_equal(bdrv_repair(blk_bs(blk), BDRV_FIX_LEAKS, &r, NULL, NULL), -EIO);
        assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), 0);
        assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
        blk_unref(blk);
        assert_clean(path);
        assert_true(g_file_get_contents(path, &data, NULL, NULL));
        assert_int_not_equal(qcow2_be64((uint8_t *)data + 48), old);
        assert_true(qcow2_be64((uint8_t *)data + 48) >= size);
    }
}

static void copied_flags(void **state)
{
    Image image = clear_copied();
    g_autofree char *path = store_image(&image);

    assert_repairs(path, BDRV_FIX_LEAKS, 0, 1);
}

static void dirty_and_corrupt_are_cleared_at_the_end(void **state)
{
    Image image = set_dirty_and_corrupt();
    g_autofree char *path = store_image(&image);
    g_autofree char *data = NULL;

    assert_repairs(path, ALL, 1, 3);
    assert_true(g_file_get_contents(path, &data, NULL, NULL));
    assert_int_equal(qcow2_be64((uint8_t *)data + 72), 0);
}

static void a_width_that_is_too_small_is_an_error(void **state)
{
    Image image = load_fixture("refcount-1.qcow2");
    g_autofree char *path = NULL;
    BlockBackend *blk;
    BdrvCheckResult r;

    put64(&image, l2_at(&image), get64(&image, l2_at(&image) + 8));
    path = store_image(&image);
    blk = open_qcow2(path, OPEN_FLAGS | BDRV_O_RDWR);
    assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), 0);
    assert_int_equal(r.corruptions, 1);
    assert_int_equal(r.leaks_fixed, 1);
    blk_unref(blk);
}

static void every_width_is_built_anew(void **state)
{
    static const char *const names[] = { "refcount-1.qcow2", "v2.qcow2", "refcount-64.qcow2",
                                         "snapshots.qcow2", "bitmaps.qcow2", "extended-l2.qcow2",
                                         "data-file.qcow2" };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        Image image = load_fixture(names[i]);
        g_autofree char *path = NULL;
        BlockBackend *blk;
        BdrvCheckResult r;

        put64(&image, reftable_at(&image), 0);
        path = store_image(&image);
        blk = open_qcow2(path, OPEN_FLAGS | BDRV_O_RDWR);
        assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), 0);
        blk_unref(blk);
        assert_clean(path);
    }
}

static void a_node_for_reading_is_refused(void **state)
{
    Image image = drop_reference();
    g_autofree char *path = store_image(&image);
    BlockBackend *blk = open_qcow2(path, OPEN_FLAGS);
    BdrvCheckResult r;

    assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), -EACCES);
    blk_unref(blk);
}

/* Repair with request number @n of a type failing: what repair returns. */
static int repair_with_failure(const char *path, const char *iotype, int n)
{
    JsonObject *options = options_of(
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,"
        "file.inject-error.0.event=none,file.inject-error.0.iotype=%s,"
        "file.inject-error.0.once=on,file.inject-error.0.after=%d",
        path, iotype, n);
    GError *err = NULL;
    BlockBackend *blk = try_open(options, OPEN_FLAGS | BDRV_O_RDWR, &err);
    BdrvCheckResult r;
    int ret;

    assert_ok(blk != NULL, err);
    ret = bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL);
    if (ret < 0) {
        assert_true(r.check_errors > 0);
    }
    blk_unref(blk);
    return ret;
}

static void count_low(void *opaque, const char *line)
{
    *(int *)opaque += g_str_has_prefix(line, "ERROR cluster");
}

/* How many clusters have a refcount below their references. */
static int refcounts_too_low(const char *path)
{
    BlockBackend *blk = open_qcow2(path, OPEN_FLAGS);
    BdrvCheckResult r;
    int low = 0;

    bdrv_check(blk_bs(blk), &r, count_low, &low);
    blk_unref(blk);
    return low;
}

/* Whether request number @n failed. The image is no worse for it, and is repaired after that. */
static bool survives_failure(Image image, const char *iotype, int n)
{
    g_autofree char *path = store_image(&image);
    int before = refcounts_too_low(path);
    int ret = repair_with_failure(path, iotype, n);
    BlockBackend *blk;
    BdrvCheckResult r;

    if (ret < 0) {
        assert_int_equal(ret, -EIO);
        assert_true(refcounts_too_low(path) <= before);
        blk = open_qcow2(path, OPEN_FLAGS | BDRV_O_RDWR);
        assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), 0);
        blk_unref(blk);
    }
    assert_clean(path);
    return ret < 0;
}

static void any_failed_request_leaves_it_no_worse(void **state)
{
    static const char *const iotypes[] = { "write", "flush" };

    for (size_t i = 0; i < G_N_ELEMENTS(damages); i++) {
        for (size_t t = 0; t < G_N_ELEMENTS(iotypes); t++) {
            int n = 0;

            while (n <= 100 && survives_failure(damages[i](), iotypes[t], n)) {
                n++;
            }
            /* Something was written, and made durable. */
            assert_in_range(n, 1, 100);
        }
    }
}

/* ---- Images in use ----------------------------------------------------------------------- */

/* Writes a cluster in each turn of the event loop. */
typedef struct Intruder {
    BlockBackend *blk;
    int64_t at;
    bool stop;
    bool pending;
} Intruder;

static void intrude(void *opaque)
{
    static const uint8_t data[4096] = {1};
    Intruder *in = opaque;

    in->pending = !in->stop && in->at + 4096 <= blk_getlength(in->blk);
    if (in->pending) {
        assert_int_equal(blk_pwrite(in->blk, in->at, sizeof(data), data, 0), 0);
        in->at += 64 * 1024;
        aio_bh_oneshot(aio_context_main(), intrude, in);
    }
}

/* The main thread polls while it repairs, and its callbacks may write. */
static void a_callback_that_writes_waits_for_the_end(void **state)
{
    Image (*const some[])(void) = {drop_reference, lose_refcount, clear_copied};

    for (size_t i = 0; i < G_N_ELEMENTS(some); i++) {
        Image image = some[i]();
        g_autofree char *path = store_image(&image);
        BlockBackend *blk = open_qcow2(path, BDRV_O_NO_BACKING | BDRV_O_RDWR);
        Intruder in = {.blk = blk, .pending = true};
        BdrvCheckResult r;

        aio_bh_oneshot(aio_context_main(), intrude, &in);
        assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), 0);
        in.stop = true;
        AIO_WAIT_WHILE(in.pending);
        assert_true(in.at > 0);
        blk_unref(blk);
        assert_clean(path);
    }
}

#define KiB 1024

static char *create_image(const char *name, const char *text)
{
    g_autoptr(JsonObject) options = options_of("%s", text);
    char *path = test_path(name);
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

/* Repair takes it for a leak; whoever gave it up must not give it up a second time. */
static void what_was_discarded_before_is_not_given_out_twice(void **state)
{
    g_autofree char *path = create_image("discarded.qcow2", "size=1M");
    BlockBackend *blk = open_blk(options_of("driver=qcow2,pass-discard-request=off,"
                                            "file.driver=file,file.filename=%s", path),
                                 BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NO_FLUSH);
    g_autofree uint8_t *data = pattern(192 * KiB, 1);
    BdrvCheckResult r;

    assert_int_equal(blk_pwrite(blk, 0, 64 * KiB, data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_pdiscard(blk, 0, 64 * KiB), 0);
    assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), 0);
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
    for (int64_t at = 64 * KiB; at < 192 * KiB; at += 64 * KiB) {
        assert_int_equal(blk_pwrite(blk, at, 64 * KiB, data + at, 0), 0);
        assert_int_equal(blk_flush(blk), 0);
    }
    assert_reads(blk, 64 * KiB, 128 * KiB, data + 64 * KiB);
    blk_unref(blk);
    assert_clean(path);
}

/* With lazy refcounts, what the file says of them is old. */
static void refcounts_that_cannot_be_written_before_are_not_forgotten(void **state)
{
    g_autofree char *path = create_image("lazy.qcow2", "size=1M,lazy_refcounts=on");
    BlockBackend *blk = open_blk(options_of("driver=qcow2,file.driver=fault,file.image.driver=file,"
                                            "file.image.filename=%s", path),
                                 BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    g_autofree uint8_t *data = pattern(512 * KiB, 2);
    BdrvCheckResult r;

    assert_int_equal(blk_pwrite(blk, 0, 256 * KiB, data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    fault_arm(0, -EIO, true, FAULT_NOTHING_DONE);
    fault.only = BDRV_IO_WRITE;
    assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), -EIO);
    fault_disarm();
    assert_true(fault.hit);
    assert_int_equal(blk_pwrite(blk, 256 * KiB, 256 * KiB, data + 256 * KiB, 0), 0);
    assert_reads(blk, 0, 512 * KiB, data);
    blk_unref(blk);
    assert_clean(path);
}

/* The tables are still to be written then, and stay in memory. */
static void tables_that_cannot_be_written_before_are_not_forgotten(void **state)
{
    g_autofree char *path = create_image("tables.qcow2", "size=1M");
    BlockBackend *blk = open_blk(options_of("driver=qcow2,file.driver=fault,file.image.driver=file,"
                                            "file.image.filename=%s", path),
                                 BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    g_autofree uint8_t *data = pattern(256 * KiB, 3);
    BdrvCheckResult r;

    for (int64_t at = 0; at < 256 * KiB; at += 64 * KiB) { /* a new table is written at once */
        assert_int_equal(blk_pwrite(blk, at, 64 * KiB, data + at, 0), 0);
    }
    fault_arm(0, -EIO, true, FAULT_NOTHING_DONE);
    fault.only = BDRV_IO_WRITE;
    assert_int_equal(bdrv_repair(blk_bs(blk), ALL, &r, NULL, NULL), -EIO);
    fault_disarm();
    assert_true(fault.hit);
    assert_reads(blk, 0, 256 * KiB, data);
    blk_unref(blk);
    assert_clean(path);
}

static int setup(void **state)
{
    GError *err = NULL;

    return qcow2_group_setup(state) || !bdrv_register(&fault_driver, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaks_are_given_back),
        cmocka_unit_test(leaks_only_leaves_corruptions),
        cmocka_unit_test(references_above_the_refcount),
        cmocka_unit_test(all_refcounts_anew),
        cmocka_unit_test(copied_flags),
        cmocka_unit_test(dirty_and_corrupt_are_cleared_at_the_end),
        cmocka_unit_test(a_width_that_is_too_small_is_an_error),
        cmocka_unit_test(every_width_is_built_anew),
        cmocka_unit_test(a_node_for_reading_is_refused),
        cmocka_unit_test(any_failed_request_leaves_it_no_worse),
        cmocka_unit_test(a_callback_that_writes_waits_for_the_end),
        cmocka_unit_test(what_was_discarded_before_is_not_given_out_twice),
        cmocka_unit_test(refcounts_that_cannot_be_written_before_are_not_forgotten),
        cmocka_unit_test(tables_that_cannot_be_written_before_are_not_forgotten),
    };

    return cmocka_run_group_tests(tests, setup, driver_group_teardown);
}
