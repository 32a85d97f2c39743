/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image information as JSON; the members' order is QEMU's, scripts compare it. */
#include "tools/img/info-json.h"

#define NSEC_PER_SEC 1000000000ULL

static void print_image(JsonPrinter *p, const char *name, const BdrvImageInfo *info);

static void print_children(JsonPrinter *p, const BdrvImageInfo *info)
{
    json_printer_begin(p, "children", '[');
    for (size_t i = 0; i < info->child_count; i++) {
        json_printer_begin(p, NULL, '{');
        json_printer_string(p, "name", info->children[i].name);
        print_image(p, "info", info->children[i].info);
        json_printer_end(p, '}');
    }
    json_printer_end(p, ']');
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

static void print_image(JsonPrinter *p, const char *name, const BdrvImageInfo *info)
{
    json_printer_begin(p, name, '{');
    print_children(p, info);
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
    if (info->specific != NULL) {
        json_printer_object(p, "format-specific", info->specific);
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
}

void img_print_info_json(JsonPrinter *p, const BdrvImageInfo *info)
{
    print_image(p, NULL, info);
}
