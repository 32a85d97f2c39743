/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: each request to the file fails in turn, in every operation: once or for good,
 * with nothing, half or all of it done. The operation returns that error, or works in spite
 * of it. Then: what was there before is there, what was written is old or new, the image
 * is whole but for leaks; and when the fault is gone, it works.
 */
#include "qcow2-testing.h"
#include "fault-node.h"
#include "repeats.h"

#include <inttypes.h>

#define KiB 1024LL
#define MiB (1024 * KiB)

/* ---- What is done ----------------------------------------------------------------------- */

typedef enum Verb {
    END,
    WRITE,
    COMPRESS,
    ZERO,
    UNMAP,
    DISCARD,
    FLUSH,
    TRUNCATE, /* to @bytes */
    SNAPSHOT,
    GOTO,   /* the last snapshot */
    DELETE, /* the last snapshot, if there is one */
} Verb;

typedef struct Step {
    Verb verb;
    int64_t offset;
    int64_t bytes;
} Step;

#define MAX_STEPS 6
#define MAX_SIZE (2049 * KiB) /* of a disk */

typedef struct Scenario {
    const char *name;
    const char *create; /* options; a fixture's name, if it begins with '@' */
    const char *open;   /* further options */
    int64_t size;
    int64_t cluster;
    int64_t other; /* no operation comes near this; 0: the disk's end */
    bool backing;
    bool data_file;
    bool shared; /* what prepare has made */
    bool large; /* takes long: fewer combinations */
    bool undoes; /* what others have written since */
    bool copied_may_lack; /* in entries: harmless, and shown by a check as an error */
    bool discards_in_use; /* what is discarded below is still referred to until a flush */
    Step prepare[MAX_STEPS]; /* before the image is opened for the operation */
    Step before[MAX_STEPS];  /* after that */
    Step op[MAX_STEPS];
} Scenario;

/* What @step writes; NULL if that is no data. */
static uint8_t *bytes_of(const Step *step)
{
    bool writes = step->verb == WRITE || step->verb == COMPRESS;
    uint8_t *buf = writes ? pattern(step->bytes, step->offset + step->bytes) : NULL;

    if (step->verb == COMPRESS) {
        for (int64_t i = 0; i < step->bytes; i++) {
            buf[i] &= 1;
        }
    }
    return buf;
}

static int run_on_snapshots(BlockDriverState *bs, Verb verb)
{
    g_autoptr(GError) err = NULL;
    BdrvSnapshotInfo info;
    size_t count = 0;
    bool ok;

    while (bdrv_snapshot_get(bs, count, &info)) {
        count++;
    }
    if (verb == SNAPSHOT) {
        ok = bdrv_snapshot_create(bs, &(BdrvSnapshotInfo){.name = "kept"}, &err);
    } else if (verb == GOTO) {
        ok = bdrv_snapshot_goto(bs, count - 1, &err);
    } else {
        ok = count == 0 || bdrv_snapshot_delete(bs, count - 1, &err);
    }
    return ok ? 0 : block_error_to_errno(err);
}

static int run_step(BlockBackend *blk, const Step *step)
{
    g_autofree uint8_t *buf = bytes_of(step);

    switch (step->verb) {
    case WRITE:
        return blk_pwrite(blk, step->offset, step->bytes, buf, 0);
    case COMPRESS:
        return blk_pwrite(blk, step->offset, step->bytes, buf, BDRV_REQ_COMPRESSED);
    case ZERO:
        return blk_pwrite_zeroes(blk, step->offset, step->bytes, 0);
    case UNMAP:
        return blk_pwrite_zeroes(blk, step->offset, step->bytes, BDRV_REQ_MAY_UNMAP);
    case DISCARD:
        return blk_pdiscard(blk, step->offset, step->bytes);
    case TRUNCATE:
        return blk_truncate(blk, step->bytes, true, BLOCK_PREALLOC_OFF, NULL);
    case FLUSH:
        return blk_flush(blk);
    default:
        return run_on_snapshots(blk_bs(blk), step->verb);
    }
}

/* Up to the first error; *@done steps were done. */
static int run_steps(BlockBackend *blk, const Step *steps, int *done)
{
    int ret = 0;

    for (*done = 0; *done < MAX_STEPS && steps[*done].verb != END; ++*done) {
        ret = run_step(blk, &steps[*done]);
        if (ret < 0) {
            break;
        }
    }
    return ret;
}

static void must_run_steps(BlockBackend *blk, const Step *steps)
{
    int done;

    assert_int_equal(run_steps(blk, steps, &done), 0);
}

static void apply_step(const Scenario *sc, const Step *step, uint8_t *model)
{
    g_autofree uint8_t *buf = bytes_of(step);

    if (buf) {
        memcpy(model + step->offset, buf, step->bytes);
    } else if (step->verb < FLUSH) {
        assert_true(step->verb != DISCARD || (step->offset | step->bytes) % sc->cluster == 0);
        memset(model + step->offset, 0, step->bytes);
    }
}

/* ---- Images in memory ------------------------------------------------------------------- */

typedef struct Bytes {
    char *data;
    gsize size;
} Bytes;

/* An image as it is before the operation, and what is in it. */
typedef struct Bed {
    const Scenario *sc;
    Bytes image, data; /* the file, the data file */
    /* What a guest may see: as it was opened, then after each step of all. */
    uint8_t *states[2 * MAX_STEPS + 1]; /* MAX_SIZE each, zeros beyond the end */
    int64_t lengths[2 * MAX_STEPS + 1];
    int before, count; /* states before the operation; all */
    int kept;          /* the state that a snapshot has */
    BlockDriverState *base; /* or NULL */
} Bed;

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

static Bytes bytes_in(BlockDriverState *bs)
{
    Bytes bytes = {.size = bdrv_getlength(bs)};
    BlockBackend *blk = blk_new(NULL, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, NULL);

    bytes.data = g_malloc(bytes.size);
    assert_true(blk_insert_bs(blk, bs, NULL));
    assert_int_equal(blk_pread(blk, 0, bytes.size, bytes.data, 0), 0);
    blk_unref(blk);
    return bytes;
}

/* The image on nodes named @file and "data". */
static BlockBackend *open_on(const Bed *bed, const char *file, const char *fault_driver_part,
                             int flags)
{
    const Scenario *sc = bed->sc;
    g_autofree char *data = g_strdup_printf(
        *fault_driver_part ? ",data-file.driver=fault,data-file.image=%s-data"
                           : ",data-file=%s-data", file);
    g_autofree char *part = g_strdup_printf(
        *fault_driver_part ? "file.driver=fault,file.image=%s" : "file=%s", file);
    const char *backing = *fault_driver_part ? ",backing.driver=fault,backing.image=base"
                                             : ",backing=base";

    return open_blk(options_of("driver=qcow2,%s%s%s%s", part, sc->data_file ? data : "",
                               sc->backing && !(flags & BDRV_O_NO_BACKING) ? backing : "",
                               sc->open ? sc->open : ""),
                    flags | BDRV_O_UNMAP | (flags & BDRV_O_RDWR ? BDRV_O_RESIZE : 0));
}

#define FAULTY "fault"
#define GOOD ""

typedef struct Lines {
    const Scenario *sc;
    int lacking; /* entries without "copied" */
} Lines;

static void see_line(void *opaque, const char *line)
{
    Lines *lines = opaque;

    lines->lacking += lines->sc->copied_may_lack && strstr(line, "OFLAG_COPIED") &&
                      g_str_has_suffix(line, "refcount=1");
    if (!strstr(line, "Leaked")) {
        print_message("%s: %s\n", lines->sc->name, line);
    }
}

/* Nothing but leaks in the image on @file. What was not closed well is repaired by opening. */
static void assert_whole(const Bed *bed, const char *file)
{
    BlockBackend *blk = open_on(bed, file, GOOD, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    Lines lines = {bed->sc, 0};
    BlockDriverInfo info;
    BdrvCheckResult r;

    assert_int_equal(bdrv_get_info(blk_bs(blk), &info), 0);
    if (info.is_dirty) {
        blk_unref(blk);
        blk_unref(open_on(bed, file, GOOD, BDRV_O_RDWR | BDRV_O_NO_BACKING));
        blk = open_on(bed, file, GOOD, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    }
    assert_int_equal(bdrv_check(blk_bs(blk), &r, see_line, &lines), 0);
    assert_int_equal(r.corruptions, lines.lacking);
    assert_int_equal(r.check_errors, 0);
    blk_unref(blk);
}

static bool in_a_state(const Bed *bed, const uint8_t *seen, int64_t offset, int64_t bytes,
                       int first, int last)
{
    for (int k = first; k <= last; k++) {
        if (memcmp(seen + offset, bed->states[k] + offset, bytes) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether all that is in one state is @seen, or each byte in one of them. */
static void assert_states(const Bed *bed, const uint8_t *seen, int64_t length, int first, int last)
{
    bool right_length = false;

    for (int k = first; k <= last; k++) {
        right_length |= length == bed->lengths[k];
        if (length == bed->lengths[k] && memcmp(seen, bed->states[k], length) == 0) {
            return;
        }
    }
    assert_true(right_length);
    for (int64_t i = 0; i < length; i++) {
        while (i % KiB == 0 && i < length &&
               in_a_state(bed, seen, i, MIN(KiB, length - i), first, last)) {
            i += KiB;
        }
        if (i < length && !in_a_state(bed, seen, i, 1, first, last)) {
            fail_msg("%s: byte %" PRId64 " is %d, not as it was nor as written", bed->sc->name, i,
                     seen[i]);
        }
    }
}

/* The disk is as states @first to @last say; with @other, where no operation is. */
static void assert_one_of(const Bed *bed, BlockBackend *blk, int first, int last,
                          const Step *other)
{
    int64_t length = blk_getlength(blk);
    g_autofree uint8_t *seen = g_malloc(length);

    assert_int_equal(blk_pread(blk, 0, length, seen, 0), 0);
    if (other) {
        g_autofree uint8_t *written = bytes_of(other);

        assert_memory_equal(seen + other->offset, written, other->bytes);
        memcpy(seen + other->offset, bed->states[0] + other->offset, other->bytes);
    }
    assert_states(bed, seen, length, first, last);
}

/* ---- A bed: made once for a scenario ---------------------------------------------------- */

static char *create_image(const Scenario *sc, const char *data_path)
{
    char *path = test_path("bed.qcow2");
    g_autoptr(JsonObject) options = options_of("size=%" PRId64 ",%s%s%s", sc->size, sc->create,
                                               sc->data_file ? ",data_file=" : "",
                                               sc->data_file ? data_path : "");
    GError *err = NULL;
    bool ok;

    g_remove(path);
    g_remove(data_path);
    ok = bdrv_create(bdrv_find_format("qcow2"), path, options, &err);
    assert_ok(ok, err);
    return path;
}

static void add_states(Bed *bed, const Step *steps)
{
    for (int i = 0; i < MAX_STEPS && steps[i].verb != END; i++) {
        int n = bed->count++, from = steps[i].verb == GOTO ? bed->kept : n - 1;

        bed->states[n] = g_memdup2(bed->states[from], MAX_SIZE);
        bed->lengths[n] = bed->lengths[from];
        if (steps[i].verb == SNAPSHOT) {
            bed->kept = n;
        } else if (steps[i].verb == TRUNCATE) {
            bed->lengths[n] = steps[i].bytes;
            memset(bed->states[n] + steps[i].bytes, 0, MAX_SIZE - steps[i].bytes);
        }
        apply_step(bed->sc, &steps[i], bed->states[n]);
    }
}

static void bed_init(Bed *bed, const Scenario *sc)
{
    g_autofree char *data_path = test_path("bed.raw"), *path = NULL;
    g_autofree uint8_t *below = pattern(sc->size, 99);
    BlockBackend *blk;

    *bed = (Bed){.sc = sc, .before = 1, .count = 1};
    if (sc->create[0] == '@') {
        Image image = load_fixture(sc->create + 1);

        path = store_image(&image);
    } else {
        path = create_image(sc, data_path);
    }
    if (sc->backing) {
        bed->base = memory_node("base", below, sc->size);
    }
    blk = open_blk(options_of("driver=qcow2,file.driver=file,file.filename=%s%s", path,
                              sc->backing ? ",backing=base" : ""),
                   BDRV_O_RDWR | BDRV_O_NO_FLUSH | BDRV_O_UNMAP);
    assert_int_equal(blk_getlength(blk), sc->size);
    must_run_steps(blk, sc->prepare);
    bed->states[0] = g_malloc0(MAX_SIZE);
    bed->lengths[0] = sc->size;
    assert_int_equal(blk_pread(blk, 0, sc->size, bed->states[0], 0), 0);
    blk_unref(blk);
    assert_true(g_file_get_contents(path, &bed->image.data, &bed->image.size, NULL));
    if (sc->shared) {
        share_clusters(&(Image){(uint8_t *)bed->image.data, bed->image.size,
                                bed->image.data[23]});
    }
    if (sc->data_file) {
        assert_true(g_file_get_contents(data_path, &bed->data.data, &bed->data.size, NULL));
    }
    add_states(bed, sc->before);
    bed->before = bed->count;
    add_states(bed, sc->op);
}

static void bed_clear(Bed *bed)
{
    if (bed->base) {
        bdrv_unref(bed->base);
    }
    g_free(bed->image.data);
    g_free(bed->data.data);
    for (int i = 0; i < bed->count; i++) {
        g_free(bed->states[i]);
    }
}

/* ---- One fault -------------------------------------------------------------------------- */

typedef enum Ending {
    TRY_AGAIN, /* the fault goes away */
    CLOSE_BROKEN, /* the image is closed while it is there */
    ENDINGS,
} Ending;

typedef struct Trial {
    int n;
    int error;
    bool once;
    FaultManner manner;
    Ending ending;
} Trial;

/* What the file is like at this moment leads nowhere wrong. */
static void assert_copy_whole(const Bed *bed, BlockDriverState *disk)
{
    Bytes bytes = bytes_in(disk), data = {0};
    BlockDriverState *copy = memory_node("copy", bytes.data, bytes.size), *data_copy = NULL;

    if (bed->sc->data_file) {
        data = bytes_in(bdrv_find_node("disk-data"));
        data_copy = memory_node("copy-data", data.data, data.size);
    }
    assert_whole(bed, "copy");
    bdrv_unref(copy);
    if (data_copy) {
        bdrv_unref(data_copy);
    }
    g_free(bytes.data);
    g_free(data.data);
}

/* In a cluster that no operation touches. */
static Step other_write(const Bed *bed)
{
    return (Step){WRITE, (bed->sc->other ? bed->sc->other : bed->sc->size) - 3 * KiB, 1 * KiB};
}

/*
 * The fault is gone, after step @done of the operation had been done. A new cluster is
 * nobody else's; then the operation works.
 */
static void try_again(const Bed *bed, BlockDriverState *disk, BlockBackend *blk, int done)
{
    const Step other = other_write(bed);
    int last = bed->count - 1, first = bed->before + done - 1;

    assert_one_of(bed, blk, first, MIN(first + 1, last), NULL);
    assert_int_equal(run_step(blk, &other), 0);
    assert_one_of(bed, blk, first, MIN(first + 1, last), &other);
    assert_copy_whole(bed, disk);
    must_run_steps(blk, bed->sc->op);
    assert_one_of(bed, blk, last, last, bed->sc->undoes ? NULL : &other);
    assert_int_equal(blk_flush(blk), 0);
}

/* After it was closed and opened again. */
static void check_again(const Bed *bed, const Trial *t, int done)
{
    const Step other = other_write(bed);
    int last = bed->count - 1;
    BlockBackend *blk;

    assert_whole(bed, "disk");
    blk = open_on(bed, "disk", GOOD, 0);
    if (t->ending == TRY_AGAIN) {
        assert_one_of(bed, blk, last, last, bed->sc->undoes ? NULL : &other);
    } else {
        assert_one_of(bed, blk, 0, MIN(bed->before + done, last), NULL);
    }
    blk_unref(blk);
}

static bool tell; /* of each trial */

/* False: the operation does not have as many requests. */
static bool run_trial(const Bed *bed, const Trial *t)
{
    const Scenario *sc = bed->sc;
    BlockDriverState *disk = memory_node("disk", bed->image.data, bed->image.size), *data = NULL;
    BlockBackend *blk;
    int ret, done;
    bool hit;

    if (sc->data_file) {
        data = memory_node("disk-data", bed->data.data, bed->data.size);
    }
    blk = open_on(bed, "disk", FAULTY, BDRV_O_RDWR);
    must_run_steps(blk, sc->before);
    fault_discarded = sc->discards_in_use ? 0 : 0xdd;
    fault_arm(t->n, t->error, t->once, t->manner);
    ret = run_steps(blk, sc->op, &done);
    hit = fault.hit;
    if (tell) {
        print_message("request %d (type %d): error %d, once %d, manner %d, ending %d: %d\n", t->n,
                      hit ? (int)fault.type : -1, t->error, t->once, t->manner, t->ending, ret);
    }
    if (ret != (hit && ret < 0 ? t->error : 0)) {
        fail_msg("%s: request %d fails with %d, the operation with %d", sc->name, t->n, t->error,
                 ret);
    }
    assert_copy_whole(bed, disk);
    if (t->ending == TRY_AGAIN) {
        fault_disarm();
        try_again(bed, disk, blk, done);
    }
    blk_unref(blk);
    fault_disarm();
    check_again(bed, t, done);
    bdrv_unref(disk);
    if (data) {
        bdrv_unref(data);
    }
    return hit;
}

/* Each request in turn, until there is none left; each with both errors. */
static void sweep(void **state)
{
    static const Trial kinds[] = {
        {.once = true, .ending = TRY_AGAIN},
        {.once = false, .ending = TRY_AGAIN},
        {.once = false, .ending = CLOSE_BROKEN},
    };
    static const int errors[] = {-EIO, -ENOSPC};
    const Scenario *sc = *state;
    Bed bed;

    bed_init(&bed, sc);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds) * 3; i += sc->large ? 4 : repeats(1, 4)) {
        Trial t = kinds[i % G_N_ELEMENTS(kinds)];

        t.manner = i / G_N_ELEMENTS(kinds);
        do {
            t.error = errors[(t.n + i) % G_N_ELEMENTS(errors)];
        } while (run_trial(&bed, &t) && (t.n += repeats(1, 3)));
        assert_true(t.n > 0);
    }
    bed_clear(&bed);
}

/* ---- Operations ------------------------------------------------------------------------- */

#define SIZE (256 * KiB)
#define K4 "cluster_size=4k"

static const Scenario scenarios[] = {
    {"first write", K4, NULL, SIZE, 4 * KiB, .op = {{WRITE, 5000, 10000}}},
    {"first write, flushed", K4, NULL, SIZE, 4 * KiB, .op = {{WRITE, 5000, 10000}, {FLUSH}}},
    {"write in place", K4, NULL, SIZE, 4 * KiB, .prepare = {{WRITE, 0, 20000}},
     .op = {{WRITE, 5000, 10000}, {FLUSH}}},
    {"part of a cluster above a backing file", K4, NULL, SIZE, 4 * KiB, .backing = true,
     .op = {{WRITE, 5000, 100}, {WRITE, 20000, 9000}, {FLUSH}}},
    {"clusters of snapshots", "@snapshots.qcow2", NULL, 48 * KiB, 1 * KiB,
     .op = {{WRITE, 100, 3000}, {WRITE, 20 * KiB, 600}, {FLUSH}}},
    {"copy of shared clusters and of their L2 table", K4, NULL, SIZE, 4 * KiB, .shared = true,
     .prepare = {{WRITE, 0, 40 * KiB}}, .op = {{WRITE, 5000, 10000}, {FLUSH}}},
    {"new clusters in a shared L2 table", K4, NULL, SIZE, 4 * KiB, .shared = true,
     .backing = true, .prepare = {{WRITE, 0, 8 * KiB}},
     .op = {{WRITE, 50000, 100}, {COMPRESS, 60 * KiB, 4 * KiB}, {FLUSH}}},
    {"discard of shared clusters", K4, ",pass-discard-other=on", SIZE, 4 * KiB, .shared = true,
     .prepare = {{WRITE, 0, 40 * KiB}},
     .op = {{DISCARD, 0, 8 * KiB}, {FLUSH}, {UNMAP, 10 * KiB, 9 * KiB}, {WRITE, 1000, 2000},
            {FLUSH}}},
    {"write to zero clusters", K4, NULL, SIZE, 4 * KiB,
     .prepare = {{WRITE, 0, 20 * KiB}, {ZERO, 0, 16 * KiB}, {UNMAP, 8 * KiB, 16 * KiB}},
     .op = {{WRITE, 5000, 10000}, {FLUSH}}},
    {"subclusters", "cluster_size=16k,extended_l2=on", NULL, SIZE, 16 * KiB, .backing = true,
     .prepare = {{WRITE, 20000, 1000}, {ZERO, 32 * KiB, 4 * KiB}},
     .op = {{WRITE, 18000, 700}, {ZERO, 33 * KiB, 1 * KiB}, {WRITE, 31 * KiB, 3 * KiB},
            {WRITE, 100 * KiB, 900}, {FLUSH}}},
    {"compressed writes", K4, NULL, SIZE, 4 * KiB, .prepare = {{WRITE, 0, 8 * KiB}},
     .op = {{COMPRESS, 4 * KiB, 16 * KiB}, {FLUSH}}},
    {"write over compressed clusters", K4, NULL, SIZE, 4 * KiB,
     .prepare = {{COMPRESS, 0, 32 * KiB}},
     .op = {{WRITE, 5000, 5000}, {COMPRESS, 20 * KiB, 4 * KiB}, {UNMAP, 28 * KiB, 4 * KiB},
            {FLUSH}}},
    {"zeros", K4, NULL, SIZE, 4 * KiB, .backing = true, .prepare = {{WRITE, 0, 40 * KiB}},
     .op = {{ZERO, 3 * KiB, 20 * KiB}, {ZERO, 60 * KiB, 10 * KiB}, {FLUSH}}},
    {"zeros that unmap", K4, ",pass-discard-request=on", SIZE, 4 * KiB, .backing = true,
     .prepare = {{WRITE, 0, 40 * KiB}},
     .op = {{UNMAP, 3 * KiB, 20 * KiB}, {FLUSH}, {WRITE, 60 * KiB, 10 * KiB}, {FLUSH}}},
    {"zeros that unmap and keep the place", K4, ",discard-no-unref=on", SIZE, 4 * KiB,
     .backing = true, .discards_in_use = true, .prepare = {{WRITE, 0, 40 * KiB}},
     .op = {{UNMAP, 3 * KiB, 20 * KiB}, {DISCARD, 24 * KiB, 8 * KiB}, {FLUSH}}},
    {"zeros in version 2", "cluster_size=4k,compat=0.10", NULL, SIZE, 4 * KiB,
     .prepare = {{WRITE, 0, 40 * KiB}}, .op = {{ZERO, 3 * KiB, 20 * KiB}, {FLUSH}}},
    {"discard", K4, NULL, SIZE, 4 * KiB, .prepare = {{WRITE, 0, 40 * KiB}},
     .op = {{DISCARD, 4 * KiB, 20 * KiB}, {FLUSH}, {WRITE, 60 * KiB, 10 * KiB}, {FLUSH}}},
    {"flush", K4, NULL, SIZE, 4 * KiB, .prepare = {{WRITE, 0, 8 * KiB}},
     .before = {{WRITE, 5000, 50000}, {DISCARD, 12 * KiB, 8 * KiB}}, .op = {{FLUSH}}},
    {"new L2 tables", "cluster_size=512", ",l2-cache-size=1k,refcount-cache-size=512", SIZE, 512,
     .op = {{WRITE, 30 * KiB, 70 * KiB}, {FLUSH}}},
    {"new refcount blocks", "cluster_size=512,refcount_bits=64", NULL, SIZE, 512,
     .op = {{WRITE, 1000, 70 * KiB}, {FLUSH}}},
    {"a larger refcount table", "cluster_size=512,refcount_bits=64", NULL, 2 * MiB, 512,
     .large = true, .prepare = {{WRITE, 0, 1900 * KiB}},
     .before = {{WRITE, 1900 * KiB, 1}, {FLUSH}},
     .op = {{WRITE, 1910 * KiB, 48 * KiB}, {FLUSH}}},
    {"lazy refcounts", "cluster_size=4k,lazy_refcounts=on", NULL, SIZE, 4 * KiB,
     .prepare = {{WRITE, 0, 8 * KiB}},
     .op = {{WRITE, 5000, 10000}, {FLUSH}, {DISCARD, 8 * KiB, 4 * KiB}, {FLUSH}}},
    {"data file", K4, NULL, SIZE, 4 * KiB, .backing = true, .data_file = true,
     .discards_in_use = true, .prepare = {{WRITE, 0, 20 * KiB}},
     .op = {{WRITE, 5000, 20000}, {ZERO, 1 * KiB, 8 * KiB}, {DISCARD, 12 * KiB, 4 * KiB},
            {FLUSH}}},
    {"raw data file", "cluster_size=4k,data_file_raw=on", NULL, SIZE, 4 * KiB, .data_file = true,
     .discards_in_use = true, .prepare = {{WRITE, 0, 20 * KiB}},
     .op = {{WRITE, 5000, 20000}, {ZERO, 1 * KiB, 8 * KiB}, {DISCARD, 12 * KiB, 4 * KiB},
            {FLUSH}}},
    {"a longer disk", "cluster_size=512", NULL, SIZE, 512, .prepare = {{WRITE, 0, 20 * KiB}},
     .before = {{WRITE, 100 * KiB, 1 * KiB}},
     .op = {{TRUNCATE, 0, SIZE + 100000 / 512 * 512}, {FLUSH}}},
    {"a longer disk, with a larger L1 table", "cluster_size=512", NULL, SIZE, 512,
     .large = true, .prepare = {{WRITE, 0, 20 * KiB}}, .op = {{TRUNCATE, 0, MAX_SIZE}, {FLUSH}}},
    {"a shorter disk", "cluster_size=512", NULL, SIZE, 512, .other = 60 * KiB,
     .prepare = {{WRITE, 0, 4 * KiB}, {WRITE, 78 * KiB, 6 * KiB}, {WRITE, 130 * KiB, 2 * KiB}},
     .before = {{WRITE, 100 * KiB, 2 * KiB}, {DISCARD, 0, 1 * KiB}},
     .op = {{TRUNCATE, 0, 81 * KiB}, {FLUSH}}},
    {"a new snapshot", K4, NULL, SIZE, 4 * KiB, .copied_may_lack = true,
     .prepare = {{WRITE, 0, 40 * KiB}},
     .before = {{WRITE, 60 * KiB, 20 * KiB}, {DISCARD, 0, 4 * KiB}},
     .op = {{SNAPSHOT}, {WRITE, 5000, 10000}, {FLUSH}}},
    {"back to a snapshot", K4, NULL, SIZE, 4 * KiB, .undoes = true, .copied_may_lack = true,
     .prepare = {{WRITE, 0, 40 * KiB}},
     .before = {{SNAPSHOT}, {WRITE, 5000, 10000}, {WRITE, 60 * KiB, 20 * KiB}},
     .op = {{GOTO}, {FLUSH}}},
    {"a snapshot less", K4, ",pass-discard-snapshot=on", SIZE, 4 * KiB,
     .copied_may_lack = true, .prepare = {{WRITE, 0, 40 * KiB}},
     .before = {{SNAPSHOT}, {WRITE, 5000, 10000}, {WRITE, 60 * KiB, 20 * KiB}},
     .op = {{DELETE}, {FLUSH}}},
};

/* ---- Flushing -------------------------------------------------------------------------- */

/* The open file at @path. */
static int find_descriptor(const char *path)
{
    for (int fd = 0; fd < 1000; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *target = g_file_read_link(link, NULL);

        if (target && strcmp(target, path) == 0) {
            return fd;
        }
    }
    fail_msg("%s is not open", path);
    return -1;
}

/*
 * What was written then may be lost: no later flush says that all is well, and no table
 * that may lead to it is written.
 */
static void after_a_failed_fsync_flushes_fail_until_the_image_is_opened_anew(void **state)
{
    const Scenario sc = {"fsync", K4, NULL, SIZE, 4 * KiB};
    g_autofree uint8_t *data = pattern(SIZE, 1);
    g_autofree char *data_path = test_path("none"), *path = create_image(&sc, data_path);
    BlockBackend *blk = open_qcow2(path, BDRV_O_RDWR);
    int fd = find_descriptor(path), saved = fcntl(fd, F_DUPFD_CLOEXEC, 0), pipe_fds[2];

    assert_int_equal(blk_pwrite(blk, 0, 8 * KiB, data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_pwrite(blk, 0, 1 * KiB, data, 0), 0); /* in place: no table changes */
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0); /* which cannot be flushed */
    assert_int_equal(dup3(pipe_fds[1], fd, O_CLOEXEC), fd);
    assert_int_equal(blk_flush(blk), -EINVAL);
    assert_int_equal(dup3(saved, fd, O_CLOEXEC), fd);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(blk_pwrite(blk, i * 16 * KiB, 16 * KiB, data + i * 16 * KiB, 0), 0);
        assert_int_equal(blk_flush(blk), -EINVAL);
        assert_reads(blk, i * 16 * KiB, 16 * KiB, data + i * 16 * KiB);
    }
    blk_unref(blk);
    close(saved);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    blk = open_qcow2(path, BDRV_O_RDWR);
    assert_reads(blk, 0, 8 * KiB, data);
    assert_reads(blk, 16 * KiB, 32 * KiB, NULL);
    assert_int_equal(blk_pwrite(blk, 0, SIZE, data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_reads(blk, 0, SIZE, data);
    blk_unref(blk);
}

static int setup(void **state)
{
    GError *err = NULL;

    return qcow2_group_setup(state) || !bdrv_register(&fault_driver, &err);
}

/* An argument is a pattern of names of tests to run, which tell more then. */
int main(int argc, char **argv)
{
    struct CMUnitTest tests[G_N_ELEMENTS(scenarios) + 1] = {
        [G_N_ELEMENTS(scenarios)] = cmocka_unit_test(
            after_a_failed_fsync_flushes_fail_until_the_image_is_opened_anew),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(scenarios); i++) {
        tests[i] = (struct CMUnitTest){.name = scenarios[i].name, .test_func = sweep,
                                       .initial_state = (void *)&scenarios[i]};
    }
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
        tell = true;
    }
    return cmocka_run_group_tests_name("qcow2 errors", tests, setup, driver_group_teardown);
}
