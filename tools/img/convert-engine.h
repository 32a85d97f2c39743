/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying the content of images into another one: what convert and dd do once
 * everything is open.
 *
 * Some coroutines on the main thread each take the next piece, read it, and
 * write it.
 *  1. Pieces are taken from front to back and do not overlap (convert-plan.c).
 *  2. What the source says is zero is never read, and not written where the
 *     target is known to be zero.
 *  3. Unless writes may be unordered, a piece's write starts when that of the
 *     piece before it is over.
 *  4. Memory is one buffer per coroutine.
 *  5. Compressed data is written in whole units of the target: pieces begin and
 *     end at multiples of a unit, but for the end of it all.
 */
#ifndef TOOLS_IMG_CONVERT_ENGINE_H
#define TOOLS_IMG_CONVERT_ENGINE_H

#include "blockgraph/blockgraph.h"

#define CONVERT_BUFFER (2 << 20) /* bytes, per coroutine */
#define CONVERT_MAX_WORKERS 16

typedef struct ConvertSource {
    BlockBackend *blk;
    const char *name;
    BlockDriverState *base; /* borrowed: what is below its topmost layer, or NULL */
    int64_t skip;   /* where in the image to begin */
    int64_t start;  /* where in the target it goes; set by convert_engine_run() */
    int64_t length; /* bytes to copy */
} ConvertSource;

typedef enum ConvertRun {
    CONVERT_DATA,
    CONVERT_ZERO,
    CONVERT_SAME, /* the target reads so without being written to */
    CONVERT_BELOW, /* the same, but data of the backing file: read for the digest */
} ConvertRun;

typedef struct ConvertEngine {
    /* What to copy: several sources one behind the other. */
    ConvertSource *sources;
    size_t n_sources;
    BlockBackend *target;
    const char *target_name;
    bool target_is_zero;
    /* Only what the topmost layers of the sources hold: the rest comes from the
     * target's backing file, of this many bytes (-1: not known). */
    bool target_has_backing;
    int64_t backing_length;
    bool compressed;
    bool unordered;
    bool salvage;        /* a block that cannot be read becomes zeros */
    bool quiet;          /* no warnings */
    bool count_first;    /* go through once before, to know how much work it is */
    int workers;         /* coroutines, 1 … CONVERT_MAX_WORKERS */
    int write_flags;     /* BdrvRequestFlags of each write */
    int64_t sparse_size; /* bytes: shorter zero runs are written; 0: all is */
    bool offload;        /* let the storage copy data where it can, zeros and all */
    bool all_data;       /* data is written as it is, though it be zeros */
    int64_t rate;        /* bytes per second, 0: no limit */
    GChecksum *digest;   /* of all that the target holds, or NULL; borrowed */

    /* ---- private ---- */
    BlockDriverState *target_bs; /* borrowed: buffers are aligned as it likes */
    int64_t total;
    int64_t buffer_size;
    int64_t unit;        /* bytes: what pieces are made of; a power of 2 */
    int64_t sparse_unit; /* bytes: runs of zeros are made of; 0: all is written */
    int ret;           /* the first error, which has been reported */
    CoMutex plan_lock; /* protects the planning: what follows */
    int64_t next;      /* the first byte that nobody has taken */
    int64_t run_end;   /* what was asked last: up to where, and what is there */
    ConvertRun run;
    uint64_t turns_given;
    /* Whose turn it is to write. */
    CoMutex turn_lock;
    CoQueue turn_queue;
    uint64_t turn;
    int64_t rate_next; /* when the next write may start, ns */
    int64_t digest_end; /* the digest has all bytes before */
    int64_t work;      /* bytes to be copied; 0: not counted */
} ConvertEngine;

typedef struct ConvertPiece {
    int64_t offset; /* in the target */
    int64_t bytes;
    bool zero;  /* else: read it */
    bool below; /* do not write it */
    uint64_t turn;
} ConvertPiece;

/*
 * Copy. The target is at least as long as all sources together. Errors are
 * reported; returns 0 or the first one. Not in a coroutine.
 */
int convert_engine_run(ConvertEngine *eng);

/*
 * For who reads or writes by himself: begin, without a target if eng->target is NULL;
 * then, in order, and not in a coroutine,
 */
void convert_engine_begin(ConvertEngine *eng);
/* write @bytes from @buf as a piece, after reporting errors; 0 or the first error; */
int convert_engine_write(ConvertEngine *eng, int64_t offset, int64_t bytes, const uint8_t *buf);
/* or wait until the rate allows @bytes more to go somewhere else; */
void convert_engine_pace(ConvertEngine *eng, int64_t bytes);
/* make it durable, and report an error; 0 or the first one. */
int convert_engine_flush(ConvertEngine *eng);
/* Read @bytes of the sources into @buf, as slowly as the rate says. False: reported. */
bool coroutine_fn convert_engine_read(ConvertEngine *eng, int64_t offset, int64_t bytes,
                                      uint8_t *buf);

/* convert-digest.c: @bytes at @offset; all between them and those before is zeros. */
void convert_digest(ConvertEngine *eng, int64_t offset, const uint8_t *buf, int64_t bytes);

/* convert-plan.c: where the sources have data, as BdrvRange in order and apart. */
typedef struct ConvertListing {
    ConvertEngine *eng;
    GArray *ranges;
} ConvertListing;
void coroutine_fn convert_list_data(void *listing);
/* convert-plan.c: take the next piece. False at the end or after an error. */
bool coroutine_fn convert_take_piece(ConvertEngine *eng, ConvertPiece *piece);
/* Go through all sources and set eng->work. */
void coroutine_fn convert_count_work(void *opaque);
/*
 * The source that the byte at @offset of the target comes from, where in its
 * image, and how many of @bytes it has from there on.
 */
ConvertSource *convert_source_at(const ConvertEngine *eng, int64_t offset, int64_t bytes,
                                 int64_t *in_image, int64_t *there);

#endif
