/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How far a long command is: drawn on standard output with -p, one line on
 * standard error for each SIGUSR1 without, nothing with -q. Main thread only.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdbool.h>

typedef enum ProgressMode {
    PROGRESS_SILENT,
    PROGRESS_ON_SIGNAL,
    PROGRESS_DRAWN,
} ProgressMode;

/* -q wins over -p. */
ProgressMode progress_mode(bool quiet, bool drawn);

/* Begin at 0; draw again when @step percent points have passed. */
void progress_start(ProgressMode mode, double step);
/* @percent more is done. */
void progress_add(double percent);
/* Everything is done. */
void progress_complete(void);
/* Leave the line; a SIGUSR1 is ignored from now on. */
void progress_end(void);

/* Print the line if a SIGUSR1 has asked for it. */
void progress_report_if_asked(void);

#endif
