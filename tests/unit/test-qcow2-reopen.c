/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 images that become writable and read-only again while they are open: what a
 * writer notes in the file is there before its first change, and gone in the end.
 */
#include "qcow2-testing.h"

#include "drivers/qcow2/qcow2-bitmap.h"

#define MiB (1024LL * 1024)
#define CLUSTER 65536

/* An image with a stored bitmap "b", in which the first cluster is dirty; its path. */
static char *create_with_bitmap(void)
{
    g_autoptr(JsonObject) options = options_of("size=8M");
    char *path = test_path("test.qcow2");
    BdrvDirtyBitmap *bitmap;
    BlockBackend *blk;
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    bitmap = bdrv_dirty_bitmap_create(blk_bs(blk), "b", CLUSTER, &err);
    assert_ok(bitmap != NULL, err);
    bdrv_dirty_bitmap_set_persistent(bitmap, true);
    bdrv_dirty_bitmap_set(bitmap, 0, CLUSTER);
    blk_unref(blk);
    return path;
}

/* What the directory in the file says of the bitmap. */
static bool in_use_on_disk(const char *path)
{
    BlockBackend *blk = open_blk(options_of("driver=qcow2,force-share=on,file.driver=file,"
                                            "file.filename=%s", path), 0);
    BdrvStoredBitmapInfo info;
    GError *err = NULL;
    int ret = bdrv_stored_bitmap_get(blk_bs(blk), 0, &info, &err);

    assert_ok(ret == 1, err);
    blk_unref(blk);
    return info.in_use;
}

static void assert_dirty(BlockBackend *blk, int64_t bytes)
{
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_find(blk_bs(blk), "b");

    assert_non_null(bitmap);
    assert_false(bdrv_dirty_bitmap_state(bitmap) & BDRV_BITMAP_INCONSISTENT);
    assert_int_equal(bdrv_dirty_bitmap_count(bitmap), bytes);
}

static void allow_writes(BlockBackend *blk, bool allow)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ | (allow ? BLK_PERM_WRITE : 0);
    GError *err = NULL;
    bool ok;

    if (allow) {
        ok = bdrv_reopen_set_read_only(blk_bs(blk), false, &err);
        assert_ok(ok, err);
    }
    ok = blk_set_perm(blk, perm, BLK_PERM_ALL, &err);
    assert_ok(ok, err);
    if (!allow) {
        ok = bdrv_reopen_set_read_only(blk_bs(blk), true, &err);
        assert_ok(ok, err);
    }
}

static void write_cluster(BlockBackend *blk, int64_t index)
{
    g_autofree uint8_t *data = pattern(CLUSTER, index);

    assert_int_equal(blk_pwrite(blk, index * CLUSTER, CLUSTER, data, 0), 0);
    assert_reads(blk, index * CLUSTER, CLUSTER, data);
}

static void assert_clean(const char *path)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK);
    BdrvCheckResult r;

    assert_int_equal(bdrv_check(blk_bs(blk), &r, NULL, NULL), 0);
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
    blk_unref(blk);
}

static void bitmaps_follow_an_image_that_becomes_writable(void **state)
{
    g_autofree char *path = create_with_bitmap();
    BlockBackend *blk = open_qcow2(path, 0);

    assert_false(in_use_on_disk(path));
    for (int64_t i = 1; i <= 3; i++) {
        allow_writes(blk, true);
        assert_false(in_use_on_disk(path)); /* nothing has changed yet */
        write_cluster(blk, i);
        assert_true(in_use_on_disk(path));
        write_cluster(blk, i);
        assert_dirty(blk, (i + 1) * CLUSTER);
        allow_writes(blk, false);
        assert_false(in_use_on_disk(path));
        assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), -EPERM);
    }
    blk_unref(blk);
    assert_clean(path);
    blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    assert_dirty(blk, 4 * CLUSTER);
    blk_unref(blk);
}

/* The bitmaps were stored already, as for an image that nobody writes to. */
static void a_failed_change_to_read_only_marks_bitmaps_again(void **state)
{
    g_autofree char *path = create_with_bitmap();
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    GError *err = NULL;

    write_cluster(blk, 1);
    write_cluster(blk, 2);
    assert_true(in_use_on_disk(path));
    assert_false(bdrv_reopen_set_read_only(blk_bs(blk), true, &err)); /* @blk writes */
    g_clear_error(&err);
    write_cluster(blk, 1); /* in place */
    assert_true(in_use_on_disk(path));
    write_cluster(blk, 3);
    assert_dirty(blk, 4 * CLUSTER);
    blk_unref(blk);
    assert_false(in_use_on_disk(path));
    assert_clean(path);
}

/* Whether the node passes discards on may change, unless it was told for this driver. */
static void discards_are_passed_on_as_the_node_is_told_last(void **state)
{
    for (int told = 0; told < 2; told++) {
        g_autofree char *path = create_with_bitmap();
        g_autoptr(JsonObject) options = options_of("discard=unmap,file.discard=unmap");
        BlockBackend *blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s%s",
                                                path, told ? ",pass-discard-request=off" : ""),
                                     BDRV_O_RDWR | BDRV_O_NO_FLUSH);
        g_autofree uint8_t *data = pattern(4 * MiB, 1);
        GError *err = NULL;
        struct stat before, after;
        bool ok = bdrv_reopen(blk_bs(blk), options, &err);

        assert_ok(ok, err);
        assert_int_equal(blk_pwrite(blk, 0, 4 * MiB, data, 0), 0);
        assert_int_equal(blk_flush(blk), 0);
        assert_int_equal(stat(path, &before), 0);
        assert_int_equal(blk_pdiscard(blk, 0, 4 * MiB), 0);
        assert_int_equal(blk_flush(blk), 0);
        assert_int_equal(stat(path, &after), 0);
        assert_true(told ? after.st_blocks >= before.st_blocks
                         : after.st_blocks < before.st_blocks / 2);
        blk_unref(blk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitmaps_follow_an_image_that_becomes_writable),
        cmocka_unit_test(a_failed_change_to_read_only_marks_bitmaps_again),
        cmocka_unit_test(discards_are_passed_on_as_the_node_is_told_last),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
