/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: failures that image code has had in the field, one test for each: a request is
 * held on its way to the file, or fails; something else is done; then data and image must
 * be as they should. What is discarded in the file is overwritten there.
 */
#include "qcow2-testing.h"
#include "fault-node.h"

#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)
#define CLUSTER (4 * KiB)
#define CLUSTERS 64
#define SIZE (CLUSTERS * CLUSTER)

/* ---- An image in memory ----------------------------------------------------------------- */

static BlockDriverState *disk; /* of the running test */

static BlockBackend *on_disk(uint64_t perm)
{
    BlockBackend *blk = blk_new(NULL, perm, BLK_PERM_ALL, NULL);

    assert_true(blk_insert_bs(blk, disk, NULL));
    return blk;
}

static void load_disk(const char *data, gsize size)
{
    g_autofree char *text = g_strdup_printf("driver=memory,size=%" G_GSIZE_FORMAT
                                            ",node-name=disk", size);
    BlockBackend *blk;

    disk = open_node_with(text, BDRV_O_RDWR);
    blk = on_disk(BLK_PERM_WRITE);
    assert_int_equal(blk_pwrite(blk, 0, size, data, 0), 0);
    blk_unref(blk);
}

static void create_disk(int64_t size, const char *options)
{
    g_autofree char *path = test_path("hazard.qcow2"), *data = NULL;
    g_autoptr(JsonObject) object = options_of("size=%" PRId64 ",%s", size, options);
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, object, &err);
    gsize bytes;

    assert_ok(ok, err);
    assert_true(g_file_get_contents(path, &data, &bytes, NULL));
    load_disk(data, bytes);
}

static void get_disk(int64_t offset, int64_t bytes, void *buf)
{
    BlockBackend *blk = on_disk(BLK_PERM_CONSISTENT_READ);

    assert_int_equal(blk_pread(blk, offset, bytes, buf, 0), 0);
    blk_unref(blk);
}

static uint64_t get_disk64(int64_t offset)
{
    uint8_t word[8];

    get_disk(offset, sizeof(word), word);
    return qcow2_be64(word);
}

static void put_disk(int64_t offset, int64_t bytes, const void *buf)
{
    BlockBackend *blk = on_disk(BLK_PERM_WRITE);

    assert_int_equal(blk_pwrite(blk, offset, bytes, buf, 0), 0);
    blk_unref(blk);
}

/* Open the image; @options: further ones, ",key=value…". */
static BlockBackend *open_disk(const char *options)
{
    return open_blk(options_of("driver=qcow2,node-name=image,file.driver=fault,file.image=disk%s",
                               options), BDRV_O_RDWR | BDRV_O_UNMAP);
}

static void assert_disk_whole(bool leaks_too)
{
    BlockBackend *blk = open_blk(options_of("driver=qcow2,file=disk"),
                                 BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;

    assert_int_equal(bdrv_check(blk_bs(blk), &r, NULL, NULL), 0);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    if (leaks_too) {
        assert_int_equal(r.leaks, 0);
    }
    blk_unref(blk);
}

/* ---- Requests at the same time ---------------------------------------------------------- */

typedef enum Verb {
    READ,
    WRITE,
    ZERO,
    UNMAP,
    DISCARD,
    FLUSH,
} Verb;

typedef struct Request {
    BlockBackend *blk;
    Verb verb;
    int cluster; /* the first of */
    int count;
    int byte; /* all is written with this */
    uint8_t buf[CLUSTERS * CLUSTER];
    int ret;
    bool done;
} Request;

static int coroutine_fn request_run(Request *r)
{
    int64_t offset = r->cluster * CLUSTER, bytes = r->count * CLUSTER;

    switch (r->verb) {
    case READ:
        return blk_co_pread(r->blk, offset, bytes, r->buf, 0);
    case WRITE:
        return blk_co_pwrite(r->blk, offset, bytes, r->buf, 0);
    case ZERO:
        return blk_co_pwrite_zeroes(r->blk, offset, bytes, 0);
    case UNMAP:
        return blk_co_pwrite_zeroes(r->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    case DISCARD:
        return blk_co_pdiscard(r->blk, offset, bytes);
    default:
        return blk_co_flush(r->blk);
    }
}

static void coroutine_fn request_entry(void *opaque)
{
    Request *r = opaque;

    r->ret = request_run(r);
    r->done = true;
    aio_wait_kick();
}

static Request *start(BlockBackend *blk, Verb verb, int cluster, int count, int byte)
{
    Request *r = g_new(Request, 1);

    *r = (Request){.blk = blk, .verb = verb, .cluster = cluster, .count = count, .byte = byte};
    memset(r->buf, byte, sizeof(r->buf));
    coroutine_enter(coroutine_create(request_entry, r));
    return r;
}

/* Let it come to its end, which must be good. */
static void finish(Request *r)
{
    AIO_WAIT_WHILE(!r->done);
    assert_int_equal(r->ret, 0);
    g_free(r);
}

static void run(BlockBackend *blk, Verb verb, int cluster, int count, int byte)
{
    finish(start(blk, verb, cluster, count, byte));
}

/* Write one cluster after the other: they get the places that are free, wherever these are. */
static void write_each(BlockBackend *blk, int cluster, int count, int byte)
{
    for (int i = 0; i < count; i++) {
        run(blk, WRITE, cluster + i, 1, byte);
    }
}

/* Start a request, and have it held at the first request of @type that it sends to the file. */
static Request *start_held(BlockBackend *blk, Verb verb, int cluster, int count, int byte,
                           BdrvIoType type)
{
    Request *r;

    fault_hold_next(type);
    r = start(blk, verb, cluster, count, byte);
    AIO_WAIT_WHILE(!fault_hold.held);
    assert_false(r->done);
    return r;
}

/* All that can go on without the held request has gone on. */
static void settle(void)
{
    while (aio_poll(aio_context_main(), false)) {
    }
}

static void assert_clusters(BlockBackend *blk, int cluster, int count, int byte)
{
    g_autofree uint8_t *expected = g_malloc(count * CLUSTER);

    memset(expected, byte, count * CLUSTER);
    assert_reads(blk, cluster * CLUSTER, count * CLUSTER, expected);
}

/* Each of the clusters is all @a or all @b. */
static void assert_clusters_either(BlockBackend *blk, int cluster, int count, int a, int b)
{
    g_autofree uint8_t *seen = g_malloc(count * CLUSTER);

    assert_int_equal(blk_pread(blk, cluster * CLUSTER, count * CLUSTER, seen, 0), 0);
    for (int64_t i = 0; i < count * CLUSTER; i++) {
        assert_true(seen[i] == seen[i - i % CLUSTER] && (seen[i] == a || seen[i] == b));
    }
}

/* Close, and see that the image is whole and still has what it had. */
static BlockBackend *open_anew(BlockBackend *blk)
{
    blk_unref(blk);
    assert_disk_whole(true);
    return open_disk("");
}

static void end(BlockBackend *blk)
{
    blk_unref(blk);
    assert_disk_whole(true);
    bdrv_unref(disk);
}

/* ---- Places in use ---------------------------------------------------------------------- */

/*
 * A request to clusters 0 to 3 is held; @taker takes their places away, if it can; others
 * would get them. Then the request goes on.
 */
static void race(const char *options, Verb prepare, Verb held, BdrvIoType type, Verb taker)
{
    BlockBackend *blk;
    Request *first, *second, *flush;

    create_disk(SIZE, "cluster_size=4k");
    blk = open_disk(options);
    run(blk, WRITE, 0, 4, 'a');
    if (prepare != WRITE) {
        run(blk, prepare, 0, 4, 0);
    }
    run(blk, FLUSH, 0, 0, 0);
    run(blk, READ, 0, 4, 0); /* all tables are in memory */
    first = start_held(blk, held, 0, 4, 'h', type);
    second = start(blk, taker, 0, 4, 0);
    settle();
    flush = start(blk, FLUSH, 0, 0, 0); /* makes what was given up stable */
    settle();
    write_each(blk, 8, 8, 'o');
    fault_resume();
    AIO_WAIT_WHILE(!first->done);
    if (held == READ) { /* what was there, or what was made of it: nobody else's */
        for (int64_t i = 0; i < 4 * CLUSTER; i++) {
            assert_true(first->buf[i] == 'a' || first->buf[i] == 0);
        }
    }
    finish(first);
    finish(second);
    finish(flush);
    assert_clusters(blk, 8, 8, 'o');
    assert_clusters_either(blk, 0, 4, held == WRITE ? 'h' : 'a', 0);
    blk = open_anew(blk);
    assert_clusters(blk, 8, 8, 'o');
    assert_clusters_either(blk, 0, 4, held == WRITE ? 'h' : 'a', 0);
    end(blk);
}

static const char *const pass_discards[] = {"", ",pass-discard-request=on,pass-discard-other=on"};

/* Row: in-place write in flight, discard or unmapping zero-write frees its cluster. */
static void in_place_write_in_flight_and_its_cluster_is_freed(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(pass_discards); i++) {
        race(pass_discards[i], WRITE, WRITE, BDRV_IO_WRITE, DISCARD);
        race(pass_discards[i], WRITE, WRITE, BDRV_IO_WRITE, UNMAP);
    }
}

/* Row: the same against a read in flight. */
static void read_in_flight_and_its_cluster_is_freed(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(pass_discards); i++) {
        race(pass_discards[i], WRITE, READ, BDRV_IO_READ, DISCARD);
        race(pass_discards[i], WRITE, READ, BDRV_IO_READ, UNMAP);
    }
}

/* Row: first write of a zero cluster, with a place or without, against discard or zeroing. */
static void first_write_of_a_zero_cluster_against_discard_and_zeroing(void **state)
{
    static const Verb takers[] = {DISCARD, UNMAP, ZERO};

    for (size_t i = 0; i < G_N_ELEMENTS(pass_discards); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(takers); k++) {
            race(pass_discards[i], ZERO, WRITE, BDRV_IO_WRITE, takers[k]);
            race(pass_discards[i], UNMAP, WRITE, BDRV_IO_WRITE, takers[k]);
        }
    }
}

/* Row: late punch-hole hits a reallocated cluster. */
static void punch_in_flight_and_its_cluster_is_wanted_again(void **state)
{
    BlockBackend *blk;
    Request *flush;

    create_disk(SIZE, "cluster_size=4k");
    blk = open_disk(",pass-discard-request=on");
    run(blk, WRITE, 0, 4, 'a');
    run(blk, FLUSH, 0, 0, 0);
    run(blk, DISCARD, 0, 4, 0);
    flush = start_held(blk, FLUSH, 0, 0, 0, BDRV_IO_DISCARD);
    write_each(blk, 8, 8, 'o');
    write_each(blk, 0, 2, 'b');
    fault_resume();
    finish(flush);
    run(blk, FLUSH, 0, 0, 0);
    assert_clusters(blk, 0, 2, 'b');
    assert_clusters(blk, 2, 2, 0);
    assert_clusters(blk, 8, 8, 'o');
    blk = open_anew(blk);
    assert_clusters(blk, 0, 2, 'b');
    assert_clusters(blk, 8, 8, 'o');
    end(blk);
}

/* ---- Errors in the middle --------------------------------------------------------------- */

/* An image whose first clusters and L2 table are shared. */
static void create_shared_disk(void)
{
    g_autofree uint8_t *data = NULL;
    BlockBackend *blk;
    Image image;

    create_disk(SIZE, "cluster_size=4k");
    blk = open_disk("");
    run(blk, WRITE, 0, 8, 'a');
    blk_unref(blk);
    image = (Image){g_malloc(bdrv_getlength(disk)), bdrv_getlength(disk), 12};
    data = image.data;
    get_disk(0, image.size, image.data);
    share_clusters(&image);
    put_disk(0, image.size, image.data);
}

/* Row: live L2 table handed out by the allocator; failed allocation in the middle of moving it. */
static void failed_allocation_while_an_l2_table_moves(void **state)
{
    for (int n = 0; n < 2; n++) { /* of the data's cluster; of the table's */
        BlockBackend *blk;
        Request *failed;

        create_shared_disk();
        blk = open_disk("");
        fault_arm(n, -ENOSPC, false, FAULT_NOTHING_DONE);
        fault.only = BDRV_IO_TRUNCATE;
        failed = start(blk, WRITE, 1, 1, 'x');
        AIO_WAIT_WHILE(!failed->done);
        assert_int_equal(failed->ret, -ENOSPC);
        g_free(failed);
        fault_disarm();
        assert_clusters(blk, 0, 8, 'a');
        write_each(blk, 32, 16, 'o'); /* many places are given out */
        assert_clusters(blk, 0, 8, 'a');
        assert_clusters(blk, 32, 16, 'o');
        run(blk, WRITE, 1, 1, 'x');
        blk_unref(blk);
        assert_disk_whole(false);
        blk = open_disk("");
        assert_clusters(blk, 1, 1, 'x');
        assert_clusters(blk, 2, 6, 'a');
        assert_clusters(blk, 32, 16, 'o');
        blk_unref(blk);
        bdrv_unref(disk);
    }
}

/* Fill the disk in steps until a request fails, as was arranged. True if one has. */
static bool fill_until_failure(BlockBackend *blk, int64_t size, const uint8_t *data)
{
    int ret = 0;

    for (int64_t at = 0; at < size && ret == 0; at += 64 * KiB) {
        ret = blk_pwrite(blk, at, 64 * KiB, data + at, 0);
    }
    fault_disarm();
    assert_true(ret == 0 || ret == -EIO);
    assert_int_equal(fault.hit, ret < 0);
    return ret < 0;
}

/* Row: I/O error while the refcount table grows. */
static void io_error_while_the_refcount_table_grows(void **state)
{
    const int64_t size = 2304 * KiB; /* one cluster of the table describes 2 MiB */
    g_autofree uint8_t *data = pattern(size, 1);

    for (int i = 0; i < 4; i++) {
        bool failed = true;
        int n;

        for (n = 0; failed; n++) {
            BlockBackend *blk;

            create_disk(size, "cluster_size=512,refcount_bits=64");
            blk = open_disk(",refcount-cache-size=1M,l2-cache-size=1M");
            fault_arm(n, -EIO, true, i % 2 ? FAULT_ALL_DONE : FAULT_NOTHING_DONE);
            fault.only = i / 2 ? BDRV_IO_WRITE : BDRV_IO_FLUSH;
            fault.below = 512; /* nobody writes or flushes but who puts a new table in force */
            failed = fill_until_failure(blk, size, data);
            for (int64_t at = size - 4 * 512; at < size; at += 512) { /* where there is room */
                assert_int_equal(blk_pwrite(blk, at, 512, data + at, 0), 0);
            }
            blk_unref(blk);
            assert_disk_whole(false);
            blk = open_disk("");
            assert_int_equal(blk_pwrite(blk, 0, size, data, 0), 0);
            assert_reads(blk, 0, size, data);
            assert_int_equal(blk_flush(blk), 0);
            blk_unref(blk);
            assert_disk_whole(false);
            blk = open_disk("");
            assert_reads(blk, 0, size, data);
            blk_unref(blk);
            bdrv_unref(disk);
        }
        assert_true(n > 1);
    }
}

/* Row: refcount block allocated at offset 0. */
static void a_header_with_refcount_0_is_not_given_out(void **state)
{
    const uint8_t none[2] = {0};
    uint8_t before[CLUSTER], after[CLUSTER];
    BlockBackend *blk;

    create_disk(SIZE, "cluster_size=4k");
    put_disk(get_disk64(get_disk64(48)), sizeof(none), none);
    get_disk(0, sizeof(before), before);
    blk = open_disk("");
    write_each(blk, 0, CLUSTERS, 'a');
    assert_clusters(blk, 0, CLUSTERS, 'a');
    blk_unref(blk);
    get_disk(0, sizeof(after), after);
    assert_memory_equal(before, after, sizeof(before));
    bdrv_unref(disk);
}

/* The same: the table has no block where the header is, as if one were to be made there. */
static void a_refcount_table_without_a_first_block_is_refused(void **state)
{
    const uint8_t none[8] = {0};
    uint8_t before[CLUSTER], after[CLUSTER], buf[512] = {1};
    BlockBackend *blk;

    create_disk(SIZE, "cluster_size=4k");
    put_disk(get_disk64(48), sizeof(none), none);
    get_disk(0, sizeof(before), before);
    blk = open_disk("");
    assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), -EIO);
    blk_unref(blk);
    get_disk(0, sizeof(after), after);
    assert_true(after[79] & QCOW2_INCOMPAT_CORRUPT); /* that, and nothing else, is written */
    after[79] = before[79];
    assert_memory_equal(before, after, sizeof(before));
    bdrv_unref(disk);
}

/* ---- The header ------------------------------------------------------------------------- */

static bool disk_is_dirty(void)
{
    return get_disk64(72) & QCOW2_INCOMPAT_DIRTY;
}

/* Row: dirty bit cleared by the first of several users. */
static void the_dirty_bit_stays_until_the_last_user_goes(void **state)
{
    BlockBackend *first, *second;
    GError *err = NULL;

    create_disk(SIZE, "cluster_size=4k,lazy_refcounts=on");
    first = open_disk("");
    second = blk_new(NULL, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    assert_ok(blk_insert_bs(second, bdrv_find_node("image"), &err), err);
    run(first, WRITE, 0, 4, 'a');
    run(second, WRITE, 8, 4, 'b');
    run(second, FLUSH, 0, 0, 0);
    assert_true(disk_is_dirty());
    blk_unref(first);
    assert_true(disk_is_dirty());
    run(second, WRITE, 16, 4, 'c');
    run(second, FLUSH, 0, 0, 0);
    assert_true(disk_is_dirty());
    blk_unref(second);
    assert_false(disk_is_dirty());
    assert_disk_whole(true);
    first = open_disk("");
    assert_clusters(first, 0, 4, 'a');
    assert_clusters(first, 8, 4, 'b');
    assert_clusters(first, 16, 4, 'c');
    end(first);
}

/* Row: header rewritten on a read-only node. */
static void a_read_only_node_writes_nothing(void **state)
{
    static const char *const fixtures[] = {
        "dirty.qcow2", "features.qcow2", "bitmaps.qcow2", "v2.qcow2", "snapshots.qcow2",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(fixtures); i++) {
        Image image = load_fixture(fixtures[i]), copy = image;
        g_autofree uint8_t *before = g_memdup2(image.data, image.size), *after = NULL;
        g_autofree char *path = store_image(&copy);
        const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
        BlockBackend *blk;
        uint8_t buf[512];
        struct stat st;

        assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
        blk = open_qcow2(path, BDRV_O_NO_BACKING);
        assert_int_equal(blk_pread(blk, 0, sizeof(buf), buf, 0), 0);
        assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), -EPERM);
        assert_int_equal(blk_flush(blk), 0);
        blk_unref(blk);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mtim.tv_sec, 1000);
        after = load_file(path, image.size);
        assert_memory_equal(before, after, image.size);
    }
}

/* ---- Lazy refcounts --------------------------------------------------------------------- */

/*
 * Row: with lazy refcounts, the L2 table may reach the disk before data. The machine stops
 * after request @n: nothing more reaches the disk. False if there are not as many.
 */
static bool stop_after(int n)
{
    BlockBackend *blk;
    bool stopped;

    create_disk(SIZE, "cluster_size=4k,lazy_refcounts=on");
    blk = open_disk("");
    run(blk, WRITE, 0, 8, 'a');
    blk_unref(blk);
    blk = open_disk("");
    fault_arm(n, -EIO, false, FAULT_NOTHING_DONE);
    blk_pdiscard(blk, 0, 4 * CLUSTER);
    blk_flush(blk);
    for (int i = 16; i < 24; i++) {
        uint8_t buf[CLUSTER];

        memset(buf, 'o', sizeof(buf));
        blk_pwrite(blk, i * CLUSTER, sizeof(buf), buf, 0);
    }
    blk_flush(blk);
    stopped = fault.hit;
    blk_unref(blk);
    fault_disarm();
    blk = open_disk(""); /* repairs it */
    assert_clusters_either(blk, 0, 4, 'a', 0);
    assert_clusters(blk, 4, 4, 'a');
    assert_clusters_either(blk, 16, 8, 'o', 0);
    write_each(blk, 32, 16, 'n');
    assert_clusters_either(blk, 0, 4, 'a', 0);
    assert_clusters(blk, 4, 4, 'a');
    assert_clusters_either(blk, 16, 8, 'o', 0);
    blk_unref(blk);
    assert_disk_whole(false);
    bdrv_unref(disk);
    return stopped;
}

static void lazy_refcounts_never_show_a_third_partys_data(void **state)
{
    int n = 0;

    while (stop_after(n)) {
        n++;
    }
    assert_true(n > 10);
}

static int setup(void **state)
{
    GError *err = NULL;

    fault_discarded = 0xdd;
    return qcow2_group_setup(state) || !bdrv_register(&fault_driver, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_place_write_in_flight_and_its_cluster_is_freed),
        cmocka_unit_test(read_in_flight_and_its_cluster_is_freed),
        cmocka_unit_test(first_write_of_a_zero_cluster_against_discard_and_zeroing),
        cmocka_unit_test(punch_in_flight_and_its_cluster_is_wanted_again),
        cmocka_unit_test(failed_allocation_while_an_l2_table_moves),
        cmocka_unit_test(io_error_while_the_refcount_table_grows),
        cmocka_unit_test(a_header_with_refcount_0_is_not_given_out),
        cmocka_unit_test(a_refcount_table_without_a_first_block_is_refused),
        cmocka_unit_test(the_dirty_bit_stays_until_the_last_user_goes),
        cmocka_unit_test(a_read_only_node_writes_nothing),
        cmocka_unit_test(lazy_refcounts_never_show_a_third_partys_data),
    };

    return cmocka_run_group_tests_name("qcow2 hazards", tests, setup, driver_group_teardown);
}
