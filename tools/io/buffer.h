/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests' memory: made, filled, compared and shown. */
#ifndef TOOLS_IO_BUFFER_H
#define TOOLS_IO_BUFFER_H

#include "tools/io/session.h"

/* The byte that writes are filled with where no other was asked for. */
#define IO_DEFAULT_PATTERN 0xcd

typedef struct IoBuffer {
    uint8_t *data; /* NULL if there is none */
    size_t size;
    void *block; /* what @data lies in */
    IOVector vector; /* over @data, in one piece or several */
} IoBuffer;

/* Make one of one piece, each byte @pattern; false after saying that memory is short. */
bool io_buffer_init(IoBuffer *buffer, const IoSession *s, int64_t size, int pattern);
/*
 * Make one of as many pieces as there are @lengths, numbers as users write them, ended
 * by a NULL; false after saying what is wrong.
 */
bool io_buffer_init_pieces(IoBuffer *buffer, const IoSession *s, char **lengths, int pattern);
/* Fill it with what file @filename holds, again and again; false after saying why not. */
bool io_buffer_load(IoBuffer *buffer, const char *filename);
/* Free what it has; one of zeros has nothing. */
void io_buffer_clear(IoBuffer *buffer);

/* Whether all @size bytes at @at are @pattern; if not, say so. */
bool io_buffer_verify(const IoBuffer *buffer, int pattern, int64_t at, int64_t size);
/* Print it as hexadecimal numbers and as letters, as what was read at @offset. */
void io_buffer_dump(const IoBuffer *buffer, int64_t offset);

#endif
