/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What blockgraph-io's commands work on: the open image, and the requests that
 * were sent and have not been heard of.
 */
#ifndef TOOLS_IO_SESSION_H
#define TOOLS_IO_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/blockgraph.h"

typedef struct IoSession {
    BlockBackend *blk; /* NULL: no image is open */
    bool writethrough; /* each write is flushed */
    bool misalign;     /* buffers begin at odd places */
    bool quit;         /* the command "quit" has come */
    unsigned in_flight; /* aio requests that have not completed */
    /* Counts what was reported by itself, for a line editor to draw anew. */
    unsigned announcements;
    GPtrArray *breaks; /* IoBreak, see break.c */
} IoSession;

/* BdrvRequestFlags of a write: @flags, and what the cache mode asks for. */
static inline int io_write_flags(const IoSession *s, int flags)
{
    return s->writethrough ? flags | BDRV_REQ_FUA : flags;
}

#endif
