/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tools/abbreviation.h"

#include <glib.h>
#include <stdbool.h>
#include <string.h>

/* The long options that QEMU's tools do not have. */
static const char *const ours_alone[] = { "aio", "digest", "progress-fd", "untrusted", "verbose",
                                          NULL };

/*
 * The option that a word of @len characters behind the dashes means, or NULL if that is
 * not clear. One that is ours alone is meant only where it is written out.
 */
static const struct option *meant_by(const char *name, size_t len, const struct option *longs)
{
    const struct option *found = NULL;

    for (const struct option *o = longs; o->name != NULL; o++) {
        if (strncmp(o->name, name, len) != 0) {
            continue;
        }
        if (o->name[len] == '\0') {
            return o;
        }
        if (g_strv_contains(ours_alone, o->name)) {
            continue;
        }
        if (found != NULL && found->val != o->val) {
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
                               const struct option *longs)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *word = argv[i];
        const struct option *option;
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
        option = meant_by(word + 2, len, longs);
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
