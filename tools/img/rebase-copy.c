/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coroutines that compare and copy; see rebase-copy.h. */
#include "tools/img/rebase-copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/progress.h"
#include "tools/tool.h"

#define WORKERS 8
#define PIECE (1 << 20) /* bytes */

static void fail(RebaseCopy *copy, const char *filename, const char *what, int64_t offset, int ret)
{
    if (copy->ret == 0) {
        img_report_io_error(filename, what, offset, ret);
        copy->ret = ret;
    }
}

/* ---- Planning: under the lock ----------------------------------------------------------- */

/* Whether all of both chains says zero from @at on; *@bytes gets shorter. Or -errno. */
static int coroutine_fn both_are_zero(const RebaseCopy *copy, int64_t at, int64_t *bytes)
{
    int64_t pnum = *bytes;
    int ret = blk_co_block_status_above(copy->blk, NULL, at, *bytes, &pnum, NULL);

    *bytes = pnum;
    if (ret < 0 || !(ret & BDRV_BLOCK_ZERO)) {
        return MIN(ret, 0);
    }
    if (at >= copy->backing_length) {
        return 1;
    }
    *bytes = MIN(*bytes, copy->backing_length - at);
    ret = blk_co_block_status_above(copy->backing, NULL, at, *bytes, &pnum, NULL);
    *bytes = pnum;
    return ret < 0 ? ret : (ret & BDRV_BLOCK_ZERO) != 0;
}

/*
 * Whether the image itself has what is at @at, or else a node has it that both chains
 * have, and how far: *@bytes. 1, 0, or -errno.
 */
static int coroutine_fn is_held(const RebaseCopy *copy, int64_t at, int64_t *bytes)
{
    int64_t pnum = 0;
    int ret;

    bdrv_graph_co_rdlock();
    ret = bdrv_co_block_status(copy->bs, at, copy->length - at, &pnum, NULL, NULL);
    if (ret >= 0) {
        ret = (ret & BDRV_BLOCK_ALLOCATED) != 0;
    }
    if (ret == 0 && copy->shared != NULL) {
        ret = bdrv_co_block_status_above(copy->bs, copy->shared, at, pnum, &pnum, NULL, NULL,
                                         NULL);
        if (ret >= 0) {
            ret = !(ret & BDRV_BLOCK_ALLOCATED);
        }
    }
    bdrv_graph_co_rdunlock();
    *bytes = pnum;
    return ret;
}

/*
 * Whether what is at @at will read the same for sure, and how far: *@bytes. 1, 0, or
 * -errno.
 */
static int coroutine_fn stays_same(const RebaseCopy *copy, int64_t at, int64_t *bytes)
{
    int ret = is_held(copy, at, bytes);

    return ret != 0 ? ret : both_are_zero(copy, at, bytes);
}

/* Skip what stays the same in whole units. How much from copy->next on is to be looked at. */
static int64_t coroutine_fn find_work(RebaseCopy *copy)
{
    while (copy->ret == 0 && copy->next < copy->length) {
        int64_t bytes, end;
        int ret = stays_same(copy, copy->next, &bytes);

        if (ret < 0) {
            fail(copy, copy->name, "error while reading block status at offset", copy->next, ret);
            break;
        }
        end = copy->next + bytes;
        if (ret == 0) {
            return MIN((end + copy->unit - 1) & -copy->unit, copy->length) - copy->next;
        }
        if (end < copy->length) {
            end &= -copy->unit;
        }
        if (end <= copy->next) {
            return MIN(copy->unit, copy->length - copy->next);
        }
        copy->next = end;
    }
    return 0;
}

static bool coroutine_fn take_piece(RebaseCopy *copy, int64_t *offset, int64_t *bytes)
{
    int64_t before, work;

    co_mutex_lock(&copy->lock);
    before = copy->next;
    work = find_work(copy);
    *bytes = MIN(work, copy->piece_size - copy->next % copy->piece_size);
    *offset = copy->next;
    copy->next += *bytes;
    progress_add((double)(copy->next - before) * 100 / (double)copy->length);
    co_mutex_unlock(&copy->lock);
    return *bytes > 0;
}

/* ---- Copying ---------------------------------------------------------------------------- */

typedef enum Difference {
    SAME,
    DIFFERENT,
    DIFFERENT_ZERO, /* it is zeros, and the new backing file has something else */
} Difference;

static Difference compare_unit(const uint8_t *now, const uint8_t *then, size_t bytes)
{
    if (memcmp(now, then, bytes) == 0) {
        return SAME;
    }
    return buffer_is_zero(now, bytes) ? DIFFERENT_ZERO : DIFFERENT;
}

/* Whether the image itself has all of it now. 1, 0, or -errno. */
static int coroutine_fn has_all(const RebaseCopy *copy, int64_t offset, int64_t bytes)
{
    int64_t pnum = 0;
    int ret = BDRV_BLOCK_ALLOCATED;

    bdrv_graph_co_rdlock();
    for (int64_t done = 0; done < bytes && ret >= 0 && (ret & BDRV_BLOCK_ALLOCATED);
         done += pnum) {
        ret = bdrv_co_block_status(copy->bs, offset + done, bytes - done, &pnum, NULL, NULL);
    }
    bdrv_graph_co_rdunlock();
    return ret < 0 ? ret : (ret & BDRV_BLOCK_ALLOCATED) != 0;
}

/*
 * Zeros as such, where the image can note them: a version that cannot finds that they
 * are there already, as long as it has the old backing file.
 */
static int coroutine_fn write_zeroes(const RebaseCopy *copy, int64_t offset, int64_t bytes,
                                     const uint8_t *now)
{
    int ret = blk_co_pwrite_zeroes(copy->blk, offset, bytes,
                                   (copy->write_flags & BDRV_REQ_FUA) | BDRV_REQ_MAY_UNMAP);

    if (ret >= 0) {
        ret = has_all(copy, offset, bytes);
    }
    return ret == 0 ? blk_co_pwrite(copy->blk, offset, bytes, now, copy->write_flags) : ret;
}

static bool coroutine_fn write_run(RebaseCopy *copy, int64_t offset, int64_t bytes,
                                   const uint8_t *now, Difference kind)
{
    int ret = kind == DIFFERENT_ZERO
                  ? write_zeroes(copy, offset, bytes, now)
                  : blk_co_pwrite(copy->blk, offset, bytes, now, copy->write_flags);

    if (ret < 0) {
        fail(copy, copy->name, "error while writing at byte", offset, ret);
    }
    return ret >= 0;
}

static void coroutine_fn write_differences(RebaseCopy *copy, int64_t offset, int64_t bytes,
                                           const uint8_t *now, const uint8_t *then)
{
    int64_t start = 0, done = 0;
    Difference run = SAME;
    bool ok = true;

    while (done < bytes && ok) {
        int64_t unit = MIN(copy->unit, bytes - done);
        Difference kind = compare_unit(now + done, then + done, (size_t)unit);

        if (kind != run) {
            ok = run == SAME || write_run(copy, offset + start, done - start, now + start, run);
            start = done;
            run = kind;
        }
        done += unit;
    }
    if (ok && run != SAME) {
        write_run(copy, offset + start, done - start, now + start, run);
    }
}

/* What the new backing file has there: zeros behind its end. */
static int coroutine_fn read_backing(const RebaseCopy *copy, int64_t offset, int64_t bytes,
                                     uint8_t *buf)
{
    int64_t there = CLAMP(copy->backing_length - offset, 0, bytes);

    memset(buf + there, 0, (size_t)(bytes - there));
    return there > 0 ? blk_co_pread(copy->backing, offset, there, buf, 0) : 0;
}

static void coroutine_fn copy_piece(RebaseCopy *copy, int64_t offset, int64_t bytes, uint8_t *now,
                                    uint8_t *then)
{
    int ret = blk_co_pread(copy->blk, offset, bytes, now, 0);

    if (ret < 0) {
        fail(copy, copy->name, "error while reading at byte", offset, ret);
        return;
    }
    ret = read_backing(copy, offset, bytes, then);
    if (ret < 0) {
        fail(copy, copy->backing_name, "error while reading at byte", offset, ret);
        return;
    }
    if (copy->ret == 0) {
        write_differences(copy, offset, bytes, now, then);
    }
}

static void coroutine_fn copy_worker(void *opaque)
{
    RebaseCopy *copy = opaque;
    uint8_t *now = bdrv_try_blockalign(copy->bs, (size_t)copy->piece_size);
    uint8_t *then = bdrv_try_blockalign(copy->bs, (size_t)copy->piece_size);
    int64_t offset, bytes;

    if (now == NULL || then == NULL) {
        fail(copy, copy->name, "no memory for a buffer of bytes", copy->piece_size, -ENOMEM);
    } else {
        while (take_piece(copy, &offset, &bytes)) {
            copy_piece(copy, offset, bytes, now, then);
        }
    }
    free(now);
    free(then);
}

/* ---- All of it -------------------------------------------------------------------------- */

static void prepare(RebaseCopy *copy)
{
    BlockDriverInfo info;

    bdrv_graph_rdlock_main_loop();
    copy->bs = bdrv_skip_filters(blk_bs(copy->blk));
    bdrv_graph_rdunlock_main_loop();
    copy->length = blk_getlength(copy->blk);
    progress_set_total(copy->length);
    copy->backing_length = copy->backing ? blk_getlength(copy->backing) : 0;
    copy->unit = BDRV_SECTOR_SIZE;
    if (bdrv_get_info(copy->bs, &info) == 0 && info.cluster_size > 0) {
        copy->unit = copy->compressed ? info.cluster_size : info.subcluster_size;
    }
    if (copy->compressed) {
        copy->write_flags |= BDRV_REQ_COMPRESSED;
    }
    copy->piece_size = MAX(PIECE, copy->unit);
    co_mutex_init(&copy->lock);
}

int rebase_copy_run(RebaseCopy *copy)
{
    int ret;

    prepare(copy);
    if (copy->length < 0 || copy->backing_length < 0) {
        fail(copy, copy->length < 0 ? copy->name : copy->backing_name,
             "could not get the length of the disk", 0, (int)MIN(copy->length,
                                                                 copy->backing_length));
        return copy->ret;
    }
    if (copy->length > 0) {
        tool_run_coroutines(copy_worker, copy, WORKERS);
    }
    if (copy->ret == 0) {
        ret = blk_flush(copy->blk);
        if (ret < 0) {
            tool_error("%s: error while flushing: %s", copy->name, g_strerror(-ret));
            copy->ret = ret;
        }
    }
    return copy->ret;
}
