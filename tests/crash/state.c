/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Building one state: durable changes are carried out once and for all, those
 * in doubt for each state anew, and the hash follows the sectors they touch.
 */
#include <string.h>

#include "state.h"

/* ---- Hash ------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93;
    return h ^ (h >> 32);
}

/* Of a sector; an all-zero one and a missing one are the same. */
static uint64_t sector_hash(const CrashStore *store, unsigned disk, int64_t sector)
{
    const CrashImage *image = crash_store_image(store, disk);
    uint64_t words[CRASH_SECTOR / 8], h = 0, any = 0;

    if (sector * CRASH_SECTOR >= image->room) {
        return 0;
    }
    crash_image_read(image, sector * CRASH_SECTOR, CRASH_SECTOR, (uint8_t *)words);
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        any |= words[i];
        h = (h ^ words[i]) * 0x9fb21c651e98df25;
        h ^= h >> 28;
    }
    return any ? mix(h ^ mix((uint64_t)disk << 56 ^ (sector + 1))) : 0;
}

static uint64_t lengths_hash(const CrashStore *store)
{
    uint64_t h = 0;

    for (unsigned i = 0; i < store->disks->len; i++) {
        h = mix(h ^ mix(crash_store_image(store, i)->length + i + 1));
    }
    return h;
}

static uint64_t whole_hash(const CrashStore *store)
{
    uint64_t h = 0;

    for (unsigned i = 0; i < store->disks->len; i++) {
        for (int64_t s = 0; s * CRASH_SECTOR < crash_store_image(store, i)->room; s++) {
            h += sector_hash(store, i, s);
        }
    }
    return h;
}

/* ---- Touched sectors -------------------------------------------------------------- */

static uint64_t touch_key(unsigned disk, int64_t sector)
{
    return (uint64_t)disk << 48 | sector;
}

static void touch(CrashCut *cut, unsigned disk, int64_t start, int64_t end)
{
    for (int64_t s = start / CRASH_SECTOR; s * CRASH_SECTOR < end; s++) {
        uint64_t key = touch_key(disk, s);

        if (g_hash_table_add(cut->touched_set, GSIZE_TO_POINTER(key + 1))) {
            g_array_append_val(cut->touched, key);
        }
    }
}

/* Apply @entry to the disks of @store, where work is concerned noting what it touches. */
static void apply(CrashCut *cut, CrashStore *store, const CrashEntry *entry, CrashTear tear)
{
    CrashImage *image = crash_store_image(store, entry->disk);
    int64_t length = MIN(image->length, image->room);

    if (entry->kind == CRASH_TRUNCATE && entry->offset < length) {
        touch(cut, entry->disk, entry->offset, length);
    } else if (entry->kind == CRASH_WRITE) {
        touch(cut, entry->disk, entry->offset, entry->offset + entry->bytes);
    } else if (entry->offset < length) {
        touch(cut, entry->disk, entry->offset, MIN(entry->offset + entry->bytes, length));
    }
    crash_entry_apply(entry, tear, image);
}

/* The sum of the touched sectors' hashes, in @store. */
static uint64_t touched_hash(const CrashCut *cut, const CrashStore *store)
{
    uint64_t h = 0;

    for (unsigned i = 0; i < cut->touched->len; i++) {
        uint64_t key = g_array_index(cut->touched, uint64_t, i);

        h += sector_hash(store, key >> 48, key & 0xffffffffffff);
    }
    return h;
}

static void forget_touched(CrashCut *cut)
{
    g_array_set_size(cut->touched, 0);
    g_hash_table_remove_all(cut->touched_set);
}

/* ---- The cut ---------------------------------------------------------------------- */

static int compare_cached(const void *a, const void *b, void *opaque)
{
    const CrashEntry *x = crash_log_entry(opaque, *(const unsigned *)a);
    const CrashEntry *y = crash_log_entry(opaque, *(const unsigned *)b);

    if (x->cached != y->cached) {
        return x->cached < y->cached ? -1 : 1;
    }
    return x->begin < y->begin ? -1 : 1;
}

CrashCut *crash_cut_new(const CrashLog *log, const CrashStore *start)
{
    CrashCut *cut = g_new0(CrashCut, 1);
    unsigned n = log->entries->len;

    cut->log = log;
    cut->base = crash_store_copy(start);
    cut->work = crash_store_copy(start);
    cut->base_hash = whole_hash(start);
    cut->durable_from = g_new(uint64_t, n);
    cut->by_cache = g_new(unsigned, n);
    for (unsigned i = 0; i < n; i++) {
        cut->durable_from[i] = crash_log_durable_from(log, crash_log_entry(log, i));
        cut->by_cache[i] = i;
    }
    g_qsort_with_data(cut->by_cache, n, sizeof(unsigned), compare_cached, (void *)log);
    cut->choices = g_array_new(false, false, sizeof(CrashChoice));
    cut->doubts = g_array_new(false, false, sizeof(unsigned));
    cut->touched = g_array_new(false, false, sizeof(uint64_t));
    cut->touched_set = g_hash_table_new(NULL, NULL);
    return cut;
}

void crash_cut_free(CrashCut *cut)
{
    if (!cut) {
        return;
    }
    crash_store_free(cut->base);
    crash_store_free(cut->work);
    g_free(cut->durable_from);
    g_free(cut->by_cache);
    g_array_unref(cut->choices);
    g_array_unref(cut->doubts);
    g_array_unref(cut->touched);
    g_hash_table_unref(cut->touched_set);
    g_free(cut);
}

/* Bring into the base what is durable and has nothing in doubt before it. */
static void advance_base(CrashCut *cut)
{
    uint64_t before;

    for (; cut->applied < cut->log->entries->len; cut->applied++) {
        unsigned index = cut->by_cache[cut->applied];
        const CrashEntry *entry = crash_log_entry(cut->log, index);
        CrashTear whole = {CRASH_WHOLE};

        if (entry->kind == CRASH_FLUSH) {
            continue;
        }
        if (cut->durable_from[index] > cut->position) {
            break;
        }
        apply(cut, cut->work, entry, whole);
        before = touched_hash(cut, cut->base);
        crash_entry_apply(entry, whole, crash_store_image(cut->base, entry->disk));
        cut->base_hash += touched_hash(cut, cut->base) - before;
        forget_touched(cut);
    }
}

void crash_cut_move(CrashCut *cut, uint64_t position)
{
    cut->position = position;
    advance_base(cut);
    g_array_set_size(cut->choices, 0);
    g_array_set_size(cut->doubts, 0);
    for (unsigned i = cut->applied; i < cut->log->entries->len; i++) {
        CrashChoice choice = {.index = cut->by_cache[i], .kept = true};
        const CrashEntry *entry = crash_log_entry(cut->log, choice.index);

        choice.durable = cut->durable_from[choice.index] <= position;
        if (entry->kind == CRASH_FLUSH || entry->begin >= position) {
            continue;
        }
        if (!choice.durable) {
            g_array_append_val(cut->doubts, cut->choices->len);
        }
        g_array_append_val(cut->choices, choice);
    }
}

unsigned crash_cut_doubts(const CrashCut *cut)
{
    return cut->doubts->len;
}

CrashChoice *crash_cut_doubt(CrashCut *cut, unsigned i)
{
    return &g_array_index(cut->choices, CrashChoice, g_array_index(cut->doubts, unsigned, i));
}

uint64_t crash_cut_build(CrashCut *cut)
{
    for (unsigned i = 0; i < cut->choices->len; i++) {
        CrashChoice *choice = &g_array_index(cut->choices, CrashChoice, i);

        if (choice->kept) {
            apply(cut, cut->work, crash_log_entry(cut->log, choice->index), choice->tear);
        }
    }
    return cut->base_hash + touched_hash(cut, cut->work) - touched_hash(cut, cut->base) +
           lengths_hash(cut->work);
}

void crash_cut_reset(CrashCut *cut)
{
    uint8_t sector[CRASH_SECTOR];

    for (unsigned i = 0; i < cut->touched->len; i++) {
        uint64_t key = g_array_index(cut->touched, uint64_t, i);
        int64_t offset = (key & 0xffffffffffff) * CRASH_SECTOR;
        CrashImage *work = crash_store_image(cut->work, key >> 48);

        crash_image_read(crash_store_image(cut->base, key >> 48), offset, CRASH_SECTOR, sector);
        if (offset < work->room) {
            crash_image_write(work, offset, CRASH_SECTOR, sector);
        }
    }
    for (unsigned i = 0; i < cut->work->disks->len; i++) {
        crash_store_image(cut->work, i)->length = crash_store_image(cut->base, i)->length;
    }
    forget_touched(cut);
}
