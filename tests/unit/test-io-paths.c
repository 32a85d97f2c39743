/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Corners of the request path: vectors of many pieces, odd limits, flags on
 * their way down, the order of flushes, hooks, permissions, what drops a cached
 * mapping, and graphs as deep as they may be. The drivers are the test's own
 * and log what they are asked.
 */
#include <errno.h>
#include <stdlib.h>

#include "block-testing.h"

#define SIZE (256 << 10)

/* ---- A log of calls -------------------------------------------------------------------------- */

typedef struct Call {
    char kind; /* r, w, z, d, f: at the disk; M: a map, F: a flush of the format */
    int64_t offset;
    int64_t bytes;
    int flags;
} Call;

static GArray *calls;

static void note(char kind, int64_t offset, int64_t bytes, int flags)
{
    Call call = {kind, offset, bytes, flags};

    g_array_append_val(calls, call);
}

static int count_calls(char kind)
{
    int n = 0;

    for (guint i = 0; i < calls->len; i++) {
        n += g_array_index(calls, Call, i).kind == kind;
    }
    return n;
}

static const Call *last_call(char kind)
{
    for (guint i = calls->len; i-- > 0;) {
        if (g_array_index(calls, Call, i).kind == kind) {
            return &g_array_index(calls, Call, i);
        }
    }
    return NULL;
}

/* ---- A disk ---------------------------------------------------------------------------------- */

typedef struct Disk {
    uint8_t *data;
    char letter; /* for flushes, if not 0 */
} Disk;

static BlockLimits disk_limits;
static int64_t disk_size;
static bool disk_broke_limits;
static int disk_fail_flush; /* -errno */
static uint8_t *disk_data;  /* of the disk opened last */

static bool disk_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    Disk *s = bdrv_state(bs);
    int64_t letter = 0;

    if (!block_options_take_int(options, "letter", &letter, errp)) {
        return false;
    }
    s->letter = letter;
    s->data = g_malloc(SIZE);
    for (int i = 0; i < SIZE; i++) {
        s->data[i] = i * 11 + (i >> 9);
    }
    disk_data = s->data;
    bdrv_set_length(bs, disk_size);
    return true;
}

static void disk_close(BlockDriverState *bs)
{
    Disk *s = bdrv_state(bs);

    g_free(s->data);
}

static void disk_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    *limits = disk_limits;
}

static void disk_check_io(int64_t offset, int64_t bytes, IOVector *iov)
{
    int64_t align = disk_limits.request_alignment;
    int64_t max = disk_limits.max_transfer;

    disk_broke_limits |= offset % align || bytes % align || iov->size != bytes ||
                         (max && bytes > MAX(max, disk_limits.min_mem_alignment)) ||
                         (disk_limits.max_iov && iov->niov > disk_limits.max_iov);
    for (int i = 0; i < iov->niov; i++) {
        disk_broke_limits |= (uintptr_t)iov->iov[i].iov_base % disk_limits.min_mem_alignment;
    }
}

static int coroutine_fn disk_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    Disk *s = bdrv_state(bs);
    int64_t n = CLAMP(SIZE - offset, 0, bytes);

    note('r', offset, bytes, flags);
    disk_check_io(offset, bytes, iov);
    co_sleep_ns(0);
    io_vector_from_buf(iov, 0, s->data + MIN(offset, SIZE), n);
    io_vector_memset(iov, n, 0, bytes - n);
    return 0;
}

static int coroutine_fn disk_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    Disk *s = bdrv_state(bs);

    note('w', offset, bytes, flags);
    disk_check_io(offset, bytes, iov);
    co_sleep_ns(0);
    io_vector_to_buf(iov, 0, s->data + offset, bytes);
    return 0;
}

static void disk_check_units(int64_t offset, int64_t bytes, int64_t unit, int64_t max)
{
    disk_broke_limits |= offset % unit || bytes % unit || (max && bytes > max);
}

static bool disk_cannot_zero;

static int coroutine_fn disk_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           int flags)
{
    Disk *s = bdrv_state(bs);

    if (disk_cannot_zero) {
        return -ENOTSUP;
    }
    note('z', offset, bytes, flags);
    disk_check_units(offset, bytes, MAX(disk_limits.pwrite_zeroes_alignment, 1),
                     disk_limits.max_pwrite_zeroes);
    memset(s->data + offset, 0, bytes);
    return 0;
}

static int coroutine_fn disk_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    Disk *s = bdrv_state(bs);

    note('d', offset, bytes, 0);
    disk_check_units(offset, bytes, MAX(disk_limits.pdiscard_alignment, 1),
                     disk_limits.max_pdiscard);
    memset(s->data + offset, 0, bytes);
    return 0;
}

static int coroutine_fn disk_flush(BlockDriverState *bs)
{
    Disk *s = bdrv_state(bs);

    note(s->letter ? s->letter : 'f', 0, 0, 0);
    return disk_fail_flush;
}

static int coroutine_fn disk_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                      BlockPrealloc prealloc, GError **errp)
{
    note('t', offset, 0, 0);
    return offset > SIZE ? -ENOSPC : 0;
}

static const BlockOption disk_options[] = {{"letter", "num", "what its flush is logged as"}, {}};

static BlockDriver disk_driver = {
    .format_name = "paths-disk",
    .instance_size = sizeof(Disk),
    .options = disk_options,
    .bdrv_open = disk_open,
    .bdrv_close = disk_close,
    .bdrv_refresh_limits = disk_refresh_limits,
    .bdrv_co_preadv = disk_preadv,
    .bdrv_co_pwritev = disk_pwritev,
    .bdrv_co_pwrite_zeroes = disk_pwrite_zeroes,
    .bdrv_co_pdiscard = disk_pdiscard,
    .bdrv_co_flush = disk_flush,
    .bdrv_co_truncate = disk_truncate,
};

/* ---- A format -------------------------------------------------------------------------------- */

static int (*answer)(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m);
static int hook_error;
static uint8_t hook_byte; /* what the hook puts in place of what is written; 0: no hook */
static int hook_held;     /* releases to come */

static bool format_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, disk_size);
    return bdrv_open_file_child(bs, options, errp) &&
           (!json_object_has_member(options, "data-file") ||
            bdrv_open_child(NULL, options, "data-file", bs, BDRV_CHILD_DATA, false, errp));
}

static int coroutine_fn GRAPH_RDLOCK format_map(BlockDriverState *bs, const BdrvMapRequest *req,
                                                BdrvMapping *m)
{
    note('M', req->offset, req->bytes, req->flags);
    *m = (BdrvMapping){
        .offset = req->offset, .bytes = req->bytes, .target = BDRV_MAP_DATA,
        .child = bdrv_file_child(bs), .child_offset = req->offset, .writable = true,
    };
    return answer ? answer(bs, req, m) : 0;
}

static void hook_release(BdrvIoRequest *req)
{
    IOVector *iov = req->opaque;

    hook_held--;
    if (iov) {
        g_free(iov->iov[0].iov_base);
        g_free(iov);
    }
}

static int coroutine_fn format_before_io(BlockDriverState *bs, BdrvIoRequest *req)
{
    if (hook_byte) {
        hook_held++;
        req->release = hook_release;
        if (req->type == BDRV_IO_WRITE) {
            IOVector *iov = g_new(IOVector, 1);
            uint8_t *buf = g_malloc(req->bytes);

            memset(buf, hook_byte, req->bytes);
            io_vector_init_buf(iov, buf, req->bytes);
            req->opaque = req->iov = iov;
        }
    }
    return hook_error;
}

static int coroutine_fn format_flush(BlockDriverState *bs)
{
    note('F', 0, 0, 0);
    return 0;
}

static int coroutine_fn format_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                        BlockPrealloc prealloc, GError **errp)
{
    return 0;
}

static bool format_snapshot_get(BlockDriverState *bs, size_t index, BdrvSnapshotInfo *info)
{
    *info = (BdrvSnapshotInfo){.id = "1", .name = ""};
    return index == 0;
}

static bool format_snapshot_load(BlockDriverState *bs, const BdrvSnapshotInfo *sn, GError **errp)
{
    return true;
}

static BlockDriver format_driver = {
    .format_name = "paths-format",
    .supports_backing = true,
    .bdrv_open = format_open,
    .bdrv_co_map = format_map,
    .bdrv_co_before_io = format_before_io,
    .bdrv_co_flush = format_flush,
    .bdrv_co_truncate = format_truncate,
    .bdrv_snapshot_get = format_snapshot_get,
    .bdrv_snapshot_load_tmp = format_snapshot_load,
};

/* ---- Helpers --------------------------------------------------------------------------------- */

#define ON_DISK "driver=paths-format,file.driver=paths-disk"

static int reset(void **state)
{
    disk_limits = (BlockLimits){.request_alignment = 1, .min_mem_alignment = 1};
    disk_size = SIZE;
    disk_broke_limits = disk_cannot_zero = false;
    disk_fail_flush = hook_error = hook_byte = hook_held = 0;
    disk_driver.supported_write_flags = disk_driver.supported_zero_flags = 0;
    answer = NULL;
    g_array_set_size(calls, 0);
    return 0;
}

/* A backend on @bs that takes @perm; takes the reference. */
static BlockBackend *blk_over(BlockDriverState *bs, uint64_t perm)
{
    GError *err = NULL;
    BlockBackend *blk = blk_new(NULL, perm, BLK_PERM_ALL, &err);
    bool ok = blk && blk_insert_bs(blk, bs, &err);

    assert_ok(ok, err);
    bdrv_unref(bs);
    return blk;
}

#define READ_WRITE (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE)

static BlockBackend *blk_for(const char *options)
{
    return blk_over(open_node_with(options, BDRV_O_RDWR | BDRV_O_UNMAP), READ_WRITE);
}

/* ---- Vectors and limits ---------------------------------------------------------------------- */

/* A vector over @buf in pieces of at most @largest bytes. */
static void cut_up(IOVector *iov, uint8_t *buf, size_t size, size_t largest, GRand *rand)
{
    io_vector_init(iov, 4);
    for (size_t done = 0, n; done < size; done += n) {
        n = g_rand_int_range(rand, 1, largest + 1);
        n = MIN(n, size - done);
        io_vector_add(iov, buf + done, n);
    }
}

static void requests_in_many_pieces_match_a_flat_model(void **state)
{
    static const BlockLimits kinds[] = {
        {.request_alignment = 4096, .min_mem_alignment = 1, .max_iov = 2},
        {.request_alignment = 1, .min_mem_alignment = 1, .max_iov = 1, .max_transfer = 777},
        {.request_alignment = 512, .min_mem_alignment = 4096, .max_transfer = 5120},
        {.request_alignment = 512, .min_mem_alignment = 4096, .max_transfer = 1024},
        {.request_alignment = 512, .min_mem_alignment = 8, .max_transfer = 1000, .max_iov = 3},
    };
    g_autofree uint8_t *model = g_malloc(SIZE);
    uint8_t *buf = aligned_alloc(4096, SIZE);

    for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(k + 1);
        BlockBackend *blk;

        disk_limits = kinds[k];
        blk = blk_for("driver=paths-disk");
        memcpy(model, disk_data, SIZE);
        for (int i = 0; i < 200; i++) {
            int64_t align = i % 2 ? 1 : kinds[k].request_alignment;
            int64_t offset = g_rand_int_range(rand, 0, SIZE - 3 * 4096) / align * align;
            int64_t bytes = MAX(g_rand_int_range(rand, 1, 3 * 4096) / align * align, align);
            IOVector iov;

            cut_up(&iov, buf, bytes, i % 3 ? 16 << i % 8 : 8192, rand);
            if (i % 4 < 2) {
                memset(buf, i, bytes);
                memset(model + offset, i, bytes);
                assert_int_equal(blk_pwritev(blk, offset, bytes, &iov, 0), 0);
            } else {
                assert_int_equal(blk_preadv(blk, offset, bytes, &iov, 0), 0);
                assert_memory_equal(buf, model + offset, bytes);
            }
            io_vector_destroy(&iov);
        }
        assert_memory_equal(disk_data, model, SIZE);
        assert_false(disk_broke_limits);
        blk_unref(blk);
    }
    free(buf);
}

static void units_of_zeroing_and_discarding_need_not_be_powers_of_two(void **state)
{
    g_autofree uint8_t *model = g_malloc(SIZE);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    BlockBackend *blk;

    disk_limits = (BlockLimits){
        .request_alignment = 512, .min_mem_alignment = 1, .pwrite_zeroes_alignment = 15 * 512,
        .max_pwrite_zeroes = 50000, .pdiscard_alignment = 3 * 512, .max_pdiscard = 2 * 4096,
    };
    blk = blk_for("driver=paths-disk");
    memcpy(model, disk_data, SIZE);
    for (int i = 0; i < 100; i++) {
        int64_t offset = g_rand_int_range(rand, 0, SIZE);
        int64_t bytes = g_rand_int_range(rand, 1, SIZE - offset + 1);

        memset(model + offset, 0, bytes);
        assert_int_equal(blk_pwrite_zeroes(blk, offset, bytes, 0), 0);
        assert_memory_equal(disk_data, model, SIZE);
        memset(disk_data, i, SIZE);
        memset(model, i, SIZE);
    }
    assert_int_equal(blk_pdiscard(blk, 1, SIZE - 1), 0);
    assert_int_equal(disk_data[3 * 512 - 1], 99);
    assert_true(buffer_is_zero(disk_data + 3 * 512, SIZE / 1536 * 1536 - 1536));
    assert_true(count_calls('z') > 0);
    assert_true(count_calls('d') > SIZE / (2 * 4096));
    assert_false(disk_broke_limits);
    blk_unref(blk);
}

static void alignment_never_leads_beyond_the_largest_length(void **state)
{
    char buf[512] = {0};
    BlockBackend *blk;

    disk_limits.request_alignment = 1 << 20;
    disk_size = BDRV_MAX_LENGTH;
    blk = blk_for("driver=paths-disk");
    assert_int_equal(blk_pread(blk, BDRV_MAX_LENGTH - 512, 512, buf, 0), -EIO);
    assert_int_equal(blk_pwrite(blk, BDRV_MAX_LENGTH - 512, 512, buf, 0), -EIO);
    assert_int_equal(count_calls('r') + count_calls('w'), 0);
    blk_unref(blk);
}

static void edges_in_one_unit_are_read_once(void **state)
{
    char buf[16] = {0};
    BlockBackend *blk;

    disk_limits.request_alignment = 4096;
    blk = blk_for("driver=paths-disk");
    assert_int_equal(blk_pwrite(blk, 4100, sizeof(buf), buf, 0), 0);
    assert_int_equal(count_calls('r'), 1);
    assert_int_equal(blk_pwrite(blk, 8190, sizeof(buf), buf, 0), 0);
    assert_int_equal(count_calls('r'), 3);
    assert_int_equal(count_calls('w'), 2);
    blk_unref(blk);
}

/* ---- Flags on their way down ----------------------------------------------------------------- */

static void unmapping_needs_every_layer_s_consent(void **state)
{
    BlockBackend *blk = blk_over(open_node_with(ON_DISK, BDRV_O_RDWR), READ_WRITE);

    assert_int_equal(blk_pwrite_zeroes(blk, 0, 4096, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(last_call('z')->flags & BDRV_REQ_MAY_UNMAP, 0);
    assert_int_equal(blk_pdiscard(blk, 0, 4096), 0);
    assert_int_equal(count_calls('d'), 0);
    blk_unref(blk);
    blk = blk_for(ON_DISK);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 4096, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(last_call('z')->flags & BDRV_REQ_MAY_UNMAP, BDRV_REQ_MAY_UNMAP);
    assert_int_equal(blk_pdiscard(blk, 0, 4096), 0);
    assert_int_equal(count_calls('d'), 1);
    blk_unref(blk);
}

static void fua_is_native_or_a_flush_after(void **state)
{
    BlockBackend *blk;
    char buf[4096] = {0};

    disk_limits.pwrite_zeroes_alignment = 4096;
    blk = blk_for("driver=paths-disk");
    assert_int_equal(blk_pwrite(blk, 0, 4096, buf, BDRV_REQ_FUA), 0);
    assert_int_equal(last_call('w')->flags, 0);
    assert_int_equal(count_calls('f'), 1);
    disk_driver.supported_write_flags = BDRV_REQ_FUA;
    assert_int_equal(blk_pwrite(blk, 0, 4096, buf, BDRV_REQ_FUA), 0);
    assert_int_equal(last_call('w')->flags, BDRV_REQ_FUA);
    assert_int_equal(count_calls('f'), 1);

    disk_driver.supported_zero_flags = BDRV_REQ_FUA;
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 8192, BDRV_REQ_FUA), 0);
    assert_int_equal(last_call('z')->flags, BDRV_REQ_FUA);
    assert_int_equal(count_calls('f'), 1);
    assert_int_equal(blk_pwrite_zeroes(blk, 100, 8192, BDRV_REQ_FUA), 0); /* the edges are data */
    assert_int_equal(count_calls('f'), 2);
    disk_cannot_zero = true;
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 8192, BDRV_REQ_FUA), 0); /* all is */
    assert_int_equal(count_calls('f'), 3);
    blk_unref(blk);
}

/* The format may have in memory what the data needs to be found. */
static void fua_above_a_format_with_a_flush_is_that_flush(void **state)
{
    BlockBackend *blk = blk_for(ON_DISK);
    char buf[4096] = {0};

    disk_driver.supported_write_flags = BDRV_REQ_FUA;
    assert_int_equal(blk_pwrite(blk, 0, 4096, buf, BDRV_REQ_FUA), 0);
    assert_int_equal(last_call('w')->flags, 0);
    assert_int_equal(count_calls('F'), 1);
    assert_int_equal(count_calls('f'), 1);
    blk_unref(blk);
}

static void flush_is_data_then_driver_then_metadata(void **state)
{
    BlockBackend *blk = blk_for("driver=paths-format,file.driver=paths-disk,file.letter=109,"
                                "data-file.driver=paths-disk,data-file.letter=100");
    char buf[512] = {0};

    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), 0);
    g_array_set_size(calls, 0);
    assert_int_equal(blk_flush(blk), 0); /* the data file was not written to */
    assert_int_equal(calls->len, 2);
    assert_int_equal(g_array_index(calls, Call, 0).kind, 'F');
    assert_int_equal(g_array_index(calls, Call, 1).kind, 'm');
    blk_unref(blk);
}

static int GRAPH_RDLOCK answer_data_file(BlockDriverState *bs, const BdrvMapRequest *req,
                                         BdrvMapping *m)
{
    m->child = bdrv_get_child(bs, "data-file");
    return 0;
}

static void failed_flush_of_the_data_stops_what_depends_on_it(void **state)
{
    BlockBackend *blk = blk_for("driver=paths-format,file.driver=paths-disk,file.letter=109,"
                                "data-file.driver=paths-disk,data-file.letter=100");
    char buf[512] = {0};

    answer = answer_data_file;
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), 0);
    disk_fail_flush = -ENOSPC;
    assert_int_equal(blk_flush(blk), -ENOSPC);
    assert_int_equal(count_calls('d'), 1);
    assert_int_equal(count_calls('F'), 0);
    assert_int_equal(count_calls('m'), 0);
    disk_fail_flush = 0;
    blk_unref(blk);
}

/* The format writes back what it has in memory; nobody waits for the disk. */
static void no_flush_means_no_flush_of_the_disk(void **state)
{
    BlockBackend *blk = blk_over(open_node_with(ON_DISK ",cache.no-flush=on", BDRV_O_RDWR),
                                 READ_WRITE);
    char buf[512] = {0};

    assert_int_equal(blk_pwrite(blk, 0, 512, buf, BDRV_REQ_FUA), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(count_calls('f'), 0);
    assert_true(count_calls('F') > 0);
    blk_unref(blk);
}

/* ---- Permissions ----------------------------------------------------------------------------- */

static void write_unchanged_permits_only_writes_that_say_so(void **state)
{
    BlockDriverState *bs = open_node_with("driver=paths-disk", BDRV_O_RDWR);
    BlockBackend *blk = blk_over(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED);
    char buf[512] = {0};

    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), -EPERM);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), -EPERM);
    assert_int_equal(blk_pdiscard(blk, 0, 512), -EPERM);
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, BDRV_REQ_WRITE_UNCHANGED), 0);
    assert_false(blk_is_writable(blk));
    blk_unref(blk);
}

static void who_shares_no_permission_excludes_its_like(void **state)
{
    BlockDriverState *bs = open_node_with("driver=paths-disk", BDRV_O_RDWR);
    BlockBackend *first = blk_new(NULL, READ_WRITE, BLK_PERM_CONSISTENT_READ, NULL);
    BlockBackend *second = blk_new(NULL, READ_WRITE, BLK_PERM_CONSISTENT_READ, NULL);
    GError *err = NULL;

    assert_true(blk_insert_bs(first, bs, NULL));
    assert_false(blk_insert_bs(second, bs, &err));
    assert_error_has(&err, "write");
    blk_unref(first);
    assert_true(blk_insert_bs(second, bs, NULL));
    blk_unref(second);
    bdrv_unref(bs);
}

static void truncating_needs_the_permission(void **state)
{
    BlockDriverState *bs = open_node_with("driver=paths-disk", BDRV_O_RDWR);
    BlockBackend *blk = blk_over(bs, READ_WRITE);
    GError *err = NULL;

    assert_int_equal(blk_truncate(blk, 4096, true, BLOCK_PREALLOC_OFF, &err), -EPERM);
    assert_error_has(&err, "permission");
    assert_true(blk_set_perm(blk, READ_WRITE | BLK_PERM_RESIZE, BLK_PERM_ALL, NULL));
    assert_int_equal(blk_truncate(blk, -1, true, BLOCK_PREALLOC_OFF, &err), -EINVAL);
    assert_error_has(&err, "-1");
    assert_int_equal(blk_truncate(blk, SIZE + 1, true, BLOCK_PREALLOC_OFF, &err), -ENOSPC);
    assert_error_has(&err, "resize '");
    assert_int_equal(blk_getlength(blk), SIZE);
    assert_int_equal(blk_truncate(blk, 4096, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), 4096);
    blk_unref(blk);
    blk = blk_over(open_node_with("driver=paths-disk", 0), BLK_PERM_CONSISTENT_READ);
    assert_int_equal(blk_truncate(blk, 4096, true, BLOCK_PREALLOC_OFF, &err), -EACCES);
    assert_error_has(&err, "read-only");
    blk_unref(blk);
}

/* A filter without the driver's own bounds: what it maps lies past the disk's end. */
static int answer_far(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->child_offset = SIZE + req->offset;
    return 0;
}

static void keep_perms(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                       uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = perm;
    *nshared = shared;
}

static void nothing_grows_without_the_permission(void **state)
{
    BlockBackend *blk;
    char buf[512] = {0};

    format_driver.bdrv_child_perm = keep_perms;
    blk = blk_for(ON_DISK);
    answer = answer_far;
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), -EIO);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), -EIO);
    assert_int_equal(count_calls('w') + count_calls('z'), 0);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), 0);
    assert_true(buffer_is_zero(buf, 512));
    blk_unref(blk);
    format_driver.bdrv_child_perm = NULL;
}

static int answer_shared(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->writable = false;
    return 0;
}

static int answer_new(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->needs_commit = m->fresh = true;
    return 0;
}

static void place_that_is_not_ours_alone_is_never_written(void **state)
{
    static int (*const answers[])(BlockDriverState *, const BdrvMapRequest *, BdrvMapping *) = {
        answer_shared, answer_new,
    };
    char buf[512] = {0};

    for (size_t i = 0; i < G_N_ELEMENTS(answers); i++) {
        BlockBackend *blk = blk_for(ON_DISK);

        answer = answers[i];
        assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), -ENOTSUP);
        assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), -ENOTSUP);
        assert_int_equal(blk_pdiscard(blk, 0, 512), -ENOTSUP);
        blk_unref(blk);
    }
    assert_int_equal(count_calls('w') + count_calls('z') + count_calls('d'), 0);
}

/* ---- Parts ----------------------------------------------------------------------------------- */

/* Pages of 512 bytes; the map of page 5 fails. */
static int answer_pages(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->offset = m->child_offset = req->offset / 512 * 512;
    m->bytes = 512;
    return m->offset == 5 * 512 ? -EILSEQ : 0;
}

static void failed_map_ends_the_request_when_all_parts_are_over(void **state)
{
    BlockBackend *blk = blk_for(ON_DISK);
    char buf[20 * 512] = {0};

    answer = answer_pages;
    assert_int_equal(blk_pread(blk, 0, sizeof(buf), buf, 0), -EILSEQ);
    assert_int_equal(count_calls('r'), 5);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), -EILSEQ);
    assert_int_equal(count_calls('w'), 5);
    assert_int_equal(blk_pwrite(blk, 6 * 512, sizeof(buf), buf, 0), 0);
    assert_true(buffer_is_zero(disk_data + 6 * 512, sizeof(buf)));
    blk_unref(blk);
}

/* What is stored is 16 bytes of each extent: the first is repeated in all of it. */
static int decode_repeat(BlockDriverState *bs, const BdrvMapping *m, const uint8_t *src,
                         size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    memset(dst, src[0], dst_bytes);
    return src_bytes == 16 ? 0 : -EIO;
}

static int answer_encoded(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->target = BDRV_MAP_ENCODED;
    m->offset = req->offset / 1000 * 1000;
    m->bytes = 1000;
    m->child_offset = m->offset / 1000 * 16;
    m->child_bytes = 16;
    m->decode = decode_repeat;
    return 0;
}

static void encoded_extents_are_read_in_any_part(void **state)
{
    BlockBackend *blk = blk_for(ON_DISK);
    g_autofree uint8_t *buf = g_malloc(50000);
    static const struct {
        int64_t offset, bytes;
    } reads[] = {{0, 1}, {999, 1}, {999, 2}, {1, 998}, {500, 50000 - 500}, {3000, 1000}};

    answer = answer_encoded;
    for (size_t i = 0; i < G_N_ELEMENTS(reads); i++) {
        assert_int_equal(blk_pread(blk, reads[i].offset, reads[i].bytes, buf, 0), 0);
        for (int64_t at = 0; at < reads[i].bytes; at++) {
            assert_int_equal(buf[at], disk_data[(reads[i].offset + at) / 1000 * 16]);
        }
    }
    assert_int_equal(blk_pwrite(blk, 0, 1, buf, 0), -ENOTSUP);
    blk_unref(blk);
}

/* ---- Hooks ----------------------------------------------------------------------------------- */

static void hook_may_put_memory_of_its_own_and_is_told_of_the_end(void **state)
{
    BlockBackend *blk = blk_for(ON_DISK);
    char buf[512] = {0};

    hook_byte = 7;
    assert_int_equal(blk_pwrite(blk, 512, 512, buf, 0), 0);
    assert_int_equal(disk_data[512], 7);
    assert_int_equal(disk_data[1023], 7);
    assert_int_equal(buf[0], 0);
    assert_int_equal(blk_pread(blk, 512, 512, buf, 0), 0);
    assert_int_equal(buf[511], 7);
    assert_int_equal(blk_pwrite_zeroes(blk, 512, 512, 0), 0);
    assert_int_equal(blk_pdiscard(blk, 0, 512), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(hook_held, 0);
    hook_error = -EBUSY;
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), -EBUSY);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), -EBUSY);
    assert_int_equal(hook_held, 0);
    hook_error = hook_byte = 0;
    blk_unref(blk);
}

/* ---- The cache ------------------------------------------------------------------------------- */

static int maps_for_a_read(BlockBackend *blk)
{
    char buf[512];
    int before = count_calls('M');

    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), 0);
    return count_calls('M') - before;
}

static void cached_mapping_is_dropped_by_all_that_changes_it(void **state)
{
    BlockDriverState *bs = open_node_with(ON_DISK ",node-name=top", 0), *base, *disk;
    BlockBackend *blk = blk_over(bs, BLK_PERM_CONSISTENT_READ);
    BdrvChild *file;

    assert_int_equal(maps_for_a_read(blk), 1);
    assert_int_equal(maps_for_a_read(blk), 0);
    assert_true(bdrv_snapshot_load_tmp(bs, "1", NULL, NULL));
    assert_int_equal(maps_for_a_read(blk), 1);
    base = open_node_with("driver=paths-disk", 0);
    assert_true(bdrv_set_backing(bs, base, NULL));
    assert_int_equal(maps_for_a_read(blk), 1);
    assert_true(bdrv_set_backing(bs, NULL, NULL));
    assert_int_equal(maps_for_a_read(blk), 1);
    bdrv_graph_rdlock_main_loop();
    file = bdrv_get_child(bs, "file");
    disk = bdrv_child_bs(file);
    bdrv_graph_rdunlock_main_loop();
    assert_true(bdrv_replace_node(disk, base, NULL));
    assert_int_equal(maps_for_a_read(blk), 1);
    assert_int_equal(maps_for_a_read(blk), 0);
    bdrv_unref(base);
    blk_unref(blk);
    blk = blk_over(open_node_with(ON_DISK, BDRV_O_RDWR), READ_WRITE | BLK_PERM_RESIZE);
    assert_int_equal(maps_for_a_read(blk), 1);
    assert_int_equal(blk_truncate(blk, SIZE, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_int_equal(maps_for_a_read(blk), 1);
    blk_unref(blk);
}

/* ---- Block status ---------------------------------------------------------------------------- */

static int64_t status(BlockDriverState *bs, BlockDriverState *base, int64_t offset, int64_t bytes,
                      int *flags, int *depth)
{
    int64_t pnum = -1;

    *flags = bdrv_block_status_above(bs, base, offset, bytes, &pnum, NULL, NULL, depth);
    return pnum;
}

/* Runs of 4096 bytes, one half in the disk, the rest past its end; all as is. */
static int answer_raw_runs(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->offset = req->offset / 4096 * 4096;
    m->bytes = 4096;
    m->child_offset = m->offset < SIZE / 2 ? m->offset : SIZE + m->offset;
    m->raw = true;
    return 0;
}

static int answer_none(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->target = BDRV_MAP_UNALLOCATED;
    m->child = NULL;
    return 0;
}

static void status_says_no_more_than_the_mapping(void **state)
{
    BlockDriverState *bs = open_node_with(ON_DISK, 0);
    int flags, depth;

    answer = answer_raw_runs;
    assert_int_equal(status(bs, NULL, 0, SIZE, &flags, &depth), 4096);
    assert_int_equal(flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_EOF),
                     BDRV_BLOCK_DATA);
    assert_int_equal(status(bs, NULL, SIZE / 2 + 1, SIZE, &flags, &depth), 4095);
    assert_int_equal(flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_EOF),
                     BDRV_BLOCK_ZERO);
    assert_int_equal(status(bs, NULL, SIZE - 1, SIZE, &flags, &depth), 1);
    assert_true(flags & BDRV_BLOCK_EOF);
    assert_int_equal(status(bs, NULL, 100, 0, &flags, &depth), 0);
    assert_int_equal(flags, 0);
    assert_int_equal(status(bs, NULL, SIZE, 512, &flags, &depth), 0);
    assert_int_equal(flags, BDRV_BLOCK_EOF);
    assert_int_equal(status(bs, NULL, -1, 512, &flags, &depth), -1);
    assert_int_equal(flags, -EIO);
    bdrv_unref(bs);
}

static void status_above_a_layer_does_not_look_at_it(void **state)
{
    BlockDriverState *base = open_node_with(ON_DISK ",node-name=base", 0);
    BlockDriverState *top = open_node_with(ON_DISK ",backing=base", 0);
    int flags, depth;

    answer = answer_none;
    assert_int_equal(status(top, base, 0, 4096, &flags, &depth), 4096);
    assert_int_equal(flags & BDRV_BLOCK_ALLOCATED, 0);
    assert_int_equal(depth, 1);
    assert_int_equal(status(base, base, 0, 4096, &flags, &depth), 4096);
    assert_int_equal(flags, 0);
    assert_int_equal(depth, 0);
    assert_int_equal(status(top, NULL, 0, 4096, &flags, &depth), 4096);
    assert_true(flags & BDRV_BLOCK_ZERO);
    assert_int_equal(depth, 2);
    bdrv_unref(top);
    bdrv_unref(base);
}

/* ---- Depth ----------------------------------------------------------------------------------- */

/* Every kind of request through 256 nodes, with the stack of one coroutine. */
static void every_request_passes_through_256_nodes(void **state)
{
    BlockDriverState *bs = open_node_with("driver=paths-disk", BDRV_O_RDWR | BDRV_O_UNMAP);
    BlockBackend *blk;
    char buf[512] = {0};
    int flags, depth;

    for (int i = 0; i < BDRV_MAX_DEPTH; i++) {
        g_autofree char *text = g_strdup_printf("driver=raw,file=%s", bdrv_get_node_name(bs));
        BlockDriverState *below = bs;

        bs = open_node_with(text, BDRV_O_RDWR | BDRV_O_UNMAP);
        bdrv_unref(below);
    }
    blk = blk_over(bdrv_ref(bs), READ_WRITE | BLK_PERM_RESIZE);
    assert_int_equal(blk_pwrite(blk, 1024, 512, buf, BDRV_REQ_FUA), 0);
    assert_int_equal(blk_pread(blk, 1024, 512, buf, 0), 0);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), 0);
    assert_int_equal(blk_pdiscard(blk, 4096, 512), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(status(bs, NULL, 0, SIZE, &flags, &depth), SIZE);
    assert_true(flags & BDRV_BLOCK_DATA);
    assert_int_equal(blk_truncate(blk, 8192, true, BLOCK_PREALLOC_OFF, NULL), 0);
    assert_int_equal(blk_getlength(blk), 8192);
    assert_int_equal(bdrv_get_allocated_file_size(bs), -ENOTSUP);
    assert_int_equal(count_calls('w'), 1);
    assert_int_equal(count_calls('d'), 1);
    blk_unref(blk);
    bdrv_unref(bs);
}

/* Each hook stays with the request until it is over. */
static void hooks_of_a_deep_graph_do_not_run_out_of_stack(void **state)
{
    BlockDriverState *bs = open_node_with("driver=paths-disk", BDRV_O_RDWR);
    BlockBackend *blk;
    char buf[512] = {0};

    for (int i = 0; i < BDRV_MAX_DEPTH; i++) {
        g_autofree char *text =
            g_strdup_printf("driver=paths-format,file=%s", bdrv_get_node_name(bs));
        BlockDriverState *below = bs;

        bs = open_node_with(text, BDRV_O_RDWR);
        bdrv_unref(below);
    }
    blk = blk_over(bs, READ_WRITE);
    hook_byte = 9;
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), 0);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), 0);
    assert_int_equal(buf[511], 9);
    assert_int_equal(hook_held, 0);
    hook_byte = 0;
    blk_unref(blk);
}

static int setup(void **state)
{
    calls = g_array_new(false, false, sizeof(Call));
    return blockgraph_group_setup(state) == 0 && bdrv_register(&disk_driver, NULL) &&
                   bdrv_register(&format_driver, NULL)
               ? 0
               : -1;
}

static int teardown(void **state)
{
    g_array_unref(calls);
    return blockgraph_group_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(requests_in_many_pieces_match_a_flat_model, reset),
        cmocka_unit_test_setup(units_of_zeroing_and_discarding_need_not_be_powers_of_two, reset),
        cmocka_unit_test_setup(alignment_never_leads_beyond_the_largest_length, reset),
        cmocka_unit_test_setup(edges_in_one_unit_are_read_once, reset),
        cmocka_unit_test_setup(unmapping_needs_every_layer_s_consent, reset),
        cmocka_unit_test_setup(fua_is_native_or_a_flush_after, reset),
        cmocka_unit_test_setup(fua_above_a_format_with_a_flush_is_that_flush, reset),
        cmocka_unit_test_setup(flush_is_data_then_driver_then_metadata, reset),
        cmocka_unit_test_setup(failed_flush_of_the_data_stops_what_depends_on_it, reset),
        cmocka_unit_test_setup(no_flush_means_no_flush_of_the_disk, reset),
        cmocka_unit_test_setup(write_unchanged_permits_only_writes_that_say_so, reset),
        cmocka_unit_test_setup(who_shares_no_permission_excludes_its_like, reset),
        cmocka_unit_test_setup(truncating_needs_the_permission, reset),
        cmocka_unit_test_setup(nothing_grows_without_the_permission, reset),
        cmocka_unit_test_setup(place_that_is_not_ours_alone_is_never_written, reset),
        cmocka_unit_test_setup(failed_map_ends_the_request_when_all_parts_are_over, reset),
        cmocka_unit_test_setup(encoded_extents_are_read_in_any_part, reset),
        cmocka_unit_test_setup(hook_may_put_memory_of_its_own_and_is_told_of_the_end, reset),
        cmocka_unit_test_setup(cached_mapping_is_dropped_by_all_that_changes_it, reset),
        cmocka_unit_test_setup(status_says_no_more_than_the_mapping, reset),
        cmocka_unit_test_setup(status_above_a_layer_does_not_look_at_it, reset),
        cmocka_unit_test_setup(every_request_passes_through_256_nodes, reset),
        cmocka_unit_test_setup(hooks_of_a_deep_graph_do_not_run_out_of_stack, reset),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
