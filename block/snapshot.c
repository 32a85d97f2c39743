/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image's internal snapshots: asking, reading through one, changing.
 */
#include <errno.h>
#include <string.h>

#include "block/io-int.h"
#include "blockgraph/dirty-bitmap.h"
#include "blockgraph/snapshot.h"

/* ---- Who keeps them ---------------------------------------------------------------------- */

/* The only child that guest data or tables come from, or NULL. */
static BlockDriverState *only_part(BlockDriverState *bs) GRAPH_RDLOCK
{
    const int parts = BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_FILTERED;
    BdrvChild *primary = bdrv_primary_child(bs);

    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        if (child != primary && (bdrv_child_role(child) & parts)) {
            return NULL;
        }
    }
    return primary ? bdrv_child_bs(primary) : NULL;
}

/* The node that @bs, a filter without snapshots of its own, has its snapshots from, or NULL. */
static BlockDriverState *next_keeper(BlockDriverState *bs)
{
    BlockDriverState *below = NULL;

    bdrv_graph_rdlock_main_loop();
    if (bs->drv->is_filter && !bs->drv->bdrv_snapshot_get) {
        below = only_part(bs);
    }
    bdrv_graph_rdunlock_main_loop();
    return below;
}

static BlockDriverState *find_keeper(BlockDriverState *bs)
{
    for (BlockDriverState *below; (below = next_keeper(bs)); bs = below) {
    }
    return bs;
}

/* ---- Asking ------------------------------------------------------------------------------ */

bool bdrv_snapshot_get(BlockDriverState *bs, size_t index, BdrvSnapshotInfo *info)
{
    GLOBAL_STATE_CODE();
    bs = find_keeper(bs);
    return bs->drv->bdrv_snapshot_get && bs->drv->bdrv_snapshot_get(bs, index, info);
}

/* Like bdrv_snapshot_find(); with what it says in @info. */
static bool find(BlockDriverState *bs, const char *id, const char *name, size_t *index,
                 BdrvSnapshotInfo *info)
{
    for (size_t i = 0; bdrv_snapshot_get(bs, i, info); i++) {
        if ((!id || strcmp(info->id, id) == 0) && (!name || strcmp(info->name, name) == 0)) {
            *index = i;
            return true;
        }
    }
    return false;
}

bool bdrv_snapshot_find(BlockDriverState *bs, const char *id, const char *name, size_t *index)
{
    BdrvSnapshotInfo sn;

    GLOBAL_STATE_CODE();
    return find(bs, id, name, index, &sn);
}

/* ---- Reading through one -------------------------------------------------------------------- */

static bool load_tmp(BlockDriverState *bs, const BdrvSnapshotInfo *snapshot, GError **errp)
{
    bool ok;

    if (!bs->read_only) {
        block_error_set(errp, EINVAL, "Node '%s' is not read-only: a snapshot is only read",
                        bs->node_name);
        return false;
    }
    bdrv_drained_begin(bs);
    ok = bs->drv->bdrv_snapshot_load_tmp(bs, snapshot, errp);
    bdrv_forget_mappings(bs);
    bdrv_drained_end(bs);
    return ok;
}

bool bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, GError **errp)
{
    BdrvSnapshotInfo sn;
    size_t index;

    GLOBAL_STATE_CODE();
    if (!bs->drv->bdrv_snapshot_load_tmp) {
        block_error_set(errp, ENOTSUP,
                        "Block format '%s' used by device '' does not support temporarily loading "
                        "internal snapshots", bs->drv->format_name);
        return false;
    }
    if (find(bs, id, name, &index, &sn)) {
        return load_tmp(bs, &sn, errp);
    }
    block_error_set(errp, ENOENT, "Can't find snapshot");
    return false;
}

bool bdrv_snapshot_load_tmp_by_tag(BlockDriverState *bs, const char *tag, GError **errp)
{
    g_autoptr(GError) err = NULL;

    if (bdrv_snapshot_load_tmp(bs, tag, NULL, &err)) {
        return true;
    }
    return err->code == ENOENT ? bdrv_snapshot_load_tmp(bs, NULL, tag, errp)
                               : (g_propagate_error(errp, g_steal_pointer(&err)), false);
}

/* ---- Changing -------------------------------------------------------------------------------- */

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

static int coroutine_fn create(BlockDriverState *bs, void *opaque, GError **errp)
{
    const BdrvSnapshotInfo *info = opaque;

    bdrv_graph_assert_readable();
    return bs->drv->bdrv_co_snapshot_create(bs, info, errp);
}

bool bdrv_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info, GError **errp)
{
    BdrvSnapshotInfo copy = *info;

    GLOBAL_STATE_CODE();
    bs = find_keeper(bs);
    if (!may_change(bs, errp)) {
        return false;
    }
    if (info->vm_state_size != 0) {
        block_error_set(errp, EINVAL, "Snapshot '%s': there is no VM state of %" G_GUINT64_FORMAT
                        " bytes in the image", info->name, info->vm_state_size);
        return false;
    }
    return bdrv_run_alone(bs, create, &copy, errp) >= 0;
}

/* ---- Apply, delete --------------------------------------------------------------------- */

static int coroutine_fn go_to(BlockDriverState *bs, void *opaque, GError **errp)
{
    const size_t *index = opaque;

    bdrv_graph_assert_readable();
    return bs->drv->bdrv_co_snapshot_goto(bs, *index, errp);
}

static bool may_become(BlockDriverState *bs, const BdrvSnapshotInfo *info, GError **errp)
{
    g_autofree char *refuser = NULL;

    if (info->disk_size == UINT64_MAX || info->disk_size == (uint64_t)bdrv_getlength(bs)) {
        return true;
    }
    refuser = bdrv_resize_refuser(bs);
    if (refuser) {
        block_error_set(errp, EPERM, "'%s' cannot become %" G_GUINT64_FORMAT " bytes long as at "
                        "snapshot '%s': %s does not allow resizing", bs->filename,
                        info->disk_size, info->name, refuser);
    }
    return !refuser;
}

bool bdrv_snapshot_goto(BlockDriverState *bs, size_t index, GError **errp)
{
    BdrvSnapshotInfo info;

    GLOBAL_STATE_CODE();
    for (BlockDriverState *at = bs; at; at = next_keeper(at)) {
        if (bdrv_dirty_bitmap_next(at, NULL)) { /* they cannot know what differs */
            block_error_set(errp, EBUSY, "Device has active dirty bitmaps");
            return false;
        }
    }
    bs = find_keeper(bs);
    return may_change_one(bs, index, &info, errp) && may_become(bs, &info, errp) &&
           bdrv_run_alone(bs, go_to, &index, errp) >= 0;
}

static int coroutine_fn delete(BlockDriverState *bs, void *opaque, GError **errp)
{
    const size_t *index = opaque;

    bdrv_graph_assert_readable();
    return bs->drv->bdrv_co_snapshot_delete(bs, *index, errp);
}

bool bdrv_snapshot_delete(BlockDriverState *bs, size_t index, GError **errp)
{
    BdrvSnapshotInfo info;

    GLOBAL_STATE_CODE();
    bs = find_keeper(bs);
    return may_change_one(bs, index, &info, errp) &&
           bdrv_run_alone(bs, delete, &index, errp) >= 0;
}
