/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zero detection with the CPU's vectors.
 *
 * Every way reads blocks of four vectors: one where the buffer begins, then
 * aligned ones, then one that ends with the buffer. They overlap where the size
 * is not a multiple of a block, so no byte needs a loop of its own.
 */
#include <string.h>
#include "blockgraph/iov.h"
#include "util/zero.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

static bool always_usable(void)
{
    return true;
}

static uint64_t load64(const char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* The first multiple of @align behind @p. */
static const char *align_behind(const char *p, size_t align)
{
    return p + align - (uintptr_t)p % align;
}

#if defined(__x86_64__)
static bool avx2_usable(void)
{
    return __builtin_cpu_supports("avx2");
}

__attribute__((target("avx2"))) static bool avx2_block_is_zero(const char *p)
{
    const __m256i_u *v = (const __m256i_u *)p;
    __m256i all =
        _mm256_or_si256(_mm256_or_si256(_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)),
                        _mm256_or_si256(_mm256_loadu_si256(v + 2), _mm256_loadu_si256(v + 3)));

    return _mm256_testz_si256(all, all);
}

__attribute__((target("avx2"))) static bool avx2_is_zero(const void *buf, size_t size)
{
    const char *last = (const char *)buf + size - 128;

    if (!avx2_block_is_zero(buf)) {
        return false;
    }
    for (const char *p = align_behind(buf, 32); p < last; p += 128) {
        if (!avx2_block_is_zero(p)) {
            return false;
        }
    }
    return avx2_block_is_zero(last);
}

static bool sse2_block_is_zero(const char *p)
{
    const __m128i_u *v = (const __m128i_u *)p;
    __m128i all = _mm_or_si128(_mm_or_si128(_mm_loadu_si128(v), _mm_loadu_si128(v + 1)),
                               _mm_or_si128(_mm_loadu_si128(v + 2), _mm_loadu_si128(v + 3)));

    return _mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_setzero_si128())) == 0xffff;
}

static bool sse2_is_zero(const void *buf, size_t size)
{
    const char *last = (const char *)buf + size - 64;

    if (!sse2_block_is_zero(buf)) {
        return false;
    }
    for (const char *p = align_behind(buf, 16); p < last; p += 64) {
        if (!sse2_block_is_zero(p)) {
            return false;
        }
    }
    return sse2_block_is_zero(last);
}
#endif

#if defined(__aarch64__)
static bool neon_block_is_zero(const char *p)
{
    const uint8_t *v = (const uint8_t *)p;
    uint8x16_t all = vorrq_u8(vorrq_u8(vld1q_u8(v), vld1q_u8(v + 16)),
                              vorrq_u8(vld1q_u8(v + 32), vld1q_u8(v + 48)));

    return vmaxvq_u32(vreinterpretq_u32_u8(all)) == 0;
}

static bool neon_is_zero(const void *buf, size_t size)
{
    const char *last = (const char *)buf + size - 64;

    if (!neon_block_is_zero(buf)) {
        return false;
    }
    for (const char *p = align_behind(buf, 16); p < last; p += 64) {
        if (!neon_block_is_zero(p)) {
            return false;
        }
    }
    return neon_block_is_zero(last);
}
#endif

static bool word_block_is_zero(const char *p)
{
    return (load64(p) | load64(p + 8) | load64(p + 16) | load64(p + 24)) == 0;
}

static bool words_are_zero(const void *buf, size_t size)
{
    const char *last = (const char *)buf + size - 32;

    if (!word_block_is_zero(buf)) {
        return false;
    }
    for (const char *p = align_behind(buf, 8); p < last; p += 32) {
        if (!word_block_is_zero(p)) {
            return false;
        }
    }
    return word_block_is_zero(last);
}

const ZeroWay zero_ways[] = {
#if defined(__x86_64__)
    { "avx2", avx2_usable, avx2_is_zero },
    { "sse2", always_usable, sse2_is_zero },
#elif defined(__aarch64__)
    { "neon", always_usable, neon_is_zero },
#endif
    { "words", always_usable, words_are_zero },
    { NULL, NULL, NULL },
};

static bool small_is_zero(const char *p, size_t size)
{
    uint64_t all = 0;

    if (size >= 8) {
        for (size_t i = 0; i < size - 8; i += 8) {
            all |= load64(p + i);
        }
        all |= load64(p + size - 8);
    } else {
        for (size_t i = 0; i < size; i++) {
            all |= (unsigned char)p[i];
        }
    }
    return all == 0;
}

static bool choose_way(const void *buf, size_t size);
/* Chosen by the first call; atomic. */
static bool (*chosen_way)(const void *buf, size_t size) = choose_way;

static bool choose_way(const void *buf, size_t size)
{
    const ZeroWay *way = zero_ways;

    while (!way->usable()) {
        way++;
    }
    __atomic_store_n(&chosen_way, way->is_zero, __ATOMIC_RELAXED);
    return way->is_zero(buf, size);
}

bool buffer_is_zero(const void *buf, size_t size)
{
    const char *p = buf;

    if (size < ZERO_MIN_SIZE) {
        return small_is_zero(p, size);
    }
    /* Most data shows what it is at its ends or in the middle. */
    if (load64(p) | load64(p + size / 2) | load64(p + size - 8)) {
        return false;
    }
    return __atomic_load_n(&chosen_way, __ATOMIC_RELAXED)(buf, size);
}

size_t buffer_zero_run(const void *buf, size_t size, size_t step, bool *zero)
{
    size_t run = MIN(step, size);

    *zero = buffer_is_zero(buf, run);
    while (run < size) {
        size_t next = MIN(step, size - run);

        if (buffer_is_zero((const char *)buf + run, next) != *zero) {
            break;
        }
        run += next;
    }
    return run;
}
