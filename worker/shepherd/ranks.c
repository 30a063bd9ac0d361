/* ranks.c - starting ranks and collecting their ends; see run.h. */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/attempt/procs.h"
#include "worker/shepherd/launch.h"
#include "worker/shepherd/run.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- starting -------------------------------------------------------------------------------- */

static int pmix_start(struct run *run, struct err *err)
{
    /* The same on all nodes; on one, the pid tells clusters of one machine apart. */
    char *nspace = mem_printf("athanor-%" PRIu64 "-%d", run->plan.attempt_id,
                              run->plan.gang ? 0 : (int)getpid());
    char *folder = mem_printf("%s/pmix", run->places.tmp);
    struct pmix_host_config config = {nspace, run->plan.rank_count, run->plan.gang, run->links,
                                      folder, run->wake_fd};
    int rc = mkdir(folder, 0700) < 0 ? err_errno(err, "make '%s'", folder)
                                     : run->pmix->open(&config, err);
    mem_free(folder);
    mem_free(nspace);
    return rc;
}

/* Before PMIx: a fence may come as soon as there are ranks. Programs that need no PMIx have the
 * links all the same, which notice the loss of a node. */
static int links_start(struct run *run, struct err *err)
{
    const struct gang_host *links;
    struct gang_config config = {.plan = run->plan.gang,
                                 .listen_fd = run->listen_fd,
                                 .wake_fd = run->wake_fd,
                                 .ask_local = run->pmix ? run->pmix->ask : NULL};
    if (gang_host_load(&links, err) < 0 || links->open(&config, err) < 0)
        return -1;
    run->links = links;
    return 0;
}

static int hosts_start(struct run *run, struct err *err)
{
    bool with_pmix = run->plan.launcher == PLAN_PMIX;
    if (with_pmix && pmix_host_load(&run->pmix, err) < 0)
        return -1;
    if (run->plan.gang && links_start(run, err) < 0)
        return -1;
    return with_pmix ? pmix_start(run, err) : 0;
}

static void assign(void *user, const char *assignment)
{
    environment_assign(user, assignment);
}

static int rank_start(struct run *run, unsigned index, int cgroup_fd, struct err *err)
{
    struct environment environment = {0};
    struct secret_fds secrets;
    struct rank *rank = &run->ranks[index];
    int out, error, rc = 0;
    if (secrets_lend(run, &secrets, err) < 0)
        return -1;
    environment_build(&run->plan, &run->places, index, &environment);
    secrets_environment(run, &secrets, &environment);
    if (run->plan.pty && !environment_get(&environment, "TERM"))
        environment_assign(&environment, "TERM=dumb"); /* lines, but neither colours nor cursors */
    if (run->pmix)
        rc = run->pmix->environment(run_rank(run, index), assign, &environment, err);
    struct launch launch = {.arguments = run->plan.command,
                            .environment = environment.items,
                            .folder = run->plan.cwd[0] ? run->plan.cwd : run->places.run_dir,
                            .cpus = run->plan.ranks[index].cpus,
                            .cpu_count = run->plan.ranks[index].cpu_count,
                            .numa = run->plan.ranks[index].has_numa ? run->plan.ranks[index].numa
                                                                    : NULL,
                            .cgroup_fd = cgroup_fd,
                            .pty = run->plan.pty,
                            .kept_fds = secrets.fds,
                            .kept_count = secrets.count};
    if (rc == 0) {
        enum launch_fault fault;
        rc = launch_rank(&launch, &rank->pid, &out, &error, &fault, err);
        run->node_fault = rc < 0 && fault == LAUNCH_FAULT_NODE;
    }
    environment_done(&environment);
    secret_fds_close(&secrets);
    if (rc < 0)
        return err_wrap(err, "rank %u", run_rank(run, index));
    logs_add(run->logs, out, index, "stdout");
    logs_add(run->logs, error, index, "stderr");
    struct process_id id;
    if (process_find(rank->pid, &id))
        return folder_note_process(run->folder, id, err);
    return 0; /* ended already */
}

#define VALUE_SHOWN_MAX    200u    /* bytes of a variable's value that are recorded */
#define RECORDED_BYTES_MAX 16384u /* as JSON: a quarter of what a report's text may hold */

/* Such values are not written down; secrets do not belong into the environment at all. */
static bool is_secret(const char *name, const char *value)
{
    static const char *const marks[] = {"TOKEN", "SECRET", "PASS", "CREDENTIAL", "KEY", "AUTH",
                                        "COOKIE"};
    for (size_t i = 0; i < ARRAY_COUNT(marks); i++)
        if (strcasestr(name, marks[i]))
            return true;
    const char *address = strstr(value, "://"); /* scheme://user:password@host */
    return address && strchr(address, '@');
}

/* At most VALUE_SHOWN_MAX bytes of it, cut between characters. */
static json_t *value_json(const char *value)
{
    size_t length = strnlen(value, VALUE_SHOWN_MAX);
    while (length > 0 && ((unsigned char)value[length] & 0xc0) == 0x80)
        length--;
    json_t *text = json_stringn(value, length);
    return text ? text : json_string("(not UTF-8)");
}

/* The variables of the first rank here, but for those of the contract, which follow from the
 * attempt. What does not fit into the report is left out, and how many that were is told. */
static json_t *environment_json(struct run *run)
{
    struct environment environment = {0};
    json_t *object = json_object();
    size_t bytes = 0, left_out = 0;
    environment_build(&run->plan, &run->places, 0, &environment);
    for (size_t i = 0; i < environment.count; i++) {
        size_t length = strcspn(environment.items[i], "=");
        char *name = mem_strndup(environment.items[i], length);
        const char *value = environment.items[i] + length + 1;
        if (strncmp(name, "ATHANOR_", 8) != 0) {
            json_t *text = is_secret(name, value) ? json_string("(withheld)") : value_json(value);
            size_t more = length + 6 + json_dumpb(text, NULL, 0, JSON_ENCODE_ANY);
            if (bytes + more > RECORDED_BYTES_MAX || json_object_set(object, name, text) < 0)
                left_out++;
            else
                bytes += more;
            json_decref(text);
        }
        mem_free(name);
    }
    if (left_out)
        json_object_set_new(object, "(left out)", json_integer((json_int_t)left_out));
    environment_done(&environment);
    return object;
}

static void started_report(struct run *run)
{
    json_t *pids = json_array(), *cores = json_array(), *gpus = json_array();
    for (size_t i = 0; i < run->plan.rank_count; i++) {
        const struct plan_rank *rank = &run->plan.ranks[i];
        json_array_append_new(pids, json_integer(run->ranks[i].pid));
        for (size_t k = 0; k < rank->cpu_count; k++)
            json_array_append_new(cores, json_integer(rank->cpus[k]));
        if (rank->gpus[0])
            json_array_append_new(gpus, json_string(rank->gpus));
    }
    json_t *meta =
        json_pack("{s:i, s:i, s:o, s:o, s:o, s:o}", "pid", (int)run->ranks[0].pid, "shepherd_pid",
                  (int)getpid(), "pids", pids, "cores", cores, "gpus", gpus,
                  "environment", environment_json(run));
    CHECK(meta);
    char *text = json_dumps(meta, JSON_COMPACT);
    struct rec_report report = {.kind = REPORT_STARTED, .meta = text};
    reports_add(run, &report);
    mem_free(text);
    json_decref(meta);
}

int ranks_start(struct run *run, struct err *err)
{
    if (secrets_open(run, err) < 0 || hosts_start(run, err) < 0)
        return -1;
    int cgroup_fd = run->plan.cgroup[0] ? cgroup_open(run->plan.cgroup, "ranks") : -1;
    bool ours = run->plan.launcher != PLAN_MPIRUN;
    int rc = ours ? 0 : mpirun_start(run, err);
    for (unsigned i = 0; ours && rc == 0 && i < run->plan.rank_count; i++)
        rc = rank_start(run, i, cgroup_fd, err);
    if (cgroup_fd >= 0)
        close(cgroup_fd);
    if (rc == 0)
        started_report(run);
    return rc;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static struct rank *rank_of(struct run *run, pid_t pid)
{
    for (size_t i = 0; i < run->plan.rank_count; i++)
        if (run->ranks[i].pid == pid)
            return &run->ranks[i];
    return NULL;
}

static void usage_add(struct rusage *sum, const struct rusage *one)
{
    timeradd(&sum->ru_utime, &one->ru_utime, &sum->ru_utime);
    timeradd(&sum->ru_stime, &one->ru_stime, &sum->ru_stime);
    if (one->ru_maxrss > sum->ru_maxrss)
        sum->ru_maxrss = one->ru_maxrss;
}

static void rank_ended(struct run *run, struct rank *rank, int status, const struct rusage *usage)
{
    bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    rank->ended = true;
    rank->status = status;
    rank->usage = *usage;
    run->ended_count++;
    if (well)
        return;
    /* After we began to stop the attempt, how ranks end says nothing about why. */
    if (!run->failed && run->stop_cause == CAUSE_NONE && !run->launch_error) {
        run->failed = true;
        run->failed_rank = (unsigned)(rank - run->ranks);
        peers_tell(run, 0);
    }
    run_input(run, INPUT_FAILED);
}

/* We are the subreaper: whatever descends from a rank ends up here, so that "no child left" is
 * the same as "no process left". */
void ranks_reap(struct run *run)
{
    for (;;) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0) {
            if (!mpirun_waits(run))
                run_input(run, INPUT_EMPTY);
            return;
        }
        if (pid == 0)
            break;
        if (run->pid_count < RUN_PIDS_MAX)
            run->pids[run->pid_count++] = pid;
        /* What mpirun's daemons left to us says nothing about why: mpirun judges. */
        struct rank *rank = run->plan.launcher == PLAN_MPIRUN ? NULL : rank_of(run, pid);
        if (rank)
            rank_ended(run, rank, status, &usage);
        else
            usage_add(&run->others, &usage);
        mpirun_reaped(run, pid, status);
        exec_reaped(run, pid, status);
    }
    if (run->ended_count == run->plan.rank_count)
        run_input(run, INPUT_DONE);
}

void ranks_signal(struct run *run, int signal_number)
{
    struct process_list list = {0};
    if (run->plan.cgroup[0])
        cgroup_processes(run->plan.cgroup, "ranks", &list);
    processes_below(getpid(), &list); /* also those that left the cgroup, or were never in it */
    for (size_t i = 0; i < list.count; i++)
        process_signal(list.items[i], signal_number);
    process_list_done(&list);
}

/* ---- usage ----------------------------------------------------------------------------------- */

static json_int_t ms_of(struct timeval time)
{
    return (json_int_t)time.tv_sec * 1000 + time.tv_usec / 1000;
}

static json_t *rank_usage(const struct rank *rank)
{
    json_t *usage = json_object();
    if (!rank->ended)
        return usage;
    if (WIFSIGNALED(rank->status))
        json_object_set_new(usage, "signal", json_integer(WTERMSIG(rank->status)));
    else
        json_object_set_new(usage, "exit_code", json_integer(WEXITSTATUS(rank->status)));
    json_object_set_new(usage, "cpu_ms",
                        json_integer(ms_of(rank->usage.ru_utime) + ms_of(rank->usage.ru_stime)));
    json_object_set_new(usage, "max_rss_bytes", json_integer(rank->usage.ru_maxrss * 1024));
    return usage;
}

char *ranks_usage(const struct run *run)
{
    struct rusage sum = run->others;
    json_t *ranks = json_array();
    for (size_t i = 0; i < run->plan.rank_count; i++) {
        usage_add(&sum, &run->ranks[i].usage);
        json_array_append_new(ranks, rank_usage(&run->ranks[i]));
    }
    json_t *usage = json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "wall_ms",
                              (json_int_t)(clock_steady_ms() - run->started_ms), "cpu_user_ms",
                              ms_of(sum.ru_utime), "cpu_system_ms", ms_of(sum.ru_stime),
                              "max_rss_bytes", (json_int_t)sum.ru_maxrss * 1024,
                              "memory_peak_bytes", (json_int_t)run->memory_peak, "ranks", ranks);
    CHECK(usage);
    char *text = json_dumps(usage, JSON_COMPACT);
    json_decref(usage);
    return text;
}
