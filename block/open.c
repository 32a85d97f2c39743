/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opening an image: which driver, with which flags and options, on which
 * children.
 *
 * A filename belongs to a protocol. A format on top gets it through its child
 * "file"; without "driver" the format is probed from that child's first bytes.
 */
#include <string.h>

#include "block/block-int.h"
#include "block/open-int.h"
#include "util/trace.h"

static bool allow_all(void *opaque, const char *image, BlockReferenceKind kind, const char *name,
                      GError **errp)
{
    return true;
}

const BlockOpenPolicy block_open_policy_follow = {.allow = allow_all};

/* ---- Options that every node has ------------------------------------------------ */

static bool take_flag(JsonObject *options, const char *key, int flag, int *flags, GError **errp)
{
    bool value = *flags & flag;

    if (!block_options_take_bool(options, key, &value, errp)) {
        return false;
    }
    *flags = value ? *flags | flag : *flags & ~flag;
    return true;
}

static bool take_cache(JsonObject *options, int *flags, GError **errp)
{
    g_autoptr(JsonObject) cache = NULL;

    if (!block_options_take_object(options, "cache", &cache, errp)) {
        return false;
    }
    return !cache || (take_flag(cache, "direct", BDRV_O_NOCACHE, flags, errp) &&
                      take_flag(cache, "no-flush", BDRV_O_NO_FLUSH, flags, errp) &&
                      open_refuse_unknown(cache, "option group", "cache", errp));
}

bool open_take_common(JsonObject *options, int *flags, BdrvDetectZeroes *zeroes, GError **errp)
{
    static const char *const discard_words[] = {"ignore", "off", "unmap", "on", NULL};
    static const char *const zeroes_words[] = {"off", "on", "unmap", NULL};
    bool read_only = !(*flags & BDRV_O_RDWR);
    int discard = -1, zeroes_word = *zeroes;

    if (!block_options_take_bool(options, "read-only", &read_only, errp) ||
        !take_flag(options, "auto-read-only", BDRV_O_AUTO_RDONLY, flags, errp) ||
        !block_options_take_enum(options, "discard", discard_words, &discard, errp) ||
        !block_options_take_enum(options, "detect-zeroes", zeroes_words, &zeroes_word, errp) ||
        !take_flag(options, "force-share", BDRV_O_FORCE_SHARE, flags, errp) ||
        !take_cache(options, flags, errp)) {
        return false;
    }
    if (read_only) {
        *flags &= ~(BDRV_O_RDWR | BDRV_O_RESIZE);
    } else {
        *flags |= BDRV_O_RDWR;
    }
    if (discard >= 0) {
        *flags = discard >= 2 ? *flags | BDRV_O_UNMAP : *flags & ~BDRV_O_UNMAP;
    }
    *zeroes = zeroes_word;
    if (*zeroes == BDRV_DETECT_ZEROES_UNMAP && !(*flags & BDRV_O_UNMAP)) {
        block_error_set(errp, EINVAL, "setting detect-zeroes to unmap is not allowed without "
                        "setting discard operation to unmap");
        return false;
    }
    if ((*flags & BDRV_O_FORCE_SHARE) && (*flags & BDRV_O_RDWR)) {
        block_error_set(errp, EINVAL, "force-share=on can only be used with read-only images");
        return false;
    }
    return true;
}

static bool take_generic_options(OpenRequest *req, GError **errp)
{
    return block_options_take_string(req->options, "driver", &req->driver_name, errp) &&
           block_options_take_string(req->options, "node-name", &req->node_name, errp) &&
           open_take_common(req->options, &req->flags, &req->detect_zeroes, errp);
}

bool open_refuse_unknown(JsonObject *options, const char *kind, const char *name, GError **errp)
{
    g_autoptr(GList) left = json_object_get_members(options);

    if (!left) {
        return true;
    }
    /* Both wordings are what scripts know. */
    block_error_set(errp, EINVAL, "Block %s '%s' %s support the option '%s'", kind, name,
                    strcmp(kind, "protocol") == 0 ? "doesn't" : "does not",
                    (const char *)left->data);
    return false;
}

/* ---- Which driver ----------------------------------------------------------------- */

static bool find_named_driver(OpenRequest *req, GError **errp)
{
    req->drv = bdrv_find_format(req->driver_name);
    if (!req->drv) {
        block_error_set(errp, ENOENT, "Unknown driver '%s'", req->driver_name);
        return false;
    }
    /* What a filter that filenames can name lies on is a protocol, too, unless it is named. */
    if (bdrv_driver_is_protocol(req->drv) || req->drv->protocol_name) {
        req->flags |= BDRV_O_PROTOCOL;
    } else {
        req->flags &= ~BDRV_O_PROTOCOL;
    }
    return true;
}

/* Hand the filename to the protocol driver as options. */
static bool filename_to_options(OpenRequest *req, GError **errp)
{
    g_autoptr(JsonObject) parsed = NULL;

    if (!req->filename) {
        return true;
    }
    if (json_object_has_member(req->options, "filename")) {
        block_error_set(errp, EINVAL,
                        "Can't specify 'file' and 'filename' options at the same time");
        return false;
    }
    if (req->drv->bdrv_parse_filename) {
        parsed = req->drv->bdrv_parse_filename(req->filename, errp);
        if (!parsed) {
            return false;
        }
    } else {
        parsed = json_object_new();
        json_object_set_string_member(parsed, "filename", req->filename);
    }
    block_options_merge(req->options, parsed);
    return true;
}

/* The node that a format lies on, opened from options.file or the filename. */
static BlockDriverState *open_file_node(OpenRequest *req, GError **errp)
{
    bool filter = req->drv && req->drv->is_filter;
    ChildSource source = {
        .name = "file",
        .filename = req->filename,
        .flags = filter ? req->flags | BDRV_O_PROTOCOL : open_file_flags(req->flags),
        .policy = req->policy,
        .opened_for = req->parent,
    };

    return open_child_node(&source, req->options, errp);
}

static bool probe_format(OpenRequest *req, GError **errp)
{
    uint8_t buf[2048];
    int64_t size = bdrv_getlength(req->file_node);
    int ret;

    size = MIN(MAX(size, 0), (int64_t)sizeof(buf));
    ret = size ? bdrv_node_pread(req->file_node, 0, size, buf) : 0;
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not read image for determining its format");
        return false;
    }
    req->drv = bdrv_probe_buffer(buf, size, bdrv_get_filename(req->file_node));
    if (!req->drv) {
        block_error_set(errp, ENOENT, "Could not determine image format: no driver matches");
        return false;
    }
    req->probed = true;
    return true;
}

/* Whether the options name the file, too: they would be followed, not the filename. */
static bool names_file_twice(const OpenRequest *req)
{
    JsonNode *file = req->filename ? json_object_get_member(req->options, "file") : NULL;

    return file && JSON_NODE_HOLDS_OBJECT(file) &&
           json_object_has_member(json_node_get_object(file), "filename");
}

/* Open the child "file" beforehand, where the driver is a format. */
static bool prepare_file(OpenRequest *req, GError **errp)
{
    const char *child;

    if (req->drv && bdrv_driver_is_protocol(req->drv)) {
        return filename_to_options(req, errp);
    }
    if (names_file_twice(req)) {
        block_error_set(errp, EINVAL,
                        "Can't specify 'file' and 'filename' options at the same time");
        return false;
    }
    if (req->drv && !(req->filename && !json_object_has_member(req->options, "file"))) {
        return true; /* the driver opens its children from the options */
    }
    if (!req->drv && !req->filename && !json_object_has_member(req->options, "file")) {
        block_error_set(errp, EINVAL, "Must specify either driver or file");
        return false;
    }
    req->file_node = open_file_node(req, errp);
    if (!req->file_node) {
        return false;
    }
    if (!req->drv && !probe_format(req, errp)) {
        return false;
    }
    /* A filter that filenames can name has an "image". */
    child = req->drv->is_filter && req->drv->protocol_name ? "image" : "file";
    json_object_set_string_member(req->options, child, bdrv_get_node_name(req->file_node));
    return true;
}

/* The driver for the filename, or for the path that the options have. */
static bool find_protocol(OpenRequest *req, GError **errp)
{
    JsonNode *path = json_object_get_member(req->options, "filename");

    if (!req->filename && !path) {
        block_error_set(errp, EINVAL, "Must specify either driver or file");
        return false;
    }
    if (req->filename) {
        req->drv = bdrv_find_protocol(req->filename, errp);
    } else {
        bool is_text = JSON_NODE_HOLDS_VALUE(path) &&
                       json_node_get_value_type(path) == G_TYPE_STRING;

        req->drv = bdrv_find_path_protocol(is_text ? json_node_get_string(path) : "", errp);
    }
    return req->drv && filename_to_options(req, errp);
}

static bool choose_driver(OpenRequest *req, GError **errp)
{
    if (req->driver_name) {
        if (!find_named_driver(req, errp)) {
            return false;
        }
    } else if (req->flags & BDRV_O_PROTOCOL) {
        return find_protocol(req, errp);
    }
    return prepare_file(req, errp);
}

/* ---- The node ---------------------------------------------------------------------- */

/* What the node is called while it opens: the path, if there is one. */
static char *filename_for_open(OpenRequest *req, char *old)
{
    JsonNode *node = json_object_get_member(req->options, "filename");

    if (bdrv_driver_is_protocol(req->drv) && node && JSON_NODE_HOLDS_VALUE(node) &&
        json_node_get_value_type(node) == G_TYPE_STRING) {
        g_free(old);
        return json_node_dup_string(node);
    }
    if (req->filename) {
        g_free(old);
        return g_strdup(req->filename);
    }
    return old;
}

static void node_set_from_request(BlockDriverState *bs, OpenRequest *req)
{
    bs->open_flags = req->flags;
    bs->read_only = !(req->flags & BDRV_O_RDWR);
    bs->auto_read_only = req->flags & BDRV_O_AUTO_RDONLY;
    bs->force_share = req->flags & BDRV_O_FORCE_SHARE;
    bs->probed = req->probed;
    bs->detect_zeroes = req->detect_zeroes;
    bs->policy = req->policy;
    bs->opened_for = req->parent;
    bs->inherits_from = req->parent;
    bs->options = block_options_copy(req->given);
    bs->filename = filename_for_open(req, bs->filename);
}

static bool node_open_driver(BlockDriverState *bs, OpenRequest *req, GError **errp)
{
    bool is_protocol = bdrv_driver_is_protocol(req->drv) || req->drv->protocol_name;
    const char *kind = is_protocol ? "protocol" : "format";

    if (!bs->drv->bdrv_open(bs, req->options, req->flags, errp)) {
        return false;
    }
    bs->is_open = true;
    bdrv_tell_driver_of_drain(bs);
    if (!bs->read_only && bdrv_driver_is_protocol(bs->drv) && !bs->drv->bdrv_co_pwritev &&
        !bdrv_apply_auto_read_only(bs, "The driver can only read", errp)) {
        return false;
    }
    if (!open_check_loop(bs, errp) || !open_backing(bs, req->options, errp) ||
        !open_refuse_unknown(req->options, kind, bs->drv->format_name, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    bdrv_refresh_limits(bs);
    bdrv_graph_rdunlock_main_loop();
    open_make_map_cache(bs);
    open_refresh_filename(bs);
    return true;
}

static BlockDriverState *open_node(OpenRequest *req, GError **errp)
{
    BlockDriverState *bs = bdrv_node_new(req->drv, req->node_name, errp);

    if (!bs) {
        return NULL;
    }
    node_set_from_request(bs, req);
    if (bs->read_only && (req->flags & BDRV_O_COPY_ON_READ)) {
        block_error_set(errp, EINVAL, "Can't use copy-on-read on read-only device");
        bdrv_unref(bs);
        return NULL;
    }
    if (!node_open_driver(bs, req, errp)) {
        bdrv_unref(bs);
        return NULL;
    }
    bs->opened_for = NULL;
    if (req->file_node) {
        req->file_node->inherits_from = bs;
    }
    return bs;
}

/* A layer is a format and, below it, protocols and filters, which have a bound of their own. */
static bool check_depth(const OpenRequest *req, GError **errp)
{
    int most = req->flags & BDRV_O_PROTOCOL ? 2 * BDRV_MAX_DEPTH : BDRV_MAX_DEPTH;
    int depth = 0;

    for (BlockDriverState *bs = req->parent; bs; bs = bs->opened_for) {
        depth++;
    }
    if (depth >= most) {
        block_error_set(errp, ELOOP, "Could not open '%s': the chain of images is deeper than %d",
                        req->filename ? req->filename : "", most);
        return false;
    }
    return true;
}

BlockDriverState *bdrv_open_inherit(const char *filename, JsonObject *options, int flags,
                                    const BlockOpenPolicy *policy, BlockDriverState *parent,
                                    GError **errp)
{
    OpenRequest req = {.filename = filename, .flags = flags, .policy = policy, .parent = parent};
    BlockDriverState *bs = NULL;

    GLOBAL_STATE_CODE();
    trace_bdrv_open(filename ? filename : "", flags);
    if (!check_depth(&req, errp)) {
        return NULL;
    }
    req.options = block_options_copy(options);
    if (filename && g_str_has_prefix(filename, "json:")) {
        g_autoptr(JsonObject) json = block_options_parse_json(filename + 5, errp);

        if (!json) {
            goto out;
        }
        block_options_merge(req.options, json);
        req.filename = NULL;
    }
    req.given = block_options_copy(req.options);
    if (take_generic_options(&req, errp) && choose_driver(&req, errp)) {
        bs = open_node(&req, errp);
    }
out:
    bdrv_unref(req.file_node);
    if (req.given) {
        json_object_unref(req.given);
    }
    json_object_unref(req.options);
    g_free(req.driver_name);
    g_free(req.node_name);
    return bs;
}

BlockDriverState *bdrv_open(const char *filename, JsonObject *options, int flags,
                            const BlockOpenPolicy *policy, GError **errp)
{
    return bdrv_open_inherit(filename, options, flags, policy, NULL, errp);
}
