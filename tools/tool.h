/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all command-line programs share: the name they were started by, messages
 * under that name, sizes as text, output that is known to have been written,
 * and running a coroutine to its end.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/blockgraph.h"

/* Remember argv[0], and let a closed pipe be a write error. Call it first. */
void tool_init(const char *argv0);
/* Whether the standard descriptor @fd was closed when the program was started. */
bool tool_was_closed(int fd);
/* argv[0] as it was, and its last component. */
const char *tool_argv0(void);
const char *tool_name(void);
/* Whether the program was started under this name of its QEMU counterpart. */
bool tool_is_called(const char *name);
/* "NAME version X.Y.Z", or what QEMU's program prints when started as that. */
void tool_print_version(const char *qemu_name);

/* "NAME: text\n" on standard error. */
void tool_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* "NAME: warning: text\n" on standard error. */
void tool_warning(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* tool_error() of @err's text; frees @err. */
void tool_error_report(GError *err);
/* tool_error() of the formatted prefix and @err's text; frees @err. */
void tool_error_take(GError *err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * Flush and close standard output. True if all that was printed got there,
 * else it is reported. Call it last.
 */
bool tool_close_stdout(void);

/* "64 KiB", "1.5 GiB"; free with g_free(). */
char *tool_size_text(uint64_t bytes);

/*
 * Parse @text as a size between @min and @max into *@bytes. If it is none, or
 * outside: say so, calling it @what, and return false.
 */
bool tool_parse_size(const char *what, const char *text, int64_t min, int64_t max, int64_t *bytes);

/* The same for a number, which has no suffix and may begin with 0x, or 0 for octal. */
bool tool_parse_number(const char *what, const char *text, int64_t min, int64_t max,
                       int64_t *number);

/* Whether a name in an option list that has no value is "help" or "?". */
bool tool_list_asks_help(const char *list);

/* Run @entry(@opaque) in @count coroutines at once and poll until all ended. */
void tool_run_coroutines(CoroutineEntry *entry, void *opaque, int count);

#endif
