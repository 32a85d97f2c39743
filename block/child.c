/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edges: attaching and detaching, and walking along them.
 */
#include <string.h>

#include "block/pass-through.h"

/* ---- Links --------------------------------------------------------------- */

void bdrv_link_child(BdrvChild *child, BlockDriverState *bs)
{
    BdrvChild **p;

    bdrv_graph_assert_writable();
    child->bs = bs;
    child->next_parent = NULL;
    for (p = &bs->parents; *p; p = &(*p)->next_parent) {
    }
    *p = child;
}

void bdrv_unlink_child(BdrvChild *child)
{
    BdrvChild **p;

    bdrv_graph_assert_writable();
    if (child->ops->pass_through) {
        pass_through_reset(child->ops->pass_through(child));
    }
    for (p = &child->bs->parents; *p != child; p = &(*p)->next_parent) {
    }
    *p = child->next_parent;
    child->bs = NULL;
}

void bdrv_link_to_parent(BlockDriverState *parent, BdrvChild *child)
{
    BdrvChild **p;

    bdrv_graph_assert_writable();
    for (p = &parent->children; *p; p = &(*p)->next_child) {
    }
    *p = child;
    if (strcmp(child->name, "file") == 0) {
        parent->file = child;
    } else if (strcmp(child->name, "backing") == 0) {
        parent->backing = child;
    }
    bdrv_forget_mappings_above(parent);
}

void bdrv_unlink_from_parent(BlockDriverState *parent, BdrvChild *child)
{
    BdrvChild **p;

    bdrv_graph_assert_writable();
    for (p = &parent->children; *p != child; p = &(*p)->next_child) {
    }
    *p = child->next_child;
    if (parent->file == child) {
        parent->file = NULL;
    } else if (parent->backing == child) {
        parent->backing = NULL;
    }
    bdrv_forget_mappings_above(parent);
}

static void forget_cached(BlockDriverState *bs)
{
    if (bs->map_cache) {
        map_cache_invalidate(bs->map_cache, 0, BDRV_MAX_LENGTH);
    }
}

void bdrv_forget_mappings(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    forget_cached(bs);
    pass_through_invalidate(bs, 0, INT64_MAX);
}

static void forget_above(BlockDriverState *bs) GRAPH_RDLOCK
{
    forget_cached(bs);
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        if (parent->ops->is_node) {
            forget_above(parent->parent);
        }
    }
}

void bdrv_forget_mappings_above(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    forget_above(bs);
    pass_through_invalidate(bs, 0, INT64_MAX);
}

void bdrv_see_requests(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    bdrv_graph_rdlock_main_loop();
    pass_through_invalidate(bs, 0, INT64_MAX);
    bdrv_graph_rdunlock_main_loop();
}

static bool reaches(BlockDriverState *from, BlockDriverState *bs, GHashTable *seen) GRAPH_RDLOCK
{
    if (from == bs) {
        return true;
    }
    if (!g_hash_table_add(seen, from)) {
        return false;
    }
    for (BdrvChild *child = from->children; child; child = child->next_child) {
        if (reaches(child->bs, bs, seen)) {
            return true;
        }
    }
    return false;
}

bool bdrv_reaches(BlockDriverState *from, BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    bdrv_graph_assert_readable();
    return reaches(from, bs, seen);
}

/* ---- Attaching and detaching ----------------------------------------------- */

BdrvChild *bdrv_child_new(const char *name, const BdrvParentOps *ops, void *parent, int role,
                          uint64_t perm, uint64_t shared)
{
    BdrvChild *child = g_new0(BdrvChild, 1);

    child->name = g_strdup(name);
    child->ops = ops;
    child->parent = parent;
    child->role = role;
    child->perm = perm;
    child->shared = shared;
    return child;
}

void bdrv_child_free(BdrvChild *child)
{
    bdrv_transactions_forget(child);
    g_free(child->name);
    g_free(child);
}

/* The node that the edge leads to; the main thread may know it at any time. */
static BlockDriverState *child_node(BdrvChild *child)
{
    BlockDriverState *bs;

    bdrv_graph_rdlock_main_loop();
    bs = child->bs;
    bdrv_graph_rdunlock_main_loop();
    return bs;
}

/*
 * Free the edge; the node that it led to, with the edge's reference. Waiting
 * polls, and what runs then may lead the edge elsewhere: begin again there.
 */
static BlockDriverState *child_unlink_and_free(BdrvChild *child)
{
    BlockDriverState *bs;

    for (;;) {
        bs = bdrv_ref(child_node(child));
        bdrv_drained_begin(bs);
        bdrv_graph_wrlock();
        if (child->bs == bs) {
            break;
        }
        bdrv_graph_wrunlock();
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    }
    bdrv_unlink_child(child);
    if (child->ops->is_node) {
        bdrv_unlink_from_parent(child->parent, child);
    }
    bdrv_graph_wrunlock();
    bdrv_parent_unquiesce(child);
    bdrv_child_free(child);
    bdrv_drained_end(bs);
    bdrv_unref(bs); /* ours: the edge's is left */
    return bs;
}

/* Link the edge in. */
static bool child_link(BdrvChild *child, BlockDriverState *bs, GError **errp)
{
    BlockDriverState *parent = child->ops->is_node ? child->parent : NULL;
    bool loop;

    bdrv_drained_begin(bs);
    bdrv_graph_wrlock();
    loop = parent && bdrv_reaches(bs, parent);
    if (loop) {
        block_error_set(errp, ELOOP, "Making '%s' a %s child of '%s' would create a cycle",
                        bs->node_name, child->name, parent->node_name);
    } else {
        bdrv_link_child(child, bs);
        if (parent) {
            bdrv_link_to_parent(parent, child);
        }
    }
    bdrv_graph_wrunlock();
    if (!loop) {
        bdrv_parent_quiesce(child);
    }
    bdrv_drained_end(bs);
    return !loop;
}

static BdrvChild *attach(BdrvChild *child, BlockDriverState *bs, GError **errp)
{
    BlockDriverState *parent = child->ops->is_node ? child->parent : NULL;
    bool ok;

    if (!child_link(child, bs, errp)) {
        bdrv_child_free(child);
        bdrv_unref(bs);
        return NULL;
    }
    bdrv_graph_rdlock_main_loop();
    ok = bdrv_refresh_node_perms(parent ? parent : bs, errp);
    bdrv_graph_rdunlock_main_loop();
    if (!ok) {
        bdrv_unref(child_unlink_and_free(child));
        return NULL;
    }
    return child;
}

BdrvChild *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *bs, const char *name,
                             int role, GError **errp)
{
    GLOBAL_STATE_CODE();
    return attach(bdrv_child_new(name, &bdrv_node_parent_ops, parent, role, 0, BLK_PERM_ALL), bs,
                  errp);
}

BdrvChild *bdrv_attach_root(BlockDriverState *bs, const char *name, const BdrvParentOps *ops,
                            void *parent, uint64_t perm, uint64_t shared, GError **errp)
{
    GLOBAL_STATE_CODE();
    return attach(bdrv_child_new(name, ops, parent, BDRV_CHILD_DATA, perm, shared), bs, errp);
}

void bdrv_detach_child(BdrvChild *child)
{
    BlockDriverState *bs;

    GLOBAL_STATE_CODE();
    bs = child_unlink_and_free(child);
    bdrv_graph_rdlock_main_loop();
    bdrv_refresh_node_perms(bs, NULL); /* fewer permissions: cannot fail */
    bdrv_graph_rdunlock_main_loop();
    bdrv_unref(bs);
}

/* ---- Walking ---------------------------------------------------------------- */

BdrvChild *bdrv_next_child(BlockDriverState *bs, BdrvChild *child)
{
    bdrv_graph_assert_readable();
    return child ? child->next_child : bs->children;
}

BdrvChild *bdrv_next_parent(BlockDriverState *bs, BdrvChild *child)
{
    bdrv_graph_assert_readable();
    return child ? child->next_parent : bs->parents;
}

BdrvChild *bdrv_get_child(BlockDriverState *bs, const char *name)
{
    bdrv_graph_assert_readable();
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        if (strcmp(child->name, name) == 0) {
            return child;
        }
    }
    return NULL;
}

static BdrvChild *child_with_role(BlockDriverState *bs, int role) GRAPH_RDLOCK
{
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        if (child->role & role) {
            return child;
        }
    }
    return NULL;
}

BdrvChild *bdrv_cow_child(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bs->drv->is_filter ? NULL : bs->backing;
}

BdrvChild *bdrv_filter_child(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bs->drv->is_filter ? child_with_role(bs, BDRV_CHILD_FILTERED) : NULL;
}

BdrvChild *bdrv_filter_or_cow_child(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bs->drv->is_filter ? bdrv_filter_child(bs) : bdrv_cow_child(bs);
}

BdrvChild *bdrv_primary_child(BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return child_with_role(bs, BDRV_CHILD_PRIMARY);
}

BlockDriverState *bdrv_skip_filters(BlockDriverState *bs)
{
    BdrvChild *child;

    bdrv_graph_assert_readable();
    while (bs && (child = bdrv_filter_child(bs))) {
        bs = child->bs;
    }
    return bs;
}

BlockDriverState *bdrv_backing_chain_next(BlockDriverState *bs)
{
    BdrvChild *child;

    bdrv_graph_assert_readable();
    bs = bdrv_skip_filters(bs);
    child = bs ? bdrv_cow_child(bs) : NULL;
    return child ? bdrv_skip_filters(child->bs) : NULL;
}

BdrvChild *bdrv_file_child(const BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bs->file;
}

BdrvChild *bdrv_backing_child(const BlockDriverState *bs)
{
    bdrv_graph_assert_readable();
    return bs->backing;
}

/* ---- Questions about an edge -------------------------------------------------- */

void bdrv_child_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared)
{
    __atomic_store_n(&child->perm, perm, __ATOMIC_RELAXED);
    child->shared = shared;
}

bool bdrv_may_write(const BdrvChild *child, int flags)
{
    uint64_t enough = flags & BDRV_REQ_WRITE_UNCHANGED ? BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED
                                                       : BLK_PERM_WRITE;

    return __atomic_load_n(&child->perm, __ATOMIC_RELAXED) & enough;
}

bool bdrv_may_resize(const BdrvChild *child)
{
    return __atomic_load_n(&child->perm, __ATOMIC_RELAXED) & BLK_PERM_RESIZE;
}

const char *bdrv_child_name(const BdrvChild *child)
{
    return child->name;
}

BlockDriverState *bdrv_child_bs(const BdrvChild *child)
{
    bdrv_graph_assert_readable();
    return child->bs;
}

BlockDriverState *bdrv_child_parent(const BdrvChild *child)
{
    return child->ops->is_node ? child->parent : NULL;
}

int bdrv_child_role(const BdrvChild *child)
{
    return child->role;
}

uint64_t bdrv_child_perm(const BdrvChild *child)
{
    return child->perm;
}

uint64_t bdrv_child_shared_perm(const BdrvChild *child)
{
    return child->shared;
}

char *bdrv_child_parent_desc(const BdrvChild *child)
{
    return child->ops->describe(child);
}
