/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a hit in the mapping cache costs. Under callgrind, which counts
 * instructions, twice with different numbers of lookups:
 *
 *   valgrind --tool=callgrind --callgrind-out-file=/dev/null bench-map-cache N
 *
 * the difference of the two counts, divided by that of the lookups, is exact.
 * Without valgrind it prints nanoseconds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "block/map-cache.h"

#define GRANULE (1 << 20)
#define GRANULES 64

int main(int argc, char **argv)
{
    const int64_t count = argc > 1 ? atoll(argv[1]) : 100000000;
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    BdrvMapping m = {
        .bytes = (int64_t)GRANULES * GRANULE, .target = BDRV_MAP_DATA, .child = (BdrvChild *)0x1000,
    };
    int64_t start, sum = 0;

    for (int64_t i = 0; i < GRANULES; i++) {
        map_cache_insert(cache, map_cache_epoch(cache), i * GRANULE, &m);
    }
    start = g_get_monotonic_time();
    for (int64_t i = 0; i < count; i++) {
        BdrvMapping found;

        if (!map_cache_lookup(cache, i * 4096 % ((int64_t)GRANULES * GRANULE), &found)) {
            fprintf(stderr, "a lookup missed\n");
            return 1;
        }
        sum += found.child_offset;
    }
    printf("%" PRId64 " hits, %.2f ns each (checksum %" PRId64 ")\n", count,
           (g_get_monotonic_time() - start) * 1000.0 / count, sum);
    map_cache_free(cache);
    return 0;
}
