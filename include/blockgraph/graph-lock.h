/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph lock, and the three kinds of functions.
 *
 * Requests hold the graph lock shared while they walk the graph; changing the
 * graph takes it exclusively. A reader writes only to a cache line of its own
 * thread. Only the main thread writes, with the big lock held and no coroutine
 * running, and it drains the nodes concerned first: a reader may wait for
 * another thread, but never for the writer while it holds the lock.
 *
 * Lock order, outermost first; a lock is taken only if none below it is held:
 *   1. the big lock (bql)
 *   2. the graph lock
 *   3. request claims, parent node before child node
 *   4. a driver's CoMutex
 *   5. plain mutexes inside one object (reqs_lock, cache buckets), never held
 *      across a yield or a callback
 *
 * Functions come in three kinds, and check on entry which thread they are on:
 *   global state (GS): main thread with the big lock held;
 *   I/O: any thread that runs an AioContext;
 *   either: both of the above.
 */
#ifndef BLOCKGRAPH_GRAPH_LOCK_H
#define BLOCKGRAPH_GRAPH_LOCK_H

#include <stdbool.h>
#include "blockgraph/annotations.h"
#include "blockgraph/bql.h"
#include "blockgraph/coroutine.h"

G_BEGIN_DECLS

typedef struct TSA_CAPABILITY("graph_lock") BdrvGraphLock BdrvGraphLock;
/* Names the graph lock in thread-safety attributes; never dereferenced. */
extern BdrvGraphLock *const graph_lock;

/* The graph lock is held for writing / at least shared / not at all. */
#define GRAPH_WRLOCK TSA_REQUIRES(graph_lock)
#define GRAPH_RDLOCK TSA_REQUIRES_SHARED(graph_lock)
#define GRAPH_UNLOCKED TSA_EXCLUDES(graph_lock)
/* A pointer to such a function; documentation, clang cannot check it. */
#define GRAPH_WRLOCK_PTR
#define GRAPH_RDLOCK_PTR
#define GRAPH_UNLOCKED_PTR

/*
 * Hold the graph lock shared; waits while it is being changed. Nests. Any
 * thread with an AioContext.
 */
void coroutine_fn bdrv_graph_co_rdlock(void) TSA_ACQUIRE_SHARED(graph_lock);
/* Undo one bdrv_graph_co_rdlock(), in the same coroutine. */
void coroutine_fn bdrv_graph_co_rdunlock(void) TSA_RELEASE_SHARED(graph_lock);

/*
 * The main thread may read the graph at any time, since only it changes it:
 * these two only check that this is the main thread outside of a coroutine,
 * and tell clang. Global state.
 */
void bdrv_graph_rdlock_main_loop(void) TSA_ACQUIRE_SHARED(graph_lock);
void bdrv_graph_rdunlock_main_loop(void) TSA_RELEASE_SHARED(graph_lock);

/*
 * Hold the graph lock exclusively: waits until no reader is left, while it
 * polls the main context. Not from a coroutine. Does not nest. Drain the nodes
 * that change first, or this may wait for long. Global state.
 */
void bdrv_graph_wrlock(void) TSA_ACQUIRE(graph_lock);
void bdrv_graph_wrunlock(void) TSA_RELEASE(graph_lock);

/* Abort unless the lock is held at least shared, or exclusively. */
void bdrv_graph_assert_readable(void) TSA_ASSERT_SHARED(graph_lock);
void bdrv_graph_assert_writable(void) TSA_ASSERT(graph_lock);

/* What the three kinds of functions check on their first line. */
#define GLOBAL_STATE_CODE() bdrv_assert_global_state(__func__)
#define IO_CODE() bdrv_assert_io(__func__)
#define IO_OR_GS_CODE() ((void)0)
void bdrv_assert_global_state(const char *function);
void bdrv_assert_io(const char *function);

G_END_DECLS

#endif
