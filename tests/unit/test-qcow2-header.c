/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: the header and its extensions from a buffer. One field is damaged at
 * a time, and one error is expected that names file, field and value.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/qcow2/qcow2.h"

#define CLUSTER 65536
#define FILE_LENGTH (8 * CLUSTER)

static void put32(uint8_t *p, uint32_t value)
{
    value = GUINT32_TO_BE(value);
    memcpy(p, &value, sizeof(value));
}

static void put64(uint8_t *p, uint64_t value)
{
    value = GUINT64_TO_BE(value);
    memcpy(p, &value, sizeof(value));
}

/* The first cluster of a sound image: header of @version, no extensions. */
static uint8_t *sound_image(uint32_t version)
{
    uint8_t *p = g_malloc0(CLUSTER);

    put32(p, QCOW2_MAGIC);
    put32(p + 4, version);
    put32(p + 20, 16);          /* cluster_bits */
    put64(p + 24, 1024 * 1024); /* size */
    put32(p + 36, 1);           /* l1_size */
    put64(p + 40, 3 * CLUSTER); /* l1_table_offset */
    put64(p + 48, 1 * CLUSTER); /* refcount_table_offset */
    put32(p + 56, 1);           /* refcount_table_clusters */
    if (version >= 3) {
        put32(p + 96, 4);    /* refcount_order */
        put32(p + 100, 104); /* header_length */
    }
    return p;
}

static uint8_t *append_extension(uint8_t *p, uint32_t type, uint32_t length)
{
    put32(p, type);
    put32(p + 4, length);
    return p + 8;
}

static bool parse(const uint8_t *image, int flags, Qcow2Header *header, GError **err)
{
    return qcow2_header_parse(image, CLUSTER, FILE_LENGTH, flags, "d.qcow2", header, err);
}

static void sound_headers_are_decoded(void **state)
{
    for (uint32_t version = 2; version <= 3; version++) {
        g_autofree uint8_t *image = sound_image(version);
        Qcow2Header header;
        Qcow2Geometry geo;

        put64(image + 8, 400);
        put32(image + 16, 9);
        assert_true(parse(image, 0, &header, NULL));
        assert_int_equal(header.version, version);
        assert_int_equal(header.backing_file_offset, 400);
        assert_int_equal(header.backing_file_size, 9);
        assert_int_equal(header.size, 1024 * 1024);
        assert_int_equal(header.l1_table_offset, 3 * CLUSTER);
        assert_int_equal(header.refcount_order, 4);
        assert_int_equal(header.header_length, version == 2 ? 72 : 104);
        qcow2_geometry_init(&geo, &header);
        assert_int_equal(geo.l2_bits, 13);
        assert_int_equal(geo.subclusters, 1);
    }
}

/* In version 2 the bytes behind the header are extensions, not features. */
static void version_2_has_no_feature_bits(void **state)
{
    g_autofree uint8_t *image = sound_image(2);
    Qcow2Header header;

    memset(image + 72, 0xff, 40);
    assert_true(parse(image, 0, &header, NULL));
    assert_int_equal(header.incompatible_features, 0);
    assert_int_equal(header.compression_type, 0);
}

typedef struct Damage {
    const char *label;
    unsigned offset;
    unsigned bytes;
    uint64_t value;
    const char *message; /* NULL: accepted */
    bool check_opens;    /* accepted with BDRV_O_CHECK */
} Damage;

static const Damage damages[] = {
    { "magic", 0, 4, 0x514649fa, "Image is not in qcow2 format" },
    { "version 1", 4, 4, 1, "'d.qcow2': version 1 is not 2 or 3" },
    { "version 4", 4, 4, 4, "'d.qcow2': version 4 is not 2 or 3" },
    { "backing offset outside", 8, 8, CLUSTER + 1,
      "'d.qcow2': backing_file_offset 0x10001 is beyond the first cluster of 65536 bytes" },
    { "cluster_bits 0", 20, 4, 0, "'d.qcow2': cluster_bits 0 is not in 9..21" },
    { "cluster_bits 8", 20, 4, 8, "'d.qcow2': cluster_bits 8 is not in 9..21" },
    { "cluster_bits 22", 20, 4, 22, "'d.qcow2': cluster_bits 22 is not in 9..21" },
    { "cluster_bits 40", 20, 4, 40, "'d.qcow2': cluster_bits 40 is not in 9..21" },
    { "cluster_bits 63", 20, 4, 63, "'d.qcow2': cluster_bits 63 is not in 9..21" },
    { "cluster_bits 2^31", 20, 4, 0x80000000,
      "'d.qcow2': cluster_bits 2147483648 is not in 9..21" },
    { "size above all limits", 24, 8, UINT64_MAX,
      "'d.qcow2': size 18446744073709551615 is more than 9223372036854710272" },
    { "size that L1 does not cover", 24, 8, 1ULL << 40,
      "'d.qcow2': l1_size 1 is too small: a size of 1099511627776 bytes needs 2048" },
    { "crypt_method", 32, 4, 3, "'d.qcow2': crypt_method 3 is not in 0..2" },
    { "l1_size 0", 36, 4, 0,
      "'d.qcow2': l1_size 0 is too small: a size of 1048576 bytes needs 1" },
    { "l1_size above 32 MiB", 36, 4, 4 * 1024 * 1024 + 1,
      "'d.qcow2': l1_table too large: 4194305 entries are more than 33554432 bytes" },
    { "l1_size 2^32-1", 36, 4, UINT32_MAX,
      "'d.qcow2': l1_table too large: 4294967295 entries are more than 33554432 bytes" },
    { "L1 misaligned", 40, 8, 3 * CLUSTER + 512,
      "'d.qcow2': l1_table offset 0x30200 is not aligned to a cluster" },
    { "L1 outside", 40, 8, FILE_LENGTH,
      "'d.qcow2': l1_table offset 0x80000 is beyond the end of the file (524288 bytes)", true },
    { "L1 at the end of 64 bits", 40, 8, UINT64_MAX - CLUSTER + 1,
      "'d.qcow2': l1_table offset 0xffffffffffff0000 is too large" },
    { "refcount table misaligned", 48, 8, CLUSTER + 8,
      "'d.qcow2': refcount_table offset 0x10008 is not aligned to a cluster" },
    { "refcount table outside", 48, 8, 1ULL << 40,
      "'d.qcow2': refcount_table offset 0x10000000000 is beyond the end of the file "
      "(524288 bytes)",
      true },
    { "no refcount table", 56, 4, 0, "'d.qcow2': refcount_table_clusters is 0", true },
    { "refcount table above 8 MiB", 56, 4, 129,
      "'d.qcow2': refcount_table too large: 129 entries are more than 8388608 bytes" },
    { "too many snapshots", 60, 4, 65537, "'d.qcow2': nb_snapshots 65537 is more than 65536",
      true },
    { "refcount_order 7", 96, 4, 7, "'d.qcow2': refcount_order 7 is not in 0..6" },
    { "header_length short", 100, 4, 103, "'d.qcow2': header_length 103 is less than 104" },
    { "header_length long", 100, 4, CLUSTER + 8,
      "'d.qcow2': header_length 65544 is more than a cluster of 65536 bytes" },
    { "header_length 2^32-1", 100, 4, UINT32_MAX,
      "'d.qcow2': header_length 4294967295 is more than a cluster of 65536 bytes" },
    { "compression bit without type", 72, 8, QCOW2_INCOMPAT_COMPRESSION,
      "'d.qcow2': compression_type 0 does not agree with the compression type bit (set)" },
    { "unknown compatible bits", 80, 8, UINT64_MAX, NULL },
    { "unknown autoclear bits", 88, 8, UINT64_MAX, NULL },
    { "dirty and corrupt", 72, 8, QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT, NULL },
    { "refcount_order 0", 96, 4, 0, NULL },
    { "refcount_order 6", 96, 4, 6, NULL },
};

static void assert_parses_as(const Damage *damage, const uint8_t *image, int flags, bool accepted)
{
    g_autoptr(GError) err = NULL;
    Qcow2Header header;
    bool ok = parse(image, flags, &header, &err);

    if (ok != accepted) {
        fail_msg("%s: %s", damage->label, ok ? "accepted" : err->message);
    }
    if (!ok) {
        assert_true(err->domain == BLOCK_ERROR);
        if (strcmp(err->message, damage->message) != 0) {
            fail_msg("%s: '%s', not '%s'", damage->label, err->message, damage->message);
        }
    }
}

static void each_damaged_field_has_its_error(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(damages); i++) {
        const Damage *damage = &damages[i];
        g_autofree uint8_t *image = sound_image(3);

        if (damage->bytes == 8) {
            put64(image + damage->offset, damage->value);
        } else {
            put32(image + damage->offset, damage->value);
        }
        assert_parses_as(damage, image, 0, !damage->message);
        assert_parses_as(damage, image, BDRV_O_CHECK, !damage->message || damage->check_opens);
    }
}

static void backing_names_stay_short_and_in_the_first_cluster(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t size;
        bool accepted;
    } cases[] = {
        { 512, 1023, true },         { 512, 1024, false },        { CLUSTER - 10, 10, true },
        { CLUSTER - 10, 11, false }, { 512, UINT32_MAX, false },  { 512, 0, true },
        { 0, 5000, true },           { UINT64_MAX - 3, 2, false }
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree uint8_t *image = sound_image(3);
        Qcow2Header header;

        put64(image + 8, cases[i].offset);
        put32(image + 16, cases[i].size);
        assert_int_equal(parse(image, 0, &header, NULL), cases[i].accepted);
    }
}

static void snapshot_tables_lie_inside_the_file(void **state)
{
    static const struct {
        uint64_t offset;
        bool accepted;
    } cases[] = { { 4 * CLUSTER, true }, { 4 * CLUSTER + 1, false }, { FILE_LENGTH, false },
                  { UINT64_MAX & ~0xffffULL, false } };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree uint8_t *image = sound_image(3);
        Qcow2Header header;

        put32(image + 60, 1);
        put64(image + 64, cases[i].offset);
        assert_int_equal(parse(image, 0, &header, NULL), cases[i].accepted);
    }
}

static void extended_l2_needs_16k_clusters(void **state)
{
    g_autofree uint8_t *image = sound_image(3);
    g_autoptr(GError) err = NULL;
    Qcow2Header header;
    Qcow2Geometry geo;

    put64(image + 72, QCOW2_INCOMPAT_EXTENDED_L2);
    assert_true(parse(image, 0, &header, NULL));
    qcow2_geometry_init(&geo, &header);
    assert_int_equal(geo.l2_bits, 12);
    assert_int_equal(geo.subcluster_bits, 11);
    put32(image + 20, 13);
    put32(image + 36, 4);
    assert_false(parse(image, 0, &header, &err));
    assert_string_equal(err->message,
                        "'d.qcow2': cluster_bits 13 is less than 14, with extended L2");
}

static void compression_types(void **state)
{
    static const struct {
        uint64_t bit;
        uint8_t type;
        bool accepted;
    } cases[] = { { 0, 0, true },
                  { 0, 1, false },
                  { QCOW2_INCOMPAT_COMPRESSION, 0, false },
                  { QCOW2_INCOMPAT_COMPRESSION, 1, true },
                  { QCOW2_INCOMPAT_COMPRESSION, 2, false } };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree uint8_t *image = sound_image(3);
        Qcow2Header header;

        put64(image + 72, cases[i].bit);
        put32(image + 100, 112);
        image[104] = cases[i].type;
        assert_int_equal(parse(image, 0, &header, NULL), cases[i].accepted);
    }
}

/* ---- Extensions ------------------------------------------------------------------- */

typedef struct Fixture {
    uint8_t *image;
    uint8_t *area; /* where extensions go */
    Qcow2Extensions ext;
    GError *err;
} Fixture;

static int set_up(void **state)
{
    Fixture *f = g_new0(Fixture, 1);

    f->image = sound_image(3);
    f->area = f->image + 104;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    Fixture *f = *state;

    qcow2_extensions_clear(&f->ext);
    g_clear_error(&f->err);
    g_free(f->image);
    g_free(f);
    return 0;
}

static bool parse_extensions(Fixture *f)
{
    Qcow2Header header;

    assert_true(parse(f->image, 0, &header, NULL));
    qcow2_extensions_clear(&f->ext);
    g_clear_error(&f->err);
    return qcow2_extensions_parse(f->image, CLUSTER, &header, "d.qcow2", &f->ext, &f->err);
}

static void known_and_unknown_extensions_are_found(void **state)
{
    Fixture *f = *state;
    uint8_t *p = f->area;
    const Qcow2UnknownExtension *unknown;

    memcpy(append_extension(p, QCOW2_EXT_BACKING_FORMAT, 5), "qcow2", 5);
    p += 16;
    memcpy(append_extension(p, 0x12345678, 3), "xyz", 3);
    p += 16;
    memcpy(append_extension(p, QCOW2_EXT_DATA_FILE, 6), "d.data", 6);
    assert_true(parse_extensions(f));
    assert_string_equal(f->ext.backing_format, "qcow2");
    assert_string_equal(f->ext.data_file, "d.data");
    assert_int_equal(f->ext.unknown->len, 1);
    unknown = &g_array_index(f->ext.unknown, Qcow2UnknownExtension, 0);
    assert_int_equal(unknown->type, 0x12345678);
    assert_int_equal(unknown->length, 3);
    assert_memory_equal((const uint8_t *)g_bytes_get_data(f->ext.first_cluster, NULL) +
                            unknown->offset,
                        "xyz", 3);
}

static void assert_extension_refused(Fixture *f, const char *message)
{
    assert_false(parse_extensions(f));
    assert_string_equal(f->err->message, message);
}

static void extension_lengths_are_bounded(void **state)
{
    Fixture *f = *state;

    append_extension(f->area, 0x12345678, UINT32_MAX);
    assert_extension_refused(f, "'d.qcow2': header extension 0x12345678 has length 4294967295, "
                                "but only 65424 bytes are left");
    append_extension(f->area, 0x12345678, CLUSTER - 112 + 1);
    assert_extension_refused(f, "'d.qcow2': header extension 0x12345678 has length 65425, "
                                "but only 65424 bytes are left");
    append_extension(f->area, 0x12345678, CLUSTER - 112);
    assert_true(parse_extensions(f));
}

/* The extensions end where the backing file name begins. */
static void extensions_end_at_the_backing_name(void **state)
{
    Fixture *f = *state;

    put64(f->image + 8, 128);
    put32(f->image + 16, 8);
    append_extension(f->area, 0x12345678, 16);
    assert_true(parse_extensions(f));
    append_extension(f->area, 0x12345678, 17);
    assert_extension_refused(f, "'d.qcow2': header extension 0x12345678 has length 17, "
                                "but only 16 bytes are left");
}

static void damaged_extensions_have_their_errors(void **state)
{
    Fixture *f = *state;
    uint8_t *p;

    append_extension(f->area, QCOW2_EXT_BACKING_FORMAT, 16);
    assert_extension_refused(f, "'d.qcow2': header extension 'backing file format' has length 16");
    append_extension(f->area, QCOW2_EXT_DATA_FILE, 0);
    assert_extension_refused(
        f, "'d.qcow2': header extension 'external data file name' has length 0");
    append_extension(f->area, QCOW2_EXT_BITMAPS, 16);
    assert_extension_refused(f, "'d.qcow2': header extension 'bitmaps' has length 16");
    append_extension(f->area, QCOW2_EXT_CRYPTO, 16);
    assert_extension_refused(
        f, "'d.qcow2': full disk encryption header, but crypt_method is 0");
    put32(f->image + 32, QCOW2_CRYPT_LUKS);
    append_extension(f->area, QCOW2_EXT_CRYPTO, 8);
    assert_extension_refused(f, "'d.qcow2': header extension 'full disk encryption' has length 8");
    p = append_extension(f->area, QCOW2_EXT_CRYPTO, 16);
    put64(p, 4096);
    assert_extension_refused(
        f, "'d.qcow2': encryption header offset 0x1000 is not aligned to a cluster");
}

static void damaged_bitmap_extensions_have_their_errors(void **state)
{
    Fixture *f = *state;
    uint8_t *p = append_extension(f->area, QCOW2_EXT_BITMAPS, 24);

    put64(f->image + 88, QCOW2_AUTOCLEAR_BITMAPS);
    assert_extension_refused(f, "'d.qcow2': nb_bitmaps 0 is not in 1..65535");
    put32(p, 65536);
    assert_extension_refused(f, "'d.qcow2': nb_bitmaps 65536 is not in 1..65535");
    put32(p, 1);
    put32(p + 4, 7);
    assert_extension_refused(
        f, "'d.qcow2': reserved field 0x7 of the bitmaps extension is not 0");
    put32(p + 4, 0);
    put64(p + 8, 1ULL << 40);
    assert_extension_refused(
        f, "'d.qcow2': bitmap_directory_size 1099511627776 is more than 67107840");
    put64(p + 8, 40);
    put64(p + 16, 512);
    assert_extension_refused(
        f, "'d.qcow2': bitmap_directory_offset 0x200 is not aligned to a cluster");
    put64(p + 16, 4 * CLUSTER);
    assert_true(parse_extensions(f));
    assert_int_equal(f->ext.nb_bitmaps, 1);
    /* Somebody wrote without knowing bitmaps: as if there were none. */
    put64(f->image + 88, 0);
    assert_true(parse_extensions(f));
    assert_int_equal(f->ext.nb_bitmaps, 0);
}

static void name_feature(uint8_t *entry, uint8_t type, uint8_t bit, const char *name)
{
    entry[0] = type;
    entry[1] = bit;
    memcpy(entry + 2, name, strlen(name));
}

static void unknown_incompatible_features_are_named(void **state)
{
    Fixture *f = *state;
    Qcow2Header header;
    uint8_t *p = append_extension(f->area, QCOW2_EXT_FEATURE_NAMES, 3 * 48);

    name_feature(p, 0, 33, "time travel");
    name_feature(p + 48, 1, 34, "compatible name of another bit");
    /* A name of full length has no terminating zero. */
    name_feature(p + 96, 0, 35, "0123456789012345678901234567890123456789abcdef");
    put64(f->image + 72, 1ULL << 33 | 1ULL << 35 | QCOW2_INCOMPAT_DIRTY);
    assert_true(parse_extensions(f));
    assert_true(parse(f->image, 0, &header, NULL));
    assert_false(qcow2_check_features(&header, &f->ext, "d.qcow2", &f->err));
    assert_string_equal(f->err->message,
                        "Unsupported qcow2 feature(s): time travel, "
                        "0123456789012345678901234567890123456789abcdef");
    g_clear_error(&f->err);
    header.incompatible_features |= 1ULL << 34 | 1ULL << 63;
    assert_false(qcow2_check_features(&header, &f->ext, "d.qcow2", &f->err));
    assert_string_equal(f->err->message,
                        "Unsupported qcow2 feature(s): time travel, "
                        "0123456789012345678901234567890123456789abcdef, "
                        "Unknown incompatible feature: 8000000400000000");
    header.incompatible_features = QCOW2_INCOMPAT_KNOWN;
    assert_true(qcow2_check_features(&header, &f->ext, "d.qcow2", NULL));
}

#define with_image(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_headers_are_decoded),
        cmocka_unit_test(version_2_has_no_feature_bits),
        cmocka_unit_test(each_damaged_field_has_its_error),
        cmocka_unit_test(backing_names_stay_short_and_in_the_first_cluster),
        cmocka_unit_test(snapshot_tables_lie_inside_the_file),
        cmocka_unit_test(extended_l2_needs_16k_clusters),
        cmocka_unit_test(compression_types),
        with_image(known_and_unknown_extensions_are_found),
        with_image(extension_lengths_are_bounded),
        with_image(extensions_end_at_the_backing_name),
        with_image(damaged_extensions_have_their_errors),
        with_image(damaged_bitmap_extensions_have_their_errors),
        with_image(unknown_incompatible_features_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
