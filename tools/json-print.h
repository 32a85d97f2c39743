/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON text as QEMU's programs write it: four spaces per level, "key": value,
 * members in the order they were added, ASCII only. Scripts compare it.
 *
 * It is written piece by piece, since what an image makes a program tell may be
 * too much to be held as one document.
 */
#ifndef TOOLS_JSON_PRINT_H
#define TOOLS_JSON_PRINT_H

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct JsonPrinter {
    FILE *file;
    GString *text; /* not yet written */
    int depth;
    bool first;    /* nothing stands yet between the brackets */
} JsonPrinter;

/* Begin a document; json_printer_finish() ends its line and gives up the memory.
 * That all was written is for who closes @file to see. */
void json_printer_init(JsonPrinter *p, FILE *file);
void json_printer_finish(JsonPrinter *p);

/* @bracket is '{' or '[', then '}' or ']'. @name is NULL in an array and at the top. */
void json_printer_begin(JsonPrinter *p, const char *name, char bracket);
void json_printer_end(JsonPrinter *p, char bracket);
void json_printer_string(JsonPrinter *p, const char *name, const char *value);
void json_printer_int(JsonPrinter *p, const char *name, int64_t value);
void json_printer_bool(JsonPrinter *p, const char *name, bool value);
void json_printer_object(JsonPrinter *p, const char *name, JsonObject *object);
void json_printer_node(JsonPrinter *p, const char *name, JsonNode *node);

/* A string as a JSON string with its quotes; free with g_free(). */
char *json_quote(const char *string);

#endif
