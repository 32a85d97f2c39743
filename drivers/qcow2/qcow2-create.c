/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: make a new image: plan it, make its files, and have them written. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-create.h"

/* QEMU allocates no more than this at once; it shows in where things lie. */
#define MAX_PIECE_BYTES INT32_MAX

/* ---- The plan ---------------------------------------------------------------------- */

static uint64_t round_up(uint64_t value, unsigned bits)
{
    return (value + (1ULL << bits) - 1) >> bits << bits;
}

bool qcow2_new_image_is_mapped(const Qcow2CreateOptions *opts)
{
    return opts->prealloc != BLOCK_PREALLOC_OFF || opts->data_file_raw;
}

/* One L2 table and its clusters, in pieces, behind each other. */
static int walk_interleaved(const Qcow2NewImage *image, Qcow2Layout *l, uint64_t l2, uint64_t guest,
                            uint64_t count, Qcow2PieceFunc *piece, void *opaque)
{
    uint64_t max_count = MAX_PIECE_BYTES >> image->geo.cluster_bits;

    while (count > 0) {
        uint64_t n = MIN(count, max_count);
        uint64_t host;
        int ret = qcow2_layout_alloc(l, n, &host);

        if (ret >= 0) {
            ret = piece(opaque, l2, guest, n, host);
        }
        if (ret < 0) {
            return ret;
        }
        guest += n;
        count -= n;
    }
    return 0;
}

static int walk_l2_tables(Qcow2NewImage *image, Qcow2Layout *l, Qcow2PieceFunc *piece,
                          void *opaque)
{
    const Qcow2CreateOptions *opts = image->opts;
    uint64_t clusters = qcow2_clusters(&image->geo, opts->size);
    uint64_t per_table = 1ULL << image->geo.l2_bits;
    bool interleaved = !opts->data_file && opts->prealloc == BLOCK_PREALLOC_METADATA;
    uint64_t data = 0;
    int ret = 0;

    /* In one run, so that it can be allocated in one call; or at guest offsets. */
    if (!opts->data_file && !interleaved) {
        ret = qcow2_layout_reserve(l, clusters + image->header.l1_size);
        data = ret < 0 ? 0 : qcow2_layout_take_end(l, clusters);
    }
    for (uint64_t i = 0; ret >= 0 && i < image->header.l1_size; i++) {
        uint64_t guest = i * per_table;
        uint64_t count = MIN(per_table, clusters - guest);

        ret = qcow2_layout_alloc(l, 1, &image->l1[i]);
        if (ret >= 0) {
            ret = interleaved
                      ? walk_interleaved(image, l, image->l1[i], guest, count, piece, opaque)
                      : piece(opaque, image->l1[i], guest, count, data + guest);
        }
    }
    return ret;
}

int qcow2_new_image_walk(Qcow2NewImage *image, Qcow2Layout *l, Qcow2PieceFunc *piece,
                         void *opaque)
{
    Qcow2Header *h = &image->header;

    if (h->l1_size > 0) {
        uint64_t first;
        int ret = qcow2_layout_alloc(l, qcow2_clusters(&image->geo, h->l1_size * 8ULL), &first);

        if (ret < 0) {
            return ret;
        }
        h->l1_table_offset = first << h->cluster_bits;
    }
    return qcow2_new_image_is_mapped(image->opts) ? walk_l2_tables(image, l, piece, opaque) : 0;
}

static int remember_end(void *opaque, uint64_t l2, uint64_t guest, uint64_t count, uint64_t host)
{
    uint64_t *end = opaque;

    *end = host + count;
    return 0;
}

void qcow2_new_image_init_header(Qcow2NewImage *image)
{
    const Qcow2CreateOptions *opts = image->opts;

    image->header = (Qcow2Header){
        .version = opts->version,
        .cluster_bits = opts->cluster_bits,
        .size = opts->size,
        .incompatible_features =
            (opts->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
            (opts->compression_type != QCOW2_COMPRESSION_ZLIB ? QCOW2_INCOMPAT_COMPRESSION : 0) |
            (opts->extended_l2 ? QCOW2_INCOMPAT_EXTENDED_L2 : 0),
        .compatible_features = opts->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0,
        .autoclear_features = opts->data_file_raw ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0,
        .refcount_order = opts->refcount_order,
        .compression_type = opts->compression_type,
    };
    qcow2_geometry_init(&image->geo, &image->header);
}

/* The lengths of the files, given where the last piece ends. */
static void plan_lengths(Qcow2NewImage *image, uint64_t last_end)
{
    const Qcow2CreateOptions *opts = image->opts;
    const Qcow2Header *h = &image->header;
    uint64_t end = image->layout.end << h->cluster_bits;
    uint64_t l1_end = h->l1_table_offset + h->l1_size * 8ULL;
    /* What is allocated in advance ends with the last subcluster. */
    uint64_t mapped = round_up(opts->size, image->geo.subcluster_bits);

    image->file_length = end;
    if (!qcow2_new_image_is_mapped(opts) && round_up(l1_end, h->cluster_bits) == end) {
        image->file_length = l1_end;
    } else if (!opts->data_file && opts->prealloc == BLOCK_PREALLOC_METADATA &&
               last_end == image->layout.end) {
        image->file_length = end - (round_up(opts->size, h->cluster_bits) - mapped);
    }
    image->data_length = qcow2_new_image_is_mapped(opts) ? mapped : opts->size;
}

static bool plan_header(Qcow2NewImage *image, GError **errp)
{
    const Qcow2CreateOptions *opts = image->opts;
    Qcow2Extensions ext = { .backing_format = opts->backing_fmt, .data_file = opts->data_file };
    int ret;

    image->header.refcount_table_offset = image->layout.table << opts->cluster_bits;
    image->header.refcount_table_clusters = image->layout.table_clusters;
    image->header_cluster = g_malloc(qcow2_cluster_size(&image->geo));
    ret = opts->backing_file && strlen(opts->backing_file) > QCOW2_MAX_BACKING_NAME
              ? -EINVAL
              : qcow2_header_build(&image->header, &ext, opts->backing_file,
                                   image->header_cluster);
    if (ret < 0 && opts->backing_file) {
        block_error_set_errno(errp, ret, "Could not assign backing file '%s' with format '%s'",
                              opts->backing_file, opts->backing_fmt ? opts->backing_fmt : "");
    } else if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not update qcow2 header");
    }
    return ret >= 0;
}

bool qcow2_new_image_plan(Qcow2NewImage *image, const Qcow2CreateOptions *opts, GError **errp)
{
    uint64_t l1_entries, last_end = 0;

    *image = (Qcow2NewImage){ .opts = opts };
    qcow2_new_image_init_header(image);
    qcow2_layout_init(&image->layout, opts->cluster_bits, opts->refcount_order);
    l1_entries = qcow2_l1_entries_needed(&image->geo, opts->size);
    if (l1_entries <= QCOW2_MAX_L1_BYTES / 8) {
        image->header.l1_size = l1_entries;
        image->l1 = g_new0(uint64_t, l1_entries);
    }
    if (l1_entries > QCOW2_MAX_L1_BYTES / 8 ||
        qcow2_new_image_walk(image, &image->layout, remember_end, &last_end) < 0) {
        block_error_set(errp, EFBIG,
                        "The image size is too large (try using a larger cluster size)");
        return false;
    }
    plan_lengths(image, last_end);
    return plan_header(image, errp);
}

void qcow2_new_image_clear(Qcow2NewImage *image)
{
    qcow2_layout_clear(&image->layout);
    g_clear_pointer(&image->l1, g_free);
    g_clear_pointer(&image->header_cluster, g_free);
}

/* ---- The files ------------------------------------------------------------------------- */

typedef struct NewFile {
    BlockDriver *protocol;
    const char *filename;
    BlockBackend *blk;
    bool made;
} NewFile;

/* Make an empty file with the protocol's @options, and open it for us alone. */
static bool new_file_make(NewFile *f, const char *filename, JsonObject *options, GError **errp)
{
    uint64_t perm = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE;

    f->filename = filename;
    f->protocol = bdrv_find_protocol(filename, errp);
    if (!f->protocol || !bdrv_create(f->protocol, filename, options, errp)) {
        return false;
    }
    f->made = true;
    f->blk = blk_new_open(filename, NULL, BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, NULL,
                          errp);
    return f->blk && blk_set_perm(f->blk, perm, BLK_PERM_CONSISTENT_READ, errp);
}

/* Close it, and unless all is @well, leave nothing behind. */
static void new_file_end(NewFile *f, bool well)
{
    g_clear_pointer(&f->blk, blk_unref);
    if (f->made && !well && f->protocol->bdrv_delete) {
        f->protocol->bdrv_delete(f->filename);
    }
}

/*
 * Make it @length bytes of zeros. What cannot be cleared by making it, a device,
 * has had its length before.
 */
static bool new_file_set_length(NewFile *f, uint64_t length, BlockPrealloc prealloc, GError **errp)
{
    bool had_length = blk_getlength(f->blk) > 0;
    bool in_advance = prealloc == BLOCK_PREALLOC_FALLOC || prealloc == BLOCK_PREALLOC_FULL;
    int ret = blk_truncate(f->blk, length, false,
                           in_advance && !had_length ? prealloc : BLOCK_PREALLOC_OFF, errp);

    if (ret >= 0 && had_length) {
        ret = blk_pwrite_zeroes(f->blk, 0, length, in_advance ? 0 : BDRV_REQ_MAY_UNMAP);
        if (ret < 0) {
            block_error_set_errno(errp, ret, "Could not clear '%s'", f->filename);
        }
    }
    return ret >= 0;
}

static bool fill_files(Qcow2NewImage *image, NewFile *file, NewFile *data, GError **errp)
{
    BlockPrealloc prealloc = image->opts->prealloc;
    int ret;

    if (!new_file_set_length(file, image->file_length, data->blk ? BLOCK_PREALLOC_OFF : prealloc,
                             errp) ||
        (data->blk && !new_file_set_length(data, image->data_length, prealloc, errp))) {
        return false;
    }
    ret = data->blk ? blk_flush(data->blk) : 0;
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not write '%s'", data->filename);
        return false;
    }
    ret = qcow2_new_image_write(image, file->blk);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "Could not write the metadata of '%s'", file->filename);
    }
    return ret >= 0;
}

static bool make_files(Qcow2NewImage *image, const char *filename, JsonObject *options,
                       GError **errp)
{
    const char *data_file = image->opts->data_file;
    NewFile file = { 0 }, data = { 0 };
    bool ok = new_file_make(&file, filename, options, errp) &&
              (!data_file || new_file_make(&data, data_file, options, errp)) &&
              fill_files(image, &file, &data, errp);

    new_file_end(&data, ok);
    new_file_end(&file, ok);
    return ok;
}

bool qcow2_create(const char *filename, JsonObject *options, GError **errp)
{
    Qcow2NewImage image = { 0 };
    Qcow2CreateOptions opts;
    bool ok = qcow2_create_options_take(options, &opts, errp) &&
              qcow2_new_image_plan(&image, &opts, errp) &&
              make_files(&image, filename, options, errp);

    qcow2_new_image_clear(&image);
    qcow2_create_options_clear(&opts);
    return ok;
}
