/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of trace events; util/trace.h makes a function trace_NAME() of each.
 *
 * TRACE_EVENT(NAME, (PARAMETERS), FORMAT, ARGUMENTS...): the parameters of the
 * function, and how a line shows them, as ARG=VALUE with a blank in between.
 * Sizes and offsets are bytes. Included several times, so without a guard.
 */

/* util: coroutines and their locks */
TRACE_EVENT(coroutine_create, (const void *co, const void *opaque), "co=%p opaque=%p", co, opaque)
TRACE_EVENT(coroutine_enter, (const void *from, const void *co), "from=%p co=%p", from, co)
TRACE_EVENT(coroutine_yield, (const void *co, const void *to), "co=%p to=%p", co, to)
TRACE_EVENT(coroutine_end, (const void *co), "co=%p", co)
TRACE_EVENT(co_mutex_wait, (const void *mutex, const void *co), "mutex=%p co=%p", mutex, co)
TRACE_EVENT(co_mutex_pass, (const void *mutex, const void *co), "mutex=%p co=%p", mutex, co)
