/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which states of a log are built, and in which order.
 */
#include <string.h>

#include "explorer.h"
#include "state.h"

#define SUBSET_BITS 10
#define LEAST_SHARE 4 /* states per cut, however small the budget */
#define TEARS 16      /* of one kind, of the newest change */

typedef struct Exploration {
    CrashExplorer *x;
    CrashCut *cut;
    CrashStore *scene; /* a copy that the examination may change */
    GHashTable *seen;  /* hashes of states, with the epoch mixed in */
    uint64_t random;
    uint64_t epoch;
    uint64_t share; /* how many states the present cut may still build */
    GString *why;
} Exploration;

/* ---- One state -------------------------------------------------------------------- */

static uint64_t epoch_at(const CrashExplorer *x, uint64_t position)
{
    return x->epoch ? x->epoch(x->opaque, position) : 0;
}

/* Have the state in work examined. */
static bool examine(Exploration *e)
{
    CrashStore *before;
    bool ok;

    for (unsigned i = 0; i < e->scene->disks->len; i++) {
        crash_image_copy(crash_store_image(e->scene, i), crash_store_image(e->cut->work, i));
    }
    before = crash_store_activate(e->scene);
    ok = e->x->examine(e->x->opaque, e->cut->position, e->why);
    crash_store_activate(before);
    e->x->counts.examined++;
    if (!ok) {
        e->x->violation = crash_cut_name(e->cut);
    }
    return ok;
}

/* Build the state that is chosen; examine it if it is new. */
static bool try_state(Exploration *e)
{
    uint64_t hash = crash_cut_build(e->cut) ^ (e->epoch * 0x9e3779b97f4a7c15);
    bool ok = true;

    e->x->counts.built++;
    if (e->share > 0) {
        e->share--;
    }
    if (g_hash_table_add(e->seen, GSIZE_TO_POINTER(hash))) {
        ok = examine(e);
    }
    crash_cut_reset(e->cut);
    return ok;
}

/* ---- Choosing --------------------------------------------------------------------- */

static void choose_all(Exploration *e, bool kept)
{
    for (unsigned i = 0; i < crash_cut_doubts(e->cut); i++) {
        CrashChoice *choice = crash_cut_doubt(e->cut, i);

        choice->kept = kept;
        choice->tear = (CrashTear){CRASH_WHOLE};
    }
}

static CrashTear random_tear(Exploration *e, int64_t sectors)
{
    switch (crash_random(&e->random, 3)) {
    case 0:
        return (CrashTear){CRASH_HEAD, 1 + crash_random(&e->random, sectors)};
    case 1:
        return (CrashTear){CRASH_TAIL, 1 + crash_random(&e->random, sectors)};
    default:
        return (CrashTear){CRASH_SCATTER, crash_random(&e->random, 1 << 16)};
    }
}

static int64_t sectors_of(Exploration *e, const CrashChoice *choice)
{
    return crash_entry_sectors(crash_log_entry(e->cut->log, choice->index));
}

/* Each of the first @count changes in doubt is there or not; some are torn. */
static void choose_random(Exploration *e, unsigned count, bool tear)
{
    /* Mostly few missing, mostly few there, or half of them. */
    unsigned odds = 1 + crash_random(&e->random, 7);

    for (unsigned i = 0; i < count; i++) {
        CrashChoice *choice = crash_cut_doubt(e->cut, i);

        choice->kept = crash_random(&e->random, 8) < odds;
        choice->tear = (CrashTear){CRASH_WHOLE};
        if (tear && sectors_of(e, choice) > 0 && crash_random(&e->random, 4) == 0) {
            choice->tear = random_tear(e, sectors_of(e, choice));
        }
    }
}

/* All subsets of the last ten; the older ones all there, and at random. */
static bool try_subsets(Exploration *e, unsigned bits)
{
    unsigned n = crash_cut_doubts(e->cut), older = n - bits;

    for (unsigned mask = 0; mask < 1u << bits; mask++) {
        for (unsigned round = 0; round <= (older > 0); round++) {
            choose_all(e, true);
            if (round > 0) {
                choose_random(e, older, false);
            }
            for (unsigned i = 0; i < bits; i++) {
                crash_cut_doubt(e->cut, older + i)->kept = mask >> i & 1;
            }
            if (!try_state(e)) {
                return false;
            }
        }
    }
    return true;
}

/* All, none, one missing, one alone: whichever, where there is no time for each. */
static bool try_plain(Exploration *e)
{
    unsigned n = crash_cut_doubts(e->cut);
    unsigned first = 2 * n + 2 > e->share ? crash_random(&e->random, n) : 0;
    uint64_t rest = e->share / 2; /* for other kinds of states */

    for (int kept = 1; kept >= 0; kept--) {
        choose_all(e, kept);
        if (!try_state(e)) {
            return false;
        }
        for (unsigned i = n; i > 0 && e->share > rest; i--) {
            choose_all(e, kept);
            crash_cut_doubt(e->cut, (first + i - 1) % n)->kept = !kept;
            if (!try_state(e)) {
                return false;
            }
        }
    }
    return true;
}

/* The newest change torn, the others all there, or chosen at random. */
static bool try_tear(Exploration *e, CrashChoice *newest, CrashTear tear)
{
    for (int round = 0; round < 2; round++) {
        choose_all(e, true);
        if (round > 0) {
            choose_random(e, crash_cut_doubts(e->cut), false);
        }
        newest->kept = true;
        newest->tear = tear;
        if (!try_state(e)) {
            return false;
        }
    }
    return true;
}

static CrashChoice *newest_doubt(Exploration *e)
{
    CrashChoice *newest = crash_cut_doubt(e->cut, 0);

    for (unsigned i = 1; i < crash_cut_doubts(e->cut); i++) {
        CrashChoice *choice = crash_cut_doubt(e->cut, i);

        newest = choice->index > newest->index ? choice : newest;
    }
    return newest;
}

static bool try_tears(Exploration *e)
{
    CrashChoice *newest = newest_doubt(e);
    int64_t sectors = sectors_of(e, newest), step = 1 + (sectors - 1) / TEARS;

    /* From 0 sectors, only the length, to all but one. */
    for (int64_t n = 0; n < sectors && e->share > 0; n += step) {
        if ((n > 0 && !try_tear(e, newest, (CrashTear){CRASH_HEAD, n})) ||
            !try_tear(e, newest, (CrashTear){CRASH_TAIL, sectors - n})) {
            return false;
        }
    }
    for (unsigned i = 0; i < 4 && sectors > 2 && e->share > 0; i++) {
        CrashTear tear = {CRASH_SCATTER, crash_random(&e->random, 1 << 16)};

        if (!try_tear(e, newest, tear)) {
            return false;
        }
    }
    return true;
}

/* ---- The cuts --------------------------------------------------------------------- */

static bool try_cut(Exploration *e)
{
    unsigned n = crash_cut_doubts(e->cut), bits = MIN(n, SUBSET_BITS);

    if (n == 0) {
        return try_state(e);
    }
    if (!try_plain(e) || ((2u << bits) <= e->share && !try_subsets(e, bits)) || !try_tears(e)) {
        return false;
    }
    for (unsigned i = 0; i < 64 && e->share > 0; i++) {
        choose_random(e, n, true);
        if (!try_state(e)) {
            return false;
        }
    }
    return true;
}

/* Whether a cut at @position can leave what none before could: a change has
 * begun, or more is expected. */
static bool is_new_cut(Exploration *e, uint64_t position)
{
    if (position == 0 || epoch_at(e->x, position) != epoch_at(e->x, position - 1)) {
        return true;
    }
    for (unsigned i = 0; i < e->cut->log->entries->len; i++) {
        const CrashEntry *entry = crash_log_entry(e->cut->log, i);

        if (entry->kind != CRASH_FLUSH && entry->begin == position - 1) {
            return true;
        }
    }
    return false;
}

static Exploration *exploration_new(CrashExplorer *x, GString *why)
{
    Exploration *e = g_new0(Exploration, 1);

    e->x = x;
    e->cut = crash_cut_new(x->log, x->start);
    e->scene = crash_store_copy(x->start);
    e->seen = g_hash_table_new(NULL, NULL);
    e->random = x->seed;
    e->why = why;
    return e;
}

static void exploration_free(Exploration *e)
{
    crash_cut_free(e->cut);
    crash_store_free(e->scene);
    g_hash_table_unref(e->seen);
    g_free(e);
}

bool crash_explore(CrashExplorer *x, GString *why)
{
    Exploration *e = exploration_new(x, why);
    uint64_t first = x->counts.examined, cuts = x->log->position + 1;
    bool ok = true;

    for (uint64_t position = 0; position < cuts && ok; position++) {
        uint64_t spent = x->counts.examined - first;

        if (is_new_cut(e, position)) {
            e->epoch = epoch_at(x, position);
            e->share = MAX(LEAST_SHARE,
                           (x->budget - MIN(spent, x->budget)) * 4 / (cuts - position));
            crash_cut_move(e->cut, position);
            ok = try_cut(e);
            x->counts.cuts++;
        }
    }
    x->counts.runs++;
    exploration_free(e);
    return ok;
}

bool crash_replay(CrashExplorer *x, const char *name, GString *why)
{
    Exploration *e = exploration_new(x, why);
    const char *changes;
    uint64_t position;
    bool ok = false;

    if (crash_state_position(name, &position, &changes) && position <= x->log->position) {
        crash_cut_move(e->cut, position);
        if (crash_cut_choose(e->cut, changes)) {
            crash_cut_build(e->cut);
            ok = examine(e);
        } else {
            g_string_append_printf(why, "'%s' does not fit the log", name);
        }
    } else {
        g_string_append_printf(why, "the log has no state '%s'", name);
    }
    exploration_free(e);
    return ok;
}
