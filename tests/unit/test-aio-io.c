/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File I/O and watched file descriptors, on each engine.
 */
#include "tests/unit/aio-testing.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

static int temp_file(void)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("test-aio-XXXXXX", &name, NULL);

    assert_true(fd >= 0);
    unlink(name);
    return fd;
}

/* ---- Requests ------------------------------------------------------------- */

static void request_over(AioRequest *req)
{
    assert_ptr_equal(aio_context_current(), req->ctx);
    (*(int *)req->opaque)++;
}

static int64_t submit_and_poll(AioContext *ctx, AioRequest *req)
{
    int over = 0;

    req->complete = request_over;
    req->opaque = &over;
    aio_submit(ctx, req);
    assert_int_equal(over, 0);
    test_poll_until(ctx, over > 0);
    assert_int_equal(over, 1);
    return req->ret;
}

static int64_t transfer(AioContext *ctx, AioOp op, int fd, void *buf, size_t size, int64_t offset)
{
    struct iovec iov = { buf, size };
    AioRequest req = { .op = op, .fd = fd, .iov = &iov, .niov = 1, .offset = offset };

    return submit_and_poll(ctx, &req);
}

static void what_is_written_is_read_back(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    g_autofree char *heap = g_strdup("hello, world");
    char a[5], b[7], tail[64];
    struct iovec pieces[2] = { { a, sizeof(a) }, { b, sizeof(b) } };
    AioRequest req = { .op = AIO_OP_READV, .iov = pieces, .niov = 2, .offset = 1000 };
    int fd = temp_file();

    assert_int_equal(transfer(ctx, AIO_OP_WRITEV, fd, heap, 12, 1000), 12);
    req.fd = fd;
    assert_int_equal(submit_and_poll(ctx, &req), 12);
    assert_memory_equal(a, "hello", 5);
    assert_memory_equal(b, ", world", 7);

    /* Short at the end of the file, and nothing beyond it. */
    assert_int_equal(transfer(ctx, AIO_OP_READV, fd, tail, sizeof(tail), 1007), 5);
    assert_memory_equal(tail, "world", 5);
    assert_int_equal(transfer(ctx, AIO_OP_READV, fd, tail, sizeof(tail), 5000), 0);
    close(fd);
}

static void writes_take_flags(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    struct iovec iov = { (char[]){ "durable" }, 7 };
    AioRequest req = { .op = AIO_OP_WRITEV, .iov = &iov, .niov = 1, .rw_flags = RWF_DSYNC };
    int fd = temp_file();

    req.fd = fd;
    assert_int_equal(submit_and_poll(ctx, &req), 7);
    req.rw_flags = 1 << 30;
    assert_true(submit_and_poll(ctx, &req) < 0);
    close(fd);
}

static void sync_and_fallocate_work(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    AioRequest sync = { .op = AIO_OP_FDATASYNC };
    AioRequest alloc = { .op = AIO_OP_FALLOCATE, .mode = 0, .offset = 4096, .bytes = 8192 };
    struct stat st;

    sync.fd = alloc.fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(submit_and_poll(ctx, &sync), 0);
    assert_int_equal(submit_and_poll(ctx, &alloc), 0);
    assert_int_equal(fstat(alloc.fd, &st), 0);
    assert_int_equal(st.st_size, 12288);

    alloc.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    assert_int_equal(submit_and_poll(ctx, &alloc), 0);
    alloc.bytes = 0;
    assert_int_equal(submit_and_poll(ctx, &alloc), -EINVAL);
    close(alloc.fd);
}

static void failures_are_negative_errno(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    AioRequest sync = { .op = AIO_OP_FDATASYNC, .fd = -1 };
    char byte = 0;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    assert_int_equal(transfer(ctx, AIO_OP_READV, -1, &byte, 1, 0), -EBADF);
    assert_int_equal(submit_and_poll(ctx, &sync), -EBADF);
    assert_int_equal(transfer(ctx, AIO_OP_WRITEV, fd, &byte, 1, 0), -EBADF);
    close(fd);
}

static int64_t on_worker(void *opaque)
{
    assert_null(aio_context_current());
    *(GThread **)opaque = g_thread_self();
    return -ENOTTY;
}

static void calls_run_on_a_worker_thread(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    GThread *thread = NULL;
    AioRequest req = { .op = AIO_OP_CALL, .call = on_worker, .call_opaque = &thread };

    assert_int_equal(submit_and_poll(ctx, &req), -ENOTTY);
    assert_non_null(thread);
    assert_ptr_not_equal(thread, g_thread_self());
}

static void many_requests_at_once_all_complete(void **state)
{
    enum {
        COUNT = 3000
    };
    g_autoptr(AioContext) ctx = test_context();
    g_autofree AioRequest *reqs = g_new0(AioRequest, COUNT);
    g_autofree struct iovec *iov = g_new0(struct iovec, COUNT);
    g_autofree uint32_t *values = g_new0(uint32_t, COUNT);
    int fd = temp_file();

    for (int pass = 0; pass < 2; pass++) {
        int over = 0;

        for (int i = 0; i < COUNT; i++) {
            values[i] = pass == 0 ? i : UINT32_MAX;
            iov[i] = (struct iovec){ &values[i], sizeof(values[i]) };
            reqs[i] = (AioRequest){
                .op = pass == 0 ? AIO_OP_WRITEV : AIO_OP_READV,
                .fd = fd,
                .iov = &iov[i],
                .niov = 1,
                .offset = i * sizeof(values[i]),
                .complete = request_over,
                .opaque = &over,
            };
            aio_submit(ctx, &reqs[i]);
        }
        test_poll_until(ctx, over == COUNT);
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(reqs[i].ret, sizeof(values[i]));
            assert_int_equal(values[i], i);
        }
    }
    close(fd);
}

static void leak_a_request(void)
{
    AioRequest req = { .op = AIO_OP_FDATASYNC, .fd = -1, .complete = request_over };
    AioContext *ctx = test_context();

    aio_submit(ctx, &req);
    aio_context_unref(ctx);
}

/* ---- File descriptors ----------------------------------------------------- */

typedef struct Watch {
    AioContext *ctx;
    int fd;
    int reads;
    int writes;
    bool drain;
    bool stop; /* stop watching in the read handler */
} Watch;

static void on_writable(void *opaque)
{
    ((Watch *)opaque)->writes++;
}

static void on_readable(void *opaque)
{
    Watch *w = opaque;
    char buf[64];

    w->reads++;
    if (w->drain) {
        assert_true(read(w->fd, buf, sizeof(buf)) >= 0);
    }
    if (w->stop) {
        aio_set_fd_handler(w->ctx, w->fd, NULL, NULL, NULL);
        close(w->fd);
    }
}

static void socket_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void readable_is_told_as_long_as_it_is(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Watch w = { .ctx = ctx, .fd = eventfd(0, EFD_CLOEXEC) };

    aio_set_fd_handler(ctx, w.fd, on_readable, NULL, &w);
    aio_poll(ctx, false);
    assert_int_equal(w.reads, 0);
    assert_int_equal(eventfd_write(w.fd, 1), 0);
    test_poll_until(ctx, w.reads == 3);
    w.drain = true;
    test_poll_until(ctx, w.reads == 4);
    for (int i = 0; i < 5; i++) {
        assert_false(aio_poll(ctx, false));
    }
    assert_int_equal(w.reads, 4);
    aio_set_fd_handler(ctx, w.fd, NULL, NULL, NULL);
    close(w.fd);
}

static void handlers_can_be_changed(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Watch w = { .ctx = ctx, .drain = true };
    int fds[2];

    socket_pair(fds);
    w.fd = fds[0];
    aio_set_fd_handler(ctx, w.fd, on_readable, NULL, &w);
    aio_poll(ctx, false);
    /* More events than it is armed for. */
    aio_set_fd_handler(ctx, w.fd, on_readable, on_writable, &w);
    test_poll_until(ctx, w.writes == 2);
    assert_int_equal(w.reads, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    test_poll_until(ctx, w.reads == 1);
    /* Fewer events. */
    aio_set_fd_handler(ctx, w.fd, on_readable, NULL, &w);
    w.writes = 0;
    assert_int_equal(write(fds[1], "x", 1), 1);
    test_poll_until(ctx, w.reads == 2);
    assert_int_equal(w.writes, 0);
    aio_set_fd_handler(ctx, w.fd, NULL, NULL, NULL);
    close(fds[0]);
    close(fds[1]);
}

static void hanging_up_reaches_the_write_handler(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Watch w = { .ctx = ctx };
    char fill[65536] = { 0 };
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    while (write(fds[1], fill, sizeof(fill)) > 0) {
    }
    w.fd = fds[1];
    aio_set_fd_handler(ctx, fds[1], NULL, on_writable, &w);
    aio_poll(ctx, false);
    assert_int_equal(w.writes, 0);
    close(fds[0]);
    test_poll_until(ctx, w.writes > 0);
    aio_set_fd_handler(ctx, fds[1], NULL, NULL, NULL);
    close(fds[1]);
}

static void a_handler_can_stop_its_own_watch(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Watch w = { .ctx = ctx, .stop = true };
    int fds[2];

    socket_pair(fds);
    w.fd = fds[0];
    assert_int_equal(write(fds[1], "x", 1), 1);
    aio_set_fd_handler(ctx, w.fd, on_readable, on_writable, &w);
    test_poll_until(ctx, w.reads + w.writes > 0 && w.reads > 0);
    aio_poll(ctx, false);
    assert_int_equal(w.reads, 1);
    close(fds[1]);
}

static void a_number_can_be_used_again_after_unwatching(void **state)
{
    g_autoptr(AioContext) ctx = test_context();
    Watch old = { .ctx = ctx }, new = { .ctx = ctx, .drain = true };
    int fds[2];

    for (int i = 0; i < 10; i++) {
        socket_pair(fds);
        old.fd = new.fd = fds[0];
        aio_set_fd_handler(ctx, fds[0], on_readable, NULL, &old);
        aio_poll(ctx, false);
        aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL);
        close(fds[0]);
        /* Nobody holds the other end: it has hung up. */
        assert_int_equal(send(fds[1], "x", 1, MSG_NOSIGNAL), -1);
        assert_int_equal(errno, EPIPE);
        close(fds[1]);

        socket_pair(fds);
        assert_int_equal(fds[0], new.fd);
        aio_set_fd_handler(ctx, fds[0], on_readable, NULL, &new);
        assert_int_equal(write(fds[1], "y", 1), 1);
        test_poll_until(ctx, new.reads == i + 1);
        aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL);
        close(fds[0]);
        close(fds[1]);
    }
    assert_int_equal(old.reads, 0);
}

static void leak_a_watch(void)
{
    AioContext *ctx = test_context();

    aio_set_fd_handler(ctx, eventfd(0, 0), on_readable, NULL, NULL);
    aio_context_unref(ctx);
}

static void watch_what_is_not_open(void)
{
    AioContext *ctx = test_context();
    int fd = eventfd(0, 0);

    close(fd);
    aio_set_fd_handler(ctx, fd, on_readable, NULL, NULL);
    aio_poll(ctx, true);
}

static const DeathCase deaths[] = {
    DIES(leak_a_request, "1 requests in flight left"),
    DIES(leak_a_watch, "1 watched file descriptors left"),
    DIES(watch_what_is_not_open, "cannot be watched"),
};

static void misuse_aborts(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(writes_take_flags),
        cmocka_unit_test(sync_and_fallocate_work),
        cmocka_unit_test(failures_are_negative_errno),
        cmocka_unit_test(calls_run_on_a_worker_thread),
        cmocka_unit_test(many_requests_at_once_all_complete),
        cmocka_unit_test(readable_is_told_as_long_as_it_is),
        cmocka_unit_test(handlers_can_be_changed),
        cmocka_unit_test(hanging_up_reaches_the_write_handler),
        cmocka_unit_test(a_handler_can_stop_its_own_watch),
        cmocka_unit_test(a_number_can_be_used_again_after_unwatching),
        cmocka_unit_test(misuse_aborts),
    };

    test_death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return test_each_engine("aio-io", tests, G_N_ELEMENTS(tests));
}
