/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The io_uring engine.
 *
 * 1. Requests wait in the pending list until the loop's next turn and become
 *    SQEs then, so that a turn costs one system call for submitting, sleeping
 *    and completing together.
 * 2. user_data is a pointer with a Tag in its low bits. For each AioFd there is
 *    at most one poll request in the kernel (armed != 0), one-shot; it is armed
 *    anew after the handlers have run, which makes it level-triggered. A
 *    removed AioFd whose poll request has not come back is in the removed list.
 * 3. The eventfd that ends a sleep is polled by the ring as well, armed only
 *    before a sleep. Once somebody sleeps on it outside of io_uring_enter()
 *    (pollable), the ring signals it for completions, too: the ring's own fd
 *    does not wake its pollers while DEFER_TASKRUN holds back completions.
 * 4. The ring is created disabled, so that a sandbox can restrict it first.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "util/aio-int.h"
#include "util/fatal.h"
#include "util/thread-pool.h"
#include "util/valgrind.h"

#define SQ_ENTRIES 128
#define CQ_ENTRIES 1024
#define REAP_BATCH 64
#define TAG_MASK 3

typedef enum Tag {
    TAG_REQUEST,
    TAG_FD,
    TAG_NOTIFY,
    TAG_IGNORE,
} Tag;

typedef struct UringEngine {
    struct io_uring ring;
    int notify_fd;
    bool notify_armed;
    bool pollable;
    bool has_fallocate;
    AioItem *pending_first;
    AioItem *pending_last;
    AioFd *arm_first;
    GPtrArray *removed;
} UringEngine;

static int (*restrict_hook)(int ring_fd, void *opaque);
static void *restrict_hook_opaque;

void aio_uring_set_restrict_hook(int (*hook)(int ring_fd, void *opaque), void *opaque)
{
    restrict_hook = hook;
    restrict_hook_opaque = opaque;
}

/* ---- Setting up ----------------------------------------------------------- */

static int ring_create(struct io_uring *ring)
{
    /* From the best to what Linux 5.11 has. */
    static const unsigned flag_sets[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
            IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        0,
    };
    int ret = -EINVAL;

    for (unsigned i = 0; i < G_N_ELEMENTS(flag_sets) && ret == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags = flag_sets[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
            .cq_entries = CQ_ENTRIES,
        };

        ret = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
    }
    return ret;
}

/* Learn what the kernel can do; false if it lacks what we cannot do without. */
static bool ring_probe(UringEngine *e)
{
    const unsigned needed_features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    static const int needed_ops[] = { IORING_OP_READV,      IORING_OP_WRITEV, IORING_OP_READ,
                                      IORING_OP_WRITE,      IORING_OP_FSYNC,  IORING_OP_POLL_ADD,
                                      IORING_OP_POLL_REMOVE };
    struct io_uring_probe *probe;
    bool ok = (e->ring.features & needed_features) == needed_features;

    probe = ok ? io_uring_get_probe_ring(&e->ring) : NULL;
    if (!probe) {
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(needed_ops); i++) {
        ok = ok && io_uring_opcode_supported(probe, needed_ops[i]);
    }
    e->has_fallocate = io_uring_opcode_supported(probe, IORING_OP_FALLOCATE);
    io_uring_free_probe(probe);
    return ok;
}

/* Register the eventfd, but have it left alone until uring_make_pollable(). */
static int register_eventfd(UringEngine *e)
{
    int ret;

    e->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e->notify_fd < 0) {
        return -errno;
    }
    ret = io_uring_register(e->ring.ring_fd, IORING_REGISTER_EVENTFD, &e->notify_fd, 1);
    return ret < 0 ? ret : io_uring_cq_eventfd_toggle(&e->ring, false);
}

static int uring_setup(UringEngine *e)
{
    int ret = ring_create(&e->ring);

    if (ret < 0) {
        return ret;
    }
    ret = ring_probe(e) ? register_eventfd(e) : -ENOSYS;
    if (ret >= 0 && restrict_hook) {
        ret = restrict_hook(e->ring.ring_fd, restrict_hook_opaque);
    }
    if (ret >= 0) {
        /* liburing 2.3 declares io_uring_enable_rings() but does not export it. */
        ret = io_uring_register(e->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    }
    if (ret < 0) {
        io_uring_queue_exit(&e->ring);
        if (e->notify_fd >= 0) {
            close(e->notify_fd);
        }
    }
    return ret;
}

static bool uring_open(AioContext *ctx, GError **errp)
{
    UringEngine *e = g_new0(UringEngine, 1);
    int ret;

    e->notify_fd = -1;
    ret = uring_setup(e);
    if (ret < 0) {
        g_set_error(errp, AIO_ERROR, -ret, "event loop (engine io_uring): %s", strerror(-ret));
        g_free(e);
        return false;
    }
    e->removed = g_ptr_array_new_with_free_func(g_free);
    ctx->engine = e;
    return true;
}

static void uring_close(AioContext *ctx)
{
    UringEngine *e = ctx->engine;

    io_uring_queue_exit(&e->ring);
    close(e->notify_fd);
    g_ptr_array_unref(e->removed);
    g_free(e);
}

/* ---- Submitting ----------------------------------------------------------- */

static void reap(AioContext *ctx);

/* What a call that enters the ring returned: done, or to be tried again? */
static bool entered(AioContext *ctx, int ret)
{
    if (ret == -EBUSY || ret == -EAGAIN) {
        /* No room for completions, or no memory: make some. */
        reap(ctx);
        return false;
    }
    if (ret < 0 && ret != -EINTR && ret != -ETIME) {
        fatal("io_uring_enter: %s", strerror(-ret));
    }
    return ret >= 0;
}

static struct io_uring_sqe *get_sqe(AioContext *ctx, void *pointer, Tag tag)
{
    UringEngine *e = ctx->engine;
    struct io_uring_sqe *sqe;

    while (!(sqe = io_uring_get_sqe(&e->ring))) {
        entered(ctx, io_uring_submit(&e->ring));
    }
    memset(sqe, 0, sizeof(*sqe));
    sqe->user_data = (uintptr_t)pointer | tag;
    return sqe;
}

/* From this many bytes on a request goes to a kernel thread at once. */
#define ASYNC_MIN_BYTES (128 << 10)

/*
 * Copying to or from the page cache happens where the request is submitted: a
 * large one would hold up all that is behind it, on the only thread that the
 * loop has. Small ones are over before a kernel thread would have started.
 */
static bool wants_kernel_thread(const AioRequest *req)
{
    size_t bytes = 0;

    for (int i = 0; i < req->niov && bytes < ASYNC_MIN_BYTES; i++) {
        bytes += req->iov[i].iov_len;
    }
    return bytes >= ASYNC_MIN_BYTES;
}

static void prepare_rw(struct io_uring_sqe *sqe, const AioRequest *req)
{
    bool write = req->op == AIO_OP_WRITEV;

    if (wants_kernel_thread(req)) {
        sqe->flags |= IOSQE_ASYNC;
    }

    sqe->fd = req->fd;
    sqe->off = req->offset;
    sqe->rw_flags = req->rw_flags;
    if (req->niov == 1 && req->iov[0].iov_len <= INT_MAX) {
        sqe->opcode = write ? IORING_OP_WRITE : IORING_OP_READ;
        sqe->addr = (uintptr_t)req->iov[0].iov_base;
        sqe->len = req->iov[0].iov_len;
    } else {
        sqe->opcode = write ? IORING_OP_WRITEV : IORING_OP_READV;
        sqe->addr = (uintptr_t)req->iov;
        sqe->len = req->niov;
    }
}

static void prepare_request(struct io_uring_sqe *sqe, const AioRequest *req)
{
    switch (req->op) {
    case AIO_OP_READV:
    case AIO_OP_WRITEV:
        prepare_rw(sqe, req);
        break;
    case AIO_OP_FDATASYNC:
        sqe->opcode = IORING_OP_FSYNC;
        sqe->fd = req->fd;
        sqe->fsync_flags = IORING_FSYNC_DATASYNC;
        break;
    case AIO_OP_FALLOCATE:
        sqe->opcode = IORING_OP_FALLOCATE;
        sqe->fd = req->fd;
        sqe->off = req->offset;
        sqe->addr = req->bytes;
        sqe->len = req->mode;
        break;
    case AIO_OP_CALL:
    case AIO_OP_NOP:
        g_assert_not_reached();
    }
}

static void prepare_poll_remove(struct io_uring_sqe *sqe, AioFd *f)
{
    sqe->opcode = IORING_OP_POLL_REMOVE;
    sqe->fd = -1;
    sqe->addr = (uintptr_t)f | TAG_FD;
}

static void pending_append(UringEngine *e, AioRequest *req)
{
    req->item.next = NULL;
    if (e->pending_last) {
        e->pending_last->next = &req->item;
    } else {
        e->pending_first = &req->item;
    }
    e->pending_last = &req->item;
}

static void uring_submit(AioContext *ctx, AioRequest *req)
{
    UringEngine *e = ctx->engine;

    if (req->op == AIO_OP_CALL || (req->op == AIO_OP_FALLOCATE && !e->has_fallocate)) {
        thread_pool_submit(req);
    } else {
        pending_append(e, req);
    }
}

/* Have the kernel watch @f for all that it is wanted for. */
static void fd_arm(AioContext *ctx, AioFd *f)
{
    if (f->armed == 0) {
        f->armed = f->wanted;
        io_uring_prep_poll_add(get_sqe(ctx, f, TAG_FD), f->fd, f->armed);
    } else if (f->wanted & ~f->armed) {
        /* It comes back, cancelled or not, and is armed with the new events then. */
        prepare_poll_remove(get_sqe(ctx, NULL, TAG_IGNORE), f);
    }
}

/* Make SQEs of all that waits. */
static void fill_sqes(AioContext *ctx)
{
    UringEngine *e = ctx->engine;

    while (e->pending_first) {
        AioItem *item = e->pending_first;
        AioRequest *req = (AioRequest *)((char *)item - G_STRUCT_OFFSET(AioRequest, item));

        e->pending_first = item->next;
        if (!e->pending_first) {
            e->pending_last = NULL;
        }
        prepare_request(get_sqe(ctx, req, TAG_REQUEST), req);
    }
    while (e->arm_first) {
        AioFd *f = e->arm_first;

        e->arm_first = f->arm_next;
        f->on_arm_list = false;
        fd_arm(ctx, f);
    }
}

/* The same, and have the eventfd end the sleep that follows. */
static void fill_sqes_to_sleep(AioContext *ctx)
{
    UringEngine *e = ctx->engine;

    fill_sqes(ctx);
    if (!e->notify_armed) {
        e->notify_armed = true;
        io_uring_prep_poll_add(get_sqe(ctx, NULL, TAG_NOTIFY), e->notify_fd, POLLIN);
    }
}

/* ---- Completing ----------------------------------------------------------- */

static void mark_defined(const AioRequest *req, int64_t bytes)
{
    for (int i = 0; i < req->niov && bytes > 0; i++) {
        size_t n = MIN((uint64_t)bytes, req->iov[i].iov_len);

        VALGRIND_MAKE_MEM_DEFINED(req->iov[i].iov_base, n);
        bytes -= n;
    }
}

static void request_completed(AioContext *ctx, AioRequest *req, int res)
{
    if (res == -EINTR) {
        pending_append(ctx->engine, req);
        return;
    }
    if (res == -EAGAIN) {
        /* The kernel could not go on without blocking: a thread can. */
        thread_pool_submit(req);
        return;
    }
    if (req->op == AIO_OP_READV && RUNNING_ON_VALGRIND) {
        mark_defined(req, res);
    }
    req->ret = res;
    aio_request_done(ctx, req);
}

static void uring_fd_update(AioContext *ctx, AioFd *f)
{
    UringEngine *e = ctx->engine;

    if (!f->on_arm_list && !f->queued) {
        f->on_arm_list = true;
        f->arm_next = e->arm_first;
        e->arm_first = f;
    }
}

static void fd_completed(AioContext *ctx, AioFd *f, int res)
{
    UringEngine *e = ctx->engine;

    f->armed = 0;
    if (f->wanted == 0) {
        g_ptr_array_remove_fast(e->removed, f);
    } else if (res >= 0) {
        aio_fd_ready(ctx, f, res);
    } else if (res == -ECANCELED) {
        uring_fd_update(ctx, f);
    } else {
        fatal("file descriptor %d cannot be watched: %s", f->fd, strerror(-res));
    }
}

static void notify_drain(UringEngine *e)
{
    uint64_t value;

    if (read(e->notify_fd, &value, sizeof(value)) < 0 && errno != EAGAIN) {
        fatal("reading an eventfd: %s", strerror(errno));
    }
}

static void reap(AioContext *ctx)
{
    struct io_uring_cqe *cqes[REAP_BATCH];
    UringEngine *e = ctx->engine;
    unsigned n;

    while ((n = io_uring_peek_batch_cqe(&e->ring, cqes, REAP_BATCH)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            void *pointer = (void *)(uintptr_t)(cqes[i]->user_data & ~(uint64_t)TAG_MASK);
            int res = cqes[i]->res;

            switch ((Tag)(cqes[i]->user_data & TAG_MASK)) {
            case TAG_REQUEST:
                request_completed(ctx, pointer, res);
                break;
            case TAG_FD:
                fd_completed(ctx, pointer, res);
                break;
            case TAG_NOTIFY:
                e->notify_armed = false;
                notify_drain(e);
                break;
            case TAG_IGNORE:
                break;
            }
        }
        io_uring_cq_advance(&e->ring, n);
    }
}

/* ---- The loop ------------------------------------------------------------- */

/* Whether reap() would find something. */
static bool has_completions(UringEngine *e)
{
    return io_uring_cq_ready(&e->ring) > 0 ||
           (IO_URING_READ_ONCE(*e->ring.sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN));
}

static void uring_make_pollable(UringEngine *e)
{
    if (!e->pollable) {
        e->pollable = true;
        io_uring_cq_eventfd_toggle(&e->ring, true);
        io_uring_get_events(&e->ring);
    }
}

/* Hand over what waits, and have the eventfd signalled for what has completed before. */
static void uring_flush(AioContext *ctx)
{
    UringEngine *e = ctx->engine;

    uring_make_pollable(e);
    fill_sqes(ctx);
    while (io_uring_sq_ready(&e->ring) > 0) {
        entered(ctx, io_uring_submit(&e->ring));
    }
    if (has_completions(e)) {
        eventfd_write(e->notify_fd, 1);
    }
}

static int uring_get_fd(AioContext *ctx)
{
    UringEngine *e = ctx->engine;

    uring_make_pollable(e);
    return e->notify_fd;
}

/* Valgrind 3.19 lets no other thread run during io_uring_enter(): sleep elsewhere. */
static void sleep_under_valgrind(AioContext *ctx, int64_t timeout_ns)
{
    struct timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
    struct pollfd pfd = { .fd = uring_get_fd(ctx), .events = POLLIN };

    uring_flush(ctx);
    ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL);
}

static void uring_wait(AioContext *ctx, int64_t timeout_ns)
{
    struct __kernel_timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
    UringEngine *e = ctx->engine;
    struct io_uring_cqe *cqe;

    if (timeout_ns == 0) {
        fill_sqes(ctx);
        if (io_uring_sq_ready(&e->ring) > 0) {
            entered(ctx, io_uring_submit_and_get_events(&e->ring));
        }
    } else if (RUNNING_ON_VALGRIND) {
        sleep_under_valgrind(ctx, timeout_ns);
    } else {
        fill_sqes_to_sleep(ctx);
        entered(ctx, io_uring_submit_and_wait_timeout(&e->ring, &cqe, 1,
                                                      timeout_ns < 0 ? NULL : &ts, NULL));
    }
    reap(ctx);
    if (e->pollable) {
        /* Reaping signals it as well; what came in between has to be looked for again. */
        notify_drain(e);
        reap(ctx);
    }
}

static void uring_notify(AioContext *ctx)
{
    const uint64_t one = 1;
    int saved = errno;

    /* A full counter wakes as well. */
    if (write(((UringEngine *)ctx->engine)->notify_fd, &one, sizeof(one)) < 0) {
        errno = saved;
    }
}

/* The kernel gives up its reference to the file before this returns. */
static void uring_fd_remove(AioContext *ctx, AioFd *f)
{
    UringEngine *e = ctx->engine;
    AioFd **link;

    if (f->on_arm_list) {
        for (link = &e->arm_first; *link != f; link = &(*link)->arm_next) {
        }
        *link = f->arm_next;
    }
    if (f->armed == 0) {
        g_free(f);
        return;
    }
    g_ptr_array_add(e->removed, f);
    prepare_poll_remove(get_sqe(ctx, NULL, TAG_IGNORE), f);
    while (!entered(ctx, io_uring_submit_and_get_events(&e->ring))) {
    }
}

const AioEngineOps aio_uring_ops = {
    .id = AIO_ENGINE_IO_URING,
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .now = aio_now_monotonic,
    .submit = uring_submit,
    .wait = uring_wait,
    .flush = uring_flush,
    .get_fd = uring_get_fd,
    .notify = uring_notify,
    .fd_update = uring_fd_update,
    .fd_remove = uring_fd_remove,
    .choose = aio_choose_fifo,
};
