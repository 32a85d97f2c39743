/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which piece is to be copied next; see convert-engine.h. */
#include "tools/img/convert-engine.h"

#include "tools/img/common.h"
#include "tools/progress.h"
#include "tools/tool.h"

#define SALVAGE_BLOCK 512          /* bytes that are given up at once */
#define MAX_ZERO_PIECE (1LL << 30) /* bytes that are zeroed at once */

int64_t convert_source_offset(const ConvertPiece *piece)
{
    return piece->offset - piece->source->start + piece->source->skip;
}

/* Move on to the source that @offset is in. */
static ConvertSource *source_at(ConvertEngine *eng, int64_t offset)
{
    while (offset >= eng->sources[eng->source].start + eng->sources[eng->source].length) {
        eng->source++;
    }
    return &eng->sources[eng->source];
}

/* Know whether there is data at @offset, and how far. Under the lock. */
static bool coroutine_fn ask_run(ConvertEngine *eng, ConvertSource *src, int64_t offset)
{
    int64_t in_image = offset - src->start + src->skip;
    int64_t bytes = src->start + src->length - offset;
    int64_t pnum = 0;
    int ret = blk_co_block_status_above(src->blk, NULL, in_image, bytes, &pnum, NULL);

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
    eng->run_end = offset + pnum;
    eng->run_zero = (ret & BDRV_BLOCK_ZERO) && eng->sparse_size > 0;
    return true;
}

/* Skip what needs no work. False at the end or after an error. */
static bool coroutine_fn find_work(ConvertEngine *eng)
{
    while (eng->ret == 0 && eng->next < eng->total) {
        ConvertSource *src = source_at(eng, eng->next);

        if (eng->next >= eng->run_end && !ask_run(eng, src, eng->next)) {
            return false;
        }
        if (!eng->run_zero || !eng->target_is_zero) {
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
static int64_t coroutine_fn data_end(ConvertEngine *eng, ConvertSource *src)
{
    int64_t limit =
        MIN(src->start + src->length, (eng->next / eng->buffer_size + 1) * eng->buffer_size);
    int64_t end = eng->run_end;

    while (end < limit && ask_run(eng, src, end) && !eng->run_zero) {
        end = eng->run_end;
    }
    return MIN(end, limit);
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
        .source = source_at(eng, eng->next),
        .offset = eng->next,
        .zero = eng->run_zero,
    };
    if (piece->zero) {
        piece->bytes = MIN(eng->run_end - eng->next, MAX_ZERO_PIECE);
    } else {
        piece->bytes = data_end(eng, piece->source) - eng->next;
        before = eng->work > 0 ? piece->offset : before;
    }
    if (eng->ret != 0) {
        return false;
    }
    eng->next += piece->bytes;
    piece->turn = eng->turns_given++;
    report_progress(eng, before, piece->zero);
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
        ConvertSource *src = source_at(eng, eng->next);

        if (!ask_run(eng, src, eng->next)) {
            break;
        }
        work += eng->run_zero ? 0 : eng->run_end - eng->next;
        eng->next = eng->run_end;
    }
    eng->quiet = quiet;
    eng->next = 0;
    eng->source = 0;
    eng->run_end = 0;
    eng->work = work;
}
