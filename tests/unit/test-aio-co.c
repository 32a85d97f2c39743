/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines on the event loop, on each engine.
 */
#include "tests/unit/aio-testing.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

typedef struct Job {
    AioContext *ctx;
    AioContext *other;
    Coroutine *co;
    GString *log;
    char name;
    int done; /* atomic */
} Job;

static void job_finish(Job *job)
{
    __atomic_store_n(&job->done, 1, __ATOMIC_RELEASE);
}

static bool job_is_done(Job *job)
{
    return __atomic_load_n(&job->done, __ATOMIC_ACQUIRE);
}

static void coroutine_fn write_and_read(void *opaque)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    char buf[6] = "abcdef";
    struct iovec iov = { buf, sizeof(buf) };
    AioRequest req = { .op = AIO_OP_WRITEV, .fd = fd, .iov = &iov, .niov = 1 };

    assert_int_equal(aio_co_submit(&req), 6);
    memset(buf, 0, sizeof(buf));
    req.op = AIO_OP_READV;
    assert_int_equal(aio_co_submit(&req), 6);
    assert_memory_equal(buf, "abcdef", 6);
    req.fd = -1;
    assert_int_equal(aio_co_submit(&req), -EBADF);
    close(fd);
    job_finish(opaque);
}

static void a_coroutine_waits_for_requests(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Job job = { .ctx = ctx };

    coroutine_enter(coroutine_create(write_and_read, &job));
    assert_false(job_is_done(&job));
    test_poll_until(ctx, job_is_done(&job));
}

static int64_t forty_two(void *opaque)
{
    assert_false(in_coroutine());
    return 42;
}

static void coroutine_fn call_worker(void *opaque)
{
    assert_int_equal(aio_co_call(forty_two, NULL), 42);
    job_finish(opaque);
}

static void a_coroutine_waits_for_a_worker(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Job job = { .ctx = ctx };

    coroutine_enter(coroutine_create(call_worker, &job));
    test_poll_until(ctx, job_is_done(&job));
}

static void coroutine_fn sleep_some(void *opaque)
{
    Job *job = opaque;
    int64_t before = aio_now(job->ctx);

    co_sleep_ns(2000000);
    assert_true(aio_now(job->ctx) >= before + 2000000);
    job_finish(job);
}

static void sleeping_lets_the_clock_pass(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Job job = { .ctx = ctx };

    coroutine_enter(coroutine_create(sleep_some, &job));
    test_poll_until(ctx, job_is_done(&job));
}

static void coroutine_fn log_twice(void *opaque)
{
    Job *job = opaque;

    g_string_append_c(job->log, job->name);
    co_sleep_ns(0);
    g_string_append_c(job->log, job->name);
    job_finish(job);
}

static void sleeping_zero_lets_others_run(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    g_autoptr(GString) log = g_string_new(NULL);
    Job a = { .ctx = ctx, .log = log, .name = 'a' };
    Job b = { .ctx = ctx, .log = log, .name = 'b' };

    aio_co_schedule(ctx, coroutine_create(log_twice, &a));
    aio_co_schedule(ctx, coroutine_create(log_twice, &b));
    assert_string_equal(log->str, "");
    test_poll_until(ctx, job_is_done(&a) && job_is_done(&b));
    assert_string_equal(log->str, "abab");
}

static void coroutine_fn log_yield_log(void *opaque)
{
    Job *job = opaque;

    g_string_append_c(job->log, job->name);
    coroutine_yield();
    g_string_append_c(job->log, job->name);
    job_finish(job);
}

static void coroutine_fn wake_other(void *opaque)
{
    Job *job = opaque;

    aio_co_wake(job->co);
    g_string_append_c(job->log, job->name);
}

static void waking_enters_at_once_but_for_coroutines(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    g_autoptr(GString) log = g_string_new(NULL);
    Job job = { .ctx = ctx, .log = log, .name = 'a' };
    Job waker = { .log = log, .name = 'w' };

    job.co = coroutine_create(log_yield_log, &job);
    coroutine_enter(job.co);
    aio_co_wake(job.co);
    assert_string_equal(log->str, "aa");

    /* From a coroutine: when that one has ended. */
    waker.co = coroutine_create(log_yield_log, &job);
    coroutine_enter(waker.co);
    coroutine_enter(coroutine_create(wake_other, &waker));
    assert_string_equal(log->str, "aaawa");
}

static void coroutine_fn yield_until_woken(void *opaque)
{
    Job *job = opaque;

    for (int i = 0; i < 100; i++) {
        coroutine_yield();
        assert_ptr_equal(aio_context_current(), job->ctx);
    }
    job_finish(job);
}

static void wake_from_elsewhere(void *opaque)
{
    aio_co_wake(((Job *)opaque)->co);
}

static void waking_from_another_thread_brings_it_home(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    Job job = { .ctx = ctx };

    job.co = coroutine_create(yield_until_woken, &job);
    coroutine_enter(job.co);
    for (int i = 0; i < 100; i++) {
        aio_bh_oneshot(aio_thread_get_context(thread), wake_from_elsewhere, &job);
        assert_true(aio_poll(ctx, true));
    }
    assert_true(job_is_done(&job));
    aio_thread_stop(thread);
}

static void coroutine_fn travel(void *opaque)
{
    Job *job = opaque;

    for (int i = 0; i < 100; i++) {
        aio_co_reschedule_self(job->other);
        assert_ptr_equal(aio_context_current(), job->other);
        aio_co_reschedule_self(job->other);
        assert_ptr_equal(coroutine_get_aio_context(coroutine_self()), job->other);
        aio_co_reschedule_self(job->ctx);
        assert_ptr_equal(aio_context_current(), job->ctx);
    }
    job_finish(job);
}

static void a_coroutine_moves_between_threads(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    Job job = { .ctx = ctx, .other = aio_thread_get_context(thread) };

    coroutine_enter(coroutine_create(travel, &job));
    test_poll_until(ctx, job_is_done(&job));
    aio_thread_stop(thread);
}

static void coroutine_fn just_yield(void *opaque)
{
    coroutine_yield();
}

static void schedule_twice(void)
{
    AioContext *ctx = test_context();
    Coroutine *co = coroutine_create(just_yield, NULL);

    aio_co_schedule(ctx, co);
    aio_co_schedule(ctx, co);
}

static const DeathCase deaths[] = {
    DIES(schedule_twice, "while aio_co_schedule() has it queued"),
};

static void scheduling_a_coroutine_twice_aborts(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_coroutine_waits_for_requests),
        cmocka_unit_test(a_coroutine_waits_for_a_worker),
        cmocka_unit_test(sleeping_lets_the_clock_pass),
        cmocka_unit_test(sleeping_zero_lets_others_run),
        cmocka_unit_test(waking_enters_at_once_but_for_coroutines),
        cmocka_unit_test(waking_from_another_thread_brings_it_home),
        cmocka_unit_test(a_coroutine_moves_between_threads),
        cmocka_unit_test(scheduling_a_coroutine_twice_aborts),
    };

    test_death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return test_each_engine("aio-co", tests, G_N_ELEMENTS(tests));
}
