/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A protocol for tests of errors and races: it passes requests on to "image", and fails
 * what the plan says: request number n to any such node, of whatever kind or of one, once
 * or from then on, with all, some or nothing of it done. One request is held, if that is
 * asked for, before anything of it is done.
 */
#ifndef TESTS_FAULT_NODE_H
#define TESTS_FAULT_NODE_H

#include <errno.h>

#include "block-testing.h"

/* What a request that fails has done. */
typedef enum FaultManner {
    FAULT_NOTHING_DONE,
    FAULT_HALF_DONE,
    FAULT_ALL_DONE,
} FaultManner;

typedef struct FaultPlan {
    bool armed;
    int left; /* requests that still pass */
    int error; /* -errno */
    bool once;
    FaultManner manner;
    int only; /* the BdrvIoType that counts; -1: all do */
    int64_t below; /* only requests that begin before this count */
    bool hit; /* a request has failed */
    BdrvIoType type; /* of the first that has */
} FaultPlan;

typedef struct FaultHold {
    bool armed;
    BdrvIoType type;
    Coroutine *held;
} FaultHold;

static FaultPlan fault;
static FaultHold fault_hold;
static uint8_t fault_discarded; /* what is discarded reads as this */
static bool fault_keeps_length; /* like a device: it does not get shorter */

static void fault_arm(int n, int error, bool once, FaultManner manner)
{
    fault = (FaultPlan){.armed = true, .left = n, .error = error, .once = once, .manner = manner,
                        .only = -1, .below = INT64_MAX};
}

static void fault_disarm(void)
{
    fault.armed = false;
}

/* Whether this request is to fail. */
static bool fault_now(BdrvIoType type, int64_t offset)
{
    if (!fault.armed || (fault.only >= 0 && (int)type != fault.only) || offset >= fault.below ||
        fault.left-- > 0) {
        return false;
    }
    fault.left = 0;
    fault.type = fault.hit ? fault.type : type;
    fault.hit = true;
    fault.armed = !fault.once;
    return true;
}

/* Hold the next request of @type until it is resumed. */
static inline void fault_hold_next(BdrvIoType type)
{
    fault_hold = (FaultHold){.armed = true, .type = type};
}

static inline void fault_resume(void)
{
    aio_co_wake(g_steal_pointer(&fault_hold.held));
}

static void coroutine_fn fault_pass(BdrvIoType type)
{
    if (fault_hold.armed && fault_hold.type == type) {
        fault_hold.armed = false;
        fault_hold.held = coroutine_self();
        aio_wait_kick();
        coroutine_yield();
    }
}

/* How much of a request of @bytes is done: whole sectors. */
static int64_t fault_done(bool fails, int64_t bytes)
{
    if (!fails || fault.manner == FAULT_ALL_DONE) {
        return bytes;
    }
    return fault.manner == FAULT_HALF_DONE ? bytes / 2 / BDRV_SECTOR_SIZE * BDRV_SECTOR_SIZE : 0;
}

static BdrvChild *fault_image(BlockDriverState *bs) GRAPH_RDLOCK
{
    return bdrv_get_child(bs, "image");
}

static bool fault_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    BdrvChild *image = bdrv_open_child(NULL, options, "image", bs,
                                       BDRV_CHILD_DATA | BDRV_CHILD_PRIMARY, false, errp);

    if (!image) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_set_length(bs, bdrv_getlength(bdrv_child_bs(image)));
    bdrv_graph_rdunlock_main_loop();
    return true;
}

static int coroutine_fn fault_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *iov, int flags)
{
    bdrv_graph_assert_readable();
    fault_pass(BDRV_IO_READ);
    if (fault_now(BDRV_IO_READ, offset)) {
        return fault.error;
    }
    return bdrv_co_preadv(fault_image(bs), offset, bytes, iov, flags);
}

static int coroutine_fn fault_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, int flags)
{
    bool fails = fault_now(BDRV_IO_WRITE, offset);
    int64_t n = fault_done(fails, bytes);
    IOVector slice;
    int ret = 0;

    bdrv_graph_assert_readable();
    fault_pass(BDRV_IO_WRITE);
    if (n > 0) {
        io_vector_init(&slice, 1);
        io_vector_append(&slice, iov, 0, n);
        ret = bdrv_co_pwritev(fault_image(bs), offset, n, &slice, flags);
        io_vector_destroy(&slice);
    }
    return fails ? fault.error : ret;
}

static int coroutine_fn fault_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               int flags)
{
    bool fails = fault_now(BDRV_IO_WRITE_ZEROES, offset);
    int64_t n = fault_done(fails, bytes);
    int ret;

    bdrv_graph_assert_readable();
    ret = n > 0 ? bdrv_co_pwrite_zeroes(fault_image(bs), offset, n, flags) : 0;
    return fails ? fault.error : ret;
}

/* What is discarded is overwritten, to find who uses it all the same. */
static int coroutine_fn fault_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    bool fails = fault_now(BDRV_IO_DISCARD, offset);
    int64_t n = fault_done(fails, bytes);
    g_autofree uint8_t *junk = g_malloc(MAX(n, 1));
    int ret;

    bdrv_graph_assert_readable();
    fault_pass(BDRV_IO_DISCARD);
    memset(junk, fault_discarded, n);
    ret = n > 0 ? bdrv_co_pwrite(fault_image(bs), offset, n, junk, 0) : 0;
    return fails ? fault.error : ret;
}

static int coroutine_fn fault_co_flush(BlockDriverState *bs)
{
    return fault_now(BDRV_IO_FLUSH, 0) ? fault.error : 0;
}

static int coroutine_fn fault_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                          BlockPrealloc prealloc, GError **errp)
{
    bool fails = fault_now(BDRV_IO_TRUNCATE, offset);
    int ret = 0;

    bdrv_graph_assert_readable();
    if (fault_keeps_length && !exact && offset <= bdrv_getlength(bs)) {
        return 0;
    }
    if (!fails || fault.manner != FAULT_NOTHING_DONE) {
        ret = bdrv_co_truncate(fault_image(bs), offset, exact, BLOCK_PREALLOC_OFF, errp);
    }
    return fails ? fault.error : ret;
}

static int coroutine_fn fault_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              int64_t *pnum, int64_t *map)
{
    int ret;

    bdrv_graph_assert_readable();
    if (fault_now(BDRV_IO_BLOCK_STATUS, offset)) {
        return fault.error;
    }
    ret = bdrv_co_block_status(bdrv_child_bs(fault_image(bs)), offset, bytes, pnum, map, NULL);
    *map = offset;
    return ret < 0 ? ret : (ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) | BDRV_BLOCK_OFFSET_VALID;
}

static BlockDriver fault_driver = {
    .format_name = "fault",
    .bdrv_open = fault_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_co_preadv = fault_co_preadv,
    .bdrv_co_pwritev = fault_co_pwritev,
    .bdrv_co_pwrite_zeroes = fault_co_pwrite_zeroes,
    .bdrv_co_pdiscard = fault_co_pdiscard,
    .bdrv_co_flush = fault_co_flush,
    .bdrv_co_truncate = fault_co_truncate,
    .bdrv_co_block_status = fault_co_block_status,
};

#endif
