/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoMutex, CoQueue and CoRwlock: order of service in one loop, exclusion
 * between four threads, and the messages for misuse.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "blockgraph/aio.h"
#include "tests/unit/death.h"

#define THREADS 4
#define PER_THREAD 8

static AioContext *main_ctx;
static unsigned running; /* atomic: coroutines that have not ended */

/* ---- Running coroutines ----------------------------------------------------- */

typedef struct Job {
    CoroutineEntry *entry;
    void *opaque;
} Job;

static void coroutine_fn run_job(void *opaque)
{
    Job *job = opaque;

    job->entry(job->opaque);
    g_free(job);
    if (__atomic_sub_fetch(&running, 1, __ATOMIC_ACQ_REL) == 0) {
        aio_notify(main_ctx);
    }
}

/* Have @entry(@opaque) run as a coroutine in @ctx. */
static void start(AioContext *ctx, CoroutineEntry *entry, void *opaque)
{
    Job *job = g_new(Job, 1);

    *job = (Job){ entry, opaque };
    __atomic_add_fetch(&running, 1, __ATOMIC_RELAXED);
    aio_co_schedule(ctx, coroutine_create(run_job, job));
}

static void wait_for_all(void)
{
    while (__atomic_load_n(&running, __ATOMIC_ACQUIRE) > 0) {
        aio_poll(main_ctx, true);
    }
}

/* Run @entry(@opaque) PER_THREAD times on each of THREADS threads. */
static void run_on_threads(CoroutineEntry *entry, void *opaque)
{
    AioThread *threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = aio_thread_new("test", AIO_ENGINE_DEFAULT, NULL);
        assert_non_null(threads[i]);
    }
    for (unsigned i = 0; i < THREADS * PER_THREAD; i++) {
        start(aio_thread_get_context(threads[i % THREADS]), entry, opaque);
    }
    wait_for_all();
    for (unsigned i = 0; i < THREADS; i++) {
        aio_thread_stop(threads[i]);
    }
}

static char trace[64];

static void note(char c)
{
    size_t len = strlen(trace);

    assert_true(len + 1 < sizeof(trace));
    trace[len] = c;
    trace[len + 1] = 0;
}

static int reset_trace(void **state)
{
    trace[0] = 0;
    return 0;
}

/* ---- CoMutex ------------------------------------------------------------------ */

static CoMutex mutex;

static void coroutine_fn hold_over_a_yield(void *opaque)
{
    char name = (char)(uintptr_t)opaque;

    co_mutex_lock(&mutex);
    co_mutex_assert_locked(&mutex);
    note(name);
    co_sleep_ns(0);
    note(name);
    co_mutex_unlock(&mutex);
}

static void mutex_is_given_in_order_of_arrival(void **state)
{
    co_mutex_init(&mutex);
    for (char c = 'a'; c <= 'e'; c++) {
        start(main_ctx, hold_over_a_yield, (void *)(uintptr_t)c);
    }
    wait_for_all();
    assert_string_equal(trace, "aabbccddee");
    co_mutex_destroy(&mutex);
}

static void coroutine_fn lock_again_at_once(void *opaque)
{
    char name = (char)(uintptr_t)opaque;

    co_mutex_lock(&mutex);
    co_sleep_ns(0);
    note(name);
    co_mutex_unlock(&mutex);
    co_mutex_lock(&mutex);
    note(name);
    co_mutex_unlock(&mutex);
}

static void mutex_is_not_taken_again_before_others_had_it(void **state)
{
    co_mutex_init(&mutex);
    start(main_ctx, lock_again_at_once, (void *)'a');
    start(main_ctx, lock_again_at_once, (void *)'b');
    start(main_ctx, lock_again_at_once, (void *)'c');
    wait_for_all();
    assert_string_equal(trace, "abcabc");
    co_mutex_destroy(&mutex);
}

static void coroutine_fn lock_and_unlock(void *opaque)
{
    co_mutex_lock(&mutex);
    note('x');
    co_mutex_unlock(&mutex);
}

static void mutex_without_contention_needs_no_loop(void **state)
{
    co_mutex_init(&mutex);
    coroutine_enter(coroutine_create(lock_and_unlock, NULL));
    coroutine_enter(coroutine_create(lock_and_unlock, NULL));
    assert_string_equal(trace, "xx");
    co_mutex_destroy(&mutex);
}

/*
 * Another thread has counted itself as a user and has not come to the list yet:
 * what it would have seen then is set up by hand.
 */
static void coroutine_fn unlock_to_one_on_its_way(void *opaque)
{
    co_mutex_lock(&mutex);
    __atomic_add_fetch(&mutex.users, 1, __ATOMIC_RELAXED);
    co_mutex_unlock(&mutex);
    assert_true(mutex.handoff);
    /* The next who comes takes it, without waiting, and owes it again. */
    co_mutex_lock(&mutex);
    assert_false(mutex.handoff);
    assert_int_equal(mutex.users, 2);
    co_mutex_unlock(&mutex);
    assert_true(mutex.handoff);
    assert_int_equal(mutex.users, 1);
}

static void mutex_is_handed_to_one_who_is_not_in_the_list_yet(void **state)
{
    co_mutex_init(&mutex);
    coroutine_enter(coroutine_create(unlock_to_one_on_its_way, NULL));
}

typedef struct Shared {
    unsigned count; /* under mutex */
    bool inside;
    unsigned rounds;
} Shared;

static void coroutine_fn count_under_mutex(void *opaque)
{
    Shared *s = opaque;

    for (unsigned i = 0; i < s->rounds; i++) {
        co_mutex_lock(&mutex);
        assert_false(s->inside);
        s->inside = true;
        s->count++;
        if (i % 8 == 0) {
            co_sleep_ns(0);
        }
        s->inside = false;
        co_mutex_unlock(&mutex);
        if (i % 5 == 0) {
            co_sleep_ns(0);
        }
    }
}

static void mutex_excludes_between_threads(void **state)
{
    Shared s = { .rounds = 2000 };

    co_mutex_init(&mutex);
    run_on_threads(count_under_mutex, &s);
    assert_int_equal(s.count, THREADS * PER_THREAD * s.rounds);
    co_mutex_destroy(&mutex);
}

/* ---- CoQueue -------------------------------------------------------------------- */

static CoQueue queue;

static void coroutine_fn wait_and_note(void *opaque)
{
    co_mutex_lock(&mutex);
    co_queue_wait(&queue, &mutex);
    co_mutex_assert_locked(&mutex);
    note((char)(uintptr_t)opaque);
    co_mutex_unlock(&mutex);
}

static void coroutine_fn wake_one_then_all(void *opaque)
{
    co_mutex_lock(&mutex);
    assert_false(co_queue_empty(&queue));
    assert_true(co_queue_wake_one(&queue));
    note('1');
    co_mutex_unlock(&mutex);
    co_sleep_ns(0);
    co_mutex_lock(&mutex);
    assert_false(co_queue_empty(&queue));
    co_queue_wake_all(&queue);
    assert_true(co_queue_empty(&queue));
    assert_false(co_queue_wake_one(&queue));
    note('*');
    co_mutex_unlock(&mutex);
}

static void queue_wakes_in_order_of_arrival(void **state)
{
    co_mutex_init(&mutex);
    co_queue_init(&queue);
    for (char c = 'a'; c <= 'd'; c++) {
        start(main_ctx, wait_and_note, (void *)(uintptr_t)c);
    }
    start(main_ctx, wake_one_then_all, NULL);
    wait_for_all();
    assert_string_equal(trace, "1a*bcd");
    co_mutex_destroy(&mutex);
}

static GMutex plain_mutex;
static bool condition; /* under plain_mutex */

static void coroutine_fn wait_for_condition(void *opaque)
{
    g_mutex_lock(&plain_mutex);
    while (!condition) {
        co_queue_wait_gmutex(&queue, &plain_mutex);
    }
    g_mutex_unlock(&plain_mutex);
}

static void queue_under_a_plain_mutex_is_woken_from_outside(void **state)
{
    co_queue_init(&queue);
    condition = false;
    /* On this very thread: the woken may not run before we unlock. */
    for (unsigned i = 0; i < 3; i++) {
        start(main_ctx, wait_for_condition, NULL);
    }
    while (aio_poll(main_ctx, false)) {
    }
    g_mutex_lock(&plain_mutex);
    assert_false(co_queue_empty(&queue));
    assert_true(co_queue_wake_one(&queue)); /* for nothing: it waits again */
    g_mutex_unlock(&plain_mutex);
    while (aio_poll(main_ctx, false)) {
    }
    g_mutex_lock(&plain_mutex);
    condition = true;
    co_queue_wake_all(&queue);
    g_mutex_unlock(&plain_mutex);
    wait_for_all();
}

#define RING 3
#define ITEMS 1000

/* A bounded buffer: half of the coroutines produce, half consume. */
typedef struct Buffer {
    unsigned roles; /* atomic: who comes first produces */
    unsigned ring[RING];
    unsigned head, tail; /* under mutex, as all that follows */
    CoQueue not_full, not_empty;
    uint64_t sum;
} Buffer;

static void coroutine_fn produce(Buffer *b)
{
    for (unsigned i = 1; i <= ITEMS; i++) {
        co_mutex_lock(&mutex);
        while (b->head - b->tail == RING) {
            co_queue_wait(&b->not_full, &mutex);
        }
        b->ring[b->head++ % RING] = i;
        co_queue_wake_one(&b->not_empty);
        co_mutex_unlock(&mutex);
    }
}

static void coroutine_fn consume(Buffer *b)
{
    for (unsigned i = 0; i < ITEMS; i++) {
        co_mutex_lock(&mutex);
        while (b->head == b->tail) {
            co_queue_wait(&b->not_empty, &mutex);
        }
        b->sum += b->ring[b->tail++ % RING];
        co_queue_wake_one(&b->not_full);
        co_mutex_unlock(&mutex);
    }
}

static void coroutine_fn produce_or_consume(void *opaque)
{
    Buffer *b = opaque;

    if (__atomic_fetch_add(&b->roles, 1, __ATOMIC_RELAXED) % 2 == 0) {
        produce(b);
    } else {
        consume(b);
    }
}

static void queue_carries_a_bounded_buffer_between_threads(void **state)
{
    Buffer b = { 0 };

    co_mutex_init(&mutex);
    co_queue_init(&b.not_full);
    co_queue_init(&b.not_empty);
    run_on_threads(produce_or_consume, &b);
    assert_int_equal(b.sum, (uint64_t)THREADS * PER_THREAD / 2 * ITEMS * (ITEMS + 1) / 2);
    assert_int_equal(b.head, b.tail);
    co_mutex_destroy(&mutex);
}

/* ---- CoRwlock -------------------------------------------------------------------- */

static CoRwlock rwlock;

static void coroutine_fn read_over_two_turns(void *opaque)
{
    co_rwlock_rdlock(&rwlock);
    note((char)(uintptr_t)opaque);
    co_sleep_ns(0);
    co_sleep_ns(0);
    note((char)(uintptr_t)opaque);
    co_rwlock_unlock(&rwlock);
}

static void coroutine_fn write_over_two_turns(void *opaque)
{
    co_rwlock_wrlock(&rwlock);
    note((char)(uintptr_t)opaque);
    co_sleep_ns(0);
    co_sleep_ns(0);
    note((char)(uintptr_t)opaque);
    co_rwlock_unlock(&rwlock);
}

static void rwlock_readers_share_and_nobody_overtakes_a_writer(void **state)
{
    co_rwlock_init(&rwlock);
    start(main_ctx, read_over_two_turns, (void *)'a');
    start(main_ctx, read_over_two_turns, (void *)'b');
    start(main_ctx, write_over_two_turns, (void *)'W');
    start(main_ctx, write_over_two_turns, (void *)'X');
    start(main_ctx, read_over_two_turns, (void *)'c');
    start(main_ctx, read_over_two_turns, (void *)'d');
    wait_for_all();
    assert_string_equal(trace, "ababWWXXcdcd");
}

static void coroutine_fn write_then_downgrade(void *opaque)
{
    co_rwlock_wrlock(&rwlock);
    note('W');
    co_sleep_ns(0);
    co_sleep_ns(0);
    note('w');
    co_rwlock_downgrade(&rwlock);
    co_sleep_ns(0);
    co_sleep_ns(0);
    note('r');
    co_rwlock_unlock(&rwlock);
}

static void rwlock_downgrade_lets_readers_in_but_no_writer(void **state)
{
    co_rwlock_init(&rwlock);
    start(main_ctx, write_then_downgrade, NULL);
    start(main_ctx, read_over_two_turns, (void *)'a');
    start(main_ctx, write_over_two_turns, (void *)'X');
    wait_for_all();
    assert_string_equal(trace, "WwaraXX");
}

static void coroutine_fn read_then_upgrade(void *opaque)
{
    co_rwlock_rdlock(&rwlock);
    note('r');
    co_sleep_ns(0);
    co_rwlock_upgrade(&rwlock);
    note((char)(uintptr_t)opaque);
    co_sleep_ns(0);
    note((char)(uintptr_t)opaque);
    co_rwlock_unlock(&rwlock);
}

static void rwlock_upgrades_take_turns(void **state)
{
    co_rwlock_init(&rwlock);
    start(main_ctx, read_then_upgrade, (void *)'A');
    start(main_ctx, read_then_upgrade, (void *)'B');
    start(main_ctx, write_over_two_turns, (void *)'W');
    start(main_ctx, read_then_upgrade, (void *)'C');
    wait_for_all();
    assert_string_equal(trace, "rrWWrAABBCC");
}

static void coroutine_fn upgrade_alone(void *opaque)
{
    co_rwlock_rdlock(&rwlock);
    co_rwlock_upgrade(&rwlock);
    note('W');
    co_rwlock_unlock(&rwlock);
}

static void rwlock_upgrade_of_the_only_reader_does_not_wait(void **state)
{
    co_rwlock_init(&rwlock);
    coroutine_enter(coroutine_create(upgrade_alone, NULL));
    assert_string_equal(trace, "W");
}

#define RW_ROUNDS 500

typedef struct Pair {
    unsigned a, b;    /* equal whenever the lock is free */
    unsigned seats;   /* atomic */
    unsigned writes;  /* atomic */
    unsigned readers; /* atomic: inside now */
} Pair;

static void coroutine_fn write_pair(Pair *p)
{
    assert_int_equal(__atomic_load_n(&p->readers, __ATOMIC_RELAXED), 0);
    p->a++;
    if (p->a % 4 == 0) {
        co_sleep_ns(0);
    }
    p->b++;
    __atomic_add_fetch(&p->writes, 1, __ATOMIC_RELAXED);
}

static void coroutine_fn read_pair(Pair *p, bool yield)
{
    unsigned a = p->a;

    __atomic_add_fetch(&p->readers, 1, __ATOMIC_RELAXED);
    if (yield) {
        co_sleep_ns(0);
    }
    assert_int_equal(p->b, a);
    __atomic_sub_fetch(&p->readers, 1, __ATOMIC_RELAXED);
}

static void coroutine_fn read_and_write_pair(void *opaque)
{
    Pair *p = opaque;
    unsigned seat = __atomic_fetch_add(&p->seats, 1, __ATOMIC_RELAXED);

    for (unsigned i = 0; i < RW_ROUNDS; i++) {
        switch ((seat + i) % 5) {
        case 0:
            co_rwlock_wrlock(&rwlock);
            write_pair(p);
            co_rwlock_unlock(&rwlock);
            break;
        case 1:
            co_rwlock_rdlock(&rwlock);
            read_pair(p, true);
            co_rwlock_upgrade(&rwlock);
            write_pair(p);
            co_rwlock_unlock(&rwlock);
            break;
        case 2:
            co_rwlock_wrlock(&rwlock);
            write_pair(p);
            co_rwlock_downgrade(&rwlock);
            read_pair(p, true);
            co_rwlock_unlock(&rwlock);
            break;
        default:
            co_rwlock_rdlock(&rwlock);
            read_pair(p, i % 3 == 0);
            co_rwlock_unlock(&rwlock);
        }
    }
}

static void rwlock_excludes_between_threads(void **state)
{
    Pair p = { 0 };

    co_rwlock_init(&rwlock);
    run_on_threads(read_and_write_pair, &p);
    assert_int_equal(p.a, p.b);
    assert_int_equal(p.a, p.writes);
    assert_int_equal(p.writes, THREADS * PER_THREAD * RW_ROUNDS / 5 * 3);
    assert_int_equal(rwlock.owners, 0);
}

/* ---- Misuse ------------------------------------------------------------------------ */

/* Through a pointer, what is wrong is unseen by the thread-safety analysis. */
static void unseen(void (*fn)(CoMutex *), CoMutex *arg)
{
    fn(arg);
}

static void unseen_rw(void (*fn)(CoRwlock *), CoRwlock *arg)
{
    fn(arg);
}

static void mutex_outside(void)
{
    unseen(co_mutex_lock, &mutex);
}

static void coroutine_fn co_relock(void *opaque)
{
    unseen(co_mutex_lock, &mutex);
    unseen(co_mutex_lock, &mutex);
}

static void mutex_relock(void)
{
    coroutine_enter(coroutine_create(co_relock, NULL));
}

static void coroutine_fn co_unlock(void *opaque)
{
    unseen(co_mutex_unlock, &mutex);
}

static void coroutine_fn co_lock(void *opaque)
{
    unseen(co_mutex_lock, &mutex);
}

static void coroutine_fn co_lock_and_yield(void *opaque)
{
    unseen(co_mutex_lock, &mutex);
    coroutine_yield();
}

static void mutex_unlock_of_anothers(void)
{
    coroutine_enter(coroutine_create(co_lock_and_yield, NULL));
    coroutine_enter(coroutine_create(co_unlock, NULL));
}

static void mutex_held_at_the_end(void)
{
    coroutine_enter(coroutine_create(co_lock, NULL));
}

static void mutex_destroy_held(void)
{
    coroutine_enter(coroutine_create(co_lock_and_yield, NULL));
    co_mutex_destroy(&mutex);
}

static void coroutine_fn co_assert(void *opaque)
{
    co_mutex_assert_locked(&mutex);
}

static void mutex_assert_unheld(void)
{
    coroutine_enter(coroutine_create(co_assert, NULL));
}

static void queue_outside(void)
{
    co_queue_wait_gmutex(&queue, &plain_mutex);
}

static void coroutine_fn co_rw_unlock(void *opaque)
{
    unseen_rw(co_rwlock_unlock, &rwlock);
}

static void rwlock_unlock_unheld(void)
{
    coroutine_enter(coroutine_create(co_rw_unlock, NULL));
}

static void coroutine_fn co_upgrade(void *opaque)
{
    co_rwlock_upgrade(&rwlock);
}

static void rwlock_upgrade_unheld(void)
{
    coroutine_enter(coroutine_create(co_upgrade, NULL));
}

static void coroutine_fn co_downgrade(void *opaque)
{
    unseen_rw(co_rwlock_rdlock, &rwlock);
    co_rwlock_downgrade(&rwlock);
}

static void rwlock_downgrade_shared(void)
{
    coroutine_enter(coroutine_create(co_downgrade, NULL));
}

static void rwlock_outside(void)
{
    unseen_rw(co_rwlock_wrlock, &rwlock);
}

static const DeathCase deaths[] = {
    DIES(mutex_outside, "co_mutex_lock() outside of a coroutine"),
    DIES(mutex_relock, "co_mutex_lock(): this coroutine holds"),
    DIES(mutex_unlock_of_anothers, "is not held by this coroutine"),
    DIES(mutex_held_at_the_end, "ended while it holds 1 mutexes"),
    DIES(mutex_destroy_held, "co_mutex_destroy(): mutex"),
    DIES(mutex_assert_unheld, "co_mutex_assert_locked(): mutex"),
    DIES(queue_outside, "co_queue_wait_gmutex() outside of a coroutine"),
    DIES(rwlock_unlock_unheld, "co_rwlock_unlock(): lock"),
    DIES(rwlock_upgrade_unheld, "is not held shared"),
    DIES(rwlock_downgrade_shared, "is not held exclusively"),
    DIES(rwlock_outside, "co_rwlock_wrlock() outside of a coroutine"),
};

static void misuse_aborts_with_a_message(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(mutex_is_given_in_order_of_arrival, reset_trace),
        cmocka_unit_test_setup(mutex_is_not_taken_again_before_others_had_it, reset_trace),
        cmocka_unit_test_setup(mutex_without_contention_needs_no_loop, reset_trace),
        cmocka_unit_test(mutex_is_handed_to_one_who_is_not_in_the_list_yet),
        cmocka_unit_test(mutex_excludes_between_threads),
        cmocka_unit_test_setup(queue_wakes_in_order_of_arrival, reset_trace),
        cmocka_unit_test(queue_under_a_plain_mutex_is_woken_from_outside),
        cmocka_unit_test(queue_carries_a_bounded_buffer_between_threads),
        cmocka_unit_test_setup(rwlock_readers_share_and_nobody_overtakes_a_writer, reset_trace),
        cmocka_unit_test_setup(rwlock_downgrade_lets_readers_in_but_no_writer, reset_trace),
        cmocka_unit_test_setup(rwlock_upgrades_take_turns, reset_trace),
        cmocka_unit_test_setup(rwlock_upgrade_of_the_only_reader_does_not_wait, reset_trace),
        cmocka_unit_test(rwlock_excludes_between_threads),
        cmocka_unit_test(misuse_aborts_with_a_message),
    };
    int failed;

    death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    main_ctx = aio_context_new(AIO_ENGINE_DEFAULT, NULL);
    if (!main_ctx) {
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    aio_context_unref(main_ctx);
    return failed;
}
