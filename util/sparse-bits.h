/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A long row of bits whose memory follows what is in it: runs of zeros, and
 * runs of ones, cost nothing while they are long.
 *
 * No function here locks: the caller does. Reading only may go on in several
 * threads at once.
 */
#ifndef UTIL_SPARSE_BITS_H
#define UTIL_SPARSE_BITS_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No row is longer, in bits. */
#define SPARSE_BITS_MAX (UINT64_C(1) << 60)

typedef struct SparseBits SparseBits;

/* @size bits (at most SPARSE_BITS_MAX), all 0. */
SparseBits *sparse_bits_new(uint64_t size);
void sparse_bits_free(SparseBits *bits);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(SparseBits, sparse_bits_free)

uint64_t sparse_bits_size(const SparseBits *bits);
/* Make it shorter, or longer with bits that are 0. */
void sparse_bits_resize(SparseBits *bits, uint64_t size);
/* How many bits are 1. Takes no time. */
uint64_t sparse_bits_count(const SparseBits *bits);
/* Bytes of memory in use. */
size_t sparse_bits_memory(const SparseBits *bits);

/* Make @count bits from @first on 1, or 0; they must lie in the row. */
void sparse_bits_set(SparseBits *bits, uint64_t first, uint64_t count);
void sparse_bits_clear(SparseBits *bits, uint64_t first, uint64_t count);
bool sparse_bits_get(const SparseBits *bits, uint64_t index);

/* The first bit at or behind @from (which may be the size) that is 1, or 0; the
 * size if there is none. */
uint64_t sparse_bits_next_set(const SparseBits *bits, uint64_t from);
uint64_t sparse_bits_next_clear(const SparseBits *bits, uint64_t from);

/*
 * Copy @count bits from @first on to @buf, 8 to a byte, the first in the lowest
 * bit; what is left of the last byte is 0. The other way, ones are added to
 * those that are there.
 */
void sparse_bits_export(const SparseBits *bits, uint64_t first, uint64_t count, uint8_t *buf);
void sparse_bits_import(SparseBits *bits, uint64_t first, uint64_t count, const uint8_t *buf);

#endif
