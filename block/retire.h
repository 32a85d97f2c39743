/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Places that a format has unlinked and that nobody may have yet (rule 6 of
 * map.h).
 *
 * Invariants:
 *  1. Places leave in the order in which they came.
 *  2. A place leaves only when its unlinking is on disk, and every claim that
 *     is older than its retirement has ended.
 */
#ifndef BLOCK_RETIRE_H
#define BLOCK_RETIRE_H

#include "blockgraph/block-driver.h"

/* The retired places of one node. */
typedef struct RetireList RetireList;

RetireList *retire_list_new(void);
/* What is left in it is leaked in the image. */
void retire_list_free(RetireList *list);
/* Add @place. @claim: the number that the next claim of the node gets. Any thread. */
void retire_list_add(RetireList *list, const BdrvPlace *place, uint64_t claim);
/* Take it before a flush begins; hand it to retire_list_stable() if that succeeded. */
uint64_t retire_list_mark(RetireList *list);
void retire_list_stable(RetireList *list, uint64_t mark);
/*
 * The next place that may be given out, removed from the list. @oldest_claim:
 * the number of the oldest claim that has not ended. False if there is none.
 */
bool retire_list_take(RetireList *list, uint64_t oldest_claim, BdrvPlace *place);
/* Whether any place is in it; whether any might be taken. Any thread. */
bool retire_list_empty(const RetireList *list);
bool retire_list_has_stable(const RetireList *list);
/*
 * Whether so many wait for a flush that the node should flush itself. True once
 * for each time that it comes to that.
 */
bool retire_list_wants_flush(RetireList *list);

#endif
