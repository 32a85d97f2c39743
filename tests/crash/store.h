/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Storage that lives in memory: named disks, as the recorder driver (recorder.h)
 * presents them to the library. One store is active at a time, so that a name
 * in an image ("recorder:data") leads to the disks of the run while it is
 * recorded, and to those of the state under examination afterwards.
 */
#ifndef TESTS_CRASH_STORE_H
#define TESTS_CRASH_STORE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/sim.h"

#define CRASH_SECTOR 512

typedef struct CrashLog CrashLog;

/* A disk's content. What lies past @room, and between @length and @room, is zero. */
typedef struct CrashImage {
    uint8_t *data;
    int64_t room;   /* bytes at @data */
    int64_t length; /* bytes; may be more than @room */
} CrashImage;

/* All of them: bytes; the length is the caller's business but for set_length. */
void crash_image_clear(CrashImage *image);
void crash_image_write(CrashImage *image, int64_t offset, int64_t bytes, const uint8_t *data);
void crash_image_fill(CrashImage *image, int64_t offset, int64_t bytes, uint8_t byte);
/* Copy out; zeros where there is nothing. */
void crash_image_read(const CrashImage *image, int64_t offset, int64_t bytes, uint8_t *data);
/* Cut off, or grow by zeros. */
void crash_image_set_length(CrashImage *image, int64_t length);
/* Make @to equal to @from. */
void crash_image_copy(CrashImage *to, const CrashImage *from);

typedef struct CrashDisk {
    char *name;
    CrashImage image;
} CrashDisk;

typedef struct CrashStore {
    GPtrArray *disks; /* CrashDisk */
    /* Where requests are recorded; NULL: they are carried out only. Borrowed. */
    CrashLog *log;
    /* Whose seed decides how long a request takes; NULL: it takes no time. Borrowed. */
    SimWorld *world;
    /* What a discarded range is full of: 0, or a byte that nobody expects. */
    uint8_t discard_byte;
    /* Defects of the storage itself, for tests of the instrument: */
    bool flush_lies; /* a flush says that it is done, and does nothing */
} CrashStore;

CrashStore *crash_store_new(void);
/* Must not be active. */
void crash_store_free(CrashStore *store);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CrashStore, crash_store_free)
/* A new store with the same disks, not recorded. */
CrashStore *crash_store_copy(const CrashStore *store);
/* An empty disk; its name must be new. Returns its number. */
unsigned crash_store_add(CrashStore *store, const char *name);
CrashImage *crash_store_image(const CrashStore *store, unsigned disk);
/* The disk's number, or -1. */
int crash_store_find(const CrashStore *store, const char *name);

/* Let the recorder driver find the disks of @store; NULL: of none. Returns the one before. */
CrashStore *crash_store_activate(CrashStore *store);
CrashStore *crash_store_active(void);

#endif
