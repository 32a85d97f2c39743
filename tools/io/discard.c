/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* discard and flush. */
#include <getopt.h>
#include <stdio.h>
#include "tools/io/commands.h"
#include "tools/io/numbers.h"

static bool discard_run(IoSession *s, int argc, char **argv)
{
    bool brief = false, quiet = false;
    int64_t offset, size, start;
    int letter, ret;

    while ((letter = getopt(argc, argv, "Cq")) != -1) {
        if (letter == 'C') {
            brief = true;
        } else if (letter == 'q') {
            quiet = true;
        } else {
            return io_wrong_usage(&io_discard_command);
        }
    }
    if (optind != argc - 2) {
        return io_wrong_usage(&io_discard_command);
    }
    if (!io_parse_number(argv[optind], &offset) || !io_parse_number(argv[optind + 1], &size)) {
        return false;
    }
    if (size > IO_MAX_REQUEST) {
        printf("length cannot exceed %" G_GINT64_FORMAT ", given %s\n", IO_MAX_REQUEST,
               argv[optind + 1]);
        return false;
    }
    start = io_now();
    ret = blk_pdiscard(s->blk, offset, size);
    if (ret < 0) {
        printf("discard failed: %s\n", g_strerror(-ret));
    } else if (!quiet) {
        io_report("discard", brief, start, offset, size, size);
    }
    return ret >= 0;
}

static bool flush_run(IoSession *s, int argc, char **argv)
{
    return blk_flush(s->blk) >= 0;
}

const IoCommand io_discard_command = {
    .name = "discard",
    .alias = "d",
    .arguments = "[-Cq] off len",
    .summary = "gives back a number of bytes at an offset",
    .help = "Tells the image that the range is not needed any more.\n"
            "'discard 512 1k' gives back 1024 bytes from 512 on.\n"
            " -C, -- report as one line for programs\n"
            " -q, -- report nothing but errors",
    .min_arguments = 2,
    .max_arguments = IO_ANY_NUMBER,
    .perm = BLK_PERM_WRITE,
    .run = discard_run,
};

const IoCommand io_flush_command = {
    .name = "flush",
    .alias = "f",
    .summary = "has all that was written go to stable storage",
    .run = flush_run,
};
