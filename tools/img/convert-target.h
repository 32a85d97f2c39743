/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The image that convert and dd write to, and the bitmaps that it gets. */
#ifndef TOOLS_IMG_CONVERT_TARGET_H
#define TOOLS_IMG_CONVERT_TARGET_H

#include "blockgraph/block-driver.h"
#include "blockgraph/blockgraph.h"

/*
 * The regular files and block devices that images rest on, to see whether a
 * target is one of them: it would be overwritten while it is read.
 */
typedef struct ImgFileSet ImgFileSet;
ImgFileSet *img_file_set_new(void);
void img_file_set_free(ImgFileSet *set);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImgFileSet, img_file_set_free)
/* Add the files below @blk, as a source called @name. */
void img_file_set_add(ImgFileSet *set, BlockBackend *blk, const char *name);
/* Add the file @filename. */
void img_file_set_add_file(ImgFileSet *set, const char *filename, const char *name);
/* The source that file @filename belongs to, or NULL. Borrowed. */
const char *img_file_set_find(const ImgFileSet *set, const char *filename);
/* The source that shares a file with @blk, backing files aside, or NULL. Borrowed. */
const char *img_file_set_find_below(const ImgFileSet *set, BlockBackend *blk);

/*
 * Whether @backing, as image @filename would name its backing file, is the very file
 * @filename: to make the image would empty what it is to rest on. Both are files that exist,
 * else it is false.
 */
bool img_is_own_backing(const char *filename, const char *backing);

/* Whether @blk's own data, backing files aside, is all in regular files. */
bool img_is_on_regular_file(BlockBackend *blk);

/*
 * convert-bitmaps.c. Whether the bitmaps that @source, called @name, stores can be
 * copied: all of them, or with @skip_broken those that are consistent. Loads them.
 * Errors are reported.
 */
bool img_check_bitmaps(BlockBackend *source, const char *name, bool skip_broken);
/* Store copies of @source's consistent bitmaps in @target. Errors are reported. */
bool img_copy_bitmaps(BlockBackend *source, BlockBackend *target, const char *target_name);

#endif
