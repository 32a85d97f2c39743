/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Image information as JSON; the members' order is QEMU's, scripts compare it.
 *
 * Who reads it finds it complete or absent. Bitmaps are read while they are
 * printed, since 65,535 of them are too much to be held: their text goes to a
 * temporary file first.
 */
#include "tools/img/info-json.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <unistd.h>
#include "blockgraph/error.h"
#include "tools/img/info-bitmaps.h"
#include "tools/json-print.h"

#define NSEC_PER_SEC 1000000000ULL

static bool print_image(JsonPrinter *p, const char *name, const BdrvImageInfo *info, GError **errp);

static bool print_children(JsonPrinter *p, const BdrvImageInfo *info, GError **errp)
{
    json_printer_begin(p, "children", '[');
    for (size_t i = 0; i < info->child_count; i++) {
        json_printer_begin(p, NULL, '{');
        json_printer_string(p, "name", info->children[i].name);
        if (!print_image(p, "info", info->children[i].info, errp)) {
            return false;
        }
        json_printer_end(p, '}');
    }
    json_printer_end(p, ']');
    return true;
}

static void print_snapshot(JsonPrinter *p, const BdrvSnapshotInfo *sn)
{
    json_printer_begin(p, NULL, '{');
    if (sn->icount != UINT64_MAX) {
        json_printer_int(p, "icount", (int64_t)sn->icount);
    }
    json_printer_int(p, "vm-clock-nsec", (int64_t)(sn->vm_clock_nsec % NSEC_PER_SEC));
    json_printer_string(p, "name", sn->name);
    json_printer_int(p, "date-sec", sn->date_sec);
    json_printer_int(p, "date-nsec", sn->date_nsec);
    json_printer_int(p, "vm-clock-sec", (int64_t)(sn->vm_clock_nsec / NSEC_PER_SEC));
    json_printer_string(p, "id", sn->id);
    json_printer_int(p, "vm-state-size", (int64_t)sn->vm_state_size);
    json_printer_end(p, '}');
}

static void print_snapshots(JsonPrinter *p, const BdrvImageInfo *info)
{
    BdrvSnapshotInfo sn;

    if (!bdrv_snapshot_get(info->bs, 0, &sn)) {
        return;
    }
    json_printer_begin(p, "snapshots", '[');
    for (size_t i = 0; bdrv_snapshot_get(info->bs, i, &sn); i++) {
        print_snapshot(p, &sn);
    }
    json_printer_end(p, ']');
}

static void print_string_if_any(JsonPrinter *p, const char *name, const char *value)
{
    if (value != NULL) {
        json_printer_string(p, name, value);
    }
}

static void print_bitmap(JsonPrinter *p, const BdrvStoredBitmapInfo *bitmap)
{
    json_printer_begin(p, NULL, '{');
    json_printer_begin(p, "flags", '[');
    if (bitmap->in_use) {
        json_printer_string(p, NULL, "in-use");
    }
    if (bitmap->is_auto) {
        json_printer_string(p, NULL, "auto");
    }
    json_printer_end(p, ']');
    json_printer_string(p, "name", bitmap->name);
    json_printer_int(p, "granularity", bitmap->granularity);
    json_printer_end(p, '}');
}

static bool print_bitmaps(JsonPrinter *p, const BdrvImageInfo *info, GError **errp)
{
    BdrvStoredBitmapInfo bitmap;
    int ret;

    json_printer_begin(p, "bitmaps", '[');
    for (size_t i = 0; (ret = bdrv_stored_bitmap_get(info->bs, i, &bitmap, errp)) > 0; i++) {
        print_bitmap(p, &bitmap);
    }
    json_printer_end(p, ']');
    return ret == 0;
}

static bool print_data(JsonPrinter *p, const BdrvImageInfo *info, JsonObject *data, GError **errp)
{
    JsonObjectIter iter;
    const char *member;
    JsonNode *value;

    json_printer_begin(p, "data", '{');
    json_object_iter_init_ordered(&iter, data);
    while (json_object_iter_next_ordered(&iter, &member, &value)) {
        if (!img_is_bitmap_list(member, value)) {
            json_printer_node(p, member, value);
        } else if (!print_bitmaps(p, info, errp)) {
            return false;
        }
    }
    json_printer_end(p, '}');
    return true;
}

static bool print_specific(JsonPrinter *p, const BdrvImageInfo *info, GError **errp)
{
    if (info->specific == NULL) {
        return true;
    }
    json_printer_begin(p, "format-specific", '{');
    json_printer_string(p, "type", json_object_get_string_member(info->specific, "type"));
    if (!print_data(p, info, json_object_get_object_member(info->specific, "data"), errp)) {
        return false;
    }
    json_printer_end(p, '}');
    return true;
}

static bool print_image(JsonPrinter *p, const char *name, const BdrvImageInfo *info, GError **errp)
{
    json_printer_begin(p, name, '{');
    if (!print_children(p, info, errp)) {
        return false;
    }
    print_string_if_any(p, "backing-filename-format", info->backing_format);
    print_snapshots(p, info);
    json_printer_int(p, "virtual-size", info->virtual_size);
    json_printer_string(p, "filename", info->filename);
    if (info->cluster_size != 0) {
        json_printer_int(p, "cluster-size", info->cluster_size);
    }
    json_printer_string(p, "format", info->format);
    if (info->actual_size >= 0) {
        json_printer_int(p, "actual-size", info->actual_size);
    }
    if (!print_specific(p, info, errp)) {
        return false;
    }
    print_string_if_any(p, "full-backing-filename", info->full_backing_filename);
    print_string_if_any(p, "backing-filename", info->backing_filename);
    if (info->is_encrypted) {
        json_printer_bool(p, "encrypted", true);
    }
    if (info->has_dirty_flag) {
        json_printer_bool(p, "dirty-flag", info->is_dirty);
    }
    json_printer_end(p, '}');
    return true;
}

/* ---- Complete or absent ---------------------------------------------------------- */

static bool print_document(FILE *file, const GPtrArray *images, bool as_array, GError **errp)
{
    JsonPrinter p;
    bool ok = true;

    json_printer_init(&p, file);
    if (as_array) {
        json_printer_begin(&p, NULL, '[');
    }
    for (guint i = 0; i < images->len && ok; i++) {
        ok = print_image(&p, NULL, g_ptr_array_index(images, i), errp);
    }
    if (as_array) {
        json_printer_end(&p, ']');
    }
    json_printer_finish(&p);
    return ok;
}

/* Whether printing reads from the image. */
static bool has_bitmaps(const BdrvImageInfo *info)
{
    bool found = img_has_bitmap_list(info);

    for (size_t i = 0; i < info->child_count && !found; i++) {
        found = has_bitmaps(info->children[i].info);
    }
    return found;
}

/* A file without a name, or NULL with @errp. */
static FILE *open_spool(GError **errp)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("blockgraph-XXXXXX", &path, errp);
    FILE *file;

    if (fd < 0) {
        return NULL;
    }
    g_unlink(path);
    file = fdopen(fd, "w+");
    if (file == NULL) {
        block_error_set_errno(errp, errno, "Could not open a temporary file");
        close(fd);
    }
    return file;
}

/* Append all of @spool to @out, whose errors are for who closes it to see. */
static bool copy_spool(FILE *spool, FILE *out, GError **errp)
{
    char buf[16384];
    size_t bytes;

    if (fflush(spool) != 0 || ferror(spool) || fseek(spool, 0, SEEK_SET) != 0) {
        block_error_set_errno(errp, errno, "Could not write to a temporary file");
        return false;
    }
    while ((bytes = fread(buf, 1, sizeof(buf), spool)) > 0) {
        fwrite(buf, 1, bytes, out);
    }
    if (ferror(spool)) {
        block_error_set_errno(errp, errno, "Could not read a temporary file");
        return false;
    }
    return true;
}

bool img_print_info_json(FILE *out, const GPtrArray *images, bool as_array, GError **errp)
{
    FILE *spool;
    bool reads = false, ok;

    for (guint i = 0; i < images->len; i++) {
        reads |= has_bitmaps(g_ptr_array_index(images, i));
    }
    if (!reads) {
        return print_document(out, images, as_array, errp);
    }
    spool = open_spool(errp);
    if (spool == NULL) {
        return false;
    }
    ok = print_document(spool, images, as_array, errp) && copy_spool(spool, out, errp);
    fclose(spool);
    return ok;
}
