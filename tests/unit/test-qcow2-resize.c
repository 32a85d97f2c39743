/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: disks that get longer and shorter, in images of every shape, against a
 * flat model; what is refused; what fails halfway; requests that wait.
 */
#include "qcow2-testing.h"
#include "repeats.h"

#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)

/* ---- Helpers --------------------------------------------------------------------------- */

static char *create_image(const char *name, const char *text, int64_t size)
{
    g_autoptr(JsonObject) options = options_of("size=%" PRId64 ",%s", size, text);
    char *path = test_path(name);
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

static BlockBackend *open_resizable(const char *path, const char *more)
{
    return open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s%s", path, more),
                    BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
}

static void print_line(void *opaque, const char *line)
{
    print_message("%s: %s\n", (const char *)opaque, line);
}

static void assert_whole(const char *path, const char *what, bool leaks_too)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;
    int ret = bdrv_check(blk_bs(blk), &r, print_line, (void *)what);

    blk_unref(blk);
    assert_int_equal(ret, 0);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    if (leaks_too) {
        assert_int_equal(r.leaks, 0);
    }
}

static void resize(BlockBackend *blk, int64_t length, BlockPrealloc prealloc)
{
    GError *err = NULL;
    int ret = blk_truncate(blk, length, true, prealloc, &err);

    assert_ok(ret == 0, err);
    assert_int_equal(blk_getlength(blk), length);
}

static void assert_resize_fails(BlockBackend *blk, int64_t length, BlockPrealloc prealloc,
                                const char *part)
{
    int64_t before = blk_getlength(blk);
    GError *err = NULL;

    assert_true(blk_truncate(blk, length, true, prealloc, &err) < 0);
    assert_error_has(&err, part);
    assert_int_equal(blk_getlength(blk), before);
}

static int64_t file_bytes(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* ---- Against a model -------------------------------------------------------------------- */

typedef struct Shape {
    const char *options; /* %s: the data file */
    int64_t cluster;
    bool backing;
    bool compresses;
    const char *open; /* further options */
} Shape;

static const Shape shapes[] = {
    { "cluster_size=64k", 64 * KiB, false, true, "" },
    { "cluster_size=64k", 64 * KiB, true, true, "" },
    { "cluster_size=512", 512, true, true, ",l2-cache-size=1k,refcount-cache-size=512" },
    { "cluster_size=512,refcount_bits=64", 512, false, true, "" },
    { "cluster_size=4k,refcount_bits=1", 4 * KiB, true, true, ",l2-cache-entry-size=512" },
    { "cluster_size=4k,compat=0.10", 4 * KiB, true, true, "" },
    { "cluster_size=16k,extended_l2=on", 16 * KiB, false, true, "" },
    { "cluster_size=64k,extended_l2=on,compression_type=zstd", 64 * KiB, true, true, "" },
    { "cluster_size=8k,lazy_refcounts=on", 8 * KiB, true, true, "" },
    { "cluster_size=4k,preallocation=metadata", 4 * KiB, false, true, ",overlap-check=all" },
    { "cluster_size=4k", 4 * KiB, true, true, ",pass-discard-request=on,overlap-check=all" },
    { "cluster_size=4k,data_file=%s", 4 * KiB, true, false, "" },
    { "cluster_size=4k,data_file=%s,data_file_raw=on", 4 * KiB, false, false, "" },
};

#define MOST_CLUSTERS 64

typedef struct Model {
    const Shape *shape;
    char *path;
    int64_t size;
    int64_t most; /* bytes that it may come to */
    uint8_t *bytes;
    GRand *rand;
    BlockBackend *blk;
} Model;

static void model_init(Model *m, const Shape *shape, int seed)
{
    g_autofree char *data_file = test_path("data.raw"), *base = test_path("base.raw");
    g_autofree char *text = NULL, *backed = NULL;
    const char *raw = strstr(shape->options, ",data_file_raw");

    *m = (Model){ .shape = shape, .most = MOST_CLUSTERS * shape->cluster,
                  .size = 9 * shape->cluster + 512, .rand = g_rand_new_with_seed(seed) };
    m->bytes = g_malloc0(m->most);
    g_remove(data_file);
    text = strstr(shape->options, "%s")
               ? g_strdup_printf("cluster_size=4k,data_file=%s%s", data_file, raw ? raw : "")
               : g_strdup(shape->options);
    if (shape->backing) { /* longer than the disk */
        g_autofree uint8_t *below = pattern(2 * m->size, seed);

        memcpy(m->bytes, below, m->size);
        g_free(make_file("base.raw", below, 2 * m->size));
        backed = g_strdup_printf("%s,backing_file=%s,backing_fmt=raw", text, base);
    }
    m->path = create_image("model.qcow2", backed ? backed : text, m->size);
    m->blk = open_resizable(m->path, shape->open);
}

static void model_clear(Model *m)
{
    blk_unref(m->blk);
    g_rand_free(m->rand);
    g_free(m->bytes);
    g_free(m->path);
}

static void model_change(Model *m)
{
    int64_t offset = g_rand_int_range(m->rand, 0, m->size), unit = m->shape->cluster;
    int64_t bytes = g_rand_int_range(m->rand, 1, 3 * unit);
    bool compressed = m->shape->compresses && g_rand_int_range(m->rand, 0, 3) == 0;
    g_autofree uint8_t *buf = NULL;

    if (compressed) {
        offset -= offset % unit;
        bytes = (bytes + unit - 1) / unit * unit;
    }
    bytes = MIN(bytes, m->size - offset);
    if (!compressed && g_rand_int_range(m->rand, 0, 3) == 0) {
        assert_int_equal(blk_pwrite_zeroes(m->blk, offset, bytes,
                                           g_rand_boolean(m->rand) ? BDRV_REQ_MAY_UNMAP : 0), 0);
        memset(m->bytes + offset, 0, bytes);
        return;
    }
    buf = pattern(bytes, g_rand_int(m->rand));
    memset(buf + bytes / 4, buf[0], bytes - bytes / 4);
    assert_int_equal(blk_pwrite(m->blk, offset, bytes, buf, compressed ? BDRV_REQ_COMPRESSED : 0),
                     0);
    memcpy(m->bytes + offset, buf, bytes);
}

static void model_resize(Model *m)
{
    int64_t size = g_rand_int_range(m->rand, 1, m->most / 512 + 1) * 512;
    int prealloc = size > m->size ? g_rand_int_range(m->rand, 0, 6) : 0;

    if (size < m->size) {
        memset(m->bytes + size, 0, m->size - size);
    }
    resize(m->blk, size, prealloc > BLOCK_PREALLOC_FULL ? BLOCK_PREALLOC_OFF : prealloc);
    m->size = size;
    assert_reads(m->blk, 0, m->size, m->bytes);
}

static void random_resizing_keeps_the_data_and_new_space_is_zero(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        for (int seed = 1; seed <= repeats(3, 1); seed++) {
            Model m;

            model_init(&m, &shapes[i], seed);
            for (int step = 0; step < 80; step++) {
                if (g_rand_int_range(m.rand, 0, 4) == 0) {
                    model_resize(&m);
                } else {
                    model_change(&m);
                }
                if (g_rand_int_range(m.rand, 0, 20) == 0) {
                    blk_unref(m.blk);
                    assert_whole(m.path, shapes[i].options, true);
                    m.blk = open_resizable(m.path, shapes[i].open);
                }
            }
            blk_unref(m.blk);
            assert_whole(m.path, shapes[i].options, true);
            m.blk = open_resizable(m.path, shapes[i].open);
            assert_reads(m.blk, 0, m.size, m.bytes);
            model_clear(&m);
        }
    }
}

/* ---- Tables ------------------------------------------------------------------------------ */

static void tables_grow_with_the_disk_and_the_file_gets_short_again(void **state)
{
    g_autofree char *path = create_image("large.qcow2", "cluster_size=512", 4096);
    g_autofree uint8_t *data = pattern(4096, 1);
    BlockBackend *blk = open_resizable(path, "");

    assert_int_equal(blk_pwrite(blk, 0, 4096, data, 0), 0);
    for (int64_t size = 1 * MiB; size <= 8 * GiB; size *= 8) {
        resize(blk, size, BLOCK_PREALLOC_OFF);
        assert_int_equal(blk_pwrite(blk, size - 4096, 4096, data, 0), 0);
    }
    assert_reads(blk, 0, 4096, data);
    assert_reads(blk, 1 * MiB - 4096, 4096, data);
    assert_reads(blk, 1 * MiB, 4096, NULL);
    resize(blk, 8192, BLOCK_PREALLOC_OFF);
    resize(blk, 2 * MiB, BLOCK_PREALLOC_METADATA);
    assert_reads(blk, 8192, 2 * MiB - 8192, NULL);
    resize(blk, 4096, BLOCK_PREALLOC_OFF);
    assert_reads(blk, 0, 4096, data);
    blk_unref(blk);
    assert_whole(path, "large", true);
    /* The L1 table keeps its length: 262144 entries, 2 MiB. */
    assert_true(file_bytes(path) < 5 * MiB);
}

static void preallocation_sets_space_aside(void **state)
{
    static const BlockPrealloc modes[] = { BLOCK_PREALLOC_METADATA, BLOCK_PREALLOC_FALLOC,
                                           BLOCK_PREALLOC_FULL };

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        g_autofree char *path = create_image("space.qcow2", "cluster_size=64k", 1 * MiB);
        BlockBackend *blk = open_resizable(path, "");
        struct stat st;
        int64_t n;

        resize(blk, 9 * MiB + 512, modes[i]);
        assert_true(status_of(blk, 1 * MiB, 8 * MiB + 512, &n, NULL) & BDRV_BLOCK_ALLOCATED);
        assert_int_equal(n, 8 * MiB + 512);
        assert_reads(blk, 0, 9 * MiB + 512, NULL);
        blk_unref(blk);
        assert_whole(path, "space", true);
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size >= 8 * MiB && st.st_size < 9 * MiB);
        assert_true((st.st_blocks * 512 >= 8 * MiB) == (modes[i] != BLOCK_PREALLOC_METADATA));
    }
}

/* Another program may leave tables that say something beyond the end. */
static void what_lies_beyond_the_end_does_not_come_back(void **state)
{
    g_autofree char *path = create_image("beyond.qcow2", "cluster_size=4k", 8 * MiB);
    g_autofree uint8_t *data = pattern(8 * MiB, 5);
    BlockBackend *blk = open_resizable(path, "");
    uint64_t size = GUINT64_TO_BE(10000 * 512);
    int fd;

    assert_int_equal(blk_pwrite(blk, 0, 8 * MiB, data, 0), 0);
    blk_unref(blk);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, &size, sizeof(size), 24), sizeof(size));
    close(fd);
    blk = open_resizable(path, "");
    resize(blk, 16 * MiB, BLOCK_PREALLOC_OFF);
    assert_reads(blk, 0, 10000 * 512, data);
    assert_reads(blk, 10000 * 512, 16 * MiB - 10000 * 512, NULL);
    blk_unref(blk);
    assert_whole(path, "beyond", true);
}

/* All that snapshot 1 has; *@size bytes. */
static uint8_t *read_snapshot(const char *path, int64_t *size)
{
    BlockBackend *blk = open_qcow2(path, 0);
    GError *err = NULL;
    bool ok = bdrv_snapshot_load_tmp(blk_bs(blk), "1", NULL, &err);
    uint8_t *data;

    assert_ok(ok, err);
    *size = blk_getlength(blk);
    data = g_malloc(*size);
    assert_int_equal(blk_pread(blk, 0, *size, data, 0), 0);
    blk_unref(blk);
    return data;
}

static void snapshots_keep_what_the_disk_loses(void **state)
{
    Image image = load_fixture("snapshots.qcow2");
    g_autofree char *path = store_image(&image);
    g_autofree uint8_t *before = NULL, *after = NULL;
    int64_t size = 0, again = 0;

    before = read_snapshot(path, &size);
    for (int64_t part = 4; part >= 1; part--) {
        BlockBackend *blk = open_resizable(path, "");
        int64_t end = size * part / 5 / 512 * 512;

        resize(blk, end, BLOCK_PREALLOC_OFF);
        resize(blk, 2 * size, BLOCK_PREALLOC_OFF);
        assert_reads(blk, end, size, NULL);
        resize(blk, size, BLOCK_PREALLOC_OFF);
        blk_unref(blk);
    }
    after = read_snapshot(path, &again);
    assert_int_equal(again, size);
    assert_memory_equal(before, after, size);
    assert_whole(path, "snapshots", true);
}

/* ---- Refused ----------------------------------------------------------------------------- */

static void what_cannot_be_is_refused_and_changes_nothing(void **state)
{
    g_autofree char *path = create_image("refused.qcow2", "cluster_size=64k", 1 * MiB);
    BlockBackend *blk = open_resizable(path, "");

    assert_resize_fails(blk, 1000, BLOCK_PREALLOC_OFF, "must be a multiple of 512");
    assert_resize_fails(blk, 512 * KiB, BLOCK_PREALLOC_FULL, "can't be used for shrinking");
    assert_resize_fails(blk, 1LL << 61, BLOCK_PREALLOC_OFF, "Failed to grow the L1 table");
    blk_unref(blk);
    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_resize_fails(blk, 2 * MiB, BLOCK_PREALLOC_OFF, "permission");
    blk_unref(blk);
    assert_whole(path, "refused", true);
}

static void version_2_with_snapshots_is_refused(void **state)
{
    Image image = load_fixture("snapshots.qcow2");
    g_autofree char *path = NULL;
    BlockBackend *blk;

    put_bytes(&image, 4, 4, 2);
    path = store_image(&image);
    blk = open_resizable(path, "");
    assert_resize_fails(blk, 2 * blk_getlength(blk), BLOCK_PREALLOC_OFF,
                        "Can't resize a v2 image which has snapshots");
    blk_unref(blk);
}

/* ---- What fails halfway ---------------------------------------------------------------------- */

/* NULL if that is where it fails. */
static BlockBackend *open_failing(const char *path, const char *event, const char *io)
{
    return try_open(options_of("driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
                               "file.image.filename=%s,file.inject-error.0.event=%s,"
                               "file.inject-error.0.iotype=%s,file.inject-error.0.once=on",
                               path, event, io),
                    BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_NO_FLUSH, NULL);
}

/* An error anywhere leaves one of the two lengths, the data, and leaks at most; then it works. */
static void an_error_at_each_step_leaves_a_whole_image(void **state)
{
    static const char *const events[] = {
        "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table", "l1_update",
        "cluster_alloc", "l2_update", "l2_load", "refblock_update_part", "refblock_alloc_write",
        "refblock_alloc_hookup", "l1_shrink_write_table", "l1_shrink_free_l2_clusters",
        "reftable_update", "cow_write", "write_aio", "none",
    };
    static const char *const kinds[] = { "write", "flush", "read" };
    int64_t sizes[] = { 3 * MiB, 64 * KiB + 512 };
    g_autofree uint8_t *data = pattern(1 * MiB, 9);
    int failed = 0, stride = repeats(1, 5);

    for (size_t i = 0; i < G_N_ELEMENTS(events) * G_N_ELEMENTS(kinds) * 2; i += stride) {
        const char *event = events[i / 2 % G_N_ELEMENTS(events)];
        int64_t size = sizes[i % 2], length;
        g_autofree char *path = create_image("failing.qcow2", "cluster_size=1k", 1 * MiB);
        BlockBackend *blk = open_resizable(path, "");
        int ret;

        assert_int_equal(blk_pwrite(blk, 0, 1 * MiB, data, 0), 0);
        blk_unref(blk);
        blk = open_failing(path, event, kinds[i / 2 / G_N_ELEMENTS(events)]);
        if (!blk) {
            continue;
        }
        ret = blk_truncate(blk, size, true, BLOCK_PREALLOC_METADATA * (size > MiB), NULL);
        failed += ret < 0;
        length = blk_getlength(blk);
        assert_int_equal(length, ret < 0 ? 1 * MiB : size);
        blk_unref(blk);
        assert_whole(path, event, false);
        blk = open_resizable(path, "");
        assert_true(blk_getlength(blk) == 1 * MiB || blk_getlength(blk) == size);
        assert_reads(blk, 0, MIN(blk_getlength(blk), 1 * MiB), data);
        resize(blk, size, BLOCK_PREALLOC_OFF);
        assert_reads(blk, 0, MIN(size, 1 * MiB), data);
        if (size > 1 * MiB) {
            assert_reads(blk, 1 * MiB, size - 1 * MiB, NULL);
        }
        blk_unref(blk);
        assert_whole(path, event, false);
    }
    assert_true(failed * stride > 10);
}

/* ---- Others in flight ----------------------------------------------------------------------- */

typedef struct Request {
    BlockBackend *blk;
    int ret;
    bool done;
} Request;

static void request_done(void *opaque, int ret)
{
    Request *request = opaque;

    request->ret = ret;
    request->done = true;
}

static void coroutine_fn shrink_entry(void *opaque)
{
    Request *request = opaque;

    request->ret = blk_co_truncate(request->blk, 512 * KiB, true, BLOCK_PREALLOC_OFF, NULL);
    request->done = true;
    aio_wait_kick();
}

static BlockDriverState *file_of(BlockBackend *blk)
{
    BlockDriverState *file;

    bdrv_graph_rdlock_main_loop();
    file = bdrv_child_bs(bdrv_get_child(blk_bs(blk), "file"));
    bdrv_graph_rdunlock_main_loop();
    return file;
}

static int debug(BlockBackend *blk, const char *command, const char *argument)
{
    return bdrv_find_format("blkdebug")->bdrv_debug_command(file_of(blk), command, argument);
}

/* A write that is held beyond the new end comes first; one that comes later gets no place there. */
static void resizing_waits_for_requests_and_they_for_it(void **state)
{
    g_autofree char *path = create_image("flight.qcow2", "cluster_size=4k", 1 * MiB);
    g_autofree uint8_t *data = pattern(1 * MiB, 11);
    BlockBackend *blk =
        open_blk(options_of("driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
                            "file.image.filename=%s", path),
                 BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_NO_FLUSH);
    Request held = { 0 }, later = { 0 }, shrink = { .blk = blk };
    IOVector iov;

    assert_int_equal(blk_pwrite(blk, 0, 1 * MiB, data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    io_vector_init_buf(&iov, data, 64 * KiB);
    assert_int_equal(debug(blk, "break", "write_aio held"), 0);
    blk_aio_pwritev(blk, 1 * MiB - 64 * KiB, &iov, 0, request_done, &held);
    while (!bdrv_find_format("blkdebug")->bdrv_debug_is_suspended(file_of(blk), "held")) {
        aio_poll(aio_context_main(), true);
    }
    coroutine_enter(coroutine_create(shrink_entry, &shrink));
    blk_aio_pwritev(blk, 1 * MiB - 64 * KiB, &iov, 0, request_done, &later);
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_false(held.done || shrink.done || later.done);
    assert_int_equal(debug(blk, "resume", "held"), 0);
    AIO_WAIT_WHILE(!held.done || !shrink.done || !later.done);
    assert_int_equal(held.ret, 0);
    assert_int_equal(shrink.ret, 0);
    assert_int_equal(later.ret, -EIO);
    resize(blk, 1 * MiB, BLOCK_PREALLOC_OFF);
    assert_reads(blk, 0, 512 * KiB, data);
    assert_reads(blk, 512 * KiB, 512 * KiB, NULL);
    io_vector_destroy(&iov);
    blk_unref(blk);
    assert_whole(path, "flight", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_resizing_keeps_the_data_and_new_space_is_zero),
        cmocka_unit_test(tables_grow_with_the_disk_and_the_file_gets_short_again),
        cmocka_unit_test(preallocation_sets_space_aside),
        cmocka_unit_test(what_lies_beyond_the_end_does_not_come_back),
        cmocka_unit_test(snapshots_keep_what_the_disk_loses),
        cmocka_unit_test(what_cannot_be_is_refused_and_changes_nothing),
        cmocka_unit_test(version_2_with_snapshots_is_refused),
        cmocka_unit_test(an_error_at_each_step_leaves_a_whole_image),
        cmocka_unit_test(resizing_waits_for_requests_and_they_for_it),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
