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
#include "with-snapshot.h"

#define MAX_VERBS 64

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
/* The snapshot's entry has no extra data, which version 3 requires. */
static bool create_old_snapshot(const CrashFormat *format, CrashStore *store, GString *why);
static CrashFormat snapshot = {
    .name = "qcow2-amend-snapshot", .options = OPEN, .length = 12 * 4096, .unit = 4096,
    .base_bytes = 5 * 4096, .create = create_old_snapshot, .driver = "qcow2",
    .create_options = "size=48k,cluster_size=4k,compat=0.10", .examine = crash_snapshot_is_whole,
};
static const CrashFormat *const shapes[] = { &plain, &small, &overlay, &snapshot, NULL };

static uint64_t number_at(const CrashImage *image, int64_t offset, unsigned bytes)
{
    uint8_t buf[8] = { 0 };
    uint64_t number;

    crash_image_read(image, offset, bytes, buf + 8 - bytes);
    memcpy(&number, buf, 8);
    return GUINT64_FROM_BE(number);
}

static bool create_old_snapshot(const CrashFormat *format, CrashStore *store, GString *why)
{
    static const uint8_t none[4];
    uint8_t names[256] = { 0 };
    CrashImage *image;
    uint64_t entry, extra;

    if (!crash_create_with_snapshot(format, store, why)) {
        return false;
    }
    image = crash_store_image(store, crash_store_find(store, "image"));
    entry = number_at(image, 64, 8);
    extra = number_at(image, entry + 36, 4);
    crash_image_read(image, entry + 40 + extra, sizeof(names), names);
    crash_image_write(image, entry + 36, sizeof(none), none);
    crash_image_write(image, entry + 40, sizeof(names), names);
    return true;
}

/* These verbs, and ours, in @verbs, which has room for MAX_VERBS. */
static const CrashVerb *join_verbs(const CrashVerb *others, CrashVerb *verbs)
{
    size_t n = 0;

    for (const CrashVerb *verb = others; verb->name; verb++) {
        verbs[n++] = *verb;
    }
    g_assert(n + G_N_ELEMENTS(own_verbs) < MAX_VERBS);
    memcpy(verbs + n, own_verbs, sizeof(own_verbs));
    return verbs;
}

static void make_verbs(void)
{
    static CrashVerb disk_verbs[MAX_VERBS], fixed_verbs[MAX_VERBS];

    plain.verbs = small.verbs = overlay.verbs = join_verbs(crash_verbs_disk, disk_verbs);
    /* With snapshots, version 2 has one size. */
    snapshot.verbs = join_verbs(crash_verbs_fixed, fixed_verbs);
}

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned stride = crash_runs(1, 4);

    for (unsigned i = 0; shapes[i]; i++) {
        if (i % stride == 0) {
            assert_true(crash_campaign_sequences(shapes[i], 3, &counts));
        }
    }
    crash_counts_print("qcow2, amended, short", &counts);
    assert_true(counts.examined * stride > 1000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = { 0 };
    const unsigned runs = crash_runs(8, 1);

    for (unsigned i = 0; shapes[i]; i++) {
        assert_true(crash_campaign_random(shapes[i], runs, 16, 100, &counts));
    }
    crash_counts_print("qcow2, amended, long", &counts);
    assert_true(counts.examined > 125 * runs);
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
