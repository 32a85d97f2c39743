/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all command-line programs share; see tool.h. */
#include "tools/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tools/progress.h"

static const char *program_argv0 = "blockgraph";
static const char *program_name = "blockgraph";

static bool was_closed[STDERR_FILENO + 1];

/*
 * A program may be started without standard input, output or error. The first
 * image opened would get that number, and messages would land in it.
 */
static void occupy_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        was_closed[fd] = fcntl(fd, F_GETFD) < 0 && errno == EBADF;
        if (was_closed[fd] &&
            open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) != fd) {
            _exit(EXIT_FAILURE); /* there is nowhere to say why */
        }
    }
}

bool tool_was_closed(int fd)
{
    return fd >= STDIN_FILENO && fd <= STDERR_FILENO && was_closed[fd];
}

void tool_init(const char *argv0)
{
    const char *slash;

    occupy_standard_fds();
    if (argv0 != NULL && argv0[0] != '\0') {
        program_argv0 = argv0;
    }
    slash = strrchr(program_argv0, '/');
    program_name = slash != NULL ? slash + 1 : program_argv0;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file above the limit is an error of that write */
}

const char *tool_argv0(void)
{
    return program_argv0;
}

const char *tool_name(void)
{
    return program_name;
}

bool tool_is_called(const char *name)
{
    return strcmp(program_name, name) == 0;
}

void tool_print_version(const char *qemu_name)
{
    if (tool_is_called(qemu_name)) {
        /* Scripts take the number behind "version" and compare it. */
        printf("%s version 10.0.0 (libblockgraph %s)\n", qemu_name, blockgraph_version());
    } else {
        printf("%s version %s\n", program_name, blockgraph_version());
    }
}

static void print_message(const char *kind, const char *fmt, va_list ap)
{
    g_autofree char *text = g_strdup_vprintf(fmt, ap);

    /* What was printed before comes first, also where both go to one file. */
    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", program_name, kind, text);
}

void tool_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    print_message("", fmt, ap);
    va_end(ap);
}

void tool_warning(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    print_message("warning: ", fmt, ap);
    va_end(ap);
}

void tool_error_report(GError *err)
{
    tool_error_take(err, "%s", "");
}

void tool_error_take(GError *err, const char *fmt, ...)
{
    g_autofree char *prefix = NULL;
    va_list ap;

    va_start(ap, fmt);
    prefix = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    tool_error("%s%s", prefix, err != NULL ? err->message : "unknown error");
    g_clear_error(&err);
}

bool tool_close_stdout(void)
{
    int err = 0;

    if (ferror(stdout)) {
        err = EIO;
    }
    if (fflush(stdout) != 0) {
        err = errno;
    }
    if (fclose(stdout) != 0 && err == 0) {
        err = errno;
    }
    if (err != 0) {
        fprintf(stderr, "%s: error while writing to standard output: %s\n", program_name,
                g_strerror(err));
        return false;
    }
    return true;
}

char *tool_size_text(uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = (double)bytes;
    unsigned i = 0;

    /* Three digits: the next unit serves from 1000, not from 1024. */
    while (value >= 1000 && i + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        i++;
    }
    return g_strdup_printf("%.3g %s", value, units[i]);
}

/* Take @value, to which @text came, or say what is wrong: with @ret, or that it is out of range. */
static bool take_number(const char *what, const char *text, int ret, int64_t value, int64_t min,
                        int64_t max, int64_t *number)
{
    if (ret == 0 && (value < min || value > max)) {
        ret = -ERANGE;
    }
    if (ret == -ERANGE) {
        tool_error("Invalid %s specified. Must be between %" G_GINT64_FORMAT
                   " and %" G_GINT64_FORMAT ".",
                   what, min, max);
    } else if (ret < 0) {
        tool_error("Invalid %s specified: '%s'.", what, text);
    } else {
        *number = value;
    }
    return ret == 0;
}

bool tool_parse_size(const char *what, const char *text, int64_t min, int64_t max, int64_t *bytes)
{
    int64_t value = 0;
    int ret = block_parse_size(text, 'b', &value);

    return take_number(what, text, ret, value, min, max, bytes);
}

bool tool_parse_number(const char *what, const char *text, int64_t min, int64_t max,
                       int64_t *number)
{
    char *end;
    int64_t value;
    int ret;

    errno = 0;
    value = g_ascii_strtoll(text, &end, 0);
    ret = end == text || *end != 0 ? -EINVAL : -errno;
    return take_number(what, text, ret, value, min, max, number);
}

/* Where the value at @text ends: at a comma that is not doubled. */
static const char *end_of_value(const char *text)
{
    while (*text != '\0' && (text[0] != ',' || text[1] == ',')) {
        text += *text == ',' ? 2 : 1;
    }
    return text;
}

bool tool_list_asks_help(const char *list)
{
    while (*list != '\0') {
        size_t length = strcspn(list, "=,");
        bool is_help = (length == 4 && strncmp(list, "help", 4) == 0) ||
                       (length == 1 && *list == '?');

        if (is_help && list[length] != '=') {
            return true;
        }
        list += length;
        list = *list == '=' ? end_of_value(list) : list;
        list += *list == ',';
    }
    return false;
}

typedef struct CoroutineRun {
    CoroutineEntry *entry;
    void *opaque;
    int running;
} CoroutineRun;

static void coroutine_fn run_entry(void *opaque)
{
    CoroutineRun *run = opaque;

    run->entry(run->opaque);
    run->running--;
}

void tool_run_coroutines(CoroutineEntry *entry, void *opaque, int count)
{
    CoroutineRun run = { .entry = entry, .opaque = opaque, .running = count };

    for (int i = 0; i < count; i++) {
        coroutine_enter(coroutine_create(run_entry, &run));
    }
    while (run.running > 0) {
        aio_poll(aio_context_main(), true);
        progress_report_if_asked();
    }
}
