/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands' options. Each command has one table, from which both the
 * parser and its --help text are made; the options that every command has are
 * in a table of their own.
 */
#ifndef TOOLS_IMG_OPTIONS_H
#define TOOLS_IMG_OPTIONS_H

#include <getopt.h>
#include <glib.h>
#include <stdbool.h>
#include "tools/progress.h"

/* Options without a short letter. */
enum {
    IMG_OPT_IMAGE_OPTS = 256,
    IMG_OPT_OUTPUT,
    IMG_OPT_OBJECT,
    IMG_OPT_AIO,
    IMG_OPT_UNTRUSTED,
    IMG_OPT_VERBOSE,
    IMG_OPT_TARGET_IMAGE_OPTS,
    IMG_OPT_TARGET_IS_ZERO,
    IMG_OPT_SALVAGE,
    IMG_OPT_BITMAPS,
    IMG_OPT_SKIP_BROKEN_BITMAPS,
    IMG_OPT_GRAPH_OUTPUT,
    IMG_OPT_PROGRESS_FD,
};

typedef struct ImgOption {
    const char *name;     /* the long name without dashes, or NULL */
    int letter;           /* the short letter, or an IMG_OPT_ value */
    const char *argument; /* what its argument is called, or NULL if it takes none */
    /* What it does, lines separated by "\n"; NULL: the same as the one before. */
    const char *help;
} ImgOption;

typedef struct ImgArgs ImgArgs;

typedef struct ImgCommand {
    const char *name;
    const char *summary;
    const char *synopsis;     /* behind the command's name; lines separated by "\n" */
    const ImgOption *options; /* ended by an entry of zeros */
    /* See tool_expand_abbreviations(). */
    const char *const *ours_alone;
    const char *operands;     /* what stands behind the options; lines */
    int object_error;         /* the exit code if --object is wrong; 0: the usual 1 */
    int (*run)(ImgArgs *args);
} ImgCommand;

/* A command's arguments while they are read, and the common options' values. */
struct ImgArgs {
    const ImgCommand *command;
    int argc;
    char **argv; /* argv[0] is "PROGRAM COMMAND", for getopt's messages */
    /* What common options said. */
    const char *format; /* -f */
    bool image_opts;
    bool force_share; /* -U */
    bool quiet;       /* -q */
    bool progress;    /* -p */
    bool json;        /* --output=json */
    bool untrusted;   /* --untrusted */
    bool verbose;     /* --verbose */
    /* When img_args_next() says IMG_ARGS_LEAVE: the exit code. */
    int status;
    bool started;
    const char *short_options;
    void *long_options;
};

enum {
    IMG_ARGS_DONE = 0,
    IMG_ARGS_LEAVE = -1,
};

/*
 * The next option of the command's own: its letter, with its argument in
 * optarg. Common options are taken here. IMG_ARGS_DONE: all are read, the
 * library is set up, operands begin at argv[optind]. IMG_ARGS_LEAVE: help was
 * printed or something was wrong, and the command returns args->status.
 */
int img_args_next(ImgArgs *args);
void img_args_clear(ImgArgs *args);

/* The number of operands, and the operands. */
int img_operand_count(const ImgArgs *args);
const char *img_operand(const ImgArgs *args, int i);

/* Report wrong usage with a hint to --help; returns 1, the exit code. */
int img_usage_error(const ImgArgs *args, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* --format together with --image-opts: says so and returns false. */
bool img_check_format_options(const ImgArgs *args);
/* -q and -p as a mode. */
ProgressMode img_progress_mode(const ImgArgs *args);

/* The global options, before the command; they take the same words. */
typedef struct ImgGlobal {
    bool untrusted;
    bool verbose;
} ImgGlobal;

/*
 * Parse the global options. Returns the index of the command in argv, or
 * -1 with the exit code in *@status.
 */
int img_parse_global(int argc, char **argv, const ImgCommand *const *commands, ImgGlobal *global,
                     int *status);

/* Entries for tables, so that the same option reads the same everywhere. */
#define IMG_OPTION_FORMAT                                                                          \
    {                                                                                              \
        "format", 'f', "FMT", "the image's format; without it, the format is probed"               \
    }
#define IMG_OPTION_IMAGE_OPTS                                                                      \
    {                                                                                              \
        "image-opts", IMG_OPT_IMAGE_OPTS, NULL,                                                    \
            "image names are option lists (driver=…,file.filename=…), not file names"          \
    }
#define IMG_OPTION_FORCE_SHARE                                                                     \
    {                                                                                              \
        "force-share", 'U', NULL, "open images that others have open for writing, too"             \
    }
#define IMG_OPTION_QUIET                                                                           \
    {                                                                                              \
        "quiet", 'q', NULL, "print errors only"                                                    \
    }
#define IMG_OPTION_PROGRESS                                                                        \
    {                                                                                              \
        "progress", 'p', NULL, "show how far the command is"                                       \
    },                                                                                             \
    {                                                                                              \
        "progress-fd", IMG_OPT_PROGRESS_FD, "FD",                                                  \
            "tell how far the command is, as lines of JSON on this file descriptor"                \
    }
#define IMG_OPTION_OUTPUT                                                                          \
    {                                                                                              \
        "output", IMG_OPT_OUTPUT, "human|json", "the form of the output (default: human)"          \
    }

#endif
