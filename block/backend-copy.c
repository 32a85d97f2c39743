/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying from one backend to another: a request that both have in flight.
 *
 * Invariant: it waits for a drained section of either without being in flight at the
 * other, and before it takes the graph lock. Else whoever drains both would wait for it.
 */
#include "block/backend-int.h"

static bool is_drained(const BlockBackend *blk)
{
    return __atomic_load_n(&blk->quiesce_counter, __ATOMIC_SEQ_CST) != 0;
}

/* In flight to held back, and the other way round; always counted somewhere. */
static void hold_back(BlockBackend *blk)
{
    g_mutex_lock(&blk->waiting_lock);
    blk->held_back++;
    in_flight_end(&blk->in_flight);
    g_mutex_unlock(&blk->waiting_lock);
    aio_wait_kick();
}

static void let_go_on(BlockBackend *blk)
{
    g_mutex_lock(&blk->waiting_lock);
    in_flight_begin(&blk->in_flight);
    blk->held_back--;
    g_mutex_unlock(&blk->waiting_lock);
}

/* Be in flight at both, when neither is drained. */
static void coroutine_fn enter_both(BlkRequest *src, BlkRequest *dst)
{
    in_flight_begin(&src->blk->in_flight);
    in_flight_begin(&dst->blk->in_flight);
    for (;;) {
        BlkRequest *drained = is_drained(src->blk)   ? src
                              : is_drained(dst->blk) ? dst
                                                     : NULL;
        BlkRequest *other = drained == src ? dst : src;

        if (!drained) {
            break;
        }
        hold_back(other->blk);
        blk_co_wait_while_drained(drained);
        let_go_on(other->blk);
    }
}

int coroutine_fn blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst,
                                   int64_t dst_offset, int64_t bytes, int flags)
{
    BlkRequest from = {.blk = src, .offset = src_offset, .bytes = bytes};
    BlkRequest to = {.blk = dst, .offset = dst_offset, .bytes = bytes, .flags = flags};
    int ret = -ENOMEDIUM;

    IO_CODE();
    enter_both(&from, &to);
    bdrv_graph_co_rdlock();
    if (src->root && dst->root) {
        ret = blk_check_bounds(&from);
        if (ret >= 0) {
            ret = blk_check_bounds(&to);
        }
        if (ret >= 0) {
            ret = bdrv_co_copy_range(src->root, src_offset, dst->root, dst_offset, bytes, flags);
        }
    }
    bdrv_graph_co_rdunlock();
    blk_request_end(dst);
    blk_request_end(src);
    return ret;
}
