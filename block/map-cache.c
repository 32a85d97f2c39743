/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mapping cache: a table of buckets, one per granule of the guest disk
 * (granules that are far apart share buckets, and evict each other), with a
 * few extents each that lie inside the granule.
 *
 * Concurrency:
 *  a. A bucket's seq is odd while somebody, who made it so by compare and
 *     swap, changes the bucket. A reader copies, and looks again whether seq
 *     is still the even number that it found first.
 *  b. Readers load the words with acquire, writers store them with release: a
 *     reader that gets a new word then also sees the odd seq that was stored
 *     before it.
 *
 * What may be cached:
 *  c. Every invalidation has a number, its epoch. Each bucket that it touches
 *     notes the epoch (forgotten), a large one is noted for all buckets at
 *     once (flushed). An insert whose mapping was asked for before is dropped.
 *  d. A bucket whose contents come from before the last flush (filled !=
 *     flushed) is empty, whatever stands in it.
 */
#include <string.h>
#include "block/map-cache.h"

/* Makes a bucket 256 bytes, and its first line all that a miss needs to see. */
#define EXTENTS 5
#define LINE_BYTES 64
/* A place in a granule fits into 32 bits. */
#define MAX_GRANULE (INT64_C(1) << 31)
/* A range of more granules than this is forgotten by a flush. */
#define MAX_SWEEP 1024

typedef struct Extent {
    uint64_t child;
    uint64_t child_offset;
    uint64_t decode;
    uint64_t info; /* INFO_… */
} Extent;

#define INFO_TARGET UINT64_C(3)
#define INFO_RECURSE (UINT64_C(1) << 2)
#define INFO_WRITABLE (UINT64_C(1) << 3)
#define INFO_RAW (UINT64_C(1) << 4)
#define INFO_CHILD_BYTES_SHIFT 8

typedef struct Bucket {
    uint64_t seq;
    uint64_t tag;            /* number of the granule + 1; 0: none */
    uint64_t filled;         /* flushed, when it was filled */
    uint64_t place[EXTENTS]; /* offset in the granule << 32 | bytes; 0: none */
    Extent extents[EXTENTS];
    /* Of no interest to readers: */
    uint64_t forgotten;      /* the epoch of the last invalidation here */
    uint64_t hand;           /* the extent to be replaced next */
} __attribute__((aligned(LINE_BYTES))) Bucket;

struct MapCache {
    void *memory;
    Bucket *buckets;
    uint64_t mask;    /* number of buckets - 1 */
    unsigned index_bits;
    unsigned granule_bits;
    uint64_t flushed; /* atomic: the epoch of the last invalidation of all */

    char pad[LINE_BYTES]; /* what changes often is kept off the line that all read */
    uint64_t epoch;       /* atomic */
};

/* ---- Atomic words --------------------------------------------------------------- */

static uint64_t get(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void set(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static bool try_lock(Bucket *b)
{
    uint64_t seq = __atomic_load_n(&b->seq, __ATOMIC_RELAXED);

    return !(seq & 1) && __atomic_compare_exchange_n(&b->seq, &seq, seq + 1, false,
                                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Buckets are held for a few dozen instructions, but the holder may be preempted. */
static void lock(Bucket *b)
{
    while (!try_lock(b)) {
        g_thread_yield();
    }
}

static void unlock(Bucket *b)
{
    set(&b->seq, __atomic_load_n(&b->seq, __ATOMIC_RELAXED) + 1);
}

/* ---- Making ---------------------------------------------------------------------- */

MapCache *map_cache_new(int64_t granule, size_t max_bytes)
{
    MapCache *cache = g_new0(MapCache, 1);
    size_t buckets = 1;

    G_STATIC_ASSERT(sizeof(Bucket) == 4 * LINE_BYTES);
    while (buckets * 2 <= max_bytes / sizeof(Bucket)) {
        buckets *= 2;
    }
    cache->mask = buckets - 1;
    cache->index_bits = g_bit_nth_msf(buckets, -1);
    cache->granule_bits = g_bit_nth_msf(MIN(granule, MAX_GRANULE), -1);
    /* Zeroed by the allocator: pages that are never used cost nothing. */
    cache->memory = g_malloc0(buckets * sizeof(Bucket) + LINE_BYTES);
    cache->buckets = (Bucket *)(((uintptr_t)cache->memory + LINE_BYTES - 1) &
                                ~(uintptr_t)(LINE_BYTES - 1));
    return cache;
}

void map_cache_free(MapCache *cache)
{
    if (cache) {
        g_free(cache->memory);
        g_free(cache);
    }
}

uint64_t map_cache_epoch(const MapCache *cache)
{
    return get(&cache->epoch);
}

/* ---- Looking up ------------------------------------------------------------------ */

/* Neighbours in order; what is a power of two apart is spread. */
static Bucket *find_bucket(MapCache *cache, uint64_t granule)
{
    return &cache->buckets[(granule + (granule >> cache->index_bits) * 0x9e3779b1) & cache->mask];
}

static bool contains(uint64_t place, uint64_t rel)
{
    return rel - (place >> 32) < (uint32_t)place;
}

/*
 * Starts with a copy of nothing: for a compound literal the compiler clears
 * memory with a string instruction, which costs more than the rest of a lookup.
 */
static void set_mapping(BdrvMapping *mapping, uint64_t start, uint64_t place, const Extent *e)
{
    static const BdrvMapping nothing;

    *mapping = nothing;
    mapping->offset = start + (place >> 32);
    mapping->bytes = (uint32_t)place;
    mapping->target = e->info & INFO_TARGET;
    mapping->child = (BdrvChild *)(uintptr_t)e->child;
    mapping->child_offset = e->child_offset;
    mapping->child_bytes = e->info >> INFO_CHILD_BYTES_SHIFT;
    mapping->decode = (BdrvDecodeFunc *)(uintptr_t)e->decode;
    mapping->recurse = e->info & INFO_RECURSE;
    mapping->raw = e->info & INFO_RAW;
    mapping->writable = e->info & INFO_WRITABLE;
}

bool map_cache_lookup(MapCache *cache, int64_t offset, BdrvMapping *mapping)
{
    const uint64_t granule = (uint64_t)offset >> cache->granule_bits;
    const uint64_t start = granule << cache->granule_bits;
    const Bucket *b = find_bucket(cache, granule);
    const uint64_t flushed = get(&cache->flushed);
    const uint64_t seq = get(&b->seq);
    uint64_t place = 0;
    Extent e;
    unsigned i;

    if ((seq & 1) || get(&b->tag) != granule + 1 || get(&b->filled) != flushed) {
        return false;
    }
    for (i = 0; i < EXTENTS; i++) {
        place = get(&b->place[i]);
        if (contains(place, offset - start)) {
            break;
        }
    }
    if (i == EXTENTS) {
        return false;
    }
    e.child = get(&b->extents[i].child);
    e.child_offset = get(&b->extents[i].child_offset);
    e.decode = get(&b->extents[i].decode);
    e.info = get(&b->extents[i].info);
    if (__atomic_load_n(&b->seq, __ATOMIC_RELAXED) != seq) {
        return false;
    }
    set_mapping(mapping, start, place, &e);
    return true;
}

/* ---- Changing -------------------------------------------------------------------- */

/* Forget all extents that overlap [rel, rel + bytes) of the granule. Locked. */
static void forget(Bucket *b, uint64_t rel, uint64_t bytes)
{
    for (unsigned i = 0; i < EXTENTS; i++) {
        uint64_t place = b->place[i];

        if (place >> 32 < rel + bytes && rel < (place >> 32) + (uint32_t)place) {
            set(&b->place[i], 0);
        }
    }
}

/* The extent to write to: a free one, or the one whose turn it is. Locked. */
static unsigned choose_extent(Bucket *b)
{
    for (unsigned i = 0; i < EXTENTS; i++) {
        if (b->place[i] == 0) {
            return i;
        }
    }
    b->hand = (b->hand + 1) % EXTENTS;
    return b->hand;
}

/* Locked. [rel, rel + bytes) is the part of @mapping in the granule at @start. */
static void put_extent(Bucket *b, uint64_t start, uint64_t rel, uint64_t bytes,
                       const BdrvMapping *mapping)
{
    unsigned i = choose_extent(b);
    Extent *e = &b->extents[i];
    uint64_t child_offset = mapping->child_offset;

    if (mapping->child) {
        child_offset += start + rel - mapping->offset;
    }
    set(&b->place[i], rel << 32 | bytes);
    set(&e->child, (uintptr_t)mapping->child);
    set(&e->child_offset, child_offset);
    set(&e->decode, (uintptr_t)mapping->decode);
    set(&e->info, mapping->target | (mapping->recurse ? INFO_RECURSE : 0) |
                  (mapping->writable ? INFO_WRITABLE : 0) | (mapping->raw ? INFO_RAW : 0) |
                  (uint64_t)mapping->child_bytes << INFO_CHILD_BYTES_SHIFT);
}

/* Whether the whole of @mapping has to be cached or nothing. */
static bool is_indivisible(const BdrvMapping *mapping)
{
    return mapping->target == BDRV_MAP_ENCODED;
}

/* Whether @mapping says something that is not kept here. */
static bool is_special(const BdrvMapping *mapping)
{
    return mapping->needs_commit || mapping->fresh || mapping->child_bytes < 0 ||
           mapping->child_bytes > INT64_MAX >> INFO_CHILD_BYTES_SHIFT;
}

void map_cache_insert(MapCache *cache, uint64_t epoch, int64_t offset,
                      const BdrvMapping *mapping)
{
    const uint64_t granule = (uint64_t)offset >> cache->granule_bits;
    const uint64_t start = granule << cache->granule_bits;
    const uint64_t end = start + (UINT64_C(1) << cache->granule_bits);
    const uint64_t from = MAX(start, mapping->offset);
    const uint64_t to = MIN(end, (uint64_t)mapping->offset + mapping->bytes);
    Bucket *b = find_bucket(cache, granule);
    uint64_t flushed;

    if (from >= to || is_special(mapping) ||
        (is_indivisible(mapping) && to - from != mapping->bytes)) {
        return;
    }
    /* Whoever holds the bucket: this mapping can be asked for again. */
    if (!try_lock(b)) {
        return;
    }
    /* A later flush is harmless: filled tells that this is from before it. */
    flushed = get(&cache->flushed);
    if (flushed <= epoch && b->forgotten <= epoch) {
        if (b->tag != granule + 1 || b->filled != flushed) {
            forget(b, 0, UINT64_MAX >> 1);
            set(&b->tag, granule + 1);
            set(&b->filled, flushed);
        }
        forget(b, from - start, to - from);
        put_extent(b, start, from - start, to - from, mapping);
    }
    unlock(b);
}

/* Note @epoch as the last flush, unless there was a later one meanwhile. */
static void flush(MapCache *cache, uint64_t epoch)
{
    uint64_t old = __atomic_load_n(&cache->flushed, __ATOMIC_RELAXED);

    while (old < epoch && !__atomic_compare_exchange_n(&cache->flushed, &old, epoch, false,
                                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
}

void map_cache_invalidate(MapCache *cache, int64_t offset, int64_t bytes)
{
    const uint64_t end = (uint64_t)offset + bytes;
    const uint64_t first = (uint64_t)offset >> cache->granule_bits;
    uint64_t epoch, last;

    if (bytes <= 0) {
        return;
    }
    last = (end - 1) >> cache->granule_bits;
    epoch = __atomic_add_fetch(&cache->epoch, 1, __ATOMIC_SEQ_CST);
    if (last - first >= MAX_SWEEP) {
        flush(cache, epoch);
        return;
    }
    for (uint64_t granule = first; granule <= last; granule++) {
        const uint64_t start = granule << cache->granule_bits;
        const uint64_t from = MAX(start, (uint64_t)offset);
        Bucket *b = find_bucket(cache, granule);

        lock(b);
        b->forgotten = MAX(b->forgotten, epoch);
        if (b->tag == granule + 1) {
            forget(b, from - start, end - from);
        }
        unlock(b);
    }
}
