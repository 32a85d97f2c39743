/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map and alloc: what of the disk this image has, whatever is below it. */
#include <stdio.h>
#include "tools/io/commands.h"
#include "tools/io/numbers.h"

/* 1 or 0 with the length of the run in *@pnum, or -errno. */
static int is_allocated(IoSession *s, int64_t offset, int64_t bytes, int64_t *pnum)
{
    BlockDriverState *bs = blk_bs(s->blk);
    BlockDriverState *base;
    int ret;

    bdrv_graph_rdlock_main_loop();
    base = bdrv_backing_chain_next(bs);
    bdrv_graph_rdunlock_main_loop();
    ret = bdrv_block_status_above(bs, base, offset, bytes, pnum, NULL, NULL, NULL);
    return ret < 0 ? ret : (ret & BDRV_BLOCK_ALLOCATED) != 0;
}

static int64_t length_of(IoSession *s)
{
    int64_t length = blk_getlength(s->blk);

    if (length < 0) {
        printf("getlength: %s\n", g_strerror((int)-length));
    }
    return length;
}

static bool alloc_run(IoSession *s, int argc, char **argv)
{
    int64_t length, offset, at, end, count = BDRV_SECTOR_SIZE, allocated = 0, run;
    g_autofree char *place = NULL;

    if (!io_parse_number(argv[1], &offset) || (argc > 2 && !io_parse_number(argv[2], &count))) {
        return false;
    }
    length = length_of(s);
    if (length < 0) {
        return false;
    }
    count = MIN(count, MAX(length - offset, 0));
    end = offset + count;
    for (at = offset; at < end; at += run) {
        int ret = is_allocated(s, at, end - at, &run);

        if (ret < 0) {
            printf("is_allocated failed: %s\n", g_strerror(-ret));
            return false;
        }
        allocated += ret > 0 ? run : 0;
        if (run == 0) {
            break;
        }
    }
    place = io_size_text((double)offset);
    printf("%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT " bytes allocated at offset %s\n", allocated,
           count, place);
    return true;
}

/* The run at @offset, all of it: is_allocated() may tell of a part. */
static int find_run(IoSession *s, int64_t offset, int64_t end, int64_t *size)
{
    int64_t part;
    int first = is_allocated(s, offset, end - offset, size);
    int ret = first;

    while (ret >= 0 && ret == first && *size > 0 && offset + *size < end) {
        ret = is_allocated(s, offset + *size, end - offset - *size, &part);
        if (ret < 0 || part == 0) {
            return ret < 0 ? ret : first;
        }
        *size += ret == first ? part : 0;
    }
    return first;
}

static bool map_run(IoSession *s, int argc, char **argv)
{
    int64_t length = length_of(s);
    int64_t size;

    if (length < 0) {
        return false;
    }
    for (int64_t offset = 0; offset < length; offset += size) {
        g_autofree char *place = io_size_text((double)offset);
        g_autofree char *amount = NULL;
        int ret = find_run(s, offset, length, &size);

        if (ret < 0) {
            printf("Failed to get allocation status: %s\n", g_strerror(-ret));
            return false;
        }
        if (size == 0) {
            printf("Unexpected end of image\n");
            return false;
        }
        amount = io_size_text((double)size);
        printf("%s (0x%" G_GINT64_MODIFIER "x) bytes %s allocated at offset %s (0x%"
               G_GINT64_MODIFIER "x)\n",
               amount, (guint64)size, ret > 0 ? "   " : "not", place, (guint64)offset);
    }
    return true;
}

const IoCommand io_alloc_command = {
    .name = "alloc",
    .alias = "a",
    .arguments = "offset [count]",
    .summary = "tells how much from an offset on is in this image",
    .min_arguments = 1,
    .max_arguments = 2,
    .run = alloc_run,
};

const IoCommand io_map_command = {
    .name = "map",
    .summary = "lists what is in this image",
    .run = map_run,
};
