/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: another length for the disk.
 *
 * Invariants, for a power cut at any time:
 *  1. The header's size changes in one write of 8 bytes, with all that it depends on
 *     on the disk: the disk is the old one or the new one, as a whole.
 *  2. So growing writes it last: tables first, and zeros where something would show
 *     through. Shrinking writes it first; what lies beyond the end is dropped after
 *     that. What a power cut leaves there is dropped before the disk grows again.
 *  3. An L1 table moves by one write, in one sector, to the header. The
 *     new one is on the disk before, the old one is free after.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-alloc.h"

#define SIZE_IN_HEADER 24

/* ---- The header --------------------------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK write_size(Qcow2Writer *w, uint64_t size)
{
    uint64_t word = GUINT64_TO_BE(size), old = GUINT64_TO_BE(w->s->header.size);
    int ret = qcow2_header_write_field(w, SIZE_IN_HEADER, &word, sizeof(word));

    if (ret < 0) {
        /* It may be there all the same: as it was, now or before anything else is written. */
        bool uncertain = qcow2_header_write_field(w, SIZE_IN_HEADER, &old, sizeof(old)) < 0;

        co_mutex_lock(&w->lock);
        w->l1_uncertain |= uncertain;
        co_mutex_unlock(&w->lock);
        return ret;
    }
    w->s->header.size = size;
    return 0;
}

int coroutine_fn qcow2_l1_switch(Qcow2Writer *w, uint64_t size, uint64_t offset, uint32_t entries)
{
    uint64_t be_size = GUINT64_TO_BE(size), be_offset = GUINT64_TO_BE(offset);
    uint32_t be_crypt = GUINT32_TO_BE(w->s->header.crypt_method);
    uint32_t be_entries = GUINT32_TO_BE(entries);
    uint8_t field[24];
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    memcpy(field, &be_size, 8);
    memcpy(field + 8, &be_crypt, 4);
    memcpy(field + 12, &be_entries, 4);
    memcpy(field + 16, &be_offset, 8);
    w->l1_uncertain = true;
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_L1_GROW_ACTIVATE_TABLE);
    ret = qcow2_header_write_field(w, SIZE_IN_HEADER, field, sizeof(field));
    w->l1_uncertain = ret < 0;
    return MIN(ret, 0);
}

/* ---- The L1 table --------------------------------------------------------------------------- */

/* Write what is in memory to @offset, zeros behind it, and have it on the disk. */
static int coroutine_fn GRAPH_RDLOCK write_l1(Qcow2Writer *w, uint64_t offset, uint64_t bytes)
    TSA_REQUIRES(w->lock)
{
    const Qcow2L1 *l1 = w->s->l1;
    uint64_t *words = g_try_malloc0(bytes);
    int ret;

    if (!words) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < l1->count; i++) {
        words[i] = GUINT64_TO_BE(l1->entries[i]);
    }
    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_L1_GROW_WRITE_TABLE);
    ret = bdrv_co_pwrite(w->s->file, offset, bytes, words, 0);
    g_free(words);
    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(w->s->file));
}

/* The table is at @offset now. Others may still be looking at the old one in memory. */
static void adopt_l1(Qcow2Writer *w, uint64_t offset, uint32_t entries)
{
    Qcow2State *s = w->s;
    Qcow2L1 *l1 = g_malloc0(sizeof(*l1) + (size_t)entries * 8);

    l1->count = entries;
    memcpy(l1->entries, s->l1->entries, (size_t)s->l1->count * 8);
    w->old_l1 = g_slist_prepend(w->old_l1, s->l1);
    g_atomic_pointer_set(&s->l1, l1);
    s->header.l1_table_offset = s->l1_offset = offset;
    s->header.l1_size = s->l1_size = entries;
}

static int coroutine_fn GRAPH_RDLOCK move_l1(Qcow2Writer *w, uint32_t entries)
    TSA_REQUIRES(w->lock)
{
    const Qcow2Header *h = &w->s->header;
    const Qcow2Geometry *geo = &w->s->geo;
    uint64_t clusters = qcow2_clusters(geo, (uint64_t)entries * 8), offset;
    uint64_t old = h->l1_table_offset, old_bytes = (uint64_t)h->l1_size * 8;
    int ret;

    bdrv_co_debug_event(w->s->file, BDRV_DEBUG_L1_GROW_ALLOC_TABLE);
    ret = w->l1_uncertain ? qcow2_l1_switch(w, h->size, old, h->l1_size) : 0;
    if (ret == 0) {
        ret = qcow2_alloc_locked(w, clusters, &offset);
    }
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_refcounts_write(w);
    if (ret >= 0) {
        ret = write_l1(w, offset, clusters << geo->cluster_bits);
    }
    if (ret >= 0) {
        ret = qcow2_l1_switch(w, h->size, offset, entries);
        if (ret < 0 && qcow2_l1_switch(w, h->size, old, h->l1_size) < 0) {
            return ret; /* what the header may point to leaks */
        }
    }
    if (ret < 0) {
        qcow2_refcount_add(w, offset, clusters << geo->cluster_bits, -1);
        return ret;
    }
    adopt_l1(w, offset, entries);
    if (old_bytes > 0) {
        qcow2_refcount_add(w, old, old_bytes, -1); /* a leak, if that fails */
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK grow_l1(Qcow2State *s, uint64_t size)
{
    Qcow2Writer *w = s->writer;
    uint64_t entries = qcow2_l1_entries_needed(&s->geo, size);
    int ret;

    if (entries <= s->header.l1_size) {
        return 0;
    }
    if (entries > QCOW2_MAX_L1_BYTES / 8) {
        return -EFBIG;
    }
    /* Then all that the table in memory leads to is on the disk. */
    ret = qcow2_write_back(w, false);
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&w->write_back_lock);
    co_mutex_lock(&w->lock);
    ret = move_l1(w, entries);
    co_mutex_unlock(&w->lock);
    co_mutex_unlock(&w->write_back_lock);
    return ret;
}

/* ---- Growing -------------------------------------------------------------------------------- */

static void set_length(BlockDriverState *bs, Qcow2State *s, uint64_t length)
{
    __atomic_store_n(&s->length, length, __ATOMIC_RELAXED);
    bdrv_set_length(bs, length);
}

/*
 * How long the file gets at most if all of [@start, @end) is allocated: clusters,
 * tables, and refcount blocks with a refcount table for all of that.
 */
static uint64_t GRAPH_RDLOCK estimate_end(const Qcow2State *s, uint64_t start, uint64_t end)
{
    const Qcow2Geometry *geo = &s->geo;
    unsigned bits = qcow2_refcount_block_bits(geo);
    uint64_t n = qcow2_clusters(geo, end) - (start >> geo->cluster_bits);

    n += (n >> geo->l2_bits) + 2;
    n += qcow2_clusters(geo, qcow2_file_length(s));
    n += (n >> bits) + 1;
    return n << geo->cluster_bits;
}

/* Space below for what will be allocated. */
static int coroutine_fn GRAPH_RDLOCK reserve(Qcow2State *s, uint64_t start, uint64_t end,
                                             BlockPrealloc prealloc, GError **errp)
{
    Qcow2Writer *w = s->writer;
    int ret;

    if (prealloc == BLOCK_PREALLOC_OFF || prealloc == BLOCK_PREALLOC_METADATA) {
        return 0;
    }
    co_mutex_lock(&w->lock);
    w->hint = MAX(w->hint, qcow2_clusters(&s->geo, qcow2_file_length(s)));
    w->longest = UINT64_MAX;
    co_mutex_unlock(&w->lock);
    ret = bdrv_co_truncate(s->file, estimate_end(s, start, end), false, prealloc, errp);
    return MIN(ret, 0);
}

int coroutine_fn qcow2_co_show_vm_state(BlockDriverState *bs, int64_t end, bool for_write)
{
    Qcow2State *s = bdrv_state(bs);
    int ret = 0;

    bdrv_graph_assert_readable();
    if (end > 0 && for_write) {
        ret = s->writer ? grow_l1(s, end) : -EPERM;
    }
    if (ret >= 0 && end > 0) {
        s->disk_length = s->length;
        set_length(bs, s, end);
    } else if (end == 0) {
        set_length(bs, s, s->disk_length);
    }
    return ret;
}

/* Up to where something would show in [@start, @end) if nothing was written there. */
static uint64_t GRAPH_RDLOCK find_shown(BlockDriverState *bs, const Qcow2State *s, uint64_t start,
                                        uint64_t end)
{
    uint64_t size = qcow2_cluster_size(&s->geo), shown = (start + size - 1) & ~(size - 1);
    BdrvChild *backing = bdrv_backing_child(bs);

    if (backing) {
        shown = MAX(shown, (uint64_t)MAX(bdrv_getlength(bdrv_child_bs(backing)), 0));
    }
    if (s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW) {
        shown = MAX(shown, (uint64_t)MAX(bdrv_getlength(bdrv_child_bs(s->data_file)), 0));
    }
    return MIN(shown, end);
}

/* The data file has to be as long as the disk; it may be longer. */
static int coroutine_fn GRAPH_RDLOCK grow_data_file(Qcow2State *s, uint64_t end,
                                                    BlockPrealloc prealloc, GError **errp)
{
    bool space = prealloc == BLOCK_PREALLOC_FALLOC || prealloc == BLOCK_PREALLOC_FULL;

    if (end <= (uint64_t)MAX(bdrv_getlength(bdrv_child_bs(s->data_file)), 0)) {
        return 0;
    }
    return bdrv_co_truncate(s->data_file, end, false, space ? prealloc : BLOCK_PREALLOC_OFF, errp);
}

/* Let [@start, @end), which the disk has for now, read as zeros. */
static int coroutine_fn GRAPH_RDLOCK fill_new(BlockDriverState *bs, Qcow2State *s, uint64_t start,
                                              uint64_t end, BlockPrealloc prealloc, GError **errp)
{
    uint64_t shown = find_shown(bs, s, start, end);
    int ret;

    ret = s->geo.external_data ? grow_data_file(s, end, prealloc, errp)
                               : reserve(s, start, end, prealloc, errp);
    if (ret < 0) {
        return ret;
    }
    if (prealloc != BLOCK_PREALLOC_OFF) {
        ret = bdrv_co_claimed_pwrite_zeroes(bs, start, end - start, true);
    } else if (shown > start) {
        ret = bdrv_co_claimed_pwrite_zeroes(bs, start, shown - start, false);
    }
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_write_back(s->writer, false);
    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(s->file));
}

static int coroutine_fn GRAPH_RDLOCK grow(BlockDriverState *bs, Qcow2State *s, uint64_t old,
                                          uint64_t size, BlockPrealloc prealloc, GError **errp)
{
    int ret = qcow2_drop_beyond(s, old);

    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not drop what lies beyond the end of the "
                              "disk", s->name);
        return ret;
    }
    ret = grow_l1(s, size);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Failed to grow the L1 table");
        return ret;
    }
    set_length(bs, s, size);
    ret = fill_new(bs, s, old, size, prealloc, errp);
    if (ret >= 0) {
        ret = write_size(s->writer, size);
    }
    if (ret < 0) {
        set_length(bs, s, old);
        if (errp && !*errp) {
            block_error_set_errno(errp, ret, "'%s': could not grow the disk from %"
                                  G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " bytes", s->name, old,
                                  size);
        }
        qcow2_drop_beyond(s, old); /* at worst it leaks */
    }
    if (prealloc == BLOCK_PREALLOC_FALLOC || prealloc == BLOCK_PREALLOC_FULL || ret < 0) {
        qcow2_cut_file(s); /* it was an estimate */
    }
    return ret;
}

/* ---- Shrinking ------------------------------------------------------------------------------ */

/*
 * What stays of the last cluster, and is not the disk's any more, becomes zeros:
 * not everybody looks after that when growing. It is known to the old length only.
 */
static void coroutine_fn GRAPH_RDLOCK wipe_tail(BlockDriverState *bs, const Qcow2State *s,
                                                uint64_t end)
{
    uint64_t size = qcow2_cluster_size(&s->geo), tail = (end + size - 1) & ~(size - 1);
    BdrvMapRequest req = { .op = BDRV_MAP_READ, .offset = end,
                           .bytes = MIN(tail, (uint64_t)bdrv_getlength(bs)) - end };
    BdrvMapping m;

    if (req.bytes > 0 && qcow2_co_map(bs, &req, &m) >= 0 && m.target == BDRV_MAP_DATA) {
        bdrv_co_claimed_pwrite_zeroes(bs, end, req.bytes, false);
    }
}

static int coroutine_fn GRAPH_RDLOCK shrink(BlockDriverState *bs, Qcow2State *s, uint64_t size,
                                            bool exact, GError **errp)
{
    int ret = write_size(s->writer, size);

    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not write the new size to the header",
                              s->name);
        return ret;
    }
    /* The disk is shorter. What fails from now on leaves clusters in use for nothing. */
    wipe_tail(bs, s, size);
    set_length(bs, s, size);
    if (qcow2_drop_beyond(s, size) >= 0) {
        if (s->geo.external_data) {
            bdrv_co_truncate(s->data_file, size, exact, BLOCK_PREALLOC_OFF, NULL);
        }
        qcow2_cut_file(s);
    }
    return 0;
}

/* ---- The driver's callback ------------------------------------------------------------------- */

static int check(const Qcow2State *s, int64_t offset, int64_t old, BlockPrealloc prealloc,
                 GError **errp)
{
    if (!s->writer) {
        block_error_set(errp, EPERM, "'%s': the image is not open for writing", s->name);
        return -EPERM;
    }
    if (offset % BDRV_SECTOR_SIZE) {
        block_error_set(errp, EINVAL, "The new size must be a multiple of %d",
                        (int)BDRV_SECTOR_SIZE);
        return -EINVAL;
    }
    if (s->geo.version < 3 && s->header.nb_snapshots > 0) {
        block_error_set(errp, ENOTSUP, "Can't resize a v2 image which has snapshots");
        return -ENOTSUP;
    }
    if (offset < old && prealloc != BLOCK_PREALLOC_OFF) {
        block_error_set(errp, EINVAL, "Preallocation can't be used for shrinking an image");
        return -EINVAL;
    }
    return 0;
}

int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                   BlockPrealloc prealloc, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    int64_t old = bdrv_getlength(bs);
    int ret = check(s, offset, old, prealloc, errp);

    bdrv_graph_assert_readable();
    if (ret < 0 || (uint64_t)offset == s->header.size) {
        return ret;
    }
    co_mutex_lock(&s->writer->lock);
    ret = qcow2_writer_begin(s->writer);
    co_mutex_unlock(&s->writer->lock);
    if (ret < 0) {
        return ret;
    }
    return offset < old ? shrink(bs, s, offset, exact, errp)
                        : grow(bs, s, old, offset, prealloc, errp);
}
