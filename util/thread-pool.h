/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker threads of the process, shared by all contexts: blocking calls
 * for every engine, and all I/O for the engine without io_uring.
 */
#ifndef UTIL_THREAD_POOL_H
#define UTIL_THREAD_POOL_H

#include "blockgraph/aio.h"

/*
 * Do what @req says on a worker thread; then it becomes ready in req->ctx.
 * Where no thread can be started, it is done here and now (and becomes ready
 * as if it had not). Any thread.
 */
void thread_pool_submit(AioRequest *req);

/*
 * Do what @req says, on this thread; returns what belongs into req->ret. Reads
 * and writes may be short.
 */
int64_t aio_request_execute(const AioRequest *req);

#endif
