/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes to the graph that happen together or not at all: all nodes concerned
 * are drained, the links are changed under the graph lock, then permissions
 * are worked out; if they are not to be had, the links go back.
 */
#include "block/block-int.h"

typedef enum ChangeKind {
    CHANGE_RETARGET, /* an edge leads to another node */
    CHANGE_ATTACH,
    CHANGE_DETACH,
} ChangeKind;

typedef struct Change {
    ChangeKind kind;
    BdrvChild *child;
    BlockDriverState *from; /* RETARGET, DETACH: where it led, referenced by the edge */
    BlockDriverState *to;   /* RETARGET, ATTACH: referenced for the edge */
} Change;

struct BdrvTransaction {
    GArray *changes;    /* Change */
    GPtrArray *drained; /* nodes, referenced */
    GPtrArray *touched; /* where permissions may change; within drained */
    GError *error;      /* of a change that cannot be */
};

BdrvTransaction *bdrv_transaction_new(void)
{
    BdrvTransaction *tran = g_new0(BdrvTransaction, 1);

    GLOBAL_STATE_CODE();
    tran->changes = g_array_new(false, true, sizeof(Change));
    tran->drained = g_ptr_array_new();
    tran->touched = g_ptr_array_new();
    return tran;
}

static void tran_drain(BdrvTransaction *tran, BlockDriverState *bs)
{
    if (!bs || g_ptr_array_find(tran->drained, bs, NULL)) {
        return;
    }
    g_ptr_array_add(tran->drained, bdrv_ref(bs));
    g_ptr_array_add(tran->touched, bs);
    bdrv_drained_begin(bs);
}

static void tran_add(BdrvTransaction *tran, ChangeKind kind, BdrvChild *child,
                     BlockDriverState *from, BlockDriverState *to)
{
    Change change = {kind, child, from, to ? bdrv_ref(to) : NULL};

    tran_drain(tran, from);
    tran_drain(tran, to);
    g_array_append_val(tran->changes, change);
}

static BlockDriverState *child_node(BdrvChild *child)
{
    BlockDriverState *bs;

    bdrv_graph_rdlock_main_loop();
    bs = child->bs;
    bdrv_graph_rdunlock_main_loop();
    return bs;
}

/* Whether leading @child to @to would close a circle. */
static bool makes_cycle(BdrvChild *child, BlockDriverState *to)
{
    bool cycle;

    if (!child->ops->is_node) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    cycle = bdrv_reaches(to, child->parent);
    bdrv_graph_rdunlock_main_loop();
    return cycle;
}

static void tran_refuse_cycle(BdrvTransaction *tran, BlockDriverState *parent,
                              BlockDriverState *to, const char *name)
{
    if (!tran->error) {
        block_error_set(&tran->error, ELOOP,
                        "Making '%s' a %s child of '%s' would create a cycle", to->node_name,
                        name, parent->node_name);
    }
}

void bdrv_transaction_replace_child(BdrvTransaction *tran, BdrvChild *child, BlockDriverState *to)
{
    GLOBAL_STATE_CODE();
    if (makes_cycle(child, to)) {
        tran_refuse_cycle(tran, child->parent, to, child->name);
        return;
    }
    tran_add(tran, CHANGE_RETARGET, child, child_node(child), to);
}

void bdrv_transaction_replace_node(BdrvTransaction *tran, BlockDriverState *from,
                                   BlockDriverState *to)
{
    g_autoptr(GPtrArray) edges = g_ptr_array_new();

    GLOBAL_STATE_CODE();
    tran_drain(tran, from); /* first: waiting may run what changes the edges */
    tran_drain(tran, to);
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = from->parents; child; child = child->next_parent) {
        g_ptr_array_add(edges, child);
    }
    bdrv_graph_rdunlock_main_loop();
    for (guint i = 0; i < edges->len; i++) {
        /* A filter that goes on top of @from keeps its own edge to it. */
        if (!makes_cycle(edges->pdata[i], to)) {
            tran_add(tran, CHANGE_RETARGET, edges->pdata[i], from, to);
        }
    }
}

void bdrv_transaction_set_backing(BdrvTransaction *tran, BlockDriverState *bs,
                                  BlockDriverState *backing)
{
    BdrvChild *child;
    bool cycle;

    GLOBAL_STATE_CODE();
    bdrv_graph_rdlock_main_loop();
    child = bs->backing;
    cycle = backing && bdrv_reaches(backing, bs);
    bdrv_graph_rdunlock_main_loop();
    if (cycle) {
        tran_refuse_cycle(tran, bs, backing, "backing");
        return;
    }
    tran_drain(tran, bs);
    if (child && backing) {
        tran_add(tran, CHANGE_RETARGET, child, child_node(child), backing);
    } else if (child) {
        tran_add(tran, CHANGE_DETACH, child, child_node(child), NULL);
    } else if (backing) {
        child = bdrv_child_new("backing", &bdrv_node_parent_ops, bs, BDRV_CHILD_COW, 0,
                               BLK_PERM_ALL);
        tran_add(tran, CHANGE_ATTACH, child, NULL, backing);
    }
}

/* ---- Applying ------------------------------------------------------------------------ */

static void link_edge(BdrvChild *child, BlockDriverState *to) GRAPH_WRLOCK
{
    bdrv_link_child(child, to);
    if (child->ops->is_node) {
        bdrv_link_to_parent(child->parent, child);
    }
}

static void unlink_edge(BdrvChild *child) GRAPH_WRLOCK
{
    bdrv_unlink_child(child);
    if (child->ops->is_node) {
        bdrv_unlink_from_parent(child->parent, child);
    }
}

static void retarget(BdrvChild *child, BlockDriverState *to) GRAPH_WRLOCK
{
    bdrv_unlink_child(child);
    bdrv_link_child(child, to);
    if (child->ops->is_node) {
        bdrv_forget_mappings(child->parent);
    }
}

static void change_apply(Change *c) GRAPH_WRLOCK
{
    switch (c->kind) {
    case CHANGE_RETARGET:
        retarget(c->child, c->to);
        break;
    case CHANGE_ATTACH:
        link_edge(c->child, c->to);
        break;
    case CHANGE_DETACH:
        unlink_edge(c->child);
        break;
    }
}

static void change_undo(Change *c) GRAPH_WRLOCK
{
    switch (c->kind) {
    case CHANGE_RETARGET:
        retarget(c->child, c->from);
        break;
    case CHANGE_ATTACH:
        unlink_edge(c->child);
        break;
    case CHANGE_DETACH:
        link_edge(c->child, c->from);
        break;
    }
}

/* Whether an edge that was changed is part of a circle now. Each change was
 * looked at when it was added; this is about what they do together. */
static bool any_cycle(BdrvTransaction *tran, GError **errp) GRAPH_RDLOCK
{
    for (guint i = 0; i < tran->changes->len; i++) {
        BdrvChild *child = g_array_index(tran->changes, Change, i).child;

        if (child->bs && child->ops->is_node && bdrv_reaches(child->bs, child->parent)) {
            block_error_set(errp, ELOOP, "The changes together would create a cycle at '%s'",
                            ((BlockDriverState *)child->parent)->node_name);
            return true;
        }
    }
    return false;
}

static void undo_changes(BdrvTransaction *tran) GRAPH_WRLOCK
{
    for (guint i = tran->changes->len; i-- > 0;) {
        change_undo(&g_array_index(tran->changes, Change, i));
    }
}

static bool apply_all(BdrvTransaction *tran, GError **errp)
{
    bool ok;

    bdrv_graph_wrlock();
    for (guint i = 0; i < tran->changes->len; i++) {
        change_apply(&g_array_index(tran->changes, Change, i));
    }
    ok = !any_cycle(tran, errp);
    if (!ok) {
        undo_changes(tran);
    }
    bdrv_graph_wrunlock();
    return ok;
}

static void undo_all(BdrvTransaction *tran)
{
    bdrv_graph_wrlock();
    undo_changes(tran);
    bdrv_graph_wrunlock();
}

static bool refresh_touched(BdrvTransaction *tran, GError **errp)
{
    bool ok;

    bdrv_graph_rdlock_main_loop();
    ok = bdrv_refresh_perms(tran->touched, errp);
    for (guint i = 0; ok && i < tran->touched->len; i++) {
        bdrv_refresh_limits(tran->touched->pdata[i]);
    }
    bdrv_graph_rdunlock_main_loop();
    return ok;
}

/* An edge that was attached while its node is drained, or detached: its parent
 * is told, now that the links are settled. */
static void settle_edge(Change *c, bool applied)
{
    bool linked = c->kind == CHANGE_RETARGET || (c->kind == CHANGE_ATTACH) == applied;

    if (linked) {
        bdrv_parent_quiesce(c->child);
        return;
    }
    bdrv_parent_unquiesce(c->child);
    bdrv_child_free(c->child);
}

static void tran_free(BdrvTransaction *tran, bool applied)
{
    for (guint i = 0; i < tran->changes->len; i++) {
        Change *c = &g_array_index(tran->changes, Change, i);

        settle_edge(c, applied);
    }
    for (guint i = tran->drained->len; i-- > 0;) {
        bdrv_drained_end(tran->drained->pdata[i]);
    }
    for (guint i = 0; i < tran->changes->len; i++) {
        Change *c = &g_array_index(tran->changes, Change, i);

        bdrv_unref(applied ? c->from : c->to); /* the edge's reference */
    }
    for (guint i = 0; i < tran->drained->len; i++) {
        bdrv_unref(tran->drained->pdata[i]);
    }
    g_array_unref(tran->changes);
    g_ptr_array_unref(tran->drained);
    g_ptr_array_unref(tran->touched);
    g_clear_error(&tran->error);
    g_free(tran);
}

bool bdrv_transaction_commit(BdrvTransaction *tran, GError **errp)
{
    bool ok;

    GLOBAL_STATE_CODE();
    if (tran->error) {
        g_propagate_error(errp, g_steal_pointer(&tran->error));
        tran_free(tran, false);
        return false;
    }
    if (!apply_all(tran, errp)) {
        tran_free(tran, false);
        return false;
    }
    ok = refresh_touched(tran, errp);
    if (!ok) {
        undo_all(tran);
        refresh_touched(tran, NULL); /* as it was before: cannot fail */
    }
    tran_free(tran, ok);
    return ok;
}

void bdrv_transaction_abort(BdrvTransaction *tran)
{
    GLOBAL_STATE_CODE();
    tran_free(tran, false);
}

bool bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, GError **errp)
{
    BdrvTransaction *tran = bdrv_transaction_new();

    bdrv_transaction_replace_node(tran, from, to);
    return bdrv_transaction_commit(tran, errp);
}

bool bdrv_set_backing(BlockDriverState *bs, BlockDriverState *backing, GError **errp)
{
    BdrvTransaction *tran = bdrv_transaction_new();

    bdrv_transaction_set_backing(tran, bs, backing);
    return bdrv_transaction_commit(tran, errp);
}
