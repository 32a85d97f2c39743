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

#define OPEN "driver=qcow2,discard=unmap,file.driver=recorder,file.disk=image"

static const CrashFormat plain = {
    .name = "qcow2",
    .options = OPEN,
    .length = 12 * 4096,
    .unit = 4096,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=49152,cluster_size=4096",
    .verbs = crash_verbs_fixed,
};

static const CrashFormat small = {
    .name = "qcow2-small",
    .options = OPEN ",l2-cache-size=1k",
    .length = 24 * 512,
    .unit = 512,
    .base_bytes = 6 * 512,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=12288,cluster_size=512,refcount_bits=64",
    .verbs = crash_verbs_fixed,
};

static const CrashFormat extended = {
    .name = "qcow2-extended",
    .options = OPEN,
    .length = 6 * 16384,
    .unit = 16384,
    .base_bytes = 2 * 16384,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=98304,cluster_size=16384,extended_l2=on",
    .verbs = crash_verbs_fixed,
};

static const CrashFormat old = {
    .name = "qcow2-v2",
    .options = OPEN,
    .length = 12 * 1024,
    .unit = 1024,
    .base_bytes = 4 * 1024,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=12288,cluster_size=1024,compat=0.10",
    .verbs = crash_verbs_fixed,
};

/* 60 clusters are described at first, so that tables grow under the guest. */
static const CrashFormat growing = {
    .name = "qcow2-growing",
    .options = OPEN ",l2-cache-size=1k",
    .length = 96 * 512,
    .unit = 4096,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=49152,cluster_size=512,refcount_bits=64",
    .verbs = crash_verbs_fixed,
};

static const CrashFormat lazy = {
    .name = "qcow2-lazy",
    .options = OPEN,
    .length = 12 * 4096,
    .unit = 4096,
    .base_bytes = 4 * 4096,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=49152,cluster_size=4096,lazy_refcounts=on",
    .verbs = crash_verbs_fixed,
};

static const CrashFormat *const formats[] = {
    &plain, &small, &extended, &old, &growing, &lazy, NULL,
};

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = { 0 };

    for (unsigned i = 0; formats[i]; i++) {
        assert_true(crash_campaign_sequences(formats[i], 60, &counts));
    }
    crash_counts_print("qcow2, short", &counts);
    assert_true(counts.examined > 2000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = { 0 };

    for (unsigned i = 0; formats[i]; i++) {
        assert_true(crash_campaign_random(formats[i], 10, 20, 300, &counts));
    }
    crash_counts_print("qcow2, long", &counts);
    assert_true(counts.examined > 5000);
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
