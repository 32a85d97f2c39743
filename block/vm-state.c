/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of a virtual machine that a format keeps behind its disk.
 *
 * The node is alone with the request (rule 7 of map.h), and as long as the state
 * needs it while that lasts: so it is read and written by the rules of the disk.
 */
#include <errno.h>

#include "block/backend-int.h"
#include "block/io-int.h"

typedef struct VmState {
    int64_t offset; /* inside the state */
    int64_t bytes;
    IOVector *iov;
    bool is_write;
} VmState;

/* Read or write at @at of the node, which is long enough, and claimed if it takes claims. */
static int coroutine_fn GRAPH_RDLOCK transfer(BlockDriverState *bs, const VmState *vm, int64_t at)
{
    int ret = vm->is_write ? bdrv_co_claimed_pwritev(bs, at, vm->bytes, vm->iov, 0, 0)
                           : bdrv_co_claimed_preadv(bs, at, vm->bytes, vm->iov, 0);

    if (ret >= 0 && vm->is_write) {
        bdrv_note_write(bs, 0);
    }
    return MIN(ret, 0);
}

static int coroutine_fn run(BlockDriverState *bs, void *opaque, GError **errp)
{
    const VmState *vm = opaque;
    BlockDriverInfo info = { 0 };
    int64_t at, end;
    int ret;

    bdrv_graph_assert_readable();
    ret = bs->drv->bdrv_co_get_info(bs, &info);
    if (ret < 0) {
        return ret;
    }
    if (__builtin_add_overflow(info.vm_state_offset, vm->offset, &at) ||
        __builtin_add_overflow(at, vm->bytes, &end) ||
        end > BDRV_ALIGN_DOWN(BDRV_MAX_LENGTH, bs->map_unit)) {
        return -EFBIG;
    }
    /* What maps of whole units is read and written as such. */
    end = BDRV_ALIGN_UP(end, bs->map_unit);
    ret = bs->drv->bdrv_co_show_vm_state(bs, end, vm->is_write);
    if (ret >= 0) {
        ret = transfer(bs, vm, at);
        bs->drv->bdrv_co_show_vm_state(bs, 0, false);
    }
    return ret;
}

/* The node that keeps the state for @bs, or NULL. */
static BlockDriverState *find_keeper(BlockDriverState *bs) GRAPH_RDLOCK
{
    while (bs && !bs->drv->bdrv_co_show_vm_state) {
        BdrvChild *child = bdrv_primary_child(bs);

        bs = child ? child->bs : NULL;
    }
    return bs;
}

static int request(BlockBackend *blk, VmState *vm)
{
    BlockDriverState *bs = blk_bs(blk), *keeper;
    bool allowed;

    if (!bs) {
        return -ENOMEDIUM;
    }
    bdrv_graph_rdlock_main_loop();
    keeper = find_keeper(bs);
    allowed = !vm->is_write || bdrv_may_write(blk->root, 0);
    bdrv_graph_rdunlock_main_loop();
    if (!keeper || !allowed || vm->offset < 0 || vm->bytes < 0) {
        return !keeper ? -ENOTSUP : !allowed ? -EPERM : -EINVAL;
    }
    return vm->bytes > 0 ? bdrv_run_alone(keeper, run, vm, NULL) : 0;
}

int blk_load_vm_state(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov)
{
    VmState vm = { .offset = offset, .bytes = bytes, .iov = iov };

    GLOBAL_STATE_CODE();
    return request(blk, &vm);
}

int blk_save_vm_state(BlockBackend *blk, int64_t offset, int64_t bytes, IOVector *iov)
{
    VmState vm = { .offset = offset, .bytes = bytes, .iov = iov, .is_write = true };

    GLOBAL_STATE_CODE();
    return request(blk, &vm);
}
