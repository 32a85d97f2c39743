/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* break, remove_break, resume and wait_break: hold requests where one likes. */
#include "tools/io/break.h"

#include <stdio.h>
#include <string.h>
#include "blockgraph/block-driver.h"
#include "tools/io/commands.h"

/* A tag that was asked for, and whether its request was said to be held. */
typedef struct IoBreak {
    char *tag;
    bool announced;
} IoBreak;

static void free_break(void *opaque)
{
    IoBreak *b = opaque;

    g_free(b->tag);
    g_free(b);
}

/* The node that takes debug commands: the first one on the way down to the file. */
static BlockDriverState *find_debug_node(const IoSession *s, const BlockDriver **drv)
{
    BlockDriverState *bs = s->blk != NULL ? blk_bs(s->blk) : NULL;

    bdrv_graph_rdlock_main_loop();
    for (*drv = NULL; bs != NULL;) {
        BdrvChild *child = bdrv_primary_child(bs);

        *drv = bdrv_find_format(bdrv_get_format_name(bs));
        if (*drv != NULL && (*drv)->bdrv_debug_command != NULL) {
            break;
        }
        bs = child != NULL ? bdrv_child_bs(child) : NULL;
    }
    bdrv_graph_rdunlock_main_loop();
    return bs;
}

static int debug_command(const IoSession *s, const char *command, const char *argument)
{
    const BlockDriver *drv;
    BlockDriverState *bs = find_debug_node(s, &drv);

    return bs != NULL ? drv->bdrv_debug_command(bs, command, argument) : -ENOTSUP;
}

static bool is_held(const IoSession *s, const char *tag)
{
    const BlockDriver *drv;
    BlockDriverState *bs = find_debug_node(s, &drv);

    return bs != NULL && drv->bdrv_debug_is_suspended != NULL &&
           drv->bdrv_debug_is_suspended(bs, tag);
}

void io_announce_breaks(IoSession *s)
{
    for (guint i = 0; s->breaks != NULL && i < s->breaks->len; i++) {
        IoBreak *b = g_ptr_array_index(s->breaks, i);

        if (!b->announced && is_held(s, b->tag)) {
            printf("blkdebug: Suspended request '%s'\n", b->tag);
            b->announced = true;
            s->announcements++;
        }
    }
}

static void note_break(IoSession *s, const char *tag)
{
    IoBreak *b = g_new0(IoBreak, 1);

    if (s->breaks == NULL) {
        s->breaks = g_ptr_array_new_with_free_func(free_break);
    }
    b->tag = g_strdup(tag);
    g_ptr_array_add(s->breaks, b);
}

static void forget_break(IoSession *s, const char *tag)
{
    for (guint i = 0; s->breaks != NULL && i < s->breaks->len; i++) {
        IoBreak *b = g_ptr_array_index(s->breaks, i);

        if (strcmp(b->tag, tag) == 0) {
            g_ptr_array_remove_index(s->breaks, i);
            return;
        }
    }
}

static bool break_run(IoSession *s, int argc, char **argv)
{
    g_autofree char *argument = g_strdup_printf("%s %s", argv[1], argv[2]);
    int ret = debug_command(s, "break", argument);

    if (ret < 0) {
        printf("Could not set breakpoint: %s\n", g_strerror(-ret));
        return false;
    }
    note_break(s, argv[2]);
    return true;
}

/* Resume a request that is held, and let it run until it waits for something. */
static bool let_go(IoSession *s, const char *command, const char *tag, const char *error)
{
    bool held = is_held(s, tag);
    int ret;

    io_announce_breaks(s);
    ret = debug_command(s, command, tag);
    if (ret < 0) {
        printf("%s: %s\n", error, g_strerror(-ret));
        return false;
    }
    if (held) {
        printf("blkdebug: Resuming request '%s'\n", tag);
    }
    forget_break(s, tag);
    aio_poll(aio_context_main(), false);
    return true;
}

static bool remove_break_run(IoSession *s, int argc, char **argv)
{
    g_autofree char *error = g_strdup_printf("Could not remove breakpoint %s", argv[1]);

    return let_go(s, "remove_break", argv[1], error);
}

static bool resume_run(IoSession *s, int argc, char **argv)
{
    return let_go(s, "resume", argv[1], "Could not resume request");
}

static bool wait_break_run(IoSession *s, int argc, char **argv)
{
    while (!is_held(s, argv[1])) {
        if (s->in_flight == 0) {
            printf("Could not wait for breakpoint %s: no request is in flight\n", argv[1]);
            return false;
        }
        aio_poll(aio_context_main(), true);
    }
    return true;
}

const IoCommand io_break_command = {
    .name = "break",
    .arguments = "event tag",
    .summary = "holds the next request that comes to an event, and calls it by a tag",
    .min_arguments = 2,
    .max_arguments = 2,
    .run = break_run,
};

const IoCommand io_remove_break_command = {
    .name = "remove_break",
    .arguments = "tag",
    .summary = "takes a breakpoint back; a request that is held there goes on",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = remove_break_run,
};

const IoCommand io_resume_command = {
    .name = "resume",
    .arguments = "tag",
    .summary = "lets the request go on that is held under a tag",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = resume_run,
};

const IoCommand io_wait_break_command = {
    .name = "wait_break",
    .arguments = "tag",
    .summary = "waits until a request is held under a tag",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = wait_break_run,
};
