/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Bochs format: growing hard disk images of the Bochs emulator, both
 * versions of the header. Reading only. See docs/formats/bochs.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blockgraph/block-driver.h"

/* ---- Layout on disk: all numbers are little-endian --------------------------------- */

#define HEADER_MAGIC "Bochs Virtual HD Image" /* 32 bytes at 0, padded with zeros */
#define HEADER_TYPE "Redolog"                 /* 16 bytes at 32 */
#define HEADER_SUBTYPE "Growing"              /* 16 bytes at 48 */
#define HEADER_V1 0x00010000U
#define HEADER_V2 0x00020000U
#define HEADER_BYTES 512
#define UNALLOCATED 0xffffffffU

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

/* The catalog's entry i is UNALLOCATED or e: then guest range i lies in the
 * file's extent e, which is a bitmap and the data, both in whole sectors. */

/* Bounds of what a header may make us do. */
#define MAX_CATALOG (1U << 20)
#define MAX_EXTENT (8U << 20)
#define MAX_BITMAP (1U << 20)
#define MAX_SCAN 1024 /* extents, each way */
#define EXTENT_BITMAP_BYTES (MAX_EXTENT / BDRV_SECTOR_SIZE / 8)

/* ---- State: does not change after open ---------------------------------------------- */

typedef struct BochsState {
    uint32_t *catalog;
    uint32_t catalog_entries;
    int64_t extent_bytes;  /* of guest data */
    int64_t bitmap_bytes;  /* of the bitmap in the file, whole sectors */
    int64_t extents_start; /* where the first extent begins in the file */
} BochsState;

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
    s->bitmap_bytes = (bitmap + BDRV_SECTOR_SIZE - 1) / BDRV_SECTOR_SIZE * BDRV_SECTOR_SIZE;
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
    bdrv_set_map_unit(bs, s->extent_bytes);
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
        g_clear_pointer(&s->catalog, g_free);
        return false;
    }
    for (uint32_t i = 0; i < s->catalog_entries; i++) {
        s->catalog[i] = GUINT32_FROM_LE(s->catalog[i]);
    }
    return true;
}

static bool bochs_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    uint8_t header[HEADER_BYTES];
    BlockDriverState *file_bs;
    BdrvChild *file;
    int ret;

    if (!bdrv_apply_auto_read_only(bs, "Bochs images can only be opened read-only", errp) ||
        !bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
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
    return check_extents(bs, file_bs, header, errp) &&
           check_catalog(bs, file_bs, header, errp) &&
           read_catalog(bs, file, bdrv_get_filename(file_bs), get_le32(header + AT_HEADER_SIZE),
                        errp);
}

static void bochs_close(BlockDriverState *bs)
{
    BochsState *s = bdrv_state(bs);

    g_free(s->catalog);
}

/* ---- Mapping ----------------------------------------------------------------------------- */

/* The run of unallocated extents around extent @index, as far as it is near. */
static void map_unallocated(BlockDriverState *bs, uint32_t index, BdrvMapping *mapping)
{
    BochsState *s = bdrv_state(bs);
    uint32_t first = index, end = index + 1;

    while (first > 0 && index - first < MAX_SCAN && s->catalog[first - 1] == UNALLOCATED) {
        first--;
    }
    while (end < s->catalog_entries && end - index < MAX_SCAN &&
           s->catalog[end] == UNALLOCATED) {
        end++;
    }
    mapping->target = BDRV_MAP_UNALLOCATED;
    mapping->offset = first * s->extent_bytes;
    mapping->bytes = end * s->extent_bytes - mapping->offset;
}

static bool test_bit(const uint8_t *bitmap, int64_t bit)
{
    return bitmap[bit / 8] >> (bit % 8) & 1;
}

/* The run of equal bits around the sector of @req in its extent. */
static void GRAPH_RDLOCK map_run(BlockDriverState *bs, const BdrvMapRequest *req,
                                 const uint8_t *bitmap, int64_t data, BdrvMapping *mapping)
{
    BochsState *s = bdrv_state(bs);
    int64_t sectors = s->extent_bytes / BDRV_SECTOR_SIZE;
    int64_t first = req->offset % s->extent_bytes / BDRV_SECTOR_SIZE;
    int64_t end = first + 1;
    bool present = test_bit(bitmap, first);

    while (first > 0 && test_bit(bitmap, first - 1) == present) {
        first--;
    }
    while (end < sectors && test_bit(bitmap, end) == present) {
        end++;
    }
    mapping->offset = req->offset - req->offset % s->extent_bytes + first * BDRV_SECTOR_SIZE;
    mapping->bytes = (end - first) * BDRV_SECTOR_SIZE;
    mapping->target = BDRV_MAP_UNALLOCATED;
    if (present) {
        mapping->target = BDRV_MAP_DATA;
        mapping->child = bdrv_file_child(bs);
        mapping->child_offset = data + first * BDRV_SECTOR_SIZE;
    }
}

static int coroutine_fn bochs_co_map(BlockDriverState *bs, const BdrvMapRequest *req,
                                     BdrvMapping *mapping)
{
    BochsState *s = bdrv_state(bs);
    uint32_t index = req->offset / s->extent_bytes;
    uint8_t bitmap[EXTENT_BITMAP_BYTES];
    int64_t start, file_length;
    int ret;

    bdrv_graph_assert_readable();
    if (s->catalog[index] == UNALLOCATED) {
        map_unallocated(bs, index, mapping);
        return 0;
    }
    /* Below 2^55: the entry has 32 bits, an extent and its bitmap 9 MiB. */
    start = s->extents_start + s->catalog[index] * (s->bitmap_bytes + s->extent_bytes);
    file_length = bdrv_getlength(bdrv_child_bs(bdrv_file_child(bs)));
    if (start + s->bitmap_bytes > file_length) {
        return -EIO;
    }
    ret = bdrv_co_pread(bdrv_file_child(bs), start,
                        (s->extent_bytes / BDRV_SECTOR_SIZE + 7) / 8, bitmap, 0);
    if (ret < 0) {
        return ret;
    }
    map_run(bs, req, bitmap, start + s->bitmap_bytes, mapping);
    if (mapping->child && mapping->child_offset >= file_length) {
        return -EIO;
    }
    return 0;
}

BlockDriver block_driver_bochs = {
    .format_name = "bochs",
    .instance_size = sizeof(BochsState),
    .status_is_opaque = true,
    .bdrv_probe = bochs_probe,
    .bdrv_open = bochs_open,
    .bdrv_close = bochs_close,
    .bdrv_co_map = bochs_co_map,
};
