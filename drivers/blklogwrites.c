/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blklogwrites filter: notes all that changes "file" in "log", in the format
 * of the Linux device mapper's log-writes target. See docs/formats/blklogwrites.md.
 *
 * The log, in sectors of a size of its own, little-endian: a superblock (magic,
 * version, number of entries as 64 bits each, sector size as 32); then entry after
 * entry, a sector (first sector, number of sectors, flags, 0 as 64 bits each), and
 * what was written.
 *
 * Invariants:
 *  1. A request gets its number and its place in the log at one moment: a write
 *     when the file has taken it, so that a flush finds what it covers before it.
 *  2. The superblock counts only entries that are whole and durable, and its count
 *     does not go down.
 *  3. After an entry has failed none is counted: the log ends there, and requests
 *     that would belong into it fail.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blockgraph/block-driver.h"

#define LOG_MAGIC 0x6a736677736872ULL
#define LOG_VERSION 1
#define MIN_SECTOR_SIZE 32 /* an entry */
#define MAX_SECTOR_SIZE (1 << 23)
#define DEFAULT_SECTOR_SIZE 512
#define DEFAULT_UPDATE_INTERVAL 4096 /* entries */

enum { LOG_FLUSH = 1 << 0, LOG_FUA = 1 << 1, LOG_DISCARD = 1 << 2, LOG_MARK = 1 << 3 };

/* All numbers, on disk. */
typedef struct LogSuper {
    uint64_t magic;
    uint64_t version;
    uint64_t entries;
    uint32_t sector_size;
} __attribute__((packed)) LogSuper;

typedef struct LogEntry {
    uint64_t sector;
    uint64_t sectors;
    uint64_t flags;
    uint64_t data_bytes; /* of marks, which only the kernel's target has */
} LogEntry;

/* An entry on its way to the log; lives on its coroutine's stack. */
typedef struct Pending Pending;
struct Pending {
    uint64_t number;
    Pending *next;
};

typedef struct LogState {
    uint32_t sector_size;
    uint64_t update_interval;
    GMutex mutex; /* all below */
    uint64_t entries; /* that have a place */
    uint64_t end;     /* where the next goes, in sectors */
    uint64_t counted; /* by the superblock */
    bool counting;    /* the superblock is being written */
    int error;        /* of the first entry that has failed, or 0 */
    Pending *pending;
    CoQueue changed;  /* pending or counting is another */
} LogState;

static BdrvChild *file_of(BlockDriverState *bs) GRAPH_RDLOCK
{
    return bdrv_get_child(bs, "file");
}

static BdrvChild *log_of(BlockDriverState *bs) GRAPH_RDLOCK
{
    return bdrv_get_child(bs, "log");
}

/* ---- Opening ------------------------------------------------------------------------ */

static const char *const weak_options[] = {"log-super-update-interval", NULL};

static const BlockOption blklogwrites_options[] = {
    {"file", "str", "The node whose changes are logged"},
    {"log", "str", "The node that holds the log"},
    {"log-append", "bool", "Go on with the log that is there"},
    {"log-sector-size", "size", "Sector size of the log, 512 by default"},
    {"log-super-update-interval", "num", "Entries after which the superblock is written"},
    {NULL, NULL, NULL},
};

static bool sector_size_is_valid(int64_t size)
{
    return size >= MIN_SECTOR_SIZE && size <= MAX_SECTOR_SIZE && (size & (size - 1)) == 0;
}

/* Find the end of a log of @length bytes that has @entries entries. */
static bool find_end(LogState *s, BdrvChild *log, uint64_t entries, int64_t length, GError **errp)
{
    uint64_t room = length / s->sector_size;
    LogEntry entry;

    for (s->end = 1; s->entries < entries; s->entries++) {
        uint64_t sectors;
        int ret = s->end >= room ? -EINVAL : bdrv_pread(log, s->end * s->sector_size,
                                                        sizeof(entry), &entry, 0);

        if (ret < 0) {
            block_error_set_errno(errp, ret, "Failed to read log entry %" PRIu64, s->entries);
            return false;
        }
        if (GUINT64_FROM_LE(entry.flags) & ~(uint64_t)(LOG_FLUSH | LOG_FUA | LOG_DISCARD |
                                                       LOG_MARK)) {
            block_error_set(errp, EINVAL, "Invalid flags 0x%" PRIx64 " in log entry %" PRIu64,
                            GUINT64_FROM_LE(entry.flags), s->entries);
            return false;
        }
        sectors = GUINT64_FROM_LE(entry.flags) & LOG_DISCARD ? 0 : GUINT64_FROM_LE(entry.sectors);
        if (sectors > room - s->end - 1) {
            block_error_set(errp, EINVAL, "Log entry %" PRIu64 " with %" PRIu64 " sectors ends "
                            "beyond the log", s->entries, sectors);
            return false;
        }
        s->end += 1 + sectors;
    }
    s->counted = entries;
    return true;
}

/* Go on with the log in @log, if there is one. */
static bool continue_log(LogState *s, BdrvChild *log, int64_t length, GError **errp)
{
    LogSuper super;
    int ret;

    if (length == 0) {
        return true;
    }
    ret = bdrv_pread(log, 0, sizeof(super), &super, 0);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not read log superblock");
        return false;
    }
    if (GUINT64_FROM_LE(super.magic) != LOG_MAGIC) {
        block_error_set(errp, EINVAL, "Invalid log superblock magic");
        return false;
    }
    if (GUINT64_FROM_LE(super.version) != LOG_VERSION) {
        block_error_set(errp, EINVAL, "Unsupported log version %" PRIu64,
                        GUINT64_FROM_LE(super.version));
        return false;
    }
    if (!sector_size_is_valid(GUINT32_FROM_LE(super.sector_size))) {
        block_error_set(errp, EINVAL, "Invalid log sector size %" PRIu32,
                        GUINT32_FROM_LE(super.sector_size));
        return false;
    }
    s->sector_size = GUINT32_FROM_LE(super.sector_size);
    return find_end(s, log, GUINT64_FROM_LE(super.entries), length, errp);
}

static bool take_options(LogState *s, JsonObject *options, bool *append, GError **errp)
{
    int64_t sector_size = -1, interval = DEFAULT_UPDATE_INTERVAL;

    if (!block_options_take_bool(options, "log-append", append, errp) ||
        !block_options_take_size(options, "log-sector-size", &sector_size, errp) ||
        !block_options_take_int(options, "log-super-update-interval", &interval, errp)) {
        return false;
    }
    if (*append && sector_size >= 0) {
        block_error_set(errp, EINVAL,
                        "log-append and log-sector-size are mutually exclusive");
        return false;
    }
    if (sector_size >= 0 && !sector_size_is_valid(sector_size)) {
        block_error_set(errp, EINVAL, "Invalid log sector size %" PRId64, sector_size);
        return false;
    }
    if (interval <= 0) {
        block_error_set(errp, EINVAL, "Invalid log superblock update interval %" PRId64, interval);
        return false;
    }
    s->sector_size = sector_size < 0 ? DEFAULT_SECTOR_SIZE : sector_size;
    s->update_interval = interval;
    return true;
}

static bool blklogwrites_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    LogState *s = bdrv_state(bs);
    BdrvChild *file, *log;
    int64_t log_length;
    bool append = false;

    file = bdrv_open_child(NULL, options, "file", bs, BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY,
                           false, errp);
    if (!file || !take_options(s, options, &append, errp)) {
        return false;
    }
    log = bdrv_open_child(NULL, options, "log", bs, BDRV_CHILD_METADATA, false, errp);
    if (!log) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_set_length(bs, bdrv_getlength(bdrv_child_bs(file)));
    log_length = bdrv_getlength(bdrv_child_bs(log));
    bdrv_graph_rdunlock_main_loop();
    s->end = 1;
    if (append && !continue_log(s, log, log_length, errp)) {
        return false;
    }
    g_mutex_init(&s->mutex);
    co_queue_init(&s->changed);
    return true;
}

static void blklogwrites_close(BlockDriverState *bs)
{
    LogState *s = bdrv_state(bs);

    g_mutex_clear(&s->mutex);
}

/* The log knows nothing smaller than its sectors. */
static void blklogwrites_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    LogState *s = bdrv_state(bs);

    limits->request_alignment = MAX(limits->request_alignment, s->sector_size);
}

/* ---- The log -------------------------------------------------------------------------- */

/* Whether an entry with a smaller number is not written yet. Under the mutex. */
static bool is_pending_before(LogState *s, uint64_t number)
{
    for (Pending *p = s->pending; p; p = p->next) {
        if (p->number < number) {
            return true;
        }
    }
    return false;
}

/* Give the entry its number and its place, returned in sectors, for @sectors of data. */
static uint64_t begin_entry(LogState *s, Pending *pending, uint64_t sectors)
{
    uint64_t place;

    g_mutex_lock(&s->mutex);
    pending->number = s->entries++;
    pending->next = s->pending;
    s->pending = pending;
    place = s->end;
    s->end += 1 + sectors;
    g_mutex_unlock(&s->mutex);
    return place;
}

/* @ret: what became of it. 0, or the error that the log has ended with. */
static int end_entry(LogState *s, Pending *pending, int ret)
{
    Pending **p;

    g_mutex_lock(&s->mutex);
    for (p = &s->pending; *p != pending; p = &(*p)->next) {
    }
    *p = pending->next;
    if (ret < 0 && s->error == 0) {
        s->error = ret;
    }
    ret = s->error;
    co_queue_wake_all(&s->changed);
    g_mutex_unlock(&s->mutex);
    return ret;
}

/* A sector with @bytes at @data, zeros behind; free with free(). */
static uint8_t *GRAPH_RDLOCK make_sector(LogState *s, BdrvChild *log, const void *data,
                                         size_t bytes)
{
    uint8_t *sector = bdrv_try_blockalign(bdrv_child_bs(log), s->sector_size);

    if (sector) {
        memset(sector, 0, s->sector_size);
        memcpy(sector, data, bytes);
    }
    return sector;
}

static int coroutine_fn write_super(LogState *s, BdrvChild *log, uint64_t entries) GRAPH_RDLOCK
{
    LogSuper super = {
        .magic = GUINT64_TO_LE(LOG_MAGIC),
        .version = GUINT64_TO_LE(LOG_VERSION),
        .entries = GUINT64_TO_LE(entries),
        .sector_size = GUINT32_TO_LE(s->sector_size),
    };
    uint8_t *sector = make_sector(s, log, &super, sizeof(super));
    int ret = sector ? bdrv_co_flush(bdrv_child_bs(log)) : -ENOMEM;

    if (ret >= 0) {
        ret = bdrv_co_pwrite(log, 0, s->sector_size, sector, 0);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bdrv_child_bs(log));
    }
    free(sector);
    return ret;
}

/* Have the superblock count the first @entries entries. */
static int coroutine_fn count_entries(LogState *s, BdrvChild *log, uint64_t entries) GRAPH_RDLOCK
{
    int ret;

    g_mutex_lock(&s->mutex);
    while (s->counting || is_pending_before(s, entries)) {
        co_queue_wait_gmutex(&s->changed, &s->mutex);
    }
    if (s->error < 0 || s->counted >= entries) {
        ret = s->error;
        g_mutex_unlock(&s->mutex);
        return ret;
    }
    s->counting = true;
    g_mutex_unlock(&s->mutex);

    ret = write_super(s, log, entries);

    g_mutex_lock(&s->mutex);
    s->counting = false;
    if (ret >= 0) {
        s->counted = entries;
    }
    co_queue_wake_all(&s->changed);
    g_mutex_unlock(&s->mutex);
    return MIN(ret, 0);
}

/* Write an entry at @place; its data is @iov, or zeros if that is NULL. */
static int coroutine_fn write_entry(LogState *s, BdrvChild *log, uint64_t place,
                                    const LogEntry *entry, uint64_t sectors,
                                    IOVector *iov) GRAPH_RDLOCK
{
    int64_t offset = place * s->sector_size, bytes = sectors * s->sector_size;
    uint8_t *header = make_sector(s, log, entry, sizeof(*entry));
    IOVector all;
    int ret;

    if (!header) {
        return -ENOMEM;
    }
    io_vector_init(&all, iov ? iov->niov + 1 : 1);
    io_vector_add(&all, header, s->sector_size);
    if (iov) {
        io_vector_append(&all, iov, 0, iov->size);
    }
    ret = bdrv_co_pwritev(log, offset, all.size, &all, 0);
    if (ret >= 0 && !iov && bytes > 0) {
        ret = bdrv_co_pwrite_zeroes(log, offset + s->sector_size, bytes, 0);
    }
    io_vector_destroy(&all);
    free(header);
    return ret;
}

/* Log a request that has been carried out; @iov: see above. */
static int coroutine_fn log_request(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, uint64_t flags) GRAPH_RDLOCK
{
    LogState *s = bdrv_state(bs);
    LogEntry entry = {
        .sector = GUINT64_TO_LE(offset / s->sector_size),
        .sectors = GUINT64_TO_LE(bytes / s->sector_size),
        .flags = GUINT64_TO_LE(flags),
    };
    uint64_t sectors = flags & LOG_DISCARD ? 0 : bytes / s->sector_size;
    Pending pending;
    uint64_t place = begin_entry(s, &pending, sectors);
    uint64_t number = pending.number;
    int ret = write_entry(s, log_of(bs), place, &entry, sectors, iov);

    ret = end_entry(s, &pending, ret);
    if (ret >= 0 && ((flags & (LOG_FLUSH | LOG_FUA)) || (number + 1) % s->update_interval == 0)) {
        ret = count_entries(s, log_of(bs), number + 1);
    }
    return ret;
}

/* ---- Requests -------------------------------------------------------------------------- */

static int coroutine_fn blklogwrites_co_preadv(BlockDriverState *bs, int64_t offset,
                                               int64_t bytes, IOVector *iov, int flags)
{
    bdrv_graph_assert_readable();
    return bdrv_co_preadv(file_of(bs), offset, bytes, iov, flags);
}

static int coroutine_fn blklogwrites_co_pwritev(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, IOVector *iov, int flags)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_pwritev(file_of(bs), offset, bytes, iov, flags);
    return ret < 0 ? ret : log_request(bs, offset, bytes, iov,
                                       flags & BDRV_REQ_FUA ? LOG_FUA : 0);
}

static int coroutine_fn blklogwrites_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                      int64_t bytes, int flags)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_pwrite_zeroes(file_of(bs), offset, bytes, flags);
    return ret < 0 ? ret : log_request(bs, offset, bytes, NULL,
                                       flags & BDRV_REQ_FUA ? LOG_FUA : 0);
}

static int coroutine_fn blklogwrites_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_pdiscard(file_of(bs), offset, bytes);
    return ret < 0 ? ret : log_request(bs, offset, bytes, NULL, LOG_DISCARD);
}

/* The core flushes the file after this. */
static int coroutine_fn blklogwrites_co_flush(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return log_request(bs, 0, 0, NULL, LOG_FLUSH);
}

BlockDriver block_driver_blklogwrites = {
    .format_name = "blklogwrites",
    .instance_size = sizeof(LogState),
    .options = blklogwrites_options,
    .weak_options = weak_options,
    .is_filter = true,
    .bdrv_open = blklogwrites_open,
    .bdrv_close = blklogwrites_close,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_refresh_limits = blklogwrites_refresh_limits,
    .bdrv_co_preadv = blklogwrites_co_preadv,
    .bdrv_co_pwritev = blklogwrites_co_pwritev,
    .bdrv_co_pwrite_zeroes = blklogwrites_co_pwrite_zeroes,
    .bdrv_co_pdiscard = blklogwrites_co_pdiscard,
    .bdrv_co_flush = blklogwrites_co_flush,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
};
