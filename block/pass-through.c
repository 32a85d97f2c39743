/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pass-through: a backend's cache, composed downward, and invalidated upward.
 *
 * Who learns and who excludes meet like this: the learner takes the cache's epoch
 * before it asks any node, and looks for exclusive claims after; the excluder
 * claims, and then invalidates, which begins a new epoch. Either the learner
 * finds the claim, and leaves out what it covers, or what it puts in is of an old
 * epoch. An answer that was old already when the claim ended is of an old epoch
 * as well, since drivers invalidate again when a change is visible.
 */
#include "block/io-int.h"
#include "block/pass-through.h"
#include "block/slot.h"

/* Bytes; and what one bucket of it spans, where nodes do not say. */
#define CACHE_BYTES (512 << 10)
#define CACHE_UNITS 16
#define CACHE_MIN_GRANULE (64 << 10)
#define CACHE_MAX_GRANULE (INT64_C(1) << 31)
/* Ranges that lie behind more nodes than this are not learned. */
#define MAX_DEPTH 16

/* ---- Looking up ------------------------------------------------------------------ */

bool pass_through_find(PassThrough *pass, int64_t offset, int64_t bytes, PassTarget *target)
{
    MapCache *cache = __atomic_load_n(&pass->cache, __ATOMIC_ACQUIRE);
    BdrvMapping m;

    if (!cache || !map_cache_lookup(cache, offset, &m) || m.offset + m.bytes - offset < bytes) {
        return false;
    }
    *target = (PassTarget){m.child->bs, bdrv_mapping_place(&m, offset), m.writable};
    return true;
}

/* ---- Learning -------------------------------------------------------------------- */

/* A way down, as far as it was walked. */
typedef struct Way {
    BdrvChild *child; /* where it has come to */
    int64_t offset;   /* there */
    int64_t before;   /* how much in front of offset lies in the same way, bytes */
    int64_t after;    /* and from it on */
    bool writable;
    unsigned depth;
    Claim claims[MAX_DEPTH];
    ClaimSet *sets[MAX_DEPTH]; /* where a node does not take claims: NULL */
} Way;

/* Whether requests of @type may go by without the node seeing them. */
static bool is_transparent(BlockDriverState *bs, BdrvIoType type)
{
    if (bdrv_hook_sees(bs, type)) {
        return false;
    }
    if (type == BDRV_IO_READ) {
        return !(bs->open_flags & BDRV_O_COPY_ON_READ);
    }
    return (!bs->read_only && !__atomic_load_n(&bs->dirty_bitmaps, __ATOMIC_ACQUIRE) &&
            __atomic_load_n(&bs->write_threshold, __ATOMIC_RELAXED) == 0 &&
            bs->detect_zeroes == BDRV_DETECT_ZEROES_OFF);
}

static void narrow(Way *way, int64_t start, int64_t end)
{
    way->before = MIN(way->before, way->offset - start);
    way->after = MIN(way->after, end - way->offset);
}

/* Follow the answer of @bs; false if it does not lead on. */
static bool follow(Way *way, BlockDriverState *bs, const BdrvMapping *m) GRAPH_RDLOCK
{
    narrow(way, m->offset, m->offset + m->bytes);
    way->writable = way->writable && m->target == BDRV_MAP_DATA && m->writable;
    if (m->target == BDRV_MAP_DATA) {
        way->child = m->child;
        way->offset = bdrv_mapping_place(m, way->offset);
    } else {
        way->child = m->target == BDRV_MAP_UNALLOCATED ? bdrv_cow_child(bs) : NULL;
    }
    return way->child != NULL;
}

/* One node down. 1: there is more; 0: this node moves the data; -errno: no way. */
static int coroutine_fn GRAPH_RDLOCK step(Way *way, int64_t bytes)
{
    BlockDriverState *bs = way->child->bs;
    ClaimSet *set = bdrv_takes_claims(bs) ? bs->claims : NULL;
    int64_t start, end, n;
    BdrvMapping m;
    int ret;

    narrow(way, 0, bdrv_getlength(bs));
    if (way->after < bytes || !is_transparent(bs, BDRV_IO_READ)) {
        return -ENOTSUP;
    }
    way->writable = way->writable && is_transparent(bs, BDRV_IO_WRITE);
    if (bdrv_moves_data(bs)) {
        return bs->drv->bdrv_prepare_aio ? 0 : -ENOTSUP;
    }
    if (way->depth == MAX_DEPTH) {
        return -ENOTSUP;
    }
    if (set) {
        claim_begin(set, &way->claims[way->depth], way->offset, bytes, false);
    }
    way->sets[way->depth++] = set;
    ret = bdrv_co_map_range(bs, BDRV_MAP_READ, way->offset, bytes, 0, 0, &m, &n);
    if (ret < 0) {
        return ret;
    }
    if (set) {
        start = m.offset;
        end = m.offset + m.bytes;
        if (!claim_set_trim(set, way->offset, &start, &end)) {
            return -EBUSY;
        }
        narrow(way, start, end);
    }
    return follow(way, bs, &m) ? 1 : -ENOTSUP;
}

static MapCache *GRAPH_RDLOCK get_cache(PassThrough *pass, BlockDriverState *bs)
{
    MapCache *cache = __atomic_load_n(&pass->cache, __ATOMIC_ACQUIRE), *made;
    int64_t granule = bs->map_unit > 1 ? MAX(bs->map_unit * CACHE_UNITS, CACHE_MIN_GRANULE)
                                       : CACHE_MAX_GRANULE;

    if (cache) {
        return cache;
    }
    made = map_cache_new(MIN(granule, CACHE_MAX_GRANULE), CACHE_BYTES);
    if (__atomic_compare_exchange_n(&pass->cache, &cache, made, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_ACQUIRE)) {
        return made;
    }
    map_cache_free(made);
    return cache;
}

void coroutine_fn pass_through_learn(PassThrough *pass, BdrvChild *root, int64_t offset,
                                     int64_t bytes)
{
    MapCache *cache = get_cache(pass, root->bs);
    uint64_t epoch = map_cache_epoch(cache);
    Way way = {.child = root, .offset = offset, .before = offset,
               .after = BDRV_MAX_LENGTH - offset, .writable = true};
    int ret;

    bdrv_graph_assert_readable();
    do {
        ret = step(&way, bytes);
    } while (ret > 0);
    if (ret == 0 && way.after >= bytes) {
        BdrvMapping m = {.offset = offset - way.before, .bytes = way.before + way.after,
                         .target = BDRV_MAP_DATA, .child = way.child,
                         .child_offset = way.offset - way.before, .writable = way.writable};

        map_cache_insert(cache, epoch, offset, &m);
    }
    while (way.depth-- > 0) {
        if (way.sets[way.depth]) {
            claim_end(way.sets[way.depth], &way.claims[way.depth]);
        }
    }
}

/* ---- Going up -------------------------------------------------------------------- */

typedef void VisitFunc(PassThrough *pass, int64_t offset, int64_t bytes, void *opaque);

/* Call @visit for all above @bs, with the range there that may lead to this one. */
static void visit_above(BlockDriverState *bs, int64_t offset, int64_t bytes, VisitFunc *visit,
                        void *opaque) GRAPH_RDLOCK
{
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        if (parent->ops->pass_through) {
            visit(parent->ops->pass_through(parent), offset, bytes, opaque);
        } else if (!parent->ops->is_node) {
            continue;
        } else if (parent->role & (BDRV_CHILD_COW | BDRV_CHILD_FILTERED)) {
            visit_above(parent->parent, offset, bytes, visit, opaque); /* at the same offset */
        } else {
            visit_above(parent->parent, 0, INT64_MAX, visit, opaque);
        }
    }
}

static void invalidate(PassThrough *pass, int64_t offset, int64_t bytes, void *opaque)
{
    MapCache *cache = __atomic_load_n(&pass->cache, __ATOMIC_SEQ_CST);

    if (cache) {
        map_cache_invalidate(cache, offset, bytes);
    }
}

static void invalidate_and_note(PassThrough *pass, int64_t offset, int64_t bytes, void *opaque)
{
    if (__atomic_load_n(&pass->cache, __ATOMIC_SEQ_CST)) {
        invalidate(pass, offset, bytes, NULL);
        slot_wait_add(opaque, pass, offset, bytes);
    }
}

void pass_through_invalidate(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    bdrv_graph_assert_readable();
    visit_above(bs, offset, bytes, invalidate, NULL);
}

void coroutine_fn pass_through_exclude(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    SlotWait wait = {NULL};

    bdrv_graph_assert_readable();
    visit_above(bs, offset, bytes, invalidate_and_note, &wait);
    slot_wait_finish(&wait);
}

/* ---- Life ------------------------------------------------------------------------ */

void pass_through_destroy(PassThrough *pass)
{
    /* Atomic: who has no slot yet may look whether there is one. */
    map_cache_free(__atomic_exchange_n(&pass->cache, NULL, __ATOMIC_SEQ_CST));
}

void pass_through_reset(PassThrough *pass)
{
    bdrv_graph_assert_writable();
    pass_through_destroy(pass);
}
