/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The null drivers: sizes, zeros on request, latency, and when they complete.
 */
#include "driver-testing.h"

static const char *const drivers[] = {"null-co", "null-aio"};

static void size_is_1_gib_unless_given(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        BlockBackend *blk = open_blk(options_of("driver=%s", drivers[i]), 0);

        assert_int_equal(blk_getlength(blk), 1 << 30);
        blk_unref(blk);
        blk = open_blk(options_of("driver=%s,size=1000", drivers[i]), 0);
        assert_int_equal(blk_getlength(blk), 1024);
        blk_unref(blk);
    }
}

static void bad_options_are_refused(void **state)
{
    assert_open_fails(options_of("driver=null-co,latency-ns=-3"), 0, "latency-ns is invalid");
    assert_open_fails(options_of("driver=null-co,latency-ns=soon"), 0, "latency-ns");
    assert_open_fails(options_of("driver=null-co,size=9223372036854775807"), 0, "size");
    assert_open_fails(options_of("driver=null-co,filename=x"), 0, "filename");
}

static void only_the_bare_filename_is_allowed(void **state)
{
    GError *err = NULL;
    BlockBackend *blk;

    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        g_autofree char *good = g_strconcat(drivers[i], "://", NULL);
        g_autofree char *bad = g_strconcat(drivers[i], ":foo", NULL);

        blk = blk_new_open(good, NULL, BDRV_O_PROTOCOL, NULL, &err);
        assert_ok(blk != NULL, err);
        assert_string_equal(bdrv_get_filename(blk_bs(blk)), good);
        blk_unref(blk);
        assert_null(blk_new_open(bad, NULL, BDRV_O_PROTOCOL, NULL, &err));
        assert_error_has(&err, "The only allowed filename for this driver is");
    }
}

static void reads_leave_the_memory_unless_zeros_are_asked_for(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        BlockBackend *blk = open_blk(options_of("driver=%s", drivers[i]), BDRV_O_RDWR);
        uint8_t buf[1024];

        memset(buf, 0x77, sizeof(buf));
        assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), 0);
        assert_int_equal(blk_pread(blk, 0, sizeof(buf), buf, 0), 0);
        assert_int_equal(buf[1023], 0x77);
        assert_int_equal(blk_flush(blk), 0);
        blk_unref(blk);
        blk = open_blk(options_of("driver=%s,read-zeroes=on", drivers[i]), BDRV_O_RDWR);
        assert_int_equal(blk_pwrite(blk, 0, sizeof(buf), buf, 0), 0);
        assert_reads(blk, 0, 4096, NULL);
        assert_status(blk, 0, 1 << 30, BDRV_BLOCK_ZERO);
        assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), 0);
        blk_unref(blk);
    }
}

static void nothing_is_known_of_the_content_without_read_zeroes(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=null-co"), 0);

    assert_status(blk, 0, 1 << 30, 0);
    blk_unref(blk);
}

/* ---- When a request completes --------------------------------------------------------- */

typedef struct Probe {
    BlockBackend *blk;
    uint8_t buf[512];
    bool entered;
    bool done;
    int64_t took;
} Probe;

static void coroutine_fn probe_entry(void *opaque)
{
    Probe *p = opaque;
    int64_t start = aio_now(aio_context_current());

    p->entered = true;
    assert_int_equal(blk_co_pread(p->blk, 0, sizeof(p->buf), p->buf, 0), 0);
    p->took = aio_now(aio_context_current()) - start;
    p->done = true;
}

static Probe run_probe(const char *options, bool at_once)
{
    Probe p = {.blk = open_blk(options_of("%s", options), 0)};

    coroutine_enter(coroutine_create(probe_entry, &p));
    assert_true(p.entered);
    assert_int_equal(p.done, at_once);
    AIO_WAIT_WHILE(!p.done);
    blk_unref(p.blk);
    return p;
}

static void null_co_completes_at_once_and_null_aio_in_a_later_turn(void **state)
{
    run_probe("driver=null-co", true);
    run_probe("driver=null-aio", false);
}

static void a_request_takes_at_least_its_latency(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        g_autofree char *options = g_strdup_printf("driver=%s,latency-ns=2000000", drivers[i]);

        assert_true(run_probe(options, false).took >= 2000000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_is_1_gib_unless_given),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(only_the_bare_filename_is_allowed),
        cmocka_unit_test(reads_leave_the_memory_unless_zeros_are_asked_for),
        cmocka_unit_test(nothing_is_known_of_the_content_without_read_zeroes),
        cmocka_unit_test(null_co_completes_at_once_and_null_aio_in_a_later_turn),
        cmocka_unit_test(a_request_takes_at_least_its_latency),
    };

    return cmocka_run_group_tests_name("null", tests, blockgraph_group_setup,
                                       blockgraph_group_teardown);
}
