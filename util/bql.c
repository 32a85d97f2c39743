/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The big lock: a mutex of our own, or an emulator's by way of its hooks.
 *
 * Each function that takes or gives back the lock is defined under a plain
 * name and given its public, annotated name as an alias: the annotations are
 * for callers.
 */
#include "blockgraph/bql.h"
#include "util/bql-int.h"
#include "util/fatal.h"

BqlCapability *const bql;

static GMutex own_mutex;
static BqlHooks hooks;         /* hooks.lock is NULL: own_mutex is the lock */
static unsigned unlock_blocks; /* protected by the lock */
static __thread bool own_mutex_held;

/*
 * Not inlined, and opaque to the compiler: a coroutine may have changed
 * threads since it last computed the address of a thread-local variable.
 */
static G_GNUC_NO_INLINE void own_mutex_held_set(bool held)
{
    __asm__ volatile("" ::: "memory");
    own_mutex_held = held;
}

G_GNUC_NO_INLINE bool bql_locked(void)
{
    __asm__ volatile("" ::: "memory");
    return hooks.lock ? hooks.locked(hooks.opaque) : own_mutex_held;
}

G_GNUC_NO_INLINE bool bql_pretend_held(bool held)
{
    bool was_held = own_mutex_held;

    __asm__ volatile("" ::: "memory");
    own_mutex_held = held;
    return was_held;
}

void bql_set_hooks(const BqlHooks *new_hooks)
{
    if (!new_hooks->lock || !new_hooks->unlock || !new_hooks->locked) {
        fatal("bql_set_hooks(): lock, unlock and locked are all required");
    }
    if (hooks.lock) {
        fatal("bql_set_hooks() called twice");
    }
    if (own_mutex_held) {
        fatal("bql_set_hooks() called while the big lock is held");
    }
    hooks = *new_hooks;
}

static void lock_body(void)
{
    if (bql_locked()) {
        fatal("bql_lock(): this thread holds the big lock already");
    }
    if (hooks.lock) {
        hooks.lock(hooks.opaque);
    } else {
        g_mutex_lock(&own_mutex);
        own_mutex_held_set(true);
    }
}

static void unlock_body(void)
{
    if (!bql_locked()) {
        fatal("bql_unlock(): this thread does not hold the big lock");
    }
    if (unlock_blocks > 0) {
        fatal("bql_unlock(): %u borrows that the big lock protects are alive", unlock_blocks);
    }
    if (hooks.lock) {
        hooks.unlock(hooks.opaque);
    } else {
        own_mutex_held_set(false);
        g_mutex_unlock(&own_mutex);
    }
}

__typeof__(bql_lock) bql_lock __attribute__((alias("lock_body")));
__typeof__(bql_unlock) bql_unlock __attribute__((alias("unlock_body")));
__typeof__(bql_keep) bql_keep __attribute__((alias("lock_body")));
__typeof__(bql_give_up) bql_give_up __attribute__((alias("unlock_body")));

void bql_block_unlock(bool increase)
{
    if (!bql_locked()) {
        fatal("bql_block_unlock(): this thread does not hold the big lock");
    }
    if (increase) {
        unlock_blocks++;
    } else if (unlock_blocks-- == 0) {
        fatal("bql_block_unlock(false) without a bql_block_unlock(true) before");
    }
}
