/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot: list, create, apply and delete internal snapshots. */
#include "tools/img/commands.h"

#include <errno.h>
#include "tools/img/common.h"
#include "tools/img/info-human.h"
#include "tools/tool.h"

static const ImgOption snapshot_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "list", 'l', NULL, "list the snapshots (the default)" },
    { "create", 'c', "SNAPSHOT", "create a snapshot of that name" },
    { "apply", 'a', "SNAPSHOT", "make the image what the snapshot is" },
    { "delete", 'd', "SNAPSHOT", "delete a snapshot" },
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

static int report(const char *what, const char *name, const GError *err)
{
    tool_error("Could not %s snapshot '%s': %s", what, name, err->message);
    return 1;
}

static int create_snapshot(BlockDriverState *bs, const char *name)
{
    int64_t now = g_get_real_time();
    BdrvSnapshotInfo info = {
        .name = name,
        .date_sec = now / G_USEC_PER_SEC,
        .date_nsec = now % G_USEC_PER_SEC * 1000,
    };
    g_autoptr(GError) err = NULL;

    if (bdrv_snapshot_create(bs, &info, &err)) {
        return 0;
    }
    if (g_error_matches(err, BLOCK_ERROR, ENOTSUP)) {
        /* The words that scripts know of a format without snapshots. */
        g_free(err->message);
        err->message = g_strdup(g_strerror(ENOTSUP));
    }
    return report("create", name, err);
}

static int apply_snapshot(BlockDriverState *bs, const char *name)
{
    g_autoptr(GError) err = NULL;
    size_t index = SIZE_MAX; /* none, which is refused like all that cannot be */

    if (!bdrv_snapshot_find(bs, name, NULL, &index)) {
        bdrv_snapshot_find(bs, NULL, name, &index);
    }
    if (bdrv_snapshot_goto(bs, index, &err)) {
        return 0;
    }
    if (err->code == ENOENT) {
        tool_error("Could not apply snapshot '%s': Failed to load snapshot: %s", name,
                   g_strerror(ENOENT));
        return 1;
    }
    return report("apply", name, err);
}

static int delete_snapshot(BlockDriverState *bs, const char *name)
{
    g_autoptr(GError) err = NULL;
    size_t index;

    if (!bdrv_snapshot_find(bs, NULL, name, &index)) {
        tool_error("Could not delete snapshot '%s': snapshot not found", name);
        return 1;
    }
    return bdrv_snapshot_delete(bs, index, &err) ? 0 : report("delete", name, err);
}

static int change_snapshots(const ImgArgs *args, int operation, const char *name)
{
    g_autoptr(BlockBackend) blk = img_open_operand(args, BDRV_O_RDWR | BDRV_O_UNMAP);

    if (blk == NULL) {
        return 1;
    }
    return operation == 'c'   ? create_snapshot(blk_bs(blk), name)
           : operation == 'a' ? apply_snapshot(blk_bs(blk), name)
                              : delete_snapshot(blk_bs(blk), name);
}

static int snapshot_run(ImgArgs *args)
{
    const char *name = NULL;
    int operation = 'l', count = 0, c;

    while ((c = img_args_next(args)) > 0) {
        if (count++ > 0) {
            return img_usage_error(args, "Cannot mix '-l', '-a', '-c', '-d'");
        }
        operation = c;
        name = optarg;
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
    return operation == 'l' ? list_snapshots(args) : change_snapshots(args, operation, name);
}

const ImgCommand img_snapshot_command = {
    .name = "snapshot",
    .summary = "List or manipulate snapshots within image",
    .synopsis = "[-f FMT | --image-opts] [-l | -a|-c|-d SNAPSHOT] [-U] [-q] FILENAME",
    .options = snapshot_options,
    .operands = "FILENAME\n   the image",
    .run = snapshot_run,
};
