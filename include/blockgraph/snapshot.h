/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots: states of a disk that its image keeps.
 *
 * A snapshot is known by its number in the image's list, which changes with the
 * list: see bdrv_snapshot_get() in block.h. All functions here are global state
 * (main thread, big lock held, not in a coroutine). A filter has the snapshots of the
 * node below it, unless it has a second child with data of its own.
 *
 * Those that change something drain the node, flush it and wait for I/O; the node
 * must be writable. When they return true, the change is durable. A power cut leaves
 * the image as it was or as it is to be, and clusters that nothing uses at worst. False sets
 * @errp: then the list and the disk are as they were, unless it says otherwise.
 */
#ifndef BLOCKGRAPH_SNAPSHOT_H
#define BLOCKGRAPH_SNAPSHOT_H

#include "blockgraph/block.h"

G_BEGIN_DECLS

/*
 * The number of the snapshot with this ID and this name; NULL: any. The first of
 * several. False if there is none.
 */
bool bdrv_snapshot_find(BlockDriverState *bs, const char *id, const char *name, size_t *index);
/*
 * Keep the disk as it is now as a snapshot, the last of the list. Of @info name, date,
 * vm_clock_nsec and icount are taken, the name cut to its length; vm_state_size must be
 * 0. The ID is one more than the highest. Names need not differ.
 */
bool bdrv_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info, GError **errp);
/*
 * Let the disk be what it was at snapshot @index; what it is now is lost. Its length becomes
 * that of the snapshot, which all parents have to let happen (BLK_PERM_RESIZE).
 */
bool bdrv_snapshot_goto(BlockDriverState *bs, size_t index, GError **errp);
/* Delete snapshot @index; the disk stays as it is. */
bool bdrv_snapshot_delete(BlockDriverState *bs, size_t index, GError **errp);

G_END_DECLS

#endif
