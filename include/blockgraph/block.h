/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph: nodes (BlockDriverState), edges (BdrvChild), and how images are
 * opened.
 *
 * A node is one layer of an image: a protocol (a file), a format on it, a
 * filter. It is refcounted and has a name that is unique in the process. An
 * edge leads from a parent (a node or a BlockBackend) to a child node; it has
 * a name, a role, the permissions it takes on the child, and those it lets
 * other parents have.
 *
 * Everything here is global state (main thread, big lock held, not in a
 * coroutine) unless its comment says otherwise.
 */
#ifndef BLOCKGRAPH_BLOCK_H
#define BLOCKGRAPH_BLOCK_H

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/annotations.h"
#include "blockgraph/error.h"
#include "blockgraph/graph-lock.h"
#include "blockgraph/map.h"

G_BEGIN_DECLS

typedef struct BlockDriver BlockDriver;
typedef struct BlockBackend BlockBackend;

/* Units of 512 bytes, where a format or a user counts in sectors. */
#define BDRV_SECTOR_BITS 9
#define BDRV_SECTOR_SIZE (1LL << BDRV_SECTOR_BITS)
/* No node is larger, and no request ends beyond it. Bytes. */
#define BDRV_MAX_LENGTH (INT64_MAX & ~(int64_t)0xffff)
/* Chains of nodes deeper than this are refused. */
#define BDRV_MAX_DEPTH 256

/* ---- Permissions --------------------------------------------------------- */

typedef enum BlkPerm {
    BLK_PERM_CONSISTENT_READ = 1 << 0, /* reads give what was written */
    BLK_PERM_WRITE = 1 << 1,
    BLK_PERM_WRITE_UNCHANGED = 1 << 2, /* writes that change nothing visible */
    BLK_PERM_RESIZE = 1 << 3,
    BLK_PERM_ALL = (1 << 4) - 1,
} BlkPerm;

/* "consistent read, write" and so on; free with g_free(). Any thread. */
char *bdrv_perm_names(uint64_t perm);

/* What a child is for. A child has one or several roles. */
typedef enum BdrvChildRole {
    BDRV_CHILD_DATA = 1 << 0,     /* guest data */
    BDRV_CHILD_METADATA = 1 << 1, /* the format's own tables */
    BDRV_CHILD_FILTERED = 1 << 2, /* the parent presents the same data */
    BDRV_CHILD_COW = 1 << 3,      /* read where the parent has nothing */
    BDRV_CHILD_PRIMARY = 1 << 4,  /* the one to go to for most questions */
    BDRV_CHILD_IMAGE = BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY,
} BdrvChildRole;

/* ---- Opening ------------------------------------------------------------- */

typedef enum BdrvOpenFlags {
    BDRV_O_RDWR = 1 << 0,
    BDRV_O_RESIZE = 1 << 1,     /* the caller will resize the image */
    BDRV_O_NO_BACKING = 1 << 2, /* do not open the backing file */
    BDRV_O_NO_IO = 1 << 3,      /* metadata only: no data file, no guest I/O */
    BDRV_O_CHECK = 1 << 4,      /* for check: open what is damaged, too */
    BDRV_O_UNMAP = 1 << 5,      /* pass discards down */
    BDRV_O_NOCACHE = 1 << 6,    /* default of cache.direct */
    BDRV_O_NO_FLUSH = 1 << 7,   /* default of cache.no-flush */
    BDRV_O_FORCE_SHARE = 1 << 8, /* default of force-share */
    BDRV_O_PROTOCOL = 1 << 9,    /* no format: the protocol node itself */
    BDRV_O_AUTO_RDONLY = 1 << 10, /* default of auto-read-only: read-only if need be */
    /* All reads of the node are BDRV_REQ_COPY_ON_READ; it stays open for writing. */
    BDRV_O_COPY_ON_READ = 1 << 11,
} BdrvOpenFlags;

/* What an image wants to have opened. */
typedef enum BlockReferenceKind {
    BLOCK_REFERENCE_BACKING,
    BLOCK_REFERENCE_DATA_FILE,
} BlockReferenceKind;

/*
 * Who decides whether a file that an image names may be opened. Without a
 * policy nothing is. What the caller names himself, in a filename or in
 * options, needs no policy.
 */
typedef struct BlockOpenPolicy {
    /*
     * Whether @image (a filename) may refer to @name: a backing file's name
     * resolved relative to @image, a data file's as it stands; possibly
     * "json:…" or with a protocol. False sets @errp.
     */
    bool (*allow)(void *opaque, const char *image, BlockReferenceKind kind, const char *name,
                  GError **errp);
    void *opaque;
} BlockOpenPolicy;

/* Follow every reference, as QEMU does. */
extern const BlockOpenPolicy block_open_policy_follow;

/*
 * Open an image and return a reference to its top node, or NULL with @errp.
 *
 * @filename is a path, "PROTOCOL:…" of a registered protocol, "json:{…}", or
 * NULL if @options name all. @options (may be NULL; stays the caller's, is not
 * changed) has the keys driver, node-name, read-only, auto-read-only, discard,
 * detect-zeroes, force-share, cache.direct, cache.no-flush, and those of the driver. A string
 * instead of an object names a node that exists. Without "driver" the format
 * is probed.
 *
 * @policy decides about backing and data files (NULL: none may be opened); it
 * is kept by pointer while the nodes live. The whole chain is open when this
 * returns, unless flags say otherwise. A chain that comes back to a file it
 * has been at (by device and inode), or is deeper than BDRV_MAX_DEPTH, is an
 * error. Waits for I/O.
 */
BlockDriverState *bdrv_open(const char *filename, JsonObject *options, int flags,
                            const BlockOpenPolicy *policy, GError **errp);

/* Take or drop a reference. The last one closes the node; NULL is accepted. */
BlockDriverState *bdrv_ref(BlockDriverState *bs);
void bdrv_unref(BlockDriverState *bs);

/* ---- Looking at the graph -------------------------------------------------
 * Results are borrowed: valid as long as the graph is not changed.
 */

/* The node of that name, or NULL. */
BlockDriverState *bdrv_find_node(const char *node_name);
/* The next node in order of creation; NULL starts, NULL ends. */
BlockDriverState *bdrv_next_node(BlockDriverState *bs);

/* The unique name; made up ("#block…") if the user gave none. Any thread. */
const char *bdrv_get_node_name(const BlockDriverState *bs);
/* "qcow2", "file", … Any thread. */
const char *bdrv_get_format_name(const BlockDriverState *bs);
/* The name a user would open it by; may be "json:…". */
const char *bdrv_get_filename(const BlockDriverState *bs);
bool bdrv_is_read_only(const BlockDriverState *bs);
bool bdrv_is_filter(const BlockDriverState *bs);
bool bdrv_is_protocol(const BlockDriverState *bs);
/* Whether the format was probed, not named by the user. */
bool bdrv_was_probed(const BlockDriverState *bs);
int bdrv_get_open_flags(const BlockDriverState *bs);

/* What becomes of a write of nothing but zeros ("detect-zeroes"). */
typedef enum BdrvDetectZeroes {
    BDRV_DETECT_ZEROES_OFF,
    BDRV_DETECT_ZEROES_ON,    /* it zeroes the range */
    BDRV_DETECT_ZEROES_UNMAP, /* the same, and may deallocate it */
} BdrvDetectZeroes;
/* Compressed writes are left alone. Any thread. */
BdrvDetectZeroes bdrv_get_detect_zeroes(const BlockDriverState *bs);
unsigned bdrv_get_refcount(const BlockDriverState *bs);

/* The node's children and parents in order of attaching; NULL starts and ends. */
BdrvChild *bdrv_next_child(BlockDriverState *bs, BdrvChild *child) GRAPH_RDLOCK;
BdrvChild *bdrv_next_parent(BlockDriverState *bs, BdrvChild *child) GRAPH_RDLOCK;
BdrvChild *bdrv_get_child(BlockDriverState *bs, const char *name) GRAPH_RDLOCK;
/* The child named "backing" if the node is no filter; else NULL. */
BdrvChild *bdrv_cow_child(BlockDriverState *bs) GRAPH_RDLOCK;
/* A filter's child that presents the same data; else NULL. */
BdrvChild *bdrv_filter_child(BlockDriverState *bs) GRAPH_RDLOCK;
/* cow or filter child, whichever there is. */
BdrvChild *bdrv_filter_or_cow_child(BlockDriverState *bs) GRAPH_RDLOCK;
/* The child with BDRV_CHILD_PRIMARY: usually "file". */
BdrvChild *bdrv_primary_child(BlockDriverState *bs) GRAPH_RDLOCK;
/* Below the filters: the first node that is none. */
BlockDriverState *bdrv_skip_filters(BlockDriverState *bs) GRAPH_RDLOCK;
/* The node behind the (filter-skipped) node's backing edge, or NULL. */
BlockDriverState *bdrv_backing_chain_next(BlockDriverState *bs) GRAPH_RDLOCK;

/* The edge's name ("file"), and the node that it leads to. */
const char *bdrv_child_name(const BdrvChild *child);
BlockDriverState *bdrv_child_bs(const BdrvChild *child) GRAPH_RDLOCK;
/* The parent node, or NULL if the parent is a backend. */
BlockDriverState *bdrv_child_parent(const BdrvChild *child);
int bdrv_child_role(const BdrvChild *child);
uint64_t bdrv_child_perm(const BdrvChild *child);
uint64_t bdrv_child_shared_perm(const BdrvChild *child);
/* "node 'x'", "backend 'y'": for messages; free with g_free(). */
char *bdrv_child_parent_desc(const BdrvChild *child);

/*
 * The whole graph below @bs (or of the process, if NULL) as a JSON object
 * {"nodes":[…],"edges":[…]} that the caller unrefs.
 */
JsonObject *bdrv_graph_to_json(BlockDriverState *bs) GRAPH_RDLOCK;

/* ---- Backing files --------------------------------------------------------- */

/* As the image's header has them; "" if it names none. Borrowed. */
const char *bdrv_get_backing_filename(const BlockDriverState *bs);
const char *bdrv_get_backing_format(const BlockDriverState *bs);
/*
 * The backing file's name made relative to the current directory, or NULL if
 * the header names none. False with @errp if it cannot be resolved (a relative
 * name below a "json:" image). Free *@name with g_free().
 */
bool bdrv_get_full_backing_filename(BlockDriverState *bs, char **name, GError **errp);
/*
 * Write another backing file's name and format into the image's header, both
 * copied; a NULL or empty @filename takes the reference out, a NULL or empty @format
 * means unknown. The graph stays as it is: see bdrv_set_backing(). The node
 * must be writable. It is drained and flushed: on success the new reference is
 * durable. Waits for I/O.
 */
bool bdrv_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                              GError **errp);

/* @done of @total parts are done; @total may change. */
typedef void BdrvAmendProgress(void *opaque, int64_t done, int64_t total);
/*
 * Change what the image was created with: @options are named like those for creating,
 * those that the driver's amend_options list. What is not named stays. All is checked
 * first; if something fails later, false with @errp, what was done before stays done,
 * and the image is whole. The node must be writable; it is drained and flushed. For
 * "size", its parents must share BLK_PERM_RESIZE. @progress may be NULL. Waits for I/O.
 */
bool bdrv_amend(BlockDriverState *bs, JsonObject *options, BdrvAmendProgress *progress,
                void *opaque, GError **errp);

/*
 * Give up all that the image itself holds of its disk, so that its backing file (or
 * zeros) shows through everywhere, and the space it took. Its length, its internal
 * snapshots and stored bitmaps stay; dirty bitmaps are not told. The node must be
 * writable; it is drained and flushed: on success it is durable. 0, or -errno with @errp,
 * -ENOTSUP if the format cannot: after other errors a part may be given up, and the image
 * is whole. Waits for I/O.
 */
int bdrv_make_empty(BlockDriverState *bs, GError **errp);

/* ---- Changing the graph ---------------------------------------------------- */

/*
 * Several changes that happen together or not at all. Changes take effect at
 * bdrv_transaction_commit(); if it fails, none has, and @errp says why. Nodes
 * concerned are drained meanwhile. The transaction is freed either way.
 */
typedef struct BdrvTransaction BdrvTransaction;
BdrvTransaction *bdrv_transaction_new(void);
/* Make all @child's parents' edges to @from lead to @to. */
void bdrv_transaction_replace_node(BdrvTransaction *tran, BlockDriverState *from,
                                   BlockDriverState *to);
/* Make one edge lead to @to. */
void bdrv_transaction_replace_child(BdrvTransaction *tran, BdrvChild *child, BlockDriverState *to);
/*
 * Set the backing child of @bs: replace it, attach it, or with @backing NULL
 * detach it. The image's header is left as it is. A chain that would come back to
 * a node or to a file (by device and inode), or would be deeper than BDRV_MAX_DEPTH, is
 * an error.
 */
void bdrv_transaction_set_backing(BdrvTransaction *tran, BlockDriverState *bs,
                                  BlockDriverState *backing);
bool bdrv_transaction_commit(BdrvTransaction *tran, GError **errp);
void bdrv_transaction_abort(BdrvTransaction *tran);

/* One-change transactions. */
bool bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, GError **errp);
bool bdrv_set_backing(BlockDriverState *bs, BlockDriverState *backing, GError **errp);

/* ---- Drained sections -------------------------------------------------------
 * Between begin and end no request is in flight in the node, or in any node
 * below which it was reached through it; parents hold new ones back. Sections
 * nest, and the graph may change inside. begin waits, polling the main
 * context.
 */
void bdrv_drained_begin(BlockDriverState *bs);
void bdrv_drained_end(BlockDriverState *bs);
void bdrv_drain_all_begin(void);
void bdrv_drain_all_end(void);

/* ---- Drivers ---------------------------------------------------------------- */

/* The registered driver of that name, protocol or format, or NULL. */
BlockDriver *bdrv_find_format(const char *name);
/*
 * The name @name, as an image called @base refers to it, as seen from here: what
 * is relative is so to the folder of @base. Free with g_free(). NULL with @errp if
 * @base has no folder ("json:"). Any thread.
 */
char *bdrv_combine_filename(const char *base, const char *name, GError **errp);
/* The driver for "NAME:…" filenames, or "file" for a plain path; NULL with
 * @errp for a protocol that nobody registered. */
BlockDriver *bdrv_find_protocol(const char *filename, GError **errp);
/* Registered drivers in order of name: NULL starts and ends. */
BlockDriver *bdrv_next_driver(BlockDriver *drv);
const char *bdrv_driver_name(const BlockDriver *drv);

/* ---- Small questions ---------------------------------------------------------- */

typedef struct BlockDriverInfo {
    int64_t cluster_size;     /* bytes; 0 if it has no such notion */
    int64_t subcluster_size;  /* bytes; equal to cluster_size if it has none */
    int64_t vm_state_offset;  /* bytes */
    bool is_dirty;            /* needs a check before it is trusted */
} BlockDriverInfo;
/* What the driver says of the image; 0 or -ENOTSUP. Waits for I/O. */
int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *info);
/*
 * What only this format knows, as the QAPI type ImageInfoSpecific: an object
 * {"type": …, "data": {…}} that the caller unrefs; NULL if there is none.
 */
JsonObject *bdrv_get_specific_info(BlockDriverState *bs, GError **errp);

/* Bytes that the node's own file takes on disk, or -errno. Waits for I/O. */
int64_t bdrv_get_allocated_file_size(BlockDriverState *bs);
bool bdrv_is_encrypted(const BlockDriverState *bs);

typedef struct BdrvSnapshotInfo {
    const char *id;         /* at most 127 bytes */
    const char *name;       /* at most 255 bytes */
    uint64_t vm_state_size; /* bytes */
    uint32_t date_sec;      /* since 1970, UTC */
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount;        /* UINT64_MAX if unknown */
    uint64_t disk_size;     /* bytes; UINT64_MAX if unknown */
} BdrvSnapshotInfo;
/*
 * The internal snapshot that is number @index, from 0, in the image's list; false
 * past the last. The strings are the node's, and stay until its snapshots change
 * or it is closed. Global state; no I/O.
 */
bool bdrv_snapshot_get(BlockDriverState *bs, size_t index, BdrvSnapshotInfo *info);
/* A dirty bitmap that is stored in the image. */
typedef struct BdrvStoredBitmapInfo {
    const char *name;
    int64_t granularity; /* bytes of the disk per bit */
    bool in_use;         /* not stored since it was last written to */
    bool is_auto;        /* is enabled when the image is opened */
} BdrvStoredBitmapInfo;
/*
 * The stored bitmap that is number @index, from 0, in the image's list: 1, 0
 * past the last, or -errno with @errp. The name is the node's, and stays until
 * the next call. Ask in order: the list may be read anew for it. Global state;
 * may wait for I/O.
 */
int bdrv_stored_bitmap_get(BlockDriverState *bs, size_t index, BdrvStoredBitmapInfo *info,
                           GError **errp);
/*
 * Read through the snapshot whose ID (else: whose name) is given, from now on;
 * for read-only nodes. NULL: not asked for. @tag matches an ID or a name.
 */
bool bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, GError **errp);
bool bdrv_snapshot_load_tmp_by_tag(BlockDriverState *bs, const char *tag, GError **errp);

/* ---- Check ------------------------------------------------------------------- */

typedef struct BdrvCheckResult {
    int64_t corruptions;
    int64_t leaks;
    int64_t check_errors; /* what could not be read */
    int64_t corruptions_fixed;
    int64_t leaks_fixed;
    int64_t image_end_offset; /* bytes; 0 if the format does not say */
    int64_t total_clusters;   /* of the guest disk; 0 if it does not say */
    int64_t allocated_clusters;
    int64_t fragmented_clusters;
    int64_t compressed_clusters;
} BdrvCheckResult;

/* What repair may change; a set. */
typedef enum BdrvCheckFix {
    BDRV_FIX_LEAKS = 1 << 0,  /* give back what nothing refers to */
    BDRV_FIX_ERRORS = 1 << 1, /* all else */
} BdrvCheckFix;

/* Called with each finding, one line without a newline. */
typedef void BdrvCheckReport(void *opaque, const char *line);

/*
 * Check the image's own metadata, and report what is wrong. 0 if it could be
 * done (@result tells what was found), -ENOTSUP if the format has no check,
 * else -errno: then @result counts what was seen until then. Waits for I/O.
 */
int bdrv_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckReport *report,
               void *opaque);
/*
 * The same, repairing what it finds and @fix (BdrvCheckFix) allows: what is
 * repaired counts in @result as fixed, the rest as found. The node must be
 * open for writing (else -EACCES); it is flushed before, and drained meanwhile;
 * nothing cached of it outlives the call. On -errno it is left no worse than it
 * was. Global state; waits for I/O.
 */
int bdrv_repair(BlockDriverState *bs, int fix, BdrvCheckResult *result, BdrvCheckReport *report,
                void *opaque);

/* ---- Create and measure ---------------------------------------------------------- */

/*
 * Create an image of @drv in file @filename with create options (@options may
 * be NULL and is not changed; sizes in bytes, key "size"). An option that the
 * format does not have is an error. Waits for I/O.
 */
bool bdrv_create(BlockDriver *drv, const char *filename, JsonObject *options, GError **errp);

/* A piece of a disk: bytes. */
typedef struct BdrvRange {
    int64_t offset;
    int64_t bytes;
} BdrvRange;
/* Takes the next @bytes of an image. 0 or -errno. */
typedef int BdrvSequentialWrite(void *opaque, const void *buf, size_t bytes);
/*
 * Begin an image of @drv that is written from front to back, into a pipe: @write gets
 * all that stands before the data. @options are those of bdrv_create(). @ranges, of
 * BdrvRange, says where the disk has data: in order, none empty, none touching the
 * next; all else is zeros. When the call returns, it says what has to follow, in that
 * order: the ranges, as wide as the format stores them; zeros lie behind the disk's end.
 * Then the image is complete. -ENOTSUP in @errp if the format, or an option, cannot be
 * had in one pass. Global state.
 */
bool bdrv_create_sequential(BlockDriver *drv, JsonObject *options, GArray *ranges,
                            BdrvSequentialWrite *write, void *opaque, GError **errp);

typedef struct BlockMeasureInfo {
    int64_t required;        /* bytes for the data that there is */
    int64_t fully_allocated; /* bytes when every sector is written */
    int64_t bitmaps;         /* bytes for bitmaps, or -1 if not told */
} BlockMeasureInfo;
/*
 * How large an image of @drv would be with these create options, holding
 * @source's content (may be NULL: then "size" gives the size). Waits for I/O.
 */
bool bdrv_measure(BlockDriver *drv, JsonObject *options, BlockDriverState *source,
                  BlockMeasureInfo *info, GError **errp);

G_END_DECLS

#endif
