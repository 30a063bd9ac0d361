/* secret.c - requests about secrets: an account's own changes, and what a worker may have for a job
 * that it starts. No value, in clear or encrypted, is ever logged. */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/store/loader.h"

#include <string.h>

static void each_secret(void *user, const struct row_secret *row)
{
    secrets_load(user, row);
}

int secrets_refresh(struct shell *shell, struct err *err)
{
    secrets_clear(shell->secrets);
    return loader_secrets(shell->options->db, each_secret, shell->secrets, err);
}

static int change_do(struct shell *shell, const char *account,
                     const struct msg_secret_change *change, struct err *err)
{
    struct effects *effects = outbox_filling(&shell->outbox);
    uint64_t wall_us = clock_wall_us();

    if (strcmp(change->action, "set") == 0)
        return secrets_set(shell->secrets, account, change->name, &change->sealed, wall_us, effects,
                           err);
    if (strcmp(change->action, "remove") == 0)
        return secrets_remove(shell->secrets, account, change->name, wall_us, effects, err);
    return err_set(err, ERR_INVALID,
                   "'%.40s' cannot be done to secrets, expected set or remove", change->action);
}

/* DONE follows the row: a secret that was told so is stored. */
void secret_change(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                   const struct msg_secret_change *change)
{
    struct err err;

    if (change_do(shell, from->principal, change, &err) < 0) {
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    log_info("%s: %s secret %s", from->principal, change->action, change->name);
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
        rc = secrets_give(shell->secrets, wanted->account, wanted->items[i].value, public_key, &box,
                          err);
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
