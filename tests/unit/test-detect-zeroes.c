/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * detect-zeroes: what becomes of writes of zeros at a protocol, at a format, and at
 * a node in between.
 */
#include "toy-format.h"

#define SIZE (64 * 1024)

/* ---- A disk that notes what it is asked for ------------------------------------------ */

typedef struct NoteDisk {
    int writes, zeroes;
    int64_t offset, bytes; /* of the last one */
    int flags;
} NoteDisk;

static bool note_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, SIZE);
    return true;
}

static int coroutine_fn note_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    io_vector_memset(iov, 0, 0xff, bytes);
    return 0;
}

static int coroutine_fn note_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    NoteDisk *d = bdrv_state(bs);

    d->writes++;
    d->offset = offset;
    d->bytes = bytes;
    d->flags = flags;
    return 0;
}

static int coroutine_fn note_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           int flags)
{
    NoteDisk *d = bdrv_state(bs);

    d->zeroes++;
    d->offset = offset;
    d->bytes = bytes;
    d->flags = flags;
    return 0;
}

static BlockDriver note_driver = {
    .format_name = "note-disk",
    .instance_size = sizeof(NoteDisk),
    .bdrv_open = note_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_co_preadv = note_preadv,
    .bdrv_co_pwritev = note_pwritev,
    .bdrv_co_pwrite_zeroes = note_pwrite_zeroes,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP,
};

/* A backend on the node that @text opens. */
static BlockBackend *blk_on(const char *text)
{
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    BlockBackend *blk = blk_new(NULL, BLK_PERM_ALL, BLK_PERM_ALL, NULL);

    assert_true(blk_insert_bs(blk, bs, NULL));
    bdrv_unref(bs);
    return blk;
}

static NoteDisk *disk_of(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    bdrv_graph_rdlock_main_loop();
    while (!bdrv_is_protocol(bs)) {
        bs = bdrv_child_bs(bdrv_file_child(bs));
    }
    bdrv_graph_rdunlock_main_loop();
    return bdrv_state(bs);
}

/* Write @bytes, all zero but for the byte at @other if that is >= 0. */
static void write_zeros(BlockBackend *blk, int64_t bytes, int64_t other, int flags)
{
    g_autofree uint8_t *buf = g_malloc0(bytes);

    if (other >= 0) {
        buf[other] = 1;
    }
    assert_int_equal(blk_pwrite(blk, 1024, bytes, buf, flags), 0);
}

static void assert_seen(const NoteDisk *d, int writes, int zeroes, int flags)
{
    assert_int_equal(d->writes, writes);
    assert_int_equal(d->zeroes, zeroes);
    assert_int_equal(d->offset, 1024);
    assert_int_equal(d->bytes, 4096);
    assert_int_equal(d->flags, flags);
}

static void zeros_are_data_unless_asked_for(void **state)
{
    BlockBackend *blk = blk_on("driver=note-disk");

    assert_int_equal(bdrv_get_detect_zeroes(blk_bs(blk)), BDRV_DETECT_ZEROES_OFF);
    write_zeros(blk, 4096, -1, 0);
    assert_seen(disk_of(blk), 1, 0, 0);
    blk_unref(blk);
}

static void write_of_zeros_zeroes_without_unmapping_and_keeps_its_flags(void **state)
{
    BlockBackend *blk = blk_on("driver=note-disk,detect-zeroes=on,discard=unmap");

    assert_int_equal(bdrv_get_detect_zeroes(blk_bs(blk)), BDRV_DETECT_ZEROES_ON);
    write_zeros(blk, 4096, -1, BDRV_REQ_FUA);
    assert_seen(disk_of(blk), 0, 1, BDRV_REQ_FUA);
    blk_unref(blk);
}

static void unmap_lets_it_deallocate(void **state)
{
    BlockBackend *blk = blk_on("driver=note-disk,detect-zeroes=unmap,discard=unmap");

    write_zeros(blk, 4096, -1, 0);
    assert_seen(disk_of(blk), 0, 1, BDRV_REQ_MAY_UNMAP);
    blk_unref(blk);
}

static void one_other_byte_makes_it_data(void **state)
{
    BlockBackend *blk = blk_on("driver=note-disk,detect-zeroes=on");

    write_zeros(blk, 4096, 0, 0);
    write_zeros(blk, 4096, 2047, 0);
    write_zeros(blk, 4096, 4095, 0);
    assert_seen(disk_of(blk), 3, 0, 0);
    blk_unref(blk);
}

static void every_piece_of_a_vector_is_looked_at(void **state)
{
    BlockBackend *blk = blk_on("driver=note-disk,detect-zeroes=on");
    uint8_t zeros[1536] = {0}, last[1024] = {0};
    IOVector iov;

    io_vector_init(&iov, 3);
    io_vector_add(&iov, zeros, 1536);
    io_vector_add(&iov, zeros, 1536);
    io_vector_add(&iov, last, 1024);
    assert_int_equal(blk_pwritev(blk, 1024, iov.size, &iov, 0), 0);
    assert_seen(disk_of(blk), 0, 1, 0);
    last[1023] = 1;
    assert_int_equal(blk_pwritev(blk, 1024, iov.size, &iov, 0), 0);
    assert_seen(disk_of(blk), 1, 1, 0);
    io_vector_destroy(&iov);
    blk_unref(blk);
}

static void the_node_with_the_option_decides_for_what_is_below(void **state)
{
    BlockBackend *above = blk_on("driver=raw,detect-zeroes=on,file.driver=note-disk");
    BlockBackend *below = blk_on("driver=raw,file.driver=note-disk,file.detect-zeroes=on");

    write_zeros(above, 4096, -1, 0);
    assert_seen(disk_of(above), 0, 1, 0);
    write_zeros(below, 4096, -1, 0);
    assert_seen(disk_of(below), 0, 1, 0);
    blk_unref(above);
    blk_unref(below);
}

static void format_zeroes_by_its_table(void **state)
{
    BlockBackend *blk = blk_on("driver=toy,detect-zeroes=on,file.driver=note-disk");
    ToyFormat *t = bdrv_state(blk_bs(blk));

    write_zeros(blk, 3 * TOY_UNIT, 1, 0);
    assert_true(t->table[1] > 0 && t->table[3] > 0);
    write_zeros(blk, 3 * TOY_UNIT, -1, 0);
    assert_int_equal(disk_of(blk)->writes, 1);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(t->table[i], TOY_ZERO);
    }
    blk_unref(blk);
}

static void compressed_writes_are_left_alone(void **state)
{
    BlockBackend *blk = blk_on("driver=note-disk,detect-zeroes=on");
    uint8_t zeros[512] = {0};

    assert_int_equal(blk_pwrite(blk, 0, 512, zeros, BDRV_REQ_COMPRESSED), -ENOTSUP);
    assert_int_equal(disk_of(blk)->zeroes, 0);
    blk_unref(blk);
    blk = blk_on("driver=toy,detect-zeroes=on,file.driver=note-disk"); /* it cannot encode */
    assert_int_equal(blk_pwrite(blk, 0, 512, zeros, BDRV_REQ_COMPRESSED), -ENOTSUP);
    assert_int_equal(((ToyFormat *)bdrv_state(blk_bs(blk)))->table[0], TOY_NONE);
    blk_unref(blk);
}

static void assert_refused(const char *text, const char *part)
{
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, NULL);
    GError *err = NULL;

    assert_null(bdrv_open(NULL, options, BDRV_O_RDWR, NULL, &err));
    assert_error_has(&err, part);
}

static void unmap_without_discard_and_other_words_are_refused(void **state)
{
    assert_refused("driver=note-disk,detect-zeroes=unmap",
                   "setting detect-zeroes to unmap is not allowed without setting discard "
                   "operation to unmap");
    assert_refused("driver=note-disk,detect-zeroes=unmap,discard=ignore",
                   "setting detect-zeroes to unmap is not allowed");
    assert_refused("driver=note-disk,detect-zeroes=perhaps", "perhaps");
}

static void reopening_changes_it(void **state)
{
    BlockBackend *blk = blk_on("driver=note-disk");
    g_autoptr(JsonObject) on = block_options_parse("detect-zeroes=on", NULL, NULL);
    g_autoptr(JsonObject) unmap = block_options_parse("detect-zeroes=unmap", NULL, NULL);
    GError *err = NULL;

    assert_ok(bdrv_reopen(blk_bs(blk), on, &err), err);
    write_zeros(blk, 4096, -1, 0);
    assert_seen(disk_of(blk), 0, 1, 0);
    assert_false(bdrv_reopen(blk_bs(blk), unmap, &err));
    assert_error_has(&err, "setting detect-zeroes to unmap is not allowed");
    assert_int_equal(bdrv_get_detect_zeroes(blk_bs(blk)), BDRV_DETECT_ZEROES_ON);
    blk_unref(blk);
}

static int setup(void **state)
{
    return blockgraph_group_setup(state) < 0 || !bdrv_register(&note_driver, NULL) ||
                   !bdrv_register(&toy_driver, NULL)
               ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros_are_data_unless_asked_for),
        cmocka_unit_test(write_of_zeros_zeroes_without_unmapping_and_keeps_its_flags),
        cmocka_unit_test(unmap_lets_it_deallocate),
        cmocka_unit_test(one_other_byte_makes_it_data),
        cmocka_unit_test(every_piece_of_a_vector_is_looked_at),
        cmocka_unit_test(the_node_with_the_option_decides_for_what_is_below),
        cmocka_unit_test(format_zeroes_by_its_table),
        cmocka_unit_test(compressed_writes_are_left_alone),
        cmocka_unit_test(unmap_without_discard_and_other_words_are_refused),
        cmocka_unit_test(reopening_changes_it),
    };

    return cmocka_run_group_tests(tests, setup, blockgraph_group_teardown);
}
