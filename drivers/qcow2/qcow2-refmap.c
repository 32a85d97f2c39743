/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: how often check met each cluster.
 *
 * Memory follows the clusters that are met: a chunk of counters exists once
 * one of its clusters is referenced, with a byte for each until one of them
 * needs more.
 */
#include <string.h>
#include "drivers/qcow2/qcow2-check.h"

#define CHUNK_BITS 12
#define CHUNK (1U << CHUNK_BITS)

typedef struct Chunk {
    uint64_t number; /* the key */
    uint64_t *wide;  /* NULL while a byte is enough */
    uint8_t narrow[];
} Chunk;

struct Qcow2RefMap {
    GHashTable *chunks;
    Chunk *last; /* references come in runs */
};

static void free_chunk(gpointer data)
{
    Chunk *chunk = data;

    g_free(chunk->wide);
    g_free(chunk);
}

Qcow2RefMap *qcow2_refmap_new(void)
{
    Qcow2RefMap *map = g_new0(Qcow2RefMap, 1);

    map->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, free_chunk);
    return map;
}

void qcow2_refmap_free(Qcow2RefMap *map)
{
    g_hash_table_unref(map->chunks);
    g_free(map);
}

static Chunk *find_chunk(Qcow2RefMap *map, uint64_t number)
{
    if (!map->last || map->last->number != number) {
        Chunk *chunk = g_hash_table_lookup(map->chunks, &number);

        if (!chunk) {
            return NULL;
        }
        map->last = chunk;
    }
    return map->last;
}

static Chunk *add_chunk(Qcow2RefMap *map, uint64_t number)
{
    Chunk *chunk = g_malloc0(sizeof(*chunk) + CHUNK);

    chunk->number = number;
    g_hash_table_insert(map->chunks, &chunk->number, chunk);
    return chunk;
}

static void widen(Chunk *chunk)
{
    chunk->wide = g_new(uint64_t, CHUNK);
    for (unsigned i = 0; i < CHUNK; i++) {
        chunk->wide[i] = chunk->narrow[i];
    }
}

void qcow2_refmap_add(Qcow2RefMap *map, uint64_t cluster)
{
    Chunk *chunk = find_chunk(map, cluster >> CHUNK_BITS);
    unsigned index = cluster & (CHUNK - 1);

    if (!chunk) {
        chunk = add_chunk(map, cluster >> CHUNK_BITS);
    }
    if (!chunk->wide && chunk->narrow[index] == UINT8_MAX) {
        widen(chunk);
    }
    if (chunk->wide) {
        chunk->wide[index]++;
    } else {
        chunk->narrow[index]++;
    }
}

void qcow2_refmap_remove(Qcow2RefMap *map, uint64_t cluster)
{
    Chunk *chunk = find_chunk(map, cluster >> CHUNK_BITS);
    unsigned index = cluster & (CHUNK - 1);

    if (chunk->wide) {
        chunk->wide[index]--;
    } else {
        chunk->narrow[index]--;
    }
}

uint64_t qcow2_refmap_get(Qcow2RefMap *map, uint64_t cluster)
{
    const Chunk *chunk = find_chunk(map, cluster >> CHUNK_BITS);
    unsigned index = cluster & (CHUNK - 1);

    if (!chunk) {
        return 0;
    }
    return chunk->wide ? chunk->wide[index] : chunk->narrow[index];
}

uint64_t qcow2_refmap_next(Qcow2RefMap *map, uint64_t cluster, uint64_t end)
{
    while (cluster < end && !find_chunk(map, cluster >> CHUNK_BITS)) {
        cluster = (cluster | (CHUNK - 1)) + 1;
    }
    return MIN(cluster, end);
}
