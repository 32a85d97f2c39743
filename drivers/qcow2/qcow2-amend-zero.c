/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: images of version 2 have no zero clusters: what those of version 3 have is
 * said in another way before the version changes. Not with extended L2 entries, nor
 * with an external data file: version 2 has neither.
 */
#include <errno.h>
#include "drivers/qcow2/qcow2-amend.h"

static bool is_zero(uint64_t entry)
{
    return !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_ZERO);
}

/* A run of zero clusters from @start on, in bytes; 0: not even one. All in the slice at @start. */
static int coroutine_fn GRAPH_RDLOCK find_run(Qcow2State *s, uint64_t start, uint64_t *run,
                                              uint64_t *slice_end)
{
    const Qcow2Geometry *geo = &s->geo;
    uint64_t index = start >> (geo->cluster_bits + geo->l2_bits), table;
    Qcow2Entries entries;
    Qcow2Slice *slice;
    size_t i;
    int ret;

    *run = 0;
    *slice_end = (index + 1) << (geo->cluster_bits + geo->l2_bits);
    if (index >= s->l1->count) {
        return 0;
    }
    if (!qcow2_l1_entry_valid(geo, s->l1->entries[index], &table)) {
        return -EIO;
    }
    if (table == 0) {
        return 0;
    }
    ret = qcow2_entries_get(s, table, start, &slice, &entries);
    if (ret < 0) {
        return ret;
    }
    i = (start - entries.guest_first) >> geo->cluster_bits;
    *slice_end = entries.guest_first + ((uint64_t)entries.count << geo->cluster_bits);
    while (i < entries.count && is_zero(entries.words[i])) {
        *run += qcow2_cluster_size(geo);
        i++;
    }
    if (*run == 0) { /* go on at the next one */
        while (i < entries.count && !is_zero(entries.words[i])) {
            i++;
        }
        *slice_end = entries.guest_first + ((uint64_t)i << geo->cluster_bits);
    }
    qcow2_slice_unref(slice);
    return 0;
}

/* Let @word say nothing, and give up the place that it has kept, if that is a cluster. */
static int coroutine_fn GRAPH_RDLOCK clear_word(Qcow2Writer *w, uint64_t *word)
{
    BdrvPlace old = qcow2_entry_place(&w->s->geo, *word, QCOW2_DISCARD_OTHER);

    if (qcow2_offset_into_cluster(&w->s->geo, old.offset)) {
        return qcow2_signal_corruption(w, "Cannot free unaligned cluster %#" G_GINT64_MODIFIER
                                       "x", (uint64_t)old.offset);
    }
    if (old.bytes != 0) {
        bdrv_retire(w->bs, &old);
    }
    qcow2_store_word(word, 0);
    return 0;
}

/* Nothing where there were zeros: without a backing file that is the same. */
static int coroutine_fn GRAPH_RDLOCK clear_run(Qcow2Writer *w, uint64_t start, uint64_t run)
{
    Qcow2L2Ref ref;
    int ret;

    co_mutex_lock(&w->lock);
    ret = qcow2_l2_for_write(w, start, &ref);
    if (ret == 0) {
        for (uint64_t i = 0; ret == 0 && i < run >> w->s->geo.cluster_bits; i++) {
            ret = clear_word(w, &ref.words[i]);
        }
        qcow2_l2_done(w, &ref, true);
    }
    co_mutex_unlock(&w->lock);
    return ret;
}

int coroutine_fn qcow2_expand_zeroes(BlockDriverState *bs, const Qcow2Progress *progress)
{
    Qcow2State *s = bdrv_state(bs);
    uint64_t length = bdrv_getlength(bs), at = 0;
    bool backing = s->header.backing_file_size > 0;
    int ret = qcow2_drop_beyond(s, length);

    bdrv_graph_assert_readable();
    while (at < length && ret >= 0) {
        uint64_t run, next;

        qcow2_progress(progress, at, length);
        ret = find_run(s, at, &run, &next);
        if (ret >= 0 && run > 0) {
            ret = backing ? bdrv_co_claimed_pwrite_zeroes(bs, at, MIN(run, length - at), true)
                          : clear_run(s->writer, at, run);
        }
        at = run > 0 ? at + run : next;
    }
    if (ret >= 0) {
        ret = qcow2_write_back(s->writer, true);
    }
    return ret < 0 ? ret : bdrv_co_flush(bdrv_child_bs(s->file));
}

/* ---- Snapshots ---------------------------------------------------------------------------- */

/* 1 if the table at @offset has a zero cluster. */
static int coroutine_fn GRAPH_RDLOCK table_has_zeroes(Qcow2State *s, uint64_t offset,
                                                      uint64_t *words)
{
    uint64_t bytes = qcow2_cluster_size(&s->geo);
    int ret = bdrv_co_pread(s->file, offset, bytes, words, 0);

    if (ret < 0) {
        return ret;
    }
    qcow2_words_to_host(words, bytes / 8);
    for (uint64_t i = 0; i < bytes / 8; i++) {
        if (is_zero(words[i])) {
            return 1;
        }
    }
    return 0;
}

int coroutine_fn qcow2_snapshots_have_zeroes(Qcow2State *s)
{
    g_autofree uint64_t *words = g_malloc(qcow2_cluster_size(&s->geo));
    int ret = 0;

    bdrv_graph_assert_readable();
    for (uint32_t i = 0; i < s->snapshots.count && ret == 0; i++) {
        const Qcow2Snapshot *sn = &s->snapshots.entries[i];
        g_autoptr(GError) err = NULL;
        g_autofree Qcow2L1 *l1 =
            qcow2_l1_load(s, sn->l1_table_offset, sn->l1_size, "snapshot L1 table", &err);

        ret = l1 ? 0 : block_error_to_errno(err);
        for (uint32_t j = 0; ret == 0 && j < l1->count; j++) {
            uint64_t table;

            if (!qcow2_l1_entry_valid(&s->geo, l1->entries[j], &table)) {
                ret = -EIO;
            } else if (table != 0) {
                ret = table_has_zeroes(s, table, words);
            }
        }
    }
    return ret;
}
