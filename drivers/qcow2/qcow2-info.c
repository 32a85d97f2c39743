/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: what info prints under "format-specific", in QEMU's order of members. */
#include <string.h>
#include "drivers/qcow2/qcow2.h"

#define LUKS_HEADER_BYTES 592

/* The place of their list: see bdrv_get_specific_info in block-driver.h. */
static void add_bitmaps(const Qcow2State *s, JsonObject *data)
{
    if ((s->bitmap_reader ? s->ext.nb_bitmaps : s->bitmaps->len) > 0) {
        json_object_set_array_member(data, "bitmaps", json_array_new());
    }
}

static bool add_encryption(Qcow2State *s, JsonObject *data, GError **errp)
{
    JsonObject *encrypt;
    uint8_t header[LUKS_HEADER_BYTES];
    int ret;

    if (s->header.crypt_method == QCOW2_CRYPT_NONE) {
        return true;
    }
    encrypt = json_object_new();
    json_object_set_object_member(data, "encrypt", encrypt);
    if (s->header.crypt_method == QCOW2_CRYPT_AES) {
        json_object_set_string_member(encrypt, "format", "aes");
        return true;
    }
    ret = bdrv_pread(s->file, s->ext.crypto_offset, sizeof(header), header, 0);
    if (ret < 0) {
        block_error_set_errno(errp, -ret,
                              "'%s': could not read the encryption header at offset "
                              "%" G_GUINT64_FORMAT,
                              s->name, s->ext.crypto_offset);
        return false;
    }
    return qcow2_luks_describe(header, sizeof(header), s->name, encrypt, errp);
}

static void add_data_file(const Qcow2State *s, JsonObject *data)
{
    if (!s->geo.external_data) {
        return;
    }
    if (s->ext.data_file) {
        json_object_set_string_member(data, "data-file", s->ext.data_file);
    }
    json_object_set_boolean_member(
        data, "data-file-raw", s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
}

static bool describe(Qcow2State *s, JsonObject *data, GError **errp)
{
    const Qcow2Header *h = &s->header;

    json_object_set_string_member(data, "compat", h->version < 3 ? "0.10" : "1.1");
    json_object_set_string_member(data, "compression-type",
                                  h->compression_type == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib");
    if (h->version >= 3) {
        json_object_set_boolean_member(data, "lazy-refcounts",
                                       h->compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS);
        add_bitmaps(s, data);
    }
    json_object_set_int_member(data, "refcount-bits", 1 << h->refcount_order);
    if (h->version >= 3) {
        add_data_file(s, data);
    }
    if (!add_encryption(s, data, errp)) {
        return false;
    }
    if (h->version >= 3) {
        json_object_set_boolean_member(data, "corrupt",
                                       h->incompatible_features & QCOW2_INCOMPAT_CORRUPT);
        json_object_set_boolean_member(data, "extended-l2",
                                       h->incompatible_features & QCOW2_INCOMPAT_EXTENDED_L2);
    }
    return true;
}

JsonObject *qcow2_get_specific_info(BlockDriverState *bs, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    g_autoptr(JsonObject) data = json_object_new();
    JsonObject *info;

    if (!describe(s, data, errp)) {
        return NULL;
    }
    info = json_object_new();
    json_object_set_string_member(info, "type", "qcow2");
    json_object_set_object_member(info, "data", g_steal_pointer(&data));
    return info;
}
