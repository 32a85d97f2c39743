/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nobody sleeps over a notification, whenever it comes: a made-up engine sends
 * one at each point of a turn that another thread could hit.
 */
#include "tests/unit/aio-testing.h"

typedef enum Moment {
    NEVER,
    BEFORE_THE_TURN,
    AFTER_LOOKING_FOR_WORK, /* the loop asks for the time, to compute how long to sleep */
    ASLEEP,
} Moment;

typedef struct FakeEngine {
    Moment moment; /* when to push a bottom half */
    int64_t slept; /* what wait() was told */
    int waits;
    int notifications; /* system calls that a real engine would make */
    bool ran;
} FakeEngine;

static void at(AioContext *ctx, Moment moment)
{
    FakeEngine *fake = ctx->engine;

    if (fake->moment == moment) {
        fake->moment = NEVER;
        aio_bh_oneshot(ctx, test_set_flag, &fake->ran);
        aio_notify(ctx);
    }
}

static bool fake_open(AioContext *ctx, GError **errp)
{
    return true;
}

static void fake_close(AioContext *ctx)
{
}

static int64_t fake_now(AioContext *ctx)
{
    at(ctx, AFTER_LOOKING_FOR_WORK);
    return 0;
}

static void fake_wait(AioContext *ctx, int64_t timeout_ns)
{
    FakeEngine *fake = ctx->engine;

    if (fake->waits++ == 0) {
        fake->slept = timeout_ns;
    }
    at(ctx, ASLEEP);
}

static void fake_notify(AioContext *ctx)
{
    ((FakeEngine *)ctx->engine)->notifications++;
}

static const AioEngineOps fake_ops = {
    .id = AIO_ENGINE_SIMULATED,
    .name = "fake",
    .open = fake_open,
    .close = fake_close,
    .now = fake_now,
    .wait = fake_wait,
    .notify = fake_notify,
    .choose = aio_choose_fifo,
};

/* A blocking poll of a loop that has a timer in a second, and a push at @moment. */
static FakeEngine poll_with_push_at(Moment moment)
{
    FakeEngine fake = { 0 };
    AioHome *home = aio_home_new();
    AioHome *old = aio_home_switch(home);
    AioContext *ctx = aio_context_new_on(home, &fake_ops, &fake, NULL);
    AioTimer *timer = aio_timer_new(ctx, test_set_flag, NULL);

    aio_timer_mod(timer, 1000000000);
    fake.moment = moment;
    at(ctx, BEFORE_THE_TURN);
    assert_true(aio_poll(ctx, true));
    assert_true(fake.ran);
    aio_timer_free(timer);
    aio_context_unref(ctx);
    aio_home_switch(old);
    aio_home_unref(home);
    return fake;
}

static void a_push_before_the_turn_keeps_it_awake(void **state)
{
    FakeEngine fake = poll_with_push_at(BEFORE_THE_TURN);

    assert_int_equal(fake.slept, 0);
    assert_int_equal(fake.notifications, 0);
}

static void a_push_behind_the_look_for_work_keeps_it_awake(void **state)
{
    FakeEngine fake = poll_with_push_at(AFTER_LOOKING_FOR_WORK);

    assert_int_equal(fake.slept, 0);
    assert_int_equal(fake.notifications, 0);
}

static void pushes_while_asleep_cost_one_system_call(void **state)
{
    FakeEngine fake = poll_with_push_at(ASLEEP);

    assert_int_equal(fake.slept, 1000000000);
    assert_int_equal(fake.waits, 1);
    assert_int_equal(fake.notifications, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_push_before_the_turn_keeps_it_awake),
        cmocka_unit_test(a_push_behind_the_look_for_work_keeps_it_awake),
        cmocka_unit_test(pushes_while_asleep_cost_one_system_call),
    };

    return cmocka_run_group_tests_name("aio-notify", tests, NULL, NULL);
}
