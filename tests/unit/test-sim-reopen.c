/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening and changing backing files under seeded schedules: guests on three
 * simulated threads read, write, zero and discard, each in a range of its own, while
 * the main thread makes the chain read-only and writable again, changes caches and
 * options, swaps backing files that hold the same bytes, takes layers in and out, and
 * tries what has to fail half-way. Nobody may read what he did not write, no write is
 * lost, and what fails leaves no trace. A failure prints the seed that replays it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "toy-format.h"
#include "repeats.h"
#include "util/sim.h"

#define THREADS 3
#define GUESTS 2 /* per thread */
#define REQUESTS 12
#define UNITS_EACH 4
#define RANGE (UNITS_EACH * TOY_UNIT)
#define UNITS (THREADS * GUESTS * UNITS_EACH)
#define SIZE (UNITS * TOY_UNIT)
#define SLOTS (2 * UNITS)
#define CHANGES 14
#define BASE_BYTE 7

static SimWorld *the_world;
static const char *the_wrong; /* what was found first */

static void wrong(const char *what)
{
    if (!the_wrong) {
        the_wrong = what;
    }
}

static void coroutine_fn take_time(void)
{
    co_sleep_ns(sim_world_random(the_world, 3) * 1000);
}

/* ---- A disk whose requests take their time; no writes while it is read-only ------------- */

typedef struct SlowDisk {
    uint8_t data[SLOTS * TOY_UNIT];
    int in_flight; /* requests of any kind */
    int refuse; /* prepares to come that fail */
} SlowDisk;

static bool slow_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    SlowDisk *s = bdrv_state(bs);
    int64_t byte = 0;

    if (!block_options_take_int(options, "byte", &byte, errp)) {
        return false;
    }
    memset(s->data, byte, sizeof(s->data));
    bdrv_set_length(bs, sizeof(s->data));
    return true;
}

static bool slow_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    SlowDisk *s = bdrv_state(state->bs);

    if (s->in_flight) {
        wrong("a node is reopened while it is busy");
    }
    if (s->refuse > 0) {
        s->refuse--;
        block_error_set(errp, EIO, "refused");
        return false;
    }
    return true;
}

static void slow_commit(BdrvReopenState *state)
{
    if (((SlowDisk *)bdrv_state(state->bs))->in_flight) {
        wrong("a node is reopened while it is busy");
    }
}

static int coroutine_fn slow_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    SlowDisk *s = bdrv_state(bs);

    s->in_flight++;
    io_vector_from_buf(iov, 0, s->data + offset, bytes / 2);
    take_time();
    io_vector_from_buf(iov, bytes / 2, s->data + offset + bytes / 2, bytes - bytes / 2);
    s->in_flight--;
    return 0;
}

static int coroutine_fn slow_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    SlowDisk *s = bdrv_state(bs);

    s->in_flight++;
    io_vector_to_buf(iov, 0, s->data + offset, bytes / 2);
    take_time();
    if (!bdrv_is_writable(bs)) {
        wrong("a write to a disk that is read-only");
    }
    io_vector_to_buf(iov, bytes / 2, s->data + offset + bytes / 2, bytes - bytes / 2);
    s->in_flight--;
    return 0;
}

static int coroutine_fn slow_flush(BlockDriverState *bs)
{
    take_time();
    return 0;
}

static BlockDriver slow_driver = {
    .format_name = "slow-disk",
    .instance_size = sizeof(SlowDisk),
    .bdrv_open = slow_open,
    .bdrv_reopen_prepare = slow_prepare,
    .bdrv_reopen_commit = slow_commit,
    .bdrv_co_preadv = slow_preadv,
    .bdrv_co_pwritev = slow_pwritev,
    .bdrv_co_flush = slow_flush,
};

static BlockDriver agreeing_toy;

static void coroutine_fn maybe_pause(void)
{
    if (sim_world_random(the_world, 4) == 0) {
        take_time();
    }
}

/* ---- Guests ----------------------------------------------------------------------------- */

typedef struct Scene {
    BlockBackend *blk;
    BlockDriverState *top, *disk, *bases[3];
    uint8_t model[SIZE];
    int started, running;
    int written, refused;
    int read_only_times, failures, swaps;
} Scene;

static void coroutine_fn check_read(Scene *scene, int64_t start)
{
    uint8_t buf[RANGE];

    if (blk_co_pread(scene->blk, start, RANGE, buf, 0) < 0) {
        wrong("a read failed");
    } else if (memcmp(buf, scene->model + start, RANGE) != 0) {
        wrong("a read returned something else than was written");
    }
}

static int coroutine_fn change(Scene *scene, int op, int64_t offset, int64_t bytes,
                               const uint8_t *buf)
{
    switch (op) {
    case 0:
        return blk_co_pwrite_zeroes(scene->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    case 1:
        return blk_co_pdiscard(scene->blk, offset, bytes);
    default:
        return blk_co_pwrite(scene->blk, offset, bytes, buf, 0);
    }
}

/* Whole units for discards, whose effect is known then; else any bytes. */
static void coroutine_fn one_change(Scene *scene, int64_t start)
{
    int op = sim_world_random(the_world, 5);
    int64_t offset = op == 1 ? sim_world_random(the_world, UNITS_EACH) * TOY_UNIT
                             : sim_world_random(the_world, RANGE);
    int64_t bytes = op == 1 ? TOY_UNIT : 1 + sim_world_random(the_world, RANGE - offset);
    uint8_t buf[RANGE];
    int ret;

    memset(buf, op == 0 ? 0 : op == 1 ? BASE_BYTE : 10 + sim_world_random(the_world, 200), bytes);
    ret = change(scene, op, start + offset, bytes, buf);
    if (ret == -EPERM) { /* the chain was read-only */
        scene->refused++;
    } else if (ret < 0) {
        wrong("a change failed");
    } else {
        scene->written++;
        memcpy(scene->model + start + offset, buf, bytes);
    }
}

static void coroutine_fn guest(void *opaque)
{
    Scene *scene = opaque;
    int64_t start = scene->started++ * RANGE;

    for (int i = 0; i < REQUESTS; i++) {
        one_change(scene, start);
        check_read(scene, start);
        take_time();
    }
    scene->running--;
    aio_wait_kick();
}

static void start_guests(void *opaque)
{
    for (int i = 0; i < GUESTS; i++) {
        coroutine_enter(coroutine_create(guest, opaque));
    }
}

static bool guests_done(void *opaque)
{
    return ((Scene *)opaque)->running == 0;
}

/* ---- The main thread -------------------------------------------------------------------- */

static void let_guests_run(void)
{
    for (int n = sim_world_random(the_world, 12); n > 0; n--) {
        aio_poll(aio_context_main(), false);
    }
}

static void expect(bool ok, bool expected, const char *what)
{
    if (ok != expected) {
        wrong(what);
    }
}

/* With a writer it must fail; then without, and the other way again. */
static void read_only_and_back(Scene *scene)
{
    uint64_t rw = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;

    expect(bdrv_reopen_set_read_only(scene->top, true, NULL), false, "read-only with a writer");
    scene->failures++;
    bdrv_drained_begin(scene->top); /* requests under way have the permission */
    expect(blk_set_perm(scene->blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL), true,
           "a permission could not be dropped");
    bdrv_drained_end(scene->top);
    expect(bdrv_reopen_set_read_only(scene->top, true, NULL), true, "reopening read-only failed");
    let_guests_run();
    expect(bdrv_is_read_only(scene->disk), true, "the disk did not follow");
    expect(bdrv_reopen_set_read_only(scene->top, false, NULL), true, "reopening writable failed");
    expect(blk_set_perm(scene->blk, rw, BLK_PERM_ALL, NULL), true, "a permission was not had");
    scene->read_only_times++;
}

static void change_options(Scene *scene)
{
    static const char *const texts[] = {
        "detect-zeroes=on", "detect-zeroes=off", "cache.direct=on", "cache.direct=off",
        "cache.no-flush=on", "cache.no-flush=off",
    };
    g_autoptr(JsonObject) options =
        block_options_parse(texts[sim_world_random(the_world, G_N_ELEMENTS(texts))], NULL, NULL);

    expect(bdrv_reopen(scene->top, options, NULL), true, "changing an option failed");
}

/* The disk refuses after the format has agreed. */
static void fail_half_way(Scene *scene)
{
    g_autoptr(JsonObject) options = block_options_parse("cache.direct=on,detect-zeroes=on", NULL,
                                                        NULL);
    BdrvReopenQueue *queue = bdrv_reopen_queue_new();
    int flags = bdrv_get_open_flags(scene->top), zeroes = bdrv_get_detect_zeroes(scene->top);

    ((SlowDisk *)bdrv_state(scene->disk))->refuse = 1;
    bdrv_reopen_queue_add(queue, scene->top, options);
    bdrv_reopen_queue_add(queue, scene->bases[0], options);
    expect(bdrv_reopen_queue_commit(queue, NULL), false, "what was refused was done");
    ((SlowDisk *)bdrv_state(scene->disk))->refuse = 0;
    expect(bdrv_get_open_flags(scene->top) == flags &&
               (int)bdrv_get_detect_zeroes(scene->top) == zeroes, true, "a failure left a trace");
    scene->failures++;
}

static void swap_backing(Scene *scene)
{
    BlockDriverState *to = scene->bases[sim_world_random(the_world, 3)];

    expect(bdrv_set_backing(scene->top, to, NULL), true, "setting the backing file failed");
    scene->swaps++;
}

/* The first of two changes is possible, the second is not. */
static void swap_backing_half_way(Scene *scene)
{
    BdrvTransaction *tran = bdrv_transaction_new();

    bdrv_transaction_set_backing(tran, scene->top, scene->bases[2]);
    bdrv_transaction_set_backing(tran, scene->bases[2], scene->top);
    expect(bdrv_transaction_commit(tran, NULL), false, "a cycle was made");
    scene->failures++;
}

static void one_action(Scene *scene)
{
    switch (sim_world_random(the_world, 6)) {
    case 0:
        read_only_and_back(scene);
        break;
    case 1:
        change_options(scene);
        break;
    case 2:
        fail_half_way(scene);
        break;
    case 3:
        swap_backing_half_way(scene);
        break;
    default:
        swap_backing(scene);
    }
}

/* Two disks, and a layer without anything on one of them: the same bytes each. */
static void set_up(Scene *scene)
{
    g_autofree char *top_text = g_strdup_printf(
        "driver=toy,units=%d,slots=%d,file.driver=slow-disk,backing=base0", UNITS, SLOTS);
    g_autofree char *layer_text = g_strdup_printf(
        "driver=toy,node-name=layer,units=%d,file.driver=slow-disk,backing=base1", UNITS);
    ToyFormat *t;

    memset(scene->model, BASE_BYTE, SIZE);
    scene->bases[0] = open_node_with("driver=slow-disk,node-name=base0,byte=7", BDRV_O_RDWR);
    scene->bases[1] = open_node_with("driver=slow-disk,node-name=base1,byte=7", 0);
    scene->bases[2] = open_node_with(layer_text, 0);
    scene->top = open_node_with(top_text, BDRV_O_RDWR | BDRV_O_UNMAP);
    bdrv_graph_rdlock_main_loop();
    scene->disk = bdrv_child_bs(bdrv_get_child(scene->top, "file"));
    bdrv_graph_rdunlock_main_loop();
    t = bdrv_state(scene->top);
    t->pause = maybe_pause;
    scene->blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    assert_true(blk_insert_bs(scene->blk, scene->top, NULL));
    scene->running = THREADS * GUESTS;
}

static void tear_down(Scene *scene)
{
    blk_unref(scene->blk);
    bdrv_unref(scene->top);
    bdrv_unref(scene->bases[2]);
    bdrv_unref(scene->bases[1]);
    bdrv_unref(scene->bases[0]);
}

static void register_drivers(void)
{
    if (!bdrv_find_format("toy")) {
        agreeing_toy = toy_driver;
        agreeing_toy.bdrv_reopen_prepare = bdrv_reopen_agree;
        assert_true(bdrv_register(&slow_driver, NULL));
        assert_true(bdrv_register(&agreeing_toy, NULL));
    }
}

typedef struct Totals {
    int written, refused, read_only_times, failures, swaps;
} Totals;

static bool play(SimWorld *world, void *opaque)
{
    g_autofree Scene *scene = g_new0(Scene, 1);
    Totals *totals = opaque;

    the_world = world;
    the_wrong = NULL;
    sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    register_drivers();
    set_up(scene);
    for (int i = 0; i < THREADS; i++) {
        aio_bh_oneshot(sim_world_add_context(world, "guest"), start_guests, scene);
    }
    for (int i = 0; i < CHANGES && !the_wrong; i++) {
        one_action(scene);
        let_guests_run();
    }
    if (!sim_world_run_until(world, guests_done, scene)) {
        wrong("a hang");
    } else {
        totals->written += scene->written;
        totals->refused += scene->refused;
        totals->read_only_times += scene->read_only_times;
        totals->failures += scene->failures;
        totals->swaps += scene->swaps;
        tear_down(scene);
        blockgraph_cleanup();
    }
    if (the_wrong) {
        fprintf(stderr, "%s\n", the_wrong);
    }
    return !the_wrong;
}

static void no_schedule_loses_a_write_or_tears_a_reopen(void **state)
{
    const char *count = g_getenv("BLOCKGRAPH_TEST_SEEDS");
    Totals t = {0};

    assert_int_equal(sim_try_seeds(count ? atoi(count) : repeats(300, 40), play, &t), 0);
    if (!g_getenv("BLOCKGRAPH_SEED")) { /* else they were no schedules of all this */
        assert_true(t.written > 0 && t.refused > 0 && t.read_only_times > 0 && t.failures > 0 &&
                    t.swaps > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_schedule_loses_a_write_or_tears_a_reopen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
