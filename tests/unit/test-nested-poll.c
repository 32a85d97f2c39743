/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the main thread does while it waits: changing the graph polls, and what
 * runs then may itself send requests, change the graph, and let go of what is
 * being changed. Also what callbacks may do, and transactions whose changes
 * follow one another.
 */
#include <errno.h>

#include "block-testing.h"
#include "death.h"

/* ---- A callback in the middle of a change --------------------------------------------- */

typedef struct Visitor {
    void (*visit)(void *opaque);
    void *opaque;
    Coroutine *reader;
    bool visited;
} Visitor;

static void coroutine_fn hold_graph_lock(void *opaque)
{
    bdrv_graph_co_rdlock();
    coroutine_yield();
    bdrv_graph_co_rdunlock();
}

static void visit_bh(void *opaque)
{
    Visitor *v = opaque;

    coroutine_enter(v->reader);
    v->visit(v->opaque);
    v->visited = true;
}

/*
 * The next time that the graph lock is taken exclusively it has to wait for a
 * reader, who ends right before visit() runs: in the middle of the change.
 */
static void visit_next_change(Visitor *v)
{
    v->visited = false;
    v->reader = coroutine_create(hold_graph_lock, NULL);
    coroutine_enter(v->reader);
    aio_bh_oneshot(aio_context_main(), visit_bh, v);
}

/* ---- Helpers --------------------------------------------------------------------------- */

static BlockDriverState *memory_node(const char *name)
{
    g_autofree char *text = g_strdup_printf("driver=memory,size=1M,node-name=%s", name);

    return open_node_with(text, BDRV_O_RDWR);
}

static BlockDriverState *node_on(const char *driver, const char *name, const char *file)
{
    g_autofree char *text =
        g_strdup_printf("driver=%s,node-name=%s,file=%s", driver, name, file);

    return open_node_with(text, BDRV_O_RDWR);
}

static BlockBackend *blk_on(const char *name, BlockDriverState *bs)
{
    GError *err = NULL;
    BlockBackend *blk = blk_new(name, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
    bool ok = blk && (!bs || blk_insert_bs(blk, bs, &err));

    assert_ok(ok, err);
    return blk;
}

static BdrvChild *edge_of(BlockDriverState *bs, const char *name)
{
    BdrvChild *child;

    bdrv_graph_rdlock_main_loop();
    child = bdrv_get_child(bs, name);
    bdrv_graph_rdunlock_main_loop();
    return child;
}

static BlockDriverState *child_of(BlockDriverState *bs, const char *name)
{
    BdrvChild *child = edge_of(bs, name);
    BlockDriverState *child_bs;

    bdrv_graph_rdlock_main_loop();
    child_bs = child ? bdrv_child_bs(child) : NULL;
    bdrv_graph_rdunlock_main_loop();
    return child_bs;
}

/* A format with a backing file, which closes slowly. */
static bool format_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, 1 << 20);
    return bdrv_open_file_child(bs, options, errp);
}

static int coroutine_fn format_map(BlockDriverState *bs, const BdrvMapRequest *req,
                                   BdrvMapping *m)
{
    *m = (BdrvMapping){.offset = req->offset, .bytes = req->bytes};
    return 0;
}

static bool format_was_asked;

static int coroutine_fn format_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    co_sleep_ns(0);
    co_sleep_ns(0);
    format_was_asked = true;
    return 0;
}

static int coroutine_fn format_flush(BlockDriverState *bs)
{
    co_sleep_ns(0);
    co_sleep_ns(0);
    return 0;
}

static BlockDriver format_driver = {
    .format_name = "nested-format",
    .supports_backing = true,
    .bdrv_open = format_open,
    .bdrv_co_map = format_map,
    .bdrv_co_get_info = format_get_info,
    .bdrv_co_flush = format_flush,
};

/* ---- In the middle of a change ------------------------------------------------------------ */

static void read_it(void *opaque)
{
    char buf[512];

    assert_int_equal(blk_pread(opaque, 0, 512, buf, 0), 0);
    bdrv_drained_begin(blk_bs(opaque));
    bdrv_drained_end(blk_bs(opaque));
}

static void request_of_a_callback_does_not_wait_for_the_writer(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *c = memory_node("c");
    BlockBackend *blk = blk_on(NULL, a), *other = blk_on(NULL, c);
    Visitor v = {read_it, other};

    visit_next_change(&v);
    assert_true(bdrv_replace_node(a, b, NULL));
    assert_true(v.visited);
    assert_ptr_equal(blk_bs(blk), b);
    blk_unref(other);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(c);
}

static void drain_node(BlockBackend *blk)
{
    bdrv_drained_begin(blk_bs(blk));
    bdrv_drained_end(blk_bs(blk));
}

static void drain_all(BlockBackend *blk)
{
    bdrv_drain_all_begin();
    bdrv_drain_all_end();
}

static void (*drain)(BlockBackend *blk);

static void note_result(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

/* The request is held up by the writer, further up the stack. */
static void send_and_drain(void *opaque)
{
    char buf[512];
    IOVector iov;
    int result = 1;

    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(opaque, 0, &iov, 0, note_result, &result);
    drain(opaque);
    assert_int_equal(result, blk_bs(opaque) ? 0 : -ENOMEDIUM);
}

static void drain_of_a_callback_does_not_wait_for_the_writer(void **state)
{
    static const struct {
        void (*drain)(BlockBackend *blk);
        bool no_medium;
    } cases[] = {{drain_node}, {drain_all}, {blk_drain}, {blk_drain, true}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *c = memory_node("c");
        BlockBackend *other = blk_on(NULL, cases[i].no_medium ? NULL : c);
        Visitor v = {send_and_drain, other};

        drain = cases[i].drain;
        visit_next_change(&v);
        assert_true(bdrv_replace_node(a, b, NULL));
        assert_true(v.visited);
        blk_unref(other);
        bdrv_unref(a);
        bdrv_unref(b);
        bdrv_unref(c);
    }
}

/* The request is held back first by a drained section, then by the writer. */
static void send_and_let_go(void *opaque)
{
    BlockDriverState *bs = opaque;
    BlockBackend *blk = blk_on(NULL, bs);
    char buf[512];
    IOVector iov;
    int result = 1;

    bdrv_drained_begin(bs);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &result);
    blk_unref(blk);
    assert_int_equal(result, -ENOMEDIUM);
    bdrv_drained_end(bs);
}

static void last_reference_dropped_by_a_callback_does_not_wait_for_the_writer(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *c = memory_node("c");
    Visitor v = {send_and_let_go, c};

    visit_next_change(&v);
    assert_true(bdrv_replace_node(a, b, NULL));
    assert_true(v.visited);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(c);
}

static void back_to_a(void *opaque)
{
    assert_true(blk_replace_bs(opaque, bdrv_find_node("a"), NULL));
}

static void change_of_a_callback_goes_first(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *c = memory_node("c");
    BlockBackend *blk = blk_on(NULL, a), *other = blk_on(NULL, c);
    Visitor v = {back_to_a, other};

    visit_next_change(&v);
    assert_true(bdrv_replace_node(a, b, NULL));
    assert_true(v.visited);
    assert_ptr_equal(blk_bs(blk), b);
    assert_ptr_equal(blk_bs(other), a); /* it came to a after the change had begun */
    assert_int_equal(bdrv_get_refcount(c), 1);
    blk_unref(other);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(c);
}

static void revoke_it(void *opaque)
{
    blk_revoke(opaque);
}

static void medium_is_revoked_while_it_is_replaced(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    BlockBackend *blk = blk_on("disk0", a);
    Visitor v = {revoke_it, blk};
    GError *err = NULL;

    visit_next_change(&v);
    assert_false(blk_replace_bs(blk, b, &err));
    assert_error_has(&err, "root");
    assert_null(blk_bs(blk));
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void medium_is_revoked_while_it_is_put_in(void **state)
{
    BlockDriverState *a = memory_node("a");
    BlockBackend *blk = blk_on("disk0", NULL);
    Visitor v = {revoke_it, blk};
    GError *err = NULL;

    visit_next_change(&v);
    assert_false(blk_insert_bs(blk, a, &err));
    assert_error_has(&err, "revoked");
    assert_null(blk_bs(blk));
    assert_int_equal(bdrv_get_refcount(a), 1);
    blk_unref(blk);
    bdrv_unref(a);
}

static void insert_b(void *opaque)
{
    assert_true(blk_insert_bs(opaque, bdrv_find_node("b"), NULL));
}

static void first_of_two_media_stays(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    BlockBackend *blk = blk_on("disk0", NULL);
    Visitor v = {insert_b, blk};
    GError *err = NULL;

    visit_next_change(&v);
    assert_false(blk_insert_bs(blk, a, &err));
    assert_error_has(&err, "has a medium already");
    assert_ptr_equal(blk_bs(blk), b);
    assert_int_equal(bdrv_get_refcount(a), 1);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void remove_it(void *opaque)
{
    blk_remove_bs(opaque);
}

static void medium_goes_once(void **state)
{
    BlockDriverState *a = memory_node("a");
    BlockBackend *blk = blk_on("disk0", a);
    Visitor v = {remove_it, blk};

    visit_next_change(&v);
    blk_remove_bs(blk);
    assert_true(v.visited);
    assert_null(blk_bs(blk));
    assert_int_equal(bdrv_get_refcount(a), 1);
    blk_unref(blk);
    bdrv_unref(a);
}

static void a_becomes_b(void *opaque)
{
    assert_true(bdrv_replace_node(bdrv_find_node("a"), bdrv_find_node("b"), NULL));
}

static void edge_moves_while_it_is_detached(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    BlockDriverState *raw = node_on("raw", "top", "a");
    Visitor v = {a_becomes_b};

    visit_next_change(&v);
    bdrv_unref(raw);
    assert_true(v.visited);
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    bdrv_drained_begin(a); /* none is left drained, or let go twice */
    bdrv_drained_end(a);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void unref_it(void *opaque)
{
    bdrv_unref(opaque);
}

static void parent_closes_while_its_edge_is_to_be_changed(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    BlockDriverState *raw1 = node_on("raw", "raw1", "a"), *raw2 = node_on("raw", "raw2", "a");
    Visitor v = {unref_it, raw1};
    GError *err = NULL;

    visit_next_change(&v);
    assert_false(bdrv_replace_node(a, b, &err));
    assert_error_has(&err, "'file' went away");
    assert_ptr_equal(child_of(raw2, "file"), a);
    assert_int_equal(bdrv_get_refcount(a), 2);
    assert_int_equal(bdrv_get_refcount(b), 1);
    bdrv_unref(raw2);
    bdrv_unref(a);
    bdrv_unref(b);
}

/* A node "slow", and a raw node "raw1" on it if that is wanted. */
typedef struct SlowScene {
    BlockDriverState *f, *b, *slow, *raw1;
    BlockBackend *blk;
    int result;
} SlowScene;

static void slow_scene_begin(SlowScene *scene, bool with_raw)
{
    scene->f = memory_node("f");
    scene->b = memory_node("b");
    scene->slow = node_on("nested-format", "slow", "f");
    scene->raw1 = with_raw ? node_on("raw", "raw1", "slow") : NULL;
    scene->blk = blk_on(NULL, scene->slow);
}

/* Whoever drains the node next has to wait for a request; @visit runs meanwhile. */
static void visit_next_drain(SlowScene *scene, void (*visit)(void *opaque), void *opaque)
{
    blk_aio_flush(scene->blk, note_result, &scene->result);
    aio_bh_oneshot(aio_context_main(), visit, opaque);
}

static void slow_scene_end(SlowScene *scene)
{
    blk_unref(scene->blk);
    bdrv_unref(scene->slow);
    assert_int_equal(bdrv_get_refcount(scene->b), 1);
    bdrv_unref(scene->b);
    bdrv_unref(scene->f);
}

static void edge_goes_while_its_node_is_drained(void **state)
{
    BdrvTransaction *tran = bdrv_transaction_new();
    SlowScene scene;
    GError *err = NULL;

    slow_scene_begin(&scene, true);
    visit_next_drain(&scene, unref_it, scene.raw1);
    bdrv_transaction_replace_child(tran, edge_of(scene.raw1, "file"), scene.b);
    assert_null(bdrv_find_node("raw1"));
    assert_false(bdrv_transaction_commit(tran, &err));
    assert_error_has(&err, "'file' went away");
    slow_scene_end(&scene);
}

static void edge_goes_while_nodes_are_drained_to_be_replaced(void **state)
{
    SlowScene scene;

    slow_scene_begin(&scene, true);
    visit_next_drain(&scene, unref_it, scene.raw1);
    assert_true(bdrv_replace_node(scene.slow, scene.b, NULL));
    assert_null(bdrv_find_node("raw1"));
    assert_ptr_equal(blk_bs(scene.blk), scene.b);
    slow_scene_end(&scene);
}

static void take_backing_away(void *opaque)
{
    assert_true(bdrv_set_backing(opaque, NULL, NULL));
}

static void backing_goes_while_its_node_is_drained(void **state)
{
    BlockDriverState *a = memory_node("a");
    SlowScene scene;
    GError *err = NULL;
    bool ok;

    slow_scene_begin(&scene, false);
    ok = bdrv_set_backing(scene.slow, a, &err);
    assert_ok(ok, err);
    visit_next_drain(&scene, take_backing_away, scene.slow);
    ok = bdrv_set_backing(scene.slow, scene.b, &err);
    assert_ok(ok, err);
    assert_ptr_equal(child_of(scene.slow, "backing"), scene.b);
    assert_int_equal(bdrv_get_refcount(a), 1);
    slow_scene_end(&scene);
    bdrv_unref(a);
}

static void drain_it(void *opaque)
{
    assert_false(format_was_asked);
    bdrv_drained_begin(opaque);
    assert_true(format_was_asked);
    bdrv_drained_end(opaque);
}

static void draining_waits_for_a_question(void **state)
{
    SlowScene scene;
    BlockDriverInfo info;

    slow_scene_begin(&scene, false);
    format_was_asked = false;
    aio_bh_oneshot(aio_context_main(), drain_it, scene.slow);
    assert_int_equal(bdrv_get_info(scene.slow, &info), 0);
    slow_scene_end(&scene);
}

static void backing_goes_while_an_image_is_told_of(void **state)
{
    BlockDriverState *f = memory_node("f"), *slow = node_on("nested-format", "slow", "f");
    BlockDriverState *top = open_node_with("driver=nested-format,file=slow,"
                                           "backing.driver=memory,backing.node-name=base,"
                                           "backing.size=1M", 0);
    g_autoptr(BdrvImageInfo) info = NULL;

    aio_bh_oneshot(aio_context_main(), take_backing_away, top);
    info = bdrv_image_info(top, NULL);
    assert_null(child_of(top, "backing"));
    assert_int_equal(info->child_count, 2);
    assert_string_equal(bdrv_get_node_name(info->children[1].info->bs), "base");
    bdrv_unref(top);
    bdrv_unref(slow);
    bdrv_unref(f);
}

static void look_for_it(void *opaque)
{
    assert_null(bdrv_find_node("top"));
    *(bool *)opaque = true;
}

static void node_that_closes_is_found_no_more(void **state)
{
    BlockDriverState *a = memory_node("a"), *top = node_on("nested-format", "top", "a");
    bool looked = false;

    aio_bh_oneshot(aio_context_main(), look_for_it, &looked);
    bdrv_unref(top);
    assert_true(looked);
    bdrv_unref(a);
}

/* ---- Callbacks ------------------------------------------------------------------------------- */

typedef struct Device {
    BlockBackend *blk;
    BlockDriverState *spare;
    int changes, begun, ended;
} Device;

static void revoke_on_change(void *opaque, bool inserted)
{
    Device *dev = opaque;

    dev->changes++;
    blk_revoke(dev->blk);
}

static void device_revokes_when_its_medium_changes(void **state)
{
    static const BlockDevOps ops = {.change_media = revoke_on_change};
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    Device dev = {.blk = blk_on("disk0", a)};

    blk_set_dev_ops(dev.blk, &ops, &dev);
    assert_true(blk_replace_bs(dev.blk, b, NULL));
    assert_null(blk_bs(dev.blk));
    assert_int_equal(dev.changes, 2); /* it came, and went */
    blk_unref(dev.blk);
    assert_int_equal(bdrv_get_refcount(b), 1);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void insert_on_removal(void *opaque, bool inserted)
{
    Device *dev = opaque;

    dev->changes++;
    if (!inserted) {
        blk_insert_bs(dev->blk, dev->spare, NULL);
    }
}

static void device_that_goes_gets_no_other_medium(void **state)
{
    static const BlockDevOps ops = {.change_media = insert_on_removal};
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    Device dev = {.blk = blk_on("disk0", a), .spare = b};

    blk_set_dev_ops(dev.blk, &ops, &dev);
    blk_remove_bs(dev.blk);
    assert_ptr_equal(blk_bs(dev.blk), b);
    blk_unref(dev.blk);
    assert_int_equal(dev.changes, 3);
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void note_begin(void *opaque)
{
    ((Device *)opaque)->begun++;
}

static void note_end(void *opaque)
{
    ((Device *)opaque)->ended++;
}

static void device_that_comes_while_drained_is_told(void **state)
{
    static const BlockDevOps ops = {.drained_begin = note_begin, .drained_end = note_end};
    BlockDriverState *a = memory_node("a");
    Device dev = {.blk = blk_on("disk0", a)};

    bdrv_drained_begin(a);
    blk_set_dev_ops(dev.blk, &ops, &dev);
    assert_int_equal(dev.begun, 1);
    bdrv_drained_end(a);
    assert_int_equal(dev.begun, 1);
    assert_int_equal(dev.ended, 1);
    blk_unref(dev.blk);
    bdrv_unref(a);
}

static void drain_and_unref(void *opaque, int ret)
{
    Device *dev = opaque;

    assert_int_equal(ret, 0);
    assert_false(in_coroutine());
    blk_drain(dev->blk);
    blk_unref(dev->blk);
    dev->changes++;
}

static void completion_may_drain_and_let_go(void **state)
{
    BlockDriverState *a = memory_node("a");
    Device dev = {.blk = blk_on("disk0", a)};
    char buf[512];
    IOVector iov;

    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(dev.blk, 0, &iov, 0, drain_and_unref, &dev);
    AIO_WAIT_WHILE(dev.changes == 0);
    assert_null(blk_by_name("disk0"));
    bdrv_unref(a);
}

static void drop_blk(void *opaque, int ret)
{
    blk_unref(opaque);
}

/* Nodes that were made after the one that is waited for, and go with it. */
static void image_goes_while_all_nodes_are_drained(void **state)
{
    BlockDriverState *top = open_node_with("driver=raw,node-name=top,file.driver=memory,"
                                           "file.node-name=below,file.size=1M", 0);
    BlockBackend *blk = blk_on(NULL, top);

    assert_ptr_equal(bdrv_next_node(top), bdrv_find_node("below"));
    bdrv_unref(top);
    blk_aio_flush(blk, drop_blk, blk);
    bdrv_drain_all_begin();
    assert_null(bdrv_next_node(NULL));
    bdrv_drain_all_end();
}

static void draining_waits_for_the_callback(void **state)
{
    BlockDriverState *a = memory_node("a");
    BlockBackend *blk = blk_on(NULL, a);
    char buf[512];
    IOVector iov;
    int result = 1;

    io_vector_init_buf(&iov, buf, sizeof(buf));
    blk_aio_preadv(blk, 0, &iov, 0, note_result, &result);
    blk_drain(blk);
    assert_int_equal(result, 0);
    blk_unref(blk);
    bdrv_unref(a);
}

static void last_reference_waits_for_what_was_held_back(void **state)
{
    BlockDriverState *a = memory_node("a");
    BlockBackend *blk = blk_on("disk0", a);
    char buf[512];
    IOVector iov;
    int results[3] = {1, 1, 1};

    bdrv_drained_begin(a);
    io_vector_init_buf(&iov, buf, sizeof(buf));
    for (int i = 0; i < 3; i++) {
        blk_aio_preadv(blk, 0, &iov, 0, note_result, &results[i]);
    }
    blk_unref(blk);
    assert_null(blk_by_name("disk0"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(results[i], -ENOMEDIUM);
    }
    bdrv_drained_end(a);
    bdrv_unref(a);
}

static void made_up_node_name_is_no_backend_s(void **state)
{
    BlockDriverState *first = open_node_with("driver=memory,size=1M", 0), *second;
    unsigned number = g_ascii_strtoull(bdrv_get_node_name(first) + strlen("#block"), NULL, 10);
    g_autofree char *next = g_strdup_printf("#block%03u", number + 1);
    BlockBackend *blk = blk_on(next, NULL);

    second = open_node_with("driver=memory,size=1M", 0);
    assert_string_not_equal(bdrv_get_node_name(second), next);
    bdrv_unref(first);
    bdrv_unref(second);
    blk_unref(blk);
}

/* ---- Changes that follow one another in a transaction ---------------------------------------- */

static void same_edge_is_changed_twice(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *c = memory_node("c");
    BlockDriverState *raw = node_on("raw", "top", "a");
    BdrvTransaction *tran = bdrv_transaction_new();
    GError *err = NULL;
    bool ok;

    bdrv_transaction_replace_child(tran, edge_of(raw, "file"), b);
    bdrv_transaction_replace_child(tran, edge_of(raw, "file"), c);
    ok = bdrv_transaction_commit(tran, &err);
    assert_ok(ok, err);
    assert_ptr_equal(child_of(raw, "file"), c);
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    assert_int_equal(bdrv_get_refcount(c), 2);
    bdrv_unref(raw);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(c);
}

static void edge_that_moved_meanwhile_stays_there(void **state)
{
    static const BlockDevOps ops = {.drained_begin = note_begin, .drained_end = note_end};
    BlockDriverState *a = memory_node("a"), *b = memory_node("b"), *c = memory_node("c");
    BlockDriverState *raw = node_on("raw", "top", "a");
    BdrvTransaction *tran = bdrv_transaction_new();
    Device dev = {.blk = blk_on("disk0", raw)};
    GError *err = NULL;

    blk_set_dev_ops(dev.blk, &ops, &dev);
    bdrv_transaction_replace_child(tran, edge_of(raw, "file"), b);
    assert_true(bdrv_replace_node(a, c, NULL));
    assert_false(bdrv_transaction_commit(tran, &err));
    assert_error_has(&err, "something else");
    assert_ptr_equal(child_of(raw, "file"), c);
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    assert_int_equal(bdrv_get_refcount(c), 2);
    assert_true(dev.begun > 0);
    assert_int_equal(dev.begun, dev.ended); /* no longer drained */
    blk_unref(dev.blk);
    bdrv_unref(raw);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(c);
}

/* @commit: then the backing file at the end is @expected; else nothing has changed. */
static void backing_comes_and_goes(const char *const *backings, bool commit, const char *expected)
{
    BlockDriverState *f = memory_node("f"), *a = memory_node("a"), *b = memory_node("b");
    BlockDriverState *top = node_on("nested-format", "top", "f");
    BdrvTransaction *tran = bdrv_transaction_new();
    BlockDriverState *backing;
    GError *err = NULL;

    for (; *backings; backings++) {
        bdrv_transaction_set_backing(tran, top, bdrv_find_node(*backings)); /* "-": none */
    }
    if (commit) {
        bool ok = bdrv_transaction_commit(tran, &err);

        assert_ok(ok, err);
    } else {
        bdrv_transaction_replace_child(tran, edge_of(top, "file"), top); /* not possible */
        assert_false(bdrv_transaction_commit(tran, &err));
        assert_error_has(&err, "cycle");
    }
    backing = child_of(top, "backing");
    assert_string_equal(backing ? bdrv_get_node_name(backing) : "-", expected);
    bdrv_drained_begin(top);
    bdrv_drained_end(top);
    bdrv_unref(top);
    assert_int_equal(bdrv_get_refcount(a), 1);
    assert_int_equal(bdrv_get_refcount(b), 1);
    bdrv_unref(f);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void backing_is_set_and_unset_in_any_order(void **state)
{
    backing_comes_and_goes((const char *[]){"a", "b", NULL}, true, "b");
    backing_comes_and_goes((const char *[]){"a", "b", NULL}, false, "-");
    backing_comes_and_goes((const char *[]){"a", "-", NULL}, true, "-");
    backing_comes_and_goes((const char *[]){"a", "-", NULL}, false, "-");
    backing_comes_and_goes((const char *[]){"a", "-", "b", NULL}, true, "b");
    backing_comes_and_goes((const char *[]){"a", "b", "-", "a", NULL}, false, "-");
}

static void backing_that_is_drained_quiesces_what_is_above(void **state)
{
    static const BlockDevOps ops = {.drained_begin = note_begin, .drained_end = note_end};
    BlockDriverState *f = memory_node("f"), *a = memory_node("a");
    BlockDriverState *top = node_on("nested-format", "top", "f");
    Device dev = {.blk = blk_on("disk0", top)};

    blk_set_dev_ops(dev.blk, &ops, &dev);
    bdrv_drained_begin(a);
    assert_true(bdrv_set_backing(top, a, NULL));
    assert_int_equal(dev.begun, dev.ended + 1);
    assert_true(bdrv_set_backing(top, NULL, NULL));
    assert_int_equal(dev.begun, dev.ended);
    bdrv_drained_end(a);
    blk_unref(dev.blk);
    bdrv_unref(top);
    bdrv_unref(f);
    bdrv_unref(a);
}

static void later_change_may_build_on_an_earlier_one(void **state)
{
    BlockDriverState *f = memory_node("f"), *g = memory_node("g");
    BlockDriverState *a = node_on("nested-format", "a", "f");
    BlockDriverState *b = node_on("nested-format", "b", "g");
    BdrvTransaction *tran = bdrv_transaction_new();
    GError *err = NULL;
    bool ok = bdrv_set_backing(a, b, &err);

    assert_ok(ok, err);
    bdrv_transaction_set_backing(tran, a, NULL);
    bdrv_transaction_set_backing(tran, b, a);
    ok = bdrv_transaction_commit(tran, &err);
    assert_ok(ok, err);
    assert_null(child_of(a, "backing"));
    assert_ptr_equal(child_of(b, "backing"), a);
    bdrv_unref(b);
    bdrv_unref(a);
    bdrv_unref(f);
    bdrv_unref(g);
}

static void edge_that_goes_in_a_transaction_leads_nowhere_after(void **state)
{
    BlockDriverState *f = memory_node("f"), *a = memory_node("a"), *b = memory_node("b");
    BlockDriverState *top = node_on("nested-format", "top", "f");
    BdrvTransaction *tran;
    GError *err = NULL;

    assert_true(bdrv_set_backing(top, a, NULL));
    tran = bdrv_transaction_new();
    bdrv_transaction_set_backing(tran, top, NULL);
    bdrv_transaction_replace_child(tran, edge_of(top, "backing"), b);
    assert_false(bdrv_transaction_commit(tran, &err));
    assert_error_has(&err, "'backing'");
    assert_ptr_equal(child_of(top, "backing"), a);
    bdrv_unref(top);
    bdrv_unref(f);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void driver_without_backing_files_gets_none(void **state)
{
    BlockDriverState *a = memory_node("a"), *b = memory_node("b");
    BlockDriverState *raw = node_on("raw", "top", "a");
    GError *err = NULL;

    assert_false(bdrv_set_backing(raw, b, &err));
    assert_error_has(&err, "'raw' of node 'top'");
    assert_null(child_of(raw, "backing"));
    bdrv_unref(raw);
    bdrv_unref(a);
    bdrv_unref(b);
}

/* An edge to a node with force-share shares all; elsewhere it does not. */
static void edge_that_moves_shares_what_it_shares_there(void **state)
{
    BlockDriverState *a = open_node_with("driver=memory,size=1M,node-name=a,force-share=on", 0);
    BlockDriverState *b = memory_node("b");
    BlockDriverState *top = open_node_with("driver=nested-format,file=a", 0);
    BlockBackend *blk = blk_new(NULL, BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    GError *err = NULL;
    bool ok = bdrv_replace_node(a, b, &err);

    assert_ok(ok, err);
    assert_false(blk_insert_bs(blk, b, &err));
    assert_error_has(&err, "write");
    blk_unref(blk);
    bdrv_unref(top);
    bdrv_unref(a);
    bdrv_unref(b);
}

static int setup(void **state)
{
    return blockgraph_group_setup(state) == 0 && bdrv_register(&format_driver, NULL) ? 0 : -1;
}

/* ---- What ends the program ------------------------------------------------------------------ */

static void assert_exclusive(void *opaque)
{
    bdrv_graph_assert_writable();
}

static void changing_while_the_writer_only_waits(void)
{
    Visitor v = {assert_exclusive};

    setup(NULL);
    visit_next_change(&v);
    bdrv_graph_wrlock();
    bdrv_graph_wrunlock();
}

static void waiting_while_holding_the_lock(void)
{
    setup(NULL);
    memory_node("a");
    bdrv_graph_wrlock();
    bdrv_drain_all_begin();
    bdrv_graph_wrunlock();
}

static const DeathCase deaths[] = {
    DIES(changing_while_the_writer_only_waits, "graph lock: not held exclusively"),
    DIES(waiting_while_holding_the_lock, "while it is held exclusively"),
};

static void misuse_of_the_lock_ends_the_program(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_of_a_callback_does_not_wait_for_the_writer),
        cmocka_unit_test(drain_of_a_callback_does_not_wait_for_the_writer),
        cmocka_unit_test(
            last_reference_dropped_by_a_callback_does_not_wait_for_the_writer),
        cmocka_unit_test(change_of_a_callback_goes_first),
        cmocka_unit_test(medium_is_revoked_while_it_is_replaced),
        cmocka_unit_test(medium_is_revoked_while_it_is_put_in),
        cmocka_unit_test(first_of_two_media_stays),
        cmocka_unit_test(medium_goes_once),
        cmocka_unit_test(edge_moves_while_it_is_detached),
        cmocka_unit_test(parent_closes_while_its_edge_is_to_be_changed),
        cmocka_unit_test(edge_goes_while_its_node_is_drained),
        cmocka_unit_test(edge_goes_while_nodes_are_drained_to_be_replaced),
        cmocka_unit_test(backing_goes_while_its_node_is_drained),
        cmocka_unit_test(draining_waits_for_a_question),
        cmocka_unit_test(backing_goes_while_an_image_is_told_of),
        cmocka_unit_test(node_that_closes_is_found_no_more),
        cmocka_unit_test(device_revokes_when_its_medium_changes),
        cmocka_unit_test(device_that_goes_gets_no_other_medium),
        cmocka_unit_test(device_that_comes_while_drained_is_told),
        cmocka_unit_test(completion_may_drain_and_let_go),
        cmocka_unit_test(image_goes_while_all_nodes_are_drained),
        cmocka_unit_test(draining_waits_for_the_callback),
        cmocka_unit_test(last_reference_waits_for_what_was_held_back),
        cmocka_unit_test(made_up_node_name_is_no_backend_s),
        cmocka_unit_test(same_edge_is_changed_twice),
        cmocka_unit_test(edge_that_moved_meanwhile_stays_there),
        cmocka_unit_test(backing_is_set_and_unset_in_any_order),
        cmocka_unit_test(backing_that_is_drained_quiesces_what_is_above),
        cmocka_unit_test(later_change_may_build_on_an_earlier_one),
        cmocka_unit_test(edge_that_goes_in_a_transaction_leads_nowhere_after),
        cmocka_unit_test(driver_without_backing_files_gets_none),
        cmocka_unit_test(edge_that_moves_shares_what_it_shares_there),
        cmocka_unit_test(misuse_of_the_lock_ends_the_program),
    };

    death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return cmocka_run_group_tests(tests, setup, blockgraph_group_teardown);
}
