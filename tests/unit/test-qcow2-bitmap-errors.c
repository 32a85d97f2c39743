/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent bitmaps of qcow2 on a disk that fails while they are stored: what
 * is on disk then is never stale, and somebody is told.
 */
#include "qcow2-testing.h"

#include <stdio.h>

#include "fault-node.h"
#include "repeats.h"

#define DISK (1024 * 1024)

static char *create_image(const char *name)
{
    g_autoptr(JsonObject) options = options_of("size=%d,cluster_size=512", DISK);
    char *path = test_path(name);
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

static BlockBackend *open_faulty(const char *path)
{
    GError *err = NULL;
    BlockBackend *blk = try_open(options_of("driver=qcow2,file.driver=fault,file.image.driver=file,"
                                            "file.image.filename=%s", path), BDRV_O_RDWR, &err);

    assert_ok(blk != NULL, err);
    return blk;
}

static void add(BlockBackend *blk, const char *name)
{
    GError *err = NULL;
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_create(blk_bs(blk), name, 512, &err);

    assert_ok(bitmap != NULL, err);
    bdrv_dirty_bitmap_set_persistent(bitmap, true);
}

static void guest_writes(BlockBackend *blk, int64_t offset)
{
    const uint8_t data[512] = { 1 };

    assert_int_equal(blk_pwrite(blk, offset, sizeof(data), data, 0), 0);
}

/* An image with bitmaps "a" and "b"; a guest has written at 0. */
static char *make_image(void)
{
    char *path = create_image("test.qcow2");
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
    GError *err = NULL;
    bool ok;

    add(blk, "a");
    add(blk, "b");
    guest_writes(blk, 0);
    ok = bdrv_dirty_bitmaps_store(blk_bs(blk), &err);
    assert_ok(ok, err);
    blk_unref(blk);
    return path;
}

/*
 * The image at @path is not corrupt, and bitmap "a", if it is there to be used,
 * has what a guest has written: at the @count first multiples of 8192. Whether
 * it can be used.
 */
static bool assert_not_stale(const char *path, int count)
{
    BdrvCheckResult result = { 0 };
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK);
    BdrvDirtyBitmap *bitmap;
    GError *err = NULL;
    bool ok;

    assert_int_equal(bdrv_check(blk_bs(blk), &result, NULL, NULL), 0);
    assert_int_equal(result.corruptions + result.check_errors, 0);
    blk_unref(blk);

    blk = open_qcow2(path, 0);
    ok = bdrv_dirty_bitmaps_load(blk_bs(blk), &err);
    assert_ok(ok, err);
    bitmap = bdrv_dirty_bitmap_find(blk_bs(blk), "a");
    ok = bitmap && !(bdrv_dirty_bitmap_state(bitmap) & BDRV_BITMAP_INCONSISTENT);
    for (int i = 0; i < count && ok; i++) {
        assert_true(bdrv_dirty_bitmap_get(bitmap, i * 8192));
    }
    blk_unref(blk);
    return ok;
}

/* What a crash right now would leave of the image at @path. */
static void assert_crash_leaves_nothing_stale(const char *path, int count)
{
    g_autofree char *data = NULL, *copy = NULL;
    gsize size = 0;

    assert_true(g_file_get_contents(path, &data, &size, NULL));
    copy = make_file("crash.qcow2", data, size);
    assert_not_stale(copy, count);
}

/* What is done while requests fail: either stores all bitmaps anew. */
typedef bool Operation(BlockDriverState *bs, GError **errp);

static bool store(BlockDriverState *bs, GError **errp)
{
    return bdrv_dirty_bitmaps_store(bs, errp);
}

static bool remove_b(BlockDriverState *bs, GError **errp)
{
    return bdrv_dirty_bitmap_remove_stored(bs, "b", errp);
}

/*
 * Let request @n of @operation fail, write, and close the image, with errors
 * until the end if not @once. Whether a request has failed.
 */
static bool fail_one(Operation *operation, int n, bool once, FaultManner manner)
{
    g_autofree char *path = make_image();
    BlockBackend *blk = open_faulty(path);
    GError *err = NULL;
    bool ok, hit;

    guest_writes(blk, 8192);
    fault_arm(n, -EIO, once, manner);
    ok = operation(blk_bs(blk), &err);
    hit = fault.hit;
    fault_disarm();
    if (!ok) {
        assert_true(hit);
        assert_error_has(&err, "could not write");
        guest_writes(blk, 2 * 8192);
        assert_crash_leaves_nothing_stale(path, 3);
        if (!once) {
            fault_arm(0, -EIO, false, manner);
        }
    }
    blk_unref(blk);
    fault_disarm();
    /* What has failed once is stored after all. */
    ok = assert_not_stale(path, ok ? 2 : 3) || (hit && !once);
    assert_true(ok);
    return hit;
}

static void fail_each(Operation *operation)
{
    for (int variant = 0; variant < 6; variant++) {
        int n = 0;

        while (fail_one(operation, n, variant % 2, (FaultManner)(variant / 2))) {
            n += repeats(1, 3);
        }
        assert_true(n > 8); /* that many requests it takes at least */
    }
}

static void bitmaps_that_cannot_be_stored_are_not_stale(void **state)
{
    fail_each(store);
}

static void bitmaps_that_cannot_be_removed_are_not_stale(void **state)
{
    fail_each(remove_b);
}

/* What closing @blk tells on stderr. */
static char *told_at_closing(BlockBackend *blk)
{
    g_autofree char *path = test_path("stderr");
    char *text = NULL;
    int saved = dup(STDERR_FILENO), fd = g_open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    blk_unref(blk);
    fault_disarm();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(fd);
    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

static void closing_tells_which_bitmap_is_lost(void **state)
{
    g_autofree char *path = make_image(), *text = NULL, *quiet = NULL;
    BlockBackend *blk = open_faulty(path);

    guest_writes(blk, 8192);
    fault_arm(0, -EIO, false, FAULT_NOTHING_DONE);
    text = told_at_closing(blk);
    assert_non_null(strstr(text, "Lost persistent bitmaps of node '"));
    assert_non_null(strstr(text, "test.qcow2"));
    assert_non_null(strstr(text, ": could not write bitmap 'a': Input/output error\n"));
    assert_false(assert_not_stale(path, 2));

    blk = open_faulty(path);
    quiet = told_at_closing(blk);
    assert_string_equal(quiet, "");
}

static int setup(void **state)
{
    GError *err = NULL;

    return qcow2_group_setup(state) || !bdrv_register(&fault_driver, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitmaps_that_cannot_be_stored_are_not_stale),
        cmocka_unit_test(bitmaps_that_cannot_be_removed_are_not_stale),
        cmocka_unit_test(closing_tells_which_bitmap_is_lost),
    };

    return cmocka_run_group_tests(tests, setup, driver_group_teardown);
}
