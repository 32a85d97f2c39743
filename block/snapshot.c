/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing an image's internal snapshots: nothing is in flight, all is flushed, and no
 * mapping is remembered from before (rule 7 of map.h).
 */
#include <errno.h>
#include <string.h>

#include "block/io-int.h"
#include "blockgraph/dirty-bitmap.h"
#include "blockgraph/snapshot.h"

typedef struct SnapshotChange SnapshotChange;
struct SnapshotChange {
    BlockDriverState *bs;
    int coroutine_fn (*run)(SnapshotChange *change);
    const BdrvSnapshotInfo *info; /* create */
    size_t index;                 /* the others */
    GError **errp;
    int ret;
};

bool bdrv_snapshot_find(BlockDriverState *bs, const char *id, const char *name, size_t *index)
{
    BdrvSnapshotInfo sn;

    GLOBAL_STATE_CODE();
    for (size_t i = 0; bdrv_snapshot_get(bs, i, &sn); i++) {
        if ((!id || strcmp(sn.id, id) == 0) && (!name || strcmp(sn.name, name) == 0)) {
            *index = i;
            return true;
        }
    }
    return false;
}

static void coroutine_fn change_entry(void *opaque)
{
    SnapshotChange *change = opaque;
    BlockDriverState *bs = change->bs;

    bdrv_graph_assert_readable();
    in_flight_begin(&bs->in_flight);
    /* With that, places that are retired come back to the driver, too. */
    change->ret = bdrv_co_flush(bs);
    if (change->ret < 0) {
        block_error_set_errno(change->errp, change->ret, "'%s': could not flush the image",
                              bs->filename);
    } else {
        change->ret = change->run(change);
    }
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
}

static void tell_length(BlockDriverState *bs)
{
    bdrv_graph_rdlock_main_loop();
    bdrv_note_write(bs, 0);
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        parent->ops->resized(parent);
    }
    bdrv_graph_rdunlock_main_loop();
}

static bool run_change(SnapshotChange *change)
{
    BlockDriverState *bs = change->bs;
    int64_t length;

    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    length = bdrv_getlength(bs);
    bdrv_graph_rdlock_main_loop();
    bdrv_forget_mappings_above(bs);
    bdrv_graph_rdunlock_main_loop();
    bdrv_run_co(change_entry, change);
    bdrv_graph_rdlock_main_loop();
    bdrv_forget_mappings_above(bs);
    bdrv_graph_rdunlock_main_loop();
    if (bdrv_getlength(bs) != length) {
        tell_length(bs);
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    return change->ret >= 0;
}

static bool may_change(BlockDriverState *bs, GError **errp)
{
    if (!bs->drv->bdrv_co_snapshot_create) {
        block_error_set(errp, ENOTSUP, "Block driver '%s' does not support snapshots",
                        bs->drv->format_name);
        return false;
    }
    if (bs->read_only) {
        block_error_set(errp, EACCES, "'%s' is read-only: its snapshots cannot be changed",
                        bs->filename);
        return false;
    }
    return true;
}

static bool may_change_one(BlockDriverState *bs, size_t index, BdrvSnapshotInfo *info,
                           GError **errp)
{
    if (!may_change(bs, errp)) {
        return false;
    }
    if (!bdrv_snapshot_get(bs, index, info)) {
        block_error_set(errp, ENOENT, "'%s' has no snapshot number %zu", bs->filename, index);
        return false;
    }
    return true;
}

/* ---- Create --------------------------------------------------------------------------- */

static int coroutine_fn create_run(SnapshotChange *change)
{
    bdrv_graph_assert_readable();
    return change->bs->drv->bdrv_co_snapshot_create(change->bs, change->info, change->errp);
}

bool bdrv_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info, GError **errp)
{
    SnapshotChange change = {.bs = bs, .run = create_run, .info = info, .errp = errp};

    GLOBAL_STATE_CODE();
    if (!may_change(bs, errp)) {
        return false;
    }
    if (info->vm_state_size != 0) {
        block_error_set(errp, EINVAL, "Snapshot '%s': there is no VM state of %" G_GUINT64_FORMAT
                        " bytes in the image", info->name, info->vm_state_size);
        return false;
    }
    return run_change(&change);
}

/* ---- Apply, delete --------------------------------------------------------------------- */

static int coroutine_fn goto_run(SnapshotChange *change)
{
    bdrv_graph_assert_readable();
    return change->bs->drv->bdrv_co_snapshot_goto(change->bs, change->index, change->errp);
}

static bool may_become(BlockDriverState *bs, const BdrvSnapshotInfo *info, GError **errp)
{
    bool ok = true;

    if (info->disk_size == UINT64_MAX || info->disk_size == (uint64_t)bdrv_getlength(bs)) {
        return true;
    }
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *parent = bs->parents; parent && ok; parent = parent->next_parent) {
        if (!(bdrv_child_shared_perm(parent) & BLK_PERM_RESIZE)) {
            g_autofree char *desc = bdrv_child_parent_desc(parent);

            block_error_set(errp, EPERM, "'%s' cannot become %" G_GUINT64_FORMAT " bytes long as "
                            "at snapshot '%s': %s does not allow resizing", bs->filename,
                            info->disk_size, info->name, desc);
            ok = false;
        }
    }
    bdrv_graph_rdunlock_main_loop();
    return ok;
}

bool bdrv_snapshot_goto(BlockDriverState *bs, size_t index, GError **errp)
{
    SnapshotChange change = {.bs = bs, .run = goto_run, .index = index, .errp = errp};
    BdrvSnapshotInfo info;

    GLOBAL_STATE_CODE();
    if (bdrv_dirty_bitmap_next(bs, NULL)) { /* they cannot know what differs */
        block_error_set(errp, EBUSY, "Device has active dirty bitmaps");
        return false;
    }
    return may_change_one(bs, index, &info, errp) && may_become(bs, &info, errp) &&
           run_change(&change);
}

static int coroutine_fn delete_run(SnapshotChange *change)
{
    bdrv_graph_assert_readable();
    return change->bs->drv->bdrv_co_snapshot_delete(change->bs, change->index, change->errp);
}

bool bdrv_snapshot_delete(BlockDriverState *bs, size_t index, GError **errp)
{
    SnapshotChange change = {.bs = bs, .run = delete_run, .index = index, .errp = errp};
    BdrvSnapshotInfo info;

    GLOBAL_STATE_CODE();
    return may_change_one(bs, index, &info, errp) && run_change(&change);
}
