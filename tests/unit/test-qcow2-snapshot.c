/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: internal snapshots: create, apply, delete, in all shapes of images, with each
 * request to the file failing in turn, and what is refused.
 */
#include "qcow2-testing.h"
#include "fault-node.h"
#include "repeats.h"

#include <inttypes.h>

#define KiB 1024LL
#define MAX_SNAPSHOTS 6

/* ---- Helpers --------------------------------------------------------------------------- */

static char *create_image(const char *text)
{
    g_autoptr(JsonObject) options = options_of("%s", text);
    char *path = test_path("test.qcow2");
    GError *err = NULL;
    bool ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);

    assert_ok(ok, err);
    return path;
}

static Image load_image(const char *path)
{
    Image image = { 0 };
    char *data = NULL;

    assert_true(g_file_get_contents(path, &data, &image.size, NULL));
    image.data = (uint8_t *)data;
    image.cluster_bits = qcow2_be32(image.data + 20);
    return image;
}

/* Open for writing with further options, ",key=value…". */
static BlockBackend *open_writable(const char *path, const char *more)
{
    return open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s%s", path, more),
                    BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
}

static void print_line(void *opaque, const char *line)
{
    print_message("%s\n", line);
}

static void assert_clean(const char *path)
{
    BlockBackend *blk = open_qcow2(path, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    BdrvCheckResult r;

    assert_int_equal(bdrv_check(blk_bs(blk), &r, print_line, NULL), 0);
    blk_unref(blk);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    assert_int_equal(r.leaks, 0);
}

static void create_snapshot(BlockBackend *blk, const char *name)
{
    BdrvSnapshotInfo info = { .name = name, .date_sec = 1600000000, .date_nsec = 7,
                              .vm_clock_nsec = 99, .icount = 3 };
    GError *err = NULL;
    bool ok = bdrv_snapshot_create(blk_bs(blk), &info, &err);

    assert_ok(ok, err);
}

static void apply_snapshot(BlockBackend *blk, size_t index)
{
    GError *err = NULL;
    bool ok = bdrv_snapshot_goto(blk_bs(blk), index, &err);

    assert_ok(ok, err);
}

static void delete_snapshot(BlockBackend *blk, size_t index)
{
    GError *err = NULL;
    bool ok = bdrv_snapshot_delete(blk_bs(blk), index, &err);

    assert_ok(ok, err);
}

static size_t count_snapshots(BlockBackend *blk)
{
    BdrvSnapshotInfo sn;
    size_t count = 0;

    while (bdrv_snapshot_get(blk_bs(blk), count, &sn)) {
        count++;
    }
    return count;
}

static void fill(BlockBackend *blk, int64_t offset, int64_t bytes, int value)
{
    g_autofree uint8_t *data = g_malloc(bytes);

    memset(data, value, bytes);
    assert_int_equal(blk_pwrite(blk, offset, bytes, data, 0), 0);
}

static void assert_filled(BlockBackend *blk, int64_t offset, int64_t bytes, int value)
{
    g_autofree uint8_t *data = g_malloc(bytes);

    memset(data, value, bytes);
    assert_reads(blk, offset, bytes, data);
}

/* ---- Every shape, against a model -------------------------------------------------------- */

typedef struct Disk {
    uint8_t *data;
    int64_t length;
} Disk;

typedef struct Model {
    const char *path;
    const char *open;
    BlockBackend *blk;
    GRand *rand;
    bool resizes;
    int64_t cluster;
    Disk disk;
    Disk snapshots[MAX_SNAPSHOTS];
    unsigned count;
} Model;

static Disk copy_disk(const Disk *disk)
{
    return (Disk){ g_memdup2(disk->data, disk->length), disk->length };
}

static int64_t below(Model *m, int64_t n)
{
    return g_rand_int_range(m->rand, 0, n);
}

static void model_write(Model *m)
{
    int64_t offset = below(m, m->disk.length / 512) * 512;
    int64_t bytes = (1 + below(m, 4 * m->cluster / 512)) * 512;

    bytes = MIN(bytes, m->disk.length - offset);
    memset(m->disk.data + offset, below(m, 255) + 1, bytes);
    assert_int_equal(blk_pwrite(m->blk, offset, bytes, m->disk.data + offset, 0), 0);
}

static void model_zero(Model *m)
{
    int64_t offset = below(m, m->disk.length / 512) * 512;
    int64_t bytes = (1 + below(m, 4 * m->cluster / 512)) * 512;
    int flags = below(m, 2) ? BDRV_REQ_MAY_UNMAP : 0;

    bytes = MIN(bytes, m->disk.length - offset);
    memset(m->disk.data + offset, 0, bytes);
    assert_int_equal(blk_pwrite_zeroes(m->blk, offset, bytes, flags), 0);
}

static void model_compress(Model *m)
{
    int64_t offset = below(m, m->disk.length / m->cluster) * m->cluster;

    memset(m->disk.data + offset, below(m, 255) + 1, m->cluster);
    assert_int_equal(blk_pwrite(m->blk, offset, m->cluster, m->disk.data + offset,
                                BDRV_REQ_COMPRESSED), 0);
}

static void model_resize(Model *m)
{
    int64_t length = (8 + below(m, 24)) * m->cluster;

    if (m->resizes) {
        m->disk.data = g_realloc(m->disk.data, length);
        if (length > m->disk.length) {
            memset(m->disk.data + m->disk.length, 0, length - m->disk.length);
        }
        m->disk.length = length;
        assert_int_equal(blk_truncate(m->blk, length, true, BLOCK_PREALLOC_OFF, NULL), 0);
    }
}

static void model_create(Model *m)
{
    if (m->count < MAX_SNAPSHOTS) {
        create_snapshot(m->blk, "a name");
        m->snapshots[m->count++] = copy_disk(&m->disk);
    }
}

static void model_apply(Model *m)
{
    if (m->count > 0) {
        unsigned i = below(m, m->count);

        apply_snapshot(m->blk, i);
        g_free(m->disk.data);
        m->disk = copy_disk(&m->snapshots[i]);
        assert_int_equal(blk_getlength(m->blk), m->disk.length);
    }
}

static void model_delete(Model *m)
{
    if (m->count > 0) {
        unsigned i = below(m, m->count);

        delete_snapshot(m->blk, i);
        g_free(m->snapshots[i].data);
        m->count--;
        memmove(&m->snapshots[i], &m->snapshots[i + 1], (m->count - i) * sizeof(Disk));
    }
}

static void model_close(Model *m)
{
    blk_unref(m->blk);
    assert_clean(m->path);
}

static void model_reopen(Model *m)
{
    model_close(m);
    m->blk = open_writable(m->path, m->open);
}

/* All snapshots, each through a node of its own; the length is the disk's. */
static void model_check_snapshots(Model *m)
{
    for (unsigned i = 0; i < m->count; i++) {
        BlockBackend *blk = open_qcow2(m->path, 0);
        int64_t bytes = MIN(m->disk.length, m->snapshots[i].length);
        BdrvSnapshotInfo sn;

        assert_true(bdrv_snapshot_get(blk_bs(blk), i, &sn));
        assert_int_equal(sn.disk_size, m->snapshots[i].length);
        assert_true(bdrv_snapshot_load_tmp(blk_bs(blk), sn.id, NULL, NULL));
        assert_reads(blk, 0, bytes, m->snapshots[i].data);
        blk_unref(blk);
    }
}

static void run_model(const char *create, const char *open, uint32_t seed, unsigned steps)
{
    static void (*const verbs[])(Model *m) = {
        model_write, model_write, model_write, model_write, model_zero, model_compress,
        model_create, model_create, model_apply, model_delete, model_resize, model_reopen,
    };
    g_autofree char *path = create_image(create);
    Model m = { .path = path, .open = open, .rand = g_rand_new_with_seed(seed),
                .resizes = !strstr(create, "0.10") };
    BlockDriverInfo info;

    m.blk = open_writable(path, open);
    assert_int_equal(bdrv_get_info(blk_bs(m.blk), &info), 0);
    m.cluster = info.cluster_size;
    m.disk = (Disk){ g_malloc0(blk_getlength(m.blk)), blk_getlength(m.blk) };
    for (unsigned i = 0; i < steps; i++) {
        verbs[below(&m, G_N_ELEMENTS(verbs))](&m);
        assert_reads(m.blk, 0, m.disk.length, m.disk.data);
    }
    model_close(&m);
    model_check_snapshots(&m);
    m.blk = open_writable(path, open);
    while (m.count > 0) {
        model_apply(&m);
        assert_reads(m.blk, 0, m.disk.length, m.disk.data);
        model_delete(&m);
    }
    model_close(&m);
    g_free(m.disk.data);
    g_rand_free(m.rand);
}

static void random_operations_in_every_shape_agree_with_a_model(void **state)
{
    static const char *const shapes[][2] = {
        { "size=96k,cluster_size=512", "" },
        { "size=96k,cluster_size=512,refcount_bits=64",
          ",l2-cache-size=1k,refcount-cache-size=2k" },
        { "size=256k,cluster_size=4k,refcount_bits=4", ",overlap-check=all" },
        { "size=256k,cluster_size=4k,lazy_refcounts=on", "" },
        { "size=96k,cluster_size=1k,compat=0.10", ",overlap-check=all" },
        { "size=512k,cluster_size=16k,extended_l2=on", ",overlap-check=all" },
        { "size=1M,cluster_size=64k,compression_type=zstd", "" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        run_model(shapes[i][0], shapes[i][1], i, repeats(60, 15));
    }
}

static void a_disk_of_length_0_has_snapshots(void **state)
{
    g_autofree char *path = create_image("size=0");
    BlockBackend *blk = open_writable(path, "");

    create_snapshot(blk, "empty");
    assert_int_equal(blk_truncate(blk, 128 * KiB, true, BLOCK_PREALLOC_OFF, NULL), 0);
    fill(blk, 0, 128 * KiB, 1);
    apply_snapshot(blk, 0);
    assert_int_equal(blk_getlength(blk), 0);
    delete_snapshot(blk, 0);
    blk_unref(blk);
    assert_clean(path);
}

/* ---- The table ------------------------------------------------------------------------- */

static void the_table_grows_over_clusters_and_shrinks(void **state)
{
    g_autofree char *path = create_image("size=64k,cluster_size=512");
    BlockBackend *blk = open_writable(path, "");
    g_autofree char *name = g_strnfill(200, 'n');
    BdrvSnapshotInfo sn;

    fill(blk, 0, 64 * KiB, 1);
    for (unsigned i = 0; i < 40; i++) {
        create_snapshot(blk, name);
        fill(blk, i * KiB, 512, i);
    }
    for (int i = 39; i > 0; i -= 2) {
        delete_snapshot(blk, i);
    }
    blk_unref(blk);
    assert_clean(path);
    blk = open_writable(path, "");
    assert_int_equal(count_snapshots(blk), 20);
    assert_true(bdrv_snapshot_get(blk_bs(blk), 19, &sn));
    assert_string_equal(sn.id, "39");
    apply_snapshot(blk, 19);
    assert_filled(blk, 37 * KiB, 512, 37);
    assert_filled(blk, 38 * KiB, 512, 1);
    for (unsigned i = 0; i < 20; i++) {
        delete_snapshot(blk, 0);
    }
    blk_unref(blk);
    assert_clean(path);
}

static void ids_count_up_and_names_are_cut_and_need_not_differ(void **state)
{
    g_autofree char *path = create_image("size=64k");
    g_autofree char *longest = g_strnfill(255, 'x'), *longer = g_strnfill(300, 'x');
    BlockBackend *blk = open_writable(path, "");
    BdrvSnapshotInfo sn;
    size_t index;

    create_snapshot(blk, "same");
    create_snapshot(blk, "same");
    delete_snapshot(blk, 0);
    create_snapshot(blk, longer);
    create_snapshot(blk, "");
    blk_unref(blk);
    blk = open_writable(path, "");
    assert_int_equal(count_snapshots(blk), 3);
    assert_true(bdrv_snapshot_find(blk_bs(blk), "3", NULL, &index));
    assert_true(bdrv_snapshot_get(blk_bs(blk), index, &sn));
    assert_string_equal(sn.name, longest);
    assert_int_equal(sn.date_sec, 1600000000);
    assert_int_equal(sn.date_nsec, 7);
    assert_int_equal(sn.vm_clock_nsec, 99);
    assert_int_equal(sn.icount, 3);
    assert_int_equal(sn.disk_size, 64 * KiB);
    assert_true(bdrv_snapshot_find(blk_bs(blk), NULL, "same", &index));
    assert_int_equal(index, 0);
    assert_true(bdrv_snapshot_find(blk_bs(blk), "4", "", &index));
    assert_false(bdrv_snapshot_find(blk_bs(blk), "1", NULL, &index));
    blk_unref(blk);
}

/* An entry as another program may have written it: more extra data, a VM state, long names. */
static void what_is_not_known_of_other_snapshots_stays(void **state)
{
    g_autofree char *path = create_image("size=64k,cluster_size=4k");
    BlockBackend *blk = open_writable(path, "");
    Image image;
    uint8_t entry[40 + 40 + 300 + 8] = { 0 };
    BdrvSnapshotInfo sn;

    create_snapshot(blk, "one");
    blk_unref(blk);
    image = load_image(path);
    memcpy(entry, image.data + snapshots_at(&image), 64);
    entry[13] = 4;           /* the ID's length */
    entry[14] = 1;           /* the name's: 296 */
    entry[15] = 40;
    entry[39] = 40;          /* extra data */
    entry[40 + 3] = 1;       /* VM state: 4 GiB */
    memset(entry + 64, 0xab, 16);
    memset(entry + 80, 'i', 4);
    memset(entry + 84, 'n', 296);
    memcpy(image.data + snapshots_at(&image), entry, 384);
    g_free(path);
    path = store_image(&image);

    blk = open_writable(path, "");
    create_snapshot(blk, "two");
    create_snapshot(blk, "three");
    delete_snapshot(blk, 1);
    assert_true(bdrv_snapshot_get(blk_bs(blk), 0, &sn));
    assert_int_equal(sn.vm_state_size, 1ULL << 32);
    blk_unref(blk);
    image = load_image(path);
    assert_memory_equal(image.data + snapshots_at(&image), entry, 384);
    g_free(image.data);
    assert_clean(path);
}

/* ---- Shared places are not written to ---------------------------------------------------- */

static void what_was_writable_in_place_is_not_after_a_snapshot(void **state)
{
    g_autofree char *path = create_image("size=1M,cluster_size=64k");
    BlockBackend *blk = open_writable(path, "");

    fill(blk, 0, 128 * KiB, 1);
    fill(blk, 0, 512, 2); /* in place: the mapping is remembered */
    create_snapshot(blk, "s");
    fill(blk, 0, 512, 3);
    assert_filled(blk, 512, 127 * KiB, 1);
    apply_snapshot(blk, 0);
    assert_filled(blk, 0, 512, 2);
    fill(blk, 512, 512, 4);
    apply_snapshot(blk, 0);
    assert_filled(blk, 512, 512, 1);
    delete_snapshot(blk, 0);
    fill(blk, 0, 512, 5);
    assert_filled(blk, 0, 512, 5);
    blk_unref(blk);
    assert_clean(path);
}

/* QEMU leaves "copied" in tables that only a snapshot has. */
static void copied_in_a_snapshots_tables_does_not_become_active(void **state)
{
    g_autofree char *path = create_image("size=1M,cluster_size=64k");
    BlockBackend *blk = open_writable(path, "");
    Image image;
    uint64_t l1, l2;

    fill(blk, 0, 64 * KiB, 1);
    create_snapshot(blk, "s");
    fill(blk, 0, 64 * KiB, 2);
    blk_unref(blk);
    image = load_image(path);
    l1 = get64(&image, snapshots_at(&image));
    put64(&image, l1, get64(&image, l1) | QCOW2_COPIED);
    l2 = get64(&image, l1) & QCOW2_OFFSET_MASK;
    put64(&image, l2, get64(&image, l2) | QCOW2_COPIED);
    g_free(path);
    path = store_image(&image);

    blk = open_writable(path, ",overlap-check=all");
    apply_snapshot(blk, 0);
    blk_unref(blk);
    assert_clean(path);
    blk = open_writable(path, "");
    fill(blk, 0, 512, 3);
    apply_snapshot(blk, 0);
    assert_filled(blk, 0, 64 * KiB, 1);
    blk_unref(blk);
    assert_clean(path);
}

/* ---- What is refused ---------------------------------------------------------------------- */

static void assert_create_fails(BlockBackend *blk, const char *part)
{
    BdrvSnapshotInfo info = { .name = "s" };
    GError *err = NULL;

    assert_false(bdrv_snapshot_create(blk_bs(blk), &info, &err));
    assert_error_has(&err, part);
}

static void refcounts_without_room_refuse_and_lose_nothing(void **state)
{
    static const char *const shapes[] = { "refcount_bits=1", "refcount_bits=2" };

    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *options = g_strdup_printf("size=1M,cluster_size=4k,%s", shapes[i]);
        g_autofree char *path = create_image(options);
        BlockBackend *blk = open_writable(path, "");

        fill(blk, 0, 512 * KiB, 1);
        for (unsigned j = 0; j < 2 * i; j++) {
            create_snapshot(blk, "s");
        }
        assert_create_fails(blk, "refcount_bits");
        assert_int_equal(count_snapshots(blk), 2 * i);
        fill(blk, 4 * KiB, 8 * KiB, 2);
        blk_unref(blk);
        assert_clean(path);
        blk = open_writable(path, "");
        assert_filled(blk, 4 * KiB, 8 * KiB, 2);
        if (i > 0) {
            GError *err = NULL;

            assert_false(bdrv_snapshot_goto(blk_bs(blk), 0, &err));
            assert_error_has(&err, "refcount_bits");
            delete_snapshot(blk, 0);
            apply_snapshot(blk, 0);
            assert_filled(blk, 0, 512 * KiB, 1);
        }
        blk_unref(blk);
        assert_clean(path);
    }
}

static void what_cannot_be_is_refused(void **state)
{
    g_autofree char *path = create_image("size=64k"), *raw = make_file("test.raw", NULL, 65536);
    BdrvSnapshotInfo info = { .name = "s", .vm_state_size = 1 };
    BlockBackend *blk = open_writable(path, "");
    GError *err = NULL;

    assert_false(bdrv_snapshot_create(blk_bs(blk), &info, &err));
    assert_error_has(&err, "VM state");
    assert_false(bdrv_snapshot_goto(blk_bs(blk), 0, &err));
    assert_error_has(&err, "no snapshot number 0");
    assert_false(bdrv_snapshot_delete(blk_bs(blk), 0, &err));
    assert_error_has(&err, "no snapshot number 0");
    blk_unref(blk);
    blk = open_qcow2(path, 0);
    assert_create_fails(blk, "read-only");
    blk_unref(blk);
    blk = open_blk(options_of("driver=raw,file.driver=file,file.filename=%s", raw), BDRV_O_RDWR);
    assert_create_fails(blk, "does not support snapshots");
    blk_unref(blk);
}

static void an_image_with_a_data_file_refuses(void **state)
{
    g_autofree char *data = test_path("test.data");
    g_autofree char *options = g_strdup_printf("size=64k,data_file=%s", data);
    g_autofree char *path = create_image(options);
    BlockBackend *blk = open_writable(path, "");

    assert_create_fails(blk, "external data file");
    blk_unref(blk);
    assert_clean(path);
}

static void a_parent_that_does_not_allow_it_keeps_the_length(void **state)
{
    g_autofree char *path = create_image("size=64k");
    BlockBackend *blk = open_writable(path, ""), *other;
    GError *err = NULL;

    create_snapshot(blk, "s");
    assert_int_equal(blk_truncate(blk, 128 * KiB, true, BLOCK_PREALLOC_OFF, NULL), 0);
    create_snapshot(blk, "t");
    assert_true(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, NULL));
    other = blk_new("other", BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL & ~BLK_PERM_RESIZE, NULL);
    assert_true(blk_insert_bs(other, blk_bs(blk), NULL));
    assert_false(bdrv_snapshot_goto(blk_bs(blk), 0, &err));
    assert_error_has(&err, "other");
    assert_int_equal(blk_getlength(blk), 128 * KiB);
    apply_snapshot(blk, 1);
    blk_unref(other);
    apply_snapshot(blk, 0);
    assert_int_equal(blk_getlength(blk), 64 * KiB);
    blk_unref(blk);
}

/* ---- Errors ------------------------------------------------------------------------------- */

typedef enum Change {
    CREATE,
    APPLY,
    DELETE,
    CHANGES,
} Change;

typedef struct Trial {
    Change change;
    int n;
    bool once;
    FaultManner manner;
} Trial;

/* What the disk has in its first 16 KiB, at the snapshot and now. */
#define THEN 1
#define NOW 2
#define LENGTH (64 * KiB)

static BlockDriverState *memory_node(const char *name, const void *data, int64_t size)
{
    g_autofree char *text = g_strdup_printf("driver=memory,size=%" PRId64 ",node-name=%s", size,
                                            name);
    BlockDriverState *bs = open_node_with(text, BDRV_O_RDWR);
    BlockBackend *blk = blk_new(NULL, BLK_PERM_WRITE, BLK_PERM_ALL, NULL);

    assert_true(blk_insert_bs(blk, bs, NULL));
    assert_int_equal(blk_pwrite(blk, 0, size, data, 0), 0);
    blk_unref(blk);
    return bs;
}

static BlockBackend *open_disk(const char *file, int flags)
{
    return open_blk(options_of("driver=qcow2,%s", file), flags);
}

/* Nothing but leaks, once it was opened for writing. */
static void assert_whole(const char *file)
{
    BlockBackend *blk = open_disk(file, BDRV_O_RDWR);
    BdrvCheckResult r;

    assert_int_equal(bdrv_check(blk_bs(blk), &r, NULL, NULL), 0);
    blk_unref(blk);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
}

/* The same of what is on the disk now, while the node is still open. */
static void assert_copy_whole(BlockDriverState *disk)
{
    int64_t size = bdrv_getlength(disk);
    g_autofree uint8_t *data = g_malloc(size);
    BlockBackend *blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL);
    BlockDriverState *copy;

    assert_true(blk_insert_bs(blk, disk, NULL));
    assert_int_equal(blk_pread(blk, 0, size, data, 0), 0);
    blk_unref(blk);
    copy = memory_node("copy", data, size);
    assert_whole("file=copy");
    bdrv_unref(copy);
}

static bool run_change(BlockBackend *blk, Change change)
{
    BdrvSnapshotInfo info = { .name = "second" };

    return change == CREATE  ? bdrv_snapshot_create(blk_bs(blk), &info, NULL)
           : change == APPLY ? bdrv_snapshot_goto(blk_bs(blk), 0, NULL)
                             : bdrv_snapshot_delete(blk_bs(blk), 0, NULL);
}

/* Whether the change has happened; half of it is an error. */
static bool has_happened(BlockBackend *blk, Change change)
{
    static const size_t counts[] = { [CREATE] = 2, [APPLY] = 1, [DELETE] = 0 };
    size_t count = count_snapshots(blk);
    uint8_t first;

    assert_int_equal(blk_pread(blk, 0, 1, &first, 0), 0);
    assert_true(first == NOW || (change == APPLY && first == THEN));
    assert_filled(blk, 0, 16 * KiB, first);
    assert_true(count == 1 || count == counts[change]);
    return change == APPLY ? first == THEN : count != 1;
}

/* False: there are not as many requests. */
static bool run_trial(const Image *image, const Trial *t)
{
    BlockDriverState *disk = memory_node("disk", image->data, image->size);
    BlockBackend *blk = open_disk("file.driver=fault,file.image=disk", BDRV_O_RDWR | BDRV_O_UNMAP);
    bool ok, hit;

    fault_arm(t->n, -EIO, t->once, t->manner);
    ok = run_change(blk, t->change);
    hit = fault.hit;
    assert_copy_whole(disk);
    fault_disarm();
    assert_true(ok ? has_happened(blk, t->change) : hit);
    if (!has_happened(blk, t->change)) {
        assert_true(run_change(blk, t->change));
        assert_true(has_happened(blk, t->change));
    }
    fill(blk, 16 * KiB, 4 * KiB, 3);
    blk_unref(blk);
    assert_whole("file=disk");
    blk = open_disk("file=disk", BDRV_O_RDWR);
    assert_true(has_happened(blk, t->change));
    assert_filled(blk, 16 * KiB, 4 * KiB, 3);
    fill(blk, 0, 16 * KiB, 4);
    if (t->change != DELETE) {
        apply_snapshot(blk, 0);
        assert_filled(blk, 0, 16 * KiB, THEN);
    }
    if (t->change == CREATE) {
        apply_snapshot(blk, 1);
        assert_filled(blk, 0, 16 * KiB, NOW);
    }
    blk_unref(blk);
    assert_whole("file=disk");
    bdrv_unref(disk);
    return hit;
}

static Image errors_image(const char *options)
{
    g_autofree char *path = create_image(options);
    BlockBackend *blk = open_writable(path, "");

    fill(blk, 0, LENGTH, THEN);
    create_snapshot(blk, "first");
    fill(blk, 0, 16 * KiB, NOW);
    blk_unref(blk);
    return load_image(path);
}

static void each_request_may_fail_and_it_works_again(void **state)
{
    static const char *const shapes[] = {
        "size=64k,cluster_size=512,refcount_bits=64",
        "size=64k,cluster_size=4k",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Image image = errors_image(shapes[i]);
        unsigned requests = 0, stride = repeats(1, 3);

        for (Trial t = { 0 }; t.change < CHANGES; t.change++) {
            for (t.n = 0; true; t.n += stride) {
                bool hit = false;

                for (t.manner = 0; t.manner <= FAULT_ALL_DONE; t.manner++) {
                    t.once = false;
                    hit |= run_trial(&image, &t);
                    t.once = true;
                    hit |= run_trial(&image, &t);
                }
                if (!hit) {
                    break;
                }
                requests++;
            }
        }
        assert_true(requests * stride > 40);
        g_free(image.data);
    }
}

/* ---- Requests of callbacks meanwhile ------------------------------------------------------- */

#define WRITES 64

/* Writes a cluster in each turn of the event loop. */
typedef struct Intruder {
    BlockBackend *blk;
    int64_t at;
    bool stop;
    bool pending;
} Intruder;

static void intrude(void *opaque)
{
    Intruder *in = opaque;

    in->pending = !in->stop && in->at < WRITES * 512 * KiB;
    if (in->pending) {
        fill(in->blk, in->at, 64 * KiB, 2);
        in->at += 512 * KiB;
        aio_bh_oneshot(aio_context_main(), intrude, in);
    }
}

/* The main thread polls while it works on the image, and its callbacks may write. */
static void a_callback_that_writes_waits_for_the_end(void **state)
{
    g_autofree char *path = create_image("size=32M");
    BlockBackend *blk = open_writable(path, "");
    Intruder in = {blk};

    fill(blk, 64 * KiB, 64 * KiB, 1);
    in.pending = true;
    aio_bh_oneshot(aio_context_main(), intrude, &in);
    create_snapshot(blk, "a");
    create_snapshot(blk, "b");
    delete_snapshot(blk, 0);
    in.stop = true;
    AIO_WAIT_WHILE(in.pending);
    assert_true(in.at > 0);
    for (int64_t at = 0; at < in.at; at += 512 * KiB) {
        assert_filled(blk, at, 64 * KiB, 2);
    }
    apply_snapshot(blk, 0);
    assert_filled(blk, 64 * KiB, 64 * KiB, 1);
    blk_unref(blk);
    assert_clean(path);
}

/* ---- Main --------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    return driver_group_setup(state) == 0 && bdrv_register(&fault_driver, NULL) ? 0 : -1;
}

/* With an argument: the tests that match it. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_in_every_shape_agree_with_a_model),
        cmocka_unit_test(a_disk_of_length_0_has_snapshots),
        cmocka_unit_test(the_table_grows_over_clusters_and_shrinks),
        cmocka_unit_test(ids_count_up_and_names_are_cut_and_need_not_differ),
        cmocka_unit_test(what_is_not_known_of_other_snapshots_stays),
        cmocka_unit_test(what_was_writable_in_place_is_not_after_a_snapshot),
        cmocka_unit_test(copied_in_a_snapshots_tables_does_not_become_active),
        cmocka_unit_test(refcounts_without_room_refuse_and_lose_nothing),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(an_image_with_a_data_file_refuses),
        cmocka_unit_test(a_parent_that_does_not_allow_it_keeps_the_length),
        cmocka_unit_test(a_callback_that_writes_waits_for_the_end),
        cmocka_unit_test(each_request_may_fail_and_it_works_again),
    };

    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return cmocka_run_group_tests(tests, set_up, driver_group_teardown);
}
