/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying by the storage: what is copied, what is refused, and what a write has to do
 * besides. The kernel copies within any file system that this runs on.
 */
#include "driver-testing.h"

#define SIZE (256 * 1024)

/* ---- A disk that can copy, in sectors, and fails if it is told to ---------------------- */

#define COPIER_SIZE (40 << 20)

static int copier_calls;
static int copier_fails_at; /* the number of the call, from 1; 0: none */

static bool copier_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, COPIER_SIZE);
    return true;
}

static void copier_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->request_alignment = 512;
}

static int coroutine_fn copier_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, int flags)
{
    io_vector_memset(iov, 0, 0, bytes);
    return 0;
}

static int coroutine_fn copier_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          IOVector *iov, int flags)
{
    return 0;
}

static int coroutine_fn copier_co_copy_range(BlockDriverState *bs, int64_t offset,
                                             BlockDriverState *src, int64_t src_offset,
                                             int64_t bytes)
{
    assert_int_equal((offset | src_offset | bytes) % 512, 0);
    return ++copier_calls == copier_fails_at ? -ENOSPC : 0;
}

static BlockDriver copier_driver = {
    .format_name = "copier",
    .bdrv_open = copier_open,
    .bdrv_refresh_limits = copier_refresh_limits,
    .bdrv_co_preadv = copier_co_preadv,
    .bdrv_co_pwritev = copier_co_pwritev,
    .bdrv_co_copy_range = copier_co_copy_range,
};

/* ---- Copying ----------------------------------------------------------------------------- */

typedef struct Copy {
    BlockBackend *src;
    BlockBackend *dst;
    int64_t src_offset;
    int64_t dst_offset;
    int64_t bytes;
    int flags;
    int ret;
    bool done; /* atomic */
} Copy;

static void coroutine_fn copy_entry(void *opaque)
{
    Copy *c = opaque;

    c->ret = blk_co_copy_range(c->src, c->src_offset, c->dst, c->dst_offset, c->bytes, c->flags);
    __atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static int copy(BlockBackend *src, int64_t src_offset, BlockBackend *dst, int64_t dst_offset,
                int64_t bytes, int flags)
{
    Copy c = {src, dst, src_offset, dst_offset, bytes, flags, 0, false};

    coroutine_enter(coroutine_create(copy_entry, &c));
    AIO_WAIT_WHILE(!__atomic_load_n(&c.done, __ATOMIC_ACQUIRE));
    return c.ret;
}

/* A raw image in file @name of SIZE bytes, from @data or a hole. */
static BlockBackend *raw_file(const char *name, const uint8_t *data, int flags)
{
    g_autofree char *path = make_file(name, data, SIZE);

    return open_blk(options_of("driver=raw,file.driver=file,file.filename=%s", path), flags);
}

static BlockBackend *memory(void)
{
    return open_blk(options_of("driver=memory,size=%d", SIZE), BDRV_O_RDWR);
}

static void bytes_arrive_where_they_should(void **state)
{
    g_autofree uint8_t *data = pattern(SIZE, 1), *old = pattern(SIZE, 2);
    BlockBackend *src = raw_file("src", data, 0), *dst = raw_file("dst", old, BDRV_O_RDWR);

    assert_int_equal(copy(src, 4096, dst, 8192, 65536, 0), 0);
    assert_int_equal(copy(src, 77, dst, 100001, 12345, BDRV_REQ_FUA), 0);
    assert_int_equal(copy(src, 0, dst, 0, 0, 0), 0);
    assert_int_equal(copy(src, SIZE - 1, dst, SIZE - 1, 1, 0), 0);
    memcpy(old + 8192, data + 4096, 65536);
    memcpy(old + 100001, data + 77, 12345);
    old[SIZE - 1] = data[SIZE - 1];
    assert_reads(dst, 0, SIZE, old);
    assert_reads(src, 0, SIZE, data);
    blk_unref(src);
    blk_unref(dst);
}

static void within_one_node_only_what_is_apart(void **state)
{
    g_autofree uint8_t *data = pattern(SIZE, 3);
    BlockBackend *blk = raw_file("src", data, BDRV_O_RDWR);

    assert_int_equal(copy(blk, 0, blk, 4095, 4096, 0), -ENOTSUP);
    assert_int_equal(copy(blk, 4095, blk, 0, 4096, 0), -ENOTSUP);
    assert_reads(blk, 0, SIZE, data);
    assert_int_equal(copy(blk, 0, blk, 4096, 4096, 0), 0);
    memcpy(data + 4096, data, 4096);
    assert_reads(blk, 0, SIZE, data);
    blk_unref(blk);
}

static void what_lies_outside_or_may_not_be_written_is_refused(void **state)
{
    BlockBackend *src = raw_file("src", NULL, 0), *dst = raw_file("dst", NULL, BDRV_O_RDWR);

    assert_int_equal(copy(src, SIZE - 511, dst, 0, 512, 0), -EIO);
    assert_int_equal(copy(src, 0, dst, SIZE - 511, 512, 0), -EIO);
    assert_int_equal(copy(src, -1, dst, 0, 512, 0), -EIO);
    assert_int_equal(copy(src, 0, dst, INT64_MAX, 512, 0), -EIO);
    assert_int_equal(copy(dst, 0, src, 0, 512, 0), -EPERM);
    assert_int_equal(copy(src, 0, dst, 0, 512, BDRV_REQ_COMPRESSED), -ENOTSUP);
    blk_remove_bs(src);
    assert_int_equal(copy(src, 0, dst, 0, 512, 0), -ENOMEDIUM);
    blk_unref(src);
    blk_unref(dst);
}

/* The last sector of a file that ends in it: zeros follow, which nobody can copy. */
static void a_file_that_ends_early_is_refused(void **state)
{
    g_autofree char *path = make_file("odd", NULL, 1000);
    BlockBackend *dst = raw_file("dst", NULL, BDRV_O_RDWR);
    BlockBackend *src = open_blk(options_of("driver=file,filename=%s", path), 0);

    assert_int_equal(copy(src, 0, dst, 0, 1024, 0), -ENOTSUP);
    assert_int_equal(copy(src, 0, dst, 0, 1000, 0), 0);
    blk_unref(src);
    blk_unref(dst);
}

static void only_files_can(void **state)
{
    BlockBackend *file = raw_file("dst", NULL, BDRV_O_RDWR), *mem = memory(), *other = memory();

    assert_int_equal(copy(mem, 0, file, 0, 512, 0), -ENOTSUP);
    assert_int_equal(copy(file, 0, mem, 0, 512, 0), -ENOTSUP);
    assert_int_equal(copy(mem, 0, other, 0, 512, 0), -ENOTSUP);
    blk_unref(file);
    blk_unref(mem);
    blk_unref(other);
}

static void who_has_to_see_the_data_does(void **state)
{
    g_autofree char *path = make_file("seen", NULL, SIZE);
    BlockBackend *src = raw_file("src", NULL, 0), *dst;

    dst = open_blk(options_of("driver=raw,detect-zeroes=on,file.driver=file,file.filename=%s",
                              path), BDRV_O_RDWR);
    assert_int_equal(copy(src, 0, dst, 0, 512, 0), -ENOTSUP);
    assert_int_equal(copy(dst, 0, src, 0, 512, 0), -EPERM);
    blk_unref(dst);
    blk_unref(src);
}

static void drivers_are_asked_in_pieces_and_their_errors_told(void **state)
{
    BlockBackend *src = open_blk(options_of("driver=copier"), 0);
    BlockBackend *dst = open_blk(options_of("driver=copier"), BDRV_O_RDWR);
    BlockBackend *file = raw_file("dst", NULL, BDRV_O_RDWR);

    copier_calls = 0;
    assert_int_equal(copy(src, 0, dst, 0, COPIER_SIZE, 0), 0);
    assert_int_equal(copier_calls, 3);
    copier_calls = 0;
    copier_fails_at = 2;
    assert_int_equal(copy(src, 0, dst, 0, COPIER_SIZE, 0), -ENOSPC);
    assert_int_equal(copier_calls, 2);
    assert_int_equal(copy(src, 1, dst, 512, 512, 0), -ENOTSUP);
    assert_int_equal(copy(src, 512, dst, 1, 512, 0), -ENOTSUP);
    assert_int_equal(copy(src, 512, dst, 512, 511, 0), -ENOTSUP);
    assert_int_equal(copy(src, 0, file, 0, 512, 0), -ENOTSUP);
    assert_int_equal(copier_calls, 2);
    blk_unref(src);
    blk_unref(dst);
    blk_unref(file);
}

static void mappings_lead_to_the_data(void **state)
{
    g_autofree uint8_t *data = pattern(SIZE, 4);
    g_autofree char *base = make_file("base", data, SIZE), *path = test_path("top.qcow2");
    g_autoptr(JsonObject) create = options_of("size=%d", SIZE);
    BlockBackend *top, *dst = raw_file("dst", NULL, BDRV_O_RDWR);
    GError *err = NULL;

    assert_ok(bdrv_create(bdrv_find_format("qcow2"), path, create, &err), err);
    top = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s,"
                              "backing.driver=raw,backing.file.driver=file,"
                              "backing.file.filename=%s", path, base), BDRV_O_RDWR);
    assert_int_equal(blk_pwrite(top, 65536, 65536, data, 0), 0);
    memcpy(data + 65536, data, 65536);
    assert_int_equal(copy(top, 0, dst, 0, 200001, 0), 0);
    assert_reads(dst, 0, 200001, data);
    assert_reads(dst, 200001, SIZE - 200001, NULL);
    assert_int_equal(blk_pwrite_zeroes(top, 0, 65536, 0), 0);
    assert_int_equal(copy(top, 0, dst, 0, 4096, 0), -ENOTSUP);
    /* Its tables would have to change. */
    assert_int_equal(copy(dst, 0, top, 0, 4096, 0), -ENOTSUP);
    assert_reads(top, 0, 65536, NULL);
    blk_unref(top);
    blk_unref(dst);
}

/* What follows the end of a backing image is zeros, whatever its file has there. */
static void a_short_backing_image_ends_the_data(void **state)
{
    g_autofree uint8_t *data = pattern(SIZE, 6);
    g_autofree char *base = make_file("base", data, SIZE), *path = test_path("top.qcow2");
    g_autoptr(JsonObject) create = options_of("size=%d", SIZE);
    BlockBackend *top, *dst = raw_file("dst", NULL, BDRV_O_RDWR);
    GError *err = NULL;

    assert_ok(bdrv_create(bdrv_find_format("qcow2"), path, create, &err), err);
    top = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s,"
                              "backing.driver=raw,backing.size=64k,backing.file.driver=file,"
                              "backing.file.filename=%s", path, base), 0);
    assert_int_equal(copy(top, 0, dst, 0, 65536, 0), 0);
    assert_int_equal(copy(top, 65536, dst, 65536, 4096, 0), -ENOTSUP);
    assert_int_equal(copy(top, 61440, dst, 61440, 8192, 0), -ENOTSUP);
    assert_reads(dst, 0, 65536, data);
    assert_reads(dst, 65536, SIZE - 65536, NULL);
    blk_unref(top);
    blk_unref(dst);
}

static void what_was_copied_is_dirty(void **state)
{
    BlockBackend *src = raw_file("src", NULL, 0), *dst = raw_file("dst", NULL, BDRV_O_RDWR);
    GError *err = NULL;
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_create(blk_bs(dst), "b", 4096, &err);

    assert_ok(bitmap != NULL, err);
    assert_int_equal(copy(src, 0, dst, 8192, 4096, 0), 0);
    assert_int_equal(bdrv_dirty_bitmap_count(bitmap), 4096);
    bdrv_dirty_bitmap_remove(bitmap);
    blk_unref(src);
    blk_unref(dst);
}

/* A drained section of either holds the copy back, at both. */
static void drained_backends_are_left_alone(void **state)
{
    g_autofree uint8_t *data = pattern(SIZE, 5);
    BlockBackend *src = raw_file("src", data, 0), *dst = raw_file("dst", NULL, BDRV_O_RDWR);

    for (int i = 0; i < 2; i++) {
        BlockDriverState *first = blk_bs(i ? src : dst), *second = blk_bs(i ? dst : src);
        Copy c = {src, dst, 0, i * 4096, 4096, 0, 1, false};

        bdrv_drained_begin(first);
        coroutine_enter(coroutine_create(copy_entry, &c));
        bdrv_drained_begin(second); /* hangs if the copy is in flight there */
        bdrv_drained_end(first);
        assert_false(c.done);
        assert_reads(dst, i * 4096, 4096, NULL);
        bdrv_drained_end(second);
        AIO_WAIT_WHILE(!__atomic_load_n(&c.done, __ATOMIC_ACQUIRE));
        assert_int_equal(c.ret, 0);
        assert_reads(dst, i * 4096, 4096, data);
    }
    blk_unref(src);
    blk_unref(dst);
}

static int group_setup(void **state)
{
    return driver_group_setup(state) == 0 && bdrv_register(&copier_driver, NULL) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_arrive_where_they_should),
        cmocka_unit_test(within_one_node_only_what_is_apart),
        cmocka_unit_test(what_lies_outside_or_may_not_be_written_is_refused),
        cmocka_unit_test(a_file_that_ends_early_is_refused),
        cmocka_unit_test(only_files_can),
        cmocka_unit_test(who_has_to_see_the_data_does),
        cmocka_unit_test(drivers_are_asked_in_pieces_and_their_errors_told),
        cmocka_unit_test(mappings_lead_to_the_data),
        cmocka_unit_test(a_short_backing_image_ends_the_data),
        cmocka_unit_test(what_was_copied_is_dirty),
        cmocka_unit_test(drained_backends_are_left_alone),
    };

    return cmocka_run_group_tests_name("copy-range", tests, group_setup, driver_group_teardown);
}
