/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 check: "copied" must be set exactly where a refcount is 1. A snapshot's
 * tables never have it set to anybody's use, so only the active ones are looked at.
 */
#include "drivers/qcow2/qcow2-check.h"

#define HEX G_GINT64_MODIFIER "x"

/* One pass over the active tables. */
typedef struct CopiedPass {
    Qcow2Check *c;
    bool repair;
    uint64_t *words;    /* of the L2 table looked at, in host order */
    uint64_t l2_offset; /* of it */
    uint64_t changed;   /* entries */
} CopiedPass;

/* Report a wrong flag; it counts as found until it is repaired. */
static void report_copied(CopiedPass *pass, bool repair, const char *what)
{
    if (repair) {
        qcow2_check_report(pass->c, "Repairing OFLAG_COPIED %s", what);
    } else {
        qcow2_check_corrupt(pass->c, "ERROR OFLAG_COPIED %s", what);
    }
}

static bool has_place(const Qcow2Geometry *geo, uint64_t entry)
{
    return (entry & QCOW2_OFFSET_MASK) != 0 ||
           (geo->external_data && (entry & QCOW2_COPIED) &&
            (geo->subclusters > 1 || !(entry & QCOW2_ZERO)));
}

static void coroutine_fn GRAPH_RDLOCK check_entry(CopiedPass *pass, uint64_t *entry)
{
    const Qcow2Geometry *geo = &pass->c->s->geo;
    g_autofree char *what = NULL;
    uint64_t refcount = 1;
    bool repair;

    if ((*entry & QCOW2_COMPRESSED) || !has_place(geo, *entry)) {
        return;
    }
    /* What lies in an external data file has no refcount, and one user. */
    if (!geo->external_data &&
        qcow2_check_refcount(pass->c, (*entry & QCOW2_OFFSET_MASK) >> geo->cluster_bits,
                             &refcount) < 0) {
        return;
    }
    if ((refcount == 1) == ((*entry & QCOW2_COPIED) != 0)) {
        return;
    }
    repair = pass->repair && qcow2_repair_may_write(pass->c, pass->l2_offset,
                                                    qcow2_cluster_size(geo), false);
    what = g_strdup_printf("data cluster: l2_entry=%" HEX " refcount=%" G_GUINT64_FORMAT, *entry,
                           refcount);
    report_copied(pass, repair, what);
    if (repair) {
        *entry ^= QCOW2_COPIED;
        pass->changed++;
    }
}

static int coroutine_fn GRAPH_RDLOCK check_table(CopiedPass *pass)
{
    Qcow2Check *c = pass->c;
    const Qcow2Geometry *geo = &c->s->geo;
    size_t words = qcow2_cluster_size(geo) / 8;
    unsigned step = geo->subclusters > 1 ? 2 : 1;
    int ret = qcow2_check_read_l2(c, pass->l2_offset, pass->words);

    pass->changed = 0;
    for (uint64_t i = 0; ret == 0 && i < 1ULL << geo->l2_bits; i++) {
        check_entry(pass, &pass->words[i * step]);
    }
    if (ret < 0 || pass->changed == 0) {
        return ret;
    }
    qcow2_words_to_host(pass->words, words); /* and back again */
    ret = qcow2_repair_write(c, pass->l2_offset, qcow2_cluster_size(geo), pass->words, "L2 table");
    if (ret == 0) {
        c->result->corruptions_fixed += pass->changed;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK check_l1_entry(CopiedPass *pass, uint64_t index,
                                                    uint64_t entry, uint64_t refcount)
{
    Qcow2Check *c = pass->c;
    uint64_t l1_offset = c->s->header.l1_table_offset;
    uint64_t fixed = GUINT64_TO_BE(entry ^ QCOW2_COPIED);
    g_autofree char *what = g_strdup_printf(
        "L2 cluster: l1_index=%" G_GUINT64_FORMAT " l1_entry=%" HEX " refcount=%" G_GUINT64_FORMAT,
        index, entry, refcount);
    bool repair = pass->repair &&
                  qcow2_repair_may_write(c, l1_offset, (uint64_t)c->s->header.l1_size * 8, true);
    int ret = 0;

    report_copied(pass, repair, what);
    if (repair) {
        bdrv_co_debug_event(c->s->file, BDRV_DEBUG_L1_UPDATE);
        ret = qcow2_repair_write(c, l1_offset + index * 8, 8, &fixed, "L1 table entry");
        c->result->corruptions_fixed += ret == 0;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK check_l2(CopiedPass *pass, uint64_t index, uint64_t entry)
{
    Qcow2Check *c = pass->c;
    uint64_t refcount = 0;
    int ret = 0;

    pass->l2_offset = entry & QCOW2_OFFSET_MASK;
    /* Without the refcount there is nothing to compare, and it was reported. */
    if (pass->l2_offset != 0 &&
        qcow2_check_refcount(c, pass->l2_offset >> c->s->geo.cluster_bits, &refcount) < 0) {
        return 0;
    }
    if ((refcount == 1) != ((entry & QCOW2_COPIED) != 0)) {
        ret = check_l1_entry(pass, index, entry, refcount);
    }
    return ret < 0 || pass->l2_offset == 0 ? ret : check_table(pass);
}

int coroutine_fn qcow2_check_copied(Qcow2Check *c, bool repair)
{
    const Qcow2Header *h = &c->s->header;
    g_autofree uint64_t *words = g_malloc(qcow2_cluster_size(&c->s->geo));
    CopiedPass pass = { .c = c, .repair = repair, .words = words };
    g_autofree uint64_t *entries = NULL;
    uint64_t count;
    int ret = qcow2_check_read_l1(c, h->l1_table_offset, h->l1_size, &entries, &count);

    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        ret = check_l2(&pass, i, entries[i]);
    }
    return ret;
}
