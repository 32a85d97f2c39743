/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a read costs: reads of a size, sequential, some in flight, through any
 * image. Prints the time per request; for exact figures run it twice under
 * callgrind with different counts and divide the difference, e.g.
 *   valgrind --tool=callgrind bench-read driver=null-co,size=1G 4096 16 100000
 * The peer for images is "qemu-img bench -c COUNT -d DEPTH -s SIZE".
 */
#include <stdio.h>
#include <stdlib.h>

#include "blockgraph/blockgraph.h"

typedef struct Bench {
    BlockBackend *blk;
    int64_t length;
    int64_t size; /* of a request, bytes */
    int64_t next;
    long left;
    int running;
} Bench;

static void coroutine_fn worker(void *opaque)
{
    Bench *b = opaque;
    void *buf = aligned_alloc(4096, (b->size + 4095) & ~INT64_C(4095));

    while (b->left-- > 0) {
        int64_t offset = b->next;
        int ret;

        b->next = offset + 2 * b->size <= b->length ? offset + b->size : 0;
        ret = blk_co_pread(b->blk, offset, b->size, buf, 0);
        if (ret < 0) {
            fprintf(stderr, "read of %ld bytes at %ld: %s\n", (long)b->size, (long)offset,
                    g_strerror(-ret));
            exit(1);
        }
    }
    free(buf);
    b->running--;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = NULL;
    Bench b = {0};
    int64_t start;
    long count;
    int depth;

    if (argc != 5) {
        fprintf(stderr, "usage: bench-read OPTIONS|FILE SIZE DEPTH COUNT\n");
        return 1;
    }
    if (!blockgraph_init(&err)) {
        fprintf(stderr, "%s\n", err->message);
        return 1;
    }
    if (strchr(argv[1], '=')) {
        options = block_options_parse(argv[1], NULL, &err);
    }
    b.blk = err ? NULL : blk_new_open(options ? NULL : argv[1], options, 0,
                                      &block_open_policy_follow, &err);
    if (!b.blk) {
        fprintf(stderr, "%s\n", err->message);
        return 1;
    }
    b.length = blk_getlength(b.blk);
    b.size = atoll(argv[2]);
    depth = atoi(argv[3]);
    count = b.left = atol(argv[4]);
    start = g_get_monotonic_time();
    b.running = depth;
    for (int i = 0; i < depth; i++) {
        coroutine_enter(coroutine_create(worker, &b));
    }
    AIO_WAIT_WHILE(b.running > 0);
    printf("%.1f ns per request\n", (g_get_monotonic_time() - start) * 1e3 / count);
    blk_unref(b.blk);
    blockgraph_cleanup();
    return 0;
}
