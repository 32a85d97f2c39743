/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* create: make a new image. */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

static const ImgOption create_options[] = {
    { "format", 'f', "FMT", "the image's format (default: raw)" },
    { "options", 'o', "OPTIONS", "create options of the format; \"help\" lists them" },
    { "backing", 'b', "FILENAME", "the new image's backing file, if its format can have one" },
    { "backing-format", 'F', "FMT", "the backing file's format" },
    { "backing-unsafe", 'u', NULL, "do not open the backing file" },
    IMG_OPTION_QUIET,
    { NULL },
};

typedef struct Create {
    ImgArgs *args;
    const char *format;
    const char *filename;
    const char *backing;
    const char *backing_format;
    GPtrArray *options;
    BlockDriver *drv;
    BlockDriver *file_drv;
} Create;

/* Text of one option as "name=value", in the way that its type is written. */
static char *option_text(const BlockOption *option, JsonObject *options)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);
    g_autofree char *text = NULL;
    int64_t bytes = 0;
    bool on = false;

    if (strcmp(option->type, "size") == 0 &&
        block_options_take_size(copy, option->name, &bytes, NULL)) {
        return g_strdup_printf(" %s=%" G_GINT64_FORMAT, option->name, bytes);
    }
    if (strcmp(option->type, "bool") == 0 &&
        block_options_take_bool(copy, option->name, &on, NULL)) {
        return g_strdup_printf(" %s=%s", option->name, on ? "on" : "off");
    }
    block_options_take_string(copy, option->name, &text, NULL);
    return g_strdup_printf(" %s=%s", option->name, text != NULL ? text : "");
}

/* Append those of the table's options that are given and not yet told. */
static void append_options(GString *text, const BlockOption *table, JsonObject *options,
                           GHashTable *told)
{
    for (const BlockOption *o = table; o != NULL && o->name != NULL; o++) {
        if (json_object_has_member(options, o->name) && g_hash_table_add(told, (gpointer)o->name)) {
            g_autofree char *one = option_text(o, options);

            g_string_append(text, one);
        }
    }
}

static void print_what_is_made(const Create *create, JsonObject *options)
{
    g_autoptr(GHashTable) told = g_hash_table_new(g_str_hash, g_str_equal);
    GString *text = g_string_new(NULL);

    append_options(text, create->drv->create_options, options, told);
    append_options(text, create->file_drv->create_options, options, told);
    printf("Formatting '%s', fmt=%s%s\n", create->filename, create->format, text->str);
    g_string_free(text, TRUE);
}

/* Put the size operand into the options; it must be given exactly once. */
static bool add_size(const Create *create, JsonObject *options)
{
    g_autoptr(JsonObject) copy = NULL;
    GError *err = NULL;
    int64_t size = -1;

    if (img_operand_count(create->args) == 2) {
        if (json_object_has_member(options, "size")) {
            tool_error("%s: The image size must be specified only once", create->filename);
            return false;
        }
        if (!tool_parse_size("image size", img_operand(create->args, 1), 0, INT64_MAX, &size)) {
            return false;
        }
        json_object_set_int_member(options, "size", size);
        return true;
    }
    copy = block_options_copy(options);
    if (!block_options_take_size(copy, "size", &size, &err)) {
        tool_error_take(err, "%s: ", create->filename);
        return false;
    }
    if (size < 0) {
        tool_error("%s: Image creation needs a size parameter", create->filename);
        return false;
    }
    json_object_set_int_member(options, "size", size);
    return true;
}

static bool check_backing(const Create *create)
{
    if (create->drv->supports_backing ||
        (create->backing == NULL && create->backing_format == NULL)) {
        return true;
    }
    tool_error("%s: Backing file %snot supported for file format '%s'", create->filename,
               create->backing == NULL ? "format " : "", create->format);
    return false;
}

static bool find_drivers(Create *create)
{
    g_autofree char *prefix = g_strconcat(create->filename, ": ", NULL);
    GError *err = NULL;

    create->drv = img_find_creatable(prefix, create->format, false);
    if (create->drv == NULL) {
        return false;
    }
    create->file_drv = bdrv_find_protocol(create->filename, &err);
    if (create->file_drv == NULL) {
        tool_error_take(err, "%s", prefix);
        return false;
    }
    if (create->file_drv->bdrv_create == NULL) {
        tool_error("%sProtocol driver '%s' does not support image creation", prefix,
                   create->file_drv->format_name);
        return false;
    }
    return true;
}

static int create_image(Create *create)
{
    g_autofree char *prefix = g_strconcat(create->filename, ": ", NULL);
    g_autoptr(JsonObject) options = NULL;
    GError *err = NULL;

    if (!find_drivers(create)) {
        return 1;
    }
    options = img_create_options(prefix, create->options, create->drv, create->file_drv);
    if (options == NULL || !check_backing(create) || !add_size(create, options)) {
        return 1;
    }
    if (!create->args->quiet) {
        print_what_is_made(create, options);
    }
    if (!bdrv_create(create->drv, create->filename, options, &err)) {
        if (g_error_matches(err, BLOCK_ERROR, EFBIG)) {
            tool_error("%sThe image size is too large for file format '%s'", prefix,
                       create->format);
            g_error_free(err);
        } else {
            tool_error_take(err, "%s", prefix);
        }
        return 1;
    }
    return 0;
}

static int print_help(const Create *create)
{
    BlockDriver *drv = img_find_creatable("", create->format, false);
    BlockDriver *file_drv = NULL;
    GError *err = NULL;

    if (drv == NULL) {
        return 1;
    }
    if (img_operand_count(create->args) > 0) {
        file_drv = bdrv_find_protocol(img_operand(create->args, 0), &err);
        if (file_drv == NULL) {
            tool_error_report(err);
            return 1;
        }
    }
    img_print_create_options(drv, file_drv);
    return 0;
}

static int create_run(ImgArgs *args)
{
    g_autoptr(GPtrArray) options = g_ptr_array_new();
    Create create = { .args = args, .options = options };
    int c;

    while ((c = img_args_next(args)) > 0) {
        if (c == 'o') {
            g_ptr_array_add(options, optarg);
        } else if (c == 'b') {
            create.backing = optarg;
        } else if (c == 'F') {
            create.backing_format = optarg;
        }
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    create.format = args->format != NULL ? args->format : "raw";
    if (img_options_ask_help(options)) {
        return print_help(&create);
    }
    if (img_operand_count(args) < 1) {
        return img_usage_error(args, "Expecting image file name");
    }
    if (img_operand_count(args) > 2) {
        return img_usage_error(args, "Unexpected argument: %s", img_operand(args, 2));
    }
    create.filename = img_operand(args, 0);
    return create_image(&create);
}

const ImgCommand img_create_command = {
    .name = "create",
    .summary = "Create and format new image file",
    .synopsis = "[-f FMT] [-o OPTIONS] [-b FILENAME [-F FMT]] [-u] [-q] FILENAME [SIZE]",
    .options = create_options,
    .operands = "FILENAME\n   the image; what is there is overwritten\n"
                "SIZE\n   the disk's size in bytes, or with a suffix k, M, G, T, P or E",
    .run = create_run,
};
