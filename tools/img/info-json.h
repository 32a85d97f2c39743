/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as JSON. */
#ifndef TOOLS_IMG_INFO_JSON_H
#define TOOLS_IMG_INFO_JSON_H

#include <stdio.h>
#include "blockgraph/image-info.h"

/*
 * Write the first of @images, BdrvImageInfo, to @out; or with @as_array all of
 * them as an array: each the same as QEMU's QAPI type BlockGraphInfo. On false
 * with @errp nothing was written, unless a temporary file could not be read back.
 */
bool img_print_info_json(FILE *out, const GPtrArray *images, bool as_array, GError **errp);

#endif
