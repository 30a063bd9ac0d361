/* control.c - requests to shepherds; see daemon.h.
 *
 * One text a connection, repeated until it is answered: a shepherd that has just been started
 * does not listen yet, and one that is busy answers late. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static void control_next(struct attempt *attempt);

static char **text_now(struct attempt *attempt)
{
    return attempt->stop_text ? &attempt->stop_text : &attempt->checkpoint_text;
}

void control_close(struct attempt *attempt)
{
    loop_remove(attempt->control_watch);
    attempt->control_watch = NULL;
    if (attempt->control_fd >= 0)
        close(attempt->control_fd);
    attempt->control_fd = -1;
    lines_done(&attempt->control_in);
    lines_out_done(&attempt->control_out);
}

static void on_again(void *user)
{
    control_next(user);
}

static void control_again(struct attempt *attempt)
{
    control_close(attempt);
    attempt->control_timer.fire = on_again;
    attempt->control_timer.user = attempt;
    loop_timer_start(attempt->daemon->loop, &attempt->control_timer, DAEMON_CONTROL_AGAIN_MS);
}

/* Any answer settles the text: a refusal would be refused again. */
static void answered(struct attempt *attempt, const char *line)
{
    char **text = text_now(attempt);
    if (strstr(line, "\"ok\": true") == NULL)
        log_warn("attempt %" PRIu64 ": the shepherd answers %s to %s", attempt->attempt_id, line,
                 *text);
    mem_free(*text);
    *text = NULL;
    control_close(attempt);
    control_next(attempt);
}

static void on_control(void *user, unsigned events)
{
    struct attempt *attempt = user;
    struct err err = {0};
    char *line;
    size_t length;
    (void)events;
    if (lines_flush(&attempt->control_out, attempt->control_fd, &err) < 0 ||
        lines_fill(&attempt->control_in, attempt->control_fd, &err) < 0) {
        control_again(attempt);
        return;
    }
    int rc = lines_next(&attempt->control_in, &line, &length, &err);
    if (rc > 0)
        answered(attempt, line);
    else if (rc < 0 || attempt->control_in.ended)
        control_again(attempt);
    else
        loop_watch_set(attempt->control_watch,
                       LOOP_READ | (attempt->control_out.buf.length ? LOOP_WRITE : 0));
}

static int control_connect(struct attempt *attempt, struct err *err)
{
    int folder_fd = -1;
    char *path = folder_socket_path(attempt->folder, FOLDER_CONTROL, &folder_fd, err);
    if (!path)
        return -1;
    int rc = unix_connect(path, &attempt->control_fd, err);
    close(folder_fd);
    mem_free(path);
    return rc;
}

static void control_next(struct attempt *attempt)
{
    struct err err = {0};
    const char *text = *text_now(attempt);
    if (!text || attempt->control_fd >= 0 || attempt->state != ATTEMPT_RUNNING)
        return;
    if (control_connect(attempt, &err) < 0 || lines_put(&attempt->control_out, text, &err) < 0) {
        control_again(attempt);
        return;
    }
    attempt->control_watch = loop_add_fd(attempt->daemon->loop, attempt->control_fd,
                                         LOOP_READ | LOOP_WRITE, on_control, attempt);
}

void control_stop(struct attempt *attempt, enum cause cause, uint64_t grace_ms)
{
    mem_free(attempt->stop_text);
    attempt->stop_text =
        mem_printf("{\"type\": \"stop\", \"cause\": \"%s\", \"grace_ms\": %" PRIu64 "}",
                   cause_name(cause), grace_ms);
    control_close(attempt); /* a text under way is another one now */
    control_next(attempt);
}

void control_checkpoint(struct attempt *attempt)
{
    if (attempt->checkpoint_text)
        return;
    attempt->checkpoint_text = mem_strdup("{\"type\": \"checkpoint_now\"}");
    control_next(attempt);
}
