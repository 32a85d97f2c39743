/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Persistent dirty bitmaps of the top layer: what they must have marked, and
 * what is done to them.
 */
#include <string.h>

#include "run.h"

static const char *const names[MODEL_BITMAPS] = {"first", "second"};

static BdrvDirtyBitmap *find(const ModelRun *run, unsigned i)
{
    return bdrv_dirty_bitmap_find(blk_bs(run->image.blk), names[i]);
}

static void mark(ModelBitmap *bitmap, int64_t offset, int64_t bytes, ModelMark as)
{
    for (int64_t i = offset / bitmap->granularity;
         bytes > 0 && i <= (offset + bytes - 1) / bitmap->granularity; i++) {
        bitmap->marks[i] = MAX(bitmap->marks[i], as);
    }
}

void model_bitmaps_note(ModelRun *run)
{
    for (unsigned i = 0; i < MODEL_BITMAPS; i++) {
        ModelBitmap *bitmap = &run->bitmaps[i];

        for (unsigned n = 0; bitmap->there && bitmap->enabled && n < run->disk.requests->len; n++) {
            const ModelRequest *r = &g_array_index(run->disk.requests, ModelRequest, n);

            if (r->kind != MODEL_READ && r->kind != MODEL_FLUSH) {
                mark(bitmap, r->offset, r->bytes,
                     r->kind == MODEL_DISCARD ? MODEL_MAYBE_MARKED : MODEL_MARKED);
            }
        }
    }
}

void model_bitmaps_note_changes(ModelRun *run, const uint8_t *before)
{
    for (unsigned i = 0; i < MODEL_BITMAPS; i++) {
        ModelBitmap *bitmap = &run->bitmaps[i];

        for (int64_t at = 0; bitmap->there && bitmap->enabled && at < run->disk.size; at += 512) {
            if (memcmp(before + at, run->disk.bytes + at, 512) != 0) {
                mark(bitmap, at, 512, MODEL_MARKED);
            }
        }
    }
}

/* What is open becomes what is there. */
static bool mark_is_right(ModelMark *mark, bool is_marked)
{
    if (*mark == MODEL_MAYBE_MARKED) {
        *mark = is_marked ? MODEL_MARKED : MODEL_NOT_MARKED;
    }
    return (*mark == MODEL_MARKED) == is_marked;
}

static bool check_one(ModelRun *run, unsigned i)
{
    ModelBitmap *model = &run->bitmaps[i];
    BdrvDirtyBitmap *bitmap = find(run, i);

    if (!bitmap != !model->there) {
        return model_failed(run, bitmap ? "a bitmap came back" : "a bitmap is gone", NULL);
    }
    if (!bitmap) {
        return true;
    }
    if (bdrv_dirty_bitmap_state(bitmap) != 0 ||
        bdrv_dirty_bitmap_enabled(bitmap) != model->enabled ||
        bdrv_dirty_bitmap_granularity(bitmap) != model->granularity) {
        return model_failed(run, "a bitmap is not what it was", NULL);
    }
    for (int64_t at = 0; at < run->disk.size; at += model->granularity) {
        bool is_marked = bdrv_dirty_bitmap_get(bitmap, at);

        if (!mark_is_right(&model->marks[at / model->granularity], is_marked)) {
            g_string_append_printf(run->why, "bitmap '%s', offset %" G_GINT64_FORMAT ": is %s",
                                   names[i], at, is_marked ? "marked" : "not marked");
            return false;
        }
    }
    return true;
}

bool model_bitmaps_check(ModelRun *run)
{
    for (unsigned i = 0; i < MODEL_BITMAPS; i++) {
        if (!check_one(run, i)) {
            return false;
        }
    }
    return true;
}

/* ---- What is done to them ----------------------------------------------------------------- */

static bool add(ModelRun *run, unsigned i)
{
    ModelBitmap *model = &run->bitmaps[i];
    BlockDriverState *bs = blk_bs(run->image.blk);
    int64_t granularity = INT64_C(512) << model_random(&run->random, 9);
    g_autoptr(GError) err = NULL;
    BdrvDirtyBitmap *bitmap;
    bool can = bdrv_dirty_bitmap_can_store(bs, names[i], granularity, &err);

    if (run->image.shape.version == 2) {
        return !can || model_failed(run, "an old image would store a bitmap", NULL);
    }
    bitmap = can ? bdrv_dirty_bitmap_create(bs, names[i], granularity, &err) : NULL;
    if (!bitmap) {
        return model_failed(run, "adding a bitmap", err);
    }
    bdrv_dirty_bitmap_set_persistent(bitmap, true);
    *model = (ModelBitmap){.there = true, .enabled = true, .granularity = granularity};
    return true;
}

static bool drop(ModelRun *run, unsigned i)
{
    g_autoptr(GError) err = NULL;

    run->bitmaps[i].there = false;
    if (!bdrv_dirty_bitmap_remove_stored(blk_bs(run->image.blk), names[i], &err)) {
        return model_failed(run, "removing a bitmap", err);
    }
    bdrv_dirty_bitmap_remove(find(run, i));
    return true;
}

static void clear(ModelRun *run, unsigned i)
{
    memset(run->bitmaps[i].marks, 0, sizeof(run->bitmaps[i].marks));
    bdrv_dirty_bitmap_clear(find(run, i));
}

static void turn(ModelRun *run, unsigned i)
{
    ModelBitmap *model = &run->bitmaps[i];

    model->enabled = !model->enabled;
    if (model->enabled) {
        bdrv_dirty_bitmap_enable(find(run, i));
    } else {
        bdrv_dirty_bitmap_disable(find(run, i));
    }
}

bool model_bitmaps_change(ModelRun *run)
{
    unsigned i = model_random(&run->random, MODEL_BITMAPS);

    if (!run->bitmaps[i].there) {
        return add(run, i);
    }
    switch (model_random(&run->random, 3)) {
    case 0:
        return drop(run, i);
    case 1:
        clear(run, i);
        return true;
    default:
        turn(run, i);
        return true;
    }
}

bool model_bitmaps_are_there(const ModelRun *run)
{
    bool any = false;

    for (unsigned i = 0; i < MODEL_BITMAPS; i++) {
        any |= run->bitmaps[i].there;
    }
    return any;
}

void model_bitmaps_resize(ModelRun *run, int64_t size)
{
    for (unsigned i = 0; i < MODEL_BITMAPS; i++) {
        ModelBitmap *model = &run->bitmaps[i];
        int64_t kept = model->there ? (size + model->granularity - 1) / model->granularity : 0;

        memset(model->marks + kept, 0, sizeof(model->marks) - kept * sizeof(model->marks[0]));
    }
}
