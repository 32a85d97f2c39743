/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images of which a snapshot was taken before the guest came. */
#include <string.h>

#include "blockgraph/snapshot.h"
#include "with-snapshot.h"

bool crash_create_with_snapshot(const CrashFormat *format, CrashStore *store, GString *why)
{
    BdrvSnapshotInfo info = {.name = "before", .icount = UINT64_MAX};
    g_autoptr(BlockBackend) blk =
        crash_create_by_driver(format, store, why) ? crash_open(format, why) : NULL;
    g_autoptr(GError) err = NULL;

    if (blk && !bdrv_snapshot_create(blk_bs(blk), &info, &err)) {
        g_string_append_printf(why, "creating a snapshot: %s", err->message);
    }
    return why->len == 0;
}

static void add_finding(void *opaque, const char *line)
{
    g_string_append_printf(opaque, "%s; ", line);
}

bool crash_snapshot_is_whole(const CrashFormat *format, BlockBackend *blk, GString *why)
{
    g_autoptr(JsonObject) options = block_options_parse(format->options, NULL, NULL);
    g_autoptr(BlockBackend) reader =
        blk_new_open(NULL, options, 0, &block_open_policy_follow, NULL);
    g_autofree uint8_t *data = g_malloc(format->base_bytes);
    g_autofree uint8_t *expected = g_malloc(format->base_bytes);
    g_autoptr(GString) findings = g_string_new(NULL);
    BdrvCheckResult result = {0};

    crash_model_fill(1, 0, format->base_bytes, expected);
    if (!reader || !bdrv_snapshot_load_tmp(blk_bs(reader), "1", NULL, NULL) ||
        blk_pread(reader, 0, format->base_bytes, data, 0) < 0 ||
        memcmp(data, expected, format->base_bytes) != 0) {
        g_string_append(why, "the snapshot is not what it was");
        return false;
    }
    if (bdrv_check(blk_bs(blk), &result, add_finding, findings) < 0 || result.corruptions ||
        result.check_errors) {
        g_string_append(why, findings->str);
        return false;
    }
    return true;
}
