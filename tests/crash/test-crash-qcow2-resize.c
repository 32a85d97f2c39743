/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts while the disk of a qcow2 image gets longer and shorter: it has one
 * length or the other, what it keeps is there, and what is new is zero.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "campaign.h"

#define OPEN "driver=qcow2,file.driver=recorder,file.disk=image"
#define SHAPE(NAME, UNIT, UNITS, BASE_UNITS, BACKING, MORE_OPEN, CREATE)                           \
    {                                                                                              \
        .name = "qcow2-resize" NAME, .options = OPEN MORE_OPEN, .length = (UNITS) * (UNIT),        \
        .unit = (UNIT), .base_bytes = (BASE_UNITS) * (UNIT), .backing = BACKING,                   \
        .create = crash_create_by_driver, .driver = "qcow2", .create_options = CREATE,             \
        .verbs = crash_verbs_disk,                                                                 \
    }

static const CrashFormat plain = SHAPE("", 4096, 12, 5, false, "", "size=48k,cluster_size=4k");
/* The disk ends where an L2 table does, so that the L1 table moves. */
static const CrashFormat small = SHAPE("-small", 8192, 8, 3, false, ",l2-cache-size=1k",
                                       "size=64k,cluster_size=512,refcount_bits=64");
static const CrashFormat old =
    SHAPE("-v2", 1024, 12, 4, false, "", "size=12k,cluster_size=1k,compat=0.10");
static const CrashFormat lazy =
    SHAPE("-lazy", 4096, 12, 5, false, "", "size=48k,cluster_size=4k,lazy_refcounts=on");
static const CrashFormat extended =
    SHAPE("-extended", 16384, 6, 2, false, "", "size=96k,cluster_size=16k,extended_l2=on");
static const CrashFormat raw_data_file =
    SHAPE("-data-file-raw", 4096, 12, 4, false, "",
          "size=48k,cluster_size=4k,data_file=recorder:data,data_file_raw=on");
static const CrashFormat overlay =
    SHAPE("-overlay", 4096, 12, 12, true, "",
          "size=48k,cluster_size=4k,backing_file=recorder:base,backing_fmt=raw");

static const CrashFormat *const shapes[] = {
    &plain, &small, &old, &lazy, &extended, &raw_data_file, &overlay, NULL,
};

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned stride = crash_runs(1, 3);

    for (unsigned i = 0; shapes[i]; i++) {
        if (i % stride == 0) {
            assert_true(crash_campaign_sequences(shapes[i], 2, &counts));
        }
    }
    crash_counts_print("qcow2, resized, short", &counts);
    assert_true(counts.examined * stride > 10000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned runs = crash_runs(6, 1);

    for (unsigned i = 0; shapes[i]; i++) {
        assert_true(crash_campaign_random(shapes[i], runs, 20, 100, &counts));
    }
    crash_counts_print("qcow2, resized, long", &counts);
    assert_true(counts.examined > 400 * runs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_of_one_and_two_survives),
        cmocka_unit_test(long_random_sequences_survive),
    };
    int status;

    if (crash_campaign_asked(shapes, argc, argv, &status)) {
        return status;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
