/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file driver: opening, reading and writing cached and direct, zeroing,
 * discarding, holes, lengths, creating.
 */
#include "driver-testing.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#define KiB 1024LL
#define MiB (1024 * KiB)
#define CACHED 0
#define DIRECT BDRV_O_NOCACHE

static BlockBackend *open_path(const char *path, int flags)
{
    return open_blk(options_of("driver=file,filename=%s", path), flags);
}

/* Whether the file system here takes O_DIRECT; the tests use it if so. */
static bool have_direct(void)
{
    g_autofree char *path = make_file("direct-probe", NULL, 4096);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* Run @fn with the page cache and, where it is to be had, without. */
static void cached_and_direct(void (*fn)(int flags))
{
    fn(CACHED);
    if (have_direct()) {
        fn(DIRECT);
    }
}

/* ---- Opening ------------------------------------------------------------------- */

static void missing_file_is_named_with_the_reason(void **state)
{
    g_autofree char *path = test_path("missing");
    g_autofree char *text = g_strdup_printf("Could not open '%s': No such file", path);

    assert_open_fails(options_of("driver=file,filename=%s", path), 0, text);
}

static void no_filename_is_an_error(void **state)
{
    assert_open_fails(options_of("driver=file"), 0, "requires a file name");
}

static void directory_is_refused(void **state)
{
    assert_open_fails(options_of("driver=file,filename=%s", test_dir), 0,
                      "to be a regular file");
    assert_open_fails(options_of("driver=file,filename=%s", test_dir), BDRV_O_RDWR,
                      "Is a directory");
}

static void fifo_socket_and_character_device_are_refused_without_hanging(void **state)
{
    g_autofree char *fifo = test_path("fifo"), *path = test_path("socket");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(mkfifo(fifo, 0600), 0);
    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_open_fails(options_of("driver=file,filename=%s", fifo), 0, "regular file");
    assert_open_fails(options_of("driver=file,filename=%s", fifo), BDRV_O_RDWR, "regular file");
    assert_open_fails(options_of("driver=file,filename=%s", path), 0, "regular file");
    assert_open_fails(options_of("driver=file,filename=/dev/null"), 0, "regular file");
    close(fd);
}

static void bad_options_are_refused(void **state)
{
    g_autofree char *path = make_file("options", NULL, 512);

    assert_open_fails(options_of("driver=file,filename=%s,locking=perhaps", path), 0, "perhaps");
    assert_open_fails(options_of("driver=file,filename=%s,aio=magic", path), 0, "magic");
    assert_open_fails(options_of("driver=file,filename=%s,pr-manager=x", path), 0, "pr-manager");
    assert_open_fails(options_of("driver=file,filename=%s,aio=native", path), 0,
                      "requires cache.direct=on");
    assert_open_fails(options_of("driver=file,filename=%s,aio-max-batch=x", path), 0,
                      "aio-max-batch");
    blk_unref(open_blk(options_of("driver=file,filename=%s,aio=io_uring,aio-max-batch=3,"
                                  "drop-cache=off,locking=off", path), 0));
}

/* The driver's descriptor of @path. */
static int find_descriptor(const char *path)
{
    for (int fd = 0; fd < 256; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (g_strcmp0(target, path) == 0) {
            return fd;
        }
    }
    fail_msg("%s is not open", path);
    return -1;
}

static void descriptor_is_closed_on_exec(void **state)
{
    g_autofree char *path = make_file("cloexec", NULL, 512);
    BlockBackend *blk = open_path(path, 0);
    int fd = find_descriptor(path);

    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_false(fcntl(fd, F_GETFL) & O_NONBLOCK);
    blk_unref(blk);
}

static void identity_is_device_and_inode(void **state)
{
    g_autofree char *path = make_file("identity", NULL, 512), *link_path = test_path("identity2");
    BlockBackend *a = open_path(path, 0), *b;
    uint64_t dev[2], ino[2];
    struct stat st;

    assert_int_equal(link(path, link_path), 0);
    b = open_path(link_path, 0);
    assert_true(bdrv_find_format("file")->bdrv_get_identity(blk_bs(a), &dev[0], &ino[0]));
    assert_true(bdrv_find_format("file")->bdrv_get_identity(blk_bs(b), &dev[1], &ino[1]));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(dev[0], st.st_dev);
    assert_int_equal(ino[0], st.st_ino);
    assert_int_equal(dev[0], dev[1]);
    assert_int_equal(ino[0], ino[1]);
    blk_unref(a);
    blk_unref(b);
}

/* ---- Reading and writing -------------------------------------------------------- */

static void check_odd_reads(int flags)
{
    const size_t size = 1 * MiB + 777;
    g_autofree uint8_t *data = pattern(size, 1);
    g_autofree uint8_t *whole = g_malloc0(size + 512);
    g_autofree char *path = make_file("odd", data, size);
    BlockBackend *blk = open_path(path, flags);
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);

    memcpy(whole, data, size);
    assert_int_equal(blk_getlength(blk), (size + 511) / 512 * 512);
    assert_reads(blk, 0, blk_getlength(blk), whole);
    for (int i = 0; i < 200; i++) {
        int64_t offset = g_rand_int_range(rand, 0, blk_getlength(blk) - 1);
        int64_t bytes = g_rand_int_range(rand, 1, MIN(blk_getlength(blk) - offset, 20000) + 1);

        assert_reads(blk, offset, bytes, whole + offset);
    }
    blk_unref(blk);
}

static void reads_of_any_range_give_the_bytes_and_zeros_to_the_sector_end(void **state)
{
    cached_and_direct(check_odd_reads);
}

static void check_writes(int flags)
{
    const size_t size = 256 * KiB;
    g_autofree uint8_t *model = pattern(size, 3);
    g_autofree uint8_t *result = NULL;
    g_autofree char *path = make_file("writes", model, size);
    BlockBackend *blk = open_path(path, flags | BDRV_O_RDWR);
    g_autoptr(GRand) rand = g_rand_new_with_seed(4);

    for (int i = 0; i < 200; i++) {
        int64_t offset = g_rand_int_range(rand, 0, size - 1);
        int64_t bytes = g_rand_int_range(rand, 1, MIN(size - offset, 9000) + 1);
        g_autofree uint8_t *data = pattern(bytes, 100 + i);

        memcpy(model + offset, data, bytes);
        assert_int_equal(blk_pwrite(blk, offset, bytes, data, i % 7 ? 0 : BDRV_REQ_FUA), 0);
    }
    assert_reads(blk, 0, size, model);
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
    result = load_file(path, size);
    assert_memory_equal(result, model, size);
}

static void writes_of_any_range_change_just_that_range(void **state)
{
    cached_and_direct(check_writes);
}

static void vectors_of_many_pieces_are_read_and_written(void **state)
{
    const size_t size = 1500 * 512; /* more than IOV_MAX pieces */
    g_autofree uint8_t *data = pattern(size, 5);
    g_autofree uint8_t *got = g_malloc0(size);
    g_autofree char *path = make_file("vectors", NULL, size);
    BlockBackend *blk = open_path(path, BDRV_O_RDWR);
    IOVector out, in;

    io_vector_init(&out, 0);
    io_vector_init(&in, 0);
    for (size_t at = 0; at < size; at += 512) {
        io_vector_add(&out, data + at, 512);
        io_vector_add(&in, got + at, 512);
    }
    assert_int_equal(blk_pwritev(blk, 0, size, &out, 0), 0);
    assert_int_equal(blk_preadv(blk, 0, size, &in, 0), 0);
    assert_memory_equal(got, data, size);
    io_vector_destroy(&out);
    io_vector_destroy(&in);
    blk_unref(blk);
}

static void a_file_that_was_cut_short_reads_zeros_beyond(void **state)
{
    g_autofree uint8_t *data = pattern(64 * KiB, 6);
    g_autofree char *path = make_file("short", data, 64 * KiB);
    BlockBackend *blk = open_path(path, 0);

    assert_int_equal(truncate(path, 10000), 0);
    memset(data + 10000, 0, 64 * KiB - 10000);
    assert_reads(blk, 0, 64 * KiB, data);
    assert_reads(blk, 32 * KiB, 4 * KiB, NULL);
    blk_unref(blk);
}

/* Writing beyond the process's limit of file sizes fails with EFBIG. */
static void set_file_size_limit(rlim_t limit)
{
    struct rlimit rlim;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &rlim), 0);
    rlim.rlim_cur = limit;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &rlim), 0);
}

static void a_write_that_was_refused_may_be_repeated_and_flushed(void **state)
{
    g_autofree char *path = make_file("limit", NULL, 64 * KiB);
    BlockBackend *blk = open_path(path, BDRV_O_RDWR);
    g_autofree uint8_t *data = pattern(16 * KiB, 12);

    signal(SIGXFSZ, SIG_IGN);
    set_file_size_limit(24 * KiB);
    for (int flags = 0; flags <= BDRV_REQ_FUA; flags += BDRV_REQ_FUA) {
        /* The first half goes in, as a short write; the second does not. */
        assert_int_equal(blk_pwrite(blk, 16 * KiB, 16 * KiB, data, flags), -EFBIG);
        assert_int_equal(blk_flush(blk), 0);
    }
    set_file_size_limit(RLIM_INFINITY);
    assert_int_equal(blk_pwrite(blk, 16 * KiB, 16 * KiB, data, BDRV_REQ_FUA), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_reads(blk, 16 * KiB, 16 * KiB, data);
    blk_unref(blk);
}

/* ---- Space ------------------------------------------------------------------------ */

/* 1 MiB: data, hole, data, hole, in quarters. */
static char *make_sparse(const char *name, uint8_t **model)
{
    g_autofree uint8_t *data = pattern(256 * KiB, 7);
    char *path = make_file(name, NULL, MiB);
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    *model = g_malloc0(MiB);
    for (int i = 0; i < 4; i += 2) {
        memcpy(*model + i * 256 * KiB, data, 256 * KiB);
        assert_int_equal(pwrite(fd, data, 256 * KiB, i * 256 * KiB), 256 * KiB);
    }
    close(fd);
    return path;
}

/* Whether the file system of the tests tells holes. */
static bool have_holes(void)
{
    g_autofree char *path = make_file("hole-probe", NULL, MiB);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool have = lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO;

    close(fd);
    return have;
}

static void holes_and_data_are_told(void **state)
{
    g_autofree uint8_t *model = NULL;
    g_autofree char *path = make_sparse("holes", &model);
    int64_t n, map;

    if (!have_holes()) {
        skip();
    }
    for (int flags = 0; flags <= BDRV_O_RDWR; flags += BDRV_O_RDWR) {
        BlockBackend *blk = open_path(path, flags);

        for (int i = 0; i < 2; i++) { /* again, from what was remembered */
            assert_status(blk, 0, 256 * KiB, BDRV_BLOCK_DATA);
            assert_status(blk, 1000, 256 * KiB - 1000, BDRV_BLOCK_DATA);
            assert_status(blk, 256 * KiB, 256 * KiB, BDRV_BLOCK_ZERO);
            assert_status(blk, 512 * KiB, 256 * KiB, BDRV_BLOCK_DATA);
            assert_status(blk, 768 * KiB, 256 * KiB, BDRV_BLOCK_ZERO);
        }
        assert_true(status_of(blk, 300 * KiB, 5, &n, &map) & BDRV_BLOCK_OFFSET_VALID);
        assert_int_equal(n, 5);
        assert_int_equal(map, 300 * KiB);
        blk_unref(blk);
    }
}

static void what_fills_the_last_sector_is_told_as_zeros(void **state)
{
    g_autofree uint8_t *data = pattern(1000, 8);
    g_autofree char *path = make_file("last", data, 1000);
    BlockBackend *blk = open_path(path, 0);

    assert_int_equal(blk_getlength(blk), 1024);
    if (have_holes()) {
        assert_status(blk, 0, 1000, BDRV_BLOCK_DATA);
        assert_status(blk, 1000, 24, BDRV_BLOCK_ZERO);
    }
    blk_unref(blk);
}

static int64_t allocated(BlockBackend *blk)
{
    return bdrv_get_allocated_file_size(blk_bs(blk));
}

static void zeroes_and_discards(int flags)
{
    g_autofree uint8_t *model = pattern(MiB, 9);
    g_autofree uint8_t *result = NULL;
    g_autofree char *path = make_file("zeroes", model, MiB);
    BlockBackend *blk = open_path(path, flags | BDRV_O_RDWR | BDRV_O_UNMAP);
    int64_t before = allocated(blk), after;

    assert_int_equal(blk_pwrite_zeroes(blk, 1000, 100000, 0), 0);
    memset(model + 1000, 0, 100000);
    assert_int_equal(blk_pwrite_zeroes(blk, 200000, 70000, BDRV_REQ_MAY_UNMAP | BDRV_REQ_FUA), 0);
    memset(model + 200000, 0, 70000);
    assert_reads(blk, 0, MiB, model);
    after = allocated(blk);
    if (have_holes()) {
        assert_true(after < before);
        assert_true(after >= before - 72 * KiB); /* only where it was allowed */
        assert_int_equal(blk_pdiscard(blk, 512 * KiB, 256 * KiB), 0);
        /* The file system may need a block for more extents. */
        assert_true(allocated(blk) <= after - 240 * KiB);
        memset(model + 512 * KiB, 0, 256 * KiB);
        assert_status(blk, 512 * KiB, 256 * KiB, BDRV_BLOCK_ZERO);
    }
    blk_unref(blk);
    result = load_file(path, MiB);
    assert_memory_equal(result, model, MiB);
}

static void zeroing_and_discarding_give_zeros_and_space(void **state)
{
    cached_and_direct(zeroes_and_discards);
}

static void zeroing_up_to_the_end_of_the_last_sector_gives_space(void **state)
{
    g_autofree uint8_t *data = pattern(100000, 12);
    g_autofree char *path = make_file("odd-end", data, 100000);
    BlockBackend *blk = open_path(path, BDRV_O_RDWR | BDRV_O_UNMAP);

    if (have_holes()) {
        assert_int_equal(blk_getlength(blk), 100352);
        assert_int_equal(blk_pwrite_zeroes(blk, 0, 100352, BDRV_REQ_MAY_UNMAP), 0);
        assert_true(allocated(blk) <= 4 * KiB);
        assert_reads(blk, 0, 100352, NULL);
    }
    blk_unref(blk);
}

static void a_discard_without_the_unmap_flag_does_nothing(void **state)
{
    g_autofree uint8_t *data = pattern(64 * KiB, 10);
    g_autofree char *path = make_file("nodiscard", data, 64 * KiB);
    BlockBackend *blk = open_path(path, BDRV_O_RDWR);

    assert_int_equal(blk_pdiscard(blk, 0, 64 * KiB), 0);
    assert_reads(blk, 0, 64 * KiB, data);
    blk_unref(blk);
}

/* ---- Lengths, creating --------------------------------------------------------------- */

static void truncating_grows_and_shrinks(void **state)
{
    const int flags = BDRV_O_RDWR | BDRV_O_RESIZE;
    g_autofree uint8_t *data = pattern(64 * KiB, 11);
    g_autofree char *path = make_file("truncate", data, 64 * KiB);
    BlockBackend *blk = open_path(path, flags);
    GError *err = NULL;

    assert_int_equal(blk_truncate(blk, 16 * KiB, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), 16 * KiB);
    assert_int_equal(blk_truncate(blk, MiB, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_reads(blk, 0, 16 * KiB, data);
    assert_reads(blk, 16 * KiB, MiB - 16 * KiB, NULL);
    assert_int_equal(blk_truncate(blk, 2 * MiB, true, BLOCK_PREALLOC_FALLOC, &err), 0);
    assert_true(allocated(blk) >= MiB);
    assert_int_equal(blk_truncate(blk, 3 * MiB, true, BLOCK_PREALLOC_FULL, &err), 0);
    assert_true(allocated(blk) >= 2 * MiB);
    assert_reads(blk, 16 * KiB, 3 * MiB - 16 * KiB, NULL);
    assert_int_equal(blk_truncate(blk, 4 * MiB, true, BLOCK_PREALLOC_METADATA, &err), -ENOTSUP);
    assert_error_has(&err, "Unsupported preallocation mode: metadata");
    assert_int_equal(blk_truncate(blk, MiB, true, BLOCK_PREALLOC_FULL, &err), -EINVAL);
    assert_error_has(&err, "shrinking");
    assert_int_equal(blk_getlength(blk), 3 * MiB);
    blk_unref(blk);
}

static int64_t created_blocks(const char *path, int64_t size)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, size);
    return st.st_blocks * 512LL;
}

static bool create(const char *path, const char *text, GError **errp)
{
    g_autoptr(JsonObject) options = options_of("%s", text);

    return bdrv_create(bdrv_find_format("file"), path, options, errp);
}

static void created_files_have_their_size_and_space(void **state)
{
    g_autofree char *path = test_path("created");
    g_autofree char *prefixed = g_strconcat("file:", path, NULL);
    GError *err = NULL;

    assert_ok(create(path, "size=1", &err), err);
    created_blocks(path, 512);
    assert_ok(create(path, "size=4M,preallocation=falloc", &err), err);
    assert_true(created_blocks(path, 4 * MiB) >= 4 * MiB);
    assert_ok(create(path, "size=3M,preallocation=full", &err), err);
    assert_true(created_blocks(path, 3 * MiB) >= 3 * MiB);
    assert_ok(create(prefixed, "size=2M,nocow=on,extent_size_hint=1M", &err), err);
    if (have_holes()) {
        assert_int_equal(created_blocks(path, 2 * MiB), 0); /* nothing is left of before */
    }
}

static void creating_refuses_what_it_cannot_make(void **state)
{
    g_autofree char *path = test_path("uncreated"), *below = test_path("none/x");
    GError *err = NULL;

    assert_false(create(path, "size=1M,preallocation=metadata", &err));
    assert_error_has(&err, "Unsupported preallocation mode: metadata");
    assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    assert_false(create(path, "size=1M,foo=1", &err));
    assert_error_has(&err, "Invalid parameter 'foo'");
    assert_false(create(test_dir, "size=1M", &err));
    assert_error_has(&err, "Is a directory");
    assert_false(create(below, "size=1M", &err));
    assert_error_has(&err, "Could not create");
    assert_false(create(path, "size=9223372036854775807", &err));
    assert_int_equal(err->code, EFBIG);
    g_clear_error(&err);
}

static void after_a_failed_flush_flushes_fail_until_the_file_is_opened_anew(void **state)
{
    g_autofree char *path = make_file("flush", NULL, 64 * KiB);
    BlockBackend *blk = open_path(path, BDRV_O_RDWR);
    int fd = find_descriptor(path), saved = fcntl(fd, F_DUPFD_CLOEXEC, 0), pipe_fds[2];
    uint8_t byte = 1;

    assert_int_equal(blk_pwrite(blk, 0, 1, &byte, 0), 0);
    /* A pipe cannot be flushed. */
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(dup3(pipe_fds[1], fd, O_CLOEXEC), fd);
    assert_int_equal(blk_flush(blk), -EINVAL);
    assert_int_equal(dup3(saved, fd, O_CLOEXEC), fd);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(blk_pwrite(blk, 512, 1, &byte, 0), 0);
        assert_int_equal(blk_flush(blk), -EINVAL);
    }
    blk_unref(blk);
    close(saved);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    blk = open_path(path, BDRV_O_RDWR);
    assert_int_equal(blk_pwrite(blk, 0, 1, &byte, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
}

static void flushing_an_unsafe_node_does_nothing(void **state)
{
    g_autofree char *path = make_file("unsafe", NULL, 512);
    BlockBackend *blk = open_path(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    uint8_t byte = 7;

    assert_int_equal(blk_pwrite(blk, 0, 1, &byte, BDRV_REQ_FUA), 0);
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
}

static void specific_info_names_the_type(void **state)
{
    g_autofree char *path = make_file("info", NULL, 512);
    BlockBackend *blk = open_path(path, 0);
    BlockDriverInfo info;
    JsonObject *specific = bdrv_get_specific_info(blk_bs(blk), NULL);

    assert_string_equal(json_object_get_string_member(specific, "type"), "file");
    assert_true(json_object_has_member(specific, "data"));
    json_object_unref(specific);
    assert_int_equal(bdrv_get_info(blk_bs(blk), &info), 0);
    assert_int_equal(info.cluster_size, 0);
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_file_is_named_with_the_reason),
        cmocka_unit_test(no_filename_is_an_error),
        cmocka_unit_test(directory_is_refused),
        cmocka_unit_test(fifo_socket_and_character_device_are_refused_without_hanging),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(descriptor_is_closed_on_exec),
        cmocka_unit_test(identity_is_device_and_inode),
        cmocka_unit_test(reads_of_any_range_give_the_bytes_and_zeros_to_the_sector_end),
        cmocka_unit_test(writes_of_any_range_change_just_that_range),
        cmocka_unit_test(vectors_of_many_pieces_are_read_and_written),
        cmocka_unit_test(a_file_that_was_cut_short_reads_zeros_beyond),
        cmocka_unit_test(a_write_that_was_refused_may_be_repeated_and_flushed),
        cmocka_unit_test(holes_and_data_are_told),
        cmocka_unit_test(what_fills_the_last_sector_is_told_as_zeros),
        cmocka_unit_test(zeroing_and_discarding_give_zeros_and_space),
        cmocka_unit_test(zeroing_up_to_the_end_of_the_last_sector_gives_space),
        cmocka_unit_test(a_discard_without_the_unmap_flag_does_nothing),
        cmocka_unit_test(truncating_grows_and_shrinks),
        cmocka_unit_test(created_files_have_their_size_and_space),
        cmocka_unit_test(creating_refuses_what_it_cannot_make),
        cmocka_unit_test(after_a_failed_flush_flushes_fail_until_the_file_is_opened_anew),
        cmocka_unit_test(flushing_an_unsafe_node_does_nothing),
        cmocka_unit_test(specific_info_names_the_type),
    };

    return cmocka_run_group_tests_name("file", tests, driver_group_setup, driver_group_teardown);
}
