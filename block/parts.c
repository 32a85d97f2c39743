/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parts of one request that run side by side, each in a coroutine of its own.
 * All of them belong to one thread: they start where the request runs.
 */
#include "block/io-int.h"

#define PARTS_MAX 16

static void coroutine_fn part_entry(void *opaque)
{
    Part *part = opaque;
    PartPool *pool = part->pool;
    int ret;

    bdrv_graph_co_inherit();
    ret = part->func(part);
    bdrv_graph_co_disinherit();
    g_free(part);

    if (ret < 0 && pool->ret == 0) {
        pool->ret = ret;
    }
    pool->running--;
    if (pool->waiter) {
        Coroutine *waiter = pool->waiter;

        pool->waiter = NULL;
        aio_co_wake(waiter);
    }
}

static void coroutine_fn wait_for_one(PartPool *pool)
{
    pool->waiter = coroutine_self();
    coroutine_yield();
}

void coroutine_fn part_pool_start(PartPool *pool, const Part *part)
{
    Part *copy;

    bdrv_graph_assert_readable();
    while (pool->running >= PARTS_MAX) {
        wait_for_one(pool);
    }
    copy = g_memdup2(part, sizeof(*part));
    copy->pool = pool;
    pool->running++;
    coroutine_enter(coroutine_create(part_entry, copy));
}

int coroutine_fn part_pool_finish(PartPool *pool, int ret)
{
    bdrv_graph_assert_readable();
    if (ret < 0 && pool->ret == 0) {
        pool->ret = ret;
    }
    while (pool->running > 0) {
        wait_for_one(pool);
    }
    return pool->ret;
}
