/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stackful coroutines.
 *
 * A coroutine is a function with a stack of its own that can stop in the
 * middle (yield) and be continued later (enter). It runs on the thread that
 * enters it, so it may move from thread to thread between a yield and the next
 * enter; code in a coroutine must not keep pointers to thread-local variables
 * across a yield. The compiler keeps some by itself: pthread_self() and the
 * address of errno, if one function uses them before and after a yield.
 *
 * Functions marked coroutine_fn may yield and are called from coroutines only.
 * The stack has a guard page: running over its end faults instead of damaging
 * a neighbour. Keep large buffers on the heap.
 */
#ifndef BLOCKGRAPH_COROUTINE_H
#define BLOCKGRAPH_COROUTINE_H

#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

typedef struct Coroutine Coroutine;
typedef struct AioContext AioContext;
typedef void coroutine_fn CoroutineEntry(void *opaque);

/*
 * Create a coroutine that will run @entry(@opaque) when first entered. Its
 * memory goes back to the calling thread's pool when @entry returns; the
 * caller owns nothing. A coroutine that is never entered leaks. Never fails:
 * running out of address space aborts, as g_malloc() does. Any thread.
 */
Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque);

/*
 * Run @co on this thread, now, until it yields or ends. Its home becomes the
 * calling thread's AioContext. @co must be new or have yielded, and nobody
 * else may enter or wake it at the same time. May be called from a coroutine:
 * @co then runs nested, and its yield comes back here. Any thread.
 */
void coroutine_enter(Coroutine *co);

/* Go back to whoever entered this coroutine. Returns when entered again. */
void coroutine_fn coroutine_yield(void);

/* The running coroutine, or NULL outside of one. Any thread. */
Coroutine *coroutine_self(void);

/* Whether the caller runs in a coroutine. Any thread. */
bool in_coroutine(void);

/*
 * The AioContext of the thread that entered @co last, where aio_co_wake()
 * brings it back to; NULL if that thread had none. Any thread, but stable only
 * while @co is not running elsewhere.
 */
AioContext *coroutine_get_aio_context(Coroutine *co);

/*
 * A word of storage that belongs to the running coroutine, or outside of one
 * to the thread. It moves with the coroutine and starts as 0.
 */
typedef enum CoroutineLocalKey {
    COROUTINE_LOCAL_GRAPH_LOCK, /* block/graph-lock.c: shared holds */
    COROUTINE_LOCAL_USER,       /* free for the program's use */
    COROUTINE_LOCAL__MAX,
} CoroutineLocalKey;
uintptr_t *coroutine_local(CoroutineLocalKey key);

/* Private to the locks below: who waits, in order of arrival. */
typedef struct CoWaiter CoWaiter;
typedef struct CoWaiterList {
    CoWaiter *first;
    CoWaiter *last;
} CoWaiterList;

/*
 * A mutex for coroutines: waiting yields instead of blocking the thread. It is
 * fair (first come, first served), works between threads, and is not
 * recursive. It may be held across a yield. The waiter continues in the
 * AioContext it waited in.
 */
typedef struct TSA_CAPABILITY("co_mutex") CoMutex {
    /* private */
    unsigned users; /* the holder and all who want to be; atomic */
    bool handoff;   /* free for the next who comes to the list */
    GMutex list_lock; /* protects handoff and waiters */
    CoWaiterList waiters;
    Coroutine *holder; /* atomic */
} CoMutex;

/* Make @mutex ready for use, unlocked. */
void co_mutex_init(CoMutex *mutex);
/* Aborts if @mutex is held. */
void co_mutex_destroy(CoMutex *mutex);
/* Take @mutex; yields while others hold it or came first. */
void coroutine_fn co_mutex_lock(CoMutex *mutex) TSA_ACQUIRE(mutex);
/* Does not yield. The coroutine that locked must unlock, before it ends. */
void coroutine_fn co_mutex_unlock(CoMutex *mutex) TSA_RELEASE(mutex);
/* Aborts unless the running coroutine holds @mutex. */
void coroutine_fn co_mutex_assert_locked(CoMutex *mutex) TSA_ASSERT(mutex);

/*
 * A queue of waiting coroutines, protected by the caller's lock (a CoMutex, or
 * a GMutex held for short): the waiter gives the lock back while it waits and
 * has it again when co_queue_wait() returns. A woken waiter must check its
 * condition anew.
 */
typedef struct CoQueue {
    /* private */
    CoWaiterList waiters;
} CoQueue;

/* Make @queue ready for use, empty. */
void co_queue_init(CoQueue *queue);
/* Yield until woken, as told above. @mutex is held. */
void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex) TSA_REQUIRES(mutex);
/* The same under a plain mutex, for queues that non-coroutines wake. */
void coroutine_fn co_queue_wait_gmutex(CoQueue *queue, GMutex *mutex);
/* Wake the first waiter; false if there was none. Under the queue's lock. */
bool co_queue_wake_one(CoQueue *queue);
/* Wake all who wait now, in order of arrival. Under the queue's lock. */
void co_queue_wake_all(CoQueue *queue);
bool co_queue_empty(const CoQueue *queue);

/* A fair lock for many readers or one writer, for coroutines on any thread. */
typedef struct TSA_CAPABILITY("co_rwlock") CoRwlock {
    /* private */
    GMutex state_lock; /* protects the rest */
    int owners;        /* readers, or -1 for a writer */
    CoWaiterList waiters;
} CoRwlock;

/* Make @lock ready for use, unlocked. */
void co_rwlock_init(CoRwlock *lock);
/* Take @lock shared, or exclusively; yields while it has to wait. */
void coroutine_fn co_rwlock_rdlock(CoRwlock *lock) TSA_ACQUIRE_SHARED(lock);
void coroutine_fn co_rwlock_wrlock(CoRwlock *lock) TSA_ACQUIRE(lock);
/* Shared to exclusive. Others may write in between: check again. */
void coroutine_fn co_rwlock_upgrade(CoRwlock *lock);
/* Exclusive to shared, without a gap. */
void coroutine_fn co_rwlock_downgrade(CoRwlock *lock);
/* Give @lock back, in whichever way it is held. Does not yield. */
void coroutine_fn co_rwlock_unlock(CoRwlock *lock)
    TSA_ATTR(release_generic_capability(lock));

/*
 * Let @ns nanoseconds of the context's clock pass (0: let everything else that
 * is ready run first). Needs a thread with an AioContext.
 */
void coroutine_fn co_sleep_ns(int64_t ns);

G_END_DECLS

#endif
