/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compare: whether two images have the same content.
 *
 * Several coroutines take pieces from front to back, each reading its own. A
 * piece further back may be done first, so what was found is kept with its
 * offset, and the lowest counts once all have ended.
 */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

/* Exit codes that scripts know. */
enum {
    COMPARE_SAME = 0,
    COMPARE_DIFFERENT = 1,
    COMPARE_OPEN_FAILED = 2,
    COMPARE_STATUS_FAILED = 3,
    COMPARE_READ_FAILED = 4,
};

#define COMPARE_BUFFER (2 << 20) /* bytes */
#define COMPARE_BLOCK 512        /* bytes: how exact a mismatch is told */
#define COMPARE_WORKERS 4

static const ImgOption compare_options[] = {
    { "a-format", 'f', "FMT", "the first image's format; without it, the format is probed" },
    { "b-format", 'F', "FMT", "the second image's format; without it, the format is probed" },
    IMG_OPTION_IMAGE_OPTS,
    { "strict", 's', NULL, "sizes, and what is allocated, must be the same, too" },
    { "cache", 'T', "CACHE", "the images' cache mode (default: writeback)" },
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    { NULL },
};

typedef struct CompareSide {
    BlockBackend *blk;
    BlockDriverState *bs; /* borrowed */
    const char *name;
    int64_t length;
    /* The run that was asked about last: to where it reaches, and its status. */
    int64_t run_end;
    int run_status;
} CompareSide;

typedef struct Compare {
    const ImgArgs *args;
    CompareSide side[2];
    bool strict;
    int64_t progress_base;
    CoMutex lock; /* protects what follows and the sides' runs */
    int64_t next; /* the first byte that nobody has taken */
    int64_t end;
    /* Pieces that are taken, and those done behind one that is not. In order. */
    GQueue pieces;
    /* What was found at the lowest offset; no message: nothing. */
    int64_t found_offset;
    int found_code;
    char *found_message;
} Compare;

/* What has to be done with a piece. */
typedef struct ComparePiece {
    int64_t offset;
    int64_t bytes;
    bool read[2]; /* both: compare them; one: it must be zero; none: both are zero */
    bool done;    /* and found equal */
} ComparePiece;

/* Keep what was found if it is the first in the images. Nobody goes beyond. */
static void G_GNUC_PRINTF(4, 5) found(Compare *cmp, int64_t offset, int code, const char *fmt, ...)
{
    va_list ap;

    if (cmp->found_message != NULL && cmp->found_offset <= offset) {
        return;
    }
    g_free(cmp->found_message);
    va_start(ap, fmt);
    cmp->found_message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    cmp->found_offset = offset;
    cmp->found_code = code;
    cmp->end = MIN(cmp->end, offset);
}

/* Know the status of @side at cmp->next. */
static bool coroutine_fn ask_status(Compare *cmp, CompareSide *side)
{
    int64_t pnum = 0;
    int ret;

    if (cmp->next < side->run_end || cmp->next >= side->length) {
        return true;
    }
    ret = blk_co_block_status_above(side->blk, NULL, cmp->next, side->length - cmp->next, &pnum,
                                    NULL);
    if (ret < 0) {
        found(cmp, cmp->next, COMPARE_STATUS_FAILED,
              "Sector allocation test failed for %s at offset %" G_GINT64_FORMAT ": %s", side->name,
              cmp->next, g_strerror(-ret));
        return false;
    }
    side->run_end = cmp->next + pnum;
    side->run_status = ret;
    return true;
}

/* With --strict: what is allocated must be the same. Both sides are there. */
static bool statuses_agree(Compare *cmp)
{
    int mask = BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ALLOCATED |
               BDRV_BLOCK_COMPRESSED;

    if (!cmp->strict || ((cmp->side[0].run_status ^ cmp->side[1].run_status) & mask) == 0) {
        return true;
    }
    found(cmp, cmp->next, COMPARE_DIFFERENT,
          "Strict mode: Offset %" G_GINT64_FORMAT " block status mismatch!", cmp->next);
    return false;
}

/* Take the next piece, or NULL if there is none. Under the lock. */
static ComparePiece *coroutine_fn take_piece(Compare *cmp)
{
    ComparePiece *piece;
    int64_t end = cmp->end;

    if (cmp->next >= end || !ask_status(cmp, &cmp->side[0]) || !ask_status(cmp, &cmp->side[1]) ||
        !statuses_agree(cmp)) {
        return NULL;
    }
    piece = g_new0(ComparePiece, 1);
    piece->offset = cmp->next;
    for (int i = 0; i < 2; i++) {
        CompareSide *side = &cmp->side[i];

        /* What is behind an image's end counts as zero. */
        if (cmp->next < side->length) {
            end = MIN(end, side->run_end);
            piece->read[i] =
                (side->run_status & BDRV_BLOCK_ALLOCATED) && !(side->run_status & BDRV_BLOCK_ZERO);
        }
    }
    piece->bytes = end - cmp->next;
    if (piece->read[0] || piece->read[1]) {
        piece->bytes = MIN(piece->bytes, COMPARE_BUFFER);
    }
    cmp->next += piece->bytes;
    g_queue_push_tail(&cmp->pieces, piece);
    return piece;
}

/* @piece is equal: report what is now done without a gap. */
static void piece_is_equal(Compare *cmp, ComparePiece *piece)
{
    piece->done = true;
    while ((piece = g_queue_peek_head(&cmp->pieces)) != NULL && piece->done) {
        progress_add((double)piece->bytes * 100 / (double)cmp->progress_base);
        g_free(g_queue_pop_head(&cmp->pieces));
    }
}

/* The first block in which the buffers differ, in bytes; @bytes if none does. */
static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    if (memcmp(a, b, bytes) == 0) {
        return bytes;
    }
    for (size_t i = 0; i < bytes; i += COMPARE_BLOCK) {
        if (memcmp(a + i, b + i, MIN(COMPARE_BLOCK, bytes - i)) != 0) {
            return i;
        }
    }
    return bytes;
}

/* The first block that is not zero; @bytes if all are. */
static size_t first_nonzero(const uint8_t *buf, size_t bytes)
{
    bool zero;
    size_t run = buffer_zero_run(buf, bytes, COMPARE_BLOCK, &zero);

    return zero ? run : 0;
}

static void coroutine_fn compare_piece(Compare *cmp, ComparePiece *piece, uint8_t *buf[2])
{
    size_t same;

    for (int i = 0; i < 2; i++) {
        int ret = 0;

        if (piece->read[i]) {
            ret = blk_co_pread(cmp->side[i].blk, piece->offset, piece->bytes, buf[i], 0);
        }
        if (ret < 0) {
            found(cmp, piece->offset, COMPARE_READ_FAILED,
                  "Error while reading offset %" G_GINT64_FORMAT " of %s: %s", piece->offset,
                  cmp->side[i].name, g_strerror(-ret));
            return;
        }
    }
    if (piece->read[0] && piece->read[1]) {
        same = first_difference(buf[0], buf[1], (size_t)piece->bytes);
    } else if (piece->read[0] || piece->read[1]) {
        same = first_nonzero(buf[piece->read[0] ? 0 : 1], (size_t)piece->bytes);
    } else {
        same = (size_t)piece->bytes;
    }
    if (same < (size_t)piece->bytes) {
        int64_t offset = piece->offset + (int64_t)same;

        found(cmp, offset, COMPARE_DIFFERENT, "Content mismatch at offset %" G_GINT64_FORMAT "!",
              offset);
    } else {
        piece_is_equal(cmp, piece);
    }
}

static void coroutine_fn compare_worker(void *opaque)
{
    Compare *cmp = opaque;
    uint8_t *buf[2];
    ComparePiece *piece;

    buf[0] = bdrv_blockalign(cmp->side[0].bs, COMPARE_BUFFER);
    buf[1] = bdrv_blockalign(cmp->side[1].bs, COMPARE_BUFFER);
    do {
        co_mutex_lock(&cmp->lock);
        piece = take_piece(cmp);
        co_mutex_unlock(&cmp->lock);
        if (piece != NULL) {
            compare_piece(cmp, piece, buf);
        }
    } while (piece != NULL);
    free(buf[0]);
    free(buf[1]);
}

/* Compare up to @end; the exit code, after telling what was found. */
static int compare_until(Compare *cmp, int64_t end)
{
    cmp->end = end;
    tool_run_coroutines(compare_worker, cmp, COMPARE_WORKERS);
    if (cmp->found_message == NULL) {
        return COMPARE_SAME;
    }
    if (cmp->found_code != COMPARE_DIFFERENT) {
        tool_error("%s", cmp->found_message);
    } else if (!cmp->args->quiet) {
        printf("%s\n", cmp->found_message);
    }
    return cmp->found_code;
}

static int compare_content(Compare *cmp)
{
    int64_t shorter = MIN(cmp->side[0].length, cmp->side[1].length);
    int64_t longer = MAX(cmp->side[0].length, cmp->side[1].length);
    bool quiet = cmp->args->quiet;
    int code;

    if (cmp->strict && shorter != longer) {
        if (!quiet) {
            printf("Strict mode: Image size mismatch!\n");
        }
        return COMPARE_DIFFERENT;
    }
    cmp->progress_base = longer;
    progress_set_total(longer);
    code = compare_until(cmp, shorter);
    if (code == COMPARE_SAME && shorter != longer) {
        if (!quiet) {
            printf("Warning: Image size mismatch!\n");
        }
        code = compare_until(cmp, longer);
    }
    if (code == COMPARE_SAME && !quiet) {
        printf("Images are identical.\n");
    }
    return code;
}

static bool open_side(Compare *cmp, int i, const char *format, int flags)
{
    CompareSide *side = &cmp->side[i];

    side->name = img_operand(cmp->args, i);
    side->blk = img_open(cmp->args, side->name, format, cmp->args->image_opts, flags);
    if (side->blk == NULL) {
        return false;
    }
    side->bs = blk_bs(side->blk);
    side->length = blk_getlength(side->blk);
    if (side->length < 0) {
        tool_error("Can't get size of %s: %s", side->name, g_strerror((int)-side->length));
        return false;
    }
    return true;
}

static int compare_images(Compare *cmp, const char *format_b, int flags)
{
    int code;

    if (!open_side(cmp, 0, cmp->args->format, flags) || !open_side(cmp, 1, format_b, flags)) {
        code = COMPARE_OPEN_FAILED;
    } else {
        progress_start(img_progress_mode(cmp->args), 2);
        code = compare_content(cmp);
        progress_end();
    }
    blk_unref(cmp->side[0].blk);
    blk_unref(cmp->side[1].blk);
    g_queue_clear_full(&cmp->pieces, g_free);
    g_free(cmp->found_message);
    return code;
}

static int compare_run(ImgArgs *args)
{
    Compare cmp = { .args = args };
    const char *format_b = NULL;
    const char *cache = "writeback";
    bool writethrough;
    int flags = 0;
    int c;

    while ((c = img_args_next(args)) > 0) {
        cmp.strict = cmp.strict || c == 's';
        format_b = c == 'F' ? optarg : format_b;
        cache = c == 'T' ? optarg : cache;
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (img_operand_count(args) != 2) {
        return img_usage_error(args, "Expecting two image file names");
    }
    if (args->image_opts && (args->format != NULL || format_b != NULL)) {
        tool_error("--image-opts and --format are mutually exclusive");
        return COMPARE_OPEN_FAILED;
    }
    if (!img_parse_cache(cache, &flags, &writethrough)) {
        tool_error("Invalid source cache option: %s", cache);
        return COMPARE_OPEN_FAILED;
    }
    co_mutex_init(&cmp.lock);
    g_queue_init(&cmp.pieces);
    return compare_images(&cmp, format_b, flags);
}

const ImgCommand img_compare_command = {
    .name = "compare",
    .summary = "Check if two images have the same contents",
    .synopsis = "[--image-opts | [-f FMT] [-F FMT]] [-s] [-T CACHE] [-U] [-p] [-q]\n"
                "FILENAME1 FILENAME2",
    .options = compare_options,
    .operands = "FILENAME1, FILENAME2\n   the images",
    .object_error = COMPARE_OPEN_FAILED,
    .run = compare_run,
};
