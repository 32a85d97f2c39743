/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The recorder driver. A request begins, reaches the disk's cache early or
 * late, and ends: three events, between which others happen.
 */
#include <errno.h>
#include <string.h>

#include "recorder.h"

/* Longer files are refused: a state is held in memory, and copied. */
#define MAX_LENGTH (INT64_C(1) << 40)
#define MAX_DATA (INT64_C(64) << 20)

typedef struct RecorderState {
    CrashStore *store;
    unsigned disk;
} RecorderState;

/* ---- Opening ---------------------------------------------------------------------- */

static const BlockOption recorder_options[] = {
    {"disk", "str", "Name of a disk of the active store"},
    {NULL, NULL, NULL},
};

static const BlockOption recorder_create_options[] = {
    {"size", "size", "Size of the disk"},
    {NULL, NULL, NULL},
};

static const char *disk_of_filename(const char *filename)
{
    return g_str_has_prefix(filename, "recorder:") ? filename + strlen("recorder:") : filename;
}

static JsonObject *recorder_parse_filename(const char *filename, GError **errp)
{
    JsonObject *options = json_object_new();

    json_object_set_string_member(options, "disk", disk_of_filename(filename));
    return options;
}

static bool recorder_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    RecorderState *s = bdrv_state(bs);
    g_autofree char *name = NULL;
    int disk;

    if (!block_options_take_string(options, "disk", &name, errp)) {
        return false;
    }
    s->store = crash_store_active();
    disk = s->store && name ? crash_store_find(s->store, name) : -1;
    if (disk < 0) {
        block_error_set(errp, ENOENT, "The store has no disk '%s'", name ? name : "");
        return false;
    }
    s->disk = disk;
    bdrv_set_length(bs, crash_store_image(s->store, disk)->length);
    return true;
}

static char *recorder_make_filename(BlockDriverState *bs)
{
    RecorderState *s = bdrv_state(bs);

    return g_strconcat("recorder:", ((CrashDisk *)s->store->disks->pdata[s->disk])->name, NULL);
}

/* Makes the disk empty, or adds it. */
static bool recorder_create(const char *filename, JsonObject *options, GError **errp)
{
    CrashStore *store = crash_store_active();
    const char *name = disk_of_filename(filename);
    int64_t size = 0;
    int disk;

    if (!block_options_take_size(options, "size", &size, errp)) {
        return false;
    }
    disk = crash_store_find(store, name);
    if (disk < 0) {
        disk = crash_store_add(store, name);
    }
    crash_image_set_length(crash_store_image(store, disk), 0);
    crash_image_set_length(crash_store_image(store, disk), size);
    return true;
}

/* ---- Requests --------------------------------------------------------------------- */

static CrashImage *image_of(RecorderState *s)
{
    return crash_store_image(s->store, s->disk);
}

/* Let others go first for a while, or not. */
static void coroutine_fn take_time(CrashStore *store)
{
    if (store->world) {
        co_sleep_ns(sim_world_random(store->world, 4) * 1000);
    }
}

static bool is_early(CrashStore *store)
{
    return !store->world || sim_world_random(store->world, 2);
}

static void carry_out(RecorderState *s, CrashEntry *entry, IOVector *iov)
{
    if (iov) { /* what is in memory now, should it have changed */
        io_vector_to_buf(iov, 0, entry->data, entry->bytes);
    }
    crash_entry_apply(entry, (CrashTear){CRASH_WHOLE}, image_of(s));
    if (s->store->log) {
        crash_log_cached(s->store->log, entry);
    }
}

static int coroutine_fn change(BlockDriverState *bs, CrashKind kind, int64_t offset, int64_t bytes,
                               IOVector *iov, bool fua)
{
    RecorderState *s = bdrv_state(bs);
    CrashStore *store = s->store;
    g_autofree uint8_t *data = iov ? g_malloc(bytes) : NULL;
    CrashEntry unrecorded = {.kind = kind, .disk = s->disk, .offset = offset, .bytes = bytes,
                             .data = data};
    CrashEntry *entry = &unrecorded;
    bool early = is_early(store);

    if (offset > MAX_LENGTH - bytes || (kind == CRASH_WRITE && offset > MAX_DATA - bytes)) {
        return -ENOSPC;
    }
    if (iov) {
        io_vector_to_buf(iov, 0, data, bytes);
    }
    if (store->log) {
        entry = crash_log_begin(store->log, kind, s->disk, offset, bytes, data);
    }
    entry->fua = fua;
    entry->byte = store->discard_byte;
    if (early) {
        carry_out(s, entry, iov);
    }
    take_time(store);
    if (!early) {
        carry_out(s, entry, iov);
    }
    if (store->log) {
        crash_log_end(store->log, entry);
    }
    return 0;
}

static int coroutine_fn recorder_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           IOVector *iov, int flags)
{
    RecorderState *s = bdrv_state(bs);
    g_autofree uint8_t *data = g_malloc(bytes);
    bool early = is_early(s->store);

    if (early) {
        crash_image_read(image_of(s), offset, bytes, data);
    }
    take_time(s->store);
    if (!early) {
        crash_image_read(image_of(s), offset, bytes, data);
    }
    io_vector_from_buf(iov, 0, data, bytes);
    return 0;
}

static int coroutine_fn recorder_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *iov, int flags)
{
    return change(bs, CRASH_WRITE, offset, bytes, iov, flags & BDRV_REQ_FUA);
}

static int coroutine_fn recorder_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, int flags)
{
    return change(bs, CRASH_ZEROES, offset, bytes, NULL, flags & BDRV_REQ_FUA);
}

static int coroutine_fn recorder_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return change(bs, CRASH_DISCARD, offset, bytes, NULL, false);
}

static int coroutine_fn recorder_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                             BlockPrealloc prealloc, GError **errp)
{
    int ret = change(bs, CRASH_TRUNCATE, offset, 0, NULL, false);

    if (ret < 0) {
        block_error_set(errp, -ret, "The disk cannot be %" G_GINT64_FORMAT " bytes long", offset);
        return ret;
    }
    bdrv_set_length(bs, offset);
    return 0;
}

static int coroutine_fn recorder_co_flush(BlockDriverState *bs)
{
    RecorderState *s = bdrv_state(bs);
    CrashLog *log = s->store->flush_lies ? NULL : s->store->log;
    CrashEntry *entry = log ? crash_log_begin(log, CRASH_FLUSH, s->disk, 0, 0, NULL) : NULL;

    take_time(s->store);
    if (entry) {
        crash_log_end(log, entry);
    }
    return 0;
}

static int64_t coroutine_fn recorder_co_get_allocated_file_size(BlockDriverState *bs)
{
    return image_of(bdrv_state(bs))->length;
}

static BlockDriver recorder_driver = {
    .format_name = "recorder",
    .protocol_name = "recorder",
    .instance_size = sizeof(RecorderState),
    .options = recorder_options,
    .create_options = recorder_create_options,
    .bdrv_parse_filename = recorder_parse_filename,
    .bdrv_open = recorder_open,
    .bdrv_make_filename = recorder_make_filename,
    .bdrv_create = recorder_create,
    .bdrv_co_preadv = recorder_co_preadv,
    .bdrv_co_pwritev = recorder_co_pwritev,
    .bdrv_co_pwrite_zeroes = recorder_co_pwrite_zeroes,
    .bdrv_co_pdiscard = recorder_co_pdiscard,
    .bdrv_co_flush = recorder_co_flush,
    .bdrv_co_truncate = recorder_co_truncate,
    .bdrv_co_get_allocated_file_size = recorder_co_get_allocated_file_size,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
};

void recorder_register(void)
{
    if (!bdrv_find_format("recorder")) {
        g_assert(bdrv_register(&recorder_driver, NULL));
    }
}
