/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Slots: requests that pass by the coroutines (rule 9 of map.h), as those who
 * change what they rely on see them.
 *
 * Each AioContext has a table of slots, which only its own thread writes. A
 * request that passes through occupies one from before it looks up where its
 * range lies until it is over.
 *
 * Invariants:
 *  1. Whoever occupies a slot makes a full fence before it looks at the gate, the
 *     graph lock's writer and the cache. Whoever closes a gate, raises the writer's
 *     flag or invalidates makes a full fence before it looks at the slots. So either
 *     the request finds that it may not pass, or it is waited for.
 *  2. An occupied slot counts as a holder of the graph lock shared: what its
 *     request found in the graph and in the cache stays.
 *  3. Who waits for slots waits for those that were occupied when it looked, and for
 *     no later ones: they find what it has changed.
 *  4. A slot that is empty again is a handle still, until it is given back: its
 *     request may go on as a coroutine, with a claim, and is not waited for here.
 */
#ifndef BLOCK_SLOT_H
#define BLOCK_SLOT_H

#include "block/backend-int.h"

/* Per context. Requests beyond that go the long way. At most 64. */
#define SLOTS 64

typedef struct SlotTable SlotTable;

typedef struct Slot {
    /* Seen by all threads, atomic, and valid while the table says it is occupied. */
    uint64_t turn;           /* how many times it was occupied */
    const PassThrough *pass; /* of the backend that the request came to */
    int64_t offset;          /* the guest range there, bytes */
    int64_t end;
    /* The owner's. */
    SlotTable *table;
    BlockDriverState *target; /* the protocol node that moves the bytes */
    int64_t target_end;       /* where its range ends there, bytes */
    AioRequest aio;
    BlockAIOCB acb;
} __attribute__((aligned(64))) Slot;

/* ---- For requests: on the home thread of the context --------------------------- */

/* A slot of the running context, empty; NULL if none is left. */
Slot *slot_take(void);
void slot_give_back(Slot *slot);
/*
 * Occupy it for a request of @pass. False if the graph is being changed: it is
 * empty then. The graph lock is held while it is occupied.
 */
bool slot_enter(Slot *slot, const PassThrough *pass, int64_t offset, int64_t bytes);
/* Empty it, and wake who waits for that. A full fence. */
void slot_leave(Slot *slot);
/* Abort unless @slot is occupied. */
void slot_assert_occupied(const Slot *slot) TSA_ASSERT_SHARED(graph_lock);

/* ---- For changers: any thread ------------------------------------------------------ */

/* Whether any slot is occupied by a request of @pass. */
bool slots_used_by(const PassThrough *pass);

/* Slots to wait for; starts as zeros. */
typedef struct SlotWait {
    GArray *found;
} SlotWait;
/* Add those that are occupied now by requests of @pass that touch the range. */
void slot_wait_add(SlotWait *wait, const PassThrough *pass, int64_t offset, int64_t bytes);
/* Wait until all of them have been left, and end @wait. */
void coroutine_fn slot_wait_finish(SlotWait *wait);

#endif
