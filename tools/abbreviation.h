/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Long options that are cut short, as getopt_long() takes them. */
#ifndef TOOLS_ABBREVIATION_H
#define TOOLS_ABBREVIATION_H

#include <getopt.h>

/*
 * Write out the long options in @argv that only an option which QEMU's tools do not have
 * makes ambiguous: "--prog" means "--progress", though there is "--progress-fd" as well, and
 * "--c" of convert "--copy-range-offloading", though there is "--compress".
 * All else is left to getopt_long(), which is called with the same @letters and @longs
 * afterwards. @ours_alone: the names of such options besides those that all programs have
 * in common, ended by NULL; NULL: none.
 */
void tool_expand_abbreviations(int argc, char **argv, const char *letters,
                               const struct option *longs, const char *const *ours_alone);

#endif
