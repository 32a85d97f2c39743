/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the event loop's tests share: running every test once per engine.
 */
#ifndef TESTS_UNIT_AIO_TESTING_H
#define TESTS_UNIT_AIO_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>
#include "blockgraph/aio.h"
#include "tests/unit/death.h"
#include "util/aio-int.h"

/* The engine under test. */
static AioEngine test_engine;

/* The calling thread's context, on the engine under test. */
static inline AioContext *test_context(void)
{
    g_autoptr(GError) error = NULL;
    AioContext *ctx = aio_context_new(test_engine, &error);

    if (!ctx) {
        fail_msg("%s", error->message);
    }
    assert_int_equal(aio_context_engine(ctx), test_engine);
    return ctx;
}

/* To be called first in main(), if there are death cases. */
static inline void test_death_main(int argc, char **argv, const DeathCase *cases, size_t count)
{
    const char *engine = g_getenv("TEST_AIO_ENGINE");

    if (engine) {
        aio_engine_parse(engine, &test_engine);
    }
    death_main(argc, argv, cases, count);
}

static inline int test_each_engine(const char *name, const struct CMUnitTest *tests, size_t count)
{
    static const AioEngine engines[] = { AIO_ENGINE_IO_URING, AIO_ENGINE_THREADS };
    int failed = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(engines); i++) {
        g_autofree char *title = g_strdup_printf("%s/%s", name, aio_engine_name(engines[i]));

        test_engine = engines[i];
        /* For the processes of death cases. */
        g_setenv("TEST_AIO_ENGINE", aio_engine_name(test_engine), true);
        failed += _cmocka_run_group_tests(title, tests, count, NULL, NULL);
    }
    return failed;
}

static inline void test_set_flag(void *opaque)
{
    *(bool *)opaque = true;
}

#define test_poll_until(ctx, cond)                                                                 \
    do {                                                                                           \
        while (!(cond)) {                                                                          \
            aio_poll(ctx, true);                                                                   \
        }                                                                                          \
    } while (0)

#endif
