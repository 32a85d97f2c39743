/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioThread: a thread that does nothing but run its context.
 */
#include <errno.h>
#include <pthread.h>
#include "util/aio-int.h"

struct AioThread {
    GThread *thread;
    AioEngine engine;
    atomic_bool stopping;

    /* Handed over while the thread starts. */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool started;
    AioContext *ctx;
    GError *error;
};

static void thread_free(AioThread *thread)
{
    pthread_cond_destroy(&thread->cond);
    pthread_mutex_destroy(&thread->mutex);
    g_free(thread);
}

static gpointer thread_main(gpointer opaque)
{
    AioThread *thread = opaque;
    g_autoptr(GError) error = NULL;
    AioContext *ctx = aio_context_new(thread->engine, &error);

    pthread_mutex_lock(&thread->mutex);
    thread->ctx = ctx;
    thread->error = g_steal_pointer(&error);
    thread->started = true;
    pthread_cond_signal(&thread->cond);
    pthread_mutex_unlock(&thread->mutex);

    if (!ctx) {
        return NULL;
    }
    while (!atomic_load(&thread->stopping) || aio_context_is_busy(ctx)) {
        aio_poll(ctx, true);
    }
    return NULL;
}

AioThread *aio_thread_new(const char *name, AioEngine engine, GError **errp)
{
    AioThread *thread = g_new0(AioThread, 1);
    g_autoptr(GError) error = NULL;

    thread->engine = engine;
    pthread_mutex_init(&thread->mutex, NULL);
    pthread_cond_init(&thread->cond, NULL);
    thread->thread = g_thread_try_new(name, thread_main, thread, &error);
    if (!thread->thread) {
        g_set_error(errp, AIO_ERROR, EAGAIN, "thread '%s': %s", name, error->message);
        thread_free(thread);
        return NULL;
    }

    pthread_mutex_lock(&thread->mutex);
    while (!thread->started) {
        pthread_cond_wait(&thread->cond, &thread->mutex);
    }
    pthread_mutex_unlock(&thread->mutex);

    if (!thread->ctx) {
        g_thread_join(thread->thread);
        g_propagate_prefixed_error(errp, thread->error, "thread '%s': ", name);
        thread_free(thread);
        return NULL;
    }
    return thread;
}

AioContext *aio_thread_get_context(AioThread *thread)
{
    return thread->ctx;
}

void aio_thread_stop(AioThread *thread)
{
    atomic_store(&thread->stopping, true);
    aio_notify(thread->ctx);
    g_thread_join(thread->thread);
    aio_context_unref(thread->ctx);
    thread_free(thread);
}
