/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check: whether an image's metadata is whole, and repairing it. */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

/* Exit codes that scripts know. */
enum {
    CHECK_CLEAN = 0,
    CHECK_FAILED = 1,
    CHECK_CORRUPT = 2,
    CHECK_LEAKS = 3,
    CHECK_UNSUPPORTED = 63,
};

static const ImgOption check_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "cache", 'T', "CACHE", "the image's cache mode (default: writeback)" },
    { "repair", 'r', "leaks|all", "repair leaks only, or all that is wrong" },
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_QUIET,
    IMG_OPTION_OUTPUT,
    { NULL },
};

static void print_finding(void *opaque, const char *line)
{
    fprintf(stderr, "%s\n", line);
}

static void set_count(JsonObject *object, const char *name, int64_t value)
{
    if (value != 0) {
        json_object_set_int_member(object, name, value);
    }
}

static void print_json(const char *filename, const char *format, const BdrvCheckResult *r)
{
    g_autoptr(JsonObject) object = json_object_new();

    set_count(object, "image-end-offset", r->image_end_offset);
    set_count(object, "compressed-clusters", r->compressed_clusters);
    set_count(object, "total-clusters", r->total_clusters);
    set_count(object, "corruptions", r->corruptions);
    set_count(object, "corruptions-fixed", r->corruptions_fixed);
    json_object_set_int_member(object, "check-errors", r->check_errors);
    set_count(object, "leaks", r->leaks);
    set_count(object, "leaks-fixed", r->leaks_fixed);
    set_count(object, "allocated-clusters", r->allocated_clusters);
    json_object_set_string_member(object, "filename", filename);
    json_object_set_string_member(object, "format", format);
    set_count(object, "fragmented-clusters", r->fragmented_clusters);
    img_print_json(object);
}

static void print_problems(const BdrvCheckResult *r)
{
    if (r->corruptions == 0 && r->leaks == 0 && r->check_errors == 0) {
        printf("No errors were found on the image.\n");
    }
    if (r->corruptions != 0) {
        printf("\n%" G_GINT64_FORMAT " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               r->corruptions);
    }
    if (r->leaks != 0) {
        printf("\n%" G_GINT64_FORMAT " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    }
    if (r->check_errors != 0) {
        printf("\n%" G_GINT64_FORMAT " internal errors have occurred during the check.\n",
               r->check_errors);
    }
}

static void print_human(const BdrvCheckResult *r)
{
    print_problems(r);
    if (r->total_clusters != 0 && r->allocated_clusters != 0) {
        double allocated = (double)r->allocated_clusters;

        printf("%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT " = %0.2f%% allocated, "
               "%0.2f%% fragmented, %0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               allocated * 100.0 / (double)r->total_clusters,
               (double)r->fragmented_clusters * 100.0 / allocated,
               (double)r->compressed_clusters * 100.0 / allocated);
    }
    if (r->image_end_offset > 0) {
        printf("Image end offset: %" G_GINT64_FORMAT "\n", r->image_end_offset);
    }
}

static int exit_code(const BdrvCheckResult *r)
{
    if (r->check_errors != 0) {
        tool_error("Check failed");
        return CHECK_FAILED;
    }
    if (r->corruptions != 0) {
        return CHECK_CORRUPT;
    }
    return r->leaks != 0 ? CHECK_LEAKS : CHECK_CLEAN;
}

/* What was repaired is looked at again: @r is then of the image as it is now. */
static int repair(BlockDriverState *bs, const ImgArgs *args, int fix, BdrvCheckResult *r)
{
    int ret = bdrv_repair(bs, fix, r, print_finding, NULL);
    int64_t leaks = r->leaks_fixed, corruptions = r->corruptions_fixed;

    if (ret < 0 || (leaks == 0 && corruptions == 0)) {
        return ret;
    }
    if (!args->json && !args->quiet) {
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" G_GINT64_FORMAT " leaked clusters\n"
               "    %" G_GINT64_FORMAT " corruptions\n\n"
               "Double checking the fixed image now...\n",
               leaks, corruptions);
        fflush(stdout);
    }
    ret = bdrv_check(bs, r, print_finding, NULL);
    r->leaks_fixed = leaks;
    r->corruptions_fixed = corruptions;
    return ret;
}

static int check_image(const ImgArgs *args, int flags, int fix)
{
    const char *filename = img_operand(args, 0);
    g_autoptr(BlockBackend) blk = img_open_operand(args, flags);
    BdrvCheckResult result = { 0 };
    int ret;

    if (blk == NULL) {
        return CHECK_FAILED;
    }
    ret = fix != 0 ? repair(blk_bs(blk), args, fix, &result)
                   : bdrv_check(blk_bs(blk), &result, print_finding, NULL);
    if (ret == -ENOTSUP) {
        tool_error("This image format does not support checks");
        return CHECK_UNSUPPORTED;
    }
    if (ret < 0) {
        tool_error("%s: Check failed: %s", filename, g_strerror(-ret));
        return CHECK_FAILED;
    }
    if (args->json) {
        print_json(filename, bdrv_get_format_name(blk_bs(blk)), &result);
    } else if (!args->quiet) {
        print_human(&result);
    }
    return exit_code(&result);
}

static int check_run(ImgArgs *args)
{
    int flags = BDRV_O_CHECK | BDRV_O_NO_BACKING;
    const char *cache = "writeback";
    bool writethrough;
    int fix = 0;
    int c;

    while ((c = img_args_next(args)) > 0) {
        if (c == 'T') {
            cache = optarg;
        } else if (strcmp(optarg, "leaks") == 0) {
            fix = BDRV_FIX_LEAKS;
        } else if (strcmp(optarg, "all") == 0) {
            fix = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
        } else {
            return img_usage_error(args, "--repair (-r) expects 'leaks' or 'all' not '%s'",
                                   optarg);
        }
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (img_operand_count(args) != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!img_check_format_options(args)) {
        return CHECK_FAILED;
    }
    if (!img_parse_cache(cache, &flags, &writethrough)) {
        tool_error("Invalid source cache option: %s", cache);
        return CHECK_FAILED;
    }
    return check_image(args, fix != 0 ? flags | BDRV_O_RDWR : flags, fix);
}

const ImgCommand img_check_command = {
    .name = "check",
    .summary = "Check basic image integrity",
    .synopsis = "[-f FMT | --image-opts] [-T CACHE] [-r leaks|all] [-q] [-U]\n"
                "[--output human|json] FILENAME",
    .options = check_options,
    .operands = "FILENAME\n   the image",
    .run = check_run,
};
