/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pass-through (rules 8 to 10 of map.h): a backend's requests that go straight to
 * the protocol node that has their bytes, without a coroutine.
 *
 * A backend has a cache of its own, from guest ranges to (edge to a protocol
 * node, offset there), composed of what every node on the way has answered. A
 * request that finds its range there, in one piece, and fits the protocol node
 * as it is, becomes an AioRequest. All others go the long way, and leave in the
 * cache where they went.
 *
 * Invariants:
 *  1. A range in the cache lies where the cache says, or somebody has the range
 *     claimed exclusively, at a node on the way, and has not gone on from
 *     pass_through_exclude() yet.
 *  2. A node on the way that has to see requests of a kind (before_io, dirty
 *     bitmaps, thresholds, detect-zeroes) keeps them out of the cache. It begins and
 *     ends to have to while it is drained, and then invalidates above.
 *  3. The gate of a backend is closed while the backend is drained.
 *  4. The cache is made under the graph lock shared, and freed under the graph
 *     lock exclusively: a slot keeps it.
 */
#ifndef BLOCK_PASS_THROUGH_H
#define BLOCK_PASS_THROUGH_H

#include "block/block-int.h"

/* Of one backend; starts as zeros. */
struct PassThrough {
    MapCache *cache; /* atomic; NULL: nothing has been put in */
    /* Statistics: requests that passed, and those that tried to. */
    ShardedCount passed;
    ShardedCount tried;
};

/* Where a range lies, all of it. */
typedef struct PassTarget {
    BlockDriverState *bs;
    int64_t offset; /* there, bytes */
    bool writable;  /* in place, and nobody has to be told */
} PassTarget;

/*
 * Look up a range in the cache; false if it is not there in one piece. The caller
 * has a slot.
 */
bool pass_through_find(PassThrough *pass, int64_t offset, int64_t bytes,
                       PassTarget *target) GRAPH_RDLOCK;
/*
 * Remember where the bytes at @offset lie, which are @bytes, behind the root edge
 * @root of the backend, and as much around them as the nodes on the way say.
 */
void coroutine_fn pass_through_learn(PassThrough *pass, BdrvChild *root, int64_t offset,
                                     int64_t bytes) GRAPH_RDLOCK;
/* The root edge leads nowhere any more: begin anew. */
void pass_through_reset(PassThrough *pass) GRAPH_WRLOCK;
/* No request can come any more. */
void pass_through_destroy(PassThrough *pass);

/* Forget what the backends above @bs know of this range of it. */
void pass_through_invalidate(BlockDriverState *bs, int64_t offset, int64_t bytes) GRAPH_RDLOCK;
/*
 * The caller claims this range of @bs exclusively: forget it, and wait for the
 * requests that have passed. No others do until the claim ends.
 */
void coroutine_fn pass_through_exclude(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes) GRAPH_RDLOCK;

#endif
