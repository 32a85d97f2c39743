/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blkdebug filter from the inside: its rules and who waits.
 *
 * Invariants, all under BlkdebugState.mutex:
 *  1. A rule is on the list from its creation until it is used up or removed.
 *  2. A held request is on the list from the event that holds it until it has
 *     seen that it is resumed.
 */
#ifndef DRIVERS_BLKDEBUG_H
#define DRIVERS_BLKDEBUG_H

#include "blockgraph/block-driver.h"

typedef enum RuleKind {
    RULE_INJECT_ERROR,
    RULE_SET_STATE,
    RULE_SUSPEND,
} RuleKind;

typedef struct Rule Rule;
struct Rule {
    RuleKind kind;
    BdrvDebugEvent event;
    int64_t state; /* counts only in this one; 0: in each */
    Rule *next;
    /* RULE_INJECT_ERROR */
    bool active;   /* its event has come */
    int error;     /* errno */
    int iotypes;   /* bits by BdrvIoType */
    int64_t offset; /* the byte that a request must touch, or -1 */
    bool once;
    bool immediately;
    int64_t after; /* matching requests that still pass */
    /* RULE_SET_STATE */
    int64_t new_state;
    /* RULE_SUSPEND */
    char *tag;
};

/* A request that is held at a breakpoint; lives on its coroutine's stack. */
typedef struct HeldRequest HeldRequest;
struct HeldRequest {
    char *tag;
    bool resumed;
    HeldRequest *next;
};

typedef struct BlkdebugState {
    GMutex mutex;
    int64_t state; /* starts as 1 */
    Rule *rules;   /* in order of creation */
    HeldRequest *held;
    CoQueue holding;
    /* Options. */
    char *config;
    bool is_plain; /* nothing but config and image were given */
    int64_t align;
    int64_t max_transfer;
    int64_t opt_write_zero;
    int64_t max_write_zero;
    int64_t opt_discard;
    int64_t max_discard;
    uint64_t take_perms;
    uint64_t unshare_perms;
} BlkdebugState;

/* ---- rules.c ------------------------------------------------------------------ */

/* Add a rule from @options, all of which it must know. */
bool blkdebug_add_rule(BlkdebugState *s, RuleKind kind, JsonObject *options, GError **errp);
void blkdebug_free_rules(BlkdebugState *s);
/* What @event does: activate rules, change the state, hold the request. */
void coroutine_fn blkdebug_event(BlkdebugState *s, BdrvDebugEvent event);
/* The error that the rules in force have for a request: 0 or -errno. */
int coroutine_fn blkdebug_check(BlkdebugState *s, BdrvIoType type, int64_t offset, int64_t bytes);
int blkdebug_command(BlockDriverState *bs, const char *command, const char *argument);
bool blkdebug_is_suspended(BlockDriverState *bs, const char *tag);

/* ---- config.c ------------------------------------------------------------------- */

/* Add the rules of file @filename: sections [inject-error] and [set-state]. */
bool blkdebug_read_config(BlkdebugState *s, const char *filename, GError **errp);

#endif
