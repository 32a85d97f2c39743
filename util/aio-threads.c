/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engine without io_uring: requests on worker threads, the rest by epoll.
 *
 * 1. Completions come back through the incoming stack, like bottom halves; the
 *    eventfd in the epoll set only ends a sleep.
 * 2. f->armed is what the epoll set watches f->fd for, 0 if it does not.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "util/aio-int.h"
#include "util/fatal.h"
#include "util/thread-pool.h"

#define EVENTS_MAX 64

G_STATIC_ASSERT(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
                EPOLLHUP == POLLHUP);

typedef struct ThreadsEngine {
    int epoll_fd;
    int notify_fd;
    atomic_bool notify_written; /* set after a write, so that it is read in the end */
} ThreadsEngine;

static void threads_free(ThreadsEngine *e)
{
    if (e->notify_fd >= 0) {
        close(e->notify_fd);
    }
    if (e->epoll_fd >= 0) {
        close(e->epoll_fd);
    }
    g_free(e);
}

static bool threads_open(AioContext *ctx, GError **errp)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    ThreadsEngine *e = g_new0(ThreadsEngine, 1);
    int saved;

    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e->notify_fd = e->epoll_fd >= 0 ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    if (e->notify_fd < 0 || epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->notify_fd, &event) < 0) {
        saved = errno;
        g_set_error(errp, AIO_ERROR, saved, "event loop (engine threads): %s", strerror(saved));
        threads_free(e);
        return false;
    }
    ctx->engine = e;
    return true;
}

static void threads_close(AioContext *ctx)
{
    threads_free(ctx->engine);
}

static void threads_submit(AioContext *ctx, AioRequest *req)
{
    thread_pool_submit(req);
}

static void threads_wait(AioContext *ctx, int64_t timeout_ns)
{
    ThreadsEngine *e = ctx->engine;
    struct epoll_event events[EVENTS_MAX];
    struct pollfd pfd = { .fd = e->epoll_fd, .events = POLLIN };
    struct timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
    uint64_t value;
    int n;

    if (timeout_ns == 0) {
        if (g_hash_table_size(ctx->fds) == 0 && !atomic_load(&e->notify_written)) {
            return;
        }
    } else if (ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL) < 0 && errno != EINTR) {
        fatal("ppoll: %s", strerror(errno));
    }
    n = epoll_wait(e->epoll_fd, events, EVENTS_MAX, 0);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr) {
            aio_fd_ready(ctx, events[i].data.ptr, events[i].events);
        } else {
            atomic_store(&e->notify_written, false);
            if (read(e->notify_fd, &value, sizeof(value)) < 0 && errno != EAGAIN) {
                fatal("reading an eventfd: %s", strerror(errno));
            }
        }
    }
}

static void threads_flush(AioContext *ctx)
{
    /* Requests went to the workers at once. */
}

static int threads_get_fd(AioContext *ctx)
{
    return ((ThreadsEngine *)ctx->engine)->epoll_fd;
}

static void threads_notify(AioContext *ctx)
{
    ThreadsEngine *e = ctx->engine;
    const uint64_t one = 1;
    int saved = errno;

    /* A full counter wakes as well. */
    if (write(e->notify_fd, &one, sizeof(one)) < 0) {
        errno = saved;
    }
    atomic_store(&e->notify_written, true);
}

static void threads_fd_update(AioContext *ctx, AioFd *f)
{
    struct epoll_event event = { .events = f->wanted, .data.ptr = f };
    ThreadsEngine *e = ctx->engine;

    if (f->armed == f->wanted) {
        return;
    }
    if (epoll_ctl(e->epoll_fd, f->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, f->fd, &event) < 0) {
        fatal("file descriptor %d cannot be watched: %s", f->fd, strerror(errno));
    }
    f->armed = f->wanted;
}

static void threads_fd_remove(AioContext *ctx, AioFd *f)
{
    ThreadsEngine *e = ctx->engine;

    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, f->fd, NULL) < 0) {
        fatal("file descriptor %d was closed while it was watched", f->fd);
    }
    g_free(f);
}

const AioEngineOps aio_threads_ops = {
    .id = AIO_ENGINE_THREADS,
    .name = "threads",
    .open = threads_open,
    .close = threads_close,
    .now = aio_now_monotonic,
    .submit = threads_submit,
    .wait = threads_wait,
    .flush = threads_flush,
    .get_fd = threads_get_fd,
    .notify = threads_notify,
    .fd_update = threads_fd_update,
    .fd_remove = threads_fd_remove,
    .choose = aio_choose_fifo,
};
