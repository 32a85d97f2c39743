/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The throttle filter: requests wait until they are within the limits of a group of
 * nodes. See docs/formats/throttle.md, and throttle-group.h for what the group does.
 */
#include <errno.h>

#include "blockgraph/block-driver.h"

typedef struct ThrottleNode {
    ThrottleGroupMember *member; /* changes only while drained */
} ThrottleNode;

static const BlockOption throttle_options[] = {
    {"throttle-group", "str", "Name of the throttle group"},
    {NULL, NULL, NULL},
};

/* ---- Opening, reopening ---------------------------------------------------------------- */

/*
 * Join the group that option "throttle-group" names. NULL: with @errp, or because the option
 * is not there and @required is not set.
 */
static ThrottleGroupMember *join_group(JsonObject *options, bool required, GError **errp)
{
    g_autofree char *id = NULL;

    if (!block_options_take_string(options, "throttle-group", &id, errp)) {
        return NULL;
    }
    if (!id) {
        if (required) {
            block_error_set(errp, EINVAL, "Please specify a throttle group");
        }
        return NULL;
    }
    return throttle_group_join(id, errp);
}

static bool throttle_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    ThrottleNode *node = bdrv_state(bs);

    if (!bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    node->member = join_group(options, true, errp);
    if (!node->member) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_set_length(bs, bdrv_getlength(bdrv_child_bs(bdrv_file_child(bs))));
    bdrv_graph_rdunlock_main_loop();
    return true;
}

static void throttle_close(BlockDriverState *bs)
{
    ThrottleNode *node = bdrv_state(bs);

    throttle_group_leave(node->member);
}

/* state->opaque: the member of the new group; NULL: it stays in the old one. */
static bool throttle_reopen_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    GError *err = NULL;

    state->opaque = join_group(options, false, &err);
    if (err) {
        g_propagate_error(errp, err);
        return false;
    }
    return true;
}

static void throttle_reopen_commit(BdrvReopenState *state)
{
    ThrottleNode *node = bdrv_state(state->bs);

    if (state->opaque) {
        throttle_group_drain_begin(state->opaque); /* as the node is */
        throttle_group_leave(node->member);
        node->member = state->opaque;
    }
}

static void throttle_reopen_abort(BdrvReopenState *state)
{
    throttle_group_leave(state->opaque);
}

static void throttle_drain_begin(BlockDriverState *bs)
{
    ThrottleNode *node = bdrv_state(bs);

    throttle_group_drain_begin(node->member);
}

static void throttle_drain_end(BlockDriverState *bs)
{
    ThrottleNode *node = bdrv_state(bs);

    throttle_group_drain_end(node->member);
}

/* ---- Requests --------------------------------------------------------------------------- */

/* All that moves data counts; zeros and discards as writes. */
static int coroutine_fn throttle_co_before_io(BlockDriverState *bs, BdrvIoRequest *req)
{
    ThrottleNode *node = bdrv_state(bs);

    if (req->type == BDRV_IO_READ || req->type == BDRV_IO_WRITE ||
        req->type == BDRV_IO_WRITE_ZEROES || req->type == BDRV_IO_DISCARD) {
        throttle_group_co_wait(node->member, req->type != BDRV_IO_READ, req->bytes);
    }
    return 0;
}

static int coroutine_fn throttle_co_map(BlockDriverState *bs, const BdrvMapRequest *req,
                                        BdrvMapping *mapping)
{
    bdrv_graph_assert_readable();
    mapping->offset = 0;
    mapping->bytes = MAX(bdrv_getlength(bs), req->offset + req->bytes);
    mapping->target = BDRV_MAP_DATA;
    mapping->child = bdrv_file_child(bs);
    mapping->child_offset = 0;
    mapping->recurse = true;
    mapping->raw = true;
    mapping->writable = true;
    return 0;
}

BlockDriver block_driver_throttle = {
    .format_name = "throttle",
    .instance_size = sizeof(ThrottleNode),
    .options = throttle_options,
    .is_filter = true,
    .map_is_cheap = true,
    .bdrv_open = throttle_open,
    .bdrv_close = throttle_close,
    .bdrv_reopen_prepare = throttle_reopen_prepare,
    .bdrv_reopen_commit = throttle_reopen_commit,
    .bdrv_reopen_abort = throttle_reopen_abort,
    .bdrv_drain_begin = throttle_drain_begin,
    .bdrv_drain_end = throttle_drain_end,
    .bdrv_co_map = throttle_co_map,
    .bdrv_co_before_io = throttle_co_before_io,
};
