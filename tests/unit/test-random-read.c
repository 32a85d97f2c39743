/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random reads of random chains of images against a flat model: from the main
 * thread and from others, through both I/O engines and the simulated world,
 * cached and direct. What fails prints its seed; BLOCKGRAPH_SEED=N runs that
 * one only.
 */
#include "random-disk.h"
#include "util/sim.h"

#define MAX_SIZE (1 << 20)
#define SEEDS 10
#define SIM_SEEDS 12
#define READERS 4 /* coroutines in each context */
#define READS 40  /* of each reader */
#define THREADS 2

static bool direct_works;

/* ---- One reader ------------------------------------------------------------------ */

/* An open disk, and what its readers have found. */
typedef struct Run {
    uint32_t seed;
    BlockBackend *blk;
    const uint8_t *view;
    int64_t size;
    unsigned next_reader; /* atomic */
    unsigned running;     /* atomic */
    char *failure;        /* atomic; of the first that failed */
} Run;

static void run_fail(Run *run, int64_t offset, int64_t bytes, int ret, int64_t at)
{
    char *none = NULL;
    char *text = ret < 0 ? g_strdup_printf("read of %" G_GINT64_FORMAT " + %" G_GINT64_FORMAT
                                           ": %s", offset, bytes, g_strerror(-ret))
                         : g_strdup_printf("read of %" G_GINT64_FORMAT " + %" G_GINT64_FORMAT
                                           ": wrong byte at %" G_GINT64_FORMAT, offset, bytes, at);

    if (!__atomic_compare_exchange_n(&run->failure, &none, text, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED)) {
        g_free(text);
    }
}

/* Where and how much: mostly small, some large, half of them aligned. */
static void choose_range(GRand *rand, int64_t size, int64_t *offset, int64_t *bytes)
{
    static const int max_bytes[] = { 1, 600, 5000, 70000, 300000, MAX_SIZE };
    int max = max_bytes[random_below(rand, G_N_ELEMENTS(max_bytes))];

    *offset = random_below(rand, size);
    *bytes = 1 + random_below(rand, MIN(max, size - *offset));
    if (random_below(rand, 2)) {
        *offset &= ~INT64_C(4095);
        *bytes = MIN(size - *offset, (*bytes + 4095) & ~INT64_C(4095));
    }
}

/* Cut @buf into up to 5 pieces. */
static void cut_vector(GRand *rand, IOVector *iov, uint8_t *buf, int64_t bytes)
{
    io_vector_init(iov, 5);
    for (int i = 0; i < 4 && bytes > 1 && random_below(rand, 2); i++) {
        int64_t n = 1 + random_below(rand, bytes - 1);

        io_vector_add(iov, buf, n);
        buf += n;
        bytes -= n;
    }
    io_vector_add(iov, buf, bytes);
}

static bool coroutine_fn read_once(Run *run, GRand *rand, uint8_t *buf)
{
    int64_t offset, bytes;
    IOVector iov;
    int ret;

    choose_range(rand, run->size, &offset, &bytes);
    buf += random_below(rand, 2) ? random_below(rand, 4096) : 0;
    memset(buf, 0xa5, bytes + 1);
    cut_vector(rand, &iov, buf, bytes);
    ret = blk_co_preadv(run->blk, offset, bytes, &iov, 0);
    io_vector_destroy(&iov);
    if (ret < 0) {
        run_fail(run, offset, bytes, ret, 0);
        return false;
    }
    if (memcmp(buf, run->view + offset, bytes) != 0) {
        int64_t same = 0;

        while (buf[same] == run->view[offset + same]) {
            same++;
        }
        run_fail(run, offset, bytes, 0, offset + same);
        return false;
    }
    if (buf[bytes] != 0xa5) {
        run_fail(run, offset, bytes, 0, offset + bytes);
        return false;
    }
    return true;
}

static void coroutine_fn reader(void *opaque)
{
    Run *run = opaque;
    unsigned number = __atomic_fetch_add(&run->next_reader, 1, __ATOMIC_RELAXED);
    GRand *rand = g_rand_new_with_seed(run->seed * 100 + number);
    uint8_t *buf = aligned_alloc(4096, MAX_SIZE + 8192);

    for (int i = 0; i < READS && read_once(run, rand, buf); i++) {
    }
    free(buf);
    g_rand_free(rand);
    __atomic_sub_fetch(&run->running, 1, __ATOMIC_ACQ_REL);
    aio_wait_kick();
}

static void start_readers(Run *run, AioContext *ctx)
{
    __atomic_add_fetch(&run->running, READERS, __ATOMIC_RELAXED);
    for (int i = 0; i < READERS; i++) {
        aio_co_schedule(ctx, coroutine_create(reader, run));
    }
}

static void assert_no_failure(Run *run)
{
    g_autofree char *failure = run->failure;

    if (failure) {
        fail_msg("seed %u: %s", run->seed, failure);
    }
}

/* ---- Opening --------------------------------------------------------------------- */

/* Options that name every node of the chain down to the base. */
static JsonObject *chain_options(RandomDisk *disk)
{
    JsonObject *below = NULL;

    for (unsigned i = 0; i < disk->layers; i++) {
        const Layer *layer = &disk->layer[i];
        g_autofree char *path = test_path(layer->name);
        JsonObject *options = options_of("driver=%s,file.driver=file,file.filename=%s",
                                         layer->format, path);

        if (below) {
            json_object_set_object_member(options, "backing", below);
        }
        below = options;
    }
    return below;
}

/* Options for the top image only: the rest is found by the names in the images. */
static JsonObject *top_options(RandomDisk *disk)
{
    const Layer *top = &disk->layer[disk->layers - 1];
    g_autofree char *path = test_path(top->name);

    return options_of("driver=%s,file.driver=file,file.filename=%s", top->format, path);
}

/* Show a part of the disk only, at times. */
static JsonObject *maybe_part(RandomDisk *disk, JsonObject *options, Run *run)
{
    int64_t first = random_below(disk->rand, run->size / 512);
    int64_t count = 1 + random_below(disk->rand, run->size / 512 - first);
    JsonObject *part;

    if (random_below(disk->rand, 3)) {
        return options;
    }
    part = options_of("driver=raw,offset=%" G_GINT64_FORMAT ",size=%" G_GINT64_FORMAT,
                      first * 512, count * 512);
    json_object_set_object_member(part, "file", options);
    run->view += first * 512;
    run->size = count * 512;
    return part;
}

static void open_disk(RandomDisk *disk, uint32_t seed, int flags, Run *run)
{
    const Layer *top = &disk->layer[disk->layers - 1];
    JsonObject *options = random_below(disk->rand, 2) ? chain_options(disk) : top_options(disk);

    *run = (Run) { .seed = seed, .view = top->view, .size = top->size };
    options = maybe_part(disk, options, run);
    run->blk = open_blk(options, flags);
    assert_int_equal(blk_getlength(run->blk), run->size);
}

/* ---- Block status ---------------------------------------------------------------- */

/* What is said to read as zeros must, and the runs must lead to the end. */
static void check_status(Run *run)
{
    int64_t n;

    for (int64_t offset = 0; offset < run->size; offset += n) {
        int ret = status_of(run->blk, offset, run->size - offset, &n, NULL);

        assert_true(ret >= 0);
        assert_in_range(n, 1, run->size - offset);
        if ((ret & BDRV_BLOCK_ZERO) && !buffer_is_zero(run->view + offset, n)) {
            fail_msg("seed %u: not all of %" G_GINT64_FORMAT " + %" G_GINT64_FORMAT
                     " is zero, as is said", run->seed, offset, n);
        }
    }
}

/* All of them; under valgrind, which takes its time, the first three. */
static bool seed_is_wanted(uint32_t seed)
{
    const char *only = g_getenv("BLOCKGRAPH_SEED");

    if (only) {
        return seed == g_ascii_strtoull(only, NULL, 10);
    }
    return seed <= 3 || !g_getenv("BLOCKGRAPH_TEST_VALGRIND");
}

/* ---- Real engines ---------------------------------------------------------------- */

static void run_on_threads(Run *run, AioEngine engine)
{
    AioThread *threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        GError *err = NULL;

        threads[i] = aio_thread_new("reader", engine, &err);
        assert_ok(threads[i] != NULL, err);
        start_readers(run, aio_thread_get_context(threads[i]));
    }
    start_readers(run, aio_context_main());
    AIO_WAIT_WHILE(__atomic_load_n(&run->running, __ATOMIC_ACQUIRE) > 0);
    for (int i = 0; i < THREADS; i++) {
        aio_thread_stop(threads[i]);
    }
}

static void read_seeds(int flags)
{
    for (uint32_t seed = 1; seed <= SEEDS; seed++) {
        RandomDisk disk;
        Run run;

        if (!seed_is_wanted(seed)) {
            continue;
        }
        random_disk_init(&disk, seed, MAX_SIZE);
        open_disk(&disk, seed, flags, &run);
        run_on_threads(&run, aio_context_engine(aio_context_main()));
        assert_no_failure(&run);
        check_status(&run);
        blk_unref(run.blk);
        random_disk_clear(&disk);
    }
}

static void cached_reads_agree_with_the_model(void **state)
{
    read_seeds(0);
}

static void direct_reads_agree_with_the_model(void **state)
{
    if (direct_works) {
        read_seeds(BDRV_O_NOCACHE);
    } else {
        print_message("no O_DIRECT in %s: not tried\n", test_dir);
    }
}

/* ---- Simulated world ------------------------------------------------------------- */

static bool nobody_runs(void *opaque)
{
    return __atomic_load_n(&((Run *)opaque)->running, __ATOMIC_ACQUIRE) == 0;
}

static void simulate(uint32_t seed)
{
    SimWorld *world = sim_world_new(seed);
    GError *err = NULL;
    RandomDisk disk;
    Run run;

    sim_world_add_context(world, "main");
    assert_ok(blockgraph_init(&err), err);
    random_disk_init(&disk, 1000 + seed, 256 << 10);
    open_disk(&disk, seed, 0, &run);
    start_readers(&run, aio_context_main());
    for (int i = 0; i < THREADS; i++) {
        start_readers(&run, sim_world_add_context(world, i ? "b" : "a"));
    }
    assert_true(sim_world_run_until(world, nobody_runs, &run));
    assert_no_failure(&run);
    check_status(&run);
    blk_unref(run.blk);
    random_disk_clear(&disk);
    blockgraph_cleanup();
    sim_world_free(world);
}

static void simulated_reads_agree_with_the_model(void **state)
{
    for (uint32_t seed = 1; seed <= SIM_SEEDS; seed++) {
        if (seed_is_wanted(seed)) {
            simulate(seed);
        }
    }
}

/* ---- Groups: each with a main context of its engine ------------------------------ */

static int setup_real(void **state)
{
    g_autofree char *path = NULL;
    int fd;

    if (driver_group_setup(state) < 0) {
        return -1;
    }
    path = make_file("direct-probe", NULL, 4096);
    fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    direct_works = fd >= 0;
    if (fd >= 0) {
        close(fd);
    }
    return 0;
}

static int setup_threads(void **state)
{
    aio_set_default_engine(AIO_ENGINE_THREADS);
    return setup_real(state);
}

static int setup_dir(void **state)
{
    test_dir = g_dir_make_tmp("blockgraph-XXXXXX", NULL);
    return test_dir ? 0 : -1;
}

/* The library is not set up between two worlds; only to be taken down here. */
static int teardown_dir(void **state)
{
    return blockgraph_init(NULL) ? driver_group_teardown(state) : -1;
}

int main(void)
{
    const struct CMUnitTest real[] = {
        cmocka_unit_test(cached_reads_agree_with_the_model),
        cmocka_unit_test(direct_reads_agree_with_the_model),
    };
    const struct CMUnitTest simulated[] = {
        cmocka_unit_test(simulated_reads_agree_with_the_model),
    };

    return cmocka_run_group_tests_name("default engine", real, setup_real,
                                       driver_group_teardown) +
           cmocka_run_group_tests_name("threads", real, setup_threads, driver_group_teardown) +
           cmocka_run_group_tests_name("simulated", simulated, setup_dir, teardown_dir);
}
