/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/abbreviation.h"

#include <glib.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

/* The long options without a letter that QEMU's tools do not have. */
static const char *const without_letter[] = { "aio", "digest", "progress-fd", "untrusted",
                                              "verbose", NULL };

/*
 * The option that a word of @len characters behind the dashes means. If it is not written
 * out, that is none of @not_meant (NULL: of none), nor of those without a letter. NULL if
 * there is no such option, or with *@ambiguous, if there are several.
 */
static const struct option *meant_by(const char *name, size_t len, const struct option *longs,
                                     const char *const *not_meant, bool *ambiguous)
{
    const struct option *found = NULL;

    *ambiguous = false;
    for (const struct option *o = longs; o->name != NULL; o++) {
        if (strncmp(o->name, name, len) != 0) {
            continue;
        }
        if (o->name[len] == '\0') {
            return o;
        }
        if ((o->val > UCHAR_MAX && g_strv_contains(without_letter, o->name)) ||
            (not_meant != NULL && g_strv_contains(not_meant, o->name))) {
            continue;
        }
        if (found != NULL && found->val != o->val) {
            *ambiguous = true;
            return NULL;
        }
        found = o;
    }
    return found;
}

/* Whether the last letter of a word like "-pf" takes the next word as its argument. */
static bool letters_take_next(const char *word, const char *letters)
{
    for (const char *c = word + 1; *c != '\0'; c++) {
        const char *known = *c == ':' ? NULL : strchr(letters, *c);

        if (known != NULL && known[1] == ':') {
            return c[1] == '\0';
        }
    }
    return false;
}

void tool_expand_abbreviations(int argc, char **argv, const char *letters,
                               const struct option *longs, const char *const *ours_alone)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *word = argv[i];
        const struct option *option;
        bool ambiguous;
        size_t len;

        if (!g_str_has_prefix(word, "--")) {
            if (word[0] == '-') {
                i += letters_take_next(word, letters);
            } else if (letters[0] == '+') {
                return; /* what follows is not ours to read */
            }
            continue;
        }
        len = strcspn(word + 2, "=");
        option = meant_by(word + 2, len, longs, ours_alone, &ambiguous);
        if (option == NULL && !ambiguous) { /* QEMU has none of that name */
            option = meant_by(word + 2, len, longs, NULL, &ambiguous);
        }
        if (option == NULL) {
            continue;
        }
        if (option->name[len] != '\0') {
            g_autofree char *whole = g_strconcat("--", option->name, word + 2 + len, NULL);

            argv[i] = (char *)g_intern_string(whole); /* as long-lived as the others */
        }
        i += option->has_arg == required_argument && word[2 + len] == '\0';
    }
}
