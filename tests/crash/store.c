/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disks in memory: their bytes, and which of them are there.
 */
#include <string.h>

#include "store.h"

/* ---- Images ----------------------------------------------------------------------- */

void crash_image_clear(CrashImage *image)
{
    g_free(image->data);
    *image = (CrashImage){0};
}

static void make_room(CrashImage *image, int64_t room)
{
    int64_t more = MAX(room, image->room * 2);

    if (room > image->room) {
        image->data = g_realloc(image->data, more);
        memset(image->data + image->room, 0, more - image->room);
        image->room = more;
    }
}

void crash_image_write(CrashImage *image, int64_t offset, int64_t bytes, const uint8_t *data)
{
    make_room(image, offset + bytes);
    memcpy(image->data + offset, data, bytes);
}

void crash_image_fill(CrashImage *image, int64_t offset, int64_t bytes, uint8_t byte)
{
    if (byte) {
        make_room(image, offset + bytes);
    }
    bytes = MIN(bytes, image->room - offset);
    if (bytes > 0) {
        memset(image->data + offset, byte, bytes);
    }
}

void crash_image_read(const CrashImage *image, int64_t offset, int64_t bytes, uint8_t *data)
{
    int64_t n = CLAMP(image->room - offset, 0, bytes);

    if (n > 0) {
        memcpy(data, image->data + offset, n);
    }
    memset(data + n, 0, bytes - n);
}

void crash_image_set_length(CrashImage *image, int64_t length)
{
    crash_image_fill(image, length, MAX(image->length - length, 0), 0);
    image->length = length;
}

void crash_image_copy(CrashImage *to, const CrashImage *from)
{
    int64_t used = MIN(from->length, from->room);

    make_room(to, used);
    if (used > 0) {
        memcpy(to->data, from->data, used);
    }
    crash_image_fill(to, used, to->room - used, 0);
    to->length = from->length;
}

/* ---- Stores ----------------------------------------------------------------------- */

static CrashStore *active;

static void disk_free(void *opaque)
{
    CrashDisk *disk = opaque;

    crash_image_clear(&disk->image);
    g_free(disk->name);
    g_free(disk);
}

CrashStore *crash_store_new(void)
{
    CrashStore *store = g_new0(CrashStore, 1);

    store->disks = g_ptr_array_new_with_free_func(disk_free);
    return store;
}

void crash_store_free(CrashStore *store)
{
    if (store) {
        g_assert(store != active);
        g_ptr_array_unref(store->disks);
        g_free(store);
    }
}

CrashStore *crash_store_copy(const CrashStore *store)
{
    CrashStore *copy = crash_store_new();

    for (unsigned i = 0; i < store->disks->len; i++) {
        CrashDisk *disk = store->disks->pdata[i];

        crash_image_copy(crash_store_image(copy, crash_store_add(copy, disk->name)),
                         &disk->image);
    }
    copy->discard_byte = store->discard_byte;
    return copy;
}

unsigned crash_store_add(CrashStore *store, const char *name)
{
    CrashDisk *disk = g_new0(CrashDisk, 1);

    g_assert(crash_store_find(store, name) < 0);
    disk->name = g_strdup(name);
    g_ptr_array_add(store->disks, disk);
    return store->disks->len - 1;
}

CrashImage *crash_store_image(const CrashStore *store, unsigned disk)
{
    return &((CrashDisk *)store->disks->pdata[disk])->image;
}

int crash_store_find(const CrashStore *store, const char *name)
{
    for (unsigned i = 0; i < store->disks->len; i++) {
        if (g_str_equal(((CrashDisk *)store->disks->pdata[i])->name, name)) {
            return i;
        }
    }
    return -1;
}

CrashStore *crash_store_activate(CrashStore *store)
{
    CrashStore *before = active;

    active = store;
    return before;
}

CrashStore *crash_store_active(void)
{
    return active;
}
