/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* info: what an image is, and with --backing-chain what it rests on. */
#include "tools/img/commands.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "tools/img/common.h"
#include "tools/img/info-human.h"
#include "tools/img/info-json.h"
#include "tools/tool.h"

static const ImgOption info_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "backing-chain", 'b', NULL, "tell of the backing files, too" },
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_OUTPUT,
    { NULL },
};

/*
 * A backing chain that has been walked: its images, top first, and the files it
 * has been at. Nothing is printed before all of it is known.
 */
typedef struct Chain {
    GPtrArray *images;
    GHashTable *seen;
} Chain;

/* What tells that a chain is here again: the file, or the name if it is none. */
static char *image_identity(const char *filename)
{
    struct stat st;

    if (stat(filename, &st) == 0) {
        return g_strdup_printf("%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    }
    return g_strdup(filename);
}

static BdrvImageInfo *read_info(const ImgArgs *args, const char *filename, const char *format,
                                bool image_opts)
{
    g_autoptr(BlockBackend) blk = NULL;
    BdrvImageInfo *info;
    GError *err = NULL;

    blk = img_open(args, filename, format, image_opts, BDRV_O_NO_BACKING | BDRV_O_NO_IO);
    if (blk == NULL) {
        return NULL;
    }
    info = bdrv_image_info(blk_bs(blk), &err);
    if (info == NULL) {
        tool_error_take(err, "Could not get information of '%s': ", filename);
    }
    return info;
}

/* Whether the chain may go on to this image; if not, why. */
static bool may_follow(const ImgArgs *args, Chain *chain, const char *image, const char *backing)
{
    const BlockOpenPolicy *policy = img_policy(args);
    GError *err = NULL;

    if (!policy->allow(policy->opaque, image, BLOCK_REFERENCE_BACKING, backing, &err)) {
        tool_error_report(err);
        return false;
    }
    if (chain->images->len >= BDRV_MAX_DEPTH) {
        tool_error("Backing chain of '%s' is deeper than %d", image, BDRV_MAX_DEPTH);
        return false;
    }
    if (!g_hash_table_add(chain->seen, image_identity(backing))) {
        tool_error("Backing file '%s' creates an infinite loop.", backing);
        return false;
    }
    return true;
}

/* Collect the information of the image, and with @follow of all below. */
static bool collect(const ImgArgs *args, Chain *chain, bool follow)
{
    g_autofree char *filename = g_strdup(img_operand(args, 0));
    g_autofree char *format = g_strdup(args->format);
    bool image_opts = args->image_opts;

    g_hash_table_add(chain->seen, image_identity(filename));
    for (;;) {
        BdrvImageInfo *info = read_info(args, filename, format, image_opts);

        if (info == NULL) {
            return false;
        }
        g_ptr_array_add(chain->images, info);
        if (!follow || info->full_backing_filename == NULL) {
            return true;
        }
        if (image_opts) {
            /* Now its name is known, too. */
            g_hash_table_add(chain->seen, image_identity(info->filename));
        }
        if (!may_follow(args, chain, info->filename, info->full_backing_filename)) {
            return false;
        }
        g_free(filename);
        filename = g_strdup(info->full_backing_filename);
        g_free(format);
        format = g_strdup(info->backing_format);
        image_opts = false;
    }
}

static bool print_human(const GPtrArray *images, GError **errp)
{
    for (guint i = 0; i < images->len; i++) {
        if (i > 0) {
            printf("\n");
        }
        if (!img_print_info(g_ptr_array_index(images, i), errp)) {
            return false;
        }
    }
    return true;
}

static int info_run(ImgArgs *args)
{
    g_autoptr(GPtrArray) images =
        g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_image_info_free);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    Chain chain = { .images = images, .seen = seen };
    bool backing_chain = false, ok;
    GError *err = NULL;
    int c;

    while ((c = img_args_next(args)) > 0) {
        backing_chain = backing_chain || c == 'b';
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (img_operand_count(args) != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!img_check_format_options(args) || !collect(args, &chain, backing_chain)) {
        return 1;
    }
    ok = args->json ? img_print_info_json(stdout, images, backing_chain, &err)
                    : print_human(images, &err);
    if (!ok) {
        tool_error_report(err);
    }
    return ok ? 0 : 1;
}

const ImgCommand img_info_command = {
    .name = "info",
    .summary = "Display information about image",
    .synopsis = "[-f FMT | --image-opts] [-b] [-U] [--output human|json] FILENAME",
    .options = info_options,
    .operands = "FILENAME\n   the image",
    .run = info_run,
};
