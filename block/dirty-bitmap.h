/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the rest of the core does for dirty bitmaps.
 */
#ifndef BLOCK_DIRTY_BITMAP_H
#define BLOCK_DIRTY_BITMAP_H

#include "blockgraph/dirty-bitmap.h"

/* The bitmaps of one node. */
typedef struct DirtyBitmapSet DirtyBitmapSet;

/* Whether name (but for its length) and granularity will do for a bitmap; else
 * false with @errp. */
bool bdrv_dirty_bitmap_valid(const char *name, int64_t granularity, GError **errp);
/* The node goes: free all of its bitmaps. NULL is accepted. */
void dirty_bitmap_set_free(DirtyBitmapSet *set);
/*
 * A write, write zeroes or discard at @bs is over, well or not: mark the range
 * in all enabled bitmaps. To be called between the end of its I/O and the
 * report of it. Costs a load and a branch where the node has no bitmaps. Any
 * thread.
 */
void bdrv_dirty_bitmaps_mark(BlockDriverState *bs, int64_t offset, int64_t bytes);
/* The node's length may have changed: that of its bitmaps follows; new space is
 * clean. Any thread. */
void bdrv_dirty_bitmaps_resize(BlockDriverState *bs);

#endif
