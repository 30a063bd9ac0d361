/* parsers_test.c - report lines, manifests and plans: what is accepted, what is refused and how. */
#include "common/base/arena.h"
#include "common/base/mem.h"
#include "worker/attempt/plan.h"
#include "worker/attempt/sweep.h"
#include "worker/shepherd/checkpoint_check.h"
#include "worker/shepherd/report_line.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct arena arena;

static int tear_down(void **state)
{
    (void)state;
    arena_done(&arena);
    return 0;
}

static struct report_line accepted(const char *text)
{
    struct report_line line;
    struct err err = {0};
    if (report_line_parse(text, strlen(text), &arena, &line, &err) < 0)
        fail_msg("%s: %s", text, err.text);
    return line;
}

static void refused(const char *text, const char *word)
{
    struct report_line line;
    struct err err = {0};
    assert_int_equal(report_line_parse(text, strlen(text), &arena, &line, &err), -1);
    assert_int_equal(err.kind, ERR_INVALID);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not mention '%s'", err.text, word);
}

static void metrics_are_read_with_step_and_rank(void **state)
{
    (void)state;
    struct report_line line = accepted(
        "{\"type\":\"metric\",\"rank\":3,\"step\":120,\"values\":{\"loss\":3.5,\"lr\":1}}");
    assert_int_equal(line.kind, LINE_METRIC);
    assert_true(line.has_rank);
    assert_int_equal(line.rank, 3);
    assert_int_equal(line.step, 120);
    assert_int_equal(line.value_count, 2);
    assert_string_equal(line.values[0].name, "loss");
    assert_true(line.values[0].value == 3.5);
    assert_true(line.values[1].value == 1.0);
}

static void numbers_that_are_none_can_be_said_in_every_usual_way(void **state)
{
    (void)state;
    struct report_line line =
        accepted("{\"type\":\"metric\",\"step\":1,\"values\":{\"a\":NaN,\"b\":-Infinity,"
                 "\"c\":null,\"d\":\"inf\",\"NaN\":1}}");
    assert_int_equal(line.value_count, 5);
    assert_true(isnan(line.values[0].value));
    assert_true(isinf(line.values[1].value) && line.values[1].value < 0);
    assert_true(isnan(line.values[2].value));
    assert_true(isinf(line.values[3].value));
    assert_string_equal(line.values[4].name, "NaN");
}

static void artifacts_carry_their_kind_in_meta(void **state)
{
    (void)state;
    struct report_line line = accepted("{\"type\":\"artifact\",\"kind\":\"dataset\",\"name\":\"g\","
                                       "\"path\":\"/d\",\"meta\":{\"n\":1}}");
    assert_string_equal(line.meta, "{\"n\":1,\"kind\":\"dataset\"}");
}

static void wrong_lines_are_refused_by_field(void **state)
{
    (void)state;
    refused("", "JSON");
    refused("[]", "JSON object");
    refused("{\"type\":\"metric\"", "JSON");
    refused("{}", "expected hello");
    refused("{\"type\":7}", "expected hello");
    refused("{\"type\":\"metric\",\"step\":1.5,\"values\":{\"a\":1}}", "step");
    refused("{\"type\":\"metric\",\"step\":1,\"values\":[1]}", "values");
    refused("{\"type\":\"metric\",\"step\":1,\"values\":{\"\":1}}", "1 to 200 bytes");
    refused("{\"type\":\"metric\",\"step\":1,\"values\":{\"a\":true}}", "values.a");
    refused("{\"type\":\"progress\"}", "step");
    refused("{\"type\":\"checkpoint\",\"step\":1}", "path");
    refused("{\"type\":\"checkpoint\",\"step\":1,\"path\":\"x\"}", "absolute");
    refused("{\"type\":\"event\"}", "name");
    refused("{\"type\":\"event\",\"name\":\"e\",\"fields\":3}", "fields");
    refused("{\"type\":\"metric\",\"rank\":-1,\"step\":1,\"values\":{\"a\":1}}", "rank");
    refused("{\"type\":\"metric\",\"step\":9007199254740993,\"values\":{\"a\":1}}", "step");
}

static void a_refused_line_still_says_whether_it_wants_an_answer(void **state)
{
    (void)state;
    const char *text = "{\"type\":\"nothing\",\"reply\":true}";
    struct report_line line = {0};
    struct err err = {0};
    assert_int_equal(report_line_parse(text, strlen(text), &arena, &line, &err), -1);
    assert_true(line.reply);
}

/* A value of 10^30 is refused by JSON readers; its writer waits for the answer all the same. */
static void a_line_that_is_no_json_but_mentions_reply_is_answered(void **state)
{
    (void)state;
    const char *broken = "{\"type\":\"metric\",\"step\":1000000000000000000000000000000,"
                         "\"values\":{\"a\":1},\"reply\":true}";
    struct report_line line = {.reply = false};
    struct err err = {0};
    assert_int_equal(report_line_parse(broken, strlen(broken), &arena, &line, &err), -1);
    assert_true(line.reply);
    assert_int_equal(report_line_parse("junk", 4, &arena, &line, &err), -1);
    assert_false(line.reply);
}

static int manifest(const char *text, uint64_t *bytes)
{
    struct err err = {0};
    return manifest_parse(text, strlen(text), 5, NULL, NULL, bytes, &err);
}

static void a_manifest_sums_its_sizes(void **state)
{
    uint64_t bytes = 0;
    (void)state;
    assert_int_equal(
        manifest("{\"format\":1,\"step\":5,\"files\":[{\"name\":\"a\",\"size_bytes\":3},"
                 "{\"name\":\"b/c\",\"size_bytes\":4}]}",
                 &bytes),
        0);
    assert_int_equal(bytes, 7);
}

static void a_manifest_may_not_name_what_is_outside(void **state)
{
    static const char *const names[] = {"", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/"};
    uint64_t bytes = 0;
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *text = arena_printf(&arena,
                                  "{\"format\":1,\"step\":5,\"files\":[{\"name\":\"%s\","
                                  "\"size_bytes\":3}]}",
                                  names[i]);
        if (manifest(text, &bytes) == 0)
            fail_msg("'%s' is accepted", names[i]);
    }
    assert_int_equal(
        manifest("{\"format\":1,\"step\":4,\"files\":[{\"name\":\"a\",\"size_bytes\":3}]}", &bytes),
        -1);
    assert_int_equal(
        manifest("{\"format\":2,\"step\":5,\"files\":[{\"name\":\"a\",\"size_bytes\":3}]}", &bytes),
        -1);
    assert_int_equal(manifest("{\"format\":1,\"step\":5,\"files\":[]}", &bytes), -1);
}

#define PLAN_WITH(members)                                                                         \
    "{\"format\":1,\"attempt_id\":9,\"ranks\":2,\"job_dir\":\"/j\"," members                       \
    "\"spec\":{\"kind\":\"command\",\"command\":[\"true\",\"x\"]}}"

static void a_plan_is_complete_with_defaults(void **state)
{
    struct plan plan;
    struct err err = {0};
    const char *text = PLAN_WITH("\"cpus\":[[0],[2,3]],\"gpus\":[[],[\"a\",\"b\"]],");
    (void)state;
    if (plan_parse(text, strlen(text), &plan, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(plan.rank_count, 2);
    assert_int_equal(plan.launcher, PLAN_PMIX);
    assert_int_equal(plan.stop_grace_ms, PLAN_STOP_GRACE_MS_DEFAULT);
    assert_int_equal(plan.ranks[1].cpus[1], 3);
    assert_string_equal(plan.ranks[1].gpus, "a,b");
    assert_string_equal(plan.command[1], "x");
    assert_null(plan.command[2]);
    plan_done(&plan);
}

static void of_two_log_limits_the_lower_one_holds(void **state)
{
    static const struct {
        const char *limits;
        uint64_t bytes;
    } cases[] = {{"{}", 5000}, {"{\"log_bytes\":4096}", 4096}, {"{\"log_bytes\":8192}", 5000}};
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct plan plan;
        struct err err = {0};
        char *text = mem_printf("{\"format\":1,\"attempt_id\":9,\"ranks\":1,\"job_dir\":\"/j\","
                                "\"log_bytes_max\":5000,\"spec\":{\"kind\":\"command\","
                                "\"pty\":true,\"command\":[\"true\"],\"limits\":%s}}",
                                cases[i].limits);
        if (plan_parse(text, strlen(text), &plan, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(plan.log_bytes_max, cases[i].bytes);
        assert_true(plan.pty);
        plan_done(&plan);
        mem_free(text);
    }
}

static void wrong_plans_are_refused_by_field(void **state)
{
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "line"},
        {"[]", "object"},
        {"{\"format\":2,\"attempt_id\":9}", "format"},
        {PLAN_WITH("\"attempt\":-1,"), "attempt"},
        {PLAN_WITH("\"cpus\":[[0]],"), "one list for each of 2 ranks"},
        {PLAN_WITH("\"cpus\":[[0],[99999]],"), "cpus"},
        {PLAN_WITH("\"gpus\":[[0],[1]],"), "gpus"},
        {PLAN_WITH("\"tmp\":\"relative\","), "tmp"},
        {"{\"format\":1,\"attempt_id\":9,\"ranks\":1,\"job_dir\":\"/j\",\"spec\":{}}", "spec.kind"},
        {"{\"format\":1,\"attempt_id\":9,\"ranks\":1,\"job_dir\":\"/j\","
         "\"spec\":{\"kind\":\"command\",\"command\":[]}}",
         "spec.command"},
        {"{\"format\":1,\"attempt_id\":9,\"ranks\":1,\"job_dir\":\"/j\","
         "\"spec\":{\"kind\":\"pretraining\"}}",
         "engine"},
        {"{\"format\":1,\"attempt_id\":9,\"ranks\":1,\"job_dir\":\"/j\","
         "\"spec\":{\"kind\":\"command\",\"command\":[\"x\"],\"pty\":1}}",
         "spec.pty"},
        {"{\"format\":1,\"attempt_id\":9,\"ranks\":0,\"job_dir\":\"/j\"}", "ranks"},
        {"{\"format\":1,\"attempt_id\":9,\"ranks\":5000,\"job_dir\":\"/j\"}", "ranks"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct plan plan;
        struct err err = {0};
        assert_int_equal(plan_parse(cases[i].text, strlen(cases[i].text), &plan, &err), -1);
        if (!strstr(err.text, cases[i].word))
            fail_msg("'%s' does not mention '%s'", err.text, cases[i].word);
    }
}

static void a_pid_in_a_name_is_a_whole_number(void **state)
{
    (void)state;
    assert_true(sweep_name_has_pid("torch_4711_1", 4711));
    assert_true(sweep_name_has_pid("4711", 4711));
    assert_false(sweep_name_has_pid("torch_14711_1", 4711));
    assert_false(sweep_name_has_pid("torch_47110_1", 4711));
    assert_true(sweep_name_has_pid("a47110b4711", 4711));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(metrics_are_read_with_step_and_rank),
        TEST(numbers_that_are_none_can_be_said_in_every_usual_way),
        TEST(artifacts_carry_their_kind_in_meta),
        TEST(wrong_lines_are_refused_by_field),
        TEST(a_refused_line_still_says_whether_it_wants_an_answer),
        TEST(a_line_that_is_no_json_but_mentions_reply_is_answered),
        TEST(a_manifest_sums_its_sizes),
        TEST(a_manifest_may_not_name_what_is_outside),
        TEST(a_plan_is_complete_with_defaults),
        TEST(of_two_log_limits_the_lower_one_holds),
        TEST(wrong_plans_are_refused_by_field),
        TEST(a_pid_in_a_name_is_a_whole_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
