/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Backends: their life, their names, and the medium that comes and goes.
 *
 * A name belongs to a backend until it is revoked or destroyed; a backend that
 * was revoked is found under no name, so a later one that took the name is
 * never touched through it.
 */
#include <string.h>

#include "block/backend-int.h"
#include "util/fatal.h"

static BlockBackend *first_blk;
static BlockBackend *last_blk;

/* ---- The backend as a parent ------------------------------------------------------- */

static char *root_describe(const BdrvChild *child)
{
    BlockBackend *blk = child->parent;

    return blk->name ? g_strdup_printf("block device '%s'", blk->name)
                     : g_strdup("an unnamed block device");
}

static void root_drained_begin(BdrvChild *child)
{
    BlockBackend *blk = child->parent;

    if (__atomic_fetch_add(&blk->quiesce_counter, 1, __ATOMIC_SEQ_CST) == 0 && blk->dev_ops &&
        blk->dev_ops->drained_begin) {
        blk->dev_ops->drained_begin(blk->dev_opaque);
    }
}

static void root_drained_end(BdrvChild *child)
{
    BlockBackend *blk = child->parent;

    if (__atomic_sub_fetch(&blk->quiesce_counter, 1, __ATOMIC_SEQ_CST) > 0) {
        return;
    }
    if (blk->dev_ops && blk->dev_ops->drained_end) {
        blk->dev_ops->drained_end(blk->dev_opaque);
    }
    g_mutex_lock(&blk->waiting_lock);
    co_queue_wake_all(&blk->waiting);
    g_mutex_unlock(&blk->waiting_lock);
}

static bool root_drained_busy(BdrvChild *child)
{
    return blk_busy(child->parent);
}

static PassThrough *root_pass_through(BdrvChild *child)
{
    return &((BlockBackend *)child->parent)->pass;
}

static void resized_bh(void *opaque)
{
    BlockBackend *blk = opaque;

    if (blk->dev_ops && blk->dev_ops->resized) {
        blk->dev_ops->resized(blk->dev_opaque);
    }
    blk_unref(blk);
}

static void root_resized(BdrvChild *child)
{
    BlockBackend *blk = child->parent;

    /* The bottom half's reference keeps the medium open: only where it is needed. */
    if (blk->dev_ops && blk->dev_ops->resized) {
        aio_bh_oneshot(aio_context_main(), resized_bh, blk_ref(blk));
    }
}

static const BdrvParentOps root_ops = {
    .describe = root_describe,
    .drained_begin = root_drained_begin,
    .drained_end = root_drained_end,
    .drained_busy = root_drained_busy,
    .resized = root_resized,
    .pass_through = root_pass_through,
};

/* ---- Life ---------------------------------------------------------------------------- */

static bool name_is_free(const char *name, GError **errp)
{
    if (!*name) {
        block_error_set(errp, EINVAL, "A block device cannot have an empty name");
        return false;
    }
    if (blk_by_name(name)) {
        block_error_set(errp, EEXIST, "Device with id '%s' already exists", name);
        return false;
    }
    if (bdrv_find_node(name)) {
        block_error_set(errp, EEXIST, "Device name '%s' conflicts with an existing node name",
                        name);
        return false;
    }
    return true;
}

BlockBackend *blk_new(const char *name, uint64_t perm, uint64_t shared, GError **errp)
{
    BlockBackend *blk;

    GLOBAL_STATE_CODE();
    if (name && !name_is_free(name, errp)) {
        return NULL;
    }
    blk = aligned_alloc(_Alignof(BlockBackend), sizeof(*blk));
    if (!blk) {
        fatal("out of memory");
    }
    memset(blk, 0, sizeof(*blk));
    blk->name = g_strdup(name);
    blk->refcount = 1;
    blk->perm = perm;
    blk->shared = shared;
    g_mutex_init(&blk->waiting_lock);
    co_queue_init(&blk->waiting);
    blk->prev = last_blk;
    if (last_blk) {
        last_blk->next = blk;
    } else {
        first_blk = blk;
    }
    last_blk = blk;
    return blk;
}

/* Nothing is polled here: nobody can get hold of @blk again. */
static void blk_destroy(BlockBackend *blk)
{
    if (blk->prev) {
        blk->prev->next = blk->next;
    } else {
        first_blk = blk->next;
    }
    if (blk->next) {
        blk->next->prev = blk->prev;
    } else {
        last_blk = blk->prev;
    }
    g_mutex_clear(&blk->waiting_lock);
    pass_through_destroy(&blk->pass);
    g_free(blk->name);
    free(blk);
}

BlockBackend *blk_ref(BlockBackend *blk)
{
    __atomic_fetch_add(&blk->refcount, 1, __ATOMIC_RELAXED);
    return blk;
}

void blk_unref(BlockBackend *blk)
{
    if (!blk) {
        return;
    }
    GLOBAL_STATE_CODE();
    /* Keep the last reference while waiting: what runs meanwhile may take one. */
    while (!blk->closing && __atomic_load_n(&blk->refcount, __ATOMIC_ACQUIRE) == 1 &&
           (blk_bs(blk) || blk_has_requests(blk))) {
        blk->closing = true;
        blk_remove_bs(blk);
        BDRV_WAIT_WHILE(blk_has_requests(blk));
        blk->closing = false;
    }
    if (__atomic_sub_fetch(&blk->refcount, 1, __ATOMIC_ACQ_REL) == 0) {
        blk_destroy(blk);
    }
}

unsigned blk_get_refcount(const BlockBackend *blk)
{
    return __atomic_load_n(&blk->refcount, __ATOMIC_RELAXED);
}

void blk_assert_none_left(void)
{
    if (first_blk) {
        fatal("blockgraph_cleanup: backend '%s' is still there", blk_name(first_blk));
    }
}

/* ---- Names ------------------------------------------------------------------------------ */

const char *blk_name(const BlockBackend *blk)
{
    return blk->name ? blk->name : "";
}

BlockBackend *blk_by_name(const char *name)
{
    for (BlockBackend *blk = first_blk; blk; blk = blk->next) {
        if (blk->name && strcmp(blk->name, name) == 0) {
            return blk;
        }
    }
    return NULL;
}

BlockBackend *blk_next(BlockBackend *blk)
{
    GLOBAL_STATE_CODE();
    do {
        blk = blk ? blk->next : first_blk;
    } while (blk && !blk->name);
    return blk;
}

/* ---- The medium ---------------------------------------------------------------------------- */

static BdrvChild *blk_root(const BlockBackend *blk)
{
    BdrvChild *root;

    bdrv_graph_rdlock_main_loop();
    root = blk->root;
    bdrv_graph_rdunlock_main_loop();
    return root;
}

/* Put @root in the place of @old, unless something else stands there by now. */
static bool blk_change_root(BlockBackend *blk, BdrvChild *old, BdrvChild *root)
{
    bool ok;

    bdrv_graph_wrlock(); /* polls: a medium may come or go */
    ok = blk->root == old && !(root && blk->revoked);
    if (ok) {
        blk->root = root;
    }
    bdrv_graph_wrunlock();
    return ok;
}

BlockDriverState *blk_bs(const BlockBackend *blk)
{
    BlockDriverState *bs;

    GLOBAL_STATE_CODE();
    bdrv_graph_rdlock_main_loop();
    bs = blk->root ? blk->root->bs : NULL;
    bdrv_graph_rdunlock_main_loop();
    return bs;
}

static void tell_media_change(BlockBackend *blk, bool inserted)
{
    if (blk->dev_ops && blk->dev_ops->change_media) {
        blk->dev_ops->change_media(blk->dev_opaque, inserted);
    }
}

static bool may_insert(BlockBackend *blk, GError **errp)
{
    if (blk->revoked || blk->closing) {
        block_error_set(errp, ENOMEDIUM, blk->revoked ? "The device's access was revoked"
                                                      : "The device is going away");
        return false;
    }
    if (blk_bs(blk)) {
        block_error_set(errp, EBUSY, "Device '%s' has a medium already", blk_name(blk));
        return false;
    }
    return true;
}

bool blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, GError **errp)
{
    BdrvChild *root;

    GLOBAL_STATE_CODE();
    if (!may_insert(blk, errp)) {
        return false;
    }
    root = bdrv_attach_root(bdrv_ref(bs), "root", &root_ops, blk, blk->perm, blk->shared, errp);
    if (!root) {
        return false;
    }
    if (!blk_change_root(blk, NULL, root)) {
        may_insert(blk, errp); /* says no by now: what ran while we waited was first */
        bdrv_detach_child(root);
        return false;
    }
    tell_media_change(blk, true);
    return true;
}

void blk_remove_bs(BlockBackend *blk)
{
    BdrvChild *root;
    BlockDriverState *bs;

    GLOBAL_STATE_CODE();
    root = blk_root(blk);
    if (!root) {
        return;
    }
    bs = bdrv_ref(blk_bs(blk));
    bdrv_drained_begin(bs);
    if (blk_change_root(blk, root, NULL)) { /* nobody took it out while we waited */
        bdrv_detach_child(root);
        tell_media_change(blk, false);
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
}

bool blk_replace_bs(BlockBackend *blk, BlockDriverState *bs, GError **errp)
{
    BdrvTransaction *tran;
    BdrvChild *root = blk_root(blk);

    GLOBAL_STATE_CODE();
    if (!root) {
        return blk_insert_bs(blk, bs, errp);
    }
    tran = bdrv_transaction_new();
    bdrv_transaction_replace_child(tran, root, bs);
    if (!bdrv_transaction_commit(tran, errp)) {
        return false;
    }
    tell_media_change(blk, true);
    return true;
}

void blk_revoke(BlockBackend *blk)
{
    GLOBAL_STATE_CODE();
    if (blk->revoked) {
        return;
    }
    blk->revoked = true;
    g_clear_pointer(&blk->name, g_free);
    blk_remove_bs(blk);
}

bool blk_is_revoked(const BlockBackend *blk)
{
    return blk->revoked;
}

bool blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared, GError **errp)
{
    BdrvChild *root = blk_root(blk);
    uint64_t old_perm = blk->perm, old_shared = blk->shared;
    bool ok = true;

    GLOBAL_STATE_CODE();
    if (root) {
        bdrv_child_set_perm(root, perm, shared);
        bdrv_graph_rdlock_main_loop();
        ok = bdrv_refresh_node_perms(root->bs, errp);
        bdrv_graph_rdunlock_main_loop();
    }
    if (ok) {
        blk->perm = perm;
        blk->shared = shared;
    } else {
        bdrv_child_set_perm(root, old_perm, old_shared);
    }
    return ok;
}

void blk_get_perm(const BlockBackend *blk, uint64_t *perm, uint64_t *shared)
{
    *perm = blk->perm;
    *shared = blk->shared;
}

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque)
{
    GLOBAL_STATE_CODE();
    blk->dev_ops = ops;
    blk->dev_opaque = opaque;
    if (ops && ops->drained_begin && blk->quiesce_counter) {
        ops->drained_begin(opaque); /* the end will be told, too */
    }
}

void blk_drain(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    GLOBAL_STATE_CODE();
    if (bs) {
        bdrv_ref(bs);
        bdrv_drained_begin(bs);
    }
    BDRV_WAIT_WHILE(blk_busy(blk));
    if (bs) {
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    }
}

/* ---- Opening ------------------------------------------------------------------------------ */

BlockBackend *blk_new_open(const char *filename, JsonObject *options, int flags,
                           const BlockOpenPolicy *policy, GError **errp)
{
    uint64_t perm = flags & BDRV_O_NO_IO ? 0 : BLK_PERM_CONSISTENT_READ;
    BlockDriverState *bs = bdrv_open(filename, options, flags, policy, errp);
    BlockBackend *blk;
    bool ok;

    if (!bs) {
        return NULL;
    }
    if (!(bs->auto_read_only && bs->read_only)) {
        perm |= flags & BDRV_O_RDWR ? BLK_PERM_WRITE : 0;
        perm |= flags & BDRV_O_RESIZE ? BLK_PERM_RESIZE : 0;
    }
    blk = blk_new(NULL, perm, BLK_PERM_ALL, errp);
    ok = blk && blk_insert_bs(blk, bs, errp);
    bdrv_unref(bs);
    if (!ok) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}
