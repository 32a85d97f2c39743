/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A run from its beginning to its end.
 */
#include <glib/gstdio.h>
#include <inttypes.h>

#include "run.h"

#define BATCH 10 /* requests, about */

/* ---- Layers ------------------------------------------------------------------------------- */

static void print_layer(ModelRun *run)
{
    g_autofree char *shape = model_shape_text(&run->image.shape);

    if (run->plan->verbose) {
        g_printerr("layer %u: %s\n  opened by %s\n", run->image.layers, shape, run->image.options);
    }
}

/* Another disk for another layer: longer or shorter than what is below. */
static void next_disk(ModelRun *run)
{
    model_disk_resize(&run->disk, run->image.shape.size);
    for (unsigned i = 0; i < MODEL_BITMAPS; i++) {
        run->bitmaps[i].there = false;
    }
    model_snapshots_reset(run);
    g_clear_pointer(&run->disk.backing, g_free);
    if (run->image.shape.version == 2 && run->image.shape.backing) {
        run->disk.backing = g_memdup2(run->image.below_bytes, MODEL_MAX_SIZE);
    }
}

static bool run_layer(ModelRun *run, unsigned operations)
{
    uint64_t end = run->operations + operations;

    if (!model_image_add_layer(&run->image, &run->disk, &run->random, run->why)) {
        return false;
    }
    next_disk(run);
    if (!model_image_open(&run->image, &run->random, run->why)) {
        return false;
    }
    print_layer(run);
    while (run->operations < end) {
        if (!model_run_batch(run, 1 + model_random(&run->random, 2 * BATCH)) ||
            !model_run_alone(run)) {
            return false;
        }
    }
    return model_run_batch(run, BATCH) && model_image_close(&run->image, &run->disk, run->why);
}

static void add_raw_base(ModelRun *run)
{
    uint64_t number;

    model_disk_resize(&run->disk, 512 * (1 + model_random(&run->random, 400)));
    model_disk_begin(&run->disk, MODEL_FLUSH, 0, 0, &number);
    model_fill(number, 0, run->disk.size, run->disk.bytes);
    g_array_set_size(run->disk.requests, 0);
    model_image_add_raw(&run->image, &run->disk);
}

static bool run_layers(ModelRun *run)
{
    /* Few as a rule. */
    unsigned layers = 1 + model_random(&run->random,
                                       1 + model_random(&run->random, MODEL_MAX_LAYERS));

    if (layers > 1 && model_random(&run->random, 2)) {
        add_raw_base(run);
    }
    while (run->image.layers + 1 < layers) {
        if (!run_layer(run, BATCH)) {
            return false;
        }
    }
    return run_layer(run, run->plan->operations);
}

/* ---- The world ---------------------------------------------------------------------------- */

static void start_world(ModelRun *run)
{
    if (!run->plan->threads) {
        run->world = sim_world_new(run->plan->seed);
        run->contexts[0] = sim_world_add_context(run->world, "main");
    }
    g_assert(blockgraph_init(NULL));
    if (run->plan->threads) {
        run->contexts[0] = aio_context_main();
    }
    for (unsigned i = 1; i < MODEL_CONTEXTS; i++) {
        if (run->world) {
            run->contexts[i] = sim_world_add_context(run->world, "guest");
        } else {
            run->threads[i] = aio_thread_new("guest", AIO_ENGINE_DEFAULT, NULL);
            g_assert(run->threads[i]);
            run->contexts[i] = aio_thread_get_context(run->threads[i]);
        }
    }
}

static void stop_world(ModelRun *run)
{
    for (unsigned i = 1; i < MODEL_CONTEXTS && !run->world; i++) {
        aio_thread_stop(run->threads[i]);
    }
    blockgraph_cleanup();
    if (run->world) {
        sim_world_free(run->world);
    }
}

static void remove_files(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        g_remove(file);
    }
    g_clear_pointer(&dir, g_dir_close);
}

static void print_violation(const ModelRun *run)
{
    g_autofree char *shape = model_shape_text(&run->image.shape);

    g_printerr("VIOLATION, replay with --%s --seed %" PRIu64 " --operations %u\n"
               "layer %u: %s\nopened by %s\nafter %" PRIu64 " operations: %s\n",
               run->plan->threads ? "threads" : "schedules", run->plan->seed,
               run->plan->operations, run->image.layers, shape,
               run->image.options ? run->image.options : "nobody", run->operations,
               run->why->str);
}

bool model_run(const ModelPlan *plan, uint64_t *operations)
{
    g_autofree ModelRun *run = g_new0(ModelRun, 1);
    bool ok;

    run->plan = plan;
    run->random = plan->seed;
    run->why = g_string_new(NULL);
    run->image.dir = plan->dir;
    run->image.qemu_img = plan->qemu_img;
    g_mutex_init(&run->lock);
    model_disk_init(&run->disk, 0);
    start_world(run);
    ok = run_layers(run);
    if (!ok) {
        print_violation(run);
    }
    model_image_clear(&run->image);
    stop_world(run);
    model_disk_clear(&run->disk);
    g_clear_pointer(&run->snapshots, g_array_unref);
    remove_files(plan->dir);
    *operations += run->operations;
    g_string_free(run->why, true);
    g_mutex_clear(&run->lock);
    return ok;
}
