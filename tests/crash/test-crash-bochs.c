/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts on Bochs images: no sector shows what was in its place before, an
 * extent's bitmap is there before the catalog refers to it, and what was flushed
 * stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "campaign.h"

#define EXTENT 2048
#define ENTRIES 128 /* so that places begin a sector, as those of bximage do */
#define PLACES_AT (512 + 4 * ENTRIES)
#define PLACE (512 + EXTENT) /* bitmap and data */
#define STALE 0xee

/* ---- Images: see docs/formats/bochs.md for the layout -------------------------------- */

static void put32(uint8_t *p, uint32_t value)
{
    value = GUINT32_TO_LE(value);
    memcpy(p, &value, 4);
}

/*
 * Extents 0 and 1 are there, in the other order, with all bits set if base_bytes
 * says so. Behind them lies what a power cut may leave: places that the catalog
 * does not have, full of old bits and data.
 */
static bool create(const CrashFormat *format, CrashStore *store, GString *why)
{
    CrashImage *image = crash_store_image(store, crash_store_add(store, "image"));
    uint8_t header[PLACES_AT] = "Bochs Virtual HD Image", data[EXTENT], bitmap = 0x0f;

    strcpy((char *)header + 32, "Redolog");
    strcpy((char *)header + 48, "Growing");
    put32(header + 64, 0x20000);
    put32(header + 68, 512);
    put32(header + 72, ENTRIES);
    put32(header + 76, 1);
    put32(header + 80, EXTENT);
    put32(header + 88, format->length);
    memset(header + 512, 0xff, 4 * ENTRIES);
    for (int i = 0; i < format->base_bytes / EXTENT; i++) {
        int64_t place = PLACES_AT + (1 - i) * PLACE;

        put32(header + 512 + 4 * i, 1 - i);
        crash_model_fill(1, i * EXTENT, EXTENT, data);
        crash_image_write(image, place, 1, &bitmap);
        crash_image_write(image, place + 512, EXTENT, data);
    }
    crash_image_write(image, 0, sizeof(header), header);
    if (format->base_bytes > 0) {
        crash_image_fill(image, PLACES_AT + 2 * PLACE, PLACE + 700, STALE);
        crash_image_set_length(image, PLACES_AT + 3 * PLACE + 700);
    } else {
        crash_image_set_length(image, PLACES_AT);
    }
    return true;
}

static const CrashFormat fresh = {
    .name = "bochs",
    .options = "driver=bochs,discard=unmap,file.driver=recorder,file.disk=image",
    .length = 8 * EXTENT,
    .unit = EXTENT,
    .create = create,
    .verbs = crash_verbs_fixed,
};

static const CrashFormat used = {
    .name = "bochs-used",
    .options = "driver=bochs,discard=unmap,file.driver=recorder,file.disk=image",
    .length = 8 * EXTENT,
    .unit = EXTENT,
    .base_bytes = 2 * EXTENT,
    .create = create,
    .verbs = crash_verbs_fixed,
};

static const CrashFormat *const formats[] = {&fresh, &used, NULL};

static void every_sequence_of_one_and_two_survives(void **state)
{
    CrashCounts counts = {0};

    for (unsigned i = 0; formats[i]; i++) {
        assert_true(crash_campaign_sequences(formats[i], 200, &counts));
    }
    crash_counts_print("bochs, short", &counts);
    assert_true(counts.examined > 2000);
}

static void long_random_sequences_survive(void **state)
{
    CrashCounts counts = {0};
    const unsigned runs = crash_runs(20, 5);

    for (unsigned i = 0; formats[i]; i++) {
        assert_true(crash_campaign_random(formats[i], runs, 20, 500, &counts));
    }
    crash_counts_print("bochs, long", &counts);
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
