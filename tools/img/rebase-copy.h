/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an image has to hold itself before it gets another backing file: all that
 * would read differently from there.
 *
 * Some coroutines on the main thread each take the next piece, read it through the image
 * and from the new backing file, and write what differs to the image.
 *  1. Pieces do not overlap; they begin and end at multiples of a unit, but for the end
 *     of it all. A unit is what the image can hold by itself: a subcluster, or where
 *     compressed data is written, a cluster.
 *  2. What the image holds already, what both chains have from one node, and what both
 *     say is zero, is not read.
 *  3. What is written is what the guest reads there: until the reference changes,
 *     nothing does for it.
 */
#ifndef TOOLS_IMG_REBASE_COPY_H
#define TOOLS_IMG_REBASE_COPY_H

#include "blockgraph/blockgraph.h"

typedef struct RebaseCopy {
    BlockBackend *blk; /* the image, on its old chain */
    const char *name;
    BlockBackend *backing; /* the new one; NULL: there will be none */
    const char *backing_name;
    BlockDriverState *shared; /* the node of the old chain that is the same file, or NULL */
    bool compressed;
    int write_flags; /* BdrvRequestFlags of each write */

    /* ---- private ---- */
    BlockDriverState *bs; /* the image without filters; borrowed */
    int64_t length;
    int64_t backing_length; /* 0 without one */
    int64_t unit;           /* bytes, a power of 2 */
    int64_t piece_size;
    CoMutex lock; /* protects the planning: what follows */
    int64_t next; /* the first byte that nobody has taken */
    int ret;      /* the first error, which has been reported */
} RebaseCopy;

/* Copy. Errors are reported; returns 0 or the first one. Not in a coroutine. */
int rebase_copy_run(RebaseCopy *copy);

#endif
