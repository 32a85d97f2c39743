/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far a long command is; see progress.h. */
#include "tools/progress.h"

#include <signal.h>
#include <stdio.h>
#include "blockgraph/aio.h"

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

static void draw(void)
{
    printf("    (%3.2f/100%%)\r", current);
    fflush(stdout);
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
    progress_report_if_asked();
}

void progress_complete(void)
{
    current = 100;
    if (current_mode == PROGRESS_DRAWN) {
        draw();
    }
}

void progress_end(void)
{
    signal(SIGUSR1, SIG_IGN);
    if (current_mode == PROGRESS_DRAWN) {
        printf("\n");
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
