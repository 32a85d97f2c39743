/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: map() for changes: where a write goes, and what zeroing and discarding
 * come to. Nothing that others see changes here; commit does that.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-alloc.h"

/* What the tables say about a guest offset; one slice of an L2 table at most. */
typedef struct Look {
    Qcow2Slice *slice; /* NULL: there is no table */
    Qcow2Entries entries;
    uint64_t end; /* guest offset behind the slice, or what it would be */
    uint64_t table_end;
} Look;

static int coroutine_fn GRAPH_RDLOCK look_up(Qcow2Writer *w, uint64_t guest, Look *look)
    TSA_REQUIRES(w->lock)
{
    Qcow2State *s = w->s;
    const Qcow2Geometry *geo = &s->geo;
    unsigned table_bits = geo->cluster_bits + geo->l2_bits;
    uint64_t span = (s->options.l2_slice_bytes >> geo->l2_entry_bits) << geo->cluster_bits;
    uint64_t l1_index = guest >> table_bits, l2_offset;

    *look = (Look){ .end = (guest & ~(span - 1)) + span,
                    .table_end = (l1_index + 1) << table_bits };
    if (l1_index >= s->l1->count) {
        return -EIO;
    }
    if (!qcow2_l1_entry_valid(geo, s->l1->entries[l1_index], &l2_offset)) {
        return qcow2_signal_corruption(w, "L2 table offset %#" G_GINT64_MODIFIER
                                       "x unaligned (L1 index: %#" G_GINT64_MODIFIER "x)",
                                       l2_offset, l1_index);
    }
    if (l2_offset == 0) {
        return 0;
    }
    return qcow2_entries_get(s, l2_offset, guest, &look->slice, &look->entries);
}

static void look_clear(Look *look)
{
    if (look->slice) {
        qcow2_slice_unref(look->slice);
    }
}

/* The words of the cluster at @guest; zeros without a table. */
static const uint64_t *words_at(const Qcow2State *s, const Look *look, uint64_t guest)
{
    static const uint64_t none[2];
    uint64_t index;

    if (!look->slice) {
        return none;
    }
    index = (guest - look->entries.guest_first) >> s->geo.cluster_bits;
    return look->entries.words + (index << (s->geo.l2_entry_bits - 3));
}

/* Whether an entry says that it has a place of its own. */
static bool claims_own_place(const Qcow2Geometry *geo, uint64_t entry)
{
    return !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_COPIED) &&
           ((entry & QCOW2_OFFSET_MASK) || geo->external_data);
}

/* ---- Whether places are used once, as "copied" says ----------------------------------- */

static int coroutine_fn GRAPH_RDLOCK used_once(Qcow2Writer *w, uint64_t place, bool *once)
    TSA_REQUIRES(w->lock)
{
    uint64_t refcount;
    int ret = qcow2_refcount_get(w, place >> w->s->geo.cluster_bits, &refcount);

    *once = refcount == 1;
    return ret;
}

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Whether none of @places (to be sorted) is metadata, or comes twice. */
static int coroutine_fn GRAPH_RDLOCK check_places(Qcow2Writer *w, GArray *places, bool *good)
    TSA_REQUIRES(w->lock)
{
    Qcow2Places all = { .starts = (const uint64_t *)places->data, .count = places->len,
                        .bytes = qcow2_cluster_size(&w->s->geo) };
    int hit;

    g_array_sort(places, compare_places);
    for (size_t i = 1; i < all.count; i++) {
        *good &= all.starts[i] != all.starts[i - 1];
    }
    hit = *good ? qcow2_overlap_find(w, &all, 0) : 0;
    *good &= hit == 0;
    return MIN(hit, 0);
}

/* All of a slice, once while it is in memory. */
static int coroutine_fn GRAPH_RDLOCK check_slice(Qcow2Writer *w, const Look *look)
    TSA_REQUIRES(w->lock)
{
    const Qcow2Geometry *geo = &w->s->geo;
    g_autoptr(GArray) places = g_array_new(false, false, sizeof(uint64_t));
    bool good = true;
    int ret = 0;

    for (size_t i = 0; i < look->entries.count && good && ret == 0; i++) {
        uint64_t entry = look->entries.words[i << (geo->l2_entry_bits - 3)];

        if (claims_own_place(geo, entry)) {
            uint64_t place = entry & QCOW2_OFFSET_MASK;

            ret = used_once(w, place, &good);
            good &= !qcow2_offset_into_cluster(geo, place);
            g_array_append_val(places, place);
        }
    }
    if (ret == 0 && good) {
        ret = check_places(w, places, &good);
    }
    if (ret == 0) {
        qcow2_slice_set_checked(look->slice, good ? QCOW2_SLICE_GOOD : QCOW2_SLICE_BAD);
    }
    return ret;
}

/* Whether the place of @run is this range's alone. May cut @run to the cluster at @guest. */
static int coroutine_fn GRAPH_RDLOCK is_own(Qcow2Writer *w, const Look *look, uint64_t guest,
                                            Qcow2Run *run, bool *own) TSA_REQUIRES(w->lock)
{
    const Qcow2Geometry *geo = &w->s->geo;
    uint64_t place, start, end;
    int ret;

    *own = run->has_place && run->copied && run->kind != QCOW2_KIND_COMPRESSED;
    if (!*own || geo->external_data) {
        return 0;
    }
    if (qcow2_slice_checked(look->slice) == QCOW2_SLICE_UNKNOWN) {
        ret = check_slice(w, look);
        if (ret < 0) {
            return ret;
        }
    }
    if (qcow2_slice_checked(look->slice) == QCOW2_SLICE_GOOD) {
        return 0;
    }
    start = MAX(run->offset, guest - qcow2_offset_into_cluster(geo, guest));
    end = MIN(run->offset + run->bytes, (guest | (qcow2_cluster_size(geo) - 1)) + 1);
    run->host += start - run->offset;
    run->offset = start;
    run->bytes = end - start;
    place = run->host - qcow2_offset_into_cluster(geo, run->host);
    ret = qcow2_overlap_check(w, place, qcow2_cluster_size(geo), 0);
    return ret < 0 ? ret : used_once(w, place, own);
}

/* ---- Writing ---------------------------------------------------------------------------- */

/* Say what is to be filled: [@start, @end), but not beyond the disk's end. */
static void set_fill(const Qcow2State *s, uint64_t start, uint64_t end, BdrvMapping *m)
{
    qcow2_clip(s, m);
    m->target = BDRV_MAP_DATA;
    m->child = s->data_file;
    m->needs_commit = true;
    m->fill_offset = start;
    m->fill_bytes = MIN((int64_t)end, m->offset + m->bytes) - start;
    m->cookie[QCOW2_COOKIE_START] = start;
    m->cookie[QCOW2_COOKIE_END] = end;
}

static uint64_t round_up_to(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) & ~(unit - 1);
}

/* The place that @run has is to be filled. */
static void keep_place(const Qcow2State *s, const BdrvMapRequest *req, const Qcow2Run *run,
                       BdrvMapping *m)
{
    uint64_t unit = 1ULL << s->geo.subcluster_bits;
    uint64_t end = MIN((uint64_t)(req->offset + req->bytes), run->offset + run->bytes);

    m->offset = run->offset;
    m->bytes = run->bytes;
    m->child_offset = run->host;
    set_fill(s, req->offset & ~(unit - 1), round_up_to(end, unit), m);
    m->cookie[QCOW2_COOKIE_HOST] = run->host;
    m->cookie[QCOW2_COOKIE_ACTION] = QCOW2_ACTION_KEEP;
}

/* How much has to be filled at once in a new cluster in place of what @words say. */
static uint64_t fill_unit(const Qcow2Geometry *geo, const uint64_t *words)
{
    bool whole = (words[0] & QCOW2_COMPRESSED) || geo->subclusters == 1 || (uint32_t)words[1] != 0;

    return 1ULL << (whole ? geo->cluster_bits : geo->subcluster_bits);
}

/* How many clusters from @start on get new places together. */
static uint64_t count_fresh(const Qcow2State *s, const Look *look, uint64_t start, uint64_t end)
{
    uint64_t size = qcow2_cluster_size(&s->geo), at = start + size;
    bool one_by_one = look->slice && qcow2_slice_checked(look->slice) == QCOW2_SLICE_BAD;

    while (at < end && at < look->end && !one_by_one &&
           !claims_own_place(&s->geo, *words_at(s, look, at))) {
        at += size;
    }
    return (at - start) / size;
}

/* Up to *@n clusters, as many in a row as there are; *@zeroed: they read as zeros. */
static int coroutine_fn GRAPH_RDLOCK alloc_up_to(Qcow2Writer *w, uint64_t *n, uint64_t *place,
                                                 bool *zeroed) TSA_REQUIRES(w->lock)
{
    uint64_t virgin = w->virgin;
    int ret = qcow2_alloc_locked(w, *n, place);

    while (ret == -ENOSPC && *n > 1) {
        *n = (*n + 1) / 2;
        virgin = w->virgin; /* what failed may have written there */
        ret = qcow2_alloc_locked(w, *n, place);
    }
    *zeroed = ret >= 0 && *place >= virgin;
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK fresh_place(Qcow2Writer *w, const BdrvMapRequest *req,
                                                 const Look *look, BdrvMapping *m)
    TSA_REQUIRES(w->lock)
{
    Qcow2State *s = w->s;
    const Qcow2Geometry *geo = &s->geo;
    uint64_t size = qcow2_cluster_size(geo), place;
    uint64_t start = req->offset & ~(size - 1), end = req->offset + req->bytes;
    uint64_t n = count_fresh(s, look, start, end), first_unit, last_unit;
    bool zeroed = false;
    int ret;

    place = start;
    if (geo->external_data) {
        ret = qcow2_reach(w, s->data_file, MIN(start + n * size, s->length));
    } else {
        ret = alloc_up_to(w, &n, &place, &zeroed);
    }
    if (ret < 0) {
        return ret;
    }
    m->offset = start;
    m->bytes = n * size;
    m->child_offset = place;
    m->fresh = !geo->external_data;
    m->zeroed = zeroed;
    end = MIN(end, start + n * size);
    first_unit = fill_unit(geo, words_at(s, look, start));
    last_unit = fill_unit(geo, words_at(s, look, (end - 1) & ~(size - 1)));
    set_fill(s, req->offset & ~(first_unit - 1), round_up_to(end, last_unit), m);
    m->cookie[QCOW2_COOKIE_HOST] = place;
    m->cookie[QCOW2_COOKIE_ACTION] = QCOW2_ACTION_FRESH;
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK map_write(Qcow2Writer *w, const BdrvMapRequest *req,
                                               const Look *look, BdrvMapping *m)
    TSA_REQUIRES(w->lock)
{
    Qcow2Run run;
    bool own = false;
    int ret = 0;

    if (look->slice) {
        ret = qcow2_find_run(&w->s->geo, &look->entries, req->offset, &run);
        if (ret < 0) {
            return qcow2_signal_corruption(w, "Invalid L2 entry at guest offset %#"
                                           G_GINT64_MODIFIER "x", req->offset);
        }
        ret = is_own(w, look, req->offset, &run, &own);
    }
    if (ret < 0) {
        return ret;
    }
    if (!own) {
        return fresh_place(w, req, look, m);
    }
    if (run.kind != QCOW2_KIND_DATA) {
        keep_place(w->s, req, &run, m);
        return 0;
    }
    qcow2_fill_mapping(w->s, &run, m);
    m->writable = true;
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK map_encoded(Qcow2Writer *w, const BdrvMapRequest *req,
                                                 BdrvMapping *m) TSA_REQUIRES(w->lock)
{
    uint64_t place;
    int ret;

    if (w->s->geo.external_data) {
        return -ENOTSUP;
    }
    ret = qcow2_alloc_bytes(w, req->encoded_bytes, &place);
    if (ret < 0) {
        return ret;
    }
    m->offset = req->offset;
    m->bytes = qcow2_cluster_size(&w->s->geo);
    qcow2_clip(w->s, m);
    m->target = BDRV_MAP_ENCODED;
    m->child = w->s->data_file;
    m->child_offset = place;
    m->child_bytes = req->encoded_bytes;
    m->needs_commit = true;
    m->fresh = true;
    m->cookie[QCOW2_COOKIE_HOST] = place;
    m->cookie[QCOW2_COOKIE_START] = req->offset;
    m->cookie[QCOW2_COOKIE_END] = req->offset + qcow2_cluster_size(&w->s->geo);
    m->cookie[QCOW2_COOKIE_ACTION] = QCOW2_ACTION_ENCODED | (uint64_t)req->encoded_bytes << 8;
    return 0;
}

/* ---- Zeroing and discarding ----------------------------------------------------------------- */

/* [req->offset, @end), which a commit will do with @action. */
static void set_change(const Qcow2State *s, const BdrvMapRequest *req, uint64_t end,
                       Qcow2Action action, BdrvMapping *m)
{
    bool in_data_file = s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW;

    m->offset = req->offset;
    m->bytes = MIN(end, (uint64_t)(req->offset + req->bytes)) - req->offset;
    m->needs_commit = true;
    m->target = BDRV_MAP_ZERO;
    if (s->geo.external_data) {
        m->target = in_data_file || (action == QCOW2_ACTION_DISCARD &&
                                     s->options.pass_discard[QCOW2_DISCARD_REQUEST])
                        ? BDRV_MAP_DATA
                        : BDRV_MAP_ZERO;
        m->child = s->data_file;
        m->child_offset = req->offset;
    }
    end = req->offset + m->bytes;
    m->cookie[QCOW2_COOKIE_START] = req->offset;
    /* The disk's last cluster ends where it would if the disk went on. */
    m->cookie[QCOW2_COOKIE_END] = round_up_to(
        end, 1ULL << (end >= s->length ? s->geo.cluster_bits : s->geo.subcluster_bits));
    m->cookie[QCOW2_COOKIE_ACTION] = action | (uint64_t)req->flags << 8;
}

/*
 * Where the start of the request stays allocated, but is to be discarded below; its place. 0:
 * nowhere. Cuts *@end to what has the same answer.
 */
static int coroutine_fn GRAPH_RDLOCK find_punched(Qcow2Writer *w, const BdrvMapRequest *req,
                                                  const Look *look, uint64_t *end, uint64_t *place)
    TSA_REQUIRES(w->lock)
{
    const Qcow2State *s = w->s;
    bool unmaps = req->op == BDRV_MAP_DISCARD ||
                  (req->flags & (BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK)) == BDRV_REQ_MAY_UNMAP;
    Qcow2Run run;
    bool own;
    int ret;

    *place = 0;
    if (!look->slice || !unmaps || s->geo.external_data || !s->options.discard_no_unref ||
        !s->options.pass_discard[QCOW2_DISCARD_REQUEST] ||
        qcow2_find_run(&s->geo, &look->entries, req->offset, &run) < 0) {
        return 0;
    }
    ret = is_own(w, look, req->offset, &run, &own);
    *end = MIN(*end, run.offset + run.bytes);
    *place = own ? run.host + (req->offset - run.offset) : 0;
    return ret;
}

/* Commit, and discard or zero @place, if it is not 0. */
static void set_punched(const Qcow2State *s, uint64_t place, BdrvMapping *m)
{
    if (place) {
        m->target = BDRV_MAP_DATA;
        m->child = s->file;
        m->child_offset = place;
    }
}

/* Whether the cluster at @guest can only be zeroed as a whole, and is not to be. */
static bool is_cut_compressed(const Qcow2State *s, const Look *look, uint64_t guest, uint64_t start,
                              uint64_t end)
{
    uint64_t size = qcow2_cluster_size(&s->geo), first = guest & ~(size - 1);

    return (*words_at(s, look, first) & QCOW2_COMPRESSED) &&
           (start > first || end < MIN(first + size, s->length));
}

static int coroutine_fn GRAPH_RDLOCK map_zeroes(Qcow2Writer *w, const BdrvMapRequest *req,
                                                const Look *look, BdrvMapping *m)
    TSA_REQUIRES(w->lock)
{
    const Qcow2State *s = w->s;
    uint64_t end = MIN((uint64_t)(req->offset + req->bytes), look->end), place;
    int ret;

    if (s->geo.version < 3) {
        if (bdrv_backing_child(w->bs)) {
            return -ENOTSUP;
        }
        set_change(s, req, end, QCOW2_ACTION_DISCARD, m);
        return 0;
    }
    if (is_cut_compressed(s, look, req->offset, req->offset, end)) {
        return -ENOTSUP;
    }
    if (is_cut_compressed(s, look, end - 1, req->offset, end)) {
        end = (end - 1) & ~(qcow2_cluster_size(&s->geo) - 1);
    }
    ret = find_punched(w, req, look, &end, &place);
    if (ret == 0) {
        set_change(s, req, end, QCOW2_ACTION_ZERO, m);
        set_punched(s, place, m);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK map_discard(Qcow2Writer *w, const BdrvMapRequest *req,
                                                 const Look *look, BdrvMapping *m)
    TSA_REQUIRES(w->lock)
{
    const Qcow2State *s = w->s;
    uint64_t end = look->end, place;
    int ret;

    if (!look->slice && (s->geo.version < 3 || !bdrv_backing_child(w->bs)) &&
        !s->geo.external_data) {
        m->offset = req->offset;
        m->bytes = MIN((uint64_t)req->bytes, look->table_end - req->offset);
        m->target = BDRV_MAP_UNALLOCATED;
        return 0;
    }
    ret = find_punched(w, req, look, &end, &place);
    if (ret == 0) {
        set_change(s, req, end, QCOW2_ACTION_DISCARD, m);
        set_punched(s, place, m);
    }
    return ret;
}

int coroutine_fn qcow2_co_map_change(BlockDriverState *bs, const BdrvMapRequest *req,
                                     BdrvMapping *m)
{
    Qcow2State *s = bdrv_state(bs);
    Qcow2Writer *w = s->writer;
    Look look = { 0 };
    int ret;

    bdrv_graph_assert_readable();
    if (!w) {
        return -EPERM;
    }
    co_mutex_lock(&w->lock);
    ret = qcow2_writer_begin(w);
    if (ret >= 0) {
        ret = look_up(w, req->offset, &look);
    }
    if (ret >= 0) {
        ret = req->op == BDRV_MAP_DISCARD        ? map_discard(w, req, &look, m)
              : req->op == BDRV_MAP_WRITE_ZEROES ? map_zeroes(w, req, &look, m)
              : req->encoded_bytes               ? map_encoded(w, req, m)
                                                 : map_write(w, req, &look, m);
    }
    look_clear(&look);
    co_mutex_unlock(&w->lock);
    return MIN(ret, 0);
}
