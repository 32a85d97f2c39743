/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * I/O vectors.
 *
 * 1. size is the sum of the pieces' lengths.
 * 2. nalloc is -1 for a vector over memory of others (iov may be &local), else
 *    iov has room for nalloc pieces and is ours.
 */
#include <string.h>
#include "blockgraph/iov.h"
#include "util/fatal.h"

void io_vector_init(IOVector *v, int hint)
{
    *v = (IOVector){ .iov = hint > 0 ? g_new(struct iovec, hint) : NULL, .nalloc = MAX(hint, 0) };
}

void io_vector_init_external(IOVector *v, struct iovec *iov, int niov)
{
    *v = (IOVector){ .iov = iov, .niov = niov, .nalloc = -1 };
    for (int i = 0; i < niov; i++) {
        if (__builtin_add_overflow(v->size, iov[i].iov_len, &v->size)) {
            fatal("%s(): the pieces are larger than the address space", __func__);
        }
    }
}

void io_vector_init_buf(IOVector *v, void *buf, size_t size)
{
    *v = (IOVector){ .niov = 1, .size = size, .nalloc = -1 };
    v->local = (struct iovec){ .iov_base = buf, .iov_len = size };
    v->iov = &v->local;
}

void io_vector_destroy(IOVector *v)
{
    if (v->nalloc >= 0) {
        g_free(v->iov);
    }
    *v = (IOVector){ 0 };
}

static void assert_own(const IOVector *v, const char *function)
{
    if (v->nalloc < 0) {
        fatal("%s(): the vector's array belongs to somebody else", function);
    }
}

void io_vector_reset(IOVector *v)
{
    assert_own(v, __func__);
    v->niov = 0;
    v->size = 0;
}

void io_vector_add(IOVector *v, void *base, size_t size)
{
    assert_own(v, __func__);
    if (__builtin_add_overflow(v->size, size, &v->size)) {
        fatal("%s(): the pieces are larger than the address space", __func__);
    }
    if (v->niov == v->nalloc) {
        v->nalloc = MAX(4, 2 * v->nalloc);
        v->iov = g_renew(struct iovec, v->iov, v->nalloc);
    }
    v->iov[v->niov++] = (struct iovec){ .iov_base = base, .iov_len = size };
}

/* A walk over the pieces of a part of a vector. */
typedef struct Cursor {
    const IOVector *v;
    int index;
    size_t skip; /* in the piece at index */
    size_t left;
    char *base; /* the piece found */
    size_t len;
} Cursor;

static Cursor cursor_at(const IOVector *v, size_t offset, size_t size)
{
    Cursor c = { .v = v, .left = size };

    while (c.index < v->niov && offset >= v->iov[c.index].iov_len) {
        offset -= v->iov[c.index].iov_len;
        c.index++;
    }
    c.skip = offset;
    return c;
}

/* Find the next piece that is not empty; false at the end of the part or of the vector. */
static bool cursor_next(Cursor *c)
{
    while (c->left > 0 && c->index < c->v->niov) {
        const struct iovec *piece = &c->v->iov[c->index++];

        c->len = MIN(piece->iov_len - c->skip, c->left);
        if (c->len > 0) {
            c->base = (char *)piece->iov_base + c->skip;
            c->left -= c->len;
            c->skip = 0;
            return true;
        }
    }
    return false;
}

void io_vector_append(IOVector *v, const IOVector *src, size_t offset, size_t size)
{
    Cursor c = cursor_at(src, offset, size);

    if (offset > src->size || size > src->size - offset) {
        fatal("%s(): %zu bytes at %zu of a vector of %zu", __func__, size, offset, src->size);
    }
    while (cursor_next(&c)) {
        io_vector_add(v, c.base, c.len);
    }
}

int io_vector_pieces(const IOVector *v, size_t offset, size_t size)
{
    Cursor c = cursor_at(v, offset, size);
    int n = 0;

    while (cursor_next(&c)) {
        n++;
    }
    return n;
}

size_t io_vector_to_buf(const IOVector *v, size_t offset, void *buf, size_t size)
{
    Cursor c = cursor_at(v, offset, size);
    size_t done = 0;

    while (cursor_next(&c)) {
        memcpy((char *)buf + done, c.base, c.len);
        done += c.len;
    }
    return done;
}

size_t io_vector_from_buf(const IOVector *v, size_t offset, const void *buf, size_t size)
{
    Cursor c = cursor_at(v, offset, size);
    size_t done = 0;

    while (cursor_next(&c)) {
        memcpy(c.base, (const char *)buf + done, c.len);
        done += c.len;
    }
    return done;
}

size_t io_vector_memset(const IOVector *v, size_t offset, int byte, size_t size)
{
    Cursor c = cursor_at(v, offset, size);
    size_t done = 0;

    while (cursor_next(&c)) {
        memset(c.base, byte, c.len);
        done += c.len;
    }
    return done;
}

bool io_vector_is_zero(const IOVector *v, size_t offset, size_t size)
{
    Cursor c = cursor_at(v, offset, size);

    while (cursor_next(&c)) {
        if (!buffer_is_zero(c.base, c.len)) {
            return false;
        }
    }
    return true;
}

bool io_vector_is_aligned(const IOVector *v, size_t alignment)
{
    for (int i = 0; i < v->niov; i++) {
        if ((uintptr_t)v->iov[i].iov_base % alignment != 0 || v->iov[i].iov_len % alignment != 0) {
            return false;
        }
    }
    return true;
}
