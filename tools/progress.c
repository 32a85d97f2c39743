/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far a long command is; see progress.h. */
#include "tools/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "blockgraph/aio.h"
#include "tools/tool.h"

static ProgressMode current_mode = PROGRESS_SILENT;
static double current;
static double drawn_last;
static double drawn_step;
static volatile sig_atomic_t asked;

static void on_sigusr1(int signal_number)
{
    asked = 1;
    /* The loop may sleep in a long request. */
    aio_notify(aio_context_main());
}

ProgressMode progress_mode(bool quiet, bool drawn)
{
    if (quiet) {
        return PROGRESS_SILENT;
    }
    return drawn ? PROGRESS_DRAWN : PROGRESS_ON_SIGNAL;
}

static bool on_stderr;
static int json_fd = -1;
static double told_last;
static int64_t total_bytes; /* 0: not known */

bool progress_set_fd(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && (flags & O_ACCMODE) == O_RDONLY) {
        errno = EBADF;
        return false;
    }
    json_fd = flags >= 0 ? fd : json_fd;
    return flags >= 0;
}

int progress_fd(void)
{
    return json_fd;
}

void progress_set_total(int64_t bytes)
{
    total_bytes = bytes;
}

/* A line that does not fit where writing must not wait is left out: another one follows. */
static bool write_line(const char *line)
{
    const size_t whole = strlen(line);
    size_t length = whole;

    while (length > 0) {
        ssize_t n = write(json_fd, line, length);

        if (n < 0 && errno == EAGAIN && length == whole) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
        n = n < 0 ? 0 : n;
        line += n;
        length -= (size_t)n;
    }
    return true;
}

/* Who wanted to be told may go away: that is no reason to give up the work. */
static void tell(void)
{
    char percent[G_ASCII_DTOSTR_BUF_SIZE];
    g_autofree char *bytes = NULL;
    g_autofree char *line = NULL;

    told_last = current;
    if (json_fd < 0) {
        return;
    }
    g_ascii_formatd(percent, sizeof(percent), "%.2f", current);
    if (total_bytes > 0) {
        bytes = g_strdup_printf(", \"bytes\": %" G_GINT64_FORMAT ", \"total\": %" G_GINT64_FORMAT,
                                (int64_t)(current / 100 * (double)total_bytes + 0.5), total_bytes);
    }
    line = g_strdup_printf("{\"progress\": %s%s}\n", percent, bytes != NULL ? bytes : "");
    if (!write_line(line)) {
        tool_warning("--progress-fd %d: %s", json_fd, g_strerror(errno));
        json_fd = -1;
    }
}

void progress_to_stderr(void)
{
    on_stderr = true;
}

static void draw(void)
{
    FILE *out = on_stderr ? stderr : stdout;

    fprintf(out, "    (%3.2f/100%%)\r", current);
    fflush(out);
    drawn_last = current;
}

void progress_start(ProgressMode mode, double step)
{
    struct sigaction action = { .sa_handler = mode == PROGRESS_SILENT ? SIG_IGN : on_sigusr1 };

    current_mode = mode;
    current = 0;
    drawn_step = step;
    asked = 0;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, NULL);
    if (mode == PROGRESS_DRAWN) {
        draw();
    }
    tell();
}

void progress_add(double percent)
{
    current += percent;
    if (current > 100) {
        current = 100;
    }
    if (current_mode == PROGRESS_DRAWN &&
        (current > drawn_last + drawn_step || (current == 100 && drawn_last != 100))) {
        draw();
    }
    if (current > told_last + drawn_step || (current == 100 && told_last != 100)) {
        tell();
    }
    progress_report_if_asked();
}

void progress_complete(void)
{
    current = 100;
    if (current_mode == PROGRESS_DRAWN) {
        draw();
    }
    if (told_last != 100) {
        tell();
    }
}

void progress_end(void)
{
    signal(SIGUSR1, SIG_IGN);
    if (current_mode == PROGRESS_DRAWN) {
        fprintf(on_stderr ? stderr : stdout, "\n");
    }
    current_mode = PROGRESS_SILENT;
}

void progress_report_if_asked(void)
{
    if (!asked) {
        return;
    }
    asked = 0;
    if (current_mode != PROGRESS_SILENT) {
        fprintf(stderr, "    (%3.2f/100%%)\n", current);
    }
}
