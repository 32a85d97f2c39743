/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: making a snapshot the active state: a copy of its L1 table takes the place of the
 * active one, which is dropped after that.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-snapshot.h"

/* What the header's length will be. */
static uint64_t length_then(const Qcow2State *s, const Qcow2Snapshot *sn)
{
    int64_t length = (s->header.size + BDRV_SECTOR_SIZE - 1) & ~(BDRV_SECTOR_SIZE - 1);

    return sn->disk_size == UINT64_MAX || sn->disk_size == (uint64_t)length ? s->header.size
                                                                            : sn->disk_size;
}

static int check_length(const Qcow2State *s, const Qcow2Snapshot *sn, GError **errp)
{
    uint64_t length = length_then(s, sn);

    if (length > (uint64_t)BDRV_MAX_LENGTH) {
        block_error_set(errp, EFBIG, "'%s': snapshot '%s' is of a disk of %" G_GUINT64_FORMAT
                        " bytes, more than %lld", s->name, sn->name, length,
                        (long long)BDRV_MAX_LENGTH);
        return -EFBIG;
    }
    return 0;
}

/* The active table is @l1 at @offset. The old one may still be looked at by somebody. */
static void coroutine_fn adopt(Qcow2Writer *w, Qcow2L1 *l1, uint64_t offset, uint64_t length)
    TSA_REQUIRES(w->lock)
{
    Qcow2State *s = w->s;

    w->old_l1 = g_slist_prepend(w->old_l1, s->l1);
    g_atomic_pointer_set(&s->l1, l1);
    s->header.l1_table_offset = s->l1_offset = offset;
    s->header.l1_size = s->l1_size = l1->count;
    s->header.size = length;
    __atomic_store_n(&s->length, length, __ATOMIC_RELAXED);
}

/*
 * Let the header lead to @l1 at @offset. On an error it leads to the old one, or
 * that is what it is made to do before anything else is written.
 */
static int coroutine_fn GRAPH_RDLOCK switch_to(Qcow2State *s, Qcow2L1 *l1, uint64_t offset,
                                               uint64_t length, bool *uncertain)
{
    const Qcow2Header *h = &s->header;
    Qcow2Writer *w = s->writer;
    int ret;

    co_mutex_lock(&w->lock);
    ret = qcow2_l1_switch(w, length, offset, l1->count);
    if (ret < 0) {
        *uncertain = qcow2_l1_switch(w, h->size, h->l1_table_offset, h->l1_size) < 0;
    } else {
        adopt(w, l1, offset, length);
    }
    co_mutex_unlock(&w->lock);
    return ret;
}

/*
 * Raise the refcounts for a second reference to all that @l1 leads to, then switch. What
 * fails is undone.
 */
static int coroutine_fn GRAPH_RDLOCK activate(Qcow2State *s, Qcow2L1 *l1, uint64_t length,
                                              GError **errp)
{
    uint64_t offset;
    bool uncertain = false;
    int ret = qcow2_tree_raise(s, l1, errp);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_snapshot_store_l1(s, l1, &offset);
    if (ret >= 0) {
        ret = qcow2_snapshots_settle(s);
        if (ret >= 0) {
            ret = switch_to(s, l1, offset, length, &uncertain);
        }
        if (ret < 0 && !uncertain) {
            qcow2_free_clusters(s, offset, MAX((uint64_t)l1->count * 8, 1));
        }
    }
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not make the snapshot's L1 table the "
                              "active one", s->name);
        if (!uncertain) {
            qcow2_tree_undo_raise(s, l1);
        }
    }
    return ret;
}

/* As they will be in the active table: everything is the snapshot's as well. */
static int coroutine_fn GRAPH_RDLOCK clear_copied(Qcow2State *s, Qcow2L1 *l1, GError **errp)
{
    int ret = qcow2_tree_clear_copied(s, l1);

    for (uint32_t i = 0; i < l1->count; i++) {
        l1->entries[i] &= ~QCOW2_COPIED;
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bdrv_child_bs(s->file));
    }
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not clear the \"copied\" flags", s->name);
    }
    return ret;
}

/* The old active state: nothing on the disk leads to it any more. */
static int coroutine_fn GRAPH_RDLOCK drop_old(Qcow2State *s, const Qcow2L1 *old, uint64_t offset,
                                              GError **errp)
{
    int ret = qcow2_tree_drop(s, old), settled;

    if (old->count > 0) {
        qcow2_free_clusters(s, offset, (uint64_t)old->count * 8);
    }
    settled = qcow2_snapshots_settle(s);
    ret = ret < 0 ? ret : settled;
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': the snapshot is applied, but not all clusters of "
                              "the old state could be given back", s->name);
    }
    return ret;
}

int coroutine_fn qcow2_co_snapshot_goto(BlockDriverState *bs, size_t index, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    const Qcow2Snapshot *sn = &s->snapshots.entries[index];
    uint64_t length = length_then(s, sn), old_offset;
    const Qcow2L1 *old;
    Qcow2L1 *l1;
    int ret = qcow2_snapshots_begin(s, errp);

    bdrv_graph_assert_readable();
    if (ret >= 0) {
        ret = check_length(s, sn, errp);
    }
    if (ret < 0) {
        return ret;
    }
    l1 = qcow2_snapshot_load_l1(s, sn, qcow2_l1_entries_needed(&s->geo, length), errp);
    if (!l1) {
        return -EIO;
    }
    old = s->l1;
    old_offset = s->header.l1_table_offset;
    ret = clear_copied(s, l1, errp);
    if (ret >= 0) {
        ret = activate(s, l1, length, errp);
    }
    if (ret < 0) {
        g_free(l1);
        return ret;
    }
    bdrv_set_length(bs, length);
    return drop_old(s, old, old_offset, errp);
}
