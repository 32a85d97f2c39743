/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects that users define with --object. They are checked where they stand on the command
 * line, as QEMU's tools do, but the library is set up only when all of it has been read.
 */
#include "tools/object.h"

#include <stdio.h>
#include <string.h>
#include "blockgraph/blockgraph.h"
#include "tools/tool.h"

#define BASE64_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n"

/* By id: the ThrottleConfig of a throttle group, or NULL for another type. */
static GHashTable *objects;

/* ---- Help ------------------------------------------------------------------------------ */

static const char *const secret_properties[] = {
    "data=<string>", "file=<string>", "format=<QCryptoSecretFormat>", "iv=<string>",
    "keyid=<string>", NULL,
};

static const char *const throttle_group_properties[] = {
    "limits=<ThrottleLimits>",
    "x-bps-read-max-length=<int>", "x-bps-read-max=<int>", "x-bps-read=<int>",
    "x-bps-total-max-length=<int>", "x-bps-total-max=<int>", "x-bps-total=<int>",
    "x-bps-write-max-length=<int>", "x-bps-write-max=<int>", "x-bps-write=<int>",
    "x-iops-read-max-length=<int>", "x-iops-read-max=<int>", "x-iops-read=<int>",
    "x-iops-size=<int>",
    "x-iops-total-max-length=<int>", "x-iops-total-max=<int>", "x-iops-total=<int>",
    "x-iops-write-max-length=<int>", "x-iops-write-max=<int>", "x-iops-write=<int>", NULL,
};

static const struct {
    const char *type;
    const char *const *properties;
} object_types[] = {
    {"secret", secret_properties},
    {"throttle-group", throttle_group_properties},
};

/* What there is, or if @definition begins with a type, what that one has. */
static void print_help(const char *definition)
{
    const char *start = g_str_has_prefix(definition, "qom-type=")
                            ? definition + strlen("qom-type=")
                            : definition;
    g_autofree char *type = g_strndup(start, strcspn(start, ","));

    for (size_t i = 0; i < G_N_ELEMENTS(object_types); i++) {
        if (strcmp(object_types[i].type, type) == 0) {
            printf("%s options:\n", type);
            for (const char *const *p = object_types[i].properties; *p; p++) {
                printf("  %s\n", *p);
            }
            return;
        }
    }
    printf("List of user creatable objects:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(object_types); i++) {
        printf("  %s\n", object_types[i].type);
    }
}

/* ---- Definitions ---------------------------------------------------------------------------- */

static bool id_is_well_formed(const char *id)
{
    for (const char *p = id; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("-._", *p)) {
            return false;
        }
    }
    return g_ascii_isalpha(*id);
}

/* The member @key in a new string; NULL, which is reported, if it is missing or no string. */
static char *take_required(JsonObject *object, const char *key)
{
    char *value = NULL;

    if (!json_object_has_member(object, key)) {
        tool_error("Parameter '%s' is missing", key);
    } else if (!block_options_take_string(object, key, &value, NULL)) {
        tool_error("Invalid parameter type for '%s', expected: string", key);
    }
    return value;
}

/* Nothing may be left of @object. */
static bool check_nothing_left(JsonObject *object)
{
    g_autoptr(GList) rest = json_object_get_members(object);

    if (rest != NULL) {
        tool_error("Parameter '%s' is unexpected", (const char *)rest->data);
    }
    return rest == NULL;
}

/* Nothing is encrypted here that the secret could open: it is looked at, and not kept. */
static bool check_secret_data(const char *data, const char *file, bool base64)
{
    g_autofree char *content = NULL;
    GError *err = NULL;

    if ((data != NULL) == (file != NULL)) {
        tool_error(data != NULL ? "'file' and 'data' are mutually exclusive"
                                : "Either 'file' or 'data' must be provided");
        return false;
    }
    if (file != NULL && !g_file_get_contents(file, &content, NULL, &err)) {
        tool_error_take(err, "Unable to read %s: ", file);
        return false;
    }
    data = file != NULL ? content : data;
    if (base64 && data[strspn(data, BASE64_CHARS)] != '\0') {
        tool_error("Base64 data contains invalid characters");
        return false;
    }
    return true;
}

static bool check_secret(JsonObject *object)
{
    static const char *const formats[] = { "raw", "base64", NULL };
    g_autofree char *data = NULL;
    g_autofree char *file = NULL;
    g_autofree char *iv = NULL;
    g_autofree char *keyid = NULL;
    GError *err = NULL;
    int format = 0;

    if (!block_options_take_string(object, "data", &data, &err) ||
        !block_options_take_string(object, "file", &file, &err) ||
        !block_options_take_string(object, "iv", &iv, &err) ||
        !block_options_take_string(object, "keyid", &keyid, &err) ||
        !block_options_take_enum(object, "format", formats, &format, &err)) {
        tool_error_report(err);
        return false;
    }
    if (!check_nothing_left(object) || !check_secret_data(data, file, format == 1)) {
        return false;
    }
    if (keyid != NULL && (objects == NULL || !g_hash_table_contains(objects, keyid))) {
        tool_error("No secret with id '%s'", keyid);
        return false;
    }
    return true;
}

/* The limits in @object, in new memory; NULL if something is wrong, which is reported. */
static ThrottleConfig *take_throttle_config(JsonObject *object)
{
    g_autofree ThrottleConfig *config = g_new(ThrottleConfig, 1);
    GError *err = NULL;

    throttle_config_init(config);
    if (!throttle_config_take(config, object, &err)) {
        tool_error_report(err);
        return NULL;
    }
    if (!check_nothing_left(object)) {
        return NULL;
    }
    if (!throttle_config_check(config, &err)) {
        tool_error_report(err);
        return NULL;
    }
    return g_steal_pointer(&config);
}

/* Check and note it; false if something is wrong, which is reported. */
static bool define(JsonObject *object)
{
    g_autofree char *type = take_required(object, "qom-type");
    g_autofree char *id = NULL;
    g_autofree ThrottleConfig *config = NULL;

    if (!type) {
        return false;
    }
    if (strcmp(type, "secret") != 0 && strcmp(type, "throttle-group") != 0) {
        tool_error("Parameter 'qom-type' does not accept value '%s'", type);
        return false;
    }
    id = take_required(object, "id");
    if (!id) {
        return false;
    }
    if (strcmp(type, "throttle-group") == 0) {
        config = take_throttle_config(object);
        if (!config) {
            return false;
        }
    } else if (!check_secret(object)) {
        return false;
    }
    if (!id_is_well_formed(id)) {
        tool_error("Parameter 'id' expects an identifier\nIdentifiers consist of letters, digits, "
                   "'-', '.', '_', starting with a letter.");
        return false;
    }
    if (!objects) {
        objects = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    }
    if (g_hash_table_contains(objects, id)) {
        tool_error("attempt to add duplicate property '%s' to object (type 'container')", id);
        return false;
    }
    g_hash_table_insert(objects, g_steal_pointer(&id), g_steal_pointer(&config));
    return true;
}

bool tool_take_object(const char *definition, int *status)
{
    g_autoptr(JsonObject) object = NULL;
    GError *err = NULL;

    *status = 1;
    if (*definition == '{') {
        object = block_options_parse_json(definition, &err);
    } else {
        if (tool_list_asks_help(definition)) {
            print_help(definition);
            *status = 0;
            return false;
        }
        object = block_options_parse(definition, "qom-type", &err);
    }
    if (!object) {
        tool_error_report(err);
        return false;
    }
    return define(object);
}

bool tool_objects_create(void)
{
    GHashTableIter iter;
    gpointer id, config;
    GError *err = NULL;

    if (!objects) {
        return true;
    }
    g_hash_table_iter_init(&iter, objects);
    while (g_hash_table_iter_next(&iter, &id, &config)) {
        if (config && !throttle_group_create(id, config, &err)) {
            tool_error_report(err);
            return false;
        }
    }
    g_clear_pointer(&objects, g_hash_table_unref);
    return true;
}
