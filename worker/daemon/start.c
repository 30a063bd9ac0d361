/* start.c - from a START message to a running shepherd; see daemon.h. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/spec/spec.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/launch.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct starting {
    struct daemon *daemon;
    const struct msg_start *start;
    struct attempt *attempt;
    const struct msg_gang_met *met; /* of the parent node; NULL: none */
    uint64_t ranks;                 /* of this node */
    char *job_dir;
    enum cause failure;             /* of the step that failed */
    int listen_fd;                  /* for links of other nodes; -1: none */
};

/* ---- what must be there ---------------------------------------------------------------------- */

static int folder_give(const struct account *account, const char *path, struct err *err)
{
    if (account->uid == geteuid())
        return 0;
    return chown(path, account->uid, account->gid) < 0
               ? err_errno(err, "give '%s' to the account '%s'", path, account->name)
               : 0;
}

static int job_dir_make(struct starting *s, struct err *err)
{
    s->job_dir = mem_printf("%s/%" PRIu64, s->daemon->options->jobs_dir, s->start->job_id);
    if (mkdir(s->job_dir, 0755) < 0 && errno != EEXIST)
        return err_errno(err, "make job directory '%s'", s->job_dir);
    return folder_give(&s->attempt->account, s->job_dir, err);
}

/* A checkpoint that changed since it was registered must not be resumed from. */
static int resume_check(const struct msg_start *start, struct err *err)
{
    struct hash found;
    if (!start->resume_path[0])
        return 0;
    char *manifest = mem_printf("%s/manifest.json", start->resume_path);
    int rc = hash_file(manifest, &found, err);
    mem_free(manifest);
    if (rc < 0)
        return err_wrap(err, "checkpoint to resume from");
    if (!hash_is_zero(&start->resume_content) && !hash_equal(&found, &start->resume_content))
        return err_set(err, ERR_INVALID,
                       "checkpoint '%s' is not the one that was saved: its "
                       "manifest has another hash",
                       start->resume_path);
    return 0;
}

static int inputs_check(const struct msg_start *start, struct err *err)
{
    for (size_t i = 0; i < start->inputs_count; i++)
        if (!file_exists(start->inputs[i].path))
            return err_set(err, ERR_NOT_FOUND, "input %s: '%s' is not there on this worker",
                           start->inputs[i].name, start->inputs[i].path);
    return 0;
}

/* resources.gpu_model of the spec; it is there only when a model was asked for. */
static char *gpu_model_of(const struct msg_start *start)
{
    json_t *spec = json_loads(start->spec, 0, NULL);
    const char *model =
        json_string_value(json_object_get(json_object_get(spec, "resources"), "gpu_model"));
    char *copy = mem_strdup(model ? model : "");
    json_decref(spec);
    return copy;
}

static int slots_give(struct starting *s, struct err *err)
{
    const struct msg_start *start = s->start;
    if (s->ranks == 0 || s->ranks > PLAN_RANKS_MAX || start->cores > INVENTORY_CORES_MAX ||
        start->gpus > INVENTORY_GPUS_MAX)
        return err_set(err, ERR_INVALID,
                       "%" PRIu64 " ranks of %" PRIu64 " cores: a worker runs at most %u ranks",
                       s->ranks, start->cores, PLAN_RANKS_MAX);
    char *model = gpu_model_of(start);
    struct slots_want want = {s->ranks, start->cores, start->gpus, model};
    int rc = slots_take(&s->daemon->slots, start->attempt_id, &want, err);
    mem_free(model);
    return rc;
}

bool start_has_room(const struct daemon *daemon, const struct msg_start *start)
{
    struct err err;
    uint64_t ranks;
    if (gang_ranks(start, &ranks, &err) < 0 || ranks > PLAN_RANKS_MAX ||
        start->cores > INVENTORY_CORES_MAX || start->gpus > INVENTORY_GPUS_MAX)
        return true; /* the next step says what is wrong */
    char *model = gpu_model_of(start);
    struct slots_want want = {ranks, start->cores, start->gpus, model};
    bool room = slots_have(&daemon->slots, &want);
    mem_free(model);
    return room;
}

static int cgroup_give(struct starting *s, struct err *err)
{
    struct daemon *daemon = s->daemon;
    char tag[FOLDER_TAG_SIZE], name[64], *path;
    uint64_t memory_bytes = s->start->memory_bytes * s->ranks;
    /* Several clusters of one machine share the base. */
    folder_tag(daemon->attempts_dir, tag);
    snprintf(name, sizeof name, "%s-%" PRIu64, tag, s->start->attempt_id);
    if (daemon->cgroup_memory_base && memory_bytes) {
        if (cgroup_memory_make(daemon->cgroup_memory_base, name, memory_bytes,
                               s->attempt->account.uid, s->attempt->account.gid, &path, err) < 0)
            return -1;
        mem_free(s->attempt->memory_cgroup);
        s->attempt->memory_cgroup = path;
    }
    if (daemon->cgroup_base) {
        if (cgroup_make(daemon->cgroup_base, name, memory_bytes, s->attempt->account.uid,
                        s->attempt->account.gid, &path, err) < 0)
            return -1;
        mem_free(s->attempt->cgroup);
        s->attempt->cgroup = path;
    }
    isolation_apply(s->attempt, name);
    return 0;
}

/* ---- the plan -------------------------------------------------------------------------------- */

static json_t *cpus_json(const struct starting *s)
{
    json_t *all = json_array();
    for (size_t rank = 0; rank < s->ranks; rank++) {
        json_t *cpus = json_array();
        bool bound = true;
        for (size_t i = 0; i < s->start->cores; i++) {
            const struct inventory_core *core =
                slots_core(&s->daemon->slots, s->attempt->attempt_id,
                           rank * (size_t)s->start->cores + i);
            bound = bound && core && core->cpu_count > 0;
            for (size_t k = 0; core && k < core->cpu_count; k++)
                json_array_append_new(cpus, json_integer(core->cpus[k]));
        }
        if (!bound) /* part of its cores is not ours alone: let the kernel place it */
            json_array_clear(cpus);
        json_array_append_new(all, cpus);
    }
    return all;
}

/* Where each rank's memory should lie: the NUMA nodes of its cores, where there are several. */
static json_t *numa_json(const struct starting *s)
{
    json_t *all = json_array();
    for (size_t rank = 0; rank < s->ranks; rank++) {
        json_t *nodes = json_array();
        for (size_t i = 0; i < s->start->cores; i++) {
            const struct inventory_core *core = slots_core(
                &s->daemon->slots, s->attempt->attempt_id, rank * (size_t)s->start->cores + i);
            if (core && core->cpu_count > 0)
                json_array_append_new(nodes, json_integer(core->numa));
        }
        if (json_array_size(nodes) < s->start->cores || s->daemon->inventory.numa_count < 2)
            json_array_clear(nodes);
        json_array_append_new(all, nodes);
    }
    return all;
}

static json_t *gpus_json(const struct starting *s)
{
    json_t *all = json_array();
    for (size_t rank = 0; rank < s->ranks; rank++) {
        json_t *gpus = json_array();
        for (size_t i = 0; i < s->start->gpus; i++) {
            const struct inventory_gpu *gpu = slots_gpu(&s->daemon->slots, s->attempt->attempt_id,
                                                        rank * (size_t)s->start->gpus + i);
            json_array_append_new(gpus, json_string(gpu->visible));
        }
        json_array_append_new(all, gpus);
    }
    return all;
}

static int spec_complete(const struct msg_start *start, json_t **out, struct err *err)
{
    struct arena arena = {0};
    struct spec_place *places = arena_alloc(&arena, (start->inputs_count + 1) * sizeof *places);
    char hex[HASH_HEX_SIZE], *text = NULL;
    for (size_t i = 0; i < start->inputs_count; i++) {
        const struct rec_resolved_input *input = &start->inputs[i];
        hash_to_hex(&input->content, hex);
        places[i] =
            (struct spec_place){input->name, input->path, input->part[0] ? input->part : NULL,
                                hash_is_zero(&input->content) ? NULL : arena_strdup(&arena, hex)};
    }
    struct spec_run run = {.job_id = start->job_id,
                           .attempt_id = start->attempt_id,
                           .attempt = start->attempt_number,
                           .places = places,
                           .place_count = start->inputs_count};
    int rc = spec_json_complete(start->spec, &run, &text, err);
    if (rc == 0) {
        *out = json_loads(text, 0, NULL);
        CHECK(*out); /* written a moment ago */
    }
    mem_free(text);
    arena_done(&arena);
    return rc;
}

static json_t *secrets_json(const struct starting *s)
{
    json_t *names = json_array();
    const char *name;
    for (size_t i = 0; (name = secrets_name(s->daemon, s->start->attempt_id, i)); i++)
        json_array_append_new(names, json_string(name));
    return names;
}

/* Of the worker's limit and the job's share the lower one holds. */
static uint64_t log_limit(const struct starting *s)
{
    uint64_t share = s->start->log_bytes;
    return share ? min_u64(share, s->daemon->options->log_bytes_max)
                 : s->daemon->options->log_bytes_max;
}

static int plan_write(const struct starting *s, struct err *err)
{
    const struct msg_start *start = s->start;
    const struct options *options = s->daemon->options;
    json_t *spec = NULL;
    if (spec_complete(start, &spec, err) < 0)
        return -1;
    json_t *root =
        json_pack("{s:i, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, "
                  "s:s, s:s, s:s, "
                  "s:s, s:s, s:s, s:I, s:o}",
                  "format", 1, "attempt_id", (json_int_t)start->attempt_id, "attempt",
                  (json_int_t)start->attempt_number, "job_id", (json_int_t)start->job_id,
                  "job_name", start->job_name, "epoch", (json_int_t)s->attempt->epoch, "ranks",
                  (json_int_t)s->ranks, "cores", (json_int_t)start->cores, "memory_bytes",
                  (json_int_t)start->memory_bytes, "wall_time_ms", (json_int_t)start->wall_time_ms,
                  "stop_grace_ms", (json_int_t)start->stop_grace_ms, "stall_ms",
                  (json_int_t)start->stall_ms, "log_bytes_max", (json_int_t)log_limit(s),
                  "cpus", cpus_json(s), "gpus", gpus_json(s), "job_dir", s->job_dir, "resume",
                  start->resume_path, "engine", options->engine, "cgroup", s->attempt->cgroup,
                  "tmp", options->tmp, "account", start->account, "data_skip",
                  (json_int_t)start->data_skip, "spec", spec);
    if (!root)
        return err_set(err, ERR_PROTOCOL, "START holds a text that is not UTF-8");
    json_object_set_new(root, "numa", numa_json(s));
    json_object_set_new(root, "usage_ms", json_integer((json_int_t)options->usage_every_ms));
    if (s->daemon->inventory.gpu_count > 0 && s->daemon->inventory.gpus[0].is_amd)
        json_object_set_new(root, "gpu_kind", json_string("amd"));
    if (start->gpus > 0)
        json_object_set_new(root, "gpu_usage", json_string(s->daemon->gpu_usage));
    if (s->attempt->secrets.count > 0)
        json_object_set_new(root, "secrets", secrets_json(s));
    if (s->attempt->memory_cgroup[0])
        json_object_set_new(root, "memory_cgroup", json_string(s->attempt->memory_cgroup));
    if (s->attempt->device_cgroup[0])
        json_object_set_new(root, "device_cgroup", json_string(s->attempt->device_cgroup));
    if (s->attempt->gang)
        json_object_set_new(root, "gang",
                            gang_plan_json(s->daemon, start, s->met, s->attempt->gang));
    char *code = folder_file(s->attempt->folder, FOLDER_CODE);
    if (file_exists(code))
        json_object_set_new(root, "code", json_string(code));
    mem_free(code);
    char *text = json_dumps(root, JSON_COMPACT), *path;
    int rc = folder_write(s->attempt->folder, FOLDER_PLAN, text, err);
    if (rc == 0) {
        path = folder_file(s->attempt->folder, FOLDER_PLAN);
        rc = folder_give(&s->attempt->account, path, err);
        mem_free(path);
    }
    mem_free(text);
    json_decref(root);
    return rc;
}

/* ---- the shepherd ---------------------------------------------------------------------------- */

int attempt_launch(struct attempt *attempt, struct err *err)
{
    struct daemon *daemon = attempt->daemon;
    struct launch_shepherd launch = {.program = daemon->options->shepherd,
                                     .user = attempt->account.name,
                                     .folder = attempt->folder,
                                     .listen_fd = attempt->listen_fd,
                                     .cgroup = attempt->cgroup,
                                     .device_cgroup = attempt->device_cgroup,
                                     .private_shm = daemon->private_shm,
                                     .secret_fds = attempt->secrets.fds,
                                     .secret_count = attempt->secrets.count};
    struct launched launched;
    if (attempt->is_single && attempt->listen_fd < 0 && attempt->secrets.count == 0 &&
        !attempt->device_cgroup[0])
        launch.nursery = &daemon->nursery;
    int rc = launch_shepherd(&launch, &launched, err);
    if (attempt->listen_fd >= 0)
        close(attempt->listen_fd); /* the shepherd has its own */
    attempt->listen_fd = -1;
    secret_fds_close(&attempt->secrets); /* the same */
    if (rc == 0 && launched.pid) /* else the tick looks for it */
        attempt_watch(attempt, launched.pid, launched.pidfd, launched.is_child);
    return rc;
}

static int launch_step(struct starting *s, struct err *err)
{
    s->attempt->listen_fd = s->listen_fd;
    s->attempt->is_single = s->start->ranks == 1;
    s->listen_fd = -1;
    return care_before(s->attempt, err);
}

/* ---- all of it ------------------------------------------------------------------------------- */

typedef int step_fn(struct starting *s, struct err *err);

static int check_step(struct starting *s, struct err *err)
{
    if (copies_take(s->daemon, s->start->attempt_id, s->attempt->folder, err) < 0)
        return -1;
    if (resume_check(s->start, err) == 0)
        return inputs_check(s->start, err);
    if (err->kind == ERR_INVALID) /* written over: the coordinator takes the one before */
        s->failure = CAUSE_STALE_CHECKPOINT;
    return -1;
}

static int gang_step(struct starting *s, struct err *err)
{
    if (gang_ranks(s->start, &s->ranks, err) < 0)
        return -1;
    return gang_prepare(s->daemon, s->start, s->met, &s->attempt->gang, &s->listen_fd, err);
}

static int code_step(struct starting *s, struct err *err)
{
    return code_take(s->daemon, s->start->attempt_id, s->attempt->folder, err);
}

static int secrets_step(struct starting *s, struct err *err)
{
    return secrets_take(s->daemon, s->start->attempt_id, &s->attempt->account, &s->attempt->secrets,
                        err);
}

static int plan_step(struct starting *s, struct err *err)
{
    return plan_write(s, err);
}

/* What a job cannot cause is the node's own fault. */
static const struct {
    step_fn *run;
    bool node_fault;
} steps[] = {{check_step, false},  {gang_step, false}, {slots_give, false}, {job_dir_make, true},
             {cgroup_give, true}, {code_step, true},  {secrets_step, true}, {plan_step, true},
             {launch_step, true}};

/* A folder without an attempt is what a removal could not finish. */
static int folder_make(const struct daemon *daemon, const struct account *account,
                       const char *folder, struct err *err)
{
    if (daemon->attempt_count >= DAEMON_ATTEMPTS_MAX)
        return err_set(err, ERR_LIMIT, "%zu attempts wait on this worker for the coordinator",
                       daemon->attempt_count);
    if (mkdir(folder, 0700) < 0 &&
        (errno != EEXIST || file_remove_tree(folder, err) < 0 || mkdir(folder, 0700) < 0))
        return err_errno(err, "make '%s'", folder);
    return folder_give(account, folder, err);
}

/* Without a folder there is no spool: the word is sent once, straight away. If it is lost, the
 * coordinator asks again when we next join. */
static void refuse_start(struct daemon *daemon, const struct msg_start *start, enum cause cause,
                         const char *why)
{
    uint64_t attempt_id = start->attempt_id;
    struct message message = {.tag = MSG_REPORT};
    struct err err = {0};
    struct rec_report report = {.seq = 1,
                                .kind = REPORT_FINISHED,
                                .time_us = clock_wall_us(),
                                .cause = cause_name(cause),
                                .name = cause == CAUSE_LAUNCH_FAILED ? "node" : "",
                                .text = {why, strlen(why)},
                                .meta = "{}"};
    log_error("attempt %" PRIu64 ": %s", attempt_id, why);
    message.u.report =
        (struct msg_report){.attempt_id = attempt_id,
                            .node = start->nodes_count > 1 ? start->node : 0,
                            .reports = &report,
                            .reports_count = 1};
    if (peer_send(daemon->peer, &message, NULL, &err) < 0)
        log_error("attempt %" PRIu64 ": %s", attempt_id, err.text);
}

static void start_in(struct daemon *daemon, const struct msg_start *start,
                     const struct account *account, const char *folder, uint64_t epoch,
                     const struct msg_gang_met *met)
{
    struct err err = {0};
    struct starting s = {.daemon = daemon,
                         .start = start,
                         .attempt = attempt_add(daemon, start->attempt_id, folder),
                         .met = met,
                         .failure = CAUSE_LAUNCH_FAILED,
                         .listen_fd = -1};
    s.attempt->account = *account;
    s.attempt->job_id = start->job_id;
    s.attempt->epoch = epoch;
    s.attempt->node = start->nodes_count > 1 ? start->node : 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < ARRAY_COUNT(steps); i++) {
        rc = steps[i].run(&s, &err);
        s.attempt->node_fault = rc < 0 && steps[i].node_fault;
    }
    code_forget(daemon, start->attempt_id);
    copies_forget(daemon, start->attempt_id);
    secrets_forget(daemon, start->attempt_id);
    mem_free(s.job_dir);
    if (s.listen_fd >= 0)
        close(s.listen_fd);
    if (rc < 0)
        attempt_finish(s.attempt, s.failure, err.text);
    else
        log_info("attempt %" PRIu64 " of job %" PRIu64 " '%s' started", start->attempt_id,
                 start->job_id, start->job_name);
}

/* Through the codec, which knows every field. */
int start_copy(const struct msg_start *start, struct arena *arena, struct msg_start *out,
                      struct err *err)
{
    struct envelope envelope = {.session = 1, .seq = 1};
    struct message message = {.tag = MSG_START, .u.start = *start}, copy;
    struct buf frame = {0};
    int rc = wire_encode(&envelope, &message, &frame, err);
    if (rc == 0)
        rc = wire_decode(frame.bytes, frame.length, arena, &envelope, &copy, err);
    if (rc == 0)
        *out = copy.u.start;
    buf_done(&frame);
    return rc;
}

void start_met(struct daemon *daemon, const struct msg_start *start, uint64_t epoch,
               const struct msg_gang_met *met)
{
    struct err err = {0};
    struct account account;
    if (account_find(daemon->options, start->account, &account, &err) < 0) {
        start_failed(daemon, start, epoch, CAUSE_LAUNCH_FAILED, err.text);
        return;
    }
    char *folder = mem_printf("%s/%" PRIu64, daemon->attempts_dir, start->attempt_id);
    if (folder_make(daemon, &account, folder, &err) < 0)
        refuse_start(daemon, start, CAUSE_LAUNCH_FAILED, err.text);
    else
        start_in(daemon, start, &account, folder, epoch, met);
    mem_free(folder);
}

/* Of an attempt that never got as far as a folder. */
void start_failed(struct daemon *daemon, const struct msg_start *start, uint64_t epoch,
                  enum cause cause, const char *text)
{
    struct err err = {0};
    char *folder = mem_printf("%s/%" PRIu64, daemon->attempts_dir, start->attempt_id);
    code_forget(daemon, start->attempt_id);
    copies_forget(daemon, start->attempt_id);
    secrets_forget(daemon, start->attempt_id);
    const struct account own = {.uid = geteuid(), .gid = getegid()};
    if (folder_make(daemon, &own, folder, &err) < 0) {
        refuse_start(daemon, start, cause, text);
    } else {
        struct attempt *attempt = attempt_add(daemon, start->attempt_id, folder);
        attempt->job_id = start->job_id;
        attempt->epoch = epoch;
        attempt->node = start->node;
        attempt_finish(attempt, cause, text);
    }
    mem_free(folder);
}

static void start_wait(struct daemon *daemon, const struct msg_start *start, uint64_t epoch,
                       const char *what)
{
    if (!daemon->retrying)
        log_info("attempt %" PRIu64 " waits for %s", start->attempt_id, what);
    pending_add(daemon, start, epoch);
}

/* Whatever it takes to have code, checkpoints and secrets here comes before the first step that is
 * seen outside. */
static void start_with_all(struct daemon *daemon, const struct msg_start *start, uint64_t epoch)
{
    struct err err = {0};
    struct arena arena = {0};
    struct msg_start here;
    enum code_state code = code_prepare(daemon, start, &err);
    enum code_state copies = code == CODE_FAILED ? CODE_NONE : copies_prepare(daemon, start, &err);
    bool failed = code == CODE_FAILED || copies == CODE_FAILED;
    enum code_state secrets = failed ? CODE_NONE : secrets_prepare(daemon, start, &err);
    if (failed || secrets == CODE_FAILED)
        start_failed(daemon, start, epoch,
                     err.kind == ERR_STALE ? CAUSE_STALE_CHECKPOINT : CAUSE_LAUNCH_FAILED,
                     err.text);
    else if (code == CODE_WAIT || copies == CODE_WAIT || secrets == CODE_WAIT)
        start_wait(daemon, start, epoch,
                   code == CODE_WAIT     ? "its code"
                   : copies == CODE_WAIT ? "what another worker has"
                                         : "its secrets");
    else if (copies_patch(daemon, start, &arena, &here, &err) < 0)
        start_failed(daemon, start, epoch, CAUSE_LAUNCH_FAILED, err.text);
    else if (gang_has_parent(&here))
        gang_meet(daemon, &here, epoch);
    else
        start_met(daemon, &here, epoch, NULL);
    arena_done(&arena);
}

void start_attempt(struct daemon *daemon, const struct msg_start *start, uint64_t epoch)
{
    struct attempt *known = attempt_find(daemon, start->attempt_id);
    if (known) /* a repeat: its stream is the answer */
        pump_attempt(known);
    else if (gang_is_meeting(daemon, start->attempt_id))
        gang_meet_again(daemon, start);
    else if (attempt_remembered(daemon, start->attempt_id))
        return;
    else if (pending_has(daemon, start->attempt_id))
        copies_again(daemon, start);
    else if (pending_must_wait(daemon, start))
        start_wait(daemon, start, epoch, "the cores of attempts that are ending");
    else
        start_with_all(daemon, start, epoch);
}
