/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Timers: a binary heap by (expiry, order of arming) for each context, touched
 * by its home thread only.
 *
 * 1. timer_heap[t->heap_index] == t for every armed timer, and no timer fires
 *    later than its children (index * 2 + 1 and + 2).
 */
#include "util/aio-int.h"

static bool fires_before(const AioTimer *a, const AioTimer *b)
{
    return a->expire_ns < b->expire_ns ||
           (a->expire_ns == b->expire_ns && a->sequence < b->sequence);
}

static void heap_set(AioContext *ctx, unsigned index, AioTimer *timer)
{
    ctx->timer_heap[index] = timer;
    timer->heap_index = index;
}

static void heap_up(AioContext *ctx, unsigned index, AioTimer *timer)
{
    while (index > 0) {
        unsigned parent = (index - 1) / 2;

        if (!fires_before(timer, ctx->timer_heap[parent])) {
            break;
        }
        heap_set(ctx, index, ctx->timer_heap[parent]);
        index = parent;
    }
    heap_set(ctx, index, timer);
}

static void heap_down(AioContext *ctx, unsigned index, AioTimer *timer)
{
    for (;;) {
        unsigned child = index * 2 + 1;

        if (child >= ctx->timers_armed) {
            break;
        }
        if (child + 1 < ctx->timers_armed &&
            fires_before(ctx->timer_heap[child + 1], ctx->timer_heap[child])) {
            child++;
        }
        if (!fires_before(ctx->timer_heap[child], timer)) {
            break;
        }
        heap_set(ctx, index, ctx->timer_heap[child]);
        index = child;
    }
    heap_set(ctx, index, timer);
}

static void heap_remove(AioContext *ctx, AioTimer *timer)
{
    unsigned index = timer->heap_index;
    AioTimer *last = ctx->timer_heap[--ctx->timers_armed];

    if (last == timer) {
        return;
    }
    if (fires_before(last, timer)) {
        heap_up(ctx, index, last);
    } else {
        heap_down(ctx, index, last);
    }
}

static void timer_run(AioContext *ctx, AioItem *item)
{
    AioTimer *timer = (AioTimer *)((char *)item - G_STRUCT_OFFSET(AioTimer, item));

    timer->state = AIO_TIMER_IDLE;
    timer->cb(timer->opaque);
}

static const AioItemKind timer_kind = { "timer", timer_run };

void aio_timer_init(AioTimer *timer, AioContext *ctx, AioCallback *cb, void *opaque)
{
    *timer = (AioTimer){
        .item.kind = &timer_kind,
        .ctx = ctx,
        .cb = cb,
        .opaque = opaque,
        .state = AIO_TIMER_IDLE,
    };
}

AioTimer *aio_timer_new(AioContext *ctx, AioCallback *cb, void *opaque)
{
    AioTimer *timer = g_new(AioTimer, 1);

    aio_assert_home(ctx, __func__);
    aio_timer_init(timer, ctx, cb, opaque);
    ctx->timers++;
    return timer;
}

void aio_timer_mod(AioTimer *timer, int64_t expire_ns)
{
    AioContext *ctx = timer->ctx;

    aio_timer_del(timer);
    if (ctx->timers_armed == ctx->timer_heap_size) {
        ctx->timer_heap_size = MAX(16, ctx->timer_heap_size * 2);
        ctx->timer_heap = g_renew(AioTimer *, ctx->timer_heap, ctx->timer_heap_size);
    }
    timer->expire_ns = expire_ns;
    timer->sequence = ctx->timer_sequence++;
    timer->state = AIO_TIMER_ARMED;
    heap_up(ctx, ctx->timers_armed++, timer);
}

void aio_timer_del(AioTimer *timer)
{
    aio_assert_home(timer->ctx, __func__);
    if (timer->state == AIO_TIMER_ARMED) {
        heap_remove(timer->ctx, timer);
    } else if (timer->state == AIO_TIMER_READY) {
        aio_item_unready(timer->ctx, &timer->item);
    }
    timer->state = AIO_TIMER_IDLE;
}

bool aio_timer_pending(const AioTimer *timer)
{
    return timer->state != AIO_TIMER_IDLE;
}

void aio_timer_free(AioTimer *timer)
{
    if (!timer) {
        return;
    }
    aio_timer_del(timer);
    timer->ctx->timers--;
    g_free(timer);
}

bool aio_timer_next(AioContext *ctx, int64_t *expire_ns)
{
    if (ctx->timers_armed == 0) {
        return false;
    }
    *expire_ns = ctx->timer_heap[0]->expire_ns;
    return true;
}

void aio_timers_gather(AioContext *ctx)
{
    while (ctx->timers_armed > 0 && ctx->timer_heap[0]->expire_ns <= ctx->now_ns) {
        AioTimer *timer = ctx->timer_heap[0];

        heap_remove(ctx, timer);
        timer->state = AIO_TIMER_READY;
        aio_item_ready(ctx, &timer->item);
    }
}
