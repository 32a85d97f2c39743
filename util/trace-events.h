/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of trace events; util/trace.h makes a function trace_NAME() of each.
 *
 * TRACE_EVENT(NAME, (PARAMETERS), FORMAT, ARGUMENTS...): the parameters of the
 * function, and how a line shows them, as ARG=VALUE with a blank in between.
 * Sizes and offsets are bytes. Included several times, so without a guard.
 */

/* util: the event loop */
TRACE_EVENT(aio_submit, (const void *req, int op, int fd, int64_t offset),
            "req=%p op=%d fd=%d offset=%" PRId64, req, op, fd, offset)
TRACE_EVENT(aio_complete, (const void *req, int64_t ret), "req=%p ret=%" PRId64, req, ret)

/* util: coroutines and their locks */
TRACE_EVENT(coroutine_create, (const void *co, const void *opaque), "co=%p opaque=%p", co, opaque)
TRACE_EVENT(coroutine_enter, (const void *from, const void *co), "from=%p co=%p", from, co)
TRACE_EVENT(coroutine_yield, (const void *co, const void *to), "co=%p to=%p", co, to)
TRACE_EVENT(coroutine_end, (const void *co), "co=%p", co)
TRACE_EVENT(co_mutex_wait, (const void *mutex, const void *co), "mutex=%p co=%p", mutex, co)
TRACE_EVENT(co_mutex_pass, (const void *mutex, const void *co), "mutex=%p co=%p", mutex, co)

/* block: op is a BdrvMapOp, type a BdrvIoType, target a BdrvMapTarget */
TRACE_EVENT(bdrv_open, (const char *filename, int flags), "filename='%s' flags=0x%x", filename,
            flags)
TRACE_EVENT(bdrv_co_request,
            (const char *node, int type, int64_t offset, int64_t bytes, int flags),
            "node=%s type=%d offset=%" PRId64 " bytes=%" PRId64 " flags=0x%x",
            node, type, offset, bytes, flags)
TRACE_EVENT(bdrv_co_map,
            (const char *node, int op, int64_t offset, int64_t bytes, int ret, int target,
             int64_t start, int64_t length, int64_t place),
            "node=%s op=%d offset=%" PRId64 " bytes=%" PRId64 " ret=%d target=%d start=%" PRId64
            " length=%" PRId64 " place=%" PRId64,
            node, op, offset, bytes, ret, target, start, length, place)
TRACE_EVENT(bdrv_co_copy_range,
            (const char *from, int64_t from_offset, const char *node, int64_t offset, int64_t bytes,
             int ret),
            "from=%s from_offset=%" PRId64 " node=%s offset=%" PRId64 " bytes=%" PRId64 " ret=%d",
            from, from_offset, node, offset, bytes, ret)
TRACE_EVENT(bdrv_drained_begin, (const char *node), "node=%s", node)
TRACE_EVENT(bdrv_drained_end, (const char *node), "node=%s", node)
