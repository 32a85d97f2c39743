/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend's requests that pass through: they occupy a slot, become one
 * AioRequest, and are over when that is. What does not work out that way, a short
 * read or an error included, is done again as a coroutine, which also knows how
 * to fail.
 */
#include "block/io-int.h"
#include "block/slot.h"

static bool may_pass(BlockBackend *blk, const BlkRequest *req, bool write) GRAPH_RDLOCK
{
    int64_t length;

    /* The gate, seen after the slot's fence; and the medium. */
    if (__atomic_load_n(&blk->quiesce_counter, __ATOMIC_ACQUIRE) || !blk->root) {
        return false;
    }
    length = bdrv_getlength(blk->root->bs);
    return req->offset <= length && req->bytes <= length - req->offset &&
           (!write || bdrv_may_write(blk->root, 0));
}

/* Whether the driver can take the range as it is. */
static bool fits(const BlockLimits *limits, int64_t offset, int64_t bytes, const IOVector *iov)
{
    return ((offset | bytes) & (limits->request_alignment - 1)) == 0 &&
           (limits->max_transfer == 0 || bytes <= limits->max_transfer) &&
           iov->niov <= limits->max_iov &&
           (limits->min_mem_alignment <= 1 ||
            io_vector_is_aligned(iov, limits->min_mem_alignment));
}

/* Make the AioRequest; false if the request has to go the long way. */
static bool prepare(Slot *slot, BdrvIoType type)
{
    BlkRequest *req = &slot->acb.req;
    bool write = type == BDRV_IO_WRITE;
    PassTarget target;

    slot_assert_occupied(slot);
    if (!may_pass(req->blk, req, write) ||
        !pass_through_find(&req->blk->pass, req->offset, req->bytes, &target) ||
        !fits(&target.bs->limits, target.offset, req->bytes, req->iov)) {
        return false;
    }
    /* Where a write may have to read around itself, it claims what it writes. */
    if (write && (!target.writable || target.bs->limits.request_alignment > 1 ||
                  target.offset + req->bytes > bdrv_getlength(target.bs))) {
        return false;
    }
    slot->target = target.bs;
    slot->target_end = target.offset + req->bytes;
    return target.bs->drv->bdrv_prepare_aio(target.bs, type, target.offset, req->iov, &slot->aio);
}

/* As in aio_complete(): only on the main thread may the callback wait for what it ends. */
static void finish(Slot *slot)
{
    bool on_main = slot->aio.ctx == aio_context_main();

    if (on_main) {
        slot_leave(slot);
    }
    slot->acb.cb(slot->acb.opaque, 0);
    if (!on_main) {
        slot_leave(slot);
    }
    slot_give_back(slot);
}

static void pass_complete(AioRequest *aio)
{
    Slot *slot = aio->opaque;
    BlkRequest *req = &slot->acb.req;

    if (aio->ret != req->bytes) {
        /* It counts as in flight, or is held back, before the slot is empty. */
        blk_aio_run(&slot->acb);
        slot_leave(slot);
        return;
    }
    if (req->run == blk_run_aio_pwritev) {
        bdrv_note_write(slot->target, slot->target_end);
    }
    finish(slot);
}

BlockAIOCB *blk_pass_start(BlkRequest *req, BdrvIoType type, BlockCompletionFunc *cb, void *opaque)
{
    PassThrough *pass = &req->blk->pass;
    Slot *slot;

    if (!__atomic_load_n(&pass->cache, __ATOMIC_RELAXED) || req->flags || req->offset < 0 ||
        req->bytes <= 0 || req->bytes > BDRV_MAX_LENGTH - req->offset) {
        return NULL;
    }
    slot = slot_take();
    if (!slot) {
        return NULL;
    }
    sharded_count_add(&pass->tried);
    if (slot_enter(slot, pass, req->offset, req->bytes)) {
        slot->acb = (BlockAIOCB){*req, cb, opaque, slot};
        slot->aio = (AioRequest){.complete = pass_complete, .opaque = slot};
        if (prepare(slot, type)) {
            sharded_count_add(&pass->passed);
            aio_submit(aio_context_current(), &slot->aio);
            return &slot->acb;
        }
        slot_leave(slot);
    }
    slot_give_back(slot);
    return NULL;
}

/* ---- The long way --------------------------------------------------------------------- */

/* Have the next one here find its way. */
static void coroutine_fn learn(BlkRequest *req) GRAPH_RDLOCK
{
    if (!req->flags && req->bytes > 0) {
        pass_through_learn(&req->blk->pass, req->blk->root, req->offset, req->bytes);
    }
}

int coroutine_fn blk_run_aio_preadv(BlkRequest *req)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = blk_run_preadv(req);
    if (ret >= 0) {
        learn(req);
    }
    return ret;
}

int coroutine_fn blk_run_aio_pwritev(BlkRequest *req)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = blk_run_pwritev(req);
    if (ret >= 0) {
        learn(req);
    }
    return ret;
}

void blk_get_pass_through_stats(BlockBackend *blk, BlkPassThroughStats *stats)
{
    *stats = (BlkPassThroughStats){.tried = sharded_count_sum(&blk->pass.tried),
                                   .passed = sharded_count_sum(&blk->pass.passed)};
}
