/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The null drivers: disks that take everything and keep nothing. null-co
 * completes at once, null-aio in a later turn of the loop; both after
 * latency-ns if that is set. What a read gives is left as it was in memory,
 * unless read-zeroes is on.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blockgraph/block-driver.h"

/* ---- State, opening ---------------------------------------------------------- */

typedef struct NullState {
    int64_t latency_ns;
    bool read_zeroes;
} NullState;

static const BlockOption null_options[] = {
    {"size", "size", "Size of the disk, 1 GiB by default"},
    {"latency-ns", "num", "How long a request takes, in nanoseconds"},
    {"read-zeroes", "bool", "Reads give zeros"},
    {NULL, NULL, NULL},
};

static JsonObject *parse_filename(const char *filename, const char *only, GError **errp)
{
    if (strcmp(filename, only) != 0) {
        block_error_set(errp, EINVAL, "The only allowed filename for this driver is '%s'", only);
        return NULL;
    }
    return json_object_new();
}

static JsonObject *null_co_parse_filename(const char *filename, GError **errp)
{
    return parse_filename(filename, "null-co://", errp);
}

static JsonObject *null_aio_parse_filename(const char *filename, GError **errp)
{
    return parse_filename(filename, "null-aio://", errp);
}

static bool null_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    NullState *s = bdrv_state(bs);
    int64_t size = 1 << 30;

    if (!block_options_take_size(options, "size", &size, errp) ||
        !block_options_take_int(options, "latency-ns", &s->latency_ns, errp) ||
        !block_options_take_bool(options, "read-zeroes", &s->read_zeroes, errp)) {
        return false;
    }
    if (s->latency_ns < 0) {
        block_error_set(errp, EINVAL, "latency-ns is invalid");
        return false;
    }
    if (size > BDRV_MAX_LENGTH) {
        block_error_set(errp, EINVAL, "size %" PRId64 " is too large", size);
        return false;
    }
    bdrv_set_length(bs, size);
    return true;
}

/* "null-co://" says it all unless there were options. */
static char *make_filename(BlockDriverState *bs, const char *filename)
{
    NullState *s = bdrv_state(bs);

    if (s->latency_ns || s->read_zeroes || bdrv_getlength(bs) != 1 << 30) {
        return NULL;
    }
    return g_strdup(filename);
}

static char *null_co_make_filename(BlockDriverState *bs)
{
    return make_filename(bs, "null-co://");
}

static char *null_aio_make_filename(BlockDriverState *bs)
{
    return make_filename(bs, "null-aio://");
}

/* ---- Requests ------------------------------------------------------------------ */

static void coroutine_fn null_wait(BlockDriverState *bs)
{
    NullState *s = bdrv_state(bs);

    if (s->latency_ns > 0) {
        co_sleep_ns(s->latency_ns);
    }
}

static void coroutine_fn null_aio_wait(BlockDriverState *bs)
{
    NullState *s = bdrv_state(bs);

    co_sleep_ns(s->latency_ns);
}

static void fill(BlockDriverState *bs, IOVector *iov, int64_t bytes)
{
    NullState *s = bdrv_state(bs);

    if (s->read_zeroes) {
        io_vector_memset(iov, 0, 0, bytes);
    }
}

static int coroutine_fn null_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *iov, int flags)
{
    fill(bs, iov, bytes);
    null_wait(bs);
    return 0;
}

static int coroutine_fn null_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *iov, int flags)
{
    null_wait(bs);
    return 0;
}

/* Where it takes no time, there is nothing to be done. */
static bool null_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                             AioRequest *req)
{
    NullState *s = bdrv_state(bs);

    if (s->latency_ns > 0) {
        return false;
    }
    if (type == BDRV_IO_READ) {
        fill(bs, iov, iov->size);
    }
    req->op = AIO_OP_NOP;
    req->ret = iov->size;
    return true;
}

static int coroutine_fn null_co_flush(BlockDriverState *bs)
{
    null_wait(bs);
    return 0;
}

static int coroutine_fn null_aio_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *iov, int flags)
{
    fill(bs, iov, bytes);
    null_aio_wait(bs);
    return 0;
}

static int coroutine_fn null_aio_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, int flags)
{
    null_aio_wait(bs);
    return 0;
}

static int coroutine_fn null_aio_flush(BlockDriverState *bs)
{
    null_aio_wait(bs);
    return 0;
}

/* Neither data nor zeros, unless they are promised. */
static int coroutine_fn null_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             int64_t *pnum, int64_t *map)
{
    NullState *s = bdrv_state(bs);

    *pnum = bytes;
    *map = offset;
    return s->read_zeroes ? BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ZERO : 0;
}

static int64_t coroutine_fn null_co_get_allocated_file_size(BlockDriverState *bs)
{
    return 0;
}

BlockDriver block_driver_null_co = {
    .format_name = "null-co",
    .protocol_name = "null-co",
    .instance_size = sizeof(NullState),
    .options = null_options,
    .bdrv_parse_filename = null_co_parse_filename,
    .bdrv_open = null_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_make_filename = null_co_make_filename,
    .bdrv_co_get_allocated_file_size = null_co_get_allocated_file_size,
    .bdrv_prepare_aio = null_prepare_aio,
    .bdrv_co_preadv = null_co_preadv,
    .bdrv_co_pwritev = null_co_pwritev,
    .bdrv_co_flush = null_co_flush,
    .bdrv_co_block_status = null_co_block_status,
};

BlockDriver block_driver_null_aio = {
    .format_name = "null-aio",
    .protocol_name = "null-aio",
    .instance_size = sizeof(NullState),
    .options = null_options,
    .bdrv_parse_filename = null_aio_parse_filename,
    .bdrv_open = null_open,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_make_filename = null_aio_make_filename,
    .bdrv_co_get_allocated_file_size = null_co_get_allocated_file_size,
    .bdrv_prepare_aio = null_prepare_aio,
    .bdrv_co_preadv = null_aio_preadv,
    .bdrv_co_pwritev = null_aio_pwritev,
    .bdrv_co_flush = null_aio_flush,
    .bdrv_co_block_status = null_co_block_status,
};
