/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that were sent and are still on their way. */
#ifndef TOOLS_IO_AIO_H
#define TOOLS_IO_AIO_H

#include "tools/io/session.h"

/* Poll until none is in flight; their completions are reported. */
void io_wait_for_requests(IoSession *s);

#endif
