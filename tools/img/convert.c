/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: copy images into a new one, of another format. */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/img/convert-engine.h"
#include "tools/img/convert-target.h"
#include "tools/tool.h"

#define MAX_SPARSE_SIZE (16 << 20) /* bytes */

static const ImgOption convert_options[] = {
    { "source-format", 'f', "FMT", "the sources' format; without it, the format is probed" },
    { "format", 'f', "FMT", NULL },
    { "image-opts", IMG_OPT_IMAGE_OPTS, NULL,
      "source names are option lists (driver=…,file.filename=…), not file names" },
    { "source-image-opts", IMG_OPT_IMAGE_OPTS, NULL, NULL },
    { "source-snapshot", 'l', "SNAPSHOT",
      "copy this snapshot of the source: its ID or its name,\n"
      "or snapshot.id=ID,snapshot.name=NAME" },
    { "snapshot", 'l', "SNAPSHOT", NULL },
    { "source-cache", 'T', "CACHE", "the sources' cache mode (default: writeback)" },
    { "target-format", 'O', "FMT", "the target's format (default: raw)" },
    { "output-format", 'O', "FMT", NULL },
    { "target-image-opts", IMG_OPT_TARGET_IMAGE_OPTS, NULL,
      "the target's name is an option list; needs -n" },
    { "target-options", 'o', "OPTIONS", "create options of the target; \"help\" lists them" },
    { "options", 'o', "OPTIONS", NULL },
    { "target-cache", 't', "CACHE", "the target's cache mode (default: unsafe)" },
    { "compress", 'c', NULL, "compress the target's data, if its format can" },
    { "backing", 'B', "FILENAME", "give the target a backing file, if its format can" },
    { "backing-format", 'F', "FMT", "the backing file's format" },
    { "no-create", 'n', NULL, "write into a target that exists" },
    { "target-is-zero", IMG_OPT_TARGET_IS_ZERO, NULL, "the existing target reads as zeros" },
    { "sparse-size", 'S', "SIZE",
      "leave holes for runs of zeros that are this long (default: 4k);\n"
      "0 writes everything" },
    { "parallel", 'm', "COUNT", "how many coroutines copy (1 to 16, default: 8)" },
    { "oob-writes", 'W', NULL, "write in any order, which is faster" },
    { "rate", 'r', "RATE", "write at most so many bytes per second" },
    { "rate-limit", 'r', "RATE", NULL },
    { "copy-range-offloading", 'C', NULL, "accepted; data is copied by reading and writing" },
    { "salvage", IMG_OPT_SALVAGE, NULL, "take what cannot be read for zeros" },
    { "bitmaps", IMG_OPT_BITMAPS, NULL, "copy persistent bitmaps, if the target's format can" },
    { "skip-broken-bitmaps", IMG_OPT_SKIP_BROKEN_BITMAPS, NULL,
      "with --bitmaps: leave bad ones out" },
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    { NULL },
};

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

/* ---- Options ------------------------------------------------------------------------ */

static bool take_sparse_size(Convert *conv)
{
    int64_t size;

    if (!tool_parse_size("buffer size for sparse output", optarg, 0, INT64_MAX, &size)) {
        return false;
    }
    if (size % BDRV_SECTOR_SIZE != 0 || size > MAX_SPARSE_SIZE) {
        tool_error("Invalid buffer size for sparse output specified. Valid sizes are multiples of "
                   "%d up to %d. Select 0 to disable sparse detection (fully allocates output).",
                   (int)BDRV_SECTOR_SIZE, MAX_SPARSE_SIZE);
        return false;
    }
    conv->sparse_given = true;
    conv->engine.sparse_size = size;
    return true;
}

static bool take_number(Convert *conv, int letter)
{
    int64_t workers;

    switch (letter) {
    case 'S':
        return take_sparse_size(conv);
    case 'r':
        return tool_parse_size("rate limit", optarg, 0, INT64_MAX, &conv->engine.rate);
    default:
        if (!tool_parse_size("number of coroutines", optarg, 1, CONVERT_MAX_WORKERS, &workers)) {
            return false;
        }
        conv->engine.workers = (int)workers;
        return true;
    }
}

static void take_flag(Convert *conv, int letter)
{
    switch (letter) {
    case 'c':
        conv->engine.compressed = true;
        break;
    case 'n':
        conv->skip_create = true;
        break;
    case 'C':
        conv->copy_range = true;
        break;
    case 'W':
        conv->engine.unordered = true;
        break;
    case IMG_OPT_TARGET_IMAGE_OPTS:
        conv->target_image_opts = true;
        break;
    case IMG_OPT_TARGET_IS_ZERO:
        conv->engine.target_is_zero = true;
        break;
    case IMG_OPT_SALVAGE:
        conv->engine.salvage = true;
        break;
    case IMG_OPT_BITMAPS:
        conv->bitmaps = true;
        break;
    case IMG_OPT_SKIP_BROKEN_BITMAPS:
        conv->skip_broken_bitmaps = true;
        break;
    default:
        break;
    }
}

static bool take_option(Convert *conv, int letter)
{
    switch (letter) {
    case 'o':
        g_ptr_array_add(conv->options, optarg);
        break;
    case 'l':
        conv->snapshot = optarg;
        break;
    case 'T':
        conv->source_cache = optarg;
        break;
    case 't':
        conv->target_cache = optarg;
        break;
    case 'O':
        conv->target_format = optarg;
        break;
    case 'B':
        conv->backing = optarg;
        break;
    case 'F':
        conv->backing_format = optarg;
        break;
    case 'S':
    case 'm':
    case 'r':
        return take_number(conv, letter);
    default:
        take_flag(conv, letter);
        break;
    }
    return true;
}

/* What cannot be wanted together; NULL if all is well. */
static const char *find_contradiction(const Convert *conv)
{
    if (conv->target_image_opts && !conv->skip_create) {
        return "--target-image-opts requires use of -n flag";
    }
    if (conv->target_image_opts && conv->target_format != NULL) {
        return "-O cannot be used together with --target-image-opts";
    }
    if (conv->skip_create && conv->options->len > 0) {
        return "-o has no effect when skipping image creation";
    }
    if (conv->engine.target_is_zero && !conv->skip_create) {
        return "--target-is-zero requires use of -n flag";
    }
    if (conv->engine.target_is_zero && conv->backing != NULL) {
        return "Cannot use --target-is-zero when the destination image has a backing file";
    }
    if (conv->copy_range && conv->engine.compressed) {
        return "Cannot enable copy offloading when -c is used";
    }
    if (conv->copy_range && conv->sparse_given) {
        return "Cannot enable copy offloading when -S is used";
    }
    if (conv->skip_broken_bitmaps && !conv->bitmaps) {
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    }
    return NULL;
}

static bool check_options(const Convert *conv)
{
    const char *contradiction = find_contradiction(conv);

    if (contradiction != NULL) {
        tool_error("%s", contradiction);
        return false;
    }
    return img_check_format_options(conv->args);
}

/* ---- Sources -------------------------------------------------------------------------- */

/* What somebody writes to meanwhile would be copied in parts of different times. */
static bool keep_unchanged(ConvertSource *src)
{
    GError *err = NULL;

    if (!blk_set_perm(src->blk, BLK_PERM_CONSISTENT_READ,
                      BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED, &err)) {
        tool_error_take(err, "Could not open '%s': ", src->name);
        return false;
    }
    return true;
}

static bool open_source(Convert *conv, ConvertSource *src, int flags)
{
    src->blk = img_open(conv->args, src->name, conv->args->format, conv->args->image_opts, flags);
    if (src->blk == NULL ||
        (conv->snapshot != NULL && !img_load_snapshot(src->blk, conv->snapshot))) {
        return false;
    }
    if (!conv->args->force_share && !keep_unchanged(src)) {
        return false;
    }
    src->length = blk_getlength(src->blk);
    if (src->length < 0) {
        tool_error("Could not get size of %s: %s", src->name, g_strerror((int)-src->length));
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    src->base = bdrv_backing_chain_next(blk_bs(src->blk));
    bdrv_graph_rdunlock_main_loop();
    img_file_set_add(conv->files, src->blk, src->name);
    return true;
}

/* Open all, and add up how much there is to copy. */
static bool open_sources(Convert *conv, int64_t *total)
{
    ConvertEngine *eng = &conv->engine;
    bool writethrough;
    int flags = 0;

    if (!img_parse_cache(conv->source_cache, &flags, &writethrough)) {
        tool_error("Invalid source cache option: %s", conv->source_cache);
        return false;
    }
    if (conv->bitmaps && eng->n_sources > 1) {
        tool_error("Copying bitmaps only possible with single source");
        return false;
    }
    if (conv->snapshot != NULL && eng->n_sources > 1) {
        tool_error("No support for concatenating multiple snapshot");
        return false;
    }
    *total = 0;
    for (size_t i = 0; i < eng->n_sources; i++) {
        eng->sources[i].name = img_operand(conv->args, (int)i);
        if (!open_source(conv, &eng->sources[i], flags)) {
            return false;
        }
        if (__builtin_add_overflow(*total, eng->sources[i].length, total) ||
            *total > BDRV_MAX_LENGTH) {
            tool_error("%s: the sources together are too large", eng->sources[i].name);
            return false;
        }
    }
    return true;
}

static bool check_bitmaps(const Convert *conv)
{
    const ConvertSource *src = &conv->engine.sources[0];

    return !conv->bitmaps || img_check_bitmaps(src->blk, src->name, conv->skip_broken_bitmaps);
}

static void close_all(Convert *conv)
{
    for (size_t i = 0; i < conv->engine.n_sources; i++) {
        blk_unref(conv->engine.sources[i].blk);
    }
    blk_unref(conv->engine.target);
    g_free(conv->engine.sources);
    img_file_set_free(conv->files);
}

/* ---- The target -------------------------------------------------------------------------- */

static bool refuse_source_as_target(const Convert *conv, const char *source)
{
    if (source == NULL) {
        return false;
    }
    tool_error("%s: the target is a file of the source '%s', too", conv->engine.target_name,
               source);
    return true;
}

/* What is made must be no file of a source: neither the image nor its data file. */
static bool refuse_to_overwrite(const Convert *conv, JsonObject *options)
{
    const char *name = conv->engine.target_name;
    const char *data = json_object_get_string_member_with_default(options, "data_file", name);

    return refuse_source_as_target(conv, img_file_set_find(conv->files, name)) ||
           refuse_source_as_target(conv, img_file_set_find(conv->files, data));
}

/* Whether the target's format can do what was asked for. */
static bool check_abilities(const Convert *conv, BlockDriver *drv)
{
    if (conv->engine.compressed && drv->bdrv_encode == NULL) {
        tool_error("Compression not supported for this file format");
    } else if (conv->bitmaps && drv->bdrv_can_store_bitmap == NULL) {
        tool_error("Format driver '%s' does not support bitmaps", drv->format_name);
    } else if (!conv->skip_create && !drv->supports_backing &&
               (conv->backing != NULL || conv->backing_format != NULL)) {
        tool_error("Backing file not supported for file format '%s'", drv->format_name);
    } else {
        return true;
    }
    return false;
}

/* -B and -F are options, too; they win over -o. */
static bool add_backing(Convert *conv, JsonObject *options)
{
    if (conv->backing != NULL) {
        json_object_set_string_member(options, "backing_file", conv->backing);
    }
    if (conv->backing_format != NULL) {
        json_object_set_string_member(options, "backing_fmt", conv->backing_format);
    }
    conv->engine.target_has_backing = json_object_has_member(options, "backing_file");
    if (!conv->engine.target_has_backing) {
        return true;
    }
    if (conv->engine.n_sources > 1) {
        tool_error("Having a backing file for the target makes no sense when concatenating "
                   "multiple input images");
        return false;
    }
    if (!json_object_has_member(options, "backing_fmt")) {
        tool_error("Use of backing file requires explicit backing format");
        return false;
    }
    return true;
}

/* What cannot be had together with compression. */
static bool check_compression(const Convert *conv, JsonObject *options)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);
    g_autofree char *prealloc = NULL;

    if (!conv->engine.compressed) {
        return true;
    }
    if (json_object_has_member(options, "encryption") ||
        json_object_has_member(options, "encrypt")) {
        tool_error("Compression and encryption not supported at the same time");
        return false;
    }
    block_options_take_string(copy, "preallocation", &prealloc, NULL);
    if (prealloc != NULL && strcmp(prealloc, "off") != 0) {
        tool_error("Compression and preallocation not supported at the same time");
        return false;
    }
    return true;
}

static bool create_target(Convert *conv, BlockDriver *drv, int64_t size)
{
    const char *name = conv->engine.target_name;
    g_autoptr(JsonObject) options = NULL;
    BlockDriver *file_drv;
    GError *err = NULL;

    file_drv = bdrv_find_protocol(name, &err);
    if (file_drv == NULL) {
        tool_error_report(err);
        return false;
    }
    options = img_create_options("", conv->options, drv, file_drv);
    if (options == NULL || !check_abilities(conv, drv) ||
        !add_backing(conv, options) || !check_compression(conv, options) ||
        refuse_to_overwrite(conv, options)) {
        return false;
    }
    json_object_set_int_member(options, "size", size);
    if (!bdrv_create(drv, name, options, &err)) {
        tool_error_take(err, "%s: error while converting %s: ", name, drv->format_name);
        return false;
    }
    return true;
}

static void find_backing_length(ConvertEngine *eng)
{
    BlockDriverState *backing;

    bdrv_graph_rdlock_main_loop();
    backing = bdrv_backing_chain_next(blk_bs(eng->target));
    bdrv_graph_rdunlock_main_loop();
    eng->backing_length = backing != NULL ? bdrv_getlength(backing) : -1;
}

static bool open_target(Convert *conv, const char *format, int64_t size)
{
    ConvertEngine *eng = &conv->engine;
    int flags = BDRV_O_RDWR | (eng->sparse_size > 0 ? BDRV_O_UNMAP : 0);
    ImgArgs target_args = *conv->args;
    bool writethrough = false;
    int64_t length;

    if (!img_parse_cache(conv->target_cache, &flags, &writethrough)) {
        tool_error("Invalid cache option: %s", conv->target_cache);
        return false;
    }
    eng->write_flags = writethrough ? BDRV_REQ_FUA : 0;
    /* -U is for reading only. */
    target_args.force_share = false;
    eng->target = img_open(&target_args, eng->target_name, format, conv->target_image_opts, flags);
    if (eng->target == NULL) {
        return false;
    }
    if (conv->skip_create &&
        refuse_source_as_target(conv, img_file_set_find_below(conv->files, eng->target))) {
        return false;
    }
    length = blk_getlength(eng->target);
    if (length < 0) {
        tool_error("unable to get output image length: %s", g_strerror((int)-length));
        return false;
    }
    if (length < size) {
        tool_error("output file is smaller than input file");
        return false;
    }
    find_backing_length(eng);
    return true;
}

/* Create the target unless it is there, and open it. */
static bool prepare_target(Convert *conv, int64_t size)
{
    const char *format = conv->target_format;
    ConvertEngine *eng = &conv->engine;
    BlockDriver *drv;

    if (conv->skip_create) {
        eng->target_has_backing = conv->backing != NULL;
    }
    if (format == NULL && !conv->target_image_opts) {
        format = "raw";
    }
    if (format != NULL) {
        drv = conv->skip_create ? bdrv_find_format(format) : img_find_creatable("", format, false);
        if (drv == NULL && conv->skip_create) {
            tool_error("Unknown file format '%s'", format);
        }
        if (drv == NULL || (!conv->skip_create && !create_target(conv, drv, size))) {
            return false;
        }
    }
    if (!open_target(conv, format, size)) {
        return false;
    }
    if (conv->skip_create) {
        return check_abilities(conv,
                               bdrv_find_format(bdrv_get_format_name(blk_bs(eng->target))));
    }
    /* Creating has cut it down to nothing: what is there is a hole. */
    eng->target_is_zero = !eng->target_has_backing && img_is_on_regular_file(eng->target);
    return true;
}

/* ---- All of it ------------------------------------------------------------------------------ */

static int convert(Convert *conv)
{
    ConvertEngine *eng = &conv->engine;
    ProgressMode mode = img_progress_mode(conv->args);
    int64_t total;
    int ret;

    if (!open_sources(conv, &total) || !check_bitmaps(conv) || !prepare_target(conv, total)) {
        return 1;
    }
    eng->quiet = conv->args->quiet;
    eng->count_first = mode == PROGRESS_DRAWN;
    progress_start(mode, 1);
    ret = convert_engine_run(eng);
    if (ret == 0) {
        progress_complete();
    }
    progress_end();
    if (ret == 0 && conv->bitmaps &&
        !img_copy_bitmaps(eng->sources[0].blk, eng->target, eng->target_name)) {
        ret = -EINVAL;
    }
    return ret == 0 ? 0 : 1;
}

static int print_target_options(const Convert *conv)
{
    const char *format = conv->target_format != NULL ? conv->target_format : "raw";
    BlockDriver *drv = img_find_creatable("", format, false);
    int count = img_operand_count(conv->args);
    BlockDriver *file_drv = NULL;
    GError *err = NULL;

    if (drv == NULL) {
        return 1;
    }
    if (count > 1) {
        file_drv = bdrv_find_protocol(img_operand(conv->args, count - 1), &err);
        if (file_drv == NULL) {
            tool_error_report(err);
            return 1;
        }
    }
    img_print_create_options(drv, file_drv);
    return 0;
}

static int convert_run(ImgArgs *args)
{
    g_autoptr(GPtrArray) options = g_ptr_array_new();
    Convert conv = {
        .args = args,
        .options = options,
        .source_cache = "writeback",
        .target_cache = "unsafe",
        .engine = { .workers = 8, .sparse_size = 4096 },
    };
    bool ok = true;
    int count;
    int status;
    int c;

    while (ok && (c = img_args_next(args)) > 0) {
        ok = take_option(&conv, c);
    }
    if (!ok) {
        return 1;
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (img_options_ask_help(options)) {
        return print_target_options(&conv);
    }
    if (!check_options(&conv)) {
        return 1;
    }
    count = img_operand_count(args);
    if (count < 2) {
        tool_error("Must specify image file name");
        return 1;
    }
    conv.engine.n_sources = (size_t)count - 1;
    conv.engine.sources = g_new0(ConvertSource, conv.engine.n_sources);
    conv.engine.target_name = img_operand(args, count - 1);
    conv.files = img_file_set_new();
    status = convert(&conv);
    close_all(&conv);
    return status;
}

const ImgCommand img_convert_command = {
    .name = "convert",
    .summary = "Copy one image to another with optional format conversion",
    .synopsis = "[-f FMT | --image-opts] [-T CACHE] [-l SNAPSHOT] [-U]\n"
                "[-O FMT | --target-image-opts] [-o OPTIONS] [-t CACHE] [-n] [--target-is-zero]\n"
                "[-c] [-B FILENAME [-F FMT]] [-S SIZE] [-m COUNT] [-W] [-r RATE] [-C] [--salvage]\n"
                "[--bitmaps [--skip-broken-bitmaps]] [-p] [-q] FILENAME [FILENAME2 ...] TARGET",
    .options = convert_options,
    .operands = "FILENAME\n   the source; several are copied one behind the other\n"
                "TARGET\n   the image to write",
    .run = convert_run,
};
