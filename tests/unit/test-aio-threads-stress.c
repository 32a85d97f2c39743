/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bottom halves, wakes, requests and moving coroutines between four threads, on
 * each engine, while the main thread waits. Meant for TSan, and for lost
 * wakeups, which show as a test that never ends.
 */
#include "tests/unit/aio-testing.h"
#include <string.h>
#include <sys/mman.h>
#include "util/sanitizer.h"

#ifdef BUILT_WITH_TSAN
enum {
    SCALE = 1
};
#else
enum {
    SCALE = 5
};
#endif
enum {
    THREADS = 4,
    BALLS = 16,
    HOPS = 400 * SCALE,
    TRAVELLERS = 16,
    TRIPS = 50 * SCALE
};

typedef struct Stress {
    AioContext *ctx;
    AioThread *threads[THREADS];
    AioContext *contexts[THREADS];
    atomic_int running; /* what has to end before the test does */
} Stress;

static void stress_begin(Stress *stress)
{
    stress->ctx = test_context();
    aio_set_main_context(stress->ctx);
    for (int i = 0; i < THREADS; i++) {
        stress->threads[i] = aio_thread_new("stress", test_engine, NULL);
        assert_non_null(stress->threads[i]);
        stress->contexts[i] = aio_thread_get_context(stress->threads[i]);
    }
}

static void stress_one_less(Stress *stress)
{
    atomic_fetch_sub(&stress->running, 1);
    aio_wait_kick();
}

/* Wait until everything has ended by itself, and stop the threads. */
static void stress_end(Stress *stress)
{
    AIO_WAIT_WHILE(atomic_load(&stress->running) > 0);
    for (int i = 0; i < THREADS; i++) {
        aio_thread_stop(stress->threads[i]);
    }
    aio_set_main_context(NULL);
    aio_context_unref(stress->ctx);
}

static unsigned next_number(unsigned *state)
{
    *state = *state * 1103515245 + 12345;
    return *state >> 16;
}

/* ---- Bottom halves -------------------------------------------------------- */

typedef struct Ball {
    Stress *stress;
    unsigned random;
    int hops;
} Ball;

static void ball_fly(void *opaque)
{
    Ball *ball = opaque;

    if (--ball->hops == 0) {
        stress_one_less(ball->stress);
        return;
    }
    aio_bh_oneshot(ball->stress->contexts[next_number(&ball->random) % THREADS], ball_fly, ball);
}

static void bottom_halves_fly_between_threads(void **state)
{
    Stress stress = { .running = BALLS };
    Ball balls[BALLS];

    stress_begin(&stress);
    for (int i = 0; i < BALLS; i++) {
        balls[i] = (Ball){ &stress, i, HOPS };
        aio_bh_oneshot(stress.contexts[i % THREADS], ball_fly, &balls[i]);
    }
    stress_end(&stress);
    for (int i = 0; i < BALLS; i++) {
        assert_int_equal(balls[i].hops, 0);
    }
}

typedef struct Bell {
    AioBH *bh;
    atomic_uint rung; /* by anybody, each time before scheduling */
    unsigned heard;   /* what rung was when the bottom half ran last */
    unsigned runs;
} Bell;

typedef struct Ringer {
    Stress *stress;
    Bell *bells;
    unsigned random;
    int left;
} Ringer;

static void bell_rings(void *opaque)
{
    Bell *bell = opaque;

    bell->heard = atomic_load(&bell->rung);
    bell->runs++;
}

static void ringer_rings(void *opaque)
{
    Ringer *ringer = opaque;

    for (int i = 0; i < 10; i++) {
        Bell *bell = &ringer->bells[next_number(&ringer->random) % THREADS];

        atomic_fetch_add(&bell->rung, 1);
        aio_bh_schedule(bell->bh);
    }
    if (--ringer->left > 0) {
        aio_bh_oneshot(aio_context_current(), ringer_rings, ringer);
    } else {
        stress_one_less(ringer->stress);
    }
}

static void no_scheduling_is_lost(void **state)
{
    Stress stress = { .running = THREADS };
    Bell bells[THREADS] = { 0 };
    Ringer ringers[THREADS];
    AioContext *contexts[THREADS];

    stress_begin(&stress);
    for (int i = 0; i < THREADS; i++) {
        contexts[i] = aio_context_ref(stress.contexts[i]);
        bells[i].bh = aio_bh_new(contexts[i], bell_rings, &bells[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        ringers[i] = (Ringer){ &stress, bells, i, HOPS / 10 };
        aio_bh_oneshot(contexts[i], ringer_rings, &ringers[i]);
    }
    stress_end(&stress);
    for (int i = 0; i < THREADS; i++) {
        assert_true(bells[i].runs > 0 && bells[i].runs <= atomic_load(&bells[i].rung));
        assert_int_equal(bells[i].heard, atomic_load(&bells[i].rung));
        aio_bh_free(bells[i].bh);
        aio_context_unref(contexts[i]);
    }
}

/* ---- Coroutines ----------------------------------------------------------- */

typedef struct Traveller {
    Stress *stress;
    CoMutex *mutex;
    int *trips; /* of all travellers, under the mutex */
    unsigned random;
    int fd;
} Traveller;

static void coroutine_fn read_own_bytes(Traveller *t)
{
    uint32_t value = 0;
    struct iovec iov = { &value, sizeof(value) };
    AioRequest req = { .op = AIO_OP_READV, .fd = t->fd, .iov = &iov, .niov = 1 };

    req.offset = next_number(&t->random) % 1000 * sizeof(value);
    assert_int_equal(aio_co_submit(&req), sizeof(value));
    assert_int_equal(value, req.offset / sizeof(value));
}

static int64_t double_it(void *opaque)
{
    return *(unsigned *)opaque * 2L;
}

static void coroutine_fn travel(void *opaque)
{
    Traveller *t = opaque;

    for (int i = 0; i < TRIPS; i++) {
        AioContext *to = t->stress->contexts[next_number(&t->random) % THREADS];
        unsigned number = i;

        aio_co_reschedule_self(to);
        assert_ptr_equal(aio_context_current(), to);
        read_own_bytes(t);
        assert_ptr_equal(aio_context_current(), to);
        co_mutex_lock(t->mutex);
        ++*t->trips;
        if (i % 8 == 0) {
            co_sleep_ns(i % 16 * 100);
        }
        co_mutex_unlock(t->mutex);
        if (i % 8 == 1) {
            assert_int_equal(aio_co_call(double_it, &number), number * 2);
        }
        assert_ptr_equal(aio_context_current(), to);
    }
    stress_one_less(t->stress);
}

static int file_of_numbers(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(write(fd, &i, sizeof(i)), sizeof(i));
    }
    return fd;
}

static void coroutines_travel_between_threads(void **state)
{
    Stress stress = { .running = TRAVELLERS };
    Traveller travellers[TRAVELLERS];
    int fd = file_of_numbers();
    CoMutex mutex;
    int trips = 0;

    co_mutex_init(&mutex);
    stress_begin(&stress);
    for (int i = 0; i < TRAVELLERS; i++) {
        travellers[i] = (Traveller){ &stress, &mutex, &trips, i, fd };
        aio_co_schedule(stress.contexts[i % THREADS], coroutine_create(travel, &travellers[i]));
    }
    stress_end(&stress);
    assert_int_equal(trips, TRAVELLERS * TRIPS);
    co_mutex_destroy(&mutex);
    close(fd);
}

typedef struct Sleeper {
    Stress *stress;
    AioContext *home;
    AioContext *alarm; /* another thread, which wakes it */
    Coroutine *co;
} Sleeper;

static void wake_sleeper(void *opaque)
{
    aio_co_wake(((Sleeper *)opaque)->co);
}

/* Orders its wake before it yields: that may come in between. */
static void coroutine_fn sleep_and_wake(void *opaque)
{
    Sleeper *sleeper = opaque;

    for (int i = 0; i < HOPS; i++) {
        aio_bh_oneshot(sleeper->alarm, wake_sleeper, sleeper);
        coroutine_yield();
        assert_ptr_equal(aio_context_current(), sleeper->home);
    }
    stress_one_less(sleeper->stress);
}

static void a_wake_may_overtake_the_yield(void **state)
{
    Stress stress = { .running = THREADS };
    Sleeper sleepers[THREADS];

    stress_begin(&stress);
    for (int i = 0; i < THREADS; i++) {
        sleepers[i] = (Sleeper){
            .stress = &stress,
            .home = stress.contexts[i],
            .alarm = stress.contexts[(i + 1) % THREADS],
            .co = coroutine_create(sleep_and_wake, &sleepers[i]),
        };
        aio_co_schedule(sleepers[i].home, sleepers[i].co);
    }
    stress_end(&stress);
}

/* ---- Threads come and go -------------------------------------------------- */

static void count_down(void *opaque)
{
    stress_one_less(opaque);
}

static void threads_can_be_started_and_stopped_all_the_time(void **state)
{
    for (int i = 0; i < 10 * SCALE; i++) {
        Stress stress = { .running = THREADS * 2 };

        stress_begin(&stress);
        for (int j = 0; j < THREADS * 2; j++) {
            aio_bh_oneshot(stress.contexts[j % THREADS], count_down, &stress);
        }
        stress_end(&stress);
        assert_int_equal(atomic_load(&stress.running), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bottom_halves_fly_between_threads),
        cmocka_unit_test(no_scheduling_is_lost),
        cmocka_unit_test(coroutines_travel_between_threads),
        cmocka_unit_test(a_wake_may_overtake_the_yield),
        cmocka_unit_test(threads_can_be_started_and_stopped_all_the_time),
    };

    return test_each_engine("aio-threads-stress", tests, G_N_ELEMENTS(tests));
}
