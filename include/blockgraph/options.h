/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options as users write them, and as drivers take them.
 *
 * Options are one JSON object. On a command line they are written as
 * "driver=qcow2,file.driver=file,file.filename=a.qcow2" (a comma in a value is
 * doubled) or as "json:{...}"; both become nested objects, where members named
 * 0, 1, … become an array. Values from dotted keys are strings; every reader
 * here takes a string or the JSON type alike.
 *
 * A taker removes what it takes. What is left when a driver has opened is an
 * option that nobody knows, and an error.
 */
#ifndef BLOCKGRAPH_OPTIONS_H
#define BLOCKGRAPH_OPTIONS_H

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

/*
 * Parse "key=value,key.sub=value" into a new object; the caller unrefs it. A
 * first part without "=" belongs to @implied_key, if that is not NULL; other
 * parts without "=" are on, or off with a leading "no". Errors name the key.
 */
JsonObject *block_options_parse(const char *text, const char *implied_key, GError **errp);

/*
 * Parse the text behind "json:" into a new object, with dotted keys in it made
 * into nested objects.
 */
JsonObject *block_options_parse_json(const char *text, GError **errp);

/* A deep copy that the caller unrefs; @options may be NULL (an empty object). */
JsonObject *block_options_copy(JsonObject *options);

/*
 * Merge copies of @from's members into @into; @into's own members win. Where
 * both have an object, its members are merged alike.
 */
void block_options_merge(JsonObject *into, JsonObject *from);

/* "json:{...}" of the object, keys in order; free with g_free(). */
char *block_options_to_filename(JsonObject *options);

/*
 * The takers remove member @key. They return false and set @errp (naming the
 * key and the value) if it is there and is not of the type; if it is absent,
 * they leave *@value as it is and return true.
 */
/* *@value becomes a new string; free with g_free(). */
bool block_options_take_string(JsonObject *options, const char *key, char **value, GError **errp);
/* on, off, true, false, yes, no, or a JSON boolean. */
bool block_options_take_bool(JsonObject *options, const char *key, bool *value, GError **errp);
bool block_options_take_int(JsonObject *options, const char *key, int64_t *value, GError **errp);
/* Bytes, 0 … INT64_MAX, with an optional suffix b, k, M, G, T, P or E. */
bool block_options_take_size(JsonObject *options, const char *key, int64_t *value, GError **errp);
/* One of the NULL-terminated @words; *@value becomes its index. */
bool block_options_take_enum(JsonObject *options, const char *key, const char *const *words,
                             int *value, GError **errp);
/* A nested object; *@value is a reference that the caller unrefs. */
bool block_options_take_object(JsonObject *options, const char *key, JsonObject **value,
                               GError **errp);
/* An array (of objects or scalars); *@value is a reference. */
bool block_options_take_array(JsonObject *options, const char *key, JsonArray **value,
                              GError **errp);

/*
 * "512", "4k", "1.5G" → bytes, with suffixes b, k/K, M, G, T, P, E as powers
 * of 1024 and @default_suffix where there is none ('b' for bytes). Returns 0,
 * -EINVAL for what is no size, -ERANGE for one above INT64_MAX or negative.
 */
int block_parse_size(const char *text, char default_suffix, int64_t *bytes);

G_END_DECLS

#endif
