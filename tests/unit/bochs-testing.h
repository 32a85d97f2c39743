/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bochs images for tests, built byte by byte, and what they read as. */
#ifndef TESTS_BOCHS_TESTING_H
#define TESTS_BOCHS_TESTING_H

#include "driver-testing.h"

#define SECTOR 512
#define EXTENT 16384
#define ENTRIES 16
#define DISK ((ENTRIES - 1) * EXTENT + 3 * SECTOR) /* the last extent is cut */
#define CATALOG_AT 512
#define EXTENTS_AT (CATALOG_AT + 4 * ENTRIES)
#define SLOT (SECTOR + EXTENT) /* an extent in the file: bitmap, data */
#define UNALLOCATED 0xffffffffU

/* Offsets of header fields; all are 32 bits wide but for the disk size. */
enum { VERSION = 64, HEADER_SIZE = 68, CATALOG = 72, BITMAP = 76, EXTENT_SIZE = 80 };

/* ---- Images, built here: see docs/formats/bochs.md for the layout -------------------- */

typedef struct Image {
    uint8_t *file;
    size_t size;
    uint8_t model[ENTRIES * EXTENT]; /* what the disk reads as */
    int version;
    int used; /* extents of the file */
} Image;

static inline void put32(Image *image, size_t at, uint32_t value)
{
    value = GUINT32_TO_LE(value);
    memcpy(image->file + at, &value, 4);
}

static inline void put_disk_size(Image *image, uint64_t value)
{
    value = GUINT64_TO_LE(value);
    memcpy(image->file + (image->version == 1 ? 84 : 88), &value, 8);
}

static inline Image *image_new(int version)
{
    Image *image = g_new0(Image, 1);

    image->version = version;
    image->size = EXTENTS_AT;
    image->file = g_malloc0(EXTENTS_AT + ENTRIES * SLOT);
    strcpy((char *)image->file, "Bochs Virtual HD Image");
    strcpy((char *)image->file + 32, "Redolog");
    strcpy((char *)image->file + 48, "Growing");
    put32(image, VERSION, version << 16);
    put32(image, HEADER_SIZE, CATALOG_AT);
    put32(image, CATALOG, ENTRIES);
    put32(image, BITMAP, EXTENT / SECTOR / 8);
    put32(image, EXTENT_SIZE, EXTENT);
    put_disk_size(image, DISK);
    for (int i = 0; i < ENTRIES; i++) {
        put32(image, CATALOG_AT + 4 * i, UNALLOCATED);
    }
    return image;
}

static inline void image_free(Image *image)
{
    g_free(image->file);
    g_free(image);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Image, image_free)

/* Give guest extent @index the next place in the file. */
static inline void image_allocate(Image *image, int index)
{
    put32(image, CATALOG_AT + 4 * index, image->used++);
    image->size += SLOT;
}

/* Write a pattern to sector @sector of guest extent @index. */
static inline void image_write(Image *image, int index, int sector)
{
    uint32_t slot;
    uint8_t *place;

    memcpy(&slot, image->file + CATALOG_AT + 4 * index, 4);
    place = image->file + EXTENTS_AT + GUINT32_FROM_LE(slot) * SLOT;
    place[sector / 8] |= 1 << sector % 8;
    memset(image->model + index * EXTENT + sector * SECTOR, 1 + index * 32 + sector, SECTOR);
    memcpy(place + SECTOR + sector * SECTOR, image->model + index * EXTENT + sector * SECTOR,
           SECTOR);
}

/* Scattered sectors, a whole extent, runs, extents not in the disk's order. */
static inline Image *sample(int version)
{
    Image *image = image_new(version);
    static const int order[] = {3, 0, 15, 4};

    for (size_t i = 0; i < G_N_ELEMENTS(order); i++) {
        image_allocate(image, order[i]);
    }
    for (int sector = 0; sector < 32; sector++) {
        image_write(image, 3, sector);
    }
    image_write(image, 0, 0);
    image_write(image, 0, 31);
    for (int sector = 5; sector < 12; sector++) {
        image_write(image, 4, sector);
    }
    image_write(image, 15, 2);
    return image;
}

static inline char *image_save(Image *image, const char *name)
{
    return make_file(name, image->file, image->size);
}

static inline BlockBackend *open_bochs(const char *path, int flags)
{
    return open_blk(options_of("driver=bochs,discard=unmap,file.filename=%s", path), flags);
}

#endif
