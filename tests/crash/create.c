/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making a format's image with its driver, as a user would.
 */
#include <string.h>

#include "workload.h"

/* The data that was there before the guest came, as request 1 of the model. */
static uint8_t *base_data(const CrashFormat *format)
{
    uint8_t *data = g_malloc(format->base_bytes);

    crash_model_fill(1, 0, format->base_bytes, data);
    return data;
}

static void make_backing_file(const CrashFormat *format, CrashStore *store)
{
    static const char *const names[] = {CRASH_BASE, CRASH_SAME_BASE};
    g_autofree uint8_t *data = base_data(format);

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        const char *name = names[i] + strlen("recorder:");
        CrashImage *image = crash_store_image(store, crash_store_add(store, name));

        crash_image_write(image, 0, format->base_bytes, data);
        crash_image_set_length(image, format->base_bytes);
    }
}

static bool write_base(const CrashFormat *format, GString *why)
{
    g_autofree uint8_t *data = base_data(format);
    g_autoptr(BlockBackend) blk = crash_open(format, why);
    int ret = blk ? blk_pwrite(blk, 0, format->base_bytes, data, 0) : 0;

    if (ret < 0) {
        g_string_append_printf(why, "writing what is there at first failed: %s",
                               g_strerror(-ret));
    }
    return blk && ret >= 0;
}

bool crash_create_by_driver(const CrashFormat *format, CrashStore *store, GString *why)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(format->create_options, NULL, &err);

    if (format->backing) {
        make_backing_file(format, store);
    }
    if (!options || !bdrv_create(bdrv_find_format(format->driver), "recorder:image", options,
                                 &err)) {
        g_string_append_printf(why, "creating failed: %s", err->message);
        return false;
    }
    return format->backing || format->base_bytes == 0 || write_base(format, why);
}
