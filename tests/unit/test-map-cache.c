/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mapping cache: what comes back of what was put in, that nothing stale
 * does, and that readers on four threads only ever see whole mappings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <string.h>
#include <cmocka.h>
#include <glib.h>
#include "block/map-cache.h"

#define GRANULE 65536

static BdrvChild *const child_a = (BdrvChild *)0x1000;
static BdrvChild *const child_b = (BdrvChild *)0x2000;

static int decode(BlockDriverState *bs, const BdrvMapping *mapping, const uint8_t *src,
                  size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    return 0;
}

static BdrvMapping data(int64_t offset, int64_t bytes, int64_t child_offset)
{
    return (BdrvMapping) {
        .offset = offset, .bytes = bytes, .target = BDRV_MAP_DATA,
        .child = child_a, .child_offset = child_offset,
    };
}

static void put(MapCache *cache, int64_t offset, BdrvMapping mapping)
{
    map_cache_insert(cache, map_cache_epoch(cache), offset, &mapping);
}

/* All that is cached, and every other byte 0: whoever adds a member comes by here. */
static bool same_mapping(const BdrvMapping *found, const BdrvMapping *mapping)
{
    BdrvMapping expected;

    memset(&expected, 0, sizeof(expected));
    expected.offset = mapping->offset;
    expected.bytes = mapping->bytes;
    expected.target = mapping->target;
    expected.child = mapping->child;
    expected.child_offset = mapping->child_offset;
    expected.child_bytes = mapping->child_bytes;
    expected.decode = mapping->decode;
    expected.recurse = mapping->recurse;
    expected.raw = mapping->raw;
    expected.writable = mapping->writable;
    return memcmp(found, &expected, sizeof(expected)) == 0;
}

static void assert_mapping(MapCache *cache, int64_t offset, BdrvMapping expected)
{
    BdrvMapping found;

    memset(&found, 0xff, sizeof(found));
    assert_true(map_cache_lookup(cache, offset, &found));
    assert_int_equal(found.offset, expected.offset);
    assert_int_equal(found.bytes, expected.bytes);
    assert_int_equal(found.child_offset, expected.child_offset);
    assert_true(same_mapping(&found, &expected));
}

static void assert_nothing(MapCache *cache, int64_t offset)
{
    BdrvMapping m;

    assert_false(map_cache_lookup(cache, offset, &m));
}

/* ---- What comes back -------------------------------------------------------------- */

static void mappings_come_back_whole(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    BdrvMapping m = data(4096, 8192, 1 << 30);

    m.recurse = true;
    m.writable = true;
    m.raw = true;
    assert_nothing(cache, 0);
    put(cache, 5000, m);
    assert_mapping(cache, 4096, m);
    assert_mapping(cache, 12287, m);
    assert_nothing(cache, 4095);
    assert_nothing(cache, 12288);

    m = (BdrvMapping) { .offset = 12288, .bytes = 4096, .target = BDRV_MAP_ZERO };
    put(cache, 12288, m);
    assert_mapping(cache, 12288, m);
    m = (BdrvMapping) { .offset = 16384, .bytes = 1, .target = BDRV_MAP_UNALLOCATED };
    put(cache, 16384, m);
    assert_mapping(cache, 16384, m);
    m = (BdrvMapping) {
        .offset = 32768, .bytes = 32768, .target = BDRV_MAP_ENCODED, .child = child_b,
        .child_offset = 12345, .child_bytes = 30001, .decode = decode,
    };
    put(cache, 40000, m);
    assert_mapping(cache, 65535, m);
    map_cache_free(cache);
}

static void extents_are_cut_to_the_granule(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    const int64_t offset = GRANULE - 512, bytes = 2 * GRANULE + 1024;

    put(cache, 2 * GRANULE - 1, data(offset, bytes, 7 * GRANULE));
    assert_mapping(cache, GRANULE, data(GRANULE, GRANULE, 7 * GRANULE + 512));
    assert_nothing(cache, GRANULE - 1);
    assert_nothing(cache, 2 * GRANULE);
    put(cache, offset, data(offset, bytes, 7 * GRANULE));
    assert_mapping(cache, GRANULE - 1, data(offset, 512, 7 * GRANULE));
    put(cache, offset + bytes - 1, data(offset, bytes, 7 * GRANULE));
    assert_mapping(cache, 3 * GRANULE, data(3 * GRANULE, 512, 9 * GRANULE + 512));
    map_cache_free(cache);
}

static void places_of_zeroes_are_moved_with_the_cut(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    BdrvMapping m = data(0, 2 * GRANULE, 0x10000);

    m.target = BDRV_MAP_ZERO;
    put(cache, GRANULE, m);
    m.offset = m.bytes = GRANULE;
    m.child_offset += GRANULE;
    assert_mapping(cache, GRANULE, m);
    m = (BdrvMapping) { .offset = 0, .bytes = 2 * GRANULE, .target = BDRV_MAP_UNALLOCATED };
    put(cache, GRANULE, m);
    m.offset = m.bytes = GRANULE;
    assert_mapping(cache, GRANULE, m);
    map_cache_free(cache);
}

static void what_cannot_be_kept_is_not(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    BdrvMapping m = data(0, 2 * GRANULE, 0);

    m.target = BDRV_MAP_ENCODED; /* larger than the granule */
    put(cache, 0, m);
    assert_nothing(cache, 0);
    m = data(0, 512, 0);
    m.needs_commit = true;
    put(cache, 0, m);
    assert_nothing(cache, 0);
    m = data(0, 512, 0);
    m.fresh = true;
    put(cache, 0, m);
    assert_nothing(cache, 0);
    m = data(0, 512, 0);
    m.child_bytes = INT64_MAX;
    put(cache, 0, m);
    assert_nothing(cache, 0);
    put(cache, GRANULE, data(0, 512, 0)); /* not about this granule */
    assert_nothing(cache, 0);
    assert_nothing(cache, GRANULE);
    map_cache_free(cache);
}

static void newer_mappings_replace_what_they_overlap(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);

    put(cache, 0, data(0, 4096, 0));
    put(cache, 4096, data(4096, 4096, 1 << 20));
    put(cache, 8192, data(8192, 4096, 2 << 20));
    put(cache, 2048, data(2048, 2049, 3 << 20));
    assert_nothing(cache, 0);
    assert_mapping(cache, 4096, data(2048, 2049, 3 << 20));
    assert_nothing(cache, 4097);
    assert_mapping(cache, 8192, data(8192, 4096, 2 << 20));
    map_cache_free(cache);
}

static void a_full_bucket_forgets_one(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    int found = 0;

    for (int i = 0; i < 20; i++) {
        put(cache, i * 512, data(i * 512, 512, i * 4096));
        assert_mapping(cache, i * 512, data(i * 512, 512, i * 4096));
        if (i > 0) {
            assert_mapping(cache, (i - 1) * 512, data((i - 1) * 512, 512, (i - 1) * 4096));
        }
    }
    for (int i = 0; i < 20; i++) {
        BdrvMapping m;

        found += map_cache_lookup(cache, i * 512, &m);
    }
    assert_in_range(found, 2, 19);
    map_cache_free(cache);
}

static void granules_that_share_a_bucket_evict_each_other(void **state)
{
    /* Room for one bucket. */
    MapCache *cache = map_cache_new(GRANULE, 1);

    put(cache, 0, data(0, GRANULE, 0));
    put(cache, 5 * GRANULE, data(5 * GRANULE, 512, 512));
    assert_nothing(cache, 0);
    assert_mapping(cache, 5 * GRANULE, data(5 * GRANULE, 512, 512));
    map_cache_invalidate(cache, 0, GRANULE);
    assert_mapping(cache, 5 * GRANULE, data(5 * GRANULE, 512, 512));
    map_cache_free(cache);
}

static void neighbouring_granules_are_kept_together(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    /* As many granules as there are buckets, from a multiple of that. */
    const int64_t base = INT64_C(1000003) * 4096 * GRANULE;

    for (int i = 0; i < 4096; i++) {
        put(cache, base + i * GRANULE, data(base, 4096 * (int64_t)GRANULE, 0));
    }
    for (int i = 0; i < 4096; i++) {
        assert_mapping(cache, base + i * GRANULE,
                       data(base + i * GRANULE, GRANULE, i * (int64_t)GRANULE));
    }
    map_cache_free(cache);
}

static void the_far_end_of_the_largest_disk(void **state)
{
    MapCache *cache = map_cache_new(INT64_C(1) << 40, 1 << 20);
    const int64_t end = INT64_MAX & ~INT64_C(0xffff);
    const int64_t start = end - (INT64_C(1) << 31) + 0x10000;

    put(cache, end - 1, data(0, end, 0));
    assert_mapping(cache, end - 1, data(start, end - start, start));
    map_cache_invalidate(cache, end - 1, 1);
    assert_nothing(cache, start);
    map_cache_free(cache);
}

/* ---- Invalidating ------------------------------------------------------------------- */

static void invalidating_forgets_what_overlaps(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);

    for (int i = 0; i < 3; i++) {
        put(cache, i * GRANULE, data(i * GRANULE, 4096, 0));
        put(cache, i * GRANULE + 4096, data(i * GRANULE + 4096, 4096, 0));
    }
    map_cache_invalidate(cache, 4096, 0);
    assert_mapping(cache, 4096, data(4096, 4096, 0));
    map_cache_invalidate(cache, 8191, 2 * GRANULE - 8191);
    assert_mapping(cache, 0, data(0, 4096, 0));
    assert_nothing(cache, 4096);
    assert_nothing(cache, GRANULE);
    assert_nothing(cache, GRANULE + 4096);
    assert_mapping(cache, 2 * GRANULE, data(2 * GRANULE, 4096, 0));
    map_cache_invalidate(cache, 0, INT64_MAX);
    assert_nothing(cache, 0);
    assert_nothing(cache, 2 * GRANULE + 4096);
    put(cache, 0, data(0, 4096, 512));
    assert_mapping(cache, 0, data(0, 4096, 512));
    assert_nothing(cache, 4096);
    map_cache_free(cache);
}

static void answers_asked_for_before_are_dropped(void **state)
{
    MapCache *cache = map_cache_new(GRANULE, 1 << 20);
    const BdrvMapping m = data(0, 4096, 0), other = data(GRANULE, 4096, 0);
    uint64_t before = map_cache_epoch(cache);

    map_cache_invalidate(cache, 0, 512);
    map_cache_insert(cache, before, 0, &m);
    assert_nothing(cache, 0);
    /* The invalidation did not concern this one. */
    map_cache_insert(cache, before, GRANULE, &other);
    assert_mapping(cache, GRANULE, other);
    put(cache, 0, m);
    assert_mapping(cache, 0, m);

    before = map_cache_epoch(cache);
    map_cache_invalidate(cache, 0, INT64_MAX);
    map_cache_insert(cache, before, 0, &m);
    assert_nothing(cache, 0);
    map_cache_insert(cache, before, GRANULE, &other);
    assert_nothing(cache, GRANULE);
    put(cache, 0, m);
    assert_mapping(cache, 0, m);
    map_cache_free(cache);
}

/* ---- Against a model ------------------------------------------------------------------ */

#define UNITS 256
#define UNIT 512

/* Guest unit u lies at place[u]; runs of places are one extent. */
typedef struct Model {
    int64_t place[UNITS];
    int64_t next_place;
} Model;

static BdrvMapping model_map(const Model *model, int unit)
{
    int first = unit, end = unit + 1;

    while (first > 0 && model->place[first - 1] == model->place[first] - UNIT) {
        first--;
    }
    while (end < UNITS && model->place[end] == model->place[end - 1] + UNIT) {
        end++;
    }
    return data(first * UNIT, (end - first) * UNIT, model->place[first]);
}

static void model_change(Model *model, int first, int count)
{
    for (int u = first; u < first + count; u++) {
        model->place[u] = model->next_place + u * UNIT;
    }
    model->next_place += (UNITS + 1) * UNIT;
}

static bool model_agrees(const Model *model, const BdrvMapping *m, int64_t offset)
{
    bool agrees = m->offset <= offset && offset < m->offset + m->bytes && m->offset >= 0 &&
                  m->offset + m->bytes <= UNITS * UNIT;

    for (int64_t o = m->offset; agrees && o < m->offset + m->bytes; o += UNIT) {
        agrees = m->child_offset + o - m->offset == model->place[o / UNIT];
    }
    return agrees;
}

static void random_operations_agree_with_the_model(void **state)
{
    unsigned hits = 0;

    for (unsigned seed = 0; seed < 10; seed++) {
        GRand *rand = g_rand_new_with_seed(seed);
        /* 16 units to a granule; 4 or 64 buckets for 16 granules. */
        MapCache *cache = map_cache_new(16 * UNIT, seed % 2 ? 1024 : 16384);
        Model model = { .next_place = 0 };

        model_change(&model, 0, UNITS);
        for (int i = 0; i < 20000; i++) {
            int unit = g_rand_int_range(rand, 0, UNITS);
            uint64_t epoch = map_cache_epoch(cache);
            int64_t offset = unit * UNIT + g_rand_int_range(rand, 0, UNIT);
            BdrvMapping m = model_map(&model, unit), found;

            if (g_rand_int_range(rand, 0, 20) == 0) {
                int first = g_rand_int_range(rand, 0, UNITS);
                int count = g_rand_int_range(rand, 1, MIN(UNITS - first, 40) + 1);

                model_change(&model, first, count);
                map_cache_invalidate(cache, first * UNIT, count * UNIT);
            }
            if (map_cache_lookup(cache, offset, &found)) {
                assert_true(model_agrees(&model, &found, offset));
                hits++;
            } else {
                map_cache_insert(cache, epoch, offset, &m);
            }
        }
        g_rand_free(rand);
        map_cache_free(cache);
    }
    /* A cache that forgets everything would agree as well. */
    assert_true(hits > 20000);
}

/* ---- Four threads ------------------------------------------------------------------------ */

#define THREADS 4
#define STRESS_UNITS 64
#define STRESS_ROUNDS 40000

/*
 * Thread t changes units u with u % THREADS == t. Every word of a mapping of
 * unit u follows from u and the unit's generation.
 */
typedef struct Stress {
    MapCache *cache;
    int units;
    int changes; /* of 1000 steps */
    uint64_t generation[STRESS_UNITS]; /* atomic: what the driver would answer */
    uint64_t published[STRESS_UNITS];  /* atomic: nothing older may be found */
    unsigned hits;                     /* atomic */
    unsigned torn;                     /* atomic */
    unsigned stale;                    /* atomic */
    unsigned next_thread;              /* atomic */
} Stress;

static BdrvMapping stress_mapping(int unit, uint64_t generation)
{
    return (BdrvMapping) {
        .offset = unit * UNIT, .bytes = UNIT,
        .target = generation % 4, .recurse = generation & 4, .writable = generation & 8,
        .raw = generation & 16,
        .child = (BdrvChild *)(uintptr_t)(generation * 8 + 8),
        .child_offset = generation * STRESS_UNITS + unit,
        .child_bytes = generation * 3, .decode = (BdrvDecodeFunc *)(uintptr_t)(generation * 5),
    };
}

static void stress_read(Stress *s, int unit)
{
    uint64_t published = __atomic_load_n(&s->published[unit], __ATOMIC_ACQUIRE);
    uint64_t epoch = map_cache_epoch(s->cache);
    uint64_t generation = __atomic_load_n(&s->generation[unit], __ATOMIC_ACQUIRE);
    BdrvMapping found, expected;

    if (map_cache_lookup(s->cache, unit * UNIT, &found)) {
        expected = stress_mapping(unit, found.child_offset / STRESS_UNITS);
        if (!same_mapping(&found, &expected)) {
            __atomic_fetch_add(&s->torn, 1, __ATOMIC_RELAXED);
        } else if (found.child_offset / STRESS_UNITS < published) {
            __atomic_fetch_add(&s->stale, 1, __ATOMIC_RELAXED);
        }
        __atomic_fetch_add(&s->hits, 1, __ATOMIC_RELAXED);
    } else {
        BdrvMapping m = stress_mapping(unit, generation);

        map_cache_insert(s->cache, epoch, unit * UNIT, &m);
    }
}

static void stress_change(Stress *s, int unit, bool all)
{
    uint64_t generation = s->generation[unit] + 1; /* only this thread changes it */

    __atomic_store_n(&s->generation[unit], generation, __ATOMIC_RELEASE);
    map_cache_invalidate(s->cache, all ? 0 : unit * UNIT, all ? INT64_MAX : UNIT);
    __atomic_store_n(&s->published[unit], generation, __ATOMIC_RELEASE);
}

static void *stress_thread(void *opaque)
{
    Stress *s = opaque;
    unsigned me = __atomic_fetch_add(&s->next_thread, 1, __ATOMIC_RELAXED);
    GRand *rand = g_rand_new_with_seed(me);

    for (int i = 0; i < STRESS_ROUNDS; i++) {
        int dice = g_rand_int_range(rand, 0, 1000);

        if (dice < s->changes) {
            int unit = g_rand_int_range(rand, 0, s->units / THREADS) * THREADS + me;

            stress_change(s, unit, dice == 0);
        } else {
            stress_read(s, g_rand_int_range(rand, 0, s->units));
        }
    }
    g_rand_free(rand);
    return NULL;
}

/* 4 units are a granule. */
static void run_stress(int units, int changes, size_t buckets)
{
    Stress s = {
        .cache = map_cache_new(4 * UNIT, buckets * 256), .units = units, .changes = changes,
    };
    pthread_t threads[THREADS];

    for (int t = 0; t < THREADS; t++) {
        assert_int_equal(pthread_create(&threads[t], NULL, stress_thread, &s), 0);
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
    }
    assert_int_equal(s.torn, 0);
    assert_int_equal(s.stale, 0);
    assert_true(s.hits > 1000);
    map_cache_free(s.cache);
}

static void threads_see_whole_and_fresh_mappings(void **state)
{
    run_stress(STRESS_UNITS, 50, STRESS_UNITS / 4);
}

static void threads_in_few_buckets(void **state)
{
    run_stress(STRESS_UNITS, 50, 4);
}

static void threads_in_one_bucket_that_changes_all_the_time(void **state)
{
    run_stress(4, 300, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mappings_come_back_whole),
        cmocka_unit_test(extents_are_cut_to_the_granule),
        cmocka_unit_test(places_of_zeroes_are_moved_with_the_cut),
        cmocka_unit_test(what_cannot_be_kept_is_not),
        cmocka_unit_test(newer_mappings_replace_what_they_overlap),
        cmocka_unit_test(a_full_bucket_forgets_one),
        cmocka_unit_test(granules_that_share_a_bucket_evict_each_other),
        cmocka_unit_test(neighbouring_granules_are_kept_together),
        cmocka_unit_test(the_far_end_of_the_largest_disk),
        cmocka_unit_test(invalidating_forgets_what_overlaps),
        cmocka_unit_test(answers_asked_for_before_are_dropped),
        cmocka_unit_test(random_operations_agree_with_the_model),
        cmocka_unit_test(threads_see_whole_and_fresh_mappings),
        cmocka_unit_test(threads_in_few_buckets),
        cmocka_unit_test(threads_in_one_bucket_that_changes_all_the_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
