/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The flat disk, and which bytes it may show.
 */
#include <inttypes.h>
#include <string.h>

#include "disk.h"

#define SECTOR 512
#define IN_FLIGHT UINT64_MAX

void model_disk_init(ModelDisk *disk, int64_t size)
{
    *disk = (ModelDisk){.size = size, .bytes = g_malloc0(size),
                        .requests = g_array_new(false, false, sizeof(ModelRequest))};
    g_mutex_init(&disk->lock);
}

void model_disk_clear(ModelDisk *disk)
{
    g_mutex_clear(&disk->lock);
    g_array_unref(disk->requests);
    g_free(disk->bytes);
    g_free(disk->backing);
}

void model_disk_resize(ModelDisk *disk, int64_t size)
{
    g_assert(disk->requests->len == 0);
    disk->bytes = g_realloc(disk->bytes, size);
    if (size > disk->size) {
        memset(disk->bytes + disk->size, 0, size - disk->size);
    }
    disk->size = size;
}

/* ---- Random numbers and data -------------------------------------------------------------- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t model_random(uint64_t *state, uint64_t below)
{
    *state += 0x9e3779b97f4a7c15;
    return ((unsigned __int128)mix(*state) * below) >> 64;
}

/* One word of eight bytes. Half of the writes can be compressed. */
static uint64_t word_at(uint64_t number, int64_t word)
{
    uint64_t place = number % 2 ? word : word / (SECTOR / 8);

    return mix((number << 32 | place) + 0x9e3779b97f4a7c15);
}

void model_fill(uint64_t number, int64_t offset, int64_t bytes, uint8_t *data)
{
    int64_t i = 0;

    while (i < bytes) {
        uint64_t word = word_at(number, (offset + i) / 8);
        int64_t skip = (offset + i) % 8, n = MIN(8 - skip, bytes - i);

        memcpy(data + i, (uint8_t *)&word + skip, n);
        i += n;
    }
}

/* ---- Requests ----------------------------------------------------------------------------- */

static ModelRequest *request_at(const ModelDisk *disk, unsigned i)
{
    return &g_array_index(disk->requests, ModelRequest, i);
}

unsigned model_disk_begin(ModelDisk *disk, ModelKind kind, int64_t offset, int64_t bytes,
                          uint64_t *number)
{
    ModelRequest request = {.kind = kind, .offset = offset, .bytes = bytes, .end = IN_FLIGHT};
    unsigned index;

    g_mutex_lock(&disk->lock);
    request.begin = disk->clock++;
    request.number = ++disk->numbers;
    *number = request.number;
    index = disk->requests->len;
    g_array_append_val(disk->requests, request);
    g_mutex_unlock(&disk->lock);
    return index;
}

void model_disk_end(ModelDisk *disk, unsigned index)
{
    g_mutex_lock(&disk->lock);
    request_at(disk, index)->end = disk->clock++;
    g_mutex_unlock(&disk->lock);
}

char *model_request_text(const ModelRequest *request)
{
    static const char *const names[] = {"read", "write", "write-fua", "compressed",
                                        "zero", "unmap", "discard", "flush"};

    return g_strdup_printf("%s %" PRId64 "+%" PRId64 " #%" PRIu64, names[request->kind],
                           request->offset, request->bytes, request->number);
}

/* ---- What is allowed ---------------------------------------------------------------------- */

/* What a place may show: a source for each request in question. */
typedef struct Source {
    const ModelRequest *request; /* NULL: what was there when the disk was settled */
    bool backing;                /* a discard that brings back what is below */
} Source;

#define MAX_SOURCES 256

/* A part of the disk that each request touches as a whole or not at all. */
typedef struct Piece {
    int64_t start, end;
    unsigned count;
    Source sources[MAX_SOURCES];
} Piece;

static bool changes(const ModelRequest *request)
{
    return request->kind != MODEL_READ && request->kind != MODEL_FLUSH;
}

static bool covers(const ModelRequest *request, int64_t offset)
{
    return changes(request) && offset >= request->offset &&
           offset < request->offset + request->bytes;
}

static void add_source(Piece *piece, const ModelRequest *request, bool backing)
{
    g_assert(piece->count < MAX_SOURCES);
    piece->sources[piece->count++] = (Source){request, backing};
}

static void cut_piece(const ModelDisk *disk, Piece *piece)
{
    for (unsigned i = 0; i < disk->requests->len; i++) {
        const ModelRequest *r = request_at(disk, i);
        int64_t edges[] = {r->offset, r->offset + r->bytes};

        for (unsigned e = 0; e < 2 && changes(r); e++) {
            if (edges[e] > piece->start && edges[e] < piece->end) {
                piece->end = edges[e];
            }
        }
    }
}

/* Who may have written the piece, for one who began to look at @begin. */
static void find_sources(const ModelDisk *disk, Piece *piece, uint64_t begin)
{
    uint64_t gone = 0;

    piece->count = 0;
    for (unsigned i = 0; i < disk->requests->len; i++) {
        const ModelRequest *r = request_at(disk, i);

        if (covers(r, piece->start) && r->kind != MODEL_DISCARD && r->end < begin) {
            gone = MAX(gone, r->begin + 1);
        }
    }
    for (unsigned i = 0; i < disk->requests->len; i++) {
        const ModelRequest *r = request_at(disk, i);

        if (covers(r, piece->start) && r->end >= gone) {
            add_source(piece, r, false);
            if (r->kind == MODEL_DISCARD && disk->backing) {
                add_source(piece, r, true);
            }
        }
    }
    if (gone == 0) {
        add_source(piece, NULL, false);
    }
}

/* What @source says of [@offset, @offset + @bytes). */
static void source_bytes(const ModelDisk *disk, const Source *source, int64_t offset,
                         int64_t bytes, uint8_t *data)
{
    if (!source->request) {
        memcpy(data, disk->bytes + offset, bytes);
    } else if (source->backing) {
        memcpy(data, disk->backing + offset, bytes);
    } else if (source->request->kind >= MODEL_ZERO) {
        memset(data, 0, bytes);
    } else {
        model_fill(source->request->number, offset, bytes, data);
    }
}

/* Requests side by side may be cut into parts: what counts is each byte. */
static bool piece_allowed(const ModelDisk *disk, const Piece *piece, const uint8_t *data)
{
    int64_t bytes = piece->end - piece->start, unexplained = bytes;
    uint8_t expected[SECTOR], good[SECTOR] = {0};

    for (unsigned i = 0; i < piece->count; i++) {
        source_bytes(disk, &piece->sources[i], piece->start, bytes, expected);
        if (memcmp(expected, data, bytes) == 0) {
            return true;
        }
        for (int64_t b = 0; b < bytes; b++) {
            if (!good[b] && expected[b] == data[b]) {
                good[b] = 1;
                unexplained--;
            }
        }
    }
    return unexplained == 0;
}

static void explain(const ModelDisk *disk, const Piece *piece, const uint8_t *data, GString *why)
{
    int64_t bytes = piece->end - piece->start;
    uint8_t expected[SECTOR] = {0};

    g_string_append_printf(why, "offset %" PRId64 "+%" PRId64 " has ", piece->start, bytes);
    if (memcmp(expected, data, bytes) == 0) {
        g_string_append(why, "zeros");
    } else {
        uint64_t number = disk->numbers;

        for (; number > 0; number--) {
            model_fill(number, piece->start, bytes, expected);
            if (memcmp(expected, data, bytes) == 0) {
                break;
            }
        }
        if (number) {
            g_string_append_printf(why, "the data of write #%" PRIu64, number);
        } else {
            g_string_append_printf(why, "%02x %02x %02x…, which nobody wrote there", data[0],
                                   data[bytes / 2], data[bytes - 1]);
        }
    }
    g_string_append(why, "; allowed:");
    for (unsigned i = 0; i < piece->count; i++) {
        const ModelRequest *r = piece->sources[i].request;
        g_autofree char *text = r ? model_request_text(r) : g_strdup("what was there before");

        g_string_append_printf(why, "%s %s", i ? "," : "", text);
    }
}

static bool range_allowed(const ModelDisk *disk, uint64_t begin, int64_t offset, int64_t bytes,
                          const uint8_t *data, GString *why)
{
    Piece piece;

    for (int64_t at = offset; at < offset + bytes; at = piece.end) {
        piece.start = at;
        piece.end = MIN(at - at % SECTOR + SECTOR, offset + bytes);
        cut_piece(disk, &piece);
        find_sources(disk, &piece, begin);
        if (!piece_allowed(disk, &piece, data + (at - offset))) {
            explain(disk, &piece, data + (at - offset), why);
            return false;
        }
    }
    return true;
}

bool model_disk_allows(ModelDisk *disk, unsigned index, int64_t offset, int64_t bytes,
                       const uint8_t *data, GString *why)
{
    bool ok;

    g_mutex_lock(&disk->lock);
    ok = range_allowed(disk, request_at(disk, index)->begin, offset, bytes, data, why);
    g_mutex_unlock(&disk->lock);
    return ok;
}

bool model_disk_settle(ModelDisk *disk, const uint8_t *data, GString *why)
{
    if (!range_allowed(disk, disk->clock, 0, disk->size, data, why)) {
        return false;
    }
    memcpy(disk->bytes, data, disk->size);
    g_array_set_size(disk->requests, 0);
    return true;
}
