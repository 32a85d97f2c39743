/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing what an image was created with: nothing is in flight, all is flushed, and
 * no mapping is remembered from before (rule 7 of map.h).
 */
#include <errno.h>

#include "block/io-int.h"

typedef struct Amend {
    BlockDriverState *bs;
    JsonObject *options;
    BdrvAmendProgress *progress;
    void *opaque;
    GError **errp;
    int ret;
} Amend;

static void no_progress(void *opaque, int64_t done, int64_t total)
{
}

static void coroutine_fn amend_entry(void *opaque)
{
    Amend *a = opaque;
    BlockDriverState *bs = a->bs;

    bdrv_graph_assert_readable();
    in_flight_begin(&bs->in_flight);
    /* With that, places that are retired come back to the driver, too. */
    a->ret = bdrv_co_flush(bs);
    if (a->ret < 0) {
        block_error_set_errno(a->errp, a->ret, "'%s': could not flush the image", bs->filename);
    } else {
        a->ret = bs->drv->bdrv_co_amend(bs, a->options, a->progress, a->opaque, a->errp);
    }
    if (a->ret >= 0) {
        a->ret = bdrv_co_flush(bs);
        if (a->ret < 0) {
            block_error_set_errno(a->errp, a->ret, "'%s': could not flush the image",
                                  bs->filename);
        }
    }
    in_flight_end(&bs->in_flight);
    aio_wait_kick();
}

static bool may_resize(BlockDriverState *bs, GError **errp)
{
    bool ok = true;

    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *parent = bs->parents; parent && ok; parent = parent->next_parent) {
        if (!(bdrv_child_shared_perm(parent) & BLK_PERM_RESIZE)) {
            g_autofree char *desc = bdrv_child_parent_desc(parent);

            block_error_set(errp, EPERM, "'%s' cannot be resized: %s does not allow it",
                            bs->filename, desc);
            ok = false;
        }
    }
    bdrv_graph_rdunlock_main_loop();
    return ok;
}

static bool may_amend(BlockDriverState *bs, JsonObject *options, GError **errp)
{
    if (!bs->drv->bdrv_co_amend) {
        block_error_set(errp, ENOTSUP, "Format driver '%s' does not support option amendment",
                        bs->drv->format_name);
        return false;
    }
    if (bs->read_only) {
        block_error_set(errp, EACCES, "'%s' is read-only: its options cannot be changed",
                        bs->filename);
        return false;
    }
    return !json_object_has_member(options, "size") || may_resize(bs, errp);
}

static void forget(BlockDriverState *bs)
{
    bdrv_graph_rdlock_main_loop();
    bdrv_forget_mappings_above(bs);
    bdrv_graph_rdunlock_main_loop();
}

static void tell_length(BlockDriverState *bs)
{
    bdrv_graph_rdlock_main_loop();
    bdrv_note_write(bs, 0);
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        parent->ops->resized(parent);
    }
    bdrv_graph_rdunlock_main_loop();
}

bool bdrv_amend(BlockDriverState *bs, JsonObject *options, BdrvAmendProgress *progress,
                void *opaque, GError **errp)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);
    Amend a = {.bs = bs, .options = copy, .progress = progress ? progress : no_progress,
               .opaque = opaque, .errp = errp};
    int64_t length;

    GLOBAL_STATE_CODE();
    if (!may_amend(bs, options, errp)) {
        return false;
    }
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    length = bdrv_getlength(bs);
    forget(bs);
    bdrv_run_co(amend_entry, &a);
    forget(bs);
    if (bdrv_getlength(bs) != length) {
        tell_length(bs);
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    return a.ret >= 0;
}
