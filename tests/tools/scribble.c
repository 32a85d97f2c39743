/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * scribble FORMAT FILE SEED COUNT [UNIT|--kill]: write to an image at random places through
 * the C API. What it reads as afterwards depends on the seed alone, not on the
 * format, so that an image and a raw file that get the same can be compared. With
 * UNIT, some writes to a qcow2 image are compressed, in clusters of so many bytes.
 * With --kill, the program kills itself after the last flush, with the image open.
 */
#include <blockgraph/blockgraph.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES (192 << 10)

typedef struct Scribbler {
    BlockBackend *blk;
    GRand *dice;
    int64_t length;
    int64_t unit; /* bytes of a cluster, or 0: nothing is compressed */
    bool compresses;
    uint8_t *buf;
} Scribbler;

static int write_random(Scribbler *s, int64_t offset, int64_t bytes, int flags)
{
    uint32_t pattern = g_rand_int(s->dice);
    uint32_t stripe = 1 + pattern % 700;

    for (int64_t i = 0; i < bytes; i++) {
        s->buf[i] = (uint8_t)(pattern >> (i / stripe % 25));
    }
    return blk_pwrite(s->blk, offset, bytes, s->buf, flags);
}

/* Whole clusters, or up to the end: what compression asks for. */
static int write_compressed(Scribbler *s, int64_t offset)
{
    int64_t start = offset / s->unit * s->unit;

    return write_random(s, start, MIN(s->unit, s->length - start),
                        s->compresses ? BDRV_REQ_COMPRESSED : 0);
}

static int one_change(Scribbler *s)
{
    int64_t offset = (int64_t)(g_rand_double(s->dice) * (double)(s->length / 512)) * 512;
    int64_t bytes = 512 * g_rand_int_range(s->dice, 1, MAX_BYTES / 512);
    int what = g_rand_int_range(s->dice, 0, 8);
    int ret = 0;

    bytes = MIN(bytes, s->length - offset);
    switch (what) {
    case 0:
        return blk_pwrite_zeroes(s->blk, offset, bytes, 0);
    case 1:
        return blk_pwrite_zeroes(s->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    case 2:
        ret = blk_flush(s->blk);
        return ret < 0 ? ret : write_random(s, offset, bytes, BDRV_REQ_FUA);
    case 3: /* what was discarded reads as anything: write it */
        ret = blk_pdiscard(s->blk, offset, bytes);
        return ret < 0 ? ret : write_random(s, offset, bytes, 0);
    case 4:
        return s->unit > 0 ? write_compressed(s, offset) : write_random(s, offset, 512, 0);
    default: /* not a whole sector */
        offset += g_rand_int_range(s->dice, 0, 256);
        return write_random(s, offset, bytes - 256, 0);
    }
}

static int scribble(Scribbler *s, int count)
{
    int ret = 0;

    s->length = blk_getlength(s->blk);
    s->buf = g_malloc(MAX((int64_t)MAX_BYTES, s->unit));
    for (int i = 0; i < count && ret >= 0; i++) {
        ret = one_change(s);
    }
    g_free(s->buf);
    return ret < 0 ? ret : blk_flush(s->blk);
}

int main(int argc, char **argv)
{
    g_autoptr(JsonObject) options = json_object_new();
    GError *err = NULL;
    Scribbler s = { 0 };
    bool kill_at_end;
    int ret;

    if (argc < 5 || argc > 6) {
        fprintf(stderr, "scribble FORMAT FILE SEED COUNT [UNIT|--kill]\n");
        return 2;
    }
    json_object_set_string_member(options, "driver", argv[1]);
    if (!blockgraph_init(&err) ||
        !(s.blk = blk_new_open(argv[2], options, BDRV_O_RDWR | BDRV_O_UNMAP,
                               &block_open_policy_follow, &err))) {
        fprintf(stderr, "scribble: %s\n", err->message);
        g_error_free(err);
        return 1;
    }
    s.dice = g_rand_new_with_seed((guint32)strtoul(argv[3], NULL, 10));
    kill_at_end = argc == 6 && strcmp(argv[5], "--kill") == 0;
    s.unit = argc == 6 && !kill_at_end ? strtoll(argv[5], NULL, 10) : 0;
    s.compresses = strcmp(argv[1], "qcow2") == 0;
    ret = scribble(&s, atoi(argv[4]));
    if (ret < 0) {
        fprintf(stderr, "scribble: %s: %s\n", argv[2], g_strerror(-ret));
    }
    if (kill_at_end) {
        raise(SIGKILL);
    }
    g_rand_free(s.dice);
    blk_unref(s.blk);
    blockgraph_cleanup();
    return ret < 0 ? 1 : 0;
}
