/* secrets.h - secrets of the attempts that are about to start.
 *
 * An attempt whose spec has `secrets:` waits (pending.c) while they are asked of the coordinator,
 * with a key pair made for this question: what comes is sealed to it and opened here, into one
 * sealed memfd for each secret. Those are inherited by the shepherd and, opened anew for reading,
 * by its ranks. A value is never in a file, a plan, an argument or an environment, nor asked for
 * again: it lives as long as the shepherd. */
#ifndef ATHANOR_DAEMON_SECRETS_H
#define ATHANOR_DAEMON_SECRETS_H

#include "common/base/err.h"
#include "common/wire/wire.h"
#include "worker/daemon/account.h"
#include "worker/daemon/code.h"

#define SECRETS_ASK_AGAIN_MS 5000u

struct daemon;
struct attempt_secrets; /* of one attempt */

/* What an attempt got, in order of its spec's names. */
struct secret_fds {
    int *fds; /* closed and freed by secret_fds_close */
    size_t count;
};
void secret_fds_close(struct secret_fds *fds);

/* Whether the attempt's secrets are here, asking for them. err: of CODE_FAILED. */
enum code_state secrets_prepare(struct daemon *daemon, const struct msg_start *start,
                                struct err *err) WARN_UNUSED;
/* Gives those of a READY one to the account that the attempt runs as. With none: count 0. */
int secrets_take(struct daemon *daemon, uint64_t attempt_id, const struct account *account,
                 struct secret_fds *out, struct err *err) WARN_UNUSED;
/* The name of the index-th in the order of those; NULL: there are no more. */
const char *secrets_name(const struct daemon *daemon, uint64_t attempt_id, size_t index);
/* The attempt will not be started, or has been. */
void secrets_forget(struct daemon *daemon, uint64_t attempt_id);
void secrets_close(struct daemon *daemon);

void secrets_on_arrival(struct daemon *daemon, const struct msg_secrets *secrets);
/* True when it was the answer to a question of ours. */
bool secrets_on_refused(struct daemon *daemon, const struct msg_refused *refused);
void secrets_on_up(struct daemon *daemon); /* joined: asks again */
void secrets_tick(struct daemon *daemon);

#endif
