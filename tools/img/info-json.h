/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as JSON. */
#ifndef TOOLS_IMG_INFO_JSON_H
#define TOOLS_IMG_INFO_JSON_H

#include "blockgraph/image-info.h"
#include "tools/json-print.h"

/* Print what bdrv_image_info() told, as QEMU's QAPI type BlockGraphInfo. */
void img_print_info_json(JsonPrinter *p, const BdrvImageInfo *info);

#endif
