/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext: its life, which one a thread has, and the choice of the engine.
 *
 * 1. The calling thread's context is found through its AioHome, which both
 *    refer to: the last reference may go on another thread, and the home thread
 *    may end first.
 */
#include <errno.h>
#include <string.h>
#include "util/aio-int.h"
#include "util/fatal.h"

G_DEFINE_QUARK(aio - error - quark, aio_error)

static _Atomic(AioContext *) main_context;
/* What aio_set_default_engine() said; DEFAULT: nothing. */
static atomic_int default_engine = AIO_ENGINE_DEFAULT;

static __thread AioHome *thread_home;

AioHome *aio_home_new(void)
{
    AioHome *home = g_new0(AioHome, 1);

    atomic_init(&home->refs, 1);
    return home;
}

void aio_home_unref(AioHome *home)
{
    if (atomic_fetch_sub(&home->refs, 1) == 1) {
        g_free(home);
    }
}

static void thread_ends(gpointer opaque)
{
    AioHome *home = opaque;

    thread_home = NULL;
    atomic_store(&home->ended, true);
    aio_home_unref(home);
}

static GPrivate thread_end_notifier = G_PRIVATE_INIT(thread_ends);

/*
 * Not inlined: a coroutine that calls it may have changed threads since it last
 * computed the address of a thread-local variable.
 */
static G_GNUC_NO_INLINE AioHome *current_home(void)
{
    __asm__ volatile("" ::: "memory");
    return thread_home;
}

static AioHome *current_home_make(void)
{
    AioHome *home = current_home();

    if (!home) {
        home = aio_home_new();
        thread_home = home;
        g_private_set(&thread_end_notifier, home);
    }
    return home;
}

G_GNUC_NO_INLINE AioHome *aio_home_switch(AioHome *home)
{
    AioHome *old = thread_home;

    __asm__ volatile("" ::: "memory");
    thread_home = home;
    return old;
}

AioContext *aio_context_current(void)
{
    AioHome *home = current_home();

    return home ? atomic_load_explicit(&home->ctx, memory_order_acquire) : NULL;
}

bool aio_context_is_home(AioContext *ctx)
{
    return aio_context_current() == ctx;
}

void aio_assert_home(AioContext *ctx, const char *func)
{
    if (!aio_context_is_home(ctx) && !atomic_load(&ctx->home->ended)) {
        fatal("%s() called on a thread that is not its context's home", func);
    }
}

void aio_set_main_context(AioContext *ctx)
{
    atomic_store(&main_context, ctx);
}

AioContext *aio_context_main(void)
{
    return atomic_load_explicit(&main_context, memory_order_acquire);
}

AioContext *aio_context_new_on(AioHome *home, const AioEngineOps *ops, void *engine, GError **errp)
{
    AioContext *ctx;

    if (atomic_load(&home->ctx)) {
        g_set_error(errp, AIO_ERROR, EEXIST, "this thread has an event loop already");
        return NULL;
    }
    ctx = g_new0(AioContext, 1);
    ctx->ops = ops;
    ctx->engine = engine;
    ctx->home = home;
    atomic_init(&ctx->refs, 1);
    atomic_init(&ctx->pins, 1);
    ctx->fds = g_hash_table_new(NULL, NULL);
    if (!ops->open(ctx, errp)) {
        g_hash_table_destroy(ctx->fds);
        g_free(ctx);
        return NULL;
    }
    ctx->now_ns = ops->now(ctx);
    atomic_fetch_add(&home->refs, 1);
    atomic_store(&home->ctx, ctx);
    return ctx;
}

void aio_set_default_engine(AioEngine engine)
{
    atomic_store(&default_engine, engine);
}

bool aio_engine_parse(const char *name, AioEngine *engine)
{
    if (strcmp(name, aio_uring_ops.name) == 0) {
        *engine = AIO_ENGINE_IO_URING;
    } else if (strcmp(name, aio_threads_ops.name) == 0) {
        *engine = AIO_ENGINE_THREADS;
    } else {
        return false;
    }
    return true;
}

const char *aio_engine_name(AioEngine engine)
{
    switch (engine) {
    case AIO_ENGINE_DEFAULT:
        return "default";
    case AIO_ENGINE_IO_URING:
        return aio_uring_ops.name;
    case AIO_ENGINE_THREADS:
        return aio_threads_ops.name;
    case AIO_ENGINE_SIMULATED:
        return "simulated";
    }
    return "unknown";
}

AioEngine aio_context_engine(AioContext *ctx)
{
    return ctx->ops->id;
}

/* Replace DEFAULT by what the program or the user asked for, which may be DEFAULT again. */
static bool resolve_default(AioEngine *engine, GError **errp)
{
    const char *env;

    *engine = atomic_load(&default_engine);
    env = g_getenv("BLOCKGRAPH_AIO");
    if (*engine != AIO_ENGINE_DEFAULT || !env || !*env) {
        return true;
    }
    if (!aio_engine_parse(env, engine)) {
        g_set_error(errp, AIO_ERROR, EINVAL,
                    "environment variable BLOCKGRAPH_AIO: unknown engine '%s' "
                    "(known: io_uring, threads)",
                    env);
        return false;
    }
    return true;
}

AioContext *aio_context_new(AioEngine engine, GError **errp)
{
    AioHome *home = current_home_make();
    AioContext *ctx;

    if (engine == AIO_ENGINE_DEFAULT && !resolve_default(&engine, errp)) {
        return NULL;
    }
    switch (engine) {
    case AIO_ENGINE_DEFAULT:
        ctx = aio_context_new_on(home, &aio_uring_ops, NULL, NULL);
        return ctx ? ctx : aio_context_new_on(home, &aio_threads_ops, NULL, errp);
    case AIO_ENGINE_IO_URING:
        return aio_context_new_on(home, &aio_uring_ops, NULL, errp);
    case AIO_ENGINE_THREADS:
        return aio_context_new_on(home, &aio_threads_ops, NULL, errp);
    case AIO_ENGINE_SIMULATED:
        break;
    }
    g_set_error(errp, AIO_ERROR, EINVAL, "no event loop can be made with the engine '%s'",
                aio_engine_name(engine));
    return NULL;
}

AioContext *aio_context_ref(AioContext *ctx)
{
    atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
    return ctx;
}

/* Abort if @count of @what are left when the last reference goes. */
static void assert_none_left(unsigned count, const char *what)
{
    if (count > 0) {
        fatal("the last reference to an AioContext was dropped with %u %s left", count, what);
    }
}

void aio_context_set_local(AioContext *ctx, void *local, void (*release)(void *local))
{
    aio_assert_home(ctx, __func__);
    ctx->local = local;
    ctx->local_release = release;
}

/* Nobody has a reference any more: the thread is free for another context. */
static void context_end(AioContext *ctx)
{
    aio_gather(ctx);
    aio_bh_reap_freed(ctx);
    assert_none_left(ctx->in_flight, "requests in flight");
    assert_none_left(ctx->ready_count, "queued calls");
    assert_none_left(g_hash_table_size(ctx->fds), "watched file descriptors");
    assert_none_left(ctx->timers_armed, "armed timers");
    assert_none_left(ctx->timers, "timers");
    assert_none_left(atomic_load(&ctx->bottom_halves), "bottom halves");
    if (ctx->local) {
        ctx->local_release(ctx->local);
    }
    atomic_store(&ctx->home->ctx, NULL);
}

static void context_free(AioContext *ctx)
{
    ctx->ops->close(ctx);
    aio_home_unref(ctx->home);
    g_hash_table_destroy(ctx->fds);
    g_free(ctx->timer_heap);
    g_free(ctx);
}

void aio_context_pin(AioContext *ctx)
{
    atomic_fetch_add_explicit(&ctx->pins, 1, memory_order_relaxed);
}

void aio_context_unpin(AioContext *ctx)
{
    if (atomic_fetch_sub_explicit(&ctx->pins, 1, memory_order_acq_rel) == 1) {
        context_free(ctx);
    }
}

void aio_context_unref(AioContext *ctx)
{
    if (ctx && atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) == 1) {
        context_end(ctx);
        aio_context_unpin(ctx);
    }
}

unsigned aio_choose_fifo(AioContext *ctx, unsigned n)
{
    return 0;
}
