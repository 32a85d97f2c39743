/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The image that convert and dd write to; see convert-target.h. */
#include "tools/img/convert-target.h"

#include <string.h>
#include <sys/stat.h>

struct ImgFileSet {
    GHashTable *names; /* file identity → source's name */
};

ImgFileSet *img_file_set_new(void)
{
    ImgFileSet *set = g_new0(ImgFileSet, 1);

    set->names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    return set;
}

void img_file_set_free(ImgFileSet *set)
{
    if (set != NULL) {
        g_hash_table_unref(set->names);
        g_free(set);
    }
}

/* What is the same for two names of one file; NULL for what is no disk. */
static char *file_identity(const char *filename)
{
    struct stat st;

    if (g_str_has_prefix(filename, "file:")) {
        filename += strlen("file:");
    } else if (g_str_has_prefix(filename, "host_device:")) {
        filename += strlen("host_device:");
    }
    if (stat(filename, &st) < 0) {
        return NULL;
    }
    if (S_ISBLK(st.st_mode)) {
        return g_strdup_printf("device %ju", (uintmax_t)st.st_rdev);
    }
    if (S_ISREG(st.st_mode)) {
        return g_strdup_printf("file %ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    }
    return NULL;
}

/*
 * Add the identities of all files below @bs, or of those only that it stores its
 * own data in. Graphs have no loops.
 */
static void collect_files(BlockDriverState *bs, bool with_backing, GPtrArray *identities)
{
    g_autoptr(GPtrArray) children = g_ptr_array_new();

    if (bdrv_is_protocol(bs)) {
        char *identity = file_identity(bdrv_get_filename(bs));

        if (identity != NULL) {
            g_ptr_array_add(identities, identity);
        }
    }
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bdrv_next_child(bs, NULL); child != NULL;
         child = bdrv_next_child(bs, child)) {
        if (with_backing || child != bdrv_cow_child(bs)) {
            g_ptr_array_add(children, bdrv_child_bs(child));
        }
    }
    bdrv_graph_rdunlock_main_loop();
    for (guint i = 0; i < children->len; i++) {
        collect_files(g_ptr_array_index(children, i), with_backing, identities);
    }
}

void img_file_set_add(ImgFileSet *set, BlockBackend *blk, const char *name)
{
    g_autoptr(GPtrArray) identities = g_ptr_array_new();

    collect_files(blk_bs(blk), true, identities);
    for (guint i = 0; i < identities->len; i++) {
        g_hash_table_insert(set->names, g_ptr_array_index(identities, i), g_strdup(name));
    }
}

void img_file_set_add_file(ImgFileSet *set, const char *filename, const char *name)
{
    char *identity = file_identity(filename);

    if (identity != NULL) {
        g_hash_table_insert(set->names, identity, g_strdup(name));
    }
}

const char *img_file_set_find(const ImgFileSet *set, const char *filename)
{
    g_autofree char *identity = file_identity(filename);

    return identity != NULL ? g_hash_table_lookup(set->names, identity) : NULL;
}

bool img_is_own_backing(const char *filename, const char *backing)
{
    g_autofree char *path = bdrv_combine_filename(filename, backing, NULL);
    g_autofree char *below = path != NULL ? file_identity(path) : NULL;
    g_autofree char *identity = file_identity(filename);

    return below != NULL && g_strcmp0(below, identity) == 0;
}

const char *img_file_set_find_below(const ImgFileSet *set, BlockBackend *blk)
{
    g_autoptr(GPtrArray) identities = g_ptr_array_new_with_free_func(g_free);
    const char *name = NULL;

    collect_files(blk_bs(blk), false, identities);
    for (guint i = 0; i < identities->len && name == NULL; i++) {
        name = g_hash_table_lookup(set->names, g_ptr_array_index(identities, i));
    }
    return name;
}

/* Whether @bs stores all that it holds itself in regular files. */
static bool is_on_regular_files(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) children = g_ptr_array_new();
    bool regular = true;

    if (bdrv_is_protocol(bs)) {
        return strcmp(bdrv_get_format_name(bs), "file") == 0;
    }
    bdrv_graph_rdlock_main_loop();
    for (BdrvChild *child = bdrv_next_child(bs, NULL); child != NULL;
         child = bdrv_next_child(bs, child)) {
        if (child != bdrv_cow_child(bs)) {
            g_ptr_array_add(children, bdrv_child_bs(child));
        }
    }
    bdrv_graph_rdunlock_main_loop();
    for (guint i = 0; i < children->len && regular; i++) {
        regular = is_on_regular_files(g_ptr_array_index(children, i));
    }
    return regular && children->len > 0;
}

bool img_is_on_regular_file(BlockBackend *blk)
{
    return is_on_regular_files(blk_bs(blk));
}
