/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the directory of persistent bitmaps (section "Bitmaps"). */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-bitmap.h"

#define FLAGS_KNOWN 0x7U

static void clear_bitmap(gpointer data)
{
    Qcow2Bitmap *bitmap = data;

    g_free(bitmap->name);
}

GArray *qcow2_bitmaps_new(void)
{
    GArray *bitmaps = g_array_new(false, false, sizeof(Qcow2Bitmap));

    g_array_set_clear_func(bitmaps, clear_bitmap);
    return bitmaps;
}

void qcow2_bitmaps_append(GArray *bitmaps, const Qcow2Bitmap *bitmap)
{
    Qcow2Bitmap copy = *bitmap;

    copy.name = g_strdup(bitmap->name);
    g_array_append_val(bitmaps, copy);
}

Qcow2Bitmap *qcow2_bitmaps_find(GArray *bitmaps, const char *name)
{
    for (guint i = 0; i < bitmaps->len; i++) {
        Qcow2Bitmap *bm = &g_array_index(bitmaps, Qcow2Bitmap, i);

        if (strcmp(bm->name, name) == 0) {
            return bm;
        }
    }
    return NULL;
}

uint64_t qcow2_bitmap_table_size(const Qcow2Geometry *geo, uint64_t length,
                                 unsigned granularity_bits)
{
    /* log2 of the bytes of the disk that one cluster of bits stands for: < 64. */
    unsigned shift = geo->cluster_bits + 3 + granularity_bits;

    return MAX((length >> shift) + ((length & ((1ULL << shift) - 1)) != 0), 1);
}

bool qcow2_bitmap_table_entry_valid(const Qcow2Geometry *geo, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    return !(entry & QCOW2_BITMAP_TABLE_RESERVED) && !(offset && (entry & 1)) &&
           !qcow2_offset_into_cluster(geo, offset);
}

/* ---- Reading the directory ------------------------------------------------------- */

static bool check_entry(const Qcow2State *s, const Qcow2Bitmap *bm, uint32_t index,
                        size_t name_size, GError **errp)
{
    const struct {
        bool bad;
        const char *field;
        uint64_t value;
    } tests[] = {
        { bm->type != QCOW2_BITMAP_TYPE_DIRTY_TRACKING, "type", bm->type },
        { bm->granularity_bits < QCOW2_BITMAP_MIN_GRANULARITY_BITS ||
              bm->granularity_bits > QCOW2_BITMAP_MAX_GRANULARITY_BITS,
          "granularity_bits", bm->granularity_bits },
        { name_size == 0 || name_size > QCOW2_MAX_BITMAP_NAME, "name_size", name_size },
        { bm->flags & ~FLAGS_KNOWN, "flags", bm->flags },
        { bm->table_offset == 0 || qcow2_offset_into_cluster(&s->geo, bm->table_offset),
          "bitmap_table_offset", bm->table_offset },
        { bm->table_size == 0 ||
              bm->table_size > QCOW2_MAX_BITMAP_BYTES >> s->geo.cluster_bits,
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
    if (bm->extra_data_size > 0) {
        block_error_set(errp, ENOTSUP,
                        "'%s': bitmap directory entry %u: Bitmap extra data is not supported "
                        "(extra_data_size %u)", s->name, index, bm->extra_data_size);
        return false;
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

    if (left < QCOW2_BITMAP_ENTRY_FIXED) {
        return exceeds_directory(s, index, *at, errp);
    }
    if (!window_get(s, w, *at, QCOW2_BITMAP_ENTRY_FIXED, &p, errp)) {
        return false;
    }
    bm->table_offset = qcow2_be64(p);
    bm->table_size = qcow2_be32(p + 8);
    bm->flags = qcow2_be32(p + 12);
    bm->type = p[16];
    bm->granularity_bits = p[17];
    name_size = qcow2_be16(p + 18);
    bm->extra_data_size = qcow2_be32(p + 20);
    name_at = QCOW2_BITMAP_ENTRY_FIXED + (uint64_t)bm->extra_data_size;
    length = name_at + name_size;
    if (length > left) {
        return exceeds_directory(s, index, *at, errp);
    }
    if (!check_entry(s, bm, index, name_size, errp) ||
        !window_get(s, w, *at + name_at, name_size, &p, errp)) {
        return false;
    }
    bm->name = g_strndup((const char *)p, name_size);
    bm->entry_offset = s->ext.bitmap_directory_offset + *at;
    *at += MIN((length + 7) & ~7ULL, left);
    return true;
}

static bool GRAPH_RDLOCK check_directory(Qcow2State *s, GError **errp)
{
    uint64_t end, file_length = qcow2_file_length(s);

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
        return false;
    }
    return true;
}

GArray *coroutine_mixed_fn qcow2_bitmaps_load(Qcow2State *s, GError **errp)
{
    g_autoptr(GArray) bitmaps = qcow2_bitmaps_new();
    Qcow2Window window = { .file = s->file };
    uint64_t at = 0;
    bool ok = check_directory(s, errp);

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

/* ---- Listing it without keeping it ------------------------------------------------- */

typedef struct Qcow2BitmapReader {
    Qcow2Window window;
    uint32_t next; /* entry, */
    uint64_t at;   /* and where it begins */
    Qcow2Bitmap bm; /* the one before */
} Qcow2BitmapReader;

/* Make entry @index the one that is held. */
static bool coroutine_mixed_fn reader_seek(Qcow2State *s, uint32_t index, GError **errp)
{
    Qcow2BitmapReader *r = s->bitmap_reader;

    if (index + 1 < r->next) {
        r->next = 0;
        r->at = 0;
    }
    while (r->next <= index) {
        clear_bitmap(&r->bm);
        r->bm = (Qcow2Bitmap){ 0 };
        if (!load_entry(s, &r->window, r->next, &r->at, &r->bm, errp)) {
            r->next = 0; /* none is held */
            r->at = 0;
            return false;
        }
        r->next++;
    }
    return true;
}

bool coroutine_mixed_fn qcow2_bitmap_reader_open(Qcow2State *s, GError **errp)
{
    if (!check_directory(s, errp)) {
        return false;
    }
    s->bitmap_reader = g_new0(Qcow2BitmapReader, 1);
    s->bitmap_reader->window.file = s->file;
    return s->ext.nb_bitmaps == 0 || reader_seek(s, s->ext.nb_bitmaps - 1, errp);
}

void qcow2_bitmap_reader_close(Qcow2State *s)
{
    if (s->bitmap_reader) {
        qcow2_window_clear(&s->bitmap_reader->window);
        clear_bitmap(&s->bitmap_reader->bm);
        g_clear_pointer(&s->bitmap_reader, g_free);
    }
}

int qcow2_stored_bitmap_get(BlockDriverState *bs, size_t index, BdrvStoredBitmapInfo *info,
                            GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    const Qcow2Bitmap *bm;

    if (index >= (s->bitmap_reader ? s->ext.nb_bitmaps : s->bitmaps->len)) {
        return 0;
    }
    if (!s->bitmap_reader) {
        bm = &g_array_index(s->bitmaps, Qcow2Bitmap, index);
    } else if (reader_seek(s, index, errp)) {
        bm = &s->bitmap_reader->bm;
    } else {
        return -EIO;
    }
    *info = (BdrvStoredBitmapInfo){
        .name = bm->name,
        .granularity = INT64_C(1) << bm->granularity_bits,
        .in_use = bm->flags & QCOW2_BITMAP_IN_USE,
        .is_auto = bm->flags & QCOW2_BITMAP_AUTO,
    };
    return 1;
}

/* ---- Writing it ------------------------------------------------------------------- */

uint64_t qcow2_bitmap_entry_bytes(const char *name)
{
    return (QCOW2_BITMAP_ENTRY_FIXED + strlen(name) + 7) & ~7ULL;
}

static void append_number(GByteArray *array, uint64_t value, unsigned bytes)
{
    for (unsigned i = bytes; i-- > 0;) {
        uint8_t byte = value >> 8 * i;

        g_byte_array_append(array, &byte, 1);
    }
}

GByteArray *qcow2_bitmaps_encode(GArray *bitmaps, uint64_t offset)
{
    static const uint8_t padding[8];
    GByteArray *directory = g_byte_array_new();

    for (guint i = 0; i < bitmaps->len; i++) {
        Qcow2Bitmap *bm = &g_array_index(bitmaps, Qcow2Bitmap, i);

        bm->entry_offset = offset + directory->len;
        append_number(directory, bm->table_offset, 8);
        append_number(directory, bm->table_size, 4);
        append_number(directory, bm->flags, 4);
        append_number(directory, bm->type, 1);
        append_number(directory, bm->granularity_bits, 1);
        append_number(directory, strlen(bm->name), 2);
        append_number(directory, 0, 4); /* no extra data */
        g_byte_array_append(directory, (const uint8_t *)bm->name, strlen(bm->name));
        g_byte_array_append(directory, padding, -directory->len & 7);
    }
    return directory;
}
