/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vocabulary of a guest: each verb does one thing to the disk and tells the
 * model of it.
 */
#include <errno.h>
#include <string.h>

#include "workload.h"

/* ---- Requests --------------------------------------------------------------------- */

static void judge(CrashRun *run, const char *what, int ret)
{
    if (ret < 0) {
        g_string_append_printf(run->why, "%s failed: %s; ", what, g_strerror(-ret));
    }
}

static void coroutine_fn write_with(CrashRun *run, CrashPlace place, int flags)
{
    g_autofree uint8_t *data = g_malloc(place.bytes);
    unsigned number = crash_model_begin(run->model, CRASH_GUEST_WRITE, place.offset, place.bytes,
                                        flags & BDRV_REQ_FUA);
    int ret;

    crash_model_fill(number, place.offset, place.bytes, data);
    ret = blk_co_pwrite(run->blk, place.offset, place.bytes, data, flags);
    crash_model_end(run->model, number, ret);
    judge(run, "write", ret);
}

static void coroutine_fn verb_write(CrashRun *run, CrashPlace place)
{
    write_with(run, place, 0);
}

static void coroutine_fn verb_write_fua(CrashRun *run, CrashPlace place)
{
    write_with(run, place, BDRV_REQ_FUA);
}

/* Whole units, or what there is of the last. */
static void coroutine_fn verb_compress(CrashRun *run, CrashPlace place)
{
    int64_t unit = run->format->unit, length = crash_model_length(run->model);

    place.bytes += place.offset % unit;
    place.offset -= place.offset % unit;
    place.bytes = (place.bytes + unit - 1) / unit * unit;
    place.bytes = MIN(place.bytes, length - place.offset);
    write_with(run, place, BDRV_REQ_COMPRESSED);
}

static void coroutine_fn zero_with(CrashRun *run, CrashPlace place, int flags)
{
    unsigned number = crash_model_begin(run->model, CRASH_GUEST_ZEROES, place.offset, place.bytes,
                                        flags & BDRV_REQ_FUA);
    int ret = blk_co_pwrite_zeroes(run->blk, place.offset, place.bytes, flags);

    crash_model_end(run->model, number, ret);
    judge(run, "write zeroes", ret);
}

static void coroutine_fn verb_zero(CrashRun *run, CrashPlace place)
{
    zero_with(run, place, 0);
}

static void coroutine_fn verb_unmap(CrashRun *run, CrashPlace place)
{
    zero_with(run, place, BDRV_REQ_MAY_UNMAP);
}

static void coroutine_fn verb_discard(CrashRun *run, CrashPlace place)
{
    unsigned number =
        crash_model_begin(run->model, CRASH_GUEST_DISCARD, place.offset, place.bytes, false);
    int ret = blk_co_pdiscard(run->blk, place.offset, place.bytes);

    crash_model_end(run->model, number, ret);
    judge(run, "discard", ret);
}

static void coroutine_fn verb_flush(CrashRun *run, CrashPlace place)
{
    unsigned number = crash_model_begin(run->model, CRASH_GUEST_FLUSH, 0, 0, false);
    int ret = blk_co_flush(run->blk);

    crash_model_end(run->model, number, ret);
    judge(run, "flush", ret);
}

static void coroutine_fn verb_read(CrashRun *run, CrashPlace place)
{
    g_autofree uint8_t *data = g_malloc(place.bytes);
    uint64_t begin = crash_log_tick(run->log);
    int ret = blk_co_pread(run->blk, place.offset, place.bytes, data, 0);

    judge(run, "read", ret);
    if (ret >= 0) {
        crash_model_allows(run->model, crash_model_read(run->model, begin), place.offset,
                           place.bytes, data, run->why);
    }
}

/* ---- Alone ------------------------------------------------------------------------ */

static void resize(CrashRun *run, int64_t length)
{
    unsigned number = crash_model_begin(run->model, CRASH_GUEST_RESIZE, length, 0, false);
    int ret = blk_truncate(run->blk, length, true, BLOCK_PREALLOC_OFF, NULL);

    crash_model_end(run->model, number, ret);
    judge(run, "resize", ret);
}

static void verb_grow(CrashRun *run, CrashPlace place)
{
    resize(run, crash_model_length(run->model) + place.bytes);
}

static void verb_shrink(CrashRun *run, CrashPlace place)
{
    resize(run, MAX(crash_model_length(run->model) - place.bytes, run->format->length / 2));
}

/* Not a flush: what the driver puts off until it closes reaches the cache, no more. */
static void verb_reopen(CrashRun *run, CrashPlace place)
{
    blk_unref(run->blk);
    run->blk = crash_open(run->format, run->why);
}

/* The other name of the backing file goes into the header. */
static void verb_rebase(CrashRun *run, CrashPlace place)
{
    const char *now = bdrv_get_backing_filename(blk_bs(run->blk));
    bool is_first = strcmp(now, CRASH_BASE) == 0;
    g_autoptr(GError) err = NULL;

    if (!bdrv_change_backing_file(blk_bs(run->blk), is_first ? CRASH_SAME_BASE : CRASH_BASE, "raw",
                                  &err)) {
        g_string_append_printf(run->why, "rebase failed: %s; ", err->message);
    }
}

static void verb_empty(CrashRun *run, CrashPlace place)
{
    unsigned number = crash_model_begin(run->model, CRASH_GUEST_EMPTY, 0,
                                        crash_model_length(run->model), true);
    int ret = bdrv_make_empty(blk_bs(run->blk), NULL);

    crash_model_end(run->model, number, ret);
    judge(run, "emptying", ret);
}

/* ---- The table -------------------------------------------------------------------- */

#define FIXED_LENGTH_VERBS                                                                         \
    {"write-unit", verb_write, NULL, 1, 0, 1, 0}, /* a unit */                                     \
    {"write-part", verb_write, NULL, 1, 1, 0, 2}, /* some sectors of it */                         \
    {"write-span", verb_write, NULL, 0, 1, 2, 0}, /* parts of two and one in between */            \
    {"write-far", verb_write, NULL, -1, 0, 0, 1}, /* another */                                    \
    {"write-fua", verb_write_fua, NULL, 1, 0, 0, 1},                                               \
    {"zero-unit", verb_zero, NULL, 1, 0, 1, 0},                                                    \
    {"zero-part", verb_zero, NULL, 1, 0, 0, 1},                                                    \
    {"unmap-span", verb_unmap, NULL, 0, 1, 2, 1},                                                  \
    {"discard-unit", verb_discard, NULL, 1, 0, 1, 0},                                              \
    {"discard-span", verb_discard, NULL, 0, 1, 2, 1},                                              \
    {"flush", verb_flush, NULL, 0, 0, 0, 0},                                                       \
    {"read", verb_read, NULL, 0, 0, 3, 0},                                                         \
    {"reopen", NULL, verb_reopen, 0, 0, 0, 0}

const CrashVerb crash_verbs_fixed[] = {
    FIXED_LENGTH_VERBS,
    {NULL},
};

const CrashVerb crash_verbs_disk[] = {
    FIXED_LENGTH_VERBS,
    {"grow", NULL, verb_grow, 0, 0, 1, 1},
    {"shrink", NULL, verb_shrink, 0, 0, 1, 1},
    {NULL},
};

#define COMPRESSING_VERBS                                                                          \
    FIXED_LENGTH_VERBS, {"compress-unit", verb_compress, NULL, 1, 0, 1, 0},                        \
    {"compress-span", verb_compress, NULL, 0, 0, 3, 0}

const CrashVerb crash_verbs_compress[] = {
    COMPRESSING_VERBS,
    {NULL},
};

const CrashVerb crash_verbs_overlay[] = {
    COMPRESSING_VERBS,
    {"rebase", NULL, verb_rebase, 0, 0, 0, 0},
    {NULL},
};

const CrashVerb crash_verbs_empty[] = {
    COMPRESSING_VERBS,
    {"empty", NULL, verb_empty, 0, 0, 0, 0},
    {NULL},
};

const CrashVerb *crash_verb_find(const CrashFormat *format, const char *name, size_t length)
{
    for (const CrashVerb *verb = format->verbs; verb->name; verb++) {
        if (strlen(verb->name) == length && strncmp(verb->name, name, length) == 0) {
            return verb;
        }
    }
    return NULL;
}

CrashPlace crash_verb_place(CrashRun *run, const CrashVerb *verb, bool random)
{
    int64_t unit = run->format->unit, length = crash_model_length(run->model);
    CrashPlace place;

    place.offset = verb->offset_units * unit + verb->offset_sectors * CRASH_SECTOR;
    place.bytes = verb->units * unit + verb->sectors * CRASH_SECTOR;
    if (place.offset < 0) {
        place.offset += length;
    }
    if (random && verb->co_run) {
        place.offset = crash_random(&run->random, length / CRASH_SECTOR) * CRASH_SECTOR;
        if (crash_random(&run->random, 2)) { /* half of them begin a unit */
            place.offset -= place.offset % unit;
        }
    }
    if (verb->co_run) {
        place.bytes = MIN(place.bytes, length - place.offset);
    }
    return place;
}
