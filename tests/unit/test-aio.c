/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The event loop, on each engine: contexts, bottom halves, timers, notifying,
 * nesting, threads.
 */
#include "tests/unit/aio-testing.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include "util/sanitizer.h"

/* ---- Contexts ------------------------------------------------------------- */

static void a_thread_has_one_context_which_is_current(void **state)
{
    g_autoptr(GError) error = NULL;
    AioContext *ctx = test_context();

    assert_ptr_equal(aio_context_current(), ctx);
    assert_true(aio_context_is_home(ctx));
    assert_null(aio_context_new(test_engine, &error));
    assert_true(g_error_matches(error, AIO_ERROR, EEXIST));

    aio_context_ref(ctx);
    aio_context_unref(ctx);
    assert_ptr_equal(aio_context_current(), ctx);
    aio_context_unref(ctx);
    assert_null(aio_context_current());
}

static gpointer unref_on_a_thread(gpointer ctx)
{
    assert_null(aio_context_current());
    assert_false(aio_context_is_home(ctx));
    aio_context_unref(ctx);
    return NULL;
}

static void the_last_reference_may_go_on_another_thread(void **state)
{
    AioContext *ctx = test_context();

    g_thread_join(g_thread_new("unref", unref_on_a_thread, ctx));
    assert_null(aio_context_current());
    aio_context_unref(test_context());
}

static void engine_names_parse_back(void **state)
{
    AioEngine engine;

    assert_true(aio_engine_parse(aio_engine_name(test_engine), &engine));
    assert_int_equal(engine, test_engine);
    assert_false(aio_engine_parse("simulated", &engine));
    assert_false(aio_engine_parse("native", &engine));
}

static void the_environment_chooses_the_default_engine(void **state)
{
    g_autoptr(GError) error = NULL;
    AioContext *ctx;

    g_setenv("BLOCKGRAPH_AIO", aio_engine_name(test_engine), true);
    ctx = aio_context_new(AIO_ENGINE_DEFAULT, &error);
    assert_non_null(ctx);
    assert_int_equal(aio_context_engine(ctx), test_engine);
    aio_context_unref(ctx);

    g_setenv("BLOCKGRAPH_AIO", "abacus", true);
    assert_null(aio_context_new(AIO_ENGINE_DEFAULT, &error));
    assert_true(g_error_matches(error, AIO_ERROR, EINVAL));
    assert_non_null(strstr(error->message, "abacus"));

    aio_set_default_engine(test_engine);
    ctx = aio_context_new(AIO_ENGINE_DEFAULT, NULL);
    assert_int_equal(aio_context_engine(ctx), test_engine);
    aio_context_unref(ctx);
    aio_set_default_engine(AIO_ENGINE_DEFAULT);
    g_unsetenv("BLOCKGRAPH_AIO");
}

static void leak_a_queued_call(void)
{
    AioContext *ctx = test_context();
    static bool ran;

    aio_bh_oneshot(ctx, test_set_flag, &ran);
    aio_context_unref(ctx);
}

static void leak_a_bottom_half(void)
{
    AioContext *ctx = test_context();

    aio_bh_new(ctx, test_set_flag, NULL);
    aio_context_unref(ctx);
}

static void leak_an_armed_timer(void)
{
    AioContext *ctx = test_context();

    aio_timer_mod(aio_timer_new(ctx, test_set_flag, NULL), INT64_MAX);
    aio_context_unref(ctx);
}

static void coroutine_fn poll_in_coroutine(void *opaque)
{
    aio_poll(opaque, false);
}

static void poll_from_a_coroutine(void)
{
    coroutine_enter(coroutine_create(poll_in_coroutine, test_context()));
}

static gpointer poll_thread(gpointer ctx)
{
    aio_poll(ctx, false);
    return NULL;
}

static void poll_from_another_thread(void)
{
    g_thread_join(g_thread_new("poll", poll_thread, test_context()));
}

static void wait_without_a_main_context(void)
{
    g_autoptr(AioContext) ctx = test_context();

    assert_ptr_equal(aio_context_current(), ctx);
    aio_wait_enter();
}

static const DeathCase deaths[] = {
    DIES(leak_a_queued_call, "1 queued calls left"),
    DIES(leak_a_bottom_half, "1 bottom halves left"),
    DIES(leak_an_armed_timer, "1 armed timers left"),
    DIES(poll_from_a_coroutine, "aio_poll() called in a coroutine"),
    DIES(poll_from_another_thread, "aio_poll() called on a thread that is not"),
    DIES(wait_without_a_main_context, "for the main thread only"),
};

static void misuse_aborts(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

/* ---- Bottom halves -------------------------------------------------------- */

typedef struct Log {
    AioContext *ctx;
    GString *text;
} Log;

typedef struct LogBH {
    Log *log;
    char name;
    AioBH *bh;
} LogBH;

static void log_bh(void *opaque)
{
    LogBH *l = opaque;

    g_string_append_c(l->log->text, l->name);
}

static void log_and_free_bh(void *opaque)
{
    LogBH *l = opaque;

    log_bh(l);
    aio_bh_free(l->bh);
    l->bh = NULL;
}

static void log_and_schedule_again(void *opaque)
{
    LogBH *l = opaque;

    log_bh(l);
    aio_bh_schedule(l->bh);
}

static void bottom_halves_run_in_order_once_per_turn(void **state)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(AioContext) ctx = test_context();
    Log log = { ctx, text };
    LogBH a = { &log, 'a' }, b = { &log, 'b' }, c = { &log, 'c' };

    a.bh = aio_bh_new(ctx, log_bh, &a);
    b.bh = aio_bh_new(ctx, log_and_schedule_again, &b);
    assert_false(aio_poll(ctx, false));

    aio_bh_schedule(b.bh);
    aio_bh_schedule(a.bh);
    aio_bh_schedule(b.bh);
    aio_bh_oneshot(ctx, log_bh, &c);
    assert_string_equal(text->str, "");
    assert_true(aio_poll(ctx, true));
    assert_string_equal(text->str, "bac");
    assert_true(aio_poll(ctx, true));
    assert_string_equal(text->str, "bacb");

    aio_bh_cancel(b.bh);
    aio_poll(ctx, false);
    assert_string_equal(text->str, "bacb");
    aio_bh_schedule(a.bh);
    assert_true(aio_poll(ctx, true));
    assert_string_equal(text->str, "bacba");
    aio_bh_free(a.bh);
    aio_bh_free(b.bh);
}

static void bottom_halves_can_be_freed_anytime(void **state)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(AioContext) ctx = test_context();
    Log log = { ctx, text };
    LogBH a = { &log, 'a' }, b = { &log, 'b' };

    a.bh = aio_bh_new(ctx, log_and_free_bh, &a);
    b.bh = aio_bh_new(ctx, log_bh, &b);
    aio_bh_schedule(a.bh);
    aio_bh_schedule(b.bh);
    aio_bh_free(b.bh);
    aio_poll(ctx, true);
    assert_string_equal(text->str, "a");
    assert_null(a.bh);

    /* Freed while queued, and the loop never turns again. */
    b.bh = aio_bh_new(ctx, log_bh, &b);
    aio_bh_schedule(b.bh);
    aio_bh_free(b.bh);
    aio_bh_free(NULL);
}

static void poll_nested(void *opaque)
{
    LogBH *l = opaque;

    g_string_append_c(l->log->text, '(');
    aio_poll(l->log->ctx, true);
    g_string_append_c(l->log->text, ')');
}

static void a_nested_poll_runs_what_its_caller_has_left(void **state)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(AioContext) ctx = test_context();
    Log log = { ctx, text };
    LogBH a = { &log, 'a' }, b = { &log, 'b' };

    aio_bh_oneshot(ctx, poll_nested, &a);
    aio_bh_oneshot(ctx, log_bh, &a);
    aio_bh_oneshot(ctx, log_bh, &b);
    assert_true(aio_poll(ctx, true));
    assert_string_equal(text->str, "(ab)");
    assert_false(aio_poll(ctx, false));
}

/* ---- Timers --------------------------------------------------------------- */

typedef struct LogTimer {
    Log *log;
    char name;
    AioTimer *timer;
    AioTimer *victim; /* deleted when this one fires */
} LogTimer;

static void log_timer(void *opaque)
{
    LogTimer *l = opaque;

    assert_true(aio_now(l->log->ctx) >= l->timer->expire_ns);
    assert_false(aio_timer_pending(l->timer));
    g_string_append_c(l->log->text, l->name);
    if (l->victim) {
        aio_timer_del(l->victim);
    }
}

static void timers_fire_in_order_of_time(void **state)
{
    enum {
        COUNT = 20
    };
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(AioContext) ctx = test_context();
    Log log = { ctx, text };
    LogTimer timers[COUNT];
    int64_t now = aio_now(ctx);

    for (int i = 0; i < COUNT; i++) {
        timers[i] = (LogTimer){ &log, 'a' + i };
        timers[i].timer = aio_timer_new(ctx, log_timer, &timers[i]);
    }
    /* Far away first, then moved: 7 has no factor in common with 20. */
    for (int i = 0; i < COUNT; i++) {
        aio_timer_mod(timers[i].timer, now + 3600000000000 - i);
    }
    for (int i = 0; i < COUNT; i++) {
        int n = i * 7 % COUNT;

        aio_timer_mod(timers[n].timer, now + 1000000 + n * 1000);
        assert_true(aio_timer_pending(timers[n].timer));
    }
    aio_timer_del(timers[3].timer);
    assert_false(aio_timer_pending(timers[3].timer));
    test_poll_until(ctx, text->len == COUNT - 1);
    assert_string_equal(text->str, "abcefghijklmnopqrst");
    for (int i = 0; i < COUNT; i++) {
        aio_timer_free(timers[i].timer);
    }
    aio_timer_free(NULL);
}

static void a_due_timer_can_be_deleted_and_equal_ones_keep_their_order(void **state)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(AioContext) ctx = test_context();
    Log log = { ctx, text };
    LogTimer timers[3];

    for (int i = 0; i < 3; i++) {
        timers[i] = (LogTimer){ &log, 'a' + i };
        timers[i].timer = aio_timer_new(ctx, log_timer, &timers[i]);
        aio_timer_mod(timers[i].timer, aio_now(ctx));
    }
    timers[0].victim = timers[1].timer;
    assert_true(aio_poll(ctx, true));
    assert_string_equal(text->str, "ac");
    for (int i = 0; i < 3; i++) {
        aio_timer_free(timers[i].timer);
    }
}

/* ---- Notifying ------------------------------------------------------------ */

static gpointer notify_thread(gpointer ctx)
{
    aio_notify(ctx);
    return NULL;
}

static void notify_ends_a_blocking_poll(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    GThread *thread;

    aio_notify(ctx);
    assert_false(aio_poll(ctx, true));

    for (int i = 0; i < 20; i++) {
        thread = g_thread_new("notify", notify_thread, ctx);
        assert_false(aio_poll(ctx, true));
        g_thread_join(thread);
        assert_false(aio_poll(ctx, false));
    }
}

static AioContext *signalled_context;

static void on_signal(int signal)
{
    aio_notify(signalled_context);
}

static gpointer kill_thread(gpointer opaque)
{
    pthread_kill(*(pthread_t *)opaque, SIGUSR1);
    return NULL;
}

/*
 * TSan keeps a signal from another thread back until the thread calls something
 * that TSan intercepts; one asleep in io_uring never does.
 */
#ifdef BUILT_WITH_TSAN
static const bool signals_arrive_asleep = false;
#else
static const bool signals_arrive_asleep = true;
#endif

static void notify_works_in_a_signal_handler(void **state)
{
    struct sigaction action = { .sa_handler = on_signal }, old;
    g_autoptr(AioContext) ctx = test_context();
    pthread_t self = pthread_self();
    GThread *thread;

    signalled_context = ctx;
    sigaction(SIGUSR1, &action, &old);
    raise(SIGUSR1);
    assert_false(aio_poll(ctx, true));
    if (signals_arrive_asleep) {
        thread = g_thread_new("kill", kill_thread, &self);
        assert_false(aio_poll(ctx, true));
        g_thread_join(thread);
    }
    sigaction(SIGUSR1, &old, NULL);
}

/* ---- Threads and waiting -------------------------------------------------- */

static bool wait_done; /* atomic */

static void finish_and_kick(void *opaque)
{
    assert_ptr_equal(aio_context_current(), opaque);
    __atomic_store_n(&wait_done, true, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

static void the_main_thread_waits_for_a_thread(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    AioContext *io;

    aio_set_main_context(ctx);
    assert_ptr_equal(aio_context_main(), ctx);
    assert_non_null(thread);
    io = aio_thread_get_context(thread);
    assert_ptr_not_equal(io, ctx);
    for (int i = 0; i < 50; i++) {
        wait_done = false;
        aio_bh_oneshot(io, finish_and_kick, io);
        AIO_WAIT_WHILE(!__atomic_load_n(&wait_done, __ATOMIC_SEQ_CST));
    }
    aio_thread_stop(thread);
    aio_set_main_context(NULL);
}

typedef struct Chain {
    AioContext *ctx;
    int left;
} Chain;

static void chain_on(void *opaque)
{
    Chain *chain = opaque;

    if (--chain->left > 0) {
        aio_bh_oneshot(chain->ctx, chain_on, chain);
    }
}

static void stopping_a_thread_finishes_what_is_queued(void **state)
{
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    Chain chain = { aio_thread_get_context(thread), 100 };

    aio_bh_oneshot(chain.ctx, chain_on, &chain);
    aio_thread_stop(thread);
    assert_int_equal(chain.left, 0);
}

static void a_thread_without_its_engine_is_an_error(void **state)
{
    g_autoptr(GError) error = NULL;

    assert_null(aio_thread_new("sim", AIO_ENGINE_SIMULATED, &error));
    assert_true(g_error_matches(error, AIO_ERROR, EINVAL));
    assert_non_null(strstr(error->message, "thread 'sim'"));
}

static void what_belongs_to_an_ended_thread_can_be_freed(void **state)
{
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    AioContext *ctx = aio_context_ref(aio_thread_get_context(thread));
    AioBH *bh = aio_bh_new(ctx, test_set_flag, NULL);

    aio_thread_stop(thread);
    aio_bh_free(bh);
    aio_context_unref(ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_has_one_context_which_is_current),
        cmocka_unit_test(the_last_reference_may_go_on_another_thread),
        cmocka_unit_test(engine_names_parse_back),
        cmocka_unit_test(the_environment_chooses_the_default_engine),
        cmocka_unit_test(misuse_aborts),
        cmocka_unit_test(bottom_halves_run_in_order_once_per_turn),
        cmocka_unit_test(bottom_halves_can_be_freed_anytime),
        cmocka_unit_test(a_nested_poll_runs_what_its_caller_has_left),
        cmocka_unit_test(timers_fire_in_order_of_time),
        cmocka_unit_test(a_due_timer_can_be_deleted_and_equal_ones_keep_their_order),
        cmocka_unit_test(notify_ends_a_blocking_poll),
        cmocka_unit_test(notify_works_in_a_signal_handler),
        cmocka_unit_test(the_main_thread_waits_for_a_thread),
        cmocka_unit_test(stopping_a_thread_finishes_what_is_queued),
        cmocka_unit_test(a_thread_without_its_engine_is_an_error),
        cmocka_unit_test(what_belongs_to_an_ended_thread_can_be_freed),
    };

    test_death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return test_each_engine("aio", tests, G_N_ELEMENTS(tests));
}
