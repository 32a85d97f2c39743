/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: images that are amended keep what they have, say what they are, and are
 * whole; what is refused changes nothing; errors halfway.
 */
#include "qcow2-testing.h"
#include "repeats.h"

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
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i += repeats(1, 2)) {
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

/* ---- Snapshots ----------------------------------------------------------------------------- */

/*
 * Have each entry of the snapshot table of a small image have @extra bytes of extra data, as
 * version 2 allows. The table stays in its cluster.
 */
static void cut_extra(const char *path, uint32_t extra)
{
    g_autoptr(GByteArray) table = g_byte_array_new();
    static const uint8_t padding[8];
    Image image = { 0 };
    char *data = NULL;
    uint64_t at;

    assert_true(g_file_get_contents(path, &data, &image.size, NULL));
    image.data = (uint8_t *)data;
    image.cluster_bits = qcow2_be32(image.data + 20);
    at = snapshots_at(&image);
    for (uint32_t i = 0; i < qcow2_be32(image.data + 60); i++) {
        const uint8_t *entry = image.data + at;
        uint32_t had = qcow2_be32(entry + 36), be_extra = GUINT32_TO_BE(extra);

        g_byte_array_append(table, entry, 36);
        g_byte_array_append(table, (const uint8_t *)&be_extra, 4);
        g_byte_array_append(table, entry + 40, extra);
        g_byte_array_append(table, entry + 40 + had,
                            qcow2_be16(entry + 12) + qcow2_be16(entry + 14));
        g_byte_array_append(table, padding, -table->len & 7);
        at += qcow2_snapshot_entry_length(entry);
    }
    memcpy(image.data + snapshots_at(&image), table->data, table->len);
    assert_true(g_file_set_contents(path, data, image.size, NULL));
    g_free(data);
}

static void take_snapshot(BlockBackend *blk, const char *name)
{
    BdrvSnapshotInfo info = { .name = name, .icount = UINT64_MAX };
    GError *err = NULL;
    bool ok = bdrv_snapshot_create(blk_bs(blk), &info, &err);

    assert_ok(ok, err);
}

/* Version 3 requires of snapshots what version 2 does not. */
static void snapshots_without_extra_data_get_what_version_3_requires(void **state)
{
    static const uint32_t extras[] = { 0, 8, 12, 16, 24 };

    for (size_t i = 0; i < G_N_ELEMENTS(extras); i++) {
        g_autofree char *path = create_image("old.qcow2", "cluster_size=4k,compat=0.10", 1 * MiB);
        BlockBackend *blk = open_writable(path);
        g_autofree uint8_t *data = pattern(64 * KiB, i);
        BdrvSnapshotInfo info;

        assert_int_equal(blk_pwrite(blk, 0, 64 * KiB, data, 0), 0);
        take_snapshot(blk, "one");
        take_snapshot(blk, "another, with a longer name");
        blk_unref(blk);
        cut_extra(path, extras[i]);
        blk = open_writable(path);
        assert_int_equal(blk_pwrite_zeroes(blk, 0, 32 * KiB, 0), 0);
        amend(blk, "compat=1.1,size=2M");
        blk_unref(blk);
        assert_whole(path, true);
        assert_int_equal(number_at(path, 4, 4), 3);
        blk = open_writable(path);
        assert_true(bdrv_snapshot_get(blk_bs(blk), 1, &info));
        assert_string_equal(info.name, "another, with a longer name");
        assert_int_equal(info.disk_size, 1 * MiB);
        assert_int_equal(info.vm_state_size, 0);
        assert_true(bdrv_snapshot_goto(blk_bs(blk), 0, NULL));
        assert_int_equal(blk_getlength(blk), 1 * MiB);
        assert_reads(blk, 0, 64 * KiB, data);
        blk_unref(blk);
        assert_whole(path, true);
    }
}

/* ---- What stays ---------------------------------------------------------------------------- */

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

/* No place for the name but that of an extension which nobody here knows. */
static void extensions_that_are_not_known_do_not_make_room_for_a_name(void **state)
{
    static const uint8_t first[] = "AAAA\0\0\0\x10what it is for..", second[] = "BBBB\0\0\x1d\xb0";
    g_autofree char *path = create_image("odd.qcow2", "cluster_size=8k", 1 * MiB);
    g_autofree char *name = g_strnfill(440, 'n'), *data = NULL, *after = NULL;
    BlockBackend *blk;
    GError *err = NULL;
    gsize size;

    assert_true(g_file_get_contents(path, &data, &size, NULL));
    memset(data + 112, 0, 8 * KiB - 112);
    memcpy(data + 112, first, 24);
    memcpy(data + 136, second, 8);
    assert_true(g_file_set_contents(path, data, size, NULL));
    blk = open_writable(path);
    assert_false(bdrv_change_backing_file(blk_bs(blk), name, "raw", &err));
    assert_error_has(&err, "larger than the first cluster");
    blk_unref(blk);
    assert_true(g_file_get_contents(path, &after, NULL, NULL));
    assert_memory_equal(after, data, 8 * KiB);
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

/* A zero cluster that keeps a place between two clusters: neither is given back. */
static void a_place_that_is_no_cluster_is_not_given_back(void **state)
{
    g_autofree char *path = create_image("lying.qcow2", "cluster_size=64k", 1 * MiB);
    g_autofree uint8_t *zeros = g_malloc0(192 * KiB);
    BlockBackend *blk = open_writable(path);
    int64_t table, place, refcounts;
    char *data = NULL;
    GError *err = NULL;
    gsize size;

    assert_int_equal(blk_pwrite(blk, 0, 192 * KiB, zeros, 0), 0);
    blk_unref(blk);
    table = number_at(path, number_at(path, 40, 8), 8) & QCOW2_OFFSET_MASK;
    place = number_at(path, table, 8) & QCOW2_OFFSET_MASK;
    refcounts = number_at(path, number_at(path, 48, 8), 8) + 2 * (place >> 16);
    assert_true(g_file_get_contents(path, &data, &size, NULL));
    data[table + 6] |= 512 >> 8;
    data[table + 7] |= QCOW2_ZERO;
    assert_true(g_file_set_contents(path, data, size, NULL));
    g_free(data);
    blk = open_writable(path);
    assert_false(try_amend(blk, "compat=0.10", &err));
    g_clear_error(&err);
    blk_unref(blk);
    assert_int_equal(number_at(path, 4, 4), 3);
    assert_true(number_at(path, 72, 8) & QCOW2_INCOMPAT_CORRUPT);
    assert_int_equal(number_at(path, refcounts, 4), 0x10001);
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
    int failed = 0, stride = repeats(1, 3);

    memset(data + 32 * KiB, 0, 64 * KiB);
    for (size_t i = 0; i < G_N_ELEMENTS(events) * G_N_ELEMENTS(kinds) * 2; i += stride) {
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
    assert_true(failed * stride > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_survives_each_change),
        cmocka_unit_test(snapshots_without_extra_data_get_what_version_3_requires),
        cmocka_unit_test(names_in_the_header_stay),
        cmocka_unit_test(extensions_that_are_not_known_do_not_make_room_for_a_name),
        cmocka_unit_test(what_cannot_be_is_refused_and_changes_nothing),
        cmocka_unit_test(shared_clusters_keep_the_width),
        cmocka_unit_test(a_place_that_is_no_cluster_is_not_given_back),
        cmocka_unit_test(progress_goes_up),
        cmocka_unit_test(an_error_at_each_step_leaves_a_whole_image),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
