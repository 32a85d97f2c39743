/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The raw format: part of a file, what lies where, resizing, creating,
 * measuring, and the first sector of a probed image.
 */
#include "driver-testing.h"

#define KiB 1024LL
#define MiB (1024 * KiB)

/* ---- Offset and size ---------------------------------------------------------------- */

static void offset_and_size_choose_a_part_of_the_file(void **state)
{
    g_autofree uint8_t *data = pattern(MiB, 1);
    g_autofree char *path = make_file("part", data, MiB);
    BlockBackend *blk;

    blk = open_blk(options_of("driver=raw,file.filename=%s,offset=64k,size=128k", path),
                   BDRV_O_RDWR);
    assert_int_equal(blk_getlength(blk), 128 * KiB);
    assert_reads(blk, 0, 128 * KiB, data + 64 * KiB);
    memset(data + 64 * KiB + 1000, 9, 5000);
    assert_int_equal(blk_pwrite(blk, 1000, 5000, data + 64 * KiB + 1000, 0), 0);
    assert_int_equal(blk_pwrite(blk, 128 * KiB, 1, data, 0), -EIO);
    blk_unref(blk);
    blk = open_blk(options_of("driver=raw,file.filename=%s", path), 0);
    assert_reads(blk, 0, MiB, data);
    blk_unref(blk);
    blk = open_blk(options_of("driver=raw,file.filename=%s,offset=1000", path), 0);
    assert_int_equal(blk_getlength(blk), (MiB - 1000 + 511) / 512 * 512);
    assert_reads(blk, 0, MiB - 1000, data + 1000);
    blk_unref(blk);
}

static void parts_that_do_not_fit_are_refused(void **state)
{
    g_autofree char *path = make_file("misfit", NULL, 4 * MiB);

    assert_open_fails(options_of("driver=raw,file.filename=%s,size=1000", path), 0,
                      "Specified size is not multiple of 512");
    assert_open_fails(options_of("driver=raw,file.filename=%s,offset=5M", path), 0,
                      "Offset (5242880) cannot be greater than size of the containing file "
                      "(4194304)");
    assert_open_fails(options_of("driver=raw,file.filename=%s,offset=1M,size=4M", path), 0,
                      "The sum of offset (1048576) and size (4194304) has to be smaller");
    assert_open_fails(options_of("driver=raw,file.filename=%s,offset=1,"
                                 "size=9223372036854775296", path), 0, "The sum of offset (1)");
    assert_open_fails(options_of("driver=raw,file.filename=%s,offset=-1", path), 0, "offset");
    assert_open_fails(options_of("driver=raw"), 0, "A block device must be specified");
}

static void status_is_the_files_with_the_offset_added(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=raw,file.driver=memory,file.size=1M,"
                                            "offset=64k"), BDRV_O_RDWR);
    int64_t n, map;
    int ret;
    uint8_t byte = 1;

    assert_int_equal(blk_pwrite(blk, 128 * KiB, 1, &byte, 0), 0);
    ret = status_of(blk, 128 * KiB, MiB, &n, &map);
    assert_int_equal(n, 64 * KiB);
    assert_int_equal(map, 192 * KiB);
    assert_true((ret & BDRV_BLOCK_DATA) && (ret & BDRV_BLOCK_OFFSET_VALID));
    assert_true(ret & BDRV_BLOCK_ALLOCATED);
    ret = status_of(blk, 192 * KiB, MiB, &n, &map);
    assert_int_equal(n, 768 * KiB);
    assert_int_equal(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO), BDRV_BLOCK_ZERO);
    assert_true((ret & BDRV_BLOCK_EOF) && (ret & BDRV_BLOCK_ALLOCATED));
    blk_unref(blk);
}

static void an_empty_file_is_an_empty_disk(void **state)
{
    g_autofree char *path = make_file("empty", NULL, 0);
    BlockBackend *blk = open_blk(options_of("file.filename=%s", path), 0);

    assert_string_equal(bdrv_get_format_name(blk_bs(blk)), "raw");
    assert_int_equal(blk_getlength(blk), 0);
    blk_unref(blk);
}

/* ---- Resizing, creating, measuring ------------------------------------------------------ */

static void resizing_resizes_the_file(void **state)
{
    g_autofree char *path = make_file("resize", NULL, 64 * KiB);
    BlockBackend *blk = open_blk(options_of("driver=raw,offset=4k,file.filename=%s", path),
                                 BDRV_O_RDWR | BDRV_O_RESIZE);
    GError *err = NULL;
    struct stat st;

    assert_int_equal(blk_truncate(blk, MiB, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), MiB);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, MiB + 4 * KiB);
    assert_true(blk_truncate(blk, BDRV_MAX_LENGTH, true, BLOCK_PREALLOC_OFF, &err) < 0);
    assert_error_has(&err, "too large");
    blk_unref(blk);
    blk = open_blk(options_of("driver=raw,size=4k,file.filename=%s", path),
                   BDRV_O_RDWR | BDRV_O_RESIZE);
    assert_int_equal(blk_truncate(blk, MiB, true, BLOCK_PREALLOC_OFF, &err), -ENOTSUP);
    assert_error_has(&err, "fixed-size");
    blk_unref(blk);
}

static void creating_makes_the_file_with_the_protocols_options(void **state)
{
    g_autofree char *path = test_path("new");
    g_autoptr(JsonObject) options = options_of("size=1000001,preallocation=falloc");
    g_autoptr(JsonObject) unknown = options_of("size=1M,foo=1");
    g_autoptr(JsonObject) plain = options_of("size=1M");
    GError *err = NULL;
    struct stat st;

    assert_ok(bdrv_create(bdrv_find_format("raw"), path, options, &err), err);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1000448);
    assert_true(st.st_blocks * 512LL >= 1000448);
    assert_false(bdrv_create(bdrv_find_format("raw"), path, unknown, &err));
    assert_error_has(&err, "Invalid parameter 'foo'");
    assert_false(bdrv_create(bdrv_find_format("raw"), "nosuch:x", plain, &err));
    assert_error_has(&err, "Unknown protocol 'nosuch'");
}

static void measuring_gives_the_size_in_sectors(void **state)
{
    g_autoptr(JsonObject) options = options_of("size=1000001");
    BlockBackend *blk = open_blk(options_of("driver=null-co,size=513"), 0);
    BlockMeasureInfo info;
    GError *err = NULL;

    assert_ok(bdrv_measure(bdrv_find_format("raw"), options, NULL, &info, &err), err);
    assert_int_equal(info.required, 1000448);
    assert_int_equal(info.fully_allocated, 1000448);
    assert_int_equal(info.bitmaps, -1);
    assert_ok(bdrv_measure(bdrv_find_format("raw"), NULL, blk_bs(blk), &info, &err), err);
    assert_int_equal(info.required, 1024);
    blk_unref(blk);
}

static void small_questions_go_to_the_file(void **state)
{
    g_autofree char *path = make_file("questions", NULL, 4096);
    BlockBackend *blk = open_blk(options_of("driver=raw,file.filename=%s", path), 0);
    BlockDriverInfo info;

    assert_int_equal(bdrv_get_info(blk_bs(blk), &info), 0);
    assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), 0);
    blk_unref(blk);
    blk = open_blk(options_of("driver=raw,file.driver=null-co"), 0);
    assert_int_equal(bdrv_get_info(blk_bs(blk), &info), -ENOTSUP);
    blk_unref(blk);
}

/* ---- The first sector ---------------------------------------------------------------------- */

static const uint8_t qcow2_magic[] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};

static BlockBackend *open_probed(const char *name, const void *data, size_t size)
{
    g_autofree char *path = make_file(name, data, size);
    BlockBackend *blk = open_blk(options_of("file.filename=%s", path),
                                 BDRV_O_RDWR | BDRV_O_UNMAP);

    assert_string_equal(bdrv_get_format_name(blk_bs(blk)), "raw");
    assert_true(bdrv_was_probed(blk_bs(blk)));
    return blk;
}

static void a_probed_image_does_not_become_another_format(void **state)
{
    BlockBackend *blk = open_probed("probed", NULL, MiB);
    g_autofree uint8_t *data = pattern(64 * KiB, 3);

    assert_int_equal(blk_pwrite(blk, 0, 64 * KiB, data, 0), 0);
    memcpy(data, qcow2_magic, sizeof(qcow2_magic));
    assert_int_equal(blk_pwrite(blk, 0, 64 * KiB, data, 0), -EPERM);
    assert_int_equal(blk_pwrite(blk, 0, 512, data, 0), -EPERM);
    assert_int_equal(blk_pwrite(blk, 0, 8, qcow2_magic, 0), -EPERM);
    /* Elsewhere it means nothing. */
    assert_int_equal(blk_pwrite(blk, 1, 8, qcow2_magic, 0), 0);
    assert_int_equal(blk_pwrite(blk, 512, 8, qcow2_magic, 0), 0);
    blk_unref(blk);
}

static void a_header_written_byte_by_byte_is_seen(void **state)
{
    BlockBackend *blk = open_probed("bytes", NULL, MiB);
    uint8_t buf[4];

    for (int i = 3; i > 0; i--) {
        assert_int_equal(blk_pwrite(blk, i, 1, &qcow2_magic[i], 0), 0);
    }
    assert_int_equal(blk_pwrite(blk, 0, 1, qcow2_magic, 0), -EPERM);
    assert_int_equal(blk_pread(blk, 0, 4, buf, 0), 0);
    assert_int_equal(buf[0], 0);
    blk_unref(blk);
}

static void zeroing_that_completes_a_header_is_seen(void **state)
{
    uint8_t sector[512] = "Bochs Virtual HD Image";
    BlockBackend *blk;

    strcpy((char *)sector + 32, "Redolog");
    strcpy((char *)sector + 48, "Growing");
    sector[66] = 2;  /* version 0x00020000 */
    sector[22] = 'X'; /* instead of the zero that ends the magic */
    blk = open_probed("zeroing", sector, sizeof(sector));
    assert_int_equal(blk_pwrite_zeroes(blk, 22, 1, 0), -EPERM);
    assert_int_equal(blk_pdiscard(blk, 22, 1), -EPERM);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 23, 0), 0);
    blk_unref(blk);
}

static void headers_of_formats_that_others_know_are_seen(void **state)
{
    static const struct {
        size_t offset;
        const char *magic;
    } headers[] = {
        {0, "KDMV"}, {0, "COWD"}, {0, "vhdxfile"}, {0, "conectix"}, {0, "QED"},
        {64, "\x7f\x10\xda\xbe"}, {0, "WithoutFreeSpace"}, {0, "LUKS\xba\xbe"},
    };
    BlockBackend *blk = open_probed("others", NULL, MiB);

    for (size_t i = 0; i < G_N_ELEMENTS(headers); i++) {
        const char *magic = headers[i].magic;

        assert_int_equal(blk_pwrite(blk, headers[i].offset, strlen(magic), magic, 0), -EPERM);
        assert_int_equal(blk_pwrite(blk, headers[i].offset, strlen(magic) - 1, magic, 0), 0);
        assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), 0);
    }
    blk_unref(blk);
}

static void an_image_named_raw_takes_every_header(void **state)
{
    g_autofree char *path = make_file("named", NULL, MiB);
    BlockBackend *blk = open_blk(options_of("driver=raw,file.filename=%s", path), BDRV_O_RDWR);

    assert_int_equal(blk_pwrite(blk, 0, 8, qcow2_magic, 0), 0);
    blk_unref(blk);
}

/* Two coroutines write one half of a header each, at the same time. */
typedef struct Half {
    BlockBackend *blk;
    int offset;
    int ret;
} Half;

static void coroutine_fn write_half(void *opaque)
{
    Half *half = opaque;

    half->ret = blk_co_pwrite(half->blk, half->offset, 2, qcow2_magic + half->offset, 0);
}

static void two_writes_at_a_time_do_not_make_a_header_together(void **state)
{
    BlockBackend *blk = open_probed("together", NULL, MiB);
    Half halves[2] = {{blk, 0, 1}, {blk, 2, 1}};

    for (int i = 0; i < 2; i++) {
        coroutine_enter(coroutine_create(write_half, &halves[i]));
    }
    AIO_WAIT_WHILE(halves[0].ret == 1 || halves[1].ret == 1);
    assert_int_equal(halves[0].ret, 0);
    assert_int_equal(halves[1].ret, -EPERM);
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offset_and_size_choose_a_part_of_the_file),
        cmocka_unit_test(parts_that_do_not_fit_are_refused),
        cmocka_unit_test(status_is_the_files_with_the_offset_added),
        cmocka_unit_test(an_empty_file_is_an_empty_disk),
        cmocka_unit_test(resizing_resizes_the_file),
        cmocka_unit_test(creating_makes_the_file_with_the_protocols_options),
        cmocka_unit_test(measuring_gives_the_size_in_sectors),
        cmocka_unit_test(small_questions_go_to_the_file),
        cmocka_unit_test(a_probed_image_does_not_become_another_format),
        cmocka_unit_test(a_header_written_byte_by_byte_is_seen),
        cmocka_unit_test(zeroing_that_completes_a_header_is_seen),
        cmocka_unit_test(headers_of_formats_that_others_know_are_seen),
        cmocka_unit_test(an_image_named_raw_takes_every_header),
        cmocka_unit_test(two_writes_at_a_time_do_not_make_a_header_together),
    };

    return cmocka_run_group_tests_name("raw", tests, driver_group_setup, driver_group_teardown);
}
