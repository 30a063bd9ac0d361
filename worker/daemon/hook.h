/* hook.h - a program of the operator, run beside the loop: its end, or the end of its time. */
#ifndef ATHANOR_DAEMON_HOOK_H
#define ATHANOR_DAEMON_HOOK_H

#include "common/base/err.h"
#include "common/net/loop.h"

#define HOOK_TEXT_MAX 1000u /* the last bytes of its output that are kept */

enum hook_status {
    HOOK_OK = 1,
    HOOK_FAILED,
    HOOK_SIGNAL,
    HOOK_TIMEOUT,
    HOOK_ERROR,
    HOOK_STATUS_END
};

struct hook_result {
    enum hook_status status;
    int code;             /* exit code, or signal number */
    const char *text;     /* end of its output, UTF-8; of ERROR: why it did not run */
    uint64_t ran_at_us;   /* wall clock */
    uint64_t took_ms;
};

typedef void hook_end_fn(void *user, const struct hook_result *result);

struct hook_config {
    struct loop *loop;
    const char *program;           /* absolute path */
    const char *const *arguments;  /* behind its name, NULL-terminated; NULL: none */
    char *const *environment;      /* all of it, "NAME=value"; copied by the fork */
    uint64_t timeout_ms;
    hook_end_fn *on_end;
    void *user;
};

struct hook;

/* The program leads a session and a process group of its own, has /dev/null as input and dies with
 * us. When it ends, or its time is over, whatever is left of its group is killed; then on_end is
 * called, once, from the loop, and the hook is gone. */
struct hook *hook_start(const struct hook_config *config);
/* The same without waiting for its death, which a process within a broken driver may put off for
 * ever. Only when we are about to end. */
void hook_abandon(struct hook *hook);
/* Kills it; on_end is not called. NULL is fine. */
void hook_cancel(struct hook *hook);

const char *
hook_status_name(enum hook_status status); /* "ok" "failed" "signal" "timeout" "error" */
/* "exited with code 3: last line", mem_free. */
char *hook_text(const struct hook_result *result);

#endif
