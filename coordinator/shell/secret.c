/* secret.c - requests about secrets: changes of an account's own and of projects', and what a
 * worker may have for a job that it starts. No value, in clear or encrypted, is ever logged. */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/store/loader.h"

#include <string.h>

static void each_secret(void *user, const struct row_secret *row)
{
    secrets_load(user, row);
}

static void each_shared(void *user, const struct row_project_secret *row)
{
    secrets_load_shared(user, row);
}

int secrets_refresh(struct shell *shell, struct err *err)
{
    const char *db = shell->options->db;
    secrets_clear(shell->secrets);
    return loader_secrets(db, each_secret, shell->secrets, err) < 0
               ? -1
               : loader_project_secrets(db, each_shared, shell->secrets, err);
}

static int change_do(struct shell *shell, const struct server_source *from,
                     const struct msg_secret_change *request, struct err *err)
{
    struct effects *effects = outbox_filling(&shell->outbox);
    bool is_project = request->project && request->project[0];
    bool is_operator = from->role == ROLE_OPERATOR || from->role == ROLE_ADMIN;
    const struct secret_change change = {
        .owner = {is_project, is_project ? request->project : from->principal},
        .name = request->name,
        .by = from->principal,
        .wall_us = clock_wall_us()};

    if (is_project &&
        core_secret_right(shell->core, request->project, from->principal, is_operator, err) < 0)
        return -1;
    if (strcmp(request->action, "set") == 0)
        return secrets_set(shell->secrets, &change, &request->sealed, effects, err);
    if (strcmp(request->action, "remove") == 0)
        return secrets_remove(shell->secrets, &change, effects, err);
    return err_set(err, ERR_INVALID,
                   "'%.40s' cannot be done to secrets, expected set or remove", request->action);
}

/* DONE follows the row: a secret that was told so is stored. */
void secret_change(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                   const struct msg_secret_change *change)
{
    struct err err;

    if (change_do(shell, from, change, &err) < 0) {
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    bool is_project = change->project && change->project[0];
    log_info("%s: %s secret %s%s%s", from->principal, change->action, change->name,
             is_project ? " of project " : "", is_project ? change->project : "");
    struct effects *effects = outbox_filling(&shell->outbox);
    struct message *done = effects_release(effects, ADDRESS_CLIENT, from->peer_id, MSG_DONE);
    done->u.done = (struct msg_done){.request_seq = request_seq, .count = 1, .text = ""};
}

static int boxes_make(struct shell *shell, const struct core_secrets *wanted,
                      const char *public_key, struct arena *arena, struct rec_sealed_secret *out,
                      struct err *err)
{
    struct buf box = {0};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < wanted->count; i++) {
        buf_clear(&box);
        rc = secrets_give(shell->secrets, wanted->account, wanted->project,
                          wanted->items[i].value, public_key, &box, err);
        if (rc == 0)
            out[i] = (struct rec_sealed_secret){
                arena_strdup(arena, wanted->items[i].name),
                {arena_strndup(arena, box.bytes, box.length), box.length}};
    }
    buf_done(&box);
    return rc;
}

/* Which secrets these are the job's spec says, not the worker. */
void secret_get(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                const struct msg_secret_get *get)
{
    struct effects *effects = outbox_filling(&shell->outbox);
    struct arena *arena = &effects->arena;
    struct core_secrets wanted;
    struct err err;

    if (core_secrets_find(shell->core, get->attempt_id, from->peer_id, arena, &wanted, &err) < 0) {
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    struct rec_sealed_secret *boxes = arena_alloc(arena, (wanted.count + 1) * sizeof *boxes);
    if (boxes_make(shell, &wanted, get->public_key, arena, boxes, &err) < 0) {
        log_warn("attempt %llu: %s", (unsigned long long)get->attempt_id, err.text);
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    struct message *answer = effects_release(effects, ADDRESS_WORKER, from->peer_id, MSG_SECRETS);
    answer->u.secrets = (struct msg_secrets){.request_seq = request_seq,
                                             .attempt_id = get->attempt_id,
                                             .secrets = boxes,
                                             .secrets_count = wanted.count};
}
