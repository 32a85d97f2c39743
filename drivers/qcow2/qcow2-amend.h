/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: amending an image: what its parts share. The node is drained: nothing else
 * uses the image. Each step leaves an image that is whole, whenever the power goes.
 */
#ifndef DRIVERS_QCOW2_AMEND_H
#define DRIVERS_QCOW2_AMEND_H

#include "drivers/qcow2/qcow2-alloc.h"

/* How far it is, told in parts of the whole. */
typedef struct Qcow2Progress {
    BdrvAmendProgress *report;
    void *opaque;
    unsigned steps; /* that take their time */
    unsigned step;  /* at work */
} Qcow2Progress;
void qcow2_progress(const Qcow2Progress *p, uint64_t done, uint64_t total);

/*
 * Put @header in force, with the extensions @ext: all that makes a difference is
 * one write of a sector; false with @errp. The names of features are left out if
 * they do not fit there. @backing is the backing file's new name, "" for none; NULL: it stays.
 */
int coroutine_fn qcow2_header_switch(Qcow2State *s, const Qcow2Header *header,
                                     const Qcow2Extensions *ext, const char *backing,
                                     GError **errp) GRAPH_RDLOCK;

/* Refcounts of 1 << @order bits: the same numbers in new tables. 0 or -errno with @errp. */
int coroutine_fn qcow2_change_refcount_order(Qcow2State *s, unsigned order,
                                             const Qcow2Progress *progress,
                                             GError **errp) GRAPH_RDLOCK;

/*
 * Leave no zero clusters in the active tables: zeros as data where a backing file
 * would show, else nothing. 0 or -errno.
 */
int coroutine_fn qcow2_expand_zeroes(BlockDriverState *bs,
                                     const Qcow2Progress *progress) GRAPH_RDLOCK;
/* 1 if a snapshot's tables have zero clusters, 0 if none has; -errno. */
int coroutine_fn qcow2_snapshots_have_zeroes(Qcow2State *s) GRAPH_RDLOCK;

#endif
