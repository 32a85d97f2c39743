/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write thresholds: who is told, when, how often, and when no longer.
 */
#include "toy-format.h"

typedef struct Told {
    int times;
    BlockDriverState *bs;
    int64_t exceeded, threshold;
    int64_t next; /* to be set from the call; 0: none */
} Told;

static void tell(void *opaque, BlockDriverState *bs, int64_t exceeded, int64_t threshold)
{
    Told *told = opaque;

    assert_true(aio_context_current() == aio_context_main());
    told->times++;
    told->bs = bs;
    told->exceeded = exceeded;
    told->threshold = threshold;
    if (told->next) {
        bdrv_write_threshold_set(bs, told->next, tell, told);
        told->next = 0;
    }
}

static BlockBackend *blk_on(const char *text)
{
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR | BDRV_O_UNMAP);
    BlockBackend *blk = blk_new(NULL, BLK_PERM_ALL, BLK_PERM_ALL, NULL);

    assert_true(blk_insert_bs(blk, bs, NULL));
    bdrv_unref(bs);
    return blk;
}

/* Let all that is scheduled run. */
static void run_callbacks(void)
{
    while (aio_poll(aio_context_main(), false)) {
    }
}

static void write_bytes(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, 1, bytes);
    assert_int_equal(blk_pwrite(blk, offset, bytes, buf, 0), 0);
}

static void first_write_beyond_it_is_told_once(void **state)
{
    BlockBackend *blk = blk_on("driver=memory,size=64k");
    Told told = {0};

    assert_int_equal(bdrv_write_threshold_get(blk_bs(blk)), 0);
    bdrv_write_threshold_set(blk_bs(blk), 8192, tell, &told);
    assert_int_equal(bdrv_write_threshold_get(blk_bs(blk)), 8192);
    write_bytes(blk, 0, 4096);
    write_bytes(blk, 4096, 4096); /* ends at it */
    run_callbacks();
    assert_int_equal(told.times, 0);
    write_bytes(blk, 8000, 512);
    run_callbacks();
    assert_int_equal(told.times, 1);
    assert_ptr_equal(told.bs, blk_bs(blk));
    assert_int_equal(told.exceeded, 8512 - 8192);
    assert_int_equal(told.threshold, 8192);
    assert_int_equal(bdrv_write_threshold_get(blk_bs(blk)), 0);
    write_bytes(blk, 16384, 512);
    run_callbacks();
    assert_int_equal(told.times, 1);
    blk_unref(blk);
}

static void zeroing_counts_reading_and_discarding_do_not(void **state)
{
    BlockBackend *blk = blk_on("driver=memory,size=64k");
    Told told = {0};
    uint8_t buf[512];

    bdrv_write_threshold_set(blk_bs(blk), 512, tell, &told);
    assert_int_equal(blk_pread(blk, 4096, 512, buf, 0), 0);
    assert_int_equal(blk_pdiscard(blk, 4096, 4096), 0);
    run_callbacks();
    assert_int_equal(told.times, 0);
    assert_int_equal(blk_pwrite_zeroes(blk, 4096, 4096, 0), 0);
    run_callbacks();
    assert_int_equal(told.times, 1);
    assert_int_equal(told.exceeded, 8192 - 512);
    blk_unref(blk);
}

static void what_was_taken_back_is_not_told(void **state)
{
    BlockBackend *blk = blk_on("driver=memory,size=64k");
    Told first = {0}, second = {0};

    bdrv_write_threshold_set(blk_bs(blk), 512, tell, &first);
    bdrv_write_threshold_set(blk_bs(blk), 0, NULL, NULL);
    write_bytes(blk, 1024, 512);
    run_callbacks();
    assert_int_equal(first.times, 0);
    bdrv_write_threshold_set(blk_bs(blk), 512, tell, &first);
    bdrv_write_threshold_set(blk_bs(blk), 2048, tell, &second);
    write_bytes(blk, 1024, 512);
    run_callbacks();
    write_bytes(blk, 2048, 512);
    run_callbacks();
    assert_int_equal(first.times, 0);
    assert_int_equal(second.times, 1);
    blk_unref(blk);
}

typedef struct Pending {
    BlockBackend *blk;
    int left;
} Pending;

static void count_down(void *opaque, int ret)
{
    assert_int_equal(ret, 0);
    ((Pending *)opaque)->left--;
}

static void of_many_requests_at_once_one_is_told(void **state)
{
    BlockBackend *blk = blk_on("driver=null-aio,size=1M");
    Pending pending = {blk, 8};
    uint8_t buf[512] = {1};
    IOVector iov[8];
    Told told = {0};

    bdrv_write_threshold_set(blk_bs(blk), 512, tell, &told);
    for (int i = 0; i < 8; i++) {
        io_vector_init_buf(&iov[i], buf, sizeof(buf));
        blk_aio_pwritev(blk, 4096 * (i + 1), &iov[i], 0, count_down, &pending);
    }
    while (pending.left > 0) {
        aio_poll(aio_context_main(), true);
    }
    run_callbacks();
    assert_int_equal(told.times, 1);
    blk_unref(blk);
}

/* Runs before the call that the write has scheduled: closes the node. */
static void close_node(void *opaque)
{
    blk_unref(opaque);
}

/* A write in a coroutine of the main thread: its call is made after we return. */
static void coroutine_fn write_beyond(void *opaque)
{
    Pending *pending = opaque;
    uint8_t buf[512] = {1};

    assert_int_equal(blk_co_pwrite(pending->blk, 4096, 512, buf, 0), 0);
    pending->left = 0;
}

static void a_closed_node_is_not_told_of(void **state)
{
    Pending pending = {blk_on("driver=memory,size=64k"), 1};
    Told told = {0};

    bdrv_write_threshold_set(blk_bs(pending.blk), 512, tell, &told);
    aio_bh_oneshot(aio_context_main(), close_node, pending.blk);
    coroutine_enter(coroutine_create(write_beyond, &pending));
    assert_int_equal(pending.left, 0); /* memory completes at once */
    run_callbacks();
    assert_int_equal(told.times, 0);
}

static void the_call_may_set_the_next_one(void **state)
{
    BlockBackend *blk = blk_on("driver=memory,size=64k");
    Told told = {.next = 4096};

    bdrv_write_threshold_set(blk_bs(blk), 512, tell, &told);
    write_bytes(blk, 1024, 512);
    run_callbacks();
    assert_int_equal(bdrv_write_threshold_get(blk_bs(blk)), 4096);
    write_bytes(blk, 2048, 512);
    run_callbacks();
    assert_int_equal(told.times, 1);
    write_bytes(blk, 4096, 512);
    run_callbacks();
    assert_int_equal(told.times, 2);
    assert_int_equal(told.threshold, 4096);
    blk_unref(blk);
}

static void in_the_file_of_a_format_its_places_count(void **state)
{
    BlockBackend *blk = blk_on("driver=toy,file.driver=memory,file.size=64k,"
                               "file.node-name=below");
    BlockDriverState *file = bdrv_find_node("below");
    Told told = {0};

    bdrv_write_threshold_set(file, 2 * TOY_UNIT, tell, &told);
    write_bytes(blk, 15 * TOY_UNIT, 1024); /* to slot 0 */
    write_bytes(blk, 3 * TOY_UNIT, 1024);
    run_callbacks();
    assert_int_equal(told.times, 0);
    write_bytes(blk, 0, 1024);
    run_callbacks();
    assert_int_equal(told.times, 1);
    assert_ptr_equal(told.bs, file);
    assert_int_equal(told.exceeded, TOY_UNIT);
    blk_unref(blk);
}

static int setup(void **state)
{
    return blockgraph_group_setup(state) < 0 || !bdrv_register(&toy_driver, NULL) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_write_beyond_it_is_told_once),
        cmocka_unit_test(zeroing_counts_reading_and_discarding_do_not),
        cmocka_unit_test(what_was_taken_back_is_not_told),
        cmocka_unit_test(of_many_requests_at_once_one_is_told),
        cmocka_unit_test(a_closed_node_is_not_told_of),
        cmocka_unit_test(the_call_may_set_the_next_one),
        cmocka_unit_test(in_the_file_of_a_format_its_places_count),
    };

    return cmocka_run_group_tests(tests, setup, blockgraph_group_teardown);
}
