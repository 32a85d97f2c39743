/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All that can be told of an image, as one JSON document. */
#ifndef BLOCKGRAPH_IMAGE_INFO_H
#define BLOCKGRAPH_IMAGE_INFO_H

#include <json-glib/json-glib.h>
#include "blockgraph/block.h"

G_BEGIN_DECLS

/*
 * What is known of @bs and of the nodes below it: an object with the members
 * of QEMU's QAPI type BlockGraphInfo, which the caller unrefs, or NULL with
 * @errp. Sizes are bytes. Members that do not apply are absent; "children" is
 * always there. Everything below @bs is in it, so open with BDRV_O_NO_BACKING
 * and BDRV_O_NO_IO to be told of the image's own file only. Global state;
 * waits for I/O.
 */
JsonObject *bdrv_image_info(BlockDriverState *bs, GError **errp);

G_END_DECLS

#endif
