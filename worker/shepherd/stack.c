/* stack.c - see stack.h. */
#include "worker/shepherd/stack.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/attempt/procs.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What can look into another process, the cheapest first. %d is the process. */
static const char *const debuggers[][8] = {
    {"eu-stack", "-p", "%d", NULL},
    {"gdb", "-nx", "-batch", "-p", "%d", "-ex", "thread apply all backtrace 40", NULL},
};

static void line_add(pid_t pid, const char *file, const char *label, struct buf *out)
{
    char path[64], *text = NULL;
    size_t length;
    struct err err = {0};
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    if (file_read(path, 4096, &text, &length, &err) == 0 && length > 0)
        buf_printf(out, "%s %.*s\n", label, (int)strcspn(text, "\n"), text);
    mem_free(text);
}

static void state_add(pid_t pid, struct buf *out)
{
    char path[64], *text = NULL;
    size_t length;
    struct err err = {0};
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    if (file_read(path, 65536, &text, &length, &err) == 0) {
        const char *line = strstr(text, "State:");
        if (line)
            buf_printf(out, "%.*s\n", (int)strcspn(line, "\n"), line);
    }
    mem_free(text);
}

static pid_t debugger_start(const char *const *words, pid_t pid, int out_fd)
{
    char number[16];
    const char *arguments[8] = {NULL};
    snprintf(number, sizeof number, "%d", (int)pid);
    for (size_t i = 0; words[i]; i++)
        arguments[i] = strcmp(words[i], "%d") == 0 ? number : words[i];
    pid_t child = fork();
    if (child != 0)
        return child;
    int null = open("/dev/null", O_RDWR);
    process_signals_reset();
    if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(out_fd, STDOUT_FILENO) >= 0 &&
        dup2(null, STDERR_FILENO) >= 0)
        execvp(arguments[0], (char *const *)arguments);
    _exit(127);
}

static void output_read(int fd, uint64_t until_ms, struct buf *out)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char bytes[4096];
    for (uint64_t now = clock_steady_ms(); now < until_ms; now = clock_steady_ms()) {
        if (poll(&ready, 1, (int)(until_ms - now)) <= 0)
            continue;
        ssize_t got = read(fd, bytes, sizeof bytes);
        if (got <= 0)
            return;
        buf_add(out, bytes, min_u64((uint64_t)got, STACK_BYTES_MAX -
                                                       min_u64(out->length, STACK_BYTES_MAX)));
    }
}

/* Returns whether the debugger had something to say. */
static bool debugger_ask(const char *const *words, pid_t pid, uint64_t until_ms, struct buf *out)
{
    int ends[2];
    size_t before = out->length;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    pid_t child = debugger_start(words, pid, ends[1]);
    close(ends[1]);
    if (child > 0) {
        output_read(ends[0], until_ms, out);
        kill(child, SIGKILL); /* ended already, or out of time */
        waitpid(child, NULL, 0);
    }
    close(ends[0]);
    return out->length > before;
}

enum stack_finding stack_find(const char *description)
{
    static const char *const waits[] = {"opal_progress", "PMPI_", " MPI_", "ompi_request",
                                        "nccl", "gloo"};
    const char *state = strstr(description, "State:");
    if (state && (strncmp(state, "State:\tT", 8) == 0 || strncmp(state, "State:\tt", 8) == 0))
        return STACK_STOPPED;
    for (size_t i = 0; i < ARRAY_COUNT(waits); i++)
        if (strstr(description, waits[i]))
            return STACK_WAITING;
    bool has_stack = strstr(description, "#0") || strstr(description, "#1");
    return has_stack ? STACK_ELSEWHERE : STACK_UNKNOWN;
}

void stack_describe(pid_t pid, struct buf *out)
{
    uint64_t until_ms = clock_steady_ms() + STACK_WAIT_MS;
    state_add(pid, out);
    line_add(pid, "wchan", "Waits in the kernel in:", out);
    line_add(pid, "syscall", "System call:", out);
    for (size_t i = 0; i < ARRAY_COUNT(debuggers); i++)
        if (debugger_ask(debuggers[i], pid, until_ms, out))
            return;
    buf_puts(out, "No stack: install elfutils (eu-stack) or gdb on the workers to see one.\n");
}
