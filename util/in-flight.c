/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counting operations under way, each thread in a shard of its own.
 */
#include "util/in-flight.h"

static void count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
#if !defined(__x86_64__) && !defined(__i386__)
    /* Elsewhere than on x86, later reads may overtake the store of an atomic addition. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

void in_flight_begin(InFlight *f)
{
    count(&f->shard[shard_index()].begun);
}

void in_flight_end(InFlight *f)
{
    count(&f->shard[shard_index()].ended);
}

bool in_flight_idle(const InFlight *f)
{
    uint64_t ended = 0, begun = 0;

    for (int i = 0; i < SHARDS; i++) {
        ended += __atomic_load_n(&f->shard[i].ended, __ATOMIC_SEQ_CST);
    }
    for (int i = 0; i < SHARDS; i++) {
        begun += __atomic_load_n(&f->shard[i].begun, __ATOMIC_SEQ_CST);
    }
    return ended == begun;
}
