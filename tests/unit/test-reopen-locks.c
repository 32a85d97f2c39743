/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locks while a file is reopened, as another process sees them: they follow the
 * permissions, a conflict refuses the reopen, and there is no moment without them.
 */
#include "driver-testing.h"

#include <sys/wait.h>

#define READ (1 << 0)
#define WRITE (1 << 1)
#define RESIZE (1 << 3)

/* ---- The other process ------------------------------------------------------------------ */

/* A copy of us, made before the library is set up, that does what it is told. */
typedef struct Peer {
    int to, from;
    pid_t pid;
} Peer;
static Peer peer;

/* What it is told: look, watch byte @argument until told to stop, hold it, let go. */
typedef struct Command {
    char what;
    int argument;
    char path[256];
} Command;

static bool is_locked(int fd, int byte)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

/* Bits 0 to 3: bytes 100 to 103; bits 4 to 7: bytes 200 to 203. */
static int look(int fd)
{
    int seen = 0;

    for (int i = 0; i < 4; i++) {
        seen |= is_locked(fd, 100 + i) << i | is_locked(fd, 200 + i) << (4 + i);
    }
    return seen;
}

/* Whether the byte was locked whenever it was looked at, until the next command. */
static int watch(int in, int out, int fd, int byte)
{
    int flags = fcntl(in, F_GETFL), held = is_locked(fd, byte);
    char begun = 1;
    Command stop;

    if (fcntl(in, F_SETFL, flags | O_NONBLOCK) < 0 || write(out, &begun, 1) != 1) {
        return 0;
    }
    while (read(in, &stop, sizeof(stop)) != sizeof(stop)) {
        held = held && is_locked(fd, byte);
    }
    fcntl(in, F_SETFL, flags);
    return held;
}

static void peer_main(int in, int out)
{
    struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
    int fd = -1, result = 0;
    Command c;

    while (read(in, &c, sizeof(c)) == sizeof(c)) {
        if (fd < 0) {
            fd = open(c.path, O_RDWR | O_CLOEXEC);
        }
        switch (c.what) {
        case 'l':
            result = look(fd);
            break;
        case 'w':
            result = watch(in, out, fd, c.argument);
            break;
        case 'h':
            fl.l_start = c.argument;
            result = fcntl(fd, F_OFD_SETLK, &fl);
            break;
        default:
            close(fd);
            fd = -1;
        }
        if (write(out, &result, sizeof(result)) != sizeof(result)) {
            break;
        }
    }
    _exit(0);
}

static void start_peer(void)
{
    int commands[2], answers[2];

    if (pipe2(commands, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0) {
        abort();
    }
    peer.pid = fork();
    if (peer.pid == 0) {
        close(commands[1]);
        close(answers[0]);
        peer_main(commands[0], answers[1]);
    }
    close(commands[0]);
    close(answers[1]);
    peer.to = commands[1];
    peer.from = answers[0];
}

static void tell_peer(char what, const char *path, int argument)
{
    Command c;

    memset(&c, 0, sizeof(c)); /* what lies between the members is sent, too */
    c.what = what;
    c.argument = argument;
    g_strlcpy(c.path, path, sizeof(c.path));
    assert_int_equal(write(peer.to, &c, sizeof(c)), sizeof(c));
}

static int answer(void)
{
    int result;

    assert_int_equal(read(peer.from, &result, sizeof(result)), sizeof(result));
    return result;
}

static int ask_peer(char what, const char *path, int argument)
{
    tell_peer(what, path, argument);
    return answer();
}

/* It must see these held, and these not shared. */
static void assert_locks(const char *path, int held, int unshared)
{
    assert_int_equal(ask_peer('l', path, 0), held | unshared << 4);
}

/* ---- Tests ------------------------------------------------------------------------------ */

static BlockDriverState *open_image(const char *path, int flags)
{
    g_autofree char *text = g_strdup_printf("driver=raw,offset=0,size=4k,file.driver=file,"
                                            "file.filename=%s", path);

    return open_node_with(text, flags);
}

/* A backend that takes @perm and shares all but writing and resizing. */
static BlockBackend *blk_on(BlockDriverState *bs, uint64_t perm)
{
    BlockBackend *blk = blk_new(NULL, perm, BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE),
                                NULL);

    assert_true(blk_insert_bs(blk, bs, NULL));
    bdrv_unref(bs);
    return blk;
}

static void assert_reopens(BlockDriverState *bs, bool read_only)
{
    GError *err = NULL;
    bool ok = bdrv_reopen_set_read_only(bs, read_only, &err);

    assert_ok(ok, err);
}

static void locks_follow_the_permissions(void **state)
{
    g_autofree char *path = make_file("follow", NULL, 4096);
    BlockBackend *blk = blk_on(open_image(path, 0), BLK_PERM_CONSISTENT_READ);
    uint64_t shared = BLK_PERM_ALL & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);

    assert_locks(path, READ, WRITE | RESIZE);
    assert_reopens(blk_bs(blk), false);
    assert_locks(path, READ, WRITE | RESIZE);
    assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, shared, NULL));
    assert_locks(path, READ | WRITE | RESIZE, WRITE | RESIZE);
    assert_true(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, shared, NULL));
    assert_reopens(blk_bs(blk), true);
    assert_locks(path, READ, WRITE | RESIZE);
    blk_unref(blk);
    assert_locks(path, 0, 0);
    ask_peer('c', path, 0);
}

static void there_is_no_moment_without_locks(void **state)
{
    g_autofree char *path = make_file("moment", NULL, 4096);
    BlockBackend *blk = blk_on(open_image(path, BDRV_O_RDWR), BLK_PERM_CONSISTENT_READ);
    char begun;

    tell_peer('w', path, 201);
    assert_int_equal(read(peer.from, &begun, 1), 1);
    for (int i = 0; i < 100; i++) {
        assert_reopens(blk_bs(blk), i % 2 == 0);
    }
    tell_peer('s', path, 0);
    assert_true(answer());
    blk_unref(blk);
    ask_peer('c', path, 0);
}

/* A format's own tables make it take what it needs as soon as it is writable. */
static int coroutine_fn table_map(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    bdrv_graph_assert_readable();
    *m = (BdrvMapping){.bytes = 4096, .target = BDRV_MAP_DATA, .child = bdrv_file_child(bs),
                       .writable = true};
    return 0;
}

static bool table_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    bdrv_set_length(bs, 4096);
    return bdrv_open_file_child(bs, options, errp);
}

/* Called when the node "last" prepares, after the files of the others have. */
static void (*in_last_prepare)(void);

static bool table_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    if (g_str_equal(bdrv_get_node_name(state->bs), "last")) {
        in_last_prepare();
    }
    return true;
}

static BlockDriver table_driver = {
    .format_name = "table",
    .bdrv_open = table_open,
    .bdrv_reopen_prepare = table_prepare,
    .bdrv_co_map = table_map,
};

static void what_another_process_does_not_share_refuses_the_reopen(void **state)
{
    g_autofree char *path = make_file("conflict", NULL, 4096);
    g_autofree char *text = g_strdup_printf("driver=table,file.driver=file,file.filename=%s",
                                            path);
    BlockDriverState *bs = open_node_with(text, 0);
    GError *err = NULL;
    uint8_t buf[512];
    BlockBackend *blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL);

    assert_true(blk_insert_bs(blk, bs, NULL));
    bdrv_unref(bs);
    assert_locks(path, READ, WRITE | RESIZE);
    assert_int_equal(ask_peer('h', path, 201), 0);
    for (int i = 0; i < 2; i++) {
        assert_false(bdrv_reopen_set_read_only(bs, false, &err));
        assert_error_has(&err, "Failed to get \"write\" lock");
        assert_true(bdrv_is_read_only(bs));
        assert_locks(path, READ, WRITE | RESIZE);
        assert_int_equal(blk_pread(blk, 0, sizeof(buf), buf, 0), 0);
    }
    ask_peer('c', path, 0);
    assert_reopens(bs, false);
    assert_locks(path, READ | WRITE | RESIZE, WRITE | RESIZE);
    assert_reopens(bs, true);
    assert_locks(path, READ, WRITE | RESIZE);
    blk_unref(blk);
    ask_peer('c', path, 0);
}

static void failure_elsewhere_in_the_queue_leaves_the_locks_as_they_were(void **state)
{
    g_autofree char *one = make_file("one", NULL, 4096), *two = make_file("two", NULL, 4096);
    g_autofree char *text = g_strdup_printf("driver=table,file.driver=file,file.filename=%s", one);
    BlockDriverState *a = open_node_with(text, 0);
    BlockBackend *blk = blk_on(open_image(two, BDRV_O_RDWR), BLK_PERM_WRITE);
    BdrvReopenQueue *queue = bdrv_reopen_queue_new();
    g_autoptr(JsonObject) rw = options_of("read-only=off");
    g_autoptr(JsonObject) ro = options_of("read-only=on");
    GError *err = NULL;

    bdrv_reopen_queue_add(queue, a, rw);
    bdrv_reopen_queue_add(queue, blk_bs(blk), ro); /* it has a writer */
    assert_false(bdrv_reopen_queue_commit(queue, &err));
    assert_error_has(&err, "read-only");
    assert_locks(one, READ, WRITE | RESIZE);
    ask_peer('c', one, 0);
    assert_locks(two, WRITE | RESIZE, WRITE | RESIZE);
    ask_peer('c', two, 0);
    blk_unref(blk);
    bdrv_unref(a);
}

static BlockBackend *other_user;

/* What runs while a reopen waits may change permissions. */
static void change_permissions(void)
{
    GError *err = NULL;
    bool ok = blk_set_perm(other_user, 0, BLK_PERM_ALL, &err);

    assert_ok(ok, err);
}

static void change_of_permissions_in_between_is_not_in_its_way(void **state)
{
    g_autofree char *path = make_file("between", NULL, 4096);
    g_autofree char *text = g_strdup_printf("driver=table,file.driver=file,file.filename=%s",
                                            path);
    BlockDriverState *bs = open_node_with(text, 0);
    BlockDriverState *last = open_node_with("driver=table,node-name=last,file.driver=memory,"
                                            "file.size=4k", 0);
    BdrvReopenQueue *queue = bdrv_reopen_queue_new();
    g_autoptr(JsonObject) rw = options_of("read-only=off");
    GError *err = NULL;
    bool ok;

    other_user = blk_on(bs, BLK_PERM_CONSISTENT_READ);
    in_last_prepare = change_permissions;
    bdrv_reopen_queue_add(queue, last, rw);
    bdrv_reopen_queue_add(queue, bs, rw);
    ok = bdrv_reopen_queue_commit(queue, &err);
    assert_ok(ok, err);
    assert_locks(path, READ | WRITE | RESIZE, WRITE | RESIZE);
    blk_unref(other_user);
    bdrv_unref(last);
    ask_peer('c', path, 0);
}

static int setup(void **state)
{
    return driver_group_setup(state) < 0 || !bdrv_register(&table_driver, NULL) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(locks_follow_the_permissions),
        cmocka_unit_test(there_is_no_moment_without_locks),
        cmocka_unit_test(what_another_process_does_not_share_refuses_the_reopen),
        cmocka_unit_test(change_of_permissions_in_between_is_not_in_its_way),
        cmocka_unit_test(failure_elsewhere_in_the_queue_leaves_the_locks_as_they_were),
    };
    int ret;

    start_peer();
    ret = cmocka_run_group_tests(tests, setup, driver_group_teardown);
    close(peer.to);
    waitpid(peer.pid, NULL, 0);
    return ret;
}
