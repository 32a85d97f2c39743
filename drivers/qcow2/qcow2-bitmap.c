/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the directory of persistent bitmaps (section "Bitmaps"). */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2.h"

#define ENTRY_FIXED 24
#define FLAGS_KNOWN 0x7U
#define TYPE_DIRTY_TRACKING 1
#define MIN_GRANULARITY_BITS 9
#define MAX_GRANULARITY_BITS 31
#define MAX_TABLE_ENTRIES 0x8000000U

static void clear_bitmap(gpointer data)
{
    Qcow2Bitmap *bitmap = data;

    g_free(bitmap->name);
}

static bool check_entry(const Qcow2State *s, const Qcow2Bitmap *bm, uint32_t index,
                        size_t name_size, GError **errp)
{
    const struct {
        bool bad;
        const char *field;
        uint64_t value;
    } tests[] = {
        { bm->type != TYPE_DIRTY_TRACKING, "type", bm->type },
        { bm->granularity_bits < MIN_GRANULARITY_BITS ||
              bm->granularity_bits > MAX_GRANULARITY_BITS,
          "granularity_bits", bm->granularity_bits },
        { name_size == 0 || name_size > QCOW2_MAX_BITMAP_NAME, "name_size", name_size },
        { bm->flags & ~FLAGS_KNOWN, "flags", bm->flags },
        { bm->table_offset == 0 || qcow2_offset_into_cluster(&s->geo, bm->table_offset),
          "bitmap_table_offset", bm->table_offset },
        { bm->table_size == 0 || bm->table_size > MAX_TABLE_ENTRIES,
          "bitmap_table_size", bm->table_size },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        if (tests[i].bad) {
            block_error_set(errp, EINVAL,
                            "'%s': bitmap directory entry %u: %s %" G_GUINT64_FORMAT
                            " is not valid",
                            s->name, index, tests[i].field, tests[i].value);
            return false;
        }
    }
    return true;
}

static bool exceeds_directory(const Qcow2State *s, uint32_t index, uint64_t at, GError **errp)
{
    block_error_set(errp, EINVAL,
                    "'%s': bitmap directory entry %u at %" G_GUINT64_FORMAT
                    " exceeds bitmap_directory_size %" G_GUINT64_FORMAT,
                    s->name, index, at, s->ext.bitmap_directory_size);
    return false;
}

static bool coroutine_mixed_fn window_get(const Qcow2State *s, Qcow2Window *w, uint64_t at,
                                          size_t bytes, const uint8_t **data, GError **errp)
{
    uint64_t offset = s->ext.bitmap_directory_offset + at;
    int ret = qcow2_window_get(w, offset, bytes, data);

    if (ret < 0) {
        block_error_set_errno(errp, -ret,
                              "'%s': could not read the bitmap directory at offset "
                              "%" G_GUINT64_FORMAT,
                              s->name, offset);
    }
    return ret >= 0;
}

/* Load entry @index at *@at of the directory, and move *@at behind it. */
static bool coroutine_mixed_fn load_entry(const Qcow2State *s, Qcow2Window *w, uint32_t index,
                                          uint64_t *at, Qcow2Bitmap *bm, GError **errp)
{
    uint64_t left = s->ext.bitmap_directory_size - *at, name_at, length;
    uint16_t name_size;
    const uint8_t *p;

    if (left < ENTRY_FIXED) {
        return exceeds_directory(s, index, *at, errp);
    }
    if (!window_get(s, w, *at, ENTRY_FIXED, &p, errp)) {
        return false;
    }
    bm->table_offset = qcow2_be64(p);
    bm->table_size = qcow2_be32(p + 8);
    bm->flags = qcow2_be32(p + 12);
    bm->type = p[16];
    bm->granularity_bits = p[17];
    name_size = qcow2_be16(p + 18);
    bm->extra_data_size = qcow2_be32(p + 20);
    name_at = ENTRY_FIXED + (uint64_t)bm->extra_data_size;
    length = name_at + name_size;
    if (length > left) {
        return exceeds_directory(s, index, *at, errp);
    }
    if (!check_entry(s, bm, index, name_size, errp) ||
        !window_get(s, w, *at + name_at, name_size, &p, errp)) {
        return false;
    }
    bm->name = g_strndup((const char *)p, name_size);
    *at += MIN((length + 7) & ~7ULL, left);
    return true;
}

GArray *coroutine_mixed_fn qcow2_bitmaps_load(Qcow2State *s, GError **errp)
{
    g_autoptr(GArray) bitmaps = g_array_new(false, false, sizeof(Qcow2Bitmap));
    Qcow2Window window = { .file = s->file };
    uint64_t at = 0, end, file_length = qcow2_file_length(s);
    bool ok = true;

    g_array_set_clear_func(bitmaps, clear_bitmap);
    if (s->ext.nb_bitmaps > 0 &&
        (__builtin_add_overflow(s->ext.bitmap_directory_offset, s->ext.bitmap_directory_size,
                                &end) ||
         end > file_length)) {
        block_error_set(errp, EINVAL,
                        "'%s': bitmap_directory_offset %" G_GUINT64_FORMAT
                        " with %" G_GUINT64_FORMAT
                        " bytes goes beyond the end of the file (%" G_GUINT64_FORMAT " bytes)",
                        s->name, s->ext.bitmap_directory_offset,
                        s->ext.bitmap_directory_size, file_length);
        return NULL;
    }
    for (uint32_t i = 0; i < s->ext.nb_bitmaps && ok; i++) {
        Qcow2Bitmap bm = { 0 };

        ok = load_entry(s, &window, i, &at, &bm, errp);
        if (ok) {
            g_array_append_val(bitmaps, bm);
        }
    }
    qcow2_window_clear(&window);
    return ok ? g_steal_pointer(&bitmaps) : NULL;
}
