/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Permissions: what each edge takes and shares, worked out from the top of the
 * graph down, so that a node is looked at after all of its parents.
 */
#include "block/block-int.h"

static const char *const perm_words[] = {
    "consistent read", "write", "write unchanged", "resize",
};

char *bdrv_perm_names(uint64_t perm)
{
    GString *s = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(perm_words); i++) {
        if (perm & (1 << i)) {
            g_string_append_printf(s, "%s%s", s->len ? ", " : "", perm_words[i]);
        }
    }
    return g_string_free(s, FALSE);
}

/* ---- What an edge takes by default ------------------------------------------- */

static void filter_perms(uint64_t perm, uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = perm;
    *nshared = shared;
}

/* A backing file is read, and must not change unless the parents can bear it. */
static void cow_perms(uint64_t perm, uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = perm & BLK_PERM_CONSISTENT_READ;
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    if (shared & BLK_PERM_WRITE) {
        *nshared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
}

static void storage_perms(BlockDriverState *bs, int role, uint64_t perm, uint64_t shared,
                          uint64_t *nperm, uint64_t *nshared)
{
    if (role & BDRV_CHILD_METADATA) {
        /* The format's tables: they are read at any time, grow when written to,
         * and nobody else may touch them. */
        if (!(bs->open_flags & BDRV_O_NO_IO)) {
            perm |= BLK_PERM_CONSISTENT_READ;
        }
        if (bdrv_is_writable(bs)) {
            perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        shared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
    if (role & BDRV_CHILD_DATA) {
        /* Writing what is there already may still have to allocate. */
        if (perm & BLK_PERM_WRITE_UNCHANGED) {
            perm |= BLK_PERM_WRITE;
        }
        if (perm & BLK_PERM_WRITE) {
            perm |= BLK_PERM_RESIZE;
        }
        shared &= ~(uint64_t)BLK_PERM_RESIZE;
    }
    *nperm = perm;
    *nshared = shared;
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                        uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    if (role & BDRV_CHILD_FILTERED) {
        filter_perms(perm, shared, nperm, nshared);
    } else if (role & BDRV_CHILD_COW) {
        cow_perms(perm, shared, nperm, nshared);
    } else {
        storage_perms(bs, role, perm, shared, nperm, nshared);
    }
}

static void edge_perms(BdrvChild *child, uint64_t *perm, uint64_t *shared) GRAPH_RDLOCK
{
    BlockDriverState *bs = child->parent;
    void (*child_perm)(BlockDriverState *, BdrvChild *, int, uint64_t, uint64_t, uint64_t *,
                       uint64_t *) =
        bs->drv->bdrv_child_perm ? bs->drv->bdrv_child_perm : bdrv_default_perms;

    child_perm(bs, child, child->role, bs->perm, bs->shared, perm, shared);
    if (child->bs->force_share) {
        *shared = BLK_PERM_ALL;
    }
}

/* ---- The order of nodes: parents first ----------------------------------------- */

static void order_visit(BlockDriverState *bs, GHashTable *seen, GPtrArray *order) GRAPH_RDLOCK
{
    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        order_visit(child->bs, seen, order);
    }
    g_ptr_array_add(order, bs); /* children first: read it backwards */
}

/* ---- Trying new permissions ------------------------------------------------------ */

typedef struct EdgeUndo {
    BdrvChild *child;
    uint64_t perm;
    uint64_t shared;
} EdgeUndo;

typedef struct PermTrial {
    GArray *edges;      /* EdgeUndo */
    GPtrArray *checked; /* nodes whose driver has agreed */
} PermTrial;

static bool conflict(BlockDriverState *bs, BdrvChild *taker, BdrvChild *owner, GError **errp)
{
    uint64_t denied = taker->perm & ~owner->shared;
    g_autofree char *names = NULL, *taker_desc = NULL, *owner_desc = NULL;

    if (!denied) {
        return false;
    }
    names = bdrv_perm_names(denied);
    taker_desc = taker->ops->describe(taker);
    owner_desc = owner->ops->describe(owner);
    block_error_set(errp, EPERM,
                    "Permission conflict on node '%s': permissions '%s' are both required by %s "
                    "(uses node '%s' as '%s' child) and unshared by %s (uses node '%s' as '%s' "
                    "child).", bs->node_name, names, taker_desc, bs->node_name, taker->name,
                    owner_desc, bs->node_name, owner->name);
    return true;
}

static bool find_conflict(BlockDriverState *bs, BdrvChild *taker, GError **errp) GRAPH_RDLOCK
{
    for (BdrvChild *owner = bs->parents; owner; owner = owner->next_parent) {
        if (owner != taker && conflict(bs, taker, owner, errp)) {
            return true;
        }
    }
    return false;
}

static bool node_perms_possible(BlockDriverState *bs, uint64_t *perm, uint64_t *shared,
                                GError **errp) GRAPH_RDLOCK
{
    uint64_t all_shared = BLK_PERM_ALL, two_deny = 0;

    *perm = 0;
    for (BdrvChild *a = bs->parents; a; a = a->next_parent) {
        two_deny |= ~all_shared & ~a->shared;
        all_shared &= a->shared;
        *perm |= a->perm;
    }
    *shared = all_shared;
    for (BdrvChild *a = bs->parents; a; a = a->next_parent) {
        /* What others deny: all that is denied, but for what only @a itself denies. */
        if ((a->perm & ~all_shared & (two_deny | a->shared)) && find_conflict(bs, a, errp)) {
            return false;
        }
    }
    if ((*perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE)) &&
        bdrv_is_read_only(bs)) {
        block_error_set(errp, EACCES, "Block node '%s' (file '%s') is read-only", bs->node_name,
                        bs->filename);
        return false;
    }
    return true;
}

static void trial_set_edge(PermTrial *trial, BdrvChild *child, uint64_t perm, uint64_t shared)
{
    EdgeUndo undo = {child, child->perm, child->shared};

    g_array_append_val(trial->edges, undo);
    bdrv_child_set_perm(child, perm, shared);
}

static bool trial_node(PermTrial *trial, BlockDriverState *bs, GError **errp) GRAPH_RDLOCK
{
    uint64_t perm, shared;

    if (!node_perms_possible(bs, &perm, &shared, errp)) {
        return false;
    }
    if (bs->drv->bdrv_check_perm && bs->is_open &&
        !bs->drv->bdrv_check_perm(bs, perm, shared, errp)) {
        return false;
    }
    bs->old_perm = bs->perm;
    bs->old_shared = bs->shared;
    __atomic_store_n(&bs->perm, perm, __ATOMIC_RELAXED);
    bs->shared = shared;
    g_ptr_array_add(trial->checked, bs);
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        edge_perms(child, &perm, &shared);
        trial_set_edge(trial, child, perm, shared);
    }
    return true;
}

static void trial_end(PermTrial *trial, bool ok)
{
    for (guint i = trial->checked->len; i-- > 0;) {
        BlockDriverState *bs = trial->checked->pdata[i];

        if (!ok) {
            __atomic_store_n(&bs->perm, bs->old_perm, __ATOMIC_RELAXED);
            bs->shared = bs->old_shared;
        }
        if (!bs->is_open) {
            continue;
        }
        if (ok && bs->drv->bdrv_set_perm) {
            bs->drv->bdrv_set_perm(bs, bs->perm, bs->shared);
        } else if (!ok && bs->drv->bdrv_abort_perm) {
            bs->drv->bdrv_abort_perm(bs);
        }
    }
    for (guint i = ok ? 0 : trial->edges->len; i-- > 0;) {
        EdgeUndo *undo = &g_array_index(trial->edges, EdgeUndo, i);

        bdrv_child_set_perm(undo->child, undo->perm, undo->shared);
    }
    g_array_unref(trial->edges);
    g_ptr_array_unref(trial->checked);
}

bool bdrv_refresh_perms(GPtrArray *nodes, GError **errp)
{
    PermTrial trial = {g_array_new(false, false, sizeof(EdgeUndo)), g_ptr_array_new()};
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    bool ok = true;

    bdrv_graph_assert_readable();
    for (guint i = 0; i < nodes->len; i++) {
        order_visit(nodes->pdata[i], seen, order);
    }
    for (guint i = order->len; i-- > 0 && ok;) {
        ok = trial_node(&trial, order->pdata[i], errp);
    }
    trial_end(&trial, ok);
    return ok;
}

bool bdrv_refresh_node_perms(BlockDriverState *bs, GError **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();

    bdrv_graph_assert_readable();
    g_ptr_array_add(nodes, bs);
    return bdrv_refresh_perms(nodes, errp);
}
