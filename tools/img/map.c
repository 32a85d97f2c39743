/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * map: where an image's content lies. All is gathered before anything is
 * printed, so that after an error there is no half document.
 */
#include "tools/img/commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tools/img/common.h"
#include "tools/img/map.h"
#include "tools/tool.h"

enum {
    MAP_OPT_OUTPUT = 512,
};

static const ImgOption map_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "start-offset", 's', "OFFSET", "begin at this offset in bytes (default: 0)" },
    { "max-length", 'l', "LENGTH", "stop after this many bytes" },
    IMG_OPTION_FORCE_SHARE,
    { "output", MAP_OPT_OUTPUT, "human|json|ascii",
      "the form of the output (default: human); ascii is a picture" },
    { NULL },
};

typedef enum MapOutput {
    MAP_HUMAN,
    MAP_JSON,
    MAP_ASCII,
} MapOutput;

static const char *const output_words[] = { "human", "json", "ascii", NULL };

/* Whether @next goes on where @entry ends. */
static bool entry_continues(const MapEntry *entry, const MapEntry *next)
{
    return entry->depth == next->depth && entry->present == next->present &&
           entry->zero == next->zero && entry->data == next->data &&
           entry->compressed == next->compressed && entry->has_offset == next->has_offset &&
           entry->start + entry->length == next->start && g_strcmp0(entry->file, next->file) == 0 &&
           (!entry->has_offset || entry->offset + entry->length == next->offset);
}

/*
 * Count down the backing chain as users count: filters are no layers, and what
 * is behind the end of a short layer belongs to the one above. @layers of the
 * chain do not have it.
 */
static void set_depth(BlockDriverState *bs, int layers, MapEntry *entry)
{
    bdrv_graph_rdlock_main_loop();
    while (layers-- > 0) {
        BdrvChild *child = bdrv_filter_or_cow_child(bs);

        if (child == NULL) {
            break;
        }
        if (!bdrv_is_filter(bs) && entry->start >= bdrv_getlength(bdrv_child_bs(child))) {
            entry->present = false;
            break;
        }
        entry->depth += !bdrv_is_filter(bs);
        bs = bdrv_child_bs(child);
    }
    bdrv_graph_rdunlock_main_loop();
}

/* What lies at @offset; returns 0 or -errno. */
static int read_entry(BlockDriverState *bs, int64_t offset, int64_t bytes, MapEntry *entry)
{
    BlockDriverState *file = NULL;
    int64_t pnum = 0;
    int64_t map = 0;
    int layers = 0;
    int ret = bdrv_block_status_above(bs, NULL, offset, bytes, &pnum, &map, &file, &layers);

    if (ret < 0) {
        return ret;
    }
    *entry = (MapEntry){
        .start = offset,
        .length = pnum,
        .present = ret & BDRV_BLOCK_ALLOCATED,
        .zero = ret & BDRV_BLOCK_ZERO,
        .data = ret & BDRV_BLOCK_DATA,
        .compressed = ret & BDRV_BLOCK_COMPRESSED,
        .has_offset = ret & BDRV_BLOCK_OFFSET_VALID,
    };
    if (entry->has_offset) {
        entry->offset = map;
        entry->file = file != NULL ? bdrv_get_filename(file) : NULL;
    }
    set_depth(bs, layers, entry);
    return 0;
}

/* Collect the entries of [offset, end), adjoining ones joined. */
static bool collect(BlockBackend *blk, const char *filename, int64_t offset, int64_t end,
                    GArray *entries)
{
    while (offset < end) {
        MapEntry *last =
            entries->len > 0 ? &g_array_index(entries, MapEntry, entries->len - 1) : NULL;
        MapEntry next;
        int ret = read_entry(blk_bs(blk), offset, end - offset, &next);

        if (ret < 0) {
            img_report_io_error(filename, "Could not read file metadata at offset", offset, ret);
            return false;
        }
        if (last != NULL && entry_continues(last, &next)) {
            last->length += next.length;
        } else {
            g_array_append_val(entries, next);
        }
        offset += next.length;
    }
    return true;
}

static const char *word(bool value)
{
    return value ? "true" : "false";
}

static void print_json(const GArray *entries)
{
    for (guint i = 0; i < entries->len; i++) {
        const MapEntry *e = &g_array_index(entries, MapEntry, i);

        printf("%s{ \"start\": %" PRId64 ", \"length\": %" PRId64 ", \"depth\": %d, "
               "\"present\": %s, \"zero\": %s, \"data\": %s, \"compressed\": %s",
               i == 0 ? "[" : ",\n", e->start, e->length, e->depth, word(e->present), word(e->zero),
               word(e->data), word(e->compressed));
        if (e->has_offset) {
            printf(", \"offset\": %" PRId64, e->offset);
        }
        printf("}");
    }
    printf("]\n");
}

/* Rows of what is stored as it is; false at one that is stored otherwise. */
static bool print_human(const GArray *entries)
{
    printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    for (guint i = 0; i < entries->len; i++) {
        const MapEntry *e = &g_array_index(entries, MapEntry, i);

        if (!e->data || e->zero) {
            continue;
        }
        if (!e->has_offset) {
            tool_error("File contains external, encrypted or compressed clusters.");
            return false;
        }
        printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", (uint64_t)e->start,
               (uint64_t)e->length, (uint64_t)e->offset, e->file != NULL ? e->file : "");
    }
    return true;
}

static bool take_output(const ImgArgs *args, MapOutput *output)
{
    for (int i = 0; output_words[i] != NULL; i++) {
        if (strcmp(optarg, output_words[i]) == 0) {
            *output = (MapOutput)i;
            return true;
        }
    }
    img_usage_error(args, "--output expects 'human', 'json' or 'ascii' not '%s'", optarg);
    return false;
}

static int map_image(const ImgArgs *args, int64_t start, int64_t max_length, MapOutput output)
{
    const char *filename = img_operand(args, 0);
    g_autoptr(BlockBackend) blk = img_open_operand(args, 0);
    g_autoptr(GArray) entries = g_array_new(FALSE, FALSE, sizeof(MapEntry));
    int64_t length;

    if (blk == NULL) {
        return 1;
    }
    length = blk_getlength(blk);
    if (length < 0) {
        tool_error("Failed to get size for '%s'", filename);
        return 1;
    }
    if (max_length >= 0 && start < length) {
        length = MIN(length, start + MIN(max_length, length - start));
    }
    if (!collect(blk, filename, start, length, entries)) {
        return 1;
    }
    if (output == MAP_HUMAN) {
        return print_human(entries) ? 0 : 1;
    }
    if (output == MAP_ASCII) {
        img_map_draw(entries, start, MAX(start, length));
        return 0;
    }
    if (entries->len == 0) {
        MapEntry nothing = { .start = start };

        g_array_append_val(entries, nothing);
    }
    print_json(entries);
    return 0;
}

static int map_run(ImgArgs *args)
{
    int64_t start = 0;
    int64_t max_length = -1;
    MapOutput output = MAP_HUMAN;
    bool ok = true;
    int c;

    while (ok && (c = img_args_next(args)) > 0) {
        if (c == MAP_OPT_OUTPUT) {
            ok = take_output(args, &output);
        } else {
            ok = c == 's' ? tool_parse_size("start offset", optarg, 0, INT64_MAX, &start)
                          : tool_parse_size("max length", optarg, 0, INT64_MAX, &max_length);
        }
    }
    if (!ok) {
        return 1;
    }
    if (c == IMG_ARGS_LEAVE) {
        return args->status;
    }
    if (img_operand_count(args) != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    return map_image(args, start, max_length, output);
}

const ImgCommand img_map_command = {
    .name = "map",
    .summary = "Dump image metadata",
    .synopsis = "[-f FMT | --image-opts] [-s OFFSET] [-l LENGTH] [-U]\n"
                "[--output human|json|ascii] FILENAME",
    .options = map_options,
    .operands = "FILENAME\n   the image",
    .run = map_run,
};
