/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening the image that the commands work on, and closing it. */
#ifndef TOOLS_IO_OPEN_H
#define TOOLS_IO_OPEN_H

#include "tools/io/session.h"

/* What the options of the program and of the command "open" have in common. */
typedef struct IoOpenOptions {
    int flags; /* BdrvOpenFlags, but for BDRV_O_RDWR */
    bool read_only;
    bool snapshot;     /* what is written goes to a file that is deleted */
    bool copy_on_read;
    bool native_aio;
    bool writethrough;
    JsonObject *options; /* the driver's; NULL: none yet */
} IoOpenOptions;

/* A tool to try discards with passes them down unless told not to. */
#define IO_OPEN_DEFAULTS { .flags = BDRV_O_UNMAP }

/*
 * Take option @letter with @argument; 1 if it is one of the common ones, 0 if not, -1 if
 * its argument is wrong, which was said.
 */
int io_take_open_option(IoOpenOptions *open, int letter, const char *argument);
void io_open_options_clear(IoOpenOptions *open);

/* Open @filename (NULL: the options say what) as the session's image; false after saying
 * why not. */
bool io_open(IoSession *s, const char *filename, const IoOpenOptions *open);
/*
 * Wait for what is in flight and close the image; nothing if none is open. False, after saying
 * so, if what was written could not all be brought to the image: the format's tables, too.
 */
bool io_close(IoSession *s);

#endif
