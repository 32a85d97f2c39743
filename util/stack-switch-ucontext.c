/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stack switch for processors that have none in assembly, on ucontext.
 * A context lives on the stack that it describes, so that the record needs a
 * pointer only.
 */
#include <ucontext.h>
#include "util/coroutine-int.h"
#include "util/fatal.h"

/* makecontext() passes ints, so a pointer travels in halves. */
static void context_start(unsigned high, unsigned low)
{
    uintptr_t co = ((uintptr_t)high << 16 << 16) | low;

    coroutine_run((Coroutine *)co);
}

void coroutine_switch_prepare(Coroutine *co)
{
    const size_t reserved = (sizeof(ucontext_t) + 63) & ~(size_t)63;
    ucontext_t *uc = (void *)((char *)co->stack + co->stack_size - reserved);
    uintptr_t arg = (uintptr_t)co;

    if (getcontext(uc) != 0) {
        fatal("getcontext() failed");
    }
    uc->uc_stack.ss_sp = co->stack;
    uc->uc_stack.ss_size = co->stack_size - reserved;
    uc->uc_link = NULL;
    makecontext(uc, (void (*)(void))context_start, 2, (unsigned)(arg >> 16 >> 16), (unsigned)arg);
    co->sp = uc;
}

void coroutine_switch_stack(Coroutine *from, Coroutine *to)
{
    ucontext_t here;

    from->sp = &here;
    swapcontext(&here, to->sp);
}

const char *coroutine_switch_name(void)
{
    return "ucontext";
}
