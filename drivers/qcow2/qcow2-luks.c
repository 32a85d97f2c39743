/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what the LUKS header of an encrypted image tells without a key, for
 * info. The layout is that of the LUKS1 on-disk format specification, section
 * "LUKS header".
 */
#include <string.h>
#include "drivers/qcow2/qcow2.h"

#define LUKS_HEADER_BYTES 592
#define KEY_SLOTS 8
#define KEY_SLOT_ACTIVE 0x00ac71f3U
#define SECTOR 512ULL

static const uint8_t luks_magic[6] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

/* "xts-plain64" and "cbc-essiv:sha256" → mode, IV generator, its hash. */
static void describe_mode(char *mode, JsonObject *info, char **iv_hash)
{
    char *generator = strchr(mode, '-');
    char *hash;

    if (generator) {
        *generator++ = '\0';
        hash = strchr(generator, ':');
        if (hash) {
            *hash++ = '\0';
            *iv_hash = g_strdup(hash);
        }
        json_object_set_string_member(info, "ivgen-alg", generator);
    }
}

static JsonArray *describe_slots(const uint8_t *buf)
{
    JsonArray *slots = json_array_new();

    for (unsigned i = 0; i < KEY_SLOTS; i++) {
        const uint8_t *p = buf + 208 + i * 48;
        JsonObject *slot = json_object_new();
        bool active = qcow2_be32(p) == KEY_SLOT_ACTIVE;

        json_object_set_boolean_member(slot, "active", active);
        if (active) {
            json_object_set_int_member(slot, "iters", qcow2_be32(p + 4));
        }
        json_object_set_int_member(slot, "key-offset", qcow2_be32(p + 40) * SECTOR);
        if (active) {
            json_object_set_int_member(slot, "stripes", qcow2_be32(p + 44));
        }
        json_array_add_object_element(slots, slot);
    }
    return slots;
}

bool qcow2_luks_describe(const uint8_t *buf, size_t size, const char *name, JsonObject *info,
                         GError **errp)
{
    g_autofree char *cipher = g_strndup((const char *)buf + 8, 32);
    g_autofree char *mode = g_strndup((const char *)buf + 40, 32);
    g_autofree char *hash = g_strndup((const char *)buf + 72, 32);
    g_autofree char *uuid = g_strndup((const char *)buf + 168, 40);
    g_autofree char *iv_hash = NULL;
    g_autofree char *cipher_name = NULL;
    uint64_t key_bits = (uint64_t)qcow2_be32(buf + 108) * 8;

    g_assert(size >= LUKS_HEADER_BYTES);
    if (memcmp(buf, luks_magic, sizeof(luks_magic)) != 0 || qcow2_be16(buf + 6) != 1) {
        block_error_set(errp, EINVAL, "'%s': no LUKS version 1 header where the image says", name);
        return false;
    }
    describe_mode(mode, info, &iv_hash);
    json_object_set_boolean_member(info, "detached-header", false);
    json_object_set_string_member(info, "hash-alg", hash);
    /* XTS takes two keys of the cipher's size. */
    cipher_name = g_strdup_printf("%s-%" G_GUINT64_FORMAT, cipher,
                                  strcmp(mode, "xts") == 0 ? key_bits / 2 : key_bits);
    json_object_set_string_member(info, "cipher-alg", cipher_name);
    json_object_set_string_member(info, "uuid", uuid);
    if (iv_hash) {
        json_object_set_string_member(info, "ivgen-hash-alg", iv_hash);
    }
    json_object_set_string_member(info, "format", "luks");
    json_object_set_string_member(info, "cipher-mode", mode);
    json_object_set_array_member(info, "slots", describe_slots(buf));
    json_object_set_int_member(info, "payload-offset", qcow2_be32(buf + 104) * SECTOR);
    json_object_set_int_member(info, "master-key-iters", qcow2_be32(buf + 164));
    return true;
}
