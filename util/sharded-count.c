/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which thread counts where.
 */
#include "util/sharded-count.h"

static unsigned next_index;
static __thread unsigned my_index; /* shard + 1; 0: not chosen yet */

unsigned shard_index(void)
{
    if (!my_index) {
        my_index = __atomic_fetch_add(&next_index, 1, __ATOMIC_RELAXED) % SHARDS + 1;
    }
    return my_index - 1;
}

void sharded_count_add(ShardedCount *c)
{
    __atomic_fetch_add(&c->shard[shard_index()].count, 1, __ATOMIC_SEQ_CST);
}

uint64_t sharded_count_sum(const ShardedCount *c)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < SHARDS; i++) {
        sum += __atomic_load_n(&c->shard[i].count, __ATOMIC_SEQ_CST);
    }
    return sum;
}
