/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The C side of the stack switch in assembly: what a stack must hold so that
 * the first switch to it begins at coroutine_switch_start.
 */
#include <string.h>
#include "util/coroutine-int.h"

void coroutine_switch_start(void);

G_STATIC_ASSERT(offsetof(Coroutine, sp) == 0);

#if defined(__x86_64__)
#define SWITCH_NAME "x86-64"
struct Frame {
    uint32_t mxcsr;
    uint16_t x87_control;
    uint16_t pad;
    void *r15, *r14, *r13, *r12, *rbx, *rbp, *rip;
};
G_STATIC_ASSERT(sizeof(struct Frame) == 64);

static void frame_fill(struct Frame *frame, Coroutine *co)
{
    /* A new coroutine computes as the code that creates it does. */
    __asm__("stmxcsr %0" : "=m"(frame->mxcsr));
    __asm__("fnstcw %0" : "=m"(frame->x87_control));
    frame->r12 = co;
    frame->rip = (void *)coroutine_switch_start;
}
#elif defined(__aarch64__)
#define SWITCH_NAME "aarch64"
struct Frame {
    void *x[12]; /* x19 to x30 */
    uint64_t d[8];
    uint64_t fpcr;
    uint64_t pad;
};
G_STATIC_ASSERT(sizeof(struct Frame) == 176);

static void frame_fill(struct Frame *frame, Coroutine *co)
{
    /* A new coroutine computes as the code that creates it does. */
    __asm__("mrs %0, fpcr" : "=r"(frame->fpcr));
    frame->x[0] = co;
    frame->x[11] = (void *)coroutine_switch_start;
}
#else
#error "no stack switch in assembly for this processor: build stack-switch-ucontext.c instead"
#endif

void coroutine_switch_prepare(Coroutine *co)
{
    /* The frame ends where the stack does, which is aligned to a page. */
    struct Frame *frame = (struct Frame *)((char *)co->stack + co->stack_size) - 1;

    memset(frame, 0, sizeof(*frame));
    frame_fill(frame, co);
    co->sp = frame;
}

const char *coroutine_switch_name(void)
{
    return SWITCH_NAME;
}
