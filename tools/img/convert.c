/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: copy images into a new one, of another format. */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tools/img/convert.h"
#include "tools/tool.h"

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

/* What is relative would be so to the folder that standard input's name here is in. */
static bool refuse_relative(void *opaque, const char *image, BlockReferenceKind kind,
                            const char *name, GError **errp)
{
    const Convert *conv = opaque;
    const BlockOpenPolicy *policy = img_policy(conv->args);

    if (kind == BLOCK_REFERENCE_BACKING && g_str_has_prefix(image, CONVERT_STDIN_FOLDER) &&
        g_str_has_prefix(name, CONVERT_STDIN_FOLDER)) {
        block_error_set(errp, EINVAL, "'%s' is relative to the image's folder, which is not known "
                        "of standard input; give the image as a file",
                        name + strlen(CONVERT_STDIN_FOLDER));
        return false;
    }
    return policy->allow(policy->opaque, image, kind, name, errp);
}

static BlockBackend *open_stdin(Convert *conv, const char *name, int flags)
{
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *spool = img_convert_spool_stdin(conv);
    BlockBackend *blk;
    GError *err = NULL;

    if (spool == NULL) {
        return NULL;
    }
    if (conv->args->format != NULL) {
        json_object_set_string_member(options, "driver", conv->args->format);
    }
    flags |= conv->args->force_share ? BDRV_O_FORCE_SHARE : 0;
    conv->stdin_policy = (BlockOpenPolicy){ .allow = refuse_relative, .opaque = conv };
    blk = blk_new_open(spool, options, flags, &conv->stdin_policy, &err);
    if (blk == NULL) {
        tool_error_take(err, "Could not open %s: ", name);
    }
    return blk;
}

static bool open_source(Convert *conv, ConvertSource *src, int flags)
{
    if (!conv->args->image_opts && strcmp(src->name, "-") == 0) {
        src->name = "standard input";
        src->blk = open_stdin(conv, src->name, flags);
    } else {
        src->blk = img_open(conv->args, src->name, conv->args->format, conv->args->image_opts,
                            flags);
    }
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
    g_clear_pointer(&conv->engine.digest, g_checksum_free);
    if (conv->spool_fd >= 0) {
        close(conv->spool_fd);
    }
    img_file_set_free(conv->files);
}

/* ---- All of it ------------------------------------------------------------------------------ */

/* Open what is to be opened; *@total bytes are to be copied, if that is known. */
static bool open_all(Convert *conv, int64_t *total)
{
    *total = 0;
    if (!img_convert_check_streams(conv)) {
        return false;
    }
    if (conv->from_stdin) {
        return true;
    }
    return open_sources(conv, total) && check_bitmaps(conv) &&
           (conv->to_stdout || img_convert_prepare_target(conv, *total));
}

static int copy(Convert *conv, int64_t total)
{
    if (conv->from_stdin) {
        return img_convert_stream_in(conv);
    }
    return conv->to_stdout ? img_convert_stream_out(conv, total)
                           : convert_engine_run(&conv->engine);
}

static int convert(Convert *conv)
{
    ConvertEngine *eng = &conv->engine;
    ProgressMode mode = img_progress_mode(conv->args);
    int64_t total;
    int ret;

    if (!open_all(conv, &total)) {
        return 1;
    }
    eng->quiet = conv->args->quiet;
    eng->count_first = mode == PROGRESS_DRAWN || progress_fd() >= 0;
    progress_set_total(total);
    if (conv->to_stdout) {
        progress_to_stderr();
    }
    progress_start(mode, 1);
    ret = copy(conv, total);
    if (ret == 0) {
        progress_complete();
    }
    progress_end();
    if (ret == 0 && conv->bitmaps &&
        !img_copy_bitmaps(eng->sources[0].blk, eng->target, eng->target_name)) {
        ret = -EINVAL;
    }
    if (ret == 0 && eng->digest != NULL) {
        fprintf(conv->to_stdout ? stderr : stdout, "%s  %s\n", conv->digest_name,
                g_checksum_get_string(eng->digest));
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
        .spool_fd = -1,
        .engine = { .workers = 8, .sparse_size = 4096 },
    };
    bool ok = true;
    int count;
    int status;
    int c;

    while (ok && (c = img_args_next(args)) > 0) {
        ok = img_convert_take_option(&conv, c);
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
    if (!img_convert_check_options(&conv)) {
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

/* QEMU 10.0 has these with their letters only, if at all. */
static const char *const ours_alone[] = {
    "compress",        "format",       "no-create",     "progress",       "rate-limit",
    "source-snapshot", "target-cache", "target-format", "target-options", NULL,
};

const ImgCommand img_convert_command = {
    .name = "convert",
    .summary = "Copy one image to another with optional format conversion",
    .synopsis = "[-f FMT | --image-opts] [-T CACHE] [-l SNAPSHOT] [-U]\n"
                "[-O FMT | --target-image-opts] [-o OPTIONS] [-t CACHE] [-n] [--target-is-zero]\n"
                "[-c] [-B FILENAME [-F FMT]] [-S SIZE] [-m COUNT] [-W] [-r RATE] [-C] [--salvage]\n"
                "[--bitmaps [--skip-broken-bitmaps]] [--digest ALGORITHM] [-p] [-q]\n"
                "FILENAME [FILENAME2 ...] TARGET",
    .options = img_convert_options,
    .ours_alone = ours_alone,
    .operands = "FILENAME\n   the source, - for standard input; several are copied one behind "
                "the other\n"
                "TARGET\n   the image to write, - for standard output",
    .run = convert_run,
};
