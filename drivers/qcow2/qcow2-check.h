/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: what the parts of check share. */
#ifndef DRIVERS_QCOW2_CHECK_H
#define DRIVERS_QCOW2_CHECK_H

#include "drivers/qcow2/qcow2.h"

/* ---- qcow2-refmap.c: pure -------------------------------------------------------- */

typedef struct Qcow2RefMap Qcow2RefMap;
Qcow2RefMap *qcow2_refmap_new(void);
void qcow2_refmap_free(Qcow2RefMap *map);
void qcow2_refmap_add(Qcow2RefMap *map, uint64_t cluster);
uint64_t qcow2_refmap_get(Qcow2RefMap *map, uint64_t cluster);
/* The first cluster from @cluster on, before @end, that may have been added. */
uint64_t qcow2_refmap_next(Qcow2RefMap *map, uint64_t cluster, uint64_t end);

/* ---- One run of check ------------------------------------------------------------- */

/* A refcount block that was read. */
typedef struct Qcow2CheckBlock {
    uint64_t index; /* in the refcount table; UINT64_MAX: none */
    int error;      /* 0, or why it cannot be read */
    bool is_zero;   /* not there: all refcounts are 0 */
    uint8_t *data;
} Qcow2CheckBlock;

typedef struct Qcow2Check {
    Qcow2State *s;
    BdrvCheckResult *result;
    BdrvCheckReport *report;
    void *opaque;
    Qcow2RefMap *references;
    uint64_t file_length;
    uint64_t *reftable;
    uint64_t reftable_entries;
    Qcow2CheckBlock *blocks; /* by index modulo their number */
    unsigned nb_blocks;
} Qcow2Check;

/* Report one line. */
void qcow2_check_report(Qcow2Check *c, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same for a corruption. */
void qcow2_check_corrupt(Qcow2Check *c, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same for what cannot be read; returns @ret. */
int qcow2_check_unreadable(Qcow2Check *c, int ret, const char *what, uint64_t offset);

/* ---- qcow2-check-refcount.c -------------------------------------------------------- */

/* Count a reference to each cluster that [@offset, @offset + @bytes) touches. */
void qcow2_check_reference(Qcow2Check *c, uint64_t offset, uint64_t bytes);
/* What the image says of @cluster; -errno if that cannot be read. */
int coroutine_fn qcow2_check_refcount(Qcow2Check *c, uint64_t cluster,
                                      uint64_t *refcount) GRAPH_RDLOCK;
/* References by the refcount table itself, last of all. */
void qcow2_check_refcount_blocks(Qcow2Check *c);
/* Compare what was counted with what the image says. */
int coroutine_fn qcow2_check_compare(Qcow2Check *c) GRAPH_RDLOCK;

/* ---- qcow2-check-tables.c ----------------------------------------------------------- */

/* References by an L1 table and all below it; @active: gather statistics. */
int coroutine_fn qcow2_check_l1(Qcow2Check *c, uint64_t offset, uint32_t size,
                                bool active) GRAPH_RDLOCK;
/* Whether "copied" in the active tables agrees with the refcounts. */
int coroutine_fn qcow2_check_copied(Qcow2Check *c) GRAPH_RDLOCK;
/* Read an L1 table as far as the file has it. */
int coroutine_fn qcow2_check_read_l1(Qcow2Check *c, uint64_t offset, uint32_t size,
                                     uint64_t **entries, uint64_t *count) GRAPH_RDLOCK;

#endif
