/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model test: random sequences of all operations, through chains of qcow2
 * images of random shapes, against a flat disk in memory; under schedules that a
 * seed decides, and on real threads.
 *
 * Arguments in place of the tests:
 *   --schedules | --threads   which world (schedules)
 *   --seed N                  this run alone, with all it does; or where a soak begins
 *   --operations N            of the last layer of each run
 *   --soak SECONDS            runs for so long, both worlds in turn; 0: without end
 *   --qemu-img PATH           ask this program's opinion each time an image is closed
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <unistd.h>

#include "run.h"
#include "util/sanitizer.h"

/* How much is done where nothing is asked for: all, or a tenth where everything is slow. */
#define SCHEDULES 2000
#define THREAD_RUNS 60
#define SCHEDULE_OPERATIONS 24
#define THREAD_OPERATIONS 200
#define ALL_OPERATIONS 100000
#if defined(BUILT_WITH_ASAN) || defined(BUILT_WITH_TSAN)
#define PART 10
#else
#define PART (g_getenv("BLOCKGRAPH_TEST_VALGRIND") ? 100 : 1)
#endif

#define REPORT_SECONDS 10

static char *test_dir;
static uint64_t operations; /* done */

static ModelPlan plan_of(uint64_t seed, bool threads)
{
    return (ModelPlan){.seed = seed, .threads = threads, .dir = test_dir,
                       .operations = threads ? THREAD_OPERATIONS : SCHEDULE_OPERATIONS};
}

static void every_schedule_leaves_what_the_model_allows(void **state)
{
    for (unsigned seed = 1; seed <= SCHEDULES / PART; seed++) {
        ModelPlan plan = plan_of(seed, false);

        assert_true(model_run(&plan, &operations));
    }
}

static void threads_leave_what_the_model_allows(void **state)
{
    for (unsigned seed = 1; seed <= MAX(THREAD_RUNS / PART, 2); seed++) {
        ModelPlan plan = plan_of(seed, true);

        assert_true(model_run(&plan, &operations));
    }
    print_message("%" PRIu64 " operations\n", operations);
    assert_true(operations * PART >= ALL_OPERATIONS);
}

/* ---- What arguments ask for --------------------------------------------------------------- */

static int soak(ModelPlan plan, int64_t seconds)
{
    int64_t start = g_get_monotonic_time(), now = start;
    int64_t next_report = start + REPORT_SECONDS * G_USEC_PER_SEC;
    uint64_t runs = 0;

    g_printerr("soak from seed %" PRIu64 "\n", plan.seed);
    for (; seconds == 0 || now - start < seconds * G_USEC_PER_SEC; plan.seed++) {
        plan.threads = plan.seed % 8 == 0;
        plan.operations = plan.threads ? THREAD_OPERATIONS : 10 + plan.seed % 100;
        if (!model_run(&plan, &operations)) {
            return 1;
        }
        runs++;
        now = g_get_monotonic_time();
        if (now >= next_report) {
            g_printerr("%" PRIu64 " runs, %" PRIu64 " operations\n", runs, operations);
            next_report = now + REPORT_SECONDS * G_USEC_PER_SEC;
        }
    }
    g_printerr("soak is over, no violation: %" PRIu64 " runs, %" PRIu64 " operations\n", runs,
               operations);
    return 0;
}

static int run_asked(int argc, char **argv)
{
    int64_t seed = -1, seconds = -1, count = 0;
    gboolean threads = false, schedules = false;
    char *qemu_img = NULL;
    const GOptionEntry entries[] = {
        {"schedules", 0, 0, G_OPTION_ARG_NONE, &schedules, NULL, NULL},
        {"threads", 0, 0, G_OPTION_ARG_NONE, &threads, NULL, NULL},
        {"seed", 0, 0, G_OPTION_ARG_INT64, &seed, NULL, NULL},
        {"operations", 0, 0, G_OPTION_ARG_INT64, &count, NULL, NULL},
        {"soak", 0, 0, G_OPTION_ARG_INT64, &seconds, NULL, NULL},
        {"qemu-img", 0, 0, G_OPTION_ARG_STRING, &qemu_img, NULL, NULL},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) err = NULL;
    ModelPlan plan;
    int status;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err) || (seed < 0 && seconds < 0)) {
        g_printerr("%s\n", err ? err->message : "--seed or --soak is needed");
        return 2;
    }
    plan = plan_of(seed < 0 ? g_get_real_time() >> 10 : seed, threads);
    plan.operations = count > 0 ? count : plan.operations;
    plan.qemu_img = qemu_img;
    if (seconds >= 0) {
        status = soak(plan, seconds);
    } else {
        plan.verbose = true;
        status = model_run(&plan, &operations) ? 0 : 1;
    }
    g_free(qemu_img);
    return status;
}

/* Memory, where there is such a place: flushes are many. */
static char *make_test_dir(void)
{
    g_autofree char *template = g_strdup("/dev/shm/blockgraph-model-XXXXXX");

    return g_mkdtemp(template) ? g_steal_pointer(&template)
                               : g_dir_make_tmp("blockgraph-model-XXXXXX", NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_schedule_leaves_what_the_model_allows),
        cmocka_unit_test(threads_leave_what_the_model_allows),
    };
    int status;

    test_dir = make_test_dir();
    status = argc > 1 ? run_asked(argc, argv) : cmocka_run_group_tests(tests, NULL, NULL);
    g_rmdir(test_dir);
    g_free(test_dir);
    return status;
}
