/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: how large an image would be, following the layout that create makes. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2.h"

#define DEFAULT_CLUSTER_SIZE 65536
#define MIN_EXTENDED_L2_CLUSTER_SIZE 16384

typedef struct Plan {
    int64_t cluster_size;
    int64_t refcount_bits;
    uint64_t size; /* of the disk, rounded up to clusters */
    int version;   /* 2 or 3 */
    bool extended_l2;
    bool has_backing;
    int preallocation;
} Plan;

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* Accepted by create, and without a part in the size. */
static bool take_the_rest(JsonObject *options, GError **errp)
{
    static const char *const bools[] = { "lazy_refcounts", "data_file_raw", "encryption", "nocow" };
    static const char *const strings[] = { "backing_fmt", "data_file", "compression_type" };
    g_autoptr(GList) rest = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(bools); i++) {
        bool ignored;

        if (!block_options_take_bool(options, bools[i], &ignored, errp)) {
            return false;
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(strings); i++) {
        g_autofree char *ignored = NULL;

        if (!block_options_take_string(options, strings[i], &ignored, errp)) {
            return false;
        }
    }
    rest = json_object_get_members(options);
    if (rest) {
        block_error_set(errp, EINVAL, "Invalid parameter '%s'", (const char *)rest->data);
        return false;
    }
    return true;
}

static bool take_encrypt(JsonObject *options, GError **errp)
{
    g_autoptr(JsonObject) encrypt = NULL;
    g_autofree char *format = NULL;

    if (!block_options_take_object(options, "encrypt", &encrypt, errp) ||
        (encrypt && !block_options_take_string(encrypt, "format", &format, errp))) {
        return false;
    }
    if (g_strcmp0(format, "luks") == 0) {
        block_error_set(errp, ENOTSUP,
                        "encrypt.format 'luks' (LUKS) is not supported by this version");
        return false;
    }
    return true;
}

static bool take_compat(JsonObject *options, Plan *plan, GError **errp)
{
    g_autofree char *compat = NULL;

    if (!block_options_take_string(options, "compat", &compat, errp)) {
        return false;
    }
    plan->version = 3;
    if (g_strcmp0(compat, "0.10") == 0) {
        plan->version = 2;
    } else if (compat && strcmp(compat, "1.1") != 0) {
        block_error_set(errp, EINVAL, "Invalid compatibility level: '%s'", compat);
        return false;
    }
    return true;
}

static bool is_power_of_2(int64_t value)
{
    return value > 0 && (value & (value - 1)) == 0;
}

static bool check_plan(const Plan *plan, GError **errp)
{
    const char *error = NULL;

    if (!is_power_of_2(plan->cluster_size) || plan->cluster_size < 1LL << QCOW2_MIN_CLUSTER_BITS ||
        plan->cluster_size > 1LL << QCOW2_MAX_CLUSTER_BITS) {
        error = "Cluster size must be a power of two between 512 and 2048k";
    } else if (plan->extended_l2 && plan->cluster_size < MIN_EXTENDED_L2_CLUSTER_SIZE) {
        error = "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes";
    } else if (!is_power_of_2(plan->refcount_bits) || plan->refcount_bits > 64) {
        error = "Refcount width must be a power of two and may not exceed 64 bits";
    } else if (plan->version < 3 && plan->refcount_bits != 16) {
        error = "Different refcount widths than 16 bits require compatibility level 1.1 or above "
                "(use compat=1.1 or greater)";
    }
    if (error) {
        block_error_set(errp, EINVAL, "%s", error);
    }
    return !error;
}

static bool take_plan(JsonObject *options, BlockDriverState *source, Plan *plan, GError **errp)
{
    g_autofree char *backing = NULL;
    int64_t size = 0;

    plan->cluster_size = DEFAULT_CLUSTER_SIZE;
    plan->refcount_bits = 16;
    plan->preallocation = BLOCK_PREALLOC_OFF;
    if (!block_options_take_size(options, "cluster_size", &plan->cluster_size, errp) ||
        !block_options_take_int(options, "refcount_bits", &plan->refcount_bits, errp) ||
        !block_options_take_bool(options, "extended_l2", &plan->extended_l2, errp) ||
        !block_options_take_enum(options, "preallocation", block_prealloc_words,
                                 &plan->preallocation, errp) ||
        !block_options_take_string(options, "backing_file", &backing, errp) ||
        !block_options_take_size(options, "size", &size, errp) ||
        !take_compat(options, plan, errp) || !take_encrypt(options, errp) ||
        !take_the_rest(options, errp) || !check_plan(plan, errp)) {
        return false;
    }
    plan->has_backing = backing && *backing;
    if (source) {
        size = bdrv_getlength(source);
        if (size < 0) {
            block_error_set_errno(errp, -size, "Unable to get image virtual_size");
            return false;
        }
    }
    plan->size = size;
    return true;
}

/* Clusters that refcounts for @clusters, and for themselves, take. */
static uint64_t refcount_clusters(const Plan *plan, uint64_t clusters)
{
    uint64_t per_block = plan->cluster_size * 8 / plan->refcount_bits;
    uint64_t per_table_cluster = plan->cluster_size / 8;
    uint64_t blocks = 0, tables = 0, before;

    do {
        before = blocks + tables;
        blocks = round_up(clusters + before, per_block) / per_block;
        tables = round_up(blocks, per_table_cluster) / per_table_cluster;
    } while (blocks + tables != before);
    return blocks + tables;
}

static uint64_t l2_tables(const Plan *plan)
{
    uint64_t per_table = plan->cluster_size / (plan->extended_l2 ? 16 : 8);

    return round_up(plan->size / plan->cluster_size, per_table) / per_table;
}

/* Bytes of an image in which each of the disk's clusters is allocated. */
static uint64_t fully_allocated(const Plan *plan)
{
    uint64_t per_l1_cluster = plan->cluster_size / 8;
    uint64_t tables = l2_tables(plan);
    uint64_t clusters = 1 + plan->size / plan->cluster_size + tables +
                        round_up(tables, per_l1_cluster) / per_l1_cluster;

    return (clusters + refcount_clusters(plan, clusters)) * plan->cluster_size;
}

/* Bytes of the clusters that @source's data touches; -errno with @errp. */
static int64_t data_bytes(const Plan *plan, BlockDriverState *source, int64_t length,
                          GError **errp)
{
    int64_t required = 0, offset = 0;

    while (offset < length) {
        int64_t pnum = 0;
        int ret = bdrv_block_status_above(source, NULL, offset, length - offset, &pnum, NULL, NULL,
                                          NULL);

        if (ret < 0 || pnum <= 0) {
            ret = ret < 0 ? ret : -EIO;
            block_error_set_errno(errp, -ret, "Unable to get block status");
            return ret;
        }
        if ((ret & BDRV_BLOCK_DATA) && !(ret & BDRV_BLOCK_ZERO)) {
            int64_t first = offset & ~(plan->cluster_size - 1);

            offset = round_up(offset + pnum, plan->cluster_size);
            required += offset - first;
        } else {
            offset += pnum;
        }
    }
    return required;
}

/* Bytes that copies of @source's bitmaps would take, or -1 if it has no such. */
static int64_t bitmap_bytes(const Plan *plan, BlockDriverState *source, uint64_t length)
{
    const Qcow2State *s;
    uint64_t bytes = 0, directory = 0;

    if (!source || strcmp(bdrv_get_format_name(source), "qcow2") != 0) {
        return -1;
    }
    s = bdrv_state(source);
    if (s->header.version < 3) {
        return -1;
    }
    for (guint i = 0; i < s->bitmaps->len; i++) {
        const Qcow2Bitmap *bm = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        uint64_t bits = round_up(length, 1ULL << bm->granularity_bits) >> bm->granularity_bits;
        uint64_t clusters = round_up((bits + 7) / 8, plan->cluster_size) / plan->cluster_size;

        bytes += clusters * plan->cluster_size + round_up(clusters * 8, plan->cluster_size);
        directory += round_up(24 + strlen(bm->name), 8);
    }
    return bytes + round_up(directory, plan->cluster_size);
}

bool qcow2_measure(JsonObject *options, BlockDriverState *source, BlockMeasureInfo *info,
                   GError **errp)
{
    Plan plan = { 0 };
    int64_t length, required = 0;

    if (!take_plan(options, source, &plan, errp)) {
        return false;
    }
    length = plan.size;
    plan.size = round_up(length, plan.cluster_size);
    if (l2_tables(&plan) > QCOW2_MAX_L1_BYTES / 8) {
        block_error_set(errp, EFBIG,
                        "The image size is too large (try using a larger cluster size)");
        return false;
    }
    if (source && !plan.has_backing) {
        required = data_bytes(&plan, source, length, errp);
        if (required < 0) {
            return false;
        }
    }
    /* What a backing file will hold is not known: expect the worst. */
    if ((source && plan.has_backing) || plan.preallocation >= BLOCK_PREALLOC_FALLOC) {
        required = plan.size;
    }
    info->fully_allocated = fully_allocated(&plan);
    info->required = info->fully_allocated - plan.size + required;
    info->bitmaps = bitmap_bytes(&plan, source, length);
    return true;
}
