/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* length and truncate. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "tools/io/commands.h"
#include "tools/io/numbers.h"
#include "tools/tool.h"

static bool length_run(IoSession *s, int argc, char **argv)
{
    g_autofree char *text = NULL;
    int64_t length = blk_getlength(s->blk);

    if (length < 0) {
        printf("getlength: %s\n", g_strerror((int)-length));
        return false;
    }
    text = io_size_text((double)length);
    printf("%s\n", text);
    return true;
}

static bool parse_prealloc(const char *word, BlockPrealloc *prealloc)
{
    for (int i = 0; block_prealloc_words[i] != NULL; i++) {
        if (strcmp(block_prealloc_words[i], word) == 0) {
            *prealloc = (BlockPrealloc)i;
            return true;
        }
    }
    tool_error("Invalid preallocation mode '%s'", word);
    return false;
}

static bool truncate_run(IoSession *s, int argc, char **argv)
{
    BlockPrealloc prealloc = BLOCK_PREALLOC_OFF;
    GError *err = NULL;
    int64_t size;
    int letter;

    while ((letter = getopt(argc, argv, "m:")) != -1) {
        if (letter != 'm') {
            return io_wrong_usage(&io_truncate_command);
        }
        if (!parse_prealloc(optarg, &prealloc)) {
            return false;
        }
    }
    if (optind != argc - 1) {
        return io_wrong_usage(&io_truncate_command);
    }
    if (!io_parse_number(argv[optind], &size)) {
        return false;
    }
    if (blk_truncate(s->blk, size, false, prealloc, &err) < 0) {
        tool_error_report(err);
        return false;
    }
    return true;
}

const IoCommand io_length_command = {
    .name = "length",
    .alias = "l",
    .summary = "tells the disk's length",
    .run = length_run,
};

const IoCommand io_truncate_command = {
    .name = "truncate",
    .alias = "t",
    .arguments = "[-m prealloc_mode] off",
    .summary = "makes the disk this long",
    .min_arguments = 1,
    .max_arguments = 3,
    .perm = BLK_PERM_WRITE | BLK_PERM_RESIZE,
    .run = truncate_run,
};
