/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoQueue: a list of waiters under the caller's lock. A waiter is in the list
 * before it gives the lock back, so whoever changes its condition under that
 * lock and wakes it then cannot miss it.
 */
#include "blockgraph/aio.h"
#include "util/co-waiter.h"
#include "util/fatal.h"

void co_queue_init(CoQueue *queue)
{
    queue->waiters = (CoWaiterList){ NULL, NULL };
}

static Coroutine *self_or_die(const char *function)
{
    Coroutine *self = coroutine_self();

    if (!self) {
        fatal("%s() outside of a coroutine", function);
    }
    return self;
}

void coroutine_fn co_queue_wait(CoQueue *queue, CoMutex *mutex)
{
    CoWaiter waiter = { .co = self_or_die(__func__) };

    co_waiter_push(&queue->waiters, &waiter);
    co_mutex_unlock(mutex);
    coroutine_yield();
    co_mutex_lock(mutex);
}

void coroutine_fn co_queue_wait_gmutex(CoQueue *queue, GMutex *mutex)
{
    CoWaiter waiter = { .co = self_or_die(__func__) };

    co_waiter_push(&queue->waiters, &waiter);
    g_mutex_unlock(mutex);
    coroutine_yield();
    g_mutex_lock(mutex);
}

bool co_queue_wake_one(CoQueue *queue)
{
    CoWaiter *waiter = co_waiter_pop(&queue->waiters);
    Coroutine *co;

    if (!waiter) {
        return false;
    }
    co = waiter->co;
    if (in_coroutine()) {
        aio_co_wake(co);
    } else {
        /* Not entered now: we hold the lock that it is going to take. */
        aio_co_schedule(coroutine_get_aio_context(co), co);
    }
    return true;
}

void co_queue_wake_all(CoQueue *queue)
{
    while (co_queue_wake_one(queue)) {
    }
}

bool co_queue_empty(const CoQueue *queue)
{
    return !queue->waiters.first;
}
