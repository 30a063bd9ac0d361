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

static struct spec_job a_job(uint32_t cores)
{
    static const char *const command[] = {"true"};
    return (struct spec_job){.name = "j",
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
}

/* The key stays until the next one is made. */
static struct event a_submit(const char *key, const struct spec *spec)
{
    static uint8_t bytes[16];
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, key, strlen(key));
    return (struct event){
        .kind = EVENT_SUBMIT,
        .submit = {.client = 1, .account = "ann", .submit_key = bytes, .spec = spec, .source = ""}};
}

static void submit(struct fixture *f, const char *key, size_t jobs, uint32_t cores)
{
    struct spec_job list[8];
    for (size_t i = 0; i < jobs; i++)
        list[i] = a_job(cores);
    struct spec spec = {.experiment = "x", .name = "", .jobs = list, .job_count = jobs};
    step(f, a_submit(key, &spec));
}

static void submit_retrying(struct fixture *f, const char *key, uint32_t cores)
{
    struct spec_job job = a_job(cores);
    job.retry = (struct spec_retry){.attempts = 3, .causes = SPEC_CAUSE_BIT(CAUSE_LAUNCH_FAILED)};
    struct spec spec = {.experiment = "x", .name = "", .jobs = &job, .job_count = 1};
    step(f, a_submit(key, &spec));
}

static const struct row_job *job_row(const struct fixture *f, size_t index)
{
    return memory_db_row(f->db, ROW_TABLE_job, index);
}

static void report(struct fixture *f, struct rec_report one, uint64_t node)
{
    struct msg_report message = {.attempt_id = 1,
                                 .node = node,
                                 .reports = &one,
                                 .reports_count = 1};
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

static struct rec_report finished(uint64_t seq, const char *cause)
{
    struct rec_report report = a_report(seq, REPORT_FINISHED);
    report.cause = cause;
    return report;
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

static struct rec_device a_gpu(uint64_t index, const char *kind)
{
    return (struct rec_device){.device_index = index, .kind = kind, .model = "m", .uuid = ""};
}

static void a_device_listed_twice_is_one(void **state)
{
    struct fixture *f = *state;
    struct rec_device devices[3] = {a_gpu(0, "gpu"), a_gpu(0, "gpu"), a_gpu(0, "nic")};
    struct msg_worker_join offer = a_join();
    offer.devices = devices;
    offer.devices_count = 3;
    join(f, &offer, NULL);
    assert_non_null(answer(f, MSG_WORKER_WELCOME));
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_worker_device), 1);
}

/* More than the machine has, less, then nothing like before: what was given away stays given away
 * until it ends, and what is free is never less than nothing. */
static void an_inventory_that_changes_with_each_join_loses_nothing(void **state)
{
    struct fixture *f = *state;
    static const uint64_t cores[] = {65536, 1, 3, 65536, 2};
    struct rec_device devices[2] = {a_gpu(7, "gpu"), a_gpu(8, "gpu")};
    struct rec_held_attempt held = {.attempt_id = 1, .running = true};
    start_a_job(f);
    for (size_t i = 0; i < ARRAY_COUNT(cores); i++) {
        struct msg_worker_join offer = a_join();
        offer.cores = cores[i];
        offer.devices = &devices[i % 2];
        offer.devices_count = i % 3;
        if (offer.devices_count == 2)
            offer.devices = devices;
        offer.held = &held;
        offer.held_count = 1;
        join(f, &offer, "w1");
        assert_non_null(answer(f, MSG_WORKER_WELCOME));
        assert_null(answer(f, MSG_ATTEMPT_FENCE));
        step(f, (struct event){.kind = EVENT_TICK});
    }
    report(f, finished(1, "success"), 0);
    assert_string_equal(job_row(f, 0)->state, "SUCCEEDED");
}

static void cores_that_are_not_there_cost_an_attempt_and_no_job(void **state)
{
    struct fixture *f = *state;
    struct msg_worker_join offer = a_join();
    offer.cores = 60000;
    join(f, &offer, "w1");
    submit_retrying(f, "k", 50000);
    step(f, (struct event){.kind = EVENT_TICK});
    assert_non_null(answer(f, MSG_START));
    report(f, finished(1, "launch_failed"), 0); /* what an honest shepherd finds */
    assert_string_equal(job_row(f, 0)->state, "BACKOFF");
    offer = a_join(); /* the truth */
    join(f, &offer, "w1");
    f->now_ms += 10000;
    step(f, (struct event){.kind = EVENT_TICK});
    assert_string_equal(job_row(f, 0)->state, "READY");
    assert_null(answer(f, MSG_START));
}

static void a_worker_cannot_speak_for_another(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    struct msg_worker_join offer = a_join();
    struct rec_held_attempt held = {.attempt_id = 1, .running = true};
    offer.name = "w2";
    offer.held = &held;
    offer.held_count = 1;
    step(f, (struct event){.kind = EVENT_WORKER_JOIN, .join = {.peer = 8, .join = &offer}});
    assert_int_equal(answer(f, MSG_ATTEMPT_FENCE)->u.attempt_fence.attempt_id, 1);
    struct rec_report end = finished(1, "success");
    struct msg_report message = {.attempt_id = 1, .reports = &end, .reports_count = 1};
    step(f, (struct event){.kind = EVENT_REPORTS, .reports = {.peer = 8, .reports = &message}});
    assert_non_null(strstr(refusal(f), "not joined"));
    struct msg_heartbeat beat = {.worker_id = 1, .incarnation = 1};
    step(f, (struct event){.kind = EVENT_HEARTBEAT, .heartbeat = {.peer = 8, .heartbeat = &beat}});
    assert_non_null(strstr(refusal(f), "not joined"));
    struct msg_worker_leave leave = {.worker_id = 1, .incarnation = 1};
    step(f, (struct event){.kind = EVENT_WORKER_LEAVE, .leave = {.peer = 8, .leave = &leave}});
    assert_non_null(strstr(refusal(f), "not joined"));
    assert_string_equal(job_row(f, 0)->state, "PLACED");
}

static void a_second_end_changes_nothing(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    struct rec_report both[2] = {finished(1, "success"), finished(2, "oom")};
    struct msg_report message = {.attempt_id = 1, .reports = both, .reports_count = 2};
    step(f, (struct event){.kind = EVENT_REPORTS, .reports = {.peer = 9, .reports = &message}});
    assert_int_equal(answer(f, MSG_REPORT_ACK)->u.report_ack.seq, 1);
    report(f, finished(2, "oom"), 0);
    assert_non_null(answer(f, MSG_ATTEMPT_FENCE));
    assert_string_equal(job_row(f, 0)->state, "SUCCEEDED");
    assert_string_equal(job_row(f, 0)->cause, "success");
}

/* ---- submits ----------------------------------------------------------------------------- */

static void naming_half_the_past_is_refused_before_anything_is_looked_up(void **state)
{
    struct fixture *f = *state;
    struct spec_need *needs = mem_array(1001, sizeof *needs);
    struct core_lookup *lookups;
    for (size_t i = 0; i < 1001; i++)
        needs[i] = (struct spec_need){.job = arena_printf(&f->arena, "j%zu", i),
                                      .job_index = SPEC_EXTERNAL,
                                      .on = SPEC_ON_ANY};
    for (size_t count = 1000; count <= 1001; count++) {
        struct spec_job job = a_job(1);
        job.needs = needs;
        job.need_count = count;
        struct spec spec = {.experiment = "x", .name = "", .jobs = &job, .job_count = 1};
        struct event event = a_submit("k", &spec);
        size_t wanted = core_lookups(f->core, &event, &f->arena, &lookups);
        assert_int_equal(wanted, count == 1000 ? 1001 : 1); /* with the submit's key */
        step(f, event);
        const struct msg_refused *refused = &answer(f, MSG_REFUSED)->u.refused;
        assert_non_null(strstr(refused->refusals[0].text,
                               count == 1000 ? "no job 'j0'" : "more than 1000 jobs"));
    }
    assert_int_equal(memory_db_count(f->db, ROW_TABLE_job), 0);
    mem_free(needs);
}

static void a_request_with_too_many_targets_is_refused(void **state)
{
    struct fixture *f = *state;
    struct rec_name_value *targets = mem_array(10001, sizeof *targets);
    submit(f, "k", 1, 1);
    for (size_t i = 0; i < 10001; i++)
        targets[i] = (struct rec_name_value){i < 101 ? "experiment" : "job", i < 101 ? "x" : "1"};
    for (size_t count = 101; count <= 10001; count += 9900) {
        struct msg_control control = {.action = "cancel",
                                      .targets = targets,
                                      .targets_count = count,
                                      .reason = ""};
        step(f, (struct event){.kind = EVENT_CONTROL,
                               .control = {.account = "ann", .control = &control}});
        assert_non_null(strstr(refusal(f), "expected at most 10000 and 100"));
        targets[0].name = "job";
    }
    assert_string_equal(job_row(f, 0)->state, "READY");
    mem_free(targets);
}

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

/* Otherwise a job that removed its attempt's folder would run for ever. */
static void a_stream_goes_on_behind_reports_that_its_node_has_lost(void **state)
{
    struct fixture *f = *state;
    start_a_job(f);
    struct rec_report end = a_report(5, REPORT_FINISHED);
    end.cause = "success";
    end.meta = "{}";
    struct msg_report message = {.attempt_id = 1, .reports = &end, .reports_count = 1};
    struct event event = {.kind = EVENT_REPORTS, .reports = {.peer = 9, .reports = &message}};
    step(f, event);
    assert_int_equal(answer(f, MSG_REPORT_ACK)->u.report_ack.seq, 0); /* a gap: not taken */
    message.lost_until = 3; /* not the one before the first: no reason for this gap */
    step(f, event);
    assert_int_equal(answer(f, MSG_REPORT_ACK)->u.report_ack.seq, 0);
    message.lost_until = 4;
    step(f, event);
    assert_int_equal(answer(f, MSG_REPORT_ACK)->u.report_ack.seq, 5);
    bool told = false, ended = false;
    for (size_t i = 0; i < memory_db_count(f->db, ROW_TABLE_job_event); i++) {
        const struct row_job_event *row = memory_db_row(f->db, ROW_TABLE_job_event, i);
        told |= strstr(row->detail, "4 reports from 1 on") != NULL;
        ended |= strcmp(row->name, "ended") == 0 && strstr(row->detail, "SUCCEEDED");
    }
    assert_true(told && ended);
}

static void an_unknown_action_is_refused_with_those_there_are(void **state)
{
    struct fixture *f = *state;
    struct rec_name_value target = {"job", "1"};
    struct msg_control control = {.action = "explode",
                                  .targets = &target,
                                  .targets_count = 1,
                                  .reason = ""};
    step(f,
         (struct event){.kind = EVENT_CONTROL, .control = {.account = "ann", .control = &control}});
    assert_non_null(strstr(refusal(f), "expected cancel"));
    control = (struct msg_control){.action = "cancel", .reason = ""};
    step(f,
         (struct event){.kind = EVENT_CONTROL, .control = {.account = "ann", .control = &control}});
    assert_non_null(strstr(refusal(f), "nothing was named"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_worker_that_lies_about_itself_is_refused),
        TEST(more_workers_than_the_limit_are_refused),
        TEST(a_worker_may_come_back_smaller_than_what_it_holds),
        TEST(a_device_listed_twice_is_one),
        TEST(an_inventory_that_changes_with_each_join_loses_nothing),
        TEST(cores_that_are_not_there_cost_an_attempt_and_no_job),
        TEST(a_worker_cannot_speak_for_another),
        TEST(a_second_end_changes_nothing),
        TEST(naming_half_the_past_is_refused_before_anything_is_looked_up),
        TEST(a_request_with_too_many_targets_is_refused),
        TEST(a_submit_past_the_limit_of_live_jobs_changes_nothing),
        TEST(a_key_used_for_another_submit_is_refused),
        TEST(a_job_larger_than_any_worker_may_be_is_refused),
        TEST(numbers_beyond_the_columns_are_clamped),
        TEST(text_that_a_column_would_refuse_is_replaced),
        TEST(nonsense_in_a_stream_does_not_stop_it),
        TEST(a_report_of_a_node_that_the_attempt_has_not_is_fenced),
        TEST(an_empty_report_is_acknowledged_and_changes_nothing),
        TEST(a_stream_goes_on_behind_reports_that_its_node_has_lost),
        TEST(an_unknown_action_is_refused_with_those_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
