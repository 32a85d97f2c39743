/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Emptying an image: nothing is in flight, all is flushed, and no mapping is remembered
 * from before (rule 7 of map.h).
 */
#include <errno.h>

#include "block/io-int.h"

typedef struct Emptying {
    BlockDriverState *bs;
    GError **errp;
    int ret;
} Emptying;

static void coroutine_fn empty_entry(void *opaque)
{
    Emptying *e = opaque;
    BlockDriverState *bs = e->bs;
    int flushed;

    bdrv_graph_assert_readable();
    in_flight_begin(&bs->in_flight);
    /* With that, places that are retired come back to the driver, too. */
    e->ret = bdrv_co_flush(bs);
    if (e->ret < 0) {
        block_error_set_errno(e->errp, e->ret, "'%s': could not flush the image", bs->filename);
    } else {
        e->ret = bs->drv->bdrv_co_make_empty(bs, e->errp);
        /* Also what was given up before an error. */
        flushed = bdrv_co_flush(bs);
        if (e->ret >= 0 && flushed < 0) {
            block_error_set_errno(e->errp, flushed, "'%s': could not flush the image",
                                  bs->filename);
            e->ret = flushed;
        }
    }
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
}

static void forget(BlockDriverState *bs)
{
    bdrv_graph_rdlock_main_loop();
    bdrv_forget_mappings_above(bs);
    bdrv_graph_rdunlock_main_loop();
}

int bdrv_make_empty(BlockDriverState *bs, GError **errp)
{
    Emptying e = { .bs = bs, .errp = errp };

    GLOBAL_STATE_CODE();
    if (!bs->drv->bdrv_co_make_empty) {
        block_error_set(errp, ENOTSUP, "Format driver '%s' cannot empty an image",
                        bs->drv->format_name);
        return -ENOTSUP;
    }
    if (bs->read_only) {
        block_error_set(errp, EACCES, "'%s' is read-only: it cannot be emptied", bs->filename);
        return -EACCES;
    }
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    forget(bs);
    bdrv_run_co(empty_entry, &e);
    forget(bs);
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    return MIN(e.ret, 0);
}
