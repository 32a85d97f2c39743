/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: a moving view of the file, for tables of variable entries that can
 * claim to be larger than what one would like to hold in memory.
 */
#include "drivers/qcow2/qcow2.h"

#define WINDOW (256 * 1024)

int coroutine_mixed_fn qcow2_window_get(Qcow2Window *w, uint64_t offset, size_t bytes,
                                        const uint8_t **data)
{
    g_assert(bytes <= WINDOW);
    if (!w->buf) {
        w->buf = g_malloc(WINDOW);
    }
    if (offset < w->start || offset + bytes > w->start + w->filled) {
        int ret = bdrv_pread(w->file, offset, WINDOW, w->buf, 0);

        if (ret < 0) {
            w->filled = 0;
            return ret;
        }
        w->start = offset;
        w->filled = WINDOW;
    }
    *data = w->buf + (offset - w->start);
    return 0;
}

void qcow2_window_clear(Qcow2Window *w)
{
    g_clear_pointer(&w->buf, g_free);
}
