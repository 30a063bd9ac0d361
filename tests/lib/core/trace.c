/* trace.c - see trace.h. */
#include "tests/lib/core/trace.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "coordinator/core/core.h"
#include "coordinator/policy/policy.h"
#include "tests/lib/core/memory_db.h"
#include "tests/lib/core/show.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 32
#define WORKERS_MAX 16
#define ATTEMPTS_MAX 256
#define NODES_MAX 8
#define BASE_US 1000000000000000u
#define CLIENT_PEER 1u
#define WORKER_PEER 100u /* and one more for each join */

struct trace {
    struct core *core;
    struct core_config config;
    struct memory_db *db;
    struct effects effects;
    struct buf *out;
    struct arena arena; /* of one line */
    uint64_t now_ms, wall_shift_us, request_seq, node_stamp;
    uint64_t wake_shown;
    struct {
        char name[32];
        uint64_t peer, worker_id, incarnation;
    } workers[WORKERS_MAX];
    size_t worker_count;
    uint64_t next_peer;
    uint64_t next_seq[ATTEMPTS_MAX][NODES_MAX];
    char *words[WORDS_MAX];
    size_t word_count;
};

/* ---- words ------------------------------------------------------------------------------- */

static void words_split(struct trace *trace, char *line)
{
    trace->word_count = 0;
    for (char *word = strsep(&line, " "); word && trace->word_count < WORDS_MAX;
         word = strsep(&line, " "))
        if (*word)
            trace->words[trace->word_count++] = word;
}

static const char *word_at(const struct trace *trace, size_t index)
{
    return index < trace->word_count ? trace->words[index] : "";
}

/* The value of NAME=VALUE, or the fallback. */
static const char *option(const struct trace *trace, const char *name, const char *fallback)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < trace->word_count; i++)
        if (strncmp(trace->words[i], name, length) == 0 && trace->words[i][length] == '=')
            return trace->words[i] + length + 1;
    return fallback;
}

static uint64_t number(const char *text)
{
    return strtoull(*text == 'a' ? text + 1 : text, NULL, 10);
}

static uint64_t option_number(const struct trace *trace, const char *name, uint64_t fallback)
{
    const char *text = option(trace, name, NULL);
    return text ? number(text) : fallback;
}

static size_t worker_index(struct trace *trace, const char *name)
{
    for (size_t i = 0; i < trace->worker_count; i++)
        if (strcmp(trace->workers[i].name, name) == 0)
            return i;
    CHECK(trace->worker_count < WORKERS_MAX && strlen(name) < 32);
    memcpy(trace->workers[trace->worker_count].name, name, strlen(name) + 1);
    return trace->worker_count++;
}

static const char *peer_name(const struct trace *trace, uint64_t peer)
{
    for (size_t i = 0; i < trace->worker_count; i++)
        if (trace->workers[i].peer == peer)
            return trace->workers[i].name;
    return peer == CLIENT_PEER ? "client" : "old-peer";
}

/* ---- one step ---------------------------------------------------------------------------- */

static void effects_show(struct trace *trace)
{
    const struct effects *effects = &trace->effects;
    for (size_t i = 0; i < effects->persist_count; i++) {
        buf_puts(trace->out, "< persist          ");
        show_persist(&effects->persist[i], BASE_US, trace->out);
        buf_putc(trace->out, '\n');
    }
    for (size_t i = 0; i < effects->release_count; i++) {
        const struct outgoing *outgoing = &effects->release[i];
        if (outgoing->message.tag == MSG_WORKER_WELCOME) {
            size_t w = worker_index(trace, peer_name(trace, outgoing->peer));
            trace->workers[w].worker_id = outgoing->message.u.worker_welcome.worker_id;
        }
        buf_printf(trace->out, "< release %-8s ", peer_name(trace, outgoing->peer));
        show_message(&outgoing->message, trace->out);
        buf_putc(trace->out, '\n');
    }
    if (effects->wake_at_ms != trace->wake_shown)
        buf_printf(trace->out, "< wake             %llu\n",
                   (unsigned long long)effects->wake_at_ms);
    trace->wake_shown = effects->wake_at_ms;
}

static int invariants_check(struct trace *trace, struct err *err)
{
    const char *fault = memory_db_apply(trace->db, trace->effects.persist,
                                        trace->effects.persist_count, &trace->arena);
    if (!fault)
        fault = core_check(trace->core, true, &trace->arena);
    if (fault)
        return err_set(err, ERR_INVALID, "%s", fault);
    return 0;
}

static int step(struct trace *trace, struct event *event, struct err *err)
{
    event->now_ms = trace->now_ms;
    event->wall_us = BASE_US + trace->now_ms * 1000 + trace->wall_shift_us;
    if (event->kind == EVENT_SUBMIT || event->kind == EVENT_CONTROL ||
        event->kind == EVENT_COLLECT) {
        struct core_lookup *lookups;
        struct event_found *found = event->kind == EVENT_SUBMIT    ? &event->submit.found
                                    : event->kind == EVENT_CONTROL ? &event->control.found
                                                                   : &event->collect.found;
        size_t count = core_lookups(trace->core, event, &trace->arena, &lookups);
        memory_db_lookup(trace->db, lookups, count, &trace->arena, found);
    }
    effects_reset(&trace->effects);
    core_step(trace->core, event, &trace->effects);
    effects_show(trace);
    return invariants_check(trace, err);
}

/* ---- verbs ------------------------------------------------------------------------------- */

static void held_read(struct trace *trace, struct msg_worker_join *join)
{
    char *list = arena_strdup(&trace->arena, option(trace, "held", ""));
    join->held = arena_alloc(&trace->arena, 64 * sizeof *join->held);
    char *rest = list;
    for (char *id = strsep(&rest, ","); id && *id && join->held_count < 64;
         id = strsep(&rest, ","))
        join->held[join->held_count++] =
            (struct rec_held_attempt){.attempt_id = number(id), .running = true};
}

/* "label=zone:eu,switch:s1" */
static void labels_read(struct trace *trace, struct msg_worker_join *join)
{
    char *rest = arena_strdup(&trace->arena, option(trace, "label", ""));
    join->labels = arena_alloc(&trace->arena, WORDS_MAX * sizeof *join->labels);
    for (char *label = strsep(&rest, ","); label && join->labels_count < WORDS_MAX;
         label = strsep(&rest, ",")) {
        char *colon = strchr(label, ':');
        if (!colon)
            continue;
        *colon = '\0';
        join->labels[join->labels_count++] =
            (struct rec_name_value){.name = label, .value = colon + 1};
    }
}

/* "gpus=2 model=h100", or "models=a100,h100" for one of each. */
static void devices_read(struct trace *trace, struct msg_worker_join *join)
{
    char *rest = arena_strdup(&trace->arena, option(trace, "models", ""));
    join->devices_count = option_number(trace, "gpus", 0);
    join->devices = arena_alloc(&trace->arena, WORDS_MAX * sizeof *join->devices);
    CHECK(join->devices_count <= WORDS_MAX);
    for (size_t i = 0; i < join->devices_count; i++)
        join->devices[i].model = option(trace, "model", "sim");
    for (char *model = strsep(&rest, ","); model && *model; model = strsep(&rest, ","))
        join->devices[join->devices_count++].model = model;
    for (size_t i = 0; i < join->devices_count; i++)
        join->devices[i] = (struct rec_device){.device_index = i,
                                               .kind = "gpu",
                                               .model = join->devices[i].model,
                                               .uuid = "",
                                               .memory_bytes = 1};
}

/* "copies=PATH@FROM,PATH@FROM": what a report of that path made, fetched from FROM at time 7. */
static struct rec_held_copy *copies_read(struct trace *trace, const char *given, size_t *count)
{
    char *rest = arena_strdup(&trace->arena, given);
    struct rec_held_copy *list = arena_alloc(&trace->arena, WORDS_MAX * sizeof *list);
    *count = 0;
    for (char *path = strsep(&rest, ","); path && *path && *count < WORDS_MAX;
         path = strsep(&rest, ",")) {
        char *from = strchr(path, '@');
        if (from)
            *from++ = '\0';
        struct rec_held_copy *copy = &list[(*count)++];
        *copy = (struct rec_held_copy){.size_bytes = 10,
                                       .fetched_us = BASE_US + 7000,
                                       .is_dataset = strncmp(path, "/d/", 3) == 0,
                                       .source = from ? from : ""};
        hash_bytes(path, strlen(path), &copy->content);
    }
    return list;
}

static int verb_copies(struct trace *trace, struct err *err)
{
    size_t w = worker_index(trace, word_at(trace, 3));
    struct msg_copies copies = {.worker_id = trace->workers[w].worker_id,
                                .incarnation = trace->workers[w].incarnation};
    copies.copies = copies_read(trace, word_at(trace, 4), &copies.copies_count);
    struct event event = {.kind = EVENT_COPIES,
                          .copies = {.peer = trace->workers[w].peer,
                                     .request_seq = ++trace->request_seq,
                                     .copies = &copies}};
    return step(trace, &event, err);
}

static int verb_join(struct trace *trace, struct err *err)
{
    size_t w = worker_index(trace, word_at(trace, 3));
    trace->workers[w].peer = trace->next_peer++;
    trace->workers[w].incarnation = option_number(trace, "incarnation", 7);
    struct msg_worker_join join = {
        .name = trace->workers[w].name,
        .incarnation = trace->workers[w].incarnation,
        .host = "host",
        .cores = option_number(trace, "cores", 4),
        .memory_bytes = option_number(trace, "memory", 8) << 30,
        .topology = "{}",
        .endpoint = option(trace, "endpoint", ""),
        .public_key = "",
        .ends_in_ms = option_number(trace, "ends", 0),
        .open_ended = option_number(trace, "open", 0),
    };
    devices_read(trace, &join);
    if (option(trace, "engine", NULL)) { /* a digit stands for a whole hash */
        char *hex = arena_alloc(&trace->arena, HASH_HEX_SIZE);
        memset(hex, *option(trace, "engine", "0"), HASH_HEX_SIZE - 1);
        join.engine = hex;
    }
    if (option(trace, "link", NULL)) { /* a digit stands for a whole key */
        char *key = arena_alloc(&trace->arena, 41);
        memset(key, *option(trace, "link", "0"), 40);
        join.public_key = key;
        join.endpoint = arena_printf(&trace->arena, "tcp://%s", join.name);
    }
    join.copies = copies_read(trace, option(trace, "copies", ""), &join.copies_count);
    held_read(trace, &join);
    labels_read(trace, &join);
    struct event event = {.kind = EVENT_WORKER_JOIN,
                          .join = {.peer = trace->workers[w].peer,
                                   .request_seq = ++trace->request_seq,
                                   .principal = option(trace, "key", NULL),
                                   .join = &join}};
    return step(trace, &event, err);
}

static int verb_beat(struct trace *trace, struct err *err)
{
    size_t w = worker_index(trace, word_at(trace, 3));
    struct msg_heartbeat beat = {.worker_id = trace->workers[w].worker_id,
                                 .incarnation = trace->workers[w].incarnation,
                                 .ends_in_ms = option_number(trace, "ends", 0)};
    struct event event = {.kind = EVENT_HEARTBEAT,
                          .heartbeat = {.peer = trace->workers[w].peer,
                                        .request_seq = ++trace->request_seq,
                                        .heartbeat = &beat}};
    return step(trace, &event, err);
}

static int verb_leave(struct trace *trace, struct err *err)
{
    size_t w = worker_index(trace, word_at(trace, 3));
    struct msg_worker_leave leave = {.worker_id = trace->workers[w].worker_id,
                                     .incarnation = trace->workers[w].incarnation};
    struct event event = {.kind = EVENT_WORKER_LEAVE,
                          .leave = {.peer = trace->workers[w].peer,
                                    .request_seq = ++trace->request_seq,
                                    .leave = &leave}};
    return step(trace, &event, err);
}

/* node W KIND [stamp=] [text=] [severe=1] [check=NAME:STATUS] */
static int verb_node(struct trace *trace, struct err *err)
{
    size_t w = worker_index(trace, word_at(trace, 3));
    struct rec_health_check check = {.name =
                                         arena_strdup(&trace->arena, option(trace, "check", "")),
                                     .status = "",
                                     .code = 1,
                                     .text = option(trace, "text", ""),
                                     .took_ms = 5};
    char *colon = strchr(check.name, ':');
    if (colon) {
        *colon = '\0';
        check.status = colon + 1;
    }
    struct msg_node_report report = {.worker_id = trace->workers[w].worker_id,
                                     .incarnation = trace->workers[w].incarnation,
                                     .stamp = option_number(trace, "stamp", ++trace->node_stamp),
                                     .kind = word_at(trace, 4),
                                     .severe = option_number(trace, "severe", 0) != 0,
                                     .text = option(trace, "text", ""),
                                     .checks = &check,
                                     .checks_count = colon ? 1 : 0};
    struct event event = {.kind = EVENT_NODE_REPORT,
                          .node_report = {.peer = trace->workers[w].peer,
                                          .request_seq = ++trace->request_seq,
                                          .report = &report}};
    return step(trace, &event, err);
}

static int verb_tick(struct trace *trace, struct err *err)
{
    struct event event = {.kind = EVENT_TICK};
    return step(trace, &event, err);
}

static int verb_restart(struct trace *trace, struct err *err)
{
    struct buf before = {0}, after = {0};
    uint64_t wake;
    core_dump(trace->core, &before);
    core_free(trace->core);
    trace->config.epoch++;
    trace->core = memory_db_load(trace->db, &trace->config, trace->now_ms,
                                 BASE_US + trace->now_ms * 1000 + trace->wall_shift_us, &wake);
    core_dump(trace->core, &after);
    int rc = 0;
    if (strcmp(buf_text(&before), buf_text(&after)) != 0)
        rc = err_set(err, ERR_INVALID, "invariant 6: memory was\n%s\nand the rows say\n%s",
                     buf_text(&before), buf_text(&after));
    buf_printf(trace->out, "< wake             %llu\n", (unsigned long long)wake);
    trace->wake_shown = wake;
    buf_done(&before);
    buf_done(&after);
    return rc;
}

/* The small catalogue of the golden specs. */
static int recipes_load(struct catalogue *catalogue, struct err *err)
{
    char *json;
    size_t length;
    if (file_read("tests/golden/spec/catalogue.json", CATALOGUE_TEXT_BYTES_MAX, &json, &length,
                  err) < 0)
        return -1;
    int rc = catalogue_add(catalogue, json, length, err);
    mem_free(json);
    return rc;
}

/* The next leader has another policy. */
static int verb_policy(struct trace *trace, struct err *err)
{
    const struct policy *policy = policy_find(word_at(trace, 3));
    if (!policy)
        return err_set(err, ERR_INVALID, "'%s' is not a policy", word_at(trace, 3));
    trace->config.policy = policy->name;
    return verb_restart(trace, err);
}

static int verb_submit(struct trace *trace, const char *yaml, struct err *err)
{
    uint8_t key[16] = {0};
    const struct secret_name secrets[] = {{"", option(trace, "secret", "")},
                                          {option(trace, "in", ""), option(trace, "shared", "")}};
    size_t first_secret = secrets[0].name[0] ? 0 : 1;
    memcpy(key, word_at(trace, 3), min_u64(strlen(word_at(trace, 3)), 16));
    struct catalogue *catalogue = catalogue_new();
    struct spec_errors errors = {0};
    struct spec *spec = NULL;
    struct spec_source source = {
        .name = "trace", .bytes = yaml, .length = strlen(yaml), .folder = "/tmp"};
    int rc = -1;
    if (recipes_load(catalogue, err) < 0)
        goto out;
    if (spec_read(&source, catalogue, &spec, &errors) < 0) {
        char *text = spec_errors_text(&errors);
        rc = err_set(err, ERR_INVALID, "%s", text);
        mem_free(text);
        goto out;
    }
    struct event event = {.kind = EVENT_SUBMIT,
                          .submit = {.client = CLIENT_PEER,
                                     .request_seq = ++trace->request_seq,
                                     .account = option(trace, "as", "ann"),
                                     .submit_key = key,
                                     .spec = spec,
                                     .source = yaml,
                                     .secrets = secrets + first_secret,
                                     .secret_count = (secrets[1].name[0] ? 2 : 1) - first_secret,
                                     .check_only = strcmp(word_at(trace, 4), "check") == 0,
                                     .reuse = strcmp(word_at(trace, 4), "reuse") == 0}};
    rc = step(trace, &event, err);
out:
    spec_free(spec);
    spec_errors_done(&errors);
    catalogue_free(catalogue);
    return rc;
}

/* ---- reports ----------------------------------------------------------------------------- */

static const char *worker_of_part(struct trace *trace, uint64_t attempt_id, uint64_t node)
{
    uint64_t worker_id = 0;
    for (size_t i = 0; i < memory_db_count(trace->db, ROW_TABLE_attempt); i++) {
        const struct row_attempt *row = memory_db_row(trace->db, ROW_TABLE_attempt, i);
        if (row->attempt_id == attempt_id)
            worker_id = row->worker_id;
    }
    for (size_t i = 0; i < memory_db_count(trace->db, ROW_TABLE_attempt_node); i++) {
        const struct row_attempt_node *row = memory_db_row(trace->db, ROW_TABLE_attempt_node, i);
        if (row->attempt_id == attempt_id && row->node == node)
            worker_id = row->worker_id;
    }
    for (size_t i = 0; i < trace->worker_count; i++)
        if (trace->workers[i].worker_id == worker_id)
            return trace->workers[i].name;
    return "nobody";
}

static void report_fill(struct trace *trace, struct rec_report *report)
{
    const char *verb = word_at(trace, 2);
    const char *fourth = word_at(trace, 4);
    if (strcmp(verb, "started") == 0) {
        report->kind = REPORT_STARTED;
    } else if (strcmp(verb, "finished") == 0) {
        report->kind = REPORT_FINISHED;
        report->cause = fourth;
        report->code = (int64_t)option_number(trace, "code", 0);
        report->name = option(trace, "fault", "");
        report->step = option_number(trace, "step", 0);
        const char *text = option(trace, "text", "");
        report->text = (struct wire_bytes){text, strlen(text)};
    } else if (strcmp(verb, "metric") == 0) {
        const char *equals = strchr(fourth, '=');
        report->kind = REPORT_METRIC;
        report->name = arena_strndup(&trace->arena, fourth, (size_t)(equals - fourth));
        report->value = strtod(equals + 1, NULL);
        report->step = option_number(trace, "step", 0);
    } else if (strcmp(verb, "progress") == 0) {
        report->kind = REPORT_PROGRESS;
        report->step = number(fourth);
        report->total = number(word_at(trace, 5));
    } else if (strcmp(verb, "log") == 0) {
        report->kind = REPORT_LOG;
        report->name = "stdout";
        report->text = (struct wire_bytes){fourth, strlen(fourth)};
        size_t many = option_number(trace, "bytes", 0);
        if (many)
            report->text = (struct wire_bytes){
                memset(arena_alloc(&trace->arena, many), 'x', many), many};
    } else if (strcmp(verb, "checkpoint") == 0) {
        const char *score = option(trace, "val_loss", NULL);
        report->kind = REPORT_CHECKPOINT;
        report->step = number(fourth);
        report->path = option(trace, "path",
                              arena_printf(&trace->arena, "/c/%s/%s", word_at(trace, 3), fourth));
        report->total = 10;
        if (score)
            report->meta = arena_printf(&trace->arena, "{\"val_loss\": %s}", score);
    } else {
        report->kind = REPORT_ARTIFACT;
        report->name = fourth;
        report->path = arena_printf(&trace->arena, "/d/%s/%s", word_at(trace, 3), fourth);
        report->meta = "{\"kind\": \"dataset\"}";
    }
}

static int verb_report(struct trace *trace, struct err *err)
{
    uint64_t attempt_id = number(word_at(trace, 3));
    uint64_t node = option_number(trace, "node", 0);
    CHECK(attempt_id < ATTEMPTS_MAX && node < NODES_MAX);
    struct rec_report report = {.name = "", .path = "", .meta = "{}", .cause = "", .text = {"", 0}};
    uint64_t *next_seq = &trace->next_seq[attempt_id][node];
    report.seq = option_number(trace, "seq", *next_seq + 1);
    report.time_us = BASE_US + trace->now_ms * 1000;
    report_fill(trace, &report);
    hash_bytes(report.path, strlen(report.path), &report.content);
    *next_seq = max_u64(*next_seq, report.seq);
    struct msg_report message = {
        .attempt_id = attempt_id, .node = node, .reports = &report, .reports_count = 1};
    size_t w = worker_index(trace, option(trace, "from", worker_of_part(trace, attempt_id, node)));
    struct event event = {.kind = EVENT_REPORTS,
                          .reports = {.peer = trace->workers[w].peer,
                                      .request_seq = ++trace->request_seq,
                                      .reports = &message}};
    return step(trace, &event, err);
}

/* ---- control and why --------------------------------------------------------------------- */

static int verb_control(struct trace *trace, struct err *err)
{
    struct rec_name_value targets[WORDS_MAX];
    struct msg_control control = {
        .action = word_at(trace, 2), .targets = targets, .reason = option(trace, "reason", "")};
    if (option_number(trace, "by", 0))
        control.deadline_us = BASE_US + option_number(trace, "by", 0) * 1000;
    for (size_t i = 3; i < trace->word_count; i++) {
        char *target = arena_strdup(&trace->arena, trace->words[i]);
        char *colon = strchr(target, ':');
        if (!colon)
            continue;
        *colon = '\0';
        targets[control.targets_count++] =
            (struct rec_name_value){.name = target, .value = colon + 1};
    }
    const char *account = option(trace, "as", "root");
    struct event event = {.kind = EVENT_CONTROL,
                          .control = {.client = CLIENT_PEER,
                                      .request_seq = ++trace->request_seq,
                                      .account = account,
                                      .may_act_for_others = strcmp(account, "root") == 0,
                                      .control = &control}};
    return step(trace, &event, err);
}

/* "exec 1 rank=1 as=ann": a program beside a rank of job 1. */
static int verb_exec(struct trace *trace, struct err *err)
{
    struct rec_word words[] = {{"ps"}, {"aux"}};
    struct msg_exec exec = {.job_id = number(word_at(trace, 3)),
                            .rank = option_number(trace, "rank", 0),
                            .arguments = words,
                            .arguments_count = ARRAY_COUNT(words),
                            .term = ""};
    const char *account = option(trace, "as", "root");
    struct event event = {.kind = EVENT_EXEC,
                          .exec = {.client = CLIENT_PEER,
                                   .request_seq = ++trace->request_seq,
                                   .exec_id = trace->request_seq,
                                   .account = account,
                                   .is_admin = strcmp(account, "root") == 0,
                                   .exec = &exec}};
    return step(trace, &event, err);
}

/* "collect KIND": what nothing needs goes at once. */
static int verb_collect(struct trace *trace, struct err *err)
{
    struct msg_collect collect = {.at_once = true, .kind = word_at(trace, 3)};
    const char *account = option(trace, "as", "root");
    struct event event = {.kind = EVENT_COLLECT,
                          .collect = {.client = CLIENT_PEER,
                                      .request_seq = ++trace->request_seq,
                                      .account = account,
                                      .is_operator = strcmp(account, "root") == 0,
                                      .collect = &collect}};
    return step(trace, &event, err);
}

static int verb_removed(struct trace *trace, struct err *err)
{
    size_t w = worker_index(trace, word_at(trace, 3));
    struct msg_removed removed = {.worker_id = trace->workers[w].worker_id,
                                  .incarnation = trace->workers[w].incarnation,
                                  .removal_id = number(word_at(trace, 4)),
                                  .failure = option(trace, "failure", "")};
    struct event event = {.kind = EVENT_REMOVED,
                          .removed = {.peer = trace->workers[w].peer,
                                      .request_seq = ++trace->request_seq,
                                      .removed = &removed}};
    return step(trace, &event, err);
}

/* "queue set gpu priority=5": table, action, name, settings. "as=" says who; root is operator. */
static int verb_configure(struct trace *trace, struct err *err)
{
    struct rec_name_value settings[WORDS_MAX];
    struct msg_configure configure = {.table = word_at(trace, 3),
                                      .action = word_at(trace, 4),
                                      .settings = settings};
    configure.name =
        trace->word_count > 5 && !strchr(word_at(trace, 5), '=') ? word_at(trace, 5) : "";
    for (size_t i = 5; i < trace->word_count; i++) {
        char *setting = arena_strdup(&trace->arena, trace->words[i]);
        char *equals = strchr(setting, '=');
        if (!equals || strncmp(setting, "as=", 3) == 0)
            continue;
        *equals = '\0';
        if (strcmp(setting, "secrets") == 0)
            continue;
        if (equals[1] == '@') /* milliseconds of the trace */
            equals = arena_printf(&trace->arena, "=%llu",
                                  (unsigned long long)(BASE_US + number(equals + 2) * 1000));
        settings[configure.settings_count++] =
            (struct rec_name_value){.name = setting, .value = equals + 1};
    }
    static const char *const principals[] = {"ann", "bob", "root"};
    const char *account = option(trace, "as", "root");
    struct event event = {.kind = EVENT_CONFIGURE,
                          .configure = {.client = CLIENT_PEER,
                                        .request_seq = ++trace->request_seq,
                                        .account = account,
                                        .is_operator = strcmp(account, "root") == 0,
                                        .configure = &configure,
                                        .principals = principals,
                                        .principal_count = ARRAY_COUNT(principals),
                                        .secret_count = option_number(trace, "secrets", 0)}};
    return step(trace, &event, err);
}

static void reasons_show(struct trace *trace, const struct core_reason *reasons, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buf_printf(trace->out, "< %-12s %s\n<              remedy: %s\n", reasons[i].reason,
                   reasons[i].detail, reasons[i].remedy);
}

static int verb_why(struct trace *trace, struct err *err)
{
    (void)err;
    struct core_reason *reasons;
    int count = core_why(trace->core, number(word_at(trace, 3)), &trace->arena, &reasons);
    if (count < 0)
        buf_puts(trace->out, "< not live\n");
    else
        reasons_show(trace, reasons, (size_t)count);
    return 0;
}

static uint64_t change_of(struct trace *trace, const char *name, unsigned bit,
                          struct core_changes *changes)
{
    const char *given = option(trace, name, NULL);
    changes->given |= given ? bit : 0;
    return given ? number(given) : 0;
}

/* Asking must change nothing (core_dump), and asking twice must give one answer. */
static int verb_outlook(struct trace *trace, struct err *err)
{
    struct core_changes changes = {.queue = option(trace, "queue", NULL)};
    struct core_outlook outlook;
    struct buf before = {0}, after = {0};
    uint64_t job_id = number(word_at(trace, 3));
    changes.cores = change_of(trace, "cores", CORE_CHANGE_CORES, &changes);
    changes.gpus = change_of(trace, "gpus", CORE_CHANGE_GPUS, &changes);
    changes.ranks = change_of(trace, "ranks", CORE_CHANGE_RANKS, &changes);
    changes.nodes = change_of(trace, "nodes", CORE_CHANGE_NODES, &changes);
    changes.wall_time_ms = change_of(trace, "wall_ms", CORE_CHANGE_WALL_TIME, &changes);
    core_dump(trace->core, &before);
    int rc = core_outlook(trace->core, job_id, &changes, &trace->arena, &outlook, err);
    if (rc < 0) {
        buf_printf(trace->out, "< refused: %s\n", err->text);
        rc = 0;
    } else {
        reasons_show(trace, outlook.reasons, outlook.reason_count);
        buf_printf(trace->out, "< starts       %s%s\n", outlook.ready ? "" : "if ready: ",
                   outlook.text);
    }
    core_dump(trace->core, &after);
    if (strcmp(buf_text(&before), buf_text(&after)) != 0)
        rc = err_set(err, ERR_INVALID, "asking changed the core's state");
    buf_done(&before);
    buf_done(&after);
    return rc;
}

static int verb_wall(struct trace *trace, struct err *err)
{
    (void)err;
    trace->wall_shift_us += (uint64_t)(strtoll(word_at(trace, 3), NULL, 10) * 1000000);
    return 0;
}

typedef int verb_fn(struct trace *trace, struct err *err);
static const struct {
    const char *name;
    verb_fn *run;
} verbs[] = {
    {"join", verb_join},         {"beat", verb_beat},       {"leave", verb_leave},
    {"policy", verb_policy},     {"tick", verb_tick},
    {"restart", verb_restart},   {"started", verb_report},
    {"finished", verb_report},   {"metric", verb_report},   {"progress", verb_report},
    {"log", verb_report},        {"checkpoint", verb_report}, {"dataset", verb_report},
    {"cancel", verb_control},    {"hold", verb_control},    {"release", verb_control},
    {"retry", verb_control},     {"drain", verb_control},   {"undrain", verb_control},
    {"configure", verb_configure}, {"why", verb_why},           {"wall", verb_wall},
    {"outlook", verb_outlook},   {"node", verb_node},
    {"copies", verb_copies},
    {"exec", verb_exec},         {"collect", verb_collect}, {"removed", verb_removed},
};

static int line_run(struct trace *trace, const char *line, const char *yaml, struct err *err)
{
    words_split(trace, arena_strdup(&trace->arena, line));
    trace->now_ms = max_u64(trace->now_ms, number(word_at(trace, 1)));
    if (strcmp(word_at(trace, 2), "submit") == 0)
        return verb_submit(trace, yaml, err);
    for (size_t i = 0; i < ARRAY_COUNT(verbs); i++)
        if (strcmp(verbs[i].name, word_at(trace, 2)) == 0)
            return verbs[i].run(trace, err);
    return err_set(err, ERR_INVALID, "'%s' is not a verb", word_at(trace, 2));
}

/* ---- the file ---------------------------------------------------------------------------- */

static void trace_init(struct trace *trace, struct buf *out)
{
    *trace = (struct trace){.out = out, .next_peer = WORKER_PEER};
    trace->config = (struct core_config){.epoch = 1, .seed = 1};
    trace->core = core_new(&trace->config);
    trace->db = memory_db_new();
    effects_init(&trace->effects);
}

static void trace_done(struct trace *trace)
{
    core_free(trace->core);
    memory_db_free(trace->db);
    effects_done(&trace->effects);
    arena_done(&trace->arena);
}

/* The "| " lines that follow, without their marks; copies them to the output. */
static void yaml_take(struct trace *trace, char **rest, struct buf *yaml)
{
    while (*rest && **rest == '|') {
        char *line = strsep(rest, "\n");
        buf_printf(trace->out, "%s\n", line);
        buf_printf(yaml, "%s\n", line[1] == ' ' ? line + 2 : line + 1);
    }
}

int trace_run(const char *text, struct buf *out, struct err *err)
{
    struct trace trace;
    char *copy = mem_strdup(text);
    char *rest = copy;
    size_t number_of_line = 0;
    int rc = 0;
    trace_init(&trace, out);
    while (rc == 0 && rest) {
        char *line = strsep(&rest, "\n");
        number_of_line++;
        if (*line == '<' || (*line == '\0' && !rest))
            continue;
        buf_printf(out, "%s\n", line);
        if (*line != '>')
            continue;
        struct buf yaml = {0};
        buf_puts(&yaml, "athanor: 1\n"); /* the same in every spec */
        yaml_take(&trace, &rest, &yaml);
        rc = line_run(&trace, line, buf_text(&yaml), err);
        buf_done(&yaml);
        if (rc < 0)
            err_wrap(err, "line %zu: %s", number_of_line, line);
        arena_reset(&trace.arena);
    }
    trace_done(&trace);
    mem_free(copy);
    return rc;
}
