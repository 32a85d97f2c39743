/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The preallocate filter: how far the file reaches meanwhile, that the disk does not show
 * it, and that nothing is left over. Above is raw, whose edge may write beyond the end.
 */
#include "driver-testing.h"

#include "blockgraph/reopen.h"

#define KiB 1024
#define START (100 * KiB) /* the file's length at first */

static BlockBackend *open_filter(const char *path, const char *more, int flags)
{
    return open_blk(options_of("driver=raw,file.driver=preallocate,file.prealloc-align=64k,"
                               "file.prealloc-size=200k,file.file.driver=file,"
                               "file.file.filename=%s%s", path, more), flags | BDRV_O_RESIZE);
}

static int64_t file_size(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static BdrvChild *edge_of(BlockBackend *blk)
{
    BdrvChild *edge;

    bdrv_graph_rdlock_main_loop();
    edge = bdrv_get_child(blk_bs(blk), "file");
    bdrv_graph_rdunlock_main_loop();
    return edge;
}

static BlockDriverState *filter_of(BlockBackend *blk)
{
    BlockDriverState *bs;

    bdrv_graph_rdlock_main_loop();
    bs = bdrv_child_bs(bdrv_get_child(blk_bs(blk), "file"));
    bdrv_graph_rdunlock_main_loop();
    return bs;
}

static void write_at(BlockBackend *blk, int64_t offset, int64_t bytes, uint8_t *data)
{
    assert_int_equal(bdrv_pwrite(edge_of(blk), offset, bytes, data + offset, 0), 0);
}

/* What the filter reads as at @offset: @expected, or zeros if NULL. */
static void assert_bytes(BlockBackend *blk, int64_t offset, int64_t bytes,
                         const uint8_t *expected)
{
    g_autofree uint8_t *buf = g_malloc(bytes), *zeros = g_malloc0(bytes);

    assert_int_equal(bdrv_pread(edge_of(blk), offset, bytes, buf, 0), 0);
    assert_memory_equal(buf, expected ? expected : zeros, bytes);
}

typedef struct Zeroes {
    BdrvChild *edge;
    int64_t offset;
    int64_t bytes;
    int flags;
    int ret;
    bool done;
} Zeroes;

static void coroutine_fn zeroes_entry(void *opaque)
{
    Zeroes *z = opaque;

    bdrv_graph_co_rdlock();
    z->ret = bdrv_co_pwrite_zeroes(z->edge, z->offset, z->bytes, z->flags);
    bdrv_graph_co_rdunlock();
    z->done = true;
    aio_wait_kick();
}

static void zeroes_at(BlockBackend *blk, int64_t offset, int64_t bytes, int flags)
{
    Zeroes z = {edge_of(blk), offset, bytes, flags, 0, false};

    coroutine_enter(coroutine_create(zeroes_entry, &z));
    AIO_WAIT_WHILE(!z.done);
    assert_int_equal(z.ret, 0);
}

/* A file of START bytes, in whose place @data has the same. */
static char *start_file(uint8_t **data)
{
    *data = pattern(2048 * KiB, 1);
    return make_file("file", *data, START);
}

static void the_file_grows_in_steps_and_is_cut_at_the_end(void **state)
{
    uint8_t *data;
    g_autofree char *path = start_file(&data);
    BlockBackend *blk = open_filter(path, "", BDRV_O_RDWR);

    write_at(blk, 0, START, data);
    assert_int_equal(file_size(path), START);
    write_at(blk, START, 1000, data); /* to 64k * 5, the first that is 200k beyond */
    assert_int_equal(file_size(path), 320 * KiB);
    assert_int_equal(bdrv_getlength(filter_of(blk)), START + 1024);
    write_at(blk, START + 1000, 100 * KiB, data);
    assert_int_equal(file_size(path), 320 * KiB);
    assert_bytes(blk, 0, START + 1000 + 100 * KiB, data);
    write_at(blk, 300 * KiB, 30 * KiB, data);
    assert_int_equal(file_size(path), 576 * KiB);
    assert_bytes(blk, START + 1000 + 100 * KiB, 90 * KiB, NULL);
    blk_unref(blk);
    assert_int_equal(file_size(path), 330 * KiB);
    g_free(data);
}

static void zeros_beyond_the_data_are_there_already(void **state)
{
    uint8_t *data;
    g_autofree char *path = start_file(&data);
    BlockBackend *blk = open_filter(path, "", BDRV_O_RDWR);

    write_at(blk, START, 28 * KiB, data); /* up to 128k */
    zeroes_at(blk, 150 * KiB, 50 * KiB, BDRV_REQ_FUA);
    assert_int_equal(bdrv_getlength(filter_of(blk)), 200 * KiB);
    assert_bytes(blk, 128 * KiB, 72 * KiB, NULL);
    write_at(blk, 160 * KiB, 60 * KiB, data);
    zeroes_at(blk, 210 * KiB, 20 * KiB, 0); /* partly data */
    assert_bytes(blk, 160 * KiB, 50 * KiB, data + 160 * KiB);
    assert_bytes(blk, 210 * KiB, 20 * KiB, NULL);
    blk_unref(blk);
    assert_int_equal(file_size(path), 230 * KiB);
    g_free(data);
}

/* Between the end of the last growing write and that of the zeros behind it. */
static void data_among_the_zeros_is_zeroed(void **state)
{
    uint8_t *data;
    g_autofree char *path = start_file(&data);
    BlockBackend *blk = open_filter(path, "", BDRV_O_RDWR);

    write_at(blk, START, 28 * KiB, data); /* up to 128k */
    zeroes_at(blk, 150 * KiB, 50 * KiB, 0);
    write_at(blk, 160 * KiB, 10 * KiB, data); /* in place */
    zeroes_at(blk, 155 * KiB, 75 * KiB, 0);
    assert_bytes(blk, 128 * KiB, 102 * KiB, NULL);
    zeroes_at(blk, 230 * KiB, 10 * KiB, 0);
    assert_int_equal(bdrv_getlength(filter_of(blk)), 240 * KiB);
    assert_bytes(blk, 230 * KiB, 10 * KiB, NULL);
    blk_unref(blk);
    g_free(data);
}

static void resizing_counts_as_data(void **state)
{
    uint8_t *data;
    g_autofree char *path = start_file(&data);
    BlockBackend *blk = open_filter(path, "", BDRV_O_RDWR);
    const struct {
        int64_t length, file;
        BlockPrealloc prealloc;
    } steps[] = {
        {150 * KiB, 384 * KiB, BLOCK_PREALLOC_OFF},  /* as a format does it: a step */
        {200 * KiB, 384 * KiB, BLOCK_PREALLOC_OFF},
        {1024 * KiB, 1024 * KiB, BLOCK_PREALLOC_OFF}, /* as a user does it */
        {1030 * KiB, 1280 * KiB, BLOCK_PREALLOC_OFF},
        {1034 * KiB, 1034 * KiB, BLOCK_PREALLOC_FALLOC},
        {50 * KiB, 50 * KiB, BLOCK_PREALLOC_OFF},
        {90 * KiB, 320 * KiB, BLOCK_PREALLOC_OFF},
        {60 * KiB, 60 * KiB, BLOCK_PREALLOC_OFF},
    };
    GError *err = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        assert_ok(blk_truncate(blk, steps[i].length, true, steps[i].prealloc, &err) == 0, err);
        assert_int_equal(file_size(path), steps[i].file);
        assert_int_equal(bdrv_getlength(filter_of(blk)), steps[i].length);
        if (i < 5) {
            assert_bytes(blk, START, steps[i].length - START, NULL);
        }
    }
    assert_bytes(blk, 0, 50 * KiB, data);
    assert_bytes(blk, 50 * KiB, 10 * KiB, NULL);
    blk_unref(blk);
    assert_int_equal(file_size(path), 60 * KiB);
    g_free(data);
}

static bool reopen(BlockBackend *blk, const char *text, GError **errp)
{
    g_autoptr(JsonObject) options = options_of("%s", text);

    return bdrv_reopen(blk_bs(blk), options, errp);
}

static void reopened_for_reading_the_file_is_cut(void **state)
{
    uint8_t *data;
    g_autofree char *path = start_file(&data);
    BlockBackend *blk;
    GError *err = NULL;

    blk = open_filter(path, "", BDRV_O_RDWR);
    write_at(blk, START, 512, data);
    assert_int_equal(file_size(path), 320 * KiB);
    assert_ok(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err), err);
    assert_ok(reopen(blk, "read-only=on", &err), err);
    assert_int_equal(file_size(path), START + 512);
    assert_bytes(blk, 0, START + 512, data);
    assert_ok(reopen(blk, "read-only=off,file.prealloc-size=1M", &err), err);
    assert_ok(blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, &err), err);
    write_at(blk, START + 512, 512, data);
    assert_int_equal(file_size(path), 1152 * KiB);
    assert_false(reopen(blk, "file.prealloc-align=1000", &err));
    assert_error_has(&err, "is not aligned to 512");
    blk_unref(blk);
    assert_int_equal(file_size(path), START + 1024);
    g_free(data);
}

/* Where the file cannot be zeroed by a step, writes make it longer as ever. */
static void a_step_that_fails_is_not_tried_again(void **state)
{
    uint8_t *data;
    g_autofree char *path = start_file(&data);
    BlockBackend *blk = open_blk(
        options_of("driver=raw,file.driver=preallocate,file.file.driver=blkdebug,"
                   "file.file.image.driver=file,file.file.image.filename=%s,"
                   "file.file.inject-error.0.event=none,"
                   "file.file.inject-error.0.iotype=write-zeroes,"
                   "file.file.inject-error.0.once=on", path),
        BDRV_O_RDWR | BDRV_O_RESIZE);

    write_at(blk, START, 1024, data);
    write_at(blk, START + 1024, 1024, data);
    assert_int_equal(file_size(path), START + 2048);
    assert_bytes(blk, 0, START + 2048, data);
    blk_unref(blk);
    assert_int_equal(file_size(path), START + 2048);
    g_free(data);
}

static void nobody_else_may_write_to_the_file(void **state)
{
    uint8_t *data;
    g_autofree char *path = start_file(&data);
    BlockBackend *blk = open_filter(path, ",file.file.node-name=file", BDRV_O_RDWR);
    BlockBackend *other = blk_new(NULL, BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    GError *err = NULL;

    assert_false(blk_insert_bs(other, bdrv_find_node("file"), &err));
    assert_error_has(&err, "conflict");
    blk_unref(other);
    blk_unref(blk);
    g_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_grows_in_steps_and_is_cut_at_the_end),
        cmocka_unit_test(zeros_beyond_the_data_are_there_already),
        cmocka_unit_test(data_among_the_zeros_is_zeroed),
        cmocka_unit_test(resizing_counts_as_data),
        cmocka_unit_test(reopened_for_reading_the_file_is_cut),
        cmocka_unit_test(a_step_that_fails_is_not_tried_again),
        cmocka_unit_test(nobody_else_may_write_to_the_file),
    };

    return cmocka_run_group_tests(tests, driver_group_setup, driver_group_teardown);
}
