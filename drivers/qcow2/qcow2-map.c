/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: map(), the walk from a guest offset through L1 and L2 to its place. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-alloc.h"

/* How far an empty stretch of the L1 table is followed in one answer. */
#define MAX_EMPTY_L1_ENTRIES 256

Qcow2L1 *coroutine_mixed_fn qcow2_l1_load(Qcow2State *s, uint64_t offset, uint32_t size,
                                          const char *what, GError **errp)
{
    uint64_t file_length = qcow2_file_length(s);
    uint64_t count = 0;
    Qcow2L1 *l1;
    int ret;

    if (!qcow2_check_table(&s->geo, offset, size, 8, QCOW2_MAX_L1_BYTES, file_length,
                           s->name, what, errp)) {
        return NULL;
    }
    if (size > 0) {
        count = MIN(size, (file_length - offset + 7) / 8);
    }
    l1 = g_try_malloc(sizeof(*l1) + count * 8);
    if (!l1) {
        block_error_set_errno(errp, ENOMEM, "'%s': %s", s->name, what);
        return NULL;
    }
    l1->count = count;
    ret = count ? bdrv_pread(s->file, offset, count * 8, l1->entries, 0) : 0;
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not read %s at offset %" G_GUINT64_FORMAT,
                              s->name, what, offset);
        g_free(l1);
        return NULL;
    }
    qcow2_words_to_host(l1->entries, count);
    return l1;
}

/* Load what the first request needs; published when complete. */
static int coroutine_fn GRAPH_RDLOCK prepare_locked(Qcow2State *s)
{
    if (!g_atomic_pointer_get(&s->l1)) {
        g_autoptr(GError) err = NULL;
        Qcow2L1 *l1 = qcow2_l1_load(s, s->l1_offset, s->l1_size, "L1 table", &err);

        if (!l1) {
            return block_error_to_errno(err);
        }
        g_atomic_pointer_set(&s->l1, l1);
    }
    if (g_atomic_int_get(&s->prealloc) == QCOW2_PREALLOC_UNKNOWN) {
        int ret = qcow2_detect_preallocation(s);

        if (ret < 0) {
            return ret;
        }
        g_atomic_int_set(&s->prealloc, ret ? QCOW2_PREALLOC_METADATA : QCOW2_PREALLOC_NO);
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK prepare(Qcow2State *s)
{
    int ret;

    if (g_atomic_pointer_get(&s->l1) &&
        g_atomic_int_get(&s->prealloc) != QCOW2_PREALLOC_UNKNOWN) {
        return 0;
    }
    co_mutex_lock(&s->load_lock);
    ret = prepare_locked(s);
    co_mutex_unlock(&s->load_lock);
    return ret;
}

static uint64_t l1_entry(const Qcow2L1 *l1, uint64_t index)
{
    return index < l1->count ? __atomic_load_n(&l1->entries[index], __ATOMIC_ACQUIRE) : 0;
}

void qcow2_clip(const Qcow2State *s, BdrvMapping *m)
{
    uint64_t length = __atomic_load_n(&s->length, __ATOMIC_RELAXED); /* changes on resize */
    int64_t end = (length + BDRV_SECTOR_SIZE - 1) & ~(BDRV_SECTOR_SIZE - 1);

    m->bytes = MIN(m->bytes, end - m->offset);
}

/* No L2 table: nothing is allocated there, nor by empty neighbours. */
static void map_empty(const Qcow2State *s, const Qcow2L1 *l1, uint64_t index, BdrvMapping *m)
{
    unsigned shift = s->geo.cluster_bits + s->geo.l2_bits;
    uint64_t length = __atomic_load_n(&s->length, __ATOMIC_RELAXED);
    uint64_t entries = qcow2_l1_entries_needed(&s->geo, length);
    uint64_t first = index, end = index + 1;

    while (first > 0 && index - first < MAX_EMPTY_L1_ENTRIES && l1_entry(l1, first - 1) == 0) {
        first--;
    }
    while (end < entries && end - index < MAX_EMPTY_L1_ENTRIES && l1_entry(l1, end) == 0) {
        end++;
    }
    m->target = BDRV_MAP_UNALLOCATED;
    m->offset = first << shift;
    /* The end fits: @entries covers a length of at most BDRV_MAX_LENGTH. */
    m->bytes = MIN((end - first) << shift, (uint64_t)INT64_MAX - m->offset);
    qcow2_clip(s, m);
}

void qcow2_fill_mapping(const Qcow2State *s, const Qcow2Run *run, BdrvMapping *m)
{
    static const BdrvMapTarget targets[] = {
        [QCOW2_KIND_UNALLOCATED] = BDRV_MAP_UNALLOCATED,
        [QCOW2_KIND_ZERO] = BDRV_MAP_ZERO,
        [QCOW2_KIND_DATA] = BDRV_MAP_DATA,
        [QCOW2_KIND_COMPRESSED] = BDRV_MAP_ENCODED,
    };

    m->offset = run->offset;
    m->bytes = run->bytes;
    m->target = targets[run->kind];
    if (run->has_place) {
        m->child = s->data_file;
        m->child_offset = run->host;
    }
    if (run->kind == QCOW2_KIND_COMPRESSED) {
        m->child_bytes = run->host_bytes;
        m->decode = qcow2_decode;
    }
    m->recurse = run->kind == QCOW2_KIND_DATA &&
                 g_atomic_int_get(&s->prealloc) == QCOW2_PREALLOC_METADATA;
    qcow2_clip(s, m);
}

int coroutine_fn qcow2_entries_get(Qcow2State *s, uint64_t l2_offset, uint64_t guest,
                                   Qcow2Slice **slice, Qcow2Entries *entries)
{
    const Qcow2Geometry *geo = &s->geo;
    size_t per_slice = s->options.l2_slice_bytes >> geo->l2_entry_bits;
    uint64_t cluster = guest >> geo->cluster_bits;
    uint64_t l2_index = cluster & ((1ULL << geo->l2_bits) - 1);
    uint64_t slice_first = l2_index & ~(uint64_t)(per_slice - 1);
    int ret;

    bdrv_graph_assert_readable();
    if (l2_offset >= qcow2_file_length(s) || !s->data_file) {
        return -EIO;
    }
    ret = qcow2_cache_get(s->l2_cache, s->file, l2_offset + (slice_first << geo->l2_entry_bits),
                          slice);
    if (ret < 0) {
        return ret;
    }
    *entries = (Qcow2Entries){
        .words = qcow2_slice_words(*slice),
        .count = per_slice,
        .guest_first = (cluster - l2_index + slice_first) << geo->cluster_bits,
        .data_length = MAX(bdrv_getlength(bdrv_child_bs(s->data_file)), 0),
        .by_copied = s->writer != NULL,
    };
    return 0;
}

/* Whether the place of @run may be written to without asking. */
static bool is_writable(const Qcow2State *s, const Qcow2Slice *slice, const Qcow2Run *run)
{
    return s->writer && run->kind == QCOW2_KIND_DATA && run->copied &&
           __atomic_load_n(&s->writer->announced, __ATOMIC_ACQUIRE) &&
           !__atomic_load_n(&s->writer->corrupt, __ATOMIC_RELAXED) &&
           (s->geo.external_data || qcow2_slice_checked(slice) == QCOW2_SLICE_GOOD);
}

/* A table is wrong at guest @offset: a writable image is marked as corrupt. */
static int coroutine_fn GRAPH_RDLOCK refuse_entry(BlockDriverState *bs, const char *what,
                                                  uint64_t offset)
{
    const Qcow2State *s = bdrv_state(bs);
    int ret = -EIO;

    if (s->writer && bdrv_is_writable(bs)) {
        co_mutex_lock(&s->writer->lock);
        ret = qcow2_signal_corruption(s->writer, "%s at guest offset %#" G_GINT64_MODIFIER "x",
                                      what, offset);
        co_mutex_unlock(&s->writer->lock);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK map_through_l2(BlockDriverState *bs, uint64_t l2_offset,
                                                    uint64_t offset, BdrvMapping *m)
{
    Qcow2State *s = bdrv_state(bs);
    Qcow2Slice *slice;
    Qcow2Entries entries;
    Qcow2Run run;
    int ret = qcow2_entries_get(s, l2_offset, offset, &slice, &entries);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_find_run(&s->geo, &entries, offset, &run);
    if (ret == 0) {
        qcow2_fill_mapping(s, &run, m);
        m->writable = is_writable(s, slice, &run);
    } else {
        ret = refuse_entry(bs, "Invalid L2 entry", offset);
    }
    qcow2_slice_unref(slice);
    return ret;
}

int coroutine_fn qcow2_co_map(BlockDriverState *bs, const BdrvMapRequest *req, BdrvMapping *m)
{
    Qcow2State *s = bdrv_state(bs);
    const Qcow2L1 *l1;
    uint64_t index, l2_offset;
    int ret;

    ret = prepare(s);
    if (ret < 0) {
        return ret;
    }
    memset(m, 0, sizeof(*m));
    qcow2_cleaner_wake(s);
    if (req->op != BDRV_MAP_READ) {
        return qcow2_co_map_change(bs, req, m);
    }
    l1 = g_atomic_pointer_get(&s->l1);
    index = (uint64_t)req->offset >> (s->geo.cluster_bits + s->geo.l2_bits);
    if (!qcow2_l1_entry_valid(&s->geo, l1_entry(l1, index), &l2_offset)) {
        return refuse_entry(bs, "Invalid L1 entry", req->offset);
    }
    if (l2_offset == 0) {
        map_empty(s, l1, index, m);
        return 0;
    }
    return map_through_l2(bs, l2_offset, req->offset, m);
}

int qcow2_decode(BlockDriverState *bs, const BdrvMapping *mapping, const uint8_t *src,
                 size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
    const Qcow2State *s = bdrv_state(bs);
    size_t cluster_size = qcow2_cluster_size(&s->geo);
    g_autofree uint8_t *whole = NULL;
    int ret;

    if (dst_bytes >= cluster_size) {
        return qcow2_decompress(s->header.compression_type, src, src_bytes, dst, cluster_size);
    }
    /* The disk ends inside this cluster. */
    whole = g_malloc(cluster_size);
    ret = qcow2_decompress(s->header.compression_type, src, src_bytes, whole, cluster_size);
    if (ret == 0) {
        memcpy(dst, whole, dst_bytes);
    }
    return ret;
}
