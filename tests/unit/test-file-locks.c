/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locks of the file driver: which bytes are held, who is kept out, and
 * what is said then; and files that may not be written. A second process with
 * the library in it plays the other user.
 */
#include "driver-testing.h"
#include "blockgraph/reopen.h"

#include <sys/wait.h>

/* ---- Backends as a format would use the file ---------------------------------------- */

/*
 * A backend on @options, whose reference it takes, that reads, writes and
 * resizes as the flags say, and lets nobody else write or resize. NULL with
 * @errp.
 */
static BlockBackend *try_open_alone(JsonObject *options, int flags, GError **errp)
{
    const uint64_t exclusive = BLK_PERM_WRITE | BLK_PERM_RESIZE;
    BlockDriverState *bs = bdrv_open(NULL, options, flags, NULL, errp);
    uint64_t perm = BLK_PERM_CONSISTENT_READ;
    BlockBackend *blk = NULL;

    json_object_unref(options);
    if (!bs) {
        return NULL;
    }
    perm |= bdrv_is_read_only(bs) ? 0 : BLK_PERM_WRITE;
    perm |= flags & BDRV_O_RESIZE ? BLK_PERM_RESIZE : 0;
    blk = blk_new(NULL, perm,
                  flags & BDRV_O_FORCE_SHARE ? BLK_PERM_ALL : BLK_PERM_ALL & ~exclusive, errp);
    if (!blk_insert_bs(blk, bs, errp)) {
        g_clear_pointer(&blk, blk_unref);
    }
    bdrv_unref(bs);
    return blk;
}

static BlockBackend *open_alone(JsonObject *options, int flags)
{
    GError *err = NULL;
    BlockBackend *blk = try_open_alone(options, flags, &err);

    assert_ok(blk != NULL, err);
    return blk;
}

static void assert_kept_out(JsonObject *options, int flags, const char *part)
{
    GError *err = NULL;

    assert_null(try_open_alone(options, flags, &err));
    assert_error_has(&err, part);
}

/* ---- The other process ----------------------------------------------------------- */

static FILE *to_peer, *from_peer;

/*
 * What the peer does with a line "COMMAND ARGUMENT": open ("o" and options),
 * open for writing ("w"), open for writing or else reading ("a"), close ("c"),
 * become nobody for good ("n"). It answers with one line.
 */
static void peer_command(BlockBackend **blk, char command, const char *argument, GError **errp)
{
    int flags = command == 'o' ? 0 : BDRV_O_RDWR;

    switch (command) {
    case 'o':
    case 'w':
    case 'a':
        flags |= command == 'a' ? BDRV_O_AUTO_RDONLY : 0;
        *blk = try_open_alone(options_of("driver=file,filename=%s", argument), flags, errp);
        break;
    case 'n':
        if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0)) {
            block_error_set_errno(errp, errno, "setuid");
        }
        break;
    default:
        g_clear_pointer(blk, blk_unref);
    }
}

static void peer_main(int in, int out)
{
    g_autoptr(GError) err = NULL;
    FILE *commands = fdopen(in, "r"), *answers = fdopen(out, "w");
    BlockBackend *blk = NULL;
    char line[1024];

    if (!blockgraph_init(NULL)) {
        _exit(1);
    }
    while (fgets(line, sizeof(line), commands)) {
        g_strchomp(line);
        peer_command(&blk, line[0], line + 2, &err);
        if (err) {
            g_strdelimit(err->message, "\n", '|');
        }
        fprintf(answers, "%s%s\n", err ? err->message : "ok",
                !err && blk && bdrv_is_read_only(blk_bs(blk)) ? " read-only" : "");
        fflush(answers);
        g_clear_error(&err);
    }
    blk_unref(blk);
    blockgraph_cleanup();
    fclose(commands);
    fclose(answers);
    exit(0);
}

/* Before the library is set up: a ring cannot be shared by a fork. */
static pid_t start_peer(void)
{
    int commands[2], answers[2];
    pid_t pid;

    if (pipe2(commands, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0) {
        return -1;
    }
    pid = fork();
    if (pid == 0) {
        close(commands[1]);
        close(answers[0]);
        peer_main(commands[0], answers[1]);
    }
    close(commands[0]);
    close(answers[1]);
    to_peer = fdopen(commands[1], "w");
    from_peer = fdopen(answers[0], "r");
    return pid;
}

/* Its answer must be @expected. */
static void ask_peer(char command, const char *argument, const char *expected)
{
    char line[1024];

    fprintf(to_peer, "%c %s\n", command, argument);
    fflush(to_peer);
    assert_non_null(fgets(line, sizeof(line), from_peer));
    g_strchomp(line);
    assert_string_equal(line, expected);
}

/* ---- Helpers ------------------------------------------------------------------------ */

/* The locked bytes of a file, as others see them: "100 201 ", to be freed. */
static char *locked_bytes(const char *path)
{
    GString *s = g_string_new(NULL);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    for (int byte = 0; byte < 300; byte++) {
        struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

        assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
        if (fl.l_type != F_UNLCK) {
            assert_int_equal(fl.l_type, F_RDLCK);
            g_string_append_printf(s, "%d ", byte);
        }
    }
    close(fd);
    return g_string_free(s, FALSE);
}

static void assert_locked(const char *path, const char *expected)
{
    g_autofree char *bytes = locked_bytes(path);

    assert_string_equal(bytes, expected);
}

static char *lock_message(const char *kind, const char *path, char newline)
{
    return g_strdup_printf("Failed to get %s lock%cIs another process using the image [%s]?", kind,
                           newline, path);
}

/* A node of @path with a backend that has exactly these permissions. */
static BlockBackend *open_with_perms(const char *path, uint64_t perm, uint64_t shared)
{
    g_autofree char *text = g_strdup_printf("driver=file,filename=%s", path);
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    BlockBackend *blk = blk_new(NULL, perm, shared, NULL);
    GError *err = NULL;

    assert_ok(blk_insert_bs(blk, bs, &err), err);
    bdrv_unref(bs);
    return blk;
}

/* ---- Which bytes --------------------------------------------------------------------- */

static void bytes_follow_from_the_permissions(void **state)
{
    g_autofree char *path = make_file("bytes", NULL, 4096);
    BlockBackend *blk;

    for (uint64_t perm = 0; perm <= BLK_PERM_ALL; perm++) {
        uint64_t shared = perm * 7 & BLK_PERM_ALL;
        GString *expected = g_string_new(NULL);

        for (int i = 0; i < 8; i++) {
            if ((i < 4 ? perm : ~shared) >> (i % 4) & 1) {
                g_string_append_printf(expected, "%d ", (i < 4 ? 100 : 200) + i % 4);
            }
        }
        blk = open_with_perms(path, perm, shared);
        assert_locked(path, expected->str);
        blk_unref(blk);
        assert_locked(path, "");
        g_string_free(expected, TRUE);
    }
}

static void readers_writers_and_sharers_hold_what_others_expect(void **state)
{
    g_autofree char *path = make_file("kinds", NULL, 4096);
    BlockBackend *blk = open_alone(options_of("driver=file,filename=%s", path), 0);

    assert_locked(path, "100 201 203 ");
    blk_unref(blk);
    blk = open_alone(options_of("driver=file,filename=%s", path), BDRV_O_RDWR | BDRV_O_RESIZE);
    assert_locked(path, "100 101 103 201 203 ");
    blk_unref(blk);
    blk = open_alone(options_of("driver=file,filename=%s", path), BDRV_O_FORCE_SHARE);
    assert_locked(path, "100 ");
    blk_unref(blk);
    blk = open_alone(options_of("driver=file,filename=%s,locking=off", path), BDRV_O_RDWR);
    assert_locked(path, "");
    blk_unref(blk);
}

static void changing_permissions_changes_the_bytes(void **state)
{
    g_autofree char *path = make_file("change", NULL, 4096);
    BlockBackend *blk = open_with_perms(path, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    GError *err = NULL;

    assert_locked(path, "100 ");
    assert_ok(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                           BLK_PERM_CONSISTENT_READ, &err), err);
    assert_locked(path, "100 101 201 202 203 ");
    assert_ok(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL & ~BLK_PERM_RESIZE, &err), err);
    assert_locked(path, "101 203 ");
    blk_unref(blk);
}

/* Another reference to the file that we have open, as the kernel has for a request. */
static int refer_to(const char *path)
{
    for (int fd = 3; fd < 1024; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (target && strcmp(target, path) == 0) {
            return dup(fd);
        }
    }
    return -1;
}

/* The kernel may still have the file when it is closed: the next to open must not wait. */
static void locks_end_with_the_node_not_with_the_file(void **state)
{
    g_autofree char *made = make_file("late", NULL, 4096), *path = realpath(made, NULL);
    BlockBackend *blk = open_alone(options_of("driver=file,filename=%s", path), BDRV_O_RDWR);
    int before = refer_to(path), after;
    GError *err = NULL;

    assert_true(before >= 0);
    assert_ok(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err), err);
    assert_ok(bdrv_reopen_set_read_only(blk_bs(blk), true, &err), err);
    after = refer_to(path);
    assert_true(after >= 0);
    assert_locked(path, "100 ");
    blk_unref(blk);
    assert_locked(path, "");
    close(before);
    close(after);
}

/* ---- Conflicts -------------------------------------------------------------------------- */

static void two_writers_exclude_each_other(void **state)
{
    g_autofree char *path = make_file("writers", NULL, 4096);
    g_autofree char *write_message = lock_message("\"write\"", path, '\n');
    g_autofree char *peer_message = lock_message("\"write\"", path, '|');
    BlockBackend *blk;

    ask_peer('w', path, "ok");
    assert_kept_out(options_of("driver=file,filename=%s", path), BDRV_O_RDWR, write_message);
    assert_locked(path, "100 101 201 203 "); /* the peer's; ours are released */
    ask_peer('c', "", "ok");
    assert_locked(path, "");
    blk = open_alone(options_of("driver=file,filename=%s", path), BDRV_O_RDWR);
    ask_peer('w', path, peer_message);
    blk_unref(blk);
    ask_peer('w', path, "ok");
    ask_peer('c', "", "ok");
}

static void a_reader_is_kept_from_what_is_written_unless_it_shares(void **state)
{
    g_autofree char *path = make_file("reader", NULL, 4096);
    g_autofree char *message = lock_message("shared \"write\"", path, '\n');

    ask_peer('w', path, "ok");
    assert_kept_out(options_of("driver=file,filename=%s", path), 0, message);
    blk_unref(open_alone(options_of("driver=file,filename=%s", path), BDRV_O_FORCE_SHARE));
    blk_unref(open_alone(options_of("driver=file,filename=%s,locking=off", path), 0));
    ask_peer('c', "", "ok");
}

static void readers_do_not_mind_each_other_but_keep_writers_out(void **state)
{
    g_autofree char *path = make_file("readers", NULL, 4096);
    g_autofree char *message = lock_message("\"write\"", path, '\n');

    ask_peer('o', path, "ok read-only");
    blk_unref(open_alone(options_of("driver=file,filename=%s", path), 0));
    assert_kept_out(options_of("driver=file,filename=%s", path), BDRV_O_RDWR, message);
    ask_peer('c', "", "ok");
}

static void a_refused_change_of_permissions_leaves_the_old_bytes(void **state)
{
    g_autofree char *path = make_file("refused", NULL, 4096);
    g_autofree char *message = lock_message("\"write\"", path, '\n');
    BlockBackend *blk = open_with_perms(path, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    GError *err = NULL;

    ask_peer('o', path, "ok read-only");
    assert_false(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, &err));
    assert_error_has(&err, message);
    ask_peer('c', "", "ok");
    assert_locked(path, "100 ");
    blk_unref(blk);
}

static void creating_over_an_image_in_use_is_refused_and_leaves_it(void **state)
{
    g_autofree uint8_t *data = pattern(4096, 1);
    g_autofree char *path = make_file("over", data, 4096);
    g_autofree char *message = lock_message("\"write\"", path, '\n');
    g_autoptr(JsonObject) options = options_of("size=1M");
    g_autofree uint8_t *after = NULL;
    GError *err = NULL;

    ask_peer('o', path, "ok read-only");
    assert_false(bdrv_create(bdrv_find_format("file"), path, options, &err));
    assert_error_has(&err, message);
    ask_peer('c', "", "ok");
    after = load_file(path, 4096);
    assert_memory_equal(after, data, 4096);
}

/* ---- Files that may not be written: last, since the peer becomes nobody ------------------- */

static void a_read_only_file_is_opened_for_writing_only_if_reading_will_do(void **state)
{
    g_autofree char *path = make_file("read-only", NULL, 4096);
    g_autofree char *denied = g_strdup_printf("Could not open '%s': Permission denied", path);

    assert_int_equal(chmod(test_dir, 0755), 0);
    assert_int_equal(chmod(path, 0444), 0);
    ask_peer('n', "", "ok");
    ask_peer('w', path, denied);
    ask_peer('a', path, "ok read-only");
    ask_peer('c', "", "ok");
    ask_peer('o', path, "ok read-only");
    ask_peer('c', "", "ok");
    assert_int_equal(chmod(path, 0), 0);
    ask_peer('o', path, denied);
    ask_peer('a', path, denied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_follow_from_the_permissions),
        cmocka_unit_test(readers_writers_and_sharers_hold_what_others_expect),
        cmocka_unit_test(changing_permissions_changes_the_bytes),
        cmocka_unit_test(locks_end_with_the_node_not_with_the_file),
        cmocka_unit_test(two_writers_exclude_each_other),
        cmocka_unit_test(a_reader_is_kept_from_what_is_written_unless_it_shares),
        cmocka_unit_test(readers_do_not_mind_each_other_but_keep_writers_out),
        cmocka_unit_test(a_refused_change_of_permissions_leaves_the_old_bytes),
        cmocka_unit_test(creating_over_an_image_in_use_is_refused_and_leaves_it),
        cmocka_unit_test(a_read_only_file_is_opened_for_writing_only_if_reading_will_do),
    };
    pid_t peer = start_peer();
    int ret, status = -1;

    if (peer < 0) {
        return 1;
    }
    ret = cmocka_run_group_tests_name("file-locks", tests, driver_group_setup,
                                      driver_group_teardown);
    fclose(to_peer);
    fclose(from_peer);
    waitpid(peer, &status, 0);
    return ret ? ret : status != 0;
}
