/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tests of code that must end the program: each case runs in a process of its
 * own, this program started anew, since a forked child of a program with
 * threads is not what the sanitizers can follow. Include after cmocka.h.
 */
#ifndef TESTS_UNIT_DEATH_H
#define TESTS_UNIT_DEATH_H

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <glib.h>

typedef struct DeathCase {
    const char *name;
    void (*fn)(void);
    int signal;
    const char *message; /* must be in what is written to standard error */
} DeathCase;

/* @fn aborts with @message, or faults. */
#define DIES(fn, message) { #fn, fn, SIGABRT, message }
#define FAULTS(fn) { #fn, fn, SIGSEGV, "" }

/* To be called first in main(): runs the case that this process was started for. */
static inline void death_main(int argc, char **argv, const DeathCase *cases, size_t n)
{
    const struct rlimit no_core = { 0, 0 };

    if (argc != 3 || strcmp(argv[1], "--die") != 0) {
        return;
    }
    setrlimit(RLIMIT_CORE, &no_core);
    /* The sanitizers catch faults to report them. */
    signal(SIGSEGV, SIG_DFL);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(cases[i].name, argv[2]) == 0) {
            cases[i].fn();
        }
    }
    exit(0);
}

/* Fail unless each of @cases ends as it says. */
static inline void assert_deaths(const DeathCase *cases, size_t n)
{
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);

    for (size_t i = 0; i < n; i++) {
        char *argv[] = { program, (char *)"--die", (char *)cases[i].name, NULL };
        g_autofree char *text = NULL;
        int status;

        assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                                 &text, &status, NULL));
        if (!WIFSIGNALED(status) || WTERMSIG(status) != cases[i].signal ||
            !strstr(text, cases[i].message)) {
            fail_msg("%s: wait status 0x%x, standard error: %s", cases[i].name, status, text);
        }
    }
}

#endif
