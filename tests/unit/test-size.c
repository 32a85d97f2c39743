/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes as text, against what QEMU makes of them.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "blockgraph/options.h"

typedef struct SizeCase {
    const char *text;
    int ret;
    int64_t bytes;
} SizeCase;

#define K INT64_C(1024)

static void check_cases(const SizeCase *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int64_t bytes = -77;
        int ret = block_parse_size(cases[i].text, 'b', &bytes);
        int64_t expected = cases[i].ret == 0 ? cases[i].bytes : -77;

        if (ret != cases[i].ret || bytes != expected) {
            fail_msg("'%s' gives %d and %" PRId64 ", not %d and %" PRId64, cases[i].text, ret,
                     bytes, cases[i].ret, expected);
        }
    }
}

static void whole_numbers_and_suffixes(void **state)
{
    static const SizeCase cases[] = {
        { "0", 0, 0 },
        { "512", 0, 512 },
        { "1b", 0, 1 },
        { "1B", 0, 1 },
        { "4k", 0, 4 * K },
        { "4K", 0, 4 * K },
        { "3m", 0, 3 * K * K },
        { "3M", 0, 3 * K * K },
        { "2g", 0, 2 * K * K * K },
        { "2G", 0, 2 * K * K * K },
        { "63T", 0, 63 * K * K * K * K },
        { "1p", 0, K * K * K * K * K },
        { "7E", 0, 7 * K * K * K * K * K * K },
        { "010", 0, 10 },
        { " 5", 0, 5 },
        { "+5", 0, 5 },
        { "9223372036854775807", 0, INT64_MAX },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void fractions(void **state)
{
    static const SizeCase cases[] = {
        { "1.5k", 0, 1536 },
        { "1.5G", 0, 1536 * K * K },
        { "0.5E", 0, K * K * K * K * K * K / 2 },
        { "12.345M", 0, 12944671 }, /* 12944670.72 */
        { "1.k", 0, 1024 },
        { ".5k", 0, 512 },
        { "1.", 0, 1 },
        { "1.0", 0, 1 },
        { "1.0b", 0, 1 },
        { "0.0004k", 0, 0 },
        { "0.0005k", 0, 1 },
        { "7.99999999999999999E", 0, INT64_MAX - 11 }, /* 2^63 - 11.53 */
        { "8.0E", -ERANGE, 0 },
        { "7.9999999999999E", 0, INT64_MAX - 115291 }, /* 2^63 - 115292.15 */
        { "1.5", -EINVAL, 0 },
        { "1.5b", -EINVAL, 0 },
        { "1.0000000000000000000000000000000001", -EINVAL, 0 },
        { "0.00000000000000000000000000000000000001k", 0, 0 },
        { ".", -EINVAL, 0 },
        { ".k", -EINVAL, 0 },
        { "1..5k", -EINVAL, 0 },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void hexadecimal_has_no_suffix(void **state)
{
    static const SizeCase cases[] = {
        { "0x10", 0, 16 },
        { "0X1b", 0, 27 },
        { "0x1e", 0, 30 },
        { "0x7fffffffffffffff", 0, INT64_MAX },
        { "0x8000000000000000", -ERANGE, 0 },
        { "0x10000000000000000", -ERANGE, 0 },
        { "0x100k", -EINVAL, 0 },
        { "0x1.8", -EINVAL, 0 },
        { "0x", -EINVAL, 0 },
        { "0xg", -EINVAL, 0 },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void out_of_range(void **state)
{
    static const SizeCase cases[] = {
        { "9223372036854775808", -ERANGE, 0 },
        { "18446744073709551616", -ERANGE, 0 },
        { "99999999999999999999999999999999", -ERANGE, 0 },
        { "8E", -ERANGE, 0 },
        { "16E", -ERANGE, 0 },
        { "18446744073709551616k", -ERANGE, 0 },
        { "-1", -ERANGE, 0 },
        { "-1k", -ERANGE, 0 },
        { "-0.5k", -ERANGE, 0 },
        { "-0", 0, 0 },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void what_is_no_size(void **state)
{
    static const SizeCase cases[] = {
        { "", -EINVAL, 0 },      { " ", -EINVAL, 0 },     { "k", -EINVAL, 0 },
        { "foo", -EINVAL, 0 },   { "1kB", -EINVAL, 0 },   { "1KiB", -EINVAL, 0 },
        { "1e3", -EINVAL, 0 },   { "1 k", -EINVAL, 0 },   { "1k ", -EINVAL, 0 },
        { "1x", -EINVAL, 0 },    { "- 1", -EINVAL, 0 },   { "--1", -EINVAL, 0 },
        { "1,5k", -EINVAL, 0 },  { "inf", -EINVAL, 0 },   { "nan", -EINVAL, 0 },
        { "-", -EINVAL, 0 },     { "-x", -EINVAL, 0 },
        { "99999999999999999999999x", -EINVAL, 0 },
    };

    check_cases(cases, G_N_ELEMENTS(cases));
}

static void default_suffix_is_for_bare_numbers(void **state)
{
    int64_t bytes;

    assert_int_equal(block_parse_size("3", 'M', &bytes), 0);
    assert_int_equal(bytes, 3 * K * K);
    assert_int_equal(block_parse_size("1.5", 'k', &bytes), 0);
    assert_int_equal(bytes, 1536);
    assert_int_equal(block_parse_size("3b", 'M', &bytes), 0);
    assert_int_equal(bytes, 3);
    assert_int_equal(block_parse_size("3k", 'M', &bytes), 0);
    assert_int_equal(bytes, 3 * K);
    assert_int_equal(block_parse_size("0x2", 'k', &bytes), 0);
    assert_int_equal(bytes, 2 * K);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_and_suffixes),
        cmocka_unit_test(fractions),
        cmocka_unit_test(hexadecimal_has_no_suffix),
        cmocka_unit_test(out_of_range),
        cmocka_unit_test(what_is_no_size),
        cmocka_unit_test(default_suffix_is_for_bare_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
