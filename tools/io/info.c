/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* info: what the image is. */
#include <stdio.h>
#include "blockgraph/block-driver.h"
#include "tools/img/info-human.h"
#include "tools/io/commands.h"
#include "tools/io/numbers.h"
#include "tools/tool.h"

static bool print_format_info(BlockDriverState *bs)
{
    GError *err = NULL;
    BdrvImageInfo info = { .bs = bs, .specific = bdrv_get_specific_info(bs, &err) };
    bool ok = err == NULL && img_print_specific(&info, 0, &err);

    g_clear_pointer(&info.specific, json_object_unref);
    if (!ok) {
        tool_error_report(err);
    }
    return ok;
}

static bool info_run(IoSession *s, int argc, char **argv)
{
    BlockDriverState *bs = blk_bs(s->blk);
    const char *format = bdrv_get_format_name(bs);
    const BlockDriver *drv = bdrv_find_format(format);
    g_autofree char *cluster = NULL;
    g_autofree char *vm_state = NULL;
    BlockDriverInfo info = { 0 };

    printf("format name: %s\n", format);
    if (drv != NULL && drv->protocol_name != NULL) {
        printf("format name: %s\n", drv->protocol_name);
    }
    if (bdrv_get_info(bs, &info) < 0) {
        return false;
    }
    cluster = io_size_text((double)info.cluster_size);
    vm_state = io_size_text((double)info.vm_state_offset);
    printf("cluster size: %s\nvm state offset: %s\n", cluster, vm_state);
    return print_format_info(bs);
}

const IoCommand io_info_command = {
    .name = "info",
    .alias = "i",
    .summary = "tells what the image is",
    .run = info_run,
};
