/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts while a qcow2 image is emptied: each range is as it was or shows what the
 * backing file has, and once emptying is over nothing old comes back. Snapshots stay.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "campaign.h"
#include "with-snapshot.h"

#define OPEN "driver=qcow2,file.driver=recorder,file.disk=image"
#define BASE ",backing_file=recorder:base,backing_fmt=raw"
#define SHAPE(NAME, UNIT, UNITS, BASE_UNITS, BACKING, MORE_OPEN, CREATE)                           \
    .name = "qcow2-empty" NAME, .options = OPEN MORE_OPEN, .length = (UNITS) * (UNIT),             \
    .unit = (UNIT), .base_bytes = (BASE_UNITS) * (UNIT), .backing = BACKING, .driver = "qcow2",    \
    .create_options = CREATE, .verbs = crash_verbs_empty

static const CrashFormat plain = {
    SHAPE("", 4096, 12, 5, false, "", "size=48k,cluster_size=4k"),
    .create = crash_create_by_driver,
};
static const CrashFormat overlay = {
    SHAPE("-overlay", 4096, 12, 9, true, "", "size=48k,cluster_size=4k" BASE),
    .create = crash_create_by_driver,
};
static const CrashFormat old = {
    SHAPE("-v2", 1024, 12, 9, true, "", "size=12k,cluster_size=1k,compat=0.10" BASE),
    .create = crash_create_by_driver,
};
/* Several L2 tables, and a cache that does not hold one. */
static const CrashFormat small = {
    SHAPE("-small", 8192, 8, 5, true, ",l2-cache-size=1k",
          "size=64k,cluster_size=512,refcount_bits=64" BASE),
    .create = crash_create_by_driver,
};
static const CrashFormat extended = {
    SHAPE("-extended", 16384, 6, 3, true, "", "size=96k,cluster_size=16k,extended_l2=on" BASE),
    .create = crash_create_by_driver,
};
static const CrashFormat lazy = {
    SHAPE("-lazy", 4096, 12, 5, false, "", "size=48k,cluster_size=4k,lazy_refcounts=on"),
    .create = crash_create_by_driver,
};
static const CrashFormat snapshot = {
    SHAPE("-snapshot", 4096, 12, 5, false, "", "size=48k,cluster_size=4k"),
    .create = crash_create_with_snapshot,
    .examine = crash_snapshot_is_whole,
};

static const CrashFormat *const shapes[] = {
    &plain, &overlay, &old, &small, &extended, &lazy, &snapshot, NULL,
};

/* One and two verbs, of which one empties. */
static void emptying_before_and_after_anything_survives(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned stride = crash_runs(1, 3);

    for (unsigned i = 0; shapes[i]; i++) {
        for (const CrashVerb *verb = shapes[i]->verbs; verb->name; verb++) {
            g_autofree char *before = g_strdup_printf("%s,empty", verb->name);
            g_autofree char *after = g_strdup_printf("write-span,flush,empty,%s", verb->name);
            const char *const steps[] = { before, after };

            for (unsigned n = 0; n < G_N_ELEMENTS(steps) && i % stride == 0; n++) {
                CrashWorkload workload = { shapes[i], steps[n], 1, 100, NULL, false };
                g_autoptr(GString) why = g_string_new(NULL);
                bool ok = crash_workload_run(&workload, &counts, why);

                if (!ok) {
                    fail_msg("%s", why->str);
                }
            }
        }
    }
    crash_counts_print("qcow2, emptied, short", &counts);
    assert_true(counts.examined * stride > 2500);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned runs = crash_runs(6, 1);

    for (unsigned i = 0; shapes[i]; i++) {
        assert_true(crash_campaign_random(shapes[i], runs, 16, 100, &counts));
    }
    crash_counts_print("qcow2, emptied, long", &counts);
    assert_true(counts.examined > 400 * runs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emptying_before_and_after_anything_survives),
        cmocka_unit_test(long_random_sequences_survive),
    };
    int status;

    if (crash_campaign_asked(shapes, argc, argv, &status)) {
        return status;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
