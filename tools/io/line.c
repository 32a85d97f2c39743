/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines from standard input; see line.h. */
#include "tools/io/line.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef CONFIG_LIBEDIT
#include <histedit.h>
#endif
#include "tools/io/break.h"
#include "tools/tool.h"

#define HISTORY_LINES 500
#define CHUNK 4096
#define NS_PER_MS 1000000

struct IoInput {
    IoSession *session;
    char *prompt;
    GString *unread; /* what was read ahead */
    GString *line;
    bool ended;
#ifdef CONFIG_LIBEDIT
    EditLine *editor; /* NULL: this is no terminal */
    History *history;
#endif
};

/*
 * Wait while the loop runs: true if there is something to read, false if something
 * was reported.
 */
static bool wait_for_input(IoInput *input)
{
    unsigned before = input->session->announcements;
    AioContext *ctx = aio_context_main();
    struct pollfd fds[2] = {
        { .fd = STDIN_FILENO, .events = POLLIN },
        { .fd = aio_context_get_fd(ctx), .events = POLLIN },
    };

    fflush(stdout);
    for (;;) {
        int64_t wait = aio_context_prepare(ctx);
        /* Rounded up: to be early would be to spin. */
        int timeout = wait < 0 ? -1 : (int)MIN((wait + NS_PER_MS - 1) / NS_PER_MS, INT_MAX);
        int ready = poll(fds, G_N_ELEMENTS(fds), timeout);

        if (ready == 0 || (ready > 0 && fds[1].revents != 0)) {
            aio_context_dispatch(ctx);
            io_announce_breaks(input->session);
            fflush(stdout);
        }
        if (ready > 0 && fds[0].revents != 0) {
            return true;
        }
        if (input->session->announcements != before) {
            return false;
        }
    }
}

/* Read more behind what there is; false at the end. */
static bool read_more(IoInput *input)
{
    char chunk[CHUNK];
    ssize_t got;

    while (!wait_for_input(input)) {
        continue;
    }
    do {
        got = read(STDIN_FILENO, chunk, sizeof(chunk));
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        return false;
    }
    g_string_append_len(input->unread, chunk, got);
    return true;
}

static const char *next_plain(IoInput *input)
{
    char *newline;
    size_t length;

    printf("%s", input->prompt);
    fflush(stdout);
    while ((newline = memchr(input->unread->str, '\n', input->unread->len)) == NULL) {
        if (input->ended || !read_more(input)) {
            input->ended = true;
            break;
        }
    }
    length = newline != NULL ? (size_t)(newline - input->unread->str) : input->unread->len;
    if (newline == NULL && length == 0) {
        return NULL;
    }
    g_string_truncate(input->line, 0);
    g_string_append_len(input->line, input->unread->str, (gssize)length);
    g_string_erase(input->unread, 0, (gssize)(length + (newline != NULL)));
    return input->line->str;
}

/* ---- On a terminal -------------------------------------------------------------- */

#ifdef CONFIG_LIBEDIT
static IoInput *input_of(EditLine *editor)
{
    void *input = NULL;

    el_get(editor, EL_CLIENTDATA, &input);
    return input;
}

static char *tell_prompt(EditLine *editor)
{
    return input_of(editor)->prompt;
}

/* The editor's next character: its bytes are put together. */
static int get_character(EditLine *editor, wchar_t *wc)
{
    IoInput *input = input_of(editor);
    mbstate_t state = { 0 };

    for (;;) {
        size_t done;
        ssize_t got;
        char byte;

        while (!wait_for_input(input)) {
            el_set(editor, EL_REFRESH); /* the prompt again, below what was reported */
        }
        got = read(STDIN_FILENO, &byte, 1);
        if (got <= 0) {
            return (int)got;
        }
        done = mbrtowc(wc, &byte, 1, &state);
        if (done == (size_t)-1) {
            *wc = L'?';
        }
        if (done != (size_t)-2) {
            return 1;
        }
    }
}

static void start_editor(IoInput *input)
{
    HistEvent event;

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        return;
    }
    input->editor = el_init(tool_name(), stdin, stdout, stderr);
    input->history = history_init();
    if (input->editor == NULL || input->history == NULL) {
        return;
    }
    history(input->history, &event, H_SETSIZE, HISTORY_LINES);
    history(input->history, &event, H_SETUNIQUE, 1);
    el_set(input->editor, EL_CLIENTDATA, input);
    el_set(input->editor, EL_PROMPT, tell_prompt);
    el_set(input->editor, EL_EDITOR, "emacs");
    el_set(input->editor, EL_HIST, history, input->history);
    el_set(input->editor, EL_SIGNAL, 1);
    el_set(input->editor, EL_GETCFN, get_character);
    el_source(input->editor, NULL);
}

static const char *next_edited(IoInput *input)
{
    HistEvent event;
    int length = 0;
    const char *line = el_gets(input->editor, &length);

    if (line == NULL || length <= 0) {
        printf("\n");
        return NULL;
    }
    g_string_assign(input->line, line);
    if (input->line->str[input->line->len - 1] == '\n') {
        g_string_truncate(input->line, input->line->len - 1);
    }
    if (input->line->len > 0) {
        history(input->history, &event, H_ENTER, input->line->str);
    }
    return input->line->str;
}

static void end_editor(IoInput *input)
{
    if (input->editor != NULL) {
        el_end(input->editor);
    }
    if (input->history != NULL) {
        history_end(input->history);
    }
}
#endif

/* ---- Either ----------------------------------------------------------------------- */

IoInput *io_input_new(IoSession *s)
{
    IoInput *input = g_new0(IoInput, 1);

    input->session = s;
    input->prompt = g_strdup_printf("%s> ", tool_name());
    input->unread = g_string_new(NULL);
    input->line = g_string_new(NULL);
#ifdef CONFIG_LIBEDIT
    start_editor(input);
#endif
    return input;
}

const char *io_input_next(IoInput *input)
{
#ifdef CONFIG_LIBEDIT
    if (input->editor != NULL && input->history != NULL) {
        return next_edited(input);
    }
#endif
    return next_plain(input);
}

void io_input_free(IoInput *input)
{
#ifdef CONFIG_LIBEDIT
    end_editor(input);
#endif
    g_string_free(input->unread, TRUE);
    g_string_free(input->line, TRUE);
    g_free(input->prompt);
    g_free(input);
}
