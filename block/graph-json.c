/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph as a JSON object: nodes, backends, and the edges between them.
 */
#include "block/block-int.h"

static JsonArray *words_of(uint64_t value, const char *const *words, size_t count)
{
    JsonArray *array = json_array_new();

    for (size_t i = 0; i < count; i++) {
        if (value & (1ULL << i)) {
            json_array_add_string_element(array, words[i]);
        }
    }
    return array;
}

static JsonArray *role_words(int role)
{
    static const char *const words[] = {"data", "metadata", "filtered", "cow", "primary"};

    return words_of(role, words, G_N_ELEMENTS(words));
}

static JsonArray *perm_words(uint64_t perm)
{
    static const char *const words[] = {"consistent-read", "write", "write-unchanged", "resize"};

    return words_of(perm, words, G_N_ELEMENTS(words));
}

static void add_node(JsonArray *nodes, BlockDriverState *bs)
{
    JsonObject *node = json_object_new();

    json_object_set_string_member(node, "kind", "node");
    json_object_set_string_member(node, "name", bs->node_name);
    json_object_set_string_member(node, "driver", bs->drv->format_name);
    json_object_set_string_member(node, "filename", bs->filename);
    json_object_set_int_member(node, "size", bdrv_getlength(bs));
    json_object_set_boolean_member(node, "read-only", bs->read_only);
    json_object_set_int_member(node, "refcount", bs->refcount);
    json_array_add_object_element(nodes, node);
}

static void add_backend(JsonArray *nodes, BlockBackend *blk)
{
    JsonObject *node = json_object_new();

    json_object_set_string_member(node, "kind", "backend");
    json_object_set_string_member(node, "name", blk_name(blk));
    json_object_set_int_member(node, "refcount", blk_get_refcount(blk));
    json_array_add_object_element(nodes, node);
}

static void add_edge(JsonArray *edges, BdrvChild *child) GRAPH_RDLOCK
{
    JsonObject *edge = json_object_new();
    const char *parent = child->ops->is_node ? ((BlockDriverState *)child->parent)->node_name
                                             : blk_name(child->parent);

    json_object_set_string_member(edge, "parent", parent);
    json_object_set_string_member(edge, "parent-kind", child->ops->is_node ? "node" : "backend");
    json_object_set_string_member(edge, "child", child->bs->node_name);
    json_object_set_string_member(edge, "name", child->name);
    json_object_set_array_member(edge, "role", role_words(child->role));
    json_object_set_array_member(edge, "perm", perm_words(child->perm));
    json_object_set_array_member(edge, "shared", perm_words(child->shared));
    json_array_add_object_element(edges, edge);
}

/* @bs and what is below, each once, parents before children. */
static void walk(BlockDriverState *bs, GHashTable *seen, JsonArray *nodes,
                 JsonArray *edges) GRAPH_RDLOCK
{
    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    add_node(nodes, bs);
    for (BdrvChild *parent = bs->parents; parent; parent = parent->next_parent) {
        if (!parent->ops->is_node) {
            if (g_hash_table_add(seen, parent->parent)) {
                add_backend(nodes, parent->parent);
            }
            add_edge(edges, parent);
        }
    }
    for (BdrvChild *child = bs->children; child; child = child->next_child) {
        add_edge(edges, child);
        walk(child->bs, seen, nodes, edges);
    }
}

JsonObject *bdrv_graph_to_json(BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    JsonObject *graph = json_object_new();
    JsonArray *nodes = json_array_new(), *edges = json_array_new();

    bdrv_graph_assert_readable();
    if (bs) {
        walk(bs, seen, nodes, edges);
    } else {
        for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
            walk(bs, seen, nodes, edges);
        }
    }
    json_object_set_array_member(graph, "nodes", nodes);
    json_object_set_array_member(graph, "edges", edges);
    return graph;
}
