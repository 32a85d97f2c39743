/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest's disk may hold: a flat array of bytes, and the requests since it
 * was last settled. It is told when each request begins and ends, and knows from
 * that what each byte may be:
 *  1. A write or write zeroes that is over hides all that ended before it began.
 *  2. Of the other requests that have begun, each may be there or not.
 *  3. A discard is a hint: what was there, or zeros (where the format cannot say
 *     so, what the backing file has).
 *  4. Nothing else is allowed: no other place's data, no other request's.
 *
 * Every write has data of its own, from which request and place can be told.
 * Any thread, but for init, clear, settle and resize.
 */
#ifndef TESTS_MODEL_DISK_H
#define TESTS_MODEL_DISK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum ModelKind {
    MODEL_READ,
    MODEL_WRITE,
    MODEL_WRITE_FUA,
    MODEL_COMPRESSED,
    MODEL_ZERO,
    MODEL_UNMAP,
    MODEL_DISCARD,
    MODEL_FLUSH,
    MODEL_KINDS,
} ModelKind;

typedef struct ModelRequest {
    ModelKind kind;
    int64_t offset; /* bytes */
    int64_t bytes;
    uint64_t number; /* its own in the whole run */
    uint64_t begin;  /* by the clock of the disk */
    uint64_t end;    /* UINT64_MAX: in flight */
} ModelRequest;

typedef struct ModelDisk {
    GMutex lock;
    int64_t size;
    uint8_t *bytes;   /* as it was when it was settled */
    uint8_t *backing; /* what a discard may show; NULL: it cannot */
    GArray *requests; /* ModelRequest, since then */
    uint64_t clock;
    uint64_t numbers;
} ModelDisk;

void model_disk_init(ModelDisk *disk, int64_t size);
void model_disk_clear(ModelDisk *disk);

/* A request begins; returns its index until the disk is settled, *@number is its number. */
unsigned model_disk_begin(ModelDisk *disk, ModelKind kind, int64_t offset, int64_t bytes,
                          uint64_t *number);
void model_disk_end(ModelDisk *disk, unsigned index);
/* The data of write @number at @offset. */
void model_fill(uint64_t number, int64_t offset, int64_t bytes, uint8_t *data);

/*
 * Whether a read that began as request @index and ends now may find @data. False
 * with the reason appended to @why.
 */
bool model_disk_allows(ModelDisk *disk, unsigned index, int64_t offset, int64_t bytes,
                       const uint8_t *data, GString *why);
/* No request is in flight: @data, @disk->size bytes, is what it is from now on, if allowed. */
bool model_disk_settle(ModelDisk *disk, const uint8_t *data, GString *why);
/* New space is zeros. Settled. */
void model_disk_resize(ModelDisk *disk, int64_t size);

/* "write 512+1024 #7"; free with g_free(). */
char *model_request_text(const ModelRequest *request);

/* splitmix64, the generator of the whole test. Below @below (> 0). */
uint64_t model_random(uint64_t *state, uint64_t below);

#endif
