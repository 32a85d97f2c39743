/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The explorer builds the states that a power cut can leave, all of them if the
 * budget allows, and no other: scripted logs, and random ones against an
 * independent count of what is possible. A letter written to a sector of a
 * small disk stands for a state: "ab.c".
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "explorer.h"

#define SECTORS 6

typedef struct Scene {
    CrashStore *start;
    CrashLog *log;
    GHashTable *seen;    /* pictures of states */
    const char *refused; /* the picture that is called bad, or NULL */
    uint64_t from;       /* cuts before this are not noted */
} Scene;

static int set_up(void **state)
{
    Scene *scene = g_new0(Scene, 1);

    scene->start = crash_store_new();
    for (int i = 0; i < 2; i++) {
        unsigned disk = crash_store_add(scene->start, i ? "b" : "a");

        crash_image_set_length(crash_store_image(scene->start, disk), SECTORS * CRASH_SECTOR);
    }
    scene->log = crash_log_new();
    scene->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    Scene *scene = *state;

    crash_store_free(scene->start);
    crash_log_free(scene->log);
    g_hash_table_unref(scene->seen);
    g_free(scene);
    return 0;
}

/* ---- Pictures --------------------------------------------------------------------- */

/* One letter per sector, "." for zeros, up to the length; disks are parted by "/" if used. */
static char *picture(const CrashStore *store)
{
    GString *text = g_string_new(NULL);

    for (unsigned d = 0; d < store->disks->len; d++) {
        const CrashImage *image = crash_store_image(store, d);

        g_string_append(text, d ? "/" : "");
        for (int64_t at = 0; at < image->length; at += CRASH_SECTOR) {
            uint8_t byte;

            crash_image_read(image, at, 1, &byte);
            g_string_append_c(text, byte ? byte : '.');
        }
    }
    return g_string_free(text, false);
}

static bool look(void *opaque, uint64_t cut, GString *why)
{
    Scene *scene = opaque;
    g_autofree char *text = picture(crash_store_active());
    bool ok = !scene->refused || !g_str_equal(text, scene->refused);

    if (cut >= scene->from) {
        g_hash_table_add(scene->seen, g_strdup(text));
    }
    g_string_append(why, ok ? "" : "refused");
    return ok;
}

/* Let the states be examined anew from there on. */
static uint64_t epoch(void *opaque, uint64_t cut)
{
    return cut >= ((Scene *)opaque)->from;
}

static CrashCounts explore(Scene *scene, uint64_t budget)
{
    CrashExplorer x = {scene->log, scene->start, 1, budget, look, epoch, scene};
    g_autoptr(GString) why = g_string_new(NULL);

    assert_true(crash_explore(&x, why));
    return x.counts;
}

static bool saw(Scene *scene, const char *text)
{
    g_autofree char *both = g_strconcat(text, strchr(text, '/') ? "" : "/......", NULL);

    return g_hash_table_contains(scene->seen, both);
}

/* ---- Scripts ---------------------------------------------------------------------- */

static CrashEntry *begin_write(Scene *scene, unsigned disk, int sector, const char *letters)
{
    size_t bytes = strlen(letters) * CRASH_SECTOR;
    g_autofree uint8_t *data = g_malloc(bytes);

    for (size_t i = 0; i < bytes; i++) {
        data[i] = letters[i / CRASH_SECTOR];
    }
    return crash_log_begin(scene->log, CRASH_WRITE, disk, sector * CRASH_SECTOR, bytes, data);
}

static void write_letters(Scene *scene, int sector, const char *letters)
{
    crash_log_end(scene->log, begin_write(scene, 0, sector, letters));
}

static CrashEntry *begin(Scene *scene, CrashKind kind, int sector, int sectors)
{
    return crash_log_begin(scene->log, kind, 0, sector * CRASH_SECTOR, sectors * CRASH_SECTOR,
                           NULL);
}

static void complete(Scene *scene, CrashKind kind, int sector, int sectors)
{
    crash_log_end(scene->log, begin(scene, kind, sector, sectors));
}

static void flush(Scene *scene)
{
    complete(scene, CRASH_FLUSH, 0, 0);
}

/* ---- What is possible ------------------------------------------------------------- */

static void all_subsets_of_unflushed_writes_are_built_and_no_other_state(void **state)
{
    Scene *scene = *state;

    write_letters(scene, 0, "a");
    write_letters(scene, 1, "b");
    write_letters(scene, 2, "c");
    assert_int_equal(explore(scene, 100000).examined, 8);
    assert_int_equal(g_hash_table_size(scene->seen), 8);
    assert_true(saw(scene, "......"));
    assert_true(saw(scene, "..c..."));
    assert_true(saw(scene, "ab...."));
    assert_true(saw(scene, "abc..."));
}

static void what_was_flushed_is_in_every_state_after_it(void **state)
{
    Scene *scene = *state;

    write_letters(scene, 0, "a");
    flush(scene);
    write_letters(scene, 1, "b");
    explore(scene, 100000);
    assert_int_equal(g_hash_table_size(scene->seen), 3);
    assert_false(saw(scene, ".b...."));
}

static void a_flush_does_not_cover_what_was_in_flight(void **state)
{
    Scene *scene = *state;
    CrashEntry *in_flight = begin_write(scene, 0, 0, "a");

    flush(scene);
    crash_log_end(scene->log, in_flight);
    write_letters(scene, 1, "b");
    explore(scene, 100000);
    assert_true(saw(scene, ".b...."));
}

static void a_flush_counts_when_it_is_over(void **state)
{
    Scene *scene = *state;
    CrashEntry *unfinished;

    write_letters(scene, 0, "a");
    unfinished = begin(scene, CRASH_FLUSH, 0, 0);
    write_letters(scene, 1, "b");
    crash_log_end(scene->log, unfinished);
    write_letters(scene, 2, "c");
    explore(scene, 100000);
    assert_true(saw(scene, ".b...."));
    assert_false(saw(scene, ".bc..."));
    assert_true(saw(scene, "a.c..."));
}

static void fua_makes_one_write_durable_alone(void **state)
{
    Scene *scene = *state;
    CrashEntry *fua;

    write_letters(scene, 0, "a");
    fua = begin_write(scene, 0, 1, "b");
    fua->fua = true;
    crash_log_end(scene->log, fua);
    write_letters(scene, 2, "c");
    explore(scene, 100000);
    assert_true(saw(scene, ".bc..."));
    assert_false(saw(scene, "..c..."));
}

static void each_disk_is_flushed_by_itself(void **state)
{
    Scene *scene = *state;
    CrashEntry *other = begin_write(scene, 1, 0, "x");

    crash_log_end(scene->log, other);
    flush(scene);
    write_letters(scene, 0, "a");
    explore(scene, 100000);
    assert_true(saw(scene, "a...../......"));
    assert_true(saw(scene, "a...../x....."));
}

static void later_writes_lie_above_earlier_ones(void **state)
{
    Scene *scene = *state;

    CrashEntry *late = begin_write(scene, 0, 1, "c");

    write_letters(scene, 0, "aaa");
    write_letters(scene, 2, "b");
    crash_log_end(scene->log, late); /* reaches the cache last */
    flush(scene);
    scene->from = scene->log->position;
    explore(scene, 100000);
    assert_int_equal(g_hash_table_size(scene->seen), 1);
    assert_true(saw(scene, "acb..."));
}

static void a_write_is_torn_at_every_sector_and_in_between(void **state)
{
    Scene *scene = *state;

    write_letters(scene, 0, "abcd");
    explore(scene, 100000);
    assert_true(saw(scene, "a....."));
    assert_true(saw(scene, "ab...."));
    assert_true(saw(scene, "abc..."));
    assert_true(saw(scene, "...d.."));
    assert_true(saw(scene, ".bcd.."));
    assert_true(saw(scene, "a.c...") || saw(scene, "a..d..") || saw(scene, ".b.d..") ||
                saw(scene, "ab.d..") || saw(scene, "a.cd.."));
}

static void a_torn_write_may_have_others_missing_before_it(void **state)
{
    Scene *scene = *state;

    write_letters(scene, 0, "a");
    write_letters(scene, 1, "b");
    write_letters(scene, 2, "cd");
    explore(scene, 100000);
    assert_true(saw(scene, "abc..."));
    assert_true(saw(scene, "..c...") || saw(scene, "a.c...") || saw(scene, ".bc..."));
}

static void lengths_and_zeroes_and_discards_are_in_doubt_like_writes(void **state)
{
    Scene *scene = *state;

    write_letters(scene, 0, "abcdef");
    flush(scene);
    scene->from = scene->log->position;
    complete(scene, CRASH_ZEROES, 0, 1);
    complete(scene, CRASH_DISCARD, 1, 1);
    complete(scene, CRASH_TRUNCATE, 5, 0);
    complete(scene, CRASH_TRUNCATE, 7, 0);
    explore(scene, 100000);
    assert_int_equal(g_hash_table_size(scene->seen), 16);
    assert_true(saw(scene, "abcdef"));
    assert_true(saw(scene, "a.cde"));
    assert_true(saw(scene, ".bcdef."));
    assert_true(saw(scene, "..cde.."));
}

static void a_write_past_the_end_makes_the_disk_longer_or_not(void **state)
{
    Scene *scene = *state;

    write_letters(scene, SECTORS, "xy");
    explore(scene, 100000);
    assert_true(saw(scene, "......"));
    assert_true(saw(scene, "......x"));
    assert_true(saw(scene, "......xy"));
    assert_true(saw(scene, "........")); /* the length without the data */
}

/* ---- Many states ------------------------------------------------------------------ */

static void a_window_of_more_than_ten_is_searched_at_both_ends(void **state)
{
    Scene *scene = *state;

    for (int i = 0; i < 40; i++) {
        char letter[2] = {i < SECTORS ? 'a' + i : i == 39 ? 'z' : 'y', 0};

        write_letters(scene, i < SECTORS ? i : i % 3, letter);
    }
    explore(scene, 3000);
    assert_true(saw(scene, "zyydef")); /* all */
    assert_true(saw(scene, "z.....")); /* the newest alone */
    assert_true(saw(scene, "zyy.ef")); /* an old one missing */
    assert_true(saw(scene, "...d..")); /* an old one alone */
}

static void the_budget_bounds_what_is_examined(void **state)
{
    Scene *scene = *state;
    CrashCounts counts;

    for (int i = 0; i < 30; i++) {
        char letter[2] = {'a' + i % 20, 0};

        write_letters(scene, i % SECTORS, letter);
    }
    counts = explore(scene, 200);
    assert_true(counts.examined >= 100);
    assert_true(counts.examined <= 400);
    assert_true(counts.built <= 2000);
}

/* A random log: single sectors, up to three in flight, now and then a flush. */
static void random_log(Scene *scene, uint64_t seed)
{
    uint64_t random = seed;
    CrashEntry *open[3] = {NULL};

    for (int i = 0; i < 12; i++) {
        unsigned slot = crash_random(&random, G_N_ELEMENTS(open));
        char letter[2] = {'a' + i, 0};

        if (open[slot]) {
            crash_log_end(scene->log, g_steal_pointer(&open[slot]));
        } else if (crash_random(&random, 4) == 0) {
            open[slot] = begin(scene, CRASH_FLUSH, 0, 0);
        } else {
            unsigned disk = crash_random(&random, 2);

            open[slot] = begin_write(scene, disk, crash_random(&random, 4), letter);
            open[slot]->fua = crash_random(&random, 8) == 0;
        }
    }
}

/* Add the pictures of all states at @cut to @all: every choice of what is not certain. */
static void count_cut(Scene *scene, uint64_t cut, GHashTable *all)
{
    unsigned n = scene->log->entries->len;

    for (unsigned mask = 0; mask < 1u << n; mask++) {
        g_autoptr(CrashStore) store = crash_store_copy(scene->start);
        bool possible = true;

        for (unsigned i = 0; i < n; i++) {
            CrashEntry *entry = crash_log_entry(scene->log, i);
            bool kept = mask >> i & 1, certain = entry->fua && entry->end < cut;

            for (unsigned f = 0; f < n; f++) {
                CrashEntry *by = crash_log_entry(scene->log, f);

                certain |= by->kind == CRASH_FLUSH && by->disk == entry->disk &&
                           by->end < cut && entry->end < by->begin;
            }
            possible &= kept ? entry->begin < cut && entry->kind == CRASH_WRITE
                             : !certain || entry->kind == CRASH_FLUSH;
        }
        /* In order of caching, which for this log is the order of ending. */
        for (uint64_t at = 0; possible && at <= scene->log->position; at++) {
            for (unsigned i = 0; i < n; i++) {
                CrashEntry *entry = crash_log_entry(scene->log, i);
                bool last = at == scene->log->position && entry->cached == CRASH_NEVER;

                if ((mask >> i & 1) && (entry->cached == at || last)) {
                    crash_entry_apply(entry, (CrashTear){CRASH_WHOLE},
                                      crash_store_image(store, entry->disk));
                }
            }
        }
        if (possible) {
            g_hash_table_add(all, picture(store));
        }
    }
}

static void random_logs_leave_exactly_what_is_possible(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        g_autoptr(GHashTable) all = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        Scene *scene;

        set_up((void **)&scene);
        random_log(scene, seed);
        explore(scene, 1000000);
        for (uint64_t cut = 0; cut <= scene->log->position; cut++) {
            count_cut(scene, cut, all);
        }
        if (g_hash_table_size(all) != g_hash_table_size(scene->seen)) {
            fail_msg("seed %d: %u states of %u", (int)seed, g_hash_table_size(scene->seen),
                     g_hash_table_size(all));
        }
        tear_down((void **)&scene);
    }
}

/* Call the @n-th picture that the log leaves bad; its name must lead to it again. */
static void find_and_replay(Scene *scene, unsigned n)
{
    g_autoptr(GString) why = g_string_new(NULL);
    g_autoptr(GList) pictures = g_hash_table_get_keys(scene->seen);
    g_autofree char *wanted = g_strdup(g_list_nth_data(pictures, n));
    g_autofree char *name = NULL;
    CrashExplorer x = {scene->log, scene->start, 7, 3000, look, NULL, scene};
    bool found;

    scene->refused = wanted;
    found = !crash_explore(&x, why);
    if (found) {
        name = g_steal_pointer(&x.violation);
        assert_false(crash_replay(&x, name, why));
        assert_string_equal(x.violation, name);
        g_free(g_steal_pointer(&x.violation));
        assert_string_equal(why->str, "refusedrefused");
        scene->refused = "another";
        assert_true(crash_replay(&x, name, why));
    }
    scene->refused = NULL;
    assert_true(found);
}

static void the_name_of_a_state_leads_to_it(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        Scene *scene;

        set_up((void **)&scene);
        random_log(scene, seed);
        write_letters(scene, 0, "tuv");
        write_letters(scene, 2, "wxyz");
        CrashExplorer x = {scene->log, scene->start, 7, 3000, look, NULL, scene};
        g_autoptr(GString) why = g_string_new(NULL);

        assert_true(crash_explore(&x, why));
        find_and_replay(scene, seed % g_hash_table_size(scene->seen));
        tear_down((void **)&scene);
    }
}

static void names_that_do_not_fit_are_refused(void **state)
{
    static const char *const names[] = {"", "x", "2", "9999:", "2:7", "2:0x", "2:0-1", ":0"};
    Scene *scene = *state;
    CrashExplorer x = {scene->log, scene->start, 1, 100, look, NULL, scene};

    write_letters(scene, 0, "a");
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GString) why = g_string_new(NULL);

        assert_false(crash_replay(&x, names[i], why));
        assert_true(why->len > 0);
    }
    assert_int_equal(x.counts.examined, 0);
}

int main(void)
{
#define SCENE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SCENE_TEST(all_subsets_of_unflushed_writes_are_built_and_no_other_state),
        SCENE_TEST(what_was_flushed_is_in_every_state_after_it),
        SCENE_TEST(a_flush_does_not_cover_what_was_in_flight),
        SCENE_TEST(a_flush_counts_when_it_is_over),
        SCENE_TEST(fua_makes_one_write_durable_alone),
        SCENE_TEST(each_disk_is_flushed_by_itself),
        SCENE_TEST(later_writes_lie_above_earlier_ones),
        SCENE_TEST(a_write_is_torn_at_every_sector_and_in_between),
        SCENE_TEST(a_torn_write_may_have_others_missing_before_it),
        SCENE_TEST(lengths_and_zeroes_and_discards_are_in_doubt_like_writes),
        SCENE_TEST(a_write_past_the_end_makes_the_disk_longer_or_not),
        SCENE_TEST(a_window_of_more_than_ten_is_searched_at_both_ends),
        SCENE_TEST(the_budget_bounds_what_is_examined),
        cmocka_unit_test(random_logs_leave_exactly_what_is_possible),
        cmocka_unit_test(the_name_of_a_state_leads_to_it),
        SCENE_TEST(names_that_do_not_fit_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
