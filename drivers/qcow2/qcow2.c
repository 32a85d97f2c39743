/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the driver's table, probe, open and close. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-alloc.h"
#include "drivers/qcow2/qcow2-bitmap.h"
#include "drivers/qcow2/qcow2-snapshot.h"
#include "drivers/qcow2/qcow2.h"

uint64_t qcow2_file_length(const Qcow2State *s)
{
    return MAX(bdrv_getlength(bdrv_child_bs(s->file)), 0);
}

static int qcow2_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return size >= 8 && qcow2_be32(buf) == QCOW2_MAGIC && qcow2_be32(buf + 4) >= 2 ? 100 : 0;
}

/* Header and extensions; all that is read is in the first cluster. */
static bool GRAPH_RDLOCK read_header(Qcow2State *s, int flags, GError **errp)
{
    uint8_t start[QCOW2_HEADER_V3_SIZE + 8];
    g_autofree uint8_t *cluster = NULL;
    size_t cluster_size;
    int ret = bdrv_pread(s->file, 0, sizeof(start), start, 0);

    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not read the qcow2 header at offset 0",
                              s->name);
        return false;
    }
    if (!qcow2_header_parse(start, sizeof(start), qcow2_file_length(s), flags, s->name,
                            &s->header, errp)) {
        return false;
    }
    cluster_size = (size_t)1 << s->header.cluster_bits;
    cluster = g_malloc(cluster_size);
    ret = bdrv_pread(s->file, 0, cluster_size, cluster, 0);
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not read the first cluster at offset 0",
                              s->name);
        return false;
    }
    return qcow2_extensions_parse(cluster, cluster_size, &s->header, s->name, &s->ext,
                                  errp) &&
           qcow2_check_features(&s->header, &s->ext, s->name, errp);
}

static bool set_backing(BlockDriverState *bs, Qcow2State *s, GError **errp)
{
    char name[QCOW2_MAX_BACKING_NAME + 1] = "";
    uint32_t size = s->header.backing_file_size;
    int ret;

    if (s->header.backing_file_offset == 0 || size == 0) {
        return true;
    }
    ret = bdrv_pread(s->file, s->header.backing_file_offset, size, name, 0);
    if (ret < 0) {
        block_error_set_errno(errp, -ret,
                              "'%s': could not read the backing file name at offset "
                              "%" G_GUINT64_FORMAT,
                              s->name, s->header.backing_file_offset);
        return false;
    }
    bdrv_set_backing_reference(bs, name, s->ext.backing_format);
    return true;
}

static bool check_encryption(BlockDriverState *bs, const Qcow2State *s, int flags, GError **errp)
{
    uint32_t method = s->header.crypt_method;

    if (method == QCOW2_CRYPT_NONE) {
        return true;
    }
    bdrv_set_encrypted(bs, true);
    if (method == QCOW2_CRYPT_LUKS && s->ext.crypto_length == 0) {
        block_error_set(errp, EINVAL, "'%s': crypt_method 2 (LUKS) without an encryption header",
                        s->name);
        return false;
    }
    if (!(flags & BDRV_O_NO_IO)) {
        block_error_set(errp, ENOTSUP,
                        "'%s': crypt_method %u: encryption with %s is not supported by this "
                        "version",
                        s->name, method, method == QCOW2_CRYPT_LUKS ? "LUKS" : "AES");
        return false;
    }
    return true;
}

static bool open_data_file(BlockDriverState *bs, Qcow2State *s, JsonObject *options, int flags,
                           GError **errp)
{
    bool named = json_object_has_member(options, "data-file");

    if (!s->geo.external_data) {
        s->data_file = s->file;
        if (named) {
            block_error_set(errp, EINVAL, "'data-file' can only be set for images with an "
                                          "external data file");
            return false;
        }
        if ((s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW) &&
            !(flags & BDRV_O_NO_IO)) {
            block_error_set(errp, EINVAL, "'%s': data-file-raw requires a data file",
                            s->name);
            return false;
        }
        return true;
    }
    if (named) {
        s->data_file = bdrv_open_child(NULL, options, "data-file", bs, BDRV_CHILD_DATA, false,
                                       errp);
        return s->data_file != NULL;
    }
    if (flags & BDRV_O_NO_IO) {
        return true;
    }
    if (!s->ext.data_file) {
        block_error_set(errp, EINVAL, "'data-file' is required for this image");
        return false;
    }
    s->data_file = bdrv_open_reference(bs, "data-file", BLOCK_REFERENCE_DATA_FILE,
                                       s->ext.data_file, NULL, options, BDRV_CHILD_DATA, errp);
    return s->data_file != NULL;
}

static bool GRAPH_RDLOCK load_tables(Qcow2State *s, int flags, GError **errp)
{
    const Qcow2Header *h = &s->header;

    s->length = h->size;
    s->l1_offset = h->l1_table_offset;
    s->l1_size = h->l1_size;
    s->prealloc = QCOW2_PREALLOC_UNKNOWN;
    s->l2_cache = qcow2_cache_new(s->options.l2_cache_size, s->options.l2_slice_bytes);
    co_mutex_init(&s->load_lock);
    qcow2_cleaner_start(s);
    /* Check reads the snapshot table itself, to report what is wrong there. */
    if (!(flags & BDRV_O_CHECK) && !qcow2_snapshots_load(s, false, &s->snapshots, errp)) {
        return false;
    }
    if (flags & BDRV_O_NO_IO) {
        s->bitmaps = qcow2_bitmaps_new();
        return qcow2_bitmap_reader_open(s, errp);
    }
    s->bitmaps = qcow2_bitmaps_load(s, errp);
    if (!s->bitmaps) {
        return false;
    }
    if (flags & BDRV_O_CHECK) {
        return true;
    }
    s->file_allocated = bdrv_get_allocated_file_size(bdrv_child_bs(s->file));
    s->l1 = qcow2_l1_load(s, s->l1_offset, s->l1_size, "L1 table", errp);
    return s->l1 != NULL;
}

static void free_state(Qcow2State *s)
{
    qcow2_cleaner_stop(s);
    g_clear_pointer(&s->writer, qcow2_writer_free);
    qcow2_snapshots_clear(&s->snapshots);
    g_clear_pointer(&s->bitmaps, g_array_unref);
    qcow2_bitmap_reader_close(s);
    qcow2_extensions_clear(&s->ext);
    g_clear_pointer(&s->l2_cache, qcow2_cache_free);
    g_clear_pointer(&s->l1, g_free);
    g_clear_pointer(&s->run_options, json_object_unref);
    g_clear_pointer(&s->name, g_free);
}

static bool open_image(BlockDriverState *bs, Qcow2State *s, JsonObject *options, int flags,
                       GError **errp)
{
    bool ok;

    bdrv_graph_rdlock_main_loop();
    s->file = bdrv_file_child(bs);
    s->name = g_strdup(bdrv_get_filename(bdrv_child_bs(s->file)));
    ok = read_header(s, flags, errp);
    bdrv_graph_rdunlock_main_loop();
    if (!ok) {
        return false;
    }
    qcow2_geometry_init(&s->geo, &s->header);
    s->run_options = qcow2_options_split(options);
    if (!qcow2_options_take_encrypt(options, &s->header, errp) ||
        !qcow2_options_parse(s->run_options, &s->header, &s->geo, &s->options, errp) ||
        !check_encryption(bs, s, flags, errp) || !set_backing(bs, s, errp) ||
        !open_data_file(bs, s, options, flags, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    ok = load_tables(s, flags, errp);
    bdrv_graph_rdunlock_main_loop();
    return ok;
}

static bool qcow2_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);

    if (!bdrv_open_file_child(bs, options, errp)) {
        return false;
    }
    s->file_allocated = -1;
    if (!open_image(bs, s, options, flags, errp)) {
        free_state(s);
        return false;
    }
    bdrv_set_length(bs, s->length);
    bdrv_set_map_unit(bs, qcow2_cluster_size(&s->geo));
    qcow2_options_follow_flags(&s->options, flags);
    if ((flags & BDRV_O_RDWR) && !(flags & (BDRV_O_NO_IO | BDRV_O_CHECK)) &&
        bdrv_is_writable(bs) &&
        !(qcow2_writer_open(bs, errp) && qcow2_bitmaps_open(bs, errp))) {
        free_state(s);
        return false;
    }
    return true;
}

static void qcow2_refresh_limits(BlockDriverState *bs, BlockLimits *limits)
{
    const Qcow2State *s = bdrv_state(bs);

    limits->pwrite_zeroes_alignment = 1LL << s->geo.subcluster_bits;
    limits->pdiscard_alignment = qcow2_cluster_size(&s->geo);
}

static void qcow2_close(BlockDriverState *bs)
{
    qcow2_bitmaps_close(bs); /* what cannot be stored is marked as in use */
    qcow2_writer_settle(bs); /* what fails is repaired when it is opened again */
    free_state(bdrv_state(bs));
}

static int coroutine_fn GRAPH_RDLOCK qcow2_co_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    const Qcow2State *s = bdrv_state(bs);
    const Qcow2Geometry *geo = &s->geo;

    info->cluster_size = qcow2_cluster_size(geo);
    info->subcluster_size = 1LL << geo->subcluster_bits;
    info->vm_state_offset = qcow2_l1_entries_needed(geo, s->header.size)
                            << (geo->cluster_bits + geo->l2_bits);
    info->is_dirty = s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY;
    return 0;
}

BlockDriver block_driver_qcow2 = {
    .format_name = "qcow2",
    .instance_size = sizeof(Qcow2State),
    .options = qcow2_open_options,
    .weak_options = qcow2_run_options,
    .create_options = qcow2_create_options,
    .amend_options = qcow2_amend_options,
    .supports_backing = true,
    .bdrv_probe = qcow2_probe,
    .bdrv_open = qcow2_open,
    .bdrv_close = qcow2_close,
    .bdrv_reopen_prepare = qcow2_reopen_prepare,
    .bdrv_reopen_commit = qcow2_reopen_commit,
    .bdrv_reopen_abort = qcow2_reopen_abort,
    .bdrv_change_backing_file = qcow2_change_backing_file,
    .bdrv_refresh_limits = qcow2_refresh_limits,
    .bdrv_snapshot_load_tmp = qcow2_snapshot_load_tmp,
    .bdrv_snapshot_get = qcow2_snapshot_get,
    .bdrv_stored_bitmap_get = qcow2_stored_bitmap_get,
    .bdrv_can_store_bitmap = qcow2_can_store_bitmap,
    .bdrv_remove_stored_bitmap = qcow2_remove_stored_bitmap,
    .bdrv_load_bitmaps = qcow2_load_bitmaps,
    .bdrv_store_bitmaps = qcow2_store_bitmaps,
    .bdrv_get_specific_info = qcow2_get_specific_info,
    .bdrv_create = qcow2_create,
    .bdrv_create_sequential = qcow2_create_sequential,
    .bdrv_measure = qcow2_measure,
    .bdrv_co_get_info = qcow2_co_get_info,
    .bdrv_co_check = qcow2_co_check,
    .bdrv_co_amend = qcow2_co_amend,
    .bdrv_co_make_empty = qcow2_co_make_empty,
    .bdrv_co_show_vm_state = qcow2_co_show_vm_state,
    .bdrv_co_map = qcow2_co_map,
    .bdrv_co_map_commit = qcow2_co_map_commit,
    .bdrv_co_map_abort = qcow2_co_map_abort,
    .bdrv_co_release = qcow2_co_release,
    .bdrv_encode = qcow2_encode,
    .bdrv_co_flush = qcow2_co_flush,
    .bdrv_co_truncate = qcow2_co_truncate,
    .bdrv_co_snapshot_create = qcow2_co_snapshot_create,
    .bdrv_co_snapshot_goto = qcow2_co_snapshot_goto,
    .bdrv_co_snapshot_delete = qcow2_co_snapshot_delete,
};
