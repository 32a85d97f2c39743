/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing to Bochs images: what is read back, here and by bximage; what is in
 * the file and when; what becomes of it when requests fail.
 */
#include "bochs-testing.h"
#include "repeats.h"

#include "blockgraph/reopen.h"

/* Requests of the workload that runs against failing files. */
#define REQUESTS 12

/* ---- Helpers ------------------------------------------------------------------------- */

static char *empty_image(const char *name, int version)
{
    g_autoptr(Image) image = image_new(version);

    return image_save(image, name);
}

static uint32_t catalog_entry(const char *path, int index)
{
    g_autofree char *data = NULL;
    uint32_t entry;

    assert_true(g_file_get_contents(path, &data, NULL, NULL));
    memcpy(&entry, data + CATALOG_AT + 4 * index, 4);
    return GUINT32_FROM_LE(entry);
}

/* The bitmap, 32 bits, of the file's extent @number. */
static uint32_t bitmap_word(const char *path, int number)
{
    g_autofree char *data = NULL;
    gsize size;
    uint32_t word;

    assert_true(g_file_get_contents(path, &data, &size, NULL));
    assert_true(size >= EXTENTS_AT + (number + 1) * SLOT);
    memcpy(&word, data + EXTENTS_AT + number * SLOT, 4);
    return GUINT32_FROM_LE(word);
}

static int64_t file_size(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void write_byte(BlockBackend *blk, int64_t offset, int64_t bytes, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    assert_int_equal(blk_pwrite(blk, offset, bytes, buf, 0), 0);
}

/* ---- What is read back ------------------------------------------------------------------ */

typedef struct Change {
    int kind; /* 0: discard; 1: zero with unmap; 2: zero; 3: write with FUA; else write */
    int64_t offset;
    int64_t bytes;
    uint32_t seed; /* of what is written */
} Change;

static Change random_change(GRand *rand)
{
    Change c = {g_rand_int_range(rand, 0, 6), g_rand_int_range(rand, 0, DISK), 0,
                g_rand_int(rand)};

    c.bytes = g_rand_int_range(rand, 1, MIN(DISK - c.offset, 3 * EXTENT) + 1);
    if (c.kind < 2) { /* sectors, which a discard takes as a whole */
        c.offset -= c.offset % SECTOR;
        c.bytes = MIN((c.bytes + SECTOR - 1) / SECTOR * SECTOR, DISK - c.offset);
    }
    return c;
}

static int send_change(BlockBackend *blk, Change c)
{
    g_autofree uint8_t *buf = pattern(c.bytes, c.seed);

    switch (c.kind) {
    case 0:
        return blk_pdiscard(blk, c.offset, c.bytes);
    case 1:
    case 2:
        return blk_pwrite_zeroes(blk, c.offset, c.bytes, c.kind == 1 ? BDRV_REQ_MAY_UNMAP : 0);
    default:
        return blk_pwrite(blk, c.offset, c.bytes, buf, c.kind == 3 ? BDRV_REQ_FUA : 0);
    }
}

static void note_change(uint8_t *model, Change c)
{
    g_autofree uint8_t *buf = pattern(c.bytes, c.seed);

    if (c.kind <= 2) {
        memset(model + c.offset, 0, c.bytes);
    } else {
        memcpy(model + c.offset, buf, c.bytes);
    }
}

static void random_changes_read_back_and_are_there_after_reopening(void **state)
{
    for (int seed = 1; seed <= repeats(12, 3); seed++) {
        g_autofree char *path = empty_image("random", 1 + seed % 2);
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        g_autofree uint8_t *model = g_malloc0(DISK);
        BlockBackend *blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);

        for (int i = 0; i < 60; i++) {
            Change c = random_change(rand);

            assert_int_equal(send_change(blk, c), 0);
            note_change(model, c);
            if (i % 10 == 9) {
                assert_reads(blk, 0, DISK, model);
            }
            if (g_rand_int_range(rand, 0, 20) == 0) {
                blk_unref(blk);
                blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
            }
        }
        blk_unref(blk);
        blk = open_bochs(path, 0);
        assert_reads(blk, 0, DISK, model);
        blk_unref(blk);
    }
}

static void an_image_with_data_can_be_written_to(void **state)
{
    g_autoptr(Image) image = sample(1);
    g_autofree char *path = image_save(image, "more");
    BlockBackend *blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);

    write_byte(blk, 3 * EXTENT - 100, 700, 0xaa);
    memset(image->model + 3 * EXTENT - 100, 0xaa, 700);
    write_byte(blk, 15 * EXTENT, SECTOR, 0xbb);
    memset(image->model + 15 * EXTENT, 0xbb, SECTOR);
    assert_reads(blk, 0, DISK, image->model);
    blk_unref(blk);
    assert_int_equal(catalog_entry(path, 2), 4);
    blk = open_bochs(path, 0);
    assert_reads(blk, 0, DISK, image->model);
    blk_unref(blk);
}

/* An image of extents of one sector each, more than bitmaps fit into memory. */
static void more_extents_than_memory_has_room_for_are_written_and_read(void **state)
{
    enum { COUNT = 9000 };
    g_autofree uint8_t *header = g_malloc(CATALOG_AT + 4 * COUNT);
    g_autoptr(Image) image = image_new(2);
    g_autofree char *path = NULL;
    BlockBackend *blk;

    put32(image, CATALOG, COUNT);
    put32(image, BITMAP, 1);
    put32(image, EXTENT_SIZE, SECTOR);
    put_disk_size(image, COUNT * SECTOR);
    memset(header, 0xff, CATALOG_AT + 4 * COUNT);
    memcpy(header, image->file, CATALOG_AT);
    path = make_file("many", header, CATALOG_AT + 4 * COUNT);
    blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    for (int i = 0; i < COUNT; i++) {
        write_byte(blk, (i * 7919LL % COUNT) * SECTOR, SECTOR, i);
    }
    assert_int_not_equal(catalog_entry(path, 0), UNALLOCATED); /* nobody flushed */
    for (int i = 0; i < COUNT; i++) {
        uint8_t buf[SECTOR], expected[SECTOR];

        memset(expected, i, SECTOR);
        assert_int_equal(blk_pread(blk, (i * 7919LL % COUNT) * SECTOR, SECTOR, buf, 0), 0);
        assert_memory_equal(buf, expected, SECTOR);
    }
    blk_unref(blk);
}

static void bximage_reads_what_was_written(void **state)
{
    g_autofree char *program = g_find_program_in_path("bximage"), *flat = test_path("flat");
    g_autofree char *path = test_path("grown"), *command = NULL, *out = NULL;
    g_autoptr(GRand) rand = g_rand_new_with_seed(5);
    g_autofree uint8_t *data = NULL, *model = NULL;
    int64_t size = 10 << 20;
    BlockBackend *blk;
    int status = -1;

    if (!program) {
        skip();
    }
    command = g_strdup_printf("bximage -func=create -hd=10M -imgmode=growing -q %s", path);
    assert_true(g_spawn_command_line_sync(command, &out, NULL, &status, NULL) && status == 0);
    g_clear_pointer(&out, g_free);
    blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    size = blk_getlength(blk);
    model = g_malloc0(size);
    for (int i = 0; i < 100; i++) {
        int64_t offset = g_rand_int_range(rand, 0, size);
        int64_t bytes = g_rand_int_range(rand, 1, MIN(size - offset, 100000) + 1);
        g_autofree uint8_t *buf = pattern(bytes, i);

        assert_int_equal(blk_pwrite(blk, offset, bytes, buf, 0), 0);
        memcpy(model + offset, buf, bytes);
    }
    assert_int_equal(blk_pwrite_zeroes(blk, size / 2, size / 8, 0), 0);
    memset(model + size / 2, 0, size / 8);
    blk_unref(blk);
    g_free(command);
    command = g_strdup_printf("bximage -func=convert -imgmode=flat -q %s %s", path, flat);
    assert_true(g_spawn_command_line_sync(command, &out, NULL, &status, NULL) && status == 0);
    data = load_file(flat, size);
    assert_memory_equal(data, model, size);
}

/* ---- What is in the file ------------------------------------------------------------------ */

static void tables_reach_the_file_with_a_flush(void **state)
{
    g_autofree char *path = empty_image("flush", 2);
    BlockBackend *blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);

    write_byte(blk, 7 * EXTENT + 2 * SECTOR + 1, 2 * SECTOR, 1);
    assert_int_equal(catalog_entry(path, 7), UNALLOCATED);
    assert_int_equal(bitmap_word(path, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(catalog_entry(path, 7), 0);
    assert_int_equal(bitmap_word(path, 0), 7 << 2);
    write_byte(blk, 7 * EXTENT, SECTOR, 1);
    assert_int_equal(bitmap_word(path, 0), 7 << 2);
    write_byte(blk, 2 * EXTENT, EXTENT, 1);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(catalog_entry(path, 2), 1);
    assert_int_equal(bitmap_word(path, 0), 7 << 2 | 1);
    assert_int_equal(bitmap_word(path, 1), UINT32_MAX);
    blk_unref(blk);
    assert_true(file_size(path) - (EXTENTS_AT + 2 * SLOT) < SECTOR);
}

static void a_write_with_fua_brings_the_tables_along(void **state)
{
    g_autofree char *path = empty_image("fua", 2);
    BlockBackend *blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    uint8_t sector[SECTOR] = {1};

    assert_int_equal(blk_pwrite(blk, EXTENT, SECTOR, sector, BDRV_REQ_FUA), 0);
    assert_int_equal(catalog_entry(path, 1), 0);
    assert_int_equal(bitmap_word(path, 0), 1);
    blk_unref(blk);
}

static void zeroing_and_discarding_clear_bits_and_allocate_nothing(void **state)
{
    g_autofree char *path = empty_image("clear", 2);
    BlockBackend *blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    int64_t size = file_size(path);

    assert_int_equal(blk_pwrite_zeroes(blk, 0, DISK, 0), 0);
    assert_int_equal(blk_pdiscard(blk, 0, DISK), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(file_size(path), size);
    write_byte(blk, 0, EXTENT, 1);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_pwrite_zeroes(blk, SECTOR, 2 * SECTOR, 0), 0);
    assert_int_equal(blk_pdiscard(blk, 31 * SECTOR, 5 * SECTOR), 0);
    assert_int_equal(bitmap_word(path, 0), UINT32_MAX);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(bitmap_word(path, 0), UINT32_MAX & ~6U & ~(1U << 31));
    assert_reads(blk, SECTOR, 2 * SECTOR, NULL);
    assert_reads(blk, 31 * SECTOR, SECTOR, NULL);
    assert_int_equal(blk_pwrite_zeroes(blk, 3 * SECTOR + 1, 9, 0), 0); /* no whole sector */
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(bitmap_word(path, 0), UINT32_MAX & ~6U & ~(1U << 31));
    assert_reads(blk, 3 * SECTOR + 1, 9, NULL);
    blk_unref(blk);
}

static void what_lies_in_a_new_place_from_before_does_not_show(void **state)
{
    g_autoptr(Image) image = image_new(2);
    g_autofree char *path = NULL;
    BlockBackend *blk;

    /* A power cut has left a place that the catalog does not have. */
    memset(image->file + EXTENTS_AT, 0xee, SLOT);
    image->size += SLOT;
    path = image_save(image, "stale");
    blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    write_byte(blk, EXTENT + 700, 10, 1);
    memset(image->model + EXTENT + 700, 1, 10);
    assert_reads(blk, 0, DISK, image->model);
    blk_unref(blk);
    assert_int_equal(catalog_entry(path, 1), 0);
    assert_int_equal(bitmap_word(path, 0), 2);
    blk = open_bochs(path, 0);
    assert_reads(blk, 0, DISK, image->model);
    blk_unref(blk);
}

static void damaged_catalogs_are_not_written_to(void **state)
{
    static const struct {
        size_t field;
        uint32_t value;
        const char *part;
    } damage[] = {
        {CATALOG_AT + 4 * 9, 2, "two entries of the catalog are 2"},
        {CATALOG_AT + 4 * 9, 4, "entry 4 of the catalog leads beyond the end"},
        {CATALOG_AT + 4 * 9, 0xfffffffe, "entry 4294967294 of the catalog leads beyond"},
        {HEADER_SIZE, CATALOG_AT - 4, "its header has 508 bytes"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(damage); i++) {
        g_autoptr(Image) image = sample(2);
        g_autofree char *path = NULL;
        g_autofree char *text = NULL;
        BlockDriverState *bs;

        put32(image, damage[i].field, damage[i].value);
        path = image_save(image, "damaged");
        assert_open_fails(options_of("driver=bochs,file.filename=%s", path), BDRV_O_RDWR,
                          damage[i].part);
        blk_unref(open_bochs(path, 0));
        text = g_strdup_printf("driver=bochs,auto-read-only=on,file.filename=%s", path);
        bs = open_node_with(text, BDRV_O_RDWR);
        assert_true(bdrv_is_read_only(bs));
        bdrv_unref(bs);
    }
}

static void write_through_node(BlockDriverState *bs, int64_t offset, uint8_t byte)
{
    BlockBackend *blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL,
                                NULL);
    GError *err = NULL;

    assert_ok(blk_insert_bs(blk, bs, &err), err);
    write_byte(blk, offset, SECTOR, byte);
    blk_unref(blk);
}

static void reopening_makes_an_image_writable_and_back(void **state)
{
    g_autofree char *path = empty_image("reopen", 2);
    g_autofree char *text = g_strdup_printf("driver=bochs,file.driver=file,file.filename=%s", path);
    BlockDriverState *bs = open_node_with(text, 0);
    GError *err = NULL;

    for (int i = 0; i < 2; i++) {
        assert_ok(bdrv_reopen_set_read_only(bs, false, &err), err);
        write_through_node(bs, i * EXTENT, 1);
        assert_int_equal(catalog_entry(path, i), UNALLOCATED);
        assert_ok(bdrv_reopen_set_read_only(bs, true, &err), err);
        assert_int_equal(catalog_entry(path, i), i);
    }
    bdrv_unref(bs);
}

static void a_damaged_image_is_not_reopened_for_writing(void **state)
{
    g_autoptr(Image) image = sample(2);
    g_autofree char *path = NULL, *text = NULL;
    BlockDriverState *bs;
    GError *err = NULL;

    put32(image, CATALOG_AT + 4 * 9, 2);
    path = image_save(image, "reopen-damaged");
    text = g_strdup_printf("driver=bochs,file.driver=file,file.filename=%s", path);
    bs = open_node_with(text, 0);
    assert_false(bdrv_reopen_set_read_only(bs, false, &err));
    assert_error_has(&err, "two entries of the catalog are 2");
    assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);
}

/* ---- Failing requests ------------------------------------------------------------------- */

static BlockBackend *open_failing(const char *path, const char *rule)
{
    return open_blk(options_of("driver=bochs,discard=unmap,file.driver=blkdebug,"
                               "file.image.driver=file,file.image.filename=%s,"
                               "file.inject-error.0.event=none,file.inject-error.0.%s",
                               path, rule), BDRV_O_RDWR | BDRV_O_NO_FLUSH);
}

static void the_place_of_a_failed_write_is_used_by_the_next(void **state)
{
    g_autofree char *path = empty_image("failed", 2);
    BlockBackend *blk = open_failing(path, "errno=28,file.inject-error.0.iotype=write,"
                                           "file.inject-error.0.once=on");
    uint8_t sector[SECTOR] = {1};

    assert_int_equal(blk_pwrite(blk, 5 * EXTENT, SECTOR, sector, 0), -ENOSPC);
    assert_reads(blk, 5 * EXTENT, SECTOR, NULL);
    write_byte(blk, 6 * EXTENT, SECTOR, 2);
    blk_unref(blk);
    assert_int_equal(catalog_entry(path, 5), UNALLOCATED);
    assert_int_equal(catalog_entry(path, 6), 0);
}

/* A run against a failing file. */
typedef struct Run {
    uint8_t states[REQUESTS + 1][DISK]; /* the disk before and after each request */
    int flushed; /* the state at the last flush that worked */
    int now;
    int failed;
} Run;

/* Request @i: every fourth is a flush. */
static int send_request(BlockBackend *blk, int i, Run *run)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(i);
    Change c = random_change(rand);
    int ret = i % 4 == 3 ? blk_flush(blk) : send_change(blk, c);

    run->now = i + 1;
    memcpy(run->states[i + 1], run->states[i], DISK);
    if (i % 4 != 3) {
        note_change(run->states[i + 1], c);
    }
    if (ret >= 0 && (i % 4 == 3 || c.kind == 3)) {
        run->flushed = i + 1;
    }
    return ret;
}

/* Send them all, and what fails once more with @again, else stop there. */
static void send_requests(BlockBackend *blk, int error, bool again, Run *run)
{
    *run = (Run){.failed = 0};
    for (int i = 0; i < REQUESTS; i++) {
        int ret = send_request(blk, i, run);

        if (ret < 0) {
            assert_int_equal(ret, error);
            run->failed++;
            if (!again) {
                return;
            }
            assert_int_equal(send_request(blk, i, run), 0);
        }
    }
}

/* Every byte is as it was at the last flush, or at any time since. */
static void assert_old_or_new(BlockBackend *blk, const Run *run)
{
    g_autofree uint8_t *buf = g_malloc(DISK);

    assert_int_equal(blk_pread(blk, 0, DISK, buf, 0), 0);
    for (int64_t at = 0; at < DISK; at++) {
        int i = run->flushed;

        if (at % SECTOR == 0 && memcmp(run->states[run->now] + at, buf + at, SECTOR) == 0) {
            at += SECTOR - 1; /* most are like that */
            continue;
        }
        while (i <= run->now && run->states[i][at] != buf[at]) {
            i++;
        }
        if (i > run->now) {
            fail_msg("byte %" G_GINT64_FORMAT " is neither old nor new", at);
        }
    }
}

/*
 * Fail request @n of the file, or with @for_good all from there on. Then it is
 * repaired: nothing is lost, and all works. True if a request failed.
 */
static bool fail_request(int n, int error, bool for_good)
{
    g_autofree char *path = empty_image("nth", 2);
    g_autofree char *rule = g_strdup_printf("errno=%d,file.inject-error.0.once=%s,"
                                            "file.inject-error.0.after=%d", -error,
                                            for_good ? "off" : "on", n);
    g_autofree Run *run = g_new(Run, 1);
    BlockBackend *blk = open_failing(path, rule);
    bool failed;

    send_requests(blk, error, !for_good, run);
    failed = run->failed > 0;
    if (failed && !for_good) {
        assert_reads(blk, 0, DISK, run->states[REQUESTS]);
    }
    blk_unref(blk);
    blk = open_bochs(path, BDRV_O_RDWR | BDRV_O_NO_FLUSH);
    assert_old_or_new(blk, run);
    send_requests(blk, 0, false, run);
    assert_int_equal(run->failed, 0);
    assert_int_equal(blk_pwrite_zeroes(blk, 0, DISK, 0), 0);
    assert_reads(blk, 0, DISK, NULL);
    blk_unref(blk);
    return failed;
}

static void fail_each_request(bool for_good)
{
    static const int errors[] = {-EIO, -ENOSPC};

    for (size_t i = 0; i < G_N_ELEMENTS(errors); i++) {
        int n = 2; /* after the two of opening */

        while (fail_request(n, errors[i], for_good)) {
            n += repeats(1, 5);
        }
        assert_true(n > 2 * REQUESTS);
    }
}

static void each_request_may_fail_once(void **state)
{
    fail_each_request(false);
}

static void the_file_may_fail_for_good_at_each_request(void **state)
{
    fail_each_request(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_read_back_and_are_there_after_reopening),
        cmocka_unit_test(an_image_with_data_can_be_written_to),
        cmocka_unit_test(more_extents_than_memory_has_room_for_are_written_and_read),
        cmocka_unit_test(bximage_reads_what_was_written),
        cmocka_unit_test(tables_reach_the_file_with_a_flush),
        cmocka_unit_test(a_write_with_fua_brings_the_tables_along),
        cmocka_unit_test(zeroing_and_discarding_clear_bits_and_allocate_nothing),
        cmocka_unit_test(what_lies_in_a_new_place_from_before_does_not_show),
        cmocka_unit_test(damaged_catalogs_are_not_written_to),
        cmocka_unit_test(reopening_makes_an_image_writable_and_back),
        cmocka_unit_test(a_damaged_image_is_not_reopened_for_writing),
        cmocka_unit_test(the_place_of_a_failed_write_is_used_by_the_next),
        cmocka_unit_test(each_request_may_fail_once),
        cmocka_unit_test(the_file_may_fail_for_good_at_each_request),
    };

    return cmocka_run_group_tests_name("bochs-write", tests, driver_group_setup,
                                       driver_group_teardown);
}
