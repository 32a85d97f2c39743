/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: header extensions and the feature name table. No I/O here. */
#include <string.h>
#include "drivers/qcow2/qcow2.h"

#define FEATURE_ENTRY_BYTES 48
#define FEATURE_TYPE_INCOMPATIBLE 0

typedef struct Parser {
    const Qcow2Header *header;
    const char *name;
    Qcow2Extensions *ext;
} Parser;

static bool wrong_length(const Parser *p, const char *what, uint32_t length, GError **errp)
{
    block_error_set(errp, EINVAL, "'%s': header extension '%s' has length %u", p->name, what,
                    length);
    return false;
}

static bool parse_backing_format(const Parser *p, const uint8_t *data, uint32_t length,
                                 GError **errp)
{
    if (length > QCOW2_MAX_BACKING_FORMAT) {
        return wrong_length(p, "backing file format", length, errp);
    }
    g_free(p->ext->backing_format);
    p->ext->backing_format = g_strndup((const char *)data, length);
    return true;
}

static bool parse_data_file(const Parser *p, const uint8_t *data, uint32_t length, GError **errp)
{
    if (length == 0 || length > QCOW2_MAX_BACKING_NAME) {
        return wrong_length(p, "external data file name", length, errp);
    }
    g_free(p->ext->data_file);
    p->ext->data_file = g_strndup((const char *)data, length);
    return true;
}

/* Should there be several tables, in spite of the rule, each may give names. */
static bool parse_feature_names(const Parser *p, const uint8_t *data, uint32_t length)
{
    Qcow2Extensions *ext = p->ext;
    size_t have = ext->nb_feature_names * FEATURE_ENTRY_BYTES;
    size_t more = length / FEATURE_ENTRY_BYTES;

    if (more > 0) {
        ext->feature_names = g_realloc(ext->feature_names, have + more * FEATURE_ENTRY_BYTES);
        memcpy(ext->feature_names + have, data, more * FEATURE_ENTRY_BYTES);
        ext->nb_feature_names += more;
    }
    return true;
}

static bool parse_bitmaps(const Parser *p, const uint8_t *data, uint32_t length, GError **errp)
{
    uint64_t cluster_size = 1ULL << p->header->cluster_bits;
    Qcow2Extensions *ext = p->ext;

    if (length != 24) {
        return wrong_length(p, "bitmaps", length, errp);
    }
    /* Not consistent: somebody wrote the image who does not know bitmaps. */
    if (!(p->header->autoclear_features & QCOW2_AUTOCLEAR_BITMAPS)) {
        return true;
    }
    ext->nb_bitmaps = qcow2_be32(data);
    ext->bitmap_directory_size = qcow2_be64(data + 8);
    ext->bitmap_directory_offset = qcow2_be64(data + 16);
    if (ext->nb_bitmaps == 0 || ext->nb_bitmaps > QCOW2_MAX_BITMAPS) {
        block_error_set(errp, EINVAL, "'%s': nb_bitmaps %u is not in 1..%d", p->name,
                        ext->nb_bitmaps, QCOW2_MAX_BITMAPS);
        return false;
    }
    if (qcow2_be32(data + 4) != 0) {
        block_error_set(errp, EINVAL, "'%s': reserved field 0x%x of the bitmaps extension is not 0",
                        p->name, qcow2_be32(data + 4));
        return false;
    }
    if (ext->bitmap_directory_size > QCOW2_MAX_BITMAP_DIRECTORY) {
        block_error_set(errp, EFBIG,
                        "'%s': bitmap_directory_size %" G_GUINT64_FORMAT " is more than %d",
                        p->name, ext->bitmap_directory_size, QCOW2_MAX_BITMAP_DIRECTORY);
        return false;
    }
    if (ext->bitmap_directory_offset & (cluster_size - 1)) {
        block_error_set(errp, EINVAL,
                        "'%s': bitmap_directory_offset 0x%" G_GINT64_MODIFIER
                        "x is not aligned to a cluster",
                        p->name, ext->bitmap_directory_offset);
        return false;
    }
    return true;
}

static bool parse_crypto(const Parser *p, const uint8_t *data, uint32_t length, GError **errp)
{
    uint64_t cluster_size = 1ULL << p->header->cluster_bits;

    if (length != 16) {
        return wrong_length(p, "full disk encryption", length, errp);
    }
    if (p->header->crypt_method != QCOW2_CRYPT_LUKS) {
        block_error_set(errp, EINVAL,
                        "'%s': full disk encryption header, but crypt_method is %u", p->name,
                        p->header->crypt_method);
        return false;
    }
    p->ext->crypto_offset = qcow2_be64(data);
    p->ext->crypto_length = qcow2_be64(data + 8);
    if (p->ext->crypto_offset & (cluster_size - 1)) {
        block_error_set(errp, EINVAL,
                        "'%s': encryption header offset 0x%" G_GINT64_MODIFIER
                        "x is not aligned to a cluster",
                        p->name, p->ext->crypto_offset);
        return false;
    }
    return true;
}

static bool parse_one(const Parser *p, const uint8_t *buf, uint32_t type, uint32_t offset,
                      uint32_t length, GError **errp)
{
    const uint8_t *data = buf + offset;
    Qcow2UnknownExtension unknown = { type, length, offset };

    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        return parse_backing_format(p, data, length, errp);
    case QCOW2_EXT_DATA_FILE:
        return parse_data_file(p, data, length, errp);
    case QCOW2_EXT_FEATURE_NAMES:
        return parse_feature_names(p, data, length);
    case QCOW2_EXT_BITMAPS:
        return parse_bitmaps(p, data, length, errp);
    case QCOW2_EXT_CRYPTO:
        return parse_crypto(p, data, length, errp);
    default:
        g_array_append_val(p->ext->unknown, unknown);
        return true;
    }
}

bool qcow2_extensions_parse(const uint8_t *buf, size_t size, const Qcow2Header *header,
                            const char *name, Qcow2Extensions *ext, GError **errp)
{
    Parser parser = { .header = header, .name = name, .ext = ext };
    uint64_t end = header->backing_file_offset ? header->backing_file_offset : size;
    uint64_t offset = header->header_length;

    memset(ext, 0, sizeof(*ext));
    ext->unknown = g_array_new(false, false, sizeof(Qcow2UnknownExtension));
    while (offset + 8 <= end) {
        uint32_t type = qcow2_be32(buf + offset);
        uint32_t length = qcow2_be32(buf + offset + 4);

        if (type == QCOW2_EXT_END) {
            break;
        }
        offset += 8;
        if (length > end - offset) {
            block_error_set(errp, EINVAL,
                            "'%s': header extension 0x%x has length %u, but only %" G_GUINT64_FORMAT
                            " bytes are left",
                            name, type, length, end - offset);
            return false;
        }
        if (!parse_one(&parser, buf, type, offset, length, errp)) {
            return false;
        }
        offset += ((uint64_t)length + 7) & ~7ULL;
    }
    if (ext->unknown->len > 0) {
        ext->first_cluster = g_bytes_new(buf, size);
    }
    return true;
}

void qcow2_extensions_clear(Qcow2Extensions *ext)
{
    g_free(ext->backing_format);
    g_free(ext->data_file);
    g_free(ext->feature_names);
    g_clear_pointer(&ext->unknown, g_array_unref);
    g_clear_pointer(&ext->first_cluster, g_bytes_unref);
    memset(ext, 0, sizeof(*ext));
}

/* The name that the image gives to incompatible feature @bit, or NULL. */
static char *feature_name(const Qcow2Extensions *ext, unsigned bit)
{
    for (size_t i = 0; i < ext->nb_feature_names; i++) {
        const uint8_t *entry = ext->feature_names + i * FEATURE_ENTRY_BYTES;

        if (entry[0] == FEATURE_TYPE_INCOMPATIBLE && entry[1] == bit) {
            return g_strndup((const char *)entry + 2, FEATURE_ENTRY_BYTES - 2);
        }
    }
    return NULL;
}

bool qcow2_check_features(const Qcow2Header *header, const Qcow2Extensions *ext, const char *name,
                          GError **errp)
{
    uint64_t unknown = header->incompatible_features & ~QCOW2_INCOMPAT_KNOWN;
    uint64_t unnamed = unknown;
    g_autoptr(GString) names = g_string_new(NULL);

    if (unknown == 0) {
        return true;
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        g_autofree char *feature = unknown >> bit & 1 ? feature_name(ext, bit) : NULL;

        if (feature && *feature) {
            g_string_append_printf(names, "%s%s", names->len ? ", " : "", feature);
            unnamed &= ~(1ULL << bit);
        }
    }
    if (unnamed) {
        g_string_append_printf(names, "%sUnknown incompatible feature: %" G_GINT64_MODIFIER "x",
                               names->len ? ", " : "", unnamed);
    }
    block_error_set(errp, ENOTSUP, "Unsupported qcow2 feature(s): %s", names->str);
    return false;
}
