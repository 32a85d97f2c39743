/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* open and close, also for the image on the command line; see open.h. */
#include "tools/io/open.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tools/img/common.h"
#include "tools/io/commands.h"
#include "tools/tool.h"

/* ---- Options --------------------------------------------------------------------- */

static bool take_cache(IoOpenOptions *open, const char *mode)
{
    if (!img_parse_cache(mode, &open->flags, &open->writethrough)) {
        tool_error("Invalid cache option: %s", mode);
        return false;
    }
    return true;
}

static bool take_discard(IoOpenOptions *open, const char *mode)
{
    if (strcmp(mode, "unmap") == 0 || strcmp(mode, "on") == 0) {
        open->flags |= BDRV_O_UNMAP;
    } else if (strcmp(mode, "ignore") == 0 || strcmp(mode, "off") == 0) {
        open->flags &= ~BDRV_O_UNMAP;
    } else {
        tool_error("Invalid discard option: %s", mode);
        return false;
    }
    return true;
}

static bool take_aio(IoOpenOptions *open, const char *mode)
{
    if (strcmp(mode, "native") != 0 && strcmp(mode, "threads") != 0 &&
        strcmp(mode, "io_uring") != 0) {
        tool_error("Invalid aio option: %s", mode);
        return false;
    }
    open->native_aio = strcmp(mode, "native") == 0;
    return true;
}

int io_take_open_option(IoOpenOptions *open, int letter, const char *argument)
{
    switch (letter) {
    case 'C':
        open->copy_on_read = true;
        return 1;
    case 'd':
        return take_discard(open, argument) ? 1 : -1;
    case 'i':
        return take_aio(open, argument) ? 1 : -1;
    case 'k':
        open->native_aio = true;
        return 1;
    case 'n':
        return take_cache(open, "none") ? 1 : -1;
    case 'r':
        open->read_only = true;
        return 1;
    case 's':
        open->snapshot = true;
        return 1;
    case 't':
        return take_cache(open, argument) ? 1 : -1;
    case 'U':
        open->flags |= BDRV_O_FORCE_SHARE;
        return 1;
    default:
        return 0;
    }
}

void io_open_options_clear(IoOpenOptions *open)
{
    g_clear_pointer(&open->options, json_object_unref);
}

/* ---- A layer that is thrown away ---------------------------------------------------- */

/* Make a file of no name's own for the layer above an image of @length bytes. */
static char *create_layer_file(int64_t length, GError **errp)
{
    const char *folder = g_getenv("TMPDIR");
    char *name = g_strdup_printf("%s/blockgraph-io.XXXXXX", folder != NULL ? folder : "/var/tmp");
    g_autoptr(JsonObject) options = json_object_new();
    int fd = mkstemp(name);

    if (fd < 0) {
        block_error_set(errp, errno, "Could not create temporary file '%s': %s", name,
                        g_strerror(errno));
    } else {
        close(fd);
        json_object_set_int_member(options, "size", length);
        if (bdrv_create(bdrv_find_format("qcow2"), name, options, errp)) {
            return name;
        }
        unlink(name);
    }
    g_free(name);
    return NULL;
}

/* An image above @base, whose file has no name any more. */
static BlockBackend *open_layer(BlockDriverState *base, int flags, GError **errp)
{
    int64_t length = bdrv_getlength(base);
    g_autofree char *name = create_layer_file(length, errp);
    g_autoptr(JsonObject) options = NULL;
    JsonObject *file;
    BlockBackend *blk;

    if (name == NULL) {
        return NULL;
    }
    options = json_object_new();
    file = json_object_new();
    json_object_set_string_member(file, "driver", "file");
    json_object_set_string_member(file, "filename", name);
    json_object_set_string_member(options, "driver", "qcow2");
    json_object_set_object_member(options, "file", file);
    json_object_set_string_member(options, "backing", bdrv_get_node_name(base));
    blk = blk_new_open(NULL, options, flags | BDRV_O_NO_FLUSH, &block_open_policy_follow, errp);
    unlink(name);
    return blk;
}

static BlockBackend *open_with_layer(const char *filename, const IoOpenOptions *open, int flags,
                                     GError **errp)
{
    BlockDriverState *base = bdrv_open(filename, open->options, open->flags,
                                       &block_open_policy_follow, errp);
    BlockBackend *blk;

    if (base == NULL) {
        return NULL;
    }
    blk = open_layer(base, flags & ~BDRV_O_FORCE_SHARE, errp);
    bdrv_unref(base);
    return blk;
}

/* ---- Open and close -------------------------------------------------------------------- */

static BlockBackend *try_open(const char *filename, const IoOpenOptions *open, GError **errp)
{
    int flags = open->flags | (open->read_only ? 0 : BDRV_O_RDWR) |
                (open->copy_on_read ? BDRV_O_COPY_ON_READ : 0);

    if (open->native_aio && !(open->flags & BDRV_O_NOCACHE)) {
        block_error_set(errp, EINVAL, "aio=native was specified, but it requires "
                                      "cache.direct=on, which was not specified.");
        return NULL;
    }
    if (open->snapshot) {
        return open_with_layer(filename, open, flags, errp);
    }
    return blk_new_open(filename, open->options, flags, &block_open_policy_follow, errp);
}

bool io_open(IoSession *s, const char *filename, const IoOpenOptions *open)
{
    GError *err = NULL;

    if (s->blk != NULL) {
        tool_error("file open already, try 'help close'");
        return false;
    }
    s->blk = try_open(filename, open, &err);
    if (s->blk == NULL) {
        if (filename != NULL) {
            tool_error_take(err, "can't open device %s: ", filename);
        } else {
            tool_error_take(err, "can't open: ");
        }
        return false;
    }
    s->writethrough = open->writethrough;
    if (!bdrv_is_read_only(blk_bs(s->blk))) {
        img_warn_if_guessed(blk_bs(s->blk));
    }
    return true;
}

bool io_close(IoSession *s)
{
    int ret = 0;

    if (s->blk != NULL) {
        blk_drain(s->blk);
        if (!bdrv_is_read_only(blk_bs(s->blk))) {
            ret = blk_flush(s->blk); /* closing does, but tells nobody */
        }
        if (ret < 0) {
            tool_error("Could not flush '%s': %s", bdrv_get_filename(blk_bs(s->blk)),
                       g_strerror(-ret));
        }
        blk_unref(s->blk);
    }
    s->blk = NULL;
    g_clear_pointer(&s->breaks, g_ptr_array_unref);
    return ret >= 0;
}

static bool close_run(IoSession *s, int argc, char **argv)
{
    return io_close(s);
}

/* Add what one -o says to the options. */
static bool add_options(IoOpenOptions *open, const char *text)
{
    GError *err = NULL;
    g_autoptr(JsonObject) more = block_options_parse(text, NULL, &err);

    if (more == NULL) {
        tool_error_report(err);
        return false;
    }
    if (open->options != NULL) {
        block_options_merge(more, open->options);
        json_object_unref(open->options);
    }
    open->options = g_steal_pointer(&more);
    return true;
}

static bool open_run(IoSession *s, int argc, char **argv)
{
    IoOpenOptions open = IO_OPEN_DEFAULTS;
    bool ok = true;
    int letter, taken;

    while (ok && (letter = getopt(argc, argv, "snCro:ki:t:d:U")) != -1) {
        if (letter == 'o') {
            ok = add_options(&open, optarg);
            continue;
        }
        taken = io_take_open_option(&open, letter, optarg);
        ok = taken > 0 || (taken == 0 && io_wrong_usage(&io_open_command));
    }
    if (ok && optind < argc - 1) {
        ok = io_wrong_usage(&io_open_command);
    }
    if (ok && optind == argc && open.options == NULL) {
        ok = io_wrong_usage(&io_open_command);
    }
    ok = ok && io_open(s, argv[optind], &open);
    io_open_options_clear(&open);
    return ok;
}

const IoCommand io_open_command = {
    .name = "open",
    .alias = "o",
    .arguments = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
    .summary = "opens the image at path",
    .help = "Opens an image for the other commands; one at a time.\n"
            "'open -n -o driver=raw data.img' opens a raw image past the page cache.\n"
            " -r, -- for reading only\n"
            " -s, -- what is written goes to a file that is thrown away\n"
            " -C, -- what is read from a backing file is written to the image\n"
            " -n, -- past the page cache; short for -t none\n"
            " -U, -- even if others have it open for writing (with -r)\n"
            " -k, -- native AIO; accepted with -n\n"
            " -i, -- threads, native or io_uring; accepted, the program's -i counts\n"
            " -t, -- the cache mode\n"
            " -d, -- what to do with discards: ignore or unmap\n"
            " -o, -- the driver's options",
    .min_arguments = 1,
    .max_arguments = IO_ANY_NUMBER,
    .without_image = true,
    .run = open_run,
};

const IoCommand io_close_command = {
    .name = "close",
    .alias = "c",
    .summary = "closes the image",
    .run = close_run,
};
