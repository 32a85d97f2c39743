/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace events from the inside: for each line of util/trace-events.h an inline
 * function trace_NAME() to be called where the event happens. Its arguments
 * are always computed, so they should be at hand.
 */
#ifndef UTIL_TRACE_H
#define UTIL_TRACE_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/trace.h"

#if __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC 1
#include <sys/sdt.h>
#define TRACE_PROBE(...) STAP_PROBEV(blockgraph, __VA_ARGS__)
#else
#define TRACE_PROBE(...)
#endif

typedef enum TraceEventId {
#define TRACE_EVENT(name, ...) TRACE_ID_##name,
#include "util/trace-events.h"
#undef TRACE_EVENT
    TRACE_ID__MAX,
} TraceEventId;

/* Which events are on. Atomic. Hidden, so that no table lies between. */
extern __attribute__((visibility("hidden"))) bool trace_event_on[TRACE_ID__MAX];

/* Write a line for event @id. */
void trace_write(TraceEventId id, const char *fmt, ...) G_GNUC_PRINTF(2, 3)
    __attribute__((cold, noinline));

#define TRACE_EVENT(name, parameters, fmt, ...)                                                    \
    static inline void trace_##name parameters                                                     \
    {                                                                                              \
        TRACE_PROBE(name, ##__VA_ARGS__);                                                          \
        if (G_UNLIKELY(__atomic_load_n(&trace_event_on[TRACE_ID_##name], __ATOMIC_RELAXED))) {     \
            trace_write(TRACE_ID_##name, fmt, ##__VA_ARGS__);                                      \
        }                                                                                          \
    }
#include "util/trace-events.h"
#undef TRACE_EVENT

#endif
