/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Write thresholds: the first write that ends beyond one takes it away, and the
 * main thread is told.
 *
 * Invariants:
 *  1. threshold_watch of a node changes on the main thread, while the node is drained:
 *     a request that has found a threshold finds the watch that belongs to it.
 *  2. Of all requests that exceed a threshold one exchanges it for 0, and schedules
 *     the call.
 */
#include "block/block-int.h"
#include "blockgraph/write-threshold.h"

struct WriteThreshold {
    unsigned refcount;    /* atomic: the node's, and that of a call to come */
    BlockDriverState *bs; /* NULL: nobody is to be told any more; main thread only */
    BdrvWriteThresholdFunc *cb;
    void *opaque;
    int64_t threshold; /* bytes */
    int64_t exceeded;  /* bytes */
};

static void watch_unref(WriteThreshold *watch)
{
    if (__atomic_sub_fetch(&watch->refcount, 1, __ATOMIC_ACQ_REL) == 0) {
        g_free(watch);
    }
}

void bdrv_write_threshold_forget(BlockDriverState *bs)
{
    if (bs->threshold_watch) {
        bs->threshold_watch->bs = NULL;
        watch_unref(bs->threshold_watch);
        bs->threshold_watch = NULL;
    }
}

void bdrv_write_threshold_set(BlockDriverState *bs, int64_t threshold, BdrvWriteThresholdFunc *cb,
                              void *opaque)
{
    GLOBAL_STATE_CODE();
    g_assert(threshold >= 0 && (threshold == 0 || cb));
    bdrv_drained_begin(bs);
    bdrv_write_threshold_forget(bs);
    if (threshold > 0) {
        bs->threshold_watch = g_new0(WriteThreshold, 1);
        *bs->threshold_watch = (WriteThreshold){1, bs, cb, opaque, threshold, 0};
    }
    __atomic_store_n(&bs->write_threshold, threshold, __ATOMIC_RELEASE);
    bdrv_see_requests(bs);
    bdrv_drained_end(bs);
}

int64_t bdrv_write_threshold_get(const BlockDriverState *bs)
{
    return __atomic_load_n(&bs->write_threshold, __ATOMIC_RELAXED);
}

static void exceeded_bh(void *opaque)
{
    WriteThreshold *watch = opaque;

    if (watch->bs) {
        watch->cb(watch->opaque, watch->bs, watch->exceeded, watch->threshold);
    }
    watch_unref(watch);
}

void bdrv_write_threshold_exceeded(BlockDriverState *bs, int64_t end)
{
    int64_t threshold = __atomic_load_n(&bs->write_threshold, __ATOMIC_ACQUIRE);
    WriteThreshold *watch = bs->threshold_watch;

    if (threshold == 0 || !__atomic_compare_exchange_n(&bs->write_threshold, &threshold, 0, false,
                                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        return; /* another request was first */
    }
    watch->exceeded = end - threshold;
    __atomic_fetch_add(&watch->refcount, 1, __ATOMIC_RELAXED);
    aio_bh_oneshot(aio_context_main(), exceeded_bh, watch);
}
