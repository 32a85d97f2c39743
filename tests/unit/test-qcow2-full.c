/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: images on storage that cannot grow, such as devices and parts of files. Full is
 * told as such, and what is given up is used again.
 */
#include "qcow2-testing.h"
#include "fault-node.h"
#include "blockgraph/snapshot.h"

#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)
#define STORAGE (1 * MiB) /* bytes of the file */

/* ---- Helpers --------------------------------------------------------------------------- */

/* What the storage is; DEVICE answers as one does. */
typedef enum Storage {
    PART,
    DEVICE,
} Storage;

static char *create_image(const char *text)
{
    g_autoptr(JsonObject) options = options_of("size=4M,%s", text);
    char *path = test_path("full.qcow2");
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    assert_int_equal(truncate(path, STORAGE), 0);
    return path;
}

static BlockBackend *open_on(Storage storage, const char *path)
{
    int flags = BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP;

    if (storage == PART) {
        return open_blk(options_of("driver=qcow2,file.driver=raw,file.size=%lld,"
                                   "file.file.filename=%s", STORAGE, path), flags);
    }
    fault_arm(0, -EINVAL, false, FAULT_NOTHING_DONE);
    fault.only = BDRV_IO_TRUNCATE;
    return open_blk(options_of("driver=qcow2,file.driver=fault,file.image.driver=file,"
                               "file.image.filename=%s", path), flags);
}

static void close_and_check(BlockBackend *blk, const char *path)
{
    BdrvCheckResult r;
    struct stat st;
    int ret;

    blk_unref(blk);
    fault_disarm();
    blk = open_qcow2(path, BDRV_O_CHECK);
    ret = bdrv_check(blk_bs(blk), &r, NULL, NULL);
    blk_unref(blk);
    assert_int_equal(ret, 0);
    assert_int_equal(r.corruptions + r.check_errors + r.leaks, 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, STORAGE);
}

/* Write @data, pieces of @piece bytes, up to the first error; how many bytes were written. */
static int64_t fill(BlockBackend *blk, const uint8_t *data, int64_t piece, int flags, int *ret)
{
    int64_t at = 0;

    *ret = 0;
    while (at < 2 * STORAGE) {
        *ret = blk_pwrite(blk, at, piece, data + at, flags);
        if (*ret < 0) {
            break;
        }
        at += piece;
    }
    return at;
}

/* ---- Full ------------------------------------------------------------------------------ */

static const struct {
    const char *options;
    int64_t piece;
    int flags;
} fillings[] = {
    { "cluster_size=64k", 64 * KiB, 0 },
    { "cluster_size=4k", 64 * KiB, 0 },
    { "cluster_size=512,refcount_bits=64", 512, 0 }, /* tables of all kinds grow */
    { "cluster_size=4k,lazy_refcounts=on", 4 * KiB, 0 },
    { "cluster_size=16k,extended_l2=on", 16 * KiB, 0 },
    { "cluster_size=4k", 4 * KiB, BDRV_REQ_COMPRESSED },
};

static void what_is_given_up_by_a_full_image_is_used_again(void **state)
{
    g_autofree uint8_t *data = pattern(2 * STORAGE, 1);

    for (size_t i = 0; i < 2 * G_N_ELEMENTS(fillings); i++) {
        int64_t piece = fillings[i / 2].piece, end;
        int flags = fillings[i / 2].flags, ret;
        g_autofree char *path = create_image(fillings[i / 2].options);
        BlockBackend *blk = open_on(i % 2 ? DEVICE : PART, path);

        for (int64_t at = 0; flags && at < 2 * STORAGE; at++) {
            data[at] &= 15; /* half of it when compressed */
        }
        end = fill(blk, data, piece, flags, &ret);
        assert_int_equal(ret, -ENOSPC);
        assert_in_range(end, STORAGE / 2, 2 * STORAGE - piece);
        assert_int_equal(blk_flush(blk), 0); /* what was written is not in danger */
        assert_reads(blk, 0, end, data);
        assert_int_equal(blk_pdiscard(blk, 0, 256 * KiB), 0);
        assert_int_equal(blk_pwrite(blk, end, piece, data + end, flags), 0);
        assert_reads(blk, 256 * KiB, end + piece - 256 * KiB, data + 256 * KiB);
        close_and_check(blk, path);
    }
}

/* A few large pieces may be more than all the small ones that wait for a flush. */
static void much_that_is_given_up_does_not_wait_for_the_guest_to_flush(void **state)
{
    static const int many = 1000;
    g_autofree char *path = test_path("much.qcow2");
    g_autoptr(JsonObject) options =
        options_of("size=4G,cluster_size=2M,preallocation=metadata");
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);
    BlockBackend *blk;

    assert_ok(ok, err);
    blk = open_blk(options_of("driver=qcow2,pass-discard-request=off,file.driver=fault,"
                              "file.image.driver=file,file.image.filename=%s", path),
                   BDRV_O_RDWR | BDRV_O_UNMAP);
    fault_arm(many, -EIO, true, FAULT_NOTHING_DONE);
    fault.only = BDRV_IO_FLUSH;
    assert_int_equal(blk_pdiscard(blk, 0, 512 * MiB), 0);
    assert_int_equal(fault.left, many);
    assert_int_equal(blk_pdiscard(blk, 512 * MiB, 1024 * MiB), 0);
    assert_in_range(fault.left, 0, many - 1);
    fault_disarm();
    blk_unref(blk);
}

/* A hole that was too short for others is found when there is nothing else. */
static void the_last_free_cluster_is_found(void **state)
{
    g_autofree uint8_t *data = pattern(2 * STORAGE, 2);
    g_autofree char *path = create_image("cluster_size=4k");
    BlockBackend *blk = open_on(PART, path);
    int ret;

    fill(blk, data, 4 * KiB, 0, &ret);
    assert_int_equal(ret, -ENOSPC);
    assert_int_equal(blk_pdiscard(blk, 40 * KiB, 4 * KiB), 0);
    assert_int_equal(blk_pdiscard(blk, 400 * KiB, 8 * KiB), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_pwrite(blk, 400 * KiB, 8 * KiB, data, 0), 0);
    assert_int_equal(blk_pwrite(blk, 40 * KiB, 4 * KiB, data, 0), 0);
    assert_int_equal(blk_pwrite(blk, 4 * MiB - 4 * KiB, 4 * KiB, data, 0), -ENOSPC);
    assert_reads(blk, 400 * KiB, 8 * KiB, data);
    assert_reads(blk, 40 * KiB, 4 * KiB, data);
    close_and_check(blk, path);
}

/* Its tables come first: there is nothing to undo, and no dirty bit to clear. */
static void a_full_image_is_as_it_was_after_a_snapshot_fails(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(fillings); i++) {
        g_autofree uint8_t *data = pattern(2 * STORAGE, 3);
        g_autofree char *path = create_image(fillings[i].options);
        BlockBackend *blk = open_on(PART, path);
        BdrvSnapshotInfo snapshot = { .name = "full" };
        GError *err = NULL;
        BlockDriverInfo info;
        int64_t end;
        int ret;

        end = fill(blk, data, fillings[i].piece, 0, &ret);
        assert_int_equal(ret, -ENOSPC);
        assert_int_equal(blk_flush(blk), 0);
        assert_false(bdrv_snapshot_create(blk_bs(blk), &snapshot, &err));
        assert_error_has(&err, g_strerror(ENOSPC));
        assert_int_equal(bdrv_get_info(blk_bs(blk), &info), 0);
        assert_int_equal(info.is_dirty, strstr(fillings[i].options, "lazy") != NULL);
        assert_reads(blk, 0, end, data);
        close_and_check(blk, path);
    }
}

/* ---- What parts of files say ------------------------------------------------------------- */

static void a_format_that_writes_beyond_a_part_of_a_file_finds_no_space(void **state)
{
    g_autofree char *path = create_image("cluster_size=4k");
    uint8_t buf[512] = { 0 };
    BlockBackend *blk;
    BdrvChild *file;

    assert_int_equal(truncate(path, STORAGE + 64 * KiB), 0);
    blk = open_on(PART, path);
    bdrv_graph_rdlock_main_loop();
    file = bdrv_get_child(blk_bs(blk), "file");
    assert_int_equal(bdrv_pwrite(file, STORAGE, sizeof(buf), buf, 0), -ENOSPC);
    bdrv_graph_rdunlock_main_loop();
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
        cmocka_unit_test(what_is_given_up_by_a_full_image_is_used_again),
        cmocka_unit_test(much_that_is_given_up_does_not_wait_for_the_guest_to_flush),
        cmocka_unit_test(the_last_free_cluster_is_found),
        cmocka_unit_test(a_full_image_is_as_it_was_after_a_snapshot_fails),
        cmocka_unit_test(a_format_that_writes_beyond_a_part_of_a_file_finds_no_space),
    };

    return cmocka_run_group_tests_name("qcow2 full", tests, setup, driver_group_teardown);
}
