/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What both printers of image information know about the list of bitmaps. */
#ifndef TOOLS_IMG_INFO_BITMAPS_H
#define TOOLS_IMG_INFO_BITMAPS_H

#include <string.h>
#include "blockgraph/image-info.h"

/* Whether this member of the format's data is the place of the bitmaps' list. */
static inline bool img_is_bitmap_list(const char *member, JsonNode *value)
{
    return strcmp(member, "bitmaps") == 0 && JSON_NODE_HOLDS_ARRAY(value) &&
           json_array_get_length(json_node_get_array(value)) == 0;
}

/* Whether there is such a place, even if the list is empty. */
static inline bool img_has_bitmap_list(const BdrvImageInfo *info)
{
    JsonObject *data;

    if (info->specific == NULL) {
        return false;
    }
    data = json_object_get_object_member(info->specific, "data");
    return json_object_has_member(data, "bitmaps") &&
           img_is_bitmap_list("bitmaps", json_object_get_member(data, "bitmaps"));
}

#endif
