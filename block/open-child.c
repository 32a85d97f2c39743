/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening the children of a node: those that the user's options name, and
 * those that the image names, which the open policy has to allow.
 */
#include <string.h>

#include "block/block-int.h"
#include "block/open-int.h"

/* ---- Flags ------------------------------------------------------------------- */

#define INHERITED                                                                                  \
    (BDRV_O_RDWR | BDRV_O_NO_IO | BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_FORCE_SHARE |          \
     BDRV_O_AUTO_RDONLY)

int open_file_flags(int flags)
{
    /* Formats know what may be discarded: what comes from them is passed on. */
    return (flags & INHERITED) | BDRV_O_PROTOCOL | BDRV_O_UNMAP;
}

int open_child_flags(BlockDriverState *bs, int flags, int role)
{
    if (role & BDRV_CHILD_COW) {
        return flags & INHERITED & ~BDRV_O_RDWR;
    }
    if (role & BDRV_CHILD_FILTERED && bs->drv->is_filter) {
        /* Not probed, unless a driver is named; and one node of the two copies. */
        return (flags & ~BDRV_O_COPY_ON_READ) | BDRV_O_PROTOCOL;
    }
    if (role & BDRV_CHILD_DATA && bs->drv->is_filter) {
        return open_file_flags(flags) & ~BDRV_O_PROTOCOL; /* another image, not its storage */
    }
    return open_file_flags(flags);
}

/* ---- Nodes ------------------------------------------------------------------- */

static BlockDriverState *node_by_reference(const char *name, GError **errp)
{
    BlockDriverState *bs = bdrv_find_node(name);

    if (!bs) {
        block_error_set(errp, ENOENT, "Cannot find device='%s' nor node-name='%s'", name,
                        name);
        return NULL;
    }
    return bdrv_ref(bs);
}

BlockDriverState *open_child_node(const ChildSource *source, JsonObject *options, GError **errp)
{
    g_autoptr(JsonObject) child_options = NULL;
    JsonNode *member = json_object_get_member(options, source->name);

    if (member && JSON_NODE_HOLDS_VALUE(member)) {
        g_autofree char *reference = NULL;

        if (!block_options_take_string(options, source->name, &reference, errp)) {
            return NULL;
        }
        return node_by_reference(reference, errp);
    }
    if (!block_options_take_object(options, source->name, &child_options, errp)) {
        return NULL;
    }
    if (!child_options && !source->filename) {
        block_error_set(errp, EINVAL, "A block device must be specified for \"%s\"", source->name);
        return NULL;
    }
    if (source->format && *source->format) {
        if (!child_options) {
            child_options = json_object_new();
        }
        if (!json_object_has_member(child_options, "driver")) {
            json_object_set_string_member(child_options, "driver", source->format);
        }
    }
    return bdrv_open_inherit(source->filename, child_options, source->flags, source->policy,
                             source->opened_for, errp);
}

BdrvChild *bdrv_open_child(const char *filename, JsonObject *options, const char *name,
                           BlockDriverState *bs, int role, bool allow_none, GError **errp)
{
    ChildSource source = {
        .name = name,
        .filename = filename,
        .flags = open_child_flags(bs, bs->open_flags, role),
        .policy = bs->policy,
        .opened_for = bs,
    };
    BlockDriverState *child_bs;

    GLOBAL_STATE_CODE();
    if (allow_none && !filename && !json_object_has_member(options, name)) {
        return NULL;
    }
    child_bs = open_child_node(&source, options, errp);
    return child_bs ? bdrv_attach_child(bs, child_bs, name, role, errp) : NULL;
}

bool bdrv_open_file_child(BlockDriverState *bs, JsonObject *options, GError **errp)
{
    int role = bs->drv->is_filter ? BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY : BDRV_CHILD_IMAGE;

    return bdrv_open_child(NULL, options, "file", bs, role, false, errp) != NULL;
}

static bool policy_allows(BlockDriverState *bs, BlockReferenceKind kind, const char *name,
                          GError **errp)
{
    if (bs->policy) {
        return bs->policy->allow(bs->policy->opaque, bs->filename, kind, name, errp);
    }
    block_error_set(errp, EACCES,
                    "'%s' names '%s' as its %s, which the open policy does not allow to open",
                    bs->filename, name,
                    kind == BLOCK_REFERENCE_BACKING ? "backing file" : "data file");
    return false;
}

/* The nearest filename below @bs that is a path; what relative names start from. */
static const char *base_filename(BlockDriverState *bs)
{
    const char *name = bs->filename;

    bdrv_graph_rdlock_main_loop();
    while (bs && (name[0] == '\0' || g_str_has_prefix(name, "json:") || bs->drv->is_filter)) {
        BdrvChild *child = bdrv_primary_child(bs);

        bs = child ? child->bs : NULL;
        name = bs ? bs->filename : name;
    }
    bdrv_graph_rdunlock_main_loop();
    return name;
}

BdrvChild *bdrv_open_reference(BlockDriverState *bs, const char *name, BlockReferenceKind kind,
                               const char *filename, const char *format, JsonObject *options,
                               int role, GError **errp)
{
    /* As QEMU has it: a backing file's name starts from the image's folder, a
     * data file's from the current one. */
    g_autofree char *full = kind == BLOCK_REFERENCE_BACKING
                                ? bdrv_combine_filename(base_filename(bs), filename, errp)
                                : g_strdup(filename);
    ChildSource source = {
        .name = name,
        .filename = full,
        .format = format,
        .flags = open_child_flags(bs, bs->open_flags, role),
        .policy = bs->policy,
        .opened_for = bs,
    };
    BlockDriverState *child_bs;

    GLOBAL_STATE_CODE();
    if (!full || !policy_allows(bs, kind, full, errp)) {
        return NULL;
    }
    child_bs = open_child_node(&source, options, errp);
    return child_bs ? bdrv_attach_child(bs, child_bs, name, role, errp) : NULL;
}

/* ---- The backing file ---------------------------------------------------------- */

bool bdrv_get_full_backing_filename(BlockDriverState *bs, char **name, GError **errp)
{
    GLOBAL_STATE_CODE();
    *name = NULL;
    if (!*bs->backing_filename) {
        return true;
    }
    *name = bdrv_combine_filename(base_filename(bs), bs->backing_filename, errp);
    return *name != NULL;
}

/* Whether options.backing says where the backing file is. */
static bool backing_option_is_complete(JsonNode *member)
{
    JsonObject *object;

    if (!JSON_NODE_HOLDS_OBJECT(member)) {
        return true;
    }
    object = json_node_get_object(member);
    return json_object_has_member(object, "file") || json_object_has_member(object, "filename");
}

/* "backing": null, or "", means none. */
static bool backing_option_is_none(JsonNode *member)
{
    return JSON_NODE_HOLDS_NULL(member) ||
           (JSON_NODE_HOLDS_VALUE(member) && json_node_get_value_type(member) == G_TYPE_STRING &&
            !*json_node_get_string(member));
}

bool open_backing(BlockDriverState *bs, JsonObject *options, GError **errp)
{
    JsonNode *member = json_object_get_member(options, "backing");
    BdrvChild *child;

    if (!bs->drv->supports_backing) {
        return true;
    }
    if ((bs->open_flags & BDRV_O_NO_BACKING) || (member && backing_option_is_none(member))) {
        if (member) {
            json_object_remove_member(options, "backing");
        }
        return true;
    }
    if (member && (backing_option_is_complete(member) || !*bs->backing_filename)) {
        child = bdrv_open_child(NULL, options, "backing", bs, BDRV_CHILD_COW, false, errp);
    } else if (*bs->backing_filename) {
        child = bdrv_open_reference(bs, "backing", BLOCK_REFERENCE_BACKING, bs->backing_filename,
                                    bs->backing_format, options, BDRV_CHILD_COW, errp);
    } else {
        return true;
    }
    if (!child) {
        g_prefix_error(errp, "Could not open backing file: ");
        return false;
    }
    return true;
}

/* ---- Loops ------------------------------------------------------------------------ */

bool open_same_file(BlockDriverState *a, BlockDriverState *b)
{
    uint64_t a_dev, a_ino, b_dev, b_ino;

    return a != b && a->drv->bdrv_get_identity && b->drv->bdrv_get_identity &&
           a->drv->bdrv_get_identity(a, &a_dev, &a_ino) &&
           b->drv->bdrv_get_identity(b, &b_dev, &b_ino) && a_dev == b_dev && a_ino == b_ino;
}

/* Whether @file is the file below one of @bs's edges. */
static bool uses_file(BlockDriverState *bs, BlockDriverState *file)
{
    bool found = false;

    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bs->children; child && !found; child = child->next_child) {
        BlockDriverState *below = child->bs;

        while (below && !bdrv_is_protocol(below)) {
            BdrvChild *primary = bdrv_primary_child(below);

            below = primary ? primary->bs : NULL;
        }
        found = below && open_same_file(below, file);
    }
    bdrv_graph_rdunlock_main_loop();
    return found;
}

bool open_check_loop(BlockDriverState *bs, GError **errp)
{
    for (BlockDriverState *above = bs->opened_for; above; above = above->opened_for) {
        if (uses_file(above, bs)) {
            block_error_set(errp, ELOOP,
                            "Could not open '%s': the chain of images leads back to it (through "
                            "'%s')", bs->filename, base_filename(above));
            return false;
        }
    }
    return true;
}
