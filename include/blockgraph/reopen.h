/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening: other options for nodes that stay in the graph and in use.
 *
 * Everything here is global state, and waits for I/O.
 */
#ifndef BLOCKGRAPH_REOPEN_H
#define BLOCKGRAPH_REOPEN_H

#include "blockgraph/block.h"

G_BEGIN_DECLS

/*
 * Nodes that are to be reopened together: all or none. Holds a reference to each.
 */
typedef struct BdrvReopenQueue BdrvReopenQueue;
BdrvReopenQueue *bdrv_reopen_queue_new(void);
/*
 * Note @bs, with @options (may be NULL; copied). What is not named stays as it is.
 * The keys that every node has: read-only, auto-read-only (noted for later: a
 * reopen never falls back to read-only), discard, detect-zeroes, force-share,
 * cache.direct, cache.no-flush. An object under a child's name holds options for that
 * child. All others are the driver's, who may change them or not; naming one with
 * the value that it has is no change.
 *
 * What changes of read-only, auto-read-only, cache and force-share goes for the
 * children that were opened with @bs as well (not for those that its options name as
 * nodes), unless their own options say otherwise. A backing file stays read-only.
 * A node may be noted several times: the last value of an option counts.
 */
void bdrv_reopen_queue_add(BdrvReopenQueue *queue, BlockDriverState *bs, JsonObject *options);
/*
 * Drain the nodes, flush those that are writable, and reopen all. False with @errp if
 * one of them cannot be: then all are as they were before. Fails where a parent
 * still takes the permission to write to a node that would become read-only, where a
 * flush or a driver fails, and where a lock of a file is not to be had. The queue is
 * freed either way.
 */
bool bdrv_reopen_queue_commit(BdrvReopenQueue *queue, GError **errp);
void bdrv_reopen_queue_abort(BdrvReopenQueue *queue);

/* A queue of one. */
bool bdrv_reopen(BlockDriverState *bs, JsonObject *options, GError **errp);
bool bdrv_reopen_set_read_only(BlockDriverState *bs, bool read_only, GError **errp);

G_END_DECLS

#endif
