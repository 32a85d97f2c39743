/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Places that wait until nobody can refer to them: a queue with three marks. */
#include "block/retire.h"

/* As many as this, or as much, wait for a flush by the guest before there is one of ours. */
#define MANY 4096
#define MUCH (1ULL << 30)

typedef struct Retired {
    BdrvPlace place;
    uint64_t claim;
} Retired;

struct RetireList {
    GMutex lock; /* protects the queue */
    GQueue queue;      /* of Retired, oldest first */
    uint64_t came;     /* atomic: places that were ever added */
    uint64_t left;     /* atomic: places that were ever taken */
    uint64_t stable;   /* atomic: the first so many are stable */
    uint64_t bytes;    /* atomic: of all that were ever added */
    uint64_t asked_at, asked_bytes; /* came and bytes, when a flush was asked for; atomic */
};

RetireList *retire_list_new(void)
{
    RetireList *list = g_new0(RetireList, 1);

    g_mutex_init(&list->lock);
    g_queue_init(&list->queue);
    return list;
}

void retire_list_free(RetireList *list)
{
    g_queue_clear_full(&list->queue, g_free);
    g_mutex_clear(&list->lock);
    g_free(list);
}

void retire_list_add(RetireList *list, const BdrvPlace *place, uint64_t claim)
{
    Retired *retired = g_new(Retired, 1);

    *retired = (Retired){*place, claim};
    g_mutex_lock(&list->lock);
    g_queue_push_tail(&list->queue, retired);
    __atomic_fetch_add(&list->bytes, place->bytes, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&list->came, 1, __ATOMIC_SEQ_CST);
    g_mutex_unlock(&list->lock);
}

uint64_t retire_list_mark(RetireList *list)
{
    return __atomic_load_n(&list->came, __ATOMIC_SEQ_CST);
}

void retire_list_stable(RetireList *list, uint64_t mark)
{
    uint64_t old = __atomic_load_n(&list->stable, __ATOMIC_RELAXED);

    while (old < mark && !__atomic_compare_exchange_n(&list->stable, &old, mark, false,
                                                      __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
}

bool retire_list_take(RetireList *list, uint64_t oldest_claim, BdrvPlace *place)
{
    Retired *first;
    bool found;

    g_mutex_lock(&list->lock);
    first = g_queue_peek_head(&list->queue);
    found = first && retire_list_has_stable(list) && oldest_claim >= first->claim;
    if (found) {
        g_queue_pop_head(&list->queue);
        __atomic_fetch_add(&list->left, 1, __ATOMIC_SEQ_CST);
    }
    g_mutex_unlock(&list->lock);
    if (found) {
        *place = first->place;
        g_free(first);
    }
    return found;
}

bool retire_list_empty(const RetireList *list)
{
    return __atomic_load_n(&list->left, __ATOMIC_SEQ_CST) ==
           __atomic_load_n(&list->came, __ATOMIC_SEQ_CST);
}

bool retire_list_has_stable(const RetireList *list)
{
    return __atomic_load_n(&list->left, __ATOMIC_SEQ_CST) <
           __atomic_load_n(&list->stable, __ATOMIC_SEQ_CST);
}

/* So many came since a flush was asked for, or, but for their size, since one succeeded. */
static bool are_many(RetireList *list)
{
    /* What only grows behind the others is read before them. */
    uint64_t stable = __atomic_load_n(&list->stable, __ATOMIC_SEQ_CST);
    uint64_t asked_at = __atomic_load_n(&list->asked_at, __ATOMIC_SEQ_CST);
    uint64_t asked_bytes = __atomic_load_n(&list->asked_bytes, __ATOMIC_SEQ_CST);

    return __atomic_load_n(&list->came, __ATOMIC_SEQ_CST) - MAX(stable, asked_at) >= MANY ||
           __atomic_load_n(&list->bytes, __ATOMIC_SEQ_CST) - asked_bytes >= MUCH;
}

bool retire_list_wants_flush(RetireList *list)
{
    bool wanted;

    if (!are_many(list)) {
        return false;
    }
    g_mutex_lock(&list->lock);
    wanted = are_many(list);
    if (wanted) {
        __atomic_store_n(&list->asked_at, list->came, __ATOMIC_SEQ_CST);
        __atomic_store_n(&list->asked_bytes, list->bytes, __ATOMIC_SEQ_CST);
    }
    g_mutex_unlock(&list->lock);
    return wanted;
}
