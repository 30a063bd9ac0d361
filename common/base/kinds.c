/* kinds.c - names of the shared vocabularies; see kinds.h. */
#include "common/base/kinds.h"

#include <string.h>

static const char *const cause_names[CAUSE_END] = {
    [CAUSE_NONE] = "",
#define X(tag, name) [CAUSE_##tag] = name,
    CAUSES(X)
#undef X
};

static const char *const role_names[ROLE_END] = {
    [ROLE_USER] = "user",
    [ROLE_OPERATOR] = "operator",
    [ROLE_WORKER] = "worker",
    [ROLE_ADMIN] = "admin",
    [ROLE_PILOT] = "pilot",
    [ROLE_TOKEN] = "token",
};

const char *cause_name(enum cause cause)
{
    CHECK(cause >= 0 && cause < CAUSE_END);
    return cause_names[cause];
}

int cause_from_name(const char *name, enum cause *out, struct err *err)
{
    for (int i = 1; i < CAUSE_END; i++)
        if (strcmp(cause_names[i], name) == 0) {
            *out = (enum cause)i;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "'%.40s' is not a cause, expected one of success, exit, signal, oom, "
                   "time_limit, preempted, worker_lost, shepherd_lost, launch_failed, stalled, "
                   "diverged, cancelled, dependency, pruned, reused",
                   name);
}

const char *role_name(enum role role)
{
    CHECK(role > 0 && role < ROLE_END);
    return role_names[role];
}

int role_from_name(const char *name, enum role *out, struct err *err)
{
    for (int i = 1; i < ROLE_END; i++)
        if (strcmp(role_names[i], name) == 0) {
            *out = (enum role)i;
            return 0;
        }
    return err_set(err, ERR_INVALID,
                   "'%.40s' is not a role, expected user, operator, worker, admin or pilot",
                   name);
}
