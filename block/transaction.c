/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes to the graph that happen together or not at all: all nodes concerned
 * are drained, and under the graph lock the links are changed, one after the
 * other, and permissions worked out; if they are not to be had, the links go
 * back.
 */
#include <stdarg.h>

#include "block/block-int.h"

typedef enum ChangeKind {
    CHANGE_RETARGET, /* an edge leads to another node */
    CHANGE_ATTACH,
    CHANGE_DETACH,
} ChangeKind;

typedef struct Change {
    ChangeKind kind;
    BdrvChild *child; /* NULL: it was freed since */
    BlockDriverState *from; /* RETARGET, DETACH: where it led, referenced by the edge */
    BlockDriverState *to;   /* RETARGET, ATTACH: referenced for the edge */
} Change;

struct BdrvTransaction {
    GArray *changes;    /* Change */
    GPtrArray *drained; /* nodes, referenced */
    GError *error;      /* of a change that cannot be */
    BdrvTransaction *next;
};

/* All that have begun. What runs while one of them waits may change the graph. */
static BdrvTransaction *transactions;

BdrvTransaction *bdrv_transaction_new(void)
{
    BdrvTransaction *tran = g_new0(BdrvTransaction, 1);

    GLOBAL_STATE_CODE();
    tran->changes = g_array_new(false, true, sizeof(Change));
    tran->drained = g_ptr_array_new();
    tran->next = transactions;
    transactions = tran;
    return tran;
}

static Change *change_at(BdrvTransaction *tran, guint i)
{
    return &g_array_index(tran->changes, Change, i);
}

/* The first error is the one that is told. */
static void G_GNUC_PRINTF(3, 4) tran_fail(BdrvTransaction *tran, int error, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    if (!tran->error) {
        va_start(ap, fmt);
        text = g_strdup_vprintf(fmt, ap);
        va_end(ap);
        block_error_set(&tran->error, error, "%s", text);
    }
}

void bdrv_transactions_forget(const BdrvChild *child)
{
    for (BdrvTransaction *tran = transactions; tran; tran = tran->next) {
        for (guint i = 0; i < tran->changes->len; i++) {
            Change *c = change_at(tran, i);

            if (c->child == child) {
                tran_fail(tran, EBUSY, "Edge '%s' went away while it was to be changed",
                          child->name);
                c->child = NULL;
            }
        }
    }
}

static void tran_drain(BdrvTransaction *tran, BlockDriverState *bs)
{
    if (!bs || g_ptr_array_find(tran->drained, bs, NULL)) {
        return;
    }
    g_ptr_array_add(tran->drained, bdrv_ref(bs));
    bdrv_drained_begin(bs);
}

/* Noted before anything polls: from then on it is known if the edge is freed. */
static void tran_add(BdrvTransaction *tran, ChangeKind kind, BdrvChild *child,
                     BlockDriverState *from, BlockDriverState *to)
{
    Change change = {kind, child, from, to ? bdrv_ref(to) : NULL};

    g_array_append_val(tran->changes, change);
    tran_drain(tran, from);
    tran_drain(tran, to);
}

/* Where the edge will lead when the changes up to now have been made. */
static BlockDriverState *child_node(BdrvTransaction *tran, BdrvChild *child)
{
    BlockDriverState *bs;

    for (guint i = tran->changes->len; i-- > 0;) {
        if (change_at(tran, i)->child == child) {
            return change_at(tran, i)->to;
        }
    }
    bdrv_graph_rdlock_main_loop();
    bs = child->bs;
    bdrv_graph_rdunlock_main_loop();
    return bs;
}

/* The backing edge that @bs will have then. */
static BdrvChild *backing_edge(BdrvTransaction *tran, BlockDriverState *bs)
{
    BdrvChild *child;

    bdrv_graph_rdlock_main_loop();
    child = bs->backing;
    bdrv_graph_rdunlock_main_loop();
    for (guint i = 0; i < tran->changes->len; i++) {
        Change *c = change_at(tran, i);

        if (c->kind == CHANGE_ATTACH && c->child && c->child->parent == bs) {
            child = c->child;
        } else if (c->kind == CHANGE_DETACH && c->child && c->child == child) {
            child = NULL;
        }
    }
    return child;
}

void bdrv_transaction_replace_child(BdrvTransaction *tran, BdrvChild *child, BlockDriverState *to)
{
    GLOBAL_STATE_CODE();
    tran_add(tran, CHANGE_RETARGET, child, child_node(tran, child), to);
}

/* The edges that lead to @from, without those that may not lead to @to. */
static GPtrArray *edges_to_move(BlockDriverState *from, BlockDriverState *to)
{
    GPtrArray *edges = g_ptr_array_new();

    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = from->parents; child; child = child->next_parent) {
        /* A filter that goes on top of @from keeps its own edge to it. */
        if (!child->ops->is_node || !bdrv_reaches(to, child->parent)) {
            g_ptr_array_add(edges, child);
        }
    }
    bdrv_graph_rdunlock_main_loop();
    return edges;
}

void bdrv_transaction_replace_node(BdrvTransaction *tran, BlockDriverState *from,
                                   BlockDriverState *to)
{
    g_autoptr(GPtrArray) edges = NULL;

    GLOBAL_STATE_CODE();
    tran_drain(tran, from); /* first: waiting may run what changes the edges */
    tran_drain(tran, to);
    edges = edges_to_move(from, to);
    for (guint i = 0; i < edges->len; i++) {
        tran_add(tran, CHANGE_RETARGET, edges->pdata[i], from, to);
    }
}

void bdrv_transaction_set_backing(BdrvTransaction *tran, BlockDriverState *bs,
                                  BlockDriverState *backing)
{
    BdrvChild *child;

    GLOBAL_STATE_CODE();
    if (!bs->drv->supports_backing) {
        tran_fail(tran, ENOTSUP, "Driver '%s' of node '%s' does not support backing files",
                  bs->drv->format_name, bs->node_name);
        return;
    }
    tran_drain(tran, bs);
    child = backing_edge(tran, bs);
    if (child && backing) {
        tran_add(tran, CHANGE_RETARGET, child, child_node(tran, child), backing);
    } else if (child) {
        tran_add(tran, CHANGE_DETACH, child, child_node(tran, child), NULL);
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
        bdrv_forget_mappings_above(child->parent);
    }
}

/* Whether the change fits the graph as the changes before have left it. */
static bool change_is_possible(BdrvTransaction *tran, const Change *c) GRAPH_WRLOCK
{
    BlockDriverState *parent = c->child->ops->is_node ? c->child->parent : NULL;
    bool fits = c->kind == CHANGE_ATTACH ? !parent->backing : c->from != NULL;

    if (c->child->bs != c->from || !fits) {
        tran_fail(tran, EBUSY, "Edge '%s' was changed by something else meanwhile",
                  c->child->name);
        return false;
    }
    return !c->to || bdrv_chain_allows(c->child, c->to, &tran->error);
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

static void undo_changes(BdrvTransaction *tran, guint count) GRAPH_WRLOCK
{
    while (count-- > 0) {
        change_undo(change_at(tran, count));
    }
}

/* All in their order, or none and the error is set. */
static bool apply_changes(BdrvTransaction *tran) GRAPH_WRLOCK
{
    guint done = 0;
    bool ok = !tran->error;

    while (ok && done < tran->changes->len) {
        ok = change_is_possible(tran, change_at(tran, done));
        if (ok) {
            change_apply(change_at(tran, done++));
        }
    }
    if (!ok) {
        undo_changes(tran, done);
    }
    return ok;
}

/* Where permissions and limits may have changed. */
static GPtrArray *touched_nodes(BdrvTransaction *tran)
{
    GPtrArray *nodes = g_ptr_array_new();

    for (guint i = 0; i < tran->drained->len; i++) {
        g_ptr_array_add(nodes, tran->drained->pdata[i]);
    }
    for (guint i = 0; i < tran->changes->len; i++) {
        BdrvChild *child = change_at(tran, i)->child;

        if (child->ops->is_node) { /* what an edge takes may depend on where it leads */
            g_ptr_array_add(nodes, child->parent);
        }
    }
    return nodes;
}

static bool refresh_touched(BdrvTransaction *tran, GError **errp) GRAPH_WRLOCK
{
    g_autoptr(GPtrArray) nodes = touched_nodes(tran);

    if (!bdrv_refresh_perms(nodes, errp)) {
        return false;
    }
    for (guint i = 0; i < tran->drained->len; i++) {
        bdrv_refresh_limits(tran->drained->pdata[i]);
    }
    return true;
}

/*
 * The links are settled: an edge that came, to a node that is drained, quiesces
 * its parent; one that went is freed. All others stayed with drained nodes.
 */
static void settle_edge(Change *c, bool applied)
{
    BdrvChild *child = c->child;

    if (!child || c->kind == CHANGE_RETARGET) {
        return;
    }
    if ((c->kind == CHANGE_DETACH) == applied) {
        bdrv_parent_unquiesce(child);
        bdrv_child_free(child); /* also takes it out of all changes */
    } else if (applied) {
        bdrv_parent_quiesce(child);
    }
}

static void tran_unlist(BdrvTransaction *tran)
{
    BdrvTransaction **p;

    for (p = &transactions; *p != tran; p = &(*p)->next) {
    }
    *p = tran->next;
}

static void tran_free(BdrvTransaction *tran, bool applied)
{
    for (guint i = 0; i < tran->changes->len; i++) {
        settle_edge(change_at(tran, i), applied);
    }
    tran_unlist(tran);
    for (guint i = tran->drained->len; i-- > 0;) {
        bdrv_drained_end(tran->drained->pdata[i]);
    }
    for (guint i = 0; i < tran->changes->len; i++) {
        Change *c = change_at(tran, i);

        bdrv_unref(applied ? c->from : c->to); /* the edge's reference */
    }
    for (guint i = 0; i < tran->drained->len; i++) {
        bdrv_unref(tran->drained->pdata[i]);
    }
    g_array_unref(tran->changes);
    g_ptr_array_unref(tran->drained);
    g_clear_error(&tran->error);
    g_free(tran);
}

bool bdrv_transaction_commit(BdrvTransaction *tran, GError **errp)
{
    bool ok;

    GLOBAL_STATE_CODE();
    bdrv_graph_wrlock(); /* polls: only from here on does the graph stay as it is */
    ok = apply_changes(tran);
    if (ok && !refresh_touched(tran, &tran->error)) {
        ok = false;
        undo_changes(tran, tran->changes->len);
        refresh_touched(tran, NULL); /* as it was before: cannot fail */
    }
    bdrv_graph_wrunlock();
    if (!ok) {
        g_propagate_error(errp, g_steal_pointer(&tran->error));
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
