/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * I/O vectors: a request's memory in pieces, with its total size.
 * All sizes and offsets are bytes.
 */
#ifndef BLOCKGRAPH_IOV_H
#define BLOCKGRAPH_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

typedef struct IOVector {
    struct iovec *iov;
    int niov;
    size_t size; /* the sum of all pieces */
    /* private: room for pieces; -1 if @iov belongs to somebody else */
    int nalloc;
    struct iovec local;
} IOVector;

/* An empty vector with room for @hint pieces. Free with io_vector_destroy(). */
void io_vector_init(IOVector *v, int hint);
/* A vector over the caller's array, which must outlive it. */
void io_vector_init_external(IOVector *v, struct iovec *iov, int niov);
/* A vector of one piece; needs no destroy. It must not be copied: it points into itself. */
void io_vector_init_buf(IOVector *v, void *buf, size_t size);
/* Free what io_vector_init() and growing allocated, never the memory itself. */
void io_vector_destroy(IOVector *v);
/* Forget all pieces, keep the room. Only after io_vector_init(). */
void io_vector_reset(IOVector *v);
/* Append one piece. Only after io_vector_init(). */
void io_vector_add(IOVector *v, void *base, size_t size);
/*
 * Append the part of @src that begins at @offset and is @size long. It must
 * lie inside @src, which is another vector than @v.
 */
void io_vector_append(IOVector *v, const IOVector *src, size_t offset, size_t size);
/* How many pieces, but for empty ones, the part of @v at @offset, @size long, touches. */
int io_vector_pieces(const IOVector *v, size_t offset, size_t size);
/* Copy out of or into a vector, or fill it; returns the bytes done, which are
 * fewer than asked only where the vector ends. */
size_t io_vector_to_buf(const IOVector *v, size_t offset, void *buf, size_t size);
size_t io_vector_from_buf(const IOVector *v, size_t offset, const void *buf, size_t size);
size_t io_vector_memset(const IOVector *v, size_t offset, int byte, size_t size);
/* Whether the part is all zeros; what lies beyond the vector's end counts as zero. */
bool io_vector_is_zero(const IOVector *v, size_t offset, size_t size);
/* Whether every piece's address and length are multiples of @alignment. */
bool io_vector_is_aligned(const IOVector *v, size_t alignment);

/* Whether all @size bytes at @buf are zero; uses the CPU's vectors. */
bool buffer_is_zero(const void *buf, size_t size);
/*
 * The length of the run at the start of @buf, in steps of @step bytes (the
 * last step may be shorter), that is all zero or has no all-zero step;
 * *@zero tells which. @size and @step must not be 0.
 */
size_t buffer_zero_run(const void *buf, size_t size, size_t step, bool *zero);

G_END_DECLS

#endif
