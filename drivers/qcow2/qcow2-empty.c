/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: giving up all that the active state holds of the disk. Length, snapshots and
 * stored bitmaps stay.
 *
 * First the L1 table, on the disk, leads nowhere; after a flush the refcounts go down;
 * then the file is cut. A power cut between leaves clusters in use for nothing.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

int coroutine_fn qcow2_co_make_empty(BlockDriverState *bs, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    int ret;

    bdrv_graph_assert_readable();
    co_mutex_lock(&s->writer->lock);
    bdrv_co_debug_event(s->file, BDRV_DEBUG_EMPTY_IMAGE_PREPARE);
    ret = qcow2_writer_begin(s->writer);
    co_mutex_unlock(&s->writer->lock);
    if (ret >= 0) {
        ret = qcow2_drop_beyond(s, 0);
    }
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not give up all clusters of the disk",
                              s->name);
        return ret;
    }
    if (s->geo.external_data && s->options.pass_discard[QCOW2_DISCARD_REQUEST]) {
        bdrv_co_pdiscard(s->data_file, 0, bdrv_getlength(bs)); /* a hint */
    }
    qcow2_cut_file(s); /* what fails is space */
    return 0;
}
