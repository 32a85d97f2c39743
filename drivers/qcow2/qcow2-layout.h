/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: which cluster of a new image holds what. The clusters are given out
 * in the order in which QEMU takes them, so that images made with equal options
 * have their data at equal places. No I/O here; all places are cluster numbers.
 *
 * Invariants:
 *  1. A cluster is free if and only if it lies in a gap, or at or behind @end.
 *  2. Gaps are in order, not empty, do not touch, and end before @end.
 *  3. Each cluster that was given out, and each refcount block and cluster of
 *     the table, is described by a block that the table has.
 */
#ifndef DRIVERS_QCOW2_LAYOUT_H
#define DRIVERS_QCOW2_LAYOUT_H

#include <glib.h>
#include <stdint.h>

typedef struct Qcow2Gap {
    uint64_t first;
    uint64_t end;
} Qcow2Gap;

typedef struct Qcow2Layout {
    unsigned cluster_bits;
    unsigned block_bits; /* log2 of the refcounts in a block */
    uint64_t table;      /* the refcount table */
    uint64_t table_clusters;
    uint64_t *blocks; /* the table's entries; 0: no block */
    uint64_t entries;
    uint64_t next; /* where the search for free clusters goes on */
    uint64_t end;
    GArray *gaps; /* of Qcow2Gap */
} Qcow2Layout;

/*
 * The layout of an image with a header, a refcount table and a block, one
 * cluster each, and nothing else. End with qcow2_layout_clear().
 */
void qcow2_layout_init(Qcow2Layout *l, unsigned cluster_bits, unsigned refcount_order);
void qcow2_layout_clear(Qcow2Layout *l);

/*
 * Take @count (> 0) consecutive free clusters, and what more refcount blocks
 * that needs; *@first is the first. 0, or -EFBIG if the refcount table would
 * get too large.
 */
int qcow2_layout_alloc(Qcow2Layout *l, uint64_t count, uint64_t *first);

/*
 * Make a new refcount table behind the end, with blocks for @count clusters
 * that follow it; @count clusters of them can then be had with
 * qcow2_layout_take_end(). The old table becomes free. 0 or -EFBIG.
 */
int qcow2_layout_reserve(Qcow2Layout *l, uint64_t count);
/* Take @count clusters at the end; the blocks for them are there. */
uint64_t qcow2_layout_take_end(Qcow2Layout *l, uint64_t count);

/* What the refcount block number @chunk holds: one cluster of bytes. */
void qcow2_layout_fill_block(const Qcow2Layout *l, uint64_t chunk, uint8_t *block);

#endif
