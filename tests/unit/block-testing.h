/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of the graph share: the library set up, and nodes to play with.
 */
#ifndef TESTS_BLOCK_TESTING_H
#define TESTS_BLOCK_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "blockgraph/block-driver.h"
#include "blockgraph/blockgraph.h"

/* cmocka group set-up and tear-down. */
static inline int blockgraph_group_setup(void **state)
{
    return blockgraph_init(NULL) ? 0 : -1;
}

static inline int blockgraph_group_teardown(void **state)
{
    blockgraph_cleanup();
    return 0;
}

/* Fails the test with the error's text unless @ok. */
static inline void assert_ok(bool ok, GError *err)
{
    if (!ok) {
        fail_msg("%s", err ? err->message : "failed without an error");
    }
    assert_null(err);
}

/* Fails the test unless @err is set and its text has @part; frees it. */
static inline void assert_error_has(GError **err, const char *part)
{
    assert_non_null(*err);
    if (!strstr((*err)->message, part)) {
        fail_msg("'%s' is not in '%s'", part, (*err)->message);
    }
    g_clear_error(err);
}

/* A node from "key=value,…" options; a reference for the caller. */
static inline BlockDriverState *open_node_with(const char *text, int flags)
{
    GError *err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, &err);
    BlockDriverState *bs;

    assert_ok(options != NULL, err);
    bs = bdrv_open(NULL, options, flags, NULL, &err);
    assert_ok(bs != NULL, err);
    return bs;
}

#endif
