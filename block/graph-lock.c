/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph lock. Readers count in a cache line of their own thread; the
 * writer, always the main thread, raises a flag and waits until the counts add
 * up to nothing.
 *
 * A coroutine may give the lock back on another thread than it took it on, so
 * only the sum of the counts means something. While the flag is up nobody
 * joins for good, so the sum the writer reads can only be too high.
 *
 * The writer polls while it waits, and what runs then may wait for requests,
 * or change the graph, itself: a nested wait takes the flag down meanwhile, or
 * readers would wait for a writer who waits, further up the same stack, for
 * them. A nested writer goes first.
 *
 * Each function that takes or gives back the lock is defined under a plain
 * name and given its public, annotated name as an alias: the annotations are
 * for callers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "block/block-int.h"
#include "util/fatal.h"

typedef struct GraphReaders GraphReaders;
struct GraphReaders {
    long count; /* atomic; written by its own thread only */
    GraphReaders *next;
    GraphReaders *prev;
} __attribute__((aligned(64)));

static struct {
    GMutex mutex;         /* protects all, the counts excepted */
    GraphReaders *threads;
    long departed;        /* what threads that have ended leave */
    CoQueue waiting;      /* readers */
} registry;
static int has_writer; /* atomic */
/* Main thread only: */
static bool writer_holds;   /* the writer has what it waited for */
static int outer_has_writer; /* has_writer goes back to this when it is done */

BdrvGraphLock *const graph_lock;

static void readers_free(gpointer data)
{
    GraphReaders *r = data;

    g_mutex_lock(&registry.mutex);
    registry.departed += r->count;
    if (r->prev) {
        r->prev->next = r->next;
    } else {
        registry.threads = r->next;
    }
    if (r->next) {
        r->next->prev = r->prev;
    }
    g_mutex_unlock(&registry.mutex);
    free(r);
}

static GPrivate readers_key = G_PRIVATE_INIT(readers_free);

static G_GNUC_NO_INLINE GraphReaders *readers_new(void)
{
    GraphReaders *r = aligned_alloc(_Alignof(GraphReaders), sizeof(*r));

    if (!r) {
        fatal("out of memory");
    }
    *r = (GraphReaders){0};
    g_mutex_lock(&registry.mutex);
    r->next = registry.threads;
    if (r->next) {
        r->next->prev = r;
    }
    registry.threads = r;
    g_mutex_unlock(&registry.mutex);
    g_private_set(&readers_key, r);
    return r;
}

/* Not inlined: the thread may be another one after each wait. */
static G_GNUC_NO_INLINE void readers_add(long n)
{
    GraphReaders *r = g_private_get(&readers_key);

    if (!r) {
        r = readers_new();
    }
    __atomic_store_n(&r->count, r->count + n, __ATOMIC_SEQ_CST);
}

void bdrv_graph_count_in(void)
{
    GraphReaders *r = g_private_get(&readers_key);

    if (!r) {
        r = readers_new();
    }
    __atomic_store_n(&r->count, r->count + 1, __ATOMIC_RELAXED);
}

void bdrv_graph_count_out(void)
{
    GraphReaders *r = g_private_get(&readers_key);

    __atomic_store_n(&r->count, r->count - 1, __ATOMIC_RELEASE);
}

bool bdrv_graph_has_writer(void)
{
    return __atomic_load_n(&has_writer, __ATOMIC_ACQUIRE);
}

static long readers_sum(void)
{
    long sum;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    g_mutex_lock(&registry.mutex);
    sum = registry.departed;
    for (GraphReaders *r = registry.threads; r; r = r->next) {
        sum += __atomic_load_n(&r->count, __ATOMIC_SEQ_CST);
    }
    g_mutex_unlock(&registry.mutex);
    return sum;
}

static void coroutine_fn co_rdlock(void)
{
    uintptr_t *depth = coroutine_local(COROUTINE_LOCAL_GRAPH_LOCK);

    if ((*depth)++ > 0) {
        return;
    }
    for (;;) {
        readers_add(1);
        if (!__atomic_load_n(&has_writer, __ATOMIC_SEQ_CST)) {
            return;
        }
        readers_add(-1);
        aio_wait_kick();
        g_mutex_lock(&registry.mutex);
        if (__atomic_load_n(&has_writer, __ATOMIC_SEQ_CST)) {
            co_queue_wait_gmutex(&registry.waiting, &registry.mutex);
        }
        g_mutex_unlock(&registry.mutex);
    }
}

static void coroutine_fn co_rdunlock(void)
{
    uintptr_t *depth = coroutine_local(COROUTINE_LOCAL_GRAPH_LOCK);

    if (*depth == 0) {
        fatal("graph lock: given back by a coroutine that does not hold it");
    }
    if (--*depth > 0) {
        return;
    }
    readers_add(-1);
    if (__atomic_load_n(&has_writer, __ATOMIC_SEQ_CST)) {
        aio_wait_kick();
    }
}

static void co_inherit(void)
{
    (*coroutine_local(COROUTINE_LOCAL_GRAPH_LOCK))++;
}

static void co_disinherit(void)
{
    (*coroutine_local(COROUTINE_LOCAL_GRAPH_LOCK))--;
}

static void rdlock_main_loop(void)
{
    GLOBAL_STATE_CODE();
    if (in_coroutine()) {
        fatal("graph lock: read as the main loop inside of a coroutine");
    }
}

static void rdunlock_main_loop(void)
{
    GLOBAL_STATE_CODE();
}

static void wrlock(void)
{
    int outer;

    GLOBAL_STATE_CODE();
    if (in_coroutine()) {
        fatal("graph lock: taken exclusively inside of a coroutine");
    }
    if (writer_holds) {
        fatal("graph lock: taken exclusively twice");
    }
    outer = __atomic_exchange_n(&has_writer, 1, __ATOMIC_SEQ_CST);
    if (readers_sum() > 0) {
        bdrv_drain_drivers_begin(); /* or we may wait for what a throttle holds back */
        AIO_WAIT_WHILE(readers_sum() > 0);
        bdrv_drain_drivers_end();
    }
    writer_holds = true;
    outer_has_writer = outer;
}

static void let_readers_in(void)
{
    g_mutex_lock(&registry.mutex);
    __atomic_store_n(&has_writer, 0, __ATOMIC_SEQ_CST);
    co_queue_wake_all(&registry.waiting);
    g_mutex_unlock(&registry.mutex);
}

static void wrunlock(void)
{
    GLOBAL_STATE_CODE();
    writer_holds = false;
    if (!outer_has_writer) {
        let_readers_in();
    }
}

bool bdrv_graph_pause_writer(void)
{
    GLOBAL_STATE_CODE();
    if (writer_holds) {
        fatal("graph lock: waiting for requests while it is held exclusively");
    }
    if (!__atomic_load_n(&has_writer, __ATOMIC_SEQ_CST)) {
        return false;
    }
    let_readers_in();
    return true;
}

void bdrv_graph_resume_writer(bool paused)
{
    if (paused) {
        __atomic_store_n(&has_writer, 1, __ATOMIC_SEQ_CST);
    }
}

static bool is_main_loop(void)
{
    AioContext *main_ctx = aio_context_main();

    return main_ctx && aio_context_is_home(main_ctx) && bql_locked() && !in_coroutine();
}

static void assert_readable(void)
{
    if (*coroutine_local(COROUTINE_LOCAL_GRAPH_LOCK) == 0 && !is_main_loop()) {
        fatal("graph lock: not held");
    }
}

static void assert_writable(void)
{
    if (!is_main_loop() || !writer_holds) {
        fatal("graph lock: not held exclusively");
    }
}

#define PUBLIC_NAME(name, body) __typeof__(name) name __attribute__((alias(#body)))
PUBLIC_NAME(bdrv_graph_co_rdlock, co_rdlock);
PUBLIC_NAME(bdrv_graph_co_rdunlock, co_rdunlock);
PUBLIC_NAME(bdrv_graph_co_inherit, co_inherit);
PUBLIC_NAME(bdrv_graph_co_disinherit, co_disinherit);
PUBLIC_NAME(bdrv_graph_rdlock_main_loop, rdlock_main_loop);
PUBLIC_NAME(bdrv_graph_rdunlock_main_loop, rdunlock_main_loop);
PUBLIC_NAME(bdrv_graph_wrlock, wrlock);
PUBLIC_NAME(bdrv_graph_wrunlock, wrunlock);
PUBLIC_NAME(bdrv_graph_assert_readable, assert_readable);
PUBLIC_NAME(bdrv_graph_assert_writable, assert_writable);

void bdrv_assert_global_state(const char *function)
{
    AioContext *main_ctx = aio_context_main();

    if (!bql_locked() || !main_ctx || !aio_context_is_home(main_ctx)) {
        fatal("%s: called without the big lock or outside of the main thread", function);
    }
}

void bdrv_assert_io(const char *function)
{
    if (!aio_context_current()) {
        fatal("%s: called on a thread without an AioContext", function);
    }
}
