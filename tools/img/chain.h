/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What commit and rebase ask about an image's backing chain. */
#ifndef TOOLS_IMG_CHAIN_H
#define TOOLS_IMG_CHAIN_H

#include "blockgraph/blockgraph.h"

/* The node below @bs in its chain, or NULL. Borrowed. */
BlockDriverState *img_chain_next(BlockDriverState *bs);
/*
 * The node below @bs that @name is the file of, as @bs or the image above that node
 * would refer to it, or NULL. Borrowed.
 */
BlockDriverState *img_chain_find(BlockDriverState *bs, const char *name);
/* The node below @bs that has the format and the file of @other, or NULL. Borrowed. */
BlockDriverState *img_chain_find_same(BlockDriverState *bs, BlockDriverState *other);
/* Whether @bs or a node below it has the file of @other. */
bool img_chain_has_file(BlockDriverState *bs, BlockDriverState *other);

#endif
