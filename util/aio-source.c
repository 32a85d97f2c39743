/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GSource that runs a context in a GMainLoop.
 */
#include "util/aio-int.h"

typedef struct AioSource {
    GSource source;
    AioContext *ctx;
    gpointer fd_tag;
} AioSource;

static gboolean source_prepare(GSource *source, gint *timeout_ms)
{
    int64_t ns = aio_context_prepare(((AioSource *)source)->ctx);

    /* Rounded up: woken too early, the loop would spin until the timer is due. */
    *timeout_ms = ns < 0 ? -1 : MIN((ns + 999999) / 1000000, G_MAXINT);
    return ns == 0;
}

static gboolean source_check(GSource *source)
{
    AioSource *s = (AioSource *)source;

    return g_source_query_unix_fd(source, s->fd_tag) != 0 || atomic_load(&s->ctx->notified) ||
           aio_sleep_limit(s->ctx) == 0;
}

static gboolean source_dispatch(GSource *source, GSourceFunc callback, gpointer opaque)
{
    aio_context_dispatch(((AioSource *)source)->ctx);
    return G_SOURCE_CONTINUE;
}

static void source_finalize(GSource *source)
{
    aio_context_unref(((AioSource *)source)->ctx);
}

GSource *aio_context_get_g_source(AioContext *ctx)
{
    static GSourceFuncs funcs = {
        .prepare = source_prepare,
        .check = source_check,
        .dispatch = source_dispatch,
        .finalize = source_finalize,
    };
    GSource *source = g_source_new(&funcs, sizeof(AioSource));
    AioSource *s = (AioSource *)source;

    s->ctx = aio_context_ref(ctx);
    s->fd_tag = g_source_add_unix_fd(source, aio_context_get_fd(ctx), G_IO_IN);
    g_source_set_name(source, "AioContext");
    return source;
}
