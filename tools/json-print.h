/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON text as QEMU's programs write it: four spaces per level, "key": value,
 * members in the order they were added, ASCII only. Scripts compare it.
 */
#ifndef TOOLS_JSON_PRINT_H
#define TOOLS_JSON_PRINT_H

#include <json-glib/json-glib.h>

/* The text without a newline at its end; free with g_free(). */
char *json_text(JsonNode *node);
char *json_object_text(JsonObject *object);
char *json_array_text(JsonArray *array);
/* A string as a JSON string with its quotes; free with g_free(). */
char *json_quote(const char *string);

#endif
