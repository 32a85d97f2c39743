/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of a program that broke a rule of this library.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "util/fatal.h"

void fatal(const char *fmt, ...)
{
    char line[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    /* One write, so that another thread's output cannot split the line. */
    fprintf(stderr, "blockgraph: %s\n", line);
    abort();
}
