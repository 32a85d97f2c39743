/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: the layout on disk and the driver's state.
 *
 * The layout follows the published specification (docs/interop/qcow2.txt of
 * QEMU); its sections are named below. All numbers on disk are big-endian.
 *
 * Invariants:
 *  1. After open nothing in Qcow2State changes in a node that is only read but what has
 *     its own lock: the L2 cache, and what the first request loads under load_lock and
 *     then publishes (the L1 table, the preallocation hint). With a writer the rest does,
 *     under its lock, or while the node is drained or one request has claimed all of it.
 *  2. No number from the image is used before it was checked; no size from
 *     the image is allocated that the file cannot fill.
 */
#ifndef DRIVERS_QCOW2_H
#define DRIVERS_QCOW2_H

#include "blockgraph/block-driver.h"

/* ---- Layout: sections "Header", "Cluster mapping", "Host cluster management" */

#define QCOW2_MAGIC 0x514649fbU /* "QFI\xfb" */
#define QCOW2_HEADER_V2_SIZE 72
#define QCOW2_HEADER_V3_SIZE 104
#define QCOW2_HEADER_SIZE 112 /* with all that is known today */

/* Published limits of QEMU, in bytes or pieces. */
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_L1_BYTES (32 * 1024 * 1024)
#define QCOW2_MAX_REFTABLE_BYTES (8 * 1024 * 1024)
#define QCOW2_MAX_SNAPSHOTS 65536
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024
#define QCOW2_SNAPSHOT_EXTRA 16 /* bytes of it that version 3 requires */
#define QCOW2_MAX_SNAPSHOT_TABLE (64 * 1024 * 1024)
#define QCOW2_MAX_BITMAPS 65535
#define QCOW2_MAX_BITMAP_DIRECTORY (1024 * QCOW2_MAX_BITMAPS)
#define QCOW2_MAX_BITMAP_NAME 1023
#define QCOW2_MAX_BACKING_NAME 1023
#define QCOW2_MAX_BACKING_FORMAT 15

#define QCOW2_INCOMPAT_DIRTY (1ULL << 0)
#define QCOW2_INCOMPAT_CORRUPT (1ULL << 1)
#define QCOW2_INCOMPAT_DATA_FILE (1ULL << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1ULL << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (1ULL << 4)
#define QCOW2_INCOMPAT_KNOWN 0x1fULL
#define QCOW2_COMPAT_LAZY_REFCOUNTS (1ULL << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (1ULL << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW (1ULL << 1)

#define QCOW2_CRYPT_NONE 0
#define QCOW2_CRYPT_AES 1
#define QCOW2_CRYPT_LUKS 2

#define QCOW2_COMPRESSION_ZLIB 0
#define QCOW2_COMPRESSION_ZSTD 1

#define QCOW2_EXT_END 0x00000000U
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acaU
#define QCOW2_EXT_FEATURE_NAMES 0x6803f857U
#define QCOW2_EXT_BITMAPS 0x23852875U
#define QCOW2_EXT_CRYPTO 0x0537be77U
#define QCOW2_EXT_DATA_FILE 0x44415441U

/* Bits of L1 and L2 entries. */
#define QCOW2_COPIED (1ULL << 63)
#define QCOW2_COMPRESSED (1ULL << 62)
#define QCOW2_ZERO 1ULL
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ULL
#define QCOW2_L1_RESERVED 0x7f000000000001ffULL
#define QCOW2_L2_RESERVED 0x3f000000000001feULL
#define QCOW2_REFTABLE_OFFSET_MASK 0xfffffffffffffe00ULL
#define QCOW2_REFTABLE_RESERVED 0x1ffULL
#define QCOW2_BITMAP_TABLE_RESERVED 0xff000000000001feULL
#define QCOW2_SUBCLUSTERS 32

/* The header as the specification has it, host-endian; absent fields are 0. */
typedef struct Qcow2Header {
    uint32_t version;
    uint64_t backing_file_offset;
    uint32_t backing_file_size;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt_method;
    uint32_t l1_size;
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type;
} Qcow2Header;

/* A header extension that this driver does not know: kept for rewriting. */
typedef struct Qcow2UnknownExtension {
    uint32_t type;
    uint32_t length;
    uint32_t offset; /* of the data, in the first cluster */
} Qcow2UnknownExtension;

/* Section "Header extensions". */
typedef struct Qcow2Extensions {
    char *backing_format; /* NULL if absent, as the next two */
    char *data_file;
    uint8_t *feature_names; /* entries of 48 bytes */
    size_t nb_feature_names;
    uint32_t nb_bitmaps; /* 0 if absent or not consistent */
    uint64_t bitmap_directory_size;
    uint64_t bitmap_directory_offset;
    uint64_t crypto_offset;
    uint64_t crypto_length; /* 0 if absent */
    GArray *unknown;        /* of Qcow2UnknownExtension */
    GBytes *first_cluster;  /* what @unknown refers to; NULL if that is empty */
} Qcow2Extensions;

/* What decoding of table entries needs. Derived from the header. */
typedef struct Qcow2Geometry {
    unsigned version;
    unsigned cluster_bits;
    unsigned l2_entry_bits;   /* log2 of an L2 entry's bytes: 3 or 4 */
    unsigned l2_bits;         /* log2 of the entries in an L2 table */
    unsigned subclusters;     /* per cluster: 1 or 32 */
    unsigned subcluster_bits; /* log2 of a subcluster's bytes */
    unsigned refcount_order;
    bool external_data;
} Qcow2Geometry;

/* Section "Snapshots". */
typedef struct Qcow2Snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size;
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_size;
    uint64_t disk_size; /* UINT64_MAX if the entry does not tell */
    uint64_t icount;    /* UINT64_MAX if the entry does not tell */
    uint32_t extra_data_size;
    bool incomplete;    /* lacks what its version requires */
    char *id;
    char *name;
} Qcow2Snapshot;

typedef struct Qcow2SnapshotTable {
    Qcow2Snapshot *entries;
    uint32_t count;
    uint64_t bytes; /* in the file */
} Qcow2SnapshotTable;

/* Section "Bitmap directory". */
typedef struct Qcow2Bitmap {
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;
    uint8_t type;
    uint8_t granularity_bits;
    uint32_t extra_data_size;
    uint64_t entry_offset; /* of its entry, in the file */
    char *name;
} Qcow2Bitmap;
#define QCOW2_BITMAP_IN_USE (1U << 0)
#define QCOW2_BITMAP_AUTO (1U << 1)

/* An L1 table in host order. Entries past @count are 0. Only a writer stores, atomically. */
typedef struct Qcow2L1 {
    uint32_t count;
    uint64_t entries[];
} Qcow2L1;

typedef struct Qcow2Cache Qcow2Cache;
typedef struct Qcow2Slice Qcow2Slice;
typedef struct Qcow2Cleaner Qcow2Cleaner;

/* What may be discarded in the layer below, by Qcow2Discard; -1: as the node is told. */
#define QCOW2_DISCARD_KINDS 4

/* Open options. */
typedef struct Qcow2Options {
    int64_t l2_cache_size;  /* bytes */
    int64_t l2_slice_bytes; /* power of 2, at most the cluster size */
    int64_t refcount_cache_size; /* bytes */
    int lazy_refcounts;     /* -1: as the header says */
    int pass_discard[QCOW2_DISCARD_KINDS];
    bool discard_follows_flags; /* requests are passed on if the node is told so */
    bool discard_no_unref;
    int64_t cache_clean_interval; /* seconds; 0: never */
    unsigned overlap_check; /* QCOW2_OL_… of qcow2-alloc.h */
} Qcow2Options;

/* Whether holes of the file show through data clusters. */
enum {
    QCOW2_PREALLOC_UNKNOWN,
    QCOW2_PREALLOC_NO,
    QCOW2_PREALLOC_METADATA,
};

typedef struct Qcow2State {
    Qcow2Header header;
    Qcow2Extensions ext;
    Qcow2Geometry geo;
    Qcow2Options options;
    JsonObject *run_options; /* what @options was read from: as given */
    char *name; /* of @file, for messages */
    BdrvChild *file;
    BdrvChild *data_file; /* @file, the external one, or NULL if not opened */
    uint64_t length;      /* of the disk, or of the snapshot read; bytes */
    uint64_t disk_length; /* what @length is to be again once no VM state is shown */
    int64_t file_allocated; /* bytes of @file on disk at open; < 0: unknown */
    /* The table that is read: the active one, or a snapshot's. */
    uint64_t l1_offset;
    uint32_t l1_size;
    CoMutex load_lock;
    Qcow2L1 *l1;    /* atomic; NULL until loaded */
    int prealloc;   /* atomic; QCOW2_PREALLOC_… */
    Qcow2Cache *l2_cache;
    Qcow2SnapshotTable snapshots;
    GArray *bitmaps; /* of Qcow2Bitmap: what the directory on disk lists */
    struct Qcow2BitmapReader *bitmap_reader; /* if not NULL, they are read when asked for */
    bool bitmaps_loaded; /* the node has dirty bitmaps for them; main thread */
    bool bitmaps_in_doubt; /* which directory the header on disk refers to is not known */
    Qcow2Cleaner *cleaner; /* NULL if nothing is ever cleaned */
    struct Qcow2Writer *writer; /* NULL unless the node is writable; see qcow2-alloc.h */
} Qcow2State;

static inline uint64_t qcow2_cluster_size(const Qcow2Geometry *geo)
{
    return 1ULL << geo->cluster_bits;
}

static inline uint64_t qcow2_offset_into_cluster(const Qcow2Geometry *geo, uint64_t offset)
{
    return offset & (qcow2_cluster_size(geo) - 1);
}

/* How many clusters @bytes take, rounded up. */
static inline uint64_t qcow2_clusters(const Qcow2Geometry *geo, uint64_t bytes)
{
    return (bytes >> geo->cluster_bits) + (qcow2_offset_into_cluster(geo, bytes) != 0);
}

uint16_t qcow2_be16(const uint8_t *p);
uint32_t qcow2_be32(const uint8_t *p);
uint64_t qcow2_be64(const uint8_t *p);
/* Turn @count big-endian numbers at @words into host order, in place. */
void qcow2_words_to_host(uint64_t *words, size_t count);

/* ---- qcow2-header.c: pure ---------------------------------------------------- */

/*
 * Decode the header in @buf (@size bytes, at least QCOW2_HEADER_V3_SIZE + 8;
 * zeros where the file is shorter) and check every field that needs nothing
 * else, for a file of @file_length bytes that messages call @name. @flags:
 * BdrvOpenFlags.
 */
bool qcow2_header_parse(const uint8_t *buf, size_t size, uint64_t file_length, int flags,
                        const char *name, Qcow2Header *header, GError **errp);
void qcow2_geometry_init(Qcow2Geometry *geo, const Qcow2Header *header);
/* How many L1 entries a disk of @size bytes needs. */
uint64_t qcow2_l1_entries_needed(const Qcow2Geometry *geo, uint64_t size);
/*
 * Whether a table of @entries × @entry_bytes at @offset is aligned, not above
 * @max_bytes, and starts inside the file (of any length, if @file_length is
 * UINT64_MAX). @what names it in the message.
 */
bool qcow2_check_table(const Qcow2Geometry *geo, uint64_t offset, uint64_t entries,
                       uint64_t entry_bytes, uint64_t max_bytes, uint64_t file_length,
                       const char *name, const char *what, GError **errp);

/* ---- qcow2-header-build.c: pure ------------------------------------------------- */

/*
 * Encode the first cluster into @buf, one cluster of bytes: @header, the
 * extensions that @ext has and the table of feature names, and the name @backing
 * (may be NULL). Sets @header's header_length and backing_file_ fields. 0, or
 * -ENOSPC if it does not fit. For create, and for rewriting the header of an
 * image; bitmaps and unknown extensions are written if @ext has them.
 */
int qcow2_header_build(Qcow2Header *header, const Qcow2Extensions *ext, const char *backing,
                       uint8_t *buf);

/* ---- qcow2-extension.c: pure ------------------------------------------------- */

/* Parse the header extensions in the first cluster @buf of @size bytes. */
bool qcow2_extensions_parse(const uint8_t *buf, size_t size, const Qcow2Header *header,
                            const char *name, Qcow2Extensions *ext, GError **errp);
void qcow2_extensions_clear(Qcow2Extensions *ext);
/* False with @errp, naming the features, if unknown incompatible bits are set. */
bool qcow2_check_features(const Qcow2Header *header, const Qcow2Extensions *ext, const char *name,
                          GError **errp);

/* ---- qcow2-entry.c: pure ----------------------------------------------------- */

typedef enum Qcow2Kind {
    QCOW2_KIND_UNALLOCATED,
    QCOW2_KIND_ZERO,
    QCOW2_KIND_DATA,
    QCOW2_KIND_COMPRESSED,
    QCOW2_KIND_INVALID,
} Qcow2Kind;

/* Guest range of one kind; with a place, consecutive in the file. Bytes. */
typedef struct Qcow2Run {
    Qcow2Kind kind;
    bool has_place;
    uint64_t offset;
    uint64_t bytes;
    uint64_t host;
    uint64_t host_bytes; /* compressed: length of the encoded data */
    bool copied; /* its entries say that nobody else refers to the place */
} Qcow2Run;

/* A piece of an L2 table in host order. */
typedef struct Qcow2Entries {
    const uint64_t *words;
    size_t count;         /* entries, of one or two words */
    uint64_t guest_first; /* guest offset of the first entry's cluster */
    uint64_t data_length; /* bytes in the file that holds the data */
    bool by_copied;       /* a run ends where "copied" changes */
} Qcow2Entries;

/*
 * The longest run around guest offset @offset in @entries. Returns 0, or -EIO
 * if the entry there is not valid.
 */
int qcow2_find_run(const Qcow2Geometry *geo, const Qcow2Entries *entries, uint64_t offset,
                   Qcow2Run *run);
/* Place and length of a compressed cluster. */
void qcow2_compressed_place(const Qcow2Geometry *geo, uint64_t entry, uint64_t *offset,
                            uint64_t *bytes);
/* Whether an L1 entry is well-formed; *@l2_offset is 0 where there is no table. */
bool qcow2_l1_entry_valid(const Qcow2Geometry *geo, uint64_t entry, uint64_t *l2_offset);

/* ---- qcow2-cache.c ------------------------------------------------------------ */

/*
 * A cache of slices of L2 tables, at most @max_bytes of them, each
 * @slice_bytes long. Shared by all threads.
 */
Qcow2Cache *qcow2_cache_new(uint64_t max_bytes, uint64_t slice_bytes);
void qcow2_cache_free(Qcow2Cache *cache);
/*
 * The slice at @offset in @file, loaded if need be. 0 or -errno. Give it back
 * with qcow2_slice_unref().
 */
int coroutine_fn qcow2_cache_get(Qcow2Cache *cache, BdrvChild *file, uint64_t offset,
                                 Qcow2Slice **slice) GRAPH_RDLOCK;
/* The numbers in a slice, in host order. */
const uint64_t *qcow2_slice_words(const Qcow2Slice *slice);
void qcow2_slice_unref(Qcow2Slice *slice);
/* Slices held now, for tests. */
size_t qcow2_cache_count(Qcow2Cache *cache);
/* Whether what "copied" entries refer to was found to be used once, as it should. */
typedef enum Qcow2SliceCheck {
    QCOW2_SLICE_UNKNOWN,
    QCOW2_SLICE_GOOD,
    QCOW2_SLICE_BAD,
} Qcow2SliceCheck;
Qcow2SliceCheck qcow2_slice_checked(const Qcow2Slice *slice);
void qcow2_slice_set_checked(Qcow2Slice *slice, Qcow2SliceCheck checked);

/* For the writer. Pinned slices stay; false if it is no longer in the cache. */
bool qcow2_cache_pin(Qcow2Cache *cache, Qcow2Slice *slice);
void qcow2_cache_unpin(Qcow2Cache *cache, Qcow2Slice *slice);
/* Put in a slice that is not in the file: @words, or zeros. Pinned, with a reference. */
Qcow2Slice *qcow2_cache_add(Qcow2Cache *cache, uint64_t offset, const uint64_t *words);
/* What was at @offset is no slice any more. */
void qcow2_cache_drop(Qcow2Cache *cache, uint64_t offset);
bool qcow2_slice_is_dropped(Qcow2Cache *cache, const Qcow2Slice *slice);
/* Drop all that is not pinned. */
void qcow2_cache_clean(Qcow2Cache *cache);
/* Drop what is not pinned and was not used since the last call; whether some that was is left. */
bool qcow2_cache_clean_unused(Qcow2Cache *cache);
/* A pinned slice's words, to be stored one by one, atomically. */
uint64_t *qcow2_slice_writable(Qcow2Slice *slice);
uint64_t qcow2_slice_offset(const Qcow2Slice *slice);
/* A mark that the writer keeps under its lock; returns what it was. */
bool qcow2_slice_set_dirty(Qcow2Slice *slice, bool dirty);

/* ---- qcow2-clean.c: the option cache-clean-interval -------------------------------- */

/* From open, and before the state is freed: main thread, not in a coroutine. */
void qcow2_cleaner_start(Qcow2State *s);
void qcow2_cleaner_stop(Qcow2State *s);
/* The interval may be another now. The node is drained; main thread. */
void qcow2_cleaner_changed(Qcow2State *s);
/* Something may be in the caches. Any thread. */
void qcow2_cleaner_wake(const Qcow2State *s);

/* ---- qcow2-compress.c: pure --------------------------------------------------- */

/*
 * Decode a compressed cluster of @type from @src into exactly @dst_bytes. 0,
 * or -EIO if the data is damaged, longer or shorter.
 */
int qcow2_decompress(unsigned type, const uint8_t *src, size_t src_bytes, uint8_t *dst,
                     size_t dst_bytes);
BdrvDecodeFunc qcow2_decode;

/* ---- qcow2-map.c --------------------------------------------------------------- */

/*
 * Read the L1 table of @size entries at @offset; entries that the file does
 * not have are left out. NULL with @errp. Inside or outside of a coroutine.
 */
Qcow2L1 *coroutine_mixed_fn qcow2_l1_load(Qcow2State *s, uint64_t offset, uint32_t size,
                                          const char *what, GError **errp) GRAPH_RDLOCK;
int coroutine_fn qcow2_co_map(BlockDriverState *bs, const BdrvMapRequest *req,
                              BdrvMapping *mapping) GRAPH_RDLOCK;

/* ---- qcow2-refcount.c ------------------------------------------------------------ */

/* Refcount number @index of a refcount block, entries of 1 << @order bits. */
uint64_t qcow2_refcount_at(const uint8_t *block, unsigned order, uint64_t index);
/* Set it, for whoever writes refcount blocks; @value must fit into the width. */
void qcow2_refcount_set(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
/* log2 of the refcounts in one block. */
unsigned qcow2_refcount_block_bits(const Qcow2Geometry *geo);
/*
 * The refcount table as far as the file has it, in host order: *@count
 * entries. -errno if it cannot be read; free with g_free().
 */
int coroutine_fn qcow2_reftable_load(Qcow2State *s, uint64_t **table, uint64_t *count) GRAPH_RDLOCK;
/*
 * Whether the image looks as if its clusters were allocated in advance without
 * writing them: many more are in use than the file has blocks on disk. 1, 0,
 * or -errno if the refcounts cannot be read.
 */
int coroutine_fn qcow2_detect_preallocation(Qcow2State *s) GRAPH_RDLOCK;

/* ---- qcow2-window.c ---------------------------------------------------------------- */

/* Starts as {.file = …}; end with qcow2_window_clear(). */
typedef struct Qcow2Window {
    BdrvChild *file;
    uint8_t *buf;
    uint64_t start;
    size_t filled;
} Qcow2Window;

/*
 * Make @bytes (at most 256 KiB) at @offset visible at *@data, until the next
 * call; zeros past the end of the file. 0 or -errno.
 */
int coroutine_mixed_fn qcow2_window_get(Qcow2Window *w, uint64_t offset, size_t bytes,
                                        const uint8_t **data);
void qcow2_window_clear(Qcow2Window *w);

/* ---- qcow2-snapshot.c ------------------------------------------------------------ */

/*
 * Read the snapshot table into @table, to be cleared in any case. False with
 * @errp. With @for_check, entries beyond the end of the file are accepted, too.
 * Inside or outside of a coroutine.
 */
bool coroutine_mixed_fn qcow2_snapshots_load(Qcow2State *s, bool for_check,
                                             Qcow2SnapshotTable *table, GError **errp) GRAPH_RDLOCK;
void qcow2_snapshots_clear(Qcow2SnapshotTable *table);
/* Bytes of the longest entry. */
#define QCOW2_SNAPSHOT_ENTRY_MAX (40 + QCOW2_MAX_SNAPSHOT_EXTRA + 2 * 65535 + 7)
/*
 * Parse one entry of the table at @buf, QCOW2_SNAPSHOT_ENTRY_MAX bytes. The
 * entry's length with padding, or -EFBIG if it has too much extra data.
 */
int64_t qcow2_snapshot_parse(const uint8_t *buf, unsigned version, Qcow2Snapshot *snapshot);
/* The length that an entry says it has, with padding; looks at its first 40 bytes. */
uint64_t qcow2_snapshot_entry_length(const uint8_t *entry);
/*
 * Add such an entry to @table. Of the extra data, what version 3 requires is completed:
 * the VM state is as large as the entry says, the disk has @disk_size bytes.
 */
void qcow2_snapshot_append(GByteArray *table, const uint8_t *entry, uint64_t disk_size);
bool qcow2_snapshot_get(BlockDriverState *bs, size_t index, BdrvSnapshotInfo *info);
bool qcow2_snapshot_load_tmp(BlockDriverState *bs, const BdrvSnapshotInfo *snapshot,
                             GError **errp);

/* ---- qcow2-check.c, qcow2-info.c, qcow2-luks.c, qcow2-measure.c ------------------- */

int coroutine_fn qcow2_co_check(BlockDriverState *bs, int fix, BdrvCheckResult *result,
                                BdrvCheckReport *report, void *opaque) GRAPH_RDLOCK;
JsonObject *qcow2_get_specific_info(BlockDriverState *bs, GError **errp);
/* What a LUKS header tells, as members of @info. @buf holds 592 bytes. */
bool qcow2_luks_describe(const uint8_t *buf, size_t size, const char *name, JsonObject *info,
                         GError **errp);
bool qcow2_measure(JsonObject *options, BlockDriverState *source, BlockMeasureInfo *info,
                   GError **errp);

/* ---- qcow2-create.c, qcow2-create-options.c ------------------------------------------ */

extern const BlockOption qcow2_create_options[];
bool qcow2_create(const char *filename, JsonObject *options, GError **errp);
bool qcow2_create_sequential(JsonObject *options, GArray *ranges, BdrvSequentialWrite *write,
                             void *opaque, GError **errp);

/* ---- qcow2-backing.c ------------------------------------------------------ */

bool qcow2_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                               GError **errp);

/* ---- qcow2-amend.c ------------------------------------------------------------------ */

extern const BlockOption qcow2_amend_options[];
int coroutine_fn qcow2_co_amend(BlockDriverState *bs, JsonObject *options,
                                BdrvAmendProgress *progress, void *opaque,
                                GError **errp) GRAPH_RDLOCK;

/* ---- qcow2-options.c ---------------------------------------------------------------- */

extern const BlockOption qcow2_open_options[];
extern const char *const qcow2_run_options[]; /* those that a reopen can change; then NULL */
/* Take those of @options that reopen can change out of it: a new object. */
JsonObject *qcow2_options_split(JsonObject *options);
/* Whether one of them is in @options. */
bool qcow2_options_any(JsonObject *options);
/* Read @run_options, which qcow2_options_split() gave, and check them against the header. */
bool qcow2_options_parse(JsonObject *run_options, const Qcow2Header *header,
                         const Qcow2Geometry *geo, Qcow2Options *result, GError **errp);
/* Take "encrypt" and check it against the header. */
bool qcow2_options_take_encrypt(JsonObject *options, const Qcow2Header *header, GError **errp);
/* Where no option says whether requests to discard are passed on, @flags (BdrvOpenFlags) do. */
void qcow2_options_follow_flags(Qcow2Options *options, int flags);

/* ---- qcow2-reopen.c ----------------------------------------------------------------- */

bool qcow2_reopen_prepare(BdrvReopenState *state, JsonObject *options, GError **errp);
void qcow2_reopen_commit(BdrvReopenState *state);
void qcow2_reopen_abort(BdrvReopenState *state);

/* The length of the image file now, in bytes; 0 if it is not known. */
uint64_t qcow2_file_length(const Qcow2State *s) GRAPH_RDLOCK;

#endif
