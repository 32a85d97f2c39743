/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The raw format: the disk is the file, or with offset and size a part of it.
 *
 * If the format was probed, a write must not turn the image into one of
 * another format, which would be opened as such the next time: invariants are
 *  1. What the first sector will hold is looked at before anything is written
 *     to it, in memory that nobody else can change.
 *  2. Changes to that sector are made one after the other.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blockgraph/block-driver.h"

/* ---- State, probing ----------------------------------------------------------- */

typedef struct RawState {
    int64_t offset; /* of the disk in the file, bytes */
    int64_t size;   /* bytes; -1: up to the end of the file */
    bool guarded;   /* the first sector, see above */
    /* Whether a change to the first sector is under way, and who waits. */
    GMutex mutex;
    bool busy;
    CoQueue waiting;
} RawState;

static const BlockOption raw_options[] = {
    {"offset", "size", "Where the disk begins in the file"},
    {"size", "size", "Size of the disk"},
    {NULL, NULL, NULL},
};

/* Everything may be raw, but anything else is more likely. */
static int raw_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return 1;
}

/* ---- Opening -------------------------------------------------------------------- */

/* The length of the disk in a file of @file_length, or -1 with @errp. */
static int64_t disk_length(RawState *s, int64_t file_length, GError **errp)
{
    if (s->size >= 0 && s->size % BDRV_SECTOR_SIZE != 0) {
        block_error_set(errp, EINVAL, "Specified size is not multiple of %lld", BDRV_SECTOR_SIZE);
        return -1;
    }
    if (s->offset > file_length) {
        block_error_set(errp, EINVAL, "Offset (%" PRId64 ") cannot be greater than size of the "
                        "containing file (%" PRId64 ")", s->offset, file_length);
        return -1;
    }
    if (s->size > file_length - s->offset) {
        block_error_set(errp, EINVAL, "The sum of offset (%" PRId64 ") and size (%" PRId64 ") has "
                        "to be smaller or equal to the  actual size of the containing file (%"
                        PRId64 ")", s->offset, s->size, file_length);
        return -1;
    }
    return s->size >= 0 ? s->size : file_length - s->offset;
}

static bool raw_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    RawState *s = bdrv_state(bs);
    BdrvChild *file;
    int64_t length;
    int role;

    s->size = -1;
    if (!block_options_take_size(options, "offset", &s->offset, errp) ||
        !block_options_take_size(options, "size", &s->size, errp)) {
        return false;
    }
    /* A part of a file is not the same data as the file. */
    role = s->offset || s->size >= 0 ? BDRV_CHILD_DATA : BDRV_CHILD_FILTERED;
    file = bdrv_open_child(NULL, options, "file", bs, role | BDRV_CHILD_PRIMARY, false, errp);
    if (!file) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    length = disk_length(s, bdrv_getlength(bdrv_child_bs(file)), errp);
    bdrv_graph_rdunlock_main_loop();
    if (length < 0) {
        return false;
    }
    bdrv_set_length(bs, length);
    s->guarded = bdrv_was_probed(bs);
    g_mutex_init(&s->mutex);
    co_queue_init(&s->waiting);
    return true;
}

static void raw_close(BlockDriverState *bs)
{
    RawState *s = bdrv_state(bs);

    g_mutex_clear(&s->mutex);
}

/* ---- The first sector of a probed image ------------------------------------------- */

/* A write with its first bytes in memory of our own. */
typedef struct GuardedWrite {
    RawState *s;
    uint8_t head[BDRV_SECTOR_SIZE];
    IOVector iov;
} GuardedWrite;

/* Formats that others recognize, by the first bytes or by those at an offset. */
static const struct {
    size_t offset;
    const char *magic;
} foreign_magics[] = {
    {0, "QFI\xfb"}, {0, "QED"}, {0, "KDMV"}, {0, "COWD"}, {0, "# Disk DescriptorFile"},
    {0, "vhdxfile"}, {0, "conectix"}, {64, "\x7f\x10\xda\xbe"}, {0, "WithoutFreeSpace"},
    {0, "WithouFreSpacExt"}, {0, "LUKS\xba\xbe"}, {0, "#!/bin/sh\n#V2.0 Format\n"},
};

static bool looks_raw(const uint8_t *sector, const char *filename)
{
    for (size_t i = 0; i < G_N_ELEMENTS(foreign_magics); i++) {
        const char *magic = foreign_magics[i].magic;

        if (memcmp(sector + foreign_magics[i].offset, magic, strlen(magic)) == 0) {
            return false;
        }
    }
    for (BlockDriver *drv = bdrv_next_driver(NULL); drv; drv = bdrv_next_driver(drv)) {
        if (drv->bdrv_probe && drv->bdrv_probe != raw_probe &&
            drv->bdrv_probe(sector, BDRV_SECTOR_SIZE, filename) > 0) {
            return false;
        }
    }
    return true;
}

static void coroutine_fn guard_enter(RawState *s)
{
    g_mutex_lock(&s->mutex);
    while (s->busy) {
        co_queue_wait_gmutex(&s->waiting, &s->mutex);
    }
    s->busy = true;
    g_mutex_unlock(&s->mutex);
}

static void guard_leave(RawState *s)
{
    g_mutex_lock(&s->mutex);
    s->busy = false;
    co_queue_wake_one(&s->waiting);
    g_mutex_unlock(&s->mutex);
}

static void guarded_write_release(BdrvIoRequest *req)
{
    GuardedWrite *w = req->opaque;

    guard_leave(w->s);
    io_vector_destroy(&w->iov);
    g_free(w);
}

/* Refuse a sector that another format would own; only inside the guard. */
static int coroutine_fn check_first_sector(BlockDriverState *bs, const BdrvIoRequest *req,
                                           const GuardedWrite *w) GRAPH_RDLOCK
{
    int64_t n = MIN(req->bytes, BDRV_SECTOR_SIZE - req->offset);
    uint8_t sector[BDRV_SECTOR_SIZE];
    int ret;

    if (n < BDRV_SECTOR_SIZE) {
        ret = bdrv_co_pread(bdrv_file_child(bs), 0, sizeof(sector), sector, 0);
        if (ret < 0) {
            return ret;
        }
    }
    memcpy(sector + req->offset, w->head, n); /* zeros, unless it is a write */
    return looks_raw(sector, bdrv_get_filename(bs)) ? 0 : -EPERM;
}

static int coroutine_fn raw_co_before_io(BlockDriverState *bs, BdrvIoRequest *req)
{
    RawState *s = bdrv_state(bs);
    GuardedWrite *w;

    if (!s->guarded || req->offset >= BDRV_SECTOR_SIZE || req->bytes == 0 ||
        (req->type != BDRV_IO_WRITE && req->type != BDRV_IO_WRITE_ZEROES &&
         req->type != BDRV_IO_DISCARD)) {
        return 0;
    }
    w = g_new0(GuardedWrite, 1);
    w->s = s;
    io_vector_init(&w->iov, 2);
    if (req->type == BDRV_IO_WRITE) {
        size_t n = io_vector_to_buf(req->iov, 0, w->head, sizeof(w->head));

        io_vector_add(&w->iov, w->head, n);
        io_vector_append(&w->iov, req->iov, n, req->iov->size - n);
        req->iov = &w->iov;
    }
    req->release = guarded_write_release;
    req->opaque = w;
    guard_enter(s);
    bdrv_graph_assert_readable();
    return check_first_sector(bs, req, w);
}

/* Only writes to the first sector are looked at, and only if it is guarded. */
static bool raw_is_transparent(BlockDriverState *bs, BdrvIoType type)
{
    RawState *s = bdrv_state(bs);

    return type == BDRV_IO_READ || !s->guarded;
}

/* ---- Requests ------------------------------------------------------------------------ */

static int coroutine_fn raw_co_map(BlockDriverState *bs, const BdrvMapRequest *req,
                                   BdrvMapping *mapping)
{
    RawState *s = bdrv_state(bs);
    int64_t end = req->offset + req->bytes;

    bdrv_graph_assert_readable();
    if (s->size >= 0 && end > s->size) {
        /* What follows in the file is not ours. */
        return req->op == BDRV_MAP_READ ? -EIO : -ENOSPC;
    }
    mapping->offset = 0;
    mapping->bytes = MAX(bdrv_getlength(bs), end);
    mapping->target = BDRV_MAP_DATA;
    mapping->child = bdrv_file_child(bs);
    mapping->child_offset = s->offset;
    mapping->recurse = true;
    mapping->raw = true;
    mapping->writable = true;
    return 0;
}

static int64_t coroutine_fn raw_co_getlength(BlockDriverState *bs)
{
    RawState *s = bdrv_state(bs);
    int64_t length;

    bdrv_graph_assert_readable();
    if (s->size >= 0) {
        return s->size;
    }
    length = bdrv_co_getlength(bdrv_child_bs(bdrv_file_child(bs)));
    return length < 0 ? length : MAX(length - s->offset, 0);
}

static int coroutine_fn raw_co_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    bdrv_graph_assert_readable();
    return bdrv_co_get_info(bdrv_child_bs(bdrv_file_child(bs)), info);
}

static int coroutine_fn raw_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                        BlockPrealloc prealloc, GError **errp)
{
    RawState *s = bdrv_state(bs);
    int64_t end;
    int ret;

    bdrv_graph_assert_readable();
    if (s->size >= 0) {
        block_error_set(errp, ENOTSUP, "Cannot resize fixed-size raw disks");
        return -ENOTSUP;
    }
    if (__builtin_add_overflow(s->offset, offset, &end) || end > BDRV_MAX_LENGTH) {
        block_error_set(errp, EINVAL, "Disk size too large for the chosen offset");
        return -EINVAL;
    }
    ret = bdrv_co_truncate(bdrv_file_child(bs), end, exact, prealloc, errp);
    if (ret >= 0) {
        bdrv_set_length(bs, offset);
    }
    return ret;
}

/* ---- Creating and measuring ------------------------------------------------------------- */

static const BlockOption raw_create_options[] = {
    {"size", "size", "Virtual disk size"},
    {NULL, NULL, NULL},
};

static bool raw_create(const char *filename, JsonObject *options, GError **errp)
{
    BlockDriver *protocol = bdrv_find_protocol(filename, errp);

    return protocol && bdrv_create(protocol, filename, options, errp);
}

/* The data is all of the image, zeros as well. */
static bool raw_create_sequential(JsonObject *options, GArray *ranges, BdrvSequentialWrite *write,
                                  void *opaque, GError **errp)
{
    BdrvRange all = {0};

    if (!block_options_take_size(options, "size", &all.bytes, errp)) {
        return false;
    }
    if (all.bytes > BDRV_MAX_LENGTH) {
        block_error_set(errp, EFBIG, "The image size is too large");
        return false;
    }
    all.bytes += -all.bytes & (BDRV_SECTOR_SIZE - 1);
    g_array_set_size(ranges, 0);
    if (all.bytes > 0) {
        g_array_append_val(ranges, all);
    }
    return true;
}

static bool raw_measure(JsonObject *options, BlockDriverState *source, BlockMeasureInfo *info,
                        GError **errp)
{
    int64_t size = 0;

    if (!block_options_take_size(options, "size", &size, errp)) {
        return false;
    }
    if (source) {
        size = bdrv_getlength(source);
    }
    if (size > BDRV_MAX_LENGTH) {
        block_error_set(errp, EFBIG, "The image size is too large");
        return false;
    }
    size += -size & (BDRV_SECTOR_SIZE - 1);
    info->required = size;
    info->fully_allocated = size;
    return true;
}

BlockDriver block_driver_raw = {
    .format_name = "raw",
    .instance_size = sizeof(RawState),
    .options = raw_options,
    .create_options = raw_create_options,
    .map_is_cheap = true,
    .bdrv_probe = raw_probe,
    .bdrv_open = raw_open,
    .bdrv_close = raw_close,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_create = raw_create,
    .bdrv_create_sequential = raw_create_sequential,
    .bdrv_measure = raw_measure,
    .bdrv_co_get_info = raw_co_get_info,
    .bdrv_co_getlength = raw_co_getlength,
    .bdrv_co_map = raw_co_map,
    .bdrv_co_before_io = raw_co_before_io,
    .bdrv_is_transparent = raw_is_transparent,
    .bdrv_co_truncate = raw_co_truncate,
};
