/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands: what describes one, and how a line is run. */
#ifndef TOOLS_IO_COMMAND_H
#define TOOLS_IO_COMMAND_H

#include "tools/io/session.h"

enum {
    IO_ANY_NUMBER = -1,
};

typedef struct IoCommand {
    const char *name;
    const char *alias;     /* or NULL */
    const char *arguments; /* as help shows them; NULL: it takes none */
    const char *summary;   /* half a sentence */
    const char *help;      /* more, whole lines; or NULL */
    int min_arguments;     /* options and their values count */
    int max_arguments;     /* or IO_ANY_NUMBER */
    bool without_image;    /* works with no image open, too */
    uint64_t perm;         /* BlkPerm that it needs above reading */
    /*
     * argv[0] is the name as it was typed, argv[argc] is NULL; getopt() is ready to
     * begin. False: it failed, and has said why.
     */
    bool (*run)(IoSession *s, int argc, char **argv);
} IoCommand;

/* The command of this name or alias, or NULL. */
const IoCommand *io_find_command(const char *name);
/* The commands in order of name: from 0, NULL past the last. */
const IoCommand *io_command_at(unsigned index);

/* Run one line; false if it failed. An empty one does nothing. */
bool io_run_line(IoSession *s, const char *line);

/* Print "NAME ARGUMENTS -- summary", calling the command @name. */
void io_print_usage(const IoCommand *command, const char *name);
/* Print it for a command that was given what it cannot take; returns false. */
bool io_wrong_usage(const IoCommand *command);
/* A line on standard error without the program's name, as QEMU's tool has it. */
void io_complain(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

#endif
