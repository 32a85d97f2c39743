/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: from dirty bitmaps of the node to stored ones; see qcow2-bitmap.h. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-bitmap.h"

/* A directory in the making, and what it is made of. */
typedef struct Edition {
    BlockDriverState *bs;
    Qcow2State *s;
    GArray *bitmaps;    /* Qcow2Bitmap: what the directory is to list */
    GArray *new_places; /* Place: to be freed if it is not published */
    GArray *old_places; /* Place: to be freed when it is */
    const char *bitmap; /* the one that is being stored */
} Edition;

typedef struct Place {
    uint64_t offset;
    uint64_t bytes;
} Place;

static void edition_init(Edition *e, BlockDriverState *bs)
{
    *e = (Edition) {
        .bs = bs,
        .s = bdrv_state(bs),
        .bitmaps = qcow2_bitmaps_new(),
        .new_places = g_array_new(false, false, sizeof(Place)),
        .old_places = g_array_new(false, false, sizeof(Place)),
    };
}

static void edition_clear(Edition *e)
{
    g_clear_pointer(&e->bitmaps, g_array_unref);
    g_array_unref(e->new_places);
    g_array_unref(e->old_places);
}

static void append_place(GArray *places, uint64_t offset, uint64_t bytes)
{
    Place place = { offset, bytes };

    g_array_append_val(places, place);
}

/* ---- Places ---------------------------------------------------------------------- */

/* Write @bytes at @data to new clusters, at *@offset. 0 or -errno. */
static int coroutine_fn GRAPH_RDLOCK write_new(Edition *e, const void *data, uint64_t bytes,
                                               uint64_t *offset)
{
    int ret = qcow2_alloc_clusters(e->s, qcow2_clusters(&e->s->geo, bytes), offset);

    if (ret < 0) {
        return ret;
    }
    append_place(e->new_places, *offset, bytes);
    return bdrv_co_pwrite(e->s->file, *offset, bytes, data, 0);
}

/* What cannot be freed is leaked. */
static void coroutine_fn GRAPH_RDLOCK free_places(Edition *e, const GArray *places)
{
    for (guint i = 0; i < places->len; i++) {
        const Place *place = &g_array_index(places, Place, i);

        qcow2_update_refcount(e->s, place->offset, place->bytes, -1);
    }
}

/*
 * The table and the clusters of a stored bitmap are to be freed. What a table refers to
 * that cannot be read is leaked.
 */
static void coroutine_fn GRAPH_RDLOCK drop_stored(Edition *e, const Qcow2Bitmap *bm)
{
    const Qcow2Geometry *geo = &e->s->geo;
    Qcow2Window window = { .file = e->s->file };
    const uint8_t *p;
    int ret = 0;

    append_place(e->old_places, bm->table_offset, (uint64_t)bm->table_size * 8);
    for (uint64_t i = 0; i < bm->table_size && ret >= 0; i++) {
        ret = qcow2_window_get(&window, bm->table_offset + i * 8, 8, &p);
        if (ret >= 0) {
            uint64_t entry = qcow2_be64(p);

            if (qcow2_bitmap_table_entry_valid(geo, entry) && (entry & QCOW2_OFFSET_MASK)) {
                append_place(e->old_places, entry & QCOW2_OFFSET_MASK, qcow2_cluster_size(geo));
            }
        }
    }
    qcow2_window_clear(&window);
}

/* ---- Publishing -------------------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK refer_to(Qcow2State *s, uint32_t count, uint64_t offset,
                                              uint64_t bytes)
{
    s->ext.nb_bitmaps = count;
    s->ext.bitmap_directory_offset = offset;
    s->ext.bitmap_directory_size = bytes;
    return qcow2_bitmaps_update_header(s);
}

/*
 * Rule 3: the directory is on disk, and what it refers to. If that fails, the old
 * one is put back, whose bitmaps are marked as in use: now, or before anything else
 * is changed in the image.
 */
static int coroutine_fn GRAPH_RDLOCK switch_directory(Edition *e, uint64_t offset, uint64_t bytes)
{
    const Qcow2Extensions old = e->s->ext;
    int ret = refer_to(e->s, e->bitmaps->len, offset, bytes);

    if (ret < 0 && refer_to(e->s, old.nb_bitmaps, old.bitmap_directory_offset,
                            old.bitmap_directory_size) < 0) {
        e->s->bitmaps_in_doubt = true;
        g_array_set_size(e->new_places, 0); /* nothing of both may be reused */
    }
    return ret;
}

/* Make what @e lists the directory of the image. 0 or -errno. */
static int coroutine_fn GRAPH_RDLOCK publish(Edition *e)
{
    Qcow2State *s = e->s;
    g_autoptr(GByteArray) directory = NULL;
    uint64_t offset = 0;
    int ret = 0;

    directory = qcow2_bitmaps_encode(e->bitmaps, 0);
    if (directory->len > 0) {
        ret = write_new(e, directory->data, directory->len, &offset);
    }
    if (ret >= 0) {
        /* Refcounts, lazy ones too, since the dirty bit need not be set; and what was written. */
        ret = qcow2_write_back(s->writer, true);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bdrv_child_bs(s->file));
    }
    if (s->ext.nb_bitmaps > 0) {
        append_place(e->old_places, s->ext.bitmap_directory_offset, s->ext.bitmap_directory_size);
    }
    if (ret >= 0) {
        ret = switch_directory(e, offset, directory->len);
    }
    if (ret < 0) {
        free_places(e, e->new_places);
        return ret;
    }
    for (guint i = 0; i < e->bitmaps->len; i++) {
        g_array_index(e->bitmaps, Qcow2Bitmap, i).entry_offset += offset;
    }
    g_array_unref(s->bitmaps);
    s->bitmaps = g_steal_pointer(&e->bitmaps);
    free_places(e, e->old_places);
    return bdrv_co_flush(e->bs);
}

/* Guests may go on writing: rule 5, now or with the next change. */
static void coroutine_fn GRAPH_RDLOCK announce_again(Edition *e)
{
    if (qcow2_bitmaps_announce(e->s) < 0) {
        __atomic_store_n(&e->s->writer->announced, false, __ATOMIC_RELEASE);
        bdrv_map_invalidate(e->bs, 0, INT64_MAX); /* the next change is to be seen */
    }
}

/* ---- Storing one bitmap ------------------------------------------------------------- */

/* The cluster of bits that begins with byte @start of the disk: its table entry. */
static int coroutine_fn GRAPH_RDLOCK store_cluster(Edition *e, BdrvDirtyBitmap *bitmap,
                                                   int64_t start, int64_t bytes, uint8_t *buf,
                                                   uint64_t *entry)
{
    const uint64_t size = qcow2_cluster_size(&e->s->geo);

    if (bdrv_dirty_bitmap_next_zero(bitmap, start, bytes) < 0) {
        *entry = 1; /* all ones */
        return 0;
    }
    bdrv_dirty_bitmap_export(bitmap, start / bdrv_dirty_bitmap_granularity(bitmap), size * 8, buf);
    return write_new(e, buf, size, entry);
}

/* Fill the bitmap's table, in host order; what is not touched is all zeros. */
static int coroutine_fn GRAPH_RDLOCK store_clusters(Edition *e, BdrvDirtyBitmap *bitmap,
                                                    unsigned granularity_bits, uint64_t *table)
{
    const Qcow2Geometry *geo = &e->s->geo;
    const unsigned shift = geo->cluster_bits + 3 + granularity_bits;
    g_autofree uint8_t *buf = g_malloc(qcow2_cluster_size(geo));
    int64_t at = 0;
    int ret = 0;

    while (ret >= 0 && (at = bdrv_dirty_bitmap_next_dirty(bitmap, at, INT64_MAX)) >= 0) {
        uint64_t index = at >> shift;

        ret = store_cluster(e, bitmap, index << shift, INT64_C(1) << shift, buf, &table[index]);
        if (__builtin_add_overflow((int64_t)(index << shift), INT64_C(1) << shift, &at)) {
            break; /* that was the last */
        }
    }
    return ret;
}

/* Store @bitmap, and list it. 0 or -errno. */
static int coroutine_fn GRAPH_RDLOCK store_bitmap(Edition *e, BdrvDirtyBitmap *bitmap)
{
    const Qcow2Geometry *geo = &e->s->geo;
    Qcow2Bitmap bm = {
        .type = QCOW2_BITMAP_TYPE_DIRTY_TRACKING,
        .granularity_bits = g_bit_nth_msf(bdrv_dirty_bitmap_granularity(bitmap), -1),
        .flags = bdrv_dirty_bitmap_enabled(bitmap) ? QCOW2_BITMAP_AUTO : 0,
        .name = (char *)bdrv_dirty_bitmap_name(bitmap),
    };
    uint64_t entries = qcow2_bitmap_table_size(geo, bdrv_dirty_bitmap_size(bitmap),
                                               bm.granularity_bits);
    g_autofree uint64_t *table = NULL;
    int ret;

    if (entries > QCOW2_MAX_BITMAP_BYTES >> geo->cluster_bits) {
        return -EFBIG; /* the disk has grown since the bitmap was made */
    }
    bm.table_size = entries;
    table = g_new0(uint64_t, bm.table_size);
    ret = store_clusters(e, bitmap, bm.granularity_bits, table);
    if (ret >= 0) {
        qcow2_words_to_host(table, bm.table_size);
        ret = write_new(e, table, bm.table_size * 8, &bm.table_offset);
    }
    if (ret >= 0) {
        qcow2_bitmaps_append(e->bitmaps, &bm);
    }
    return ret;
}

/* ---- Storing all, removing one -------------------------------------------------------- */

typedef struct Task {
    BlockDriverState *bs;
    int coroutine_fn GRAPH_RDLOCK_PTR (*run)(Edition *e, const char *name);
    const char *name;
    const char *failed; /* the bitmap that could not be stored; NULL: none in particular */
    int ret;
    bool done; /* atomic */
} Task;

/* List all persistent bitmaps anew; stored ones that are inconsistent stay as they are. */
static int coroutine_fn GRAPH_RDLOCK edit_all(Edition *e, const char *name)
{
    BdrvDirtyBitmap *bitmap = NULL;
    int ret = qcow2_bitmaps_announce(e->s); /* rule 5 */

    while (ret >= 0 && (bitmap = bdrv_dirty_bitmap_next(e->bs, bitmap))) {
        const Qcow2Bitmap *old;

        if (!bdrv_dirty_bitmap_persistent(bitmap)) {
            continue;
        }
        e->bitmap = bdrv_dirty_bitmap_name(bitmap);
        old = qcow2_bitmaps_find(e->s->bitmaps, bdrv_dirty_bitmap_name(bitmap));
        if (!(bdrv_dirty_bitmap_state(bitmap) & BDRV_BITMAP_INCONSISTENT)) {
            ret = store_bitmap(e, bitmap);
            if (ret >= 0 && old) {
                drop_stored(e, old);
            }
        } else if (old) {
            qcow2_bitmaps_append(e->bitmaps, old);
        }
    }
    if (ret >= 0) {
        e->bitmap = NULL;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK edit_without(Edition *e, const char *name)
{
    for (guint i = 0; i < e->s->bitmaps->len; i++) {
        const Qcow2Bitmap *bm = &g_array_index(e->s->bitmaps, Qcow2Bitmap, i);

        if (strcmp(bm->name, name) == 0) {
            drop_stored(e, bm);
        } else {
            qcow2_bitmaps_append(e->bitmaps, bm);
        }
    }
    return 0;
}

static void coroutine_fn task_entry(void *opaque)
{
    Task *task = opaque;
    Edition e;

    edition_init(&e, task->bs);
    bdrv_graph_co_rdlock();
    task->ret = task->run(&e, task->name);
    if (task->ret >= 0) {
        task->ret = publish(&e);
    } else {
        free_places(&e, e.new_places);
    }
    if (task->ret < 0) {
        announce_again(&e);
    }
    bdrv_graph_co_rdunlock();
    task->failed = e.bitmap;
    edition_clear(&e);
    __atomic_store_n(&task->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static bool run_task(Task *task, GError **errp)
{
    const Qcow2State *s = bdrv_state(task->bs);

    coroutine_enter(coroutine_create(task_entry, task));
    AIO_WAIT_WHILE(!__atomic_load_n(&task->done, __ATOMIC_ACQUIRE));
    if (task->ret < 0 && task->failed) {
        block_error_set_errno(errp, -task->ret, "'%s': could not write bitmap '%s'", s->name,
                              task->failed);
    } else if (task->ret < 0) {
        block_error_set_errno(errp, -task->ret, "'%s': could not write the bitmap directory",
                              s->name);
    }
    return task->ret >= 0;
}

static bool has_persistent(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap = NULL;

    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (bdrv_dirty_bitmap_persistent(bitmap) &&
            !(bdrv_dirty_bitmap_state(bitmap) &
              (BDRV_BITMAP_READONLY | BDRV_BITMAP_INCONSISTENT))) {
            return true;
        }
    }
    return false;
}

bool qcow2_store_bitmaps(BlockDriverState *bs, GError **errp)
{
    Task task = { .bs = bs, .run = edit_all };
    const Qcow2State *s = bdrv_state(bs);
    BdrvDirtyBitmap *bitmap = NULL;

    if (!s->bitmaps_loaded || !bdrv_is_writable(bs) || !has_persistent(bs)) {
        return true;
    }
    if (!run_task(&task, errp)) {
        return false;
    }
    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (bdrv_dirty_bitmap_persistent(bitmap)) {
            bdrv_dirty_bitmap_set_state(bitmap, BDRV_BITMAP_READONLY, true);
        }
    }
    return true;
}

void qcow2_bitmaps_close(BlockDriverState *bs)
{
    GError *err = NULL;

    if (!qcow2_store_bitmaps(bs, &err)) {
        g_printerr("qcow2: Lost persistent bitmaps of node '%s': %s\n", bdrv_get_node_name(bs),
                   err->message);
        g_error_free(err);
    }
}

bool qcow2_remove_stored_bitmap(BlockDriverState *bs, const char *name, GError **errp)
{
    Task task = { .bs = bs, .run = edit_without, .name = name };
    const Qcow2State *s = bdrv_state(bs);

    return !qcow2_bitmaps_find(s->bitmaps, name) || run_task(&task, errp);
}

/* ---- What can be stored ----------------------------------------------------------------- */

/* Why a bitmap like this cannot be stored, or NULL. */
static const char *why_not(BlockDriverState *bs, const Qcow2State *s, const char *name,
                           int64_t granularity)
{
    unsigned bits = g_bit_nth_msf(granularity, -1);
    uint64_t directory = qcow2_bitmap_entry_bytes(name);
    BdrvDirtyBitmap *bitmap = NULL;
    unsigned count = 0;

    if (s->header.version < 3) {
        return "Cannot store dirty bitmaps in qcow2 v2 files";
    }
    if (strlen(name) > QCOW2_MAX_BITMAP_NAME) {
        return "Name length exceeds maximum (1023 characters)";
    }
    if (qcow2_bitmap_table_size(&s->geo, bdrv_getlength(bs), bits) >
        QCOW2_MAX_BITMAP_BYTES >> s->geo.cluster_bits) {
        return "Too much space will be occupied by the bitmap. Use larger granularity";
    }
    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (bdrv_dirty_bitmap_persistent(bitmap)) {
            directory += qcow2_bitmap_entry_bytes(bdrv_dirty_bitmap_name(bitmap));
            count++;
        }
    }
    if (count >= QCOW2_MAX_BITMAPS) {
        return "Maximum number of persistent bitmaps is already reached";
    }
    return directory > QCOW2_MAX_BITMAP_DIRECTORY ? "Not enough space in the bitmap directory"
                                                  : NULL;
}

bool qcow2_can_store_bitmap(BlockDriverState *bs, const char *name, int64_t granularity,
                            GError **errp)
{
    const char *reason = why_not(bs, bdrv_state(bs), name, granularity);

    if (reason) {
        block_error_set(errp, EINVAL, "Can't make bitmap '%s' persistent in '%s': %s", name,
                        bdrv_get_node_name(bs), reason);
    }
    return reason == NULL;
}
