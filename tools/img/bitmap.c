/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmap: change the dirty bitmaps that an image stores. */
#include <errno.h>
#include "tools/img/commands.h"
#include "tools/img/common.h"
#include "tools/tool.h"

enum {
    BITMAP_OPT_ADD = 512,
    BITMAP_OPT_REMOVE,
    BITMAP_OPT_CLEAR,
    BITMAP_OPT_ENABLE,
    BITMAP_OPT_DISABLE,
    BITMAP_OPT_MERGE,
};

static const ImgOption bitmap_options[] = {
    IMG_OPTION_FORMAT,
    IMG_OPTION_IMAGE_OPTS,
    { "add", BITMAP_OPT_ADD, NULL, "create BITMAP, and have it record writes from now on" },
    { "granularity", 'g', "SIZE",
      "with --add: how much one bit stands for (default: the\n"
      "cluster size, within 4k to 64k)" },
    { "remove", BITMAP_OPT_REMOVE, NULL, "remove BITMAP" },
    { "clear", BITMAP_OPT_CLEAR, NULL, "clear BITMAP" },
    { "enable", BITMAP_OPT_ENABLE, NULL, "have BITMAP record writes from now on" },
    { "disable", BITMAP_OPT_DISABLE, NULL, "have BITMAP not record writes any more" },
    { "merge", BITMAP_OPT_MERGE, "SOURCE", "add what bitmap SOURCE has recorded to BITMAP" },
    { "source-file", 'b', "FILE", "with --merge: the image that has SOURCE, if another" },
    { "source-format", 'F', "FMT", "the format of that image; without it, it is probed" },
    { NULL },
};

/* One of the actions, in the order they were given. */
typedef struct Action {
    int what;           /* BITMAP_OPT_… */
    const char *source; /* of a merge */
} Action;

typedef struct BitmapArgs {
    ImgArgs *args;
    GArray *actions; /* Action */
    bool add;
    bool merge;
    const char *source_file;
    const char *source_format;
    int64_t granularity; /* 0: the default */
    const char *name;
    BlockDriverState *bs;
    BlockDriverState *source_bs; /* has the sources of merges */
} BitmapArgs;

/* ---- The actions --------------------------------------------------------------- */

static BdrvDirtyBitmap *find_bitmap(BlockDriverState *bs, const char *name, GError **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_find(bs, name);

    if (bitmap == NULL) {
        block_error_set(errp, ENOENT, "Dirty bitmap '%s' not found", name);
    }
    return bitmap;
}

static bool add_bitmap(BitmapArgs *b, GError **errp)
{
    int64_t granularity = b->granularity;
    BdrvDirtyBitmap *bitmap;

    if (granularity == 0) {
        granularity = bdrv_dirty_bitmap_default_granularity(b->bs);
    }
    if (!bdrv_dirty_bitmap_can_store(b->bs, b->name, granularity, errp)) {
        return false;
    }
    bitmap = bdrv_dirty_bitmap_create(b->bs, b->name, granularity, errp);
    if (bitmap != NULL) {
        bdrv_dirty_bitmap_set_persistent(bitmap, true);
    }
    return bitmap != NULL;
}

static bool remove_bitmap(BitmapArgs *b, GError **errp)
{
    BdrvDirtyBitmap *bitmap = find_bitmap(b->bs, b->name, errp);

    if (bitmap == NULL ||
        !bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_READONLY, errp) ||
        !bdrv_dirty_bitmap_remove_stored(b->bs, b->name, errp)) {
        return false;
    }
    bdrv_dirty_bitmap_remove(bitmap);
    return true;
}

static bool merge_bitmap(BitmapArgs *b, const char *source_name, GError **errp)
{
    BdrvDirtyBitmap *bitmap = find_bitmap(b->bs, b->name, errp), *source;

    if (bitmap == NULL || !bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_DEFAULT, errp)) {
        return false;
    }
    source = find_bitmap(b->source_bs, source_name, errp);
    return source != NULL && bdrv_dirty_bitmap_merge(bitmap, source, errp);
}

/* Clear, enable or disable. */
static bool change_bitmap(BitmapArgs *b, int what, GError **errp)
{
    BdrvDirtyBitmap *bitmap = find_bitmap(b->bs, b->name, errp);
    unsigned refused = what == BITMAP_OPT_CLEAR ? BDRV_BITMAP_DEFAULT : BDRV_BITMAP_ALLOW_READONLY;

    if (bitmap == NULL || !bdrv_dirty_bitmap_check(bitmap, refused, errp)) {
        return false;
    }
    if (what == BITMAP_OPT_CLEAR) {
        bdrv_dirty_bitmap_clear(bitmap);
    } else if (what == BITMAP_OPT_ENABLE) {
        bdrv_dirty_bitmap_enable(bitmap);
    } else {
        bdrv_dirty_bitmap_disable(bitmap);
    }
    return true;
}

static bool act(BitmapArgs *b, const Action *action)
{
    static const char *const names[] = { "add", "remove", "clear", "enable", "disable", "merge" };
    GError *err = NULL;
    bool ok;

    switch (action->what) {
    case BITMAP_OPT_ADD:
        ok = add_bitmap(b, &err);
        break;
    case BITMAP_OPT_REMOVE:
        ok = remove_bitmap(b, &err);
        break;
    case BITMAP_OPT_MERGE:
        ok = merge_bitmap(b, action->source, &err);
        break;
    default:
        ok = change_bitmap(b, action->what, &err);
        break;
    }
    if (!ok) {
        tool_error_take(err, "Operation %s on bitmap %s failed: ",
                        names[action->what - BITMAP_OPT_ADD], b->name);
    }
    return ok;
}

/* ---- The command ----------------------------------------------------------------- */

/* The image with the sources of merges; its bitmaps are loaded for reading. */
static BlockBackend *open_source(BitmapArgs *b)
{
    BlockBackend *blk = img_open(b->args, b->source_file, b->source_format, false, 0);
    GError *err = NULL;

    if (blk != NULL && !bdrv_dirty_bitmaps_load(blk_bs(blk), &err)) {
        tool_error_take(err, "Could not open '%s': ", b->source_file);
        g_clear_pointer(&blk, blk_unref);
    }
    return blk;
}

/* All actions up to the first that fails; what was done before it stays done. */
static int change_image(BitmapArgs *b)
{
    g_autoptr(BlockBackend) blk = img_open_operand(b->args, BDRV_O_RDWR);
    g_autoptr(BlockBackend) source = NULL;
    GError *err = NULL;
    bool ok = true;

    if (blk == NULL) {
        return 1;
    }
    b->bs = b->source_bs = blk_bs(blk);
    if (b->source_file != NULL) {
        source = open_source(b);
        if (source == NULL) {
            return 1;
        }
        b->source_bs = blk_bs(source);
    }
    for (guint i = 0; i < b->actions->len && ok; i++) {
        ok = act(b, &g_array_index(b->actions, Action, i));
    }
    if (!bdrv_dirty_bitmaps_store(b->bs, &err)) {
        tool_error_take(err, "Could not store the bitmaps of '%s': ", img_operand(b->args, 0));
        ok = false;
    }
    return ok ? 0 : 1;
}

/* What is wrong about the options together, or NULL. */
static const char *find_conflict(const BitmapArgs *b)
{
    if (img_operand_count(b->args) != 2) {
        return "Expecting filename and bitmap name";
    }
    if (b->actions->len == 0) {
        return "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    }
    if (b->granularity != 0 && !b->add) {
        return "granularity only supported with --add";
    }
    if (b->source_format != NULL && b->source_file == NULL) {
        return "-F only supported with -b";
    }
    if (b->source_file != NULL && !b->merge) {
        return "Merge bitmap source file only supported with --merge";
    }
    return NULL;
}

/* Take one option; false if its value is wrong. */
static bool take_option(BitmapArgs *b, int letter)
{
    Action action = { .what = letter };

    switch (letter) {
    case 'g':
        return tool_parse_size("granularity", optarg, 0, INT64_MAX, &b->granularity);
    case 'b':
        b->source_file = optarg;
        return true;
    case 'F':
        b->source_format = optarg;
        return true;
    case BITMAP_OPT_MERGE:
        action.source = optarg;
        b->merge = true;
        break;
    default:
        b->add |= letter == BITMAP_OPT_ADD;
        break;
    }
    g_array_append_val(b->actions, action);
    return true;
}

static int bitmap_run(ImgArgs *args)
{
    g_autoptr(GArray) actions = g_array_new(false, false, sizeof(Action));
    BitmapArgs b = { .args = args, .actions = actions };
    const char *conflict;
    int letter;

    while ((letter = img_args_next(args)) > 0) {
        if (!take_option(&b, letter)) {
            return 1;
        }
    }
    if (letter == IMG_ARGS_LEAVE) {
        return args->status;
    }
    conflict = find_conflict(&b);
    if (conflict != NULL) {
        tool_error("%s", conflict);
        return 1;
    }
    if (!img_check_format_options(args)) {
        return 1;
    }
    b.name = img_operand(args, 1);
    return change_image(&b);
}

/* QEMU 10.0 has these with their letters only, if at all. */
static const char *const ours_alone[] = { "format", NULL };

const ImgCommand img_bitmap_command = {
    .name = "bitmap",
    .summary = "Perform modifications of the persistent bitmap in the image",
    .synopsis = "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)...\n"
                "[-f FMT | --image-opts] [-b FILE [-F FMT]] [-g SIZE] FILENAME BITMAP",
    .options = bitmap_options,
    .ours_alone = ours_alone,
    .operands = "FILENAME BITMAP\n   the image, and the name of the bitmap",
    .run = bitmap_run,
};
