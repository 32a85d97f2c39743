/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of a workload's requests, and one change carried out in part.
 */
#include <inttypes.h>

#include "log.h"

uint64_t crash_random(uint64_t *state, uint64_t below)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return ((unsigned __int128)z * below) >> 64;
}

/* ---- Recording -------------------------------------------------------------------- */

static void entry_free(void *opaque)
{
    CrashEntry *entry = opaque;

    g_free(entry->data);
    g_free(entry);
}

CrashLog *crash_log_new(void)
{
    CrashLog *log = g_new0(CrashLog, 1);

    log->entries = g_ptr_array_new_with_free_func(entry_free);
    return log;
}

void crash_log_free(CrashLog *log)
{
    if (log) {
        g_ptr_array_unref(log->entries);
        g_free(log);
    }
}

uint64_t crash_log_tick(CrashLog *log)
{
    return log->position++;
}

CrashEntry *crash_log_begin(CrashLog *log, CrashKind kind, unsigned disk, int64_t offset,
                            int64_t bytes, const uint8_t *data)
{
    CrashEntry *entry = g_new0(CrashEntry, 1);

    *entry = (CrashEntry){.kind = kind, .disk = disk, .offset = offset, .bytes = bytes};
    entry->data = data ? g_memdup2(data, bytes) : NULL;
    entry->begin = crash_log_tick(log);
    entry->cached = entry->end = CRASH_NEVER;
    g_ptr_array_add(log->entries, entry);
    return entry;
}

void crash_log_cached(CrashLog *log, CrashEntry *entry)
{
    if (entry->cached == CRASH_NEVER) {
        entry->cached = crash_log_tick(log);
    }
}

void crash_log_end(CrashLog *log, CrashEntry *entry)
{
    crash_log_cached(log, entry);
    entry->end = crash_log_tick(log);
}

CrashEntry *crash_log_entry(const CrashLog *log, unsigned index)
{
    return log->entries->pdata[index];
}

/* ---- What a power cut leaves ------------------------------------------------------ */

uint64_t crash_log_durable_from(const CrashLog *log, const CrashEntry *entry)
{
    uint64_t first = entry->fua ? entry->end : CRASH_NEVER;

    for (unsigned i = 0; i < log->entries->len; i++) {
        const CrashEntry *flush = crash_log_entry(log, i);

        if (flush->kind == CRASH_FLUSH && flush->disk == entry->disk &&
            entry->end < flush->begin) {
            first = MIN(first, flush->end);
        }
    }
    return first == CRASH_NEVER ? CRASH_NEVER : first + 1;
}

int64_t crash_entry_sectors(const CrashEntry *entry)
{
    int64_t first = entry->offset / CRASH_SECTOR;

    if (entry->kind == CRASH_TRUNCATE || entry->kind == CRASH_FLUSH || entry->bytes == 0) {
        return 0;
    }
    return (entry->offset + entry->bytes - 1) / CRASH_SECTOR - first + 1;
}

static bool tear_keeps(CrashTear tear, uint32_t sector)
{
    uint64_t state = (uint64_t)tear.n << 32 | sector;

    switch (tear.kind) {
    case CRASH_HEAD:
        return sector < tear.n;
    case CRASH_TAIL:
        return sector >= tear.n;
    case CRASH_SCATTER:
        return crash_random(&state, 2);
    default:
        return true;
    }
}

/* The bytes [offset, offset + bytes) of @entry's range. */
static void apply_piece(const CrashEntry *entry, CrashImage *image, int64_t offset, int64_t bytes)
{
    if (entry->kind == CRASH_WRITE) {
        crash_image_write(image, offset, bytes, entry->data + (offset - entry->offset));
    } else if (entry->kind == CRASH_ZEROES) {
        crash_image_fill(image, offset, bytes, 0);
    } else {
        crash_image_fill(image, offset, MIN(bytes, image->length - offset), entry->byte);
    }
}

void crash_entry_apply(const CrashEntry *entry, CrashTear tear, CrashImage *image)
{
    int64_t end = entry->offset + entry->bytes, sectors = crash_entry_sectors(entry);
    int64_t first = entry->offset / CRASH_SECTOR;

    if (entry->kind == CRASH_TRUNCATE) {
        crash_image_set_length(image, entry->offset);
    }
    for (int64_t i = 0; i < sectors; i++) {
        int64_t from = MAX((first + i) * CRASH_SECTOR, entry->offset);

        if (tear_keeps(tear, i)) {
            apply_piece(entry, image, from, MIN((first + i + 1) * CRASH_SECTOR, end) - from);
        }
    }
    /* A file may have its new length while the bytes are still missing, not so
     * where only the head was written. */
    if (tear.kind == CRASH_HEAD) {
        end = MIN(end, (first + tear.n) * CRASH_SECTOR);
    }
    if (entry->kind == CRASH_WRITE || entry->kind == CRASH_ZEROES) {
        image->length = MAX(image->length, end);
    }
}

char *crash_entry_text(const CrashEntry *entry)
{
    static const char *const names[] = {"write", "zeroes", "discard", "truncate", "flush"};

    return g_strdup_printf("%s %" PRId64 "+%" PRId64 " of disk %u%s, from %" PRIu64 " to %" PRId64,
                           names[entry->kind], entry->offset, entry->bytes, entry->disk,
                           entry->fua ? " with FUA" : "", entry->begin, (int64_t)entry->end);
}
