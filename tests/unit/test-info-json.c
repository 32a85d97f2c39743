/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image information as JSON, of an image whose directory of bitmaps is larger
 * than what is held of it: whichever read fails, the document is complete or
 * absent.
 */
#include "qcow2-testing.h"

#include <stdio.h>
#include <stdlib.h>

#include "fault-node.h"
#include "tools/img/info-json.h"

#define BITMAPS 4000
#define NAME_LENGTH 200
#define ENTRY (24 + NAME_LENGTH) /* a multiple of 8 */
#define CLUSTER 65536

/* An image without data, with BITMAPS entries in its directory; the path. */
static char *make_image(void)
{
    Image image = load_fixture("bitmaps.qcow2");
    uint64_t at = (image.size + CLUSTER - 1) / CLUSTER * CLUSTER;
    uint64_t size = at + (uint64_t)BITMAPS * ENTRY, extension;

    image.data = g_realloc(image.data, size);
    memset(image.data + image.size, 0, size - image.size);
    image.size = size;
    extension = extension_at(&image, QCOW2_EXT_BITMAPS);
    put_bytes(&image, extension, 4, BITMAPS);
    put64(&image, extension + 8, (uint64_t)BITMAPS * ENTRY);
    put64(&image, extension + 16, at);
    for (unsigned i = 0; i < BITMAPS; i++, at += ENTRY) {
        g_autofree char *name = g_strdup_printf("%0*u", NAME_LENGTH, i);

        put64(&image, at, CLUSTER);      /* its table: nothing looks there */
        put_bytes(&image, at + 8, 4, 1); /* entries */
        put_bytes(&image, at + 16, 1, 1); /* type */
        put_bytes(&image, at + 17, 1, 16); /* log2 of the granularity */
        put_bytes(&image, at + 18, 2, NAME_LENGTH);
        memcpy(image.data + at + 24, name, NAME_LENGTH);
    }
    return store_image(&image);
}

/* What is written about the image, free with free(); and whether all was well. */
static char *print(const GPtrArray *images, bool *ok)
{
    GError *err = NULL;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    *ok = img_print_info_json(out, images, true, &err);
    assert_int_equal(fclose(out), 0);
    if (*ok) {
        assert_null(err);
    } else {
        assert_error_has(&err, "could not read the bitmap directory");
    }
    return text;
}

/* The information about the image at @path, read through a node that may fail. */
static GPtrArray *open_info(const char *path)
{
    GPtrArray *images = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_image_info_free);
    g_autofree char *options = g_strdup_printf("driver=qcow2,file.driver=fault,"
                                               "file.image.driver=file,file.image.filename=%s",
                                               path);
    BlockDriverState *bs = open_node_with(options, BDRV_O_NO_BACKING | BDRV_O_NO_IO);
    GError *err = NULL;
    BdrvImageInfo *info = bdrv_image_info(bs, &err);

    assert_ok(info != NULL, err);
    g_ptr_array_add(images, info);
    bdrv_unref(bs);
    return images;
}

static void json_is_complete_or_absent_when_a_read_fails(void **state)
{
    g_autofree char *path = make_image();
    g_autoptr(GPtrArray) images = open_info(path);
    g_autoptr(JsonParser) parser = json_parser_new();
    GError *err = NULL;
    bool ok;
    char *expected = print(images, &ok);
    unsigned failed = 0;

    assert_true(ok);
    assert_ok(json_parser_load_from_data(parser, expected, -1, &err), err);
    assert_non_null(strstr(expected, "03999\""));
    do {
        char *text;

        fault_arm(failed, -EIO, failed % 2, FAULT_NOTHING_DONE);
        text = print(images, &ok);
        fault_disarm();
        if (ok != !fault.hit) {
            fail_msg("request %u of type %d failed, unnoticed", failed, fault.type);
        }
        assert_string_equal(text, ok ? expected : "");
        free(text);
        failed += !ok;
    } while (!ok);
    assert_true(failed >= BITMAPS * ENTRY / (256 * 1024));
    free(expected);
}

static int setup(void **state)
{
    GError *err = NULL;

    return qcow2_group_setup(state) || !bdrv_register(&fault_driver, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_complete_or_absent_when_a_read_fails),
    };

    return cmocka_run_group_tests(tests, setup, driver_group_teardown);
}
