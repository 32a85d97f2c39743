/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: threads read one image at once, through a cache that holds two slices
 * and is loaded anew all the time, and every read gives what it should.
 */
#include "qcow2-testing.h"

#define THREADS 4
#define READS 300
#define MAX_READ 3000

typedef struct Reader {
    BlockBackend *blk;
    const uint8_t *expected;
    int64_t length;
    uint32_t seed;
    GMutex lock;
    GCond cond;
    bool done;   /* under lock */
    int failure; /* under lock */
} Reader;

static void coroutine_fn read_at_random(void *opaque)
{
    Reader *r = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(r->seed);
    g_autofree uint8_t *buf = g_malloc(MAX_READ);
    int ret = 0;

    for (int i = 0; i < READS && ret == 0; i++) {
        int64_t offset = g_rand_int_range(rand, 0, r->length);
        int64_t bytes = g_rand_int_range(rand, 1, MAX_READ);

        bytes = MIN(bytes, r->length - offset);
        ret = blk_co_pread(r->blk, offset, bytes, buf, 0);
        if (ret == 0 && memcmp(buf, r->expected + offset, bytes) != 0) {
            ret = -EBADMSG;
        }
    }
    g_mutex_lock(&r->lock);
    r->done = true;
    r->failure = ret;
    g_cond_signal(&r->cond);
    g_mutex_unlock(&r->lock);
}

static void start_reading(void *opaque)
{
    coroutine_enter(coroutine_create(read_at_random, opaque));
}

static void wait_for(Reader *r)
{
    g_mutex_lock(&r->lock);
    while (!r->done) {
        g_cond_wait(&r->cond, &r->lock);
    }
    g_mutex_unlock(&r->lock);
    assert_int_equal(r->failure, 0);
}

static void read_from_all_threads(const char *name)
{
    g_autofree char *path = fixture_path(name);
    BlockBackend *blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s,"
                                            "l2-cache-size=1k,l2-cache-entry-size=512",
                                            path),
                                 0);
    int64_t length = blk_getlength(blk);
    g_autofree uint8_t *expected = g_malloc(length);
    AioThread *threads[THREADS];
    Reader readers[THREADS];

    assert_int_equal(blk_pread(blk, 0, length, expected, 0), 0);
    for (int i = 0; i < THREADS; i++) {
        readers[i] = (Reader){ .blk = blk, .expected = expected, .length = length, .seed = i };
        g_mutex_init(&readers[i].lock);
        g_cond_init(&readers[i].cond);
        threads[i] = aio_thread_new("reader", AIO_ENGINE_DEFAULT, NULL);
        assert_non_null(threads[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        aio_bh_oneshot(aio_thread_get_context(threads[i]), start_reading, &readers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        wait_for(&readers[i]);
        aio_thread_stop(threads[i]);
        g_cond_clear(&readers[i].cond);
        g_mutex_clear(&readers[i].lock);
    }
    blk_unref(blk);
}

static void many_l2_tables(void **state)
{
    read_from_all_threads("v3.qcow2");
}

static void compressed_clusters(void **state)
{
    read_from_all_threads("deflate.qcow2");
    read_from_all_threads("zstd.qcow2");
}

static void subclusters(void **state)
{
    read_from_all_threads("extended-l2.qcow2");
}

static void backing_chain(void **state)
{
    read_from_all_threads("backing-overlay.qcow2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_l2_tables),
        cmocka_unit_test(compressed_clusters),
        cmocka_unit_test(subclusters),
        cmocka_unit_test(backing_chain),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
