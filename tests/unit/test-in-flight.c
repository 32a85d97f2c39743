/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counting what is in flight: on one thread, across threads, and the promise
 * that "idle" is never said while something was under way all the time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <cmocka.h>
#include <glib.h>
#include "util/in-flight.h"

#define THREADS 4
#define ROUNDS 20000

static void idle_when_all_have_ended(void **state)
{
    InFlight f = { 0 };

    assert_true(in_flight_idle(&f));
    in_flight_begin(&f);
    assert_false(in_flight_idle(&f));
    in_flight_begin(&f);
    in_flight_end(&f);
    assert_false(in_flight_idle(&f));
    in_flight_end(&f);
    assert_true(in_flight_idle(&f));
}

static void *end_one(void *opaque)
{
    in_flight_end(opaque);
    return NULL;
}

static void may_end_on_another_thread(void **state)
{
    InFlight f = { 0 };
    pthread_t thread;

    in_flight_begin(&f);
    assert_int_equal(pthread_create(&thread, NULL, end_one, &f), 0);
    pthread_join(thread, NULL);
    assert_true(in_flight_idle(&f));
}

/* Hand operations round: at every moment at least one is under way. */
typedef struct Relay {
    InFlight f;
    unsigned running;
} Relay;

static void *relay_thread(void *opaque)
{
    Relay *relay = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        in_flight_begin(&relay->f);
        /* The operation begun in the round before, or in main. */
        in_flight_end(&relay->f);
    }
    __atomic_fetch_sub(&relay->running, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void never_idle_while_something_runs(void **state)
{
    Relay relay = { .running = THREADS };
    pthread_t threads[THREADS];

    in_flight_begin(&relay.f);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, relay_thread, &relay), 0);
    }
    do {
        assert_false(in_flight_idle(&relay.f));
    } while (__atomic_load_n(&relay.running, __ATOMIC_ACQUIRE) > 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    in_flight_end(&relay.f);
    assert_true(in_flight_idle(&relay.f));
}

/*
 * A drain: workers begin, look whether they are held back, and if not use what
 * the drainer takes away once it sees idle. The plain variable is what TSan
 * watches.
 */
typedef struct Drain {
    InFlight f;
    bool closed;
    int shared;
    int seen;
} Drain;

static void *drain_worker(void *opaque)
{
    Drain *d = opaque;
    bool closed = false;
    int sum = 0;

    while (!closed) {
        in_flight_begin(&d->f);
        closed = __atomic_load_n(&d->closed, __ATOMIC_SEQ_CST);
        if (!closed) {
            sum += d->shared;
        }
        in_flight_end(&d->f);
    }
    __atomic_fetch_add(&d->seen, sum, __ATOMIC_RELAXED);
    return NULL;
}

static void idle_after_closing_means_nobody_is_inside(void **state)
{
    for (int round = 0; round < 50; round++) {
        Drain d = { .shared = 0 };
        pthread_t threads[THREADS];

        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, drain_worker, &d), 0);
        }
        __atomic_store_n(&d.closed, true, __ATOMIC_SEQ_CST);
        while (!in_flight_idle(&d.f)) {
            g_thread_yield();
        }
        d.shared = 1;
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        assert_int_equal(d.seen, 0);
        assert_true(in_flight_idle(&d.f));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_when_all_have_ended),
        cmocka_unit_test(may_end_on_another_thread),
        cmocka_unit_test(never_idle_while_something_runs),
        cmocka_unit_test(idle_after_closing_means_nobody_is_inside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
