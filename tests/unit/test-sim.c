/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated world: that it is the same for the same seed, different for
 * others, and finds what depends on order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "blockgraph/aio.h"
#include "blockgraph/bql.h"
#include "tests/unit/death.h"
#include "util/sim.h"

enum {
    SEEDS = 200
};

static bool flag_is_set(void *opaque)
{
    return *(bool *)opaque;
}

static void set_flag(void *opaque)
{
    *(bool *)opaque = true;
}

/* ---- Order ---------------------------------------------------------------- */

typedef struct Order {
    AioContext *ctx;
    GString *log;
    char name;
    int fd;
} Order;

enum {
    PEOPLE = 4
};

static bool everybody_is_done(void *opaque)
{
    return ((GString *)opaque)->len == PEOPLE * 3;
}

/* Leaves a letter at each of three points, between which others may run. */
static void coroutine_fn leave_letters(void *opaque)
{
    Order *o = opaque;
    char byte;
    struct iovec iov = { &byte, 1 };
    AioRequest req = { .op = AIO_OP_READV, .fd = o->fd, .iov = &iov, .niov = 1 };

    g_string_append_c(o->log, o->name);
    assert_int_equal(aio_co_submit(&req), 0);
    assert_ptr_equal(aio_context_current(), o->ctx);
    g_string_append_c(o->log, o->name);
    co_sleep_ns(1000);
    g_string_append_c(o->log, o->name);
}

/* Two contexts with two coroutines each; returns the order of the letters. */
static char *run_letters(SimWorld *world)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Order people[PEOPLE];
    AioContext *contexts[2] = {
        sim_world_add_context(world, "main"),
        sim_world_add_context(world, "io"),
    };
    int fd = memfd_create("test", MFD_CLOEXEC);

    for (int i = 0; i < PEOPLE; i++) {
        people[i] = (Order){ contexts[i / 2], log, 'a' + i, fd };
        aio_co_schedule(people[i].ctx, coroutine_create(leave_letters, &people[i]));
    }
    assert_true(sim_world_run_until(world, everybody_is_done, log));
    close(fd);
    return g_string_free(g_steal_pointer(&log), false);
}

static void append_line(const char *line, void *opaque)
{
    g_string_append_printf(opaque, "%s\n", line);
}

/* Returns the trace, with the letters at its end. */
static char *trace_letters(uint64_t seed, uint64_t *digest)
{
    g_autoptr(SimWorld) world = sim_world_new(seed);
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *letters = NULL;

    sim_world_set_trace(world, append_line, text);
    letters = run_letters(world);
    assert_true(text->len > 0);
    *digest = sim_world_digest(world);
    g_string_append(text, letters);
    return g_string_free(g_steal_pointer(&text), false);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t first_digest, second_digest;
        g_autofree char *first = trace_letters(seed, &first_digest);
        g_autofree char *second = trace_letters(seed, &second_digest);

        assert_string_equal(first, second);
        assert_int_equal(first_digest, second_digest);
    }
}

static void different_seeds_give_different_orders(void **state)
{
    g_autoptr(GHashTable) orders = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (uint64_t seed = 1; seed <= 50; seed++) {
        g_autoptr(SimWorld) world = sim_world_new(seed);

        g_hash_table_add(orders, run_letters(world));
    }
    assert_true(g_hash_table_size(orders) > 40);
}

/* ---- A race --------------------------------------------------------------- */

typedef struct Counter {
    CoMutex mutex;
    bool locked;
    int value;
    int done;
} Counter;

static bool counting_is_over(void *opaque)
{
    return ((Counter *)opaque)->done == 2;
}

static void coroutine_fn count_up(Counter *counter)
{
    int value = counter->value;

    co_sleep_ns(0);
    counter->value = value + 1;
}

static void coroutine_fn increment(void *opaque)
{
    Counter *counter = opaque;

    /* A while later, so that it takes luck for the two to meet. */
    co_sleep_ns(5);
    co_sleep_ns(0);
    if (counter->locked) {
        co_mutex_lock(&counter->mutex);
        count_up(counter);
        co_mutex_unlock(&counter->mutex);
    } else {
        count_up(counter);
    }
    counter->done++;
}

/* Whether two coroutines on two contexts have counted to two. */
static bool count_to_two(SimWorld *world, void *opaque)
{
    Counter counter = { .locked = *(bool *)opaque };
    AioContext *main_context = sim_world_add_context(world, "main");
    AioContext *io = sim_world_add_context(world, "io");

    co_mutex_init(&counter.mutex);
    aio_co_schedule(main_context, coroutine_create(increment, &counter));
    aio_co_schedule(io, coroutine_create(increment, &counter));
    assert_true(sim_world_run_until(world, counting_is_over, &counter));
    co_mutex_destroy(&counter.mutex);
    return counter.value == 2;
}

static void a_race_is_found_by_some_seed_and_replays(void **state)
{
    bool locked = false;
    uint64_t seed = sim_try_seeds(SEEDS, count_to_two, &locked);

    assert_true(seed > 0);
    for (int i = 0; i < 3; i++) {
        g_autoptr(SimWorld) world = sim_world_new(seed);

        assert_false(count_to_two(world, &locked));
    }
}

static void a_mutex_leaves_nothing_to_find(void **state)
{
    bool locked = true;

    assert_int_equal(sim_try_seeds(SEEDS, count_to_two, &locked), 0);
}

static bool add_one(SimWorld *world, void *opaque)
{
    ++*(int *)opaque;
    return true;
}

static void a_seed_in_the_environment_runs_alone(void **state)
{
    int runs = 0;

    g_setenv("BLOCKGRAPH_SEED", "77", true);
    assert_int_equal(sim_try_seeds(SEEDS, add_one, &runs), 0);
    g_unsetenv("BLOCKGRAPH_SEED");
    assert_int_equal(runs, 1);
    assert_int_equal(sim_try_seeds(5, add_one, &runs), 0);
    assert_int_equal(runs, 6);
}

/* ---- I/O ------------------------------------------------------------------ */

typedef struct Copy {
    int fd;
    char data[4096];
    char back[4096];
    int shorts;
    bool done;
} Copy;

static void coroutine_fn transfer_all(Copy *copy, AioOp op, char *buf)
{
    size_t done = 0;

    while (done < sizeof(copy->data)) {
        struct iovec iov[2] = {
            { buf + done, 1 },
            { buf + done + 1, sizeof(copy->data) - done - 1 },
        };
        AioRequest req = { .op = op, .fd = copy->fd, .iov = iov, .niov = 2, .offset = done };
        int64_t ret = aio_co_submit(&req);

        assert_true(ret > 0 && ret % 512 == 0);
        done += ret;
        copy->shorts += done < sizeof(copy->data);
    }
}

static void coroutine_fn write_and_read_back(void *opaque)
{
    Copy *copy = opaque;
    AioRequest sync = { .op = AIO_OP_FDATASYNC, .fd = copy->fd };

    transfer_all(copy, AIO_OP_WRITEV, copy->data);
    assert_int_equal(aio_co_submit(&sync), 0);
    transfer_all(copy, AIO_OP_READV, copy->back);
    copy->done = true;
}

/* Returns how many requests were cut short. */
static int copy_in_a_world(uint64_t seed, unsigned permille, int64_t latency)
{
    g_autoptr(SimWorld) world = sim_world_new(seed);
    Copy copy = { .fd = memfd_create("test", MFD_CLOEXEC) };

    for (size_t i = 0; i < sizeof(copy.data); i++) {
        copy.data[i] = i * 7 + 1;
    }
    sim_world_set_short_io(world, permille, 512);
    sim_world_set_max_latency(world, latency);
    aio_co_schedule(sim_world_add_context(world, "main"),
                    coroutine_create(write_and_read_back, &copy));
    assert_true(sim_world_run_until(world, flag_is_set, &copy.done));
    assert_memory_equal(copy.data, copy.back, sizeof(copy.data));
    assert_true(sim_world_now(world) <= latency * 20);
    close(copy.fd);
    return copy.shorts;
}

static void io_is_real_and_may_be_short(void **state)
{
    int shorts = 0;

    for (uint64_t seed = 1; seed <= 20; seed++) {
        assert_int_equal(copy_in_a_world(seed, 0, 1000000), 0);
        shorts += copy_in_a_world(seed, 500, 0);
    }
    assert_true(shorts > 10);
}

static int64_t seventeen(void *opaque)
{
    assert_false(in_coroutine());
    assert_null(aio_context_current());
    assert_false(bql_locked());
    return 17;
}

static void coroutine_fn call_seventeen(void *opaque)
{
    assert_int_equal(aio_co_call(seventeen, NULL), 17);
    *(bool *)opaque = true;
}

static void calls_run_as_on_another_thread(void **state)
{
    g_autoptr(SimWorld) world = sim_world_new(1);
    bool done = false;

    sim_world_add_context(world, "main");
    bql_lock();
    coroutine_enter(coroutine_create(call_seventeen, &done));
    assert_true(sim_world_run_until(world, flag_is_set, &done));
    assert_true(bql_locked());
    bql_unlock();
}

static void file_descriptors_are_watched(void **state)
{
    g_autoptr(SimWorld) world = sim_world_new(1);
    AioContext *ctx = sim_world_add_context(world, "main");
    int fd = eventfd(0, EFD_CLOEXEC);
    bool done = false;

    aio_set_fd_handler(ctx, fd, set_flag, NULL, &done);
    assert_false(aio_poll(ctx, false));
    eventfd_write(fd, 1);
    assert_true(aio_poll(ctx, true));
    assert_true(done);
    aio_set_fd_handler(ctx, fd, NULL, NULL, NULL);
    close(fd);
}

/* ---- Contexts ------------------------------------------------------------- */

typedef struct Pair {
    AioContext *main_context;
    AioContext *io;
    bool asked;
    bool answered;
} Pair;

static void answer(void *opaque)
{
    Pair *pair = opaque;

    assert_ptr_equal(aio_context_current(), pair->main_context);
    assert_true(bql_locked());
    pair->answered = true;
    aio_wait_kick();
}

static void ask(void *opaque)
{
    Pair *pair = opaque;

    assert_ptr_equal(aio_context_current(), pair->io);
    assert_false(aio_context_is_home(pair->main_context));
    assert_false(bql_locked());
    pair->asked = true;
    aio_bh_oneshot(pair->main_context, answer, pair);
    /* A nested poll leaves the other contexts running, the main one too. */
    while (!pair->answered) {
        aio_poll(pair->io, false);
    }
    assert_ptr_equal(aio_context_current(), pair->io);
    assert_false(bql_locked());
}

static void contexts_are_like_threads(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        g_autoptr(SimWorld) world = sim_world_new(seed);
        Pair pair = { .main_context = sim_world_add_context(world, "main") };

        pair.io = sim_world_add_context(world, "io");
        assert_ptr_equal(aio_context_main(), pair.main_context);
        assert_ptr_equal(aio_context_current(), pair.main_context);
        assert_int_equal(aio_context_engine(pair.io), AIO_ENGINE_SIMULATED);
        bql_lock();
        aio_bh_oneshot(pair.io, ask, &pair);
        AIO_WAIT_WHILE(!pair.answered);
        assert_true(pair.asked);
        assert_ptr_equal(aio_context_current(), pair.main_context);
        assert_true(bql_locked());
        bql_unlock();
    }
    assert_null(aio_context_main());
    assert_null(aio_context_current());
}

/* ---- The clock and deadlocks ---------------------------------------------- */

static void the_clock_jumps_to_the_next_timer(void **state)
{
    const int64_t year = INT64_C(31536000000000000);
    g_autoptr(SimWorld) world = sim_world_new(1);
    AioContext *ctx = sim_world_add_context(world, "main");
    bool done = false;
    AioTimer *timer = aio_timer_new(ctx, set_flag, &done);

    aio_timer_mod(timer, year);
    assert_true(aio_poll(ctx, true));
    assert_true(done);
    assert_int_equal(aio_now(ctx), year);
    assert_int_equal(sim_world_now(world), year);
    aio_timer_free(timer);
}

static void a_deadlock_is_told(void **state)
{
    g_autoptr(SimWorld) world = sim_world_new(1);
    bool done = false;

    sim_world_add_context(world, "main");
    assert_false(sim_world_run_until(world, flag_is_set, &done));
}

static void wait_for_nothing(void)
{
    SimWorld *world = sim_world_new(4711);

    aio_poll(sim_world_add_context(world, "main"), true);
}

static const DeathCase deaths[] = {
    DIES(wait_for_nothing, "deadlock in aio_poll() at 0 ns: nothing is ready or in flight "
                           "(seed 4711)"),
};

static void a_deadlock_in_a_poll_aborts_with_the_seed(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(different_seeds_give_different_orders),
        cmocka_unit_test(a_race_is_found_by_some_seed_and_replays),
        cmocka_unit_test(a_mutex_leaves_nothing_to_find),
        cmocka_unit_test(a_seed_in_the_environment_runs_alone),
        cmocka_unit_test(io_is_real_and_may_be_short),
        cmocka_unit_test(calls_run_as_on_another_thread),
        cmocka_unit_test(file_descriptors_are_watched),
        cmocka_unit_test(contexts_are_like_threads),
        cmocka_unit_test(the_clock_jumps_to_the_next_timer),
        cmocka_unit_test(a_deadlock_is_told),
        cmocka_unit_test(a_deadlock_in_a_poll_aborts_with_the_seed),
    };

    death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    g_unsetenv("BLOCKGRAPH_SEED");
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
