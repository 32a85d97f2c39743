/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many workloads on one format: the short ones all, the long ones at random,
 * and without end.
 *
 * Environment (or arguments of a test program):
 *   BLOCKGRAPH_CRASH_STATE=NAME (--state NAME)      examine this state alone: the
 *       name that a violation was printed with; prints what the guest and the
 *       disks were asked for, too. Without "@…": all states of that workload
 *   BLOCKGRAPH_CRASH_SECONDS=N (--soak N)           random workloads for so long,
 *       0: without end; prints counts
 *   BLOCKGRAPH_CRASH_SEED=N (--seed N)              where the seeds start
 */
#ifndef TESTS_CRASH_CAMPAIGN_H
#define TESTS_CRASH_CAMPAIGN_H

#include "util/sanitizer.h"
#include "workload.h"

/*
 * All of the runs that are alike, or a few with a sanitizer: each takes several times as long
 * there, and what it looks for shows the first time that code runs.
 */
static inline int crash_runs(int all, int few)
{
#if defined(BUILT_WITH_ASAN) || defined(BUILT_WITH_TSAN)
    return few;
#else
    return all;
#endif
}

/* Print @what and the counts. */
void crash_counts_print(const char *what, const CrashCounts *counts);

/*
 * All sequences of one and of two verbs, the latter one after the other and,
 * where both can be, together; up to @budget states of each. A violation is
 * printed; false then.
 */
bool crash_campaign_sequences(const CrashFormat *format, uint64_t budget, CrashCounts *counts);
/* @runs random workloads of @length verbs, up to @budget states of each. */
bool crash_campaign_random(const CrashFormat *format, unsigned runs, unsigned length,
                           uint64_t budget, CrashCounts *counts);

/*
 * For main(): do what the environment or the arguments ask for in place of the
 * tests. True if they did; *@status is then what to exit with. @formats ends
 * with NULL.
 */
bool crash_campaign_asked(const CrashFormat *const *formats, int argc, char **argv, int *status);

#endif
