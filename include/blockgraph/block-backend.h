/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockBackend: what a device model, a server or a job holds. The device stays
 * while media come and go: the backend has at most one root edge, to the top
 * node of the medium.
 *
 * Functions are global state unless they say otherwise. Offsets and sizes are
 * bytes. I/O functions return 0 or -errno: -ENOMEDIUM without a medium or
 * after blk_revoke(), -EIO for a range outside of the medium, -EPERM for a
 * write that the backend has no permission for.
 */
#ifndef BLOCKGRAPH_BLOCK_BACKEND_H
#define BLOCKGRAPH_BLOCK_BACKEND_H

#include "blockgraph/block-io.h"
#include "blockgraph/block.h"

G_BEGIN_DECLS

/*
 * A new backend without a medium, with one reference, that will take @perm on
 * its medium and let others have @shared (BlkPerm). @name is copied; NULL makes
 * an anonymous one. NULL with @errp if the name is taken (nothing is leaked)
 * or empty.
 */
BlockBackend *blk_new(const char *name, uint64_t perm, uint64_t shared, GError **errp);
/*
 * Open an image as bdrv_open() does, into a new anonymous backend. Takes
 * CONSISTENT_READ, with BDRV_O_RDWR also WRITE, with BDRV_O_RESIZE also
 * RESIZE; shares everything, since the nodes are private to it and formats
 * restrict what their own files share. Where auto-read-only has made the node
 * read-only, it takes CONSISTENT_READ alone.
 */
BlockBackend *blk_new_open(const char *filename, JsonObject *options, int flags,
                           const BlockOpenPolicy *policy, GError **errp);

/* Take a reference. Any thread. */
BlockBackend *blk_ref(BlockBackend *blk);
/* Drop one; NULL is accepted. The last one waits for requests, lets the medium
 * go, and destroys. */
void blk_unref(BlockBackend *blk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlockBackend, blk_unref)
unsigned blk_get_refcount(const BlockBackend *blk);

/* Its name; "" if it is anonymous or was revoked. Borrowed. */
const char *blk_name(const BlockBackend *blk);
/* The backend of that name, borrowed, or NULL. */
BlockBackend *blk_by_name(const char *name);
/* All named backends in order of creation: NULL starts, NULL ends. */
BlockBackend *blk_next(BlockBackend *blk);

/* The medium's top node, borrowed, or NULL. */
BlockDriverState *blk_bs(const BlockBackend *blk);
/*
 * Put a medium in: takes a reference to @bs. False with @errp if there is one
 * already, the backend was revoked, or a permission is not to be had.
 */
bool blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, GError **errp);
/* Take the medium out after draining. Without one: nothing happens. */
void blk_remove_bs(BlockBackend *blk);
/* Another medium in one step; if it fails the old one stays. */
bool blk_replace_bs(BlockBackend *blk, BlockDriverState *bs, GError **errp);
/*
 * Take the device's access away for good. The medium goes, the name is free
 * at once, requests get -ENOMEDIUM, and no medium can be put in again. The
 * handle stays valid until its last reference is dropped. A second call does
 * nothing.
 */
void blk_revoke(BlockBackend *blk);
bool blk_is_revoked(const BlockBackend *blk);

/* Change the permissions; if it fails (false with @errp) the old ones stay. */
bool blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared, GError **errp);
void blk_get_perm(const BlockBackend *blk, uint64_t *perm, uint64_t *shared);

/* What a device wants to be told. Called on the main thread. */
typedef struct BlockDevOps {
    /* A medium came (@inserted) or went; it may be changed or revoked here. Optional. */
    void (*change_media)(void *opaque, bool inserted);
    /* The medium's length changed. Optional. */
    void (*resized)(void *opaque);
    /* Stop sending requests; go on. The backend queues what comes anyway. In the
     * middle of other work: may not change the graph or wait. Optional. */
    void (*drained_begin)(void *opaque);
    void (*drained_end)(void *opaque);
} BlockDevOps;
/* @ops is kept by pointer; NULL takes it back. If the backend is drained, new
 * ones are told at once. */
void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque);

/* Wait until no request is in flight. */
void blk_drain(BlockBackend *blk);

/* Length in bytes or -ENOMEDIUM. All three: global state, or in a coroutine. */
int64_t blk_getlength(BlockBackend *blk);
bool blk_is_available(BlockBackend *blk);
bool blk_is_writable(BlockBackend *blk);

/* ---- Requests from a coroutine. I/O. ------------------------------------------
 * The graph lock is taken inside. They wait while the backend is drained.
 */
int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov,
                               int flags);
int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov,
                                int flags);
int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              int flags);
int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                               int flags);
int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags);
int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
/*
 * See bdrv_co_copy_range(). Waits while either is drained; they may be the same. While one
 * is, the last reference to the other is not to be dropped: that waits for this.
 */
int coroutine_fn blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst,
                                   int64_t dst_offset, int64_t bytes, int flags);
int coroutine_fn blk_co_flush(BlockBackend *blk);
/*
 * See bdrv_co_truncate(): where the format does not commit, no write of a coroutine
 * is to be in flight beyond an end that moves down. blk_truncate() drains by itself.
 */
int coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t offset, bool exact,
                                 BlockPrealloc prealloc, GError **errp);
/* See bdrv_co_block_status_above(), without the file. */
int coroutine_fn blk_co_block_status_above(BlockBackend *blk, BlockDriverState *base,
                                           int64_t offset, int64_t bytes, int64_t *pnum,
                                           int *depth);

/* ---- Requests with a callback. I/O. -------------------------------------------
 * @cb(@opaque, ret) runs exactly once, on the calling thread's context, outside
 * of a coroutine, never before the call returns; draining waits for it. The
 * vector, its memory, and the handle are the library's until then. The handle
 * is borrowed, for blk_aio_cancel() only.
 */
typedef struct BlockAIOCB BlockAIOCB;
typedef void BlockCompletionFunc(void *opaque, int ret);
BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, IOVector *iov, int flags,
                           BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, IOVector *iov, int flags,
                            BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags,
                                  BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes,
                             BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque);
/*
 * Reads and writes with a callback pass straight to the file where an earlier one
 * has found the way, without a coroutine: how many have tried to, and how many
 * did. Any thread.
 */
typedef struct BlkPassThroughStats {
    uint64_t tried;
    uint64_t passed;
} BlkPassThroughStats;
void blk_get_pass_through_stats(BlockBackend *blk, BlkPassThroughStats *stats);
/*
 * A hint that the result is not wanted: a request that still waits for a
 * drained section to end completes with -ECANCELED; others run on. Same thread.
 */
void blk_aio_cancel(BlockAIOCB *acb);

/* ---- Requests that wait. Global state. -----------------------------------------
 * Each does what blk_co_ of the same name does, polling the main context until
 * it is over. Not from a coroutine.
 */
int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf, int flags);
int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf, int flags);
int blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov, int flags);
int blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov, int flags);
int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags);
int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int blk_flush(BlockBackend *blk);
/* In a drained section: requests in flight end before, others come after. */
int blk_truncate(BlockBackend *blk, int64_t offset, bool exact, BlockPrealloc prealloc,
                 GError **errp);
/*
 * Read or write [offset, offset + bytes) of the state of a virtual machine that the image
 * keeps behind its disk; bytes. What was never written reads as zeros. Filters are looked
 * through. In a drained section, and the image is flushed before. 0 or -errno: -ENOTSUP if
 * the format keeps none, -EPERM without the permission to write, -EFBIG beyond what the
 * format can hold. Global state.
 */
int blk_load_vm_state(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov);
int blk_save_vm_state(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov);

G_END_DECLS

#endif
