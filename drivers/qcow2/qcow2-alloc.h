/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what a writable image has in memory, and what changes it.
 *
 * Invariants:
 *  1. Refcounts, the refcount table, the entries of L1 and L2 tables and the lists
 *     of what is dirty change under Qcow2Writer.lock only. Readers of L1 and L2
 *     take no lock: their guest range is claimed.
 *  2. A refcount in memory is never below the references that memory or the file
 *     have. A cluster is given out only if its refcount in memory is 0.
 *  3. An L2 entry is in the file only after a flush has covered its data and
 *     refcounts, an L1 entry only after one has covered its L2 table, an entry
 *     of the refcount table only after one has covered its block.
 *  4. A table that the file has for others, too (not "copied", or a refcount above
 *     1), is not changed but replaced by a copy.
 */
#ifndef DRIVERS_QCOW2_ALLOC_H
#define DRIVERS_QCOW2_ALLOC_H

#include "drivers/qcow2/qcow2.h"

/* Why a place was dropped: who wants to know decides about discarding it. */
typedef enum Qcow2Discard {
    QCOW2_DISCARD_NEVER,
    QCOW2_DISCARD_REQUEST,
    QCOW2_DISCARD_SNAPSHOT,
    QCOW2_DISCARD_OTHER,
    QCOW2_DISCARD__MAX,
} Qcow2Discard;

/* A refcount block in memory, as in the file. */
typedef struct Qcow2RefBlock {
    uint64_t index;  /* in the refcount table */
    uint64_t offset; /* in the file */
    uint64_t used_at; /* Qcow2Writer.turn */
    bool dirty;
    bool linked; /* the table in the file has it */
    GList link;  /* in order */
    uint8_t data[];
} Qcow2RefBlock;

typedef struct Qcow2Writer {
    Qcow2State *s;
    BlockDriverState *bs;
    CoMutex write_back_lock; /* before the other: one write-back at a time */
    CoMutex lock;            /* protects what follows */
    uint64_t *reftable; /* host order */
    uint64_t reftable_entries;
    uint64_t blocks_end; /* behind the last block that the table has */
    /* The header may point to a table which is not ours: it has to be written. */
    bool reftable_uncertain;
    /*
     * Entries which the table in the file may lack, though their blocks are there: to be
     * written before any refcount is relied on. None if unsure_end is 0.
     */
    uint64_t unsure_first;
    uint64_t unsure_end;
    GHashTable *blocks; /* Qcow2RefBlock by index */
    GQueue order;       /* the same, oldest first */
    size_t dirty_blocks;
    size_t max_blocks;
    uint64_t hint;      /* cluster to look from for a free one */
    uint64_t longest;   /* in front of the hint, no more free ones in a row than that */
    uint64_t bytes_at;  /* where the next compressed cluster may begin; 0: nowhere */
    uint64_t virgin;    /* from here on the file reads as zeros; in bytes */
    GPtrArray *dirty_slices; /* of Qcow2Slice, pinned, with a reference */
    size_t max_dirty_slices;
    GHashTable *dirty_l1;    /* numbers of sectors of the L1 table */
    /* What snapshots refer to, if it was asked for: offsets, and of which snapshot table. */
    GHashTable *inactive_l2;
    uint64_t inactive_l2_of;
    uint32_t inactive_l2_snapshots;
    uint64_t turn;  /* of cleaning; see qcow2-clean.c */
    bool copied_missing; /* see qcow2-snapshot.h */
    /* The header may have an old or a new size and L1 table: it has to be written. */
    bool l1_uncertain;
    GSList *old_l1;     /* of Qcow2L1: block status may be looking at them */
    bool announced; /* atomic: what a writer has to note in the header is there */
    bool corrupt;  /* atomic: no more changes */
} Qcow2Writer;

/* ---- qcow2-writer.c: open, close, the header ------------------------------------- */

/* Make ready for writing. False with @errp. Outside of a coroutine. */
bool qcow2_writer_open(BlockDriverState *bs, GError **errp);
/* Write back all there is, and note that the image is clean. 0 or -errno. The same. */
int qcow2_writer_settle(BlockDriverState *bs);
void qcow2_writer_free(Qcow2Writer *w);
/* Read the options' sizes of the caches. Nothing is in flight, nor to be written back. */
void qcow2_writer_limit_caches(Qcow2Writer *w);
/* Forget what is in memory: it was changed in the file. */
int coroutine_fn qcow2_writer_forget(Qcow2State *s) GRAPH_RDLOCK;
/* Before the first change: the header tells of it. 0 or -errno. */
int coroutine_fn qcow2_writer_begin(Qcow2Writer *w) GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* Set the dirty bit, on disk. */
int coroutine_fn qcow2_set_dirty(Qcow2Writer *w, bool dirty) GRAPH_RDLOCK;
/* Write @bytes of the header at @at from @data, and flush. */
int coroutine_fn qcow2_header_write_field(Qcow2Writer *w, uint64_t at, const void *data,
                                          size_t bytes) GRAPH_RDLOCK;

/* ---- qcow2-refblock.c: refcounts in memory ----------------------------------------- */

/* Block @index; *@block is NULL if there is none. -EIO if the table is wrong there. */
int coroutine_fn qcow2_refblock_get(Qcow2Writer *w, uint64_t index, Qcow2RefBlock **block)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* A new block, all zeros, that lies at @offset. */
void coroutine_fn qcow2_refblock_add(Qcow2Writer *w, uint64_t index, uint64_t offset)
    TSA_REQUIRES(w->lock);
/* Take back what add did. */
void coroutine_fn qcow2_refblock_remove(Qcow2Writer *w, uint64_t index) TSA_REQUIRES(w->lock);
int coroutine_fn qcow2_refcount_get(Qcow2Writer *w, uint64_t cluster, uint64_t *refcount)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/*
 * Add @delta to the refcounts of the clusters that [@offset, @offset + @bytes)
 * touches. -ERANGE beyond the width, -EINVAL below 0; what was raised before the
 * error stays (leaks), what was not lowered, too.
 */
int coroutine_fn qcow2_refcount_add(Qcow2Writer *w, uint64_t offset, uint64_t bytes, int delta)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* Write the blocks that are dirty, and the table's entries for new ones. */
int coroutine_fn qcow2_refcounts_write(Qcow2Writer *w) GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* Write the table's sectors that have entries from @index up to @end. 0 or -errno. */
int coroutine_fn qcow2_reftable_write(Qcow2Writer *w, uint64_t index, uint64_t end)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
void qcow2_refblocks_clear(Qcow2Writer *w);
/* Forget what was not used since the last call; whether some that was is left. */
bool coroutine_fn qcow2_refblocks_clean(Qcow2Writer *w) TSA_REQUIRES(w->lock);

/* ---- qcow2-alloc.c, qcow2-alloc-grow.c ------------------------------------------------ */

/*
 * @n clusters in a row at *@offset, refcount 1, inside the file. 0 or -errno. From
 * w->virgin as it was before on, they read as zeros.
 */
int coroutine_fn qcow2_alloc_locked(Qcow2Writer *w, uint64_t n, uint64_t *offset)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* A place for @bytes, less than a cluster, that shares clusters with others. */
int coroutine_fn qcow2_alloc_bytes(Qcow2Writer *w, uint64_t bytes, uint64_t *offset)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/*
 * Make @child reach up to @end, before a place there is given out: later, whoever
 * writes there would be cut off. 0 or -errno; -ENOSPC if it cannot grow.
 */
int coroutine_fn qcow2_reach(Qcow2Writer *w, BdrvChild *child, uint64_t end)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/*
 * Describe more clusters: @n free ones in a row from *@first on, of which @tail
 * are described already, behind all blocks.
 */
int coroutine_fn qcow2_alloc_grow(Qcow2Writer *w, uint64_t n, uint64_t tail, uint64_t *first)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* Let the header point to the refcount table in memory at @offset. */
int coroutine_fn qcow2_reftable_switch(Qcow2Writer *w, uint64_t offset, uint64_t clusters)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);

/* For snapshots, bitmaps and resize: the same, without the lock. 0 or -errno. */
int coroutine_fn qcow2_alloc_clusters(Qcow2State *s, uint64_t n, uint64_t *offset) GRAPH_RDLOCK;
/* Give back clusters that nothing in the file ever referred to; an error is a leak. */
void coroutine_fn qcow2_free_clusters(Qcow2State *s, uint64_t offset, uint64_t bytes) GRAPH_RDLOCK;
/* @delta: 1 or -1. See qcow2_refcount_add(). */
int coroutine_fn qcow2_update_refcount(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                       int delta) GRAPH_RDLOCK;

/* ---- qcow2-l2.c: L2 tables that are written to ------------------------------------------ */

/* An entry of an L2 table in memory, pinned until qcow2_l2_done(). */
typedef struct Qcow2L2Ref {
    Qcow2Slice *slice;
    uint64_t *words;      /* of the entry */
    size_t entries_left;  /* from it to the slice's end */
} Qcow2L2Ref;
/* The entry for @guest in a table that is ours alone; makes the table if need be. */
int coroutine_fn qcow2_l2_for_write(Qcow2Writer *w, uint64_t guest, Qcow2L2Ref *ref)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* @changed: have it written back. */
void coroutine_fn qcow2_l2_done(Qcow2Writer *w, Qcow2L2Ref *ref, bool changed)
    TSA_REQUIRES(w->lock);
/* Store a word that others may be reading. */
static inline void qcow2_store_word(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
static inline uint64_t qcow2_load_word(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}
/* Have the sector of the L1 table that has entry @index written back. */
void coroutine_fn qcow2_l1_dirty(Qcow2Writer *w, uint64_t index) TSA_REQUIRES(w->lock);

/* ---- qcow2-map.c: what map for changes shares with it ----------------------------------- */

/* The slice of the L2 table at @l2_offset that has @guest; give it back. 0 or -errno. */
int coroutine_fn qcow2_entries_get(Qcow2State *s, uint64_t l2_offset, uint64_t guest,
                                   Qcow2Slice **slice, Qcow2Entries *entries) GRAPH_RDLOCK;
/* Cut @m to the node's length. */
void qcow2_clip(const Qcow2State *s, BdrvMapping *m);
/* The answer that says what @run says. */
void qcow2_fill_mapping(const Qcow2State *s, const Qcow2Run *run, BdrvMapping *m);

/* ---- qcow2-write.c, qcow2-commit.c ------------------------------------------------------ */

int coroutine_fn qcow2_co_map_change(BlockDriverState *bs, const BdrvMapRequest *req,
                                     BdrvMapping *m) GRAPH_RDLOCK;
int coroutine_fn qcow2_co_map_commit(BlockDriverState *bs, const BdrvMapping *m) GRAPH_RDLOCK;
void coroutine_fn qcow2_co_map_abort(BlockDriverState *bs, const BdrvMapping *m) GRAPH_RDLOCK;

/* ---- qcow2-release.c -------------------------------------------------------------------- */

/* The place in the image's file that an L2 entry has, of 0 bytes if it has none. */
BdrvPlace qcow2_entry_place(const Qcow2Geometry *geo, uint64_t entry, Qcow2Discard reason);
/* Have @place be both, if @next goes on where it ends, or it has 0 bytes; else false. */
bool qcow2_place_join(const Qcow2Geometry *geo, BdrvPlace *place, const BdrvPlace *next);
/*
 * Drop a reference to each cluster that @place touches; those that had one only are free, and
 * discarded below if the node's options have it so for what BdrvPlace.cookie says, a
 * Qcow2Discard. 0, or -errno: what was not dropped is a leak.
 */
int coroutine_fn qcow2_co_release(BlockDriverState *bs, const BdrvPlace *place) GRAPH_RDLOCK;

/* What commit has to do: BdrvMapping.cookie. */
typedef enum Qcow2Action {
    QCOW2_ACTION_KEEP,  /* the place is linked in already: data is in it now */
    QCOW2_ACTION_FRESH, /* link in new clusters */
    QCOW2_ACTION_ENCODED,
    QCOW2_ACTION_ZERO,
    QCOW2_ACTION_DISCARD,
} Qcow2Action;
enum {
    QCOW2_COOKIE_HOST,  /* where the first cluster touched lies; in bytes */
    QCOW2_COOKIE_START, /* guest range, whole subclusters */
    QCOW2_COOKIE_END,
    QCOW2_COOKIE_ACTION, /* Qcow2Action, and flags of the request above 8 bits */
};

/* ---- qcow2-writeback.c ------------------------------------------------------------------ */

/*
 * Bring what is dirty in memory to the file, in order; the caller flushes the file.
 * With @final, refcounts even if they are lazy.
 */
int coroutine_fn qcow2_write_back(Qcow2Writer *w, bool final) GRAPH_RDLOCK;
/* The same if so much is dirty that it should not wait for a flush. */
int coroutine_fn qcow2_relieve(Qcow2Writer *w) GRAPH_RDLOCK;
int coroutine_fn qcow2_co_flush(BlockDriverState *bs) GRAPH_RDLOCK;

/* ---- qcow2-resize.c, qcow2-shrink.c, qcow2-cut.c --------------------------------------- */

int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                   BlockPrealloc prealloc, GError **errp) GRAPH_RDLOCK;
int coroutine_fn qcow2_co_show_vm_state(BlockDriverState *bs, int64_t end,
                                        bool for_write) GRAPH_RDLOCK;
/*
 * Let the header point to the L1 table of @entries at @offset, for a disk of @size bytes,
 * on disk. 0 or -errno: which one it points to is then not known, and is made sure of
 * before anything else is written back.
 */
int coroutine_fn qcow2_l1_switch(Qcow2Writer *w, uint64_t size, uint64_t offset, uint32_t entries)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/*
 * Drop all that the tables say beyond @end, which is where the disk ends, or would
 * if it were not about to grow. The whole node is claimed. 0 or -errno: then it is
 * dropped in part.
 */
int coroutine_fn qcow2_drop_beyond(Qcow2State *s, uint64_t end) GRAPH_RDLOCK;
/*
 * Let the file end behind the last cluster that is in use, and drop refcount blocks for
 * what is behind it. The same.
 */
int coroutine_fn qcow2_cut_file(Qcow2State *s) GRAPH_RDLOCK;

/* ---- qcow2-empty.c ------------------------------------------------------------------------- */

int coroutine_fn qcow2_co_make_empty(BlockDriverState *bs, GError **errp) GRAPH_RDLOCK;

/* ---- qcow2-overlap.c -------------------------------------------------------------------- */

/* The parts of metadata that are known by name, as bits. */
enum {
    QCOW2_OL_MAIN_HEADER = 1 << 0,
    QCOW2_OL_ACTIVE_L1 = 1 << 1,
    QCOW2_OL_ACTIVE_L2 = 1 << 2,
    QCOW2_OL_REFTABLE = 1 << 3,
    QCOW2_OL_REFBLOCK = 1 << 4,
    QCOW2_OL_SNAPSHOT_TABLE = 1 << 5,
    QCOW2_OL_INACTIVE_L1 = 1 << 6,
    QCOW2_OL_INACTIVE_L2 = 1 << 7,
    QCOW2_OL_BITMAP_DIRECTORY = 1 << 8,
};
/* Places in the file of @bytes each, in ascending order, none of which touches another. */
typedef struct Qcow2Places {
    const uint64_t *starts;
    size_t count;
    uint64_t bytes;
} Qcow2Places;
/*
 * Before writing @bytes at @offset: whether that is metadata other than what
 * @ignore (bits) says is meant. Find tells which, or 0; check marks the image as
 * corrupt then: -EIO. -errno if the L1 tables of snapshots cannot be read.
 */
int coroutine_fn qcow2_overlap_find(Qcow2Writer *w, const Qcow2Places *places, unsigned ignore)
    GRAPH_RDLOCK TSA_REQUIRES(w->lock);
int coroutine_fn qcow2_overlap_check(Qcow2Writer *w, uint64_t offset, uint64_t bytes,
                                     unsigned ignore) GRAPH_RDLOCK TSA_REQUIRES(w->lock);
/* Report @format once, set the corrupt bit, refuse all further changes. -EIO. */
int coroutine_fn qcow2_signal_corruption(Qcow2Writer *w, const char *format, ...)
    GRAPH_RDLOCK G_GNUC_PRINTF(2, 3);

/* ---- qcow2-encode.c: pure --------------------------------------------------------------- */

/* Encode a cluster. The length, or -ENOSPC if it does not fit into @dst_bytes. */
int64_t qcow2_compress(unsigned type, const uint8_t *src, size_t src_bytes, uint8_t *dst,
                       size_t dst_bytes);
int64_t qcow2_encode(BlockDriverState *bs, const uint8_t *src, size_t src_bytes, uint8_t *dst,
                     size_t dst_bytes);

#endif
