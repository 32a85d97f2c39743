/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Backends: life, names, media that change, and revoking. One test for each
 * thing that a user of a backend relies on.
 */
#include "block-testing.h"

static BlockBackend *new_blk(const char *name)
{
    GError *err = NULL;
    BlockBackend *blk = blk_new(name, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL,
                                &err);

    assert_ok(blk != NULL, err);
    return blk;
}

static BlockDriverState *new_medium(void)
{
    return open_node_with("driver=memory,size=1M", BDRV_O_RDWR);
}

static int insert(BlockBackend *blk, BlockDriverState *bs)
{
    GError *err = NULL;
    bool ok = blk_insert_bs(blk, bs, &err);

    assert_ok(ok, err);
    return 0;
}

static void taken_name_is_refused_and_nothing_leaks(void **state)
{
    BlockBackend *blk = new_blk("disk0");
    GError *err = NULL;

    assert_null(blk_new("disk0", 0, BLK_PERM_ALL, &err));
    assert_error_has(&err, "disk0");
    assert_ptr_equal(blk_next(NULL), blk);
    assert_null(blk_next(blk));
    blk_unref(blk);
}

static void empty_name_is_refused(void **state)
{
    GError *err = NULL;

    assert_null(blk_new("", 0, BLK_PERM_ALL, &err));
    assert_error_has(&err, "empty");
}

static void name_of_a_node_is_refused(void **state)
{
    BlockDriverState *bs = open_node_with("driver=memory,size=1M,node-name=n0", 0);
    GError *err = NULL;

    assert_null(blk_new("n0", 0, BLK_PERM_ALL, &err));
    assert_error_has(&err, "n0");
    bdrv_unref(bs);
}

static void last_unref_destroys_and_null_is_accepted(void **state)
{
    BlockBackend *blk = new_blk("disk0");

    assert_ptr_equal(blk_ref(blk), blk);
    assert_int_equal(blk_get_refcount(blk), 2);
    blk_unref(blk);
    assert_ptr_equal(blk_by_name("disk0"), blk);
    blk_unref(blk);
    assert_null(blk_by_name("disk0"));
    blk_unref(NULL);
}

static void backends_are_listed_in_order_and_found_by_name(void **state)
{
    BlockBackend *a = new_blk("b"), *hidden = new_blk(NULL), *b = new_blk("a");

    assert_string_equal(blk_name(a), "b");
    assert_string_equal(blk_name(hidden), "");
    assert_ptr_equal(blk_next(NULL), a);
    assert_ptr_equal(blk_next(a), b);
    assert_null(blk_next(b));
    assert_ptr_equal(blk_by_name("a"), b);
    assert_null(blk_by_name("c"));
    blk_unref(hidden);
    blk_unref(a);
    assert_ptr_equal(blk_next(NULL), b);
    blk_unref(b);
}

static void without_a_medium_there_is_enomedium(void **state)
{
    BlockBackend *blk = new_blk("disk0");
    char buf[512];

    assert_false(blk_is_available(blk));
    assert_int_equal(blk_getlength(blk), -ENOMEDIUM);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), -ENOMEDIUM);
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), -ENOMEDIUM);
    assert_int_equal(blk_flush(blk), -ENOMEDIUM);
    blk_unref(blk);
}

typedef struct MediaLog {
    int inserted;
    int removed;
} MediaLog;

static void note_media(void *opaque, bool inserted)
{
    MediaLog *log = opaque;

    if (inserted) {
        log->inserted++;
    } else {
        log->removed++;
    }
}

static void media_change_under_a_backend_that_stays(void **state)
{
    static const BlockDevOps ops = {.change_media = note_media};
    BlockBackend *blk = new_blk("cd0");
    BlockDriverState *one = new_medium(), *two = new_medium();
    MediaLog log = {0};
    GError *err = NULL;
    char buf[512];

    blk_set_dev_ops(blk, &ops, &log);
    insert(blk, one);
    memset(buf, 1, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), 0);
    assert_false(blk_insert_bs(blk, two, &err));
    assert_error_has(&err, "cd0");
    assert_true(blk_replace_bs(blk, two, &err));
    assert_ptr_equal(blk_bs(blk), two);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), 0);
    assert_int_equal(buf[0], 0);
    blk_remove_bs(blk);
    blk_remove_bs(blk);
    assert_null(blk_bs(blk));
    insert(blk, one);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), 0);
    assert_int_equal(buf[0], 1);
    assert_int_equal(log.inserted, 3);
    assert_int_equal(log.removed, 1);
    blk_set_dev_ops(blk, NULL, NULL);
    assert_int_equal(bdrv_get_refcount(one), 2);
    assert_int_equal(bdrv_get_refcount(two), 1);
    blk_unref(blk);
    assert_int_equal(bdrv_get_refcount(one), 1);
    bdrv_unref(one);
    bdrv_unref(two);
}

static void revoking_takes_the_medium_and_leaves_the_handle(void **state)
{
    BlockBackend *blk = new_blk("disk0");
    BlockDriverState *bs = new_medium();
    GError *err = NULL;
    char buf[512];

    insert(blk, bs);
    blk_revoke(blk);
    assert_true(blk_is_revoked(blk));
    assert_null(blk_bs(blk));
    assert_int_equal(bdrv_get_refcount(bs), 1);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), -ENOMEDIUM);
    assert_int_equal(blk_get_refcount(blk), 1);
    assert_false(blk_insert_bs(blk, bs, &err));
    assert_error_has(&err, "revoked");
    blk_revoke(blk);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void revoked_name_is_free_and_a_namesake_is_never_touched(void **state)
{
    BlockBackend *old = new_blk("disk0"), *namesake;
    BlockDriverState *bs = new_medium();
    char buf[512];

    blk_revoke(old);
    assert_string_equal(blk_name(old), "");
    assert_null(blk_by_name("disk0"));
    namesake = new_blk("disk0");
    insert(namesake, bs);
    blk_revoke(old);
    blk_unref(old);
    assert_ptr_equal(blk_by_name("disk0"), namesake);
    assert_int_equal(blk_get_refcount(namesake), 1);
    assert_int_equal(blk_pread(namesake, 0, 512, buf, 0), 0);
    blk_unref(namesake);
    bdrv_unref(bs);
}

static void requests_outside_of_the_medium_fail(void **state)
{
    BlockBackend *blk = new_blk(NULL);
    BlockDriverState *bs = new_medium();
    char buf[512] = {0};

    insert(blk, bs);
    assert_int_equal(blk_getlength(blk), 1 << 20);
    assert_int_equal(blk_pread(blk, (1 << 20) - 512, 512, buf, 0), 0);
    assert_int_equal(blk_pread(blk, (1 << 20) - 511, 512, buf, 0), -EIO);
    assert_int_equal(blk_pread(blk, -1, 512, buf, 0), -EIO);
    assert_int_equal(blk_pwrite(blk, 1 << 20, 512, buf, 0), -EIO);
    assert_int_equal(blk_pwrite_zeroes(blk, INT64_MAX - 511, 512, 0), -EIO);
    assert_int_equal(blk_pdiscard(blk, 512, INT64_MAX), -EIO);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void writing_without_the_permission_fails(void **state)
{
    GError *err = NULL;
    BlockBackend *blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
    BlockDriverState *bs = new_medium();
    char buf[512] = {0};

    insert(blk, bs);
    assert_false(blk_is_writable(blk));
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), -EPERM);
    assert_ok(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, &err),
              err);
    assert_int_equal(blk_pwrite(blk, 0, 512, buf, 0), 0);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void count_completion(void *opaque, int ret)
{
    int *count = opaque;

    assert_int_equal(ret, 0);
    ++*count;
}

static void callback_comes_once_and_after_the_call(void **state)
{
    BlockBackend *blk = new_blk(NULL);
    BlockDriverState *bs = new_medium();
    char buf[512];
    IOVector iov;
    int count = 0;

    insert(blk, bs);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 0, &iov, 0, count_completion, &count);
    assert_int_equal(count, 0);
    AIO_WAIT_WHILE(count == 0);
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_int_equal(count, 1);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void note_result(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

static void drained_backend_holds_requests_back_until_the_end(void **state)
{
    BlockBackend *blk = new_blk(NULL);
    BlockDriverState *bs = new_medium();
    char buf[512];
    IOVector iov;
    int held = 1, cancelled = 1;
    BlockAIOCB *acb;

    insert(blk, bs);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    bdrv_drained_begin(bs);
    bdrv_drained_begin(bs);
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &held);
    acb = blk_aio_preadv(blk, 0, &iov, 0, note_result, &cancelled);
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_int_equal(held, 1);
    blk_aio_cancel(acb);
    AIO_WAIT_WHILE(cancelled == 1);
    assert_int_equal(cancelled, -ECANCELED);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), 0); /* the section's own */
    bdrv_drained_end(bs);
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_int_equal(held, 1);
    bdrv_drained_end(bs);
    AIO_WAIT_WHILE(held == 1);
    assert_int_equal(held, 0);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void request_held_back_while_the_medium_goes_gets_enomedium(void **state)
{
    BlockBackend *blk = new_blk("disk0");
    BlockDriverState *bs = new_medium();
    char buf[512];
    IOVector iov;
    int result = 1;

    insert(blk, bs);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    bdrv_drained_begin(bs);
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &result);
    blk_revoke(blk);
    bdrv_drained_end(bs);
    AIO_WAIT_WHILE(result == 1);
    assert_int_equal(result, -ENOMEDIUM);
    blk_unref(blk);
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_name_is_refused_and_nothing_leaks),
        cmocka_unit_test(empty_name_is_refused),
        cmocka_unit_test(name_of_a_node_is_refused),
        cmocka_unit_test(last_unref_destroys_and_null_is_accepted),
        cmocka_unit_test(backends_are_listed_in_order_and_found_by_name),
        cmocka_unit_test(without_a_medium_there_is_enomedium),
        cmocka_unit_test(media_change_under_a_backend_that_stays),
        cmocka_unit_test(revoking_takes_the_medium_and_leaves_the_handle),
        cmocka_unit_test(revoked_name_is_free_and_a_namesake_is_never_touched),
        cmocka_unit_test(requests_outside_of_the_medium_fail),
        cmocka_unit_test(writing_without_the_permission_fails),
        cmocka_unit_test(callback_comes_once_and_after_the_call),
        cmocka_unit_test(drained_backend_holds_requests_back_until_the_end),
        cmocka_unit_test(request_held_back_while_the_medium_goes_gets_enomedium),
    };

    return cmocka_run_group_tests(tests, blockgraph_group_setup, blockgraph_group_teardown);
}
