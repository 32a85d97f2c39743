/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory driver: a RAM disk that takes memory only where it was written.
 *
 * Invariants:
 *  1. A page that is absent reads as zeros.
 *  2. The page table and the pages' bytes change under the lock held for
 *     writing, and are read under it held at least for reading.
 *  3. A chunk in the table has at least one page.
 */
#include <errno.h>
#include <string.h>

#include "blockgraph/block-driver.h"

#define PAGE_BYTES ((int64_t)64 << 10)
#define CHUNK_PAGES 512
#define CHUNK_BYTES (PAGE_BYTES * CHUNK_PAGES)

/* ---- State ---------------------------------------------------------------- */

/* The pages of a stretch of the disk. */
typedef struct Chunk {
    int64_t index; /* of its first byte, in CHUNK_BYTES */
    int present;   /* pages */
    uint8_t *pages[CHUNK_PAGES];
} Chunk;

typedef struct MemoryState {
    GRWLock lock;
    GHashTable *chunks; /* by index */
    int64_t allocated;  /* pages */
} MemoryState;

static void chunk_free(void *opaque)
{
    Chunk *chunk = opaque;

    for (int i = 0; i < CHUNK_PAGES; i++) {
        g_free(chunk->pages[i]);
    }
    g_free(chunk);
}

static Chunk *find_chunk(MemoryState *s, int64_t offset)
{
    int64_t index = offset / CHUNK_BYTES;

    return g_hash_table_lookup(s->chunks, &index);
}

static int page_index(int64_t offset)
{
    return offset / PAGE_BYTES % CHUNK_PAGES;
}

static uint8_t *find_page(MemoryState *s, int64_t offset)
{
    Chunk *chunk = find_chunk(s, offset);

    return chunk ? chunk->pages[page_index(offset)] : NULL;
}

/* The page at @offset, made if it is absent; NULL if memory is short. */
static uint8_t *make_page(MemoryState *s, int64_t offset)
{
    Chunk *chunk = find_chunk(s, offset);
    uint8_t *page = chunk ? chunk->pages[page_index(offset)] : NULL;

    if (page) {
        return page;
    }
    page = g_try_malloc0(PAGE_BYTES);
    if (!page) {
        return NULL;
    }
    if (!chunk) {
        chunk = g_new0(Chunk, 1);
        chunk->index = offset / CHUNK_BYTES;
        g_hash_table_insert(s->chunks, &chunk->index, chunk);
    }
    chunk->pages[page_index(offset)] = page;
    chunk->present++;
    s->allocated++;
    return page;
}

static void drop_page(MemoryState *s, int64_t offset)
{
    Chunk *chunk = find_chunk(s, offset);
    uint8_t **page = chunk ? &chunk->pages[page_index(offset)] : NULL;

    if (!page || !*page) {
        return;
    }
    g_clear_pointer(page, g_free);
    s->allocated--;
    if (--chunk->present == 0) {
        g_hash_table_remove(s->chunks, &chunk->index);
    }
}

/* How much of @bytes lies in the page at @offset. */
static int64_t in_page(int64_t offset, int64_t bytes)
{
    return MIN(bytes, PAGE_BYTES - offset % PAGE_BYTES);
}

/* ---- Opening ---------------------------------------------------------------- */

static const BlockOption memory_options[] = {
    {"size", "size", "Size of the disk"},
    {NULL, NULL, NULL},
};

/* "memory:64M" */
static JsonObject *memory_parse_filename(const char *filename, GError **errp)
{
    JsonObject *options = json_object_new();

    json_object_set_string_member(options, "size", filename + strlen("memory:"));
    return options;
}

static bool memory_open(BlockDriverState *bs, JsonObject *options, int flags, GError **errp)
{
    MemoryState *s = bdrv_state(bs);
    int64_t size = -1;

    if (!block_options_take_size(options, "size", &size, errp)) {
        return false;
    }
    if (size < 0 || size > BDRV_MAX_LENGTH) {
        block_error_set(errp, EINVAL, size < 0 ? "The 'memory' block driver requires a size"
                                               : "The size of a 'memory' disk is too large");
        return false;
    }
    g_rw_lock_init(&s->lock);
    s->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, chunk_free);
    bdrv_set_length(bs, size);
    return true;
}

static void memory_close(BlockDriverState *bs)
{
    MemoryState *s = bdrv_state(bs);

    g_hash_table_unref(s->chunks);
    g_rw_lock_clear(&s->lock);
}

/* ---- Requests ----------------------------------------------------------------- */

static int read_pages(BlockDriverState *bs, int64_t offset, int64_t bytes, IOVector *iov)
{
    MemoryState *s = bdrv_state(bs);
    int64_t n;

    g_rw_lock_reader_lock(&s->lock);
    for (int64_t done = 0; done < bytes; done += n) {
        int64_t at = offset + done;
        uint8_t *page = find_page(s, at);

        n = in_page(at, bytes - done);
        if (page) {
            io_vector_from_buf(iov, done, page + at % PAGE_BYTES, n);
        } else {
            io_vector_memset(iov, done, 0, n);
        }
    }
    g_rw_lock_reader_unlock(&s->lock);
    return 0;
}

static int write_pages(BlockDriverState *bs, int64_t offset, int64_t bytes, IOVector *iov)
{
    MemoryState *s = bdrv_state(bs);
    int64_t n;
    int ret = 0;

    g_rw_lock_writer_lock(&s->lock);
    for (int64_t done = 0; done < bytes; done += n) {
        int64_t at = offset + done;
        uint8_t *page = make_page(s, at);

        if (!page) {
            ret = -ENOMEM;
            break;
        }
        n = in_page(at, bytes - done);
        io_vector_to_buf(iov, done, page + at % PAGE_BYTES, n);
    }
    g_rw_lock_writer_unlock(&s->lock);
    return ret;
}

static int coroutine_fn memory_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, int flags)
{
    return read_pages(bs, offset, bytes, iov);
}

static int coroutine_fn memory_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          IOVector *iov, int flags)
{
    return write_pages(bs, offset, bytes, iov);
}

/* The bytes are moved at once; the loop only brings the result. */
static bool memory_prepare_aio(BlockDriverState *bs, BdrvIoType type, int64_t offset, IOVector *iov,
                               AioRequest *req)
{
    int ret = type == BDRV_IO_READ ? read_pages(bs, offset, iov->size, iov)
                                   : write_pages(bs, offset, iov->size, iov);

    req->op = AIO_OP_NOP;
    req->ret = ret < 0 ? ret : (int64_t)iov->size;
    return true;
}

/* Let whole pages go, and clear what is left at both ends. */
static void zero_range(MemoryState *s, int64_t offset, int64_t bytes)
{
    int64_t end = offset + bytes, n;

    g_rw_lock_writer_lock(&s->lock);
    for (; offset < end; offset += n) {
        uint8_t *page;

        if (!find_chunk(s, offset)) {
            n = MIN(end - offset, CHUNK_BYTES - offset % CHUNK_BYTES);
            continue;
        }
        n = in_page(offset, end - offset);
        if (n == PAGE_BYTES) {
            drop_page(s, offset);
            continue;
        }
        page = find_page(s, offset);
        if (page) {
            memset(page + offset % PAGE_BYTES, 0, n);
        }
    }
    g_rw_lock_writer_unlock(&s->lock);
}

static int coroutine_fn memory_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, int flags)
{
    zero_range(bdrv_state(bs), offset, bytes);
    return 0;
}

static int coroutine_fn memory_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    zero_range(bdrv_state(bs), offset, bytes);
    return 0;
}

/* Drop the pages of a chunk that begin at @opaque (bytes) or later; true if none is left. */
static gboolean cut_chunk(void *key, void *value, void *opaque)
{
    Chunk *chunk = value;
    int64_t first = (*(int64_t *)opaque - chunk->index * CHUNK_BYTES + PAGE_BYTES - 1) / PAGE_BYTES;

    for (int64_t i = MAX(first, 0); i < CHUNK_PAGES; i++) {
        chunk->present -= chunk->pages[i] != NULL;
        g_clear_pointer(&chunk->pages[i], g_free);
    }
    return chunk->present == 0;
}

/* Nothing is left from @end on. */
static void cut(MemoryState *s, int64_t end)
{
    GHashTableIter iter;
    void *chunk;

    g_rw_lock_writer_lock(&s->lock);
    if (find_page(s, end)) {
        memset(find_page(s, end) + end % PAGE_BYTES, 0, PAGE_BYTES - end % PAGE_BYTES);
    }
    g_hash_table_foreach_remove(s->chunks, cut_chunk, &end);
    s->allocated = 0;
    g_hash_table_iter_init(&iter, s->chunks);
    while (g_hash_table_iter_next(&iter, NULL, &chunk)) {
        s->allocated += ((Chunk *)chunk)->present;
    }
    g_rw_lock_writer_unlock(&s->lock);
}

static int coroutine_fn memory_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                           BlockPrealloc prealloc, GError **errp)
{
    if (prealloc != BLOCK_PREALLOC_OFF) {
        block_error_set(errp, ENOTSUP, "Unsupported preallocation mode: %s",
                        block_prealloc_words[prealloc]);
        return -ENOTSUP;
    }
    cut(bdrv_state(bs), offset);
    bdrv_set_length(bs, offset);
    return 0;
}

static int coroutine_fn memory_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                               int64_t *pnum, int64_t *map)
{
    MemoryState *s = bdrv_state(bs);
    int64_t end = offset + bytes, at = offset;
    bool present;

    g_rw_lock_reader_lock(&s->lock);
    present = find_page(s, offset) != NULL;
    while (at < end && present == (find_page(s, at) != NULL)) {
        int64_t step = find_chunk(s, at) ? PAGE_BYTES : CHUNK_BYTES;

        at += step - at % step;
    }
    g_rw_lock_reader_unlock(&s->lock);
    *pnum = MIN(at, end) - offset;
    *map = offset;
    return BDRV_BLOCK_OFFSET_VALID | (present ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO);
}

static int64_t coroutine_fn memory_co_get_allocated_file_size(BlockDriverState *bs)
{
    MemoryState *s = bdrv_state(bs);
    int64_t pages;

    g_rw_lock_reader_lock(&s->lock);
    pages = s->allocated;
    g_rw_lock_reader_unlock(&s->lock);
    return pages * PAGE_BYTES;
}

BlockDriver block_driver_memory = {
    .format_name = "memory",
    .protocol_name = "memory",
    .instance_size = sizeof(MemoryState),
    .options = memory_options,
    .bdrv_parse_filename = memory_parse_filename,
    .bdrv_open = memory_open,
    .bdrv_close = memory_close,
    .bdrv_reopen_prepare = bdrv_reopen_agree,
    .bdrv_co_get_allocated_file_size = memory_co_get_allocated_file_size,
    .bdrv_prepare_aio = memory_prepare_aio,
    .bdrv_co_preadv = memory_co_preadv,
    .bdrv_co_pwritev = memory_co_pwritev,
    .bdrv_co_pwrite_zeroes = memory_co_pwrite_zeroes,
    .bdrv_co_pdiscard = memory_co_pdiscard,
    .bdrv_co_truncate = memory_co_truncate,
    .bdrv_co_block_status = memory_co_block_status,
    .supported_write_flags = BDRV_REQ_FUA, /* there is nothing more stable here */
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
};
