/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Making the layers, opening and closing them, and having them checked.
 */
#include <inttypes.h>
#include <string.h>

#include "image.h"

#define SECTOR 512

void model_image_clear(ModelImage *image)
{
    blk_unref(image->blk);
    g_free(image->path);
    g_free(image->below);
    g_free(image->below_format);
    g_free(image->below_bytes);
    g_free(image->options);
}

char *model_image_new_path(ModelImage *image, const char *suffix)
{
    return g_strdup_printf("%s/%u.%s", image->dir, image->files++, suffix);
}

static bool failed(GString *why, const char *what, const GError *err)
{
    g_string_append_printf(why, "%s: %s", what, err ? err->message : "failed");
    return false;
}

/* ---- Shapes ------------------------------------------------------------------------------- */

static bool one_in(uint64_t *random, unsigned n)
{
    return model_random(random, n) == 0;
}

static void draw_size(ModelShape *shape, uint64_t *random)
{
    int64_t clusters = 4 + model_random(random, MIN(MODEL_MAX_SIZE / 4 / shape->cluster, 100));

    shape->size = clusters * shape->cluster;
    if (one_in(random, 2)) { /* it need not end where a cluster ends */
        shape->size -= SECTOR * model_random(random, shape->cluster / SECTOR);
    }
}

static void draw_shape(ModelShape *shape, bool backing, uint64_t *random)
{
    unsigned kind = model_random(random, 10);

    *shape = (ModelShape){.version = 3, .refcount_bits = 16, .backing = backing};
    /* Small ones more often. */
    shape->cluster_bits = 9 + model_random(random, 1 + model_random(random, 8));
    if (kind < 2) {
        shape->version = 2;
    } else {
        shape->extended = kind < 5;
        shape->refcount_bits = 1U << model_random(random, 7);
        shape->lazy = one_in(random, 4);
        shape->zstd = one_in(random, 3);
        shape->data_file = one_in(random, 5);
        shape->raw = shape->data_file && !backing && one_in(random, 2);
    }
    if (shape->extended) {
        shape->cluster_bits = 14 + model_random(random, 3);
    }
    shape->metadata = !backing && one_in(random, 8);
    shape->cluster = INT64_C(1) << shape->cluster_bits;
    draw_size(shape, random);
}

char *model_shape_text(const ModelShape *shape)
{
    return g_strdup_printf(
        "size=%" PRId64 ",cluster_size=%" PRId64 ",compat=%s%s%s%s%s%s,refcount_bits=%u",
        shape->size, shape->cluster, shape->version == 2 ? "0.10" : "1.1",
        shape->extended ? ",extended_l2=on" : "", shape->lazy ? ",lazy_refcounts=on" : "",
        shape->zstd ? ",compression_type=zstd" : "",
        shape->metadata ? ",preallocation=metadata" : "", shape->raw ? ",data_file_raw=on" : "",
        shape->refcount_bits);
}

/* ---- Layers ------------------------------------------------------------------------------- */

/* What was the top is what is below from now on. */
static void keep_below(ModelImage *image, const ModelDisk *disk, char *path, const char *format)
{
    g_free(image->below);
    g_free(image->below_format);
    image->below = path;
    image->below_format = g_strdup(format);
    image->below_bytes = image->below_bytes ? image->below_bytes : g_malloc(MODEL_MAX_SIZE);
    memset(image->below_bytes, 0, MODEL_MAX_SIZE);
    memcpy(image->below_bytes, disk->bytes, disk->size);
    image->below_size = disk->size;
}

void model_image_add_raw(ModelImage *image, const ModelDisk *disk)
{
    char *path = model_image_new_path(image, "raw");

    g_assert(g_file_set_contents(path, (const char *)disk->bytes, disk->size, NULL));
    keep_below(image, disk, path, "raw");
    image->layers++;
}

bool model_image_add_layer(ModelImage *image, const ModelDisk *disk, uint64_t *random,
                           GString *why)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *shape = NULL;
    g_autoptr(JsonObject) options = NULL;
    g_autoptr(GError) err = NULL;

    if (image->path) {
        keep_below(image, disk, g_steal_pointer(&image->path), "qcow2");
    }
    draw_shape(&image->shape, image->below != NULL, random);
    shape = model_shape_text(&image->shape);
    g_string_append(text, shape);
    if (image->below) {
        g_string_append_printf(text, ",backing_file=%s,backing_fmt=%s", image->below,
                               image->below_format);
    }
    if (image->shape.data_file) {
        g_autofree char *data = model_image_new_path(image, "data");

        g_string_append_printf(text, ",data_file=%s", data);
    }
    image->path = model_image_new_path(image, "qcow2");
    image->layers++;
    options = block_options_parse(text->str, NULL, &err);
    return (options && bdrv_create(bdrv_find_format("qcow2"), image->path, options, &err)) ||
           failed(why, text->str, err);
}

/* ---- Opening ------------------------------------------------------------------------------ */

static void draw_options(const ModelImage *image, GString *text, uint64_t *random)
{
    static const char *const overlap[] = {"none", "constant", "cached", "all"};
    const ModelShape *shape = &image->shape;
    int64_t slice = SECTOR << model_random(random, MIN(shape->cluster_bits, 12) - 8);

    g_string_append_printf(text, ",l2-cache-entry-size=%" PRId64 ",overlap-check=%s", slice,
                           overlap[model_random(random, 4)]);
    if (one_in(random, 2)) {
        g_string_append_printf(text, ",l2-cache-size=%" PRId64, 2 * slice);
    }
    if (one_in(random, 2)) {
        g_string_append_printf(text, ",refcount-cache-size=%" PRId64, shape->cluster);
    }
    if (one_in(random, 3)) {
        g_string_append(text, ",pass-discard-other=on,pass-discard-request=on");
    }
    if (shape->version == 3 && one_in(random, 4)) {
        g_string_append_printf(text, ",lazy-refcounts=%s", one_in(random, 2) ? "on" : "off");
    }
    if (shape->version == 3 && one_in(random, 6)) {
        g_string_append(text, ",discard-no-unref=on");
    }
    if (one_in(random, 6)) {
        g_string_append_printf(text, ",detect-zeroes=on");
    }
    if (one_in(random, 5)) {
        g_string_append(text, ",cache-clean-interval=1");
    }
}

static BlockBackend *open_with(const char *text, int flags, GString *why)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, &err);
    BlockBackend *blk = options ? blk_new_open(NULL, options, flags, &block_open_policy_follow,
                                               &err)
                                : NULL;

    if (!blk) {
        failed(why, text, err);
    }
    return blk;
}

bool model_image_open(ModelImage *image, uint64_t *random, GString *why)
{
    GString *text = g_string_new(NULL);
    int flags = BDRV_O_RDWR | BDRV_O_RESIZE | (one_in(random, 4) ? 0 : BDRV_O_UNMAP) |
                (one_in(random, 4) ? BDRV_O_NO_FLUSH : 0);

    g_string_append_printf(text, "driver=qcow2,file.driver=file,file.filename=%s", image->path);
    draw_options(image, text, random);
    g_free(image->options);
    image->options = g_string_free(text, false);
    image->blk = open_with(image->options, flags, why);
    return image->blk != NULL;
}

/* ---- Looking at it ------------------------------------------------------------------------ */

static uint8_t *read_all(BlockBackend *blk, int64_t size, GString *why)
{
    g_autofree uint8_t *data = g_malloc(size);
    int64_t length = blk_getlength(blk);
    int ret;

    if (length != size) {
        g_string_append_printf(why, "the disk is %" PRId64 " bytes long, not %" PRId64, length,
                               size);
        return NULL;
    }
    ret = blk_pread(blk, 0, size, data, 0);
    if (ret < 0) {
        g_string_append_printf(why, "reading all: %s", g_strerror(-ret));
        return NULL;
    }
    return g_steal_pointer(&data);
}

bool model_image_settle(ModelImage *image, ModelDisk *disk, GString *why)
{
    g_autofree uint8_t *data = read_all(image->blk, disk->size, why);

    return data && model_disk_settle(disk, data, why);
}

static void add_finding(void *opaque, const char *line)
{
    g_string_append_printf(opaque, "%s; ", line);
}

/* Nothing is wrong, not even a cluster lost. */
static bool check_it(const ModelImage *image, GString *why)
{
    g_autofree char *text = g_strdup_printf("driver=qcow2,file.driver=file,file.filename=%s",
                                            image->path);
    BlockBackend *blk = open_with(text, BDRV_O_CHECK | BDRV_O_NO_BACKING, why);
    BdrvCheckResult r = {0};
    BlockDriverInfo info = {0};
    int ret;

    if (!blk) {
        return false;
    }
    ret = bdrv_check(blk_bs(blk), &r, add_finding, why);
    if (ret == 0) {
        ret = bdrv_get_info(blk_bs(blk), &info);
    }
    blk_unref(blk);
    if (ret < 0 || r.corruptions || r.leaks || r.check_errors || info.is_dirty) {
        g_string_append_printf(why, "check: %d, %" PRId64 " corruptions, %" PRId64 " leaks%s", ret,
                               r.corruptions, r.leaks, info.is_dirty ? ", dirty" : "");
        return false;
    }
    return true;
}

BlockBackend *model_image_open_read_only(const ModelImage *image, GString *why)
{
    g_autofree char *text = g_strdup_printf("driver=qcow2,file.driver=file,file.filename=%s",
                                            image->path);

    return open_with(text, 0, why);
}

static bool holds(const ModelImage *image, const ModelDisk *disk, GString *why)
{
    BlockBackend *blk = model_image_open_read_only(image, why);
    g_autofree uint8_t *data = blk ? read_all(blk, disk->size, why) : NULL;
    bool ok = data && memcmp(data, disk->bytes, disk->size) == 0;

    if (data && !ok) {
        int64_t i = 0;

        while (data[i] == disk->bytes[i]) {
            i++;
        }
        g_string_append_printf(why, "offset %" PRId64 " was %02x, and is %02x when opened again",
                               i, disk->bytes[i], data[i]);
    }
    blk_unref(blk);
    return ok;
}

/* Another program's opinion: its check, and what it reads. */
static bool qemu_agrees(const ModelImage *image, const ModelDisk *disk, GString *why)
{
    g_autofree char *raw = g_strdup_printf("%s/expected", image->dir), *out = NULL, *err = NULL;
    const char *check[] = {image->qemu_img, "check", "-q", "-f", "qcow2", image->path, NULL};
    const char *compare[] = {image->qemu_img, "compare", "-f", "qcow2", "-F", "raw",
                             image->path, raw, NULL};
    const char **commands[] = {check, compare};

    g_assert(g_file_set_contents(raw, (const char *)disk->bytes, disk->size, NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autoptr(GError) error = NULL;
        int status;

        g_clear_pointer(&out, g_free);
        g_clear_pointer(&err, g_free);
        if (!g_spawn_sync(NULL, (char **)commands[i], NULL, G_SPAWN_DEFAULT, NULL, NULL, &out,
                          &err, &status, &error) || status != 0) {
            g_string_append_printf(why, "%s %s: %s%s%s", image->qemu_img, commands[i][1],
                                   error ? error->message : "", out ? out : "", err ? err : "");
            return false;
        }
    }
    return true;
}

bool model_image_close(ModelImage *image, const ModelDisk *disk, GString *why)
{
    g_clear_pointer(&image->blk, blk_unref);
    return check_it(image, why) && holds(image, disk, why) &&
           (!image->qemu_img || qemu_agrees(image, disk, why));
}

/* ---- What is below ------------------------------------------------------------------------ */

bool model_image_flatten_below(ModelImage *image, GString *why)
{
    char *path = model_image_new_path(image, "raw");
    g_autofree char *text = g_strdup_printf("driver=raw,file.driver=file,file.filename=%s", path);
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, NULL);
    g_autoptr(GError) err = NULL;
    BlockDriverState *bs;
    bool ok;

    g_free(image->below);
    g_free(image->below_format);
    image->below = path;
    image->below_format = g_strdup("raw");
    g_assert(g_file_set_contents(path, (const char *)image->below_bytes, image->below_size, NULL));
    bs = bdrv_open(NULL, options, 0, NULL, &err);
    ok = bs && bdrv_set_backing(blk_bs(image->blk), bs, &err) &&
         bdrv_change_backing_file(blk_bs(image->blk), path, "raw", &err);
    bdrv_unref(bs);
    return ok || failed(why, "changing the backing file", err);
}
