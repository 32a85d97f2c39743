/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AIO_WAIT_WHILE(): the main thread waits for what other threads do.
 *
 * 1. The waiter counts itself and then looks at its condition; a kicker changes
 *    the condition and then looks at the count. With a full barrier between on
 *    both sides, at least one sees the other.
 */
#include "util/aio-int.h"
#include "util/fatal.h"

static atomic_uint waiters;

void aio_wait_enter(void)
{
    AioContext *main_context = aio_context_main();

    if (!main_context || !aio_context_is_home(main_context)) {
        fatal("AIO_WAIT_WHILE() is for the main thread only");
    }
    if (in_coroutine()) {
        fatal("AIO_WAIT_WHILE() in a coroutine");
    }
    atomic_fetch_add(&waiters, 1);
    atomic_thread_fence(memory_order_seq_cst);
}

void aio_wait_leave(void)
{
    atomic_fetch_sub(&waiters, 1);
}

void aio_wait_kick(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&waiters, memory_order_relaxed) > 0) {
        aio_notify(aio_context_main());
    }
}
