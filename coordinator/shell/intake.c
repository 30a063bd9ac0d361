/* intake.c - each message to the part that answers it. The server has checked the key, the frame,
 * the order and whether the role may send this message at all (common/net/server.h). */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/log.h"

#include <string.h>

static void on_join(struct shell *shell, const struct server_source *from, uint64_t seq,
                    const struct msg_worker_join *join)
{
    struct err err;
    struct event event = {.kind = EVENT_WORKER_JOIN,
                          .join = {.peer = from->peer_id,
                                   .request_seq = seq,
                                   .principal = from->principal,
                                   .join = join}};

    if (strcmp(join->name, from->principal) != 0) {
        err_set(&err, ERR_DENIED, "the key belongs to '%s', it cannot join as worker '%.100s'",
                from->principal, join->name);
        shell_refuse(shell, from->peer_id, seq, &err);
        return;
    }
    if (recipes_announced(shell, &join->catalogue, &err) < 0) {
        log_warn("worker %s: %s", join->name, err.text);
        shell_refuse(shell, from->peer_id, seq, &err);
        return;
    }
    shell_step(shell, &event);
}

static void on_heartbeat(struct shell *shell, const struct server_source *from, uint64_t seq,
                         const struct msg_heartbeat *heartbeat)
{
    struct event event = {.kind = EVENT_HEARTBEAT,
                          .heartbeat = {.peer = from->peer_id,
                                        .request_seq = seq,
                                        .heartbeat = heartbeat}};
    shell_step(shell, &event);
}

static void on_leave(struct shell *shell, const struct server_source *from, uint64_t seq,
                     const struct msg_worker_leave *leave)
{
    struct event event = {.kind = EVENT_WORKER_LEAVE,
                          .leave = {.peer = from->peer_id, .request_seq = seq, .leave = leave}};
    shell_step(shell, &event);
}

/* What a worker says of itself. */
static void on_node_word(struct shell *shell, const struct server_source *from, uint64_t seq,
                         const struct message *message)
{
    struct event event = {.kind = EVENT_NODE_REPORT};
    if (message->tag == MSG_COPIES) {
        event.kind = EVENT_COPIES;
        event.copies = (struct event_copies){from->peer_id, seq, &message->u.copies};
    } else {
        event.node_report =
            (struct event_node_report){from->peer_id, seq, &message->u.node_report};
    }
    shell_step(shell, &event);
}

static void on_report(struct shell *shell, const struct server_source *from, uint64_t seq,
                      const struct msg_report *reports)
{
    struct event event = {.kind = EVENT_REPORTS,
                          .reports = {.peer = from->peer_id,
                                      .request_seq = seq,
                                      .reports = reports}};
    shell_step(shell, &event);
}

static int token_change(struct shell *shell, const struct msg_key_change *change,
                        const char **out_text, struct err *err)
{
    struct effects *effects = outbox_filling(&shell->outbox);
    const struct token_wanted wanted = {change->principal, change->role, change->public_key,
                                        change->ttl_ms};
    char name[TOKEN_NAME_SIZE];

    if (principals_token(shell->principals, &wanted, clock_wall_us(), effects, name, err) < 0)
        return -1;
    *out_text = arena_strdup(&effects->arena, name);
    return 0;
}

/* Rows and DONE go into the next batch; the table of keys changes at once. */
static int key_change(struct shell *shell, const struct msg_key_change *change, uint64_t *out_count,
                      const char **out_text, struct err *err)
{
    struct effects *effects = outbox_filling(&shell->outbox);
    uint64_t wall_us = clock_wall_us();
    bool changed;
    size_t count = 0;

    if (strcmp(change->action, "enrol") == 0) {
        if (principals_enrol(shell->principals, change->principal, change->role, change->public_key,
                             wall_us, effects, &changed, err) < 0)
            return -1;
        *out_count = changed;
        return 0;
    }
    if (strcmp(change->action, "revoke") == 0) {
        if (principals_revoke(shell->principals, change->principal, change->public_key, wall_us,
                              effects, &count, err) < 0)
            return -1;
        *out_count = count;
        return 0;
    }
    if (strcmp(change->action, "token") == 0) {
        *out_count = 1;
        return token_change(shell, change, out_text, err);
    }
    return err_set(err, ERR_INVALID,
                   "'%.40s' cannot be done to keys, expected enrol, revoke or token",
                   change->action);
}

/* A pilot brings in workers and takes them out again, and touches nobody else: names that begin
 * with its own, whose keys are workers'. A token is for a name that has no key. */
static int pilot_check(const struct shell *shell, const char *pilot,
                       const struct msg_key_change *change, struct err *err)
{
    size_t length = strlen(pilot);
    const char *name = change->principal;
    bool makes = strcmp(change->action, "token") == 0;

    if (!makes && strcmp(change->action, "revoke") != 0)
        return err_set(err, ERR_DENIED, "a pilot makes tokens and revokes keys, nothing else");
    if (strncmp(name, pilot, length) != 0 || name[length] != '-' ||
        !principals_are_workers(shell->principals, name))
        return err_set(err, ERR_DENIED, "'%s' is a pilot: it may have workers '%s-...' only", pilot,
                       pilot);
    if (makes && strcmp(change->role, role_name(ROLE_WORKER)) != 0)
        return err_set(err, ERR_DENIED, "tokens of a pilot have role worker");
    if (makes && principals_has_name(shell->principals, name))
        return err_set(err, ERR_EXISTS, "'%.100s' has a key: revoke it first", name);
    return 0;
}

static int key_change_check(const struct shell *shell, const struct server_source *from,
                            const struct msg_key_change *change, struct err *err)
{
    if (from->role == ROLE_ADMIN)
        return 0;
    if (from->role == ROLE_PILOT)
        return pilot_check(shell, from->principal, change, err);
    return err_set(err, ERR_DENIED, "only the role admin changes keys, '%s' is %s", from->principal,
                   role_name(from->role));
}

static void on_key_change(struct shell *shell, const struct server_source *from, uint64_t seq,
                          const struct msg_key_change *change)
{
    struct err err;
    const char *text = NULL;
    uint64_t count = 0;

    if (key_change_check(shell, from, change, &err) < 0 ||
        key_change(shell, change, &count, &text, &err) < 0) {
        shell_refuse(shell, from->peer_id, seq, &err);
        return;
    }
    log_info("%s: %s key of %s, %llu changed", from->principal, change->action, change->principal,
             (unsigned long long)count);
    struct effects *effects = outbox_filling(&shell->outbox);
    struct message *done = effects_release(effects, ADDRESS_CLIENT, from->peer_id, MSG_DONE);
    done->u.done = (struct msg_done){.request_seq = seq,
                                     .count = count,
                                     .text = text    ? text
                                             : count ? ""
                                                     : "it was so already"};
}

/* ENROLLED follows the rows: a key that was told so is enrolled for good. */
static void on_enrol(struct shell *shell, const struct server_source *from, uint64_t seq,
                     const struct msg_enrol *enrol)
{
    struct effects *effects = outbox_filling(&shell->outbox);
    const char *name;
    enum role role;
    struct err err;

    const struct token_use use = {from->public_key, enrol->public_key, enrol->name,
                                  enrol->otherwise};

    if (principals_use_token(shell->principals, &use, clock_wall_us(), effects, &name, &role,
                             &err) < 0) {
        log_warn("%s enrols nobody: %s", from->principal, err.text);
        shell_refuse(shell, from->peer_id, seq, &err);
        return;
    }
    log_info("%s enrolled %s as %s", from->principal, name, role_name(role));
    struct message *message =
        effects_release(effects, ADDRESS_CLIENT, from->peer_id, MSG_ENROLLED);
    message->u.enrolled = (struct msg_enrolled){seq, arena_strdup(&effects->arena, name),
                                                role_name(role)};
}

static void on_configure(struct shell *shell, const struct server_source *from, uint64_t seq,
                         const struct msg_configure *configure)
{
    struct arena arena = {0};
    struct event event = {.kind = EVENT_CONFIGURE,
                          .configure = {.client = from->peer_id,
                                        .request_seq = seq,
                                        .account = from->principal,
                                        .is_operator =
                                            from->role == ROLE_OPERATOR || from->role == ROLE_ADMIN,
                                        .configure = configure}};

    event.configure.principal_count =
        principals_names(shell->principals, &arena, &event.configure.principals);
    if (strcmp(configure->table, "project") == 0)
        event.configure.secret_count =
            secrets_count(shell->secrets, (struct secret_owner){true, configure->name});
    shell_step(shell, &event);
    arena_done(&arena);
}

static void on_code(struct shell *shell, const struct server_source *from, uint64_t seq,
                    const struct message *message)
{
    bool offers = message->tag == MSG_CODE_OFFER;
    struct event event = {.kind = offers ? EVENT_CODE_OFFER : EVENT_CODE_PUT,
                          .code = {.client = from->peer_id,
                                   .request_seq = seq,
                                   .account = from->principal,
                                   .offer = offers ? &message->u.code_offer : NULL,
                                   .put = offers ? NULL : &message->u.code_put}};
    shell_step(shell, &event);
}

static void on_removed(struct shell *shell, const struct server_source *from, uint64_t seq,
                       const struct msg_removed *removed)
{
    struct event event = {
        .kind = EVENT_REMOVED,
        .removed = {.peer = from->peer_id, .request_seq = seq, .removed = removed}};
    shell_step(shell, &event);
}

/* Somebody has heard from a later leader: a look at the lease settles it. */
static void on_newer_epoch(struct shell *shell, const struct envelope *envelope)
{
    log_warn("a peer knows epoch %llu, ours is %llu", (unsigned long long)envelope->epoch,
             (unsigned long long)shell->lease.epoch);
    shell_mind_tenure(shell); /* the pulse will know within a fifth of the lease */
}

static void refuse_direction(struct shell *shell, const struct server_source *from, uint64_t seq,
                             const struct message *message)
{
    struct err err;

    err_set(&err, ERR_PROTOCOL, "%s is not a request", msg_name(message->tag));
    shell_refuse(shell, from->peer_id, seq, &err);
}

void intake_message(void *user, const struct server_source *from, const struct envelope *envelope,
                    const struct message *message)
{
    struct shell *shell = user;
    uint64_t seq = envelope->seq;

    if (envelope->epoch > shell->lease.epoch)
        on_newer_epoch(shell, envelope);
    switch (message->tag) {
    case MSG_SUBMIT:
        parked_submit(shell, from, seq, &message->u.submit);
        break;
    case MSG_CONTROL:
        parked_control(shell, from, seq, &message->u.control);
        break;
    case MSG_QUERY:
        answer_query(shell, from, seq, &message->u.query);
        break;
    case MSG_KEY_CHANGE:
        on_key_change(shell, from, seq, &message->u.key_change);
        break;
    case MSG_ENROL:
        on_enrol(shell, from, seq, &message->u.enrol);
        break;
    case MSG_CONFIGURE:
        on_configure(shell, from, seq, &message->u.configure);
        break;
    case MSG_CODE_OFFER:
    case MSG_CODE_PUT:
        on_code(shell, from, seq, message);
        break;
    case MSG_CODE_GET:
        answer_code(shell, from, seq, &message->u.code_get);
        break;
    case MSG_WORKER_JOIN:
        on_join(shell, from, seq, &message->u.worker_join);
        break;
    case MSG_HEARTBEAT:
        on_heartbeat(shell, from, seq, &message->u.heartbeat);
        break;
    case MSG_WORKER_LEAVE:
        on_leave(shell, from, seq, &message->u.worker_leave);
        break;
    case MSG_REPORT:
        on_report(shell, from, seq, &message->u.report);
        break;
    case MSG_COLLECT:
        parked_collect(shell, from, seq, &message->u.collect);
        break;
    case MSG_REMOVED:
        on_removed(shell, from, seq, &message->u.removed);
        break;
    case MSG_COPIES:
    case MSG_NODE_REPORT:
        on_node_word(shell, from, seq, message);
        break;
    case MSG_SECRET_CHANGE:
        secret_change(shell, from, seq, &message->u.secret_change);
        break;
    case MSG_SECRET_GET:
        secret_get(shell, from, seq, &message->u.secret_get);
        break;
    case MSG_EXEC:
        exec_open(shell, from, seq, &message->u.exec);
        break;
    case MSG_EXEC_DATA:
    case MSG_EXEC_CREDIT:
    case MSG_EXEC_RESIZE:
    case MSG_EXEC_ENDED:
        exec_relay(shell, from, message);
        break;
    case MSG_EXEC_OPENED:
    case MSG_EXEC_START:
    case MSG_HELLO: /* answered by the server */
    case MSG_WELCOME:
    case MSG_REFUSED:
    case MSG_DONE:
    case MSG_SUBMITTED:
    case MSG_CHECKED:
    case MSG_TABLE:
    case MSG_WORKER_WELCOME:
    case MSG_HEARTBEAT_ACK:
    case MSG_START:
    case MSG_STOP:
    case MSG_CHECKPOINT_NOW:
    case MSG_REPORT_ACK:
    case MSG_ATTEMPT_FENCE:
    case MSG_CHECKPOINT_DROP:
    case MSG_NODE_ACK:
    case MSG_GANG_MEET:
    case MSG_GANG_MET:
    case MSG_GANG_BEAT:
    case MSG_GANG_FENCE:
    case MSG_GANG_FENCED:
    case MSG_GANG_ASK:
    case MSG_GANG_TELL:
    case MSG_GANG_END:
    case MSG_GANG_EXEC:
    case MSG_ENROLLED:
    case MSG_CODE_STATE:
    case MSG_CODE_CHUNK:
    case MSG_COPY_PERMIT:
    case MSG_REMOVE:
    case MSG_COPY_GET:
    case MSG_COPY_DATA:
    case MSG_SECRETS:
    case MSG_END:
        refuse_direction(shell, from, seq, message);
        break;
    }
}
