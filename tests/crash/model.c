/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's requests, and which of them a sector may show.
 */
#include <inttypes.h>
#include <string.h>

#include "model.h"

#define BASE_NUMBER 1
#define FIRST_NUMBER 2
#define WORD_MARK UINT64_C(0xc5a5) /* in the highest bits of a word of data */

typedef struct GuestRequest {
    CrashGuestKind kind;
    bool fua;
    int64_t offset; /* RESIZE: the smaller one of the lengths before and after */
    int64_t bytes;  /* RESIZE: the difference */
    int64_t length; /* RESIZE: the length after */
    uint64_t begin;
    uint64_t end; /* CRASH_NEVER also if it has failed */
} GuestRequest;

struct CrashModel {
    CrashLog *log;
    GArray *requests; /* GuestRequest, from FIRST_NUMBER on */
    int64_t start_length;
    int64_t length;
    int64_t base_bytes;
    bool backing;
};

CrashModel *crash_model_new(CrashLog *log, int64_t length, int64_t base_bytes, bool backing)
{
    CrashModel *model = g_new0(CrashModel, 1);

    *model = (CrashModel){log, g_array_new(false, false, sizeof(GuestRequest)), length, length,
                          base_bytes, backing};
    return model;
}

void crash_model_free(CrashModel *model)
{
    if (model) {
        g_array_unref(model->requests);
        g_free(model);
    }
}

/* ---- Requests --------------------------------------------------------------------- */

static const GuestRequest *request_at(const CrashModel *model, unsigned i)
{
    return &g_array_index(model->requests, GuestRequest, i);
}

unsigned crash_model_begin(CrashModel *model, CrashGuestKind kind, int64_t offset, int64_t bytes,
                           bool fua)
{
    GuestRequest request = {.kind = kind, .fua = fua, .offset = offset, .bytes = bytes,
                            .end = CRASH_NEVER};

    if (kind == CRASH_GUEST_RESIZE) { /* what is cut off, or new, is zeros from then on */
        request.length = offset;
        request.offset = MIN(offset, model->length);
        request.bytes = MAX(offset, model->length) - request.offset;
    }
    request.begin = crash_log_tick(model->log);
    g_array_append_val(model->requests, request);
    return FIRST_NUMBER + model->requests->len - 1;
}

void crash_model_end(CrashModel *model, unsigned number, int ret)
{
    GuestRequest *request = &g_array_index(model->requests, GuestRequest, number - FIRST_NUMBER);
    uint64_t now = crash_log_tick(model->log);

    if (ret >= 0) {
        request->end = now;
        model->length = request->kind == CRASH_GUEST_RESIZE ? request->length : model->length;
    }
}

int64_t crash_model_length(const CrashModel *model)
{
    return model->length;
}

/* ---- Views ------------------------------------------------------------------------ */

CrashView crash_model_after_cut(const CrashModel *model, uint64_t cut)
{
    CrashView view = {.until = cut, .since = 0, .fua = cut};

    for (unsigned i = 0; i < model->requests->len; i++) {
        const GuestRequest *flush = request_at(model, i);

        if (flush->kind == CRASH_GUEST_FLUSH && flush->end < cut) {
            view.since = MAX(view.since, flush->begin);
        }
    }
    return view;
}

CrashView crash_model_read(const CrashModel *model, uint64_t begin)
{
    return (CrashView){.until = model->log->position, .since = begin, .fua = begin};
}

uint64_t crash_model_epoch(const CrashModel *model, uint64_t cut)
{
    uint64_t epoch = 0;

    for (unsigned i = 0; i < model->requests->len; i++) {
        const GuestRequest *request = request_at(model, i);

        epoch += (request->kind == CRASH_GUEST_FLUSH || request->fua) && request->end < cut;
    }
    return epoch;
}

/* ---- Data ------------------------------------------------------------------------- */

static uint64_t word_of(unsigned number, int64_t sector)
{
    return WORD_MARK << 48 | (uint64_t)number << 32 | sector;
}

void crash_model_fill(unsigned number, int64_t offset, int64_t bytes, uint8_t *data)
{
    for (int64_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t word = word_of(number, (offset + i) / CRASH_SECTOR);

        memcpy(data + i, &word, sizeof(word));
    }
}

static char *sector_text(const uint8_t *data)
{
    uint64_t word;
    bool uniform = memcmp(data, data + sizeof(word), CRASH_SECTOR - sizeof(word)) == 0;

    memcpy(&word, data, sizeof(word));
    if (!uniform) {
        return g_strdup_printf("a mixture that begins with %016" PRIx64, word);
    }
    if (word == 0) {
        return g_strdup("zeros");
    }
    if (word >> 48 != WORD_MARK) {
        return g_strdup_printf("%016" PRIx64 " repeated, which nobody wrote", word);
    }
    return g_strdup_printf("data of request %u for offset %" PRId64,
                           (unsigned)(word >> 32) & 0xffff,
                           (int64_t)(word & 0xffffffff) * CRASH_SECTOR);
}

/* ---- What is allowed -------------------------------------------------------------- */

static bool touches(const GuestRequest *request, int64_t offset)
{
    return request->kind != CRASH_GUEST_FLUSH && offset >= request->offset &&
           offset < request->offset + request->bytes;
}

static bool is_durable(const GuestRequest *request, CrashView view)
{
    return request->end < (request->fua ? MAX(view.fua, view.since) : view.since);
}

/*
 * The latest begin of what is there for good and decides: what ended before is
 * gone. 0: nothing does.
 */
static uint64_t gone_before(const CrashModel *model, CrashView view, int64_t offset)
{
    uint64_t latest = 0;

    for (unsigned i = 0; i < model->requests->len; i++) {
        const GuestRequest *request = request_at(model, i);

        if (request->kind != CRASH_GUEST_DISCARD && touches(request, offset) &&
            is_durable(request, view)) {
            latest = MAX(latest, request->begin + 1);
        }
    }
    return latest;
}

static uint64_t base_word(const CrashModel *model, int64_t offset)
{
    return offset < model->base_bytes ? word_of(BASE_NUMBER, offset / CRASH_SECTOR) : 0;
}

static bool request_allows(const CrashModel *model, unsigned i, int64_t offset, uint64_t word)
{
    switch (request_at(model, i)->kind) {
    case CRASH_GUEST_WRITE:
        return word == word_of(FIRST_NUMBER + i, offset / CRASH_SECTOR);
    case CRASH_GUEST_DISCARD:
        return word == 0 || (model->backing && word == base_word(model, offset));
    case CRASH_GUEST_EMPTY:
        return word == (model->backing ? base_word(model, offset) : 0);
    default:
        return word == 0;
    }
}

static bool sector_allowed(const CrashModel *model, CrashView view, int64_t offset,
                           const uint8_t *data)
{
    uint64_t gone = gone_before(model, view, offset), word;

    memcpy(&word, data, sizeof(word));
    if (memcmp(data, data + sizeof(word), CRASH_SECTOR - sizeof(word)) != 0) {
        return false;
    }
    if (gone == 0 && word == (offset < model->start_length ? base_word(model, offset) : 0)) {
        return true;
    }
    for (unsigned i = 0; i < model->requests->len; i++) {
        const GuestRequest *request = request_at(model, i);

        if (request->begin < view.until && request->end >= gone && touches(request, offset) &&
            request_allows(model, i, offset, word)) {
            return true;
        }
    }
    return false;
}

bool crash_model_allows(const CrashModel *model, CrashView view, int64_t offset, int64_t bytes,
                        const uint8_t *data, GString *why)
{
    for (int64_t i = 0; i < bytes; i += CRASH_SECTOR) {
        if (!sector_allowed(model, view, offset + i, data + i)) {
            g_autofree char *text = sector_text(data + i);

            g_string_append_printf(why, "offset %" PRId64 " has %s", offset + i, text);
            return false;
        }
    }
    return true;
}

/* Widen the range of allowed lengths. */
static void allow_length(int64_t length, int64_t *least, int64_t *most)
{
    *least = MIN(*least, length);
    *most = MAX(*most, length);
}

bool crash_model_allows_length(const CrashModel *model, CrashView view, int64_t length,
                               bool between, GString *why)
{
    int64_t least = INT64_MAX, most = -1;
    uint64_t gone = 0;
    bool ok = false;

    for (unsigned i = 0; i < model->requests->len; i++) {
        const GuestRequest *request = request_at(model, i);

        if (request->kind == CRASH_GUEST_RESIZE && is_durable(request, view)) {
            gone = MAX(gone, request->begin + 1);
        }
    }
    if (gone == 0) {
        ok = length == model->start_length;
        allow_length(model->start_length, &least, &most);
    }
    for (unsigned i = 0; i < model->requests->len; i++) {
        const GuestRequest *request = request_at(model, i);

        if (request->kind == CRASH_GUEST_RESIZE && request->begin < view.until &&
            request->end >= gone) {
            ok = ok || length == request->length;
            allow_length(request->length, &least, &most);
        }
    }
    ok = ok || (between && length >= least && length <= most);
    if (!ok) {
        g_string_append_printf(why, "the disk is %" PRId64 " bytes long", length);
    }
    return ok;
}

void crash_model_print(const CrashModel *model)
{
    static const char *const names[] = {"write", "zeroes", "discard", "resize", "flush", "empty"};

    for (unsigned i = 0; i < model->requests->len; i++) {
        const GuestRequest *request = request_at(model, i);

        g_printerr("request %u: %s %" PRId64 "+%" PRId64 "%s, from %" PRIu64 " to %" PRId64 "\n",
                   FIRST_NUMBER + i, names[request->kind], request->offset, request->bytes,
                   request->fua ? " with FUA" : "", request->begin, (int64_t)request->end);
    }
}
