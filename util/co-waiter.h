/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists of waiting coroutines, first in, first out, for the coroutine locks.
 * A waiter lives on the stack of the coroutine that waits, so it is gone as
 * soon as that one has been woken.
 */
#ifndef UTIL_CO_WAITER_H
#define UTIL_CO_WAITER_H

#include "blockgraph/coroutine.h"

struct CoWaiter {
    Coroutine *co;
    bool exclusive; /* CoRwlock only */
    CoWaiter *next;
};

static inline void co_waiter_push(CoWaiterList *list, CoWaiter *waiter)
{
    waiter->next = NULL;
    if (list->last) {
        list->last->next = waiter;
    } else {
        list->first = waiter;
    }
    list->last = waiter;
}

static inline CoWaiter *co_waiter_pop(CoWaiterList *list)
{
    CoWaiter *waiter = list->first;

    if (waiter) {
        list->first = waiter->next;
        if (!list->first) {
            list->last = NULL;
        }
    }
    return waiter;
}

#endif
