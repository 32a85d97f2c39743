/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pass-through under seeded schedules: guests on three simulated threads read and
 * write by callbacks, over a format that moves their data about, and write anew,
 * zero, discard and flush by coroutines, while the main thread takes snapshots,
 * drains, and changes the medium. Careful guests have a range of their own, share
 * units with others at its edges, and know what they must read; wild ones do what
 * they like in one common range. A place that is free is scribbled over, one that
 * a snapshot holds must not be written: a request that uses a place beyond its time
 * shows. A failure prints the seed that replays it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "aio-request.h"
#include "toy-format.h"
#include "repeats.h"
#include "util/sim.h"

#define THREADS 3
#define GUESTS 1 /* of each kind, per thread */
#define REQUESTS 25
#define VISITS 5
#define RANGE 5000 /* each careful guest's own: some units, and parts of others' */
#define WILD (THREADS * GUESTS) /* the number of the common range */
#define SIZE ((WILD + 1) * RANGE)
#define UNITS ((SIZE + TOY_UNIT - 1) / TOY_UNIT)
/* What is written to range @n: VALUES numbers from here on, the first by the base. */
#define VALUES 40
#define FIRST_VALUE(n) (1 + (n) * VALUES)
#define SLOTS_OF_FILE 100
#define SCRIBBLE 0xee

static SimWorld *the_world;
static ToyFormat *the_toy;
static const char *the_wrong; /* what was found first */

static void wrong(const char *what)
{
    if (!the_wrong) {
        the_wrong = what;
    }
}

/* ---- Disks ------------------------------------------------------------------------------ */

static uint8_t disk[SLOTS_OF_FILE * TOY_UNIT];
static bool frozen[SLOTS_OF_FILE]; /* a snapshot holds it */
static int moving; /* requests at the disk, of either kind */
static bool drained;

static void check_places(bool write, int64_t offset, int64_t bytes)
{
    for (int i = offset / TOY_UNIT; i <= (offset + bytes - 1) / TOY_UNIT; i++) {
        if (!the_toy->used[i]) {
            wrong("a request uses a free place");
        }
        if (write && frozen[i]) {
            wrong("a request writes to what a snapshot holds");
        }
    }
    if (drained) {
        wrong("a request moves bytes in a drained section");
    }
}

static void slow_move(BlockDriverState *bs, bool write, int64_t offset, IOVector *iov)
{
    check_places(write, offset, iov->size);
    if (write) {
        io_vector_to_buf(iov, 0, disk + offset, iov->size);
    } else {
        io_vector_from_buf(iov, 0, disk + offset, iov->size);
    }
    moving--;
}

static bool slow_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, sizeof(disk));
    return true;
}

static void coroutine_fn take_time(void)
{
    co_sleep_ns(sim_world_random(the_world, 4) ? 1000 : 30000);
}

static int coroutine_fn slow_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    moving++;
    take_time();
    slow_move(bs, false, offset, iov);
    return 0;
}

static int coroutine_fn slow_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    moving++;
    take_time();
    slow_move(bs, true, offset, iov);
    return 0;
}

/* One in eight is cut short, and has to be done again. */
static bool slow_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                             AioRequest *req)
{
    bool whole = sim_world_random(the_world, 8) > 0;

    moving++;
    prepare_call(req, &(CallIo){bs, slow_move, type == BDRV_IO_WRITE, offset, iov,
                                whole ? (int64_t)iov->size : 1});
    return true;
}

static BlockDriver slow_driver = {
    .format_name = "slow-disk",
    .bdrv_open = slow_open,
    .bdrv_prepare_aio = slow_prepare_aio,
    .bdrv_co_preadv = slow_preadv,
    .bdrv_co_pwritev = slow_pwritev,
};

/* What lies below: each range is of one byte. */
static void base_move(BlockDriverState *bs, bool write, int64_t offset, IOVector *iov)
{
    for (size_t i = 0; i < iov->size; i++) {
        io_vector_memset(iov, i, FIRST_VALUE((offset + i) / RANGE), 1);
    }
}

static int coroutine_fn base_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    take_time();
    base_move(bs, false, offset, iov);
    return 0;
}

static bool base_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                             AioRequest *req)
{
    prepare_call(req, &(CallIo){bs, base_move, false, offset, iov, iov->size});
    return true;
}

static bool base_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, UNITS * TOY_UNIT);
    return true;
}

static BlockDriver base_driver = {
    .format_name = "base-disk",
    .bdrv_open = base_open,
    .bdrv_prepare_aio = base_prepare_aio,
    .bdrv_co_preadv = base_preadv,
};

static void scribble(int slot)
{
    memset(disk + slot * TOY_UNIT, SCRIBBLE, TOY_UNIT);
}

static void coroutine_fn maybe_pause(void)
{
    if (sim_world_random(the_world, 3) == 0) {
        take_time();
    }
}

/* ---- Guests -------------------------------------------------------------------------- */

typedef struct Scene {
    BlockBackend *blk;
    BlockDriverState *bs;
    uint8_t model[SIZE];
    int started;
    int running;
    int visits;
    bool visiting;
    bool removed; /* the medium is out at times: requests may fail for that */
} Scene;

/* Without a medium nothing happened: try again. */
static bool coroutine_fn failed(Scene *scene, int ret)
{
    if (ret == -ENOMEDIUM && scene->removed) {
        co_sleep_ns(5000);
        return true;
    }
    if (ret < 0) {
        wrong("a request failed");
    }
    return false;
}

static void coroutine_fn read_range(Scene *scene, int range)
{
    int64_t offset = sim_world_random(the_world, RANGE);
    int64_t bytes = 1 + sim_world_random(the_world, MIN(RANGE - offset, 2 * TOY_UNIT));
    g_autofree uint8_t *buf = g_malloc(bytes);

    offset += range * RANGE;
    while (failed(scene, aio_request(scene->blk, false, offset, bytes, buf))) {
    }
    if (range != WILD && memcmp(buf, scene->model + offset, bytes) != 0) {
        wrong("a read returned something else than was written");
    }
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] && (buf[i] < FIRST_VALUE(range) || buf[i] >= FIRST_VALUE(range + 1))) {
            wrong("a read returned what belongs elsewhere");
        }
    }
}

/* A change by its number: the higher ones by a callback, so that they may pass. */
static int coroutine_fn change(Scene *scene, int op, int64_t offset, int64_t bytes, uint8_t *buf)
{
    switch (op) {
    case 0:
        return blk_co_pwrite_zeroes(scene->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    case 1:
        return blk_co_pdiscard(scene->blk, offset, bytes);
    case 2:
        return blk_co_pwrite(scene->blk, offset, bytes, buf, 0);
    default:
        return aio_request(scene->blk, true, offset, bytes, buf);
    }
}

static void coroutine_fn change_range(Scene *scene, int range)
{
    int64_t offset = sim_world_random(the_world, RANGE);
    int64_t most = sim_world_random(the_world, 4) ? TOY_UNIT / 2 : RANGE;
    int64_t bytes = 1 + sim_world_random(the_world, MIN(RANGE - offset, most));
    int op = sim_world_random(the_world, 10);
    g_autofree uint8_t *buf = g_malloc(bytes);

    offset += range * RANGE;
    memset(buf, FIRST_VALUE(range) + 1 + sim_world_random(the_world, VALUES - 1), bytes);
    while (failed(scene, change(scene, op, offset, bytes, buf))) {
    }
    if (op < 2) { /* what was dropped may be used again after this */
        while (failed(scene, blk_co_flush(scene->blk))) {
        }
    }
    if (op == 0) {
        memset(scene->model + offset, 0, bytes);
    } else if (op != 1) {
        memcpy(scene->model + offset, buf, bytes);
    } else {
        int64_t end = (offset + bytes) / TOY_UNIT * TOY_UNIT;

        for (int64_t i = (offset + TOY_UNIT - 1) / TOY_UNIT * TOY_UNIT; i < end; i++) {
            scene->model[i] = FIRST_VALUE(i / RANGE); /* the base shows again */
        }
    }
}

static void coroutine_fn guest(void *opaque)
{
    Scene *scene = opaque;
    int range = MIN(scene->started++, WILD);

    for (int i = 0; i < REQUESTS; i++) {
        if (sim_world_random(the_world, 2)) {
            change_range(scene, range);
        }
        read_range(scene, range);
    }
    scene->running--;
    aio_wait_kick();
}

static void start_guests(void *opaque)
{
    for (int i = 0; i < 2 * GUESTS; i++) {
        coroutine_enter(coroutine_create(guest, opaque));
    }
}

/* ---- The main thread -------------------------------------------------------------------- */

static bool is_linked(int slot)
{
    for (int i = 0; i < the_toy->units; i++) {
        if (the_toy->table[i] == slot + 1) {
            return true;
        }
    }
    return false;
}

/* Delete the last snapshot, and take another: nothing that is there may be written. */
static void take_snapshot(Scene *scene)
{
    for (int slot = 0; slot < SLOTS_OF_FILE; slot++) {
        if (frozen[slot] && !is_linked(slot)) {
            toy_free(the_toy, slot);
        }
        frozen[slot] = false;
    }
    for (int i = 0; i < the_toy->units; i++) {
        the_toy->shared[i] = the_toy->table[i] > 0;
        if (the_toy->table[i] > 0) {
            frozen[the_toy->table[i] - 1] = true;
        }
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_map_invalidate(scene->bs, 0, UNITS * TOY_UNIT);
    bdrv_graph_rdunlock_main_loop();
}

static void visit(void *opaque)
{
    Scene *scene = opaque;
    int what = sim_world_random(the_world, 3);

    scene->visits++;
    if (scene->visiting) {
        return; /* in the middle of another one, which polls */
    }
    scene->visiting = true;
    if (what == 0) {
        scene->removed = true;
        blk_remove_bs(scene->blk);
        if (moving) {
            wrong("a request is under way without a medium");
        }
        aio_poll(aio_context_main(), false);
        assert_true(blk_insert_bs(scene->blk, scene->bs, NULL));
    } else {
        bdrv_drained_begin(scene->bs);
        if (moving) {
            wrong("a request is under way in a drained section");
        }
        drained = true;
        if (what == 1) {
            take_snapshot(scene);
        }
        aio_poll(aio_context_main(), false);
        drained = false;
        bdrv_drained_end(scene->bs);
    }
    scene->visiting = false;
    aio_wait_kick();
}

static void coroutine_fn visitor(void *opaque)
{
    for (int i = 0; i < VISITS; i++) {
        co_sleep_ns(sim_world_random(the_world, 400000));
        aio_bh_oneshot(aio_context_main(), visit, opaque);
    }
}

static bool guests_done(void *opaque)
{
    Scene *scene = opaque;

    return scene->running == 0 && scene->visits == VISITS && !scene->visiting;
}

/* ---- Worlds ----------------------------------------------------------------------------- */

static void register_drivers(void)
{
    if (!bdrv_find_format("toy")) {
        assert_true(bdrv_register(&slow_driver, NULL));
        assert_true(bdrv_register(&base_driver, NULL));
        assert_true(bdrv_register(&toy_driver, NULL));
    }
}

static void set_up(Scene *scene)
{
    g_autofree char *text = g_strdup_printf(
        "driver=toy,units=%d,slots=%d,file.driver=slow-disk,backing.driver=base-disk", UNITS,
        SLOTS_OF_FILE);

    the_wrong = NULL;
    memset(disk, 0, sizeof(disk));
    memset(frozen, 0, sizeof(frozen));
    moving = 0;
    for (int i = 0; i < SIZE; i++) {
        scene->model[i] = FIRST_VALUE(i / RANGE);
    }
    scene->running = 2 * THREADS * GUESTS;
    scene->blk = blk_new(NULL, BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    scene->bs = open_node_with(text, BDRV_O_RDWR | BDRV_O_UNMAP);
    the_toy = bdrv_state(scene->bs);
    the_toy->on_release = scribble;
    the_toy->pause = maybe_pause;
    assert_true(blk_insert_bs(scene->blk, scene->bs, NULL));
}

static bool play(SimWorld *world, void *opaque)
{
    uint64_t *passed = opaque;
    Scene *scene = g_new0(Scene, 1);
    BlkPassThroughStats stats;
    AioContext *main_ctx;
    bool ok;

    the_world = world;
    main_ctx = sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    register_drivers();
    set_up(scene);
    aio_bh_oneshot(main_ctx, start_guests, scene);
    for (int i = 1; i < THREADS; i++) {
        aio_bh_oneshot(sim_world_add_context(world, "guest"), start_guests, scene);
    }
    coroutine_enter(coroutine_create(visitor, scene));
    if (!sim_world_run_until(world, guests_done, scene)) {
        wrong("a hang");
    } else {
        blk_get_pass_through_stats(scene->blk, &stats);
        *passed += stats.passed;
        blk_unref(scene->blk);
        bdrv_unref(scene->bs);
        blockgraph_cleanup();
    }
    if (the_wrong) {
        fprintf(stderr, "%s\n", the_wrong);
    }
    ok = !the_wrong;
    g_free(scene);
    return ok;
}

static void no_request_uses_a_place_beyond_its_time(void **state)
{
    const char *count = g_getenv("BLOCKGRAPH_TEST_SEEDS");
    uint64_t passed = 0;
    int seeds = count ? atoi(count) : repeats(300, 20);

    assert_int_equal(sim_try_seeds(seeds, play, &passed), 0);
    if (!g_getenv("BLOCKGRAPH_SEED")) {
        print_message("%.1f requests passed through per world\n", (double)passed / seeds);
        assert_true(passed > 20 * (uint64_t)seeds);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_request_uses_a_place_beyond_its_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
