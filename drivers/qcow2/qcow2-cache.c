/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: the cache of L2 tables, in slices.
 *
 * Slices spread over shards by their number, each with a mutex that is held
 * for a look-up only, and a CoMutex under which a slice is read.
 *
 * Invariants:
 *  1. A slice's words change only while it is pinned, word by word (atomic).
 *  2. A shard holds at most max_slices that are not pinned; what is taken out of it
 *     lives on until its last holder gives it back.
 *  3. A slice is in by_offset exactly if it is in lru or pinned, but for what was
 *     dropped; the shard owns one reference.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2.h"

#define MAX_SHARDS 16

struct Qcow2Slice {
    gint refs; /* atomic */
    gint checked; /* atomic; Qcow2SliceCheck */
    uint64_t offset; /* in the file: the key */
    GList link;      /* in lru */
    /* Under the shard's lock: */
    unsigned pins;
    uint64_t used_at; /* Shard.turn */
    bool dropped; /* no longer in the cache */
    /* Under the writer's: listed to be written back. */
    bool dirty;
    uint64_t words[];
};

typedef struct Shard {
    GMutex lock;
    GHashTable *by_offset; /* under lock */
    GQueue lru;            /* under lock; newest first */
    uint64_t turn;         /* under lock: of cleaning */
    CoMutex load_lock;
} Shard;

struct Qcow2Cache {
    uint64_t slice_bytes;
    unsigned slice_bits;
    unsigned shards;
    size_t max_slices; /* per shard */
    Shard shard[MAX_SHARDS];
};

Qcow2Cache *qcow2_cache_new(uint64_t max_bytes, uint64_t slice_bytes)
{
    Qcow2Cache *cache = g_new0(Qcow2Cache, 1);
    uint64_t slices = MAX(max_bytes / slice_bytes, 1);

    cache->slice_bytes = slice_bytes;
    cache->slice_bits = g_bit_storage(slice_bytes) - 1;
    cache->shards = MIN(slices, MAX_SHARDS);
    cache->max_slices = slices / cache->shards;
    for (unsigned i = 0; i < cache->shards; i++) {
        Shard *shard = &cache->shard[i];

        g_mutex_init(&shard->lock);
        co_mutex_init(&shard->load_lock);
        g_queue_init(&shard->lru);
        shard->by_offset = g_hash_table_new(g_int64_hash, g_int64_equal);
    }
    return cache;
}

void qcow2_slice_unref(Qcow2Slice *slice)
{
    if (g_atomic_int_dec_and_test(&slice->refs)) {
        g_free(slice);
    }
}

const uint64_t *qcow2_slice_words(const Qcow2Slice *slice)
{
    return slice->words;
}

uint64_t *qcow2_slice_writable(Qcow2Slice *slice)
{
    g_assert(slice->pins > 0);
    return slice->words;
}

uint64_t qcow2_slice_offset(const Qcow2Slice *slice)
{
    return slice->offset;
}

bool qcow2_slice_set_dirty(Qcow2Slice *slice, bool dirty)
{
    bool was = slice->dirty;

    slice->dirty = dirty;
    return was;
}

Qcow2SliceCheck qcow2_slice_checked(const Qcow2Slice *slice)
{
    return g_atomic_int_get(&slice->checked);
}

void qcow2_slice_set_checked(Qcow2Slice *slice, Qcow2SliceCheck checked)
{
    g_atomic_int_set(&slice->checked, checked);
}

/* Take the oldest slice out of @shard. Under its lock. */
static void evict_oldest(Shard *shard)
{
    GList *link = g_queue_pop_tail_link(&shard->lru);
    Qcow2Slice *slice = link->data;

    g_hash_table_remove(shard->by_offset, &slice->offset);
    qcow2_slice_unref(slice);
}

void qcow2_cache_free(Qcow2Cache *cache)
{
    if (!cache) {
        return;
    }
    for (unsigned i = 0; i < cache->shards; i++) {
        Shard *shard = &cache->shard[i];

        while (shard->lru.length > 0) {
            evict_oldest(shard);
        }
        g_assert(g_hash_table_size(shard->by_offset) == 0);
        g_hash_table_unref(shard->by_offset);
        co_mutex_destroy(&shard->load_lock);
        g_mutex_clear(&shard->lock);
    }
    g_free(cache);
}

size_t qcow2_cache_count(Qcow2Cache *cache)
{
    size_t count = 0;

    for (unsigned i = 0; i < cache->shards; i++) {
        g_mutex_lock(&cache->shard[i].lock);
        count += g_hash_table_size(cache->shard[i].by_offset);
        g_mutex_unlock(&cache->shard[i].lock);
    }
    return count;
}

/* The slice with a reference for the caller, or NULL. */
static Qcow2Slice *lookup(Shard *shard, uint64_t offset)
{
    Qcow2Slice *slice;

    g_mutex_lock(&shard->lock);
    slice = g_hash_table_lookup(shard->by_offset, &offset);
    if (slice) {
        g_atomic_int_inc(&slice->refs);
        slice->used_at = shard->turn;
        if (slice->pins == 0 && shard->lru.head != &slice->link) {
            g_queue_unlink(&shard->lru, &slice->link);
            g_queue_push_head_link(&shard->lru, &slice->link);
        }
    }
    g_mutex_unlock(&shard->lock);
    return slice;
}

/* Put @slice in; the shard takes a reference of its own. */
static void insert(const Qcow2Cache *cache, Shard *shard, Qcow2Slice *slice)
{
    g_mutex_lock(&shard->lock);
    while (shard->lru.length >= cache->max_slices) {
        evict_oldest(shard);
    }
    g_atomic_int_inc(&slice->refs);
    slice->used_at = shard->turn;
    g_hash_table_insert(shard->by_offset, &slice->offset, slice);
    g_queue_push_head_link(&shard->lru, &slice->link);
    g_mutex_unlock(&shard->lock);
}

static Qcow2Slice *slice_new(const Qcow2Cache *cache, uint64_t offset)
{
    Qcow2Slice *slice = g_malloc0(sizeof(*slice) + cache->slice_bytes);

    slice->refs = 1;
    slice->offset = offset;
    slice->link = (GList){ .data = slice };
    return slice;
}

static int coroutine_fn GRAPH_RDLOCK load(const Qcow2Cache *cache, BdrvChild *file, uint64_t offset,
                                          Qcow2Slice **result)
{
    Qcow2Slice *slice = slice_new(cache, offset);
    int ret;

    bdrv_co_debug_event(file, BDRV_DEBUG_L2_LOAD);
    ret = bdrv_co_pread(file, offset, cache->slice_bytes, slice->words, 0);
    if (ret < 0) {
        g_free(slice);
        return ret;
    }
    qcow2_words_to_host(slice->words, cache->slice_bytes / sizeof(uint64_t));
    *result = slice;
    return 0;
}

static Shard *shard_of(Qcow2Cache *cache, uint64_t offset)
{
    return &cache->shard[(offset >> cache->slice_bits) % cache->shards];
}

int coroutine_fn qcow2_cache_get(Qcow2Cache *cache, BdrvChild *file, uint64_t offset,
                                 Qcow2Slice **slice)
{
    Shard *shard = shard_of(cache, offset);
    int ret = 0;

    *slice = lookup(shard, offset);
    if (*slice) {
        return 0;
    }
    co_mutex_lock(&shard->load_lock);
    *slice = lookup(shard, offset);
    if (!*slice) {
        ret = load(cache, file, offset, slice);
        if (ret == 0) {
            insert(cache, shard, *slice);
        }
    }
    co_mutex_unlock(&shard->load_lock);
    return ret;
}

/* Under the shard's lock. */
static void pin_locked(Shard *shard, Qcow2Slice *slice)
{
    if (slice->pins++ == 0) {
        g_queue_unlink(&shard->lru, &slice->link);
    }
}

bool qcow2_cache_pin(Qcow2Cache *cache, Qcow2Slice *slice)
{
    Shard *shard = shard_of(cache, slice->offset);
    bool found;

    g_mutex_lock(&shard->lock);
    found = g_hash_table_lookup(shard->by_offset, &slice->offset) == slice;
    if (found) {
        pin_locked(shard, slice);
    }
    g_mutex_unlock(&shard->lock);
    return found;
}

void qcow2_cache_unpin(Qcow2Cache *cache, Qcow2Slice *slice)
{
    Shard *shard = shard_of(cache, slice->offset);

    g_mutex_lock(&shard->lock);
    if (--slice->pins == 0 && !slice->dropped) {
        while (shard->lru.length >= cache->max_slices) {
            evict_oldest(shard);
        }
        slice->used_at = shard->turn;
        g_queue_push_head_link(&shard->lru, &slice->link);
    }
    g_mutex_unlock(&shard->lock);
}

Qcow2Slice *qcow2_cache_add(Qcow2Cache *cache, uint64_t offset, const uint64_t *words)
{
    Qcow2Slice *slice = slice_new(cache, offset);
    Shard *shard = shard_of(cache, offset);

    if (words) {
        memcpy(slice->words, words, cache->slice_bytes);
    }
    qcow2_cache_drop(cache, offset);
    g_mutex_lock(&shard->lock);
    slice->refs = 2;
    slice->pins = 1;
    g_hash_table_insert(shard->by_offset, &slice->offset, slice);
    g_mutex_unlock(&shard->lock);
    return slice;
}

void qcow2_cache_drop(Qcow2Cache *cache, uint64_t offset)
{
    Shard *shard = shard_of(cache, offset);
    Qcow2Slice *slice;

    g_mutex_lock(&shard->lock);
    slice = g_hash_table_lookup(shard->by_offset, &offset);
    if (slice) {
        g_hash_table_remove(shard->by_offset, &offset);
        slice->dropped = true;
        if (slice->pins == 0) {
            g_queue_unlink(&shard->lru, &slice->link);
        }
        qcow2_slice_unref(slice);
    }
    g_mutex_unlock(&shard->lock);
}

bool qcow2_slice_is_dropped(Qcow2Cache *cache, const Qcow2Slice *slice)
{
    Shard *shard = shard_of(cache, slice->offset);
    bool dropped;

    g_mutex_lock(&shard->lock);
    dropped = slice->dropped;
    g_mutex_unlock(&shard->lock);
    return dropped;
}

void qcow2_cache_clean(Qcow2Cache *cache)
{
    for (unsigned i = 0; i < cache->shards; i++) {
        Shard *shard = &cache->shard[i];

        g_mutex_lock(&shard->lock);
        while (shard->lru.length > 0) {
            evict_oldest(shard);
        }
        g_mutex_unlock(&shard->lock);
    }
}

bool qcow2_cache_clean_unused(Qcow2Cache *cache)
{
    bool left = false;

    for (unsigned i = 0; i < cache->shards; i++) {
        Shard *shard = &cache->shard[i];

        g_mutex_lock(&shard->lock);
        /* What is at the end was used least recently. */
        while (shard->lru.length > 0 &&
               ((Qcow2Slice *)g_queue_peek_tail(&shard->lru))->used_at < shard->turn) {
            evict_oldest(shard);
        }
        left |= shard->lru.length > 0;
        shard->turn++;
        g_mutex_unlock(&shard->lock);
    }
    return left;
}
