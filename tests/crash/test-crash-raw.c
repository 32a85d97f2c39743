/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts on raw images: what was flushed is there, what was not is old or
 * new.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "campaign.h"

/* The first half has data before the guest comes. */
static const CrashFormat raw = {
    .name = "raw",
    .options = "driver=raw,file.driver=recorder,file.disk=image",
    .length = 32768,
    .unit = 4096,
    .base_bytes = 16384,
    .length_of_file = true,
    .create = crash_create_by_driver,
    .driver = "raw",
    .create_options = "size=32768",
    .verbs = crash_verbs_disk,
};

/* A part of a larger file, which it cannot outgrow. */
static bool create_window(const CrashFormat *format, CrashStore *store, GString *why)
{
    CrashImage *image = crash_store_image(store, crash_store_add(store, "image"));

    crash_image_set_length(image, 32768);
    crash_image_fill(image, 0, 1024, 0xee);
    crash_image_fill(image, 1024 + format->length, 1024, 0xee);
    return true;
}

static const CrashFormat window = {
    .name = "raw-window",
    .options = "driver=raw,offset=1024,size=16384,file.driver=recorder,file.disk=image",
    .length = 16384,
    .unit = 2048,
    .create = create_window,
    .verbs = crash_verbs_fixed,
};

static const CrashFormat *const formats[] = {&raw, &window, NULL};

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = {0};

    for (unsigned i = 0; formats[i]; i++) {
        assert_true(crash_campaign_sequences(formats[i], 200, &counts));
    }
    crash_counts_print("raw, short", &counts);
    assert_true(counts.examined > 2000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = {0};
    const unsigned runs = crash_runs(20, 5);

    for (unsigned i = 0; formats[i]; i++) {
        assert_true(crash_campaign_random(formats[i], runs, 20, 500, &counts));
    }
    crash_counts_print("raw, long", &counts);
    assert_true(counts.examined > 250 * runs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sequence_of_one_and_two_survives),
        cmocka_unit_test(long_random_sequences_survive),
    };
    int status;

    if (crash_campaign_asked(formats, argc, argv, &status)) {
        return status;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
