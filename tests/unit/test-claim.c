/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Claims: who waits for whom, against a model in order of arrival, and
 * exclusion between four threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "block/claim.h"
#include "blockgraph/aio.h"
#include "tests/unit/death.h"
#include "util/sim.h"

#define THREADS 4
#define PER_THREAD 16

static AioContext *main_ctx;

/* ---- One claim in a coroutine that does as it is told -------------------------- */

typedef struct Holder {
    ClaimSet *set;
    Claim claim;
    int64_t offset;
    int64_t bytes;
    bool exclusive;
    bool granted;
    bool ended;
    bool downgrade; /* what to do when entered next: this, or end */
    Coroutine *co;
} Holder;

static void coroutine_fn hold(void *opaque)
{
    Holder *h = opaque;

    claim_begin(h->set, &h->claim, h->offset, h->bytes, h->exclusive);
    h->granted = true;
    coroutine_yield();
    if (h->downgrade) {
        claim_downgrade(h->set, &h->claim);
        coroutine_yield();
    }
    claim_end(h->set, &h->claim);
    h->ended = true;
}

static void begin(Holder *h, ClaimSet *set, int64_t offset, int64_t bytes, bool exclusive)
{
    *h = (Holder) { .set = set, .offset = offset, .bytes = bytes, .exclusive = exclusive };
    h->co = coroutine_create(hold, h);
    coroutine_enter(h->co);
}

static void downgrade(Holder *h)
{
    assert_true(h->granted);
    h->downgrade = true;
    coroutine_enter(h->co);
}

static void end(Holder *h)
{
    assert_true(h->granted && !h->ended);
    coroutine_enter(h->co);
    assert_true(h->ended);
}

/* ---- Order ----------------------------------------------------------------------- */

static void shared_claims_overlap(void **state)
{
    ClaimSet *set = claim_set_new();
    Holder a, b;

    begin(&a, set, 0, 100, false);
    begin(&b, set, 50, 100, false);
    assert_true(a.granted && b.granted);
    end(&a);
    end(&b);
    claim_set_free(set);
}

static void exclusive_waits_for_shared_and_shared_for_exclusive(void **state)
{
    ClaimSet *set = claim_set_new();
    Holder a, b, c;

    begin(&a, set, 0, 100, false);
    begin(&b, set, 99, 1, true);
    assert_false(b.granted);
    begin(&c, set, 99, 100, false);
    assert_false(c.granted);
    end(&a);
    assert_true(b.granted);
    assert_false(c.granted);
    end(&b);
    assert_true(c.granted);
    end(&c);
    claim_set_free(set);
}

static void neighbours_do_not_conflict(void **state)
{
    ClaimSet *set = claim_set_new();
    Holder a, b, c;

    begin(&a, set, 100, 100, true);
    begin(&b, set, 0, 100, true);
    begin(&c, set, 200, INT64_MAX - 200, true);
    assert_true(a.granted && b.granted && c.granted);
    end(&a);
    end(&b);
    end(&c);
    claim_set_free(set);
}

static void waits_for_older_waiters_too(void **state)
{
    ClaimSet *set = claim_set_new();
    Holder a, b, c;

    begin(&a, set, 0, 10, true);
    begin(&b, set, 5, 10, true);
    /* Conflicts with b only, which is not granted yet; a stream of such may not starve b. */
    begin(&c, set, 12, 10, false);
    assert_false(b.granted || c.granted);
    end(&a);
    assert_true(b.granted);
    assert_false(c.granted);
    end(&b);
    assert_true(c.granted);
    end(&c);
    claim_set_free(set);
}

static void waits_for_all_that_conflict(void **state)
{
    ClaimSet *set = claim_set_new();
    Holder parts[3], whole, later;

    for (int i = 0; i < 3; i++) {
        begin(&parts[i], set, 10 * i, 10, i != 1);
    }
    begin(&whole, set, 0, 30, true);
    begin(&later, set, 40, 10, true);
    assert_true(later.granted);
    end(&parts[1]);
    assert_false(whole.granted);
    end(&parts[2]);
    assert_false(whole.granted);
    end(&parts[0]);
    assert_true(whole.granted);
    end(&whole);
    end(&later);
    claim_set_free(set);
}

static void downgrading_lets_shared_ones_in(void **state)
{
    ClaimSet *set = claim_set_new();
    Holder a, b, c, d;

    begin(&a, set, 0, 10, true);
    begin(&b, set, 0, 10, false);
    begin(&c, set, 0, 10, true);
    begin(&d, set, 0, 10, false);
    downgrade(&a);
    assert_true(b.granted);
    assert_false(c.granted || d.granted);
    end(&a);
    assert_false(c.granted);
    end(&b);
    assert_true(c.granted);
    assert_false(d.granted);
    end(&c);
    assert_true(d.granted);
    downgrade(&d); /* is shared: nothing happens */
    end(&d);
    claim_set_free(set);
}

static void several_go_on_together(void **state)
{
    ClaimSet *set = claim_set_new();
    Holder a, b[5];

    begin(&a, set, 0, 100, true);
    for (int i = 0; i < 5; i++) {
        begin(&b[i], set, 20 * i, 20, i % 2);
        assert_false(b[i].granted);
    }
    end(&a);
    for (int i = 0; i < 5; i++) {
        assert_true(b[i].granted);
        end(&b[i]);
    }
    claim_set_free(set);
}

/* ---- Against a model --------------------------------------------------------------- */

#define MODEL_CLAIMS 24

static bool model_conflict(const Holder *a, const Holder *b)
{
    return (a->exclusive || b->exclusive) && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

/* @list holds the claims that have not ended, oldest first. */
static void check_model(GPtrArray *list)
{
    for (unsigned i = 0; i < list->len; i++) {
        const Holder *h = list->pdata[i];
        bool expected = true;

        for (unsigned j = 0; j < i; j++) {
            expected &= !model_conflict(h, list->pdata[j]);
        }
        assert_int_equal(h->granted, expected);
    }
}

static Holder *pick_granted(GRand *rand, GPtrArray *list)
{
    Holder *h;

    /* The oldest is always granted, so this ends. */
    do {
        h = list->pdata[g_rand_int_range(rand, 0, list->len)];
    } while (!h->granted);
    return h;
}

static void end_and_forget(GPtrArray *list, Holder *h)
{
    end(h);
    g_ptr_array_remove(list, h); /* keeps the order */
    g_free(h);
}

static void grants_are_those_of_the_model(void **state)
{
    for (unsigned seed = 0; seed < 20; seed++) {
        ClaimSet *set = claim_set_new();
        g_autoptr(GPtrArray) list = g_ptr_array_new();
        GRand *rand = g_rand_new_with_seed(seed);

        for (int step = 0; step < 1000; step++) {
            int dice = g_rand_int_range(rand, 0, 8);

            if (dice < 4 && list->len < MODEL_CLAIMS) {
                Holder *h = g_new(Holder, 1);

                begin(h, set, g_rand_int_range(rand, 0, 40), g_rand_int_range(rand, 1, 12),
                      g_rand_boolean(rand));
                g_ptr_array_add(list, h);
            } else if (dice == 4 && list->len > 0) {
                Holder *h = pick_granted(rand, list);

                if (!h->downgrade) {
                    downgrade(h);
                    h->exclusive = false;
                }
            } else if (list->len > 0) {
                end_and_forget(list, pick_granted(rand, list));
            }
            check_model(list);
        }
        while (list->len > 0) {
            end_and_forget(list, pick_granted(rand, list));
            check_model(list);
        }
        g_rand_free(rand);
        claim_set_free(set);
    }
}

/* ---- Four threads ------------------------------------------------------------------- */

#define UNITS 32
#define ROUNDS 300
#define SIM_ROUNDS 8
#define SIM_SEEDS 150

typedef struct Stress {
    ClaimSet *set;
    int rounds;
    unsigned users[UNITS]; /* atomic: shared holders, + EXCLUSIVE */
    int values[UNITS];     /* plain: what TSan watches */
    unsigned violations;   /* atomic */
    unsigned seed;         /* atomic */
    unsigned running;      /* atomic */
    AioContext *main_ctx;
} Stress;

#define EXCLUSIVE 0x10000u

static void coroutine_fn stress_yield(GRand *rand)
{
    if (g_rand_int_range(rand, 0, 4) == 0) {
        co_sleep_ns(0);
    }
}

static void enter_units(Stress *s, const Claim *claim, unsigned add)
{
    for (int64_t u = claim->offset; u < claim->offset + claim->bytes; u++) {
        unsigned before = __atomic_fetch_add(&s->users[u], add, __ATOMIC_RELAXED);

        bool violated = add == EXCLUSIVE ? before != 0 : before >= EXCLUSIVE;

        if (add == EXCLUSIVE) {
            s->values[u]++;
        } else {
            violated |= s->values[u] < 0;
        }
        if (violated) {
            __atomic_fetch_add(&s->violations, 1, __ATOMIC_RELAXED);
        }
    }
}

static void leave_units(Stress *s, const Claim *claim, unsigned sub)
{
    for (int64_t u = claim->offset; u < claim->offset + claim->bytes; u++) {
        __atomic_fetch_sub(&s->users[u], sub, __ATOMIC_RELAXED);
    }
}

static void coroutine_fn stress_work(void *opaque)
{
    Stress *s = opaque;
    GRand *rand = g_rand_new_with_seed(__atomic_fetch_add(&s->seed, 1, __ATOMIC_RELAXED));

    for (int i = 0; i < s->rounds; i++) {
        int64_t offset = g_rand_int_range(rand, 0, UNITS);
        int64_t bytes = g_rand_int_range(rand, 1, MIN(UNITS - offset, 6) + 1);
        bool exclusive = g_rand_boolean(rand);
        Claim claim;

        claim_begin(s->set, &claim, offset, bytes, exclusive);
        enter_units(s, &claim, exclusive ? EXCLUSIVE : 1);
        stress_yield(rand);
        leave_units(s, &claim, exclusive ? EXCLUSIVE : 1);
        if (exclusive && g_rand_boolean(rand)) {
            claim_downgrade(s->set, &claim);
            enter_units(s, &claim, 1);
            stress_yield(rand);
            leave_units(s, &claim, 1);
        }
        claim_end(s->set, &claim);
        stress_yield(rand);
    }
    g_rand_free(rand);
    if (__atomic_sub_fetch(&s->running, 1, __ATOMIC_ACQ_REL) == 0) {
        aio_notify(s->main_ctx);
    }
}

static void threads_exclude_each_other(void **state)
{
    Stress s = { .set = claim_set_new(), .rounds = ROUNDS, .running = THREADS * PER_THREAD,
                 .main_ctx = main_ctx };
    AioThread *threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        threads[i] = aio_thread_new("claim", AIO_ENGINE_DEFAULT, NULL);
        assert_non_null(threads[i]);
    }
    for (int i = 0; i < THREADS * PER_THREAD; i++) {
        aio_co_schedule(aio_thread_get_context(threads[i % THREADS]),
                        coroutine_create(stress_work, &s));
    }
    while (__atomic_load_n(&s.running, __ATOMIC_ACQUIRE) > 0) {
        aio_poll(main_ctx, true);
    }
    for (int i = 0; i < THREADS; i++) {
        aio_thread_stop(threads[i]);
    }
    claim_set_free(s.set);
    assert_int_equal(s.violations, 0);
}

/* The same on simulated threads: whoever is not woken stops the world. */
static bool nobody_runs(void *opaque)
{
    return ((Stress *)opaque)->running == 0;
}

static bool claims_in_a_world(SimWorld *world, void *opaque)
{
    Stress s = { .set = claim_set_new(), .rounds = SIM_ROUNDS, .running = 3 * THREADS,
                 .main_ctx = sim_world_add_context(world, "main") };
    AioContext *ctx[3] = { s.main_ctx, sim_world_add_context(world, "a"),
                           sim_world_add_context(world, "b") };

    s.seed = sim_world_random(world, 1000000);
    for (int i = 0; i < 3 * THREADS; i++) {
        aio_co_schedule(ctx[i % 3], coroutine_create(stress_work, &s));
    }
    if (!sim_world_run_until(world, nobody_runs, &s)) {
        return false;
    }
    claim_set_free(s.set);
    return s.violations == 0;
}

static void any_order_excludes_and_wakes_all(void **state)
{
    assert_int_equal(sim_try_seeds(SIM_SEEDS, claims_in_a_world, NULL), 0);
}

/* ---- Misuse --------------------------------------------------------------------------- */

static AioContext *make_one(void)
{
    AioContext *ctx = aio_context_new(AIO_ENGINE_DEFAULT, NULL);

    assert_non_null(ctx);
    return ctx;
}

static void free_with_a_claim_left(void)
{
    ClaimSet *set = claim_set_new();
    Holder a;

    make_one();
    begin(&a, set, 16, 32, false);
    claim_set_free(set);
}

static void claim_nothing(void)
{
    Holder a;

    make_one();
    begin(&a, claim_set_new(), 16, 0, false);
}

static void claim_beyond_the_last_byte(void)
{
    Holder a;

    make_one();
    begin(&a, claim_set_new(), INT64_MAX, 1, false);
}

static const DeathCase deaths[] = {
    DIES(free_with_a_claim_left, "range 0x10 + 0x20 is still claimed"),
    DIES(claim_nothing, "invalid range 16 + 0"),
    DIES(claim_beyond_the_last_byte, "invalid range 9223372036854775807 + 1"),
};

static void misuse_is_reported(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

static int make_context(void **state)
{
    main_ctx = make_one();
    return 0;
}

static int drop_context(void **state)
{
    aio_context_unref(main_ctx);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_claims_overlap),
        cmocka_unit_test(exclusive_waits_for_shared_and_shared_for_exclusive),
        cmocka_unit_test(neighbours_do_not_conflict),
        cmocka_unit_test(waits_for_older_waiters_too),
        cmocka_unit_test(waits_for_all_that_conflict),
        cmocka_unit_test(downgrading_lets_shared_ones_in),
        cmocka_unit_test(several_go_on_together),
        cmocka_unit_test(grants_are_those_of_the_model),
        cmocka_unit_test(threads_exclude_each_other),
        cmocka_unit_test(misuse_is_reported),
    };
    const struct CMUnitTest simulated[] = {
        cmocka_unit_test(any_order_excludes_and_wakes_all),
    };

    death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return cmocka_run_group_tests_name("one loop and threads", tests, make_context,
                                       drop_context) +
           cmocka_run_group_tests_name("simulated", simulated, NULL, NULL);
}
