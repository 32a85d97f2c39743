/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes: their life, their names, and simple questions about them.
 */
#include <string.h>

#include "block/block-int.h"
#include "util/fatal.h"

/* All nodes in order of creation, and by name. Main thread only. */
static BlockDriverState *first_node;
static BlockDriverState *last_node;
static GHashTable *nodes_by_name;
static unsigned long nodes_made;

static bool node_name_is_valid(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > 31 || !g_ascii_isalpha(name[0])) {
        return false;
    }
    for (size_t i = 1; i < len; i++) {
        if (!g_ascii_isalnum(name[i]) && !strchr("-._", name[i])) {
            return false;
        }
    }
    return true;
}

static char *node_name_for(const char *wanted, GError **errp)
{
    if (!wanted) {
        g_autofree char *name = NULL;

        do { /* a backend may have taken it: its names are free */
            g_free(name);
            name = g_strdup_printf("#block%03lu", nodes_made++);
        } while (blk_by_name(name));
        return g_steal_pointer(&name);
    }
    if (!node_name_is_valid(wanted)) {
        block_error_set(errp, EINVAL,
                        "Invalid node-name: '%s' (a letter, then up to 30 letters, digits, "
                        "'-', '.' or '_')", wanted);
        return NULL;
    }
    if (bdrv_find_node(wanted)) {
        block_error_set(errp, EEXIST, "Duplicate nodes with node-name='%s'", wanted);
        return NULL;
    }
    if (blk_by_name(wanted)) {
        block_error_set(errp, EEXIST, "node-name='%s' is conflicting with a backend name", wanted);
        return NULL;
    }
    return g_strdup(wanted);
}

BlockDriverState *bdrv_node_new(BlockDriver *drv, const char *node_name, GError **errp)
{
    g_autofree char *name = node_name_for(node_name, errp);
    BlockDriverState *bs;

    if (!name) {
        return NULL;
    }
    bs = aligned_alloc(_Alignof(BlockDriverState), sizeof(*bs));
    if (!bs) {
        fatal("out of memory");
    }
    memset(bs, 0, sizeof(*bs));
    bs->drv = drv;
    bs->state = g_malloc0(MAX(drv->instance_size, 1));
    bs->node_name = g_steal_pointer(&name);
    bs->filename = g_strdup("");
    bs->backing_filename = g_strdup("");
    bs->backing_format = g_strdup("");
    bs->refcount = 1;
    bs->map_unit = 1;
    bs->quiesce_counter = bdrv_drain_all_count;
    bs->shared = BLK_PERM_ALL;
    bs->claims = claim_set_new();
    bs->retired = retire_list_new();
    bs->prev_node = last_node;
    if (last_node) {
        last_node->next_node = bs;
    } else {
        first_node = bs;
    }
    last_node = bs;
    if (!nodes_by_name) {
        nodes_by_name = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_hash_table_insert(nodes_by_name, bs->node_name, bs);
    return bs;
}

static void node_unlist(BlockDriverState *bs)
{
    if (bs->prev_node) {
        bs->prev_node->next_node = bs->next_node;
    } else {
        first_node = bs->next_node;
    }
    if (bs->next_node) {
        bs->next_node->prev_node = bs->prev_node;
    } else {
        last_node = bs->prev_node;
    }
    g_hash_table_remove(nodes_by_name, bs->node_name);
    if (!first_node) {
        g_clear_pointer(&nodes_by_name, g_hash_table_unref);
    }
}

static void node_free(BlockDriverState *bs)
{
    bdrv_write_threshold_forget(bs);
    dirty_bitmap_set_free(bs->dirty_bitmaps);
    map_cache_free(bs->map_cache);
    claim_set_free(bs->claims);
    retire_list_free(bs->retired);
    if (bs->options) {
        json_object_unref(bs->options);
    }
    g_free(bs->backing_format);
    g_free(bs->backing_filename);
    g_free(bs->filename);
    g_free(bs->node_name);
    g_free(bs->state);
    free(bs);
}

/* The last reference is gone: write back, close, let go of the children. */
static void node_close(BlockDriverState *bs)
{
    BdrvChild *child;
    bool retired;

    node_unlist(bs); /* what runs while we wait must not find it and take a reference */
    bdrv_drained_begin(bs);
    if (bs->is_open) {
        retired = !retire_list_empty(bs->retired);
        bdrv_flush(bs);
        if (retired) {
            bdrv_flush(bs); /* the first let the driver release what was retired */
        }
        bs->driver_drained = false; /* it ends with the state */
        if (bs->drv->bdrv_close) {
            bs->drv->bdrv_close(bs);
        }
        bs->is_open = false;
    }
    for (;;) {
        bdrv_graph_rdlock_main_loop();
        child = bs->children;
        if (child && child->bs->inherits_from == bs) {
            child->bs->inherits_from = NULL;
        }
        bdrv_graph_rdunlock_main_loop();
        if (!child) {
            break;
        }
        bdrv_detach_child(child);
    }
    bdrv_drained_end(bs);
    node_free(bs);
}

BlockDriverState *bdrv_ref(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    bs->refcount++;
    return bs;
}

void bdrv_unref(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    if (bs && --bs->refcount == 0) {
        bs->refcount = 1; /* what closing calls may take and drop one */
        node_close(bs);
    }
}

BlockDriverState *bdrv_find_node(const char *node_name)
{
    GLOBAL_STATE_CODE();
    return nodes_by_name ? g_hash_table_lookup(nodes_by_name, node_name) : NULL;
}

BlockDriverState *bdrv_next_node(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    return bs ? bs->next_node : first_node;
}

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_get_format_name(const BlockDriverState *bs)
{
    return bs->drv->format_name;
}

const char *bdrv_get_filename(const BlockDriverState *bs)
{
    return bs->filename;
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return bs->read_only;
}

bool bdrv_is_filter(const BlockDriverState *bs)
{
    return bs->drv->is_filter;
}

bool bdrv_is_protocol(const BlockDriverState *bs)
{
    return bdrv_driver_is_protocol(bs->drv);
}

bool bdrv_was_probed(const BlockDriverState *bs)
{
    return bs->probed;
}

bool bdrv_is_encrypted(const BlockDriverState *bs)
{
    return bs->encrypted;
}

void bdrv_set_encrypted(BlockDriverState *bs, bool encrypted)
{
    bs->encrypted = encrypted;
}

int bdrv_get_open_flags(const BlockDriverState *bs)
{
    return bs->open_flags;
}

unsigned bdrv_get_refcount(const BlockDriverState *bs)
{
    return bs->refcount;
}

BdrvDetectZeroes bdrv_get_detect_zeroes(const BlockDriverState *bs)
{
    return bs->detect_zeroes;
}

const char *bdrv_get_backing_filename(const BlockDriverState *bs)
{
    return bs->backing_filename;
}

const char *bdrv_get_backing_format(const BlockDriverState *bs)
{
    return bs->backing_format;
}

void bdrv_set_backing_reference(BlockDriverState *bs, const char *filename, const char *format)
{
    g_free(bs->backing_filename);
    g_free(bs->backing_format);
    bs->backing_filename = g_strdup(filename ? filename : "");
    bs->backing_format = g_strdup(format ? format : "");
}

void *bdrv_state(const BlockDriverState *bs)
{
    return bs->state;
}

bool bdrv_is_writable(const BlockDriverState *bs)
{
    return !bs->read_only;
}

void bdrv_set_map_unit(BlockDriverState *bs, int64_t bytes)
{
    g_assert(bytes > 0 && (bytes & (bytes - 1)) == 0);
    bs->map_unit = bytes;
}

bool bdrv_apply_auto_read_only(BlockDriverState *bs, const char *reason, GError **errp)
{
    if (bs->read_only) {
        return true;
    }
    if (!bs->auto_read_only || (bs->open_flags & BDRV_O_COPY_ON_READ)) {
        block_error_set(errp, EACCES, "%s", reason);
        return false;
    }
    bs->read_only = true;
    bs->open_flags &= ~(BDRV_O_RDWR | BDRV_O_RESIZE);
    return true;
}
