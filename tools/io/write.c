/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* write and writev: one request that is waited for. */
#include "tools/io/commands.h"

#include <getopt.h>
#include <stdio.h>
#include "tools/io/buffer.h"
#include "tools/io/numbers.h"

typedef struct Write {
    bool brief, quiet, vm_state, zero;
    int flags; /* BdrvRequestFlags */
    int pattern; /* or -1 */
    const char *file;
} Write;

static bool take_option(const IoCommand *command, Write *wr, int letter)
{
    switch (letter) {
    case 'b':
        wr->vm_state = true;
        return true;
    case 'c':
        wr->flags |= BDRV_REQ_COMPRESSED;
        return true;
    case 'C':
        wr->brief = true;
        return true;
    case 'f':
        wr->flags |= BDRV_REQ_FUA;
        return true;
    case 'n':
        wr->flags |= BDRV_REQ_NO_FALLBACK;
        return true;
    case 'P':
        return io_parse_pattern(optarg, &wr->pattern);
    case 'q':
        wr->quiet = true;
        return true;
    case 'p': /* of old */
    case 'r': /* memory is registered or not as the engine likes it */
        return true;
    case 's':
        wr->file = optarg;
        return true;
    case 'u':
        wr->flags |= BDRV_REQ_MAY_UNMAP;
        return true;
    case 'z':
        wr->zero = true;
        return true;
    default:
        return io_wrong_usage(command);
    }
}

static bool take_options(const IoCommand *command, const char *letters, Write *wr, int argc,
                         char **argv)
{
    int letter;

    *wr = (Write){ .pattern = -1 };
    while ((letter = getopt(argc, argv, letters)) != -1) {
        if (!take_option(command, wr, letter)) {
            return false;
        }
    }
    return true;
}

/* Options that go together? */
static bool check_options(const Write *wr)
{
    const char *wrong = NULL;

    if (wr->vm_state && wr->zero) {
        wrong = "-b and -z cannot be specified at the same time";
    } else if ((wr->flags & BDRV_REQ_FUA) && (wr->vm_state || (wr->flags & BDRV_REQ_COMPRESSED))) {
        wrong = "-f and -b or -c cannot be specified at the same time";
    } else if ((wr->flags & BDRV_REQ_NO_FALLBACK) && !wr->zero) {
        wrong = "-n requires -z to be specified";
    } else if ((wr->flags & BDRV_REQ_MAY_UNMAP) && !wr->zero) {
        wrong = "-u requires -z to be specified";
    } else if (wr->zero + (wr->pattern >= 0) + (wr->file != NULL) > 1) {
        wrong = "Only one of -z, -P, and -s can be specified at the same time";
    }
    if (wrong != NULL) {
        printf("%s\n", wrong);
    }
    return wrong == NULL;
}

static bool check_range(const Write *wr, int64_t offset, int64_t size, const char *given)
{
    if (size > IO_MAX_REQUEST && !(wr->flags & BDRV_REQ_NO_FALLBACK)) {
        printf("length cannot exceed %" G_GINT64_FORMAT " without -n, given %s\n", IO_MAX_REQUEST,
               given);
        return false;
    }
    if ((wr->flags & BDRV_REQ_COMPRESSED) || wr->vm_state) {
        return io_check_sectors(offset, size);
    }
    return true;
}

static bool end_write(const Write *wr, const char *name, int64_t start, int64_t offset,
                      int64_t size, int ret)
{
    if (ret < 0) {
        printf("%s failed: %s\n", name, g_strerror(-ret));
    } else if (!wr->quiet) {
        io_report("wrote", wr->brief, start, offset, size, size);
    }
    return ret >= 0;
}

static bool write_zeroes(IoSession *s, const Write *wr, int64_t offset, int64_t size)
{
    int64_t start = io_now();
    int ret = blk_pwrite_zeroes(s->blk, offset, size,
                                io_write_flags(s, wr->flags & ~BDRV_REQ_COMPRESSED));

    return end_write(wr, "write", start, offset, size, ret);
}

static bool write_buffer(IoSession *s, const Write *wr, const char *name, int64_t offset,
                         IoBuffer *buffer)
{
    int64_t start = io_now();
    int64_t size = (int64_t)buffer->size;
    int ret = wr->vm_state ? blk_save_vm_state(s->blk, offset, size, &buffer->vector)
                           : blk_pwritev(s->blk, offset, size, &buffer->vector,
                                         io_write_flags(s, wr->flags));

    if (ret >= 0 && wr->vm_state && s->writethrough) {
        ret = blk_flush(s->blk);
    }
    return end_write(wr, name, start, offset, size, ret);
}

static int fill_byte(const Write *wr)
{
    return wr->pattern >= 0 ? wr->pattern : IO_DEFAULT_PATTERN;
}

static bool write_run(IoSession *s, int argc, char **argv)
{
    int64_t offset, size;
    IoBuffer buffer;
    Write wr;
    bool ok;

    if (!take_options(&io_write_command, "bcCfnpP:qrs:uz", &wr, argc, argv)) {
        return false;
    }
    if (optind != argc - 2) {
        return io_wrong_usage(&io_write_command);
    }
    if (!check_options(&wr) || !io_parse_number(argv[optind], &offset) ||
        !io_parse_number(argv[optind + 1], &size) ||
        !check_range(&wr, offset, size, argv[optind + 1])) {
        return false;
    }
    if (wr.zero) {
        return write_zeroes(s, &wr, offset, size);
    }
    if (!io_buffer_init(&buffer, s, size, fill_byte(&wr))) {
        return false;
    }
    ok = (wr.file == NULL || io_buffer_load(&buffer, wr.file)) &&
         write_buffer(s, &wr, "write", offset, &buffer);
    io_buffer_clear(&buffer);
    return ok;
}

static bool writev_run(IoSession *s, int argc, char **argv)
{
    IoBuffer buffer;
    int64_t offset;
    Write wr;
    bool ok;

    if (!take_options(&io_writev_command, "CfP:qr", &wr, argc, argv)) {
        return false;
    }
    if (optind > argc - 2) {
        return io_wrong_usage(&io_writev_command);
    }
    if (!io_parse_number(argv[optind], &offset) ||
        !io_buffer_init_pieces(&buffer, s, argv + optind + 1, fill_byte(&wr))) {
        return false;
    }
    ok = write_buffer(s, &wr, "writev", offset, &buffer);
    io_buffer_clear(&buffer);
    return ok;
}

const IoCommand io_write_command = {
    .name = "write",
    .alias = "w",
    .arguments = "[-bcCfnqruz] [-P pattern | -s source_file] off len",
    .summary = "writes a number of bytes at an offset",
    .help = "Writes to the open image: bytes 0xcd unless others are asked for.\n"
            "'write -P 1 512 1k' writes 1024 bytes 1 from 512 on.\n"
            " -b, -- the state of a virtual machine, not its disk\n"
            " -c, -- store it compressed\n"
            " -C, -- report as one line for programs\n"
            " -f, -- on stable storage when it ends (Force Unit Access)\n"
            " -n, -- with -z: fail rather than write zeros\n"
            " -p, -- does nothing; of old\n"
            " -P, -- write this byte\n"
            " -q, -- report nothing but errors\n"
            " -r, -- register the memory; accepted\n"
            " -s, -- write what this file holds, again and again\n"
            " -u, -- with -z: the space may be given back\n"
            " -z, -- make it read as zeros",
    .min_arguments = 2,
    .max_arguments = IO_ANY_NUMBER,
    .perm = BLK_PERM_WRITE,
    .run = write_run,
};

const IoCommand io_writev_command = {
    .name = "writev",
    .arguments = "[-Cfqr] [-P pattern] off len [len..]",
    .summary = "writes a number of bytes at an offset from several buffers",
    .help = "Writes to the open image from as many buffers as lengths are given: bytes\n"
            "0xcd unless others are asked for.\n"
            "'writev 512 1k 1k' writes 2048 bytes from 512 on.\n"
            " -C, -- report as one line for programs\n"
            " -f, -- on stable storage when it ends (Force Unit Access)\n"
            " -P, -- write this byte\n"
            " -q, -- report nothing but errors\n"
            " -r, -- register the memory; accepted",
    .min_arguments = 2,
    .max_arguments = IO_ANY_NUMBER,
    .perm = BLK_PERM_WRITE,
    .run = writev_run,
};
