/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The compress filter: all writes are compressed, also those of parts of clusters, and
 * at the end of a disk that is no multiple of them.
 */
#include "driver-testing.h"

#define CLUSTER 65536
#define SIZE (3 * CLUSTER + 1024)

static char *make_image(void)
{
    g_autofree char *path = test_path("image.qcow2");
    g_autoptr(JsonObject) options = options_of("size=%d", SIZE);
    GError *err = NULL;

    assert_ok(bdrv_create(bdrv_find_format("qcow2"), path, options, &err), err);
    return g_steal_pointer(&path);
}

/* Options for the filter, with those of its child at @child, "file" or below. */
static JsonObject *options_at(const char *more, const char *child, const char *path)
{
    return options_of("driver=compress%s,%s.driver=qcow2,%s.file.driver=file,"
                      "%s.file.filename=%s", more, child, child, child, path);
}

static bool is_compressed(BlockBackend *blk, int64_t offset)
{
    int64_t n, map;
    int ret = status_of(blk, offset, CLUSTER, &n, &map);

    assert_true(ret >= 0);
    return ret & BDRV_BLOCK_COMPRESSED;
}

static void assert_all_writes_are_compressed(BlockBackend *blk)
{
    g_autofree uint8_t *data = g_malloc0(SIZE);

    assert_int_equal(blk_getlength(blk), SIZE);
    memset(data, 1, CLUSTER);
    assert_int_equal(blk_pwrite(blk, 0, CLUSTER, data, 0), 0);
    memset(data + CLUSTER + 100, 2, CLUSTER); /* parts of two */
    assert_int_equal(blk_pwrite(blk, CLUSTER + 100, CLUSTER, data + CLUSTER + 100, 0), 0);
    memset(data + SIZE - 10, 3, 10); /* the last one is shorter */
    assert_int_equal(blk_pwrite(blk, SIZE - 10, 10, data + SIZE - 10, BDRV_REQ_FUA), 0);
    assert_reads(blk, 0, SIZE, data);
    for (int64_t offset = 0; offset < SIZE; offset += CLUSTER) {
        assert_true(is_compressed(blk, offset));
    }
    assert_int_equal(blk_pwrite_zeroes(blk, 0, CLUSTER, 0), 0);
    memset(data, 0, CLUSTER);
    assert_false(is_compressed(blk, 0));
    assert_reads(blk, 0, SIZE, data);
}

static void all_writes_are_compressed(void **state)
{
    g_autofree char *path = make_image();
    BlockBackend *blk = open_blk(options_at("", "file", path), BDRV_O_RDWR);

    assert_all_writes_are_compressed(blk);
    blk_unref(blk);
}

static void filters_that_hand_them_on_may_lie_between(void **state)
{
    g_autofree char *path = make_image();
    BlockBackend *blk = open_blk(options_at(",file.driver=copy-on-read", "file.file", path),
                                 BDRV_O_RDWR);

    assert_all_writes_are_compressed(blk);
    blk_unref(blk);
}

static void the_disk_may_become_longer(void **state)
{
    g_autofree char *path = make_image();
    g_autofree uint8_t *data = pattern(1024, 7);
    BlockBackend *blk = open_blk(options_at("", "file", path), BDRV_O_RDWR | BDRV_O_RESIZE);
    GError *err = NULL;

    assert_ok(blk_truncate(blk, SIZE + CLUSTER, true, BLOCK_PREALLOC_OFF, &err) == 0, err);
    assert_int_equal(blk_pwrite(blk, SIZE + CLUSTER - 1024, 1024, data, 0), 0);
    assert_int_equal(blk_getlength(blk), SIZE + CLUSTER);
    assert_reads(blk, SIZE + CLUSTER - 1024, 1024, data);
    assert_true(is_compressed(blk, SIZE + CLUSTER - 1024));
    blk_unref(blk);
}

static void what_cannot_compress_is_refused(void **state)
{
    g_autofree char *path = make_image();
    const char *const text = "Compression is not supported for underlying format: ";
    const char *const drivers[] = {"compress", "blkdebug"};
    g_autofree char *raw = g_strdup_printf("%sraw", text);

    assert_open_fails(options_of("driver=compress,file.driver=raw,file.file.driver=file,"
                                 "file.file.filename=%s", path), BDRV_O_RDWR, raw);
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        g_autofree char *expected = g_strdup_printf("%s%s", text, drivers[i]);
        g_autofree char *between = g_strdup_printf(",file.driver=%s", drivers[i]);

        assert_open_fails(options_at(between, i == 0 ? "file.file" : "file.image", path),
                          BDRV_O_RDWR, expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_writes_are_compressed),
        cmocka_unit_test(filters_that_hand_them_on_may_lie_between),
        cmocka_unit_test(the_disk_may_become_longer),
        cmocka_unit_test(what_cannot_compress_is_refused),
    };

    return cmocka_run_group_tests(tests, driver_group_setup, driver_group_teardown);
}
