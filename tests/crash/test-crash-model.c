/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model of the guest's disk: which values each kind of request makes
 * possible, which it rules out, and when.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "model.h"

#define SECTORS 8
#define LENGTH (SECTORS * CRASH_SECTOR)
#define BASE 1  /* the number of the data that was there before */
#define ZEROS 0 /* stands for zeros in calls of may_read() */

typedef struct Scene {
    CrashLog *log;
    CrashModel *model;
} Scene;

static int set_up(void **state)
{
    Scene *scene = g_new0(Scene, 1);

    scene->log = crash_log_new();
    scene->model = crash_model_new(scene->log, LENGTH, LENGTH / 2, false);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    Scene *scene = *state;

    crash_model_free(scene->model);
    crash_log_free(scene->log);
    g_free(scene);
    return 0;
}

static unsigned begin(Scene *scene, CrashGuestKind kind)
{
    return crash_model_begin(scene->model, kind, 0, CRASH_SECTOR, false);
}

static unsigned complete(Scene *scene, CrashGuestKind kind)
{
    unsigned number = begin(scene, kind);

    crash_model_end(scene->model, number, 0);
    return number;
}

static uint64_t now(Scene *scene)
{
    return scene->log->position;
}

static bool view_allows(Scene *scene, CrashView view, int64_t offset, unsigned number)
{
    uint8_t data[CRASH_SECTOR] = {0};
    g_autoptr(GString) why = g_string_new(NULL);
    bool ok;

    if (number != ZEROS) {
        crash_model_fill(number, offset, CRASH_SECTOR, data);
    }
    ok = crash_model_allows(scene->model, view, offset, CRASH_SECTOR, data, why);
    assert_int_equal(ok, why->len == 0);
    return ok;
}

/* Whether sector 0 may have the data of request @number after a power cut at @cut. */
static bool may_have(Scene *scene, uint64_t cut, unsigned number)
{
    return view_allows(scene, crash_model_after_cut(scene->model, cut), 0, number);
}

/* Whether a read that begins and ends now may see it. */
static bool may_read(Scene *scene, unsigned number)
{
    return view_allows(scene, crash_model_read(scene->model, now(scene)), 0, number);
}

static void what_was_there_stays_until_something_is_flushed(void **state)
{
    Scene *scene = *state;
    CrashView view = crash_model_after_cut(scene->model, 0);
    unsigned w;

    assert_true(view_allows(scene, view, 0, BASE));
    assert_false(view_allows(scene, view, 0, ZEROS));
    assert_true(view_allows(scene, view, LENGTH / 2, ZEROS));
    assert_false(view_allows(scene, view, LENGTH / 2, BASE));
    w = complete(scene, CRASH_GUEST_WRITE);
    assert_false(may_have(scene, 0, w));
    assert_true(may_have(scene, 1, w));
    assert_true(may_have(scene, now(scene), BASE));
    complete(scene, CRASH_GUEST_FLUSH);
    assert_true(may_have(scene, now(scene), w));
    assert_false(may_have(scene, now(scene), BASE));
}

static void the_cut_before_the_flush_has_ended_requires_nothing(void **state)
{
    Scene *scene = *state;
    unsigned w = complete(scene, CRASH_GUEST_WRITE);

    complete(scene, CRASH_GUEST_FLUSH);
    assert_true(may_have(scene, now(scene) - 1, BASE));
    assert_false(may_have(scene, now(scene), BASE));
    assert_true(may_have(scene, now(scene) - 1, w));
}

static void a_write_in_flight_is_not_covered_by_a_flush(void **state)
{
    Scene *scene = *state;
    unsigned w = begin(scene, CRASH_GUEST_WRITE), flush = begin(scene, CRASH_GUEST_FLUSH);

    crash_model_end(scene->model, w, 0);
    crash_model_end(scene->model, flush, 0);
    assert_true(may_have(scene, now(scene), BASE));
    assert_true(may_have(scene, now(scene), w));
    assert_false(may_read(scene, BASE));
}

static void of_two_unflushed_writes_each_may_be_there(void **state)
{
    Scene *scene = *state;
    unsigned first = complete(scene, CRASH_GUEST_WRITE);
    unsigned second = complete(scene, CRASH_GUEST_WRITE);

    assert_true(may_have(scene, now(scene), BASE));
    assert_true(may_have(scene, now(scene), first));
    assert_true(may_have(scene, now(scene), second));
    assert_false(may_read(scene, first));
    assert_true(may_read(scene, second));
    complete(scene, CRASH_GUEST_FLUSH);
    assert_false(may_have(scene, now(scene), first));
    assert_true(may_have(scene, now(scene), second));
}

static void of_two_concurrent_writes_either_may_win(void **state)
{
    Scene *scene = *state;
    unsigned first = begin(scene, CRASH_GUEST_WRITE), second = begin(scene, CRASH_GUEST_WRITE);

    crash_model_end(scene->model, first, 0);
    crash_model_end(scene->model, second, 0);
    complete(scene, CRASH_GUEST_FLUSH);
    assert_true(may_have(scene, now(scene), first));
    assert_true(may_have(scene, now(scene), second));
    assert_false(may_have(scene, now(scene), BASE));
}

static void fua_is_there_when_it_has_ended(void **state)
{
    Scene *scene = *state;
    unsigned w = crash_model_begin(scene->model, CRASH_GUEST_WRITE, 0, CRASH_SECTOR, true);

    assert_true(may_have(scene, now(scene), BASE));
    assert_int_equal(crash_model_epoch(scene->model, now(scene)), 0);
    crash_model_end(scene->model, w, 0);
    assert_false(may_have(scene, now(scene), BASE));
    assert_int_equal(crash_model_epoch(scene->model, now(scene)), 1);
}

static void a_failed_write_stays_in_doubt(void **state)
{
    Scene *scene = *state;
    unsigned w = begin(scene, CRASH_GUEST_WRITE);

    crash_model_end(scene->model, w, -5);
    complete(scene, CRASH_GUEST_FLUSH);
    assert_true(may_have(scene, now(scene), w));
    assert_true(may_have(scene, now(scene), BASE));
}

static void zeroes_are_required_and_a_discard_is_a_hint(void **state)
{
    Scene *scene = *state;
    unsigned w = complete(scene, CRASH_GUEST_WRITE);

    complete(scene, CRASH_GUEST_FLUSH);
    complete(scene, CRASH_GUEST_DISCARD);
    complete(scene, CRASH_GUEST_FLUSH);
    assert_true(may_have(scene, now(scene), w));
    assert_true(may_have(scene, now(scene), ZEROS));
    assert_false(may_have(scene, now(scene), BASE));
    complete(scene, CRASH_GUEST_ZEROES);
    complete(scene, CRASH_GUEST_FLUSH);
    assert_false(may_have(scene, now(scene), w));
    assert_true(may_have(scene, now(scene), ZEROS));
}

static void a_discard_may_bring_back_the_backing_file(void **state)
{
    g_autoptr(CrashLog) log = crash_log_new();
    g_autoptr(CrashModel) model = crash_model_new(log, LENGTH, LENGTH / 2, true);
    Scene scene = {log, model};

    complete(&scene, CRASH_GUEST_WRITE);
    complete(&scene, CRASH_GUEST_FLUSH);
    assert_false(may_have(&scene, now(&scene), BASE));
    complete(&scene, CRASH_GUEST_DISCARD);
    assert_true(may_have(&scene, now(&scene), BASE));
    assert_true(may_have(&scene, now(&scene), ZEROS));
}

static void another_places_data_is_never_allowed(void **state)
{
    Scene *scene = *state;
    unsigned w = crash_model_begin(scene->model, CRASH_GUEST_WRITE, 0, LENGTH, false);
    uint8_t data[2 * CRASH_SECTOR];
    g_autoptr(GString) why = g_string_new(NULL);
    CrashView view;

    crash_model_end(scene->model, w, 0);
    view = crash_model_after_cut(scene->model, now(scene));
    crash_model_fill(w, CRASH_SECTOR, sizeof(data), data);
    assert_true(crash_model_allows(scene->model, view, CRASH_SECTOR, sizeof(data), data, why));
    assert_false(crash_model_allows(scene->model, view, 0, sizeof(data), data, why));
    assert_string_equal(why->str, "offset 0 has data of request 2 for offset 512");
    data[CRASH_SECTOR + 9] ^= 1; /* half a sector */
    assert_false(crash_model_allows(scene->model, view, CRASH_SECTOR, sizeof(data), data, why));
}

static void lengths_are_old_or_new_and_what_was_cut_off_does_not_come_back(void **state)
{
    Scene *scene = *state;
    g_autoptr(GString) why = g_string_new(NULL);
    unsigned shrink, grow;
    CrashView view;

    shrink = crash_model_begin(scene->model, CRASH_GUEST_RESIZE, 0, 0, false);
    crash_model_end(scene->model, shrink, 0);
    grow = crash_model_begin(scene->model, CRASH_GUEST_RESIZE, 2 * LENGTH, 0, false);
    crash_model_end(scene->model, grow, 0);
    assert_int_equal(crash_model_length(scene->model), 2 * LENGTH);
    view = crash_model_after_cut(scene->model, now(scene));
    assert_true(crash_model_allows_length(scene->model, view, 0, false, why));
    assert_true(crash_model_allows_length(scene->model, view, LENGTH, false, why));
    assert_true(crash_model_allows_length(scene->model, view, 2 * LENGTH, false, why));
    assert_false(crash_model_allows_length(scene->model, view, LENGTH / 2, false, why));
    assert_true(crash_model_allows_length(scene->model, view, LENGTH / 2, true, why));
    assert_true(may_have(scene, now(scene), BASE));
    complete(scene, CRASH_GUEST_FLUSH);
    view = crash_model_after_cut(scene->model, now(scene));
    assert_false(crash_model_allows_length(scene->model, view, LENGTH, true, why));
    assert_true(crash_model_allows_length(scene->model, view, 2 * LENGTH, true, why));
    assert_false(may_have(scene, now(scene), BASE));
    assert_true(may_have(scene, now(scene), ZEROS));
}

int main(void)
{
#define MODEL_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        MODEL_TEST(what_was_there_stays_until_something_is_flushed),
        MODEL_TEST(the_cut_before_the_flush_has_ended_requires_nothing),
        MODEL_TEST(a_write_in_flight_is_not_covered_by_a_flush),
        MODEL_TEST(of_two_unflushed_writes_each_may_be_there),
        MODEL_TEST(of_two_concurrent_writes_either_may_win),
        MODEL_TEST(fua_is_there_when_it_has_ended),
        MODEL_TEST(a_failed_write_stays_in_doubt),
        MODEL_TEST(zeroes_are_required_and_a_discard_is_a_hint),
        MODEL_TEST(a_discard_may_bring_back_the_backing_file),
        MODEL_TEST(another_places_data_is_never_allowed),
        MODEL_TEST(lengths_are_old_or_new_and_what_was_cut_off_does_not_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
