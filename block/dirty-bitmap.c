/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps of nodes.
 *
 * Invariants:
 *  1. A node's set is made with its first bitmap, while the node is drained,
 *     and stays while the node lives: a request that begins without one has
 *     none to mark when it ends.
 *  2. The list of bitmaps is changed by the main thread only, with the set's
 *     lock held; the main thread reads it without.
 *  3. enabled_count counts the bitmaps that writes mark; where it is 0, a
 *     request takes no lock. Size, bits, enabled and state of a bitmap change
 *     under the set's lock.
 *  4. The lock is the innermost one, and only one set's is held at a time.
 */
#include <errno.h>
#include <string.h>
#include "block/block-int.h"
#include "block/dirty-bitmap.h"
#include "util/sparse-bits.h"

#define DEFAULT_MIN_GRANULARITY 4096
#define DEFAULT_MAX_GRANULARITY 65536

struct DirtyBitmapSet {
    GMutex lock; /* see the invariants above */
    BdrvDirtyBitmap *first;
    unsigned enabled_count; /* atomic */
};

struct BdrvDirtyBitmap {
    BlockDriverState *bs;
    DirtyBitmapSet *set;
    char *name;
    unsigned shift; /* log2 of the granularity */
    int64_t size;   /* of the node, in bytes */
    SparseBits *bits;
    bool enabled;   /* atomic */
    bool persistent;
    unsigned state; /* atomic; BdrvBitmapState */
    BdrvDirtyBitmap *next;
};

static uint64_t bits_for(int64_t size, unsigned shift)
{
    return ((uint64_t)size + (UINT64_C(1) << shift) - 1) >> shift;
}

/* ---- Sets ---------------------------------------------------------------------- */

static DirtyBitmapSet *get_set(const BlockDriverState *bs)
{
    return __atomic_load_n(&bs->dirty_bitmaps, __ATOMIC_ACQUIRE);
}

static DirtyBitmapSet *make_set(BlockDriverState *bs)
{
    DirtyBitmapSet *set = get_set(bs);

    if (set) {
        return set;
    }
    bdrv_drained_begin(bs);
    set = get_set(bs); /* what ran while we waited may have made it */
    if (!set) {
        set = g_new0(DirtyBitmapSet, 1);
        g_mutex_init(&set->lock);
        __atomic_store_n(&bs->dirty_bitmaps, set, __ATOMIC_RELEASE);
        bdrv_see_requests(bs);
    }
    bdrv_drained_end(bs);
    return set;
}

static void bitmap_free(BdrvDirtyBitmap *bitmap)
{
    sparse_bits_free(bitmap->bits);
    g_free(bitmap->name);
    g_free(bitmap);
}

void dirty_bitmap_set_free(DirtyBitmapSet *set)
{
    BdrvDirtyBitmap *next;

    if (!set) {
        return;
    }
    for (BdrvDirtyBitmap *bitmap = set->first; bitmap; bitmap = next) {
        next = bitmap->next;
        bitmap_free(bitmap);
    }
    g_mutex_clear(&set->lock);
    g_free(set);
}

/* With the lock held: whether writes mark it. */
static void set_enabled(BdrvDirtyBitmap *bitmap, bool enabled)
{
    if (bitmap->enabled != enabled) {
        __atomic_store_n(&bitmap->enabled, enabled, __ATOMIC_RELAXED);
        __atomic_fetch_add(&bitmap->set->enabled_count, enabled ? 1U : -1U, __ATOMIC_SEQ_CST);
    }
}

/* ---- Life ---------------------------------------------------------------------- */

int64_t bdrv_dirty_bitmap_default_granularity(const BlockDriverState *bs)
{
    if (bs->map_unit <= 1) {
        return DEFAULT_MAX_GRANULARITY;
    }
    return CLAMP(bs->map_unit, DEFAULT_MIN_GRANULARITY, DEFAULT_MAX_GRANULARITY);
}

bool bdrv_dirty_bitmap_valid(const char *name, int64_t granularity, GError **errp)
{
    if (name && !name[0]) {
        block_error_set(errp, EINVAL, "Bitmap name cannot be empty");
        return false;
    }
    if (granularity < BDRV_BITMAP_MIN_GRANULARITY || granularity > BDRV_BITMAP_MAX_GRANULARITY ||
        (granularity & (granularity - 1))) {
        block_error_set(errp, EINVAL, "Granularity must be power of 2 and at least 512");
        return false;
    }
    return true;
}

static bool may_create(BlockDriverState *bs, const char *name, int64_t granularity, GError **errp)
{
    if (!bdrv_dirty_bitmap_valid(name, granularity, errp)) {
        return false;
    }
    if (name && strlen(name) > BDRV_BITMAP_MAX_NAME) {
        block_error_set(errp, EINVAL, "Bitmap name too long: %s", name);
        return false;
    }
    if (name && bdrv_dirty_bitmap_find(bs, name)) {
        block_error_set(errp, EEXIST, "Bitmap already exists: %s", name);
        return false;
    }
    return true;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_create(BlockDriverState *bs, const char *name,
                                          int64_t granularity, GError **errp)
{
    BdrvDirtyBitmap *bitmap, **end;
    DirtyBitmapSet *set;

    GLOBAL_STATE_CODE();
    if (!may_create(bs, name, granularity, errp)) {
        return NULL;
    }
    set = make_set(bs);
    if (!may_create(bs, name, granularity, errp)) { /* that has waited: the name may be taken */
        return NULL;
    }
    bitmap = g_new0(BdrvDirtyBitmap, 1);
    bitmap->bs = bs;
    bitmap->set = set;
    bitmap->name = g_strdup(name);
    bitmap->shift = g_bit_nth_msf(granularity, -1);

    g_mutex_lock(&bitmap->set->lock);
    bitmap->size = bdrv_getlength(bs); /* a change of it is told under the lock, or was seen */
    bitmap->bits = sparse_bits_new(bits_for(bitmap->size, bitmap->shift));
    for (end = &bitmap->set->first; *end; end = &(*end)->next) {
    }
    *end = bitmap;
    set_enabled(bitmap, true);
    g_mutex_unlock(&bitmap->set->lock);
    return bitmap;
}

void bdrv_dirty_bitmap_remove(BdrvDirtyBitmap *bitmap)
{
    DirtyBitmapSet *set = bitmap->set;
    BdrvDirtyBitmap **at;

    GLOBAL_STATE_CODE();
    g_mutex_lock(&set->lock);
    set_enabled(bitmap, false);
    for (at = &set->first; *at != bitmap; at = &(*at)->next) {
    }
    *at = bitmap->next;
    g_mutex_unlock(&set->lock);
    bitmap_free(bitmap);
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_find(BlockDriverState *bs, const char *name)
{
    BdrvDirtyBitmap *bitmap = NULL;

    GLOBAL_STATE_CODE();
    while ((bitmap = bdrv_dirty_bitmap_next(bs, bitmap))) {
        if (g_strcmp0(bitmap->name, name) == 0 && name) {
            break;
        }
    }
    return bitmap;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *bitmap)
{
    const DirtyBitmapSet *set = get_set(bs);

    GLOBAL_STATE_CODE();
    return bitmap ? bitmap->next : set ? set->first : NULL;
}

/* ---- What it is ------------------------------------------------------------------ */

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->name;
}

int64_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap)
{
    return INT64_C(1) << bitmap->shift;
}

BlockDriverState *bdrv_dirty_bitmap_node(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->bs;
}

int64_t bdrv_dirty_bitmap_size(BdrvDirtyBitmap *bitmap)
{
    int64_t size;

    g_mutex_lock(&bitmap->set->lock);
    size = bitmap->size;
    g_mutex_unlock(&bitmap->set->lock);
    return size;
}

void bdrv_dirty_bitmap_enable(BdrvDirtyBitmap *bitmap)
{
    GLOBAL_STATE_CODE();
    g_assert(!(bitmap->state & BDRV_BITMAP_INCONSISTENT));
    g_mutex_lock(&bitmap->set->lock);
    set_enabled(bitmap, true);
    g_mutex_unlock(&bitmap->set->lock);
}

void bdrv_dirty_bitmap_disable(BdrvDirtyBitmap *bitmap)
{
    GLOBAL_STATE_CODE();
    g_mutex_lock(&bitmap->set->lock);
    set_enabled(bitmap, false);
    g_mutex_unlock(&bitmap->set->lock);
}

bool bdrv_dirty_bitmap_enabled(const BdrvDirtyBitmap *bitmap)
{
    return __atomic_load_n(&bitmap->enabled, __ATOMIC_RELAXED);
}

void bdrv_dirty_bitmap_set_persistent(BdrvDirtyBitmap *bitmap, bool persistent)
{
    GLOBAL_STATE_CODE();
    bitmap->persistent = persistent;
}

bool bdrv_dirty_bitmap_persistent(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->persistent;
}

void bdrv_dirty_bitmap_set_state(BdrvDirtyBitmap *bitmap, BdrvBitmapState state, bool set)
{
    GLOBAL_STATE_CODE();
    g_mutex_lock(&bitmap->set->lock);
    if (set) {
        __atomic_fetch_or(&bitmap->state, state, __ATOMIC_RELAXED);
    } else {
        __atomic_fetch_and(&bitmap->state, ~state, __ATOMIC_RELAXED);
    }
    if (bitmap->state & BDRV_BITMAP_INCONSISTENT) {
        set_enabled(bitmap, false);
        sparse_bits_clear(bitmap->bits, 0, sparse_bits_size(bitmap->bits));
    }
    g_mutex_unlock(&bitmap->set->lock);
}

unsigned bdrv_dirty_bitmap_state(const BdrvDirtyBitmap *bitmap)
{
    return __atomic_load_n(&bitmap->state, __ATOMIC_RELAXED);
}

bool bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, unsigned refused, GError **errp)
{
    unsigned found = bdrv_dirty_bitmap_state(bitmap) & refused;
    const char *name = bitmap->name ? bitmap->name : "";

    if (found & BDRV_BITMAP_BUSY) {
        block_error_set(errp, EBUSY, "Bitmap '%s' is currently in use by another operation and "
                        "cannot be used", name);
    } else if (found & BDRV_BITMAP_READONLY) {
        block_error_set(errp, EPERM, "Bitmap '%s' is readonly and cannot be modified", name);
    } else if (found & BDRV_BITMAP_INCONSISTENT) {
        block_error_set(errp, EINVAL, "Bitmap '%s' is inconsistent and cannot be used\n"
                        "Try block-dirty-bitmap-remove to delete this bitmap from disk", name);
    }
    return found == 0;
}

/* ---- Bits, with the lock held ------------------------------------------------------ */

/*
 * Cut [*@offset, *@offset + *@bytes) to what the bitmap covers. False if nothing
 * is left.
 */
static bool clip(const BdrvDirtyBitmap *bitmap, int64_t *offset, int64_t *bytes)
{
    int64_t end;

    if (*bytes <= 0 || __builtin_add_overflow(*offset, *bytes, &end) || end > bitmap->size) {
        end = *bytes <= 0 ? *offset : bitmap->size;
    }
    *offset = MAX(*offset, 0);
    *bytes = end - *offset;
    return *bytes > 0;
}

static void mark(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    uint64_t first;

    if (clip(bitmap, &offset, &bytes)) {
        first = offset >> bitmap->shift;
        sparse_bits_set(bitmap->bits, first, ((offset + bytes - 1) >> bitmap->shift) - first + 1);
    }
}

static void unmark(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    uint64_t first, end;

    if (clip(bitmap, &offset, &bytes)) {
        first = bits_for(offset, bitmap->shift);
        end = offset + bytes == bitmap->size ? sparse_bits_size(bitmap->bits)
                                             : (uint64_t)(offset + bytes) >> bitmap->shift;
        if (first < end) {
            sparse_bits_clear(bitmap->bits, first, end - first);
        }
    }
}

/* The first byte of the range whose bit is @value, or -1. */
static int64_t next_byte(const BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes, bool value)
{
    uint64_t first, found;

    if (!clip(bitmap, &offset, &bytes)) {
        return -1;
    }
    first = offset >> bitmap->shift;
    found = value ? sparse_bits_next_set(bitmap->bits, first)
                  : sparse_bits_next_clear(bitmap->bits, first);
    if (found > (uint64_t)(offset + bytes - 1) >> bitmap->shift) {
        return -1;
    }
    return found == first ? offset : (int64_t)(found << bitmap->shift);
}

static bool next_area(const BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                      int64_t max_bytes, int64_t *area_offset, int64_t *area_bytes)
{
    int64_t start, end;

    if (!clip(bitmap, &offset, &bytes)) {
        return false;
    }
    start = next_byte(bitmap, offset, bytes, true);
    if (start < 0) {
        return false;
    }
    end = MIN(offset + bytes, start + MIN(max_bytes, bitmap->size - start));
    bytes = end - start;
    end = next_byte(bitmap, start, bytes, false);
    *area_offset = start;
    *area_bytes = end < 0 ? bytes : end - start;
    return true;
}

/* ---- Bits -------------------------------------------------------------------------- */

void bdrv_dirty_bitmap_set(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    g_mutex_lock(&bitmap->set->lock);
    mark(bitmap, offset, bytes);
    g_mutex_unlock(&bitmap->set->lock);
}

void bdrv_dirty_bitmap_reset(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    g_mutex_lock(&bitmap->set->lock);
    unmark(bitmap, offset, bytes);
    g_mutex_unlock(&bitmap->set->lock);
}

void bdrv_dirty_bitmap_clear(BdrvDirtyBitmap *bitmap)
{
    bdrv_dirty_bitmap_reset(bitmap, 0, INT64_MAX);
}

bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset)
{
    return bdrv_dirty_bitmap_next_dirty(bitmap, offset, 1) == offset;
}

int64_t bdrv_dirty_bitmap_count(BdrvDirtyBitmap *bitmap)
{
    int64_t count;

    g_mutex_lock(&bitmap->set->lock);
    count = sparse_bits_count(bitmap->bits) << bitmap->shift;
    g_mutex_unlock(&bitmap->set->lock);
    return count;
}

int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    int64_t found;

    g_mutex_lock(&bitmap->set->lock);
    found = next_byte(bitmap, offset, bytes, true);
    g_mutex_unlock(&bitmap->set->lock);
    return found;
}

int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    int64_t found;

    g_mutex_lock(&bitmap->set->lock);
    found = next_byte(bitmap, offset, bytes, false);
    g_mutex_unlock(&bitmap->set->lock);
    return found;
}

bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes,
                                       int64_t max_bytes, int64_t *area_offset,
                                       int64_t *area_bytes)
{
    bool found;

    g_assert(max_bytes > 0);
    g_mutex_lock(&bitmap->set->lock);
    found = next_area(bitmap, offset, bytes, max_bytes, area_offset, area_bytes);
    g_mutex_unlock(&bitmap->set->lock);
    return found;
}

bool bdrv_dirty_bitmap_merge(BdrvDirtyBitmap *dest, BdrvDirtyBitmap *source, GError **errp)
{
    int64_t offset = 0, bytes = 0;

    GLOBAL_STATE_CODE();
    if (!bdrv_dirty_bitmap_check(dest, BDRV_BITMAP_DEFAULT, errp) ||
        !bdrv_dirty_bitmap_check(source, BDRV_BITMAP_ALLOW_READONLY, errp)) {
        return false;
    }
    if (bdrv_dirty_bitmap_size(dest) != bdrv_dirty_bitmap_size(source)) {
        block_error_set(errp, EINVAL, "Bitmaps are of different sizes (destination size is "
                        "%" G_GINT64_FORMAT " and source size is %" G_GINT64_FORMAT
                        ") and can't be merged", bdrv_dirty_bitmap_size(dest),
                        bdrv_dirty_bitmap_size(source));
        return false;
    }
    while (bdrv_dirty_bitmap_next_dirty_area(source, offset + bytes, INT64_MAX, INT64_MAX,
                                             &offset, &bytes)) {
        bdrv_dirty_bitmap_set(dest, offset, bytes);
    }
    return true;
}

/* ---- Storing ------------------------------------------------------------------------ */

uint64_t bdrv_dirty_bitmap_bits(BdrvDirtyBitmap *bitmap)
{
    return bits_for(bdrv_dirty_bitmap_size(bitmap), bitmap->shift);
}

/* With the lock held: how many of @count bits from *@first on there are. */
static uint64_t clip_bits(const BdrvDirtyBitmap *bitmap, uint64_t *first, uint64_t count)
{
    *first = MIN(*first, sparse_bits_size(bitmap->bits));
    return MIN(count, sparse_bits_size(bitmap->bits) - *first);
}

void bdrv_dirty_bitmap_export(BdrvDirtyBitmap *bitmap, uint64_t first, uint64_t count,
                              uint8_t *buf)
{
    memset(buf, 0, count / 8 + (count % 8 != 0));
    g_mutex_lock(&bitmap->set->lock);
    count = clip_bits(bitmap, &first, count);
    sparse_bits_export(bitmap->bits, first, count, buf);
    g_mutex_unlock(&bitmap->set->lock);
}

void bdrv_dirty_bitmap_import(BdrvDirtyBitmap *bitmap, uint64_t first, uint64_t count,
                              const uint8_t *buf)
{
    g_mutex_lock(&bitmap->set->lock);
    count = clip_bits(bitmap, &first, count);
    sparse_bits_import(bitmap->bits, first, count, buf);
    g_mutex_unlock(&bitmap->set->lock);
}

/* ---- What the core does --------------------------------------------------------------- */

void bdrv_dirty_bitmaps_mark(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    DirtyBitmapSet *set = get_set(bs);

    if (!set || __atomic_load_n(&set->enabled_count, __ATOMIC_SEQ_CST) == 0) {
        return;
    }
    g_mutex_lock(&set->lock);
    for (BdrvDirtyBitmap *bitmap = set->first; bitmap; bitmap = bitmap->next) {
        if (bitmap->enabled) {
            mark(bitmap, offset, bytes);
        }
    }
    g_mutex_unlock(&set->lock);
}

void bdrv_dirty_bitmaps_resize(BlockDriverState *bs)
{
    DirtyBitmapSet *set = get_set(bs);

    if (!set) {
        return;
    }
    g_mutex_lock(&set->lock);
    for (BdrvDirtyBitmap *bitmap = set->first; bitmap; bitmap = bitmap->next) {
        int64_t size = bdrv_getlength(bs);

        if (bitmap->size != size) {
            bitmap->size = size;
            sparse_bits_resize(bitmap->bits, bits_for(size, bitmap->shift));
        }
    }
    g_mutex_unlock(&set->lock);
}
