/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leaky buckets: see throttle.h.
 *
 * Invariants:
 *  1. Nothing overflows: rates and sizes are at most THROTTLE_VALUE_MAX (10^15), what
 *     is in a bucket stops growing at THROTTLE_LEVEL_MAX, times stop at INT64_MAX.
 *  2. A part of a request is rounded to billionths. Nothing else is but the wait, which
 *     is rounded up: after it, and not a nanosecond before, the request may go.
 */
#include "block/throttle.h"

#define NS_PER_S 1000000000ULL
/* Far beyond what can leak in a lifetime at any rate. */
#define THROTTLE_LEVEL_MAX (UINT64_MAX / 2)

/* ---- Amounts ------------------------------------------------------------------------ */

/*
 * @part / @of (< 1) in billionths, rounded down; *@rest is what is left of @part × 10^9.
 * Digit by digit, lest the product overflow. @of <= UINT64_MAX / 10.
 */
static uint32_t billionths(uint64_t part, uint64_t of, uint64_t *rest)
{
    uint32_t result = 0;

    for (int i = 0; i < 9; i++) {
        part *= 10;
        result = result * 10 + part / of;
        part %= of;
    }
    *rest = part;
    return result;
}

static void amount_add(ThrottleAmount *a, const ThrottleAmount *b)
{
    uint32_t nano = a->nano + b->nano;
    uint64_t carry = nano / NS_PER_S;

    if (b->whole >= THROTTLE_LEVEL_MAX - 1 - a->whole) {
        *a = (ThrottleAmount){THROTTLE_LEVEL_MAX - 1, 0};
        return;
    }
    a->whole += b->whole + carry;
    a->nano = nano - carry * NS_PER_S;
}

/* @a - @b, or 0 if @b is more. */
static ThrottleAmount amount_minus(const ThrottleAmount *a, const ThrottleAmount *b)
{
    ThrottleAmount r;
    bool borrow = a->nano < b->nano;

    if (a->whole < b->whole || a->whole - b->whole < borrow) {
        return (ThrottleAmount){0, 0};
    }
    r.whole = a->whole - b->whole - borrow;
    r.nano = a->nano + (borrow ? NS_PER_S : 0) - b->nano;
    return r;
}

/* What flows at @rate per second in @ns. */
static ThrottleAmount amount_flow(uint64_t rate, uint64_t ns)
{
    uint64_t seconds = ns / NS_PER_S, rest = ns % NS_PER_S;
    uint64_t product = rate % NS_PER_S * rest; /* < 10^18 */
    ThrottleAmount r;

    if (__builtin_mul_overflow(rate, seconds, &r.whole) || r.whole >= THROTTLE_LEVEL_MAX) {
        return (ThrottleAmount){THROTTLE_LEVEL_MAX, 0};
    }
    r.whole += rate / NS_PER_S * rest + product / NS_PER_S;
    r.nano = product % NS_PER_S;
    return r;
}

/* How long @a takes to flow at @rate (> 0), in nanoseconds, rounded up. */
static int64_t amount_time(const ThrottleAmount *a, uint64_t rate)
{
    uint64_t rest, ns = billionths(a->whole % rate, rate, &rest);
    int64_t result;

    ns += (rest + a->nano + rate - 1) / rate;
    if (__builtin_mul_overflow(a->whole / rate, NS_PER_S, &result) ||
        __builtin_add_overflow(result, ns, &result)) {
        return INT64_MAX;
    }
    return result;
}

/* A tenth of @n. */
static ThrottleAmount amount_tenth(uint64_t n)
{
    return (ThrottleAmount){n / 10, n % 10 * (NS_PER_S / 10)};
}

/* ---- Buckets ---------------------------------------------------------------------------- */

/* A burst at the higher rate has a bucket of its own if it may last. */
static bool has_burst(const ThrottleLimit *limit)
{
    return limit->max > 0 && limit->max_length > 1;
}

static void bucket_leak(const ThrottleLimit *limit, ThrottleBucket *bucket, uint64_t ns)
{
    ThrottleAmount leaked = amount_flow(limit->avg, ns);

    bucket->level = amount_minus(&bucket->level, &leaked);
    if (has_burst(limit)) {
        leaked = amount_flow(limit->max, ns);
        bucket->burst = amount_minus(&bucket->burst, &leaked);
    }
}

/* How long until the bucket is no fuller than its size. */
static int64_t bucket_wait(const ThrottleLimit *limit, const ThrottleBucket *bucket)
{
    ThrottleAmount size, extra;
    int64_t wait;

    if (limit->avg == 0) {
        return 0;
    }
    if (limit->max > 0) {
        size = (ThrottleAmount){limit->max * limit->max_length, 0};
    } else {
        size = amount_tenth(limit->avg); /* or every second request would have to wait */
    }
    extra = amount_minus(&bucket->level, &size);
    wait = amount_time(&extra, limit->avg);
    if (has_burst(limit)) {
        size = amount_tenth(limit->max);
        extra = amount_minus(&bucket->burst, &size);
        wait = MAX(wait, amount_time(&extra, limit->max));
    }
    return wait;
}

/* Whether a limit concerns this kind of request. */
static bool concerns(ThrottleKind kind, bool is_write)
{
    bool total = kind == THROTTLE_BPS_TOTAL || kind == THROTTLE_IOPS_TOTAL;

    return total || (kind == THROTTLE_BPS_WRITE || kind == THROTTLE_IOPS_WRITE) == is_write;
}

/* As how many requests one of @bytes counts. */
static ThrottleAmount request_cost(uint64_t iops_size, uint64_t bytes)
{
    ThrottleAmount cost = {1, 0};
    uint64_t part, rest;

    if (iops_size == 0 || bytes <= iops_size) {
        return cost;
    }
    cost.whole = bytes / iops_size;
    part = bytes % iops_size;
    while (iops_size > UINT64_MAX / 10) {
        iops_size >>= 1;
        part >>= 1;
    }
    cost.nano = billionths(part, iops_size, &rest);
    return cost;
}

void throttle_state_init(ThrottleState *state, const ThrottleConfig *config, int64_t now_ns)
{
    *state = (ThrottleState){.config = *config, .now_ns = now_ns};
}

bool throttle_state_is_limited(const ThrottleState *state)
{
    for (int i = 0; i < THROTTLE__MAX; i++) {
        if (state->config.limits[i].avg > 0) {
            return true;
        }
    }
    return false;
}

int64_t throttle_state_wait(ThrottleState *state, int64_t now_ns, bool is_write)
{
    int64_t wait = 0;

    for (int i = 0; i < THROTTLE__MAX; i++) {
        const ThrottleLimit *limit = &state->config.limits[i];
        ThrottleBucket *bucket = &state->buckets[i];

        if (now_ns > state->now_ns) {
            bucket_leak(limit, bucket, (uint64_t)now_ns - (uint64_t)state->now_ns);
        }
        if (concerns(i, is_write)) {
            wait = MAX(wait, bucket_wait(limit, bucket));
        }
    }
    state->now_ns = MAX(state->now_ns, now_ns);
    return wait;
}

void throttle_state_account(ThrottleState *state, bool is_write, int64_t bytes)
{
    ThrottleAmount requests = request_cost(state->config.iops_size, bytes);
    ThrottleAmount size = {bytes, 0};

    for (int i = 0; i < THROTTLE__MAX; i++) {
        const ThrottleAmount *cost = i < THROTTLE_IOPS_TOTAL ? &size : &requests;

        if (!concerns(i, is_write)) {
            continue;
        }
        amount_add(&state->buckets[i].level, cost);
        if (has_burst(&state->config.limits[i])) {
            amount_add(&state->buckets[i].burst, cost);
        }
    }
}
