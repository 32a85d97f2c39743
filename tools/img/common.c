/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening images and what else the commands share; see common.h. */
#include "tools/img/common.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tools/json-print.h"
#include "tools/object.h"
#include "tools/tool.h"

static bool started;

bool img_start(void)
{
    GError *err = NULL;

    if (!started && !blockgraph_init(&err)) {
        tool_error_report(err);
        return false;
    }
    started = true;
    return tool_objects_create();
}

void img_stop(void)
{
    if (started) {
        blockgraph_cleanup();
        started = false;
    }
}

bool img_take_trace(const char *argument, int *status)
{
    g_autoptr(GPtrArray) unknown = g_ptr_array_new_with_free_func(g_free);
    const char *pattern = argument;
    GError *err = NULL;
    bool ok;

    *status = 0;
    if (g_str_has_prefix(pattern, "enable=")) {
        pattern += strlen("enable=");
    }
    if (strcmp(pattern, "help") == 0 || strcmp(pattern, "?") == 0) {
        trace_list_events(stdout);
        return false;
    }
    ok = trace_parse_option(argument, unknown, &err);
    /* An event that this version has not is no reason to do nothing. */
    for (guint i = 0; i < unknown->len; i++) {
        tool_warning("%s", (const char *)g_ptr_array_index(unknown, i));
    }
    if (!ok) {
        tool_error_report(err);
        *status = 1;
    }
    return ok;
}

bool img_parse_cache(const char *mode, int *flags, bool *writethrough)
{
    static const struct {
        const char *name;
        int flags;
        bool writethrough;
    } modes[] = {
        { "none", BDRV_O_NOCACHE, false },
        { "off", BDRV_O_NOCACHE, false },
        { "directsync", BDRV_O_NOCACHE, true },
        { "writeback", 0, false },
        { "writethrough", 0, true },
        { "unsafe", BDRV_O_NO_FLUSH, false },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (strcmp(modes[i].name, mode) == 0) {
            *flags = (*flags & ~(BDRV_O_NOCACHE | BDRV_O_NO_FLUSH)) | modes[i].flags;
            *writethrough = modes[i].writethrough;
            return true;
        }
    }
    return false;
}

static bool refuse_reference(void *opaque, const char *image, BlockReferenceKind kind,
                             const char *name, GError **errp)
{
    block_error_set(errp, EPERM, "'%s' names the %s '%s', which --untrusted does not let it open",
                    image, kind == BLOCK_REFERENCE_BACKING ? "backing file" : "data file", name);
    return false;
}

const BlockOpenPolicy *img_policy(const ImgArgs *args)
{
    static const BlockOpenPolicy nothing = { .allow = refuse_reference };

    return args->untrusted ? &nothing : &block_open_policy_follow;
}

void img_warn_if_guessed(BlockDriverState *bs)
{
    if (bdrv_was_probed(bs) && strcmp(bdrv_get_format_name(bs), "raw") == 0) {
        fprintf(stderr,
                "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
                "         Automatically detecting the format is dangerous for raw images, write "
                "operations on block 0 will be restricted.\n"
                "         Specify the 'raw' format explicitly to remove the restrictions.\n",
                bdrv_get_filename(bs));
    }
}

BlockBackend *img_open(const ImgArgs *args, const char *filename, const char *format,
                       bool image_opts, int flags)
{
    g_autoptr(JsonObject) options = NULL;
    BlockBackend *blk = NULL;
    GError *err = NULL;

    if (args->force_share) {
        flags |= BDRV_O_FORCE_SHARE;
    }
    if (image_opts) {
        options = block_options_parse(filename, "file", &err);
    } else {
        options = json_object_new();
        if (format != NULL) {
            json_object_set_string_member(options, "driver", format);
        }
    }
    if (options != NULL) {
        blk = blk_new_open(image_opts ? NULL : filename, options, flags, img_policy(args), &err);
    }
    if (blk == NULL) {
        tool_error_take(err, "Could not open '%s': ", filename);
    } else if (flags & BDRV_O_RDWR) {
        img_warn_if_guessed(blk_bs(blk));
    }
    return blk;
}

BlockBackend *img_open_operand(const ImgArgs *args, int flags)
{
    return img_open(args, img_operand(args, 0), args->format, args->image_opts, flags);
}

/* Split "snapshot.id=…,snapshot.name=…"; both may stay NULL. */
static bool parse_snapshot_options(const char *param, char **id, char **name)
{
    GError *err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(param, NULL, &err);
    g_autoptr(JsonObject) snapshot = NULL;

    if (options == NULL || !block_options_take_object(options, "snapshot", &snapshot, &err) ||
        !block_options_take_string(snapshot, "id", id, &err) ||
        !block_options_take_string(snapshot, "name", name, &err)) {
        tool_error_report(err);
    } else if (json_object_get_size(snapshot) > 0) {
        g_autoptr(GList) rest = json_object_get_members(snapshot);

        tool_error("Invalid parameter 'snapshot.%s'", (const char *)rest->data);
    } else if (json_object_get_size(options) > 0) {
        g_autoptr(GList) rest = json_object_get_members(options);

        tool_error("Invalid parameter '%s'", (const char *)rest->data);
    } else {
        return true;
    }
    tool_error("Failed in parsing snapshot param '%s'", param);
    return false;
}

bool img_load_snapshot(BlockBackend *blk, const char *param)
{
    g_autofree char *id = NULL;
    g_autofree char *name = NULL;
    GError *err = NULL;
    bool ok;

    if (g_str_has_prefix(param, "snapshot.")) {
        if (!parse_snapshot_options(param, &id, &name)) {
            return false;
        }
        ok = bdrv_snapshot_load_tmp(blk_bs(blk), id, name, &err);
    } else {
        ok = bdrv_snapshot_load_tmp_by_tag(blk_bs(blk), param, &err);
    }
    if (!ok) {
        tool_error_take(err, "Failed to load snapshot: ");
    }
    return ok;
}

void img_report_io_error(const char *filename, const char *what, int64_t offset, int ret)
{
    tool_error("%s: %s %" G_GINT64_FORMAT ": %s", filename, what, offset, g_strerror(-ret));
}

void img_print_json(JsonObject *object)
{
    JsonPrinter p;

    json_printer_init(&p, stdout);
    json_printer_object(&p, NULL, object);
    json_printer_finish(&p);
}
