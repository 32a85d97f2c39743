/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was asked of a store's disks, in order, with the bytes, and what of it a
 * power cut may leave.
 *
 * Time is counted in events: every begin and every end of a request, of a disk
 * or of the guest (model.h), takes the next position. A power cut at position P
 * comes after the events before P.
 *
 * A disk behaves as real ones do:
 *  1. A change that has begun may be on the disk, whole or some of its sectors,
 *     or not.
 *  2. It is there for good once a flush of the same disk is over that began
 *     after the change had ended. A flush does not cover what was in flight
 *     when it began.
 *  3. A change with FUA is there for good when it has ended.
 *  4. Changes that overlap have the order in which they reached the disk's cache.
 */
#ifndef TESTS_CRASH_LOG_H
#define TESTS_CRASH_LOG_H

#include "store.h"

typedef enum CrashKind {
    CRASH_WRITE,
    CRASH_ZEROES,
    CRASH_DISCARD,
    CRASH_TRUNCATE,
    CRASH_FLUSH,
} CrashKind;

/* The position of what has not happened. */
#define CRASH_NEVER UINT64_MAX

typedef struct CrashEntry {
    CrashKind kind;
    unsigned disk;
    bool fua;
    uint8_t byte;   /* DISCARD: what the range is full of after it */
    int64_t offset; /* bytes; TRUNCATE: the new length */
    int64_t bytes;
    uint8_t *data; /* WRITE */
    uint64_t begin;
    uint64_t cached; /* when it reached the disk's cache */
    uint64_t end;
} CrashEntry;

struct CrashLog {
    GPtrArray *entries; /* CrashEntry, in order of their begin */
    uint64_t position;
};

CrashLog *crash_log_new(void);
void crash_log_free(CrashLog *log);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CrashLog, crash_log_free)
/* The position of an event that happens now. */
uint64_t crash_log_tick(CrashLog *log);
/* @data is copied (NULL but for writes). Borrowed: the log's. */
CrashEntry *crash_log_begin(CrashLog *log, CrashKind kind, unsigned disk, int64_t offset,
                            int64_t bytes, const uint8_t *data);
/* It reaches the disk's cache now; it ends now, and has reached the cache if not before. */
void crash_log_cached(CrashLog *log, CrashEntry *entry);
void crash_log_end(CrashLog *log, CrashEntry *entry);
CrashEntry *crash_log_entry(const CrashLog *log, unsigned index);

/* The first power cut that finds @entry on the disk for good; CRASH_NEVER: none does. */
uint64_t crash_log_durable_from(const CrashLog *log, const CrashEntry *entry);

/* Which sectors of a change are on the disk. */
typedef enum CrashTearKind {
    CRASH_WHOLE = 0,
    CRASH_HEAD = 'h',    /* the first @n sectors */
    CRASH_TAIL = 't',    /* all but the first @n sectors */
    CRASH_SCATTER = 's', /* some, that the seed @n chooses */
} CrashTearKind;
typedef struct CrashTear {
    CrashTearKind kind;
    uint32_t n;
} CrashTear;

/* How many sectors the entry touches; a length cannot be torn and counts as none. */
int64_t crash_entry_sectors(const CrashEntry *entry);
/* Carry out what @tear leaves of @entry. */
void crash_entry_apply(const CrashEntry *entry, CrashTear tear, CrashImage *image);
/* "write 4096+512 of disk 0": free with g_free(). */
char *crash_entry_text(const CrashEntry *entry);

/* splitmix64, the generator of the whole instrument. Below @below (> 0). */
uint64_t crash_random(uint64_t *state, uint64_t below);

#endif
