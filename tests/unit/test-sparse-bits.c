/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sparse bits: random changes against an array of bytes, and the memory that
 * rows of 2^37 bits take.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "repeats.h"
#include "util/sparse-bits.h"

#define MODEL_BITS 300000
#define STEPS 4000

/* One byte for each bit; those at or behind size are 0. */
typedef struct Model {
    uint8_t bits[MODEL_BITS];
    uint64_t size;
} Model;

static uint64_t model_next(const Model *model, uint64_t from, bool value)
{
    while (from < model->size && model->bits[from] != value) {
        from++;
    }
    return MIN(from, model->size);
}

static uint64_t model_count(const Model *model)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < model->size; i++) {
        count += model->bits[i];
    }
    return count;
}

/* A length that is small, near a power of 64, or anything. */
static uint64_t random_length(GRand *rand, uint64_t most)
{
    static const uint64_t near[] = { 64, 4096, 8192, 262144 };
    uint64_t length;

    switch (g_rand_int_range(rand, 0, 3)) {
    case 0:
        length = g_rand_int_range(rand, 0, 130);
        break;
    case 1:
        length = near[g_rand_int_range(rand, 0, 4)] + g_rand_int_range(rand, -1, 2);
        break;
    default:
        length = g_rand_int_range(rand, 0, MODEL_BITS);
        break;
    }
    return MIN(length, most);
}

/* Often the start of a word or of a node. */
static uint64_t random_index(GRand *rand, uint64_t size)
{
    uint64_t index = g_rand_int_range(rand, 0, size + 1);

    switch (g_rand_int_range(rand, 0, 4)) {
    case 0:
        return index & ~UINT64_C(63);
    case 1:
        return index & ~UINT64_C(4095);
    default:
        return index;
    }
}

static void change_both(SparseBits *bits, Model *model, GRand *rand)
{
    uint64_t first = random_index(rand, model->size);
    uint64_t count = random_length(rand, model->size - first);
    bool value = g_rand_boolean(rand);

    memset(model->bits + first, value, count);
    if (value) {
        sparse_bits_set(bits, first, count);
    } else {
        sparse_bits_clear(bits, first, count);
    }
}

static void resize_both(SparseBits *bits, Model *model, GRand *rand)
{
    uint64_t size = random_length(rand, MODEL_BITS);

    if (size < model->size) {
        memset(model->bits + size, 0, model->size - size);
    }
    model->size = size;
    sparse_bits_resize(bits, size);
}

static void copy_both(SparseBits *bits, Model *model, GRand *rand)
{
    uint64_t first = random_index(rand, model->size);
    uint64_t count = random_length(rand, model->size - first);
    g_autofree uint8_t *buf = g_malloc(count / 8 + 1);
    g_autofree uint8_t *expected = g_malloc0(count / 8 + 1);

    buf[(count + 7) / 8 - (count > 0)] = 0xff; /* so that what is left must be cleared */
    sparse_bits_export(bits, first, count, buf);
    for (uint64_t i = 0; i < count; i++) {
        expected[i / 8] |= model->bits[first + i] << i % 8;
    }
    assert_memory_equal(buf, expected, (count + 7) / 8);

    for (uint64_t i = 0; i < count; i += g_rand_int_range(rand, 1, 100)) {
        buf[i / 8] ^= 1 << i % 8;
    }
    for (uint64_t i = 0; i < count; i++) {
        model->bits[first + i] |= buf[i / 8] >> i % 8 & 1;
    }
    sparse_bits_import(bits, first, count, buf);
}

static void check_both(const SparseBits *bits, const Model *model, GRand *rand)
{
    assert_int_equal(sparse_bits_size(bits), model->size);
    assert_int_equal(sparse_bits_count(bits), model_count(model));
    for (int i = 0; i < 20; i++) {
        uint64_t at = random_index(rand, model->size);

        assert_int_equal(sparse_bits_next_set(bits, at), model_next(model, at, true));
        assert_int_equal(sparse_bits_next_clear(bits, at), model_next(model, at, false));
        if (at < model->size) {
            assert_int_equal(sparse_bits_get(bits, at), model->bits[at]);
        }
    }
}

static void random_changes_give_what_the_model_has(void **state)
{
    g_autofree Model *model = g_new0(Model, 1);
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    g_autoptr(SparseBits) bits = sparse_bits_new(MODEL_BITS);

    model->size = MODEL_BITS;
    for (int i = 0; i < repeats(STEPS, STEPS / 10); i++) {
        int what = g_rand_int_range(rand, 0, 100);

        if (what < 2) {
            resize_both(bits, model, rand);
        } else if (what < 8) {
            copy_both(bits, model, rand);
        } else {
            change_both(bits, model, rand);
        }
        check_both(bits, model, rand);
    }
    sparse_bits_clear(bits, 0, model->size);
    assert_true(sparse_bits_memory(bits) < 100);
}

/* A disk of 64 TiB at 512 bytes. */
static void memory_follows_what_is_mixed(void **state)
{
    const uint64_t size = UINT64_C(1) << 37;
    g_autoptr(SparseBits) bits = sparse_bits_new(size);
    size_t empty = sparse_bits_memory(bits);

    assert_true(empty < 100);
    assert_int_equal(sparse_bits_next_set(bits, 0), size);
    sparse_bits_set(bits, size - 1, 1);
    assert_true(sparse_bits_memory(bits) < 8 * 1024);
    assert_int_equal(sparse_bits_next_set(bits, 0), size - 1);
    sparse_bits_set(bits, 0, size);
    assert_int_equal(sparse_bits_count(bits), size);
    assert_int_equal(sparse_bits_next_clear(bits, 0), size);
    assert_true(sparse_bits_memory(bits) < 8 * 1024);
    sparse_bits_clear(bits, 12345, 1);
    assert_int_equal(sparse_bits_count(bits), size - 1);
    assert_int_equal(sparse_bits_next_clear(bits, 0), 12345);
    assert_true(sparse_bits_memory(bits) < 16 * 1024);
    sparse_bits_clear(bits, 0, size);
    assert_int_equal(sparse_bits_memory(bits), empty);
}

static void a_row_may_be_empty_and_grow(void **state)
{
    g_autoptr(SparseBits) bits = sparse_bits_new(0);

    assert_int_equal(sparse_bits_next_set(bits, 0), 0);
    assert_int_equal(sparse_bits_next_clear(bits, 0), 0);
    sparse_bits_resize(bits, 4096);
    sparse_bits_set(bits, 0, 4096);
    sparse_bits_resize(bits, SPARSE_BITS_MAX);
    assert_int_equal(sparse_bits_next_clear(bits, 0), 4096);
    assert_int_equal(sparse_bits_count(bits), 4096);
    sparse_bits_set(bits, SPARSE_BITS_MAX - 1, 1);
    sparse_bits_resize(bits, 4096);
    assert_int_equal(sparse_bits_count(bits), 4096);
    assert_int_equal(sparse_bits_next_clear(bits, 0), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_give_what_the_model_has),
        cmocka_unit_test(memory_follows_what_is_mixed),
        cmocka_unit_test(a_row_may_be_empty_and_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
