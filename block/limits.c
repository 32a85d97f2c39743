/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The limits of requests to a node, from those of its children and what its
 * driver says.
 */
#include <limits.h>

#include "block/block-int.h"

static int64_t stricter(int64_t a, int64_t b)
{
    return a && b ? MIN(a, b) : a + b;
}

static void take_child_limits(BlockLimits *limits, const BlockLimits *child, bool filter)
{
    limits->min_mem_alignment = MAX(limits->min_mem_alignment, child->min_mem_alignment);
    if (!filter) {
        return; /* the core splits and pads again where a format's data goes */
    }
    limits->request_alignment = MAX(limits->request_alignment, child->request_alignment);
    limits->max_transfer = stricter(limits->max_transfer, child->max_transfer);
    limits->max_iov = stricter(limits->max_iov, child->max_iov);
    limits->max_pwrite_zeroes = stricter(limits->max_pwrite_zeroes, child->max_pwrite_zeroes);
    limits->max_pdiscard = stricter(limits->max_pdiscard, child->max_pdiscard);
    limits->pwrite_zeroes_alignment =
        MAX(limits->pwrite_zeroes_alignment, child->pwrite_zeroes_alignment);
    limits->pdiscard_alignment = MAX(limits->pdiscard_alignment, child->pdiscard_alignment);
}

/* @max (0: none) as a multiple of @unit, so that what is split stays aligned. */
static int64_t whole_units(int64_t max, int64_t unit)
{
    return max ? MAX(max - max % unit, unit) : 0;
}

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* What a driver says, made to fit together. */
static void limits_normalize(BlockLimits *limits)
{
    int64_t align = limits->request_alignment;

    g_assert(align > 0 && (align & (align - 1)) == 0);
    if (limits->max_iov <= 0 || limits->max_iov > IOV_MAX) {
        limits->max_iov = IOV_MAX;
    }
    limits->max_transfer =
        whole_units(limits->max_transfer, MAX(align, limits->min_mem_alignment));
    limits->pwrite_zeroes_alignment =
        round_up(MAX(limits->pwrite_zeroes_alignment, align), align);
    limits->max_pwrite_zeroes =
        whole_units(limits->max_pwrite_zeroes, limits->pwrite_zeroes_alignment);
    limits->pdiscard_alignment = round_up(MAX(limits->pdiscard_alignment, align), align);
    limits->max_pdiscard = whole_units(limits->max_pdiscard, limits->pdiscard_alignment);
}

void bdrv_refresh_limits(BlockDriverState *bs)
{
    BlockLimits limits = {.request_alignment = 1, .min_mem_alignment = 1};

    bdrv_graph_assert_readable();
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        take_child_limits(&limits, &child->bs->limits, bs->drv->is_filter);
    }
    if (bs->drv->bdrv_refresh_limits) {
        bs->drv->bdrv_refresh_limits(bs, &limits);
    }
    limits_normalize(&limits);
    bs->limits = limits;
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        if (parent->ops->is_node && ((BlockDriverState *)parent->parent)->is_open) {
            bdrv_refresh_limits(parent->parent);
        }
    }
}

const BlockLimits *bdrv_get_limits(const BlockDriverState *bs)
{
    return &bs->limits;
}

#define PAGE_ALIGN 4096 /* bytes */

void *bdrv_try_blockalign(BlockDriverState *bs, size_t size)
{
    size_t align = MAX(bs->limits.min_mem_alignment, sizeof(void *));
    void *p = NULL;

    /* The kernel copies whole pages to and from aligned memory twice as fast. */
    if (size >= PAGE_ALIGN) {
        align = MAX(align, PAGE_ALIGN);
    }
    return posix_memalign(&p, align, MAX(size, align)) == 0 ? p : NULL;
}

void *bdrv_blockalign(BlockDriverState *bs, size_t size)
{
    void *p = bdrv_try_blockalign(bs, size);

    if (!p) {
        g_error("out of memory: %zu bytes", size);
    }
    return p;
}
