/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* measure: how large a file an image of some format would need. */
#include "tools/img/commands.h"

#include <stdio.h>
#include "tools/img/common.h"
#include "tools/tool.h"

static const ImgOption measure_options[] = {
    { "target-format", 'O', "FMT", "the format to measure for (default: raw)" },
    { "size", 's', "SIZE", "measure for an empty disk of this size" },
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "options", 'o', "OPTIONS", "create options of the target format" },
    { "snapshot", 'l', "SNAPSHOT", "measure for the content of this snapshot" },
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_OUTPUT,
    { NULL },
};

typedef struct Measure {
    const char *target_format;
    const char *snapshot;
    GPtrArray *options;
    int64_t size; /* -1: not given */
} Measure;

static bool take_option(Measure *m, int letter)
{
    switch (letter) {
    case 'O':
        m->target_format = optarg;
        return true;
    case 'o':
        return img_take_option_list(m->options, optarg);
    case 'l':
        m->snapshot = optarg;
        return true;
    default:
        return tool_parse_size("image size", optarg, 0, INT64_MAX, &m->size);
    }
}

static bool check_operands(const ImgArgs *args, const Measure *m)
{
    int count = img_operand_count(args);

    if (count > 1) {
        tool_error("At most one filename argument is allowed.");
    } else if (count == 1 && m->size >= 0) {
        tool_error("--size N cannot be used together with a filename.");
    } else if (count == 0 && m->size < 0) {
        tool_error("Either --size N or one filename must be specified.");
    } else if (count == 0 && (args->image_opts || args->format != NULL || m->snapshot != NULL)) {
        tool_error("--image-opts, -f, and -l can only be used with a filename argument.");
    } else {
        return img_check_format_options(args);
    }
    return false;
}

static void print_result(const ImgArgs *args, const BlockMeasureInfo *info)
{
    g_autoptr(JsonObject) object = NULL;

    if (!args->json) {
        printf("required size: %" G_GINT64_FORMAT "\nfully allocated size: %" G_GINT64_FORMAT "\n",
               info->required, info->fully_allocated);
        if (info->bitmaps >= 0) {
            printf("bitmaps size: %" G_GINT64_FORMAT "\n", info->bitmaps);
        }
        return;
    }
    object = json_object_new();
    if (info->bitmaps >= 0) {
        json_object_set_int_member(object, "bitmaps", info->bitmaps);
    }
    json_object_set_int_member(object, "required", info->required);
    json_object_set_int_member(object, "fully-allocated", info->fully_allocated);
    img_print_json(object);
}

static int refuse_options(const BlockDriver *drv)
{
    tool_error("Invalid options for file format '%s'", bdrv_driver_name(drv));
    return 1;
}

static int measure(const ImgArgs *args, const Measure *m, BlockDriver *drv)
{
    g_autoptr(BlockBackend) source = NULL;
    g_autoptr(JsonObject) options = NULL;
    BlockMeasureInfo info = { .bitmaps = -1 };
    GError *err = NULL;

    if (img_operand_count(args) == 1) {
        source = img_open_operand(args, 0);
        if (source == NULL || (m->snapshot != NULL && !img_load_snapshot(source, m->snapshot))) {
            return 1;
        }
    }
    options = img_create_options("", m->options, drv, bdrv_find_format("file"));
    if (options == NULL) {
        return refuse_options(drv);
    }
    if (m->size >= 0) {
        json_object_set_int_member(options, "size", m->size);
    }
    if (!bdrv_measure(drv, options, source != NULL ? blk_bs(source) : NULL, &info, &err)) {
        bool unknown = g_str_has_prefix(err->message, "Invalid parameter '");

        tool_error_report(err);
        return unknown ? refuse_options(drv) : 1;
    }
    print_result(args, &info);
    return 0;
}

static int measure_run(ImgArgs *args)
{
    g_autoptr(GPtrArray) options = g_ptr_array_new();
    Measure m = { .target_format = "raw", .options = options, .size = -1 };
    BlockDriver *drv;
    bool ok = true;
    int c;

    while (ok && (c = img_args_next(args)) > 0) {
        ok = take_option(&m, c);
    }
    if (!ok) {
        return 1;
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (!check_operands(args, &m)) {
        return 1;
    }
    drv = img_find_creatable("", m.target_format, true);
    if (drv == NULL) {
        return 1;
    }
    if (img_options_ask_help(options)) {
        img_print_create_options(drv, bdrv_find_format("file"));
        return 0;
    }
    return measure(args, &m, drv);
}

const ImgCommand img_measure_command = {
    .name = "measure",
    .summary = "Calculate file size required for a new image",
    .synopsis = "[-f FMT | --image-opts] [-o OPTIONS] [-O FMT] [-l SNAPSHOT] [-U]\n"
                "[--output human|json] (--size SIZE | FILENAME)",
    .options = measure_options,
    .operands = "FILENAME\n   the image whose content is to be measured",
    .run = measure_run,
};
