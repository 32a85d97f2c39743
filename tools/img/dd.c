/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dd: copy a part of an image into a new one. */
#include "tools/img/commands.h"

#include <string.h>
#include "tools/img/common.h"
#include "tools/img/convert-engine.h"
#include "tools/img/convert-target.h"
#include "tools/tool.h"

#define DD_SPARSE_SIZE 4096 /* bytes */

static const ImgOption dd_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "output-format", 'O', "FMT", "the output's format (default: raw)" },
    { "target-format", 'O', "FMT", NULL },
    IMG_OPTION_FORCE_SHARE,
    { NULL },
};

typedef struct Dd {
    const ImgArgs *args;
    const char *input;
    const char *output;
    const char *output_format;
    int64_t block_size; /* bytes */
    int64_t count;      /* blocks, -1: all */
    int64_t skip;       /* blocks */
} Dd;

static bool take_operand(Dd *dd, const char *operand)
{
    const char *equals = strchr(operand, '=');
    size_t length = equals != NULL ? (size_t)(equals - operand) : strlen(operand);
    g_autofree char *name = g_strndup(operand, length);
    const char *value = equals != NULL ? equals + 1 : "";

    if (equals != NULL && strcmp(name, "if") == 0) {
        dd->input = value;
    } else if (equals != NULL && strcmp(name, "of") == 0) {
        dd->output = value;
    } else if (equals != NULL && strcmp(name, "bs") == 0) {
        return tool_parse_size("bs", value, 1, INT32_MAX, &dd->block_size);
    } else if (equals != NULL && strcmp(name, "count") == 0) {
        return tool_parse_number("count", value, 0, INT64_MAX, &dd->count);
    } else if (equals != NULL && strcmp(name, "skip") == 0) {
        return tool_parse_number("skip", value, 0, INT64_MAX, &dd->skip);
    } else {
        tool_error("unrecognized operand %s", name);
        return false;
    }
    return true;
}

/*
 * Which part of an image of @length bytes is to be copied. As in QEMU, count
 * tells where in the input to end, not how much to copy.
 */
static void find_range(const Dd *dd, int64_t length, ConvertSource *src)
{
    int64_t end = length;
    int64_t bytes;

    if (dd->count >= 0 && !__builtin_mul_overflow(dd->count, dd->block_size, &bytes)) {
        end = MIN(end, bytes);
    }
    if (__builtin_mul_overflow(dd->skip, dd->block_size, &bytes) || bytes > end) {
        tool_error("%s: cannot skip to specified offset", dd->input);
        bytes = end;
    }
    src->skip = bytes;
    src->length = end - bytes;
}

static bool create_output(const Dd *dd, BlockDriver *drv, BlockBackend *input, int64_t size)
{
    g_autoptr(ImgFileSet) files = img_file_set_new();
    g_autoptr(JsonObject) options = json_object_new();
    GError *err = NULL;

    img_file_set_add(files, input, dd->input);
    if (img_file_set_find(files, dd->output) != NULL) {
        tool_error("%s: the output is a file of the input '%s', too", dd->output, dd->input);
        return false;
    }
    json_object_set_int_member(options, "size", size);
    if (!bdrv_create(drv, dd->output, options, &err)) {
        tool_error_take(err, "%s: error while creating output image: ", dd->output);
        return false;
    }
    return true;
}

static int copy(const Dd *dd, ConvertSource *src)
{
    ImgArgs output_args = *dd->args;
    ConvertEngine eng = {
        .sources = src,
        .n_sources = 1,
        .target_name = dd->output,
        .workers = 8,
        .sparse_size = DD_SPARSE_SIZE,
    };
    int ret;

    /* -U is for reading only. */
    output_args.force_share = false;
    eng.target =
        img_open(&output_args, dd->output, dd->output_format, false, BDRV_O_RDWR | BDRV_O_UNMAP);
    if (eng.target == NULL) {
        return 1;
    }
    eng.target_is_zero = img_is_on_regular_file(eng.target);
    ret = convert_engine_run(&eng);
    blk_unref(eng.target);
    return ret == 0 ? 0 : 1;
}

static int dd_images(const Dd *dd)
{
    g_autoptr(BlockBackend) input = NULL;
    BlockDriver *drv = img_find_creatable("", dd->output_format, false);
    ConvertSource src = { .name = dd->input };
    int64_t length;

    if (drv == NULL) {
        return 1;
    }
    input = img_open(dd->args, dd->input, dd->args->format, dd->args->image_opts, 0);
    if (input == NULL) {
        return 1;
    }
    length = blk_getlength(input);
    if (length < 0) {
        tool_error("Failed to get size for '%s'", dd->input);
        return 1;
    }
    src.blk = input;
    find_range(dd, length, &src);
    return create_output(dd, drv, input, src.length) ? copy(dd, &src) : 1;
}

static int dd_run(ImgArgs *args)
{
    Dd dd = { .args = args, .output_format = "raw", .block_size = 512, .count = -1 };
    int c;

    while ((c = img_args_next(args)) > 0) {
        dd.output_format = optarg;
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    for (int i = 0; i < img_operand_count(args); i++) {
        if (!take_operand(&dd, img_operand(args, i))) {
            return 1;
        }
    }
    if (dd.input == NULL || dd.output == NULL) {
        tool_error("Must specify both input and output files");
        return 1;
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    return dd_images(&dd);
}

/* QEMU 10.0 has these with their letters only, if at all. */
static const char *const ours_alone[] = { "target-format", NULL };

const ImgCommand img_dd_command = {
    .name = "dd",
    .summary = "Copy input to output with optional format conversion",
    .synopsis = "[-f FMT | --image-opts] [-O FMT] [-U]\n"
                "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
    .options = dd_options,
    .ours_alone = ours_alone,
    .operands = "bs=SIZE\n   the size of a block in bytes (default: 512)\n"
                "count=BLOCKS\n   where in the input to end (default: its end)\n"
                "skip=BLOCKS\n   where in the input to begin (default: 0)\n"
                "if=INPUT\n   the image to read\nof=OUTPUT\n   the image to create",
    .run = dd_run,
};
