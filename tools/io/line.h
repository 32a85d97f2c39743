/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lines from standard input. While a line is waited for, requests go on and are
 * reported. On a terminal, and if libedit was there at build time, lines can be
 * edited, and those before be had back.
 */
#ifndef TOOLS_IO_LINE_H
#define TOOLS_IO_LINE_H

#include "tools/io/session.h"

typedef struct IoInput IoInput;

IoInput *io_input_new(IoSession *s);
/* Print the prompt and return the next line, without its end; NULL past the last.
 * Borrowed until the next call. */
const char *io_input_next(IoInput *input);
void io_input_free(IoInput *input);

#endif
