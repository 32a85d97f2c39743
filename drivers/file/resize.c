/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The length of a file: asking it, changing it with space set aside for it,
 * and making new files.
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

#define FILL_BYTES (1 << 20)

int64_t file_length(int fd, bool is_device)
{
    struct stat st;
    uint64_t bytes;

    if (is_device) {
        if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) {
            return -errno;
        }
        return MIN(bytes, (uint64_t)BDRV_MAX_LENGTH);
    }
    /* What the kernel makes up when it is read (/proc) has no length, and says so here. */
    if (fstat(fd, &st) < 0 || (st.st_size == 0 && lseek(fd, 0, SEEK_END) < 0)) {
        return -errno;
    }
    return st.st_size;
}

/* ---- Changing it: on a worker thread, or while an image is made -------------------- */

typedef struct ResizeJob {
    int fd;
    int64_t old_length;
    int64_t length;
    BlockPrealloc prealloc;
    const char *failed; /* what did not work */
} ResizeJob;

/* Write zeros over [from, to). */
static int fill_with_zeros(int fd, int64_t from, int64_t to)
{
    g_autofree void *zeros = g_try_malloc0(FILL_BYTES);
    ssize_t n;

    if (!zeros) {
        return -ENOMEM;
    }
    while (from < to) {
        n = pwrite(fd, zeros, MIN(to - from, FILL_BYTES), from);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        from += MAX(n, 0);
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int preallocate(ResizeJob *job)
{
    if (job->prealloc == BLOCK_PREALLOC_OFF || job->length == job->old_length) {
        return 0;
    }
    if (job->prealloc == BLOCK_PREALLOC_FALLOC) {
        job->failed = "Could not preallocate data for the new file";
        /* Unlike fallocate(), this makes do with writing where it has to. */
        return -posix_fallocate(job->fd, job->old_length, job->length - job->old_length);
    }
    job->failed = "Could not write zeros for preallocation";
    return fill_with_zeros(job->fd, job->old_length, job->length);
}

static int64_t resize_job(void *opaque)
{
    ResizeJob *job = opaque;
    int ret;

    job->failed = "Failed to resize the file";
    if (ftruncate(job->fd, job->length) < 0) {
        return -errno;
    }
    ret = preallocate(job);
    if (ret < 0 && ftruncate(job->fd, job->old_length) < 0) {
        job->failed = "Failed to restore the old file length";
    }
    return ret;
}

static bool check_prealloc(BlockPrealloc prealloc, int64_t old_length, int64_t length,
                           GError **errp)
{
    if (prealloc == BLOCK_PREALLOC_METADATA) {
        block_error_set(errp, ENOTSUP, "Unsupported preallocation mode: %s",
                        block_prealloc_words[prealloc]);
        return false;
    }
    if (prealloc != BLOCK_PREALLOC_OFF && length < old_length) {
        block_error_set(errp, EINVAL, "Cannot use preallocation for shrinking files");
        return false;
    }
    return true;
}

static int truncate_device(int64_t have, int64_t offset, bool exact, BlockPrealloc prealloc,
                           GError **errp)
{
    if (prealloc != BLOCK_PREALLOC_OFF) {
        block_error_set(errp, ENOTSUP, "Unsupported preallocation mode: %s",
                        block_prealloc_words[prealloc]);
        return -ENOTSUP;
    }
    if (exact && offset != have) {
        block_error_set(errp, ENOTSUP, "Cannot resize device files");
        return -ENOTSUP;
    }
    if (offset > have) {
        block_error_set(errp, EINVAL, "Cannot grow device files");
        return -EINVAL;
    }
    return 0;
}

int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                  BlockPrealloc prealloc, GError **errp)
{
    FileState *s = bdrv_state(bs);
    ResizeJob job = {.fd = s->fd, .length = offset, .prealloc = prealloc};
    int ret;

    job.old_length = file_length(s->fd, s->is_device);
    if (job.old_length < 0) {
        block_error_set_errno(errp, job.old_length, "Could not get the length of '%s'",
                              s->filename);
        return job.old_length;
    }
    if (s->is_device) {
        return truncate_device(job.old_length, offset, exact, prealloc, errp);
    }
    if (!check_prealloc(prealloc, job.old_length, offset, errp)) {
        return prealloc == BLOCK_PREALLOC_METADATA ? -ENOTSUP : -EINVAL;
    }
    ret = aio_co_call(resize_job, &job);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "%s", job.failed);
        return ret;
    }
    bdrv_set_length(bs, offset);
    return 0;
}

/* ---- New files ------------------------------------------------------------------------ */

const BlockOption file_create_options[] = {
    {"size", "size", "Virtual disk size"},
    {"nocow", "bool", "Turn off copy-on-write (valid only on btrfs)"},
    {"preallocation", "str", "Preallocation mode (allowed values: off, falloc, full)"},
    {"extent_size_hint", "size", "Extent size hint for the image file, 0 to disable"},
    {NULL, NULL, NULL},
};

const BlockOption host_device_create_options[] = {
    {"size", "size", "Virtual disk size"},
    {"preallocation", "str", "Preallocation mode (allowed values: off)"},
    {NULL, NULL, NULL},
};

typedef struct CreateOptions {
    int64_t size;
    int64_t extent_size_hint;
    int prealloc;
    bool nocow;
} CreateOptions;

static bool take_create_options(JsonObject *options, CreateOptions *opts, GError **errp)
{
    opts->extent_size_hint = 1 << 20;
    if (!block_options_take_size(options, "size", &opts->size, errp) ||
        !block_options_take_enum(options, "preallocation", block_prealloc_words, &opts->prealloc,
                                 errp) ||
        !block_options_take_bool(options, "nocow", &opts->nocow, errp) ||
        !block_options_take_size(options, "extent_size_hint", &opts->extent_size_hint, errp) ||
        !check_prealloc(opts->prealloc, 0, opts->size, errp)) {
        return false;
    }
    if (opts->extent_size_hint > UINT32_MAX) {
        block_error_set(errp, EINVAL, "Extent size hint is too large");
        return false;
    }
    if (opts->size > BDRV_MAX_LENGTH) {
        block_error_set(errp, EFBIG, "Could not resize file: the size %" PRId64 " is too large",
                        opts->size);
        return false;
    }
    /* Disks are counted in sectors. */
    opts->size += -opts->size & (BDRV_SECTOR_SIZE - 1);
    return true;
}

/* Hints to the file system, which may well not know them. */
static void give_hints(int fd, const CreateOptions *opts)
{
    struct fsxattr attr;
    int flags;

    if (opts->nocow && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    if (opts->extent_size_hint > 0 && ioctl(fd, FS_IOC_FSGETXATTR, &attr) == 0) {
        attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attr.fsx_extsize = opts->extent_size_hint;
        ioctl(fd, FS_IOC_FSSETXATTR, &attr);
    }
}

static bool make_regular(int fd, const char *filename, const CreateOptions *opts, GError **errp)
{
    ResizeJob job = {.fd = fd, .length = opts->size, .prealloc = opts->prealloc};
    int ret;

    if (ftruncate(fd, 0) < 0) {
        block_error_set_errno(errp, errno, "Could not clear file '%s'", filename);
        return false;
    }
    give_hints(fd, opts);
    ret = resize_job(&job);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not create '%s': %s", filename, job.failed);
        return false;
    }
    return true;
}

static bool check_device_prealloc(const CreateOptions *opts, GError **errp)
{
    if (opts->prealloc != BLOCK_PREALLOC_OFF) {
        block_error_set(errp, ENOTSUP, "Unsupported preallocation mode '%s'",
                        block_prealloc_words[opts->prealloc]);
        return false;
    }
    return true;
}

/* A device cannot be made, but lose what stood on it. */
static bool make_on_device(int fd, const char *filename, const CreateOptions *opts, GError **errp)
{
    uint8_t sector[BDRV_SECTOR_SIZE] = {0};
    int64_t have = file_length(fd, true);

    if (!check_device_prealloc(opts, errp)) {
        return false;
    }
    if (have < 0) {
        block_error_set_errno(errp, have, "Could not create '%s'", filename);
        return false;
    }
    if (have < opts->size) {
        block_error_set(errp, ENOSPC,
                        "Could not create '%s': the device has %" PRId64 " bytes, fewer than %"
                        PRId64, filename, have, opts->size);
        return false;
    }
    if (have > 0 && pwrite(fd, sector, sizeof(sector), 0) != sizeof(sector)) {
        block_error_set_errno(errp, errno, "Could not clear the first sector of '%s'", filename);
        return false;
    }
    return true;
}

/* Open for making; @st tells what it is. */
static int open_new(const char *filename, struct stat *st, GError **errp)
{
    int fd = -1;

    if (stat(filename, st) == 0 && !S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode)) {
        errno = S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
    } else {
        fd = open(filename, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    }
    if (fd < 0 || fstat(fd, st) < 0) {
        block_error_set_errno(errp, errno, "Could not create '%s'", filename);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

/* Make what @fd is open for; closes it. */
static bool make_and_close(int fd, const struct stat *st, const char *filename,
                           const CreateOptions *opts, GError **errp)
{
    /* Nobody may resize what is being made. */
    FileLockSet locks = {BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_RESIZE};
    bool ok = file_lock_take(fd, locks, filename, errp) &&
              (S_ISREG(st->st_mode) ? make_regular(fd, filename, opts, errp)
                                    : make_on_device(fd, filename, opts, errp));

    if (close(fd) < 0 && ok) { /* releases the locks, too */
        block_error_set_errno(errp, errno, "Could not create '%s'", filename);
        ok = false;
    }
    return ok;
}

bool file_create(const char *filename, JsonObject *options, GError **errp)
{
    CreateOptions opts = {0};
    struct stat st;
    int fd;

    filename = file_skip_protocol(filename);
    if (!take_create_options(options, &opts, errp)) {
        return false;
    }
    fd = open_new(filename, &st, errp);
    return fd >= 0 && make_and_close(fd, &st, filename, &opts, errp);
}

/* A device must be there; a file of its name is neither made nor touched. */
bool host_device_create(const char *filename, JsonObject *options, GError **errp)
{
    static const char no_device[] =
        "Protocol driver 'host_device' does not support creating new images, so an existing image "
        "must be selected as the target; however, opening the given target as an existing image "
        "failed: ";
    CreateOptions opts = {0};
    struct stat st;
    int fd;

    filename = file_skip_protocol(filename);
    if (!take_create_options(options, &opts, errp) || !check_device_prealloc(&opts, errp)) {
        return false;
    }
    fd = open(filename, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        block_error_set_errno(errp, errno, "%sCould not open '%s'", no_device, filename);
    } else if (!S_ISBLK(st.st_mode)) {
        block_error_set(errp, EINVAL, "%s'host_device' driver requires '%s' to be a block device",
                        no_device, filename);
    } else {
        return make_and_close(fd, &st, filename, &opts, errp);
    }
    if (fd >= 0) {
        close(fd);
    }
    return false;
}

void file_delete(const char *filename)
{
    struct stat st;

    filename = file_skip_protocol(filename);
    if (lstat(filename, &st) == 0 && S_ISREG(st.st_mode)) {
        unlink(filename);
    }
}
