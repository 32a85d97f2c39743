/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* amend: change what an image was created with. */
#include "tools/img/commands.h"

#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

enum {
    AMEND_OPT_FORCE = 512,
};

static const ImgOption amend_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "options", 'o', "OPTIONS", "what is to change; \"help\" lists what can" },
    { "cache", 't', "CACHE", "the cache mode (default: writeback)" },
    { "force", AMEND_OPT_FORCE, NULL, "allow what is unsafe for encrypted images" },
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    { NULL },
};

typedef struct Amend {
    ImgArgs *args;
    const char *cache;
    GPtrArray *options;
    double done; /* percent */
} Amend;

/* ---- The options --------------------------------------------------------------------- */

static bool refuse_format(const BlockDriver *drv)
{
    if (drv->bdrv_co_amend == NULL) {
        tool_error("Format driver '%s' does not support option amendment", drv->format_name);
    }
    return drv->bdrv_co_amend == NULL;
}

static int print_options(const BlockDriver *drv)
{
    if (refuse_format(drv)) {
        return 1;
    }
    printf("Amend options for '%s':\n", drv->format_name);
    img_print_options(drv->amend_options, NULL);
    return 0;
}

/* Whether the driver has all the options, which are named with a dot where they are nested. */
static bool check_names(const BlockDriver *drv, JsonObject *options, const char *prefix)
{
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;
    bool ok = true;

    json_object_iter_init_ordered(&iter, options);
    while (ok && json_object_iter_next_ordered(&iter, &key, &value)) {
        g_autofree char *name = g_strconcat(prefix, key, NULL);

        if (JSON_NODE_HOLDS_OBJECT(value)) {
            g_autofree char *inner = g_strconcat(name, ".", NULL);

            ok = check_names(drv, json_node_get_object(value), inner);
        } else if (img_find_option(drv->amend_options, name) == NULL) {
            tool_error("Invalid parameter '%s'", name);
            if (img_find_option(drv->create_options, name) != NULL) {
                fprintf(stderr, "This option is only supported for image creation\n");
            }
            ok = false;
        }
    }
    return ok;
}

/* What -o said, all together; what comes later wins. */
static JsonObject *parse_options(const Amend *a, const BlockDriver *drv)
{
    g_autoptr(JsonObject) options = json_object_new();
    GError *err = NULL;

    for (guint i = a->options->len; i > 0; i--) {
        const char *text = g_ptr_array_index(a->options, i - 1);
        g_autoptr(JsonObject) more = block_options_parse(text, NULL, &err);

        if (more == NULL) {
            tool_error_report(err);
            return NULL;
        }
        block_options_merge(options, more);
    }
    return check_names(drv, options, "") ? g_steal_pointer(&options) : NULL;
}

/* ---- The command ----------------------------------------------------------------- */

static void report_progress(void *opaque, int64_t done, int64_t total)
{
    Amend *a = opaque;
    double percent = total > 0 ? 100.0 * done / total : 0;

    progress_add(percent - a->done);
    a->done = percent;
}

static int amend_image(Amend *a)
{
    g_autoptr(BlockBackend) blk = NULL;
    g_autoptr(JsonObject) options = NULL;
    GError *err = NULL;
    BlockDriver *drv;
    bool ok, writethrough = false;
    int flags = 0;

    if (!img_parse_cache(a->cache, &flags, &writethrough)) {
        tool_error("Invalid cache option: %s", a->cache);
        return 1;
    }
    blk = img_open_operand(a->args, flags | BDRV_O_RDWR | BDRV_O_RESIZE);
    if (blk == NULL) {
        return 1;
    }
    drv = bdrv_find_format(bdrv_get_format_name(blk_bs(blk)));
    if (img_options_ask_help(a->options)) {
        return print_options(drv);
    }
    if (refuse_format(drv)) {
        return 1;
    }
    options = parse_options(a, drv);
    if (options == NULL) {
        return 1;
    }
    progress_start(img_progress_mode(a->args), 1);
    ok = bdrv_amend(blk_bs(blk), options, report_progress, a, &err) &&
         bdrv_dirty_bitmaps_store(blk_bs(blk), &err);
    if (ok) {
        progress_complete();
    }
    progress_end();
    if (!ok) {
        tool_error_report(err);
    }
    return ok ? 0 : 1;
}

/* "-f FMT -o help": no image is needed. */
static int help_for_format(const char *format)
{
    BlockDriver *drv = bdrv_find_format(format);

    if (drv == NULL) {
        tool_error("Unknown file format '%s'", format);
        return 1;
    }
    return print_options(drv);
}

static int run(Amend *a)
{
    ImgArgs *args = a->args;
    int letter;

    while ((letter = img_args_next(args)) > 0) {
        if (letter == 'o' && !img_take_option_list(a->options, optarg)) {
            return 1;
        }
        if (letter == 't') {
            a->cache = optarg;
        }
    }
    if (letter == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    if (a->options->len == 0) {
        return img_usage_error(args, "Must specify options (-o)");
    }
    if (args->format != NULL && img_options_ask_help(a->options)) {
        return help_for_format(args->format);
    }
    if (img_operand_count(args) != 1) {
        tool_error("Expecting one image file name");
        return 1;
    }
    return amend_image(a);
}

static int amend_run(ImgArgs *args)
{
    g_autoptr(GPtrArray) options = g_ptr_array_new();
    Amend a = { .args = args, .cache = "writeback", .options = options };

    return run(&a);
}

const ImgCommand img_amend_command = {
    .name = "amend",
    .summary = "Change what an image was created with",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE] [--force] [-p] [-q]\n"
                "[--object OBJDEF] -o OPTIONS FILENAME",
    .options = amend_options,
    .operands = "FILENAME\n"
                "   the image file, or an option list",
    .run = amend_run,
};
