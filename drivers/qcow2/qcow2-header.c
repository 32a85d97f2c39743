/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: decode the header and check each of its fields. No I/O here. */
#include <string.h>
#include "drivers/qcow2/qcow2.h"

uint16_t qcow2_be16(const uint8_t *p)
{
    uint16_t value;

    memcpy(&value, p, sizeof(value));
    return GUINT16_FROM_BE(value);
}

uint32_t qcow2_be32(const uint8_t *p)
{
    uint32_t value;

    memcpy(&value, p, sizeof(value));
    return GUINT32_FROM_BE(value);
}

uint64_t qcow2_be64(const uint8_t *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof(value));
    return GUINT64_FROM_BE(value);
}

void qcow2_words_to_host(uint64_t *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        words[i] = GUINT64_FROM_BE(words[i]);
    }
}

static void decode(const uint8_t *p, Qcow2Header *h)
{
    memset(h, 0, sizeof(*h));
    h->version = qcow2_be32(p + 4);
    h->backing_file_offset = qcow2_be64(p + 8);
    h->backing_file_size = qcow2_be32(p + 16);
    h->cluster_bits = qcow2_be32(p + 20);
    h->size = qcow2_be64(p + 24);
    h->crypt_method = qcow2_be32(p + 32);
    h->l1_size = qcow2_be32(p + 36);
    h->l1_table_offset = qcow2_be64(p + 40);
    h->refcount_table_offset = qcow2_be64(p + 48);
    h->refcount_table_clusters = qcow2_be32(p + 56);
    h->nb_snapshots = qcow2_be32(p + 60);
    h->snapshots_offset = qcow2_be64(p + 64);
    if (h->version < 3) {
        h->refcount_order = 4;
        h->header_length = QCOW2_HEADER_V2_SIZE;
        return;
    }
    h->incompatible_features = qcow2_be64(p + 72);
    h->compatible_features = qcow2_be64(p + 80);
    h->autoclear_features = qcow2_be64(p + 88);
    h->refcount_order = qcow2_be32(p + 96);
    h->header_length = qcow2_be32(p + 100);
    if (h->header_length > 104) {
        h->compression_type = p[104];
    }
}

void qcow2_geometry_init(Qcow2Geometry *geo, const Qcow2Header *header)
{
    bool extended = header->incompatible_features & QCOW2_INCOMPAT_EXTENDED_L2;

    geo->version = header->version;
    geo->cluster_bits = header->cluster_bits;
    geo->l2_entry_bits = extended ? 4 : 3;
    geo->l2_bits = header->cluster_bits - geo->l2_entry_bits;
    geo->subclusters = extended ? QCOW2_SUBCLUSTERS : 1;
    geo->subcluster_bits = header->cluster_bits - (extended ? 5 : 0);
    geo->refcount_order = header->refcount_order;
    geo->external_data = header->incompatible_features & QCOW2_INCOMPAT_DATA_FILE;
}

uint64_t qcow2_l1_entries_needed(const Qcow2Geometry *geo, uint64_t size)
{
    unsigned shift = geo->cluster_bits + geo->l2_bits;

    return (size >> shift) + ((size & ((1ULL << shift) - 1)) != 0);
}

bool qcow2_check_table(const Qcow2Geometry *geo, uint64_t offset, uint64_t entries,
                       uint64_t entry_bytes, uint64_t max_bytes, uint64_t file_length,
                       const char *name, const char *what, GError **errp)
{
    uint64_t bytes, end;

    if (__builtin_mul_overflow(entries, entry_bytes, &bytes) || bytes > max_bytes) {
        block_error_set(errp, EFBIG,
                        "'%s': %s too large: %" G_GUINT64_FORMAT
                        " entries are more than %" G_GUINT64_FORMAT " bytes",
                        name, what, entries, max_bytes);
        return false;
    }
    if (qcow2_offset_into_cluster(geo, offset)) {
        block_error_set(errp, EINVAL,
                        "'%s': %s offset 0x%" G_GINT64_MODIFIER "x is not aligned to a cluster",
                        name, what, offset);
        return false;
    }
    if (__builtin_add_overflow(offset, bytes, &end) || end > INT64_MAX) {
        block_error_set(errp, EINVAL, "'%s': %s offset 0x%" G_GINT64_MODIFIER "x is too large",
                        name, what, offset);
        return false;
    }
    if (bytes > 0 && offset >= file_length) {
        block_error_set(errp, EINVAL,
                        "'%s': %s offset 0x%" G_GINT64_MODIFIER
                        "x is beyond the end of the file (%" G_GUINT64_FORMAT " bytes)",
                        name, what, offset, file_length);
        return false;
    }
    return true;
}

/* The fields whose meaning does not depend on others. */
static bool check_basics(const Qcow2Header *h, const char *name, GError **errp)
{
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        block_error_set(errp, EINVAL, "'%s': cluster_bits %u is not in %d..%d", name,
                        h->cluster_bits, QCOW2_MIN_CLUSTER_BITS, QCOW2_MAX_CLUSTER_BITS);
        return false;
    }
    if (h->version >= 3 && h->header_length < QCOW2_HEADER_V3_SIZE) {
        block_error_set(errp, EINVAL, "'%s': header_length %u is less than %d", name,
                        h->header_length, QCOW2_HEADER_V3_SIZE);
        return false;
    }
    if (h->header_length > 1U << h->cluster_bits) {
        block_error_set(errp, EINVAL, "'%s': header_length %u is more than a cluster of %u bytes",
                        name, h->header_length, 1U << h->cluster_bits);
        return false;
    }
    if (h->refcount_order > 6) {
        block_error_set(errp, EINVAL, "'%s': refcount_order %u is not in 0..6", name,
                        h->refcount_order);
        return false;
    }
    if (h->crypt_method > QCOW2_CRYPT_LUKS) {
        block_error_set(errp, EINVAL, "'%s': crypt_method %u is not in 0..2", name,
                        h->crypt_method);
        return false;
    }
    if (h->size > (uint64_t)BDRV_MAX_LENGTH) {
        block_error_set(errp, EFBIG,
                        "'%s': size %" G_GUINT64_FORMAT " is more than %" G_GINT64_FORMAT, name,
                        h->size, (int64_t)BDRV_MAX_LENGTH);
        return false;
    }
    return true;
}

static bool check_backing(const Qcow2Header *h, const char *name, GError **errp)
{
    uint64_t cluster_size = 1ULL << h->cluster_bits;

    if (h->backing_file_offset == 0) {
        return true;
    }
    if (h->backing_file_offset > cluster_size) {
        block_error_set(errp, EINVAL,
                        "'%s': backing_file_offset 0x%" G_GINT64_MODIFIER
                        "x is beyond the first cluster of %" G_GUINT64_FORMAT " bytes",
                        name, h->backing_file_offset, cluster_size);
        return false;
    }
    if (h->backing_file_size > QCOW2_MAX_BACKING_NAME ||
        h->backing_file_size > cluster_size - h->backing_file_offset) {
        block_error_set(errp, EINVAL,
                        "'%s': backing_file_size %u is more than %d or leaves the first cluster",
                        name, h->backing_file_size, QCOW2_MAX_BACKING_NAME);
        return false;
    }
    return true;
}

static bool check_l1(const Qcow2Header *h, const Qcow2Geometry *geo, uint64_t file_length,
                     const char *name, GError **errp)
{
    uint64_t needed = qcow2_l1_entries_needed(geo, h->size);

    if (!qcow2_check_table(geo, h->l1_table_offset, h->l1_size, 8, QCOW2_MAX_L1_BYTES, file_length,
                           name, "l1_table", errp)) {
        return false;
    }
    if (h->l1_size < needed) {
        block_error_set(errp, EINVAL,
                        "'%s': l1_size %u is too small: a size of %" G_GUINT64_FORMAT
                        " bytes needs %" G_GUINT64_FORMAT,
                        name, h->l1_size, h->size, needed);
        return false;
    }
    return true;
}

static bool check_tables(const Qcow2Header *h, uint64_t file_length, int flags, const char *name,
                         GError **errp)
{
    Qcow2Geometry geo;

    /* What lies beyond the end of the file is for check to report, too. */
    if (flags & BDRV_O_CHECK) {
        file_length = UINT64_MAX;
    }
    qcow2_geometry_init(&geo, h);
    if ((h->incompatible_features & QCOW2_INCOMPAT_EXTENDED_L2) && h->cluster_bits < 14) {
        block_error_set(errp, EINVAL, "'%s': cluster_bits %u is less than 14, with extended L2",
                        name, h->cluster_bits);
        return false;
    }
    if (!check_l1(h, &geo, file_length, name, errp)) {
        return false;
    }
    if (h->refcount_table_clusters == 0 && !(flags & BDRV_O_CHECK)) {
        block_error_set(errp, EINVAL, "'%s': refcount_table_clusters is 0", name);
        return false;
    }
    if (!qcow2_check_table(&geo, h->refcount_table_offset, h->refcount_table_clusters,
                           qcow2_cluster_size(&geo), QCOW2_MAX_REFTABLE_BYTES, file_length, name,
                           "refcount_table", errp)) {
        return false;
    }
    /* A damaged snapshot table is for check to report. */
    if (!(flags & BDRV_O_CHECK)) {
        if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
            block_error_set(errp, EFBIG, "'%s': nb_snapshots %u is more than %d", name,
                            h->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
            return false;
        }
        if (!qcow2_check_table(&geo, h->snapshots_offset, h->nb_snapshots, 40,
                               QCOW2_MAX_SNAPSHOT_TABLE, file_length, name, "snapshots", errp)) {
            return false;
        }
    }
    return true;
}

static bool check_compression(const Qcow2Header *h, const char *name, GError **errp)
{
    bool flagged = h->incompatible_features & QCOW2_INCOMPAT_COMPRESSION;

    if (flagged != (h->compression_type != QCOW2_COMPRESSION_ZLIB)) {
        block_error_set(errp, EINVAL,
                        "'%s': compression_type %u does not agree with the compression type bit "
                        "(%s)",
                        name, h->compression_type, flagged ? "set" : "not set");
        return false;
    }
    if (h->compression_type > QCOW2_COMPRESSION_ZSTD) {
        block_error_set(errp, ENOTSUP, "'%s': compression_type %u is not known", name,
                        h->compression_type);
        return false;
    }
    return true;
}

bool qcow2_header_parse(const uint8_t *buf, size_t size, uint64_t file_length, int flags,
                        const char *name, Qcow2Header *header, GError **errp)
{
    g_assert(size >= QCOW2_HEADER_V3_SIZE + 8);
    if (qcow2_be32(buf) != QCOW2_MAGIC) {
        block_error_set(errp, EINVAL, "Image is not in qcow2 format");
        return false;
    }
    decode(buf, header);
    if (header->version < 2 || header->version > 3) {
        block_error_set(errp, ENOTSUP, "'%s': version %u is not 2 or 3", name, header->version);
        return false;
    }
    if (!check_basics(header, name, errp) || !check_backing(header, name, errp)) {
        return false;
    }
    /* What an unknown incompatible feature changes is not to be judged here:
     * qcow2_check_features() refuses those by name. */
    if (header->incompatible_features & ~QCOW2_INCOMPAT_KNOWN) {
        return true;
    }
    return check_compression(header, name, errp) &&
           check_tables(header, file_length, flags, name, errp);
}
