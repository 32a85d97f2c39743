/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Bochs driver from the inside: what its files share.
 *
 * An extent is a piece of the guest's disk, and its place in the file: a bitmap
 * and the data, both in whole sectors. Bitmaps and catalog are changed in
 * memory; a flush brings them to the file.
 *
 * Invariants:
 *  1. Catalog and bitmaps in memory say where the guest's data is, with all
 *     that has been committed. A place belongs to one extent.
 *  2. An extent that is not in memory is in the file as it is.
 *  3. A bit is set in the file only after a flush has covered the data of its
 *     sector; an entry of the catalog only after one has covered the bitmap and
 *     the file's length.
 *  4. The file reaches to the end of every place that was given out by us.
 */
#ifndef DRIVERS_BOCHS_BOCHS_H
#define DRIVERS_BOCHS_BOCHS_H

#include "blockgraph/block-driver.h"

/* An entry of the catalog for an extent that has no place. */
#define BOCHS_UNALLOCATED 0xffffffffU
/* What lies behind the header in images that may be written to. */
#define BOCHS_CATALOG_START 512

/* One extent in memory, under the lock. */
typedef struct BochsExtent {
    uint32_t index;  /* in the guest's disk */
    uint32_t number; /* its place in the file */
    /* Changes that wait for commit or abort. The catalog has the extent after
     * the first commit; until then its bits are clear. */
    unsigned users;
    bool loading;
    bool dirty;   /* in s->dirty: the file has another bitmap or no entry */
    bool writing; /* being written back */
    uint8_t *bitmap; /* s->bitmap_room bytes; bit 0 of byte 0 is the first sector */
} BochsExtent;

typedef struct BochsState {
    BlockDriverState *bs;
    /* These do not change after open. Bytes. */
    uint32_t catalog_entries;
    int64_t extent_bytes;  /* of guest data */
    int64_t bitmap_bytes;  /* of the bitmap in the file, whole sectors */
    int64_t extents_start; /* where the first place begins */
    size_t bitmap_room;    /* of the part of the bitmap that has a meaning, whole sectors */

    CoMutex lock; /* protects what follows */
    uint32_t *catalog;
    uint32_t next;       /* no place from here on was ever given out */
    GArray *spare;       /* uint32_t: places that were given back */
    GHashTable *extents; /* BochsExtent by index */
    GQueue order;        /* the same, oldest first */
    GPtrArray *dirty;    /* of BochsExtent */
    CoQueue loaded;      /* who waits for an extent to be loaded */

    CoMutex write_back_lock; /* before the other; protects what follows */
    uint32_t *stored;        /* the catalog as in the file; NULL: read-only */
} BochsState;

/* Where place @number begins in the file. */
static inline int64_t bochs_place(const BochsState *s, uint32_t number)
{
    /* Below 2^56: 32 bits of number, 9 MiB at most for each. */
    return s->extents_start + (int64_t)number * (s->bitmap_bytes + s->extent_bytes);
}

/* ---- extents.c: extents in memory -------------------------------------------- */

typedef enum BochsAccess {
    BOCHS_READ,
    BOCHS_CHANGE,
    BOCHS_ALLOCATE, /* give it a place if it has none */
} BochsAccess;

/* Whether the catalog has the extent. */
static inline bool bochs_is_linked(const BochsState *s, const BochsExtent *extent)
{
    return s->catalog[extent->index] == extent->number;
}

void bochs_extents_init(BochsState *s);
void bochs_extents_destroy(BochsState *s);
/*
 * Extent @index in *@extent, valid until the lock is given back or a user is
 * gone; NULL if it has no place. May give the lock back meanwhile. -errno.
 */
int coroutine_fn bochs_find_extent(BochsState *s, uint32_t index, BochsAccess access,
                                   BochsExtent **extent)
    GRAPH_RDLOCK TSA_REQUIRES(s->lock);
/* The extent that a change waits for, which ends with this. */
BochsExtent *coroutine_fn bochs_end_use(BochsState *s, int64_t offset) TSA_REQUIRES(s->lock);
/* Forget an extent that the catalog does not have, and that nobody uses. */
void coroutine_fn bochs_give_back(BochsState *s, BochsExtent *extent) TSA_REQUIRES(s->lock);
void coroutine_fn bochs_mark_dirty(BochsState *s, BochsExtent *extent) TSA_REQUIRES(s->lock);

/* ---- map.c ------------------------------------------------------------------- */

int coroutine_fn bochs_co_map(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
    GRAPH_RDLOCK;
int coroutine_fn bochs_co_map_commit(BlockDriverState *bs, const BdrvMapping *m) GRAPH_RDLOCK;
void coroutine_fn bochs_co_map_abort(BlockDriverState *bs, const BdrvMapping *m) GRAPH_RDLOCK;

/* ---- write-back.c ------------------------------------------------------------ */

/* Bring what has changed in memory to the file, in order; the caller flushes it. */
int coroutine_fn bochs_write_back(BochsState *s) GRAPH_RDLOCK;

#endif
