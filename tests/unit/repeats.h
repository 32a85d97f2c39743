/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How often a test does the same again with other numbers. Valgrind and TSan take some
 * twenty times as long, and look for what shows the first time that code runs; all of the
 * numbers run in the plain build and under ASan.
 */
#ifndef TESTS_REPEATS_H
#define TESTS_REPEATS_H

#include "util/sanitizer.h"

/* @all, or @few where each takes so long: a count of repetitions, or a loop's stride. */
static inline int repeats(int all, int few)
{
#ifdef BUILT_WITH_TSAN
    return few;
#else
    return RUNNING_ON_VALGRIND ? few : all;
#endif
}

#endif
