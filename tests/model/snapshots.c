/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots of the top layer: each keeps what the disk was.
 */
#include <string.h>

#include "blockgraph/snapshot.h"
#include "run.h"

typedef struct Snapshot {
    uint8_t *bytes;
    int64_t size;
} Snapshot;

static void snapshot_clear(gpointer data)
{
    g_free(((Snapshot *)data)->bytes);
}

void model_snapshots_reset(ModelRun *run)
{
    g_clear_pointer(&run->snapshots, g_array_unref);
    run->snapshots = g_array_new(false, false, sizeof(Snapshot));
    g_array_set_clear_func(run->snapshots, snapshot_clear);
}

/* A narrow refcount may be full: compressed clusters share places, too. */
static bool has_room(const ModelRun *run)
{
    return run->image.shape.refcount_bits >= 16;
}

static bool create(ModelRun *run)
{
    BdrvSnapshotInfo info = {.name = "a state", .icount = UINT64_MAX};
    Snapshot snapshot = {g_memdup2(run->disk.bytes, run->disk.size), run->disk.size};
    g_autoptr(GError) err = NULL;
    bool ok = bdrv_snapshot_create(blk_bs(run->image.blk), &info, &err);

    if (ok) {
        g_array_append_val(run->snapshots, snapshot);
    } else {
        g_free(snapshot.bytes);
    }
    return ok || !has_room(run) || run->image.shape.data_file ||
           model_failed(run, "creating a snapshot", err);
}

static bool apply(ModelRun *run, unsigned i)
{
    const Snapshot *snapshot = &g_array_index(run->snapshots, Snapshot, i);
    bool refused = model_bitmaps_are_there(run);
    g_autoptr(GError) err = NULL;

    if (!bdrv_snapshot_goto(blk_bs(run->image.blk), i, &err)) {
        return refused || !has_room(run) || model_failed(run, "applying a snapshot", err);
    }
    if (refused) {
        return model_failed(run, "bitmaps do not know that a snapshot was applied", NULL);
    }
    model_disk_resize(&run->disk, snapshot->size);
    memcpy(run->disk.bytes, snapshot->bytes, snapshot->size);
    return true;
}

static bool drop(ModelRun *run, unsigned i)
{
    g_autoptr(GError) err = NULL;

    if (!bdrv_snapshot_delete(blk_bs(run->image.blk), i, &err)) {
        return model_failed(run, "deleting a snapshot", err);
    }
    g_array_remove_index(run->snapshots, i);
    return true;
}

/* Close the image, and read through the snapshot. */
static bool look(ModelRun *run, unsigned i)
{
    const Snapshot *snapshot = &g_array_index(run->snapshots, Snapshot, i);
    g_autoptr(GError) err = NULL;
    g_autofree uint8_t *data = g_malloc(snapshot->size);
    BdrvSnapshotInfo info;
    BlockBackend *blk;
    int64_t size;
    bool ok;

    blk = model_image_close(&run->image, &run->disk, run->why)
              ? model_image_open_read_only(&run->image, run->why)
              : NULL;
    if (!blk) {
        return false;
    }
    ok = (bdrv_snapshot_get(blk_bs(blk), i, &info) &&
          bdrv_snapshot_load_tmp(blk_bs(blk), info.id, NULL, &err)) ||
         model_failed(run, "looking through a snapshot", err);
    size = MIN(blk_getlength(blk), snapshot->size); /* the disk stays as long as it is now */
    if (ok && (blk_pread(blk, 0, size, data, 0) < 0 || memcmp(data, snapshot->bytes, size) != 0)) {
        g_string_append_printf(run->why, "snapshot %u is not what it was", i);
        ok = false;
    }
    blk_unref(blk);
    return ok && model_image_open(&run->image, &run->random, run->why);
}

bool model_snapshots_change(ModelRun *run)
{
    unsigned count = run->snapshots->len, i;

    if (count == 0 || (count < 4 && model_random(&run->random, 2))) {
        return create(run);
    }
    i = model_random(&run->random, count);
    switch (model_random(&run->random, 3)) {
    case 0:
        return apply(run, i);
    case 1:
        return drop(run, i);
    default:
        return look(run, i);
    }
}
