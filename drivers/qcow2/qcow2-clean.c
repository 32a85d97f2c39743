/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: cache-clean-interval. Slices and refcount blocks that were not used from one
 * tick of a timer to the next are dropped. No I/O is done, so a drained section or a
 * flush does not notice.
 *
 * The timer runs in the main context, and only while there is something to drop:
 * once all is dropped, whoever asks for a mapping next wakes it.
 */
#include "drivers/qcow2/qcow2-alloc.h"

struct Qcow2Cleaner {
    Qcow2State *s;
    AioTimer *timer;
    AioBH *bh;      /* arms the timer */
    bool armed;     /* atomic: the timer is armed, or about to be */
    bool running;   /* main thread: a coroutine is at it */
};

static void arm(void *opaque)
{
    Qcow2Cleaner *c = opaque;
    int64_t interval = c->s->options.cache_clean_interval * INT64_C(1000000000);

    if (interval > 0) {
        aio_timer_mod(c->timer, aio_now(aio_context_main()) + interval);
    } else { /* waking stays without effect */
        aio_timer_del(c->timer);
    }
}

static void coroutine_fn clean(void *opaque)
{
    Qcow2Cleaner *c = opaque;
    Qcow2State *s = c->s;
    bool left = qcow2_cache_clean_unused(s->l2_cache);

    if (s->writer) {
        co_mutex_lock(&s->writer->lock);
        left |= qcow2_refblocks_clean(s->writer);
        co_mutex_unlock(&s->writer->lock);
    }
    if (left) {
        aio_bh_schedule(c->bh);
    } else {
        __atomic_store_n(&c->armed, false, __ATOMIC_SEQ_CST);
    }
    c->running = false;
    aio_wait_kick();
}

static void tick(void *opaque)
{
    Qcow2Cleaner *c = opaque;

    c->running = true;
    coroutine_enter(coroutine_create(clean, c));
}

void qcow2_cleaner_start(Qcow2State *s)
{
    Qcow2Cleaner *c;

    if (s->options.cache_clean_interval == 0) {
        return;
    }
    c = s->cleaner = g_new0(Qcow2Cleaner, 1);
    c->s = s;
    c->timer = aio_timer_new(aio_context_main(), tick, c);
    c->bh = aio_bh_new(aio_context_main(), arm, c);
}

void qcow2_cleaner_changed(Qcow2State *s)
{
    if (!s->cleaner) {
        qcow2_cleaner_start(s);
    } else { /* what was dropped with the old caches is cleaned to no effect */
        __atomic_store_n(&s->cleaner->armed, true, __ATOMIC_SEQ_CST);
        aio_bh_schedule(s->cleaner->bh);
    }
}

void qcow2_cleaner_stop(Qcow2State *s)
{
    Qcow2Cleaner *c = g_steal_pointer(&s->cleaner);

    if (c) {
        AIO_WAIT_WHILE(c->running);
        aio_bh_free(c->bh);
        aio_timer_free(c->timer);
        g_free(c);
    }
}

void qcow2_cleaner_wake(const Qcow2State *s)
{
    Qcow2Cleaner *c = s->cleaner;

    if (c && !__atomic_load_n(&c->armed, __ATOMIC_RELAXED) &&
        !__atomic_exchange_n(&c->armed, true, __ATOMIC_SEQ_CST)) {
        aio_bh_schedule(c->bh);
    }
}
