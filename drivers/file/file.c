/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The drivers file and host_device: a regular file or a block device of this machine.
 *
 * Here: opening, closing, small questions, and the drivers' tables.
 */
#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/file/file.h"

/* ---- Opening ------------------------------------------------------------------- */

static const BlockOption file_options[] = {
    {"filename", "str", "Path of the file"},
    {"locking", "str", "Image locks (allowed values: auto, on, off)"},
    {"aio", "str", "Taken for compatibility: the loop's engine does the I/O"},
    {"aio-max-batch", "num", "Taken for compatibility: the engine decides"},
    {"drop-cache", "bool", "Taken for compatibility"},
    {NULL, NULL, NULL},
};

static const char *const weak_options[] = {
    "locking", "aio", "aio-max-batch", "drop-cache", NULL,
};

const char *file_skip_protocol(const char *filename)
{
    if (g_str_has_prefix(filename, "file:")) {
        return filename + strlen("file:");
    }
    return filename + (g_str_has_prefix(filename, "host_device:") ? strlen("host_device:") : 0);
}

static JsonObject *file_parse_filename(const char *filename, GError **errp)
{
    JsonObject *options = json_object_new();

    json_object_set_string_member(options, "filename", file_skip_protocol(filename));
    return options;
}

/* A path with a colon before any slash would be taken for a protocol's. */
static char *file_make_filename(BlockDriverState *bs)
{
    FileState *s = bdrv_state(bs);

    return s->filename[strcspn(s->filename, ":/")] == ':' ? g_strdup_printf("./%s", s->filename)
                                                          : g_strdup(s->filename);
}

static bool take_options(BlockDriverState *bs, FileState *s, JsonObject *options, GError **errp)
{
    static const char *const locking_words[] = {"auto", "on", "off", NULL};
    static const char *const aio_words[] = {"threads", "native", "io_uring", NULL};
    int locking = 0, aio = 0;
    int64_t max_batch = 0;
    bool drop_cache = true;

    if (!block_options_take_string(options, "filename", &s->filename, errp) ||
        !block_options_take_enum(options, "locking", locking_words, &locking, errp) ||
        !block_options_take_enum(options, "aio", aio_words, &aio, errp) ||
        !block_options_take_int(options, "aio-max-batch", &max_batch, errp) ||
        !block_options_take_bool(options, "drop-cache", &drop_cache, errp)) {
        return false;
    }
    if (strcmp(aio_words[aio], "native") == 0 && !s->direct) {
        block_error_set(errp, EINVAL, "aio=native was specified, but it requires "
                                      "cache.direct=on, which was not specified.");
        return false;
    }
    if (!s->filename || !*s->filename) {
        block_error_set(errp, EINVAL, "The '%s' block driver requires a file name",
                        bdrv_get_format_name(bs));
        return false;
    }
    s->use_locks = locking != 2;
    s->locks_if_any = locking == 0;
    return true;
}

/* Each of the drivers has its type. */
static bool check_type(const FileState *s, const struct stat *st, GError **errp)
{
    if (s->is_device ? S_ISBLK(st->st_mode) : S_ISREG(st->st_mode)) {
        return true;
    }
    block_error_set(errp, EINVAL,
                    s->is_device ? "'host_device' driver requires '%s' to be a block device"
                                 : "'file' driver requires '%s' to be a regular file",
                    s->filename);
    return false;
}

int file_open_fd(FileState *s, bool writable, GError **errp)
{
    /* Not to hang on a FIFO that took the file's name meanwhile. */
    int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
    int err = 0;

    s->fd = open(s->filename, flags | (s->direct ? O_DIRECT : 0));
    if (s->fd < 0) {
        err = errno;
    } else if (writable && s->is_device) {
        int read_only = 0;

        if (ioctl(s->fd, BLKROGET, &read_only) == 0 && read_only) {
            close(s->fd);
            s->fd = -1;
            err = EACCES;
        }
    }
    if (err == EINVAL && s->direct) {
        block_error_set(errp, err, "Could not open '%s': filesystem does not support O_DIRECT",
                        s->filename);
    } else if (err != 0) {
        block_error_set_errno(errp, err, "Could not open '%s'", s->filename);
    }
    return -err;
}

static bool open_file(BlockDriverState *bs, FileState *s, bool writable, GError **errp)
{
    g_autoptr(GError) err = NULL;
    int ret = file_open_fd(s, writable, &err);

    if (writable && (ret == -EACCES || ret == -EPERM || ret == -EROFS)) {
        if (!bdrv_apply_auto_read_only(bs, err->message, errp)) {
            return false;
        }
        g_clear_error(&err);
        ret = file_open_fd(s, false, &err);
    }
    if (ret < 0) {
        g_propagate_error(errp, g_steal_pointer(&err));
        return false;
    }
    return true;
}

bool file_look_at(FileState *s, GError **errp)
{
    int sector_size, flags = fcntl(s->fd, F_GETFL);
    struct stat st;

    if (fstat(s->fd, &st) < 0 || flags < 0 || fcntl(s->fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        block_error_set_errno(errp, errno, "Could not open '%s'", s->filename);
        return false;
    }
    if (!check_type(s, &st, errp)) {
        return false;
    }
    s->dev = s->is_device ? st.st_rdev : st.st_dev;
    s->ino = s->is_device ? 0 : st.st_ino; /* no file has inode 0 */
    s->sector_size = 1;
    if (s->is_device) {
        if (ioctl(s->fd, BLKSSZGET, &sector_size) < 0 || sector_size <= 0) {
            block_error_set_errno(errp, errno, "Could not get the sector size of '%s'",
                                  s->filename);
            return false;
        }
        s->sector_size = sector_size;
    }
    return !s->direct || file_detect_alignment(s, errp);
}

static bool set_length(BlockDriverState *bs, FileState *s, GError **errp)
{
    int64_t length = file_length(s->fd, s->is_device);

    if (length < 0) {
        block_error_set_errno(errp, length, "Could not get the length of '%s'", s->filename);
        return false;
    }
    if (length > BDRV_MAX_LENGTH) {
        block_error_set(errp, EFBIG, "Could not open '%s': its length %" PRId64 " is too large",
                        s->filename, length);
        return false;
    }
    bdrv_set_length(bs, length);
    return true;
}

static void file_close(BlockDriverState *bs)
{
    FileState *s = bdrv_state(bs);

    if (s->fd >= 0) {
        file_lock_release_all(s->fd);
        close(s->fd);
    }
    g_free(s->filename);
    g_mutex_clear(&s->run_mutex);
}

static bool file_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    FileState *s = bdrv_state(bs);
    struct stat st;

    s->fd = -1;
    s->is_device = strcmp(bdrv_get_format_name(bs), "host_device") == 0;
    s->direct = flags & BDRV_O_NOCACHE;
    s->no_flush = flags & BDRV_O_NO_FLUSH;
    g_mutex_init(&s->run_mutex);
    if (!take_options(bs, s, options, errp)) {
        goto fail;
    }
    /* Opening may have effects of its own: only what is wanted. That of a folder has none. */
    if (stat(s->filename, &st) == 0 && !(S_ISDIR(st.st_mode) && (flags & BDRV_O_RDWR)) &&
        !check_type(s, &st, errp)) {
        goto fail;
    }
    if (open_file(bs, s, flags & BDRV_O_RDWR, errp) && file_look_at(s, errp) &&
        set_length(bs, s, errp)) {
        s->use_locks = s->use_locks && (!s->locks_if_any || file_can_lock(s->fd));
        return true;
    }
fail:
    file_close(bs);
    return false;
}

/* ---- Questions ------------------------------------------------------------------------ */

static void file_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    FileState *s = bdrv_state(bs);

    if (s->direct) {
        limits->request_alignment = s->request_alignment;
        limits->min_mem_alignment = s->memory_alignment;
    }
    limits->pwrite_zeroes_alignment = s->sector_size;
    limits->pdiscard_alignment = s->sector_size;
}

static int64_t coroutine_fn file_co_getlength(BlockDriverState *bs)
{
    FileState *s = bdrv_state(bs);

    return file_length(s->fd, s->is_device);
}

static int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs)
{
    FileState *s = bdrv_state(bs);
    struct stat st;

    return fstat(s->fd, &st) < 0 ? -errno : (int64_t)st.st_blocks * 512;
}

static int coroutine_fn file_co_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    *info = (BlockDriverInfo){0};
    return 0;
}

static JsonObject *file_get_specific_info(BlockDriverState *bs, GError **errp)
{
    JsonObject *info = json_object_new();

    json_object_set_string_member(info, "type", "file");
    json_object_set_object_member(info, "data", json_object_new());
    return info;
}

static bool file_get_identity(BlockDriverState *bs, uint64_t *dev, uint64_t *ino)
{
    FileState *s = bdrv_state(bs);

    *dev = s->dev;
    *ino = s->ino;
    return true;
}

static bool host_device_probe(const char *filename)
{
    struct stat st;

    return stat(filename, &st) == 0 && S_ISBLK(st.st_mode);
}

/* What both do. */
#define FILE_DRIVER(NAME, CREATE)                                                                  \
    .format_name = (NAME),                                                                         \
    .protocol_name = (NAME),                                                                       \
    .instance_size = sizeof(FileState),                                                            \
    .options = file_options,                                                                       \
    .weak_options = weak_options,                                                                  \
    .create_options = CREATE##_create_options,                                                     \
    .bdrv_parse_filename = file_parse_filename,                                                    \
    .bdrv_make_filename = file_make_filename,                                                      \
    .bdrv_open = file_open,                                                                        \
    .bdrv_close = file_close,                                                                      \
    .bdrv_reopen_prepare = file_reopen_prepare,                                                    \
    .bdrv_reopen_commit = file_reopen_commit,                                                      \
    .bdrv_reopen_abort = file_reopen_abort,                                                        \
    .bdrv_check_perm = file_check_perm,                                                            \
    .bdrv_set_perm = file_set_perm,                                                                \
    .bdrv_abort_perm = file_abort_perm,                                                            \
    .bdrv_refresh_limits = file_refresh_limits,                                                    \
    .bdrv_get_specific_info = file_get_specific_info,                                              \
    .bdrv_get_identity = file_get_identity,                                                        \
    .bdrv_create = CREATE##_create,                                                                \
    .bdrv_delete = file_delete,                                                                    \
    .bdrv_co_get_info = file_co_get_info,                                                          \
    .bdrv_co_get_allocated_file_size = file_co_get_allocated_file_size,                            \
    .bdrv_co_getlength = file_co_getlength,                                                        \
    .bdrv_prepare_aio = file_prepare_aio,                                                          \
    .bdrv_co_preadv = file_co_preadv,                                                              \
    .bdrv_co_copy_range = file_co_copy_range,                                                      \
    .bdrv_co_pwritev = file_co_pwritev,                                                            \
    .bdrv_co_pwrite_zeroes = file_co_pwrite_zeroes,                                                \
    .bdrv_co_pdiscard = file_co_pdiscard,                                                          \
    .bdrv_co_flush = file_co_flush,                                                                \
    .bdrv_co_truncate = file_co_truncate,                                                          \
    .bdrv_co_block_status = file_co_block_status,                                                  \
    .supported_write_flags = BDRV_REQ_FUA,                                                         \
    .supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK

BlockDriver block_driver_file = { FILE_DRIVER("file", file) };
BlockDriver block_driver_host_device = {
    FILE_DRIVER("host_device", host_device),
    .bdrv_probe_device = host_device_probe,
};
