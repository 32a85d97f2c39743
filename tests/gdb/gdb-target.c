/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program for test_gdb.py to stop: two nodes, a read and a write in flight in
 * them that nobody ends, and two coroutines that have yielded below functions
 * with known names.
 */
#include <stdio.h>
#include "blockgraph/block-driver.h"
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

static void request_is_over(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

/* ---- A driver whose requests nobody ends ------------------------------------- */

static bool stuck_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, 1048576);
    return true;
}

/* With an alignment, the core claims what it writes. */
static void stuck_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->request_alignment = 512;
}

static int coroutine_fn stuck_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    coroutine_yield();
    return 0;
}

static int coroutine_fn stuck_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *iov, int flags)
{
    coroutine_yield();
    return 0;
}

static BlockDriver stuck = {
    .format_name = "stuck",
    .protocol_name = "stuck",
    .bdrv_open = stuck_open,
    .bdrv_refresh_limits = stuck_refresh_limits,
    .bdrv_co_preadv = stuck_preadv,
    .bdrv_co_pwritev = stuck_pwritev,
};

/* ------------------------------------------------------------------------------ */

int main(void)
{
    static const char image[] = "json:{\"driver\":\"raw\",\"node-name\":\"top\",\"file\":"
                                "{\"driver\":\"stuck\",\"node-name\":\"bottom\"}}";
    g_autoptr(GError) err = NULL;
    IOVector iov;
    BlockBackend *blk;
    char buf[4096];
    int ret = 0, count = 0;

    if (!blockgraph_init(&err) || !bdrv_register(&stuck, &err) ||
        !(blk = blk_new_open(image, NULL, BDRV_O_RDWR, NULL, &err))) {
        fprintf(stderr, "gdb-target: %s\n", err->message);
        return 1;
    }
    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 65536, &iov, 0, request_is_over, &ret);
    blk_aio_pwritev(blk, 131072, &iov, 0, request_is_over, &ret);
    coroutine_enter(coroutine_create(wait_outside, &count));
    coroutine_enter(coroutine_create(wait_outside, &count));
    while (aio_poll(aio_context_main(), false)) {
    }
    everything_is_waiting();
    /* The requests never end, so this program does not end in an orderly way. */
    _Exit(0);
}
