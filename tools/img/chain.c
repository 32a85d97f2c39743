/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The layers below an image; see chain.h. */
#include "tools/img/chain.h"

#include <glib/gstdio.h>
#include <string.h>

BlockDriverState *img_chain_next(BlockDriverState *bs)
{
    BlockDriverState *next;

    bdrv_graph_rdlock_main_loop();
    next = bdrv_backing_chain_next(bs);
    bdrv_graph_rdunlock_main_loop();
    return next;
}

/* Whether both are names of one file on this machine. */
static bool is_same_file(const char *a, const char *b)
{
    GStatBuf first, second;

    return g_stat(a, &first) == 0 && g_stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* Whether the image's header leads to @below, not an option that stands for it. */
static bool is_by_header(BlockDriverState *bs, BlockDriverState *below)
{
    g_autofree char *full = NULL;

    return bdrv_get_full_backing_filename(bs, &full, NULL) && full != NULL &&
           strcmp(full, bdrv_get_filename(below)) == 0;
}

static bool is_name_of(BlockDriverState *bs, BlockDriverState *below, const char *name)
{
    g_autofree char *full = bdrv_combine_filename(bdrv_get_filename(bs), name, NULL);
    const char *filename = bdrv_get_filename(below);

    if (full != NULL && is_same_file(full, filename)) {
        return true;
    }
    return is_by_header(bs, below) ? strcmp(name, bdrv_get_backing_filename(bs)) == 0
                                   : strcmp(name, filename) == 0;
}

BlockDriverState *img_chain_find(BlockDriverState *bs, const char *name)
{
    BlockDriverState *below = img_chain_next(bs);

    while (below != NULL && (name[0] == '\0' || !is_name_of(bs, below, name))) {
        bs = below;
        below = img_chain_next(bs);
    }
    return below;
}

BlockDriverState *img_chain_find_same(BlockDriverState *bs, BlockDriverState *other)
{
    BlockDriverState *below = img_chain_next(bs);

    while (below != NULL &&
           (strcmp(bdrv_get_format_name(below), bdrv_get_format_name(other)) != 0 ||
            !is_same_file(bdrv_get_filename(below), bdrv_get_filename(other)))) {
        below = img_chain_next(below);
    }
    return below;
}

bool img_chain_has_file(BlockDriverState *bs, BlockDriverState *other)
{
    while (bs != NULL && !is_same_file(bdrv_get_filename(bs), bdrv_get_filename(other))) {
        bs = img_chain_next(bs);
    }
    return bs != NULL;
}
