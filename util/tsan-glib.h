/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GLib's mutexes for TSan. The distribution's GLib is not instrumented and
 * locks with futexes of its own, so TSan would report everything that a
 * GMutex protects. A build with -Db_sanitize=thread includes this file before
 * each source; other builds never see it.
 */
#ifndef UTIL_TSAN_GLIB_H
#define UTIL_TSAN_GLIB_H
#ifndef __ASSEMBLER__

#include <glib.h>
#include <sanitizer/tsan_interface.h>

static inline void tsan_g_mutex_lock(GMutex *mutex)
{
    g_mutex_lock(mutex);
    __tsan_acquire(mutex);
}

static inline gboolean tsan_g_mutex_trylock(GMutex *mutex)
{
    gboolean locked = g_mutex_trylock(mutex);

    if (locked) {
        __tsan_acquire(mutex);
    }
    return locked;
}

static inline void tsan_g_mutex_unlock(GMutex *mutex)
{
    __tsan_release(mutex);
    g_mutex_unlock(mutex);
}

static inline void tsan_g_cond_wait(GCond *cond, GMutex *mutex)
{
    __tsan_release(mutex);
    g_cond_wait(cond, mutex);
    __tsan_acquire(mutex);
}

static inline gboolean tsan_g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end_time)
{
    gboolean signalled;

    __tsan_release(mutex);
    signalled = g_cond_wait_until(cond, mutex, end_time);
    __tsan_acquire(mutex);
    return signalled;
}

#define g_mutex_lock(mutex) tsan_g_mutex_lock(mutex)
#define g_mutex_trylock(mutex) tsan_g_mutex_trylock(mutex)
#define g_mutex_unlock(mutex) tsan_g_mutex_unlock(mutex)
#define g_cond_wait(cond, mutex) tsan_g_cond_wait(cond, mutex)
#define g_cond_wait_until(cond, mutex, end_time) tsan_g_cond_wait_until(cond, mutex, end_time)

#endif
#endif
