/* worker_test.c - athanor-worker as a whole: a real daemon and real shepherds, with this test in
 * the coordinator's place (a server in process). */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "common/net/lines.h"
#include "common/net/server.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/procs.h"
#include "worker/attempt/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 60000u /* bound of every wait; reached only by a failing test */
#define ENTRIES_MAX 20000u

extern char **environ;

struct entry { /* a report as the coordinator saw it */
    uint64_t attempt_id, seq, kind, rank, step;
    char name[64], cause[32], text[400];
    double value;
};

struct fixture {
    char home[64], endpoint[128];
    struct loop *loop;
    struct server *server;
    struct keypair server_keys, worker_keys;
    pid_t worker;
    uint64_t epoch, peer_id;
    bool withhold_acks;
    unsigned joins, heartbeats, leaves;
    /* of the newest join */
    uint64_t cores, memory_bytes, devices, held_count;
    struct rec_held_attempt held[8];
    char labels[400], catalogue[200], name[64];
    struct entry *entries; /* without repeats, in order of arrival */
    size_t entry_count;
    struct node_entry {
        uint64_t stamp, attempt_id;
        char kind[16], text[300], checks[300];
        bool severe;
    } nodes[16]; /* NODE_REPORTs without repeats */
    size_t node_count;
    bool withhold_node_acks;
    bool no_root_jobs; /* start the worker without --allow-root-jobs */
    unsigned node_repeats;
    uint64_t newest[64]; /* seq by attempt id */
    unsigned repeats;
};

/* ---- the coordinator ------------------------------------------------------------------------- */

static bool find_principal(void *user, const char *public_key, struct server_principal *out)
{
    struct fixture *f = user;
    if (strcmp(public_key, f->worker_keys.public_key) != 0)
        return false;
    *out = (struct server_principal){"w1", ROLE_WORKER};
    return true;
}

static void send(struct fixture *f, const struct message *message)
{
    struct err err = {0};
    if (server_send(f->server, f->peer_id, message, &err) < 0)
        fail_msg("send %s: %s", msg_name(message->tag), err.text);
}

static void keep_join(struct fixture *f, const struct msg_worker_join *join)
{
    f->joins++;
    f->cores = join->cores;
    f->memory_bytes = join->memory_bytes;
    f->devices = join->devices_count;
    f->held_count = join->held_count;
    for (size_t i = 0; i < join->held_count && i < 8; i++)
        f->held[i] = join->held[i];
    snprintf(f->name, sizeof f->name, "%s", join->name);
    snprintf(f->catalogue, sizeof f->catalogue, "%.*s", (int)join->catalogue.length,
             join->catalogue.bytes);
    f->labels[0] = '\0';
    for (size_t i = 0; i < join->labels_count; i++)
        snprintf(f->labels + strlen(f->labels), sizeof f->labels - strlen(f->labels), "%s=%s;",
                 join->labels[i].name, join->labels[i].value);
    struct message answer = {.tag = MSG_WORKER_WELCOME};
    answer.u.worker_welcome = (struct msg_worker_welcome){.worker_id = 3,
                                                          .epoch = f->epoch,
                                                          .lease_ms = 5000,
                                                          .heartbeat_ms = 100};
    send(f, &answer);
}

/* Invariant 2 of worker/attempt: what is new is exactly the next number. */
static void keep_reports(struct fixture *f, const struct msg_report *reports)
{
    for (size_t i = 0; i < reports->reports_count; i++) {
        const struct rec_report *report = &reports->reports[i];
        uint64_t *newest = &f->newest[reports->attempt_id];
        if (report->seq <= *newest) {
            f->repeats++;
            continue;
        }
        assert_int_equal(report->seq, *newest + 1);
        *newest = report->seq;
        assert_true(f->entry_count < ENTRIES_MAX);
        struct entry *entry = &f->entries[f->entry_count++];
        *entry = (struct entry){.attempt_id = reports->attempt_id,
                                .seq = report->seq,
                                .kind = report->kind,
                                .rank = report->rank,
                                .step = report->step,
                                .value = report->value};
        snprintf(entry->name, sizeof entry->name, "%s", report->name);
        snprintf(entry->cause, sizeof entry->cause, "%s", report->cause);
        snprintf(entry->text, sizeof entry->text, "%.*s", (int)report->text.length,
                 report->text.length ? report->text.bytes : "");
    }
    if (f->withhold_acks)
        return;
    struct message ack = {.tag = MSG_REPORT_ACK};
    ack.u.report_ack = (struct msg_report_ack){.attempt_id = reports->attempt_id,
                                               .seq = f->newest[reports->attempt_id]};
    send(f, &ack);
}

static void keep_node_report(struct fixture *f, const struct msg_node_report *report)
{
    struct node_entry *entry = &f->nodes[f->node_count];
    if (f->node_count && report->stamp <= entry[-1].stamp) {
        f->node_repeats++;
    } else {
        assert_true(f->node_count < ARRAY_COUNT(f->nodes));
        *entry = (struct node_entry){.stamp = report->stamp,
                                     .attempt_id = report->attempt_id,
                                     .severe = report->severe};
        snprintf(entry->kind, sizeof entry->kind, "%s", report->kind);
        snprintf(entry->text, sizeof entry->text, "%s", report->text);
        for (size_t i = 0; i < report->checks_count; i++)
            snprintf(entry->checks + strlen(entry->checks),
                     sizeof entry->checks - strlen(entry->checks), "%s %s %d '%s';",
                     report->checks[i].name, report->checks[i].status, (int)report->checks[i].code,
                     report->checks[i].text);
        f->node_count++;
    }
    if (f->withhold_node_acks)
        return;
    struct message ack = {.tag = MSG_NODE_ACK};
    ack.u.node_ack = (struct msg_node_ack){.worker_id = 3, .stamp = report->stamp};
    send(f, &ack);
}

static void on_message(void *user, const struct server_source *from,
                       const struct envelope *envelope, const struct message *message)
{
    struct fixture *f = user;
    (void)envelope;
    f->peer_id = from->peer_id;
    if (message->tag == MSG_WORKER_JOIN)
        keep_join(f, &message->u.worker_join);
    else if (message->tag == MSG_HEARTBEAT)
        f->heartbeats++;
    else if (message->tag == MSG_REPORT)
        keep_reports(f, &message->u.report);
    else if (message->tag == MSG_WORKER_LEAVE)
        f->leaves++;
    else if (message->tag == MSG_NODE_REPORT)
        keep_node_report(f, &message->u.node_report);
}

static void coordinator_up(struct fixture *f)
{
    const char *endpoints[] = {f->endpoint};
    struct err err = {0};
    struct server_config config = {.endpoints = endpoints,
                                   .endpoint_count = 1,
                                   .keys = &f->server_keys,
                                   .cluster_id = 1,
                                   .heartbeat_ms = 100,
                                   .user = f,
                                   .principal_find = find_principal,
                                   .on_message = on_message};
    f->loop = loop_new();
    if (server_open(f->loop, &config, &f->server, &err) < 0)
        fail_msg("%s", err.text);
    server_lead(f->server, f->epoch);
}

static void coordinator_down(struct fixture *f)
{
    if (f->loop) {
        server_close(f->server);
        loop_free(f->loop);
    }
    f->loop = NULL;
    f->server = NULL;
    f->peer_id = 0;
}

/* ---- the worker ------------------------------------------------------------------------------ */

static void program_path(const char *name, char out[PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = '\0';
    snprintf(out, PATH_MAX, "%s/../bin/%s", dirname(self), name);
}

static char *in_home(const struct fixture *f, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", f->home, name);
    return path;
}

static void worker_start_as(struct fixture *f, const char *const *extra)
{
    char program[PATH_MAX], keys[128], state[128], log[128], tmp[128];
    program_path("athanor-worker", program);
    snprintf(keys, sizeof keys, "%s/worker.key", f->home);
    snprintf(state, sizeof state, "%s/state", f->home);
    snprintf(log, sizeof log, "%s/worker.log", f->home);
    snprintf(tmp, sizeof tmp, "%s/tmp", f->home);
    char *arguments[40] = {program,
                               "--coordinator",
                               f->endpoint,
                               "--keys",
                               keys,
                               "--server-key",
                               f->server_keys.public_key,
                               "--name",
                               "w1",
                               "--state",
                               state,
                               "--cores",
                               "2",
                               "--memory",
                               "1GiB",
                               "--gpus",
                               "fake:2",
                               "--label",
                               "colour=red",
                               "--engine",
                               "/bin/false",
                               "--tmp",
                               tmp,
                               f->no_root_jobs ? NULL : "--allow-root-jobs"};
    size_t count = 0;
    while (arguments[count])
        count++;
    for (; *extra; extra++) {
        assert_true(count + 1 < ARRAY_COUNT(arguments));
        arguments[count++] = (char *)*extra;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_int_equal(posix_spawn(&f->worker, program, &actions, NULL, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
}

static void worker_start_with(struct fixture *f, const char *extra, const char *value)
{
    worker_start_as(f, (const char *const[]){extra, value, NULL});
}

static void worker_start(struct fixture *f, const char *extra)
{
    worker_start_with(f, extra, NULL);
}

static int worker_end(struct fixture *f, int signal_number)
{
    int status = 0;
    if (f->worker > 0) {
        kill(f->worker, signal_number);
        while (waitpid(f->worker, &status, 0) < 0 && errno == EINTR)
            continue;
    }
    f->worker = 0;
    return status;
}

typedef bool condition_fn(struct fixture *f, uint64_t argument);

static void until(struct fixture *f, condition_fn *condition, uint64_t argument, const char *what)
{
    struct err err = {0};
    uint64_t give_up_ms = clock_steady_ms() + PATIENCE_MS;
    while (!condition(f, argument)) {
        if (clock_steady_ms() > give_up_ms)
            fail_msg("never: %s; the worker's log is in %s/worker.log", what, f->home);
        if (f->loop)
            assert_int_equal(loop_once(f->loop, 20, &err), 0);
        else
            usleep(20000);
    }
}

#define UNTIL(f, condition, argument) until((f), (condition), (argument), #condition)

static bool joined(struct fixture *f, uint64_t times)
{
    return f->joins >= times;
}

static bool heartbeats(struct fixture *f, uint64_t times)
{
    return f->heartbeats >= times;
}

static const struct entry *entry_find(struct fixture *f, uint64_t attempt_id, uint64_t kind)
{
    for (size_t i = 0; i < f->entry_count; i++)
        if (f->entries[i].attempt_id == attempt_id && f->entries[i].kind == kind)
            return &f->entries[i];
    return NULL;
}

static bool started(struct fixture *f, uint64_t attempt_id)
{
    return entry_find(f, attempt_id, REPORT_STARTED) != NULL;
}

static bool finished(struct fixture *f, uint64_t attempt_id)
{
    return entry_find(f, attempt_id, REPORT_FINISHED) != NULL;
}

static char *attempt_folder(struct fixture *f, uint64_t attempt_id)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/state/attempts/%" PRIu64, f->home, attempt_id);
    return path;
}

static bool removed(struct fixture *f, uint64_t attempt_id)
{
    return !file_exists(attempt_folder(f, attempt_id));
}

static bool file_is_there(struct fixture *f, uint64_t number)
{
    char name[32];
    snprintf(name, sizeof name, "file-%" PRIu64, number);
    return file_exists(in_home(f, name));
}

static bool ended_on_disk(struct fixture *f, uint64_t attempt_id)
{
    /* The shepherd removes its run directory just before FINISHED. */
    struct process_id *noted;
    size_t count;
    struct err err = {0};
    int fd, rc = folder_lock(attempt_folder(f, attempt_id), &fd, &err);
    if (rc == 0)
        close(fd);
    assert_int_equal(folder_processes(attempt_folder(f, attempt_id), &noted,
                                      &count, &err),
                     0);
    mem_free(noted);
    return rc == 0 && count > 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

/* Starts `sh -c script` as attempt and job of the same number. */
static struct msg_start start_of(struct fixture *f, uint64_t attempt_id, const char *script)
{
    static char spec[4096];
    snprintf(
        spec, sizeof spec,
        "{\"athanor\": 1, \"name\": \"t\", \"kind\": \"command\", \"inputs\": {}, \"params\": {}, "
        "\"command\": [\"sh\", \"-c\", \"%s\"], \"env\": {\"HOME_DIR\": \"%s\"}}",
        script, f->home);
    return (struct msg_start){.attempt_id = attempt_id,
                              .job_id = attempt_id,
                              .attempt_number = 1,
                              .job_name = "t",
                              .spec = spec,
                              .account = "ann",
                              .ranks = 1,
                              .cores = 1,
                              .memory_bytes = 1 << 30,
                              .stop_grace_ms = 5000,
                              .resume_path = ""};
}

static void start(struct fixture *f, uint64_t attempt_id, const char *script)
{
    struct message message = {.tag = MSG_START};
    message.u.start = start_of(f, attempt_id, script);
    send(f, &message);
}

static void assert_cause(struct fixture *f, uint64_t attempt_id, const char *cause)
{
    UNTIL(f, finished, attempt_id);
    assert_string_equal(entry_find(f, attempt_id, REPORT_FINISHED)->cause, cause);
}

/* ---- fixture --------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err = {0};
    snprintf(f->home, sizeof f->home, "/tmp/worker-test-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    mkdir(in_home(f, "tmp"), 0700);
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/coordinator", f->home);
    keypair_make(&f->server_keys);
    keypair_make(&f->worker_keys);
    assert_int_equal(keypair_write(in_home(f, "worker.key"), &f->worker_keys, &err), 0);
    f->entries = mem_array(ENTRIES_MAX, sizeof *f->entries);
    f->epoch = 5;
    coordinator_up(f);
    worker_start(f, NULL);
    UNTIL(f, joined, 1);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    worker_end(f, SIGKILL);
    coordinator_down(f);
    if (file_remove_tree(f->home, &err) < 0)
        return -1;
    mem_free(f->entries);
    mem_free(f);
    return 0;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_worker_joins_with_what_it_was_told_to_offer(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(f->name, "w1");
    assert_int_equal(f->cores, 2);
    assert_int_equal(f->memory_bytes, 1 << 30);
    assert_int_equal(f->devices, 2);
    assert_int_equal(f->held_count, 0);
    assert_non_null(strstr(f->labels, "colour=red;"));
    assert_non_null(strstr(f->catalogue, "\"recipes\": []"));
    UNTIL(f, heartbeats, 3);
}

static void
a_started_job_reports_its_whole_stream_and_is_removed_after_the_acknowledgement(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "echo hello; touch $ATHANOR_JOB_DIR/kept; exit 3");
    assert_cause(f, 1, "exit");
    UNTIL(f, removed, 1);
    assert_non_null(entry_find(f, 1, REPORT_STARTED));
    assert_string_equal(entry_find(f, 1, REPORT_LOG)->text, "hello\n");
    assert_int_equal(f->entries[f->entry_count - 1].kind, REPORT_FINISHED);
    assert_true(file_exists(in_home(f, "state/jobs/1/kept"))); /* durable */
    start(f, 2, "true");
    assert_cause(f, 2, "success");
    assert_false(file_exists(in_home(f, "state/jobs/2"))); /* nothing to keep */
}

static void a_repeated_start_runs_nothing_twice(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "echo x >> $HOME_DIR/count; while [ ! -e $HOME_DIR/file-1 ]; do sleep 0.02; done");
    UNTIL(f, started, 1);
    start(f, 1, "echo x >> $HOME_DIR/count");
    fclose(fopen(in_home(f, "file-1"), "w"));
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
    start(f, 1, "echo x >> $HOME_DIR/count");
    start(f, 2, "true"); /* handled after the repeat */
    assert_cause(f, 2, "success");
    struct stat info;
    assert_int_equal(stat(in_home(f, "count"), &info), 0);
    assert_int_equal(info.st_size, 2);
}

static void a_stop_ends_the_attempt_with_the_given_cause(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "exec sleep 600");
    struct message message = {.tag = MSG_STOP};
    message.u.stop = (struct msg_stop){.attempt_id = 1, .cause = "preempted", .grace_ms = 3000};
    send(f, &message); /* at once: the shepherd does not listen yet */
    assert_cause(f, 1, "preempted");
}

static void jobs_run_on_through_a_killed_daemon_and_are_found_again(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "echo before; while [ ! -e $HOME_DIR/file-1 ]; do sleep 0.02; done; echo after");
    UNTIL(f, started, 1);
    worker_end(f, SIGKILL);
    worker_start(f, NULL);
    UNTIL(f, joined, 2);
    assert_int_equal(f->held_count, 1);
    assert_int_equal(f->held[0].attempt_id, 1);
    assert_int_equal(f->held[0].epoch, 5);
    assert_true(f->held[0].running);
    fclose(fopen(in_home(f, "file-1"), "w"));
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
}

static void a_job_that_ends_while_the_daemon_is_away_is_reported_afterwards(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "while [ ! -e $HOME_DIR/file-1 ]; do sleep 0.02; done; seq 1 2000; exit 4");
    UNTIL(f, started, 1);
    worker_end(f, SIGKILL);
    fclose(fopen(in_home(f, "file-1"), "w"));
    UNTIL(f, ended_on_disk, 1);
    worker_start(f, NULL);
    assert_cause(f, 1, "exit");
    assert_false(f->held[0].running);
    UNTIL(f, removed, 1);
}

static void reports_survive_a_coordinator_that_is_away(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "while [ ! -e $HOME_DIR/file-1 ]; do sleep 0.02; done; seq 1 5000; exit 0");
    UNTIL(f, started, 1);
    coordinator_down(f);
    fclose(fopen(in_home(f, "file-1"), "w"));
    UNTIL(f, ended_on_disk, 1);
    coordinator_up(f);
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
}

static void unacknowledged_reports_are_repeated_in_the_next_session(void **state)
{
    struct fixture *f = *state;
    f->withhold_acks = true;
    start(f, 1, "echo once; exit 0");
    assert_cause(f, 1, "success");
    assert_false(removed(f, 1));
    coordinator_down(f);
    f->withhold_acks = false;
    coordinator_up(f);
    UNTIL(f, removed, 1);
    assert_true(f->repeats > 0);
}

static void messages_of_an_older_epoch_change_nothing(void **state)
{
    struct fixture *f = *state;
    server_lead(f->server, 4);
    start(f, 1, "true");
    server_lead(f->server, 6);
    start(f, 2, "true");
    assert_cause(f, 2, "success");
    assert_false(started(f, 1));
    worker_end(f, SIGKILL); /* and what it has seen outlives it */
    worker_start(f, NULL);
    UNTIL(f, joined, 2);
    server_lead(f->server, 5);
    start(f, 3, "true");
    server_lead(f->server, 6);
    start(f, 4, "true");
    assert_cause(f, 4, "success");
    assert_false(started(f, 3));
}

static void worker_again(struct fixture *f, const char *const *extra)
{
    unsigned joins = f->joins;
    worker_end(f, SIGKILL);
    worker_start_as(f, extra);
    UNTIL(f, joined, joins + 1);
}

static bool printed(struct fixture *f, uint64_t attempt_id)
{
    return entry_find(f, attempt_id, REPORT_LOG) != NULL;
}

static const char *log_of(struct fixture *f, uint64_t attempt_id)
{
    const struct entry *entry = entry_find(f, attempt_id, REPORT_LOG);
    return entry ? entry->text : "";
}

static void assert_no_segment(int pid)
{
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/torch_%d_2_0", pid);
    bool left = file_exists(path);
    unlink(path);
    assert_false(left);
}

static void a_killed_shepherd_is_reported_and_its_processes_are_swept(void **state)
{
    struct fixture *f = *state;
    struct process_id *noted;
    size_t count;
    struct err err = {0};
    worker_again(f, (const char *const[]){"--shm", "shared", NULL});
    start(f, 1,
          "echo > /dev/shm/torch_$$_2_0; (setsid sh -c 'echo $$ > $HOME_DIR/deep; "
          "echo > /dev/shm/torch_$$_2_0; touch $HOME_DIR/file-1; exec sleep 600') & "
          "exec sleep 600");
    UNTIL(f, started, 1);
    UNTIL(f, file_is_there, 1);
    assert_int_equal(folder_processes(attempt_folder(f, 1), &noted, &count, &err), 0);
    assert_int_equal(count, 2); /* and its rank */
    kill(noted[0].pid, SIGKILL);
    int rank = noted[1].pid;
    mem_free(noted);
    assert_cause(f, 1, "shepherd_lost");
    assert_no_segment(rank);
    FILE *file = fopen(in_home(f, "deep"), "r");
    int deep = 0;
    assert_int_equal(fscanf(file, "%d", &deep), 1);
    fclose(file);
    struct process_id left;
    assert_no_segment(deep);
    assert_false(process_find(deep, &left)); /* gone, or a zombie that init will collect */
    UNTIL(f, removed, 1);
    assert_int_equal(rmdir(in_home(f, "tmp")), 0); /* nothing is left in it */
}

/* Whatever its name: it never was the machine's, and goes with the last process of the attempt. */
static void a_segment_of_any_name_goes_with_an_attempt_whose_processes_are_all_killed(void **state)
{
    struct fixture *f = *state;
    struct process_id *noted;
    struct err err = {0};
    size_t count;
    char segment[64], line[64], script[300];
    if (shm_try_private(&err) < 0) {
        print_message("SKIPPED: %s\n", err.text);
        skip();
    }
    snprintf(segment, sizeof segment, "/dev/shm/left-by-%d", (int)getpid());
    worker_again(f, (const char *const[]){"--shm", "private", NULL});
    snprintf(script, sizeof script,
             "ls -A /dev/shm; echo > %s; ls /dev/shm; touch $HOME_DIR/file-1; exec sleep 600",
             segment);
    start(f, 1, script);
    UNTIL(f, file_is_there, 1);
    UNTIL(f, printed, 1);
    snprintf(line, sizeof line, "left-by-%d\n", (int)getpid());
    assert_string_equal(log_of(f, 1), line);
    assert_false(file_exists(segment));
    assert_int_equal(folder_processes(attempt_folder(f, 1), &noted, &count, &err), 0);
    for (size_t i = 0; i < count; i++)
        kill(noted[i].pid, SIGKILL);
    mem_free(noted);
    assert_cause(f, 1, "shepherd_lost");
    UNTIL(f, removed, 1);
    assert_false(file_exists(segment));
}

/* The first child of the daemon that is a shepherd; 0: none. */
static pid_t nursery_of(pid_t worker)
{
    char path[64];
    int pid = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)worker, (int)worker);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%d", &pid) != 1)
        pid = 0;
    fclose(file);
    return pid;
}

static void a_killed_nursery_ends_no_attempt_and_keeps_none_from_starting(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "touch $HOME_DIR/file-1; while [ ! -e $HOME_DIR/go ]; do sleep 0.05; done");
    UNTIL(f, started, 1);
    UNTIL(f, file_is_there, 1);
    pid_t nursery = nursery_of(f->worker);
    if (nursery == 0) {
        print_message("SKIPPED: this kernel does not list children in /proc\n");
        skip();
    }
    kill(nursery, SIGKILL);
    start(f, 2, "true");
    assert_cause(f, 2, "success");
    start(f, 3, "true"); /* by the next nursery */
    assert_cause(f, 3, "success");
    int go = open(in_home(f, "go"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(go >= 0);
    close(go);
    assert_cause(f, 1, "success");
}

/* Forks a shepherd for the first request, says nothing and ends: what is seen of a nursery that is
 * killed, or waited for in vain, between the two. */
static const char mute_nursery[] =
    "#!/usr/bin/python3\n"
    "import os, socket, sys\n"
    "real = '%s'\n"
    "if sys.argv[1] != '--nursery': os.execv(real, [real] + sys.argv[1:])\n"
    "line = socket.socket(fileno=int(sys.argv[2]))\n"
    "request, fds, _, _ = socket.recv_fds(line, 8192, 3)\n"
    "folder = request[80:].split(b'\\0')[0].decode()\n"
    "if os.fork() == 0:\n"
    "    line.close(); os.setsid(); os.set_inheritable(fds[0], True)\n"
    "    os.execv(real, [real, '--lock-fd', str(fds[0]), folder])\n";

static void a_shepherd_that_a_dead_nursery_did_not_tell_of_is_found_and_has_no_second(void **state)
{
    struct fixture *f = *state;
    char real[PATH_MAX], text[PATH_MAX + sizeof mute_nursery];
    struct err err = {0};
    program_path("athanor-shepherd", real);
    int length = snprintf(text, sizeof text, mute_nursery, real);
    assert_int_equal(file_replace(in_home(f, "mute"), text, (size_t)length, 0755, &err), 0);
    worker_end(f, SIGTERM);
    worker_start_with(f, "--shepherd", in_home(f, "mute"));
    UNTIL(f, joined, 2);
    start(f, 1, "echo ran >> $HOME_DIR/runs; sleep 0.2");
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
    char *runs;
    assert_int_equal(file_read(in_home(f, "runs"), 100, &runs, &(size_t){0}, &err), 0);
    assert_string_equal(runs, "ran\n");
    mem_free(runs);
}

static void a_shepherd_that_dies_while_the_daemon_is_away_is_found_dead(void **state)
{
    struct fixture *f = *state;
    struct process_id *noted, left;
    size_t count;
    struct err err = {0};
    start(f, 1, "echo $$ > $HOME_DIR/deep; touch $HOME_DIR/file-1; trap '' TERM; exec sleep 600");
    UNTIL(f, started, 1);
    UNTIL(f, file_is_there, 1);
    worker_end(f, SIGKILL);
    assert_int_equal(folder_processes(attempt_folder(f, 1), &noted, &count, &err), 0);
    kill(noted[0].pid, SIGKILL);
    mem_free(noted);
    worker_start(f, NULL);
    assert_cause(f, 1, "shepherd_lost");
    FILE *file = fopen(in_home(f, "deep"), "r");
    int deep = 0;
    assert_int_equal(fscanf(file, "%d", &deep), 1);
    fclose(file);
    assert_false(process_find(deep, &left));
    UNTIL(f, removed, 1);
    start(f, 2, "true");
    assert_cause(f, 2, "success");
}

static bool tmp_is_empty(struct fixture *f, uint64_t unused)
{
    (void)unused;
    bool empty = rmdir(in_home(f, "tmp")) == 0;
    return empty && mkdir(in_home(f, "tmp"), 0700) == 0;
}

static bool is_gone(struct fixture *f, uint64_t pid)
{
    struct process_id left;
    (void)f;
    return !process_find((pid_t)pid, &left);
}

/* As on a node whose state was lost: nobody can tell from a list what is to be swept. */
static void what_attempts_without_a_folder_left_is_swept_when_the_daemon_starts(void **state)
{
    struct fixture *f = *state;
    struct process_id *noted;
    size_t count;
    struct err err = {0};
    for (uint64_t id = 1; id <= 2; id++)
        start(f, id, "trap '' TERM; exec sleep 600");
    UNTIL(f, started, 1);
    UNTIL(f, started, 2);
    worker_end(f, SIGKILL);
    assert_int_equal(folder_processes(attempt_folder(f, 1), &noted, &count, &err), 0);
    assert_int_equal(count, 2);
    kill(noted[0].pid, SIGKILL); /* its shepherd; that of the other lives on */
    assert_int_equal(file_remove_tree(in_home(f, "state/attempts"), &err), 0);
    worker_start(f, NULL);
    UNTIL(f, joined, 2);
    assert_int_equal(f->held_count, 0);
    UNTIL(f, is_gone, (uint64_t)noted[1].pid);
    UNTIL(f, tmp_is_empty, 0);
    mem_free(noted);
    start(f, 3, "true");
    assert_cause(f, 3, "success");
}

static void a_fenced_attempt_is_killed_without_a_word(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "echo $$ > $HOME_DIR/deep; touch $HOME_DIR/file-1; exec sleep 600");
    UNTIL(f, file_is_there, 1);
    struct message message = {.tag = MSG_ATTEMPT_FENCE};
    message.u.attempt_fence = (struct msg_attempt_fence){.attempt_id = 1};
    send(f, &message);
    UNTIL(f, removed, 1);
    assert_false(finished(f, 1));
    start(f, 2, "true"); /* its core is free again */
    assert_cause(f, 2, "success");
}

/* The coordinator counts the cores of a fenced attempt as free at once. */
/* ---- prolog, epilog, health ------------------------------------------------------------------ */

static void program_write(struct fixture *f, const char *name, const char *script)
{
    char path[256];
    snprintf(path, sizeof path, "%s", in_home(f, name));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", script);
    fclose(file);
    assert_int_equal(chmod(path, 0755), 0);
}

static char *home_text(struct fixture *f, const char *name)
{
    static char text[2000];
    FILE *file = fopen(in_home(f, name), "r");
    text[0] = '\0';
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
    }
    return text;
}

static bool node_reported(struct fixture *f, uint64_t count)
{
    return f->node_count >= count;
}

static void prolog_and_epilog_run_around_the_ranks_with_the_facts(void **state)
{
    struct fixture *f = *state;
    char prolog[256], epilog[256], script[512];
    snprintf(prolog, sizeof prolog, "%s", in_home(f, "prolog"));
    snprintf(epilog, sizeof epilog, "%s", in_home(f, "epilog"));
    snprintf(script, sizeof script,
             "echo $ATHANOR_HOOK $ATHANOR_ATTEMPT_ID $ATHANOR_JOB_ID $ATHANOR_JOB_NAME "
             "$ATHANOR_ACCOUNT $ATHANOR_RANKS $ATHANOR_GPUS $ATHANOR_WORKER >> %s/order",
             f->home);
    program_write(f, "prolog", script);
    program_write(f, "epilog", script);
    worker_again(f, (const char *const[]){"--prolog", prolog, "--epilog", epilog, NULL});
    struct message message = {.tag = MSG_START};
    message.u.start = start_of(f, 1, "echo rank >> $HOME_DIR/order");
    message.u.start.gpus = 2;
    send(f, &message);
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
    assert_string_equal(home_text(f, "order"), "prolog 1 1 t ann 1 0,1 w1\nrank\n"
                                               "epilog 1 1 t ann 1 0,1 w1\n");
    assert_int_equal(f->node_count, 0);
}

static void a_failing_prolog_fails_the_start_by_the_nodes_fault(void **state)
{
    struct fixture *f = *state;
    char prolog[256];
    snprintf(prolog, sizeof prolog, "%s", in_home(f, "prolog"));
    program_write(f, "prolog", "echo fine; echo scratch is not mounted >&2; exit 3");
    f->withhold_node_acks = true;
    worker_again(f, (const char *const[]){"--prolog", prolog, NULL});
    start(f, 1, "touch $HOME_DIR/file-1");
    assert_cause(f, 1, "launch_failed");
    const struct entry *end = entry_find(f, 1, REPORT_FINISHED);
    assert_string_equal(end->text, "the prolog exited with code 3: scratch is not mounted");
    assert_string_equal(end->name, "node");
    assert_false(file_is_there(f, 1));
    UNTIL(f, node_reported, 1);
    assert_string_equal(f->nodes[0].kind, "prolog");
    assert_true(f->nodes[0].severe);
    assert_int_equal(f->nodes[0].attempt_id, 1);
    coordinator_down(f); /* not acknowledged: told again in the next session */
    f->withhold_node_acks = false;
    coordinator_up(f);
    UNTIL(f, joined, 3);
    while (f->node_repeats == 0)
        UNTIL(f, heartbeats, f->heartbeats + 1);
    assert_int_equal(f->node_count, 1);
}

static void cores_are_given_away_when_the_epilog_has_ended_and_a_hanging_one_is_told(void **state)
{
    struct fixture *f = *state;
    char epilog[256], script[512];
    snprintf(epilog, sizeof epilog, "%s", in_home(f, "epilog"));
    snprintf(script, sizeof script,
             "[ $ATHANOR_ATTEMPT_ID = 2 ] || exit 0\ncd %s; touch file-9\n"
             "while [ ! -e file-1 ]; do sleep 0.02; done; sleep 600 & sleep 600",
             f->home);
    program_write(f, "epilog", script);
    worker_again(f, (const char *const[]){"--epilog", epilog, "--hook-timeout", "1s", NULL});
    start(f, 1, "while [ ! -e $HOME_DIR/file-2 ]; do sleep 0.02; done"); /* the other core */
    start(f, 2, "true");
    assert_cause(f, 2, "success"); /* told although the epilog still runs */
    UNTIL(f, file_is_there, 9);
    start(f, 3, "true");
    UNTIL(f, heartbeats, f->heartbeats + 3);
    assert_false(started(f, 3));
    fclose(fopen(in_home(f, "file-1"), "w"));
    assert_cause(f, 3, "success");
    UNTIL(f, node_reported, 1);
    assert_string_equal(f->nodes[0].kind, "epilog");
    assert_non_null(strstr(f->nodes[0].text, "the epilog did not end within"));
    assert_true(f->nodes[0].severe);
    fclose(fopen(in_home(f, "file-2"), "w"));
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 2);
}

static void attempts_stopped_or_fenced_during_the_prolog_end_without_ranks(void **state)
{
    struct fixture *f = *state;
    char prolog[256], script[256];
    snprintf(prolog, sizeof prolog, "%s", in_home(f, "prolog"));
    snprintf(script, sizeof script, "touch %s/file-$ATHANOR_ATTEMPT_ID; exec sleep 600", f->home);
    program_write(f, "prolog", script);
    worker_again(f, (const char *const[]){"--prolog", prolog, NULL});
    start(f, 1, "true");
    start(f, 2, "true");
    UNTIL(f, file_is_there, 1);
    UNTIL(f, file_is_there, 2);
    struct message message = {.tag = MSG_STOP};
    message.u.stop = (struct msg_stop){.attempt_id = 1, .cause = "cancelled"};
    send(f, &message);
    assert_cause(f, 1, "cancelled");
    message.tag = MSG_ATTEMPT_FENCE;
    message.u.attempt_fence = (struct msg_attempt_fence){.attempt_id = 2};
    send(f, &message);
    UNTIL(f, removed, 1);
    UNTIL(f, removed, 2);
    assert_false(started(f, 1) || started(f, 2) || finished(f, 2));
    assert_int_equal(f->node_count, 0);
}

/* As on a node that loses power between START and the first word of the attempt: nothing failed. */
static void an_attempt_that_had_not_begun_when_its_node_went_down_is_lost(void **state)
{
    struct fixture *f = *state;
    char prolog[256], script[256];
    snprintf(prolog, sizeof prolog, "%s", in_home(f, "prolog"));
    snprintf(script, sizeof script, "touch %s/file-1; exec sleep 600", f->home);
    program_write(f, "prolog", script);
    worker_again(f, (const char *const[]){"--prolog", prolog, NULL});
    start(f, 1, "true");
    UNTIL(f, file_is_there, 1);
    worker_again(f, (const char *const[]){NULL});
    assert_cause(f, 1, "shepherd_lost");
    UNTIL(f, removed, 1);
}

static void failing_health_checks_are_told_with_evidence_and_again_when_they_succeed(void **state)
{
    struct fixture *f = *state;
    char folder[256], script[256];
    snprintf(folder, sizeof folder, "%s", in_home(f, "health"));
    mkdir(folder, 0755);
    snprintf(script, sizeof script, "[ -e %s/file-1 ] || { echo 3 ECC errors; exit 7; }", f->home);
    program_write(f, "health/gpu", script);
    program_write(f, "health/disk", "[ -z \"$ATHANOR_COORDINATOR\" ]");
    snprintf(script, sizeof script, "[ -e %s/file-1 ] || sleep 600", f->home);
    program_write(f, "health/net", script);
    fclose(fopen(in_home(f, "health/README"), "w")); /* not executable: no check */
    worker_again(f, (const char *const[]){"--health", folder, "--health-every", "50ms",
                                          "--health-timeout", "500ms", NULL});
    UNTIL(f, node_reported, 1);
    assert_string_equal(f->nodes[0].kind, "health");
    assert_non_null(strstr(f->nodes[0].text, "gpu exited with code 7: 3 ECC errors; net did not"));
    assert_string_equal(f->nodes[0].checks,
                        "disk ok 0 '';gpu failed 7 '3 ECC errors';net timeout 0 '';");
    fclose(fopen(in_home(f, "file-1"), "w"));
    UNTIL(f, node_reported, 2);
    assert_string_equal(f->nodes[1].text, "");
    assert_string_equal(f->nodes[1].checks, "disk ok 0 '';gpu ok 0 '';net ok 0 '';");
    UNTIL(f, heartbeats, f->heartbeats + 5);
    assert_int_equal(f->node_count, 2); /* nothing changed, nothing told */
}

/* ---- GPUs that are not free ------------------------------------------------------------------ */

static void text_write(struct fixture *f, const char *name, const char *text)
{
    FILE *file = fopen(in_home(f, name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static bool devices_offered(struct fixture *f, uint64_t count)
{
    return f->devices == count;
}

static void worker_with_gpus(struct fixture *f)
{
    char json[1000], option[300];
    snprintf(json, sizeof json,
             "[{\"memory\": \"16GiB\", \"used\": \"%s/used-0\", \"busy\": \"%s/busy-0\"},"
             " {\"memory\": \"16GiB\", \"used\": \"%s/used-1\", \"busy\": \"%s/busy-1\"}]",
             f->home, f->home, f->home, f->home);
    text_write(f, "gpus.json", json);
    snprintf(option, sizeof option, "fake:%s", in_home(f, "gpus.json"));
    worker_again(f, (const char *const[]){"--gpus", option, "--gpu-free-timeout", "600ms",
                                          "--usage-every", "1s", NULL});
    assert_int_equal(f->devices, 2);
}

static void start_on_gpus(struct fixture *f, uint64_t attempt_id, uint64_t gpus,
                          const char *script)
{
    struct message message = {.tag = MSG_START};
    message.u.start = start_of(f, attempt_id, script);
    message.u.start.gpus = gpus;
    send(f, &message);
}

static void a_gpu_that_somebody_holds_is_not_given_to_an_attempt(void **state)
{
    struct fixture *f = *state;
    text_write(f, "used-0", "9000000000\n");
    worker_with_gpus(f);
    start_on_gpus(f, 1, 2, "touch $HOME_DIR/file-1");
    assert_cause(f, 1, "launch_failed");
    const struct entry *end = entry_find(f, 1, REPORT_FINISHED);
    assert_string_equal(end->name, "node");
    assert_non_null(strstr(end->text, "GPU-fake-0 (fake) is not free: 8."));
    assert_false(file_is_there(f, 1));
    UNTIL(f, node_reported, 1);
    assert_string_equal(f->nodes[0].kind, "device");
    UNTIL(f, devices_offered, 1);
    start_on_gpus(f, 2, 1, "echo $CUDA_VISIBLE_DEVICES");
    assert_cause(f, 2, "success");
    assert_string_equal(entry_find(f, 2, REPORT_LOG)->text, "GPU-fake-1\n");
    text_write(f, "used-0", "");
    UNTIL(f, devices_offered, 2); /* it came free */
    start_on_gpus(f, 3, 2, "true");
    assert_cause(f, 3, "success");
}

static void a_gpu_that_does_not_come_free_behind_an_attempt_is_withheld(void **state)
{
    struct fixture *f = *state;
    worker_with_gpus(f);
    start_on_gpus(f, 1, 1, "echo 9000000000 > $HOME_DIR/used-0");
    assert_cause(f, 1, "success");
    UNTIL(f, node_reported, 1);
    assert_string_equal(f->nodes[0].kind, "device");
    assert_int_equal(f->nodes[0].attempt_id, 1);
    UNTIL(f, devices_offered, 1);
    UNTIL(f, removed, 1);
    start_on_gpus(f, 2, 1, "echo $CUDA_VISIBLE_DEVICES");
    assert_cause(f, 2, "success");
    assert_string_equal(entry_find(f, 2, REPORT_LOG)->text, "GPU-fake-1\n");
}

static void a_gpu_that_takes_a_moment_to_come_free_is_waited_for(void **state)
{
    struct fixture *f = *state;
    worker_with_gpus(f);
    text_write(f, "used-1", "9000000000");
    start_on_gpus(f, 1, 2, "touch $HOME_DIR/file-1");
    UNTIL(f, heartbeats, f->heartbeats + 2);
    text_write(f, "used-1", "300000000"); /* what a driver keeps */
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
    assert_int_equal(f->node_count, 0);
    assert_int_equal(f->devices, 2);
}

/* Two GPUs whose files are copies of /dev/full and /dev/zero; false where none can be made. */
static bool worker_with_devices(struct fixture *f, const char *cgroups)
{
    char json[600], option[300];
    if (mknod(in_home(f, "gpu-0"), S_IFCHR | 0666, makedev(1, 7)) < 0 ||
        mknod(in_home(f, "gpu-1"), S_IFCHR | 0666, makedev(1, 5)) < 0)
        return false;
    snprintf(json, sizeof json,
             "[{\"memory\": \"1GiB\", \"device\": \"%s/gpu-0\"},"
             " {\"memory\": \"1GiB\", \"device\": \"%s/gpu-1\"}]",
             f->home, f->home);
    text_write(f, "gpus.json", json);
    snprintf(option, sizeof option, "fake:%s", in_home(f, "gpus.json"));
    worker_again(f, (const char *const[]){"--gpus", option, "--cgroups", cgroups, NULL});
    return true;
}

/* Prints which of the two can be opened. */
#define OPEN_BOTH \
    "for i in 0 1; do head -c0 $HOME_DIR/gpu-$i 2>/dev/null && printf $i || printf -; done; echo"

static bool device_group_is_gone(struct fixture *f, uint64_t attempt_id)
{
    char tag[FOLDER_TAG_SIZE], *base = cgroup_device_base(CGROUP_V1);
    char *attempts = mem_strdup(attempt_folder(f, attempt_id));
    *strrchr(attempts, '/') = '\0';
    folder_tag(attempts, tag);
    char *group = mem_printf("%s/%s-%" PRIu64, base, tag, attempt_id);
    bool gone = !file_exists(group);
    mem_free(group);
    mem_free(attempts);
    mem_free(base);
    return gone;
}

/* base: where groups for it may be made; taken. */
static void only_given_gpus_are_opened(struct fixture *f, const char *cgroups, char *base)
{
    bool can = base && worker_with_devices(f, cgroups);
    mem_free(base);
    if (!can) {
        print_message("SKIPPED: no cgroup (%s) or device file can be made here\n", cgroups);
        skip();
    }
    start_on_gpus(f, 1, 1, OPEN_BOTH "; until [ -e $HOME_DIR/file-1 ]; do sleep 0.05; done");
    UNTIL(f, printed, 1);
    start_on_gpus(f, 2, 1, OPEN_BOTH);
    assert_cause(f, 2, "success");
    start_on_gpus(f, 3, 0, OPEN_BOTH);
    assert_cause(f, 3, "success");
    text_write(f, "file-1", "");
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
    start_on_gpus(f, 4, 2, OPEN_BOTH);
    assert_cause(f, 4, "success");
    assert_string_equal(log_of(f, 4), "01\n");
    if (strcmp(cgroups, "v2") == 0 && strcmp(log_of(f, 3), "01\n") == 0) {
        print_message("SKIPPED: this kernel lets us attach no device filter\n");
        skip();
    }
    assert_string_equal(log_of(f, 1), "0-\n");
    assert_string_equal(log_of(f, 2), "-1\n");
    assert_string_equal(log_of(f, 3), "--\n");
}

static void a_job_opens_the_gpus_that_it_was_given_and_no_others(void **state)
{
    only_given_gpus_are_opened(*state, "v2", cgroup_base(CGROUP_V2));
}

static void by_version_1_too_a_job_opens_the_gpus_that_it_was_given_and_no_others(void **state)
{
    struct fixture *f = *state;
    only_given_gpus_are_opened(f, "v1", cgroup_device_base(CGROUP_V1));
    UNTIL(f, device_group_is_gone, 4);
}

static double newest_value(struct fixture *f, uint64_t attempt_id, const char *name)
{
    double value = -1;
    for (size_t i = 0; i < f->entry_count; i++)
        if (f->entries[i].attempt_id == attempt_id && f->entries[i].kind == REPORT_METRIC &&
            strcmp(f->entries[i].name, name) == 0)
            value = f->entries[i].value;
    return value;
}

static bool gpus_are_seen(struct fixture *f, uint64_t attempt_id)
{
    double busy = newest_value(f, attempt_id, "usage/gpus");
    return busy > 1.49 && busy < 1.51 &&
           newest_value(f, attempt_id, "usage/gpu_memory_bytes") == 6000000000.0;
}

static bool cores_are_seen(struct fixture *f, uint64_t attempt_id)
{
    return newest_value(f, attempt_id, "usage/cores") >= 0;
}

static void what_a_rank_uses_becomes_series_its_gpus_included(void **state)
{
    struct fixture *f = *state;
    worker_with_gpus(f);
    start_on_gpus(f, 1, 2,
                  "echo 5000000000 >$HOME_DIR/used-0; echo 1000000000 >$HOME_DIR/used-1;"
                  "echo 90 >$HOME_DIR/busy-0; echo 60 >$HOME_DIR/busy-1;"
                  "until [ -e $HOME_DIR/file-1 ]; do sleep 0.05; done;"
                  "rm $HOME_DIR/used-*");
    UNTIL(f, gpus_are_seen, 1);
    assert_true(newest_value(f, 1, "usage/cores") >= 0);
    assert_true(newest_value(f, 1, "usage/rss_bytes") > 100000);
    assert_true(newest_value(f, 1, "usage/read_bytes_per_s") >= 0);
    assert_true(newest_value(f, 1, "usage/write_bytes_per_s") >= 0);
    text_write(f, "file-1", "");
    assert_cause(f, 1, "success");
}

/* Whoever opens a pipe that nobody writes to waits, as in a driver that hangs. */
static void a_look_at_gpus_that_hangs_costs_their_series_and_nothing_else(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkfifo(in_home(f, "busy-0"), 0600), 0);
    worker_with_gpus(f);
    start_on_gpus(f, 1, 2,
                  "until [ -e $HOME_DIR/file-1 ]; do sleep 0.05; done");
    UNTIL(f, cores_are_seen, 1);
    UNTIL(f, heartbeats, f->heartbeats + 5);
    assert_true(newest_value(f, 1, "usage/gpus") < 0);
    text_write(f, "file-1", "");
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
    start_on_gpus(f, 2, 1, "true");
    assert_cause(f, 2, "success");
    assert_int_equal(worker_end(f, SIGTERM), 0);
}

/* ---- containment ----------------------------------------------------------------------------- */

/* A child in a session of its own, a grandchild whose parent is gone, and the rank; each says its
 * number. */
#define FAMILY                                                                                     \
    "setsid sh -c 'echo $$ >> $HOME_DIR/family-$ATHANOR_ATTEMPT_ID; exec sleep 600' & "            \
    "(setsid sh -c 'echo $$ >> $HOME_DIR/family-$ATHANOR_ATTEMPT_ID; trap : TERM; "                \
    "while :; do sleep 1; done' &) ; "                                                             \
    "echo $$ >> $HOME_DIR/family-$ATHANOR_ATTEMPT_ID; "

static size_t family_read(struct fixture *f, uint64_t attempt_id, int *pids, size_t capacity)
{
    char name[32];
    size_t count = 0;
    snprintf(name, sizeof name, "family-%" PRIu64, attempt_id);
    FILE *file = fopen(in_home(f, name), "r");
    while (file && count < capacity && fscanf(file, "%d", &pids[count]) == 1)
        count++;
    if (file)
        fclose(file);
    return count;
}

static bool family_is_whole(struct fixture *f, uint64_t attempt_id)
{
    int pids[4];
    return family_read(f, attempt_id, pids, 4) == 3;
}

static void assert_family_is_gone(struct fixture *f, uint64_t attempt_id)
{
    int pids[4];
    size_t count = family_read(f, attempt_id, pids, 4);
    for (size_t i = 0; i < count; i++)
        UNTIL(f, is_gone, (uint64_t)pids[i]);
}

static void stop(struct fixture *f, uint64_t attempt_id, uint64_t grace_ms)
{
    struct message message = {.tag = MSG_STOP};
    message.u.stop =
        (struct msg_stop){.attempt_id = attempt_id, .cause = "cancelled", .grace_ms = grace_ms};
    send(f, &message);
}

static void worker_with_cgroups(struct fixture *f, const char *kind)
{
    unsigned joins = f->joins;
    worker_end(f, SIGKILL);
    worker_start_with(f, "--cgroups", kind);
    UNTIL(f, joined, joins + 1);
}

static void double_forked_and_setsid_processes_die_however_attempts_are_held(void **state)
{
    static const char *const kinds[] = {"v2", "v1", "none"};
    struct fixture *f = *state;
    uint64_t id = 0;
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        worker_with_cgroups(f, kinds[i]);
        start(f, ++id, FAMILY "wait; sleep 600");
        UNTIL(f, family_is_whole, id);
        stop(f, id, 0);
        assert_cause(f, id, "cancelled");
        assert_family_is_gone(f, id);
        UNTIL(f, removed, id);
        start(f, ++id, FAMILY "exit 3"); /* by itself */
        assert_cause(f, id, "exit");
        assert_family_is_gone(f, id);
        UNTIL(f, removed, id);
    }
}

static void a_job_that_eats_memory_ends_as_oom_and_its_neighbour_lives(void **state)
{
    static const char *const kinds[] = {"auto", "none"};
    struct fixture *f = *state;
    uint64_t id = 0;
    for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
        struct message message = {.tag = MSG_START};
        worker_with_cgroups(f, kinds[i]);
        start(f, ++id, "while [ ! -e $HOME_DIR/file-1 ]; do sleep 0.02; done");
        UNTIL(f, started, id);
        message.u.start =
            start_of(f, id + 1,
                     "perl -e 'my @kept; my $n = 0; while ($n++ < 400) { push @kept, "
                     "chr(65) x 1048576; select undef, undef, undef, 0.01 } sleep 60'");
        message.u.start.memory_bytes = (uint64_t)64 << 20;
        send(f, &message);
        assert_cause(f, ++id, "oom");
        assert_non_null(strstr(entry_find(f, id, REPORT_FINISHED)->text, "64 MiB"));
        assert_false(finished(f, id - 1));
        fclose(fopen(in_home(f, "file-1"), "w"));
        assert_cause(f, id - 1, "success");
        UNTIL(f, removed, id);
        unlink(in_home(f, "file-1"));
    }
}

/* What may be in the way when an attempt is ended: a START not yet done, a shepherd that starts, a
 * stop ladder. The moment is drawn from the seed. */
static void fifty_attempts_ended_at_random_moments_leave_nothing_behind(void **state)
{
    enum { STOPPED, FENCED, SHEPHERD_KILLED, WAYS };
    struct fixture *f = *state;
    struct err err = {0};
    struct rng rng;
    rng_init(&rng, 4711);
    for (uint64_t id = 1; id <= 50; id++) {
        struct message message = {.tag = MSG_START};
        unsigned way = (unsigned)rng_below(&rng, WAYS);
        uint64_t until_ms = clock_steady_ms() + rng_below(&rng, 60);
        message.u.start = start_of(f, id, FAMILY "trap '' TERM; wait; sleep 600");
        message.u.start.gpus = 2;
        send(f, &message);
        while (clock_steady_ms() < until_ms)
            assert_int_equal(loop_once(f->loop, 1, &err), 0);
        if (way == SHEPHERD_KILLED) {
            struct process_id *noted;
            size_t count;
            UNTIL(f, started, id);
            assert_int_equal(folder_processes(attempt_folder(f, id), &noted, &count, &err), 0);
            if (count)
                kill(noted[0].pid, SIGKILL);
            mem_free(noted);
        } else if (way == FENCED) {
            message.tag = MSG_ATTEMPT_FENCE;
            message.u.attempt_fence = (struct msg_attempt_fence){.attempt_id = id};
            send(f, &message);
        } else {
            stop(f, id, rng_below(&rng, 2) ? 0 : 30);
        }
        if (way != FENCED)
            assert_cause(f, id, way == STOPPED ? "cancelled" : "shepherd_lost");
        UNTIL(f, removed, id);
        assert_family_is_gone(f, id);
    }
    UNTIL(f, tmp_is_empty, 0);
    struct process_list list = {0};
    processes_below(f->worker, &list);
    assert_true(list.count <= 1); /* the nursery */
    process_list_done(&list);
    struct message message = {.tag = MSG_START};
    message.u.start = start_of(f, 51, "echo gpus $CUDA_VISIBLE_DEVICES");
    message.u.start.gpus = 2; /* all devices are free again */
    send(f, &message);
    assert_cause(f, 51, "success");
}

static void a_start_waits_for_the_cores_of_a_fenced_attempt(void **state)
{
    struct fixture *f = *state;
    struct message message = {.tag = MSG_ATTEMPT_FENCE};
    for (uint64_t id = 1; id <= 2; id++)
        start(f, id, "sleep 600");
    UNTIL(f, started, 1);
    UNTIL(f, started, 2);
    for (uint64_t id = 1; id <= 2; id++) {
        message.u.attempt_fence = (struct msg_attempt_fence){.attempt_id = id};
        send(f, &message);
        start(f, id + 2, "true");
        start(f, id + 2, "true"); /* repeats change nothing */
    }
    assert_cause(f, 3, "success");
    assert_cause(f, 4, "success");
    assert_false(finished(f, 1));
    assert_false(finished(f, 2));
}

static void cores_are_never_given_twice(void **state)
{
    struct fixture *f = *state;
    const char *script = "while [ ! -e $HOME_DIR/file-1 ]; do sleep 0.02; done";
    start(f, 1, script);
    start(f, 2, script);
    UNTIL(f, started, 1);
    UNTIL(f, started, 2);
    start(f, 3, "true");
    assert_cause(f, 3, "launch_failed");
    assert_non_null(
        strstr(entry_find(f, 3, REPORT_FINISHED)->text, "1 cores and 0 GPUs are wanted"));
    fclose(fopen(in_home(f, "file-1"), "w"));
    assert_cause(f, 1, "success");
    assert_cause(f, 2, "success");
    start(f, 4, "true");
    assert_cause(f, 4, "success");
}

static void gpus_are_assigned_and_named_to_the_rank(void **state)
{
    struct fixture *f = *state;
    struct message message = {.tag = MSG_START};
    message.u.start = start_of(f, 1, "echo gpus $CUDA_VISIBLE_DEVICES");
    message.u.start.gpus = 2;
    send(f, &message);
    assert_cause(f, 1, "success");
    assert_string_equal(entry_find(f, 1, REPORT_LOG)->text, "gpus 0,1\n");
}

static void a_changed_checkpoint_is_not_resumed_from(void **state)
{
    struct fixture *f = *state;
    struct message message = {.tag = MSG_START};
    mkdir(in_home(f, "ckpt"), 0700);
    FILE *file = fopen(in_home(f, "ckpt/manifest.json"), "w");
    fputs("{}", file);
    fclose(file);
    message.u.start = start_of(f, 1, "true");
    message.u.start.resume_path = in_home(f, "ckpt");
    memset(&message.u.start.resume_content, 7, sizeof message.u.start.resume_content);
    send(f, &message);
    assert_cause(f, 1, "stale_checkpoint");
    assert_non_null(strstr(entry_find(f, 1, REPORT_FINISHED)->text, "not the one that was saved"));
}

static void a_missing_input_is_named(void **state)
{
    struct fixture *f = *state;
    struct message message = {.tag = MSG_START};
    struct rec_resolved_input input = {.name = "data",
                                       .ref = "dataset:d",
                                       .path = "/nowhere/d",
                                       .part = ""};
    message.u.start = start_of(f, 1, "true");
    message.u.start.inputs = &input;
    message.u.start.inputs_count = 1;
    send(f, &message);
    assert_cause(f, 1, "launch_failed");
    assert_non_null(strstr(entry_find(f, 1, REPORT_FINISHED)->text, "input data: '/nowhere/d'"));
}

static bool checkpoint_gone(struct fixture *f, uint64_t unused)
{
    (void)unused;
    return !file_exists(in_home(f, "state/jobs/9/step-1"));
}

static void checkpoint_make(struct fixture *f, const char *path)
{
    struct err err = {0};
    char *folder = mem_strdup(in_home(f, path));
    char *manifest = mem_printf("%s/manifest.json", folder);
    assert_int_equal(file_make_folders(folder, 0700, &err), 0);
    fclose(fopen(manifest, "w"));
    mem_free(manifest);
    mem_free(folder);
}

static void only_checkpoints_below_the_job_directories_are_dropped(void **state)
{
    struct fixture *f = *state;
    const char *const keep[] = {"elsewhere/step-1", "state/jobs-not/step-1"};
    struct message message = {.tag = MSG_CHECKPOINT_DROP};
    struct err err = {0};
    checkpoint_make(f, "state/jobs/9/step-1");
    assert_int_equal(file_make_folders(in_home(f, "state/jobs/9/plain"), 0700, &err), 0);
    char *paths[] = {mem_strdup(in_home(f, "elsewhere/step-1")),
                     mem_strdup(in_home(f, "state/jobs-not/step-1")),
                     mem_strdup(in_home(f, "state/jobs/9/plain")),
                     mem_strdup(in_home(f, "state/jobs/9/step-1"))};
    for (size_t i = 0; i < ARRAY_COUNT(keep); i++)
        checkpoint_make(f, keep[i]);
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        message.u.checkpoint_drop =
            (struct msg_checkpoint_drop){.attempt_id = 9, .checkpoint_id = i, .path = paths[i]};
        send(f, &message);
    }
    UNTIL(f, checkpoint_gone, 0);
    for (size_t i = 0; i + 1 < ARRAY_COUNT(paths); i++)
        assert_true(file_exists(paths[i]));
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++)
        mem_free(paths[i]);
}

static void a_late_drop_leaves_what_was_saved_anew_at_its_path(void **state)
{
    struct fixture *f = *state;
    struct message message = {.tag = MSG_CHECKPOINT_DROP};
    checkpoint_make(f, "state/jobs/9/step-1");
    checkpoint_make(f, "state/jobs/9/step-2");
    char *paths[] = {mem_strdup(in_home(f, "state/jobs/9/step-2")),
                     mem_strdup(in_home(f, "state/jobs/9/step-1"))};
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        message.u.checkpoint_drop =
            (struct msg_checkpoint_drop){.attempt_id = 9, .checkpoint_id = i, .path = paths[i]};
        hash_bytes(i == 0 ? "another" : "", i == 0 ? 7 : 0, &message.u.checkpoint_drop.content);
        send(f, &message);
    }
    UNTIL(f, checkpoint_gone, 0);
    assert_true(file_exists(paths[0]));
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++)
        mem_free(paths[i]);
}

static void sigterm_leaves_jobs_running_and_says_goodbye_only_when_there_are_none(void **state)
{
    struct fixture *f = *state;
    start(f, 1, "while [ ! -e $HOME_DIR/file-1 ]; do sleep 0.02; done");
    UNTIL(f, started, 1);
    assert_int_equal(worker_end(f, SIGTERM), 0);
    assert_int_equal(f->leaves, 0);
    worker_start(f, NULL);
    UNTIL(f, joined, 2);
    assert_int_equal(f->held_count, 1);
    fclose(fopen(in_home(f, "file-1"), "w"));
    assert_cause(f, 1, "success");
    UNTIL(f, removed, 1);
    assert_int_equal(worker_end(f, SIGTERM), 0);
}

static bool worker_ended(struct fixture *f, uint64_t unused)
{
    (void)unused;
    if (waitpid(f->worker, NULL, WNOHANG) != f->worker)
        return false;
    f->worker = 0;
    return true;
}

static void with_stop_jobs_a_leaving_worker_stops_them_first(void **state)
{
    struct fixture *f = *state;
    worker_end(f, SIGKILL);
    worker_start(f, "--stop-jobs");
    UNTIL(f, joined, 2);
    start(f, 1, "exec sleep 600");
    UNTIL(f, started, 1);
    unsigned leaves = f->leaves;
    kill(f->worker, SIGTERM);
    UNTIL(f, worker_ended, 0);
    assert_cause(f, 1, "worker_lost");
    assert_int_equal(f->leaves, leaves + 1);
}

static void as_root_jobs_run_as_the_job_user_and_are_swept_all_the_same(void **state)
{
    struct fixture *f = *state;
    struct process_id *noted;
    size_t count;
    struct err err = {0};
    if (geteuid() != 0)
        skip();
    worker_end(f, SIGKILL);
    chmod(f->home, 0755);
    chmod(in_home(f, "tmp"), 01777);
    worker_start_with(f, "--job-user", "nobody");
    UNTIL(f, joined, 2);
    start(f, 1, "id -un; touch $ATHANOR_JOB_DIR/x $TMPDIR/y; echo $ATHANOR_RESUME; exit 0");
    assert_cause(f, 1, "success");
    assert_string_equal(entry_find(f, 1, REPORT_LOG)->text, "nobody\n\n");
    UNTIL(f, removed, 1);
    start(f, 2, "exec sleep 600");
    UNTIL(f, started, 2);
    assert_int_equal(folder_processes(attempt_folder(f, 2), &noted, &count, &err), 0);
    kill(noted[0].pid, SIGKILL);
    mem_free(noted);
    assert_cause(f, 2, "shepherd_lost");
    UNTIL(f, removed, 2);
    assert_int_equal(rmdir(in_home(f, "tmp")), 0);
}

static void start_of_account(struct fixture *f, uint64_t attempt_id, const char *account,
                             const char *script)
{
    struct message message = {.tag = MSG_START};
    message.u.start = start_of(f, attempt_id, script);
    message.u.start.account = account;
    send(f, &message);
}

/* An account that is in more groups than its own; "" where there is none. */
static void grouped_account(char out[64])
{
    const struct passwd *account;
    out[0] = '\0';
    setpwent();
    while (!out[0] && (account = getpwent())) {
        gid_t groups[64];
        int count = 64;
        if (account->pw_uid != 0 &&
            getgrouplist(account->pw_name, account->pw_gid, groups, &count) > 1)
            snprintf(out, 64, "%s", account->pw_name);
    }
    endpwent();
}

static void assert_groups(struct fixture *f, uint64_t attempt_id, const char *account)
{
    if (!account[0]) {
        print_message("SKIPPED in part: no account of this machine has supplementary groups\n");
        return;
    }
    start_of_account(f, attempt_id, "eve", "id -G; id -G $(id -un)");
    assert_cause(f, attempt_id, "success");
    const char *text = log_of(f, attempt_id), *second = strchr(text, '\n') + 1;
    assert_non_null(strchr(text, ' ')); /* several */
    assert_int_equal(strcspn(text, "\n"), strcspn(second, "\n"));
    assert_memory_equal(text, second, strcspn(text, "\n"));
}

static void as_root_each_job_runs_as_who_submitted_it_and_never_as_root(void **state)
{
    struct fixture *f = *state;
    char accounts[256], grouped[64], lines[256];
    const gid_t ours[] = {0, 4242};
    if (geteuid() != 0)
        skip();
    grouped_account(grouped);
    snprintf(accounts, sizeof accounts, "%s", in_home(f, "accounts"));
    snprintf(lines, sizeof lines, "# who as\nann nobody\nbob root\ncarl nobody-at-all\neve %s\n"
             "* daemon\n", grouped[0] ? grouped : "nobody");
    text_write(f, "accounts", lines);
    assert_int_equal(setgroups(2, ours), 0); /* which no job may keep */
    chmod(f->home, 0755);
    chmod(in_home(f, "tmp"), 01777);
    f->no_root_jobs = true;
    worker_again(f, (const char *const[]){"--job-accounts", accounts, NULL});
    start_of_account(f, 1, "ann",
                     "echo $(id -un) $(id -G) $(umask) $(ulimit -c) $(exec ls /proc/self/fd) "
                     "$(grep NoNewPrivs /proc/self/status) $HOME; "
                     "[ $(id -G) = $(id -G nobody) ] && touch $ATHANOR_JOB_DIR/mine");
    assert_cause(f, 1, "success");
    assert_string_equal(
        entry_find(f, 1, REPORT_LOG)->text,
        "nobody 65534 0022 0 0 1 2 3 NoNewPrivs: 1 /nonexistent\n"); /* 3 is of ls */
    assert_groups(f, 6, grouped);
    assert_int_equal(setgroups(1, ours), 0);
    start_of_account(f, 2, "dora", "id -un");
    assert_cause(f, 2, "success");
    assert_string_equal(entry_find(f, 2, REPORT_LOG)->text, "daemon\n");
    start_of_account(f, 3, "bob", "id -un");
    assert_cause(f, 3, "launch_failed");
    assert_non_null(strstr(entry_find(f, 3, REPORT_FINISHED)->text, "would run as root here"));
    start_of_account(f, 4, "carl", "id -un");
    assert_cause(f, 4, "launch_failed");
    assert_non_null(
        strstr(entry_find(f, 4, REPORT_FINISHED)->text, "'nobody-at-all' here: no such"));
    text_write(f, "accounts", "ann nobody\nbob\n");
    start_of_account(f, 5, "dora", "id -un");
    assert_cause(f, 5, "launch_failed");
    assert_non_null(
        strstr(entry_find(f, 5, REPORT_FINISHED)->text, "line 2: expected a principal"));
    UNTIL(f, removed, 1);
}

/* As another account: 0 when a line is answered, 1 when the connection is closed instead. */
static int line_is_refused(uid_t uid, const char *path, const char *line)
{
    pid_t pid = fork();
    int status;
    if (pid == 0) {
        struct err err = {0};
        char byte;
        int fd;
        signal(SIGPIPE, SIG_IGN);
        if (setresuid(uid, uid, uid) < 0 || unix_connect(path, &fd, &err) < 0 ||
            fcntl(fd, F_SETFL, 0) < 0) /* to wait */
            _exit(99);
        ssize_t sent = write(fd, line, strlen(line));
        (void)sent; /* it may be closed already */
        _exit(read(fd, &byte, 1) == 1 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static bool heard(struct fixture *f, uint64_t attempt_id)
{
    return newest_value(f, attempt_id, "heard") == 1;
}

static void as_root_a_job_hears_its_own_account_and_root_whatever_modes_its_socket_has(void **state)
{
    struct fixture *f = *state;
    char path[sizeof f->entries[0].text];
    if (geteuid() != 0)
        skip();
    chmod(f->home, 0755);
    chmod(in_home(f, "tmp"), 01777);
    worker_again(f, (const char *const[]){"--job-user", "nobody", NULL});
    start(f, 1,
          "chmod 777 $TMPDIR $ATHANOR_REPORT; echo $ATHANOR_REPORT;"
          "until [ -e $HOME_DIR/file-1 ]; do sleep 0.05; done");
    UNTIL(f, printed, 1);
    snprintf(path, sizeof path, "%s", log_of(f, 1));
    path[strcspn(path, "\n")] = '\0';
    const char *stolen = "{\"type\": \"metric\", \"step\": 1, \"values\": {\"stolen\": 1}, "
                         "\"reply\": true}\n";
    const char *ours = "{\"type\": \"metric\", \"step\": 1, \"values\": {\"heard\": 1}, "
                       "\"reply\": true}\n";
    assert_int_equal(line_is_refused(getpwnam("daemon")->pw_uid, path, stolen), 1);
    assert_int_equal(line_is_refused(getpwnam("nobody")->pw_uid, path, ours), 0);
    assert_int_equal(line_is_refused(0, path, ours), 0);
    UNTIL(f, heard, 1);
    assert_true(newest_value(f, 1, "stolen") < 0);
    text_write(f, "file-1", "");
    assert_cause(f, 1, "success");
}

static void a_second_daemon_on_the_same_state_is_refused(void **state)
{
    struct fixture *f = *state;
    pid_t first = f->worker;
    int status;
    worker_start(f, NULL);
    assert_int_equal(waitpid(f->worker, &status, 0), f->worker);
    f->worker = first;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_worker_joins_with_what_it_was_told_to_offer),
        TEST(a_started_job_reports_its_whole_stream_and_is_removed_after_the_acknowledgement),
        TEST(a_repeated_start_runs_nothing_twice),
        TEST(a_stop_ends_the_attempt_with_the_given_cause),
        TEST(jobs_run_on_through_a_killed_daemon_and_are_found_again),
        TEST(a_job_that_ends_while_the_daemon_is_away_is_reported_afterwards),
        TEST(reports_survive_a_coordinator_that_is_away),
        TEST(unacknowledged_reports_are_repeated_in_the_next_session),
        TEST(messages_of_an_older_epoch_change_nothing),
        TEST(a_killed_shepherd_is_reported_and_its_processes_are_swept),
        TEST(a_segment_of_any_name_goes_with_an_attempt_whose_processes_are_all_killed),
        TEST(a_killed_nursery_ends_no_attempt_and_keeps_none_from_starting),
        TEST(a_shepherd_that_a_dead_nursery_did_not_tell_of_is_found_and_has_no_second),
        TEST(a_shepherd_that_dies_while_the_daemon_is_away_is_found_dead),
        TEST(what_attempts_without_a_folder_left_is_swept_when_the_daemon_starts),
        TEST(a_fenced_attempt_is_killed_without_a_word),
        TEST(prolog_and_epilog_run_around_the_ranks_with_the_facts),
        TEST(a_failing_prolog_fails_the_start_by_the_nodes_fault),
        TEST(cores_are_given_away_when_the_epilog_has_ended_and_a_hanging_one_is_told),
        TEST(attempts_stopped_or_fenced_during_the_prolog_end_without_ranks),
        TEST(an_attempt_that_had_not_begun_when_its_node_went_down_is_lost),
        TEST(failing_health_checks_are_told_with_evidence_and_again_when_they_succeed),
        TEST(a_gpu_that_somebody_holds_is_not_given_to_an_attempt),
        TEST(a_gpu_that_does_not_come_free_behind_an_attempt_is_withheld),
        TEST(a_gpu_that_takes_a_moment_to_come_free_is_waited_for),
        TEST(a_job_opens_the_gpus_that_it_was_given_and_no_others),
        TEST(by_version_1_too_a_job_opens_the_gpus_that_it_was_given_and_no_others),
        TEST(what_a_rank_uses_becomes_series_its_gpus_included),
        TEST(a_look_at_gpus_that_hangs_costs_their_series_and_nothing_else),
        TEST(double_forked_and_setsid_processes_die_however_attempts_are_held),
        TEST(a_job_that_eats_memory_ends_as_oom_and_its_neighbour_lives),
        TEST(fifty_attempts_ended_at_random_moments_leave_nothing_behind),
        TEST(a_start_waits_for_the_cores_of_a_fenced_attempt),
        TEST(cores_are_never_given_twice),
        TEST(gpus_are_assigned_and_named_to_the_rank),
        TEST(a_changed_checkpoint_is_not_resumed_from),
        TEST(a_missing_input_is_named),
        TEST(only_checkpoints_below_the_job_directories_are_dropped),
        TEST(a_late_drop_leaves_what_was_saved_anew_at_its_path),
        TEST(sigterm_leaves_jobs_running_and_says_goodbye_only_when_there_are_none),
        TEST(with_stop_jobs_a_leaving_worker_stops_them_first),
        TEST(as_root_jobs_run_as_the_job_user_and_are_swept_all_the_same),
        TEST(as_root_each_job_runs_as_who_submitted_it_and_never_as_root),
        TEST(as_root_a_job_hears_its_own_account_and_root_whatever_modes_its_socket_has),
        TEST(a_second_daemon_on_the_same_state_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
