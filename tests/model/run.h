/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One run of the model test: all that a seed decides, from the first layer of
 * the image to its last check. Batches of requests, up to eight in flight, take turns
 * with what is done alone.
 */
#ifndef TESTS_MODEL_RUN_H
#define TESTS_MODEL_RUN_H

#include "image.h"
#include "util/sim.h"

#define MODEL_CONTEXTS 3
#define MODEL_GUESTS 8

typedef struct ModelPlan {
    uint64_t seed;
    bool threads;         /* real ones; else the simulated world of the seed */
    unsigned operations;  /* of the last layer, about */
    const char *dir;      /* for its files, which are removed after it */
    const char *qemu_img; /* see ModelImage */
    bool verbose;
} ModelPlan;

typedef struct ModelRun ModelRun;

#define MODEL_BITMAPS 2

/* A discard need not do anything; if it changes data it must mark them. */
typedef enum ModelMark {
    MODEL_NOT_MARKED,
    MODEL_MAYBE_MARKED,
    MODEL_MARKED,
} ModelMark;

typedef struct ModelBitmap {
    bool there;
    bool enabled;
    int64_t granularity;
    ModelMark marks[MODEL_MAX_SIZE / 512]; /* by granule */
} ModelBitmap;

typedef struct ModelGuest {
    ModelRun *run;
    uint64_t random;
    unsigned requests; /* in this batch */
} ModelGuest;

struct ModelRun {
    const ModelPlan *plan;
    SimWorld *world; /* or NULL */
    AioThread *threads[MODEL_CONTEXTS];
    AioContext *contexts[MODEL_CONTEXTS]; /* the first is main's */
    ModelImage image;
    ModelDisk disk;
    ModelBitmap bitmaps[MODEL_BITMAPS]; /* of the top layer */
    GArray *snapshots;                  /* snapshots.c's; the same */
    ModelGuest guests[MODEL_GUESTS];
    int running;          /* guests; atomic */
    int broken;           /* something is in why; atomic */
    uint64_t random;      /* main's */
    uint64_t operations;  /* done */
    GMutex lock;          /* protects why */
    GString *why;
};

/* Run it; *@operations is added to. A violation is printed; false then. */
bool model_run(const ModelPlan *plan, uint64_t *operations);

/* ---- guest.c ------------------------------------------------------------------------------ */

/* About @requests requests, many in flight, until all are over; the disk settles. */
bool model_run_batch(ModelRun *run, unsigned requests);
/* Print what @why says of @what; the run is broken. Any thread. */
void model_run_fail(ModelRun *run, const char *what, const char *why);

/* ---- alone.c ------------------------------------------------------------------------------ */

/* Something that is done alone. */
bool model_run_alone(ModelRun *run);
/* Append to run->why; false. */
bool model_failed(ModelRun *run, const char *what, const GError *err);

/* ---- bitmaps.c: nothing is in flight ------------------------------------------------------- */

/* Mark what the requests of a batch have touched, before the disk settles. */
void model_bitmaps_note(ModelRun *run);
/* And what has changed since the disk was as @before; it has settled. */
void model_bitmaps_note_changes(ModelRun *run, const uint8_t *before);
/* The image's bitmaps are as they should be; else false with run->why. */
bool model_bitmaps_check(ModelRun *run);
/* Add, remove, clear, enable or disable one. */
bool model_bitmaps_change(ModelRun *run);
/* Whether there is one. */
bool model_bitmaps_are_there(const ModelRun *run);
/* The disk is @size bytes long from now on. */
void model_bitmaps_resize(ModelRun *run, int64_t size);

/* ---- snapshots.c: the same ----------------------------------------------------------------- */

/* A new layer has none. */
void model_snapshots_reset(ModelRun *run);
/* Create, apply or delete one, or look at the disk through it. */
bool model_snapshots_change(ModelRun *run);

#endif
