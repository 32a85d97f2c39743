/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Breakpoints of the blkdebug filter below the image. */
#ifndef TOOLS_IO_BREAK_H
#define TOOLS_IO_BREAK_H

#include "tools/io/session.h"

/* Say of each request that was held since the last call that it is. */
void io_announce_breaks(IoSession *s);

#endif
