/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening nodes: all of a queue, or none.
 *
 * Invariants:
 *  1. From before the first driver is asked until all have committed or aborted, every
 *     node of the queue is drained, and in no other queue that is being carried out.
 *  2. A node comes before its children: what they inherit is known, and what a
 *     parent writes in its prepare goes to children that still are as they were.
 *  3. A flag is only changed under the graph lock held exclusively, and only together
 *     with the permissions that follow from it.
 */
#include "block/block-int.h"
#include "block/open-int.h"
#include "blockgraph/reopen.h"

typedef struct Entry {
    BdrvReopenState state;
    JsonObject *options; /* as they were given */
    JsonObject *rest;    /* of them: the driver's */
    BdrvDetectZeroes detect_zeroes;
    bool drained;
    bool claimed; /* bs->reopening is ours */
    bool prepared;
} Entry;

struct BdrvReopenQueue {
    GPtrArray *entries; /* Entry */
};

static void entry_free(void *opaque)
{
    Entry *e = opaque;

    g_clear_pointer(&e->rest, json_object_unref);
    json_object_unref(e->options);
    g_free(e);
}

BdrvReopenQueue *bdrv_reopen_queue_new(void)
{
    BdrvReopenQueue *queue = g_new0(BdrvReopenQueue, 1);

    GLOBAL_STATE_CODE();
    queue->entries = g_ptr_array_new_with_free_func(entry_free);
    return queue;
}

static Entry *entry_at(BdrvReopenQueue *queue, guint i)
{
    return queue->entries->pdata[i];
}

static Entry *find_entry(BdrvReopenQueue *queue, const BlockDriverState *bs)
{
    for (guint i = 0; i < queue->entries->len; i++) {
        if (entry_at(queue, i)->state.bs == bs) {
            return entry_at(queue, i);
        }
    }
    return NULL;
}

/* The entry of @bs, made if there is none, with @options (may be NULL) on top. */
static Entry *note(BdrvReopenQueue *queue, BlockDriverState *bs, JsonObject *options)
{
    Entry *e = find_entry(queue, bs);
    JsonObject *all = block_options_copy(options);

    if (!e) {
        e = g_new0(Entry, 1);
        e->state.bs = bdrv_ref(bs);
        e->options = json_object_new();
        g_ptr_array_add(queue->entries, e);
    }
    block_options_merge(all, e->options);
    json_object_unref(e->options);
    e->options = all;
    return e;
}

void bdrv_reopen_queue_add(BdrvReopenQueue *queue, BlockDriverState *bs, JsonObject *options)
{
    GLOBAL_STATE_CODE();
    note(queue, bs, options);
}

/* ---- Which nodes, in which order -------------------------------------------------------- */

/* Move the options for child @child of @e to an entry of its own. */
static void note_child(BdrvReopenQueue *queue, Entry *e, BdrvChild *child) GRAPH_RDLOCK
{
    JsonNode *member = json_object_get_member(e->options, child->name);

    if (child->bs->inherits_from != e->state.bs) {
        return;
    }
    if (member && JSON_NODE_HOLDS_OBJECT(member)) {
        note(queue, child->bs, json_node_get_object(member));
        json_object_remove_member(e->options, child->name);
    } else {
        note(queue, child->bs, NULL);
    }
}

/* Add all that is opened together with what is in the queue. */
static void note_children(BdrvReopenQueue *queue)
{
    bdrv_graph_rdlock_main_loop();
    for (guint i = 0; i < queue->entries->len; i++) {
        Entry *e = entry_at(queue, i);

        for (BdrvChild *child = e->state.bs->children; child; child = child->next_child) {
            note_child(queue, e, child);
        }
    }
    bdrv_graph_rdunlock_main_loop();
}

/* Drain those that are not; false if there were none. */
static bool drain_new(BdrvReopenQueue *queue)
{
    bool any = false;

    for (guint i = 0; i < queue->entries->len; i++) {
        Entry *e = entry_at(queue, i);

        if (!e->drained) {
            e->drained = true;
            any = true;
            bdrv_drained_begin(e->state.bs);
        }
    }
    return any;
}

/* Put what is below @bs and in the queue at the end of @order, then @bs. */
static void order_visit(BdrvReopenQueue *queue, BlockDriverState *bs, GHashTable *seen,
                        GPtrArray *order) GRAPH_RDLOCK
{
    Entry *e = find_entry(queue, bs);

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        order_visit(queue, child->bs, seen, order);
    }
    if (e) {
        g_ptr_array_add(order, e);
    }
}

static void sort_parents_first(BdrvReopenQueue *queue)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    guint len = queue->entries->len;

    bdrv_graph_rdlock_main_loop();
    for (guint i = 0; i < len; i++) {
        order_visit(queue, entry_at(queue, i)->state.bs, seen, order);
    }
    bdrv_graph_rdunlock_main_loop();
    for (guint i = 0; i < len; i++) {
        queue->entries->pdata[i] = order->pdata[len - 1 - i];
    }
}

/* ---- What they become ------------------------------------------------------------------- */

/* The flags that options of the node's own decide about, not those of its parent. */
static int own_flags(JsonObject *options)
{
    static const struct {
        const char *key;
        int flags;
    } keys[] = {
        {"read-only", BDRV_O_RDWR | BDRV_O_RESIZE}, {"auto-read-only", BDRV_O_AUTO_RDONLY},
        {"discard", BDRV_O_UNMAP}, {"force-share", BDRV_O_FORCE_SHARE},
    };
    JsonNode *cache = json_object_get_member(options, "cache");
    int flags = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        flags |= json_object_has_member(options, keys[i].key) ? keys[i].flags : 0;
    }
    if (cache && JSON_NODE_HOLDS_OBJECT(cache)) {
        JsonObject *modes = json_node_get_object(cache);

        flags |= json_object_has_member(modes, "direct") ? BDRV_O_NOCACHE : 0;
        flags |= json_object_has_member(modes, "no-flush") ? BDRV_O_NO_FLUSH : 0;
    }
    return flags;
}

/* Change what the parent's flags say that changes. */
static void inherit_flags(BdrvReopenQueue *queue, Entry *e)
{
    BlockDriverState *bs = e->state.bs;
    Entry *parent = find_entry(queue, bs->inherits_from);

    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bs->parents; parent && child; child = child->next_parent) {
        if (child->ops->is_node && child->parent == parent->state.bs) {
            int was = open_child_flags(child->parent, parent->state.old_flags, child->role);
            int is = open_child_flags(child->parent, parent->state.flags, child->role);
            int changed = (was ^ is) & ~own_flags(bs->options);

            e->state.flags = (e->state.flags & ~changed) | (is & changed);
        }
    }
    bdrv_graph_rdunlock_main_loop();
}

static bool work_out(BdrvReopenQueue *queue, Entry *e, GError **errp)
{
    BlockDriverState *bs = e->state.bs;

    e->state.old_flags = e->state.flags = bs->open_flags;
    e->detect_zeroes = bs->detect_zeroes;
    inherit_flags(queue, e);
    e->rest = block_options_copy(e->options);
    if (!open_take_common(e->rest, &e->state.flags, &e->detect_zeroes, errp)) {
        g_prefix_error(errp, "Could not reopen node '%s': ", bs->node_name);
        return false;
    }
    return true;
}

static bool claim_nodes(BdrvReopenQueue *queue, GError **errp)
{
    for (guint i = 0; i < queue->entries->len; i++) {
        BlockDriverState *bs = entry_at(queue, i)->state.bs;

        if (bs->reopening) {
            block_error_set(errp, EBUSY, "Node '%s' is being reopened already", bs->node_name);
            return false;
        }
        entry_at(queue, i)->claimed = bs->reopening = true;
    }
    return true;
}

/* ---- Preparing -------------------------------------------------------------------------- */

bool bdrv_reopen_agree(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    return true;
}

/* Whether @value is what option @name says already. */
static bool option_is_same(BlockDriverState *bs, const char *name, JsonNode *value)
{
    JsonNode *old = json_object_get_member(bs->options, name);
    const char *text = NULL;
    BdrvChild *child;
    bool same;

    if (JSON_NODE_HOLDS_VALUE(value) && json_node_get_value_type(value) == G_TYPE_STRING) {
        text = json_node_get_string(value);
    }
    if (old && json_node_equal(old, value)) {
        return true;
    }
    if (g_str_equal(name, "driver")) {
        return g_strcmp0(text, bs->drv->format_name) == 0;
    }
    if (g_str_equal(name, "node-name")) {
        return g_strcmp0(text, bs->node_name) == 0;
    }
    if (g_str_equal(name, "filename")) {
        return g_strcmp0(text, bs->filename) == 0;
    }
    bdrv_graph_rdlock_main_loop();
    child = bdrv_get_child(bs, name);
    same = child && g_strcmp0(text, child->bs->node_name) == 0;
    bdrv_graph_rdunlock_main_loop();
    return same;
}

static bool rest_is_same(const Entry *e, GError **errp)
{
    g_autoptr(GList) left = json_object_get_members(e->rest);

    for (GList *l = left; l; l = l->next) {
        if (!option_is_same(e->state.bs, l->data, json_object_get_member(e->rest, l->data))) {
            block_error_set(errp, EINVAL, "Cannot change the option '%s' of node '%s'",
                            (const char *)l->data, e->state.bs->node_name);
            return false;
        }
    }
    return true;
}

static bool flush_node(BlockDriverState *bs, GError **errp)
{
    int ret = bs->read_only ? 0 : bdrv_flush(bs);

    if (ret < 0) {
        block_error_set_errno(errp, ret, "Error flushing node '%s' (file '%s')", bs->node_name,
                              bs->filename);
    }
    return ret >= 0;
}

static bool prepare(Entry *e, GError **errp)
{
    BlockDriverState *bs = e->state.bs;
    bool becomes_writable = (e->state.flags & BDRV_O_RDWR) && bs->read_only;

    if ((e->state.flags & (BDRV_O_COPY_ON_READ | BDRV_O_RDWR)) == BDRV_O_COPY_ON_READ) {
        block_error_set(errp, EINVAL, "Can't set node '%s' to r/o with copy-on-read enabled",
                        bs->node_name);
        return false;
    }
    if (!retire_list_empty(bs->retired) && !flush_node(bs, errp)) {
        return false; /* lets the driver release what was retired */
    }
    if (bs->drv->bdrv_reopen_prepare) {
        e->prepared = bs->drv->bdrv_reopen_prepare(&e->state, e->rest, errp);
        return e->prepared && rest_is_same(e, errp);
    }
    if (becomes_writable) {
        block_error_set(errp, ENOTSUP, "Driver '%s' of node '%s' does not support reopening "
                        "read-write", bs->drv->format_name, bs->node_name);
        return false;
    }
    return rest_is_same(e, errp);
}

static bool prepare_all(BdrvReopenQueue *queue, GError **errp)
{
    for (guint i = 0; i < queue->entries->len; i++) {
        if (!work_out(queue, entry_at(queue, i), errp)) {
            return false;
        }
    }
    for (guint i = 0; i < queue->entries->len; i++) {
        if (!prepare(entry_at(queue, i), errp)) {
            return false;
        }
    }
    for (guint i = 0; i < queue->entries->len; i++) {
        if (!flush_node(entry_at(queue, i)->state.bs, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- Committing ------------------------------------------------------------------------- */

static void set_flags(BlockDriverState *bs, int flags) GRAPH_WRLOCK
{
    bdrv_graph_assert_writable();
    bs->open_flags = flags;
    bs->read_only = !(flags & BDRV_O_RDWR);
    bs->auto_read_only = flags & BDRV_O_AUTO_RDONLY;
    bs->force_share = flags & BDRV_O_FORCE_SHARE;
}

/* The flags, and the permissions that they imply; or all as it was. */
static bool change_flags(BdrvReopenQueue *queue, GError **errp) GRAPH_WRLOCK
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    bool ok;

    for (guint i = 0; i < queue->entries->len; i++) {
        Entry *e = entry_at(queue, i);

        set_flags(e->state.bs, e->state.flags);
        g_ptr_array_add(nodes, e->state.bs);
    }
    ok = bdrv_refresh_perms(nodes, errp);
    for (guint i = 0; !ok && i < queue->entries->len; i++) {
        set_flags(entry_at(queue, i)->state.bs, entry_at(queue, i)->state.old_flags);
    }
    return ok;
}

static void commit(Entry *e) GRAPH_WRLOCK
{
    BlockDriverState *bs = e->state.bs;
    JsonObject *options = block_options_copy(e->options);

    if (e->prepared && bs->drv->bdrv_reopen_commit) {
        bs->drv->bdrv_reopen_commit(&e->state);
    }
    bs->detect_zeroes = e->detect_zeroes;
    bdrv_refresh_limits(bs);
    bdrv_forget_mappings_above(bs);
    block_options_merge(options, bs->options);
    json_object_unref(bs->options);
    bs->options = options;
}

static void abort_prepared(BdrvReopenQueue *queue)
{
    for (guint i = queue->entries->len; i-- > 0;) {
        Entry *e = entry_at(queue, i);

        if (e->prepared && e->state.bs->drv->bdrv_reopen_abort) {
            e->state.bs->drv->bdrv_reopen_abort(&e->state);
        }
    }
}

static bool commit_all(BdrvReopenQueue *queue, GError **errp)
{
    bool ok;

    bdrv_graph_wrlock();
    ok = change_flags(queue, errp);
    for (guint i = ok ? queue->entries->len : 0; i-- > 0;) {
        commit(entry_at(queue, i));
    }
    bdrv_graph_wrunlock();
    return ok;
}

static void queue_free(BdrvReopenQueue *queue)
{
    for (guint i = queue->entries->len; i-- > 0;) {
        Entry *e = entry_at(queue, i);

        if (e->claimed) {
            e->state.bs->reopening = false;
        }
        if (e->drained) {
            bdrv_drained_end(e->state.bs);
        }
    }
    for (guint i = 0; i < queue->entries->len; i++) {
        bdrv_unref(entry_at(queue, i)->state.bs);
    }
    g_ptr_array_unref(queue->entries);
    g_free(queue);
}

bool bdrv_reopen_queue_commit(BdrvReopenQueue *queue, GError **errp)
{
    bool ok;

    GLOBAL_STATE_CODE();
    do { /* draining polls, and what runs then may change the graph */
        note_children(queue);
    } while (drain_new(queue));
    sort_parents_first(queue);
    ok = claim_nodes(queue, errp);
    if (ok && !(prepare_all(queue, errp) && commit_all(queue, errp))) {
        abort_prepared(queue);
        ok = false;
    }
    queue_free(queue);
    return ok;
}

void bdrv_reopen_queue_abort(BdrvReopenQueue *queue)
{
    GLOBAL_STATE_CODE();
    queue_free(queue);
}

bool bdrv_reopen(BlockDriverState *bs, JsonObject *options, GError **errp)
{
    BdrvReopenQueue *queue = bdrv_reopen_queue_new();

    bdrv_reopen_queue_add(queue, bs, options);
    return bdrv_reopen_queue_commit(queue, errp);
}

bool bdrv_reopen_set_read_only(BlockDriverState *bs, bool read_only, GError **errp)
{
    g_autoptr(JsonObject) options = json_object_new();

    json_object_set_boolean_member(options, "read-only", read_only);
    return bdrv_reopen(bs, options, errp);
}
