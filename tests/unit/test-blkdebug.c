/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug: rules from options and from a file, events and states, requests
 * held and resumed, limits, and what a filter has to pass on; and which events
 * the core and qcow2 raise.
 */
#include "driver-testing.h"

#define MiB (1LL << 20)

/* A backend on blkdebug over a memory disk of 1 MiB. */
static BlockBackend *open_debug(const char *options)
{
    return open_blk(options_of("driver=blkdebug,image.driver=memory,image.size=1M,%s", options),
                    BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP);
}

/* The same below raw, which raises the events of a format. */
static BlockBackend *open_below_raw(const char *options)
{
    return open_blk(options_of("driver=raw,file.driver=blkdebug,file.node-name=debug,"
                               "file.image.driver=memory,file.image.size=1M,%s", options),
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
    BlockBackend *blk = open_below_raw("file.inject-error.0.event=read_aio,"
                                       "file.inject-error.0.once=on,"
                                       "file.inject-error.0.immediately=on");

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
    BlockBackend *blk = open_below_raw("file.inject-error.0.event=read_aio,"
                                       "file.inject-error.1.event=flush_to_os,"
                                       "file.inject-error.1.errno=28");

    assert_int_equal(do_write(blk, 0, 512), 0);
    assert_int_equal(do_read(blk, 0, 512), -EIO);
    assert_int_equal(do_write(blk, 0, 512), -EIO); /* until another event has one */
    assert_int_equal(blk_flush(blk), -ENOSPC);
    assert_int_equal(do_write(blk, 0, 512), -ENOSPC);
    blk_unref(blk);
}

static void states_choose_among_rules(void **state)
{
    BlockBackend *blk = open_below_raw("file.set-state.0.event=pwritev,file.set-state.0.state=1,"
                                       "file.set-state.0.new_state=2,"
                                       "file.set-state.1.event=pwritev,file.set-state.1.state=2,"
                                       "file.set-state.1.new_state=3,"
                                       "file.inject-error.0.event=read_aio,"
                                       "file.inject-error.0.state=3,"
                                       "file.inject-error.0.iotype=read");

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

    return options_of("driver=raw,file.driver=blkdebug,file.config=%s,"
                      "file.image.driver=memory,file.image.size=1M", path);
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

static int command(const char *name, const char *argument)
{
    return bdrv_find_format("blkdebug")->bdrv_debug_command(bdrv_find_node("debug"), name,
                                                             argument);
}

static bool is_suspended(const char *tag)
{
    return bdrv_find_format("blkdebug")->bdrv_debug_is_suspended(bdrv_find_node("debug"), tag);
}

static void a_breakpoint_holds_one_request_until_it_is_resumed(void **state)
{
    BlockBackend *blk = open_below_raw("file.align=1");
    Request a = {.blk = blk}, b = {.blk = blk};

    assert_int_equal(command("break", "read_aio A"), 0);
    assert_int_equal(do_write(blk, 0, 512), 0); /* another event */
    assert_false(is_suspended("A"));
    start_read(&a);
    assert_false(is_done(&a));
    assert_true(is_suspended("A"));
    assert_false(is_suspended("B"));
    start_read(&b); /* the breakpoint is used up */
    AIO_WAIT_WHILE(!is_done(&b));
    assert_int_equal(command("resume", "B"), -ENOENT);
    assert_false(is_done(&a));
    assert_int_equal(command("resume", "A"), 0);
    assert_false(is_suspended("A"));
    AIO_WAIT_WHILE(!is_done(&a));
    assert_int_equal(a.ret, 0);
    assert_int_equal(command("resume", "A"), -ENOENT);
    blk_unref(blk);
}

static void resume_takes_one_and_remove_break_all(void **state)
{
    BlockBackend *blk = open_below_raw("file.align=1");
    Request r[3] = {{.blk = blk}, {.blk = blk}, {.blk = blk}};
    int done = 0;

    for (int i = 0; i < 3; i++) {
        assert_int_equal(command("break", "read_aio A"), 0);
        start_read(&r[i]);
    }
    assert_int_equal(command("break", "read_aio A"), 0); /* left, for nobody */
    assert_int_equal(command("resume", "A"), 0);
    AIO_WAIT_WHILE(!is_done(&r[0]) && !is_done(&r[1]) && !is_done(&r[2]));
    for (int i = 0; i < 3; i++) {
        done += is_done(&r[i]);
    }
    assert_int_equal(done, 1);
    assert_int_equal(command("remove_break", "A"), 0);
    AIO_WAIT_WHILE(!is_done(&r[0]) || !is_done(&r[1]) || !is_done(&r[2]));
    assert_int_equal(command("remove_break", "A"), -ENOENT);
    assert_int_equal(do_read(blk, 0, 512), 0);
    blk_unref(blk);
}

static void bad_commands_are_refused(void **state)
{
    BlockBackend *blk = open_below_raw("file.align=1");

    assert_int_equal(command("break", "nosuch A"), -ENOENT);
    assert_int_equal(command("break", "read_aio"), -ENOENT);
    assert_int_equal(command("remove_break", "A"), -ENOENT);
    assert_int_equal(command("jump", "A"), -ENOTSUP);
    blk_unref(blk);
}

static void requests_of_other_threads_are_held_and_resumed(void **state)
{
    BlockBackend *blk = open_below_raw("file.align=1");
    AioThread *threads[4];
    Request r[4];

    for (int i = 0; i < 4; i++) {
        assert_int_equal(command("break", "read_aio A"), 0);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = (Request){.blk = blk};
        threads[i] = aio_thread_new("reader", AIO_ENGINE_DEFAULT, NULL);
        aio_bh_oneshot(aio_thread_get_context(threads[i]), start_read, &r[i]);
    }
    for (int resumed = 0; resumed < 4;) {
        resumed += command("resume", "A") == 0;
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

/* ---- Below a filter -------------------------------------------------------------------------- */

/* A filter that notes the requests and events that it gets. */
typedef struct Recorded {
    BdrvIoType type;
    int64_t offset;
    int64_t bytes;
} Recorded;

static Recorded recorded[64];
static int n_recorded;
static bool came[BDRV_DEBUG__MAX];

static void record(BdrvIoType type, int64_t offset, int64_t bytes)
{
    assert_true(n_recorded < (int)G_N_ELEMENTS(recorded));
    recorded[n_recorded++] = (Recorded){type, offset, bytes};
}

static void forget(void)
{
    n_recorded = 0;
    memset(came, 0, sizeof(came));
}

static bool recorder_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    if (!bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_set_length(bs, bdrv_getlength(bdrv_child_bs(bdrv_file_child(bs))));
    bdrv_graph_rdunlock_main_loop();
    return true;
}

static int64_t coroutine_fn recorder_co_getlength(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bdrv_co_getlength(bdrv_child_bs(bdrv_file_child(bs)));
}

static int coroutine_fn recorder_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           IOVector *iov, int flags)
{
    bdrv_graph_assert_readable();
    record(BDRV_IO_READ, offset, bytes);
    return bdrv_co_preadv(bdrv_file_child(bs), offset, bytes, iov, flags);
}

static int coroutine_fn recorder_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *iov, int flags)
{
    bdrv_graph_assert_readable();
    record(BDRV_IO_WRITE, offset, bytes);
    return bdrv_co_pwritev(bdrv_file_child(bs), offset, bytes, iov, flags);
}

static int coroutine_fn recorder_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, int flags)
{
    bdrv_graph_assert_readable();
    record(BDRV_IO_WRITE_ZEROES, offset, bytes);
    return bdrv_co_pwrite_zeroes(bdrv_file_child(bs), offset, bytes, flags);
}

static int coroutine_fn recorder_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    bdrv_graph_assert_readable();
    record(BDRV_IO_DISCARD, offset, bytes);
    return bdrv_co_pdiscard(bdrv_file_child(bs), offset, bytes);
}

static int coroutine_fn recorder_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                             BlockPrealloc prealloc, GError **errp)
{
    bdrv_graph_assert_readable();
    return bdrv_co_truncate(bdrv_file_child(bs), offset, exact, prealloc, errp);
}

static void coroutine_fn recorder_co_debug_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    came[event] = true;
}

static BlockDriver recorder = {
    .format_name = "recorder",
    .is_filter = true,
    .bdrv_open = recorder_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_co_getlength = recorder_co_getlength,
    .bdrv_co_preadv = recorder_co_preadv,
    .bdrv_co_pwritev = recorder_co_pwritev,
    .bdrv_co_pwrite_zeroes = recorder_co_pwrite_zeroes,
    .bdrv_co_pdiscard = recorder_co_pdiscard,
    .bdrv_co_truncate = recorder_co_truncate,
    .bdrv_co_debug_event = recorder_co_debug_event,
};

/* A backend on blkdebug over the recorder, nothing recorded yet. */
static BlockBackend *open_recorded(const char *options)
{
    BlockBackend *blk = open_blk(options_of("driver=blkdebug,image.driver=recorder,"
                                            "image.file.driver=memory,image.file.size=1M,%s",
                                            options), BDRV_O_RDWR | BDRV_O_UNMAP);

    forget();
    return blk;
}

/* All that was recorded is of @type, aligned to @align, at most @max long; @total bytes. */
static void assert_recorded(BdrvIoType type, int64_t align, int64_t max, int64_t total)
{
    int64_t sum = 0;

    for (int i = 0; i < n_recorded; i++) {
        assert_int_equal(recorded[i].type, type);
        assert_int_equal(recorded[i].offset % align, 0);
        assert_int_equal(recorded[i].bytes % align, 0);
        assert_true(recorded[i].bytes <= max);
        sum += recorded[i].bytes;
    }
    assert_int_equal(sum, total);
    forget();
}

static void limits_hold_for_what_reaches_the_image(void **state)
{
    BlockBackend *blk = open_recorded("align=4096,max-transfer=64k,opt-write-zero=8k,"
                                      "max-write-zero=16k,opt-discard=8k,max-discard=32k");
    g_autofree uint8_t *data = pattern(MiB, 3);

    assert_int_equal(blk_pwrite(blk, 0, MiB, data, 0), 0);
    assert_int_equal(n_recorded, 16);
    assert_recorded(BDRV_IO_WRITE, 4096, 65536, MiB);
    assert_reads(blk, 1, 200000, data + 1);
    assert_recorded(BDRV_IO_READ, 4096, 65536, 200704);
    assert_int_equal(blk_pwrite_zeroes(blk, 8192, 65536, 0), 0);
    assert_int_equal(n_recorded, 4);
    assert_recorded(BDRV_IO_WRITE_ZEROES, 8192, 16384, 65536);
    assert_int_equal(blk_pdiscard(blk, 131072 + 1, 131072), 0);
    assert_recorded(BDRV_IO_DISCARD, 8192, 32768, 131072 - 8192);
    memset(data + 8192, 0, 65536);
    assert_reads(blk, 0, 131072, data);
    blk_unref(blk);
}

static void what_is_not_aligned_is_read_modified_and_written(void **state)
{
    BlockBackend *blk = open_recorded("align=4096");
    g_autofree uint8_t *data = pattern(MiB, 4);

    assert_int_equal(blk_pwrite(blk, 0, MiB, data, 0), 0);
    forget();
    assert_int_equal(do_write(blk, 5000, 10), 0);
    assert_int_equal(n_recorded, 2);
    assert_int_equal(recorded[0].type, BDRV_IO_READ);
    assert_int_equal(recorded[1].type, BDRV_IO_WRITE);
    assert_int_equal(recorded[1].offset, 4096);
    assert_int_equal(recorded[1].bytes, 4096);
    memset(data + 5000, 0, 10);
    assert_reads(blk, 0, 65536, data);
    blk_unref(blk);
}

static void each_piece_is_asked_about(void **state)
{
    BlockBackend *blk = open_recorded("align=512,max-transfer=4096,inject-error.0.event=none,"
                                      "inject-error.0.iotype=write,inject-error.0.sector=20");

    assert_int_equal(do_write(blk, 0, 65536), -EIO);
    assert_recorded(BDRV_IO_WRITE, 512, 4096, 8192); /* those before the one with sector 20 */
    blk_unref(blk);
}

/* ---- Which events come -------------------------------------------------------------------- */

/* @events (ended by NONE) have come, and nothing else; forgets all. */
static void assert_came(const char *what, const BdrvDebugEvent *events)
{
    for (const BdrvDebugEvent *e = events; *e != BDRV_DEBUG_NONE; e++) {
        if (!came[*e]) {
            fail_msg("%s: %s is missing", what, bdrv_debug_event_names[*e]);
        }
        came[*e] = false;
    }
    for (int i = 0; i < BDRV_DEBUG__MAX; i++) {
        if (came[i]) {
            fail_msg("%s: %s is not expected", what, bdrv_debug_event_names[i]);
        }
    }
    forget();
}
#define ASSERT_CAME(what, ...)                                                                     \
    assert_came(what, (const BdrvDebugEvent[]){__VA_ARGS__, BDRV_DEBUG_NONE})

static void raw_and_the_core_raise_events(void **state)
{
    BlockBackend *blk = open_blk(options_of("driver=raw,file.driver=recorder,"
                                            "file.file.driver=memory,file.file.size=1M"),
                                 BDRV_O_RDWR | BDRV_O_UNMAP);

    forget();
    assert_int_equal(do_read(blk, 0, 512), 0);
    ASSERT_CAME("read", BDRV_DEBUG_READ_AIO);
    assert_int_equal(do_write(blk, 0, 512), 0);
    ASSERT_CAME("write", BDRV_DEBUG_WRITE_AIO, BDRV_DEBUG_PWRITEV, BDRV_DEBUG_PWRITEV_DONE);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, 512, 0), 0);
    ASSERT_CAME("write zeroes", BDRV_DEBUG_PWRITEV_ZERO, BDRV_DEBUG_PWRITEV_DONE);
    assert_int_equal(blk_pdiscard(blk, 0, 512), 0);
    assert_came("discard", (const BdrvDebugEvent[]){BDRV_DEBUG_NONE});
    assert_int_equal(blk_flush(blk), 0);
    ASSERT_CAME("flush", BDRV_DEBUG_FLUSH_TO_OS, BDRV_DEBUG_FLUSH_TO_DISK);
    blk_unref(blk);
}

static void qcow2_raises_events_at_each_step(void **state)
{
    g_autofree char *path = test_path("events.qcow2");
    g_autoptr(JsonObject) options = options_of("size=1M,cluster_size=64k");
    GError *err = NULL;
    BlockBackend *blk;

    assert_ok(bdrv_create(bdrv_find_format("qcow2"), path, options, &err), err);
    blk = open_blk(options_of("driver=qcow2,file.driver=recorder,file.file.driver=file,"
                              "file.file.filename=%s", path), BDRV_O_RDWR | BDRV_O_UNMAP);
    forget();
    assert_int_equal(do_read(blk, 0, 512), 0);
    assert_int_equal(n_recorded, 0);
    forget();
    assert_int_equal(do_write(blk, 512, 512), 0);
    assert_true(came[BDRV_DEBUG_CLUSTER_ALLOC] && came[BDRV_DEBUG_WRITE_AIO] &&
                came[BDRV_DEBUG_PWRITEV] && came[BDRV_DEBUG_PWRITEV_DONE]);
    assert_false(came[BDRV_DEBUG_READ_AIO] || came[BDRV_DEBUG_FLUSH_TO_DISK]);
    assert_int_equal(blk_flush(blk), 0);
    assert_true(came[BDRV_DEBUG_FLUSH_TO_OS] && came[BDRV_DEBUG_FLUSH_TO_DISK]);
    assert_true(came[BDRV_DEBUG_L1_UPDATE] && came[BDRV_DEBUG_REFBLOCK_UPDATE_PART]);
    forget();
    assert_int_equal(do_read(blk, 0, 512), 0);
    ASSERT_CAME("read of data", BDRV_DEBUG_READ_AIO);
    assert_int_equal(do_write(blk, 0, 512), 0);
    ASSERT_CAME("write in place", BDRV_DEBUG_WRITE_AIO, BDRV_DEBUG_PWRITEV,
                BDRV_DEBUG_PWRITEV_DONE);
    assert_int_equal(blk_pdiscard(blk, 0, 65536), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_true(came[BDRV_DEBUG_L2_UPDATE]);
    blk_unref(blk);
}

static int setup(void **state)
{
    return driver_group_setup(state) < 0 || !bdrv_register(&recorder, NULL) ? -1 : 0;
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
        cmocka_unit_test(limits_hold_for_what_reaches_the_image),
        cmocka_unit_test(what_is_not_aligned_is_read_modified_and_written),
        cmocka_unit_test(each_piece_is_asked_about),
        cmocka_unit_test(raw_and_the_core_raise_events),
        cmocka_unit_test(qcow2_raises_events_at_each_step),
    };

    return cmocka_run_group_tests_name("blkdebug", tests, setup, driver_group_teardown);
}
