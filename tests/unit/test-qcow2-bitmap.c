/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent bitmaps of qcow2: what is stored is loaded, against a model, while
 * check finds nothing; what a crash or a failing disk leaves; damaged tables.
 */
#include "qcow2-testing.h"

#include "drivers/qcow2/qcow2-bitmap.h"

/* The call, which sets err if it fails, must succeed. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        bool ok_ = (call);                                                                         \
        assert_ok(ok_, err);                                                                       \
    } while (0)

#define DISK (4 * 1024 * 1024)
/* More than the file of an image with some bitmaps and no data takes. */
#define ROOM (1024 * 1024)

/* ---- Images ----------------------------------------------------------------------- */

/* An empty image "test.qcow2"; its path. */
static char *create_image(const char *options, int64_t size)
{
    g_autoptr(JsonObject) object = options_of("%s", options);
    char *path = test_path("test.qcow2");
    GError *err = NULL;

    json_object_set_int_member(object, "size", size);
    MUST(bdrv_create(bdrv_find_format("qcow2"), path, object, &err));
    return path;
}

static void assert_clean(const char *path)
{
    BdrvCheckResult result = { 0 };
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK);

    assert_int_equal(bdrv_check(blk_bs(blk), &result, NULL, NULL), 0);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.leaks, 0);
    assert_int_equal(result.check_errors, 0);
    blk_unref(blk);
}

/* After a crash or an error: clusters may be lost, and nothing else. */
static void assert_not_corrupt(const char *path)
{
    BdrvCheckResult result = { 0 };
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);

    assert_int_equal(bdrv_check(blk_bs(blk), &result, NULL, NULL), 0);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.check_errors, 0);
    blk_unref(blk);
}

static BdrvDirtyBitmap *add(BlockBackend *blk, const char *name, int64_t granularity)
{
    GError *err = NULL;
    BdrvDirtyBitmap *bitmap;

    MUST(bdrv_dirty_bitmap_can_store(blk_bs(blk), name, granularity, &err));
    bitmap = bdrv_dirty_bitmap_create(blk_bs(blk), name, granularity, &err);
    assert_ok(bitmap != NULL, err);
    bdrv_dirty_bitmap_set_persistent(bitmap, true);
    return bitmap;
}

static BdrvDirtyBitmap *find(BlockBackend *blk, const char *name)
{
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_find(blk_bs(blk), name);

    assert_non_null(bitmap);
    return bitmap;
}

static void remove_bitmap(BlockBackend *blk, const char *name)
{
    GError *err = NULL;

    MUST(bdrv_dirty_bitmap_remove_stored(blk_bs(blk), name, &err));
    bdrv_dirty_bitmap_remove(find(blk, name));
}

/* Close the image; what it stores is whole. */
static void store_and_close(BlockBackend *blk)
{
    GError *err = NULL;

    MUST(bdrv_dirty_bitmaps_store(blk_bs(blk), &err));
    blk_unref(blk);
}

/* All of a bitmap as text. */
static char *describe(BdrvDirtyBitmap *bitmap)
{
    GString *text = g_string_new(NULL);
    int64_t offset = 0, bytes = 0;

    g_string_printf(text, "%s/%d/%d/%d:", bdrv_dirty_bitmap_name(bitmap),
                    (int)bdrv_dirty_bitmap_granularity(bitmap), bdrv_dirty_bitmap_enabled(bitmap),
                    bdrv_dirty_bitmap_state(bitmap) & BDRV_BITMAP_INCONSISTENT);
    while (bdrv_dirty_bitmap_next_dirty_area(bitmap, offset + bytes, INT64_MAX, INT64_MAX,
                                             &offset, &bytes)) {
        g_string_append_printf(text, " %" G_GINT64_FORMAT "+%" G_GINT64_FORMAT, offset, bytes);
    }
    return g_string_free(text, false);
}

static char *describe_all(BlockBackend *blk)
{
    GString *text = g_string_new(NULL);
    BdrvDirtyBitmap *bitmap = NULL;

    while ((bitmap = bdrv_dirty_bitmap_next(blk_bs(blk), bitmap))) {
        if (bdrv_dirty_bitmap_persistent(bitmap)) {
            g_autofree char *line = describe(bitmap);

            g_string_append_printf(text, "%s\n", line);
        }
    }
    return g_string_free(text, false);
}

static void assert_bitmap(BlockBackend *blk, const char *name, const char *expected)
{
    g_autofree char *text = describe(find(blk, name));

    assert_string_equal(text, expected);
}

/* ---- Reading what QEMU stored ---------------------------------------------------------- */

static void stored_bitmaps_are_loaded_read_only(void **state)
{
    g_autofree char *path = fixture_path("bitmaps.qcow2");
    BlockBackend *blk = open_qcow2(path, 0);
    GError *err = NULL;

    assert_null(bdrv_dirty_bitmap_next(blk_bs(blk), NULL));
    MUST(bdrv_dirty_bitmaps_load(blk_bs(blk), &err));
    MUST(bdrv_dirty_bitmaps_load(blk_bs(blk), &err));
    assert_bitmap(blk, "enabled", "enabled/4096/1/0: 4096+4096");
    assert_bitmap(blk, "disabled", "disabled/512/0/0:");
    assert_int_equal(bdrv_dirty_bitmap_state(find(blk, "enabled")), BDRV_BITMAP_READONLY);
    assert_true(bdrv_dirty_bitmap_persistent(find(blk, "enabled")));
    blk_unref(blk);
}

/* Where the table of bitmap 0 of the fixture lies. */
static uint64_t table_at(const Image *image)
{
    return get64(image, get64(image, extension_at(image, QCOW2_EXT_BITMAPS) + 16));
}

static void assert_load_fails(Image *image, const char *part)
{
    g_autofree char *path = store_image(image);
    BlockBackend *blk = open_qcow2(path, 0);
    GError *err = NULL;

    assert_false(bdrv_dirty_bitmaps_load(blk_bs(blk), &err));
    assert_error_has(&err, part);
    assert_null(bdrv_dirty_bitmap_next(blk_bs(blk), NULL));
    blk_unref(blk);
}

static void damaged_tables_are_refused(void **state)
{
    static const struct {
        uint64_t entry;
        const char *message;
    } cases[] = {
        { 2, "bitmap 'enabled': table entry 0 at offset" },
        { 1ULL << 63, "is not valid" },
        { 1024 * 3 + 512, "is not valid" },
        { 1024 * 3 + 1, "is not valid" },
        { 1024 * 1024, "lies beyond the end of the file" },
        { QCOW2_OFFSET_MASK & ~1023ULL, "lies beyond the end of the file" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Image image = load_fixture("bitmaps.qcow2");

        put64(&image, table_at(&image), cases[i].entry);
        assert_load_fails(&image, cases[i].message);
    }
}

static void damaged_directories_are_refused(void **state)
{
    static const struct {
        unsigned at;
        unsigned bytes;
        uint64_t value;
        const char *message;
    } cases[] = {
        { 8, 4, 2, "bitmap_table_size 2 is not the 1 that the disk's length asks for" },
        { 24, 8, 0x64697361626c6564, "Bitmap already exists" }, /* name_size set below */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Image image = load_fixture("bitmaps.qcow2");
        uint64_t at = get64(&image, extension_at(&image, QCOW2_EXT_BITMAPS) + 16);

        if (cases[i].at == 24) {
            put_bytes(&image, at + 18, 2, 8); /* "disabled", as the other */
        }
        put_bytes(&image, at + cases[i].at, cases[i].bytes, cases[i].value);
        assert_load_fails(&image, cases[i].message);
    }
}

/* As one that is in use may be: what nobody can find is lost, and it can go. */
static void a_bitmap_whose_table_cannot_be_read_can_be_removed(void **state)
{
    Image image = load_fixture("bitmaps.qcow2");
    uint64_t at = get64(&image, extension_at(&image, QCOW2_EXT_BITMAPS) + 16);
    uint16_t name_size = qcow2_be16(image.data + at + 18);
    g_autofree char *name = g_strndup((char *)image.data + at + 24, name_size), *path = NULL;
    BlockBackend *blk;

    put64(&image, at, UINT64_MAX << image.cluster_bits);
    put_bytes(&image, at + 12, 4, QCOW2_BITMAP_IN_USE);
    path = store_image(&image);
    blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    remove_bitmap(blk, name);
    blk_unref(blk);
    blk = open_qcow2(path, 0);
    assert_true(bdrv_dirty_bitmaps_load(blk_bs(blk), NULL));
    assert_null(bdrv_dirty_bitmap_find(blk_bs(blk), name));
    assert_non_null(bdrv_dirty_bitmap_next(blk_bs(blk), NULL)); /* others stay */
    blk_unref(blk);
    assert_not_corrupt(path);
}

static void extra_data_is_refused(void **state)
{
    Image image = load_fixture("bitmaps.qcow2");
    uint64_t at = get64(&image, extension_at(&image, QCOW2_EXT_BITMAPS) + 16);
    g_autofree char *path = NULL;
    GError *err = NULL;

    put_bytes(&image, at + 20, 4, 8);
    put_bytes(&image, at + 18, 2, 1);
    path = store_image(&image);
    assert_null(try_open_qcow2(path, 0, &err));
    assert_error_has(&err, "Bitmap extra data is not supported");
}

/* ---- Storing -------------------------------------------------------------------------- */

static void bitmaps_survive_closing(void **state)
{
    g_autofree char *path = create_image("cluster_size=512", DISK);
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
    BdrvDirtyBitmap *bitmap;

    bitmap = add(blk, "a", 512);
    bdrv_dirty_bitmap_set(bitmap, 0, 512);
    bdrv_dirty_bitmap_set(bitmap, DISK / 2, DISK / 4);
    bdrv_dirty_bitmap_set(bitmap, DISK - 1, 1);
    bitmap = add(blk, "b", 65536);
    bdrv_dirty_bitmap_disable(bitmap);
    bdrv_dirty_bitmap_set(bitmap, 70000, 1);
    add(blk, "empty", 512);
    bdrv_dirty_bitmap_set(add(blk, "full", 512), 0, DISK);
    bdrv_dirty_bitmap_set_persistent(add(blk, "not stored", 512), false);
    store_and_close(blk);
    assert_clean(path);

    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_bitmap(blk, "a", "a/512/1/0: 0+512 2097152+1048576 4193792+512");
    assert_bitmap(blk, "b", "b/65536/0/0: 65536+65536");
    assert_bitmap(blk, "empty", "empty/512/1/0:");
    assert_bitmap(blk, "full", "full/512/1/0: 0+4194304");
    assert_null(bdrv_dirty_bitmap_find(blk_bs(blk), "not stored"));
    assert_int_equal(bdrv_dirty_bitmap_state(find(blk, "a")), 0);
    blk_unref(blk); /* closing stores them as well */
    assert_clean(path);

    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_bitmap(blk, "a", "a/512/1/0: 0+512 2097152+1048576 4193792+512");
    remove_bitmap(blk, "a");
    remove_bitmap(blk, "empty");
    remove_bitmap(blk, "b");
    remove_bitmap(blk, "full");
    store_and_close(blk);
    assert_clean(path);
    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_null(bdrv_dirty_bitmap_next(blk_bs(blk), NULL));
    blk_unref(blk);
}

static void guest_writes_mark_stored_bitmaps(void **state)
{
    g_autofree char *path = create_image("cluster_size=4096", DISK);
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_UNMAP);
    uint8_t buf[4096] = { 1 };
    GError *err = NULL;

    add(blk, "on", 4096);
    bdrv_dirty_bitmap_disable(add(blk, "off", 4096));
    store_and_close(blk);
    blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_UNMAP);
    assert_int_equal(blk_pwrite(blk, 10000, 1000, buf, 0), 0);
    assert_int_equal(blk_pwrite_zeroes(blk, 40960, 4096, 0), 0);
    assert_int_equal(blk_pdiscard(blk, 81920, 4096), 0);
    store_and_close(blk);
    assert_clean(path);
    blk = open_qcow2(path, 0);
    MUST(bdrv_dirty_bitmaps_load(blk_bs(blk), &err));
    assert_bitmap(blk, "on", "on/4096/1/0: 8192+4096 40960+4096 81920+4096");
    assert_bitmap(blk, "off", "off/4096/0/0:");
    blk_unref(blk);
}

/* One random change of one of the bitmaps "0" to "5", or of which there are. */
static void random_change(BlockBackend *blk, GRand *rand)
{
    const char name[] = { '0' + g_rand_int_range(rand, 0, 6), 0 };
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_find(blk_bs(blk), name);
    int64_t offset = g_rand_int_range(rand, 0, DISK);
    int64_t bytes = g_rand_int_range(rand, 1, g_rand_boolean(rand) ? 10000 : DISK);

    if (!bitmap) {
        add(blk, name, INT64_C(512) << g_rand_int_range(rand, 0, 16));
        return;
    }
    switch (g_rand_int_range(rand, 0, 12)) {
    case 0:
        remove_bitmap(blk, name);
        break;
    case 1:
        bdrv_dirty_bitmap_disable(bitmap);
        break;
    case 2:
        bdrv_dirty_bitmap_enable(bitmap);
        break;
    case 3:
        bdrv_dirty_bitmap_clear(bitmap);
        break;
    case 4 ... 6:
        bdrv_dirty_bitmap_reset(bitmap, offset, bytes);
        break;
    default:
        bdrv_dirty_bitmap_set(bitmap, offset, bytes);
        break;
    }
}

static void random_changes(const char *options, uint32_t seed)
{
    g_autofree char *path = create_image(options, DISK);
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autofree char *expected = g_strdup("");

    for (int round = 0; round < 25; round++) {
        BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
        g_autofree char *text = describe_all(blk);

        assert_string_equal(text, expected);
        for (int i = 0; i < 12; i++) {
            random_change(blk, rand);
        }
        g_free(expected);
        expected = describe_all(blk);
        store_and_close(blk);
        assert_clean(path);
    }
}

static void random_changes_survive_reopening(void **state)
{
    random_changes("cluster_size=512,refcount_bits=64", 1);
    random_changes("cluster_size=512,refcount_bits=1", 2);
    random_changes("cluster_size=4096", 3);
    random_changes("cluster_size=65536", 4);
    random_changes("cluster_size=65536,extended_l2=on", 5);
}

static void what_cannot_be_stored_is_refused(void **state)
{
    g_autofree char *path = create_image("compat=0.10", DISK);
    g_autofree char *name = g_strnfill(1024, 'n');
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
    GError *err = NULL;

    assert_false(bdrv_dirty_bitmap_can_store(blk_bs(blk), "a", 512, &err));
    assert_error_has(&err, "Cannot store dirty bitmaps in qcow2 v2 files");
    blk_unref(blk);
    g_free(path);

    path = create_image("cluster_size=65536", INT64_C(1) << 46);
    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_false(bdrv_dirty_bitmap_can_store(blk_bs(blk), name, 65536, &err));
    assert_error_has(&err, "Name length exceeds maximum (1023 characters)");
    assert_false(bdrv_dirty_bitmap_can_store(blk_bs(blk), "a", 8192, &err));
    assert_error_has(&err, "Too much space will be occupied by the bitmap");
    assert_false(bdrv_dirty_bitmap_can_store(blk_bs(blk), "", 65536, &err));
    assert_error_has(&err, "Bitmap name cannot be empty");
    add(blk, name + 1, 16384);
    store_and_close(blk);
    assert_clean(path);
    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_int_equal(bdrv_dirty_bitmap_count(find(blk, name + 1)), 0);
    blk_unref(blk);
}

/*
 * With small clusters, the backing file's name is where the extension is to be. It moves out
 * of the way, or both are one write of a sector, or the bitmaps are refused.
 */
static void names_of_any_length_make_room(void **state)
{
    const int flags = BDRV_O_RDWR | BDRV_O_NO_BACKING | BDRV_O_NO_FLUSH;
    /* For clusters of 512, 1024 and 2048 bytes: what one sector has, or half of the cluster. */
    static const int most[] = { 344, 440, 952 };

    for (size_t i = 0; i < G_N_ELEMENTS(most); i++) {
        for (int n = 20; n <= most[i] + 9; n += n < most[i] - 16 ? 13 : 1) {
            g_autofree char *name = g_strnfill(n, 'n');
            g_autofree char *text = g_strdup_printf("cluster_size=%d,backing_file=%s,"
                                                    "backing_fmt=raw", 512 << i, name);
            g_autofree char *path = create_image(text, 1 << 20);
            BlockBackend *blk = open_qcow2(path, flags);
            bool ok;

            add(blk, "a", 65536);
            ok = bdrv_dirty_bitmaps_store(blk_bs(blk), NULL);
            assert_int_equal(ok, n <= most[i]);
            if (!ok) {
                bdrv_dirty_bitmap_remove(find(blk, "a"));
            }
            blk_unref(blk);
            assert_not_corrupt(path);
            blk = open_qcow2(path, flags);
            assert_string_equal(bdrv_get_backing_filename(blk_bs(blk)), name);
            if (ok) {
                assert_bitmap(blk, "a", "a/65536/1/0:");
                remove_bitmap(blk, "a");
            }
            blk_unref(blk);
            blk = open_qcow2(path, BDRV_O_NO_BACKING);
            assert_string_equal(bdrv_get_backing_filename(blk_bs(blk)), name);
            blk_unref(blk);
        }
    }
}

/* ---- Crashes and errors ---------------------------------------------------------------- */

/* What a crash right now would leave of the image at @path, as "crash.qcow2". */
static char *crash_copy(const char *path)
{
    char *data = NULL;
    gsize size = 0;
    char *copy;

    assert_true(g_file_get_contents(path, &data, &size, NULL));
    copy = make_file("crash.qcow2", data, size);
    g_free(data);
    return copy;
}

static void a_crash_leaves_stored_bitmaps_inconsistent(void **state)
{
    g_autofree char *path = create_image("cluster_size=512", DISK);
    g_autofree char *copy = NULL;
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
    GError *err = NULL;

    bdrv_dirty_bitmap_set(add(blk, "a", 512), 0, 512);
    bdrv_dirty_bitmap_set(add(blk, "b", 512), 0, 512);
    store_and_close(blk);
    blk = open_qcow2(path, BDRV_O_RDWR);
    copy = crash_copy(path);
    blk_unref(blk);
    assert_clean(copy);

    blk = open_qcow2(copy, BDRV_O_RDWR);
    assert_bitmap(blk, "a", "a/512/0/4:");
    assert_bitmap(blk, "b", "b/512/0/4:");
    assert_false(bdrv_dirty_bitmap_check(find(blk, "a"), BDRV_BITMAP_DEFAULT, &err));
    assert_error_has(&err, "inconsistent");
    remove_bitmap(blk, "a");
    add(blk, "c", 512);
    store_and_close(blk);
    assert_clean(copy);
    blk = open_qcow2(copy, BDRV_O_RDWR);
    assert_null(bdrv_dirty_bitmap_find(blk_bs(blk), "a"));
    assert_bitmap(blk, "b", "b/512/0/4:"); /* still shown */
    assert_bitmap(blk, "c", "c/512/1/0:");
    blk_unref(blk);
}

static void read_only_opening_writes_nothing(void **state)
{
    g_autofree char *path = create_image("cluster_size=512", DISK);
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
    gsize size, size_after;
    GError *err = NULL;
    g_autofree char *before = NULL, *after = NULL;

    bdrv_dirty_bitmap_set(add(blk, "a", 512), 0, 512);
    store_and_close(blk);
    assert_true(g_file_get_contents(path, &before, &size, NULL));
    blk = open_qcow2(path, 0);
    MUST(bdrv_dirty_bitmaps_load(blk_bs(blk), &err));
    store_and_close(blk);
    assert_true(g_file_get_contents(path, &after, &size_after, NULL));
    assert_int_equal(size, size_after);
    assert_memory_equal(before, after, size);
}

/* On an image of two bitmaps: change them with write number @n failing. Whether
 * a write failed. */
static bool change_with_failure(const char *path, int n)
{
    GError *err = NULL;
    BlockBackend *blk = try_open(
        options_of("driver=qcow2,file.driver=blkdebug,file.inject-error.0.event=none,"
                   "file.inject-error.0.iotype=write,file.inject-error.0.once=on,"
                   "file.inject-error.0.after=%d,"
                   "file.image.driver=file,file.image.filename=%s", n, path),
        BDRV_O_RDWR, &err);
    bool failed;

    if (!blk) {
        assert_error_has(&err, "could not mark the bitmaps as in use");
        return true;
    }
    bdrv_dirty_bitmap_set(find(blk, "a"), 4096, 512);
    failed = !bdrv_dirty_bitmap_remove_stored(blk_bs(blk), "b", &err);
    if (!failed) {
        bdrv_dirty_bitmap_remove(find(blk, "b"));
        add(blk, "c", 512);
        failed = !bdrv_dirty_bitmaps_store(blk_bs(blk), &err);
    }
    if (failed) {
        assert_error_has(&err, "could not write");
    }
    blk_unref(blk);
    return failed;
}

static void failed_writes_lose_clusters_at_most(void **state)
{
    bool failed = true;
    int n;

    for (n = 0; failed; n++) {
        g_autofree char *path = create_image("cluster_size=512", DISK);
        BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
        BdrvDirtyBitmap *bitmap;

        bdrv_dirty_bitmap_set(add(blk, "a", 512), 0, 512);
        bdrv_dirty_bitmap_set(add(blk, "b", 512), 0, 512);
        store_and_close(blk);
        assert_int_equal(truncate(path, ROOM), 0); /* filters do not grow */
        failed = change_with_failure(path, n);
        assert_not_corrupt(path);
        blk = open_qcow2(path, BDRV_O_RDWR);
        bitmap = bdrv_dirty_bitmap_find(blk_bs(blk), "a");
        /* What is there and can be used has what was marked. */
        if (bitmap && bdrv_dirty_bitmap_state(bitmap) == 0 && n > 0) {
            assert_bitmap(blk, "a", "a/512/1/0: 0+512 4096+512");
        }
        if (!failed) {
            assert_bitmap(blk, "c", "c/512/1/0:");
            assert_non_null(bitmap);
        }
        blk_unref(blk);
    }
    assert_true(n > 5); /* of the many writes that it takes, each has failed once */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_bitmaps_are_loaded_read_only),
        cmocka_unit_test(damaged_tables_are_refused),
        cmocka_unit_test(damaged_directories_are_refused),
        cmocka_unit_test(a_bitmap_whose_table_cannot_be_read_can_be_removed),
        cmocka_unit_test(extra_data_is_refused),
        cmocka_unit_test(bitmaps_survive_closing),
        cmocka_unit_test(guest_writes_mark_stored_bitmaps),
        cmocka_unit_test(random_changes_survive_reopening),
        cmocka_unit_test(what_cannot_be_stored_is_refused),
        cmocka_unit_test(names_of_any_length_make_room),
        cmocka_unit_test(a_crash_leaves_stored_bitmaps_inconsistent),
        cmocka_unit_test(read_only_opening_writes_nothing),
        cmocka_unit_test(failed_writes_lose_clusters_at_most),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
