/* hook.c - see hook.h. */
#include "worker/daemon/hook.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/attempt/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct hook {
    struct hook_config config;
    pid_t pid; /* 0: it was never started */
    int pidfd, out_fd;
    struct loop_watch *pid_watch, *out_watch;
    struct loop_timer timer;
    bool timed_out;
    int error; /* errno of the start */
    uint64_t started_ms, ran_at_us;
    struct buf text;
};

const char *hook_status_name(enum hook_status status)
{
    static const char *const names[HOOK_STATUS_END] = {
        "", "ok", "failed", "signal", "timeout", "error"};
    CHECK(status > 0 && status < HOOK_STATUS_END);
    return names[status];
}

/* ---- in the child: only async-signal-safe calls, because ZeroMQ has threads ------------------ */

#define ARGUMENTS_MAX 8u

static void child_run(const struct hook_config *config, pid_t parent, int out)
{
    char *arguments[ARGUMENTS_MAX + 2] = {(char *)config->program};
    for (size_t i = 0; config->arguments && config->arguments[i] && i < ARGUMENTS_MAX; i++)
        arguments[i + 1] = (char *)config->arguments[i];
    int in = open("/dev/null", O_RDONLY);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent && setsid() >= 0 && in >= 0 &&
        dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        dup2(out, STDERR_FILENO) >= 0 && chdir("/") == 0 &&
        close_range(STDERR_FILENO + 1, UINT32_MAX, CLOSE_RANGE_CLOEXEC) == 0) {
        process_signals_reset();
        execve(config->program, arguments, config->environment);
    }
    const char *why = strerrordesc_np(errno);
    ssize_t wrote = why ? write(out, why, strlen(why)) : 0;
    (void)wrote;
    _exit(127);
}

/* ---- in the daemon --------------------------------------------------------------------------- */

static void hook_free(struct hook *hook)
{
    loop_remove(hook->pid_watch);
    loop_remove(hook->out_watch);
    loop_timer_stop(&hook->timer);
    if (hook->pidfd >= 0)
        close(hook->pidfd);
    if (hook->out_fd >= 0)
        close(hook->out_fd);
    buf_done(&hook->text);
    mem_free(hook);
}

/* Reads what is there; keeps the end of it. False when nobody can write any more. */
static bool output_read(struct hook *hook)
{
    char bytes[4096];
    ssize_t got;
    while ((got = read(hook->out_fd, bytes, sizeof bytes)) > 0) {
        buf_add(&hook->text, bytes, (size_t)got);
        if (hook->text.length > 8 * HOOK_TEXT_MAX)
            buf_drop(&hook->text, hook->text.length - HOOK_TEXT_MAX);
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR);
}

static void on_output(void *user, unsigned events)
{
    struct hook *hook = user;
    (void)events;
    if (output_read(hook))
        return;
    loop_remove(hook->out_watch);
    hook->out_watch = NULL;
}

static void text_make_printable(struct hook *hook)
{
    struct buf *text = &hook->text;
    if (text->length > HOOK_TEXT_MAX)
        buf_drop(text, text->length - HOOK_TEXT_MAX);
    while (text->length && strchr(" \n\r\t", text->bytes[text->length - 1]))
        text->length--;
    bool utf8 = text_is_utf8(text->length ? text->bytes : "", text->length);
    for (size_t i = 0; i < text->length; i++)
        if (text->bytes[i] == '\0' || (!utf8 && (unsigned char)text->bytes[i] >= 0x80))
            text->bytes[i] = '?';
    buf_putc(text, '\0');
}

static void result_make(struct hook *hook, int status, struct hook_result *out)
{
    *out = (struct hook_result){.ran_at_us = hook->ran_at_us,
                                .took_ms = clock_steady_ms() - hook->started_ms};
    if (hook->error) {
        out->status = HOOK_ERROR;
        buf_puts(&hook->text, strerror(hook->error));
    } else if (hook->timed_out) {
        out->status = HOOK_TIMEOUT;
    } else if (WIFSIGNALED(status)) {
        out->status = HOOK_SIGNAL;
        out->code = WTERMSIG(status);
    } else {
        out->code = WEXITSTATUS(status);
        out->status = out->code ? HOOK_FAILED : HOOK_OK;
    }
    text_make_printable(hook);
    out->text = hook->text.bytes;
}

static void hook_end(struct hook *hook, int status)
{
    struct hook_result result;
    struct hook_config config = hook->config;
    result_make(hook, status, &result);
    config.on_end(config.user, &result);
    hook_free(hook);
}

static void on_pidfd(void *user, unsigned events)
{
    struct hook *hook = user;
    int status = 0;
    (void)events;
    kill(-hook->pid, SIGKILL); /* ours to reap and not reaped yet: the group is its own */
    while (waitpid(hook->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    output_read(hook);
    hook_end(hook, status);
}

static void on_timeout(void *user)
{
    struct hook *hook = user;
    if (!hook->pid) { /* never started: told from the loop all the same */
        hook_end(hook, 0);
        return;
    }
    hook->timed_out = true;
    kill(-hook->pid, SIGKILL);
    kill(hook->pid, SIGKILL); /* it may not lead its group yet */
}

static int hook_fork(struct hook *hook)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_run(&hook->config, parent, ends[1]);
    int error = errno;
    close(ends[1]);
    hook->out_fd = ends[0];
    fcntl(hook->out_fd, F_SETFL, O_NONBLOCK);
    if (pid > 0)
        hook->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    errno = pid < 0 ? error : errno;
    if (pid > 0 && hook->pidfd < 0) {
        error = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        errno = error;
        return -1;
    }
    hook->pid = pid > 0 ? pid : 0;
    return pid > 0 ? 0 : -1;
}

struct hook *hook_start(const struct hook_config *config)
{
    struct hook *hook = mem_zalloc(sizeof *hook);
    hook->config = *config;
    hook->pidfd = hook->out_fd = -1;
    hook->started_ms = clock_steady_ms();
    hook->ran_at_us = clock_wall_us();
    hook->timer = (struct loop_timer){.fire = on_timeout, .user = hook};
    if (hook_fork(hook) < 0) {
        hook->error = errno;
        loop_timer_start(config->loop, &hook->timer, 0);
        return hook;
    }
    hook->pid_watch = loop_add_fd(config->loop, hook->pidfd, LOOP_READ, on_pidfd, hook);
    hook->out_watch = loop_add_fd(config->loop, hook->out_fd, LOOP_READ, on_output, hook);
    loop_timer_start(config->loop, &hook->timer, config->timeout_ms);
    return hook;
}

void hook_abandon(struct hook *hook)
{
    if (!hook)
        return;
    if (hook->pid) {
        kill(-hook->pid, SIGKILL);
        kill(hook->pid, SIGKILL);
    }
    hook_free(hook);
}

void hook_cancel(struct hook *hook)
{
    if (!hook)
        return;
    if (hook->pid) {
        kill(-hook->pid, SIGKILL);
        kill(hook->pid, SIGKILL); /* it may not lead its group yet */
        while (waitpid(hook->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    hook_free(hook);
}

char *hook_text(const struct hook_result *result)
{
    char took[PARSE_TEXT_SIZE], how[80];
    const char *line = result->text ? strrchr(result->text, '\n') : NULL;
    line = line ? line + 1 : result->text;
    if (result->status == HOOK_TIMEOUT)
        snprintf(how, sizeof how, "did not end within %s",
                 format_duration_short(result->took_ms, took));
    else if (result->status == HOOK_SIGNAL)
        snprintf(how, sizeof how, "died of signal %d", result->code);
    else if (result->status == HOOK_ERROR)
        snprintf(how, sizeof how, "could not be run");
    else
        snprintf(how, sizeof how, "exited with code %d", result->code);
    return mem_printf("%s%s%s", how, line && line[0] ? ": " : "", line ? line : "");
}
