/* daemon.c - joining, messages, leaving; see daemon.h. */
#include "worker/daemon/daemon.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/net/notify.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/shm.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/sweep.h"
#include "worker/daemon/hook.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

static void send_or_log(struct daemon *daemon, const struct message *message)
{
    struct err err = {0};
    if (peer_send(daemon->peer, message, NULL, &err) < 0)
        log_warn("%s is not sent: %s", msg_name(message->tag), err.text);
}

/* ---- the epoch ------------------------------------------------------------------------------- */

static void epoch_load(struct daemon *daemon)
{
    char *path = folder_file(daemon->options->state, "epoch"), *text = NULL;
    size_t length;
    struct err err = {0};
    if (file_read(path, 64, &text, &length, &err) == 0 &&
        sscanf(text, "%" SCNu64, &daemon->epoch) != 1)
        daemon->epoch = 0;
    mem_free(text);
    mem_free(path);
}

/* Returns false for a message of an older leader. A newer one is remembered on disk before it is
 * obeyed: a restart must not fall back. */
static bool epoch_admit(struct daemon *daemon, const struct envelope *envelope, enum msg_tag tag)
{
    char text[32];
    struct err err = {0};
    if (envelope->epoch < daemon->epoch) {
        log_warn("%s of epoch %" PRIu64 " is refused, this worker has seen %" PRIu64
                 ": it comes from a leader that was replaced, or the database was restored from "
                 "an older copy; then raise athanor.coordinator_lease.epoch above %" PRIu64
                 " and restart the coordinators",
                 msg_name(tag), envelope->epoch, daemon->epoch, daemon->epoch);
        return false;
    }
    if (envelope->epoch == daemon->epoch)
        return true;
    daemon->epoch = envelope->epoch;
    peer_set_epoch(daemon->peer, daemon->epoch);
    char *path = folder_file(daemon->options->state, "epoch");
    int length = snprintf(text, sizeof text, "%" PRIu64 "\n", daemon->epoch);
    if (file_replace(path, text, (size_t)length, 0600, &err) < 0)
        log_error("%s", err.text);
    mem_free(path);
    return true;
}

/* ---- joining --------------------------------------------------------------------------------- */

static void join_devices(struct daemon *daemon, struct arena *arena, struct msg_worker_join *join)
{
    const struct inventory *inventory = &daemon->inventory;
    join->devices = arena_alloc(arena, (inventory->gpu_count + 1) * sizeof *join->devices);
    for (size_t i = 0; i < inventory->gpu_count; i++)
        if (!slots_gpu_is_withheld(&daemon->slots, &inventory->gpus[i]))
            join->devices[join->devices_count++] = (struct rec_device){.device_index = i,
                                               .kind = "gpu",
                                               .model = inventory->gpus[i].model,
                                               .uuid = inventory->gpus[i].uuid,
                                               .memory_bytes = inventory->gpus[i].memory_bytes};
}

static void join_labels(struct daemon *daemon, struct arena *arena, const char *host,
                        struct msg_worker_join *join)
{
    const struct options *options = daemon->options;
    join->labels = arena_alloc(arena, (options->label_count + 2) * sizeof *join->labels);
    join->labels[join->labels_count++] = (struct rec_name_value){"host", host};
    join->labels[join->labels_count++] =
        (struct rec_name_value){"machine", daemon->inventory.machine};
    for (size_t i = 0; i < options->label_count; i++)
        join->labels[join->labels_count++] =
            (struct rec_name_value){options->labels[i].name, options->labels[i].value};
}

static void join_held(struct daemon *daemon, struct arena *arena, struct msg_worker_join *join)
{
    join->held = arena_alloc(arena, (daemon->attempt_count + 1) * sizeof *join->held);
    for (struct attempt *attempt = daemon->attempts; attempt; attempt = attempt->next) {
        if (attempt->state == ATTEMPT_FENCED)
            continue;
        join->held[join->held_count++] =
            (struct rec_held_attempt){.attempt_id = attempt->attempt_id,
                                      .epoch = attempt->epoch,
                                      .running = attempt->state == ATTEMPT_RUNNING ||
                                                 attempt->state == ATTEMPT_PREPARING,
                                      .last_seq =
                                          max_u64(attempt->acked, attempt->reader.next_seq - 1)};
    }
}

static void join_send(void *user)
{
    struct daemon *daemon = user;
    struct arena arena = {0};
    char host[HOST_NAME_MAX + 1] = "";
    struct message message = {.tag = MSG_WORKER_JOIN};
    struct msg_worker_join *join = &message.u.worker_join;
    gethostname(host, sizeof host - 1);
    *join = (struct msg_worker_join){.name = daemon->options->name[0] ? daemon->options->name
                                                                      : daemon->principal,
                                     .incarnation = daemon->incarnation,
                                     .host = host,
                                     .cores = daemon->inventory.core_count,
                                     .memory_bytes = daemon->options->memory_bytes
                                                         ? daemon->options->memory_bytes
                                                         : daemon->inventory.memory_bytes / 10 * 9,
                                     .catalogue = {daemon->catalogue, strlen(daemon->catalogue)},
                                     .engine = daemon->engine_hash,
                                     .topology = daemon->inventory.topology,
                                     .endpoint = gang_endpoint(daemon),
                                     .public_key = gang_public_key(daemon),
                                     .ends_in_ms = until_ends_in_ms(daemon),
                                     .open_ended = daemon->options->open_ended};
    join_devices(daemon, &arena, join);
    join_labels(daemon, &arena, host, join);
    join_held(daemon, &arena, join);
    join->copies = copies_held(daemon, &arena, &join->copies_count);
    send_or_log(daemon, &message);
    arena_done(&arena);
    loop_timer_start(daemon->loop, &daemon->join_timer, DAEMON_JOIN_AGAIN_MS);
}

void daemon_offer_anew(struct daemon *daemon)
{
    if (!daemon->worker_id)
        return; /* the next join says it */
    daemon->worker_id = 0;
    loop_timer_start(daemon->loop, &daemon->join_timer, 0);
}

static void heartbeat_send(void *user)
{
    struct daemon *daemon = user;
    struct message message = {.tag = MSG_HEARTBEAT};
    uint64_t bytes = 0;
    if (!daemon->worker_id)
        return;
    for (struct attempt *attempt = daemon->attempts; attempt; attempt = attempt->next)
        bytes += spool_bytes(attempt->folder);
    message.u.heartbeat = (struct msg_heartbeat){.worker_id = daemon->worker_id,
                                                 .incarnation = daemon->incarnation,
                                                 .spool_bytes = bytes};
    send_or_log(daemon, &message);
    loop_timer_start(daemon->loop, &daemon->heartbeat_timer, daemon->heartbeat_ms);
}

static void on_up(void *user, const struct msg_welcome *welcome)
{
    struct daemon *daemon = user;
    log_info("connected as '%s'", welcome->principal);
    snprintf(daemon->principal, sizeof daemon->principal, "%s", welcome->principal);
    join_send(daemon);
}

static void on_down(void *user, const struct err *why)
{
    struct daemon *daemon = user;
    uint64_t now_ms = clock_steady_ms();
    if (daemon->worker_id) {
        log_warn("coordinator lost, jobs run on: %s", why->text);
    } else if (!daemon->complained_ms || now_ms - daemon->complained_ms >= DAEMON_COMPLAIN_MS) {
        daemon->complained_ms = now_ms; /* attempts follow each other for as long as it takes */
        log_warn("no coordinator: %s", why->text);
    }
    daemon->worker_id = 0;
    execs_close(daemon, "the worker has lost its coordinator");
    loop_timer_stop(&daemon->join_timer);
    loop_timer_stop(&daemon->heartbeat_timer);
}

static void pump_all(struct daemon *daemon)
{
    for (struct attempt *attempt = daemon->attempts, *next; attempt; attempt = next) {
        next = attempt->next;
        pump_attempt(attempt);
    }
}

static void on_welcome(struct daemon *daemon, const struct msg_worker_welcome *welcome)
{
    if (daemon->worker_id == welcome->worker_id)
        return; /* the answer to a repeated join */
    daemon->worker_id = welcome->worker_id;
    daemon->heartbeat_ms = welcome->heartbeat_ms ? welcome->heartbeat_ms : 1000;
    daemon->lease_ms = welcome->lease_ms;
    node_report_acked(daemon, welcome->node_stamp);
    loop_timer_stop(&daemon->join_timer);
    log_info("joined as worker %" PRIu64 " in epoch %" PRIu64 ", attempts held: %zu",
             welcome->worker_id, daemon->epoch, daemon->attempt_count);
    notify_status("joined as worker %" PRIu64, welcome->worker_id);
    heartbeat_send(daemon);
    code_on_up(daemon);
    secrets_on_up(daemon);
    for (struct attempt *attempt = daemon->attempts; attempt; attempt = attempt->next)
        pump_rewind(attempt);
    pump_all(daemon);
}

/* ---- messages -------------------------------------------------------------------------------- */

static void on_stop(struct daemon *daemon, const struct msg_stop *stop)
{
    struct attempt *attempt = attempt_find(daemon, stop->attempt_id);
    enum cause cause;
    struct err err = {0};
    if (cause_from_name(stop->cause, &cause, &err) < 0) {
        log_error("stop of attempt %" PRIu64 ": %s", stop->attempt_id, err.text);
        return;
    }
    gang_meet_stop(daemon, stop->attempt_id, cause);
    pending_stop(daemon, stop->attempt_id, cause);
    if (attempt && attempt->state == ATTEMPT_PREPARING)
        care_stop(attempt, cause);
    else if (attempt && attempt->state == ATTEMPT_RUNNING)
        control_stop(attempt, cause, stop->grace_ms);
    /* otherwise its FINISHED is on its way, or was acknowledged */
}

/* A drop that comes late must not take what a later attempt has saved at the same path. */
static void on_checkpoint_drop(struct daemon *daemon, const struct msg_checkpoint_drop *drop)
{
    char *manifest = folder_file(drop->path, "manifest.json");
    struct err err = {0};
    if (file_exists(manifest) && removal_do(daemon, drop->path, &drop->content, false, &err) < 0)
        log_warn("checkpoint %" PRIu64 ": %s", drop->checkpoint_id, err.text);
    mem_free(manifest);
}

static void on_refused(struct daemon *daemon, const struct msg_refused *refused)
{
    log_warn("the coordinator refuses: %s", refused->text);
    for (size_t i = 0; i < refused->refusals_count; i++)
        log_warn("  %s", refused->refusals[i].text);
    if (strcmp(refused->kind, err_kind_name(ERR_STALE)) == 0 && daemon->worker_id) {
        daemon->worker_id = 0; /* it no longer knows us: introduce ourselves again */
        loop_timer_start(daemon->loop, &daemon->join_timer, 0);
    }
}

static void on_message(void *user, const struct envelope *envelope, const struct message *message)
{
    struct daemon *daemon = user;
    struct attempt *attempt;
    if (!epoch_admit(daemon, envelope, message->tag))
        return;
    switch (message->tag) {
    case MSG_WORKER_WELCOME:
        on_welcome(daemon, &message->u.worker_welcome);
        break;
    case MSG_START:
        if (!daemon->leaving)
            start_attempt(daemon, &message->u.start, envelope->epoch);
        break;
    case MSG_STOP:
        on_stop(daemon, &message->u.stop);
        break;
    case MSG_CHECKPOINT_NOW:
        if ((attempt = attempt_find(daemon, message->u.checkpoint_now.attempt_id)))
            control_checkpoint(attempt);
        break;
    case MSG_NODE_ACK:
        node_report_acked(daemon, message->u.node_ack.stamp);
        break;
    case MSG_REPORT_ACK:
        if ((attempt = attempt_find(daemon, message->u.report_ack.attempt_id)))
            pump_ack(attempt, message->u.report_ack.seq);
        break;
    case MSG_ATTEMPT_FENCE:
        gang_meet_fence(daemon, message->u.attempt_fence.attempt_id);
        pending_forget(daemon, message->u.attempt_fence.attempt_id);
        if ((attempt = attempt_find(daemon, message->u.attempt_fence.attempt_id)))
            attempt_fence(attempt);
        break;
    case MSG_CHECKPOINT_DROP:
        on_checkpoint_drop(daemon, &message->u.checkpoint_drop);
        break;
    case MSG_REMOVE:
        removal_on_remove(daemon, &message->u.remove);
        break;
    case MSG_COPY_PERMIT:
        copies_permit(daemon, &message->u.copy_permit);
        break;
    case MSG_CODE_CHUNK:
        code_on_chunk(daemon, &message->u.code_chunk);
        break;
    case MSG_SECRETS:
        secrets_on_arrival(daemon, &message->u.secrets);
        break;
    case MSG_REFUSED:
        if (!code_on_refused(daemon, &message->u.refused) &&
            !secrets_on_refused(daemon, &message->u.refused))
            on_refused(daemon, &message->u.refused);
        break;
    case MSG_EXEC_START:
        exec_start(daemon, &message->u.exec_start);
        break;
    case MSG_EXEC_DATA:
    case MSG_EXEC_CREDIT:
    case MSG_EXEC_RESIZE:
    case MSG_EXEC_ENDED:
        exec_message(daemon, message);
        break;
    case MSG_HEARTBEAT_ACK:
    case MSG_DONE:
        break; /* nothing to do */
    case MSG_EXEC:
    case MSG_EXEC_OPENED:
    case MSG_HELLO:
    case MSG_WELCOME:
    case MSG_SUBMIT:
    case MSG_SUBMITTED:
    case MSG_CHECKED:
    case MSG_CONTROL:
    case MSG_QUERY:
    case MSG_TABLE:
    case MSG_KEY_CHANGE:
    case MSG_CONFIGURE:
    case MSG_WORKER_JOIN:
    case MSG_HEARTBEAT:
    case MSG_WORKER_LEAVE:
    case MSG_REPORT:
    case MSG_GANG_MEET:
    case MSG_GANG_MET:
    case MSG_GANG_BEAT:
    case MSG_GANG_FENCE:
    case MSG_GANG_FENCED:
    case MSG_GANG_ASK:
    case MSG_GANG_TELL:
    case MSG_GANG_END:
    case MSG_GANG_EXEC:
    case MSG_ENROL:
    case MSG_ENROLLED:
    case MSG_NODE_REPORT:
    case MSG_CODE_OFFER:
    case MSG_CODE_STATE:
    case MSG_CODE_PUT:
    case MSG_CODE_GET:
    case MSG_COPY_GET:
    case MSG_COPY_DATA:
    case MSG_COPIES:
    case MSG_COLLECT:
    case MSG_SECRET_CHANGE:
    case MSG_SECRET_GET:
    case MSG_REMOVED:
    case MSG_END:
        log_warn("unexpected message %s", msg_name(message->tag));
        break;
    }
}

/* ---- leaving --------------------------------------------------------------------------------- */

static void leave_send(struct daemon *daemon)
{
    struct message message = {.tag = MSG_WORKER_LEAVE};
    if (!daemon->worker_id)
        return;
    message.u.worker_leave = (struct msg_worker_leave){.worker_id = daemon->worker_id,
                                                       .incarnation = daemon->incarnation};
    send_or_log(daemon, &message);
}

void daemon_leave(struct daemon *daemon)
{
    if (daemon->attempt_count == 0)
        leave_send(daemon);
    loop_stop(daemon->loop);
}

static void leave_now(void *user)
{
    daemon_leave(user);
}

void daemon_attempt_gone(struct daemon *daemon)
{
    pending_wake(daemon);
    copies_trim(daemon);
    if (daemon->leaving && daemon->attempt_count == 0)
        leave_now(daemon);
}

/* Without --stop-jobs only this process ends: shepherds run on and are found again. */
static void leave_begin(struct daemon *daemon, bool stop_jobs)
{
    notify_stopping();
    daemon->leaving = true;
    if (!stop_jobs || daemon->attempt_count == 0) {
        leave_now(daemon);
        return;
    }
    log_info("attempts to stop: %zu", daemon->attempt_count);
    for (struct attempt *attempt = daemon->attempts, *next; attempt; attempt = next) {
        next = attempt->next;
        if (attempt->state == ATTEMPT_PREPARING)
            care_stop(attempt, CAUSE_WORKER_LOST);
        else if (attempt->state == ATTEMPT_RUNNING)
            control_stop(attempt, CAUSE_WORKER_LOST, DAEMON_LEAVE_MS / 2);
    }
    loop_timer_start(daemon->loop, &daemon->leave_timer, DAEMON_LEAVE_MS);
}

static void on_signal(void *user, int number)
{
    struct daemon *daemon = user;
    if (daemon->leaving) { /* asked again while stopping jobs: do not wait any longer */
        if (!daemon->options->until_us) /* Slurm sends it to each process, and so does a script */
            loop_stop(daemon->loop);
        return;
    }
    if (number == SIGINT && !daemon->interrupted && daemon->attempt_count > 0) {
        daemon->interrupted = true;
        log_info("attempts that run on: %zu; interrupt again within 3 s to stop them",
                 daemon->attempt_count);
        loop_timer_start(daemon->loop, &daemon->leave_timer, 3000);
        return;
    }
    if (!until_leave(daemon))
        leave_begin(daemon, daemon->options->stop_jobs || daemon->interrupted);
}

/* ---- setting up ------------------------------------------------------------------------------ */

static void on_tick(void *user)
{
    struct daemon *daemon = user;
    attempts_tick(daemon);
    copies_tell(daemon);
    code_tick(daemon);
    secrets_tick(daemon);
    pending_retry(daemon);
    node_report_tick(daemon);
    care_tick(daemon);
    disk_tick(daemon);
    gpu_sampler_tick(daemon);
    until_tick(daemon);
    loop_timer_start(daemon->loop, &daemon->tick_timer, DAEMON_TICK_MS);
}

static void on_watchdog(void *user)
{
    struct daemon *daemon = user;
    notify_alive();
    loop_timer_start(daemon->loop, &daemon->watchdog_timer, notify_watchdog_ms());
}

/* Other files of the folder come and go a dozen times in a short attempt. */
static void on_folder_event(struct daemon *daemon, const struct inotify_event *event)
{
    struct attempt *attempt = daemon->attempts;
    if (!event->len || !spool_is_segment(event->name))
        return;
    while (attempt && attempt->spool_watch != event->wd)
        attempt = attempt->next;
    if (attempt)
        pump_attempt(attempt);
}

static void on_inotify(void *user, unsigned events)
{
    struct daemon *daemon = user;
    _Alignas(struct inotify_event) char bytes[16384];
    ssize_t got;
    (void)events;
    while ((got = read(daemon->inotify_fd, bytes, sizeof bytes)) > 0) {
        for (char *at = bytes; at < bytes + got;) {
            const struct inotify_event *event = (const struct inotify_event *)at;
            on_folder_event(daemon, event);
            at += sizeof *event + event->len;
        }
    }
}

static int folders_make(struct daemon *daemon, struct err *err)
{
    const struct options *options = daemon->options;
    daemon->attempts_dir = folder_file(options->state, "attempts");
    /* Jobs of another account must be able to pass through, not to look around. */
    unsigned mode = options->job_user[0] || options->job_accounts[0] ? 0711 : 0700;
    if (file_make_folders(options->state, mode, err) < 0 ||
        file_make_folders(daemon->attempts_dir, mode, err) < 0 ||
        file_make_folders(options->jobs_dir, 0755, err) < 0)
        return -1;
    if (chmod(options->state, mode) < 0 || chmod(daemon->attempts_dir, mode) < 0)
        return err_errno(err, "set the mode of '%s'",
                         options->state); /* made under other options */
    char *real = realpath(daemon->attempts_dir, NULL);
    if (!real)
        return err_errno(err, "'%s'", daemon->attempts_dir);
    mem_free(daemon->attempts_dir);
    daemon->attempts_dir = mem_strdup(real);
    daemon->gpu_usage = mem_printf("%s/../gpu-usage", daemon->attempts_dir);
    free(real);
    return 0;
}

/* Two daemons on one state directory would start everything twice. */
static int state_lock(struct daemon *daemon, struct err *err)
{
    int fd;
    if (folder_lock(daemon->options->state, &fd, err) == 0)
        return 0; /* held until the process ends */
    return err_wrap(err, "another athanor-worker uses this state directory");
}

static int inventory_prepare(struct daemon *daemon, struct err *err)
{
    const struct options *options = daemon->options;
    struct err why = {0};
    char offered[PARSE_TEXT_SIZE], there[PARSE_TEXT_SIZE];
    size_t unbound;
    if (inventory_take(options->gpus, &daemon->inventory, err) < 0 ||
        inventory_choose(&daemon->inventory, options->cores, claims_take, &daemon->claims, &unbound,
                         err) < 0)
        return -1;
    if (unbound)
        log_warn("%zu of %zu cores are offered without binding: this machine has no more, or "
                 "another worker binds to them",
                 unbound, daemon->inventory.core_count);
    if (options->memory_bytes > daemon->inventory.memory_bytes)
        log_warn("--memory offers %s, and this machine has %s: jobs may be killed for lack of it",
                 format_size_short(options->memory_bytes, offered),
                 format_size_short(daemon->inventory.memory_bytes, there));
    if (daemon->inventory.gpu_note[0])
        log_info("no GPUs: %s", daemon->inventory.gpu_note);
    if (inventory_catalogue(options->engine, &daemon->catalogue, &why) < 0) {
        log_warn("only jobs of kind command can run here: %s", why.text);
        daemon->catalogue = mem_strdup("{\"format\": 1, \"engine\": \"\", \"recipes\": []}");
    }
    struct hash engine;
    if (hash_file(options->engine, &engine, &why) == 0)
        hash_to_hex(&engine, daemon->engine_hash);
    slots_init(&daemon->slots, &daemon->inventory);
    return 0;
}

static int server_key_find(const char *given, char out[KEY_TEXT_SIZE], struct err *err)
{
    return public_key_given(given, out, err) < 0 ? err_wrap(err, "--server-key") : 0;
}

static int peer_prepare(struct daemon *daemon, struct err *err)
{
    const struct options *options = daemon->options;
    struct keypair keys;
    char server_key[KEY_TEXT_SIZE];
    if (keypair_read(options->keys, &keys, err) < 0)
        return err_wrap(err, "--keys");
    if (server_key_find(options->server_key, server_key, err) < 0)
        return -1;
    struct peer_config config = {.endpoints = options->endpoints,
                                 .endpoint_count = options->endpoint_count,
                                 .server_key = server_key,
                                 .keys = &keys,
                                 .program = "athanor-worker",
                                 .version = ATHANOR_VERSION,
                                 .user = daemon,
                                 .on_up = on_up,
                                 .on_down = on_down,
                                 .on_message = on_message};
    int rc = gang_open(daemon, &keys, err);
    if (rc == 0)
        rc = peer_open(daemon->loop, &config, &daemon->peer, err);
    keypair_wipe(&keys);
    if (rc == 0)
        peer_set_epoch(daemon->peer, daemon->epoch);
    return rc;
}

static int loop_prepare(struct daemon *daemon, struct err *err)
{
    struct {
        struct loop_timer *timer;
        loop_timer_fn *fire;
    } timers[] = {{&daemon->heartbeat_timer, heartbeat_send},
                  {&daemon->join_timer, join_send},
                  {&daemon->tick_timer, on_tick},
                  {&daemon->watchdog_timer, on_watchdog},
                  {&daemon->leave_timer, leave_now}};
    daemon->loop = loop_new();
    for (size_t i = 0; i < ARRAY_COUNT(timers); i++) {
        timers[i].timer->fire = timers[i].fire;
        timers[i].timer->user = daemon;
    }
    if (loop_add_signal(daemon->loop, SIGTERM, on_signal, daemon, err) < 0 ||
        loop_add_signal(daemon->loop, SIGINT, on_signal, daemon, err) < 0)
        return -1;
    daemon->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (daemon->inotify_fd < 0)
        return err_errno(err, "inotify");
    loop_add_fd(daemon->loop, daemon->inotify_fd, LOOP_READ, on_inotify, daemon);
    loop_timer_start(daemon->loop, &daemon->tick_timer, DAEMON_TICK_MS);
    if (notify_watchdog_ms())
        loop_timer_start(daemon->loop, &daemon->watchdog_timer, notify_watchdog_ms());
    return 0;
}

/* Where shepherds make private directories: run.c, places_make. */
static void strays_sweep(struct daemon *daemon)
{
    const char *const places[] = {daemon->options->tmp, "/tmp", "/dev/shm"};
    struct err err = {0};
    const char *const bases[] = {daemon->cgroup_base, daemon->cgroup_memory_base,
                                 daemon->cgroup_device_base};
    size_t found = sweep_strays(daemon->attempts_dir, places, ARRAY_COUNT(places), bases,
                                ARRAY_COUNT(bases), &err);
    if (found)
        log_warn("swept what %zu lost attempts had left%s%s", found, err.text[0] ? ": " : "",
                 err.text);
}

static void cgroups_prepare(struct daemon *daemon)
{
    enum cgroup_kind kind = daemon->options->cgroup_kind;
    daemon->cgroup_base = cgroup_base(kind);
    daemon->cgroup_memory_base = cgroup_memory_base(kind, daemon->cgroup_base);
    daemon->cgroup_device_base = cgroup_device_base(kind);
    if (daemon->cgroup_base)
        cgroup_tidy(daemon->cgroup_base);
    if (daemon->cgroup_memory_base)
        cgroup_tidy(daemon->cgroup_memory_base);
    if (daemon->cgroup_device_base)
        cgroup_tidy(daemon->cgroup_device_base);
    log_info("attempts are held by %s, their memory by %s",
             daemon->cgroup_base ? daemon->cgroup_base : "their shepherds",
             daemon->cgroup_memory_base ? daemon->cgroup_memory_base
             : daemon->cgroup_base      ? "the same, or by looking at it"
                                        : "looking at it");
}

static int shm_prepare(struct daemon *daemon, struct err *err)
{
    const char *kind = daemon->options->shm;
    struct err why = {0};
    if (strcmp(kind, "shared") == 0)
        return 0;
    daemon->private_shm = shm_try_private(&why) == 0;
    if (daemon->private_shm)
        return 0;
    if (strcmp(kind, "private") == 0) {
        *err = why;
        return err_wrap(err, "--shm private");
    }
    log_info("attempts share the machine's /dev/shm: %s", why.text);
    return 0;
}

void health_tell(struct daemon *daemon)
{
    const char *checks = daemon->health_text ? daemon->health_text : "";
    const char *disk = daemon->disk_text ? daemon->disk_text : "";
    char *text = mem_printf("%s%s%s", checks, checks[0] && disk[0] ? "; " : "", disk);
    node_report_add(daemon, "health", false, text, 0, 0);
    mem_free(text);
}

static void on_health(void *user, const char *text)
{
    struct daemon *daemon = user;
    mem_free(daemon->health_text);
    daemon->health_text = mem_strdup(text);
    health_tell(daemon);
}

static void health_prepare(struct daemon *daemon)
{
    const struct options *options = daemon->options;
    struct health_config config = {.loop = daemon->loop,
                                   .folder = options->health,
                                   .worker = options->name,
                                   .every_ms = options->health_every_ms,
                                   .timeout_ms = options->health_timeout_ms,
                                   .on_change = on_health,
                                   .user = daemon};
    daemon->health = health_new(&config);
}

static int daemon_prepare(struct daemon *daemon, struct err *err)
{
    struct account account;
    if (daemon->options->job_user[0] &&
        account_find(daemon->options, "anybody", &account, err) < 0)
        return err_wrap(err, "--job-user"); /* said now, not by the first job */
    if (folders_make(daemon, err) < 0 ||
        state_lock(daemon, err) < 0 || inventory_prepare(daemon, err) < 0 ||
        loop_prepare(daemon, err) < 0)
        return -1;
    cgroups_prepare(daemon);
    if (shm_prepare(daemon, err) < 0)
        return -1;
    isolation_open(daemon);
    epoch_load(daemon);
    if (attempts_discover(daemon, err) < 0 || code_open(daemon, err) < 0 ||
        copies_open(daemon, err) < 0)
        return -1;
    daemon->found_attempts = daemon->attempt_count > 0;
    strays_sweep(daemon);
    removals_finish(daemon);
    health_prepare(daemon);
    return peer_prepare(daemon, err);
}

static void daemon_free(struct daemon *daemon)
{
    gang_close(daemon);
    pending_close(daemon);
    code_close(daemon);
    copies_close(daemon);
    secrets_close(daemon);
    isolation_close(daemon);
    attempts_close(daemon);
    hook_abandon(daemon->gpu_hook);
    hook_abandon(daemon->sample_hook);
    health_free(daemon->health);
    mem_free(daemon->health_text);
    mem_free(daemon->disk_text);
    node_reports_close(daemon);
    nursery_close(&daemon->nursery);
    peer_close(daemon->peer);
    if (daemon->loop)
        loop_free(daemon->loop);
    if (daemon->inotify_fd >= 0)
        close(daemon->inotify_fd);
    slots_done(&daemon->slots);
    claims_done(&daemon->claims);
    inventory_done(&daemon->inventory);
    arena_done(&daemon->pump_arena);
    mem_free(daemon->catalogue);
    mem_free(daemon->cgroup_base);
    mem_free(daemon->cgroup_memory_base);
    mem_free(daemon->cgroup_device_base);
    mem_free(daemon->attempts_dir);
    mem_free(daemon->gpu_usage);
    mem_free(daemon);
}

int daemon_run(const struct options *options, struct err *err)
{
    struct daemon *daemon = mem_zalloc(sizeof *daemon);
    daemon->options = options;
    daemon->inotify_fd = daemon->nursery.fd = -1;
    daemon->incarnation = random_u64() >> 1; /* fits a signed column */
    signal(SIGPIPE, SIG_IGN);
    int rc = daemon_prepare(daemon, err);
    if (rc == 0) {
        log_info("worker%s%s: cores %zu, GPUs %zu, attempts found %zu", options->name[0] ? " " : "",
                 options->name, daemon->inventory.core_count, daemon->inventory.gpu_count,
                 daemon->attempt_count);
        notify_ready();
        until_open(daemon);
        rc = loop_run(daemon->loop, err);
    }
    daemon_free(daemon);
    return rc;
}
