/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading, writing and flushing a file. Both engines go through aio_submit().
 */
#include <errno.h>
#include <sys/uio.h>

#include "drivers/file/file.h"

int64_t coroutine_fn file_co_submit(AioRequest *req)
{
    int64_t ret = aio_co_submit(req);

    while (ret == -EINTR || ret == -EAGAIN) {
        if (ret == -EAGAIN) {
            co_sleep_ns(0); /* let the loop take what is done */
        }
        ret = aio_co_submit(req);
    }
    return ret;
}

/*
 * Read or write all of @iov. Returns how far it came, which is less than
 * @bytes only where nothing more is to be had, or -errno.
 */
static int64_t coroutine_fn transfer(FileState *s, AioOp op, int64_t offset, int64_t bytes,
                                     IOVector *iov, int rw_flags)
{
    AioRequest req = {.op = op, .fd = s->fd, .rw_flags = rw_flags};
    int64_t done = 0, ret;
    IOVector rest;

    for (;;) {
        req.offset = offset + done;
        if (done == 0) {
            req.iov = iov->iov;
            req.niov = iov->niov;
            ret = file_co_submit(&req);
        } else {
            io_vector_init(&rest, iov->niov);
            io_vector_append(&rest, iov, done, bytes - done);
            req.iov = rest.iov;
            req.niov = rest.niov;
            ret = file_co_submit(&req);
            io_vector_destroy(&rest);
        }
        if (ret <= 0) {
            return ret < 0 ? ret : done;
        }
        done += ret;
        /* O_DIRECT cannot go on from the middle of a sector: it is the end. */
        if (done == bytes || (s->direct && done % s->request_alignment != 0)) {
            return done;
        }
    }
}

bool file_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                      AioRequest *req)
{
    FileState *s = bdrv_state(bs);

    req->op = type == BDRV_IO_READ ? AIO_OP_READV : AIO_OP_WRITEV;
    req->fd = s->fd;
    req->offset = offset;
    req->iov = iov->iov;
    req->niov = iov->niov;
    return true;
}

int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes, IOVector *iov,
                                int flags)
{
    int64_t done = transfer(bdrv_state(bs), AIO_OP_READV, offset, bytes, iov, 0);

    if (done < 0) {
        return done;
    }
    io_vector_memset(iov, done, 0, bytes - done);
    return 0;
}

/* The node's flushes fail from now on. */
static void set_flush_error(FileState *s, int error)
{
    int none = 0;

    __atomic_compare_exchange_n(&s->flush_error, &none, error, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
}

static int coroutine_fn write_all(FileState *s, int64_t offset, int64_t bytes, IOVector *iov,
                                  int rw_flags)
{
    int64_t done = transfer(s, AIO_OP_WRITEV, offset, bytes, iov, rw_flags);

    if (done < 0) {
        return done;
    }
    return done == bytes ? 0 : -ENOSPC;
}

int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 IOVector *iov, int flags)
{
    FileState *s = bdrv_state(bs);
    int ret;

    if (!(flags & BDRV_REQ_FUA) || s->no_flush) {
        return write_all(s, offset, bytes, iov, 0);
    }
    ret = write_all(s, offset, bytes, iov, RWF_DSYNC);
    /*
     * If the write alone works, it was the implied flush that failed. It may
     * have taken away the kernel's note of other lost pages.
     */
    if (ret < 0 && write_all(s, offset, bytes, iov, 0) == 0) {
        set_flush_error(s, ret);
    }
    return ret;
}

int coroutine_fn file_co_flush(BlockDriverState *bs)
{
    FileState *s = bdrv_state(bs);
    AioRequest req = {.op = AIO_OP_FDATASYNC, .fd = s->fd};
    int ret;

    if (s->no_flush) {
        return 0;
    }
    ret = __atomic_load_n(&s->flush_error, __ATOMIC_RELAXED);
    if (ret < 0) {
        return ret;
    }
    ret = file_co_submit(&req);
    if (ret < 0) {
        set_flush_error(s, ret);
    }
    /* Another flush may have failed meanwhile and got the error for both. */
    return __atomic_load_n(&s->flush_error, __ATOMIC_RELAXED);
}
