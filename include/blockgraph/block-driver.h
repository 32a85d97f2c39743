/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a driver sees, and all that it sees. A program may register drivers of
 * its own: this header is installed.
 *
 * There are three kinds:
 *   a protocol has bdrv_co_preadv: it moves the bytes itself (file, memory);
 *   a format has bdrv_co_map: it tells where they lie (map.h);
 *   a filter has is_filter set and presents one child. It maps like a format, or if it
 *   has to see the data or more than one place is to get it, moves it like a protocol:
 *   then the core keeps to the limits of its requests. What it does not say itself
 *   (length, resizing, block status, size on disk, get_info), its child is asked.
 *
 * The core checks range, alignment, permissions and state once, before it
 * calls a driver: drivers do not check again. Every member says whether it is
 * required, and what its absence means; bdrv_register() refuses a driver that
 * lacks what it needs.
 */
#ifndef BLOCKGRAPH_BLOCK_DRIVER_H
#define BLOCKGRAPH_BLOCK_DRIVER_H

#include "blockgraph/aio.h"
#include "blockgraph/block-backend.h"
#include "blockgraph/block-io.h"
#include "blockgraph/block.h"
#include "blockgraph/dirty-bitmap.h"
#include "blockgraph/map.h"
#include "blockgraph/options.h"
#include "blockgraph/snapshot.h"
#include "blockgraph/throttle-group.h"

G_BEGIN_DECLS

/* One option of a driver, for help texts and for refusing unknown ones. */
typedef struct BlockOption {
    const char *name;
    const char *type; /* "str", "size", "bool", "num": as in "name=<type>" */
    const char *help;
    const char *default_value; /* told to users of create; NULL: none is told */
} BlockOption;

/* A request as a filter's hook sees it. Bytes. */
typedef enum BdrvIoType {
    BDRV_IO_READ,
    BDRV_IO_WRITE,
    BDRV_IO_WRITE_ZEROES,
    BDRV_IO_DISCARD,
    BDRV_IO_FLUSH,
    BDRV_IO_BLOCK_STATUS,
    BDRV_IO_TRUNCATE,
} BdrvIoType;
typedef struct BdrvIoRequest BdrvIoRequest;
struct BdrvIoRequest {
    BdrvIoType type;
    int flags;
    int64_t offset;
    int64_t bytes;
    /*
     * The memory of a read or write, else NULL. The guest may change it at any
     * time: a hook that judges what is written puts a vector of its own with
     * the same size here, and sets @release to free it.
     */
    IOVector *iov;
    /*
     * Called when a write, write zeroes or discard is over, if the hook has
     * set it, also where the hook has failed the request.
     */
    void (*release)(BdrvIoRequest *req);
    void *opaque; /* the hook's, for @release */
};

/*
 * Points in a request's life at which a debug filter may fail or hold it. The
 * names are in bdrv_debug_event_names.
 */
typedef enum BdrvDebugEvent {
    BDRV_DEBUG_NONE, /* never raised: a rule for it is in force from the start */
    BDRV_DEBUG_L1_UPDATE,
    BDRV_DEBUG_L1_GROW_ALLOC_TABLE,
    BDRV_DEBUG_L1_GROW_WRITE_TABLE,
    BDRV_DEBUG_L1_GROW_ACTIVATE_TABLE,
    BDRV_DEBUG_L2_LOAD,
    BDRV_DEBUG_L2_UPDATE,
    BDRV_DEBUG_L2_UPDATE_COMPRESSED,
    BDRV_DEBUG_L2_ALLOC_COW_READ,
    BDRV_DEBUG_L2_ALLOC_WRITE,
    BDRV_DEBUG_READ_AIO,
    BDRV_DEBUG_READ_BACKING_AIO,
    BDRV_DEBUG_READ_COMPRESSED,
    BDRV_DEBUG_WRITE_AIO,
    BDRV_DEBUG_WRITE_COMPRESSED,
    BDRV_DEBUG_VMSTATE_LOAD,
    BDRV_DEBUG_VMSTATE_SAVE,
    BDRV_DEBUG_COW_READ,
    BDRV_DEBUG_COW_WRITE,
    BDRV_DEBUG_REFTABLE_LOAD,
    BDRV_DEBUG_REFTABLE_GROW,
    BDRV_DEBUG_REFTABLE_UPDATE,
    BDRV_DEBUG_REFBLOCK_LOAD,
    BDRV_DEBUG_REFBLOCK_UPDATE,
    BDRV_DEBUG_REFBLOCK_UPDATE_PART,
    BDRV_DEBUG_REFBLOCK_ALLOC,
    BDRV_DEBUG_REFBLOCK_ALLOC_HOOKUP,
    BDRV_DEBUG_REFBLOCK_ALLOC_WRITE,
    BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_BLOCKS,
    BDRV_DEBUG_REFBLOCK_ALLOC_WRITE_TABLE,
    BDRV_DEBUG_REFBLOCK_ALLOC_SWITCH_TABLE,
    BDRV_DEBUG_CLUSTER_ALLOC,
    BDRV_DEBUG_CLUSTER_ALLOC_BYTES,
    BDRV_DEBUG_CLUSTER_FREE,
    BDRV_DEBUG_FLUSH_TO_OS,
    BDRV_DEBUG_FLUSH_TO_DISK,
    BDRV_DEBUG_PWRITEV_RMW_HEAD,
    BDRV_DEBUG_PWRITEV_RMW_AFTER_HEAD,
    BDRV_DEBUG_PWRITEV_RMW_TAIL,
    BDRV_DEBUG_PWRITEV_RMW_AFTER_TAIL,
    BDRV_DEBUG_PWRITEV,
    BDRV_DEBUG_PWRITEV_ZERO,
    BDRV_DEBUG_PWRITEV_DONE,
    BDRV_DEBUG_EMPTY_IMAGE_PREPARE,
    BDRV_DEBUG_L1_SHRINK_WRITE_TABLE,
    BDRV_DEBUG_L1_SHRINK_FREE_L2_CLUSTERS,
    BDRV_DEBUG_COR_WRITE,
    BDRV_DEBUG_CLUSTER_ALLOC_SPACE,
    BDRV_DEBUG__MAX,
} BdrvDebugEvent;
/* "l1_update" and so on, in order, NULL-terminated. */
extern const char *const bdrv_debug_event_names[];

/* A place in a child that a driver gives back; the meaning is the driver's own. */
typedef struct BdrvPlace {
    int64_t offset;
    int64_t bytes;
    uint64_t cookie;
} BdrvPlace;

/* A node on its way to be reopened. */
typedef struct BdrvReopenState {
    BlockDriverState *bs;
    int old_flags; /* BdrvOpenFlags that are in force */
    int flags;     /* that will be */
    void *opaque;  /* the driver's, from prepare to commit or abort */
} BdrvReopenState;

struct BlockDriver {
    /* Required. The name for "driver=", unique. */
    const char *format_name;
    /* "NAME" in "NAME:rest" filenames. Default: none. */
    const char *protocol_name;
    /* Size of the driver's state, zeroed before open; bdrv_state(). Default 0. */
    size_t instance_size;
    /* Its open options, ended by a NULL name. Default: none. */
    const BlockOption *options;
    /*
     * Those of its open options that do not change what is read, NULL-terminated: the
     * node's name says nothing of them. Default: none.
     */
    const char *const *weak_options;
    /* Its create options; with bdrv_create. Default: none. */
    const BlockOption *create_options;
    /* Those that bdrv_co_amend takes. Default: none. */
    const BlockOption *amend_options;
    /* Presents its child with BDRV_CHILD_FILTERED unchanged. Default: no. */
    bool is_filter;
    /* The format may name a backing file. Default: no. */
    bool supports_backing;
    /* Asking map is as cheap as a cache: do not cache. Default: no. */
    bool map_is_cheap;
    /*
     * Drivers that map: block status says data everywhere, without a place, whatever map
     * would answer: what users of QEMU's driver, which has no block status,
     * see. Default: block status follows map.
     */
    bool status_is_opaque;

    /* ---- Probing and opening: main thread, not in a coroutine. --------------- */

    /*
     * How sure it is that @buf, the first @size bytes of the file (2048, less
     * in a shorter file), is this format: 0 to 100. Default: never probed.
     */
    int (*bdrv_probe)(const uint8_t *buf, size_t size, const char *filename);
    /*
     * Protocols: whether a plain path that is @filename is theirs and not the file
     * driver's, since a device is there. Default: no.
     */
    bool (*bdrv_probe_device)(const char *filename);
    /*
     * Turn "NAME:rest" into options (a new object) for a protocol. Default:
     * {"filename": the name}.
     */
    JsonObject *(*bdrv_parse_filename)(const char *filename, GError **errp);
    /*
     * Required. Open: take its options, open its children, check every field
     * of the header before use, set the length with bdrv_set_length(). On
     * false @errp is set and all it allocated is freed; its children are
     * detached by the core. May use bdrv_pread() and such. flags:
     * BdrvOpenFlags as they are in force for this node.
     */
    bool (*bdrv_open)(BlockDriverState *bs, JsonObject *options, int flags, GError **errp);
    /* Free the state. No request is in flight. Default: nothing to do. */
    void (*bdrv_close)(BlockDriverState *bs);
    /*
     * Reopen with other flags and options (see reopen.h). The node is drained from
     * before prepare until after commit or abort.
     *
     * prepare, parents before children: see whether it can be, and make ready. The
     * node and all below it are still as they were, so that a node that is writable
     * may write (and is flushed by the core, with what it writes, after all have
     * prepared); it may use bdrv_pread() and such. Take from @options what the driver
     * can change; what is left may only have the value that it has. False with
     * @errp: it cannot be; nothing is kept.
     * commit, children before parents, when nothing can fail any more:
     * bdrv_is_writable(), the permissions and the flags are the new ones. abort: undo
     * what prepare did. Both without I/O.
     *
     * A format with metadata of its own has this to do. When BDRV_O_RDWR goes: in
     * prepare, write what closing would write (stored bitmaps, a dirty bit
     * cleared); the core flushes, and gives retired places back before that. When it
     * comes: in prepare, check all that open checks for writing (corrupt bit,
     * features that cannot be written, tables that only a writer needs) and load
     * it; what writing has to note in the image (clearing autoclear bits, setting a
     * dirty bit, bitmaps in use) is written together with the first change, as after
     * open. If prepare has cleared a mark that says the image is in use, abort makes
     * the first change after it set the mark again. The core drops the mapping cache.
     *
     * Default of prepare: may become read-only and change its cache flags, not
     * become writable; bdrv_reopen_agree() agrees to all. Of the others: nothing.
     */
    bool (*bdrv_reopen_prepare)(BdrvReopenState *state, JsonObject *options, GError **errp);
    void (*bdrv_reopen_commit)(BdrvReopenState *state);
    void (*bdrv_reopen_abort)(BdrvReopenState *state);
    /*
     * See the function of this name. @filename is NULL to take the reference out,
     * @format is NULL if unknown. The node is writable and drained; the core flushes
     * and notes the new reference. On false with @errp the old reference stands.
     * Default: refused.
     */
    bool (*bdrv_change_backing_file)(BlockDriverState *bs, const char *filename,
                                     const char *format, GError **errp);
    /*
     * Permissions to take on @child, given those that the node's parents take
     * (@perm) and share (@shared). Default: by role; see bdrv_default_perms().
     */
    void (*bdrv_child_perm)(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                            uint64_t shared, uint64_t *nperm, uint64_t *nshared);
    /*
     * The permissions of all parents together are about to become these:
     * a protocol takes its locks here. False with @errp: they cannot be had.
     * It is followed by one of set or abort. Default: always possible.
     */
    bool (*bdrv_check_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared, GError **errp);
    void (*bdrv_set_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared);
    void (*bdrv_abort_perm)(BlockDriverState *bs);
    /*
     * For drivers that hold requests back: from begin to end they may not, and those
     * that are held go on. Between the two the node is drained, or the graph is about
     * to change; called once for all sections that overlap. Main thread; may not wait.
     * Both or none. Default: nothing.
     */
    void (*bdrv_drain_begin)(BlockDriverState *bs);
    void (*bdrv_drain_end)(BlockDriverState *bs);
    /* Set its limits in @limits, which hold the strictest of the children's
     * that matter. Default: the children's; 1-byte alignment without any. */
    void (*bdrv_refresh_limits)(BlockDriverState *bs, BlockLimits *limits);
    /* Read through a snapshot from now on. Default: has no snapshots. */
    bool (*bdrv_snapshot_load_tmp)(BlockDriverState *bs, const BdrvSnapshotInfo *snapshot,
                                   GError **errp);
    /* See bdrv_snapshot_get(). Default: has no snapshots. */
    bool (*bdrv_snapshot_get)(BlockDriverState *bs, size_t index, BdrvSnapshotInfo *info);
    /* See bdrv_stored_bitmap_get(). Default: the image has none. */
    int (*bdrv_stored_bitmap_get)(BlockDriverState *bs, size_t index, BdrvStoredBitmapInfo *info,
                                  GError **errp);
    /*
     * Persistent dirty bitmaps: see the functions of these names in
     * dirty-bitmap.h. Remove and store are called with the node drained; all
     * four or none. Default: the format stores no bitmaps.
     */
    bool (*bdrv_can_store_bitmap)(BlockDriverState *bs, const char *name, int64_t granularity,
                                  GError **errp);
    bool (*bdrv_remove_stored_bitmap)(BlockDriverState *bs, const char *name, GError **errp);
    bool (*bdrv_load_bitmaps)(BlockDriverState *bs, GError **errp);
    bool (*bdrv_store_bitmaps)(BlockDriverState *bs, GError **errp);
    /*
     * {"type":…,"data":…}, a new object, or NULL. If the image stores bitmaps, data
     * has an empty array "bitmaps" where their list belongs. Default: NULL.
     */
    JsonObject *(*bdrv_get_specific_info)(BlockDriverState *bs, GError **errp);
    /*
     * The name a user would open the node by, or NULL to let the core say
     * "json:{…}". Free with g_free(). Default: the child's name if the format
     * would be probed from it or is named; the filename for a protocol.
     */
    char *(*bdrv_make_filename)(BlockDriverState *bs);
    /*
     * Which file on this machine it is: the device and inode numbers. Files
     * with equal numbers are one file. False if it is none. Default: false.
     */
    bool (*bdrv_get_identity)(BlockDriverState *bs, uint64_t *dev, uint64_t *ino);
    /*
     * Create an image; what is there is overwritten. @options are a copy to take
     * from. Default: -ENOTSUP.
     */
    bool (*bdrv_create)(const char *filename, JsonObject *options, GError **errp);
    /*
     * See bdrv_create_sequential(). @options are a copy to take from; @ranges are in
     * order, apart and not empty, and inside the disk. Default: refused.
     */
    bool (*bdrv_create_sequential)(JsonObject *options, GArray *ranges,
                                   BdrvSequentialWrite *write, void *opaque, GError **errp);
    /*
     * Protocols: delete what bdrv_create of the same @filename has made. Default:
     * it stays.
     */
    void (*bdrv_delete)(const char *filename);
    /* See bdrv_measure(). @options are a copy to take from. Default: refused. */
    bool (*bdrv_measure)(JsonObject *options, BlockDriverState *source, BlockMeasureInfo *info,
                         GError **errp);

    /* ---- In a coroutine, graph lock held shared, on any thread. ----------------- */

    /*
     * Internal snapshots: see the functions of these names in snapshot.h. The node is
     * writable, drained and flushed, no mapping is remembered before and after; @index is
     * one that bdrv_snapshot_get has. What is unlinked on the disk is free at once. Goto
     * calls bdrv_set_length(). 0, or -errno with @errp. All three or none. Default: refused.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_snapshot_create)(BlockDriverState *bs,
                                                                const BdrvSnapshotInfo *info,
                                                                GError **errp);
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_snapshot_goto)(BlockDriverState *bs, size_t index,
                                                              GError **errp);
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_snapshot_delete)(BlockDriverState *bs,
                                                                size_t index, GError **errp);

    /* Default: a filter's child's; else -ENOTSUP. */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_get_info)(BlockDriverState *bs,
                                                         BlockDriverInfo *info);
    /*
     * See bdrv_check(), and bdrv_repair() if @fix (BdrvCheckFix) is not 0: then
     * the node is writable and drained. Default: -ENOTSUP.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_check)(BlockDriverState *bs, int fix,
                                                      BdrvCheckResult *result,
                                                      BdrvCheckReport *report, void *opaque);
    /*
     * See bdrv_amend(); the node is writable and drained. @options are a copy to take
     * from: nothing may be left. @progress is to be called now and then. May change
     * the length, by bdrv_set_length(). Default: -ENOTSUP.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_amend)(BlockDriverState *bs, JsonObject *options,
                                                      BdrvAmendProgress *progress, void *opaque,
                                                      GError **errp);
    /*
     * See bdrv_make_empty(): the node is writable, drained and flushed, no mapping is
     * remembered before and after. What is unlinked on the disk is free at once. A
     * power cut leaves each range as it was or given up, and leaks at most. 0, or
     * -errno with @errp. Default: -ENOTSUP.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_make_empty)(BlockDriverState *bs, GError **errp);
    /*
     * The format keeps the state of a virtual machine behind the disk, from the
     * vm_state_offset of bdrv_co_get_info() on: let the node be @end long, with map
     * answering up to there, also for writes if @for_write; or, if @end is 0, as long as
     * its disk again (which does not fail). The node is drained and flushed, no mapping is
     * remembered before and after. 0 or -errno. Default: it keeps none.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_show_vm_state)(BlockDriverState *bs, int64_t end,
                                                              bool for_write);
    /*
     * Bytes on disk, or -errno. Default: a filter's child's; -ENOTSUP for a protocol; the
     * sum of the children with data or metadata for a format.
     */
    int64_t coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_get_allocated_file_size)(BlockDriverState *bs);
    /*
     * The length now, in bytes. Default: a filter's child's; else what
     * bdrv_set_length() said last. A format that has this and does not commit ends
     * where its child does, and so does every filter: a write may go beyond, if a parent
     * has taken BLK_PERM_RESIZE. Map then answers for a place beyond the child's end,
     * or refuses with -EIO; the node is as long as it must be when the write is over.
     */
    int64_t coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_getlength)(BlockDriverState *bs);

    /* Formats, and filters that do not move data: required, see map.h. Excludes preadv. */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_map)(BlockDriverState *bs,
                                                    const BdrvMapRequest *req,
                                                    BdrvMapping *mapping);
    /* Required if map ever sets needs_commit; both or none. */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_map_commit)(BlockDriverState *bs,
                                                           const BdrvMapping *mapping);
    void coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_map_abort)(BlockDriverState *bs,
                                                           const BdrvMapping *mapping);
    /*
     * A place that was retired is nobody's any more: drop the reference, so
     * that it can be given out again, and punch it if it is to be punched. An
     * error is a leak. Required if the driver ever calls bdrv_retire().
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_release)(BlockDriverState *bs,
                                                        const BdrvPlace *place);
    /*
     * Encode one map unit, @src_bytes from @src, into at most @dst_bytes (one
     * less than the unit) at @dst. The encoded length in bytes, or -ENOSPC if it
     * gets no shorter: it is then written as plain data. Pure; on a worker
     * thread, concurrently. Default: compressed writes are refused.
     */
    int64_t (*bdrv_encode)(BlockDriverState *bs, const uint8_t *src, size_t src_bytes,
                           uint8_t *dst, size_t dst_bytes);
    /*
     * Called for each request on its way into the node, before map or the driver's own
     * functions; may wait, or fail it with -errno. A node with this is not transparent:
     * nothing passes around it. Default: not called.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_before_io)(BlockDriverState *bs,
                                                          BdrvIoRequest *req);
    /*
     * Whether requests of @type (READ or WRITE) may pass around bdrv_co_before_io
     * for now. Changes only while the node is drained or reopened. Default: no.
     */
    bool (*bdrv_is_transparent)(BlockDriverState *bs, BdrvIoType type);
    /*
     * A parent has come to @event; may wait. See bdrv_co_debug_event().
     * Default: nothing.
     */
    void coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_debug_event)(BlockDriverState *bs,
                                                             BdrvDebugEvent event);

    /*
     * Protocols, and filters that move data: from here to block_status. Requests are
     * aligned and split to the limits and lie inside [0, BDRV_MAX_LENGTH]; the vector's
     * size is @bytes. Reads past the end give zeros. preadv: required; excludes
     * bdrv_co_map.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_preadv)(BlockDriverState *bs, int64_t offset,
                                                       int64_t bytes, IOVector *iov, int flags);
    /*
     * Protocols: make an AioRequest (op and what belongs to it) that does all that
     * preadv or pwritev (@type, without flags) would; its result is the bytes done.
     * If it is not all of them the request is sent again, to preadv or pwritev. Not
     * in a coroutine, may not wait. False: not this one. Default: never; requests
     * do not pass through.
     */
    bool (*bdrv_prepare_aio)(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                             AioRequest *req);
    /* Default: the node is read-only. */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_pwritev)(BlockDriverState *bs, int64_t offset,
                                                        int64_t bytes, IOVector *iov, int flags);
    /*
     * Protocols: copy @bytes from @src_offset of @src, whose driver has this same function,
     * to @offset, by means that need no memory of ours. Both ranges are aligned for their
     * nodes, and apart if the nodes are one. On failure any part of it may have been copied.
     * -ENOTSUP: the caller has to read and write. Default: -ENOTSUP.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_copy_range)(BlockDriverState *bs, int64_t offset,
                                                           BlockDriverState *src,
                                                           int64_t src_offset, int64_t bytes);
    /* -ENOTSUP: the core writes zeros. Default: -ENOTSUP. */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_pwrite_zeroes)(BlockDriverState *bs,
                                                              int64_t offset, int64_t bytes,
                                                              int flags);
    /* Default: nothing is done, which a hint allows. */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_pdiscard)(BlockDriverState *bs, int64_t offset,
                                                         int64_t bytes);
    /*
     * Protocols: make what was written durable. Others: write back own metadata, after
     * the core has flushed the children with data and before it flushes those with
     * metadata and the filtered one. Default: nothing.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_flush)(BlockDriverState *bs);
    /*
     * Change the length; a driver with children resizes them too, and calls
     * bdrv_set_length(). A length that gets smaller is the node's already, lest requests
     * that begin now lie beyond it; others may be in flight there. At a format that
     * commits, the whole node is claimed exclusively instead. Default: a filter resizes its
     * child; else -ENOTSUP.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_truncate)(BlockDriverState *bs, int64_t offset,
                                                         bool exact, BlockPrealloc prealloc,
                                                         GError **errp);
    /*
     * DATA or ZERO (and OFFSET_VALID with *@map) of the run at @offset. Default: what a
     * filter's child says; else all is data at the same offset.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR (*bdrv_co_block_status)(BlockDriverState *bs, int64_t offset,
                                                             int64_t bytes, int64_t *pnum,
                                                             int64_t *map);
    /* BdrvRequestFlags that pwritev / pwrite_zeroes do natively; the core does
     * FUA by a flush otherwise, and refuses BDRV_REQ_COMPRESSED. Default: none. */
    int supported_write_flags;
    int supported_zero_flags;
    /*
     * Debug commands of test tools, on the main thread: "break" with "EVENT
     * TAG", "resume" and "remove_break" with a tag. Default: -ENOTSUP.
     */
    int (*bdrv_debug_command)(BlockDriverState *bs, const char *command, const char *argument);
    /* Whether a request is held at breakpoint @tag. Default: no. */
    bool (*bdrv_debug_is_suspended)(BlockDriverState *bs, const char *tag);
    /* private to the core */
    BlockDriver *next;
};

/*
 * Make @drv known; it must stay valid for the life of the process. False with
 * @errp if a required member is missing, members exclude each other, or the
 * name is taken. Global state; blockgraph_init() registers the built-in ones.
 */
bool bdrv_register(BlockDriver *drv, GError **errp);

/* ---- What a driver may ask and tell about its node --------------------------- */

/* The driver's own state, instance_size bytes. Either. */
void *bdrv_state(const BlockDriverState *bs);

/* Set the length in bytes. From open, truncate, or while drained. Either. */
void bdrv_set_length(BlockDriverState *bs, int64_t length);
/*
 * The granularity of claims and of allocating, in bytes: the cluster size.
 * From open. Default 1. Either.
 */
void bdrv_set_map_unit(BlockDriverState *bs, int64_t bytes);
/* Become read-only in spite of BDRV_O_RDWR, if the user's options (read-only, or
 * auto-read-only without BDRV_O_COPY_ON_READ) allow it; else false with @errp. From open. */
bool bdrv_apply_auto_read_only(BlockDriverState *bs, const char *reason, GError **errp);
/* A bdrv_reopen_prepare for drivers that keep nothing which depends on the flags. */
bool bdrv_reopen_agree(BdrvReopenState *state, JsonObject *options, GError **errp);
/* What the header says; copied. From open. @format may be NULL or "". */
void bdrv_set_backing_reference(BlockDriverState *bs, const char *filename, const char *format);
void bdrv_set_encrypted(BlockDriverState *bs, bool encrypted);

/*
 * Open the child @name from options[@name] (an object, or a node's name), or
 * from @filename if there is none; both absent: NULL without an error if
 * @allow_none. The child is the caller's edge; the core detaches it at close.
 * From open.
 */
BdrvChild *bdrv_open_child(const char *filename, JsonObject *options, const char *name,
                           BlockDriverState *bs, int role, bool allow_none, GError **errp);
/* The same for the usual child "file", with the role that the driver's kind
 * implies. */
bool bdrv_open_file_child(BlockDriverState *bs, JsonObject *options, GError **errp);
/*
 * Open child @name from a file that the image itself names: the open policy
 * is asked first. @format may be NULL: probed. From open.
 */
BdrvChild *bdrv_open_reference(BlockDriverState *bs, const char *name, BlockReferenceKind kind,
                               const char *filename, const char *format, JsonObject *options,
                               int role, GError **errp);

/* The edges, or NULL. Either. */
BdrvChild *bdrv_file_child(const BlockDriverState *bs) GRAPH_RDLOCK;
BdrvChild *bdrv_backing_child(const BlockDriverState *bs) GRAPH_RDLOCK;

/* Whether the node may be written to: it is not read-only. Either. */
bool bdrv_is_writable(const BlockDriverState *bs);

/* The default of bdrv_child_perm. */
void bdrv_default_perms(BlockDriverState *bs, BdrvChild *child, int role, uint64_t perm,
                        uint64_t shared, uint64_t *nperm, uint64_t *nshared);

/*
 * Tell the node behind @child that its parent has come to @event in the middle
 * of a request. I/O.
 */
void coroutine_fn bdrv_co_debug_event(BdrvChild *child, BdrvDebugEvent event) GRAPH_RDLOCK;

/*
 * Forget cached mappings of this range, here and wherever parents derived
 * theirs from it. A driver calls it before a change is visible, and again when
 * it is, while the request holds its exclusive claim: a reader in between may
 * have been given, and remembered, an old answer that reaches beyond its own
 * claim. Either.
 */
void bdrv_map_invalidate(BlockDriverState *bs, int64_t offset, int64_t bytes) GRAPH_RDLOCK;

/*
 * For the table of a filter that moves data, where it changes nothing: the same, done to
 * the filtered child with the flags that came. I/O.
 */
int coroutine_fn bdrv_filter_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *iov, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_filter_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        IOVector *iov, int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_filter_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              int flags) GRAPH_RDLOCK;
int coroutine_fn bdrv_filter_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes) GRAPH_RDLOCK;
/*
 * Whether compressed writes to the node come to a format that has them, through
 * filters that hand them on. Either.
 */
bool bdrv_can_compress(BlockDriverState *bs) GRAPH_RDLOCK;

/*
 * For bdrv_co_truncate and bdrv_co_amend of a format that commits: write zeros as a
 * request would, without a claim of its own; with @allocate as data, everywhere. The
 * node's length and the answers of map have to cover the range. 0 or -errno. I/O.
 */
int coroutine_fn bdrv_co_claimed_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               bool allocate) GRAPH_RDLOCK;

/*
 * Retire @place (rule 6 of map.h): no metadata that a request started from now
 * on can read refers to it. bdrv_co_release() is called for it once every
 * request that claimed a range before has ended, and a flush of the node that
 * began after this call has succeeded; at the latest when the node is closed.
 * A request that fails with -ENOSPC is tried again after that. Any thread.
 */
void bdrv_retire(BlockDriverState *bs, const BdrvPlace *place);

G_END_DECLS

#endif
