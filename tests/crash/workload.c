/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One run: a world, a guest at work in it, and the examination of what a power
 * cut leaves.
 */
#include <string.h>

#include "examine.h"
#include "recorder.h"

#define MAX_TOGETHER 3

/* ---- The guest at work ------------------------------------------------------------ */

/* Verbs in flight together. */
typedef struct Group {
    CrashRun *run;
    unsigned left;
} Group;

typedef struct Member {
    Group *group;
    const CrashVerb *verb;
    CrashPlace place;
} Member;

static void coroutine_fn member_run(void *opaque)
{
    Member *member = opaque;

    member->verb->co_run(member->group->run, member->place);
    member->group->left--;
    g_free(member);
}

static void member_start(void *opaque)
{
    coroutine_enter(coroutine_create(member_run, opaque));
}

static bool group_is_done(void *opaque)
{
    return ((Group *)opaque)->left == 0;
}

static void run_group(CrashRun *run, const CrashVerb **verbs, unsigned count, bool random)
{
    Group group = {run, count};

    if (verbs[0]->run) {
        g_assert(count == 1);
        verbs[0]->run(run, crash_verb_place(run, verbs[0], random));
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        Member *member = g_new(Member, 1);

        *member = (Member){&group, verbs[i], crash_verb_place(run, verbs[i], random)};
        aio_bh_oneshot(run->contexts[crash_random(&run->random, 2)], member_start, member);
    }
    if (!sim_world_run_until(run->world, group_is_done, &group)) {
        g_error("the workload hangs");
    }
}

static void run_random(CrashRun *run, unsigned count)
{
    unsigned vocabulary = 0;

    while (run->format->verbs[vocabulary].name) {
        vocabulary++;
    }
    for (unsigned n = 0, i; n < count && !run->why->len; n += i) {
        const CrashVerb *verbs[MAX_TOGETHER];
        unsigned together = 1 + crash_random(&run->random, MAX_TOGETHER);

        for (i = 0; i < together; i++) {
            verbs[i] = &run->format->verbs[crash_random(&run->random, vocabulary)];
            if (verbs[i]->run) { /* not with others: they go first */
                verbs[0] = i == 0 ? verbs[0] : &run->format->verbs[0];
                i = i == 0 ? 1 : i;
                break;
            }
        }
        run_group(run, verbs, i, true);
    }
}

/* False if the text is not understood. */
static bool run_steps(CrashRun *run, const char *steps)
{
    g_auto(GStrv) groups = g_strsplit(steps, ",", -1);

    if (g_str_has_prefix(steps, "random")) {
        run_random(run, g_ascii_strtoull(steps + strlen("random"), NULL, 10));
        return true;
    }
    for (unsigned i = 0; groups[i] && !run->why->len; i++) {
        g_auto(GStrv) names = g_strsplit(groups[i], "+", MAX_TOGETHER);
        const CrashVerb *verbs[MAX_TOGETHER];
        unsigned n = 0;

        for (; names[n]; n++) {
            verbs[n] = crash_verb_find(run->format, names[n], strlen(names[n]));
            if (!verbs[n] || (verbs[n]->run && (n > 0 || names[1]))) { /* alone or not at all */
                return false;
            }
        }
        run_group(run, verbs, n, false);
    }
    return true;
}

/* ---- After the power cut ---------------------------------------------------------- */

static uint64_t epoch_of(void *opaque, uint64_t cut)
{
    return crash_model_epoch(((CrashRun *)opaque)->model, cut);
}

static void print_log(const CrashLog *log)
{
    for (unsigned i = 0; i < log->entries->len; i++) {
        g_autofree char *text = crash_entry_text(crash_log_entry(log, i));

        g_printerr("change %u: %s\n", i, text);
    }
}

static bool explore(CrashRun *run, const CrashStore *start, const CrashWorkload *workload,
                    CrashCounts *counts, GString *why)
{
    CrashExplorer x = {run->log, start, workload->seed, workload->budget, crash_examine, epoch_of,
                       run, *counts, NULL};
    bool ok = workload->state ? crash_replay(&x, workload->state, run->why)
                              : crash_explore(&x, run->why);

    if (workload->verbose) {
        crash_model_print(run->model);
        print_log(run->log);
    }
    *counts = x.counts;
    if (!ok) {
        g_string_append_printf(why, "%s/%" G_GUINT64_FORMAT "/%s@%s: %s", run->format->name,
                               workload->seed, workload->steps,
                               x.violation ? x.violation : workload->state, run->why->str);
    }
    g_free(x.violation);
    return ok;
}

/* ---- The run ---------------------------------------------------------------------- */

/* Record what the guest does; false if it saw something wrong. */
static bool guest_runs(CrashRun *run, const char *steps)
{
    uint64_t now;

    run->blk = crash_open(run->format, run->why);
    if (run->blk && !run_steps(run, steps)) {
        g_string_append(run->why, "not understood");
    }
    if (run->blk && !run->why->len) {
        now = crash_log_tick(run->log);
        crash_disk_is_allowed(run, run->blk, crash_model_read(run->model, now), run->why);
    }
    blk_unref(run->blk);
    run->blk = NULL;
    return run->why->len == 0;
}

static bool run_in_world(CrashRun *run, const CrashWorkload *workload, CrashCounts *counts,
                         GString *why)
{
    const CrashFormat *format = run->format;
    g_autoptr(CrashStore) start = NULL;
    bool ok;

    crash_store_activate(run->store);
    recorder_register();
    ok = format->create(format, run->store, run->why);
    start = crash_store_copy(run->store);
    run->store->log = run->log;
    run->store->world = run->world;
    ok = ok && guest_runs(run, workload->steps);
    crash_store_activate(NULL);
    if (!ok) {
        g_string_append_printf(why, "%s/%" G_GUINT64_FORMAT "/%s: before any power cut: %s",
                               format->name, workload->seed, workload->steps, run->why->str);
        return false;
    }
    return explore(run, start, workload, counts, why);
}

bool crash_workload_run(const CrashWorkload *workload, CrashCounts *counts, GString *why)
{
    const CrashFormat *format = workload->format;
    g_autoptr(SimWorld) world = sim_world_new(workload->seed);
    g_autoptr(CrashStore) store = crash_store_new();
    g_autoptr(CrashLog) log = crash_log_new();
    g_autoptr(CrashModel) model =
        crash_model_new(log, format->length, format->base_bytes, format->backing);
    CrashRun run = {.format = format, .world = world, .store = store, .log = log, .model = model,
                    .random = workload->seed, .why = g_string_new(NULL)};
    bool ok;

    run.contexts[0] = sim_world_add_context(world, "main");
    g_assert(blockgraph_init(NULL));
    run.contexts[1] = sim_world_add_context(world, "other");
    ok = run_in_world(&run, workload, counts, why);
    blockgraph_cleanup();
    g_string_free(run.why, true);
    return ok;
}
