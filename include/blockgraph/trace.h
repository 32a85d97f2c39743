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
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

/* The domain of the errors below; the code is a positive errno. */
#define TRACE_ERROR trace_error_quark()
GQuark trace_error_quark(void);

/*
 * Do what the environment variable BLOCKGRAPH_TRACE says, in the form of
 * trace_parse_option(), if it is set. blockgraph_init() calls it and prints
 * the error as a warning. Any thread.
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
 * in a line (and comments after #); or file=FILE, where to write. Stops at the
 * first item that fails. Any thread.
 */
bool trace_parse_option(const char *option, GError **errp);

/* Print the names of all events to @out, one in a line. Any thread. */
void trace_list_events(FILE *out);

G_END_DECLS

#endif
