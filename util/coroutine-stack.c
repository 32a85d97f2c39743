/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutine records with their stacks, and the pools that keep them.
 *
 * 1. Every record that exists is in coroutine_all; a stack is mapped as long
 *    as its record exists.
 * 2. A thread keeps at most two magazines of MAGAZINE_SIZE free records, the
 *    process at most MAGAZINES_MAX full ones beside. So a thread that creates
 *    what another one ends gets its records back through the process' pool,
 *    one lock per MAGAZINE_SIZE coroutines; what does not fit is unmapped.
 * 3. A thread that ends unmaps what its magazines hold.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/coroutine-int.h"
#include "util/fatal.h"
#include "util/sanitizer.h"

#define MAGAZINE_SIZE 64
#define MAGAZINES_MAX 16

/* Instrumented frames are several times larger. */
#if defined(BUILT_WITH_ASAN) || defined(BUILT_WITH_TSAN)
#define STACK_SIZE (1024 * 1024)
#else
#define STACK_SIZE (256 * 1024)
#endif

typedef struct Magazine {
    Coroutine *first; /* linked by pool_next */
    unsigned count;
} Magazine;

typedef struct ThreadPool {
    Magazine active; /* taken from and given to */
    Magazine spare;  /* full or empty */
    bool registered; /* the thread's end will call thread_pool_free() */
} ThreadPool;

Coroutine *coroutine_all;
static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER;

static pthread_mutex_t process_pool_mutex = PTHREAD_MUTEX_INITIALIZER;
static Magazine process_pool[MAGAZINES_MAX];
static unsigned process_pool_count; /* written under the mutex, read without */

static __thread ThreadPool thread_pool;
static pthread_key_t thread_pool_key;
static pthread_once_t thread_pool_once = PTHREAD_ONCE_INIT;

static Coroutine *record_new(void)
{
    const size_t guard = sysconf(_SC_PAGESIZE);
    Coroutine *co = g_new0(Coroutine, 1);
    char *map = mmap(NULL, guard + STACK_SIZE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

    if (map == MAP_FAILED || mprotect(map, guard, PROT_NONE) != 0) {
        fatal("cannot map a coroutine's stack: %s (see /proc/sys/vm/max_map_count)",
              strerror(errno));
    }
    co->stack = map + guard;
    co->stack_size = STACK_SIZE;
    co->tsan_fiber = tsan_create_fiber();
    co->valgrind_stack_id = VALGRIND_STACK_REGISTER(map + guard, map + guard + STACK_SIZE);
    coroutine_switch_prepare(co);

    pthread_mutex_lock(&all_mutex);
    co->all_next = coroutine_all;
    if (coroutine_all) {
        coroutine_all->all_prev = co;
    }
    coroutine_all = co;
    pthread_mutex_unlock(&all_mutex);
    return co;
}

static void record_free(Coroutine *co)
{
    const size_t guard = sysconf(_SC_PAGESIZE);

    pthread_mutex_lock(&all_mutex);
    if (co->all_prev) {
        co->all_prev->all_next = co->all_next;
    } else {
        coroutine_all = co->all_next;
    }
    if (co->all_next) {
        co->all_next->all_prev = co->all_prev;
    }
    pthread_mutex_unlock(&all_mutex);

    VALGRIND_STACK_DEREGISTER(co->valgrind_stack_id);
    asan_forget_stack(co->asan_fake_stack, co->stack, co->stack_size);
    tsan_destroy_fiber(co->tsan_fiber);
    munmap((char *)co->stack - guard, co->stack_size + guard);
    g_free(co);
}

static Coroutine *magazine_pop(Magazine *m)
{
    Coroutine *co = m->first;

    if (co) {
        m->first = co->pool_next;
        m->count--;
    }
    return co;
}

static void magazine_push(Magazine *m, Coroutine *co)
{
    co->pool_next = m->first;
    m->first = co;
    m->count++;
}

static void magazine_free(Magazine *m)
{
    Coroutine *co;

    while ((co = magazine_pop(m))) {
        record_free(co);
    }
}

/* Move a full magazine into the process' pool; false if that is full. */
static bool process_pool_give(Magazine *m)
{
    bool room;

    pthread_mutex_lock(&process_pool_mutex);
    room = process_pool_count < MAGAZINES_MAX;
    if (room) {
        process_pool[process_pool_count] = *m;
        __atomic_store_n(&process_pool_count, process_pool_count + 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&process_pool_mutex);
    if (room) {
        *m = (Magazine){ 0 };
    }
    return room;
}

/* Fill the empty magazine @m from the process' pool, if that has something. */
static void process_pool_take(Magazine *m)
{
    /* A stale count costs a mapping, or a lock in vain. */
    if (__atomic_load_n(&process_pool_count, __ATOMIC_RELAXED) == 0) {
        return;
    }
    pthread_mutex_lock(&process_pool_mutex);
    if (process_pool_count > 0) {
        __atomic_store_n(&process_pool_count, process_pool_count - 1, __ATOMIC_RELAXED);
        *m = process_pool[process_pool_count];
    }
    pthread_mutex_unlock(&process_pool_mutex);
}

static void thread_pool_free(void *opaque)
{
    ThreadPool *pool = opaque;

    magazine_free(&pool->active);
    magazine_free(&pool->spare);
    pool->registered = false;
}

static void thread_pool_key_init(void)
{
    if (pthread_key_create(&thread_pool_key, thread_pool_free) != 0) {
        fatal("no thread-specific key left for the coroutine pool");
    }
}

static void thread_pool_register(ThreadPool *pool)
{
    pthread_once(&thread_pool_once, thread_pool_key_init);
    pthread_setspecific(thread_pool_key, pool);
    pool->registered = true;
}

/*
 * Not inlined, both: a caller that is a coroutine may have changed threads
 * since it last computed the address of a thread-local variable.
 */
G_GNUC_NO_INLINE Coroutine *coroutine_pool_get(void)
{
    ThreadPool *pool = &thread_pool;
    Coroutine *co;

    if (!pool->active.first) {
        if (pool->spare.first) {
            pool->active = pool->spare;
            pool->spare = (Magazine){ 0 };
        } else {
            process_pool_take(&pool->active);
        }
    }
    co = magazine_pop(&pool->active);
    return co ? co : record_new();
}

G_GNUC_NO_INLINE void coroutine_pool_put(Coroutine *co)
{
    ThreadPool *pool = &thread_pool;

    if (!pool->registered) {
        thread_pool_register(pool);
    }
    if (pool->active.count == MAGAZINE_SIZE) {
        if (pool->spare.first && !process_pool_give(&pool->spare)) {
            record_free(co);
            return;
        }
        pool->spare = pool->active;
        pool->active = (Magazine){ 0 };
    }
    magazine_push(&pool->active, co);
}
