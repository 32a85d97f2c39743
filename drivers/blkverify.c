/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blkverify filter: writes go to two images, reads come from both and are
 * compared. "raw" is taken for right; what is wrong with "test" is told on
 * standard error, and the read fails. See docs/formats/blkverify.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blockgraph/block-driver.h"

/* ---- Opening ----------------------------------------------------------------------- */

static const BlockOption blkverify_options[] = {
    {"raw", "str", "The node that is right"},
    {"test", "str", "The node under test"},
    {"x-raw", "str", "Filename of the node that is right"},
    {"x-image", "str", "Filename of the node under test"},
    {NULL, NULL, NULL},
};

/* "blkverify:RAW:IMAGE" */
static JsonObject *blkverify_parse_filename(const char *filename, GError **errp)
{
    const char *raw = filename + strlen("blkverify:");
    const char *image = strchr(raw, ':');
    g_autofree char *raw_name = NULL;
    JsonObject *options;

    if (!image) {
        block_error_set(errp, EINVAL, "blkverify requires raw copy and original image path");
        return NULL;
    }
    raw_name = g_strndup(raw, image - raw);
    options = json_object_new();
    json_object_set_string_member(options, "x-raw", raw_name);
    json_object_set_string_member(options, "x-image", image + 1);
    return options;
}

/* Open child @name, whose filename may be in option @filename_key. */
static BdrvChild *open_copy(BlockDriverState *bs, JsonObject *options, const char *name,
                            const char *filename_key, int role, GError **errp)
{
    g_autofree char *filename = NULL;

    if (!block_options_take_string(options, filename_key, &filename, errp)) {
        return NULL;
    }
    return bdrv_open_child(filename, options, name, bs, role, false, errp);
}

static bool blkverify_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    BdrvChild *test;

    if (!open_copy(bs, options, "raw", "x-raw", BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, errp)) {
        return false;
    }
    test = open_copy(bs, options, "test", "x-image", BDRV_CHILD_DATA, errp);
    if (!test) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_set_length(bs, bdrv_getlength(bdrv_child_bs(test)));
    bdrv_graph_rdunlock_main_loop();
    return true;
}

static BdrvChild *raw_of(BlockDriverState *bs) GRAPH_RDLOCK
{
    return bdrv_get_child(bs, "raw");
}

static BdrvChild *test_of(BlockDriverState *bs) GRAPH_RDLOCK
{
    return bdrv_get_child(bs, "test");
}

static char *blkverify_make_filename(BlockDriverState *bs)
{
    const char *raw, *test;

    bdrv_graph_rdlock_main_loop();
    raw = bdrv_get_filename(bdrv_child_bs(raw_of(bs)));
    test = bdrv_get_filename(bdrv_child_bs(test_of(bs)));
    bdrv_graph_rdunlock_main_loop();
    if (!*raw || !*test || g_str_has_prefix(raw, "json:") || g_str_has_prefix(test, "json:")) {
        return NULL;
    }
    return g_strdup_printf("blkverify:%s:%s", raw, test);
}

/* ---- Requests ------------------------------------------------------------------------ */

/* What both copies said, or -EIO if they did not say the same. */
static int agreed(const char *what, int64_t offset, int64_t bytes, int raw_ret, int test_ret)
{
    raw_ret = MIN(raw_ret, 0);
    test_ret = MIN(test_ret, 0);
    if (raw_ret == test_ret) {
        return raw_ret;
    }
    g_printerr("blkverify: %s offset=%" PRId64 " bytes=%" PRId64 " return value mismatch %d != "
               "%d\n", what, offset, bytes, test_ret, raw_ret);
    return -EIO;
}

/* The first byte of @iov that is not as in @buf; -1 if there is none. */
static int64_t first_difference(const IOVector *iov, const uint8_t *buf)
{
    size_t done = 0;

    for (int i = 0; i < iov->niov; i++) {
        const uint8_t *piece = iov->iov[i].iov_base;
        size_t len = iov->iov[i].iov_len;

        if (memcmp(piece, buf + done, len) != 0) {
            for (size_t n = 0; n < len; n++) {
                if (piece[n] != buf[done + n]) {
                    return done + n;
                }
            }
        }
        done += len;
    }
    return -1;
}

static int coroutine_fn blkverify_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *iov, int flags)
{
    BlockDriverState *raw_bs;
    int64_t difference;
    uint8_t *buf;
    int ret;

    bdrv_graph_assert_readable();
    raw_bs = bdrv_child_bs(raw_of(bs));
    buf = bdrv_try_blockalign(raw_bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    ret = bdrv_co_pread(raw_of(bs), offset, bytes, buf, flags);
    ret = agreed("read", offset, bytes, ret,
                 bdrv_co_preadv(test_of(bs), offset, bytes, iov, flags));
    difference = ret < 0 ? -1 : first_difference(iov, buf);
    if (difference >= 0) {
        g_printerr("blkverify: read offset=%" PRId64 " bytes=%" PRId64 " contents mismatch at "
                   "offset %" PRId64 "\n", offset, bytes, offset + difference);
        ret = -EIO;
    }
    free(buf);
    return ret;
}

static int coroutine_fn blkverify_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             IOVector *iov, int flags)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_pwritev(raw_of(bs), offset, bytes, iov, flags);
    return agreed("write", offset, bytes, ret,
                  bdrv_co_pwritev(test_of(bs), offset, bytes, iov, flags));
}

static int coroutine_fn blkverify_co_flush(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bdrv_co_flush(bdrv_child_bs(test_of(bs))); /* the core flushes the other */
}

/* Both become as long, or it is an error; the length is that of "test". */
static int coroutine_fn blkverify_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                              BlockPrealloc prealloc, GError **errp)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_truncate(test_of(bs), offset, exact, prealloc, errp);
    if (ret >= 0) {
        ret = bdrv_co_truncate(raw_of(bs), offset, exact, BLOCK_PREALLOC_OFF, errp);
    }
    if (ret >= 0) {
        bdrv_set_length(bs, offset);
    }
    return ret;
}

static int64_t coroutine_fn blkverify_co_getlength(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bdrv_co_getlength(bdrv_child_bs(test_of(bs)));
}

/* As with QEMU: it does not tell. */
static int64_t coroutine_fn blkverify_co_get_allocated_file_size(BlockDriverState *bs)
{
    return -ENOTSUP;
}

BlockDriver block_driver_blkverify = {
    .format_name = "blkverify",
    .protocol_name = "blkverify",
    .options = blkverify_options,
    .is_filter = true,
    .bdrv_parse_filename = blkverify_parse_filename,
    .bdrv_open = blkverify_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_make_filename = blkverify_make_filename,
    .bdrv_co_get_allocated_file_size = blkverify_co_get_allocated_file_size,
    .bdrv_co_getlength = blkverify_co_getlength,
    .bdrv_co_preadv = blkverify_co_preadv,
    .bdrv_co_pwritev = blkverify_co_pwritev,
    .bdrv_co_flush = blkverify_co_flush,
    .bdrv_co_truncate = blkverify_co_truncate,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
};
