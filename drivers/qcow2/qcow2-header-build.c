/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: encode the header, its extensions and the backing file's name, which
 * together fill the first cluster. No I/O here.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2.h"

/* Up to here no room is spent on names for features. */
#define MAX_CLUSTER_WITHOUT_NAMES 4096
#define FEATURE_NAME_BYTES 46

/* Section "Feature name table": an entry as it is on disk. */
typedef struct FeatureName {
    uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    char name[FEATURE_NAME_BYTES];
} FeatureName;

static const FeatureName feature_names[] = {
    { 0, 0, "dirty bit" },
    { 0, 1, "corrupt bit" },
    { 0, 2, "external data file" },
    { 0, 3, "compression type" },
    { 0, 4, "extended L2 entries" },
    { 1, 0, "lazy refcounts" },
    { 2, 0, "bitmaps" },
    { 2, 1, "raw external data" },
};
G_STATIC_ASSERT(sizeof(FeatureName) == 48);

/* What is built, and how far. */
typedef struct Builder {
    uint8_t *buf;
    size_t size;
    size_t used;
    bool full; /* something did not fit */
} Builder;

static void put_be(uint8_t *p, unsigned bytes, uint64_t value)
{
    for (unsigned i = 0; i < bytes; i++) {
        p[i] = value >> 8 * (bytes - 1 - i);
    }
}

/* Append @bytes, and zeros up to a multiple of @unit. */
static void append(Builder *b, const void *data, size_t bytes, size_t unit)
{
    size_t padded = (bytes + unit - 1) / unit * unit;

    if (b->full || padded > b->size - b->used) {
        b->full = true;
        return;
    }
    if (bytes > 0) {
        memcpy(b->buf + b->used, data, bytes);
    }
    b->used += padded;
}

static void append_extension(Builder *b, uint32_t type, const void *data, size_t bytes)
{
    uint8_t head[8];

    put_be(head, 4, type);
    put_be(head + 4, 4, bytes);
    append(b, head, sizeof(head), 1);
    append(b, data, bytes, 8);
}

static void append_bitmaps(Builder *b, const Qcow2Extensions *ext)
{
    uint8_t data[24] = { 0 };

    put_be(data, 4, ext->nb_bitmaps);
    put_be(data + 8, 8, ext->bitmap_directory_size);
    put_be(data + 16, 8, ext->bitmap_directory_offset);
    append_extension(b, QCOW2_EXT_BITMAPS, data, sizeof(data));
}

static void append_unknown(Builder *b, const Qcow2Extensions *ext)
{
    for (guint i = 0; ext->unknown && i < ext->unknown->len; i++) {
        const Qcow2UnknownExtension *u = &g_array_index(ext->unknown, Qcow2UnknownExtension, i);
        const uint8_t *cluster = g_bytes_get_data(ext->first_cluster, NULL);

        append_extension(b, u->type, cluster + u->offset, u->length);
    }
}

static void append_extensions(Builder *b, const Qcow2Header *header, const Qcow2Extensions *ext)
{
    if (ext->backing_format) {
        append_extension(b, QCOW2_EXT_BACKING_FORMAT, ext->backing_format,
                         strlen(ext->backing_format));
    }
    if (ext->data_file) {
        append_extension(b, QCOW2_EXT_DATA_FILE, ext->data_file, strlen(ext->data_file));
    }
    if (ext->crypto_length) {
        uint8_t data[16];

        put_be(data, 8, ext->crypto_offset);
        put_be(data + 8, 8, ext->crypto_length);
        append_extension(b, QCOW2_EXT_CRYPTO, data, sizeof(data));
    }
    if (header->version >= 3 && b->size > MAX_CLUSTER_WITHOUT_NAMES) {
        append_extension(b, QCOW2_EXT_FEATURE_NAMES, feature_names, sizeof(feature_names));
    }
    if (ext->nb_bitmaps) {
        append_bitmaps(b, ext);
    }
    append_unknown(b, ext);
    append_extension(b, QCOW2_EXT_END, NULL, 0);
}

static void encode(uint8_t *p, const Qcow2Header *h)
{
    put_be(p, 4, QCOW2_MAGIC);
    put_be(p + 4, 4, h->version);
    put_be(p + 8, 8, h->backing_file_offset);
    put_be(p + 16, 4, h->backing_file_size);
    put_be(p + 20, 4, h->cluster_bits);
    put_be(p + 24, 8, h->size);
    put_be(p + 32, 4, h->crypt_method);
    put_be(p + 36, 4, h->l1_size);
    put_be(p + 40, 8, h->l1_table_offset);
    put_be(p + 48, 8, h->refcount_table_offset);
    put_be(p + 56, 4, h->refcount_table_clusters);
    put_be(p + 60, 4, h->nb_snapshots);
    put_be(p + 64, 8, h->snapshots_offset);
    if (h->version < 3) {
        return;
    }
    put_be(p + 72, 8, h->incompatible_features);
    put_be(p + 80, 8, h->compatible_features);
    put_be(p + 88, 8, h->autoclear_features);
    put_be(p + 96, 4, h->refcount_order);
    put_be(p + 100, 4, h->header_length);
    p[104] = h->compression_type;
}

int qcow2_header_build(Qcow2Header *header, const Qcow2Extensions *ext, const char *backing,
                       uint8_t *buf)
{
    Builder b = { .buf = buf, .size = (size_t)1 << header->cluster_bits };

    memset(buf, 0, b.size);
    header->header_length = header->version < 3 ? QCOW2_HEADER_V2_SIZE : QCOW2_HEADER_SIZE;
    header->backing_file_offset = 0;
    header->backing_file_size = 0;
    b.used = header->header_length;
    append_extensions(&b, header, ext);
    if (backing && *backing) {
        header->backing_file_offset = b.used;
        header->backing_file_size = strlen(backing);
        append(&b, backing, header->backing_file_size, 1);
    }
    if (b.full) {
        return -ENOSPC;
    }
    encode(buf, header);
    return 0;
}
