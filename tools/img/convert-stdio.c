/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: standard input and output, whatever they are. */
#include "tools/img/convert.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tools/tool.h"

#define SPOOL_BLOCK (64 << 10) /* bytes: zeros of that length become holes */

/* Whether a call that failed is to be made again; waits if the other end is not ready. */
static bool try_again(int fd, short events)
{
    struct pollfd pfd = { .fd = fd, .events = events };

    if (errno == EAGAIN) {
        poll(&pfd, 1, -1);
        return true;
    }
    return errno == EINTR;
}

int64_t img_read_stdin(uint8_t *buf, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = read(STDIN_FILENO, buf + done, bytes - done);

        if (n == 0) {
            break;
        }
        if (n > 0) {
            done += (size_t)n;
        } else if (!try_again(STDIN_FILENO, POLLIN)) {
            tool_error("standard input: error while reading: %s", g_strerror(errno));
            return -1;
        }
    }
    return (int64_t)done;
}

int img_write_stdout(void *opaque, const void *buf, size_t bytes)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = write(STDOUT_FILENO, (const uint8_t *)buf + done, bytes - done);

        if (n >= 0) {
            done += (size_t)n;
        } else if (!try_again(STDOUT_FILENO, POLLOUT)) {
            return -errno;
        }
    }
    return 0;
}

/* ---- Spooling ------------------------------------------------------------------------ */

/* A file without a name, in the folder for temporary files. */
static int make_spool(void)
{
    g_autofree char *name = NULL;
    GError *err = NULL;
    int fd = g_file_open_tmp("blockgraph-XXXXXX", &name, &err);

    if (fd < 0) {
        tool_error_take(err, "standard input: ");
        return -1;
    }
    unlink(name);
    return fd;
}

static bool write_spool(int fd, int64_t offset, const uint8_t *buf, int64_t bytes)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, buf, (size_t)bytes, offset);

        if (n < 0 && errno != EINTR) {
            return false;
        }
        n = MAX(n, 0);
        buf += n;
        offset += n;
        bytes -= n;
    }
    return true;
}

static bool fill_spool(int fd)
{
    g_autofree uint8_t *buf = g_malloc(SPOOL_BLOCK);
    int64_t length = 0;
    int64_t n;

    while ((n = img_read_stdin(buf, SPOOL_BLOCK)) > 0) {
        if (!buffer_is_zero(buf, (size_t)n) && !write_spool(fd, length, buf, n)) {
            break;
        }
        length += n;
    }
    if (n < 0) {
        return false;
    }
    if (n > 0 || ftruncate(fd, length) < 0) {
        tool_error("standard input: could not be kept in '%s' at byte %" G_GINT64_FORMAT ": %s",
                   g_get_tmp_dir(), length, g_strerror(errno));
        return false;
    }
    return true;
}

/* Whether it is a file from its beginning on that may be opened anew: its opener had his rights. */
static bool stdin_is_image_file(void)
{
    struct stat st;

    return fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode) &&
           lseek(STDIN_FILENO, 0, SEEK_CUR) == 0 &&
           faccessat(AT_FDCWD, CONVERT_STDIN_FOLDER "0", R_OK, AT_EACCESS) == 0;
}

char *img_convert_spool_stdin(Convert *conv)
{
    if (stdin_is_image_file()) {
        return g_strdup(CONVERT_STDIN_FOLDER "0");
    }
    conv->spool_fd = make_spool();
    if (conv->spool_fd < 0 || !fill_spool(conv->spool_fd)) {
        return NULL;
    }
    return g_strdup_printf(CONVERT_STDIN_FOLDER "%d", conv->spool_fd);
}
