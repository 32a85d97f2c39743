/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bottom halves.
 *
 * 1. A bottom half is in its context's queues exactly while BH_QUEUED is set;
 *    whoever sets the bit pushes it, and the loop clears it when it takes it out.
 * 2. It runs if BH_SCHEDULED is still set then; both bits go in one step, so a
 *    scheduling after that queues it again.
 * 3. Freeing one that is queued leaves that to the loop, by BH_FREED.
 */
#include "util/aio-int.h"

enum {
    BH_QUEUED = 1,
    BH_SCHEDULED = 2,
    BH_FREED = 4,
    BH_ONESHOT = 8,
};

struct AioBH {
    AioItem item;
    AioContext *ctx;
    AioCallback *cb;
    void *opaque;
    atomic_uint flags;
};

static void bh_destroy(AioBH *bh)
{
    atomic_fetch_sub(&bh->ctx->bottom_halves, 1);
    g_free(bh);
}

static void bh_run(AioContext *ctx, AioItem *item)
{
    AioBH *bh = (AioBH *)((char *)item - G_STRUCT_OFFSET(AioBH, item));
    AioCallback *cb = bh->cb;
    void *opaque = bh->opaque;
    unsigned flags = atomic_fetch_and(&bh->flags, ~(BH_QUEUED | BH_SCHEDULED));

    if (flags & (BH_FREED | BH_ONESHOT)) {
        bh_destroy(bh);
    }
    /* The callback may free @bh. */
    if ((flags & BH_SCHEDULED) && !(flags & BH_FREED)) {
        cb(opaque);
    }
}

static const AioItemKind bh_kind = { "bh", bh_run };

static AioBH *bh_new(AioContext *ctx, AioCallback *cb, void *opaque, unsigned flags)
{
    AioBH *bh = g_new0(AioBH, 1);

    bh->item.kind = &bh_kind;
    bh->ctx = ctx;
    bh->cb = cb;
    bh->opaque = opaque;
    atomic_init(&bh->flags, flags);
    atomic_fetch_add(&ctx->bottom_halves, 1);
    return bh;
}

AioBH *aio_bh_new(AioContext *ctx, AioCallback *cb, void *opaque)
{
    return bh_new(ctx, cb, opaque, 0);
}

void aio_bh_oneshot(AioContext *ctx, AioCallback *cb, void *opaque)
{
    AioBH *bh = bh_new(ctx, cb, opaque, BH_ONESHOT | BH_QUEUED | BH_SCHEDULED);

    aio_item_push(ctx, &bh->item);
}

void aio_bh_schedule(AioBH *bh)
{
    if (!(atomic_fetch_or(&bh->flags, BH_QUEUED | BH_SCHEDULED) & BH_QUEUED)) {
        aio_item_push(bh->ctx, &bh->item);
    }
}

void aio_bh_cancel(AioBH *bh)
{
    aio_assert_home(bh->ctx, __func__);
    atomic_fetch_and(&bh->flags, ~BH_SCHEDULED);
}

void aio_bh_free(AioBH *bh)
{
    if (!bh) {
        return;
    }
    aio_assert_home(bh->ctx, __func__);
    if (atomic_fetch_or(&bh->flags, BH_FREED) & BH_QUEUED) {
        return;
    }
    bh_destroy(bh);
}

void aio_bh_reap_freed(AioContext *ctx)
{
    AioItem *next;

    for (AioItem *item = ctx->ready_first; item; item = next) {
        AioBH *bh = (AioBH *)((char *)item - G_STRUCT_OFFSET(AioBH, item));

        next = item->next;
        if (item->kind == &bh_kind && (atomic_load(&bh->flags) & BH_FREED)) {
            aio_item_unready(ctx, item);
            bh_destroy(bh);
        }
    }
}
