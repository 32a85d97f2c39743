/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "tiny": a format for tests of the instrument, small enough to be seen
 * through. It allocates units where the guest writes, links them in a table when
 * the data is there, and retires them on discard and write zeroes; in the right
 * order, or with one of the mistakes that real formats have made. The places lie
 * in the file, or with a child "data-file" there.
 */
#ifndef TESTS_CRASH_TINY_H
#define TESTS_CRASH_TINY_H

#include "workload.h"

#define TINY_UNIT 2048
#define TINY_UNITS 16 /* the guest's */
#define TINY_SLOTS 20 /* places for them */

typedef enum TinyBug {
    TINY_CORRECT,
    TINY_TABLE_EARLY,   /* an entry is on its way to the disk before its data is flushed */
    TINY_NO_DATA_FLUSH, /* the table is written without flushing the data first */
    TINY_LATE_COPY,     /* the table is copied after the flush, not before */
    TINY_TORN_TABLE,    /* the table is written as two sectors that must agree */
    TINY_EARLY_REUSE,   /* a place is given out before its old entry is off the disk */
    TINY_EARLY_PUNCH,   /* likewise discarded */
    TINY_NO_TABLE,      /* a flush leaves the table unwritten */
    TINY_WRONG_UNIT,    /* a discard takes the entry of its neighbour, too */
} TinyBug;
/* The bugs' names for option "bug", NULL-terminated. */
extern const char *const tiny_bug_words[];

/* For CrashFormat: registers the driver and makes the disks "image" and "data". */
bool tiny_create(const CrashFormat *format, CrashStore *store, GString *why);

#endif
