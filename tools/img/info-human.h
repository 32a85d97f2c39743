/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as text for people. */
#ifndef TOOLS_IMG_INFO_HUMAN_H
#define TOOLS_IMG_INFO_HUMAN_H

#include <json-glib/json-glib.h>
#include "blockgraph/block.h"

/* Print what bdrv_image_info() told. */
void img_print_info(JsonObject *info);
/* Print the table of snapshots, each line behind @depth indentations. */
void img_print_snapshots(const BdrvSnapshotInfo *list, size_t count, int depth);

#endif
