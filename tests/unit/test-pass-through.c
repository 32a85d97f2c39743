/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pass-through: which requests go by the coroutines, which do not, and what that
 * must not change. A disk in memory counts what reaches it on either way.
 */
#include <errno.h>

#include "aio-request.h"
#include "blockgraph/reopen.h"
#include "blockgraph/write-threshold.h"
#include "toy-format.h"

#define SIZE (1 << 20)

/* ---- The disk ---------------------------------------------------------------------- */

static struct {
    uint8_t data[SIZE];
    BlockLimits limits;
    int passed;     /* AioRequests */
    int called;     /* reads and writes by coroutines */
    int flushes;
    int64_t result; /* of the next AioRequest; 0: all */
    bool hold;      /* AioRequests wait, and writes of coroutines */
    Coroutine *held;
    int busy;       /* AioRequests that were not carried out yet; atomic */
    int truncate_ret;
} disk;

static bool disk_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, SIZE);
    return true;
}

static void disk_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    *limits = disk.limits;
}

static void disk_move(BlockDriverState *bs, bool write, int64_t offset, IOVector *iov)
{
    while (__atomic_load_n(&disk.hold, __ATOMIC_ACQUIRE)) {
        g_thread_yield();
    }
    if (write) {
        io_vector_to_buf(iov, 0, disk.data + offset, iov->size);
    } else {
        io_vector_from_buf(iov, 0, disk.data + offset, iov->size);
    }
    __atomic_fetch_sub(&disk.busy, 1, __ATOMIC_RELEASE);
}

static bool disk_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                             AioRequest *req)
{
    disk.passed++;
    __atomic_fetch_add(&disk.busy, 1, __ATOMIC_RELAXED);
    prepare_call(req, &(CallIo){bs, disk_move, type == BDRV_IO_WRITE, offset, iov,
                                disk.result ? disk.result : (int64_t)iov->size});
    disk.result = 0;
    return true;
}

static int coroutine_fn disk_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    disk.called++;
    io_vector_from_buf(iov, 0, disk.data + offset, bytes);
    return 0;
}

static int coroutine_fn disk_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    disk.called++;
    if (disk.hold) {
        disk.held = coroutine_self();
        coroutine_yield();
    }
    io_vector_to_buf(iov, 0, disk.data + offset, bytes);
    return 0;
}

static int coroutine_fn disk_flush(BlockDriverState *bs)
{
    disk.flushes++;
    return 0;
}

static int coroutine_fn disk_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                      BlockPrealloc prealloc, GError **errp)
{
    assert_int_equal(__atomic_load_n(&disk.busy, __ATOMIC_ACQUIRE), 0);
    return disk.truncate_ret;
}

static BlockDriver disk_driver = {
    .format_name = "test-disk",
    .bdrv_open = disk_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_refresh_limits = disk_refresh_limits,
    .bdrv_prepare_aio = disk_prepare_aio,
    .bdrv_co_preadv = disk_preadv,
    .bdrv_co_pwritev = disk_pwritev,
    .bdrv_co_flush = disk_flush,
    .bdrv_co_truncate = disk_truncate,
};

/* A filter that wants to see all. */
static int seen;

static bool watcher_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    if (!bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_set_length(bs, bdrv_getlength(bdrv_child_bs(bdrv_file_child(bs))));
    bdrv_graph_rdunlock_main_loop();
    return true;
}

static int coroutine_fn watcher_before_io(BlockDriverState *bs, BdrvIoRequest *req)
{
    seen++;
    return 0;
}

static int coroutine_fn watcher_map(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    bdrv_graph_assert_readable();
    *m = (BdrvMapping){.bytes = bdrv_getlength(bs), .target = BDRV_MAP_DATA,
                       .child = bdrv_file_child(bs), .writable = true};
    return 0;
}

static BlockDriver watcher_driver = {
    .format_name = "watcher",
    .is_filter = true,
    .bdrv_open = watcher_open,
    .bdrv_co_map = watcher_map,
    .bdrv_co_before_io = watcher_before_io,
};

/* ---- Requests ------------------------------------------------------------------------- */

static void disk_reset(uint32_t align, uint32_t mem_align)
{
    memset(&disk, 0, sizeof(disk));
    disk.limits = (BlockLimits){.request_alignment = align, .min_mem_alignment = mem_align,
                                .max_iov = 4, .max_transfer = 64 << 10};
    for (int i = 0; i < SIZE; i++) {
        disk.data[i] = i * 7 + (i >> 8);
    }
}

static BlockBackend *backend_on(const char *options, int flags)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ |
                    (flags & BDRV_O_RDWR ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0);
    BlockDriverState *bs = open_node_with(options, flags);
    BlockBackend *blk = blk_new(NULL, perm, BLK_PERM_ALL, NULL);
    GError *err = NULL;
    bool ok = blk_insert_bs(blk, bs, &err);

    assert_ok(ok, err);
    bdrv_unref(bs);
    return blk;
}

typedef struct Result {
    int ret;
    int calls;
} Result;

static void note_result(void *opaque, int ret)
{
    Result *r = opaque;

    assert_false(in_coroutine());
    r->calls++;
    r->ret = ret;
}

static int wait_result(Result *r)
{
    AIO_WAIT_WHILE(r->calls == 0);
    assert_int_equal(r->calls, 1);
    return r->ret;
}

static int transfer_iov(BlockBackend *blk, bool write, int64_t offset, IOVector *iov)
{
    Result r = {0};

    if (write) {
        blk_aio_pwritev(blk, offset, iov, 0, note_result, &r);
    } else {
        blk_aio_preadv(blk, offset, iov, 0, note_result, &r);
    }
    assert_int_equal(r.calls, 0);
    return wait_result(&r);
}

static int transfer(BlockBackend *blk, bool write, int64_t offset, int64_t bytes, void *buf)
{
    IOVector iov;

    io_vector_init_buf(&iov, buf, bytes);
    return transfer_iov(blk, write, offset, &iov);
}

/* Read, and see that it is what the disk has. */
static void check_read(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    assert_int_equal(transfer(blk, false, offset, bytes, buf), 0);
    assert_memory_equal(buf, disk.data + offset, bytes);
}

static void check_write(BlockBackend *blk, int64_t offset, int64_t bytes, int byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    assert_int_equal(transfer(blk, true, offset, bytes, buf), 0);
    assert_memory_equal(buf, disk.data + offset, bytes);
}

/* Whether a read, or a write, of @blk passes by. */
static bool passes(BlockBackend *blk, bool write, int64_t offset, int64_t bytes)
{
    int before = disk.passed;

    for (int i = 0; i < 2; i++) { /* the first may have to find the way */
        write ? check_write(blk, offset, bytes, 'p') : check_read(blk, offset, bytes);
    }
    return disk.passed > before;
}

/* ---- Tests ---------------------------------------------------------------------------- */

static void second_request_passes_through_raw(void **state)
{
    BlockBackend *blk;
    BlkPassThroughStats stats;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    check_read(blk, 1000, 4096);
    assert_int_equal(disk.passed, 0);
    assert_int_equal(disk.called, 1);
    check_read(blk, SIZE - 512, 512); /* far away: the way is known */
    check_write(blk, 8192, 4096, 'w');
    check_read(blk, 8000, 8000);
    assert_int_equal(disk.passed, 3);
    assert_int_equal(disk.called, 1);
    blk_get_pass_through_stats(blk, &stats);
    assert_int_equal(stats.tried, 3);
    assert_int_equal(stats.passed, 3);
    blk_unref(blk);
}

static void what_does_not_fit_goes_the_long_way(void **state)
{
    uint8_t *buf = aligned_alloc(4096, 128 << 10);
    IOVector iov;
    BlockBackend *blk;

    disk_reset(512, 512);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    assert_int_equal(transfer(blk, false, 0, 4096, buf), 0);
    assert_int_equal(transfer(blk, false, 0, 4096, buf), 0);
    assert_int_equal(disk.passed, 1);
    assert_int_equal(transfer(blk, false, 100, 512, buf), 0);         /* offset */
    assert_int_equal(transfer(blk, false, 0, 100, buf), 0);           /* length */
    assert_int_equal(transfer(blk, false, 0, 512, buf + 8), 0);       /* memory */
    assert_int_equal(transfer(blk, false, 0, 128 << 10, buf), 0);     /* too long */
    assert_int_equal(transfer(blk, false, SIZE, 512, buf), -EIO);     /* bounds */
    assert_int_equal(transfer(blk, false, SIZE - 512, 1024, buf), -EIO);
    assert_int_equal(transfer(blk, false, -512, 512, buf), -EIO);
    assert_int_equal(transfer(blk, false, INT64_MAX - 511, 512, buf), -EIO);
    io_vector_init(&iov, 8);
    for (int i = 0; i < 5; i++) {
        io_vector_add(&iov, buf + i * 1024, 512);
    }
    assert_int_equal(transfer_iov(blk, false, 0, &iov), 0); /* too many pieces */
    io_vector_destroy(&iov);
    /* Others may read, modify and write around it. */
    assert_int_equal(transfer(blk, true, 0, 4096, buf), 0);
    assert_int_equal(transfer(blk, true, 0, 4096, buf), 0);
    assert_int_equal(disk.passed, 1);
    blk_unref(blk);
    free(buf);
}

static void short_and_failed_requests_are_done_again(void **state)
{
    static const int64_t results[] = {100, 4095, -EIO, -EAGAIN};
    BlockBackend *blk;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    check_read(blk, 0, 4096);
    for (size_t i = 0; i < G_N_ELEMENTS(results); i++) {
        int called = disk.called;

        disk.result = results[i];
        check_read(blk, 4096, 4096);
        assert_int_equal(disk.called, called + 1);
        disk.result = results[i];
        check_write(blk, 8192, 4096, 'a' + i);
        assert_int_equal(disk.called, called + 2);
    }
    assert_int_equal(disk.passed, 2 * G_N_ELEMENTS(results));
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
}

static void writes_that_pass_are_flushed(void **state)
{
    BlockBackend *blk;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    check_read(blk, 0, 512);
    for (int i = 1; i <= 3; i++) {
        check_write(blk, 0, 512, i);
        assert_int_equal(blk_flush(blk), 0);
        assert_int_equal(blk_flush(blk), 0); /* nothing was written since */
        assert_int_equal(disk.flushes, i);
    }
    assert_int_equal(disk.passed, 3);
    blk_unref(blk);
}

static void writing_needs_the_permission(void **state)
{
    BlockBackend *blk;
    uint8_t buf[512] = {0};

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    assert_true(passes(blk, true, 0, 512));
    assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL));
    assert_int_equal(transfer(blk, true, 0, 512, buf), -EPERM);
    assert_true(passes(blk, false, 0, 512));
    blk_unref(blk);
}

static void node_that_wants_to_see_requests_sees_them(void **state)
{
    BlockDriverState *file, *watcher;
    BlockBackend *blk;
    GError *err = NULL;
    bool ok;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk,file.node-name=disk", BDRV_O_RDWR);
    assert_true(passes(blk, false, 0, 512));
    assert_true(passes(blk, true, 0, 512));
    file = bdrv_find_node("disk");
    watcher = open_node_with("driver=watcher,file=disk", BDRV_O_RDWR);
    ok = bdrv_replace_node(file, watcher, &err);
    assert_ok(ok, err);
    seen = 0;
    assert_false(passes(blk, false, 0, 512));
    assert_false(passes(blk, true, 0, 512));
    assert_int_equal(seen, 4);
    ok = bdrv_replace_node(watcher, file, &err);
    assert_ok(ok, err);
    bdrv_unref(watcher);
    assert_true(passes(blk, false, 0, 512));
    blk_unref(blk);
}

static void threshold_exceeded(void *opaque, BlockDriverState *bs, int64_t amount,
                               int64_t threshold)
{
    *(int64_t *)opaque = amount;
}

static void writes_below_a_threshold_or_bitmap_are_seen(void **state)
{
    BlockBackend *blk;
    BlockDriverState *file;
    BdrvDirtyBitmap *bitmap;
    int64_t amount = 0;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk,file.node-name=disk", BDRV_O_RDWR);
    file = bdrv_find_node("disk");
    assert_true(passes(blk, true, 0, 512));
    bdrv_write_threshold_set(file, 4096, threshold_exceeded, &amount);
    check_write(blk, 4096, 512, 't');
    AIO_WAIT_WHILE(amount == 0);
    assert_int_equal(amount, 512);
    bdrv_write_threshold_set(file, 0, NULL, NULL);
    assert_true(passes(blk, true, 0, 512));
    bitmap = bdrv_dirty_bitmap_create(blk_bs(blk), "bitmap", 65536, NULL);
    assert_non_null(bitmap);
    assert_true(passes(blk, false, 0, 512));
    check_write(blk, 0, 512, 'b');
    assert_int_equal(bdrv_dirty_bitmap_count(bitmap), 65536);
    blk_unref(blk);
}

static void zeros_that_are_to_be_detected_are(void **state)
{
    g_autoptr(JsonObject) on = json_object_new();
    BlockBackend *blk;
    int passed;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    assert_true(passes(blk, true, 0, 512));
    json_object_set_string_member(on, "detect-zeroes", "on");
    assert_true(bdrv_reopen(blk_bs(blk), on, NULL));
    passed = disk.passed;
    check_write(blk, 0, 512, 0);
    check_write(blk, 0, 512, 0);
    assert_int_equal(disk.passed, passed);
    blk_unref(blk);
}

static void requests_stop_at_the_end_that_was_moved(void **state)
{
    BlockBackend *blk;
    uint8_t buf[1024];

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR | BDRV_O_RESIZE);
    assert_true(passes(blk, false, SIZE - 1024, 1024));
    assert_int_equal(blk_truncate(blk, SIZE - 512, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_int_equal(transfer(blk, false, SIZE - 1024, 1024, buf), -EIO);
    assert_true(passes(blk, false, SIZE - 1024, 512));
    assert_int_equal(blk_truncate(blk, SIZE, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_true(passes(blk, false, SIZE - 1024, 1024));
    blk_unref(blk);
}

static int pauses, pause_at;
static Coroutine *paused;

static void coroutine_fn pause_once(void)
{
    if (++pauses == pause_at) {
        paused = coroutine_self();
        coroutine_yield();
    }
}

static void resume_when_paused(int next)
{
    AIO_WAIT_WHILE(!paused);
    pause_at = next;
    coroutine_enter(g_steal_pointer(&paused));
}

static void forget_mappings(BlockDriverState *bs)
{
    bdrv_graph_rdlock_main_loop();
    bdrv_map_invalidate(bs, 0, bdrv_getlength(bs));
    bdrv_graph_rdunlock_main_loop();
}

/* A driver's answer reaches beyond what was asked, and gets old while it is on its way. */
static void old_answers_are_not_learned(void **state)
{
    uint8_t buf[4 * TOY_UNIT], zeros[TOY_UNIT] = {0};
    Result r = {0};
    BlockBackend *blk;
    ToyFormat *toy;
    IOVector iov;

    disk_reset(1, 1);
    blk = backend_on("driver=toy,file.driver=test-disk", BDRV_O_RDWR);
    toy = bdrv_state(blk_bs(blk));
    memset(buf, 'x', sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), 0);
    assert_int_equal(transfer(blk, false, 0, 512, buf), 0);
    forget_mappings(blk_bs(blk));
    io_vector_init_buf(&iov, buf, TOY_UNIT);
    toy->pause = pause_once;
    pauses = 0;
    pause_at = 2; /* the read has been answered */
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &r);
    AIO_WAIT_WHILE(!paused);
    forget_mappings(blk_bs(blk)); /* so that it is asked again, to learn */
    resume_when_paused(4);
    AIO_WAIT_WHILE(!paused); /* answered, for all four units */
    assert_int_equal(r.calls, 0);
    assert_int_equal(blk_pwrite_zeroes(blk, 2 * TOY_UNIT, TOY_UNIT, 0), 0);
    resume_when_paused(0);
    assert_int_equal(wait_result(&r), 0);
    toy->pause = NULL;
    assert_int_equal(transfer(blk, false, 2 * TOY_UNIT, TOY_UNIT, buf), 0);
    assert_memory_equal(buf, zeros, TOY_UNIT);
    blk_unref(blk);
}

/* ---- Media, drained sections, callbacks ---------------------------------------------- */

static void let_go(void *opaque)
{
    __atomic_store_n(&disk.hold, false, __ATOMIC_RELEASE);
    if (disk.held) {
        coroutine_enter(g_steal_pointer(&disk.held));
    }
}

/* Start a read that passes, and is held until somebody waits for it. */
static void hold_read(BlockBackend *blk, IOVector *iov, Result *r)
{
    int passed = disk.passed;

    check_read(blk, 0, 512);
    disk.hold = true;
    blk_aio_preadv(blk, 0, iov, 0, note_result, r);
    assert_int_equal(disk.passed, passed + 1);
    aio_bh_oneshot(aio_context_main(), let_go, NULL);
}

static void drained_section_waits_and_holds_back(void **state)
{
    Result first = {0}, second = {0};
    int passed;
    uint8_t buf[512], buf2[512];
    IOVector iov, iov2;
    BlockBackend *blk;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk,file.node-name=disk", BDRV_O_RDWR);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    io_vector_init_buf(&iov2, buf2, sizeof(buf2));
    hold_read(blk, &iov, &first);
    bdrv_drained_begin(bdrv_find_node("disk"));
    assert_int_equal(first.calls, 1);
    passed = disk.passed;
    blk_aio_preadv(blk, 0, &iov2, 0, note_result, &second);
    assert_int_equal(disk.passed, passed);
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_int_equal(second.calls, 0);
    bdrv_drained_end(bdrv_find_node("disk"));
    assert_int_equal(wait_result(&second), 0);
    assert_memory_equal(buf2, disk.data, 512);
    blk_unref(blk);
}

typedef struct Shrink {
    BlockBackend *blk;
    int ret;
    bool done;
} Shrink;

static void coroutine_fn shrink_entry(void *opaque)
{
    Shrink *shrink = opaque;

    shrink->ret = blk_co_truncate(shrink->blk, SIZE / 2, true, BLOCK_PREALLOC_OFF, NULL);
    shrink->done = true;
    aio_wait_kick();
}

/* How it ends to take off the second half while a write there passes, or a read. */
static int shrink_beside(BlockBackend *blk, bool write, bool from_coroutine)
{
    Shrink shrink = {.blk = blk};
    uint8_t buf[512] = "";
    Result r = {0};
    IOVector iov;

    io_vector_init_buf(&iov, buf, sizeof(buf));
    check_read(blk, 0, 512);
    disk.hold = true;
    (write ? blk_aio_pwritev : blk_aio_preadv)(blk, SIZE - 512, &iov, 0, note_result, &r);
    assert_int_equal(disk.busy, 1);
    aio_bh_oneshot(aio_context_main(), let_go, NULL);
    if (from_coroutine) {
        coroutine_enter(coroutine_create(shrink_entry, &shrink));
        assert_int_equal(transfer(blk, true, SIZE - 512, 512, buf), -EIO); /* came later */
        AIO_WAIT_WHILE(!shrink.done);
    } else {
        shrink.ret = blk_truncate(blk, SIZE / 2, true, BLOCK_PREALLOC_OFF, NULL);
    }
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.ret, 0);
    return shrink.ret;
}

/* A write that lands beyond the new end afterwards would make the file longer again. */
static void shrinking_waits_for_what_has_passed(void **state)
{
    static const char *const graphs[] = {"driver=raw,file.driver=test-disk,file.node-name=disk",
                                         "driver=test-disk,node-name=disk"};

    for (int i = 0; i < 16; i++) {
        int expected = i & 8 ? -EIO : 0;
        int64_t length = expected ? SIZE : SIZE / 2;
        BlockBackend *blk;

        disk_reset(1, 1);
        disk.truncate_ret = expected;
        blk = backend_on(graphs[i & 1], BDRV_O_RDWR | BDRV_O_RESIZE);
        assert_int_equal(shrink_beside(blk, i & 2, i & 4), expected);
        assert_int_equal(blk_getlength(blk), length);
        assert_int_equal(bdrv_getlength(bdrv_find_node("disk")), length);
        if (expected) {
            assert_true(passes(blk, true, SIZE - 512, 512));
        }
        blk_unref(blk);
    }
}

/* One that was the first here, and went by a coroutine, ends before as well. */
static void shrinking_drains(void **state)
{
    BlockBackend *blk;
    uint8_t buf[512] = "";
    Result r = {0};
    IOVector iov;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk,file.node-name=disk",
                     BDRV_O_RDWR | BDRV_O_RESIZE);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    disk.hold = true;
    blk_aio_pwritev(blk, SIZE - 512, &iov, 0, note_result, &r);
    AIO_WAIT_WHILE(!disk.held);
    aio_bh_oneshot(aio_context_main(), let_go, NULL);
    assert_int_equal(blk_truncate(blk, SIZE / 2, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.ret, 0);
    assert_int_equal(bdrv_getlength(bdrv_find_node("disk")), SIZE / 2);
    blk_unref(blk);
}

static void medium_goes_after_its_requests(void **state)
{
    Result r = {0};
    uint8_t buf[512];
    IOVector iov;
    BlockBackend *blk;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    hold_read(blk, &iov, &r);
    blk_revoke(blk);
    assert_int_equal(r.calls, 1);
    assert_int_equal(r.ret, 0);
    assert_int_equal(transfer(blk, false, 0, 512, buf), -ENOMEDIUM);
    blk_unref(blk);
}

static void writer_of_the_graph_waits_for_slots(void **state)
{
    Result r = {0};
    uint8_t buf[512];
    IOVector iov;
    BlockBackend *blk;
    int passed;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    hold_read(blk, &iov, &r);
    bdrv_graph_wrlock();
    assert_int_equal(r.calls, 1);
    r.calls = 0;
    passed = disk.passed;
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &r); /* waits for us */
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_int_equal(r.calls, 0);
    assert_int_equal(disk.passed, passed);
    bdrv_graph_wrunlock();
    assert_int_equal(wait_result(&r), 0);
    blk_unref(blk);
}

static void drop_backend(void *opaque, int ret)
{
    BlockBackend **blk = opaque;

    assert_int_equal(ret, 0);
    blk_drain(*blk); /* its own request does not count any more */
    blk_unref(*blk);
    *blk = NULL;
}

static void callback_may_let_go_of_the_backend(void **state)
{
    BlockBackend *blk;
    uint8_t buf[512];
    IOVector iov;
    int passed;

    disk_reset(1, 1);
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    check_read(blk, 0, 512);
    passed = disk.passed;
    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 0, &iov, 0, drop_backend, &blk);
    assert_int_equal(disk.passed, passed + 1);
    AIO_WAIT_WHILE(blk != NULL);
}

static void more_requests_than_slots_all_end(void **state)
{
    static Result results[300];
    static uint8_t buf[300][512];
    static IOVector iov[300];
    BlockBackend *blk;

    disk_reset(1, 1);
    memset(results, 0, sizeof(results));
    blk = backend_on("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    check_read(blk, 0, 512);
    for (int i = 0; i < 300; i++) {
        BlockAIOCB *acb;

        io_vector_init_buf(&iov[i], buf[i], 512);
        acb = blk_aio_preadv(blk, i * 512, &iov[i], 0, note_result, &results[i]);
        if (i % 3 == 0) {
            blk_aio_cancel(acb); /* a hint: it runs on */
        }
    }
    blk_drain(blk);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(results[i].calls, 1);
        assert_int_equal(results[i].ret, 0);
        assert_memory_equal(buf[i], disk.data + i * 512, 512);
    }
    assert_int_equal(disk.passed, 64);
    blk_unref(blk);
}

static int group_setup(void **state)
{
    bool ok = blockgraph_group_setup(state) == 0 && bdrv_register(&disk_driver, NULL) &&
              bdrv_register(&watcher_driver, NULL) && bdrv_register(&toy_driver, NULL);

    return ok ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_request_passes_through_raw),
        cmocka_unit_test(what_does_not_fit_goes_the_long_way),
        cmocka_unit_test(short_and_failed_requests_are_done_again),
        cmocka_unit_test(writes_that_pass_are_flushed),
        cmocka_unit_test(writing_needs_the_permission),
        cmocka_unit_test(node_that_wants_to_see_requests_sees_them),
        cmocka_unit_test(writes_below_a_threshold_or_bitmap_are_seen),
        cmocka_unit_test(zeros_that_are_to_be_detected_are),
        cmocka_unit_test(requests_stop_at_the_end_that_was_moved),
        cmocka_unit_test(old_answers_are_not_learned),
        cmocka_unit_test(drained_section_waits_and_holds_back),
        cmocka_unit_test(shrinking_waits_for_what_has_passed),
        cmocka_unit_test(shrinking_drains),
        cmocka_unit_test(medium_goes_after_its_requests),
        cmocka_unit_test(writer_of_the_graph_waits_for_slots),
        cmocka_unit_test(callback_may_let_go_of_the_backend),
        cmocka_unit_test(more_requests_than_slots_all_end),
    };

    return cmocka_run_group_tests(tests, group_setup, blockgraph_group_teardown);
}
