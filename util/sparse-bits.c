/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sparse bits: a tree, 64 slots to a node; the nodes at the bottom hold 64
 * words of bits, those above hold what is below them.
 *
 * Invariants:
 *  1. A slot whose bits are all 0 is NONE, one whose bits are all 1 is ALL;
 *     there is a node only for what is mixed, and its count says how many
 *     bits below it are 1.
 *  2. Bits at or behind the size are 0.
 *  3. The root covers the size, and is no higher than it has to be.
 */
#include <string.h>
#include "util/sparse-bits.h"

#define FANOUT_BITS 6
#define FANOUT (1U << FANOUT_BITS)
#define WORD_BITS 6 /* log2 of the bits in a word */

typedef struct Node Node;
typedef Node *Slot;

struct Node {
    uint64_t count;
    union {
        Slot slots[FANOUT];     /* above the bottom */
        uint64_t words[FANOUT]; /* at the bottom */
    };
};

static Node all_ones;
#define NONE NULL
#define ALL (&all_ones)

struct SparseBits {
    uint64_t size;
    unsigned height; /* of the root: 0 at the bottom */
    Slot root;
    size_t nodes;
};

/* log2 of the bits in one slot or word of a node at @height. */
static unsigned slot_bits(unsigned height)
{
    return WORD_BITS + height * FANOUT_BITS;
}

static uint64_t capacity(unsigned height)
{
    return UINT64_C(1) << slot_bits(height + 1);
}

static uint64_t count_in(Slot slot, unsigned height)
{
    return slot == NONE ? 0 : slot == ALL ? capacity(height) : slot->count;
}

static unsigned height_for(uint64_t size)
{
    unsigned height = 0;

    while (capacity(height) < size) {
        height++;
    }
    return height;
}

/* ---- Nodes ------------------------------------------------------------------ */

static void drop(SparseBits *bits, Slot slot, unsigned height)
{
    if (slot == NONE || slot == ALL) {
        return;
    }
    for (unsigned i = 0; height > 0 && i < FANOUT; i++) {
        drop(bits, slot->slots[i], height - 1);
    }
    g_free(slot);
    bits->nodes--;
}

/* A node with the bits that @slot, NONE or ALL, stands for. */
static Node *expand(SparseBits *bits, Slot slot, unsigned height)
{
    Node *node = g_new0(Node, 1);

    bits->nodes++;
    if (slot == ALL) {
        node->count = capacity(height);
        for (unsigned i = 0; i < FANOUT; i++) {
            if (height == 0) {
                node->words[i] = UINT64_MAX;
            } else {
                node->slots[i] = ALL;
            }
        }
    }
    return node;
}

/* Make @slot what it has to be by invariant 1. */
static void simplify(SparseBits *bits, Slot *slot, unsigned height)
{
    Slot simple;

    if ((*slot)->count != 0 && (*slot)->count != capacity(height)) {
        return;
    }
    simple = (*slot)->count == 0 ? NONE : ALL;
    drop(bits, *slot, height);
    *slot = simple;
}

/* ---- Changing ---------------------------------------------------------------- */

static uint64_t mask_of(unsigned first, unsigned count)
{
    return (count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1) << first;
}

static void change_word(Node *node, uint64_t *word, uint64_t mask, bool value)
{
    uint64_t changed = value ? ~*word & mask : *word & mask;

    *word ^= changed;
    if (value) {
        node->count += __builtin_popcountll(changed);
    } else {
        node->count -= __builtin_popcountll(changed);
    }
}

/* Make @count bits from @first on, inside of what @slot covers, @value. */
static void change(SparseBits *bits, Slot *slot, unsigned height, uint64_t first, uint64_t count,
                   bool value)
{
    const Slot target = value ? ALL : NONE;
    const unsigned shift = slot_bits(height);
    Node *node;

    if (*slot == target) {
        return;
    }
    if (count == capacity(height)) {
        drop(bits, *slot, height);
        *slot = target;
        return;
    }
    if (*slot == NONE || *slot == ALL) {
        *slot = expand(bits, *slot, height);
    }
    node = *slot;
    while (count > 0) {
        uint64_t index = first >> shift, in = first & ((UINT64_C(1) << shift) - 1);
        uint64_t n = MIN(count, (UINT64_C(1) << shift) - in);

        if (height == 0) {
            change_word(node, &node->words[index], mask_of(in, n), value);
        } else {
            node->count -= count_in(node->slots[index], height - 1);
            change(bits, &node->slots[index], height - 1, in, n, value);
            node->count += count_in(node->slots[index], height - 1);
        }
        first += n;
        count -= n;
    }
    simplify(bits, slot, height);
}

void sparse_bits_set(SparseBits *bits, uint64_t first, uint64_t count)
{
    g_assert(first <= bits->size && count <= bits->size - first);
    if (count > 0) {
        change(bits, &bits->root, bits->height, first, count, true);
    }
}

void sparse_bits_clear(SparseBits *bits, uint64_t first, uint64_t count)
{
    g_assert(first <= bits->size && count <= bits->size - first);
    if (count > 0) {
        change(bits, &bits->root, bits->height, first, count, false);
    }
}

/* ---- Life and size ----------------------------------------------------------- */

SparseBits *sparse_bits_new(uint64_t size)
{
    SparseBits *bits = g_new0(SparseBits, 1);

    g_assert(size <= SPARSE_BITS_MAX);
    bits->size = size;
    bits->height = height_for(size);
    return bits;
}

void sparse_bits_free(SparseBits *bits)
{
    if (bits) {
        drop(bits, bits->root, bits->height);
        g_free(bits);
    }
}

uint64_t sparse_bits_size(const SparseBits *bits)
{
    return bits->size;
}

uint64_t sparse_bits_count(const SparseBits *bits)
{
    return count_in(bits->root, bits->height);
}

size_t sparse_bits_memory(const SparseBits *bits)
{
    return sizeof(*bits) + bits->nodes * sizeof(Node);
}

void sparse_bits_resize(SparseBits *bits, uint64_t size)
{
    const unsigned height = height_for(size);

    g_assert(size <= SPARSE_BITS_MAX);
    if (size < bits->size) {
        sparse_bits_clear(bits, size, bits->size - size);
    }
    while (bits->height < height) {
        Slot old = bits->root;

        bits->height++;
        if (old != NONE) {
            bits->root = expand(bits, NONE, bits->height);
            bits->root->slots[0] = old;
            bits->root->count = count_in(old, bits->height - 1);
        }
    }
    while (bits->height > height) {
        Slot old = bits->root;

        /* What does not lie in the first slot is 0 now; ALL would not be. */
        if (old != NONE) {
            bits->root = old->slots[0];
            old->slots[0] = NONE;
            drop(bits, old, bits->height);
        }
        bits->height--;
    }
    bits->size = size;
}

/* ---- Looking ----------------------------------------------------------------- */

bool sparse_bits_get(const SparseBits *bits, uint64_t index)
{
    unsigned height = bits->height;
    Slot slot = bits->root;

    g_assert(index < bits->size);
    while (slot != NONE && slot != ALL) {
        unsigned i = (index >> slot_bits(height)) & (FANOUT - 1);

        if (height == 0) {
            return slot->words[i] >> (index & 63) & 1;
        }
        slot = slot->slots[i];
        height--;
    }
    return slot == ALL;
}

/* The first bit at or behind @from in a node at the bottom that is @value. */
static uint64_t find_in_words(const Node *node, uint64_t from, bool value)
{
    uint64_t mask = UINT64_MAX << (from & 63);

    for (uint64_t i = from >> WORD_BITS; i < FANOUT; i++) {
        uint64_t word = (value ? node->words[i] : ~node->words[i]) & mask;

        if (word) {
            return (i << WORD_BITS) + __builtin_ctzll(word);
        }
        mask = UINT64_MAX;
    }
    return capacity(0);
}

/* The same below @slot; its capacity if there is none. */
static uint64_t find(Slot slot, unsigned height, uint64_t from, bool value)
{
    const unsigned shift = slot_bits(height);

    if (slot == NONE || slot == ALL) {
        return (slot == ALL) == value ? from : capacity(height);
    }
    if (height == 0) {
        return find_in_words(slot, from, value);
    }
    for (uint64_t i = from >> shift; i < FANOUT; i++) {
        uint64_t start = i << shift, in = from > start ? from - start : 0;
        uint64_t found = find(slot->slots[i], height - 1, in, value);

        if (found < UINT64_C(1) << shift) {
            return start + found;
        }
    }
    return capacity(height);
}

uint64_t sparse_bits_next_set(const SparseBits *bits, uint64_t from)
{
    return from >= bits->size ? bits->size
                              : MIN(find(bits->root, bits->height, from, true), bits->size);
}

uint64_t sparse_bits_next_clear(const SparseBits *bits, uint64_t from)
{
    return from >= bits->size ? bits->size
                              : MIN(find(bits->root, bits->height, from, false), bits->size);
}

/* ---- Copying ----------------------------------------------------------------- */

static void set_in_bytes(uint8_t *buf, uint64_t first, uint64_t count)
{
    while (count > 0 && (first & 7 || count < 8)) {
        buf[first >> 3] |= 1U << (first & 7);
        first++;
        count--;
    }
    memset(buf + (first >> 3), 0xff, count >> 3);
    first += count & ~UINT64_C(7);
    for (count &= 7; count > 0; count--) {
        buf[first >> 3] |= 1U << (first & 7);
        first++;
    }
}

void sparse_bits_export(const SparseBits *bits, uint64_t first, uint64_t count, uint8_t *buf)
{
    const uint64_t end = first + count;
    uint64_t at = first;

    g_assert(first <= bits->size && count <= bits->size - first);
    memset(buf, 0, count / 8 + (count % 8 != 0));
    while ((at = sparse_bits_next_set(bits, at)) < end) {
        uint64_t stop = MIN(sparse_bits_next_clear(bits, at), end);

        set_in_bytes(buf, at - first, stop - at);
        at = stop;
    }
}

/* The first bit in [@from, @end) that is @value, or @end. */
static uint64_t find_in_bytes(const uint8_t *buf, uint64_t from, uint64_t end, bool value)
{
    const uint8_t skip = value ? 0 : 0xff;

    while (from < end) {
        if (!(from & 7) && buf[from >> 3] == skip) {
            from += 8;
        } else if ((buf[from >> 3] >> (from & 7) & 1) == value) {
            return from;
        } else {
            from++;
        }
    }
    return end;
}

void sparse_bits_import(SparseBits *bits, uint64_t first, uint64_t count, const uint8_t *buf)
{
    uint64_t at = 0;

    g_assert(first <= bits->size && count <= bits->size - first);
    while ((at = find_in_bytes(buf, at, count, true)) < count) {
        uint64_t stop = find_in_bytes(buf, at, count, false);

        sparse_bits_set(bits, first + at, stop - at);
        at = stop;
    }
}
