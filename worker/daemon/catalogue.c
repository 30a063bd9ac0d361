/* catalogue.c - asking the engine what it can do; see inventory.h. */
#include "worker/daemon/inventory.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/wire/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CATALOGUE_WAIT_MS 30000u /* a loaded machine reading a large program from a slow disk */

extern char **environ;

static int engine_start(const char *engine, pid_t *out_pid, int *out_fd, struct err *err)
{
    int ends[2];
    posix_spawn_file_actions_t actions;
    char *const arguments[] = {(char *)engine, "--catalogue", NULL};
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(err, "make a pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    errno = posix_spawn(out_pid, engine, &actions, NULL, arguments, environ);
    int rc = errno ? err_errno(err, "run '%s --catalogue'", engine) : 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (rc < 0)
        close(ends[0]);
    else
        *out_fd = ends[0];
    return rc;
}

static int output_read(int fd, struct buf *out, struct err *err)
{
    uint64_t until_ms = clock_steady_ms() + CATALOGUE_WAIT_MS;
    for (;;) {
        char bytes[16384];
        uint64_t now_ms = clock_steady_ms();
        struct pollfd polled = {fd, POLLIN, 0};
        if (now_ms >= until_ms || poll(&polled, 1, (int)(until_ms - now_ms)) == 0)
            return err_set(err, ERR_TIMEOUT, "no answer within %u s", CATALOGUE_WAIT_MS / 1000);
        ssize_t got = read(fd, bytes, sizeof bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "read");
        if (got == 0)
            return 0;
        buf_add(out, bytes, (size_t)got);
        if (out->length > CATALOGUE_BYTES_MAX)
            return err_set(err, ERR_LIMIT, "more than %zu bytes", CATALOGUE_BYTES_MAX);
    }
}

static int output_check(const struct buf *output, int status, struct err *err)
{
    json_error_t why;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(err, ERR_IO, "it failed (wait status %d)", status);
    json_t *root = json_loadb(buf_text(output), output->length, 0, &why);
    bool good = json_is_array(json_object_get(root, "recipes"));
    if (!good)
        err_set(err, ERR_PROTOCOL, "what it printed is not a catalogue: %s",
                root ? "no list of recipes" : why.text);
    json_decref(root);
    return good ? 0 : -1;
}

int inventory_catalogue(const char *engine, char **out, struct err *err)
{
    struct buf output = {0};
    pid_t pid;
    int fd = -1, status = 0;
    if (engine_start(engine, &pid, &fd, err) < 0)
        return -1;
    int rc = output_read(fd, &output, err);
    close(fd);
    if (rc < 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (rc == 0)
        rc = output_check(&output, status, err);
    if (rc < 0) {
        buf_done(&output);
        return err_wrap(err, "'%s --catalogue'", engine);
    }
    *out = buf_take(&output);
    return 0;
}
