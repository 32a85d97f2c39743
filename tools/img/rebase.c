/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rebase: another backing file for an image, which reads the same after that; with -u
 * only another reference.
 *
 * All that the image has to hold itself is in it, on stable storage, before its header
 * names the new one.
 */
#include "tools/img/commands.h"

#include <errno.h>
#include <string.h>
#include "tools/img/chain.h"
#include "tools/img/common.h"
#include "tools/img/rebase-copy.h"
#include "tools/tool.h"

static const ImgOption rebase_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "cache", 't', "CACHE", "the image's cache mode (default: writeback)" },
    { "backing", 'b', "BACKING_FILENAME", "the new backing file; \"\" or none: without one" },
    { "backing-format", 'F', "BACKING_FMT", "its format" },
    { "backing-cache", 'T', "CACHE", "its cache mode (default: writeback)" },
    { "backing-unsafe", 'u', NULL,
      "change the name only; neither backing file is opened, and\n"
      "what the image reads as may change" },
    { "compress", 'c', NULL, "store compressed what is brought to the image" },
    { "force-share", 'U', NULL,
      "open the new backing file also if others have it open for\nwriting" },
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    { NULL },
};

typedef struct Rebase {
    ImgArgs *args;
    const char *cache;
    const char *backing_cache;
    const char *backing; /* NULL or "": none */
    const char *backing_format;
    bool unsafe;
    bool compressed;
    bool force_share; /* -U: for the new backing file; the image is written to */
    BlockBackend *blk;
    BlockBackend *new_blk; /* NULL: there will be none */
    bool writethrough;
} Rebase;

static bool names_backing(const Rebase *r)
{
    return r->backing != NULL && r->backing[0] != '\0';
}

static bool report_no_change(const Rebase *r, const char *reason)
{
    tool_error("Could not change the backing file to '%s': %s",
               r->backing != NULL ? r->backing : "(null)", reason);
    return false;
}

/* ---- Opening ---------------------------------------------------------------------------- */

/* The image itself, below filters that were put above it. */
static BlockDriverState *image_node(const Rebase *r)
{
    BlockDriverState *bs;

    bdrv_graph_rdlock_main_loop();
    bs = bdrv_skip_filters(blk_bs(r->blk));
    bdrv_graph_rdunlock_main_loop();
    return bs;
}

static bool check_formats(const Rebase *r)
{
    BlockDriver *drv = bdrv_find_format(bdrv_get_format_name(image_node(r)));

    if (r->compressed && drv->bdrv_encode == NULL) {
        tool_error("Compression not supported for this file format");
        return false;
    }
    if (r->backing_format != NULL && bdrv_find_format(r->backing_format) == NULL) {
        tool_error("Invalid format name: '%s'", r->backing_format);
        return false;
    }
    return true;
}

/* Whether the header can name it at all: better known before all is copied. */
static bool check_reference(const Rebase *r)
{
    BlockDriver *drv = bdrv_find_format(bdrv_get_format_name(image_node(r)));

    if (names_backing(r) && r->backing_format == NULL) {
        return report_no_change(r, "backing format must be specified");
    }
    return drv->bdrv_change_backing_file != NULL || report_no_change(r, g_strerror(ENOTSUP));
}

/* Open the file that the image will refer to as r->backing. */
static bool open_new_backing(Rebase *r, int flags)
{
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *name = NULL;
    GError *err = NULL;

    name = bdrv_combine_filename(bdrv_get_filename(image_node(r)), r->backing, &err);
    if (name == NULL) {
        tool_error_take(err, "Could not resolve backing filename: ");
        return false;
    }
    if (r->backing_format != NULL) {
        json_object_set_string_member(options, "driver", r->backing_format);
    }
    if (r->force_share) {
        flags |= BDRV_O_FORCE_SHARE;
    }
    r->new_blk = blk_new_open(name, options, flags, img_policy(r->args), &err);
    if (r->new_blk == NULL) {
        tool_error_take(err, "Could not open new backing file '%s': ", r->backing);
        return false;
    }
    if (img_chain_has_file(blk_bs(r->new_blk), image_node(r))) {
        return report_no_change(r, "the image would be its own backing file");
    }
    return true;
}

/* ---- Doing it --------------------------------------------------------------------------- */

static bool copy_differences(const Rebase *r)
{
    RebaseCopy copy = {
        .blk = r->blk,
        .name = img_operand(r->args, 0),
        .backing = r->new_blk,
        .backing_name = r->backing,
        .shared = r->new_blk ? img_chain_find_same(image_node(r), blk_bs(r->new_blk)) : NULL,
        .compressed = r->compressed,
        .write_flags = r->writethrough ? BDRV_REQ_FUA : 0,
    };

    return rebase_copy_run(&copy) >= 0;
}

static bool change_reference(const Rebase *r)
{
    bool named = names_backing(r);
    GError *err = NULL;

    if (!bdrv_change_backing_file(image_node(r), named ? r->backing : NULL,
                                  named ? r->backing_format : NULL, &err)) {
        if (g_error_matches(err, BLOCK_ERROR, EINVAL)) { /* QEMU says no more */
            report_no_change(r, g_strerror(EINVAL));
            g_error_free(err);
        } else {
            tool_error_take(err, "Could not change the backing file to '%s': ",
                            r->backing != NULL ? r->backing : "(null)");
        }
        return false;
    }
    if (!bdrv_dirty_bitmaps_store(image_node(r), &err)) {
        tool_error_report(err);
        return false;
    }
    return true;
}

static bool rebase_opened(Rebase *r, int backing_flags)
{
    bool ok;

    if (!check_formats(r) ||
        (!r->unsafe && names_backing(r) && !open_new_backing(r, backing_flags)) ||
        !check_reference(r)) {
        return false;
    }
    progress_start(img_progress_mode(r->args), 1);
    ok = (r->unsafe || copy_differences(r)) && change_reference(r);
    if (ok) {
        progress_complete();
    }
    progress_end();
    return ok;
}

static int rebase_image(Rebase *r)
{
    int flags = BDRV_O_RDWR | BDRV_O_UNMAP | (r->unsafe ? BDRV_O_NO_BACKING : 0);
    int backing_flags = 0;
    bool ok, ignored;

    if (!img_parse_cache(r->cache, &flags, &r->writethrough)) {
        tool_error("Invalid cache option: %s", r->cache);
        return 1;
    }
    if (!img_parse_cache(r->backing_cache, &backing_flags, &ignored)) {
        tool_error("Invalid source cache option: %s", r->backing_cache);
        return 1;
    }
    r->force_share = r->args->force_share;
    r->args->force_share = false;
    r->blk = img_open_operand(r->args, flags);
    ok = r->blk != NULL && rebase_opened(r, backing_flags);
    blk_unref(r->new_blk);
    blk_unref(r->blk);
    return ok ? 0 : 1;
}

/* ---- The command ------------------------------------------------------------------------ */

static void take_option(Rebase *r, int letter)
{
    switch (letter) {
    case 't':
        r->cache = optarg;
        break;
    case 'T':
        r->backing_cache = optarg;
        break;
    case 'b':
        r->backing = optarg;
        break;
    case 'F':
        r->backing_format = optarg;
        break;
    case 'u':
        r->unsafe = true;
        break;
    case 'c':
        r->compressed = true;
        break;
    default:
        break;
    }
}

static int rebase_run(ImgArgs *args)
{
    Rebase r = { .args = args, .cache = "writeback", .backing_cache = "writeback" };
    int letter;

    while ((letter = img_args_next(args)) > 0) {
        take_option(&r, letter);
    }
    if (letter == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    if (img_operand_count(args) != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!r.unsafe && r.backing == NULL) {
        return img_usage_error(args, "Must specify backing file (-b) or use unsafe mode (-u)");
    }
    return rebase_image(&r);
}

const ImgCommand img_rebase_command = {
    .name = "rebase",
    .summary = "Give an image another backing file",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE] [-q] [-U] [-p]\n"
                "[-b BACKING_FILENAME [-F BACKING_FMT] [-T CACHE]] [-u]\n"
                "[--object OBJDEF] [-c] FILENAME",
    .options = rebase_options,
    .operands = "FILENAME\n"
                "   the image file, or an option list",
    .run = rebase_run,
};
