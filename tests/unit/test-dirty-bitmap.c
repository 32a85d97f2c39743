/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps: random changes against an array with one byte for each
 * granule, names and states, lengths that change, and marking from threads.
 */
#include <errno.h>
#include "block-testing.h"
#include "block/dirty-bitmap.h"

/* The call, which sets err if it fails, must succeed. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        bool ok_ = (call);                                                                         \
        assert_ok(ok_, err);                                                                       \
    } while (0)

#define DISK (1024 * 1024 + 512 * 5)
#define MAX_GRANULES (DISK / 512)

static BlockDriverState *open_disk(int64_t size)
{
    g_autofree char *text = g_strdup_printf("driver=memory,size=%" G_GINT64_FORMAT, size);

    return open_node_with(text, BDRV_O_RDWR | BDRV_O_RESIZE);
}

static BdrvDirtyBitmap *create(BlockDriverState *bs, const char *name, int64_t granularity)
{
    GError *err = NULL;
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_create(bs, name, granularity, &err);

    assert_ok(bitmap != NULL, err);
    return bitmap;
}

static void assert_refused(BlockDriverState *bs, const char *name, int64_t granularity, int code,
                           const char *part)
{
    GError *err = NULL;

    assert_null(bdrv_dirty_bitmap_create(bs, name, granularity, &err));
    assert_non_null(err);
    assert_int_equal(err->code, code);
    assert_error_has(&err, part);
}

/* ---- A callback while the first bitmap waits for requests ------------------------- */

typedef struct Visit {
    BlockBackend *blk;
    BdrvDirtyBitmap *bitmap;
} Visit;

static void create_early(void *opaque, int ret)
{
    Visit *v = opaque;

    v->bitmap = create(blk_bs(v->blk), "early", 4096);
}

static void callback_may_be_first_to_make_one(void **state)
{
    static const char *const names[] = {"early", "late"};

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        BlockDriverState *bs = open_disk(DISK);
        Visit v = {blk_new(NULL, 0, BLK_PERM_ALL, NULL)};
        BdrvDirtyBitmap *late;
        GError *err = NULL;

        MUST(blk_insert_bs(v.blk, bs, &err));
        blk_aio_flush(v.blk, create_early, &v);
        late = bdrv_dirty_bitmap_create(bs, names[i], 4096, &err);
        assert_ptr_equal(bdrv_dirty_bitmap_find(bs, "early"), v.bitmap);
        assert_ptr_equal(bdrv_dirty_bitmap_next(bs, v.bitmap), late);
        if (i == 0) {
            assert_null(late);
            assert_error_has(&err, "already exists");
        } else {
            assert_ok(late != NULL, err);
        }
        blk_unref(v.blk);
        bdrv_unref(bs);
    }
}

/* ---- Against a model ---------------------------------------------------------- */

typedef struct Model {
    BdrvDirtyBitmap *bitmap;
    int64_t granularity;
    uint8_t dirty[MAX_GRANULES];
} Model;

static int64_t granules(const Model *model)
{
    return (DISK + model->granularity - 1) / model->granularity;
}

static void model_mark(Model *model, int64_t offset, int64_t bytes)
{
    for (int64_t i = 0; i < granules(model); i++) {
        int64_t start = i * model->granularity;

        if (bytes > 0 && start < offset + bytes && offset < start + model->granularity) {
            model->dirty[i] = 1;
        }
    }
}

static void model_unmark(Model *model, int64_t offset, int64_t bytes)
{
    for (int64_t i = 0; i < granules(model); i++) {
        int64_t start = i * model->granularity, end = MIN(start + model->granularity, DISK);

        if (start >= offset && end <= offset + bytes) {
            model->dirty[i] = 0;
        }
    }
}

static int64_t model_next(const Model *model, int64_t offset, int64_t bytes, bool dirty)
{
    int64_t end = MIN(offset + bytes, DISK);

    while (offset < end) {
        if (model->dirty[offset / model->granularity] == dirty) {
            return offset;
        }
        offset = (offset / model->granularity + 1) * model->granularity;
    }
    return -1;
}

static void check_area(const Model *model, int64_t offset, int64_t bytes, int64_t most)
{
    int64_t start = model_next(model, offset, bytes, true), stop, area = -1, length = -1;

    if (start < 0) {
        assert_false(bdrv_dirty_bitmap_next_dirty_area(model->bitmap, offset, bytes, most, &area,
                                                       &length));
        return;
    }
    stop = model_next(model, start, offset + bytes - start, false);
    stop = stop < 0 ? MIN(offset + bytes, DISK) : stop;
    assert_true(bdrv_dirty_bitmap_next_dirty_area(model->bitmap, offset, bytes, most, &area,
                                                  &length));
    assert_int_equal(area, start);
    assert_int_equal(length, MIN(stop - start, most));
}

static void check_model(const Model *model, GRand *rand)
{
    int64_t count = 0;

    for (int64_t i = 0; i < granules(model); i++) {
        count += model->dirty[i];
    }
    assert_int_equal(bdrv_dirty_bitmap_count(model->bitmap), count * model->granularity);
    for (int i = 0; i < 4; i++) {
        int64_t offset = g_rand_int_range(rand, 0, DISK);
        int64_t bytes = g_rand_int_range(rand, 1, DISK);

        assert_int_equal(bdrv_dirty_bitmap_get(model->bitmap, offset),
                         model->dirty[offset / model->granularity]);
        assert_int_equal(bdrv_dirty_bitmap_next_dirty(model->bitmap, offset, bytes),
                         model_next(model, offset, bytes, true));
        assert_int_equal(bdrv_dirty_bitmap_next_zero(model->bitmap, offset, bytes),
                         model_next(model, offset, bytes, false));
        check_area(model, offset, bytes, g_rand_int_range(rand, 1, DISK));
    }
}

/* What the bitmap exports, taken up by a fresh one, is the same again. */
static void check_export(BlockDriverState *bs, const Model *model)
{
    uint64_t bits = bdrv_dirty_bitmap_bits(model->bitmap);
    g_autofree uint8_t *buf = g_malloc(bits / 8 + 2);
    BdrvDirtyBitmap *copy = create(bs, NULL, model->granularity);

    assert_int_equal(bits, granules(model));
    memset(buf, 0xff, bits / 8 + 2);
    bdrv_dirty_bitmap_export(model->bitmap, 0, (bits / 8 + 2) * 8, buf);
    bdrv_dirty_bitmap_import(copy, 0, (bits / 8 + 2) * 8, buf);
    for (int64_t i = 0; i < granules(model); i++) {
        assert_int_equal(buf[i / 8] >> i % 8 & 1, model->dirty[i]);
        assert_int_equal(bdrv_dirty_bitmap_get(copy, i * model->granularity), model->dirty[i]);
    }
    assert_int_equal(bdrv_dirty_bitmap_count(copy), bdrv_dirty_bitmap_count(model->bitmap));
    bdrv_dirty_bitmap_remove(copy);
}

static void merge_models(Model *dest, const Model *source)
{
    GError *err = NULL;

    MUST(bdrv_dirty_bitmap_merge(dest->bitmap, source->bitmap, &err));
    for (int64_t i = 0; i < granules(source); i++) {
        if (source->dirty[i]) {
            int64_t start = i * source->granularity;

            model_mark(dest, start, MIN(source->granularity, DISK - start));
        }
    }
}

static void change_model(Model *models, size_t n, BlockDriverState *bs, GRand *rand)
{
    Model *model = &models[g_rand_int_range(rand, 0, n)];
    int64_t offset = g_rand_int_range(rand, 0, DISK);
    int64_t bytes = g_rand_boolean(rand) ? g_rand_int_range(rand, 1, 200000)
                                         : g_rand_int_range(rand, 1, 2000);

    switch (g_rand_int_range(rand, 0, 12)) {
    case 0 ... 3: /* a write to the node */
        bdrv_dirty_bitmaps_mark(bs, offset, bytes);
        for (size_t i = 0; i < n; i++) {
            if (bdrv_dirty_bitmap_enabled(models[i].bitmap)) {
                model_mark(&models[i], offset, bytes);
            }
        }
        break;
    case 4 ... 5:
        bdrv_dirty_bitmap_set(model->bitmap, offset, bytes);
        model_mark(model, offset, bytes);
        break;
    case 6 ... 9:
        bdrv_dirty_bitmap_reset(model->bitmap, offset, bytes);
        model_unmark(model, offset, bytes);
        break;
    case 10:
        merge_models(model, &models[g_rand_int_range(rand, 0, n)]);
        break;
    default:
        if (bdrv_dirty_bitmap_enabled(model->bitmap)) {
            bdrv_dirty_bitmap_disable(model->bitmap);
        } else {
            bdrv_dirty_bitmap_enable(model->bitmap);
        }
        break;
    }
}

static void random_changes_give_what_the_model_has(void **state)
{
    static const int64_t granularities[] = { 512, 4096, 65536, 4 * 1024 * 1024 };
    BlockDriverState *bs = open_disk(DISK);
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    g_autofree Model *models = g_new0(Model, G_N_ELEMENTS(granularities));
    const size_t n = G_N_ELEMENTS(granularities);

    for (size_t i = 0; i < n; i++) {
        g_autofree char *name = g_strdup_printf("b%zu", i);

        models[i].granularity = granularities[i];
        models[i].bitmap = create(bs, name, granularities[i]);
    }
    for (int step = 0; step < 3000; step++) {
        change_model(models, n, bs, rand);
        for (size_t i = 0; i < n; i++) {
            check_model(&models[i], rand);
        }
        if (step % 100 == 0) {
            check_export(bs, &models[step / 100 % n]);
        }
        if (step % 500 == 499) {
            bdrv_dirty_bitmap_clear(models[0].bitmap);
            memset(models[0].dirty, 0, sizeof(models[0].dirty));
        }
    }
    bdrv_unref(bs);
}

/* ---- Names, states, ranges ------------------------------------------------------- */

static void names_are_unique_on_a_node(void **state)
{
    BlockDriverState *bs = open_disk(DISK), *other = open_disk(DISK);
    g_autofree char *name = g_strnfill(BDRV_BITMAP_MAX_NAME, 'n');
    g_autofree char *long_name = g_strnfill(BDRV_BITMAP_MAX_NAME + 1, 'n');
    BdrvDirtyBitmap *a, *b, *unnamed;

    assert_null(bdrv_dirty_bitmap_find(bs, "a"));
    assert_null(bdrv_dirty_bitmap_next(bs, NULL));
    a = create(bs, "a", 65536);
    unnamed = create(bs, NULL, 512);
    b = create(bs, name, 65536);
    assert_refused(bs, "a", 65536, EEXIST, "Bitmap already exists: a");
    assert_refused(bs, "", 65536, EINVAL, "empty");
    assert_refused(bs, long_name, 65536, EINVAL, "Bitmap name too long: nnn");
    assert_non_null(create(other, "a", 65536));
    assert_ptr_equal(bdrv_dirty_bitmap_find(bs, "a"), a);
    assert_ptr_equal(bdrv_dirty_bitmap_find(bs, name), b);
    assert_null(bdrv_dirty_bitmap_find(bs, NULL));
    assert_ptr_equal(bdrv_dirty_bitmap_node(a), bs);
    assert_ptr_equal(bdrv_dirty_bitmap_next(bs, NULL), a);
    assert_ptr_equal(bdrv_dirty_bitmap_next(bs, a), unnamed);
    bdrv_dirty_bitmap_remove(unnamed);
    assert_ptr_equal(bdrv_dirty_bitmap_next(bs, a), b);
    bdrv_dirty_bitmap_remove(a);
    assert_null(bdrv_dirty_bitmap_find(bs, "a"));
    assert_ptr_equal(bdrv_dirty_bitmap_next(bs, NULL), b);
    assert_null(bdrv_dirty_bitmap_next(bs, b));
    bdrv_unref(other);
    bdrv_unref(bs);
}

static void granularities_are_powers_of_two_in_range(void **state)
{
    static const int64_t bad[] = { -512, 0, 1, 256, 513, 65535, INT64_C(1) << 32, INT64_MAX };
    BlockDriverState *bs = open_disk(DISK);

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_refused(bs, "a", bad[i], EINVAL, "Granularity must be power of 2");
    }
    assert_int_equal(bdrv_dirty_bitmap_granularity(create(bs, "a", 512)), 512);
    assert_int_equal(bdrv_dirty_bitmap_granularity(create(bs, "b", INT64_C(1) << 31)),
                     INT64_C(1) << 31);
    assert_int_equal(bdrv_dirty_bitmap_default_granularity(bs), 65536);
    bdrv_set_map_unit(bs, 512);
    assert_int_equal(bdrv_dirty_bitmap_default_granularity(bs), 4096);
    bdrv_set_map_unit(bs, 32768);
    assert_int_equal(bdrv_dirty_bitmap_default_granularity(bs), 32768);
    bdrv_set_map_unit(bs, 2 * 1024 * 1024);
    assert_int_equal(bdrv_dirty_bitmap_default_granularity(bs), 65536);
    bdrv_unref(bs);
}

static void assert_check(const BdrvDirtyBitmap *bitmap, unsigned refused, const char *part)
{
    GError *err = NULL;

    assert_false(bdrv_dirty_bitmap_check(bitmap, refused, &err));
    assert_error_has(&err, part);
}

static void states_are_reasons_to_refuse(void **state)
{
    BlockDriverState *bs = open_disk(DISK);
    BdrvDirtyBitmap *a = create(bs, "a", 512), *b = create(bs, "b", 512);
    GError *err = NULL;

    MUST(bdrv_dirty_bitmap_check(a, BDRV_BITMAP_DEFAULT, &err));
    bdrv_dirty_bitmap_set(a, 0, 4096);
    bdrv_dirty_bitmap_set_state(a, BDRV_BITMAP_READONLY, true);
    assert_check(a, BDRV_BITMAP_DEFAULT, "Bitmap 'a' is readonly and cannot be modified");
    MUST(bdrv_dirty_bitmap_check(a, BDRV_BITMAP_ALLOW_READONLY, &err));
    MUST(bdrv_dirty_bitmap_merge(b, a, &err));
    assert_int_equal(bdrv_dirty_bitmap_count(b), 4096);
    assert_false(bdrv_dirty_bitmap_merge(a, b, &err));
    assert_error_has(&err, "readonly");
    bdrv_dirty_bitmap_set_state(a, BDRV_BITMAP_READONLY, false);

    bdrv_dirty_bitmap_set_state(a, BDRV_BITMAP_BUSY, true);
    assert_check(a, BDRV_BITMAP_ALLOW_READONLY, "Bitmap 'a' is currently in use by another");
    assert_false(bdrv_dirty_bitmap_merge(b, a, &err));
    assert_error_has(&err, "in use by another operation");
    bdrv_dirty_bitmap_set_state(a, BDRV_BITMAP_BUSY, false);
    assert_int_equal(bdrv_dirty_bitmap_state(a), 0);

    bdrv_dirty_bitmap_set_state(a, BDRV_BITMAP_INCONSISTENT, true);
    assert_check(a, BDRV_BITMAP_DEFAULT, "Bitmap 'a' is inconsistent and cannot be used");
    assert_int_equal(bdrv_dirty_bitmap_count(a), 0);
    bdrv_dirty_bitmaps_mark(bs, 0, 512);
    assert_int_equal(bdrv_dirty_bitmap_count(a), 0);

    assert_false(bdrv_dirty_bitmap_persistent(b));
    bdrv_dirty_bitmap_set_persistent(b, true);
    assert_true(bdrv_dirty_bitmap_persistent(b));
    bdrv_unref(bs);
}

static void ranges_outside_of_the_node_are_ignored(void **state)
{
    BlockDriverState *bs = open_disk(DISK);
    BdrvDirtyBitmap *bitmap = create(bs, "a", 512);

    bdrv_dirty_bitmap_set(bitmap, DISK, 512);
    bdrv_dirty_bitmap_set(bitmap, 512, 0);
    bdrv_dirty_bitmap_set(bitmap, -1024, 1024);
    assert_int_equal(bdrv_dirty_bitmap_count(bitmap), 0);
    assert_false(bdrv_dirty_bitmap_get(bitmap, DISK));
    bdrv_dirty_bitmap_set(bitmap, -512, 1024);
    bdrv_dirty_bitmap_set(bitmap, DISK - 512, INT64_MAX);
    assert_int_equal(bdrv_dirty_bitmap_count(bitmap), 1024);
    assert_true(bdrv_dirty_bitmap_get(bitmap, 0));
    assert_true(bdrv_dirty_bitmap_get(bitmap, DISK - 1));
    assert_int_equal(bdrv_dirty_bitmap_next_zero(bitmap, DISK - 512, INT64_MAX), -1);
    assert_int_equal(bdrv_dirty_bitmap_next_dirty(bitmap, 512, INT64_MAX), DISK - 512);
    bdrv_dirty_bitmap_reset(bitmap, 1, INT64_MAX); /* the first granule only in part */
    assert_int_equal(bdrv_dirty_bitmap_count(bitmap), 512);
    bdrv_unref(bs);
}

static void the_length_follows_the_node(void **state)
{
    BlockDriverState *bs = open_disk(DISK), *other = open_disk(DISK);
    BdrvDirtyBitmap *a = create(bs, "a", 4096), *b = create(other, "b", 4096);
    BlockBackend *blk = blk_new("blk", BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    GError *err = NULL;

    MUST(blk_insert_bs(blk, bs, &err));
    bdrv_dirty_bitmap_set(a, 0, DISK);
    MUST(blk_truncate(blk, 2 * DISK, true, BLOCK_PREALLOC_OFF, &err) == 0);
    assert_int_equal(bdrv_dirty_bitmap_size(a), 2 * DISK);
    assert_int_equal(bdrv_dirty_bitmap_next_zero(a, 0, 2 * DISK), (DISK + 4095) / 4096 * 4096);
    assert_false(bdrv_dirty_bitmap_merge(a, b, &err));
    assert_error_has(&err, "Bitmaps are of different sizes (destination size is 2102272 and "
                     "source size is 1051136) and can't be merged");
    MUST(blk_truncate(blk, 8192, true, BLOCK_PREALLOC_OFF, &err) == 0);
    assert_int_equal(bdrv_dirty_bitmap_count(a), 8192);
    MUST(blk_truncate(blk, DISK, true, BLOCK_PREALLOC_OFF, &err) == 0);
    assert_int_equal(bdrv_dirty_bitmap_count(a), 8192);
    MUST(bdrv_dirty_bitmap_merge(b, a, &err));
    assert_int_equal(bdrv_dirty_bitmap_count(b), 8192);
    blk_unref(blk);
    bdrv_unref(bs);
    bdrv_unref(other);
}

/* ---- Threads ------------------------------------------------------------------------ */

#define THREADS 4
#define MARKS 20000

typedef struct Marker {
    BlockDriverState *bs;
    BdrvDirtyBitmap *bitmap;
    unsigned index;
} Marker;

/* Each has every fourth granule of the first quarter of the disk to itself, and
 * finds what it marked; all clear and mark the rest. */
static gpointer mark_thread(gpointer opaque)
{
    const Marker *m = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(m->index);

    for (int i = 0; i < MARKS; i++) {
        int64_t granule = g_rand_int_range(rand, 0, DISK / 4 / 4096 / THREADS) * THREADS + m->index;
        int64_t other = g_rand_int_range(rand, DISK / 2, DISK);

        bdrv_dirty_bitmaps_mark(m->bs, granule * 4096 + 1, 1);
        bdrv_dirty_bitmaps_mark(m->bs, other, 5000);
        bdrv_dirty_bitmap_reset(m->bitmap, other, 10000);
        if (!bdrv_dirty_bitmap_get(m->bitmap, granule * 4096)) {
            return (gpointer) "a mark was lost";
        }
        bdrv_dirty_bitmap_reset(m->bitmap, granule * 4096, 4096);
        if (bdrv_dirty_bitmap_get(m->bitmap, granule * 4096)) {
            return (gpointer) "a mark came back";
        }
    }
    return NULL;
}

static void threads_mark_while_bitmaps_come_and_go(void **state)
{
    BlockDriverState *bs = open_disk(DISK);
    BdrvDirtyBitmap *bitmap = create(bs, "a", 4096);
    GThread *threads[THREADS];
    Marker markers[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        markers[i] = (Marker) { .bs = bs, .bitmap = bitmap, .index = i };
        threads[i] = g_thread_new("mark", mark_thread, &markers[i]);
    }
    for (int i = 0; i < 2000; i++) {
        BdrvDirtyBitmap *b = create(bs, "b", 512);

        bdrv_dirty_bitmap_disable(b);
        bdrv_dirty_bitmap_enable(b);
        bdrv_dirty_bitmap_remove(b);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        const char *wrong = g_thread_join(threads[i]);

        assert_string_equal(wrong ? wrong : "", "");
    }
    bdrv_unref(bs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_give_what_the_model_has),
        cmocka_unit_test(names_are_unique_on_a_node),
        cmocka_unit_test(granularities_are_powers_of_two_in_range),
        cmocka_unit_test(states_are_reasons_to_refuse),
        cmocka_unit_test(ranges_outside_of_the_node_are_ignored),
        cmocka_unit_test(the_length_follows_the_node),
        cmocka_unit_test(callback_may_be_first_to_make_one),
        cmocka_unit_test(threads_mark_while_bitmaps_come_and_go),
    };

    return cmocka_run_group_tests(tests, blockgraph_group_setup, blockgraph_group_teardown);
}
