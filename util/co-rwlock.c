/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoRwlock: how many hold it, and one list of all who wait.
 *
 * 1. Nobody enters past the list: who finds somebody waiting waits behind him,
 *    so neither readers nor writers starve.
 * 2. Whoever changes owners grants the lock to the head of the list for as long
 *    as it fits: a writer alone, readers together. owners counts a granted
 *    waiter already before it runs.
 *
 * Each function that takes or gives back the lock is defined under a plain
 * name and given its public, annotated name as an alias: the annotations are
 * for callers.
 */
#include <string.h>
#include "blockgraph/aio.h"
#include "util/co-waiter.h"
#include "util/fatal.h"

void co_rwlock_init(CoRwlock *lock)
{
    memset(lock, 0, sizeof(*lock));
    g_mutex_init(&lock->state_lock);
}

static Coroutine *self_or_die(const char *function)
{
    Coroutine *self = coroutine_self();

    if (!self) {
        fatal("%s() outside of a coroutine", function);
    }
    return self;
}

/* Under state_lock: take it for @exclusive if it is free for that. */
static bool try_take(CoRwlock *lock, bool exclusive)
{
    if (exclusive ? lock->owners != 0 : lock->owners < 0) {
        return false;
    }
    lock->owners += exclusive ? -1 : 1;
    return true;
}

/* Under state_lock: take it for those who wait; they are to be woken. */
static CoWaiterList grant(CoRwlock *lock)
{
    CoWaiterList granted = { NULL, NULL };

    while (lock->waiters.first && try_take(lock, lock->waiters.first->exclusive)) {
        co_waiter_push(&granted, co_waiter_pop(&lock->waiters));
    }
    return granted;
}

static void wake_granted(CoWaiterList *granted)
{
    CoWaiter *waiter;

    while ((waiter = co_waiter_pop(granted))) {
        aio_co_wake(waiter->co);
    }
}

static void coroutine_fn take(CoRwlock *lock, bool exclusive, const char *function)
{
    CoWaiter waiter = { .co = self_or_die(function), .exclusive = exclusive };
    bool taken;

    g_mutex_lock(&lock->state_lock);
    taken = !lock->waiters.first && try_take(lock, exclusive);
    if (!taken) {
        co_waiter_push(&lock->waiters, &waiter);
    }
    g_mutex_unlock(&lock->state_lock);
    if (!taken) {
        coroutine_yield();
    }
}

static void coroutine_fn rwlock_rdlock(CoRwlock *lock)
{
    take(lock, false, "co_rwlock_rdlock");
}

static void coroutine_fn rwlock_wrlock(CoRwlock *lock)
{
    take(lock, true, "co_rwlock_wrlock");
}

void coroutine_fn co_rwlock_upgrade(CoRwlock *lock)
{
    CoWaiter waiter = { .co = self_or_die(__func__), .exclusive = true };
    CoWaiterList granted = { NULL, NULL };
    bool taken;

    g_mutex_lock(&lock->state_lock);
    if (lock->owners <= 0) {
        fatal("co_rwlock_upgrade(): lock %p is not held shared", (void *)lock);
    }
    lock->owners--;
    taken = !lock->waiters.first && try_take(lock, true);
    if (!taken) {
        co_waiter_push(&lock->waiters, &waiter);
        granted = grant(lock);
    }
    g_mutex_unlock(&lock->state_lock);
    wake_granted(&granted);
    if (!taken) {
        coroutine_yield();
    }
}

void coroutine_fn co_rwlock_downgrade(CoRwlock *lock)
{
    CoWaiterList granted;

    self_or_die(__func__);
    g_mutex_lock(&lock->state_lock);
    if (lock->owners != -1) {
        fatal("co_rwlock_downgrade(): lock %p is not held exclusively", (void *)lock);
    }
    lock->owners = 1;
    granted = grant(lock);
    g_mutex_unlock(&lock->state_lock);
    wake_granted(&granted);
}

static void coroutine_fn rwlock_unlock(CoRwlock *lock)
{
    CoWaiterList granted;

    self_or_die("co_rwlock_unlock");
    g_mutex_lock(&lock->state_lock);
    if (lock->owners == 0) {
        fatal("co_rwlock_unlock(): lock %p is not held", (void *)lock);
    }
    lock->owners -= lock->owners > 0 ? 1 : -1;
    granted = grant(lock);
    g_mutex_unlock(&lock->state_lock);
    wake_granted(&granted);
}

__typeof__(co_rwlock_rdlock) co_rwlock_rdlock __attribute__((alias("rwlock_rdlock")));
__typeof__(co_rwlock_wrlock) co_rwlock_wrlock __attribute__((alias("rwlock_wrlock")));
__typeof__(co_rwlock_unlock) co_rwlock_unlock __attribute__((alias("rwlock_unlock")));
