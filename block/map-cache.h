/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mapping cache of one node: guest extents that map() has reported for
 * reading. Bounded in memory; looking up writes to no memory that threads
 * share.
 *
 * Invariants:
 *  1. A lookup returns a mapping that was inserted whole, or nothing.
 *  2. When map_cache_invalidate() has returned, no lookup that starts later
 *     finds a mapping that overlaps the range and was asked of the driver
 *     before the call: an insert with an older epoch does nothing.
 *  3. A cached mapping holds no reference; it is used under the graph lock.
 *     Whoever detaches a child invalidates the whole cache first.
 */
#ifndef BLOCK_MAP_CACHE_H
#define BLOCK_MAP_CACHE_H

#include "blockgraph/map.h"

typedef struct MapCache MapCache;

/*
 * @granule (a power of two, bytes) is how much of the guest disk shares a
 * bucket: some clusters. @max_bytes bounds the memory.
 */
MapCache *map_cache_new(int64_t granule, size_t max_bytes);
void map_cache_free(MapCache *cache);
/* Take it before asking the driver; hand it to map_cache_insert(). */
uint64_t map_cache_epoch(const MapCache *cache);
/*
 * Whether a cached mapping covers @offset; copied to *@mapping, but for what
 * concerns new places and for the cookie, which are 0. Any thread.
 */
bool map_cache_lookup(MapCache *cache, int64_t offset, BdrvMapping *mapping);
/*
 * Remember the part of @mapping that lies in @offset's granule; an encoded
 * extent wholly or not at all, and nothing that needs a commit. May do nothing.
 * Any thread.
 */
void map_cache_insert(MapCache *cache, uint64_t epoch, int64_t offset,
                      const BdrvMapping *mapping);
/* Forget what overlaps the range. Any thread. */
void map_cache_invalidate(MapCache *cache, int64_t offset, int64_t bytes);

#endif
