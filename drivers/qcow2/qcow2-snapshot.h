/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: what creating, applying and deleting snapshots share.
 *
 * All of it runs drained, with the metadata in memory written back.
 *
 * Invariants, for a power cut at any time:
 *  1. The header leads to one snapshot table or to another, and to one L1 table with the
 *     length that belongs to it or to another: each by one write inside one sector.
 *  2. No reference is on the disk before a flush has covered the refcount for it; no
 *     refcount goes down before a flush has covered that the reference is gone.
 *  3. No "copied" is on the disk, in tables that the active L1 table leads to or is about
 *     to, where the refcount might be above 1: it is cleared before that is raised, and set
 *     after that was lowered.
 *  4. While "copied" may be missing where the refcount is 1, which check calls an
 *     error, the dirty bit is set (version 2 has none): whoever opens it next repairs it.
 */
#ifndef DRIVERS_QCOW2_SNAPSHOT_H
#define DRIVERS_QCOW2_SNAPSHOT_H

#include "drivers/qcow2/qcow2-alloc.h"

/* ---- The driver's callbacks -------------------------------------------------------------- */

int coroutine_fn qcow2_co_snapshot_create(BlockDriverState *bs, const BdrvSnapshotInfo *info,
                                          GError **errp) GRAPH_RDLOCK;
int coroutine_fn qcow2_co_snapshot_goto(BlockDriverState *bs, size_t index,
                                        GError **errp) GRAPH_RDLOCK;
int coroutine_fn qcow2_co_snapshot_delete(BlockDriverState *bs, size_t index,
                                          GError **errp) GRAPH_RDLOCK;

/* ---- qcow2-snapshot-table.c --------------------------------------------------------------- */

/* Whether the image can have its snapshots changed; else -errno with @errp. */
int coroutine_fn qcow2_snapshots_begin(Qcow2State *s, GError **errp) GRAPH_RDLOCK;
/* Bring all metadata to the disk. 0 or -errno. */
int coroutine_fn qcow2_snapshots_settle(Qcow2State *s) GRAPH_RDLOCK;
/* The L1 table of @sn with @entries entries, if it has fewer. NULL with @errp. */
Qcow2L1 *coroutine_fn qcow2_snapshot_load_l1(Qcow2State *s, const Qcow2Snapshot *sn,
                                             uint64_t entries, GError **errp) GRAPH_RDLOCK;
/* Write @l1 to new clusters at *@offset. 0 or -errno; then there are none. */
int coroutine_fn qcow2_snapshot_store_l1(Qcow2State *s, const Qcow2L1 *l1,
                                         uint64_t *offset) GRAPH_RDLOCK;
/* The entries of the snapshot table as the file has them. 0 or -errno. */
int coroutine_fn qcow2_snapshot_table_read(Qcow2State *s, GByteArray *table) GRAPH_RDLOCK;
/*
 * Write a snapshot table with these entries to new clusters at *@offset (0 if there are
 * none), and have all metadata on the disk. 0 or -errno; then there are no clusters.
 */
int coroutine_fn qcow2_snapshot_table_store(Qcow2State *s, const GByteArray *table,
                                            uint64_t *offset) GRAPH_RDLOCK;
/*
 * Let the header lead to that table, which has @count entries; the old one's clusters are
 * free then. 0 or -errno, and the new ones are free; *@uncertain: they are not, since the
 * header may lead there all the same.
 */
int coroutine_fn qcow2_snapshot_table_switch(Qcow2State *s, const GByteArray *table,
                                             uint32_t count, uint64_t offset,
                                             bool *uncertain) GRAPH_RDLOCK;
/* Both. */
int coroutine_fn qcow2_snapshot_table_replace(Qcow2State *s, const GByteArray *table,
                                              uint32_t count, bool *uncertain) GRAPH_RDLOCK;

/* ---- qcow2-snapshot-tree.c ------------------------------------------------------------------ */

/*
 * Add 1 to the refcount of every cluster that @l1 leads to, once for each reference, or
 * nothing at all. 0 or -errno with @errp.
 */
int coroutine_fn qcow2_tree_raise(Qcow2State *s, const Qcow2L1 *l1, GError **errp) GRAPH_RDLOCK;
/* Take back what that did. An error is a leak. */
void coroutine_fn qcow2_tree_undo_raise(Qcow2State *s, const Qcow2L1 *l1) GRAPH_RDLOCK;
/* Drop every reference that @l1 has had. 0 or -errno: then some are left, as leaks. */
int coroutine_fn qcow2_tree_drop(Qcow2State *s, const Qcow2L1 *l1) GRAPH_RDLOCK;
/* Clear "copied" in all L2 tables of @l1, in the file. */
int coroutine_fn qcow2_tree_clear_copied(Qcow2State *s, const Qcow2L1 *l1) GRAPH_RDLOCK;
/*
 * The same in the active tables, the L1 table included, on the disk. Sets writer->copied_missing:
 * it may be clear where the refcount is 1.
 */
int coroutine_fn qcow2_active_clear_copied(Qcow2State *s) GRAPH_RDLOCK;
/*
 * Bring the refcounts to the disk, then set it in the active tables, where they are 1, there
 * as well. Clears copied_missing; if it fails, it is to be done again some time.
 */
int coroutine_fn qcow2_active_set_copied(Qcow2State *s) GRAPH_RDLOCK;

#endif
