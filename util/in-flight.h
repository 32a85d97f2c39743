/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many operations are under way, counted without a line that threads
 * share: each thread counts begins and ends in a shard of its own.
 *
 * Both counts only grow. Reading all ends first and all begins after, equal
 * sums mean that at the moment between the two passes nothing was under way.
 */
#ifndef UTIL_IN_FLIGHT_H
#define UTIL_IN_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>
#include "util/sharded-count.h"

typedef struct InFlightShard {
    uint64_t begun;
    uint64_t ended;
} __attribute__((aligned(64))) InFlightShard;

typedef struct InFlight {
    InFlightShard shard[SHARDS];
} InFlight;

/*
 * One operation begins or ends, possibly on different threads. Both are full
 * barriers: what a thread reads after begin is newer than its begin. Any
 * thread.
 */
void in_flight_begin(InFlight *f);
void in_flight_end(InFlight *f);
/* Whether nothing was under way at some moment during the call. Any thread. */
bool in_flight_idle(const InFlight *f);

#endif
