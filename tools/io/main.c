/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockgraph-io: reads, writes and otherwise tries disk images. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/abbreviation.h"
#include "tools/img/common.h"
#include "tools/io/command.h"
#include "tools/io/line.h"
#include "tools/io/open.h"
#include "tools/object.h"
#include "tools/tool.h"

enum {
    IO_OPT_OBJECT = 256,
    IO_OPT_IMAGE_OPTS,
};

static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { "cmd", required_argument, NULL, 'c' },
    { "format", required_argument, NULL, 'f' },
    { "read-only", no_argument, NULL, 'r' },
    { "snapshot", no_argument, NULL, 's' },
    { "nocache", no_argument, NULL, 'n' },
    { "copy-on-read", no_argument, NULL, 'C' },
    { "misalign", no_argument, NULL, 'm' },
    { "native-aio", no_argument, NULL, 'k' },
    { "aio", required_argument, NULL, 'i' },
    { "cache", required_argument, NULL, 't' },
    { "discard", required_argument, NULL, 'd' },
    { "trace", required_argument, NULL, 'T' },
    { "force-share", no_argument, NULL, 'U' },
    { "object", required_argument, NULL, IO_OPT_OBJECT },
    { "image-opts", no_argument, NULL, IO_OPT_IMAGE_OPTS },
    { NULL },
};

static void print_help(void)
{
    printf("Usage: %s [OPTIONS]... [-c STRING]... [FILE]\n"
           "Try a disk image: read it, write to it, and look at what comes of it.\n"
           "\n"
           "  --object OBJDEF      define an object; \"help\" lists the types\n"
           "  --image-opts         FILE is an option list (driver=...,file.filename=...)\n"
           "  -c, --cmd STRING     run this command; may be given several times\n"
           "  -f, --format FMT     the image's format; without it, the format is probed\n"
           "  -r, --read-only      open the image for reading only\n"
           "  -s, --snapshot       write to a file that is thrown away at the end\n"
           "  -n, --nocache        past the page cache; short for -t none\n"
           "  -C, --copy-on-read   write what is read from a backing file to the image\n"
           "  -m, --misalign       have buffers begin at odd places\n"
           "  -k, --native-aio     native AIO; with -n, the best engine there is\n"
           "  -i, --aio=MODE       how to do I/O: threads, native or io_uring\n"
           "  -t, --cache=MODE     the cache mode: none, writeback, writethrough,\n"
           "                       directsync or unsafe\n"
           "  -d, --discard=MODE   what to do with discards: unmap (the default) or ignore\n"
           "  -T, --trace [[enable=]PATTERN][,events=FILE][,file=FILE]\n"
           "                       switch trace events on that match PATTERN, or one of\n"
           "                       those in the lines of the FILE of events, and write\n"
           "                       them to the other FILE; \"help\" lists them\n"
           "  -U, --force-share    open an image that others have open for writing (with -r)\n"
           "  -h, --help           print this text\n"
           "  -V, --version        print the version\n"
           "\n"
           "Without -c, commands come from standard input.\n"
           "'%s -c help' tells which there are.\n",
           tool_name(), tool_name());
}

/* The command line while it is read. */
typedef struct Arguments {
    IoOpenOptions open;
    GPtrArray *commands;
    const char *format;
    bool image_opts;
    bool misalign;
} Arguments;

/* Choose the engine; there is none of the name "native". */
static void choose_engine(const char *mode)
{
    AioEngine engine;

    if (aio_engine_parse(mode, &engine)) {
        aio_set_default_engine(engine);
    }
}

/* Take one option; false with the exit code if the program is done. */
static bool take_option(Arguments *args, int letter, int *status)
{
    int taken;

    *status = 1;
    switch (letter) {
    case 'c':
        g_ptr_array_add(args->commands, optarg);
        return true;
    case 'f':
        args->format = optarg;
        return true;
    case 'h':
        print_help();
        *status = 0;
        return false;
    case 'm':
        args->misalign = true;
        return true;
    case 'T':
        return img_take_trace(optarg, status);
    case 'V':
        tool_print_version("qemu-io");
        *status = 0;
        return false;
    case IO_OPT_OBJECT:
        return tool_take_object(optarg, status);
    case IO_OPT_IMAGE_OPTS:
        args->image_opts = true;
        return true;
    default:
        break;
    }
    taken = io_take_open_option(&args->open, letter, optarg);
    if (taken > 0 && letter == 'i') {
        choose_engine(optarg);
    } else if (taken == 0) {
        print_help();
    }
    return taken > 0;
}

/* Open the image on the command line, if there is one. */
static bool open_operand(IoSession *s, Arguments *args, const char *filename)
{
    GError *err = NULL;

    if (filename == NULL) {
        return true;
    }
    if (args->image_opts) {
        if (args->format != NULL) {
            tool_error("--image-opts and -f are mutually exclusive");
            return false;
        }
        args->open.options = block_options_parse(filename, NULL, &err);
        if (args->open.options == NULL) {
            tool_error_report(err);
            return false;
        }
        return io_open(s, NULL, &args->open);
    }
    if (args->format != NULL) {
        args->open.options = json_object_new();
        json_object_set_string_member(args->open.options, "driver", args->format);
    }
    return io_open(s, filename, &args->open);
}

/* The commands of -c, or of standard input; whether all of them worked. */
static bool run_commands(IoSession *s, const Arguments *args)
{
    bool ok = true;
    const char *line;
    IoInput *input;

    if (args->commands->len > 0) {
        for (guint i = 0; i < args->commands->len && !s->quit; i++) {
            ok = io_run_line(s, g_ptr_array_index(args->commands, i)) && ok;
        }
        return ok;
    }
    input = io_input_new(s);
    while (!s->quit && (line = io_input_next(input)) != NULL) {
        ok = io_run_line(s, line) && ok;
    }
    io_input_free(input);
    return ok;
}

static int run(Arguments *args, const char *filename)
{
    IoSession session = { .misalign = args->misalign };
    bool ok;

    if (!img_start()) {
        return 1;
    }
    ok = open_operand(&session, args, filename) && run_commands(&session, args);
    ok = io_close(&session) && ok;
    img_stop();
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const char letters[] = "hVc:d:f:rsnCmki:t:T:U";
    g_autoptr(GPtrArray) commands = g_ptr_array_new();
    Arguments args = { .open = IO_OPEN_DEFAULTS, .commands = commands };
    bool go_on = true;
    int letter, status = 0;

    tool_init(argv[0]);
    tool_expand_abbreviations(argc, argv, letters, long_options, NULL);
    while (go_on && (letter = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
        go_on = take_option(&args, letter, &status);
    }
    if (go_on && argc - optind > 1) {
        print_help();
        go_on = false;
        status = 1;
    }
    if (go_on) {
        status = run(&args, optind < argc ? argv[optind] : NULL);
    }
    io_open_options_clear(&args.open);
    if (!tool_close_stdout() && status == 0) {
        status = 1;
    }
    return status;
}
