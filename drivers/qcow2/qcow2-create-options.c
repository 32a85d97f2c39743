/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: the create options. They are checked in the order in which QEMU checks
 * them, so that of several errors the same one is told.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-create.h"

#define MIN_EXTENDED_L2_CLUSTER_SIZE 16384

/* In the order in which they are told to the user. */
const BlockOption qcow2_create_options[] = {
    { "encryption", "bool",
      "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)" },
    { "encrypt.format", "str", "Encrypt the image, format choices: 'aes', 'luks'" },
    { "encrypt.key-secret", "str",
      "ID of secret providing qcow AES key or LUKS passphrase" },
    { "encrypt.cipher-alg", "str", "Name of encryption cipher algorithm" },
    { "encrypt.cipher-mode", "str", "Name of encryption cipher mode" },
    { "encrypt.ivgen-alg", "str", "Name of IV generator algorithm" },
    { "encrypt.ivgen-hash-alg", "str", "Name of IV generator hash algorithm" },
    { "encrypt.hash-alg", "str", "Name of encryption hash algorithm" },
    { "encrypt.iter-time", "num", "Time to spend in PBKDF in milliseconds" },
    { "cluster_size", "size", "qcow2 cluster size", "65536" },
    { "extended_l2", "bool", "Extended L2 tables", "off" },
    { "preallocation", "str",
      "Preallocation mode (allowed values: off, metadata, falloc, full)" },
    { "compression_type", "str", "Compression method used for image cluster compression",
      "zlib" },
    { "size", "size", "Virtual disk size" },
    { "compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])" },
    { "backing_file", "str", "File name of a base image" },
    { "backing_fmt", "str", "Image format of the base image" },
    { "data_file", "str", "File name of an external data file" },
    { "data_file_raw", "bool", "The external data file must stay valid as a raw image" },
    { "lazy_refcounts", "bool", "Postpone refcount updates", "off" },
    { "refcount_bits", "num", "Width of a reference count entry in bits", "16" },
    { NULL },
};

/* What is not yet an answer: values that belong together are checked later. */
typedef struct Numbers {
    int64_t size;
    int64_t cluster_size;
    int64_t refcount_bits;
} Numbers;

static bool invalid(GError **errp, const char *text)
{
    block_error_set(errp, EINVAL, "%s", text);
    return false;
}

static bool is_power_of_2(int64_t value)
{
    return value > 0 && (value & (value - 1)) == 0;
}

/* ---- Encryption --------------------------------------------------------------------- */

static bool refuse_encryption(const char *format, GError **errp)
{
    if (!format) {
        return invalid(errp, "Parameter 'encrypt.format' is missing");
    }
    if (strcmp(format, "luks") != 0 && strcmp(format, "aes") != 0) {
        block_error_set(errp, EINVAL, "Parameter 'format' does not accept value '%s'", format);
        return false;
    }
    block_error_set(errp, ENOTSUP, "encrypt.format '%s' (%s) is not supported by this version",
                    format, format[0] == 'l' ? "LUKS" : "AES");
    return false;
}

static bool check_encryption(JsonObject *options, GError **errp)
{
    g_autoptr(JsonObject) encrypt = NULL;
    g_autofree char *format = NULL;
    bool on = false;

    if (!block_options_take_bool(options, "encryption", &on, errp) ||
        !block_options_take_object(options, "encrypt", &encrypt, errp)) {
        return false;
    }
    if (encrypt) {
        return block_options_take_string(encrypt, "format", &format, errp) &&
               refuse_encryption(format, errp);
    }
    return !on || refuse_encryption("aes", errp);
}

/* ---- Words --------------------------------------------------------------------------- */

/* Formats that a backing file may have, though no driver here reads them. */
static const char *const other_formats[] = {
    "cloop", "dmg", "luks", "parallels", "qcow", "qed", "vdi", "vhdx", "vmdk", "vpc", NULL,
};

/* Which of @words the option is; @name is what QEMU calls it in the message. */
static bool take_word(JsonObject *options, const char *key, const char *name,
                      const char *const *words, int *value, GError **errp)
{
    g_autofree char *text = NULL;

    if (!block_options_take_string(options, key, &text, errp)) {
        return false;
    }
    for (int i = 0; text && words[i]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return true;
        }
    }
    if (text) {
        block_error_set(errp, EINVAL, "Parameter '%s' does not accept value '%s'", name, text);
    }
    return !text;
}

static bool take_words(JsonObject *options, Qcow2CreateOptions *opts, GError **errp)
{
    static const char *const versions[] = { "0.10", "v2", "1.1", "v3", NULL };
    static const char *const compressions[] = { "zlib", "zstd", NULL };
    int version = 3;

    if (!take_word(options, "compat", "version", versions, &version, errp) ||
        !block_options_take_string(options, "backing_fmt", &opts->backing_fmt, errp)) {
        return false;
    }
    opts->version = version < 2 ? 2 : 3;
    if (opts->backing_fmt && !bdrv_find_format(opts->backing_fmt) &&
        !g_strv_contains(other_formats, opts->backing_fmt)) {
        block_error_set(errp, EINVAL, "Parameter 'backing-fmt' does not accept value '%s'",
                        opts->backing_fmt);
        return false;
    }
    return take_word(options, "preallocation", "preallocation", block_prealloc_words,
                     &opts->prealloc, errp) &&
           take_word(options, "compression_type", "compression-type", compressions,
                     &opts->compression_type, errp);
}

/* An empty name is none. */
static bool take_backing_file(JsonObject *options, Qcow2CreateOptions *opts, GError **errp)
{
    g_autofree char *name = NULL;

    if (!block_options_take_string(options, "backing_file", &name, errp)) {
        return false;
    }
    opts->backing_file = name && *name ? g_steal_pointer(&name) : NULL;
    return true;
}

/* ---- What fits together ----------------------------------------------------------------- */

static bool check_clusters(Qcow2CreateOptions *opts, const Numbers *n, GError **errp)
{
    if (opts->version < 3 && opts->extended_l2) {
        return invalid(errp, "Extended L2 entries are only supported with compatibility level 1.1 "
                             "and above (use version=v3 or greater)");
    }
    if (!is_power_of_2(n->cluster_size) || n->cluster_size < 1LL << QCOW2_MIN_CLUSTER_BITS ||
        n->cluster_size > 1LL << QCOW2_MAX_CLUSTER_BITS) {
        return invalid(errp, "Cluster size must be a power of two between 512 and 2048k");
    }
    if (opts->extended_l2 && n->cluster_size < MIN_EXTENDED_L2_CLUSTER_SIZE) {
        return invalid(errp, "Extended L2 entries are only supported with cluster sizes of at "
                             "least 16384 bytes");
    }
    opts->cluster_bits = g_bit_nth_lsf(n->cluster_size, -1);
    return true;
}

static bool check_refcounts(Qcow2CreateOptions *opts, const Numbers *n, GError **errp)
{
    if (opts->version < 3 && opts->lazy_refcounts) {
        return invalid(errp, "Lazy refcounts only supported with compatibility level 1.1 and above "
                             "(use version=v3 or greater)");
    }
    if (!is_power_of_2(n->refcount_bits) || n->refcount_bits > 64) {
        return invalid(errp, "Refcount width must be a power of two and may not exceed 64 bits");
    }
    if (opts->version < 3 && n->refcount_bits != 16) {
        return invalid(errp, "Different refcount widths than 16 bits require compatibility level "
                             "1.1 or above (use version=v3 or greater)");
    }
    opts->refcount_order = g_bit_nth_lsf(n->refcount_bits, -1);
    return true;
}

static bool check_backing(const Qcow2CreateOptions *opts, GError **errp)
{
    if (opts->backing_file && opts->prealloc != BLOCK_PREALLOC_OFF && !opts->extended_l2) {
        return invalid(errp, "Backing file and preallocation can only be used at the same time if "
                             "extended_l2 is on");
    }
    if (opts->backing_fmt && !opts->backing_file) {
        return invalid(errp, "Backing format cannot be used without backing file");
    }
    return true;
}

static bool check_data_file(const Qcow2CreateOptions *opts, GError **errp)
{
    if (opts->backing_file && opts->data_file_raw) {
        return invalid(errp, "Backing file and data-file-raw cannot be used at the same time");
    }
    if (opts->version < 3 && opts->data_file) {
        return invalid(errp, "External data files are only supported with compatibility level 1.1 "
                             "and above (use version=v3 or greater)");
    }
    if (opts->data_file_raw && !opts->data_file) {
        return invalid(errp, "data-file-raw requires data-file");
    }
    if (opts->data_file && (!*opts->data_file ||
                            strlen(opts->data_file) > QCOW2_MAX_BACKING_NAME)) {
        block_error_set(errp, *opts->data_file ? EINVAL : ENOENT, "Could not create '%s': %s",
                        opts->data_file,
                        g_strerror(*opts->data_file ? ENAMETOOLONG : ENOENT));
        return false;
    }
    return true;
}

static bool check_size(Qcow2CreateOptions *opts, const Numbers *n, GError **errp)
{
    uint64_t unit = BDRV_SECTOR_SIZE;

    opts->size = ((uint64_t)n->size + unit - 1) & ~(unit - 1);
    if (opts->size > INT64_MAX) {
        return invalid(errp, "Could not resize image: Image size cannot be negative");
    }
    return true;
}

static bool check_together(Qcow2CreateOptions *opts, const Numbers *n, GError **errp)
{
    if (!check_clusters(opts, n, errp) || !check_backing(opts, errp) ||
        !check_refcounts(opts, n, errp) || !check_data_file(opts, errp)) {
        return false;
    }
    if (opts->version < 3 && opts->compression_type != QCOW2_COMPRESSION_ZLIB) {
        return invalid(errp, "Non-zlib compression type is only supported with compatibility level "
                             "1.1 and above (use version=v3 or greater)");
    }
    return check_size(opts, n, errp);
}

bool qcow2_create_options_take(JsonObject *options, Qcow2CreateOptions *opts, GError **errp)
{
    Numbers n = { .cluster_size = 65536, .refcount_bits = 16 };

    *opts = (Qcow2CreateOptions){ .prealloc = BLOCK_PREALLOC_OFF };
    return take_backing_file(options, opts, errp) && check_encryption(options, errp) &&
           block_options_take_size(options, "size", &n.size, errp) &&
           block_options_take_size(options, "cluster_size", &n.cluster_size, errp) &&
           block_options_take_int(options, "refcount_bits", &n.refcount_bits, errp) &&
           block_options_take_bool(options, "extended_l2", &opts->extended_l2, errp) &&
           block_options_take_bool(options, "lazy_refcounts", &opts->lazy_refcounts, errp) &&
           block_options_take_bool(options, "data_file_raw", &opts->data_file_raw, errp) &&
           block_options_take_string(options, "data_file", &opts->data_file, errp) &&
           take_words(options, opts, errp) && check_together(opts, &n, errp);
}

void qcow2_create_options_clear(Qcow2CreateOptions *opts)
{
    g_clear_pointer(&opts->backing_file, g_free);
    g_clear_pointer(&opts->backing_fmt, g_free);
    g_clear_pointer(&opts->data_file, g_free);
}
