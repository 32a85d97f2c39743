/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps: which parts of a node have been written to.
 *
 * A bitmap belongs to a node and has one bit for each granule of it. While it
 * is enabled, every write, write zeroes and discard at the node sets the bits
 * of what it touches: after the data has arrived and before the request is
 * reported complete, also if it failed. So who clears a bit and then reads the
 * granule has all that was written before, or finds the bit set again.
 *
 * All offsets and sizes are bytes. A function is global state (main thread,
 * big lock held) unless its comment says that it may be called on any thread;
 * a bitmap must not be removed meanwhile.
 */
#ifndef BLOCKGRAPH_DIRTY_BITMAP_H
#define BLOCKGRAPH_DIRTY_BITMAP_H

#include "blockgraph/block.h"

G_BEGIN_DECLS

typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;

/* A granularity is a power of 2 between these. */
#define BDRV_BITMAP_MIN_GRANULARITY INT64_C(512)
#define BDRV_BITMAP_MAX_GRANULARITY (INT64_C(1) << 31)
/* The longest name, without the 0 at its end. */
#define BDRV_BITMAP_MAX_NAME 1023

/* What is the matter with a bitmap: reasons not to use it. */
typedef enum BdrvBitmapState {
    /* An operation that goes on for a while has it (a backup). */
    BDRV_BITMAP_BUSY = 1 << 0,
    /* It is stored in an image that cannot be written to. */
    BDRV_BITMAP_READONLY = 1 << 1,
    /* It was not stored when the image was last in use: shown and removed, not used. */
    BDRV_BITMAP_INCONSISTENT = 1 << 2,
} BdrvBitmapState;
/* What those who change a bitmap refuse; what those who only read it refuse. */
#define BDRV_BITMAP_DEFAULT (BDRV_BITMAP_BUSY | BDRV_BITMAP_READONLY | BDRV_BITMAP_INCONSISTENT)
#define BDRV_BITMAP_ALLOW_READONLY (BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT)

/* ---- Life -------------------------------------------------------------------- */

/* The granularity that suits the node: its cluster size within 4 KiB to 64 KiB. */
int64_t bdrv_dirty_bitmap_default_granularity(const BlockDriverState *bs);
/*
 * A new bitmap of @bs, enabled, all clean. @name is unique among the node's
 * bitmaps; NULL: it has none and is not found. NULL with @errp (EEXIST, EINVAL)
 * if name or granularity will not do. May wait for requests in flight: not in a
 * coroutine.
 */
BdrvDirtyBitmap *bdrv_dirty_bitmap_create(BlockDriverState *bs, const char *name,
                                          int64_t granularity, GError **errp);
/* Free it. What an image stores of it stays. */
void bdrv_dirty_bitmap_remove(BdrvDirtyBitmap *bitmap);
/* The bitmap of that name, or NULL. */
BdrvDirtyBitmap *bdrv_dirty_bitmap_find(BlockDriverState *bs, const char *name);
/* The next of the node's bitmaps, in order of creation; NULL starts, NULL ends. */
BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *bitmap);

/* ---- What it is ---------------------------------------------------------------- */

/* The name or NULL; the granularity; the node; how much of it is covered. Any thread. */
const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap);
int64_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap);
BlockDriverState *bdrv_dirty_bitmap_node(const BdrvDirtyBitmap *bitmap);
int64_t bdrv_dirty_bitmap_size(BdrvDirtyBitmap *bitmap);

/* Have writes set bits, or not. Any thread may ask. */
void bdrv_dirty_bitmap_enable(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_disable(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_enabled(const BdrvDirtyBitmap *bitmap);

/* Whether the image stores it when it is closed. */
void bdrv_dirty_bitmap_set_persistent(BdrvDirtyBitmap *bitmap, bool persistent);
bool bdrv_dirty_bitmap_persistent(const BdrvDirtyBitmap *bitmap);
/* Set or take away one BdrvBitmapState; which are set. An inconsistent bitmap is
 * disabled, and holds no bits. */
void bdrv_dirty_bitmap_set_state(BdrvDirtyBitmap *bitmap, BdrvBitmapState state, bool set);
unsigned bdrv_dirty_bitmap_state(const BdrvDirtyBitmap *bitmap);
/* Whether none of @refused is set; else false with @errp (EBUSY, EPERM, EINVAL). */
bool bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, unsigned refused, GError **errp);

/* ---- Its bits: any thread ------------------------------------------------------- */

/* Mark the granules that the range touches. What is outside of the node is ignored. */
void bdrv_dirty_bitmap_set(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/* Unmark the granules that lie in the range (up to the node's end) as a whole. */
void bdrv_dirty_bitmap_reset(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/* Unmark all. */
void bdrv_dirty_bitmap_clear(BdrvDirtyBitmap *bitmap);
/* Whether the granule of @offset is marked; behind the node's end none is. */
bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset);
/* How many bytes are marked, counting whole granules: the last may reach beyond the end. */
int64_t bdrv_dirty_bitmap_count(BdrvDirtyBitmap *bitmap);
/* The first byte of the range that is marked, or not marked; -1 if there is none. */
int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/*
 * The first run of marked bytes in [@offset, @offset + @bytes), no longer than
 * @max_bytes: *@area_offset and *@area_bytes. False if there is none.
 */
bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                                       int64_t max_bytes, int64_t *area_offset,
                                       int64_t *area_bytes);
/*
 * Mark in @dest what is marked in @source, at granularities of their own; they
 * may belong to different nodes. What is marked in @source meanwhile may be
 * missed. False with @errp if @dest may not be changed or @source not be used,
 * or the nodes' lengths differ. Global state.
 */
bool bdrv_dirty_bitmap_merge(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *source, GError **errp);

/* ---- Bitmaps that images store ------------------------------------------------------
 * These wait for I/O, not in a coroutine. An image that is opened for writing
 * loads its bitmaps itself, and stores those that are persistent when it is
 * closed; meanwhile they stand there as in use, and a crash leaves them
 * inconsistent.
 */

/* Whether @bs can store a new bitmap like this; else false with @errp. */
bool bdrv_dirty_bitmap_can_store(BlockDriverState *bs, const char *name, int64_t granularity,
                                 GError **errp);
/* Remove bitmap @name from the image, if it is stored there. False with @errp. */
bool bdrv_dirty_bitmap_remove_stored(BlockDriverState *bs, const char *name, GError **errp);
/*
 * Load the stored bitmaps of a read-only image, as read-only ones; does nothing
 * if that was done, or if the image stores none. False with @errp.
 */
bool bdrv_dirty_bitmaps_load(BlockDriverState *bs, GError **errp);
/*
 * Store the persistent bitmaps now, so that an error can be told, and make them
 * read-only: the caller writes to @bs no more. False with @errp.
 */
bool bdrv_dirty_bitmaps_store(BlockDriverState *bs, GError **errp);

/* ---- For who stores bitmaps: any thread ------------------------------------------- */

/* How many bits the bitmap has: its size by its granularity, rounded up. */
uint64_t bdrv_dirty_bitmap_bits(BdrvDirtyBitmap *bitmap);
/* Copy @count bits from @first on to @buf, 8 to a byte, the first in the lowest bit,
 * the rest 0; or mark what is marked in @buf. Bits behind the last are 0. */
void bdrv_dirty_bitmap_export(BdrvDirtyBitmap *bitmap, uint64_t first, uint64_t count,
                              uint8_t *buf);
void bdrv_dirty_bitmap_import(BdrvDirtyBitmap *bitmap, uint64_t first, uint64_t count,
                              const uint8_t *buf);

G_END_DECLS

#endif
