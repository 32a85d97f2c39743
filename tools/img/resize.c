/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize: another length for an image's disk. */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

enum {
    RESIZE_OPT_SHRINK = 512,
    RESIZE_OPT_PREALLOCATION,
};

static const ImgOption resize_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "preallocation", RESIZE_OPT_PREALLOCATION, "off|metadata|falloc|full",
      "set space aside for what is new (default: off)" },
    { "shrink", RESIZE_OPT_SHRINK, NULL,
      "the new size may be smaller: what lies beyond it is lost" },
    IMG_OPTION_QUIET,
    { NULL },
};

typedef struct Resize {
    ImgArgs *args;
    const char *size; /* the operand, with its sign */
    int64_t value;    /* the number in it, bytes */
    bool shrink;
    int prealloc;
} Resize;

static bool takes_argument(const char *option)
{
    static const char *const with[] = { "-f", "--format", "--preallocation", "--object", "--aio",
                                        NULL };

    return g_strv_contains(with, option);
}

/*
 * "FILENAME -SIZE": take the size out of the arguments, so that it is not read as
 * options. NULL if there is none.
 */
static const char *take_negative_size(ImgArgs *args)
{
    for (int i = 2; i < args->argc; i++) {
        char **word = &args->argv[i];
        const char *size = *word;

        if (size[0] == '-' && g_ascii_isdigit(size[1]) && word[-1][0] != '-' &&
            !(i > 2 && takes_argument(word[-2]))) {
            memmove(word, word + 1, (args->argc - i) * sizeof(*word)); /* and the NULL */
            args->argc--;
            return size;
        }
    }
    return NULL;
}

static bool take_preallocation(Resize *r)
{
    for (int i = 0; block_prealloc_words[i] != NULL; i++) {
        if (strcmp(block_prealloc_words[i], optarg) == 0) {
            r->prealloc = i;
            return true;
        }
    }
    tool_error("Invalid preallocation mode '%s'", optarg);
    return false;
}

static bool is_relative(const Resize *r)
{
    return r->size[0] == '+' || r->size[0] == '-';
}

/* The number in the operand, without its sign. */
static bool parse_size(Resize *r)
{
    const char *text = r->size + is_relative(r);
    int ret = text == r->size || *text != '-' ? block_parse_size(text, 'b', &r->value) : -EINVAL;

    if (ret == -ERANGE) {
        tool_error("Value '%s' is out of range for parameter 'size'", text);
    } else if (ret < 0) {
        tool_error("Parameter 'size' expects a non-negative number below 2^64");
        fprintf(stderr, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
                        "peta-\nand exabytes, respectively.\n");
    }
    return ret == 0;
}

/* What the operand comes to for a disk of @length bytes; 0 or less makes no sense. */
static bool find_size(const Resize *r, int64_t length, int64_t *size)
{
    *size = r->value;
    if (!is_relative(r)) {
        return true;
    }
    if (r->size[0] == '-') {
        *size = length - r->value;
    } else if (__builtin_add_overflow(length, r->value, size)) {
        tool_error("The new image size is too large");
        return false;
    }
    return true;
}

static bool check_size(const Resize *r, int64_t length, int64_t size)
{
    if (size <= 0) {
        tool_error("New image size must be positive");
        return false;
    }
    if (size <= length && r->prealloc != BLOCK_PREALLOC_OFF) {
        tool_error("Preallocation can only be used for growing images");
        return false;
    }
    if (size < length && !r->shrink) {
        tool_error("Use the --shrink option to perform a shrink operation.");
        tool_warning("Shrinking an image will delete all data beyond the shrunken image's end. "
                     "Before performing such an operation, make sure there is no important data "
                     "there.");
        return false;
    }
    return true;
}

/* A bitmap that cannot follow the disk's length forbids to change it. */
static bool bitmaps_follow(BlockDriverState *bs, GError **errp)
{
    BdrvDirtyBitmap *bitmap = NULL;
    bool ok = true;

    while (ok && (bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        ok = bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT, errp);
    }
    return ok;
}

static int resize_image(const Resize *r)
{
    g_autoptr(BlockBackend) blk = img_open_operand(r->args, BDRV_O_RDWR | BDRV_O_RESIZE);
    GError *err = NULL;
    int64_t length, size;

    if (blk == NULL) {
        return 1;
    }
    length = blk_getlength(blk);
    if (length < 0) {
        img_report_io_error(img_operand(r->args, 0), "could not get the length of the disk", 0,
                            length);
        return 1;
    }
    if (!find_size(r, length, &size) || !check_size(r, length, size)) {
        return 1;
    }
    if (!bitmaps_follow(blk_bs(blk), &err) ||
        blk_truncate(blk, size, true, r->prealloc, &err) < 0 ||
        !bdrv_dirty_bitmaps_store(blk_bs(blk), &err)) {
        tool_error_report(err);
        return 1;
    }
    if (!r->args->quiet) {
        printf("Image resized.\n");
    }
    return 0;
}

static int resize_run(ImgArgs *args)
{
    Resize r = { .args = args, .size = take_negative_size(args) };
    int letter;

    while ((letter = img_args_next(args)) > 0) {
        if (letter == RESIZE_OPT_SHRINK) {
            r.shrink = true;
        } else if (!take_preallocation(&r)) {
            return 1;
        }
    }
    if (letter == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    if (r.size == NULL && img_operand_count(args) > 1) {
        r.size = img_operand(args, 1);
        args->argc--;
        memmove(&args->argv[optind + 1], &args->argv[optind + 2],
                (args->argc - optind) * sizeof(char *));
    }
    if (r.size == NULL || img_operand_count(args) < 1) {
        return img_usage_error(args, "Expecting image file name and size");
    }
    if (img_operand_count(args) > 1) {
        return img_usage_error(args, "Extra argument(s) in command line");
    }
    return parse_size(&r) ? resize_image(&r) : 1;
}

const ImgCommand img_resize_command = {
    .name = "resize",
    .summary = "Change the size of an image's disk",
    .synopsis = "[-f FMT | --image-opts] [--preallocation PREALLOC] [--shrink]\n"
                "[--object OBJDEF] [-q] FILENAME [+-]SIZE[bkKMGTPE]",
    .options = resize_options,
    .operands = "FILENAME\n"
                "   the image file, or an option list\n"
                "[+-]SIZE[bkKMGTPE]\n"
                "   the new size, or by how much to grow or shrink it",
    .run = resize_run,
};
