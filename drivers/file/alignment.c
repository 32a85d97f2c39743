/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What O_DIRECT asks for: the kernel's word where it gives it, else reads that
 * try it out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/file/file.h"

#define MIN_ALIGNMENT 512
#define MAX_ALIGNMENT 4096

/* Whether the kernel told. */
static bool ask_kernel(FileState *s)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(s->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) && stx.stx_dio_offset_align != 0) {
        s->request_alignment = MAX(stx.stx_dio_offset_align, s->sector_size);
        s->memory_alignment = stx.stx_dio_mem_align;
        return true;
    }
#endif
    return false;
}

static bool read_works(FileState *s, uint8_t *buf, size_t size)
{
    return pread(s->fd, buf, size, 0) >= 0 || errno != EINVAL;
}

bool file_detect_alignment(FileState *s, GError **errp)
{
    void *buf = NULL;
    size_t request, memory;

    if (ask_kernel(s)) {
        return true;
    }
    s->request_alignment = MAX_ALIGNMENT;
    s->memory_alignment = MAX_ALIGNMENT;
    if (file_length(s->fd, s->is_device) == 0) {
        return true; /* a read of nothing tells nothing */
    }
    if (posix_memalign(&buf, MAX_ALIGNMENT, 2 * MAX_ALIGNMENT) != 0) {
        block_error_set(errp, ENOMEM, "Could not open '%s': out of memory", s->filename);
        return false;
    }
    for (request = MAX(MIN_ALIGNMENT, s->sector_size);
         request < MAX_ALIGNMENT && !read_works(s, buf, request); request *= 2) {
    }
    for (memory = MIN_ALIGNMENT;
         memory < MAX_ALIGNMENT && !read_works(s, (uint8_t *)buf + memory, MAX_ALIGNMENT);
         memory *= 2) {
    }
    s->request_alignment = request;
    s->memory_alignment = memory;
    if (!read_works(s, buf, MAX(request, MAX_ALIGNMENT))) {
        free(buf);
        block_error_set(errp, EINVAL, "Could not open '%s': no working O_DIRECT alignment found",
                        s->filename);
        return false;
    }
    free(buf);
    return true;
}
