/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map --output=ascii: where the data lies, as a picture. Each character stands for as
 * many bytes as are needed for the picture to have 16 lines at most.
 *
 * Invariant: a character shows the first kind, in the order of MapKind, that any of its
 * bytes is of; however large the disk, no data is hidden.
 */
#include "tools/img/map.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tools/tool.h"

#define MAX_LINES 16
#define MIN_COLUMNS 40
#define MAX_COLUMNS 1000
#define DEFAULT_COLUMNS 80
#define GROUP 8 /* the characters of a line are a multiple of this */

typedef enum MapKind {
    MAP_DATA,
    MAP_COMPRESSED,
    MAP_BACKING,
    MAP_ZERO,
    MAP_NOTHING,
    MAP_KINDS,
} MapKind;

static const struct {
    char letter;
    const char *name;
} kinds[MAP_KINDS] = {
    [MAP_DATA] = { '#', "data" },
    [MAP_COMPRESSED] = { 'c', "compressed data" },
    [MAP_BACKING] = { 'b', "data of a backing file" },
    [MAP_ZERO] = { '0', "zeros" },
    [MAP_NOTHING] = { '.', "not allocated" },
};

/* The geometry of the picture. */
typedef struct Picture {
    int64_t start;
    int64_t length; /* bytes */
    int64_t cell;   /* bytes of one character; a power of 2 */
    int digits;     /* of an offset */
    int width;      /* characters of a line */
} Picture;

static MapKind entry_kind(const MapEntry *e)
{
    if (!e->present) {
        return MAP_NOTHING;
    }
    if (e->zero || !e->data) {
        return MAP_ZERO;
    }
    if (e->depth > 0) {
        return MAP_BACKING;
    }
    return e->compressed ? MAP_COMPRESSED : MAP_DATA;
}

static int columns(void)
{
    const char *text = g_getenv("COLUMNS");
    guint64 value;

    if (text == NULL || !g_ascii_string_to_unsigned(text, 10, 1, G_MAXINT, &value, NULL)) {
        return DEFAULT_COLUMNS;
    }
    return (int)CLAMP(value, MIN_COLUMNS, MAX_COLUMNS);
}

static void plan(Picture *p, int64_t start, int64_t end)
{
    *p = (Picture){ .start = start, .length = end - start, .cell = BDRV_SECTOR_SIZE };
    p->digits = snprintf(NULL, 0, "%" PRIx64, (uint64_t)end);
    p->width = (columns() - (int)strlen("0x ") - p->digits) / GROUP * GROUP;
    while (p->length > 0 && (p->length - 1) / p->cell / p->width >= MAX_LINES) {
        p->cell *= 2;
    }
}

static void draw_lines(const Picture *p, const uint8_t *cells, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (i % p->width == 0) {
            printf("%s0x%0*" PRIx64 " ", i > 0 ? "\n" : "", p->digits,
                   (uint64_t)(p->start + i * p->cell));
        }
        putchar(kinds[cells[i]].letter);
    }
    if (count > 0) {
        putchar('\n');
    }
}

void img_map_draw(const GArray *entries, int64_t start, int64_t end)
{
    int64_t sums[MAP_KINDS] = { 0 };
    g_autofree uint8_t *cells = NULL;
    g_autofree char *size = NULL;
    int64_t count;
    Picture p;

    plan(&p, start, end);
    count = p.length > 0 ? (p.length - 1) / p.cell + 1 : 0;
    cells = g_malloc((gsize)count + 1);
    memset(cells, MAP_NOTHING, (size_t)count + 1);
    for (guint i = 0; i < entries->len; i++) {
        const MapEntry *e = &g_array_index(entries, MapEntry, i);
        int64_t last = (e->start + e->length - 1 - start) / p.cell;
        MapKind kind = entry_kind(e);

        sums[kind] += e->length;
        for (int64_t c = (e->start - start) / p.cell; c <= last; c++) {
            cells[c] = MIN(cells[c], kind);
        }
    }
    draw_lines(&p, cells, count);
    size = tool_size_text((uint64_t)p.cell);
    printf("%" PRId64 " bytes, %s a character, which is the first of these that is there:\n",
           p.length, size);
    for (int kind = 0; kind < MAP_KINDS; kind++) {
        printf("  %c  %-24s %" PRId64 "\n", kinds[kind].letter, kinds[kind].name, sums[kind]);
    }
}
