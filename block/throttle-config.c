/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The limits of a throttle group: reading them from options, and whether they go
 * together. The messages are QEMU's.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "blockgraph/error.h"
#include "blockgraph/options.h"
#include "blockgraph/throttle-group.h"

void throttle_config_init(ThrottleConfig *config)
{
    *config = (ThrottleConfig){0};
    for (int i = 0; i < THROTTLE__MAX; i++) {
        config->limits[i].max_length = 1;
    }
}

/* ---- Checking -------------------------------------------------------------------------- */

/* Whether one of @total and one of its parts, a read and a write limit, are there both. */
static bool both_given(uint64_t total, uint64_t read, uint64_t write)
{
    return total > 0 && (read > 0 || write > 0);
}

/* The limit @total and the two behind it. */
static bool totals_are_alone(const ThrottleLimit *total)
{
    return !both_given(total[0].avg, total[1].avg, total[2].avg) &&
           !both_given(total[0].max, total[1].max, total[2].max);
}

/* What is wrong with one limit, or NULL. */
static const char *limit_fault(const ThrottleLimit *limit)
{
    uint64_t burst;

    if (limit->avg > THROTTLE_VALUE_MAX || limit->max > THROTTLE_VALUE_MAX) {
        return "bps/iops/max values must be within [0, 1000000000000000]";
    }
    if (limit->max_length == 0) {
        return "the burst length cannot be 0";
    }
    if (limit->max_length > 1 && limit->max == 0) {
        return "burst length set without burst rate";
    }
    if (__builtin_mul_overflow(limit->max, limit->max_length, &burst) ||
        burst > THROTTLE_VALUE_MAX) {
        return "burst length too high for this burst rate";
    }
    if (limit->max > 0 && limit->avg == 0) {
        return "bps_max/iops_max require corresponding bps/iops values";
    }
    if (limit->max > 0 && limit->max < limit->avg) {
        return "bps_max/iops_max cannot be lower than bps/iops";
    }
    return NULL;
}

bool throttle_config_check(const ThrottleConfig *config, GError **errp)
{
    const ThrottleLimit *limits = config->limits;

    if (!totals_are_alone(&limits[THROTTLE_BPS_TOTAL]) ||
        !totals_are_alone(&limits[THROTTLE_IOPS_TOTAL])) {
        block_error_set(errp, EINVAL, "bps/iops/max total values and read/write values cannot be "
                        "used at the same time");
        return false;
    }
    if (config->iops_size > 0 && limits[THROTTLE_IOPS_TOTAL].avg == 0 &&
        limits[THROTTLE_IOPS_READ].avg == 0 && limits[THROTTLE_IOPS_WRITE].avg == 0) {
        block_error_set(errp, EINVAL, "iops size requires an iops value to be set");
        return false;
    }
    for (int i = 0; i < THROTTLE__MAX; i++) {
        const char *fault = limit_fault(&limits[i]);

        if (fault) {
            block_error_set(errp, EINVAL, "%s", fault);
            return false;
        }
    }
    return true;
}

/* ---- Options ------------------------------------------------------------------------------- */

static const char *const kind_names[THROTTLE__MAX] = {
    "bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write",
};

/* Where options are taken from, and how they are called in messages and there. */
typedef struct Source {
    JsonObject *options;
    const char *message_prefix; /* "limits." */
    const char *key_prefix;     /* "x-" */
    bool negative_refused;      /* else it is a number above all limits */
} Source;

/* Take member @name, if it is there, into *@value. @name is without prefixes. */
static bool take_number(const Source *from, const char *name, uint64_t most, uint64_t *value,
                        GError **errp)
{
    g_autofree char *key = g_strconcat(from->key_prefix, name, NULL);
    JsonNode *node = json_object_get_member(from->options, key);
    bool is_text = node && JSON_NODE_HOLDS_VALUE(node) &&
                   json_node_get_value_type(node) == G_TYPE_STRING;
    int64_t number;

    if (!node) {
        return true;
    }
    if (!block_options_take_int(from->options, key, &number, NULL)) {
        block_error_set(errp, EINVAL, is_text ? "Parameter '%s%s' expects integer"
                        : "Invalid parameter type for '%s%s', expected: integer",
                        from->message_prefix, key);
        return false;
    }
    if (number < 0 && from->negative_refused) {
        block_error_set(errp, EINVAL, "Property values cannot be negative");
        return false;
    }
    if (number >= 0 && number > most) {
        block_error_set(errp, EINVAL, "%s value must be in the range [0, %" PRIu64 "]", key, most);
        return false;
    }
    *value = number;
    return true;
}

static bool take_limits(ThrottleConfig *config, const Source *from, GError **errp)
{
    for (int i = 0; i < THROTTLE__MAX; i++) {
        ThrottleLimit *limit = &config->limits[i];
        g_autofree char *max = g_strconcat(kind_names[i], "-max", NULL);
        g_autofree char *max_length = g_strconcat(max, "-length", NULL);

        if (!take_number(from, kind_names[i], INT64_MAX, &limit->avg, errp) ||
            !take_number(from, max, INT64_MAX, &limit->max, errp) ||
            !take_number(from, max_length, UINT_MAX, &limit->max_length, errp)) {
            return false;
        }
    }
    return take_number(from, "iops-size", INT64_MAX, &config->iops_size, errp);
}

bool throttle_config_take(ThrottleConfig *config, JsonObject *options, GError **errp)
{
    g_autoptr(JsonObject) limits = NULL;
    Source from = {options, "", "x-", true};

    if (!take_limits(config, &from, errp)) {
        return false;
    }
    if (!block_options_take_object(options, "limits", &limits, NULL)) {
        block_error_set(errp, EINVAL, "Invalid parameter type for 'limits', expected: object");
        return false;
    }
    if (!limits) {
        return true;
    }
    from = (Source){limits, "limits.", "", false};
    if (!take_limits(config, &from, errp)) {
        return false;
    }
    if (json_object_get_size(limits) > 0) {
        g_autoptr(GList) rest = json_object_get_members(limits);

        block_error_set(errp, EINVAL, "Parameter 'limits.%s' is unexpected",
                        (const char *)rest->data);
        return false;
    }
    return true;
}
