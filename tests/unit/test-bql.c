/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The big lock: mutual exclusion, who holds it, blocked unlocking, an
 * emulator's own lock, and the messages for misuse.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "blockgraph/bql.h"
#include "tests/unit/death.h"

/* Through a pointer, what is wrong is unseen by the thread-safety analysis. */
static void unseen(void (*fn)(void))
{
    fn();
}

static void is_held_by_the_thread_that_took_it(void **state)
{
    assert_false(bql_locked());
    bql_lock();
    assert_true(bql_locked());
    bql_unlock();
    assert_false(bql_locked());
}

static void *ask_locked(void *opaque)
{
    *(bool *)opaque = bql_locked();
    return NULL;
}

static void another_thread_does_not_hold_it(void **state)
{
    bool held_there = true;
    pthread_t thread;

    bql_lock();
    assert_int_equal(pthread_create(&thread, NULL, ask_locked, &held_there), 0);
    pthread_join(thread, NULL);
    bql_unlock();
    assert_false(held_there);
}

#define ROUNDS 20000
static unsigned counter;

static void *count_up(void *opaque)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        bql_lock();
        counter++;
        bql_unlock();
    }
    return NULL;
}

static void excludes_other_threads(void **state)
{
    pthread_t threads[4];

    counter = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(counter, G_N_ELEMENTS(threads) * ROUNDS);
}

static void unlocking_works_after_blocks_are_undone(void **state)
{
    bql_lock();
    bql_block_unlock(true);
    bql_block_unlock(true);
    bql_block_unlock(false);
    bql_block_unlock(false);
    bql_unlock();
    assert_false(bql_locked());
}

/* ---- Hooks --------------------------------------------------------------- */

typedef struct Emulator {
    bool held;
    unsigned locks, unlocks;
} Emulator;

static void emulator_lock(void *opaque)
{
    Emulator *e = opaque;

    e->held = true;
    e->locks++;
}

static void emulator_unlock(void *opaque)
{
    Emulator *e = opaque;

    e->held = false;
    e->unlocks++;
}

static bool emulator_locked(void *opaque)
{
    return ((Emulator *)opaque)->held;
}

static Emulator emulator;
static const BqlHooks emulator_hooks = {
    .lock = emulator_lock,
    .unlock = emulator_unlock,
    .locked = emulator_locked,
    .opaque = &emulator,
};

static void hooks_replace_the_lock(void **state)
{
    bql_set_hooks(&emulator_hooks);
    assert_false(bql_locked());
    bql_lock();
    assert_true(emulator.held);
    assert_true(bql_locked());
    bql_unlock();
    assert_false(bql_locked());
    assert_int_equal(emulator.locks, 1);
    assert_int_equal(emulator.unlocks, 1);
    /* A lock that the emulator took itself counts. */
    emulator_lock(&emulator);
    assert_true(bql_locked());
    unseen(bql_unlock);
    assert_int_equal(emulator.unlocks, 2);
}

/* ---- Misuse ---------------------------------------------------------------- */

static void lock_twice(void)
{
    unseen(bql_lock);
    unseen(bql_lock);
}

static void unlock_unheld(void)
{
    unseen(bql_unlock);
}

static void unlock_blocked(void)
{
    bql_lock();
    bql_block_unlock(true);
    bql_unlock();
}

static void block_unheld(void)
{
    bql_block_unlock(true);
}

static void unblock_too_often(void)
{
    bql_lock();
    bql_block_unlock(true);
    bql_block_unlock(false);
    bql_block_unlock(false);
    bql_unlock();
}

static void hook_missing(void)
{
    BqlHooks incomplete = emulator_hooks;

    incomplete.locked = NULL;
    bql_set_hooks(&incomplete);
}

static void hooks_twice(void)
{
    bql_set_hooks(&emulator_hooks);
    bql_set_hooks(&emulator_hooks);
}

static void hooks_while_held(void)
{
    unseen(bql_lock);
    bql_set_hooks(&emulator_hooks);
}

static void unlock_blocked_with_hooks(void)
{
    bql_set_hooks(&emulator_hooks);
    unlock_blocked();
}

static const DeathCase deaths[] = {
    DIES(lock_twice, "bql_lock(): this thread holds the big lock already"),
    DIES(unlock_unheld, "bql_unlock(): this thread does not hold the big lock"),
    DIES(unlock_blocked, "bql_unlock(): 1 borrows that the big lock protects are alive"),
    DIES(block_unheld, "bql_block_unlock(): this thread does not hold the big lock"),
    DIES(unblock_too_often, "bql_block_unlock(false) without"),
    DIES(hook_missing, "lock, unlock and locked are all required"),
    DIES(hooks_twice, "bql_set_hooks() called twice"),
    DIES(hooks_while_held, "bql_set_hooks() called while the big lock is held"),
    DIES(unlock_blocked_with_hooks, "borrows that the big lock protects are alive"),
};

static void misuse_aborts_with_a_message(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_held_by_the_thread_that_took_it),
        cmocka_unit_test(another_thread_does_not_hold_it),
        cmocka_unit_test(excludes_other_threads),
        cmocka_unit_test(unlocking_works_after_blocks_are_undone),
        cmocka_unit_test(misuse_aborts_with_a_message),
        cmocka_unit_test(hooks_replace_the_lock), /* for good, so last */
    };

    death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
