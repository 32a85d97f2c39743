/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: writing, zeroing and discarding images of every shape against a flat
 * model; what is in the file and when; check after each.
 */
#include "qcow2-testing.h"
#include "repeats.h"

#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)

/* ---- Helpers --------------------------------------------------------------------------- */

static char *create_image(const char *name, const char *text, int64_t size)
{
    g_autoptr(JsonObject) options = options_of("size=%" PRId64 ",%s", size, text);
    char *path = test_path(name);
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

static void print_line(void *opaque, const char *line)
{
    print_message("%s: %s\n", (const char *)opaque, line);
}

/* Nothing is wrong with the image; leaks are none, or do not matter. */
static void assert_whole(const char *path, const char *what, bool leaks_too)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;
    int ret = bdrv_check(blk_bs(blk), &r, print_line, (void *)what);

    blk_unref(blk);
    assert_int_equal(ret, 0);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    if (leaks_too) {
        assert_int_equal(r.leaks, 0);
    }
}

/* ---- Against a model -------------------------------------------------------------------- */

typedef struct Shape {
    const char *options;
    int64_t cluster;
    bool backing;
    bool compresses;
    const char *open; /* further options */
} Shape;

static const Shape shapes[] = {
    { "cluster_size=64k", 64 * KiB, false, true, "" },
    { "cluster_size=64k", 64 * KiB, true, true, "" },
    { "cluster_size=512", 512, true, true, ",l2-cache-size=1k,refcount-cache-size=512" },
    { "cluster_size=512,refcount_bits=64", 512, false, true, "" },
    { "cluster_size=4k,refcount_bits=1", 4 * KiB, true, true, ",l2-cache-entry-size=512" },
    { "cluster_size=4k,compat=0.10", 4 * KiB, false, true, "" },
    { "cluster_size=16k,extended_l2=on", 16 * KiB, false, true, "" },
    { "cluster_size=64k,extended_l2=on,compression_type=zstd", 64 * KiB, true, true, "" },
    { "cluster_size=256k", 256 * KiB, true, true, "" },
    { "cluster_size=8k,lazy_refcounts=on", 8 * KiB, true, true, "" },
    { "cluster_size=4k,preallocation=metadata", 4 * KiB, false, true, ",overlap-check=all" },
    { "cluster_size=4k", 4 * KiB, true, true,
      ",pass-discard-request=on,pass-discard-other=on,overlap-check=all" },
    { "cluster_size=4k", 4 * KiB, true, true, ",discard-no-unref=on" },
    { "cluster_size=4k,data_file=%s", 4 * KiB, true, false, "" },
    { "cluster_size=4k,data_file=%s,data_file_raw=on", 4 * KiB, false, false, "" },
};

typedef struct Model {
    const Shape *shape;
    char *path;
    int64_t size;
    uint8_t *bytes;
    GRand *rand;
    BlockBackend *blk;
} Model;

static void model_open(Model *m)
{
    m->blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s%s", m->path,
                                 m->shape->open),
                      BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
}

static void model_init(Model *m, const Shape *shape, int seed)
{
    g_autofree char *data_file = test_path("data.raw"), *text = NULL, *backed = NULL;
    g_autofree char *base = test_path("base.raw");

    *m = (Model){ .shape = shape, .size = MAX(16 * shape->cluster, 1 * MiB) + 1536,
                  .rand = g_rand_new_with_seed(seed) };
    g_remove(data_file);
    text = strstr(shape->options, "%s")
               ? g_strdup_printf("cluster_size=4k,data_file=%s%s", data_file,
                                 strstr(shape->options, ",data_file_raw") ?: "")
               : g_strdup(shape->options);
    m->bytes = g_malloc0(m->size);
    if (shape->backing) {
        g_autofree uint8_t *below = pattern(m->size / 2 + 512, seed);

        memcpy(m->bytes, below, m->size / 2);
        g_free(make_file("base.raw", below, m->size / 2 / 512 * 512));
        memset(m->bytes + m->size / 2 / 512 * 512, 0, m->size - m->size / 2 / 512 * 512);
        backed = g_strdup_printf("%s,backing_file=%s,backing_fmt=raw", text, base);
    }
    m->path = create_image("model.qcow2", backed ? backed : text, m->size);
    model_open(m);
}

static void model_clear(Model *m)
{
    blk_unref(m->blk);
    g_rand_free(m->rand);
    g_free(m->bytes);
    g_free(m->path);
}

static void pick_range(Model *m, int64_t unit, int64_t *offset, int64_t *bytes)
{
    int64_t longest = MAX(3 * m->shape->cluster, 20 * KiB);

    *offset = g_rand_int_range(m->rand, 0, m->size);
    *bytes = g_rand_int_range(m->rand, 1, longest);
    *offset -= *offset % unit;
    *bytes = (*bytes + unit - 1) / unit * unit;
    *bytes = MIN(*bytes, m->size - *offset);
}

static void model_write(Model *m, bool compressed)
{
    g_autofree uint8_t *buf = NULL;
    int64_t offset, bytes;

    pick_range(m, compressed ? m->shape->cluster : 1, &offset, &bytes);
    buf = pattern(bytes, g_rand_int(m->rand));
    if (compressed || g_rand_boolean(m->rand)) { /* something that gets shorter */
        memset(buf + bytes / 4, buf[0], bytes - bytes / 4);
    }
    assert_int_equal(blk_pwrite(m->blk, offset, bytes, buf,
                                compressed ? BDRV_REQ_COMPRESSED : 0), 0);
    memcpy(m->bytes + offset, buf, bytes);
}

static void model_zero(Model *m)
{
    int flags = g_rand_boolean(m->rand) ? BDRV_REQ_MAY_UNMAP : 0;
    int64_t offset, bytes;

    pick_range(m, g_rand_boolean(m->rand) ? 512 : 1, &offset, &bytes);
    assert_int_equal(blk_pwrite_zeroes(m->blk, offset, bytes, flags), 0);
    memset(m->bytes + offset, 0, bytes);
}

/* Whole clusters read as zeros after; the rest stays. */
static void model_discard(Model *m)
{
    int64_t offset, bytes, unit = m->shape->cluster, start, end;

    pick_range(m, 512, &offset, &bytes);
    assert_int_equal(blk_pdiscard(m->blk, offset, bytes), 0);
    start = (offset + unit - 1) / unit * unit;
    end = offset + bytes == m->size ? m->size : (offset + bytes) / unit * unit;
    if (start < end) {
        memset(m->bytes + start, 0, end - start);
    }
}

static void model_step(Model *m)
{
    switch (g_rand_int_range(m->rand, 0, 12)) {
    case 0:
        model_discard(m);
        break;
    case 1:
    case 2:
        model_zero(m);
        break;
    case 3:
    case 4:
        model_write(m, m->shape->compresses);
        break;
    case 5:
        assert_int_equal(blk_flush(m->blk), 0);
        break;
    case 6:
        if (g_rand_int_range(m->rand, 0, 6) == 0) {
            blk_unref(m->blk);
            assert_whole(m->path, m->shape->options, true);
            model_open(m);
        }
        break;
    default:
        model_write(m, false);
    }
}

static void random_changes_read_back_and_leave_a_clean_image(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        for (int seed = 1; seed <= repeats(3, 1); seed++) {
            Model m;

            model_init(&m, &shapes[i], seed);
            for (int step = 0; step < 120; step++) {
                model_step(&m);
                if (step % 8 == 7) {
                    assert_reads(m.blk, 0, m.size, m.bytes);
                }
            }
            blk_unref(m.blk);
            assert_whole(m.path, shapes[i].options, true);
            model_open(&m);
            assert_reads(m.blk, 0, m.size, m.bytes);
            model_clear(&m);
        }
    }
}

/* ---- Several requests at once ----------------------------------------------------------- */

#define WORKERS 6
#define STRIPE 1500

typedef struct Worker {
    Model *m;
    int number;
    int ret;
    bool done;
} Worker;

/* Write, zero and read own stripes, which share clusters with those of others. */
static void coroutine_fn work(void *opaque)
{
    Worker *worker = opaque;
    Model *m = worker->m;
    g_autoptr(GRand) rand = g_rand_new_with_seed(worker->number);
    uint8_t buf[STRIPE];

    for (int i = 0; i < repeats(150, 40) && worker->ret >= 0; i++) {
        int stripes = m->size / STRIPE / WORKERS;
        int64_t offset = (int64_t)STRIPE *
                         (g_rand_int_range(rand, 0, stripes) * WORKERS + worker->number);

        memset(buf, g_rand_int(rand), sizeof(buf));
        if (i % 4 == 3) {
            memset(buf, 0, sizeof(buf));
            worker->ret = blk_co_pwrite_zeroes(m->blk, offset, STRIPE, BDRV_REQ_MAY_UNMAP);
        } else {
            worker->ret = blk_co_pwrite(m->blk, offset, STRIPE, buf, 0);
        }
        memcpy(m->bytes + offset, buf, STRIPE);
        if (worker->ret >= 0 && i % 10 == 0) {
            worker->ret = blk_co_flush(m->blk);
        }
        if (worker->ret >= 0) {
            worker->ret = blk_co_pread(m->blk, offset, STRIPE, buf, 0);
        }
        if (worker->ret >= 0 && memcmp(buf, m->bytes + offset, STRIPE) != 0) {
            worker->ret = -EILSEQ;
        }
    }
    worker->done = true;
    aio_wait_kick();
}

static void requests_that_share_clusters_do_not_disturb_each_other(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Worker workers[WORKERS];
        Model m;

        model_init(&m, &shapes[i], 7);
        for (int n = 0; n < WORKERS; n++) {
            workers[n] = (Worker){ .m = &m, .number = n };
            coroutine_enter(coroutine_create(work, &workers[n]));
        }
        for (int n = 0; n < WORKERS; n++) {
            AIO_WAIT_WHILE(!workers[n].done);
            assert_int_equal(workers[n].ret, 0);
        }
        assert_reads(m.blk, 0, m.size, m.bytes);
        blk_unref(m.blk);
        assert_whole(m.path, shapes[i].options, true);
        model_open(&m);
        assert_reads(m.blk, 0, m.size, m.bytes);
        model_clear(&m);
    }
}

/* ---- What is shared --------------------------------------------------------------------- */

/* Snapshots that another program made keep what they had. */
static void writing_leaves_clusters_of_snapshots_alone(void **state)
{
    Image image = load_fixture("snapshots.qcow2");
    g_autofree char *path = store_image(&image);
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    int64_t size = blk_getlength(blk);
    g_autofree uint8_t *data = pattern(size, 3), *before = g_malloc(size), *after = g_malloc(size);
    GError *err = NULL;
    bool ok;

    blk_unref(blk);
    for (int round = 0; round < 2; round++) {
        blk = open_qcow2(path, 0);
        ok = bdrv_snapshot_load_tmp(blk_bs(blk), "1", NULL, &err);
        assert_ok(ok, err);
        assert_int_equal(blk_pread(blk, 0, size, round ? after : before, 0), 0);
        blk_unref(blk);
        if (round == 0) {
            blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
            assert_int_equal(blk_pdiscard(blk, 0, size / 2), 0);
            assert_int_equal(blk_pwrite(blk, 0, size, data, 0), 0);
            assert_reads(blk, 0, size, data);
            blk_unref(blk);
        }
    }
    assert_memory_equal(before, after, size);
    assert_whole(path, "snapshots", true);
}

/* ---- Images that lie ------------------------------------------------------------------ */

static uint64_t features_of(const char *path)
{
    char *data = NULL;
    uint64_t features;

    assert_true(g_file_get_contents(path, &data, NULL, NULL));
    features = qcow2_be64((uint8_t *)data + 72);
    g_free(data);
    return features;
}

/* An entry says that its cluster is its own, the refcount that it is not. */
static void a_place_with_a_refcount_above_one_is_not_written_to(void **state)
{
    Image image = load_fixture("v3.qcow2");
    uint64_t place = get64(&image, l2_at(&image)) & QCOW2_OFFSET_MASK;
    uint64_t cluster = place >> image.cluster_bits;
    size_t size = (size_t)1 << image.cluster_bits;
    g_autofree uint8_t *old = g_memdup2(image.data + place, size), *data = pattern(size, 1);
    g_autofree char *path = NULL, *text = NULL;
    BlockBackend *blk;

    put_bytes(&image, refblock_at(&image) + 2 * cluster, 2, 2);
    path = store_image(&image);
    blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    assert_int_equal(blk_pwrite(blk, 0, size / 2, data, 0), 0);
    assert_reads(blk, 0, size / 2, data);
    assert_reads(blk, size / 2, size / 2, old + size / 2);
    blk_unref(blk);
    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    assert_memory_equal(text + place, old, size);
}

static void writing_to_metadata_is_prevented_and_marks_the_image(void **state)
{
    Image image = load_fixture("v3.qcow2");
    const uint64_t places[] = {
        l1_at(&image), l2_at(&image), reftable_at(&image), refblock_at(&image),
    };

    g_free(image.data);
    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *path = NULL;
        uint8_t sector[512] = { 1 };
        BlockBackend *blk;

        image = load_fixture("v3.qcow2");
        put64(&image, l2_at(&image), places[i] | QCOW2_COPIED);
        put_bytes(&image, refblock_at(&image) + 2 * (places[i] >> image.cluster_bits), 2, 1);
        path = store_image(&image);
        blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
        assert_int_equal(blk_pwrite(blk, 0, sizeof(sector), sector, 0), -EIO);
        assert_int_equal(blk_pwrite(blk, 1 * MiB, sizeof(sector), sector, 0), -EIO);
        blk_unref(blk);
        assert_true(features_of(path) & QCOW2_INCOMPAT_CORRUPT);
    }
}

/* ---- Growing ---------------------------------------------------------------------------- */

/* Clusters of 512 bytes with refcounts of 64 bits: one table cluster describes 2 MiB. */
static void the_refcount_table_grows_as_often_as_it_must(void **state)
{
    g_autofree char *path = create_image("grow", "cluster_size=512,refcount_bits=64", 24 * MiB);
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    g_autofree uint8_t *data = pattern(12 * MiB, 1);
    Image image = { 0 };
    char *text = NULL;

    assert_int_equal(blk_pwrite(blk, 0, 12 * MiB, data, 0), 0);
    assert_reads(blk, 0, 12 * MiB, data);
    blk_unref(blk);
    assert_whole(path, "grown", true);
    blk = open_qcow2(path, 0);
    assert_reads(blk, 0, 12 * MiB, data);
    blk_unref(blk);
    assert_true(g_file_get_contents(path, &text, &image.size, NULL));
    image.data = (uint8_t *)text;
    assert_true(qcow2_be32(image.data + 56) > 1);
    g_free(text);
}

/* ---- Failures --------------------------------------------------------------------------- */

#define REQUESTS 16

/* Send requests until one fails, or all; the model has what succeeded, or may have. */
static int run_until_failure(BlockBackend *blk, uint8_t *model, uint8_t *maybe)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(5);
    int ret = 0;

    for (int i = 0; i < REQUESTS && ret >= 0; i++) {
        int64_t offset = g_rand_int_range(rand, 0, 1 * MiB - 40 * KiB);
        int64_t bytes = g_rand_int_range(rand, 1, 40 * KiB);
        g_autofree uint8_t *buf = pattern(bytes, i);

        if (i % 4 == 3) {
            ret = blk_flush(blk);
            continue;
        }
        if (i % 5 == 4) {
            memset(buf, 0, bytes);
            ret = blk_pwrite_zeroes(blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
        } else {
            ret = blk_pwrite(blk, offset, bytes, buf, 0);
        }
        memcpy((ret < 0 ? maybe : model) + offset, buf, bytes);
        if (ret >= 0) {
            memcpy(maybe + offset, buf, bytes);
        }
    }
    return ret;
}

static void assert_either(BlockBackend *blk, const uint8_t *a, const uint8_t *b)
{
    g_autofree uint8_t *seen = g_malloc(1 * MiB);

    assert_int_equal(blk_pread(blk, 0, 1 * MiB, seen, 0), 0);
    for (int64_t i = 0; i < 1 * MiB; i++) {
        if (i % KiB == 0 && memcmp(seen + i, b + i, KiB) == 0) {
            i += KiB - 1; /* most are like that */
        } else if (seen[i] != a[i] && seen[i] != b[i]) {
            fail_msg("byte %" PRId64 " is neither old nor new", i);
        }
    }
}

/* Write @n of the file fails once; then all works again. False if there was none. */
static bool fail_write(const char *options, int n, int error)
{
    g_autofree char *path = create_image("fail.qcow2", options, 1 * MiB);
    g_autofree uint8_t *model = g_malloc0(1 * MiB), *maybe = g_malloc0(1 * MiB);
    BlockBackend *blk = open_blk(
        options_of("driver=qcow2,discard=unmap,file.driver=blkdebug,file.image.driver=file,"
                   "file.image.filename=%s,file.inject-error.0.event=none,"
                   "file.inject-error.0.iotype=write,file.inject-error.0.errno=%d,"
                   "file.inject-error.0.once=on,file.inject-error.0.after=%d",
                   path, -error, n),
        BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    int ret = run_until_failure(blk, model, maybe);

    if (ret < 0) {
        assert_int_equal(ret, error);
        assert_either(blk, model, maybe);
        memcpy(model, maybe, 1 * MiB);
        assert_int_equal(blk_pwrite(blk, 0, 1 * MiB, model, 0), 0);
        assert_reads(blk, 0, 1 * MiB, model);
    }
    blk_unref(blk);
    if (strstr(options, "lazy")) { /* not closed well: the next writer repairs it */
        blk_unref(open_qcow2(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH));
    }
    assert_whole(path, options, false);
    blk = open_qcow2(path, 0);
    assert_reads(blk, 0, 1 * MiB, model);
    blk_unref(blk);
    return ret < 0;
}

static void each_write_to_the_file_may_fail_once(void **state)
{
    static const char *const options[] = {
        "cluster_size=4k", "cluster_size=512,refcount_bits=64", "cluster_size=16k,extended_l2=on",
        "cluster_size=4k,lazy_refcounts=on",
    };
    static const int errors[] = { -EIO, -ENOSPC };

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        int n = 0;

        while (fail_write(options[i], n, errors[i % 2])) {
            n += repeats(1, 7);
        }
        assert_true(n > REQUESTS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_read_back_and_leave_a_clean_image),
        cmocka_unit_test(requests_that_share_clusters_do_not_disturb_each_other),
        cmocka_unit_test(writing_leaves_clusters_of_snapshots_alone),
        cmocka_unit_test(a_place_with_a_refcount_above_one_is_not_written_to),
        cmocka_unit_test(writing_to_metadata_is_prevented_and_marks_the_image),
        cmocka_unit_test(the_refcount_table_grows_as_often_as_it_must),
        cmocka_unit_test(each_write_to_the_file_may_fail_once),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
