/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GErrors of the domain BLOCK_ERROR, whose code is a positive errno value.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include "blockgraph/error.h"

GQuark block_error_quark(void)
{
    return g_quark_from_static_string("block-error-quark");
}

void block_error_set(GError **errp, int err, const char *fmt, ...)
{
    va_list ap;

    if (!errp) {
        return;
    }
    va_start(ap, fmt);
    *errp = g_error_new_valist(BLOCK_ERROR, abs(err), fmt, ap);
    va_end(ap);
}

void block_error_set_errno(GError **errp, int err, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    if (!errp) {
        return;
    }
    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    block_error_set(errp, err, "%s: %s", text, g_strerror(abs(err)));
}

int block_error_to_errno(const GError *err)
{
    if (err->domain != BLOCK_ERROR || err->code <= 0) {
        return -EIO;
    }
    return -err->code;
}
