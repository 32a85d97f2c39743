/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: opening images to write whose header says that they are dirty or corrupt, or
 * tells of features that are not known.
 */
#include "qcow2-testing.h"

#define INCOMPATIBLE_AT 72

static void set_feature(Image *image, uint64_t feature)
{
    put64(image, INCOMPATIBLE_AT, get64(image, INCOMPATIBLE_AT) | feature);
}

static uint64_t features_of(const char *path)
{
    g_autofree char *data = NULL;

    assert_true(g_file_get_contents(path, &data, NULL, NULL));
    return qcow2_be64((uint8_t *)data + INCOMPATIBLE_AT);
}

/* A dirty image: the refcounts of what its first L2 table refers to were not written. */
static Image make_dirty(void)
{
    Image image = load_fixture("v3.qcow2");
    uint64_t entries = (1ULL << image.cluster_bits) / 8, lost = 0;

    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = get64(&image, l2_at(&image) + 8 * i);
        uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> image.cluster_bits;

        if (!(entry & QCOW2_COMPRESSED) && cluster != 0) {
            put_bytes(&image, refblock_at(&image) + 2 * cluster, 2, 0);
            lost++;
        }
    }
    assert_int_not_equal(lost, 0);
    set_feature(&image, QCOW2_INCOMPAT_DIRTY);
    return image;
}

static uint8_t *content_of(const char *path, int64_t *length)
{
    BlockBackend *blk = open_qcow2(path, 0);
    uint8_t *buf;

    *length = blk_getlength(blk);
    buf = g_malloc(*length);
    assert_int_equal(blk_pread(blk, 0, *length, buf, 0), 0);
    blk_unref(blk);
    return buf;
}

static void assert_clean(const char *path)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;

    assert_int_equal(bdrv_check(blk_bs(blk), &r, NULL, NULL), 0);
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
    blk_unref(blk);
}

static void opening_to_write_repairs_a_dirty_image(void **state)
{
    Image image = make_dirty();
    g_autofree char *path = store_image(&image);
    g_autofree uint8_t *before = NULL, *after = NULL;
    int64_t length, length_after;
    BlockBackend *blk;

    before = content_of(path, &length);
    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_int_equal(features_of(path), 0);
    memset(before, 0x5a, 3000);
    assert_int_equal(blk_pwrite(blk, 0, 3000, before, 0), 0);
    blk_unref(blk);
    assert_clean(path);
    after = content_of(path, &length_after);
    assert_int_equal(length, length_after);
    assert_memory_equal(before, after, length);
}

static void opening_to_read_leaves_a_dirty_image_as_it_is(void **state)
{
    Image image = make_dirty();
    g_autofree char *copy = g_memdup2(image.data, image.size);
    g_autofree char *path = NULL, *data = NULL;
    g_autofree uint8_t *content = NULL;
    gsize size = image.size, now;
    int64_t length;

    path = store_image(&image);
    content = content_of(path, &length);
    assert_true(g_file_get_contents(path, &data, &now, NULL));
    assert_int_equal(now, size);
    assert_memory_equal(data, copy, size);
}

static void a_dirty_image_beyond_repair_is_refused(void **state)
{
    Image image = load_fixture("refcount-1.qcow2");
    g_autofree char *path = NULL;
    GError *err = NULL;

    /* A cluster that is used twice, where refcounts have one bit. */
    put64(&image, l2_at(&image), get64(&image, l2_at(&image) + 8));
    set_feature(&image, QCOW2_INCOMPAT_DIRTY);
    path = store_image(&image);
    assert_null(try_open_qcow2(path, BDRV_O_RDWR, &err));
    assert_non_null(strstr(err->message, "test.qcow2"));
    assert_non_null(strstr(err->message, "dirty"));
    g_error_free(err);
    assert_int_equal(features_of(path), QCOW2_INCOMPAT_DIRTY);
    blk_unref(open_qcow2(path, 0));
}

static void a_corrupt_image_is_read_and_repaired_but_not_written(void **state)
{
    Image image = load_fixture("v3.qcow2");
    g_autofree char *path = NULL;
    g_autofree uint8_t *content = NULL;
    GError *err = NULL;
    BdrvCheckResult r;
    BlockBackend *blk;
    int64_t length;

    set_feature(&image, QCOW2_INCOMPAT_CORRUPT);
    path = store_image(&image);
    assert_null(try_open_qcow2(path, BDRV_O_RDWR, &err));
    assert_non_null(strstr(err->message, "Image is corrupt; cannot be opened read/write"));
    g_error_free(err);
    content = content_of(path, &length);
    assert_int_equal(features_of(path), QCOW2_INCOMPAT_CORRUPT);

    blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_CHECK);
    assert_int_equal(bdrv_repair(blk_bs(blk), BDRV_FIX_ERRORS | BDRV_FIX_LEAKS, &r, NULL, NULL),
                     0);
    blk_unref(blk);
    assert_int_equal(features_of(path), 0);
    blk_unref(open_qcow2(path, BDRV_O_RDWR));
}

static void features_that_are_not_known_stay_but_for_autoclear_bits(void **state)
{
    Image image = load_fixture("features.qcow2");
    uint64_t compatible = get64(&image, 80), at = extension_at(&image, 0x0badcafe);
    g_autofree char *payload = g_strndup((char *)image.data + at, 17);
    g_autofree char *path = store_image(&image);
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_create(blk_bs(blk), "b", 4096, NULL);
    gsize size;

    assert_non_null(bitmap);
    /* The header is written anew, with an extension for the bitmap. */
    bdrv_dirty_bitmap_set_persistent(bitmap, true);
    assert_int_equal(blk_pwrite(blk, 0, 17, payload, 0), 0);
    blk_unref(blk);
    assert_true(g_file_get_contents(path, (char **)&image.data, &size, NULL));
    image.size = size;
    assert_int_not_equal(compatible, 0);
    assert_int_equal(get64(&image, 80), compatible);
    assert_int_equal(get64(&image, 88), QCOW2_AUTOCLEAR_BITMAPS);
    at = extension_at(&image, 0x0badcafe);
    assert_memory_equal(image.data + at, payload, 17);
    extension_at(&image, QCOW2_EXT_BITMAPS);
    g_free(image.data);
    assert_clean(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_to_write_repairs_a_dirty_image),
        cmocka_unit_test(opening_to_read_leaves_a_dirty_image_as_it_is),
        cmocka_unit_test(a_dirty_image_beyond_repair_is_refused),
        cmocka_unit_test(features_that_are_not_known_stay_but_for_autoclear_bits),
        cmocka_unit_test(a_corrupt_image_is_read_and_repaired_but_not_written),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
