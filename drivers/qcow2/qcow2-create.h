/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: what the files that make a new image share. */
#ifndef DRIVERS_QCOW2_CREATE_H
#define DRIVERS_QCOW2_CREATE_H

#include "drivers/qcow2/qcow2-layout.h"
#include "drivers/qcow2/qcow2.h"

/* The create options, checked. Strings are NULL where not given. */
typedef struct Qcow2CreateOptions {
    uint64_t size; /* of the disk, bytes, whole sectors */
    int version;   /* 2 or 3 */
    unsigned cluster_bits;
    unsigned refcount_order;
    int prealloc; /* BlockPrealloc */
    int compression_type;
    bool lazy_refcounts;
    bool extended_l2;
    bool data_file_raw;
    char *backing_file;
    char *backing_fmt;
    char *data_file;
} Qcow2CreateOptions;

/*
 * Take the options from @options, to be cleared in any case. What is left there
 * is for the protocol below. False with @errp, whose code is EFBIG if nothing but
 * larger clusters would help.
 */
bool qcow2_create_options_take(JsonObject *options, Qcow2CreateOptions *opts, GError **errp);
void qcow2_create_options_clear(Qcow2CreateOptions *opts);

/* A new image: what is to be written where. */
typedef struct Qcow2NewImage {
    const Qcow2CreateOptions *opts;
    Qcow2Header header;
    Qcow2Geometry geo;
    Qcow2Layout layout;
    uint64_t *l1;            /* in host order */
    uint8_t *header_cluster; /* as it will be on disk */
    uint64_t file_length;    /* bytes */
    uint64_t data_length;    /* of an external data file, bytes */
} Qcow2NewImage;

/*
 * Work out all of @image. False with @errp if it cannot be made. To be cleared in
 * any case. No I/O.
 */
bool qcow2_new_image_plan(Qcow2NewImage *image, const Qcow2CreateOptions *opts, GError **errp);
void qcow2_new_image_clear(Qcow2NewImage *image);
/* Only the header's fields that follow from image->opts, and the geometry. */
void qcow2_new_image_init_header(Qcow2NewImage *image);
/* Whether each cluster of the disk has a place from the beginning. */
bool qcow2_new_image_is_mapped(const Qcow2CreateOptions *opts);

/*
 * A piece of the L2 table at cluster @l2: the disk's clusters from @guest on lie at
 * the @count clusters from @host on. 0 or -errno.
 */
typedef int Qcow2PieceFunc(void *opaque, uint64_t l2, uint64_t guest, uint64_t count,
                           uint64_t host);

/*
 * Allocate the tables and, where the disk is mapped, its clusters from @l, which is
 * fresh; call @piece for these, in order. A second walk tells the same. 0, what
 * @piece returned, or -EFBIG.
 */
int qcow2_new_image_walk(Qcow2NewImage *image, Qcow2Layout *l, Qcow2PieceFunc *piece,
                         void *opaque);

/*
 * Write the tables and, when they are on disk, the header to @file, which is as
 * long as planned and reads as zeros. 0 or -errno. Waits for I/O.
 */
int qcow2_new_image_write(Qcow2NewImage *image, BlockBackend *file);

#endif
