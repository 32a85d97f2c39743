/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as text for people, line by line. */
#include "tools/img/info-human.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "tools/img/info-bitmaps.h"
#include "tools/tool.h"

/* Begin a line: four spaces per level. */
static void indent(int depth)
{
    printf("%*s", depth * 4, "");
}

/* ---- The table of snapshots ---------------------------------------------------- */

static void print_snapshot(const BdrvSnapshotInfo *sn)
{
    g_autofree char *size = tool_size_text(sn->vm_state_size);
    g_autofree char *clock = NULL;
    char date[64] = "";
    char icount[32] = "--";
    time_t seconds = sn->date_sec;
    uint64_t clock_sec = sn->vm_clock_nsec / 1000000000;
    struct tm tm;

    if (localtime_r(&seconds, &tm) != NULL) {
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    }
    clock =
        g_strdup_printf("%04d:%02d:%02d.%03d", (int)(clock_sec / 3600), (int)(clock_sec / 60 % 60),
                        (int)(clock_sec % 60), (int)(sn->vm_clock_nsec / 1000000 % 1000));
    if (sn->icount != UINT64_MAX) {
        g_snprintf(icount, sizeof(icount), "%" G_GUINT64_FORMAT, (guint64)sn->icount);
    }
    printf("%-7s %-16s %8s %19s %15s %10s\n", sn->id, sn->name, size, date, clock, icount);
}

void img_print_snapshots(BlockDriverState *bs, int depth)
{
    BdrvSnapshotInfo sn;

    if (!bdrv_snapshot_get(bs, 0, &sn)) {
        return;
    }
    indent(depth);
    printf("Snapshot list:\n");
    indent(depth);
    printf("%-7s %-16s %8s %19s %15s %10s\n", "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for (size_t i = 0; bdrv_snapshot_get(bs, i, &sn); i++) {
        indent(depth);
        print_snapshot(&sn);
    }
}

/* ---- What only the format knows ------------------------------------------------- */

static void print_members(JsonObject *object, int depth);
static void print_elements(JsonArray *array, int depth);

/* One "key:" line, and what belongs to it below. */
static void print_entry(const char *key, JsonNode *value, int depth)
{
    indent(depth);
    printf("%s:", key);
    if (JSON_NODE_HOLDS_OBJECT(value)) {
        printf("\n");
        print_members(json_node_get_object(value), depth + 1);
    } else if (JSON_NODE_HOLDS_ARRAY(value)) {
        printf("\n");
        print_elements(json_node_get_array(value), depth + 1);
    } else if (JSON_NODE_HOLDS_NULL(value)) {
        printf(" null\n");
    } else if (json_node_get_value_type(value) == G_TYPE_STRING) {
        printf(" %s\n", json_node_get_string(value));
    } else if (json_node_get_value_type(value) == G_TYPE_BOOLEAN) {
        printf(" %s\n", json_node_get_boolean(value) ? "true" : "false");
    } else {
        printf(" %" G_GINT64_FORMAT "\n", json_node_get_int(value));
    }
}

static void print_member(const char *name, JsonNode *value, int depth)
{
    g_autofree char *key = g_strdelimit(g_strdup(name), "-", ' ');

    print_entry(key, value, depth);
}

static void print_members(JsonObject *object, int depth)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        print_member(name, value, depth);
    }
}

static void print_elements(JsonArray *array, int depth)
{
    for (guint i = 0; i < json_array_get_length(array); i++) {
        g_autofree char *key = g_strdup_printf("[%u]", i);

        print_entry(key, json_array_get_element(array, i), depth);
    }
}

static void print_bitmap(const BdrvStoredBitmapInfo *bitmap, size_t index, int depth)
{
    unsigned flag = 0;

    indent(depth);
    printf("[%zu]:\n", index);
    indent(depth + 1);
    printf("flags:\n");
    if (bitmap->in_use) {
        indent(depth + 2);
        printf("[%u]: in-use\n", flag++);
    }
    if (bitmap->is_auto) {
        indent(depth + 2);
        printf("[%u]: auto\n", flag);
    }
    indent(depth + 1);
    printf("name: %s\n", bitmap->name);
    indent(depth + 1);
    printf("granularity: %" G_GINT64_FORMAT "\n", bitmap->granularity);
}

static bool print_bitmaps(const BdrvImageInfo *info, int depth, GError **errp)
{
    BdrvStoredBitmapInfo bitmap;
    int ret;

    indent(depth);
    printf("bitmaps:\n");
    for (size_t i = 0; (ret = bdrv_stored_bitmap_get(info->bs, i, &bitmap, errp)) > 0; i++) {
        print_bitmap(&bitmap, i, depth + 1);
    }
    return ret == 0;
}

bool img_print_specific(const BdrvImageInfo *info, int depth, GError **errp)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;
    JsonObject *data;

    if (info->specific == NULL) {
        return true;
    }
    data = json_object_get_object_member(info->specific, "data");
    if (json_object_get_size(data) == 0) {
        return true;
    }
    indent(depth);
    printf("Format specific information:\n");
    json_object_iter_init_ordered(&iter, data);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        if (!img_is_bitmap_list(name, value)) {
            print_member(name, value, depth + 1);
        } else if (!print_bitmaps(info, depth + 1, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- A node ------------------------------------------------------------------------ */

static void print_line(int depth, const char *label, const char *value)
{
    indent(depth);
    printf("%s: %s\n", label, value);
}

static void print_sizes(const BdrvImageInfo *info, int depth, bool is_file)
{
    g_autofree char *length = tool_size_text((uint64_t)info->virtual_size);
    g_autofree char *disk = NULL;

    if (info->actual_size >= 0) {
        disk = tool_size_text((uint64_t)info->actual_size);
    }
    indent(depth);
    printf("%s: %s (%" G_GINT64_FORMAT " bytes)\n", is_file ? "file length" : "virtual size",
           length, info->virtual_size);
    print_line(depth, "disk size", disk != NULL ? disk : "unavailable");
}

static void print_backing(const BdrvImageInfo *info, int depth)
{
    const char *full = info->full_backing_filename;

    if (info->backing_filename == NULL) {
        return;
    }
    indent(depth);
    printf("backing file: %s", info->backing_filename);
    if (full == NULL) {
        printf(" (cannot determine actual path)");
    } else if (strcmp(info->backing_filename, full) != 0) {
        printf(" (actual path: %s)", full);
    }
    printf("\n");
    if (info->backing_format != NULL) {
        print_line(depth, "backing file format", info->backing_format);
    }
}

static bool print_node(const BdrvImageInfo *info, int depth, bool is_file, GError **errp)
{
    print_line(depth, is_file ? "filename" : "image", info->filename);
    print_line(depth, is_file ? "protocol type" : "file format", info->format);
    print_sizes(info, depth, is_file);
    if (info->is_encrypted) {
        print_line(depth, "encrypted", "yes");
    }
    if (info->cluster_size != 0) {
        indent(depth);
        printf("cluster_size: %" G_GINT64_FORMAT "\n", info->cluster_size);
    }
    if (info->is_dirty) {
        print_line(depth, "cleanly shut down", "no");
    }
    print_backing(info, depth);
    img_print_snapshots(info->bs, depth);
    return img_print_specific(info, depth, errp);
}

static bool print_graph(const BdrvImageInfo *info, const char *path, int depth, GError **errp)
{
    /* Below the top, what has no child is the file itself. */
    bool ok = print_node(info, depth, depth > 0 && info->child_count == 0, errp);

    for (size_t i = 0; i < info->child_count && ok; i++) {
        const BdrvChildInfo *child = &info->children[i];
        g_autofree char *child_path = g_strconcat(path, "/", child->name, NULL);

        indent(depth);
        printf("Child node '%s':\n", child_path);
        ok = print_graph(child->info, child_path, depth + 1, errp);
    }
    return ok;
}

bool img_print_info(const BdrvImageInfo *info, GError **errp)
{
    return print_graph(info, "", 0, errp);
}
