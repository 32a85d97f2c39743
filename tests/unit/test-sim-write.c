/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The write path under seeded schedules: guests on three simulated threads
 * read, write, zero and discard, over a format with too little room, so that
 * places are used again as soon as the rules allow it. Careful guests have a
 * range of their own, but share units with others at its edges, and know what
 * they must read. Wild ones do what they like in one common range. Every byte
 * written tells whose range it belongs to, and a place that is free is
 * scribbled over: a request that uses another one's place shows. In every other world
 * reads copy, too. A failure prints the seed that replays it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "toy-format.h"
#include "repeats.h"
#include "util/sim.h"

#define THREADS 3
#define GUESTS 2 /* of each kind, per thread */
#define REQUESTS 15
#define RANGE 9000 /* each guest's own: some units, and parts of others' */
#define WILD (THREADS * GUESTS) /* the number of the common range */
#define SIZE ((WILD + 1) * RANGE)
#define UNITS ((SIZE + TOY_UNIT - 1) / TOY_UNIT)
/* What is written to range @n: VALUES numbers from here on, the first by the base. */
#define VALUES 30
#define FIRST_VALUE(n) (1 + (n) * VALUES)
#define SLOTS UNITS /* none to spare for retired ones */
#define SCRIBBLE 0xee

static SimWorld *the_world;

/* ---- A disk whose requests take their time ------------------------------------------ */

static uint8_t disk[SLOTS * TOY_UNIT];
static ToyFormat *the_toy;
static const char *the_wrong; /* what was found first */

static void wrong(const char *what)
{
    if (!the_wrong) {
        the_wrong = what;
    }
}

/* Whoever moves bytes does that where the format has somebody's. */
static void check_used(int64_t offset, int64_t bytes)
{
    for (int i = offset / TOY_UNIT; i <= (offset + bytes - 1) / TOY_UNIT; i++) {
        if (!the_toy->used[i]) {
            wrong("a request uses a free place");
        }
    }
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
    take_time();
    io_vector_from_buf(iov, 0, disk + offset, bytes / 2);
    take_time();
    check_used(offset, bytes);
    io_vector_from_buf(iov, bytes / 2, disk + offset + bytes / 2, bytes - bytes / 2);
    return 0;
}

static int coroutine_fn slow_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    take_time();
    io_vector_to_buf(iov, 0, disk + offset, bytes / 2);
    take_time();
    check_used(offset, bytes);
    io_vector_to_buf(iov, bytes / 2, disk + offset + bytes / 2, bytes - bytes / 2);
    return 0;
}

static int coroutine_fn slow_flush(BlockDriverState *bs)
{
    take_time();
    return 0;
}

static BlockDriver slow_driver = {
    .format_name = "slow-disk",
    .bdrv_open = slow_open,
    .bdrv_co_preadv = slow_preadv,
    .bdrv_co_pwritev = slow_pwritev,
    .bdrv_co_flush = slow_flush,
};

/* What lies below: each range is of one byte. */
static int coroutine_fn base_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    take_time();
    for (int64_t i = 0; i < bytes; i++) {
        io_vector_memset(iov, i, FIRST_VALUE((offset + i) / RANGE), 1);
    }
    return 0;
}

static bool base_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, UNITS * TOY_UNIT);
    return true;
}

static BlockDriver base_driver = {
    .format_name = "base-disk",
    .bdrv_open = base_open,
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
    uint8_t model[SIZE];
    bool copies; /* on read */
    int started;
    int running;
} Scene;

/* A read that copies may have to wait for room, as a write does. */
static int coroutine_fn patient_read(Scene *scene, int64_t offset, int64_t bytes, uint8_t *buf)
{
    int ret = -ENOSPC;

    for (int tries = 0; tries < 200 && ret == -ENOSPC; tries++) {
        ret = blk_co_pread(scene->blk, offset, bytes, buf, 0);
        if (ret == -ENOSPC) {
            assert_true(scene->copies);
            co_sleep_ns(10000);
        }
    }
    return ret;
}

static void coroutine_fn check_read(Scene *scene, int range)
{
    uint8_t buf[RANGE];

    if (patient_read(scene, range * RANGE, RANGE, buf) < 0) {
        wrong("a read failed");
    } else if (memcmp(buf, scene->model + range * RANGE, RANGE) != 0) {
        wrong("a read returned something else than was written");
    }
}

/* Read any bytes, while who knows who writes them: they are of that range. */
static void coroutine_fn check_owner(Scene *scene)
{
    int64_t offset = sim_world_random(the_world, SIZE);
    int64_t bytes = MIN(SIZE - offset, 3 * TOY_UNIT);
    g_autofree uint8_t *buf = g_malloc(bytes);

    if (patient_read(scene, offset, bytes, buf) < 0) {
        wrong("a read failed");
        return;
    }
    for (int64_t i = 0; i < bytes; i++) {
        int range = (offset + i) / RANGE;

        if (buf[i] && (buf[i] < FIRST_VALUE(range) || buf[i] >= FIRST_VALUE(range + 1))) {
            wrong("a read returned what belongs elsewhere");
        }
    }
}

static int coroutine_fn change(Scene *scene, int op, int64_t offset, int64_t bytes, uint8_t *buf)
{
    switch (op) {
    case 0:
        return blk_co_pwrite_zeroes(scene->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    case 1:
        return blk_co_pdiscard(scene->blk, offset, bytes);
    case 2:
        return blk_co_pwrite(scene->blk, offset, bytes, buf, BDRV_REQ_FUA);
    default:
        return blk_co_pwrite(scene->blk, offset, bytes, buf, 0);
    }
}

static void note_change(Scene *scene, int op, int64_t offset, int64_t bytes, const uint8_t *buf)
{
    int64_t first = (offset + TOY_UNIT - 1) / TOY_UNIT * TOY_UNIT;
    int64_t last = (offset + bytes) / TOY_UNIT * TOY_UNIT;

    if (op == 0) {
        memset(scene->model + offset, 0, bytes);
    } else if (op == 1) {
        for (int64_t i = first; i < last; i++) { /* the base shows again */
            scene->model[i] = FIRST_VALUE(i / RANGE);
        }
    } else {
        memcpy(scene->model + offset, buf, bytes);
    }
}

static void coroutine_fn one_request(Scene *scene, int range)
{
    int64_t offset = sim_world_random(the_world, RANGE);
    int64_t most = sim_world_random(the_world, 2) ? RANGE : TOY_UNIT; /* a unit: often in place */
    int64_t bytes = 1 + sim_world_random(the_world, MIN(RANGE - offset, most));
    g_autofree uint8_t *buf = g_malloc(bytes);
    int op = sim_world_random(the_world, 7);
    int ret = 0;

    offset += range * RANGE;
    memset(buf, FIRST_VALUE(range) + 1 + sim_world_random(the_world, VALUES - 1), bytes);
    for (int tries = 0; tries < 200; tries++) {
        ret = change(scene, op, offset, bytes, buf);
        if (ret != -ENOSPC) {
            break;
        }
        co_sleep_ns(10000); /* others' requests hold what is left: later there is room */
    }
    if (ret < 0) {
        wrong("a change failed");
    }
    note_change(scene, op, offset, bytes, buf);
}

static void coroutine_fn guest(void *opaque)
{
    Scene *scene = opaque;
    int number = scene->started++;
    int range = MIN(number, WILD);

    for (int i = 0; i < REQUESTS; i++) {
        if (sim_world_random(the_world, 3) == 0) {
            check_owner(scene);
        } else {
            one_request(scene, range);
        }
        if (range != WILD) {
            check_read(scene, range);
        }
    }
    scene->running--;
    aio_wait_kick();
}

static bool guests_done(void *opaque)
{
    return ((Scene *)opaque)->running == 0;
}

static void start_guests(void *opaque)
{
    for (int i = 0; i < 2 * GUESTS; i++) {
        coroutine_enter(coroutine_create(guest, opaque));
    }
}

/* What was read is there now: nothing is left to the base. */
static void check_copied(Scene *scene)
{
    ToyFormat *t = bdrv_state(blk_bs(scene->blk));
    g_autofree uint8_t *buf = g_malloc(SIZE);

    if (blk_pread(scene->blk, 0, SIZE, buf, 0) < 0) {
        wrong("the last read failed");
    }
    for (int i = 0; i < t->units; i++) {
        if (t->table[i] == TOY_NONE) {
            wrong("a unit was not copied");
        }
    }
}

/* After all requests: no slot may be lost, and none may belong to two units. */
static void check_slots(Scene *scene)
{
    ToyFormat *t = bdrv_state(blk_bs(scene->blk));
    int used = 0, linked = 0;

    if (scene->copies) {
        check_copied(scene);
    }

    if (blk_flush(scene->blk) < 0) {
        wrong("the flush failed");
    }
    for (int i = 0; i < t->slots; i++) {
        used += t->used[i];
    }
    for (int i = 0; i < t->units; i++) {
        linked += t->table[i] > 0;
        for (int j = 0; t->table[i] > 0 && j < i; j++) {
            if (t->table[j] == t->table[i]) {
                wrong("two units lie in one slot");
            }
        }
    }
    if (used != linked) {
        wrong("slots were lost");
    }
}

static void register_drivers(void)
{
    if (!bdrv_find_format("toy")) {
        assert_true(bdrv_register(&slow_driver, NULL));
        assert_true(bdrv_register(&base_driver, NULL));
        assert_true(bdrv_register(&toy_driver, NULL));
    }
}

static bool writes_in_world(SimWorld *world, void *opaque)
{
    AioContext *contexts[THREADS];
    Scene *scene = g_new0(Scene, 1);
    int *full = opaque;
    ToyFormat *t;
    bool ok;

    the_world = world;
    the_wrong = NULL;
    memset(disk, 0, sizeof(disk));
    contexts[0] = sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    register_drivers();
    for (int i = 1; i < THREADS; i++) {
        contexts[i] = sim_world_add_context(world, "guest");
    }
    for (int i = 0; i < SIZE; i++) {
        scene->model[i] = FIRST_VALUE(i / RANGE);
    }
    scene->copies = sim_world_random(world, 2);
    scene->blk = blk_new(NULL, BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    {
        g_autofree char *text = g_strdup_printf(
            "driver=toy,units=%d,slots=%d,file.driver=slow-disk,backing.driver=base-disk", UNITS,
            SLOTS);
        int flags = scene->copies ? BDRV_O_COPY_ON_READ : 0;
        BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR | BDRV_O_UNMAP | flags);

        t = bdrv_state(bs);
        the_toy = t;
        t->on_release = scribble;
        t->pause = maybe_pause;
        assert_true(blk_insert_bs(scene->blk, bs, NULL));
        bdrv_unref(bs);
    }
    scene->running = 2 * THREADS * GUESTS;
    for (int i = 0; i < THREADS; i++) {
        aio_bh_oneshot(contexts[i], start_guests, scene);
    }
    if (!sim_world_run_until(world, guests_done, scene)) {
        wrong("a hang");
    } else {
        check_slots(scene);
        *full += t->full;
        blk_unref(scene->blk);
        blockgraph_cleanup();
    }
    if (the_wrong) {
        fprintf(stderr, "%s\n", the_wrong);
    }
    ok = !the_wrong;
    g_free(scene);
    return ok;
}

static void nobody_reads_what_nobody_wrote(void **state)
{
    const char *count = g_getenv("BLOCKGRAPH_TEST_SEEDS");
    int seeds = count ? atoi(count) : repeats(300, 20), full = 0;

    assert_int_equal(sim_try_seeds(seeds, writes_in_world, &full), 0);
    if (!g_getenv("BLOCKGRAPH_SEED")) {
        assert_true(full > 0); /* else the room was not too little */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_reads_what_nobody_wrote),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
