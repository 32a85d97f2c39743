/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: which clusters are given out, given back and punched; images whose tables
 * lie about that; what the metadata caches forget.
 */
#include "qcow2-testing.h"

#include "drivers/qcow2/qcow2-alloc.h"
#include "util/sim.h"
#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)

/* ---- Helpers --------------------------------------------------------------------------- */

static char *create_image(const char *text)
{
    g_autoptr(JsonObject) options = options_of("%s", text);
    char *path = test_path("test.qcow2");
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

static Image load_image(const char *path)
{
    Image image = { 0 };
    char *data = NULL;

    assert_true(g_file_get_contents(path, &data, &image.size, NULL));
    image.data = (uint8_t *)data;
    image.cluster_bits = qcow2_be32(image.data + 20);
    return image;
}

/* Open for writing with further options, ",key=value…". */
static BlockBackend *open_writable(const char *path, const char *more)
{
    return open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s%s", path, more),
                    BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
}

/* @leaks: whether there may be some. */
static void assert_check(const char *path, bool leaks)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;
    int ret = bdrv_check(blk_bs(blk), &r, NULL, NULL);

    blk_unref(blk);
    assert_int_equal(ret, 0);
    assert_int_equal(r.check_errors, 0);
    assert_int_equal(r.corruptions, 0);
    assert_true(leaks || r.leaks == 0);
}

static bool is_marked_corrupt(const char *path)
{
    g_autofree uint8_t *data = load_image(path).data;

    return qcow2_be64(data + 72) & QCOW2_INCOMPAT_CORRUPT;
}

static int64_t blocks_on_disk(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_blocks;
}

/* Refcounts of 16 bits of the first block. */
static unsigned refcount_of(const Image *image, uint64_t place)
{
    uint64_t at = refblock_at(image) + 2 * (place >> image->cluster_bits);

    assert_true(at + 2 <= image->size);
    return image->data[at] << 8 | image->data[at + 1];
}

/* A new image of 8 MiB with data in the first four clusters of 64 KiB. */
static Image written_image(void)
{
    g_autofree char *path = create_image("size=8M");
    g_autofree uint8_t *data = pattern(256 * KiB, 1);
    BlockBackend *blk = open_writable(path, "");

    assert_int_equal(blk_pwrite(blk, 0, 256 * KiB, data, 0), 0);
    blk_unref(blk);
    return load_image(path);
}

/* Have a discard of cluster 0, flushed and released, do what it does. */
static int discard_first(const char *path, const char *more, int64_t bytes)
{
    BlockBackend *blk = open_writable(path, more);
    int ret = blk_pdiscard(blk, 0, bytes);

    blk_unref(blk);
    return ret;
}

/* ---- Tables that lie ------------------------------------------------------------------- */

static void a_place_that_is_no_cluster_is_not_given_back(void **state)
{
    Image image = written_image();
    uint64_t place = get64(&image, l2_at(&image)) & QCOW2_OFFSET_MASK;
    unsigned before[2] = { refcount_of(&image, place),
                           refcount_of(&image, place + (1ULL << image.cluster_bits)) };
    int64_t cluster = 1LL << image.cluster_bits;
    g_autofree char *path = NULL;

    put64(&image, l2_at(&image), (place + 512) | QCOW2_COPIED);
    path = store_image(&image);
    assert_int_equal(discard_first(path, "", cluster), -EIO);
    assert_true(is_marked_corrupt(path));
    image = load_image(path);
    assert_int_equal(refcount_of(&image, place), before[0]);
    assert_int_equal(refcount_of(&image, place + cluster), before[1]);
    g_free(image.data);
}

static void metadata_is_neither_given_back_nor_punched(void **state)
{
    Image image = written_image(), after;
    uint64_t l1 = l1_at(&image);
    g_autofree uint8_t *table = g_memdup2(image.data + l1, 64);
    int64_t cluster = 1LL << image.cluster_bits;
    g_autofree char *path = NULL;

    put64(&image, l2_at(&image), l1 | QCOW2_COPIED);
    path = store_image(&image);
    assert_int_equal(discard_first(path, ",pass-discard-request=on", cluster), 0);
    assert_true(is_marked_corrupt(path));
    after = load_image(path);
    assert_memory_equal(after.data + l1, table, 64);
    assert_int_equal(refcount_of(&after, l1), 1);
    g_free(after.data);
}

/* The refcount of the L1 table is 0, and new refcount blocks would come to lie there. */
static void new_refcount_blocks_are_not_put_over_metadata(void **state)
{
    g_autofree char *path = create_image("size=64k,cluster_size=512,refcount_bits=64");
    Image image = load_image(path), after;
    uint64_t l1 = l1_at(&image);
    g_autofree uint8_t *table = g_memdup2(image.data + l1, 16), *data = pattern(32 * KiB, 1);
    BlockBackend *blk;

    assert_int_equal(get64(&image, refblock_at(&image) + 8 * (l1 / 512 + 1)), 0);
    put64(&image, refblock_at(&image) + 8 * (l1 / 512), 0);
    g_free(path);
    path = store_image(&image);
    blk = open_writable(path, "");
    assert_int_equal(blk_pwrite(blk, 0, 32 * KiB, data, 0), -EIO);
    blk_unref(blk);
    assert_true(is_marked_corrupt(path));
    after = load_image(path);
    assert_memory_equal(after.data + l1, table, 16);
    g_free(after.data);
}

static void reading_a_bad_entry_marks_a_writable_image_only(void **state)
{
    for (int writable = 0; writable < 2; writable++) {
        Image image = written_image();
        uint64_t place = get64(&image, l2_at(&image)) & QCOW2_OFFSET_MASK;
        g_autofree char *path = NULL;
        uint8_t sector[512];
        BlockBackend *blk;

        put64(&image, l2_at(&image), (place + 512) | QCOW2_COPIED);
        path = store_image(&image);
        blk = open_qcow2(path, writable ? BDRV_O_RDWR | BDRV_O_NO_FLUSH : 0);
        assert_int_equal(blk_pread(blk, 0, sizeof(sector), sector, 0), -EIO);
        assert_int_equal(blk_pread(blk, 1 * MiB, sizeof(sector), sector, 0), 0);
        blk_unref(blk);
        assert_int_equal(is_marked_corrupt(path), writable);
    }
}

/* Where the snapshot's L2 table for guest offset 0 lies, which the disk does not use. */
static uint64_t inactive_l2_of(Image *image)
{
    uint64_t l1 = get64(image, snapshots_at(image)), l2 = 0;

    for (int i = 0; i < 8 && l2 == 0; i++) {
        l2 = get64(image, l1 + 8 * i) & QCOW2_OFFSET_MASK;
    }
    assert_int_not_equal(l2, 0);
    return l2;
}

/* The refcount says that a snapshot's L2 table is free. */
static void only_all_checks_know_the_l2_tables_of_snapshots(void **state)
{
    static const char *const options[] = {
        ",overlap-check=cached", ",overlap-check=all", ",overlap-check.inactive-l2=on",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        Image image = load_fixture("snapshots.qcow2"), after;
        uint64_t l2 = 0, size = 1ULL << image.cluster_bits;
        g_autofree uint8_t *data = pattern(size, 1), *table = NULL;
        g_autofree char *path = store_image(&image);
        BlockBackend *blk = open_writable(path, "");

        /* Now the disk has tables of its own. */
        for (int64_t at = 0; at < blk_getlength(blk); at += 16 * size) {
            assert_int_equal(blk_pwrite(blk, at, 512, data, 0), 0);
        }
        blk_unref(blk);
        image = load_image(path);
        l2 = inactive_l2_of(&image);
        table = g_memdup2(image.data + l2, size);
        put_bytes(&image, refblock_at(&image) + 2 * (l2 >> image.cluster_bits), 2, 0);
        g_free(path);
        path = store_image(&image);
        blk = open_writable(path, options[i]);
        for (int n = 0, ret = 0; n < 8 && ret == 0; n++) {
            ret = blk_pwrite(blk, n * size, size, data, 0);
            assert_true(ret == 0 || ret == -EIO);
        }
        blk_unref(blk);
        after = load_image(path);
        assert_int_equal(is_marked_corrupt(path), i > 0);
        assert_int_equal(memcmp(after.data + l2, table, size) == 0, i > 0);
        g_free(after.data);
    }
}

/* ---- Growing ---------------------------------------------------------------------------- */

#define RULE "file.inject-error.%d.event=refblock_alloc_write_table," \
             "file.inject-error.%d.iotype=write,file.inject-error.%d.errno=28," \
             "file.inject-error.%d.once=on,"

/*
 * A larger refcount table cannot be made, three times: as many clusters are given out
 * as there are still, where a new block may have been written already.
 */
static void what_failed_growing_leaves_behind_is_not_taken_for_zeros(void **state)
{
    for (int before = 0; before < 16; before++) {
        g_autofree char *path = create_image("size=16M,cluster_size=512,refcount_bits=64");
        g_autofree uint8_t *data = pattern(3 * MiB, before);
        int64_t at = before * 512, step = 16 * 512;
        BlockBackend *blk = open_blk(
            options_of(RULE RULE RULE "driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
                       "file.image.filename=%s", 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, path),
            BDRV_O_RDWR | BDRV_O_NO_FLUSH);
        int ret = before ? blk_pwrite(blk, 0, at, data, 0) : 0;

        while (ret == 0 && at + step <= 3 * MiB) { /* not the start of the first cluster */
            ret = blk_pwrite(blk, at + 100, step - 100, data + at + 100, 0);
            memset(data + at, 0, 100);
            at += step;
        }
        assert_true(ret == 0 || ret == -ENOSPC);
        assert_reads(blk, 0, ret == 0 ? at : at - step + 100, data);
        blk_unref(blk);
        assert_check(path, false);
    }
}

/* ---- Giving back ------------------------------------------------------------------------ */

static BlockBackend *write_all(const char *path, const char *more, int64_t bytes, int flags)
{
    BlockBackend *blk = open_writable(path, more);
    g_autofree uint8_t *data = pattern(bytes, 1);

    if (flags & BDRV_REQ_COMPRESSED) {
        for (int64_t i = 0; i < bytes; i++) {
            data[i] &= 3; /* gets shorter */
        }
    }
    assert_int_equal(blk_pwrite(blk, 0, bytes, data, flags), 0);
    assert_int_equal(blk_flush(blk), 0);
    return blk;
}

/* Discard or zero @bytes of what was written, and have it released. */
static void drop(BlockBackend *blk, int64_t bytes, bool by_zeroing)
{
    int ret = by_zeroing ? blk_pwrite_zeroes(blk, 0, bytes, BDRV_REQ_MAY_UNMAP)
                         : blk_pdiscard(blk, 0, bytes);

    assert_int_equal(ret, 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_reads(blk, 0, bytes, NULL);
}

static void what_is_discarded_leaves_the_file_if_that_is_asked_for(void **state)
{
    static const struct {
        const char *more;
        int flags;
        bool by_zeroing;
        bool shrinks;
    } cases[] = {
        { ",pass-discard-request=off", 0, false, false },
        { ",pass-discard-request=on", 0, false, true },
        { ",pass-discard-request=on", 0, true, true },
        { "", 0, false, true },
        { "", BDRV_REQ_COMPRESSED, false, true },
        { ",discard-no-unref=on", 0, false, true },
        { ",discard-no-unref=on", 0, true, true },
        { ",discard-no-unref=on,pass-discard-request=off", 0, false, false },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = create_image("size=8M");
        BlockBackend *blk = write_all(path, cases[i].more, 4 * MiB, cases[i].flags);
        int64_t before = blocks_on_disk(path), after;

        drop(blk, 4 * MiB, cases[i].by_zeroing);
        after = blocks_on_disk(path);
        if (cases[i].shrinks ? after > before / 4 : after < before) {
            fail_msg("case %zu: %" PRId64 " blocks before, %" PRId64 " after", i, before, after);
        }
        blk_unref(blk);
        assert_check(path, false);
    }
}

/* QEMU: the cluster is still referred to, and goes on being so when it is written to. */
static void without_unref_a_discarded_cluster_keeps_its_place(void **state)
{
    g_autofree char *path = create_image("size=8M");
    BlockBackend *blk = write_all(path, ",discard-no-unref=on", 1 * MiB, 0);
    g_autofree uint8_t *data = pattern(1 * MiB, 2);
    Image image = load_image(path);
    uint64_t place = get64(&image, l2_at(&image));

    g_free(image.data);
    drop(blk, 1 * MiB, false);
    image = load_image(path);
    assert_int_equal(get64(&image, l2_at(&image)), place | QCOW2_ZERO);
    assert_int_equal(refcount_of(&image, place & QCOW2_OFFSET_MASK), 1);
    g_free(image.data);
    assert_int_equal(blk_pwrite(blk, 0, 1 * MiB, data, 0), 0);
    assert_reads(blk, 0, 1 * MiB, data);
    blk_unref(blk);
    image = load_image(path);
    assert_int_equal(get64(&image, l2_at(&image)), place);
    g_free(image.data);
    assert_check(path, false);
}

static void without_unref_what_a_snapshot_shares_is_not_punched(void **state)
{
    Image image = load_fixture("snapshots.qcow2");
    g_autofree char *path = store_image(&image);
    BlockBackend *blk = open_qcow2(path, 0);
    int64_t size = blk_getlength(blk);
    g_autofree uint8_t *before = g_malloc(size), *after = g_malloc(size);
    GError *err = NULL;

    blk_unref(blk);
    for (int round = 0; round < 2; round++) {
        blk = open_qcow2(path, 0);
        assert_ok(bdrv_snapshot_load_tmp(blk_bs(blk), "1", NULL, &err), err);
        assert_int_equal(blk_pread(blk, 0, size, round ? after : before, 0), 0);
        blk_unref(blk);
        if (round == 0) {
            blk = open_writable(path, ",discard-no-unref=on");
            assert_int_equal(blk_pdiscard(blk, 0, size / 2), 0);
            assert_int_equal(blk_pwrite_zeroes(blk, size / 2, size / 2, BDRV_REQ_MAY_UNMAP), 0);
            blk_unref(blk);
        }
    }
    assert_memory_equal(before, after, size);
    assert_check(path, false);
}

static void version_2_cannot_keep_what_is_discarded(void **state)
{
    g_autofree char *path = create_image("size=1M,compat=0.10");

    assert_open_fails(options_of("driver=qcow2,discard-no-unref=on,file.driver=file,"
                                 "file.filename=%s", path),
                      BDRV_O_RDWR, "discard-no-unref is only supported since qcow2 version 3");
}

/* ---- Events ----------------------------------------------------------------------------- */

/* An error injected at @event shows in what is done. */
static void assert_event_comes(const char *event, int flags)
{
    g_autofree char *path = create_image("size=8M,cluster_size=512,refcount_bits=64");
    g_autofree uint8_t *data = g_malloc0(256 * KiB);
    BlockBackend *blk = open_blk(
        options_of("driver=qcow2,file.driver=blkdebug,file.image.driver=file,"
                   "file.image.filename=%s,file.inject-error.0.event=%s,"
                   "file.inject-error.0.iotype=write,file.inject-error.0.once=on", path, event),
        BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    int ret = blk_pwrite(blk, 0, 256 * KiB, data, flags);

    if (ret == 0) {
        ret = blk_flush(blk);
    }
    if (ret != -EIO) {
        fail_msg("event %s did not come", event);
    }
    assert_int_equal(blk_flush(blk), 0);
    blk_unref(blk);
    assert_check(path, false);
}

static void events_of_the_tables_come(void **state)
{
    assert_event_comes("l2_update_compressed", BDRV_REQ_COMPRESSED);
    assert_event_comes("reftable_update", 0);
    assert_event_comes("l1_update", 0);
    assert_event_comes("l2_update", 0);
}

/* ---- What caches forget ------------------------------------------------------------------- */

static Qcow2State *qcow2_state(BlockBackend *blk)
{
    return bdrv_state(blk_bs(blk));
}

/* Let @seconds of the simulated clock pass. */
static void coroutine_fn pass_time(void *opaque)
{
    int64_t *seconds = opaque;

    co_sleep_ns(*seconds * INT64_C(1000000000));
    *seconds = 0;
    aio_wait_kick();
}

static void wait_seconds(int64_t seconds)
{
    coroutine_enter(coroutine_create(pass_time, &seconds));
    AIO_WAIT_WHILE(seconds > 0);
}

/* A world in which an hour passes at once. */
static void what_is_not_used_for_the_interval_is_forgotten(void **state)
{
    g_autofree char *path = create_image("size=64M");
    size_t used;
    SimWorld *world;
    BlockBackend *blk;

    blockgraph_cleanup();
    world = sim_world_new(1);
    sim_world_add_context(world, "main");
    assert_true(blockgraph_init(NULL));
    blk = write_all(path, ",cache-clean-interval=60", 64 * KiB, 0);
    used = qcow2_cache_count(qcow2_state(blk)->l2_cache);
    assert_true(used > 0);
    wait_seconds(59);
    assert_int_equal(qcow2_cache_count(qcow2_state(blk)->l2_cache), used);
    wait_seconds(62);
    assert_int_equal(qcow2_cache_count(qcow2_state(blk)->l2_cache), 0);
    assert_int_equal(g_hash_table_size(qcow2_state(blk)->writer->blocks), 0);
    blk_unref(blk);
    /* What is not written back stays. */
    blk = open_writable(path, ",cache-clean-interval=60");
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 64 * KiB, BDRV_REQ_MAY_UNMAP), 0);
    wait_seconds(1000);
    assert_int_equal(qcow2_cache_count(qcow2_state(blk)->l2_cache), 1);
    assert_reads(blk, 0, 64 * KiB, NULL);
    blk_unref(blk);
    blockgraph_cleanup();
    sim_world_free(world);
    assert_true(blockgraph_init(NULL));
    assert_check(path, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_that_is_no_cluster_is_not_given_back),
        cmocka_unit_test(metadata_is_neither_given_back_nor_punched),
        cmocka_unit_test(new_refcount_blocks_are_not_put_over_metadata),
        cmocka_unit_test(reading_a_bad_entry_marks_a_writable_image_only),
        cmocka_unit_test(only_all_checks_know_the_l2_tables_of_snapshots),
        cmocka_unit_test(what_failed_growing_leaves_behind_is_not_taken_for_zeros),
        cmocka_unit_test(what_is_discarded_leaves_the_file_if_that_is_asked_for),
        cmocka_unit_test(without_unref_a_discarded_cluster_keeps_its_place),
        cmocka_unit_test(without_unref_what_a_snapshot_shares_is_not_punched),
        cmocka_unit_test(version_2_cannot_keep_what_is_discarded),
        cmocka_unit_test(events_of_the_tables_come),
        cmocka_unit_test(what_is_not_used_for_the_interval_is_forgotten),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
