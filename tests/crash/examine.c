/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is looked at after a power cut: that the image opens, that its check is
 * content, that the guest finds what it may find, and that the image can be
 * gone on with.
 */
#include <errno.h>
#include <string.h>

#include "examine.h"

#define MAX_LENGTH (1 << 26) /* of a guest's disk, which is read as a whole */

/* ---- Opening and reading ---------------------------------------------------------- */

BlockBackend *crash_open(const CrashFormat *format, GString *why)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(format->options, NULL, &err);
    int flags = BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP;
    BlockBackend *blk = NULL;

    if (options) {
        blk = blk_new_open(NULL, options, flags, &block_open_policy_follow, &err);
    }
    if (!blk) {
        g_string_append_printf(why, "opening failed: %s; ", err->message);
    }
    return blk;
}

/* All of @blk, *@length bytes: free with g_free(); NULL with @why. */
static uint8_t *read_all(BlockBackend *blk, int64_t *length, GString *why)
{
    uint8_t *data;
    int ret;

    *length = blk_getlength(blk);
    if (*length < 0 || *length > MAX_LENGTH) {
        g_string_append_printf(why, "the length is %" G_GINT64_FORMAT, *length);
        return NULL;
    }
    data = g_malloc(*length);
    ret = blk_pread(blk, 0, *length, data, 0);
    if (ret < 0) {
        g_string_append_printf(why, "reading failed: %s", g_strerror(-ret));
        g_clear_pointer(&data, g_free);
    }
    return data;
}

bool crash_disk_is_allowed(const CrashRun *run, BlockBackend *blk, CrashView view, GString *why)
{
    int64_t length;
    g_autofree uint8_t *data = read_all(blk, &length, why);

    return data &&
           crash_model_allows_length(run->model, view, length, run->format->length_of_file, why) &&
           crash_model_allows(run->model, view, 0, length, data, why);
}

/* ---- After the power cut ---------------------------------------------------------- */

static void add_finding(void *opaque, const char *line)
{
    g_string_append_printf(opaque, "%s; ", line);
}

static bool image_is_whole(const CrashFormat *format, BlockBackend *blk, GString *why)
{
    BdrvCheckResult result = {0};
    size_t before = why->len;
    int ret;

    if (format->examine) {
        return format->examine(format, blk, why);
    }
    ret = bdrv_check(blk_bs(blk), &result, add_finding, why);
    if (ret >= 0 && result.corruptions == 0 && result.check_errors == 0) {
        g_string_truncate(why, before); /* leaks */
    }
    if (ret < 0 && ret != -ENOTSUP) {
        g_string_append_printf(why, "check failed: %s; ", g_strerror(-ret));
    }
    return why->len == before;
}

/*
 * The image goes on working: a write of parts of units, which may need places,
 * changes what it is to change and nothing else; the image is opened again to see.
 */
static bool goes_on_working(const CrashRun *run, BlockBackend **blk, GString *why)
{
    int64_t length, length_after, offset = run->format->unit + CRASH_SECTOR, bytes;
    g_autofree uint8_t *before = read_all(*blk, &length, why), *after = NULL;
    int ret;

    if (!before || length <= offset) {
        return before != NULL;
    }
    bytes = MIN(2 * run->format->unit, length - offset);
    memset(before + offset, 0x77, bytes);
    ret = blk_pwrite(*blk, offset, bytes, before + offset, 0);
    if (ret < 0) {
        g_string_append_printf(why, "writing after it failed: %s", g_strerror(-ret));
        return false;
    }
    blk_unref(*blk);
    *blk = crash_open(run->format, why);
    after = *blk ? read_all(*blk, &length_after, why) : NULL;
    if (after && (length_after != length || memcmp(before, after, length) != 0)) {
        g_string_append(why, "a write after it changed other data");
        return false;
    }
    return after && image_is_whole(run->format, *blk, why);
}

/* Repair finds nothing that it cannot mend, not even a leak is left, and no data changes. */
static bool repairs_well(const CrashRun *run, BlockBackend *blk, GString *why)
{
    BdrvCheckResult result = {0};
    int64_t length, length_after;
    g_autofree uint8_t *before = read_all(blk, &length, why), *after = NULL;
    size_t reported = why->len;
    int ret;

    if (!before) {
        return false;
    }
    ret = bdrv_repair(blk_bs(blk), BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &result, add_finding, why);
    if (ret == -ENOTSUP) {
        return true;
    }
    if (ret >= 0) {
        memset(&result, 0, sizeof(result));
        ret = bdrv_check(blk_bs(blk), &result, add_finding, why);
    }
    if (ret < 0 || result.corruptions || result.leaks || result.check_errors) {
        g_string_append_printf(why, "after repair: %d, %" G_GINT64_FORMAT " corruptions, %"
                               G_GINT64_FORMAT " leaks; ", ret, result.corruptions, result.leaks);
        return false;
    }
    g_string_truncate(why, reported);
    after = read_all(blk, &length_after, why);
    if (after && (length_after != length || memcmp(before, after, length) != 0)) {
        g_string_append(why, "repair changed data");
        return false;
    }
    return after != NULL;
}

/* Some images are repaired first, some are written to as they are. */
bool crash_examine(void *opaque, uint64_t cut, GString *why)
{
    CrashRun *run = opaque;
    CrashView view = crash_model_after_cut(run->model, cut);
    BlockBackend *blk = crash_open(run->format, why);
    bool ok = blk && image_is_whole(run->format, blk, why) &&
              crash_disk_is_allowed(run, blk, view, why);

    if (cut % 2) {
        ok = ok && goes_on_working(run, &blk, why) && repairs_well(run, blk, why);
    } else {
        ok = ok && repairs_well(run, blk, why) && goes_on_working(run, &blk, why);
    }
    blk_unref(blk);
    return ok;
}
