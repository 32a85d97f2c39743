/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of the qcow2 driver share: fixtures in memory, their tables, and
 * damaged copies on disk.
 */
#ifndef TESTS_QCOW2_TESTING_H
#define TESTS_QCOW2_TESTING_H

#include "driver-testing.h"
#include "drivers/qcow2/qcow2.h"

/* An image in memory, to be patched and written out. */
typedef struct Image {
    uint8_t *data;
    size_t size;
    unsigned cluster_bits;
} Image;

static inline char *fixture_path(const char *name)
{
    const char *dir = g_getenv("BLOCKGRAPH_FIXTURES");

    if (!dir) {
        fail_msg("BLOCKGRAPH_FIXTURES is not set");
    }
    return g_build_filename(dir, name, NULL);
}

/* A data file's name starts from the current directory, as QEMU has it. */
static inline int qcow2_group_setup(void **state)
{
    g_autofree char *dir = fixture_path(".");

    return g_chdir(dir) == 0 ? driver_group_setup(state) : -1;
}

static inline Image load_fixture(const char *name)
{
    g_autofree char *path = fixture_path(name);
    Image image = { 0 };
    char *data = NULL;
    gsize size = 0;

    assert_true(g_file_get_contents(path, &data, &size, NULL));
    image.data = (uint8_t *)data;
    image.size = size;
    image.cluster_bits = qcow2_be32(image.data + 20);
    return image;
}

static inline uint64_t get64(const Image *image, uint64_t offset)
{
    assert_true(offset + 8 <= image->size);
    return qcow2_be64(image->data + offset);
}

static inline void put_bytes(Image *image, uint64_t offset, unsigned bytes, uint64_t value)
{
    assert_true(offset + bytes <= image->size);
    for (unsigned i = 0; i < bytes; i++) {
        image->data[offset + i] = value >> 8 * (bytes - 1 - i);
    }
}

static inline void put64(Image *image, uint64_t offset, uint64_t value)
{
    put_bytes(image, offset, 8, value);
}

/* Where entry 0 of each kind of table lies. */
static inline uint64_t l1_at(const Image *image)
{
    return get64(image, 40);
}

static inline uint64_t l2_at(const Image *image)
{
    return get64(image, l1_at(image)) & QCOW2_OFFSET_MASK;
}

static inline uint64_t reftable_at(const Image *image)
{
    return get64(image, 48);
}

static inline uint64_t refblock_at(const Image *image)
{
    return get64(image, reftable_at(image));
}

static inline uint64_t snapshots_at(const Image *image)
{
    return get64(image, 64);
}

/*
 * Have the first L2 table, and the clusters that it has, be shared, as after a snapshot:
 * the refcounts (of 16 bits, in the first block) are 2. For a check these are leaks.
 */
static inline void share_clusters(Image *image)
{
    uint64_t l2 = l2_at(image), entries = (1ULL << image->cluster_bits) / 8;

    put64(image, l1_at(image), l2);
    put_bytes(image, refblock_at(image) + 2 * (l2 >> image->cluster_bits), 2, 2);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = get64(image, l2 + 8 * i);
        uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> image->cluster_bits;

        if (!(entry & QCOW2_COMPRESSED) && cluster != 0) {
            put64(image, l2 + 8 * i, entry & ~QCOW2_COPIED);
            put_bytes(image, refblock_at(image) + 2 * cluster, 2, 2);
        }
    }
}

/* Where the data of header extension @type lies. */
static inline uint64_t extension_at(const Image *image, uint32_t type)
{
    uint64_t at = qcow2_be32(image->data + 4) < 3 ? 72 : qcow2_be32(image->data + 100);

    while (qcow2_be32(image->data + at) != type) {
        assert_int_not_equal(qcow2_be32(image->data + at), QCOW2_EXT_END);
        at += 8 + ((qcow2_be32(image->data + at + 4) + 7) & ~7U);
    }
    return at + 8;
}

/* Write @image to "test.qcow2", and free it; the path. */
static inline char *store_image(Image *image)
{
    char *path = make_file("test.qcow2", image->data, image->size);

    g_free(image->data);
    image->data = NULL;
    return path;
}

/* A backend on the qcow2 image at @path, or NULL with @errp. */
static inline BlockBackend *try_open_qcow2(const char *path, int flags, GError **errp)
{
    return try_open(options_of("driver=qcow2,file.driver=file,file.filename=%s", path), flags,
                    errp);
}

static inline BlockBackend *open_qcow2(const char *path, int flags)
{
    GError *err = NULL;
    BlockBackend *blk = try_open_qcow2(path, flags, &err);

    assert_ok(blk != NULL, err);
    return blk;
}

#endif
