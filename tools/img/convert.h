/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of convert share: what the user asked for. Functions that return
 * false have reported why.
 */
#ifndef TOOLS_IMG_CONVERT_H
#define TOOLS_IMG_CONVERT_H

#include "tools/img/common.h"
#include "tools/img/convert-engine.h"
#include "tools/img/convert-target.h"

typedef struct Convert {
    ImgArgs *args;
    GPtrArray *options; /* -o */
    const char *snapshot;
    const char *source_cache;
    const char *target_cache;
    const char *target_format; /* NULL: not given */
    const char *backing;
    const char *backing_format;
    bool target_image_opts;
    bool skip_create;
    bool copy_range;
    bool sparse_given;
    bool bitmaps;
    bool skip_broken_bitmaps;
    ImgFileSet *files;
    ConvertEngine engine;
} Convert;

/* convert-options.c: the options' table, and taking one of them. */
extern const ImgOption img_convert_options[];
bool img_convert_take_option(Convert *conv, int letter);
/* Whether what was asked for goes together. */
bool img_convert_check_options(const Convert *conv);

/* convert-create.c: create the target, of @size bytes, unless it is there, and open it. */
bool img_convert_prepare_target(Convert *conv, int64_t size);

#endif
