/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts while qcow2 images are amended: version, refcount width, lazy refcounts,
 * size. What the guest has stays, and the image is whole at each moment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "campaign.h"

static void amend(CrashRun *run, const char *text)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, &err);

    if (!options || !bdrv_amend(blk_bs(run->blk), options, NULL, NULL, &err)) {
        g_string_append_printf(run->why, "amending %s failed: %s; ", text, err->message);
    }
}

static void verb_old(CrashRun *run, CrashPlace place)
{
    amend(run, "compat=0.10,refcount_bits=16");
}

static void verb_new(CrashRun *run, CrashPlace place)
{
    amend(run, "compat=1.1");
}

static void verb_narrow(CrashRun *run, CrashPlace place)
{
    amend(run, "compat=1.1,refcount_bits=8");
}

static void verb_wide(CrashRun *run, CrashPlace place)
{
    amend(run, "compat=1.1,refcount_bits=64");
}

static void verb_lazy(CrashRun *run, CrashPlace place)
{
    amend(run, "compat=1.1,lazy_refcounts=on");
}

static void verb_diligent(CrashRun *run, CrashPlace place)
{
    amend(run, "lazy_refcounts=off");
}

static const CrashVerb own_verbs[] = {
    { "old", NULL, verb_old, 0, 0, 0, 0 },
    { "new", NULL, verb_new, 0, 0, 0, 0 },
    { "narrow", NULL, verb_narrow, 0, 0, 0, 0 },
    { "wide", NULL, verb_wide, 0, 0, 0, 0 },
    { "lazy", NULL, verb_lazy, 0, 0, 0, 0 },
    { "diligent", NULL, verb_diligent, 0, 0, 0, 0 },
};

#define OPEN "driver=qcow2,file.driver=recorder,file.disk=image"
#define SHAPE(NAME, UNIT, UNITS, BASE_UNITS, BACKING, CREATE)                                      \
    {                                                                                              \
        .name = "qcow2-amend" NAME, .options = OPEN, .length = (UNITS) * (UNIT), .unit = (UNIT),   \
        .base_bytes = (BASE_UNITS) * (UNIT), .backing = BACKING,                                   \
        .create = crash_create_by_driver, .driver = "qcow2", .create_options = CREATE,             \
    }

static CrashFormat plain = SHAPE("", 4096, 12, 5, false, "size=48k,cluster_size=4k");
static CrashFormat small = SHAPE("-small", 1024, 24, 6, false, "size=24k,cluster_size=512");
static CrashFormat overlay =
    SHAPE("-overlay", 4096, 12, 12, true,
          "size=48k,cluster_size=4k,compat=0.10,backing_file=recorder:base,backing_fmt=raw");
static const CrashFormat *const shapes[] = { &plain, &small, &overlay, NULL };

/* The verbs for disks, and ours. */
static void make_verbs(void)
{
    static CrashVerb verbs[64];
    size_t n = 0;

    for (const CrashVerb *verb = crash_verbs_disk; verb->name; verb++) {
        verbs[n++] = *verb;
    }
    g_assert(n + G_N_ELEMENTS(own_verbs) < G_N_ELEMENTS(verbs));
    memcpy(verbs + n, own_verbs, sizeof(own_verbs));
    plain.verbs = small.verbs = overlay.verbs = verbs;
}

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = { 0 };

    for (unsigned i = 0; shapes[i]; i++) {
        assert_true(crash_campaign_sequences(shapes[i], 3, &counts));
    }
    crash_counts_print("qcow2, amended, short", &counts);
    assert_true(counts.examined > 1000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = { 0 };

    for (unsigned i = 0; shapes[i]; i++) {
        assert_true(crash_campaign_random(shapes[i], 8, 16, 100, &counts));
    }
    crash_counts_print("qcow2, amended, long", &counts);
    assert_true(counts.examined > 1000);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_of_one_and_two_survives),
        cmocka_unit_test(long_random_sequences_survive),
    };
    int status;

    make_verbs();
    if (crash_campaign_asked(shapes, argc, argv, &status)) {
        return status;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
