/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file driver from the inside: what its files share.
 *
 * Invariants:
 *  1. The node has one descriptor, open as long as the node is; a reopen puts another
 *     in its place, which has all locks before the old one is closed.
 *  2. The lock bytes held are those of lock.perm and lock.unshared; while a
 *     change of permissions is being tried, also those of the new ones.
 *  3. Once a flush has failed, flush_error stays set: the kernel reports lost
 *     pages once, so that no later flush may say that all is well.
 */
#ifndef DRIVERS_FILE_FILE_H
#define DRIVERS_FILE_FILE_H

#include "blockgraph/block-driver.h"

/* Locked bytes, as sets of BlkPerm. */
typedef struct FileLockSet {
    uint64_t perm;     /* held */
    uint64_t unshared; /* not shared with others */
} FileLockSet;

/* What the file is to become while it is being reopened. */
typedef struct FileReopen {
    int fd; /* -1: the old descriptor serves */
    bool direct;
    bool no_flush;
    uint32_t request_alignment;
    uint32_t memory_alignment;
} FileReopen;

typedef struct FileState {
    int fd;
    char *filename;
    bool is_device;    /* a block device, else a regular file */
    bool direct;       /* O_DIRECT */
    bool no_flush;
    bool use_locks;
    bool locks_if_any; /* only if the file system has them; until the file is open */
    uint64_t dev;      /* which file it is */
    uint64_t ino;
    uint32_t sector_size;       /* block devices; else 1 */
    uint32_t request_alignment; /* bytes, when direct */
    uint32_t memory_alignment;  /* bytes, when direct */
    FileLockSet lock;
    FileLockSet lock_new;
    FileReopen *reopen; /* NULL: it is not */
    int flush_error; /* atomic: 0 or -errno */
    /* Atomic: found out to be impossible on this file. */
    bool no_zero_range;
    bool no_punch_hole;
    bool no_discard;
    bool no_copy_range; /* at least not from files of the device below */
    uint64_t no_copy_dev;
    /* The run of data that SEEK_DATA found last, on read-only nodes. */
    GMutex run_mutex;
    int64_t run_start;
    int64_t run_end;
} FileState;

/* Length in bytes of what @fd is, or -errno. */
int64_t file_length(int fd, bool is_device);
/* Open s->filename into s->fd; -errno with @errp if that fails. */
int file_open_fd(FileState *s, bool writable, GError **errp);
/* Find out about s->fd which file it is, of what kind, and its alignment. */
bool file_look_at(FileState *s, GError **errp);

/* ---- reopen.c --------------------------------------------------------------- */

bool file_reopen_prepare(BdrvReopenState *state, JsonObject *options, GError **errp);
void file_reopen_commit(BdrvReopenState *state);
void file_reopen_abort(BdrvReopenState *state);

/* @filename without "file:" or "host_device:". */
const char *file_skip_protocol(const char *filename);

/* ---- io.c ------------------------------------------------------------------- */

bool file_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                      AioRequest *req);
int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes, IOVector *iov,
                                int flags);
int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 IOVector *iov, int flags);
int coroutine_fn file_co_flush(BlockDriverState *bs);
/* Submit and wait, again as long as the kernel says EINTR or EAGAIN. */
int64_t coroutine_fn file_co_submit(AioRequest *req);

/* ---- copy.c: from file to file ------------------------------------------------- */

int coroutine_fn file_co_copy_range(BlockDriverState *bs, int64_t offset, BlockDriverState *src,
                                    int64_t src_offset, int64_t bytes);

/* ---- space.c: zeroing, discarding, holes ------------------------------------- */

int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       int flags);
int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map);

/* ---- resize.c: lengths, and files that are made --------------------------------- */

int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                  BlockPrealloc prealloc, GError **errp);
bool file_create(const char *filename, JsonObject *options, GError **errp);
bool host_device_create(const char *filename, JsonObject *options, GError **errp);
void file_delete(const char *filename);
extern const BlockOption file_create_options[];
extern const BlockOption host_device_create_options[];

/* ---- lock.c ----------------------------------------------------------------- */

/*
 * Lock the bytes of @set and look for conflicts with other processes. On a
 * conflict (false with @errp) they are released again.
 */
bool file_lock_take(int fd, FileLockSet set, const char *filename, GError **errp);
void file_lock_release(int fd, FileLockSet set);
/* Whether the file system has locks of this kind. */
bool file_can_lock(int fd);
/*
 * Release all locks before @fd is closed. Closing would do, but not at once: the kernel
 * may keep the file for a request through io_uring a little longer than that is in flight.
 */
void file_lock_release_all(int fd);
bool file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared, GError **errp);
void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared);
void file_abort_perm(BlockDriverState *bs);

/* ---- alignment.c -------------------------------------------------------------- */

/* Find out what O_DIRECT asks of requests and memory. */
bool file_detect_alignment(FileState *s, GError **errp);

#endif
