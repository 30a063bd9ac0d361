/* verdict_test.c - from facts to causes. */
#include "worker/shepherd/verdict.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct verdict_facts quiet = {.stop_text = "",
                                           .stderr_line = "",
                                           .abort_text = "",
                                           .diverged_text = ""};

static struct verdict reach(struct verdict_facts facts)
{
    struct verdict verdict;
    verdict_reach(&facts, &verdict);
    return verdict;
}

static void no_fact_is_success(void **state)
{
    (void)state;
    struct verdict verdict = reach(quiet);
    assert_int_equal(verdict.cause, CAUSE_SUCCESS);
    assert_string_equal(verdict.text, "");
}

static void an_exit_code_carries_its_last_line(void **state)
{
    (void)state;
    struct verdict_facts facts = quiet;
    facts.failed = true;
    facts.rank = 1;
    facts.code = 3;
    facts.stderr_line = "no such table";
    struct verdict verdict = reach(facts);
    assert_int_equal(verdict.cause, CAUSE_EXIT);
    assert_int_equal(verdict.code, 3);
    assert_string_equal(verdict.text,
                        "rank 1 exited with code 3; last stderr line: \"no such table\"");
}

static void a_kill_is_oom_only_with_evidence(void **state)
{
    (void)state;
    struct verdict_facts facts = quiet;
    facts.failed = facts.by_signal = true;
    facts.code = SIGKILL;
    assert_int_equal(reach(facts).cause, CAUSE_SIGNAL);
    facts.machine_oom_kills = 1;
    assert_int_equal(reach(facts).cause, CAUSE_OOM);
    facts.memory_counted = true; /* the kernel would have counted it as ours */
    assert_int_equal(reach(facts).cause, CAUSE_SIGNAL);
    facts.memory_counted = false;
    facts.code = SIGSEGV; /* somebody else's lack of memory */
    assert_int_equal(reach(facts).cause, CAUSE_SIGNAL);
    facts.cgroup_oom_kills = 1; /* a child was killed and the rank crashed over it */
    assert_int_equal(reach(facts).cause, CAUSE_OOM);
}

static void divergence_needs_a_failure(void **state)
{
    (void)state;
    struct verdict_facts facts = quiet;
    facts.diverged = true;
    facts.diverged_text = "loss is nan";
    assert_int_equal(reach(facts).cause, CAUSE_SUCCESS);
    facts.failed = true;
    facts.code = 1;
    assert_int_equal(reach(facts).cause, CAUSE_DIVERGED);
}

static void a_program_that_gives_up_says_why(void **state)
{
    (void)state;
    struct verdict_facts facts = quiet;
    facts.gave_up = "min_yield: no pair was kept";
    assert_int_equal(reach(facts).cause, CAUSE_SUCCESS); /* it thought better of it */
    facts.failed = true;
    facts.code = 1;
    assert_int_equal(reach(facts).cause, CAUSE_GAVE_UP);
    assert_string_equal(reach(facts).text, "min_yield: no pair was kept");
    facts.by_signal = true;
    facts.code = SIGKILL;
    assert_int_equal(reach(facts).cause, CAUSE_SIGNAL);
}

static void what_we_stopped_is_not_blamed_for_how_it_died(void **state)
{
    (void)state;
    struct verdict_facts facts = quiet;
    facts.stop_cause = CAUSE_TIME_LIMIT;
    facts.stop_text = "reached its wall_time of 1h";
    facts.failed = facts.by_signal = true;
    facts.code = SIGTERM;
    struct verdict verdict = reach(facts);
    assert_int_equal(verdict.cause, CAUSE_TIME_LIMIT);
    assert_int_equal(verdict.code, 0);
}

static void a_launch_that_failed_is_that_before_all(void **state)
{
    (void)state;
    struct verdict_facts facts = quiet;
    facts.launch_error = "rank 1: fork: no";
    facts.failed = true;
    facts.stop_cause = CAUSE_CANCELLED;
    assert_int_equal(reach(facts).cause, CAUSE_LAUNCH_FAILED);
}

static void evidence_is_printable_whatever_the_program_printed(void **state)
{
    (void)state;
    struct verdict_facts facts = quiet;
    facts.failed = true;
    facts.code = 1;
    facts.stderr_line = "bad \xff\xfe bytes";
    assert_non_null(strstr(reach(facts).text, "bad ?? bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_fact_is_success),
        cmocka_unit_test(an_exit_code_carries_its_last_line),
        cmocka_unit_test(a_kill_is_oom_only_with_evidence),
        cmocka_unit_test(divergence_needs_a_failure),
        cmocka_unit_test(a_program_that_gives_up_says_why),
        cmocka_unit_test(what_we_stopped_is_not_blamed_for_how_it_died),
        cmocka_unit_test(a_launch_that_failed_is_that_before_all),
        cmocka_unit_test(evidence_is_printable_whatever_the_program_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
