/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests from outside of a coroutine: run the coroutine function and poll
 * the main context until it is over.
 */
#include "block/io-int.h"

typedef struct SyncRun {
    void coroutine_fn (*entry)(void *opaque);
    void *opaque;
    bool done; /* atomic */
} SyncRun;

static void coroutine_fn sync_entry(void *opaque)
{
    SyncRun *run = opaque;

    bdrv_graph_co_rdlock();
    run->entry(run->opaque);
    bdrv_graph_co_rdunlock();
    __atomic_store_n(&run->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

void bdrv_run_co(void coroutine_fn (*entry)(void *opaque), void *opaque)
{
    SyncRun run = {entry, opaque, false};

    GLOBAL_STATE_CODE();
    g_assert(!in_coroutine());
    coroutine_enter(coroutine_create(sync_entry, &run));
    BDRV_WAIT_WHILE(!__atomic_load_n(&run.done, __ATOMIC_ACQUIRE));
}

/* The arguments of any of them. */
typedef struct SyncArgs {
    BlockDriverState *bs;
    BlockDriverState *base;
    BdrvChild *child;
    int64_t offset;
    int64_t bytes;
    void *buf;
    int flags;
    bool exact;
    BlockPrealloc prealloc;
    GError **errp;
    int64_t *pnum;
    int64_t *map;
    BlockDriverState **file;
    int *depth;
    int ret;
} SyncArgs;

/* Inside of a coroutine the caller holds the graph lock, which the functions
 * assert; outside the coroutine made here does. */
static int coroutine_mixed_fn run_either(void coroutine_fn (*entry)(void *opaque), SyncArgs *args)
{
    if (in_coroutine()) {
        entry(args);
    } else {
        bdrv_run_co(entry, args);
    }
    return args->ret;
}

static void coroutine_fn pread_entry(void *opaque)
{
    SyncArgs *a = opaque;

    bdrv_graph_assert_readable();
    a->ret = bdrv_co_pread(a->child, a->offset, a->bytes, a->buf, a->flags);
}

int coroutine_mixed_fn bdrv_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                                  int flags)
{
    SyncArgs a = {.child = child, .offset = offset, .bytes = bytes, .buf = buf, .flags = flags};

    return run_either(pread_entry, &a);
}

static void coroutine_fn pwrite_entry(void *opaque)
{
    SyncArgs *a = opaque;

    bdrv_graph_assert_readable();
    a->ret = bdrv_co_pwrite(a->child, a->offset, a->bytes, a->buf, a->flags);
}

int coroutine_mixed_fn bdrv_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                                   const void *buf, int flags)
{
    SyncArgs a = {.child = child, .offset = offset, .bytes = bytes, .buf = (void *)buf,
                  .flags = flags};

    return run_either(pwrite_entry, &a);
}

static void coroutine_fn flush_entry(void *opaque)
{
    SyncArgs *a = opaque;

    bdrv_graph_assert_readable();
    a->ret = bdrv_co_flush(a->bs);
}

int coroutine_mixed_fn bdrv_flush(BlockDriverState *bs)
{
    SyncArgs a = {.bs = bs};

    return run_either(flush_entry, &a);
}

static void coroutine_fn truncate_entry(void *opaque)
{
    SyncArgs *a = opaque;

    bdrv_graph_assert_readable();
    a->ret = bdrv_co_truncate(a->child, a->offset, a->exact, a->prealloc, a->errp);
}

int coroutine_mixed_fn bdrv_truncate(BdrvChild *child, int64_t offset, bool exact,
                                     BlockPrealloc prealloc, GError **errp)
{
    SyncArgs a = {.child = child, .offset = offset, .exact = exact, .prealloc = prealloc,
                  .errp = errp};

    return run_either(truncate_entry, &a);
}

static void coroutine_fn node_pread_entry(void *opaque)
{
    SyncArgs *a = opaque;
    IOVector iov;

    bdrv_graph_assert_readable();
    io_vector_init_buf(&iov, a->buf, a->bytes);
    in_flight_begin(&a->bs->in_flight);
    a->ret = bdrv_co_node_preadv(a->bs, a->offset, a->bytes, &iov, 0);
    in_flight_end(&a->bs->in_flight);
    aio_wait_kick();
}

int bdrv_node_pread(BlockDriverState *bs, int64_t offset, int64_t bytes, void *buf)
{
    SyncArgs a = {.bs = bs, .offset = offset, .bytes = bytes, .buf = buf};

    return run_either(node_pread_entry, &a);
}

static void coroutine_fn status_entry(void *opaque)
{
    SyncArgs *a = opaque;

    bdrv_graph_assert_readable();
    a->ret = bdrv_co_block_status_above(a->bs, a->base, a->offset, a->bytes, a->pnum, a->map,
                                        a->file, a->depth);
}

int bdrv_block_status_above(BlockDriverState *bs, BlockDriverState *base, int64_t offset,
                            int64_t bytes, int64_t *pnum, int64_t *map, BlockDriverState **file,
                            int *depth)
{
    SyncArgs a = {.bs = bs, .base = base, .offset = offset, .bytes = bytes, .pnum = pnum,
                  .map = map, .file = file, .depth = depth};

    return run_either(status_entry, &a);
}
