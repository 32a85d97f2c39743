/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: from stored bitmaps to dirty bitmaps of the node; see qcow2-bitmap.h. */
#include <errno.h>
#include "drivers/qcow2/qcow2-bitmap.h"

/* Where in an entry of the directory the flags are. */
#define ENTRY_FLAGS 12

typedef struct Loader {
    Qcow2State *s;
    const Qcow2Bitmap *bm;
    BdrvDirtyBitmap *bitmap;
    Qcow2Window table;
    uint8_t *cluster;
    uint64_t file_length;
    /* No cluster belongs to two tables, so there are no more than the file has. */
    uint64_t clusters_left;
} Loader;

static bool fail(const Loader *l, int err, uint64_t index, const char *what, GError **errp)
{
    block_error_set(errp, err, "'%s': bitmap '%s': table entry %" G_GUINT64_FORMAT " at offset "
                    "%" G_GUINT64_FORMAT " %s", l->s->name, l->bm->name, index,
                    l->bm->table_offset + index * 8, what);
    return false;
}

/* Take up the bits that table entry @index stands for. */
static bool load_cluster(Loader *l, uint64_t index, uint64_t entry, GError **errp)
{
    const Qcow2Geometry *geo = &l->s->geo;
    uint64_t offset = entry & QCOW2_OFFSET_MASK, size = qcow2_cluster_size(geo);
    uint64_t first = index * size * 8;
    int ret;

    if (!qcow2_bitmap_table_entry_valid(geo, entry)) {
        return fail(l, EINVAL, index, "is not valid", errp);
    }
    if (offset == 0) {
        if (entry & 1) {
            bdrv_dirty_bitmap_set(l->bitmap, first << l->bm->granularity_bits,
                                  (int64_t)(size * 8) << l->bm->granularity_bits);
        }
        return true;
    }
    if (offset >= l->file_length) {
        return fail(l, EINVAL, index, "lies beyond the end of the file", errp);
    }
    if (l->clusters_left-- == 0) {
        return fail(l, EINVAL, index, "refers to more clusters than the file has", errp);
    }
    ret = bdrv_pread(l->s->file, offset, size, l->cluster, 0);
    if (ret < 0) {
        return fail(l, -ret, index, "refers to a cluster that cannot be read", errp);
    }
    bdrv_dirty_bitmap_import(l->bitmap, first, size * 8, l->cluster);
    return true;
}

static bool load_bits(Loader *l, GError **errp)
{
    const Qcow2Bitmap *bm = l->bm;
    uint64_t needed = qcow2_bitmap_table_size(&l->s->geo, bdrv_dirty_bitmap_size(l->bitmap),
                                              bm->granularity_bits);
    const uint8_t *p;
    bool ok = true;

    if (bm->table_size != needed) {
        block_error_set(errp, EINVAL, "'%s': bitmap '%s': bitmap_table_size %u is not the "
                        "%" G_GUINT64_FORMAT " that the disk's length asks for", l->s->name,
                        bm->name, bm->table_size, needed);
        return false;
    }
    for (uint64_t i = 0; i < needed && ok; i++) {
        int ret = qcow2_window_get(&l->table, bm->table_offset + i * 8, 8, &p);

        ok = ret < 0 ? fail(l, -ret, i, "cannot be read", errp)
                     : load_cluster(l, i, qcow2_be64(p), errp);
    }
    return ok;
}

/* Make the dirty bitmap of one entry. */
static bool load_bitmap(BlockDriverState *bs, Loader *l, GError **errp)
{
    const Qcow2Bitmap *bm = l->bm;

    l->bitmap = bdrv_dirty_bitmap_create(bs, bm->name, INT64_C(1) << bm->granularity_bits, errp);
    if (!l->bitmap) {
        g_prefix_error(errp, "'%s': bitmap directory: ", l->s->name);
        return false;
    }
    bdrv_dirty_bitmap_set_persistent(l->bitmap, true);
    if (!(bm->flags & QCOW2_BITMAP_AUTO)) {
        bdrv_dirty_bitmap_disable(l->bitmap);
    }
    if (!bdrv_is_writable(bs)) {
        bdrv_dirty_bitmap_set_state(l->bitmap, BDRV_BITMAP_READONLY, true);
    }
    if (bm->flags & QCOW2_BITMAP_IN_USE) {
        bdrv_dirty_bitmap_set_state(l->bitmap, BDRV_BITMAP_INCONSISTENT, true);
        return true;
    }
    return load_bits(l, errp);
}

static void remove_loaded(BlockDriverState *bs, const Qcow2State *s)
{
    for (guint i = 0; i < s->bitmaps->len; i++) {
        BdrvDirtyBitmap *bitmap =
            bdrv_dirty_bitmap_find(bs, g_array_index(s->bitmaps, Qcow2Bitmap, i).name);

        if (bitmap) {
            bdrv_dirty_bitmap_remove(bitmap);
        }
    }
}

bool qcow2_load_bitmaps(BlockDriverState *bs, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    Loader l = { .s = s, .table = { .file = s->file } };
    bool ok = true;

    if (s->bitmaps_loaded) {
        return true;
    }
    bdrv_graph_rdlock_main_loop();
    l.file_length = qcow2_file_length(s);
    bdrv_graph_rdunlock_main_loop();
    l.clusters_left = qcow2_clusters(&s->geo, l.file_length);
    l.cluster = g_malloc(qcow2_cluster_size(&s->geo));
    for (guint i = 0; i < s->bitmaps->len && ok; i++) {
        l.bm = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        ok = load_bitmap(bs, &l, errp);
    }
    if (!ok) {
        remove_loaded(bs, s);
    }
    g_free(l.cluster);
    qcow2_window_clear(&l.table);
    s->bitmaps_loaded = ok;
    return ok;
}

/* Rule 1: each flag by itself, since all that a crash can leave is true then. */
static int coroutine_mixed_fn GRAPH_RDLOCK mark_in_use(Qcow2State *s)
{
    bool marked = false;

    for (guint i = 0; i < s->bitmaps->len; i++) {
        Qcow2Bitmap *bm = &g_array_index(s->bitmaps, Qcow2Bitmap, i);
        uint32_t flags = GUINT32_TO_BE(bm->flags | QCOW2_BITMAP_IN_USE);
        int ret;

        if (bm->flags & QCOW2_BITMAP_IN_USE) {
            continue;
        }
        ret = bdrv_pwrite(s->file, bm->entry_offset + ENTRY_FLAGS, sizeof(flags), &flags, 0);
        if (ret < 0) {
            return ret;
        }
        bm->flags |= QCOW2_BITMAP_IN_USE;
        marked = true;
    }
    return marked ? bdrv_flush(bdrv_child_bs(s->file)) : 0;
}

int coroutine_fn qcow2_bitmaps_announce(Qcow2State *s)
{
    int ret;

    bdrv_graph_assert_readable();
    if (s->bitmaps_in_doubt) {
        ret = qcow2_bitmaps_update_header(s);
        if (ret < 0) {
            return ret;
        }
        s->bitmaps_in_doubt = false;
    }
    return mark_in_use(s);
}

void qcow2_bitmaps_set_readonly(BlockDriverState *bs, bool readonly)
{
    BdrvDirtyBitmap *bitmap = NULL;

    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (bdrv_dirty_bitmap_persistent(bitmap)) {
            bdrv_dirty_bitmap_set_state(bitmap, BDRV_BITMAP_READONLY, readonly);
        }
    }
}

bool qcow2_bitmaps_open(BlockDriverState *bs, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    int ret;

    if (!qcow2_load_bitmaps(bs, errp)) {
        return false;
    }
    bdrv_graph_rdlock_main_loop();
    ret = mark_in_use(s);
    bdrv_graph_rdunlock_main_loop();
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not mark the bitmaps as in use", s->name);
        remove_loaded(bs, s);
        s->bitmaps_loaded = false;
        return false;
    }
    qcow2_bitmaps_set_readonly(bs, false);
    return true;
}
