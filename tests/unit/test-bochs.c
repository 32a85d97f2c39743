/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Bochs format: reading both header versions, what lies where, and one
 * damaged header field after the other.
 */
#include "bochs-testing.h"

/* ---- Reading ------------------------------------------------------------------------------ */

static void both_versions_read_back(void **state)
{
    for (int version = 1; version <= 2; version++) {
        g_autoptr(Image) image = sample(version);
        g_autofree char *path = image_save(image, "sample");
        BlockBackend *blk = open_blk(options_of("file.filename=%s", path), 0);
        g_autoptr(GRand) rand = g_rand_new_with_seed(version);

        assert_string_equal(bdrv_get_format_name(blk_bs(blk)), "bochs"); /* by probing */
        assert_int_equal(blk_getlength(blk), DISK);
        assert_reads(blk, 0, DISK, image->model);
        for (int i = 0; i < 200; i++) {
            int64_t offset = g_rand_int_range(rand, 0, DISK);
            int64_t bytes = g_rand_int_range(rand, 1, MIN(DISK - offset, 3 * EXTENT) + 1);

            assert_reads(blk, offset, bytes, image->model + offset);
        }
        blk_unref(blk);
    }
}

/* The hash of what the whole disk reads as. */
static char *content_hash(BlockBackend *blk)
{
    int64_t size = blk_getlength(blk);
    g_autofree uint8_t *buf = g_malloc(size);

    assert_int_equal(blk_pread(blk, 0, size, buf, 0), 0);
    return g_compute_checksum_for_data(G_CHECKSUM_SHA256, buf, size);
}

/* The hash that tests/fixtures/README.md has for the content of @name. */
static char *expected_hash(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, "README.md", NULL), *text = NULL;
    g_autofree char *heading = g_strdup_printf("## %s\n", name);
    const char *section, *content;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    section = strstr(text, heading);
    assert_non_null(section);
    content = strstr(section, "content: `");
    assert_non_null(content);
    return g_strndup(content + strlen("content: `"), 64);
}

static void fixtures_have_their_content(void **state)
{
    static const char *const names[] = {
        "bochs-bximage.img", "bochs-v1.img", "bochs-v2.img",
    };
    const char *dir = g_getenv("BLOCKGRAPH_FIXTURES");

    dir = dir ? dir : "tests/fixtures";
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);
        BlockBackend *blk = open_bochs(path, 0);
        g_autofree char *hash = content_hash(blk), *expected = expected_hash(dir, names[i]);

        assert_string_equal(hash, expected);
        blk_unref(blk);
    }
}

/* What map() answers at @offset. */
typedef struct Answer {
    BlockDriverState *bs;
    int64_t offset;
    BdrvMapping m;
    int ret;
    bool done;
} Answer;

static void coroutine_fn ask(void *opaque)
{
    Answer *a = opaque;
    BdrvMapRequest req = {BDRV_MAP_READ, 0, a->offset, 1, 0};

    bdrv_graph_co_rdlock();
    a->ret = bdrv_find_format("bochs")->bdrv_co_map(a->bs, &req, &a->m);
    bdrv_graph_co_rdunlock();
    a->done = true;
}

/* The run at @offset must be [first, first + bytes), at @place of the file or, if
 * that is 0, unallocated. */
static void assert_run(BlockBackend *blk, int64_t offset, int64_t first, int64_t bytes,
                       int64_t place)
{
    Answer a = {.bs = blk_bs(blk), .offset = offset};

    coroutine_enter(coroutine_create(ask, &a));
    AIO_WAIT_WHILE(!a.done);
    assert_int_equal(a.ret, 0);
    assert_int_equal(a.m.target, place ? BDRV_MAP_DATA : BDRV_MAP_UNALLOCATED);
    assert_int_equal(a.m.offset, first);
    assert_int_equal(a.m.bytes, bytes);
    assert_int_equal(a.m.child_offset, place);
}

static void runs_of_sectors_are_one_answer(void **state)
{
    g_autoptr(Image) image = sample(2);
    g_autofree char *path = image_save(image, "runs");
    BlockBackend *blk = open_bochs(path, 0);
    int64_t fourth = EXTENTS_AT + 3 * SLOT + SECTOR; /* the data of the file's last extent */

    assert_run(blk, SECTOR, SECTOR, 30 * SECTOR, 0);
    assert_run(blk, 3 * EXTENT - 1, EXTENT, 2 * EXTENT, 0);
    assert_run(blk, 4 * EXTENT + 6 * SECTOR, 4 * EXTENT + 5 * SECTOR, 7 * SECTOR,
               fourth + 5 * SECTOR);
    assert_run(blk, 5 * EXTENT, 5 * EXTENT, 10 * EXTENT, 0);
    blk_unref(blk);
}

static void block_status_is_data_without_a_place(void **state)
{
    g_autoptr(Image) image = sample(2);
    g_autofree char *path = image_save(image, "status");
    BlockBackend *blk = open_bochs(path, 0);
    int64_t n, map;

    assert_status(blk, 0, DISK, BDRV_BLOCK_DATA);
    assert_status(blk, 5 * EXTENT, DISK - 5 * EXTENT, BDRV_BLOCK_DATA);
    assert_false(status_of(blk, 0, DISK, &n, &map) & BDRV_BLOCK_OFFSET_VALID);
    blk_unref(blk);
}

/* ---- Damage ------------------------------------------------------------------------------ */

/* Opening @image must fail with @part in the text. */
static void assert_refused(Image *image, const char *part)
{
    g_autofree char *path = image_save(image, "damaged");

    assert_open_fails(options_of("driver=bochs,file.filename=%s", path), 0, part);
}

static void what_is_no_bochs_image_is_refused(void **state)
{
    static const size_t places[] = {0, 10, 21, 22, 32, 39, 48, 55, 64, 65, 66, 67};

    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autoptr(Image) image = sample(2);

        image->file[places[i]] ^= 0x81;
        assert_refused(image, "Image not in Bochs format");
    }
}

static void each_field_of_the_header_is_checked(void **state)
{
    static const struct {
        int field;
        uint32_t value;
        const char *part;
    } damage[] = {
        {CATALOG, 0xffffffff, "catalog size 4294967295 in the Bochs header is too large"},
        {CATALOG, 1 << 30, "catalog size 1073741824 in the Bochs header is too large"},
        {CATALOG, 1 << 20, "catalog size 1048576 in the Bochs header leads beyond the end"},
        {CATALOG, ENTRIES - 1, "catalog size 15 in the Bochs header is too small for the disk"},
        {CATALOG, 0, "catalog size 0 in the Bochs header is too small for the disk"},
        {EXTENT_SIZE, 0, "extent size 0 in the Bochs header is smaller than a sector"},
        {EXTENT_SIZE, 511, "extent size 511 in the Bochs header is smaller than a sector"},
        {EXTENT_SIZE, 1536, "extent size 1536 in the Bochs header is no power of two"},
        {EXTENT_SIZE, 1U << 31, "extent size 2147483648 in the Bochs header is no power"},
        {EXTENT_SIZE, 1U << 24, "extent size 16777216 in the Bochs header is no power"},
        {EXTENT_SIZE, 8192, "catalog size 16 in the Bochs header is too small for the disk"},
        {BITMAP, 0, "bitmap size 0 in the Bochs header does not fit the extent size"},
        {BITMAP, 3, "bitmap size 3 in the Bochs header does not fit the extent size"},
        {BITMAP, 0xffffffff, "bitmap size 4294967295 in the Bochs header does not fit"},
        {BITMAP, 1U << 31, "bitmap size 2147483648 in the Bochs header does not fit"},
        {HEADER_SIZE, 0, "header size 0 in the Bochs header is smaller than the header"},
        {HEADER_SIZE, 95, "header size 95 in the Bochs header is smaller than the header"},
        {HEADER_SIZE, 0xffffffff, "leads beyond the end of the file"},
        {HEADER_SIZE, 0xffffffc0, "leads beyond the end of the file"}, /* + 64: 2^32 */
    };

    for (int version = 1; version <= 2; version++) {
        for (size_t i = 0; i < G_N_ELEMENTS(damage); i++) {
            g_autoptr(Image) image = sample(version);

            put32(image, damage[i].field, damage[i].value);
            assert_refused(image, damage[i].part);
        }
    }
}

static void the_error_names_the_file(void **state)
{
    g_autoptr(Image) image = sample(1);
    g_autofree char *path = NULL;

    put32(image, BITMAP, 0);
    path = image_save(image, "named");
    assert_open_fails(options_of("driver=bochs,file.filename=%s", path), 0, path);
}

static void disk_sizes_are_checked(void **state)
{
    for (int version = 1; version <= 2; version++) {
        g_autoptr(Image) image = sample(version);
        static const uint64_t sizes[] = {1ULL << 63, UINT64_MAX, 1ULL << 62, BDRV_MAX_LENGTH};

        for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
            put_disk_size(image, sizes[i]);
            assert_refused(image, sizes[i] > BDRV_MAX_LENGTH ? "is too large"
                                                            : "is too small for the disk size");
        }
        put_disk_size(image, ENTRIES * EXTENT + 512);
        assert_refused(image, "is too small for the disk size");
    }
}

static void short_files_are_refused(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 511, 512};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autoptr(Image) image = sample(2);

        image->size = sizes[i];
        assert_refused(image, sizes[i] < 100 ? "Image not in Bochs format" : "Could not open");
    }
}

static void entries_that_lead_out_of_the_file_fail_only_their_extent(void **state)
{
    static const uint32_t entries[] = {4, 1000, 1U << 31, 0xfffffffe};

    for (size_t i = 0; i < G_N_ELEMENTS(entries); i++) {
        g_autoptr(Image) image = sample(2);
        g_autofree char *path = NULL;
        BlockBackend *blk;
        uint8_t buf[SECTOR];

        put32(image, CATALOG_AT + 4 * 4, entries[i]);
        path = image_save(image, "entries");
        blk = open_bochs(path, 0);
        assert_int_equal(blk_pread(blk, 4 * EXTENT, SECTOR, buf, 0), -EIO);
        assert_int_equal(blk_pread(blk, 4 * EXTENT - 1, 2, buf, 0), -EIO);
        assert_reads(blk, 0, 4 * EXTENT, image->model);
        assert_reads(blk, 5 * EXTENT, DISK - 5 * EXTENT, image->model + 5 * EXTENT);
        blk_unref(blk);
    }
}

static void a_file_that_ends_in_an_extent_reads_zeros_or_fails(void **state)
{
    g_autoptr(Image) image = sample(2);
    g_autofree char *path = NULL;
    BlockBackend *blk;
    uint8_t buf[SECTOR];

    /* The last extent of the file is guest extent 4, sectors 5 to 11. */
    image->size = EXTENTS_AT + 3 * SLOT + SECTOR + 7 * SECTOR;
    memset(image->model + 4 * EXTENT + 8 * SECTOR, 0, 4 * SECTOR);
    path = image_save(image, "ends");
    blk = open_bochs(path, 0);
    /* Rounded up to a sector the file goes on into sector 7. */
    assert_reads(blk, 4 * EXTENT, 7 * SECTOR, image->model + 4 * EXTENT);
    assert_reads(blk, 4 * EXTENT + 8 * SECTOR, 4 * SECTOR, NULL);
    blk_unref(blk);
    assert_int_equal(truncate(path, EXTENTS_AT + 3 * SLOT + 100), 0);
    blk = open_bochs(path, 0);
    assert_int_equal(blk_pread(blk, 4 * EXTENT + 5 * SECTOR, SECTOR, buf, 0), -EIO);
    blk_unref(blk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_read_back),
        cmocka_unit_test(fixtures_have_their_content),
        cmocka_unit_test(runs_of_sectors_are_one_answer),
        cmocka_unit_test(block_status_is_data_without_a_place),
        cmocka_unit_test(what_is_no_bochs_image_is_refused),
        cmocka_unit_test(each_field_of_the_header_is_checked),
        cmocka_unit_test(the_error_names_the_file),
        cmocka_unit_test(disk_sizes_are_checked),
        cmocka_unit_test(short_files_are_refused),
        cmocka_unit_test(entries_that_lead_out_of_the_file_fail_only_their_extent),
        cmocka_unit_test(a_file_that_ends_in_an_extent_reads_zeros_or_fails),
    };

    return cmocka_run_group_tests_name("bochs", tests, driver_group_setup, driver_group_teardown);
}
