/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A workload: what a guest does to a disk of some format whose files are on the
 * recorder, in a simulated world, and then all that a power cut could leave of
 * it.
 *
 * What the guest does is told in text: verbs of the format's vocabulary, joined
 * by "," (one after the other) or "+" (in flight together); or "randomN", which
 * is N verbs at places that the seed chooses, up to three of them together. The
 * text and the seed make the same run each time.
 */
#ifndef TESTS_CRASH_WORKLOAD_H
#define TESTS_CRASH_WORKLOAD_H

#include "blockgraph/blockgraph.h"
#include "explorer.h"
#include "model.h"

typedef struct CrashFormat CrashFormat;

/* A run while the guest is at work. */
typedef struct CrashRun {
    const CrashFormat *format;
    SimWorld *world;
    AioContext *contexts[2]; /* main, and one beside it */
    CrashStore *store;
    CrashLog *log;
    CrashModel *model;
    BlockBackend *blk;
    uint64_t random;
    GString *why; /* what the guest found to be wrong; else empty */
} CrashRun;

/* Where a verb works, in bytes; whole sectors, inside the disk. */
typedef struct CrashPlace {
    int64_t offset;
    int64_t bytes;
} CrashPlace;

/*
 * Something a guest does. Exactly one of the two functions is there. What it
 * finds wrong it appends to run->why.
 */
typedef struct CrashVerb {
    const char *name;
    /* Others may be in flight. */
    void coroutine_fn (*co_run)(CrashRun *run, CrashPlace place);
    /* Alone, outside of a coroutine: may close and open run->blk. */
    void (*run)(CrashRun *run, CrashPlace place);
    /* The place, where a text and not the seed asks for it: units plus sectors. */
    int offset_units, offset_sectors, units, sectors;
} CrashVerb;

struct CrashFormat {
    const char *name;
    /* To open it by: "driver=…,file.driver=recorder,file.disk=…". */
    const char *options;
    int64_t length; /* of the guest's disk, bytes */
    int64_t unit;   /* the cluster size, or what comes near it, bytes */
    /* See crash_model_new(). */
    int64_t base_bytes;
    bool backing;
    /* The length is the file's: see crash_model_allows_length(). */
    bool length_of_file;
    /* Register drivers, make the disks of the (active) store. False with @why. */
    bool (*create)(const CrashFormat *format, CrashStore *store, GString *why);
    /* For crash_create_by_driver(): its name, and create options as "key=value,…". */
    const char *driver;
    const char *create_options;
    /*
     * What is to be true of the image after a power cut, beyond what the guest
     * reads: it is open in @blk. False with @why. NULL: bdrv_check() finds no
     * corruption and no error, if the format has a check.
     */
    bool (*examine)(const CrashFormat *format, BlockBackend *blk, GString *why);
    const CrashVerb *verbs; /* ended by a NULL name */
};

/* write, write-fua, zero, unmap, discard, flush, read, grow, shrink, reopen at several places. */
extern const CrashVerb crash_verbs_disk[];
/* Those of them that leave the length as it is. */
extern const CrashVerb crash_verbs_fixed[];
/* The latter, and compressed writes of whole units. */
extern const CrashVerb crash_verbs_compress[];
/* And another name for the same backing file. */
extern const CrashVerb crash_verbs_overlay[];
/* Those of crash_verbs_compress, and emptying the image. */
extern const CrashVerb crash_verbs_empty[];
/* A verb by name, or NULL. */
const CrashVerb *crash_verb_find(const CrashFormat *format, const char *name, size_t length);
/* A place for @verb: its own, or one that run->random chooses. */
CrashPlace crash_verb_place(CrashRun *run, const CrashVerb *verb, bool random);

/* The backing file's names: two disks that are the same. */
#define CRASH_BASE "recorder:base"
#define CRASH_SAME_BASE "recorder:the-same-base-under-a-name-that-is-longer"

/*
 * For CrashFormat.create: creates disk "image" with the driver, and what is
 * there at first: with @backing in a disk which the create options name as
 * CRASH_BASE, else by writing to the image.
 */
bool crash_create_by_driver(const CrashFormat *format, CrashStore *store, GString *why);
/* Open the format's disk in the active store, for reading and writing. */
BlockBackend *crash_open(const CrashFormat *format, GString *why);

typedef struct CrashWorkload {
    const CrashFormat *format;
    const char *steps;
    uint64_t seed;
    uint64_t budget;   /* see CrashExplorer */
    const char *state; /* examine this one only, if not NULL */
    bool verbose;      /* print what the guest and the disks were asked for */
} CrashWorkload;
/*
 * Run it and explore what a power cut leaves. False with @why, which begins
 * with what BLOCKGRAPH_CRASH_STATE is to be set to in order to see it again.
 */
bool crash_workload_run(const CrashWorkload *workload, CrashCounts *counts, GString *why);

#endif
