/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* create: make a new image. */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/img/convert-target.h"
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
    bool backing_unsafe;
    int64_t size; /* the operand, or -1 */
    GPtrArray *options;
    BlockDriver *drv;
    BlockDriver *file_drv;
} Create;

/* ---- What is made, in one line -------------------------------------------------- */

/* The value of "name", or of "outer.inner" in a nested object; or NULL. */
static JsonNode *option_value(JsonObject *options, const char *name)
{
    const char *dot = strchr(name, '.');
    g_autofree char *outer = dot != NULL ? g_strndup(name, dot - name) : NULL;
    JsonNode *node;

    if (dot == NULL) {
        return json_object_get_member(options, name);
    }
    node = json_object_get_member(options, outer);
    return node != NULL && JSON_NODE_HOLDS_OBJECT(node)
               ? option_value(json_node_get_object(node), dot + 1)
               : NULL;
}

/* A value as option lists have it: commas doubled. */
static char *escaped(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    return g_strjoinv(",,", parts);
}

/* Text of one option as "name=value", in the way that its type is written. */
static char *option_text(const BlockOption *option, JsonNode *node)
{
    g_autoptr(JsonObject) value = json_object_new();
    g_autofree char *text = NULL;
    g_autofree char *shown = NULL;
    int64_t bytes = 0;
    bool on = false;

    json_object_set_member(value, "value", json_node_copy(node));
    if (strcmp(option->type, "size") == 0 &&
        block_options_take_size(value, "value", &bytes, NULL)) {
        return g_strdup_printf(" %s=%" G_GINT64_FORMAT, option->name, bytes);
    }
    if (strcmp(option->type, "bool") == 0 && block_options_take_bool(value, "value", &on, NULL)) {
        return g_strdup_printf(" %s=%s", option->name, on ? "on" : "off");
    }
    block_options_take_string(value, "value", &text, NULL);
    shown = escaped(text != NULL ? text : "");
    return g_strdup_printf(" %s=%s", option->name, shown);
}

/* Append those of the table's options that have a value and are not yet told. */
static void append_options(GString *text, const BlockOption *table, JsonObject *options,
                           GHashTable *told)
{
    for (const BlockOption *o = table; o != NULL && o->name != NULL; o++) {
        JsonNode *node = option_value(options, o->name);

        if ((node == NULL && o->default_value == NULL) ||
            !g_hash_table_add(told, (gpointer)o->name)) {
            continue;
        }
        if (node != NULL) {
            g_autofree char *one = option_text(o, node);

            g_string_append(text, one);
        } else {
            g_string_append_printf(text, " %s=%s", o->name, o->default_value);
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

/* ---- Size and backing file -------------------------------------------------------- */

/* Put the size operand into the options; it may not be there, too. */
static bool add_size_operand(const Create *create, JsonObject *options)
{
    if (create->size < 0) {
        return true;
    }
    if (json_object_has_member(options, "size")) {
        tool_error("%s: The image size must be specified only once", create->filename);
        return false;
    }
    json_object_set_int_member(options, "size", create->size);
    return true;
}

/* -b and -F are options, too; they win over -o. */
static bool add_backing(const Create *create, JsonObject *options)
{
    if ((create->backing != NULL || create->backing_format != NULL) &&
        !create->drv->supports_backing) {
        tool_error("%s: Backing file %snot supported for file format '%s'", create->filename,
                   create->backing == NULL ? "format " : "", create->format);
        return false;
    }
    if (create->backing != NULL) {
        json_object_set_string_member(options, "backing_file", create->backing);
    }
    if (create->backing_format != NULL) {
        json_object_set_string_member(options, "backing_fmt", create->backing_format);
    }
    return true;
}

/*
 * Open the backing file, to see that it is there, and for its format and length, which a
 * machine that runs on it does not change.
 */
static BlockDriverState *open_backing(const Create *create, const char *backing,
                                      const char *format)
{
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *name = NULL;
    BlockDriverState *bs = NULL;
    GError *err = NULL;

    if (format != NULL) {
        json_object_set_string_member(options, "driver", format);
    }
    name = bdrv_combine_filename(create->filename, backing, &err);
    if (name != NULL) {
        bs = bdrv_open(name, options, BDRV_O_FORCE_SHARE, img_policy(create->args), &err);
    }
    if (bs == NULL) {
        tool_error_take(err, "%s: ", create->filename);
        if (name != NULL) {
            fprintf(stderr, "Could not open backing image.\n");
        }
    }
    return bs;
}

static bool take_backing_length(const Create *create, const char *backing, const char *format,
                                JsonObject *options)
{
    BlockDriverState *bs = open_backing(create, backing, format);
    bool ok = bs != NULL && format != NULL;

    if (bs != NULL && format == NULL) {
        tool_error("%s: Backing file specified without backing format", create->filename);
        fprintf(stderr, "Detected format of %s.\n", bdrv_get_format_name(bs));
    }
    if (ok && !json_object_has_member(options, "size")) {
        json_object_set_int_member(options, "size", bdrv_getlength(bs));
    }
    bdrv_unref(bs);
    return ok;
}

/* Check the backing file that the options name, if they do. */
static bool check_backing(const Create *create, JsonObject *options)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);
    g_autofree char *backing = NULL;
    g_autofree char *format = NULL;

    block_options_take_string(copy, "backing_file", &backing, NULL);
    block_options_take_string(copy, "backing_fmt", &format, NULL);
    if (backing == NULL) {
        return true;
    }
    if (backing[0] == '\0') {
        tool_error("%s: Expected backing file name, got empty string", create->filename);
        return false;
    }
    if (strcmp(backing, create->filename) == 0 ||
        img_is_own_backing(create->filename, backing)) {
        tool_error("%s: Error: Trying to create an image with the same filename as the backing "
                   "file",
                   create->filename);
        return false;
    }
    if (!create->backing_unsafe) {
        return take_backing_length(create, backing, format, options);
    }
    if (format == NULL) {
        tool_error("%s: Backing file specified without backing format", create->filename);
    }
    return format != NULL;
}

static bool check_has_size(const Create *create, JsonObject *options)
{
    if (!json_object_has_member(options, "size")) {
        tool_error("%s: Image creation needs a size parameter", create->filename);
        return false;
    }
    return true;
}

/* ---- The image ------------------------------------------------------------------------ */

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
    if (options == NULL || !add_size_operand(create, options) || !add_backing(create, options) ||
        !check_backing(create, options) || !check_has_size(create, options)) {
        return 1;
    }
    if (!create->args->quiet) {
        print_what_is_made(create, options);
    }
    if (!bdrv_create(create->drv, create->filename, options, &err)) {
        if (g_error_matches(err, BLOCK_ERROR, EFBIG)) {
            tool_error("%sThe image size is too large for file format '%s'%s", prefix,
                       create->format,
                       img_find_create_option(create->drv, NULL, "cluster_size") != NULL
                           ? " (try using a larger cluster size)"
                           : "");
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
    Create create = { .args = args, .options = options, .size = -1 };
    int c;

    while ((c = img_args_next(args)) > 0) {
        if (c == 'o' && !img_take_option_list(options, optarg)) {
            return 1;
        }
        if (c == 'b') {
            create.backing = optarg;
        } else if (c == 'F') {
            create.backing_format = optarg;
        } else if (c == 'u') {
            create.backing_unsafe = true;
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
    if (img_operand_count(args) == 2 &&
        !tool_parse_size("image size", img_operand(args, 1), 0, INT64_MAX, &create.size)) {
        return 1;
    }
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
