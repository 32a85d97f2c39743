/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The big lock (BQL): one lock per process that global-state functions hold.
 *
 * An emulator that already has such a lock hands it over with bql_set_hooks()
 * before blockgraph_init(); all functions here then call its lock. Otherwise
 * the library's own, non-recursive mutex serves.
 */
#ifndef BLOCKGRAPH_BQL_H
#define BLOCKGRAPH_BQL_H

#include <stdbool.h>
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

typedef struct TSA_CAPABILITY("bql") BqlCapability BqlCapability;
/* Names the big lock in thread-safety attributes; never dereferenced. */
extern BqlCapability *const bql;

/* An emulator's own big lock. All three members are required. */
typedef struct BqlHooks {
    void (*lock)(void *opaque);
    void (*unlock)(void *opaque);
    bool (*locked)(void *opaque); /* does the calling thread hold it? */
    void *opaque;
} BqlHooks;

/*
 * Replace the library's big lock by the caller's. @hooks is copied. Call it
 * once, before blockgraph_init() and before any thread is started.
 */
void bql_set_hooks(const BqlHooks *hooks);

/* Take the big lock. The calling thread must not hold it. Any thread. */
void bql_lock(void) TSA_ACQUIRE(bql);

/*
 * Give the big lock back. The calling thread must hold it. Aborts if a cell
 * that the lock protects is still borrowed. Any thread.
 */
void bql_unlock(void) TSA_RELEASE(bql);

/* Whether the calling thread holds the big lock. Any thread. */
bool bql_locked(void);

/*
 * While blocked, bql_unlock() aborts: a borrow that the lock protects is
 * alive. Calls nest; each bql_block_unlock(true) is undone by one
 * bql_block_unlock(false). Needs the big lock.
 */
void bql_block_unlock(bool increase);

G_END_DECLS

#endif
