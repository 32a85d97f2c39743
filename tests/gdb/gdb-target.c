/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program for test_gdb.py to stop: two nodes, a read in flight in them, and
 * two coroutines that have yielded below functions with known names.
 */
#include <stdio.h>
#include "blockgraph/blockgraph.h"

/* Where the debugger stops. */
void everything_is_waiting(void);
__attribute__((noinline)) void everything_is_waiting(void)
{
    /* Or calls to it would be optimised away. */
    __asm__ volatile("");
}

static __attribute__((noinline)) void coroutine_fn wait_inside(int *count)
{
    coroutine_yield();
    ++*count;
}

static void coroutine_fn wait_outside(void *opaque)
{
    wait_inside(opaque);
    ++*(int *)opaque;
}

static void read_is_over(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

int main(void)
{
    /* Longer than any debugging session: the read is still in flight then. */
    static const char image[] = "json:{\"driver\":\"raw\",\"node-name\":\"top\",\"file\":{"
                                "\"driver\":\"null-co\",\"node-name\":\"bottom\","
                                "\"size\":1048576,\"latency-ns\":3600000000000}}";
    g_autoptr(GError) err = NULL;
    IOVector iov;
    BlockBackend *blk;
    char buf[4096];
    int ret = 0, count = 0;

    if (!blockgraph_init(&err) || !(blk = blk_new_open(image, NULL, 0, NULL, &err))) {
        fprintf(stderr, "gdb-target: %s\n", err->message);
        return 1;
    }
    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 65536, &iov, 0, read_is_over, &ret);
    coroutine_enter(coroutine_create(wait_outside, &count));
    coroutine_enter(coroutine_create(wait_outside, &count));
    while (aio_poll(aio_context_main(), false)) {
    }
    everything_is_waiting();
    /* The read never ends, so neither does this program in an orderly way. */
    _Exit(0);
}
