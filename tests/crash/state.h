/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One cut of a log: what is durable there, what is in doubt, and the state that
 * a choice among the latter makes.
 *
 * Invariants, between calls:
 *  1. base holds the disks with all that is durable and older than whatever is
 *     in doubt; it only moves forward.
 *  2. work equals base.
 *  3. base_hash is the sum over the sectors of base of their hashes.
 */
#ifndef TESTS_CRASH_STATE_H
#define TESTS_CRASH_STATE_H

#include "log.h"

/* A change after the base: in doubt, or durable but younger than one in doubt. */
typedef struct CrashChoice {
    unsigned index; /* in the log */
    bool durable;
    bool kept; /* durable ones always are */
    CrashTear tear;
} CrashChoice;

typedef struct CrashCut {
    const CrashLog *log;
    uint64_t position;
    CrashStore *base, *work;
    uint64_t base_hash;
    uint64_t *durable_from; /* by index in the log */
    unsigned *by_cache;     /* indexes in the order in which they are applied */
    unsigned applied;       /* how many of these are in the base */
    GArray *choices;        /* CrashChoice, in order of application */
    GArray *doubts;         /* unsigned: the choices that are not durable */
    GArray *touched;        /* sectors of work that may differ from base */
    GHashTable *touched_set;
} CrashCut;

CrashCut *crash_cut_new(const CrashLog *log, const CrashStore *start);
void crash_cut_free(CrashCut *cut);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CrashCut, crash_cut_free)
/* Go on to @position, not before the present one. All in doubt is kept, whole. */
void crash_cut_move(CrashCut *cut, uint64_t position);
unsigned crash_cut_doubts(const CrashCut *cut);
/* The @i-th change in doubt, in order of application, to be chosen. */
CrashChoice *crash_cut_doubt(CrashCut *cut, unsigned i);

/* Carry out the choices in work; returns the hash of the state. */
uint64_t crash_cut_build(CrashCut *cut);
/* Make work equal to base again. */
void crash_cut_reset(CrashCut *cut);

/* The name of the state, and the choices that a name tells (false: not understood). */
char *crash_cut_name(CrashCut *cut);
bool crash_cut_choose(CrashCut *cut, const char *changes);
/* The position in a state's name; *@changes: what follows. False: it is none. */
bool crash_state_position(const char *name, uint64_t *position, const char **changes);

#endif
