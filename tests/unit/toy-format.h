/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A format for tests of the write path: guest units lie in slots of its file,
 * by a table that is only in memory, and everything that map.h has rules for
 * happens in it: new places, shared ones, zeros and discards by the table,
 * places that are used again. A slot that is free is overwritten at once, so
 * that whoever still uses it is found out.
 */
#ifndef TESTS_TOY_FORMAT_H
#define TESTS_TOY_FORMAT_H

#include <errno.h>

#include "block-testing.h"

#define TOY_UNIT 1024
#define TOY_MAX_UNITS 64
#define TOY_MAX_SLOTS 128

/* An entry of the table: a slot + 1, or one of these. */
enum { TOY_NONE = 0, TOY_ZERO = -1 };

typedef struct ToyFormat {
    int64_t units;
    int64_t slots;
    int table[TOY_MAX_UNITS];
    bool shared[TOY_MAX_UNITS]; /* the slot is not to be written */
    bool used[TOY_MAX_SLOTS];
    int high; /* slots from here on were never used */
    /* What has happened. */
    int commits, aborts, released, in_place;
    int full;         /* no slot was free */
    int fail_commit; /* -errno for the next one */
    bool no_zeroes;  /* -ENOTSUP for write zeroes */
    void (*on_release)(int slot);
    void coroutine_fn (*pause)(void); /* called where others may come in between */
} ToyFormat;

static const BlockOption toy_options[] = {
    {"units", "num", "length of the disk in units"},
    {"slots", "num", "room in the file"},
    {NULL},
};

static bool toy_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    ToyFormat *t = bdrv_state(bs);

    t->units = 16;
    t->slots = 32;
    if (!bdrv_open_file_child(bs, options, errp) ||
        !block_options_take_int(options, "units", &t->units, errp) ||
        !block_options_take_int(options, "slots", &t->slots, errp)) {
        return false;
    }
    g_assert(t->units <= TOY_MAX_UNITS && t->slots <= TOY_MAX_SLOTS);
    bdrv_set_length(bs, t->units * TOY_UNIT);
    bdrv_set_map_unit(bs, TOY_UNIT);
    return true;
}

static void toy_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->pwrite_zeroes_alignment = TOY_UNIT;
    limits->pdiscard_alignment = TOY_UNIT;
}

static void coroutine_fn toy_pause(ToyFormat *t)
{
    if (t->pause) {
        t->pause();
    }
}

/* Whether unit @b goes on where unit @a does, n units earlier. */
static bool toy_same_run(const ToyFormat *t, int a, int b)
{
    return t->table[a] > 0 ? t->table[b] > 0 && t->table[b] == t->table[a] + (b - a) &&
                                 t->shared[a] == t->shared[b]
                           : t->table[b] == t->table[a];
}

static void toy_describe(BlockDriverState *bs, int unit, BdrvMapping *m) GRAPH_RDLOCK
{
    ToyFormat *t = bdrv_state(bs);
    int first = unit, end = unit + 1;

    while (first > 0 && toy_same_run(t, unit, first - 1)) {
        first--;
    }
    while (end < t->units && toy_same_run(t, unit, end)) {
        end++;
    }
    m->offset = first * TOY_UNIT;
    m->bytes = (end - first) * TOY_UNIT;
    m->target = t->table[unit] > 0           ? BDRV_MAP_DATA
                : t->table[unit] == TOY_ZERO ? BDRV_MAP_ZERO
                                             : BDRV_MAP_UNALLOCATED;
    if (t->table[unit] > 0) {
        m->child = bdrv_file_child(bs);
        m->child_offset = (int64_t)(t->table[first] - 1) * TOY_UNIT;
        m->writable = !t->shared[unit];
    }
}

/* Up to @n free slots in a row; their number, the first in *@slot. */
static int toy_allocate(ToyFormat *t, int n, int *slot)
{
    for (int i = 0; i < t->slots; i++) {
        int found = 0;

        while (found < n && i + found < t->slots && !t->used[i + found]) {
            t->used[i + found++] = true;
        }
        if (found) {
            *slot = i;
            return found;
        }
    }
    return 0;
}

static int toy_map_write(BlockDriverState *bs, const BdrvMapRequest *req,
                         BdrvMapping *m) GRAPH_RDLOCK
{
    ToyFormat *t = bdrv_state(bs);
    int first = req->offset / TOY_UNIT, n, slot;
    int wanted = (req->offset + req->bytes + TOY_UNIT - 1) / TOY_UNIT - first;

    toy_describe(bs, first, m);
    if (m->target == BDRV_MAP_DATA && m->writable) {
        t->in_place++;
        return 0;
    }
    wanted = MIN(wanted, (m->offset + m->bytes) / TOY_UNIT - first);
    n = toy_allocate(t, wanted, &slot);
    if (n == 0) {
        t->full++;
        return -ENOSPC;
    }
    *m = (BdrvMapping){
        .offset = (int64_t)first * TOY_UNIT, .bytes = (int64_t)n * TOY_UNIT,
        .target = BDRV_MAP_DATA, .child = bdrv_file_child(bs),
        .child_offset = (int64_t)slot * TOY_UNIT, .needs_commit = true, .fresh = true,
        .zeroed = slot >= t->high, .fill_offset = (int64_t)first * TOY_UNIT,
        .fill_bytes = (int64_t)n * TOY_UNIT, .cookie = {slot + 1},
    };
    t->high = MAX(t->high, slot + n);
    return 0;
}

static int coroutine_fn toy_co_map(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    ToyFormat *t = bdrv_state(bs);
    int ret = 0;

    bdrv_graph_assert_readable();
    toy_pause(t);
    switch (req->op) {
    case BDRV_MAP_READ:
        toy_describe(bs, req->offset / TOY_UNIT, m);
        break;
    case BDRV_MAP_WRITE:
        ret = toy_map_write(bs, req, m);
        break;
    default:
        if (req->op == BDRV_MAP_WRITE_ZEROES && t->no_zeroes) {
            return -ENOTSUP;
        }
        *m = (BdrvMapping){
            .offset = req->offset, .bytes = req->bytes, .needs_commit = true,
            .target = req->op == BDRV_MAP_DISCARD ? BDRV_MAP_UNALLOCATED : BDRV_MAP_ZERO,
        };
    }
    toy_pause(t);
    return ret;
}

static void toy_set(BlockDriverState *bs, int unit, int entry)
{
    ToyFormat *t = bdrv_state(bs);
    int old = t->table[unit];

    t->table[unit] = entry;
    if (old > 0 && !t->shared[unit]) {
        bdrv_retire(bs, &(BdrvPlace){(int64_t)(old - 1) * TOY_UNIT, TOY_UNIT, 0});
    }
    t->shared[unit] = false;
}

static void toy_free(ToyFormat *t, int slot)
{
    g_assert(t->used[slot]);
    if (t->on_release) {
        t->on_release(slot);
    }
    t->used[slot] = false;
}

static int coroutine_fn toy_co_map_commit(BlockDriverState *bs, const BdrvMapping *m)
{
    ToyFormat *t = bdrv_state(bs);
    int first = m->offset / TOY_UNIT, n = m->bytes / TOY_UNIT, ret = t->fail_commit;

    bdrv_graph_assert_readable();
    toy_pause(t);
    t->commits++;
    t->fail_commit = 0;
    if (ret < 0) {
        for (int i = 0; m->fresh && i < n; i++) {
            toy_free(t, m->cookie[0] - 1 + i);
        }
        return ret;
    }
    bdrv_map_invalidate(bs, m->offset, m->bytes);
    for (int i = 0; i < n; i++) {
        toy_set(bs, first + i, m->target == BDRV_MAP_DATA   ? (int)m->cookie[0] + i
                               : m->target == BDRV_MAP_ZERO ? TOY_ZERO
                                                            : TOY_NONE);
    }
    bdrv_map_invalidate(bs, m->offset, m->bytes);
    toy_pause(t);
    return 0;
}

static void coroutine_fn toy_co_map_abort(BlockDriverState *bs, const BdrvMapping *m)
{
    ToyFormat *t = bdrv_state(bs);

    t->aborts++;
    for (int i = 0; m->fresh && i < m->bytes / TOY_UNIT; i++) {
        toy_free(t, m->cookie[0] - 1 + i);
    }
}

static int coroutine_fn toy_co_release(BlockDriverState *bs, const BdrvPlace *place)
{
    ToyFormat *t = bdrv_state(bs);

    toy_free(t, place->offset / TOY_UNIT);
    t->released++;
    return 0;
}

static BlockDriver toy_driver = {
    .format_name = "toy",
    .instance_size = sizeof(ToyFormat),
    .options = toy_options,
    .supports_backing = true,
    .bdrv_open = toy_open,
    .bdrv_refresh_limits = toy_refresh_limits,
    .bdrv_co_map = toy_co_map,
    .bdrv_co_map_commit = toy_co_map_commit,
    .bdrv_co_map_abort = toy_co_map_abort,
    .bdrv_co_release = toy_co_release,
};

#endif
