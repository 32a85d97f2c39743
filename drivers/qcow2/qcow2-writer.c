/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: becoming writable, staying so, and what the header says about it. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-snapshot.h"
#include "drivers/qcow2/qcow2-bitmap.h"

#define INCOMPATIBLE_FEATURES_AT 72
#define AUTOCLEAR_FEATURES_AT 88
#define AUTOCLEAR_KNOWN (QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_FILE_RAW)
#define MIN_BLOCKS 4
#define MIN_DIRTY_SLICES 4

/* ---- The header ----------------------------------------------------------------------- */

int coroutine_fn qcow2_header_write_field(Qcow2Writer *w, uint64_t at, const void *data,
                                          size_t bytes)
{
    int ret;

    bdrv_graph_assert_readable();
    ret = bdrv_co_pwrite(w->s->file, at, bytes, data, 0);
    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(w->s->file));
}

static int coroutine_fn GRAPH_RDLOCK write_features(Qcow2Writer *w, uint64_t at, uint64_t *features,
                                                    uint64_t value)
{
    uint64_t word = GUINT64_TO_BE(value);
    int ret;

    if (w->s->header.version < 3 || *features == value) {
        return 0;
    }
    ret = qcow2_header_write_field(w, at, &word, sizeof(word));
    if (ret >= 0) {
        *features = value;
    }
    return MIN(ret, 0);
}

int coroutine_fn qcow2_set_dirty(Qcow2Writer *w, bool dirty)
{
    uint64_t *features = &w->s->header.incompatible_features;

    bdrv_graph_assert_readable();
    return write_features(w, INCOMPATIBLE_FEATURES_AT, features,
                          (*features & ~QCOW2_INCOMPAT_DIRTY) |
                              (dirty ? QCOW2_INCOMPAT_DIRTY : 0));
}

int coroutine_fn qcow2_writer_begin(Qcow2Writer *w)
{
    uint64_t *features = &w->s->header.autoclear_features;
    int ret;

    co_mutex_assert_locked(&w->lock);
    bdrv_graph_assert_readable();
    if (__atomic_load_n(&w->corrupt, __ATOMIC_RELAXED)) {
        return -EIO;
    }
    if (w->announced) {
        return 0;
    }
    ret = write_features(w, AUTOCLEAR_FEATURES_AT, features, *features & AUTOCLEAR_KNOWN);
    if (ret >= 0) {
        ret = qcow2_bitmaps_announce(w->s);
    }
    if (ret >= 0) {
        __atomic_store_n(&w->announced, true, __ATOMIC_RELEASE);
    }
    return ret;
}

/* ---- What is in memory ------------------------------------------------------------------- */

/* The L1 table with all its entries, whether or not the file has them. */
static void widen_l1(Qcow2State *s)
{
    Qcow2L1 *l1 = s->l1;

    if (l1->count < s->l1_size) {
        l1 = g_realloc(l1, sizeof(*l1) + (size_t)s->l1_size * 8);
        memset(l1->entries + l1->count, 0, (size_t)(s->l1_size - l1->count) * 8);
        l1->count = s->l1_size;
        s->l1 = l1;
    }
}

static int coroutine_fn GRAPH_RDLOCK load(Qcow2Writer *w)
{
    const Qcow2State *s = w->s;
    uint64_t entries = ((uint64_t)s->header.refcount_table_clusters << s->geo.cluster_bits) / 8;
    int ret;

    g_clear_pointer(&w->reftable, g_free);
    w->reftable_entries = w->blocks_end = w->unsure_end = 0;
    ret = qcow2_reftable_load(w->s, &w->reftable, &w->reftable_entries);
    if (ret < 0) {
        return ret;
    }
    /* What the file is too short for is not used. */
    w->reftable = g_renew(uint64_t, w->reftable, entries);
    memset(w->reftable + w->reftable_entries, 0, (entries - w->reftable_entries) * 8);
    w->reftable_entries = entries;
    for (uint64_t i = 0; i < entries; i++) {
        w->blocks_end = w->reftable[i] ? i + 1 : w->blocks_end;
    }
    w->hint = 0;
    w->longest = UINT64_MAX;
    w->bytes_at = 0;
    w->virgin = qcow2_clusters(&s->geo, qcow2_file_length(s)) << s->geo.cluster_bits;
    return 0;
}

void qcow2_writer_limit_caches(Qcow2Writer *w)
{
    const Qcow2Options *options = &w->s->options;

    g_assert(w->dirty_slices->len == 0);
    w->max_blocks = MAX(options->refcount_cache_size >> w->s->geo.cluster_bits, MIN_BLOCKS);
    w->max_dirty_slices =
        MAX(options->l2_cache_size / options->l2_slice_bytes / 2, MIN_DIRTY_SLICES);
}

static Qcow2Writer *writer_new(BlockDriverState *bs, Qcow2State *s)
{
    Qcow2Writer *w = g_new0(Qcow2Writer, 1);

    w->s = s;
    w->bs = bs;
    co_mutex_init(&w->write_back_lock);
    co_mutex_init(&w->lock);
    g_queue_init(&w->order);
    w->blocks = g_hash_table_new(g_int64_hash, g_int64_equal);
    w->dirty_slices = g_ptr_array_new();
    qcow2_writer_limit_caches(w);
    w->dirty_l1 = g_hash_table_new(NULL, NULL);
    return w;
}

void qcow2_writer_free(Qcow2Writer *w)
{
    if (!w) {
        return;
    }
    for (guint i = 0; i < w->dirty_slices->len; i++) { /* could not be written */
        Qcow2Slice *slice = g_ptr_array_index(w->dirty_slices, i);

        qcow2_cache_unpin(w->s->l2_cache, slice);
        qcow2_slice_unref(slice);
    }
    g_ptr_array_unref(w->dirty_slices);
    g_hash_table_unref(w->dirty_l1);
    g_slist_free_full(w->old_l1, g_free);
    qcow2_refblocks_clear(w);
    g_hash_table_unref(w->blocks);
    g_clear_pointer(&w->inactive_l2, g_hash_table_unref);
    g_free(w->reftable);
    co_mutex_destroy(&w->lock);
    co_mutex_destroy(&w->write_back_lock);
    g_free(w);
}

int coroutine_fn qcow2_writer_forget(Qcow2State *s)
{
    Qcow2Writer *w = s->writer;
    g_autoptr(GError) err = NULL;
    int ret;

    bdrv_graph_assert_readable();
    if (!w) {
        return 0;
    }
    co_mutex_lock(&w->lock);
    qcow2_refblocks_clear(w);
    g_clear_pointer(&w->inactive_l2, g_hash_table_unref);
    ret = load(w);
    if (ret == 0 && !s->l1) {
        s->l1 = qcow2_l1_load(s, s->l1_offset, s->l1_size, "L1 table", &err);
        ret = s->l1 ? 0 : block_error_to_errno(err);
    }
    if (ret == 0) {
        widen_l1(s);
    }
    /* Without its tables it must not write: what is in the file is whole, and stays. */
    __atomic_store_n(&w->corrupt, ret < 0 || (s->header.incompatible_features &
                                              QCOW2_INCOMPAT_CORRUPT), __ATOMIC_RELAXED);
    co_mutex_unlock(&w->lock);
    return ret;
}

/* ---- From the main thread ------------------------------------------------------------------ */

typedef int coroutine_fn GRAPH_RDLOCK_PTR (*TaskFunc)(BlockDriverState *bs);

typedef struct Task {
    BlockDriverState *bs;
    TaskFunc run;
    int ret;
    bool done; /* atomic */
} Task;

static void coroutine_fn task_entry(void *opaque)
{
    Task *task = opaque;

    bdrv_graph_co_rdlock();
    task->ret = task->run(task->bs);
    bdrv_graph_co_rdunlock();
    __atomic_store_n(&task->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static int run_task(BlockDriverState *bs, TaskFunc run)
{
    Task task = { .bs = bs, .run = run };

    coroutine_enter(coroutine_create(task_entry, &task));
    AIO_WAIT_WHILE(!__atomic_load_n(&task.done, __ATOMIC_ACQUIRE));
    return task.ret;
}

/* An image that was not closed: its refcounts have to be right first. */
static int coroutine_fn GRAPH_RDLOCK repair_dirty(BlockDriverState *bs)
{
    const Qcow2State *s = bdrv_state(bs);
    BdrvCheckResult result = { 0 };
    int ret = qcow2_co_check(bs, BDRV_FIX_ERRORS | BDRV_FIX_LEAKS, &result, NULL, NULL);

    if (ret >= 0 && (s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY)) {
        return -EIO;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK co_open(BlockDriverState *bs)
{
    Qcow2State *s = bdrv_state(bs);
    g_autoptr(GError) err = NULL;
    int ret = 0;

    if (s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY) {
        ret = repair_dirty(bs);
    }
    if (ret >= 0 && !s->l1) {
        s->l1 = qcow2_l1_load(s, s->l1_offset, s->l1_size, "L1 table", &err);
        ret = s->l1 ? 0 : block_error_to_errno(err);
    }
    if (ret >= 0) {
        ret = load(s->writer);
    }
    if (ret >= 0) {
        widen_l1(s);
    }
    return ret;
}

bool qcow2_writer_open(BlockDriverState *bs, GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    int ret;

    if (s->header.incompatible_features & QCOW2_INCOMPAT_CORRUPT) {
        block_error_set(errp, EACCES,
                        "'%s': qcow2: Image is corrupt; cannot be opened read/write", s->name);
        return false;
    }
    s->writer = writer_new(bs, s);
    ret = run_task(bs, co_open);
    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not %s", s->name,
                              s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY
                                  ? "repair the dirty image"
                                  : "make the image ready for writing");
        g_clear_pointer(&s->writer, qcow2_writer_free);
    }
    return ret >= 0;
}

static int coroutine_fn GRAPH_RDLOCK co_settle(BlockDriverState *bs)
{
    Qcow2State *s = bdrv_state(bs);
    int ret = qcow2_write_back(s->writer, true);

    if (ret >= 0 && s->writer->copied_missing) {
        ret = qcow2_active_set_copied(s);
    }
    if (ret >= 0 && (s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY)) {
        ret = bdrv_co_flush(bdrv_child_bs(s->file));
        ret = ret < 0 ? ret : qcow2_set_dirty(s->writer, false);
    }
    return ret;
}

int qcow2_writer_settle(BlockDriverState *bs)
{
    const Qcow2State *s = bdrv_state(bs);

    return s->writer && bdrv_is_writable(bs) ? run_task(bs, co_settle) : 0;
}
