/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph changes while four threads read, as coroutines and by callbacks, which
 * may pass through: every request sees one state of the graph or the other, whole,
 * and none is lost.
 */
#include "aio-request.h"

#define THREADS 4
#define REQUESTS 4 /* in flight, per thread */
#define CHANGES 60
#define SIZE (64 << 10)

/* Readers, and what they may see. */
typedef struct Load {
    BlockBackend *blk;
    bool may_be_revoked;
    int stop;    /* atomic */
    int running; /* atomic: coroutines */
    uint64_t reads; /* atomic: that gave data */
    uint64_t no_medium; /* atomic */
} Load;

static void check_read(Load *load, const uint8_t *buf, size_t size, int ret)
{
    if (ret == -ENOMEDIUM && load->may_be_revoked) {
        __atomic_fetch_add(&load->no_medium, 1, __ATOMIC_RELAXED);
        return;
    }
    assert_int_equal(ret, 0);
    assert_true(buf[0] == 'a' || buf[0] == 'b');
    for (size_t i = 1; i < size; i++) {
        if (buf[i] != buf[0]) {
            fail_msg("byte %zu is '%c' after '%c'", i, buf[i], buf[0]);
        }
    }
    __atomic_fetch_add(&load->reads, 1, __ATOMIC_RELAXED);
}

static void coroutine_fn reader(void *opaque)
{
    Load *load = opaque;
    uint32_t seed = GPOINTER_TO_UINT(coroutine_self());

    while (!__atomic_load_n(&load->stop, __ATOMIC_ACQUIRE)) {
        uint8_t buf[1000];
        int64_t offset;

        seed = seed * 1664525 + 1013904223;
        offset = (seed >> 8) % (SIZE - sizeof(buf));
        check_read(load, buf, sizeof(buf),
                   seed & 256 ? blk_co_pread(load->blk, offset, sizeof(buf), buf, 0)
                              : aio_request(load->blk, false, offset, sizeof(buf), buf));
        co_sleep_ns(0);
    }
    __atomic_fetch_sub(&load->running, 1, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static void start_readers(void *opaque)
{
    for (int i = 0; i < REQUESTS; i++) {
        coroutine_enter(coroutine_create(reader, opaque));
    }
}

static void load_start(Load *load, AioThread **threads)
{
    load->running = THREADS * REQUESTS;
    for (int i = 0; i < THREADS; i++) {
        GError *err = NULL;

        threads[i] = aio_thread_new("reader", AIO_ENGINE_DEFAULT, &err);
        assert_ok(threads[i] != NULL, err);
        aio_bh_oneshot(aio_thread_get_context(threads[i]), start_readers, load);
    }
}

/* Let the readers get some data through between two changes. */
static void load_progress(Load *load, uint64_t *counter)
{
    uint64_t from = __atomic_load_n(counter, __ATOMIC_RELAXED);

    while (__atomic_load_n(counter, __ATOMIC_RELAXED) < from + 8) {
        aio_poll(aio_context_main(), false);
    }
}

static void load_stop(Load *load, AioThread **threads)
{
    __atomic_store_n(&load->stop, 1, __ATOMIC_RELEASE);
    AIO_WAIT_WHILE(__atomic_load_n(&load->running, __ATOMIC_ACQUIRE) > 0);
    for (int i = 0; i < THREADS; i++) {
        aio_thread_stop(threads[i]);
    }
}

static BlockDriverState *filled_node(const char *name, int byte)
{
    g_autofree char *text = g_strdup_printf("driver=memory,size=%d,node-name=%s", SIZE, name);
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    GError *err = NULL;
    BlockBackend *blk = blk_new(NULL, BLK_PERM_WRITE, BLK_PERM_ALL, &err);
    g_autofree char *data = g_malloc(SIZE);
    bool ok = blk_insert_bs(blk, bs, &err);

    assert_ok(ok, err);
    memset(data, byte, SIZE);
    assert_int_equal(blk_pwrite(blk, 0, SIZE, data, 0), 0);
    blk_unref(blk);
    return bs;
}

static BlockBackend *backend_on(const char *name, BlockDriverState *bs)
{
    GError *err = NULL;
    BlockBackend *blk = blk_new(name, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
    bool ok = blk && blk_insert_bs(blk, bs, &err);

    assert_ok(ok, err);
    return blk;
}

static void drained_sections_come_and_go_while_four_threads_read(void **state)
{
    BlockDriverState *a = filled_node("a", 'a');
    BlockDriverState *raw = open_node_with("driver=raw,file=a", 0);
    Load load = {.blk = backend_on(NULL, raw)};
    AioThread *threads[THREADS];

    load_start(&load, threads);
    for (int i = 0; i < CHANGES; i++) {
        uint64_t before;

        load_progress(&load, &load.reads);
        bdrv_drained_begin(i % 2 ? a : raw);
        before = __atomic_load_n(&load.reads, __ATOMIC_RELAXED);
        bdrv_drained_begin(raw);
        bdrv_drained_end(raw);
        while (aio_poll(aio_context_main(), false)) {
        }
        /* A reader may still be counting what it has; no new one gets in. */
        assert_true(__atomic_load_n(&load.reads, __ATOMIC_RELAXED) <=
                    before + THREADS * REQUESTS);
        bdrv_drained_end(i % 2 ? a : raw);
    }
    load_stop(&load, threads);
    blk_unref(load.blk);
    bdrv_unref(raw);
    bdrv_unref(a);
}

static void nodes_are_replaced_while_four_threads_read(void **state)
{
    BlockDriverState *a = filled_node("a", 'a'), *b = filled_node("b", 'b');
    BlockDriverState *raw = open_node_with("driver=raw,file=a", 0);
    Load load = {.blk = backend_on(NULL, raw)};
    AioThread *threads[THREADS];
    GError *err = NULL;

    load_start(&load, threads);
    for (int i = 0; i < CHANGES; i++) {
        load_progress(&load, &load.reads);
        assert_ok(i % 2 ? bdrv_replace_node(b, a, &err) : bdrv_replace_node(a, b, &err), err);
    }
    load_stop(&load, threads);
    blk_unref(load.blk);
    bdrv_unref(raw);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void media_change_while_four_threads_read(void **state)
{
    BlockDriverState *a = filled_node("a", 'a'), *b = filled_node("b", 'b');
    Load load = {.blk = backend_on("disk0", a), .may_be_revoked = true};
    AioThread *threads[THREADS];
    GError *err = NULL;

    load_start(&load, threads);
    for (int i = 0; i < CHANGES; i++) {
        load_progress(&load, &load.reads);
        if (i % 3 == 2) {
            blk_remove_bs(load.blk);
            load_progress(&load, &load.no_medium);
            assert_ok(blk_insert_bs(load.blk, a, &err), err);
        } else {
            assert_ok(blk_replace_bs(load.blk, i % 2 ? a : b, &err), err);
        }
    }
    load_stop(&load, threads);
    blk_unref(load.blk);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void revoking_while_four_threads_read(void **state)
{
    BlockDriverState *a = filled_node("a", 'a');

    for (int i = 0; i < 10; i++) {
        Load load = {.blk = backend_on("disk0", a), .may_be_revoked = true};
        BlockBackend *namesake;
        AioThread *threads[THREADS];

        load_start(&load, threads);
        load_progress(&load, &load.reads);
        blk_revoke(load.blk);
        assert_int_equal(bdrv_get_refcount(a), 1);
        namesake = backend_on("disk0", a);
        load_progress(&load, &load.no_medium);
        load_stop(&load, threads);
        blk_unref(load.blk);
        assert_ptr_equal(blk_by_name("disk0"), namesake);
        blk_unref(namesake);
    }
    bdrv_unref(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drained_sections_come_and_go_while_four_threads_read),
        cmocka_unit_test(nodes_are_replaced_while_four_threads_read),
        cmocka_unit_test(media_change_while_four_threads_read),
        cmocka_unit_test(revoking_while_four_threads_read),
    };

    return cmocka_run_group_tests(tests, blockgraph_group_setup, blockgraph_group_teardown);
}
