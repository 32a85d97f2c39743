/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts while internal snapshots of a qcow2 image are created, applied and
 * deleted, with writes in between. Afterwards the disk and the list are as they were before
 * the step or after it, every snapshot reads as it did when it was made, also after
 * the disk has been written to, and nothing but clusters is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "blockgraph/blockgraph.h"
#include "explorer.h"
#include "recorder.h"

#define MAX_STEPS 24
#define MAX_SNAPSHOTS 4
#define OPEN "driver=qcow2,discard=unmap,file.driver=recorder,file.disk=image"

/* What the disk and its snapshots have. */
typedef struct Disk {
    uint8_t *data;
    int64_t length;
} Disk;

typedef struct Content {
    Disk disk;
    unsigned count;
    Disk snapshots[MAX_SNAPSHOTS];
    char name[MAX_SNAPSHOTS]; /* of one letter */
} Content;

typedef struct Scene {
    const char *steps; /* pairs: an operation and where, or a name */
    bool old_version;  /* no dirty bit */
    bool lazy;         /* refcounts */
    CrashLog *log;
    CrashStore *store;
    unsigned count; /* steps */
    Content after[MAX_STEPS + 1];
    uint64_t opened[MAX_STEPS + 1]; /* positions */
    uint64_t closed[MAX_STEPS + 1];
} Scene;

/* ---- Contents ---------------------------------------------------------------------------- */

static Disk disk_copy(const Disk *disk)
{
    return (Disk){ g_memdup2(disk->data, disk->length), disk->length };
}

static Content content_copy(const Content *from)
{
    Content content = *from;

    content.disk = disk_copy(&from->disk);
    for (unsigned i = 0; i < from->count; i++) {
        content.snapshots[i] = disk_copy(&from->snapshots[i]);
    }
    return content;
}

static void content_clear(Content *content)
{
    g_free(content->disk.data);
    for (unsigned i = 0; i < content->count; i++) {
        g_free(content->snapshots[i].data);
    }
    *content = (Content){ 0 };
}

static void content_resize(Content *content, int64_t length)
{
    content->disk.data = g_realloc(content->disk.data, length);
    if (length > content->disk.length) {
        memset(content->disk.data + content->disk.length, 0, length - content->disk.length);
    }
    content->disk.length = length;
}

/* ---- Steps ------------------------------------------------------------------------------- */

static BlockBackend *open_image(int flags, GString *why)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(OPEN, NULL, NULL);
    BlockBackend *blk = blk_new_open(NULL, options, flags, NULL, &err);

    if (!blk) {
        g_string_append_printf(why, "opening failed: %s; ", err->message);
    }
    return blk;
}

static BlockBackend *open_writable(GString *why)
{
    return open_image(BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP, why);
}

/* An eighth of the disk, a bit off, and the end. */
static void write_some(BlockBackend *blk, Content *now, char where, unsigned step, int flags)
{
    int64_t offset = (where - '0') * (now->disk.length / 8);
    int64_t bytes = MIN(now->disk.length / 8, now->disk.length - offset);

    if (!(flags & BDRV_REQ_COMPRESSED)) {
        offset += 512;
        bytes -= 512;
    }
    memset(now->disk.data + offset, 16 * step + (where - '0'), bytes);
    assert_int_equal(blk_pwrite(blk, offset, bytes, now->disk.data + offset, flags), 0);
}

static void create(BlockBackend *blk, Content *now, char letter)
{
    const char name[] = { letter, 0 };
    BdrvSnapshotInfo info = { .name = name };

    assert_true(bdrv_snapshot_create(blk_bs(blk), &info, NULL));
    assert_true(now->count < MAX_SNAPSHOTS);
    now->name[now->count] = letter;
    now->snapshots[now->count++] = disk_copy(&now->disk);
}

static unsigned find(const Content *now, char letter)
{
    unsigned i = 0;

    while (i < now->count && now->name[i] != letter) {
        i++;
    }
    assert_true(i < now->count);
    return i;
}

static void apply(BlockBackend *blk, Content *now, char letter)
{
    unsigned i = find(now, letter);

    assert_true(bdrv_snapshot_goto(blk_bs(blk), i, NULL));
    g_free(now->disk.data);
    now->disk = disk_copy(&now->snapshots[i]);
}

static void delete(BlockBackend *blk, Content *now, char letter)
{
    unsigned i = find(now, letter);

    assert_true(bdrv_snapshot_delete(blk_bs(blk), i, NULL));
    g_free(now->snapshots[i].data);
    now->count--;
    for (; i < now->count; i++) {
        now->snapshots[i] = now->snapshots[i + 1];
        now->name[i] = now->name[i + 1];
    }
}

/* One step, durable when it is over. */
static void run_step(BlockBackend *blk, Content *now, const char *step, unsigned number)
{
    int64_t eighth = now->disk.length / 8;

    switch (step[0]) {
    case 'w':
        write_some(blk, now, step[1], number, 0);
        break;
    case 'c':
        write_some(blk, now, step[1], number, BDRV_REQ_COMPRESSED);
        break;
    case 'z':
        assert_int_equal(blk_pwrite_zeroes(blk, (step[1] - '0') * eighth, eighth,
                                           BDRV_REQ_MAY_UNMAP), 0);
        memset(now->disk.data + (step[1] - '0') * eighth, 0, eighth);
        break;
    case 'r':
        content_resize(now, (step[1] - '0') * 32768);
        assert_int_equal(blk_truncate(blk, now->disk.length, true, BLOCK_PREALLOC_OFF, NULL), 0);
        break;
    case '+':
        create(blk, now, step[1]);
        break;
    case '=':
        apply(blk, now, step[1]);
        break;
    default:
        assert_int_equal(step[0], '-');
        delete(blk, now, step[1]);
        break;
    }
    assert_int_equal(blk_flush(blk), 0);
}

static void run_steps(Scene *scene)
{
    g_autoptr(GString) why = g_string_new(NULL);
    BlockBackend *blk = open_writable(why);
    Content *after = scene->after;

    assert_string_equal(why->str, "");
    content_resize(&after[0], blk_getlength(blk));
    scene->store->log = scene->log;
    scene->count = strlen(scene->steps) / 2;
    assert_true(scene->count <= MAX_STEPS);
    for (unsigned i = 1; i <= scene->count; i++) {
        scene->opened[i] = crash_log_tick(scene->log);
        after[i] = content_copy(&after[i - 1]);
        run_step(blk, &after[i], scene->steps + 2 * (i - 1), i);
        scene->closed[i] = crash_log_tick(scene->log);
    }
    blk_unref(blk);
    scene->store->log = NULL;
}

/* ---- After the power cut ------------------------------------------------------------------ */

static void add_finding(void *opaque, const char *line)
{
    g_string_append_printf(opaque, "%s; ", line);
}

/* Check, or with @fix repair: nothing is wrong then but leaks, and with @fix not even that. */
static void check_image(BlockBackend *blk, int fix, GString *why)
{
    g_autoptr(GString) findings = g_string_new(NULL);
    BdrvCheckResult r;
    int ret = fix ? bdrv_repair(blk_bs(blk), fix, &r, add_finding, findings) : 0;

    if (ret >= 0) {
        ret = bdrv_check(blk_bs(blk), &r, add_finding, findings);
    }
    if (ret < 0 || r.corruptions || r.check_errors || (fix && r.leaks)) {
        g_string_append_printf(why, "check: %d: %s", ret, findings->str);
    }
}

/* Nobody would write in place what a snapshot has, not even if he trusted "copied". */
static void judge_finding(void *opaque, const char *line)
{
    bool harmless = g_str_has_prefix(line, "Leaked cluster") ||
                    (strstr(line, "OFLAG_COPIED") && g_str_has_suffix(line, "refcount=1"));

    if (!harmless) {
        add_finding(opaque, line);
    }
}

/* Before anything is repaired. */
static void check_as_found(GString *why)
{
    BlockBackend *blk = open_image(BDRV_O_CHECK, why);
    BdrvCheckResult r;

    if (blk && bdrv_check(blk_bs(blk), &r, judge_finding, why) < 0) {
        g_string_append(why, "the first check failed; ");
    }
    blk_unref(blk);
}

static void compare(BlockBackend *blk, const char *what, const Disk *a, const Disk *b,
                    bool mixed, GString *why)
{
    int64_t length = blk_getlength(blk);
    g_autofree uint8_t *data = g_malloc(length);
    bool ok = length == a->length || length == b->length;
    bool as_a = length == a->length, as_b = length == b->length;

    assert_int_equal(blk_pread(blk, 0, length, data, 0), 0);
    for (int64_t at = 0; at < length && ok; at += CRASH_SECTOR) {
        bool in_a = at >= a->length || memcmp(data + at, a->data + at, CRASH_SECTOR) == 0;
        bool in_b = at >= b->length || memcmp(data + at, b->data + at, CRASH_SECTOR) == 0;

        as_a &= in_a;
        as_b &= in_b;
        ok = mixed ? in_a || in_b : as_a || as_b;
        if (!ok) {
            g_string_append_printf(why, "%s at %d: %02x; ", what, (int)at, data[at]);
        }
    }
    if (length != a->length && length != b->length) {
        g_string_append_printf(why, "%s is %d bytes long; ", what, (int)length);
    }
}

/* Whether the image's list is that of @content. */
static bool list_is(BlockBackend *blk, const Content *content)
{
    BdrvSnapshotInfo sn;
    unsigned i = 0;

    for (; bdrv_snapshot_get(blk_bs(blk), i, &sn); i++) {
        if (i >= content->count || strlen(sn.name) != 1 || sn.name[0] != content->name[i]) {
            return false;
        }
    }
    return i == content->count;
}

/* Nothing but their own tables leads to the snapshots' data. */
static void check_snapshots(const Content *content, GString *why)
{
    for (unsigned i = 0; i < content->count && why->len == 0; i++) {
        const char name[] = { content->name[i], 0 };
        BlockBackend *blk = open_image(0, why);
        Disk there = disk_copy(&content->snapshots[i]);

        if (!blk || !bdrv_snapshot_load_tmp(blk_bs(blk), NULL, name, NULL)) {
            g_string_append_printf(why, "snapshot %s cannot be read; ", name);
        } else {
            /* The length stays that of the disk. */
            there.data = g_realloc(there.data, MAX(there.length, blk_getlength(blk)));
            if (blk_getlength(blk) > there.length) {
                memset(there.data + there.length, 0, blk_getlength(blk) - there.length);
            }
            there.length = blk_getlength(blk);
            compare(blk, name, &there, &there, false, why);
        }
        g_free(there.data);
        blk_unref(blk);
    }
}

static void write_all_over(BlockBackend *blk, GString *why)
{
    int64_t length = blk_getlength(blk);
    g_autofree uint8_t *data = g_malloc(length);

    memset(data, 0xee, length);
    if (blk_pwrite(blk, 0, length, data, 0) < 0) {
        g_string_append(why, "writing failed; ");
    }
}

/* Between which two contents the image is at @cut: at @step, or after @step if they are one. */
static const Content *content_before(const Scene *scene, uint64_t cut, unsigned *step)
{
    *step = scene->count;
    while (*step > 0 && cut <= scene->opened[*step]) {
        (*step)--;
    }
    return &scene->after[*step > 0 && cut <= scene->closed[*step] ? *step - 1 : *step];
}

static bool examine(void *opaque, uint64_t cut, GString *why)
{
    Scene *scene = opaque;
    unsigned step;
    const Content *before = content_before(scene, cut, &step), *after = &scene->after[step];
    bool is_write = step > 0 && strchr("wcz", scene->steps[2 * (step - 1)]);
    const Content *list = NULL;
    BlockBackend *blk;

    if (!scene->lazy) {
        check_as_found(why);
    }
    blk = open_writable(why);
    if (!blk) {
        return false;
    }
    if (!scene->old_version) {
        check_image(blk, 0, why);
    }
    compare(blk, "the disk", &before->disk, &after->disk, is_write, why);
    list = list_is(blk, after) ? after : list_is(blk, before) ? before : NULL;
    if (!list) {
        g_string_append(why, "the list is neither the old nor the new one; ");
    }
    if (cut % 2) {
        check_image(blk, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, why);
    }
    write_all_over(blk, why);
    if (scene->old_version) {
        check_image(blk, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, why);
    }
    check_image(blk, 0, why);
    blk_unref(blk);
    if (list) {
        check_snapshots(list, why);
    }
    return why->len == 0;
}

/* What is expected changes where steps begin and end. */
static uint64_t epoch(void *opaque, uint64_t cut)
{
    const Scene *scene = opaque;
    uint64_t count = 0;

    for (unsigned i = 1; i <= scene->count; i++) {
        count += (cut > scene->opened[i]) + (cut > scene->closed[i]);
    }
    return count;
}

/* ---- Scenes ------------------------------------------------------------------------------- */

static void explore(const char *create_options, const char *steps)
{
    Scene scene = { .steps = steps, .old_version = strstr(create_options, "compat=0.10") != NULL,
                    .lazy = strstr(create_options, "lazy_refcounts") != NULL };
    g_autoptr(JsonObject) options = block_options_parse(create_options, NULL, NULL);
    g_autoptr(CrashStore) start = NULL;
    g_autoptr(GString) why = g_string_new(NULL);
    CrashExplorer x = { .seed = 1, .budget = 500, .examine = examine, .epoch = epoch,
                        .opaque = &scene };

    assert_true(blockgraph_init(NULL));
    recorder_register();
    scene.store = crash_store_new();
    scene.log = crash_log_new();
    crash_store_add(scene.store, "image");
    crash_store_activate(scene.store);
    assert_true(bdrv_create(bdrv_find_format("qcow2"), "recorder:image", options, NULL));
    start = crash_store_copy(scene.store);
    run_steps(&scene);
    x.log = scene.log;
    x.start = start;
    if (!crash_explore(&x, why)) {
        g_autofree char *violation = x.violation;

        fail_msg("%s: %s: %s", steps, violation, why->str);
    }
    assert_true(x.counts.examined > 100);
    for (unsigned i = 0; i <= scene.count; i++) {
        content_clear(&scene.after[i]);
    }
    crash_store_activate(NULL);
    crash_store_free(scene.store);
    crash_log_free(scene.log);
    blockgraph_cleanup();
}

#define STEPS "w0w3w7+aw1w3z7+bw0=aw2-a+dw4=b-b-d"

static void snapshots_survive_in_small_clusters(void **state)
{
    explore("size=96k,cluster_size=512", STEPS);
}

static void snapshots_survive_with_wide_refcounts(void **state)
{
    explore("size=128k,cluster_size=4k,refcount_bits=64", STEPS);
}

static void snapshots_survive_with_extended_l2(void **state)
{
    explore("size=256k,cluster_size=16k,extended_l2=on", STEPS);
}

static void snapshots_survive_with_lazy_refcounts(void **state)
{
    explore("size=128k,cluster_size=4k,lazy_refcounts=on", STEPS);
}

static void snapshots_survive_in_version_2(void **state)
{
    explore("size=96k,cluster_size=512,compat=0.10", STEPS);
}

static void snapshots_of_compressed_clusters_survive(void **state)
{
    explore("size=128k,cluster_size=4k", "c0c5w5+ac1c5+bz0=ac7-b-a");
}

/* 32 KiB times the digit. */
static void snapshots_of_other_lengths_survive(void **state)
{
    explore("size=96k,cluster_size=512", "w0w7+ar6w7+br2w1=bw6=aw3=b-ar3-b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_survive_in_small_clusters),
        cmocka_unit_test(snapshots_survive_with_wide_refcounts),
        cmocka_unit_test(snapshots_survive_with_extended_l2),
        cmocka_unit_test(snapshots_survive_with_lazy_refcounts),
        cmocka_unit_test(snapshots_survive_in_version_2),
        cmocka_unit_test(snapshots_of_compressed_clusters_survive),
        cmocka_unit_test(snapshots_of_other_lengths_survive),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
