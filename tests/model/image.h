/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The image under test: a chain of up to four layers, whose shapes a seed
 * decides. Only the top one is written to; what is below it was the top before.
 *
 * Functions return false with the reason appended to @why. Main thread, nothing
 * in flight.
 */
#ifndef TESTS_MODEL_IMAGE_H
#define TESTS_MODEL_IMAGE_H

#include "blockgraph/blockgraph.h"
#include "disk.h"

#define MODEL_MAX_LAYERS 4
#define MODEL_MAX_SIZE (1024 * 1024) /* of the disk, in bytes */

typedef struct ModelShape {
    unsigned version;
    unsigned cluster_bits;
    unsigned refcount_bits;
    bool extended;
    bool lazy;
    bool zstd;
    bool metadata; /* preallocated */
    bool data_file;
    bool raw; /* the data file is */
    int64_t size;
    int64_t cluster;
    bool backing;
} ModelShape;

typedef struct ModelImage {
    const char *dir;
    const char *qemu_img; /* a program to ask, too, or NULL */
    unsigned files;       /* made up to now */
    unsigned layers;
    ModelShape shape; /* of the top */
    char *path;       /* of the top */
    char *below;      /* of what is below it, or NULL */
    char *below_format;
    uint8_t *below_bytes; /* MODEL_MAX_SIZE: what is seen there */
    int64_t below_size;
    char *options; /* by which it was opened last */
    BlockBackend *blk;
} ModelImage;

void model_image_clear(ModelImage *image);
/* "v3 cluster 4096 …"; free with g_free(). */
char *model_shape_text(const ModelShape *shape);

/* A new layer on top of what there is, which shows @disk; it is closed. */
bool model_image_add_layer(ModelImage *image, const ModelDisk *disk, uint64_t *random,
                           GString *why);
/* A raw file with what is in @disk: the lowest layer. */
void model_image_add_raw(ModelImage *image, const ModelDisk *disk);
/* Open the top, with options that @random chooses. */
bool model_image_open(ModelImage *image, uint64_t *random, GString *why);
/* Close it; its check finds nothing, and it holds @disk. */
bool model_image_close(ModelImage *image, const ModelDisk *disk, GString *why);
/* The top, for reading, while it is closed. NULL with @why. */
BlockBackend *model_image_open_read_only(const ModelImage *image, GString *why);
/* Read all of it; the disk settles. */
bool model_image_settle(ModelImage *image, ModelDisk *disk, GString *why);
/* Put a raw file that shows the same below, while it is open. */
bool model_image_flatten_below(ModelImage *image, GString *why);
/* A file's name that was not used before; free with g_free(). */
char *model_image_new_path(ModelImage *image, const char *suffix);

#endif
