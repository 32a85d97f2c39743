/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that can be told of an image, as one JSON document. The members' order
 * is part of the result: programs print it as it is, and scripts compare it.
 */
#include "blockgraph/image-info.h"

#include <errno.h>
#include "blockgraph/block-io.h"

#define NSEC_PER_SEC 1000000000ULL

static JsonObject *snapshot_to_json(const BdrvSnapshotInfo *sn)
{
    JsonObject *object = json_object_new();

    if (sn->icount != UINT64_MAX) {
        json_object_set_int_member(object, "icount", (gint64)sn->icount);
    }
    json_object_set_int_member(object, "vm-clock-nsec", (gint64)(sn->vm_clock_nsec % NSEC_PER_SEC));
    json_object_set_string_member(object, "name", sn->name);
    json_object_set_int_member(object, "date-sec", sn->date_sec);
    json_object_set_int_member(object, "date-nsec", sn->date_nsec);
    json_object_set_int_member(object, "vm-clock-sec", (gint64)(sn->vm_clock_nsec / NSEC_PER_SEC));
    json_object_set_string_member(object, "id", sn->id);
    json_object_set_int_member(object, "vm-state-size", (gint64)sn->vm_state_size);
    return object;
}

static bool add_snapshots(BlockDriverState *bs, JsonObject *info, GError **errp)
{
    g_autofree BdrvSnapshotInfo *list = NULL;
    JsonArray *array;
    size_t count = 0;

    if (!bdrv_snapshot_list(bs, &list, &count, errp)) {
        return false;
    }
    if (count == 0) {
        return true;
    }
    array = json_array_new();
    for (size_t i = 0; i < count; i++) {
        json_array_add_object_element(array, snapshot_to_json(&list[i]));
    }
    json_object_set_array_member(info, "snapshots", array);
    return true;
}

/*
 * The nodes below @bs, borrowed, with their edges' names in @names: listed
 * first, since asking the nodes polls.
 */
static GPtrArray *list_children(BlockDriverState *bs, GPtrArray *names)
{
    GPtrArray *nodes = g_ptr_array_new();

    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bdrv_next_child(bs, NULL); child != NULL;
         child = bdrv_next_child(bs, child)) {
        g_ptr_array_add(nodes, bdrv_child_bs(child));
        g_ptr_array_add(names, g_strdup(bdrv_child_name(child)));
    }
    bdrv_graph_rdunlock_main_loop();
    return nodes;
}

static bool add_children(BlockDriverState *bs, JsonObject *info, GError **errp)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) nodes = list_children(bs, names);
    g_autoptr(JsonArray) array = json_array_new();

    for (guint i = 0; i < nodes->len; i++) {
        JsonObject *child_info = bdrv_image_info(g_ptr_array_index(nodes, i), errp);
        JsonObject *entry;

        if (child_info == NULL) {
            return false;
        }
        entry = json_object_new();
        json_object_set_string_member(entry, "name", g_ptr_array_index(names, i));
        json_object_set_object_member(entry, "info", child_info);
        json_array_add_object_element(array, entry);
    }
    json_object_set_array_member(info, "children", g_steal_pointer(&array));
    return true;
}

static void add_sizes(BlockDriverState *bs, JsonObject *info, int64_t length)
{
    BlockDriverInfo bdi = { 0 };
    int64_t allocated = bdrv_get_allocated_file_size(bs);

    json_object_set_int_member(info, "virtual-size", length);
    json_object_set_string_member(info, "filename", bdrv_get_filename(bs));
    if (bdrv_get_info(bs, &bdi) >= 0 && bdi.cluster_size != 0) {
        json_object_set_int_member(info, "cluster-size", bdi.cluster_size);
    }
    json_object_set_string_member(info, "format", bdrv_get_format_name(bs));
    if (allocated >= 0) {
        json_object_set_int_member(info, "actual-size", allocated);
    }
}

static bool add_specific(BlockDriverState *bs, JsonObject *info, GError **errp)
{
    GError *err = NULL;
    JsonObject *specific = bdrv_get_specific_info(bs, &err);

    if (err != NULL) {
        g_propagate_error(errp, err);
        return false;
    }
    if (specific != NULL) {
        json_object_set_object_member(info, "format-specific", specific);
    }
    return true;
}

static bool add_backing(BlockDriverState *bs, JsonObject *info, GError **errp)
{
    const char *backing = bdrv_get_backing_filename(bs);
    g_autofree char *full = NULL;

    if (backing == NULL || backing[0] == '\0') {
        return true;
    }
    if (!bdrv_get_full_backing_filename(bs, &full, errp)) {
        return false;
    }
    if (full != NULL) {
        json_object_set_string_member(info, "full-backing-filename", full);
    }
    json_object_set_string_member(info, "backing-filename", backing);
    return true;
}

JsonObject *bdrv_image_info(BlockDriverState *bs, GError **errp)
{
    g_autoptr(JsonObject) info = json_object_new();
    const char *backing_format = bdrv_get_backing_format(bs);
    const char *backing = bdrv_get_backing_filename(bs);
    int64_t length = bdrv_getlength(bs);
    BlockDriverInfo bdi = { 0 };

    GLOBAL_STATE_CODE();
    if (length < 0) {
        block_error_set_errno(errp, (int)-length, "Can't get image size '%s'",
                              bdrv_get_filename(bs));
        return NULL;
    }
    if (!add_children(bs, info, errp)) {
        return NULL;
    }
    if (backing != NULL && backing[0] != '\0' && backing_format != NULL &&
        backing_format[0] != '\0') {
        json_object_set_string_member(info, "backing-filename-format", backing_format);
    }
    if (!add_snapshots(bs, info, errp)) {
        return NULL;
    }
    add_sizes(bs, info, length);
    if (!add_specific(bs, info, errp) || !add_backing(bs, info, errp)) {
        return NULL;
    }
    if (bdrv_is_encrypted(bs)) {
        json_object_set_boolean_member(info, "encrypted", TRUE);
    }
    if (bdrv_get_info(bs, &bdi) >= 0) {
        json_object_set_boolean_member(info, "dirty-flag", bdi.is_dirty);
    }
    return g_steal_pointer(&info);
}
