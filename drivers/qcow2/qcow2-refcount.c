/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: refcounts as they are on disk (section "Host cluster management"). */
#include <errno.h>
#include "drivers/qcow2/qcow2.h"

uint64_t qcow2_refcount_at(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned bits = 1U << order;
        unsigned shift = (index << order) & 7;

        return block[index << order >> 3] >> shift & ((1U << bits) - 1);
    }
    case 3:
        return block[index];
    case 4:
        return qcow2_be16(block + index * 2);
    case 5:
        return qcow2_be32(block + index * 4);
    default:
        return qcow2_be64(block + index * 8);
    }
}

void qcow2_refcount_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    unsigned bits = 1U << order;

    g_assert(order == 6 || value >> bits == 0);
    if (order < 3) {
        uint8_t *byte = &block[index << order >> 3];
        unsigned shift = (index << order) & 7;

        *byte = (*byte & ~(((1U << bits) - 1) << shift)) | value << shift;
        return;
    }
    for (unsigned i = 0; i < bits / 8; i++) {
        block[index * (bits / 8) + i] = value >> (bits - 8 * (i + 1));
    }
}

unsigned qcow2_refcount_block_bits(const Qcow2Geometry *geo)
{
    return geo->cluster_bits + 3 - geo->refcount_order;
}

int coroutine_fn qcow2_reftable_load(Qcow2State *s, uint64_t **table, uint64_t *count)
{
    uint64_t bytes = (uint64_t)s->header.refcount_table_clusters << s->geo.cluster_bits;
    uint64_t file_length = qcow2_file_length(s);
    uint64_t offset = s->header.refcount_table_offset;
    int ret;

    *count = offset < file_length ? MIN(bytes, file_length - offset) / 8 : 0;
    *table = g_try_malloc(MAX(*count * 8, 1));
    if (!*table) {
        return -ENOMEM;
    }
    bdrv_co_debug_event(s->file, BDRV_DEBUG_REFTABLE_LOAD);
    ret = *count ? bdrv_co_pread(s->file, offset, *count * 8, *table, 0) : 0;
    if (ret < 0) {
        g_clear_pointer(table, g_free);
        return ret;
    }
    qcow2_words_to_host(*table, *count);
    return 0;
}

/* What is counted until it is clear. */
typedef struct Tally {
    uint64_t in_use;
    uint64_t enough;     /* stop here: preallocated */
    uint64_t blocks_left; /* refcount blocks that may still be read */
} Tally;

static int coroutine_fn GRAPH_RDLOCK tally_block(Qcow2State *s, uint64_t offset, uint64_t refcounts,
                                                 uint8_t *block, Tally *tally)
{
    int ret;

    bdrv_co_debug_event(s->file, BDRV_DEBUG_REFBLOCK_LOAD);
    ret = bdrv_co_pread(s->file, offset, qcow2_cluster_size(&s->geo), block, 0);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; i < refcounts && tally->in_use < tally->enough; i++) {
        tally->in_use += qcow2_refcount_at(block, s->geo.refcount_order, i) != 0;
    }
    return 0;
}

int coroutine_fn qcow2_detect_preallocation(Qcow2State *s)
{
    uint64_t file_length = qcow2_file_length(s);
    uint64_t clusters = qcow2_clusters(&s->geo, file_length);
    uint64_t on_disk = MAX(s->file_allocated, 0) >> s->geo.cluster_bits;
    unsigned block_bits = qcow2_refcount_block_bits(&s->geo);
    /* A tenth more than there can be, and some slack for the metadata. */
    Tally tally = { .enough = MAX(on_disk * 10 / 9, on_disk + 2), .blocks_left = on_disk + 2 };
    g_autofree uint64_t *table = NULL;
    g_autofree uint8_t *block = NULL;
    uint64_t count;
    int ret;

    if (s->file_allocated < 0 || clusters < tally.enough) {
        return 0;
    }
    ret = qcow2_reftable_load(s, &table, &count);
    if (ret < 0) {
        return ret;
    }
    block = g_malloc(qcow2_cluster_size(&s->geo));
    for (uint64_t i = 0; i < count && i << block_bits < clusters; i++) {
        uint64_t offset = table[i] & QCOW2_REFTABLE_OFFSET_MASK;

        /* A damaged entry is check's business; here it counts nothing. */
        if (offset == 0 || qcow2_offset_into_cluster(&s->geo, offset) || offset >= file_length) {
            continue;
        }
        if (tally.blocks_left-- == 0) {
            return 0;
        }
        ret = tally_block(s, offset, MIN(1ULL << block_bits, clusters - (i << block_bits)), block,
                          &tally);
        if (ret < 0) {
            return ret;
        }
        if (tally.in_use >= tally.enough) {
            return 1;
        }
    }
    return 0;
}
