/* run.c - the life of a run; see run.h. */
#include "worker/shepherd/run.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the ladder ------------------------------------------------------------------------------ */

static enum run_state enter(struct run *run, enum run_state state, uint64_t after_ms)
{
    run->deadline_ms = clock_steady_ms() + after_ms;
    return state;
}

static enum run_state term_for(struct run *run, uint64_t grace_ms)
{
    ranks_signal(run, SIGTERM);
    ranks_signal(run, SIGCONT); /* a stopped process would not see it */
    return enter(run, RUN_TERMINATING, grace_ms);
}

/* Programs that listen are asked and have their grace; others know only signals. */
static enum run_state ask_ranks(struct run *run)
{
    char line[200];
    snprintf(line, sizeof line,
             "{\"type\": \"stop\", \"cause\": \"%s\", \"grace_ms\": %" PRIu64 "}",
             cause_name(run->stop_cause), run->stop_grace_ms);
    if (line_server_broadcast(run->report, line) > 0)
        return enter(run, RUN_ASKED, run->stop_grace_ms);
    return term_for(run, run->stop_grace_ms);
}

static enum run_state hurry(struct run *run)
{
    uint64_t sooner = clock_steady_ms() + run->stop_grace_ms;
    run->deadline_ms = min_u64(run->deadline_ms, sooner);
    return run->state;
}

static enum run_state term_asked(struct run *run)
{
    return term_for(run, min_u64(RUN_TERM_MS, run->stop_grace_ms));
}

static enum run_state term_peers(struct run *run)
{
    return term_for(run, RUN_PEERS_MS);
}

static enum run_state kill_all(struct run *run)
{
    bool done = run->plan.cgroup[0] && cgroup_kill(run->plan.cgroup, "ranks");
    if (!done || run->state == RUN_KILLING)
        ranks_signal(run, SIGKILL);
    return enter(run, RUN_KILLING, RUN_KILL_AGAIN_MS);
}

static enum run_state settle(struct run *run)
{
    run->deadline_ms = 0;
    return RUN_OVER;
}

/* Ranks of short programs may succeed before the shepherds of other nodes know where we are. They
 * would look for us in vain, and the attempt would fail. */
static enum run_state linger(struct run *run)
{
    if (!run->links || run->failed || run->launch_error || run->links->met())
        return settle(run);
    run->deadline_ms = 0;
    return RUN_LINGERING;
}

typedef enum run_state run_action_fn(struct run *run);

/* The whole life of a run. A blank cell: the input changes nothing in this state. A run is over
 * when no process is left, whatever has become of the ranks themselves. */
static run_action_fn *const run_table[RUN_STATE_END][RUN_INPUT_END] = {
    [RUN_UP] = {[INPUT_STOP] = ask_ranks,
                [INPUT_FAILED] = term_peers,
                [INPUT_DONE] = term_peers,
                [INPUT_EMPTY] = linger},
    [RUN_ASKED] = {[INPUT_STOP] = hurry,
                   [INPUT_FAILED] = term_peers,
                   [INPUT_DONE] = term_peers,
                   [INPUT_DEADLINE] = term_asked,
                   [INPUT_EMPTY] = settle},
    [RUN_TERMINATING] = {[INPUT_STOP] = hurry, [INPUT_DEADLINE] = kill_all, [INPUT_EMPTY] = settle},
    [RUN_KILLING] = {[INPUT_DEADLINE] = kill_all, [INPUT_EMPTY] = settle},
    [RUN_LINGERING] = {[INPUT_STOP] = settle, [INPUT_FAILED] = settle, [INPUT_MET] = settle},
};

void run_input(struct run *run, enum run_input input)
{
    run_action_fn *action = run_table[run->state][input];
    if (action)
        run->state = action(run);
}

/* Other stops come from the coordinator, which tells all nodes, or are the same everywhere. */
static bool is_ours_to_tell(enum cause cause)
{
    return cause == CAUSE_STALLED || cause == CAUSE_OOM || cause == CAUSE_WORKER_LOST;
}

void run_stop(struct run *run, enum cause cause, uint64_t grace_ms, const char *format, ...)
{
    bool first = run->stop_cause == CAUSE_NONE && !run->failed;
    if (first) {
        va_list args;
        va_start(args, format);
        vsnprintf(run->stop_text, sizeof run->stop_text, format, args);
        va_end(args);
        run->stop_cause = cause;
    }
    run->stop_grace_ms = first ? grace_ms : min_u64(run->stop_grace_ms, grace_ms);
    if (first && is_ours_to_tell(cause))
        peers_tell(run, grace_ms);
    run_input(run, INPUT_STOP);
}

unsigned run_rank(const struct run *run, unsigned index)
{
    return run->plan.first_rank + index;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void on_signal(void *user, short events)
{
    struct run *run = user;
    struct signalfd_siginfo info;
    (void)events;
    while (read(run->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == SIGUSR2)
            peers_leave(run);
        else if (info.ssi_signo != SIGCHLD) {
            run->leaving = true;
            run_stop(run, CAUSE_WORKER_LOST, run->plan.stop_grace_ms,
                     "the node asked the shepherd to end (signal %u), as on shutdown",
                     info.ssi_signo);
        }
}

static void on_wake(void *user, short events)
{
    struct run *run = user;
    uint64_t count;
    (void)events;
    char lost[1000];
    ssize_t got = read(run->wake_fd, &count, sizeof count);
    (void)got; /* what happened is asked for where it matters */
    mpirun_wake(run);
    peers_heard(run); /* first: a neighbour that has told its end is not lost */
    if (run->links && run->links->lost(lost, sizeof lost))
        run_stop(run, CAUSE_WORKER_LOST, 0, "%s", lost);
    if (run->links && run->links->met())
        run_input(run, INPUT_MET);
}

static int wait_ms(struct run *run, uint64_t now_ms)
{
    uint64_t due = run->watch_ms;
    if (run->deadline_ms)
        due = min_u64(due, run->deadline_ms);
    int wait = due > now_ms ? (int)(due - now_ms) : 0;
    int logs = logs_tick(run->logs, now_ms);
    return logs >= 0 && logs < wait ? logs : wait;
}

/* Nothing is taken in that the spool could not keep. */
static void backpressure(struct run *run)
{
    bool full = spool_is_full(&run->spool);
    if (full)
        run->full_ms = clock_steady_ms();
    logs_pause(run->logs, full);
    line_server_pause(run->report, full);
}

static int run_loop(struct run *run, struct err *err)
{
    while (run->state != RUN_OVER) {
        uint64_t now_ms = clock_steady_ms();
        if (now_ms >= run->watch_ms) {
            watch_tick(run, now_ms);
            usage_tick(run, now_ms);
            exec_tick(run, now_ms);
            run->watch_ms = now_ms + RUN_WATCH_MS;
        }
        if (run->deadline_ms && now_ms >= run->deadline_ms)
            run_input(run, INPUT_DEADLINE);
        int wait = wait_ms(run, now_ms);
        reports_tick(run, now_ms);
        reports_flush(run);
        backpressure(run);
        if (poller_wait(run->poller, wait, err) < 0)
            return -1;
        ranks_reap(run);
    }
    return 0;
}

/* ---- setting up ------------------------------------------------------------------------------ */

static int signals_open(struct run *run, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR2); /* of the daemon: peers_leave */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* outlives the daemon's terminal */
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return err_errno(err, "block signals");
    run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    run->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (run->signal_fd < 0 || run->wake_fd < 0)
        return err_errno(err, "make signal and wake-up descriptors");
    poller_add(run->poller, run->signal_fd, POLLIN, on_signal, run);
    poller_add(run->poller, run->wake_fd, POLLIN, on_wake, run);
    return 0;
}

/* A private directory with an unguessable name, noted before it exists. Its name says whose it is:
 * when the attempt's folder is lost, the list of places is lost with it (sweep_strays). */
static char *place_make(struct run *run, const char *below, struct err *err)
{
    char *attempts = mem_strdup(run->folder), tag[FOLDER_TAG_SIZE];
    *strrchr(attempts, '/') = '\0'; /* of a real path: there is one */
    folder_tag(attempts, tag);
    mem_free(attempts);
    char *path = mem_printf("%s/athanor-%" PRIu64 "-%s-%016" PRIx64, below, run->plan.attempt_id,
                            tag, random_u64());
    if (folder_note_place(run->folder, path, err) < 0 ||
        (mkdir(path, 0700) < 0 && err_errno(err, "make '%s'", path) < 0)) {
        mem_free(path);
        return NULL;
    }
    CHECK(run->made_count < ARRAY_COUNT(run->made));
    run->made[run->made_count++] = mem_strdup(path);
    return path;
}

static int folder_below(const char *base, const char *name, char **out, struct err *err)
{
    char *path = mem_printf("%s/%s", base, name);
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        err_errno(err, "make '%s'", path);
        mem_free(path);
        return -1;
    }
    *out = path;
    return 0;
}

#define SOCKET_PATH_MAX  107u /* sun_path without its end */
#define PLACE_NAME_BYTES 68u  /* "/athanor-ID-TAG-RANDOM/.report": 9 + 20 + 1 + 12 + 1 + 16 + 8 */

static int places_make(struct run *run, struct err *err)
{
    /* The report socket's path goes to programs of any language, so that it must fit as it is. */
    bool fits = strlen(run->plan.tmp) + PLACE_NAME_BYTES <= SOCKET_PATH_MAX;
    char *base = place_make(run, fits ? run->plan.tmp : "/tmp", err);
    char *run_dir = NULL;
    if (!base)
        return -1;
    /* In TMPDIR itself: a directory more would cost a short attempt a tenth of its time. */
    run->places.report = mem_printf("%s/.report", base);
    run->places.tmp = base;
    if (folder_below(run->folder, FOLDER_RUN, &run_dir, err) < 0)
        return -1;
    run->places.run_dir = run_dir;
    run->places.spec = folder_file(run->folder, FOLDER_SPEC);
    run->places.shared_memory = mem_strdup("");
    if (run->plan.launcher != PLAN_FORK) {
        char *shared = place_make(run, "/dev/shm", err);
        if (!shared)
            return -1;
        mem_free((void *)run->places.shared_memory);
        run->places.shared_memory = shared;
    }
    return folder_write(run->folder, FOLDER_SPEC, run->plan.spec, err);
}

static void places_free(struct environment_places *places)
{
    mem_free((void *)places->report);
    mem_free((void *)places->tmp);
    mem_free((void *)places->run_dir);
    mem_free((void *)places->spec);
    mem_free((void *)places->shared_memory);
}

/* A port that is free now. Another program may take it before rank 0 does: torch programs then
 * fail to start and are retried, as under every launcher that chooses a port. */
static unsigned port_choose(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    unsigned port = 29500; /* torch's own default */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        port = ntohs(address.sin_port);
    if (fd >= 0)
        close(fd);
    return port;
}

static void on_log(void *user, unsigned rank, const char *stream, const char *bytes, size_t length)
{
    struct rec_report report = {.kind = REPORT_LOG,
                                .rank = run_rank(user, rank),
                                .name = stream,
                                .text = {bytes, length}};
    mpirun_listen(user, bytes, length);
    reports_add(user, &report);
}

static int run_prepare(struct run *run, struct err *err)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return err_errno(err, "become the subreaper");
    if (file_make_folders(run->plan.job_dir, 0700, err) < 0 || places_make(run, err) < 0)
        return -1;
    run->places.master_port = run->plan.gang ? run->plan.gang->master_port : port_choose();
    run->oom_kills_before = machine_oom_kills();
    return reports_open(run, err);
}

#define FINISHED_RETRY_MS 1000

/* ---- the end --------------------------------------------------------------------------------- */

/* mpirun's exit code is that of a rank, or of what it fell over; about signals it says more. */
static void facts_of_mpirun(const struct run *run, struct verdict_facts *facts)
{
    facts->launcher = run->plan.first_rank == 0 ? "mpirun" : "orted, mpirun's daemon here,";
    if (facts->by_signal ||
        !mpirun_signal_told(run->launcher.said, &facts->rank, &facts->code))
        return;
    facts->launcher = NULL;
    facts->by_signal = true;
    facts->stderr_line = run->launcher.said;
}

static void facts_collect(struct run *run, struct verdict_facts *facts, char *abort_text,
                          size_t abort_size)
{
    struct pmix_abort aborted;
    const char *cgroup = run->plan.cgroup;
    *facts = (struct verdict_facts){
        .launch_error = run->launch_error,
        .stop_cause = run->stop_cause,
        .stop_text = run->stop_text,
        .failed = run->failed,
        .rank = run_rank(run, run->failed_rank),
        .stderr_line = logs_last_error(run->logs, run->failed_rank),
        .abort_text = abort_text,
        .gave_up = run->gave_up,
        .diverged = run->diverged,
        .diverged_text = run->diverged_text ? run->diverged_text : "",
        .cgroup_oom_kills = cgroup[0] ? cgroup_oom_kills(cgroup) : 0,
        .machine_oom_kills = machine_oom_kills() - run->oom_kills_before,
        .memory_counted = run->plan.memory_cgroup[0] || (cgroup[0] && cgroup_limits_memory(cgroup)),
        .memory_peak_bytes = run->memory_peak,
        .memory_limit_bytes = run->plan.memory_bytes * run->plan.rank_count,
    };
    if (run->plan.memory_cgroup[0]) {
        uint64_t peak = cgroup_memory_most(run->plan.memory_cgroup);
        facts->cgroup_oom_kills += cgroup_memory_kills(run->plan.memory_cgroup);
        facts->memory_peak_bytes = max_u64(facts->memory_peak_bytes, peak);
    }
    if (cgroup[0])
        facts->memory_peak_bytes = max_u64(facts->memory_peak_bytes, cgroup_memory_peak(cgroup));
    abort_text[0] = '\0';
    if (run->pmix && run->pmix->aborted(&aborted))
        snprintf(abort_text, abort_size, "rank %u called MPI_Abort(%d) %s", aborted.rank,
                 aborted.status, aborted.text);
    if (run->pmix && run->pmix->refused())
        snprintf(abort_text, abort_size, "%s", run->pmix->refused());
    if (run->failed) {
        int status = run->launcher.failed ? run->launcher.status
                                          : run->ranks[run->failed_rank].status;
        facts->by_signal = WIFSIGNALED(status);
        facts->code = facts->by_signal ? WTERMSIG(status) : WEXITSTATUS(status);
    }
    if (run->launcher.failed)
        facts_of_mpirun(run, facts);
}

void run_judge(struct run *run, struct verdict *out)
{
    struct verdict_facts facts;
    char abort_text[300];
    facts_collect(run, &facts, abort_text, sizeof abort_text);
    verdict_reach(&facts, out);
}

/* A moment, or until a signal. All there is to be done is done: only being asked to end counts. */
static void wait_for_room(struct run *run)
{
    struct signalfd_siginfo info;
    struct pollfd item = {run->signal_fd, POLLIN, 0};
    poll(&item, 1, FINISHED_RETRY_MS);
    while (read(run->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
            run->leaving = true;
}

/* With a full disk this waits for room. Not for ever when the node ends: -1 with what stands in the
 * way, and the next daemon on this folder has to guess the end. */
static int finished_keep(struct run *run, bool sync, struct err *err)
{
    uint64_t until_ms = 0;
    while ((sync ? spool_sync(&run->spool, err) : spool_flush(&run->spool, err)) < 0) {
        uint64_t now_ms = clock_steady_ms();
        log_warn("attempt %" PRIu64 " has ended, but: %s", run->plan.attempt_id, err->text);
        if (run->leaving && until_ms == 0)
            until_ms = now_ms + RUN_LEAVE_MS;
        if (until_ms && now_ms >= until_ms)
            return err_wrap(err, "the end of attempt %" PRIu64 " is not told",
                            run->plan.attempt_id);
        wait_for_room(run);
    }
    return 0;
}

/* An end that nobody hears of would have to be guessed. The end of a long run is
 * forced onto the disk; after a power cut a short one is cheaper to run again than thousands of
 * short ones are to sync. */
static int finished_write(struct run *run, const struct verdict *verdict, struct err *err)
{
    char *usage = ranks_usage(run);
    bool of_node = run->node_fault && verdict->cause == CAUSE_LAUNCH_FAILED;
    struct rec_report report = {.kind = REPORT_FINISHED,
                                .cause = cause_name(verdict->cause),
                                .name = of_node ? "node" : "",
                                .code = verdict->code,
                                .step = verdict->cause == CAUSE_DIVERGED ? run->diverged_step : 0,
                                .text = {verdict->text, strlen(verdict->text)},
                                .meta = usage};
    reports_add(run, &report);
    reports_flush(run);
    mem_free(usage);
    bool sync = clock_steady_ms() - run->started_ms >= RUN_SYNC_MS;
    return finished_keep(run, sync, err);
}

/* By our own knowledge: a job that removes the attempt's folder takes the list of places along. */
static int own_places_remove(const struct run *run, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < run->made_count; i++)
        if (file_remove_tree(run->made[i], err) < 0)
            rc = -1;
    return rc;
}

static void sweep(struct run *run)
{
    struct err err = {0};
    line_server_close(run->report);
    line_server_close(run->control);
    line_server_close(run->launcher.agents);
    run->report = run->control = run->launcher.agents = NULL;
    if (run->plan.first_rank == 0)
        rmdir(run->plan.job_dir); /* only when the job keeps nothing: thousands of jobs do not */
    int own = own_places_remove(run, &err);
    if (sweep_places(run->folder, run->pids, run->pid_count, run->started_us, &err) == 0 &&
        own == 0)
        return;
    struct rec_report report = {.kind = REPORT_EVENT,
                                .name = "sweep_incomplete",
                                .text = {err.text, strlen(err.text)}};
    reports_add(run, &report);
}

/* What was said last is heard before judging: pipes and sockets are read to their ends, which
 * they have, because no process is left. */
static int run_finish(struct run *run, struct err *err)
{
    struct verdict verdict;
    if (run->report)
        line_server_drain(run->report);
    logs_drain(run->logs);
    peers_heard(run);
    run_judge(run, &verdict);
    reports_tick(run, UINT64_MAX);
    if (run->report)
        sweep(run);
    int rc = finished_write(run, &verdict, err);
    if (run->links)
        run->links->close();
    return rc;
}

static void run_free(struct run *run)
{
    line_server_close(run->report);
    line_server_close(run->control);
    line_server_close(run->launcher.agents);
    execs_close(run);
    logs_free(run->logs);
    poller_free(run->poller);
    spool_close(&run->spool);
    arena_done(&run->batch_arena);
    places_free(&run->places);
    for (size_t i = 0; i < run->made_count; i++)
        mem_free(run->made[i]);
    mem_free(run->batch);
    mem_free(run->ranks);
    mem_free(run->launch_error);
    mem_free(run->diverged_text);
    mem_free(run->gave_up);
    mem_free(run->folder);
    const int fds[] = {run->signal_fd, run->wake_fd, run->folder_fd, run->listen_fd,
                       run->lender_fd};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    plan_done(&run->plan);
    mem_free(run);
}

/* Failing to set up is an end of the attempt like any other: it is told through the spool. */
void run_launch_failed(struct run *run, const struct err *why)
{
    if (run->launch_error)
        return;
    run->launch_error = mem_strdup(why->text);
    peers_tell(run, 0);
}

static int run_through(struct run *run, struct err *err)
{
    struct err why = {0};
    run->state = RUN_UP;
    run->started_ms = clock_steady_ms();
    run->started_us = clock_wall_us();
    run->watch_ms = run->started_ms + RUN_WATCH_MS;
    run->sampled_ms = run->started_ms;
    if (run_prepare(run, &why) < 0) {
        run->node_fault = true;
        run_launch_failed(run, &why);
        return run_finish(run, err);
    }
    if (ranks_start(run, &why) < 0) {
        run_launch_failed(run, &why);
        run_input(run, INPUT_FAILED);
    }
    ranks_reap(run); /* nobody may be left already */
    if (run_loop(run, err) < 0)
        return -1;
    return run_finish(run, err);
}

int run_attempt(const char *folder, const struct run_fds *fds, struct err *err)
{
    struct run *run = mem_zalloc(sizeof *run);
    run->poller = poller_new();
    run->signal_fd = run->wake_fd = run->folder_fd = -1;
    run->listen_fd = fds->listen;
    run->secrets_fd = fds->secrets;
    run->lender_fd = -1;
    run->folder = realpath(folder, NULL);
    int rc = run->folder ? 0 : err_errno(err, "attempt folder '%s'", folder);
    struct process_id self;
    if (rc == 0 && plan_read(run->folder, &run->plan, err) < 0)
        rc = -1;
    if (rc == 0 && spool_open(run->folder, run->plan.attempt_id, &run->spool, err) < 0)
        rc = -1;
    if (rc == 0 && process_find(getpid(), &self))
        rc = folder_note_process(run->folder, self, err);
    if (rc == 0)
        rc = signals_open(run, err);
    if (rc == 0) {
        run->ranks = mem_array(run->plan.rank_count, sizeof *run->ranks);
        run->logs = logs_new(run->poller, run->plan.log_bytes_max, on_log, run);
        rc = run_through(run, err);
    }
    run_free(run);
    return rc;
}
