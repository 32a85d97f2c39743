/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The coroutines that copy; see convert-engine.h. */
#include "tools/img/convert-engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

#define SALVAGE_BLOCK 512     /* bytes that are given up at once */
#define MIN_BUFFER (64 << 10) /* bytes; what a slow rate shrinks it to */
#define NS_PER_SEC 1000000000LL

static void fail(ConvertEngine *eng, const char *filename, const char *what, int64_t offset,
                 int ret)
{
    if (eng->ret == 0) {
        img_report_io_error(filename, what, offset, ret);
        eng->ret = ret;
    }
}

/* ---- Reading ---------------------------------------------------------------------- */

/* Read block by block; those that cannot be read are zeros. */
static void coroutine_fn read_salvaging(ConvertEngine *eng, const ConvertSource *src,
                                        int64_t in_image, int64_t total, uint8_t *buf)
{
    for (int64_t done = 0; done < total; done += SALVAGE_BLOCK) {
        int64_t bytes = MIN(SALVAGE_BLOCK, total - done);
        int ret = blk_co_pread(src->blk, in_image + done, bytes, buf + done, 0);

        if (ret >= 0) {
            continue;
        }
        if (!eng->quiet) {
            tool_warning("%s: error while reading offset %" G_GINT64_FORMAT ": %s", src->name,
                         in_image + done, g_strerror(-ret));
        }
        memset(buf + done, 0, (size_t)bytes);
    }
}

static bool coroutine_fn read_piece(ConvertEngine *eng, const ConvertPiece *piece, uint8_t *buf)
{
    int64_t bytes;

    for (int64_t done = 0; done < piece->bytes; done += bytes) {
        int64_t in_image;
        const ConvertSource *src = convert_source_at(eng, piece->offset + done,
                                                     piece->bytes - done, &in_image, &bytes);
        int ret = blk_co_pread(src->blk, in_image, bytes, buf + done, 0);

        if (ret < 0 && eng->salvage) {
            read_salvaging(eng, src, in_image, bytes, buf + done);
        } else if (ret < 0) {
            fail(eng, src->name, "error while reading at byte", in_image, ret);
            return false;
        }
    }
    return true;
}

/* ---- Writing ---------------------------------------------------------------------- */

/* Wait until the rate allows @bytes more. */
static void coroutine_fn wait_for_rate(ConvertEngine *eng, int64_t bytes)
{
    int64_t now;
    int64_t start;

    if (eng->rate == 0) {
        return;
    }
    now = aio_now(aio_context_current());
    start = MAX(now, eng->rate_next);
    eng->rate_next = start + (int64_t)((double)bytes * NS_PER_SEC / (double)eng->rate);
    if (start > now) {
        co_sleep_ns(start - now);
    }
}

static bool coroutine_fn write_zeroes(ConvertEngine *eng, int64_t offset, int64_t bytes)
{
    int ret;

    if (eng->target_is_zero) {
        return true;
    }
    ret = blk_co_pwrite_zeroes(eng->target, offset, bytes,
                               BDRV_REQ_MAY_UNMAP | (eng->write_flags & BDRV_REQ_FUA));
    if (ret < 0) {
        fail(eng, eng->target_name, "error while writing zeroes at byte", offset, ret);
    }
    return ret >= 0;
}

/*
 * The length of the run at the start of @buf that is all to be written, or all
 * zero in whole sparse units of the target.
 */
static int64_t next_run(const ConvertEngine *eng, int64_t offset, const uint8_t *buf, int64_t bytes,
                        bool *zero)
{
    int64_t to_unit;

    *zero = false;
    if (eng->sparse_unit == 0) {
        return bytes;
    }
    to_unit = eng->sparse_unit - offset % eng->sparse_unit;
    if (to_unit == eng->sparse_unit) {
        return (int64_t)buffer_zero_run(buf, (size_t)bytes, (size_t)eng->sparse_unit, zero);
    }
    to_unit = MIN(to_unit, bytes);
    *zero = buffer_is_zero(buf, (size_t)to_unit);
    return to_unit;
}

static bool coroutine_fn write_data(ConvertEngine *eng, const ConvertPiece *piece,
                                    const uint8_t *buf)
{
    int64_t bytes;

    for (int64_t done = 0; done < piece->bytes; done += bytes) {
        int64_t offset = piece->offset + done;
        bool zero;
        int ret;

        bytes = next_run(eng, offset, buf + done, piece->bytes - done, &zero);
        if (zero) {
            if (!write_zeroes(eng, offset, bytes)) {
                return false;
            }
            continue;
        }
        ret = blk_co_pwrite(eng->target, offset, bytes, buf + done, eng->write_flags);
        if (ret < 0) {
            fail(eng, eng->target_name, "error while writing at byte", offset, ret);
            return false;
        }
    }
    return true;
}

/* ---- Offloading ------------------------------------------------------------------- */

/* False if a part of the piece has to be read and written. */
static bool coroutine_fn offload_piece(ConvertEngine *eng, const ConvertPiece *piece)
{
    int64_t bytes;

    for (int64_t done = 0; done < piece->bytes; done += bytes) {
        int64_t in_image;
        const ConvertSource *src = convert_source_at(eng, piece->offset + done,
                                                     piece->bytes - done, &in_image, &bytes);

        /* If it is more than that it cannot, reading or writing will say what is wrong. */
        if (blk_co_copy_range(src->blk, in_image, eng->target, piece->offset + done, bytes,
                              eng->write_flags) < 0) {
            return false;
        }
    }
    return true;
}

/* ---- Turns -------------------------------------------------------------------------- */

static void coroutine_fn wait_for_turn(ConvertEngine *eng, const ConvertPiece *piece)
{
    co_mutex_lock(&eng->turn_lock);
    while (eng->turn != piece->turn) {
        co_queue_wait(&eng->turn_queue, &eng->turn_lock);
    }
    co_mutex_unlock(&eng->turn_lock);
}

/* Also after an error: those that wait behind must end. */
static void coroutine_fn pass_turn(ConvertEngine *eng)
{
    co_mutex_lock(&eng->turn_lock);
    eng->turn++;
    co_queue_wake_all(&eng->turn_queue);
    co_mutex_unlock(&eng->turn_lock);
}

static void coroutine_fn copy_piece(ConvertEngine *eng, const ConvertPiece *piece, uint8_t *buf)
{
    bool offload = eng->offload && !piece->zero && !piece->below;
    bool ok = piece->zero || offload || read_piece(eng, piece, buf);

    if (!eng->unordered) {
        wait_for_turn(eng, piece);
    }
    if (ok && eng->ret == 0 && eng->digest != NULL && !piece->zero) {
        convert_digest(eng, piece->offset, buf, piece->bytes);
    }
    if (ok && eng->ret == 0 && !piece->below) {
        wait_for_rate(eng, piece->bytes);
        if (piece->zero) {
            write_zeroes(eng, piece->offset, piece->bytes);
        } else if (!offload || (!offload_piece(eng, piece) && read_piece(eng, piece, buf))) {
            write_data(eng, piece, buf);
        }
    }
    if (!eng->unordered) {
        pass_turn(eng);
    }
}

static void coroutine_fn copy_worker(void *opaque)
{
    ConvertEngine *eng = opaque;
    uint8_t *buf = bdrv_try_blockalign(eng->target_bs, (size_t)eng->buffer_size);
    ConvertPiece piece;
    bool go_on;

    if (buf == NULL) {
        fail(eng, eng->target_name, "no memory for a buffer of bytes", eng->buffer_size, -ENOMEM);
        return;
    }
    do {
        co_mutex_lock(&eng->plan_lock);
        go_on = convert_take_piece(eng, &piece);
        co_mutex_unlock(&eng->plan_lock);
        if (go_on) {
            copy_piece(eng, &piece, buf);
        }
    } while (go_on);
    free(buf);
}

/* ---- All of it ------------------------------------------------------------------------ */

/* Zero the whole target first if that is quick: then zeros need no writes. */
static void coroutine_fn zero_target(void *opaque)
{
    ConvertEngine *eng = opaque;

    if (blk_co_pwrite_zeroes(eng->target, 0, eng->total,
                             BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) == 0) {
        eng->target_is_zero = true;
    }
}

/*
 * What the target changes as a whole: compressed clusters, or what it can store as
 * zeros without writing them.
 */
static void set_units(ConvertEngine *eng)
{
    int64_t zeroes = bdrv_get_limits(eng->target_bs)->pwrite_zeroes_alignment;
    BlockDriverInfo info;

    if (eng->compressed && bdrv_get_info(eng->target_bs, &info) == 0 && info.cluster_size > 0) {
        eng->unit = info.cluster_size;
        eng->buffer_size = MAX(eng->buffer_size, eng->unit);
        eng->write_flags |= BDRV_REQ_COMPRESSED;
        zeroes = eng->unit;
    }
    eng->sparse_unit = eng->all_data ? 0 : eng->sparse_size;
    if (eng->sparse_unit > 0 && zeroes > 1) {
        eng->sparse_unit = (eng->sparse_size + zeroes - 1) / zeroes * zeroes;
    }
}

void convert_engine_begin(ConvertEngine *eng)
{
    eng->total = 0;
    for (size_t i = 0; i < eng->n_sources; i++) {
        eng->sources[i].start = eng->total;
        eng->total += eng->sources[i].length;
    }
    eng->buffer_size = CONVERT_BUFFER;
    while (eng->rate > 0 && eng->buffer_size > MIN_BUFFER && eng->buffer_size > eng->rate / 4) {
        eng->buffer_size /= 2;
    }
    eng->unit = 1;
    if (eng->target != NULL) {
        eng->target_bs = blk_bs(eng->target);
        set_units(eng);
    }
    /* The digest takes the data in order. */
    eng->unordered = eng->unordered && eng->digest == NULL;
    eng->offload = eng->offload && eng->digest == NULL;
    co_mutex_init(&eng->plan_lock);
    co_mutex_init(&eng->turn_lock);
    co_queue_init(&eng->turn_queue);
}

int convert_engine_flush(ConvertEngine *eng)
{
    if (eng->ret == 0) {
        eng->ret = blk_flush(eng->target);
        if (eng->ret < 0) {
            tool_error("%s: error while flushing: %s", eng->target_name, g_strerror(-eng->ret));
        }
    }
    return eng->ret;
}

typedef struct OneWrite {
    ConvertEngine *eng;
    ConvertPiece piece;
    const uint8_t *buf;
} OneWrite;

static void coroutine_fn one_write(void *opaque)
{
    OneWrite *w = opaque;

    wait_for_rate(w->eng, w->piece.bytes);
    write_data(w->eng, &w->piece, w->buf);
}

int convert_engine_write(ConvertEngine *eng, int64_t offset, int64_t bytes, const uint8_t *buf)
{
    OneWrite w = { eng, { .offset = offset, .bytes = bytes }, buf };

    tool_run_coroutines(one_write, &w, 1);
    return eng->ret;
}

static void coroutine_fn one_wait(void *opaque)
{
    OneWrite *w = opaque;

    wait_for_rate(w->eng, w->piece.bytes);
}

void convert_engine_pace(ConvertEngine *eng, int64_t bytes)
{
    OneWrite w = { eng, { .bytes = bytes }, NULL };

    tool_run_coroutines(one_wait, &w, 1);
}

bool coroutine_fn convert_engine_read(ConvertEngine *eng, int64_t offset, int64_t bytes,
                                      uint8_t *buf)
{
    ConvertPiece piece = { .offset = offset, .bytes = bytes };

    wait_for_rate(eng, bytes);
    return read_piece(eng, &piece, buf);
}

int convert_engine_run(ConvertEngine *eng)
{
    convert_engine_begin(eng);
    if (eng->total == 0) {
        return 0;
    }
    if (eng->count_first) {
        tool_run_coroutines(convert_count_work, eng, 1);
    }
    if (eng->ret == 0 && !eng->target_is_zero && !eng->target_has_backing &&
        eng->sparse_size > 0) {
        tool_run_coroutines(zero_target, eng, 1);
    }
    if (eng->ret == 0) {
        tool_run_coroutines(copy_worker, eng, eng->workers);
    }
    if (eng->ret == 0 && eng->digest != NULL) {
        convert_digest(eng, eng->total, NULL, 0);
    }
    return convert_engine_flush(eng);
}
