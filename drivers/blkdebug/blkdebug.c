/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blkdebug filter: fails and holds requests by rules, for tests. See
 * docs/formats/blkdebug.md.
 *
 * Here: options, opening, the filter itself, and the driver's table.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "drivers/blkdebug/blkdebug.h"

/* ---- Options ------------------------------------------------------------------- */

static const BlockOption blkdebug_options[] = {
    {"image", "str", "The node below"},
    {"config", "str", "Path of a file with rules"},
    {"inject-error", "str", "Rules: fail a request"},
    {"set-state", "str", "Rules: change the state at an event"},
    {"align", "size", "Required alignment of requests"},
    {"max-transfer", "size", "Longest read or write"},
    {"opt-write-zero", "size", "Alignment of writing zeros"},
    {"max-write-zero", "size", "Longest range of zeros"},
    {"opt-discard", "size", "Alignment of discards"},
    {"max-discard", "size", "Longest discard"},
    {"take-child-perms", "str", "Permissions to take on the image besides"},
    {"unshare-child-perms", "str", "Permissions not to share on the image"},
    {NULL, NULL, NULL},
};

/* "blkdebug:[CONFIG]:IMAGE" */
static JsonObject *blkdebug_parse_filename(const char *filename, GError **errp)
{
    const char *config = filename + strlen("blkdebug:");
    const char *image = strchr(config, ':');
    g_autofree char *config_name = NULL;
    JsonObject *options;

    if (!image) {
        block_error_set(errp, EINVAL, "blkdebug requires both config file and image path");
        return NULL;
    }
    options = json_object_new();
    if (image > config) {
        config_name = g_strndup(config, image - config);
        json_object_set_string_member(options, "config", config_name);
    }
    json_object_set_string_member(options, "x-image", image + 1);
    return options;
}

/* Rules from the array @name. */
static bool take_rules(BlkdebugState *s, JsonObject *options, const char *name, RuleKind kind,
                       GError **errp)
{
    g_autoptr(JsonArray) rules = NULL;

    if (!block_options_take_array(options, name, &rules, errp)) {
        return false;
    }
    for (guint i = 0; rules && i < json_array_get_length(rules); i++) {
        JsonNode *node = json_array_get_element(rules, i);

        s->is_plain = false;
        if (!JSON_NODE_HOLDS_OBJECT(node)) {
            block_error_set(errp, EINVAL, "%s.%u is no rule", name, i);
            return false;
        }
        if (!blkdebug_add_rule(s, kind, json_node_get_object(node), errp)) {
            return false;
        }
    }
    return true;
}

/* Permissions from the array @name. */
static bool take_perms(BlkdebugState *s, JsonObject *options, const char *name, uint64_t *perms,
                       GError **errp)
{
    static const char *const perm_words[] = {
        "consistent-read", "write", "write-unchanged", "resize", NULL,
    };
    g_autoptr(JsonArray) words = NULL;

    if (!block_options_take_array(options, name, &words, errp)) {
        return false;
    }
    for (guint i = 0; words && i < json_array_get_length(words); i++) {
        g_autoptr(JsonObject) word = json_object_new();
        int index = 0;

        s->is_plain = false;
        json_object_set_member(word, name, json_node_copy(json_array_get_element(words, i)));
        if (!block_options_take_enum(word, name, perm_words, &index, errp)) {
            return false;
        }
        *perms |= 1 << index;
    }
    return true;
}

/* A limit that is 0 or a multiple of @multiple_of. */
static bool take_limit(BlkdebugState *s, JsonObject *options, const char *name, int64_t *limit,
                       int64_t multiple_of, GError **errp)
{
    if (!block_options_take_size(options, name, limit, errp)) {
        return false;
    }
    if (*limit >= INT_MAX || *limit % multiple_of != 0) {
        block_error_set(errp, EINVAL, "Cannot meet constraints with %s %" PRId64, name, *limit);
        return false;
    }
    s->is_plain = s->is_plain && *limit == 0;
    return true;
}

static bool take_limits(BlkdebugState *s, JsonObject *options, int64_t child_align, GError **errp)
{
    int64_t align;

    if (!take_limit(s, options, "align", &s->align, 1, errp)) {
        return false;
    }
    if (s->align & (s->align - 1)) {
        block_error_set(errp, EINVAL, "Cannot meet constraints with align %" PRId64, s->align);
        return false;
    }
    align = MAX(s->align, child_align);
    return take_limit(s, options, "max-transfer", &s->max_transfer, align, errp) &&
           take_limit(s, options, "opt-write-zero", &s->opt_write_zero, align, errp) &&
           take_limit(s, options, "max-write-zero", &s->max_write_zero,
                      MAX(align, s->opt_write_zero), errp) &&
           take_limit(s, options, "opt-discard", &s->opt_discard, align, errp) &&
           take_limit(s, options, "max-discard", &s->max_discard, MAX(align, s->opt_discard),
                      errp);
}

/* ---- Opening --------------------------------------------------------------------- */

static void blkdebug_close(BlockDriverState *bs)
{
    BlkdebugState *s = bdrv_state(bs);

    blkdebug_free_rules(s);
    g_free(s->config);
    g_mutex_clear(&s->mutex);
}

static BdrvChild *open_image(BlockDriverState *bs, JsonObject *options, GError **errp)
{
    g_autofree char *filename = NULL;

    if (!block_options_take_string(options, "x-image", &filename, errp)) {
        return NULL;
    }
    return bdrv_open_child(filename, options, "image", bs,
                           BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, false, errp);
}

static bool blkdebug_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    BlkdebugState *s = bdrv_state(bs);
    BlockDriverState *image_bs;
    BdrvChild *image;

    s->state = 1;
    s->is_plain = true;
    g_mutex_init(&s->mutex);
    co_queue_init(&s->holding);
    if (!block_options_take_string(options, "config", &s->config, errp) ||
        (s->config && !blkdebug_read_config(s, s->config, errp)) ||
        !take_rules(s, options, "inject-error", RULE_INJECT_ERROR, errp) ||
        !take_rules(s, options, "set-state", RULE_SET_STATE, errp) ||
        !take_perms(s, options, "take-child-perms", &s->take_perms, errp) ||
        !take_perms(s, options, "unshare-child-perms", &s->unshare_perms, errp)) {
        goto fail;
    }
    image = open_image(bs, options, errp);
    if (!image) {
        goto fail;
    }
    bdrv_graph_rdlock_main_loop();
    image_bs = bdrv_child_bs(image);
    bdrv_graph_rdunlock_main_loop();
    if (!take_limits(s, options, bdrv_get_limits(image_bs)->request_alignment, errp)) {
        goto fail;
    }
    bdrv_set_length(bs, bdrv_getlength(image_bs));
    return true;
fail:
    blkdebug_close(bs);
    return false;
}

static char *blkdebug_make_filename(BlockDriverState *bs)
{
    BlkdebugState *s = bdrv_state(bs);
    const char *image;

    bdrv_graph_rdlock_main_loop();
    image = bdrv_get_filename(bdrv_child_bs(bdrv_get_child(bs, "image")));
    bdrv_graph_rdunlock_main_loop();
    if (!s->is_plain || g_str_has_prefix(image, "json:")) {
        return NULL;
    }
    return g_strdup_printf("blkdebug:%s:%s", s->config ? s->config : "", image);
}

static void blkdebug_child_perm(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                                uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    BlkdebugState *s = bdrv_state(bs);

    bdrv_default_perms(bs, child, role, perm, shared, nperm, nshared);
    *nperm |= s->take_perms;
    *nshared &= ~s->unshare_perms;
}

static void blkdebug_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    BlkdebugState *s = bdrv_state(bs);

    if (s->align) {
        limits->request_alignment = s->align;
    }
    if (s->max_transfer) {
        limits->max_transfer = s->max_transfer;
    }
    if (s->opt_write_zero) {
        limits->pwrite_zeroes_alignment = s->opt_write_zero;
    }
    if (s->max_write_zero) {
        limits->max_pwrite_zeroes = s->max_write_zero;
    }
    if (s->opt_discard) {
        limits->pdiscard_alignment = s->opt_discard;
    }
    if (s->max_discard) {
        limits->max_pdiscard = s->max_discard;
    }
}

/* ---- The filter --------------------------------------------------------------------- */

static BdrvChild *image_of(BlockDriverState *bs) GRAPH_RDLOCK
{
    return bdrv_get_child(bs, "image");
}

/* Requests without data; the others are asked about in the pieces that the limits make. */
static int coroutine_fn blkdebug_co_before_io(BlockDriverState *bs, BdrvIoRequest *req)
{
    bool whole = req->type == BDRV_IO_FLUSH || req->type == BDRV_IO_BLOCK_STATUS;

    return whole ? blkdebug_check(bdrv_state(bs), req->type, req->offset, req->bytes) : 0;
}

static void coroutine_fn blkdebug_co_debug_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    blkdebug_event(bdrv_state(bs), event);
}

static int coroutine_fn blkdebug_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           IOVector *iov, int flags)
{
    int ret = blkdebug_check(bdrv_state(bs), BDRV_IO_READ, offset, bytes);

    bdrv_graph_assert_readable();
    return ret < 0 ? ret : bdrv_co_preadv(image_of(bs), offset, bytes, iov, flags);
}

static int coroutine_fn blkdebug_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *iov, int flags)
{
    int ret = blkdebug_check(bdrv_state(bs), BDRV_IO_WRITE, offset, bytes);

    bdrv_graph_assert_readable();
    return ret < 0 ? ret : bdrv_co_pwritev(image_of(bs), offset, bytes, iov, flags);
}

static int coroutine_fn blkdebug_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, int flags)
{
    int ret = blkdebug_check(bdrv_state(bs), BDRV_IO_WRITE_ZEROES, offset, bytes);

    bdrv_graph_assert_readable();
    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(image_of(bs), offset, bytes, flags);
}

static int coroutine_fn blkdebug_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int ret = blkdebug_check(bdrv_state(bs), BDRV_IO_DISCARD, offset, bytes);

    bdrv_graph_assert_readable();
    return ret < 0 ? ret : bdrv_co_pdiscard(image_of(bs), offset, bytes);
}

/* As with QEMU: it does not tell. */
static int64_t coroutine_fn blkdebug_co_get_allocated_file_size(BlockDriverState *bs)
{
    return -ENOTSUP;
}

BlockDriver block_driver_blkdebug = {
    .format_name = "blkdebug",
    .protocol_name = "blkdebug",
    .instance_size = sizeof(BlkdebugState),
    .options = blkdebug_options,
    .is_filter = true,
    .bdrv_parse_filename = blkdebug_parse_filename,
    .bdrv_open = blkdebug_open,
    .bdrv_close = blkdebug_close,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_child_perm = blkdebug_child_perm,
    .bdrv_refresh_limits = blkdebug_refresh_limits,
    .bdrv_make_filename = blkdebug_make_filename,
    .bdrv_co_get_allocated_file_size = blkdebug_co_get_allocated_file_size,
    .bdrv_co_before_io = blkdebug_co_before_io,
    .bdrv_co_debug_event = blkdebug_co_debug_event,
    .bdrv_co_preadv = blkdebug_co_preadv,
    .bdrv_co_pwritev = blkdebug_co_pwritev,
    .bdrv_co_pwrite_zeroes = blkdebug_co_pwrite_zeroes,
    .bdrv_co_pdiscard = blkdebug_co_pdiscard,
    .bdrv_debug_command = blkdebug_command,
    .bdrv_debug_is_suspended = blkdebug_is_suspended,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
};
