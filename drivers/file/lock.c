/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image locks: one byte of the file per permission, locked for reading with
 * open-file-description locks, as other programs for disk images do.
 *
 * Byte 100 + i says that permission i is held, byte 200 + i that it is not
 * shared. All are locked first and tested for conflicts then, so that of two
 * programs that come at the same time at least one sees the other.
 */
#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <string.h>

#include "drivers/file/file.h"

#define LOCK_PERM_BASE 100
#define LOCK_UNSHARED_BASE 200

static const char *const perm_words[] = {
    "consistent read", "write", "write unchanged", "resize",
};
#define N_PERMS G_N_ELEMENTS(perm_words)

static int lock_byte(int fd, int64_t byte, short type)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    while (fcntl(fd, F_OFD_SETLK, &fl) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* Whether another open file holds the byte: 1, 0, or -errno. */
static int byte_is_taken(int fd, int64_t byte)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &fl) < 0 ? -errno : fl.l_type != F_UNLCK;
}

bool file_can_lock(int fd)
{
    return byte_is_taken(fd, LOCK_PERM_BASE) >= 0;
}

void file_lock_release(int fd, FileLockSet set)
{
    for (size_t i = 0; i < N_PERMS; i++) {
        if (set.perm & (1 << i)) {
            lock_byte(fd, LOCK_PERM_BASE + i, F_UNLCK);
        }
        if (set.unshared & (1 << i)) {
            lock_byte(fd, LOCK_UNSHARED_BASE + i, F_UNLCK);
        }
    }
}

void file_lock_release_all(int fd)
{
    struct flock fl = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = LOCK_PERM_BASE,
                       .l_len = LOCK_UNSHARED_BASE + N_PERMS - LOCK_PERM_BASE};

    while (fcntl(fd, F_OFD_SETLK, &fl) < 0 && errno == EINTR) {
    }
}

static bool lock_all(int fd, FileLockSet set, const char *filename, GError **errp)
{
    for (size_t i = 0; i < 2 * N_PERMS; i++) {
        size_t perm = i % N_PERMS;
        int64_t byte = (i < N_PERMS ? LOCK_PERM_BASE : LOCK_UNSHARED_BASE) + perm;
        int ret = 0;

        if ((i < N_PERMS ? set.perm : set.unshared) & (1 << perm)) {
            ret = lock_byte(fd, byte, F_RDLCK);
        }
        if (ret < 0) {
            block_error_set_errno(errp, ret, "Failed to lock byte %" PRId64 " of '%s'", byte,
                                  filename);
            return false;
        }
    }
    return true;
}

/* Whether nobody objects to byte @byte; @kind is "shared " or "". */
static bool test_byte(int fd, int64_t byte, const char *kind, const char *perm,
                      const char *filename, GError **errp)
{
    int taken = byte_is_taken(fd, byte);

    if (taken < 0) {
        block_error_set_errno(errp, taken, "Failed to test the lock on byte %" PRId64 " of '%s'",
                              byte, filename);
    } else if (taken) {
        block_error_set(errp, EAGAIN,
                        "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?",
                        kind, perm, filename);
    }
    return taken == 0;
}

static bool test_all(int fd, FileLockSet set, const char *filename, GError **errp)
{
    for (size_t i = 0; i < N_PERMS; i++) {
        if ((set.perm & (1 << i)) &&
            !test_byte(fd, LOCK_UNSHARED_BASE + i, "", perm_words[i], filename, errp)) {
            return false;
        }
        if ((set.unshared & (1 << i)) &&
            !test_byte(fd, LOCK_PERM_BASE + i, "shared ", perm_words[i], filename, errp)) {
            return false;
        }
    }
    return true;
}

bool file_lock_take(int fd, FileLockSet set, const char *filename, GError **errp)
{
    if (lock_all(fd, set, filename, errp) && test_all(fd, set, filename, errp)) {
        return true;
    }
    file_lock_release(fd, set);
    return false;
}

/* What is in @a but not in @b. */
static FileLockSet set_minus(FileLockSet a, FileLockSet b)
{
    return (FileLockSet){a.perm & ~b.perm, a.unshared & ~b.unshared};
}

static const FileLockSet all_locks = {BLK_PERM_ALL, BLK_PERM_ALL};

/* The descriptor that a reopen is about to put in the place of ours, or -1. */
static int next_fd(const FileState *s)
{
    return s->reopen ? s->reopen->fd : -1;
}

/*
 * Lock what we hold on the next descriptor as well. Ours was tested, and as long as it
 * holds them, others keep clear; testing would find ours.
 */
static bool lock_next(FileState *s, FileLockSet set, GError **errp)
{
    int fd = next_fd(s);

    return fd < 0 || lock_all(fd, set, s->filename, errp);
}

static void release_next(FileState *s, FileLockSet set)
{
    if (next_fd(s) >= 0) {
        file_lock_release(next_fd(s), set);
    }
}

bool file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared, GError **errp)
{
    FileState *s = bdrv_state(bs);
    FileLockSet set = {perm & BLK_PERM_ALL, ~shared & BLK_PERM_ALL};

    if (s->use_locks) {
        FileLockSet more = set_minus(set, s->lock);

        release_next(s, all_locks); /* not to be in our own way */
        /* What is locked already was tested then, and others keep clear of it. */
        if (!file_lock_take(s->fd, more, s->filename, errp)) {
            return false;
        }
        if (!lock_next(s, set, errp)) {
            file_lock_release(s->fd, more);
            return false;
        }
    }
    s->lock_new = set;
    return true;
}

void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    FileState *s = bdrv_state(bs);

    if (s->use_locks) {
        file_lock_release(s->fd, set_minus(s->lock, s->lock_new));
    }
    s->lock = s->lock_new;
}

void file_abort_perm(BlockDriverState *bs)
{
    FileState *s = bdrv_state(bs);

    if (s->use_locks) {
        release_next(s, all_locks);
        file_lock_release(s->fd, set_minus(s->lock_new, s->lock));
    }
    s->lock_new = s->lock;
}
