/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the files that open images: open.c, open-child.c and filename.c.
 */
#ifndef BLOCK_OPEN_INT_H
#define BLOCK_OPEN_INT_H

#include "block/block-int.h"

/* One call of bdrv_open_inherit() on its way. */
typedef struct OpenRequest {
    const char *filename; /* NULL once it has become options */
    JsonObject *options;  /* what nobody has taken yet */
    JsonObject *given;    /* all that was given */
    int flags;
    const BlockOpenPolicy *policy;
    BlockDriverState *parent;
    BlockDriver *drv;
    char *driver_name;
    char *node_name;
    BdrvDetectZeroes detect_zeroes;
    bool probed;
    BlockDriverState *file_node; /* opened before the driver was known */
} OpenRequest;

/* Where a child comes from: the member @name of the options, else @filename. */
typedef struct ChildSource {
    const char *name;
    const char *filename;
    const char *format; /* NULL: as the options say, or probed */
    int flags;
    const BlockOpenPolicy *policy;
    BlockDriverState *opened_for;
} ChildSource;

/* Open it, or reference the node that the options name; remove the member. */
BlockDriverState *open_child_node(const ChildSource *source, JsonObject *options, GError **errp);

/* The flags for a format's "file" child, given the format's. */
int open_file_flags(int flags);
/* The flags for a child of @bs with @role, if the node's were @flags. */
int open_child_flags(BlockDriverState *bs, int flags, int role);

/*
 * Take the options that every node has from @options, and change @flags and @zeroes
 * to what they say.
 */
bool open_take_common(JsonObject *options, int *flags, BdrvDetectZeroes *zeroes, GError **errp);

/* Attach the backing file that the options or the header name, if any. */
bool open_backing(BlockDriverState *bs, JsonObject *options, GError **errp);

/* Whether two nodes are one file: by device and inode. */
bool open_same_file(BlockDriverState *a, BlockDriverState *b);

/* Whether @bs is a file that the image being opened has been at already. */
bool open_check_loop(BlockDriverState *bs, GError **errp);

/* Whether nothing is left in @options; the error names @kind, @name and one. */
bool open_refuse_unknown(JsonObject *options, const char *kind, const char *name, GError **errp);

/* Give the node, once it is open, the filename that others see. */
void open_refresh_filename(BlockDriverState *bs);

/* Give a format node its mapping cache. */
void open_make_map_cache(BlockDriverState *bs);

#endif
