/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockgraph-img: looks at disk images, creates and converts them. */
#include <stdio.h>
#include <string.h>
#include "tools/img/commands.h"
#include "tools/img/common.h"
#include "tools/tool.h"

static const ImgCommand *const commands[] = {
    &img_amend_command,
    &img_bench_command,
    &img_bitmap_command,
    &img_check_command,
    &img_commit_command,
    &img_compare_command,
    &img_convert_command,
    &img_create_command,
    &img_dd_command,
    &img_graph_command,
    &img_info_command,
    &img_map_command,
    &img_measure_command,
    &img_rebase_command,
    &img_resize_command,
    &img_snapshot_command,
    NULL,
};

static const ImgCommand *find_command(const char *name)
{
    for (const ImgCommand *const *command = commands; *command != NULL; command++) {
        if (strcmp((*command)->name, name) == 0) {
            return *command;
        }
    }
    return NULL;
}

static int run_command(const ImgCommand *command, int argc, char **argv, const ImgGlobal *global)
{
    g_autofree char *own_name = g_strdup_printf("%s %s", tool_argv0(), command->name);
    ImgArgs args = {
        .command = command,
        .argc = argc,
        .argv = argv,
        .untrusted = global->untrusted,
        .verbose = global->verbose,
    };
    int status;

    argv[0] = own_name;
    status = command->run(&args);
    img_args_clear(&args);
    return status;
}

int main(int argc, char **argv)
{
    ImgGlobal global = { 0 };
    const ImgCommand *command;
    int status = 0;
    int first;

    tool_init(argv[0]);
    first = img_parse_global(argc, argv, commands, &global, &status);
    if (first >= 0) {
        command = find_command(argv[first]);
        if (command != NULL) {
            status = run_command(command, argc - first, argv + first, &global);
        } else {
            tool_error("Command not found: %s", argv[first]);
            fprintf(stderr, "Try '%s --help' for more info\n", tool_argv0());
            status = 1;
        }
    }
    img_stop();
    if (!tool_close_stdout() && status == 0) {
        status = 1;
    }
    return status;
}
