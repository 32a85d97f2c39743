/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors with a text. I/O functions return a negative errno; functions that
 * open, change or check return false or NULL and set a GError of the domain
 * BLOCK_ERROR whose code is a positive errno value. The text names the file,
 * the field and the value, needs no prefix, and ends without a newline.
 */
#ifndef BLOCKGRAPH_ERROR_H
#define BLOCKGRAPH_ERROR_H

#include "blockgraph/annotations.h"

G_BEGIN_DECLS

#define BLOCK_ERROR block_error_quark()
/* The domain of this library's errors; written as BLOCK_ERROR. Any thread. */
GQuark block_error_quark(void);

/*
 * Set @errp (if not NULL) to the formatted text; its code is @err, a positive
 * or negative errno value. Any thread.
 */
void block_error_set(GError **errp, int err, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
/* The same with ": " and strerror(@err) appended. Any thread. */
void block_error_set_errno(GError **errp, int err, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
/* The error as a negative errno: -@err->code in our domain, else -EIO. */
int block_error_to_errno(const GError *err);

G_END_DECLS

#endif
