/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A turn of the loop: submit, sleep, gather what is ready, run it.
 *
 * 1. What becomes ready while a turn runs its items waits for the next turn, so
 *    that a bottom half that schedules itself cannot starve the rest. A nested
 *    aio_poll() goes on with the items that its caller has not run yet.
 * 2. Who wakes whom: util/aio-int.h.
 */
#include <time.h>
#include "blockgraph/coroutine.h"
#include "util/aio-int.h"
#include "util/fatal.h"
#include "util/trace.h"

int64_t aio_now_monotonic(AioContext *ctx)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t aio_now(AioContext *ctx)
{
    return ctx->now_ns;
}

void aio_notify(AioContext *ctx)
{
    atomic_store(&ctx->notified, true);
    if (atomic_load(&ctx->notify_me) && atomic_exchange(&ctx->notify_me, false)) {
        ctx->ops->notify(ctx);
    }
}

void aio_item_push(AioContext *ctx, AioItem *item)
{
    AioItem *head = atomic_load_explicit(&ctx->incoming, memory_order_relaxed);

    aio_context_pin(ctx);
    do {
        item->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&ctx->incoming, &head, item,
                                                    memory_order_release, memory_order_relaxed));
    aio_notify(ctx);
    aio_context_unpin(ctx);
}

void aio_item_ready(AioContext *ctx, AioItem *item)
{
    item->next = NULL;
    item->prev = ctx->ready_last;
    if (ctx->ready_last) {
        ctx->ready_last->next = item;
    } else {
        ctx->ready_first = item;
    }
    ctx->ready_last = item;
    ctx->ready_count++;
}

void aio_item_unready(AioContext *ctx, AioItem *item)
{
    if (item->prev) {
        item->prev->next = item->next;
    } else {
        ctx->ready_first = item->next;
    }
    if (item->next) {
        item->next->prev = item->prev;
    } else {
        ctx->ready_last = item->prev;
    }
    ctx->ready_count--;
}

static void gather_incoming(AioContext *ctx)
{
    AioItem *newest, *oldest = NULL;

    if (!atomic_load_explicit(&ctx->incoming, memory_order_relaxed)) {
        return;
    }
    newest = atomic_exchange_explicit(&ctx->incoming, NULL, memory_order_acquire);
    while (newest) {
        AioItem *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        AioItem *next = oldest->next;

        aio_item_ready(ctx, oldest);
        oldest = next;
    }
}

void aio_gather(AioContext *ctx)
{
    gather_incoming(ctx);
    aio_timers_gather(ctx);
}

void aio_run_one(AioContext *ctx)
{
    AioItem *item = ctx->ready_first;

    for (unsigned i = ctx->ops->choose(ctx, ctx->ready_count); i > 0; i--) {
        item = item->next;
    }
    aio_item_unready(ctx, item);
    item->kind->run(ctx, item);
}

int64_t aio_sleep_limit(AioContext *ctx)
{
    int64_t expire, now;

    if (ctx->ready_count > 0 || atomic_load(&ctx->incoming)) {
        return 0;
    }
    if (!aio_timer_next(ctx, &expire)) {
        return -1;
    }
    now = ctx->ops->now(ctx);
    return expire > now ? expire - now : 0;
}

/* Returns whether somebody has called aio_notify(). */
static bool wait_and_gather(AioContext *ctx, bool blocking)
{
    bool notified = atomic_exchange(&ctx->notified, false);
    int64_t timeout = blocking && !notified ? aio_sleep_limit(ctx) : 0;

    if (timeout != 0) {
        atomic_store(&ctx->notify_me, true);
        if (atomic_load(&ctx->notified)) {
            timeout = 0;
        }
    }
    ctx->ops->wait(ctx, timeout);
    atomic_store(&ctx->notify_me, false);
    if (atomic_load(&ctx->notified)) {
        notified |= atomic_exchange(&ctx->notified, false);
    }
    ctx->now_ns = ctx->ops->now(ctx);
    aio_gather(ctx);
    return notified;
}

static bool run_turn(AioContext *ctx, bool blocking)
{
    bool notified, ran;
    unsigned count;

    aio_context_ref(ctx);
    do {
        notified = wait_and_gather(ctx, blocking);
    } while (ctx->ready_count == 0 && blocking && !notified);

    count = ctx->ready_count;
    ran = count > 0;
    if (ctx->ops->one_per_turn && count > 1) {
        count = 1;
    }
    /* A nested poll may leave fewer than were there. */
    while (count-- > 0 && ctx->ready_count > 0) {
        aio_run_one(ctx);
    }
    aio_context_unref(ctx);
    return ran;
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    if (!aio_context_is_home(ctx)) {
        fatal("%s() called on a thread that is not its context's home", __func__);
    }
    if (in_coroutine()) {
        fatal("%s() called in a coroutine", __func__);
    }
    return run_turn(ctx, blocking);
}

int aio_context_get_fd(AioContext *ctx)
{
    return ctx->ops->get_fd(ctx);
}

int64_t aio_context_prepare(AioContext *ctx)
{
    aio_assert_home(ctx, __func__);
    ctx->ops->flush(ctx);
    atomic_store(&ctx->notify_me, true);
    if (atomic_load(&ctx->notified)) {
        return 0;
    }
    return aio_sleep_limit(ctx);
}

void aio_context_dispatch(AioContext *ctx)
{
    aio_poll(ctx, false);
}

bool aio_context_is_busy(AioContext *ctx)
{
    return ctx->in_flight > 0 || ctx->ready_count > 0 || atomic_load(&ctx->incoming);
}

static void request_run(AioContext *ctx, AioItem *item)
{
    AioRequest *req = (AioRequest *)((char *)item - G_STRUCT_OFFSET(AioRequest, item));

    ctx->in_flight--;
    trace_aio_complete(req, req->ret);
    req->complete(req);
}

static const AioItemKind request_kind = { "request", request_run };

void aio_request_done(AioContext *ctx, AioRequest *req)
{
    aio_item_ready(ctx, &req->item);
}

void aio_submit(AioContext *ctx, AioRequest *req)
{
    aio_assert_home(ctx, __func__);
    req->ctx = ctx;
    req->item.kind = &request_kind;
    req->engine_data = 0;
    ctx->in_flight++;
    trace_aio_submit(req, req->op, req->fd, req->offset);
    if (req->op == AIO_OP_NOP) {
        aio_request_done(ctx, req);
    } else {
        ctx->ops->submit(ctx, req);
    }
}
