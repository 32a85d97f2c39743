/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: amending an image. All is checked before anything changes; then the changes
 * come one after the other, each durable before the next begins.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-amend.h"
#include "drivers/qcow2/qcow2-snapshot.h"

#define COMPATIBLE_FEATURES_AT 80
#define AUTOCLEAR_FEATURES_AT 88
#define SNAPSHOT_ENTRY_FIXED 40
#define SNAPSHOT_EXTRA_SIZE_AT 36

/* In the order in which they are told to the user. */
const BlockOption qcow2_amend_options[] = {
    { "size", "size", "Virtual disk size" },
    { "compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])" },
    { "backing_file", "str", "File name of a base image" },
    { "backing_fmt", "str", "Image format of the base image" },
    { "data_file", "str", "File name of an external data file" },
    { "data_file_raw", "bool", "The external data file must stay valid as a raw image" },
    { "lazy_refcounts", "bool", "Postpone refcount updates" },
    { "refcount_bits", "num", "Width of a reference count entry in bits" },
    { "encrypt.state", "str", "Select new state of affected keyslots (active/inactive)" },
    { "encrypt.keyslot", "num", "Select a single keyslot to modify explicitly" },
    { "encrypt.old-secret", "str", "Select all keyslots that match this password" },
    { "encrypt.new-secret", "str",
      "New secret to set in the matching keyslots. Empty string to erase" },
    { "encrypt.iter-time", "num", "Time to spend in PBKDF in milliseconds" },
    { NULL },
};

/* What is to be; at first what is. */
typedef struct Amend {
    BlockDriverState *bs;
    Qcow2State *s;
    int64_t size;
    unsigned version;
    unsigned refcount_order;
    bool lazy_refcounts;
    bool lazy_told;
    bool data_file_raw;
    char *data_file; /* NULL: as it is */
    Qcow2Progress progress;
} Amend;

void qcow2_progress(const Qcow2Progress *p, uint64_t done, uint64_t total)
{
    p->report(p->opaque, (int64_t)(p->step * total + done), (int64_t)(p->steps * total));
}

static bool refuse(GError **errp, const char *text)
{
    block_error_set(errp, EINVAL, "%s", text);
    return false;
}

/* ---- What is asked for ---------------------------------------------------------------------- */

static bool take_version(JsonObject *options, Amend *a, GError **errp)
{
    g_autofree char *word = NULL;

    if (!block_options_take_string(options, "compat", &word, errp)) {
        return false;
    }
    if (!word || !*word) {
        return true;
    }
    if (strcmp(word, "0.10") == 0 || strcmp(word, "v2") == 0) {
        a->version = 2;
    } else if (strcmp(word, "1.1") == 0 || strcmp(word, "v3") == 0) {
        a->version = 3;
    } else {
        block_error_set(errp, EINVAL, "Unknown compatibility level %s", word);
        return false;
    }
    return true;
}

static bool take_refcount_bits(JsonObject *options, Amend *a, GError **errp)
{
    int64_t bits = 1LL << a->refcount_order;

    if (!block_options_take_int(options, "refcount_bits", &bits, errp)) {
        return false;
    }
    if (bits <= 0 || bits > 64 || (bits & (bits - 1)) != 0) {
        return refuse(errp, "Refcount width must be a power of two and may not exceed 64 bits");
    }
    a->refcount_order = g_bit_nth_lsf(bits, -1);
    return true;
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* Both, or what is not told is none. */
static bool check_backing(JsonObject *options, Amend *a, GError **errp)
{
    g_autofree char *file = NULL, *format = NULL;

    if (!block_options_take_string(options, "backing_file", &file, errp) ||
        !block_options_take_string(options, "backing_fmt", &format, errp)) {
        return false;
    }
    if ((file || format) && !(same_text(file, bdrv_get_backing_filename(a->bs)) &&
                              same_text(format, bdrv_get_backing_format(a->bs)))) {
        return refuse(errp, "Cannot amend the backing file\n"
                            "You can use 'qemu-img rebase' instead.");
    }
    return true;
}

static bool take_data_file(JsonObject *options, Amend *a, GError **errp)
{
    bool was_raw = a->data_file_raw;

    if (!block_options_take_string(options, "data_file", &a->data_file, errp) ||
        !block_options_take_bool(options, "data_file_raw", &a->data_file_raw, errp)) {
        return false;
    }
    if (a->data_file && !a->s->geo.external_data) {
        return refuse(errp, "data-file can only be set for images that use an external data file");
    }
    if (a->data_file && strlen(a->data_file) > QCOW2_MAX_BACKING_NAME) {
        block_error_set(errp, EINVAL, "'%s': data_file: %zu bytes are more than %d", a->s->name,
                        strlen(a->data_file), QCOW2_MAX_BACKING_NAME);
        return false;
    }
    if (a->data_file_raw && !was_raw) {
        return refuse(errp, "data-file-raw cannot be set on existing images");
    }
    return true;
}

static bool take_options(JsonObject *options, Amend *a, GError **errp)
{
    g_autoptr(JsonObject) encrypt = NULL;

    a->lazy_told = json_object_has_member(options, "lazy_refcounts");
    if (!take_version(options, a, errp) ||
        !block_options_take_size(options, "size", &a->size, errp) ||
        !block_options_take_object(options, "encrypt", &encrypt, errp)) {
        return false;
    }
    if (encrypt) {
        return refuse(errp, "Can't amend encryption options - encryption not present");
    }
    if (!block_options_take_bool(options, "lazy_refcounts", &a->lazy_refcounts, errp) ||
        !take_refcount_bits(options, a, errp) || !take_data_file(options, a, errp) ||
        !check_backing(options, a, errp)) {
        return false;
    }
    if (json_object_get_size(options) > 0) {
        JsonObjectIter iter;
        const char *key = NULL;
        JsonNode *value;

        json_object_iter_init_ordered(&iter, options);
        json_object_iter_next_ordered(&iter, &key, &value);
        block_error_set(errp, EINVAL, "Invalid parameter '%s'", key);
        return false;
    }
    return true;
}

/* ---- What can be --------------------------------------------------------------------------- */

static bool check_snapshots_for_v2(const Amend *a, GError **errp)
{
    for (uint32_t i = 0; i < a->s->snapshots.count; i++) {
        const Qcow2Snapshot *sn = &a->s->snapshots.entries[i];

        if (sn->vm_state_size != 0 ||
            (sn->disk_size != UINT64_MAX && sn->disk_size != (uint64_t)a->size)) {
            return refuse(errp, "Internal snapshots prevent downgrade of image");
        }
    }
    return true;
}

static bool coroutine_fn GRAPH_RDLOCK check_downgrade(const Amend *a, GError **errp)
{
    Qcow2State *s = a->s;
    uint64_t features = s->header.incompatible_features & ~QCOW2_INCOMPAT_DIRTY;
    int ret;

    if (s->geo.external_data) {
        return refuse(errp, "Cannot downgrade an image with a data file");
    }
    if (features) {
        block_error_set(errp, ENOTSUP, "Cannot downgrade an image with incompatible features %#"
                        G_GINT64_MODIFIER "x set", features);
        return false;
    }
    if (!check_snapshots_for_v2(a, errp)) {
        return false;
    }
    if (s->ext.nb_bitmaps > 0 || bdrv_dirty_bitmap_next(a->bs, NULL)) {
        return refuse(errp, "Cannot downgrade an image with bitmaps: they have to be removed "
                            "before");
    }
    ret = qcow2_snapshots_have_zeroes(s);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not read the tables of the snapshots",
                              s->name);
    } else if (ret > 0) {
        refuse(errp, "Internal snapshots with zero clusters prevent downgrade of image");
    }
    return ret == 0;
}

static bool coroutine_fn GRAPH_RDLOCK check_together(const Amend *a, GError **errp)
{
    if (a->version < 3 && a->refcount_order != 4) {
        return refuse(errp, a->refcount_order == a->s->geo.refcount_order
                                ? "compat=0.10 requires refcount_bits=16"
                                : "Refcount widths other than 16 bits require compatibility level "
                                  "1.1 or above (use compat=1.1 or greater)");
    }
    if (a->version < 3 && a->lazy_refcounts && a->lazy_told) {
        return refuse(errp, "Lazy refcounts only supported with compatibility level 1.1 and above "
                            "(use compat=1.1 or greater)");
    }
    return a->version == 3 || a->s->geo.version == 2 || check_downgrade(a, errp);
}

/* ---- The changes ----------------------------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK write_features(Amend *a, uint64_t at, uint64_t *features,
                                                    uint64_t value, GError **errp)
{
    uint64_t word = GUINT64_TO_BE(value);
    int ret = 0;

    if (*features != value) {
        ret = qcow2_header_write_field(a->s->writer, at, &word, sizeof(word));
        if (ret < 0) {
            block_error_set_errno(errp, ret, "'%s': could not write the header", a->s->name);
            return ret;
        }
        *features = value;
    }
    return 0;
}

/* All refcounts on the disk, and the image not dirty. */
static int coroutine_fn GRAPH_RDLOCK clean(Amend *a, GError **errp)
{
    int ret = qcow2_write_back(a->s->writer, true);

    if (ret >= 0) {
        ret = bdrv_co_flush(bdrv_child_bs(a->s->file));
    }
    if (ret >= 0) {
        ret = qcow2_set_dirty(a->s->writer, false);
    }
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not write back the metadata", a->s->name);
    }
    return MIN(ret, 0);
}

static int coroutine_fn GRAPH_RDLOCK set_version(Amend *a, unsigned version, GError **errp)
{
    Qcow2State *s = a->s;
    Qcow2Header header = s->header;
    int ret;

    header.version = version;
    header.incompatible_features = 0;
    header.compatible_features = 0;
    header.autoclear_features = 0;
    header.refcount_order = 4;
    ret = qcow2_header_switch(s, &header, &s->ext, NULL, errp);
    if (ret == 0) {
        s->geo.version = version;
    }
    return ret;
}

/* Whether entries of the snapshot table lack what version 3 requires. */
static bool snapshots_lack_extra(const Qcow2State *s)
{
    for (uint32_t i = 0; i < s->snapshots.count; i++) {
        if (s->snapshots.entries[i].extra_data_size < QCOW2_SNAPSHOT_EXTRA) {
            return true;
        }
    }
    return false;
}

/* @table as version 3 wants it, in @fresh. -EIO if it is not the one that was loaded. */
static int complete_table(const Qcow2State *s, const GByteArray *table, GByteArray *fresh)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < s->snapshots.count; i++) {
        const uint8_t *entry = table->data + at;

        if (table->len - at < SNAPSHOT_ENTRY_FIXED ||
            table->len - at < qcow2_snapshot_entry_length(entry) ||
            qcow2_be32(entry + SNAPSHOT_EXTRA_SIZE_AT) !=
                s->snapshots.entries[i].extra_data_size) {
            return -EIO;
        }
        qcow2_snapshot_append(fresh, entry, s->header.size);
        at += qcow2_snapshot_entry_length(entry);
    }
    return fresh->len > QCOW2_MAX_SNAPSHOT_TABLE ? -EFBIG : 0;
}

/* What version 3 requires of snapshots, version 2 may have, too: this comes first. */
static int coroutine_fn GRAPH_RDLOCK complete_snapshots(Amend *a, GError **errp)
{
    g_autoptr(GByteArray) table = g_byte_array_new(), fresh = g_byte_array_new();
    Qcow2State *s = a->s;
    bool uncertain;
    int ret;

    if (!snapshots_lack_extra(s)) {
        return 0;
    }
    ret = qcow2_snapshot_table_read(s, table);
    if (ret >= 0) {
        ret = complete_table(s, table, fresh);
    }
    if (ret >= 0) {
        ret = qcow2_snapshot_table_replace(s, fresh, s->snapshots.count, &uncertain);
    }
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not complete the snapshot table", s->name);
    }
    return MIN(ret, 0);
}

static int coroutine_fn GRAPH_RDLOCK upgrade(Amend *a, GError **errp)
{
    int ret = complete_snapshots(a, errp);

    return ret < 0 ? ret : set_version(a, 3, errp);
}

static int coroutine_fn GRAPH_RDLOCK downgrade(Amend *a, GError **errp)
{
    int ret = qcow2_expand_zeroes(a->bs, &a->progress);

    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not turn zero clusters into others",
                              a->s->name);
        return ret;
    }
    ret = clean(a, errp);
    return ret < 0 ? ret : set_version(a, 2, errp);
}

static int coroutine_fn GRAPH_RDLOCK set_data_file(Amend *a, GError **errp)
{
    Qcow2State *s = a->s;
    Qcow2Extensions ext = s->ext;
    char *name = *a->data_file ? a->data_file : NULL;
    int ret;

    if (same_text(name, s->ext.data_file)) {
        return 0;
    }
    ext.data_file = name;
    ret = qcow2_header_switch(s, &s->header, &ext, NULL, errp);
    if (ret == 0) {
        g_free(s->ext.data_file);
        s->ext.data_file = g_strdup(name);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK set_lazy(Amend *a, GError **errp)
{
    uint64_t *features = &a->s->header.compatible_features;
    uint64_t value = (*features & ~QCOW2_COMPAT_LAZY_REFCOUNTS) |
                     (a->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0);
    int ret = a->lazy_refcounts ? 0 : clean(a, errp);

    return ret < 0 ? ret : write_features(a, COMPATIBLE_FEATURES_AT, features, value, errp);
}

static int coroutine_fn GRAPH_RDLOCK set_size(Amend *a, GError **errp)
{
    int ret = qcow2_co_truncate(a->bs, a->size, true, BLOCK_PREALLOC_OFF, errp);

    if (ret < 0 && errp && !*errp) {
        block_error_set_errno(errp, ret, "Could not resize '%s'", a->s->name);
    }
    return ret;
}

/* The image is going to be changed, and says so. */
static bool coroutine_fn GRAPH_RDLOCK begin(Amend *a, GError **errp)
{
    int ret;

    co_mutex_lock(&a->s->writer->lock);
    ret = qcow2_writer_begin(a->s->writer);
    co_mutex_unlock(&a->s->writer->lock);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not begin to change the image", a->s->name);
    }
    return ret == 0;
}

static int coroutine_fn GRAPH_RDLOCK change(Amend *a, GError **errp)
{
    Qcow2State *s = a->s;
    uint64_t *autoclear = &s->header.autoclear_features;
    int ret = 0;

    if (s->geo.version < a->version) {
        ret = upgrade(a, errp);
    }
    if (ret >= 0 && s->geo.refcount_order != a->refcount_order) {
        ret = qcow2_change_refcount_order(s, a->refcount_order, &a->progress, errp);
        a->progress.step++;
    }
    if (ret >= 0 && !a->data_file_raw) {
        ret = write_features(a, AUTOCLEAR_FEATURES_AT, autoclear,
                             *autoclear & ~QCOW2_AUTOCLEAR_DATA_FILE_RAW, errp);
    }
    if (ret >= 0 && a->data_file) {
        ret = set_data_file(a, errp);
    }
    if (ret >= 0 && s->geo.version >= 3) {
        ret = set_lazy(a, errp);
    }
    if (ret >= 0 && a->size != bdrv_getlength(a->bs)) {
        ret = set_size(a, errp);
    }
    if (ret >= 0 && s->geo.version > a->version) {
        ret = downgrade(a, errp);
    }
    return ret;
}

int coroutine_fn qcow2_co_amend(BlockDriverState *bs, JsonObject *options,
                                BdrvAmendProgress *progress, void *opaque, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    Amend a = { .bs = bs, .s = s, .size = bdrv_getlength(bs), .version = s->geo.version,
                .refcount_order = s->geo.refcount_order,
                .lazy_refcounts = s->header.compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS,
                .data_file_raw = s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW,
                .progress = { .report = progress, .opaque = opaque } };
    int ret = -EINVAL;

    bdrv_graph_assert_readable();
    if (!s->writer) {
        block_error_set(errp, EPERM, "'%s': the image is not open for writing", s->name);
        return -EPERM;
    }
    if (take_options(options, &a, errp) && check_together(&a, errp) && begin(&a, errp)) {
        a.progress.steps = MAX((a.refcount_order != s->geo.refcount_order) +
                               (a.version < s->geo.version), 1);
        ret = change(&a, errp);
    }
    g_free(a.data_file);
    return ret;
}
