/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: create the target, and open it. */
#include "tools/img/convert.h"

#include <string.h>
#include "tools/tool.h"

static bool refuse_source_as_target(const Convert *conv, const char *source)
{
    if (source == NULL) {
        return false;
    }
    tool_error("%s: the target is a file of the source '%s', too", conv->engine.target_name,
               source);
    return true;
}

/*
 * What is made must be no file of a source, neither the image nor its data file, and not the
 * backing file that it is to have.
 */
static bool refuse_to_overwrite(const Convert *conv, JsonObject *options)
{
    const char *name = conv->engine.target_name;
    const char *data = json_object_get_string_member_with_default(options, "data_file", name);
    const char *backing = json_object_get_string_member_with_default(options, "backing_file", "");

    if (*backing != '\0' && img_is_own_backing(name, backing)) {
        tool_error("%s: Error: Trying to create an image with the same filename as the backing "
                   "file",
                   name);
        return true;
    }

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
    int flags = BDRV_O_RDWR | (eng->sparse_size > 0 ? BDRV_O_UNMAP : 0) |
                (conv->from_stdin ? BDRV_O_RESIZE : 0);
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

bool img_convert_prepare_target(Convert *conv, int64_t size)
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
