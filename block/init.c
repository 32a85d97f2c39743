/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Setting the library up, and undoing it.
 */
#include "block/block-int.h"
#include "blockgraph/blockgraph.h"
#include "util/aio-int.h"
#include "util/bql-int.h"
#include "util/fatal.h"

static AioContext *own_context; /* created here, so freed here */
static bool initialized;

static bool register_builtin_drivers(GError **errp)
{
    for (BlockDriver *const *drv = block_builtin_drivers; *drv; drv++) {
        if (!bdrv_register(*drv, errp)) {
            return false;
        }
    }
    return true;
}

static void start_tracing(void)
{
    g_autoptr(GError) err = NULL;

    if (!trace_init(&err)) {
        g_printerr("warning: %s\n", err->message);
    }
}

bool blockgraph_init(GError **errp)
{
    static bool registered;

    if (initialized) {
        bql_keep();
        return true;
    }
    start_tracing();
    if (!aio_context_current()) {
        own_context = aio_context_new(AIO_ENGINE_DEFAULT, errp);
        if (!own_context) {
            return false;
        }
    }
    aio_set_main_context(aio_context_current());
    bql_keep();
    if (!registered && !register_builtin_drivers(errp)) {
        bql_give_up();
        return false;
    }
    registered = true;
    initialized = true;
    return true;
}

void blockgraph_cleanup(void)
{
    BlockDriverState *bs;

    GLOBAL_STATE_CODE();
    bs = bdrv_next_node(NULL);
    if (bs) {
        fatal("blockgraph_cleanup: node '%s' ('%s') is still there", bdrv_get_node_name(bs),
              bdrv_get_filename(bs));
    }
    blk_assert_none_left();
    throttle_groups_cleanup();
    initialized = false;
    bql_give_up();
    aio_set_main_context(NULL);
    g_clear_pointer(&own_context, aio_context_unref);
}

const char *blockgraph_version(void)
{
    return BLOCKGRAPH_VERSION;
}
