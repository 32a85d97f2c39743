/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert: from standard input and to standard output, each read or written once, from
 * front to back.
 */
#include "tools/img/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tools/tool.h"

#define MIN_GROWTH (64LL << 20) /* bytes */

/* ---- What is possible -------------------------------------------------------------------- */

static bool is_stdio(const char *name)
{
    return strcmp(name, "-") == 0;
}

/* What cannot be wanted of a target that is written once, or NULL. */
static const char *find_impossible(const Convert *conv)
{
    return conv->engine.compressed                 ? "-c"
           : conv->skip_create                     ? "-n"
           : conv->backing || conv->backing_format ? "-B"
           : conv->bitmaps                         ? "--bitmaps"
                                                   : NULL;
}

static bool check_stdout(const Convert *conv)
{
    const char *impossible = find_impossible(conv);
    bool writethrough;
    int flags = 0;

    if (impossible != NULL) {
        tool_error("%s cannot be used when the target is standard output", impossible);
        return false;
    }
    if (!img_parse_cache(conv->target_cache, &flags, &writethrough)) {
        tool_error("Invalid cache option: %s", conv->target_cache);
        return false;
    }
    if (tool_was_closed(STDOUT_FILENO)) {
        tool_error("Standard output is closed");
        return false;
    }
    if (progress_fd() == STDOUT_FILENO) {
        tool_error("--progress-fd %d is where the image goes", STDOUT_FILENO);
        return false;
    }
    if (isatty(STDOUT_FILENO)) {
        tool_error("An image is not written to a terminal");
        return false;
    }
    return true;
}

bool img_convert_check_streams(Convert *conv)
{
    const char *format = conv->target_format != NULL ? conv->target_format : "raw";
    int inputs = 0;

    for (size_t i = 0; i < conv->engine.n_sources && !conv->args->image_opts; i++) {
        inputs += is_stdio(img_operand(conv->args, (int)i));
    }
    conv->to_stdout = !conv->target_image_opts && is_stdio(conv->engine.target_name);
    if (inputs > 1) {
        tool_error("Standard input can be read only once");
        return false;
    }
    if (inputs > 0 && tool_was_closed(STDIN_FILENO)) {
        tool_error("Standard input is closed");
        return false;
    }
    /* A qcow2 that goes out needs to know first where data is. */
    conv->from_stdin = inputs == 1 && conv->engine.n_sources == 1 && conv->snapshot == NULL &&
                       g_strcmp0(conv->args->format, "raw") == 0 && conv->backing == NULL &&
                       !conv->bitmaps && (!conv->to_stdout || strcmp(format, "raw") == 0);
    return !conv->to_stdout || check_stdout(conv);
}

/* What goes out would come in again, without an end. */
static bool check_not_source(const Convert *conv)
{
    if (img_file_set_find(conv->files, "/proc/self/fd/1") != NULL) {
        tool_error("standard output: it is a file of the source, too");
        return false;
    }
    return true;
}

/* ---- From standard input ----------------------------------------------------------------- */

static bool set_length(ConvertEngine *eng, int64_t length)
{
    GError *err = NULL;

    if (blk_truncate(eng->target, length, true, BLOCK_PREALLOC_OFF, &err) < 0) {
        tool_error_take(err, "%s: ", eng->target_name);
        eng->ret = -EIO;
        return false;
    }
    return true;
}

/*
 * Make the target so long that @end is inside; now and then, and at the @last piece
 * just so: a compressed piece may end in the middle of a unit only where the disk ends.
 */
static bool make_room(const Convert *conv, ConvertEngine *eng, int64_t end, bool last)
{
    int64_t length = blk_getlength(eng->target);

    if (conv->skip_create) {
        if (end > length) {
            tool_error("output file is smaller than input file");
            eng->ret = -ENOSPC;
        }
        return end <= length;
    }
    if (last) {
        return end == length || set_length(eng, end);
    }
    if (end > BDRV_MAX_LENGTH - MIN_GROWTH) {
        tool_error("standard input: too large");
        eng->ret = -EFBIG;
        return false;
    }
    if (end > length) {
        length = MIN(end + MAX(length / 2, MIN_GROWTH), BDRV_MAX_LENGTH);
        return set_length(eng, length & -MIN_GROWTH);
    }
    return true;
}

static bool write_piece(const Convert *conv, ConvertEngine *eng, int64_t offset, int64_t bytes,
                        bool last, const uint8_t *buf)
{
    if (!conv->to_stdout) {
        return make_room(conv, eng, offset + bytes, last) &&
               (bytes == 0 || convert_engine_write(eng, offset, bytes, buf) == 0);
    }
    convert_engine_pace(eng, bytes);
    eng->ret = img_write_stdout(NULL, buf, (size_t)bytes);
    if (eng->ret < 0) {
        img_report_io_error("standard output", "error while writing at byte", offset, eng->ret);
    }
    return eng->ret == 0;
}

static void copy_stdin(Convert *conv, uint8_t *buf)
{
    ConvertEngine *eng = &conv->engine;
    int64_t offset = 0;
    bool last = false;

    while (!last) {
        int64_t got = img_read_stdin(buf, CONVERT_BUFFER);
        int64_t bytes = (got + BDRV_SECTOR_SIZE - 1) & -BDRV_SECTOR_SIZE;

        if (got < 0) {
            eng->ret = -EIO;
            return;
        }
        last = got < CONVERT_BUFFER;
        memset(buf + got, 0, (size_t)(bytes - got));
        if (eng->digest != NULL) {
            convert_digest(eng, offset, buf, bytes);
        }
        if (!write_piece(conv, eng, offset, bytes, last, buf)) {
            return;
        }
        offset += bytes;
    }
}

int img_convert_stream_in(Convert *conv)
{
    ConvertEngine *eng = &conv->engine;
    uint8_t *buf;

    eng->n_sources = 0;
    img_file_set_add_file(conv->files, "/proc/self/fd/0", "standard input");
    if (conv->to_stdout && !check_not_source(conv)) {
        return -EINVAL;
    }
    if (!conv->to_stdout && !img_convert_prepare_target(conv, 0)) {
        return -EINVAL;
    }
    convert_engine_begin(eng);
    buf = eng->target != NULL ? bdrv_try_blockalign(blk_bs(eng->target), CONVERT_BUFFER)
                              : malloc(CONVERT_BUFFER);
    if (buf == NULL) {
        tool_error("no memory for a buffer");
        return -ENOMEM;
    }
    copy_stdin(conv, buf);
    free(buf);
    return eng->ret == 0 && !conv->to_stdout ? convert_engine_flush(eng) : eng->ret;
}

/* ---- To standard output --------------------------------------------------------------------- */

typedef struct StreamOut {
    ConvertEngine *eng;
    GArray *ranges;
    int64_t data; /* bytes in all ranges */
    uint8_t *buf;
} StreamOut;

static bool coroutine_fn copy_piece(StreamOut *out, int64_t offset, int64_t bytes)
{
    ConvertEngine *eng = out->eng;
    int64_t inside = CLAMP(eng->total - offset, 0, bytes);
    int ret;

    if (!convert_engine_read(eng, offset, inside, out->buf)) {
        return false;
    }
    memset(out->buf + inside, 0, (size_t)(bytes - inside));
    if (eng->digest != NULL) {
        convert_digest(eng, offset, out->buf, inside);
    }
    ret = img_write_stdout(NULL, out->buf, (size_t)bytes);
    if (ret < 0) {
        img_report_io_error("standard output", "error while writing at byte", offset, ret);
        eng->ret = ret;
        return false;
    }
    progress_add((double)bytes * 100 / (double)out->data);
    return true;
}

static void coroutine_fn copy_ranges(void *opaque)
{
    StreamOut *out = opaque;

    for (guint i = 0; i < out->ranges->len; i++) {
        const BdrvRange *r = &g_array_index(out->ranges, BdrvRange, i);

        for (int64_t done = 0, n; done < r->bytes; done += n) {
            n = MIN(r->bytes - done, CONVERT_BUFFER);
            if (!copy_piece(out, r->offset + done, n)) {
                return;
            }
        }
    }
}

/* Everything that stands before the data; tells what data follows. */
static bool write_head(Convert *conv, BlockDriver *drv, int64_t total, GArray *ranges)
{
    g_autoptr(JsonObject) options = img_create_options("", conv->options, drv, NULL);
    GError *err = NULL;

    if (options == NULL) {
        return false;
    }
    json_object_set_int_member(options, "size", total);
    if (!bdrv_create_sequential(drv, options, ranges, img_write_stdout, NULL, &err)) {
        tool_error_take(err, "standard output: ");
        return false;
    }
    return true;
}

/* The data, when the head is written. */
static int copy_all(ConvertEngine *eng, GArray *ranges)
{
    StreamOut out = { .eng = eng, .ranges = ranges };

    for (guint i = 0; i < ranges->len; i++) {
        out.data += g_array_index(ranges, BdrvRange, i).bytes;
    }
    progress_set_total(out.data);
    if (out.data > 0) {
        out.buf = bdrv_try_blockalign(blk_bs(eng->sources[0].blk), CONVERT_BUFFER);
        if (out.buf == NULL) {
            tool_error("no memory for a buffer");
            return -ENOMEM;
        }
        tool_run_coroutines(copy_ranges, &out, 1);
        free(out.buf);
    }
    if (eng->ret == 0 && eng->digest != NULL) {
        convert_digest(eng, eng->total, NULL, 0);
    }
    return eng->ret;
}

int img_convert_stream_out(Convert *conv, int64_t total)
{
    const char *format = conv->target_format != NULL ? conv->target_format : "raw";
    BlockDriver *drv = img_find_creatable("", format, false);
    g_autoptr(GArray) ranges = g_array_new(FALSE, FALSE, sizeof(BdrvRange));
    ConvertEngine *eng = &conv->engine;
    ConvertListing listing = { eng, ranges };

    if (drv == NULL) {
        return -EINVAL;
    }
    if (!check_not_source(conv)) {
        return -EINVAL;
    }
    eng->target_is_zero = true;
    convert_engine_begin(eng);
    tool_run_coroutines(convert_list_data, &listing, 1);
    if (eng->ret < 0 || !write_head(conv, drv, total, ranges)) {
        return eng->ret < 0 ? eng->ret : -EIO;
    }
    return copy_all(eng, ranges);
}
