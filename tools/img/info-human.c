/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as text for people: the JSON document, line by line. */
#include "tools/img/info-human.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
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

void img_print_snapshots(const BdrvSnapshotInfo *list, size_t count, int depth)
{
    indent(depth);
    printf("Snapshot list:\n");
    indent(depth);
    printf("%-7s %-16s %8s %19s %15s %10s\n", "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for (size_t i = 0; i < count; i++) {
        indent(depth);
        print_snapshot(&list[i]);
    }
}

static void print_json_snapshots(JsonArray *array, int depth)
{
    guint count = json_array_get_length(array);
    g_autofree BdrvSnapshotInfo *list = g_new0(BdrvSnapshotInfo, count);

    for (guint i = 0; i < count; i++) {
        JsonObject *sn = json_array_get_object_element(array, i);

        g_strlcpy(list[i].id, json_object_get_string_member(sn, "id"), sizeof(list[i].id));
        g_strlcpy(list[i].name, json_object_get_string_member(sn, "name"), sizeof(list[i].name));
        list[i].vm_state_size = (uint64_t)json_object_get_int_member(sn, "vm-state-size");
        list[i].date_sec = (uint32_t)json_object_get_int_member(sn, "date-sec");
        list[i].vm_clock_nsec =
            (uint64_t)json_object_get_int_member(sn, "vm-clock-sec") * 1000000000 +
            (uint64_t)json_object_get_int_member(sn, "vm-clock-nsec");
        list[i].icount = json_object_has_member(sn, "icount")
                             ? (uint64_t)json_object_get_int_member(sn, "icount")
                             : UINT64_MAX;
    }
    img_print_snapshots(list, count, depth);
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

static void print_members(JsonObject *object, int depth)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        g_autofree char *key = g_strdelimit(g_strdup(name), "-", ' ');

        print_entry(key, value, depth);
    }
}

static void print_elements(JsonArray *array, int depth)
{
    for (guint i = 0; i < json_array_get_length(array); i++) {
        g_autofree char *key = g_strdup_printf("[%u]", i);

        print_entry(key, json_array_get_element(array, i), depth);
    }
}

static void print_specific(JsonObject *info, int depth)
{
    JsonObject *specific;
    JsonObject *data;

    if (!json_object_has_member(info, "format-specific")) {
        return;
    }
    specific = json_object_get_object_member(info, "format-specific");
    data = json_object_get_object_member(specific, "data");
    if (json_object_get_size(data) > 0) {
        indent(depth);
        printf("Format specific information:\n");
        print_members(data, depth + 1);
    }
}

/* ---- A node ------------------------------------------------------------------------ */

static void print_line(int depth, const char *label, const char *value)
{
    indent(depth);
    printf("%s: %s\n", label, value);
}

static void print_sizes(JsonObject *info, int depth, bool is_file)
{
    int64_t length = json_object_get_int_member(info, "virtual-size");
    g_autofree char *length_text = tool_size_text((uint64_t)length);
    g_autofree char *disk = NULL;

    if (json_object_has_member(info, "actual-size")) {
        disk = tool_size_text((uint64_t)json_object_get_int_member(info, "actual-size"));
    }
    indent(depth);
    printf("%s: %s (%" G_GINT64_FORMAT " bytes)\n", is_file ? "file length" : "virtual size",
           length_text, length);
    print_line(depth, "disk size", disk != NULL ? disk : "unavailable");
}

static void print_backing(JsonObject *info, int depth)
{
    const char *name;
    const char *full;

    if (!json_object_has_member(info, "backing-filename")) {
        return;
    }
    name = json_object_get_string_member(info, "backing-filename");
    full = json_object_has_member(info, "full-backing-filename")
               ? json_object_get_string_member(info, "full-backing-filename")
               : NULL;
    indent(depth);
    printf("backing file: %s", name);
    if (full == NULL) {
        printf(" (cannot determine actual path)");
    } else if (strcmp(name, full) != 0) {
        printf(" (actual path: %s)", full);
    }
    printf("\n");
    if (json_object_has_member(info, "backing-filename-format")) {
        print_line(depth, "backing file format",
                   json_object_get_string_member(info, "backing-filename-format"));
    }
}

static void print_node(JsonObject *info, int depth, bool is_file)
{
    print_line(depth, is_file ? "filename" : "image",
               json_object_get_string_member(info, "filename"));
    print_line(depth, is_file ? "protocol type" : "file format",
               json_object_get_string_member(info, "format"));
    print_sizes(info, depth, is_file);
    if (json_object_has_member(info, "encrypted")) {
        print_line(depth, "encrypted", "yes");
    }
    if (json_object_has_member(info, "cluster-size")) {
        indent(depth);
        printf("cluster_size: %" G_GINT64_FORMAT "\n",
               json_object_get_int_member(info, "cluster-size"));
    }
    if (json_object_has_member(info, "dirty-flag") &&
        json_object_get_boolean_member(info, "dirty-flag")) {
        print_line(depth, "cleanly shut down", "no");
    }
    print_backing(info, depth);
    if (json_object_has_member(info, "snapshots")) {
        print_json_snapshots(json_object_get_array_member(info, "snapshots"), depth);
    }
    print_specific(info, depth);
}

static void print_graph(JsonObject *info, const char *path, int depth)
{
    JsonArray *children = json_object_get_array_member(info, "children");
    guint count = json_array_get_length(children);

    /* Below the top, what has no child is the file itself. */
    print_node(info, depth, depth > 0 && count == 0);
    for (guint i = 0; i < count; i++) {
        JsonObject *child = json_array_get_object_element(children, i);
        g_autofree char *child_path =
            g_strconcat(path, "/", json_object_get_string_member(child, "name"), NULL);

        indent(depth);
        printf("Child node '%s':\n", child_path);
        print_graph(json_object_get_object_member(child, "info"), child_path, depth + 1);
    }
}

void img_print_info(JsonObject *info)
{
    print_graph(info, "", 0);
}
