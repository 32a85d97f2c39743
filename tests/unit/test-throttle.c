/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What throttle groups count with: leaky buckets, to the nanosecond, and the limits that
 * go together. The groups themselves are in test-throttle-group.c.
 */
#include "block-testing.h"

#include "block/throttle.h"

#define SECOND INT64_C(1000000000)

/* One limit, the others being none. */
static ThrottleConfig one_limit(ThrottleKind kind, uint64_t avg, uint64_t max, uint64_t max_length)
{
    ThrottleConfig config;

    throttle_config_init(&config);
    config.limits[kind] = (ThrottleLimit){avg, max, max_length};
    assert_true(throttle_config_check(&config, NULL));
    return config;
}

/* Wait as long as it says, and count a request; returns when it went. */
static int64_t go(ThrottleState *state, int64_t now, bool is_write, int64_t bytes)
{
    int64_t wait = throttle_state_wait(state, now, is_write);

    if (wait > 0) {
        /* Not a nanosecond too long. */
        assert_int_equal(throttle_state_wait(state, now + wait - 1, is_write), 1);
        assert_int_equal(throttle_state_wait(state, now + wait, is_write), 0);
    }
    throttle_state_account(state, is_write, bytes);
    return now + wait;
}

/* The least t (ns, >= 0) with @amount - @rate * t / 10^9 <= @size / 10. */
static int64_t leaks_until(int64_t amount, int64_t size_in_tenths, int64_t rate)
{
    int64_t extra = amount * 10 - size_in_tenths;

    return extra <= 0 ? 0 : (extra * SECOND + 10 * rate - 1) / (10 * rate);
}

static void without_limits_nothing_waits(void **state)
{
    ThrottleConfig config;
    ThrottleState s;

    throttle_config_init(&config);
    throttle_state_init(&s, &config, 0);
    assert_false(throttle_state_is_limited(&s));
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(go(&s, 0, i % 2, 1 << 30), 0);
    }
}

static void rate_is_exact(void **state)
{
    static const int64_t rates[] = {1, 3, 7, 10, 999, 1000003};

    for (size_t r = 0; r < G_N_ELEMENTS(rates); r++) {
        ThrottleConfig config = one_limit(THROTTLE_IOPS_TOTAL, rates[r], 0, 1);
        ThrottleState s;
        int64_t now = 0;

        throttle_state_init(&s, &config, 0);
        assert_true(throttle_state_is_limited(&s));
        for (int64_t n = 0; n < 3000; n++) {
            /* Without a burst rate a tenth of a second may come at once. */
            now = go(&s, now, n % 3 == 0, 512);
            assert_int_equal(now, leaks_until(n, rates[r], rates[r]));
        }
    }
}

static void bytes_are_exact(void **state)
{
    ThrottleConfig config = one_limit(THROTTLE_BPS_WRITE, 777777, 0, 1);
    ThrottleState s;
    int64_t now = 0, sum = 0;

    throttle_state_init(&s, &config, 0);
    for (int64_t n = 0; n < 3000; n++) {
        now = go(&s, now, true, n);
        assert_int_equal(now, leaks_until(sum, 777777, 777777));
        sum += n;
        assert_int_equal(throttle_state_wait(&s, now, false), 0); /* reads are not limited */
    }
}

/* At max until the burst is used up, then at avg. */
static void burst_lasts_as_long_as_it_may(void **state)
{
    ThrottleConfig config = one_limit(THROTTLE_IOPS_READ, 5, 10, 2);
    ThrottleState s;
    int64_t now = 0;

    throttle_state_init(&s, &config, 0);
    for (int64_t n = 0; n < 100; n++) {
        now = go(&s, now, false, 1);
        assert_int_equal(now, MAX(leaks_until(n, 200, 5), leaks_until(n, 10, 10)));
    }
    /* Of a second at most, it comes at once. */
    config = one_limit(THROTTLE_IOPS_READ, 5, 10, 1);
    throttle_state_init(&s, &config, 0);
    now = 0;
    for (int64_t n = 0; n < 100; n++) {
        now = go(&s, now, false, 1);
        assert_int_equal(now, leaks_until(n, 100, 5));
    }
}

static void idle_time_is_not_saved_up(void **state)
{
    ThrottleConfig config = one_limit(THROTTLE_IOPS_TOTAL, 10, 0, 1);
    ThrottleState s;

    throttle_state_init(&s, &config, 0);
    for (int64_t t = 0; t < 3; t++) {
        int64_t now = t * 1000 * SECOND;

        assert_int_equal(go(&s, now, false, 1), now);
        assert_int_equal(go(&s, now, false, 1), now);
        assert_int_equal(go(&s, now, false, 1), now + SECOND / 10);
    }
}

static void long_requests_count_as_several(void **state)
{
    ThrottleConfig config = one_limit(THROTTLE_IOPS_TOTAL, 10, 0, 1);
    ThrottleState s;

    config.iops_size = 4096;
    throttle_state_init(&s, &config, 0);
    throttle_state_account(&s, false, 10240); /* two and a half, of which one may stay */
    assert_int_equal(throttle_state_wait(&s, 0, true), SECOND / 10 * 3 / 2);
    throttle_state_init(&s, &config, 0);
    throttle_state_account(&s, false, 4096);
    throttle_state_account(&s, false, 1); /* never less than one */
    assert_int_equal(throttle_state_wait(&s, 0, true), SECOND / 10);
    throttle_state_init(&s, &config, 0);
    throttle_state_account(&s, false, 4096 * 2 + 1); /* not lost */
    assert_int_equal(throttle_state_wait(&s, 0, true), SECOND / 10 + 24414);
}

static void total_goes_for_both_and_parts_for_one(void **state)
{
    ThrottleConfig config = one_limit(THROTTLE_BPS_TOTAL, 1000, 0, 1);
    ThrottleState s;

    throttle_state_init(&s, &config, 0);
    throttle_state_account(&s, true, 600);
    assert_int_equal(throttle_state_wait(&s, 0, false), SECOND / 2);
    assert_int_equal(throttle_state_wait(&s, 0, true), SECOND / 2);
    throttle_config_init(&config);
    config.limits[THROTTLE_BPS_READ].avg = 1000;
    config.limits[THROTTLE_IOPS_READ].avg = 10;
    config.limits[THROTTLE_BPS_WRITE].avg = 100;
    throttle_state_init(&s, &config, 0);
    throttle_state_account(&s, true, 110);
    throttle_state_account(&s, false, 1100); /* the longer wait counts: bytes here */
    throttle_state_account(&s, false, 0);
    assert_int_equal(throttle_state_wait(&s, 0, false), SECOND);
    assert_int_equal(throttle_state_wait(&s, 0, true), SECOND);
    assert_int_equal(throttle_state_wait(&s, SECOND / 2, false), SECOND / 2);
}

static void clock_may_go_back(void **state)
{
    ThrottleConfig config = one_limit(THROTTLE_IOPS_TOTAL, 10, 0, 1);
    ThrottleState s;

    throttle_state_init(&s, &config, 5 * SECOND);
    for (int i = 0; i < 3; i++) {
        throttle_state_account(&s, false, 1);
    }
    assert_int_equal(throttle_state_wait(&s, 5 * SECOND + SECOND / 10, false), SECOND / 10);
    assert_int_equal(throttle_state_wait(&s, 1, false), SECOND / 10);
    assert_int_equal(s.now_ns, 5 * SECOND + SECOND / 10);
}

static void extremes_do_not_overflow(void **state)
{
    ThrottleConfig config = one_limit(THROTTLE_BPS_TOTAL, THROTTLE_VALUE_MAX, 0, 1);
    ThrottleState s;

    throttle_state_init(&s, &config, 0);
    for (int i = 0; i < 10; i++) {
        throttle_state_account(&s, true, INT64_MAX);
    }
    /* 2^63 bytes, less what may stay, at 10^15 per second */
    assert_int_equal(throttle_state_wait(&s, 0, true), INT64_C(9223272036855));
    assert_int_equal(throttle_state_wait(&s, INT64_MAX, true), 0);
    config = one_limit(THROTTLE_BPS_TOTAL, 1, THROTTLE_VALUE_MAX / 2, 2);
    config.limits[THROTTLE_IOPS_TOTAL] =
        (ThrottleLimit){1, THROTTLE_VALUE_MAX / UINT32_MAX, UINT32_MAX};
    config.iops_size = UINT64_MAX;
    assert_true(throttle_config_check(&config, NULL));
    throttle_state_init(&s, &config, INT64_MIN);
    throttle_state_account(&s, true, INT64_MAX);
    assert_int_equal(throttle_state_wait(&s, INT64_MIN, true), INT64_MAX);
    assert_int_equal(throttle_state_wait(&s, INT64_MAX, true), INT64_MAX);
    config.iops_size = INT64_MAX - 1;
    throttle_state_init(&s, &config, 0);
    throttle_state_account(&s, true, INT64_MAX);
    assert_int_equal(s.buckets[THROTTLE_IOPS_TOTAL].level.whole, 1);
}

/* ---- Limits ------------------------------------------------------------------------------- */

/* "x-iops-total=5,…" */
static bool take(ThrottleConfig *config, const char *text, GError **errp)
{
    g_autoptr(JsonObject) options = block_options_parse(text, NULL, NULL);

    assert_non_null(options);
    throttle_config_init(config);
    if (!throttle_config_take(config, options, errp)) {
        return false;
    }
    assert_int_equal(json_object_get_size(options), 0);
    return throttle_config_check(config, errp);
}

static void limits_are_taken_by_their_names(void **state)
{
    ThrottleConfig c;
    GError *err = NULL;

    assert_ok(take(&c, "x-bps-read=1,x-bps-read-max=2,x-bps-read-max-length=3,x-bps-write=4,"
                   "limits.iops-total=5,limits.iops-total-max=0x10,x-iops-size=512", &err), err);
    assert_memory_equal(&c.limits[THROTTLE_BPS_TOTAL], (&(ThrottleLimit){0, 0, 1}), 24);
    assert_memory_equal(&c.limits[THROTTLE_BPS_READ], (&(ThrottleLimit){1, 2, 3}), 24);
    assert_memory_equal(&c.limits[THROTTLE_BPS_WRITE], (&(ThrottleLimit){4, 0, 1}), 24);
    assert_memory_equal(&c.limits[THROTTLE_IOPS_TOTAL], (&(ThrottleLimit){5, 16, 1}), 24);
    assert_int_equal(c.iops_size, 512);
    /* "limits" wins. */
    assert_ok(take(&c, "limits.iops-read=7,x-iops-read=6,x-iops-write=8", &err), err);
    assert_int_equal(c.limits[THROTTLE_IOPS_READ].avg, 7);
    assert_int_equal(c.limits[THROTTLE_IOPS_WRITE].avg, 8);
}

static void limits_that_do_not_go_together_are_refused(void **state)
{
    static const struct {
        const char *limits;
        const char *message;
    } cases[] = {
        {"x-iops-total=10,x-iops-read=5", "total values and read/write values cannot be used"},
        {"x-bps-total=10,x-bps-write=5", "total values and read/write values cannot be used"},
        {"x-bps-total=9,x-bps-total-max=9,x-bps-read-max=9", "cannot be used at the same time"},
        {"x-iops-size=512,x-bps-read=10000000000000000", "iops size requires an iops value"},
        {"x-bps-read=1000000000000001", "values must be within [0, 1000000000000000]"},
        {"x-bps-read=1,x-bps-read-max=1000000000000001", "values must be within [0, 1000"},
        {"limits.bps-total=-1", "values must be within [0, 1000000000000000]"},
        {"x-iops-total=10,x-iops-total-max-length=0", "the burst length cannot be 0"},
        {"x-iops-total=10,x-iops-total-max-length=2", "burst length set without burst rate"},
        {"x-bps-total=1,x-bps-total-max=1000000000000000,x-bps-total-max-length=2",
         "burst length too high for this burst rate"},
        {"limits.iops-total=5,limits.iops-total-max=6,limits.iops-total-max-length=-1",
         "burst length too high for this burst rate"},
        {"x-iops-total-max=10", "bps_max/iops_max require corresponding bps/iops values"},
        {"x-iops-total=10,x-iops-total-max=9", "bps_max/iops_max cannot be lower than bps/iops"},
        {"x-iops-total=-1", "Property values cannot be negative"},
        {"x-iops-total=1k", "Parameter 'x-iops-total' expects integer"},
        {"limits.iops-total=", "Parameter 'limits.iops-total' expects integer"},
        {"limits=4", "Invalid parameter type for 'limits', expected: object"},
        {"limits.foo=4", "Parameter 'limits.foo' is unexpected"},
        {"x-bps-read-max-length=4294967296", "must be in the range [0, 4294967295]"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        ThrottleConfig config;
        GError *err = NULL;

        if (take(&config, cases[i].limits, &err)) {
            fail_msg("%s is accepted", cases[i].limits);
        }
        assert_error_has(&err, cases[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_limits_nothing_waits),
        cmocka_unit_test(rate_is_exact),
        cmocka_unit_test(bytes_are_exact),
        cmocka_unit_test(burst_lasts_as_long_as_it_may),
        cmocka_unit_test(idle_time_is_not_saved_up),
        cmocka_unit_test(long_requests_count_as_several),
        cmocka_unit_test(total_goes_for_both_and_parts_for_one),
        cmocka_unit_test(clock_may_go_back),
        cmocka_unit_test(extremes_do_not_overflow),
        cmocka_unit_test(limits_are_taken_by_their_names),
        cmocka_unit_test(limits_that_do_not_go_together_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
