/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options: from text in both forms, merging, and taking values out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "blockgraph/error.h"
#include "blockgraph/options.h"

/* ---- Helpers ------------------------------------------------------------------ */

static void assert_options(JsonObject *options, const char *expected)
{
    g_autofree char *text = NULL;

    assert_non_null(options);
    text = block_options_to_filename(options);
    assert_true(g_str_has_prefix(text, "json:"));
    assert_string_equal(text + 5, expected);
}

static void assert_parses(const char *text, const char *implied_key, const char *expected)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(text, implied_key, &err);

    if (err) {
        fail_msg("'%s': %s", text, err->message);
    }
    assert_options(options, expected);
}

static void assert_json_parses(const char *text, const char *expected)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = block_options_parse_json(text, &err);

    if (err) {
        fail_msg("'%s': %s", text, err->message);
    }
    assert_options(options, expected);
}

static void assert_message(JsonObject *options, GError *err, const char *text, const char *message)
{
    assert_null(options);
    assert_non_null(err);
    assert_true(err->domain == BLOCK_ERROR);
    if (strcmp(err->message, message) != 0) {
        fail_msg("'%.60s': '%s', not '%s'", text, err->message, message);
    }
}

static void assert_refused(const char *text, const char *message)
{
    g_autoptr(GError) err = NULL;
    JsonObject *options = block_options_parse(text, NULL, &err);

    assert_message(options, err, text, message);
}

static void assert_json_refused(const char *text, const char *message)
{
    g_autoptr(GError) err = NULL;
    JsonObject *options = block_options_parse_json(text, &err);

    assert_message(options, err, text, message);
}

static JsonObject *parse_json(const char *text)
{
    JsonObject *options = block_options_parse_json(text, NULL);

    assert_non_null(options);
    return options;
}

/* ---- key=value ---------------------------------------------------------------- */

static void pairs(void **state)
{
    assert_parses("", NULL, "{}");
    assert_parses("a=1", NULL, "{\"a\": \"1\"}");
    assert_parses("b=x,a=y", NULL, "{\"b\": \"x\", \"a\": \"y\"}");
    assert_parses("a=,b=2", NULL, "{\"a\": \"\", \"b\": \"2\"}");
    assert_parses("a=b=c", NULL, "{\"a\": \"b=c\"}");
    assert_parses("a=1,", NULL, "{\"a\": \"1\"}");
}

static void doubled_commas(void **state)
{
    assert_parses("f=a,,b.img,g=1", NULL, "{\"f\": \"a,b.img\", \"g\": \"1\"}");
    assert_parses("f=a,,,g=1", NULL, "{\"f\": \"a,\", \"g\": \"1\"}");
    assert_parses("f=,,,,", NULL, "{\"f\": \",,\"}");
    assert_parses("a,,b,g=1", "f", "{\"f\": \"a,b\", \"g\": \"1\"}");
}

static void flags_and_implied_key(void **state)
{
    assert_parses("quick,nolazy,no,a=1", NULL,
                  "{\"quick\": \"on\", \"lazy\": \"off\", \"no\": \"on\", \"a\": \"1\"}");
    assert_parses("qcow2,size=1", "driver", "{\"driver\": \"qcow2\", \"size\": \"1\"}");
    assert_parses("size=1,raw", "driver", "{\"size\": \"1\", \"raw\": \"on\"}");
}

static void last_one_wins(void **state)
{
    assert_parses("a=1,b=2,a=3", NULL, "{\"a\": \"3\", \"b\": \"2\"}");
    assert_parses("f.a=1,f.a=2", NULL, "{\"f\": {\"a\": \"2\"}}");
}

static void dotted_keys_nest(void **state)
{
    assert_parses("driver=qcow2,file.driver=file,file.filename=a.b", NULL,
                  "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", "
                  "\"filename\": \"a.b\"}}");
    assert_parses("a.b.c=1,a.d=2", NULL, "{\"a\": {\"b\": {\"c\": \"1\"}, \"d\": \"2\"}}");
}

static void numbered_members_become_lists(void **state)
{
    assert_parses("c.0=x,c.1=y", NULL, "{\"c\": [\"x\", \"y\"]}");
    assert_parses("c.1.f=y,c.0.f=x,c.0.g=z", NULL,
                  "{\"c\": [{\"f\": \"x\", \"g\": \"z\"}, {\"f\": \"y\"}]}");
    assert_parses("c.0.0=x,c.0.1=y", NULL, "{\"c\": [[\"x\", \"y\"]]}");
    assert_parses("a.10=10,a.0=0,a.1=1,a.2=2,a.3=3,a.4=4,a.5=5,a.6=6,a.7=7,a.8=8,a.9=9", NULL,
                  "{\"a\": [\"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"9\", "
                  "\"10\"]}");
}

static void contradictions_are_named(void **state)
{
    assert_refused("c.0=x,c.2=y", "Option 'c' has 2 list members, but not 'c.1'");
    assert_refused("c.4294967296=x", "Option 'c' has 1 list members, but not 'c.0'");
    assert_refused("c.0=x,c.name=y", "Option 'c' has both list members and named members");
    assert_refused("c.0=x,c.01=y", "Option 'c' has both list members and named members");
    assert_refused("f=x,f.driver=y", "Option 'f' has both a value and members");
    assert_refused("f.driver=y,f=x", "Option 'f' has both a value and members");
    assert_refused("=x", "Invalid parameter ''");
    assert_refused(",a=1", "Invalid parameter ''");
    assert_refused("a..b=x", "Invalid parameter 'a..b'");
    assert_refused(".b=x", "Invalid parameter '.b'");
    assert_refused("a.=x", "Invalid parameter 'a.'");
}

/* ---- JSON --------------------------------------------------------------------- */

static void json_keeps_types(void **state)
{
    assert_json_parses("{}", "{}");
    assert_json_parses(" { \"s\" : \"t\" ,\n\"i\":-12,\"b\":true,\"o\":false,\"n\":null,"
                       "\"d\":1.5,\"e\":{},\"l\":[] } ",
                       "{\"s\": \"t\", \"i\": -12, \"b\": true, \"o\": false, \"n\": null, "
                       "\"d\": 1.5, \"e\": {}, \"l\": []}");
    assert_json_parses("{\"i\":9223372036854775807}", "{\"i\": 9223372036854775807}");
}

static void json_with_dotted_keys(void **state)
{
    assert_json_parses("{\"driver\":\"raw\",\"file.driver\":\"file\",\"file.n\":1}",
                       "{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", \"n\": 1}}");
    assert_json_parses("{\"file\":{\"a.b\":1},\"file.a.c\":2}",
                       "{\"file\": {\"a\": {\"b\": 1, \"c\": 2}}}");
    assert_json_parses("{\"l\":[1,{\"a.b\":2}],\"l.2\":3}", "{\"l\": [1, {\"a\": {\"b\": 2}}, 3]}");
    assert_json_refused("{\"a.b\":1,\"a\":{\"b\":2}}", "Option 'b' is given twice");
    assert_json_refused("{\"a\":1,\"a.b\":2}", "Option 'a' has both a value and members");
    assert_json_refused("{\"a.b\":2,\"a\":1}", "Option 'a' has both a value and members");
    assert_json_refused("{\"a\":[],\"a.0\":1}", "Option 'a' has both a value and members");
}

static void json_strings(void **state)
{
    assert_json_parses("{'a':'b\"c','d':\"e'f\"}", "{\"a\": \"b\\\"c\", \"d\": \"e'f\"}");
    assert_json_parses("{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\'\"}",
                       "{\"a\": \"\\\"\\\\/\\b\\f\\n\\r\\tA'\"}");
    assert_json_parses("{\"a\":\"\\ud83d\\ude00 \xc3\xa9\"}",
                       "{\"a\": \"\\uD83D\\uDE00 \\u00E9\"}");
    assert_json_parses("{\"a\":\"[{/*\"}", "{\"a\": \"[{/*\"}");
}

static void json_errors_say_where(void **state)
{
#define PARSE "Could not parse the JSON options: JSON parse error, "
    assert_json_refused("", PARSE "expected a value at the end");
    assert_json_refused("{", PARSE "expected a string at the end");
    assert_json_refused("{\"a\":1", PARSE "expected ',' or '}' at the end");
    assert_json_refused("{\"a\":1,}", PARSE "expected a string at byte 7");
    assert_json_refused("{\"a\" 1}", PARSE "expected ':' at byte 5");
    assert_json_refused("{\"a\":[1 2]}", PARSE "expected ',' or ']' at byte 8");
    assert_json_refused("{} x", PARSE "expected the end at byte 3");
    assert_json_refused("{a:1}", PARSE "expected a string at byte 1");
    assert_json_refused("{\"a\":truth}", PARSE "expected a value at byte 5");
    assert_json_refused("{\"a\":010}", PARSE "invalid number at byte 6");
    assert_json_refused("{\"a\":0x10}", PARSE "expected ',' or '}' at byte 6");
    assert_json_refused("{\"a\":-}", PARSE "invalid number at byte 6");
    assert_json_refused("{\"a\":1.}", PARSE "invalid number at byte 7");
    assert_json_refused("{\"a\":1e}", PARSE "invalid number at byte 7");
    assert_json_refused("{\"a\":9223372036854775808}", PARSE "number out of range at byte 24");
    assert_json_refused("{\"a\":\"\\q\"}", PARSE "invalid escape at byte 7");
    assert_json_refused("{\"a\":\"\\", PARSE "invalid escape at the end");
    assert_json_refused("{\"a\":\"\\u12\"}", PARSE "expected four hexadecimal digits at byte 10");
    assert_json_refused("{\"a\":\"\\u0000\"}", PARSE "invalid character at byte 12");
    assert_json_refused("{\"a\":\"\\udc00\"}", PARSE "invalid character at byte 12");
    assert_json_refused("{\"a\":\"\\ud800\\u0041\"}", PARSE "unpaired surrogate at byte 18");
    assert_json_refused("{\"a\":\"x\ny\"}", PARSE "expected the end of a string at byte 7");
    assert_json_refused("{\"a\":\"\xff\"}", PARSE "invalid UTF-8 at byte 6");
    assert_json_refused("{\"a\":1,\"a\":2}", PARSE "duplicate key 'a'");
    assert_json_refused("/* c */ {}", PARSE "expected a value at byte 0");
    assert_json_refused("[1]", "The JSON options are no object");
    assert_json_refused("\"x\"", "The JSON options are no object");
    assert_json_refused("{\"\":1}", "Invalid parameter ''");
#undef PARSE
}

/* ---- Hostile input ------------------------------------------------------------ */

/* @count times @open, @middle, @count times @close. */
static char *nest(const char *open, const char *middle, const char *close, unsigned count)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < count; i++) {
        g_string_append(text, open);
    }
    g_string_append(text, middle);
    for (unsigned i = 0; i < count; i++) {
        g_string_append(text, close);
    }
    return g_string_free(text, FALSE);
}

static void nesting_is_bounded(void **state)
{
    const char *const too_deep[] = { "{\"a\":[", "{\"a\":{\"a\":", "{\"a\":[{\"b.c.d\":" };

    for (size_t i = 0; i < G_N_ELEMENTS(too_deep); i++) {
        g_autofree char *json = nest(too_deep[i], "", "", 50000);
        g_autoptr(GError) err = NULL;

        assert_null(block_options_parse_json(json, &err));
        assert_non_null(strstr(err->message, "nested too deep"));
    }
    {
        g_autofree char *key = nest("a.", "a=1", "", 300000);
        g_autoptr(GError) err = NULL;

        assert_null(block_options_parse(key, NULL, &err));
        assert_string_equal(err->message, "Option 'a' is nested too deep");
    }
}

static void sixty_four_levels_are_fine(void **state)
{
    g_autofree char *json = nest("{\"a\":", "1", "}", 64);
    g_autofree char *deeper = nest("{\"a\":", "1", "}", 65);
    g_autofree char *key = nest("a.", "a=1", "", 63);
    g_autofree char *deeper_key = nest("a.", "a=1", "", 64);
    g_autofree char *mixed = nest("{\"a.a\":", "1", "}", 32);
    g_autofree char *deeper_mixed = nest("{\"a.a\":", "{\"a\":1}", "}", 32);
    JsonObject *options;

    options = parse_json(json);
    json_object_unref(options);
    assert_null(block_options_parse_json(deeper, NULL));
    options = block_options_parse(key, NULL, NULL);
    assert_non_null(options);
    json_object_unref(options);
    assert_null(block_options_parse(deeper_key, NULL, NULL));
    options = parse_json(mixed);
    json_object_unref(options);
    assert_null(block_options_parse_json(deeper_mixed, NULL));
}

static void text_is_bounded(void **state)
{
    g_autofree char *json = g_strnfill(2 << 20, ' ');

    json[0] = '{';
    json[(2 << 20) - 1] = '}';
    assert_json_refused(json, "Could not parse the JSON options: JSON parse error, longer than "
                              "1048576 bytes");
}

/* ---- Objects ------------------------------------------------------------------ */

static void copies_are_deep(void **state)
{
    g_autoptr(JsonObject) options = parse_json("{\"a\":{\"b\":[1,{\"c\":2}]}}");
    g_autoptr(JsonObject) copy = block_options_copy(options);
    g_autoptr(JsonObject) empty = block_options_copy(NULL);
    JsonObject *a = json_object_get_object_member(options, "a");

    json_object_set_int_member(json_array_get_object_element(
                                   json_object_get_array_member(a, "b"), 1), "c", 9);
    json_object_set_int_member(a, "d", 3);
    assert_options(copy, "{\"a\": {\"b\": [1, {\"c\": 2}]}}");
    assert_options(empty, "{}");
}

static void merging_keeps_own_members(void **state)
{
    g_autoptr(JsonObject) into = parse_json("{\"a\":1,\"f\":{\"x\":1},\"l\":[1],\"s\":\"n0\"}");
    g_autoptr(JsonObject) from =
        parse_json("{\"a\":2,\"b\":3,\"f\":{\"x\":2,\"y\":4},\"l\":[2,3],\"s\":{\"z\":5}}");

    block_options_merge(into, from);
    assert_options(into, "{\"a\": 1, \"f\": {\"x\": 1, \"y\": 4}, \"l\": [1], \"s\": \"n0\", "
                         "\"b\": 3}");
    assert_options(from, "{\"a\": 2, \"b\": 3, \"f\": {\"x\": 2, \"y\": 4}, \"l\": [2, 3], "
                         "\"s\": {\"z\": 5}}");
}

static void names_that_are_not_utf8_are_written(void **state)
{
    assert_parses("f=a\xff\x01", NULL, "{\"f\": \"a\\uFFFD\\u0001\"}");
}

/* ---- Taking ------------------------------------------------------------------- */

static void takes_strings(void **state)
{
    g_autoptr(JsonObject) options = parse_json("{\"a\":\"x\",\"b\":1,\"c\":null}");
    g_autofree char *value = NULL;
    g_autoptr(GError) err = NULL;

    assert_true(block_options_take_string(options, "none", &value, &err));
    assert_null(value);
    assert_true(block_options_take_string(options, "a", &value, &err));
    assert_string_equal(value, "x");
    assert_false(block_options_take_string(options, "b", &value, &err));
    assert_string_equal(err->message, "Parameter 'b' expects a string, not '1'");
    assert_string_equal(value, "x");
    g_clear_error(&err);
    assert_false(block_options_take_string(options, "c", &value, &err));
    assert_string_equal(err->message, "Parameter 'c' expects a string, not 'null'");
    assert_int_equal(json_object_get_size(options), 0);
}

static void takes_booleans(void **state)
{
    static const char *const yes[] = { "\"on\"", "\"true\"", "\"yes\"", "true" };
    static const char *const no[] = { "\"off\"", "\"false\"", "\"no\"", "false" };
    static const char *const bad[] = { "\"maybe\"", "1", "\"\"", "null", "{\"x\":1}", "\"ON\"" };
    bool value;

    for (size_t i = 0; i < G_N_ELEMENTS(yes); i++) {
        g_autofree char *json = g_strdup_printf("{\"a\":%s,\"b\":%s}", yes[i], no[i]);
        g_autoptr(JsonObject) options = parse_json(json);

        value = false;
        assert_true(block_options_take_bool(options, "a", &value, NULL));
        assert_true(value);
        assert_true(block_options_take_bool(options, "b", &value, NULL));
        assert_false(value);
        assert_int_equal(json_object_get_size(options), 0);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *json = g_strdup_printf("{\"a\":%s}", bad[i]);
        g_autoptr(JsonObject) options = parse_json(json);
        g_autoptr(GError) err = NULL;

        value = true;
        assert_false(block_options_take_bool(options, "a", &value, &err));
        assert_true(g_str_has_prefix(err->message, "Parameter 'a' expects 'on' or 'off'"));
        assert_true(value);
    }
}

static void takes_integers(void **state)
{
    static const struct {
        const char *json;
        int64_t value;
    } good[] = {
        { "7", 7 }, { "-7", -7 }, { "\"7\"", 7 }, { "\"-7\"", -7 }, { "\"0x10\"", 16 },
        { "\"9223372036854775807\"", INT64_MAX }, { "\"-9223372036854775808\"", INT64_MIN },
    };
    static const char *const bad[] = { "\"\"", "\"7x\"", "\"9223372036854775808\"", "1.5", "true",
                                       "\"1k\"", "[1]" };
    int64_t value;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *json = g_strdup_printf("{\"a\":%s}", good[i].json);
        g_autoptr(JsonObject) options = parse_json(json);

        assert_true(block_options_take_int(options, "a", &value, NULL));
        assert_int_equal(value, good[i].value);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *json = g_strdup_printf("{\"a\":%s}", bad[i]);
        g_autoptr(JsonObject) options = parse_json(json);
        g_autoptr(GError) err = NULL;

        value = 42;
        assert_false(block_options_take_int(options, "a", &value, &err));
        assert_true(g_str_has_prefix(err->message, "Parameter 'a' expects a number, not"));
        assert_int_equal(value, 42);
    }
}

static void takes_sizes(void **state)
{
    g_autoptr(JsonObject) options =
        parse_json("{\"a\":65536,\"b\":\"64k\",\"c\":-1,\"d\":\"x\",\"e\":\"8E\",\"f\":1.5}");
    int64_t value = 42;

    assert_true(block_options_take_size(options, "none", &value, NULL));
    assert_int_equal(value, 42);
    assert_true(block_options_take_size(options, "a", &value, NULL));
    assert_int_equal(value, 65536);
    value = 42;
    assert_true(block_options_take_size(options, "b", &value, NULL));
    assert_int_equal(value, 65536);
    for (const char *key = "cdef"; *key; key++) {
        const char name[] = { *key, 0 };
        g_autoptr(GError) err = NULL;

        assert_false(block_options_take_size(options, name, &value, &err));
        assert_true(strstr(err->message, "expects a non-negative number below 2^64") != NULL ||
                    strstr(err->message, "is out of range for parameter") != NULL);
        assert_int_equal(value, 65536);
    }
    assert_int_equal(json_object_get_size(options), 0);
}

static void takes_words(void **state)
{
    static const char *const words[] = { "off", "metadata", "full", NULL };
    g_autoptr(JsonObject) options = parse_json("{\"a\":\"full\",\"b\":\"half\",\"c\":1}");
    g_autoptr(GError) err = NULL;
    int value = -1;

    assert_true(block_options_take_enum(options, "none", words, &value, &err));
    assert_int_equal(value, -1);
    assert_true(block_options_take_enum(options, "a", words, &value, &err));
    assert_int_equal(value, 2);
    assert_false(block_options_take_enum(options, "b", words, &value, &err));
    assert_string_equal(err->message,
                        "Parameter 'b' expects one of 'off', 'metadata', 'full', not 'half'");
    g_clear_error(&err);
    assert_false(block_options_take_enum(options, "c", words, &value, &err));
    assert_int_equal(value, 2);
}

static void takes_containers(void **state)
{
    g_autoptr(JsonObject) options =
        parse_json("{\"o\":{\"a\":1},\"l\":[1,2],\"s\":\"n0\",\"t\":\"n1\"}");
    g_autoptr(JsonObject) object = NULL;
    g_autoptr(JsonArray) array = NULL;
    g_autoptr(GError) err = NULL;

    assert_true(block_options_take_object(options, "none", &object, &err));
    assert_null(object);
    assert_true(block_options_take_object(options, "o", &object, &err));
    assert_options(object, "{\"a\": 1}");
    assert_true(block_options_take_array(options, "none", &array, &err));
    assert_null(array);
    assert_true(block_options_take_array(options, "l", &array, &err));
    assert_int_equal(json_array_get_length(array), 2);
    assert_false(block_options_take_object(options, "s", &object, &err));
    assert_string_equal(err->message, "Parameter 's' expects an object, not 'n0'");
    g_clear_error(&err);
    assert_false(block_options_take_array(options, "t", &array, &err));
    assert_string_equal(err->message, "Parameter 't' expects a list, not 'n1'");
    assert_int_equal(json_object_get_size(options), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs),
        cmocka_unit_test(doubled_commas),
        cmocka_unit_test(flags_and_implied_key),
        cmocka_unit_test(last_one_wins),
        cmocka_unit_test(dotted_keys_nest),
        cmocka_unit_test(numbered_members_become_lists),
        cmocka_unit_test(contradictions_are_named),
        cmocka_unit_test(json_keeps_types),
        cmocka_unit_test(json_with_dotted_keys),
        cmocka_unit_test(json_strings),
        cmocka_unit_test(json_errors_say_where),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(sixty_four_levels_are_fine),
        cmocka_unit_test(text_is_bounded),
        cmocka_unit_test(copies_are_deep),
        cmocka_unit_test(merging_keeps_own_members),
        cmocka_unit_test(names_that_are_not_utf8_are_written),
        cmocka_unit_test(takes_strings),
        cmocka_unit_test(takes_booleans),
        cmocka_unit_test(takes_integers),
        cmocka_unit_test(takes_sizes),
        cmocka_unit_test(takes_words),
        cmocka_unit_test(takes_containers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
