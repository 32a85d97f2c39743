/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: another header in place of the one that is there. The header and its
 * extensions are one write of the first sector, if they fit. The backing file's name
 * stays where it is, or lies in that sector, or is written before to where nothing
 * was.
 */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-amend.h"

#define FIELD_BACKING_OFFSET 8
#define EXTENSION_HEAD 8

typedef struct Switch {
    Qcow2State *s;
    Qcow2Header header; /* the new one */
    uint8_t *old;       /* first cluster as it is */
    uint8_t *buf;       /* and as it will be */
    uint64_t size;      /* of the cluster */
    uint64_t end;       /* behind the extensions in @buf */
    uint64_t name;      /* where the backing file's name will be */
    const char *text;   /* a new one; NULL: it stays */
    uint64_t bytes;     /* its length */
} Switch;

/* Behind the extensions in @buf. @names, if not NULL: where those of features are, or 0. */
static uint64_t find_end(const uint8_t *buf, uint64_t size, uint64_t at, uint64_t *names)
{
    while (at + EXTENSION_HEAD <= size) {
        uint32_t type = qcow2_be32(buf + at), length = qcow2_be32(buf + at + 4);

        if (names && type == QCOW2_EXT_FEATURE_NAMES) {
            *names = at;
        }
        at += EXTENSION_HEAD;
        if (type == QCOW2_EXT_END || length > size - at) {
            return at;
        }
        at += ((uint64_t)length + 7) & ~7ULL;
    }
    return size;
}

static void drop_names(Switch *w, uint64_t names)
{
    uint64_t bytes =
        EXTENSION_HEAD + (((uint64_t)qcow2_be32(w->buf + names + 4) + 7) & ~7ULL);

    memmove(w->buf + names, w->buf + names + bytes, w->end - names - bytes);
    memset(w->buf + w->end - bytes, 0, bytes);
    w->end -= bytes;
}

static bool overlaps(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
    return a < b_end && b < a_end;
}

/* Find a place for the name; false if there is none. */
static bool place_name(Switch *w)
{
    const Qcow2Header *h = &w->s->header;
    uint64_t bytes = w->bytes, old = h->backing_file_offset;
    uint64_t used = find_end(w->old, w->size, h->header_length, NULL);

    w->name = 0;
    if (bytes == 0) {
        return true;
    }
    if (!w->text && !overlaps(old, old + bytes, 0, w->end)) {
        w->name = old;
    } else if (w->end + bytes <= BDRV_SECTOR_SIZE) {
        w->name = w->end;
    } else {
        /* Before the old one, or behind it: names do not move on and on. */
        used = MAX(used, w->end);
        w->name = (MAX(used, BDRV_SECTOR_SIZE) + 7) & ~7ULL;
        if (overlaps(w->name, w->name + bytes, old, old + h->backing_file_size)) {
            used = MAX(used, old + h->backing_file_size);
            w->name = (MAX(used, BDRV_SECTOR_SIZE) + 7) & ~7ULL;
        }
    }
    return w->name + bytes <= w->size;
}

static void put_name(Switch *w)
{
    const Qcow2Header *h = &w->s->header;
    uint64_t offset = GUINT64_TO_BE(w->name);
    uint32_t size = GUINT32_TO_BE(w->bytes);

    w->header.backing_file_offset = w->name;
    w->header.backing_file_size = w->name ? w->bytes : 0;
    if (w->name) {
        memcpy(w->buf + w->name,
               w->text ? (const uint8_t *)w->text : w->old + h->backing_file_offset, w->bytes);
        memcpy(w->buf + FIELD_BACKING_OFFSET, &offset, 8);
        memcpy(w->buf + FIELD_BACKING_OFFSET + 8, &size, 4);
    }
}

static int coroutine_fn GRAPH_RDLOCK write_part(const Switch *w, uint64_t at, uint64_t bytes)
{
    int ret = bdrv_co_pwrite(w->s->file, at, bytes, w->buf + at, 0);

    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(w->s->file));
}

/* What is new behind the first sector, then that. */
static int coroutine_fn GRAPH_RDLOCK write_all(const Switch *w)
{
    uint64_t bytes = w->header.backing_file_size;
    int ret = 0;

    if (w->end > BDRV_SECTOR_SIZE) { /* more extensions than a sector can hold */
        return write_part(w, 0, w->size);
    }
    if (w->name >= BDRV_SECTOR_SIZE && w->name != w->s->header.backing_file_offset) {
        ret = write_part(w, w->name, bytes);
    }
    return ret < 0 ? ret : write_part(w, 0, BDRV_SECTOR_SIZE);
}

static int coroutine_fn GRAPH_RDLOCK build(Switch *w, const Qcow2Extensions *ext, GError **errp)
{
    uint64_t names = 0;
    int ret = qcow2_header_build(&w->header, ext, NULL, w->buf);

    if (ret == 0) {
        w->end = find_end(w->buf, w->size, w->header.header_length, &names);
        if (names && w->end > BDRV_SECTOR_SIZE) {
            drop_names(w, names);
            names = 0; /* another extension is there now */
        }
        if (names && !place_name(w)) {
            drop_names(w, names);
        }
        ret = place_name(w) ? 0 : -ENOSPC;
    }
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': the new header, with its extensions, is larger "
                              "than the first cluster", w->s->name);
    }
    return ret;
}

/*
 * What failed may be there all the same: as it was, if that can be had. Else nobody
 * knows what kind of image it is, and no more is written to it.
 */
static void coroutine_fn GRAPH_RDLOCK put_back(const Switch *w)
{
    uint64_t bytes = w->end > BDRV_SECTOR_SIZE ? w->size : BDRV_SECTOR_SIZE;

    if (bdrv_co_pwrite(w->s->file, 0, bytes, w->old, 0) < 0 ||
        bdrv_co_flush(bdrv_child_bs(w->s->file)) < 0) {
        __atomic_store_n(&w->s->writer->corrupt, true, __ATOMIC_RELAXED);
    }
}

int coroutine_fn qcow2_header_switch(Qcow2State *s, const Qcow2Header *header,
                                     const Qcow2Extensions *ext, const char *backing,
                                     GError **errp)
{
    Switch w = { .s = s, .header = *header, .size = qcow2_cluster_size(&s->geo), .text = backing,
                 .bytes = backing ? strlen(backing) : s->header.backing_file_size };
    g_autofree uint8_t *buffers = g_malloc0(2 * w.size);
    int ret;

    bdrv_graph_assert_readable();
    w.old = buffers;
    w.buf = buffers + w.size;
    ret = bdrv_co_pread(s->file, 0, w.size, w.old, 0);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not read the header", s->name);
        return ret;
    }
    ret = build(&w, ext, errp);
    if (ret < 0) {
        return ret;
    }
    put_name(&w);
    ret = write_all(&w);
    if (ret < 0) {
        block_error_set_errno(errp, ret, "'%s': could not write the header", s->name);
        put_back(&w);
        return ret;
    }
    s->header = w.header;
    return 0;
}
