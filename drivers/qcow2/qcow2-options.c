/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the open options. */
#include <string.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define DEFAULT_L2_CACHE_MAX (32LL * 1024 * 1024)
#define DEFAULT_L2_SLICE 4096
#define MIN_L2_SLICES 2
#define DEFAULT_REFCOUNT_CACHE (1024LL * 1024)
#define DEFAULT_CLEAN_INTERVAL 600 /* seconds */

const BlockOption qcow2_open_options[] = {
    { "lazy-refcounts", "bool", "Postpone refcount updates" },
    { "pass-discard-request", "bool", "Pass guest discard requests to the layer below" },
    { "pass-discard-snapshot", "bool", "Discard in the layer below when snapshots are deleted" },
    { "pass-discard-other", "bool", "Discard in the layer below whenever clusters are freed" },
    { "discard-no-unref", "bool", "Do not unreference discarded clusters" },
    { "overlap-check", "str", "Checks before metadata writes: none, constant, cached or all" },
    { "cache-size", "size", "Maximum size of the metadata caches together" },
    { "l2-cache-size", "size", "Maximum size of the L2 table cache" },
    { "l2-cache-entry-size", "size", "Size of each entry in the L2 cache" },
    { "refcount-cache-size", "size", "Maximum size of the refcount block cache" },
    { "cache-clean-interval", "num", "Drop unused cache entries after this many seconds" },
    { "encrypt.format", "str", "Encryption format of the image: luks or aes" },
    { "encrypt.key-secret", "str", "ID of the secret with the encryption key" },
    { "backing", "str", "The backing file, instead of the one that the image names" },
    { "data-file", "str", "The external data file, instead of the one that the image names" },
    { NULL },
};

static const char *const overlap_words[] = { "none", "constant", "cached", "all", NULL };
#define OVERLAP_DEFAULT 2

/* What each of these words stands for. */
#define OVERLAP_CONSTANT \
    (QCOW2_OL_MAIN_HEADER | QCOW2_OL_ACTIVE_L1 | QCOW2_OL_REFTABLE | QCOW2_OL_SNAPSHOT_TABLE | \
     QCOW2_OL_BITMAP_DIRECTORY)
#define OVERLAP_CACHED \
    (OVERLAP_CONSTANT | QCOW2_OL_ACTIVE_L2 | QCOW2_OL_REFBLOCK | QCOW2_OL_INACTIVE_L1)
static const unsigned overlap_templates[] = {
    0, OVERLAP_CONSTANT, OVERLAP_CACHED, OVERLAP_CACHED | QCOW2_OL_INACTIVE_L2,
};

/* Single checks, in the order of their bits. */
static const char *const overlap_bools[] = {
    "main-header",    "active-l1",   "active-l2",   "refcount-table",   "refcount-block",
    "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory", NULL,
};

/* "overlap-check" is a word, or an object with a template and single checks. */
static bool take_overlap_check(JsonObject *options, unsigned *checks, GError **errp)
{
    g_autoptr(JsonObject) object = NULL;
    JsonNode *node = json_object_get_member(options, "overlap-check");
    int word = OVERLAP_DEFAULT;

    if (!node || !JSON_NODE_HOLDS_OBJECT(node)) {
        if (!block_options_take_enum(options, "overlap-check", overlap_words, &word, errp)) {
            return false;
        }
        *checks = overlap_templates[word];
        return true;
    }
    if (!block_options_take_object(options, "overlap-check", &object, errp) ||
        !block_options_take_enum(object, "template", overlap_words, &word, errp)) {
        return false;
    }
    *checks = overlap_templates[word];
    for (unsigned i = 0; overlap_bools[i]; i++) {
        bool on = *checks >> i & 1;

        if (!block_options_take_bool(object, overlap_bools[i], &on, errp)) {
            return false;
        }
        *checks = on ? *checks | 1U << i : *checks & ~(1U << i);
    }
    if (json_object_get_size(object) > 0) {
        g_autoptr(GList) rest = json_object_get_members(object);

        block_error_set(errp, EINVAL, "Invalid parameter 'overlap-check.%s'",
                        (const char *)rest->data);
        return false;
    }
    return true;
}

/* Whether to discard below what is given back; the first follows the node's flags. */
static bool take_discards(JsonObject *options, const Qcow2Header *header, Qcow2Options *result,
                          GError **errp)
{
    static const struct {
        const char *name;
        Qcow2Discard kind;
        int by_default;
    } kinds[] = {
        { "pass-discard-request", QCOW2_DISCARD_REQUEST, -1 },
        { "pass-discard-snapshot", QCOW2_DISCARD_SNAPSHOT, 1 },
        { "pass-discard-other", QCOW2_DISCARD_OTHER, 0 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        bool given = json_object_has_member(options, kinds[i].name), pass = false;

        if (!block_options_take_bool(options, kinds[i].name, &pass, errp)) {
            return false;
        }
        result->pass_discard[kinds[i].kind] = given ? pass : kinds[i].by_default;
    }
    if (!block_options_take_bool(options, "discard-no-unref", &result->discard_no_unref, errp)) {
        return false;
    }
    if (result->discard_no_unref && header->version < 3) {
        block_error_set(errp, EINVAL,
                        "discard-no-unref is only supported since qcow2 version 3");
        return false;
    }
    return true;
}

bool qcow2_options_take_encrypt(JsonObject *options, const Qcow2Header *header, GError **errp)
{
    g_autoptr(JsonObject) object = NULL;

    if (!block_options_take_object(options, "encrypt", &object, errp)) {
        return false;
    }
    if (object && header->crypt_method == QCOW2_CRYPT_NONE) {
        block_error_set(errp, EINVAL,
                        "No encryption in image header, but options specified format");
        return false;
    }
    return true;
}

static bool take_lazy_refcounts(JsonObject *options, const Qcow2Header *header,
                                Qcow2Options *result, GError **errp)
{
    bool given = json_object_has_member(options, "lazy-refcounts"), lazy = false;

    if (!block_options_take_bool(options, "lazy-refcounts", &lazy, errp)) {
        return false;
    }
    if (lazy && header->version < 3) {
        block_error_set(errp, EINVAL,
                        "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
                        "compatibility level");
        return false;
    }
    result->lazy_refcounts = given ? lazy : -1;
    return true;
}

/* Bytes of all L2 tables of the disk. */
static int64_t all_l2_tables(const Qcow2Header *header, const Qcow2Geometry *geo)
{
    return qcow2_l1_entries_needed(geo, header->size) << geo->cluster_bits;
}

static bool take_cache_sizes(JsonObject *options, const Qcow2Header *header,
                             const Qcow2Geometry *geo, Qcow2Options *result, GError **errp)
{
    int64_t total = -1, l2 = -1, refcount = -1;
    int64_t wanted = MIN(all_l2_tables(header, geo), DEFAULT_L2_CACHE_MAX);

    if (!block_options_take_size(options, "cache-size", &total, errp) ||
        !block_options_take_size(options, "l2-cache-size", &l2, errp) ||
        !block_options_take_size(options, "refcount-cache-size", &refcount, errp)) {
        return false;
    }
    if (total >= 0 && l2 >= 0 && refcount >= 0) {
        block_error_set(errp, EINVAL,
                        "cache-size, l2-cache-size and refcount-cache-size may not be set at the "
                        "same time");
        return false;
    }
    if (total >= 0 && l2 > total) {
        block_error_set(errp, EINVAL, "l2-cache-size may not exceed cache-size");
        return false;
    }
    if (total >= 0 && refcount > total) {
        block_error_set(errp, EINVAL, "refcount-cache-size may not exceed cache-size");
        return false;
    }
    if (l2 < 0) {
        l2 = total < 0 ? wanted : MIN(total - MAX(refcount, 0), all_l2_tables(header, geo));
    }
    result->l2_cache_size = MAX(l2, MIN_L2_SLICES * result->l2_slice_bytes);
    if (refcount < 0) {
        refcount = total < 0 ? DEFAULT_REFCOUNT_CACHE : MAX(total - result->l2_cache_size, 0);
    }
    result->refcount_cache_size = refcount;
    return true;
}

static bool take_slice_size(JsonObject *options, const Qcow2Geometry *geo, Qcow2Options *result,
                            GError **errp)
{
    int64_t cluster_size = qcow2_cluster_size(geo);
    int64_t bytes = MIN(cluster_size, DEFAULT_L2_SLICE);

    if (!block_options_take_size(options, "l2-cache-entry-size", &bytes, errp)) {
        return false;
    }
    if (bytes < 512 || bytes > cluster_size || (bytes & (bytes - 1))) {
        block_error_set(errp, EINVAL,
                        "L2 cache entry size must be a power of two between 512 and the cluster "
                        "size (%" G_GINT64_FORMAT ")",
                        cluster_size);
        return false;
    }
    result->l2_slice_bytes = bytes;
    return true;
}

static bool take_clean_interval(JsonObject *options, Qcow2Options *result, GError **errp)
{
    int64_t clean_interval = DEFAULT_CLEAN_INTERVAL;

    if (!block_options_take_int(options, "cache-clean-interval", &clean_interval, errp)) {
        return false;
    }
    if (clean_interval < 0 || clean_interval > UINT32_MAX) {
        block_error_set(errp, EINVAL,
                        "cache-clean-interval %" G_GINT64_FORMAT " is not in 0..%u", clean_interval,
                        UINT32_MAX);
        return false;
    }
    result->cache_clean_interval = clean_interval;
    return true;
}

/* What a reopen can change. */
const char *const qcow2_run_options[] = {
    "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot", "pass-discard-other",
    "discard-no-unref", "overlap-check", "cache-size", "l2-cache-size", "l2-cache-entry-size",
    "refcount-cache-size", "cache-clean-interval", NULL,
};

bool qcow2_options_any(JsonObject *options)
{
    bool any = false;

    for (size_t i = 0; qcow2_run_options[i]; i++) {
        any |= json_object_has_member(options, qcow2_run_options[i]);
    }
    return any;
}

JsonObject *qcow2_options_split(JsonObject *options)
{
    JsonObject *run = json_object_new();

    for (size_t i = 0; qcow2_run_options[i]; i++) {
        if (json_object_has_member(options, qcow2_run_options[i])) {
            json_object_set_member(run, qcow2_run_options[i],
                                   json_object_dup_member(options, qcow2_run_options[i]));
            json_object_remove_member(options, qcow2_run_options[i]);
        }
    }
    return run;
}

bool qcow2_options_parse(JsonObject *given, const Qcow2Header *header, const Qcow2Geometry *geo,
                         Qcow2Options *result, GError **errp)
{
    g_autoptr(JsonObject) options = block_options_copy(given);

    return take_lazy_refcounts(options, header, result, errp) &&
           take_discards(options, header, result, errp) &&
           take_overlap_check(options, &result->overlap_check, errp) &&
           take_slice_size(options, geo, result, errp) &&
           take_cache_sizes(options, header, geo, result, errp) &&
           take_clean_interval(options, result, errp);
}

void qcow2_options_follow_flags(Qcow2Options *options, int flags)
{
    if (options->pass_discard[QCOW2_DISCARD_REQUEST] < 0) {
        options->discard_follows_flags = true;
    }
    if (options->discard_follows_flags) {
        options->pass_discard[QCOW2_DISCARD_REQUEST] = (flags & BDRV_O_UNMAP) != 0;
    }
}
