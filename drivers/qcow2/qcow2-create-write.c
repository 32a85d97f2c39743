/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: write the tables of a new image. They are streamed: of L2 tables and
 * refcount blocks only what fits into a buffer is in memory.
 *
 * Invariant: the file has no header until all that it refers to is on disk.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-create.h"

#define BUFFER_BYTES (1024 * 1024)

/* Joins what is written to consecutive places. */
typedef struct Writer {
    const Qcow2NewImage *image;
    BlockBackend *file;
    uint8_t *buf;
    size_t size;
    uint64_t start; /* where buf goes */
    size_t used;
} Writer;

static int writer_flush(Writer *w)
{
    int ret = w->used > 0 ? blk_pwrite(w->file, w->start, w->used, w->buf, 0) : 0;

    w->used = 0;
    return ret;
}

/* Room for @bytes (at most a cluster) at @offset of the file. */
static int writer_room(Writer *w, uint64_t offset, size_t bytes, uint8_t **room)
{
    if (offset != w->start + w->used || bytes > w->size - w->used) {
        int ret = writer_flush(w);

        if (ret < 0) {
            return ret;
        }
        w->start = offset;
    }
    *room = w->buf + w->used;
    w->used += bytes;
    return 0;
}

static int write_piece(void *opaque, uint64_t l2, uint64_t guest, uint64_t count, uint64_t host)
{
    Writer *w = opaque;
    const Qcow2Geometry *geo = &w->image->geo;
    size_t entry_bytes = (size_t)1 << geo->l2_entry_bits;
    uint64_t index = guest & ((1ULL << geo->l2_bits) - 1);
    uint64_t offset = (l2 << geo->cluster_bits) + index * entry_bytes;

    for (uint64_t i = 0; i < count; i++, offset += entry_bytes) {
        /* Of an extended entry the second word says: no subcluster is written. */
        uint64_t words[2] = { GUINT64_TO_BE(QCOW2_COPIED | (host + i) << geo->cluster_bits), 0 };
        uint8_t *room;
        int ret = writer_room(w, offset, entry_bytes, &room);

        if (ret < 0) {
            return ret;
        }
        memcpy(room, words, entry_bytes);
    }
    return 0;
}

static int write_l2_tables(Qcow2NewImage *image, Writer *w)
{
    Qcow2Layout again;
    int ret;

    qcow2_layout_init(&again, image->geo.cluster_bits, image->geo.refcount_order);
    ret = qcow2_new_image_walk(image, &again, write_piece, w);
    qcow2_layout_clear(&again);
    return ret;
}

static int write_refcount_blocks(const Qcow2NewImage *image, Writer *w)
{
    const Qcow2Layout *l = &image->layout;

    for (uint64_t i = 0; i < l->entries; i++) {
        uint8_t *block;
        int ret = l->blocks[i] == 0 ? 0
                                    : writer_room(w, l->blocks[i] << l->cluster_bits,
                                                  (size_t)1 << l->cluster_bits, &block);

        if (ret < 0) {
            return ret;
        }
        if (l->blocks[i] != 0) {
            qcow2_layout_fill_block(l, i, block);
        }
    }
    return 0;
}

/* A table of cluster numbers as places with @flags. */
static int write_table(Writer *w, uint64_t offset, const uint64_t *clusters, uint64_t count,
                       uint64_t flags)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t place = clusters[i] << w->image->geo.cluster_bits;
        uint64_t word = GUINT64_TO_BE(place ? place | flags : 0);
        uint8_t *room;
        int ret = writer_room(w, offset + i * sizeof(word), sizeof(word), &room);

        if (ret < 0) {
            return ret;
        }
        memcpy(room, &word, sizeof(word));
    }
    return 0;
}

static int write_tables(Qcow2NewImage *image, Writer *w)
{
    const Qcow2Header *h = &image->header;
    int ret = write_l2_tables(image, w);

    if (ret >= 0) {
        ret = write_refcount_blocks(image, w);
    }
    if (ret >= 0) {
        ret = write_table(w, h->refcount_table_offset, image->layout.blocks,
                          image->layout.entries, 0);
    }
    if (ret >= 0) {
        ret = write_table(w, h->l1_table_offset, image->l1, h->l1_size, QCOW2_COPIED);
    }
    return ret < 0 ? ret : writer_flush(w);
}

int qcow2_new_image_write(Qcow2NewImage *image, BlockBackend *file)
{
    size_t cluster_size = qcow2_cluster_size(&image->geo);
    Writer w = { .image = image, .file = file, .size = MAX(BUFFER_BYTES, cluster_size) };
    int ret;

    w.buf = g_malloc(w.size);
    ret = write_tables(image, &w);
    g_free(w.buf);
    if (ret >= 0) {
        ret = blk_flush(file);
    }
    if (ret >= 0) {
        ret = blk_pwrite(file, 0, cluster_size, image->header_cluster, 0);
    }
    return ret < 0 ? ret : blk_flush(file);
}
