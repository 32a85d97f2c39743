/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers as users write them, and as the reports show them. */
#ifndef TOOLS_IO_NUMBERS_H
#define TOOLS_IO_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>

/* A request is at most this long: the most whole sectors that an int holds. */
#define IO_MAX_REQUEST (INT32_MAX / 512 * (int64_t)512)

/* Bytes, 0 … INT64_MAX, with an optional suffix; false after saying what is wrong. */
bool io_parse_number(const char *text, int64_t *value);
/* A byte to fill with; false after saying that it is none. */
bool io_parse_pattern(const char *text, int *pattern);

/* Whether both are whole sectors; if not, say so. */
bool io_check_sectors(int64_t offset, int64_t size);

/* "512 bytes", "1.500 MiB"; free with g_free(). */
char *io_size_text(double bytes);

/* Nanoseconds on a clock that only goes forward. */
int64_t io_now(void);
/*
 * The two lines that tell of @bytes of @asked bytes done at @offset since @start, or
 * with @brief (-C) the one line for programs. @verb: "read", "wrote".
 */
void io_report(const char *verb, bool brief, int64_t start, int64_t offset, int64_t asked,
               int64_t bytes);

#endif
