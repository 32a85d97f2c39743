/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The coroutine record: what util/ (event loop, locks) and a debugger know
 * about a coroutine beyond blockgraph/coroutine.h.
 *
 * For debuggers: coroutine_all is the head of a list, linked by all_next, of
 * every record of the process, pooled ones included. A record whose state is
 * COROUTINE_YIELDED has its registers saved at sp, which for the stack switch
 * of this library (stack-switch-x86_64.S, -aarch64.S) points to
 *   x86-64:  +0 mxcsr (4 bytes), x87 control word (2), padding (2);
 *            +8 r15, +16 r14, +24 r13, +32 r12, +40 rbx, +48 rbp, +56 rip;
 *            rsp was sp + 64.
 *   aarch64: +0 x19 ... +72 x28, +80 x29, +88 x30 (the pc), +96 d8 ... +152 d15,
 *            +160 fpcr, padding (8); sp was sp + 176.
 * and for ucontext to the ucontext_t. A COROUTINE_RUNNING record is either what
 * some thread executes now, or has entered another one (whose caller it is).
 * entry and opaque tell what it was created for.
 */
#ifndef UTIL_COROUTINE_INT_H
#define UTIL_COROUTINE_INT_H

#include <stddef.h>
#include "blockgraph/aio.h"
#include "blockgraph/coroutine.h"

typedef enum CoroutineState {
    COROUTINE_FREE,    /* in a pool; the last entry function has returned */
    COROUTINE_CREATED, /* not yet entered */
    COROUTINE_RUNNING, /* entered, and has not come back yet */
    COROUTINE_YIELDED,
    COROUTINE_ENDED,  /* between the return of entry and the pool */
    COROUTINE_THREAD, /* no coroutine: stands for a thread's own stack */
} CoroutineState;

struct Coroutine {
    /* Must be first: known to the assembly. Valid while not executing. */
    void *sp;
    CoroutineState state; /* atomic */
    CoroutineEntry *entry;
    void *opaque;
    Coroutine *caller; /* who entered it, while RUNNING */

    /* Where aio_co_wake() brings it: the context of the thread that entered it last. Atomic. */
    AioContext *ctx;
    /*
     * The name of the function that has queued this coroutine to be entered, or NULL.
     * coroutine_set_scheduled() and coroutine_clear_scheduled() change it. Atomic.
     */
    const char *scheduled;
    /* For the list of whoever set scheduled. */
    Coroutine *scheduled_next;
    /* For aio_co_schedule(): its place in a context's queues. */
    AioItem aio_item;

    /* Coroutines to enter when this one yields or ends, linked by scheduled_next. */
    Coroutine *wakeup_first;
    Coroutine *wakeup_last;

    unsigned mutexes_held; /* CoMutexes; it may not end before they are given back */
    uintptr_t locals[COROUTINE_LOCAL__MAX];

    /* The stack without its guard page, which lies below it. */
    void *stack;
    size_t stack_size; /* bytes */
    Coroutine *pool_next;
    Coroutine *all_next;
    Coroutine *all_prev;

    /*
     * What ASan, TSan and valgrind need to know; unused without them. All of it lives as long
     * as the stack: ASan's part alone takes longer to make than most coroutines run.
     */
    void *asan_fake_stack;
    void *tsan_fiber;
    unsigned valgrind_stack_id;
};

/*
 * Note that @who (a string constant) is going to enter @co; aborts if somebody
 * has said so before: a coroutine woken twice. While it is set,
 * coroutine_enter() aborts, so whoever set it clears it right before entering.
 * Any thread.
 */
void coroutine_set_scheduled(Coroutine *co, const char *who);
void coroutine_clear_scheduled(Coroutine *co);

/*
 * Enter @co on this thread once the running coroutine has yielded or ended, in
 * the order of the calls. Sets and clears scheduled. @co may be the running
 * coroutine itself, or one that has entered it; such a one continues when it
 * has yielded itself. From a coroutine only.
 */
void coroutine_fn coroutine_wake_after_yield(Coroutine *co);

/* ---- Between coroutine.c, coroutine-stack.c and the stack switch --------- */

/* A record with a stack, state CREATED, from a pool or new. Any thread. */
Coroutine *coroutine_pool_get(void);
/* Give an ended coroutine back. Any thread. */
void coroutine_pool_put(Coroutine *co);
/* Every record of the process; for debuggers. */
extern Coroutine *coroutine_all;

/* The function at the bottom of each stack: runs one entry function after another. */
G_NORETURN void coroutine_run(Coroutine *co);

/* Set co->sp so that the first switch to @co calls coroutine_run(@co) on its stack. */
void coroutine_switch_prepare(Coroutine *co);
/* Save the registers to from->sp and continue at to->sp. */
void coroutine_switch_stack(Coroutine *from, Coroutine *to);
/* "x86-64", "aarch64" or "ucontext". */
const char *coroutine_switch_name(void);

#endif
