/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The "tiny" format. Sector 0 is the table: a mark, the number of the version,
 * and for each guest unit the number of its place, counted from 1, or 0.
 *
 * Invariants, but for the bug that is asked for:
 *  1. The table in memory is what reads are mapped by; on disk it is replaced
 *     as a whole, by a flush.
 *  2. It is written after a flush that began when it already was as it is
 *     written: what it refers to is on the disk.
 *  3. A place is linked when it is written whole: what lay there is another's.
 *  4. A place that is unlinked is retired: the core says when it is nobody's.
 */
#include <errno.h>
#include <string.h>

#include "recorder.h"
#include "tiny.h"

#define MARK 0x796e6974
#define HALF_WORDS (CRASH_SECTOR / 4)
#define FIRST_ENTRY 2
#define STALE 0xa7 /* what the places are full of at first */

typedef struct TinyState {
    BdrvChild *data; /* where the places are: "data-file" if there is one, else "file" */
    int bug;
    bool dirty;
    uint32_t version;
    uint32_t entry[TINY_UNITS];
    bool taken[TINY_SLOTS]; /* linked, about to be, or retired */
    CoMutex lock;           /* held while the table is written */
} TinyState;

const char *const tiny_bug_words[] = {
    "none",       "table-early", "no-data-flush", "late-copy",  "torn-table",
    "early-reuse", "early-punch", "no-table",     "wrong-unit", NULL,
};

static const BlockOption tiny_options[] = {
    {"bug", "str", "What the driver does wrong"},
    {NULL, NULL, NULL},
};

/* ---- Opening ---------------------------------------------------------------------- */

static int64_t slot_offset(unsigned slot)
{
    return (int64_t)TINY_UNIT * (1 + slot);
}

/* Where the entry of @unit is among the table's words; in its second half with that bug. */
static unsigned entry_word(const TinyState *s, unsigned unit)
{
    bool second = s->bug == TINY_TORN_TABLE && unit >= TINY_UNITS / 2;

    return FIRST_ENTRY + unit + (second ? HALF_WORDS : 0);
}

static bool load_table(TinyState *s, const uint32_t *words, GError **errp)
{
    s->version = words[1];
    if (words[0] != MARK || (s->bug == TINY_TORN_TABLE && words[HALF_WORDS + 1] != s->version)) {
        block_error_set(errp, EINVAL, "The table is damaged");
        return false;
    }
    for (unsigned i = 0; i < TINY_UNITS; i++) {
        uint32_t entry = words[entry_word(s, i)];

        if (entry > TINY_SLOTS || (entry > 0 && s->taken[entry - 1])) {
            block_error_set(errp, EINVAL, "Entry %u refers to place %u, which is taken", i, entry);
            return false;
        }
        s->entry[i] = entry;
        if (entry > 0) {
            s->taken[entry - 1] = true;
        }
    }
    return true;
}

static bool tiny_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    TinyState *s = bdrv_state(bs);
    uint32_t words[2 * HALF_WORDS];
    GError *err = NULL;
    BdrvChild *file;

    if (!block_options_take_enum(options, "bug", tiny_bug_words, &s->bug, errp) ||
        !bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    file = bdrv_file_child(bs);
    bdrv_graph_rdunlock_main_loop();
    s->data = bdrv_open_child(NULL, options, "data-file", bs, BDRV_CHILD_DATA, true, &err);
    if (err) {
        g_propagate_error(errp, err);
        return false;
    }
    s->data = s->data ? s->data : file;
    if (bdrv_pread(file, 0, sizeof(words), words, 0) < 0 || !load_table(s, words, errp)) {
        return false;
    }
    co_mutex_init(&s->lock);
    bdrv_set_length(bs, TINY_UNIT * TINY_UNITS);
    bdrv_set_map_unit(bs, TINY_UNIT);
    return true;
}

static void tiny_close(BlockDriverState *bs)
{
    co_mutex_destroy(&((TinyState *)bdrv_state(bs))->lock);
}

/* ---- Writing the table ------------------------------------------------------------ */

static int coroutine_fn GRAPH_RDLOCK write_words(BlockDriverState *bs, const uint32_t *words)
{
    TinyState *s = bdrv_state(bs);
    size_t bytes = s->bug == TINY_TORN_TABLE ? 2 * CRASH_SECTOR : CRASH_SECTOR;

    return bdrv_co_pwrite(bdrv_file_child(bs), 0, bytes, words, 0);
}

/* The table as it is now, under a new number. */
static void copy_table(TinyState *s, uint32_t *words)
{
    s->dirty = false;
    s->version++;
    words[0] = MARK;
    words[1] = words[HALF_WORDS + 1] = s->version;
    for (unsigned i = 0; i < TINY_UNITS; i++) {
        words[entry_word(s, i)] = s->entry[i];
    }
}

static int coroutine_fn GRAPH_RDLOCK write_back_locked(BlockDriverState *bs)
{
    TinyState *s = bdrv_state(bs);
    BlockDriverState *file = bdrv_child_bs(bdrv_file_child(bs));
    uint32_t words[2 * HALF_WORDS] = {0};
    int ret = 0;

    copy_table(s, words);
    if (s->bug != TINY_NO_DATA_FLUSH) {
        ret = bdrv_co_flush(bdrv_child_bs(s->data));
    }
    if (s->bug == TINY_LATE_COPY) {
        copy_table(s, words);
    }
    if (ret >= 0) {
        ret = write_words(bs, words);
    }
    return ret < 0 ? ret : bdrv_co_flush(file);
}

static int coroutine_fn GRAPH_RDLOCK tiny_co_flush(BlockDriverState *bs)
{
    TinyState *s = bdrv_state(bs);
    int ret = 0;

    if (s->bug == TINY_NO_TABLE) {
        return 0;
    }
    co_mutex_lock(&s->lock);
    if (s->dirty) {
        ret = write_back_locked(bs);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

/* ---- Mapping ---------------------------------------------------------------------- */

static void tiny_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    limits->pwrite_zeroes_alignment = TINY_UNIT;
    limits->pdiscard_alignment = TINY_UNIT;
}

/* A place for a unit that has none, to be written whole. */
static int map_new(TinyState *s, BdrvMapping *m)
{
    for (unsigned i = 0; i < TINY_SLOTS; i++) {
        if (!s->taken[i]) {
            s->taken[i] = true;
            m->target = BDRV_MAP_DATA;
            m->child = s->data;
            m->child_offset = slot_offset(i);
            m->needs_commit = m->fresh = true;
            m->fill_offset = m->offset;
            m->fill_bytes = m->bytes;
            m->cookie[0] = i;
            return 0;
        }
    }
    return -ENOSPC;
}

static int coroutine_fn tiny_co_map(BlockDriverState *bs, const BdrvMapRequest *req,
                                    BdrvMapping *m)
{
    TinyState *s = bdrv_state(bs);
    unsigned unit = req->offset / TINY_UNIT;

    m->offset = (int64_t)unit * TINY_UNIT;
    m->bytes = TINY_UNIT;
    if (req->op == BDRV_MAP_DISCARD || req->op == BDRV_MAP_WRITE_ZEROES) {
        m->needs_commit = s->entry[unit] > 0 || s->bug == TINY_WRONG_UNIT;
        return 0; /* unallocated */
    }
    if (s->entry[unit] > 0) {
        m->target = BDRV_MAP_DATA;
        m->child = s->data;
        m->child_offset = slot_offset(s->entry[unit] - 1);
        m->writable = true;
        return 0;
    }
    return req->op == BDRV_MAP_WRITE ? map_new(s, m) : 0;
}

static void coroutine_fn GRAPH_RDLOCK unlink_unit(BlockDriverState *bs, unsigned unit)
{
    TinyState *s = bdrv_state(bs);
    BdrvPlace place = {slot_offset(s->entry[unit] - 1), TINY_UNIT, s->entry[unit] - 1};

    if (s->entry[unit] == 0) {
        return;
    }
    s->entry[unit] = 0;
    if (s->bug == TINY_EARLY_REUSE) {
        s->taken[place.cookie] = false;
    } else {
        bdrv_retire(bs, &place);
    }
    if (s->bug == TINY_EARLY_PUNCH) {
        bdrv_co_pdiscard(s->data, place.offset, place.bytes);
    }
}

static int coroutine_fn tiny_co_map_commit(BlockDriverState *bs, const BdrvMapping *m)
{
    TinyState *s = bdrv_state(bs);
    unsigned unit = m->offset / TINY_UNIT;
    uint32_t words[2 * HALF_WORDS] = {0};
    int ret = 0;

    bdrv_graph_assert_readable();
    bdrv_map_invalidate(bs, m->offset, m->bytes);
    s->dirty = true;
    if (m->fresh) {
        s->entry[unit] = m->cookie[0] + 1;
    } else {
        unlink_unit(bs, unit);
    }
    if (!m->fresh && s->bug == TINY_WRONG_UNIT) {
        unlink_unit(bs, (unit + 1) % TINY_UNITS);
    }
    if (m->fresh && s->bug == TINY_TABLE_EARLY) {
        copy_table(s, words);
        s->dirty = true;
        ret = write_words(bs, words);
    }
    bdrv_map_invalidate(bs, m->offset, m->bytes);
    return ret;
}

static void coroutine_fn tiny_co_map_abort(BlockDriverState *bs, const BdrvMapping *m)
{
    TinyState *s = bdrv_state(bs);

    if (m->fresh) {
        s->taken[m->cookie[0]] = false;
    }
}

static int coroutine_fn tiny_co_release(BlockDriverState *bs, const BdrvPlace *place)
{
    TinyState *s = bdrv_state(bs);
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_pdiscard(s->data, place->offset, place->bytes);
    s->taken[place->cookie] = false;
    return ret;
}

static BlockDriver tiny_driver = {
    .format_name = "tiny",
    .instance_size = sizeof(TinyState),
    .options = tiny_options,
    .bdrv_open = tiny_open,
    .bdrv_close = tiny_close,
    .bdrv_refresh_limits = tiny_refresh_limits,
    .bdrv_co_map = tiny_co_map,
    .bdrv_co_map_commit = tiny_co_map_commit,
    .bdrv_co_map_abort = tiny_co_map_abort,
    .bdrv_co_release = tiny_co_release,
    .bdrv_co_flush = tiny_co_flush,
};

/* ---- Making one ------------------------------------------------------------------- */

bool tiny_create(const CrashFormat *format, CrashStore *store, GString *why)
{
    uint32_t words[FIRST_ENTRY] = {MARK, 0};

    if (!bdrv_find_format("tiny")) {
        g_assert(bdrv_register(&tiny_driver, NULL));
    }
    store->discard_byte = STALE;
    crash_store_add(store, "image");
    crash_store_add(store, "data"); /* for those who want it */
    for (unsigned i = 0; i < 2; i++) {
        CrashImage *image = crash_store_image(store, i);

        crash_image_set_length(image, slot_offset(TINY_SLOTS));
        crash_image_fill(image, TINY_UNIT, image->length - TINY_UNIT, STALE);
    }
    crash_image_write(crash_store_image(store, 0), 0, sizeof(words), (uint8_t *)words);
    return true;
}
