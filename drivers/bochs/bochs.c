/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Bochs format: growing hard disk images of the Bochs emulator, both
 * versions of the header. See docs/formats/bochs.md.
 *
 * Here: the header, opening, closing, and the driver's table.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/bochs/bochs.h"

/* ---- Layout on disk: all numbers are little-endian --------------------------------- */

#define HEADER_MAGIC "Bochs Virtual HD Image" /* 32 bytes at 0, padded with zeros */
#define HEADER_TYPE "Redolog"                 /* 16 bytes at 32 */
#define HEADER_SUBTYPE "Growing"              /* 16 bytes at 48 */
#define HEADER_V1 0x00010000U
#define HEADER_V2 0x00020000U
#define HEADER_BYTES 512

/* Offsets of what follows. */
enum {
    AT_MAGIC = 0,
    AT_TYPE = 32,
    AT_SUBTYPE = 48,
    AT_VERSION = 64,
    AT_HEADER_SIZE = 68, /* bytes */
    AT_CATALOG = 72,     /* entries, 4 bytes each, behind the header */
    AT_BITMAP = 76,      /* bytes of an extent's bitmap, one bit per sector */
    AT_EXTENT = 80,      /* bytes of data in an extent */
    AT_DISK_V1 = 84,     /* bytes, 64 bits */
    AT_DISK_V2 = 88,     /* the same, behind a 32-bit time stamp */
    FIELDS_END = 96,
};

/* The catalog's entry i is BOCHS_UNALLOCATED, or the number of the place in the
 * file where extent i of the disk lies. */

/* Bounds of what a header may make us do. */
#define MAX_CATALOG (1U << 20)
#define MAX_EXTENT (8U << 20)
#define MAX_BITMAP (1U << 20)

static int64_t whole_sectors(int64_t bytes)
{
    return bytes + (-bytes & (BDRV_SECTOR_SIZE - 1));
}

static uint32_t get_le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get_le64(const uint8_t *p)
{
    return get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}

/* ---- Probing -------------------------------------------------------------------------- */

/* Whether the field holds this string and a NUL, for which it has room. */
static bool has_string(const uint8_t *p, const char *s)
{
    return memcmp(p, s, strlen(s) + 1) == 0;
}

static int bochs_probe(const uint8_t *buf, size_t size, const char *filename)
{
    uint32_t version;

    if (size < HEADER_BYTES) {
        return 0;
    }
    version = get_le32(buf + AT_VERSION);
    return has_string(buf + AT_MAGIC, HEADER_MAGIC) &&
                   has_string(buf + AT_TYPE, HEADER_TYPE) &&
                   has_string(buf + AT_SUBTYPE, HEADER_SUBTYPE) &&
                   (version == HEADER_V1 || version == HEADER_V2)
               ? 100
               : 0;
}

/* ---- Opening --------------------------------------------------------------------------- */

static bool refuse(BlockDriverState *file, const char *field, uint64_t value, const char *why,
                   GError **errp)
{
    block_error_set(errp, EINVAL, "Could not open '%s': %s %" PRIu64 " in the Bochs header %s",
                    bdrv_get_filename(file), field, value, why);
    return false;
}

static bool check_extents(BlockDriverState *bs, BlockDriverState *file, const uint8_t *header,
                          GError **errp)
{
    BochsState *s = bdrv_state(bs);
    uint32_t extent = get_le32(header + AT_EXTENT);
    uint32_t bitmap = get_le32(header + AT_BITMAP);

    if (extent < BDRV_SECTOR_SIZE) {
        return refuse(file, "extent size", extent, "is smaller than a sector", errp);
    }
    if (extent > MAX_EXTENT || (extent & (extent - 1)) != 0) {
        return refuse(file, "extent size", extent, "is no power of two up to 8 MiB", errp);
    }
    if (bitmap > MAX_BITMAP || bitmap * 8 < extent / BDRV_SECTOR_SIZE) {
        return refuse(file, "bitmap size", bitmap, "does not fit the extent size", errp);
    }
    s->extent_bytes = extent;
    s->bitmap_bytes = whole_sectors(bitmap);
    s->bitmap_room = whole_sectors((extent / BDRV_SECTOR_SIZE + 7) / 8);
    return true;
}

static bool check_catalog(BlockDriverState *bs, BlockDriverState *file, const uint8_t *header,
                          GError **errp)
{
    BochsState *s = bdrv_state(bs);
    uint32_t header_size = get_le32(header + AT_HEADER_SIZE);
    uint32_t entries = get_le32(header + AT_CATALOG);
    bool is_v1 = get_le32(header + AT_VERSION) == HEADER_V1;
    uint64_t disk = get_le64(header + (is_v1 ? AT_DISK_V1 : AT_DISK_V2));

    if (header_size < FIELDS_END) {
        return refuse(file, "header size", header_size, "is smaller than the header", errp);
    }
    if (entries > MAX_CATALOG) {
        return refuse(file, "catalog size", entries, "is too large", errp);
    }
    s->extents_start = (int64_t)header_size + (int64_t)entries * 4;
    if (s->extents_start > bdrv_getlength(file)) {
        return refuse(file, "catalog size", entries, "leads beyond the end of the file", errp);
    }
    if (disk > BDRV_MAX_LENGTH) {
        return refuse(file, "disk size", disk, "is too large", errp);
    }
    disk -= disk % BDRV_SECTOR_SIZE;
    if ((disk + s->extent_bytes - 1) / s->extent_bytes > entries) {
        return refuse(file, "catalog size", entries, "is too small for the disk size", errp);
    }
    s->catalog_entries = entries;
    bdrv_set_length(bs, disk);
    bdrv_set_map_unit(bs, BDRV_SECTOR_SIZE);
    return true;
}

static bool read_catalog(BlockDriverState *bs, BdrvChild *file, const char *filename,
                         int64_t offset, GError **errp)
{
    BochsState *s = bdrv_state(bs);
    int64_t bytes = (int64_t)s->catalog_entries * 4;
    int ret;

    s->catalog = g_try_malloc(MAX(bytes, 1));
    ret = s->catalog ? bdrv_pread(file, offset, bytes, s->catalog, 0) : -ENOMEM;
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not read the catalog of '%s'", filename);
        return false;
    }
    for (uint32_t i = 0; i < s->catalog_entries; i++) {
        s->catalog[i] = GUINT32_FROM_LE(s->catalog[i]);
    }
    return true;
}

static int compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Writing to a place that two extents share, or that is not there, would do harm. */
static char *find_catalog_damage(BochsState *s, int64_t file_length)
{
    g_autofree uint32_t *sorted = g_memdup2(s->catalog, MAX(s->catalog_entries, 1) * 4);

    qsort(sorted, s->catalog_entries, sizeof(*sorted), compare_numbers);
    for (uint32_t i = 0; i < s->catalog_entries && sorted[i] != BOCHS_UNALLOCATED; i++) {
        if (i > 0 && sorted[i] == sorted[i - 1]) {
            return g_strdup_printf("two entries of the catalog are %" PRIu32, sorted[i]);
        }
        if (bochs_place(s, sorted[i]) + s->bitmap_bytes > file_length) {
            return g_strdup_printf("entry %" PRIu32 " of the catalog leads beyond the end",
                                   sorted[i]);
        }
        s->next = sorted[i] + 1;
    }
    return NULL;
}

/*
 * Make ready for writing. Why that cannot be, if the image is damaged, or would not
 * be understood by Bochs; else NULL.
 */
static char *prepare_writing(BochsState *s, BlockDriverState *file)
{
    int64_t catalog_start = s->extents_start - 4 * (int64_t)s->catalog_entries;
    g_autofree char *damage = NULL;

    damage = catalog_start == BOCHS_CATALOG_START
                 ? find_catalog_damage(s, bdrv_getlength(file))
                 : g_strdup_printf("its header has %" PRId64 " bytes", catalog_start);
    if (damage) {
        return g_strdup_printf("Could not open '%s' for writing: %s", bdrv_get_filename(file),
                               damage);
    }
    s->stored = g_new(uint32_t, MAX(s->catalog_entries, 1));
    for (uint32_t i = 0; i < s->catalog_entries; i++) {
        s->stored[i] = GUINT32_TO_LE(s->catalog[i]);
    }
    return NULL;
}

static bool become_writable(BlockDriverState *bs, BlockDriverState *file, GError **errp)
{
    g_autofree char *reason = prepare_writing(bdrv_state(bs), file);

    return !reason || bdrv_apply_auto_read_only(bs, reason, errp);
}

static bool read_image(BlockDriverState *bs, GError **errp)
{
    BlockDriverState *file_bs;
    BdrvChild *file;
    uint8_t header[HEADER_BYTES];
    uint32_t catalog_start;
    int ret;

    bdrv_graph_rdlock_main_loop();
    file = bdrv_file_child(bs);
    file_bs = bdrv_child_bs(file);
    bdrv_graph_rdunlock_main_loop();
    ret = bdrv_pread(file, 0, sizeof(header), header, 0);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not read the header of '%s'",
                              bdrv_get_filename(file_bs));
        return false;
    }
    if (bochs_probe(header, sizeof(header), NULL) == 0) {
        block_error_set(errp, EINVAL, "Image not in Bochs format");
        return false;
    }
    catalog_start = get_le32(header + AT_HEADER_SIZE);
    return check_extents(bs, file_bs, header, errp) && check_catalog(bs, file_bs, header, errp) &&
           read_catalog(bs, file, bdrv_get_filename(file_bs), catalog_start, errp) &&
           (!bdrv_is_writable(bs) || become_writable(bs, file_bs, errp));
}

static void bochs_close(BlockDriverState *bs)
{
    BochsState *s = bdrv_state(bs);

    bochs_extents_destroy(s);
    g_free(s->stored);
    g_free(s->catalog);
}

static bool bochs_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    BochsState *s = bdrv_state(bs);

    s->bs = bs;
    bochs_extents_init(s);
    if (bdrv_open_file_child(bs, options, errp) && read_image(bs, errp)) {
        return true;
    }
    bochs_close(bs);
    return false;
}

/* What is made ready for writing stays: nobody else changes the catalog. */
static bool bochs_reopen_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    BochsState *s = bdrv_state(state->bs);
    g_autofree char *reason = NULL;
    BlockDriverState *file;

    if (!(state->flags & BDRV_O_RDWR) || s->stored) {
        return true;
    }
    bdrv_graph_rdlock_main_loop();
    file = bdrv_child_bs(bdrv_file_child(state->bs));
    bdrv_graph_rdunlock_main_loop();
    reason = prepare_writing(s, file);
    if (reason) {
        block_error_set(errp, EACCES, "%s", reason);
    }
    return !reason;
}

static void bochs_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->pwrite_zeroes_alignment = BDRV_SECTOR_SIZE;
    limits->pdiscard_alignment = BDRV_SECTOR_SIZE;
}

static int coroutine_fn bochs_co_flush(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bochs_write_back(bdrv_state(bs));
}

BlockDriver block_driver_bochs = {
    .format_name = "bochs",
    .instance_size = sizeof(BochsState),
    .status_is_opaque = true,
    .bdrv_probe = bochs_probe,
    .bdrv_open = bochs_open,
    .bdrv_close = bochs_close,
    .bdrv_reopen_prepare = bochs_reopen_prepare,
    .bdrv_refresh_limits = bochs_refresh_limits,
    .bdrv_co_map = bochs_co_map,
    .bdrv_co_map_commit = bochs_co_map_commit,
    .bdrv_co_map_abort = bochs_co_map_abort,
    .bdrv_co_flush = bochs_co_flush,
};
