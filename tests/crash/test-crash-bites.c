/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The instrument finds what it is for: each mistake of the "tiny" format, and a
 * disk that lies; it can show each again; and it finds nothing in the correct
 * format.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "campaign.h"
#include "tiny.h"

#define TINY_WITH(bug, suffix, more)                                                               \
    {                                                                                              \
        .name = "tiny-" bug suffix,                                                                \
        .options = "driver=tiny,bug=" bug ",file.driver=recorder,file.disk=image" more,            \
        .length = TINY_UNIT * TINY_UNITS, .unit = TINY_UNIT, .create = tiny_create,                \
        .verbs = crash_verbs_fixed                                                                 \
    }

#define TINY(bug) TINY_WITH(bug, "", "")
#define TINY_ON_TWO_DISKS(bug)                                                                     \
    TINY_WITH(bug, "-on-two", ",data-file.driver=recorder,data-file.disk=data")

static const CrashFormat correct = TINY("none");
static const CrashFormat correct_on_two = TINY_ON_TWO_DISKS("none");
static const CrashFormat *const correct_formats[] = {&correct, &correct_on_two, NULL};

static bool create_on_lying_disk(const CrashFormat *format, CrashStore *store, GString *why)
{
    store->flush_lies = true;
    return tiny_create(format, store, why);
}

/* Runs random workloads until one goes wrong; its violation is in @why. */
static void find_violation(const CrashFormat *format, GString *why)
{
    CrashCounts counts = {0};

    for (unsigned seed = 1; seed <= 60; seed++) {
        CrashWorkload workload = {.format = format, .steps = "random12", .seed = seed,
                                  .budget = 500};

        if (!crash_workload_run(&workload, &counts, why)) {
            return;
        }
    }
    fail_msg("%s: nothing was found in %u states", format->name, (unsigned)counts.examined);
}

/* The violation must come from a power cut, and be there again when replayed alone. */
static void assert_replays(const CrashFormat *format, const char *violation)
{
    g_autoptr(GString) again = g_string_new(NULL);
    g_auto(GStrv) parts = g_strsplit(violation, "/", 3);
    CrashCounts counts = {0};
    CrashWorkload workload = {.format = format};
    char *at = strchr(parts[2], '@'), *end = at ? strstr(at, ": ") : NULL;

    if (!end) {
        fail_msg("not after a power cut: %s", violation);
    }
    *at = *end = 0;
    workload.seed = g_ascii_strtoull(parts[1], NULL, 10);
    workload.steps = parts[2];
    workload.state = at + 1;
    assert_false(crash_workload_run(&workload, &counts, again));
    assert_string_equal(again->str, violation);
    assert_int_equal(counts.examined, 1);
}

static void assert_bites(const CrashFormat *format)
{
    g_autoptr(GString) why = g_string_new(NULL);

    find_violation(format, why);
    assert_replays(format, why->str);
}

static void the_correct_format_survives(void **state)
{
    CrashCounts sequences = {0}, random = {0};
    const unsigned runs = crash_runs(30, 5);

    for (unsigned i = 0; correct_formats[i]; i++) {
        assert_true(crash_campaign_sequences(correct_formats[i], 100, &sequences));
        assert_true(crash_campaign_random(correct_formats[i], runs, 12, 500, &random));
    }
    crash_counts_print("tiny, short", &sequences);
    crash_counts_print("tiny, long", &random);
    assert_true(sequences.examined > 5000);
    assert_true(random.examined > 250 * runs);
}

static void metadata_that_reaches_the_disk_before_its_data_is_found(void **state)
{
    static const CrashFormat early = TINY("table-early"), unflushed = TINY("no-data-flush");

    assert_bites(&early);
    assert_bites(&unflushed);
}

static void a_data_disk_that_is_not_flushed_is_found(void **state)
{
    static const CrashFormat format = TINY_ON_TWO_DISKS("no-data-flush");

    assert_bites(&format);
}

static void a_flush_that_began_too_early_is_found(void **state)
{
    static const CrashFormat format = TINY("late-copy");

    assert_bites(&format);
}

static void a_torn_table_is_found(void **state)
{
    static const CrashFormat format = TINY("torn-table");

    assert_bites(&format);
}

static void a_place_reused_too_early_is_found(void **state)
{
    static const CrashFormat format = TINY("early-reuse");

    assert_bites(&format);
}

static void a_place_punched_too_early_is_found(void **state)
{
    static const CrashFormat format = TINY("early-punch");

    assert_bites(&format);
}

static void a_flush_that_leaves_metadata_behind_is_found(void **state)
{
    static const CrashFormat format = TINY("no-table");
    g_autoptr(GString) why = g_string_new(NULL);

    find_violation(&format, why);
}

static void a_disk_that_lies_about_flushes_is_found(void **state)
{
    CrashFormat lying = TINY("none");

    lying.create = create_on_lying_disk;
    assert_bites(&lying);
}

static void a_guest_that_loses_data_without_a_power_cut_is_found(void **state)
{
    static const CrashFormat format = TINY("wrong-unit");
    CrashWorkload workload = {.format = &format, .steps = "write-span,discard-unit"};
    g_autoptr(GString) why = g_string_new(NULL);
    CrashCounts counts = {0};

    assert_false(crash_workload_run(&workload, &counts, why));
    assert_non_null(strstr(why->str, "before any power cut"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_correct_format_survives),
        cmocka_unit_test(metadata_that_reaches_the_disk_before_its_data_is_found),
        cmocka_unit_test(a_data_disk_that_is_not_flushed_is_found),
        cmocka_unit_test(a_flush_that_began_too_early_is_found),
        cmocka_unit_test(a_torn_table_is_found),
        cmocka_unit_test(a_place_reused_too_early_is_found),
        cmocka_unit_test(a_place_punched_too_early_is_found),
        cmocka_unit_test(a_flush_that_leaves_metadata_behind_is_found),
        cmocka_unit_test(a_disk_that_lies_about_flushes_is_found),
        cmocka_unit_test(a_guest_that_loses_data_without_a_power_cut_is_found),
    };
    int status;

    if (crash_campaign_asked(correct_formats, argc, argv, &status)) {
        return status;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
