/* mpirun.c - see mpirun.h. */
#include "worker/shepherd/mpirun.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/attempt/cgroup.h"
#include "worker/attempt/folder.h"
#include "worker/shepherd/launch.h"
#include "worker/shepherd/run.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MPIRUN_TOLD "noticed that process rank "
#define AGENTS_MAX GANG_NODES_MAX /* one for each node */

/* What links tell on their thread, for ours to pass on to athanor-rsh. */
static struct {
    pthread_mutex_t lock;
    struct word {
        struct word *next;
        unsigned node;
        bool ok;
        char text[200];
    } *words;
    int wake_fd;
} ends = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake_fd = -1};

/* ---- pure ------------------------------------------------------------------------------------ */

/* The number after the first `before`, which ends at `after`. */
static bool number_find(const char *text, const char *before, char after, unsigned long *out)
{
    const char *at = strstr(text, before);
    char *end;
    if (!at || !isdigit((unsigned char)at[strlen(before)]))
        return false;
    errno = 0;
    *out = strtoul(at + strlen(before), &end, 10);
    return errno == 0 && *end == after;
}

bool mpirun_signal_told(const char *text, unsigned *out_rank, int *out_signal)
{
    unsigned long rank, number;
    const char *at = strstr(text, MPIRUN_TOLD);
    if (!at || !number_find(at, MPIRUN_TOLD, ' ', &rank) || rank > UINT_MAX ||
        !number_find(at, " exited on signal ", ' ', &number) || number < 1 || number > 64)
        return false;
    *out_rank = (unsigned)rank;
    *out_signal = (int)number;
    return true;
}

bool mpirun_node_of(const char *host, unsigned *out_node)
{
    unsigned long node;
    if (strncmp(host, "node-", 5) != 0 || !number_find(host, "node-", '-', &node) ||
        node >= GANG_NODES_MAX)
        return false;
    *out_node = (unsigned)node;
    return true;
}

static const char *hosts_text(const struct plan *plan, const char *host, struct arena *arena)
{
    struct buf text = {0};
    buf_printf(&text, "%s:%zu", host, plan->gang ? plan->gang->nodes[0].ranks : plan->rank_count);
    for (unsigned i = 1; plan->gang && i < plan->gang->node_count; i++)
        buf_printf(&text, ",node-%u-%s:%u", i, plan->gang->nodes[i].name,
                   plan->gang->nodes[i].ranks);
    const char *copy = arena_strdup(arena, buf_text(&text));
    buf_done(&text);
    return copy;
}

/* Reasons, each seen to matter with Open MPI 4.1:
 * - the agent must exist on node 0 alone, so no node may start others (no_tree_spawn);
 * - orted would leave its session, and with it our knowledge of how it ended;
 * - settings in the environment differ from node to node (paths), and mpirun would give its own
 *   to all (pass_environ_mca_params);
 * - names of nodes are ours and mean nothing to a resolver, which may be slow to say so;
 * - binding is done by us, and a node's cores are all that its ranks can get, so more ranks (of
 *   MPI_Comm_spawn) share them: oversubscribed, and polling yields. */
char **mpirun_words(const struct plan *plan, const char *host, const char *network,
                    const char *agent, struct arena *arena)
{
    const char *const fixed[] = {
        "mpirun", "--leave-session-attached", "--bind-to", "none", "--oversubscribe",
        "-n", arena_printf(arena, "%u", plan->world_size),
        "--host", hosts_text(plan, host, arena),
        "--mca", "plm", "rsh", "--mca", "ras", "^slurm,tm,gridengine,loadleveler",
        "--mca", "plm_rsh_agent", agent, "--mca", "plm_rsh_no_tree_spawn", "1",
        "--mca", "plm_rsh_pass_environ_mca_params", "0",
        "--mca", "orte_keep_fqdn_hostnames", "1", "--mca", "if_base_do_not_resolve", "1",
        "--mca", "oob_tcp_if_include", network, "--mca", "btl_tcp_if_include", network,
        "--mca", "mpi_yield_when_idle", "1", "--mca", "btl_base_warn_component_unused", "0",
        agent, "--rank", "--"};
    size_t count = ARRAY_COUNT(fixed), own = 0;
    while (plan->command[own])
        own++;
    char **words = arena_alloc(arena, (count + own + 1) * sizeof *words);
    for (size_t i = 0; i < count; i++)
        words[i] = arena_strdup(arena, fixed[i]);
    for (size_t i = 0; i <= own; i++)
        words[count + i] = plan->command[i];
    return words;
}

/* ---- a process of the attempt ---------------------------------------------------------------- */

static int launcher_start(struct run *run, char *const *words, struct err *err)
{
    struct environment environment = {0};
    int out, error;
    environment_build(&run->plan, &run->places, 0, &environment);
    struct launch launch = {.arguments = words,
                            .environment = environment.items,
                            .folder = run->places.run_dir,
                            .cgroup_fd =
                                run->plan.cgroup[0] ? cgroup_open(run->plan.cgroup, "ranks") : -1};
    enum launch_fault fault;
    int rc = launch_rank(&launch, &run->launcher.pid, &out, &error, &fault, err);
    run->node_fault = rc < 0 && fault == LAUNCH_FAULT_NODE;
    environment_done(&environment);
    if (launch.cgroup_fd >= 0)
        close(launch.cgroup_fd);
    if (rc < 0)
        return -1;
    logs_add(run->logs, out, 0, "stdout");
    logs_add(run->logs, error, 0, "stderr");
    struct process_id id;
    return process_find(run->launcher.pid, &id) ? folder_note_process(run->folder, id, err) : 0;
}

/* ---- node 0: athanor-rsh asks for orted elsewhere -------------------------------------------- */

static void on_exec_end(void *cookie, bool ok, const char *bytes, size_t length)
{
    struct word *word = cookie;
    uint64_t one = 1;
    word->ok = ok;
    snprintf(word->text, sizeof word->text, "%.*s", (int)min_u64(length, 199), bytes ? bytes : "");
    pthread_mutex_lock(&ends.lock);
    word->next = ends.words;
    ends.words = word;
    pthread_mutex_unlock(&ends.lock);
    ssize_t wrote = write(ends.wake_fd, &one, sizeof one);
    (void)wrote; /* only fails when a wake-up is pending already */
}

static int exec_ask(struct run *run, const json_t *root, struct err *err)
{
    const char *host = json_string_value(json_object_get(root, "host"));
    const char *words = json_string_value(json_object_get(root, "words"));
    unsigned node;
    if (!host || !words || !run->links)
        return err_set(err, ERR_INVALID,
                       "expected \"host\" and \"words\", of an attempt on several nodes");
    if (!mpirun_node_of(host, &node) || node == 0 || node >= run->plan.gang->node_count)
        return err_set(err, ERR_NOT_FOUND, "host '%.100s': expected node-N-NAME, N from 1 to %u",
                       host, run->plan.gang->node_count - 1);
    struct word *word = mem_zalloc(sizeof *word);
    word->node = node;
    run->links->exec(node, words, on_exec_end, word);
    return 0;
}

static void tell_agents(struct run *run, unsigned node, bool ok, const char *text)
{
    json_t *root = json_pack("{s:i, s:b, s:s}", "node", (int)node, "ok", ok, "text", text);
    char *line = root ? json_dumps(root, JSON_COMPACT) : NULL;
    if (line && run->launcher.agents)
        line_server_broadcast(run->launcher.agents, line);
    mem_free(line);
    json_decref(root);
}

static int on_agent_line(void *user, struct line_client *client, char *line, size_t length,
                         struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(line, length, 0, &why);
    int rc = root ? exec_ask(user, root, err)
                  : err_set(err, ERR_INVALID, "not a JSON line: %s", why.text);
    json_decref(root);
    if (rc < 0) {
        json_t *refusal = json_pack("{s:s}", "refused", err->text);
        char *text = refusal ? json_dumps(refusal, JSON_COMPACT) : NULL;
        line_client_send(client, text ? text : "{\"refused\":\"\"}");
        mem_free(text);
        json_decref(refusal);
    }
    return rc;
}

static void on_agent_refused(void *user, const struct line_client *client, const struct err *why)
{
    (void)user, (void)client;
    log_warn("athanor-rsh: %s", why->text);
}

static int agents_open(struct run *run, struct err *err)
{
    char *path = mem_printf("%s/" MPIRUN_SOCKET, run->places.tmp);
    struct line_server_config config = {path, 0600, AGENTS_MAX, on_agent_line, on_agent_refused,
                                        run};
    ends.wake_fd = run->wake_fd;
    int rc = line_server_open(run->poller, &config, &run->launcher.agents, err);
    mem_free(path);
    return rc;
}

static int mpirun_run(struct run *run, struct err *err)
{
    char host[HOST_NAME_MAX + 1] = "", network[ENVIRONMENT_NETWORK_SIZE], *agent;
    struct arena arena = {0};
    if (agents_open(run, err) < 0 || file_module("athanor-rsh", &agent, err) < 0)
        return -1;
    gethostname(host, sizeof host - 1);
    environment_network(&run->plan, network);
    int rc = launcher_start(run, mpirun_words(&run->plan, host, network, agent, &arena), err);
    arena_done(&arena);
    mem_free(agent);
    return rc < 0 ? err_wrap(err, "launcher: mpirun") : 0;
}

/* ---- every node ------------------------------------------------------------------------------ */

/* Kept open for writing too, so that it does not end when a rank does. */
static int pipe_make(struct run *run, unsigned index, const char *stream, const char *name,
                     struct err *err)
{
    char *path = mem_printf("%s/.%s.%u", run->places.tmp, name, index);
    int fd = mkfifo(path, 0600) == 0 ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
    int rc = fd < 0 ? err_errno(err, "make the pipe '%s'", path) : 0;
    if (fd >= 0)
        logs_add(run->logs, fd, index, stream);
    mem_free(path);
    return rc;
}

int mpirun_start(struct run *run, struct err *err)
{
    for (unsigned i = 0; i < run->plan.rank_count; i++)
        if (pipe_make(run, i, "stdout", "out", err) < 0 ||
            pipe_make(run, i, "stderr", "err", err) < 0)
            return -1;
    return run->plan.first_rank == 0 ? mpirun_run(run, err) : 0;
}

static void orted_start(struct run *run, const char *words)
{
    struct err err = {0};
    char *const shell[] = {"sh", "-c", (char *)words, NULL};
    if (run->state != RUN_UP || run->launcher.ended)
        run->links->executed(false, "the attempt is being ended here");
    else if (launcher_start(run, shell, &err) < 0) {
        run->links->executed(false, err.text);
        run->launcher.ended = true;
        run_launch_failed(run, &err);
        run_input(run, INPUT_FAILED);
    }
}

void mpirun_wake(struct run *run)
{
    if (!run->links || run->plan.launcher != PLAN_MPIRUN)
        return;
    char *words = run->links->wanted();
    if (words)
        orted_start(run, words);
    mem_free(words);
    pthread_mutex_lock(&ends.lock);
    struct word *word = ends.words, *next;
    ends.words = NULL;
    pthread_mutex_unlock(&ends.lock);
    for (; word; word = next) {
        next = word->next;
        tell_agents(run, word->node, word->ok, word->text);
        mem_free(word);
    }
}

bool mpirun_waits(const struct run *run)
{
    return run->plan.launcher == PLAN_MPIRUN && run->state == RUN_UP && !run->launcher.ended &&
           !run->launcher.over && !run->launch_error;
}

void mpirun_over(struct run *run)
{
    run->launcher.over = true;
    run_input(run, INPUT_DONE);
}

static void launcher_failed(struct run *run)
{
    if (!run->failed && run->stop_cause == CAUSE_NONE && !run->launch_error) {
        run->failed = run->launcher.failed = true;
        logs_drain(run->logs); /* what it said last is why */
        peers_tell(run, 0);
    }
    run_input(run, INPUT_FAILED);
}

static void mpirun_ended(struct run *run, int status)
{
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        launcher_failed(run);
        return;
    }
    if (run->links && run->stop_cause == CAUSE_NONE) {
        struct gang_end end = {.node = 0, .cause = "success", .began_ms = clock_steady_ms()};
        run->links->end(&end);
    }
    mpirun_over(run);
}

/* The shell that ran it says in its own way that it died; 64 is the last signal. */
static int status_of_shell(int status)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    return code > 128 && code <= 128 + 64 ? code - 128 : status;
}

/* Its exit code is for mpirun to judge, which tells us; only a death is ours to tell. */
static void orted_ended(struct run *run, int status)
{
    char text[64];
    snprintf(text, sizeof text, "%d",
             WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    run->links->executed(true, text);
    if (WIFSIGNALED(status) && !run->launcher.over)
        launcher_failed(run);
    else
        run_input(run, INPUT_DONE);
}

void mpirun_reaped(struct run *run, pid_t pid, int status)
{
    struct launcher *launcher = &run->launcher;
    if (run->plan.launcher != PLAN_MPIRUN || launcher->pid != pid || launcher->ended)
        return;
    launcher->ended = true;
    launcher->status = run->plan.first_rank == 0 ? status : status_of_shell(status);
    if (run->plan.first_rank == 0)
        mpirun_ended(run, launcher->status);
    else
        orted_ended(run, launcher->status);
}

void mpirun_tick(struct run *run)
{
    if (run->plan.launcher != PLAN_MPIRUN)
        return;
    for (unsigned i = 0; i < run->plan.rank_count; i++) {
        struct err err = {0};
        char *text = NULL;
        size_t length;
        uint64_t number;
        if (run->ranks[i].pid)
            continue;
        char *path = mem_printf("%s/.pid.%u", run->places.tmp, i);
        if (file_read(path, 32, &text, &length, &err) == 0 &&
            parse_u64(text, &number, &err) == 0 && number <= INT_MAX)
            run->ranks[i].pid = (pid_t)number;
        mem_free(text);
        mem_free(path);
    }
}

void mpirun_listen(struct run *run, const char *bytes, size_t length)
{
    unsigned rank;
    int number;
    if (run->launcher.said[0])
        return;
    char *text = mem_strndup(bytes, length);
    if (mpirun_signal_told(text, &rank, &number)) {
        const char *line = strstr(text, MPIRUN_TOLD);
        snprintf(run->launcher.said, sizeof run->launcher.said, "mpirun %.*s",
                 (int)strcspn(line, "\n"), line);
    }
    mem_free(text);
}
