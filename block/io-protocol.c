/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests to a node that moves its data, a protocol or a filter: made to fit its
 * alignment and limits.
 *
 * A request that is not aligned goes through a bounce buffer; writing then
 * reads the edges first, and holds an exclusive claim on the aligned range so
 * that no other write comes in between. Writes that are aligned hold a shared
 * one. Reads need none: what read-modify-write puts back around its own bytes
 * is what was there.
 */
#include <string.h>

#include "block/io-int.h"

static uint8_t zero_buffer[BDRV_MAX_BOUNCE] __attribute__((aligned(4096)));

void *bdrv_zero_buffer(void)
{
    return zero_buffer;
}

void bdrv_note_write(BlockDriverState *bs, int64_t end)
{
    int64_t old = __atomic_load_n(&bs->length, __ATOMIC_RELAXED);

    sharded_count_add(&bs->writes);
    end = BDRV_ALIGN_UP(end, BDRV_SECTOR_SIZE);
    while (end > old && !__atomic_compare_exchange_n(&bs->length, &old, end, false,
                                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* How many bytes, from @done on, the next @max pieces of memory hold. */
static int64_t bytes_in_pieces(const IOVector *iov, size_t done, int max)
{
    int64_t n = 0;

    for (int i = 0; i < iov->niov && max > 0; i++) {
        size_t len = iov->iov[i].iov_len;

        if (len <= done) {
            done -= len;
        } else {
            n += len - done;
            done = 0;
            max--;
        }
    }
    return n;
}

/*
 * How much of the request, beginning @done bytes into it, goes in one call:
 * whole units, or all. 0 if too many pieces of memory make up one unit.
 */
static int64_t next_piece(BlockDriverState *bs, IOVector *iov, size_t done, int64_t left)
{
    int64_t n = left;

    if (bs->limits.max_transfer) {
        n = MIN(n, bs->limits.max_transfer);
    }
    if (iov->niov > bs->limits.max_iov) {
        n = MIN(n, bytes_in_pieces(iov, done, bs->limits.max_iov));
    }
    return n < left ? n - n % bs->limits.request_alignment : n;
}

static bool pieces_fit(BlockDriverState *bs, IOVector *iov, int64_t bytes)
{
    int64_t n;

    for (int64_t done = 0; iov->niov > bs->limits.max_iov && done < bytes; done += n) {
        n = next_piece(bs, iov, done, bytes - done);
        if (n == 0) {
            return false;
        }
    }
    return true;
}

/* Whether the driver can take the request as it is, or cut up. */
static bool request_fits(BlockDriverState *bs, int64_t offset, int64_t bytes, IOVector *iov)
{
    return ((offset | bytes) & (bs->limits.request_alignment - 1)) == 0 &&
           (bs->limits.min_mem_alignment <= 1 ||
            io_vector_is_aligned(iov, bs->limits.min_mem_alignment)) &&
           pieces_fit(bs, iov, bytes);
}

/* -EIO if the alignment would take the request beyond what a driver may see. */
static int check_aligned_range(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t align = bs->limits.request_alignment;

    return bytes > BDRV_ALIGN_DOWN(BDRV_MAX_LENGTH, align) - offset ? -EIO : 0;
}

typedef int coroutine_fn DriverIoFunc(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *iov, int flags);

/* Call the driver once, or once per piece. */
static int coroutine_fn GRAPH_RDLOCK driver_io(DriverIoFunc *func, BlockDriverState *bs,
                                               int64_t offset, int64_t bytes, IOVector *iov,
                                               int flags)
{
    int64_t n = next_piece(bs, iov, 0, bytes);
    int ret = 0;

    bdrv_graph_assert_readable();
    if (n == bytes) {
        return func(bs, offset, bytes, iov, flags);
    }
    for (int64_t done = 0; done < bytes && ret >= 0; done += n) {
        IOVector slice;

        n = next_piece(bs, iov, done, bytes - done);
        io_vector_init(&slice, 1);
        io_vector_append(&slice, iov, done, n);
        ret = func(bs, offset + done, n, &slice, flags);
        io_vector_destroy(&slice);
    }
    return ret;
}

/* ---- Reading -------------------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK read_bounced(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, IOVector *iov, int flags)
{
    int64_t align = bs->limits.request_alignment;
    int64_t room = MIN(bytes + 2 * align, MAX(BDRV_MAX_BOUNCE, 2 * align));
    uint8_t *buf = bdrv_try_blockalign(bs, room);
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t done = 0; done < bytes && ret >= 0;) {
        int64_t start = BDRV_ALIGN_DOWN(offset + done, align);
        int64_t end = MIN(BDRV_ALIGN_UP(offset + bytes, align),
                          start + BDRV_ALIGN_DOWN(room, align));
        int64_t n = MIN(end, offset + bytes) - (offset + done);
        IOVector bounce;

        io_vector_init_buf(&bounce, buf, end - start);
        ret = driver_io(bs->drv->bdrv_co_preadv, bs, start, end - start, &bounce, flags);
        if (ret >= 0) {
            io_vector_from_buf(iov, done, buf + (offset + done - start), n);
        }
        done += n;
    }
    free(buf);
    return ret;
}

int coroutine_fn bdrv_co_protocol_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         IOVector *iov, int flags)
{
    int ret;

    bdrv_graph_assert_readable();
    if (request_fits(bs, offset, bytes, iov)) {
        return driver_io(bs->drv->bdrv_co_preadv, bs, offset, bytes, iov, flags);
    }
    ret = check_aligned_range(bs, offset, bytes);
    return ret < 0 ? ret : read_bounced(bs, offset, bytes, iov, flags);
}

/* ---- Writing -------------------------------------------------------------------- */

/* Read the aligned units at both ends of [start, end) that are not all new. */
static int coroutine_fn GRAPH_RDLOCK read_edges(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, int64_t start, int64_t end,
                                                uint8_t *buf)
{
    int64_t align = bs->limits.request_alignment;
    /* The last unit; or more, from where memory is aligned, too. */
    int64_t tail = BDRV_ALIGN_DOWN(end - start - align,
                                   MAX(align, (int64_t)bs->limits.min_mem_alignment));
    bool read_head = start < offset, read_tail = offset + bytes < end;
    bool in_one = read_head && read_tail && tail == 0;
    IOVector edge;
    int ret = 0;

    if (read_head) {
        bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_RMW_HEAD);
    }
    if (read_head && !in_one) {
        io_vector_init_buf(&edge, buf, align);
        ret = driver_io(bs->drv->bdrv_co_preadv, bs, start, align, &edge, 0);
        if (ret >= 0) {
            bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_RMW_AFTER_HEAD);
        }
    }
    if (ret >= 0 && read_tail) {
        bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_RMW_TAIL);
        io_vector_init_buf(&edge, buf + tail, end - start - tail);
        ret = driver_io(bs->drv->bdrv_co_preadv, bs, start + tail, end - start - tail, &edge, 0);
        if (ret >= 0 && in_one) {
            bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_RMW_AFTER_HEAD);
        }
        if (ret >= 0) {
            bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_RMW_AFTER_TAIL);
        }
    }
    return ret;
}

/* What is aligned, in pieces that the driver takes. */
static int coroutine_fn GRAPH_RDLOCK write_pieces(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, IOVector *iov, int flags)
{
    int ret;

    bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV);
    ret = driver_io(bs->drv->bdrv_co_pwritev, bs, offset, bytes, iov, flags);
    bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_DONE);
    return ret;
}

/* Write one part of at most BDRV_MAX_BOUNCE bytes through an aligned buffer. */
static int coroutine_fn GRAPH_RDLOCK write_bounced(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, IOVector *iov,
                                                   size_t iov_offset, int flags)
{
    int64_t align = bs->limits.request_alignment;
    int64_t start = BDRV_ALIGN_DOWN(offset, align);
    int64_t end = BDRV_ALIGN_UP(offset + bytes, align);
    uint8_t *buf = bdrv_try_blockalign(bs, end - start);
    IOVector bounce;
    Claim claim;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    claim_begin(bs->claims, &claim, start, end - start, true);
    ret = read_edges(bs, offset, bytes, start, end, buf);
    if (ret >= 0) {
        io_vector_to_buf(iov, iov_offset, buf + (offset - start), bytes);
        io_vector_init_buf(&bounce, buf, end - start);
        ret = write_pieces(bs, start, end - start, &bounce, flags);
    }
    claim_end(bs->claims, &claim);
    free(buf);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK write_aligned(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, IOVector *iov, int flags)
{
    bool claimed = bs->limits.request_alignment > 1; /* else nobody reads and modifies */
    Claim claim;
    int ret;

    if (claimed) {
        claim_begin(bs->claims, &claim, offset, bytes, false);
    }
    ret = write_pieces(bs, offset, bytes, iov, flags);
    if (claimed) {
        claim_end(bs->claims, &claim);
    }
    return ret;
}

int coroutine_fn bdrv_co_protocol_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          IOVector *iov, int flags)
{
    int native = flags & bs->drv->supported_write_flags;
    int ret;

    bdrv_graph_assert_readable();
    ret = check_aligned_range(bs, offset, bytes);
    if (ret >= 0 && request_fits(bs, offset, bytes, iov)) {
        ret = write_aligned(bs, offset, bytes, iov, native);
    } else {
        for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
            n = MIN(bytes - done, BDRV_MAX_BOUNCE);
            ret = write_bounced(bs, offset + done, n, iov, done, native);
        }
    }
    bdrv_note_write(bs, ret < 0 ? 0 : offset + bytes);
    if (ret >= 0 && (flags & ~native & BDRV_REQ_FUA)) {
        ret = bdrv_co_flush(bs);
    }
    return MIN(ret, 0);
}

/* ---- Zeroing ---------------------------------------------------------------------- */

static int coroutine_fn GRAPH_RDLOCK write_zero_data(BlockDriverState *bs, int64_t offset,
                                                     int64_t bytes)
{
    int ret = 0;

    for (int64_t done = 0, n; done < bytes && ret >= 0; done += n) {
        IOVector iov;

        n = MIN(bytes - done, BDRV_MAX_BOUNCE);
        io_vector_init_buf(&iov, zero_buffer, n);
        ret = bdrv_co_protocol_pwritev(bs, offset + done, n, &iov, 0);
    }
    return ret;
}

/*
 * The part of [offset, offset + bytes) that consists of whole units, which need
 * not be powers of two; false if there is none.
 */
static bool whole_units(int64_t offset, int64_t bytes, int64_t unit, int64_t *start, int64_t *end)
{
    *end = offset + bytes - (offset + bytes) % unit;
    return !__builtin_add_overflow(offset, (unit - offset % unit) % unit, start) && *start < *end;
}

/* The aligned middle, in pieces that the driver takes; *@as_data if not all went that way. */
static int coroutine_fn GRAPH_RDLOCK zero_aligned(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, int flags, bool *as_data)
{
    int64_t max = bs->limits.max_pwrite_zeroes ? bs->limits.max_pwrite_zeroes : bytes;
    bool claimed = bs->limits.request_alignment > 1;
    Claim claim;
    int ret = bs->drv->bdrv_co_pwrite_zeroes ? 0 : -ENOTSUP;

    for (int64_t done = 0, n; done < bytes; done += n) {
        n = MIN(bytes - done, max);
        if (ret >= 0) {
            if (claimed) {
                claim_begin(bs->claims, &claim, offset + done, n, false);
            }
            ret = bs->drv->bdrv_co_pwrite_zeroes(bs, offset + done, n, flags);
            if (claimed) {
                claim_end(bs->claims, &claim);
            }
        }
        if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
            *as_data = true;
            return write_zero_data(bs, offset + done, bytes - done);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return ret;
}

int coroutine_fn bdrv_co_protocol_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, int flags)
{
    int64_t start, end;
    int native = flags & (bs->drv->supported_zero_flags | BDRV_REQ_NO_FALLBACK |
                          BDRV_REQ_MAY_UNMAP);
    bool as_data = true;
    int ret;

    bdrv_graph_assert_readable();
    bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_ZERO);
    if (!whole_units(offset, bytes, bs->limits.pwrite_zeroes_alignment, &start, &end)) {
        ret = flags & BDRV_REQ_NO_FALLBACK ? -ENOTSUP : write_zero_data(bs, offset, bytes);
    } else {
        as_data = start > offset || end < offset + bytes;
        ret = zero_aligned(bs, start, end - start, native, &as_data);
        if (ret >= 0) {
            ret = write_zero_data(bs, offset, start - offset);
        }
        if (ret >= 0) {
            ret = write_zero_data(bs, end, offset + bytes - end);
        }
    }
    bdrv_co_node_debug_event(bs, BDRV_DEBUG_PWRITEV_DONE);
    bdrv_note_write(bs, ret < 0 ? 0 : offset + bytes);
    if (ret >= 0 && (flags & BDRV_REQ_FUA) && (as_data || !(native & BDRV_REQ_FUA))) {
        ret = bdrv_co_flush(bs);
    }
    return MIN(ret, 0);
}

/* ---- Discarding --------------------------------------------------------------------- */

int coroutine_fn bdrv_co_protocol_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t max = bs->limits.max_pdiscard ? bs->limits.max_pdiscard : bytes;
    int64_t start, end;
    int ret = 0;

    bdrv_graph_assert_readable();
    if (!bs->drv->bdrv_co_pdiscard ||
        !whole_units(offset, bytes, bs->limits.pdiscard_alignment, &start, &end)) {
        return 0;
    }
    while (start < end && ret >= 0) {
        int64_t n = MIN(end - start, max);

        ret = bs->drv->bdrv_co_pdiscard(bs, start, n);
        start += n;
    }
    bdrv_note_write(bs, 0);
    return ret == -ENOTSUP ? 0 : MIN(ret, 0);
}
