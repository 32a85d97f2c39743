/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: reopening: becoming writable or read-only, and other run-time options.
 *
 * The caches are replaced in commit, which may do no I/O: prepare has written back all
 * that they hold, and the node is drained, so that nothing is changed in between.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"
#include "drivers/qcow2/qcow2-bitmap.h"

/* What prepare has found out for commit. */
typedef struct Reopen {
    Qcow2Options options;
    JsonObject *run_options;
} Reopen;

static void reopen_free(Reopen *re)
{
    json_object_unref(re->run_options);
    g_free(re);
}

static bool settle(BdrvReopenState *state, GError **errp)
{
    const Qcow2State *s = bdrv_state(state->bs);
    int ret = qcow2_writer_settle(state->bs);

    if (ret < 0) {
        block_error_set_errno(errp, -ret, "'%s': could not write back the metadata", s->name);
    }
    return ret >= 0;
}

/* The options that are named, on top of those that are in force. */
static bool prepare_options(BdrvReopenState *state, JsonObject *options, Reopen **result,
                            GError **errp)
{
    const Qcow2State *s = bdrv_state(state->bs);
    Reopen *re = g_new0(Reopen, 1);

    re->run_options = qcow2_options_split(options);
    block_options_merge(re->run_options, s->run_options);
    if (!qcow2_options_parse(re->run_options, &s->header, &s->geo, &re->options, errp)) {
        reopen_free(re);
        return false;
    }
    *result = re;
    return true;
}

/* Another access; what is written is on its way to the disk when it returns. */
static bool prepare_access(BdrvReopenState *state, GError **errp)
{
    Qcow2State *s = bdrv_state(state->bs);

    if (state->flags & BDRV_O_RDWR) { /* bitmaps are marked as in use with the first change */
        return (s->writer || qcow2_writer_open(state->bs, errp)) &&
               qcow2_load_bitmaps(state->bs, errp);
    }
    return qcow2_store_bitmaps(state->bs, errp) && settle(state, errp);
}

bool qcow2_reopen_prepare(BdrvReopenState *state, JsonObject *options, GError **errp)
{
    Reopen *re = NULL;

    if (qcow2_options_any(options) && !prepare_options(state, options, &re, errp)) {
        return false;
    }
    if (!prepare_access(state, errp) || (re && !settle(state, errp))) {
        g_clear_pointer(&re, reopen_free);
        return false;
    }
    state->opaque = re;
    return true;
}

/* The header says nothing of a writer any more, nor do the bitmaps. */
static void forget_announcement(Qcow2State *s)
{
    if (s->writer) {
        __atomic_store_n(&s->writer->announced, false, __ATOMIC_RELEASE);
    }
}

static void adopt_options(Qcow2State *s, Reopen *re)
{
    Qcow2Cache *cache = qcow2_cache_new(re->options.l2_cache_size, re->options.l2_slice_bytes);

    json_object_unref(s->run_options);
    s->run_options = json_object_ref(re->run_options);
    s->options = re->options;
    if (s->writer) {
        qcow2_writer_limit_caches(s->writer);
    }
    qcow2_cache_free(s->l2_cache);
    s->l2_cache = cache;
    qcow2_cleaner_changed(s);
}

void qcow2_reopen_commit(BdrvReopenState *state)
{
    Reopen *re = g_steal_pointer(&state->opaque);
    bool writable = state->flags & BDRV_O_RDWR;
    Qcow2State *s = bdrv_state(state->bs);

    if (!writable) {
        forget_announcement(s);
    }
    if (re) {
        adopt_options(s, re);
        reopen_free(re);
    }
    qcow2_options_follow_flags(&s->options, state->flags);
    qcow2_bitmaps_set_readonly(state->bs, !writable);
}

void qcow2_reopen_abort(BdrvReopenState *state)
{
    Reopen *re = g_steal_pointer(&state->opaque);

    g_clear_pointer(&re, reopen_free);
    if ((state->old_flags & BDRV_O_RDWR) && !(state->flags & BDRV_O_RDWR)) {
        forget_announcement(bdrv_state(state->bs));
        qcow2_bitmaps_set_readonly(state->bs, false);
        bdrv_graph_rdlock_main_loop();
        bdrv_map_invalidate(state->bs, 0, INT64_MAX); /* the next change is to be seen */
        bdrv_graph_rdunlock_main_loop();
    }
}
