/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map(): what a format driver does.
 *
 * A format driver never moves guest data. It answers one question — where does
 * this guest range lie? — and the core turns the answer into I/O on the child,
 * caches it, derives block status from it, and passes requests straight
 * through. The rules below are the contract between the core and a driver.
 *
 * What an answer says
 *  1. It covers the requested offset and is never empty. For reads and
 *     in-place writes it may reach beyond the request on both sides: a driver
 *     reports the whole extent, since it gets cached. For write zeroes and
 *     discard it only shrinks inward.
 *  2. A read mapping begins inside the child; past the child's end it reads
 *     zeros. A new place may lie beyond the end. Anything else out of range is
 *     an I/O error that the driver returns from map, never a wild access.
 *  3. An answer for a write tells where (target, child, child_offset), whether
 *     only this guest range refers to the place (writable, checked against the
 *     metadata), whether commit must be called (needs_commit), whether the
 *     place is new and abort frees it (fresh), which guest range must be
 *     written before commit (fill: whole units; what lies outside the request
 *     is what this node would return to a read), and whether the place already
 *     reads as zeros so that nothing need be filled (zeroed).
 *  4. Writing has two phases. The core writes request and fill, in one I/O
 *     where it can, then calls commit, which re-reads the entry, merges and
 *     links it in; or abort. Nobody sees a place before its data is in it. A
 *     commit that fails has undone itself or leaks at most; abort does not
 *     follow it. Zeroing happens at commit, or by zeroing the child first, or
 *     as data. A compressed write is encoded first and asks with the encoded
 *     length.
 *
 * Nobody's place is pulled away
 *  5. Every request claims its guest range at each node that it enters, parent
 *     before child, from before map until its I/O and commit or abort are
 *     over. Exclusively, rounded to the driver's map unit: writes not known to
 *     be in place, discard, write zeroes, copy-on-read. Exclusively, rounded
 *     to the request alignment: read-modify-write. All else is shared. A write
 *     found in place without commit downgrades its claim to shared. Nobody
 *     waits for a claim while it holds an uncommitted mapping.
 *  6. A driver never reuses or punches a place directly. Having unlinked it,
 *     it retires it: reuse and punching happen once all claims that are older
 *     have ended and the unlink is stable on disk. An allocation that finds
 *     nothing but retired places flushes and tries again.
 *  7. Operations without a guest range (snapshots, amend, repair, resize) run
 *     drained and drop the whole cache; shrinking claims everything from the
 *     new end.
 *
 * Speed is in the answer
 *  8. The core caches answers per node, in guest extents, unless the driver
 *     says that asking is as cheap (map_is_cheap). Before a change that makes
 *     an answer untrue becomes visible, and again when it is, the driver
 *     invalidates the range. Losing writable is such a change. A cached mapping
 *     holds no reference and is used only under the graph lock.
 *  9. Pass-through: a request that hits the cache all the way down needs no
 *     coroutine and no lock. It occupies a slot of its thread, which holds the
 *     graph lock shared and keeps cache memory alive until it completes. Who
 *     changes a mapping invalidates, fences, and waits for the slots that may
 *     have seen the old one.
 *
 * map changes no metadata that others see. map, commit and abort run
 * concurrently, on any thread; a driver whose state does not change after open
 * needs no lock for that.
 *
 * What a driver answers to a change
 *  WRITE         DATA, writable: the place is written, nothing else is to do.
 *                DATA, needs_commit: the fill range (or, if that is empty, the
 *                part of the request that the mapping covers) is written, then
 *                commit. ENCODED, needs_commit, where encoded_bytes is set:
 *                child_bytes are written at child_offset, then commit.
 *  WRITE_ZEROES  Asked in multiples of the node's pwrite_zeroes_alignment, but
 *                for the node's end. ZERO or UNALLOCATED: commit does it, or
 *                without needs_commit nothing is to do. DATA: the place is
 *                zeroed through the child, then commit if needs_commit.
 *                -ENOTSUP: zeros are written as data.
 *  DISCARD       Asked in multiples of pdiscard_alignment, but for the node's
 *                end. ZERO or UNALLOCATED as above. DATA: commit if
 *                needs_commit, then the place is discarded through the child,
 *                still under the exclusive claim. -ENOTSUP: nothing happens.
 * A node whose driver has commit is asked for changes only while the request
 * claims the range, rounded to the map unit, exclusively.
 */
#ifndef BLOCKGRAPH_MAP_H
#define BLOCKGRAPH_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

typedef struct BlockDriverState BlockDriverState;
typedef struct BdrvChild BdrvChild;
typedef struct BdrvMapping BdrvMapping;

typedef enum BdrvMapOp {
    BDRV_MAP_READ,
    BDRV_MAP_WRITE,
    BDRV_MAP_WRITE_ZEROES,
    BDRV_MAP_DISCARD,
} BdrvMapOp;

typedef struct BdrvMapRequest {
    BdrvMapOp op;
    int flags;      /* BdrvRequestFlags of the request */
    int64_t offset; /* guest offset in bytes, inside the node */
    int64_t bytes;  /* > 0; offset + bytes is inside the node */
    /* A compressed write: the length of the encoded data in bytes, else 0. */
    int64_t encoded_bytes;
} BdrvMapRequest;

/* The closed set of targets. */
typedef enum BdrvMapTarget {
    /*
     * Nothing here: reads come from the backing child at the same offset, or
     * are zeros where there is none or it is shorter. May carry a place.
     */
    BDRV_MAP_UNALLOCATED,
    /* Reads as zeros whatever the backing child holds. May carry a place. */
    BDRV_MAP_ZERO,
    /* The bytes lie in @child at @child_offset. */
    BDRV_MAP_DATA,
    /*
     * @child_bytes of encoded data lie in @child at @child_offset; @decode
     * turns them into the bytes of the whole extent.
     */
    BDRV_MAP_ENCODED,
} BdrvMapTarget;

/*
 * Decode one encoded extent: @src holds @src_bytes read from the child (zeros
 * past its end), @dst has room for exactly @dst_bytes, the mapping's @bytes,
 * and must be filled. Returns 0, or -EIO if the data is damaged. Runs on a
 * worker thread, concurrently; it may read only what does not change after
 * open.
 */
typedef int BdrvDecodeFunc(BlockDriverState *bs, const BdrvMapping *mapping, const uint8_t *src,
                           size_t src_bytes, uint8_t *dst, size_t dst_bytes);

struct BdrvMapping {
    /* The guest range it describes, in bytes. */
    int64_t offset;
    int64_t bytes;
    BdrvMapTarget target;
    /*
     * DATA, ENCODED: where. ZERO, UNALLOCATED: the place that is kept for this
     * range, or NULL. The guest byte offset + n lies at child_offset + n.
     */
    BdrvChild *child;
    int64_t child_offset;
    /* ENCODED: length of the encoded data in bytes. */
    int64_t child_bytes;
    BdrvDecodeFunc *decode;
    /* The child may know of holes in this range that read as zeros. */
    bool recurse;
    /* DATA of a filter or of raw: its block status is whatever the child says. */
    bool raw;
    /* For changes, see rule 3. A read answer sets @writable, too: it is cached. */
    bool writable;
    bool needs_commit;
    bool fresh;
    /* The place reads as zeros: what is to be filled with zeros need not be. */
    bool zeroed;
    /* Inside of the mapping, around the request; 0 bytes: the request alone. */
    int64_t fill_offset;
    int64_t fill_bytes;
    /* The driver's own: handed from map to commit or abort unchanged. */
    uint64_t cookie[4];
};

G_END_DECLS

#endif
