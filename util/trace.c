/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace events: which are on, and where their lines go.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include "util/trace.h"

static const char *const event_names[] = {
#define TRACE_EVENT(name, ...) #name,
#include "util/trace-events.h"
#undef TRACE_EVENT
};
bool trace_event_on[TRACE_ID__MAX];

static GMutex output_mutex;
static int output_fd = STDERR_FILENO; /* under output_mutex, and so are writes to it */

GQuark trace_error_quark(void)
{
    return g_quark_from_static_string("blockgraph-trace-error-quark");
}

static void write_line(const char *line, size_t len)
{
    g_mutex_lock(&output_mutex);
    while (len > 0) {
        ssize_t n = write(output_fd, line, len);

        if (n < 0 && errno != EINTR) {
            break; /* there is nowhere to complain */
        }
        if (n > 0) {
            line += n;
            len -= n;
        }
    }
    g_mutex_unlock(&output_mutex);
}

void trace_write(TraceEventId id, const char *fmt, ...)
{
    int saved_errno = errno;
    int64_t now = g_get_real_time(); /* microseconds */
    char line[1024];
    size_t len;
    va_list ap;

    len = snprintf(line, sizeof(line), "%d@%" PRId64 ".%06d:%s ", (int)getpid(),
                   now / G_USEC_PER_SEC, (int)(now % G_USEC_PER_SEC), event_names[id]);
    va_start(ap, fmt);
    len += vsnprintf(line + len, sizeof(line) - len, fmt, ap);
    va_end(ap);
    /* What does not fit is cut off. */
    len = MIN(len, sizeof(line) - 1);
    for (size_t i = 0; i < len; i++) {
        /* A file name may hold a newline, and must not forge a line. */
        if (g_ascii_iscntrl(line[i])) {
            line[i] = '?';
        }
    }
    line[len++] = '\n';
    write_line(line, len);
    errno = saved_errno;
}

bool trace_enable(const char *pattern, GError **errp)
{
    bool on = pattern[0] != '-';
    const char *glob = on ? pattern : pattern + 1;
    bool found = false;

    for (size_t i = 0; i < TRACE_ID__MAX; i++) {
        if (g_pattern_match_simple(glob, event_names[i])) {
            __atomic_store_n(&trace_event_on[i], on, __ATOMIC_RELAXED);
            found = true;
        }
    }
    if (!found) {
        g_set_error(errp, TRACE_ERROR, ENOENT, "no trace event matches '%s'", glob);
    }
    return found;
}

bool trace_set_file(const char *filename, GError **errp)
{
    int fd = STDERR_FILENO;
    int old;

    if (filename) {
        fd = open(filename, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (fd < 0) {
            int err = errno;

            g_set_error(errp, TRACE_ERROR, err, "cannot write the trace to '%s': %s", filename,
                        g_strerror(err));
            return false;
        }
    }
    g_mutex_lock(&output_mutex);
    old = output_fd;
    output_fd = fd;
    g_mutex_unlock(&output_mutex);
    if (old != STDERR_FILENO) {
        close(old);
    }
    return true;
}

static bool enable_from_file(const char *filename, GError **errp)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    GError *err = NULL;

    if (!g_file_get_contents(filename, &text, NULL, &err)) {
        g_set_error(errp, TRACE_ERROR, ENOENT, "cannot read the trace events: %s", err->message);
        g_error_free(err);
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        char *comment = strchr(*line, '#');

        if (comment) {
            *comment = 0;
        }
        g_strstrip(*line);
        if (**line && !trace_enable(*line, errp)) {
            g_prefix_error(errp, "%s:%d: ", filename, (int)(line - lines) + 1);
            return false;
        }
    }
    return true;
}

static bool parse_item(const char *item, GError **errp)
{
    const char *value = strchr(item, '=');
    size_t key_len;

    if (!value) {
        return trace_enable(item, errp);
    }
    key_len = value++ - item;
    if (strncmp(item, "enable=", key_len + 1) == 0) {
        return trace_enable(value, errp);
    }
    if (strncmp(item, "events=", key_len + 1) == 0) {
        return enable_from_file(value, errp);
    }
    if (strncmp(item, "file=", key_len + 1) == 0) {
        return trace_set_file(value, errp);
    }
    g_set_error(errp, TRACE_ERROR, EINVAL, "unknown trace option '%.*s'", (int)key_len, item);
    return false;
}

bool trace_parse_option(const char *option, GError **errp)
{
    g_auto(GStrv) items = g_strsplit(option, ",", -1);

    for (char **item = items; *item; item++) {
        if (!parse_item(*item, errp)) {
            return false;
        }
    }
    return true;
}

bool trace_init(GError **errp)
{
    const char *option = g_getenv("BLOCKGRAPH_TRACE");

    if (!option || !*option) {
        return true;
    }
    if (!trace_parse_option(option, errp)) {
        g_prefix_error(errp, "BLOCKGRAPH_TRACE: ");
        return false;
    }
    return true;
}

void trace_list_events(FILE *out)
{
    for (size_t i = 0; i < TRACE_ID__MAX; i++) {
        fprintf(out, "%s\n", event_names[i]);
    }
}
