/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Throttle groups: whose turn it is, and waiting for it. What a request may use is
 * worked out in throttle.c.
 *
 * Reads and writes queue apart, at each member. Of all waiting reads of a group one has
 * the turn, and of all writes: it alone looks at the clock, with a timer in its own
 * AioContext. When it goes, it gives the turn to the first one of the next member
 * that has somebody waiting.
 *
 * Invariants, under the group's mutex:
 *  1. turn[w] is a waiter in a queue of kind w, or NULL if all of those are empty.
 *  2. A waiter is in its queue from before it gives the mutex back until it goes.
 *  3. Whoever makes a waiter that is parked go on sets parked to false, so a timer
 *     that fires and somebody who wakes it never both enter the coroutine.
 *  4. The queues of a member in a drained section become empty: nobody joins them.
 */
#include <errno.h>

#include "block/block-int.h"
#include "block/throttle.h"

typedef struct ThrottleGroup ThrottleGroup;

/* A waiting request; lives on its coroutine's stack. */
typedef struct ThrottleWaiter {
    ThrottleGroup *group;
    Coroutine *co;
    AioContext *ctx;
    bool parked;
} ThrottleWaiter;

struct ThrottleGroupMember {
    ThrottleGroup *group;
    unsigned drained;
    GQueue waiting[2]; /* of ThrottleWaiter: reads, writes */
};

struct ThrottleGroup {
    char *id;
    GMutex mutex; /* protects all below, and the members */
    ThrottleState state;
    GPtrArray *members; /* changes on the main thread only */
    ThrottleWaiter *turn[2];
    guint served[2]; /* index of the member whose turn it was last */
    int limited;     /* atomic: whether there is any limit */
};

/* By id. Main thread only. */
static GHashTable *groups;

/* ---- Turns: the mutex is held --------------------------------------------------------- */

/* Give the turn to the next member that has somebody waiting. */
static ThrottleWaiter *pass_turn(ThrottleGroup *group, bool is_write)
{
    guint count = group->members->len;

    group->turn[is_write] = NULL;
    for (guint i = 1; i <= count && !group->turn[is_write]; i++) {
        guint index = (group->served[is_write] + i) % count;
        ThrottleGroupMember *member = group->members->pdata[index];

        group->turn[is_write] = g_queue_peek_head(&member->waiting[is_write]);
        if (group->turn[is_write]) {
            group->served[is_write] = index;
        }
    }
    return group->turn[is_write];
}

static void wake(ThrottleWaiter *waiter)
{
    if (!waiter || !waiter->parked) {
        return; /* it is about to look by itself */
    }
    waiter->parked = false;
    if (in_coroutine()) {
        aio_co_wake(waiter->co);
    } else {
        /* Not entered now: we hold the mutex that it is going to take. */
        aio_co_schedule(waiter->ctx, waiter->co);
    }
}

static void wake_turns(ThrottleGroup *group)
{
    wake(group->turn[false]);
    wake(group->turn[true]);
}

/* ---- Waiting ---------------------------------------------------------------------------- */

static void timer_fired(void *opaque)
{
    ThrottleWaiter *waiter = opaque;
    bool enter;

    g_mutex_lock(&waiter->group->mutex);
    enter = waiter->parked;
    waiter->parked = false;
    g_mutex_unlock(&waiter->group->mutex);
    if (enter) {
        aio_co_wake(waiter->co);
    }
}

/* Give the mutex back until somebody wakes us, or the clock comes to @deadline (-1: never). */
static void coroutine_fn park(ThrottleWaiter *self, int64_t deadline)
{
    AioTimer *timer = NULL;

    if (deadline >= 0) {
        timer = aio_timer_new(self->ctx, timer_fired, self);
        aio_timer_mod(timer, deadline);
    }
    self->parked = true;
    g_mutex_unlock(&self->group->mutex);
    coroutine_yield();
    aio_timer_free(timer);
    g_mutex_lock(&self->group->mutex);
}

/* When the next request of this kind may go; -1: now. */
static int64_t next_time(ThrottleGroup *group, bool is_write)
{
    int64_t wait = throttle_state_wait(&group->state, aio_now(aio_context_current()), is_write);
    int64_t time;

    if (wait == 0) {
        return -1;
    }
    return __builtin_add_overflow(group->state.now_ns, wait, &time) ? INT64_MAX : time;
}

/* Wait for the turn, and then for the limits; the mutex is held before and after. */
static void coroutine_fn wait_for_turn(ThrottleGroupMember *member, bool is_write)
{
    ThrottleGroup *group = member->group;
    ThrottleWaiter self = {group, coroutine_self(), aio_context_current(), false};

    g_queue_push_tail(&member->waiting[is_write], &self);
    if (!group->turn[is_write]) {
        pass_turn(group, is_write);
    }
    while (member->drained == 0) {
        int64_t deadline = -1;

        if (group->turn[is_write] == &self) {
            deadline = next_time(group, is_write);
            if (deadline < 0) {
                break;
            }
        }
        park(&self, deadline);
    }
    g_queue_remove(&member->waiting[is_write], &self);
    if (group->turn[is_write] == &self) {
        wake(pass_turn(group, is_write));
    }
}

void coroutine_fn throttle_group_co_wait(ThrottleGroupMember *member, bool is_write,
                                         int64_t bytes)
{
    ThrottleGroup *group = member->group;

    IO_CODE();
    if (!__atomic_load_n(&group->limited, __ATOMIC_RELAXED)) {
        return;
    }
    g_mutex_lock(&group->mutex);
    if (member->drained == 0 && (group->turn[is_write] || next_time(group, is_write) >= 0)) {
        wait_for_turn(member, is_write);
    }
    throttle_state_account(&group->state, is_write, bytes);
    g_mutex_unlock(&group->mutex);
}

/* ---- Members -------------------------------------------------------------------------- */

static ThrottleGroup *find_group(const char *id, GError **errp)
{
    ThrottleGroup *group = groups ? g_hash_table_lookup(groups, id) : NULL;

    if (!group) {
        block_error_set(errp, ENOENT, "Throttle group '%s' does not exist", id);
    }
    return group;
}

ThrottleGroupMember *throttle_group_join(const char *id, GError **errp)
{
    ThrottleGroup *group;
    ThrottleGroupMember *member;

    GLOBAL_STATE_CODE();
    group = find_group(id, errp);
    if (!group) {
        return NULL;
    }
    member = g_new0(ThrottleGroupMember, 1);
    member->group = group;
    g_mutex_lock(&group->mutex);
    g_ptr_array_add(group->members, member);
    g_mutex_unlock(&group->mutex);
    return member;
}

void throttle_group_leave(ThrottleGroupMember *member)
{
    ThrottleGroup *group;

    GLOBAL_STATE_CODE();
    if (!member) {
        return;
    }
    group = member->group;
    g_mutex_lock(&group->mutex);
    g_assert(g_queue_is_empty(&member->waiting[0]) && g_queue_is_empty(&member->waiting[1]));
    g_ptr_array_remove(group->members, member); /* someone may be passed over, once */
    g_mutex_unlock(&group->mutex);
    g_free(member);
}

void throttle_group_drain_begin(ThrottleGroupMember *member)
{
    GLOBAL_STATE_CODE();
    g_mutex_lock(&member->group->mutex);
    member->drained++;
    for (int i = 0; i < 2; i++) {
        for (GList *l = member->waiting[i].head; l; l = l->next) {
            wake(l->data);
        }
    }
    g_mutex_unlock(&member->group->mutex);
}

void throttle_group_drain_end(ThrottleGroupMember *member)
{
    GLOBAL_STATE_CODE();
    g_mutex_lock(&member->group->mutex);
    g_assert(member->drained > 0);
    member->drained--;
    g_mutex_unlock(&member->group->mutex);
}

/* ---- Groups ---------------------------------------------------------------------------- */

/* The mutex is held, or nobody knows the group yet. */
static void set_config(ThrottleGroup *group, const ThrottleConfig *config)
{
    throttle_state_init(&group->state, config, aio_now(aio_context_main()));
    __atomic_store_n(&group->limited, throttle_state_is_limited(&group->state), __ATOMIC_RELAXED);
}

static void group_free(gpointer data)
{
    ThrottleGroup *group = data;

    g_ptr_array_unref(group->members);
    g_mutex_clear(&group->mutex);
    g_free(group->id);
    g_free(group);
}

bool throttle_group_create(const char *id, const ThrottleConfig *config, GError **errp)
{
    ThrottleGroup *group;

    GLOBAL_STATE_CODE();
    if (!throttle_config_check(config, errp)) {
        return false;
    }
    if (!groups) {
        groups = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, group_free);
    }
    if (g_hash_table_contains(groups, id)) {
        block_error_set(errp, EEXIST, "Throttle group '%s' exists already", id);
        return false;
    }
    group = g_new0(ThrottleGroup, 1);
    group->id = g_strdup(id);
    g_mutex_init(&group->mutex);
    group->members = g_ptr_array_new();
    set_config(group, config);
    g_hash_table_insert(groups, group->id, group);
    return true;
}

bool throttle_group_set_config(const char *id, const ThrottleConfig *config, GError **errp)
{
    ThrottleGroup *group;

    GLOBAL_STATE_CODE();
    group = find_group(id, errp);
    if (!group || !throttle_config_check(config, errp)) {
        return false;
    }
    g_mutex_lock(&group->mutex);
    set_config(group, config);
    wake_turns(group);
    g_mutex_unlock(&group->mutex);
    return true;
}

bool throttle_group_get_config(const char *id, ThrottleConfig *config, GError **errp)
{
    ThrottleGroup *group;

    GLOBAL_STATE_CODE();
    group = find_group(id, errp);
    if (!group) {
        return false;
    }
    g_mutex_lock(&group->mutex);
    *config = group->state.config;
    g_mutex_unlock(&group->mutex);
    return true;
}

bool throttle_group_delete(const char *id, GError **errp)
{
    ThrottleGroup *group;

    GLOBAL_STATE_CODE();
    group = find_group(id, errp);
    if (!group) {
        return false;
    }
    if (group->members->len > 0) {
        block_error_set(errp, EBUSY, "object '%s' is in use, can not be deleted", id);
        return false;
    }
    g_hash_table_remove(groups, id);
    return true;
}

void throttle_groups_cleanup(void)
{
    g_clear_pointer(&groups, g_hash_table_unref);
}
