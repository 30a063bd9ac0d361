/* life_test.c - the three tables against literal grids, and the README against both. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "coordinator/core/life.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Rows: events. Columns: states before. Cells: state after; blank: refused. */
static const char job_grid[] =
    "| job | WAITING | READY | BACKOFF | PLACED | RUNNING | STOPPING | SUCCEEDED | FAILED |"
    " CANCELLED |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
    "| PARENTS_MET | READY | | | | | | | | |\n"
    "| PARENT_BROKEN | FAILED | | | | | | | | |\n"
    "| PARENT_SKIPPED | CANCELLED | | | | | | | | |\n"
    "| PLACE | | PLACED | | | | | | | |\n"
    "| INPUT_MISSING | | FAILED | | | | | | | |\n"
    "| START | | | | RUNNING | | STOPPING | | | |\n"
    "| SUCCEED | | | | SUCCEEDED | SUCCEEDED | SUCCEEDED | | | |\n"
    "| RETRY | | | | BACKOFF | BACKOFF | | | | |\n"
    "| REQUEUE | | | | READY | READY | | | | |\n"
    "| FAIL | | | | FAILED | FAILED | | | | |\n"
    "| STOPPED | | | | | | CANCELLED | | | |\n"
    "| DUE | | | READY | | | | | | |\n"
    "| CANCEL | CANCELLED | CANCELLED | CANCELLED | STOPPING | STOPPING | STOPPING | | | |\n"
    "| HOLD | WAITING | READY | BACKOFF | | | | | | |\n"
    "| RELEASE | WAITING | READY | BACKOFF | | | | | | |\n"
    "| REOPEN | | | | | | | | WAITING | WAITING |\n"
    "| REUSE | | SUCCEEDED | | | | | | | |\n";

static const char attempt_grid[] =
    "| attempt | PLACED | RUNNING | STOPPING | ENDED |\n"
    "|---|---|---|---|---|\n"
    "| START | RUNNING | | STOPPING | |\n"
    "| STOP | STOPPING | STOPPING | | |\n"
    "| FINISH | ENDED | ENDED | ENDED | |\n"
    "| LOSE | ENDED | ENDED | ENDED | |\n";

static const char worker_grid[] =
    "| worker | OK | SUSPECT | LOST | LEFT |\n"
    "|---|---|---|---|---|\n"
    "| JOIN | OK | OK | OK | OK |\n"
    "| BEAT | OK | OK | | |\n"
    "| SILENCE | SUSPECT | | | |\n"
    "| EXPIRE | LOST | LOST | | |\n"
    "| LEAVE | LEFT | LEFT | | |\n";

/* One signature for the three lives. */
static int job_after(int state, int event)
{
    return (int)job_next((enum job_state)state, (enum job_event)event);
}
static int attempt_after(int state, int event)
{
    return (int)attempt_next((enum attempt_state)state, (enum attempt_event)event);
}
static int worker_after(int state, int event)
{
    return (int)worker_next((enum worker_state)state, (enum worker_event)event);
}
static const char *job_state(int state)
{
    return job_state_name((enum job_state)state);
}
static const char *job_event(int event)
{
    return job_event_name((enum job_event)event);
}
static const char *attempt_state(int state)
{
    return attempt_state_name((enum attempt_state)state);
}
static const char *attempt_event(int event)
{
    return attempt_event_name((enum attempt_event)event);
}
static const char *worker_state(int state)
{
    return worker_state_name((enum worker_state)state);
}
static const char *worker_event(int event)
{
    return worker_event_name((enum worker_event)event);
}

struct life {
    const char *name, *grid;
    int state_end, event_end;
    int (*after)(int state, int event);
    const char *(*state)(int state);
    const char *(*event)(int event);
};

static const struct life lives[] = {
    {"job", job_grid, JOB_STATE_END, JOB_EVENT_END, job_after, job_state, job_event},
    {"attempt", attempt_grid, ATTEMPT_STATE_END, ATTEMPT_EVENT_END, attempt_after, attempt_state,
     attempt_event},
    {"worker", worker_grid, WORKER_STATE_END, WORKER_EVENT_END, worker_after, worker_state,
     worker_event},
};

static void render(const struct life *life, struct buf *out)
{
    buf_printf(out, "| %s |", life->name);
    for (int state = 1; state < life->state_end; state++)
        buf_printf(out, " %s |", life->state(state));
    buf_puts(out, "\n|---|");
    for (int state = 1; state < life->state_end; state++)
        buf_puts(out, "---|");
    for (int event = 1; event < life->event_end; event++) {
        buf_printf(out, "\n| %s |", life->event(event));
        for (int state = 1; state < life->state_end; state++) {
            int after = life->after(state, event);
            buf_printf(out, after ? " %s |" : " |", after ? life->state(after) : "");
        }
    }
    buf_putc(out, '\n');
}

static void every_pair_of_state_and_event_is_as_decided(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lives); i++) {
        struct buf text = {0};
        render(&lives[i], &text);
        assert_string_equal(buf_text(&text), lives[i].grid);
        buf_done(&text);
    }
}

static void the_readme_shows_the_tables_as_they_are(void **state)
{
    (void)state;
    char *readme;
    size_t length;
    struct err err;
    if (file_read("coordinator/core/README.md", 1 << 20, &readme, &length, &err) < 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < ARRAY_COUNT(lives); i++)
        if (!strstr(readme, lives[i].grid))
            fail_msg("coordinator/core/README.md does not show this table:\n%s", lives[i].grid);
    mem_free(readme);
}

static void terminal_states_have_no_way_out_but_reopening(void **state)
{
    (void)state;
    for (int from = 1; from < JOB_STATE_END; from++)
        for (int event = 1; event < JOB_EVENT_END; event++)
            if (job_state_is_terminal((enum job_state)from) && event != JOB_ON_REOPEN)
                assert_int_equal(job_after(from, event), JOB_STATE_NONE);
    assert_int_equal(job_next(JOB_SUCCEEDED, JOB_ON_REOPEN), JOB_STATE_NONE);
    for (int event = 1; event < ATTEMPT_EVENT_END; event++)
        assert_int_equal(attempt_after(ATTEMPT_ENDED, event), ATTEMPT_STATE_NONE);
}

static void every_state_is_cancellable_or_has_ended(void **state)
{
    (void)state;
    for (int from = 1; from < JOB_STATE_END; from++)
        assert_true((job_after(from, JOB_ON_CANCEL) != JOB_STATE_NONE) ==
                    !job_state_is_terminal((enum job_state)from));
}

static void names_lead_back_to_their_states(void **state)
{
    (void)state;
    for (int i = 1; i < JOB_STATE_END; i++)
        assert_int_equal(job_state_from_name(job_state(i)), i);
    for (int i = 1; i < ATTEMPT_STATE_END; i++)
        assert_int_equal(attempt_state_from_name(attempt_state(i)), i);
    for (int i = 1; i < WORKER_STATE_END; i++)
        assert_int_equal(worker_state_from_name(worker_state(i)), i);
    for (int i = 1; i < ACTION_END; i++)
        assert_int_equal(action_from_name(action_name((enum action)i)), i);
    assert_int_equal(job_state_from_name("running"), JOB_STATE_NONE);
    assert_int_equal(action_from_name("explode"), ACTION_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_state_and_event_is_as_decided),
        cmocka_unit_test(the_readme_shows_the_tables_as_they_are),
        cmocka_unit_test(terminal_states_have_no_way_out_but_reopening),
        cmocka_unit_test(every_state_is_cancellable_or_has_ended),
        cmocka_unit_test(names_lead_back_to_their_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
