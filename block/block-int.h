/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph's objects from the inside. Only block/ includes this.
 *
 * Invariants:
 *  1. The links between nodes and edges change only under the graph lock held
 *     exclusively, with the node that an edge leads to drained.
 *  2. An edge counts as one reference to the node that it leads to.
 *  3. quiesce_counter of a node is the number of drained sections that are
 *     open on it, plus one for each child that is quiesced; while it is not 0,
 *     every parent has been told once (BdrvChild.quiesced_parent).
 *  4. perm and shared of a node are those of all its parents together, and the
 *     driver has been told them.
 */
#ifndef BLOCK_BLOCK_INT_H
#define BLOCK_BLOCK_INT_H

#include "block/claim.h"
#include "block/dirty-bitmap.h"
#include "block/map-cache.h"
#include "block/retire.h"
#include "blockgraph/block-backend.h"
#include "blockgraph/block-driver.h"
#include "util/in-flight.h"

typedef struct PassThrough PassThrough;
typedef struct WriteThreshold WriteThreshold;

/* What a parent does for an edge: the parent is a node or a backend. */
typedef struct BdrvParentOps {
    bool is_node;
    /* "node 'x'" in messages; free with g_free(). */
    char *(*describe)(const BdrvChild *child);
    /* Stop sending new requests to the child; go on. */
    void (*drained_begin)(BdrvChild *child);
    void (*drained_end)(BdrvChild *child);
    /* Whether requests of the parent are still in flight. */
    bool (*drained_busy)(BdrvChild *child);
    /* The child's length changed. */
    void (*resized)(BdrvChild *child);
    /* What passes by the parent's coroutines; NULL: nothing does. */
    PassThrough *(*pass_through)(BdrvChild *child);
} BdrvParentOps;
extern const BdrvParentOps bdrv_node_parent_ops;

struct BdrvChild {
    BlockDriverState *bs TSA_GUARDED_BY(graph_lock);
    char *name;
    const BdrvParentOps *ops;
    void *parent; /* BlockDriverState or BlockBackend, by ops */
    int role;
    uint64_t perm;   /* atomic */
    uint64_t shared;
    bool quiesced_parent;
    BdrvChild *next_child TSA_GUARDED_BY(graph_lock);  /* of the parent node */
    BdrvChild *next_parent TSA_GUARDED_BY(graph_lock); /* of the child node */
};

struct BlockDriverState {
    BlockDriver *drv;
    void *state;
    char *node_name;
    char *filename;
    JsonObject *options; /* as they were given, for "json:" names */
    int open_flags;
    unsigned refcount;
    bool read_only;
    bool auto_read_only;
    bool probed;
    bool force_share;
    bool encrypted;
    bool reopening;
    BdrvDetectZeroes detect_zeroes; /* changes only while drained */
    BlockDriverState *inherits_from; /* the parent whose flags it follows, or NULL */
    BlockDriverState *opened_for; /* while it is being opened: whose child it will be */
    bool is_open; /* the driver has opened it */
    const BlockOpenPolicy *policy;
    char *backing_filename;
    char *backing_format;

    BdrvChild *children TSA_GUARDED_BY(graph_lock); /* in order of attaching */
    BdrvChild *parents TSA_GUARDED_BY(graph_lock);
    BdrvChild *file TSA_GUARDED_BY(graph_lock);
    BdrvChild *backing TSA_GUARDED_BY(graph_lock);
    uint64_t perm;   /* atomic */
    uint64_t shared;
    uint64_t old_perm; /* while a transaction tries new ones */
    uint64_t old_shared;

    BlockLimits limits;
    int64_t length;   /* atomic: bytes, a multiple of 512 */
    int64_t map_unit; /* bytes */

    InFlight in_flight;
    unsigned quiesce_counter; /* atomic */
    bool driver_drained;      /* bdrv_drain_begin was called, and not yet bdrv_drain_end */
    ClaimSet *claims;
    RetireList *retired;
    MapCache *map_cache; /* NULL: answers are not cached */
    DirtyBitmapSet *dirty_bitmaps; /* atomic; NULL: there never was one */
    int64_t write_threshold; /* atomic: bytes; 0: none */
    WriteThreshold *threshold_watch; /* who is told; changes only while drained */
    ShardedCount writes;  /* that are over; counted before they are reported */
    uint64_t flushed_writes; /* atomic: how many of them the last flush covered */

    BlockDriverState *next_node; /* all nodes, in order of creation */
    BlockDriverState *prev_node;
};

/* ---- node.c --------------------------------------------------------------- */

/* A node of @drv, with one reference, not open yet, on the list of all nodes.
 * NULL with @errp if @node_name is taken or no name; NULL makes one up. */
BlockDriverState *bdrv_node_new(BlockDriver *drv, const char *node_name, GError **errp);

/* ---- child.c -------------------------------------------------------------- */

/*
 * Attach @bs to a parent, taking over the caller's reference. For a node
 * parent, permissions follow from the role; otherwise @perm and @shared.
 * NULL with @errp if they cannot be had; the reference is dropped then.
 */
BdrvChild *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *bs, const char *name,
                             int role, GError **errp);
BdrvChild *bdrv_attach_root(BlockDriverState *bs, const char *name, const BdrvParentOps *ops,
                            void *parent, uint64_t perm, uint64_t shared, GError **errp);
/* Detach an edge, free it, and drop its reference on the node. */
void bdrv_detach_child(BdrvChild *child);
/* Note what the edge takes and shares; requests look at it at any time. */
void bdrv_child_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared);
/* Whether a write with these BdrvRequestFlags is permitted through the edge. I/O. */
bool bdrv_may_write(const BdrvChild *child, int flags);
bool bdrv_may_resize(const BdrvChild *child);
/* A bare edge, leading nowhere yet. */
BdrvChild *bdrv_child_new(const char *name, const BdrvParentOps *ops, void *parent, int role,
                          uint64_t perm, uint64_t shared);
void bdrv_child_free(BdrvChild *child);
/* The bare links, to the child node and to the parent node. */
void bdrv_link_to_parent(BlockDriverState *parent, BdrvChild *child) GRAPH_WRLOCK;
void bdrv_unlink_from_parent(BlockDriverState *parent, BdrvChild *child) GRAPH_WRLOCK;
/* Empty the node's mapping cache, and what backends above have made of it. */
void bdrv_forget_mappings(BlockDriverState *bs);
/* And those of all nodes above: what lies below one of them has changed. */
void bdrv_forget_mappings_above(BlockDriverState *bs) GRAPH_RDLOCK;
/*
 * The node, which is drained, has to see requests from now on that could pass by
 * until now, or the other way round. Global state.
 */
void bdrv_see_requests(BlockDriverState *bs);
void bdrv_link_child(BdrvChild *child, BlockDriverState *bs) GRAPH_WRLOCK;
void bdrv_unlink_child(BdrvChild *child) GRAPH_WRLOCK;
/* Whether @bs can be reached from @from. */
bool bdrv_reaches(BlockDriverState *from, BlockDriverState *bs) GRAPH_RDLOCK;

/* ---- perm.c --------------------------------------------------------------- */

/*
 * Work out the permissions of @nodes (BlockDriverState pointers) and of all
 * below, and tell the drivers. If that fails, everything is as before.
 */
bool bdrv_refresh_perms(GPtrArray *nodes, GError **errp) GRAPH_RDLOCK;
bool bdrv_refresh_node_perms(BlockDriverState *bs, GError **errp) GRAPH_RDLOCK;

/* ---- transaction.c -------------------------------------------------------- */

/* The edge is about to be freed: transactions that are to change it fail. */
void bdrv_transactions_forget(const BdrvChild *child);

/* ---- chain.c -------------------------------------------------------------- */

/*
 * Whether the edge @child may lead to @to: no layer comes back, nor does a file, and the
 * chain does not become too deep. False with @errp.
 */
bool bdrv_chain_allows(BdrvChild *child, BlockDriverState *to, GError **errp) GRAPH_RDLOCK;

/* ---- write-threshold.c ------------------------------------------------------ */

/* A write ends at @end, beyond the node's threshold. I/O. */
void bdrv_write_threshold_exceeded(BlockDriverState *bs, int64_t end);
/* The node is about to be freed. */
void bdrv_write_threshold_forget(BlockDriverState *bs);

/* ---- limits.c ------------------------------------------------------------- */
void bdrv_refresh_limits(BlockDriverState *bs) GRAPH_RDLOCK;

/* ---- drain.c -------------------------------------------------------------- */

/* begin without waiting; end; whether requests are in flight at or above. */
void bdrv_quiesce(BlockDriverState *bs);
void bdrv_unquiesce(BlockDriverState *bs);
bool bdrv_busy(BlockDriverState *bs);
/* Sections of bdrv_drain_all_begin() that are open: new nodes start in them. */
extern unsigned bdrv_drain_all_count;
/*
 * Call bdrv_drain_begin or bdrv_drain_end if it is time for it: something has changed
 * that decides it.
 */
void bdrv_tell_driver_of_drain(BlockDriverState *bs);
/* The writer of the graph lock waits: no driver may hold requests. Or not any more. */
void bdrv_drain_drivers_begin(void);
void bdrv_drain_drivers_end(void);
/* Tell one parent of a quiesced node, once. */
void bdrv_parent_quiesce(BdrvChild *child);
void bdrv_parent_unquiesce(BdrvChild *child);

/* ---- graph-lock.c --------------------------------------------------------- */

/*
 * For a coroutine that works for another one, which holds the graph lock
 * shared until this one has ended: count as a holder without taking it.
 */
void coroutine_fn bdrv_graph_co_inherit(void) TSA_ACQUIRE_SHARED(graph_lock);
void coroutine_fn bdrv_graph_co_disinherit(void) TSA_RELEASE_SHARED(graph_lock);

/*
 * For a request without a coroutine: count it as a holder of the graph lock, or
 * not any more. The thread makes a full fence after each, and after the first,
 * before it touches the graph, finds that bdrv_graph_has_writer() is false, or
 * counts it out again. Counted out on the thread where it was counted in.
 */
void bdrv_graph_count_in(void);
void bdrv_graph_count_out(void);
bool bdrv_graph_has_writer(void);

/*
 * AIO_WAIT_WHILE() for what needs the graph lock to become true: we may be in a
 * callback that runs while the graph lock's writer waits for it.
 */
#define BDRV_WAIT_WHILE(cond)                                                                      \
    do {                                                                                           \
        bool paused_writer_ = bdrv_graph_pause_writer();                                           \
        AIO_WAIT_WHILE(cond);                                                                      \
        bdrv_graph_resume_writer(paused_writer_);                                                  \
    } while (0)
/* Let readers in although a writer waits, if one does; have it wait again. */
bool bdrv_graph_pause_writer(void);
void bdrv_graph_resume_writer(bool paused);

/* ---- driver.c ------------------------------------------------------------- */

/* The drivers of the build, NULL-terminated; generated. */
extern BlockDriver *const block_builtin_drivers[];
/* The format that the first bytes of a file look like most. */
BlockDriver *bdrv_probe_buffer(const uint8_t *buf, size_t size, const char *filename);
/* The driver for a path that is no "NAME:…": a device's own, or "file". NULL with @errp. */
BlockDriver *bdrv_find_path_protocol(const char *path, GError **errp);
bool bdrv_driver_is_protocol(const BlockDriver *drv);
/* Whether the driver moves the bytes itself, as protocols and some filters do. */
static inline bool bdrv_moves_data(const BlockDriverState *bs)
{
    return bs->drv->bdrv_co_preadv != NULL;
}
/* Whether the driver's hook has to see requests of @type (READ or WRITE). */
static inline bool bdrv_hook_sees(BlockDriverState *bs, BdrvIoType type)
{
    return bs->drv->bdrv_co_before_io &&
           !(bs->drv->bdrv_is_transparent && bs->drv->bdrv_is_transparent(bs, type));
}
/* The name of the protocol in "NAME:…", or NULL for a path; free with g_free(). */
char *bdrv_filename_protocol(const char *filename);

/* ---- open.c --------------------------------------------------------------- */

/* bdrv_open() for a child: @depth counts the levels above. @flags and the
 * policy come from the parent. */
BlockDriverState *bdrv_open_inherit(const char *filename, JsonObject *options, int flags,
                                    const BlockOpenPolicy *policy, BlockDriverState *parent,
                                    GError **errp);

/* ---- io.c ------------------------------------------------------------------ */

/* 0, or -EIO for a range outside of [0, BDRV_MAX_LENGTH]. */
int bdrv_check_range(int64_t offset, int64_t bytes);

/* ---- sync.c ---------------------------------------------------------------- */

/* Run @entry(@opaque) in a coroutine that holds the graph lock shared, and wait:
 * from the main thread, outside of a coroutine. */
void bdrv_run_co(void coroutine_fn (*entry)(void *opaque), void *opaque);
/* Read from a node without an edge: for probing. */
int bdrv_node_pread(BlockDriverState *bs, int64_t offset, int64_t bytes, void *buf);

/* ---- throttle-group.c ------------------------------------------------------ */

/* Free the groups that are left; no node is. */
void throttle_groups_cleanup(void);

/* ---- backend.c ------------------------------------------------------------- */

/* Abort, naming one, if a backend is left. */
void blk_assert_none_left(void);

#endif
