/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests: several guests on several threads, in ranges that overlap.
 */
#include <string.h>

#include "run.h"

#define MAX_REQUEST (20 * 1024)

void model_run_fail(ModelRun *run, const char *what, const char *why)
{
    g_mutex_lock(&run->lock);
    if (run->why->len == 0) {
        g_string_append_printf(run->why, "%s: %s", what, why);
    }
    g_mutex_unlock(&run->lock);
    __atomic_store_n(&run->broken, 1, __ATOMIC_RELEASE);
}

/* ---- What to do --------------------------------------------------------------------------- */

static ModelKind draw_kind(const ModelShape *shape, uint64_t *random)
{
    static const ModelKind kinds[] = {
        MODEL_READ, MODEL_READ, MODEL_READ, MODEL_READ, MODEL_READ, MODEL_WRITE, MODEL_WRITE,
        MODEL_WRITE, MODEL_WRITE, MODEL_WRITE, MODEL_WRITE, MODEL_WRITE_FUA, MODEL_COMPRESSED,
        MODEL_ZERO, MODEL_ZERO, MODEL_UNMAP, MODEL_UNMAP, MODEL_DISCARD,
        MODEL_DISCARD, MODEL_DISCARD, MODEL_FLUSH,
    };
    ModelKind kind = kinds[model_random(random, G_N_ELEMENTS(kinds))];

    return kind == MODEL_COMPRESSED && shape->data_file ? MODEL_WRITE : kind;
}

/* Half of the requests go to the same few clusters; some are of whole clusters or sectors. */
static void draw_place(const ModelRun *run, ModelKind kind, uint64_t *random, int64_t *offset,
                       int64_t *bytes)
{
    int64_t size = run->disk.size, cluster = run->image.shape.cluster;
    int64_t room = model_random(random, 2) ? size : MIN(size, 4 * cluster), unit = 1;
    unsigned how = model_random(random, 6);

    *offset = model_random(random, room);
    *bytes = 1 + model_random(random, MIN(MAX(3 * cluster, 4096), MAX_REQUEST));
    if (kind == MODEL_COMPRESSED || how < 2) {
        unit = cluster;
    } else if (how < 4) {
        unit = 512;
    }
    *offset -= *offset % unit;
    *bytes = (*bytes + unit - 1) / unit * unit;
    *bytes = MIN(*bytes, size - *offset);
}

/* ---- Doing it ----------------------------------------------------------------------------- */

static int coroutine_fn send_write(ModelRun *run, const ModelRequest *r, int flags)
{
    g_autofree uint8_t *data = g_malloc(r->bytes);

    model_fill(r->number, r->offset, r->bytes, data);
    return blk_co_pwrite(run->image.blk, r->offset, r->bytes, data, flags);
}

static int coroutine_fn send_read(ModelRun *run, const ModelRequest *r, unsigned index,
                                  GString *why)
{
    g_autofree uint8_t *data = g_malloc(r->bytes);
    int ret;

    memset(data, 0x5a, r->bytes);
    ret = blk_co_pread(run->image.blk, r->offset, r->bytes, data, 0);
    if (ret >= 0) {
        model_disk_allows(&run->disk, index, r->offset, r->bytes, data, why);
    }
    return ret;
}

static int coroutine_fn send(ModelRun *run, const ModelRequest *r, unsigned index, GString *why)
{
    BlockBackend *blk = run->image.blk;

    switch (r->kind) {
    case MODEL_READ:
        return send_read(run, r, index, why);
    case MODEL_WRITE:
        return send_write(run, r, 0);
    case MODEL_WRITE_FUA:
        return send_write(run, r, BDRV_REQ_FUA);
    case MODEL_COMPRESSED:
        return send_write(run, r, BDRV_REQ_COMPRESSED);
    case MODEL_ZERO:
        return blk_co_pwrite_zeroes(blk, r->offset, r->bytes, 0);
    case MODEL_UNMAP:
        return blk_co_pwrite_zeroes(blk, r->offset, r->bytes, BDRV_REQ_MAY_UNMAP);
    case MODEL_DISCARD:
        return blk_co_pdiscard(blk, r->offset, r->bytes);
    default:
        return blk_co_flush(blk);
    }
}

static void coroutine_fn one_request(ModelGuest *guest)
{
    ModelRun *run = guest->run;
    g_autoptr(GString) why = g_string_new(NULL);
    ModelRequest r = {.kind = draw_kind(&run->image.shape, &guest->random)};
    g_autofree char *text = NULL;
    unsigned index;
    int ret;

    draw_place(run, r.kind, &guest->random, &r.offset, &r.bytes);
    index = model_disk_begin(&run->disk, r.kind, r.offset, r.bytes, &r.number);
    if (run->plan->verbose) {
        text = model_request_text(&r);
        g_printerr("  %s begins\n", text);
    }
    ret = send(run, &r, index, why);
    model_disk_end(&run->disk, index);
    if (run->plan->verbose) {
        g_printerr("  #%" G_GUINT64_FORMAT " ends\n", r.number);
    }
    if (ret < 0 || why->len) {
        g_free(text);
        text = model_request_text(&r);
        model_run_fail(run, text, ret < 0 ? g_strerror(-ret) : why->str);
    }
}

static void coroutine_fn guest_run(void *opaque)
{
    ModelGuest *guest = opaque;
    ModelRun *run = guest->run;

    for (unsigned i = 0; i < guest->requests; i++) {
        if (!__atomic_load_n(&run->broken, __ATOMIC_ACQUIRE)) {
            one_request(guest);
        }
    }
    __atomic_sub_fetch(&run->running, 1, __ATOMIC_ACQ_REL);
    aio_wait_kick();
}

static void guest_start(void *opaque)
{
    coroutine_enter(coroutine_create(guest_run, opaque));
}

static bool guests_are_done(void *opaque)
{
    return __atomic_load_n(&((ModelRun *)opaque)->running, __ATOMIC_ACQUIRE) == 0;
}

bool model_run_batch(ModelRun *run, unsigned requests)
{
    unsigned guests = 1 + model_random(&run->random, MIN(requests, MODEL_GUESTS));
    g_autofree uint8_t *before = NULL;

    run->running = guests;
    for (unsigned i = 0; i < guests; i++) {
        run->guests[i] = (ModelGuest){run, model_random(&run->random, UINT64_MAX),
                                      requests / guests};
        run->operations += requests / guests;
    }
    for (unsigned i = 0; i < guests; i++) {
        aio_bh_oneshot(run->contexts[i % MODEL_CONTEXTS], guest_start, &run->guests[i]);
    }
    if (!run->world) {
        AIO_WAIT_WHILE(!guests_are_done(run));
    } else if (!sim_world_run_until(run->world, guests_are_done, run)) {
        g_error("seed %" G_GUINT64_FORMAT " hangs", run->plan->seed);
    }
    if (run->broken) {
        return false;
    }
    before = g_memdup2(run->disk.bytes, run->disk.size);
    model_bitmaps_note(run);
    if (!model_image_settle(&run->image, &run->disk, run->why)) {
        return false;
    }
    model_bitmaps_note_changes(run, before);
    return model_bitmaps_check(run);
}
