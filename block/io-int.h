/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The request path from the inside: what io*.c, map.c, parts.c and
 * block-status.c share.
 *
 * A request walks down from node to node. As long as one mapping covers all of
 * it, it goes on with the child in place of the node, so a plain request uses
 * one stack frame however deep the graph is. Where it falls apart, each part
 * gets a coroutine, hence a stack, of its own.
 *
 * Only the node where a request enters counts it in flight: a node below is
 * busy while one of its parents is (drain.c).
 */
#ifndef BLOCK_IO_INT_H
#define BLOCK_IO_INT_H

#include "block/block-int.h"

/* Buffers that the core allocates for one step of a request. Bytes. */
#define BDRV_MAX_BOUNCE (1 << 20)
/* No encoded extent is larger, encoded or decoded. Bytes. */
#define BDRV_MAX_ENCODED (64 << 20)

/* @n (>= 0) rounded to a multiple of @unit, a power of two. */
#define BDRV_ALIGN_DOWN(n, unit) ((n) & ~((unit) - 1))
#define BDRV_ALIGN_UP(n, unit) BDRV_ALIGN_DOWN((n) + (unit) - 1, unit)

/* ---- map.c ------------------------------------------------------------------ */

/*
 * Ask for the mapping of [offset, offset + bytes) of @bs, from the cache where
 * that serves, and check the answer. -EIO for an answer that breaks the
 * contract. *@n is how many bytes from offset on it describes, at most @bytes.
 * @encoded: see BdrvMapRequest.encoded_bytes.
 */
int coroutine_fn bdrv_co_map_range(BlockDriverState *bs, BdrvMapOp op, int64_t offset,
                                   int64_t bytes, int flags, int64_t encoded,
                                   BdrvMapping *mapping, int64_t *n) GRAPH_RDLOCK;
/* The child offset of guest offset @offset in a mapping with a place. */
static inline int64_t bdrv_mapping_place(const BdrvMapping *m, int64_t offset)
{
    return m->child_offset + (offset - m->offset);
}

/* Tell a node's hook of a request on its way in; 0 or -errno. If req->release is
 * set then, even on failure, it is called when the request is over. */
int coroutine_fn bdrv_co_enter_node(BlockDriverState *bs, BdrvIoRequest *req) GRAPH_RDLOCK;

/* ---- debug-event.c ----------------------------------------------------------------- */

/* A request to @bs itself has come to @event. */
void coroutine_fn bdrv_co_node_debug_event(BlockDriverState *bs,
                                           BdrvDebugEvent event) GRAPH_RDLOCK;

/* ---- io-protocol.c: bounds are checked, the vector is @bytes long ----------------- */

int coroutine_fn bdrv_co_protocol_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_protocol_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          IOVector *iov, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_protocol_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_protocol_pdiscard(BlockDriverState *bs, int64_t offset,
                                           int64_t bytes) GRAPH_RDLOCK;

/* ---- io-copy-range.c ----------------------------------------------------------------- */

/* Where the bytes lie that are to be copied: at @offset of @bs, which moves data. */
typedef struct CopySource {
    BlockDriverState *bs;
    int64_t offset;
} CopySource;
/* Copy to protocol node @bs; see bdrv_co_copy_range(). */
int coroutine_fn bdrv_co_protocol_copy_range(const CopySource *from, BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             int flags) GRAPH_RDLOCK;
/* io-write.c: a write to @bs, in flight already, of what lies at @from. */
int coroutine_fn bdrv_co_node_copy_range(const CopySource *from, BlockDriverState *bs,
                                         int64_t offset, int64_t bytes, int flags) GRAPH_RDLOCK;

/* ---- parts.c: parts of a request that run side by side ------------------------------ */

typedef struct PartPool PartPool;
typedef struct Part Part;
typedef int coroutine_fn PartFunc(Part *part);

/* One part: what the function needs. Copied when it starts. */
struct Part {
    PartFunc *func;
    BlockDriverState *bs;
    BdrvMapping mapping;
    int64_t offset;
    int64_t bytes;
    IOVector *iov;   /* of the whole request */
    size_t iov_offset;
    int flags;
    PartPool *pool;
};

/* Lives in the request; starts as zeros. */
struct PartPool {
    int running;
    int ret; /* the first error */
    Coroutine *waiter;
};

/* Start a part, after waiting while too many run. The caller holds the graph
 * lock until part_pool_finish() has returned. */
void coroutine_fn part_pool_start(PartPool *pool, const Part *part) GRAPH_RDLOCK;
/* No more parts come, because of the error @ret if it is negative. Wait for all
 * to end; the error that came first, or 0. */
int coroutine_fn part_pool_finish(PartPool *pool, int ret) GRAPH_RDLOCK;

/* ---- Requests to a node, in flight already or below one that is --------------------- */

int coroutine_fn bdrv_co_node_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_node_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *iov, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_node_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_node_pdiscard(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_node_flush(BlockDriverState *bs) GRAPH_RDLOCK;

/* ---- Nodes whose driver commits: io-change.c, io-copy.c, io-fill.c, io-compress.c ------ */

/* Whether requests to @bs claim their range there. */
static inline bool bdrv_takes_claims(const BlockDriverState *bs)
{
    return bs->drv->bdrv_co_map_commit && !bs->read_only;
}

/*
 * A write (@iov), write zeroes or discard, with its claim and all that follows; or a
 * read that copies (@iov, too).
 */
int coroutine_fn bdrv_co_committing_change(BlockDriverState *bs, BdrvMapOp op, int64_t offset,
                                           int64_t bytes, IOVector *iov,
                                           int flags) GRAPH_RDLOCK;
/* Read, or write from @iov_offset on, what the request has claimed already. */
int coroutine_fn bdrv_co_claimed_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *iov, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_claimed_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, size_t iov_offset,
                                         int flags) GRAPH_RDLOCK;
/* Zero it by the driver's tables alone, what is claimed already; else -ENOTSUP. */
int coroutine_fn bdrv_co_claimed_map_zeroes(BlockDriverState *bs, int64_t offset,
                                            int64_t bytes) GRAPH_RDLOCK;
/* Read, and write to the node what it does not have: with its claim; within one. */
int coroutine_fn bdrv_co_copy_on_readv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *iov) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_claimed_copy_on_readv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               IOVector *iov) GRAPH_RDLOCK;
/* Write part and fill, then commit or abort. */
int coroutine_fn bdrv_co_write_new(Part *part) GRAPH_RDLOCK;
/* The I/O of a mapping has ended with @ret: commit or abort, if it needs that. */
int coroutine_fn bdrv_co_end_mapping(BlockDriverState *bs, const BdrvMapping *m,
                                     int ret) GRAPH_RDLOCK;
/* Start the parts of a compressed write. */
int coroutine_fn bdrv_co_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          IOVector *iov, int flags, PartPool *pool) GRAPH_RDLOCK;
/* Give the driver back the retired places that nobody can use any more. */
int coroutine_fn bdrv_co_release_retired(BlockDriverState *bs) GRAPH_RDLOCK;

/* ---- run-alone.c: changes of an image as a whole, rule 7 of map.h ---------------------- */

/* 0, or -errno with @errp. */
typedef int coroutine_fn BdrvAloneFunc(BlockDriverState *bs, void *opaque, GError **errp);
/*
 * Run @change in a coroutine with the graph lock held shared. The node is drained, was
 * flushed, and if it takes claims @change has claimed all of it: it must not claim there
 * itself. No mapping is remembered before or after. If the length is another then, the
 * parents are told. 0, or -errno with @errp. Main thread, not in a coroutine.
 */
int bdrv_run_alone(BlockDriverState *bs, BdrvAloneFunc *change, void *opaque, GError **errp);
/* bdrv_co_flush() with @errp, for @change that has to be durable when it ends. */
int coroutine_fn bdrv_co_flush_image(BlockDriverState *bs, GError **errp) GRAPH_RDLOCK;
/* What a parent that does not let @bs be resized is called, or NULL; free with g_free(). */
char *bdrv_resize_refuser(BlockDriverState *bs);

/* The length is another one: count it as a write, tell the parents. */
void bdrv_tell_length(BlockDriverState *bs) GRAPH_RDLOCK;
/* A shared page of zeros, BDRV_MAX_BOUNCE long, aligned to 4 KiB. Read only. */
void *bdrv_zero_buffer(void);
/* Note a completed change of @bs, which is as long as @end then at least. */
void bdrv_note_write(BlockDriverState *bs, int64_t end);

#endif
