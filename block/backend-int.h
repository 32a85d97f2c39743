/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend from the inside: backend.c keeps it, backend-io.c and
 * backend-aio.c send its requests.
 */
#ifndef BLOCK_BACKEND_INT_H
#define BLOCK_BACKEND_INT_H

#include "block/block-int.h"
#include "block/pass-through.h"

struct BlockBackend {
    char *name; /* NULL: anonymous */
    unsigned refcount; /* atomic */
    uint64_t perm;
    uint64_t shared;
    bool revoked;
    BdrvChild *root TSA_GUARDED_BY(graph_lock);
    const BlockDevOps *dev_ops;
    void *dev_opaque;

    InFlight in_flight; /* without those that pass through */
    PassThrough pass;
    unsigned quiesce_counter; /* atomic; the gate: not 0, it is closed */
    GMutex waiting_lock;
    CoQueue waiting; /* requests that came while drained; under waiting_lock */
    unsigned held_back; /* how many, from when they wait until they go on; likewise */
    bool closing; /* the last reference is about to go */

    BlockBackend *next; /* all, in order of creation */
    BlockBackend *prev;
};

/* One request of any kind on its way through a backend. */
typedef struct BlkRequest BlkRequest;
struct BlkRequest {
    BlockBackend *blk;
    int coroutine_fn (*run)(BlkRequest *req);
    int64_t offset;
    int64_t bytes;
    IOVector *iov;
    int flags;
    bool exact;
    BlockPrealloc prealloc;
    GError **errp;
    /* The main thread may be inside of a drained section of its own making. */
    bool through_drain;
    bool cancelled; /* under waiting_lock */
    int ret;
};

/* One request with a callback; lives in a slot, or was allocated. */
struct BlockAIOCB {
    BlkRequest req;
    BlockCompletionFunc *cb;
    void *opaque;
    struct Slot *slot; /* or NULL */
};

/* Whether any request has not ended yet, held back or in flight; in flight only. */
bool blk_has_requests(BlockBackend *blk);
bool blk_busy(BlockBackend *blk);

/* Count the request in flight, run it, and count it out. Returns its result. */
int coroutine_fn blk_co_request(BlkRequest *req);
/* The two parts of it. After the second @blk may be gone. */
int coroutine_fn blk_co_request_run(BlkRequest *req);
void blk_request_end(BlockBackend *blk);

/*
 * Wait while drained, not counted in flight. False if the request was cancelled
 * meanwhile.
 */
bool coroutine_fn blk_co_wait_while_drained(BlkRequest *req);
/* 0, or -EIO if the request is not inside of the medium. */
int blk_check_bounds(BlkRequest *req) GRAPH_RDLOCK;

/* What run may be. */
int coroutine_fn blk_run_preadv(BlkRequest *req);
int coroutine_fn blk_run_pwritev(BlkRequest *req);
int coroutine_fn blk_run_pwrite_zeroes(BlkRequest *req);
int coroutine_fn blk_run_pdiscard(BlkRequest *req);
int coroutine_fn blk_run_flush(BlkRequest *req);
int coroutine_fn blk_run_truncate(BlkRequest *req);
/* Of requests with a callback: these learn where the next may pass through. */
int coroutine_fn blk_run_aio_preadv(BlkRequest *req);
int coroutine_fn blk_run_aio_pwritev(BlkRequest *req);

/*
 * Let a request pass through; NULL if it has to go the long way. req->run is what
 * it runs if it turns out that it cannot pass after all.
 */
BlockAIOCB *blk_pass_start(BlkRequest *req, BdrvIoType type, BlockCompletionFunc *cb,
                           void *opaque);
/* Send a request as a coroutine, up to its callback. */
void blk_aio_run(BlockAIOCB *acb);

#endif
