/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding a line's command, and running it; see command.h. */
#include "tools/io/command.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "tools/io/break.h"
#include "tools/io/commands.h"
#include "tools/tool.h"

/* In order of name. */
static const IoCommand *const commands[] = {
    &io_abort_command,  &io_aio_flush_command, &io_aio_read_command,  &io_aio_write_command,
    &io_alloc_command,  &io_break_command,     &io_close_command,     &io_discard_command,
    &io_flush_command,  &io_help_command,      &io_info_command,      &io_length_command,
    &io_map_command,    &io_open_command,      &io_quit_command,      &io_read_command,
    &io_readv_command,  &io_remove_break_command, &io_reopen_command, &io_resume_command,
    &io_sigraise_command, &io_sleep_command,   &io_truncate_command,  &io_wait_break_command,
    &io_write_command,  &io_writev_command,
};

const IoCommand *io_command_at(unsigned index)
{
    return index < G_N_ELEMENTS(commands) ? commands[index] : NULL;
}

const IoCommand *io_find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i]->name, name) == 0 || g_strcmp0(commands[i]->alias, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

void io_complain(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void io_print_usage(const IoCommand *command, const char *name)
{
    bool any = command->arguments != NULL;

    printf("%s%s%s -- %s\n", name, any ? " " : "", any ? command->arguments : "",
           command->summary);
}

bool io_wrong_usage(const IoCommand *command)
{
    io_print_usage(command, command->name);
    return false;
}

static bool check_count(const IoCommand *command, const char *name, int count)
{
    int min = command->min_arguments, max = command->max_arguments;

    if (count >= min && (max == IO_ANY_NUMBER || count <= max)) {
        return true;
    }
    if (max == IO_ANY_NUMBER) {
        io_complain("bad argument count %d to %s, expected at least %d arguments", count, name,
                    min);
    } else if (min == max) {
        io_complain("bad argument count %d to %s, expected %d arguments", count, name, min);
    } else {
        io_complain("bad argument count %d to %s, expected between %d and %d arguments", count,
                    name, min, max);
    }
    return false;
}

static bool take_permission(IoSession *s, uint64_t needed)
{
    uint64_t perm, shared;
    GError *err = NULL;

    if (s->blk == NULL || needed == 0) {
        return true;
    }
    blk_get_perm(s->blk, &perm, &shared);
    if ((perm & needed) == needed) {
        return true;
    }
    if (bdrv_is_read_only(blk_bs(s->blk))) {
        tool_error("Block node is read-only");
        return false;
    }
    if (!blk_set_perm(s->blk, perm | needed, shared, &err)) {
        tool_error_report(err);
        return false;
    }
    return true;
}

static bool run_words(IoSession *s, int argc, char **argv)
{
    const IoCommand *command = io_find_command(argv[0]);

    if (command == NULL) {
        io_complain("command \"%s\" not found", argv[0]);
        return false;
    }
    if (s->blk == NULL && !command->without_image) {
        io_complain("no file open, try 'help open'");
        return false;
    }
    if (!check_count(command, argv[0], argc - 1) || !take_permission(s, command->perm)) {
        return false;
    }
    fflush(stdout); /* what getopt() says on standard error comes after */
    optind = 0;
    return command->run(s, argc, argv);
}

bool io_run_line(IoSession *s, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    g_autofree char **argv = g_new0(char *, g_strv_length(words) + 1);
    int argc = 0;
    bool ok;

    for (char **word = words; *word != NULL; word++) {
        if (**word != '\0') {
            argv[argc++] = *word;
        }
    }
    if (argc == 0) {
        return true;
    }
    ok = run_words(s, argc, argv);
    io_announce_breaks(s);
    return ok;
}
