/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines: order of execution, state that must survive a switch, the pool,
 * wakeups, and the messages for misuse. Built once with the stack switch of
 * this processor and once with ucontext (EXPECT_UCONTEXT).
 */
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/unit/death.h"
#include "util/coroutine-int.h"
#include "util/sanitizer.h"

/* ---- Order ---------------------------------------------------------------- */

static char trace[64];

static void note(char c)
{
    size_t len = strlen(trace);

    assert_true(len + 1 < sizeof(trace));
    trace[len] = c;
    trace[len + 1] = 0;
}

static void coroutine_fn yield_twice(void *opaque)
{
    note('a');
    coroutine_yield();
    note('b');
    coroutine_yield();
    note('c');
}

static void switch_is_the_expected_one(void **state)
{
#ifdef EXPECT_UCONTEXT
    assert_string_equal(coroutine_switch_name(), "ucontext");
#elif defined(__x86_64__)
    assert_string_equal(coroutine_switch_name(), "x86-64");
#elif defined(__aarch64__)
    assert_string_equal(coroutine_switch_name(), "aarch64");
#else
    assert_string_equal(coroutine_switch_name(), "ucontext");
#endif
}

static void runs_in_turn_with_its_caller(void **state)
{
    Coroutine *co = coroutine_create(yield_twice, NULL);

    trace[0] = 0;
    note('0');
    coroutine_enter(co);
    note('1');
    coroutine_enter(co);
    note('2');
    coroutine_enter(co);
    note('3');
    assert_string_equal(trace, "0a1b2c3");
}

static void coroutine_fn check_self(void *opaque)
{
    Coroutine **co = opaque;

    assert_true(in_coroutine());
    assert_ptr_equal(coroutine_self(), *co);
    coroutine_yield();
    assert_ptr_equal(coroutine_self(), *co);
    *co = NULL;
}

static void self_is_the_running_coroutine(void **state)
{
    Coroutine *co = coroutine_create(check_self, &co);

    assert_false(in_coroutine());
    coroutine_enter(co);
    assert_null(coroutine_self());
    coroutine_enter(co);
    assert_null(co);
    assert_null(coroutine_self());
}

static void coroutine_fn nested_inner(void *opaque)
{
    note('i');
    coroutine_yield();
    note('j');
}

static void coroutine_fn nested_outer(void *opaque)
{
    Coroutine *self = coroutine_self();
    Coroutine *inner = coroutine_create(nested_inner, NULL);

    note('o');
    coroutine_enter(inner);
    assert_ptr_equal(coroutine_self(), self);
    note('p');
    coroutine_yield();
    note('q');
    coroutine_enter(inner);
    assert_ptr_equal(coroutine_self(), self);
    note('r');
}

static void a_nested_coroutine_yields_to_the_outer_one(void **state)
{
    Coroutine *co = coroutine_create(nested_outer, NULL);

    trace[0] = 0;
    coroutine_enter(co);
    note('|');
    coroutine_enter(co);
    assert_string_equal(trace, "oip|qjr");
}

static void coroutine_fn enter_deeper(void *opaque)
{
    unsigned *depth = opaque;

    if (*depth > 0) {
        --*depth;
        coroutine_enter(coroutine_create(enter_deeper, depth));
    }
}

static void a_thousand_coroutines_nest(void **state)
{
    unsigned depth = 1000;

    coroutine_enter(coroutine_create(enter_deeper, &depth));
    assert_int_equal(depth, 0);
}

/* ---- What survives a switch ----------------------------------------------- */

static void coroutine_fn fill_registers(void *opaque)
{
    volatile uint64_t seed = (uintptr_t)opaque;
    uint64_t a = seed * 3, b = seed * 5, c = seed * 7, d = seed * 11, e = seed * 13;
    double x = seed * 0.5;

    for (unsigned i = 0; i < 100; i++) {
        coroutine_yield();
        a += 3;
        b += 5;
        c += 7;
        d += 11;
        e += 13;
        x += 0.5;
    }
    assert_int_equal(a, (seed + 100) * 3);
    assert_int_equal(b, (seed + 100) * 5);
    assert_int_equal(c, (seed + 100) * 7);
    assert_int_equal(d, (seed + 100) * 11);
    assert_int_equal(e, (seed + 100) * 13);
    assert_true(x == (seed + 100) * 0.5);
}

static void local_values_survive_interleaved_switches(void **state)
{
    Coroutine *co[16];

    for (unsigned i = 0; i < G_N_ELEMENTS(co); i++) {
        co[i] = coroutine_create(fill_registers, (void *)(uintptr_t)(i * 1000 + 1));
    }
    for (unsigned round = 0; round < 101; round++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(co); i++) {
            coroutine_enter(co[i]);
        }
    }
}

static void coroutine_fn round_upward(void *opaque)
{
    assert_int_equal(fegetround(), FE_TONEAREST);
    fesetround(FE_UPWARD);
    coroutine_yield();
    assert_int_equal(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
}

static void rounding_mode_belongs_to_the_coroutine(void **state)
{
    Coroutine *co = coroutine_create(round_upward, NULL);

    coroutine_enter(co);
    assert_int_equal(fegetround(), FE_TONEAREST);
    coroutine_enter(co);
}

static void coroutine_fn count_in_local(void *opaque)
{
    uintptr_t *sum = opaque;

    for (unsigned i = 0; i < 3; i++) {
        *coroutine_local(COROUTINE_LOCAL_USER) += 1;
        coroutine_yield();
    }
    *sum += *coroutine_local(COROUTINE_LOCAL_USER);
}

static void locals_belong_to_the_coroutine_and_start_as_0(void **state)
{
    uintptr_t sum = 0;

    *coroutine_local(COROUTINE_LOCAL_USER) = 77;
    /* The second round gets the first one's records from the pool. */
    for (unsigned round = 0; round < 2; round++) {
        Coroutine *a = coroutine_create(count_in_local, &sum);
        Coroutine *b = coroutine_create(count_in_local, &sum);

        for (unsigned i = 0; i < 4; i++) {
            coroutine_enter(a);
            coroutine_enter(b);
        }
    }
    assert_int_equal(sum, 4 * 3);
    assert_int_equal(*coroutine_local(COROUTINE_LOCAL_USER), 77);
    assert_int_equal(*coroutine_local(COROUTINE_LOCAL_GRAPH_LOCK), 0);
}

static void coroutine_fn use_much_stack(void *opaque)
{
    volatile char buf[128 * 1024];

    memset((char *)buf, 0x55, sizeof(buf));
    coroutine_yield();
    for (size_t i = 0; i < sizeof(buf); i += 4096) {
        assert_int_equal(buf[i], 0x55);
    }
}

static void a_frame_of_128_kib_fits(void **state)
{
    Coroutine *a = coroutine_create(use_much_stack, NULL);
    Coroutine *b = coroutine_create(use_much_stack, NULL);

    coroutine_enter(a);
    coroutine_enter(b);
    coroutine_enter(a);
    coroutine_enter(b);
}

/* ---- Threads and the pool -------------------------------------------------- */

static void coroutine_fn remember_thread(void *opaque)
{
    pid_t *ran_on = opaque;

    ran_on[0] = gettid();
    coroutine_yield();
    ran_on[1] = gettid();
}

typedef struct EnterThread {
    Coroutine *co;
    pid_t tid;
} EnterThread;

static void *enter_thread(void *opaque)
{
    EnterThread *t = opaque;

    t->tid = gettid();
    assert_null(coroutine_self());
    coroutine_enter(t->co);
    assert_null(coroutine_self());
    return NULL;
}

static void runs_on_the_thread_that_enters_it(void **state)
{
    pid_t ran_on[2] = { 0, 0 };
    EnterThread t = { .co = coroutine_create(remember_thread, ran_on) };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, enter_thread, &t), 0);
    pthread_join(thread, NULL);
    assert_int_not_equal(t.tid, gettid());
    assert_int_equal(ran_on[0], t.tid);
    coroutine_enter(t.co);
    assert_int_equal(ran_on[1], gettid());
}

static unsigned count_records(void)
{
    unsigned n = 0;

    for (Coroutine *co = coroutine_all; co; co = co->all_next) {
        assert_true(!co->all_next || co->all_next->all_prev == co);
        n++;
    }
    return n;
}

static void coroutine_fn do_nothing(void *opaque)
{
}

#define BATCH 300

static void *enter_batch_thread(void *opaque)
{
    Coroutine **co = opaque;

    for (unsigned i = 0; i < BATCH; i++) {
        coroutine_enter(co[i]);
    }
    return NULL;
}

static void records_come_back_from_the_thread_that_ended_them(void **state)
{
    Coroutine *co[BATCH];
    unsigned after_first = 0;

    for (unsigned round = 0; round < 20; round++) {
        pthread_t thread;

        for (unsigned i = 0; i < BATCH; i++) {
            co[i] = coroutine_create(do_nothing, NULL);
        }
        assert_int_equal(pthread_create(&thread, NULL, enter_batch_thread, co), 0);
        pthread_join(thread, NULL);
        if (round == 0) {
            after_first = count_records();
        }
    }
    /* Without a way back, each round would add BATCH records. */
    assert_in_range(count_records(), 1, after_first + BATCH);
}

static void the_pool_is_bounded(void **state)
{
    enum {
        N = 3000
    };
    g_autofree Coroutine **co = g_new(Coroutine *, N);

    for (unsigned i = 0; i < N; i++) {
        co[i] = coroutine_create(do_nothing, NULL);
    }
    assert_in_range(count_records(), N, N + 2000);
    for (unsigned i = 0; i < N; i++) {
        coroutine_enter(co[i]);
    }
    assert_in_range(count_records(), 1, 64 * (16 + 2));
}

static void *create_and_finish_thread(void *opaque)
{
    unsigned *during = opaque;
    Coroutine *co[10];

    for (unsigned i = 0; i < G_N_ELEMENTS(co); i++) {
        co[i] = coroutine_create(do_nothing, NULL);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(co); i++) {
        coroutine_enter(co[i]);
    }
    *during = count_records();
    return NULL;
}

static void the_end_of_a_thread_frees_its_pool(void **state)
{
    unsigned during;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, create_and_finish_thread, &during), 0);
    pthread_join(thread, NULL);
    assert_in_range(count_records(), 0, during - 10);
}

static void thousands_of_coroutines_live_at_once(void **state)
{
    /* TSan needs several mappings for each, and valgrind limits their number. */
#ifdef BUILT_WITH_TSAN
    const unsigned count = 4000;
#else
    const unsigned count = RUNNING_ON_VALGRIND ? 4000 : 20000;
#endif
    g_autofree Coroutine **co = g_new(Coroutine *, count);

    for (unsigned i = 0; i < count; i++) {
        co[i] = coroutine_create(yield_twice, NULL);
        trace[0] = 0;
        coroutine_enter(co[i]);
    }
    for (unsigned i = 0; i < count; i++) {
        trace[0] = 0;
        coroutine_enter(co[i]);
        coroutine_enter(co[i]);
        assert_string_equal(trace, "bc");
    }
}

/* ---- Wakeups --------------------------------------------------------------- */

static void coroutine_fn note_after_yield(void *opaque)
{
    coroutine_yield();
    note((char)(uintptr_t)opaque);
}

static void coroutine_fn wake_three(void *opaque)
{
    Coroutine **co = opaque;

    for (unsigned i = 0; i < 3; i++) {
        coroutine_wake_after_yield(co[i]);
    }
    note('w');
    coroutine_yield();
    note('v');
}

static void woken_coroutines_run_in_order_after_the_yield(void **state)
{
    Coroutine *co[3], *waker;

    for (unsigned i = 0; i < 3; i++) {
        co[i] = coroutine_create(note_after_yield, (void *)(uintptr_t)('1' + i));
        coroutine_enter(co[i]);
    }
    trace[0] = 0;
    waker = coroutine_create(wake_three, co);
    coroutine_enter(waker);
    assert_string_equal(trace, "w123");
    coroutine_enter(waker);
    assert_string_equal(trace, "w123v");
}

typedef struct Chain {
    Coroutine *next;
    unsigned *left;
} Chain;

static void coroutine_fn wake_next(void *opaque)
{
    Chain *link = opaque;

    coroutine_yield();
    --*link->left;
    if (link->next) {
        coroutine_wake_after_yield(link->next);
    }
}

static void a_chain_of_wakeups_does_not_nest(void **state)
{
    enum {
        N = 5000
    };
    g_autofree Chain *chain = g_new0(Chain, N + 1);
    unsigned left = N;
    Coroutine *co;

    for (int i = N - 1; i >= 0; i--) {
        chain[i].left = &left;
        co = coroutine_create(wake_next, &chain[i]);
        if (i > 0) {
            chain[i - 1].next = co;
        }
        coroutine_enter(co);
    }
    coroutine_enter(co);
    assert_int_equal(left, 0);
}

static void coroutine_fn wake_self(void *opaque)
{
    coroutine_wake_after_yield(coroutine_self());
    note('s');
    coroutine_yield();
    note('t');
}

static void a_coroutine_that_woke_itself_continues_after_its_yield(void **state)
{
    trace[0] = 0;
    coroutine_enter(coroutine_create(wake_self, NULL));
    assert_string_equal(trace, "st");
}

static void coroutine_fn wake_it(void *opaque)
{
    coroutine_wake_after_yield(opaque);
}

static void coroutine_fn woken_by_inner(void *opaque)
{
    coroutine_enter(coroutine_create(wake_it, coroutine_self()));
    note('x');
    coroutine_yield();
    note('y');
}

static void a_caller_woken_from_inside_continues_after_its_own_yield(void **state)
{
    trace[0] = 0;
    coroutine_enter(coroutine_create(woken_by_inner, NULL));
    assert_string_equal(trace, "xy");
}

/* ---- Misuse ---------------------------------------------------------------- */

static void enter_ended(void)
{
    Coroutine *co = coroutine_create(do_nothing, NULL);

    coroutine_enter(co);
    coroutine_enter(co);
}

static void coroutine_fn enter_self(void *opaque)
{
    coroutine_enter(coroutine_self());
}

static void enter_one_that_enters_itself(void)
{
    coroutine_enter(coroutine_create(enter_self, NULL));
}

static void coroutine_fn enter_other(void *opaque)
{
    coroutine_enter(opaque);
}

static void coroutine_fn enter_child_that_enters_us(void *opaque)
{
    coroutine_enter(coroutine_create(enter_other, coroutine_self()));
}

static void enter_running(void)
{
    coroutine_enter(coroutine_create(enter_child_that_enters_us, NULL));
}

static void yield_outside(void)
{
    coroutine_yield();
}

static void enter_scheduled(void)
{
    Coroutine *co = coroutine_create(do_nothing, NULL);

    coroutine_set_scheduled(co, "somebody");
    coroutine_enter(co);
}

static void schedule_twice(void)
{
    Coroutine *co = coroutine_create(do_nothing, NULL);

    coroutine_set_scheduled(co, "somebody");
    coroutine_set_scheduled(co, "another");
}

static void wake_outside(void)
{
    coroutine_wake_after_yield(coroutine_create(do_nothing, NULL));
}

static void coroutine_fn wake_self_and_end(void *opaque)
{
    coroutine_wake_after_yield(coroutine_self());
}

static void wake_one_that_ends(void)
{
    coroutine_enter(coroutine_create(wake_self_and_end, NULL));
}

/* Not a loop for the compiler: each frame looks into the one above. */
static unsigned coroutine_fn recurse(volatile unsigned char *above, unsigned depth)
{
    volatile unsigned char frame[1024];

    frame[0] = *above + 1;
    return (depth > 0 ? recurse(frame, depth - 1) : 0) + frame[0];
}

static void coroutine_fn recurse_a_gigabyte(void *opaque)
{
    volatile unsigned char c = 1;

    recurse(&c, 1000000);
}

static void overflow_the_stack(void)
{
    coroutine_enter(coroutine_create(recurse_a_gigabyte, NULL));
}

static const DeathCase deaths[] = {
    DIES(enter_ended, "entered after it has ended"),
    DIES(enter_one_that_enters_itself, "enters itself"),
    DIES(enter_running, "entered while it is running"),
    DIES(yield_outside, "coroutine_yield() outside of a coroutine"),
    DIES(enter_scheduled, "entered while somebody() has it queued"),
    DIES(schedule_twice, "queued by another() while somebody() has it queued"),
    DIES(wake_outside, "coroutine_wake_after_yield() outside of a coroutine"),
    DIES(wake_one_that_ends, "entered after it has ended"),
    FAULTS(overflow_the_stack), /* must be last */
};

static void misuse_aborts_with_a_message(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths) - 1);
}

static void running_over_the_stack_faults_in_the_guard_page(void **state)
{
    assert_deaths(&deaths[G_N_ELEMENTS(deaths) - 1], 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(switch_is_the_expected_one),
        cmocka_unit_test(runs_in_turn_with_its_caller),
        cmocka_unit_test(self_is_the_running_coroutine),
        cmocka_unit_test(a_nested_coroutine_yields_to_the_outer_one),
        cmocka_unit_test(a_thousand_coroutines_nest),
        cmocka_unit_test(local_values_survive_interleaved_switches),
        cmocka_unit_test(rounding_mode_belongs_to_the_coroutine),
        cmocka_unit_test(locals_belong_to_the_coroutine_and_start_as_0),
        cmocka_unit_test(a_frame_of_128_kib_fits),
        cmocka_unit_test(runs_on_the_thread_that_enters_it),
        cmocka_unit_test(records_come_back_from_the_thread_that_ended_them),
        cmocka_unit_test(the_pool_is_bounded),
        cmocka_unit_test(the_end_of_a_thread_frees_its_pool),
        cmocka_unit_test(thousands_of_coroutines_live_at_once),
        cmocka_unit_test(woken_coroutines_run_in_order_after_the_yield),
        cmocka_unit_test(a_chain_of_wakeups_does_not_nest),
        cmocka_unit_test(a_coroutine_that_woke_itself_continues_after_its_yield),
        cmocka_unit_test(a_caller_woken_from_inside_continues_after_its_own_yield),
        cmocka_unit_test(misuse_aborts_with_a_message),
        cmocka_unit_test(running_over_the_stack_faults_in_the_guard_page),
    };

    death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
