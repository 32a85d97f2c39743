/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Claims: which guest ranges of a node are in use by requests (rule 5 of
 * map.h).
 *
 * Invariants:
 *  1. Two granted claims that overlap are both shared.
 *  2. A claim waits for every older claim, granted or waiting, that it
 *     conflicts with: claims are granted in order, nobody starves.
 *  3. A claim is taken at a parent before its children; nobody waits for a
 *     second claim at the same node while holding one.
 */
#ifndef BLOCK_CLAIM_H
#define BLOCK_CLAIM_H

#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/coroutine.h"

typedef struct Claim Claim;
/* The claims of one node. */
typedef struct ClaimSet ClaimSet;

/* One claim; lives in its request. All members are private. */
struct Claim {
    int64_t offset;
    int64_t bytes;
    bool exclusive;
    uint64_t number; /* counts the claims of the set */
    Claim *prev; /* among all of its kind, granted or waiting */
    Claim *next;
    unsigned blockers; /* older conflicting claims that are left */
    Coroutine *co;     /* while it waits */
    Claim *prev_waiting;
    Claim *next_waiting; /* in order of arrival */
};

ClaimSet *claim_set_new(void);
/* Aborts if a claim is left. */
void claim_set_free(ClaimSet *set);
/* Claim a range (bytes > 0), waiting for older conflicting claims. Any thread. */
void coroutine_fn claim_begin(ClaimSet *set, Claim *claim, int64_t offset, int64_t bytes,
                              bool exclusive);
/* Exclusive to shared; wakes who may go on. Any thread. */
void coroutine_fn claim_downgrade(ClaimSet *set, Claim *claim);
/*
 * Narrow *@start and *@end, around @offset, to where no exclusive claim is, granted
 * or waiting; false if @offset itself lies in one. Any thread.
 */
bool claim_set_trim(ClaimSet *set, int64_t offset, int64_t *start, int64_t *end);
/* Give it back; wakes who may go on. Any thread, any coroutine. */
void coroutine_fn claim_end(ClaimSet *set, Claim *claim);
/*
 * The number that the next claim will get; the smallest number of a claim that
 * has not ended, or else the next. Any thread.
 */
uint64_t claim_set_next(ClaimSet *set);
uint64_t claim_set_oldest(ClaimSet *set);

#endif
