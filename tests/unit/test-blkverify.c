/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkverify: writes reach both images, reads are compared, and what differs is
 * an error.
 */
#include "driver-testing.h"

#define LENGTH 65536

static char *raw_path, *copy_path;

/* A backend on two files of 64 KiB of the same data, with more options. */
static BlockBackend *open_verify(const uint8_t *data, const char *more)
{
    g_free(raw_path);
    g_free(copy_path);
    raw_path = make_file("raw", data, LENGTH);
    copy_path = make_file("test", data, LENGTH);
    return open_blk(options_of("driver=blkverify,raw.driver=file,raw.filename=%s,"
                               "test.driver=file,test.filename=%s%s", raw_path, copy_path, more),
                    BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP);
}

/* Both files must hold @expected. */
static void assert_files(const uint8_t *expected, size_t length)
{
    g_autofree uint8_t *raw = load_file(raw_path, length);
    g_autofree uint8_t *test = load_file(copy_path, length);

    assert_memory_equal(raw, expected, length);
    assert_memory_equal(test, expected, length);
}

/* Change one byte of the file at @path behind the filter's back. */
static void spoil(const char *path, off_t offset)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static void all_changes_reach_both(void **state)
{
    g_autofree uint8_t *data = pattern(LENGTH, 1), *more = pattern(3000, 2);
    BlockBackend *blk = open_verify(data, "");

    assert_int_equal(blk_getlength(blk), LENGTH);
    assert_reads(blk, 0, LENGTH, data);
    assert_int_equal(blk_pwrite(blk, 1001, 3000, more, 0), 0);
    memcpy(data + 1001, more, 3000);
    assert_int_equal(blk_pwrite_zeroes(blk, 8192, 4096, BDRV_REQ_FUA), 0);
    memset(data + 8192, 0, 4096);
    assert_int_equal(blk_pdiscard(blk, 16384, 4096), 0); /* changes nothing, in both */
    assert_int_equal(blk_flush(blk), 0);
    assert_reads(blk, 0, LENGTH, data);
    blk_unref(blk);
    assert_files(data, LENGTH);
}

static void what_differs_is_an_error_where_it_is_read(void **state)
{
    g_autofree uint8_t *data = pattern(LENGTH, 3);
    BlockBackend *blk = open_verify(data, "");
    g_autofree uint8_t *buf = g_malloc(LENGTH);

    spoil(copy_path, 5000);
    assert_int_equal(blk_pread(blk, 0, LENGTH, buf, 0), -EIO);
    assert_int_equal(blk_pread(blk, 5000, 1, buf, 0), -EIO);
    assert_reads(blk, 0, 5000, data);
    assert_reads(blk, 5001, LENGTH - 5001, data + 5001);
    spoil(raw_path, 5000);
    data[5000] ^= 1;
    assert_reads(blk, 0, LENGTH, data);
    spoil(raw_path, LENGTH - 1);
    assert_int_equal(blk_pread(blk, 1, LENGTH - 1, buf, 0), -EIO);
    blk_unref(blk);
}

/* A read in several pieces of memory, one of them empty. */
static void pieces_of_memory_are_compared_each(void **state)
{
    g_autofree uint8_t *data = pattern(LENGTH, 4);
    BlockBackend *blk = open_verify(data, "");
    uint8_t a[100], b[1000];
    struct iovec pieces[] = {{a, sizeof(a)}, {a, 0}, {b, sizeof(b)}};

    for (int spoilt = 0; spoilt < 2; spoilt++) {
        IOVector iov;

        io_vector_init_external(&iov, pieces, G_N_ELEMENTS(pieces));
        assert_int_equal(blk_preadv(blk, 10, iov.size, &iov, 0), spoilt ? -EIO : 0);
        assert_memory_equal(a, data + 10, sizeof(a));
        spoil(raw_path, 10 + sizeof(a) + sizeof(b) - 1);
    }
    blk_unref(blk);
}

static void errors_of_one_are_errors_and_of_both_what_they_are(void **state)
{
    uint8_t buf[512] = {0};

    for (int which = 1; which <= 3; which++) {
        g_autofree char *text = g_strdup_printf(
            "driver=blkverify,raw.driver=blkdebug,raw.image.driver=memory,raw.image.size=64k,"
            "test.driver=blkdebug,test.image.driver=memory,test.image.size=64k%s%s",
            which & 1 ? ",raw.inject-error.0.event=none,raw.inject-error.0.errno=28" : "",
            which & 2 ? ",test.inject-error.0.event=none,test.inject-error.0.errno=28" : "");
        BlockBackend *blk = open_blk(options_of("%s", text), BDRV_O_RDWR);
        int expected = which == 3 ? -ENOSPC : -EIO;

        assert_int_equal(blk_pread(blk, 0, 512, buf, 0), expected);
        assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), expected);
        blk_unref(blk);
    }
}

static void both_are_resized(void **state)
{
    g_autofree uint8_t *data = pattern(LENGTH, 5);
    BlockBackend *blk = open_verify(data, "");
    GError *err = NULL;

    assert_int_equal(blk_truncate(blk, LENGTH / 2, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), LENGTH / 2);
    assert_reads(blk, 0, LENGTH / 2, data);
    blk_unref(blk);
    assert_files(data, LENGTH / 2);
}

static void the_filename_has_both_and_the_second_is_probed(void **state)
{
    g_autofree uint8_t *zeros = g_malloc0(LENGTH);
    g_autofree char *raw = make_file("copy", zeros, LENGTH);
    g_autofree char *image = test_path("image.qcow2");
    g_autofree char *name = g_strdup_printf("blkverify:%s:%s", raw, image);
    g_autoptr(JsonObject) options = options_of("size=64k");
    GError *err = NULL;
    BlockBackend *blk;

    assert_ok(bdrv_create(bdrv_find_format("qcow2"), image, options, &err), err);
    blk = blk_new_open(name, NULL, BDRV_O_PROTOCOL | BDRV_O_RDWR, &block_open_policy_follow,
                       &err);
    assert_ok(blk != NULL, err);
    assert_string_equal(bdrv_get_filename(blk_bs(blk)), name);
    assert_int_equal(blk_getlength(blk), LENGTH);
    bdrv_graph_rdlock_main_loop();
    assert_string_equal(bdrv_get_format_name(
        bdrv_child_bs(bdrv_get_child(blk_bs(blk), "test"))), "qcow2");
    assert_string_equal(bdrv_get_format_name(
        bdrv_child_bs(bdrv_filter_child(blk_bs(blk)))), "file");
    bdrv_graph_rdunlock_main_loop();
    memset(zeros + 100, 7, 1000);
    assert_int_equal(blk_pwrite(blk, 0, LENGTH, zeros, 0), 0);
    assert_reads(blk, 0, LENGTH, zeros);
    blk_unref(blk);
    assert_null(blk_new_open("blkverify:x", NULL, BDRV_O_PROTOCOL, NULL, &err));
    assert_error_has(&err, "blkverify requires raw copy and original image path");
}

static void bad_options_are_refused(void **state)
{
    assert_open_fails(options_of("driver=blkverify,raw.driver=memory,raw.size=1M"), 0,
                      "A block device must be specified for \"test\"");
    assert_open_fails(options_of("driver=blkverify,test.driver=memory,test.size=1M"), 0,
                      "A block device must be specified for \"raw\"");
    assert_open_fails(options_of("driver=blkverify,raw.driver=memory,raw.size=1M,"
                                 "test.driver=memory,test.size=1M,foo=1"), 0,
                      "Block protocol 'blkverify' doesn't support the option 'foo'");
}

static void block_status_is_that_of_raw_and_the_size_on_disk_is_not_told(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=blkverify,raw.driver=memory,raw.size=64k,"
                                            "test.driver=null-co,test.size=64k"), 0);

    assert_status(blk, 0, LENGTH, BDRV_BLOCK_ZERO);
    assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), -ENOTSUP);
    blk_unref(blk);
}

static int teardown(void **state)
{
    g_free(raw_path);
    g_free(copy_path);
    return driver_group_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_changes_reach_both),
        cmocka_unit_test(what_differs_is_an_error_where_it_is_read),
        cmocka_unit_test(pieces_of_memory_are_compared_each),
        cmocka_unit_test(errors_of_one_are_errors_and_of_both_what_they_are),
        cmocka_unit_test(both_are_resized),
        cmocka_unit_test(the_filename_has_both_and_the_second_is_probed),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(block_status_is_that_of_raw_and_the_size_on_disk_is_not_told),
    };

    return cmocka_run_group_tests_name("blkverify", tests, driver_group_setup, teardown);
}
