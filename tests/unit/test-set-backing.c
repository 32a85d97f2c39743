/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The backing file of a live chain: another one, none, one again; what may not be one;
 * and the reference in the image's header.
 */
#include "driver-testing.h"
#include "toy-format.h"

/* ---- A header that notes its reference -------------------------------------------------- */

static char *header_name, *header_format;
static bool header_fails;

static bool toy_change_backing_file(BlockDriverState *bs, const char *filename,
                                    const char *format, GError **errp)
{
    if (header_fails) {
        block_error_set(errp, EIO, "the header cannot be written");
        return false;
    }
    g_free(header_name);
    g_free(header_format);
    header_name = g_strdup(filename);
    header_format = g_strdup(format);
    return true;
}

static BlockDriver header_toy;

/* ---- Helpers ---------------------------------------------------------------------------- */

static BlockDriverState *pattern_node(const char *name, int byte)
{
    g_autofree char *text = g_strdup_printf("driver=memory,size=16k,node-name=%s", name);
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    BlockBackend *blk = blk_new(NULL, BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    g_autofree uint8_t *buf = g_malloc(16 * 1024);

    memset(buf, byte, 16 * 1024);
    assert_true(blk_insert_bs(blk, bs, NULL));
    assert_int_equal(blk_pwrite(blk, 0, 16 * 1024, buf, 0), 0);
    blk_unref(blk);
    return bs;
}

/* A toy over memory; a reference for the caller. */
static BlockDriverState *toy_node(const char *name, const char *backing)
{
    g_autofree char *text = g_strdup_printf("driver=toy,node-name=%s,file.driver=memory,"
                                            "file.size=64k%s%s", name,
                                            backing ? ",backing=" : "", backing ? backing : "");

    return open_node_with(text, BDRV_O_RDWR | BDRV_O_UNMAP);
}

static BlockBackend *blk_on(BlockDriverState *bs)
{
    BlockBackend *blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL,
                                NULL);

    assert_true(blk_insert_bs(blk, bs, NULL));
    return blk;
}

static void assert_byte(BlockBackend *blk, int64_t offset, int byte)
{
    uint8_t buf[TOY_UNIT], expected[TOY_UNIT];

    memset(expected, byte, sizeof(expected));
    assert_int_equal(blk_pread(blk, offset, sizeof(buf), buf, 0), 0);
    assert_memory_equal(buf, expected, sizeof(buf));
}

static void assert_set(BlockDriverState *bs, BlockDriverState *backing)
{
    GError *err = NULL;
    bool ok = bdrv_set_backing(bs, backing, &err);

    assert_ok(ok, err);
}

static void assert_not_set(BlockDriverState *bs, BlockDriverState *backing, const char *part)
{
    GError *err = NULL;

    assert_false(bdrv_set_backing(bs, backing, &err));
    assert_error_has(&err, part);
}

/* ---- Tests ------------------------------------------------------------------------------ */

static void what_the_overlay_does_not_have_comes_from_the_new_one_at_once(void **state)
{
    BlockDriverState *a = pattern_node("a", 'a'), *b = pattern_node("b", 'b');
    BlockDriverState *middle = toy_node("middle", "a"), *top = toy_node("top", "middle");
    BlockBackend *blk = blk_on(top);
    uint8_t own[TOY_UNIT];

    memset(own, 'o', sizeof(own));
    assert_int_equal(blk_pwrite(blk, TOY_UNIT, sizeof(own), own, 0), 0);
    assert_byte(blk, 0, 'a'); /* cached in both toys */
    assert_set(middle, b);
    assert_byte(blk, 0, 'b');
    assert_byte(blk, TOY_UNIT, 'o');
    assert_set(middle, NULL);
    assert_byte(blk, 0, 0);
    assert_set(top, a);
    assert_byte(blk, 0, 'a');
    assert_set(top, NULL);
    assert_byte(blk, 0, 0);
    assert_byte(blk, TOY_UNIT, 'o');
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    blk_unref(blk);
    bdrv_unref(top);
    bdrv_unref(middle);
    bdrv_unref(a);
    bdrv_unref(b);
}

/* A request that is on its way holds the change up; its answer is of one chain. */
typedef struct Reader {
    BlockBackend *blk;
    uint8_t buf[TOY_UNIT];
    bool done;
} Reader;

static void coroutine_fn read_one(void *opaque)
{
    Reader *r = opaque;

    assert_int_equal(blk_co_pread(r->blk, 0, sizeof(r->buf), r->buf, 0), 0);
    r->done = true;
}

static void coroutine_fn pause_a_while(void)
{
    co_sleep_ns(1000 * 1000);
}

static void request_in_flight_ends_before_the_change(void **state)
{
    BlockDriverState *a = pattern_node("a", 'a'), *b = pattern_node("b", 'b');
    BlockDriverState *top = toy_node("top", "a");
    Reader r = {.blk = blk_on(top)};

    ((ToyFormat *)bdrv_state(top))->pause = pause_a_while;
    coroutine_enter(coroutine_create(read_one, &r));
    assert_false(r.done);
    assert_set(top, b);
    assert_true(r.done);
    assert_int_equal(r.buf[0], 'a');
    ((ToyFormat *)bdrv_state(top))->pause = NULL;
    assert_byte(r.blk, 0, 'b');
    blk_unref(r.blk);
    bdrv_unref(top);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void node_that_leads_back_is_refused(void **state)
{
    BlockDriverState *base = toy_node("base", NULL), *top = toy_node("top", "base");

    assert_not_set(base, top, "would create a cycle");
    assert_not_set(base, base, "would create a cycle");
    bdrv_unref(top);
    bdrv_unref(base);
}

static BlockDriverState *toy_on_file(const char *name, const char *path)
{
    g_autofree char *text = g_strdup_printf("driver=toy,node-name=%s,file.driver=file,"
                                            "file.filename=%s,file.locking=off", name, path);

    return open_node_with(text, 0);
}

static void file_that_comes_back_under_another_name_is_refused(void **state)
{
    g_autofree char *path = make_file("image", NULL, 64 * 1024), *hard = test_path("hard");
    g_autofree char *other_path = make_file("other", NULL, 64 * 1024);
    BlockDriverState *top, *again, *middle, *other;

    assert_int_equal(link(path, hard), 0);
    top = toy_on_file("top", path);
    again = toy_on_file("again", hard);
    middle = toy_on_file("middle", other_path);
    other = toy_on_file("other", other_path);
    assert_not_set(top, again, "both lead to the file");
    assert_set(middle, again);
    assert_not_set(top, middle, "both lead to the file");
    assert_set(middle, NULL);
    assert_set(top, middle);
    assert_not_set(middle, again, "both lead to the file"); /* top's, further up */
    assert_set(top, other); /* the one that goes does not count */
    bdrv_unref(top);
    bdrv_unref(again);
    bdrv_unref(middle);
    bdrv_unref(other);
}

static void chain_may_not_become_deeper_than_the_bound(void **state)
{
    const int half = BDRV_MAX_DEPTH / 2;
    BlockDriverState *low[BDRV_MAX_DEPTH / 2], *high[BDRV_MAX_DEPTH / 2 + 1];

    for (int i = 0; i < half; i++) {
        g_autofree char *name = g_strdup_printf("low%d", i), *below = g_strdup_printf("low%d",
                                                                                      i - 1);

        low[i] = toy_node(name, i ? below : NULL);
    }
    for (int i = 0; i <= half; i++) {
        g_autofree char *name = g_strdup_printf("high%d", i), *below = g_strdup_printf("high%d",
                                                                                       i - 1);

        high[i] = toy_node(name, i ? below : NULL);
    }
    assert_not_set(high[0], low[half - 1], "deeper than 256");
    assert_set(high[0], low[half - 2]);
    assert_set(high[1], low[half - 1]); /* one less above, one more below */
    for (int i = half; i >= 0; i--) {
        bdrv_unref(high[i]);
    }
    for (int i = half - 1; i >= 0; i--) {
        bdrv_unref(low[i]);
    }
}

static void change_that_fails_in_the_middle_takes_the_others_back(void **state)
{
    BlockDriverState *a = pattern_node("a", 'a'), *b = pattern_node("b", 'b');
    BlockDriverState *one = toy_node("one", "a"), *two = toy_node("two", "one");
    BdrvTransaction *tran = bdrv_transaction_new();
    BlockBackend *blk = blk_on(two);
    GError *err = NULL;

    bdrv_transaction_set_backing(tran, one, b);
    bdrv_transaction_set_backing(tran, one, two);
    assert_false(bdrv_transaction_commit(tran, &err));
    assert_error_has(&err, "cycle");
    assert_byte(blk, 0, 'a');
    blk_unref(blk);
    bdrv_unref(two);
    bdrv_unref(one);
    bdrv_unref(a);
    bdrv_unref(b);
}

/* ---- The header ------------------------------------------------------------------------- */

static void assert_header_unchanged(BlockDriverState *bs, const char *name, const char *format,
                                    const char *part)
{
    g_autofree char *old = g_strdup(bdrv_get_backing_filename(bs));
    GError *err = NULL;

    assert_false(bdrv_change_backing_file(bs, name, format, &err));
    assert_error_has(&err, part);
    assert_string_equal(bdrv_get_backing_filename(bs), old);
}

static void reference_is_written_and_known_and_taken_out(void **state)
{
    BlockDriverState *bs = toy_node("image", NULL);

    assert_true(bdrv_change_backing_file(bs, "base.img", "raw", NULL));
    assert_string_equal(header_name, "base.img");
    assert_string_equal(header_format, "raw");
    assert_string_equal(bdrv_get_backing_filename(bs), "base.img");
    assert_string_equal(bdrv_get_backing_format(bs), "raw");
    assert_true(bdrv_change_backing_file(bs, "base2.img", "", NULL));
    assert_null(header_format);
    assert_header_unchanged(bs, NULL, "raw", "without a backing file");
    header_fails = true;
    assert_header_unchanged(bs, "base3.img", "raw", "cannot be written");
    header_fails = false;
    assert_true(bdrv_change_backing_file(bs, NULL, NULL, NULL));
    assert_null(header_name);
    assert_string_equal(bdrv_get_backing_filename(bs), "");
    bdrv_unref(bs);
}

static void read_only_images_and_formats_without_a_header_are_refused(void **state)
{
    BlockDriverState *bs = open_node_with("driver=toy,file.driver=memory,file.size=64k", 0);
    BlockDriverState *raw = open_node_with("driver=raw,file.driver=memory,file.size=64k",
                                           BDRV_O_RDWR);

    assert_header_unchanged(bs, "base.img", "raw", "read-only");
    assert_header_unchanged(raw, "base.img", "raw", "cannot change the backing file");
    bdrv_unref(bs);
    bdrv_unref(raw);
}

static void reference_that_could_not_be_flushed_is_an_error(void **state)
{
    BlockDriverState *bs = open_node_with("driver=toy,file.driver=blkdebug,"
                                          "file.image.driver=memory,file.image.size=64k,"
                                          "file.inject-error.0.event=flush_to_disk,"
                                          "file.inject-error.0.errno=28,"
                                          "file.inject-error.0.once=on", BDRV_O_RDWR);
    GError *err = NULL;

    assert_false(bdrv_change_backing_file(bs, "base.img", "raw", &err));
    assert_error_has(&err, "No space left");
    assert_true(bdrv_change_backing_file(bs, "base.img", "raw", NULL));
    bdrv_unref(bs);
}

static int setup(void **state)
{
    header_toy = toy_driver;
    header_toy.bdrv_change_backing_file = toy_change_backing_file;
    return driver_group_setup(state) < 0 || !bdrv_register(&header_toy, NULL) ? -1 : 0;
}

static int teardown(void **state)
{
    g_free(header_name);
    g_free(header_format);
    return driver_group_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_overlay_does_not_have_comes_from_the_new_one_at_once),
        cmocka_unit_test(request_in_flight_ends_before_the_change),
        cmocka_unit_test(node_that_leads_back_is_refused),
        cmocka_unit_test(file_that_comes_back_under_another_name_is_refused),
        cmocka_unit_test(chain_may_not_become_deeper_than_the_bound),
        cmocka_unit_test(change_that_fails_in_the_middle_takes_the_others_back),
        cmocka_unit_test(reference_is_written_and_known_and_taken_out),
        cmocka_unit_test(read_only_images_and_formats_without_a_header_are_refused),
        cmocka_unit_test(reference_that_could_not_be_flushed_is_an_error),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
