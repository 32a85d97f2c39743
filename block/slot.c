/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tables of slots. A table is made for a context when it first needs one, kept
 * when the context ends, and then given to the next: so who waits for a slot may
 * look at it at any time.
 *
 *  a. A changer that finds a slot occupied reads its turn, the range, and the turn
 *     again. If that differs, the slot was emptied meanwhile, and whoever occupies
 *     it now did so after the changer's fence.
 *  b. The turn is counted up before any other word of the slot changes, and those
 *     are stored with release: who reads a new word also reads the new turn. So is
 *     the turn: who reads a new one also sees what the request before it has done.
 *  c. A waiter counts itself, and then looks at the slots; who leaves one empties
 *     it, and then looks at the count, each with a full fence in between.
 */
#include "block/slot.h"
#include "util/aio-int.h"
#include "util/fatal.h"

struct SlotTable {
    uint64_t occupied; /* atomic: a bit per slot */
    uint64_t taken;    /* the owner's: a bit per slot */
    bool owned;        /* atomic: a context has it */
    SlotTable *next;   /* all tables, newest first; never changes */
    Slot slots[SLOTS];
};

static SlotTable *tables; /* atomic */

static struct {
    GMutex lock;     /* protects the queue */
    CoQueue queue;   /* who waits for any slot to be emptied */
    unsigned count;  /* atomic: how many wait, or are about to */
} waiters;

/* ---- Tables ------------------------------------------------------------------------- */

static SlotTable *table_new(void)
{
    SlotTable *table = aligned_alloc(_Alignof(SlotTable), sizeof(*table));

    if (!table) {
        fatal("out of memory");
    }
    memset(table, 0, sizeof(*table));
    for (int i = 0; i < SLOTS; i++) {
        table->slots[i].table = table;
    }
    table->owned = true;
    table->next = __atomic_load_n(&tables, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&tables, &table->next, table, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
    }
    return table;
}

static void table_release(void *opaque)
{
    SlotTable *table = opaque;

    if (table->taken) {
        fatal("an AioContext ends while requests that were started in it are not over");
    }
    __atomic_store_n(&table->owned, false, __ATOMIC_RELEASE);
}

static G_GNUC_NO_INLINE SlotTable *table_for(AioContext *ctx)
{
    SlotTable *table = __atomic_load_n(&tables, __ATOMIC_ACQUIRE);

    while (table && __atomic_exchange_n(&table->owned, true, __ATOMIC_ACQUIRE)) {
        table = table->next;
    }
    table = table ? table : table_new();
    aio_context_set_local(ctx, table, table_release);
    return table;
}

static uint64_t slot_bit(const Slot *slot)
{
    return UINT64_C(1) << (slot - slot->table->slots);
}

/* ---- Requests -------------------------------------------------------------------------- */

Slot *slot_take(void)
{
    AioContext *ctx = aio_context_current();
    SlotTable *table = aio_context_get_local(ctx);
    unsigned i;

    if (!table) {
        table = table_for(ctx);
    }
    if (table->taken == UINT64_MAX) {
        return NULL;
    }
    i = __builtin_ctzll(~table->taken);
    table->taken |= UINT64_C(1) << i;
    return &table->slots[i];
}

void slot_give_back(Slot *slot)
{
    slot->table->taken &= ~slot_bit(slot);
}

bool slot_enter(Slot *slot, const PassThrough *pass, int64_t offset, int64_t bytes)
{
    SlotTable *table = slot->table;

    __atomic_store_n(&slot->turn, slot->turn + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->pass, pass, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->offset, offset, __ATOMIC_RELEASE);
    __atomic_store_n(&slot->end, offset + bytes, __ATOMIC_RELEASE);
    __atomic_store_n(&table->occupied, table->occupied | slot_bit(slot), __ATOMIC_RELEASE);
    bdrv_graph_count_in();
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (bdrv_graph_has_writer()) {
        slot_leave(slot);
        return false;
    }
    return true;
}

void slot_leave(Slot *slot)
{
    SlotTable *table = slot->table;

    __atomic_store_n(&table->occupied, table->occupied & ~slot_bit(slot), __ATOMIC_RELEASE);
    bdrv_graph_count_out();
    aio_wait_kick(); /* for drained sections and the writer; a full fence */
    if (__atomic_load_n(&waiters.count, __ATOMIC_RELAXED) > 0) {
        g_mutex_lock(&waiters.lock);
        co_queue_wake_all(&waiters.queue);
        g_mutex_unlock(&waiters.lock);
    }
}

void slot_assert_occupied(const Slot *slot)
{
    if (!(slot->table->occupied & slot_bit(slot))) {
        fatal("a request uses the graph without its slot");
    }
}

/* ---- Changers -------------------------------------------------------------------------- */

typedef struct Occupied {
    SlotTable *table;
    Slot *slot;
    uint64_t turn;
} Occupied;

static bool is_occupied(const SlotTable *table, const Slot *slot)
{
    return __atomic_load_n(&table->occupied, __ATOMIC_ACQUIRE) &
           UINT64_C(1) << (slot - table->slots);
}

/* Whether the slot, which is occupied, is so for @pass and the range; *@turn: since when. */
static bool slot_matches(const Slot *slot, const PassThrough *pass, int64_t offset, int64_t end,
                         uint64_t *turn)
{
    bool matches;

    *turn = __atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE);
    matches = __atomic_load_n(&slot->pass, __ATOMIC_ACQUIRE) == pass &&
              __atomic_load_n(&slot->offset, __ATOMIC_ACQUIRE) < end &&
              __atomic_load_n(&slot->end, __ATOMIC_ACQUIRE) > offset;
    return matches && __atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE) == *turn;
}

/*
 * Go through the slots, from the one after @found on, to the next that matches;
 * false if there is none. Starts with zeros.
 */
static bool find_next(Occupied *found, const PassThrough *pass, int64_t offset, int64_t end)
{
    SlotTable *table = found->table ? found->table : __atomic_load_n(&tables, __ATOMIC_ACQUIRE);
    unsigned first = found->table ? found->slot - table->slots + 1 : 0;

    for (; table; table = table->next, first = 0) {
        uint64_t bits = __atomic_load_n(&table->occupied, __ATOMIC_ACQUIRE);

        for (unsigned i = first; bits && i < SLOTS; i++) {
            *found = (Occupied){table, &table->slots[i], 0};
            if ((bits >> i & 1) && slot_matches(found->slot, pass, offset, end, &found->turn)) {
                return true;
            }
        }
    }
    return false;
}

bool slots_used_by(const PassThrough *pass)
{
    Occupied found = {NULL};

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return find_next(&found, pass, INT64_MIN, INT64_MAX);
}

void slot_wait_add(SlotWait *wait, const PassThrough *pass, int64_t offset, int64_t bytes)
{
    int64_t end = bytes > INT64_MAX - offset ? INT64_MAX : offset + bytes;
    Occupied found = {NULL};

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    while (find_next(&found, pass, offset, end)) {
        if (!wait->found) {
            wait->found = g_array_new(false, false, sizeof(Occupied));
        }
        g_array_append_val(wait->found, found);
    }
}

/* Drop those that were left since; whether any stay. */
static bool any_left(SlotWait *wait)
{
    for (guint i = wait->found->len; i-- > 0;) {
        const Occupied *o = &g_array_index(wait->found, Occupied, i);

        if (!is_occupied(o->table, o->slot) ||
            __atomic_load_n(&o->slot->turn, __ATOMIC_ACQUIRE) != o->turn) {
            g_array_remove_index_fast(wait->found, i);
        }
    }
    return wait->found->len > 0;
}

void coroutine_fn slot_wait_finish(SlotWait *wait)
{
    if (!wait->found) {
        return;
    }
    g_mutex_lock(&waiters.lock);
    __atomic_fetch_add(&waiters.count, 1, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    while (any_left(wait)) {
        co_queue_wait_gmutex(&waiters.queue, &waiters.lock);
    }
    __atomic_fetch_sub(&waiters.count, 1, __ATOMIC_SEQ_CST);
    g_mutex_unlock(&waiters.lock);
    g_array_unref(wait->found);
}
