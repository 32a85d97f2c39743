/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One throttle group under nodes of three threads, whose requests wait for each other's,
 * while the main thread changes the limits, drains nodes, moves one to another group and
 * closes another: every request ends. Meant for TSan as well.
 */
#include "block-testing.h"

#define THREADS 3
#define COROUTINES 6
#define REQUESTS 60
#define CHANGES 40

typedef struct Load {
    BlockDriverState *node;
    BlockBackend *blk;
    AioThread *thread;
    int requests; /* each coroutine's */
} Load;

static int running; /* atomic: coroutines */
static int done;    /* atomic: requests */

static void coroutine_fn guest(void *opaque)
{
    Load *load = opaque;
    uint8_t buf[1024] = {0};

    for (int i = 0; i < load->requests; i++) {
        int ret = i % 2 ? blk_co_pwrite(load->blk, 0, sizeof(buf), buf, 0)
                        : blk_co_pread(load->blk, 0, sizeof(buf), buf, 0);

        assert_int_equal(ret, 0);
        __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

static void start_guests(void *opaque)
{
    for (int i = 0; i < COROUTINES; i++) {
        coroutine_enter(coroutine_create(guest, opaque));
    }
}

static void set_rate(uint64_t iops, uint64_t bps, bool create)
{
    ThrottleConfig config;

    throttle_config_init(&config);
    config.limits[THROTTLE_IOPS_TOTAL].avg = iops;
    config.limits[THROTTLE_BPS_READ].avg = bps;
    config.iops_size = iops ? 512 : 0;
    assert_true(create ? throttle_group_create("g", &config, NULL)
                       : throttle_group_set_config("g", &config, NULL));
}

static void load_start(Load *load, int requests)
{
    load->node = open_node_with("driver=throttle,throttle-group=g,file.driver=null-co,"
                                "file.size=1M", BDRV_O_RDWR);
    load->blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    assert_true(blk_insert_bs(load->blk, load->node, NULL));
    load->thread = aio_thread_new("guest", AIO_ENGINE_DEFAULT, NULL);
    assert_non_null(load->thread);
    load->requests = requests;
    aio_bh_oneshot(aio_thread_get_context(load->thread), start_guests, load);
}

static void load_stop(Load *load)
{
    aio_thread_stop(load->thread);
    blk_unref(load->blk);
    bdrv_unref(load->node);
}

static void one_change(Load *loads, int i)
{
    g_autoptr(JsonObject) to_g = block_options_parse("throttle-group=g", NULL, NULL);
    g_autoptr(JsonObject) to_h = block_options_parse("throttle-group=h", NULL, NULL);
    BlockDriverState *node = loads[i % THREADS].node;

    switch (i % 5) {
    case 0:
        set_rate(1 + 200000 / (i + 1), 0, false);
        break;
    case 1:
        bdrv_drained_begin(node);
        bdrv_drained_end(node);
        break;
    case 2:
        assert_true(bdrv_reopen(node, i % 2 ? to_g : to_h, NULL));
        break;
    case 3:
        set_rate(i % 2 ? 0 : 10000, 50000000, false);
        break;
    default:
        bdrv_drain_all_begin();
        bdrv_drain_all_end();
        break;
    }
}

static void every_request_ends(void **state)
{
    Load loads[THREADS] = {0};
    ThrottleConfig none;

    throttle_config_init(&none);
    assert_true(throttle_group_create("h", &none, NULL));
    set_rate(100, 0, true);
    running = THREADS * COROUTINES;
    for (int i = 0; i < THREADS; i++) {
        load_start(&loads[i], REQUESTS);
    }
    for (int i = 0; i < CHANGES; i++) {
        one_change(loads, i);
        aio_poll(aio_context_main(), false);
    }
    set_rate(0, 0, false);
    AIO_WAIT_WHILE(__atomic_load_n(&running, __ATOMIC_SEQ_CST) > 0);
    assert_int_equal(done, THREADS * COROUTINES * REQUESTS);
    for (int i = 0; i < THREADS; i++) {
        load_stop(&loads[i]);
    }
    assert_true(throttle_group_delete("g", NULL) && throttle_group_delete("h", NULL));
}

/* Left alone: only timers move it on. */
static void turns_go_round_between_threads(void **state)
{
    Load loads[THREADS] = {0};

    set_rate(100000, 0, true); /* of 512 bytes: 200 milliseconds */
    done = 0;
    running = THREADS * COROUTINES;
    for (int i = 0; i < THREADS; i++) {
        load_start(&loads[i], 10000 / THREADS / COROUTINES);
    }
    AIO_WAIT_WHILE(__atomic_load_n(&running, __ATOMIC_SEQ_CST) > 0);
    for (int i = 0; i < THREADS; i++) {
        load_stop(&loads[i]);
    }
    assert_true(throttle_group_delete("g", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_request_ends),
        cmocka_unit_test(turns_go_round_between_threads),
    };

    return cmocka_run_group_tests(tests, blockgraph_group_setup, blockgraph_group_teardown);
}
