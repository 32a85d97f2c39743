/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: an image that is emptied once its backing file has all it held: nothing is lost,
 * whatever fails on the way.
 */
#include "qcow2-testing.h"
#include "fault-node.h"

#include "blockgraph/snapshot.h"

#define KiB 1024LL
#define LENGTH (96 * KiB)

typedef struct Bytes {
    char *data;
    gsize size;
} Bytes;

static Bytes load(const char *path)
{
    Bytes bytes;

    assert_true(g_file_get_contents(path, &bytes.data, &bytes.size, NULL));
    return bytes;
}

static BlockBackend *open_on_fault(const char *path, int flags)
{
    return open_blk(options_of("driver=qcow2,file.driver=fault,file.image.driver=file,"
                               "file.image.filename=%s", path),
                    BDRV_O_UNMAP | BDRV_O_NO_FLUSH | flags);
}

/* Zeros, what is written, what is compressed: 32 KiB each. */
static uint8_t *disk_data(void)
{
    uint8_t *data = pattern(LENGTH, 5);

    memset(data, 0, 32 * KiB);
    memset(data + 64 * KiB, 7, 32 * KiB);
    return data;
}

/* An image of that shape that holds @data, which is what its backing file has, too. */
static char *make_committed(const char *shape, const uint8_t *data)
{
    g_autofree char *base = make_file("base.raw", data, LENGTH);
    g_autoptr(JsonObject) options =
        options_of("size=96k,backing_file=%s,backing_fmt=raw,%s", base, shape);
    char *path = test_path("overlay.qcow2");
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);
    BlockBackend *blk;

    assert_ok(ok, err);
    blk = open_on_fault(path, BDRV_O_RDWR);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 32 * KiB, 0), 0);
    assert_int_equal(blk_pwrite(blk, 32 * KiB, 32 * KiB, data + 32 * KiB, 0), 0);
    assert_int_equal(blk_pwrite(blk, 64 * KiB, 32 * KiB, data + 64 * KiB, BDRV_REQ_COMPRESSED), 0);
    blk_unref(blk);
    return path;
}

static void assert_disk(BlockBackend *blk, const uint8_t *data)
{
    g_autofree uint8_t *buf = g_malloc(LENGTH);

    assert_int_equal(blk_pread(blk, 0, LENGTH, buf, 0), 0);
    assert_memory_equal(buf, data, LENGTH);
}

static bool holds_anything(BlockBackend *blk)
{
    int64_t pnum;
    int depth;
    int ret = bdrv_block_status_above(blk_bs(blk), NULL, 0, LENGTH, &pnum, NULL, NULL, &depth);

    assert_true(ret >= 0);
    return depth == 0 || pnum < LENGTH;
}

/* Nothing but leaks in what the file at @path is at this moment, and the disk has @data. */
static void assert_copy_whole(const char *path, const uint8_t *data, bool leaks)
{
    Bytes bytes = load(path);
    g_autofree char *copy = make_file("copy.qcow2", bytes.data, bytes.size);
    BlockBackend *blk = open_qcow2(copy, BDRV_O_CHECK);
    BdrvCheckResult r;

    assert_int_equal(bdrv_check(blk_bs(blk), &r, NULL, NULL), 0);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    assert_true(leaks || r.leaks == 0);
    blk_unref(blk);
    blk = open_qcow2(copy, 0);
    assert_disk(blk, data);
    blk_unref(blk);
    g_free(bytes.data);
}

/* ---- Errors ------------------------------------------------------------------------------ */

static const char *const shapes[] = {
    "cluster_size=2k,refcount_bits=64",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=8k,lazy_refcounts=on",
    "cluster_size=8k,compat=0.10",
};

/* Request @n of @type fails while it is emptied. False: there are not so many. */
static bool empty_with_error(const Bytes *image, const uint8_t *data, int type, int n,
                             FaultManner manner)
{
    g_autofree char *path = make_file("test.qcow2", image->data, image->size);
    BlockBackend *blk = open_on_fault(path, BDRV_O_RDWR);
    GError *err = NULL;
    bool hit;
    int ret;

    fault_arm(n, -EIO, true, manner);
    fault.only = type;
    ret = bdrv_make_empty(blk_bs(blk), &err);
    fault_disarm();
    hit = fault.hit;
    assert_true((ret == 0) == (err == NULL));
    assert_true(ret == 0 || hit);
    g_clear_error(&err);
    assert_disk(blk, data);
    assert_copy_whole(path, data, true);
    assert_int_equal(bdrv_make_empty(blk_bs(blk), NULL), 0);
    assert_false(holds_anything(blk));
    assert_disk(blk, data);
    assert_int_equal(blk_pwrite(blk, 3 * KiB, 70 * KiB, data + 3 * KiB, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
    assert_copy_whole(path, data, true);
    return hit;
}

static void nothing_is_lost_whichever_request_fails(void **state)
{
    static const int types[] = { BDRV_IO_READ, BDRV_IO_WRITE, BDRV_IO_FLUSH, BDRV_IO_TRUNCATE,
                                 BDRV_IO_DISCARD };
    g_autofree uint8_t *data = disk_data();
    int failed = 0;

    for (size_t s = 0; s < G_N_ELEMENTS(shapes); s++) {
        g_autofree char *path = make_committed(shapes[s], data);
        Bytes image = load(path);

        for (size_t i = 0; i < G_N_ELEMENTS(types) * 3; i++) {
            int type = types[i % G_N_ELEMENTS(types)];

            for (int n = 0; empty_with_error(&image, data, type, n, i / G_N_ELEMENTS(types)); n++) {
                failed++;
            }
        }
        g_free(image.data);
    }
    assert_true(failed > 100);
}

/* ---- What is left -------------------------------------------------------------------------- */

static void an_empty_image_is_as_small_as_a_new_one(void **state)
{
    g_autofree uint8_t *data = disk_data();

    for (size_t s = 0; s < G_N_ELEMENTS(shapes); s++) {
        g_autofree char *path = make_committed(shapes[s], data);
        BlockBackend *blk = open_on_fault(path, BDRV_O_RDWR);
        Bytes bytes;

        assert_true(holds_anything(blk));
        assert_int_equal(bdrv_make_empty(blk_bs(blk), NULL), 0);
        assert_false(holds_anything(blk));
        assert_int_equal(blk_getlength(blk), LENGTH);
        blk_unref(blk);
        assert_copy_whole(path, data, false);
        bytes = load(path);
        assert_in_range(bytes.size, 4 * 2 * KiB, s == 1 ? 4 * 16 * KiB : 4 * 8 * KiB);
        g_free(bytes.data);
    }
}

/* Ways to give up all that the disk holds. */
static void give_up_by_emptying(BlockBackend *blk)
{
    assert_int_equal(bdrv_make_empty(blk_bs(blk), NULL), 0);
}

static void give_up_by_discarding(BlockBackend *blk)
{
    assert_int_equal(blk_pdiscard(blk, 0, LENGTH), 0);
    assert_int_equal(blk_flush(blk), 0);
}

static void give_up_by_shrinking(BlockBackend *blk)
{
    assert_int_equal(blk_truncate(blk, 0, true, BLOCK_PREALLOC_OFF, NULL), 0);
}

static void give_up_with_a_snapshot(BlockBackend *blk)
{
    BdrvSnapshotInfo info = { .name = "all", .icount = UINT64_MAX };

    assert_true(bdrv_snapshot_create(blk_bs(blk), &info, NULL));
    give_up_by_discarding(blk);
    assert_true(bdrv_snapshot_delete(blk_bs(blk), 0, NULL));
}

/* Whether there is a discard @n when an image with one piece of data gives that up. */
static bool discards(void (*give_up)(BlockBackend *blk), int n)
{
    g_autofree char *path = test_path("piece.qcow2");
    g_autoptr(JsonObject) options = options_of("size=96k,cluster_size=2k");
    g_autofree uint8_t *data = pattern(LENGTH, 9);
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);
    BlockBackend *blk;

    assert_ok(ok, err);
    blk = open_on_fault(path, BDRV_O_RDWR | BDRV_O_RESIZE);
    assert_int_equal(blk_pwrite(blk, 0, LENGTH, data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    fault_arm(n, -EIO, true, FAULT_NOTHING_DONE);
    fault.only = BDRV_IO_DISCARD;
    give_up(blk);
    fault_disarm();
    blk_unref(blk);
    return fault.hit;
}

/* Thousands of small holes take seconds. */
static void what_lies_in_one_piece_is_discarded_at_once(void **state)
{
    static void (*const ways[])(BlockBackend *) = { give_up_by_emptying, give_up_by_discarding,
                                                    give_up_by_shrinking,
                                                    give_up_with_a_snapshot };

    for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
        assert_true(discards(ways[i], 0));
        assert_false(discards(ways[i], 1));
    }
}

static void snapshots_and_stored_bitmaps_stay(void **state)
{
    g_autofree uint8_t *data = disk_data();
    g_autofree char *path = make_committed("cluster_size=512", data);
    BlockBackend *blk = open_on_fault(path, BDRV_O_RDWR);
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_create(blk_bs(blk), "kept", 64 * KiB, NULL);
    BdrvStoredBitmapInfo stored;
    BdrvSnapshotInfo info = { .name = "kept", .icount = UINT64_MAX };
    GError *err = NULL;
    bool ok;

    assert_non_null(bitmap);
    bdrv_dirty_bitmap_set_persistent(bitmap, true);
    ok = bdrv_snapshot_create(blk_bs(blk), &info, &err);
    assert_ok(ok, err);
    assert_int_equal(bdrv_make_empty(blk_bs(blk), NULL), 0);
    ok = bdrv_dirty_bitmaps_store(blk_bs(blk), &err);
    assert_ok(ok, err);
    blk_unref(blk);
    assert_copy_whole(path, data, false);

    blk = open_qcow2(path, 0);
    assert_false(holds_anything(blk));
    assert_int_equal(bdrv_stored_bitmap_get(blk_bs(blk), 0, &stored, NULL), 1);
    assert_string_equal(stored.name, "kept");
    assert_false(stored.in_use);
    assert_true(bdrv_snapshot_load_tmp(blk_bs(blk), NULL, "kept", NULL));
    assert_true(holds_anything(blk));
    assert_disk(blk, data);
    blk_unref(blk);
}

static void what_cannot_be_emptied_says_so(void **state)
{
    g_autofree uint8_t *data = disk_data();
    g_autofree char *path = make_committed("cluster_size=512", data);
    BlockBackend *blk = open_qcow2(path, 0);
    GError *err = NULL;

    assert_int_equal(bdrv_make_empty(blk_bs(blk), &err), -EACCES);
    assert_error_has(&err, "read-only");
    blk_unref(blk);
    blk = open_blk(options_of("driver=raw,file.driver=file,file.filename=%s", path), BDRV_O_RDWR);
    assert_int_equal(bdrv_make_empty(blk_bs(blk), &err), -ENOTSUP);
    assert_error_has(&err, "raw");
    blk_unref(blk);
}

static int setup(void **state)
{
    GError *err = NULL;

    return qcow2_group_setup(state) || !bdrv_register(&fault_driver, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_whichever_request_fails),
        cmocka_unit_test(an_empty_image_is_as_small_as_a_new_one),
        cmocka_unit_test(what_lies_in_one_piece_is_discarded_at_once),
        cmocka_unit_test(snapshots_and_stored_bitmaps_stay),
        cmocka_unit_test(what_cannot_be_emptied_says_so),
    };

    return cmocka_run_group_tests_name("qcow2 empty", tests, setup, driver_group_teardown);
}
