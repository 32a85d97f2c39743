/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing to a Bochs image under seeded schedules: guests on three simulated
 * threads write, zero, discard, flush and read, several requests in flight, in
 * ranges of their own that share extents and sectors at the edges. Each knows
 * what it must read. Some of the file's requests fail: the guest tries again.
 * A failure prints the seed that replays it.
 */
#include "bochs-testing.h"
#include "repeats.h"

#include <stdio.h>
#include <stdlib.h>

#include "util/sim.h"

#define THREADS 3
#define GUESTS 3 /* per thread */
#define REQUESTS 12
#define RANGE ((DISK) / (THREADS * GUESTS))

typedef struct Scene {
    SimWorld *world;
    BlockBackend *blk;
    uint8_t model[DISK];
    int started;
    int running;
    const char *wrong; /* what was found first */
} Scene;

static void wrong(Scene *scene, const char *what)
{
    if (!scene->wrong) {
        scene->wrong = what;
    }
}

/* ---- Guests ---------------------------------------------------------------------------- */

static void coroutine_fn check_read(Scene *scene, int range)
{
    g_autofree uint8_t *buf = g_malloc(RANGE);
    int ret = -EIO;

    for (int tries = 0; tries < 10 && ret == -EIO; tries++) {
        ret = blk_co_pread(scene->blk, range * RANGE, RANGE, buf, 0);
    }
    if (ret < 0) {
        wrong(scene, "a read failed");
    } else if (memcmp(buf, scene->model + range * RANGE, RANGE) != 0) {
        wrong(scene, "a read returned something else than was written");
    }
}

static int coroutine_fn send(Scene *scene, int op, int64_t offset, int64_t bytes, uint8_t *buf)
{
    switch (op) {
    case 0:
        return blk_co_pwrite_zeroes(scene->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    case 1:
        return blk_co_pdiscard(scene->blk, offset, bytes);
    case 2:
        return blk_co_flush(scene->blk);
    default:
        return blk_co_pwrite(scene->blk, offset, bytes, buf, op == 3 ? BDRV_REQ_FUA : 0);
    }
}

static void note(Scene *scene, int op, int64_t offset, int64_t bytes, const uint8_t *buf)
{
    int64_t first = (offset + SECTOR - 1) / SECTOR * SECTOR;
    int64_t last = (offset + bytes) / SECTOR * SECTOR;

    if (op == 0) {
        memset(scene->model + offset, 0, bytes);
    } else if (op == 1 && first < last) {
        memset(scene->model + first, 0, last - first);
    } else if (op > 2) {
        memcpy(scene->model + offset, buf, bytes);
    }
}

static void coroutine_fn one_request(Scene *scene, int range)
{
    int64_t offset = sim_world_random(scene->world, RANGE);
    int64_t most = sim_world_random(scene->world, 2) ? RANGE : 2 * SECTOR;
    int64_t bytes = 1 + sim_world_random(scene->world, MIN(RANGE - offset, most));
    g_autofree uint8_t *buf = g_malloc(bytes);
    int op = sim_world_random(scene->world, 9);
    int ret = -EIO;

    offset += range * RANGE;
    memset(buf, 1 + sim_world_random(scene->world, 255), bytes);
    for (int tries = 0; tries < 10 && ret == -EIO; tries++) {
        ret = send(scene, op, offset, bytes, buf);
    }
    if (ret < 0) {
        wrong(scene, "a change failed");
    }
    note(scene, op, offset, bytes, buf);
}

static void coroutine_fn guest(void *opaque)
{
    Scene *scene = opaque;
    int range = scene->started++;

    for (int i = 0; i < REQUESTS; i++) {
        one_request(scene, range);
        check_read(scene, range);
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
    for (int i = 0; i < GUESTS; i++) {
        coroutine_enter(coroutine_create(guest, opaque));
    }
}

/* ---- Worlds ---------------------------------------------------------------------------- */

/* Open the image of the test, with requests that fail once if @rand says so. */
static BlockBackend *open_image(const char *path, GRand *rand)
{
    GString *text = g_string_new("driver=bochs,discard=unmap,file.driver=blkdebug");
    g_autofree char *options = NULL;

    g_string_append_printf(text, ",file.image.driver=file,file.image.filename=%s", path);
    for (int i = 0; rand && i < 4; i++) {
        g_string_append_printf(text, ",file.inject-error.%d.event=none,file.inject-error.%d.once=on"
                               ",file.inject-error.%d.after=%d", i, i, i,
                               2 + g_rand_int_range(rand, 0, 300));
    }
    options = g_string_free(text, false);
    return open_blk(options_of("%s", options), BDRV_O_RDWR | BDRV_O_NO_FLUSH);
}

/* The disk, as it is in the file. */
static void check_file(Scene *scene, const char *path)
{
    g_autofree uint8_t *buf = g_malloc(DISK);
    BlockBackend *blk = open_image(path, NULL);

    if (blk_pread(blk, 0, DISK, buf, 0) < 0 || memcmp(buf, scene->model, DISK) != 0) {
        wrong(scene, "after reopening the disk is another");
    }
    blk_unref(blk);
}

static bool writes_in_world(SimWorld *world, void *opaque)
{
    g_autoptr(Image) image = image_new(2);
    g_autofree char *path = image_save(image, "image");
    g_autoptr(GRand) rand = g_rand_new_with_seed(sim_world_random(world, 1 << 30));
    g_autofree Scene *scene = g_new0(Scene, 1);
    AioContext *contexts[THREADS];
    int ret = -EIO;

    contexts[0] = sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    for (int i = 1; i < THREADS; i++) {
        contexts[i] = sim_world_add_context(world, "guest");
    }
    scene->world = world;
    scene->blk = open_image(path, rand);
    scene->running = THREADS * GUESTS;
    for (int i = 0; i < THREADS; i++) {
        aio_bh_oneshot(contexts[i], start_guests, scene);
    }
    if (!sim_world_run_until(world, guests_done, scene)) {
        wrong(scene, "a hang");
    } else {
        for (int tries = 0; tries < 10 && ret == -EIO; tries++) {
            ret = blk_flush(scene->blk);
        }
        if (ret < 0) {
            wrong(scene, "the flush failed");
        }
        blk_unref(scene->blk);
        check_file(scene, path);
        blockgraph_cleanup();
    }
    if (scene->wrong) {
        fprintf(stderr, "%s\n", scene->wrong);
    }
    return !scene->wrong;
}

static void guests_read_what_they_wrote_in_every_schedule(void **state)
{
    const char *count = g_getenv("BLOCKGRAPH_TEST_SEEDS");
    int seeds = count ? atoi(count) : repeats(200, 20);

    assert_int_equal(sim_try_seeds(seeds, writes_in_world, NULL), 0);
}

static int setup(void **state)
{
    test_dir = g_dir_make_tmp("blockgraph-XXXXXX", NULL);
    return test_dir ? 0 : -1;
}

static int teardown(void **state)
{
    g_autofree char *path = test_path("image");

    g_remove(path);
    g_rmdir(test_dir);
    g_free(test_dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guests_read_what_they_wrote_in_every_schedule),
    };

    return cmocka_run_group_tests_name("bochs-sim", tests, setup, teardown);
}
