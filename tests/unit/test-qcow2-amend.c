/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: images that are amended keep what they have, say what they are, and are
 * whole; what is refused changes nothing; errors halfway.
 */
#include "qcow2-testing.h"

#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)

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

static BlockBackend *open_writable(const char *path)
{
    return open_qcow2(path, BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_NO_FLUSH);
}

static bool try_amend(BlockBackend *blk, const char *text, GError **errp)
{
    g_autoptr(JsonObject) options = options_of("%s", text);

    return bdrv_amend(blk_bs(blk), options, NULL, NULL, errp);
}

static void amend(BlockBackend *blk, const char *text)
{
    GError *err = NULL;
    bool ok = try_amend(blk, text, &err);

    assert_ok(ok, err);
}

static void assert_whole(const char *path, bool leaks_too)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;
    int ret = bdrv_check(blk_bs(blk), &r, NULL, NULL);

    blk_unref(blk);
    assert_int_equal(ret, 0);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    if (leaks_too) {
        assert_int_equal(r.leaks, 0);
    }
}

static int64_t number_at(const char *path, off_t at, unsigned bytes)
{
    uint8_t buf[8] = { 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, buf + 8 - bytes, bytes, at), bytes);
    close(fd);
    return qcow2_be64(buf);
}

/* ---- What changes ------------------------------------------------------------------------- */

typedef struct Shape {
    const char *options;
    bool backing;
} Shape;

static const Shape shapes[] = {
    { "cluster_size=64k", false }, { "cluster_size=64k", true },
    { "cluster_size=512", false }, { "cluster_size=512", true },
    { "cluster_size=4k,lazy_refcounts=on", true },
    { "cluster_size=2M", false }, { "cluster_size=1k,refcount_bits=64", true },
};

/* One after the other; the image is open all the time. */
static const char *const changes[] = {
    "compat=0.10,refcount_bits=16", "compat=1.1", "refcount_bits=1", "refcount_bits=64",
    "size=3M", "lazy_refcounts=on", "refcount_bits=2,size=1500k", "lazy_refcounts=off",
    "compat=v2,refcount_bits=16", "size=4M", "compat=v3,refcount_bits=32,lazy_refcounts=on",
    "compat=0.10,refcount_bits=16,size=2M",
};

static void data_survives_each_change(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree uint8_t *data = pattern(4 * MiB, i), *base = pattern(2 * MiB, 77);
        g_autofree char *base_path = make_file("base.raw", base, 2 * MiB), *path = NULL;
        g_autofree char *text = g_strdup(shapes[i].options);
        BlockBackend *blk;

        if (shapes[i].backing) {
            g_autofree char *more =
                g_strdup_printf("%s,backing_file=%s,backing_fmt=raw", text, base_path);

            path = create_image("amended.qcow2", more, 2 * MiB);
            memcpy(data, base, 2 * MiB);
        } else {
            path = create_image("amended.qcow2", text, 2 * MiB);
            memset(data, 0, 2 * MiB);
        }
        memset(data + 2 * MiB, 0, 2 * MiB);
        blk = open_writable(path);
        for (size_t j = 0; j < G_N_ELEMENTS(changes); j++) {
            int64_t length = blk_getlength(blk), kept;

            memset(data + j * 100 * KiB, j + 1, 50 * KiB);
            assert_int_equal(blk_pwrite(blk, j * 100 * KiB, 50 * KiB, data + j * 100 * KiB, 0), 0);
            memset(data + j * 90 * KiB + 64 * KiB, 0, 200 * KiB);
            assert_int_equal(blk_pwrite_zeroes(blk, j * 90 * KiB + 64 * KiB, 200 * KiB,
                                               j % 2 ? BDRV_REQ_MAY_UNMAP : 0), 0);
            amend(blk, changes[j]);
            kept = MIN(length, blk_getlength(blk));
            memset(data + kept, 0, 4 * MiB - kept);
            assert_reads(blk, 0, blk_getlength(blk), data);
            if (j % 3 == 2) {
                blk_unref(blk);
                assert_whole(path, true);
                blk = open_writable(path);
            }
        }
        blk_unref(blk);
        assert_whole(path, true);
        assert_int_equal(number_at(path, 4, 4), 2);
        assert_int_equal(number_at(path, 24, 8), 2 * MiB);
    }
}

static void names_in_the_header_stay(void **state)
{
    g_autofree char *base = make_file("base.raw", NULL, 1 * MiB);
    g_autofree char *text = g_strdup_printf("cluster_size=64k,backing_file=%s,backing_fmt=raw",
                                            base);
    g_autofree char *path = create_image("named.qcow2", text, 1 * MiB);

    for (int i = 0; i < 6; i++) {
        BlockBackend *blk = open_writable(path);

        assert_string_equal(bdrv_get_backing_filename(blk_bs(blk)), base);
        assert_string_equal(bdrv_get_backing_format(blk_bs(blk)), "raw");
        amend(blk, i % 2 ? "compat=1.1" : "compat=0.10");
        blk_unref(blk);
        assert_int_equal(number_at(path, 4, 4), i % 2 ? 3 : 2);
    }
}

/* ---- What is refused ---------------------------------------------------------------------- */

static void assert_refused(const char *path, const char *text, const char *part)
{
    char *before = NULL, *after = NULL;
    gsize before_size = 0, after_size = 0;
    BlockBackend *blk;
    GError *err = NULL;

    assert_true(g_file_get_contents(path, &before, &before_size, NULL));
    blk = open_writable(path);
    assert_false(try_amend(blk, text, &err));
    assert_error_has(&err, part);
    blk_unref(blk);
    assert_true(g_file_get_contents(path, &after, &after_size, NULL));
    assert_int_equal(after_size, before_size);
    assert_memory_equal(after, before, before_size);
    g_free(before);
    g_free(after);
}

static void what_cannot_be_is_refused_and_changes_nothing(void **state)
{
    g_autofree char *path = create_image("refused.qcow2", "cluster_size=64k", 1 * MiB);
    g_autofree char *wide = create_image("wide.qcow2", "refcount_bits=64", 1 * MiB);
    g_autofree char *extended = create_image("extended.qcow2", "extended_l2=on", 1 * MiB);

    assert_refused(path, "compat=2.0", "Unknown compatibility level 2.0");
    assert_refused(path, "refcount_bits=3", "must be a power of two");
    assert_refused(path, "refcount_bits=128", "must be a power of two");
    assert_refused(path, "cluster_size=4k", "Invalid parameter 'cluster_size'");
    assert_refused(path, "backing_file=x", "Cannot amend the backing file");
    assert_refused(path, "data_file=x", "data-file can only be set");
    assert_refused(path, "data_file_raw=on", "cannot be set on existing images");
    assert_refused(path, "encrypt.state=active", "encryption not present");
    assert_refused(path, "compat=0.10,lazy_refcounts=on", "Lazy refcounts only supported");
    assert_refused(path, "compat=0.10,refcount_bits=8", "Refcount widths other than 16 bits");
    assert_refused(wide, "compat=0.10", "compat=0.10 requires refcount_bits=16");
    assert_refused(extended, "compat=0.10", "incompatible features 0x10 set");
}

static void shared_clusters_keep_the_width(void **state)
{
    Image image = load_fixture("snapshots.qcow2");
    g_autofree char *path = store_image(&image);

    assert_refused(path, "refcount_bits=1", "Cannot decrease refcount entry width to 1 bits");
}

/* ---- Progress, errors ---------------------------------------------------------------------- */

static void note_progress(void *opaque, int64_t done, int64_t total)
{
    int64_t *last = opaque;

    assert_true(done >= 0 && done <= total && total > 0);
    assert_true(done * 1000 / total >= *last);
    *last = done * 1000 / total;
}

static void progress_goes_up(void **state)
{
    g_autofree char *path = create_image("progress.qcow2", "cluster_size=512", 1 * MiB);
    g_autoptr(JsonObject) options = options_of("refcount_bits=64");
    BlockBackend *blk = open_writable(path);
    g_autofree uint8_t *data = pattern(1 * MiB, 1);
    int64_t last = -1;

    assert_int_equal(blk_pwrite(blk, 0, 1 * MiB, data, 0), 0);
    assert_true(bdrv_amend(blk_bs(blk), options, note_progress, &last, NULL));
    assert_true(last > 0);
    blk_unref(blk);
    assert_whole(path, true);
}

/* An error anywhere: a message, what was there, leaks at most; then it works. */
static void an_error_at_each_step_leaves_a_whole_image(void **state)
{
    static const char *const events[] = {
        "refblock_alloc_write_blocks", "refblock_alloc_write_table", "refblock_alloc_switch_table",
        "refblock_update_part", "refblock_load", "cluster_alloc", "l2_update", "l1_update",
        "l2_load", "reftable_load",
    };
    static const char *const kinds[] = { "write", "flush", "read" };
    static const char *const words[] = { "refcount_bits=64", "compat=0.10" };
    g_autofree uint8_t *data = pattern(256 * KiB, 9);
    int failed = 0;

    memset(data + 32 * KiB, 0, 64 * KiB);
    for (size_t i = 0; i < G_N_ELEMENTS(events) * G_N_ELEMENTS(kinds) * 2; i++) {
        g_autofree char *path = create_image("failing.qcow2", "cluster_size=512", 256 * KiB);
        BlockBackend *blk = open_writable(path);
        GError *err = NULL;

        assert_int_equal(blk_pwrite(blk, 0, 256 * KiB, data, 0), 0);
        assert_int_equal(blk_pwrite_zeroes(blk, 32 * KiB, 64 * KiB, BDRV_REQ_MAY_UNMAP), 0);
        blk_unref(blk);
        blk = try_open(options_of("driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
                                  "file.image.filename=%s,file.inject-error.0.event=%s,"
                                  "file.inject-error.0.iotype=%s,file.inject-error.0.once=on",
                                  path, events[i / 2 % G_N_ELEMENTS(events)],
                                  kinds[i / 2 / G_N_ELEMENTS(events)]),
                       BDRV_O_RDWR | BDRV_O_NO_FLUSH, NULL);
        if (!blk) {
            continue;
        }
        if (!try_amend(blk, words[i % 2], &err)) {
            assert_non_null(err);
            g_clear_error(&err);
            failed++;
            /* It may be refused; the cluster has to be a new one. */
            blk_pwrite(blk, 32 * KiB, 512, data + 32 * KiB, 0);
        }
        blk_unref(blk);
        assert_whole(path, false);
        blk = open_writable(path);
        assert_reads(blk, 0, 256 * KiB, data);
        amend(blk, words[i % 2]);
        assert_reads(blk, 0, 256 * KiB, data);
        blk_unref(blk);
        assert_whole(path, false);
    }
    assert_true(failed > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_survives_each_change),
        cmocka_unit_test(names_in_the_header_stay),
        cmocka_unit_test(what_cannot_be_is_refused_and_changes_nothing),
        cmocka_unit_test(shared_clusters_keep_the_width),
        cmocka_unit_test(progress_goes_up),
        cmocka_unit_test(an_error_at_each_step_leaves_a_whole_image),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
