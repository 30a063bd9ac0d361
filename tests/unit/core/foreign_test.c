/* foreign_test.c - what peers may send and must not harm: limits, lies, floods. */
#include "common/base/mem.h"
#include "tests/lib/core/memory_db.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BASE_US 1000000000000000u

struct fixture {
    struct core *core;
    struct memory_db *db;
    struct effects effects;
    struct arena arena;
    uint64_t now_ms;
};

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    f->core = core_new(&(struct core_config){.jobs_max = 3, .workers_max = 2, .epoch = 1});
    f->db = memory_db_new();
    effects_init(&f->effects);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    core_free(f->core);
    memory_db_free(f->db);
    effects_done(&f->effects);
    arena_done(&f->arena);
    mem_free(f);
    return 0;
}

static void step(struct fixture *f, struct event event)
{
    event.now_ms = ++f->now_ms;
    event.wall_us = BASE_US;
    effects_reset(&f->effects);
    core_step(f->core, &event, &f->effects);
    const char *fault =
        memory_db_apply(f->db, f->effects.persist, f->effects.persist_count, &f->arena);
    if (!fault)
        fault = core_check(f->core, true, &f->arena);
    if (fault)
        fail_msg("%s", fault);
}

static const struct message *answer(const struct fixture *f, enum msg_tag tag)
{
    for (size_t i = 0; i < f->effects.release_count; i++)
        if (f->effects.release[i].message.tag == tag)
            return &f->effects.release[i].message;
    return NULL;
}

static const char *refusal(const struct fixture *f)
{
    const struct message *message = answer(f, MSG_REFUSED);
    assert_non_null(message);
    return message->u.refused.text;
}

static struct msg_worker_join a_join(void)
{
    return (struct msg_worker_join){
        .name = "w1", .incarnation = 1, .host = "h", .cores = 4, .memory_bytes = 1, .topology = ""};
}

static void join(struct fixture *f, const struct msg_worker_join *join, const char *principal)
{
    step(f, (struct event){.kind = EVENT_WORKER_JOIN,
                           .join = {.peer = 9, .principal = principal, .join = join}});
}

static void submit(struct fixture *f, const char *key, size_t jobs, uint32_t cores)
{
    static const char *const command[] = {"true"};
    struct spec_job list[8];
    for (size_t i = 0; i < jobs; i++)
        list[i] = (struct spec_job){.name = "j",
                                    .queue = "default",
                                    .project = "default",
                                    .experiment = "x",
                                    .description = "",
                                    .kind = "command",
                                    .recipe = "",
                                    .resources = {1, cores, 0, 1},
                                    .retry = {.attempts = 1},
                                    .checkpoint = {.best_metric = "", .best_mode = SPEC_BEST_MIN},
                                    .on_disconnect = SPEC_DISCONNECT_WAIT,
                                    .launcher = SPEC_LAUNCHER_AUTO,
                                    .params = "{}",
                                    .command = command,
                                    .command_count = 1};
    struct spec spec = {.experiment = "x", .name = "", .jobs = list, .job_count = jobs};
    uint8_t bytes[16] = {0};
    memcpy(bytes, key, strlen(key));
    step(f, (struct event){.kind = EVENT_SUBMIT,
                           .submit = {.client = 1,
                                      .account = "ann",
                                      .submit_key = bytes,
                                      .spec = &spec,
                                      .source = ""}});
}

static void report(struct fixture *f, struct rec_report one, uint64_t node)
{
    struct msg_report message = {
        .attempt_id = 1, .node = node, .reports = &one, .reports_count = 1};
    step(f, (struct event){.kind = EVENT_REPORTS, .reports = {.peer = 9, .reports = &message}});
}

static void start_a_job(struct fixture *f)
{
    struct msg_worker_join offer = a_join();
    join(f, &offer, "w1");
    submit(f, "k", 1, 1);
    step(f, (struct event){.kind = EVENT_TICK});
    assert_non_null(answer(f, MSG_START));
}

static struct rec_report a_report(uint64_t seq, uint64_t kind)
{
    return (struct rec_report){.seq = seq,
                               .kind = kind,
                               .name = "",
                               .path = "",
                               .meta = "",
                               .cause = "",
                               .time_us = BASE_US};
}

/* ---- workers ----------------------------------------------------------------------------- */

static void a_worker_that_lies_about_itself_is_refused(void **state)
{
    struct fixture *f = *state;
    struct msg_worker_join offer = a_join();
    join(f, &offer, "mallory");
    assert_non_null(strstr(refusal(f), "mallory"));
    offer.cores = 0;
    join(f, &offer, NULL);
    assert_non_null(strstr(refusal(f), "cores"));
    offer.cores = UINT64_MAX;
    join(f, &offer, NULL);
    assert_non_null(strstr(refusal(f), "cores"));
    offer = a_join();
    offer.name = "../w1";
    join(f, &offer, NULL);
    assert_non_null(strstr(refusal(f), "name"));
    offer = a_join();
    struct rec_name_value labels[2] = {{"zone", "a"}, {"zone", "b"}};
    offer.labels = labels;
    offer.labels_count = 2;
    join(f, &offer, NULL);
    assert_non_null(strstr(refusal(f), "label"));
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_worker), 0);
}

static void more_workers_than_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"w1", "w2", "w3"};
    for (int i = 0; i < 3; i++) {
        struct msg_worker_join offer = a_join();
        offer.name = names[i];
        join(f, &offer, NULL);
    }
    assert_non_null(strstr(refusal(f), "limit"));
    struct msg_worker_join again = a_join();
    join(f, &again, NULL); /* a known one is always welcome */
    assert_non_null(answer(f, MSG_WORKER_WELCOME));
}

static void a_worker_may_come_back_smaller_than_what_it_holds(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    struct msg_worker_join offer = a_join();
    struct rec_held_attempt held = {.attempt_id = 1, .running = true};
    offer.memory_bytes = 0;
    offer.held = &held;
    offer.held_count = 1;
    join(f, &offer, NULL);
    assert_non_null(answer(f, MSG_WORKER_WELCOME));
    assert_null(answer(f, MSG_ATTEMPT_FENCE));
}

/* ---- submits ----------------------------------------------------------------------------- */

static void a_submit_past_the_limit_of_live_jobs_changes_nothing(void **state)
{
    struct fixture *f = *state;
    submit(f, "k1", 2, 1);
    submit(f, "k2", 2, 1);
    assert_int_equal(answer(f, MSG_REFUSED)->u.refused.refusals_count, 1);
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_job), 2);
    submit(f, "k3", 1, 1);
    assert_non_null(answer(f, MSG_SUBMITTED));
}

static void a_key_used_for_another_submit_is_refused(void **state)
{
    struct fixture *f = *state;
    submit(f, "k1", 2, 1);
    submit(f, "k1", 1, 1);
    assert_string_equal(answer(f, MSG_REFUSED)->u.refused.kind, err_kind_name(ERR_EXISTS));
}

static void a_job_larger_than_any_worker_may_be_is_refused(void **state)
{
    struct fixture *f = *state;
    submit(f, "k1", 1, 70000);
    assert_non_null(answer(f, MSG_REFUSED));
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_experiment), 0);
}

/* ---- reports ----------------------------------------------------------------------------- */

static void numbers_beyond_the_columns_are_clamped(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    struct rec_report metric = a_report(1, REPORT_METRIC);
    metric.name = "loss";
    metric.step = UINT64_MAX;
    metric.rank = UINT64_MAX;
    metric.time_us = UINT64_MAX;
    metric.value = NAN;
    report(f, metric, 0);
    const struct row_metric *row = memory_db_row(f->db, ROW_TABLE_metric, 0);
    assert_int_equal(row->step, INT64_MAX);
    assert_int_equal(row->rank, 0);
    assert_int_equal(row->at, BASE_US);
    assert_true(isnan(row->value));
}

static void text_that_a_column_would_refuse_is_replaced(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    struct rec_report event = a_report(1, REPORT_EVENT);
    event.name = "odd";
    event.text = (struct wire_bytes){"a\0b\xff c", 6};
    report(f, event, 0);
    const struct row_job_event *row = NULL;
    for (size_t i = 0; i < memory_db_count(f->db, ROW_TABLE_job_event); i++)
        row = memory_db_row(f->db, ROW_TABLE_job_event, i);
    assert_string_equal(row->detail, "a b? c");
    struct rec_report saved = a_report(2, REPORT_CHECKPOINT);
    saved.path = "/c/1";
    saved.meta = "{\"loss\": 1e999999}";
    report(f, saved, 0);
    assert_string_equal(
        ((const struct row_checkpoint *)memory_db_row(f->db, ROW_TABLE_checkpoint, 0))->metrics,
        "{}");
}

static void nonsense_in_a_stream_does_not_stop_it(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    report(f, a_report(1, 999), 0);
    struct rec_report saved = a_report(2, REPORT_CHECKPOINT);
    saved.path = "relative/path";
    report(f, saved, 0);
    struct rec_report made = a_report(3, REPORT_ARTIFACT);
    made.path = "/d";
    made.name = "not a name";
    report(f, made, 0);
    assert_int_equal(answer(f, MSG_REPORT_ACK)->u.report_ack.seq, 3);
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_checkpoint), 0);
    report(f, a_report(4, REPORT_STARTED), 0);
    report(f, a_report(5, REPORT_STARTED), 0); /* twice: changes nothing more */
    assert_int_equal(answer(f, MSG_REPORT_ACK)->u.report_ack.seq, 5);
}

static void a_report_of_a_node_that_the_attempt_has_not_is_fenced(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    report(f, a_report(1, REPORT_STARTED), 7);
    assert_non_null(answer(f, MSG_ATTEMPT_FENCE));
    assert_null(answer(f, MSG_REPORT_ACK));
}

static void an_empty_report_is_acknowledged_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    struct msg_report message = {.attempt_id = 1};
    step(f, (struct event){.kind = EVENT_REPORTS, .reports = {.peer = 9, .reports = &message}});
    assert_int_equal(answer(f, MSG_REPORT_ACK)->u.report_ack.seq, 0);
}

static void an_unknown_action_is_refused_with_those_there_are(void **state)
{
    struct fixture *f = *state;
    struct rec_name_value target = {"job", "1"};
    struct msg_control control = {
        .action = "explode", .targets = &target, .targets_count = 1, .reason = ""};
    step(f, (struct event){.kind = EVENT_CONTROL,
                           .control = {.account = "ann", .control = &control}});
    assert_non_null(strstr(refusal(f), "expected cancel"));
    control = (struct msg_control){.action = "cancel", .reason = ""};
    step(f, (struct event){.kind = EVENT_CONTROL,
                           .control = {.account = "ann", .control = &control}});
    assert_non_null(strstr(refusal(f), "nothing was named"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_worker_that_lies_about_itself_is_refused),
        TEST(more_workers_than_the_limit_are_refused),
        TEST(a_worker_may_come_back_smaller_than_what_it_holds),
        TEST(a_submit_past_the_limit_of_live_jobs_changes_nothing),
        TEST(a_key_used_for_another_submit_is_refused),
        TEST(a_job_larger_than_any_worker_may_be_is_refused),
        TEST(numbers_beyond_the_columns_are_clamped),
        TEST(text_that_a_column_would_refuse_is_replaced),
        TEST(nonsense_in_a_stream_does_not_stop_it),
        TEST(a_report_of_a_node_that_the_attempt_has_not_is_fenced),
        TEST(an_empty_report_is_acknowledged_and_changes_nothing),
        TEST(an_unknown_action_is_refused_with_those_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
