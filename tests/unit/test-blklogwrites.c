/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blklogwrites: the log of each kind of request, byte for byte; logs that are
 * continued; and writes and flushes side by side.
 */
#include "driver-testing.h"

#define LENGTH (1 << 20)
#define MAGIC 0x6a736677736872ULL

enum { FLUSH = 1, FUA = 2, DISCARD = 4 };

static char *log_path;

static BlockBackend *try_open_log(const char *more, GError **errp)
{
    return try_open(options_of("driver=blklogwrites,file.driver=memory,file.size=1M,"
                               "file.node-name=below,log.driver=file,log.filename=%s%s", log_path,
                               more), BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP, errp);
}

/* With an empty log. */
static BlockBackend *open_log(const char *more)
{
    GError *err = NULL;
    BlockBackend *blk;

    g_free(log_path);
    log_path = make_file("log", NULL, 0);
    blk = try_open_log(more, &err);
    assert_ok(blk != NULL, err);
    return blk;
}

static int write_byte(BlockBackend *blk, int byte, int64_t offset, int64_t bytes, int flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    return blk_pwrite(blk, offset, bytes, buf, flags);
}

/* ---- What a log should be ------------------------------------------------------------ */

typedef struct Log {
    GByteArray *bytes;
    size_t sector;
    uint64_t entries;
} Log;

static void add_zeros(Log *log, size_t to)
{
    while (log->bytes->len < to) {
        g_byte_array_append(log->bytes, (const uint8_t *)"", 1);
    }
}

static void add_number(Log *log, uint64_t n, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = n >> (8 * i);

        g_byte_array_append(log->bytes, &byte, 1);
    }
}

static Log log_new(size_t sector)
{
    Log log = {g_byte_array_new(), sector, 0};

    add_zeros(&log, sector);
    return log;
}

static void log_add(Log *log, uint64_t sector, uint64_t sectors, int flags, int byte)
{
    add_number(log, sector, 8);
    add_number(log, sectors, 8);
    add_number(log, flags, 8);
    add_zeros(log, (log->bytes->len / log->sector + 1) * log->sector);
    for (uint64_t i = 0; !(flags & DISCARD) && i < sectors * log->sector; i++) {
        uint8_t data = byte;

        g_byte_array_append(log->bytes, &data, 1);
    }
    log->entries++;
}

/* The file must be that log; frees it. */
static void assert_log(Log *log)
{
    g_autofree uint8_t *file = load_file(log_path, log->bytes->len);
    GByteArray *all = log->bytes;
    Log super = {g_byte_array_new(), log->sector, 0};

    add_number(&super, MAGIC, 8);
    add_number(&super, 1, 8);
    add_number(&super, log->entries, 8);
    add_number(&super, log->sector, 4);
    memcpy(all->data, super.bytes->data, super.bytes->len);
    assert_memory_equal(file, all->data, all->len);
    g_byte_array_unref(super.bytes);
    g_byte_array_unref(all);
}

/* ---- Requests --------------------------------------------------------------------------- */

static void every_change_is_logged_in_order(void **state)
{
    BlockBackend *blk = open_log("");
    Log log = log_new(512);

    assert_int_equal(write_byte(blk, 1, 0, 4096, 0), 0);
    log_add(&log, 0, 8, 0, 1);
    assert_int_equal(blk_pwrite_zeroes(blk, 8192, 8192, BDRV_REQ_MAY_UNMAP), 0);
    log_add(&log, 16, 16, 0, 0);
    assert_int_equal(blk_pdiscard(blk, 16384, 16384), 0);
    log_add(&log, 32, 32, DISCARD, 0);
    assert_int_equal(blk_flush(blk), 0);
    log_add(&log, 0, 0, FLUSH, 0);
    assert_int_equal(blk_flush(blk), 0); /* nothing was written since */
    assert_int_equal(write_byte(blk, 2, 20480, 512, BDRV_REQ_FUA), 0);
    log_add(&log, 40, 1, FUA, 2);
    assert_int_equal(blk_pwrite_zeroes(blk, 40960, 512, BDRV_REQ_FUA), 0);
    log_add(&log, 80, 1, FUA, 0);
    blk_unref(blk);
    log_add(&log, 0, 0, FLUSH, 0); /* closing flushes */
    assert_log(&log);
}

static void what_is_read_or_not_done_is_not_logged(void **state)
{
    BlockBackend *blk = open_log("");
    uint8_t buf[512];

    assert_int_equal(blk_pread(blk, 0, sizeof(buf), buf, 0), 0);
    assert_int_equal(write_byte(blk, 1, LENGTH, 512, 0), -EIO);
    assert_int_equal(blk_pdiscard(blk, 100, 600), 0); /* no whole sector */
    assert_int_equal(blk_flush(blk), 0);
    assert_status(blk, 0, LENGTH, BDRV_BLOCK_ZERO);
    blk_unref(blk);
    g_free(load_file(log_path, 0));
}

static void parts_of_sectors_are_logged_whole(void **state)
{
    BlockBackend *blk = open_log(",log-sector-size=4096");
    Log log = log_new(4096);

    assert_int_equal(write_byte(blk, 3, 4096, 4096, 0), 0);
    log_add(&log, 1, 1, 0, 3);
    assert_int_equal(write_byte(blk, 3, 4096 + 100, 7, 0), 0);
    log_add(&log, 1, 1, 0, 3);
    assert_int_equal(blk_pdiscard(blk, 4096, 8000), 0);
    log_add(&log, 1, 1, DISCARD, 0);
    blk_unref(blk);
    log_add(&log, 0, 0, FLUSH, 0);
    assert_log(&log);
}

static void the_superblock_is_written_each_so_many_entries(void **state)
{
    BlockBackend *blk = open_log(",log-super-update-interval=2");
    g_autofree uint8_t *one = NULL, *two = NULL;

    assert_int_equal(write_byte(blk, 1, 0, 512, 0), 0);
    one = load_file(log_path, 3 * 512);
    assert_int_equal(one[16], 0);
    assert_int_equal(write_byte(blk, 1, 0, 512, 0), 0);
    two = load_file(log_path, 5 * 512);
    assert_int_equal(two[16], 2);
    blk_unref(blk);
}

static void a_log_is_continued(void **state)
{
    BlockBackend *blk = open_log(",log-sector-size=1024");
    Log log = log_new(1024);
    GError *err = NULL;

    assert_int_equal(write_byte(blk, 4, 0, 2048, 0), 0);
    log_add(&log, 0, 2, 0, 4);
    assert_int_equal(blk_pdiscard(blk, 0, 8192), 0);
    log_add(&log, 0, 8, DISCARD, 0);
    blk_unref(blk);
    log_add(&log, 0, 0, FLUSH, 0);
    blk = try_open_log(",log-append=on", &err);
    assert_ok(blk != NULL, err);
    assert_int_equal(write_byte(blk, 5, 1024, 1024, 0), 0);
    log_add(&log, 1, 1, 0, 5);
    blk_unref(blk);
    log_add(&log, 0, 0, FLUSH, 0);
    assert_log(&log);
}

/* ---- What is refused ------------------------------------------------------------------- */

static void assert_refused(const char *more, const char *part)
{
    GError *err = NULL;

    assert_null(try_open_log(more, &err));
    assert_error_has(&err, part);
}

/* Put a number of @bytes bytes at @offset of a log of 8 sectors with one entry. */
static void make_log(size_t offset, uint64_t value, size_t bytes)
{
    uint8_t file[4096] = {0};
    uint64_t super[] = {GUINT64_TO_LE(MAGIC), GUINT64_TO_LE(1), GUINT64_TO_LE(1),
                        GUINT64_TO_LE(512)};

    memcpy(file, super, sizeof(super));
    value = GUINT64_TO_LE(value);
    memcpy(file + offset, &value, bytes);
    g_free(log_path);
    log_path = make_file("log", file, sizeof(file));
}

static void damaged_logs_are_not_continued(void **state)
{
    make_log(0, 1, 8);
    assert_refused(",log-append=on", "Invalid log superblock magic");
    make_log(8, 2, 8);
    assert_refused(",log-append=on", "Unsupported log version 2");
    make_log(24, 511, 4);
    assert_refused(",log-append=on", "Invalid log sector size 511");
    make_log(16, 8, 8);
    assert_refused(",log-append=on", "Failed to read log entry 7");
    make_log(16, UINT64_MAX, 8);
    assert_refused(",log-append=on", "Failed to read log entry 7");
    make_log(512 + 16, 16, 8);
    assert_refused(",log-append=on", "Invalid flags 0x10 in log entry 0");
    make_log(512 + 8, 7, 8);
    assert_refused(",log-append=on", "Log entry 0 with 7 sectors");
    make_log(512 + 8, UINT64_MAX, 8);
    assert_refused(",log-append=on", "Log entry 0 with 18446744073709551615 sectors");
}

static void bad_options_are_refused(void **state)
{
    g_free(log_path);
    log_path = make_file("log", NULL, 0);
    assert_refused(",log-append=on,log-sector-size=512", "mutually exclusive");
    assert_refused(",log-sector-size=1000", "Invalid log sector size 1000");
    assert_refused(",log-sector-size=16", "Invalid log sector size 16");
    assert_refused(",log-sector-size=16M", "Invalid log sector size 16777216");
    assert_refused(",log-super-update-interval=0", "Invalid log superblock update interval 0");
    assert_refused(",foo=1", "Block format 'blklogwrites' does not support the option 'foo'");
    assert_open_fails(options_of("driver=blklogwrites,file.driver=memory,file.size=1M"), 0,
                      "A block device must be specified for \"log\"");
}

static void a_log_that_cannot_be_written_ends(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=blklogwrites,file.driver=memory,file.size=1M,"
                                            "log.driver=blkdebug,log.image.driver=memory,"
                                            "log.image.size=0,log.inject-error.0.event=none,"
                                            "log.inject-error.0.iotype=write,"
                                            "log.inject-error.0.errno=28,"
                                            "log.inject-error.0.once=on"), BDRV_O_RDWR);

    assert_int_equal(write_byte(blk, 1, 0, 512, 0), -ENOSPC);
    assert_int_equal(write_byte(blk, 1, 0, 512, 0), -ENOSPC); /* the hole stays */
    assert_int_equal(blk_flush(blk), -ENOSPC);
    blk_unref(blk);
}

/* ---- Side by side ------------------------------------------------------------------------ */

#define WRITERS 16
#define ROUNDS 8

typedef struct Writer {
    BlockBackend *blk;
    int id;
    int ret;
    bool done; /* atomic */
} Writer;

static void coroutine_fn writer_entry(void *opaque)
{
    Writer *w = opaque;
    uint8_t buf[1024];

    for (int i = 0; i < ROUNDS && w->ret >= 0; i++) {
        memset(buf, w->id * ROUNDS + i + 1, sizeof(buf));
        w->ret = blk_co_pwrite(w->blk, (w->id * ROUNDS + i) * 1024, sizeof(buf), buf, 0);
        if (w->ret >= 0 && i % 3 == 2) {
            w->ret = blk_co_flush(w->blk);
        }
    }
    __atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static void start_writer(void *opaque)
{
    coroutine_enter(coroutine_create(writer_entry, opaque));
}

/* Replay the log; each write must be in it once, with its data. */
static void assert_replays(const uint8_t *log, size_t length)
{
    g_autofree int *times = g_new0(int, WRITERS * ROUNDS);
    uint64_t entries, place = 512;
    int writes = 0;

    memcpy(&entries, log + 16, 8);
    for (uint64_t i = 0; i < GUINT64_FROM_LE(entries); i++) {
        uint64_t entry[3];
        int which;

        assert_true(place + 512 <= length);
        memcpy(entry, log + place, sizeof(entry));
        place += 512;
        if (GUINT64_FROM_LE(entry[2]) == FLUSH) {
            continue;
        }
        which = GUINT64_FROM_LE(entry[0]) / 2;
        assert_int_equal(GUINT64_FROM_LE(entry[1]), 2);
        assert_true(which < WRITERS * ROUNDS && place + 1024 <= length);
        assert_int_equal(log[place], (uint8_t)(which + 1));
        assert_int_equal(log[place + 1023], (uint8_t)(which + 1));
        assert_int_equal(times[which]++, 0);
        place += 1024;
        writes++;
    }
    assert_int_equal(writes, WRITERS * ROUNDS);
    assert_int_equal(place, length);
}

static void writers_and_flushes_of_two_threads_make_one_log(void **state)
{
    BlockBackend *blk = open_log(",log-super-update-interval=5");
    Writer writers[WRITERS];
    AioThread *threads[2];
    g_autofree char *log = NULL;
    gsize length;

    for (int i = 0; i < 2; i++) {
        threads[i] = aio_thread_new("writer", AIO_ENGINE_DEFAULT, NULL);
    }
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (Writer){.blk = blk, .id = i};
        aio_bh_oneshot(aio_thread_get_context(threads[i % 2]), start_writer, &writers[i]);
    }
    for (int i = 0; i < WRITERS; i++) {
        AIO_WAIT_WHILE(!__atomic_load_n(&writers[i].done, __ATOMIC_ACQUIRE));
        assert_int_equal(writers[i].ret, 0);
    }
    for (int i = 0; i < 2; i++) {
        aio_thread_stop(threads[i]);
    }
    blk_unref(blk);
    assert_true(g_file_get_contents(log_path, &log, &length, NULL));
    assert_replays((const uint8_t *)log, length);
}

static int teardown(void **state)
{
    g_free(log_path);
    return driver_group_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_change_is_logged_in_order),
        cmocka_unit_test(what_is_read_or_not_done_is_not_logged),
        cmocka_unit_test(parts_of_sectors_are_logged_whole),
        cmocka_unit_test(the_superblock_is_written_each_so_many_entries),
        cmocka_unit_test(a_log_is_continued),
        cmocka_unit_test(damaged_logs_are_not_continued),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(a_log_that_cannot_be_written_ends),
        cmocka_unit_test(writers_and_flushes_of_two_threads_make_one_log),
    };

    return cmocka_run_group_tests_name("blklogwrites", tests, driver_group_setup, teardown);
}
