/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watched file descriptors, as far as they are the same in all engines.
 *
 * 1. ctx->fds holds exactly the descriptors with a handler. Once removed from
 *    it, an AioFd is the engine's, and no handler of it runs any more.
 */
#include <poll.h>
#include "util/aio-int.h"

/* Whether @f is still watched; a handler may have stopped that, and freed it. */
static bool is_watched(AioContext *ctx, int fd, const AioFd *f)
{
    return g_hash_table_lookup(ctx->fds, GINT_TO_POINTER(fd)) == f;
}

static void fd_run(AioContext *ctx, AioItem *item)
{
    AioFd *f = (AioFd *)((char *)item - G_STRUCT_OFFSET(AioFd, item));
    const int fd = f->fd;

    f->queued = false;
    if (f->io_read && (f->revents & (POLLIN | POLLHUP | POLLERR))) {
        f->io_read(f->opaque);
    }
    /* A new watch of the same fd at the same address has seen no events yet. */
    if (is_watched(ctx, fd, f) && f->io_write && (f->revents & (POLLOUT | POLLHUP | POLLERR))) {
        f->io_write(f->opaque);
    }
    /* Queued: a handler has polled the loop. */
    if (is_watched(ctx, fd, f) && !f->queued) {
        f->revents = 0;
        ctx->ops->fd_update(ctx, f);
    }
}

static const AioItemKind fd_kind = { "fd", fd_run };

void aio_fd_ready(AioContext *ctx, AioFd *f, short revents)
{
    f->revents |= revents;
    if (!f->queued) {
        f->queued = true;
        aio_item_ready(ctx, &f->item);
    }
}

static void fd_unwatch(AioContext *ctx, AioFd *f)
{
    g_hash_table_remove(ctx->fds, GINT_TO_POINTER(f->fd));
    if (f->queued) {
        aio_item_unready(ctx, &f->item);
        f->queued = false;
    }
    f->wanted = 0;
    ctx->ops->fd_remove(ctx, f);
}

void aio_set_fd_handler(AioContext *ctx, int fd, AioCallback *io_read, AioCallback *io_write,
                        void *opaque)
{
    AioFd *f = g_hash_table_lookup(ctx->fds, GINT_TO_POINTER(fd));

    aio_assert_home(ctx, __func__);
    if (!io_read && !io_write) {
        if (f) {
            fd_unwatch(ctx, f);
        }
        return;
    }
    if (!f) {
        f = g_new0(AioFd, 1);
        f->item.kind = &fd_kind;
        f->fd = fd;
        g_hash_table_insert(ctx->fds, GINT_TO_POINTER(fd), f);
    }
    f->io_read = io_read;
    f->io_write = io_write;
    f->opaque = opaque;
    f->wanted = (io_read ? POLLIN : 0) | (io_write ? POLLOUT : 0);
    ctx->ops->fd_update(ctx, f);
}
