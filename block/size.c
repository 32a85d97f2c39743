/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes as users write them: "512", "4k", "1.5G", "0x200".
 */
#include <errno.h>
#include <string.h>
#include "blockgraph/options.h"

/* The power of two that a suffix stands for, or -1. */
static int suffix_shift(char suffix)
{
    static const char suffixes[] = "bkmgtpe";
    const char *p;

    if (suffix == 0) {
        return -1;
    }
    p = strchr(suffixes, g_ascii_tolower(suffix));
    return p ? 10 * (int)(p - suffixes) : -1;
}

/* Read digits of @base at *@p; -EINVAL if there is none. */
static int parse_digits(const char **p, int base, uint64_t *value)
{
    const char *start = *p;
    bool overflow = false;

    *value = 0;
    for (; g_ascii_isxdigit(**p) && g_ascii_xdigit_value(**p) < base; (*p)++) {
        overflow |= __builtin_mul_overflow(*value, base, value);
        overflow |= __builtin_add_overflow(*value, g_ascii_xdigit_value(**p), value);
    }
    if (*p == start) {
        return -EINVAL;
    }
    return overflow ? -ERANGE : 0;
}

/*
 * Read digits behind a point as *@numerator / *@denominator. Digits beyond
 * what can matter are only looked at.
 */
static void parse_fraction(const char **p, uint64_t *numerator, uint64_t *denominator)
{
    *numerator = 0;
    *denominator = 1;
    for (; g_ascii_isdigit(**p); (*p)++) {
        if (*denominator < 1000000000000000000) {
            *numerator = *numerator * 10 + g_ascii_digit_value(**p);
            *denominator *= 10;
        } else if (**p != '0' && *numerator == 0) {
            *numerator = 1; /* not nothing, for whole bytes */
        }
    }
}

static int scale(uint64_t whole, uint64_t numerator, uint64_t denominator, int shift,
                 int64_t *bytes)
{
    unsigned __int128 sum;

    if (numerator != 0 && shift == 0) {
        return -EINVAL;
    }
    sum = ((unsigned __int128)whole << shift) +
          (((unsigned __int128)numerator << shift) + denominator / 2) / denominator;
    if (sum > INT64_MAX) {
        return -ERANGE;
    }
    *bytes = sum;
    return 0;
}

int block_parse_size(const char *text, char default_suffix, int64_t *bytes)
{
    const char *p = text;
    uint64_t whole = 0, numerator = 0, denominator = 1;
    int shift = suffix_shift(default_suffix);
    bool negative, has_whole;
    int ret;

    g_return_val_if_fail(shift >= 0, -EINVAL);
    while (g_ascii_isspace(*p)) {
        p++;
    }
    negative = *p == '-';
    if (*p == '-' || *p == '+') {
        p++;
    }
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        p += 2;
        ret = parse_digits(&p, 16, &whole);
    } else {
        ret = parse_digits(&p, 10, &whole);
        has_whole = ret != -EINVAL;
        if (*p == '.' && (has_whole || g_ascii_isdigit(p[1]))) {
            p++;
            parse_fraction(&p, &numerator, &denominator);
            ret = has_whole ? ret : 0;
        }
        if (ret != -EINVAL && suffix_shift(*p) >= 0) {
            shift = suffix_shift(*p++);
        }
    }
    if (ret == -EINVAL || *p != 0) {
        return -EINVAL;
    }
    if (ret < 0 || (negative && (whole != 0 || numerator != 0))) {
        return -ERANGE;
    }
    return scale(whole, numerator, denominator, shift, bytes);
}
