/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the kernel refuses io_uring: the threads engine takes over, unless
 * io_uring was asked for. And rings that a sandbox restricts.
 */
#include "tests/unit/aio-testing.h"
#include <errno.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void request_over(AioRequest *req)
{
    *(bool *)req->opaque = true;
}

static int64_t run_request(AioContext *ctx, AioRequest *req)
{
    bool over = false;

    req->complete = request_over;
    req->opaque = &over;
    aio_submit(ctx, req);
    test_poll_until(ctx, over);
    return req->ret;
}

/* Write a file in @ctx, and read it back. */
static void check_io(AioContext *ctx)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    char buf[5] = "hello";
    struct iovec iov = { buf, sizeof(buf) };
    AioRequest req = { .op = AIO_OP_WRITEV, .fd = fd, .iov = &iov, .niov = 1 };

    assert_int_equal(run_request(ctx, &req), 5);
    memset(buf, 0, sizeof(buf));
    req.op = AIO_OP_READV;
    assert_int_equal(run_request(ctx, &req), 5);
    assert_memory_equal(buf, "hello", 5);
    close(fd);
}

/* ---- Before io_uring is forbidden ----------------------------------------- */

static int restrict_to_reads_and_writes(int ring_fd, void *opaque)
{
    static const int ops[] = { IORING_OP_READ, IORING_OP_WRITE, IORING_OP_POLL_ADD };
    struct io_uring_restriction restrictions[G_N_ELEMENTS(ops) + 1] = {
        { .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_ENABLE_RINGS },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
        restrictions[i + 1].opcode = IORING_RESTRICTION_SQE_OP;
        restrictions[i + 1].sqe_op = ops[i];
    }
    *(bool *)opaque = true;
    return io_uring_register(ring_fd, IORING_REGISTER_RESTRICTIONS, restrictions,
                             G_N_ELEMENTS(restrictions));
}

static void a_ring_can_be_restricted_before_it_is_enabled(void **state)
{
    AioRequest sync = { .op = AIO_OP_FDATASYNC, .fd = memfd_create("test", MFD_CLOEXEC) };
    g_autoptr(GError) error = NULL;
    bool called = false;
    AioContext *ctx;

    aio_uring_set_restrict_hook(restrict_to_reads_and_writes, &called);
    ctx = aio_context_new(AIO_ENGINE_IO_URING, &error);
    aio_uring_set_restrict_hook(NULL, NULL);
    assert_non_null(ctx);
    assert_true(called);
    check_io(ctx);
    assert_int_equal(run_request(ctx, &sync), -EACCES);
    close(sync.fd);
    aio_context_unref(ctx);
}

static int refuse(int ring_fd, void *opaque)
{
    return -EOWNERDEAD;
}

static void a_hook_that_fails_fails_the_context(void **state)
{
    g_autoptr(GError) error = NULL;

    aio_uring_set_restrict_hook(refuse, NULL);
    assert_null(aio_context_new(AIO_ENGINE_IO_URING, &error));
    aio_uring_set_restrict_hook(NULL, NULL);
    assert_true(g_error_matches(error, AIO_ERROR, EOWNERDEAD));
}

static void the_default_is_io_uring(void **state)
{
    AioContext *ctx = aio_context_new(AIO_ENGINE_DEFAULT, NULL);

    assert_int_equal(aio_context_engine(ctx), AIO_ENGINE_IO_URING);
    check_io(ctx);
    aio_context_unref(ctx);
}

/* ---- And after ------------------------------------------------------------ */

static int forbid_io_uring(void **state)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { G_N_ELEMENTS(code), code };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void the_default_falls_back_to_threads(void **state)
{
    g_autoptr(GError) error = NULL;
    AioContext *ctx = aio_context_new(AIO_ENGINE_DEFAULT, &error);
    AioThread *thread = aio_thread_new("io", AIO_ENGINE_DEFAULT, &error);

    assert_null(error);
    assert_int_equal(aio_context_engine(ctx), AIO_ENGINE_THREADS);
    assert_int_equal(aio_context_engine(aio_thread_get_context(thread)), AIO_ENGINE_THREADS);
    check_io(ctx);
    aio_thread_stop(thread);
    aio_context_unref(ctx);
}

static void asking_for_io_uring_is_an_error(void **state)
{
    g_autoptr(GError) error = NULL;

    assert_null(aio_context_new(AIO_ENGINE_IO_URING, &error));
    assert_true(g_error_matches(error, AIO_ERROR, EPERM));
    assert_non_null(strstr(error->message, "io_uring"));
    g_clear_error(&error);

    assert_null(aio_thread_new("io", AIO_ENGINE_IO_URING, &error));
    assert_true(g_error_matches(error, AIO_ERROR, EPERM));
    g_clear_error(&error);

    aio_set_default_engine(AIO_ENGINE_IO_URING);
    assert_null(aio_context_new(AIO_ENGINE_DEFAULT, &error));
    assert_true(g_error_matches(error, AIO_ERROR, EPERM));
    aio_set_default_engine(AIO_ENGINE_DEFAULT);
}

int main(void)
{
    const struct CMUnitTest allowed[] = {
        cmocka_unit_test(a_ring_can_be_restricted_before_it_is_enabled),
        cmocka_unit_test(a_hook_that_fails_fails_the_context),
        cmocka_unit_test(the_default_is_io_uring),
    };
    const struct CMUnitTest refused[] = {
        cmocka_unit_test(the_default_falls_back_to_threads),
        cmocka_unit_test(asking_for_io_uring_is_an_error),
    };

    g_unsetenv("BLOCKGRAPH_AIO");
    return cmocka_run_group_tests_name("aio-fallback/allowed", allowed, NULL, NULL) +
           cmocka_run_group_tests_name("aio-fallback/refused", refused, forbid_io_uring, NULL);
}
