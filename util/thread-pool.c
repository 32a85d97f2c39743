/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker threads. Requests wait in a queue of ours; GLib's pool only
 * provides the threads and is told how many requests there are.
 *
 * 1. There are at least as many tokens in GLib's pool as requests in the queue,
 *    as long as one thread runs. A token that finds the queue empty does nothing.
 * 2. Threads are started when needed and go when idle: none exists before the
 *    first request, so that a program can confine itself first.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>
#include "util/aio-int.h"
#include "util/thread-pool.h"

/* Enough to keep a queue of a usual device full where there is no io_uring. */
#define MAX_THREADS 64

static pthread_mutex_t queue_mutex = PTHREAD_MUTEX_INITIALIZER;
static AioItem *queue_first;
static AioItem *queue_last;
static GThreadPool *pool;
static pthread_once_t pool_once = PTHREAD_ONCE_INIT;

int64_t aio_request_execute(const AioRequest *req)
{
    ssize_t ret = 0;

    do {
        switch (req->op) {
        case AIO_OP_READV:
            ret = preadv2(req->fd, req->iov, req->niov, req->offset, req->rw_flags);
            break;
        case AIO_OP_WRITEV:
            ret = pwritev2(req->fd, req->iov, req->niov, req->offset, req->rw_flags);
            break;
        case AIO_OP_FDATASYNC:
            ret = fdatasync(req->fd);
            break;
        case AIO_OP_FALLOCATE:
            ret = fallocate(req->fd, req->mode, req->offset, req->bytes);
            break;
        case AIO_OP_CALL:
            return req->call(req->call_opaque);
        case AIO_OP_NOP:
            return req->ret;
        }
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

/* Execute the oldest request, if there is one. */
static void run_next(void)
{
    AioRequest *req;
    AioItem *item;

    pthread_mutex_lock(&queue_mutex);
    item = queue_first;
    if (item) {
        queue_first = item->next;
        if (!queue_first) {
            queue_last = NULL;
        }
    }
    pthread_mutex_unlock(&queue_mutex);

    if (item) {
        req = (AioRequest *)((char *)item - G_STRUCT_OFFSET(AioRequest, item));
        req->ret = aio_request_execute(req);
        aio_item_push(req->ctx, item);
    }
}

static void worker(gpointer token, gpointer opaque)
{
    run_next();
}

static void pool_init(void)
{
    /* Not exclusive: threads are only started by g_thread_pool_push(). */
    pool = g_thread_pool_new(worker, NULL, MAX_THREADS, FALSE, NULL);
}

void thread_pool_submit(AioRequest *req)
{
    AioItem *item = &req->item;

    pthread_once(&pool_once, pool_init);

    item->next = NULL;
    pthread_mutex_lock(&queue_mutex);
    if (queue_last) {
        queue_last->next = item;
    } else {
        queue_first = item;
    }
    queue_last = item;
    pthread_mutex_unlock(&queue_mutex);

    /* On failure the token stays queued for the threads there are. */
    if (!g_thread_pool_push(pool, GINT_TO_POINTER(1), NULL) &&
        g_thread_pool_get_num_threads(pool) == 0) {
        run_next();
    }
}
