/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts on qcow2 images of many shapes: no reference is above its refcount,
 * no cluster shows what was in its place before, and what was flushed stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "campaign.h"
#include "qcow2-shapes.h"

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned stride = crash_runs(1, 7);

    for (unsigned i = 0; crash_qcow2_shapes[i]; i++) {
        if (i % stride == 0) {
            assert_true(crash_campaign_sequences(crash_qcow2_shapes[i], 2, &counts));
        }
    }
    crash_counts_print("qcow2, short", &counts);
    assert_true(counts.examined * stride > 10000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned runs = crash_runs(4, 1);

    for (unsigned i = 0; crash_qcow2_shapes[i]; i++) {
        assert_true(crash_campaign_random(crash_qcow2_shapes[i], runs, 20, 150, &counts));
    }
    crash_counts_print("qcow2, long", &counts);
    assert_true(counts.examined > 800 * runs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_of_one_and_two_survives),
        cmocka_unit_test(long_random_sequences_survive),
    };
    int status;

    if (crash_campaign_asked(crash_qcow2_shapes, argc, argv, &status)) {
        return status;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
