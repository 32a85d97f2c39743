/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing to a format that allocates, one request at a time: what is written
 * around the guest's bytes, what an error leaves behind, when places come back.
 */
#include "toy-format.h"

#define UNITS 8

static ToyFormat *toy; /* of the node that the running test has opened */

static BlockBackend *blk_on(const char *options)
{
    GError *err = NULL;
    BlockDriverState *bs = open_node_with(options, BDRV_O_RDWR | BDRV_O_UNMAP);
    BlockBackend *blk = blk_new(NULL, BLK_PERM_ALL, BLK_PERM_ALL, &err);

    assert_ok(blk_insert_bs(blk, bs, &err), err);
    toy = bdrv_state(bs);
    bdrv_unref(bs);
    return blk;
}

#define TOY "driver=toy,units=8,slots=10,"
#define MEMORY "file.driver=memory,file.size=64k"

static void write_byte(BlockBackend *blk, int byte, int64_t offset, int64_t bytes, int flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    assert_int_equal(blk_pwrite(blk, offset, bytes, buf, flags), 0);
}

/* All of [offset, offset + bytes) reads as @byte. */
static void assert_byte(BlockBackend *blk, int byte, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    assert_int_equal(blk_pread(blk, offset, bytes, buf, 0), 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != byte) {
            fail_msg("byte at %d is %d, not %d", (int)(offset + i), buf[i], byte);
        }
    }
}

static int slots_used(void)
{
    int n = 0;

    for (int i = 0; i < toy->slots; i++) {
        n += toy->used[i];
    }
    return n;
}

/* ---- What is written ------------------------------------------------------------------ */

static void around_the_request_is_what_the_node_read_before(void **state)
{
    BlockDriverState *base = open_node_with("driver=memory,size=64k,node-name=base", BDRV_O_RDWR);
    BlockBackend *below = blk_new(NULL, BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    BlockBackend *blk;

    assert_true(blk_insert_bs(below, base, NULL));
    write_byte(below, 'b', 0, 64 << 10, 0);
    blk_unref(below);
    blk = blk_on(TOY MEMORY ",backing=base");
    bdrv_unref(base);
    write_byte(blk, 'x', 100, TOY_UNIT, 0);
    assert_byte(blk, 'b', 0, 100);
    assert_byte(blk, 'x', 100, TOY_UNIT);
    assert_byte(blk, 'b', 100 + TOY_UNIT, TOY_UNIT - 100);
    assert_int_equal(toy->commits, 1);
    write_byte(blk, 'y', 50, 100, 0); /* in place now */
    assert_int_equal(toy->commits, 1);
    assert_byte(blk, 'y', 50, 100);
    assert_byte(blk, 'x', 150, TOY_UNIT - 50);
    blk_unref(blk);
}

static void shared_place_is_copied_from_itself(void **state)
{
    BlockBackend *blk = blk_on(TOY MEMORY);

    write_byte(blk, 'a', 0, 2 * TOY_UNIT, 0);
    toy->shared[0] = toy->shared[1] = true;
    bdrv_drained_begin(blk_bs(blk)); /* as a snapshot does: the mappings are not writable now */
    bdrv_graph_rdlock_main_loop();
    bdrv_map_invalidate(blk_bs(blk), 0, UNITS * TOY_UNIT);
    bdrv_graph_rdunlock_main_loop();
    bdrv_drained_end(blk_bs(blk));
    write_byte(blk, 'b', TOY_UNIT - 10, 20, 0);
    assert_byte(blk, 'a', 0, TOY_UNIT - 10);
    assert_byte(blk, 'b', TOY_UNIT - 10, 20);
    assert_byte(blk, 'a', TOY_UNIT + 10, TOY_UNIT - 10);
    assert_int_equal(slots_used(), 4);
    blk_unref(blk);
}

static void used_places_are_filled_with_zeros(void **state)
{
    BlockBackend *blk = blk_on(TOY MEMORY);

    write_byte(blk, 'a', 0, UNITS * TOY_UNIT, 0);
    assert_int_equal(blk_pdiscard(blk, 0, UNITS * TOY_UNIT), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(slots_used(), 0);
    write_byte(blk, 'b', 10, 10, 0);
    assert_byte(blk, 0, 0, 10);
    assert_byte(blk, 'b', 10, 10);
    assert_byte(blk, 0, 20, UNITS * TOY_UNIT - 20);
    blk_unref(blk);
}

static void zeroing_without_a_table_writes_zeros(void **state)
{
    BlockBackend *blk = blk_on(TOY MEMORY);

    write_byte(blk, 'a', 0, 3 * TOY_UNIT, 0);
    toy->no_zeroes = true;
    assert_int_equal(blk_pwrite_zeroes(blk, 10, 2 * TOY_UNIT, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    assert_byte(blk, 'a', 0, 3 * TOY_UNIT);
    assert_int_equal(blk_pwrite_zeroes(blk, 10, 2 * TOY_UNIT, 0), 0);
    assert_byte(blk, 'a', 0, 10);
    assert_byte(blk, 0, 10, 2 * TOY_UNIT);
    assert_byte(blk, 'a', 10 + 2 * TOY_UNIT, TOY_UNIT - 10);
    /* Nothing is allocated to hold zeros where zeros are. */
    assert_int_equal(blk_pwrite_zeroes(blk, 3 * TOY_UNIT, 5 * TOY_UNIT, 0), 0);
    assert_int_equal(slots_used(), 3);
    blk_unref(blk);
}

static void discard_shrinks_to_whole_units(void **state)
{
    BlockBackend *blk = blk_on(TOY MEMORY);

    write_byte(blk, 'a', 0, 3 * TOY_UNIT, 0);
    assert_int_equal(blk_pdiscard(blk, 1, 3 * TOY_UNIT - 2), 0);
    assert_byte(blk, 'a', 0, TOY_UNIT);
    assert_byte(blk, 0, TOY_UNIT, TOY_UNIT);
    assert_byte(blk, 'a', 2 * TOY_UNIT, TOY_UNIT);
    assert_int_equal(blk_pdiscard(blk, 1, TOY_UNIT - 2), 0);
    assert_byte(blk, 'a', 0, TOY_UNIT);
    blk_unref(blk);
}

/* ---- Growing ---------------------------------------------------------------------------- */

/* Filters and raw end where what they show ends. */
static void a_new_place_beyond_the_end_makes_filters_and_raw_longer(void **state)
{
    static const char *const files[] = {
        "file.driver=raw,file.file.driver=memory,file.file.size=0",
        "file.driver=raw,file.offset=3k,file.file.driver=memory,file.file.size=3k",
        "file.driver=blkdebug,file.image.driver=memory,file.image.size=0",
        ("file.driver=blkdebug,file.image.driver=raw,file.image.file.driver=blkdebug,"
         "file.image.file.image.driver=memory,file.image.file.image.size=0"),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *options = g_strdup_printf(TOY "file.node-name=top,%s", files[i]);
        BlockBackend *blk = blk_on(options);
        BlockDriverState *top = bdrv_find_node("top");
        BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_create(top, "growing", TOY_UNIT, NULL);

        assert_int_equal(bdrv_getlength(top), 0);
        write_byte(blk, 'a', 0, TOY_UNIT, 0);
        assert_int_equal(bdrv_getlength(top), TOY_UNIT);
        write_byte(blk, 'b', TOY_UNIT, 3 * TOY_UNIT, 0);
        assert_int_equal(bdrv_getlength(top), 4 * TOY_UNIT);
        assert_byte(blk, 'a', 0, TOY_UNIT);
        assert_byte(blk, 'b', TOY_UNIT, 3 * TOY_UNIT);
        assert_int_equal(bdrv_dirty_bitmap_count(bitmap), 4 * TOY_UNIT);
        bdrv_dirty_bitmap_remove(bitmap);
        blk_unref(blk);
    }
}

static void a_part_of_a_file_does_not_grow(void **state)
{
    BlockBackend *blk = blk_on(TOY "file.driver=raw,file.node-name=top,file.size=2k,"
                                   "file.file.driver=memory,file.file.size=64k");
    uint8_t buf[2 * TOY_UNIT] = {1};

    write_byte(blk, 'a', 0, TOY_UNIT, 0);
    assert_int_equal(blk_pwrite(blk, TOY_UNIT, sizeof(buf), buf, 0), -ENOSPC);
    assert_int_equal(toy->aborts, 1);
    assert_int_equal(bdrv_getlength(bdrv_find_node("top")), 2 * TOY_UNIT);
    write_byte(blk, 'b', TOY_UNIT, TOY_UNIT, 0);
    assert_byte(blk, 'a', 0, TOY_UNIT);
    assert_byte(blk, 'b', TOY_UNIT, TOY_UNIT);
    blk_unref(blk);
}

/* ---- Errors ---------------------------------------------------------------------------- */

#define BROKEN "file.driver=blkdebug,file.image.driver=memory,file.image.size=64k,"

static void failed_write_is_aborted_and_leaves_the_old_data(void **state)
{
    BlockBackend *blk = blk_on(TOY BROKEN "file.inject-error.0.event=none,"
                                          "file.inject-error.0.iotype=write,"
                                          "file.inject-error.0.once=on");
    uint8_t buf[2 * TOY_UNIT] = {1};

    assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), -EIO);
    assert_int_equal(toy->aborts, 1);
    assert_int_equal(toy->commits, 0);
    assert_int_equal(slots_used(), 0);
    assert_byte(blk, 0, 0, 2 * TOY_UNIT);
    write_byte(blk, 'a', 10, 10, 0); /* the place was written to, maybe: it is no zeros */
    assert_byte(blk, 0, 0, 10);
    blk_unref(blk);
}

static void failed_commit_is_not_aborted(void **state)
{
    BlockBackend *blk = blk_on(TOY MEMORY);
    uint8_t buf[TOY_UNIT] = {1};

    toy->fail_commit = -EIO;
    assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), -EIO);
    assert_int_equal(toy->aborts, 0);
    assert_int_equal(slots_used(), 0);
    assert_byte(blk, 0, 0, TOY_UNIT);
    toy->fail_commit = -EIO;
    assert_int_equal(blk_pwrite_zeroes(blk, 0, TOY_UNIT, 0), -EIO);
    blk_unref(blk);
}

static void retired_places_are_used_when_nothing_else_is_left(void **state)
{
    BlockBackend *blk = blk_on(TOY MEMORY);

    write_byte(blk, 'a', 0, 8 * TOY_UNIT, 0);
    assert_int_equal(blk_pdiscard(blk, 0, 8 * TOY_UNIT), 0);
    assert_int_equal(slots_used(), 8); /* not given out before a flush */
    assert_int_equal(toy->released, 0);
    write_byte(blk, 'b', 0, 8 * TOY_UNIT, 0); /* 2 slots are free, then it flushes */
    assert_byte(blk, 'b', 0, 8 * TOY_UNIT);
    blk_unref(blk);
}

static void no_space_is_said_when_there_is_none(void **state)
{
    BlockBackend *blk = blk_on("driver=toy,units=8,slots=4," MEMORY);
    uint8_t buf[5 * TOY_UNIT] = {1};

    write_byte(blk, 'a', 0, 2 * TOY_UNIT, 0);
    assert_int_equal(blk_pwrite(blk, 2 * TOY_UNIT, sizeof(buf), buf, 0), -ENOSPC);
    assert_byte(blk, 'a', 0, 2 * TOY_UNIT);
    assert_int_equal(blk_pdiscard(blk, 0, 8 * TOY_UNIT), 0);
    write_byte(blk, 'b', 4 * TOY_UNIT, 4 * TOY_UNIT, 0);
    assert_byte(blk, 'b', 4 * TOY_UNIT, 4 * TOY_UNIT);
    blk_unref(blk);
}

static void compressed_writes_need_a_driver_that_encodes(void **state)
{
    BlockBackend *blk = blk_on(TOY MEMORY);
    uint8_t buf[TOY_UNIT] = {0};

    assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, BDRV_REQ_COMPRESSED), -ENOTSUP);
    blk_unref(blk);
}

static int setup(void **state)
{
    GError *err = NULL;

    return blockgraph_group_setup(state) || !bdrv_register(&toy_driver, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(around_the_request_is_what_the_node_read_before),
        cmocka_unit_test(shared_place_is_copied_from_itself),
        cmocka_unit_test(used_places_are_filled_with_zeros),
        cmocka_unit_test(zeroing_without_a_table_writes_zeros),
        cmocka_unit_test(discard_shrinks_to_whole_units),
        cmocka_unit_test(a_new_place_beyond_the_end_makes_filters_and_raw_longer),
        cmocka_unit_test(a_part_of_a_file_does_not_grow),
        cmocka_unit_test(failed_write_is_aborted_and_leaves_the_old_data),
        cmocka_unit_test(failed_commit_is_not_aborted),
        cmocka_unit_test(retired_places_are_used_when_nothing_else_is_left),
        cmocka_unit_test(no_space_is_said_when_there_is_none),
        cmocka_unit_test(compressed_writes_need_a_driver_that_encodes),
    };

    return cmocka_run_group_tests(tests, setup, blockgraph_group_teardown);
}
