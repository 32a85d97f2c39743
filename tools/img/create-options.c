/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Create options (-o): those of the format and those of the file below it
 * together, as one list for help and for checking.
 */
#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

BlockDriver *img_find_creatable(const char *prefix, const char *format, bool measure)
{
    BlockDriver *drv = bdrv_find_format(format);

    if (drv == NULL) {
        tool_error("%sUnknown file format '%s'", prefix, format);
        return NULL;
    }
    if (drv->bdrv_create == NULL && !(measure && drv->bdrv_measure != NULL)) {
        tool_error("%sFormat driver '%s' does not support image creation", prefix, format);
        return NULL;
    }
    return drv;
}

bool img_take_option_list(GPtrArray *arguments, char *text)
{
    size_t length = strlen(text), commas = 0;

    while (commas < length && text[length - 1 - commas] == ',') {
        commas++;
    }
    if (length == 0 || text[0] == ',' || commas % 2 != 0) {
        tool_error("Invalid option list: %s", text);
        return false;
    }
    g_ptr_array_add(arguments, text);
    return true;
}

bool img_options_ask_help(GPtrArray *arguments)
{
    for (guint i = 0; i < arguments->len; i++) {
        if (tool_list_asks_help(g_ptr_array_index(arguments, i))) {
            return true;
        }
    }
    return false;
}

const BlockOption *img_find_option(const BlockOption *options, const char *name)
{
    for (const BlockOption *o = options; o != NULL && o->name != NULL; o++) {
        if (strcmp(o->name, name) == 0) {
            return o;
        }
    }
    return NULL;
}

const BlockOption *img_find_create_option(BlockDriver *drv, BlockDriver *file_drv, const char *name)
{
    const BlockOption *option = img_find_option(drv->create_options, name);

    if (option == NULL && file_drv != NULL) {
        option = img_find_option(file_drv->create_options, name);
    }
    return option;
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp((*(BlockOption *const *)a)->name, (*(BlockOption *const *)b)->name);
}

static void add_new(GPtrArray *list, const BlockOption *options)
{
    for (const BlockOption *o = options; o != NULL && o->name != NULL; o++) {
        bool known = false;

        for (guint i = 0; i < list->len; i++) {
            known |= strcmp(((BlockOption *)g_ptr_array_index(list, i))->name, o->name) == 0;
        }
        if (!known) {
            g_ptr_array_add(list, (gpointer)o);
        }
    }
}

void img_print_options(const BlockOption *options, const BlockOption *more)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();

    add_new(list, options);
    add_new(list, more);
    g_ptr_array_sort(list, compare_names);
    for (guint i = 0; i < list->len; i++) {
        const BlockOption *o = g_ptr_array_index(list, i);
        bool is_bool = strcmp(o->type, "bool") == 0;
        g_autofree char *left =
            g_strdup_printf("%s=<%s%s>", o->name, o->type, is_bool ? " (on/off)" : "");

        printf("  %-22s - %s\n", left, o->help);
    }
}

void img_print_create_options(BlockDriver *drv, BlockDriver *file_drv)
{
    if (file_drv != NULL) {
        printf("Supported options:\n");
        img_print_options(drv->create_options, file_drv->create_options);
        return;
    }
    printf("Supported %s options:\n", drv->format_name);
    img_print_options(drv->create_options, NULL);
    printf("\nThe protocol level may support further options.\n"
           "Specify the target filename to include those options.\n");
}

/* Whether the values of @table's options are of their types. */
static bool values_are_typed(JsonObject *options, const BlockOption *table, GError **errp)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);
    bool ok = true;
    int64_t number;
    bool on;

    for (const BlockOption *o = table; ok && o != NULL && o->name != NULL; o++) {
        if (strcmp(o->type, "bool") == 0) {
            ok = block_options_take_bool(copy, o->name, &on, errp);
        } else if (strcmp(o->type, "size") == 0) {
            ok = block_options_take_size(copy, o->name, &number, errp);
        } else if (strcmp(o->type, "num") == 0) {
            ok = block_options_take_int(copy, o->name, &number, errp);
        }
    }
    return ok;
}

/*
 * The first key of @options that no driver has, in dotted form, or NULL.
 * Nested objects are keys with a dot: "encrypt.format".
 */
static char *find_unknown(JsonObject *options, const char *prefix, BlockDriver *drv,
                          BlockDriver *file_drv)
{
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, options);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        g_autofree char *name = g_strconcat(prefix, key, NULL);

        if (JSON_NODE_HOLDS_OBJECT(value)) {
            g_autofree char *inner = g_strconcat(name, ".", NULL);
            char *unknown = find_unknown(json_node_get_object(value), inner, drv, file_drv);

            if (unknown != NULL) {
                return unknown;
            }
        } else if (img_find_create_option(drv, file_drv, name) == NULL) {
            return g_steal_pointer(&name);
        }
    }
    return NULL;
}

JsonObject *img_create_options(const char *prefix, GPtrArray *arguments, BlockDriver *drv,
                               BlockDriver *file_drv)
{
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *unknown = NULL;
    GError *err = NULL;

    /* What comes later wins. */
    for (guint i = arguments->len; i > 0; i--) {
        g_autoptr(JsonObject) more =
            block_options_parse(g_ptr_array_index(arguments, i - 1), NULL, &err);

        if (more == NULL) {
            tool_error_take(err, "%s", prefix);
            return NULL;
        }
        block_options_merge(options, more);
    }
    if (drv->create_options != NULL) {
        unknown = find_unknown(options, "", drv, file_drv);
    }
    if (unknown != NULL) {
        tool_error("%sInvalid parameter '%s'", prefix, unknown);
        return NULL;
    }
    if (!values_are_typed(options, drv->create_options, &err) ||
        (file_drv != NULL && !values_are_typed(options, file_drv->create_options, &err))) {
        tool_error_take(err, "%s", prefix);
        return NULL;
    }
    return g_steal_pointer(&options);
}
