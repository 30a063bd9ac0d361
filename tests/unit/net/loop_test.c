/* loop_test.c - what fires, in which order, and what may be removed meanwhile. */
#include "common/base/mem.h"
#include "common/net/loop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    struct loop *loop;
    struct err err;
    char trace[64];
    int fds[2];
    struct loop_watch *watches[3];
    struct loop_timer timers[3];
    unsigned idles;
};

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    f->loop = loop_new();
    assert_int_equal(pipe(f->fds), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    loop_free(f->loop);
    close(f->fds[0]);
    close(f->fds[1]);
    mem_free(f);
    return 0;
}

static void note(struct fixture *f, const char *text)
{
    size_t used = strlen(f->trace);
    CHECK(used + strlen(text) < sizeof f->trace);
    snprintf(f->trace + used, sizeof f->trace - used, "%s", text);
}

static void fire_a(void *user)
{
    note(user, "a");
}

static void fire_b(void *user)
{
    note(user, "b");
}

static void fire_stop(void *user)
{
    struct fixture *f = user;
    note(f, "s");
    loop_stop(f->loop);
}

static void start(struct fixture *f, int index, loop_timer_fn *fire, uint64_t after_ms)
{
    f->timers[index].fire = fire;
    f->timers[index].user = f;
    loop_timer_start(f->loop, &f->timers[index], after_ms);
}

static void timers_fire_in_order_of_time_then_of_start(void **state)
{
    struct fixture *f = *state;
    start(f, 0, fire_stop, 20);
    start(f, 1, fire_a, 5);
    start(f, 2, fire_b, 0);
    assert_int_equal(loop_run(f->loop, &f->err), 0);
    assert_string_equal(f->trace, "bas");
}

static void a_stopped_timer_does_not_fire(void **state)
{
    struct fixture *f = *state;
    start(f, 0, fire_a, 0);
    start(f, 1, fire_stop, 5);
    loop_timer_stop(&f->timers[0]);
    loop_timer_stop(&f->timers[0]);
    assert_int_equal(loop_run(f->loop, &f->err), 0);
    assert_string_equal(f->trace, "s");
}

static void restarting(void *user)
{
    struct fixture *f = user;
    note(f, "r");
    if (strlen(f->trace) < 5)
        loop_timer_start(f->loop, &f->timers[0], 0);
    else
        loop_stop(f->loop);
}

static void a_timer_that_restarts_itself_lets_sockets_in(void **state)
{
    struct fixture *f = *state;
    start(f, 0, restarting, 0);
    assert_int_equal(loop_once(f->loop, 0, &f->err), 0);
    assert_string_equal(f->trace, "r"); /* once per pass */
    assert_int_equal(loop_run(f->loop, &f->err), 0);
    assert_string_equal(f->trace, "rrrrr");
}

static void read_one(void *user, unsigned events)
{
    struct fixture *f = user;
    char byte = 0;
    if (events & LOOP_READ && read(f->fds[0], &byte, 1) == 1)
        note(f, (char[]){byte, 0});
    if (byte == '.')
        loop_stop(f->loop);
}

static void a_descriptor_is_called_until_it_is_drained(void **state)
{
    struct fixture *f = *state;
    loop_add_fd(f->loop, f->fds[0], LOOP_READ, read_one, f);
    assert_int_equal(write(f->fds[1], "xyz.", 4), 4);
    assert_int_equal(loop_run(f->loop, &f->err), 0);
    assert_string_equal(f->trace, "xyz.");
}

static void remove_both(void *user, unsigned events)
{
    struct fixture *f = user;
    (void)events;
    note(f, "1");
    loop_remove(f->watches[0]);
    loop_remove(f->watches[1]);
}

static void never(void *user, unsigned events)
{
    (void)events;
    note(user, "never");
}

static void a_callback_may_remove_itself_and_the_next(void **state)
{
    struct fixture *f = *state;
    int other = dup(f->fds[0]);
    f->watches[0] = loop_add_fd(f->loop, f->fds[0], LOOP_READ, remove_both, f);
    f->watches[1] = loop_add_fd(f->loop, other, LOOP_READ, never, f);
    assert_int_equal(write(f->fds[1], "x", 1), 1);
    assert_int_equal(loop_once(f->loop, 1000, &f->err), 0);
    assert_int_equal(loop_once(f->loop, 0, &f->err), 0);
    assert_string_equal(f->trace, "1");
    close(other);
}

static void closed_is_noted(void *user, unsigned events)
{
    struct fixture *f = user;
    if (events & LOOP_ERROR)
        note(f, "e");
    loop_remove(f->watches[0]);
}

static void a_hang_up_is_told_unasked(void **state)
{
    struct fixture *f = *state;
    f->watches[0] = loop_add_fd(f->loop, f->fds[0], LOOP_READ, closed_is_noted, f);
    loop_watch_set(f->watches[0], 0);
    close(f->fds[1]);
    f->fds[1] = dup(f->fds[0]);
    assert_int_equal(loop_once(f->loop, 1000, &f->err), 0);
    assert_string_equal(f->trace, "e");
}

static void signal_noted(void *user, int number)
{
    struct fixture *f = user;
    note(f, number == SIGUSR1 ? "u" : "v");
    if (number == SIGUSR2)
        loop_stop(f->loop);
}

static void signals_arrive_as_callbacks(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(loop_add_signal(f->loop, SIGUSR1, signal_noted, f, &f->err), 0);
    assert_int_equal(loop_add_signal(f->loop, SIGUSR2, signal_noted, f, &f->err), 0);
    raise(SIGUSR1);
    assert_int_equal(loop_once(f->loop, 1000, &f->err), 0);
    raise(SIGUSR2);
    assert_int_equal(loop_run(f->loop, &f->err), 0);
    assert_string_equal(f->trace, "uv");
}

static void count_idle(void *user)
{
    struct fixture *f = user;
    f->idles++;
}

static void idle_runs_only_when_nothing_is_ready(void **state)
{
    struct fixture *f = *state;
    loop_set_idle(f->loop, count_idle, f);
    loop_add_fd(f->loop, f->fds[0], LOOP_READ, read_one, f);
    assert_int_equal(write(f->fds[1], "xy", 2), 2);
    assert_int_equal(loop_once(f->loop, 0, &f->err), 0);
    assert_int_equal(loop_once(f->loop, 0, &f->err), 0);
    assert_int_equal(f->idles, 0);
    assert_int_equal(loop_once(f->loop, 0, &f->err), 0);
    assert_int_equal(f->idles, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(timers_fire_in_order_of_time_then_of_start),
        T(a_stopped_timer_does_not_fire),
        T(a_timer_that_restarts_itself_lets_sockets_in),
        T(a_descriptor_is_called_until_it_is_drained),
        T(a_callback_may_remove_itself_and_the_next),
        T(a_hang_up_is_told_unasked),
        T(signals_arrive_as_callbacks),
        T(idle_runs_only_when_nothing_is_ready),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
