/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoMutex: a counter for the uncontended case, and a list for the other.
 *
 * 1. users counts the holder and everybody who wants to become it. Who raises
 *    it from 0 holds the mutex; who lowers it to 0 has freed it. Either is one
 *    atomic operation.
 * 2. Who lowers it to something else owes the mutex to one of the others: to
 *    the first of the list, or, if that one has counted itself but not yet come
 *    to the list, to handoff, where the next to come takes it. So there is one
 *    holder, one wakeup under way or one handoff, and never more.
 * 3. While somebody is in the list, users is not 0, so nobody overtakes him.
 *
 * Each function that takes or gives back the lock is defined under a plain
 * name and given its public, annotated name as an alias: the annotations are
 * for callers.
 */
#include <string.h>
#include "blockgraph/aio.h"
#include "util/co-waiter.h"
#include "util/coroutine-int.h"
#include "util/fatal.h"
#include "util/trace.h"

void co_mutex_init(CoMutex *mutex)
{
    memset(mutex, 0, sizeof(*mutex));
    g_mutex_init(&mutex->list_lock);
}

void co_mutex_destroy(CoMutex *mutex)
{
    if (__atomic_load_n(&mutex->users, __ATOMIC_ACQUIRE) != 0) {
        fatal("co_mutex_destroy(): mutex %p is held", (void *)mutex);
    }
    g_mutex_clear(&mutex->list_lock);
}

static void coroutine_fn wait_for_turn(CoMutex *mutex, Coroutine *self)
{
    CoWaiter waiter = { .co = self };
    bool mine;

    g_mutex_lock(&mutex->list_lock);
    mine = mutex->handoff;
    if (mine) {
        mutex->handoff = false;
    } else {
        co_waiter_push(&mutex->waiters, &waiter);
    }
    g_mutex_unlock(&mutex->list_lock);
    if (!mine) {
        trace_co_mutex_wait(mutex, self);
        coroutine_yield();
    }
}

static void pass_on(CoMutex *mutex)
{
    Coroutine *co = NULL;
    CoWaiter *waiter;

    g_mutex_lock(&mutex->list_lock);
    waiter = co_waiter_pop(&mutex->waiters);
    if (waiter) {
        co = waiter->co;
    } else {
        mutex->handoff = true;
    }
    /* From here on @mutex belongs to another, who may even free it. */
    g_mutex_unlock(&mutex->list_lock);
    if (co) {
        trace_co_mutex_pass(mutex, co);
        aio_co_wake(co);
    }
}

static void coroutine_fn mutex_lock(CoMutex *mutex)
{
    Coroutine *self = coroutine_self();

    if (!self) {
        fatal("co_mutex_lock() outside of a coroutine");
    }
    if (__atomic_load_n(&mutex->holder, __ATOMIC_RELAXED) == self) {
        fatal("co_mutex_lock(): this coroutine holds mutex %p already", (void *)mutex);
    }
    if (__atomic_fetch_add(&mutex->users, 1, __ATOMIC_ACQUIRE) != 0) {
        wait_for_turn(mutex, self);
    }
    __atomic_store_n(&mutex->holder, self, __ATOMIC_RELAXED);
    self->mutexes_held++;
}

static void coroutine_fn mutex_unlock(CoMutex *mutex)
{
    Coroutine *self = coroutine_self();

    if (!self || __atomic_load_n(&mutex->holder, __ATOMIC_RELAXED) != self) {
        fatal("co_mutex_unlock(): mutex %p is not held by this coroutine", (void *)mutex);
    }
    self->mutexes_held--;
    __atomic_store_n(&mutex->holder, NULL, __ATOMIC_RELAXED);
    if (__atomic_fetch_sub(&mutex->users, 1, __ATOMIC_RELEASE) != 1) {
        pass_on(mutex);
    }
}

__typeof__(co_mutex_lock) co_mutex_lock __attribute__((alias("mutex_lock")));
__typeof__(co_mutex_unlock) co_mutex_unlock __attribute__((alias("mutex_unlock")));

void coroutine_fn co_mutex_assert_locked(CoMutex *mutex)
{
    Coroutine *self = coroutine_self();

    if (!self || __atomic_load_n(&mutex->holder, __ATOMIC_RELAXED) != self) {
        fatal("co_mutex_assert_locked(): mutex %p is not held by this coroutine", (void *)mutex);
    }
}
