/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of drivers share: files to play with, backends on options, and
 * coroutine functions called from outside.
 */
#ifndef TESTS_DRIVER_TESTING_H
#define TESTS_DRIVER_TESTING_H

#include "block-testing.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directory of this test's files, without a slash at its end. */
static char *test_dir;

static inline int driver_group_setup(void **state)
{
    test_dir = g_dir_make_tmp("blockgraph-XXXXXX", NULL);
    return test_dir ? blockgraph_group_setup(state) : -1;
}

static inline int driver_group_teardown(void **state)
{
    GDir *dir = g_dir_open(test_dir, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(test_dir, name, NULL);

        g_remove(path);
    }
    g_clear_pointer(&dir, g_dir_close);
    g_rmdir(test_dir);
    g_free(test_dir);
    return blockgraph_group_teardown(state);
}

/* The path of test file @name; free with g_free(). */
static inline char *test_path(const char *name)
{
    return g_build_filename(test_dir, name, NULL);
}

/* Make test file @name from @size bytes at @data (NULL: a hole); its path. */
static inline char *make_file(const char *name, const void *data, size_t size)
{
    char *path = test_path(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    if (data) {
        assert_int_equal(write(fd, data, size), size);
    } else {
        assert_int_equal(ftruncate(fd, size), 0);
    }
    close(fd);
    return path;
}

/* Read the whole file; its size must be @size. Free with g_free(). */
static inline uint8_t *load_file(const char *path, size_t size)
{
    char *data = NULL;
    gsize length = 0;

    assert_true(g_file_get_contents(path, &data, &length, NULL));
    assert_int_equal(length, size);
    return (uint8_t *)data;
}

/* Options from printf-like "key=value,…". */
static inline JsonObject *options_of(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static inline JsonObject *options_of(const char *fmt, ...)
{
    g_autofree char *text = NULL;
    GError *err = NULL;
    JsonObject *options;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    options = block_options_parse(text, NULL, &err);
    assert_ok(options != NULL, err);
    return options;
}

/* A backend on @options, whose reference it takes; NULL with @errp. */
static inline BlockBackend *try_open(JsonObject *options, int flags, GError **errp)
{
    BlockBackend *blk = blk_new_open(NULL, options, flags, &block_open_policy_follow, errp);

    json_object_unref(options);
    return blk;
}

static inline BlockBackend *open_blk(JsonObject *options, int flags)
{
    GError *err = NULL;
    BlockBackend *blk = try_open(options, flags, &err);

    assert_ok(blk != NULL, err);
    return blk;
}

/* Opening must fail with @part in the text; takes @options' reference. */
static inline void assert_open_fails(JsonObject *options, int flags, const char *part)
{
    GError *err = NULL;
    BlockBackend *blk = try_open(options, flags, &err);

    assert_null(blk);
    assert_error_has(&err, part);
}

/* @size bytes that look random and are the same each time. */
static inline uint8_t *pattern(size_t size, uint32_t seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    uint8_t *data = g_malloc(size);

    for (size_t i = 0; i < size; i += sizeof(guint32)) {
        guint32 word = g_rand_int(rand);

        memcpy(data + i, &word, MIN(sizeof(word), size - i));
    }
    return data;
}

/* [offset, offset + bytes) of @blk must be what @expected is, or zeros if NULL. */
static inline void assert_reads(BlockBackend *blk, int64_t offset, int64_t bytes,
                                const uint8_t *expected)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    g_autofree uint8_t *zeros = g_malloc0(bytes);

    memset(buf, 0x5a, bytes);
    assert_int_equal(blk_pread(blk, offset, bytes, buf, 0), 0);
    if (memcmp(buf, expected ? expected : zeros, bytes) != 0) { /* much faster */
        assert_memory_equal(buf, expected ? expected : zeros, bytes); /* says where */
    }
}

/* Block status of the node at the top of @blk only. */
static inline int status_of(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t *pnum,
                            int64_t *map)
{
    return bdrv_block_status_above(blk_bs(blk), NULL, offset, bytes, pnum, map, NULL, NULL);
}

/* The run at @offset must be @pnum long, and data or zeros. */
static inline void assert_status(BlockBackend *blk, int64_t offset, int64_t pnum, int flags)
{
    int64_t n = 0, map = -1;
    int ret = status_of(blk, offset, INT64_MAX / 2 - offset, &n, &map);

    assert_true(ret >= 0);
    assert_int_equal(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO), flags);
    assert_int_equal(n, pnum);
}

#endif
