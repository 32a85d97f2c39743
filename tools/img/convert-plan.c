/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which piece is to be copied next; see convert-engine.h. */
#include "tools/img/convert-engine.h"

#include "tools/img/common.h"
#include "tools/progress.h"
#include "tools/tool.h"

#define SALVAGE_BLOCK 512          /* bytes that are given up at once */
#define MAX_ZERO_PIECE (1LL << 30) /* bytes that are zeroed at once */

ConvertSource *convert_source_at(const ConvertEngine *eng, int64_t offset, int64_t bytes,
                                 int64_t *in_image, int64_t *there)
{
    ConvertSource *src = eng->sources;

    while (offset >= src->start + src->length) {
        src++;
    }
    *in_image = offset - src->start + src->skip;
    *there = MIN(bytes, src->start + src->length - offset);
    return src;
}

/* The run that block status @status at @offset stands for; may cut it short. */
static ConvertRun run_kind(const ConvertEngine *eng, int64_t offset, int status, int64_t *bytes)
{
    if (status & BDRV_BLOCK_ZERO) {
        if (eng->target_has_backing && eng->backing_length >= 0) {
            if (offset >= eng->backing_length) {
                return CONVERT_SAME;
            }
            *bytes = MIN(*bytes, eng->backing_length - offset);
        }
        if (eng->sparse_size == 0) {
            return CONVERT_DATA;
        }
        return eng->target_is_zero ? CONVERT_SAME : CONVERT_ZERO;
    }
    if (eng->target_has_backing && !(status & BDRV_BLOCK_ALLOCATED)) {
        return eng->digest != NULL ? CONVERT_BELOW : CONVERT_SAME;
    }
    return CONVERT_DATA;
}

/* Know what there is at @offset, and how far. Under the lock. */
static bool coroutine_fn ask_run(ConvertEngine *eng, int64_t offset)
{
    int64_t pnum = 0;
    int64_t in_image;
    int64_t bytes;
    const ConvertSource *src =
        convert_source_at(eng, offset, eng->total - offset, &in_image, &bytes);
    BlockDriverState *base = eng->target_has_backing ? src->base : NULL;
    int ret = blk_co_block_status_above(src->blk, base, in_image, bytes, &pnum, NULL);

    if (ret < 0 && !eng->salvage) {
        img_report_io_error(src->name, "error while reading block status at offset", in_image, ret);
        eng->ret = ret;
        return false;
    }
    if (ret < 0) {
        if (!eng->quiet) {
            tool_warning("%s: error while reading block status at offset %" G_GINT64_FORMAT ": %s",
                         src->name, in_image, g_strerror(-ret));
        }
        pnum = MIN(bytes, SALVAGE_BLOCK);
        ret = BDRV_BLOCK_ZERO;
    }
    eng->run = run_kind(eng, offset, ret, &pnum);
    eng->run_end = offset + pnum;
    return true;
}

/* A unit is written as a whole: what is not data counts only in whole units. */
static void cut_to_units(ConvertEngine *eng)
{
    int64_t end = eng->run_end & -eng->unit;

    if (eng->run == CONVERT_DATA || eng->run_end == eng->total || end == eng->run_end) {
        return;
    }
    if (end > eng->next) {
        eng->run_end = end;
    } else {
        eng->run = CONVERT_DATA;
    }
}

/* Skip what needs no work. False at the end or after an error. */
static bool coroutine_fn find_work(ConvertEngine *eng)
{
    while (eng->ret == 0 && eng->next < eng->total) {
        if (eng->next >= eng->run_end && !ask_run(eng, eng->next)) {
            return false;
        }
        cut_to_units(eng);
        if (eng->run != CONVERT_SAME) {
            return true;
        }
        eng->next = eng->run_end;
    }
    return false;
}

/*
 * The end of the data at eng->next: runs that follow each other are one piece,
 * up to a full buffer that ends at a multiple of its size.
 */
static int64_t coroutine_fn data_end(ConvertEngine *eng)
{
    int64_t limit = MIN(eng->total, (eng->next / eng->buffer_size + 1) * eng->buffer_size);
    int64_t end = eng->run_end;

    while (end < limit && ask_run(eng, end) && eng->run == CONVERT_DATA) {
        end = eng->run_end;
    }
    return MIN((end + eng->unit - 1) & -eng->unit, limit);
}

static void report_progress(const ConvertEngine *eng, int64_t done_before, bool zero)
{
    if (eng->work > 0 && !zero) {
        progress_add((double)(eng->next - done_before) * 100 / (double)eng->work);
    } else if (eng->work == 0) {
        progress_add((double)(eng->next - done_before) * 100 / (double)eng->total);
    }
}

bool coroutine_fn convert_take_piece(ConvertEngine *eng, ConvertPiece *piece)
{
    int64_t before = eng->next;

    if (!find_work(eng)) {
        return false;
    }
    *piece = (ConvertPiece){
        .offset = eng->next,
        .zero = eng->run == CONVERT_ZERO,
        .below = eng->run == CONVERT_BELOW,
    };
    if (piece->zero) {
        piece->bytes = MIN(eng->run_end - eng->next, MAX_ZERO_PIECE);
    } else if (piece->below) {
        piece->bytes = MIN(eng->run_end - eng->next, eng->buffer_size);
    } else {
        piece->bytes = data_end(eng) - eng->next;
        before = eng->work > 0 ? piece->offset : before;
    }
    if (eng->ret != 0) {
        return false;
    }
    eng->next += piece->bytes;
    piece->turn = eng->turns_given++;
    report_progress(eng, before, piece->zero || piece->below);
    return true;
}

void coroutine_fn convert_count_work(void *opaque)
{
    ConvertEngine *eng = opaque;
    bool quiet = eng->quiet;
    int64_t work = 0;

    /* What cannot be read is reported when it is copied. */
    eng->quiet = true;
    while (eng->ret == 0 && eng->next < eng->total) {
        if (!ask_run(eng, eng->next)) {
            break;
        }
        work += eng->run == CONVERT_DATA ? eng->run_end - eng->next : 0;
        eng->next = eng->run_end;
    }
    eng->quiet = quiet;
    eng->next = 0;
    eng->run_end = 0;
    eng->work = work;
    progress_set_total(work > 0 ? work : eng->total);
}

static void add_range(GArray *ranges, int64_t offset, int64_t bytes)
{
    BdrvRange *last = ranges->len > 0 ? &g_array_index(ranges, BdrvRange, ranges->len - 1) : NULL;
    BdrvRange next = { offset, bytes };

    if (last != NULL && last->offset + last->bytes == offset) {
        last->bytes += bytes;
    } else {
        g_array_append_val(ranges, next);
    }
}

void coroutine_fn convert_list_data(void *listing)
{
    ConvertListing *l = listing;
    ConvertEngine *eng = l->eng;

    while (eng->ret == 0 && eng->next < eng->total && ask_run(eng, eng->next)) {
        if (eng->run == CONVERT_DATA) {
            add_range(l->ranges, eng->next, eng->run_end - eng->next);
        }
        eng->next = eng->run_end;
    }
}
