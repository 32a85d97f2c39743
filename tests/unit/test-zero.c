/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero detection: every way that this CPU has finds every single byte, at any
 * alignment, and looks at nothing beside the buffer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "blockgraph/iov.h"
#include "util/zero.h"

static const size_t offsets[] = { 0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63 };

/* Check @is_zero on @size bytes at @buf + @offset; all the rest of @buf is set. */
static void check_size(bool (*is_zero)(const void *, size_t), size_t offset, size_t size)
{
    /* Ends with the buffer, so that ASan sees a read beyond it. */
    g_autofree unsigned char *buf = g_malloc(MAX(offset + size, 1));
    unsigned char *p = buf + offset;

    memset(buf, 0xff, offset);
    memset(p, 0, size);
    if (!is_zero(p, size)) {
        fail_msg("%zu zeros at offset %zu not recognised", size, offset);
    }
    for (size_t i = 0; i < size; i++) {
        p[i] = (unsigned char)(1 << i % 8);
        if (is_zero(p, size)) {
            fail_msg("%zu bytes at offset %zu: byte %zu overlooked", size, offset, i);
        }
        p[i] = 0;
    }
}

/* The bytes around the buffer are set, and must not matter. */
static void check_surroundings(bool (*is_zero)(const void *, size_t), size_t offset, size_t size)
{
    g_autofree unsigned char *buf = g_malloc(offset + size + 64);

    memset(buf, 0xff, offset + size + 64);
    memset(buf + offset, 0, size);
    assert_true(is_zero(buf + offset, size));
}

static void every_way_finds_every_byte(void **state)
{
    unsigned usable = 0;

    for (const ZeroWay *way = zero_ways; way->name; way++) {
        if (!way->usable()) {
            print_message("%s: not on this CPU\n", way->name);
            continue;
        }
        usable++;
        for (size_t i = 0; i < G_N_ELEMENTS(offsets); i++) {
            for (size_t size = ZERO_MIN_SIZE; size < ZERO_MIN_SIZE + 260; size += 3) {
                check_size(way->is_zero, offsets[i], size);
                check_surroundings(way->is_zero, offsets[i], size);
            }
        }
    }
    assert_true(usable >= 1);
}

static void the_last_way_works_everywhere(void **state)
{
    const ZeroWay *way = zero_ways;

    while (way[1].name) {
        way++;
    }
    assert_string_equal(way->name, "words");
    assert_true(way->usable());
}

static void buffer_is_zero_finds_every_byte(void **state)
{
    for (size_t i = 0; i < G_N_ELEMENTS(offsets); i++) {
        for (size_t size = 0; size < 200; size++) {
            check_size(buffer_is_zero, offsets[i], size);
            check_surroundings(buffer_is_zero, offsets[i], size);
        }
    }
    check_size(buffer_is_zero, 5, 4096);
}

/* ---- Runs ------------------------------------------------------------------- */

static bool step_is_zero(const unsigned char *buf, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (buf[i]) {
            return false;
        }
    }
    return true;
}

static size_t model_run(const unsigned char *buf, size_t size, size_t step, bool *zero)
{
    size_t run = MIN(step, size);

    *zero = step_is_zero(buf, run);
    while (run < size && step_is_zero(buf + run, MIN(step, size - run)) == *zero) {
        run += MIN(step, size - run);
    }
    return run;
}

static void runs_are_those_of_the_model(void **state)
{
    enum {
        SIZE = 2000
    };
    g_autofree unsigned char *buf = g_malloc(SIZE);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    for (unsigned round = 0; round < 2000; round++) {
        size_t size = g_rand_int_range(rand, 1, SIZE + 1);
        size_t step = g_rand_int_range(rand, 1, 600);
        unsigned bytes = g_rand_int_range(rand, 0, 6);
        bool zero, expected_zero;
        size_t expected;

        memset(buf, 0, SIZE);
        for (unsigned i = 0; i < bytes; i++) {
            buf[g_rand_int_range(rand, 0, SIZE)] = 1;
        }
        if (round % 4 == 0) {
            memset(buf, 1, g_rand_int_range(rand, 0, SIZE));
        }
        expected = model_run(buf, size, step, &expected_zero);
        assert_int_equal(buffer_zero_run(buf, size, step, &zero), expected);
        assert_int_equal(zero, expected_zero);
    }
}

static void a_run_ends_inside_a_short_last_step(void **state)
{
    unsigned char buf[10] = { [9] = 1 };
    bool zero;

    assert_int_equal(buffer_zero_run(buf, 10, 4, &zero), 8);
    assert_true(zero);
    assert_int_equal(buffer_zero_run(buf + 8, 2, 4, &zero), 2);
    assert_false(zero);
    assert_int_equal(buffer_zero_run(buf, 9, 4, &zero), 9);
    assert_true(zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_finds_every_byte),
        cmocka_unit_test(the_last_way_works_everywhere),
        cmocka_unit_test(buffer_is_zero_finds_every_byte),
        cmocka_unit_test(runs_are_those_of_the_model),
        cmocka_unit_test(a_run_ends_inside_a_short_last_step),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
