/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of blkdebug: made from options, brought into force by events, and
 * applied to requests; and requests held at breakpoints.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/blkdebug/blkdebug.h"

#define ALL_IOTYPES                                                                                \
    (1 << BDRV_IO_READ | 1 << BDRV_IO_WRITE | 1 << BDRV_IO_WRITE_ZEROES | 1 << BDRV_IO_DISCARD |   \
     1 << BDRV_IO_FLUSH | 1 << BDRV_IO_BLOCK_STATUS)
#define MAX_ERRNO 4095

/* ---- The list: under the mutex, or before requests come -------------------------------- */

static void append_rule(BlkdebugState *s, Rule *rule)
{
    Rule **p = &s->rules;

    while (*p) {
        p = &(*p)->next;
    }
    *p = rule;
}

static void rule_free(Rule *rule)
{
    g_free(rule->tag);
    g_free(rule);
}

/* Unlink *@p and free it. */
static void remove_rule(Rule **p)
{
    Rule *rule = *p;

    *p = rule->next;
    rule_free(rule);
}

void blkdebug_free_rules(BlkdebugState *s)
{
    while (s->rules) {
        remove_rule(&s->rules);
    }
}

/* ---- From options ------------------------------------------------------------------------- */

static bool take_inject_error(Rule *rule, JsonObject *options, GError **errp)
{
    /* In the order of BdrvIoType. */
    static const char *const iotype_words[] = {
        "read", "write", "write-zeroes", "discard", "flush", "block-status", NULL,
    };
    int64_t error = EIO, sector = -1;
    int iotype = -1;

    if (!block_options_take_int(options, "errno", &error, errp) ||
        !block_options_take_int(options, "sector", &sector, errp) ||
        !block_options_take_enum(options, "iotype", iotype_words, &iotype, errp) ||
        !block_options_take_bool(options, "once", &rule->once, errp) ||
        !block_options_take_bool(options, "immediately", &rule->immediately, errp) ||
        !block_options_take_int(options, "after", &rule->after, errp)) {
        return false;
    }
    if (error < 0 || error > MAX_ERRNO) {
        block_error_set(errp, EINVAL, "errno %" PRId64 " is no error number", error);
        return false;
    }
    if (sector < -1 || sector > BDRV_MAX_LENGTH / BDRV_SECTOR_SIZE || rule->after < 0) {
        block_error_set(errp, EINVAL, "sector %" PRId64 " or after %" PRId64 " is out of range",
                        sector, rule->after);
        return false;
    }
    rule->error = error;
    rule->offset = sector < 0 ? -1 : sector * BDRV_SECTOR_SIZE;
    rule->iotypes = iotype < 0 ? ALL_IOTYPES : 1 << iotype;
    rule->active = rule->event == BDRV_DEBUG_NONE;
    return true;
}

static bool take_rule(Rule *rule, JsonObject *options, GError **errp)
{
    int event = -1;

    if (!block_options_take_enum(options, "event", bdrv_debug_event_names, &event, errp) ||
        !block_options_take_int(options, "state", &rule->state, errp)) {
        return false;
    }
    if (event < 0) {
        block_error_set(errp, EINVAL, "Missing event name for rule");
        return false;
    }
    rule->event = event;
    return rule->kind == RULE_INJECT_ERROR
               ? take_inject_error(rule, options, errp)
               : block_options_take_int(options, "new_state", &rule->new_state, errp);
}

bool blkdebug_add_rule(BlkdebugState *s, RuleKind kind, JsonObject *options, GError **errp)
{
    Rule *rule = g_new0(Rule, 1);
    g_autoptr(GList) left = NULL;

    rule->kind = kind;
    if (!take_rule(rule, options, errp)) {
        rule_free(rule);
        return false;
    }
    left = json_object_get_members(options);
    if (left) {
        block_error_set(errp, EINVAL, "[%s] section doesn't support the option '%s'",
                        kind == RULE_INJECT_ERROR ? "inject-error" : "set-state",
                        (const char *)left->data);
        rule_free(rule);
        return false;
    }
    append_rule(s, rule);
    return true;
}

/* ---- Events ------------------------------------------------------------------------------- */

/* Errors that an earlier event brought into force end with this one. */
static void deactivate_all(BlkdebugState *s)
{
    for (Rule *rule = s->rules; rule; rule = rule->next) {
        rule->active = rule->kind == RULE_INJECT_ERROR && rule->event == BDRV_DEBUG_NONE;
    }
}

/* Wait, with the mutex given back meanwhile, until somebody resumes @tag. */
static void coroutine_fn hold(BlkdebugState *s, char *tag)
{
    HeldRequest held = {.tag = tag, .next = s->held};
    HeldRequest **p;

    s->held = &held;
    while (!held.resumed) {
        co_queue_wait_gmutex(&s->holding, &s->mutex);
    }
    for (p = &s->held; *p != &held; p = &(*p)->next) {
    }
    *p = held.next;
    g_free(tag);
}

/* Take the tags of all breakpoints at @event off the list. */
static GSList *take_breakpoints(BlkdebugState *s, BdrvDebugEvent event)
{
    GSList *tags = NULL;

    for (Rule **p = &s->rules; *p;) {
        if ((*p)->kind == RULE_SUSPEND && (*p)->event == event) {
            tags = g_slist_append(tags, g_steal_pointer(&(*p)->tag));
            remove_rule(p);
        } else {
            p = &(*p)->next;
        }
    }
    return tags;
}

void coroutine_fn blkdebug_event(BlkdebugState *s, BdrvDebugEvent event)
{
    int64_t new_state;
    bool first = true;
    GSList *tags;

    g_mutex_lock(&s->mutex);
    new_state = s->state;
    for (Rule *rule = s->rules; rule; rule = rule->next) {
        if (rule->event != event || (rule->state != 0 && rule->state != s->state)) {
            continue;
        }
        if (rule->kind == RULE_SET_STATE) {
            new_state = rule->new_state;
        } else if (rule->kind == RULE_INJECT_ERROR) {
            if (first) {
                deactivate_all(s);
                first = false;
            }
            rule->active = true;
        }
    }
    s->state = new_state;
    tags = take_breakpoints(s, event);
    for (GSList *l = tags; l; l = l->next) {
        hold(s, l->data);
    }
    g_mutex_unlock(&s->mutex);
    g_slist_free(tags);
}

/* ---- Requests ------------------------------------------------------------------------------- */

static bool rule_matches(const Rule *rule, BdrvIoType type, int64_t offset, int64_t bytes)
{
    return rule->active && (rule->iotypes & (1 << type)) &&
           (rule->offset < 0 || (rule->offset >= offset &&
                                 rule->offset - offset < bytes));
}

int coroutine_fn blkdebug_check(BlkdebugState *s, BdrvIoType type, int64_t offset, int64_t bytes)
{
    bool immediately = true;
    int error = 0;
    Rule **p;

    g_mutex_lock(&s->mutex);
    for (p = &s->rules; *p; p = &(*p)->next) {
        Rule *rule = *p;

        if (!rule_matches(rule, type, offset, bytes)) {
            continue;
        }
        if (rule->after > 0) {
            rule->after--;
            continue;
        }
        error = rule->error;
        immediately = rule->immediately;
        if (rule->once) {
            remove_rule(p);
        }
        break;
    }
    g_mutex_unlock(&s->mutex);
    if (error != 0 && !immediately) {
        co_sleep_ns(0);
    }
    return -error;
}

/* ---- Commands -------------------------------------------------------------------------------- */

/* "EVENT TAG" */
static int add_breakpoint(BlkdebugState *s, const char *argument)
{
    const char *space = strchr(argument, ' ');
    g_autofree char *name = space ? g_strndup(argument, space - argument) : NULL;
    Rule *rule;

    for (int i = 0; name && bdrv_debug_event_names[i]; i++) {
        if (strcmp(bdrv_debug_event_names[i], name) == 0) {
            rule = g_new0(Rule, 1);
            rule->kind = RULE_SUSPEND;
            rule->event = i;
            rule->tag = g_strdup(space + 1);
            append_rule(s, rule);
            return 0;
        }
    }
    return -ENOENT;
}

/* Let requests that are held at @tag go on: the first, or all. */
static int resume(BlkdebugState *s, const char *tag, bool all)
{
    int ret = -ENOENT;

    for (HeldRequest *held = s->held; held; held = held->next) {
        if (!held->resumed && strcmp(held->tag, tag) == 0) {
            held->resumed = true;
            ret = 0;
            if (!all) {
                break;
            }
        }
    }
    co_queue_wake_all(&s->holding);
    return ret;
}

static int remove_breakpoint(BlkdebugState *s, const char *tag)
{
    int ret = resume(s, tag, true);

    for (Rule **p = &s->rules; *p;) {
        if ((*p)->kind == RULE_SUSPEND && strcmp((*p)->tag, tag) == 0) {
            remove_rule(p);
            ret = 0;
        } else {
            p = &(*p)->next;
        }
    }
    return ret;
}

int blkdebug_command(BlockDriverState *bs, const char *command, const char *argument)
{
    BlkdebugState *s = bdrv_state(bs);
    int ret = -ENOTSUP;

    g_mutex_lock(&s->mutex);
    if (strcmp(command, "break") == 0) {
        ret = add_breakpoint(s, argument);
    } else if (strcmp(command, "resume") == 0) {
        ret = resume(s, argument, false);
    } else if (strcmp(command, "remove_break") == 0) {
        ret = remove_breakpoint(s, argument);
    }
    g_mutex_unlock(&s->mutex);
    return ret;
}

bool blkdebug_is_suspended(BlockDriverState *bs, const char *tag)
{
    BlkdebugState *s = bdrv_state(bs);
    bool found = false;

    g_mutex_lock(&s->mutex);
    for (HeldRequest *held = s->held; held && !found; held = held->next) {
        found = !held->resumed && strcmp(held->tag, tag) == 0;
    }
    g_mutex_unlock(&s->mutex);
    return found;
}
