/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing what an image was created with.
 */
#include <errno.h>

#include "block/io-int.h"

typedef struct Amend {
    JsonObject *options;
    BdrvAmendProgress *progress;
    void *opaque;
} Amend;

static void no_progress(void *opaque, int64_t done, int64_t total)
{
}

static int coroutine_fn amend(BlockDriverState *bs, void *opaque, GError **errp)
{
    Amend *a = opaque;
    int ret;

    bdrv_graph_assert_readable();
    ret = bs->drv->bdrv_co_amend(bs, a->options, a->progress, a->opaque, errp);
    return ret < 0 ? ret : bdrv_co_flush_image(bs, errp);
}

static bool may_resize(BlockDriverState *bs, GError **errp)
{
    g_autofree char *refuser = bdrv_resize_refuser(bs);

    if (refuser) {
        block_error_set(errp, EPERM, "'%s' cannot be resized: %s does not allow it", bs->filename,
                        refuser);
    }
    return !refuser;
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

bool bdrv_amend(BlockDriverState *bs, JsonObject *options, BdrvAmendProgress *progress,
                void *opaque, GError **errp)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);
    Amend a = {.options = copy, .progress = progress ? progress : no_progress, .opaque = opaque};

    GLOBAL_STATE_CODE();
    return may_amend(bs, options, errp) && bdrv_run_alone(bs, amend, &a, errp) >= 0;
}
