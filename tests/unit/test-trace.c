/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace events: what is switched on, the form of a line, where it goes, and
 * the argument of --trace.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <glib/gstdio.h>
#include "util/trace.h"

static char *dir;
static char *file;

static int set_up(void **state)
{
    dir = g_dir_make_tmp("test-trace-XXXXXX", NULL);
    file = g_build_filename(dir, "trace", NULL);
    return dir ? 0 : -1;
}

static int tear_down(void **state)
{
    trace_enable("-*", NULL);
    trace_set_file(NULL, NULL);
    g_unlink(file);
    g_rmdir(dir);
    g_clear_pointer(&file, g_free);
    g_clear_pointer(&dir, g_free);
    return 0;
}

static char *content(void)
{
    char *text = NULL;

    g_file_get_contents(file, &text, NULL, NULL);
    return text;
}

static void assert_no_error(GError *err)
{
    if (err) {
        fail_msg("%s", err->message);
    }
}

static void assert_and_clear(GError **err, int code, const char *message)
{
    assert_non_null(*err);
    assert_int_equal((*err)->domain, TRACE_ERROR);
    assert_int_equal((*err)->code, code);
    assert_string_equal((*err)->message, message);
    g_clear_error(err);
}

static void an_event_is_off_until_switched_on_and_after_off(void **state)
{
    g_autofree char *text = NULL;

    assert_true(trace_set_file(file, NULL));
    trace_coroutine_end((void *)0x11);
    assert_true(trace_enable("coroutine_end", NULL));
    trace_coroutine_end((void *)0x22);
    trace_coroutine_yield((void *)0x33, NULL);
    assert_true(trace_enable("-coroutine_end", NULL));
    trace_coroutine_end((void *)0x44);
    text = content();
    assert_null(strstr(text, "co=0x11"));
    assert_non_null(strstr(text, "co=0x22"));
    assert_null(strstr(text, "co=0x33"));
    assert_null(strstr(text, "co=0x44"));
}

static void a_line_has_pid_time_name_and_arguments(void **state)
{
    g_autofree char *text = NULL;
    g_autofree char *expected =
        g_strdup_printf("^%d@[0-9]+\\.[0-9]{6}:coroutine_enter from=0x1 co=0x2\n$", (int)getpid());
    int64_t before = g_get_real_time() / G_USEC_PER_SEC;
    int64_t time;

    assert_true(trace_set_file(file, NULL));
    assert_true(trace_enable("coroutine_enter", NULL));
    trace_coroutine_enter((void *)1, (void *)2);
    text = content();
    if (!g_regex_match_simple(expected, text, 0, 0)) {
        fail_msg("not as expected: %s", text);
    }
    assert_int_equal(sscanf(text, "%*d@%" SCNd64, &time), 1);
    assert_true(time >= before && time <= g_get_real_time() / G_USEC_PER_SEC);
}

static void a_pattern_switches_all_that_match(void **state)
{
    GError *err = NULL;

    trace_enable("coroutine_*", &err);
    assert_no_error(err);
    assert_true(trace_event_on[TRACE_ID_coroutine_enter]);
    assert_true(trace_event_on[TRACE_ID_coroutine_end]);
    assert_false(trace_event_on[TRACE_ID_co_mutex_wait]);
    assert_true(trace_enable("-coroutine_e?d", NULL));
    assert_true(trace_event_on[TRACE_ID_coroutine_enter]);
    assert_false(trace_event_on[TRACE_ID_coroutine_end]);
    assert_true(trace_enable("*", NULL));
    assert_true(trace_event_on[TRACE_ID_co_mutex_wait]);
}

static void a_pattern_that_matches_nothing_is_an_error(void **state)
{
    GError *err = NULL;

    assert_false(trace_enable("coroutine", &err));
    assert_and_clear(&err, ENOENT, "trace event 'coroutine' does not exist");
    assert_false(trace_enable("-nothing*", &err));
    assert_and_clear(&err, ENOENT, "trace event 'nothing*' does not exist");
}

static void an_option_names_patterns_and_a_file(void **state)
{
    g_autofree char *option = g_strdup_printf("coroutine_*,enable=-coroutine_end,file=%s", file);
    g_autofree char *text = NULL;
    GError *err = NULL;

    trace_parse_option(option, NULL, &err);
    assert_no_error(err);
    assert_true(trace_event_on[TRACE_ID_coroutine_enter]);
    assert_false(trace_event_on[TRACE_ID_coroutine_end]);
    trace_coroutine_yield((void *)0x55, NULL);
    text = content();
    assert_non_null(strstr(text, "coroutine_yield co=0x55"));
}

static void an_option_names_a_file_of_patterns(void **state)
{
    g_autofree char *list = g_build_filename(dir, "events", NULL);
    g_autofree char *option = g_strdup_printf("events=%s", list);
    g_autofree char *expected = g_strdup_printf("%s:2: trace event 'x' does not exist", list);
    GError *err = NULL;

    g_file_set_contents(list, "# comment\n\n  co_mutex_* # locks\ncoroutine_end", -1, NULL);
    trace_parse_option(option, NULL, &err);
    assert_no_error(err);
    assert_true(trace_event_on[TRACE_ID_co_mutex_wait]);
    assert_true(trace_event_on[TRACE_ID_coroutine_end]);
    assert_false(trace_event_on[TRACE_ID_coroutine_enter]);

    g_file_set_contents(list, "coroutine_end\nx\n", -1, NULL);
    assert_false(trace_parse_option(option, NULL, &err));
    assert_and_clear(&err, ENOENT, expected);
    g_unlink(list);
    assert_false(trace_parse_option(option, NULL, &err));
    assert_int_equal(err->code, ENOENT);
    assert_non_null(strstr(err->message, list));
    g_clear_error(&err);
}

static void unknown_events_are_told_and_the_rest_is_done(void **state)
{
    g_autoptr(GPtrArray) unknown = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *list = g_build_filename(dir, "events", NULL);
    g_autofree char *option = g_strdup_printf("y,coroutine_enter,events=%s", list);
    g_autofree char *expected = g_strdup_printf("%s:1: trace event 'x' does not exist", list);
    GError *err = NULL;

    g_file_set_contents(list, "x\n-coroutine_enter\ncoroutine_end\n", -1, NULL);
    trace_parse_option(option, unknown, &err);
    assert_no_error(err);
    g_unlink(list);
    assert_int_equal(unknown->len, 2);
    assert_string_equal(g_ptr_array_index(unknown, 0), "trace event 'y' does not exist");
    assert_string_equal(g_ptr_array_index(unknown, 1), expected);
    assert_false(trace_event_on[TRACE_ID_coroutine_enter]);
    assert_true(trace_event_on[TRACE_ID_coroutine_end]);
    assert_false(trace_parse_option(option, unknown, &err));
    assert_int_equal(err->code, ENOENT);
    g_clear_error(&err);
}

static void an_option_empties_the_file(void **state)
{
    g_autofree char *option = g_strdup_printf("file=%s", file);
    g_autofree char *text = NULL;

    g_file_set_contents(file, "before\n", -1, NULL);
    assert_true(trace_parse_option(option, NULL, NULL));
    text = content();
    assert_string_equal(text, "");
}

static void the_name_of_a_file_can_have_the_process_in_it(void **state)
{
    g_autofree char *option = g_strdup_printf("file=%s-%%d-", file);
    g_autofree char *expected = g_strdup_printf("%s-%d-", file, (int)getpid());
    GError *err = NULL;

    trace_parse_option(option, NULL, &err);
    assert_no_error(err);
    assert_int_equal(g_unlink(expected), 0);
    assert_false(trace_parse_option("file=a%x", NULL, &err));
    assert_and_clear(&err, EINVAL, "Bad logfile template: a%x");
    assert_false(trace_parse_option("file=a%d%d", NULL, &err));
    assert_and_clear(&err, EINVAL, "Bad logfile template: a%d%d");
}

static void a_wrong_option_is_an_error(void **state)
{
    g_autofree char *bad = g_build_filename(dir, "no", "such", "folder", NULL);
    g_autofree char *option = g_strdup_printf("file=%s", bad);
    g_autofree char *expected =
        g_strdup_printf("Error opening logfile %s: No such file or directory", bad);
    GError *err = NULL;

    assert_false(trace_parse_option("color=red", NULL, &err));
    assert_and_clear(&err, EINVAL, "Invalid parameter 'color'");
    assert_false(trace_parse_option("en=coroutine_end", NULL, &err));
    assert_and_clear(&err, EINVAL, "Invalid parameter 'en'");
    assert_false(trace_parse_option("coroutine_end,", NULL, &err));
    assert_and_clear(&err, ENOENT, "trace event '' does not exist");
    assert_false(trace_parse_option(option, NULL, &err));
    assert_and_clear(&err, ENOENT, expected);
}

static void the_environment_variable_is_an_option(void **state)
{
    g_autofree char *option = g_strdup_printf("file=%s", file);
    g_autofree char *text = NULL;
    GError *err = NULL;

    g_unsetenv("BLOCKGRAPH_TRACE");
    assert_true(trace_init(NULL));
    g_setenv("BLOCKGRAPH_TRACE", "", TRUE);
    assert_true(trace_init(NULL));
    for (unsigned i = 0; i < TRACE_ID__MAX; i++) {
        assert_false(trace_event_on[i]);
    }
    g_setenv("BLOCKGRAPH_TRACE", "co_mutex_*,coroutine_end", TRUE);
    trace_init(&err);
    assert_no_error(err);
    assert_true(trace_event_on[TRACE_ID_co_mutex_pass]);
    assert_true(trace_event_on[TRACE_ID_coroutine_end]);
    g_file_set_contents(file, "before\n", -1, NULL);
    g_setenv("BLOCKGRAPH_TRACE", option, TRUE);
    trace_init(&err);
    assert_no_error(err);
    text = content();
    assert_string_equal(text, "before\n");
    g_setenv("BLOCKGRAPH_TRACE", "x", TRUE);
    assert_false(trace_init(&err));
    assert_and_clear(&err, ENOENT, "BLOCKGRAPH_TRACE: trace event 'x' does not exist");
    g_unsetenv("BLOCKGRAPH_TRACE");
}

static void lines_are_appended_and_go_back_to_stderr(void **state)
{
    g_autofree char *stderr_file = g_build_filename(dir, "stderr", NULL);
    g_autofree char *text = NULL, *stderr_text = NULL;
    int saved_stderr = dup(STDERR_FILENO);

    g_file_set_contents(file, "before\n", -1, NULL);
    assert_true(trace_set_file(file, NULL));
    assert_true(trace_enable("coroutine_end", NULL));
    trace_coroutine_end(NULL);
    assert_non_null(freopen(stderr_file, "w", stderr));
    assert_true(trace_set_file(NULL, NULL));
    trace_coroutine_end((void *)0x66);
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);

    text = content();
    assert_true(g_str_has_prefix(text, "before\n"));
    assert_non_null(strstr(text, "coroutine_end co="));
    assert_null(strstr(text, "co=0x66"));
    g_file_get_contents(stderr_file, &stderr_text, NULL, NULL);
    assert_non_null(strstr(stderr_text, "coroutine_end co=0x66\n"));
    g_unlink(stderr_file);
}

static void a_line_stays_one_line(void **state)
{
    g_autofree char *text = NULL;
    char text_long[3000];

    memset(text_long, 'x', sizeof(text_long) - 1);
    text_long[sizeof(text_long) - 1] = 0;
    assert_true(trace_set_file(file, NULL));
    trace_write(TRACE_ID_coroutine_end, "name=%s", "a\nb\033c");
    trace_write(TRACE_ID_coroutine_end, "name=%s", text_long);
    text = content();
    assert_non_null(strstr(text, "name=a?b?c\n"));
    assert_true(g_str_has_suffix(text, "xxx\n"));
    assert_in_range(strlen(text), 1000, 1200);
}

#define LINES 500

static void *write_lines(void *opaque)
{
    for (uintptr_t i = 1; i <= LINES; i++) {
        trace_coroutine_enter(opaque, (void *)i);
    }
    return NULL;
}

static void threads_do_not_mix_their_lines(void **state)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    pthread_t threads[4];
    unsigned next[G_N_ELEMENTS(threads) + 1] = { 0 };

    assert_true(trace_set_file(file, NULL));
    assert_true(trace_enable("coroutine_enter", NULL));
    for (uintptr_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (void *)(i + 1)), 0);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    text = content();
    lines = g_strsplit(text, "\n", -1);
    assert_int_equal(g_strv_length(lines), G_N_ELEMENTS(threads) * LINES + 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads) * LINES; i++) {
        unsigned pid, thread, number;
        long long time;
        int us;

        assert_int_equal(sscanf(lines[i], "%u@%lld.%d:coroutine_enter from=0x%x co=0x%x", &pid,
                                &time, &us, &thread, &number),
                         5);
        assert_in_range(thread, 1, G_N_ELEMENTS(threads));
        assert_int_equal(number, ++next[thread]);
    }
}

static void the_list_has_every_event_once(void **state)
{
    FILE *out = fopen(file, "w");
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    trace_list_events(out);
    fclose(out);
    text = content();
    lines = g_strsplit(text, "\n", -1);
    assert_int_equal(g_strv_length(lines), TRACE_ID__MAX + 1);
    for (unsigned i = 0; i < TRACE_ID__MAX; i++) {
        assert_true(trace_enable(lines[i], NULL));
        for (unsigned k = 0; k < TRACE_ID__MAX; k++) {
            assert_int_equal(trace_event_on[k], k == i);
        }
        trace_enable("-*", NULL);
    }
}

static void an_event_keeps_errno(void **state)
{
    assert_true(trace_enable("coroutine_end", NULL));
    assert_true(trace_set_file("/dev/full", NULL));
    errno = EXDEV;
    trace_coroutine_end(NULL);
    assert_int_equal(errno, EXDEV);
}

static void an_event_is_a_usdt_probe(void **state)
{
#if __has_include(<sys/sdt.h>)
    /* Put together here, so that the program does not contain it for our sake. */
    char needle[64] = "blockgraph";
    size_t provider_len = strlen(needle) + 1;
    size_t needle_len = provider_len + strlen("coroutine_enter") + 1;
    g_autofree char *program = NULL;
    size_t len;

    memcpy(needle + provider_len, "coroutine_enter", needle_len - provider_len);
    assert_true(g_file_get_contents("/proc/self/exe", &program, &len, NULL));
    assert_non_null(memmem(program, len, needle, needle_len));
#else
    skip();
#endif
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_event_is_off_until_switched_on_and_after_off),
        TEST(a_line_has_pid_time_name_and_arguments),
        TEST(a_pattern_switches_all_that_match),
        TEST(a_pattern_that_matches_nothing_is_an_error),
        TEST(an_option_names_patterns_and_a_file),
        TEST(an_option_names_a_file_of_patterns),
        TEST(unknown_events_are_told_and_the_rest_is_done),
        TEST(an_option_empties_the_file),
        TEST(the_name_of_a_file_can_have_the_process_in_it),
        TEST(a_wrong_option_is_an_error),
        TEST(the_environment_variable_is_an_option),
        TEST(lines_are_appended_and_go_back_to_stderr),
        TEST(a_line_stays_one_line),
        TEST(threads_do_not_mix_their_lines),
        TEST(the_list_has_every_event_once),
        TEST(an_event_keeps_errno),
        TEST(an_event_is_a_usdt_probe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
