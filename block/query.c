/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Questions to a driver, and creating images: what happens where the driver
 * has no answer.
 */
#include <string.h>

#include "block/io-int.h"

const char *const block_prealloc_words[] = {"off", "metadata", "falloc", "full", NULL};

/* ---- In a coroutine ----------------------------------------------------------------- */

typedef struct Query Query;
struct Query {
    BlockDriverState *bs;
    BlockDriverInfo *info;
    BdrvCheckResult *result;
    BdrvCheckReport *report;
    void *opaque;
    int fix;
    int64_t coroutine_fn (*ask)(Query *q);
    int64_t ret;
};

/* Like a request, a question is in flight at the node: draining waits for it. */
static void coroutine_fn query_entry(void *opaque)
{
    Query *q = opaque;

    in_flight_begin(&q->bs->in_flight);
    q->ret = q->ask(q);
    in_flight_end(&q->bs->in_flight);
    aio_wait_kick();
}

int coroutine_fn bdrv_co_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    BdrvChild *filtered;

    bdrv_graph_assert_readable();
    *info = (BlockDriverInfo){0};
    while (!bs->drv->bdrv_co_get_info && (filtered = bdrv_filter_child(bs))) {
        bs = filtered->bs;
    }
    return bs->drv->bdrv_co_get_info ? bs->drv->bdrv_co_get_info(bs, info) : -ENOTSUP;
}

static int64_t coroutine_fn ask_info(Query *q)
{
    bdrv_graph_assert_readable();
    return bdrv_co_get_info(q->bs, q->info);
}

int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *info)
{
    Query q = {.bs = bs, .ask = ask_info, .info = info};

    bdrv_run_co(query_entry, &q);
    return q.ret;
}

static int64_t coroutine_fn ask_check(Query *q)
{
    bdrv_graph_assert_readable();
    return q->bs->drv->bdrv_co_check(q->bs, q->fix, q->result, q->report, q->opaque);
}

int bdrv_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckReport *report,
               void *opaque)
{
    Query q = {.bs = bs, .ask = ask_check, .result = result, .report = report, .opaque = opaque};

    *result = (BdrvCheckResult){0};
    if (!bs->drv->bdrv_co_check) {
        return -ENOTSUP;
    }
    bdrv_run_co(query_entry, &q);
    return q.ret;
}

/*
 * What is retired would be a leak for it: once that is repaired, nobody may give it back a
 * second time. After a flush nothing is.
 */
static int64_t coroutine_fn GRAPH_RDLOCK flush_and_check(Query *q)
{
    int ret = bdrv_co_flush(q->bs);

    if (ret < 0 && q->report) {
        g_autofree char *line = g_strdup_printf("ERROR: '%s': could not flush: %s",
                                                q->bs->filename, g_strerror(-ret));

        q->report(q->opaque, line);
    }
    q->result->check_errors += ret < 0;
    return ret < 0 ? ret : ask_check(q);
}

/* Also what a drained section lets by, sent from a callback meanwhile, has to wait. */
static int64_t coroutine_fn ask_repair(Query *q)
{
    bool claims = bdrv_takes_claims(q->bs);
    Claim claim;
    int64_t ret;

    bdrv_graph_assert_readable();
    if (claims) {
        claim_begin(q->bs->claims, &claim, 0, INT64_MAX, true);
    }
    bdrv_forget_mappings(q->bs);
    ret = flush_and_check(q);
    bdrv_forget_mappings(q->bs);
    if (claims) {
        claim_end(q->bs->claims, &claim);
    }
    return ret;
}

int bdrv_repair(BlockDriverState *bs, int fix, BdrvCheckResult *result, BdrvCheckReport *report,
                void *opaque)
{
    Query q = {.bs = bs, .ask = ask_repair, .result = result, .report = report, .opaque = opaque,
               .fix = fix};

    GLOBAL_STATE_CODE();
    *result = (BdrvCheckResult){0};
    if (!bs->drv->bdrv_co_check) {
        return -ENOTSUP;
    }
    if (bs->read_only) {
        return -EACCES;
    }
    bdrv_drained_begin(bs);
    bdrv_run_co(query_entry, &q);
    bdrv_drained_end(bs);
    return q.ret;
}

static int64_t coroutine_fn GRAPH_RDLOCK allocated_size(BlockDriverState *bs)
{
    int64_t sum = 0;

    bdrv_graph_assert_readable();
    if (bs->drv->bdrv_co_get_allocated_file_size) {
        return bs->drv->bdrv_co_get_allocated_file_size(bs);
    }
    if (bdrv_is_protocol(bs)) {
        return -ENOTSUP;
    }
    if (bs->drv->is_filter) {
        return allocated_size(bdrv_filter_child(bs)->bs);
    }
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        int64_t n;

        if (!(child->role & (BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_FILTERED))) {
            continue;
        }
        n = allocated_size(child->bs);
        if (n < 0) {
            return n;
        }
        sum += n;
    }
    return sum;
}

static int64_t coroutine_fn ask_allocated_size(Query *q)
{
    bdrv_graph_assert_readable();
    return allocated_size(q->bs);
}

int64_t bdrv_get_allocated_file_size(BlockDriverState *bs)
{
    Query q = {.bs = bs, .ask = ask_allocated_size};

    bdrv_run_co(query_entry, &q);
    return q.ret;
}

/* ---- On the main thread ---------------------------------------------------------------- */

JsonObject *bdrv_get_specific_info(BlockDriverState *bs, GError **errp)
{
    GLOBAL_STATE_CODE();
    return bs->drv->bdrv_get_specific_info ? bs->drv->bdrv_get_specific_info(bs, errp) : NULL;
}

int bdrv_stored_bitmap_get(BlockDriverState *bs, size_t index, BdrvStoredBitmapInfo *info,
                           GError **errp)
{
    GLOBAL_STATE_CODE();
    return bs->drv->bdrv_stored_bitmap_get
               ? bs->drv->bdrv_stored_bitmap_get(bs, index, info, errp) : 0;
}

/* ---- Creating and measuring -------------------------------------------------------------- */

/* Also an object is known whose members are: "encrypt" for "encrypt.format". */
static bool known_option(const BlockOption *known, const char *name)
{
    size_t length = strlen(name);

    for (; known && known->name; known++) {
        if (strncmp(known->name, name, length) == 0 &&
            (known->name[length] == '\0' || known->name[length] == '.')) {
            return true;
        }
    }
    return false;
}

/* Whether @drv or the protocol that will make the file knows all of them. */
static bool options_are_known(BlockDriver *drv, const char *filename, JsonObject *options,
                              GError **errp)
{
    BlockDriver *protocol = bdrv_find_protocol(filename, NULL);
    g_autoptr(GList) names = json_object_get_members(options);

    for (GList *l = names; l; l = l->next) {
        if (!known_option(drv->create_options, l->data) &&
            !(protocol && known_option(protocol->create_options, l->data))) {
            block_error_set(errp, EINVAL, "Invalid parameter '%s'", (const char *)l->data);
            return false;
        }
    }
    return true;
}

bool bdrv_create(BlockDriver *drv, const char *filename, JsonObject *options, GError **errp)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);

    GLOBAL_STATE_CODE();
    if (!drv->bdrv_create) {
        block_error_set(errp, ENOTSUP, "Format driver '%s' does not support image creation",
                        drv->format_name);
        return false;
    }
    return options_are_known(drv, filename, copy, errp) && drv->bdrv_create(filename, copy, errp);
}

bool bdrv_create_sequential(BlockDriver *drv, JsonObject *options, GArray *ranges,
                            BdrvSequentialWrite *write, void *opaque, GError **errp)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);
    g_autoptr(GList) names = json_object_get_members(copy);

    GLOBAL_STATE_CODE();
    if (!drv->bdrv_create_sequential) {
        block_error_set(errp, ENOTSUP, "Format driver '%s' cannot write an image in one pass",
                        drv->format_name);
        return false;
    }
    for (GList *l = names; l; l = l->next) {
        if (!known_option(drv->create_options, l->data)) {
            block_error_set(errp, EINVAL, "Invalid parameter '%s'", (const char *)l->data);
            return false;
        }
    }
    return drv->bdrv_create_sequential(copy, ranges, write, opaque, errp);
}

bool bdrv_measure(BlockDriver *drv, JsonObject *options, BlockDriverState *source,
                  BlockMeasureInfo *info, GError **errp)
{
    g_autoptr(JsonObject) copy = block_options_copy(options);

    GLOBAL_STATE_CODE();
    *info = (BlockMeasureInfo){.bitmaps = -1};
    if (!drv->bdrv_measure) {
        block_error_set(errp, ENOTSUP, "Block driver '%s' does not support size measurement",
                        drv->format_name);
        return false;
    }
    return drv->bdrv_measure(copy, source, info, errp);
}
