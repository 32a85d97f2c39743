/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: persistent dirty bitmaps (section "Bitmaps" of the specification).
 *
 * What is on disk, and when:
 *  1. While the image is open for writing, every stored bitmap is marked as in
 *     use: whoever opens the image after a crash finds it inconsistent. The
 *     mark is on disk before open succeeds; for a node that was made writable,
 *     before its first change.
 *  2. Bitmaps are stored to new clusters, and their tables and the directory,
 *     too. Nothing is written over that the directory on disk refers to.
 *  3. A directory becomes valid by one write of 8 bytes, the autoclear bit,
 *     when all that it refers to, refcounts included, is on disk; before, the
 *     bit was taken back and the extension written without it.
 *  4. What the old directory referred to is freed when the new one is valid.
 *  5. Where storing fails, what is on disk is marked as in use, or there is no valid
 *     directory, before anything else is changed: a stale bitmap would have a backup
 *     miss what was written.
 */
#ifndef DRIVERS_QCOW2_BITMAP_H
#define DRIVERS_QCOW2_BITMAP_H

#include "drivers/qcow2/qcow2-alloc.h"
#include "drivers/qcow2/qcow2.h"

/* No bitmap takes more room in the image than this, in bytes. */
#define QCOW2_MAX_BITMAP_BYTES (512ULL * 1024 * 1024)
#define QCOW2_BITMAP_MIN_GRANULARITY_BITS 9
#define QCOW2_BITMAP_MAX_GRANULARITY_BITS 31
#define QCOW2_BITMAP_TYPE_DIRTY_TRACKING 1
/* The fixed part of an entry of the directory. */
#define QCOW2_BITMAP_ENTRY_FIXED 24

/* ---- qcow2-bitmap.c --------------------------------------------------------------- */

/*
 * The entries of the bitmap directory as an array of Qcow2Bitmap with a free
 * function; empty if there is none. NULL with @errp. Inside or outside of a
 * coroutine.
 */
GArray *coroutine_mixed_fn qcow2_bitmaps_load(Qcow2State *s, GError **errp) GRAPH_RDLOCK;
/*
 * For nodes without guest I/O, whose directory is only listed: 64 MiB are not
 * kept. Check all entries; @s->bitmap_reader then reads them again as asked,
 * from memory if they are few. False with @errp.
 */
bool coroutine_mixed_fn qcow2_bitmap_reader_open(Qcow2State *s, GError **errp) GRAPH_RDLOCK;
void qcow2_bitmap_reader_close(Qcow2State *s);
/* What BlockDriver's member of this name does. */
int qcow2_stored_bitmap_get(BlockDriverState *bs, size_t index, BdrvStoredBitmapInfo *info,
                            GError **errp);
/* An empty array like that. */
GArray *qcow2_bitmaps_new(void);
/* Append a copy of @bitmap. */
void qcow2_bitmaps_append(GArray *bitmaps, const Qcow2Bitmap *bitmap);
/* The entry of that name, or NULL. */
Qcow2Bitmap *qcow2_bitmaps_find(GArray *bitmaps, const char *name);
/*
 * The directory as it stands on disk, free with g_byte_array_unref(); it would
 * lie at @offset, which the entries' entry_offset is set from.
 */
GByteArray *qcow2_bitmaps_encode(GArray *bitmaps, uint64_t offset);
/* Bytes of the entry of a bitmap called @name. */
uint64_t qcow2_bitmap_entry_bytes(const char *name);
/* How many table entries (clusters) bitmaps of a disk of @length bytes take: one
 * at least. */
uint64_t qcow2_bitmap_table_size(const Qcow2Geometry *geo, uint64_t length,
                                 unsigned granularity_bits);
/* Whether an entry of a bitmap's table is one. */
bool qcow2_bitmap_table_entry_valid(const Qcow2Geometry *geo, uint64_t entry);

/* ---- qcow2-bitmap-load.c ------------------------------------------------------------ */

/*
 * Make dirty bitmaps of the node from what the directory lists, all of them or
 * none; the node's length has been set. False with @errp.
 */
bool qcow2_load_bitmaps(BlockDriverState *bs, GError **errp);
/*
 * At open for writing: load them unless they are, mark those on disk as in use, and
 * let them be changed.
 */
bool qcow2_bitmaps_open(BlockDriverState *bs, GError **errp);
/*
 * Mark those on disk as in use that are not, having the header refer to them if that
 * is in doubt. 0 or -errno.
 */
int coroutine_fn qcow2_bitmaps_announce(Qcow2State *s) GRAPH_RDLOCK;
/* Whether the persistent ones may be changed. */
void qcow2_bitmaps_set_readonly(BlockDriverState *bs, bool readonly);

/* ---- qcow2-bitmap-header.c ------------------------------------------------------------ */

/*
 * Have the header on disk refer to the directory that @s->ext tells of, in steps
 * that a power cut cannot spoil. 0 or -errno: the header may be old or new then.
 */
int coroutine_fn qcow2_bitmaps_update_header(Qcow2State *s) GRAPH_RDLOCK;

/* ---- qcow2-bitmap-store.c ------------------------------------------------------------ */

/* What BlockDriver's members of these names do. */
bool qcow2_can_store_bitmap(BlockDriverState *bs, const char *name, int64_t granularity,
                            GError **errp);
bool qcow2_remove_stored_bitmap(BlockDriverState *bs, const char *name, GError **errp);
bool qcow2_store_bitmaps(BlockDriverState *bs, GError **errp);
/* The same, of which nobody waits for the outcome: an error is told on stderr. */
void qcow2_bitmaps_close(BlockDriverState *bs);

#endif
