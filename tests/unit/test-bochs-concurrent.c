/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads write one Bochs image at once, each in a range of its own that shares
 * extents and sectors with its neighbours', and read back what they wrote.
 */
#include "bochs-testing.h"

#define THREADS 4
#define GUESTS 2 /* per thread */
#define REQUESTS 150
#define RANGE (DISK / (THREADS * GUESTS))

typedef struct Scene {
    BlockBackend *blk;
    uint8_t model[DISK]; /* each guest has its part */
    int started; /* atomic */
    GMutex lock;
    GCond cond;
    int running; /* under lock */
    int failure; /* under lock */
} Scene;

static int coroutine_fn one_request(Scene *scene, GRand *rand, uint8_t *own, int64_t start)
{
    int64_t offset = g_rand_int_range(rand, 0, RANGE);
    int64_t bytes = g_rand_int_range(rand, 1, MIN(RANGE - offset, 4000) + 1);
    g_autofree uint8_t *buf = g_malloc(RANGE);
    int op = g_rand_int_range(rand, 0, 8), ret;

    if (op == 0) {
        ret = blk_co_flush(scene->blk);
    } else if (op < 3) {
        ret = blk_co_pwrite_zeroes(scene->blk, start + offset, bytes, 0);
        memset(own + offset, 0, bytes);
    } else {
        memset(own + offset, g_rand_int_range(rand, 1, 256), bytes);
        ret = blk_co_pwrite(scene->blk, start + offset, bytes, own + offset, 0);
    }
    if (ret >= 0) {
        ret = blk_co_pread(scene->blk, start, RANGE, buf, 0);
    }
    return ret < 0 ? ret : memcmp(buf, own, RANGE) != 0 ? -EBADMSG : 0;
}

static void coroutine_fn guest(void *opaque)
{
    Scene *scene = opaque;
    int number = __atomic_fetch_add(&scene->started, 1, __ATOMIC_SEQ_CST), ret = 0;
    g_autoptr(GRand) rand = g_rand_new_with_seed(number);
    int64_t start = number * RANGE;

    for (int i = 0; i < REQUESTS && ret == 0; i++) {
        ret = one_request(scene, rand, scene->model + start, start);
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

static void each_guest_reads_what_it_wrote(void **state)
{
    g_autoptr(Image) image = image_new(2);
    g_autofree char *path = image_save(image, "threads");
    g_autofree Scene *scene = g_new0(Scene, 1);
    AioThread *threads[THREADS];

    g_mutex_init(&scene->lock);
    g_cond_init(&scene->cond);
    scene->running = THREADS * GUESTS;
    scene->blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = aio_thread_new("guest", AIO_ENGINE_DEFAULT, NULL);
        assert_non_null(threads[i]);
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
    assert_int_equal(scene->failure, 0);
    blk_unref(scene->blk);
    scene->blk = open_bochs(path, 0);
    assert_reads(scene->blk, 0, DISK, scene->model);
    blk_unref(scene->blk);
    g_cond_clear(&scene->cond);
    g_mutex_clear(&scene->lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_guest_reads_what_it_wrote),
    };

    return cmocka_run_group_tests_name("bochs-concurrent", tests, driver_group_setup,
                                       driver_group_teardown);
}
