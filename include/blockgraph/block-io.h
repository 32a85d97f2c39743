/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests to nodes. Device models use a BlockBackend (block-backend.h);
 * drivers send requests to their children with these.
 *
 * All offsets and sizes are bytes. Functions return 0 (or what they say) or
 * -errno: -EIO for a range outside of the node, -ENOMEDIUM, -EPERM for a write
 * without the permission, -ENOTSUP, -EINVAL, or what the storage said.
 * A coroutine_fn here is an I/O function: any thread with an AioContext.
 */
#ifndef BLOCKGRAPH_BLOCK_IO_H
#define BLOCKGRAPH_BLOCK_IO_H

#include "blockgraph/block.h"
#include "blockgraph/iov.h"

G_BEGIN_DECLS

typedef enum BdrvRequestFlags {
    BDRV_REQ_FUA = 1 << 0,         /* on stable storage when it completes */
    BDRV_REQ_MAY_UNMAP = 1 << 1,   /* zeroing may deallocate */
    BDRV_REQ_NO_FALLBACK = 1 << 2, /* zeroing: -ENOTSUP rather than slow */
    BDRV_REQ_COMPRESSED = 1 << 3,  /* a write stores compressed clusters */
    BDRV_REQ_WRITE_UNCHANGED = 1 << 4, /* a write that changes nothing visible */
    /*
     * A read writes what the first format node below does not hold itself to that node,
     * where that is open for writing: it has to be, with BLK_PERM_WRITE_UNCHANGED.
     * Fails if that fails.
     */
    BDRV_REQ_COPY_ON_READ = 1 << 5,
    BDRV_REQ_ALL = (1 << 6) - 1,
} BdrvRequestFlags;

/* Limits of requests to a node. The core splits and pads by them. Bytes. */
typedef struct BlockLimits {
    uint32_t request_alignment;    /* power of 2, >= 1 */
    uint32_t min_mem_alignment;    /* of memory, power of 2 */
    int64_t max_transfer;          /* 0: no limit */
    int max_iov;                   /* pieces, 0: IOV_MAX */
    int64_t max_pwrite_zeroes;     /* 0: no limit */
    int64_t pwrite_zeroes_alignment; /* 0: request_alignment */
    int64_t max_pdiscard;          /* 0: no limit */
    int64_t pdiscard_alignment;    /* 0: request_alignment */
} BlockLimits;
/* The limits in force. Borrowed; changes only while the node is drained. Either. */
const BlockLimits *bdrv_get_limits(const BlockDriverState *bs);

/*
 * Read or write at @offset. The vector's memory is the caller's and stays in
 * use until return. Reading past the end of a child gives zeros; an offset
 * range outside of [0, BDRV_MAX_LENGTH] is -EIO. flags: BdrvRequestFlags.
 */
int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *iov,
                                int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes, IOVector *iov,
                                 int flags) GRAPH_RDLOCK;
/* The same with one buffer. */
int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                int flags) GRAPH_RDLOCK;
/* Make the range read as zeros. Falls back to writing zeros unless told not to. */
int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                       int flags) GRAPH_RDLOCK;
/* A hint that the range is not needed. What it reads as after is not defined. */
int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes) GRAPH_RDLOCK;
/*
 * Write what @src reads at @src_offset to @dst at @dst_offset as the storage itself can
 * copy it, in place of a read and a write. -ENOTSUP: it cannot, for a file system that
 * does not, data that is compressed, not allocated or not stored in a file, a target whose
 * format allocates, a node on the way that has to see the data, or ranges that overlap or
 * are not aligned. Then, and after any other error, any part of the range may have been
 * copied, and the caller may read and write instead. flags: BDRV_REQ_FUA or 0.
 */
int coroutine_fn bdrv_co_copy_range(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                    int64_t dst_offset, int64_t bytes, int flags) GRAPH_RDLOCK;
/* Make all that completed before durable, in the order that keeps it whole. */
int coroutine_fn bdrv_co_flush(BlockDriverState *bs) GRAPH_RDLOCK;

typedef enum BlockPrealloc {
    BLOCK_PREALLOC_OFF,
    BLOCK_PREALLOC_METADATA,
    BLOCK_PREALLOC_FALLOC,
    BLOCK_PREALLOC_FULL,
} BlockPrealloc;
/* The words for it, in order, NULL-terminated: for block_options_take_enum(). */
extern const char *const block_prealloc_words[];

/*
 * Change the node's length. With @exact false, longer than @offset is good
 * enough (block devices). Needs BLK_PERM_RESIZE on @child. New space reads as
 * zeros. A format that commits has all other requests wait, and so does whoever
 * passes through; else the caller sees to it that no write is in flight beyond an
 * end that moves down, by a drained section, say: it could lengthen the file again.
 */
int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset, bool exact,
                                  BlockPrealloc prealloc, GError **errp) GRAPH_RDLOCK;

/*
 * The node's length, rounded up to a multiple of 512, or -errno. Protocols
 * are asked if their length can change behind our back (block devices).
 */
int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs) GRAPH_RDLOCK;
/* The length known last. Either. */
int64_t bdrv_getlength(BlockDriverState *bs);

/* bdrv_get_info() for coroutines. */
int coroutine_fn bdrv_co_get_info(BlockDriverState *bs, BlockDriverInfo *info) GRAPH_RDLOCK;

/* ---- Block status ----------------------------------------------------------- */

typedef enum BdrvBlockStatusFlags {
    BDRV_BLOCK_DATA = 1 << 0,      /* there is data to read */
    BDRV_BLOCK_ZERO = 1 << 1,      /* reads as zeros */
    BDRV_BLOCK_OFFSET_VALID = 1 << 2, /* *map and *file are set */
    BDRV_BLOCK_ALLOCATED = 1 << 3, /* this layer, not the backing, decides */
    BDRV_BLOCK_EOF = 1 << 4,       /* the range ends at the node's end */
    BDRV_BLOCK_COMPRESSED = 1 << 5,
} BdrvBlockStatusFlags;

/*
 * What lies at @offset: flags, or -errno. *@pnum is the length of a run with
 * the same answer, which may go on behind it: > 0 and at most @bytes, unless
 * @bytes is 0 (then 0) or offset is at or past the end (then 0 and
 * BDRV_BLOCK_EOF). *@map and *@file (may be NULL) are the place in
 * the node that stores it. Looks at this layer only: not ALLOCATED means that
 * the backing decides.
 */
int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map,
                                      BlockDriverState **file) GRAPH_RDLOCK;
/*
 * The same through the chain, down to but not including @base (NULL: all of
 * it; @bs: none, which says 0 for all). *@depth (may be NULL) counts layers
 * from 0 at @bs; 1 + the chain's depth if no layer has it.
 */
int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                                            int64_t offset, int64_t bytes, int64_t *pnum,
                                            int64_t *map, BlockDriverState **file,
                                            int *depth) GRAPH_RDLOCK;
/* The same from outside of a coroutine. Global state; waits. */
int bdrv_block_status_above(BlockDriverState *bs, BlockDriverState *base, int64_t offset,
                            int64_t bytes, int64_t *pnum, int64_t *map, BlockDriverState **file,
                            int *depth);

/* ---- From outside of a coroutine: for drivers' open --------------------------
 * Inside of a coroutine (which holds the graph lock) they are the _co_ ones;
 * outside they poll the main context. Either.
 */
int coroutine_mixed_fn bdrv_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                                  int flags);
int coroutine_mixed_fn bdrv_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                                   const void *buf, int flags);
int coroutine_mixed_fn bdrv_flush(BlockDriverState *bs);
int coroutine_mixed_fn bdrv_truncate(BdrvChild *child, int64_t offset, bool exact,
                                     BlockPrealloc prealloc, GError **errp);

/* Memory that suits the node's alignment; free with free(). Either. */
void *bdrv_blockalign(BlockDriverState *bs, size_t size);
/* The same, but NULL instead of aborting: for sizes that an image gave. */
void *bdrv_try_blockalign(BlockDriverState *bs, size_t size);

G_END_DECLS

#endif
