/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph as JSON: what each node and edge is said to be, that shared nodes
 * appear once, and which part of the process's graph is shown.
 */
#include "block-testing.h"

static JsonObject *graph_of(BlockDriverState *bs)
{
    JsonObject *graph;

    bdrv_graph_rdlock_main_loop();
    graph = bdrv_graph_to_json(bs);
    bdrv_graph_rdunlock_main_loop();
    assert_int_equal(json_object_get_size(graph), 2);
    return graph;
}

static unsigned count(JsonObject *graph, const char *list)
{
    return json_array_get_length(json_object_get_array_member(graph, list));
}

/* The only element of @list whose members @key and @key2 have these values. */
static JsonObject *find(JsonObject *graph, const char *list, const char *key, const char *value,
                        const char *key2, const char *value2)
{
    JsonArray *array = json_object_get_array_member(graph, list);
    JsonObject *found = NULL;

    for (unsigned i = 0; i < json_array_get_length(array); i++) {
        JsonObject *element = json_array_get_object_element(array, i);

        if (strcmp(json_object_get_string_member(element, key), value) == 0 &&
            strcmp(json_object_get_string_member(element, key2), value2) == 0) {
            assert_null(found);
            found = element;
        }
    }
    if (!found) {
        fail_msg("no element of %s with %s '%s' and %s '%s'", list, key, value, key2, value2);
    }
    return found;
}

static void assert_words(JsonObject *object, const char *key, const char *expected)
{
    JsonArray *array = json_object_get_array_member(object, key);
    g_autoptr(GString) words = g_string_new(NULL);

    for (unsigned i = 0; i < json_array_get_length(array); i++) {
        g_string_append_printf(words, "%s%s", i > 0 ? " " : "",
                               json_array_get_string_element(array, i));
    }
    assert_string_equal(words->str, expected);
}

static void nodes_say_what_they_are(void **state)
{
    BlockDriverState *mem = open_node_with("driver=memory,size=1M,node-name=mem", BDRV_O_RDWR);
    BlockDriverState *raw = open_node_with("driver=raw,node-name=top,size=64k,file=mem", 0);
    g_autoptr(JsonObject) graph = graph_of(raw);
    JsonObject *node;

    assert_int_equal(count(graph, "nodes"), 2);
    node = find(graph, "nodes", "kind", "node", "name", "top");
    assert_string_equal(json_object_get_string_member(node, "driver"), "raw");
    assert_string_equal(json_object_get_string_member(node, "filename"), bdrv_get_filename(raw));
    assert_int_equal(json_object_get_int_member(node, "size"), 65536);
    assert_int_equal(json_object_get_int_member(node, "refcount"), 1);
    assert_true(json_object_get_boolean_member(node, "read-only"));
    node = find(graph, "nodes", "kind", "node", "name", "mem");
    assert_string_equal(json_object_get_string_member(node, "driver"), "memory");
    assert_int_equal(json_object_get_int_member(node, "size"), 1 << 20);
    assert_int_equal(json_object_get_int_member(node, "refcount"), 2);
    assert_false(json_object_get_boolean_member(node, "read-only"));
    bdrv_unref(raw);
    bdrv_unref(mem);
}

static void edges_say_roles_and_permissions(void **state)
{
    BlockDriverState *mem = open_node_with("driver=memory,size=1M,node-name=mem", BDRV_O_RDWR);
    BlockDriverState *raw = open_node_with("driver=raw,node-name=top,file=mem", BDRV_O_RDWR);
    BlockBackend *blk = blk_new("disk", BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                                BLK_PERM_CONSISTENT_READ | BLK_PERM_RESIZE, NULL);
    g_autoptr(JsonObject) graph = NULL;
    JsonObject *edge, *node;

    assert_true(blk_insert_bs(blk, raw, NULL));
    graph = graph_of(raw);
    assert_int_equal(count(graph, "edges"), 2);
    edge = find(graph, "edges", "parent-kind", "backend", "parent", "disk");
    assert_string_equal(json_object_get_string_member(edge, "child"), "top");
    assert_string_equal(json_object_get_string_member(edge, "name"), "root");
    assert_words(edge, "perm", "consistent-read write");
    assert_words(edge, "shared", "consistent-read resize");
    edge = find(graph, "edges", "parent-kind", "node", "parent", "top");
    assert_string_equal(json_object_get_string_member(edge, "child"), "mem");
    assert_string_equal(json_object_get_string_member(edge, "name"), "file");
    assert_words(edge, "role", "filtered primary");
    assert_words(edge, "perm", "consistent-read write");
    assert_int_equal(count(graph, "nodes"), 3);
    node = find(graph, "nodes", "kind", "backend", "name", "disk");
    assert_int_equal(json_object_get_int_member(node, "refcount"), 1);
    blk_unref(blk);
    bdrv_unref(raw);
    bdrv_unref(mem);
}

static void a_shared_node_appears_once(void **state)
{
    BlockDriverState *mem = open_node_with("driver=memory,size=1M,node-name=mem", 0);
    BlockDriverState *a = open_node_with("driver=raw,node-name=a,file=mem", 0);
    BlockDriverState *b = open_node_with("driver=raw,node-name=b,file=mem", 0);
    g_autoptr(JsonObject) below_a = graph_of(a);
    g_autoptr(JsonObject) all = graph_of(NULL);

    /* Below a there is nothing of b. */
    assert_int_equal(count(below_a, "nodes"), 2);
    assert_int_equal(count(below_a, "edges"), 1);
    assert_int_equal(count(all, "nodes"), 3);
    assert_int_equal(count(all, "edges"), 2);
    find(all, "nodes", "kind", "node", "name", "mem");
    find(all, "edges", "parent", "a", "child", "mem");
    find(all, "edges", "parent", "b", "child", "mem");
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(mem);
}

static void nothing_is_an_empty_graph(void **state)
{
    g_autoptr(JsonObject) graph = graph_of(NULL);

    assert_int_equal(count(graph, "nodes"), 0);
    assert_int_equal(count(graph, "edges"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_say_what_they_are),
        cmocka_unit_test(edges_say_roles_and_permissions),
        cmocka_unit_test(a_shared_node_appears_once),
        cmocka_unit_test(nothing_is_an_empty_graph),
    };

    return cmocka_run_group_tests(tests, blockgraph_group_setup, blockgraph_group_teardown);
}
