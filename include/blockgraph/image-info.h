/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All that can be told of an image: what QEMU's QAPI type BlockGraphInfo holds. */
#ifndef BLOCKGRAPH_IMAGE_INFO_H
#define BLOCKGRAPH_IMAGE_INFO_H

#include <json-glib/json-glib.h>
#include "blockgraph/block.h"

G_BEGIN_DECLS

typedef struct BdrvImageInfo BdrvImageInfo;
typedef struct BdrvChildInfo {
    char *name; /* of the edge */
    BdrvImageInfo *info;
} BdrvChildInfo;

/* Strings and objects are NULL where they do not apply. */
struct BdrvImageInfo {
    /*
     * The node that this tells of, with a reference. Its snapshots and stored
     * bitmaps are not copied, an image may have 65,536: ask bdrv_snapshot_get()
     * and bdrv_stored_bitmap_get().
     */
    BlockDriverState *bs;
    char *filename;
    const char *format;
    int64_t virtual_size; /* bytes */
    int64_t actual_size;  /* bytes on disk, or -errno */
    int64_t cluster_size; /* bytes; 0 if it has no such notion */
    char *backing_filename; /* as the image has it */
    char *full_backing_filename;
    char *backing_format;
    JsonObject *specific; /* see bdrv_get_specific_info() */
    bool is_encrypted;
    bool has_dirty_flag;
    bool is_dirty; /* if it has the flag */
    BdrvChildInfo *children;
    size_t child_count;
};

/*
 * What is known of @bs and of the nodes below it; free it with
 * bdrv_image_info_free(). NULL with @errp on failure. Everything below @bs is
 * in it, so open with BDRV_O_NO_BACKING and BDRV_O_NO_IO to be told of the
 * image's own file only. Global state; waits for I/O.
 */
BdrvImageInfo *bdrv_image_info(BlockDriverState *bs, GError **errp);
/* Give up what it holds, the references to nodes too. Accepts NULL. Global state. */
void bdrv_image_info_free(BdrvImageInfo *info);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvImageInfo, bdrv_image_info_free)

G_END_DECLS

#endif
