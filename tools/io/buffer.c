/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests' memory: made, filled, compared and shown; see buffer.h. */
#include "tools/io/buffer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/io/command.h"
#include "tools/io/numbers.h"
#include "tools/tool.h"

#define ALIGNMENT 4096
#define MISALIGNMENT 16
#define BYTES_PER_LINE 16

static bool allocate(IoBuffer *buffer, const IoSession *s, int64_t size, int pattern)
{
    size_t skip = s->misalign ? MISALIGNMENT : 0;

    if (posix_memalign(&buffer->block, ALIGNMENT, (size_t)MAX(size, 1) + skip) != 0) {
        buffer->block = NULL;
        tool_error("Could not allocate a buffer of %" G_GINT64_FORMAT " bytes", size);
        return false;
    }
    buffer->data = (uint8_t *)buffer->block + skip;
    buffer->size = (size_t)size;
    memset(buffer->data, pattern, buffer->size);
    return true;
}

bool io_buffer_init(IoBuffer *buffer, const IoSession *s, int64_t size, int pattern)
{
    memset(buffer, 0, sizeof(*buffer));
    if (!allocate(buffer, s, size, pattern)) {
        return false;
    }
    io_vector_init(&buffer->vector, 1);
    io_vector_add(&buffer->vector, buffer->data, buffer->size);
    return true;
}

static bool add_up(char **lengths, GArray *sizes, int64_t *total)
{
    *total = 0;
    for (; *lengths != NULL; lengths++) {
        int64_t size;

        if (!io_parse_number(*lengths, &size)) {
            return false;
        }
        if (size > IO_MAX_REQUEST) {
            printf("Argument '%s' exceeds maximum size %" G_GINT64_FORMAT "\n", *lengths,
                   IO_MAX_REQUEST);
            return false;
        }
        if (*total > IO_MAX_REQUEST - size) {
            printf("The total number of bytes exceed the maximum size %" G_GINT64_FORMAT "\n",
                   IO_MAX_REQUEST);
            return false;
        }
        *total += size;
        g_array_append_val(sizes, size);
    }
    return true;
}

bool io_buffer_init_pieces(IoBuffer *buffer, const IoSession *s, char **lengths, int pattern)
{
    g_autoptr(GArray) sizes = g_array_new(FALSE, FALSE, sizeof(int64_t));
    int64_t total;
    uint8_t *data;

    memset(buffer, 0, sizeof(*buffer));
    if (!add_up(lengths, sizes, &total) || !allocate(buffer, s, total, pattern)) {
        return false;
    }
    io_vector_init(&buffer->vector, (int)sizes->len);
    data = buffer->data;
    for (guint i = 0; i < sizes->len; i++) {
        size_t size = (size_t)g_array_index(sizes, int64_t, i);

        io_vector_add(&buffer->vector, data, size);
        data += size;
    }
    return true;
}

bool io_buffer_load(IoBuffer *buffer, const char *filename)
{
    FILE *file = fopen(filename, "rb");
    size_t got = 0;

    if (file == NULL) {
        io_complain("%s: %s", filename, g_strerror(errno));
        return false;
    }
    if (buffer->size > 0) {
        got = fread(buffer->data, 1, buffer->size, file);
    }
    if (ferror(file)) {
        io_complain("%s: %s", filename, g_strerror(errno));
        fclose(file);
        return false;
    }
    fclose(file);
    if (got == 0 && buffer->size > 0) {
        io_complain("%s: file is empty", filename);
        return false;
    }
    while (got < buffer->size) {
        size_t more = MIN(got, buffer->size - got);

        memcpy(buffer->data + got, buffer->data, more);
        got += more;
    }
    return true;
}

void io_buffer_clear(IoBuffer *buffer)
{
    if (buffer->block != NULL) {
        io_vector_destroy(&buffer->vector);
        free(buffer->block);
    }
    memset(buffer, 0, sizeof(*buffer));
}

bool io_buffer_verify(const IoBuffer *buffer, int pattern, int64_t at, int64_t size)
{
    for (int64_t i = 0; i < size; i++) {
        if (buffer->data[at + i] != pattern) {
            printf("Pattern verification failed at offset %" G_GINT64_FORMAT ", %" G_GINT64_FORMAT
                   " bytes\n",
                   at, size);
            return false;
        }
    }
    return true;
}

void io_buffer_dump(const IoBuffer *buffer, int64_t offset)
{
    for (size_t i = 0; i < buffer->size; i += BYTES_PER_LINE) {
        size_t count = MIN(buffer->size - i, (size_t)BYTES_PER_LINE);

        printf("%08" G_GINT64_MODIFIER "x:  ", (guint64)offset + i);
        for (size_t j = i; j < i + count; j++) {
            printf("%02x ", buffer->data[j]);
        }
        printf(" ");
        for (size_t j = i; j < i + count; j++) {
            printf("%c", g_ascii_isalnum(buffer->data[j]) ? buffer->data[j] : '.');
        }
        printf("\n");
    }
}
