/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks made of random numbers: a chain of image files, and beside it, as one
 * flat buffer, what a reader must see. The qcow2 files are written here, from
 * the format's published layout, with everything that matters to a reader:
 * missing L2 tables, unallocated, zero, preallocated zero, data and compressed
 * clusters in runs and scattered, subclusters, and backing files that are
 * shorter or longer. Refcounts are left out.
 */
#ifndef TESTS_RANDOM_DISK_H
#define TESTS_RANDOM_DISK_H

#include "driver-testing.h"

#include <zlib.h>

#define MAX_LAYERS 6

/* One image, and what is seen through it; the base is layer 0. */
typedef struct Layer {
    char *name; /* in test_dir */
    const char *format;
    int64_t size;
    uint8_t *view;
} Layer;

typedef struct RandomDisk {
    GRand *rand;
    unsigned layers;
    Layer layer[MAX_LAYERS];
} RandomDisk;

static inline int random_below(GRand *rand, int end)
{
    return g_rand_int_range(rand, 0, end);
}

/* 1 to @max, but not more than @left. */
static inline int64_t random_run(GRand *rand, int max, int64_t left)
{
    int64_t n = 1 + random_below(rand, max);

    return MIN(n, left);
}

static inline void random_fill(GRand *rand, uint8_t *data, size_t size)
{
    uint32_t word = g_rand_int(rand) | 1;

    for (size_t i = 0; i < size; i++) {
        word = word * 1664525 + 1013904223;
        data[i] = word >> 24;
    }
}

/* ---- qcow2 ---------------------------------------------------------------------- */

typedef struct Qcow2Writer {
    GRand *rand;
    GByteArray *file;
    unsigned cluster_bits;
    int64_t cluster;
    bool version2;
    bool extended;
    int64_t size;
    uint8_t *view;
} Qcow2Writer;

typedef enum ClusterKind {
    CLUSTER_UNALLOCATED,
    CLUSTER_DATA,
    CLUSTER_SCATTERED, /* data, with a gap in the file before it */
    CLUSTER_COMPRESSED,
    CLUSTER_ZERO,
    CLUSTER_ZERO_ALLOCATED,
    CLUSTER_KINDS,
} ClusterKind;

static inline void writer_grow(Qcow2Writer *w, size_t size)
{
    size_t old = w->file->len;

    if (size > old) {
        g_byte_array_set_size(w->file, size);
        memset(w->file->data + old, 0, size - old);
    }
}

/* Room for @clusters aligned clusters at the end of the file. */
static inline uint64_t writer_allocate(Qcow2Writer *w, int clusters)
{
    uint64_t offset = (w->file->len + w->cluster - 1) & -w->cluster;

    writer_grow(w, offset + clusters * w->cluster);
    return offset;
}

static inline void writer_put(Qcow2Writer *w, uint64_t offset, int bytes, uint64_t value)
{
    writer_grow(w, offset + bytes);
    for (int i = bytes - 1; i >= 0; i--) {
        w->file->data[offset + i] = value;
        value >>= 8;
    }
}

/* The guest bytes [offset, offset + bytes) become @data, or zeros. */
static inline void writer_see(Qcow2Writer *w, int64_t offset, int64_t bytes, const uint8_t *data)
{
    bytes = MIN(bytes, w->size - offset);
    if (bytes > 0 && data) {
        memcpy(w->view + offset, data, bytes);
    } else if (bytes > 0) {
        memset(w->view + offset, 0, bytes);
    }
}

/* The L2 entry of a new compressed cluster, or 0 if it does not get smaller. */
static inline uint64_t write_compressed(Qcow2Writer *w, int64_t guest)
{
    g_autofree uint8_t *data = g_malloc(w->cluster);
    g_autofree uint8_t *out = g_malloc(w->cluster);
    unsigned shift = 62 - (w->cluster_bits - 8);
    uint64_t offset = w->file->len, bytes, sectors;
    z_stream z = { .next_in = data, .avail_in = w->cluster, .next_out = out,
                   .avail_out = w->cluster - 1 };
    int ret;

    /* Repeats, at distances that a decoder's window has to reach. */
    random_fill(w->rand, data, w->cluster);
    for (int64_t i = 64 + random_below(w->rand, 128), back = i; i < w->cluster; i++) {
        data[i] = i % 300 < 280 ? data[i - back] : data[i];
    }
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ret = deflate(&z, Z_FINISH);
    bytes = z.total_out;
    deflateEnd(&z);
    if (ret != Z_STREAM_END) {
        return 0;
    }
    g_byte_array_append(w->file, out, bytes);
    writer_see(w, guest, w->cluster, data);
    sectors = ((offset + bytes - 1) >> 9) - (offset >> 9);
    return UINT64_C(1) << 62 | sectors << shift | offset;
}

static inline uint64_t write_data(Qcow2Writer *w, int64_t guest, bool seen)
{
    uint64_t offset = writer_allocate(w, 1);

    random_fill(w->rand, w->file->data + offset, w->cluster);
    if (seen) {
        writer_see(w, guest, w->cluster, w->file->data + offset);
    }
    return UINT64_C(1) << 63 | offset;
}

static inline uint64_t write_cluster(Qcow2Writer *w, int64_t guest, ClusterKind kind)
{
    uint64_t entry = 0;

    switch (kind) {
    case CLUSTER_SCATTERED:
        writer_allocate(w, 1);
        return write_data(w, guest, true);
    case CLUSTER_COMPRESSED:
        entry = write_compressed(w, guest);
        return entry ? entry : write_data(w, guest, true);
    case CLUSTER_DATA:
        return write_data(w, guest, true);
    case CLUSTER_ZERO_ALLOCATED:
        entry = write_data(w, guest, false);
        /* fall through */
    case CLUSTER_ZERO:
        writer_see(w, guest, w->cluster, NULL);
        return entry | 1;
    default:
        return 0;
    }
}

/* A cluster with subclusters that are data, zeros, or nothing: entry and bitmap. */
static inline void write_subclusters(Qcow2Writer *w, int64_t guest, uint64_t l2, bool allocated)
{
    int64_t sub = w->cluster / 32;
    uint64_t entry = allocated ? write_data(w, guest, false) : 0;
    uint64_t host = entry & UINT64_C(0x00fffffffffffe00), bitmap = 0;

    for (int i = 0; i < 32;) {
        int kind = random_below(w->rand, 3), end = i + random_run(w->rand, 8, 32 - i);

        for (; i < end; i++) {
            if (kind == 1 && allocated) {
                bitmap |= UINT64_C(1) << i;
                writer_see(w, guest + i * sub, sub, w->file->data + host + i * sub);
            } else if (kind == 2) {
                bitmap |= UINT64_C(1) << (32 + i);
                writer_see(w, guest + i * sub, sub, NULL);
            }
        }
    }
    writer_put(w, l2, 8, entry);
    writer_put(w, l2 + 8, 8, bitmap);
}

/* One entry of an extended L2 table at @l2. */
static inline void write_extended(Qcow2Writer *w, int64_t guest, uint64_t l2, ClusterKind kind)
{
    uint64_t entry = kind == CLUSTER_COMPRESSED ? write_compressed(w, guest) : 0;

    if (entry) {
        writer_put(w, l2, 8, entry);
    } else if (kind != CLUSTER_UNALLOCATED) {
        write_subclusters(w, guest, l2, kind != CLUSTER_ZERO);
    }
}

static inline uint64_t write_l2_table(Qcow2Writer *w, int64_t guest, int entries)
{
    uint64_t l2 = writer_allocate(w, 1);

    for (int i = 0; i < entries;) {
        ClusterKind kind = random_below(w->rand, w->version2 ? CLUSTER_ZERO : CLUSTER_KINDS);
        int end = i + random_run(w->rand, 6, entries - i);

        for (; i < end && guest + i * w->cluster < w->size; i++) {
            if (w->extended) {
                write_extended(w, guest + i * w->cluster, l2 + i * 16, kind);
            } else {
                writer_put(w, l2 + i * 8, 8, write_cluster(w, guest + i * w->cluster, kind));
            }
        }
        i = end;
    }
    return UINT64_C(1) << 63 | l2;
}

static inline void write_header(Qcow2Writer *w, uint64_t l1, uint32_t l1_size,
                                const Layer *backing)
{
    uint64_t at = w->version2 ? 72 : 104;

    writer_put(w, 0, 4, 0x514649fb);
    writer_put(w, 4, 4, w->version2 ? 2 : 3);
    writer_put(w, 20, 4, w->cluster_bits);
    writer_put(w, 24, 8, w->size);
    writer_put(w, 36, 4, l1_size);
    writer_put(w, 40, 8, l1);
    writer_put(w, 48, 8, w->cluster); /* an empty refcount table */
    writer_put(w, 56, 4, 1);
    if (!w->version2) {
        writer_put(w, 72, 8, w->extended ? 1 << 4 : 0);
        writer_put(w, 96, 4, 4);
        writer_put(w, 100, 4, 104);
    }
    if (backing) {
        writer_put(w, at, 4, 0xe2792aca);
        writer_put(w, at + 4, 4, strlen(backing->format));
        memcpy(w->file->data + at + 8, backing->format, strlen(backing->format));
        at += 16 + 8; /* up to 8 letters, and the end of the extensions */
        writer_put(w, 8, 8, at);
        writer_put(w, 16, 4, strlen(backing->name));
        memcpy(w->file->data + at, backing->name, strlen(backing->name));
    }
}

static inline void make_qcow2_layer(GRand *rand, Layer *layer, const Layer *backing)
{
    Qcow2Writer w = { .rand = rand, .size = layer->size, .view = layer->view };
    int64_t l2_entries, covered;
    uint32_t l1_size;
    uint64_t l1;

    w.extended = random_below(rand, 4) == 0;
    w.version2 = !w.extended && random_below(rand, 4) == 0;
    w.cluster_bits = w.extended ? 14 + random_below(rand, 3) : 9 + random_below(rand, 8);
    w.cluster = INT64_C(1) << w.cluster_bits;
    w.file = g_byte_array_new();
    l2_entries = w.cluster / (w.extended ? 16 : 8);
    covered = l2_entries * w.cluster;
    l1_size = (layer->size + covered - 1) / covered;
    writer_allocate(&w, 2);
    l1 = writer_allocate(&w, MAX(1, (l1_size * 8 + w.cluster - 1) / w.cluster));
    write_header(&w, l1, l1_size, backing);
    for (uint32_t i = 0; i < l1_size; i++) {
        if (random_below(rand, 5) > 0) {
            writer_put(&w, l1 + i * 8, 8, write_l2_table(&w, i * covered, l2_entries));
        }
    }
    writer_grow(&w, (w.file->len + 511) & ~511u);
    g_free(make_file(layer->name, w.file->data, w.file->len));
    layer->format = "qcow2";
    g_byte_array_unref(w.file);
}

/* ---- raw ------------------------------------------------------------------------ */

/* Data and holes; the file need not end at a sector. */
static inline void make_raw_layer(GRand *rand, Layer *layer)
{
    int64_t cut = random_below(rand, 2) ? random_below(rand, 512) : 0;
    int64_t end = layer->size - MIN(cut, layer->size);
    g_autofree char *path = make_file(layer->name, NULL, end);
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    for (int64_t offset = 0, n; offset < end; offset += n) {
        n = random_run(rand, 200000, end - offset);
        if (random_below(rand, 2)) {
            random_fill(rand, layer->view + offset, n);
            assert_int_equal(pwrite(fd, layer->view + offset, n, offset), n);
        }
    }
    close(fd);
    layer->format = "raw";
}

/* ---- Disks ---------------------------------------------------------------------- */

/* Make the files of a disk of up to @max_size bytes. Free with random_disk_clear(). */
static inline void random_disk_init(RandomDisk *disk, uint32_t seed, int max_size)
{
    *disk = (RandomDisk) { .rand = g_rand_new_with_seed(seed) };
    disk->layers = 1 + random_below(disk->rand, MAX_LAYERS);
    for (unsigned i = 0; i < disk->layers; i++) {
        Layer *layer = &disk->layer[i], *backing = i > 0 ? layer - 1 : NULL;

        layer->name = g_strdup_printf("layer%u", i);
        layer->size = 512 * (1 + random_below(disk->rand, max_size / 512));
        layer->view = g_malloc0(layer->size);
        if (backing) {
            memcpy(layer->view, backing->view, MIN(layer->size, backing->size));
        }
        if (!backing && random_below(disk->rand, 2)) {
            make_raw_layer(disk->rand, layer);
        } else {
            make_qcow2_layer(disk->rand, layer, backing);
        }
    }
}

static inline void random_disk_clear(RandomDisk *disk)
{
    for (unsigned i = 0; i < disk->layers; i++) {
        g_free(disk->layer[i].name);
        g_free(disk->layer[i].view);
    }
    g_rand_free(disk->rand);
}

#endif
