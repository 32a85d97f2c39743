/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext: one thread's event loop on one io_uring (or, where io_uring is
 * refused or not wanted, on a thread pool with preadv and pwritev).
 *
 * Everything a loop handles — file I/O, file descriptors becoming ready,
 * timers, bottom halves — runs its callbacks on the loop's own thread, from
 * aio_poll() or aio_context_dispatch(). Submissions are batched: they reach
 * the kernel once per turn of the loop.
 *
 * "Home thread" below is the thread that runs the context: the one that called
 * aio_context_new(), or for an AioThread, that thread.
 */
#ifndef BLOCKGRAPH_AIO_H
#define BLOCKGRAPH_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "blockgraph/annotations.h"
#include "blockgraph/coroutine.h"

G_BEGIN_DECLS

typedef enum AioEngine {
    AIO_ENGINE_DEFAULT,  /* io_uring; threads where the kernel refuses it */
    AIO_ENGINE_IO_URING, /* io_uring, or an error */
    AIO_ENGINE_THREADS,
    AIO_ENGINE_SIMULATED, /* tests only: see util/sim.h */
} AioEngine;

/*
 * The engine that AIO_ENGINE_DEFAULT stands for, instead of io_uring with
 * fallback. The environment variable BLOCKGRAPH_AIO (io_uring or threads) sets
 * it too; this call wins. Call it before contexts are created.
 */
void aio_set_default_engine(AioEngine engine);

/* The domain of the loop's GErrors; the code is a positive errno. */
#define AIO_ERROR aio_error_quark()
GQuark aio_error_quark(void);

/*
 * Create the calling thread's context; a thread has at most one. Returns a
 * reference, or NULL with @errp set (domain AIO_ERROR, errno in the code) where
 * the engine cannot be had. Any thread.
 */
AioContext *aio_context_new(AioEngine engine, GError **errp);
/*
 * References may be taken and dropped on any thread. The last one must go when
 * nothing is queued, armed, watched or in flight and the context's bottom
 * halves and timers are freed, or it aborts: a leak there is a bug.
 */
AioContext *aio_context_ref(AioContext *ctx);
void aio_context_unref(AioContext *ctx);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AioContext, aio_context_unref)

/* The calling thread's context, or NULL. No reference is given. */
AioContext *aio_context_current(void);
/* The context of the thread that called blockgraph_init(). Any thread. */
AioContext *aio_context_main(void);
/* Whether the caller runs on @ctx's home thread. Any thread. */
bool aio_context_is_home(AioContext *ctx);
/* Which engine @ctx got (never DEFAULT), and its name. Any thread. */
AioEngine aio_context_engine(AioContext *ctx);
const char *aio_engine_name(AioEngine engine);
/* "io_uring", "threads" → the engine; false for other words. */
bool aio_engine_parse(const char *name, AioEngine *engine);

/*
 * One turn of the loop: run what is ready; if nothing was and @blocking, wait
 * until something is. Returns whether anything ran. Home thread only; not from
 * a coroutine. May nest: a callback may poll.
 */
bool aio_poll(AioContext *ctx, bool blocking);

/*
 * Make a blocking aio_poll() of @ctx return soon. Any thread, and signal
 * handlers too.
 */
void aio_notify(AioContext *ctx);

/*
 * For foreign loops. The fd is readable when aio_context_dispatch() has work;
 * watch it with poll, epoll or select, level-triggered. Call
 * aio_context_prepare() before each wait: it submits what is queued and
 * returns the longest wait in nanoseconds, -1 for no limit. dispatch never
 * blocks. The fd belongs to @ctx. Home thread only.
 */
int aio_context_get_fd(AioContext *ctx);
int64_t aio_context_prepare(AioContext *ctx);
void aio_context_dispatch(AioContext *ctx);

/*
 * A new GSource that runs @ctx in a GMainLoop of its home thread. The caller
 * attaches and unrefs it; it holds a reference on @ctx.
 */
GSource *aio_context_get_g_source(AioContext *ctx);

/* A thread with a context of its own that it polls until it is stopped. */
typedef struct AioThread AioThread;
AioThread *aio_thread_new(const char *name, AioEngine engine, GError **errp);
AioContext *aio_thread_get_context(AioThread *thread);
/*
 * Let the loop finish what is queued, stop it, join, and free @thread. What the
 * queued work waits for must not wait for the caller, such as a lock it holds.
 */
void aio_thread_stop(AioThread *thread);

/* ---- Clock ------------------------------------------------------------- */

/*
 * The loop's monotonic clock in nanoseconds. Read once per turn, so cheap, and
 * equal within one callback. Home thread only.
 */
int64_t aio_now(AioContext *ctx);

/* ---- Bottom halves: calls that run on the home thread soon --------------- */

typedef void AioCallback(void *opaque);
typedef struct AioBH AioBH;

/* Run @cb(@opaque) once in @ctx. Allocates. Any thread. */
void aio_bh_oneshot(AioContext *ctx, AioCallback *cb, void *opaque);
/* A bottom half that can be scheduled many times. Any thread. */
AioBH *aio_bh_new(AioContext *ctx, AioCallback *cb, void *opaque);
/* Run it once soon, however often it is scheduled before. Any thread. */
void aio_bh_schedule(AioBH *bh);
/* Take a scheduling back, if it has not run yet. Home thread only. */
void aio_bh_cancel(AioBH *bh);
/*
 * Cancel and free, also from its own callback. Home thread only, or any thread
 * once that one has ended.
 */
void aio_bh_free(AioBH *bh);

/* Schedule @co in @ctx: it is entered there, soon. Any thread. */
void aio_co_schedule(AioContext *ctx, Coroutine *co);
/*
 * Continue @co, which has yielded or is about to, in the context it ran in
 * last. On that thread and outside of a coroutine it is entered at once;
 * from inside a coroutine, when that one yields or ends; else it is
 * scheduled. Any thread.
 */
void aio_co_wake(Coroutine *co);
/* Move the running coroutine to @ctx's thread. Returns there. */
void coroutine_fn aio_co_reschedule_self(AioContext *ctx);

/* ---- Timers ------------------------------------------------------------- */

typedef struct AioTimer AioTimer;
/* A timer, not yet armed. Home thread only, as all of these. */
AioTimer *aio_timer_new(AioContext *ctx, AioCallback *cb, void *opaque);
/* Fire once when aio_now() reaches @expire_ns; replaces an earlier time. */
void aio_timer_mod(AioTimer *timer, int64_t expire_ns);
void aio_timer_del(AioTimer *timer);
bool aio_timer_pending(const AioTimer *timer);
void aio_timer_free(AioTimer *timer);

/* ---- File descriptors: sockets, eventfds, pipes -------------------------- */

/*
 * Call @io_read when @fd is readable, @io_write when it is writable (or hung
 * up), level-triggered, until changed; both NULL: stop watching, which must
 * come before @fd is closed. Home thread only.
 */
void aio_set_fd_handler(AioContext *ctx, int fd, AioCallback *io_read, AioCallback *io_write,
                        void *opaque);

/* ---- File I/O ----------------------------------------------------------- */

typedef enum AioOp {
    AIO_OP_READV,     /* fd, iov, niov, offset */
    AIO_OP_WRITEV,    /* fd, iov, niov, offset, rw_flags (RWF_DSYNC) */
    AIO_OP_FDATASYNC, /* fd */
    AIO_OP_FALLOCATE, /* fd, mode, offset, bytes */
    AIO_OP_CALL,      /* call(call_opaque) on a worker thread; ret is its result */
    AIO_OP_NOP,       /* nothing: it is over in the next turn, with ret as it was set */
} AioOp;

/* Private: a place in a loop's queues. */
typedef struct AioItem {
    struct AioItem *next;
    struct AioItem *prev;
    const struct AioItemKind *kind;
} AioItem;

typedef struct AioRequest AioRequest;
struct AioRequest {
    AioOp op;
    int fd;
    int niov;
    int rw_flags;
    int mode;
    const struct iovec *iov;
    int64_t offset; /* bytes */
    int64_t bytes;  /* FALLOCATE only */
    int64_t (*call)(void *call_opaque);
    void *call_opaque;
    /* Called once on the home thread when the request is over. */
    void (*complete)(AioRequest *req);
    void *opaque;
    /*
     * READV, WRITEV: the bytes done, which may be fewer than asked (at the end
     * of a file, or as the kernel likes). Else 0 or what call returned.
     * -errno on failure.
     */
    int64_t ret;
    /* private to the loop */
    AioItem item;
    AioContext *ctx;
    uint64_t engine_data;
};

/*
 * Start @req, which the caller owns and keeps, with the memory it points to,
 * until complete is called. complete never runs before aio_submit() returns.
 * Nothing is allocated with io_uring, but for AIO_OP_CALL. At most IOV_MAX
 * pieces. Home thread of @ctx only.
 */
void aio_submit(AioContext *ctx, AioRequest *req);

/* Submit in the current context and wait; returns req->ret. */
int64_t coroutine_fn aio_co_submit(AioRequest *req);

/* Run @call on a worker thread and wait; returns its result. */
int64_t coroutine_fn aio_co_call(int64_t (*call)(void *opaque), void *opaque);

/* ---- Waiting from outside ------------------------------------------------ */

/*
 * Poll the main context until @cond is false. Main thread, not in a coroutine.
 * Whoever makes @cond false on another thread calls aio_wait_kick() after.
 */
#define AIO_WAIT_WHILE(cond)                                                                       \
    do {                                                                                           \
        aio_wait_enter();                                                                          \
        while (cond) {                                                                             \
            aio_poll(aio_context_main(), true);                                                    \
        }                                                                                          \
        aio_wait_leave();                                                                          \
    } while (0)
void aio_wait_enter(void);
void aio_wait_leave(void);
/* Cheap when nobody waits. Any thread. */
void aio_wait_kick(void);

G_END_DECLS

#endif
