/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file driver on block devices: loop devices over files of the test.
 * Skipped where none can be made.
 */
#include "driver-testing.h"

#include <linux/loop.h>
#include <sys/ioctl.h>

#define KiB 1024LL
#define MiB (1024 * KiB)

/* ---- Loop devices ------------------------------------------------------------------ */

typedef struct Loop {
    char *path;    /* /dev/loopN */
    char *backing; /* the file behind it */
    int fd;        /* keeps it; the kernel lets it go at the last close */
} Loop;

static int attach(const char *backing, uint32_t block_size, uint32_t flags, char **path)
{
    struct loop_config config = {.block_size = block_size};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int file = open(backing, O_RDWR | O_CLOEXEC);
    int fd = -1;

    config.fd = file;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | flags;
    for (int i = 0; i < 20 && fd < 0 && control >= 0; i++) { /* others may be faster */
        int n = ioctl(control, LOOP_CTL_GET_FREE);

        if (n < 0) {
            break;
        }
        g_free(*path);
        *path = g_strdup_printf("/dev/loop%d", n);
        fd = open(*path, (flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) < 0) {
            close(fd);
            fd = -1;
        }
    }
    close(file);
    if (control >= 0) {
        close(control);
    }
    return fd;
}

static Loop loop_new(const char *name, const void *data, size_t size, uint32_t block_size,
                     uint32_t flags)
{
    Loop loop = {.backing = make_file(name, data, size)};

    loop.fd = attach(loop.backing, block_size, flags, &loop.path);
    assert_true(loop.fd >= 0);
    return loop;
}

static void loop_free(Loop *loop)
{
    close(loop->fd);
    g_free(loop->path);
    g_free(loop->backing);
}

static bool have_loop_devices(void)
{
    g_autofree char *file = NULL, *path = NULL;
    int tmp = g_file_open_tmp(NULL, &file, NULL), fd = -1;

    if (tmp >= 0 && ftruncate(tmp, MiB) == 0) {
        fd = attach(file, 512, 0, &path);
    }
    close(tmp);
    unlink(file);
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

static BlockBackend *open_device(const Loop *loop, int flags)
{
    return open_blk(options_of("driver=host_device,filename=%s", loop->path), flags);
}

/* ---- Tests -------------------------------------------------------------------------- */

static void reads_and_writes(uint32_t block_size, int flags)
{
    const size_t size = 512 * KiB;
    g_autofree uint8_t *model = pattern(size, 1);
    Loop loop = loop_new("loop", model, size, block_size, 0);
    BlockBackend *blk = open_device(&loop, BDRV_O_RDWR | flags);
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);

    assert_int_equal(blk_getlength(blk), size);
    if (flags & BDRV_O_NOCACHE) {
        assert_int_equal(bdrv_get_limits(blk_bs(blk))->request_alignment, block_size);
    }
    for (int i = 0; i < 50; i++) {
        int64_t offset = g_rand_int_range(rand, 0, size - 1);
        int64_t bytes = g_rand_int_range(rand, 1, MIN(size - offset, 20000) + 1);
        g_autofree uint8_t *data = pattern(bytes, 100 + i);

        memcpy(model + offset, data, bytes);
        assert_int_equal(blk_pwrite(blk, offset, bytes, data, i % 5 ? 0 : BDRV_REQ_FUA), 0);
    }
    assert_reads(blk, 0, size, model);
    assert_int_equal(blk_flush(blk), 0);
    assert_status(blk, 0, size, BDRV_BLOCK_DATA);
    assert_int_equal(blk_pwrite(blk, size, 1, model, 0), -EIO);
    blk_unref(blk);
    loop_free(&loop);
}

static void devices_are_read_and_written_with_either_sector_size(void **state)
{
    reads_and_writes(512, 0);
    reads_and_writes(512, BDRV_O_NOCACHE);
    reads_and_writes(4096, 0);
    reads_and_writes(4096, BDRV_O_NOCACHE);
}

static void zeroing_and_discarding_reach_the_device(void **state)
{
    g_autofree uint8_t *model = pattern(MiB, 3);
    Loop loop = loop_new("zeroes", model, MiB, 512, 0);
    BlockBackend *blk = open_device(&loop, BDRV_O_RDWR | BDRV_O_UNMAP);

    assert_int_equal(blk_pwrite_zeroes(blk, 1000, 100000, 0), 0);
    memset(model + 1000, 0, 100000);
    assert_int_equal(blk_pwrite_zeroes(blk, 300000, 70000, BDRV_REQ_MAY_UNMAP), 0);
    memset(model + 300000, 0, 70000);
    assert_reads(blk, 0, MiB, model);
    assert_int_equal(blk_pwrite_zeroes(blk, 512 * KiB, 4096, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(blk_pdiscard(blk, 512 * KiB, 512 * KiB), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_reads(blk, 0, 512 * KiB, model);
    blk_unref(blk);
    loop_free(&loop);
}

static void a_read_only_device_is_opened_for_writing_only_if_reading_will_do(void **state)
{
    g_autofree uint8_t *data = pattern(64 * KiB, 4);
    Loop loop = loop_new("ro", data, 64 * KiB, 512, LO_FLAGS_READ_ONLY);
    g_autofree char *text = g_strdup_printf("Could not open '%s': Permission denied", loop.path);
    g_autofree char *options = g_strdup_printf("driver=host_device,auto-read-only=on,filename=%s",
                                               loop.path);
    BlockDriverState *bs;
    BlockBackend *blk;

    assert_open_fails(options_of("driver=host_device,filename=%s", loop.path), BDRV_O_RDWR, text);
    bs = open_node_with(options, BDRV_O_RDWR);
    assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);
    blk = open_device(&loop, 0);
    assert_reads(blk, 0, 64 * KiB, data);
    blk_unref(blk);
    loop_free(&loop);
}

static void a_device_keeps_its_length(void **state)
{
    Loop loop = loop_new("length", NULL, 64 * KiB, 512, 0);
    BlockBackend *blk = open_device(&loop, BDRV_O_RDWR | BDRV_O_RESIZE);
    GError *err = NULL;

    assert_int_equal(blk_truncate(blk, 64 * KiB, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_truncate(blk, 32 * KiB, false, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), 64 * KiB);
    assert_int_equal(blk_truncate(blk, 32 * KiB, true, BLOCK_PREALLOC_OFF, &err), -ENOTSUP);
    assert_error_has(&err, "Cannot resize device files");
    assert_int_equal(blk_truncate(blk, MiB, false, BLOCK_PREALLOC_OFF, &err), -EINVAL);
    assert_error_has(&err, "Cannot grow device files");
    assert_int_equal(blk_truncate(blk, 64 * KiB, true, BLOCK_PREALLOC_FULL, &err), -ENOTSUP);
    assert_error_has(&err, "Unsupported preallocation mode: full");
    blk_unref(blk);
    loop_free(&loop);
}

static void creating_on_a_device_forgets_the_old_header_only(void **state)
{
    g_autofree uint8_t *data = pattern(64 * KiB, 5);
    Loop loop = loop_new("create", data, 64 * KiB, 512, 0);
    g_autoptr(JsonObject) fits = options_of("size=32k"), too_large = options_of("size=1M");
    g_autoptr(JsonObject) full = options_of("size=32k,preallocation=full");
    GError *err = NULL;
    BlockBackend *blk;

    assert_false(bdrv_create(bdrv_find_format("raw"), loop.path, full, &err));
    assert_error_has(&err, "Unsupported preallocation mode 'full'");
    assert_false(bdrv_create(bdrv_find_format("raw"), loop.path, too_large, &err));
    assert_error_has(&err, "the device has 65536 bytes, fewer than 1048576");
    assert_ok(bdrv_create(bdrv_find_format("raw"), loop.path, fits, &err), err);
    memset(data, 0, 512);
    blk = open_device(&loop, 0);
    assert_reads(blk, 0, 64 * KiB, data);
    blk_unref(blk);
    loop_free(&loop);
}

static void a_device_is_made_of_a_device_only(void **state)
{
    BlockDriver *drv = bdrv_find_format("host_device");
    g_autofree uint8_t *data = pattern(64 * KiB, 5);
    Loop loop = loop_new("made", data, 64 * KiB, 512, 0);
    g_autoptr(JsonObject) options = options_of("size=32k");
    g_autofree char *missing = test_path("missing");
    GError *err = NULL;
    struct stat st;

    assert_false(bdrv_create(drv, missing, options, &err));
    assert_error_has(&err, "does not support creating new images");
    assert_int_equal(stat(missing, &st), -1);
    assert_false(bdrv_create(drv, loop.backing, options, &err));
    assert_error_has(&err, "to be a block device");
    assert_int_equal(stat(loop.backing, &st), 0);
    assert_int_equal(st.st_size, 64 * KiB);
    assert_ok(bdrv_create(drv, loop.path, options, &err), err);
    loop_free(&loop);
}

static void two_names_of_a_device_are_one_file(void **state)
{
    Loop loop = loop_new("names", NULL, 64 * KiB, 512, 0);
    g_autofree char *link_path = test_path("link");
    uint64_t dev[3], ino[3];
    BlockBackend *blk[3];

    assert_int_equal(symlink(loop.path, link_path), 0);
    blk[0] = open_device(&loop, 0);
    blk[1] = open_blk(options_of("driver=host_device,filename=%s", link_path), 0);
    blk[2] = open_blk(options_of("driver=file,filename=%s,locking=off", loop.backing), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(bdrv_find_format("file")->bdrv_get_identity(blk_bs(blk[i]), &dev[i],
                                                                &ino[i]));
        blk_unref(blk[i]);
    }
    assert_open_fails(options_of("driver=file,filename=%s", loop.path), 0, "regular file");
    assert_open_fails(options_of("driver=host_device,filename=%s", loop.backing), 0,
                      "block device");
    assert_true(dev[0] == dev[1] && ino[0] == ino[1]);
    assert_false(dev[0] == dev[2] && ino[0] == ino[2]);
    loop_free(&loop);
}

/* Nobody has to name the driver. */
static void the_path_tells_that_it_is_a_device(void **state)
{
    Loop loop = loop_new("path", NULL, 64 * KiB, 512, 0);
    BlockBackend *blk[] = {
        blk_new_open(loop.path, NULL, 0, NULL, NULL),
        open_blk(options_of("driver=raw,file.filename=%s", loop.path), 0),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(blk); i++) {
        assert_non_null(blk[i]);
        bdrv_graph_rdlock_main_loop();
        assert_string_equal(bdrv_get_format_name(bdrv_child_bs(
                                bdrv_get_child(blk_bs(blk[i]), "file"))), "host_device");
        bdrv_graph_rdunlock_main_loop();
        blk_unref(blk[i]);
    }
    loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_are_read_and_written_with_either_sector_size),
        cmocka_unit_test(the_path_tells_that_it_is_a_device),
        cmocka_unit_test(zeroing_and_discarding_reach_the_device),
        cmocka_unit_test(a_read_only_device_is_opened_for_writing_only_if_reading_will_do),
        cmocka_unit_test(a_device_keeps_its_length),
        cmocka_unit_test(creating_on_a_device_forgets_the_old_header_only),
        cmocka_unit_test(a_device_is_made_of_a_device_only),
        cmocka_unit_test(two_names_of_a_device_are_one_file),
    };

    if (!have_loop_devices()) {
        printf("no loop device can be made here\n");
        return 77;
    }
    return cmocka_run_group_tests_name("file-device", tests, driver_group_setup,
                                       driver_group_teardown);
}
