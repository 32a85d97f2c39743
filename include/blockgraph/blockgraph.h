/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libblockgraph: one include for programs that use block devices. Drivers
 * include block-driver.h.
 *
 * A program calls blockgraph_init() on its main thread, opens images with
 * blk_new_open() and reads from them with blk_pread(), or with the coroutine
 * and callback functions of block-backend.h.
 */
#ifndef BLOCKGRAPH_BLOCKGRAPH_H
#define BLOCKGRAPH_BLOCKGRAPH_H

#include "blockgraph/aio.h"
#include "blockgraph/block-backend.h"
#include "blockgraph/block-io.h"
#include "blockgraph/block.h"
#include "blockgraph/bql.h"
#include "blockgraph/coroutine.h"
#include "blockgraph/dirty-bitmap.h"
#include "blockgraph/error.h"
#include "blockgraph/image-info.h"
#include "blockgraph/options.h"
#include "blockgraph/reopen.h"
#include "blockgraph/snapshot.h"
#include "blockgraph/throttle-group.h"
#include "blockgraph/trace.h"
#include "blockgraph/write-threshold.h"

G_BEGIN_DECLS

/*
 * Set the library up: the calling thread becomes the main thread, gets the
 * main AioContext (unless it has one), and holds the big lock on return. The
 * built-in drivers are registered. False with @errp if no event loop is to be
 * had. A second call only takes the big lock.
 */
bool blockgraph_init(GError **errp);

/*
 * Undo it: needs the main thread with the big lock, which is given back, and
 * that no backend and no node is left (it aborts and names one otherwise). Throttle
 * groups that are left are deleted.
 */
void blockgraph_cleanup(void);

/* "0.1.0". Any thread. */
const char *blockgraph_version(void);

G_END_DECLS

#endif
