/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines: creating, entering, yielding, and who runs.
 *
 * 1. A coroutine is RUNNING from its switch to it until coroutine_enter() has
 *    come back from it; only that changes RUNNING to YIELDED, so nobody can
 *    enter a coroutine whose registers are not saved yet.
 * 2. The frame of coroutine_enter() stays on one thread: a coroutine that has
 *    entered another is not YIELDED. The frame of coroutine_yield() may come
 *    back on another thread, so nothing thread-local is used after its switch.
 * 3. Wakeups wait in the running coroutine's list until its coroutine_enter()
 *    works them off in turn; the stack does not grow with their number.
 */
#include "blockgraph/aio.h"
#include "util/coroutine-int.h"
#include "util/fatal.h"
#include "util/sanitizer.h"
#include "util/trace.h"

static __thread Coroutine *current;
/* Stands for the thread's own stack, as the caller of what the thread enters. */
static __thread Coroutine thread_record = { .state = COROUTINE_THREAD };

/*
 * The accessors are not inlined, and opaque to the compiler: it must compute
 * the address of thread-local variables anew after each switch.
 */
static G_GNUC_NO_INLINE Coroutine *current_get(void)
{
    __asm__ volatile("" ::: "memory");
    return current;
}

static G_GNUC_NO_INLINE void current_set(Coroutine *co)
{
    __asm__ volatile("" ::: "memory");
    current = co;
}

static G_GNUC_NO_INLINE Coroutine *thread_record_get(void)
{
    __asm__ volatile("" ::: "memory");
    return &thread_record;
}

static CoroutineState state_get(Coroutine *co)
{
    return __atomic_load_n(&co->state, __ATOMIC_RELAXED);
}

static void state_set(Coroutine *co, CoroutineState state)
{
    __atomic_store_n(&co->state, state, __ATOMIC_RELAXED);
}

/* What is to be done first on each arrival on @self's stack. */
static void arrived(Coroutine *self)
{
    Coroutine *caller = self->caller;

    if (caller && caller->state == COROUTINE_THREAD) {
        /* Learn where the thread's stack is, to announce the way back. */
        asan_finish_switch(self->asan_fake_stack, (const void **)&caller->stack,
                           &caller->stack_size);
    } else {
        asan_finish_switch(self->asan_fake_stack, NULL, NULL);
    }
}

static void switch_to(Coroutine *from, Coroutine *to)
{
    current_set(to->state == COROUTINE_THREAD ? NULL : to);
    asan_start_switch(&from->asan_fake_stack, to->stack, to->stack_size);
    tsan_switch_to_fiber(to->tsan_fiber);
    coroutine_switch_stack(from, to);
    arrived(from);
}

void coroutine_run(Coroutine *co)
{
    arrived(co);
    for (;;) {
        co->entry(co->opaque);
        if (co->mutexes_held > 0) {
            fatal("coroutine %p ended while it holds %u mutexes", (void *)co, co->mutexes_held);
        }
        trace_coroutine_end(co);
        state_set(co, COROUTINE_ENDED);
        switch_to(co, co->caller);
    }
}

Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = coroutine_pool_get();

    co->entry = entry;
    co->opaque = opaque;
    for (int i = 0; i < COROUTINE_LOCAL__MAX; i++) {
        co->locals[i] = 0;
    }
    __atomic_store_n(&co->ctx, NULL, __ATOMIC_RELAXED);
    state_set(co, COROUTINE_CREATED);
    trace_coroutine_create(co, opaque);
    return co;
}

static void assert_enterable(Coroutine *co, Coroutine *from)
{
    const char *scheduled = __atomic_load_n(&co->scheduled, __ATOMIC_ACQUIRE);
    CoroutineState state = state_get(co);

    if (scheduled) {
        fatal("coroutine %p entered while %s() has it queued", (void *)co, scheduled);
    }
    if (co == from) {
        fatal("coroutine %p enters itself", (void *)co);
    }
    if (state == COROUTINE_RUNNING) {
        fatal("coroutine %p entered while it is running", (void *)co);
    }
    if (state != COROUTINE_CREATED && state != COROUTINE_YIELDED) {
        fatal("coroutine %p entered after it has ended", (void *)co);
    }
}

typedef struct WakeupList {
    Coroutine *first; /* linked by scheduled_next */
    Coroutine *last;
} WakeupList;

static void wakeup_list_take(WakeupList *list, Coroutine *co)
{
    if (!co->wakeup_first) {
        return;
    }
    if (list->last) {
        list->last->scheduled_next = co->wakeup_first;
    } else {
        list->first = co->wakeup_first;
    }
    list->last = co->wakeup_last;
    co->wakeup_first = NULL;
    co->wakeup_last = NULL;
}

static Coroutine *wakeup_list_pop(WakeupList *list)
{
    Coroutine *co = list->first;

    if (co) {
        list->first = co->scheduled_next;
        if (!list->first) {
            list->last = NULL;
        }
        co->scheduled_next = NULL;
    }
    return co;
}

/* Have @self enter @co, whose scheduled is set, when it yields or ends. */
static void wakeup_list_add(Coroutine *self, Coroutine *co)
{
    co->scheduled_next = NULL;
    if (self->wakeup_last) {
        self->wakeup_last->scheduled_next = co;
    } else {
        self->wakeup_first = co;
    }
    self->wakeup_last = co;
}

/* Whether @co is @self or one of those that have entered it. */
static bool is_self_or_caller(Coroutine *co, Coroutine *self)
{
    while (self && self != co) {
        self = self->caller;
    }
    return self != NULL;
}

/* Run @co until it yields or ends; add whom it has woken to @woken. */
static void enter_one(Coroutine *from, Coroutine *co, AioContext *ctx, WakeupList *woken)
{
    assert_enterable(co, from);
    trace_coroutine_enter(from, co);
    co->caller = from;
    __atomic_store_n(&co->ctx, ctx, __ATOMIC_RELEASE);
    state_set(co, COROUTINE_RUNNING);

    switch_to(from, co);

    co->caller = NULL;
    wakeup_list_take(woken, co);
    if (state_get(co) == COROUTINE_ENDED) {
        state_set(co, COROUTINE_FREE);
        coroutine_pool_put(co);
    } else {
        state_set(co, COROUTINE_YIELDED);
    }
}

void coroutine_enter(Coroutine *co)
{
    Coroutine *from = current_get();
    AioContext *ctx = aio_context_current();
    WakeupList woken = { NULL, NULL };

    if (!from) {
        from = thread_record_get();
        from->tsan_fiber = tsan_current_fiber();
    }
    enter_one(from, co, ctx, &woken);
    while ((co = wakeup_list_pop(&woken))) {
        if (is_self_or_caller(co, from)) {
            wakeup_list_add(co, co);
        } else {
            coroutine_clear_scheduled(co);
            enter_one(from, co, ctx, &woken);
        }
    }
}

void coroutine_fn coroutine_yield(void)
{
    Coroutine *self = current_get();

    if (!self) {
        fatal("coroutine_yield() outside of a coroutine");
    }
    trace_coroutine_yield(self, self->caller);
    switch_to(self, self->caller);
}

void coroutine_set_scheduled(Coroutine *co, const char *who)
{
    const char *old = NULL;

    if (!__atomic_compare_exchange_n(&co->scheduled, &old, who, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        fatal("coroutine %p queued by %s() while %s() has it queued", (void *)co, who, old);
    }
}

void coroutine_clear_scheduled(Coroutine *co)
{
    __atomic_store_n(&co->scheduled, NULL, __ATOMIC_RELEASE);
}

void coroutine_fn coroutine_wake_after_yield(Coroutine *co)
{
    Coroutine *self = current_get();

    if (!self) {
        fatal("%s() outside of a coroutine", __func__);
    }
    coroutine_set_scheduled(co, __func__);
    wakeup_list_add(self, co);
}

Coroutine *coroutine_self(void)
{
    return current_get();
}

bool in_coroutine(void)
{
    return current_get() != NULL;
}

AioContext *coroutine_get_aio_context(Coroutine *co)
{
    return __atomic_load_n(&co->ctx, __ATOMIC_ACQUIRE);
}

uintptr_t *coroutine_local(CoroutineLocalKey key)
{
    Coroutine *self = current_get();

    return &(self ? self : thread_record_get())->locals[key];
}
