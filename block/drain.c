/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drained sections. Quiescing goes up: a node tells its parents, they tell
 * theirs, and at the top the backends hold new requests back. Then the node
 * waits until what was in flight at or above it is over.
 */
#include "block/block-int.h"
#include "util/fatal.h"
#include "util/trace.h"

void bdrv_parent_quiesce(BdrvChild *child)
{
    if (!child->quiesced_parent) {
        child->quiesced_parent = true;
        child->ops->drained_begin(child);
    }
}

void bdrv_parent_unquiesce(BdrvChild *child)
{
    if (child->quiesced_parent) {
        child->quiesced_parent = false;
        child->ops->drained_end(child);
    }
}

/* Writers of the graph lock that wait, one further up the stack than the other. */
static unsigned drivers_drained;

void bdrv_tell_driver_of_drain(BlockDriverState *bs)
{
    bool drained = bs->is_open && (bs->quiesce_counter > 0 || drivers_drained > 0);

    if (!bs->drv->bdrv_drain_begin || bs->driver_drained == drained) {
        return;
    }
    bs->driver_drained = drained;
    if (drained) {
        bs->drv->bdrv_drain_begin(bs);
    } else {
        bs->drv->bdrv_drain_end(bs);
    }
}

static void tell_all_drivers(void)
{
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        bdrv_tell_driver_of_drain(bs);
    }
}

void bdrv_drain_drivers_begin(void)
{
    if (drivers_drained++ == 0) {
        tell_all_drivers();
    }
}

void bdrv_drain_drivers_end(void)
{
    if (--drivers_drained == 0) {
        tell_all_drivers();
    }
}

void bdrv_quiesce(BlockDriverState *bs)
{
    if (__atomic_fetch_add(&bs->quiesce_counter, 1, __ATOMIC_SEQ_CST) > 0) {
        return;
    }
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bs->parents; child; child = child->next_parent) {
        bdrv_parent_quiesce(child);
    }
    bdrv_graph_rdunlock_main_loop();
    bdrv_tell_driver_of_drain(bs);
}

void bdrv_unquiesce(BlockDriverState *bs)
{
    if (bs->quiesce_counter == 0) {
        fatal("node '%s': drained section ended that did not begin", bs->node_name);
    }
    if (__atomic_sub_fetch(&bs->quiesce_counter, 1, __ATOMIC_SEQ_CST) > 0) {
        return;
    }
    bdrv_tell_driver_of_drain(bs);
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bs->parents; child; child = child->next_parent) {
        bdrv_parent_unquiesce(child);
    }
    bdrv_graph_rdunlock_main_loop();
}

bool bdrv_busy(BlockDriverState *bs)
{
    bool busy = !in_flight_idle(&bs->in_flight);

    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bs->parents; child && !busy; child = child->next_parent) {
        busy = child->ops->drained_busy(child);
    }
    bdrv_graph_rdunlock_main_loop();
    return busy;
}

void bdrv_drained_begin(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    trace_bdrv_drained_begin(bdrv_get_node_name(bs));
    bdrv_quiesce(bs);
    BDRV_WAIT_WHILE(bdrv_busy(bs));
}

void bdrv_drained_end(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    trace_bdrv_drained_end(bdrv_get_node_name(bs));
    bdrv_unquiesce(bs);
}

unsigned bdrv_drain_all_count;

/* What runs while polling may drop all other references. */
static BlockDriverState *ref_node(BlockDriverState *bs)
{
    return bs ? bdrv_ref(bs) : NULL;
}

void bdrv_drain_all_begin(void)
{
    BlockDriverState *bs, *next;

    GLOBAL_STATE_CODE();
    bdrv_drain_all_count++;
    for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        bdrv_quiesce(bs);
    }
    for (bs = ref_node(bdrv_next_node(NULL)); bs; bs = next) {
        BDRV_WAIT_WHILE(bdrv_busy(bs));
        next = ref_node(bdrv_next_node(bs)); /* it may go with @bs */
        bdrv_unref(bs);
    }
}

void bdrv_drain_all_end(void)
{
    GLOBAL_STATE_CODE();
    g_assert(bdrv_drain_all_count > 0);
    bdrv_drain_all_count--;
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        bdrv_unquiesce(bs);
    }
}

/* ---- A node as a parent ---------------------------------------------------- */

static char *node_describe(const BdrvChild *child)
{
    return g_strdup_printf("node '%s'", ((BlockDriverState *)child->parent)->node_name);
}

static void node_drained_begin(BdrvChild *child)
{
    bdrv_quiesce(child->parent);
}

static void node_drained_end(BdrvChild *child)
{
    bdrv_unquiesce(child->parent);
}

static bool node_drained_busy(BdrvChild *child)
{
    return bdrv_busy(child->parent);
}

static void node_resized(BdrvChild *child)
{
}

const BdrvParentOps bdrv_node_parent_ops = {
    .is_node = true,
    .describe = node_describe,
    .drained_begin = node_drained_begin,
    .drained_end = node_drained_end,
    .drained_busy = node_drained_busy,
    .resized = node_resized,
};
