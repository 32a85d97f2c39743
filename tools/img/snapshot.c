/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot: list internal snapshots. */
#include "tools/img/commands.h"
#include "tools/img/common.h"
#include "tools/img/info-human.h"
#include "tools/tool.h"

static const ImgOption snapshot_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "list", 'l', NULL, "list the snapshots (the default)" },
    { "create", 'c', "SNAPSHOT", "create a snapshot (not supported yet)" },
    { "apply", 'a', "SNAPSHOT", "make the image what the snapshot is (not supported yet)" },
    { "delete", 'd', "SNAPSHOT", "delete a snapshot (not supported yet)" },
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_QUIET,
    { NULL },
};

static int list_snapshots(const ImgArgs *args)
{
    g_autoptr(BlockBackend) blk = img_open_operand(args, 0);

    if (blk == NULL) {
        return 1;
    }
    img_print_snapshots(blk_bs(blk), 0);
    return 0;
}

static int snapshot_run(ImgArgs *args)
{
    int operation = 0;
    int c;

    while ((c = img_args_next(args)) > 0) {
        if (operation != 0) {
            return img_usage_error(args, "Cannot mix '-l', '-a', '-c', '-d'");
        }
        operation = c;
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (img_operand_count(args) != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    if (operation != 0 && operation != 'l') {
        tool_error("'%s': changing snapshots (-%c) is not supported yet", img_operand(args, 0),
                   operation);
        return 1;
    }
    return list_snapshots(args);
}

const ImgCommand img_snapshot_command = {
    .name = "snapshot",
    .summary = "List or manipulate snapshots within image",
    .synopsis = "[-f FMT | --image-opts] [-l | -a|-c|-d SNAPSHOT] [-U] [-q] FILENAME",
    .options = snapshot_options,
    .operands = "FILENAME\n   the image",
    .run = snapshot_run,
};
