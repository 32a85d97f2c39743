/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The preallocate filter: a file below a growing image gets longer in large steps, and
 * loses what is left over when it is closed. See docs/formats/preallocate.md.
 *
 * Invariants:
 *  1. data_end <= file_end; the node is as long as data_end, the file as file_end. It
 *     reads as zeros from data_end on, and where zero_start is further, from there: that
 *     is the furthest that a write of data beyond data_end goes, also while it is in flight.
 *  2. A write beyond file_end begins after the step that makes room for it: no write is
 *     in flight where a step zeroes.
 *  3. While the node is writable nobody else may write to the file or change its length.
 */
#include <errno.h>
#include <inttypes.h>

#include "blockgraph/block-driver.h"

typedef struct PreallocOptions {
    int64_t align; /* the file's end after a step is a multiple of it, bytes */
    int64_t size;  /* how far beyond the write a step goes at least, bytes */
} PreallocOptions;

typedef struct PreallocState {
    PreallocOptions options;
    CoMutex lock;       /* of all below */
    bool off;           /* a step has failed, or the node is about to be read-only */
    int64_t data_end;   /* atomic; bytes; -1: not known, nor are the other two */
    int64_t zero_start;
    int64_t file_end;
} PreallocState;

static const BlockOption prealloc_options[] = {
    {"prealloc-align", "size", "What the file's length is a multiple of (1M)"},
    {"prealloc-size", "size", "How much the file gets longer at least (128M)"},
    {NULL, NULL, NULL},
};

/* ---- Opening ----------------------------------------------------------------------- */

static bool take_options(BlockDriverState *bs, JsonObject *options, PreallocOptions *o,
                         GError **errp)
{
    uint32_t child_align;

    if (!block_options_take_size(options, "prealloc-align", &o->align, errp) ||
        !block_options_take_size(options, "prealloc-size", &o->size, errp)) {
        return false;
    }
    if (o->align % BDRV_SECTOR_SIZE != 0) {
        block_error_set(errp, EINVAL, "prealloc-align parameter of preallocate filter is not "
                        "aligned to %lld", BDRV_SECTOR_SIZE);
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    child_align = bdrv_get_limits(bdrv_child_bs(bdrv_file_child(bs)))->request_alignment;
    bdrv_graph_rdunlock_main_loop();
    if (o->align % child_align != 0) {
        block_error_set(errp, EINVAL, "prealloc-align parameter of preallocate filter is not "
                        "aligned to underlying node request alignment (%" PRIu32 ")",
                        child_align);
        return false;
    }
    return true;
}

static void forget_ends(PreallocState *s)
{
    __atomic_store_n(&s->data_end, -1, __ATOMIC_RELAXED);
}

static bool prealloc_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    PreallocState *s = bdrv_state(bs);
    int64_t length;

    s->options = (PreallocOptions){.align = 1 << 20, .size = 128 << 20};
    if (!bdrv_open_file_child(bs, options, errp) ||
        !take_options(bs, options, &s->options, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    length = bdrv_getlength(bdrv_child_bs(bdrv_file_child(bs)));
    bdrv_graph_rdunlock_main_loop();
    bdrv_set_length(bs, length);
    co_mutex_init(&s->lock);
    forget_ends(s);
    return true;
}

/* Give back what the file has beyond the data. No request is in flight. */
static bool cut(BlockDriverState *bs, GError **errp)
{
    PreallocState *s = bdrv_state(bs);
    int64_t end = s->data_end;
    BdrvChild *file;

    if (end < 0 || s->file_end <= end) {
        return true;
    }
    bdrv_graph_rdlock_main_loop();
    file = bdrv_file_child(bs);
    bdrv_graph_rdunlock_main_loop();
    forget_ends(s);
    return bdrv_truncate(file, end, true, BLOCK_PREALLOC_OFF, errp) >= 0;
}

static void prealloc_close(BlockDriverState *bs)
{
    PreallocState *s = bdrv_state(bs);
    g_autoptr(GError) err = NULL;

    if (!cut(bs, &err)) {
        g_printerr("preallocate: %s\n", err->message);
    }
    co_mutex_destroy(&s->lock);
}

/* Invariant 3; the file is cut when nobody may write to the node any more. */
static void prealloc_child_perm(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                                uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    bdrv_default_perms(bs, child, role, perm, shared, nperm, nshared);
    if (bdrv_is_writable(bs)) {
        *nperm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        *nshared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
}

/* ---- Reopening ------------------------------------------------------------------------ */

static bool prealloc_reopen_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    PreallocState *s = bdrv_state(state->bs);
    PreallocOptions *o = g_new(PreallocOptions, 1);

    *o = s->options;
    if (!take_options(state->bs, options, o, errp)) {
        g_free(o);
        return false;
    }
    if (!(state->flags & BDRV_O_RDWR)) {
        if (!cut(state->bs, errp)) {
            g_free(o);
            return false;
        }
        s->off = true; /* what parents flush may still make the file longer */
    }
    state->opaque = o;
    return true;
}

static void prealloc_reopen_commit(BdrvReopenState *state)
{
    PreallocState *s = bdrv_state(state->bs);
    PreallocOptions *o = state->opaque;

    s->options = *o;
    s->off = !bdrv_is_writable(state->bs);
    g_free(o);
}

static void prealloc_reopen_abort(BdrvReopenState *state)
{
    PreallocState *s = bdrv_state(state->bs);

    s->off = false;
    g_free(state->opaque);
}

/* ---- Growing -------------------------------------------------------------------------- */

static int coroutine_fn know_ends(BlockDriverState *bs) GRAPH_RDLOCK
{
    PreallocState *s = bdrv_state(bs);
    int64_t length;

    if (s->data_end >= 0) {
        return 0;
    }
    length = bdrv_co_getlength(bdrv_child_bs(bdrv_file_child(bs)));
    if (length < 0) {
        return length;
    }
    s->file_end = s->zero_start = length;
    __atomic_store_n(&s->data_end, length, __ATOMIC_RELAXED);
    return 0;
}

/* Have the file reach beyond @end; where it cannot, it grows by writes as ever. */
static void coroutine_fn make_room(BlockDriverState *bs, int64_t end) GRAPH_RDLOCK
{
    PreallocState *s = bdrv_state(bs);
    int64_t unit = MAX(s->options.align, 1), to;

    if (s->off || end <= s->file_end) {
        return;
    }
    if (__builtin_add_overflow(end, s->options.size, &to) ||
        __builtin_add_overflow(to, (unit - to % unit) % unit, &to) || to > BDRV_MAX_LENGTH ||
        bdrv_co_pwrite_zeroes(bdrv_file_child(bs), s->file_end, to - s->file_end,
                              BDRV_REQ_NO_FALLBACK) < 0) {
        s->off = true;
        return;
    }
    s->file_end = to;
}

/*
 * Before a write that ends at @end. 1: it is one of zeros to where the file has them
 * already; else 0 or -errno.
 */
static int coroutine_fn before_write(BlockDriverState *bs, int64_t offset, int64_t end,
                                     bool zeros) GRAPH_RDLOCK
{
    PreallocState *s = bdrv_state(bs);
    int ret;

    if (end <= __atomic_load_n(&s->data_end, __ATOMIC_RELAXED)) {
        return 0;
    }
    co_mutex_lock(&s->lock);
    ret = know_ends(bs);
    if (ret >= 0) {
        make_room(bs, end);
        /* Before data_end there may be data that was written in place. */
        ret = zeros && offset >= MAX(s->zero_start, s->data_end) && end <= s->file_end;
        s->zero_start = MAX(s->zero_start, ret ? 0 : end);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

/* A write that ends at @end has come to @ret. */
static int coroutine_fn after_write(BlockDriverState *bs, int64_t end, int ret)
{
    PreallocState *s = bdrv_state(bs);

    if (ret >= 0 && end > __atomic_load_n(&s->data_end, __ATOMIC_RELAXED)) {
        co_mutex_lock(&s->lock);
        s->file_end = MAX(s->file_end, end);
        __atomic_store_n(&s->data_end, MAX(s->data_end, end), __ATOMIC_RELAXED);
        co_mutex_unlock(&s->lock);
    }
    return ret;
}

/* ---- Requests -------------------------------------------------------------------------- */

static int coroutine_fn prealloc_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            IOVector *iov, int flags)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = before_write(bs, offset, offset + bytes, false);
    if (ret >= 0) {
        ret = bdrv_co_pwritev(bdrv_file_child(bs), offset, bytes, iov, flags);
    }
    return after_write(bs, offset + bytes, ret);
}

static int coroutine_fn prealloc_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, int flags)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = before_write(bs, offset, offset + bytes, true);
    if (ret == 0) {
        ret = bdrv_co_pwrite_zeroes(bdrv_file_child(bs), offset, bytes, flags);
    }
    return after_write(bs, offset + bytes, MIN(ret, 0));
}

/*
 * A format makes its file longer by a bit before it writes there: that is a step, too. So
 * it is not where a user resizes it by more, which must not take that much space.
 */
static bool coroutine_fn grow_by_step(BlockDriverState *bs, int64_t offset,
                                      BlockPrealloc prealloc) GRAPH_RDLOCK
{
    PreallocState *s = bdrv_state(bs);

    if (prealloc != BLOCK_PREALLOC_OFF || offset < s->data_end || s->zero_start > s->data_end ||
        offset - s->data_end > s->options.size) {
        return false;
    }
    make_room(bs, offset);
    return offset <= s->file_end;
}

static int coroutine_fn resize_file(BlockDriverState *bs, int64_t offset, bool exact,
                                    BlockPrealloc prealloc, GError **errp) GRAPH_RDLOCK
{
    PreallocState *s = bdrv_state(bs);
    BdrvChild *file = bdrv_file_child(bs);
    int ret = 0;

    if (offset > s->data_end && s->file_end > s->data_end) {
        /* What is to be new, and preallocated perhaps, begins where the data ends. */
        ret = bdrv_co_truncate(file, s->data_end, true, BLOCK_PREALLOC_OFF, errp);
        s->file_end = ret < 0 ? s->file_end : s->data_end;
    }
    if (ret >= 0) {
        ret = bdrv_co_truncate(file, offset, exact, prealloc, errp);
    }
    if (ret >= 0) {
        s->file_end = s->zero_start = offset;
    }
    return ret;
}

static int coroutine_fn prealloc_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                             BlockPrealloc prealloc, GError **errp)
{
    PreallocState *s = bdrv_state(bs);
    int ret;

    bdrv_graph_assert_readable();
    co_mutex_lock(&s->lock);
    ret = know_ends(bs);
    if (ret >= 0 && !grow_by_step(bs, offset, prealloc)) {
        ret = resize_file(bs, offset, exact, prealloc, errp);
    }
    if (ret >= 0) {
        __atomic_store_n(&s->data_end, offset, __ATOMIC_RELAXED);
        bdrv_set_length(bs, offset);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

static int64_t coroutine_fn prealloc_co_getlength(BlockDriverState *bs)
{
    PreallocState *s = bdrv_state(bs);
    int64_t end = __atomic_load_n(&s->data_end, __ATOMIC_RELAXED);

    bdrv_graph_assert_readable();
    return end >= 0 ? end : bdrv_co_getlength(bdrv_child_bs(bdrv_file_child(bs)));
}

BlockDriver block_driver_preallocate = {
    .format_name = "preallocate",
    .instance_size = sizeof(PreallocState),
    .options = prealloc_options,
    .is_filter = true,
    .bdrv_open = prealloc_open,
    .bdrv_close = prealloc_close,
    .bdrv_reopen_prepare = prealloc_reopen_prepare,
    .bdrv_reopen_commit = prealloc_reopen_commit,
    .bdrv_reopen_abort = prealloc_reopen_abort,
    .bdrv_child_perm = prealloc_child_perm,
    .bdrv_co_getlength = prealloc_co_getlength,
    .bdrv_co_preadv = bdrv_filter_co_preadv,
    .bdrv_co_pwritev = prealloc_co_pwritev,
    .bdrv_co_pwrite_zeroes = prealloc_co_pwrite_zeroes,
    .bdrv_co_pdiscard = bdrv_filter_co_pdiscard,
    .bdrv_co_truncate = prealloc_co_truncate,
    .supported_write_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED,
};
