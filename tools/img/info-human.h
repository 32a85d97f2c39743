/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as text for people. */
#ifndef TOOLS_IMG_INFO_HUMAN_H
#define TOOLS_IMG_INFO_HUMAN_H

#include "blockgraph/image-info.h"

/* Print what bdrv_image_info() told. False with @errp if a list cannot be read on. */
bool img_print_info(const BdrvImageInfo *info, GError **errp);
/* Print what only the format knows (its bs and specific are looked at), if anything. */
bool img_print_specific(const BdrvImageInfo *info, int depth, GError **errp);
/* Print the table of the node's snapshots, if it has any, each line behind
 * @depth indentations. */
void img_print_snapshots(BlockDriverState *bs, int depth);

#endif
