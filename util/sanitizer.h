/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling ASan, TSan and valgrind about stacks; each call vanishes where the
 * tool is not there.
 */
#ifndef UTIL_SANITIZER_H
#define UTIL_SANITIZER_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define BUILT_WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BUILT_WITH_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define BUILT_WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BUILT_WITH_TSAN 1
#endif
#endif

#ifdef BUILT_WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef BUILT_WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* The next thing is a switch to the stack at @bottom; @save: to come back here. */
static inline void asan_start_switch(void **save, const void *bottom, size_t size)
{
#ifdef BUILT_WITH_ASAN
    __sanitizer_start_switch_fiber(save, bottom, size);
#endif
}

/* Just after it: @saved by the start that left this stack; tells whence, if asked. */
static inline void asan_finish_switch(void *saved, const void **bottom_old, size_t *size_old)
{
#ifdef BUILT_WITH_ASAN
    __sanitizer_finish_switch_fiber(saved, bottom_old, size_old);
#endif
}

/*
 * The stack at @bottom, left with @saved, is never switched to again: give back what ASan
 * keeps for it. ASan does that on the way from a stack, so it is told of a way there and back.
 */
static inline void asan_forget_stack(void *saved, const void *bottom, size_t size)
{
#ifdef BUILT_WITH_ASAN
    const void *own_bottom;
    size_t own_size;
    void *own;

    __sanitizer_start_switch_fiber(&own, bottom, size);
    __sanitizer_finish_switch_fiber(saved, &own_bottom, &own_size);
    __sanitizer_start_switch_fiber(NULL, own_bottom, own_size);
    __sanitizer_finish_switch_fiber(own, NULL, NULL);
#endif
}

static inline void *tsan_current_fiber(void)
{
#ifdef BUILT_WITH_TSAN
    return __tsan_get_current_fiber();
#else
    return NULL;
#endif
}

static inline void *tsan_create_fiber(void)
{
#ifdef BUILT_WITH_TSAN
    return __tsan_create_fiber(0);
#else
    return NULL;
#endif
}

static inline void tsan_destroy_fiber(void *fiber)
{
#ifdef BUILT_WITH_TSAN
    __tsan_destroy_fiber(fiber);
#endif
}

/*
 * What is done up to here happens before what @fiber does from now on. Must be
 * inlined: TSan would count the return from a call on @fiber's stack.
 */
static inline __attribute__((always_inline)) void tsan_switch_to_fiber(void *fiber)
{
#ifdef BUILT_WITH_TSAN
    __tsan_switch_to_fiber(fiber, 0);
#endif
}

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(start, end) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#define RUNNING_ON_VALGRIND 0
#endif

#endif
