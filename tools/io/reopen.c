/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* reopen: other options for the image that is open. */
#include <getopt.h>
#include "tools/img/common.h"
#include "tools/io/commands.h"
#include "tools/tool.h"

typedef struct Reopen {
    bool to_read_only, to_writable;
    const char *cache;
    int flags;
    bool writethrough;
    JsonObject *options;
} Reopen;

static bool take_option(Reopen *re, int letter)
{
    GError *err = NULL;
    g_autoptr(JsonObject) more = NULL;

    switch (letter) {
    case 'c':
        re->cache = optarg;
        if (!img_parse_cache(optarg, &re->flags, &re->writethrough)) {
            tool_error("Invalid cache option: %s", optarg);
            return false;
        }
        return true;
    case 'o':
        more = block_options_parse(optarg, NULL, &err);
        if (more == NULL) {
            tool_error_report(err);
            return false;
        }
        block_options_merge(more, re->options);
        json_object_unref(re->options);
        re->options = g_steal_pointer(&more);
        return true;
    case 'r':
    case 'w':
        if (re->to_read_only || re->to_writable) {
            tool_error("Only one -r/-w option may be given");
            return false;
        }
        re->to_read_only = letter == 'r';
        re->to_writable = letter == 'w';
        return true;
    default:
        return io_wrong_usage(&io_reopen_command);
    }
}

/* Whether the options name a cache option. */
static bool names_cache(const Reopen *re, JsonObject *cache)
{
    return cache != NULL &&
           (json_object_has_member(cache, "direct") || json_object_has_member(cache, "no-flush"));
}

/* Put -r, -w and -c among the options. */
static bool complete_options(Reopen *re)
{
    JsonObject *cache = NULL;

    if (json_object_has_member(re->options, "cache") &&
        JSON_NODE_HOLDS_OBJECT(json_object_get_member(re->options, "cache"))) {
        cache = json_object_get_object_member(re->options, "cache");
    }
    if ((re->to_read_only || re->to_writable) &&
        json_object_has_member(re->options, "read-only")) {
        tool_error("Cannot set both -r/-w and 'read-only'");
        return false;
    }
    if (re->to_read_only || re->to_writable) {
        json_object_set_boolean_member(re->options, "read-only", re->to_read_only);
    }
    if (re->cache == NULL) {
        return true;
    }
    if (names_cache(re, cache)) {
        tool_error("Cannot set both -c and the cache options");
        return false;
    }
    cache = json_object_new();
    json_object_set_boolean_member(cache, "direct", (re->flags & BDRV_O_NOCACHE) != 0);
    json_object_set_boolean_member(cache, "no-flush", (re->flags & BDRV_O_NO_FLUSH) != 0);
    json_object_set_object_member(re->options, "cache", cache);
    return true;
}

static bool reopen(IoSession *s, const Reopen *re)
{
    uint64_t perm, shared;
    GError *err = NULL;

    blk_drain(s->blk);
    blk_get_perm(s->blk, &perm, &shared);
    if (re->to_read_only &&
        !blk_set_perm(s->blk, perm & ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE), shared, &err)) {
        tool_error_report(err);
        return false;
    }
    if (!bdrv_reopen(blk_bs(s->blk), re->options, &err)) {
        tool_error_report(err);
        if (re->to_read_only && !blk_set_perm(s->blk, perm, shared, NULL)) {
            tool_warning("the permission to write could not be taken back");
        }
        return false;
    }
    if (re->cache != NULL) {
        s->writethrough = re->writethrough;
    }
    return true;
}

static bool reopen_run(IoSession *s, int argc, char **argv)
{
    Reopen re = { .options = json_object_new() };
    bool ok = true;
    int letter;

    while (ok && (letter = getopt(argc, argv, "c:o:rw")) != -1) {
        ok = take_option(&re, letter);
    }
    if (ok && optind != argc) {
        ok = io_wrong_usage(&io_reopen_command);
    }
    ok = ok && complete_options(&re) && reopen(s, &re);
    json_object_unref(re.options);
    return ok;
}

const IoCommand io_reopen_command = {
    .name = "reopen",
    .arguments = "[(-r|-w)] [-c cache] [-o options]",
    .summary = "opens the image anew with other options",
    .help = "Changes the options of the image that is open.\n"
            "'reopen -o lazy-refcounts=on' does what it says to a qcow2 image.\n"
            " -r, -- for reading only\n"
            " -w, -- for reading and writing\n"
            " -c, -- the cache mode\n"
            " -o, -- the driver's options",
    .max_arguments = IO_ANY_NUMBER,
    .run = reopen_run,
};
