/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads write, zero, discard, compress and read the same ranges of one qcow2
 * image at once: real ones, and simulated ones under seeded schedules. Every block
 * that is read was written there by somebody whose request nobody had replaced yet;
 * the image is whole in the end.
 */
#include "aio-request.h"
#include "qcow2-testing.h"
#include "repeats.h"

#include <inttypes.h>
#include <stdlib.h>

#include "util/sim.h"

#define KiB 1024LL
#define THREADS 4
#define GUESTS 2 /* per thread */
#define REQUESTS 120
#define FEW_REQUESTS 12 /* under one schedule */
#define BLOCK 512
#define WORDS (BLOCK / 8)
#define MAX_BLOCKS 160 /* of one request */
#define ZEROS 0
#define BASE UINT64_C(1) /* what the backing file has; requests count from 2 */

typedef struct Shape {
    const char *options;
    int64_t cluster;
    int64_t size;
    bool backing;
    bool compresses;
    const char *open; /* further options */
} Shape;

/* Small disks and smaller caches, so that a few requests meet. */
static const Shape small_shapes[] = {
    { "cluster_size=4k", 4 * KiB, 48 * KiB, true, true,
      ",pass-discard-request=on,pass-discard-other=on,cache-clean-interval=1" },
    { "cluster_size=512,lazy_refcounts=on", 512, 40 * KiB, false, true,
      ",l2-cache-size=1k,refcount-cache-size=512,overlap-check=all" },
    { "cluster_size=16k,extended_l2=on", 16 * KiB, 64 * KiB, true, true, "" },
    { "cluster_size=512,refcount_bits=64", 512, 80 * KiB, true, false,
      ",l2-cache-size=1k,refcount-cache-size=512" },
    { "cluster_size=4k", 4 * KiB, 48 * KiB, false, true,
      ",pass-discard-request=on,discard-no-unref=on" },
};

static const Shape shapes[] = {
    { "cluster_size=64k", 64 * KiB, 1024 * KiB, true, true, ",cache-clean-interval=1" },
    { "cluster_size=4k,lazy_refcounts=on", 4 * KiB, 256 * KiB, true, true,
      ",l2-cache-size=1k,l2-cache-entry-size=512,refcount-cache-size=4k" },
    { "cluster_size=16k,extended_l2=on", 16 * KiB, 512 * KiB, true, true, "" },
    { "cluster_size=512,refcount_bits=64", 512, 256 * KiB, false, false,
      ",l2-cache-size=1k,refcount-cache-size=512,overlap-check=all" },
    { "cluster_size=4k", 4 * KiB, 256 * KiB, false, true,
      ",pass-discard-request=on,pass-discard-other=on" },
    { "cluster_size=4k", 4 * KiB, 256 * KiB, true, true,
      ",pass-discard-request=on,discard-no-unref=on" },
};

/* A change, or a look at one block. */
typedef struct Op {
    int64_t first; /* blocks */
    int64_t count;
    bool is_read;
    uint64_t value; /* number of the change, or ZEROS; a look: what it found */
    uint64_t at_end; /* a look: in the block's last word, see may_be_torn */
    uint64_t begun; /* by Scene.clock */
    uint64_t ended;
} Op;

typedef struct Scene {
    const Shape *shape;
    BlockBackend *blk;
    int64_t blocks;
    int requests;   /* of each guest */
    uint64_t clock; /* atomic */
    uint32_t seed;
    /*
     * The kernel copies from its page cache while another thread copies to it: a block
     * that is read meanwhile can have two changes, one behind the other.
     */
    bool may_be_torn;
    int started;    /* atomic */
    Op ops[THREADS * GUESTS * REQUESTS + 1]; /* each guest has its part; then the base */
    GMutex lock;
    GCond cond;
    int running; /* under lock */
    int failure; /* under lock */
} Scene;

/* ---- What blocks say ---------------------------------------------------------------------- */

/* Each word says which change wrote it, and where. */
static void stamp(uint8_t *block, int64_t number, uint64_t value)
{
    uint64_t words[WORDS];

    for (int i = 0; i < WORDS; i++) {
        words[i] = value == ZEROS ? 0 : value << 32 | (number * WORDS + i);
    }
    memcpy(block, words, BLOCK);
}

/* Which change wrote @block, its beginning if @may_be_torn; false if it is of another place. */
static bool read_stamp(const uint8_t *block, int64_t number, bool may_be_torn, uint64_t *value)
{
    uint64_t words[WORDS];

    memcpy(words, block, BLOCK);
    *value = words[0] >> 32;
    for (int i = 0; i < WORDS; i++) {
        bool is_here = words[i] == 0 || (words[i] & UINT32_MAX) == number * WORDS + i;

        if (!is_here || (!may_be_torn && words[i] >> 32 != *value)) {
            return false;
        }
    }
    return true;
}

static uint64_t value_of(const uint8_t *block, int word)
{
    uint64_t value;

    memcpy(&value, block + word * sizeof(value), sizeof(value));
    return value >> 32;
}

static uint64_t tick(Scene *scene)
{
    return __atomic_add_fetch(&scene->clock, 1, __ATOMIC_SEQ_CST);
}

/* ---- Guests ------------------------------------------------------------------------------- */

static int coroutine_fn change(Scene *scene, GRand *rand, Op *op, uint64_t number)
{
    int64_t unit = scene->shape->cluster / BLOCK, offset, bytes;
    g_autofree uint8_t *buf = g_malloc(MAX_BLOCKS * BLOCK);
    int kind = g_rand_int_range(rand, 0, 10), flags = 0;

    if (kind == 1 || (kind == 2 && scene->shape->compresses)) { /* whole clusters */
        op->first -= op->first % unit;
        op->count = MIN(MAX(op->count / unit, 1) * unit, scene->blocks - op->first);
        op->count = MIN(op->count, MAX(MAX_BLOCKS / unit, 1) * unit);
        flags = kind == 2 ? BDRV_REQ_COMPRESSED : 0;
    }
    offset = op->first * BLOCK;
    bytes = op->count * BLOCK;
    if (kind == 1) {
        return blk_co_pdiscard(scene->blk, offset, bytes);
    }
    if (kind == 0 || kind == 3) {
        return blk_co_pwrite_zeroes(scene->blk, offset, bytes, kind ? BDRV_REQ_MAY_UNMAP : 0);
    }
    op->value = number;
    for (int64_t i = 0; i < op->count; i++) {
        stamp(buf + i * BLOCK, op->first + i, number);
    }
    /* Those with a callback may pass through. */
    return number % 2 && !flags ? aio_request(scene->blk, true, offset, bytes, buf)
                                : blk_co_pwrite(scene->blk, offset, bytes, buf, flags);
}

static int coroutine_fn look(Scene *scene, Op *op)
{
    g_autofree uint8_t *buf = g_malloc(MAX_BLOCKS * BLOCK);
    uint64_t value;
    int ret = aio_request(scene->blk, false, op->first * BLOCK, op->count * BLOCK, buf);

    for (int64_t i = 0; i < op->count && ret == 0; i++) {
        if (!read_stamp(buf + i * BLOCK, op->first + i, scene->may_be_torn, &value)) {
            ret = -EBADMSG;
        }
    }
    op->is_read = true;
    op->count = 1;
    op->value = value_of(buf, 0);
    op->at_end = value_of(buf, WORDS - 1);
    return ret;
}

static void coroutine_fn guest(void *opaque)
{
    Scene *scene = opaque;
    int self = __atomic_fetch_add(&scene->started, 1, __ATOMIC_SEQ_CST), ret = 0;
    g_autoptr(GRand) rand = g_rand_new_with_seed(self + scene->seed * THREADS * GUESTS);

    for (int i = 0; i < scene->requests && ret == 0; i++) {
        uint64_t number = self * REQUESTS + i;
        Op *op = &scene->ops[number];

        op->first = g_rand_int_range(rand, 0, scene->blocks);
        op->count = g_rand_int_range(rand, 1, MIN(MAX_BLOCKS, scene->blocks - op->first) + 1);
        op->begun = tick(scene);
        ret = i % 4 == 3 ? look(scene, op) : change(scene, rand, op, number + BASE + 1);
        op->ended = tick(scene);
        if (ret == 0 && i % 16 == self) {
            ret = blk_co_flush(scene->blk);
        }
    }
    g_mutex_lock(&scene->lock);
    scene->failure = scene->failure ? scene->failure : ret;
    scene->running--;
    g_cond_signal(&scene->cond);
    g_mutex_unlock(&scene->lock);
}

static void start_guests(void *opaque)
{
    for (int i = 0; i < GUESTS; i++) {
        coroutine_enter(coroutine_create(guest, opaque));
    }
}

/* ---- The verdict -------------------------------------------------------------------------- */

static bool is_change_of(const Op *op, int64_t block)
{
    return !op->is_read && op->begun && op->first <= block && block < op->first + op->count;
}

/*
 * Whether a look at @block from @begun to @ended may find @value: some change that wrote
 * it had begun, and none that began after that one's end was over when the look began.
 */
static bool may_find(const Scene *scene, int64_t block, uint64_t value, uint64_t begun,
                     uint64_t ended)
{
    uint64_t newest = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(scene->ops); i++) {
        if (is_change_of(&scene->ops[i], block) && scene->ops[i].ended < begun) {
            newest = MAX(newest, scene->ops[i].begun);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(scene->ops); i++) {
        const Op *op = &scene->ops[i];

        if (is_change_of(op, block) && op->value == value && op->begun < ended &&
            op->ended >= newest) {
            return true;
        }
    }
    return false;
}

static bool looks_are_true(const Scene *scene)
{
    for (size_t i = 0; i < G_N_ELEMENTS(scene->ops); i++) {
        const Op *op = &scene->ops[i];

        if (op->is_read && !(may_find(scene, op->first, op->value, op->begun, op->ended) &&
                             may_find(scene, op->first, op->at_end, op->begun, op->ended))) {
            print_error("%s: look %zu found change %" PRIu64 " in block %" PRId64 ", too old\n",
                        scene->shape->options, i, op->value, op->first);
            return false;
        }
    }
    return true;
}

static bool disk_is_true(Scene *scene)
{
    g_autofree uint8_t *disk = g_malloc(scene->shape->size);
    uint64_t now = tick(scene), value;

    assert_int_equal(blk_pread(scene->blk, 0, scene->shape->size, disk, 0), 0);
    for (int64_t i = 0; i < scene->blocks; i++) {
        if (!read_stamp(disk + i * BLOCK, i, false, &value) ||
            !may_find(scene, i, value, now, now + 1)) {
            print_error("%s: block %" PRId64 " has change %" PRIu64 ", too old or nobody's\n",
                        scene->shape->options, i, value);
            return false;
        }
    }
    return true;
}

/* ---- One image ---------------------------------------------------------------------------- */

static char *make_base(const Scene *scene)
{
    g_autofree uint8_t *data = g_malloc(scene->shape->size);

    for (int64_t i = 0; i < scene->blocks; i++) {
        stamp(data + i * BLOCK, i, BASE);
    }
    return make_file("base.raw", data, scene->shape->size);
}

static char *make_image(const Scene *scene)
{
    const Shape *shape = scene->shape;
    g_autofree char *base = shape->backing ? make_base(scene) : NULL;
    g_autofree char *backing =
        base ? g_strdup_printf(",backing_file=%s,backing_fmt=raw", base) : g_strdup("");
    g_autoptr(JsonObject) options =
        options_of("size=%" PRId64 ",%s%s", shape->size, shape->options, backing);
    char *path = test_path("threads.qcow2");
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

static BlockBackend *open_image(const Shape *shape, const char *path)
{
    return open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s%s", path,
                               shape->open),
                    BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
}

static bool is_whole(const char *path, const char *what)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;
    int ret = bdrv_check(blk_bs(blk), &r, NULL, NULL);
    bool whole = ret >= 0 && !r.corruptions && !r.check_errors && !r.leaks;

    blk_unref(blk);
    if (!whole) {
        print_error("%s: check: %d, %" PRId64 " corruptions, %" PRId64 " leaks\n", what, ret,
                    (int64_t)r.corruptions, (int64_t)r.leaks);
    }
    return whole;
}

static Scene *scene_new(const Shape *shape, int requests, uint32_t seed, char **path)
{
    Scene *scene = g_new0(Scene, 1);
    Op *base = &scene->ops[THREADS * GUESTS * REQUESTS];

    scene->shape = shape;
    scene->requests = requests;
    scene->seed = seed;
    scene->blocks = shape->size / BLOCK;
    scene->running = THREADS * GUESTS;
    g_mutex_init(&scene->lock);
    g_cond_init(&scene->cond);
    *path = make_image(scene);
    base->count = scene->blocks;
    base->value = shape->backing ? BASE : ZEROS;
    base->begun = tick(scene);
    base->ended = tick(scene);
    scene->blk = open_image(shape, *path);
    return scene;
}

/* The end of it; whether all was right. */
static bool scene_close(Scene *scene, const char *path)
{
    bool ok = scene->failure == 0 && looks_are_true(scene) && disk_is_true(scene);

    if (scene->failure) {
        print_error("%s: a request failed: %d\n", scene->shape->options, scene->failure);
    }
    blk_unref(scene->blk);
    ok = ok && is_whole(path, scene->shape->options);
    scene->blk = open_image(scene->shape, path);
    ok = ok && disk_is_true(scene);
    blk_unref(scene->blk);
    g_mutex_clear(&scene->lock);
    g_cond_clear(&scene->cond);
    g_free(scene);
    return ok;
}

/* ---- On real threads ------------------------------------------------------------------------ */

static void run_on_threads(Scene *scene)
{
    AioThread *threads[THREADS];

    scene->may_be_torn = true;
    for (int i = 0; i < THREADS; i++) {
        threads[i] = aio_thread_new("guest", AIO_ENGINE_DEFAULT, NULL);
        assert_non_null(threads[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        aio_bh_oneshot(aio_thread_get_context(threads[i]), start_guests, scene);
    }
    g_mutex_lock(&scene->lock);
    while (scene->running > 0) {
        g_cond_wait(&scene->cond, &scene->lock);
    }
    g_mutex_unlock(&scene->lock);
    for (int i = 0; i < THREADS; i++) {
        aio_thread_stop(threads[i]);
    }
}

static void what_is_read_was_written_there_and_not_replaced(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *path = NULL;
        int requests = RUNNING_ON_VALGRIND ? REQUESTS / 4 : REQUESTS; /* TSan is meant for these */
        Scene *scene = scene_new(&shapes[i], requests, 0, &path);

        run_on_threads(scene);
        assert_true(scene_close(scene, path));
    }
}

/* ---- Under schedules ------------------------------------------------------------------------- */

static bool guests_done(void *opaque)
{
    return ((Scene *)opaque)->running == 0;
}

static bool run_in_world(SimWorld *world, void *opaque)
{
    uint32_t seed = sim_world_random(world, UINT32_MAX);
    const Shape *shape = &small_shapes[seed % G_N_ELEMENTS(small_shapes)];
    AioContext *contexts[THREADS];
    g_autofree char *path = NULL;
    Scene *scene;
    bool ok;

    contexts[0] = sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    for (int i = 1; i < THREADS; i++) {
        contexts[i] = sim_world_add_context(world, "guest");
    }
    scene = scene_new(shape, FEW_REQUESTS, seed, &path);
    for (int i = 0; i < THREADS; i++) {
        aio_bh_oneshot(contexts[i], start_guests, scene);
    }
    if (!sim_world_run_until(world, guests_done, scene)) {
        print_error("%s: a hang\n", shape->options);
        return false;
    }
    ok = scene_close(scene, path);
    blockgraph_cleanup();
    return ok;
}

static void no_schedule_mixes_up_places(void **state)
{
    const char *count = g_getenv("BLOCKGRAPH_TEST_SEEDS");

    blockgraph_cleanup();
    assert_int_equal(sim_try_seeds(count ? atoi(count) : repeats(60, 10), run_in_world, NULL), 0);
    assert_true(blockgraph_init(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read_was_written_there_and_not_replaced),
        cmocka_unit_test(no_schedule_mixes_up_places),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
