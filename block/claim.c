/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Claims: who may work on which guest range.
 *
 * A claim counts, when it arrives, the older claims that it conflicts with,
 * and each of those, when it ends, takes itself off the counts of those that
 * still wait. That is all the order there is, so that a set needs no sorting:
 *  a. A waiting claim's blockers are exactly the older claims, granted or
 *     waiting, that it conflicts with. It is granted when there are none.
 *  b. A granted claim conflicts with no older one; so all waiting claims that
 *     it conflicts with are younger and have counted it.
 * Shared claims look at the exclusive ones only, which are few while a guest
 * reads or rewrites.
 */
#include "blockgraph/aio.h"
#include "block/claim.h"
#include "util/fatal.h"

typedef struct ClaimList {
    Claim *first;
    Claim *last;
} ClaimList;

struct ClaimSet {
    GMutex lock;         /* protects all of this and the claims in it */
    Claim *exclusive;    /* newest first */
    Claim *shared;       /* newest first */
    ClaimList waiting;   /* oldest first */
    uint64_t next;       /* number of the next claim */
};

/* ---- Lists ------------------------------------------------------------------ */

static Claim **kind_list(ClaimSet *set, bool exclusive)
{
    return exclusive ? &set->exclusive : &set->shared;
}

static void link_claim(ClaimSet *set, Claim *claim)
{
    Claim **first = kind_list(set, claim->exclusive);

    claim->prev = NULL;
    claim->next = *first;
    if (claim->next) {
        claim->next->prev = claim;
    }
    *first = claim;
}

static void unlink_claim(ClaimSet *set, Claim *claim)
{
    if (claim->prev) {
        claim->prev->next = claim->next;
    } else {
        *kind_list(set, claim->exclusive) = claim->next;
    }
    if (claim->next) {
        claim->next->prev = claim->prev;
    }
}

static void push_waiting(ClaimList *list, Claim *claim)
{
    claim->next_waiting = NULL;
    claim->prev_waiting = list->last;
    if (list->last) {
        list->last->next_waiting = claim;
    } else {
        list->first = claim;
    }
    list->last = claim;
}

static void remove_waiting(ClaimList *list, Claim *claim)
{
    if (claim->prev_waiting) {
        claim->prev_waiting->next_waiting = claim->next_waiting;
    } else {
        list->first = claim->next_waiting;
    }
    if (claim->next_waiting) {
        claim->next_waiting->prev_waiting = claim->prev_waiting;
    } else {
        list->last = claim->prev_waiting;
    }
}

/* ---- Conflicts --------------------------------------------------------------- */

static bool overlap(const Claim *a, const Claim *b)
{
    return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static unsigned count_overlaps(const Claim *list, const Claim *claim)
{
    unsigned count = 0;

    for (; list; list = list->next) {
        count += overlap(list, claim);
    }
    return count;
}

/*
 * @claim stops being in the way of waiting claims: of all that it overlaps, or
 * with @shared_only of the shared ones. Moves those that may go on to @woken.
 * A waiting claim itself never comes here (rule b).
 */
static void unblock(ClaimSet *set, const Claim *claim, bool shared_only, ClaimList *woken)
{
    Claim *next;

    for (Claim *w = set->waiting.first; w; w = next) {
        next = w->next_waiting;
        if (!(claim->exclusive || w->exclusive) || (shared_only && w->exclusive) ||
            !overlap(w, claim)) {
            continue;
        }
        if (--w->blockers == 0) {
            remove_waiting(&set->waiting, w);
            push_waiting(woken, w);
        }
    }
}

/* Without the lock: a woken coroutine may run at once, and end its claim. */
static void wake(ClaimList *woken)
{
    Claim *next;

    for (Claim *w = woken->first; w; w = next) {
        next = w->next_waiting;
        aio_co_wake(w->co);
    }
}

/* ---- The interface ----------------------------------------------------------- */

ClaimSet *claim_set_new(void)
{
    ClaimSet *set = g_new0(ClaimSet, 1);

    g_mutex_init(&set->lock);
    return set;
}

void claim_set_free(ClaimSet *set)
{
    const Claim *left = set->exclusive ? set->exclusive : set->shared;

    if (left) {
        fatal("claim_set_free(): range 0x%" G_GINT64_MODIFIER "x + 0x%" G_GINT64_MODIFIER
              "x is still claimed", left->offset, left->bytes);
    }
    g_mutex_clear(&set->lock);
    g_free(set);
}

void coroutine_fn claim_begin(ClaimSet *set, Claim *claim, int64_t offset, int64_t bytes,
                              bool exclusive)
{
    bool wait;

    if (offset < 0 || bytes <= 0 || offset > INT64_MAX - bytes) {
        fatal("claim_begin(): invalid range %" G_GINT64_FORMAT " + %" G_GINT64_FORMAT, offset,
              bytes);
    }
    *claim = (Claim) {
        .offset = offset, .bytes = bytes, .exclusive = exclusive, .co = coroutine_self(),
    };
    g_mutex_lock(&set->lock);
    claim->blockers = count_overlaps(set->exclusive, claim);
    if (exclusive) {
        claim->blockers += count_overlaps(set->shared, claim);
    }
    wait = claim->blockers > 0;
    claim->number = set->next++;
    link_claim(set, claim);
    if (wait) {
        push_waiting(&set->waiting, claim);
    }
    g_mutex_unlock(&set->lock);
    if (wait) {
        coroutine_yield();
    }
}

void coroutine_fn claim_downgrade(ClaimSet *set, Claim *claim)
{
    ClaimList woken = { NULL };

    g_mutex_lock(&set->lock);
    if (claim->exclusive) {
        unblock(set, claim, true, &woken);
        unlink_claim(set, claim);
        claim->exclusive = false;
        link_claim(set, claim);
    }
    g_mutex_unlock(&set->lock);
    wake(&woken);
}

void coroutine_fn claim_end(ClaimSet *set, Claim *claim)
{
    ClaimList woken = { NULL };

    g_mutex_lock(&set->lock);
    unblock(set, claim, false, &woken);
    unlink_claim(set, claim);
    g_mutex_unlock(&set->lock);
    wake(&woken);
}

bool claim_set_trim(ClaimSet *set, int64_t offset, int64_t *start, int64_t *end)
{
    bool free = true;

    g_mutex_lock(&set->lock);
    for (const Claim *c = set->exclusive; c && free; c = c->next) {
        if (c->offset > offset) {
            *end = MIN(*end, c->offset);
        } else if (c->offset + c->bytes <= offset) {
            *start = MAX(*start, c->offset + c->bytes);
        } else {
            free = false;
        }
    }
    g_mutex_unlock(&set->lock);
    return free;
}

uint64_t claim_set_next(ClaimSet *set)
{
    uint64_t next;

    g_mutex_lock(&set->lock);
    next = set->next;
    g_mutex_unlock(&set->lock);
    return next;
}

static uint64_t oldest_in(const Claim *list, uint64_t oldest)
{
    for (; list; list = list->next) {
        oldest = MIN(oldest, list->number);
    }
    return oldest;
}

uint64_t claim_set_oldest(ClaimSet *set)
{
    uint64_t oldest;

    g_mutex_lock(&set->lock);
    oldest = oldest_in(set->shared, oldest_in(set->exclusive, set->next));
    g_mutex_unlock(&set->lock);
    return oldest;
}
