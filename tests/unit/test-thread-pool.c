/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker threads: many requests at once, and none to be had.
 */
#include "tests/unit/aio-testing.h"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void request_over(AioRequest *req)
{
    (*(int *)req->opaque)++;
}

typedef struct Meeting {
    atomic_int present;
    int expected;
} Meeting;

/* Returns when as many threads are here at once as are expected. */
static int64_t attend(void *opaque)
{
    Meeting *meeting = opaque;

    atomic_fetch_add(&meeting->present, 1);
    while (atomic_load(&meeting->present) < meeting->expected) {
        g_thread_yield();
    }
    return 1;
}

static void requests_run_in_parallel(void **state)
{
    enum {
        COUNT = 8
    };
    g_autoptr(AioContext) ctx = test_context();
    Meeting meeting = { .expected = COUNT };
    AioRequest reqs[COUNT];
    int over = 0;

    for (int i = 0; i < COUNT; i++) {
        reqs[i] = (AioRequest){
            .op = AIO_OP_CALL,
            .call = attend,
            .call_opaque = &meeting,
            .complete = request_over,
            .opaque = &over,
        };
        aio_submit(ctx, &reqs[i]);
    }
    test_poll_until(ctx, over == COUNT);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(reqs[i].ret, 1);
    }
}

static bool forbid_new_threads(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { G_N_ELEMENTS(code), code };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int64_t forty_two(void *opaque)
{
    *(GThread **)opaque = g_thread_self();
    return 42;
}

/* Returns 0 if a request was done although no thread can be started. */
static int request_without_threads(void)
{
    AioContext *ctx = aio_context_new(test_engine, NULL);
    GThread *thread = NULL;
    int over = 0;
    AioRequest req = {
        .op = AIO_OP_CALL,
        .call = forty_two,
        .call_opaque = &thread,
        .complete = request_over,
        .opaque = &over,
    };

    if (!ctx || !forbid_new_threads()) {
        return 1;
    }
    aio_submit(ctx, &req);
    if (over != 0 || thread != g_thread_self()) {
        return 2;
    }
    while (over == 0) {
        aio_poll(ctx, true);
    }
    return req.ret == 42 ? 0 : 3;
}

static void requests_are_done_where_no_thread_can_be_started(void **state)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        /* A process of its own, since threads that exist would do it. */
        _exit(request_without_threads());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest without[] = {
        cmocka_unit_test(requests_are_done_where_no_thread_can_be_started),
    };
    const struct CMUnitTest with[] = {
        cmocka_unit_test(requests_run_in_parallel),
    };

    /* Before this process has threads: it forks. */
    return test_each_engine("thread-pool/none", without, G_N_ELEMENTS(without)) +
           test_each_engine("thread-pool", with, G_N_ELEMENTS(with));
}
