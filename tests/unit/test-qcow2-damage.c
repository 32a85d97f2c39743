/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: fixtures read back, and copies of them with one thing damaged: each
 * has its one error at open, or fails reads there and nowhere else.
 */
#include "qcow2-testing.h"

/* ---- Sound images ------------------------------------------------------------------ */

static char *content_hash(BlockBackend *blk, int64_t length)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree uint8_t *buf = g_malloc(length);

    assert_int_equal(blk_pread(blk, 0, length, buf, 0), 0);
    g_checksum_update(sum, buf, length);
    return g_strdup(g_checksum_get_string(sum));
}

/* What tests/fixtures/README.md says that a guest reads. */
static void fixtures_read_as_they_were_written(void **state)
{
    static const struct {
        const char *name, *hash;
    } fixtures[] = {
        { "v2.qcow2", "ecbb51bb2784ee9b0cbe9a6f3ec34584c9202911b8a9ee5682c43e747c72a60a" },
        { "v3.qcow2", "9d4f499ce8e74492b7c101d5090b769a9a6a52c095ced172bd0185f1c0823926" },
        { "deflate.qcow2", "bcb7302aa9ef29c3f84bf683bb35ba9f0dc22175747e47eaa84bf1e1cbd5da54" },
        { "zstd.qcow2", "221b44efa986b23b9f08683563fd2831995ad97c422a872cf508e8c862d35102" },
        { "extended-l2.qcow2",
          "b55b001c7fe5013ad978bfb174c6436837be8172f91ce21c2a08d0befd16126e" },
        { "refcount-1.qcow2", "f380bd6784c277e4145306f38055eac2bbd0f736e217f185dd40c680be6a6d6e" },
        { "refcount-64.qcow2",
          "f380bd6784c277e4145306f38055eac2bbd0f736e217f185dd40c680be6a6d6e" },
        { "data-file.qcow2", "c6e0f7247a17463867dff77e5aef42d4bee7d8704a73c5e24ab79f938e0603c7" },
        { "data-file-raw.qcow2",
          "c6e0f7247a17463867dff77e5aef42d4bee7d8704a73c5e24ab79f938e0603c7" },
        { "backing-overlay.qcow2",
          "25fb7c7461dbe11316624b2dcd6c0ecd0401977bb5a78f42e4c22989381b5cb8" },
        { "snapshots.qcow2", "dc2f88dca54e71d9e7e9bf5cb22de7ec51da61205176d71cb76e8f4b89732e14" },
        { "dirty.qcow2", "78532c1630108cc4efe24d09c8445d02dad92ce650de5a00ddd68782088d8fec" },
        { "bitmaps.qcow2", "78532c1630108cc4efe24d09c8445d02dad92ce650de5a00ddd68782088d8fec" },
        { "features.qcow2", "78532c1630108cc4efe24d09c8445d02dad92ce650de5a00ddd68782088d8fec" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(fixtures); i++) {
        g_autofree char *path = fixture_path(fixtures[i].name);
        BlockBackend *blk = open_qcow2(path, 0);
        g_autofree char *hash = content_hash(blk, blk_getlength(blk));

        blk_unref(blk);
        if (strcmp(hash, fixtures[i].hash) != 0) {
            fail_msg("%s reads as %s", fixtures[i].name, hash);
        }
    }
}

/* The same through a cache of two slices. */
static void a_tiny_cache_reads_the_same(void **state)
{
    g_autofree char *path = fixture_path("v3.qcow2");
    BlockBackend *blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s,"
                                            "l2-cache-size=1k,l2-cache-entry-size=512",
                                            path),
                                 0);
    g_autofree char *hash = content_hash(blk, blk_getlength(blk));

    assert_string_equal(hash, "9d4f499ce8e74492b7c101d5090b769a9a6a52c095ced172bd0185f1c0823926");
    blk_unref(blk);
}

static void snapshots_are_listed_and_read(void **state)
{
    static const struct {
        const char *name, *hash;
        int64_t length;
    } snapshots[] = {
        { "first", "f4cec05b5e983f1fc540e699d699cff6da1d52e8ddebe5596c9daca56a5c51ba", 32768 },
        { "second", "4d51b400f26c865a8fda444ce95d9d333fb560bd205a256fe54c8d64dcbf5c52", 49152 },
    };
    g_autofree char *path = fixture_path("snapshots.qcow2");
    BdrvSnapshotInfo sn;
    GError *err = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(snapshots); i++) {
        BlockBackend *blk = open_qcow2(path, 0);
        g_autofree char *hash = NULL;

        assert_false(bdrv_snapshot_get(blk_bs(blk), 2, &sn));
        assert_true(bdrv_snapshot_get(blk_bs(blk), i, &sn));
        assert_string_equal(sn.name, snapshots[i].name);
        assert_int_equal(sn.id[0], '1' + i);
        assert_ok(bdrv_snapshot_load_tmp_by_tag(blk_bs(blk), snapshots[i].name, &err), err);
        hash = content_hash(blk, snapshots[i].length);
        assert_string_equal(hash, snapshots[i].hash);
        /* The disk keeps its length; what the snapshot did not have is zeros. */
        assert_int_equal(blk_getlength(blk), 49152);
        if (snapshots[i].length < 49152) {
            assert_reads(blk, snapshots[i].length, 49152 - snapshots[i].length, NULL);
        }
        blk_unref(blk);
    }
}

static void assert_stored_bitmap(BlockDriverState *bs, size_t index, const char *name,
                                 int64_t granularity, bool is_auto)
{
    BdrvStoredBitmapInfo info;
    GError *err = NULL;
    int ret = bdrv_stored_bitmap_get(bs, index, &info, &err);

    assert_ok(ret == 1, err);
    assert_string_equal(info.name, name);
    assert_int_equal(info.granularity, granularity);
    assert_int_equal(info.is_auto, is_auto);
    assert_false(info.in_use);
}

static void stored_bitmaps_are_told_in_any_order_with_and_without_io(void **state)
{
    static const int flags[] = { BDRV_O_NO_IO, 0 };
    g_autofree char *path = fixture_path("bitmaps.qcow2");

    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        BlockBackend *blk = open_qcow2(path, flags[i] | BDRV_O_NO_BACKING);
        BdrvStoredBitmapInfo info;

        assert_stored_bitmap(blk_bs(blk), 1, "disabled", 512, false);
        assert_stored_bitmap(blk_bs(blk), 0, "enabled", 4096, true);
        assert_stored_bitmap(blk_bs(blk), 0, "enabled", 4096, true);
        assert_stored_bitmap(blk_bs(blk), 1, "disabled", 512, false);
        assert_int_equal(bdrv_stored_bitmap_get(blk_bs(blk), 2, &info, NULL), 0);
        blk_unref(blk);
    }
}

static void driver_info_and_specific_info(void **state)
{
    g_autofree char *path = fixture_path("bitmaps.qcow2");
    BlockBackend *blk = open_qcow2(path, BDRV_O_NO_IO | BDRV_O_NO_BACKING);
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    g_autofree char *text = NULL;
    BlockDriverInfo info = { 0 };
    GError *err = NULL;
    JsonObject *specific = bdrv_get_specific_info(blk_bs(blk), &err);

    assert_ok(specific != NULL, err);
    json_node_take_object(node, specific);
    text = json_to_string(node, false);
    assert_string_equal(text,
                        "{\"type\":\"qcow2\",\"data\":{\"compat\":\"1.1\","
                        "\"compression-type\":\"zlib\",\"lazy-refcounts\":false,\"bitmaps\":[],"
                        "\"refcount-bits\":16,\"corrupt\":false,\"extended-l2\":false}}");
    assert_int_equal(bdrv_get_info(blk_bs(blk), &info), 0);
    assert_int_equal(info.cluster_size, 1024);
    assert_int_equal(info.subcluster_size, 1024);
    assert_int_equal(info.vm_state_offset, 128 * 1024);
    assert_false(info.is_dirty);
    blk_unref(blk);
}

static void dirty_and_encrypted_images_say_so(void **state)
{
    g_autofree char *dirty = fixture_path("dirty.qcow2");
    g_autofree char *aes = fixture_path("aes.qcow2");
    BlockBackend *blk = open_qcow2(dirty, 0);
    BlockDriverInfo info = { 0 };

    assert_int_equal(bdrv_get_info(blk_bs(blk), &info), 0);
    assert_true(info.is_dirty);
    assert_false(bdrv_is_encrypted(blk_bs(blk)));
    blk_unref(blk);
    blk = open_qcow2(aes, BDRV_O_NO_IO | BDRV_O_NO_BACKING);
    assert_true(bdrv_is_encrypted(blk_bs(blk)));
    blk_unref(blk);
}

/* ---- Refused at open ------------------------------------------------------------------ */

static void assert_refused(Image *image, int flags, const char *part)
{
    g_autofree char *path = store_image(image);
    GError *err = NULL;
    BlockBackend *blk = try_open_qcow2(path, flags, &err);

    assert_null(blk);
    assert_error_has(&err, part);
}

static void encryption_is_refused_by_its_name(void **state)
{
    g_autofree char *aes = fixture_path("aes.qcow2");
    GError *err = NULL;
    Image image = load_fixture("v3.qcow2");

    assert_null(try_open_qcow2(aes, 0, &err));
    assert_error_has(&err, "aes.qcow2': crypt_method 1: encryption with AES is not supported");
    put_bytes(&image, 32, 4, QCOW2_CRYPT_LUKS);
    assert_refused(&image, BDRV_O_NO_IO,
                   "test.qcow2': crypt_method 2 (LUKS) without an encryption header");
}

static void files_without_a_header_are_refused(void **state)
{
    for (size_t size = 0; size < 1024; size += 256) {
        Image image = { .data = g_malloc0(size + 1), .size = size };

        assert_refused(&image, 0, "Image is not in qcow2 format");
    }
}

static void truncated_images_are_refused(void **state)
{
    Image image = load_fixture("v3.qcow2");

    image.size = 512;
    assert_refused(&image, 0, "test.qcow2': l1_table offset 0x600 is beyond the end of the file");
}

static void a_corrupt_image_is_not_written_to(void **state)
{
    Image image = load_fixture("v3.qcow2");
    g_autofree char *path = NULL;
    GError *err = NULL;

    put64(&image, 72, get64(&image, 72) | QCOW2_INCOMPAT_CORRUPT);
    path = store_image(&image);
    assert_null(try_open_qcow2(path, BDRV_O_RDWR, &err));
    assert_error_has(&err, "Image is corrupt; cannot be opened read/write");
    blk_unref(open_qcow2(path, 0));
}

static void damaged_snapshot_tables_are_refused(void **state)
{
    static const struct {
        unsigned field, bytes;
        uint64_t value;
        const char *part;
    } damages[] = {
        { 12, 2, 0xffff, "snapshot table entry 0 of 65608 bytes at offset 16384 exceeds the end" },
        { 14, 2, 0xffff, "snapshot table entry 0 of 65600 bytes at offset 16384 exceeds the end" },
        { 36, 4, 1025, "snapshot table entry 0: 1025 bytes of extra data are more than 1024" },
        { 36, 4, UINT32_MAX, "4294967295 bytes of extra data are more than 1024" },
    };
    Image holes = load_fixture("snapshots.qcow2");

    for (size_t i = 0; i < G_N_ELEMENTS(damages); i++) {
        Image image = load_fixture("snapshots.qcow2");

        put_bytes(&image, snapshots_at(&image) + damages[i].field, damages[i].bytes,
                  damages[i].value);
        assert_refused(&image, BDRV_O_NO_IO, damages[i].part);
    }
    memset(holes.data + snapshots_at(&holes), 0, 1024);
    assert_refused(&holes, BDRV_O_NO_IO, "snapshot table entry 0 at offset 16384 is empty");
}

static void damaged_snapshots_cannot_be_read(void **state)
{
    static const struct {
        unsigned field, bytes;
        uint64_t value;
        const char *part;
    } damages[] = {
        { 0, 8, 0x3808, "L1 table of snapshot 'first' offset 0x3808 is not aligned" },
        { 0, 8, 1ULL << 40, "L1 table of snapshot 'first' offset 0x10000000000 is beyond the end" },
        { 8, 4, 0, "L1 table of snapshot 'first' has 0 entries, too few for a size of 32768" },
        { 8, 4, UINT32_MAX, "L1 table of snapshot 'first' too large: 4294967295 entries" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(damages); i++) {
        Image image = load_fixture("snapshots.qcow2");
        g_autofree char *path = NULL;
        GError *err = NULL;
        BlockBackend *blk;

        put_bytes(&image, snapshots_at(&image) + damages[i].field, damages[i].bytes,
                  damages[i].value);
        path = store_image(&image);
        blk = open_qcow2(path, 0);
        assert_false(bdrv_snapshot_load_tmp_by_tag(blk_bs(blk), "first", &err));
        assert_error_has(&err, damages[i].part);
        blk_unref(blk);
    }
}

static void damaged_bitmap_directories_are_refused(void **state)
{
    static const struct {
        unsigned field, bytes;
        uint64_t value;
        const char *part;
    } damages[] = {
        { 0, 8, 0, "bitmap directory entry 0: bitmap_table_offset 0 is not valid" },
        { 0, 8, 77, "bitmap directory entry 0: bitmap_table_offset 77 is not valid" },
        { 8, 4, 0, "bitmap directory entry 0: bitmap_table_size 0 is not valid" },
        { 8, 4, UINT32_MAX, "bitmap directory entry 0: bitmap_table_size 4294967295 is not valid" },
        { 12, 4, 8, "bitmap directory entry 0: flags 8 is not valid" },
        { 16, 1, 2, "bitmap directory entry 0: type 2 is not valid" },
        { 17, 1, 8, "bitmap directory entry 0: granularity_bits 8 is not valid" },
        { 17, 1, 32, "bitmap directory entry 0: granularity_bits 32 is not valid" },
        { 18, 2, 0, "bitmap directory entry 0: name_size 0 is not valid" },
        { 18, 2, 1024, "bitmap directory entry 0 at 0 exceeds bitmap_directory_size 64" },
        { 20, 4, UINT32_MAX, "bitmap directory entry 0 at 0 exceeds bitmap_directory_size 64" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(damages); i++) {
        Image image = load_fixture("bitmaps.qcow2");
        uint64_t directory = get64(&image, extension_at(&image, QCOW2_EXT_BITMAPS) + 16);

        put_bytes(&image, directory + damages[i].field, damages[i].bytes, damages[i].value);
        assert_refused(&image, BDRV_O_NO_IO, damages[i].part);
    }
}

static void data_files_are_asked_for(void **state)
{
    g_autofree char *sound = fixture_path("data-file.qcow2");
    Image image = load_fixture("data-file.qcow2");
    g_autofree char *path = NULL;
    GError *err = NULL;
    BlockDriverState *bs;

    /* Without a policy what the image names is not opened, for info neither. */
    bs = bdrv_open(sound, NULL, 0, NULL, &err);
    assert_null(bs);
    assert_error_has(&err, "data-file.data");
    bs = bdrv_open(sound, NULL, BDRV_O_NO_IO | BDRV_O_NO_BACKING, NULL, &err);
    assert_ok(bs != NULL, err);
    bdrv_unref(bs);
    put_bytes(&image, extension_at(&image, QCOW2_EXT_DATA_FILE) - 8, 4, 0x12345678);
    path = store_image(&image);
    assert_null(try_open_qcow2(path, 0, &err));
    assert_error_has(&err, "'data-file' is required for this image");
}

static void backing_files_are_asked_for(void **state)
{
    g_autofree char *path = fixture_path("backing-overlay.qcow2");
    GError *err = NULL;
    BlockDriverState *bs = bdrv_open(path, NULL, 0, NULL, &err);

    assert_null(bs);
    assert_error_has(&err, "backing-base.qcow2");
    bs = bdrv_open(path, NULL, BDRV_O_NO_BACKING, NULL, &err);
    assert_ok(bs != NULL, err);
    assert_string_equal(bdrv_get_backing_filename(bs), "backing-base.qcow2");
    assert_string_equal(bdrv_get_backing_format(bs), "qcow2");
    bdrv_unref(bs);
}

static void wrong_options_are_refused(void **state)
{
    static const struct {
        const char *options, *part;
    } cases[] = {
        { "l2-cache-entry-size=513", "power of two between 512 and the cluster size (512)" },
        { "l2-cache-entry-size=1k", "power of two between 512 and the cluster size (512)" },
        { "cache-size=1M,l2-cache-size=2M", "l2-cache-size may not exceed cache-size" },
        { "cache-size=1M,refcount-cache-size=2M", "refcount-cache-size may not exceed cache-size" },
        { "cache-size=3M,l2-cache-size=1M,refcount-cache-size=1M", "may not be set at the same" },
        { "cache-clean-interval=-1", "cache-clean-interval -1 is not in" },
        { "overlap-check=some", "some" },
        { "overlap-check.template=some", "some" },
        { "overlap-check.nowhere=on", "overlap-check.nowhere" },
        { "overlap-check.active-l1=perhaps", "perhaps" },
        { "lazy-refcounts=perhaps", "perhaps" },
        { "encrypt.format=luks", "No encryption in image header" },
        { "data-file.filename=x", "can only be set for images with an external data file" },
        { "nonsense=1", "nonsense" },
    };
    static const char *const accepted[] = {
        "overlap-check=constant", "overlap-check.template=all,overlap-check.inactive-l2=off",
        "cache-size=1M,l2-cache-size=512k", "l2-cache-size=0", "lazy-refcounts=on",
        "pass-discard-request=on,pass-discard-snapshot=off,pass-discard-other=on",
        "discard-no-unref=on", "cache-clean-interval=600",
    };
    g_autofree char *path = fixture_path("v3.qcow2");

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_open_fails(options_of("driver=qcow2,file.driver=file,file.filename=%s,%s", path,
                                     cases[i].options),
                          0, cases[i].part);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(accepted); i++) {
        blk_unref(open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s,%s", path,
                                      accepted[i]),
                           0));
    }
}

/* ---- Fails where it is damaged ------------------------------------------------------------ */

/* Reading cluster 0 fails, cluster @sound gives what it did before. */
static void assert_cluster_0_unreadable(const char *fixture, Image *image, unsigned sound)
{
    size_t cluster = (size_t)1 << image->cluster_bits;
    g_autofree char *original = fixture_path(fixture);
    g_autofree char *path = store_image(image);
    g_autofree uint8_t *expected = g_malloc(cluster);
    g_autofree uint8_t *buf = g_malloc(cluster);
    BlockBackend *blk = open_qcow2(original, 0);
    int64_t pnum, map;

    assert_int_equal(blk_pread(blk, sound * cluster, cluster, expected, 0), 0);
    blk_unref(blk);
    blk = open_qcow2(path, 0);
    assert_int_equal(blk_pread(blk, 0, 512, buf, 0), -EIO);
    assert_int_equal(blk_pread(blk, 0, cluster, buf, 0), -EIO);
    assert_int_equal(blk_pread(blk, sound * cluster, cluster, buf, 0), 0);
    assert_memory_equal(buf, expected, cluster);
    assert_int_equal(blk_pread(blk, 0, cluster, buf, 0), -EIO);
    assert_true(status_of(blk, sound * cluster, cluster, &pnum, &map) >= 0);
    blk_unref(blk);
}

static void damaged_l2_entries_fail_reads(void **state)
{
    static const uint64_t entries[] = {
        QCOW2_COPIED | 1ULL << 40,     QCOW2_COPIED | QCOW2_OFFSET_MASK,
        QCOW2_COMPRESSED | 1ULL << 40, QCOW2_COMPRESSED | 0xa00,
        QCOW2_COMPRESSED | ((1ULL << 61) - 1),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(entries); i++) {
        Image image = load_fixture("v3.qcow2");

        put64(&image, l2_at(&image), entries[i]);
        assert_cluster_0_unreadable("v3.qcow2", &image, 1);
    }
}

static void reserved_bits_of_entries_do_not_change_what_is_read(void **state)
{
    static const uint64_t l1_bits[] = { 1, 0x100, 1ULL << 56, 1ULL << 62 };
    static const uint64_t l2_bits[] = { 2, 0x100, 1ULL << 56, 1ULL << 61 };

    for (size_t i = 0; i < G_N_ELEMENTS(l1_bits); i++) {
        Image image = load_fixture("v3.qcow2");
        uint64_t l2 = l2_at(&image);
        g_autofree char *path = NULL, *hash = NULL;
        BlockBackend *blk;

        put64(&image, l1_at(&image), get64(&image, l1_at(&image)) | l1_bits[i]);
        put64(&image, l2, get64(&image, l2) | l2_bits[i]);
        path = store_image(&image);
        blk = open_qcow2(path, 0);
        hash = content_hash(blk, blk_getlength(blk));
        assert_string_equal(hash,
                            "9d4f499ce8e74492b7c101d5090b769a9a6a52c095ced172bd0185f1c0823926");
        blk_unref(blk);
    }
}

static void unaligned_and_version_2_zero_entries_fail_reads(void **state)
{
    Image image = load_fixture("v2.qcow2");

    put64(&image, l2_at(&image), get64(&image, l2_at(&image)) + 512);
    assert_cluster_0_unreadable("v2.qcow2", &image, 1);
    image = load_fixture("v2.qcow2");
    put64(&image, l2_at(&image), get64(&image, l2_at(&image)) | QCOW2_ZERO);
    assert_cluster_0_unreadable("v2.qcow2", &image, 1);
}

static void damaged_l1_entries_fail_reads(void **state)
{
    static const uint64_t entries[] = {
        QCOW2_COPIED | 1ULL << 40,
        QCOW2_COPIED | QCOW2_OFFSET_MASK,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(entries); i++) {
        Image image = load_fixture("v3.qcow2");

        put64(&image, l1_at(&image), entries[i]);
        /* One L2 table of 512 bytes is for 64 clusters. */
        assert_cluster_0_unreadable("v3.qcow2", &image, 64);
    }
}

static void damaged_compressed_data_fails_reads(void **state)
{
    static const char *const fixtures[] = { "deflate.qcow2", "zstd.qcow2" };

    for (size_t i = 0; i < G_N_ELEMENTS(fixtures); i++) {
        Image image = load_fixture(fixtures[i]);
        Qcow2Geometry geo = { .cluster_bits = image.cluster_bits };
        uint64_t offset, bytes;

        qcow2_compressed_place(&geo, get64(&image, l2_at(&image)), &offset, &bytes);
        memset(image.data + offset, 0xff, 64);
        assert_cluster_0_unreadable(fixtures[i], &image, 1);
    }
}

static void damaged_subcluster_bitmaps_fail_reads(void **state)
{
    Image image = load_fixture("extended-l2.qcow2");

    put64(&image, l2_at(&image) + 8, 2 | 2ULL << 32);
    assert_cluster_0_unreadable("extended-l2.qcow2", &image, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures_read_as_they_were_written),
        cmocka_unit_test(a_tiny_cache_reads_the_same),
        cmocka_unit_test(snapshots_are_listed_and_read),
        cmocka_unit_test(stored_bitmaps_are_told_in_any_order_with_and_without_io),
        cmocka_unit_test(driver_info_and_specific_info),
        cmocka_unit_test(dirty_and_encrypted_images_say_so),
        cmocka_unit_test(encryption_is_refused_by_its_name),
        cmocka_unit_test(files_without_a_header_are_refused),
        cmocka_unit_test(truncated_images_are_refused),
        cmocka_unit_test(a_corrupt_image_is_not_written_to),
        cmocka_unit_test(damaged_snapshot_tables_are_refused),
        cmocka_unit_test(damaged_snapshots_cannot_be_read),
        cmocka_unit_test(damaged_bitmap_directories_are_refused),
        cmocka_unit_test(data_files_are_asked_for),
        cmocka_unit_test(backing_files_are_asked_for),
        cmocka_unit_test(wrong_options_are_refused),
        cmocka_unit_test(damaged_l2_entries_fail_reads),
        cmocka_unit_test(reserved_bits_of_entries_do_not_change_what_is_read),
        cmocka_unit_test(unaligned_and_version_2_zero_entries_fail_reads),
        cmocka_unit_test(damaged_l1_entries_fail_reads),
        cmocka_unit_test(damaged_compressed_data_fails_reads),
        cmocka_unit_test(damaged_subcluster_bitmaps_fail_reads),
    };

    return cmocka_run_group_tests(tests, qcow2_group_setup, driver_group_teardown);
}
