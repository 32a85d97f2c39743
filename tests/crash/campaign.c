/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which workloads are run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "campaign.h"

#define SOAK_VERBS 30    /* at most, in one workload */
#define SOAK_BUDGET 2000 /* states of each */
#define REPORT_SECONDS 10

void crash_counts_print(const char *what, const CrashCounts *counts)
{
    g_printerr("%s: %" PRIu64 " states examined, of %" PRIu64 " built at %" PRIu64
               " cuts of %" PRIu64 " runs\n",
               what, counts->examined, counts->built, counts->cuts, counts->runs);
}

static bool run_one(const CrashWorkload *workload, CrashCounts *counts)
{
    g_autoptr(GString) why = g_string_new(NULL);
    bool ok = crash_workload_run(workload, counts, why);

    if (!ok) {
        g_printerr("VIOLATION; BLOCKGRAPH_CRASH_STATE=%s\n", why->str);
    }
    return ok;
}

/* ---- Short ones ------------------------------------------------------------------- */

/* Each with a seed of its own: what they have in common happens in many orders. */
static bool run_pair(const CrashFormat *format, const CrashVerb *a, const CrashVerb *b,
                     uint64_t budget, CrashCounts *counts)
{
    bool together = a->co_run && b->co_run && a <= b; /* else the same the other way round */

    for (const char *join = ","; join; join = *join == ',' && together ? "+" : NULL) {
        g_autofree char *steps = g_strconcat(a->name, join, b->name, NULL);
        CrashWorkload workload = {.format = format, .steps = steps, .seed = 1 + counts->runs,
                                  .budget = budget};

        if (!run_one(&workload, counts)) {
            return false;
        }
    }
    return true;
}

bool crash_campaign_sequences(const CrashFormat *format, uint64_t budget, CrashCounts *counts)
{
    for (const CrashVerb *a = format->verbs; a->name; a++) {
        CrashWorkload workload = {.format = format, .steps = a->name, .seed = 1,
                                  .budget = budget};

        if (!run_one(&workload, counts)) {
            return false;
        }
        for (const CrashVerb *b = format->verbs; b->name; b++) {
            if (!run_pair(format, a, b, budget, counts)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- Long ones -------------------------------------------------------------------- */

static bool run_random(const CrashFormat *format, uint64_t seed, unsigned length, uint64_t budget,
                       CrashCounts *counts)
{
    g_autofree char *steps = g_strdup_printf("random%u", length);
    CrashWorkload workload = {.format = format, .steps = steps, .seed = seed, .budget = budget};

    return run_one(&workload, counts);
}

bool crash_campaign_random(const CrashFormat *format, unsigned runs, unsigned length,
                           uint64_t budget, CrashCounts *counts)
{
    for (unsigned i = 1; i <= runs; i++) {
        if (!run_random(format, i, length, budget, counts)) {
            return false;
        }
    }
    return true;
}

/* The formats in turn, until the time is over. */
static int soak(const CrashFormat *const *formats, int64_t seconds, uint64_t seed)
{
    int64_t start = g_get_monotonic_time(), now = start;
    int64_t next_report = start + REPORT_SECONDS * G_USEC_PER_SEC;
    CrashCounts counts = {0};

    g_printerr("soak from seed %" PRIu64 "\n", seed);
    while (seconds == 0 || now - start < seconds * G_USEC_PER_SEC) {
        for (unsigned i = 0; formats[i]; i++, seed++) {
            if (!run_random(formats[i], seed, 1 + seed % SOAK_VERBS, SOAK_BUDGET, &counts)) {
                crash_counts_print("soak ended by a violation", &counts);
                return 1;
            }
        }
        now = g_get_monotonic_time();
        if (now >= next_report) {
            crash_counts_print("soak", &counts);
            next_report = now + REPORT_SECONDS * G_USEC_PER_SEC;
        }
    }
    crash_counts_print("soak is over, no violation", &counts);
    return 0;
}

/* ---- One state -------------------------------------------------------------------- */

/* @name: "FORMAT/SEED/STEPS@STATE"; without "@STATE", all states. */
static int replay(const CrashFormat *const *formats, const char *name)
{
    g_auto(GStrv) parts = g_strsplit(name, "/", 3);
    CrashWorkload workload = {.verbose = true, .budget = SOAK_BUDGET};
    CrashCounts counts = {0};
    char *at;

    if (g_strv_length(parts) == 3) {
        at = strchr(parts[2], '@');
        if (at) {
            *at = 0;
            workload.state = at + 1;
        }
        workload.steps = parts[2];
        workload.seed = g_ascii_strtoull(parts[1], NULL, 10);
    }
    for (unsigned i = 0; formats[i] && workload.steps; i++) {
        if (g_str_equal(formats[i]->name, parts[0])) {
            workload.format = formats[i];
            if (run_one(&workload, &counts)) {
                g_printerr("%s: no violation\n", name);
                return 0;
            }
            return 1;
        }
    }
    g_printerr("%s: no such format here\n", name);
    return 2;
}

static const char *asked_for(const char *variable, const char *argument, int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i++) {
        if (g_str_equal(argv[i], argument)) {
            return argv[i + 1];
        }
    }
    return g_getenv(variable);
}

bool crash_campaign_asked(const CrashFormat *const *formats, int argc, char **argv, int *status)
{
    const char *state = asked_for("BLOCKGRAPH_CRASH_STATE", "--state", argc, argv);
    const char *seconds = asked_for("BLOCKGRAPH_CRASH_SECONDS", "--soak", argc, argv);
    const char *seed = asked_for("BLOCKGRAPH_CRASH_SEED", "--seed", argc, argv);
    uint64_t first = seed ? g_ascii_strtoull(seed, NULL, 10) : (uint64_t)g_get_real_time() >> 10;

    if (state) {
        *status = replay(formats, state);
    } else if (seconds) {
        *status = soak(formats, g_ascii_strtoll(seconds, NULL, 10), first);
    }
    return state || seconds;
}
