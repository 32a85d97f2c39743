/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the commands share: setting the library up, opening images as the
 * options say, create options, snapshots, and errors of requests.
 *
 * Functions that return false or NULL have reported why.
 */
#ifndef TOOLS_IMG_COMMON_H
#define TOOLS_IMG_COMMON_H

#include "blockgraph/block-driver.h"
#include "blockgraph/blockgraph.h"
#include "tools/img/options.h"

/* Set the library up, with the objects of --object, unless it is; undo it at the end. */
bool img_start(void);
void img_stop(void);

/* Take a --trace argument; false with the exit code if the program is done. */
bool img_take_trace(const char *argument, int *status);

/*
 * A cache mode's open flags; *@writethrough: each write is flushed. False,
 * without a message, for a word that is none.
 */
bool img_parse_cache(const char *mode, int *flags, bool *writethrough);

/* Who may open what an image names: with --untrusted, nobody. */
const BlockOpenPolicy *img_policy(const ImgArgs *args);

/* Warn of a writable image that was probed as raw; nothing if it is another one. */
void img_warn_if_guessed(BlockDriverState *bs);
/*
 * Open @filename (with @image_opts: an option list), of @format or probed if
 * NULL, with these flags and -U as it was given.
 */
BlockBackend *img_open(const ImgArgs *args, const char *filename, const char *format,
                       bool image_opts, int flags);
/* The one operand, with -f and --image-opts as given. */
BlockBackend *img_open_operand(const ImgArgs *args, int flags);

/* Read through snapshot @param: an ID or a name, or "snapshot.id=…" and such. */
bool img_load_snapshot(BlockBackend *blk, const char *param);

/*
 * The driver of that name, if it can create images or, with @measure, at least
 * measure them.
 */
BlockDriver *img_find_creatable(const char *prefix, const char *format, bool measure);

/*
 * Create options from all -o arguments together (an array of strings, may be
 * empty). NULL if one is malformed, or none of @drv's or its file's; a driver
 * without a table checks them itself. @file_drv may be NULL. @prefix stands
 * before messages ("" or "NAME: ").
 */
JsonObject *img_create_options(const char *prefix, GPtrArray *arguments, BlockDriver *drv,
                               BlockDriver *file_drv);
/*
 * Add an argument of -o to @arguments. False after an error message if it is no list: it is
 * empty, or begins with a comma or ends in one that is not doubled.
 */
bool img_take_option_list(GPtrArray *arguments, char *text);
/* Whether one of the -o arguments asks for help. */
bool img_options_ask_help(GPtrArray *arguments);
/* Print the create options of @drv and, if not NULL, of @file_drv. */
void img_print_create_options(BlockDriver *drv, BlockDriver *file_drv);
/* Print two tables of options as one list, by name; either may be NULL. */
void img_print_options(const BlockOption *options, const BlockOption *more);
/* The option of this name in a table, which may be NULL, or NULL. */
const BlockOption *img_find_option(const BlockOption *options, const char *name);
/* The option of this name in either table, or NULL. */
const BlockOption *img_find_create_option(BlockDriver *drv, BlockDriver *file_drv,
                                          const char *name);

/*
 * Report that a request failed: the file first, as "FILE: WHAT OFFSET: reason".
 */
void img_report_io_error(const char *filename, const char *what, int64_t offset, int ret);

/* Print a JSON document and a newline. */
void img_print_json(JsonObject *object);

#endif
