/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a group has used of its limits: leaky buckets. Plain arithmetic without a
 * clock or a lock of its own, in integers.
 *
 * A bucket fills with what requests cost and leaks at the rate of its limit. A request
 * goes while no bucket that it concerns holds more than its size, and then adds to them:
 * a long request may overfill a bucket, and those after it wait that much longer.
 */
#ifndef BLOCK_THROTTLE_H
#define BLOCK_THROTTLE_H

#include "blockgraph/throttle-group.h"

/* Bytes or requests, with billionths of one. */
typedef struct ThrottleAmount {
    uint64_t whole;
    uint32_t nano; /* < 10^9 */
} ThrottleAmount;

typedef struct ThrottleBucket {
    ThrottleAmount level; /* leaks at avg */
    ThrottleAmount burst; /* leaks at max: only where a burst may last more than a second */
} ThrottleBucket;

typedef struct ThrottleState {
    ThrottleConfig config;
    ThrottleBucket buckets[THROTTLE__MAX];
    int64_t now_ns; /* up to when the buckets have leaked */
} ThrottleState;

/* Start with empty buckets at @now_ns; @config is one that throttle_config_check() likes. */
void throttle_state_init(ThrottleState *state, const ThrottleConfig *config, int64_t now_ns);
/* Whether there is any limit. */
bool throttle_state_is_limited(const ThrottleState *state);
/*
 * Let the buckets leak until @now_ns (a time before the last one is that one), and return
 * how long after state->now_ns the next read or write may go: nanoseconds, 0 for now.
 */
int64_t throttle_state_wait(ThrottleState *state, int64_t now_ns, bool is_write);
/* Count a request of @bytes (>= 0). */
void throttle_state_account(ThrottleState *state, bool is_write, int64_t bytes);

#endif
