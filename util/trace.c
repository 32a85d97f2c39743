/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trace events: which are on, and where their lines go.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
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
        g_set_error(errp, TRACE_ERROR, ENOENT, "trace event '%s' does not exist", glob);
    }
    return found;
}

/* Write to @filename from now on, made with @flags of open(); NULL: to standard error. */
static bool set_file(const char *filename, int flags, GError **errp)
{
    int fd = STDERR_FILENO;
    int old;

    if (filename) {
        fd = open(filename, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666);
        if (fd < 0) {
            int err = errno;

            g_set_error(errp, TRACE_ERROR, err, "Error opening logfile %s: %s", filename,
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

bool trace_set_file(const char *filename, GError **errp)
{
    return set_file(filename, 0, errp);
}

/* An option while its items are taken. */
typedef struct OptionParser {
    GPtrArray *unknown; /* as for trace_parse_option() */
    int file_flags;     /* of open(), for file= */
} OptionParser;

/* Switch what @pattern says; @where, of a line in a file, begins the message. */
static bool take_pattern(const OptionParser *p, const char *pattern, const char *where,
                         GError **errp)
{
    GError *err = NULL;

    if (trace_enable(pattern, &err)) {
        return true;
    }
    g_prefix_error(&err, "%s", where);
    if (p->unknown == NULL) {
        g_propagate_error(errp, err);
        return false;
    }
    g_ptr_array_add(p->unknown, g_strdup(err->message));
    g_error_free(err);
    return true;
}

static bool take_events_file(const OptionParser *p, const char *filename, GError **errp)
{
    char *text = NULL;
    FILE *f = fopen(filename, "re");
    size_t size = 0;
    int number = 0;
    bool ok = true;

    if (f == NULL) {
        int err = errno;

        g_set_error(errp, TRACE_ERROR, err, "%s: %s", filename, g_strerror(err));
        return false;
    }
    while (ok && getline(&text, &size, f) >= 0) {
        g_autofree char *where = g_strdup_printf("%s:%d: ", filename, ++number);

        text[strcspn(text, "#")] = 0;
        g_strstrip(text);
        ok = *text == 0 || take_pattern(p, text, where, errp);
    }
    free(text);
    fclose(f);
    return ok;
}

/* The name may have one "%d" in it, which stands for the process. */
static bool take_file(const OptionParser *p, const char *template, GError **errp)
{
    const char *percent = strchr(template, '%');
    g_autofree char *filename = NULL;

    if (percent == NULL) {
        return set_file(template, p->file_flags, errp);
    }
    if (percent[1] != 'd' || strchr(percent + 1, '%') != NULL) {
        g_set_error(errp, TRACE_ERROR, EINVAL, "Bad logfile template: %s", template);
        return false;
    }
    filename = g_strdup_printf("%.*s%d%s", (int)(percent - template), template, (int)getpid(),
                               percent + 2);
    return set_file(filename, p->file_flags, errp);
}

static bool take_item(const OptionParser *p, const char *item, GError **errp)
{
    const char *value = strchr(item, '=');
    size_t key_len;

    if (!value) {
        return take_pattern(p, item, "", errp);
    }
    key_len = value++ - item;
    if (strncmp(item, "enable=", key_len + 1) == 0) {
        return take_pattern(p, value, "", errp);
    }
    if (strncmp(item, "events=", key_len + 1) == 0) {
        return take_events_file(p, value, errp);
    }
    if (strncmp(item, "file=", key_len + 1) == 0) {
        return take_file(p, value, errp);
    }
    g_set_error(errp, TRACE_ERROR, EINVAL, "Invalid parameter '%.*s'", (int)key_len, item);
    return false;
}

static bool take_option(const OptionParser *p, const char *option, GError **errp)
{
    g_auto(GStrv) items = g_strsplit(option, ",", -1);

    for (char **item = items; *item; item++) {
        if (!take_item(p, *item, errp)) {
            return false;
        }
    }
    return true;
}

bool trace_parse_option(const char *option, GPtrArray *unknown, GError **errp)
{
    OptionParser p = { .unknown = unknown, .file_flags = O_TRUNC };

    return take_option(&p, option, errp);
}

bool trace_init(GError **errp)
{
    const char *option = g_getenv("BLOCKGRAPH_TRACE");
    OptionParser p = { .file_flags = 0 }; /* other programs may write to the same file */

    if (!option || !*option) {
        return true;
    }
    if (!take_option(&p, option, errp)) {
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
