/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A context run by somebody else's loop, on each engine: as a GSource in a
 * GMainLoop, and by its file descriptor with poll() and epoll.
 */
#include "tests/unit/aio-testing.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

/* All kinds of work that a loop has; each finished kind counts in done. */
typedef struct Work {
    AioContext *ctx;
    AioThread *thread;
    AioTimer *timer;
    AioRequest req;
    char buf[8];
    struct iovec iov;
    int event_fd;
    int done;
} Work;

enum {
    WORK_KINDS = 5
};

static void count_cb(void *opaque)
{
    ((Work *)opaque)->done++;
}

static void count_request(AioRequest *req)
{
    assert_int_equal(req->ret, 8);
    count_cb(req->opaque);
}

static void count_event(void *opaque)
{
    Work *work = opaque;

    aio_set_fd_handler(work->ctx, work->event_fd, NULL, NULL, NULL);
    count_cb(work);
}

static void on_thread(void *opaque)
{
    Work *work = opaque;

    eventfd_write(work->event_fd, 1);
    /* Last: it is what makes this thread's use of the fd visible to be over. */
    aio_bh_oneshot(work->ctx, count_cb, work);
}

static void work_begin(Work *work, AioContext *ctx, AioThread *thread)
{
    *work = (Work) {
        .ctx = ctx,
        .thread = thread,
        .timer = aio_timer_new(ctx, count_cb, work),
        .buf = "1234567",
        .iov = { work->buf, sizeof(work->buf) },
        .event_fd = eventfd(0, EFD_CLOEXEC),
        .req = {
            .op = AIO_OP_WRITEV, .fd = memfd_create("test", MFD_CLOEXEC), .iov = &work->iov,
            .niov = 1, .complete = count_request, .opaque = work,
        },
    };
    aio_timer_mod(work->timer, aio_now(ctx) + 1500000);
    aio_bh_oneshot(ctx, count_cb, work);
    aio_set_fd_handler(ctx, work->event_fd, count_event, NULL, work);
    aio_submit(ctx, &work->req);
    aio_bh_oneshot(aio_thread_get_context(thread), on_thread, work);
}

static void work_end(Work *work)
{
    assert_int_equal(work->done, WORK_KINDS);
    aio_timer_free(work->timer);
    close(work->event_fd);
    close(work->req.fd);
}

static void a_g_main_loop_runs_everything(void **state)
{
    GMainContext *main_context = g_main_context_new();
    AioContext *ctx = test_context();
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    GSource *source = aio_context_get_g_source(ctx);
    Work work;

    g_source_attach(source, main_context);
    for (int i = 0; i < 20; i++) {
        work_begin(&work, ctx, thread);
        while (work.done < WORK_KINDS) {
            g_main_context_iteration(main_context, true);
        }
        work_end(&work);
    }
    aio_thread_stop(thread);

    /* The source has a reference of its own. */
    aio_context_unref(ctx);
    assert_ptr_equal(aio_context_current(), ctx);
    g_source_destroy(source);
    g_source_unref(source);
    g_main_context_unref(main_context);
    assert_null(aio_context_current());
}

static gboolean poll_in_idle(gpointer opaque)
{
    Work *work = opaque;

    while (work->done < WORK_KINDS) {
        aio_poll(work->ctx, true);
    }
    return G_SOURCE_REMOVE;
}

static void a_g_main_loop_callback_may_poll(void **state)
{
    GMainContext *main_context = g_main_context_new();
    g_autoptr(AioContext) ctx = test_context();
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    GSource *source = aio_context_get_g_source(ctx);
    GSource *idle = g_idle_source_new();
    Work work;

    g_source_attach(source, main_context);
    g_source_set_callback(idle, poll_in_idle, &work, NULL);
    g_source_set_priority(idle, G_PRIORITY_HIGH);
    g_source_attach(idle, main_context);
    work_begin(&work, ctx, thread);
    while (work.done < WORK_KINDS) {
        g_main_context_iteration(main_context, true);
    }
    work_end(&work);
    /* And the source still wakes the loop. */
    work_begin(&work, ctx, thread);
    while (work.done < WORK_KINDS) {
        g_main_context_iteration(main_context, true);
    }
    work_end(&work);
    aio_thread_stop(thread);
    g_source_destroy(source);
    g_source_unref(source);
    g_source_unref(idle);
    g_main_context_unref(main_context);
}

/* Rounded up to milliseconds. */
static int poll_timeout(int64_t ns)
{
    return ns < 0 ? -1 : (ns + 999999) / 1000000;
}

static void poll_runs_everything(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    Work work;

    for (int i = 0; i < 20; i++) {
        work_begin(&work, ctx, thread);
        while (work.done < WORK_KINDS) {
            struct pollfd pfd = { .fd = aio_context_get_fd(ctx), .events = POLLIN };

            poll(&pfd, 1, poll_timeout(aio_context_prepare(ctx)));
            aio_context_dispatch(ctx);
        }
        work_end(&work);
    }
    aio_thread_stop(thread);
}

static void an_epoll_loop_dispatches_only_what_is_readable(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    AioThread *thread = aio_thread_new("io", test_engine, NULL);
    struct epoll_event event = { .events = EPOLLIN };
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    Work work;

    assert_int_equal(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, aio_context_get_fd(ctx), &event), 0);
    for (int i = 0; i < 20; i++) {
        work_begin(&work, ctx, thread);
        while (work.done < WORK_KINDS) {
            int64_t limit = aio_context_prepare(ctx);

            if (epoll_wait(epoll_fd, &event, 1, poll_timeout(limit)) > 0 || limit >= 0) {
                aio_context_dispatch(ctx);
            }
        }
        work_end(&work);
    }
    close(epoll_fd);
    aio_thread_stop(thread);
}

static bool is_readable(AioContext *ctx)
{
    struct pollfd pfd = { .fd = aio_context_get_fd(ctx), .events = POLLIN };

    return poll(&pfd, 1, 0) == 1;
}

static void the_fd_stays_readable_until_dispatch(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    bool done = false;

    while (aio_context_prepare(ctx) == 0) {
        aio_context_dispatch(ctx);
    }
    assert_int_equal(aio_context_prepare(ctx), -1);
    assert_false(is_readable(ctx));
    /* Also from the loop's own thread, after prepare. */
    aio_bh_oneshot(ctx, test_set_flag, &done);
    assert_true(is_readable(ctx));
    assert_true(is_readable(ctx));
    assert_int_equal(aio_context_prepare(ctx), 0);
    assert_true(is_readable(ctx));
    assert_false(done);
    aio_context_dispatch(ctx);
    assert_true(done);
    while (aio_context_prepare(ctx) == 0) {
        aio_context_dispatch(ctx);
    }
    assert_false(is_readable(ctx));
}

static void prepare_tells_when_the_next_timer_is_due(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    const int64_t hour = 3600000000000;
    bool done = false;
    AioTimer *timer = aio_timer_new(ctx, test_set_flag, &done);
    int64_t limit;

    aio_timer_mod(timer, aio_now(ctx) + hour);
    limit = aio_context_prepare(ctx);
    assert_true(limit > 0 && limit <= hour);
    aio_timer_mod(timer, aio_now(ctx));
    assert_int_equal(aio_context_prepare(ctx), 0);
    aio_context_dispatch(ctx);
    assert_true(done);
    aio_timer_free(timer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_g_main_loop_runs_everything),
        cmocka_unit_test(a_g_main_loop_callback_may_poll),
        cmocka_unit_test(poll_runs_everything),
        cmocka_unit_test(an_epoll_loop_dispatches_only_what_is_readable),
        cmocka_unit_test(the_fd_stays_readable_until_dispatch),
        cmocka_unit_test(prepare_tells_when_the_next_timer_is_due),
    };

    return test_each_engine("aio-glib", tests, G_N_ELEMENTS(tests));
}
