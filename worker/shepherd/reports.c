/* reports.c - from report lines to the spool; see run.h. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/shepherd/checkpoint_check.h"
#include "worker/shepherd/run.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SPOOL_RETRY_MS      1000u
#define CONTROL_CLIENTS_MAX 16u
/* Connections to the report socket: some that a rank keeps (its framework, its threads), and what
 * comes and goes, as of `athanor report` in a loop. A descriptor and about 200 bytes each: 64 ranks
 * of a node make 320, of the 1,024 descriptors that a process has by default. */
#define REPORT_CLIENTS(ranks) (64u + 4u * (ranks))

/* ---- into the spool -------------------------------------------------------------------------- */

static const char *keep_text(struct run *run, const char *text)
{
    return arena_strdup(&run->batch_arena, text ? text : "");
}

void reports_add(struct run *run, const struct rec_report *report)
{
    /* Half of a record's bound: one entry is at most a line, and its texts once more in meta. */
    if (run->batch_count == REPORT_ITEMS_MAX || run->batch_bytes >= REPORT_BYTES_MAX / 2)
        reports_flush(run);
    VEC_RESERVE(run->batch, run->batch_count, run->batch_capacity);
    struct rec_report *kept = &run->batch[run->batch_count++];
    *kept = *report;
    kept->time_us = clock_wall_us();
    kept->name = keep_text(run, report->name);
    kept->path = keep_text(run, report->path);
    kept->meta = keep_text(run, report->meta);
    kept->cause = keep_text(run, report->cause);
    kept->text.bytes =
        arena_strndup(&run->batch_arena, report->text.bytes ? report->text.bytes : "",
                      report->text.length);
    run->batch_bytes +=
        64 + strlen(kept->name) + strlen(kept->path) + strlen(kept->meta) + report->text.length;
}

/* The shepherd's own log is the one place left when the spool does not work. Nobody hears that
 * something is kept until it is: it may wait for room on the disk. */
static void spool_trouble(struct run *run, const struct err *why)
{
    if (run->report)
        line_server_hold(run->report, true);
    if (!run->spool_broken)
        log_error("spool of attempt %" PRIu64 ": %s", run->plan.attempt_id, why->text);
    run->spool_broken = true;
    run->spool_retry_ms = clock_steady_ms() + SPOOL_RETRY_MS;
}

void reports_flush(struct run *run)
{
    struct err err = {0};
    if (run->batch_count == 0)
        return;
    if (spool_append(&run->spool, run->batch, run->batch_count, &err) < 0)
        spool_trouble(run, &err);
    run->batch_count = run->batch_bytes = 0;
    arena_reset(&run->batch_arena);
}

void reports_sync(struct run *run)
{
    struct err err = {0};
    reports_flush(run);
    if (spool_sync(&run->spool, &err) < 0)
        spool_trouble(run, &err);
}

/* ---- one function per kind of line ----------------------------------------------------------- */

static void progress_add(struct run *run, unsigned index, uint64_t now_ms)
{
    struct rank *rank = &run->ranks[index];
    struct rec_report report = {.kind = REPORT_PROGRESS,
                                .rank = run_rank(run, index),
                                .step = rank->step,
                                .total = rank->total,
                                .name = rank->phase};
    reports_add(run, &report);
    rank->progress_waits = false;
    rank->spooled_ms = now_ms;
}

static int accept_hello(struct run *run, unsigned rank, const struct report_line *line,
                        struct err *err)
{
    (void)run, (void)rank, (void)line, (void)err; /* the rank is taken from any line */
    return 0;
}

static int accept_metric(struct run *run, unsigned rank, const struct report_line *line,
                         struct err *err)
{
    (void)err;
    for (size_t i = 0; i < line->value_count; i++) {
        struct rec_report report = {.kind = REPORT_METRIC,
                                    .rank = run_rank(run, rank),
                                    .step = line->step,
                                    .name = line->values[i].name,
                                    .value = line->values[i].value};
        reports_add(run, &report);
    }
    run->newest_step = max_u64(run->newest_step, line->step);
    for (size_t i = 0; i < line->value_count; i++)
        diverge_metric(run, rank, line->values[i].name, line->step, line->values[i].value);
    return 0;
}

static int accept_progress(struct run *run, unsigned index, const struct report_line *line,
                           struct err *err)
{
    struct rank *rank = &run->ranks[index];
    uint64_t now_ms = clock_steady_ms();
    (void)err;
    rank->progress_ms = now_ms;
    rank->progress_count++;
    run->newest_step = max_u64(run->newest_step, line->step);
    rank->step = line->step;
    rank->total = line->total;
    snprintf(rank->phase, sizeof rank->phase, "%s", line->name);
    rank->progress_waits = true; /* newest wins: the rest is not worth a row */
    if (now_ms - rank->spooled_ms >= RUN_PROGRESS_MS)
        progress_add(run, index, now_ms);
    return 0;
}

static int accept_checkpoint(struct run *run, unsigned rank, const struct report_line *line,
                             struct err *err)
{
    struct checkpoint_facts facts;
    if (checkpoint_check(line->path, line->step, run->plan.job_dir, &facts, err) < 0)
        return -1;
    struct rec_report report = {.kind = REPORT_CHECKPOINT,
                                .rank = run_rank(run, rank),
                                .step = line->step,
                                .total = facts.size_bytes,
                                .path = line->path,
                                .content = facts.content,
                                .meta = line->meta,
                                .span_ms = line->save_ms};
    reports_add(run, &report);
    reports_sync(run);
    return 0;
}

static int accept_artifact(struct run *run, unsigned rank, const struct report_line *line,
                           struct err *err)
{
    struct checkpoint_facts facts;
    if (artifact_check(line->path, run->plan.job_dir, &facts, err) < 0)
        return -1;
    struct rec_report report = {.kind = REPORT_ARTIFACT,
                                .rank = run_rank(run, rank),
                                .name = line->name,
                                .total = facts.size_bytes,
                                .path = line->path,
                                .content = facts.content,
                                .meta = line->meta};
    reports_add(run, &report);
    reports_sync(run);
    return 0;
}

static int accept_event(struct run *run, unsigned rank, const struct report_line *line,
                        struct err *err)
{
    (void)err;
    if (strcmp(line->name, "diverged") == 0 && !run->diverged) {
        run->diverged = true;
        run->diverged_text = mem_strdup(line->text);
        if (!run->diverged_step)
            run->diverged_step = line->step ? line->step : run->newest_step;
    }
    if (strcmp(line->name, "gave_up") == 0 && !run->gave_up)
        run->gave_up = mem_strdup(line->text);
    struct rec_report report = {.kind = REPORT_EVENT,
                                .rank = run_rank(run, rank),
                                .name = line->name,
                                .text = {line->text, strlen(line->text)},
                                .meta = line->meta};
    reports_add(run, &report);
    return 0;
}

typedef int accept_fn(struct run *run, unsigned rank, const struct report_line *line,
                      struct err *err);
static accept_fn *const accept_table[LINE_KIND_END] = {
    [LINE_HELLO] = accept_hello,       [LINE_METRIC] = accept_metric,
    [LINE_PROGRESS] = accept_progress, [LINE_CHECKPOINT] = accept_checkpoint,
    [LINE_ARTIFACT] = accept_artifact, [LINE_EVENT] = accept_event,
};

static int line_accept(struct run *run, struct line_client *client, const struct report_line *line,
                       struct err *err)
{
    uint64_t rank = line->has_rank ? line->rank - run->plan.first_rank : client->rank;
    if (rank >= run->plan.rank_count) /* also one below the first, which has wrapped */
        return err_set(err, ERR_INVALID, "rank: %" PRIu64 ", this attempt has ranks %u to %u here",
                       line->rank, run_rank(run, 0),
                       run_rank(run, (unsigned)run->plan.rank_count - 1));
    if (accept_table[line->kind](run, (unsigned)rank, line, err) < 0)
        return -1;
    client->rank = (unsigned)rank;
    run->ranks[rank].spoke_ms = clock_steady_ms();
    return 0;
}

static void answer(struct line_client *client, const struct err *refused)
{
    if (!refused) {
        line_client_answer(client, "{\"ok\": true}");
        return;
    }
    json_t *root = json_pack("{s:b, s:s%}", "ok", 0, "error", refused->text, strlen(refused->text));
    char *text = root ? json_dumps(root, 0) : mem_strdup("{\"ok\": false, \"error\": \"refused\"}");
    line_client_answer(client, text);
    mem_free(text);
    json_decref(root);
}

static int on_report_line(void *user, struct line_client *client, char *line, size_t length,
                          struct err *err)
{
    struct run *run = user;
    struct arena arena = {0};
    struct report_line parsed;
    int rc = report_line_parse(line, length, &arena, &parsed, err);
    if (rc == 0)
        rc = line_accept(run, client, &parsed, err);
    if (parsed.reply) {
        reports_flush(run); /* in the spool before it is said to be */
        answer(client, rc < 0 ? err : NULL);
    }
    arena_done(&arena);
    return rc;
}

static void on_report_refused(void *user, const struct line_client *client, const struct err *why)
{
    struct run *run = user;
    if (run->refused++ >= RUN_REFUSED_MAX)
        return;
    struct rec_report report = {.kind = REPORT_EVENT,
                                .rank = run_rank(run, client->rank),
                                .name = "report_refused",
                                .text = {why->text, strlen(why->text)}};
    reports_add(run, &report);
}

/* ---- the control socket ---------------------------------------------------------------------- */

static int control_stop(struct run *run, const json_t *root, struct err *err)
{
    const char *name = json_string_value(json_object_get(root, "cause"));
    const json_t *grace = json_object_get(root, "grace_ms");
    enum cause cause;
    if (cause_from_name(name ? name : "", &cause, err) < 0)
        return -1;
    if (!json_is_integer(grace) || json_integer_value(grace) < 0)
        return err_set(err, ERR_INVALID, "grace_ms: expected a whole number from 0");
    if (cause == CAUSE_PEER_FAILED)
        peers_end(run, "stopped on request: peer_failed");
    else
        run_stop(run, cause, (uint64_t)json_integer_value(grace), "stopped on request: %s", name);
    return 0;
}

static int control_do(struct run *run, const json_t *root, struct err *err)
{
    const char *type = json_string_value(json_object_get(root, "type"));
    if (type && strcmp(type, "stop") == 0)
        return control_stop(run, root, err);
    if (type && strcmp(type, "checkpoint_now") == 0) {
        if (line_server_broadcast(run->report, "{\"type\": \"checkpoint_now\"}") == 0)
            return err_set(err, ERR_NOT_FOUND, "no rank listens on the report socket");
        return 0;
    }
    if (type && strcmp(type, "exec") == 0) {
        const char *name = json_string_value(json_object_get(root, "name"));
        return exec_begin(run, name ? name : "", err);
    }
    return err_set(err, ERR_INVALID, "type: '%.40s', expected stop, checkpoint_now or exec",
                   type ? type : "");
}

static int on_control_line(void *user, struct line_client *client, char *line, size_t length,
                           struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(line, length, 0, &why);
    int rc = root ? control_do(user, root, err)
                  : err_set(err, ERR_INVALID, "not a JSON line: %s", why.text);
    json_decref(root);
    answer(client, rc < 0 ? err : NULL);
    return rc;
}

static void on_control_refused(void *user, const struct line_client *client, const struct err *why)
{
    const struct run *run = user;
    (void)client;
    log_warn("control of attempt %" PRIu64 ": %s", run->plan.attempt_id, why->text);
}

/* ---- both sockets ---------------------------------------------------------------------------- */

static int control_open(struct run *run, struct err *err)
{
    char *path = folder_socket_path(run->folder, FOLDER_CONTROL, &run->folder_fd, err);
    if (!path)
        return -1;
    struct line_server_config config = {
        path, 0600, CONTROL_CLIENTS_MAX, on_control_line, on_control_refused, run};
    int rc = line_server_open(run->poller, &config, &run->control, err);
    mem_free(path);
    return rc;
}

int reports_open(struct run *run, struct err *err)
{
    struct line_server_config config = {
        run->places.report, 0600, REPORT_CLIENTS(run->plan.rank_count), on_report_line,
        on_report_refused,  run};
    if (line_server_open(run->poller, &config, &run->report, err) < 0)
        return -1;
    return control_open(run, err);
}

void reports_tick(struct run *run, uint64_t now_ms)
{
    struct err err = {0};
    line_server_tick(run->report, now_ms);
    line_server_tick(run->control, now_ms);
    line_server_tick(run->launcher.agents, now_ms);
    for (unsigned i = 0; i < run->plan.rank_count; i++)
        if (run->ranks[i].progress_waits && now_ms - run->ranks[i].spooled_ms >= RUN_PROGRESS_MS)
            progress_add(run, i, now_ms);
    if (run->spool_broken && now_ms >= run->spool_retry_ms) {
        run->spool_broken = spool_sync(&run->spool, &err) < 0;
        if (run->spool_broken)
            run->spool_retry_ms = now_ms + SPOOL_RETRY_MS;
        else
            line_server_hold(run->report, false);
    }
}
