/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening: read-only and back, cache modes, children that follow, several nodes
 * together or not at all, and what drivers are asked.
 */
#include "driver-testing.h"
#include "toy-format.h"

/* ---- A driver that notes what it is asked ----------------------------------------------- */

static GString *notes;
static const char *refuser; /* name of the node whose prepare fails */
static void (*in_prepare)(BlockDriverState *bs);

typedef struct NoteFormat {
    int64_t number; /* an option that can be changed */
} NoteFormat;

static bool note_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    NoteFormat *n = bdrv_state(bs);

    if (!bdrv_open_file_child(bs, options, errp) ||
        !block_options_take_int(options, "number", &n->number, errp)) {
        return false;
    }
    json_object_remove_member(options, "fixed");
    bdrv_set_length(bs, 4096);
    return true;
}

static bool note_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    const char *name = bdrv_get_node_name(state->bs);
    NoteFormat *n = bdrv_state(state->bs);
    int64_t number = n->number;

    g_string_append_printf(notes, "prepare %s %s, ", name,
                           state->flags & BDRV_O_RDWR ? "rw" : "ro");
    if (in_prepare) {
        in_prepare(state->bs);
    }
    if (g_strcmp0(name, refuser) == 0) {
        block_error_set(errp, EINVAL, "%s refuses", name);
        return false;
    }
    if (!block_options_take_int(options, "number", &number, errp)) {
        return false;
    }
    state->opaque = GINT_TO_POINTER((int)number);
    return true;
}

static void note_commit(BdrvReopenState *state)
{
    NoteFormat *n = bdrv_state(state->bs);

    assert_int_equal(bdrv_is_writable(state->bs), !!(state->flags & BDRV_O_RDWR));
    n->number = GPOINTER_TO_INT(state->opaque);
    g_string_append_printf(notes, "commit %s, ", bdrv_get_node_name(state->bs));
}

static void note_abort(BdrvReopenState *state)
{
    assert_int_equal(bdrv_is_writable(state->bs), !!(state->old_flags & BDRV_O_RDWR));
    g_string_append_printf(notes, "abort %s, ", bdrv_get_node_name(state->bs));
}

static int coroutine_fn note_map(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    bdrv_graph_assert_readable();
    *m = (BdrvMapping){.bytes = 4096, .target = BDRV_MAP_DATA, .child = bdrv_file_child(bs),
                       .writable = true};
    return 0;
}

static BlockDriver note_driver = {
    .format_name = "note",
    .instance_size = sizeof(NoteFormat),
    .supports_backing = true,
    .bdrv_open = note_open,
    .bdrv_reopen_prepare = note_prepare,
    .bdrv_reopen_commit = note_commit,
    .bdrv_reopen_abort = note_abort,
    .bdrv_co_map = note_map,
};

/* A format without hooks, and one like the toy that agrees. */
static BlockDriver plain_driver, agreeing_toy;

static void assert_notes(const char *expected)
{
    assert_string_equal(notes->str, expected);
    g_string_truncate(notes, 0);
}

/* ---- Helpers ---------------------------------------------------------------------------- */

static bool reopen_with(BlockDriverState *bs, const char *text, GError **errp)
{
    g_autoptr(JsonObject) options = options_of("%s", text);

    return bdrv_reopen(bs, options, errp);
}

static void assert_reopens(BlockDriverState *bs, const char *text)
{
    GError *err = NULL;
    bool ok = reopen_with(bs, text, &err);

    assert_ok(ok, err);
}

static void assert_reopen_fails(BlockDriverState *bs, const char *text, const char *part)
{
    GError *err = NULL;

    assert_false(reopen_with(bs, text, &err));
    assert_error_has(&err, part);
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

/* A backend that reads @bs, and writes if @perm says so; takes @bs's reference. */
static BlockBackend *blk_on(BlockDriverState *bs, uint64_t perm)
{
    BlockBackend *blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ | perm, BLK_PERM_ALL, NULL);
    GError *err = NULL;
    bool ok = blk_insert_bs(blk, bs, &err);

    assert_ok(ok, err);
    bdrv_unref(bs);
    return blk;
}

/* The status flags of our descriptors of @path, which must be @count. */
static int descriptor_flags(const char *path, int count)
{
    int flags = 0;

    for (int fd = 0; fd < 256; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (g_strcmp0(target, path) == 0) {
            flags = fcntl(fd, F_GETFL);
            count--;
        }
    }
    assert_int_equal(count, 0);
    return flags;
}

static void assert_write(BlockBackend *blk, int64_t offset, int byte, int expected)
{
    uint8_t buf[512];

    memset(buf, byte, sizeof(buf));
    assert_int_equal(blk_pwrite(blk, offset, sizeof(buf), buf, 0), expected);
}

static void assert_byte(BlockBackend *blk, int64_t offset, int byte)
{
    uint8_t buf[512], expected[512];

    memset(expected, byte, sizeof(expected));
    assert_int_equal(blk_pread(blk, offset, sizeof(buf), buf, 0), 0);
    assert_memory_equal(buf, expected, sizeof(buf));
}

/* ---- Read-only and back ----------------------------------------------------------------- */

static void file_below_a_format_becomes_writable_with_it_and_read_only_again(void **state)
{
    g_autofree char *path = make_file("ro-rw", NULL, 64 * 1024);
    g_autofree char *text = g_strdup_printf("driver=raw,file.driver=file,file.filename=%s", path);
    BlockDriverState *bs = open_node_with(text, 0);
    BlockBackend *blk = blk_on(bs, 0);
    GError *err = NULL;

    assert_int_equal(descriptor_flags(path, 1) & O_ACCMODE, O_RDONLY);
    assert_false(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, &err));
    assert_error_has(&err, "read-only");
    assert_reopens(bs, "read-only=off");
    assert_false(bdrv_is_read_only(bs));
    assert_false(bdrv_is_read_only(child_of(bs, "file")));
    assert_true(bdrv_get_open_flags(bs) & BDRV_O_RDWR);
    assert_int_equal(descriptor_flags(path, 1) & O_ACCMODE, O_RDWR);
    assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, NULL));
    assert_write(blk, 1024, 'x', 0);
    assert_reopen_fails(bs, "read-only=on", "read-only"); /* there is a writer */
    assert_write(blk, 2048, 'y', 0);
    assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL));
    assert_true(bdrv_reopen_set_read_only(bs, true, NULL));
    assert_int_equal(descriptor_flags(path, 1) & O_ACCMODE, O_RDONLY);
    assert_write(blk, 1024, 'z', -EPERM);
    assert_byte(blk, 1024, 'x');
    assert_byte(blk, 2048, 'y');
    blk_unref(blk);
}

static void driver_without_a_hook_becomes_read_only_but_not_writable(void **state)
{
    BlockDriverState *bs = open_node_with("driver=plain,file.driver=memory,file.size=4k",
                                          BDRV_O_RDWR);

    assert_reopens(bs, "read-only=on");
    assert_true(bdrv_is_read_only(bs) && bdrv_is_read_only(child_of(bs, "file")));
    assert_reopen_fails(bs, "read-only=off", "Driver 'plain'");
    assert_true(bdrv_is_read_only(bs) && bdrv_is_read_only(child_of(bs, "file")));
    bdrv_unref(bs);
}

static void retired_places_are_given_back_before_a_format_is_read_only(void **state)
{
    BlockDriverState *bs = open_node_with("driver=toy,file.driver=memory,file.size=32k",
                                          BDRV_O_RDWR | BDRV_O_UNMAP);
    uint64_t rw = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
    ToyFormat *t = bdrv_state(bs);
    BlockBackend *blk = blk_on(bs, BLK_PERM_WRITE);

    assert_write(blk, 0, 'a', 0);
    assert_write(blk, TOY_UNIT, 'b', 0);
    assert_int_equal(blk_pdiscard(blk, 0, TOY_UNIT), 0);
    assert_int_equal(t->released, 0);
    assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL));
    assert_reopens(bs, "read-only=on");
    assert_int_equal(t->released, 1);
    assert_byte(blk, TOY_UNIT, 'b');
    assert_byte(blk, 0, 0);
    assert_reopens(bs, "read-only=off");
    assert_true(blk_set_perm(blk, rw, BLK_PERM_ALL, NULL));
    assert_write(blk, TOY_UNIT, 'c', 0);
    assert_byte(blk, TOY_UNIT, 'c');
    blk_unref(blk);
}

static void what_was_cached_before_is_forgotten(void **state)
{
    BlockDriverState *bs = open_node_with("driver=toy,file.driver=memory,file.size=32k",
                                          BDRV_O_RDWR);
    ToyFormat *t = bdrv_state(bs);
    BlockBackend *blk = blk_on(bs, BLK_PERM_WRITE);

    assert_write(blk, 0, 'a', 0);
    assert_byte(blk, 0, 'a'); /* cached as writable */
    t->shared[0] = true;      /* what a format may find out at a reopen */
    assert_reopens(bs, "discard=unmap");
    assert_write(blk, 0, 'b', 0);
    assert_int_equal(t->commits, 2);
    blk_unref(blk);
}

static void failed_flush_leaves_the_node_writable(void **state)
{
    BlockDriverState *bs = open_node_with("driver=blkdebug,image.driver=memory,image.size=4k,"
                                          "inject-error.0.event=none,inject-error.0.iotype=flush,"
                                          "inject-error.0.once=on,inject-error.0.errno=28",
                                          BDRV_O_RDWR);
    BlockBackend *blk = blk_on(bs, 0);

    assert_reopen_fails(bs, "read-only=on", "No space left");
    assert_false(bdrv_is_read_only(bs) || bdrv_is_read_only(child_of(bs, "image")));
    assert_true(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, NULL));
    assert_write(blk, 0, 'a', 0);
    assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL));
    assert_reopens(bs, "read-only=on"); /* the error was for once */
    blk_unref(blk);
}

/* ---- Who follows ------------------------------------------------------------------------ */

static void child_that_options_name_as_a_node_does_not_follow(void **state)
{
    BlockDriverState *file = open_node_with("driver=memory,size=4k,node-name=own", BDRV_O_RDWR);
    BlockDriverState *bs = open_node_with("driver=raw,file=own", BDRV_O_RDWR);

    assert_reopens(bs, "read-only=on");
    assert_true(bdrv_is_read_only(bs));
    assert_false(bdrv_is_read_only(file));
    assert_reopen_fails(bs, "file.read-only=on", "Cannot change the option 'file'");
    bdrv_unref(bs);
    bdrv_unref(file);
}

static void own_option_of_a_child_stands_and_a_backing_file_stays_read_only(void **state)
{
    BlockDriverState *bs = open_node_with("driver=note,node-name=top,file.driver=memory,"
                                          "file.size=4k,file.read-only=off,"
                                          "backing.driver=note,backing.node-name=base,"
                                          "backing.file.driver=memory,backing.file.size=4k",
                                          0);

    assert_false(bdrv_is_read_only(child_of(bs, "file")));
    assert_reopens(bs, "cache.direct=on,read-only=off");
    assert_notes("prepare top rw, prepare base ro, commit base, commit top, ");
    assert_true(bdrv_get_open_flags(child_of(bs, "backing")) & BDRV_O_NOCACHE);
    assert_true(bdrv_is_read_only(child_of(bs, "backing")));
    assert_reopens(bs, "read-only=on");
    assert_false(bdrv_is_read_only(child_of(bs, "file")));
    g_string_truncate(notes, 0);
    assert_reopens(child_of(bs, "backing"), "read-only=off");
    assert_notes("prepare base rw, commit base, ");
    assert_reopens(bs, "read-only=off");
    assert_reopens(bs, "read-only=on"); /* the backing file's own option stands */
    assert_false(bdrv_is_read_only(child_of(bs, "backing")));
    g_string_truncate(notes, 0);
    bdrv_unref(bs);
}

static void options_of_a_child_go_to_it(void **state)
{
    BlockDriverState *bs = open_node_with("driver=raw,file.driver=memory,file.size=4k",
                                          BDRV_O_RDWR);

    assert_reopens(bs, "file.discard=off,file.cache.no-flush=on");
    assert_false(bdrv_get_open_flags(child_of(bs, "file")) & BDRV_O_UNMAP);
    assert_true(bdrv_get_open_flags(child_of(bs, "file")) & BDRV_O_NO_FLUSH);
    assert_false(bdrv_get_open_flags(bs) & BDRV_O_NO_FLUSH);
    bdrv_unref(bs);
}

/* ---- Options ---------------------------------------------------------------------------- */

static void driver_changes_what_it_can_and_no_more(void **state)
{
    BlockDriverState *bs = open_node_with("driver=note,node-name=n,number=1,fixed=a,"
                                          "file.driver=memory,file.size=4k", BDRV_O_RDWR);
    NoteFormat *n = bdrv_state(bs);

    assert_reopens(bs, "number=7,driver=note,node-name=n,fixed=a");
    assert_int_equal(n->number, 7);
    assert_notes("prepare n rw, commit n, ");
    assert_reopen_fails(bs, "number=8,fixed=b", "Cannot change the option 'fixed' of node 'n'");
    assert_notes("prepare n rw, abort n, ");
    assert_int_equal(n->number, 7);
    assert_reopen_fails(bs, "driver=raw", "Cannot change the option 'driver'");
    assert_reopen_fails(bs, "node-name=m", "Cannot change the option 'node-name'");
    assert_reopen_fails(bs, "detect-zeroes=unmap", "setting detect-zeroes to unmap");
    assert_reopen_fails(bs, "force-share=on", "force-share=on can only be used");
    assert_reopen_fails(bs, "read-only=perhaps", "perhaps");
    assert_false(bdrv_is_read_only(bs));
    g_string_truncate(notes, 0);
    bdrv_unref(bs);
}

/* ---- Several together ------------------------------------------------------------------- */

static BlockDriverState *note_node(const char *name, int flags)
{
    g_autofree char *text = g_strdup_printf("driver=note,node-name=%s,file.driver=memory,"
                                            "file.size=4k", name);

    return open_node_with(text, flags);
}

static bool reopen_all_read_only(BlockDriverState **nodes, int n, GError **errp)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new();
    g_autoptr(JsonObject) options = options_of("read-only=on");

    for (int i = 0; i < n; i++) {
        bdrv_reopen_queue_add(queue, nodes[i], options);
    }
    return bdrv_reopen_queue_commit(queue, errp);
}

static void whichever_node_refuses_all_stay_as_they_were(void **state)
{
    BlockDriverState *nodes[] = {note_node("a", BDRV_O_RDWR), note_node("b", BDRV_O_RDWR),
                                 note_node("c", BDRV_O_RDWR)};
    static const char *const names[] = {"a", "b", "c"};
    GError *err = NULL;

    for (int i = 0; i < 3; i++) {
        refuser = names[i];
        assert_false(reopen_all_read_only(nodes, 3, &err));
        assert_error_has(&err, "refuses");
        assert_int_equal(!!strstr(notes->str, "commit"), false);
        for (int j = 0; j < 3; j++) {
            assert_false(bdrv_is_read_only(nodes[j]) ||
                         bdrv_is_read_only(child_of(nodes[j], "file")));
        }
    }
    refuser = NULL;
    g_string_truncate(notes, 0);
    assert_true(reopen_all_read_only(nodes, 3, &err));
    for (int i = 0; i < 3; i++) {
        assert_true(bdrv_is_read_only(nodes[i]));
        bdrv_unref(nodes[i]);
    }
    g_string_truncate(notes, 0);
}

static void conflict_of_permissions_at_one_takes_all_back(void **state)
{
    BlockDriverState *nodes[] = {note_node("a", BDRV_O_RDWR), note_node("b", BDRV_O_RDWR)};
    BlockBackend *blk = blk_on(bdrv_ref(nodes[1]), BLK_PERM_WRITE);
    GError *err = NULL;

    assert_false(reopen_all_read_only(nodes, 2, &err));
    assert_error_has(&err, "Block node 'b'");
    assert_true(strstr(notes->str, "abort a") && strstr(notes->str, "abort b"));
    assert_false(bdrv_is_read_only(nodes[0]) || bdrv_is_read_only(nodes[1]));
    assert_write(blk, 0, 'a', 0);
    g_string_truncate(notes, 0);
    blk_unref(blk);
    bdrv_unref(nodes[0]);
    bdrv_unref(nodes[1]);
}

static void parents_prepare_first_whatever_the_order_in_the_queue(void **state)
{
    BlockDriverState *base = note_node("base", BDRV_O_RDWR);
    BlockDriverState *top = open_node_with("driver=note,node-name=top,file=base", BDRV_O_RDWR);
    BlockDriverState *nodes[] = {base, top, base};

    assert_true(reopen_all_read_only(nodes, 3, NULL));
    assert_notes("prepare top ro, prepare base ro, commit base, commit top, ");
    bdrv_unref(top);
    bdrv_unref(base);
}

static void abandoned_queue_changes_nothing(void **state)
{
    BlockDriverState *bs = note_node("a", BDRV_O_RDWR);
    BdrvReopenQueue *queue = bdrv_reopen_queue_new();
    g_autoptr(JsonObject) options = options_of("read-only=on");

    bdrv_reopen_queue_add(queue, bs, options);
    bdrv_reopen_queue_abort(queue);
    assert_false(bdrv_is_read_only(bs));
    assert_notes("");
    bdrv_unref(bs);
}

static void reopen_inside(BlockDriverState *bs)
{
    assert_reopen_fails(bs, "read-only=on", "being reopened already");
}

static void node_is_reopened_once_at_a_time(void **state)
{
    BlockDriverState *bs = note_node("a", BDRV_O_RDWR);

    in_prepare = reopen_inside;
    assert_reopens(bs, "read-only=on");
    in_prepare = NULL;
    assert_notes("prepare a ro, commit a, ");
    bdrv_unref(bs);
}

/* ---- Files ------------------------------------------------------------------------------ */

static void direct_cache_mode_is_another_descriptor_with_its_alignment(void **state)
{
    g_autofree char *path = make_file("direct", NULL, 64 * 1024);
    g_autofree char *text = g_strdup_printf("driver=raw,file.driver=file,file.filename=%s", path);
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    BlockBackend *blk = blk_on(bs, BLK_PERM_WRITE);

    if (fd >= 0) {
        close(fd);
        assert_write(blk, 512, 'a', 0);
        assert_reopens(bs, "cache.direct=on");
        assert_true(descriptor_flags(path, 1) & O_DIRECT);
        assert_true(bdrv_get_limits(child_of(bs, "file"))->request_alignment >= 512);
        assert_true(bdrv_get_limits(bs)->min_mem_alignment > 1);
        assert_write(blk, 1024, 'b', 0);
        assert_byte(blk, 512, 'a');
        assert_reopens(bs, "cache.direct=off");
        assert_false(descriptor_flags(path, 1) & O_DIRECT);
        assert_int_equal(bdrv_get_limits(bs)->request_alignment, 1);
        assert_byte(blk, 1024, 'b');
    }
    blk_unref(blk);
}

static void no_flush_needs_no_other_descriptor(void **state)
{
    g_autofree char *path = make_file("no-flush", NULL, 4096);
    g_autofree char *text = g_strdup_printf("driver=file,filename=%s", path);
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    g_autofree char *gone = g_strdup_printf("%s.gone", path);

    assert_int_equal(g_rename(path, gone), 0); /* it could not be opened again */
    assert_reopens(bs, "cache.no-flush=on");
    assert_true(bdrv_get_open_flags(bs) & BDRV_O_NO_FLUSH);
    bdrv_unref(bs);
}

static void name_that_is_gone_or_another_files_fails_and_nothing_has_changed(void **state)
{
    g_autofree char *path = make_file("renamed", NULL, 4096);
    g_autofree char *away = g_strdup_printf("%s.away", path);
    g_autofree char *text = g_strdup_printf("driver=raw,node-name=r,file.driver=file,"
                                            "file.filename=%s", path);
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    BlockBackend *blk = blk_on(bs, 0);

    assert_int_equal(g_rename(path, away), 0);
    assert_reopen_fails(bs, "read-only=on", "No such file");
    g_free(make_file("renamed", NULL, 4096));
    assert_reopen_fails(bs, "read-only=on", "another file's now");
    assert_false(bdrv_is_read_only(bs) || bdrv_is_read_only(child_of(bs, "file")));
    assert_int_equal(descriptor_flags(path, 0), 0);
    assert_int_equal(descriptor_flags(away, 1) & O_ACCMODE, O_RDWR);
    assert_true(blk_set_perm(blk, BLK_PERM_WRITE | BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL));
    assert_write(blk, 0, 'a', 0);
    blk_unref(blk);
}

/* ---- Main ------------------------------------------------------------------------------- */

static int setup(void **state)
{
    notes = g_string_new(NULL);
    agreeing_toy = toy_driver;
    agreeing_toy.bdrv_reopen_prepare = bdrv_reopen_agree;
    plain_driver = note_driver;
    plain_driver.format_name = "plain";
    plain_driver.bdrv_reopen_prepare = NULL;
    plain_driver.bdrv_reopen_commit = plain_driver.bdrv_reopen_abort = NULL;
    return driver_group_setup(state) < 0 || !bdrv_register(&note_driver, NULL) ||
                   !bdrv_register(&plain_driver, NULL) || !bdrv_register(&agreeing_toy, NULL)
               ? -1 : 0;
}

static int teardown(void **state)
{
    g_string_free(notes, TRUE);
    return driver_group_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_below_a_format_becomes_writable_with_it_and_read_only_again),
        cmocka_unit_test(driver_without_a_hook_becomes_read_only_but_not_writable),
        cmocka_unit_test(retired_places_are_given_back_before_a_format_is_read_only),
        cmocka_unit_test(what_was_cached_before_is_forgotten),
        cmocka_unit_test(failed_flush_leaves_the_node_writable),
        cmocka_unit_test(child_that_options_name_as_a_node_does_not_follow),
        cmocka_unit_test(own_option_of_a_child_stands_and_a_backing_file_stays_read_only),
        cmocka_unit_test(options_of_a_child_go_to_it),
        cmocka_unit_test(driver_changes_what_it_can_and_no_more),
        cmocka_unit_test(whichever_node_refuses_all_stay_as_they_were),
        cmocka_unit_test(conflict_of_permissions_at_one_takes_all_back),
        cmocka_unit_test(parents_prepare_first_whatever_the_order_in_the_queue),
        cmocka_unit_test(abandoned_queue_changes_nothing),
        cmocka_unit_test(node_is_reopened_once_at_a_time),
        cmocka_unit_test(direct_cache_mode_is_another_descriptor_with_its_alignment),
        cmocka_unit_test(no_flush_needs_no_other_descriptor),
        cmocka_unit_test(name_that_is_gone_or_another_files_fails_and_nothing_has_changed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
