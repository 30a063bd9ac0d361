/* loader_test.c - a core rebuilt from PostgreSQL equals the one that wrote it (invariant 6), at
 * every step of a history with retries, holds, cancels, checkpoints and dependencies; and what
 * the reader finds of history. */
#include "tests/store/rig.h"

#include "common/base/mem.h"
#include "common/base/rng.h"
#include "coordinator/core/core.h"
#include "coordinator/store/loader.h"
#include "coordinator/store/reader.h"

#define STARTS_MAX 256

struct start {
    uint64_t attempt_id, seq;
    bool running;
};

struct story {
    struct rig rig;
    struct core *core;
    struct catalogue *catalogue;
    struct rng rng;
    uint64_t now_ms, wall_us;
    uint64_t worker_id;
    struct start starts[STARTS_MAX];
    size_t start_count;
    unsigned submits;
    struct event_found found; /* for the next submit or control */
};

static const struct core_config config = {.epoch = 1, .seed = 7};

/* What the workers were told. */
static void take_messages(struct story *story)
{
    const struct effects *effects = &story->rig.effects;

    for (size_t i = 0; i < effects->release_count; i++) {
        const struct message *message = &effects->release[i].message;
        if (message->tag == MSG_WORKER_WELCOME)
            story->worker_id = message->u.worker_welcome.worker_id;
        if (message->tag == MSG_START && story->start_count < STARTS_MAX)
            story->starts[story->start_count++] =
                (struct start){message->u.start.attempt_id, 0, true};
        if (message->tag == MSG_REFUSED)
            fail_msg("refused: %s", message->u.refused.text);
    }
}

static void step(struct story *story, struct event *event)
{
    story->now_ms += 40;
    story->wall_us += 40000;
    event->now_ms = story->now_ms;
    event->wall_us = story->wall_us;
    core_step(story->core, event, &story->rig.effects);
}

static void tick_and_commit(struct story *story)
{
    struct event tick = {.kind = EVENT_TICK};

    step(story, &tick);
    take_messages(story);
    COMMITTED(&story->rig);
}

/* The dump of a core made of the rows; the caller frees. */
static char *dump_of_rows(struct story *story)
{
    struct core *core = core_new(&config);
    struct loader_counts counts;
    struct buf text = {0};
    uint64_t wake;

    if (loader_load(story->rig.db, core, story->now_ms, story->wall_us, NULL, NULL, &counts, &wake,
                    &story->rig.err) < 0)
        fail_msg("%s", story->rig.err.text);
    core_dump(core, &text);
    core_free(core);
    return buf_take(&text);
}

static void check_equal(struct story *story)
{
    struct buf text = {0};
    char *loaded = dump_of_rows(story);

    core_dump(story->core, &text);
    assert_string_equal(buf_text(&text), loaded);
    buf_done(&text);
    mem_free(loaded);
}

static void join(struct story *story)
{
    struct msg_worker_join message = {
        .name = "w1", .incarnation = 5, .host = "h", .cores = 6, .memory_bytes = (uint64_t)8 << 30};
    struct event event = {.kind = EVENT_WORKER_JOIN,
                          .join = {.peer = 1, .principal = "w1", .join = &message}};
    step(story, &event);
}

static void submit(struct story *story, const char *yaml)
{
    struct spec_errors errors = {0};
    struct spec_source source = {.name = "t.yaml", .bytes = yaml, .length = strlen(yaml)};
    uint8_t key[16] = {0};
    struct spec *spec = NULL;

    if (spec_read(&source, story->catalogue, &spec, &errors) < 0)
        fail_msg("%s", spec_errors_text(&errors));
    key[0] = (uint8_t)++story->submits;
    struct event event = {.kind = EVENT_SUBMIT,
                          .submit = {.client = 2,
                                     .request_seq = 1,
                                     .account = "ann",
                                     .submit_key = key,
                                     .spec = spec,
                                     .source = yaml,
                                     .found = story->found}};
    step(story, &event);
    spec_free(spec);
    spec_errors_done(&errors);
}

static void report(struct story *story, struct start *start, struct rec_report report)
{
    report.seq = ++start->seq;
    report.time_us = story->wall_us;
    struct msg_report message = {.attempt_id = start->attempt_id,
                                 .reports = &report,
                                 .reports_count = 1};
    struct event event = {.kind = EVENT_REPORTS, .reports = {.peer = 1, .reports = &message}};
    step(story, &event);
}

static void control(struct story *story, const char *action, const char *job)
{
    struct rec_name_value target = {"job", job};
    struct msg_control message = {.action = action, .targets = &target, .targets_count = 1};
    struct event event = {.kind = EVENT_CONTROL,
                          .control = {.client = 2,
                                      .account = "ann",
                                      .may_act_for_others = true,
                                      .control = &message,
                                      .found = story->found}};
    step(story, &event);
}

static void story_begin(struct story *story)
{
    memset(story, 0, sizeof *story);
    rig_open(&story->rig);
    rng_init(&story->rng, 3);
    story->core = core_new(&config);
    story->catalogue = catalogue_new();
    story->now_ms = 1000;
    story->wall_us = clock_wall_us();
    core_load_end(story->core, story->now_ms, story->wall_us);
}

static void story_end(struct story *story)
{
    core_free(story->core);
    catalogue_free(story->catalogue);
    rig_close(&story->rig);
}

/* One running attempt says something, or ends. */
static void something_happens(struct story *story)
{
    struct hash content;
    struct start *start = &story->starts[rng_below(&story->rng, story->start_count)];

    hash_bytes(&start->attempt_id, sizeof start->attempt_id, &content);
    if (!start->running)
        return;
    if (start->seq == 0) {
        report(story, start, (struct rec_report){.kind = REPORT_STARTED, .meta = "{\"pid\": 1}"});
        return;
    }
    switch (rng_below(&story->rng, 6)) {
    case 0:
        report(story, start,
               (struct rec_report){
                   .kind = REPORT_METRIC, .name = "loss", .step = start->seq, .value = 0.5});
        return;
    case 1:
        report(story, start,
               (struct rec_report){.kind = REPORT_CHECKPOINT,
                                   .step = start->seq,
                                   .path = "/c",
                                   .total = 9,
                                   .content = content,
                                   .meta = "{\"val_loss\": 2.5}"});
        return;
    case 2:
        report(story, start,
               (struct rec_report){
                   .kind = REPORT_PROGRESS, .step = start->seq, .total = 99, .name = "train"});
        return;
    case 3:
        report(story, start,
               (struct rec_report){.kind = REPORT_ARTIFACT,
                                   .name = "set",
                                   .path = "/d",
                                   .content = content,
                                   .meta = "{\"kind\": \"dataset\"}"});
        return;
    case 4:
        start->running = false;
        report(
            story, start,
            (struct rec_report){.kind = REPORT_FINISHED, .cause = "exit", .code = 3, .meta = "{}"});
        return;
    case 5:
        start->running = false;
        report(story, start,
               (struct rec_report){.kind = REPORT_FINISHED, .cause = "success", .meta = "{}"});
        return;
    }
}

static const char pipeline[] =
    "athanor: 1\nexperiment: story\n"
    "defaults: {resources: {cores: 1, memory: 64MiB},"
    " retry: {attempts: 3, on: [exit], backoff: 100ms}, checkpoint: {keep: last 2}}\n"
    "jobs:\n"
    "  base: {kind: command, command: [a]}\n"
    "  child: {kind: command, command: [b], needs: [base]}\n"
    "  other: {kind: command, command: [c], array: 6}\n"
    "  late: {kind: command, command: [d], needs: [child], hold: true}\n";

static void a_core_from_rows_equals_the_core_in_memory(void **state)
{
    (void)state;
    struct story story;
    char job[20];

    story_begin(&story);
    join(&story);
    tick_and_commit(&story);
    for (int round = 0; round < 60; round++) {
        if (round % 12 == 0)
            submit(&story, pipeline);
        for (int i = 0; i < 4 && story.start_count > 0; i++)
            something_happens(&story);
        snprintf(job, sizeof job, "%llu", (unsigned long long)(1 + rng_below(&story.rng, 9)));
        if (round == 20)
            control(&story, "cancel", "9");
        tick_and_commit(&story);
        check_equal(&story);
    }
    assert_true(story.start_count > 20);
    assert_string_equal(pg_ask(story.rig.db,
                               "SELECT count(*) > 3 FROM athanor.jobs WHERE state = 'SUCCEEDED'"),
                        "t");
    assert_string_equal(pg_ask(story.rig.db, "SELECT count(*) > 3 FROM athanor.checkpoints"), "t");
    story_end(&story);
}

/* ---- what the reader finds ------------------------------------------------------------------ */

struct answers {
    unsigned tables, founds;
    struct err err;
    size_t rows, columns;
    char first[200], next[200];
    uint64_t found_job;
    size_t jobs, dependencies, checkpoints, artifacts, removals;
    struct story *story; /* not NULL: what was found is collected */
    const struct msg_collect *collect;
};

static void on_table(void *user, uint64_t ticket, const struct msg_table *table,
                     const struct err *err)
{
    struct answers *answers = user;

    (void)ticket;
    answers->tables++;
    answers->rows = answers->columns = 0;
    if (!table) {
        answers->err = *err;
        return;
    }
    answers->columns = table->columns_count;
    answers->rows = table->columns_count ? table->cells_count / table->columns_count : 0;
    snprintf(answers->first, sizeof answers->first, "%s",
             answers->rows ? table->cells[0].text : "");
    snprintf(answers->next, sizeof answers->next, "%s", table->next);
}

static void collect(struct story *story, const struct msg_collect *collect,
                    const struct event_found *found)
{
    struct event event = {.kind = EVENT_COLLECT,
                          .collect = {.client = 2,
                                      .account = "root",
                                      .is_operator = true,
                                      .collect = collect,
                                      .found = *found}};
    step(story, &event);
}

static void on_found(void *user, uint64_t ticket, const struct event_found *found,
                     const struct err *err)
{
    struct answers *answers = user;

    (void)ticket;
    answers->founds++;
    if (!found)
        fail_msg("%s", err->text);
    answers->jobs = found->job_count;
    answers->found_job = found->job_count ? found->jobs[0].job_id : 0;
    answers->dependencies = found->dependency_count;
    answers->checkpoints = found->checkpoint_count;
    answers->artifacts = found->artifact_count;
    answers->removals = found->removal_count;
    if (answers->story)
        collect(answers->story, answers->collect, found);
}

static void on_maintained(void *user, const struct err *err)
{
    struct answers *answers = user;

    answers->tables++;
    if (err)
        fail_msg("%s", err->text);
}

static void on_closing(void *user, size_t lane)
{
    (void)user;
    (void)lane;
}

static void reader_pump(struct reader *reader, const unsigned *counter, unsigned wanted)
{
    for (int i = 0; i < 6000 && *counter < wanted; i++) {
        struct pollfd fds[READER_LANES];
        reader_step(reader, clock_steady_ms());
        if (*counter >= wanted)
            return;
        for (size_t lane = 0; lane < READER_LANES; lane++)
            fds[lane] = (struct pollfd){
                .fd = reader_fd(reader, lane),
                .events = (short)(POLLIN | (reader_wants_write(reader, lane) ? POLLOUT : 0))};
        poll(fds, READER_LANES, 10);
    }
    assert_int_equal(*counter, wanted);
}

static struct reader *reader_for(struct story *story, struct answers *answers)
{
    struct reader_events events = {.user = answers,
                                   .on_table = on_table,
                                   .on_found = on_found,
                                   .on_maintained = on_maintained,
                                   .on_closing = on_closing};

    memset(answers, 0, sizeof *answers);
    return reader_open(story->rig.db, &events);
}

/* Asks and waits; the answer is in `answers`. */
static void ask(struct reader *reader, struct answers *answers, const char *name,
                const char *argument, const char *value, uint64_t limit, const char *after)
{
    struct rec_name_value arguments[] = {{argument, value}};
    struct msg_query query = {.name = name,
                              .arguments = arguments,
                              .arguments_count = argument ? 1 : 0,
                              .limit = limit,
                              .after = after};
    struct err err;

    if (reader_query(reader, 1, &query, ROLE_ADMIN, &err) < 0)
        fail_msg("%s", err.text);
    err_clear(&answers->err);
    reader_pump(reader, &answers->tables, answers->tables + 1);
    if (answers->err.kind != ERR_NONE)
        fail_msg("%s", answers->err.text);
}

/* A small history: base SUCCEEDED with metrics, a checkpoint and a dataset; child waits no more. */
static void history(struct story *story)
{
    struct hash content;

    hash_bytes("x", 1, &content);
    story_begin(story);
    join(story);
    submit(story, "athanor: 1\nexperiment: e1\njobs:\n  base: {kind: command, command: [a]}\n"
                  "  child: {kind: command, command: [b], needs: [base]}\n");
    tick_and_commit(story);
    struct start *start = &story->starts[0];
    report(story, start, (struct rec_report){.kind = REPORT_STARTED, .meta = "{}"});
    for (uint64_t i = 1; i <= 500; i++)
        report(story, start,
               (struct rec_report){.kind = REPORT_METRIC,
                                   .name = i % 2 ? "loss" : "lr",
                                   .step = i,
                                   .value = (double)i});
    for (uint64_t i = 1; i <= 50; i++)
        report(story, start,
               (struct rec_report){.kind = REPORT_LOG, .name = "stdout", .text = {"hello\n", 6}});
    report(story, start,
           (struct rec_report){.kind = REPORT_CHECKPOINT,
                               .step = 100,
                               .path = "/c",
                               .total = 9,
                               .content = content,
                               .meta = "{}"});
    report(story, start,
           (struct rec_report){.kind = REPORT_ARTIFACT,
                               .name = "set",
                               .path = "/d",
                               .content = content,
                               .meta = "{\"kind\": \"dataset\"}"});
    report(story, start,
           (struct rec_report){.kind = REPORT_FINISHED, .cause = "success", .meta = "{}"});
    tick_and_commit(story);
    report(story, &story->starts[1], (struct rec_report){.kind = REPORT_STARTED, .meta = "{}"});
    report(story, &story->starts[1],
           (struct rec_report){.kind = REPORT_FINISHED, .cause = "exit", .code = 2, .meta = "{}"});
    tick_and_commit(story);
}

static void every_query_answers_in_the_shape_it_declares(void **state)
{
    (void)state;
    struct story story;
    struct answers answers;

    history(&story);
    struct reader *reader = reader_for(&story, &answers);
    for (size_t i = 0; query_at(i); i++) {
        const struct query *query = query_at(i);
        struct arena arena = {0};
        struct msg_table shape = {0};
        char first[40] = "";
        sscanf(query->arguments, "%39[a-z_]", first);
        const char *value = strcmp(first, "job") == 0    ? "base"
                            : strcmp(first, "name") == 0 ? "w1"
                            : strcmp(first, "ids") == 0  ? "1,2"
                                                         : "e1";
        query_columns(query, &arena, &shape);
        ask(reader, &answers, query->name, *first ? first : NULL, value, 0, NULL);
        assert_int_equal(answers.columns, shape.columns_count);
        for (size_t c = 0; c < shape.columns_count; c++)
            assert_non_null(
                strstr("int float text bool time duration_ms json", shape.columns[c].type));
        arena_done(&arena);
    }
    ask(reader, &answers, "experiments", "name", "e1", 0, NULL);
    assert_int_equal(answers.rows, 1);
    ask(reader, &answers, "metric_names", "job", "1", 0, NULL);
    assert_int_equal(answers.rows, 2);
    ask(reader, &answers, "checkpoints", "job", "base", 0, NULL);
    assert_int_equal(answers.rows, 1);
    ask(reader, &answers, "why", "job", "child", 0, NULL);
    assert_int_equal(answers.rows, 1);
    reader_close(reader);
    story_end(&story);
}

/* Pages of one query until there is no next, adding up rows. */
static size_t page_through(struct reader *reader, struct answers *answers, const char *name,
                           const char *argument, const char *value, uint64_t limit)
{
    size_t rows = 0;
    char after[200] = "";

    for (int pages = 0; pages < 1000; pages++) {
        ask(reader, answers, name, argument, value, limit, after);
        assert_true(answers->rows <= limit);
        rows += answers->rows;
        if (answers->rows < limit || !*answers->next)
            return rows;
        snprintf(after, sizeof after, "%s", answers->next);
    }
    fail_msg("%s never ends", name);
    return 0;
}

static void pages_end_and_hold_every_row_once(void **state)
{
    (void)state;
    struct story story;
    struct answers answers;

    history(&story);
    struct reader *reader = reader_for(&story, &answers);
    assert_int_equal(page_through(reader, &answers, "metrics", "job", "base", 7), 500);
    assert_int_equal(page_through(reader, &answers, "logs", "job", "1", 7), 50);
    assert_string_not_equal(answers.next, ""); /* where a follower goes on */
    assert_int_equal(page_through(reader, &answers, "jobs", NULL, NULL, 1), 2);
    assert_int_equal(page_through(reader, &answers, "metric_names", "job", "1", 1), 2);
    assert_int_equal(page_through(reader, &answers, "best_metrics", "experiment", "e1", 1), 2);
    size_t events = page_through(reader, &answers, "events", NULL, NULL, 2);
    assert_int_equal(events, strtoull(pg_ask(story.rig.db, "SELECT count(*) FROM athanor.events"),
                                      NULL, 10));
    reader_close(reader);
    story_end(&story);
}

static void metrics_are_thinned_on_the_server(void **state)
{
    (void)state;
    struct story story;
    struct answers answers;
    struct rec_name_value arguments[] = {{"job", "base"}, {"name", "loss"}, {"points", "10"}};
    struct msg_query query = {.name = "metrics", .arguments = arguments, .arguments_count = 3};
    struct err err;

    history(&story);
    struct reader *reader = reader_for(&story, &answers);
    assert_int_equal(reader_query(reader, 1, &query, ROLE_USER, &err), 0);
    reader_pump(reader, &answers.tables, 1);
    assert_int_equal(answers.rows, 10);
    reader_close(reader);
    story_end(&story);
}

static void wrong_questions_are_refused_with_what_would_do(void **state)
{
    (void)state;
    struct story story;
    struct answers answers;
    struct rec_name_value arguments[] = {{"jobb", "1"}};
    struct msg_query query = {.name = "logz"};
    struct err err;

    story_begin(&story);
    struct reader *reader = reader_for(&story, &answers);
    assert_int_equal(reader_query(reader, 1, &query, ROLE_USER, &err), -1);
    assert_non_null(strstr(err.text, "logs"));
    query.name = "logs";
    assert_int_equal(reader_query(reader, 1, &query, ROLE_USER, &err), -1);
    assert_non_null(strstr(err.text, "needs the argument 'job'"));
    query.arguments = arguments;
    query.arguments_count = 1;
    assert_int_equal(reader_query(reader, 1, &query, ROLE_USER, &err), -1);
    assert_non_null(strstr(err.text, "no argument 'jobb'"));
    query = (struct msg_query){.name = "jobs", .limit = QUERY_ROWS_MAX + 1};
    assert_int_equal(reader_query(reader, 1, &query, ROLE_USER, &err), -1);
    query = (struct msg_query){.name = "principals"};
    assert_int_equal(reader_query(reader, 1, &query, ROLE_USER, &err), -1);
    assert_int_equal(err.kind, ERR_DENIED);
    /* What only PostgreSQL can judge comes back as an answer, and the lane goes on. */
    query = (struct msg_query){.name = "jobs", .after = "'; DROP SCHEMA athanor CASCADE"};
    assert_int_equal(reader_query(reader, 1, &query, ROLE_USER, &err), 0);
    reader_pump(reader, &answers.tables, 1);
    assert_int_equal(answers.err.kind, ERR_INVALID);
    ask(reader, &answers, "status", NULL, NULL, 0, NULL);
    assert_int_equal(answers.rows, 1);
    reader_close(reader);
    story_end(&story);
}

static void look(struct reader *reader, struct answers *answers, struct core_lookup lookup)
{
    struct err err;

    assert_int_equal(reader_lookup(reader, 1, &lookup, 1, &err), 0);
    reader_pump(reader, &answers->founds, answers->founds + 1);
}

static void lookups_find_history(void **state)
{
    (void)state;
    struct story story;
    struct answers answers;
    uint8_t key[16] = {1}, unknown[16] = {99};

    history(&story);
    struct reader *reader = reader_for(&story, &answers);
    look(reader, &answers, (struct core_lookup){.kind = LOOKUP_SUBMIT, .submit_key = key});
    assert_int_equal(answers.jobs, 2);
    look(reader, &answers, (struct core_lookup){.kind = LOOKUP_SUBMIT, .submit_key = unknown});
    assert_int_equal(answers.jobs, 0);
    look(reader, &answers, (struct core_lookup){.kind = LOOKUP_JOB_ID, .job_id = 1});
    assert_int_equal(answers.jobs, 1);
    assert_int_equal(answers.checkpoints, 1);
    assert_int_equal(answers.artifacts, 1);
    look(reader, &answers,
         (struct core_lookup){.kind = LOOKUP_JOB_NAME, .name = "child", .experiment = "e1"});
    assert_int_equal(answers.found_job, 2);
    assert_int_equal(answers.dependencies, 1);
    look(reader, &answers,
         (struct core_lookup){.kind = LOOKUP_JOB_NAME, .name = "a\"b\\", .experiment = ""});
    assert_int_equal(answers.jobs, 0);
    look(reader, &answers, (struct core_lookup){.kind = LOOKUP_EXPERIMENT, .experiment = "e1"});
    assert_int_equal(answers.found_job, 2); /* child failed, base did not */
    look(reader, &answers,
         (struct core_lookup){.kind = LOOKUP_DATASET, .name = "set", .experiment = "nowhere"});
    assert_int_equal(answers.found_job, 1);
    reader_close(reader);
    story_end(&story);
}

/* The order outlives the leader that gave it, and ends with the worker's word. */
static void what_nothing_needs_is_found_ordered_and_remembered(void **state)
{
    (void)state;
    struct story story;
    struct answers answers;
    struct core_lookup wanted = {.kind = LOOKUP_GARBAGE, .name = "checkpoint"};
    struct msg_collect checkpoints = {.at_once = true, .kind = "checkpoint"};
    struct msg_removed removed = {.worker_id = 1, .incarnation = 5, .removal_id = 1, .failure = ""};
    struct event event = {.kind = EVENT_REMOVED, .removed = {.peer = 1, .removed = &removed}};

    history(&story);
    struct reader *reader = reader_for(&story, &answers);
    look(reader, &answers, (struct core_lookup){.kind = LOOKUP_GARBAGE, .name = ""});
    assert_int_equal(answers.removals, 0); /* nobody has said for how long: it is kept */
    assert_string_equal(pg_ask(story.rig.db, "SELECT string_agg(DISTINCT why, ',') FROM "
                                             "athanor.retention_list(NULL, NULL)"),
                        "it is kept for ever");
    /* The clock of the story runs ahead. */
    pg_ask(story.rig.db, "UPDATE athanor.job SET ended_at = ended_at - interval '1 hour'");
    answers.story = &story;
    answers.collect = &checkpoints;
    look(reader, &answers, wanted);
    assert_int_equal(answers.removals, 1);
    tick_and_commit(&story);
    check_equal(&story);
    assert_string_equal(pg_ask(story.rig.db, "SELECT count(*) FROM athanor.removals r JOIN "
                                             "athanor.checkpoints c ON c.removed_at = r.ordered_at "
                                             "WHERE r.done_at IS NULL AND r.path = '/c'"),
                        "1");
    step(&story, &event);
    tick_and_commit(&story);
    check_equal(&story);
    assert_string_equal(pg_ask(story.rig.db, "SELECT done_at IS NOT NULL FROM athanor.removals"),
                        "t");
    look(reader, &answers, wanted);
    assert_int_equal(answers.removals, 0);
    reader_close(reader);
    story_end(&story);
}

#define GRAPH_JOBS 24

static void job_put(struct buf *sql, int job, bool ended, int reused)
{
    buf_printf(sql,
               "INSERT INTO athanor.job (job_id, experiment_id, name, kind, submit_key,"
               " submit_index, spec, ranks, cores, memory_bytes, gpus, submitted_at, priority,"
               " state, held, attempt_count, attempts_spent, ended_at, reused_job_id) SELECT"
               " %d, 1, 'j', 'command', 'k', %d, '{}', 1, 1, 1, 0, now(), 0, '%s', false, 0, 0,"
               " %s, nullif(%d, 0);"
               "INSERT INTO athanor.attempt (attempt_id, job_id, number, worker_id, epoch,"
               " state, cause, placed_at, ended_at) VALUES (%d, %d, 1, 1, 1, 'ENDED', 'success',"
               " now(), now());"
               "INSERT INTO athanor.checkpoint (checkpoint_id, job_id, attempt_id, worker_id,"
               " step, path, size_bytes, content_hash, metrics, saved_at) VALUES"
               " (%d, %d, %d, 1, 1, '/c', 1, sha256('x'), '{}', now());",
               job, job, ended ? "SUCCEEDED" : "READY", ended ? "now()" : "NULL", reused, job, job,
               job, job, job);
}

/* Draws jobs, most of them ended, that descend from earlier ones in three ways; each has a
 * checkpoint. Numbers begin behind `base`. */
static void graph_draw(const char *db, struct rng *rng, int base, bool needed[GRAPH_JOBS])
{
    bool edge[GRAPH_JOBS][GRAPH_JOBS] = {0}, more = true;
    struct buf sql = {0};
    for (int job = 0; job < GRAPH_JOBS; job++) {
        bool ended = rng_below(rng, 10) < 8;
        int reused = job && ended && rng_below(rng, 8) == 0 ? (int)rng_below(rng, (uint64_t)job)
                                                            : -1;
        needed[job] = !ended;
        if (reused >= 0)
            edge[job][reused] = true;
        job_put(&sql, base + job, ended, reused >= 0 ? base + reused : 0);
        for (int parent = 0; parent < job; parent++) {
            bool needs = rng_below(rng, 12) == 0, reads = rng_below(rng, 12) == 0;
            edge[job][parent] |= needs || reads;
            if (needs)
                buf_printf(&sql, "INSERT INTO athanor.job_dependency (job_id, parent_id, condition,"
                                 " state) VALUES (%d, %d, 'any', 'met');",
                           base + job, base + parent);
            if (reads)
                buf_printf(&sql, "INSERT INTO athanor.lineage (attempt_id, input, ref, path,"
                                 " source_job_id) VALUES (%d, 'i%d', 'r', '/c', %d);",
                           base + job, parent, base + parent);
        }
    }
    PGconn *pg = pg_open(db);
    PGresult *result = PQexec(pg, buf_text(&sql));
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        fail_msg("%s", PQresultErrorMessage(result));
    PQclear(result);
    PQfinish(pg);
    buf_done(&sql);
    while (more) {
        more = false;
        for (int job = 0; job < GRAPH_JOBS; job++)
            for (int parent = 0; parent < job; parent++)
                if (needed[job] && edge[job][parent] && !needed[parent])
                    needed[parent] = more = true;
    }
}

static void nothing_goes_that_a_living_job_descends_from(void **state)
{
    (void)state;
    struct rig rig;
    struct rng rng;
    size_t kept = 0;

    rig_open(&rig);
    rng_init(&rng, 11);
    pg_ask(rig.db, "INSERT INTO athanor.experiment VALUES (1, 'e', 'a', now());"
                   "INSERT INTO athanor.worker (worker_id, name, state, cores, memory_bytes, gpus,"
                   " drained, incarnation) VALUES (1, 'w', 'OK', 1, 1, 0, false, 1)");
    for (int round = 0; round < 20; round++) {
        bool needed[GRAPH_JOBS];
        char expected[GRAPH_JOBS + 1] = "";
        graph_draw(rig.db, &rng, 1 + round * GRAPH_JOBS, needed);
        for (int job = 0; job < GRAPH_JOBS; job++)
            expected[job] = needed[job] ? 'f' : 't';
        for (int job = 0; job < GRAPH_JOBS; job++)
            kept += needed[job];
        assert_string_equal(
            pg_ask(rig.db,
                   "SELECT string_agg(CASE WHEN goes THEN 't' ELSE 'f' END, '' ORDER BY job_id)"
                   "  FROM athanor.retention_list(0, NULL) WHERE job_id > %d",
                   round * GRAPH_JOBS),
            expected);
    }
    assert_in_range(kept, GRAPH_JOBS * 20 / 4, GRAPH_JOBS * 20 * 3 / 4); /* the draw tells both */
    rig_close(&rig);
}

static void a_reader_survives_a_restart_of_the_server(void **state)
{
    (void)state;
    struct story story;
    struct answers answers;

    story_begin(&story);
    struct reader *reader = reader_for(&story, &answers);
    ask(reader, &answers, "status", NULL, NULL, 0, NULL);
    pg_ask(story.rig.db,
           "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
           " WHERE application_name LIKE '%%reader%%' AND datname = current_database()");
    ask(reader, &answers, "status", NULL, NULL, 0, NULL);
    assert_int_equal(answers.rows, 1);
    assert_int_equal(reader_maintain(reader, 86400000, &story.rig.err), 0);
    reader_pump(reader, &answers.tables, answers.tables + 1);
    reader_close(reader);
    story_end(&story);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_core_from_rows_equals_the_core_in_memory),
        cmocka_unit_test(every_query_answers_in_the_shape_it_declares),
        cmocka_unit_test(pages_end_and_hold_every_row_once),
        cmocka_unit_test(metrics_are_thinned_on_the_server),
        cmocka_unit_test(wrong_questions_are_refused_with_what_would_do),
        cmocka_unit_test(lookups_find_history),
        cmocka_unit_test(what_nothing_needs_is_found_ordered_and_remembered),
        cmocka_unit_test(nothing_goes_that_a_living_job_descends_from),
        cmocka_unit_test(a_reader_survives_a_restart_of_the_server),
    };
    return cmocka_run_group_tests(tests, rig_start_server, rig_stop_server);
}
