/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of a program that broke a rule of this library.
 */
#ifndef UTIL_FATAL_H
#define UTIL_FATAL_H

#include <glib.h>

/* Print "blockgraph: " and the message to standard error and abort(). Any thread. */
G_NORETURN void fatal(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

#endif
