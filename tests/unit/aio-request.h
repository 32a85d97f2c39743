/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of pass-through: a coroutine that sends a request with a callback,
 * and protocol drivers whose AioRequests are calls that move the bytes.
 */
#ifndef TESTS_AIO_REQUEST_H
#define TESTS_AIO_REQUEST_H

#include "block-testing.h"

typedef struct AioWait {
    Coroutine *co;
    int ret;
    bool done;
} AioWait;

static inline void aio_wait_cb(void *opaque, int ret)
{
    AioWait *wait = opaque;

    assert_false(wait->done); /* once */
    assert_non_null(wait->co); /* not before the call has returned */
    wait->done = true;
    wait->ret = ret;
    aio_co_wake(wait->co);
}

/* Read or write through the callback interface, and wait for it. */
static inline int coroutine_fn aio_request(BlockBackend *blk, bool write, int64_t offset,
                                           int64_t bytes, void *buf)
{
    AioWait wait = {NULL};
    IOVector iov;

    io_vector_init_buf(&iov, buf, bytes);
    if (write) {
        blk_aio_pwritev(blk, offset, &iov, 0, aio_wait_cb, &wait);
    } else {
        blk_aio_preadv(blk, offset, &iov, 0, aio_wait_cb, &wait);
    }
    wait.co = coroutine_self();
    coroutine_yield();
    return wait.ret;
}

/* A request of a driver under test, as a call: @move copies from or to @iov. */
typedef struct CallIo {
    BlockDriverState *bs;
    void (*move)(BlockDriverState *bs, bool write, int64_t offset, IOVector *iov);
    bool write;
    int64_t offset;
    IOVector *iov;
    int64_t result;
} CallIo;

static inline int64_t call_io(void *opaque)
{
    CallIo *io = opaque;
    int64_t result = io->result;

    io->move(io->bs, io->write, io->offset, io->iov);
    g_free(io);
    return result;
}

/* What bdrv_prepare_aio does: @result is what the request is to return. */
static inline void prepare_call(AioRequest *req, const CallIo *io)
{
    req->op = AIO_OP_CALL;
    req->call = call_io;
    req->call_opaque = g_memdup2(io, sizeof(*io));
}

#endif
