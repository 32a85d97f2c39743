/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace events: lines on standard error or in a file that tell what the
 * library does. Each is off until switched on, and then costs a load and a
 * branch. A line is "PID@SECONDS.MICROSECONDS:NAME ARG=VALUE ...", the time
 * since 1970. Where sys/sdt.h was there at build time, every event is also a
 * USDT probe of the provider "blockgraph", on or off.
 */
#ifndef BLOCKGRAPH_TRACE_H
#define BLOCKGRAPH_TRACE_H

#include <stdbool.h>
#include <stdio.h>
#include <glib.h>
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

/* The domain of the errors below; the code is a positive errno. */
#define TRACE_ERROR trace_error_quark()
GQuark trace_error_quark(void);

/*
 * Do what the environment variable BLOCKGRAPH_TRACE says, in the form of
 * trace_parse_option(), if it is set; but a pattern that matches nothing is an
 * error, and lines are appended to the file. blockgraph_init() calls it and
 * prints the error as a warning. Any thread.
 */
bool trace_init(GError **errp);

/*
 * Switch the events on whose name matches @pattern, in which * stands for
 * anything and ? for one character; off if a '-' comes before the pattern.
 * False with ENOENT if there is no such event. Any thread.
 */
bool trace_enable(const char *pattern, GError **errp);

/* Append the lines to the file @filename; NULL: standard error. Any thread. */
bool trace_set_file(const char *filename, GError **errp);

/*
 * The argument of the tools' --trace: items between commas, of which each is
 * [enable=]PATTERN, for trace_enable(); events=FILE, a file with one PATTERN
 * in a line (and comments after #); or file=FILE, where to write instead of
 * what that file holds, "%d" in its name standing for the number of the
 * process. What to say of a pattern that matches no event is added to
 * @unknown, a string for the caller to free; with NULL it is an error
 * (ENOENT). Stops at the first item that fails: EINVAL for one that has none
 * of these forms, the errno of a file that cannot be opened. Any thread.
 */
bool trace_parse_option(const char *option, GPtrArray *unknown, GError **errp);

/* Print the names of all events to @out, one in a line. Any thread. */
void trace_list_events(FILE *out);

G_END_DECLS

#endif
