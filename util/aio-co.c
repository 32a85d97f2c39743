/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines on event loops: waking, moving between threads, sleeping, and
 * waiting for requests.
 */
#include "util/aio-int.h"
#include "util/coroutine-int.h"
#include "util/fatal.h"

static void co_run(AioContext *ctx, AioItem *item)
{
    Coroutine *co = (Coroutine *)((char *)item - G_STRUCT_OFFSET(Coroutine, aio_item));

    coroutine_clear_scheduled(co);
    coroutine_enter(co);
}

static const AioItemKind co_kind = { "coroutine", co_run };

void aio_co_schedule(AioContext *ctx, Coroutine *co)
{
    coroutine_set_scheduled(co, __func__);
    co->aio_item.kind = &co_kind;
    aio_item_push(ctx, &co->aio_item);
}

void aio_co_wake(Coroutine *co)
{
    AioContext *ctx = coroutine_get_aio_context(co);

    if (ctx != aio_context_current()) {
        if (!ctx) {
            fatal("%s(): coroutine %p was entered on a thread without an event loop", __func__,
                  (void *)co);
        }
        aio_co_schedule(ctx, co);
    } else if (in_coroutine()) {
        coroutine_wake_after_yield(co);
    } else {
        coroutine_enter(co);
    }
}

/* The running coroutine's context; aborts where there is none. */
static AioContext *current_context(const char *func)
{
    AioContext *ctx = aio_context_current();

    if (!in_coroutine() || !ctx) {
        fatal("%s() needs a coroutine on a thread with an event loop", func);
    }
    return ctx;
}

typedef struct Move {
    Coroutine *co;
    AioContext *to;
} Move;

static void move_after_yield(void *opaque)
{
    Move *move = opaque;

    aio_co_schedule(move->to, move->co);
}

void coroutine_fn aio_co_reschedule_self(AioContext *ctx)
{
    AioContext *from = current_context(__func__);
    Move move = { .co = coroutine_self(), .to = ctx };

    if (ctx == from) {
        return;
    }
    /* Scheduled right now, it could be entered there before it has left here. */
    aio_bh_oneshot(from, move_after_yield, &move);
    coroutine_yield();
}

static void wake_cb(void *opaque)
{
    aio_co_wake(opaque);
}

void coroutine_fn co_sleep_ns(int64_t ns)
{
    AioContext *ctx = current_context(__func__);
    AioTimer timer;

    if (ns <= 0) {
        aio_co_schedule(ctx, coroutine_self());
        coroutine_yield();
        return;
    }
    aio_timer_init(&timer, ctx, wake_cb, coroutine_self());
    aio_timer_mod(&timer, aio_now(ctx) + ns);
    coroutine_yield();
}

static void request_complete(AioRequest *req)
{
    aio_co_wake(req->opaque);
}

int64_t coroutine_fn aio_co_submit(AioRequest *req)
{
    req->complete = request_complete;
    req->opaque = coroutine_self();
    aio_submit(current_context(__func__), req);
    coroutine_yield();
    return req->ret;
}

int64_t coroutine_fn aio_co_call(int64_t (*call)(void *opaque), void *opaque)
{
    AioRequest req = { .op = AIO_OP_CALL, .call = call, .call_opaque = opaque };

    return aio_co_submit(&req);
}
