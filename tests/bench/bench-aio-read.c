/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a read with a callback costs: sequential reads of a size, some in flight,
 * each sent from the callback of another. With "pass" they pass through where they
 * can; with "coroutine" the image is kept from that by a flag on the requests. Prints
 * the time per request and how many passed; for exact figures run it twice under
 * callgrind with different counts and divide the difference, e.g.
 *   valgrind --tool=callgrind bench-aio-read pass driver=raw,file.driver=null-co 4096 16 100000
 */
#include <stdio.h>
#include <stdlib.h>

#include "blockgraph/blockgraph.h"

#define MAX_DEPTH 64

typedef struct Bench Bench;

typedef struct Lane {
    Bench *bench;
    IOVector iov;
} Lane;

struct Bench {
    BlockBackend *blk;
    int64_t length;
    int64_t size; /* of a request, bytes */
    int64_t next;
    int flags;
    long left;
    int running;
    Lane lanes[MAX_DEPTH];
};

static void send_next(Lane *lane);

static void read_is_over(void *opaque, int ret)
{
    Lane *lane = opaque;

    if (ret < 0) {
        fprintf(stderr, "read: %s\n", g_strerror(-ret));
        exit(1);
    }
    send_next(lane);
}

static void send_next(Lane *lane)
{
    Bench *b = lane->bench;
    int64_t offset = b->next;

    if (b->left-- <= 0) {
        b->running--;
        return;
    }
    b->next = offset + 2 * b->size <= b->length ? offset + b->size : 0;
    blk_aio_preadv(b->blk, offset, &lane->iov, b->flags, read_is_over, lane);
}

static bool open_image(Bench *b, const char *image, GError **errp)
{
    g_autoptr(JsonObject) options = NULL;
    GError *err = NULL;

    if (strchr(image, '=')) {
        options = block_options_parse(image, NULL, &err);
    }
    b->blk = err ? NULL : blk_new_open(options ? NULL : image, options, 0,
                                       &block_open_policy_follow, &err);
    if (err) {
        g_propagate_error(errp, err);
        return false;
    }
    b->length = blk_getlength(b->blk);
    return true;
}

static void run(Bench *b, int depth, long count)
{
    int64_t start = g_get_monotonic_time();
    BlkPassThroughStats stats;

    b->left = count;
    b->running = depth;
    for (int i = 0; i < depth; i++) {
        b->lanes[i].bench = b;
        io_vector_init_buf(&b->lanes[i].iov, aligned_alloc(4096, (b->size + 4095) & ~4095LL),
                           b->size);
        send_next(&b->lanes[i]);
    }
    AIO_WAIT_WHILE(b->running > 0);
    blk_get_pass_through_stats(b->blk, &stats);
    printf("%.1f ns per request, %ld of %ld passed through\n",
           (g_get_monotonic_time() - start) * 1e3 / count, (long)stats.passed, count);
    for (int i = 0; i < depth; i++) {
        free(b->lanes[i].iov.iov[0].iov_base);
    }
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;
    Bench b = {0};
    int depth;

    if (argc != 6 || (strcmp(argv[1], "pass") != 0 && strcmp(argv[1], "coroutine") != 0)) {
        fprintf(stderr, "usage: bench-aio-read pass|coroutine OPTIONS|FILE SIZE DEPTH COUNT\n");
        return 1;
    }
    if (!blockgraph_init(&err) || !open_image(&b, argv[2], &err)) {
        fprintf(stderr, "%s\n", err->message);
        return 1;
    }
    /* Means nothing for a read; but requests with flags do not pass. */
    b.flags = strcmp(argv[1], "coroutine") == 0 ? BDRV_REQ_WRITE_UNCHANGED : 0;
    b.size = atoll(argv[3]);
    depth = CLAMP(atoi(argv[4]), 1, MAX_DEPTH);
    run(&b, depth, atol(argv[5]));
    blk_unref(b.blk);
    blockgraph_cleanup();
    return 0;
}
