/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading command lines by tables, and printing the tables as help. */
#include "tools/img/options.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "tools/abbreviation.h"
#include "tools/img/common.h"
#include "tools/object.h"
#include "tools/tool.h"

/* What every command takes. */
static const ImgOption common_options[] = {
    { "object", IMG_OPT_OBJECT, "OBJDEF", "define an object; \"help\" lists the types" },
    { "aio", IMG_OPT_AIO, "io_uring|threads", "how to do I/O (default: io_uring where it works)" },
    { "untrusted", IMG_OPT_UNTRUSTED, NULL, "open no file that an image names" },
    { "verbose", IMG_OPT_VERBOSE, NULL, "say on standard error which I/O engine is used" },
    { "help", 'h', NULL, "print this text" },
    { NULL },
};

/* What stands before the command. */
static const ImgOption global_options[] = {
    { "help", 'h', NULL, "print this text" },
    { "version", 'V', NULL, "print the version" },
    { "trace", 'T', "[[enable=]PATTERN][,events=FILE][,file=FILE]",
      "switch trace events on that match PATTERN, or one of those in the\n"
      "lines of the FILE of events, and write them to the other FILE;\n"
      "\"help\" lists them" },
    { "aio", IMG_OPT_AIO, "io_uring|threads",
      "how to do I/O (default: io_uring where it works);\n"
      "BLOCKGRAPH_AIO in the environment says the same" },
    { "untrusted", IMG_OPT_UNTRUSTED, NULL, "open no file that an image names" },
    { "verbose", IMG_OPT_VERBOSE, NULL, "say on standard error which I/O engine is used" },
    { NULL },
};

static bool option_is_end(const ImgOption *option)
{
    return option->name == NULL && option->letter == 0;
}

/* ---- Help ------------------------------------------------------------------- */

static void print_lines(const char *indent, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line != NULL; line++) {
        printf("%s%s\n", indent, *line);
    }
}

static void print_options(const ImgOption *options)
{
    for (const ImgOption *o = options; !option_is_end(o); o++) {
        if (o->help == NULL) {
            continue;
        }
        printf("  ");
        if (o->letter < 256) {
            printf("-%c%s", o->letter, o->name != NULL ? ", " : "");
        }
        if (o->name != NULL) {
            printf("--%s", o->name);
        }
        for (const ImgOption *other = o + 1; !option_is_end(other) && other->help == NULL;
             other++) {
            printf(", --%s", other->name);
        }
        printf("%s%s\n", o->argument != NULL ? " " : "", o->argument != NULL ? o->argument : "");
        print_lines("     ", o->help);
    }
}

static void print_command_help(const ImgCommand *command)
{
    g_auto(GStrv) synopsis = g_strsplit(command->synopsis, "\n", -1);

    printf("%s.  Usage:\n\n", command->summary);
    printf("  %s %s %s\n", tool_name(), command->name, synopsis[0]);
    for (char **line = synopsis + 1; *line != NULL; line++) {
        printf("        %s\n", *line);
    }
    printf("\nArguments:\n");
    print_options(command->options);
    print_options(common_options);
    print_lines("  ", command->operands);
}

static void print_formats(void)
{
    printf("\nSupported formats:");
    for (BlockDriver *drv = bdrv_next_driver(NULL); drv != NULL; drv = bdrv_next_driver(drv)) {
        printf(" %s", bdrv_driver_name(drv));
    }
    printf("\n");
}

static int print_help(const ImgCommand *const *commands)
{
    if (!img_start()) {
        return 1;
    }
    tool_print_version("qemu-img");
    printf("\nDisk image utility.  Usage:\n\n  %s [OPTIONS] COMMAND [--help | COMMAND OPTIONS]\n\n"
           "Options:\n",
           tool_name());
    print_options(global_options);
    printf("\nCommands (%s COMMAND --help tells more):\n", tool_name());
    for (const ImgCommand *const *command = commands; *command != NULL; command++) {
        printf("  %s - %s\n", (*command)->name, (*command)->summary);
    }
    print_formats();
    return 0;
}

/* ---- Tables for getopt -------------------------------------------------------- */

static void add_options(GString *letters, GArray *longs, const ImgOption *options)
{
    for (const ImgOption *o = options; !option_is_end(o); o++) {
        int argument = o->argument != NULL ? required_argument : no_argument;

        if (o->letter < 256 && strchr(letters->str, o->letter) == NULL) {
            g_string_append_printf(letters, "%c%s", o->letter, argument ? ":" : "");
        }
        if (o->name != NULL) {
            struct option entry = { o->name, argument, NULL, o->letter };

            g_array_append_val(longs, entry);
        }
    }
}

static GArray *new_long_options(void)
{
    return g_array_new(TRUE, TRUE, sizeof(struct option));
}

static bool take_aio(const char *name)
{
    AioEngine engine;

    if (!aio_engine_parse(name, &engine)) {
        tool_error("--aio expects 'io_uring' or 'threads' not '%s'", name);
        return false;
    }
    aio_set_default_engine(engine);
    return true;
}

/* ---- A command's own arguments ------------------------------------------------- */

static int leave(ImgArgs *args, int status)
{
    args->status = status;
    return IMG_ARGS_LEAVE;
}

static void prepare(ImgArgs *args)
{
    GString *letters = g_string_new("");
    GArray *longs = new_long_options();

    add_options(letters, longs, args->command->options);
    add_options(letters, longs, common_options);
    args->short_options = g_string_free(letters, FALSE);
    args->long_options = g_array_free(longs, FALSE);
    tool_expand_abbreviations(args->argc, args->argv, args->short_options, args->long_options,
                              args->command->ours_alone);
    args->started = true;
    optind = 0;
}

void img_args_clear(ImgArgs *args)
{
    g_clear_pointer((char **)&args->short_options, g_free);
    g_clear_pointer(&args->long_options, g_free);
}

static bool take_output(ImgArgs *args)
{
    if (strcmp(optarg, "json") == 0) {
        args->json = true;
    } else if (strcmp(optarg, "human") == 0) {
        args->json = false;
    } else {
        img_usage_error(args, "--output expects 'human' or 'json' not '%s'", optarg);
        return false;
    }
    return true;
}

static bool take_progress_fd(void)
{
    guint64 fd;

    if (!g_ascii_string_to_unsigned(optarg, 10, 0, INT_MAX, &fd, NULL)) {
        tool_error("--progress-fd expects a file descriptor's number not '%s'", optarg);
        return false;
    }
    if (!progress_set_fd((int)fd)) {
        tool_error("--progress-fd %s: %s", optarg, g_strerror(errno));
        return false;
    }
    return true;
}

/* Whether @letter is an option that means the same in every command. */
static bool take_common(ImgArgs *args, int letter, bool *ok)
{
    *ok = true;
    switch (letter) {
    case IMG_OPT_IMAGE_OPTS:
        args->image_opts = true;
        return true;
    case IMG_OPT_OUTPUT:
        *ok = take_output(args);
        return true;
    case IMG_OPT_AIO:
        *ok = take_aio(optarg);
        return true;
    case IMG_OPT_UNTRUSTED:
        args->untrusted = true;
        return true;
    case IMG_OPT_VERBOSE:
        args->verbose = true;
        return true;
    case 'f':
        args->format = optarg;
        return true;
    case 'U':
        args->force_share = true;
        return true;
    case 'q':
        args->quiet = true;
        return true;
    case 'p':
        args->progress = true;
        return true;
    case IMG_OPT_PROGRESS_FD:
        *ok = take_progress_fd();
        return true;
    default:
        return false;
    }
}

static void report_engine(void)
{
    fprintf(stderr, "%s: I/O engine: %s\n", tool_name(),
            aio_engine_name(aio_context_engine(aio_context_main())));
}

int img_args_next(ImgArgs *args)
{
    bool ok;

    if (!args->started) {
        prepare(args);
    }
    for (;;) {
        int letter =
            getopt_long(args->argc, args->argv, args->short_options, args->long_options, NULL);

        if (letter == -1) {
            if (!img_start()) {
                return leave(args, 1);
            }
            if (args->verbose) {
                report_engine();
            }
            return IMG_ARGS_DONE;
        }
        if (letter == 'h') {
            print_command_help(args->command);
            return leave(args, 0);
        }
        if (letter == '?' || letter == ':') {
            fprintf(stderr, "Try '%s --help' for more info\n", args->argv[0]);
            return leave(args, 1);
        }
        if (letter == IMG_OPT_OBJECT) {
            int status;

            if (!tool_take_object(optarg, &status)) {
                return leave(args, status != 0 && args->command->object_error != 0
                                       ? args->command->object_error : status);
            }
            continue;
        }
        if (!take_common(args, letter, &ok)) {
            return letter;
        }
        if (!ok) {
            return leave(args, 1);
        }
    }
}

int img_operand_count(const ImgArgs *args)
{
    return args->argc - optind;
}

const char *img_operand(const ImgArgs *args, int i)
{
    return args->argv[optind + i];
}

int img_usage_error(const ImgArgs *args, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    tool_error("%s", text);
    fprintf(stderr, "Try '%s --help' for more info\n", args->argv[0]);
    return 1;
}

bool img_check_format_options(const ImgArgs *args)
{
    if (args->image_opts && args->format != NULL) {
        tool_error("--image-opts and --format are mutually exclusive");
        return false;
    }
    return true;
}

ProgressMode img_progress_mode(const ImgArgs *args)
{
    return progress_mode(args->quiet, args->progress);
}

/* ---- Global options --------------------------------------------------------------- */

static int global_usage_error(int *status)
{
    fprintf(stderr, "Try '%s --help' for more info\n", tool_argv0());
    *status = 1;
    return -1;
}

/* Take one; false if the program is done, with its exit code in *@status. */
static bool take_global(int letter, const ImgCommand *const *commands, ImgGlobal *global,
                        int *status)
{
    *status = 0;
    switch (letter) {
    case 'h':
        *status = print_help(commands);
        return false;
    case 'V':
        tool_print_version("qemu-img");
        return false;
    case 'T':
        return img_take_trace(optarg, status);
    case IMG_OPT_AIO:
        *status = 1;
        return take_aio(optarg);
    case IMG_OPT_UNTRUSTED:
        global->untrusted = true;
        return true;
    case IMG_OPT_VERBOSE:
        global->verbose = true;
        return true;
    default:
        global_usage_error(status);
        return false;
    }
}

int img_parse_global(int argc, char **argv, const ImgCommand *const *commands, ImgGlobal *global,
                     int *status)
{
    /* "+": stop at the command's name. */
    GString *letters = g_string_new("+");
    g_autoptr(GArray) longs = new_long_options();
    struct option *options;
    bool go_on = true;
    int letter;

    add_options(letters, longs, global_options);
    options = (struct option *)(void *)longs->data;
    tool_expand_abbreviations(argc, argv, letters->str, options, NULL);
    while (go_on && (letter = getopt_long(argc, argv, letters->str, options, NULL)) != -1) {
        go_on = take_global(letter, commands, global, status);
    }
    g_string_free(letters, TRUE);
    if (!go_on) {
        return -1;
    }
    if (optind >= argc) {
        tool_error("Not enough arguments");
        return global_usage_error(status);
    }
    return optind;
}
