/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy-on-read: what is copied and what is not, against writes and other reads of the
 * same place that are held halfway, and where the copy cannot be written.
 */
#include "driver-testing.h"

#define CLUSTER 65536
#define CLUSTERS 16
#define SIZE (CLUSTERS * CLUSTER)
#define BASE_SIZE (10 * CLUSTER + 1000) /* shorter than the overlay */

/* ---- Images ------------------------------------------------------------------------------ */

/* What the base holds, with one cluster of zeros; and what the overlay reads as. */
static uint8_t *disk_data(void)
{
    uint8_t *data = g_malloc0(SIZE);
    g_autofree uint8_t *base = pattern(BASE_SIZE, 1);

    memcpy(data, base, BASE_SIZE);
    memset(data + 5 * CLUSTER, 0, CLUSTER);
    return data;
}

/* An empty overlay, made of @data, with a cluster of its own: the second. Its path. */
static char *make_overlay(uint8_t *data, const char *more)
{
    g_autofree char *base = make_file("base.raw", data, BASE_SIZE);
    g_autofree char *path = test_path("overlay.qcow2");
    g_autoptr(JsonObject) options =
        options_of("size=%d,backing_file=%s,backing_fmt=raw%s", SIZE, base, more);
    GError *err = NULL;
    BlockBackend *blk;

    assert_ok(bdrv_create(bdrv_find_format("qcow2"), path, options, &err), err);
    memset(data + CLUSTER, 0x77, CLUSTER);
    blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
                   BDRV_O_RDWR);
    assert_int_equal(blk_pwrite(blk, CLUSTER, CLUSTER, data + CLUSTER, 0), 0);
    blk_unref(blk);
    return g_steal_pointer(&path);
}

/* The overlay, below a filter or with its own flag, on blkdebug with @more options. */
static BlockBackend *open_copying(const char *path, bool filter, const char *more)
{
    const char *driver = filter ? "driver=copy-on-read,file." : "";
    const char *file = filter ? "file.file" : "file";

    return open_blk(options_of("%sdriver=qcow2,%s.driver=blkdebug,%s.node-name=debug,"
                               "%s.image.driver=file,%s.image.filename=%s%s", driver, file, file,
                               file, file, path, more),
                    BDRV_O_RDWR | BDRV_O_RESIZE | (filter ? 0 : BDRV_O_COPY_ON_READ));
}

/* The clusters that the overlay at @path holds itself, one letter each: d, z or "-". */
static void assert_holds(const char *path, const char *expected)
{
    BlockBackend *blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s",
                                            path), 0);
    BlockDriverState *base;
    BdrvCheckResult result;
    char holds[CLUSTERS + 1] = "";
    int64_t n;

    bdrv_graph_rdlock_main_loop();
    base = bdrv_backing_chain_next(blk_bs(blk));
    bdrv_graph_rdunlock_main_loop();
    for (int i = 0; i < CLUSTERS; i++) {
        int ret = bdrv_block_status_above(blk_bs(blk), base, i * CLUSTER, CLUSTER, &n, NULL, NULL,
                                          NULL);

        assert_int_equal(n, CLUSTER);
        holds[i] = ret & BDRV_BLOCK_DATA ? 'd' : ret & BDRV_BLOCK_ALLOCATED ? 'z' : '-';
    }
    assert_string_equal(holds, expected);
    assert_int_equal(bdrv_check(blk_bs(blk), &result, NULL, NULL), 0);
    assert_int_equal(result.corruptions + result.leaks, 0);
    blk_unref(blk);
}

/* ---- What is copied ------------------------------------------------------------------------ */

static void whole_clusters_are_copied_and_zeros_as_zeros(void **state)
{
    for (int filter = 0; filter < 2; filter++) {
        g_autofree uint8_t *data = disk_data();
        g_autofree char *path = make_overlay(data, "");
        BlockBackend *blk = open_copying(path, filter, "");

        assert_reads(blk, 100, 512, data + 100);
        assert_reads(blk, 3 * CLUSTER - 1, 2, data + 3 * CLUSTER - 1);
        assert_reads(blk, 5 * CLUSTER, CLUSTER, NULL);
        assert_reads(blk, 10 * CLUSTER + 900, 200, data + 10 * CLUSTER + 900); /* base's end */
        assert_reads(blk, 12 * CLUSTER, 1, NULL);
        blk_unref(blk);
        assert_holds(path, "dddd-z----d-z---");
        blk = open_copying(path, filter, "");
        assert_reads(blk, 0, SIZE, data);
        assert_reads(blk, 0, SIZE, data);
        blk_unref(blk);
        assert_holds(path, "dddddzdddddzzzzz");
    }
}

static void without_zero_clusters_zeros_are_copied_as_data(void **state)
{
    g_autofree uint8_t *data = disk_data();
    g_autofree char *path = make_overlay(data, ",compat=0.10");
    BlockBackend *blk = open_copying(path, true, "");

    assert_reads(blk, 5 * CLUSTER + 1, 1, NULL);
    blk_unref(blk);
    assert_holds(path, "-d---d----------");
}

/* The base of the base is below the bottom: what comes from there is only read. */
static void below_the_bottom_nothing_is_copied(void **state)
{
    static const char *const bottoms[] = {"middle", "top"};

    for (size_t i = 0; i < G_N_ELEMENTS(bottoms); i++) {
        g_autofree uint8_t *data = disk_data();
        g_autofree char *middle = make_overlay(data, "");
        g_autofree char *path = test_path("top.qcow2");
        g_autoptr(JsonObject) options =
            options_of("size=%d,backing_file=%s,backing_fmt=qcow2", SIZE, middle);
        BlockBackend *blk;
        GError *err = NULL;

        assert_ok(bdrv_create(bdrv_find_format("qcow2"), path, options, &err), err);
        blk = open_blk(options_of("driver=copy-on-read,bottom=%s,file.driver=qcow2,"
                                  "file.node-name=top,file.file.driver=file,"
                                  "file.file.filename=%s,file.backing.driver=qcow2,"
                                  "file.backing.node-name=middle,file.backing.file.driver=file,"
                                  "file.backing.file.filename=%s", bottoms[i], path, middle),
                       BDRV_O_RDWR);
        assert_reads(blk, 0, SIZE, data);
        blk_unref(blk);
        assert_holds(path, i == 0 ? "-d--------------" : "----------------");
    }
}

static void a_bottom_has_to_be_a_layer(void **state)
{
    g_autofree uint8_t *data = disk_data();
    g_autofree char *path = make_overlay(data, "");
    static const char *const wrong[][2] = {
        {"none", "Bottom node 'none' not found"},
        {"file", "Bottom node 'file' is no layer"},
        {"debug", "Bottom node 'debug' is a filter"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        assert_open_fails(options_of("driver=copy-on-read,bottom=%s,file.driver=qcow2,"
                                     "file.file.driver=blkdebug,file.file.node-name=debug,"
                                     "file.file.image.driver=file,file.file.image.node-name=file,"
                                     "file.file.image.filename=%s", wrong[i][0], path),
                          BDRV_O_RDWR, wrong[i][1]);
    }
    assert_open_fails(options_of("driver=copy-on-read,file.driver=qcow2,file.file.driver=file,"
                                 "file.file.filename=%s", path), 0, "is read-only");
    assert_open_fails(options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
                      BDRV_O_COPY_ON_READ, "Can't use copy-on-read on read-only device");
}

static void a_read_whose_copy_fails_fails(void **state)
{
    for (int filter = 0; filter < 2; filter++) {
        g_autofree uint8_t *data = disk_data();
        g_autofree char *path = make_overlay(data, "");
        g_autofree char *rule = g_strdup_printf(
            ",%s.inject-error.0.event=write_aio,%s.inject-error.0.errno=28,"
            "%s.inject-error.0.iotype=write", filter ? "file.file" : "file",
            filter ? "file.file" : "file", filter ? "file.file" : "file");
        BlockBackend *blk = open_copying(path, filter, rule);
        uint8_t byte;

        assert_int_equal(blk_pread(blk, 0, 1, &byte, 0), -ENOSPC);
        assert_reads(blk, CLUSTER, CLUSTER, data + CLUSTER); /* is there: nothing to write */
        blk_unref(blk);
        assert_holds(path, "-d--------------");
    }
}

/* ---- Requests that meet -------------------------------------------------------------------- */

typedef struct Request {
    uint8_t buf[CLUSTER];
    IOVector iov;
    int ret;
    bool done;
} Request;

static void request_done(void *opaque, int ret)
{
    Request *r = opaque;

    r->ret = ret;
    r->done = true;
}

static Request *start(BlockBackend *blk, bool write)
{
    Request *r = g_new0(Request, 1);

    memset(r->buf, 0x33, CLUSTER);
    io_vector_init_buf(&r->iov, r->buf, CLUSTER);
    if (write) {
        blk_aio_pwritev(blk, 0, &r->iov, 0, request_done, r);
    } else {
        blk_aio_preadv(blk, 0, &r->iov, 0, request_done, r);
    }
    return r;
}

static int debug(const char *command, const char *argument)
{
    return bdrv_find_format("blkdebug")->bdrv_debug_command(bdrv_find_node("debug"), command,
                                                            argument);
}

static bool is_held(const char *tag)
{
    return bdrv_find_format("blkdebug")->bdrv_debug_is_suspended(bdrv_find_node("debug"), tag);
}

/* Two requests for the first cluster: the second starts while one is held at @event. */
static void meet(BlockBackend *blk, const char *event, bool first_writes, bool second_writes,
                 Request **first, Request **second)
{
    g_autofree char *at = g_strdup_printf("%s A", event), *again = g_strdup_printf("%s B", event);

    assert_int_equal(debug("break", at), 0);
    *first = start(blk, first_writes);
    while (!is_held("A")) {
        aio_poll(aio_context_main(), true);
    }
    assert_int_equal(debug("break", again), 0);
    *second = start(blk, second_writes);
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_false((*first)->done || (*second)->done || is_held("B"));
    assert_int_equal(debug("resume", "A"), 0);
    if (second_writes) { /* comes to the event later; the other request has ended */
        AIO_WAIT_WHILE(!(*first)->done);
        debug("remove_break", "B");
    }
    AIO_WAIT_WHILE(!(*first)->done || !((*second)->done || is_held("B")));
    assert_false(is_held("B"));
    debug("remove_break", "B");
    assert_int_equal((*first)->ret, 0);
    assert_int_equal((*second)->ret, 0);
}

static void a_copy_puts_nothing_over_a_newer_write(void **state)
{
    for (int write_first = 0; write_first < 2; write_first++) {
        g_autofree uint8_t *data = disk_data(), *expected = g_malloc(CLUSTER);
        g_autofree char *path = make_overlay(data, "");
        BlockBackend *blk = open_copying(path, true, "");
        Request *first, *second;

        memset(expected, 0x33, CLUSTER);
        meet(blk, write_first ? "write_aio" : "cor_write", write_first, !write_first, &first,
             &second);
        assert_memory_equal((write_first ? second : first)->buf, write_first ? expected : data,
                            CLUSTER);
        assert_reads(blk, 0, CLUSTER, expected);
        blk_unref(blk);
        assert_holds(path, "dd--------------");
        g_free(first);
        g_free(second);
    }
}

static void two_readers_copy_once(void **state)
{
    g_autofree uint8_t *data = disk_data();
    g_autofree char *path = make_overlay(data, "");
    BlockBackend *blk = open_copying(path, true, "");
    Request *first, *second;

    meet(blk, "cor_write", false, false, &first, &second);
    assert_memory_equal(first->buf, data, CLUSTER);
    assert_memory_equal(second->buf, data, CLUSTER);
    blk_unref(blk);
    assert_holds(path, "dd--------------");
    g_free(first);
    g_free(second);
}

/* Requests that pass through go round what they must not: reads that are to copy. */
static void reads_that_pass_through_are_not_missed(void **state)
{
    g_autofree uint8_t *data = disk_data();
    g_autofree char *path = make_overlay(data, "");
    BlockBackend *blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s",
                                            path), BDRV_O_RDWR | BDRV_O_COPY_ON_READ);

    for (int i = 0; i < 3; i++) {
        Request *r = start(blk, false);

        AIO_WAIT_WHILE(!r->done);
        assert_int_equal(r->ret, 0);
        assert_memory_equal(r->buf, data, CLUSTER);
        g_free(r);
    }
    blk_unref(blk);
    assert_holds(path, "dd--------------");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_clusters_are_copied_and_zeros_as_zeros),
        cmocka_unit_test(without_zero_clusters_zeros_are_copied_as_data),
        cmocka_unit_test(below_the_bottom_nothing_is_copied),
        cmocka_unit_test(a_bottom_has_to_be_a_layer),
        cmocka_unit_test(a_read_whose_copy_fails_fails),
        cmocka_unit_test(a_copy_puts_nothing_over_a_newer_write),
        cmocka_unit_test(two_readers_copy_once),
        cmocka_unit_test(reads_that_pass_through_are_not_missed),
    };

    return cmocka_run_group_tests(tests, driver_group_setup, driver_group_teardown);
}
