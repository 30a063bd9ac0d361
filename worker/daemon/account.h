/* account.h - which account of this machine a job runs as. */
#ifndef ATHANOR_DAEMON_ACCOUNT_H
#define ATHANOR_DAEMON_ACCOUNT_H

#include "worker/daemon/options.h"

#include <sys/types.h>

#define ACCOUNT_NAME_MAX 63u /* NURSERY_USER_BYTES without its end */

struct account {
    char name[ACCOUNT_NAME_MAX + 1]; /* "": our own, nothing is changed */
    uid_t uid;
    gid_t gid;
};

/* Of a job that `principal` has submitted: --job-user, or what --job-accounts says, or our own. The
 * root account only with --allow-root-jobs. Errors: ERR_NOT_FOUND (no such account, or nothing says
 * which), ERR_DENIED (root), ERR_IO and ERR_INVALID (the file, with the line). */
int account_find(const struct options *options, const char *principal, struct account *out,
                 struct err *err) WARN_UNUSED;

/* Looks up the line of `principal` in the text of a file: "principal account" lines, # comments,
 * and
 * * for everybody else. Errors: ERR_INVALID, ERR_NOT_FOUND. */
int account_line(const char *text, const char *principal, char name[ACCOUNT_NAME_MAX + 1],
                 struct err *err) WARN_UNUSED;

#endif
