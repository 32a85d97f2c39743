/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: have the header refer to a directory of bitmaps, or to none.
 *
 * Rewriting the header as a whole could be torn by a power cut: extensions and
 * the backing file's name lie in several sectors. So it is changed in steps,
 * each of which leaves an image that is whole:
 *  1. While anything else changes, the autoclear bit is off, and what the
 *     extension says counts for nothing.
 *  2. What makes a difference (the bit, an extension's type and length, the
 *     place of the backing file's name) is a write of 8 aligned bytes, which
 *     are never in two sectors. All that it refers to is on disk before.
 *
 * A header that this cannot be done to is rewritten, its first sector in one write. What
 * has no place beside the old one even then is refused: there is no order to write it in.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-amend.h"
#include "drivers/qcow2/qcow2-bitmap.h"

#define FIELD_BACKING_OFFSET 8
#define FIELD_AUTOCLEAR 88
#define EXTENSION_HEAD 8
#define EXTENSION_DATA 24

/* The first cluster as it is on disk, and what was found in it. */
typedef struct FirstCluster {
    Qcow2State *s;
    uint8_t *buf;
    uint64_t end;     /* of the extensions: where the one of type END is */
    uint64_t bitmaps; /* where the extension is; 0: nowhere */
    bool is_last;     /* no other is behind it */
} FirstCluster;

static void put64(uint8_t *p, uint64_t value)
{
    value = GUINT64_TO_BE(value);
    memcpy(p, &value, sizeof(value));
}

/* Write @bytes at @data to @offset, and have that on disk. 0 or -errno. */
static int coroutine_fn GRAPH_RDLOCK write_step(Qcow2State *s, uint64_t offset, const void *data,
                                                uint64_t bytes)
{
    int ret = bdrv_co_pwrite(s->file, offset, bytes, data, 0);

    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(s->file));
}

static int coroutine_fn GRAPH_RDLOCK write_number(Qcow2State *s, uint64_t offset, uint64_t value)
{
    uint8_t buf[8];

    put64(buf, value);
    return write_step(s, offset, buf, sizeof(buf));
}

/* Where this fails, s->header has the bit: it may be there. */
static int coroutine_fn GRAPH_RDLOCK set_valid(Qcow2State *s, bool valid)
{
    uint64_t bits = s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    int ret;

    s->header.autoclear_features = bits | QCOW2_AUTOCLEAR_BITMAPS;
    bits |= valid ? QCOW2_AUTOCLEAR_BITMAPS : 0;
    ret = write_number(s, FIELD_AUTOCLEAR, bits);
    if (ret >= 0) {
        s->header.autoclear_features = bits;
    }
    return ret;
}

/*
 * Find the extensions, which were parsed at open. 0; -ENOTSUP if the last is not
 * of type END; or -errno.
 */
static int coroutine_fn GRAPH_RDLOCK find_extensions(FirstCluster *f)
{
    const uint64_t size = qcow2_cluster_size(&f->s->geo);
    uint64_t at = f->s->header.header_length;
    int ret = bdrv_co_pread(f->s->file, 0, size, f->buf, 0);

    while (ret >= 0 && at + EXTENSION_HEAD <= size) {
        uint32_t type = qcow2_be32(f->buf + at), length = qcow2_be32(f->buf + at + 4);

        if (type == QCOW2_EXT_END) {
            f->end = at;
            return 0;
        }
        f->is_last = type == QCOW2_EXT_BITMAPS;
        f->bitmaps = f->is_last ? at : f->bitmaps;
        at += EXTENSION_HEAD + (((uint64_t)length + 7) & ~7ULL);
    }
    return ret < 0 ? ret : -ENOTSUP;
}

static void fill_data(const Qcow2State *s, uint8_t *data)
{
    put64(data, (uint64_t)s->ext.nb_bitmaps << 32);
    put64(data + 8, s->ext.bitmap_directory_size);
    put64(data + 16, s->ext.bitmap_directory_offset);
}

/* Move the backing file's name, if it is in the way of a new extension. */
static int coroutine_fn GRAPH_RDLOCK make_room(FirstCluster *f, uint64_t end)
{
    Qcow2Header *h = &f->s->header;
    uint64_t name_end = h->backing_file_offset + h->backing_file_size;
    uint64_t place = (MAX(end, name_end) + 7) & ~7ULL;
    int ret;

    if (end > qcow2_cluster_size(&f->s->geo)) {
        return -ENOSPC;
    }
    if (h->backing_file_offset == 0 || h->backing_file_offset >= end) {
        return 0;
    }
    if (place + h->backing_file_size > qcow2_cluster_size(&f->s->geo)) {
        return -ENOSPC;
    }
    ret = write_step(f->s, place, f->buf + h->backing_file_offset, h->backing_file_size);
    if (ret >= 0) {
        ret = write_number(f->s, FIELD_BACKING_OFFSET, place);
    }
    if (ret >= 0) {
        h->backing_file_offset = place;
    }
    return ret;
}

/* Put the extension where the end of the extensions was. */
static int coroutine_fn GRAPH_RDLOCK append_extension(FirstCluster *f)
{
    uint8_t rest[EXTENSION_DATA + EXTENSION_HEAD] = { 0 }; /* ends with type END */
    int ret = make_room(f, f->end + EXTENSION_HEAD + sizeof(rest));

    if (ret >= 0) {
        fill_data(f->s, rest);
        ret = write_step(f->s, f->end + EXTENSION_HEAD, rest, sizeof(rest));
    }
    if (ret >= 0) {
        ret = write_number(f->s, f->end, (uint64_t)QCOW2_EXT_BITMAPS << 32 | EXTENSION_DATA);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK change_extension(FirstCluster *f)
{
    uint8_t data[EXTENSION_DATA];

    if (f->s->ext.nb_bitmaps == 0) {
        if (!f->bitmaps) {
            return 0;
        }
        return f->is_last ? write_number(f->s, f->bitmaps, QCOW2_EXT_END) : -ENOTSUP;
    }
    if (!f->bitmaps) {
        return append_extension(f);
    }
    fill_data(f->s, data);
    return write_step(f->s, f->bitmaps + EXTENSION_HEAD, data, sizeof(data));
}

int coroutine_fn qcow2_bitmaps_update_header(Qcow2State *s)
{
    FirstCluster f = { .s = s };
    int ret = 0;

    if (s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS) {
        ret = set_valid(s, false);
    }
    if (ret < 0) {
        return ret;
    }
    f.buf = g_malloc(qcow2_cluster_size(&s->geo));
    ret = find_extensions(&f);
    if (ret >= 0) {
        ret = change_extension(&f);
    }
    g_free(f.buf);
    if (ret == -ENOTSUP || ret == -ENOSPC) {
        /* An odd header, or a long name: all of it has to be put in order. */
        ret = qcow2_header_switch(s, &s->header, &s->ext, NULL, NULL);
    }
    if (ret >= 0 && s->ext.nb_bitmaps > 0) {
        ret = set_valid(s, true);
    }
    return ret;
}
