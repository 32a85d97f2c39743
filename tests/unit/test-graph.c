/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph: references, names, permissions, transactions, drained sections,
 * and how options and references are opened.
 */
#include <errno.h>

#include "block-testing.h"

static BlockBackend *blk_on(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    GError *err = NULL;
    BlockBackend *blk = blk_new(NULL, perm, shared, &err);
    bool ok = blk && blk_insert_bs(blk, bs, &err);

    assert_ok(ok, err);
    return blk;
}

static BlockDriverState *memory_node(const char *name)
{
    g_autofree char *text = g_strdup_printf("driver=memory,size=1M,node-name=%s", name);

    return open_node_with(text, BDRV_O_RDWR);
}

static BlockDriverState *raw_on(const char *name, const char *file)
{
    g_autofree char *text = g_strdup_printf("driver=raw,node-name=%s,file=%s", name, file);

    return open_node_with(text, BDRV_O_RDWR);
}

static BlockDriverState *child_of(BlockDriverState *bs, const char *name)
{
    BdrvChild *child;
    BlockDriverState *child_bs;

    bdrv_graph_rdlock_main_loop();
    child = bdrv_get_child(bs, name);
    child_bs = child ? bdrv_child_bs(child) : NULL;
    bdrv_graph_rdunlock_main_loop();
    return child_bs;
}

static void an_edge_holds_a_reference(void **state)
{
    BlockDriverState *file = memory_node("mem"), *raw = raw_on("top", "mem");

    assert_int_equal(bdrv_get_refcount(file), 2);
    assert_ptr_equal(child_of(raw, "file"), file);
    bdrv_unref(file);
    assert_ptr_equal(bdrv_find_node("mem"), file);
    bdrv_unref(raw);
    assert_null(bdrv_find_node("mem"));
    assert_null(bdrv_next_node(NULL));
}

static void node_names_are_unique_and_checked(void **state)
{
    BlockDriverState *bs = memory_node("mem");
    static const char *const bad[] = {"", "1st", "a/b", "#block1",
                                      "much-too-long-a-name-for-a-block-node"};
    GError *err = NULL;
    g_autoptr(JsonObject) options = json_object_new();

    json_object_set_string_member(options, "driver", "memory");
    json_object_set_string_member(options, "size", "1M");
    json_object_set_string_member(options, "node-name", "mem");
    assert_null(bdrv_open(NULL, options, 0, NULL, &err));
    assert_error_has(&err, "mem");
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        json_object_set_string_member(options, "node-name", bad[i]);
        assert_null(bdrv_open(NULL, options, 0, NULL, &err));
        assert_error_has(&err, "node-name");
    }
    bdrv_unref(bs);
}

static void unshared_permission_is_refused_naming_both_parents(void **state)
{
    BlockDriverState *bs = memory_node("mem");
    BlockBackend *owner = blk_on(bs, BLK_PERM_WRITE, BLK_PERM_CONSISTENT_READ);
    GError *err = NULL;
    BlockBackend *other = blk_new("other", BLK_PERM_WRITE, BLK_PERM_ALL, &err);

    assert_false(blk_insert_bs(other, bs, &err));
    assert_non_null(strstr(err->message, "an unnamed block device"));
    assert_error_has(&err, "'other'");
    assert_int_equal(bdrv_get_refcount(bs), 2);
    blk_unref(owner);
    assert_ok(blk_insert_bs(other, bs, &err), err);
    blk_unref(other);
    bdrv_unref(bs);
}

static void failed_set_perm_changes_nothing(void **state)
{
    BlockDriverState *bs = memory_node("mem");
    BlockBackend *a = blk_on(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_CONSISTENT_READ);
    BlockBackend *b = blk_on(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    uint64_t perm, shared;
    GError *err = NULL;

    assert_false(blk_set_perm(b, BLK_PERM_WRITE, BLK_PERM_ALL, &err));
    assert_error_has(&err, "write");
    blk_get_perm(b, &perm, &shared);
    assert_int_equal(perm, BLK_PERM_CONSISTENT_READ);
    assert_ok(blk_set_perm(a, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err), err);
    assert_ok(blk_set_perm(b, BLK_PERM_WRITE, BLK_PERM_ALL, &err), err);
    blk_unref(a);
    blk_unref(b);
    bdrv_unref(bs);
}

static void write_permission_on_a_read_only_node_is_refused(void **state)
{
    BlockDriverState *bs = open_node_with("driver=memory,size=1M,read-only=on", BDRV_O_RDWR);
    GError *err = NULL;
    BlockBackend *blk = blk_new(NULL, BLK_PERM_WRITE, BLK_PERM_ALL, &err);

    assert_true(bdrv_is_read_only(bs));
    assert_false(blk_insert_bs(blk, bs, &err));
    assert_error_has(&err, "read-only");
    blk_unref(blk);
    bdrv_unref(bs);
}

static void transaction_applies_all_or_nothing(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    BlockDriverState *ro = open_node_with("driver=memory,size=1M,node-name=ro,read-only=on", 0);
    BlockDriverState *raw1 = raw_on("raw1", "a"), *raw2 = raw_on("raw2", "a");
    BdrvTransaction *tran = bdrv_transaction_new();
    BlockBackend *blk = blk_on(raw2, BLK_PERM_WRITE, BLK_PERM_ALL);
    BdrvChild *edge1, *edge2;
    GError *err = NULL;

    bdrv_graph_rdlock_main_loop();
    edge1 = bdrv_get_child(raw1, "file");
    edge2 = bdrv_get_child(raw2, "file");
    bdrv_graph_rdunlock_main_loop();
    bdrv_transaction_replace_child(tran, edge1, b);
    bdrv_transaction_replace_child(tran, edge2, ro); /* it writes: not possible */
    assert_false(bdrv_transaction_commit(tran, &err));
    assert_error_has(&err, "read-only");
    assert_ptr_equal(child_of(raw1, "file"), a);
    assert_ptr_equal(child_of(raw2, "file"), a);
    assert_int_equal(bdrv_get_refcount(a), 3);
    assert_int_equal(bdrv_get_refcount(b), 1);
    assert_int_equal(bdrv_get_refcount(ro), 1);

    tran = bdrv_transaction_new();
    bdrv_transaction_replace_child(tran, edge1, b);
    bdrv_transaction_replace_child(tran, edge2, b);
    assert_ok(bdrv_transaction_commit(tran, &err), err);
    assert_ptr_equal(child_of(raw1, "file"), b);
    assert_ptr_equal(child_of(raw2, "file"), b);
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 3);
    blk_unref(blk);
    bdrv_unref(raw1);
    bdrv_unref(raw2);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(ro);
}

static void aborted_transaction_changes_nothing(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *raw = raw_on("raw1", "a");
    BdrvTransaction *tran = bdrv_transaction_new();

    bdrv_transaction_replace_node(tran, a, b);
    bdrv_transaction_abort(tran);
    assert_ptr_equal(child_of(raw, "file"), a);
    assert_int_equal(bdrv_get_refcount(b), 1);
    bdrv_unref(raw);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void replaced_node_is_reached_through_every_parent(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *raw = raw_on("raw1", "a");
    BlockBackend *blk = blk_on(a, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    GError *err = NULL;

    assert_ok(bdrv_replace_node(a, b, &err), err);
    assert_ptr_equal(child_of(raw, "file"), b);
    assert_ptr_equal(blk_bs(blk), b);
    assert_int_equal(bdrv_get_refcount(a), 1);
    blk_unref(blk);
    bdrv_unref(raw);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void node_put_on_top_keeps_its_own_edge(void **state)
{
    BlockDriverState *a = memory_node("a"), *raw = raw_on("raw1", "a");
    BlockBackend *blk = blk_on(a, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    GError *err = NULL;

    assert_ok(bdrv_replace_node(a, raw, &err), err);
    assert_ptr_equal(blk_bs(blk), raw);
    assert_ptr_equal(child_of(raw, "file"), a);
    blk_unref(blk);
    bdrv_unref(raw);
    bdrv_unref(a);
}

static void cycle_is_refused(void **state)
{
    BlockDriverState *a = memory_node("a"), *raw1 = raw_on("raw1", "a"), *raw2;
    BdrvTransaction *tran = bdrv_transaction_new();
    BdrvChild *edge;
    GError *err = NULL;

    raw2 = raw_on("raw2", "raw1");
    bdrv_graph_rdlock_main_loop();
    edge = bdrv_get_child(raw1, "file");
    bdrv_graph_rdunlock_main_loop();
    bdrv_transaction_replace_child(tran, edge, raw2);
    assert_false(bdrv_transaction_commit(tran, &err));
    assert_error_has(&err, "cycle");
    assert_ptr_equal(child_of(raw1, "file"), a);
    bdrv_unref(raw2);
    bdrv_unref(raw1);
    bdrv_unref(a);
}

static void changes_that_make_a_cycle_together_are_refused(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    BlockDriverState *raw1 = raw_on("raw1", "a"), *raw2 = raw_on("raw2", "b");
    BdrvTransaction *tran = bdrv_transaction_new();
    BdrvChild *edge1, *edge2;
    GError *err = NULL;

    bdrv_graph_rdlock_main_loop();
    edge1 = bdrv_get_child(raw1, "file");
    edge2 = bdrv_get_child(raw2, "file");
    bdrv_graph_rdunlock_main_loop();
    bdrv_transaction_replace_child(tran, edge1, raw2);
    bdrv_transaction_replace_child(tran, edge2, raw1);
    assert_false(bdrv_transaction_commit(tran, &err));
    assert_error_has(&err, "cycle");
    assert_ptr_equal(child_of(raw1, "file"), a);
    assert_ptr_equal(child_of(raw2, "file"), b);
    bdrv_unref(raw1);
    bdrv_unref(raw2);
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void note_result(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

static void graph_changes_inside_a_drained_section(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *raw = raw_on("raw1", "a");
    BlockBackend *blk = blk_on(raw, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
    char buf[512], pattern[512];
    GError *err = NULL;
    IOVector iov;
    int result = 1;

    memset(pattern, 7, sizeof(pattern));
    assert_int_equal(blk_pwrite(blk, 0, 512, pattern, 0), 0);
    bdrv_drained_begin(a);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &result);
    assert_ok(bdrv_replace_node(a, b, &err), err);
    while (result == 1 && aio_poll(aio_context_main(), false)) {
    }
    bdrv_drained_end(a);
    AIO_WAIT_WHILE(result == 1);
    assert_int_equal(result, 0);
    assert_int_equal(buf[0], 0); /* it went to the new node */
    blk_unref(blk);
    bdrv_unref(raw);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void new_node_starts_drained_inside_drain_all(void **state)
{
    BlockDriverState *a = memory_node("a"), *raw;
    BlockBackend *blk;
    char buf[512];
    IOVector iov;
    int result = 1;

    bdrv_drain_all_begin();
    raw = raw_on("raw1", "a");
    blk = blk_on(raw, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &result);
    while (aio_poll(aio_context_main(), false)) {
    }
    assert_int_equal(result, 1);
    bdrv_drain_all_end();
    AIO_WAIT_WHILE(result == 1);
    assert_int_equal(result, 0);
    blk_unref(blk);
    bdrv_unref(raw);
    bdrv_unref(a);
}

static void unknown_option_is_refused_by_name(void **state)
{
    g_autoptr(JsonObject) options = block_options_parse("driver=memory,size=1M,colour=red", NULL,
                                                        NULL);
    GError *err = NULL;

    assert_null(bdrv_open(NULL, options, 0, NULL, &err));
    assert_error_has(&err, "'colour'");
    assert_null(bdrv_next_node(NULL));
}

static void unknown_driver_is_refused_by_name(void **state)
{
    g_autoptr(JsonObject) options = block_options_parse("driver=vhd9", NULL, NULL);
    GError *err = NULL;

    assert_null(bdrv_open(NULL, options, 0, NULL, &err));
    assert_error_has(&err, "'vhd9'");
}

static void incomplete_driver_is_refused(void **state)
{
    static BlockDriver nameless, empty = {.format_name = "empty"};
    GError *err = NULL;

    assert_false(bdrv_register(&nameless, &err));
    assert_error_has(&err, "name");
    assert_false(bdrv_register(&empty, &err));
    assert_error_has(&err, "bdrv_open");
    empty.bdrv_open = bdrv_find_format("raw")->bdrv_open;
    assert_false(bdrv_register(&empty, &err));
    assert_error_has(&err, "bdrv_co_map");
    assert_null(bdrv_find_format("empty"));
}

static void json_filename_opens_what_the_options_open(void **state)
{
    GError *err = NULL;
    BlockDriverState *bs = bdrv_open(
        "json:{\"driver\":\"raw\",\"file.driver\":\"memory\",\"file.size\":\"2M\"}", NULL, 0,
        NULL, &err);

    assert_ok(bs != NULL, err);
    assert_int_equal(bdrv_getlength(bs), 2 << 20);
    assert_string_equal(bdrv_get_format_name(bs), "raw");
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_edge_holds_a_reference),
        cmocka_unit_test(node_names_are_unique_and_checked),
        cmocka_unit_test(unshared_permission_is_refused_naming_both_parents),
        cmocka_unit_test(failed_set_perm_changes_nothing),
        cmocka_unit_test(write_permission_on_a_read_only_node_is_refused),
        cmocka_unit_test(transaction_applies_all_or_nothing),
        cmocka_unit_test(aborted_transaction_changes_nothing),
        cmocka_unit_test(replaced_node_is_reached_through_every_parent),
        cmocka_unit_test(node_put_on_top_keeps_its_own_edge),
        cmocka_unit_test(cycle_is_refused),
        cmocka_unit_test(changes_that_make_a_cycle_together_are_refused),
        cmocka_unit_test(graph_changes_inside_a_drained_section),
        cmocka_unit_test(new_node_starts_drained_inside_drain_all),
        cmocka_unit_test(unknown_option_is_refused_by_name),
        cmocka_unit_test(unknown_driver_is_refused_by_name),
        cmocka_unit_test(incomplete_driver_is_refused),
        cmocka_unit_test(json_filename_opens_what_the_options_open),
    };

    return cmocka_run_group_tests(tests, blockgraph_group_setup, blockgraph_group_teardown);
}
