/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what a disk gives up when it gets shorter, if that fails halfway, and in images
 * whose tables lie.
 */
#include "qcow2-testing.h"
#include "fault-node.h"

#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)

/* ---- Helpers --------------------------------------------------------------------------- */

typedef struct Bytes {
    char *data;
    gsize size;
} Bytes;

static char *create_image(const char *text)
{
    g_autoptr(JsonObject) options = options_of("%s", text);
    char *path = test_path("shrinking.qcow2");
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

static BlockBackend *open_on_fault(const char *path, int flags)
{
    return open_blk(options_of("driver=qcow2,file.driver=fault,file.image.driver=file,"
                               "file.image.filename=%s", path),
                    BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP | flags);
}

static Bytes load(const char *path)
{
    Bytes bytes;

    assert_true(g_file_get_contents(path, &bytes.data, &bytes.size, NULL));
    return bytes;
}

static void print_line(void *opaque, const char *line)
{
    if (!strstr(line, "Leaked")) {
        print_message("%s\n", line);
    }
}

/* Nothing but leaks in what the file at @path is at this moment. */
static void assert_copy_whole(const char *path)
{
    Bytes bytes = load(path);
    g_autofree char *copy = make_file("copy.qcow2", bytes.data, bytes.size);
    BlockBackend *blk = open_qcow2(copy, BDRV_O_CHECK);
    BdrvCheckResult r;

    assert_int_equal(bdrv_check(blk_bs(blk), &r, print_line, NULL), 0);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    blk_unref(blk);
    g_free(bytes.data);
}

/* ---- Refcount blocks that are not needed any more ----------------------------------------- */

#define LONG (160 * KiB)
#define SHORT (40 * KiB)

/*
 * Written in pieces of @piece bytes. Of its refcount blocks, of 64 clusters each, a shorter
 * disk needs a few.
 */
static char *make_full_image(const uint8_t *data, int64_t piece)
{
    char *path = create_image("size=160k,cluster_size=512,refcount_bits=64");
    BlockBackend *blk = open_on_fault(path, BDRV_O_NO_FLUSH);

    for (int64_t at = 0; at < LONG; at += piece) {
        assert_int_equal(blk_pwrite(blk, at, MIN(piece, LONG - at), data + at, 0), 0);
    }
    blk_unref(blk);
    return path;
}

/* A block may lie in what the one before it describes, which is needed for that alone. */
static void blocks_for_nothing_but_one_another_go_together(void **state)
{
    g_autofree uint8_t *data = pattern(LONG, 2);

    for (int64_t piece = 512; piece <= 12 * KiB; piece += 512) {
        g_autofree char *path = make_full_image(data, piece);
        BlockBackend *blk = open_on_fault(path, BDRV_O_NO_FLUSH);
        struct stat st;

        assert_int_equal(blk_truncate(blk, SHORT, true, BLOCK_PREALLOC_OFF, NULL), 0);
        blk_unref(blk);
        assert_copy_whole(path);
        assert_int_equal(stat(path, &st), 0);
        assert_in_range(st.st_size, SHORT, 2 * SHORT);
    }
}

/* Request @n of @type fails while the disk gets shorter. False: there are not so many. */
static bool shrink_and_fill(const Bytes *image, const uint8_t *data, BdrvIoType type, int n,
                            FaultManner manner)
{
    g_autofree char *path = make_file("test.qcow2", image->data, image->size);
    BlockBackend *blk = open_on_fault(path, BDRV_O_NO_FLUSH);
    bool hit;
    int ret;

    fault_arm(n, -EIO, true, manner);
    fault.only = type;
    ret = blk_truncate(blk, SHORT, true, BLOCK_PREALLOC_OFF, NULL);
    fault_disarm();
    hit = fault.hit;
    assert_true(ret == 0 || hit);
    assert_copy_whole(path);
    assert_int_equal(blk_truncate(blk, LONG, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_int_equal(blk_pwrite(blk, SHORT, LONG - SHORT, data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_copy_whole(path); /* its refcounts, too, are there */
    assert_int_equal(blk_truncate(blk, SHORT, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_copy_whole(path);
    blk_unref(blk);
    assert_copy_whole(path);
    return hit;
}

/* The file may have lost them, or not, when that fails: they are not relied on, nor forgotten. */
static void blocks_that_may_be_dropped_are_put_back_before_they_are_used(void **state)
{
    static const BdrvIoType types[] = { BDRV_IO_WRITE, BDRV_IO_FLUSH, BDRV_IO_TRUNCATE };
    g_autofree uint8_t *data = pattern(LONG, 1);
    g_autofree char *path = make_full_image(data, LONG);
    Bytes image = load(path);
    int failed = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(types) * 3; i++) {
        for (int n = 0; shrink_and_fill(&image, data, types[i % 3], n, i / 3); n++) {
            failed++;
        }
    }
    assert_true(failed > 20);
    g_free(image.data);
}

/* ---- Tables that lie ----------------------------------------------------------------------- */

#define L1_ENTRIES 8192
#define L2_ENTRIES 64

/*
 * All L1 entries lead to one table, and all that has to one cluster, as often as their
 * refcounts say, in a file of a few KiB.
 */
static char *make_crowded_image(void)
{
    g_autofree char *path = create_image("size=256M,cluster_size=512,refcount_bits=64");
    BlockBackend *blk = open_on_fault(path, BDRV_O_NO_FLUSH);
    uint8_t buf[512] = { 1 };
    uint64_t table, place;
    Image image = { 0 };
    Bytes bytes;

    assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), 0);
    blk_unref(blk);
    bytes = load(path);
    image = (Image){ .data = (uint8_t *)bytes.data, .size = bytes.size, .cluster_bits = 9 };
    table = l2_at(&image);
    place = get64(&image, table) & QCOW2_OFFSET_MASK;
    for (int i = 0; i < L1_ENTRIES; i++) {
        put64(&image, l1_at(&image) + 8 * i, table);
    }
    for (int i = 0; i < L2_ENTRIES; i++) {
        put64(&image, table + 8 * i, place);
    }
    /* Each block has a cluster of 64 refcounts. */
    put64(&image, get64(&image, reftable_at(&image) + 8 * (table >> 15)) + 8 * (table >> 9 & 63),
          L1_ENTRIES + 1); /* the last one stays, and is not "copied" */
    put64(&image, get64(&image, reftable_at(&image) + 8 * (place >> 15)) + 8 * (place >> 9 & 63),
          L1_ENTRIES * L2_ENTRIES);
    return store_image(&image);
}

/* What is known of places to give up is settled before it comes to too much memory. */
static void a_small_file_with_many_entries_is_given_up_in_portions(void **state)
{
    const int many = 1000000;
    g_autofree char *path = make_crowded_image();
    BlockBackend *blk = open_on_fault(path, 0);
    int flushes;

    fault_arm(many, -EIO, true, FAULT_NOTHING_DONE);
    fault.only = BDRV_IO_FLUSH;
    assert_int_equal(blk_truncate(blk, L2_ENTRIES * 512, true, BLOCK_PREALLOC_OFF, NULL), 0);
    flushes = many - fault.left;
    fault_disarm();
    assert_true(flushes > L1_ENTRIES * (L2_ENTRIES + 1) / 65536);
    assert_int_equal(blk_getlength(blk), L2_ENTRIES * 512);
    blk_unref(blk);
    assert_copy_whole(path); /* no reference went twice */
}

/* ---- Devices ------------------------------------------------------------------------------ */

/* The image cannot be cut there: what was given up is still to be read below. */
static void what_a_device_keeps_is_not_taken_for_zeros(void **state)
{
    g_autofree char *path = create_image("size=1M,cluster_size=4k");
    g_autofree uint8_t *data = pattern(512 * KiB, 3);
    BlockBackend *blk;

    assert_int_equal(truncate(path, 4 * MiB), 0);
    fault_keeps_length = true;
    fault_discarded = 0xee;
    blk = open_on_fault(path, BDRV_O_NO_FLUSH);
    assert_int_equal(blk_pwrite(blk, 0, 4 * KiB, data, 0), 0); /* the L2 table, too, stays */
    assert_int_equal(blk_pwrite(blk, 4 * KiB, 508 * KiB, data + 4 * KiB, 0), 0);
    assert_int_equal(blk_truncate(blk, 4 * KiB, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_int_equal(blk_truncate(blk, 1 * MiB, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_int_equal(blk_pwrite(blk, 256 * KiB, 512, data, 0), 0);
    assert_reads(blk, 256 * KiB, 512, data);
    assert_reads(blk, 256 * KiB + 512, 4 * KiB - 512, NULL);
    blk_unref(blk);
    fault_keeps_length = false;
    fault_discarded = 0;
    assert_copy_whole(path);
}

static int setup(void **state)
{
    GError *err = NULL;

    return qcow2_group_setup(state) || !bdrv_register(&fault_driver, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_for_nothing_but_one_another_go_together),
        cmocka_unit_test(blocks_that_may_be_dropped_are_put_back_before_they_are_used),
        cmocka_unit_test(a_small_file_with_many_entries_is_given_up_in_portions),
        cmocka_unit_test(what_a_device_keeps_is_not_taken_for_zeros),
    };

    return cmocka_run_group_tests_name("qcow2 shrink", tests, setup, driver_group_teardown);
}
