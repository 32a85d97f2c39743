/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as JSON. */
#ifndef TOOLS_IMG_INFO_JSON_H
#define TOOLS_IMG_INFO_JSON_H

#include "blockgraph/image-info.h"
#include "tools/json-print.h"

/* The same as QEMU's QAPI type BlockGraphInfo; it is not complete if false. */
bool img_print_info_json(JsonPrinter *p, const BdrvImageInfo *info, GError **errp);

#endif
