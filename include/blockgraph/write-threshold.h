/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write thresholds: to be told once when a node is written to beyond an offset,
 * so that what it lies on can be made larger in time.
 *
 * Everything here is global state unless its comment says otherwise.
 */
#ifndef BLOCKGRAPH_WRITE_THRESHOLD_H
#define BLOCKGRAPH_WRITE_THRESHOLD_H

#include "blockgraph/block.h"

G_BEGIN_DECLS

/*
 * A write to @bs, beyond @threshold by @exceeded bytes, has begun. Called on the
 * main thread, from its event loop: it may set a new threshold.
 */
typedef void BdrvWriteThresholdFunc(void *opaque, BlockDriverState *bs, int64_t exceeded,
                                    int64_t threshold);

/*
 * Call @cb(@opaque, …) when a write or write zeroes enters node @bs that ends
 * beyond @threshold (bytes, >= 0), and then no more: the first such request takes
 * the threshold away. 0 takes it away at once. What was set before is replaced, and
 * a call for it that was not made yet is not made any more; nor is one after the
 * node was closed. For a protocol node offsets are those in the file, for a format
 * those of the guest. Drains the node: waits for I/O.
 */
void bdrv_write_threshold_set(BlockDriverState *bs, int64_t threshold, BdrvWriteThresholdFunc *cb,
                              void *opaque);
/* The threshold in bytes; 0 if there is none, or it was exceeded. Either. */
int64_t bdrv_write_threshold_get(const BlockDriverState *bs);

G_END_DECLS

#endif
