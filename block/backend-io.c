/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend's requests: held back while drained, counted in flight, checked
 * against the medium's bounds, and sent down the root edge under the graph
 * lock.
 */
#include "block/slot.h"

/* ---- On the way in ---------------------------------------------------------------- */

/* Under the lock it is always counted somewhere: held back or in flight. */
bool coroutine_fn blk_co_wait_while_drained(BlkRequest *req)
{
    BlockBackend *blk = req->blk;
    bool cancelled;

    g_mutex_lock(&blk->waiting_lock);
    blk->held_back++;
    in_flight_end(&blk->in_flight);
    aio_wait_kick();
    while (__atomic_load_n(&blk->quiesce_counter, __ATOMIC_SEQ_CST) && !req->cancelled) {
        co_queue_wait_gmutex(&blk->waiting, &blk->waiting_lock);
    }
    in_flight_begin(&blk->in_flight);
    blk->held_back--;
    cancelled = req->cancelled;
    g_mutex_unlock(&blk->waiting_lock);
    return !cancelled;
}

bool blk_busy(BlockBackend *blk)
{
    /* One that cannot pass after all is in flight before its slot is empty. */
    return slots_used_by(&blk->pass) || !in_flight_idle(&blk->in_flight);
}

bool blk_has_requests(BlockBackend *blk)
{
    bool busy;

    g_mutex_lock(&blk->waiting_lock);
    busy = blk_busy(blk) || blk->held_back > 0;
    g_mutex_unlock(&blk->waiting_lock);
    return busy;
}

int coroutine_fn blk_co_request_run(BlkRequest *req)
{
    BlockBackend *blk = req->blk;
    bool wanted = true;
    int ret = -ECANCELED;

    IO_CODE();
    in_flight_begin(&blk->in_flight);
    while (wanted && !req->through_drain &&
           __atomic_load_n(&blk->quiesce_counter, __ATOMIC_SEQ_CST)) {
        wanted = blk_co_wait_while_drained(req);
    }
    if (wanted) {
        bdrv_graph_co_rdlock();
        ret = blk->root ? req->run(req) : -ENOMEDIUM;
        bdrv_graph_co_rdunlock();
    }
    return ret;
}

void blk_request_end(BlockBackend *blk)
{
    in_flight_end(&blk->in_flight);
    aio_wait_kick();
}

int coroutine_fn blk_co_request(BlkRequest *req)
{
    int ret = blk_co_request_run(req);

    blk_request_end(req->blk);
    return ret;
}

int blk_check_bounds(BlkRequest *req)
{
    int64_t length;

    bdrv_graph_assert_readable();
    length = bdrv_getlength(req->blk->root->bs);
    if (req->offset < 0 || req->bytes < 0 || req->offset > length ||
        req->bytes > length - req->offset) {
        return -EIO;
    }
    return 0;
}

static int check_write(BlkRequest *req) GRAPH_RDLOCK
{
    return bdrv_may_write(req->blk->root, req->flags) ? blk_check_bounds(req) : -EPERM;
}

/* ---- At the medium ------------------------------------------------------------------ */

int coroutine_fn blk_run_preadv(BlkRequest *req)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = blk_check_bounds(req);
    return ret < 0 ? ret : bdrv_co_preadv(req->blk->root, req->offset, req->bytes, req->iov,
                                          req->flags);
}

int coroutine_fn blk_run_pwritev(BlkRequest *req)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = check_write(req);
    return ret < 0 ? ret : bdrv_co_pwritev(req->blk->root, req->offset, req->bytes, req->iov,
                                           req->flags);
}

int coroutine_fn blk_run_pwrite_zeroes(BlkRequest *req)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = check_write(req);
    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(req->blk->root, req->offset, req->bytes,
                                                 req->flags);
}

int coroutine_fn blk_run_pdiscard(BlkRequest *req)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = check_write(req);
    return ret < 0 ? ret : bdrv_co_pdiscard(req->blk->root, req->offset, req->bytes);
}

int coroutine_fn blk_run_flush(BlkRequest *req)
{
    bdrv_graph_assert_readable();
    return bdrv_co_flush(req->blk->root->bs);
}

int coroutine_fn blk_run_truncate(BlkRequest *req)
{
    bdrv_graph_assert_readable();
    return bdrv_co_truncate(req->blk->root, req->offset, req->exact, req->prealloc, req->errp);
}

/* ---- From a coroutine ---------------------------------------------------------------- */

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov,
                               int flags)
{
    BlkRequest req = {.blk = blk, .run = blk_run_preadv, .offset = offset, .bytes = bytes,
                      .iov = iov, .flags = flags};

    return blk_co_request(&req);
}

int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov,
                                int flags)
{
    BlkRequest req = {.blk = blk, .run = blk_run_pwritev, .offset = offset, .bytes = bytes,
                      .iov = iov, .flags = flags};

    return blk_co_request(&req);
}

int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              int flags)
{
    IOVector iov;

    io_vector_init_buf(&iov, buf, MAX(bytes, 0));
    return blk_co_preadv(blk, offset, bytes, &iov, flags);
}

int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                               int flags)
{
    IOVector iov;

    io_vector_init_buf(&iov, (void *)buf, MAX(bytes, 0));
    return blk_co_pwritev(blk, offset, bytes, &iov, flags);
}

int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags)
{
    BlkRequest req = {.blk = blk, .run = blk_run_pwrite_zeroes, .offset = offset, .bytes = bytes,
                      .flags = flags};

    return blk_co_request(&req);
}

int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    BlkRequest req = {.blk = blk, .run = blk_run_pdiscard, .offset = offset, .bytes = bytes};

    return blk_co_request(&req);
}

int coroutine_fn blk_co_flush(BlockBackend *blk)
{
    BlkRequest req = {.blk = blk, .run = blk_run_flush};

    return blk_co_request(&req);
}

int coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t offset, bool exact,
                                 BlockPrealloc prealloc, GError **errp)
{
    BlkRequest req = {.blk = blk, .run = blk_run_truncate, .offset = offset, .exact = exact,
                      .prealloc = prealloc, .errp = errp};
    int ret = blk_co_request(&req);

    if (ret < 0 && errp && !*errp) {
        block_error_set_errno(errp, ret, "Could not resize");
    }
    return ret;
}

typedef struct StatusRequest {
    BlkRequest req;
    BlockDriverState *base;
    int64_t *pnum;
    int *depth;
} StatusRequest;

static int coroutine_fn run_block_status(BlkRequest *req)
{
    StatusRequest *st = (StatusRequest *)req;

    bdrv_graph_assert_readable();
    return bdrv_co_block_status_above(req->blk->root->bs, st->base, req->offset, req->bytes,
                                      st->pnum, NULL, NULL, st->depth);
}

int coroutine_fn blk_co_block_status_above(BlockBackend *blk, BlockDriverState *base,
                                           int64_t offset, int64_t bytes, int64_t *pnum,
                                           int *depth)
{
    StatusRequest st = {
        .req = {.blk = blk, .run = run_block_status, .offset = offset, .bytes = bytes},
        .base = base, .pnum = pnum, .depth = depth,
    };

    return blk_co_request(&st.req);
}

/* ---- That wait ----------------------------------------------------------------------- */

typedef struct SyncBlk {
    BlkRequest req;
    bool done; /* atomic */
} SyncBlk;

static void coroutine_fn sync_entry(void *opaque)
{
    SyncBlk *sync = opaque;

    sync->req.ret = blk_co_request(&sync->req);
    __atomic_store_n(&sync->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static int sync_request(BlkRequest req)
{
    SyncBlk sync = {.req = req};

    GLOBAL_STATE_CODE();
    g_assert(!in_coroutine());
    sync.req.through_drain = true;
    coroutine_enter(coroutine_create(sync_entry, &sync));
    BDRV_WAIT_WHILE(!__atomic_load_n(&sync.done, __ATOMIC_ACQUIRE));
    return sync.req.ret;
}

int blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov, int flags)
{
    return sync_request((BlkRequest){.blk = blk, .run = blk_run_preadv, .offset = offset,
                                     .bytes = bytes, .iov = iov, .flags = flags});
}

int blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov, int flags)
{
    return sync_request((BlkRequest){.blk = blk, .run = blk_run_pwritev, .offset = offset,
                                     .bytes = bytes, .iov = iov, .flags = flags});
}

int blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf, int flags)
{
    IOVector iov;

    io_vector_init_buf(&iov, buf, MAX(bytes, 0));
    return blk_preadv(blk, offset, bytes, &iov, flags);
}

int blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf, int flags)
{
    IOVector iov;

    io_vector_init_buf(&iov, (void *)buf, MAX(bytes, 0));
    return blk_pwritev(blk, offset, bytes, &iov, flags);
}

int blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, int flags)
{
    return sync_request((BlkRequest){.blk = blk, .run = blk_run_pwrite_zeroes, .offset = offset,
                                     .bytes = bytes, .flags = flags});
}

int blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return sync_request((BlkRequest){.blk = blk, .run = blk_run_pdiscard, .offset = offset,
                                     .bytes = bytes});
}

int blk_flush(BlockBackend *blk)
{
    return sync_request((BlkRequest){.blk = blk, .run = blk_run_flush});
}

int blk_truncate(BlockBackend *blk, int64_t offset, bool exact, BlockPrealloc prealloc,
                 GError **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    int ret;

    if (bs) {
        bdrv_ref(bs);
        bdrv_drained_begin(bs);
    }
    ret = sync_request((BlkRequest){.blk = blk, .run = blk_run_truncate, .offset = offset,
                                    .exact = exact, .prealloc = prealloc, .errp = errp});
    if (bs) {
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    }
    if (ret < 0 && errp && !*errp) {
        block_error_set_errno(errp, ret, "Could not resize");
    }
    return ret;
}

/* ---- Questions ------------------------------------------------------------------------ */

typedef struct MediumInfo {
    int64_t length;
    bool available;
    bool writable;
} MediumInfo;

static MediumInfo medium_info(BlockBackend *blk) GRAPH_RDLOCK
{
    if (!blk->root) {
        return (MediumInfo){.length = -ENOMEDIUM};
    }
    return (MediumInfo){bdrv_getlength(blk->root->bs), true, bdrv_may_write(blk->root, 0)};
}

static MediumInfo query(BlockBackend *blk)
{
    MediumInfo info;

    if (in_coroutine()) {
        bdrv_graph_co_rdlock();
        info = medium_info(blk);
        bdrv_graph_co_rdunlock();
    } else {
        bdrv_graph_rdlock_main_loop();
        info = medium_info(blk);
        bdrv_graph_rdunlock_main_loop();
    }
    return info;
}

int64_t blk_getlength(BlockBackend *blk)
{
    return query(blk).length;
}

bool blk_is_available(BlockBackend *blk)
{
    return query(blk).available;
}

bool blk_is_writable(BlockBackend *blk)
{
    return query(blk).writable;
}
