/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * commit: bring what an image holds to the backing file below it.
 *
 *  1. The image is left alone until all it holds is in the backing file, on stable
 *     storage, with that one's bitmaps.
 *  2. What is emptied after that is not lost at any moment: it reads the same from below.
 */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include "tools/img/chain.h"
#include "tools/img/common.h"
#include "tools/img/convert-engine.h"
#include "tools/tool.h"

#define WORKERS 8

static const ImgOption commit_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "cache", 't', "CACHE", "the cache mode (default: writeback)" },
    { "base", 'b', "BASE_IMG",
      "commit to this image of the backing chain, with all that lies\n"
      "between, instead of to the next one (implies --drop)" },
    { "drop", 'd', NULL, "do not empty the image afterwards" },
    { "rate", 'r', "RATE", "write at most so many bytes per second" },
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    { NULL },
};

typedef struct Commit {
    ImgArgs *args;
    const char *cache;
    const char *base; /* as the user calls it, or NULL */
    bool drop;
    int64_t rate;
    BlockBackend *blk;
    BlockDriverState *base_bs;
} Commit;

static BlockDriverState *find_base(const Commit *c)
{
    BlockDriverState *base = c->base ? img_chain_find(blk_bs(c->blk), c->base)
                                     : img_chain_next(blk_bs(c->blk));

    if (base == NULL && c->base != NULL) {
        tool_error("Did not find '%s' in the backing chain of '%s'", c->base,
                   img_operand(c->args, 0));
    } else if (base == NULL) {
        tool_error("Image does not have a backing file");
    }
    return base;
}

/* The base has to hold all that the image's disk has. */
static bool grow_base(BlockBackend *base_blk, const char *name, int64_t length, GError **errp)
{
    int64_t base_length = blk_getlength(base_blk);

    if (base_length < 0) {
        block_error_set_errno(errp, (int)base_length, "'%s': could not get the length", name);
        return false;
    }
    return base_length >= length ||
           blk_truncate(base_blk, length, false, BLOCK_PREALLOC_OFF, errp) >= 0;
}

/* Copy all that is above the base, which is open for writing. False: it has been said why. */
static bool copy_to_base(const Commit *c, BlockBackend *base_blk)
{
    const char *name = bdrv_get_filename(c->base_bs);
    ConvertSource source = { .blk = c->blk, .name = img_operand(c->args, 0),
                             .base = c->base_bs, .length = blk_getlength(c->blk) };
    ConvertEngine eng = { .sources = &source, .n_sources = 1, .target = base_blk,
                          .target_name = name, .target_has_backing = true, .backing_length = -1,
                          .unordered = true, .quiet = c->args->quiet,
                          .count_first = c->args->progress, .workers = WORKERS,
                          .sparse_size = BDRV_SECTOR_SIZE, .all_data = true, .rate = c->rate };
    GError *err = NULL;

    if (source.length < 0) {
        img_report_io_error(source.name, "could not get the length of the disk", 0,
                            (int)source.length);
        return false;
    }
    if (!grow_base(base_blk, name, source.length, &err)) {
        tool_error_report(err);
        return false;
    }
    if (convert_engine_run(&eng) < 0) {
        return false;
    }
    if (!bdrv_dirty_bitmaps_store(c->base_bs, &err)) {
        tool_error_report(err);
        return false;
    }
    return true;
}

/* The base is open for writing only as long as it is written to. */
static bool commit_to_base(const Commit *c)
{
    bool was_read_only = bdrv_is_read_only(c->base_bs), ok = false;
    g_autoptr(BlockBackend) base_blk = NULL;
    GError *err = NULL;

    if (was_read_only && !bdrv_reopen_set_read_only(c->base_bs, false, &err)) {
        tool_error_report(err);
        return false;
    }
    base_blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
                       BLK_PERM_ALL, &err);
    if (base_blk == NULL || !blk_insert_bs(base_blk, c->base_bs, &err)) {
        tool_error_report(err);
    } else {
        ok = copy_to_base(c, base_blk);
        blk_remove_bs(base_blk);
    }
    if (was_read_only && !bdrv_reopen_set_read_only(c->base_bs, true, ok ? &err : NULL) && ok) {
        tool_error_report(err);
        ok = false;
    }
    return ok;
}

static bool empty_image(const Commit *c)
{
    GError *err = NULL;
    int ret = bdrv_make_empty(blk_bs(c->blk), &err);

    if (ret == -ENOTSUP) {
        g_clear_error(&err); /* it still reads the same */
        return true;
    }
    if (ret < 0 || !bdrv_dirty_bitmaps_store(blk_bs(c->blk), &err)) {
        tool_error_take(err, "Could not empty %s: ", img_operand(c->args, 0));
        return false;
    }
    return true;
}

static int commit_image(Commit *c)
{
    int flags = BDRV_O_RDWR | BDRV_O_UNMAP;
    bool ok, writethrough = false;

    if (!img_parse_cache(c->cache, &flags, &writethrough)) {
        tool_error("Invalid cache option: %s", c->cache);
        return 1;
    }
    c->blk = img_open_operand(c->args, flags);
    if (c->blk == NULL) {
        return 1;
    }
    c->base_bs = find_base(c);
    ok = c->base_bs != NULL;
    if (ok) {
        progress_start(img_progress_mode(c->args), 1);
        ok = commit_to_base(c) && (c->drop || empty_image(c));
        if (ok) {
            progress_complete();
        }
        progress_end();
    }
    if (ok && !c->args->quiet) {
        printf("Image committed.\n");
    }
    blk_unref(c->blk);
    return ok ? 0 : 1;
}

static bool take_option(Commit *c, int letter)
{
    switch (letter) {
    case 't':
        c->cache = optarg;
        break;
    case 'b':
        c->base = optarg;
        c->drop = true;
        break;
    case 'd':
        c->drop = true;
        break;
    case 'r':
        return tool_parse_size("rate limit", optarg, 0, INT64_MAX, &c->rate);
    default:
        break;
    }
    return true;
}

static int commit_run(ImgArgs *args)
{
    Commit c = { .args = args, .cache = "writeback" };
    int letter;

    while ((letter = img_args_next(args)) > 0) {
        if (!take_option(&c, letter)) {
            return 1;
        }
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
    return commit_image(&c);
}

const ImgCommand img_commit_command = {
    .name = "commit",
    .summary = "Bring what an image holds to its backing file",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE] [-b BASE_IMG] [-d]\n"
                "[-r RATE] [--object OBJDEF] [-p] [-q] FILENAME",
    .options = commit_options,
    .operands = "FILENAME\n"
                "   the image file, or an option list",
    .run = commit_run,
};
