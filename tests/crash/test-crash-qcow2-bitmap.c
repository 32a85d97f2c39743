/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Power cuts while persistent bitmaps of a qcow2 image are added, changed and
 * removed, and a guest writes. Afterwards a bitmap that is not called inconsistent
 * has what one of the last two sessions stored; that of the one before only as long
 * as the guest's first write of the last has not begun. Nothing else has changed in
 * the image.
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

#define DISK (4 * 1024 * 1024)
#define SESSIONS 5
#define BACKING "a-backing-file-with-a-name-that-is-not-short.raw"

typedef struct Scene {
    CrashLog *log;
    CrashStore *store;
    char *stored[SESSIONS + 1];      /* the bitmaps after each session, as text */
    uint64_t opened[SESSIONS + 1];   /* positions: 0 for the first */
    uint64_t written[SESSIONS + 1];  /* when the guest was about to write */
    uint64_t closed[SESSIONS + 1];
    bool quiet;                      /* the guest writes in every second session only */
    unsigned consistent;             /* states in which all bitmaps could be used */
    unsigned inconsistent;
} Scene;

/* ---- The image ------------------------------------------------------------------------ */

static BlockBackend *open_image(int flags, GString *why)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options =
        block_options_parse("driver=qcow2,file.driver=recorder,file.disk=image", NULL, NULL);
    BlockBackend *blk = blk_new_open(NULL, options, flags | BDRV_O_NO_BACKING, NULL, &err);

    if (!blk) {
        g_string_append_printf(why, "opening failed: %s; ", err->message);
    }
    return blk;
}

/* All bitmaps that can be used, as text; *@unusable counts the others. */
static char *describe(BlockBackend *blk, unsigned *unusable)
{
    GString *text = g_string_new(NULL);
    BdrvDirtyBitmap *bitmap = NULL;

    while ((bitmap = bdrv_dirty_bitmap_next(blk_bs(blk), bitmap))) {
        int64_t offset = 0, bytes = 0;

        if (bdrv_dirty_bitmap_state(bitmap) & BDRV_BITMAP_INCONSISTENT) {
            (*unusable)++;
            continue;
        }
        g_string_append_printf(text, "%s%d:", bdrv_dirty_bitmap_name(bitmap),
                               bdrv_dirty_bitmap_enabled(bitmap));
        while (bdrv_dirty_bitmap_next_dirty_area(bitmap, offset + bytes, INT64_MAX, INT64_MAX,
                                                 &offset, &bytes)) {
            g_string_append_printf(text, " %d+%d", (int)offset, (int)bytes);
        }
        g_string_append_c(text, ';');
    }
    return g_string_free(text, false);
}

static void add(BlockBackend *blk, const char *name, int64_t offset, int64_t bytes)
{
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_create(blk_bs(blk), name, 512, NULL);

    assert_non_null(bitmap);
    bdrv_dirty_bitmap_set_persistent(bitmap, true);
    bdrv_dirty_bitmap_set(bitmap, offset, bytes);
}

static void drop(BlockBackend *blk, const char *name)
{
    assert_true(bdrv_dirty_bitmap_remove_stored(blk_bs(blk), name, NULL));
    bdrv_dirty_bitmap_remove(bdrv_dirty_bitmap_find(blk_bs(blk), name));
}

/* What is done in each session. */
static void change(BlockBackend *blk, unsigned session)
{
    BdrvDirtyBitmap *first = bdrv_dirty_bitmap_find(blk_bs(blk), "first");

    switch (session) {
    case 1:
        add(blk, "first", 4096, 512);
        add(blk, "second", 0, DISK);
        break;
    case 2:
        bdrv_dirty_bitmap_set(first, 1024 * 1024, 100000);
        drop(blk, "second");
        add(blk, "third", DISK - 512, 512);
        break;
    case 3:
        bdrv_dirty_bitmap_clear(first);
        bdrv_dirty_bitmap_disable(first);
        break;
    case 4:
        drop(blk, "third");
        drop(blk, "first");
        break;
    default:
        add(blk, "last", 0, 512);
        break;
    }
}

static int set_up(void **state)
{
    Scene *scene = g_new0(Scene, 1);

    assert_true(blockgraph_init(NULL));
    recorder_register();
    scene->store = crash_store_new();
    scene->log = crash_log_new();
    crash_store_add(scene->store, "image");
    crash_store_activate(scene->store);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    Scene *scene = *state;

    crash_store_activate(NULL);
    crash_store_free(scene->store);
    crash_log_free(scene->log);
    for (unsigned i = 0; i <= SESSIONS; i++) {
        g_free(scene->stored[i]);
    }
    g_free(scene);
    blockgraph_cleanup();
    return 0;
}

static void create_image(const char *shape)
{
    g_autofree char *text = g_strdup_printf("size=%d,%s,backing_file=" BACKING
                                            ",backing_fmt=raw", DISK, shape);
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, NULL);
    g_autoptr(GError) err = NULL;

    if (!bdrv_create(bdrv_find_format("qcow2"), "recorder:image", options, &err)) {
        fail_msg("%s", err->message);
    }
}

/* What is marked in each session; in all bitmaps that are enabled. */
static void guest_writes(BlockBackend *blk, unsigned session)
{
    const uint8_t data[1024] = { session };

    assert_int_equal(blk_pwrite(blk, session * 65536, sizeof(data), data, 0), 0);
    assert_int_equal(blk_flush(blk), 0);
    assert_int_equal(blk_pwrite_zeroes(blk, session * 65536 + 512, 4096, 0), 0);
}

static void run_sessions(Scene *scene)
{
    g_autoptr(GString) why = g_string_new(NULL);

    scene->store->log = scene->log;
    scene->stored[0] = g_strdup("");
    for (unsigned i = 1; i <= SESSIONS; i++) {
        unsigned unusable = 0;
        BlockBackend *blk;

        scene->opened[i] = crash_log_tick(scene->log);
        blk = open_image(BDRV_O_RDWR, why);
        assert_string_equal(why->str, "");
        scene->written[i] = crash_log_tick(scene->log);
        if (!scene->quiet || i % 2 == 0) {
            guest_writes(blk, i);
        }
        change(blk, i);
        scene->stored[i] = describe(blk, &unusable);
        assert_int_equal(unusable, 0);
        assert_true(bdrv_dirty_bitmaps_store(blk_bs(blk), NULL));
        blk_unref(blk);
        scene->closed[i] = crash_log_tick(scene->log);
    }
    scene->store->log = NULL;
}

/* ---- After the power cut ----------------------------------------------------------------- */

static void add_finding(void *opaque, const char *line)
{
    g_string_append_printf(opaque, "%s; ", line);
}

static void check_image(BlockBackend *blk, GString *why)
{
    BdrvCheckResult result = { 0 };
    g_autoptr(GString) findings = g_string_new(NULL);
    int ret = bdrv_check(blk_bs(blk), &result, add_finding, findings);

    if (ret < 0 || result.corruptions || result.check_errors) {
        g_string_append_printf(why, "check: %d: %s", ret, findings->str);
    }
    if (strcmp(bdrv_get_backing_filename(blk_bs(blk)), BACKING) != 0 ||
        strcmp(bdrv_get_backing_format(blk_bs(blk)), "raw") != 0) {
        g_string_append_printf(why, "the backing file is '%s' (%s); ",
                               bdrv_get_backing_filename(blk_bs(blk)),
                               bdrv_get_backing_format(blk_bs(blk)));
    }
}

static bool is_dirty(BlockBackend *blk)
{
    BlockDriverInfo info;

    assert_int_equal(bdrv_get_info(blk_bs(blk), &info), 0);
    return info.is_dirty;
}

/* Whoever opens it for writing repairs what is dirty. */
static void check_repaired(GString *why)
{
    BlockBackend *blk = open_image(BDRV_O_RDWR, why);

    if (blk) {
        if (is_dirty(blk)) {
            g_string_append(why, "dirty after it was opened for writing; ");
        }
        check_image(blk, why);
        blk_unref(blk);
    }
}

static void check_bitmaps(Scene *scene, BlockBackend *blk, uint64_t cut, GString *why)
{
    unsigned session = SESSIONS, unusable = 0;
    g_autofree char *text = describe(blk, &unusable);
    bool open;

    while (session > 0 && cut <= scene->opened[session]) {
        session--;
    }
    open = session > 0 && cut <= scene->closed[session];
    if (unusable > 0 || (open && !*text)) {
        scene->inconsistent++;
    } else {
        scene->consistent++;
    }
    if (strcmp(text, scene->stored[session]) == 0 && unusable == 0) {
        return;
    }
    /* In an open session: none that could be used, or as before it. */
    if (open && !*text) {
        return;
    }
    open = open && cut <= scene->written[session];
    if (open && strcmp(text, scene->stored[session - 1]) == 0 && unusable == 0) {
        return;
    }
    /* While bitmaps are being marked as in use, some of them. */
    if (open && unusable > 0) {
        g_auto(GStrv) parts = g_strsplit(text, ";", -1);
        bool known = true;

        for (unsigned i = 0; parts[i]; i++) {
            known &= strstr(scene->stored[session - 1], parts[i]) != NULL;
        }
        if (known) {
            return;
        }
    }
    g_string_append_printf(why, "in session %u (%s): '%s' and %u inconsistent, not '%s'; ", session,
                           open ? "open" : "closed", text, unusable, scene->stored[session]);
}

static bool examine(void *opaque, uint64_t cut, GString *why)
{
    Scene *scene = opaque;
    g_autoptr(GError) err = NULL;
    BlockBackend *blk = open_image(0, why);

    if (blk) {
        bool dirty = is_dirty(blk);

        if (!dirty) {
            check_image(blk, why);
        }
        if (bdrv_dirty_bitmaps_load(blk_bs(blk), &err)) {
            check_bitmaps(scene, blk, cut, why);
        } else {
            g_string_append_printf(why, "loading failed: %s; ", err->message);
        }
        blk_unref(blk);
        if (dirty) {
            check_repaired(why);
        }
    }
    return why->len == 0;
}

/* What is expected changes where sessions begin and end. */
static uint64_t epoch(void *opaque, uint64_t cut)
{
    const Scene *scene = opaque;
    uint64_t count = 0;

    for (unsigned i = 1; i <= SESSIONS; i++) {
        count += (cut > scene->opened[i]) + (cut > scene->written[i]) + (cut > scene->closed[i]);
    }
    return count;
}

static void explore(Scene *scene, const char *shape)
{
    g_autoptr(CrashStore) start = NULL;
    g_autoptr(GString) why = g_string_new(NULL);
    CrashExplorer x = {
        .log = scene->log, .seed = 1, .budget = 6000, .examine = examine, .epoch = epoch,
        .opaque = scene,
    };

    create_image(shape);
    start = crash_store_copy(scene->store);
    run_sessions(scene);
    x.start = start;
    if (!crash_explore(&x, why)) {
        g_autofree char *violation = x.violation;

        fail_msg("%s: %s", violation, why->str);
    }
    assert_true(x.counts.examined > 200);
    assert_true(scene->consistent > 10);
    assert_true(scene->inconsistent > 150);
}

/* The header's extensions fit into one sector. */
static void bitmaps_survive_or_are_inconsistent(void **state)
{
    explore(*state, "cluster_size=1k");
}

/* They reach into a second one, with the names of features. */
static void long_headers_are_not_torn(void **state)
{
    explore(*state, "cluster_size=64k");
}

/* No dirty bit tells that refcounts are to be rebuilt: those of bitmaps are not. */
static void lazy_refcounts_hold_for_bitmaps(void **state)
{
    Scene *scene = *state;

    scene->quiet = true; /* it sets the dirty bit */
    explore(scene, "cluster_size=4k,lazy_refcounts=on");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bitmaps_survive_or_are_inconsistent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_headers_are_not_torn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lazy_refcounts_hold_for_bitmaps, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
