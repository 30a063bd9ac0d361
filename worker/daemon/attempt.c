/* attempt.c - the table of attempts; see daemon.h. */
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/sweep.h"
#include "worker/daemon/daemon.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the table ------------------------------------------------------------------------------- */

struct attempt *attempt_find(struct daemon *daemon, uint64_t attempt_id)
{
    struct attempt *attempt = daemon->attempts;
    while (attempt && attempt->attempt_id != attempt_id)
        attempt = attempt->next;
    return attempt;
}

bool attempt_remembered(const struct daemon *daemon, uint64_t attempt_id)
{
    for (size_t i = 0; i < REMEMBERED_MAX; i++)
        if (daemon->remembered[i] == attempt_id)
            return true;
    return false;
}

struct attempt *attempt_add(struct daemon *daemon, uint64_t attempt_id, const char *folder)
{
    struct attempt *attempt = mem_zalloc(sizeof *attempt);
    attempt->daemon = daemon;
    attempt->attempt_id = attempt_id;
    attempt->folder = mem_strdup(folder);
    attempt->cgroup = mem_strdup("");
    attempt->memory_cgroup = mem_strdup("");
    attempt->device_cgroup = mem_strdup("");
    attempt->state = ATTEMPT_RUNNING;
    attempt->pidfd = attempt->control_fd = attempt->listen_fd = -1;
    attempt->acked = folder_acked(folder);
    attempt->spool_watch = inotify_add_watch(daemon->inotify_fd, folder, IN_MODIFY | IN_CREATE);
    if (attempt->spool_watch < 0) /* the tick looks as well, only later */
        log_warn("attempt %" PRIu64 ": inotify: %s", attempt_id, strerror(errno));
    pump_rewind(attempt);
    attempt->next = daemon->attempts;
    daemon->attempts = attempt;
    daemon->attempt_count++;
    return attempt;
}

static void life_unwatch(struct attempt *attempt)
{
    loop_remove(attempt->pid_watch);
    attempt->pid_watch = NULL;
    if (attempt->pidfd >= 0)
        close(attempt->pidfd);
    attempt->pidfd = -1;
}

static void attempt_free(struct attempt *attempt)
{
    life_unwatch(attempt);
    control_close(attempt);
    care_cancel(attempt);
    if (attempt->listen_fd >= 0)
        close(attempt->listen_fd);
    secret_fds_close(&attempt->secrets);
    loop_timer_stop(&attempt->sweep_timer);
    loop_timer_stop(&attempt->control_timer);
    spool_reader_close(&attempt->reader);
    gang_free(attempt->gang);
    mem_free(attempt->stop_text);
    mem_free(attempt->checkpoint_text);
    process_list_done(&attempt->swept);
    mem_free(attempt->lost_text);
    mem_free(attempt->folder);
    mem_free(attempt->cgroup);
    mem_free(attempt->memory_cgroup);
    mem_free(attempt->device_cgroup);
    mem_free(attempt);
}

static void group_remove(const struct attempt *attempt, const char *cgroup)
{
    if (cgroup[0] && !cgroup_remove(cgroup))
        log_warn("attempt %" PRIu64 ": cgroup '%s' could not be removed", attempt->attempt_id,
                 cgroup);
}

void attempt_remove(struct attempt *attempt)
{
    struct daemon *daemon = attempt->daemon;
    struct attempt **at = &daemon->attempts;
    struct err err = {0};
    if (file_remove_tree(attempt->folder, &err) < 0)
        log_warn("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
    group_remove(attempt, attempt->cgroup);
    group_remove(attempt, attempt->memory_cgroup);
    group_remove(attempt, attempt->device_cgroup);
    slots_release(&daemon->slots, attempt->attempt_id);
    daemon->remembered[daemon->remembered_at++ % REMEMBERED_MAX] = attempt->attempt_id;
    while (*at != attempt)
        at = &(*at)->next;
    *at = attempt->next;
    daemon->attempt_count--;
    attempt_free(attempt);
    daemon_attempt_gone(daemon);
}

void attempts_close(struct daemon *daemon)
{
    for (struct attempt *attempt = daemon->attempts, *next; attempt; attempt = next) {
        next = attempt->next;
        attempt_free(attempt);
    }
    daemon->attempts = NULL;
}

/* ---- ends ------------------------------------------------------------------------------------ */

static bool attempt_is_through(const struct attempt *attempt)
{
    return attempt->finished_seen && attempt->acked == attempt->sent &&
           attempt->reader.next_seq == attempt->acked + 1;
}

void attempt_cleaned(struct attempt *attempt)
{
    slots_release(&attempt->daemon->slots, attempt->attempt_id);
    pending_wake(attempt->daemon);
    health_look(attempt->daemon->health);
    if (attempt->state == ATTEMPT_FENCED || attempt_is_through(attempt))
        attempt_remove(attempt);
    else
        pump_attempt(attempt);
}

static void attempt_ended(struct attempt *attempt)
{
    attempt->state = ATTEMPT_ENDED;
    if (!care_is_wanted(attempt)) {
        attempt_cleaned(attempt);
        return;
    }
    care_after(attempt);
    pump_attempt(attempt);
}

/* A job can remove its attempt's folder, and kill its shepherd: the end is told nevertheless, under
 * a number that the coordinator has not seen. */
static void folder_restore(struct attempt *attempt)
{
    struct err err = {0};
    if (mkdir(attempt->folder, 0700) < 0)
        return; /* it is there, or the spool says why it cannot be */
    log_warn("attempt %" PRIu64 ": its folder was removed, reports may be lost",
             attempt->attempt_id);
    if (folder_set_acked(attempt->folder, max_u64(attempt->acked, attempt->sent), &err) < 0)
        log_warn("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
    spool_reader_close(&attempt->reader);
    if (spool_reader_open(attempt->folder, attempt->sent, &attempt->reader, &err) < 0)
        log_error("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
}

static void end_remember(struct attempt *attempt, enum cause cause, const char *text)
{
    char *copy = mem_strdup(text); /* text may be lost_text */
    mem_free(attempt->lost_text);
    attempt->lost_text = copy;
    attempt->lost_cause = cause;
    attempt->end_known = true;
}

void attempt_finish(struct attempt *attempt, enum cause cause, const char *text)
{
    struct spool_writer spool = {0};
    struct err err = {0};
    struct rec_report report = {.kind = REPORT_FINISHED,
                                .time_us = clock_wall_us(),
                                .cause = cause_name(cause),
                                .name = attempt->node_fault ? "node" : "",
                                .text = {text, strlen(text)},
                                .meta = "{}"};
    log_warn("attempt %" PRIu64 ": %s: %s", attempt->attempt_id, cause_name(cause), text);
    folder_restore(attempt);
    if (spool_open(attempt->folder, attempt->attempt_id, &spool, &err) < 0 ||
        spool_append(&spool, &report, 1, &err) < 0 || spool_sync(&spool, &err) < 0) {
        /* The tick comes back here: the state is still SWEEPING, or RUNNING without a pid. What is
         * known now must be said then. */
        log_error("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
        spool_close(&spool);
        end_remember(attempt, cause, text);
        return;
    }
    spool_close(&spool);
    attempt_ended(attempt);
}

/* What ranks leave in /dev/shm carries their numbers; none is older than the plan. */
static int places_sweep(const struct attempt *attempt, struct err *err)
{
    struct stat plan;
    char *path = folder_file(attempt->folder, FOLDER_PLAN);
    bool planned = stat(path, &plan) == 0;
    size_t count = planned ? attempt->swept.count : 0;
    pid_t *pids = mem_array(count, sizeof *pids);
    for (size_t i = 0; i < count; i++)
        pids[i] = attempt->swept.items[i].pid;
    int rc = sweep_places(attempt->folder, pids, count,
                          planned ? (uint64_t)plan.st_mtim.tv_sec * 1000000 : 0, err);
    mem_free(pids);
    mem_free(path);
    return rc;
}

static void on_sweep(void *user)
{
    struct attempt *attempt = user;
    const char *cgroup = attempt->cgroup[0] ? attempt->cgroup : NULL;
    struct err err = {0};
    if (sweep_processes(attempt->folder, cgroup, &attempt->swept) > 0) {
        loop_timer_start(attempt->daemon->loop, &attempt->sweep_timer, DAEMON_SWEEP_AGAIN_MS);
        return;
    }
    if (places_sweep(attempt, &err) < 0)
        log_warn("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
    if (attempt->state == ATTEMPT_FENCED && care_is_wanted(attempt))
        care_after(attempt);
    else if (attempt->state == ATTEMPT_FENCED)
        attempt_cleaned(attempt);
    else
        attempt_finish(attempt, attempt->lost_cause, attempt->lost_text);
}

static void sweep_start(struct attempt *attempt)
{
    attempt->sweep_timer.fire = on_sweep;
    attempt->sweep_timer.user = attempt;
    loop_timer_start(attempt->daemon->loop, &attempt->sweep_timer, 0);
}

/* The last line of the shepherd's own log, for the evidence. */
static char *log_line_last(const struct attempt *attempt)
{
    char *path = folder_file(attempt->folder, FOLDER_LOG), *text = NULL;
    size_t length;
    struct err err = {0};
    if (file_read(path, (size_t)1 << 20, &text, &length, &err) < 0)
        text = mem_strdup("");
    mem_free(path);
    size_t end = strlen(text);
    while (end > 0 && isspace((unsigned char)text[end - 1]))
        text[--end] = '\0';
    char *line = strrchr(text, '\n');
    char *kept = mem_strndup(line ? line + 1 : text, min_u64(strlen(line ? line + 1 : text), 500));
    mem_free(text);
    return kept;
}

/* True: it ended by itself. */
static bool how_it_died(struct attempt *attempt, char *out, size_t size)
{
    int status = 0;
    bool known = attempt->is_child ? waitpid(attempt->pid, &status, WNOHANG) == attempt->pid
                                   : nursery_ask(&attempt->daemon->nursery, attempt->pid, &status);
    if (!known)
        snprintf(out, size, "the shepherd is gone");
    else if (WIFSIGNALED(status))
        snprintf(out, size, "the shepherd died of signal %d", WTERMSIG(status));
    else
        snprintf(out, size, "the shepherd exited with code %d", WEXITSTATUS(status));
    return known && WIFEXITED(status);
}

/* A shepherd that gave up before its first word could not begin. One that was killed by then, as
 * by a loss of power, is lost like any other: the job's spec says whether to run it again. One that
 * finds the disk full cannot say so, for its log is on that disk: asked before the sweep makes
 * room. */
static void lost_set(struct attempt *attempt, uint64_t last_seq, const char *how, bool gave_up)
{
    if (attempt->end_known)
        return;
    char *line = log_line_last(attempt), *full = disk_full_text(attempt->folder);
    mem_free(attempt->lost_text);
    attempt->lost_cause =
        last_seq == 0 && (gave_up || full[0]) ? CAUSE_LAUNCH_FAILED : CAUSE_SHEPHERD_LOST;
    attempt->lost_text =
        mem_printf("%s; its processes were swept%s%s%s%s", how, line[0] ? "; " : "", line,
                   full[0] ? "; No space left on device: the disk of " : "", full);
    attempt->node_fault = last_seq == 0 && full[0];
    mem_free(full);
    mem_free(line);
}

static void shepherd_gone(struct attempt *attempt)
{
    uint64_t seq = 0, kind = 0;
    struct err err = {0};
    char how[100];
    bool gave_up = false;
    if (spool_last(attempt->folder, &seq, &kind, &err) < 0)
        log_error("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
    if (attempt->is_child || kind != REPORT_FINISHED) /* ours are to be reaped in any case */
        gave_up = how_it_died(attempt, how, sizeof how);
    life_unwatch(attempt);
    control_close(attempt);
    loop_timer_stop(&attempt->control_timer);
    attempt->pid = 0;
    if (attempt->state == ATTEMPT_FENCED) {
        sweep_start(attempt);
    } else if (kind == REPORT_FINISHED) {
        attempt_ended(attempt);
    } else {
        attempt->state = ATTEMPT_SWEEPING;
        lost_set(attempt, seq, how, gave_up);
        sweep_start(attempt);
    }
}

/* ---- the shepherd's life --------------------------------------------------------------------- */

static void on_pidfd(void *user, unsigned events)
{
    (void)events;
    shepherd_gone(user);
}

void attempt_watch(struct attempt *attempt, pid_t pid, int pidfd, bool is_child)
{
    attempt->pid = pid;
    attempt->is_child = is_child;
    attempt->pidfd = pidfd >= 0 ? pidfd : (int)syscall(SYS_pidfd_open, pid, 0);
    if (attempt->pidfd < 0) {
        if (errno != ESRCH)
            log_error("attempt %" PRIu64 ": pidfd_open: %s", attempt->attempt_id, strerror(errno));
        attempt->pid = 0; /* the tick looks at the lock */
        return;
    }
    attempt->pid_watch =
        loop_add_fd(attempt->daemon->loop, attempt->pidfd, LOOP_READ, on_pidfd, attempt);
}

static void on_fence_due(void *user)
{
    const struct attempt *attempt = user;
    if (attempt->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, attempt->pidfd, SIGKILL, NULL, 0);
}

/* A shepherd with neighbours says good-bye first, because the coordinator may not reach theirs. */
static void shepherd_kill(struct attempt *attempt)
{
    syscall(SYS_pidfd_send_signal, attempt->pidfd, attempt->gang ? SIGUSR2 : SIGKILL, NULL, 0);
    if (!attempt->gang)
        return;
    attempt->control_timer.fire = on_fence_due; /* it is asked nothing more */
    attempt->control_timer.user = attempt;
    loop_timer_start(attempt->daemon->loop, &attempt->control_timer, DAEMON_FENCE_MS);
}

void attempt_fence(struct attempt *attempt)
{
    if (attempt->state == ATTEMPT_FENCED && attempt->pidfd >= 0)
        return; /* a repeat */
    bool is_empty = attempt->cleaning && (attempt->hook || attempt->care_timer.loop);
    log_info("attempt %" PRIu64 " is fenced", attempt->attempt_id);
    attempt->state = ATTEMPT_FENCED;
    attempt->window_count = 0;
    control_close(attempt);
    if (is_empty)
        return; /* the end of the epilog removes it */
    care_cancel(attempt);
    if (attempt->pidfd >= 0)
        shepherd_kill(attempt);
    else
        sweep_start(attempt);
}

/* Its lock says whether a shepherd lives; its note says which process it is. */
static void shepherd_seek(struct attempt *attempt)
{
    struct process_id *noted = NULL, now;
    size_t count = 0;
    struct err err = {0};
    int fd;
    if (folder_lock(attempt->folder, &fd, &err) == 0) {
        close(fd);
        shepherd_gone(attempt);
        return;
    }
    if (err.kind != ERR_EXISTS)
        log_error("attempt %" PRIu64 ": %s", attempt->attempt_id, err.text);
    if (folder_processes(attempt->folder, &noted, &count, &err) == 0 && count &&
        process_find(noted[0].pid, &now) && now.start_ticks == noted[0].start_ticks)
        attempt_watch(attempt, now.pid, -1, false);
    mem_free(noted);
}

/* ---- discovery ------------------------------------------------------------------------------- */

static void slots_restore(struct daemon *daemon, uint64_t attempt_id, const struct plan *plan)
{
    for (size_t i = 0; i < plan->rank_count; i++) {
        const struct plan_rank *rank = &plan->ranks[i];
        char *gpus = mem_strdup(rank->gpus), *save = NULL;
        for (size_t k = 0; k < rank->cpu_count; k++)
            slots_mark_cpu(&daemon->slots, attempt_id, rank->cpus[k]);
        if (rank->cpu_count == 0)
            slots_mark_unbound(&daemon->slots, attempt_id, (size_t)plan->cores);
        for (char *gpu = strtok_r(gpus, ",", &save); gpu; gpu = strtok_r(NULL, ",", &save))
            slots_mark_gpu(&daemon->slots, attempt_id, gpu);
        mem_free(gpus);
    }
}

static void folder_found(struct daemon *daemon, uint64_t attempt_id, const char *folder)
{
    struct plan plan;
    struct err err = {0};
    int rc = plan_read(folder, &plan, &err);
    if (rc < 0 && err.kind == ERR_NOT_FOUND) { /* we died before it was started */
        if (file_remove_tree(folder, &err) < 0)
            log_warn("attempt %" PRIu64 ": %s", attempt_id, err.text);
        return;
    }
    struct attempt *attempt = attempt_add(daemon, attempt_id, folder);
    if (rc < 0) {
        log_error("attempt %" PRIu64 ": %s", attempt_id, err.text);
    } else {
        attempt->job_id = plan.job_id;
        attempt->epoch = plan.epoch;
        mem_free(attempt->cgroup);
        mem_free(attempt->memory_cgroup);
        mem_free(attempt->device_cgroup);
        attempt->cgroup = mem_strdup(plan.cgroup);
        attempt->memory_cgroup = mem_strdup(plan.memory_cgroup);
        attempt->device_cgroup = mem_strdup(plan.device_cgroup);
        attempt->gang = gang_from_plan(&plan);
        attempt->node = attempt->gang ? attempt->gang->node : 0;
        attempt->cared_for = true;
        slots_restore(daemon, attempt_id, &plan);
        plan_done(&plan);
    }
    shepherd_seek(attempt);
    log_info("attempt %" PRIu64 " found again, %s", attempt_id,
             attempt->state == ATTEMPT_RUNNING ? "running" : "ended");
}

int attempts_discover(struct daemon *daemon, struct err *err)
{
    DIR *dir = opendir(daemon->attempts_dir);
    if (!dir)
        return err_errno(err, "open '%s'", daemon->attempts_dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        uint64_t attempt_id;
        int used = 0;
        if (sscanf(entry->d_name, "%" SCNu64 "%n", &attempt_id, &used) != 1 ||
            entry->d_name[used] || attempt_id == 0)
            continue;
        char *folder = folder_file(daemon->attempts_dir, entry->d_name);
        folder_found(daemon, attempt_id, folder);
        mem_free(folder);
    }
    closedir(dir);
    return 0;
}

void attempts_tick(struct daemon *daemon)
{
    uint64_t now_ms = clock_steady_ms();
    for (struct attempt *attempt = daemon->attempts, *next; attempt; attempt = next) {
        next = attempt->next; /* what follows may remove this one, and only this one */
        if (attempt->state == ATTEMPT_RUNNING && attempt->pid == 0)
            shepherd_seek(attempt);
        else if (attempt->state == ATTEMPT_SWEEPING && !attempt->sweep_timer.loop)
            sweep_start(attempt);
        else if (attempt->window_count > 0 && now_ms - attempt->sent_ms >= PUMP_AGAIN_MS)
            pump_rewind(attempt);
        else
            pump_attempt(attempt);
    }
}
