/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names of states: see explorer.h.
 */
#include "state.h"

static void append_choice(GString *name, const CrashChoice *choice, unsigned last)
{
    g_string_append_printf(name, "%s%u", name->str[name->len - 1] == ':' ? "" : ",",
                           choice->index);
    if (last > choice->index) {
        g_string_append_printf(name, "-%u", last);
    } else if (choice->tear.kind) {
        g_string_append_printf(name, "%c%u", choice->tear.kind, choice->tear.n);
    }
}

/* The choice about entry @index if it is in doubt, or NULL. */
static CrashChoice *doubt_of(CrashCut *cut, unsigned index)
{
    for (unsigned i = 0; i < cut->doubts->len; i++) {
        if (crash_cut_doubt(cut, i)->index == index) {
            return crash_cut_doubt(cut, i);
        }
    }
    return NULL;
}

/* The last entry of the run of whole, kept ones that begins with @index. */
static unsigned end_of_run(CrashCut *cut, unsigned index)
{
    unsigned last = index;

    for (unsigned i = index; i < cut->log->entries->len; i++) {
        const CrashChoice *choice = doubt_of(cut, i);

        if (choice && (!choice->kept || choice->tear.kind)) {
            break;
        }
        last = choice ? i : last;
    }
    return last;
}

char *crash_cut_name(CrashCut *cut)
{
    GString *name = g_string_new(NULL);

    g_string_append_printf(name, "%" G_GUINT64_FORMAT ":", cut->position);
    for (unsigned i = 0; i < cut->log->entries->len; i++) {
        const CrashChoice *choice = doubt_of(cut, i);

        if (choice && choice->kept) {
            unsigned last = choice->tear.kind ? i : end_of_run(cut, i);

            append_choice(name, choice, last);
            i = last;
        }
    }
    return g_string_free(name, false);
}

bool crash_state_position(const char *name, uint64_t *position, const char **changes)
{
    char *end;

    *position = g_ascii_strtoull(name, &end, 10);
    *changes = end + 1;
    return end > name && *end == ':';
}

/* One "N", "N-M" or "NhK"; *@text moves on behind it. */
static bool choose_one(CrashCut *cut, const char **text)
{
    char *end;
    unsigned first = g_ascii_strtoull(*text, &end, 10), last = first;
    CrashTear tear = {CRASH_WHOLE};

    if (end == *text) {
        return false;
    }
    if (*end == '-') {
        last = g_ascii_strtoull(end + 1, &end, 10);
    } else if (*end == CRASH_HEAD || *end == CRASH_TAIL || *end == CRASH_SCATTER) {
        tear.kind = *end;
        tear.n = g_ascii_strtoull(end + 1, &end, 10);
    }
    *text = *end == ',' ? end + 1 : end;
    if ((*end && *end != ',') || !doubt_of(cut, first) || !doubt_of(cut, last)) {
        return false;
    }
    for (unsigned i = first; i <= last; i++) {
        CrashChoice *choice = doubt_of(cut, i);

        if (choice) {
            choice->kept = true;
            choice->tear = tear;
        }
    }
    return true;
}

bool crash_cut_choose(CrashCut *cut, const char *changes)
{
    for (unsigned i = 0; i < cut->doubts->len; i++) {
        crash_cut_doubt(cut, i)->kept = false;
    }
    while (*changes) {
        if (!choose_one(cut, &changes)) {
            return false;
        }
    }
    return true;
}
