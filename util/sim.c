/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated world: an engine that schedules all contexts of one thread.
 *
 * 1. Nothing depends on addresses, real time, or other threads: choices depend
 *    on the generator alone, and the generator on the seed and the choices.
 * 2. Whenever a step begins, every context with a frame on the stack is within
 *    aio_poll() (or sim_world_run_until()), so any context may run.
 * 3. The home of the context whose callback runs is the thread's; around a step
 *    it is put back.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include "util/aio-int.h"
#include "util/bql-int.h"
#include "util/fatal.h"
#include "util/sim.h"
#include "util/thread-pool.h"

typedef struct SimContext {
    SimWorld *world;
    AioContext *ctx;
    AioHome *home;
    char *name;
    uint64_t steps; /* items that were run by others than aio_poll() */
    bool bql_held;  /* as it was when another context took over */
} SimContext;

typedef struct SimIO {
    AioRequest *req;
    int64_t complete_ns;
    bool executed;
} SimIO;

struct SimWorld {
    uint64_t seed;
    uint64_t random_state;
    uint64_t digest;
    int64_t now_ns;
    int64_t max_latency_ns;
    unsigned short_permille;
    unsigned short_unit;
    GPtrArray *contexts; /* SimContext */
    SimContext *current; /* whose callback runs; the main context outside of callbacks */
    GArray *ios;         /* SimIO, in order of submission */
    AioHome *old_home;
    AioContext *old_main;
    void (*trace)(const char *line, void *opaque);
    void *trace_opaque;
};

/* ---- Choices -------------------------------------------------------------- */

/* splitmix64, a generator by Steele, Lea and Flood. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static G_GNUC_PRINTF(2, 3) void trace(SimWorld *world, const char *format, ...)
{
    char line[256];
    va_list ap;
    int n;

    n = snprintf(line, sizeof(line), "%12" PRId64 " ", world->now_ns);
    va_start(ap, format);
    vsnprintf(line + n, sizeof(line) - n, format, ap);
    va_end(ap);
    for (const char *p = line; *p; p++) {
        world->digest = (world->digest ^ (unsigned char)*p) * 0x100000001b3;
    }
    if (world->trace) {
        world->trace(line, world->trace_opaque);
    }
}

uint64_t sim_world_random(SimWorld *world, uint64_t below)
{
    return ((unsigned __int128)next_random(&world->random_state) * below) >> 64;
}

int64_t sim_world_now(SimWorld *world)
{
    return world->now_ns;
}

uint64_t sim_world_digest(const SimWorld *world)
{
    return world->digest;
}

/* ---- I/O ------------------------------------------------------------------ */

static bool is_cuttable(const AioRequest *req)
{
    return req->op == AIO_OP_READV || req->op == AIO_OP_WRITEV;
}

/* Do @req's I/O, or a part of it. */
static void io_execute(SimWorld *world, AioRequest *req)
{
    g_autofree struct iovec *iov = NULL;
    AioRequest cut = *req;
    uint64_t size = 0, keep;

    for (int i = 0; is_cuttable(req) && i < req->niov; i++) {
        size += req->iov[i].iov_len;
    }
    if (size <= world->short_unit || sim_world_random(world, 1000) >= world->short_permille) {
        req->ret = aio_request_execute(req);
        return;
    }
    keep = world->short_unit * (1 + sim_world_random(world, (size - 1) / world->short_unit));
    trace(world, "cut to %" PRIu64 " of %" PRIu64, keep, size);
    iov = g_new(struct iovec, req->niov);
    memcpy(iov, req->iov, req->niov * sizeof(*iov));
    cut.iov = iov;
    for (int i = 0; i < req->niov; i++) {
        iov[i].iov_len = MIN(iov[i].iov_len, keep);
        keep -= iov[i].iov_len;
    }
    req->ret = aio_request_execute(&cut);
}

/* What a worker thread would do. */
static void io_execute_elsewhere(SimWorld *world, AioRequest *req)
{
    AioHome *home = aio_home_switch(NULL);
    bool held = bql_pretend_held(false);

    io_execute(world, req);
    bql_pretend_held(held);
    aio_home_switch(home);
}

static void sim_submit(AioContext *ctx, AioRequest *req)
{
    SimWorld *world = ((SimContext *)ctx->engine)->world;
    SimIO io = { .req = req, .complete_ns = world->now_ns };

    if (sim_world_random(world, 4) > 0) {
        io.complete_ns += sim_world_random(world, world->max_latency_ns + 1);
    }
    /* Program code that a worker runs must not run within aio_submit(). */
    if (req->op != AIO_OP_CALL && sim_world_random(world, 2) == 0) {
        io_execute(world, req);
        io.executed = true;
    }
    g_array_append_val(world->ios, io);
}

/* Complete the requests whose time has come. */
static void gather_io(SimWorld *world)
{
    for (unsigned i = 0; i < world->ios->len;) {
        SimIO io = g_array_index(world->ios, SimIO, i);

        if (io.complete_ns > world->now_ns) {
            i++;
            continue;
        }
        g_array_remove_index(world->ios, i);
        if (!io.executed) {
            io_execute_elsewhere(world, io.req);
        }
        trace(world, "done op %d offset %" PRId64 " ret %" PRId64, io.req->op, io.req->offset,
              io.req->ret);
        aio_request_done(io.req->ctx, io.req);
    }
}

/* ---- Steps ---------------------------------------------------------------- */

static void gather_fds(AioContext *ctx)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, ctx->fds);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        AioFd *f = value;
        struct pollfd pfd = { .fd = f->fd, .events = f->wanted };

        if (!f->queued && poll(&pfd, 1, 0) == 1) {
            aio_fd_ready(ctx, f, pfd.revents);
        }
    }
}

/* Returns how many contexts have something ready. */
static unsigned gather_all(SimWorld *world)
{
    unsigned ready = 0;

    gather_io(world);
    for (unsigned i = 0; i < world->contexts->len; i++) {
        SimContext *c = world->contexts->pdata[i];

        c->ctx->now_ns = world->now_ns;
        gather_fds(c->ctx);
        aio_gather(c->ctx);
        ready += c->ctx->ready_count > 0;
    }
    return ready;
}

static SimContext *choose_context(SimWorld *world, unsigned ready)
{
    unsigned n = sim_world_random(world, ready);

    for (unsigned i = 0; i < world->contexts->len; i++) {
        SimContext *c = world->contexts->pdata[i];

        if (c->ctx->ready_count > 0 && n-- == 0) {
            return c;
        }
    }
    g_assert_not_reached();
}

static unsigned sim_choose(AioContext *ctx, unsigned n)
{
    SimContext *c = ctx->engine;
    unsigned chosen = sim_world_random(c->world, n);
    AioItem *item = ctx->ready_first;

    for (unsigned i = 0; i < chosen; i++) {
        item = item->next;
    }
    trace(c->world, "%s: %s, %u of %u", c->name, item->kind->name, chosen + 1, n);
    return chosen;
}

/* Let @c be the context that runs on this thread; returns which one was. */
static SimContext *switch_to(SimContext *c)
{
    SimWorld *world = c->world;
    SimContext *old = world->current;

    old->bql_held = bql_pretend_held(c->bql_held);
    aio_home_switch(c->home);
    world->current = c;
    return old;
}

static void step(SimContext *c)
{
    SimContext *old = switch_to(c);

    c->steps++;
    aio_run_one(c->ctx);
    switch_to(old);
}

/* Let the clock jump to what comes next; false if nothing does. */
static bool advance_clock(SimWorld *world)
{
    int64_t next = INT64_MAX, expire;
    bool found = false;

    for (unsigned i = 0; i < world->ios->len; i++) {
        next = MIN(next, g_array_index(world->ios, SimIO, i).complete_ns);
        found = true;
    }
    for (unsigned i = 0; i < world->contexts->len; i++) {
        if (aio_timer_next(((SimContext *)world->contexts->pdata[i])->ctx, &expire)) {
            next = MIN(next, expire);
            found = true;
        }
    }
    if (found) {
        world->now_ns = MAX(world->now_ns, next);
    }
    return found;
}

static char *deadlock_text(SimWorld *world, const char *where)
{
    return g_strdup_printf("simulated world: deadlock in %s at %" PRId64 " ns: nothing is ready "
                           "or in flight (seed %" PRIu64 ")",
                           where, world->now_ns, world->seed);
}

bool sim_world_run_until(SimWorld *world, bool (*done)(void *opaque), void *opaque)
{
    SimContext *main_context = world->contexts->pdata[0];
    unsigned ready;

    if (in_coroutine() || world->current != main_context) {
        fatal("%s() is for the main context, not in a coroutine", __func__);
    }
    while (!done(opaque)) {
        ready = gather_all(world);
        if (ready > 0) {
            step(choose_context(world, ready));
        } else if (!advance_clock(world)) {
            g_autofree char *text = deadlock_text(world, __func__);

            fprintf(stderr, "%s\n", text);
            return false;
        }
    }
    return true;
}

/* ---- The engine ----------------------------------------------------------- */

/* One step of another context, or of @self by being left; false if it is left. */
static bool wait_step(SimContext *self, int64_t timeout_ns)
{
    SimWorld *world = self->world;
    unsigned ready = gather_all(world);
    SimContext *c;

    if (ready == 0) {
        if (timeout_ns == 0) {
            return false;
        }
        if (!advance_clock(world)) {
            g_autofree char *text = deadlock_text(world, "aio_poll()");

            fatal("%s", text);
        }
        return true;
    }
    c = choose_context(world, ready);
    if (c == self) {
        return false;
    }
    step(c);
    return timeout_ns != 0;
}

/* Run the rest of the world until @ctx has something to do. */
static void sim_wait(AioContext *ctx, int64_t timeout_ns)
{
    SimContext *self = ctx->engine;
    uint64_t steps = self->steps;

    while (wait_step(self, timeout_ns)) {
        if (self->steps != steps) {
            /* Another context's poll has run what this one waits for. */
            atomic_store(&ctx->notified, true);
        }
        if (atomic_load(&ctx->notified)) {
            break;
        }
    }
}

static bool sim_open(AioContext *ctx, GError **errp)
{
    return true;
}

static void sim_close(AioContext *ctx)
{
}

static int64_t sim_now(AioContext *ctx)
{
    return ((SimContext *)ctx->engine)->world->now_ns;
}

static void sim_flush(AioContext *ctx)
{
}

static int sim_get_fd(AioContext *ctx)
{
    fatal("a simulated context has no file descriptor");
}

static void sim_notify(AioContext *ctx)
{
    /* Nobody sleeps: notified is looked at after each step. */
}

static void sim_fd_update(AioContext *ctx, AioFd *f)
{
}

static void sim_fd_remove(AioContext *ctx, AioFd *f)
{
    g_free(f);
}

static const AioEngineOps sim_ops = {
    .id = AIO_ENGINE_SIMULATED,
    .name = "simulated",
    .one_per_turn = true,
    .open = sim_open,
    .close = sim_close,
    .now = sim_now,
    .submit = sim_submit,
    .wait = sim_wait,
    .flush = sim_flush,
    .get_fd = sim_get_fd,
    .notify = sim_notify,
    .fd_update = sim_fd_update,
    .fd_remove = sim_fd_remove,
    .choose = sim_choose,
};

/* ---- The world ------------------------------------------------------------ */

SimWorld *sim_world_new(uint64_t seed)
{
    SimWorld *world = g_new0(SimWorld, 1);

    world->seed = seed;
    world->random_state = seed;
    world->digest = 0xcbf29ce484222325;
    world->max_latency_ns = 1000000;
    world->short_permille = 100;
    world->short_unit = 512;
    world->contexts = g_ptr_array_new();
    world->ios = g_array_new(false, false, sizeof(SimIO));
    return world;
}

AioContext *sim_world_add_context(SimWorld *world, const char *name)
{
    SimContext *c = g_new0(SimContext, 1);

    c->world = world;
    c->name = g_strdup(name);
    c->home = aio_home_new();
    c->ctx = aio_context_new_on(c->home, &sim_ops, c, NULL);
    g_ptr_array_add(world->contexts, c);
    if (!world->current) {
        world->current = c;
        world->old_home = aio_home_switch(c->home);
        world->old_main = aio_context_main();
        aio_set_main_context(c->ctx);
    }
    return c->ctx;
}

void sim_world_free(SimWorld *world)
{
    if (!world) {
        return;
    }
    if (world->current) {
        aio_set_main_context(world->old_main);
        aio_home_switch(world->old_home);
    }
    for (unsigned i = 0; i < world->contexts->len; i++) {
        SimContext *c = world->contexts->pdata[i];

        aio_context_unref(c->ctx);
        aio_home_unref(c->home);
        g_free(c->name);
        g_free(c);
    }
    g_ptr_array_unref(world->contexts);
    g_array_unref(world->ios);
    g_free(world);
}

void sim_world_set_max_latency(SimWorld *world, int64_t ns)
{
    world->max_latency_ns = ns;
}

void sim_world_set_short_io(SimWorld *world, unsigned permille, unsigned unit)
{
    world->short_permille = permille;
    world->short_unit = unit;
}

void sim_world_set_trace(SimWorld *world, void (*trace)(const char *line, void *opaque),
                         void *opaque)
{
    world->trace = trace;
    world->trace_opaque = opaque;
}

static void print_trace(const char *line, void *opaque)
{
    fprintf(stderr, "%s\n", line);
}

static bool try_seed(uint64_t seed, bool verbose, bool (*body)(SimWorld *world, void *opaque),
                     void *opaque)
{
    g_autoptr(SimWorld) world = sim_world_new(seed);

    if (verbose) {
        sim_world_set_trace(world, print_trace, NULL);
    }
    return body(world, opaque);
}

uint64_t sim_try_seeds(unsigned count, bool (*body)(SimWorld *world, void *opaque), void *opaque)
{
    const char *only = g_getenv("BLOCKGRAPH_SEED");
    uint64_t first = only ? g_ascii_strtoull(only, NULL, 10) : 1;
    uint64_t last = only ? first : count;

    for (uint64_t seed = first; seed <= last; seed++) {
        if (!try_seed(seed, only, body, opaque)) {
            fprintf(stderr, "failed with BLOCKGRAPH_SEED=%" PRIu64 "\n", seed);
            return seed;
        }
    }
    return 0;
}
