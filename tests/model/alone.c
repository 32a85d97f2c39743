/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is done alone, while nothing is in flight.
 */
#include "run.h"

bool model_failed(ModelRun *run, const char *what, const GError *err)
{
    g_string_append_printf(run->why, "%s: %s", what, err ? err->message : "failed");
    return false;
}

/* ---- Opening again ------------------------------------------------------------------------ */

static bool close_and_open(ModelRun *run)
{
    return model_image_close(&run->image, &run->disk, run->why) &&
           model_image_open(&run->image, &run->random, run->why);
}

/* Read-only for a while, and back, while it stays open. */
static bool turn_read_only(ModelRun *run)
{
    BlockBackend *blk = run->image.blk;
    g_autoptr(GError) err = NULL;
    uint64_t perm, shared;

    blk_get_perm(blk, &perm, &shared);
    if (!blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, shared, &err) ||
        !bdrv_reopen_set_read_only(blk_bs(blk), true, &err)) {
        return model_failed(run, "reopening read-only", err);
    }
    if (!model_image_settle(&run->image, &run->disk, run->why)) {
        return false;
    }
    if (!bdrv_reopen_set_read_only(blk_bs(blk), false, &err) ||
        !blk_set_perm(blk, perm, shared, &err)) {
        return model_failed(run, "reopening for writing", err);
    }
    return true;
}

static bool change_backing(ModelRun *run)
{
    return !run->image.below || model_image_flatten_below(&run->image, run->why);
}

/* ---- Its length --------------------------------------------------------------------------- */

static bool resize(ModelRun *run)
{
    int64_t cluster = run->image.shape.cluster, size = run->disk.size;
    int64_t by = 512 * (1 + model_random(&run->random, MIN(8 * cluster, 128 * 1024) / 512));
    bool grow = size <= by || (size + by <= MODEL_MAX_SIZE && model_random(&run->random, 2));
    BlockPrealloc prealloc = grow && model_random(&run->random, 3) == 0
                                 ? (BlockPrealloc)model_random(&run->random, 4)
                                 : BLOCK_PREALLOC_OFF;
    g_autoptr(GError) err = NULL;

    size = grow ? size + by : MIN(size - by, MODEL_MAX_SIZE);
    if (blk_truncate(run->image.blk, size, true, prealloc, &err) < 0) {
        return (run->image.shape.version == 2 && run->snapshots->len > 0) ||
               model_failed(run, grow ? "growing" : "shrinking", err);
    }
    model_disk_resize(&run->disk, size);
    model_bitmaps_resize(run, size);
    return true;
}

/* ---- The table ---------------------------------------------------------------------------- */

static const struct {
    const char *name;
    bool (*run)(ModelRun *run);
} verbs[] = {
    {"close and open", close_and_open},
    {"read-only and back", turn_read_only},
    {"another backing file", change_backing},
    {"bitmaps", model_bitmaps_change},
    {"resize", resize},
    {"resize", resize},
    {"snapshots", model_snapshots_change},
    {"snapshots", model_snapshots_change},
};

bool model_run_alone(ModelRun *run)
{
    unsigned verb = model_random(&run->random, G_N_ELEMENTS(verbs) * 3 / 2);

    if (verb >= G_N_ELEMENTS(verbs)) {
        return true;
    }
    run->operations++;
    if (run->plan->verbose) {
        g_printerr("  %s\n", verbs[verb].name);
    }
    if (!verbs[verb].run(run)) {
        g_string_append_printf(run->why, " (%s)", verbs[verb].name);
        return false;
    }
    return model_image_settle(&run->image, &run->disk, run->why) && model_bitmaps_check(run);
}
