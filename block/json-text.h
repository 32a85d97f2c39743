/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON as text, for "json:{…}" names. A name may come out of an image that a
 * stranger sent, so the reader is strict (json-glib's takes comments, octal
 * numbers and assignments), and bounded in depth and size; as QEMU's does, it
 * takes strings in single quotes too.
 */
#ifndef BLOCK_JSON_TEXT_H
#define BLOCK_JSON_TEXT_H

#include <json-glib/json-glib.h>

/* How deep values may be nested, the outermost being at depth 1. */
#define JSON_TEXT_MAX_DEPTH 64
/* The longest text in bytes. */
#define JSON_TEXT_MAX_BYTES (1 << 20)

/* Parse one value; the caller frees it with json_node_unref(). Any thread. */
JsonNode *json_text_parse(const char *text, GError **errp);
/* Append @node on one line, members in their order. Any thread. */
void json_text_append(GString *out, JsonNode *node);

#endif
