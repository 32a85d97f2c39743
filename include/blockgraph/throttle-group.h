/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Throttle groups: limits on requests per second and bytes per second that several
 * nodes share, those of the filter driver "throttle" (docs/formats/throttle.md).
 *
 * A program makes a group, names it in the option "throttle-group" of its nodes, may
 * change the limits at any time, and deletes the group when no node is left that
 * uses it. The functions about members are for drivers.
 */
#ifndef BLOCKGRAPH_THROTTLE_GROUP_H
#define BLOCKGRAPH_THROTTLE_GROUP_H

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "blockgraph/annotations.h"

G_BEGIN_DECLS

/* What is limited. A total goes for reads and writes together. */
typedef enum ThrottleKind {
    THROTTLE_BPS_TOTAL, /* bytes per second */
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_IOPS_TOTAL, /* requests per second */
    THROTTLE_IOPS_READ,
    THROTTLE_IOPS_WRITE,
    THROTTLE__MAX,
} ThrottleKind;

/* No rate is higher, and no burst has more bytes or requests. */
#define THROTTLE_VALUE_MAX 1000000000000000ULL

typedef struct ThrottleLimit {
    uint64_t avg;        /* per second, for good; 0: not limited */
    uint64_t max;        /* per second, in a burst; 0: a tenth of a second of avg at once */
    uint64_t max_length; /* how many seconds a burst at max may last; 1 or more */
} ThrottleLimit;

typedef struct ThrottleConfig {
    ThrottleLimit limits[THROTTLE__MAX];
    /*
     * A request longer than this counts as several, in proportion: bytes. 0: each
     * request counts as one, however long.
     */
    uint64_t iops_size;
} ThrottleConfig;

/* No limits at all. Any thread. */
void throttle_config_init(ThrottleConfig *config);
/*
 * Whether the limits go together: no total beside a read or write limit of the same
 * kind, no burst below its average, and so on. False with @errp. Any thread.
 */
bool throttle_config_check(const ThrottleConfig *config, GError **errp);
/*
 * Take limits by the names that QEMU gives them out of @options into @config: the
 * members "x-iops-total", "x-bps-read-max", "x-iops-write-max-length", "x-iops-size" and
 * so on, and then those of the object "limits", without "x-". What is not named stays as
 * it is, what is no limit is left in @options. False with @errp, naming the member, if a
 * value is none; throttle_config_check() is not called. Any thread.
 */
bool throttle_config_take(ThrottleConfig *config, JsonObject *options, GError **errp);

/* ---- Groups: global state ------------------------------------------------------ */

/*
 * Make a group called @id with these limits (copied). False with @errp if they do not
 * go together, or there is a group of that name.
 */
bool throttle_group_create(const char *id, const ThrottleConfig *config, GError **errp);
/*
 * Replace all limits of a group. What was used of the old ones is forgotten, and
 * requests that wait go by the new ones at once. False with @errp, and nothing changes,
 * if the limits do not go together or there is no such group.
 */
bool throttle_group_set_config(const char *id, const ThrottleConfig *config, GError **errp);
/* The limits of a group. False with @errp if there is no such group. */
bool throttle_group_get_config(const char *id, ThrottleConfig *config, GError **errp);
/*
 * Delete a group. False with @errp if there is no such group, or a node uses it.
 * blockgraph_cleanup() deletes those that are left.
 */
bool throttle_group_delete(const char *id, GError **errp);

/* ---- Members: for drivers ---------------------------------------------------------- */

/* One who shares a group's limits: a node. */
typedef struct ThrottleGroupMember ThrottleGroupMember;

/*
 * Become a member of group @id. The caller ends it with throttle_group_leave(). NULL with
 * @errp if there is no such group. Global state.
 */
ThrottleGroupMember *throttle_group_join(const char *id, GError **errp);
/* No request of @member may wait. NULL: nothing is done. Global state. */
void throttle_group_leave(ThrottleGroupMember *member);
/*
 * From begin to end, requests of @member do not wait, those that wait go on; they are
 * counted all the same. Sections nest. Global state.
 */
void throttle_group_drain_begin(ThrottleGroupMember *member);
void throttle_group_drain_end(ThrottleGroupMember *member);
/*
 * Wait until a read, or with @is_write a write, of @bytes is within the limits, and
 * count it. Reads wait for reads and writes for writes; among members with
 * waiting requests each one has its turn, and those of one member go in order. On any
 * thread with an AioContext, where it also goes on.
 */
void coroutine_fn throttle_group_co_wait(ThrottleGroupMember *member, bool is_write,
                                         int64_t bytes);

G_END_DECLS

#endif
