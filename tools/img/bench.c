/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench: so many requests, so many of them at a time, and how long that takes.
 *
 * Requests with callbacks, as an emulator would send them. Each end of one begins the
 * next; a flush that is to wait for what is in flight holds new ones back.
 */
#include "tools/img/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/tool.h"

enum {
    OPT_PATTERN = 512, /* behind IMG_OPT_… */
    OPT_FLUSH_INTERVAL,
    OPT_NO_DRAIN,
};

static const ImgOption bench_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "cache", 't', "CACHE", "the cache mode (default: writeback)" },
    { "count", 'c', "COUNT", "how many requests (default: 75000)" },
    { "depth", 'd', "DEPTH", "how many of them at a time (default: 64)" },
    { "offset", 'o', "OFFSET", "where the first one begins (default: 0)" },
    { "buffer-size", 's', "BUFFER_SIZE", "how many bytes each has (default: 4096)" },
    { "step-size", 'S', "STEP_SIZE",
      "how far behind one the next begins (default: its size); at the\n"
      "end of the disk they go on from its beginning" },
    { "aio", 'i', "AIO", "threads, native or io_uring: how to do I/O; native is for\n"
      "cache modes without the page cache" },
    { "native", 'n', NULL, "the same as --aio native" },
    { "write", 'w', NULL, "write; otherwise read" },
    { "pattern", OPT_PATTERN, "PATTERN", "the byte to write (default: 0)" },
    { "flush-interval", OPT_FLUSH_INTERVAL, "INTERVAL",
      "flush after so many requests, when all of them are over" },
    { "no-drain", OPT_NO_DRAIN, NULL, "flush beside them" },
    IMG_OPTION_FORCE_SHARE,
    { "quiet", 'q', NULL, "taken for compatibility: the results are what is asked for" },
    { NULL },
};

typedef struct Bench Bench;

/* One of those that can be in flight. */
typedef struct Request {
    Bench *bench;
    IOVector iov;
    struct Request *next; /* free ones */
} Request;

struct Bench {
    ImgArgs *args;
    const char *cache;
    const char *aio;
    bool write;
    bool drain;
    int64_t count;
    int64_t depth;
    int64_t size; /* bytes of each */
    int64_t step; /* bytes; 0: size */
    int64_t offset;
    int64_t pattern;
    int64_t flush_interval; /* requests; 0: never */

    BlockBackend *blk;
    int64_t length;
    int write_flags;
    void *buffers;
    Request *requests;
    Request *free;
    int64_t begun;
    int64_t until_flush; /* requests */
    int in_flight;       /* and flushes */
    bool flushing;       /* and nothing else may begin */
    int ret;             /* of what failed first */
};

/* ---- In flight -------------------------------------------------------------------------- */

static void begin_requests(Bench *b);

static void request_done(void *opaque, int ret)
{
    Request *request = opaque;
    Bench *b = request->bench;

    b->in_flight--;
    b->ret = b->ret < 0 ? b->ret : MIN(ret, 0);
    request->next = b->free;
    b->free = request;
    begin_requests(b);
}

static void flush_done(void *opaque, int ret)
{
    Bench *b = opaque;

    b->in_flight--;
    b->flushing = false;
    b->ret = b->ret < 0 ? b->ret : MIN(ret, 0);
    begin_requests(b);
}

static void begin_flush(Bench *b)
{
    b->until_flush = b->flush_interval;
    b->flushing = b->drain;
    b->in_flight++;
    blk_aio_flush(b->blk, flush_done, b);
}

static void begin_request(Bench *b)
{
    Request *request = b->free;

    b->free = request->next;
    b->begun++;
    b->until_flush--;
    b->in_flight++;
    (b->write ? blk_aio_pwritev : blk_aio_preadv)(b->blk, b->offset, &request->iov,
                                                  b->write ? b->write_flags : 0, request_done,
                                                  request);
    /* Around the end; where there is none, the first failed. */
    if (b->length <= b->size) {
        b->offset = 0;
    } else if (__builtin_add_overflow(b->offset, b->step, &b->offset) ||
               b->offset > b->length - b->size) {
        b->offset = b->offset < 0 ? 0 : b->offset % (b->length - b->size);
    }
}

/* As many as may be in flight now. */
static void begin_requests(Bench *b)
{
    while (b->ret >= 0 && b->begun < b->count && b->free != NULL && !b->flushing) {
        if (b->flush_interval > 0 && b->until_flush == 0) {
            if (b->drain && b->in_flight > 0) {
                return;
            }
            begin_flush(b);
        } else {
            begin_request(b);
        }
    }
}

/* ---- A run ------------------------------------------------------------------------------ */

static bool make_requests(Bench *b)
{
    int64_t n = MIN(b->depth, b->count), bytes;

    if (!__builtin_mul_overflow(n, b->size, &bytes) && bytes <= PTRDIFF_MAX) {
        b->buffers = bdrv_try_blockalign(blk_bs(b->blk), (size_t)bytes);
    }
    b->requests = b->buffers != NULL ? g_try_new0(Request, n) : NULL;
    if (b->requests == NULL) {
        tool_error("no memory for %" G_GINT64_FORMAT " requests of %" G_GINT64_FORMAT " bytes", n,
                   b->size);
        return false;
    }
    memset(b->buffers, (int)b->pattern, (size_t)bytes);
    for (int64_t i = n - 1; i >= 0; i--) {
        Request *request = &b->requests[i];

        request->bench = b;
        io_vector_init_buf(&request->iov, (uint8_t *)b->buffers + i * b->size, (size_t)b->size);
        request->next = b->free;
        b->free = request;
    }
    return true;
}

static void print_plan(const Bench *b)
{
    printf("Sending %" G_GINT64_FORMAT " %s requests, %" G_GINT64_FORMAT " bytes each, %"
           G_GINT64_FORMAT " in parallel (starting at offset %" G_GINT64_FORMAT
           ", step size %" G_GINT64_FORMAT ")\n",
           b->count, b->write ? "write" : "read", b->size, b->depth, b->offset, b->step);
    if (b->flush_interval > 0) {
        printf("Sending flush every %" G_GINT64_FORMAT " requests\n", b->flush_interval);
    }
    fflush(stdout);
}

static bool run(Bench *b)
{
    int64_t start;

    b->length = blk_getlength(b->blk);
    if (b->length < 0) {
        tool_error("Could not get the length of '%s': %s", img_operand(b->args, 0),
                   g_strerror((int)-b->length));
        return false;
    }
    if (!make_requests(b)) {
        return false;
    }
    print_plan(b);
    b->until_flush = b->flush_interval;
    start = g_get_monotonic_time();
    begin_requests(b);
    AIO_WAIT_WHILE(b->in_flight > 0);
    if (b->ret < 0) {
        tool_error("Failed request: %s", g_strerror(-b->ret));
        return false;
    }
    printf("Run completed in %.3f seconds.\n",
           (double)(g_get_monotonic_time() - start) / G_USEC_PER_SEC);
    return true;
}

static int bench_image(Bench *b)
{
    int flags = b->write ? BDRV_O_RDWR : 0;
    bool writethrough, ok = false;

    if (!img_parse_cache(b->cache, &flags, &writethrough)) {
        tool_error("Invalid cache mode");
        return 1;
    }
    if (b->aio != NULL && strcmp(b->aio, "native") == 0 && !(flags & BDRV_O_NOCACHE)) {
        tool_error("Could not open '%s': aio=native was specified, but it requires "
                   "cache.direct=on, which was not specified.", img_operand(b->args, 0));
        return 1;
    }
    b->write_flags = writethrough ? BDRV_REQ_FUA : 0;
    b->blk = img_open_operand(b->args, flags);
    if (b->blk != NULL) {
        ok = run(b);
        blk_unref(b->blk);
    }
    g_free(b->requests);
    free(b->buffers);
    return ok ? 0 : 1;
}

/* ---- The command ------------------------------------------------------------------------ */

static bool take_engine(Bench *b)
{
    AioEngine engine;

    b->aio = optarg;
    if (aio_engine_parse(optarg, &engine)) {
        aio_set_default_engine(engine);
    } else if (strcmp(optarg, "native") != 0) {
        tool_error("Invalid aio option: %s", optarg);
        return false;
    }
    return true;
}

static bool take_option(Bench *b, int letter)
{
    switch (letter) {
    case 't':
        b->cache = optarg;
        return true;
    case 'c':
        return tool_parse_number("request count", optarg, 1, INT32_MAX, &b->count);
    case 'd':
        return tool_parse_number("queue depth", optarg, 1, INT32_MAX, &b->depth);
    case 'o':
        return tool_parse_size("offset", optarg, 0, INT64_MAX, &b->offset);
    case 's':
        return tool_parse_size("buffer size", optarg, 1, INT32_MAX, &b->size);
    case 'S':
        return tool_parse_size("step size", optarg, 0, INT32_MAX, &b->step);
    case 'i':
        return take_engine(b);
    case 'n':
        b->aio = "native";
        return true;
    case 'w':
        b->write = true;
        return true;
    case OPT_PATTERN:
        return tool_parse_number("pattern byte", optarg, 0, UINT8_MAX, &b->pattern);
    case OPT_FLUSH_INTERVAL:
        return tool_parse_number("flush interval", optarg, 0, INT32_MAX, &b->flush_interval);
    case OPT_NO_DRAIN:
        b->drain = false;
        return true;
    default:
        return true;
    }
}

static bool check_options(const Bench *b)
{
    if (!b->write && b->flush_interval > 0) {
        tool_error("--flush-interval is only available in write tests");
    } else if (b->flush_interval > 0 && b->flush_interval < b->depth) {
        tool_error("Flush interval can't be smaller than depth");
    } else {
        return img_check_format_options(b->args);
    }
    return false;
}

static int bench_run(ImgArgs *args)
{
    Bench b = { .args = args, .cache = "writeback", .drain = true, .count = 75000, .depth = 64,
                .size = 4096 };
    int letter;

    while ((letter = img_args_next(args)) > 0) {
        if (!take_option(&b, letter)) {
            return 1;
        }
    }
    if (letter == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (img_operand_count(args) != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    b.step = b.step > 0 ? b.step : b.size;
    return check_options(&b) ? bench_image(&b) : 1;
}

/* QEMU 10.0 has these with their letters only, if at all. */
static const char *const ours_alone[] = { "object", "quiet", NULL };

const ImgCommand img_bench_command = {
    .name = "bench",
    .summary = "Time requests to an image",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE] [-c COUNT] [-d DEPTH]\n"
                "[-o OFFSET] [-s BUFFER_SIZE] [-S STEP_SIZE] [-i AIO] [-n]\n"
                "[-w [--pattern PATTERN] [--flush-interval INTERVAL [--no-drain]]]\n"
                "[-U] [-q] FILENAME",
    .options = bench_options,
    .ours_alone = ours_alone,
    .operands = "FILENAME\n"
                "   the image file, or an option list",
    .run = bench_run,
};
