/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Debug events: what a request has come to, for filters that hold or fail it.
 */
#include "block/io-int.h"

const char *const bdrv_debug_event_names[] = {
    [BDRV_DEBUG_NONE] = "none",
    [BDRV_DEBUG_L1_UPDATE] = "l1_update",
    [BDRV_DEBUG_L1_GROW_ALLOC_TABLE] = "l1_grow_alloc_table",
    [BDRV_DEBUG_L1_GROW_WRITE_TABLE] = "l1_grow_write_table",
    [BDRV_DEBUG_L1_GROW_ACTIVATE_TABLE] = "l1_grow_activate_table",
    [BDRV_DEBUG_L2_LOAD] = "l2_load",
    [BDRV_DEBUG_L2_UPDATE] = "l2_update",
    [BDRV_DEBUG_L2_UPDATE_COMPRESSED] = "l2_update_compressed",
    [BDRV_DEBUG_L2_ALLOC_COW_READ] = "l2_alloc_cow_read",
    [BDRV_DEBUG_L2_ALLOC_WRITE] = "l2_alloc_write",
    [BDRV_DEBUG_READ_AIO] = "read_aio",
    [BDRV_DEBUG_READ_BACKING_AIO] = "read_backing_aio",
    [BDRV_DEBUG_READ_COMPRESSED] = "read_compressed",
    [BDRV_DEBUG_WRITE_AIO] = "write_aio",
    [BDRV_DEBUG_WRITE_COMPRESSED] = "write_compressed",
    [BDRV_DEBUG_VMSTATE_LOAD] = "vmstate_load",
    [BDRV_DEBUG_VMSTATE_SAVE] = "vmstate_save",
    [BDRV_DEBUG_COW_READ] = "cow_read",
    [BDRV_DEBUG_COW_WRITE] = "cow_write",
    [BDRV_DEBUG_REFTABLE_LOAD] = "reftable_load",
    [BDRV_DEBUG_REFTABLE_GROW] = "reftable_grow",
    [BDRV_DEBUG_REFTABLE_UPDATE] = "reftable_update",
    [BDRV_DEBUG_REFBLOCK_LOAD] = "refblock_load",
    [BDRV_DEBUG_REFBLOCK_UPDATE] = "refblock_update",
    [BDRV_DEBUG_REFBLOCK_UPDATE_PART] = "refblock_update_part",
    [BDRV_DEBUG_REFBLOCK_ALLOC] = "refblock_alloc",
    [BDRV_DEBUG_REFBLOCK_ALLOC_HOOKUP] = "refblock_alloc_hookup",
    [BDRV_DEBUG_REFBLOCK_ALLOC_WRITE] = "refblock_alloc_write",
    [BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_BLOCKS] = "refblock_alloc_write_blocks",
    [BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_TABLE] = "refblock_alloc_write_table",
    [BDRV_DEBUG_REFBLOCK_ALLOC_SWITCH_TABLE] = "refblock_alloc_switch_table",
    [BDRV_DEBUG_CLUSTER_ALLOC] = "cluster_alloc",
    [BDRV_DEBUG_CLUSTER_ALLOC_BYTES] = "cluster_alloc_bytes",
    [BDRV_DEBUG_CLUSTER_FREE] = "cluster_free",
    [BDRV_DEBUG_FLUSH_TO_OS] = "flush_to_os",
    [BDRV_DEBUG_FLUSH_TO_DISK] = "flush_to_disk",
    [BDRV_DEBUG_PWRITEV_RMW_HEAD] = "pwritev_rmw_head",
    [BDRV_DEBUG_PWRITEV_RMW_AFTER_HEAD] = "pwritev_rmw_after_head",
    [BDRV_DEBUG_PWRITEV_RMW_TAIL] = "pwritev_rmw_tail",
    [BDRV_DEBUG_PWRITEV_RMW_AFTER_TAIL] = "pwritev_rmw_after_tail",
    [BDRV_DEBUG_PWRITEV] = "pwritev",
    [BDRV_DEBUG_PWRITEV_ZERO] = "pwritev_zero",
    [BDRV_DEBUG_PWRITEV_DONE] = "pwritev_done",
    [BDRV_DEBUG_EMPTY_IMAGE_PREPARE] = "empty_image_prepare",
    [BDRV_DEBUG_L1_SHRINK_WRITE_TABLE] = "l1_shrink_write_table",
    [BDRV_DEBUG_L1_SHRINK_FREE_L2_CLUSTERS] = "l1_shrink_free_l2_clusters",
    [BDRV_DEBUG_COR_WRITE] = "cor_write",
    [BDRV_DEBUG_CLUSTER_ALLOC_SPACE] = "cluster_alloc_space",
    [BDRV_DEBUG__MAX] = NULL,
};

void coroutine_fn bdrv_co_node_debug_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    bdrv_graph_assert_readable();
    if (bs->drv->bdrv_co_debug_event) {
        bs->drv->bdrv_co_debug_event(bs, event);
    }
}

void coroutine_fn bdrv_co_debug_event(BdrvChild *child, BdrvDebugEvent event)
{
    IO_CODE();
    bdrv_graph_assert_readable();
    bdrv_co_node_debug_event(child->bs, event);
}
