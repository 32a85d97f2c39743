/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying from file to file inside of the kernel, which on some file systems moves no data
 * at all.
 *
 * What does not work between two files is remembered by the device of the source, so that
 * it is not tried again for each range.
 */
#include <errno.h>
#include <unistd.h>

#include "drivers/file/file.h"

typedef struct CopyJob {
    int from_fd;
    int fd;
    int64_t from_offset;
    int64_t offset;
    int64_t bytes;
} CopyJob;

static int64_t copy_on_worker(void *opaque)
{
    CopyJob *job = opaque;
    off_t from = job->from_offset, to = job->offset;
    int64_t end = job->offset + job->bytes;

    while (to < end) {
        ssize_t n = copy_file_range(job->from_fd, &from, job->fd, &to, end - to, 0);

        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            return -ENODATA; /* the source ends: zeros follow, which others write */
        }
    }
    return 0;
}

/* Whether the kernel says that it never copies from the one file to the other. */
static bool is_refusal(int ret)
{
    return ret == -EXDEV || ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -EINVAL;
}

int coroutine_fn file_co_copy_range(BlockDriverState *bs, int64_t offset, BlockDriverState *src,
                                    int64_t src_offset, int64_t bytes)
{
    FileState *s = bdrv_state(bs);
    const FileState *from = bdrv_state(src);
    CopyJob job = {from->fd, s->fd, src_offset, offset, bytes};
    int ret;

    if (__atomic_load_n(&s->no_copy_range, __ATOMIC_ACQUIRE) &&
        __atomic_load_n(&s->no_copy_dev, __ATOMIC_RELAXED) == from->dev) {
        return -ENOTSUP;
    }
    ret = aio_co_call(copy_on_worker, &job);
    if (is_refusal(ret)) {
        __atomic_store_n(&s->no_copy_dev, from->dev, __ATOMIC_RELAXED);
        __atomic_store_n(&s->no_copy_range, true, __ATOMIC_RELEASE);
    }
    return is_refusal(ret) || ret == -ENODATA ? -ENOTSUP : ret;
}
