/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend's requests with a callback: a coroutine each, where they do not pass
 * through. A bottom half brings the callback, so it runs once, not before the call
 * has returned, and outside of a coroutine: it may wait, or let go of the backend.
 */
#include "block/slot.h"

/*
 * Who has drained the backend finds that the callback has run. On the main
 * thread nobody can look in between, and the callback may drain, itself.
 */
static void aio_complete(void *opaque)
{
    BlockAIOCB *acb = opaque;
    bool on_main = aio_context_is_home(aio_context_main());

    if (on_main) {
        blk_request_end(acb->req.blk);
    }
    acb->cb(acb->opaque, acb->req.ret);
    if (!on_main) {
        blk_request_end(acb->req.blk);
    }
    if (acb->slot) {
        slot_give_back(acb->slot);
    } else {
        g_free(acb);
    }
}

static void coroutine_fn aio_entry(void *opaque)
{
    BlockAIOCB *acb = opaque;

    acb->req.ret = blk_co_request_run(&acb->req);
    aio_bh_oneshot(aio_context_current(), aio_complete, acb);
}

void blk_aio_run(BlockAIOCB *acb)
{
    coroutine_enter(coroutine_create(aio_entry, acb));
}

static BlockAIOCB *aio_start(BlkRequest req, BlockCompletionFunc *cb, void *opaque)
{
    BlockAIOCB *acb = g_new0(BlockAIOCB, 1);

    IO_CODE();
    acb->req = req;
    acb->cb = cb;
    acb->opaque = opaque;
    blk_aio_run(acb);
    return acb;
}

/* Pass through, or start as a coroutine. */
static BlockAIOCB *aio_transfer(BlkRequest req, BdrvIoType type, BlockCompletionFunc *cb,
                                void *opaque)
{
    BlockAIOCB *acb;

    IO_CODE();
    acb = blk_pass_start(&req, type, cb, opaque);
    return acb ? acb : aio_start(req, cb, opaque);
}

BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, IOVector *iov, int flags,
                           BlockCompletionFunc *cb, void *opaque)
{
    return aio_transfer((BlkRequest){.blk = blk, .run = blk_run_aio_preadv, .offset = offset,
                                     .bytes = iov->size, .iov = iov, .flags = flags},
                        BDRV_IO_READ, cb, opaque);
}

BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, IOVector *iov, int flags,
                            BlockCompletionFunc *cb, void *opaque)
{
    return aio_transfer((BlkRequest){.blk = blk, .run = blk_run_aio_pwritev, .offset = offset,
                                     .bytes = iov->size, .iov = iov, .flags = flags},
                        BDRV_IO_WRITE, cb, opaque);
}

BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags,
                                  BlockCompletionFunc *cb, void *opaque)
{
    return aio_start((BlkRequest){.blk = blk, .run = blk_run_pwrite_zeroes, .offset = offset,
                                  .bytes = bytes, .flags = flags}, cb, opaque);
}

BlockAIOCB *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes,
                             BlockCompletionFunc *cb, void *opaque)
{
    return aio_start((BlkRequest){.blk = blk, .run = blk_run_pdiscard, .offset = offset,
                                  .bytes = bytes}, cb, opaque);
}

BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque)
{
    return aio_start((BlkRequest){.blk = blk, .run = blk_run_flush}, cb, opaque);
}

void blk_aio_cancel(BlockAIOCB *acb)
{
    BlockBackend *blk = acb->req.blk;

    g_mutex_lock(&blk->waiting_lock);
    acb->req.cancelled = true;
    co_queue_wake_all(&blk->waiting);
    g_mutex_unlock(&blk->waiting_lock);
}
