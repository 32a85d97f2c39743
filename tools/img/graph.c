/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* graph: the nodes that an image consists of, and how they hang together. */
#include "tools/img/commands.h"

#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/json-print.h"
#include "tools/tool.h"

static const ImgOption graph_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    IMG_OPTION_FORCE_SHARE,
    { "output", IMG_OPT_GRAPH_OUTPUT, "tree|json|dot", "the form of the output (default: tree)" },
    { NULL },
};

/* What is known of a node, in one line. */
static char *node_text(BlockDriverState *bs)
{
    int64_t length = bdrv_getlength(bs);
    g_autofree char *size = length >= 0 ? tool_size_text((uint64_t)length) : g_strdup("no size");

    return g_strdup_printf("%s: %s, %s%s%s", bdrv_get_filename(bs), bdrv_get_format_name(bs), size,
                           bdrv_is_read_only(bs) ? ", read-only" : "",
                           bdrv_was_probed(bs) ? ", probed" : "");
}

/* ---- Tree ---------------------------------------------------------------------- */

typedef struct Tree {
    GHashTable *seen; /* nodes that have been drawn with what is below them */
    GString *stem;    /* what stands left of the children's lines */
} Tree;

static void print_tree(Tree *tree, BlockDriverState *bs) GRAPH_RDLOCK;
static void print_child(Tree *tree, BdrvChild *child, bool last) GRAPH_RDLOCK;

static void print_child(Tree *tree, BdrvChild *child, bool last)
{
    size_t length = tree->stem->len;

    printf("%s%s %s -> ", tree->stem->str, last ? "`--" : "|--", bdrv_child_name(child));
    g_string_append(tree->stem, last ? "    " : "|   ");
    print_tree(tree, bdrv_child_bs(child));
    g_string_truncate(tree->stem, length);
}

static void print_tree(Tree *tree, BlockDriverState *bs)
{
    g_autofree char *text = node_text(bs);
    BdrvChild *next;

    if (!g_hash_table_add(tree->seen, bs)) {
        printf("%s (see above)\n", text);
        return;
    }
    printf("%s\n", text);
    for (BdrvChild *child = bdrv_next_child(bs, NULL); child != NULL; child = next) {
        next = bdrv_next_child(bs, child);
        print_child(tree, child, next == NULL);
    }
}

static void output_tree(BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    Tree tree = { .seen = seen, .stem = g_string_new(NULL) };

    bdrv_graph_rdlock_main_loop();
    print_tree(&tree, bs);
    bdrv_graph_rdunlock_main_loop();
    g_string_free(tree.stem, TRUE);
}

/* ---- DOT -------------------------------------------------------------------------- */

static void print_dot(GHashTable *seen, BlockDriverState *bs) GRAPH_RDLOCK;
static void print_dot(GHashTable *seen, BlockDriverState *bs)
{
    g_autofree char *text = node_text(bs);
    g_autofree char *name = json_quote(bdrv_get_node_name(bs));
    g_autofree char *label = json_quote(text);

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    printf("    %s [label=%s];\n", name, label);
    for (BdrvChild *child = bdrv_next_child(bs, NULL); child != NULL;
         child = bdrv_next_child(bs, child)) {
        g_autofree char *child_name = json_quote(bdrv_get_node_name(bdrv_child_bs(child)));
        g_autofree char *edge = json_quote(bdrv_child_name(child));

        printf("    %s -> %s [label=%s];\n", name, child_name, edge);
        print_dot(seen, bdrv_child_bs(child));
    }
}

static void output_dot(BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    printf("digraph blockgraph {\n    node [shape=box];\n");
    bdrv_graph_rdlock_main_loop();
    print_dot(seen, bs);
    bdrv_graph_rdunlock_main_loop();
    printf("}\n");
}

/* ---- JSON ------------------------------------------------------------------------- */

static void output_json(BlockDriverState *bs)
{
    g_autoptr(JsonObject) graph = NULL;

    bdrv_graph_rdlock_main_loop();
    graph = bdrv_graph_to_json(bs);
    bdrv_graph_rdunlock_main_loop();
    img_print_json(graph);
}

static int graph_run(ImgArgs *args)
{
    static const struct {
        const char *name;
        void (*output)(BlockDriverState *bs);
    } forms[] = { { "tree", output_tree }, { "json", output_json }, { "dot", output_dot } };
    g_autoptr(BlockBackend) blk = NULL;
    const char *form = "tree";
    size_t i = 0;
    int c;

    while ((c = img_args_next(args)) > 0) {
        form = optarg;
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    while (i < G_N_ELEMENTS(forms) && strcmp(forms[i].name, form) != 0) {
        i++;
    }
    if (i == G_N_ELEMENTS(forms)) {
        return img_usage_error(args, "--output expects 'tree', 'json' or 'dot' not '%s'", form);
    }
    if (img_operand_count(args) != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    blk = img_open_operand(args, 0);
    if (blk == NULL) {
        return 1;
    }
    forms[i].output(blk_bs(blk));
    return 0;
}

const ImgCommand img_graph_command = {
    .name = "graph",
    .summary = "Show the nodes an image consists of",
    .synopsis = "[-f FMT | --image-opts] [-U] [--output tree|json|dot] FILENAME",
    .options = graph_options,
    .operands = "FILENAME\n   the image",
    .run = graph_run,
};
