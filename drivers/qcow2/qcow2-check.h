/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: what the parts of check and repair share. */
#ifndef DRIVERS_QCOW2_CHECK_H
#define DRIVERS_QCOW2_CHECK_H

#include "drivers/qcow2/qcow2.h"

/* ---- qcow2-refmap.c: pure -------------------------------------------------------- */

typedef struct Qcow2RefMap Qcow2RefMap;
Qcow2RefMap *qcow2_refmap_new(void);
void qcow2_refmap_free(Qcow2RefMap *map);
void qcow2_refmap_add(Qcow2RefMap *map, uint64_t cluster);
/* Take back what an add of the same cluster did. */
void qcow2_refmap_remove(Qcow2RefMap *map, uint64_t cluster);
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

/* Clusters, both included. */
typedef struct Qcow2CheckRange {
    uint64_t first;
    uint64_t last;
} Qcow2CheckRange;

typedef struct Qcow2Check {
    Qcow2State *s;
    int fix; /* BdrvCheckFix */
    BdrvCheckResult *result;
    BdrvCheckReport *report;
    void *opaque;
    Qcow2RefMap *references;
    uint64_t file_length;
    uint64_t *reftable;
    uint64_t reftable_entries;
    Qcow2CheckBlock *blocks; /* by index modulo their number */
    unsigned nb_blocks;
    /* The refcounts cannot be repaired where they are. */
    bool rebuild;
    /* What was found that is not about refcounts. */
    int64_t other_corruptions;
    int64_t other_errors;
    guint other_strays;
    /* Repair: */
    bool wrote;          /* since the last flush */
    bool settled;        /* refcounts are, or are about to be, what was counted */
    GArray *too_low;     /* of uint64_t: refcount blocks where some are to be raised */
    GArray *too_high;    /* or lowered */
    int64_t nb_too_low;  /* refcounts */
    int64_t nb_too_high;
    GArray *strays;      /* of Qcow2CheckRange: referenced, behind the end of the file */
    guint adopted;       /* of these, in order, that the file has come to hold */
    uint64_t own_first;  /* clusters that repair itself has taken */
    uint64_t own_end;
    Qcow2RefMap *fixed;  /* metadata which nothing may be written over; NULL: not made yet */
    Qcow2SnapshotTable snapshots;
    GByteArray *new_snapshots; /* the table to write; NULL: the one there is good */
    int64_t snapshot_corruptions;
    /* Clusters of the old table, which is in force until the new one is written. */
    uint64_t held_first;
    uint64_t held_end;
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
/* The cluster behind the last one that the file has, or that is referenced. */
uint64_t qcow2_check_end(Qcow2Check *c);
/* The references which the image should have a refcount for: not above the maximum. */
uint64_t qcow2_check_wanted(Qcow2Check *c, uint64_t cluster);
/*
 * What the image says of @cluster, or will say once it is repaired; -errno if
 * that cannot be read.
 */
int coroutine_fn qcow2_check_refcount(Qcow2Check *c, uint64_t cluster,
                                      uint64_t *refcount) GRAPH_RDLOCK;
/* References by the refcount table itself, last of all. */
void qcow2_check_refcount_blocks(Qcow2Check *c);
/* Forget those again: what they describe is about to be replaced. */
void qcow2_check_forget_refcount_blocks(Qcow2Check *c);
/* Forget the refcount blocks that are in memory. */
void qcow2_check_drop_blocks(Qcow2Check *c);
/*
 * Compare what was counted with what the image says. With @fix, put down in
 * too_low and too_high what can be repaired, instead of counting it.
 */
int coroutine_fn qcow2_check_compare(Qcow2Check *c, int fix) GRAPH_RDLOCK;

/* ---- qcow2-check-tables.c, qcow2-check-copied.c ------------------------------------- */

/* References by an L1 table and all below it; @active: gather statistics. */
int coroutine_fn qcow2_check_l1(Qcow2Check *c, uint64_t offset, uint32_t size,
                                bool active) GRAPH_RDLOCK;
/* Read an L2 table into @words, in host order; zeros past the end of the file. */
int coroutine_fn qcow2_check_read_l2(Qcow2Check *c, uint64_t offset,
                                     uint64_t *words) GRAPH_RDLOCK;
/* Whether "copied" in the active tables agrees with the refcounts; @repair: make it so. */
int coroutine_fn qcow2_check_copied(Qcow2Check *c, bool repair) GRAPH_RDLOCK;
/* Read an L1 table as far as the file has it. */
int coroutine_fn qcow2_check_read_l1(Qcow2Check *c, uint64_t offset, uint32_t size,
                                     uint64_t **entries, uint64_t *count) GRAPH_RDLOCK;

/* ---- qcow2-repair.c --------------------------------------------------------------------- */

/* Report what could not be written, and count it; returns @ret. */
int qcow2_repair_unwritable(Qcow2Check *c, int ret, const char *what, uint64_t offset);
/* Make the image file at least @end bytes long, or report why not. */
int coroutine_fn qcow2_repair_grow(Qcow2Check *c, uint64_t end) GRAPH_RDLOCK;
/* Write at @offset of the image file, or report why not. */
int coroutine_fn qcow2_repair_write(Qcow2Check *c, uint64_t offset, uint64_t bytes,
                                    const void *buf, const char *what) GRAPH_RDLOCK;
/* Make durable what was written, or report why not. */
int coroutine_fn qcow2_repair_flush(Qcow2Check *c) GRAPH_RDLOCK;
/*
 * Whether nothing but one table lies in the cluster at @offset, so that an
 * entry of it can be written there. @own: it is counted as fixed metadata once.
 */
bool qcow2_repair_may_write(Qcow2Check *c, uint64_t offset, uint64_t bytes, bool own);
/* Before anything is looked at: clear the autoclear bits that are not known. */
int coroutine_fn qcow2_repair_begin(Qcow2Check *c) GRAPH_RDLOCK;
/* Raise the refcounts that are too low, or build new ones. The snapshot table
 * is written after that. */
int coroutine_fn qcow2_repair_refcounts(Qcow2Check *c) GRAPH_RDLOCK;
/* When all entries are repaired: lower the refcounts, clear dirty and corrupt. */
int coroutine_fn qcow2_repair_end(Qcow2Check *c) GRAPH_RDLOCK;

/* Whatever became of it: load anew what the node has in memory. 0 or -errno. */
int coroutine_fn qcow2_repair_forget(Qcow2State *s) GRAPH_RDLOCK;

/* ---- qcow2-repair-rebuild.c ------------------------------------------------------------- */

/*
 * The first of @count clusters behind the end of the file where no reference
 * leads that was behind it before: it would lead into what is written there.
 * The clusters in between, which the file will hold, count as referenced.
 */
uint64_t qcow2_repair_behind_end(Qcow2Check *c, uint64_t count);
/* New refcounts behind the end of the file, then let the header point to them. */
int coroutine_fn qcow2_repair_rebuild(Qcow2Check *c) GRAPH_RDLOCK;

/* ---- qcow2-repair-snapshot.c ------------------------------------------------------------ */

/*
 * Load the snapshot table as far as it can be used into c->snapshots; what was
 * wrong is counted, and a better table made for writing.
 */
int coroutine_fn qcow2_repair_load_snapshots(Qcow2Check *c) GRAPH_RDLOCK;
/* Find a place for the new table, and count it as used. */
void qcow2_repair_place_snapshots(Qcow2Check *c);
/* Write it, then let the header point to it. */
int coroutine_fn qcow2_repair_write_snapshots(Qcow2Check *c) GRAPH_RDLOCK;

#endif
