/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The explorer: builds the states that a power cut could leave of a log, and
 * has each examined.
 *
 * At every position of the log, the changes that are not durable there may or
 * may not be on the disks, whole or torn. The plain states are built first (all
 * there, which is the prefix; none; one missing; one alone), then, where the
 * budget allows, all subsets of the last ten changes (those before: all there,
 * and chosen at random), then the newest torn at each sector, then random ones
 * with random tears. States that have been examined already, and of which
 * nothing more is expected than then, are not examined again.
 *
 * A state's name is "POSITION:CHANGES": the numbers (in order of beginning) of
 * the changes that are there though they are not durable, as "3,5-8,9h2": h, t
 * and s are how it is torn (CrashTearKind).
 */
#ifndef TESTS_CRASH_EXPLORER_H
#define TESTS_CRASH_EXPLORER_H

#include "log.h"

typedef struct CrashCounts {
    uint64_t runs;     /* logs that were explored */
    uint64_t cuts;     /* positions */
    uint64_t built;    /* states */
    uint64_t examined; /* states that were new */
} CrashCounts;

typedef struct CrashExplorer {
    const CrashLog *log;
    const CrashStore *start; /* the disks before the log */
    uint64_t seed;
    uint64_t budget; /* how many states may be examined, about */
    /*
     * Judge the state in the active store, which may be written to. False with
     * the reason appended to @why.
     */
    bool (*examine)(void *opaque, uint64_t cut, GString *why);
    /*
     * A number that grows when more is expected of a state: a state that was
     * good at an earlier cut of the same epoch is good. NULL: always 0.
     */
    uint64_t (*epoch)(void *opaque, uint64_t cut);
    void *opaque;
    CrashCounts counts; /* added to */
    char *violation;    /* the name of the first bad state; the caller frees it */
} CrashExplorer;

/* True if all states are good; else @violation is set, and @why. */
bool crash_explore(CrashExplorer *explorer, GString *why);
/* Examine the state of that name alone; false too if there is no such state. */
bool crash_replay(CrashExplorer *explorer, const char *name, GString *why);

#endif
