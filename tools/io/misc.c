/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that are about the program: abort, help, quit, sigraise, sleep. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "tools/io/commands.h"
#include "tools/io/numbers.h"

#define NS_PER_MS 1000000

static bool abort_run(IoSession *s, int argc, char **argv)
{
    abort();
}

static void print_help(const IoCommand *command, const char *name)
{
    io_print_usage(command, name);
    if (command->help != NULL) {
        printf("\n%s\n\n", command->help);
    }
}

static bool help_run(IoSession *s, int argc, char **argv)
{
    const IoCommand *command;

    if (argc == 1) {
        for (unsigned i = 0; (command = io_command_at(i)) != NULL; i++) {
            io_print_usage(command, command->name);
        }
        printf("\nUse 'help commandname' for extended help.\n");
        return true;
    }
    command = io_find_command(argv[1]);
    if (command == NULL) {
        printf("command %s not found\n", argv[1]);
        return false;
    }
    print_help(command, argv[1]);
    return true;
}

static bool quit_run(IoSession *s, int argc, char **argv)
{
    s->quit = true;
    return true;
}

static bool sigraise_run(IoSession *s, int argc, char **argv)
{
    int64_t number;

    if (!io_parse_number(argv[1], &number)) {
        return false;
    }
    if (number > NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n", argv[1]);
        return false;
    }
    fflush(stdout);
    raise((int)number);
    return true;
}

static void wake_up(void *opaque)
{
    bool *over = opaque;

    *over = true;
}

static bool sleep_run(IoSession *s, int argc, char **argv)
{
    AioContext *ctx = aio_context_main();
    bool over = false;
    AioTimer *timer;
    long ms;
    char *end;

    errno = 0;
    ms = strtol(argv[1], &end, 0);
    if (ms < 0 || ms > INT64_MAX / NS_PER_MS / 2 || *end != '\0' || errno != 0) {
        printf("%s is not a valid number\n", argv[1]);
        return false;
    }
    timer = aio_timer_new(ctx, wake_up, &over);
    aio_timer_mod(timer, aio_now(ctx) + ms * NS_PER_MS);
    while (!over) {
        aio_poll(ctx, true);
    }
    aio_timer_free(timer);
    return true;
}

const IoCommand io_abort_command = {
    .name = "abort",
    .summary = "ends the program by abort(3), as if it had crashed",
    .without_image = true,
    .run = abort_run,
};

const IoCommand io_help_command = {
    .name = "help",
    .alias = "?",
    .arguments = "[command]",
    .summary = "tells what there is, or of one command",
    .max_arguments = 1,
    .without_image = true,
    .run = help_run,
};

const IoCommand io_quit_command = {
    .name = "quit",
    .alias = "q",
    .summary = "ends the program",
    .max_arguments = IO_ANY_NUMBER,
    .without_image = true,
    .run = quit_run,
};

const IoCommand io_sigraise_command = {
    .name = "sigraise",
    .arguments = "signal",
    .summary = "raises a signal of this number",
    .help = "'sigraise 15' ends the program by SIGTERM.",
    .min_arguments = 1,
    .max_arguments = 1,
    .without_image = true,
    .run = sigraise_run,
};

const IoCommand io_sleep_command = {
    .name = "sleep",
    .arguments = "ms",
    .summary = "waits for a number of milliseconds",
    .min_arguments = 1,
    .max_arguments = 1,
    .without_image = true,
    .run = sleep_run,
};
