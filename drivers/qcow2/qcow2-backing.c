/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: another backing file in the header of an image that is open. */
#include <errno.h>
#include <string.h>
#include "drivers/qcow2/qcow2-amend.h"

typedef struct Task {
    Qcow2State *s;
    Qcow2Extensions ext; /* borrows all from the present ones but the format */
    const char *name;    /* "": none */
    GError **errp;
    int ret;
    bool done; /* atomic */
} Task;

static void coroutine_fn task_entry(void *opaque)
{
    Task *task = opaque;
    Qcow2Writer *w = task->s->writer;

    bdrv_graph_co_rdlock();
    co_mutex_lock(&w->lock);
    task->ret = qcow2_writer_begin(w); /* it is a change, as any other */
    co_mutex_unlock(&w->lock);
    if (task->ret < 0) {
        block_error_set_errno(task->errp, task->ret, "'%s': could not write the header",
                              task->s->name);
    } else {
        task->ret = qcow2_header_switch(task->s, &task->s->header, &task->ext, task->name,
                                        task->errp);
    }
    bdrv_graph_co_rdunlock();
    __atomic_store_n(&task->done, true, __ATOMIC_RELEASE);
    aio_wait_kick();
}

bool qcow2_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                               GError **errp)
{
    Qcow2State *s = bdrv_state(bs);
    Task task = { .s = s, .ext = s->ext, .name = filename ? filename : "", .errp = errp };

    if (!s->writer) {
        block_error_set(errp, EACCES, "'%s': the image is not open for writing", s->name);
        return false;
    }
    if (filename && (s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW)) {
        block_error_set(errp, EINVAL, "'%s': backing file cannot be set because the data file "
                        "is to stay valid as a raw image (data_file_raw)", s->name);
        return false;
    }
    if (strlen(task.name) > QCOW2_MAX_BACKING_NAME ||
        (format && strlen(format) > QCOW2_MAX_BACKING_FORMAT)) {
        block_error_set(errp, EINVAL, "'%s': the backing file's name has %zu bytes, its format's "
                        "%zu, and %d and %d are the most", s->name, strlen(task.name),
                        format ? strlen(format) : 0, QCOW2_MAX_BACKING_NAME,
                        QCOW2_MAX_BACKING_FORMAT);
        return false;
    }
    task.ext.backing_format = (char *)format;
    coroutine_enter(coroutine_create(task_entry, &task));
    AIO_WAIT_WHILE(!__atomic_load_n(&task.done, __ATOMIC_ACQUIRE));
    if (task.ret < 0) {
        return false;
    }
    g_free(s->ext.backing_format);
    s->ext.backing_format = g_strdup(format);
    return true;
}
