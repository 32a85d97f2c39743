/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ways to find out whether memory is zero, for the tests: the program uses
 * buffer_is_zero() of blockgraph/iov.h, which takes the first usable one.
 */
#ifndef UTIL_ZERO_H
#define UTIL_ZERO_H

#include <stdbool.h>
#include <stddef.h>

/* The least size that the ways take: the larger part of them read blocks of it. */
#define ZERO_MIN_SIZE 128

typedef struct ZeroWay {
    const char *name;
    bool (*usable)(void); /* does this CPU have it? */
    /* Whether all @size bytes at @buf are zero; @size is at least ZERO_MIN_SIZE. */
    bool (*is_zero)(const void *buf, size_t size);
} ZeroWay;

/* Fastest first; the last is always usable. A way without a name ends the list. */
extern const ZeroWay zero_ways[];

#endif
