/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * I/O vectors against a flat buffer, and their edges.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "blockgraph/iov.h"
#include "tests/unit/death.h"

static void a_new_vector_is_empty(void **state)
{
    IOVector v;
    char c = 'x';

    for (int hint = 0; hint < 3; hint++) {
        io_vector_init(&v, hint);
        assert_int_equal(v.size, 0);
        assert_int_equal(v.niov, 0);
        assert_int_equal(io_vector_pieces(&v, 0, 10), 0);
        assert_int_equal(io_vector_to_buf(&v, 0, &c, 1), 0);
        assert_true(io_vector_is_zero(&v, 0, 10));
        assert_true(io_vector_is_aligned(&v, 512));
        io_vector_destroy(&v);
    }
}

static void grows_beyond_the_hint_and_resets(void **state)
{
    IOVector v;
    char buf[100];

    io_vector_init(&v, 2);
    for (unsigned round = 0; round < 2; round++) {
        for (int i = 0; i < 100; i++) {
            io_vector_add(&v, buf + i, 1);
        }
        assert_int_equal(v.niov, 100);
        assert_int_equal(v.size, 100);
        assert_ptr_equal(v.iov[99].iov_base, buf + 99);
        io_vector_reset(&v);
        assert_int_equal(v.niov, 0);
        assert_int_equal(v.size, 0);
    }
    io_vector_destroy(&v);
}

static void covers_an_array_of_the_callers(void **state)
{
    char a[3], b[5];
    struct iovec iov[] = { { a, sizeof(a) }, { b, sizeof(b) } };
    IOVector v;

    io_vector_init_external(&v, iov, 2);
    assert_int_equal(v.size, 8);
    assert_int_equal(io_vector_from_buf(&v, 0, "abcdefgh", 8), 8);
    assert_memory_equal(a, "abc", 3);
    assert_memory_equal(b, "defgh", 5);
    io_vector_destroy(&v);
}

static void covers_one_buffer(void **state)
{
    char buf[8] = "01234567";
    IOVector v;
    char out[4];

    io_vector_init_buf(&v, buf, sizeof(buf));
    assert_int_equal(v.niov, 1);
    assert_int_equal(io_vector_to_buf(&v, 2, out, 4), 4);
    assert_memory_equal(out, "2345", 4);
    assert_int_equal(io_vector_to_buf(&v, 6, out, 4), 2);
    assert_int_equal(io_vector_to_buf(&v, 8, out, 4), 0);
    assert_int_equal(io_vector_to_buf(&v, 100, out, 4), 0);
    assert_int_equal(io_vector_memset(&v, 7, 'x', 9), 1);
    assert_memory_equal(buf, "0123456x", 8);
}

static void empty_pieces_do_not_count(void **state)
{
    char buf[4] = "abcd", out[4];
    IOVector v;

    io_vector_init(&v, 0);
    io_vector_add(&v, NULL, 0);
    io_vector_add(&v, buf, 2);
    io_vector_add(&v, NULL, 0);
    io_vector_add(&v, buf + 2, 2);
    io_vector_add(&v, NULL, 0);
    assert_int_equal(v.size, 4);
    assert_int_equal(io_vector_pieces(&v, 0, 4), 2);
    assert_int_equal(io_vector_pieces(&v, 0, 2), 1);
    assert_int_equal(io_vector_pieces(&v, 2, 2), 1);
    assert_int_equal(io_vector_pieces(&v, 1, 2), 2);
    assert_int_equal(io_vector_pieces(&v, 1, 0), 0);
    assert_int_equal(io_vector_to_buf(&v, 0, out, 4), 4);
    assert_memory_equal(out, "abcd", 4);
    io_vector_destroy(&v);
}

static void alignment_is_of_address_and_length(void **state)
{
    g_autofree char *raw = g_malloc(3 * 512);
    char *buf = raw + 512 - (uintptr_t)raw % 512;
    IOVector v;

    io_vector_init_buf(&v, buf, 512);
    assert_true(io_vector_is_aligned(&v, 512));
    io_vector_init_buf(&v, buf, 511);
    assert_false(io_vector_is_aligned(&v, 512));
    io_vector_init_buf(&v, buf + 8, 512);
    assert_false(io_vector_is_aligned(&v, 512));
    assert_true(io_vector_is_aligned(&v, 8));
    io_vector_init(&v, 2);
    io_vector_add(&v, buf, 512);
    io_vector_add(&v, buf + 256, 256);
    assert_false(io_vector_is_aligned(&v, 512));
    assert_true(io_vector_is_aligned(&v, 256));
    io_vector_destroy(&v);
}

/* ---- Against a flat buffer ---------------------------------------------------- */

#define FLAT 1000

/* A vector over all of @memory, in random pieces. */
static void random_vector(GRand *rand, IOVector *v, unsigned char *memory)
{
    size_t done = 0;

    io_vector_init(v, g_rand_int_range(rand, 0, 10));
    while (done < FLAT) {
        size_t len = g_rand_int_range(rand, 0, 120);

        len = MIN(len, FLAT - done);
        io_vector_add(v, memory + done, len);
        done += len;
    }
}

static void fill_random(GRand *rand, unsigned char *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        p[i] = (unsigned char)g_rand_int(rand);
    }
}

static void behaves_as_flat_memory(void **state)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(2);
    unsigned char memory[FLAT], model[FLAT], buf[FLAT], expected[FLAT];

    for (unsigned round = 0; round < 1000; round++) {
        size_t offset = g_rand_int_range(rand, 0, FLAT + 1);
        size_t size = g_rand_int_range(rand, 0, FLAT + 1);
        size_t in_range = MIN(size, FLAT - offset);
        IOVector v, part;

        random_vector(rand, &v, memory);
        assert_int_equal(v.size, FLAT);
        fill_random(rand, memory, FLAT);
        memcpy(model, memory, FLAT);

        assert_int_equal(io_vector_to_buf(&v, offset, buf, size), in_range);
        assert_memory_equal(buf, model + offset, in_range);

        fill_random(rand, buf, FLAT);
        assert_int_equal(io_vector_from_buf(&v, offset, buf, size), in_range);
        memcpy(model + offset, buf, in_range);
        assert_memory_equal(memory, model, FLAT);

        io_vector_init(&part, 0);
        io_vector_append(&part, &v, offset, in_range);
        assert_int_equal(part.size, in_range);
        assert_int_equal(part.niov, io_vector_pieces(&v, offset, in_range));
        assert_int_equal(io_vector_to_buf(&part, 0, expected, FLAT), in_range);
        assert_memory_equal(expected, model + offset, in_range);
        io_vector_destroy(&part);

        assert_int_equal(io_vector_memset(&v, offset, 0, size), in_range);
        memset(model + offset, 0, in_range);
        assert_memory_equal(memory, model, FLAT);
        assert_true(io_vector_is_zero(&v, offset, in_range));
        if (in_range > 0) {
            memory[offset + g_rand_int_range(rand, 0, in_range)] = 1;
            assert_false(io_vector_is_zero(&v, offset, in_range));
        }
        io_vector_destroy(&v);
    }
}

/* ---- Misuse -------------------------------------------------------------------- */

static void add_to_external(void)
{
    struct iovec iov = { NULL, 0 };
    IOVector v;

    io_vector_init_external(&v, &iov, 1);
    io_vector_add(&v, NULL, 0);
}

static void reset_of_buf(void)
{
    IOVector v;
    char c;

    io_vector_init_buf(&v, &c, 1);
    io_vector_reset(&v);
}

static void append_beyond_the_end(void)
{
    IOVector v, src;
    char buf[4];

    io_vector_init(&v, 0);
    io_vector_init_buf(&src, buf, 4);
    io_vector_append(&v, &src, 2, 3);
}

static void append_overflows(void)
{
    IOVector v, src;
    char buf[4];

    io_vector_init(&v, 0);
    io_vector_init_buf(&src, buf, 4);
    io_vector_append(&v, &src, 2, SIZE_MAX);
}

static void add_too_much(void)
{
    IOVector v;
    char c;

    io_vector_init(&v, 0);
    io_vector_add(&v, &c, SIZE_MAX);
    io_vector_add(&v, &c, 1);
}

static const DeathCase deaths[] = {
    DIES(add_to_external, "io_vector_add(): the vector's array belongs to somebody else"),
    DIES(reset_of_buf, "io_vector_reset(): the vector's array belongs to somebody else"),
    DIES(append_beyond_the_end, "io_vector_append(): 3 bytes at 2 of a vector of 4"),
    DIES(append_overflows, "at 2 of a vector of 4"),
    DIES(add_too_much, "larger than the address space"),
};

static void misuse_aborts_with_a_message(void **state)
{
    assert_deaths(deaths, G_N_ELEMENTS(deaths));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_vector_is_empty),
        cmocka_unit_test(grows_beyond_the_hint_and_resets),
        cmocka_unit_test(covers_an_array_of_the_callers),
        cmocka_unit_test(covers_one_buffer),
        cmocka_unit_test(empty_pieces_do_not_count),
        cmocka_unit_test(alignment_is_of_address_and_length),
        cmocka_unit_test(behaves_as_flat_memory),
        cmocka_unit_test(misuse_aborts_with_a_message),
    };

    death_main(argc, argv, deaths, G_N_ELEMENTS(deaths));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
