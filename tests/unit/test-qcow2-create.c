/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: making new images: the layout, what is written, and what is left where
 * making fails.
 */
#include "drivers/qcow2/qcow2-create.h"
#include "qcow2-testing.h"
#include "repeats.h"

#define KiB 1024LL
#define MiB (1024 * KiB)
#define GiB (1024 * MiB)

/* ---- Refcounts ------------------------------------------------------------------------- */

static void a_refcount_that_is_set_leaves_its_neighbours_alone(void **state)
{
    for (unsigned order = 0; order <= 6; order++) {
        uint64_t max = order == 6 ? UINT64_MAX : (1ULL << (1U << order)) - 1;
        uint8_t block[512];

        memset(block, 0xff, sizeof(block));
        qcow2_refcount_set(block, order, 9, max & 0x5a5a5a5a5a5a5a5aULL);
        for (unsigned i = 8; i < 11; i++) {
            assert_true(qcow2_refcount_at(block, order, i) ==
                        (i == 9 ? (max & 0x5a5a5a5a5a5a5a5aULL) : max));
        }
        qcow2_refcount_set(block, order, 9, max);
        for (unsigned i = 0; i < sizeof(block); i++) {
            assert_int_equal(block[i], 0xff);
        }
    }
}

/* ---- The layout --------------------------------------------------------------------------- */

static bool is_free(const Qcow2Layout *l, uint64_t cluster)
{
    for (guint i = 0; i < l->gaps->len; i++) {
        const Qcow2Gap *gap = &g_array_index(l->gaps, Qcow2Gap, i);

        if (gap->first <= cluster && cluster < gap->end) {
            return true;
        }
    }
    return cluster >= l->end;
}

/* Each cluster in use is described, with 1, and no other is. */
static void assert_layout_is_sound(const Qcow2Layout *l)
{
    unsigned order = l->cluster_bits + 3 - l->block_bits;
    g_autofree uint8_t *block = g_malloc(1ULL << l->cluster_bits);
    uint64_t end = l->entries << l->block_bits;

    assert_true(l->end <= end);
    for (uint64_t c = 0; c < l->end; c++) {
        uint64_t chunk = c >> l->block_bits;
        uint64_t index = c & ((1ULL << l->block_bits) - 1);

        if (!l->blocks[chunk]) {
            assert_true(is_free(l, c));
            continue;
        }
        if (index == 0) {
            assert_false(is_free(l, l->blocks[chunk]));
            qcow2_layout_fill_block(l, chunk, block);
        }
        assert_int_equal(qcow2_refcount_at(block, order, index), !is_free(l, c));
    }
    for (uint64_t i = 0; i < l->table_clusters; i++) {
        assert_false(is_free(l, l->table + i));
    }
}

static void an_empty_layout_has_a_header_a_table_and_a_block(void **state)
{
    Qcow2Layout l;
    uint64_t first;

    qcow2_layout_init(&l, 16, 4);
    assert_int_equal(l.table, 1);
    assert_int_equal(l.blocks[0], 2);
    assert_int_equal(qcow2_layout_alloc(&l, 5, &first), 0);
    assert_int_equal(first, 3);
    assert_int_equal(l.end, 8);
    assert_layout_is_sound(&l);
    qcow2_layout_clear(&l);
}

static void blocks_follow_the_run_that_needs_them(void **state)
{
    Qcow2Layout l;
    uint64_t first;

    qcow2_layout_init(&l, 9, 4); /* 256 refcounts in a block */
    assert_int_equal(qcow2_layout_alloc(&l, 1024, &first), 0);
    assert_int_equal(first, 3);
    /* The first of them is described by the second, which describes itself. */
    assert_int_equal(l.blocks[1], 1027);
    assert_int_equal(l.blocks[4], 1028);
    assert_int_equal(l.blocks[2], 1029);
    assert_int_equal(l.blocks[3], 1030);
    assert_int_equal(l.end, 1031);
    assert_layout_is_sound(&l);
    qcow2_layout_clear(&l);
}

static void a_table_that_is_full_moves(void **state)
{
    for (unsigned order = 0; order <= 6; order++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(order);
        uint64_t first, before = 0;
        Qcow2Layout l;

        qcow2_layout_init(&l, 9, order);
        while (l.table == 1) {
            uint64_t count = g_rand_int_range(rand, 1, 200);

            assert_int_equal(qcow2_layout_alloc(&l, count, &first), 0);
            assert_true(first >= before);
            before = first + count;
        }
        assert_true(l.table_clusters > 1);
        assert_layout_is_sound(&l);
        for (int i = 0; i < 500; i++) {
            assert_int_equal(qcow2_layout_alloc(&l, g_rand_int_range(rand, 1, 100), &first), 0);
        }
        assert_layout_is_sound(&l);
        qcow2_layout_clear(&l);
    }
}

static void what_is_reserved_needs_no_more_blocks(void **state)
{
    for (uint64_t count = 0; count < 70000; count += 997) {
        Qcow2Layout l;
        uint64_t table, end;

        qcow2_layout_init(&l, 9, 5);
        assert_int_equal(qcow2_layout_reserve(&l, count), 0);
        table = l.table;
        if (count > 0) {
            qcow2_layout_take_end(&l, count);
        }
        end = l.end;
        assert_layout_is_sound(&l);
        assert_int_equal(l.table, table);
        assert_int_equal(l.end, end);
        assert_true(is_free(&l, 1));
        qcow2_layout_clear(&l);
    }
}

static void a_table_above_the_limit_is_an_error(void **state)
{
    Qcow2Layout l;
    uint64_t first;

    qcow2_layout_init(&l, 9, 6);
    /* 8 MiB of table describe 2^26 clusters. */
    assert_int_equal(qcow2_layout_reserve(&l, 1ULL << 26), -EFBIG);
    assert_layout_is_sound(&l);
    assert_int_equal(qcow2_layout_alloc(&l, 10, &first), 0);
    assert_int_equal(first, 3);
    qcow2_layout_clear(&l);
}

/* ---- Images ---------------------------------------------------------------------------- */

static void assert_no_finding(void *opaque, const char *line)
{
    fail_msg("%s: %s", (const char *)opaque, line);
}

/* Make an image with @options; it must be clean and read as zeros. */
static void assert_creates(const char *text, int64_t size)
{
    g_autofree char *path = test_path("new.qcow2");
    g_autoptr(JsonObject) options = options_of("%s", text);
    BdrvCheckResult result;
    GError *err = NULL;
    BlockBackend *blk;

    json_object_set_int_member(options, "size", size);
    assert_ok(bdrv_create(bdrv_find_format("qcow2"), path, options, &err), err);
    blk = open_qcow2(path, 0);
    assert_int_equal(blk_getlength(blk), (size + 511) / 512 * 512);
    assert_int_equal(bdrv_check(blk_bs(blk), &result, assert_no_finding, (void *)text), 0);
    assert_int_equal(result.corruptions + result.leaks + result.check_errors, 0);
    if (strstr(text, "preallocation") && !strstr(text, "preallocation=off")) {
        assert_int_equal(result.allocated_clusters, result.total_clusters);
    }
    if (size > 0) {
        assert_reads(blk, 0, MIN(size, MiB), NULL);
    }
    if (size > MiB) {
        assert_reads(blk, (size - MiB) / 512 * 512, MiB, NULL);
    }
    blk_unref(blk);
}

static void images_of_every_shape_are_clean(void **state)
{
    static const char *const shapes[] = {
        "compat=0.10", "lazy_refcounts=on", "compression_type=zstd", "extended_l2=on",
        "cluster_size=512", "cluster_size=2M", "cluster_size=512,refcount_bits=64",
    };
    static const char *const preallocations[] = { "off", "metadata", "falloc", "full" };
    static const int64_t sizes[] = { 0, 1, MiB, 20 * MiB + 513 };
    size_t stride = repeats(1, 4);

    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        for (size_t j = 0; j < G_N_ELEMENTS(preallocations); j++) {
            for (size_t k = (i + j) % stride; k < G_N_ELEMENTS(sizes); k += stride) {
                g_autofree char *text =
                    g_strdup_printf("%s,preallocation=%s", shapes[i], preallocations[j]);

                assert_creates(text, sizes[k]);
            }
        }
    }
}

static void every_refcount_width_is_written(void **state)
{
    for (unsigned bits = 1; bits <= 64; bits *= 2) {
        g_autofree char *text = g_strdup_printf(
            "cluster_size=512,preallocation=metadata,refcount_bits=%u", bits);

        assert_creates(text, 5 * MiB);
        assert_creates(strstr(text, "refcount_bits"), 40 * GiB);
    }
}

static void data_files_are_made_too(void **state)
{
    g_autofree char *data = test_path("data.raw");

    for (int raw = 0; raw < 2; raw++) {
        g_autofree char *text =
            g_strdup_printf("data_file=%s,data_file_raw=%s", data, raw ? "on" : "off");
        g_autofree char *full = g_strconcat(text, ",preallocation=full", NULL);
        struct stat st;

        assert_creates(text, 3 * MiB);
        assert_int_equal(stat(data, &st), 0);
        assert_int_equal(st.st_size, 3 * MiB);
        assert_creates(full, 3 * MiB);
        assert_int_equal(stat(data, &st), 0);
        assert_true(st.st_blocks * 512LL >= 3 * MiB);
    }
}

/* ---- Failures -------------------------------------------------------------------------- */

static void assert_refuses(const char *path, const char *text, const char *part)
{
    g_autoptr(JsonObject) options = options_of("%s", text);
    GError *err = NULL;

    assert_false(bdrv_create(bdrv_find_format("qcow2"), path, options, &err));
    assert_error_has(&err, part);
}

static void options_that_are_refused_touch_no_file(void **state)
{
    static const char *const pairs[][2] = {
        { "size=1M,compat=foo", "Parameter 'version' does not accept value 'foo'" },
        { "size=1M,cluster_size=3", "Cluster size must be a power of two" },
        { "size=1M,refcount_bits=3", "Refcount width must be a power of two" },
        { "size=1M,encryption=on", "encrypt.format 'aes' (AES) is not supported" },
        { "size=1M,encrypt.format=luks", "encrypt.format 'luks' (LUKS) is not supported" },
        { "size=1M,data_file_raw=on", "data-file-raw requires data-file" },
        { "size=1M,foo=1", "Invalid parameter 'foo'" },
        { "size=100P", "too large" },
        { "size=100G,cluster_size=512,refcount_bits=64,preallocation=metadata", "too large" },
        { "size=9223372036854775807", "Image size cannot be negative" },
    };
    g_autofree char *path = make_file("precious", "precious", 8);

    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
        g_autofree uint8_t *data = NULL;

        assert_refuses(path, pairs[i][0], pairs[i][1]);
        data = load_file(path, 8);
        assert_memory_equal(data, "precious", 8);
    }
}

static void a_failure_in_the_middle_leaves_no_files(void **state)
{
    g_autofree char *path = test_path("half.qcow2");
    g_autofree char *text = g_strdup_printf("size=1M,data_file=%s/nosuch/d", test_dir);
    g_autofree char *same = g_strdup_printf("size=1M,data_file=%s", path);

    assert_refuses(path, text, "Could not create");
    assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    assert_refuses(path, same, "lock");
    assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

/* With any one cluster failing to be written, there is no header. */
static void the_header_is_written_last(void **state)
{
    Qcow2CreateOptions opts = { .size = MiB, .version = 3, .cluster_bits = 9, .refcount_order = 4,
                                .prealloc = BLOCK_PREALLOC_METADATA };
    Qcow2NewImage image;
    GError *err = NULL;
    unsigned failed = 0;

    assert_ok(qcow2_new_image_plan(&image, &opts, &err), err);
    for (uint64_t sector = 0; sector < image.layout.end; sector++) {
        uint8_t magic[4];
        BlockBackend *blk = open_blk(
            options_of("driver=blkdebug,image.driver=memory,image.size=%" G_GUINT64_FORMAT
                       ",inject-error.0.event=none,inject-error.0.iotype=write,"
                       "inject-error.0.sector=%" G_GUINT64_FORMAT,
                       image.file_length, sector),
            BDRV_O_RDWR);
        int ret = qcow2_new_image_write(&image, blk);

        assert_int_equal(blk_pread(blk, 0, sizeof(magic), magic, 0), 0);
        assert_int_equal(qcow2_be32(magic), ret == 0 ? QCOW2_MAGIC : 0);
        failed += ret < 0;
        blk_unref(blk);
    }
    /* Header, refcount table, 9 refcount blocks, L1 table, 32 L2 tables. */
    assert_int_equal(failed, 1 + 1 + 9 + 1 + 32);
    qcow2_new_image_clear(&image);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refcount_that_is_set_leaves_its_neighbours_alone),
        cmocka_unit_test(an_empty_layout_has_a_header_a_table_and_a_block),
        cmocka_unit_test(blocks_follow_the_run_that_needs_them),
        cmocka_unit_test(a_table_that_is_full_moves),
        cmocka_unit_test(what_is_reserved_needs_no_more_blocks),
        cmocka_unit_test(a_table_above_the_limit_is_an_error),
        cmocka_unit_test(images_of_every_shape_are_clean),
        cmocka_unit_test(every_refcount_width_is_written),
        cmocka_unit_test(data_files_are_made_too),
        cmocka_unit_test(options_that_are_refused_touch_no_file),
        cmocka_unit_test(a_failure_in_the_middle_leaves_no_files),
        cmocka_unit_test(the_header_is_written_last),
    };

    return cmocka_run_group_tests(tests, driver_group_setup, driver_group_teardown);
}
