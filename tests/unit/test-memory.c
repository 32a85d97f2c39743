/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory driver: a flat model, space that comes and goes, block status,
 * and requests from several threads.
 */
#include "driver-testing.h"

#define PAGE 65536LL
#define MiB (1LL << 20)

static int64_t allocated(BlockBackend *blk)
{
    return bdrv_get_allocated_file_size(blk_bs(blk));
}

static void a_size_is_required_and_bounded(void **state)
{
    assert_open_fails(options_of("driver=memory"), 0, "requires a size");
    assert_open_fails(options_of("driver=memory,size=9223372036854775807"), 0, "too large");
    assert_open_fails(options_of("driver=memory,size=-1"), 0, "size");
}

static void the_size_may_be_in_the_filename(void **state)
{
    GError *err = NULL;
    BlockBackend *blk = blk_new_open("memory:3M", NULL, BDRV_O_PROTOCOL, NULL, &err);

    assert_ok(blk != NULL, err);
    assert_int_equal(blk_getlength(blk), 3 * MiB);
    blk_unref(blk);
}

static void random_operations_match_a_flat_model(void **state)
{
    const int64_t size = 20 * PAGE + 512;
    BlockBackend *blk = open_blk(options_of("driver=memory,size=%d", (int)size),
                                 BDRV_O_RDWR | BDRV_O_UNMAP);
    g_autofree uint8_t *model = g_malloc0(size);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    for (int i = 0; i < 400; i++) {
        int64_t offset = g_rand_int_range(rand, 0, size);
        int64_t bytes = g_rand_int_range(rand, 1, MIN(size - offset, 3 * PAGE) + 1);
        g_autofree uint8_t *data = pattern(bytes, i);

        switch (g_rand_int_range(rand, 0, 3)) {
        case 0:
            assert_int_equal(blk_pwrite(blk, offset, bytes, data, BDRV_REQ_FUA), 0);
            memcpy(model + offset, data, bytes);
            break;
        case 1:
            assert_int_equal(blk_pwrite_zeroes(blk, offset, bytes, 0), 0);
            memset(model + offset, 0, bytes);
            break;
        default:
            assert_reads(blk, offset, bytes, model + offset);
        }
    }
    assert_reads(blk, 0, size, model);
    blk_unref(blk);
}

static void pages_come_with_writes_and_go_with_discards(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=memory,size=64T"),
                                 BDRV_O_RDWR | BDRV_O_UNMAP);
    const int64_t far = 40LL << 40;
    uint8_t byte = 1;

    assert_int_equal(allocated(blk), 0);
    assert_int_equal(blk_pwrite(blk, far + 5, 1, &byte, 0), 0);
    assert_int_equal(blk_pwrite(blk, 0, 1, &byte, 0), 0);
    assert_int_equal(allocated(blk), 2 * PAGE);
    assert_int_equal(blk_pdiscard(blk, far + 1, PAGE - 1), 0); /* not the whole page */
    assert_int_equal(allocated(blk), 2 * PAGE);
    assert_reads(blk, far, PAGE, NULL);
    assert_int_equal(blk_pdiscard(blk, far, PAGE), 0);
    assert_int_equal(allocated(blk), PAGE);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 64LL << 40, 0), 0);
    assert_int_equal(allocated(blk), 0);
    blk_unref(blk);
}

static void block_status_tells_pages_from_holes(void **state)
{
    const int64_t size = 1LL << 40;
    BlockBackend *blk = open_blk(options_of("driver=memory,size=1T"), BDRV_O_RDWR);
    uint8_t byte = 1;

    assert_status(blk, 0, size, BDRV_BLOCK_ZERO);
    for (int i = 3; i < 6; i++) {
        assert_int_equal(blk_pwrite(blk, i * PAGE + 9, 1, &byte, 0), 0);
    }
    assert_int_equal(blk_pwrite(blk, size - 1, 1, &byte, 0), 0);
    assert_status(blk, 0, 3 * PAGE, BDRV_BLOCK_ZERO);
    assert_status(blk, 100, 3 * PAGE - 100, BDRV_BLOCK_ZERO);
    assert_status(blk, 3 * PAGE, 3 * PAGE, BDRV_BLOCK_DATA);
    assert_status(blk, 4 * PAGE + 1, 2 * PAGE - 1, BDRV_BLOCK_DATA);
    assert_status(blk, 6 * PAGE, size - 7 * PAGE, BDRV_BLOCK_ZERO);
    assert_status(blk, size - PAGE, PAGE, BDRV_BLOCK_DATA);
    blk_unref(blk);
}

static void what_was_cut_off_does_not_come_back(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=memory,size=1M"),
                                 BDRV_O_RDWR | BDRV_O_RESIZE);
    g_autofree uint8_t *data = pattern(MiB, 2);
    GError *err = NULL;

    assert_int_equal(blk_pwrite(blk, 0, MiB, data, 0), 0);
    assert_int_equal(blk_truncate(blk, 1024, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(allocated(blk), PAGE);
    assert_int_equal(blk_truncate(blk, 2 * MiB, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), 2 * MiB);
    assert_reads(blk, 0, 1024, data);
    assert_reads(blk, 1024, 2 * MiB - 1024, NULL);
    assert_int_equal(blk_truncate(blk, 3 * MiB, true, BLOCK_PREALLOC_FULL, &err), -ENOTSUP);
    assert_error_has(&err, "full");
    blk_unref(blk);
}

/* ---- Threads --------------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS 200

typedef struct Worker {
    BlockBackend *blk;
    int number;
    int failures;
    bool done; /* atomic */
} Worker;

/* Each worker has a part of each page for itself, and discards none of it. */
static void coroutine_fn work(void *opaque)
{
    Worker *w = opaque;
    int64_t part = PAGE / THREADS;
    g_autofree uint8_t *out = g_malloc(part);
    g_autofree uint8_t *in = g_malloc(part);

    for (int i = 0; i < ROUNDS; i++) {
        int64_t offset = i % 16 * PAGE + w->number * part;

        memset(out, i + w->number, part);
        w->failures += blk_co_pwrite(w->blk, offset, part, out, 0) != 0;
        w->failures += blk_co_pread(w->blk, offset, part, in, 0) != 0;
        w->failures += memcmp(in, out, part) != 0;
        /* A part of the disk that is everybody's. */
        w->failures += blk_co_pwrite(w->blk, (16 + i % 4) * PAGE, part, out, 0) != 0;
        w->failures += blk_co_pwrite_zeroes(w->blk, 16 * PAGE, 4 * PAGE, 0) != 0;
    }
    __atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static void start_work(void *opaque)
{
    coroutine_enter(coroutine_create(work, opaque));
}

static void threads_do_not_disturb_each_other(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=memory,size=2M"),
                                 BDRV_O_RDWR | BDRV_O_UNMAP);
    AioThread *threads[THREADS];
    Worker workers[THREADS];

    for (int i = 0; i < THREADS; i++) {
        threads[i] = aio_thread_new("worker", AIO_ENGINE_DEFAULT, NULL);
        workers[i] = (Worker){blk, i, 0, false};
        aio_bh_oneshot(aio_thread_get_context(threads[i]), start_work, &workers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        AIO_WAIT_WHILE(!__atomic_load_n(&workers[i].done, __ATOMIC_ACQUIRE));
        aio_thread_stop(threads[i]);
        assert_int_equal(workers[i].failures, 0);
    }
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_size_is_required_and_bounded),
        cmocka_unit_test(the_size_may_be_in_the_filename),
        cmocka_unit_test(random_operations_match_a_flat_model),
        cmocka_unit_test(pages_come_with_writes_and_go_with_discards),
        cmocka_unit_test(block_status_tells_pages_from_holes),
        cmocka_unit_test(what_was_cut_off_does_not_come_back),
        cmocka_unit_test(threads_do_not_disturb_each_other),
    };

    return cmocka_run_group_tests_name("memory", tests, blockgraph_group_setup,
                                       blockgraph_group_teardown);
}
