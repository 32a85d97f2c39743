/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The big lock from the inside.
 */
#ifndef UTIL_BQL_INT_H
#define UTIL_BQL_INT_H

#include <stdbool.h>

/*
 * Have bql_locked() say that the calling thread holds the library's own big
 * lock, or does not, whatever is true; returns what it said before. For the
 * simulation, which runs several threads' work on one thread.
 */
bool bql_pretend_held(bool held);

/*
 * bql_lock() and bql_unlock() for functions that keep the lock beyond their
 * end (blockgraph_init()), which the compiler's analysis cannot follow.
 */
void bql_keep(void);
void bql_give_up(void);

#endif
