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
#include "util/sanitizer.h"

/* Where everything is slow: short sequences on every seventh shape, few long ones. */
#if defined(BUILT_WITH_ASAN) || defined(BUILT_WITH_TSAN)
#define PART 7
#define LONG_RUNS 1
#else
#define PART 1
#define LONG_RUNS 4
#endif

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = { 0 };

    for (unsigned i = 0; crash_qcow2_shapes[i]; i++) {
        if (i % PART == 0) {
            assert_true(crash_campaign_sequences(crash_qcow2_shapes[i], 2, &counts));
        }
    }
    crash_counts_print("qcow2, short", &counts);
    assert_true(counts.examined * PART > 10000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = { 0 };

    for (unsigned i = 0; crash_qcow2_shapes[i]; i++) {
        assert_true(crash_campaign_random(crash_qcow2_shapes[i], LONG_RUNS, 20, 150, &counts));
    }
    crash_counts_print("qcow2, long", &counts);
    assert_true(counts.examined > 800 * LONG_RUNS);
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
