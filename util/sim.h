/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A simulated world for tests: several contexts, as if each had a thread of its
 * own, run on the calling thread, and a seed decides everything that real
 * threads, a real kernel and a real clock would leave to chance:
 * which context goes on, which of the things that are ready there (bottom half,
 * coroutine, timer, completion, file descriptor) runs next, how long a request
 * takes, whether its I/O happens early or late and is cut short. The same seed
 * and the same program give the same run.
 *
 * I/O is done on the real files. The clock starts at 0, stands still while
 * anything can run, and then jumps to what comes next. A step is one callback,
 * so what is reordered is everything that happens between two yields.
 *
 * One world per thread at a time. A context's callbacks may poll that context;
 * AioThread has no place here.
 */
#ifndef UTIL_SIM_H
#define UTIL_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/aio.h"

G_BEGIN_DECLS

typedef struct SimWorld SimWorld;

SimWorld *sim_world_new(uint64_t seed);
/* Drops the contexts, which must be idle as for aio_context_unref(). */
void sim_world_free(SimWorld *world);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SimWorld, sim_world_free)

/*
 * Add a context. The first one is the main context, and the caller's from then
 * on; the other ones see bql_locked() as false. The world keeps the reference.
 */
AioContext *sim_world_add_context(SimWorld *world, const char *name);

/*
 * Run the world, all contexts of it, until @done returns true; it is asked
 * before each step. False, with a message that has the seed, if nothing is left
 * that could happen. From the main context, not in a coroutine. (A deadlock
 * within aio_poll() aborts with the same message.)
 */
bool sim_world_run_until(SimWorld *world, bool (*done)(void *opaque), void *opaque);

/* A number below @below (> 0), for the test's own decisions. */
uint64_t sim_world_random(SimWorld *world, uint64_t below);
/* Now, in nanoseconds. */
int64_t sim_world_now(SimWorld *world);

/* The longest time that a request takes, in nanoseconds; at first a millisecond. */
void sim_world_set_max_latency(SimWorld *world, int64_t ns);
/*
 * Cut @permille of the reads and writes that are longer than @unit bytes to a
 * multiple of @unit; at first 100, 512.
 */
void sim_world_set_short_io(SimWorld *world, unsigned permille, unsigned unit);

/* Have @trace called with a line for every choice; NULL: no more. */
void sim_world_set_trace(SimWorld *world, void (*trace)(const char *line, void *opaque),
                         void *opaque);
/* A digest of all choices up to now: equal runs have equal ones. */
uint64_t sim_world_digest(const SimWorld *world);

/*
 * Call @body in @count worlds with the seeds 1 to @count, until it returns
 * false; then the seed is printed, and returned. 0: it was true in all. With
 * the environment variable BLOCKGRAPH_SEED only that seed is run, and its
 * trace is printed to standard error.
 */
uint64_t sim_try_seeds(unsigned count, bool (*body)(SimWorld *world, void *opaque), void *opaque);

G_END_DECLS

#endif
