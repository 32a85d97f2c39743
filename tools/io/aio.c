/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* aio_read, aio_write and aio_flush: requests that are not waited for. */
#include "tools/io/aio.h"

#include <getopt.h>
#include <stdio.h>
#include "tools/io/break.h"
#include "tools/io/buffer.h"
#include "tools/io/commands.h"
#include "tools/io/numbers.h"

#define UNREAD_PATTERN 0xab

/* A request from its options to its completion. */
typedef struct Aio {
    IoSession *session;
    bool brief, quiet, dump, zero, invalid;
    int flags;   /* BdrvRequestFlags */
    int pattern; /* or -1 */
    int64_t offset, size, start;
    IoBuffer buffer;
} Aio;

static bool take_option(const IoCommand *command, Aio *aio, int letter)
{
    switch (letter) {
    case 'C':
        aio->brief = true;
        return true;
    case 'f':
        aio->flags |= BDRV_REQ_FUA;
        return true;
    case 'i':
        aio->invalid = true;
        return true;
    case 'P':
        return io_parse_pattern(optarg, &aio->pattern);
    case 'q':
        aio->quiet = true;
        return true;
    case 'r': /* memory is registered or not as the engine likes it */
        return true;
    case 'u':
        aio->flags |= BDRV_REQ_MAY_UNMAP;
        return true;
    case 'v':
        aio->dump = true;
        return true;
    case 'z':
        aio->zero = true;
        return true;
    default:
        return io_wrong_usage(command);
    }
}

static bool take_options(const IoCommand *command, const char *letters, Aio *aio, int argc,
                         char **argv)
{
    int letter;

    while ((letter = getopt(argc, argv, letters)) != -1) {
        if (!take_option(command, aio, letter)) {
            return false;
        }
    }
    return optind <= argc - 2 || io_wrong_usage(command);
}

static void end_request(Aio *aio)
{
    aio->session->in_flight--;
    aio->session->announcements++;
    io_buffer_clear(&aio->buffer);
    g_free(aio);
}

static void read_completed(void *opaque, int ret)
{
    Aio *aio = opaque;

    if (ret < 0) {
        printf("readv failed: %s\n", g_strerror(-ret));
    } else {
        if (aio->pattern >= 0) {
            io_buffer_verify(&aio->buffer, aio->pattern, 0, aio->size);
        }
        if (!aio->quiet) {
            if (aio->dump) {
                io_buffer_dump(&aio->buffer, aio->offset);
            }
            io_report("read", aio->brief, aio->start, aio->offset, aio->size, aio->size);
        }
    }
    end_request(aio);
}

static void write_completed(void *opaque, int ret)
{
    Aio *aio = opaque;

    if (ret < 0) {
        printf("aio_write failed: %s\n", g_strerror(-ret));
    } else if (!aio->quiet) {
        io_report("wrote", aio->brief, aio->start, aio->offset, aio->size, aio->size);
    }
    end_request(aio);
}

static void send_request(Aio *aio, bool is_read)
{
    IoSession *s = aio->session;

    s->in_flight++;
    aio->start = io_now();
    if (is_read) {
        blk_aio_preadv(s->blk, aio->offset, &aio->buffer.vector, 0, read_completed, aio);
    } else if (aio->zero) {
        blk_aio_pwrite_zeroes(s->blk, aio->offset, aio->size, io_write_flags(s, aio->flags),
                              write_completed, aio);
    } else {
        blk_aio_pwritev(s->blk, aio->offset, &aio->buffer.vector, io_write_flags(s, aio->flags),
                        write_completed, aio);
    }
    /* It begins now, not when somebody waits. */
    aio_poll(aio_context_main(), false);
}

/* Where, how long, and the memory for it. */
static bool prepare(Aio *aio, int argc, char **argv, int fill)
{
    if (aio->zero && optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        return false;
    }
    if ((aio->flags & BDRV_REQ_MAY_UNMAP) && !aio->zero) {
        printf("-u requires -z to be specified\n");
        return false;
    }
    if (!io_parse_number(argv[optind], &aio->offset)) {
        return false;
    }
    if (aio->zero) {
        return io_parse_number(argv[optind + 1], &aio->size);
    }
    if (!io_buffer_init_pieces(&aio->buffer, aio->session, argv + optind + 1, fill)) {
        return false;
    }
    aio->size = (int64_t)aio->buffer.size;
    return true;
}

static bool run(IoSession *s, const IoCommand *command, const char *letters, bool is_read,
                int argc, char **argv)
{
    Aio *aio = g_new0(Aio, 1);
    int fill = UNREAD_PATTERN;
    bool ok;

    aio->session = s;
    aio->pattern = -1;
    ok = take_options(command, letters, aio, argc, argv);
    if (!is_read) {
        fill = aio->pattern >= 0 ? aio->pattern : IO_DEFAULT_PATTERN;
    }
    ok = ok && prepare(aio, argc, argv, fill);
    if (ok && !aio->invalid) {
        send_request(aio, is_read);
        return true;
    }
    if (ok) {
        printf("injecting invalid %s request\n", is_read ? "read" : "write");
    }
    io_buffer_clear(&aio->buffer);
    g_free(aio);
    return ok;
}

static bool aio_read_run(IoSession *s, int argc, char **argv)
{
    return run(s, &io_aio_read_command, "CiP:qrv", true, argc, argv);
}

static bool aio_write_run(IoSession *s, int argc, char **argv)
{
    return run(s, &io_aio_write_command, "CfiP:qruz", false, argc, argv);
}

void io_wait_for_requests(IoSession *s)
{
    while (s->in_flight > 0) {
        aio_poll(aio_context_main(), true);
        io_announce_breaks(s);
    }
}

static bool aio_flush_run(IoSession *s, int argc, char **argv)
{
    io_wait_for_requests(s);
    return true;
}

const IoCommand io_aio_read_command = {
    .name = "aio_read",
    .arguments = "[-Ciqrv] [-P pattern] off len [len..]",
    .summary = "reads a number of bytes from an offset, without waiting",
    .help = "Sends a request to read, and goes on. What came of it is reported when it is\n"
            "there; 'aio_flush' waits for that. The command has worked once the request is\n"
            "sent, whatever comes of it.\n"
            "'aio_read -v 512 1k 1k' shows the 2048 bytes from 512 on.\n"
            " -C, -- report as one line for programs\n"
            " -i, -- send nothing: a request that is invalid\n"
            " -P, -- compare each byte with this one\n"
            " -q, -- report nothing but errors\n"
            " -r, -- register the memory; accepted\n"
            " -v, -- show what was read",
    .min_arguments = 2,
    .max_arguments = IO_ANY_NUMBER,
    .run = aio_read_run,
};

const IoCommand io_aio_write_command = {
    .name = "aio_write",
    .arguments = "[-Cfiqruz] [-P pattern] off len [len..]",
    .summary = "writes a number of bytes at an offset, without waiting",
    .help = "Sends a request to write bytes 0xcd, unless others are asked for, and goes on.\n"
            "What came of it is reported when it is there; 'aio_flush' waits for that. The\n"
            "command has worked once the request is sent, whatever comes of it.\n"
            "'aio_write 512 1k 1k' writes 2048 bytes from 512 on.\n"
            " -C, -- report as one line for programs\n"
            " -f, -- on stable storage when it ends (Force Unit Access)\n"
            " -i, -- send nothing: a request that is invalid\n"
            " -P, -- write this byte\n"
            " -q, -- report nothing but errors\n"
            " -r, -- register the memory; accepted\n"
            " -u, -- with -z: the space may be given back\n"
            " -z, -- make it read as zeros",
    .min_arguments = 2,
    .max_arguments = IO_ANY_NUMBER,
    .perm = BLK_PERM_WRITE,
    .run = aio_write_run,
};

const IoCommand io_aio_flush_command = {
    .name = "aio_flush",
    .summary = "waits until all aio requests have completed",
    .run = aio_flush_run,
};
