/* slurm.c - see slurm.h. */
#include "client/pilot/slurm.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- what it prints -------------------------------------------------------------------------- */

/* States of squeue: what has nodes runs, what is being cleared away ends, all else waits. */
static enum allocation_state state_of(const char *text)
{
    static const char *const running[] = {"RUNNING",   "SUSPENDED", "STOPPED",    "SIGNALING",
                                          "STAGE_OUT", "RESIZING",  "CONFIGURING"};
    static const char *const waiting[] = {"PENDING",     "REQUEUED",      "REQUEUE_HOLD",
                                          "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT",
                                          "REVOKED"};
    for (size_t i = 0; i < ARRAY_COUNT(running); i++)
        if (strcmp(text, running[i]) == 0)
            return ALLOCATION_RUNNING;
    for (size_t i = 0; i < ARRAY_COUNT(waiting); i++)
        if (strcmp(text, waiting[i]) == 0)
            return ALLOCATION_WAITING;
    return ALLOCATION_ENDING;
}

static int line_parse(char *line, struct slurm_job *out, struct err *err)
{
    char *state = strchr(line, '|'), *name = state ? strchr(state + 1, '|') : NULL;
    if (!name)
        return err_set(err, ERR_PROTOCOL, "squeue says '%.100s', expected ID|STATE|NAME", line);
    *state++ = *name++ = '\0';
    line[strcspn(line, "_+")] = '\0'; /* of arrays and heterogeneous jobs, which ours are not */
    if (parse_u64(line, &out->id, err) < 0)
        return err_wrap(err, "squeue");
    out->state = state_of(state);
    out->name = name;
    return 0;
}

int slurm_parse_queue(const char *text, size_t length, struct arena *arena, struct slurm_job **out,
                      size_t *out_count, struct err *err)
{
    char *copy = arena_strndup(arena, text ? text : "", length), *save = NULL;
    size_t lines = 1, count = 0;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    struct slurm_job *jobs = arena_alloc(arena, lines * sizeof *jobs);
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (line_parse(line, &jobs[count++], err) < 0)
            return -1;
    *out = jobs;
    *out_count = count;
    return 0;
}

/* The value of "NAME=" in "A=1 B=two C=3"; values of interest have no blanks. */
static const char *value_of(const char *text, const char *name, struct arena *arena)
{
    size_t length = strlen(name);
    for (const char *at = text; (at = strstr(at, name)); at += length)
        if (at == text || at[-1] == ' ' || at[-1] == '\n')
            return arena_strndup(arena, at + length, strcspn(at + length, " \n"));
    return "";
}

enum end slurm_parse_end(const char *text, size_t length, struct arena *arena,
                         const char **out_reason)
{
    static const struct {
        const char *state;
        enum end end;
    } ends[] = {{"CANCELLED", END_CANCELLED},    {"PREEMPTED", END_PREEMPTED},
                {"TIMEOUT", END_TIMEOUT},        {"NODE_FAIL", END_NODE_FAIL},
                {"BOOT_FAIL", END_NO_WORKER},    {"COMPLETED", END_NO_WORKER},
                {"FAILED", END_NO_WORKER},       {"DEADLINE", END_NO_WORKER},
                {"OUT_OF_MEMORY", END_NO_WORKER}};
    const char *copy = arena_strndup(arena, text ? text : "", length);
    const char *state = value_of(copy, "JobState=", arena);
    *out_reason =
        arena_printf(arena, "%s %s exit code %s", *state ? state : "no longer known",
                     value_of(copy, "Reason=", arena), value_of(copy, "ExitCode=", arena));
    for (size_t i = 0; i < ARRAY_COUNT(ends); i++)
        if (strncmp(state, ends[i].state, strlen(ends[i].state)) == 0)
            return ends[i].end;
    return END_UNKNOWN;
}

uint32_t slurm_slot(const char *job_name, const char *name, const char *pool)
{
    const char *parts[] = {"athanor-", name, "-", pool, "-"};
    uint64_t slot;
    struct err err;
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        size_t length = strlen(parts[i]);
        if (strncmp(job_name, parts[i], length) != 0)
            return 0;
        job_name += length;
    }
    return parse_u64(job_name, &slot, &err) == 0 && slot <= PILOT_ALLOCATIONS_MAX ? (uint32_t)slot
                                                                                  : 0;
}

/* ---- running its programs ---------------------------------------------------------------------
 */

static int spawn_into(const char *const *words, int to, pid_t *out_pid, struct err *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, to, 1);
    posix_spawn_file_actions_adddup2(&actions, to, 2);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    errno = posix_spawnp(out_pid, words[0], &actions, &attributes, (char *const *)(uintptr_t)words,
                         environ);
    int rc = errno ? err_errno(err, "starting %s", words[0]) : 0;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

static int read_until(int fd, uint64_t until_ms, struct buf *out, struct err *err)
{
    char chunk[16384];
    for (;;) {
        uint64_t now_ms = clock_steady_ms();
        struct pollfd pollfd = {.fd = fd, .events = POLLIN};
        if (now_ms >= until_ms)
            return err_set(err, ERR_TIMEOUT, "no answer in time");
        if (poll(&pollfd, 1, (int)min_u64(until_ms - now_ms, 1000)) <= 0)
            continue;
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got == 0 || (got < 0 && errno != EINTR))
            return 0;
        if (got > 0)
            buf_add(out, chunk, (size_t)got);
        if (out->length > SLURM_OUTPUT_MAX)
            return err_set(err, ERR_LIMIT, "it printed more than %zu bytes", SLURM_OUTPUT_MAX);
    }
}

static int outcome(const char *program, int status, const struct buf *out, struct err *err)
{
    const char *said = buf_text(out);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return err_set(err, ERR_IO, "%s %s %d: %.*s", program,
                   WIFEXITED(status) ? "exits with" : "died of signal",
                   WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status),
                   (int)strcspn(said, "\n"), said);
}

int command_run(const char *const *words, uint64_t timeout_ms, struct buf *out, struct err *err)
{
    int ends[2], status = 0;
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(err, "a pipe for %s", words[0]);
    int rc = spawn_into(words, ends[1], &pid, err);
    close(ends[1]);
    if (rc == 0) {
        rc = read_until(ends[0], clock_steady_ms() + timeout_ms, out, err);
        if (rc < 0) {
            err_wrap(err, "%s", words[0]);
            kill(pid, SIGKILL);
        }
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            continue;
        if (rc == 0)
            rc = outcome(words[0], status, out, err);
    }
    close(ends[0]);
    return rc;
}
