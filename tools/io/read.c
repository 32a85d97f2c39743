/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* read and readv: one request that is waited for. */
#include "tools/io/commands.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "tools/io/buffer.h"
#include "tools/io/numbers.h"

/* What memory holds before it is read into; shows what a read has left out. */
#define UNREAD_PATTERN 0xab

typedef struct Read {
    bool brief, quiet, dump, vm_state;
    int pattern; /* or -1 */
    int64_t verify_at, verify_size; /* -1: to the end */
    bool verify_part;
} Read;

static bool take_option(const IoCommand *command, Read *rd, int letter)
{
    switch (letter) {
    case 'b':
        rd->vm_state = true;
        return true;
    case 'C':
        rd->brief = true;
        return true;
    case 'l':
        rd->verify_part = true;
        return io_parse_number(optarg, &rd->verify_size);
    case 'P':
        return io_parse_pattern(optarg, &rd->pattern);
    case 'q':
        rd->quiet = true;
        return true;
    case 'p': /* of old */
    case 'r': /* memory is registered or not as the engine likes it */
        return true;
    case 's':
        rd->verify_part = true;
        return io_parse_number(optarg, &rd->verify_at);
    case 'v':
        rd->dump = true;
        return true;
    default:
        return io_wrong_usage(command);
    }
}

static bool take_options(const IoCommand *command, const char *letters, Read *rd, int argc,
                         char **argv)
{
    int letter;

    *rd = (Read){ .pattern = -1, .verify_size = -1 };
    while ((letter = getopt(argc, argv, letters)) != -1) {
        if (!take_option(command, rd, letter)) {
            return false;
        }
    }
    return true;
}

/* Read into @buffer, and tell of it. */
static bool read_buffer(IoSession *s, const Read *rd, const char *name, int64_t offset,
                        IoBuffer *buffer)
{
    int64_t start = io_now();
    int64_t size = (int64_t)buffer->size;
    int ret = rd->vm_state ? blk_load_vm_state(s->blk, offset, size, &buffer->vector)
                           : blk_preadv(s->blk, offset, size, &buffer->vector, 0);
    bool ok = true;

    if (ret < 0) {
        printf("%s failed: %s\n", name, g_strerror(-ret));
        return false;
    }
    if (rd->pattern >= 0) {
        ok = io_buffer_verify(buffer, rd->pattern, rd->verify_at, rd->verify_size);
    }
    if (!rd->quiet) {
        if (rd->dump) {
            io_buffer_dump(buffer, offset);
        }
        io_report("read", rd->brief, start, offset, size, size);
    }
    return ok;
}

static bool find_part(Read *rd, int64_t size)
{
    if (rd->verify_size < 0) {
        rd->verify_size = size - rd->verify_at;
    }
    if (rd->verify_at > size || rd->verify_size > size - rd->verify_at) {
        printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

static bool read_run(IoSession *s, int argc, char **argv)
{
    int64_t offset, size;
    IoBuffer buffer;
    bool ok;
    Read rd;

    if (!take_options(&io_read_command, "bCl:pP:qrs:v", &rd, argc, argv)) {
        return false;
    }
    if (optind != argc - 2 || (rd.verify_part && rd.pattern < 0)) {
        return io_wrong_usage(&io_read_command);
    }
    if (!io_parse_number(argv[optind], &offset) || !io_parse_number(argv[optind + 1], &size)) {
        return false;
    }
    if (size > IO_MAX_REQUEST) {
        printf("length cannot exceed %" G_GINT64_FORMAT ", given %s\n", IO_MAX_REQUEST,
               argv[optind + 1]);
        return false;
    }
    if (!find_part(&rd, size) || (rd.vm_state && !io_check_sectors(offset, size)) ||
        !io_buffer_init(&buffer, s, size, UNREAD_PATTERN)) {
        return false;
    }
    ok = read_buffer(s, &rd, "read", offset, &buffer);
    io_buffer_clear(&buffer);
    return ok;
}

static bool readv_run(IoSession *s, int argc, char **argv)
{
    IoBuffer buffer;
    int64_t offset;
    bool ok;
    Read rd;

    if (!take_options(&io_readv_command, "CP:qrv", &rd, argc, argv)) {
        return false;
    }
    if (optind > argc - 2) {
        return io_wrong_usage(&io_readv_command);
    }
    if (!io_parse_number(argv[optind], &offset) ||
        !io_buffer_init_pieces(&buffer, s, argv + optind + 1, UNREAD_PATTERN)) {
        return false;
    }
    rd.verify_size = (int64_t)buffer.size;
    ok = read_buffer(s, &rd, "readv", offset, &buffer);
    io_buffer_clear(&buffer);
    return ok;
}

const IoCommand io_read_command = {
    .name = "read",
    .alias = "r",
    .arguments = "[-abCqrv] [-P pattern [-s off] [-l len]] off len",
    .summary = "reads a number of bytes from an offset",
    .help = "Reads from the open image, and compares what came, or shows it.\n"
            "'read -v 512 1k' shows the 1024 bytes from 512 on.\n"
            " -b, -- the state of a virtual machine, not its disk\n"
            " -C, -- report as one line for programs\n"
            " -l, -- how much to compare (with -P)\n"
            " -p, -- does nothing; of old\n"
            " -P, -- compare each byte with this one\n"
            " -q, -- report nothing but errors\n"
            " -r, -- register the memory; accepted\n"
            " -s, -- where in what was read to begin to compare (with -P)\n"
            " -v, -- show what was read",
    .min_arguments = 2,
    .max_arguments = IO_ANY_NUMBER,
    .run = read_run,
};

const IoCommand io_readv_command = {
    .name = "readv",
    .arguments = "[-Cqrv] [-P pattern] off len [len..]",
    .summary = "reads a number of bytes from an offset into several buffers",
    .help = "Reads from the open image into as many buffers as lengths are given.\n"
            "'readv -v 512 1k 1k' shows the 2048 bytes from 512 on.\n"
            " -C, -- report as one line for programs\n"
            " -P, -- compare each byte with this one\n"
            " -q, -- report nothing but errors\n"
            " -r, -- register the memory; accepted\n"
            " -v, -- show what was read",
    .min_arguments = 2,
    .max_arguments = IO_ANY_NUMBER,
    .run = readv_run,
};
