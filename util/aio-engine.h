/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one interface between a loop and the world: clock, submissions,
 * completions, sleeping, and the choice of what runs next all pass through it,
 * so that a simulation can put itself in the kernel's place.
 *
 * An engine never calls back into user code: it only marks things as ready
 * (aio_item_ready(), aio_fd_ready(), aio_request_done()), and the loop runs
 * them from its one ready queue.
 */
#ifndef UTIL_AIO_ENGINE_H
#define UTIL_AIO_ENGINE_H

#include "blockgraph/aio.h"

typedef struct AioFd AioFd;

typedef struct AioEngineOps {
    AioEngine id;
    const char *name;
    /* A turn of the loop runs one item, instead of all that were ready when it began. */
    bool one_per_turn;

    /* Set ctx->engine, or fail with @errp set. Home thread. */
    bool (*open)(AioContext *ctx, GError **errp);
    /* Nothing is in flight or watched any more. Any thread. */
    void (*close)(AioContext *ctx);

    /* The monotonic clock in nanoseconds. Home thread. */
    int64_t (*now)(AioContext *ctx);

    /*
     * Take @req, READV to CALL. It comes back through aio_request_done() or, from
     * another thread, aio_item_push(), never before this returns. Home thread.
     */
    void (*submit)(AioContext *ctx, AioRequest *req);

    /*
     * Hand everything submitted to the kernel; sleep at most @timeout_ns
     * nanoseconds (0: not at all, negative: without limit) until something is
     * ready or notify() is called; mark as ready what is. May return early.
     * Home thread.
     */
    void (*wait)(AioContext *ctx, int64_t timeout_ns);
    /*
     * For a foreign loop that is about to sleep on get_fd(): hand everything
     * submitted to the kernel, and have notify() make that fd readable.
     */
    void (*flush)(AioContext *ctx);
    /* The fd that is readable when wait() would find something. Home thread. */
    int (*get_fd)(AioContext *ctx);

    /* Make a sleeping wait(), or get_fd(), wake up. Any thread, and signal handlers. */
    void (*notify)(AioContext *ctx);

    /* @f->wanted has changed (it is not 0), or what was ready has been handled. */
    void (*fd_update)(AioContext *ctx, AioFd *f);
    /* Stop watching and free @f, now or later; f->fd may be closed right after. */
    void (*fd_remove)(AioContext *ctx, AioFd *f);

    /* Which of the @n > 0 items in the ready queue runs next, oldest = 0. */
    unsigned (*choose)(AioContext *ctx, unsigned n);
} AioEngineOps;

extern const AioEngineOps aio_uring_ops;
extern const AioEngineOps aio_threads_ops;

/* The choice of all engines but the simulation: first come, first served. */
unsigned aio_choose_fifo(AioContext *ctx, unsigned n);
/* CLOCK_MONOTONIC. */
int64_t aio_now_monotonic(AioContext *ctx);

#endif
