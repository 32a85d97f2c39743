/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext from the inside, shared by the files util/aio*.c and util/sim.c.
 *
 * 1. Whatever a loop is going to run is an AioItem. It is in at most one
 *    queue: the incoming stack, which any thread pushes to without a lock, or
 *    the ready queue, which belongs to the home thread.
 * 2. Nobody sleeps over an item: a pusher pushes, sets notified, and then looks
 *    at notify_me; a loop that is going to sleep sets notify_me, and then looks
 *    at notified. All four are sequentially consistent, so at least one of the
 *    two sees the other. Only whoever takes notify_me back pays the system
 *    call that wakes the loop, and a loop that runs is never written to.
 * 3. A pusher pins the context's memory and engine until it has notified: the
 *    item it pushed may be what the last reference waits for. Pins are apart
 *    from references so that dropping the last reference takes effect at once.
 */
#ifndef UTIL_AIO_INT_H
#define UTIL_AIO_INT_H

#include <stdatomic.h>
#include "blockgraph/aio.h"
#include "util/aio-engine.h"

typedef struct AioItemKind {
    const char *name; /* for the simulation's trace */
    /* @item is in no queue any more. */
    void (*run)(AioContext *ctx, AioItem *item);
} AioItemKind;

/* A thread as its context sees it; outlives both. */
typedef struct AioHome {
    atomic_uint refs; /* the thread's and the context's */
    _Atomic(AioContext *) ctx;
    atomic_bool ended;
} AioHome;

typedef enum AioTimerState {
    AIO_TIMER_IDLE,
    AIO_TIMER_ARMED, /* in the heap */
    AIO_TIMER_READY, /* in the ready queue */
} AioTimerState;

struct AioTimer {
    AioItem item;
    AioContext *ctx;
    AioCallback *cb;
    void *opaque;
    int64_t expire_ns;
    uint64_t sequence; /* first armed, first fired, at equal times */
    unsigned heap_index;
    AioTimerState state;
};

/* A watched file descriptor. */
struct AioFd {
    AioItem item;
    int fd;
    bool queued;   /* item is in the ready queue */
    short wanted;  /* poll(2) events there are handlers for; 0: being removed */
    short revents; /* what was seen since the handlers ran last */
    AioCallback *io_read;
    AioCallback *io_write;
    void *opaque;
    /* the engine's */
    short armed; /* events the kernel watches for now */
    bool on_arm_list;
    AioFd *arm_next;
};

struct AioContext {
    /* Constant. */
    const AioEngineOps *ops;
    void *engine;
    AioHome *home;

    /* Any thread. */
    char pad_before[64];
    atomic_uint refs;
    atomic_uint pins;            /* one for all references together */
    _Atomic(AioItem *) incoming; /* newest first */
    atomic_bool notified;        /* somebody wants a turn of the loop */
    atomic_bool notify_me;       /* the loop sleeps, or is going to */
    atomic_uint bottom_halves;   /* that exist */
    char pad_after[64];

    /* Home thread. */
    AioItem *ready_first;
    AioItem *ready_last;
    unsigned ready_count;
    int64_t now_ns;
    unsigned in_flight; /* requests submitted whose complete has not been called */
    AioTimer **timer_heap;
    unsigned timers_armed;
    unsigned timer_heap_size;
    uint64_t timer_sequence;
    unsigned timers; /* that exist */
    void *local;     /* what the layer above keeps for each context */
    void (*local_release)(void *local);
    GHashTable *fds; /* fd → AioFd */
};

/* ---- aio.c ---------------------------------------------------------------- */

/* Mark @ctx as the main context; NULL takes it back. For blockgraph_init(). */
void aio_set_main_context(AioContext *ctx);

/* A thread that does not exist yet; the caller's is one reference. */
AioHome *aio_home_new(void);
void aio_home_unref(AioHome *home);
/*
 * Let the calling thread be @home, NULL for one without a context; returns what
 * it was. For the simulation, which runs several threads' contexts on one.
 */
AioHome *aio_home_switch(AioHome *home);
/* A context on @ops for @home; @engine is what ops->open() finds in ctx->engine. */
AioContext *aio_context_new_on(AioHome *home, const AioEngineOps *ops, void *engine, GError **errp);
/* Aborts unless called on @ctx's home thread, or after that has ended. */
void aio_assert_home(AioContext *ctx, const char *func);

/* Keep @ctx's memory and engine, without a reference. Any thread. */
void aio_context_pin(AioContext *ctx);
void aio_context_unpin(AioContext *ctx);

/*
 * Keep @local, of the layer above, with the context; @release is called when the
 * context ends. Home thread.
 */
void aio_context_set_local(AioContext *ctx, void *local, void (*release)(void *local));
static inline void *aio_context_get_local(const AioContext *ctx)
{
    return ctx->local;
}

/* Whether anything is queued or in flight; timers and descriptors do not count. */
bool aio_context_is_busy(AioContext *ctx);

/* Append @item to the ready queue. Home thread. */
void aio_item_ready(AioContext *ctx, AioItem *item);
/* Take @item out of the ready queue, in which it is. Home thread. */
void aio_item_unready(AioContext *ctx, AioItem *item);
/* Make @item ready from any thread, and wake the loop. */
void aio_item_push(AioContext *ctx, AioItem *item);
/* Move what was pushed, and the timers that are due, into the ready queue. */
void aio_gather(AioContext *ctx);
/* Run one item that the engine chooses; the ready queue is not empty. */
void aio_run_one(AioContext *ctx);
/* How long the loop may sleep: 0, or until the next timer, or -1. */
int64_t aio_sleep_limit(AioContext *ctx);

/* @req is over, with req->ret set. Home thread; aio_item_push() elsewhere. */
void aio_request_done(AioContext *ctx, AioRequest *req);

/* ---- aio-bh.c ------------------------------------------------------------- */

/* Drop the bottom halves in the ready queue that were freed while queued. */
void aio_bh_reap_freed(AioContext *ctx);

/* ---- aio-timer.c ---------------------------------------------------------- */

/* For a timer in the caller's memory, which needs no aio_timer_free(). */
void aio_timer_init(AioTimer *timer, AioContext *ctx, AioCallback *cb, void *opaque);
/* When the first timer fires; false if none is armed. */
bool aio_timer_next(AioContext *ctx, int64_t *expire_ns);
/* Move the timers due at ctx->now_ns into the ready queue. */
void aio_timers_gather(AioContext *ctx);

/* ---- aio-fd.c ------------------------------------------------------------- */

/* The poll(2) events @revents happened. Home thread. */
void aio_fd_ready(AioContext *ctx, AioFd *f, short revents);

/* ---- aio-uring.c ---------------------------------------------------------- */

/*
 * Have @hook called on every io_uring that is created from now on, before it is
 * enabled, for restrictions; a -errno it returns fails aio_context_new().
 * Call it before contexts are created.
 */
void aio_uring_set_restrict_hook(int (*hook)(int ring_fd, void *opaque), void *opaque);

#endif
