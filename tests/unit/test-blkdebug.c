/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: rules from options and from a file, events and states, requests
 * held and resumed, and what a filter has to pass on.
 */
#include "driver-testing.h"

#define MiB (1LL << 20)

/* A backend on blkdebug over a memory disk of 1 MiB. */
static BlockBackend *open_debug(const char *options)
{
    return open_blk(options_of("driver=blkdebug,image.driver=memory,image.size=1M,%s", options),
                    BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP);
}

static int do_read(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    return blk_pread(blk, offset, bytes, buf, 0);
}

static int do_write(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc0(bytes);

    return blk_pwrite(blk, offset, bytes, buf, 0);
}

/* ---- Injected errors -------------------------------------------------------------- */

static void without_rules_everything_passes(void **state)
{
    BlockBackend *blk = open_debug("align=1");
    g_autofree uint8_t *data = pattern(MiB, 1);

    assert_int_equal(blk_pwrite(blk, 0, MiB, data, 0), 0);
    assert_reads(blk, 0, MiB, data);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 65536, 0), 0);
    assert_int_equal(blk_pdiscard(blk, 65536, 65536), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_status(blk, 0, 131072, BDRV_BLOCK_ZERO);
    assert_status(blk, 131072, MiB - 131072, BDRV_BLOCK_DATA);
    blk_unref(blk);
}

static void a_rule_for_none_applies_from_the_start(void **state)
{
    BlockBackend *blk = open_debug("inject-error.0.event=none,inject-error.0.errno=28");
    int64_t n, map;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(do_read(blk, 0, 512), -ENOSPC);
        assert_int_equal(do_write(blk, 0, 512), -ENOSPC);
        assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), -ENOSPC);
        assert_int_equal(blk_pdiscard(blk, 0, 512), -ENOSPC);
        assert_int_equal(blk_flush(blk), -ENOSPC);
        assert_int_equal(status_of(blk, 0, 512, &n, &map), -ENOSPC);
    }
    blk_unref(blk);
}

/* Do one request of type @type. */
static int do_request(BlockBackend *blk, BdrvIoType type)
{
    int64_t n, map;

    switch (type) {
    case BDRV_IO_READ:
        return do_read(blk, 0, 512);
    case BDRV_IO_WRITE:
        return do_write(blk, 0, 512);
    case BDRV_IO_WRITE_ZEROES:
        return blk_pwrite_zeroes(blk, 0, 512, 0);
    case BDRV_IO_DISCARD:
        return blk_pdiscard(blk, 0, 512);
    case BDRV_IO_FLUSH:
        return blk_flush(blk);
    default:
        return MIN(status_of(blk, 0, 512, &n, &map), 0);
    }
}

static void an_iotype_is_the_only_one_that_fails(void **state)
{
    static const char *const iotypes[] = {
        "read", "write", "write-zeroes", "discard", "flush", "block-status",
    };

    for (BdrvIoType bad = BDRV_IO_READ; bad <= BDRV_IO_BLOCK_STATUS; bad++) {
        g_autofree char *options = g_strdup_printf(
            "inject-error.0.event=none,inject-error.0.iotype=%s", iotypes[bad]);
        BlockBackend *blk = open_debug(options);

        for (BdrvIoType type = BDRV_IO_READ; type <= BDRV_IO_BLOCK_STATUS; type++) {
            assert_int_equal(do_request(blk, type), type == bad ? -EIO : 0);
        }
        blk_unref(blk);
    }
}

static void once_fails_once(void **state)
{
    BlockBackend *blk = open_debug("inject-error.0.event=read_aio,inject-error.0.once=on,"
                                   "inject-error.0.immediately=on");

    assert_int_equal(do_read(blk, 0, 512), -EIO);
    assert_int_equal(do_read(blk, 0, 512), 0);
    blk_unref(blk);
}

static void a_sector_fails_the_requests_that_touch_it(void **state)
{
    BlockBackend *blk = open_debug("inject-error.0.event=none,inject-error.0.sector=3");

    assert_int_equal(do_read(blk, 0, 1536), 0);
    assert_int_equal(do_read(blk, 0, 1537), -EIO);
    assert_int_equal(do_read(blk, 1536, 1), -EIO);
    assert_int_equal(do_read(blk, 1537, 600), 0);
    assert_int_equal(blk_flush(blk), 0); /* touches nothing */
    blk_unref(blk);
}

static void after_lets_requests_pass(void **state)
{
    BlockBackend *blk = open_debug("inject-error.0.event=none,inject-error.0.iotype=read,"
                                   "inject-error.0.after=2,inject-error.0.once=on");

    assert_int_equal(do_write(blk, 0, 512), 0); /* does not count */
    assert_int_equal(do_read(blk, 0, 512), 0);
    assert_int_equal(do_read(blk, 0, 512), 0);
    assert_int_equal(do_read(blk, 0, 512), -EIO);
    assert_int_equal(do_read(blk, 0, 512), 0);
    blk_unref(blk);
}

static void an_event_brings_its_error_into_force(void **state)
{
    BlockBackend *blk = open_debug("inject-error.0.event=read_aio,"
                                   "inject-error.1.event=flush_to_os,inject-error.1.errno=28");

    assert_int_equal(do_write(blk, 0, 512), 0);
    assert_int_equal(do_read(blk, 0, 512), -EIO);
    assert_int_equal(do_write(blk, 0, 512), -EIO); /* until another event has one */
    assert_int_equal(blk_flush(blk), -ENOSPC);
    assert_int_equal(do_write(blk, 0, 512), -ENOSPC);
    blk_unref(blk);
}

static void states_choose_among_rules(void **state)
{
    BlockBackend *blk = open_debug("set-state.0.event=pwritev,set-state.0.state=1,"
                                   "set-state.0.new_state=2,"
                                   "set-state.1.event=pwritev,set-state.1.state=2,"
                                   "set-state.1.new_state=3,"
                                   "inject-error.0.event=read_aio,inject-error.0.state=3,"
                                   "inject-error.0.iotype=read");

    assert_int_equal(do_read(blk, 0, 512), 0);
    assert_int_equal(do_write(blk, 0, 512), 0);
    assert_int_equal(do_read(blk, 0, 512), 0);
    assert_int_equal(do_write(blk, 0, 512), 0);
    assert_int_equal(do_read(blk, 0, 512), -EIO);
    blk_unref(blk);
}

static void bad_rules_are_refused(void **state)
{
    static const char *const bad[][2] = {
        {"inject-error.0.errno=5", "Missing event name for rule"},
        {"inject-error.0.event=nosuch", "nosuch"},
        {"inject-error.0.event=none,inject-error.0.iotype=foo", "foo"},
        {"inject-error.0.event=none,inject-error.0.errno=-1", "errno"},
        {"inject-error.0.event=none,inject-error.0.errno=4096", "errno 4096"},
        {"inject-error.0.event=none,inject-error.0.sector=-2", "sector -2"},
        {"inject-error.0.event=none,inject-error.0.after=-2", "after -2"},
        {"inject-error.0.event=none,inject-error.0.foo=1",
         "[inject-error] section doesn't support the option 'foo'"},
        {"set-state.0.event=none,set-state.0.errno=1",
         "[set-state] section doesn't support the option 'errno'"},
        {"inject-error.0=none", "inject-error.0 is no rule"},
        {"take-child-perms.0=fly", "fly"},
        {"foo=1", "foo"},
        {"align=3", "Cannot meet constraints with align 3"},
        {"align=3G", "Cannot meet constraints with align 3221225472"},
        {"align=512,max-transfer=1000", "Cannot meet constraints with max-transfer 1000"},
        {"opt-discard=1024,max-discard=512", "Cannot meet constraints with max-discard 512"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_open_fails(options_of("driver=blkdebug,image.driver=memory,image.size=1M,%s",
                                     bad[i][0]), 0, bad[i][1]);
    }
}

static void every_event_has_a_name(void **state)
{
    for (int i = 0; i < BDRV_DEBUG__MAX; i++) {
        assert_non_null(bdrv_debug_event_names[i]);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(bdrv_debug_event_names[i], bdrv_debug_event_names[j]);
        }
    }
    assert_null(bdrv_debug_event_names[BDRV_DEBUG__MAX]);
}

/* ---- The file -------------------------------------------------------------------------- */

static JsonObject *config_options(const char *text)
{
    g_autofree char *path = make_file("rules.conf", text, strlen(text));

    return options_of("driver=blkdebug,config=%s,image.driver=memory,image.size=1M", path);
}

static void rules_are_read_from_a_file(void **state)
{
    BlockBackend *blk = open_blk(config_options("# rules\n"
                                                "[inject-error]\n"
                                                "  event = \"read_aio\"\n"
                                                "iotype=\"read\"\n"
                                                "\tsector = \"1\"\n"
                                                "\n"
                                                "[set-state \"name\"]\n"
                                                "event = \"flush_to_os\"\r\n"
                                                "new_state = \"2\"\n"
                                                "[inject-error]\n"
                                                "event = \"pwritev\"\n"
                                                "state = \"2\"\n"
                                                "errno = \"28\""), BDRV_O_RDWR);

    assert_int_equal(do_read(blk, 0, 512), 0);
    assert_int_equal(do_read(blk, 512, 512), -EIO);
    assert_int_equal(do_write(blk, 0, 512), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(do_write(blk, 0, 512), -ENOSPC);
    blk_unref(blk);
}

static void a_bad_file_is_refused_with_its_line(void **state)
{
    static const char *const bad[][2] = {
        {"event = \"none\"\n", "rules.conf:1: no group defined"},
        {"\n[bogus]\n", "rules.conf:2: There is no option group 'bogus'"},
        {"[]\n", "There is no option group ''"},
        {"[inject-error]\nevent=none\n", "rules.conf:2: Invalid parameter 'event=none'"},
        {"[inject-error]\nnonsense\n", "Invalid parameter 'nonsense'"},
        {"[inject-error]\n= \"5\"\n", "Invalid parameter"},
        {"[inject-error]\n", "Missing event name for rule"},
        {"[inject-error]\nevent=\"none\"\nfoo=\"1\"\n[set-state]\n", "rules.conf:4: "},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_open_fails(config_options(bad[i][0]), 0, bad[i][1]);
    }
    assert_open_fails(options_of("driver=blkdebug,config=%s/none,image.driver=memory,"
                                 "image.size=1M", test_dir), 0,
                      "Could not read blkdebug config file: No such file");
}

/* ---- Filenames --------------------------------------------------------------------------- */

static void the_filename_has_config_and_image(void **state)
{
    g_autofree uint8_t *data = pattern(4096, 2);
    g_autofree char *image = make_file("image", data, 4096);
    g_autofree char *filename = g_strdup_printf("blkdebug::%s", image);
    g_autofree char *with_config = NULL, *config = NULL;
    const char *text = "[inject-error]\nevent = \"none\"\n";
    GError *err = NULL;
    BlockBackend *blk = blk_new_open(filename, NULL, BDRV_O_PROTOCOL, NULL, &err);

    assert_ok(blk != NULL, err);
    assert_reads(blk, 0, 4096, data);
    assert_string_equal(bdrv_get_filename(blk_bs(blk)), filename);
    blk_unref(blk);
    config = make_file("c.conf", text, strlen(text));
    with_config = g_strdup_printf("blkdebug:%s:%s", config, image);
    blk = blk_new_open(with_config, NULL, BDRV_O_PROTOCOL, NULL, &err);
    assert_ok(blk != NULL, err);
    assert_int_equal(do_read(blk, 0, 512), -EIO);
    blk_unref(blk);
    assert_null(blk_new_open("blkdebug:x", NULL, BDRV_O_PROTOCOL, NULL, &err));
    assert_error_has(&err, "blkdebug requires both config file and image path");
}

static void a_node_made_from_options_is_named_if_it_can_be(void **state)
{
    g_autofree char *image = make_file("named", NULL, 4096);
    g_autofree char *name = g_strdup_printf("blkdebug::%s", image);
    BlockBackend *blk = open_blk(options_of("driver=blkdebug,image.driver=file,"
                                            "image.filename=%s", image), 0);

    assert_string_equal(bdrv_get_filename(blk_bs(blk)), name);
    blk_unref(blk);
    blk = open_blk(options_of("driver=blkdebug,image.driver=file,image.filename=%s,align=512",
                              image), 0);
    assert_true(g_str_has_prefix(bdrv_get_filename(blk_bs(blk)), "json:"));
    blk_unref(blk);
}

/* ---- Held requests -------------------------------------------------------------------------- */

typedef struct Request {
    BlockBackend *blk;
    uint8_t buf[512];
    int ret;
    bool done; /* atomic */
} Request;

static void coroutine_fn read_entry(void *opaque)
{
    Request *r = opaque;

    r->ret = blk_co_pread(r->blk, 0, sizeof(r->buf), r->buf, 0);
    __atomic_store_n(&r->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static void start_read(void *opaque)
{
    coroutine_enter(coroutine_create(read_entry, opaque));
}

static bool is_done(Request *r)
{
    return __atomic_load_n(&r->done, __ATOMIC_ACQUIRE);
}

static int command(BlockBackend *blk, const char *name, const char *argument)
{
    return bdrv_find_format("blkdebug")->bdrv_debug_command(blk_bs(blk), name, argument);
}

static bool is_suspended(BlockBackend *blk, const char *tag)
{
    return bdrv_find_format("blkdebug")->bdrv_debug_is_suspended(blk_bs(blk), tag);
}

static void a_breakpoint_holds_one_request_until_it_is_resumed(void **state)
{
    BlockBackend *blk = open_debug("align=1");
    Request a = {.blk = blk}, b = {.blk = blk};

    assert_int_equal(command(blk, "break", "read_aio A"), 0);
    assert_int_equal(do_write(blk, 0, 512), 0); /* another event */
    assert_false(is_suspended(blk, "A"));
    start_read(&a);
    assert_false(is_done(&a));
    assert_true(is_suspended(blk, "A"));
    assert_false(is_suspended(blk, "B"));
    start_read(&b); /* the breakpoint is used up */
    AIO_WAIT_WHILE(!is_done(&b));
    assert_int_equal(command(blk, "resume", "B"), -ENOENT);
    assert_false(is_done(&a));
    assert_int_equal(command(blk, "resume", "A"), 0);
    assert_false(is_suspended(blk, "A"));
    AIO_WAIT_WHILE(!is_done(&a));
    assert_int_equal(a.ret, 0);
    assert_int_equal(command(blk, "resume", "A"), -ENOENT);
    blk_unref(blk);
}

static void resume_takes_one_and_remove_break_all(void **state)
{
    BlockBackend *blk = open_debug("align=1");
    Request r[3] = {{.blk = blk}, {.blk = blk}, {.blk = blk}};
    int done = 0;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(command(blk, "break", "read_aio A"), 0);
        start_read(&r[i]);
    }
    assert_int_equal(command(blk, "break", "read_aio A"), 0); /* left, for nobody */
    assert_int_equal(command(blk, "resume", "A"), 0);
    AIO_WAIT_WHILE(!is_done(&r[0]) && !is_done(&r[1]) && !is_done(&r[2]));
    for (int i = 0; i < 3; i++) {
        done += is_done(&r[i]);
    }
    assert_int_equal(done, 1);
    assert_int_equal(command(blk, "remove_break", "A"), 0);
    AIO_WAIT_WHILE(!is_done(&r[0]) || !is_done(&r[1]) || !is_done(&r[2]));
    assert_int_equal(command(blk, "remove_break", "A"), -ENOENT);
    assert_int_equal(do_read(blk, 0, 512), 0);
    blk_unref(blk);
}

static void bad_commands_are_refused(void **state)
{
    BlockBackend *blk = open_debug("align=1");

    assert_int_equal(command(blk, "break", "nosuch A"), -ENOENT);
    assert_int_equal(command(blk, "break", "read_aio"), -ENOENT);
    assert_int_equal(command(blk, "remove_break", "A"), -ENOENT);
    assert_int_equal(command(blk, "jump", "A"), -ENOTSUP);
    blk_unref(blk);
}

static void requests_of_other_threads_are_held_and_resumed(void **state)
{
    BlockBackend *blk = open_debug("align=1");
    AioThread *threads[4];
    Request r[4];

    for (int i = 0; i < 4; i++) {
        assert_int_equal(command(blk, "break", "read_aio A"), 0);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = (Request){.blk = blk};
        threads[i] = aio_thread_new("reader", AIO_ENGINE_DEFAULT, NULL);
        aio_bh_oneshot(aio_thread_get_context(threads[i]), start_read, &r[i]);
    }
    for (int resumed = 0; resumed < 4;) {
        resumed += command(blk, "resume", "A") == 0;
        g_thread_yield();
    }
    for (int i = 0; i < 4; i++) {
        AIO_WAIT_WHILE(!is_done(&r[i]));
        assert_int_equal(r[i].ret, 0);
        aio_thread_stop(threads[i]);
    }
    blk_unref(blk);
}

/* ---- A filter -------------------------------------------------------------------------------- */

static void resizing_goes_through(void **state)
{
    BlockBackend *blk = open_debug("align=1");
    GError *err = NULL;

    assert_int_equal(blk_truncate(blk, 2 * MiB, true, BLOCK_PREALLOC_OFF, &err), 0);
    assert_int_equal(blk_getlength(blk), 2 * MiB);
    assert_int_equal(do_write(blk, 2 * MiB - 512, 512), 0);
    blk_unref(blk);
}

static void permissions_are_taken_and_kept(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=blkdebug,image.driver=memory,image.size=1M,"
                                            "take-child-perms.0=write,"
                                            "take-child-perms.1=write-unchanged,"
                                            "unshare-child-perms.0=resize"), BDRV_O_RDWR);
    BdrvChild *child;

    bdrv_graph_rdlock_main_loop();
    child = bdrv_get_child(blk_bs(blk), "image");
    assert_int_equal(bdrv_child_perm(child), BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE |
                                                 BLK_PERM_WRITE_UNCHANGED);
    assert_int_equal(bdrv_child_shared_perm(child), BLK_PERM_ALL & ~BLK_PERM_RESIZE);
    assert_true(bdrv_is_filter(blk_bs(blk)));
    bdrv_graph_rdunlock_main_loop();
    blk_unref(blk);
}

static void the_size_on_disk_is_not_told(void **state)
{
    BlockBackend *blk = open_debug("align=1");

    assert_int_equal(bdrv_get_allocated_file_size(blk_bs(blk)), -ENOTSUP);
    blk_unref(blk);
}

static void limits_are_those_of_the_options(void **state)
{
    BlockBackend *blk = open_debug("align=4096,max-transfer=64k,opt-write-zero=8k,"
                                   "max-write-zero=16k,opt-discard=8k,max-discard=32k");
    const BlockLimits *limits = bdrv_get_limits(blk_bs(blk));

    assert_int_equal(limits->request_alignment, 4096);
    assert_int_equal(limits->max_transfer, 65536);
    assert_int_equal(limits->pwrite_zeroes_alignment, 8192);
    assert_int_equal(limits->max_pwrite_zeroes, 16384);
    assert_int_equal(limits->pdiscard_alignment, 8192);
    assert_int_equal(limits->max_pdiscard, 32768);
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rules_everything_passes),
        cmocka_unit_test(a_rule_for_none_applies_from_the_start),
        cmocka_unit_test(an_iotype_is_the_only_one_that_fails),
        cmocka_unit_test(once_fails_once),
        cmocka_unit_test(a_sector_fails_the_requests_that_touch_it),
        cmocka_unit_test(after_lets_requests_pass),
        cmocka_unit_test(an_event_brings_its_error_into_force),
        cmocka_unit_test(states_choose_among_rules),
        cmocka_unit_test(bad_rules_are_refused),
        cmocka_unit_test(every_event_has_a_name),
        cmocka_unit_test(rules_are_read_from_a_file),
        cmocka_unit_test(a_bad_file_is_refused_with_its_line),
        cmocka_unit_test(the_filename_has_config_and_image),
        cmocka_unit_test(a_node_made_from_options_is_named_if_it_can_be),
        cmocka_unit_test(a_breakpoint_holds_one_request_until_it_is_resumed),
        cmocka_unit_test(resume_takes_one_and_remove_break_all),
        cmocka_unit_test(bad_commands_are_refused),
        cmocka_unit_test(requests_of_other_threads_are_held_and_resumed),
        cmocka_unit_test(resizing_goes_through),
        cmocka_unit_test(permissions_are_taken_and_kept),
        cmocka_unit_test(the_size_on_disk_is_not_told),
        cmocka_unit_test(limits_are_those_of_the_options),
    };

    return cmocka_run_group_tests_name("blkdebug", tests, driver_group_setup,
                                       driver_group_teardown);
}
