/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A file's space: zeroing and discarding ranges, and telling holes from data.
 *
 * What a file system turns out not to do is remembered, so that it is asked
 * once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "drivers/file/file.h"

/*
 * -ENOTSUP for what this file cannot do, now (mounted devices are busy, odd
 * ranges invalid) or ever: then *@unsupported is set.
 */
static int check_support(int ret, bool *unsupported)
{
    if (ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENODEV || ret == -ENOTTY) {
        __atomic_store_n(unsupported, true, __ATOMIC_RELAXED);
        return -ENOTSUP;
    }
    return ret == -EINVAL || ret == -EBUSY || ret == -EPERM ? -ENOTSUP : ret;
}

/* fallocate() unless it is known not to work: 0, -ENOTSUP, or -errno. */
static int coroutine_fn try_fallocate(FileState *s, bool *unsupported, int mode, int64_t offset,
                                      int64_t bytes)
{
    AioRequest req = {
        .op = AIO_OP_FALLOCATE, .fd = s->fd, .mode = mode, .offset = offset, .bytes = bytes,
    };

    if (__atomic_load_n(unsupported, __ATOMIC_RELAXED)) {
        return -ENOTSUP;
    }
    return check_support(file_co_submit(&req), unsupported);
}

static int coroutine_fn punch_hole(FileState *s, int64_t offset, int64_t bytes)
{
    return try_fallocate(s, &s->no_punch_hole, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                         bytes);
}

/* Zeros that keep their place; makes the file longer where it ends before. */
static int coroutine_fn zero_range(FileState *s, int64_t offset, int64_t bytes)
{
    bool never = false;
    int ret = try_fallocate(s, &s->no_zero_range, FALLOC_FL_ZERO_RANGE, offset, bytes);

    if (ret != -ENOTSUP || s->is_device) {
        return ret;
    }
    ret = punch_hole(s, offset, bytes);
    return ret < 0 ? ret : try_fallocate(s, &never, 0, offset, bytes);
}

int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       int flags)
{
    FileState *s = bdrv_state(bs);
    int ret;

    if (flags & BDRV_REQ_MAY_UNMAP) {
        /* A hole beyond the end would not move the end; in its last sector it need not. */
        int64_t length = file_length(s->fd, s->is_device);

        if (offset + bytes <= length + (-length & (BDRV_SECTOR_SIZE - 1))) {
            ret = punch_hole(s, offset, bytes);
            if (ret != -ENOTSUP) {
                return ret;
            }
        }
    }
    if (s->is_device && (flags & BDRV_REQ_NO_FALLBACK)) {
        return -ENOTSUP; /* the kernel might write zeros itself */
    }
    return zero_range(s, offset, bytes);
}

/* ---- Discard ---------------------------------------------------------------------- */

typedef struct DiscardJob {
    int fd;
    uint64_t range[2]; /* offset, bytes */
} DiscardJob;

static int64_t discard_on_worker(void *opaque)
{
    DiscardJob *job = opaque;

    return ioctl(job->fd, BLKDISCARD, job->range) < 0 ? -errno : 0;
}

static int coroutine_fn discard_device(FileState *s, int64_t offset, int64_t bytes)
{
    DiscardJob job = {s->fd, {offset, bytes}};

    if (__atomic_load_n(&s->no_discard, __ATOMIC_RELAXED)) {
        return -ENOTSUP;
    }
    return check_support(aio_co_call(discard_on_worker, &job), &s->no_discard);
}

int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    FileState *s = bdrv_state(bs);
    int ret = s->is_device ? discard_device(s, offset, bytes) : punch_hole(s, offset, bytes);

    return ret == -ENOTSUP ? 0 : ret; /* a hint */
}

/* ---- Holes ------------------------------------------------------------------------- */

typedef struct RunJob {
    int fd;
    int64_t offset;
    int64_t end;  /* where the run that begins at offset ends */
    bool is_data;
} RunJob;

static int64_t find_run_on_worker(void *opaque)
{
    RunJob *job = opaque;
    off_t data = lseek(job->fd, job->offset, SEEK_DATA);
    off_t hole;

    job->is_data = true;
    job->end = INT64_MAX;
    if (data < 0) {
        if (errno == ENXIO) { /* a hole up to the end of the file, and beyond */
            job->is_data = false;
        }
        return 0; /* cannot tell: all is data */
    }
    if (data > job->offset) {
        job->is_data = false;
        job->end = data;
        return 0;
    }
    hole = lseek(job->fd, job->offset, SEEK_HOLE);
    if (hole > job->offset) {
        job->end = hole;
    }
    return 0;
}

/* The end of the known run of data around @offset, or 0. */
static int64_t lookup_run(FileState *s, int64_t offset)
{
    int64_t end;

    g_mutex_lock(&s->run_mutex);
    end = s->run_start <= offset && offset < s->run_end ? s->run_end : 0;
    g_mutex_unlock(&s->run_mutex);
    return end;
}

static void remember_run(FileState *s, int64_t start, int64_t end)
{
    g_mutex_lock(&s->run_mutex);
    s->run_start = start;
    s->run_end = end;
    g_mutex_unlock(&s->run_mutex);
}

int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map)
{
    FileState *s = bdrv_state(bs);
    RunJob job = {.fd = s->fd, .offset = offset, .is_data = true, .end = INT64_MAX};
    int64_t known_end;

    if (!s->is_device) {
        known_end = lookup_run(s, offset);
        if (known_end > 0) {
            job.end = known_end;
        } else {
            aio_co_call(find_run_on_worker, &job);
            /* Calling a hole data is always right; the other way is not. */
            if (job.is_data && bdrv_is_read_only(bs)) {
                remember_run(s, offset, job.end);
            }
        }
    }
    *pnum = MIN(bytes, job.end - offset);
    *map = offset;
    return BDRV_BLOCK_OFFSET_VALID | (job.is_data ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO);
}
