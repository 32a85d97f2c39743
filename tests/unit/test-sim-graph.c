/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph under seeded schedules: guests on three simulated threads read and
 * write, as coroutines and by callbacks, which may pass through, while the main
 * thread drains, replaces nodes, changes media and revokes, and while what it does
 * is interrupted by callbacks that wait, too. A failure prints the seed that
 * replays it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "aio-request.h"
#include "repeats.h"
#include "util/sim.h"

#define GUESTS 2 /* per thread */
#define THREADS 3
#define REQUESTS 6 /* per guest */
#define VISITS 6   /* callbacks on the main thread */
#define RANGE 1024 /* each guest's own */
#define SIZE (GUESTS * THREADS * RANGE)

/* ---- A protocol whose requests take their time ------------------------------------- */

typedef struct SlowDisk {
    int64_t byte; /* what it is full of at first */
    uint8_t data[SIZE];
    int in_flight;
} SlowDisk;

static SimWorld *the_world;

static bool slow_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    SlowDisk *s = bdrv_state(bs);

    bdrv_set_length(bs, SIZE);
    if (!block_options_take_int(options, "byte", &s->byte, errp)) {
        return false;
    }
    memset(s->data, s->byte, SIZE);
    return true;
}

static int coroutine_fn slow_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    SlowDisk *s = bdrv_state(bs);
    int64_t half = bytes / 2;

    s->in_flight++;
    io_vector_from_buf(iov, 0, s->data + offset, half);
    co_sleep_ns(sim_world_random(the_world, 3) * 1000);
    io_vector_from_buf(iov, half, s->data + offset + half, bytes - half);
    s->in_flight--;
    return 0;
}

static int coroutine_fn slow_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    SlowDisk *s = bdrv_state(bs);
    int64_t half = bytes / 2;

    s->in_flight++;
    io_vector_to_buf(iov, 0, s->data + offset, half);
    co_sleep_ns(sim_world_random(the_world, 3) * 1000);
    io_vector_to_buf(iov, half, s->data + offset + half, bytes - half);
    s->in_flight--;
    return 0;
}

static void slow_move(BlockDriverState *bs, bool write, int64_t offset, IOVector *iov)
{
    SlowDisk *s = bdrv_state(bs);

    if (write) {
        io_vector_to_buf(iov, 0, s->data + offset, iov->size);
    } else {
        io_vector_from_buf(iov, 0, s->data + offset, iov->size);
    }
    s->in_flight--;
}

static bool slow_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                             AioRequest *req)
{
    ((SlowDisk *)bdrv_state(bs))->in_flight++;
    prepare_call(req, &(CallIo){bs, slow_move, type == BDRV_IO_WRITE, offset, iov, iov->size});
    return true;
}

static BlockDriver slow_driver = {
    .format_name = "slow-disk",
    .instance_size = sizeof(SlowDisk),
    .bdrv_open = slow_open,
    .bdrv_prepare_aio = slow_prepare_aio,
    .bdrv_co_preadv = slow_preadv,
    .bdrv_co_pwritev = slow_pwritev,
};

/* ---- Guests -------------------------------------------------------------------------- */

typedef struct Scene {
    BlockBackend *blk;
    BlockBackend *other; /* used by callbacks on the main thread */
    BlockDriverState *a, *b, *raw, *aside;
    int started;
    int running;
    int done;      /* requests that were carried out */
    int no_medium;
    int visits;
    bool torn;      /* a request that saw two disks, or an unexpected result */
    bool exclusive; /* the main thread holds the graph lock */
} Scene;

/*
 * What a guest writes to its range of a disk, it writes to all of it, and alone:
 * whatever disk it reads, the range is of one byte.
 */
static void coroutine_fn one_request(Scene *scene, int64_t offset, uint8_t byte)
{
    bool aio = sim_world_random(the_world, 2);
    uint8_t buf[RANGE];
    int ret;

    if (sim_world_random(the_world, 2)) {
        memset(buf, byte, sizeof(buf));
        ret = aio ? aio_request(scene->blk, true, offset, sizeof(buf), buf)
                  : blk_co_pwrite(scene->blk, offset, sizeof(buf), buf, 0);
    } else {
        ret = aio ? aio_request(scene->blk, false, offset, sizeof(buf), buf)
                  : blk_co_pread(scene->blk, offset, sizeof(buf), buf, 0);
        scene->torn |= ret == 0 && memcmp(buf, buf + 1, sizeof(buf) - 1) != 0;
    }
    scene->torn |= ret < 0 && ret != -ENOMEDIUM;
    if (ret == 0) {
        scene->done++;
    } else {
        scene->no_medium++;
    }
}

static void coroutine_fn guest(void *opaque)
{
    Scene *scene = opaque;
    int64_t offset = scene->started++ * RANGE;

    for (int i = 0; i < REQUESTS; i++) {
        one_request(scene, offset, i);
        co_sleep_ns(sim_world_random(the_world, 2) * 500);
    }
    scene->running--;
    aio_wait_kick();
}

static void visit(void *opaque);

static void start_guests(void *opaque)
{
    for (int i = 0; i < GUESTS; i++) {
        coroutine_enter(coroutine_create(guest, opaque));
    }
    aio_bh_oneshot(aio_context_main(), visit, opaque);
}

/* ---- The main thread ------------------------------------------------------------------ */

static int requests_at(BlockDriverState *disk)
{
    return ((SlowDisk *)bdrv_state(disk))->in_flight;
}

/* What is in flight at the disks that are read through @bs. */
static int requests_below(Scene *scene, BlockDriverState *bs)
{
    return bs == scene->raw ? requests_at(scene->a) + requests_at(scene->b) : requests_at(bs);
}

/* Nothing is in flight in a drained section, from its begin to its end. */
static bool drain_holds(Scene *scene, BlockDriverState *bs)
{
    bool idle;

    bdrv_drained_begin(bs);
    idle = requests_below(scene, bs) == 0;
    for (int i = sim_world_random(the_world, 10); i > 0; i--) {
        aio_poll(aio_context_main(), false);
        idle = idle && requests_below(scene, bs) == 0;
    }
    bdrv_drained_end(bs);
    return idle;
}

static bool drain_all_holds(Scene *scene)
{
    bool idle;

    bdrv_drain_all_begin();
    aio_poll(aio_context_main(), false);
    idle = requests_below(scene, scene->raw) == 0;
    bdrv_drain_all_end();
    return idle;
}

/*
 * Runs whenever the main thread polls, in the middle of what it does: waits for
 * a request of its own, drains, changes the medium of a backend.
 */
static void visit(void *opaque)
{
    Scene *scene = opaque;
    uint8_t buf[RANGE];

    scene->visits++;
    if (!scene->exclusive) { /* who holds the lock and polls must not wait */
        switch (sim_world_random(the_world, 3)) {
        case 0:
            scene->torn |= blk_pread(scene->other, 0, sizeof(buf), buf, 0) != 0;
            break;
        case 1:
            bdrv_drained_begin(scene->raw);
            bdrv_drained_end(scene->raw);
            break;
        default:
            scene->torn |= !blk_replace_bs(scene->other, scene->aside, NULL);
        }
    }
    if (scene->visits < VISITS) {
        aio_bh_oneshot(aio_context_main(), visit, scene);
    }
}

/* Who holds the graph lock exclusively is alone, drained or not. */
static bool exclusive_lock_holds(Scene *scene)
{
    bool idle;

    bdrv_graph_wrlock();
    scene->exclusive = true;
    idle = requests_below(scene, scene->raw) == 0;
    for (int i = sim_world_random(the_world, 6); i > 0; i--) {
        aio_poll(aio_context_main(), false);
        idle = idle && requests_below(scene, scene->raw) == 0;
    }
    scene->exclusive = false;
    bdrv_graph_wrunlock();
    return idle;
}

static bool replace_file(Scene *scene, bool possible)
{
    BdrvTransaction *tran = bdrv_transaction_new();
    BdrvChild *file;
    GError *err = NULL;
    bool ok;

    bdrv_graph_rdlock_main_loop();
    file = bdrv_get_child(scene->raw, "file");
    ok = bdrv_child_bs(file) == scene->a;
    bdrv_graph_rdunlock_main_loop();
    bdrv_transaction_replace_child(tran, file, ok ? scene->b : scene->a);
    if (!possible) { /* and in the same transaction what cannot be */
        bdrv_transaction_replace_child(tran, file, scene->raw);
    }
    ok = bdrv_transaction_commit(tran, &err);
    g_clear_error(&err);
    return ok == possible;
}

static bool change_medium(Scene *scene)
{
    BlockDriverState *bs = sim_world_random(the_world, 2) ? scene->raw : scene->b;

    if (blk_bs(scene->blk)) {
        if (sim_world_random(the_world, 2)) {
            return blk_replace_bs(scene->blk, bs, NULL);
        }
        blk_remove_bs(scene->blk);
        return blk_bs(scene->blk) == NULL;
    }
    return blk_insert_bs(scene->blk, bs, NULL);
}

static bool one_change(Scene *scene)
{
    switch (sim_world_random(the_world, 7)) {
    case 0:
        return drain_holds(scene, scene->a);
    case 1:
        return blk_bs(scene->blk) != scene->raw || drain_holds(scene, scene->raw);
    case 2:
        return replace_file(scene, true);
    case 3:
        return replace_file(scene, false);
    case 4:
        return change_medium(scene);
    case 5:
        return exclusive_lock_holds(scene);
    default:
        return drain_all_holds(scene);
    }
}

static BlockDriverState *slow_node(const char *name, int byte)
{
    g_autofree char *text =
        g_strdup_printf("driver=slow-disk,node-name=%s,byte=%d", name, byte);

    return open_node_with(text, BDRV_O_RDWR);
}

static bool all_is_done(void *opaque)
{
    Scene *scene = opaque;

    return scene->running == 0 && scene->visits >= VISITS;
}

static void set_up(Scene *scene)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;

    scene->a = slow_node("a", 'a');
    scene->b = slow_node("b", 'b');
    scene->aside = slow_node("aside", 'c');
    scene->raw = open_node_with("driver=raw,file=a", BDRV_O_RDWR);
    scene->blk = blk_new("disk0", perm, BLK_PERM_ALL, NULL);
    assert_true(blk_insert_bs(scene->blk, scene->raw, NULL));
    scene->other = blk_new("disk1", BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL);
    assert_true(blk_insert_bs(scene->other, scene->aside, NULL));
}

static void tear_down(Scene *scene)
{
    blk_unref(scene->blk);
    blk_unref(scene->other);
    bdrv_unref(scene->raw);
    bdrv_unref(scene->a);
    bdrv_unref(scene->b);
    bdrv_unref(scene->aside);
}

static bool play(SimWorld *world, void *opaque)
{
    Scene scene = {.running = THREADS * GUESTS};
    bool revoke = sim_world_random(world, 4) == 0;
    bool ok = true;

    the_world = world;
    sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    if (!bdrv_find_format("slow-disk")) {
        assert_true(bdrv_register(&slow_driver, NULL));
    }
    set_up(&scene);
    for (int i = 0; i < THREADS; i++) {
        aio_bh_oneshot(sim_world_add_context(world, "guest"), start_guests, &scene);
    }
    for (int i = 0; i < 8 && ok; i++) {
        ok = one_change(&scene);
        for (int n = sim_world_random(world, 6); n > 0; n--) {
            aio_poll(aio_context_main(), false);
        }
    }
    if (ok && revoke) {
        blk_revoke(scene.blk);
        ok = blk_bs(scene.blk) == NULL && requests_below(&scene, scene.raw) == 0;
    }
    ok = sim_world_run_until(world, all_is_done, &scene) && ok && !scene.torn &&
         scene.done + scene.no_medium == THREADS * GUESTS * REQUESTS;
    if (!ok) {
        fprintf(stderr, "done %d, without a medium %d, torn %d, running %d\n", scene.done,
                scene.no_medium, scene.torn, scene.running);
    }
    tear_down(&scene);
    blockgraph_cleanup();
    return ok;
}

static void no_schedule_tears_a_request_or_loses_one(void **state)
{
    const char *count = g_getenv("BLOCKGRAPH_TEST_SEEDS");

    assert_int_equal(sim_try_seeds(count ? atoi(count) : repeats(300, 20), play, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_schedule_tears_a_request_or_loses_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
