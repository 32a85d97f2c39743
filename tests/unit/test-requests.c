/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The request path between a backend and drivers that this test brings along:
 * a protocol that records its calls and has the limits it is told, and a
 * format whose map() answers what it is told.
 */
#include <errno.h>

#include "block-testing.h"
#include "repeats.h"

#define SIZE (1 << 20)

/* ---- The protocol ------------------------------------------------------------------ */

/* What it does, and what it has seen. One node of it at a time. */
static struct {
    BlockLimits limits;
    uint8_t data[SIZE];
    int reads, writes, zeroes, discards, flushes;
    int64_t largest; /* read or write, bytes */
    int largest_iov;
    int fail_write; /* -errno of the next write */
    int fail_flush;
    bool no_zeroes;
    int zero_flags;
    bool unaligned; /* a request broke the limits */
    int order, flush_at;
} disk;

static void disk_reset(uint32_t align, uint32_t mem_align)
{
    memset(&disk, 0, sizeof(disk));
    disk.limits.request_alignment = align;
    disk.limits.min_mem_alignment = mem_align;
    for (int i = 0; i < SIZE; i++) {
        disk.data[i] = i * 7 + (i >> 8);
    }
}

static bool disk_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, SIZE);
    return true;
}

static void disk_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    *limits = disk.limits;
}

static void check_request(int64_t offset, int64_t bytes, IOVector *iov)
{
    if ((offset | bytes) & (disk.limits.request_alignment - 1)) {
        disk.unaligned = true;
    }
    if (iov) {
        disk.largest = MAX(disk.largest, bytes);
        disk.largest_iov = MAX(disk.largest_iov, iov->niov);
        disk.unaligned |= iov->size != bytes ||
                          !io_vector_is_aligned(iov, MAX(disk.limits.min_mem_alignment, 1));
    }
}

static int coroutine_fn disk_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    IOVector *iov, int flags)
{
    int64_t n = CLAMP(SIZE - offset, 0, bytes);

    disk.reads++;
    check_request(offset, bytes, iov);
    co_sleep_ns(0); /* let others in between */
    io_vector_from_buf(iov, 0, disk.data + MIN(offset, SIZE), n);
    io_vector_memset(iov, n, 0, bytes - n);
    return 0;
}

static int coroutine_fn disk_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     IOVector *iov, int flags)
{
    int ret = disk.fail_write;

    disk.writes++;
    check_request(offset, bytes, iov);
    co_sleep_ns(0);
    disk.fail_write = 0;
    if (ret == 0) {
        io_vector_to_buf(iov, 0, disk.data + offset, bytes);
    }
    return ret;
}

static int coroutine_fn disk_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           int flags)
{
    if (disk.no_zeroes) {
        return -ENOTSUP;
    }
    disk.zeroes++;
    disk.zero_flags |= flags;
    check_request(offset, bytes, NULL);
    memset(disk.data + offset, 0, bytes);
    return 0;
}

static int coroutine_fn disk_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    disk.discards++;
    check_request(offset, bytes, NULL);
    memset(disk.data + offset, 0, bytes);
    return 0;
}

static int coroutine_fn disk_flush(BlockDriverState *bs)
{
    disk.flushes++;
    disk.flush_at = ++disk.order;
    return disk.fail_flush;
}

static BlockDriver disk_driver = {
    .format_name = "test-disk",
    .bdrv_open = disk_open,
    .bdrv_refresh_limits = disk_refresh_limits,
    .bdrv_co_preadv = disk_preadv,
    .bdrv_co_pwritev = disk_pwritev,
    .bdrv_co_pwrite_zeroes = disk_pwrite_zeroes,
    .bdrv_co_pdiscard = disk_pdiscard,
    .bdrv_co_flush = disk_flush,
};

/* ---- The format --------------------------------------------------------------------- */

static struct {
    int (*answer)(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m);
    int maps;
    int64_t length;
} format;

static bool format_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, format.length);
    bdrv_set_map_unit(bs, 4096);
    return bdrv_open_file_child(bs, options, errp);
}

static int coroutine_fn format_map(BlockDriverState *bs, const BdrvMapRequest *req,
                                   BdrvMapping *m)
{
    bdrv_graph_assert_readable();
    format.maps++;
    m->offset = req->offset;
    m->bytes = req->bytes;
    m->target = BDRV_MAP_DATA;
    m->child = bdrv_file_child(bs);
    m->child_offset = req->offset;
    return format.answer ? format.answer(bs, req, m) : 0;
}

static BlockDriver format_driver = {
    .format_name = "test-format",
    .supports_backing = true,
    .bdrv_open = format_open,
    .bdrv_co_map = format_map,
};

/* ---- Helpers -------------------------------------------------------------------------- */

static BlockBackend *blk_for(const char *options, int flags)
{
    GError *err = NULL;
    g_autoptr(JsonObject) parsed = block_options_parse(options, NULL, &err);
    BlockBackend *blk = blk_new_open(NULL, parsed, flags, NULL, &err);

    assert_ok(blk != NULL, err);
    return blk;
}

static void assert_memory(const uint8_t *a, const uint8_t *b, size_t size, const char *what)
{
    for (size_t i = 0; i < size; i++) {
        if (a[i] != b[i]) {
            fail_msg("%s: byte %zu is %d, not %d", what, i, a[i], b[i]);
        }
    }
}

/* ---- Alignment and limits --------------------------------------------------------------- */

static void random_requests_match_a_flat_model(void **state)
{
    static const struct {
        uint32_t align, mem_align;
        int64_t max_transfer;
        int max_iov;
    } kinds[] = {{1, 1, 0, 0}, {512, 512, 0, 0}, {4096, 4096, 65536, 0}, {4096, 512, 8192, 2}};
    g_autofree uint8_t *model = g_malloc(SIZE), *buf = g_malloc(SIZE);

    for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(k + 1);
        BlockBackend *blk;

        disk_reset(kinds[k].align, kinds[k].mem_align);
        disk.limits.max_transfer = kinds[k].max_transfer;
        disk.limits.max_iov = kinds[k].max_iov;
        memcpy(model, disk.data, SIZE);
        blk = blk_for("driver=test-disk", BDRV_O_RDWR | BDRV_O_UNMAP);
        for (int i = 0; i < repeats(300, 60); i++) {
            int64_t offset = g_rand_int_range(rand, 0, SIZE);
            int64_t bytes = g_rand_int_range(rand, 1, MIN(SIZE - offset, 1 << (i % 18 + 1)) + 1);

            switch (g_rand_int_range(rand, 0, 4)) {
            case 0:
                memset(buf, i, bytes);
                memset(model + offset, i, bytes);
                assert_int_equal(blk_pwrite(blk, offset, bytes, buf, 0), 0);
                break;
            case 1:
                memset(model + offset, 0, bytes);
                assert_int_equal(blk_pwrite_zeroes(blk, offset, bytes, BDRV_REQ_MAY_UNMAP), 0);
                break;
            default:
                assert_int_equal(blk_pread(blk, offset, bytes, buf, 0), 0);
                assert_memory(buf, model + offset, bytes, "read");
            }
        }
        assert_memory(disk.data, model, SIZE, "disk");
        assert_false(disk.unaligned);
        if (kinds[k].max_transfer) {
            assert_true(disk.largest <= kinds[k].max_transfer);
        }
        if (kinds[k].max_iov) {
            assert_true(disk.largest_iov <= kinds[k].max_iov);
        }
        blk_unref(blk);
    }
}

static void aligned_request_is_one_call(void **state)
{
    BlockBackend *blk;
    void *buf = aligned_alloc(4096, 65536);

    disk_reset(4096, 4096);
    blk = blk_for("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    disk.reads = 0;
    assert_int_equal(blk_pread(blk, 8192, 65536, buf, 0), 0);
    assert_int_equal(disk.reads, 1);
    assert_int_equal(blk_pwrite(blk, 8192, 65536, buf, 0), 0);
    assert_int_equal(disk.writes, 1);
    assert_int_equal(disk.reads, 1);
    blk_unref(blk);
    free(buf);
}

static void count_done(void *opaque, int ret)
{
    assert_int_equal(ret, 0);
    --*(int *)opaque;
}

static void writes_to_one_block_at_a_time_lose_nothing(void **state)
{
    uint8_t bytes[512];
    IOVector iov[512];
    int left = 512;
    BlockBackend *blk;

    disk_reset(512, 512);
    blk = blk_for("driver=test-disk", BDRV_O_RDWR);
    for (int i = 0; i < 512; i++) { /* all in the same block, all in flight */
        bytes[i] = 255 - i % 251;
        io_vector_init_buf(&iov[i], &bytes[i], 1);
        blk_aio_pwritev(blk, 1024 + i, &iov[i], 0, count_done, &left);
    }
    AIO_WAIT_WHILE(left > 0);
    assert_memory(disk.data + 1024, bytes, 512, "block");
    blk_unref(blk);
}

/* ---- Zeroing, discarding, flushing --------------------------------------------------------- */

static void zeroing_falls_back_unless_told_not_to(void **state)
{
    BlockBackend *blk;

    disk_reset(512, 1);
    disk.limits.pwrite_zeroes_alignment = 4096;
    blk = blk_for("driver=test-disk", BDRV_O_RDWR);
    assert_int_equal(blk_pwrite_zeroes(blk, 512, 8192, BDRV_REQ_MAY_UNMAP), 0);
    assert_int_equal(disk.zeroes, 1); /* the middle, without the edges */
    assert_int_equal(disk.zero_flags & BDRV_REQ_MAY_UNMAP, 0); /* discard is off */
    assert_true(disk.writes > 0);
    disk.no_zeroes = true;
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 65536, BDRV_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 65536, 0), 0);
    assert_true(buffer_is_zero(disk.data, 65536));
    assert_int_equal(disk.data[65536], (uint8_t)(65536 * 7 + (65536 >> 8)));
    blk_unref(blk);
}

static void discard_shrinks_inward_and_needs_to_be_on(void **state)
{
    BlockBackend *blk;
    uint8_t first, last;

    disk_reset(512, 1);
    first = disk.data[4095];
    last = disk.data[12288];
    disk.limits.pdiscard_alignment = 4096;
    blk = blk_for("driver=test-disk", BDRV_O_RDWR);
    assert_int_equal(blk_pdiscard(blk, 1, SIZE - 2), 0);
    assert_int_equal(disk.discards, 0);
    blk_unref(blk);
    blk = blk_for("driver=test-disk", BDRV_O_RDWR | BDRV_O_UNMAP);
    assert_int_equal(blk_pdiscard(blk, 100, 1000), 0);
    assert_int_equal(disk.discards, 0);
    assert_int_equal(blk_pdiscard(blk, 4095, 8200), 0);
    assert_int_equal(disk.discards, 1);
    assert_int_equal(disk.data[4095], first);
    assert_int_equal(disk.data[12288], last);
    assert_true(buffer_is_zero(disk.data + 4096, 8192));
    blk_unref(blk);
}

static void flush_is_left_out_only_if_nothing_was_written(void **state)
{
    BlockBackend *blk;
    char buf[512] = {0};

    disk_reset(1, 1);
    blk = blk_for("driver=raw,file.driver=test-disk", BDRV_O_RDWR);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(disk.flushes, 0);
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(disk.flushes, 1);
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, BDRV_REQ_FUA), 0);
    assert_int_equal(disk.flushes, 2);
    disk.fail_write = -EIO;
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), -EIO);
    disk.fail_flush = -EIO;
    assert_int_equal(blk_flush(blk), -EIO);
    assert_int_equal(blk_flush(blk), -EIO); /* what failed is not taken for done */
    disk.fail_flush = 0;
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
}

/* ---- What map() may answer ------------------------------------------------------- */

static int answer_empty(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->bytes = 0;
    return 0;
}

static int answer_elsewhere(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->offset = req->offset + 1;
    return 0;
}

static int answer_overflow(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->bytes = INT64_MAX;
    m->offset = req->offset - 0;
    m->child_offset = INT64_MAX - 10;
    return 0;
}

static int answer_negative(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->child_offset = -4096;
    return 0;
}

static int answer_no_child(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->child = NULL;
    return 0;
}

static int answer_no_decode(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->target = BDRV_MAP_ENCODED;
    m->child_bytes = 100;
    return 0;
}

static int never_decode(BlockDriverState *bs, const BdrvMapping *m, const uint8_t *src,
                        size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    return -EIO;
}

static int answer_huge_encoded(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->target = BDRV_MAP_ENCODED;
    m->decode = never_decode;
    m->child_bytes = 1LL << 40;
    return 0;
}

static int answer_undecodable(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->target = BDRV_MAP_ENCODED;
    m->decode = never_decode;
    m->child_bytes = 100;
    return 0;
}

static void answers_that_break_the_contract_are_io_errors(void **state)
{
    static int (*const bad[])(BlockDriverState *, const BdrvMapRequest *, BdrvMapping *) = {
        answer_empty,     answer_elsewhere,    answer_overflow,    answer_negative,
        answer_no_child,  answer_no_decode,    answer_huge_encoded, answer_undecodable,
    };
    char buf[4096];

    disk_reset(1, 1);
    format.length = SIZE;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        BlockBackend *blk = blk_for("driver=test-format,file.driver=test-disk", 0);

        format.answer = bad[i];
        if (blk_pread(blk, 4096, sizeof(buf), buf, 0) != -EIO) {
            fail_msg("answer %zu was taken", i);
        }
        format.answer = NULL;
        assert_int_equal(blk_pread(blk, 0, sizeof(buf), buf, 0), 0);
        blk_unref(blk);
    }
}

/* Odd pages are missing, page 6 is broken. */
static int answer_pages(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    int64_t page = req->offset / 4096;

    m->offset = page * 4096;
    m->bytes = 4096;
    m->child_offset = m->offset;
    if (page % 2) {
        m->target = BDRV_MAP_ZERO;
        m->child = NULL;
    }
    return page == 6 ? -EILSEQ : 0;
}

static void parts_are_read_side_by_side_and_the_first_error_wins(void **state)
{
    g_autofree uint8_t *buf = g_malloc(SIZE);
    BlockBackend *blk;

    disk_reset(1, 1);
    format.length = SIZE;
    blk = blk_for("driver=test-format,file.driver=test-disk", 0);
    format.answer = answer_pages;
    assert_int_equal(blk_pread(blk, 100, 6 * 4096, buf, 0), -EILSEQ);
    assert_int_equal(blk_pread(blk, 7 * 4096, SIZE - 7 * 4096, buf, 0), 0);
    for (int64_t at = 7 * 4096; at < SIZE; at += 4096) {
        if (at / 4096 % 2) {
            assert_true(buffer_is_zero(buf + at - 7 * 4096, 4096));
        } else {
            assert_memory(buf + at - 7 * 4096, disk.data + at, 4096, "page");
        }
    }
    format.answer = NULL;
    blk_unref(blk);
}

static void mapping_is_asked_once_and_again_when_dropped(void **state)
{
    char buf[512];
    BlockBackend *blk;

    disk_reset(1, 1);
    format.length = SIZE;
    blk = blk_for("driver=test-format,file.driver=test-disk", 0);
    format.answer = answer_pages;
    format.maps = 0;
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), 0);
    assert_int_equal(blk_pread(blk, 1000, 512, buf, 0), 0);
    assert_int_equal(format.maps, 1);
    bdrv_graph_rdlock_main_loop();
    bdrv_map_invalidate(blk_bs(blk), 4095, 1);
    bdrv_graph_rdunlock_main_loop();
    assert_int_equal(blk_pread(blk, 1000, 512, buf, 0), 0);
    assert_int_equal(format.maps, 2);
    format.answer = NULL;
    blk_unref(blk);
}

/* ---- Chains ----------------------------------------------------------------------- */

static int answer_unallocated(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    m->target = BDRV_MAP_UNALLOCATED;
    m->child = NULL;
    return 0;
}

/* @layers formats over a raw disk, each @shrink bytes longer than the one above. */
static BlockDriverState *chain(int layers, int64_t shrink)
{
    BlockDriverState *top = open_node_with("driver=test-disk,node-name=base", 0);

    for (int i = layers; i-- > 0;) {
        g_autofree char *text = g_strdup_printf(
            "driver=test-format,file.driver=null-co,file.read-zeroes=on,backing=%s",
            bdrv_get_node_name(top));
        BlockDriverState *below = top;

        format.length = SIZE - (layers - 1 - i) * shrink;
        top = open_node_with(text, 0);
        bdrv_unref(below);
    }
    return top;
}

static void deep_chain_is_read_on_one_stack(int64_t shrink)
{
    BlockDriverState *top;
    BlockBackend *blk;
    GError *err = NULL;
    g_autofree uint8_t *buf = g_malloc(SIZE), *model = g_malloc0(SIZE);
    int64_t length;
    bool ok;

    disk_reset(1, 1);
    format.answer = answer_unallocated;
    top = chain(repeats(250, 50), shrink);
    blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
    ok = blk_insert_bs(blk, top, &err);
    assert_ok(ok, err);
    length = blk_getlength(blk);
    memcpy(model, disk.data, SIZE);
    memset(model + length, 0, SIZE - length);
    assert_int_equal(blk_pread(blk, 0, length, buf, 0), 0);
    assert_memory(buf, model, length, "chain");
    blk_unref(blk);
    bdrv_unref(top);
    format.answer = NULL;
}

static void deep_chain_of_equal_layers(void **state)
{
    deep_chain_is_read_on_one_stack(0);
}

static void deep_chain_of_ever_longer_layers(void **state)
{
    deep_chain_is_read_on_one_stack(512);
}

/* Each layer ends before the one above: every layer adds zeros at its end. */
static void deep_chain_of_ever_shorter_layers(void **state)
{
    BlockDriverState *top;
    BlockBackend *blk;
    GError *err = NULL;
    g_autofree uint8_t *buf = g_malloc(SIZE);
    int layers = repeats(250, 50);
    int64_t longer = (layers - 1) * 512, bottom;
    bool ok;

    disk_reset(1, 1);
    format.answer = answer_unallocated;
    top = chain(layers, -512);
    bottom = SIZE; /* the disk; the layers are longer, up to the top */
    blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
    ok = blk_insert_bs(blk, top, &err);
    assert_ok(ok, err);
    assert_int_equal(blk_getlength(blk), SIZE + longer);
    assert_int_equal(blk_pread(blk, longer, SIZE, buf, 0), 0);
    assert_memory(buf, disk.data + longer, bottom - longer, "data");
    assert_true(buffer_is_zero(buf + bottom - longer, longer));
    blk_unref(blk);
    bdrv_unref(top);
    format.answer = NULL;
}

static int setup(void **state)
{
    return blockgraph_group_setup(state) == 0 && bdrv_register(&disk_driver, NULL) &&
                   bdrv_register(&format_driver, NULL)
               ? 0
               : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_match_a_flat_model),
        cmocka_unit_test(aligned_request_is_one_call),
        cmocka_unit_test(writes_to_one_block_at_a_time_lose_nothing),
        cmocka_unit_test(zeroing_falls_back_unless_told_not_to),
        cmocka_unit_test(discard_shrinks_inward_and_needs_to_be_on),
        cmocka_unit_test(flush_is_left_out_only_if_nothing_was_written),
        cmocka_unit_test(answers_that_break_the_contract_are_io_errors),
        cmocka_unit_test(parts_are_read_side_by_side_and_the_first_error_wins),
        cmocka_unit_test(mapping_is_asked_once_and_again_when_dropped),
        cmocka_unit_test(deep_chain_of_equal_layers),
        cmocka_unit_test(deep_chain_of_ever_longer_layers),
        cmocka_unit_test(deep_chain_of_ever_shorter_layers),
    };

    return cmocka_run_group_tests(tests, setup, blockgraph_group_teardown);
}
