/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy-on-read filter: what is read from a backing file is written to the image
 * that it filters. The core does that where the image is (BDRV_REQ_COPY_ON_READ); the
 * filter says for which reads. See docs/formats/copy-on-read.md.
 */
#include <errno.h>

#include "blockgraph/block-driver.h"

typedef struct CorState {
    BlockDriverState *bottom; /* the last layer that is copied from; NULL: no last one */
} CorState;

static const BlockOption cor_options[] = {
    {"bottom", "str", "Node name of the last layer that is copied from"},
    {NULL, NULL, NULL},
};

/* ---- Opening ----------------------------------------------------------------------- */

/* Whether @bottom is a layer of the chain that begins at @bs. */
static bool is_layer_of(BlockDriverState *bs, BlockDriverState *bottom)
{
    bdrv_graph_rdlock_main_loop();
    for (bs = bdrv_skip_filters(bs); bs && bs != bottom; bs = bdrv_backing_chain_next(bs)) {
    }
    bdrv_graph_rdunlock_main_loop();
    return bs != NULL;
}

/* Find the node called @name; takes a reference to it. */
static bool find_bottom(BlockDriverState *bs, const char *name, GError **errp)
{
    CorState *s = bdrv_state(bs);
    BlockDriverState *bottom = bdrv_find_node(name);

    if (!bottom) {
        block_error_set(errp, ENOENT, "Bottom node '%s' not found", name);
        return false;
    }
    if (bdrv_is_filter(bottom)) {
        block_error_set(errp, EINVAL, "Bottom node '%s' is a filter", name);
        return false;
    }
    if (!is_layer_of(bs, bottom)) {
        block_error_set(errp, EINVAL, "Bottom node '%s' is no layer of the image that is read",
                        name);
        return false;
    }
    s->bottom = bdrv_ref(bottom);
    return true;
}

static bool cor_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    g_autofree char *bottom = NULL;
    BlockDriverState *file_bs;

    if (!bdrv_open_file_child(bs, options, errp) ||
        !block_options_take_string(options, "bottom", &bottom, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    file_bs = bdrv_child_bs(bdrv_file_child(bs));
    bdrv_graph_rdunlock_main_loop();
    bdrv_set_length(bs, bdrv_getlength(file_bs));
    return !bottom || find_bottom(bs, bottom, errp);
}

static void cor_close(BlockDriverState *bs)
{
    CorState *s = bdrv_state(bs);

    bdrv_unref(s->bottom);
}

/* Copying writes what is there already, whatever the parents do. */
static void cor_child_perm(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                           uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    bdrv_default_perms(bs, child, role, perm, shared, nperm, nshared);
    *nperm |= BLK_PERM_WRITE_UNCHANGED;
}

/* ---- Reading ------------------------------------------------------------------------- */

/* Read what lies in layers down to the bottom with a copy, and what lies below without. */
static int coroutine_fn read_above_bottom(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          IOVector *iov, int flags) GRAPH_RDLOCK
{
    CorState *s = bdrv_state(bs);
    BdrvChild *file = bdrv_file_child(bs);
    BdrvChild *below = bdrv_filter_or_cow_child(s->bottom);
    BlockDriverState *base = below ? bdrv_child_bs(below) : NULL;
    int ret = 0;

    for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
        IOVector slice;
        int copy;

        ret = bdrv_co_block_status_above(bdrv_child_bs(file), base, offset + done, bytes - done,
                                         &n, NULL, NULL, NULL);
        if (ret < 0) {
            break;
        }
        copy = ret & BDRV_BLOCK_ALLOCATED ? BDRV_REQ_COPY_ON_READ : 0;
        n = n > 0 ? n : bytes - done; /* past the end */
        io_vector_init(&slice, 1);
        io_vector_append(&slice, iov, done, n);
        ret = bdrv_co_preadv(file, offset + done, n, &slice, flags | copy);
        io_vector_destroy(&slice);
    }
    return ret;
}

static int coroutine_fn cor_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *iov, int flags)
{
    CorState *s = bdrv_state(bs);

    bdrv_graph_assert_readable();
    return s->bottom ? read_above_bottom(bs, offset, bytes, iov, flags)
                     : bdrv_co_preadv(bdrv_file_child(bs), offset, bytes, iov,
                                      flags | BDRV_REQ_COPY_ON_READ);
}

BlockDriver block_driver_copy_on_read = {
    .format_name = "copy-on-read",
    .instance_size = sizeof(CorState),
    .options = cor_options,
    .is_filter = true,
    .bdrv_open = cor_open,
    .bdrv_close = cor_close,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_child_perm = cor_child_perm,
    .bdrv_co_preadv = cor_co_preadv,
    .bdrv_co_pwritev = bdrv_filter_co_pwritev,
    .bdrv_co_pwrite_zeroes = bdrv_filter_co_pwrite_zeroes,
    .bdrv_co_pdiscard = bdrv_filter_co_pdiscard,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_COMPRESSED,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
};
