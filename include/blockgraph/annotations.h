/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Words that go into declarations: what runs in a coroutine, and which lock a
 * function needs. The lock words are clang's thread-safety attributes; with
 * other compilers they vanish. Attributes on members that are function
 * pointers are ignored by clang, so a call through a pointer asserts its lock
 * at run time as well.
 */
#ifndef BLOCKGRAPH_ANNOTATIONS_H
#define BLOCKGRAPH_ANNOTATIONS_H

#include <glib.h>

/* The function may yield: call it from a coroutine only. */
#define coroutine_fn

/* The function may be called from a coroutine or outside of one. */
#define coroutine_mixed_fn

#if defined(__clang__) && defined(__has_attribute)
#if __has_attribute(requires_capability)
#define TSA_ATTR(x) __attribute__((x))
#endif
#endif
#ifndef TSA_ATTR
#define TSA_ATTR(x)
#endif

/* A type whose objects are locks. @name appears in the compiler's messages. */
#define TSA_CAPABILITY(name) TSA_ATTR(capability(name))
/* A variable or member that is touched only under the lock. */
#define TSA_GUARDED_BY(...) TSA_ATTR(guarded_by(__VA_ARGS__))
/* The function is called with the lock held, exclusively or shared. */
#define TSA_REQUIRES(...) TSA_ATTR(requires_capability(__VA_ARGS__))
#define TSA_REQUIRES_SHARED(...) TSA_ATTR(requires_shared_capability(__VA_ARGS__))
/* The function is called without the lock. */
#define TSA_EXCLUDES(...) TSA_ATTR(locks_excluded(__VA_ARGS__))
/* The function takes or gives back the lock. */
#define TSA_ACQUIRE(...) TSA_ATTR(acquire_capability(__VA_ARGS__))
#define TSA_ACQUIRE_SHARED(...) TSA_ATTR(acquire_shared_capability(__VA_ARGS__))
#define TSA_RELEASE(...) TSA_ATTR(release_capability(__VA_ARGS__))
#define TSA_RELEASE_SHARED(...) TSA_ATTR(release_shared_capability(__VA_ARGS__))
/* The function aborts unless the lock is held. */
#define TSA_ASSERT(...) TSA_ATTR(assert_capability(__VA_ARGS__))
#define TSA_ASSERT_SHARED(...) TSA_ATTR(assert_shared_capability(__VA_ARGS__))

#endif
