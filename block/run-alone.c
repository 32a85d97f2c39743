/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing an image as a whole: nothing is in flight, all is flushed, and no mapping is
 * remembered from before (rule 7 of map.h).
 */
#include "block/io-int.h"

typedef struct Alone {
    BlockDriverState *bs;
    BdrvAloneFunc *change;
    void *opaque;
    GError **errp;
    int ret;
} Alone;

int coroutine_fn bdrv_co_flush_image(BlockDriverState *bs, GError **errp)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_flush(bs);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not flush the image", bs->filename);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK flush_and_change(Alone *a)
{
    int ret;

    bdrv_forget_mappings_above(a->bs);
    /* With that, places that are retired come back to the driver, too. */
    ret = bdrv_co_flush_image(a->bs, a->errp);
    if (ret >= 0) {
        ret = a->change(a->bs, a->opaque, a->errp);
    }
    bdrv_forget_mappings_above(a->bs);
    return ret;
}

/*
 * A drained section lets by what the main thread itself sends, also from a callback that
 * runs while it waits for us: that has to wait for the claim.
 */
static int coroutine_fn GRAPH_RDLOCK change_claiming(Alone *a)
{
    BlockDriverState *bs = a->bs;
    Claim claim;
    int ret;

    claim_begin(bs->claims, &claim, 0, INT64_MAX, true);
    ret = flush_and_change(a);
    claim_end(bs->claims, &claim);
    bdrv_co_release_retired(bs); /* at worst it leaks */
    return ret;
}

static void coroutine_fn alone_entry(void *opaque)
{
    Alone *a = opaque;
    BlockDriverState *bs = a->bs;

    bdrv_graph_assert_readable();
    in_flight_begin(&bs->in_flight);
    a->ret = bdrv_takes_claims(bs) ? change_claiming(a) : flush_and_change(a);
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
}

int bdrv_run_alone(BlockDriverState *bs, BdrvAloneFunc *change, void *opaque, GError **errp)
{
    Alone a = {.bs = bs, .change = change, .opaque = opaque, .errp = errp};
    int64_t length;

    GLOBAL_STATE_CODE();
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    length = bdrv_getlength(bs);
    bdrv_run_co(alone_entry, &a);
    if (bdrv_getlength(bs) != length) {
        bdrv_graph_rdlock_main_loop();
        bdrv_tell_length(bs);
        bdrv_graph_rdunlock_main_loop();
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    return MIN(a.ret, 0);
}

char *bdrv_resize_refuser(BlockDriverState *bs)
{
    char *desc = NULL;

    GLOBAL_STATE_CODE();
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *parent = bs->parents; parent && !desc; parent = parent->next_parent) {
        if (!(bdrv_child_shared_perm(parent) & BLK_PERM_RESIZE)) {
            desc = bdrv_child_parent_desc(parent);
        }
    }
    bdrv_graph_rdunlock_main_loop();
    return desc;
}
