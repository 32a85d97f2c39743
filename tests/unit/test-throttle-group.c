/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Throttled nodes in a simulated world, where a request of a null node takes no time: what
 * passes on the clock is what the throttle makes it. Each test runs under several seeds,
 * with its guests on simulated threads of their own.
 */
#include "block-testing.h"
#include "util/sim.h"

#define SECOND INT64_C(1000000000)
#define SEEDS 20
#define NODES 3
#define MAX_REQUESTS 100

/* Sends requests all at once, each from a coroutine, and notes when they are over. */
typedef struct Guest {
    BlockBackend *blk;
    bool is_write;
    int requests;
    int64_t bytes; /* of each */
    int done;
    int64_t times[MAX_REQUESTS]; /* in order of completion */
} Guest;

typedef struct Scene {
    SimWorld *world;
    AioContext *contexts[NODES];
    BlockDriverState *nodes[NODES];
    BlockBackend *blks[NODES];
    Guest guests[NODES];
    int order[NODES * MAX_REQUESTS]; /* which guest's requests were over, one after another */
    int all_done;
    int wanted; /* all_done to run until */
} Scene;

static Scene *scene;

/* The least t (ns, >= 0) with @amount - @rate * t / 10^9 <= @size / 10. */
static int64_t leaks_until(int64_t amount, int64_t size_in_tenths, int64_t rate)
{
    int64_t extra = amount * 10 - size_in_tenths;

    return extra <= 0 ? 0 : (extra * SECOND + 10 * rate - 1) / (10 * rate);
}

/* ---- Groups, nodes, guests ------------------------------------------------------------ */

static ThrottleConfig config_of(const char *text)
{
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, NULL);
    ThrottleConfig config;
    GError *err = NULL;

    throttle_config_init(&config);
    assert_ok(throttle_config_take(&config, options, &err), err);
    return config;
}

static void make_group(const char *id, const char *limits)
{
    ThrottleConfig config = config_of(limits);
    GError *err = NULL;

    assert_ok(throttle_group_create(id, &config, &err), err);
}

static void change_group(const char *id, const char *limits)
{
    ThrottleConfig config = config_of(limits), now;
    GError *err = NULL;

    assert_ok(throttle_group_set_config(id, &config, &err), err);
    assert_ok(throttle_group_get_config(id, &now, &err), err);
    assert_memory_equal(&now, &config, sizeof(now));
}

static BlockDriverState *open_throttled(const char *options)
{
    g_autofree char *text = g_strdup_printf("driver=throttle,file.driver=null-co,file.size=1M,%s",
                                            options);

    return open_node_with(text, BDRV_O_RDWR | BDRV_O_UNMAP);
}

static void coroutine_fn send_request(void *opaque)
{
    Guest *g = opaque;
    uint8_t *buf = g_malloc0(g->bytes);

    assert_int_equal(g->is_write ? blk_co_pwrite(g->blk, 0, g->bytes, buf, 0)
                                 : blk_co_pread(g->blk, 0, g->bytes, buf, 0), 0);
    g_free(buf);
    g->times[g->done++] = sim_world_now(scene->world);
    scene->order[scene->all_done++] = g - scene->guests;
    aio_wait_kick();
}

static void start_guest(void *opaque)
{
    Guest *g = opaque;

    for (int i = 0; i < g->requests; i++) {
        coroutine_enter(coroutine_create(send_request, g));
    }
}

/* Guest @i sends to node @i, on thread @i. */
static void start(int i, bool is_write, int requests, int64_t bytes)
{
    Guest *g = &scene->guests[i];

    *g = (Guest){scene->blks[i], is_write, requests, bytes};
    aio_bh_oneshot(scene->contexts[i], start_guest, g);
}

static bool as_many_as_wanted(void *opaque)
{
    return scene->all_done >= scene->wanted;
}

static void run_until_done(int count)
{
    scene->wanted = count;
    assert_true(sim_world_run_until(scene->world, as_many_as_wanted, NULL));
}

static void set_flag(void *opaque)
{
    *(bool *)opaque = true;
}

static bool is_flag_set(void *opaque)
{
    return *(bool *)opaque;
}

/* Until all have come as far as they can without waiting for the clock, and a nanosecond. */
static void settle(void)
{
    bool settled = false;
    AioTimer *timer = aio_timer_new(aio_context_main(), set_flag, &settled);

    aio_timer_mod(timer, sim_world_now(scene->world) + 1);
    assert_true(sim_world_run_until(scene->world, is_flag_set, &settled));
    aio_timer_free(timer);
}

static void set_up(SimWorld *world, const char *limits)
{
    scene = g_new0(Scene, 1);
    scene->world = world;
    sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    make_group("g", limits);
    for (int i = 0; i < NODES; i++) {
        scene->contexts[i] = sim_world_add_context(world, "guest");
        scene->nodes[i] = open_throttled("throttle-group=g");
        scene->blks[i] = blk_new(NULL, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL,
                                 NULL);
        assert_true(blk_insert_bs(scene->blks[i], scene->nodes[i], NULL));
    }
    run_until_done(0);
    assert_int_equal(sim_world_now(world), 0);
}

static void close_node(int i)
{
    blk_unref(scene->blks[i]);
    bdrv_unref(scene->nodes[i]);
    scene->blks[i] = NULL;
}

static void tear_down(void)
{
    for (int i = 0; i < NODES; i++) {
        if (scene->blks[i]) {
            close_node(i);
        }
    }
    blockgraph_cleanup(); /* the group as well */
    g_clear_pointer(&scene, g_free);
}

/* Run @body under each seed; it has set_up() and tear_down() inside. */
static void try_seeds(bool (*body)(SimWorld *world, void *opaque))
{
    assert_int_equal(sim_try_seeds(SEEDS, body, NULL), 0);
}

/* ---- Rates ------------------------------------------------------------------------------- */

static bool play_rate(SimWorld *world, void *opaque)
{
    set_up(world, "x-iops-total=7");
    start(0, false, 50, 512);
    run_until_done(50);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(scene->guests[0].times[i], leaks_until(i, 7, 7));
    }
    tear_down();
    return true;
}

static void rate_is_exact(void **state)
{
    try_seeds(play_rate);
}

static bool play_burst(SimWorld *world, void *opaque)
{
    set_up(world, "x-bps-write=51200,x-bps-write-max=102400,x-bps-write-max-length=3");
    start(0, true, 100, 10240); /* as 5, 10 and 3 */
    run_until_done(100);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(scene->guests[0].times[i],
                         MAX(leaks_until(i, 300, 5), leaks_until(i, 10, 10)));
    }
    tear_down();
    return true;
}

static void burst_ends(void **state)
{
    try_seeds(play_burst);
}

static bool play_fair(SimWorld *world, void *opaque)
{
    /* Two go at once, and the turn after them may be given before all have come. */
    int least = 10, from = 2, to = 3 + 3 * (least - 3);

    set_up(world, "x-iops-total=10");
    for (int i = 0; i < NODES; i++) {
        start(i, false, least * (i + 1), 512);
    }
    run_until_done(6 * least);
    for (int i = from; i + 2 < to; i++) {
        int *o = scene->order + i;

        assert_true(o[0] != o[1] && o[1] != o[2] && o[0] != o[2]);
    }
    assert_int_equal(sim_world_now(world), leaks_until(6 * least - 1, 10, 10));
    tear_down();
    return true;
}

static void members_take_turns(void **state)
{
    try_seeds(play_fair);
}

static bool play_kinds(SimWorld *world, void *opaque)
{
    int reads = 0;

    set_up(world, "x-iops-read=10,x-iops-write=4");
    start(0, false, 30, 512);
    start(1, true, 30, 512);
    run_until_done(60);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(scene->guests[0].times[i], leaks_until(i, 10, 10));
        assert_int_equal(scene->guests[1].times[i], leaks_until(i, 4, 4));
    }
    /* With one limit for both, neither kind is left out for long. */
    change_group("g", "x-bps-total=10240");
    scene->all_done = 0;
    start(0, false, 50, 1024);
    start(1, true, 50, 1024);
    run_until_done(100);
    for (int i = 0; i < 50; i++) {
        reads += scene->order[i] == 0;
    }
    assert_in_range(reads, 10, 40);
    tear_down();
    return true;
}

static void reads_and_writes_queue_apart(void **state)
{
    try_seeds(play_kinds);
}

static void coroutine_fn change_without_data(void *opaque)
{
    assert_int_equal(blk_co_pwrite_zeroes(scene->blks[0], 0, 4096, 0), 0);
    assert_int_equal(blk_co_pdiscard(scene->blks[0], 0, 4096), 0);
    assert_int_equal(blk_co_flush(scene->blks[0]), 0);
    assert_int_equal(sim_world_now(scene->world), 0);
    assert_int_equal(blk_co_pwrite_zeroes(scene->blks[0], 0, 4096, 0), 0);
    assert_int_equal(sim_world_now(scene->world), SECOND / 10);
    scene->all_done++;
}

static void start_change_without_data(void *opaque)
{
    coroutine_enter(coroutine_create(change_without_data, NULL));
}

static bool play_without_data(SimWorld *world, void *opaque)
{
    set_up(world, "x-iops-write=10");
    aio_bh_oneshot(scene->contexts[0], start_change_without_data, NULL);
    run_until_done(1);
    tear_down();
    return true;
}

/* Zeros and discards count, as writes; a flush does not. */
static void changes_without_data_count(void **state)
{
    try_seeds(play_without_data);
}

/* ---- Draining, changing, closing while requests wait ---------------------------------------- */

static bool play_drain(SimWorld *world, void *opaque)
{
    int64_t now;

    set_up(world, "x-iops-total=1");
    start(0, false, 20, 512);
    start(1, false, 5, 512);
    run_until_done(4);
    now = sim_world_now(world);
    assert_int_equal(now, leaks_until(3, 1, 1));
    bdrv_drained_begin(scene->nodes[0]);
    assert_int_equal(scene->guests[0].done, 20);
    assert_int_equal(sim_world_now(world), now);
    start(0, true, 1, 512); /* the backend holds it */
    bdrv_drained_end(scene->nodes[0]);
    /* The other node's wait still, and for what went meanwhile as well. */
    run_until_done(26);
    assert_int_equal(sim_world_now(world), leaks_until(25, 1, 1));
    tear_down();
    return true;
}

static void drained_node_does_not_throttle(void **state)
{
    try_seeds(play_drain);
}

static bool play_drain_all(SimWorld *world, void *opaque)
{
    g_autoptr(JsonObject) late = block_options_parse(
        "driver=qcow2,file.driver=throttle,file.throttle-group=g,file.file.driver=null-co,"
        "file.file.size=1M,file.file.read-zeroes=on", NULL, NULL);
    GError *err = NULL;
    int64_t now;

    set_up(world, "x-iops-total=1");
    for (int i = 0; i < NODES; i++) {
        start(i, i == 1, 10, 512);
    }
    settle();
    now = sim_world_now(world);
    bdrv_drain_all_begin();
    assert_int_equal(scene->all_done, 3 * 10);
    /* A node that comes now begins as one that is drained: its header is read at once. */
    assert_null(bdrv_open(NULL, late, 0, NULL, &err));
    assert_error_has(&err, "not in qcow2 format");
    assert_int_equal(sim_world_now(world), now);
    bdrv_drain_all_end();
    tear_down();
    return true;
}

static void drain_all_lets_all_go(void **state)
{
    try_seeds(play_drain_all);
}

static bool play_change(SimWorld *world, void *opaque)
{
    int64_t now;

    set_up(world, "x-iops-total=1");
    start(0, false, 30, 512);
    start(1, true, 30, 512);
    settle();
    now = sim_world_now(world);
    change_group("g", "x-iops-total=100"); /* begins anew: ten at once */
    run_until_done(60);
    assert_int_equal(sim_world_now(world) - now, leaks_until(60 - 2, 100, 100));

    change_group("g", "x-iops-total=1");
    scene->all_done = 0;
    start(0, false, 30, 512);
    start(1, true, 30, 512);
    settle();
    now = sim_world_now(world);
    change_group("g", "x-bps-total=0"); /* no limits */
    run_until_done(60);
    assert_int_equal(sim_world_now(world), now);
    tear_down();
    return true;
}

static void new_limits_hold_for_those_who_wait(void **state)
{
    try_seeds(play_change);
}

static bool play_close(SimWorld *world, void *opaque)
{
    int closed = sim_world_random(world, NODES);
    int64_t now;

    set_up(world, "x-iops-total=1");
    for (int i = 0; i < NODES; i++) {
        start(i, false, 10, 512);
    }
    run_until_done(7);
    now = sim_world_now(world);
    close_node(closed); /* its requests end first, at once, and the graph changes */
    assert_int_equal(scene->guests[closed].done, 10);
    assert_int_equal(sim_world_now(world), now);
    run_until_done(30);
    for (int i = 0; i < NODES; i++) {
        if (i != closed) {
            start(i, false, 10, 512);
        }
    }
    run_until_done(50);
    for (int i = 31; i < 48; i++) { /* of two that have come each has every second turn */
        assert_int_not_equal(scene->order[i], scene->order[i + 1]);
    }
    assert_int_equal(sim_world_now(world), leaks_until(49, 1, 1));
    tear_down(); /* the world aborts if a timer is left */
    return true;
}

static void closing_leaves_the_others_their_turns(void **state)
{
    try_seeds(play_close);
}

/* Else one slow disk would hold up all changes, and all requests behind those. */
static bool play_graph_change(SimWorld *world, void *opaque)
{
    BlockDriverState *other;
    BlockBackend *blk;
    int64_t now;

    set_up(world, "x-iops-total=1");
    start(0, false, 10, 512);
    settle();
    now = sim_world_now(world);
    other = open_node_with("driver=raw,file.driver=null-co", 0);
    blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL);
    assert_true(blk_insert_bs(blk, other, NULL));
    blk_unref(blk);
    bdrv_unref(other);
    assert_int_equal(sim_world_now(world), now);
    start(1, false, 1, 512); /* throttled again */
    run_until_done(11);
    assert_int_equal(sim_world_now(world), leaks_until(10, 1, 1));
    tear_down();
    return true;
}

static void graph_changes_do_not_wait_for_the_throttle(void **state)
{
    try_seeds(play_graph_change);
}

static bool play_reopen(SimWorld *world, void *opaque)
{
    g_autoptr(JsonObject) to_h = block_options_parse("throttle-group=h", NULL, NULL);
    g_autoptr(JsonObject) to_none = block_options_parse("throttle-group=none", NULL, NULL);
    GError *err = NULL;
    int64_t now;

    set_up(world, "x-iops-total=1");
    make_group("h", "x-iops-total=100");
    start(0, false, 5, 512);
    settle();
    now = sim_world_now(world);
    assert_false(bdrv_reopen(scene->nodes[0], to_none, &err)); /* drains it */
    assert_error_has(&err, "Throttle group 'none' does not exist");
    assert_ok(bdrv_reopen(scene->nodes[0], to_h, &err), err);
    assert_int_equal(scene->all_done, 5);
    start(0, false, 21, 512);
    run_until_done(26);
    assert_int_equal(sim_world_now(world) - now, leaks_until(20, 100, 100));
    assert_false(throttle_group_delete("h", &err));
    assert_error_has(&err, "object 'h' is in use, can not be deleted");
    close_node(0);
    assert_ok(throttle_group_delete("h", &err), err);
    tear_down();
    return true;
}

static void reopening_may_choose_another_group(void **state)
{
    try_seeds(play_reopen);
}

/* ---- Pass-through, errors ---------------------------------------------------------------- */

static void count_done(void *opaque, int ret)
{
    assert_int_equal(ret, 0);
    scene->all_done++;
}

static bool play_pass_through(SimWorld *world, void *opaque)
{
    BlkPassThroughStats stats;
    uint8_t buf[512];
    IOVector iov;

    set_up(world, "x-iops-total=10");
    io_vector_init_buf(&iov, buf, sizeof(buf));
    for (int i = 0; i < 5; i++) {
        blk_aio_preadv(scene->blks[0], 0, &iov, 0, count_done, NULL);
        run_until_done(i + 1);
    }
    blk_get_pass_through_stats(scene->blks[0], &stats);
    assert_int_equal(stats.passed, 0);
    assert_int_equal(sim_world_now(world), leaks_until(4, 10, 10));
    io_vector_destroy(&iov);
    tear_down();
    return true;
}

static void nothing_passes_around_the_node(void **state)
{
    try_seeds(play_pass_through);
}

static void assert_open_fails(const char *text, const char *message)
{
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, NULL);
    GError *err = NULL;

    assert_null(bdrv_open(NULL, options, 0, NULL, &err));
    assert_error_has(&err, message);
}

static bool play_errors(SimWorld *world, void *opaque)
{
    ThrottleConfig config = config_of(""), wrong = config_of("x-iops-total-max=5");
    GError *err = NULL;

    set_up(world, "x-iops-total=10");
    assert_false(throttle_group_create("g", &config, &err));
    assert_error_has(&err, "Throttle group 'g' exists already");
    assert_false(throttle_group_create("h", &wrong, &err));
    assert_error_has(&err, "require corresponding bps/iops values");
    assert_false(throttle_group_set_config("h", &config, &err));
    assert_error_has(&err, "Throttle group 'h' does not exist");
    assert_false(throttle_group_set_config("g", &wrong, &err));
    assert_error_has(&err, "require corresponding bps/iops values");
    assert_false(throttle_group_get_config("h", &config, &err));
    assert_error_has(&err, "Throttle group 'h' does not exist");
    assert_false(throttle_group_delete("h", &err));
    assert_error_has(&err, "Throttle group 'h' does not exist");
    assert_open_fails("driver=throttle,throttle-group=g",
                      "A block device must be specified for \"file\"");
    assert_open_fails("driver=throttle,file.driver=null-co", "Please specify a throttle group");
    assert_open_fails("driver=throttle,file.driver=null-co,throttle-group=h",
                      "Throttle group 'h' does not exist");
    assert_open_fails("driver=throttle,file.driver=null-co,throttle-group=g,x-iops-total=1",
                      "does not support the option 'x-iops-total'");
    tear_down();
    return true;
}

static void errors_are_told(void **state)
{
    try_seeds(play_errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rate_is_exact),
        cmocka_unit_test(burst_ends),
        cmocka_unit_test(members_take_turns),
        cmocka_unit_test(reads_and_writes_queue_apart),
        cmocka_unit_test(changes_without_data_count),
        cmocka_unit_test(drained_node_does_not_throttle),
        cmocka_unit_test(drain_all_lets_all_go),
        cmocka_unit_test(new_limits_hold_for_those_who_wait),
        cmocka_unit_test(closing_leaves_the_others_their_turns),
        cmocka_unit_test(graph_changes_do_not_wait_for_the_throttle),
        cmocka_unit_test(reopening_may_choose_another_group),
        cmocka_unit_test(nothing_passes_around_the_node),
        cmocka_unit_test(errors_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
