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

enum {
    CONVERT_OPT_DIGEST = 512,
};

/* The folder of the names that standard input is opened by. */
#define CONVERT_STDIN_FOLDER "/proc/self/fd/"

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
    bool sparse_given;
    bool bitmaps;
    bool skip_broken_bitmaps;
    ImgFileSet *files;
    const char *digest_name; /* --digest, or NULL */
    bool to_stdout;   /* the target is "-" */
    bool from_stdin;  /* the one source is "-", and read as it comes */
    int spool_fd;     /* what holds standard input, or -1 */
    BlockOpenPolicy stdin_policy; /* for what standard input names */
    ConvertEngine engine;
} Convert;

/* convert-options.c: the options' table, and taking one of them. */
extern const ImgOption img_convert_options[];
bool img_convert_take_option(Convert *conv, int letter);
/* Whether what was asked for goes together. */
bool img_convert_check_options(const Convert *conv);

/* convert-create.c: create the target, of @size bytes, unless it is there, and open it. */
bool img_convert_prepare_target(Convert *conv, int64_t size);

/* convert-stream.c: what "-" means where; whether it can be had. */
bool img_convert_check_streams(Convert *conv);
/* Copy standard input, which is raw, as it comes. 0 or the first error. */
int img_convert_stream_in(Convert *conv);
/* Copy the sources, which are open, to standard output. 0 or the first error. */
int img_convert_stream_out(Convert *conv, int64_t total);

/*
 * convert-stdio.c. A name to open standard input by: the file that it is, or one that
 * it is copied to. conv->spool_fd is to be closed after. NULL if it cannot be had.
 */
char *img_convert_spool_stdin(Convert *conv);
/* Read until @bytes are there or it ends; how many, or -1. */
int64_t img_read_stdin(uint8_t *buf, size_t bytes);
/* A BdrvSequentialWrite. */
int img_write_stdout(void *opaque, const void *buf, size_t bytes);

#endif
