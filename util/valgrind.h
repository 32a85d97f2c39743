/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Telling valgrind what it cannot see: memory that the kernel fills through an
 * io_uring looks uninitialised to it. Nothing without valgrind's headers.
 */
#ifndef UTIL_VALGRIND_H
#define UTIL_VALGRIND_H

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_MAKE_MEM_DEFINED(start, size) ((void)(start), (void)(size))
#endif

#endif
