/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What map knows of a range of the disk, and drawing it. */
#ifndef TOOLS_IMG_MAP_H
#define TOOLS_IMG_MAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct MapEntry {
    int64_t start;
    int64_t length;
    int64_t offset;   /* in @file, if @has_offset */
    const char *file; /* borrowed from the node */
    int depth;
    bool present;
    bool zero;
    bool data;
    bool compressed;
    bool has_offset;
} MapEntry;

/*
 * Print a picture of @entries, which are those of [@start, @end) of the disk, as wide as
 * COLUMNS in the environment says (default: 80).
 */
void img_map_draw(const GArray *entries, int64_t start, int64_t end);

#endif
