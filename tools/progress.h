/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How far a long command is: drawn on standard output with -p, one line on
 * standard error for each SIGUSR1 without, nothing with -q. Besides, on a file
 * descriptor if one is set, lines of JSON: {"progress": PERCENT}, and if it is known of
 * how many bytes, "bytes" and "total". Main thread only.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum ProgressMode {
    PROGRESS_SILENT,
    PROGRESS_ON_SIGNAL,
    PROGRESS_DRAWN,
} ProgressMode;

/* -q wins over -p. */
ProgressMode progress_mode(bool quiet, bool drawn);

/* Draw on standard error from now on: standard output is for data. */
void progress_to_stderr(void);
/* Tell on @fd, too. False with errno if nothing can be written to it. */
bool progress_set_fd(int fd);
/* That descriptor, or -1. */
int progress_fd(void);
/* It is about @bytes; call it before progress_start(), or as soon as it is known. */
void progress_set_total(int64_t bytes);
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
