/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A count that grows, without a line that threads share: each thread adds to a
 * shard of its own. (Threads beyond the number of shards share them, which
 * costs speed only.)
 */
#ifndef UTIL_SHARDED_COUNT_H
#define UTIL_SHARDED_COUNT_H

#include <stdint.h>

#define SHARDS 8

typedef struct ShardedCount {
    struct {
        uint64_t count;
    } __attribute__((aligned(64))) shard[SHARDS];
} ShardedCount;

/* The calling thread's shard, below SHARDS. */
unsigned shard_index(void);
/* Add one: seen by whoever is told of anything that the thread does later. Any thread. */
void sharded_count_add(ShardedCount *c);
/* All that was added before the call, and possibly some of what was added during it. */
uint64_t sharded_count_sum(const ShardedCount *c);

#endif
