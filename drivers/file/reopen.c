/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening a file: another descriptor in the place of the one in use. It has the
 * locks before the old one is closed (lock.c).
 */
#include <unistd.h>

#include "drivers/file/file.h"

/* Open the same file with other flags, in @r. */
static bool open_again(const FileState *s, FileReopen *r, bool writable, GError **errp)
{
    FileState now = {.fd = -1, .filename = s->filename, .is_device = s->is_device,
                     .direct = r->direct};

    if (file_open_fd(&now, writable, errp) < 0) {
        return false;
    }
    r->fd = now.fd;
    if (!file_look_at(&now, errp)) {
        return false;
    }
    if (now.dev != s->dev || now.ino != s->ino) {
        block_error_set(errp, ESTALE, "Could not reopen '%s': the name is another file's now",
                        s->filename);
        return false;
    }
    r->request_alignment = now.request_alignment;
    r->memory_alignment = now.memory_alignment;
    return true;
}

static void free_reopen(FileState *s)
{
    if (s->reopen->fd >= 0) {
        file_lock_release_all(s->reopen->fd);
        close(s->reopen->fd);
    }
    g_clear_pointer(&s->reopen, g_free);
}

bool file_reopen_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    FileState *s = bdrv_state(state->bs);
    int changed = state->flags ^ state->old_flags;

    s->reopen = g_new0(FileReopen, 1);
    s->reopen->fd = -1;
    s->reopen->direct = state->flags & BDRV_O_NOCACHE;
    s->reopen->no_flush = state->flags & BDRV_O_NO_FLUSH;
    if ((changed & (BDRV_O_RDWR | BDRV_O_NOCACHE)) &&
        !open_again(s, s->reopen, state->flags & BDRV_O_RDWR, errp)) {
        free_reopen(s);
        return false;
    }
    return true;
}

void file_reopen_commit(BdrvReopenState *state)
{
    FileState *s = bdrv_state(state->bs);
    FileReopen *r = s->reopen;

    s->no_flush = r->no_flush;
    if (r->fd >= 0) {
        int old = s->fd;

        s->fd = r->fd;
        r->fd = old;
        s->direct = r->direct;
        s->request_alignment = r->request_alignment;
        s->memory_alignment = r->memory_alignment;
    }
    g_mutex_lock(&s->run_mutex);
    s->run_start = s->run_end = 0; /* known of a node that was not writable */
    g_mutex_unlock(&s->run_mutex);
    free_reopen(s);
}

void file_reopen_abort(BdrvReopenState *state)
{
    free_reopen(bdrv_state(state->bs));
}
