/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slots by themselves: the moment that pass-through rests on, on real threads. A
 * request occupies its slot and looks whether it may go on, while somebody forbids
 * that and looks whether a slot is occupied: never do both go on.
 */
#include "block-testing.h"
#include "block/slot.h"
#include "util/valgrind.h"

#define ROUNDS 150000 /* and requests that went on, at least */
#define THREADS 1 /* as many as can run beside the main one at any time */

typedef struct Duel {
    PassThrough pass;
    int forbidden;     /* atomic */
    int stop;          /* atomic */
    uint64_t went_on;  /* atomic: requests that did */
    uint64_t guarded[THREADS]; /* plain: whoever goes on may write to it */
    int running;       /* atomic */
} Duel;

static void request(Duel *duel, unsigned number)
{
    Slot *slot = slot_take();

    if (slot_enter(slot, &duel->pass, 0, 1)) {
        if (!__atomic_load_n(&duel->forbidden, __ATOMIC_ACQUIRE)) {
            duel->guarded[number]++;
            __atomic_fetch_add(&duel->went_on, 1, __ATOMIC_RELAXED);
        }
        slot_leave(slot);
    }
    slot_give_back(slot);
}

typedef struct Dueller {
    Duel *duel;
    unsigned number;
} Dueller;

static void make_requests(void *opaque)
{
    Dueller *d = opaque;

    while (!__atomic_load_n(&d->duel->stop, __ATOMIC_ACQUIRE)) {
        request(d->duel, d->number);
    }
    __atomic_fetch_sub(&d->duel->running, 1, __ATOMIC_RELEASE);
    aio_wait_kick();
}

/* Nobody changes what is guarded while requests are forbidden and no slot is used. */
static bool is_quiet(Duel *duel)
{
    bool quiet = true;

    for (unsigned i = 0; i < THREADS; i++) {
        uint64_t before = duel->guarded[i];

        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        for (volatile int spin = 0; spin < 20; spin++) {
        }
        quiet = quiet && *(volatile uint64_t *)&duel->guarded[i] == before;
    }
    return quiet;
}

static void never_do_both_sides_go_on(void **state)
{
    g_autofree Duel *duel = aligned_alloc(64, sizeof(Duel));
    Dueller duellers[THREADS];
    AioThread *threads[THREADS];
    unsigned rounds = RUNNING_ON_VALGRIND ? 100 : ROUNDS; /* which runs one thread at a time */
    unsigned alone = 0, both = 0;

    memset(duel, 0, sizeof(*duel));
    duel->running = THREADS;
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = aio_thread_new("requests", AIO_ENGINE_DEFAULT, NULL);
        assert_non_null(threads[i]);
        duellers[i] = (Dueller){duel, i};
        aio_bh_oneshot(aio_thread_get_context(threads[i]), make_requests, &duellers[i]);
    }
    for (unsigned i = 0;
         i < rounds || __atomic_load_n(&duel->went_on, __ATOMIC_RELAXED) < rounds; i++) {
        __atomic_store_n(&duel->forbidden, 1, __ATOMIC_RELEASE);
        if (!slots_used_by(&duel->pass)) {
            alone++;
            both += !is_quiet(duel);
        }
        __atomic_store_n(&duel->forbidden, 0, __ATOMIC_RELEASE);
        if (RUNNING_ON_VALGRIND) {
            g_thread_yield();
        }
    }
    __atomic_store_n(&duel->stop, 1, __ATOMIC_RELEASE);
    AIO_WAIT_WHILE(__atomic_load_n(&duel->running, __ATOMIC_ACQUIRE) > 0);
    for (unsigned i = 0; i < THREADS; i++) {
        aio_thread_stop(threads[i]);
    }
    assert_true(alone > 0);
    assert_int_equal(both, 0);
}

/* ---- Waiting -------------------------------------------------------------------------- */

typedef struct Wait {
    PassThrough *pass;
    int64_t offset;
    int64_t bytes;
    bool done;
} Wait;

static void coroutine_fn wait_for_slots(void *opaque)
{
    Wait *w = opaque;
    SlotWait wait = {NULL};

    slot_wait_add(&wait, w->pass, w->offset, w->bytes);
    slot_wait_finish(&wait);
    w->done = true;
}

static bool waits(PassThrough *pass, int64_t offset, int64_t bytes, Wait *w)
{
    *w = (Wait){pass, offset, bytes, false};
    coroutine_enter(coroutine_create(wait_for_slots, w));
    return !w->done;
}

static void run_ready(void)
{
    while (aio_poll(aio_context_main(), false)) {
    }
}

static void changers_wait_for_what_was_there_and_overlaps(void **state)
{
    PassThrough *pass = aligned_alloc(64, sizeof(*pass)), *other = aligned_alloc(64, sizeof(*pass));
    Slot *a = slot_take(), *b = slot_take();
    Wait w[5];

    assert_true(slot_enter(a, pass, 4096, 4096));
    assert_true(slots_used_by(pass));
    assert_false(slots_used_by(other));
    assert_false(waits(pass, 0, 4096, &w[0]));
    assert_false(waits(pass, 8192, INT64_MAX, &w[0]));
    assert_false(waits(other, 0, INT64_MAX, &w[0]));
    assert_true(waits(pass, 8191, 1, &w[1]));
    assert_true(waits(pass, 0, INT64_MAX, &w[2]));
    assert_true(slot_enter(b, pass, 4096, 4096)); /* came later: the others do not wait for it */
    assert_true(waits(pass, 4000, 100, &w[3]));
    slot_leave(a);
    run_ready();
    assert_true(w[1].done && w[2].done);
    assert_false(w[3].done);
    assert_true(slot_enter(a, pass, 4096, 4096)); /* the same slot again is another request */
    slot_leave(b);
    run_ready();
    assert_true(w[3].done);
    slot_leave(a);
    assert_false(slots_used_by(pass));
    slot_give_back(a);
    slot_give_back(b);
    free(pass);
    free(other);
}

static void same_slot_again_is_not_waited_for(void **state)
{
    PassThrough *pass = aligned_alloc(64, sizeof(*pass));
    Slot *slot = slot_take();
    Wait w;

    assert_true(slot_enter(slot, pass, 0, 512));
    assert_true(waits(pass, 0, 512, &w));
    slot_leave(slot);
    assert_true(slot_enter(slot, pass, 0, 512));
    run_ready();
    assert_true(w.done);
    slot_leave(slot);
    slot_give_back(slot);
    free(pass);
}

static void table_has_so_many_slots(void **state)
{
    Slot *slots[SLOTS];

    for (int i = 0; i < SLOTS; i++) {
        slots[i] = slot_take();
        assert_non_null(slots[i]);
    }
    assert_null(slot_take());
    slot_give_back(slots[17]);
    assert_ptr_equal(slot_take(), slots[17]);
    for (int i = 0; i < SLOTS; i++) {
        slot_give_back(slots[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changers_wait_for_what_was_there_and_overlaps),
        cmocka_unit_test(same_slot_again_is_not_waited_for),
        cmocka_unit_test(table_has_so_many_slots),
        cmocka_unit_test(never_do_both_sides_go_on),
    };

    return cmocka_run_group_tests(tests, blockgraph_group_setup, blockgraph_group_teardown);
}
